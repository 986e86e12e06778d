"""Use from a program: threads share a model, and no call changes the caller's state or the model's.

One tiny joint model serves every method, `ga` among them.
"""

import contextlib
import random
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_joint import tiny_joint
from white_box import photo

import lvlm_study as ls
from lvlm_study.answers import make_target, visual_reliance
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.base import explain_target
from lvlm_study.heatmaps.igos import jitter
from lvlm_study.metrics.sanity import infidelity, random_logit, seed_stability
from lvlm_study.models.alone import alone

QUESTION, SIZE = "What is this?", (50, 40)
FEW = {
    "igos": {"mask_size": 8, "iterations": 2, "steps": 2},
    "igos++": {"mask_size": 8, "iterations": 1, "steps": 2},
    "rise": {"masks": 8},
    "occlusion": {"window": 1 / 2, "stride": 1 / 2},
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 3},
    "llava_cam": {"samples": 3},
    "iia": {"steps": 2},
    "eagle": {"regions": 4},
    "eagle_lazy": {"regions": 4},
}
MODES = {
    "gradients": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}
RUNNING = [name for name in METHODS if name not in ("random", "center", "sobel")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_joint(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def model(folder):
    return ls.load_model(folder)


@pytest.fixture(scope="module")
def answer(model):
    return model.answer(photo(SIZE), QUESTION, max_new_tokens=3)


def heatmap(model, answer, method, image=None, **options):
    """A quick map of a method, explaining the whole answer."""
    image = photo(SIZE) if image is None else image
    how = {"answer": answer, "tokens": "all", **FEW.get(method, {}), **options}
    return ls.explain(model, image, QUESTION, method=method, **how)


# --- threads --------------------------------------------------------------------------------


def told(found) -> tuple:
    """What a result says, to the byte."""
    if isinstance(found, tuple):
        return tuple(map(told, found))
    if isinstance(found, ls.Explanation):
        passes = found.cost.forward, found.cost.backward
        return found.method, found.status, passes, found.saliency.tobytes()
    if isinstance(found, ls.Faithfulness):
        return found.status, found.deletion_curve.raw.tobytes(), found.insertion_raw
    if isinstance(found, ls.Answer):
        return found.text, found.token_ids.tolist(), found.log_probs.numpy().tobytes()
    return tuple(map(told, (found.answer,))) + (found.llr.numpy().tobytes(), found.status)


def jobs(model, answer):
    """Everything that a program may ask of one model, every method among it."""
    rgb, own = photo(SIZE), heatmap(model, answer, "center")
    for method in METHODS:
        yield lambda method=method: heatmap(model, answer, method)
    yield lambda: model.answer(photo(SIZE, 1), QUESTION, max_new_tokens=3)
    yield lambda: visual_reliance(model, rgb, QUESTION, answer)
    yield lambda: ls.deletion_insertion(model, own, steps=4)
    yield lambda: ls.explain_tokens(model, rgb, QUESTION, method="gae", by="token", answer=answer)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_that_share_a_model_get_the_maps_of_one(model, answer, threads):
    every = list(jobs(model, answer))
    wanted = [told(job()) for job in every]
    order = random.Random(threads).sample(range(len(every)), len(every))
    before, switch = state(model), sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # threads take turns in the middle of things
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda n: told(every[n]()), order))
    finally:
        sys.setswitchinterval(switch)
    for n, one in zip(order, found, strict=True):
        assert one == wanted[n]
    assert state(model) == before


def test_noise_of_one_thread_does_not_reach_the_passes_of_another(model, answer):
    """iGOS hangs a hook on the model that adds noise; a plain pass beside it must not see it."""
    target, reliance = make_target(model, photo(SIZE), QUESTION, answer=answer, tokens="all")
    wanted, asked = target.log_probs(target.image), []

    def noisy(target, *, seed=0):
        with jitter(model.model, 1.0, [seed]):
            asked.append(pool.submit(target.log_probs, target.image))
            wait(asked, timeout=0.2)
            return torch.eye(4)

    with ThreadPoolExecutor(1) as pool:
        how = {"name": "noisy", "model": "", "question": QUESTION, "size": SIZE}
        explain_target(noisy, target, reliance, **how)
        assert torch.equal(asked[0].result(), wanted)


def test_different_models_run_side_by_side(model, answer, checkpoints, tmp_path):
    """Two models in two threads: maps as alone, no waiting for each other, warnings as before."""
    other, path = ls.load_model(checkpoints("llava")), tmp_path / "photo.png"
    Image.fromarray(photo(SIZE)).save(path)
    theirs = other.answer(path, QUESTION, max_new_tokens=3)
    methods = ("gae", "igos", "attention", "grad_cam", "iia")
    pairs = [(model, answer), (other, theirs)]
    wanted = [[told(heatmap(*pair, m, path)) for m in methods] for pair in pairs]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda pair: [told(heatmap(*pair, m, path)) for m in methods], pairs)
        assert list(found) == wanted
        with holding(model):  # somebody works with the one model: the other is free
            assert told(pool.submit(heatmap, *pairs[1], "gae", path).result(30)) == wanted[1][0]
    assert warnings.filters == filters


def test_pictures_read_by_many_threads_leave_the_warnings_as_they_were(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(photo((400, 400))).save(path)
    filters, switch = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            items = [ls.Item("x", path, "?", "")] * 60
            assert len({item.rgb.tobytes() for item in pool.map(lambda i: i, items)}) == 1
            assert len(set(pool.map(lambda item: item.rgb.tobytes(), items))) == 1
    finally:
        sys.setswitchinterval(switch)
    assert warnings.filters == filters


@contextlib.contextmanager
def holding(model):
    """Another thread has the model's lock meanwhile."""
    inside, done = threading.Event(), threading.Event()

    def hold():
        with alone(model):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


# --- the caller's modes, and the model as it was --------------------------------------------


def state(model) -> dict:
    """Everything that a call must leave as it was."""
    parts = [*model.model.modules(), *model.detector.model.modules()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training": [part.training for part in parts],
        "attention": [
            part.config._attn_implementation for part in parts if hasattr(part, "config")
        ],
        "hooks": [len(getattr(part, name)) for part in parts for name in hooks],
        "wants gradients": [p.requires_grad for p in model.model.parameters()],
        "has gradients": [p.grad is not None for p in model.model.parameters()],
        "weights": sum(p.detach().double().sum().item() for p in model.model.parameters()),
        "generation": model.model.generation_config.to_dict(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "draws": (
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            random.getstate(),
        ),
        "machine": (torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters)),
    }


@pytest.fixture
def odd(folder):
    """A model in training mode with dropout, gradients of its own, and two attention kernels."""
    found = ls.load_model(folder)
    found.model.train().requires_grad_(True)
    found.model.model.vision_tower.eval()
    for layer in found.model.get_decoder().layers:
        layer.self_attn.attention_dropout = 0.9
    return found


@pytest.mark.parametrize("mode", [name for name in MODES if name != "gradients"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_in_the_callers_mode(model, answer, method, mode):
    """The same map, also from a picture and a baseline that were made in that mode."""
    wanted = heatmap(model, answer, method)
    with MODES[mode]():
        assert told(heatmap(model, answer, method)) == told(wanted)
        image = torch.from_numpy(photo(SIZE)).permute(2, 0, 1) / 255
        empty = wanted.target.baseline + 0.0
        found = heatmap(model, answer, method, image=image, baseline=empty)
    assert found.saliency.tobytes() == wanted.saliency.tobytes()


@pytest.mark.parametrize("mode", [name for name in MODES if name != "gradients"])
def test_everything_else_works_in_the_callers_mode(model, answer, mode):
    def everything():
        own = heatmap(model, answer, "gae")
        ask = (model, photo(SIZE), QUESTION)
        few = {"answer": answer, "tokens": "all"}
        fill = own.target.baseline + 0.0
        yield ls.deletion_insertion(model, own, steps=4, fill=fill).deletion_raw
        parts = ls.explain_tokens(*ask, method="gae", by="token", answer=answer)
        yield np.stack([part.saliency for part in parts])
        yield infidelity(own, draws=4, fill=fill).raw
        yield random_logit(*ask, method="gae", draws=1, **few).others[0]
        yield seed_stability(*ask, method="smoothgrad", seeds=(0, 1), samples=2, **few).others[0]
        yield ls.visual_reliance(*ask, model.answer(*ask[1:], max_new_tokens=3)).llr.numpy()

    wanted = list(everything())
    with MODES[mode]():
        found = list(everything())
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_first_used_in_a_mode_is_none_the_worse(folder, model, answer, mode):
    """Nothing that is kept (weights, plans, matrices) is marked by the mode it was made in."""
    with MODES[mode]():
        fresh = ls.load_model(folder)
        made = fresh.answer(photo(SIZE), QUESTION, max_new_tokens=3)
        own = replace(made, token_ids=made.token_ids + 0)
        target, reliance = make_target(fresh, photo(SIZE), QUESTION, answer=own, tokens="all")
        target = replace(target, image=target.image + 0.0, baseline=target.baseline + 0.0)
    for method in RUNNING:
        how = {"name": method, "model": "", "question": QUESTION, "size": SIZE}
        how["options"] = FEW.get(method)
        found = explain_target(METHODS[method], target, reliance, **how)
        assert told(found) == told(heatmap(model, answer, method)), method


@pytest.mark.parametrize("mode", MODES)
def test_no_method_changes_the_model_or_the_callers_state(odd, model, answer, mode):
    """Training mode, dropout, gradients of weights and mixed kernels change no map either."""
    wanted = {m: heatmap(model, answer, m) for m in METHODS}
    with MODES[mode]():
        before = state(odd)
        assert len(set(before["attention"])) == 2 and any(before["training"])
        for method, right in wanted.items():
            found = heatmap(odd, answer, method)
            assert state(odd) == before, method
            np.testing.assert_allclose(found.saliency, right.saliency, atol=1e-4, rtol=1e-3)
            ls.deletion_insertion(odd, found, steps=2)
            assert state(odd) == before, method
        ls.explain_tokens(odd, photo(SIZE), QUESTION, method="gae", by="token", answer=answer)
        assert odd.answer(photo(SIZE), QUESTION, max_new_tokens=3).text == answer.text
        assert state(odd) == before


class Broken(Exception):
    pass


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("method", RUNNING)
def test_a_method_that_fails_in_the_middle_leaves_everything_as_it_was(
    odd, answer, method, when, monkeypatch
):
    head, passes = odd.model.get_output_embeddings(), []
    usual = type(head).forward

    def failing(x):
        passes.append(x)
        out = usual(head, x)
        if len(passes) > 2:  # the two passes that choose the tokens go well
            if when == "forward":
                raise Broken
            if out.requires_grad:
                out.register_hook(stop)
        return out

    def stop(gradient):
        raise Broken

    monkeypatch.setattr(head, "forward", failing)
    before = state(odd)
    with contextlib.suppress(Broken):
        heatmap(odd, answer, method)
        assert when == "backward" and method in GRADIENT_FREE
    assert state(odd) == before
    monkeypatch.undo()
    assert heatmap(odd, answer, method).status in ("ok", "no_gap", "constant")


GRADIENT_FREE = ("attention", "rollout", "rise", "occlusion", "tam", "eagle", "eagle_lazy", "ga")


@pytest.mark.slow
def test_threads_on_a_trained_model():
    """Two threads on mini/llava-1.5: igos and iia, which once gave other maps without a word."""
    trained, item = ls.load_model("mini/llava-1.5"), ls.load_benchmark("sprites")[5]
    few = {"igos": {"iterations": 1, "steps": 4}, "iia": {"steps": 2}}

    def run(method):
        return told(ls.explain(trained, item, method=method, **few[method]))

    order = ["igos", "iia", "iia", "igos"]
    wanted = {method: run(method) for method in few}
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, order)) == [wanted[method] for method in order]
