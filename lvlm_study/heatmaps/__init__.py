"""Heatmaps: every method answers the same call and speaks the same orientation, high = important.

A method is one function in one file, `name(target, *, seed=0, **options) -> Tensor`, entered below.
"""

from ..models import with_model
from .attention import attention, rollout
from .base import Cost, Explanation, run
from .controls import center, random, sobel
from .eagle import eagle, eagle_lazy
from .gae import gae
from .grad_cam import grad_cam
from .gradient_alignment import ga
from .igos import igos
from .igos_pp import igos_pp
from .iia import iia
from .integrated_gradients import integrated_gradients
from .llava_cam import llava_cam
from .occlusion import occlusion
from .rise import rise, rise_with_error
from .smoothgrad import smoothgrad
from .tam import tam

METHODS = {
    "igos": igos,
    "igos++": igos_pp,
    "grad_cam": grad_cam,
    "gae": gae,
    "attention": attention,
    "rollout": rollout,
    "llava_cam": llava_cam,
    "rise": rise,
    "occlusion": occlusion,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "iia": iia,
    "tam": tam,
    "eagle": eagle,
    "eagle_lazy": eagle_lazy,
    "ga": ga,
    "random": random,
    "center": center,
    "sobel": sobel,
}

__all__ = [
    "METHODS",
    "Cost",
    "Explanation",
    "explain",
    "list_methods",
    "methods",
    "rise_with_error",
]


def methods() -> list[str]:
    """Names that `explain(method=...)` knows."""
    return list(METHODS)


list_methods = methods  # beside list_models and list_benchmarks


@with_model
def explain(
    model,
    image,
    question: str | None = None,
    method: str = "igos",
    seed: int = 0,
    baseline="blur",
    **options,
) -> Explanation:
    """Explain a model's answer to `question` about `image` as a heatmap over its pixels.

    `model` may be the name of one: it is loaded, and the last two named are kept. `image` is
    anything that `load_image` opens, or a benchmark item, which brings its question. `baseline` is
    the picture without information: a name of `baselines()`, or a picture of the image's size.
    `options` go to the method (see its function), or choose the target: `answer` (any text, by
    default what the model says), `threshold`, `tokens` ("llr", "all", "keywords", "word" or token
    numbers), `word`, `exclude` (see `answers.make_target`). Raises StudyError for unknown names
    and values that make no sense; an answer without crucial tokens is no error but a status.
    """
    return run(METHODS, model, image, question, method, seed, baseline, options)
