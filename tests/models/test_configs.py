"""What is no checkpoint of ours is told from its config.json, before any model is built."""

import json
import shutil
import types
from functools import partial

import pytest
import tiny
import torch
import transformers as T
from refusals import refuses
from safetensors.torch import load_file, save_file

from lvlm_study import cli
from lvlm_study.errors import StudyError
from lvlm_study.models import (
    checkpoint,
    configs,
    list_models,
    load_model,
    pickles,
    registry,
    towers,
    weights,
)
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


refused = partial(refuses, r"\.$", load_model)  # the one sentence about a folder


def write(folder, config) -> None:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))


# --- originals -----------------------------------------------------------------------------

ORIGINAL = {  # as the repositories of their authors have them, shortened
    "vicuna 7b": (
        {"model_type": "llava_llama", "hidden_size": 4096, "image_aspect_ratio": "pad"},
        "llava-hf/llava-1.5-7b-hf",
    ),
    "vicuna 13b": ({"model_type": "llava_llama", "hidden_size": 5120}, "llava-hf/llava-1.5-13b-hf"),
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


def test_converted_own_and_flat_configs_are_let_pass():
    own = {"mm_vision_tower": "x", "mm_projector_type": "sva"}
    for kind in ("cambrian_llama", "cambrian_phi3", "mgm"):
        assert configs.converted_of({"model_type": kind} | own, FAMILIES) is None
    for kind in FAMILIES:
        assert configs.converted_of({"model_type": kind, "vision_config": {}}, FAMILIES) is None
    # Qwen2-VL's first configs have no text_config.
    flat = {"model_type": "qwen2_vl", "vision_config": {"depth": 32}}
    assert configs.missing_part(flat | {"hidden_size": 8, "num_hidden_layers": 2}) is None


# --- too little, or something else -----------------------------------------------------------

SIZED = {"hidden_size": 8}
WRONG = {
    "empty file": ("", "config.json cannot be read as JSON"),
    "a list": ("[1, 2]", "does not hold a JSON object"),
    "a word": ('"llava"', "does not hold a JSON object"),
    "{}": ({}, "has no model_type"),
    "empty type": ({"model_type": ""}, "has no model_type"),
    "type of another kind": ({"model_type": ["llava"]}, "has no model_type"),
    "nothing but a type": ({"model_type": "llava"}, "no vision_config, so nobody knows which"),
    "no vision part": ({"model_type": "llava", "text_config": SIZED}, "has no vision_config"),
    "empty vision part": (
        {"model_type": "qwen2_5_vl", "vision_config": {}, "text_config": SIZED},
        "has no vision_config",
    ),
    "no text part": ({"model_type": "gemma3", "vision_config": SIZED}, "has no text_config"),
    "no sizes": (SIZED | {"model_type": "qwen2_vl", "vision_config": {"depth": 2}}, "text_config"),
    "cambrian without sizes": ({"model_type": "cambrian_llama"}, "has no hidden_size"),
    "mini-gemini without depth": (SIZED | {"model_type": "mgm"}, "has no num_hidden_layers"),
    "language model": ({"model_type": "qwen2"}, "'qwen2' model, which is no vision-language"),
    "encoder": ({"model_type": "siglip_vision_model"}, "'siglip_vision_model' model, which is no"),
    "text half": ({"model_type": "gemma3_text"}, "'gemma3_text' model, which is no vision-lang"),
    "its own code": ({"model_type": "molmo_x", "auto_map": {"A": "a.b"}}, "needs code of its own"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_that_says_too_little_builds_nothing(folder, case):
    config, message = WRONG[case]
    write(folder, config)
    assert message in refused(folder)


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
    assert "an adapter (LoRA) alone; open it on org/base with peft" in refused(tmp_path)
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


def test_files_that_do_no_harm(whole, tiny_llava, monkeypatch):
    torch.save({}, whole / "pytorch_model.bin")
    pairs = zip(load_model(whole).model.parameters(), tiny_llava.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    monkeypatch.setattr(checkpoint, "installed", lambda package: False)
    (whole / "tokenizer.model").write_bytes(b"not looked at")
    assert load_model(whole).tokenizer.encode("the red") == tiny.tokenizer().encode("the red")


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
    assert checkpoint.installed("scikit-image") and not checkpoint.installed("no-such-package")
    monkeypatch.setattr(configs, "installed", lambda name: name == "accelerate")
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "pip install bitsandbytes'" in refused(folder)


def test_quantised_weights_are_for_a_gpu(folder, monkeypatch):
    """On the CPU bitsandbytes answers and gives no gradients: a map would be wrong or constant."""
    monkeypatch.setattr(configs, "installed", lambda name: True)
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "bitsandbytes, which give no gradients on the CPU; load it on a GPU" in refused(folder)


def test_what_transformers_says_of_a_package_is_one_sentence(whole, monkeypatch):
    """A package that is there but too old, or of no use on this device."""
    monkeypatch.setattr(checkpoint, "installed", lambda name: True)
    packed = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    tiny.edit_json(whole / "config.json", quantization_config=packed)
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
    with pytest.raises(StudyError, match="The vision tower .*safetensors"):
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


def test_a_tower_kept_as_a_pickle_is_converted_and_found(tmp_path, monkeypatch, capsys):
    """As openai/clip-vit-large-patch14-336 may be: config.json and pytorch_model.bin."""
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    model, bare = T.CLIPVisionModel(T.CLIPVisionConfig(**TOWER)), tmp_path / "bare"
    model.config.save_pretrained(bare)
    torch.save(model.state_dict(), bare / "pytorch_model.bin")
    spec = {"model_type": "clip_vision_model"}
    with pytest.raises(StudyError, match="is kept as a pickle.*'lvlm-study convert .*bare NEW_F"):
        towers.load_encoder(spec, str(bare))
    with pytest.raises(StudyError, match="org/clip cannot be loaded.*at data/towers/org--clip, "):
        towers.load_encoder(spec, "org/clip")
    assert cli.main(["convert", str(bare), str(tmp_path / "towers" / "org--clip")]) == 0
    found = towers.load_encoder(spec, "org/clip").state_dict()
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())
    assert "as safetensors" in capsys.readouterr().out


def test_a_checkpoint_of_pickled_shards_is_converted_and_loads(whole, tmp_path):
    plain, state = load_model(whole), load_file(whole / "model.safetensors")
    (whole / "model.safetensors").unlink()
    keys = sorted(state)
    for part, names in enumerate((keys[:5], keys[5:])):
        torch.save({k: state[k] for k in names}, whole / f"pytorch_model-0000{part}.bin")
    assert f"'lvlm-study convert {whole} NEW_FOLDER'" in refused(whole)
    again = load_model(pickles.unpickled(whole, tmp_path / "out"))
    assert all(torch.equal(a, b) for a, b in zip(tensors(again), tensors(plain), strict=True))


def tensors(adapter):
    return adapter.model.state_dict().values()


def test_a_pickle_of_code_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"a": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match="cannot be read as a file of tensors alone"):
        pickles.unpickled(tmp_path, tmp_path / "out")


def test_an_open_clip_pickle_becomes_the_file_that_is_looked_for(tmp_path):
    state = {"visual.trunk.stem.0.weight": torch.ones(2)}
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    refuses("is kept as a pickle", towers.open_clip_file, str(tmp_path))
    pickles.unpickled(tmp_path, tmp_path / "out")
    assert load_file(towers.open_clip_file(str(tmp_path / "out"))).keys() == state.keys()


# --- memory, early names -----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["from_pretrained", "to"])
@pytest.mark.parametrize("full", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_full_device_is_one_sentence_when_a_model_is_loaded(whole, monkeypatch, where, full):
    def fails(*args, **options):
        raise full

    monkeypatch.setattr(FAMILIES["llava"].model_class, where, fails)
    assert "Memory ran out while loading" in refused(whole)


@pytest.mark.parametrize("wrong", ["on", None, 2])
def test_checkpointing_is_auto_on_or_off(whole, wrong):
    refuses("checkpointing is 'auto', True or False, not", load_model, whole, checkpointing=wrong)
    assert load_model(whole, checkpointing=True).checkpointing is True


def test_the_early_name_of_qwens_processor_is_known(checkpoints, adapters, tmp_path):
    folder = shutil.copytree(checkpoints("qwen2_5_vl"), tmp_path / "qwen")
    settings = folder / "preprocessor_config.json"
    tiny.edit_json(settings, image_processor_type="Qwen2_5_VLImageProcessor")
    usual, found = adapters("qwen2_5_vl").processor.to_dict(), load_model(folder).processor
    assert {k: v for k, v in found.to_dict().items() if k in usual} == usual


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "patch_size"])
def test_another_tower_than_that_of_the_training_is_refused(tmp_path, key):
    T.CLIPVisionModel(T.CLIPVisionConfig(**TOWER)).save_pretrained(tmp_path)
    spec = {"model_type": "clip_vision_model", **TOWER, key: 4}
    with pytest.raises(StudyError, match=f"has {key} {TOWER[key]} where .* trained with 4; name"):
        towers.load_encoder(spec, str(tmp_path))


@pytest.mark.parametrize("name", list_models())
def test_every_model_of_the_zoo_fits_its_files(name):
    folder = registry.find_folder(name)
    if _kind(folder) != "owlvit_llava":
        family = FAMILIES[_kind(folder)]
        assert configs.check_fit(folder, family.model_class, weights.weight_files(folder))
