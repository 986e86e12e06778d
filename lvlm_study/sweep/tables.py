"""Result tables on disc: small parquet files that are whole or absent, whatever kills the writer.

    results/<kind>/<model>/<benchmark>[/<method>]/003.parquet

A shard holds one chunk of a benchmark's items. It is written beside its place and renamed onto it,
which no reader can catch half done, and it is written again after every item, so that a killed
run loses the item in flight and nothing else.
"""

import errno
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ..errors import StudyError

META = b"lvlm_study"


def folder_name(name: str) -> str:
    """A model's or benchmark's name as the name of a folder: "mini/llava" -> "mini--llava"."""
    return re.sub(r"[^\w.-]+", "--", name.strip("/")) or "--"


def write_shard(path: Path, rows: list[dict], schema: pa.Schema, about: dict) -> None:
    """Put `rows` (in this order) at `path` in one step; `about` goes into the file's metadata.

    Raises StudyError when the disc is full or the folder cannot be written to; what stood at
    `path` before is then untouched.
    """
    schema = schema.with_metadata({META: json.dumps(about)})
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), part, compression="zstd")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise unwritable(path.parent, error) from error


def read_shard(path: Path) -> tuple[list[dict], dict]:
    """`(rows, about)` of a shard; nothing if it does not exist. Raises StudyError if damaged."""
    if not path.exists():
        return [], {}
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise StudyError(f"{path} is damaged; remove it and run again.") from error
    about = (table.schema.metadata or {}).get(META, b"{}")
    return table.to_pylist(), json.loads(about)


def outline(path: Path) -> tuple[int, dict]:
    """`(number of rows, about)` of a shard, which is not read; nothing if there is none to read."""
    try:
        found = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return 0, {}
    return found.num_rows, json.loads((found.metadata or {}).get(META, b"{}"))


def set_aside(path: Path) -> Path:
    """Rename a damaged shard, so that it is made again and can still be looked at."""
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside


def read_table(results: Path, kind: str) -> pd.DataFrame:
    """All rows of one kind ("reliance" or "maps") under a results folder, in a fixed order.

    Raises StudyError for a damaged shard. An empty frame when there is none.
    """
    frames = []
    for path in sorted((Path(results) / kind).rglob("*.parquet")):
        try:
            frames.append(pq.read_table(path, partitioning=None).to_pandas())
        except (pa.ArrowException, OSError) as error:
            raise StudyError(f"{path} is damaged; remove it and run again.") from error
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def made_with(results: Path, kinds=("reliance", "maps", "effects")) -> dict[str, str]:
    """Package versions that the tables of a folder were made with, several where runs differed."""
    found: dict[str, set[str]] = {}
    for kind in kinds:
        for path in sorted((Path(results) / kind).rglob("*.parquet")):
            about = (pq.read_schema(path).metadata or {}).get(META, b"{}")
            for name, version in json.loads(about).get("versions", {}).items():
                found.setdefault(name, set()).update(version.split(", "))
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


@contextmanager
def chunk_lock(results: Path, name: str, wait: bool = False):
    """Hold a chunk; yields False when another run holds it (and `wait` is not asked for).

    The operating system keeps the lock and drops it when the process ends, however it ends: nobody
    ever waits for a dead run.
    """
    folder = Path(results) / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise unwritable(results, error) from error
    try:
        yield True
    finally:
        lock.release()


def unwritable(folder: Path, error: OSError) -> StudyError:
    """The sentence for a folder that takes no files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudyError(f"The disc that holds {folder} is full; make room and run again.")
    why = error.strerror or error
    return StudyError(f"Cannot write to {folder} ({why}); choose another folder.")


def write(path: Path, tree: dict) -> None:
    """Put a results file at its place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    part.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
