"""What can be named on the command line, with a word about each: `lvlm-study list`."""

from inspect import signature

from ..benchmarks import LOADERS
from ..errors import StudyError
from ..heatmaps import METHODS
from ..models import list_models
from ..models.weights import parameters
from .provenance import weight_files


def catalogue() -> str:
    """Models with parameters and size, benchmarks with their number of items, methods."""
    parts = {
        "Models (hub ids and folders can be given too)": {n: model_size(n) for n in list_models()},
        "\nBenchmarks": {name: item_count(name) for name in LOADERS},
        "\nMethods": {n: (f.__doc__ or "").strip().partition("\n")[0] for n, f in METHODS.items()},
    }
    width = max(22, *(len(name) for rows in parts.values() for name in rows))
    none = ["  none yet; make one with 'lvlm-study train NAME'"]
    lines = []
    for title, rows in parts.items():
        lines += [title, *([f"  {name:<{width}}  {told}" for name, told in rows.items()] or none)]
    return "\n".join(lines)


def model_size(name: str) -> str:
    """Parameters and bytes of a model of the zoo."""
    files = weight_files(name)
    size = sum(file.stat().st_size for file in files)
    return f"{parameters(files) / 1e6:.1f} M parameters, {size / 1e6:.1f} MB"


def item_count(name: str) -> str:
    """How many items a benchmark has, where asking does not download it."""
    if "source" in signature(LOADERS[name]).parameters:
        return "from the Hugging Face hub or a folder"
    try:
        return f"{len(LOADERS[name]())} items"
    except (StudyError, OSError) as error:
        return f"not here: {error}"
