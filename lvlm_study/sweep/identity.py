"""What a row was made from: an item's content as a hash, a method's options with their defaults.

Two rows may stand in one shard only if their options agree, and a row stands for its item only as
long as the item is what it was. Rows from before the options were recorded cannot say; they are
read as they are, and nothing is put beside them.
"""

import hashlib
import inspect
import json
from dataclasses import asdict

import numpy as np

from ..answers import make_target
from ..heatmaps import METHODS, variants

INERT = ("batch",)  # decide how much is computed at once, and nothing about the result
PARTS = {  # what the rows of a table depend on, beside the pixels
    "reliance": ("question", "category", "reference", "accept", "options"),
    "effects": ("question", "category", "scene", "style", "strip"),
    "subsets": ("question", "category", "scene", "style", "strip"),
    "maps": ("question", "category", "evidence", "scene"),
}
RECORDED = ("target", "options", "draws")  # of a shard's settings: those of old identity lack them


def content_hashes(item) -> dict[str, tuple[str | None, ...]]:
    """{kind of table: hashes of what its rows depend on}, None for a picture that cannot be read.

    New rows carry the first. The second is of a scene with every property written out: rows of a
    day on which scenes had just been given a ground carry it, though their scenes have none.
    """
    try:
        picture = _bytes(item.rgb)
    except Exception:  # noqa: BLE001 - the row will say what is wrong with it
        return dict.fromkeys(PARTS, (None,))
    return {
        kind: tuple(
            _hash(picture, *(_part(item, key, plain) for key in PARTS[kind]))
            for plain in (_shortest, asdict)
        )
        for kind in PARTS
    }


def target_options(**given) -> dict:
    """How the explained tokens and the fill are chosen: the defaults, and what a variant changes.

    As JSON would give it back: lists for sets and tuples.
    """
    return _plain(_defaults(make_target, "model", "image", "question", "answer", "seed") | given)


def method_options(name: str) -> dict:
    """Every option of a method or variant that its result depends on: `rise` -> `{"masks": ...}`.

    A preset stands for its options. Options of the target are those of `target_options`.
    """
    method, about, own = variants.split_options(name)
    options = _defaults(METHODS[method], "target", "seed") | own
    options = {key: value for key, value in options.items() if key not in INERT}
    presets = getattr(inspect.getmodule(METHODS[method]), "PRESETS", {})
    for key, value in presets.get(options.pop("preset", None), {}).items():
        options[key] = value if options.get(key) is None else options[key]
    return _plain(options) | {"target": target_options(**about)}


def of_old(settings: dict) -> bool:
    """Whether a shard's settings are from before options were recorded."""
    return RECORDED[0] not in settings


def differences(before: dict, now: dict, path: str = "") -> list[str]:
    """What differs between two settings: "seed", "masks 1000, now 3000".

    An option at None is one not used, so that a method may get another and keep its rows.
    """
    found = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{path}{key}.")
        else:
            found.append(f"{path}{key} {old}, now {new}" if path else key)
    return found


def _defaults(function, *left_out: str) -> dict:
    known, none = inspect.signature(function).parameters.items(), inspect.Parameter.empty
    return {k: p.default for k, p in known if k not in left_out and p.default is not none}


def _plain(options: dict) -> dict:
    return json.loads(json.dumps(options, default=sorted))


def _part(item, key: str, plain) -> bytes:
    return _bytes(getattr(item, key) if hasattr(item, key) else item.extra.get(key), plain)


def _shortest(value) -> dict:
    """A scene without what is as usual, so that one more property changes no hash."""
    return value.to_json() if hasattr(value, "to_json") else asdict(value)


def _bytes(value, plain=asdict) -> bytes:
    """Equal for equal values only: arrays with their shape and type, all else as JSON."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return json.dumps(value, sort_keys=True, default=plain).encode()


def _hash(*parts: bytes) -> str:
    """The first 16 signs of the sha256 of the parts' own hashes."""
    whole = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(whole).hexdigest()[:16]
