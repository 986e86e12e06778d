"""The oldest packages that the code runs with; asked at the start of every command.

`LEAST` is the same as in pyproject.toml (a test holds them together) and is asked for again
because an environment may be older than what pip once made of it. Why these: before transformers
5.18 its models take no `mm_encoder_outputs`, before 5.21 the features of Idefics3 are no tensor;
5.21 itself asks for torch 2.6, pillow 10.0.1 and the three below it. numpy 2.0 has `trapezoid`;
pandas, scipy and what builds on them are the first made for numpy 2, the last five unargued.
"""

import re
from importlib.metadata import PackageNotFoundError, version

from ..errors import StudyError

LEAST = {
    "transformers": "5.21",
    "tokenizers": "0.23.1",
    "huggingface_hub": "1.31",
    "safetensors": "0.8",
    "torch": "2.6",
    "numpy": "2.0",
    "pandas": "2.2.2",
    "scipy": "1.13",
    "scikit-image": "0.24",
    "statsmodels": "0.14.2",
    "matplotlib": "3.9",
    "seaborn": "0.13",
    "pillow": "10.0.1",
    "pyarrow": "17.0",
    "filelock": "3.12",
    "ipywidgets": "8.0",
    "psutil": "5.9",
    "PyYAML": "6.0",
    "regex": "2024.4.16",
    "tqdm": "4.65",
}


def check() -> None:
    """Raise StudyError for packages that are missing or too old; imports none of them."""
    wrong = {name: found for name in LEAST if (found := _too_old(name))}
    if wrong:
        told = ", ".join(f"{name} {LEAST[name]} ({found})" for name, found in wrong.items())
        asked = " ".join(f"'{name}>={LEAST[name]}'" for name in wrong)
        raise StudyError(f'These commands need {told} or newer; run "pip install {asked}".')


def _too_old(name: str) -> str | None:
    """What is there instead of a package that is new enough."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return "not installed"
    return f"here is {found}" if _numbers(found) < _numbers(LEAST[name]) else None


def _numbers(text: str) -> tuple[int, ...]:
    """The release as numbers: "2.13.0+cpu" -> (2, 13), so that 2.0 is 2 and 2.0.0."""
    release = re.match(r"[\d.]*", text)[0].strip(".").split(".")
    numbers = [int(part) for part in release if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
