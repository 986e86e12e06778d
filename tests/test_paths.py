"""A file is put at its place whole or not at all."""

import errno
import os

import pytest

from lvlm_study.errors import StudyError
from lvlm_study.paths import replacing


def test_a_writer_that_fails_leaves_what_stood_there(tmp_path):
    path = tmp_path / "deep" / "a.json"
    with replacing(path) as part:
        part.write_text("old")
        assert not path.exists() and part.parent == path.parent
    with pytest.raises(ValueError, match="half"), replacing(path) as part:
        part.write_text("ne")
        raise ValueError("half way")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["a.json"]


def test_a_full_disc_and_a_forbidden_folder_get_a_sentence(tmp_path):
    for code, words in ((errno.ENOSPC, "is full; make room"), (errno.EACCES, "choose another")):
        with pytest.raises(StudyError, match=words), replacing(tmp_path / "a"):
            raise OSError(code, os.strerror(code))
    with pytest.raises(StudyError, match="Cannot write"), replacing(tmp_path / "f" / "a") as part:
        (tmp_path / "f").rmdir()
        (tmp_path / "f").write_text("in the way")
        part.write_text("x")
