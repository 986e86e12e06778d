"""Where the study's data live, and how a file is put at its place: whole or not at all."""

import errno
import os
from contextlib import contextmanager
from pathlib import Path

from .errors import StudyError


def data_dir() -> Path:
    """The `data/` folder: `$LVLM_STUDY_DATA` if set, else beside the package (editable install).

    Raises StudyError when neither exists, because zoo, sprites and results all live there.
    """
    named = os.environ.get("LVLM_STUDY_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parent.parent / "data"
    if not folder.is_dir():
        raise StudyError(
            f"No data folder at {folder}; clone the repository and install it with "
            "'pip install -e .', or point LVLM_STUDY_DATA at its data/ folder."
        )
    return folder


@contextmanager
def replacing(path: Path):
    """Yield a name beside `path` to write to; the file takes its place when the block ends well.

    No reader catches it half done, and a writer that is killed leaves what stood there. Folders
    are made. Raises StudyError when the disc is full or the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError) -> StudyError:
    """The sentence for a folder that takes no files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudyError(f"The disc that holds {folder} is full; make room and run again.")
    why = error.strerror or error
    return StudyError(f"Cannot write to {folder} ({why}); choose another folder.")
