"""Our methods beside what one would pick instead: a plain loop for iGOS, captum for two others.

All explain the same targets and are scored by the same measure. pytorch-grad-cam has no row, since
importing it needs torchvision and OpenCV, of which the environment is kept free.
"""

import math
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..answers import Target
from ..heatmaps import Explanation, explain_target
from ..heatmaps.igos import PRESETS, edges_of, jitter, nesterov, regulariser_gradient
from ..heatmaps.progress import each
from ..metrics.faithfulness import deletion_insertion
from ..metrics.statistics import finite

LEFT_OUT = "pytorch-grad-cam is left out: importing it needs torchvision and OpenCV."
NO_CAPTUM = (
    "captum is not installed, so its rows are left out: run 'make extras', or "
    "pip install 'lvlm-study[bench]'."
)


def plain_loop(target: Target, *, seed=0, mask_size=32, iterations=5, steps=10, noise=0.2):
    """iGOS as its formulas read: a picture a pass, autograd to the mask, the last mask, (h, w).

    The map is that of `igos(compat="paper_code")` up to rounding, with its regulariser, step and
    noise. The released loop also rounds every picture to 8 bits, which this one does not.
    """
    edges = edges_of(target, "paper_code")
    mask = torch.ones(1, 1, mask_size, mask_size, device=target.image.device)
    last = torch.zeros_like(mask)
    for t in range(iterations):
        weights = 1.0, 0.1 * math.exp(-t), 10.0  # L1, L2, BTV
        slope = regulariser_gradient(mask, target, edges, *weights, compat="paper_code")
        for n in range(2 * steps):  # deletion first, then insertion
            share, draw = (n % steps + 1) / steps, (seed * iterations + t) * 2 * steps + n
            slope += _one_pass(target, mask, n < steps, share, noise, draw) / steps
        mask, last = nesterov(mask, last, slope, t, lr=10.0, momentum=5.0)
    return 1 - mask[0, 0]


def _one_pass(target: Target, mask: Tensor, deletion: bool, share: float, noise, draw) -> Tensor:
    """Gradient (1, 1, h, w) of one term of F_del - F_ins by the mask."""
    leaf, ends = mask.clone().requires_grad_(), (target.baseline, target.image)
    start, end = ends if deletion else ends[::-1]
    keep = share * F.interpolate(leaf, target.size, mode="bilinear", align_corners=True)
    with jitter(target.bound.adapter.model, noise, [draw]):
        score = target.score(start + keep * (end - start)).sum()
    return torch.autograd.grad(score if deletion else -score, leaf)[0]


def captum_integrated_gradients(target: Target, *, seed=0, steps=50, batch=20) -> Tensor:
    """captum's, by the midpoint rule as ours, summed over colours, (h, w)."""
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(target.score).attribute(
        target.image,
        target.baseline,
        n_steps=steps,
        method="riemann_middle",
        internal_batch_size=target.micro_batch(batch),
    )
    return found.sum(1)[0]


def captum_occlusion(target: Target, *, seed=0, window=1 / 8, stride=1 / 16, batch=32) -> Tensor:
    """captum's, with our windows; its last one is cut off at the border where ours moves back."""
    from captum.attr import Occlusion

    found = Occlusion(target.score).attribute(
        target.image,
        (3, *(max(1, round(n * window)) for n in target.size)),
        (3, *(max(1, int(n * stride)) for n in target.size)),
        target.baseline,
        perturbations_per_eval=target.micro_batch(batch),
    )
    return found[0, 0]  # every colour has the same


CAPTUM = {"integrated_gradients": captum_integrated_gradients, "occlusion": captum_occlusion}


def rows() -> dict[str, tuple]:
    """Method and options of every row, ours before what stands in its place."""
    igos = {f"igos_{preset}" if preset else "igos": preset for preset in PRESETS}
    found = {name: ("igos", {"preset": preset}) for name, preset in igos.items()}
    found["plain_loop"] = plain_loop, {}
    for name, other in CAPTUM.items():
        found[name] = name, {}
        if find_spec("captum"):
            found[other.__name__] = other, {}
    return found | {"grad_cam": ("grad_cam", {}), "rise": ("rise", {})}


def beside(targets: list[Target]) -> dict[str, dict]:
    """Every row's passes, seconds and MiB above the start (medians) and its mean Ins - Del.

    The rows take turns on each target, so that a slow moment of the machine meets all of them.
    """
    found = {name: [] for name in rows()}
    for target in each(targets, "ours and others", "item"):
        for name, (method, options) in rows().items():
            found[name].append(explain_target(method, target, **options))
    return {name: _told(maps) for name, maps in found.items()}


def _told(maps: list[Explanation]) -> dict:
    names = ("forward", "backward", "seconds", "peak_bytes")
    costs = np.median([[getattr(ex.cost, name) for name in names] for ex in maps], axis=0)
    forward, backward, seconds, peak = costs.tolist()
    gap = np.mean([deletion_insertion(None, ex).gap for ex in maps])
    told = {"forward": round(forward), "backward": round(backward), "seconds": seconds}
    return told | {"mib": peak / 2**20, "gap": finite(gap)}


def lines(found: dict[str, dict]):
    """The table of `beside`, what is not ours set in; what is left out, in a sentence each."""
    heads = f"{'forward':>8}{'backward':>9}{'time':>9}{'memory':>13}{'ins-del':>9}"
    yield f"{'ours | instead':<34}{heads}"
    for name, row in found.items():
        label = f"  | {name}" if name.startswith(("plain", "captum")) else name
        gap = "none" if row["gap"] is None else f"{row['gap']:.3f}"
        yield (
            f"{label:<34}{row['forward']:>8}{row['backward']:>9}{row['seconds']:>7.2f} s"
            f"{row['mib']:>9.0f} MiB{gap:>9}"
        )
    if "captum_occlusion" not in found:
        yield NO_CAPTUM
    yield LEFT_OUT
