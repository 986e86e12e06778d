"""Where visual tokens look: paint somewhere, and exactly the tokens there must change."""

import numpy as np
import pytest
import tiny
import torch

from lvlm_study.models import load_model
from lvlm_study.models.anyres import LlavaNext, blended, fit_inside, unpadded
from lvlm_study.models.geometry import patch_edges

SIZES = {"square": (90, 90), "wide": (61, 140), "tall": (150, 70)}
QUESTION = "What is this?"


@pytest.fixture(scope="module")
def local(checkpoints):
    """Adapters whose encoder has no attention: each visual token depends on its own patch only."""
    loaded = {}

    def find(family):
        if family not in loaded:
            model = load_model(checkpoints(family))
            for name, weight in model.vision.named_parameters():
                if "out_proj" in name or "attn.proj" in name or "projection_layer" in name:
                    weight.zero_()
            loaded[family] = model
        return loaded[family]

    return find


def reaches(bound):
    """How far, in image pixels, a painted pixel can matter beyond its token's box: (N, 2) x, y."""
    views, count = bound.geometry.plan.views, len(bound.token_boxes)
    slack = [[r + s for r, s in zip(v.reach, v.steps, strict=True)][::-1] for v in views]
    if isinstance(bound.adapter, LlavaNext):
        sizes = [16, count - 16]  # the base view, then all tiles
    else:
        after = [4] * (len(views) - 1)  # thumbnails and crops have 4 tokens each
        sizes = [count - sum(after), *after]
    view_of = torch.repeat_interleave(torch.arange(len(views)), torch.tensor(sizes))
    return torch.tensor(slack)[view_of]


def clear_positions(bound, axis):
    """Image columns (axis 0) or rows (1) that are out of reach of every token border inside."""
    length = bound.size[1 - axis]
    edges, slack = bound.token_boxes[:, [axis, axis + 2]], reaches(bound)[:, axis, None]
    inside = (edges > 0) & (edges < length)
    low, high = (f(edges[edges.isfinite()].numpy()) for f in (np.min, np.max))
    within = np.arange(int(low), int(high) + 1)  # beyond is what a centre crop drops
    free = [int(c) for c in within if not (inside & ((edges - c).abs() < slack)).any()]
    return sorted({0, *free, length})


def overlaps(boxes, rectangle, slack):
    """Tokens whose box, grown by `slack` (N, 2), meets the rectangle in more than an edge."""
    low = torch.maximum(boxes[:, :2] - slack, torch.tensor(rectangle[:2]))
    high = torch.minimum(boxes[:, 2:] + slack, torch.tensor(rectangle[2:]))
    return (high > low).all(1)  # False for NaN


def rectangles(bound, count, seed=0):
    """Random rectangles with clear borders, the four corners first."""
    rng, (xs, ys) = np.random.default_rng(seed), (clear_positions(bound, a) for a in (0, 1))
    assert min(len(xs), len(ys)) > 2, "every position is near a token border; change the size"
    for i in range(count):
        (x0, x1), (y0, y1) = (sorted(rng.choice(v, 2, replace=False)) for v in (xs, ys))
        if i < 4:  # from the corner to the first or last clear position
            x0, x1 = [(0, xs[1]), (xs[-2], xs[-1])][i % 2]
            y0, y1 = [(0, ys[1]), (ys[-2], ys[-1])][i // 2]
        yield float(x0), float(y0), float(x1), float(y1)


@torch.no_grad()
def moved(model, bound, rectangle):
    """Tokens that change when the rectangle of a noisy picture is painted over."""
    x0, y0, x1, y1 = (int(v) for v in rectangle)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, *bound.size, generator=generator)
    painted = x.clone()
    painted[..., y0:y1, x0:x1] = (x[..., y0:y1, x0:x1] + 0.5) % 1
    before, after = (model.encode(bound, v)[0] for v in (x, painted))
    return (before - after).abs().amax(1) > 1e-6


def check_painting(model, size, count=8):
    """Tokens with a box move exactly if painted; those that see only padding, at most near it."""
    bound = model.bind(size, QUESTION)
    boxes, slack = bound.token_boxes, reaches(bound)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    painted = 0
    for rectangle in rectangles(bound, count):
        found = moved(model, bound, rectangle)
        expected = overlaps(boxes, rectangle, torch.zeros_like(slack))
        painted += int(expected.any() and not expected[solid].all())
        assert torch.equal(found[solid], expected[solid]), rectangle
        assert not (found & ~overlaps(boxes, rectangle, slack)).any(), rectangle
    assert painted >= 3  # some tokens, not all


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_painting_moves_exactly_the_tokens_there(local, family, shape):
    check_painting(local(family), SIZES[shape])


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_painting_would_notice_scrambled_tiles(local, family, monkeypatch):
    model = local(family)
    honest = type(model).pack

    def scrambled(self, views):
        base, tiles = views
        return honest(self, [base, tiles.flip(1)])

    monkeypatch.setattr(type(model), "pack", scrambled)
    with pytest.raises(AssertionError):
        check_painting(model, SIZES["tall"])


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_painting_would_notice_the_base_view_last(local, family, monkeypatch):
    model = local(family)
    honest = type(model).pack
    monkeypatch.setattr(type(model), "pack", lambda self, views: honest(self, views[::-1]))
    with pytest.raises(AssertionError):
        check_painting(model, SIZES["wide"])


@pytest.mark.parametrize("size", [*SIZES.values(), (1, 20), (1000, 1), (33, 200), (300, 41)])
@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "onevision_shrunk"])
def test_newlines_and_counts_as_the_model_packs_them(adapters, family, size):
    """The model's own packing of numbered patches, with -1 for newlines, is the oracle."""
    model = adapters(family)
    geometry = model.geometry_for(size)
    inner, T = model.model.model, geometry.plan.render(torch.zeros(1, 3, *size))[1].shape[1]
    patches = torch.ones(1 + T, 16, 1)
    options = {"image_newline": torch.tensor([-1.0])}
    if family == "llava_next":
        options["vision_feature_select_strategy"] = "default"
    else:
        options["vision_aspect_ratio"] = model.model.config.vision_aspect_ratio
    packed, _ = inner.pack_image_features([patches], torch.tensor([size]), **options)
    assert torch.equal(packed[0][:, 0] == -1, geometry.boxes.isnan().all(1))


def test_boxes_of_a_centre_crop_by_hand(adapters):
    # 56 x 112 is halved to 28 x 56; the crop keeps columns 14..42, so image columns 28..84
    boxes = adapters("llava").bind((56, 112), QUESTION).token_boxes
    assert boxes.shape == (16, 4)
    assert boxes[0].tolist() == [28, 0, 42, 14]
    assert boxes[1].tolist() == [42, 0, 56, 14]
    assert boxes[15].tolist() == [70, 42, 84, 56]


def test_boxes_of_a_padded_square_by_hand(adapters):
    # 28 x 112 stands at rows 42..70 of a 112 square; a patch covers 28 of its pixels
    boxes = adapters("llava_pad").bind((28, 112), QUESTION).token_boxes
    assert boxes[4].tolist() == [0, 0, 28, 14]
    assert boxes[11].tolist() == [84, 14, 112, 28]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert area.view(4, 4).tolist() == [[0] * 4, [28 * 14] * 4, [28 * 14] * 4, [0] * 4]


def test_boxes_of_tiles_by_hand(adapters):
    # 56 x 56 fills 2 x 2 tiles unresized: base 4 x 4 patches of 14 px, then rows of 8 and a newline
    boxes = adapters("llava_next").bind((56, 56), QUESTION).token_boxes
    assert boxes.shape == (16 + 8 * 9, 4)
    assert boxes[5].tolist() == [14, 14, 28, 28]
    assert boxes[16].tolist() == [0, 0, 7, 7]
    assert boxes[16 + 7].tolist() == [49, 0, 56, 7]
    assert boxes[16 + 8].isnan().all()
    assert boxes[16 + 9 * 3 + 5].tolist() == [35, 21, 42, 28]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_boxes_cover_the_seen_pixels(adapters, family):
    """Every pixel that reaches the model lies in some token's box, give or take the filter."""
    bound = adapters(family).bind((61, 140), QUESTION)
    covered = torch.zeros(bound.size, dtype=torch.bool)
    for x0, y0, x1, y1 in bound.token_boxes[bound.token_boxes.isfinite().all(1)].tolist():
        covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert not (covered & ~bound.seen()).any()
    spread = max(sum(v.reach) for v in bound.geometry.plan.views)
    assert (bound.seen() & ~covered).any(0).sum() <= 2 * np.ceil(spread)


def test_a_rim_without_patches_is_unread():
    assert patch_edges(30, 7, 2).tolist()[3:5] == [[21, 28], [30, 37]]


def test_geometry_helpers_by_hand():
    assert fit_inside((50, 40), (56, 56)) == (56, 45)
    assert unpadded((50, 40), (8, 8)) == (0, 1)  # int(40 * 8 / 50) = 6 columns of 8 remain
    assert unpadded((40, 50), (8, 8)) == (1, 0)
    edges = patch_edges(8, 2)
    # four patches to two: each new one sits between two old ones and blends exactly those
    assert blended(edges, 2).tolist() == [[0, 4], [4, 8]]
    # four to three: at 1/6, 3/2 and 17/6 between patch centres
    assert blended(edges, 3).tolist() == [[0, 4], [2, 6], [4, 8]]


@pytest.mark.parametrize(
    "family,size,count",
    [
        ("llava crop", (480, 640), 576),
        ("llava pad", (1, 900), 576),
        ("llava_next", (480, 640), 576 + 36 * 48 + 36),  # 672 x 672, unpadded to 36 rows of 48
        ("llava_onevision", (480, 640), 729 + 40 * 54 + 40),  # 54 x 54 patches, 40.5 rows are image
    ],
)
def test_token_counts_of_the_published_sizes(family, size, count):
    assert len(tiny.real_size(family).bind(size, QUESTION).token_boxes) == count
