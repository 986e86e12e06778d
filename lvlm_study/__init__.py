"""Where do vision-language models look? Heatmaps, their tests, and a book of executed notebooks.

    import lvlm_study as ls
    model = ls.load_model("mini/llava-1.5")
    ex = ls.explain(model, image, question)

    score = ls.deletion_insertion(model, ex)

The folders, in the order of their imports: pixels, scenes, models, then `answers.py` (which words
rest on the picture), benchmarks, heatmaps, metrics, detector, sweep, chapters, and `cli.py`; zoo
stands beside them. README.md here walks one picture through them. Names are fetched when they are
first used, so importing this package costs nothing.
"""

from importlib import import_module

_HOME = {
    "load_model": "models",
    "load_benchmark": "benchmarks",
    "Item": "benchmarks",
    "explain": "heatmaps",
    "explain_tokens": "heatmaps.sentences",
    "show": "heatmaps.show",
    "list_methods": "heatmaps",
    "list_models": "models",
    "list_benchmarks": "benchmarks",
    "Explanation": "heatmaps",
    "Answer": "models",
    "visual_reliance": "answers",
    "judge": "judging",
    "deletion_insertion": "metrics.faithfulness",
    "Faithfulness": "metrics.faithfulness",
    "prompt_shares": "metrics.prompt",
    "PromptShares": "metrics.prompt",
    "StudyError": "errors",
}

__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ImportError:
        import_module(f"{__name__}.sweep.requirements").check()  # tells what is too old
        raise


def __dir__():
    return sorted({*globals(), *__all__})
