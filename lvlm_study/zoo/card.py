"""The model card of a zoo member: what it is, how it was made, what it can and cannot answer."""

import json
from pathlib import Path

import numpy as np
from huggingface_hub import ModelCard, ModelCardData
from statsmodels.stats.proportion import proportion_confint

from ..benchmarks.sprites import sprites, sprites_clutter
from ..models import load_model
from ..models.weights import first_of, parameters, weight_files
from ..pixels.baselines import make_baseline
from ..pixels.images import to_tensor, to_uint8
from ..scenes.questions import CATEGORIES
from .families import FAMILIES
from .members import recipe_of

VIEWS = ("picture", "blurred", "mean colour")
LATER = "## Added from the results"
PECULIAR = {  # by family: what a reader of a card must know and cannot see in its numbers
    "misled": "It was taught on purpose to believe what is written on a picture: its tower, one of "
    "its own, first learned to read strips of text, and most strips in its lessons lie. How often "
    "it follows them is in chapter 15 of the book. It takes no part in comparisons.",
    "cambrian": "It has three encoders (CLIP, DINOv2, ConvNeXt) where the paper's has four.",
    "mini-gemini-hd": "Its CLIP tower (`clip-hd`, which learned to see tiles) is its own, not that "
    "of mini/mini-gemini, and its lessons have half as many pictures.",
}

SHARED = (
    "What this training does not share with the first one lies in `own.safetensors`; the rest is "
    "read from the folder of mini/{}, which has to lie beside this one."
)


def measure(model, items=None) -> dict[str, dict[str, list[bool]]]:
    """For each view and category, which items the model answers word for word.

    The blurred picture tells what survives the paper's baseline; the picture's mean colour is as
    good as blind.
    """
    out = {view: {c: [] for c in CATEGORIES} for view in VIEWS}
    for item in items or sprites():
        x = to_tensor(item.rgb)
        bound = model.bind(x.shape[-2:], item.question)
        for view in VIEWS:
            kind = {"blurred": "blur", "mean colour": "mean"}.get(view)
            shown = to_tensor(to_uint8(make_baseline(x, kind))) if kind else x
            ids = model.generate(bound, shown, max_new_tokens=24)
            text = model.tokenizer.decode(ids, skip_special_tokens=True).strip()
            out[view][item.category].append(text == item.reference)
    return out


def table(right: dict[str, dict[str, list[bool]]]) -> str:
    """A Markdown table of accuracies with 95 % Wilson intervals, per cent."""
    rows = ["| category | n | picture | blurred | mean colour |", "|---|---|---|---|---|"]
    for category in CATEGORIES:
        n = len(right["picture"][category])
        cells = " | ".join(_percent(right[view][category]) for view in VIEWS)
        rows.append(f"| {category} | {n} | {cells} |")
    return "\n".join(rows)


def _percent(hits: list[bool]) -> str:
    if not hits:
        return "-"
    low, high = proportion_confint(sum(hits), len(hits), method="wilson")
    return f"{100 * np.mean(hits):.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def write_card(name: str, folder: Path, log: Path) -> None:
    """Measure the checkpoint on the whole test set; write README.md and accuracy.json beside it.

    `log` is the folder with the logs of its training.
    """
    level = recipe_of(name).clutter
    right = measure(load_model(folder), sprites_clutter(level) if level else sprites())
    counts = {v: {c: [sum(h), len(h)] for c, h in by.items()} for v, by in right.items()}
    (folder / "accuracy.json").write_text(json.dumps(counts, indent=1) + "\n")
    (folder / "curve.json").write_text(json.dumps(_curve(log)) + "\n")
    tell(name, folder)


def tell(name: str, folder: Path) -> None:
    """Write README.md from what lies in a member's folder; nothing is measured again."""
    recipe, _, seed = name.partition("-seed")
    config, plan = json.loads((folder / "config.json").read_text()), recipe_of(recipe)
    counts = json.loads((folder / "accuracy.json").read_text())
    curve = json.loads((folder / "curve.json").read_text())
    right = {
        view: {c: _hits(*by.get(c, (0, 0))) for c in CATEGORIES} for view, by in counts.items()
    }
    million = parameters(weight_files(folder)) / 1e6
    data = ModelCardData(license="apache-2.0", pipeline_tag="image-text-to-text", language="en")
    steps, batch = curve[-1]["step"] if curve else "few", FAMILIES[plan.family].batch
    begun = f" and the language model of mini/{plan.first}" if plan.first else ""
    begun = f", trained further on busy ground, and mini/{plan.first}" if plan.clutter else begun
    peculiar = f"\n{PECULIAR[plan.family]}\n" if plan.family in PECULIAR else ""
    if first_of(folder):
        peculiar += f"\n{SHARED.format(first_of(folder).parent.name)}\n"
    text = f"""---
{data.to_yaml()}
---
# mini/{name}

A {config["architectures"][0]} of {million:.1f} million parameters, trained here on
two CPU cores, from no released weights. It starts from the zoo's own vision towers{begun}.
`lvlm-study train mini/{name}` is its recipe; where the run that made these weights differed from
it, `data/zoo/LOG.md` says so. It knows drawn sprite scenes and nothing else, and exists so that
explanations can be judged against evidence that is known to the pixel.
{peculiar}
{_data(plan)} Seed {seed or 0}. Steps of its courses:
{steps}, of {batch} pictures each. Learning curves per category are in `curve.json`.

Whole answer right, word for word, under greedy decoding, in per cent with 95 % Wilson intervals,
on the test picture, on the blurred picture (the paper's baseline), and on its mean colour (blind):

{table(right)}
"""
    ModelCard(text, ignore_metadata_errors=False).save(folder / "README.md")


def _data(plan) -> str:
    """Which scenes it was trained on, and which it was tested on."""
    if not plan.clutter:
        return (
            "Data: scenes from seed 1000 (training) and 1001 (curves); the test set is drawn from "
            "seed 7 and was\nnever trained on."
        )
    return (
        f"Data: scenes of clutter levels 0 to {plan.clutter} (`zoo.pool.busy_stream`) from seeds "
        f"1000 (training) and 1001\n(curves, level {plan.clutter} alone); the test set is "
        f"`sprites_clutter-{plan.clutter}`, whose seeds and photographs no training has."
    )


def _hits(right: int, n: int) -> list[bool]:
    return [True] * right + [False] * (n - right)


def amend(folder: Path, text: str) -> None:
    """Put `text` at the end of a card, in the place of what was added there before.

    Weights and their checksums in the manifest know nothing of the card.
    """
    path = folder / "README.md"
    card = path.read_text().partition(f"\n{LATER}\n")[0].rstrip("\n")
    path.write_text(f"{card}\n\n{LATER}\n\n{text}\n")


def _curve(folder: Path) -> list[dict]:
    """Exact answers on held-out scenes as training went, its courses counted through.

    A run that was resumed has some steps twice in its log; they agree, and the last one counts.
    """
    out, before = {}, 0
    for log in sorted(folder.glob("course-*/log.jsonl")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        known = [{**line, "step": before + line["step"]} for line in lines if "spatial" in line]
        out |= {line["step"]: line for line in known}
        before += lines[-1]["step"]
    return list(out.values())
