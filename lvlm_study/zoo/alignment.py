"""Training W, by which a LLaVA reads a detector's tokens, and measuring what was lost.

Nobody labels anything: both encoders look at the same squashed picture, and W learns to turn the
detector's token of each patch into the visual token that LLaVA would have made of it (squared
error; arXiv 2405.14612, supplement, section 1). What both encoders say is kept on disc, so another
W, or a W for a LLaVA with a new language side, takes minutes.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import StudyError
from ..models.alignment import VARIANTS, Alignment
from ..models.base import Adapter
from ..models.joint import marks_of, save_joint
from ..models.llava import Llava, normalisation
from ..models.owl import Detector, load_detector
from ..models.registry import find_folder, load_model, pick_device, pick_dtype
from ..paths import data_dir
from ..pixels.baselines import make_baseline
from ..pixels.images import load_image, to_tensor, to_uint8
from ..pixels.preprocess import Plan, Spec, filter_name
from ..scenes import scenes
from ..scenes.questions import CATEGORIES
from .card import VIEWS as SHOWN
from .card import table
from .fit import fit
from .owl import names as owl_names
from .pool import VIEWS, load_pool
from .texts import DESCRIBE

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SEED_SCORES = {  # arXiv 2405.14612, supplement, Table 1: mean GPT-4V score of 100 COCO captions
    "ground truth": 6.9,
    "unmodified": 7.0,
    "deep": 6.1,
    "llava": 5.6,
    "transformer": 3.2,
}


STEPS = {"deep": 1200, "llava": 1200, "transformer": 400}  # what the committed table rests on


@dataclass(frozen=True)
class Pair:
    """The two encoders that W lies between, and how a picture is squashed for each."""

    detector: Detector
    llava: Llava

    @property
    def sizes(self) -> tuple[int, int]:
        """(width of the detector's tokens, width of the language model's)."""
        text = self.llava.model.config.text_config
        return self.detector.model.config.vision_config.hidden_size, text.hidden_size

    def views(self, rgb: np.ndarray) -> tuple[Tensor, Tensor]:
        """uint8 pictures (B, H, W, 3) of one size, squashed and normalised for each encoder."""
        x = torch.from_numpy(np.array(rgb)).permute(0, 3, 1, 2).float() / 255
        side = self.llava.model.config.vision_config.image_size
        return (
            _squash(x, self.detector.view_size[0], self.detector.processor),
            _squash(x, side, self.llava.processor),
        )

    @torch.no_grad()
    def tokens(self, rgb: np.ndarray) -> tuple[Tensor, Tensor]:
        """Patch tokens of the detector (B, N, C), and what LLaVA's encoder hands its connector."""
        ours, theirs = self.views(rgb)
        model, config = self.llava.model.model, self.llava.model.config
        hidden = model.vision_tower(pixel_values=theirs, output_hidden_states=True).hidden_states
        features = hidden[config.vision_feature_layer][:, self.llava.dropped() :]
        return self.detector.shared(ours)[:, 1:], features


def _squash(x: Tensor, side: int, processor) -> Tensor:
    """To a square without crop or padding: only then do the two grids of patches agree."""
    spec = Spec((side, side), filter_name(processor.resample))
    return Plan(tuple(x.shape[-2:]), [spec], **normalisation(processor)).render(x)[0][:, 0]


def load_pair(owl: str, llava: str, dtype=None, device=None) -> Pair:
    """Load both encoders by name. Raises StudyError if their grids differ."""
    device = pick_device(device)
    detector = load_detector(find_folder(owl), owl, pick_dtype(dtype, device), device)
    model = load_model(llava, dtype, device)
    kind = json.loads((find_folder(llava) / "config.json").read_text())["model_type"]
    if kind != "llava":
        raise StudyError(f"{llava} is no LLaVA-1.5; W can be trained only for one of that kind.")
    vision = model.model.config.vision_config
    grid = vision.image_size // vision.patch_size
    if grid != detector.side:
        raise StudyError(
            f"{owl} sees {detector.side} x {detector.side} patches but {llava} {grid} x {grid}; "
            "the two grids must agree."
        )
    return Pair(detector, model)


# --- pictures --------------------------------------------------------------------------------

Source = Callable[[np.ndarray], tuple[Tensor, Tensor]]  # row numbers to both encoders' tokens


def sprite_source(pair: Pair, work: Path, pool_size: int, count: int) -> tuple[Source, int]:
    """Tokens of the first `count` scenes of the pool, worked out once and kept in `work`."""
    pool = load_pool(work, pool_size, 1000, VIEWS)
    count = min(count, len(pool.scenes))
    towers = (pair.detector.vision, pair.llava.model.model.vision_tower)
    path = work / f"joint-tokens-{count}-{'-'.join(_print_of(t) for t in towers)}.safetensors"
    if not path.exists():
        parts = np.array_split(np.arange(count), max(1, count // 64))
        both = [pair.tokens(pool.views[112][rows]) for rows in parts]
        kept = {k: torch.cat([b[i].half() for b in both]) for i, k in enumerate(("owl", "llava"))}
        save_file(kept, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)
    known = load_file(path)
    return lambda rows: (known["owl"][rows].float(), known["llava"][rows].float()), count


def _print_of(tower: nn.Module) -> str:
    """A short fingerprint of a tower's weights, so that kept tokens never outlive it."""
    state = tower.state_dict().values()
    sums = [float(v.double().sum()) for v in state if v.is_floating_point()]
    return hashlib.sha256(repr([round(s, 4) for s in sums]).encode()).hexdigest()[:10]


def folder_source(pair: Pair, folder: Path) -> tuple[Source, int]:
    """Tokens of the pictures in a folder (and below), encoded when they are asked for."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not files:
        raise StudyError(f"There are no pictures in {folder} ({', '.join(PICTURES)}).")

    def tokens(rows):
        both = [pair.tokens(load_image(files[i])[None]) for i in rows]
        return tuple(torch.cat([b[k] for b in both]).float() for k in (0, 1))

    return tokens, len(files)


# --- training --------------------------------------------------------------------------------


def fit_alignment(
    pair: Pair,
    source: Source,
    count: int,
    folder: Path,
    *,
    variant,
    hidden,
    steps,
    batch,
    seed,
    say,
) -> Alignment:
    """Train one W; partial work and the log are in `folder`. The error is a share of variance."""
    torch.manual_seed(seed)
    heads = 5 if pair.sizes[1] % 5 == 0 else 4
    alignment = Alignment(variant, *pair.sizes, hidden=hidden, heads=heads)
    projector = pair.llava.model.model.multi_modal_projector
    held = np.arange(count)[-max(1, min(256, count // 10)) :]

    def error(rows):
        tokens, features = source(rows)
        with torch.no_grad():
            wanted = projector(features.to(pair.llava.dtype)).float()
        found = alignment(tokens).float()
        return (found - wanted).square().mean() / wanted.var()

    def loss_at(step):
        rows = np.random.default_rng([seed, step]).integers(0, held[0] or count, batch)
        return error(rows), {}

    def evaluate():
        with torch.no_grad():
            return {"held_out": round(error(held).item(), 4)}

    fit(alignment, loss_at, folder, steps=steps, rate=1e-3, evaluate=evaluate, every=200, say=say)
    return alignment.eval().requires_grad_(False)


def train_joint(
    work: Path,
    *,
    owl: str = "mini/owl",
    llava: str = "mini/llava-1.5",
    images: Path | None = None,
    variant: str = "deep",
    hidden: int = 640,
    steps: int | dict[str, int] = STEPS,
    batch: int = 32,
    count: int = 4096,
    pool_size: int = 24576,
    seed: int = 0,
    compare: bool = False,
    out: Path | None = None,
    card: bool = True,
    say=print,
) -> Path:
    """Train W between a detector and a LLaVA, write the joint model, return its folder.

    Pictures come from the folder `images` or, without one, from the sprite pool in `work` (its
    first `count` scenes). With `compare` the other two kinds of W are trained as well and all are
    scored; `steps` may differ by kind. Run again to continue; a new `llava` starts W again but
    reuses what the encoders said. With `card` (sprites only) the model is measured on the whole
    test set.
    """
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    pair = load_pair(owl, llava)
    if images is None:
        source, count = sprite_source(pair, work, pool_size, count)
    else:
        source, count = folder_source(pair, Path(images))
    marks = marks_of(pair.llava.model)
    stamp = hashlib.sha256(repr(marks).encode()).hexdigest()[:8]
    listed = owl_names() if images is None else ()
    scores, chosen = {}, None
    for kind in dict.fromkeys([variant, *(VARIANTS if compare else ())]):
        say(f"W of the kind {kind}")
        where = work / f"joint-{kind}-{hidden}-{seed}-{_print_of(pair.detector.vision)}-{stamp}"
        count_of = steps if isinstance(steps, int) else steps[kind]
        options = dict(hidden=hidden, steps=count_of, batch=batch, seed=seed, say=say)
        made = fit_alignment(pair, source, count, where, variant=kind, **options)
        save_joint(where / "model", made.half(), owl, llava, listed, marks)
        if card and images is None:
            found = kept(
                where / f"scores-{count_of}.json", lambda at: score(load_model(at / "model"))
            )
            scores[kind] = found | _last(where)
            say(comparison({kind: scores[kind]}).splitlines()[-1])
        chosen = chosen or where / "model"  # the first is the one that was asked for
    folder = out or data_dir() / "zoo" / "joint"
    if card and images is None:
        path = work / f"joint-unmodified-{stamp}.json"
        scores["unmodified"] = kept(path, lambda at: score(pair.llava))
    return _finish(chosen, folder, scores, variant, say)


def kept(path: Path, make: Callable[[Path], dict]) -> dict:
    """What was measured before, or `make(path.parent)` now, kept as JSON: measuring resumes too."""
    if not path.exists():
        text = json.dumps(make(path.parent))
        path.with_suffix(".tmp").write_text(text)
        os.replace(path.with_suffix(".tmp"), path)
    return json.loads(path.read_text())


def _last(where: Path) -> dict[str, float]:
    """Steps taken, and the error on held-out scenes after them."""
    line = json.loads((where / "log.jsonl").read_text().splitlines()[-1])
    return {"error": line["held_out"], "steps": line["step"]}


def _finish(made: Path, folder: Path, scores: dict, variant: str, say) -> Path:
    """Write beside, measure, put in place."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(made, beside)
    if scores:
        say("measuring on the test set")
        steps = scores[variant]["steps"]
        path = made.parent / f"accuracy-{steps}.json"
        _write_card(beside, scores, variant, kept(path, lambda at: measure(load_model(made))))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(folder)
    return folder


# --- what was lost ---------------------------------------------------------------------------


def score(model: Adapter, captions: int = 48, answers: int = 192) -> dict:
    """Object precision and recall of captions, and accuracy of answers, on the sprite test set.

    Stands in for the seed's judge: in a drawn scene everybody can count which objects a caption
    names that are there. Precision and recall are pooled over captions; classes count once each.
    "captions" has for each how many it names, how many are shown, and how many are both.
    """
    from ..benchmarks.sprites import sprites

    items = sprites()
    some = items[:: max(1, len(items) // answers)]
    exact = [says(model, i, {"picture": to_tensor(i.rgb)})["picture"] for i in some]
    counts = []
    for item in items[:: max(1, len(items) // captions)]:
        named = objects_named(model.answer(item.rgb, DESCRIBE, max_new_tokens=160).text)
        shown = {o.name for o in item.extra["scene"].objects}
        counts.append((len(named), len(shown), len(named & shown)))
    said, there, both = np.array(counts).sum(0).tolist()
    return {
        "precision": round(both / said, 4) if said else 0.0,
        "recall": round(both / there, 4),
        "answers": round(float(np.mean(exact)), 4),
        "n_answers": len(exact),
        "captions": counts,
    }


@torch.no_grad()
def says(model: Adapter, item, views: dict[str, Tensor]) -> dict[str, bool]:
    """For each view of an item (1, 3, H, W), whether the greedy answer is the reference exactly.

    It is when every token of the reference, and the end of the text, is the likeliest one after
    those before it, which one teacher-forced pass can tell.
    """
    x = torch.cat(list(views.values()))
    bound = model.bind(x.shape[-2:], item.question)
    ids = model.tokenizer(f" {item.reference}", add_special_tokens=False).input_ids
    ids = torch.tensor([*ids, model.tokenizer.eos_token_id])
    right = (bound.logits(x, ids).argmax(-1).cpu() == ids).all(-1)
    return dict(zip(views, right.tolist(), strict=True))


def measure(model: Adapter) -> dict[str, dict[str, list[bool]]]:
    """As `card.measure`, by `says`: {view: {category: right or wrong}} of the whole test set."""
    from ..benchmarks.sprites import sprites

    out = {view: {c: [] for c in CATEGORIES} for view in SHOWN}
    for item in sprites():
        x = to_tensor(item.rgb)
        empty = [to_tensor(to_uint8(make_baseline(x, kind))) for kind in ("blur", "mean")]
        shown = dict(zip(SHOWN, (x, *empty), strict=True))
        for view, right in says(model, item, shown).items():
            out[view][item.category].append(right)
    return out


def objects_named(caption: str) -> set[str]:
    """The sprite classes that a caption names."""
    words = set(re.findall(r"[a-z]+", caption.lower()))
    return {n for n in scenes.names() if n in words}


def comparison(scores: dict[str, dict]) -> str:
    """The kinds of W as a Markdown table, the seed's own scores in the last column."""
    head = "tokens from | steps | error | object precision | object recall | answers right"
    rows = [f"| {head} | seed's judge |", "|---|---|---|---|---|---|---|"]
    for kind in (*VARIANTS, "unmodified"):
        if kind in scores:
            s = scores[kind]
            error = f"{s['error']:.3f}" if "error" in s else "-"
            cells = [f"{100 * s[k]:.0f} %" for k in ("precision", "recall", "answers")]
            name = f"W, {kind}" if kind != "unmodified" else "LLaVA itself"
            cells = [name, str(s.get("steps", "-")), error, *cells, str(SEED_SCORES[kind])]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _write_card(folder: Path, scores: dict, variant: str, right: dict) -> None:
    model = load_model(folder)
    counts = {v: {c: [sum(h), len(h)] for c, h in by.items()} for v, by in right.items()}
    (folder / "accuracy.json").write_text(json.dumps(counts, indent=1) + "\n")
    (folder / "alignment.json").write_text(json.dumps(scores) + "\n")
    config = json.loads((folder / "config.json").read_text())
    parameters = sum(p.numel() for p in model.alignment.parameters()) / 1e6
    n, steps = scores[variant]["n_answers"], scores[variant]["steps"]
    pictures = len(scores[variant]["captions"])
    (folder / "README.md").write_text(f"""---
language: en
license: apache-2.0
pipeline_tag: image-text-to-text
---
# mini/{folder.name.removesuffix(".partial")}

{config["llava"]} that sees through the encoder of {config["owl"]}: this folder holds only the
alignment between them (kind "{variant}", {parameters:.1f} million parameters, {steps} steps of
squared error to the visual tokens that LLaVA makes itself). Neither model was changed. After either
is trained again W must be too, and loading says so.

Three kinds of W, scored without a judge on the sprite test set (captions of {pictures} pictures,
{n} answers, word for word), beside the scores that the seed's authors got from GPT-4V for COCO
captions (out of 10; another task, not to be compared across columns). "error" is the squared error
on held-out scenes as a share of the tokens' variance. Kinds trained for fewer steps were cut short
for want of time; their place in the order is not settled.

{comparison(scores)}

Whole answer right, word for word, in per cent with 95 % Wilson intervals, on the test picture, on
the blurred picture (the paper's baseline), and on its mean colour (blind):

{table(right)}
""")
