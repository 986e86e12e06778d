"""One training loop for towers and models: it logs, saves, and resumes to the same curve.

The data of step t depend on (seed, t) alone, and the optimiser's state is saved with the weights,
so a run that was killed at any moment continues as if nothing had happened.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import StudyError
from ..heatmaps.progress import each

SAVE_SECONDS = 120


def schedule(step: int, steps: int, warmup: int = 100, floor: float = 0.05) -> float:
    """Learning-rate factor: linear warm-up, flat for 60 %, then a cosine down to `floor`.

    The long flat part is deliberate: skills appear late and all at once, and a rate that has
    already decayed keeps them from appearing (data/zoo/LOG.md).
    """
    if step < warmup:
        return (step + 1) / warmup
    start = 0.6 * steps
    if step < start:
        return 1.0
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - start) / (steps - start)))


def half() -> torch.autocast:
    """Compute in bfloat16 where the processor can; where it cannot, float32 is three times faster.

    So a run that changes machines keeps its curve, but not to the last digit.
    """
    able = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=able)


def fit(
    net: nn.Module,
    loss_at: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    folder: Path,
    *,
    steps: int,
    until: int | None = None,
    rate: float = 1e-3,
    evaluate: Callable[[], dict[str, float]] | None = None,
    every: int = 200,
    say: Callable[[str], None] = print,
) -> None:
    """Train the parameters of `net` that require gradients, from the last save if there is one.

    `loss_at(step)` returns the loss and numbers to log. Lines go to `folder`/log.jsonl. `until`
    stops before the schedule of `steps` has run out, for a net that is trained on elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    first = _restore(net, optimizer, folder)
    saved = begun = time.monotonic()
    until = until or steps
    for step in each(range(first, until), f"training {folder.name}", "step"):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps)
        with half():
            loss, numbers = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        last = step + 1 == until
        if (step + 1) % 20 == 0 or last:
            measured = evaluate() if evaluate and ((step + 1) % every == 0 or last) else {}
            pace = (time.monotonic() - begun) / (step + 1 - first)
            line = {"step": step + 1, "loss": round(loss.item(), 4), **numbers, **measured}
            _log(folder, {**line, "seconds_per_step": round(pace, 3)})
            if measured:
                left = (until - step - 1) * pace / 60
                say(f"step {step + 1}/{until}, {left:.0f} min left: {line}")
        if last or time.monotonic() - saved > SAVE_SECONDS:
            _save(net, optimizer, folder, step + 1)
            saved = time.monotonic()


def _log(folder: Path, line: dict) -> None:
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _save(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, step: int) -> None:
    """Weights and optimiser moments in one safetensors file, replaced atomically."""
    state = {f"net.{k}": v for k, v in net.named_parameters() if v.requires_grad}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    state = {k: v.detach().clone().contiguous() for k, v in state.items()}
    save_file(state, folder / "resume.tmp", metadata={"step": str(step)})
    os.replace(folder / "resume.tmp", folder / "resume.safetensors")


def _restore(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the last save; the step to continue from, 0 when there is none."""
    path = folder / "resume.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    state = load_file(path)
    weights = _under(state, "net.")
    wanted = {k: v.shape for k, v in net.named_parameters() if v.requires_grad}
    if {k: v.shape for k, v in weights.items()} != wanted:
        raise StudyError(f"{path} belongs to another network; remove its folder to start afresh.")
    net.load_state_dict(weights, strict=False)
    moments: dict[int, dict] = {}
    for key, value in _under(state, "optimizer.").items():
        i, name = key.split(".")
        moments.setdefault(int(i), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": moments})
    return step


def _under(state: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
