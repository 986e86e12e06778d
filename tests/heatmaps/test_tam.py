"""TAM: every step by hand, and the whole map against plain loops over the model's own logits."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import tiny
import torch
import white_box
from white_box import photo

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.tam import Reading, grids, joint_range, rank_gaussian, subtract, tam
from lvlm_study.heatmaps.token_maps import has_area, paint
from lvlm_study.models.planted import planted, planted_scene

QUESTION = "What is the red thing?"
real_target = partial(white_box.real_target, question=QUESTION)


@torch.no_grad()
def all_logits(target):
    """Logits (P + A - 1, V) at every position, from the model itself."""
    bound = target.bound
    ids = torch.cat([bound.prompt_ids, target.answer.token_ids[None, :-1]], 1)
    extras = bound.extras(1, ids.shape[1] - bound.prompt_ids.shape[1])
    return bound.adapter.model(input_ids=ids, **bound.pixels(target.image), **extras).logits[0]


def plain_scores(target, grid_shapes):
    """Mean over crucial tokens of the published steps, written as loops."""
    bound, z = target.bound, all_logits(target).double()
    tokenizer = bound.adapter.tokenizer
    prompt = bound.prompt_ids[0].tolist()
    ids = prompt + target.answer.token_ids.tolist()
    image = [n for n, i in enumerate(prompt) if i == bound.adapter.image_token_id]
    special = {*tokenizer.all_special_ids, bound.adapter.image_token_id}
    text = [tokenizer.convert_ids_to_tokens(i).replace("Ġ", "") for i in ids]
    maps = []
    for k in target.crucial.nonzero()[:, 0].tolist():
        place = len(prompt) + k
        own = np.array([max(z[v, ids[place]].item(), 0) for v in image])
        weights, others = [], []
        for j in range(place):
            if ids[j] not in special and text[j] != text[place]:
                told = j - 1 if j >= len(prompt) else j  # an answer word where it is predicted
                weights.append(max(z[told, ids[place]].item(), 0))
                others.append([max(z[v, ids[j]].item(), 0) for v in image])
        if sum(weights):
            mean = sum(w / sum(weights) * np.array(o) for w, o in zip(weights, others, strict=True))
            own = np.maximum(own - own @ mean / (mean @ mean) * mean, 0)
        low, high = min([*own, *weights]), max([*own, *weights])
        own, done = (own - low) / (high - low), 0
        for rows, columns in grid_shapes:
            part = own[done : done + rows * columns].reshape(rows, columns)
            own[done : done + rows * columns] = plain_filter(part).ravel()
            done += rows * columns
        maps.append(own)
    return torch.tensor(np.mean(maps, 0))


def plain_filter(grid):
    """3 x 3 rank-Gaussian filter, window by window."""
    padded = np.pad(grid, 1, mode="reflect")
    out = np.empty_like(grid)
    for y, x in np.ndindex(grid.shape):
        window = np.sort(padded[y : y + 3, x : x + 3].ravel())
        sigma = window.std() / window.mean() if window.mean() > 0 else 0
        if sigma < 1e-6:
            out[y, x] = window[4]
            continue
        weight = np.exp(-(np.arange(-4, 5) ** 2) / (2 * sigma**2))
        out[y, x] = window @ weight / weight.sum()
    return out


@pytest.mark.parametrize(
    "family,shapes",
    [("llava", [(4, 4)]), ("llava_pad", [(4, 4)]), ("internvl", [(4, 2), (2, 2)])],
)
def test_map_is_that_of_the_plain_loops(adapters, family, shapes):
    # a tall picture becomes two tiles, whose rows go on from one to the other, and a thumbnail
    target = real_target(adapters(family), (56, 28) if family == "internvl" else (40, 40))
    assert sum(r * c for r, c in shapes) == len(target.bound.token_boxes)
    expected = paint(target.bound, plain_scores(target, shapes))
    assert expected.max() > 0
    torch.testing.assert_close(tam(target), expected, atol=1e-5, rtol=1e-4)


@contextmanager
def by_hand(model, rows, states):
    """Output matrix {id: {dimension: number}} and last hidden states {position: the same}."""
    head, norm = model.get_output_embeddings(), model.get_decoder().norm
    usual = head.weight.data
    head.weight.data = filled(usual, rows)
    hook = norm.register_forward_hook(lambda m, args, out: filled(out[0], states)[None])
    try:
        yield
    finally:
        hook.remove()
        head.weight.data = usual


def filled(like, numbers):
    out = torch.zeros_like(like)
    for n, row in numbers.items():
        for d, number in row.items():
            out[n, d] = number
    return out


BY_HAND = {  # place of the explained word in the answer: scores of the first four visual tokens
    # "q" 10, ":" 20; A = (42, 21, 0, 10) less 42 (1, 0, 0, 0); the most is 21
    0: [0, 1, 0, 10 / 21],
    # "q" 10, ":" 20, "a" 20; A less 42/5 of (1, 0, 2, 0); the most is 42 - 42/5 = 33.6
    1: [1, 21 / 33.6, 0, 10 / 33.6],
    # "q" 10, ":" 20, "a" 20, "b" 40; A less 6 of (1, 4, 2, 0) is (36, 0, 0, 10); the most is "b"
    2: [36 / 40, 0, 0, 10 / 40],
}


@pytest.mark.parametrize("place", BY_HAND)
def test_an_earlier_word_weighs_what_the_position_before_it_says(adapters, place):
    """Li et al., hidden states and output matrix set by hand, one dimension a word.

    "q" and ":" of the prompt are heard at their own positions, "a" and "b" of the answer where they
    are predicted. The explained word's own score there, 1000, neither weighs nor stretches the map.
    """
    adapter = adapters("llava")
    target = white_box.target_of(adapter, crucial=[place], size=(28, 28), ids=(40, 50, 60))
    prompt, answer = target.bound.prompt_ids[0].tolist(), target.answer.token_ids.tolist()
    v, end = prompt.index(adapter.image_token_id), len(prompt)
    q, colon = end - 4, end - 1
    assert len({prompt[q], prompt[colon], *answer}) == 5  # five words apart; ":" lights up nothing
    rows = {prompt[q]: {1: 1}, answer[0]: {2: 1}, answer[1]: {3: 1}, answer[place]: {0: 1}}
    states = {v: {0: 42, 1: 1}, v + 1: {0: 21, 3: 1}, v + 2: {2: 1}, v + 3: {0: 10}}
    states |= {q: {0: 10}, colon: {0: 20}}
    if place > 0:
        states |= {end: {0: 40}, colon + place: {0: 1000}}
    with by_hand(adapter.model, rows, states):
        found = tam(target, kernel=1)
    expected = torch.zeros(4, 4)
    expected[0] = torch.tensor(BY_HAND[place])
    torch.testing.assert_close(found, expected.repeat_interleave(7, 0).repeat_interleave(7, 1))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_give_the_models_own_logits(adapters, family):
    target = real_target(adapters(family))
    reading, ids = Reading(target), torch.arange(60, 90)
    z = all_logits(target)
    span = target.bound.image_span
    seen = z[: len(span)][span][:, ids].relu()
    torch.testing.assert_close(reading.says(reading.visual, ids), seen, atol=1e-4, rtol=1e-4)


def test_subtraction_by_hand():
    # the mean of the maps is (1, 1, 0); <A, B> / <B, B> = 3 / 2
    found = torch.tensor([2.0, 1.0, 0.0])
    maps = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert subtract(found, maps, torch.tensor([1.0, 3.0])).tolist() == [0.5, 0.0, 0.0]
    weighted = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]])  # (1, 3, 0): s = 1 / 2
    assert subtract(found, weighted, torch.tensor([1.0, 3.0])).tolist() == [1.5, 0.0, 0.0]
    assert torch.equal(subtract(found, maps, torch.zeros(2)), found)
    assert torch.equal(subtract(found, torch.zeros(3, 2), torch.ones(2)), found)


def test_subtraction_takes_away_all_that_is_proportional():
    draw = torch.Generator().manual_seed(0)
    maps, weights = torch.rand(20, 5, generator=draw), torch.rand(5, generator=draw)
    interference = maps @ weights
    assert subtract(3 * interference, maps, weights).max() < 1e-5
    own = torch.zeros(20)
    own[7] = 5.0
    assert subtract(own + interference, maps, weights).argmax() == 7


def test_joint_range_by_hand():
    assert joint_range(torch.tensor([1.0, 3.0]), torch.tensor([5.0])).tolist() == [0.0, 0.5]
    assert joint_range(torch.tensor([2.0, 2.0]), torch.tensor([2.0])).tolist() == [0.0, 0.0]


def test_filter_against_plain_loops():
    grid = torch.rand(6, 9, generator=torch.Generator().manual_seed(3))
    expected = torch.from_numpy(plain_filter(grid.double().numpy())).float()
    torch.testing.assert_close(rank_gaussian(grid, 3), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(rank_gaussian(grid, 1), grid)


def test_filter_by_hand():
    flat = torch.full((4, 5), 0.3)
    torch.testing.assert_close(rank_gaussian(flat, 3), flat)
    peak = torch.zeros(5, 5)
    peak[2, 2] = 1.0
    # nine values, one of them 1: s^2 = (1/9 - 1/81) / (1/81) = 8, the peak's weight exp(-16 / 16)
    weight = np.exp(-(np.arange(-4, 5) ** 2) / 16)
    found = rank_gaussian(peak, 3)
    assert found[2, 2].item() == pytest.approx(weight[-1] / weight.sum(), abs=1e-6)
    assert found[0, 0] == 0
    assert rank_gaussian(torch.rand(1, 1), 3).shape == (1, 1)  # no neighbours to mirror


@pytest.mark.parametrize("size", [(56, 56), (61, 140), (150, 70)])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_grids_hold_every_token_with_a_box_once(adapters, family, size):
    boxes = adapters(family).bind(size, QUESTION).token_boxes
    found = grids(boxes)
    together = torch.cat([grid.flatten() for grid in found]).sort().values
    assert together.tolist() == has_area(boxes).nonzero()[:, 0].tolist()
    for grid in found:
        assert (boxes[grid][:, :, 0] == boxes[grid][:1, :, 0]).all()  # one column, one left edge
        assert (boxes[grid][:, :, 1] == boxes[grid][:, :1, 1]).all()  # one row, one top edge


def test_grids_by_hand(adapters):
    def shapes(family, size=(56, 56)):
        return [tuple(g.shape) for g in grids(adapters(family).bind(size, QUESTION).token_boxes)]

    assert shapes("llava") == [(4, 4)]
    assert shapes("llava_next") == [(4, 4), (8, 8)]  # base view, then rows across the tiles
    assert shapes("llava_pad", (28, 112)) == [(2, 4)]  # two rows of pure padding are left out
    first, second = grids(adapters("llava_next").bind((56, 56), QUESTION).token_boxes)
    assert first[0].tolist() == [0, 1, 2, 3] and second[1].tolist() == list(range(25, 33))


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "internvl"])
def test_one_token_is_drawn_where_it_looks(adapters, family, monkeypatch):
    """A single visual token says the word: without smoothing the map is that token's box."""
    target = real_target(adapters(family), (56, 84))
    token = int(has_area(target.bound.token_boxes).nonzero()[-1])

    def says(self, hidden, ids):
        out = torch.zeros(len(hidden), len(ids))
        if hidden is self.visual:
            out[token] = 1.0
        return out

    monkeypatch.setattr(Reading, "says", says)
    found = tam(target, kernel=1)
    x0, y0, x1, y1 = target.bound.token_boxes[token].tolist()
    inside = torch.zeros(56, 84, dtype=torch.bool)
    inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert found[inside].max() > 0 and found[~inside].abs().max() == 0


def test_context_leaves_out_specials_image_and_the_word_itself(tiny_llava):
    target = real_target(tiny_llava)
    reading = Reading(target)
    place = reading.places[-1]
    context = reading.context(place).tolist()
    words = [reading.words[n].strip("Ġ") for n in context]
    assert max(context) < place and reading.words[place].strip("Ġ") not in words
    assert not {"<s>", "<image>"} & set(words)
    assert "red" in words  # of the question


def test_causal_inference_is_on_and_changes_the_map(tiny_llava):
    target = real_target(tiny_llava)
    assert not torch.allclose(tam(target), tam(target, causal=False))
    assert torch.equal(tam(target), tam(target, causal=True))


def test_sum_and_mean(tiny_llava):
    target = real_target(tiny_llava)
    n = int(target.crucial.sum())
    torch.testing.assert_close(tam(target, combine="sum"), n * tam(target))


def test_cost_and_determinism(tiny_next):
    one, two = (explain(tiny_next, photo(), QUESTION, method="tam", tokens="all") for _ in "ab")
    assert (one.cost.forward, one.cost.backward) == (1, 0)
    assert one.saliency.tobytes() == two.saliency.tobytes()


@pytest.mark.parametrize("family", white_box.FAMILIES)
def test_every_family(adapters, family):
    model = white_box.adapter_of(adapters, family)
    target = real_target(model, (45, 61))
    found, reading = tam(target, kernel=1, causal=False), Reading(target)
    assert found.shape == (45, 61) and found.isfinite().all() and found.min() >= 0
    # a random model may say none of its words at any visual token; the map is then empty
    heard = reading.says(reading.visual, reading.ids[reading.places]).max() > 0
    assert (found.max() > 0) == heard and tam(target).isfinite().all()


def test_a_reader_without_hidden_states_is_refused():
    with pytest.raises(StudyError, match="tam looks inside"):
        explain(planted("object"), planted_scene((48, 64)), "?", method="tam")


@pytest.mark.parametrize("options", [{"kernel": 2}, {"kernel": 0}, {"combine": "max"}])
def test_bad_options(tiny_llava, options):
    with pytest.raises(StudyError, match="odd kernel"):
        tam(real_target(tiny_llava), **options)
