"""Which layer Grad-CAM and LLaVA-CAM read: chosen once, on scenes that no result is of.

`tools/choose_layers.py` draws held-out scenes (`scenes.testset.HELD_OUT`), maps them at several
depths and takes the depth with the highest mean insertion minus deletion, which needs no truth. The
answer is entered below by hand, as a share of the way through the usable layers: 0 the first, 1 the
last that the answer depends on. It holds for the model that was asked: one of a mini model says
nothing about a released checkpoint of the same architecture, so entries go by a model's name.
"""

from ..errors import StudyError
from ..pixels.arguments import number, whole

DEPTHS: dict[tuple[str, str], float] = {  # (method, model) -> depth; insertion - deletion, n = 20
    ("grad_cam", "mini/llava-1.5"): 0.5,  # 0.243 [0.015, 0.474]; at 1: 0.032 [-0.259, 0.328]
    ("grad_cam", "mini/llava-ov"): 1.0,  # 0.148 [-0.126, 0.437]
    ("grad_cam", "mini/cambrian-l"): 0.75,  # 0.222 [0.004, 0.420]; at 1: 0.065 [-0.190, 0.314]
    ("grad_cam", "mini/mini-gemini-l"): 0.75,  # 0.193 [-0.062, 0.456]; at 1: 0.029 [-0.256, 0.313]
    ("llava_cam", "mini/llava-1.5"): 0.5,  # 0.036 [-0.188, 0.266]; no layer is above chance
}


def depth_of(method: str, adapter, layer, depth) -> float | None:
    """The depth that is meant by `layer="auto"` or `depth`; None where a layer is named, or none.

    StudyError for both at once, for a depth outside [0, 1], for what is no layer, and for a model
    without an entry.
    """
    if layer is not None and depth is not None:
        raise StudyError(f"{method} takes a layer or a depth, not both.")
    if depth is not None:
        depth = number(depth, f"depth of {method}")
        if not 0 <= depth <= 1:
            raise StudyError(f"{method} needs a depth from 0 to 1, not {depth}.")
        return depth
    if layer != "auto":
        return None if layer is None else _named(method, layer)
    if (method, adapter.name) not in DEPTHS:
        raise StudyError(
            f"No layer of {adapter.name} has been chosen for {method} on held-out scenes; name a "
            "layer or a depth, or choose one with tools/choose_layers.py."
        )
    return DEPTHS[method, adapter.name]


def at_depth(layers: list[int], depth: float) -> int:
    """The layer number at a depth of those that can be used."""
    return layers[round(depth * (len(layers) - 1))]


def _named(method: str, layer) -> None:
    whole(layer, f"layer of {method}")
