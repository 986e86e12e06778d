"""Give the stored maps of a method the name that they have now.

    python tools/rename_method.py data/results/mini igos 'igos[preset=paper]'
    python tools/rename_method.py data/results/mini 'igos[l2=1]' 'igos[preset=paper,l2=1]'

For when a method's default has changed, and the old default has a name of its own: the same
numbers under their true name. The folder of every model and benchmark moves, column `method` is
rewritten, and the metadata of every file says `{"renamed": {"from": OLD, "commit": ...}}`; all
else stays. OLD is taken as it was written then, NEW in its canonical text. That both name the same
computation is checked where the files say what their options were, and else the caller's word.
Not while a run is at work on the folder; afterwards run 'lvlm-study summarise'.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import variants
from lvlm_study.sweep import identity, provenance
from lvlm_study.sweep import tables as shards


def rename(results: Path, old: str, new: str) -> int:
    """Move the maps of `old` to `new` everywhere; returns the number of files.

    Raises StudyError, before anything is moved, when there are none, when `new` has maps already,
    or when a file holds other rows or another computation.
    """
    new = variants.canonical(new)
    moves = [
        (folder, folder.with_name(variants.folder_name(new)))
        for folder in sorted((results / "maps").glob(f"*/*/{literal_folder(old)}"))
    ]
    if not moves:
        raise StudyError(f"There are no maps of {old} in {results}.")
    for source, target in moves:
        if target.exists():
            raise StudyError(f"{target} exists; nothing was moved.")
        for path in source.glob("*.parquet"):
            check(path, old, new)
    return sum(move(source, target, old, new) for source, target in moves)


def literal_folder(name: str) -> str:
    """The folder that a name had when it was written, whatever its options mean today."""
    method, _, inside = name.partition("[")
    return f"{method}@{quote(inside.removesuffix(']'), safe='=,+')}" if inside else method


def check(path: Path, old: str, new: str) -> None:
    """Raise StudyError if a file is not what is to be renamed."""
    rows, about = shards.read_shard(path)
    others = {row["method"] for row in rows} - {old}
    if others:
        raise StudyError(f"{path} holds maps of {', '.join(sorted(others))}; nothing was moved.")
    made = about.get("settings", {}).get("options")
    differ = made and identity.differences({"": made}, {"": identity.method_options(new)})
    if differ:
        raise StudyError(f"{path} is not {new} ({'; '.join(differ)}); nothing was moved.")


def move(source: Path, target: Path, old: str, new: str) -> int:
    """Write the renamed files beside their place, then change places; returns their number."""
    stage = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(stage, ignore_errors=True)  # left by a call that was killed
    shutil.copytree(source, stage)
    paths = sorted(stage.glob("*.parquet"))
    for path in paths:
        table = renamed(pq.read_table(path, partitioning=None), old, new)
        pq.write_table(table, path, compression="zstd")
    os.replace(stage, target)
    shutil.rmtree(source)
    return len(paths)


def renamed(table: pa.Table, old: str, new: str) -> pa.Table:
    """The table with `new` for its method and a note in its metadata; all else as it was."""
    at = table.schema.get_field_index("method")
    names = pa.array([new] * len(table), table.schema.field(at).type)
    about = json.loads(table.schema.metadata[shards.META])
    about["renamed"] = {"from": old, "commit": provenance.commit()} | (
        {"before": about["renamed"]} if "renamed" in about else {}
    )
    table = table.set_column(at, table.schema.field(at), names)
    note = {shards.META: json.dumps(about).encode()}
    return table.replace_schema_metadata(table.schema.metadata | note)


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 3:
        print(f"usage: rename_method.py RESULTS OLD NEW\n\n{__doc__}", file=sys.stderr)
        return 2
    try:
        count = rename(Path(words[0]), words[1], words[2])
    except StudyError as error:
        print(f"rename_method: {error}", file=sys.stderr)
        return 2
    print(f"{count} files of {words[1]} are now {variants.canonical(words[2])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
