"""Where real benchmarks come from: a folder in the published layout, or the Hugging Face hub.

Nothing is downloaded unless a loader is called without a folder. No revision is invented here: we
had no network to verify one, so `revision=None` means the hub's main branch, and the commit that it
stood for is kept in every item's `extra["provenance"]`.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import StudyError
from ..pixels.images import load_image

Row = dict[str, Any]
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
csv.field_size_limit(2**31 - 1)  # tables may hold whole images as base64


@dataclass(frozen=True)
class Source:
    """A folder with a benchmark's files, and what to write down about where it came from."""

    folder: Path
    provenance: dict[str, str | None]

    def tables(self, *patterns: str) -> list[Path]:
        """Files in the folder that match the patterns, sorted; hidden files are skipped."""
        found = {p for pattern in patterns for p in self.folder.rglob(pattern) if p.is_file()}
        hidden = {p for p in found if any(q[0] == "." for q in p.relative_to(self.folder).parts)}
        return sorted(found - hidden)

    def need(self, name: str, *patterns: str) -> list[Path]:
        """The same, or a StudyError that says what a folder of this benchmark must hold."""
        found = self.tables(*patterns)
        if not found:
            here = sorted(p.name for p in self.folder.iterdir())[:6]
            raise StudyError(
                f"{self.folder} holds no {name} file ({' or '.join(patterns)}), only "
                f"{', '.join(here) or 'nothing'}; give the folder in its published layout."
            )
        return found


def open_source(
    source: str | Path | None, repo: str, revision: str | None = None, files: Iterable[str] = ()
) -> Source:
    """The folder behind `source`: a local folder, a hub dataset "owner/name", or None for `repo`.

    `files` are the patterns worth downloading. Raises StudyError for a folder that is not there and
    for a hub that says no (missing or gated repository, wrong revision, no network).
    """
    local = Path(source) if source is not None else None
    if local is not None and local.is_dir():
        return Source(local, {"source": local.name, "revision": revision})
    if local is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise StudyError(f"There is no folder {source}; give a folder or a dataset 'owner/name'.")
    return _download(str(source or repo), revision, list(files) or None)


def _download(repo: str, revision: str | None, files: list[str] | None) -> Source:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise StudyError(
            f"Downloading {repo} needs a package; run 'pip install huggingface_hub'."
        ) from error
    try:
        folder = snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=files
        )
    except Exception as error:  # the hub's errors share no base class with network errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise StudyError(
            f"The dataset {repo} (revision {revision or 'main'}) could not be downloaded "
            f"({type(error).__name__}: {reason}); check the name, the network and your access, "
            "or pass a local folder."
        ) from error
    return Source(Path(folder), {"source": repo, "revision": Path(folder).name})


def read_table(path: Path, key: str | None = None, lines: bool = False) -> list[Row]:
    """Rows of a CSV, TSV, JSON, JSON-lines or parquet file; parquet images stay in the file.

    `key` names the list inside a JSON object, `lines` says that a .json holds one object a line.
    Raises StudyError for a file that is broken, empty or a pickle (which can run code).
    """
    read_json = _jsonl if lines else partial(_json, key=key)
    readers = {".csv": _csv, ".tsv": _csv, ".json": read_json, ".jsonl": _jsonl}
    readers[".parquet"] = _parquet
    if path.suffix not in readers:
        raise StudyError(f"{path} is no table we read; convert it to {', '.join(TABLES)}.")
    try:
        rows = readers[path.suffix](path)
    except StudyError:
        raise
    except (OSError, ValueError, csv.Error, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        raise StudyError(
            f"The table {path} cannot be read ({reason}); download it again."
        ) from error
    if not rows:
        raise StudyError(f"The table {path} has no rows; download it again.")
    return rows


def _csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def _json(path: Path, key: str | None) -> list[Row]:
    tree = json.loads(path.read_text(encoding="utf-8-sig"))
    rows = tree.get(key, list(tree.values())) if isinstance(tree, dict) else tree
    rows = rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError("it holds no list of records")
    return rows


def _jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    table = _parquet_file(path)
    images = [f.name for f in table.schema_arrow if f.name in ("image", "images", "decoded_image")]
    plain = [f.name for f in table.schema_arrow if f.name not in images]
    rows = table.read(columns=plain).to_pylist()
    for place, row in enumerate(rows):
        row.update({name: ParquetImage(path, place, name) for name in images})
    return rows


def _parquet_file(path: Path):
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise StudyError(f"Reading {path} needs a package; run 'pip install pyarrow'.") from error
    return parquet.ParquetFile(path)


@dataclass(frozen=True)
class ParquetImage:
    """An image that stays in its parquet file until someone looks: memory does not grow."""

    path: Path
    row: int
    column: str

    def __call__(self) -> np.ndarray:
        start, cells = _row_group(self.path, self.row, self.column)
        return decode(cells[self.row - start], where=f"row {self.row} of {self.path}")


@lru_cache(maxsize=1)
def _group_starts(path: Path) -> list[int]:
    meta = _parquet_file(path).metadata
    sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
    return list(np.cumsum([0, *sizes]))


def _row_group(path: Path, row: int, column: str) -> tuple[int, list]:
    group = int(np.searchsorted(_group_starts(path), row, side="right")) - 1
    return _group_starts(path)[group], _cells(path, group, column)


@lru_cache(maxsize=2)
def _cells(path: Path, group: int, column: str) -> list:
    try:
        return _parquet_file(path).read_row_group(group, columns=[column])[column].to_pylist()
    except (OSError, ValueError) as error:
        raise StudyError(f"The table {path} is damaged ({error}); download it again.") from error


def decode(cell: Any, where: str) -> np.ndarray:
    """uint8 (H, W, 3) from encoded bytes, a {"bytes": ...} record or a base64 string."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    try:
        data = base64.b64decode(data, validate=True) if isinstance(data, str) else data
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise StudyError(
            f"The image in {where} cannot be read ({error}); leave the item out or download again."
        ) from error
    return load_image(image)


def image_source(cell: Any, folder: Path, where: str) -> Path | Callable[[], np.ndarray]:
    """What `Item.image` needs, from a cell of any table: a path, encoded bytes, base64 or nothing.

    Nothing is opened here, so that one unreadable image costs one item, when it is used.
    """
    if isinstance(cell, ParquetImage):
        return cell
    if isinstance(cell, dict) and not cell.get("bytes"):
        cell = cell.get("path")
    if isinstance(cell, str) and 0 < len(cell) < 500:
        return folder / cell
    return StoredImage(cell, where)


@dataclass(frozen=True)
class StoredImage:
    """An image kept encoded in a table's cell; opening nothing gives a clear error."""

    cell: Any
    where: str

    def __call__(self) -> np.ndarray:
        if not self.cell:
            raise StudyError(f"There is no image in {self.where}; this table holds only text.")
        return decode(self.cell, self.where)


def pick(row: Row, *names: str, where: Path | str = "the table") -> Any:
    """The first of several spellings of a column; StudyError lists the columns that are there."""
    for name in names:
        if name in row and row[name] is not None:
            return row[name]
    raise StudyError(
        f"{where} has no column {' or '.join(map(repr, names))}, only "
        f"{', '.join(map(repr, row))}; is this the right file?"
    )


def split_options(text: str) -> tuple[str, ...]:
    """Options from "(a) Open (b) Closed", "A: red, B: blue" or lines "(A) 1"; () without any.

    Letters must run a, b, c ... from the start, so that a parenthesis inside an option stays there.
    """
    marks, begin = [], 0
    for letter in "abcdefgh":
        pattern = rf"(?:^|[\s,])(?:\({letter}\)|{letter}[:.)])(?=\s|$)"
        found = re.compile(pattern, re.IGNORECASE).search(text, begin)
        if not found:
            break
        marks.append(found)
        begin = found.end()
    ends = [m.start() for m in marks[1:]] + [len(text)] if marks else []
    cuts = [text[m.end() : end] for m, end in zip(marks, ends, strict=True)]
    return tuple(cut.strip().rstrip(",").strip() for cut in cuts)
