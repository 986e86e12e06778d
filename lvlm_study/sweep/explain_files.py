"""The files of one explanation: a picture to look at, the raw map, and how to make them again.

They appear together or not at all: everything is written to a hidden folder on the same disc and
moved into place at the end, `explanation.json` last.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
import unicodedata
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..answers import marked
from ..errors import StudyError
from ..heatmaps.names import UNITS
from ..metrics.faithfulness import Faithfulness
from ..paths import unwritable
from . import provenance

FILES = ("overlay.png", "saliency.npz", "explanation.json")  # in the order of their appearance
FONT = "DejaVu Sans"  # comes with matplotlib
SHOWN_SIDE = 1200  # pixels: larger photographs are reduced for the picture, not for the map


@contextmanager
def staged(folder: Path):
    """A temporary folder whose files move to `folder` when the block ends well.

    Opened before the work begins, so that a folder which cannot be written to is told at once.
    Other files in an existing `folder` are left alone. Raises StudyError.
    """
    folder = Path(folder).absolute()
    try:
        anchor = _nearest_folder(folder)
        stage = Path(tempfile.mkdtemp(prefix=".lvlm-study-", suffix=".partial", dir=anchor))
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield stage
        _publish(stage, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _nearest_folder(folder: Path) -> Path:
    """`folder` or the first folder above it that exists; what is in the way is named."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        if path.exists() or path.is_symlink():
            raise StudyError(f"{path} is no folder; give another place with --out.")
    for name in FILES:
        if path == folder and (folder / name).is_dir():
            raise StudyError(f"{folder / name} is a folder and in the way; give another --out.")
    _check_replaced(folder)
    return path


def _check_replaced(folder: Path) -> None:
    """Only an explanation's own files are replaced; a picture of somebody else's is not."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not _ours(folder / FILES[-1]):
        raise StudyError(
            f"{folder} holds {' and '.join(there)} that lvlm-study did not write, and would be "
            "replaced; give another --out, or move what is there."
        )


def _ours(record: Path) -> bool:
    """Whether this is the record of an explanation."""
    try:
        return "image_sha256" in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _publish(stage: Path, folder: Path) -> None:
    if folder.is_dir():
        (folder / FILES[-1]).unlink(missing_ok=True)  # no old description beside a new map
        for name in FILES:
            os.replace(stage / name, folder / name)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    mask = os.umask(0)
    os.umask(mask)
    stage.chmod(0o777 & ~mask)  # temporary folders are private, results are not
    os.rename(stage, folder)


def write_files(stage: Path, rgb: np.ndarray, explanation, about: dict) -> None:
    """Write the three files of an explanation into a folder that exists."""
    draw_overlay(stage / "overlay.png", rgb, explanation, about["scores"])
    np.savez_compressed(
        stage / "saliency.npz",
        saliency=explanation.saliency,
        grid=explanation.grid,
        llr=explanation.reliance.llr.numpy(),
        crucial=explanation.reliance.crucial.numpy(),
    )
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
    file = stage / "explanation.json"  # names of files may hold bytes that are no text
    file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _bytes(image, explanation) -> bytes:
    """The picture's file; of a benchmark's item, which has none, the pixels (H, W, 3)."""
    if Path(image).is_file():
        return Path(image).read_bytes()
    seen = explanation.target.image[0].permute(1, 2, 0).cpu()
    return (seen * 255).round().byte().numpy().tobytes()


def describe(explanation, model, image: Path, scores: dict, call: dict) -> dict:
    """All that is needed to repeat an explanation and to check that it came out the same."""
    answer, reliance = explanation.answer, explanation.reliance
    return {
        **call,
        "image": str(image),
        "image_sha256": hashlib.sha256(_bytes(image, explanation)).hexdigest(),
        "image_size": list(explanation.saliency.shape),
        "question": explanation.question,
        "model": explanation.model,
        "weights_sha256": provenance.weights_checksum(model),
        "setup": getattr(model, "setup", None) or "hub",
        **provenance.machine(model),
        "answer": answer.text,
        "truncated": answer.truncated,
        "tokens": list(answer.tokens),
        "token_ids": answer.token_ids.tolist(),
        "log_probs": plain(reliance.log_probs.tolist()),
        "baseline_log_probs": plain(reliance.baseline_log_probs.tolist()),
        "llr": plain(reliance.llr.tolist()),
        "crucial": reliance.crucial.tolist(),
        "threshold": reliance.threshold,
        "total_drop": plain(reliance.total_drop),
        "method": explanation.method,
        "options": explanation.options,
        "seed": explanation.seed,
        "exact": explanation.target.exact,
        "status": explanation.status,
        "notes": list(explanation.notes),
        "scores": scores,
        "cost": vars(explanation.cost),
        "versions": provenance.versions(),
        "commit": provenance.commit() or None,
        "made": provenance.now(),
    }


def score_summary(own: Faithfulness, controls: dict[str, list[Faithfulness]]) -> dict:
    """Deletion, insertion and their gap, of the map and of the maps that know nothing."""

    def mean(runs: list[Faithfulness]) -> dict:
        names = ("deletion", "insertion", "gap") if runs else ()
        found = {n: plain(float(np.mean([getattr(r, n) for r in runs]))) for n in names}
        return found | {"draws": len(runs), "steps": runs[0].n_steps if runs else None}

    rows = {"map": mean([own])} | {name: mean(runs) for name, runs in controls.items()}
    ends = {"image_probability": plain(own.image_score), "fill_probability": plain(own.fill_score)}
    return rows | ends | {"units": own.units, "status": own.status}


def plain(value):
    """Floats that JSON can hold: what is not finite becomes None."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value if math.isfinite(value) else None


def draw_overlay(path: Path, rgb: np.ndarray, explanation, scores: dict) -> None:
    """The picture as it is, and beside it the map over it, with question, answer and scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"axes.titlelocation": "left", "axes.titlesize": "medium"}
    texts = (explanation.question, explanation.answer.text, explanation.model)
    style["font.family"] = list(fonts_with("".join(texts))[0])
    with matplotlib.rc_context(style):
        picture, saliency = shown(rgb, explanation.saliency)
        height, width = saliency.shape
        side = min(max(5.0 * height / width, 2.0), 9.0)
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, side + 1.6), layout="constrained")
        left.imshow(picture)
        left.set_axis_off()
        left.set_title("the image")
        scale = draw_map(right, picture, saliency, explanation)
        below = f"{_score_line(explanation, scores)}\n{scale}"
        figure.suptitle(_heading(explanation), x=0.02, ha="left")
        figure.supxlabel(below, x=0.02, ha="left", fontsize="medium")
        figure.savefig(path, dpi=110)
        plt.close(figure)


def draw_map(ax, picture: np.ndarray, saliency: np.ndarray, explanation) -> str:
    """The map over its picture on a scale of its own, or why there is none; returns the scale."""
    from ..figures import overlay, own_scale, scale_bar

    scale, title = own_scale(explanation.saliency), _map_title(explanation)
    if scale is not None:
        overlay(ax, picture, saliency, *scale, title=title, bar=False)
        bar = scale_bar(ax, *scale, label=_wrapped(unit(explanation.method), 36))
        ticks = np.linspace(*scale, 5)
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        return scale_line(*scale)
    ax.imshow(picture)
    ax.set_axis_off()
    ax.set_title(title)
    middle = {"transform": ax.transAxes, "ha": "center", "va": "center"}
    ax.text(0.5, 0.5, _silence(explanation), bbox={"facecolor": "white", "alpha": 0.9}, **middle)
    return ""


def unit(method: str) -> str:
    """What the values of a method's maps are."""
    return UNITS.get(method, "saliency")


def scale_line(low: float, high: float) -> str:
    """Where the colours end: "colours end at 0.0163, the 99 % quantile of |map|"."""
    from ..figures import QUANTILE

    sides = "; red speaks for the answer, blue against it" if low < 0 else ""
    return f"colours end at {high:.3g}, the {100 * QUANTILE:.0f} % quantile of |map|{sides}"


def _silence(explanation) -> str:
    """Why there is nothing to draw."""
    told = {
        "no_crucial_tokens": "no map: no word of the answer\ndepends on the image",
        "diverged": "no map: the method returned\nnumbers that are not finite",
    }
    if explanation.target.choice.tokens == "keywords":
        told["no_crucial_tokens"] = "no map: the answer has no keyword"
    value = float(explanation.saliency.flat[0])
    same = "zero" if value == 0 else f"the same ({value:.3g})"
    return told.get(explanation.status, f"the map is {same} everywhere\nand says nothing")


def shown(rgb: np.ndarray, saliency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture and map at a size that fits a page, averaged over pixels; small ones unchanged."""
    height, width = saliency.shape
    scale = SHOWN_SIDE / max(height, width)
    if scale >= 1:
        return rgb, saliency
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(rgb).resize(size, Image.Resampling.BOX)
    small = Image.fromarray(saliency, mode="F").resize(size, Image.Resampling.BOX)
    return np.asarray(picture), np.asarray(small)


def _heading(explanation) -> str:
    answer = marked(explanation.answer, explanation.reliance.crucial, "[", "]")
    lines = (_drawn(explanation.question, "question"), _drawn(answer, "answer"))
    return "\n".join(map(_wrapped, lines)).replace("$", r"\$")


def _drawn(text: str, name: str) -> str:
    """A text as the picture shows it; where no installed font has its signs, where it stands."""
    kept = "".join(c for c in text if not unicodedata.category(c).startswith("C") or c.isspace())
    return f"({name}: see explanation.json)" if fonts_with(kept)[1] else kept


@lru_cache(maxsize=8)
def fonts_with(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """(installed fonts that have the signs of a text, the signs that none of them has)."""
    from matplotlib import font_manager, ft2font

    signs = {c for c in text if not c.isspace() and not unicodedata.category(c).startswith("C")}
    names, files = [FONT], [font_manager.findfont(FONT)]
    own = [f for f in font_manager.fontManager.ttflist if not _last_resort(f.name)]
    files += [font.fname for font in own]
    for file in dict.fromkeys(files):
        if not signs:
            break
        font = ft2font.FT2Font(file)
        found = {c for c in signs if ord(c) in font.get_charmap()}
        names += [font.family_name] if found else []
        signs -= found
    return tuple(dict.fromkeys(names)), frozenset(signs)


def _last_resort(font: str) -> bool:
    """Whether a font has a box for every sign there is, as matplotlib's and Apple's have."""
    return "lastresort" in font.lower().replace(" ", "")


def _wrapped(text: str, width: int = 95) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or "(empty)"


def _map_title(explanation) -> str:
    state = "" if explanation.status == "ok" else f", {explanation.status.replace('_', ' ')}"
    title = f"{explanation.method}, {_drawn(explanation.model, 'model')}{state}"
    return f"{title}\n{_drawn(explanation.contrast, 'contrast')}".strip().replace("$", r"\$")


def _score_line(explanation, scores: dict) -> str:
    parts = []
    titles = {"map": "this map", "random": "random", "center": "centre", "difference": "difference"}
    for name, title in titles.items():
        row = scores.get(name, {})
        if row.get("deletion") is not None:
            parts.append(f"{title} {row['deletion']:.2f} / {row['insertion']:.2f}")
    return "deletion / insertion:  " + ",   ".join(parts) if parts else "not scored"
