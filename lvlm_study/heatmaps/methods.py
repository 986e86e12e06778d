"""Every method in one row: its function, what readers call it, what its values are.

A method is one function in one file, `name(target, *, seed=0, **options) -> Tensor`, and one row
here; every other table of methods is read from this one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .attention import attention, rollout
from .attn_lrp import attnlrp
from .controls import center, difference, random, sobel
from .eagle import eagle, eagle_lazy
from .gae import gae
from .glimpse import glimpse
from .grad_cam import grad_cam
from .gradient_alignment import ga
from .igos import igos
from .igos_pp import igos_pp
from .iia import iia
from .integrated_gradients import integrated_gradients
from .knockout import knockout
from .llava_cam import llava_cam
from .logit_lens import logit_lens
from .occlusion import occlusion
from .relative_attention import relative_attention
from .rise import rise
from .shapley import shapley
from .smoothgrad import smoothgrad
from .tam import tam


@dataclass(frozen=True)
class Method:
    """A method: its function, its title for readers, and the unit written beside its colours.

    `name` is what the command line calls it, by default the function's own name. A `control` knows
    nothing of the model. A sweep's scores are means over `draws` maps. `top` is the greatest value
    that a map can have by definition, where there is one: its colour scale ends there. Without
    `contrast` it asks for one word or for none, and cannot hold two against each other. With
    `several` it asks for scores alone, and can be asked about one of several pictures.
    """

    function: Callable[..., Tensor]
    title: str
    unit: str
    name: str = ""
    control: bool = False
    draws: int = 1
    top: float | None = None
    contrast: bool = True
    several: bool = False

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.function.__name__)


DETAIL = "share of the picture's detail taken away"
EVEN = "attention, 1 = spread evenly"
UNASKED = "attention, 1 = as without a question"

TABLE = (
    Method(igos, "iGOS", DETAIL, top=1.0, several=True),
    Method(igos_pp, "iGOS++", DETAIL, name="igos++", top=1.0, several=True),
    Method(grad_cam, "Grad-CAM", "gradient × feature, nats"),
    Method(gae, "T-MM", "relevance, without a unit"),
    Method(glimpse, "GLIMPSE", "relevance, without a unit"),
    Method(attnlrp, "AttnLRP", "share of the logit"),
    Method(attention, "Attention", EVEN, contrast=False),
    Method(rollout, "Attention rollout", EVEN, contrast=False),
    Method(relative_attention, "Relative attention", UNASKED, contrast=False),
    Method(llava_cam, "LLaVA-CAM", "gradient × feature, nats"),
    Method(rise, "RISE", "effect of showing the place, nats", several=True),
    Method(occlusion, "Occlusion", "loss when the place is covered, nats", several=True),
    Method(shapley, "Shapley values", "share of the score, nats a region", several=True),
    Method(knockout, "Attention knockout", "loss when the place is not attended to, nats"),
    Method(
        integrated_gradients,
        "Integrated gradients",
        "share of the score, nats a pixel",
        several=True,
    ),
    Method(
        smoothgrad, "SmoothGrad", "size of the gradient, nats for full brightness", several=True
    ),
    Method(iia, "IIA", "relevance, without a unit"),
    Method(logit_lens, "Logit lens", "logit above the mean"),
    Method(tam, "TAM", "activation, 0 to 1", contrast=False),
    Method(eagle, "EAGLE", "probability", contrast=False, several=True),
    Method(eagle_lazy, "EAGLE, lazy", "probability", contrast=False, several=True),
    Method(ga, "Gradient alignment", "cosine with the detector's gradients", contrast=False),
    # controls: they never look at the model
    Method(random, "Random map", "drawn by lot", control=True, draws=20),
    Method(center, "Centre blob", "nearness to the centre", control=True),
    Method(sobel, "Sobel edges", "edge strength", control=True),
    Method(difference, "Difference picture", "distance from the baseline, 0 to 1", control=True),
)
BY_NAME = {method.name: method for method in TABLE}
METHODS = {method.name: method.function for method in TABLE}
SEVERAL = [method.name for method in TABLE if method.several]
