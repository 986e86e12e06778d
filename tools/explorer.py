"""Make the files behind the book's explorer page out of committed results. No model runs.

    python tools/explorer.py OUT_FOLDER [--results data/results/mini]

    data.js            what can be picked, answers token by token, scores
    maps/N.js          the maps of one model and method, a byte a cell; loaded when picked
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
from PIL import Image
from scipy.ndimage import binary_erosion

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.figures import colour, share
from lvlm_study.metrics.plausibility import energy
from lvlm_study.paths import data_dir
from lvlm_study.sweep.stored import enlarged, scales, stored_maps

LIMIT = 96  # items of a benchmark: enough to browse, few enough to build in seconds
OUTLINE = 3  # pixels
SCORES = ("deletion", "insertion", "gap")


def chosen(frame, limit: int = LIMIT) -> list:
    """The items to show: of each benchmark the first that have results, by category."""
    found = []
    for benchmark, part in frame.groupby("benchmark", sort=False):
        names = list(dict.fromkeys(part.item))[:limit]
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
    """A model's answer to an item: its tokens with log-likelihood ratio, and which are crucial."""
    marks = whole(row.tokens, row.llr, row.crucial) if row.tokens is not None else ()
    cut = {"truncated": True} if row.truncated in (True,) else {}  # NaN in older rows
    return cut | {
        "text": row.answer,
        "verdict": row.verdict,
        "drop": rounded(row.total_drop),
        "tokens": [[token, rounded(llr), int(crucial)] for token, llr, crucial in marks],
    }


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
    found = {"status": row.status} | {k: v for k, v in known.items() if v is not None}
    if row.saliency is not None and item.evidence is not None:
        big = enlarged(row.saliency, *item.evidence.shape)
        found["on_evidence"] = rounded(energy(big, item.evidence))
    return found


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
    for name in ("maps", "pictures", "evidence"):
        (out / name).mkdir(parents=True, exist_ok=True)
    frame = stored_maps(results)
    items = chosen(frame)
    number = {item.id: n for n, item in enumerate(items)}
    frame = frame[frame.item.isin(number.keys())]
    top = scales(frame)
    tree = {"profile": results.name, "colours": ramp(), "scales": top, "answers": {}, "maps": []}
    tree["items"] = [picture(item, n, out) for n, item in enumerate(items)]
    for (model, method), part in frame.groupby(["model", "method"], sort=False):
        said = tree["answers"].setdefault(model, {})
        scores, maps = {}, {}
        for row in part.itertuples():
            place = number[row.item]
            if isinstance(row.answer, str):
                said.setdefault(place, answered(row))
            scores[place] = scored(row, items[place])
            if row.saliency is not None:
                maps[place] = packed(row.saliency, top[method])
        file = f"maps/{len(tree['maps'])}.js" if maps else None
        tree["maps"].append({"model": model, "method": method, "file": file, "scores": scores})
        if file:
            write(out / file, f"lvlmExplorer.loaded[{json.dumps(file)}]", maps)
    write(out / "data.js", "window.lvlmExplorer", tree | {"loaded": {}})
    return tree


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
