"""Where the study's data live: in the repository, not in the wheel."""

import os
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
