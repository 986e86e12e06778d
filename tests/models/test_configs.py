"""What is no checkpoint of ours is told from its config.json, before any model is built."""

import json
import shutil
import types

import pytest
import tiny
import torch
import transformers as T
from safetensors.torch import load_file, save_file

from lvlm_study.errors import StudyError
from lvlm_study.models import checkpoint, configs, load_model, towers
from lvlm_study.models.registry import FAMILIES
from lvlm_study.sweep import provenance

TOWER = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
TOWER |= dict(image_size=28, patch_size=14)


@pytest.fixture
def whole(checkpoints, tmp_path):
    """A checkpoint that can be loaded."""
    return shutil.copytree(checkpoints("llava"), tmp_path / "model")


@pytest.fixture
def folder(whole, monkeypatch):
    """A checkpoint to spoil; it is a failure of its test if its weights are ever loaded."""

    def loaded(*args):
        raise AssertionError("a model was built")

    monkeypatch.setattr(checkpoint, "load_weights", loaded)
    return whole


def refused(folder) -> str:
    """The one sentence that a folder is refused with."""
    with pytest.raises(StudyError) as told:
        load_model(folder)
    message = str(told.value)
    assert "\n" not in message and message.endswith(".")
    return message


def write(folder, config) -> None:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))


# --- originals -----------------------------------------------------------------------------

ORIGINAL = {  # as the repositories of their authors have them, shortened
    "vicuna 7b": (
        {"model_type": "llava_llama", "hidden_size": 4096, "image_aspect_ratio": "pad"},
        "llava-hf/llava-1.5-7b-hf",
    ),
    "vicuna 13b": (
        {"model_type": "llava_llama", "hidden_size": 5120},
        "llava-hf/llava-1.5-13b-hf",
    ),
    "early name": (
        {"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
        "llava-hf/llava-1.5-7b-hf",
    ),
    "1.6": (
        {"model_type": "llava_llama", "hidden_size": 5120, "image_aspect_ratio": "anyres"},
        "llava-hf/llava-v1.6-vicuna-13b-hf",
    ),
    "1.6 34b": (
        {"model_type": "llava_llama", "hidden_size": 7168, "image_aspect_ratio": "anyres"},
        "llava-hf/llava-v1.6-34b-hf",
    ),
    "mistral": ({"model_type": "llava_mistral"}, "llava-hf/llava-v1.6-mistral-7b-hf"),
    "onevision": (
        {"model_type": "llava_qwen", "hidden_size": 896},
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    ),
    "internvl": ({"model_type": "internvl_chat", "auto_map": {}}, "OpenGVLab/InternVL3-8B-hf"),
    "mini-gemini": ({"model_type": "mini_gemini"}, "YanweiLi/MGM-7B"),
    "another of its line": (
        {"model_type": "bunny-qwen", "mm_projector_type": "mlp2x_gelu"},
        "one of llava-hf",
    ),
}


@pytest.mark.parametrize("case", ORIGINAL)
def test_an_original_checkpoint_is_told_its_conversion(folder, case):
    config, name = ORIGINAL[case]
    write(folder, config)
    told = refused(folder)
    assert f"original {config['model_type']!r} checkpoint" in told
    assert f"its conversion, as {name}, or convert" in told


def test_converted_and_own_checkpoints_are_no_originals():
    own = {"mm_vision_tower": "x", "mm_projector_type": "sva"}
    for kind in ("cambrian_llama", "cambrian_phi3", "mgm"):
        assert configs.converted_of({"model_type": kind} | own, FAMILIES) is None
    for kind in FAMILIES:
        assert configs.converted_of({"model_type": kind, "vision_config": {}}, FAMILIES) is None


# --- too little, or something else -----------------------------------------------------------

WRONG = {
    "empty file": ("", "config.json cannot be read as JSON"),
    "a list": ("[1, 2]", "does not hold a JSON object"),
    "a word": ('"llava"', "does not hold a JSON object"),
    "{}": ({}, "has no model_type"),
    "empty type": ({"model_type": ""}, "has no model_type"),
    "type of another kind": ({"model_type": ["llava"]}, "has no model_type"),
    "nothing but a type": ({"model_type": "llava"}, "no vision_config, so nobody knows which"),
    "no vision part": (
        {"model_type": "llava", "text_config": {"hidden_size": 8}},
        "has no vision_config",
    ),
    "empty vision part": (
        {"model_type": "qwen2_5_vl", "vision_config": {}, "text_config": {"hidden_size": 8}},
        "has no vision_config",
    ),
    "no text part": (
        {"model_type": "gemma3", "vision_config": {"hidden_size": 8}},
        "has no text_config",
    ),
    "no text part, nor its sizes": (
        {"model_type": "qwen2_vl", "vision_config": {"depth": 2}, "hidden_size": 8},
        "has no text_config",
    ),
    "cambrian without sizes": ({"model_type": "cambrian_llama"}, "has no hidden_size"),
    "mini-gemini without depth": (
        {"model_type": "mgm", "hidden_size": 8},
        "has no num_hidden_layers",
    ),
    "language model": ({"model_type": "qwen2"}, "'qwen2' model, which is no vision-language"),
    "encoder": (
        {"model_type": "siglip_vision_model"},
        "'siglip_vision_model' model, which is no vision-language",
    ),
    "text half": ({"model_type": "gemma3_text"}, "'gemma3_text' model, which is no vision-lang"),
    "code of its own": (
        {"model_type": "molmo_x", "auto_map": {"AutoModel": "a.b"}},
        "needs code of its own, and none is run here",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_that_says_too_little_builds_nothing(folder, case):
    config, message = WRONG[case]
    write(folder, config)
    assert message in refused(folder)


def test_a_flat_config_names_its_sizes_at_the_top():
    """Qwen2-VL's first configs have no text_config."""
    flat = {"model_type": "qwen2_vl", "vision_config": {"depth": 32}}
    assert configs.missing_part(flat | {"hidden_size": 8, "num_hidden_layers": 2}) is None


@pytest.mark.parametrize("lacking", ["hidden_size", "num_hidden_layers", "intermediate_size"])
def test_a_config_whose_part_lacks_its_sizes_does_not_make_a_default_model(folder, lacking):
    """What is left out of text_config is Llama-7b's; the files are far too small for that."""
    config = json.loads((folder / "config.json").read_text())
    parts = {k: v for k, v in config["text_config"].items() if k == "model_type"}
    if lacking != "hidden_size":
        parts |= {"hidden_size": 1024, "num_attention_heads": 2, "num_key_value_heads": 2}
    if lacking == "intermediate_size":
        parts |= {"num_hidden_layers": 2}
    write(folder, config | {"text_config": parts})
    assert "weights and the files hold 0." in refused(folder)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_fits_its_own_files(checkpoints, family):
    files = checkpoint.weight_files(checkpoints(family))
    configs.check_fit(checkpoints(family), FAMILIES[_kind(checkpoints(family))].model_class, files)


def _kind(folder) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def test_no_config_but_something_known(tmp_path):
    """A folder without config.json is told what it looks like."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "an adapter (LoRA) alone; merge it into org/base" in refused(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model-Q4.gguf").write_bytes(b"GGUF")
    assert "GGUF file, which is for llama.cpp" in refused(tmp_path)
    (tmp_path / "model-Q4.gguf").unlink()
    assert "a model folder needs the Hugging Face layout" in refused(tmp_path)
    (tmp_path / "checkpoint-100").mkdir()
    (tmp_path / "checkpoint-100" / "config.json").write_text("{}")
    assert "but in checkpoint-100 below it; name that folder" in refused(tmp_path)


# --- weights -----------------------------------------------------------------------------------


def test_two_sets_of_weights_are_refused(folder):
    """transformers would take the one file, and the check another one."""
    save_file(load_file(folder / "model.safetensors"), folder / "a.safetensors")
    names = dict.fromkeys(load_file(folder / "a.safetensors"), "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert "two sets of weights, model.safetensors and the 1 files of model.saf" in refused(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": null}'])
def test_an_index_of_nothing_is_refused(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    assert "index.json names no weight files" in refused(folder)


def test_pickles_beside_safetensors_do_no_harm(whole):
    torch.save({}, whole / "pytorch_model.bin")
    assert load_model(whole).model is not None


# --- quantised ------------------------------------------------------------------------------------

QUANTISED = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    "old bitsandbytes": ({"load_in_8bit": True}, "bitsandbytes"),
    "awq": ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
    "gptq": ({"quant_method": "gptq", "bits": 4}, "gptqmodel"),
    "fp8": ({"quant_method": "fp8"}, "accelerate"),
    "compressed": ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
}


@pytest.mark.parametrize("case", QUANTISED)
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantised_weights_name_their_package(folder, monkeypatch, case, key):
    monkeypatch.setattr(configs, "installed", lambda name: False)
    settings, package = QUANTISED[case]
    tiny.edit_json(folder / "config.json", **{key: settings})
    told = refused(folder)
    assert "holds weights quantised by " in told and f"run 'pip install {package}" in told


@pytest.mark.parametrize("settings", [{"quant_method": "magic"}, {}, [], "4bit", {"bits": 4}])
def test_an_unknown_quantisation_is_refused_in_a_sentence(folder, settings):
    tiny.edit_json(folder / "config.json", quantization_config=settings)
    assert "which cannot be read here (known: bitsandbytes" in refused(folder)


def test_only_what_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setattr(configs, "installed", lambda name: name == "accelerate")
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "pip install bitsandbytes'" in refused(folder)


def test_packages_are_found_by_their_name_for_pip():
    assert checkpoint.installed("scikit-image") and not checkpoint.installed("no-such-package")


def test_quantised_weights_are_for_a_gpu(folder, monkeypatch):
    """On the CPU bitsandbytes answers and gives no gradients: a map would be wrong or constant."""
    monkeypatch.setattr(configs, "installed", lambda name: True)
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "bitsandbytes, which give no gradients on the CPU; load it on a GPU" in refused(folder)


def test_what_transformers_says_of_a_package_is_one_sentence(whole, monkeypatch):
    """A package that is there but too old, or of no use on this device."""
    monkeypatch.setattr(checkpoint, "installed", lambda name: True)
    tiny.edit_json(whole / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(StudyError, match="cannot be loaded as LlavaForConditionalGeneration"):
        checkpoint.load_weights(FAMILIES["llava"].model_class, whole, torch.float32, {"": "cpu"})


def test_what_is_not_quantised_gets_one_type():
    model = T.CLIPVisionModel(T.CLIPVisionConfig(**TOWER))
    last = list(model.parameters())[-1]
    last.data = last.data.half()
    packed = torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    model.register_parameter("packed", packed)
    checkpoint.even_out(model)
    kinds = {p.dtype for name, p in model.named_parameters() if name != "packed"}
    assert kinds == {torch.float32} and model.packed.dtype == torch.uint8


# --- tokenizers, towers ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
@pytest.mark.parametrize("there", [(), ("sentencepiece",), ("protobuf",)])
def test_a_tokenizer_model_alone_names_its_two_packages(folder, monkeypatch, name, there):
    monkeypatch.setattr(checkpoint, "installed", lambda package: package in there)
    (folder / "tokenizer.json").rename(folder / name)
    told = refused(folder)
    assert f"is a {name} alone" in told and "run 'pip install sentencepiece protobuf'" in told


def test_a_tokenizer_model_beside_a_tokenizer_json_needs_nothing(whole, monkeypatch):
    monkeypatch.setattr(checkpoint, "installed", lambda package: False)
    (whole / "tokenizer.model").write_bytes(b"not looked at")
    assert load_model(whole).tokenizer is not None


def test_a_tokenizer_model_is_read_where_its_packages_are(tmp_path):
    spm = pytest.importorskip("sentencepiece", reason="the extra sentencepiece is not installed")
    pytest.importorskip("google.protobuf", reason="the extra sentencepiece is not installed")
    (tmp_path / "text").write_text("What is the red thing?\nA small blue car.\n" * 20)
    where = {"input": str(tmp_path / "text"), "model_prefix": str(tmp_path / "tokenizer")}
    spm.SentencePieceTrainer.train(**where, vocab_size=40, model_type="bpe", minloglevel=2)
    settings = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = checkpoint.load_tokenizer(tmp_path)
    plain = spm.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ids = tokenizer("the red car", add_special_tokens=False).input_ids
    assert ids == plain.encode("the red car")


@pytest.mark.parametrize("kind", ["missing", "pickle"])
def test_a_tower_that_cannot_be_loaded_is_named(tmp_path, kind):
    if kind == "pickle":
        T.CLIPVisionConfig(**TOWER).save_pretrained(tmp_path)
        torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match="The vision tower .* cannot be loaded .*safetensors"):
        towers.load_encoder({"model_type": "clip_vision_model"}, str(tmp_path))


def test_other_towers_are_other_weights():
    """A released checkpoint's own files do not hold them."""
    model = T.CLIPVisionModel(T.CLIPVisionConfig(**TOWER))
    holder = torch.nn.ModuleDict({"vision_tower": model, "language": torch.nn.Linear(2, 2)})
    own = types.SimpleNamespace(name="mini/llava-1.5", model=holder, released=True)
    plain = types.SimpleNamespace(name="mini/llava-1.5", model=holder)
    first, files = provenance.weights_checksum(own), provenance.weights_checksum(plain)
    assert len({first, files}) == 2
    assert provenance.weights_checksum(own) == first
    model.half().bfloat16()  # a type that numpy does not know
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert provenance.weights_checksum(own) != first
    assert provenance.weights_checksum(plain) == files
