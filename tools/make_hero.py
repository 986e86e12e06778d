"""Make the pictures that open the book: three answers to click, and one picture a finding.

Runs the study's own calls on items of the test set and writes book/_static/hero-*.html and
finding-*.webp. Run it again when the models, the methods or the items named here change.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
import explorer  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402

import lvlm_study as ls  # noqa: E402
from lvlm_study import figures  # noqa: E402
from lvlm_study.answers import make_target  # noqa: E402
from lvlm_study.heatmaps import explain_target  # noqa: E402
from lvlm_study.metrics.sanity import randomised_copies  # noqa: E402
from lvlm_study.paths import data_dir  # noqa: E402
from lvlm_study.pixels.baselines import make_baseline  # noqa: E402
from lvlm_study.pixels.images import to_tensor  # noqa: E402

STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"
MODEL = "mini/llava-1.5"
HEROES = {
    "right": (
        "sprites/spatial-087",
        "A hammer at the right edge, an apple above, a sailboat below.",
    ),
    "wrong": ("sprites/reasoning-060", "A drawn scene with a bicycle and fruit."),
}
BUSY = ("mini/llava-1.5-s-clutter2", "sprites_clutter-2/106-attribute")
BUSY_ALT = "Five drawn objects, one of them a green bus, on a ground of overlapping leaves."
INCHES, DPI = (3.6, 1.9), 150


def heroes(model, items: dict) -> None:
    """One answer a file, every word with its map."""
    for name, (item, alt) in HEROES.items():
        hero(name, model, items[item], alt)
    hero("busy", *opened(*BUSY), BUSY_ALT)


def hero(name: str, model, item, alt: str) -> None:
    words = ls.explain_tokens(model, item, method="igos", preset="fast")
    (STATIC / f"hero-{name}.html").write_text(str(ls.show(words, alt=alt)), encoding="utf-8")


def opened(model: str, item: str) -> tuple:
    """A model and one of the items that it was asked, both by name."""
    items = ls.load_benchmark(item.partition("/")[0])
    return ls.load_model(model), next(found for found in items if found.id == item)


def blurred(model, items: dict) -> list:
    """Finding 1: a blurred beach is still sand."""
    rgb = items["sprites/global-014"].rgb
    empty = make_baseline(to_tensor(rgb), "blur")[0].permute(1, 2, 0).numpy()
    return [("picture", rgb), ("blurred", (empty * 255).astype(np.uint8))]


def trained_and_random(model, item) -> list:
    """Finding 3: the map of the model, and of the same model with all its weights drawn anew."""
    target = make_target(model, item)
    *_, (_, empty) = randomised_copies(model, "cascading")
    other = replace(target, bound=empty.bind(target.bound.size, item.question))
    pairs = {"trained": target, "random weights": other}
    return [
        (name, overlaid(item, explain_target("igos", t, preset="fast").saliency))
        for name, t in pairs.items()
    ]


def busiest() -> tuple:
    """Finding 2: of the right answers on the busiest ground that the explorer shows, the one with
    the most of its map on the evidence; the rule of the explorer's own example, without errors."""
    frame = explorer.shown(data_dir() / "results" / "mini")
    frame = frame[frame.item.isin([item.id for item in explorer.chosen(frame)])]
    row = explorer.busiest(frame[(frame.status == "ok") & (frame.verdict == "correct")]).iloc[-1]
    return opened(row["model"], row["item"])


def beside(model, item, methods: dict, grey: bool = False) -> list:
    """The maps of two methods over one picture, each on its own scale."""
    return [
        (name, overlaid(item, ls.explain(model, item, method=method, **options).saliency, grey))
        for name, (method, options) in methods.items()
    ]


def overlaid(item, saliency: np.ndarray, grey: bool = False) -> np.ndarray:
    """A map over its picture on its own scale, the evidence outlined.

    A picture of many colours is `grey` and pale below its map, or the map could not be told.
    """
    rgb = item.rgb
    if grey:
        rgb = (128 + rgb.mean(2, keepdims=True) / 2).astype(np.uint8).repeat(3, axis=2)
    rgb = figures.overlay_image(rgb, saliency, *figures.own_scale(saliency))
    return outlined(rgb, item.evidence)


def outlined(rgb: np.ndarray, evidence) -> np.ndarray:
    """A white line around the evidence, with a black one around it: seen on every ground."""
    from scipy.ndimage import binary_dilation

    inner, outer = (binary_dilation(evidence, iterations=wide) for wide in (3, 5))
    rgb = np.where(outer[..., None] & ~inner[..., None], 0, rgb)
    return np.where(inner[..., None] & ~evidence[..., None], 255, rgb).astype(np.uint8)


def save(name: str, panels: list) -> None:
    """Two pictures beside each other, a word above each."""
    figure, axes = plt.subplots(1, len(panels), figsize=INCHES, layout="constrained")
    for ax, (title, rgb) in zip(axes, panels, strict=True):
        ax.imshow(rgb)
        ax.set_title(title, fontsize=8)
        ax.set_axis_off()
    figure.savefig(STATIC / f"finding-{name}.webp", dpi=DPI, pil_kwargs={"quality": 85})
    plt.close(figure)


def inverted() -> None:
    """Finding 5: T-MM's printed scores are IIA's with deletion and insertion swapped."""
    table = pd.read_csv(data_dir() / "paper" / "table1.csv")
    rows = table[table.lvlm.str.startswith("LLaVA-1.5")].set_index("method")
    figure, ax = plt.subplots(figsize=INCHES, layout="constrained")
    for kind, other, mark in (("del", "ins", "o"), ("ins", "del", "s")):
        ours = rows.loc["T-MM", [c for c in rows.columns if c.endswith(kind)]].astype(float)
        theirs = rows.loc["IIA", [c for c in rows.columns if c.endswith(other)]].astype(float)
        ax.plot(theirs.to_numpy(), ours.to_numpy(), mark, label=f"T-MM {kind}. / IIA {other}.")
    ax.axline((0.3, 0.3), slope=1, color="0.4", linestyle=":")
    ax.set_xlabel("IIA, as printed", fontsize=9)
    ax.set_ylabel("T-MM, as printed", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8)
    figure.savefig(STATIC / "finding-claims.webp", dpi=DPI, pil_kwargs={"quality": 85})
    plt.close(figure)


def main() -> int:
    figures.use_style()
    model, items = ls.load_model(MODEL), {item.id: item for item in ls.load_benchmark("sprites")}
    heroes(model, items)
    fast = ("igos", {"preset": "fast"})
    save("blur", blurred(model, items))
    maps = {"iGOS": fast, "|image − blur|": ("difference", {})}
    save("control", beside(model, items["sprites/spatial-087"], maps))
    save("busy", beside(*busiest(), maps, grey=True))
    save("whose", trained_and_random(model, items["sprites/spatial-087"]))
    inverted()
    return 0


if __name__ == "__main__":
    sys.exit(main())
