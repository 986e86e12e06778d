"""Figures: one scale for all maps, tables that the book can number, marks that need no colour."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from lvlm_study import figures
from lvlm_study.errors import StudyError


@pytest.fixture(autouse=True)
def clean():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def test_share_is_linear_and_clipped():
    assert figures.share(np.array([-1.0, 0.0, 1.0, 2.0, 9.0]), 0, 2).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.nan), (0, np.inf)])
def test_a_scale_without_width_is_refused(low, high):
    with pytest.raises(StudyError, match="vmin < vmax"):
        figures.share(np.zeros((2, 2)), low, high)


def test_the_scale_rises_in_lightness():
    rgb = figures.colour(np.linspace(0, 1, 64)[None], 0, 1)[0, :, :3]  # (64, 3)
    luminance = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92) @ [
        0.2126,
        0.7152,
        0.0722,
    ]
    assert (np.diff(luminance) > 0).all()


def test_nothing_is_drawn_where_saliency_is_lowest():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (figures.overlay_image(rgb, np.zeros((5, 7)), 0, 1) == rgb).all()


def test_full_saliency_is_four_fifths_of_the_top_colour():
    top = np.array(matplotlib.colormaps[figures.CMAP](1.0)[:3])
    drawn = figures.overlay_image(np.full((1, 1, 3), 100, np.uint8), np.ones((1, 1)), 0, 1)
    assert drawn[0, 0].tolist() == (20 + 0.8 * 255 * top).round().tolist()


def test_overlay_draws_what_overlay_image_writes():
    rng = np.random.default_rng(1)
    rgb, map_ = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), rng.random((20, 30))
    figure = plt.figure(figsize=(0.3, 0.2), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    figures.overlay(ax, rgb, map_, 0, 1, bar=False)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    assert (
        np.abs(drawn - figures.overlay_image(rgb, map_, 0, 1)).max() <= 4
    )  # matplotlib blends in 8 bit


def test_overlay_makes_its_own_figure_with_the_given_scale():
    ax = figures.overlay(None, np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)), 0, 3, title="map")
    assert ax.get_title() == "map"
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == (0, 3)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(StudyError, match="picture"):
        figures.overlay(None, np.zeros((4, 6, 3), np.uint8), np.ones((2, 3)), 0, 1)


def test_table_markdown_by_hand():
    frame = pd.DataFrame({"model": ["a|b", "c"], "n": [3, 4], "drop": [-0.12345, np.nan]})
    assert figures.markdown(frame, digits=2) == (
        "| model | n | drop |\n| :-- | --: | --: |\n| a\\|b | 3 | −0.12 |\n| c | 4 | – |"
    )


def test_show_table_is_a_named_myst_table():
    shown = figures.show_table(pd.DataFrame({"x": [1]}), "Only one.", "tbl-x").data
    assert shown == ":::{table} Only one.\n:name: tbl-x\n\n| x |\n| --: |\n| 1 |\n:::"


def test_tokens_are_marked_without_colour_too():
    text = figures.marked_tokens_html(["A", " <cat>"], [0.0, 2.0], [False, True])
    assert text.count("<span") == 2 and "<cat>" not in text and ">&lt;cat&gt;<" in text
    assert "</span> <span" in text, "the space stands between the marks"
    first, second = text.split("</span>")[:2]
    assert 'class="token"' in first and "rgba(68, 1, 84, 0.00)" in first
    assert 'class="token crucial"' in second and "0.45)" in second
    assert "log-likelihood ratio 2.00, crucial" in second


def test_token_shading_follows_a_shared_top():
    alone = figures.marked_tokens_html(["a"], [1.0], [False])
    shared = figures.marked_tokens_html(["a"], [1.0], [False], vmax=2.0)
    assert "0.45)" in alone and "0.23)" in shared or "0.22)" in shared


def test_tokens_without_any_gap_are_not_shaded():
    assert "0.00)" in figures.marked_tokens_html(["a"], [-1.0], [False])


def test_tokens_weights_and_marks_must_match():
    with pytest.raises(StudyError, match="as many"):
        figures.marked_tokens_html(["a"], [1.0, 2.0], [True])


def test_style_is_one_call():
    figures.use_style()
    assert matplotlib.rcParams["image.cmap"] == figures.CMAP
    assert not matplotlib.rcParams["axes.spines.top"]
