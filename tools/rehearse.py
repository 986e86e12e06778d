"""A rehearsal at true size: everything as on the day a real checkpoint comes, but for its weights.

    python tools/rehearse.py SmolVLM-256M --small     on a laptop, in about a minute
    python tools/rehearse.py LLaVA-1.5-7B             on a GPU; the others: --help
    python tools/rehearse.py --table                  what was rehearsed so far

Writes a checkpoint of the published configuration with random weights in the hub's layout (sharded
safetensors in bfloat16, tokenizer, processor, template), loads it by `load_model`, estimates (as
`lvlm-study estimate`), explains, scores, and puts what memory and time that took beside what was
estimated, and what was counted from the tensors of a pass. One JSON file a run.
Random weights answer noise; shapes, memory, devices and time are those of the day.

The sizes are the published ones, from transformers' configuration classes, specs of the releases
and memory: no config.json could be fetched here. The tokenizer knows bytes, and a word for every
other number of the true vocabulary.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers as T
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models

import lvlm_study as ls
from lvlm_study.models.cambrian import CambrianLlamaConfig
from lvlm_study.models.mini_gemini import CLIP_SOURCE, CONVNEXT_LARGE, MGMConfig
from lvlm_study.models.registry import FAMILIES
from lvlm_study.models.towers import RELEASED
from lvlm_study.paths import data_dir
from lvlm_study.sweep import costs, estimate, provenance

SIZE = (480, 640)  # height and width of the picture
QUESTION = "What is in the picture?"
WORDS = 8  # tokens of the answer
IGOS = {"iterations": 1, "steps": 1, "batch": 1}  # a gradient for each of its two masks
GIB = 2**30


@dataclass(frozen=True)
class TrueSize:
    """One model: its configuration, its processor (with what makes it `small`), its prompt.

    `image` is the text of the image token, which has the number that the configuration names.
    """

    config: Callable[[], T.PretrainedConfig]
    processor: Callable[..., object] | None = None
    small: tuple[tuple[str, object], ...] = ()
    image: str = "<image>"
    template: str = "<image>\n"
    specials: tuple[tuple[str, int], ...] = ()


def language(kind: str, width, inner, layers, heads, kv, vocabulary, theta=1e4, **more) -> dict:
    """A language model's part of a configuration."""
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary}
    rope = {"rope_type": "default", "rope_theta": theta} | more.pop("rope", {})
    kind = {"model_type": kind} if kind else {}
    return kind | sizes | {"rope_parameters": rope, "max_position_embeddings": 32768} | more


VICUNA_7B = (4096, 11008, 32, 32, 32)
QWEN_7B = (3584, 18944, 28, 28, 4)
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def smolvlm() -> T.SmolVLMConfig:
    """SigLIP-B/16 at 512 pixels before SmolLM2-135M; 64 tokens a view."""
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    vision |= {"num_attention_heads": 12, "image_size": 512, "patch_size": 16}
    text = language("llama", 576, 1536, 30, 9, 3, 49280, 1e5)
    more = {"image_token_id": 49190, "scale_factor": 4, "pad_token_id": 2}
    return T.SmolVLMConfig(vision_config=vision, text_config=text, **more)


def llava() -> T.LlavaConfig:
    """CLIP-L/14 at 336 pixels (the class's own default) before Vicuna-7B."""
    text = language("llama", *VICUNA_7B, 32064, rms_norm_eps=1e-5)
    return T.LlavaConfig(text_config=text, image_token_index=32000)


def onevision(size: tuple, tied: bool) -> T.LlavaOnevisionConfig:
    """SigLIP-SO400M at 384 pixels before Qwen2; pinpoints and limit are the class's own."""
    text = language("qwen2", *size, 152064, 1e6, tie_word_embeddings=tied)
    return T.LlavaOnevisionConfig(vision_config=SIGLIP, text_config=text, tie_word_embeddings=tied)


def cambrian() -> CambrianLlamaConfig:
    """Four towers, as released by name and here in the file, before Llama-3-8B."""
    towers = [spec for _, spec in RELEASED.values()]
    text = language("", 4096, 14336, 32, 32, 8, 128257, 5e5)
    return CambrianLlamaConfig(vision_configs=towers, image_token_index=128256, **text)


def mini_gemini() -> MGMConfig:
    """CLIP-L and ConvNeXt-L, tiles and a global view at 1,536 pixels, before Vicuna-7B."""
    text = language("", *VICUNA_7B, 32064)
    towers = {"vision_config": RELEASED[CLIP_SOURCE][1], "vision_config_aux": CONVNEXT_LARGE}
    tiles = {"image_size_aux": 1536, "image_grid": 2, "image_global": True}
    return MGMConfig(image_token_index=32000, **towers, **tiles, **text)


def qwen25() -> T.Qwen2_5_VLConfig:
    """The 32 layers of its vision encoder before Qwen2.5-7B."""
    text = language("", *QWEN_7B, 152064, 1e6, rope={"mrope_section": [16, 24, 24]})
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
    return T.Qwen2_5_VLConfig(text_config=text, vision_config=vision | {"out_hidden_size": 3584})


def internvl() -> T.InternVLConfig:
    """InternViT-300M (the class's own default) before Qwen2.5-7B."""
    text = language("qwen2", *QWEN_7B, 151674, 1e6)
    return T.InternVLConfig(text_config=text, tie_word_embeddings=False)


CROP_336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
OV = TrueSize(
    lambda: onevision((896, 4864, 24, 14, 2), True),
    lambda **more: T.LlavaOnevisionImageProcessorPil(**HALF | more),
)
MODELS = {
    "SmolVLM-256M": TrueSize(
        smolvlm,
        lambda **more: T.SmolVLMImageProcessorPil(
            size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}, **more
        ),
        small=(("do_image_splitting", False),),
        template="<image>",
        specials=(("<fake_token_around_image>", 49189), ("<global-img>", 49152)),
    ),
    "LLaVA-OneVision-0.5B": OV,
    "LLaVA-1.5-7B": TrueSize(llava, lambda: T.CLIPImageProcessorPil(**CROP_336)),
    "LLaVA-OneVision-7B": TrueSize(lambda: onevision(QWEN_7B, False), OV.processor),
    "Cambrian-8B": TrueSize(cambrian),
    "Mini-Gemini-7B-HD": TrueSize(mini_gemini),
    "Qwen2.5-VL-7B": TrueSize(
        qwen25,
        lambda: T.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
        ),
        image="<|image_pad|>",
        template="<|vision_start|><|image_pad|><|vision_end|>",
        specials=(("<|vision_start|>", 151652), ("<|vision_end|>", 151653)),
    ),
    "InternVL3-8B": TrueSize(
        internvl,
        lambda: T.GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, max_patches=12),
        image="<IMG_CONTEXT>",
        template="<IMG_CONTEXT>\n",
        specials=(("<img>", 151665), ("</img>", 151666)),
    ),
}

# --- the checkpoint ----------------------------------------------------------------------------


def write(name: str, folder: Path, small: bool = False) -> int:
    """Write the checkpoint of `name` into `folder`; returns its number of parameters."""
    made = MODELS[name]
    config = made.config()
    model = filled(outlined(config))
    model.generation_config = T.GenerationConfig(eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder, max_shard_size="2GB")
    if made.processor:
        made.processor(**dict(made.small) if small else {}).save_pretrained(folder)
    vocabulary = config.get_text_config().vocab_size
    specials = dict(made.specials) | {made.image: config.image_token_id}
    stand_in(vocabulary, specials).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template(made.template))
    return sum(p.numel() for p in model.parameters())


def outlined(config) -> torch.nn.Module:
    """The model without content."""
    kind = FAMILIES[config.model_type].model_class
    with torch.device("meta"):
        return getattr(kind, "_from_config", getattr(kind, "from_config", None))(config)


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """The same in bfloat16, weights from one block of normal numbers: quick, and none is zero."""
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    block = torch.randn(2**22, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for number, (name, weight) in enumerate(model.state_dict().items()):
        if weight.dim() == 1 and name.endswith(("weight", "bias")):  # norms and biases
            weight.fill_(float(name.endswith("weight")))
        elif weight.is_floating_point():
            flat, start = weight.view(-1), 7919 * number % len(block)
            source = torch.roll(block, start).mul(0.02)
            for at in range(0, len(flat), len(block)):
                part = flat[at : at + len(block)]
                part.copy_(source[: len(part)])
    model.tie_weights()
    return model


def stand_in(size: int, specials: dict[str, int]) -> T.PreTrainedTokenizerFast:
    """A tokenizer of `size` tokens: bytes, special tokens at their true numbers, a word each."""
    known = {"<pad>": 0, "<s>": 1, "</s>": 2} | specials
    names = {number: name for name, number in known.items()}
    letters = iter(sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocab = {names.get(i) or next(letters, f"w{i}"): i for i in range(size)}
    core = Tokenizer(token_models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(names.values()))
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return T.PreTrainedTokenizerFast(tokenizer_object=core, **named)


def template(image: str) -> str:
    """A chat template that writes `image` where the picture goes."""
    return (
        "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image.replace("\n", "{{ '\\n' }}") + "{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
    )


# --- the run -----------------------------------------------------------------------------------


def rehearse(name: str, folder: Path, small=False, dtype=None, device=None, say=print) -> dict:
    """Write, load, estimate, explain and score one model; returns what the JSON file holds."""
    clock, out = Clock(), {"name": name, "small": small}
    out["parameters"] = write(name, folder, small)
    out["seconds"] = {"write": clock()}
    model = ls.load_model(folder, dtype=dtype, device=device)
    model.max_new_tokens = WORDS
    out["seconds"]["load"] = clock()
    say(f"{name}: written and loaded, {out['parameters'] / 1e9:.2f} billion weights.")
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    target, found = estimate.measured(model, SimpleNamespace(rgb=picture, question=QUESTION))
    out["seconds"] |= {"answer": found.answering, "estimate": clock()}
    told = f"{name}: one gradient took {found.both:.1f} s."
    say("\n".join((told, *estimate.memory_lines(found))))
    out["visual_tokens"] = int(target.bound.image_span.sum())
    out |= counted(target, found)
    clock()
    ex = ls.explain(model, picture, QUESTION, tokens="all", method="igos", **IGOS)
    out["seconds"]["explain"] = clock()
    out["answer_tokens"] = len(ex.answer.token_ids)
    out["map"] = made(ex, found)
    out["memory_gib"] |= rehearsed(out["memory_gib"], ex.cost.peak_bytes)
    faith = ls.deletion_insertion(model, ex, steps=2, batch=1)
    out["seconds"]["score"] = clock()
    out["map"] |= {"scored": faith.status}
    return out | {"provenance": about(model, name)}


class Clock:
    """Seconds since it was last asked."""

    def __init__(self):
        self.then = time.perf_counter()

    def __call__(self) -> float:
        self.then, before = time.perf_counter(), self.then
        return self.then - before


def counted(target, found: estimate.Measured) -> dict:
    """One pass each way as `lvlm-study estimate` measures it, beside what is counted for it.

    Memory: `counted` from the tensors of a pass, without looking at the machine; `estimated` from
    the one gradient that was measured, `twice` from the one with layers computed twice.
    """
    cost = costs.of_target(target)
    beside = {"estimated": found.kept, "twice": found.twice}
    beside = {key: (found.weights + size) / GIB for key, size in beside.items() if size is not None}
    memory = {"weights": found.weights / GIB, "counted": cost.memory(1) / GIB}
    return {
        "forward": {"seconds": found.forward, "tflop": cost.forward / 1e12},
        "gradient": {"seconds": found.both, "tflop": (cost.forward + cost.backward) / 1e12},
        "memory_gib": memory | {"saved": cost.saved / GIB} | beside,
    }


def made(ex, found: estimate.Measured) -> dict:
    """The map's passes and seconds, and the seconds that `lvlm-study estimate` makes of them."""
    cost, finite = ex.cost, bool(np.isfinite(ex.saliency).all())
    passes = {"forward": cost.forward, "backward": cost.backward, "seconds": cost.seconds}
    expected = found.seconds(cost.forward, cost.backward)
    return passes | {"expected_seconds": expected, "status": ex.status, "finite": finite}


def rehearsed(memory: dict, peak_bytes: int) -> dict:
    """What the map took, and how many times what was counted and estimated that is."""
    measured = memory["weights"] + peak_bytes / GIB
    estimated = memory.get("estimated", memory.get("twice"))
    times = {"of_counted": measured / memory["counted"], "of_estimated": measured / estimated}
    return {"measured": measured} | times


def about(model, name: str) -> dict:
    """Where it ran, and with what."""
    gpu = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else None
    where = {"device": gpu or "cpu", "dtype": str(model.dtype).removeprefix("torch.")}
    where |= {"threads": torch.get_num_threads(), "weights": "random"}
    made = {"profile": "rehearsal", "model": name, "n": 1, "seed": 0, "date": provenance.now()[:10]}
    return made | where | {"commit": provenance.commit(), "versions": provenance.versions()}


def file_of(name: str, small: bool, results: Path) -> Path:
    """Where a run is kept: "SmolVLM-256M" as smolvlm-256m-small.json (a key knows no more dots)."""
    stem = name.lower().replace(".", "_") + ("-small" if small else "")
    return results / f"{stem}.json"


# --- the table ---------------------------------------------------------------------------------


def table(results: Path) -> list[str]:
    """Counted, estimated and rehearsed side by side; a model not yet rehearsed says so."""
    lines = [
        "| model | ran on | visual tokens | memory of a map: counted (GiB) | estimated (GiB) "
        "| rehearsed (GiB) | a gradient (s) | its two passes: estimated (s) | rehearsed (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in MODELS:
        found = [file_of(name, small, results) for small in (True, False)]
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in found if file.is_file()]
        lines += [_line(name, run) for run in runs] or [f"| {name} | not yet run |" + " |" * 7]
    return lines


def _line(name: str, run: dict) -> str:
    memory, made = run["memory_gib"], run["provenance"]
    where, estimated = f"{made['device']}, {made['dtype']}", memory.get("estimated")
    return (
        f"| {name}{' (one view)' if run['small'] else ''} | {where} | {run['visual_tokens']} | "
        f"{memory['counted']:.1f} | {f'{estimated:.1f}' if estimated else 'too much'} | "
        f"{memory['measured']:.1f} | {run['gradient']['seconds']:.1f} | "
        f"{run['map']['expected_seconds']:.0f} | {run['map']['seconds']:.0f} |"
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("name", nargs="?", choices=MODELS, metavar="NAME", help=", ".join(MODELS))
    p.add_argument("--small", action="store_true", help="one view only, where the model can")
    p.add_argument("--dtype", help="float32, bfloat16 or float16; default as load_model")
    p.add_argument("--device", help="default: a GPU if there is one")
    p.add_argument("--work", type=Path, help="write the checkpoint below this folder")
    p.add_argument("--results", type=Path, default=data_dir() / "results" / "rehearsal")
    p.add_argument("--table", action="store_true", help="print what was rehearsed, run nothing")
    return p


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.table or not options.name:
        print("\n".join(table(options.results)))
        return 0
    if options.small and not MODELS[options.name].small:
        parser().error(f"--small: {options.name} has no smaller form")
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=options.work) as folder:
        how = (options.small, options.dtype, options.device)
        out = rehearse(options.name, Path(folder), *how)
    file = file_of(options.name, options.small, options.results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*table(options.results)[:2], _line(options.name, out), f"Written: {file}"]))
    return 0


if __name__ == "__main__":
    estimate.give_back()
    sys.exit(main())
