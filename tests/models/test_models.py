"""Models: teacher forcing, batches, gradients, prompts, and one clear sentence per bad input."""

import json
import shutil
import warnings

import pytest
import tiny
import torch
import transformers as T
import white_box
from PIL import Image
from refusals import refuses
from safetensors.torch import load_file, save_file
from white_box import adapter_of, photo

import lvlm_study.models.registry as registry
from lvlm_study.errors import StudyError
from lvlm_study.models import checkpoint, list_models, load_model
from lvlm_study.models.base import located
from lvlm_study.models.checkpoint import load_template
from lvlm_study.pixels.images import to_tensor

QUESTION = "What is the red thing?"
SIZE = (50, 40)
TINY = list(tiny.FAMILIES)
FAMILIES = [*white_box.FAMILIES, "joint"]
MAIN = [f for f in TINY if f not in ("llava_pad", "onevision_shrunk", "onevision_rim")]


def pictures(B=3, size=SIZE):
    return torch.rand(B, 3, *size, generator=torch.Generator().manual_seed(0))


# --- promises ------------------------------------------------------------------------------
def generated(model, bound, x, count, **how):
    """What transformers itself says, greedily, with its own account of it."""
    ids = bound.prompt_ids
    how |= dict(do_sample=False, max_new_tokens=count, return_dict_in_generate=True)
    seen = bound.pixels(x) | bound.extras(1, 0)
    return model.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how, **seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forcing_equals_generate(adapters, family):
    model, x = adapter_of(adapters, family), to_tensor(photo())
    bound = model.bind(SIZE, QUESTION)
    out = generated(model, bound, x, 12, output_scores=True)
    ids = out.sequences[0, bound.prompt_ids.shape[1] :]
    expected = torch.stack([s.log_softmax(-1)[0, i] for s, i in zip(out.scores, ids, strict=True)])
    torch.testing.assert_close(bound.log_probs(x, ids)[0], expected, atol=1e-5, rtol=0)
    answer = model.answer(photo(), QUESTION, max_new_tokens=12)
    kept = [i for i in ids.tolist() if i not in model._eos]
    assert answer.token_ids.tolist() == kept
    torch.testing.assert_close(answer.log_probs, expected[: len(kept)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_matters_and_batch_size_does_not(adapters, family):
    model = adapter_of(adapters, family)
    bound = model.bind(SIZE, QUESTION)
    x, ids = pictures(), torch.tensor([65, 66, 67])
    together = bound.log_probs(x, ids)
    alone = torch.cat([bound.log_probs(one[None], ids) for one in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.01
    whole = bound.logits(x, ids)
    assert whole.shape == (3, 3, model.vocabulary) and whole.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [SIZE, (40, 90)])
def test_gradient_reaches_exactly_the_seen_pixels(adapters, family, size):
    bound = adapter_of(adapters, family).bind(size, QUESTION)
    x = (0.4 + 0.2 * pictures(1, size)).requires_grad_()  # no overshoot, nothing is clipped
    bound.log_probs(x, torch.tensor([65, 66])).sum().backward()
    assert torch.equal(x.grad[0].abs().sum(0) > 0, bound.seen())


def test_a_centre_crop_hides_the_sides_and_other_families_see_all(adapters):
    seen = adapters("llava").bind((28, 56), QUESTION).seen()
    assert seen[:, 14:42].all() and not seen[:, :14].any() and not seen[:, 42:].any()
    for family in ("llava_pad", "llava_next", "llava_onevision"):
        assert adapters(family).bind((28, 56), QUESTION).seen().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_may_stand_in_for_pixels(adapters, family):
    model, ids = adapter_of(adapters, family), torch.tensor([65, 66, 67])
    bound, x = model.bind(SIZE, QUESTION), pictures(2)
    features = model.encode(bound, x)
    assert features.shape[:2] == (2, len(bound.token_boxes)) == (2, bound.image_span.sum())
    torch.testing.assert_close(bound.log_probs_from(features, ids), bound.log_probs(x, ids))


@pytest.mark.parametrize("family", MAIN)
def test_bfloat16_runs_and_stays_close(adapters, checkpoints, family):
    half = load_model(checkpoints(family), dtype="bf16")
    assert half.dtype == torch.bfloat16
    ids, x = torch.tensor([65, 66]), pictures(1).requires_grad_()
    bound = half.bind(SIZE, QUESTION)
    out = bound.log_probs(x, ids)
    assert out.dtype == torch.float32
    out.sum().backward()
    y = pictures(1).requires_grad_()
    exact = adapters(family).bind(SIZE, QUESTION).log_probs(y, ids)
    exact.sum().backward()
    assert (out - exact).abs().max() < 0.5
    assert torch.cosine_similarity(x.grad.flatten(), y.grad.flatten(), 0) > 0.8
    assert len(half.answer(photo(), QUESTION, 4).token_ids) <= 4


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_asking_for_attention_gives_it_and_changes_no_score(adapters, family):
    """Under the usual kernels transformers returns an empty tuple instead."""
    model, x, ids = adapter_of(adapters, family), pictures(1), torch.tensor([65, 66, 67])
    bound, before = model.bind(SIZE, QUESTION), model.model.config._attn_implementation
    expected = bound.logits(x, ids)
    out = bound.run(x, ids, output_attentions=True)
    length = len(bound.image_span) + 2
    for weights in out.attentions:
        assert weights.shape == (1, 4, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, length))
    torch.testing.assert_close(out.logits.float(), expected, atol=1e-4, rtol=1e-4)
    assert model.model.config._attn_implementation == before
    assert len(out.attentions) == len(model.model.get_decoder().layers)
    assert torch.equal(bound.logits(x, ids), expected)


def test_large_photographs_are_worked_on_reduced(adapters):
    bound = adapters("llava").bind((1500, 2000), QUESTION)
    assert bound.work_size == (750, 1000) and not bound.exact
    coarse = (pictures(1, (15, 20)) * 255).round() / 255  # nothing finer than the factor of 2
    x = coarse.repeat_interleave(100, 2).repeat_interleave(100, 3)
    small, ids = bound.reduced(x), torch.tensor([65, 66])
    assert small.shape[-2:] == bound.work_size
    full = bound.log_probs(x, ids)
    torch.testing.assert_close(bound.log_probs(small, ids), full, atol=1e-3, rtol=0)
    assert 1700 < bound.token_boxes[:, 2].max() < 1760  # boxes stay in original pixels
    assert bound.seen().shape == (1500, 2000)


# --- prompts and answers ---------------------------------------------------------------------
@pytest.mark.parametrize("family", ["llava", "llava_pad", "llava_next"])
@pytest.mark.parametrize("size", [SIZE, (33, 97)])
def test_prompt_equals_the_processors(adapters, checkpoints, family, size):
    model, rgb = adapters(family), photo(size)
    kind = T.LlavaNextProcessor if family == "llava_next" else T.LlavaProcessor
    processor = kind(
        model.processor,
        tiny.tokenizer(),
        patch_size=tiny.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    wanted = processor(images=Image.fromarray(rgb), text=text, return_tensors="pt")
    bound = model.bind(size, QUESTION)
    ours = bound.prompt_ids[0].tolist()
    # this tokenizer adds no <s> by itself; the template writes one
    assert ours == [tiny.BOS, *wanted["input_ids"][0].tolist()]
    assert bound.image_span.sum() == len(bound.token_boxes)
    assert (bound.prompt_ids[0] == tiny.IMAGE).equal(bound.image_span)
    mine = bound.pixels(to_tensor(rgb))["pixel_values"]
    torch.testing.assert_close(mine, wanted["pixel_values"], atol=1e-5, rtol=0)


def test_end_token_ends_the_answer_and_is_not_part_of_it(adapters, monkeypatch):
    model = adapters("llava")
    first, second = model.answer(photo(), QUESTION, 2).token_ids.tolist()
    monkeypatch.setattr(model, "_eos", [second])
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [second])
    answer = model.answer(photo(), QUESTION, 20)
    assert answer.token_ids.tolist() == ([] if first == second else [first])
    monkeypatch.setattr(model, "_eos", [first])
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [first])
    silent = model.answer(photo(), QUESTION, 20)
    assert (silent.text, silent.tokens, silent.log_probs.shape) == ("", (), (0,))


@pytest.mark.parametrize("family", TINY)
def test_an_answer_says_whether_it_was_cut(adapters, family, monkeypatch):
    """Cut by the limit, ended on its very last token, ended before it."""
    model = adapters(family)
    full = model.answer(photo(), QUESTION, 6)
    if len(full.token_ids) == 6:
        assert full.truncated and model.answer(photo(), QUESTION, 5).truncated
    ids = full.token_ids.tolist()
    stop = next((i for i in range(1, len(ids)) if ids[i] not in ids[:i]), 0)
    monkeypatch.setattr(model, "_eos", [tiny.EOS, ids[stop]])  # a second way to end
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [tiny.EOS, ids[stop]])
    for limit, cut in ((stop, True), (stop + 1, False), (stop + 2, False))[stop == 0 :]:
        found = model.answer(photo(), QUESTION, limit)
        assert found.token_ids.tolist() == ids[:stop] and found.truncated is cut
    x = to_tensor(photo())
    assert model.read(model.bind(SIZE, QUESTION), x, full.token_ids).truncated is False


@pytest.mark.parametrize("family", MAIN)
def test_an_image_token_that_the_model_says_is_a_word(adapters, family):
    """Scores equal those of generation, where the id stands for no picture; methods can go on."""
    model, x = adapters(family), to_tensor(photo())
    bound = model.bind(SIZE, QUESTION)
    start, forced = bound.prompt_ids.shape[1], [65, model.image_token_id, 66, 67]
    only = lambda batch, ids: [forced[len(ids) - start]]  # noqa: E731
    out = generated(model, bound, x, 4, output_logits=True, prefix_allowed_tokens_fn=only)
    ids = out.sequences[0, start:]
    assert ids.tolist() == forced
    table = torch.cat(out.logits).log_softmax(-1)
    expected = table.gather(-1, ids[:, None])[:, 0]
    torch.testing.assert_close(bound.log_probs(x, ids)[0], expected, atol=1e-5, rtol=0)
    again = bound.log_probs_from(model.encode(bound, x), ids)[0]
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)
    other = bound.log_probs(x, torch.tensor([65, 68, 66, 67]))[0]
    assert (other - expected)[2:].abs().max() > 1e-3  # the id is read, not skipped
    answer = model.read(bound, x, ids)
    assert answer.text == model.tokenizer.decode([65, 66, 67]).lstrip()
    assert answer.tokens[1] == "" and "".join(answer.tokens) == answer.text


def test_pieces_join_to_the_text():
    tok = tiny.tokenizer()
    for text in ("the red the", " red — été 🙂 x", "", "é"):
        ids = tok.encode(text, add_special_tokens=False)
        whole, cut, _ = located(tok, ids)
        assert whole == text.lstrip() == "".join(cut) and len(cut) == len(ids)
    ids = tok.encode("is the red é", add_special_tokens=False)
    assert located(tok, ids)[1] == ("i", "s", " the", " ", "red", " ", "", "é")


def test_greedy_whatever_the_checkpoint_says(checkpoints, adapters, tmp_path):
    folder = copy(checkpoints("llava"), tmp_path)
    wild = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0}
    tiny.edit_json(folder / "generation_config.json", **wild)
    wanted = adapters("llava").answer(photo(), QUESTION, 10).token_ids
    assert torch.equal(load_model(folder).answer(photo(), QUESTION, 10).token_ids, wanted)


def test_parameters_are_frozen_and_dropout_is_off(adapters):
    model = adapters("llava").model
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("source", ["chat_template.json", "processor_config.json", "tokenizer"])
def test_chat_template_from_every_place(checkpoints, adapters, tmp_path, source):
    folder = copy(checkpoints("llava"), tmp_path)
    (folder / "chat_template.jinja").unlink()
    if source == "tokenizer":
        tiny.edit_json(folder / "tokenizer_config.json", chat_template=tiny.TEMPLATE)
    else:
        (folder / source).write_text(json.dumps({"chat_template": tiny.TEMPLATE}))
    found = load_model(folder).bind(SIZE, QUESTION).prompt_ids
    assert torch.equal(found, adapters("llava").bind(SIZE, QUESTION).prompt_ids)


def test_the_processors_template_goes_before_the_tokenizers(checkpoints, tmp_path):
    folder = copy(checkpoints("llava"), tmp_path)
    tiny.edit_json(folder / "tokenizer_config.json", chat_template="text only")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "with image"}))
    assert load_template(folder, T.AutoTokenizer.from_pretrained(folder)) == "with image"


def test_template_for_plain_text_content(checkpoints, adapters, tmp_path):
    folder = copy(checkpoints("llava"), tmp_path)
    plain = "{{ bos_token }}USER: {{ messages[0]['content'] }} ASSISTANT:"
    (folder / "chat_template.jinja").write_text(plain)
    assert load_model(folder).prompt("Q?") == "<s>USER: <image>\nQ? ASSISTANT:"


def test_image_settings_in_processor_config(checkpoints, adapters, tmp_path):
    """Newer checkpoints nest the image settings in processor_config.json."""
    folder = copy(checkpoints("llava"), tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    x = to_tensor(photo())
    ours = load_model(folder).bind(SIZE, QUESTION).pixels(x)["pixel_values"]
    assert torch.equal(ours, adapters("llava").bind(SIZE, QUESTION).pixels(x)["pixel_values"])


# --- names -----------------------------------------------------------------------------------
def test_zoo_names(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    shutil.copytree(checkpoints("llava"), tmp_path / "zoo" / "llava-1.5")
    (tmp_path / "zoo" / "unfinished").mkdir()
    assert list_models() == ["mini/llava-1.5"]
    assert load_model("mini/llava-1.5").name == "mini/llava-1.5"
    for name in ("mini/llava-15", "mini/llava_1.5", "llava-1.5"):
        refuses("no model named.*did you mean mini/llava-1.5", load_model, name)


def test_size_l_may_be_said_or_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    for name in ("one", "two-l", "two-s"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        (tmp_path / "zoo" / name / "config.json").write_text("{}")
    meant = {"one-l": "one", "two": "two-l"} | {n: n for n in ("one", "two-l", "two-s", "on")}
    for said, name in meant.items():
        assert registry.zoo_name(f"mini/{said}") == f"mini/{name}"
    assert registry.zoo_name("org/one-l") == "org/one-l"


def test_hub_ids_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StudyError, match="not in the local cache and HF_HUB_OFFLINE is set"):
        load_model("nobody-at-all/no-model")


def test_hub_snapshot_fetches_weights_and_settings_only(checkpoints, monkeypatch):
    asked = {}

    def snapshot(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(checkpoints("llava"))

    monkeypatch.setattr(registry, "snapshot_download", snapshot)
    model = load_model("org/name@v1.0")
    assert (asked["repo"], asked["revision"]) == ("org/name", "v1.0")
    assert model.name == "org/name@v1.0"
    assert "*.safetensors" in asked["patterns"]
    assert not any(p.endswith(("bin", "pt", "py")) for p in asked["patterns"])


@pytest.mark.parametrize(
    "name,message",
    [
        ("./nowhere", "no model folder at ./nowhere"),
        ("/nowhere/at/all", "no model folder at /nowhere/at/all"),
        ("what is this", "no model named 'what is this'"),
        (__file__, "is a file; give the folder"),
    ],
)
def test_bad_names(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    refuses(message, load_model, name)


def test_settings_and_sizes_that_are_none(checkpoints, tiny_llava):
    with pytest.raises(StudyError, match="no dtype named 'float33'; did you mean float32"):
        load_model(checkpoints("llava"), dtype="float33")
    with pytest.raises(StudyError, match="floating-point dtype, not torch.int8"):
        load_model(checkpoints("llava"), dtype=torch.int8)
    refuses("no device 'gpu' here", load_model, checkpoints("llava"), device="gpu")
    refuses("has no pixels", tiny_llava.bind, (0, 40), QUESTION)
    refuses(r"not \(50, 41\)", tiny_llava.bind(SIZE, QUESTION).pixels, torch.rand(1, 3, 50, 41))
    refuses("max_new_tokens must be at least 1", tiny_llava.answer, photo(), QUESTION, 0)


# --- broken checkpoints ------------------------------------------------------------------------
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def remove(name):
    return lambda folder: (folder / name).unlink()


def rewrite(name, **changes):
    return lambda folder: tiny.edit_json(folder / name, **changes)


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_tensor(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(k for k in tensors if "multi_modal_projector.linear_1.weight" in k)]
    save_file(tensors, file, {"format": "pt"})


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shard(folder):
    file = folder / "model.safetensors"
    names = list(load_file(file))
    file.rename(folder / "model-00001-of-00002.safetensors")
    parts = [f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i in range(len(names))]
    index = {"metadata": {}, "weight_map": dict(zip(names, parts, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def two_sharded(folder):
    shard(folder)
    file = folder / "model-00001-of-00002.safetensors"
    for name in ("model-00002-of-00002", "model-00001-of-00003"):
        shutil.copyfile(file, folder / f"{name}.safetensors")


def no_index(folder):
    shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def other_model(kind):
    return rewrite("config.json", model_type=kind)


def garble(name):
    return lambda folder: (folder / name).write_text("{not json")


BROKEN = {
    "no config": (remove("config.json"), "no config.json in .*Hugging Face layout"),
    "other family": (other_model("blip-2"), "type 'blip-2' .* are not supported; known: llava"),
    "unknown type": (other_model("llavva"), "no model architecture named 'llavva'.*mean llava"),
    "no weights": (remove("model.safetensors"), "model.safetensors is missing"),
    "pickle": (pickled, "pytorch_model.bin, a pickle.*convert it to safetensors"),
    "missing shard": (shard, "00002-of-00002.safetensors is missing"),
    "cut short": (cut_short, "model.safetensors is damaged or cut short"),
    "missing tensor": (drop_tensor, "lack 1 tensors, first .*multi_modal_projector.linear_1"),
    "two checkpoints": (
        two_sharded,
        "two checkpoints: the index names .*-of-00002.* and not model-00001-of-00003",
    ),
    "no index": (no_index, "parts of its weights and no model.safetensors.index.json"),
    "other tower": (
        lambda f: rewrite("config.json", vision_config=tiny.CLIP | {"patch_size": 14})(f),
        r"vision encoder with patches of shape \(32, 3, 14, 14\), and the weight files hold none",
    ),
    "other words": (
        lambda f: rewrite("config.json", text_config=tiny.TEXT | {"vocab_size": 999})(f),
        r"word embedding of shape \(999, 32\), and the weight files hold none",
    ),
    "other shape": (
        lambda f: rewrite("config.json", text_config=tiny.TEXT | {"intermediate_size": 48})(f),
        "cannot be loaded as LlavaForConditionalGeneration",
    ),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer in .*tokenizer.json"),
    "bad tokenizer": (garble("tokenizer.json"), "tokenizer in .* cannot be loaded"),
    "no processor": (remove("preprocessor_config.json"), "no usable preprocessor_config.json"),
    "bad processor": (garble("preprocessor_config.json"), "preprocessor_config.json"),
    "other size": (
        rewrite("preprocessor_config.json", crop_size={"height": 14, "width": 14}),
        r"makes \(14, 14\) views but its encoder reads 28",
    ),
    "other token": (
        rewrite("config.json", image_token_index=5000, image_token_id=5000),
        "no token with id 5000, the image token",
    ),
}


LATE = ("missing tensor", "other shape")  # transformers finds these when it reads the weights


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoints_say_what_is_wrong(checkpoints, tmp_path, monkeypatch, case):
    """Before memory is spent on the weights."""
    harm, message = BROKEN[case]
    if case not in LATE:
        monkeypatch.setattr(checkpoint, "load_weights", lambda *a: pytest.fail("weights were read"))
    folder = copy(checkpoints("llava"), tmp_path)
    harm(folder)
    refuses(message, load_model, folder)


def test_anyres_settings_must_agree(checkpoints, tmp_path):
    folder = copy(checkpoints("llava_next"), tmp_path)
    pinpoints = [[28, 56], [56, 28]]
    tiny.edit_json(folder / "preprocessor_config.json", image_grid_pinpoints=pinpoints)
    refuses("image_grid_pinpoints differ between", load_model, folder)


@pytest.mark.parametrize(
    "template,message",
    [
        ("no image: {{ messages[0]['content'][1]['text'] }}", "with 0 image tokens '<image>'"),
        (
            "<image><image>{{ messages[0]['content'][1]['text'] }}",
            "2 image tokens .* and the question",
        ),
        ("<image> hello", "1 image tokens .* and without the question"),
        ("{{ oops", "0 image tokens"),
    ],
)
def test_templates_must_hold_image_and_question(checkpoints, tmp_path, template, message):
    folder = copy(checkpoints("llava"), tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    refuses(message, load_model(folder).bind, SIZE, "Q?")


# --- bad questions -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "question,message",
    [
        ("", "The question is empty"),
        (" \n", "The question is empty"),
        (None, "The question is empty"),
        ("Is <image> here?", "contains '<image>', which .* reads as a control token"),
        ("Stop </s> here", "contains '</s>'"),
        ("x" * 5000, "prompt has 50.. tokens but .* reads at most 4096"),
    ],
)
def test_bad_questions(tiny_llava, question, message):
    refuses(message, tiny_llava.bind, SIZE, question)


def test_a_picture_of_many_tokens_is_remarked_on(monkeypatch):
    """12 megapixels at the released patches of 14, two by two: 15301 tokens."""
    model = tiny.real_size("qwen2_5_vl")
    monkeypatch.setattr(model.processor.size, "longest_edge", 12_845_056)
    with pytest.warns(UserWarning, match="3000 x 4000 pixels makes 15301 visual tokens in qwen"):
        model.geometry_for((3000, 4000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.geometry_for((1500, 2000))


@pytest.mark.parametrize(("there", "spread"), [(True, {"": "cuda:0"}), (False, None)])
def test_weights_go_from_the_file_to_the_gpu(checkpoints, monkeypatch, there, spread):
    """Without accelerate they are whole in memory first, and once for every worker."""
    monkeypatch.setattr(registry, "pick_device", lambda device: torch.device("cuda:0"))
    monkeypatch.setattr(checkpoint, "installed", lambda package: there)
    asked = []

    def load(model_class, folder, dtype, spread):
        asked.append((dtype, spread))
        raise StudyError("enough")

    monkeypatch.setattr(checkpoint, "load_weights", load)
    refuses("enough", load_model, checkpoints("llava"))
    assert asked == [("auto", spread)]
