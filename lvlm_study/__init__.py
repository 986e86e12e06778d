"""Where do vision-language models look? Heatmaps, their tests, and a book of executed notebooks.

    import lvlm_study as ls
    model = ls.load_model("mini/llava-1.5")
    ex = ls.explain(model, image, question)

Names are fetched when they are first used, so importing this package costs nothing.
"""

import sys
from importlib import import_module
from inspect import signature
from types import ModuleType

_HOME = {
    "load_model": "models",
    "load_benchmark": "benchmarks",
    "Item": "benchmarks",
    "explain": "heatmaps",
    "explain_tokens": "heatmaps.sentences",
    "list_methods": "heatmaps",
    "list_models": "models",
    "list_benchmarks": "benchmarks",
    "methods": "heatmaps",
    "Explanation": "heatmaps",
    "Answer": "models",
    "visual_reliance": "answers",
    "judge": "judging",
    "deletion_insertion": "metrics.faithfulness",
    "Faithfulness": "metrics.faithfulness",
    "StudyError": "errors",
}
_CALLABLE = ("models", "benchmarks")  # submodules named like the function they are for

__all__ = [*_HOME, *_CALLABLE]


class _CallableModule(ModuleType):
    """A submodule that is its main function too: `ls.models()` beside `ls.models.registry`."""

    def __call__(self, *args, **options):
        return self._main(*args, **options)

    @property
    def _main(self):
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self):
        return signature(self._main)


class _Package(ModuleType):
    def __setattr__(self, name, value):
        if name in _CALLABLE and isinstance(value, ModuleType):
            value.__class__ = _CallableModule  # the import system sets submodules through here
        super().__setattr__(name, value)


def __getattr__(name: str):
    if name in _CALLABLE:
        return _import(name)
    if name in _HOME:
        return getattr(_import(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import(module: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{module}")
    except ImportError:
        import_module(f"{__name__}.sweep.requirements").check()  # tells what is too old
        raise


def __dir__():
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
