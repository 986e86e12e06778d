"""The rehearsal at true size: true sizes, the hub's layout, and one run from end to end."""

import json

import pytest
import rehearse
import torch

from lvlm_study.models import load_model

PUBLISHED = {  # parameters of the published files; with a tower each, where they leave it out
    "SmolVLM-256M": 256_484_928,
    "LLaVA-1.5-7B": 7_063_427_072,
    "LLaVA-OneVision-7B": 8_030_348_832,
    "Qwen2.5-VL-7B": 8_292_166_656,
    "InternVL3-8B": 7_944_373_760,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", rehearse.MODELS)
def test_the_sizes_are_the_published_ones(name):
    """Built without content; the checkpoint would have these weights and this image token."""
    config = rehearse.MODELS[name].config()
    count = sum(p.numel() for p in rehearse.outlined(config).parameters())
    if name in PUBLISHED:
        assert count == pytest.approx(PUBLISHED[name], rel=1e-4)
    assert 0 < config.image_token_id < config.get_text_config().vocab_size


def test_the_stand_in_speaks_in_bytes_and_has_a_word_for_every_number():
    tok = rehearse.stand_in(400, {"<image>": 390, "<img>": 300})
    assert len(tok) == 400 and tok.convert_tokens_to_ids("<image>") == 390
    ids = tok("é<image>b", add_special_tokens=False).input_ids
    assert len(ids) == 4 and ids[2] == 390 and tok.decode(ids) == "é<image>b"
    assert tok.decode([399]) == "w399" and tok.convert_ids_to_tokens([1, 2]) == ["<s>", "</s>"]


@pytest.fixture
def shrunken(monkeypatch):
    """SmolVLM's course with a model of a few thousand weights."""

    def config():
        made = rehearse.smolvlm()
        vision, text = made.vision_config.to_dict(), made.text_config.to_dict()
        small = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32}
        vision |= small | {"num_attention_heads": 2}
        text |= small | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
        return type(made)(vision_config=vision, text_config=text, image_token_id=49190,
                          scale_factor=4, pad_token_id=2)  # fmt: skip

    true = rehearse.MODELS["SmolVLM-256M"]
    made = rehearse.TrueSize(config, true.processor, true.small, specials=true.specials,
                             template=true.template)  # fmt: skip
    monkeypatch.setitem(rehearse.MODELS, "SmolVLM-256M", made)


def test_the_checkpoint_is_one_of_the_hub(shrunken, tmp_path):
    count = rehearse.write("SmolVLM-256M", tmp_path, small=True)
    model = load_model(tmp_path, dtype="bf16")
    weights = dict(model.model.named_parameters())
    assert sum(w.numel() for w in weights.values()) == count
    norms = [w for n, w in weights.items() if w.dim() == 1 and n.endswith("weight")]
    assert norms and all((w == 1).all() for w in norms)
    assert all((w != 0).any() for n, w in weights.items() if not n.endswith("bias"))
    bound = model.bind((48, 64), "What?")
    assert int(bound.image_span.sum()) == 64 and "USER: " in model.prompt("What?")


def test_a_run_is_one_file_and_one_line(shrunken, tmp_path, capsys):
    where = ["--results", str(tmp_path), "--work", str(tmp_path)]
    assert rehearse.main(["SmolVLM-256M", "--small", *where]) == 0
    told = capsys.readouterr().out
    run = json.loads((tmp_path / "smolvlm-256m-small.json").read_text())
    assert run["visual_tokens"] == 64 and run["answer_tokens"] == rehearse.WORDS
    assert run["map"]["backward"] == 2 and run["map"]["finite"]
    assert run["provenance"]["weights"] == "random" and str(tmp_path) not in json.dumps(run)
    memory = run["memory_gib"]
    assert memory["counted"] > memory["weights"] + memory["saved"] > memory["weights"] > 0
    assert memory["measured"] / memory["estimated"] == memory["of_estimated"] > 0
    assert run["map"]["expected_seconds"] == pytest.approx(2 * run["gradient"]["seconds"])
    assert not list(tmp_path.glob("rehearsal-*")) and "SmolVLM-256M (one view)" in told
    rehearse.main(["--table", *where])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(rehearse.MODELS) and lines[0].count("|") == lines[1].count("|")
    assert sum("not yet run" in line for line in lines) == len(lines) - 1


@pytest.mark.slow
def test_smolvlm_at_true_size(tmp_path):
    """A quarter of a billion weights, one view: memory as counted and as estimated, within 30 %."""
    run = rehearse.rehearse("SmolVLM-256M", tmp_path, small=True, say=lambda text: None)
    assert run["parameters"] == PUBLISHED["SmolVLM-256M"] and run["visual_tokens"] == 64
    assert run["map"]["finite"] and run["map"]["backward"] == 2
    for ratio in ("of_counted", "of_estimated"):
        assert run["memory_gib"][ratio] == pytest.approx(1, abs=0.3), ratio
    if torch.cuda.is_available():
        assert run["provenance"]["device"] != "cpu"
