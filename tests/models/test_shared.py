"""A training that leans on the first one's folder loads, counts and is checked as one file."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lvlm_study import cli
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model, manifest
from lvlm_study.models import weights as shared
from lvlm_study.paths import data_dir
from lvlm_study.sweep import provenance
from lvlm_study.zoo import train as training


@pytest.fixture
def zoo(checkpoints, tmp_path):
    """Two trainings of a tiny LLaVA: the second has another connector, its tower is the same."""
    for name in ("tiny", "tiny-seed1"):
        shutil.copytree(checkpoints("llava"), tmp_path / "zoo" / name)
    weights = tmp_path / "zoo" / "tiny-seed1" / shared.WEIGHTS
    tensors = load_file(weights)
    changed = {k: v + 1 for k, v in tensors.items() if "multi_modal_projector" in k}
    assert len(changed) == 4
    save_file(tensors | changed, weights, metadata=shared.FORMAT)
    return tmp_path / "zoo"


def test_only_what_differs_is_kept_and_the_model_is_the_same(zoo):
    folder = zoo / "tiny-seed1"
    before, model = (folder / shared.WEIGHTS).read_bytes(), load_model(folder).model.state_dict()
    assert shared.share(folder, "tiny") and not (folder / shared.WEIGHTS).exists()
    own = load_file(folder / shared.OWN)
    assert sorted(own) == sorted(k for k in model_keys(before) if "multi_modal_projector" in k)
    assert shared.whole(folder) == before
    again = load_model(folder).model.state_dict()
    assert all(torch.equal(again[k], v) for k, v in model.items())
    other = load_model(zoo / "tiny").model.state_dict()
    assert any(not torch.equal(again[k], v) for k, v in other.items())


def model_keys(data: bytes) -> list[str]:
    size = int.from_bytes(data[:8], "little")
    return [k for k in json.loads(data[8 : 8 + size]) if k != "__metadata__"]


def test_checksum_and_size_do_not_tell_how_the_weights_lie(zoo, monkeypatch):
    monkeypatch.setenv("LVLM_STUDY_DATA", str(zoo.parent))
    folder = zoo / "tiny-seed1"
    lone, count = manifest.checksums(folder), shared.parameters(shared.weight_files(folder))
    before = provenance.weights_checksum(load_model("mini/tiny-seed1"))
    shared.share(folder, "tiny")
    assert manifest.checksums(folder) == lone and before == lone[shared.WEIGHTS]
    assert provenance.weights_checksum(load_model("mini/tiny-seed1")) == before
    assert shared.parameters(shared.weight_files(folder)) == count
    assert provenance.weight_files("mini/tiny-seed1") == [
        zoo / "tiny" / shared.WEIGHTS,
        folder / shared.OWN,
    ]
    assert f"{count / 1e6:.1f} M parameters" in cli._model_size("mini/tiny-seed1")


def test_a_first_training_that_changed_or_went_is_named(zoo):
    folder = zoo / "tiny-seed1"
    shared.share(folder, "tiny")
    manifest.note(zoo, "tiny-seed1")
    manifest.check(folder)
    tensors = load_file(zoo / "tiny" / shared.WEIGHTS)
    tower = next(k for k in tensors if "vision_tower" in k)
    save_file(tensors | {tower: tensors[tower] + 1}, zoo / "tiny" / shared.WEIGHTS)
    with pytest.raises(StudyError, match="tiny-seed1/model.safetensors is not the file"):
        manifest.check(folder)
    (zoo / "tiny" / shared.WEIGHTS).unlink()
    with pytest.raises(StudyError, match="tiny/model.safetensors is missing; restore it"):
        manifest.check(folder)


def test_nothing_is_shared_with_another_architecture_or_with_nothing(zoo, checkpoints):
    folder = zoo / "tiny-seed1"
    assert not shared.share(folder, "absent")
    shutil.copytree(checkpoints("llava_onevision"), zoo / "other")
    assert not shared.share(folder, "other")
    assert (folder / shared.WEIGHTS).is_file() and not (folder / shared.OWN).exists()
    assert shared.whole(folder) is None


@pytest.mark.parametrize("name", [f"{n}-seed{k}" for n in training.SEEDED for k in (1, 2)])
def test_committed_trainings_lean_on_the_first_one(name):
    folder = data_dir() / "zoo" / name
    base = name.rpartition("-seed")[0]
    assert shared.first_of(folder) == (data_dir() / "zoo" / base / shared.WEIGHTS).resolve()
    own, first = load_file(folder / shared.OWN), load_file(shared.first_of(folder))
    assert own and not any("vision_tower" in k for k in own) and set(own) < set(first)
