"""The two profiles: what `mini` and `paper` mean, in one place for commands and notebooks.

`mini` runs on a laptop with what is in the repository. `paper` needs GPUs and the network: the
checkpoints and benchmarks of the paper's tables. Repository names are those of the models' own
pages; they were not fetched here.
"""

from ..errors import unknown
from ..models import models as zoo

PROFILES = ("mini", "paper")
LLAVA_OV = "llava-hf/llava-onevision-qwen2-{}-ov-hf"
TABLES = {  # the models of each table of the paper
    "table1": ("llava-hf/llava-1.5-7b-hf", LLAVA_OV.format("7b"), "nyu-visionx/cambrian-8b"),
    "table4": (
        "llava-hf/llava-1.5-7b-hf",
        *(LLAVA_OV.format(size) for size in ("0.5b", "7b", "72b")),
        *(f"nyu-visionx/cambrian-{size}" for size in ("phi3-3b", "8b", "13b")),
        *(f"YanweiLi/MGM-{size}" for size in ("7B", "13B", "7B-HD")),
    ),
}
BENCHMARKS = {"mini": ("sprites",), "paper": ("mmvp", "mmstar", "cv_bench", "llava_bench")}
SPREAD = (LLAVA_OV.format("72b"),)  # too large for one GPU: run apart, with --device auto


def models(profile: str) -> list[str]:
    """The models of a profile: the zoo, or the three of the paper's main table."""
    check(profile)
    return zoo() if profile == "mini" else list(TABLES["table1"])


def expand(names: list[str]) -> list[str]:
    """Model names with "table1" and "table4" replaced by the models of that table.

    The 72-billion model is left out there: it needs several GPUs and is named by itself.
    """
    every = [one for name in names for one in TABLES.get(name, (name,))]
    left_out = [name for name in SPREAD if name not in names]
    return list(dict.fromkeys(name for name in every if name not in left_out))


def model(profile: str) -> str:
    """The running example of a profile: LLaVA-1.5, small or as released."""
    check(profile)
    return {"mini": "mini/llava-1.5", "paper": TABLES["table1"][0]}[profile]


def benchmarks(profile: str) -> list[str]:
    """The benchmarks of a profile."""
    check(profile)
    return list(BENCHMARKS[profile])


def check(profile: str) -> None:
    """Raise StudyError for a profile that does not exist."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
