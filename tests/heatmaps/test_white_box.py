"""Grad-CAM, attention, rollout, GAE, LLaVA-CAM: against naive formulas, on every family."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from refusals import refuses
from torch.utils._python_dispatch import TorchDispatchMode
from white_box import FAMILIES, IDS, PORTS, SIZE, adapter_of, target_for, target_of

from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, explain, watch
from lvlm_study.heatmaps.encoders import to_patches
from lvlm_study.heatmaps.token_maps import has_area, paint, paint_boxes
from lvlm_study.metrics.plausibility import energy
from lvlm_study.models import list_models, load_model
from lvlm_study.models.base import Adapter
from lvlm_study.models.geometry import clipped
from lvlm_study.models.planted import planted, planted_scene

OURS = ["grad_cam", "gae", "attention", "rollout", "llava_cam", "iia", "tam"]
FEW = {"llava_cam": {"samples": 3}, "iia": {"steps": 1}}
LINEAR = ["gae", "rollout", "attention", "attnlrp", "relative_attention", "glimpse"]  # in memory


def run(method, target, **options):
    return METHODS[method](target, **FEW.get(method, {}) | options)


# ------------------------------------------------------------------------- every family
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_on_the_model(adapters, family):
    """After a method the model computes as before, attention is the usual one, and a second map
    has the same bytes; where the model does not look, there is nothing but the filter's reach."""
    target = target_for(adapters, family)
    model, unseen = target.bound.adapter.model, ~target.bound.seen()
    before, kind = target.score(target.image), model.config._attn_implementation
    for method in OURS:
        found = run(method, target)
        assert found.shape == SIZE and found.dtype == torch.float32 and found.min() >= 0
        assert (found[unseen] != 0).sum() <= 0.1 * unseen.sum(), method
        assert run(method, target).numpy().tobytes() == found.numpy().tobytes(), method
    assert model.config._attn_implementation == kind != watch.NAME
    assert torch.equal(target.score(target.image), before)


# ---------------------------------------------------------- oracle: transformers' eager attention
def ids_of(target):
    return target.answer.token_ids[: int(target.crucial.nonzero()[-1]) + 1]


def rows_of(target):
    """Sequence positions that predict the crucial tokens, counted from the end of the prompt."""
    prompt = target.bound.prompt_ids.shape[1]
    return [prompt + t - 1 for t, hot in enumerate(target.crucial.tolist()) if hot]


def span(target):
    return target.bound.image_span.nonzero()[:, 0]


def eager_attentions(target, grad=False):
    """(score, decoder attentions, encoder attentions) of an ordinary eager pass."""
    seen, image = {}, target.image.clone().requires_grad_(grad)
    found = (
        []
        if len(target.bound.adapter.encoders(target.bound)) > 1
        else target.bound.adapter.encoders(target.bound)
    )
    modules = [m for e in found for m in e.attention]
    hooks = [m.register_forward_hook(lambda m, i, o: seen.update({m: o[1]})) for m in modules]
    out = target.bound.run(image, ids_of(target), output_attentions=True)
    for hook in hooks:
        hook.remove()
    picked = out.logits[0].log_softmax(-1)[torch.arange(len(ids_of(target))), ids_of(target)]
    score = picked[target.crucial[: len(picked)]].sum()
    return score, list(out.attentions), [seen[m] for m in modules if seen.get(m) is not None]


def naive_relevance(attentions, gradients):
    """The full matrix R of Chefer et al., in float64: R <- R + Ā R from the first layer up."""
    R = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    for a, g in zip(attentions, gradients, strict=True):
        R = R + (a * g).clamp(min=0).mean(1)[0].double() @ R
    return R


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_watched_weights_are_the_eager_ones(adapters, family, monkeypatch):
    monkeypatch.setattr(watch, "BLOCK", 300)  # a few rows at a time
    target = target_for(adapters, family)
    _, expected, _ = eager_attentions(target)

    class Whole(watch.Listener):
        def forward(self, call):
            blocks = call.blocks()
            assert len(blocks) > 1 and blocks[-1][1] == call.query.shape[2]
            self.found.append(torch.cat([call.weights(*b) for b in blocks], 2))

    listener = Whole(watch.decoder_attention(target.bound, "test"))
    listener.found = []
    with watch.watched(target.bound.adapter, listener):
        score = target.score(target.image)
    assert torch.allclose(score, target.score(target.image), atol=1e-4)
    assert len(listener.found) == len(expected)
    for a, b in zip(listener.found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("layer", [None, 0, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_the_models_own(adapters, family, layer):
    target = target_for(adapters, family)
    with torch.no_grad():
        _, found, _ = eager_attentions(target)
    found = found if layer is None else [found[layer]]
    share = 0
    for p in rows_of(target):
        row = torch.stack([a[0, :, p].mean(0) for a in found]).mean(0)[span(target)]
        share = share + row / row.sum() / 2
    if family.startswith("gemma3") and layer == 0:  # its window of 8 ends before the image
        assert not any(found[0][0, :, p, span(target)].any() for p in rows_of(target))
        with pytest.raises(StudyError, match="attention was asked for, .* window is too short"):
            run("attention", target, layer=layer)
        return
    expected = paint(target.bound, share, amount=True)
    assert torch.allclose(run("attention", target, layer=layer), expected, rtol=1e-4)


def test_rows_that_do_not_reach_the_image_are_left_out(adapters):
    """A window so long that the last image token is seen by the first answer token alone."""
    model = deepcopy(adapters("gemma3"))
    near = target_of(model, crucial=(0,))
    last = int(span(near)[-1])
    window = len(near.bound.image_span) - last  # positions from `last` to the row, both counted
    for module in model.model.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = window
    model.model.config.text_config.sliding_window = window
    expected = paint(near.bound, (span(near) == last).double(), amount=True)
    for crucial in ((0,), (0, 3)):
        found = run("attention", target_of(model, crucial=crucial), layer=0)
        assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_the_matrix_product(adapters, family, monkeypatch):
    monkeypatch.setattr(watch, "BLOCK", 1000)
    target = target_for(adapters, family)
    with torch.no_grad():
        _, attentions, _ = eager_attentions(target)
    R = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    for a in attentions:
        a = a[0].mean(0).double() + torch.eye(len(R))
        R = a / a.sum(-1, keepdim=True) @ R
    rows = [R[p, span(target)] for p in rows_of(target)]
    share = sum(row / row.sum() for row in rows) / len(rows)
    expected = paint(target.bound, share, amount=True)
    assert torch.allclose(run("rollout", target), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gae_is_rows_of_the_full_matrix(adapters, family, monkeypatch):
    monkeypatch.setattr(watch, "BLOCK", 1000)
    target = target_for(adapters, family)
    score, attentions, _ = eager_attentions(target, grad=True)
    R = naive_relevance(attentions, torch.autograd.grad(score, attentions))
    amounts = sum(R[p, span(target)] for p in rows_of(target))
    expected = paint(target.bound, amounts, amount=True)
    found = run("gae", target)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


def test_gae_may_start_higher(adapters):
    target = target_for(adapters, "llava")
    score, attentions, _ = eager_attentions(target, grad=True)
    gradients = torch.autograd.grad(score, attentions)
    R = naive_relevance(attentions[1:], gradients[1:])
    expected = sum(R[p, span(target)] for p in rows_of(target))
    found = run("gae", target, start_layer=1)
    assert torch.allclose(found, paint(target.bound, expected, amount=True), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["llava", "llava_pad", "llava_next", "llava_onevision"])
def test_the_vision_leg_is_the_full_matrix_too(adapters, family):
    """The oracle keeps all matrices, its own packing for the handover, its own layer choice.

    Tokens of padding hold relevance too: their patches have seen the picture inside the encoder.
    """
    target = target_for(adapters, family)
    bound = target.bound
    score, attentions, seen = eager_attentions(target, grad=True)
    gradients = torch.autograd.grad(score, attentions + seen, allow_unused=True)
    R = naive_relevance(attentions, gradients[: len(attentions)])
    amounts = sum(R[p, span(target)] for p in rows_of(target))
    views, tokens = seen[0].shape[0], seen[0].shape[-1]
    shares = torch.zeros(views, tokens, dtype=torch.float64)
    (encoder,) = bound.adapter.encoders(bound)
    boxes = torch.cat(encoder.boxes(None))
    placed = ~bound.token_boxes.isnan().any(-1)  # all but newlines
    for token in placed.nonzero()[:, 0].tolist():  # the patch with its box
        same = (boxes == bound.whole_boxes[token]).all(-1).nonzero()
        view, patch = same[0 if token < 16 else -1].tolist()
        shares[view, patch + tokens - 16] += amounts[token]
    for a, g in reversed(list(zip(seen, gradients[len(attentions) :], strict=True))):
        if g is not None:  # the block that LLaVA does not use
            kept = (a * g).clamp(min=0).mean(1).double()
            shares = shares + (shares[:, None] @ kept)[:, 0]
    found = run("gae", target, vision=True)
    painted = paint_boxes(
        boxes.flatten(0, 1), shares[:, tokens - 16 :].flatten(), bound.size, amount=True
    )
    assert torch.allclose(found, painted, rtol=1e-3, atol=1e-4 * float(painted.max()))
    assert not torch.allclose(found, run("gae", target), rtol=1e-2)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in PORTS])
def test_the_vision_leg_of_a_silent_encoder_hands_relevance_to_patches_alone(adapters, family):
    """Without attention in the encoder nothing is added there: each token's own patches have it."""
    model = deepcopy(adapters(family))
    silence_attention(model.vision)
    target = target_of(model)
    bound = target.bound
    score, attentions, _ = eager_attentions(target, grad=True)
    R = naive_relevance(attentions, torch.autograd.grad(score, attentions))
    (encoder,) = bound.adapter.encoders(bound)
    shares = to_patches(bound, encoder, sum(R[p, span(target)] for p in rows_of(target)))
    boxes = torch.cat(encoder.boxes(None)).flatten(0, 1)
    expected = paint_boxes(boxes, shares.flatten(), bound.size, amount=True)
    found = run("gae", target, vision=True)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


# --------------------------------------------------------------- where the encoder's patches are
@pytest.mark.parametrize("size", [(61, 140), (150, 70)])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in PORTS])
def test_a_token_is_handed_to_the_patches_in_its_box(adapters, family, size):
    """Tiles, windows and merges by geometry alone: the patches inside the token's box."""
    bound = adapters(family).bind(size, "?")
    (encoder,) = bound.adapter.encoders(bound)
    boxes = torch.cat(encoder.boxes(None))
    count = len(bound.token_boxes)
    for token in has_area(bound.token_boxes).nonzero()[:, 0].tolist():
        shares = to_patches(bound, encoder, torch.eye(count, dtype=torch.float64)[token])
        assert shares.shape == boxes.shape[:2] and shares.sum() == pytest.approx(1)
        x0, y0, x1, y1 = bound.whole_boxes[token].tolist()
        used = boxes[shares > 1e-6]
        assert (used[:, :2] >= torch.tensor([x0, y0]) - 1e-3).all()
        assert (used[:, 2:] <= torch.tensor([x1, y1]) + 1e-3).all()
        assert len({int(v) for v in (shares > 1e-6).nonzero()[:, 0]}) == 1 or "onevision" in family
        covered = paint_boxes(used, torch.ones(len(used)), size)
        own = paint_boxes(bound.whole_boxes[token][None], torch.ones(1), size)
        assert torch.equal(covered > 0, own > 0)


def silence_attention(module):
    for name, weight in module.named_parameters():
        if any(part in name for part in ("out_proj", "attn.proj", "projection_layer")):
            weight.data.zero_()
        if "layer_scale1" in name or "conv_dw" in name:  # DINOv2; ConvNeXt's 7 x 7
            weight.data.zero_()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_encoder_boxes_are_where_patches_look(adapters, family):
    """Paint a rectangle: exactly the rows of a block's output move whose boxes it meets."""
    model = deepcopy(adapter_of(adapters, family))
    silence_attention(model.model)
    bound = model.bind((96, 128), "What is this?")
    x = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    for number, encoder in enumerate(bound.adapter.encoders(bound)):
        kept = []
        hook = encoder.blocks[0].register_forward_hook(lambda m, i, o, k=kept: k.append(o))
        for y0, y1, x0, x1 in ((0, 20, 0, 25), (70, 96, 90, 128), (40, 56, 52, 76)):
            painted = x.clone()
            painted[..., y0:y1, x0:x1] = (painted[..., y0:y1, x0:x1] + 0.5) % 1
            for picture in (x, painted):
                bound.adapter.encode(bound, picture)
            before, after = (flat_patches(o) for o in kept[-2:])
            boxes = torch.cat(encoder.boxes(before.shape[1])).flatten(0, 1)
            moved = (before - after).abs().amax(-1)[:, -boxes.shape[0] // len(before) :].flatten()
            near, deep = meets(boxes, (x0, y0, x1, y1), 14), meets(boxes, (x0, y0, x1, y1), -2)
            assert (moved[deep] > 1e-5).all(), (number, "painted patches must move")
            # what lies on padding alone may move by the reach of the filter
            far = ~near & has_area(clipped(boxes, (96, 128)))
            assert (moved[far] < 1e-5).all(), (number, "no other patch may")
        hook.remove()


def flat_patches(output):
    x = output[0] if isinstance(output, tuple) else output
    if x.ndim == 4:
        return x.flatten(2).mT
    return x[None] if x.ndim == 2 else x


def meets(boxes, rectangle, slack):
    low = torch.maximum(boxes[:, :2] - slack, torch.tensor(rectangle[:2]).float())
    high = torch.minimum(boxes[:, 2:] + slack, torch.tensor(rectangle[2:]).float())
    return (high > low).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)


# ------------------------------------------------------------------------------- Grad-CAM
def test_grad_cam_by_hand(adapters):
    """LLaVA reads the last hidden state but one; 56 x 112 is halved and its middle 28 x 28 kept."""
    target = target_for(adapters, "llava", size=(56, 112))
    bound, inner = target.bound, target.bound.adapter.model.model
    with torch.no_grad():
        tower = inner.vision_tower(**bound.pixels(target.image), output_hidden_states=True)
    patches = tower.hidden_states[-2][:, 1:].requires_grad_()  # (1, 16, C)
    features = inner.multi_modal_projector(patches)
    score = bound.log_probs_from(features, ids_of(target))[0, [1, 3]].sum()
    (gradient,) = torch.autograd.grad(score, patches)
    weights = gradient[0].mean(0)
    cam = (patches[0] * weights).sum(-1).clamp(min=0).detach().view(4, 4)
    expected = torch.zeros(56, 112)
    expected[:, 28:84] = cam.repeat_interleave(14, 0).repeat_interleave(14, 1)
    found = run("grad_cam", target)
    assert torch.allclose(found, expected * 32, rtol=1e-4, atol=1e-5)  # a token is 1/32 of 56 x 112
    assert torch.equal(found, run("grad_cam", target, layer=0))
    signed = run("grad_cam", target, positive=False)
    assert signed.min() < 0 and torch.allclose(signed.clamp(min=0), found)
    last = target_for(adapters, "llava_onevision")  # which reads its last block
    assert torch.equal(run("grad_cam", last, layer=-1), run("grad_cam", last))


def test_each_encoder_has_its_own_map(adapters):
    target = target_for(adapters, "cambrian")
    names = [e.name for e in target.bound.adapter.encoders(target.bound)]
    assert names == ["0:siglip_vision_model", "1:clip_vision_model", "2:dinov2", "3:convnext_trunk"]
    parts = torch.stack([run("grad_cam", target, encoder=i) for i in range(4)])
    assert torch.allclose(parts.mean(0), run("grad_cam", target), rtol=1e-5)
    assert torch.equal(parts[2], run("grad_cam", target, encoder="2:dinov2"))
    assert all(not torch.allclose(parts[0], part) for part in parts[1:])
    with pytest.raises(StudyError, match="no vision encoder 'clip'.* '1:clip_vision_model'"):
        run("grad_cam", target, encoder="clip")
    with pytest.raises(StudyError, match="cannot follow tiny/cambrian into its 4 vision encoders"):
        run("gae", target, vision=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_grad_cam_of_one_live_patch_lies_in_its_box(adapters, family):
    """Features of all other patches are zero, so only this one can have mass."""
    target = target_for(adapters, family)
    for encoder in target.bound.adapter.encoders(target.bound)[-1:]:
        for number in (0, 5, 11):
            shape = []
            block = last_used(target, encoder)
            hook = block.register_forward_hook(keep_patch(number, shape, encoder), prepend=True)
            found = run("grad_cam", target, positive=False, encoder=encoder.name)
            hook.remove()
            boxes = torch.cat(encoder.boxes(shape[0]))
            own = boxes[len(boxes) // 2, number % shape[0]]
            inside = paint_boxes(own[None], torch.ones(1), SIZE)
            assert (found[inside == 0] == 0).all()
            assert found.abs().sum() > 0 or inside.sum() == 0


def last_used(target, encoder):
    """The last block whose output the score depends on, found by damaging it.

    The last dimension is turned round: a layer norm behind the block would undo a factor or a
    shift. Hooks go first, before those with which transformers records hidden states.
    """
    with torch.no_grad():
        usual = target.score(target.image)
        for block in reversed(encoder.blocks):
            hook = block.register_forward_hook(lambda m, i, o: o.flip(-1), prepend=True)
            changed = target.score(target.image)
            hook.remove()
            if not torch.equal(usual, changed):
                return block


def keep_patch(number, shape, encoder):
    """Zero every patch of a block's output but one, in the middle view."""

    def hook(module, inputs, output):
        x = flat_patches(output)
        n = torch.cat(encoder.boxes(x.shape[1])).shape[1]
        shape[:] = [n]
        keep = torch.zeros(x.shape[:2])
        keep[:, : x.shape[1] - n] = 1  # the class token may stay
        keep[len(x) // 2, x.shape[1] - n + number % n] = 1
        if output.ndim == 4:
            return output * keep[:, None].view(len(x), 1, *output.shape[2:])
        return output * (keep[0] if output.ndim == 2 else keep)[..., None]

    return hook


# -------------------------------------------------------------------------------- LLaVA-CAM
@pytest.mark.parametrize("family", FAMILIES)
def test_llava_cam_by_hand(adapters, family):
    """One clean copy: channel weights are the mean positive gradient over the visual tokens."""
    target = target_for(adapters, family)
    bound, gemma = target.bound, family.startswith("gemma3")
    layer = bound.adapter.model.get_decoder().layers[0]
    norm = layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
    kept = []
    hook = norm.register_forward_hook(lambda m, i, o: kept.append(o))
    picture = target.image.clone().requires_grad_()
    score = bound.log_probs(picture, target.answer.token_ids)[0, [1, 3]].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    at = bound.image_span.nonzero()[:, 0]
    A, g = kept[0][0, at].detach(), gradient[0, at]
    cam = torch.stack([(a * g.clamp(min=0).mean(0)).mean() for a in A]).clamp(min=0)
    found = run("llava_cam", target, samples=1, noise=0.0, layer=0)
    expected = paint(bound, cam)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


# -------------------------------------------------------------------------- a trained model
@pytest.mark.slow
@pytest.mark.skipif("mini/llava-1.5" not in list_models(), reason="the mini model is not here")
def test_gae_and_attention_find_the_evidence():
    """Which colour, which name: the map's mass gathers on the object that was asked about.

    Ten pictures whose answer is right and needs the picture. Chance is the evidence's area share.
    """
    model, mass, area = load_model("mini/llava-1.5"), {"gae": [], "attention": []}, []
    for item in load_benchmark("sprites"):
        if item.extra["kind"] not in ("color", "name") or len(area) == 10:
            continue
        made = make_target(model, item.rgb, item.question)
        if made.status != "ok" or made.answer.text != item.reference:
            continue
        area.append(item.evidence.mean())
        for method, found in mass.items():
            found.append(energy(run(method, made).numpy(), item.evidence))
    assert len(area) == 10
    assert all(np.mean(found) > 2 * np.mean(area) for found in mass.values()), (mass, area)


# ------------------------------------------------------------------------ memory, refusals
class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return out


@pytest.mark.parametrize("method", LINEAR)
def test_memory_grows_with_the_length_and_not_with_its_square(adapters, method, monkeypatch):
    """A longer answer, every layer one row at a time: not even one length² matrix is made."""
    found = []
    for times in (100, 400):
        target = target_for(adapters, "llava", size=(56, 56), ids=IDS * times)
        length = target.bound.prompt_ids.shape[1] + len(IDS) * times
        monkeypatch.setattr(watch, "BLOCK", length * 4)
        with Largest() as largest:
            run(method, target)
        found.append((length, largest.elements))
    (short, small), (long, large) = found
    assert long > 2.5 * short and large / small < 1.2 * long / short


@pytest.mark.parametrize("method", OURS)
def test_planted_readers_are_refused(method):
    with pytest.raises(StudyError, match="looks inside a transformers model.* planted/object"):
        explain(planted("object"), planted_scene((48, 64)), "?", method=method)


def test_explain_knows_the_methods(adapters):
    model = adapters("llava")
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for method in OURS:
        found = explain(model, rgb, "What?", method=method, tokens="all", **FEW.get(method, {}))
        assert found.saliency.shape == (40, 50) and found.status in ("ok", "no_gap")
        forward = {"llava_cam": 3, "iia": 4}.get(method, 1)
        backward = 0 if method in ("attention", "rollout", "tam") else forward
        assert (found.cost.forward, found.cost.backward) == (forward, backward), method


def test_a_family_that_does_not_say_how_patches_become_tokens_is_refused(adapters, monkeypatch):
    target = target_for(adapters, "llava")
    monkeypatch.setattr(type(target.bound.adapter), "merged", Adapter.merged)
    refuses("Llava does not say how patches become visual tokens", run, "gae", target, vision=True)
