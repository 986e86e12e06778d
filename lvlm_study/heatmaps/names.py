"""What methods are called where people read about them: tables, figures, sentences.

The runner writes short names, with options in brackets for variants: "igos[baseline=black]".
"""

import re

TITLES = {
    "igos": "iGOS",
    "igos++": "iGOS++",
    "grad_cam": "Grad-CAM",
    "gae": "T-MM",
    "attention": "Attention",
    "rollout": "Attention rollout",
    "llava_cam": "LLaVA-CAM",
    "rise": "RISE",
    "occlusion": "Occlusion",
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "iia": "IIA",
    "tam": "TAM",
    "eagle": "EAGLE",
    "eagle_lazy": "EAGLE, lazy",
    "ga": "Gradient alignment",
    "sobel": "Sobel edges",
    "center": "Centre blob",
    "random": "Random map",
}
UNITS = {  # what a map's values are, written beside its colours; other methods: "saliency"
    "igos": "share of the picture's detail taken away",
    "igos++": "share of the picture's detail taken away",
    "grad_cam": "gradient × feature, nats",
    "gae": "relevance, without a unit",
    "attention": "attention, 1 = spread evenly",
    "rollout": "attention, 1 = spread evenly",
    "llava_cam": "gradient × feature, nats",
    "rise": "effect of showing the place, nats",
    "occlusion": "loss when the place is covered, nats",
    "integrated_gradients": "share of the score, nats a pixel",
    "smoothgrad": "size of the gradient, nats for full brightness",
    "iia": "relevance, without a unit",
    "tam": "activation, 0 to 1",
    "eagle": "probability",
    "eagle_lazy": "probability",
    "ga": "cosine with the detector's gradients",
    "sobel": "edge strength",
    "center": "nearness to the centre",
    "random": "drawn by lot",
}
CONTROLS = ("random", "center", "sobel")  # they never look at the model
REFERENCE = "igos"  # our setting of it, which the others are compared with
PAPER_METHOD = "igos[preset=paper]"  # the paper's setting: its ablations, its claims
NOBODY = "none"


def title(name: str) -> str:
    """The name for readers; options in brackets follow it, "iGOS (baseline black)".

    The paper's setting is "iGOS (paper)".
    """
    base, _, options = name.partition("[")
    plain = TITLES.get(base, base)
    said = options.rstrip("]").replace("preset=paper", "paper")
    said = said.replace("_", " ").replace("=", " ").replace(",", ", ")
    return f"{plain} ({said})" if said else plain


def without_preset(name: str) -> str:
    """A variant of the paper's setting by what it changes: igos[l2=1,preset=paper] -> igos[l2=1].

    For tables in which all variants have that preset.
    """
    return re.sub(r",?preset=paper\]$", "]", name).replace("[]", "")


def listed(names) -> str:
    """Titles as a reader would say them: "A", "A and B", "A, B and C"; "none" without any."""
    titles = [title(name) for name in names]
    if len(titles) < 2:
        return titles[0] if titles else NOBODY
    return f"{', '.join(titles[:-1])} and {titles[-1]}"


def in_order(names) -> list[str]:
    """Methods in the order of `TITLES`, controls last, unknown ones before the controls."""
    known = {name: place for place, name in enumerate(TITLES)}
    last = len(known) - len(CONTROLS)
    return sorted(
        names, key=lambda name: (known.get(name.partition("[")[0], last - 0.5), _natural(name))
    )


def _natural(name: str) -> list:
    """Numbers inside a name sort by size: steps=4 before steps=20."""
    parts = re.split(r"(\d+\.?\d*)", name)
    return [(0, float(p), "") if p[:1].isdigit() else (1, 0.0, p) for p in parts if p]
