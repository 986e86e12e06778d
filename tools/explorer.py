"""Make the files behind the book's explorer page out of committed results. No model runs.

    python tools/explorer.py OUT_FOLDER [--results data/results/mini]

    data.js            what can be picked: items, models, methods, examples
    answers/N.js       one model's answers, word by word; loaded when picked
    maps/N.js          maps and scores of one model and method, a byte a cell; loaded when picked
    maps/difference.js |picture - blur| of every item, which no model has seen
    pictures/N.webp    one item's picture, drawn again; evidence/N.png its outline where known

The files are scripts and not JSON because a page that is opened from a disc may load a script and
may not fetch a file. The build of the book calls this (`book/_ext/explorer.py`); nothing of it is
committed.
"""

import argparse
import base64
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_erosion

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.figures import colour, share
from lvlm_study.heatmaps.controls import control_map
from lvlm_study.heatmaps.names import title
from lvlm_study.heatmaps.variants import is_ablation
from lvlm_study.metrics.plausibility import energy
from lvlm_study.paths import data_dir
from lvlm_study.sweep.stored import BUSY, enlarged, scales, stored_maps

MODEL, METHOD = "mini/llava-1.5", "igos[preset=fast]"  # what the page opens with
CONTROL = "difference"  # stands beside every map
FLAT = "sprites"
EVEN = "sprites_clutter-0"  # looks as `sprites` does
LIMIT, FEWER = 96, 24  # items of even ground, and of each busy level: as many of both worlds
OUTLINE = 3  # pixels
CELLS = 32  # rows and columns of a control's map
SCORES = ("deletion", "insertion", "gap")


def shown(results: Path):
    """The stored maps of every method, and of no ablation but the one that the page opens with."""
    folders = [folder for folder in (results, results / BUSY) if folder.is_dir()]
    frame = pd.concat([stored_maps(folder, ablations=True) for folder in folders])
    frame = frame[frame.benchmark != EVEN]
    return frame[[name == METHOD or not is_ablation(name) for name in frame.method]]


def chosen(frame) -> list:
    """The items to show: of each benchmark the first that have results, by category."""
    found = []
    for benchmark in sorted(frame.benchmark.unique()):
        limit = LIMIT if benchmark == FLAT else FEWER
        names = list(dict.fromkeys(frame[frame.benchmark == benchmark].item))[:limit]
        known = {item.id: item for item in load_benchmark(benchmark)}
        found += sorted((known[n] for n in names if n in known), key=lambda i: (i.category, i.id))
    return found


def described(item) -> str:
    """The picture in words, for those who cannot see it."""
    scene = item.extra.get("scene")
    if scene is None:
        return f"Picture {item.id}"
    things = [f"{thing.color} {thing.name}" for thing in scene.objects]
    when = "at night" if scene.night else "by day"
    return f"A drawn scene, {scene.place} {when}, with {', '.join(things) or 'nothing in it'}."


def world(benchmark: str) -> str:
    """What a reader calls the pictures of a benchmark."""
    level = benchmark.rpartition("-")[2]
    return "even ground" if benchmark == FLAT else f"busy ground, level {level}"


def picture(item, number: int, out: Path) -> dict:
    """Save an item's picture and the outline of its evidence; what the page must know of it."""
    rgb = item.rgb
    Image.fromarray(rgb).save(out / f"pictures/{number}.webp", quality=90, method=4)
    if item.evidence is not None:
        outline(item.evidence).save(out / f"evidence/{number}.png", optimize=True)
    return {
        "id": item.id,
        "benchmark": item.benchmark,
        "category": item.category,
        "question": item.question,
        "reference": item.reference,
        "size": [rgb.shape[1], rgb.shape[0]],
        "alt": described(item),
        "area": rounded(item.evidence.mean()) if item.evidence is not None else None,
    }


def outline(evidence: np.ndarray) -> Image.Image:
    """The border of a region, white with black inside, on nothing: seen on every background."""
    inner = binary_erosion(evidence, iterations=OUTLINE)
    line = evidence & ~inner
    white = evidence & ~binary_erosion(evidence, iterations=OUTLINE // 2 + 1)
    rgba = np.zeros((*evidence.shape, 4), np.uint8)
    rgba[line] = (0, 0, 0, 255)
    rgba[white] = (255, 255, 255, 255)
    return Image.fromarray(rgba).quantize(4)


def answered(row) -> dict:
    """A model's answer to an item, word by word: text, log-likelihood ratio, whether crucial."""
    marks = whole(row.tokens, row.llr, row.crucial) if row.tokens is not None else ()
    cut = {"truncated": True} if row.truncated in (True,) else {}  # NaN in older rows
    return cut | {
        "text": row.answer,
        "verdict": row.verdict,
        "drop": rounded(row.total_drop),
        "words": [[text, rounded(llr), int(crucial)] for text, llr, crucial in joined(marks)],
    }


def joined(marks):
    """Pieces of one word together: ratios summed, crucial if one piece is."""
    word = None
    for text, ratio, crucial in marks:
        if word is None or text[:1].isspace():
            if word is not None:
                yield tuple(word)
            word = [text, ratio, crucial]
        else:
            word = [word[0] + text, word[1] + ratio, word[2] or crucial]
    if word is not None:
        yield tuple(word)


def whole(tokens, llr, crucial):
    """(piece, ratio, crucial) of what can be seen: byte tokens that show nothing belong to the
    piece that they begin, whose log-likelihood ratio is their sum."""
    ratio, hot = 0.0, False
    for number, (token, own, mark) in enumerate(zip(tokens, llr, crucial, strict=True), 1):
        ratio, hot = ratio + own, hot or mark
        if token or number == len(tokens):
            yield token, ratio, hot
            ratio, hot = 0.0, False


def scored(row, item) -> dict:
    """How a map did: its status, the scores that it has, and its mass's share on the evidence."""
    known = {name: rounded(getattr(row, name)) for name in SCORES}
    seed = {} if row.item_seed != row.item_seed else {"seed": int(row.item_seed)}
    found = {"status": row.status} | seed | {k: v for k, v in known.items() if v is not None}
    if row.saliency is not None:
        found |= on_evidence(row.saliency, item)
    return found


def on_evidence(saliency: np.ndarray, item) -> dict:
    """The share of a map's mass on the item's evidence, where that is known."""
    if item.evidence is None:
        return {}
    return {"on_evidence": rounded(energy(enlarged(saliency, *item.evidence.shape), item.evidence))}


def examples(frame, items: list) -> list[dict]:
    """Where to begin, picked by rule: most and least of a map on the evidence, a wrong answer,
    and the busiest ground."""
    frame = frame[(frame.status == "ok") & frame.item.isin([item.id for item in items])]
    ours = frame[(frame.model == MODEL) & (frame.method == METHOD)]
    right = ours[(ours.verdict == "correct") & (ours.evidence_area < 0.3)]
    picked = {
        "A map on the evidence": right.sort_values("energy").tail(1),
        "A map beside it": right.sort_values("energy_ratio").head(1),
        "A wrong answer": ours[ours.verdict == "wrong"].sort_values("gap").tail(1),
        "Busy ground": busiest(frame).tail(1),
    }
    return [
        {"title": name, "item": row.item, "model": row.model, "method": row.method}
        for name, rows in picked.items()
        for row in rows.itertuples()
    ]


def busiest(frame):
    """Maps of small evidence on the busiest ground, those with most of themselves on it last."""
    busy = frame[(frame.benchmark != FLAT) & (frame.method == METHOD) & (frame.evidence_area < 0.3)]
    return busy[busy.benchmark == busy.benchmark.max()].sort_values("energy")


def packed(saliency: np.ndarray, top: float) -> dict:
    """A map as one byte a cell, 0 to 255 from nothing to the end of its method's scale."""
    cells = (share(saliency, 0.0, top) * 255).round().astype(np.uint8)
    return {"shape": cells.shape, "cells": base64.b64encode(cells.tobytes()).decode()}


def rounded(value) -> float | None:
    """Three decimals, or null: JSON knows no NaN."""
    return round(float(value), 3) if value is not None and np.isfinite(value) else None


def ramp() -> list[list[int]]:
    """The book's colour scale: 256 times red, green, blue, opacity."""
    return (colour(np.linspace(0, 1, 256), 0.0, 1.0) * 255).round().astype(int).tolist()


def write(path: Path, target: str, value) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    path.write_text(f"{target} = {text};\n", encoding="utf-8")


def make(results: Path, out: Path) -> dict:
    """Write everything below `out`; returns what `data.js` holds."""
    for name in ("answers", "maps", "pictures", "evidence"):
        (out / name).mkdir(parents=True, exist_ok=True)
    frame = shown(results)
    items = chosen(frame)
    number = {item.id: n for n, item in enumerate(items)}
    frame = frame[frame.item.isin(number.keys())]
    tree = {
        "profile": results.name,
        "colours": ramp(),
        "scales": scales(frame) | {CONTROL: 1.0},
        "worlds": {name: world(name) for name in dict.fromkeys(item.benchmark for item in items)},
        "titles": {name: title(name) for name in frame.method.unique()},
        "examples": examples(frame, items),
        "items": [picture(item, n, out) for n, item in enumerate(items)],
    }
    tree["models"] = [
        write_answers(model, part, number, out, place)
        for place, (model, part) in enumerate(frame.groupby("model"))
    ]
    pairs = frame.groupby(["model", "method"], sort=False)
    tree["maps"] = [
        write_maps(pair, part, items, number, tree["scales"], out / f"maps/{place}.js")
        for place, (pair, part) in enumerate(pairs)
    ]
    write_difference(items, tree["scales"], out)
    write(out / "data.js", "window.lvlmExplorer", tree | {"loaded": {}})
    return tree


def write_answers(model: str, part, number: dict, out: Path, place: int) -> dict:
    """One model's answers in a file of their own; where it is, and which worlds it has seen."""
    file = f"answers/{place}.js"
    said = part[part.answer.map(lambda text: isinstance(text, str))].drop_duplicates("item")
    answers = {number[row.item]: answered(row) for row in said.itertuples()}
    write(out / file, f"lvlmExplorer.loaded[{json.dumps(file)}]", answers)
    return {"name": model, "file": file, "worlds": sorted(part.benchmark.unique())}


def write_maps(pair, part, items: list, number: dict, top: dict, path: Path) -> dict:
    """The scores of one model and method with the maps that are kept (controls': none)."""
    (model, method), file = pair, f"maps/{path.name}"
    scores = {number[row.item]: scored(row, items[number[row.item]]) for row in part.itertuples()}
    kept = part[part.saliency.notna()]
    maps = {number[row.item]: packed(row.saliency, top[method]) for row in kept.itertuples()}
    write(path, f"lvlmExplorer.loaded[{json.dumps(file)}]", {"scores": scores, "maps": maps})
    worlds = sorted(part.benchmark.unique())
    return {"model": model, "method": method, "file": file, "worlds": worlds}


def write_difference(items: list, top: dict, out: Path) -> None:
    """The map of the control for every item: it takes a picture and no model."""
    maps = [control_map(CONTROL, item.rgb, seed=0) for item in items]
    top[CONTROL] = float(np.quantile(np.concatenate(maps), 0.995))
    found = {
        n: packed(saliency, top[CONTROL]) | on_evidence(saliency, item)
        for n, (item, saliency) in enumerate(zip(items, maps, strict=True))
    }
    file = json.dumps("maps/difference.js")
    write(out / "maps" / "difference.js", f"lvlmExplorer.loaded[{file}]", found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, default=data_dir() / "results" / "mini")
    asked = parser.parse_args(arguments)
    tree = make(asked.results, asked.out)
    print(f"explorer: {len(tree['items'])} items, {len(tree['maps'])} pairs of model and method")
    return 0


if __name__ == "__main__":
    sys.exit(main())
