"""Models that somebody has loaded already: the same answers as by name, adapters in effect."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as T
from refusals import refuses
from white_box import photo

import lvlm_study as ls
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model
from lvlm_study.pixels.images import to_tensor
from lvlm_study.sweep import provenance

QUESTION, SIZE = "What is the red thing?", (50, 40)


def opened(folder, kind=T.LlavaForConditionalGeneration):
    return kind.from_pretrained(folder)


def parts(folder):
    """A tokenizer and a processor under the names that AutoProcessor's have."""
    tokenizer = T.AutoTokenizer.from_pretrained(folder)
    images = T.AutoImageProcessor.from_pretrained(folder, backend="pil")
    template = (folder / "chat_template.jinja").read_text()
    return SimpleNamespace(tokenizer=tokenizer, image_processor=images, chat_template=template)


@pytest.mark.parametrize(
    "family,kind",
    [
        ("llava", T.LlavaForConditionalGeneration),
        ("llava_onevision", T.LlavaOnevisionForConditionalGeneration),
        ("qwen2_5_vl", T.Qwen2_5_VLForConditionalGeneration),
    ],
)
def test_a_brought_model_is_the_one_by_name(checkpoints, adapters, family, kind):
    folder = checkpoints(family)
    mine, named = load_model(model=opened(folder, kind), processor=parts(folder)), adapters(family)
    one, two = (m.answer(photo(), QUESTION, max_new_tokens=4) for m in (mine, named))
    assert one.text == two.text and torch.equal(one.log_probs, two.log_probs)
    assert mine.prompt(QUESTION) == named.prompt(QUESTION)
    assert mine.name.endswith(" (brought)") and not mine.model.training


def test_transformers_own_processor_will_do(checkpoints):
    """What AutoProcessor gives for LLaVA, with its template inside."""
    folder = checkpoints("llava")
    own = parts(folder)
    made = T.LlavaProcessor(own.image_processor, own.tokenizer, chat_template=own.chat_template)
    model = load_model("mine", model=opened(folder), processor=made, setup="paper")
    assert model.name == "mine (brought)" and model.setup == "paper"
    assert load_model(model=opened(folder), processor=made).template == own.chat_template


@pytest.fixture
def lora(checkpoints):
    """A LoRA adapter on a tiny LLaVA whose second factor is not zero, as after training."""
    peft = pytest.importorskip("peft", reason="the extra peft is not installed")
    where = {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    config = peft.LoraConfig(r=2, lora_alpha=64, **where)
    torch.manual_seed(0)
    return peft.get_peft_model(opened(checkpoints("llava")), config)


def test_an_adapter_speaks_and_is_explained(lora, checkpoints, adapters):
    """Equal to the adapter merged into its weights, and unlike the model without it."""
    folder, ids = checkpoints("llava"), torch.tensor([65, 66, 67])
    mine = load_model(model=lora, processor=parts(folder))
    x = to_tensor(photo()).requires_grad_()
    with_it = mine.bind(SIZE, QUESTION).log_probs(x, ids)
    (slope,) = torch.autograd.grad(with_it.sum(), x)
    without = adapters("llava").bind(SIZE, QUESTION).log_probs(x, ids)
    assert (with_it - without).abs().max() > 0.01
    ex = ls.explain(mine, photo(), QUESTION, method="grad_cam", tokens="all")
    assert ex.status in ("ok", "no_gap") and np.ptp(ex.saliency) > 0
    assert provenance.weights_checksum(mine) != provenance.weights_checksum(adapters("llava"))
    merged = load_model(model=lora.merge_and_unload(), processor=parts(folder))
    again = merged.bind(SIZE, QUESTION).log_probs(x, ids)
    torch.testing.assert_close(again, with_it, atol=1e-5, rtol=0)
    rise = torch.autograd.grad(again.sum(), x)[0]
    torch.testing.assert_close(rise, slope, atol=1e-3 * float(slope.abs().max()), rtol=0)


def test_an_adapter_that_writes_tokens_is_refused(checkpoints):
    peft = pytest.importorskip("peft", reason="the extra peft is not installed")
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, token_dim=32, num_layers=2,
        num_attention_heads=4, num_transformer_submodules=1,
    )  # fmt: skip
    model = peft.get_peft_model(opened(checkpoints("llava")), config)
    with pytest.raises(StudyError, match="A PROMPT_TUNING adapter puts tokens before the prompt"):
        load_model(model=model, processor=parts(checkpoints("llava")))


def test_what_cannot_be_brought_is_said(checkpoints):
    folder = checkpoints("llava")
    model, own = opened(folder), parts(folder)
    bare = SimpleNamespace(tokenizer=own.tokenizer)
    for given, told in (
        ({"model": model}, "needs its processor"),
        ({"processor": own}, "without its model"),
        ({"model": model.model, "processor": own}, "LlavaModel has no language head"),
        ({"model": model, "processor": "llava"}, "must have a tokenizer; 'llava' .str. has none"),
        ({"model": model, "processor": bare}, "needs an image processor too"),
        ({"model": torch.nn.Linear(2, 2), "processor": own}, "must be a vision-language model"),
        ({"model": model, "processor": own, "dtype": "bf16"}, "keeps its dtype and device"),
    ):
        refuses(told, load_model, **given)


def test_quantised_weights_need_a_gpu(checkpoints):
    model = opened(checkpoints("llava"))
    for config in ({"quant_method": "bitsandbytes"}, T.BitsAndBytesConfig(load_in_4bit=True)):
        model.config.quantization_config = config
        with pytest.raises(StudyError, match="by bitsandbytes, .*no gradients on the CPU"):
            load_model(model=model, processor=parts(checkpoints("llava")))
