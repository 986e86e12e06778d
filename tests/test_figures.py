"""Figures: one scale for all maps, tables that the book can number, marks that need no colour."""

from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study import figures


@pytest.fixture(autouse=True)
def clean():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def test_colours_by_hand():
    assert figures.share(np.array([-1.0, 0.0, 1.0, 2.0, 9.0]), 0, 2).tolist() == [0, 0, 0.5, 1, 1]
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (figures.overlay_image(rgb, np.zeros((5, 7)), 0, 1) == rgb).all()
    top = np.array(matplotlib.colormaps[figures.CMAP](1.0)[:3])
    drawn = figures.overlay_image(np.full((1, 1, 3), 100, np.uint8), np.ones((1, 1)), 0, 1)
    assert drawn[0, 0].tolist() == (20 + 0.8 * 255 * top).round().tolist()


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.nan), (0, np.inf)])
def test_a_scale_without_width_is_refused(low, high):
    refuses("vmin < vmax", figures.share, np.zeros((2, 2)), low, high)


def test_the_scale_rises_in_lightness():
    rgb = figures.colour(np.linspace(0, 1, 64)[None], 0, 1)[0, :, :3]  # (64, 3)
    luminance = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92) @ [
        0.2126,
        0.7152,
        0.0722,
    ]
    assert (np.diff(luminance) > 0).all()


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


def test_overlay_has_its_own_figure_and_the_given_scale():
    ax = figures.overlay(None, np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)), 0, 3, title="map")
    assert ax.get_title() == "map"
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == (0, 3)
    refuses("picture", figures.overlay, None, np.zeros((4, 6, 3), np.uint8), np.ones((2, 3)), 0, 1)


def test_tables_by_hand():
    frame = pd.DataFrame({"model": ["a|b", "c"], "n": [3, 4], "drop": [-0.12345, np.nan]})
    assert figures.markdown(frame, digits=2) == (
        "| model | n | drop |\n| :-- | --: | --: |\n| a\\|b | 3 | −0.12 |\n| c | 4 | – |"
    )
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


def test_shades_of_tokens():
    alone = figures.marked_tokens_html(["a"], [1.0], [False])
    shared = figures.marked_tokens_html(["a"], [1.0], [False], vmax=2.0)
    assert "0.45)" in alone and "0.23)" in shared or "0.22)" in shared
    assert "0.00)" in figures.marked_tokens_html(["a"], [-1.0], [False])
    refuses("as many", figures.marked_tokens_html, ["a"], [1.0, 2.0], [True])


TREE = {"value": 0.5, "low": 0.25, "high": 1.0}


@pytest.mark.parametrize("one", [TREE, SimpleNamespace(**TREE), (0.5, 0.25, 1.0)])
def test_dots_read_trees_estimates_and_columns(one):
    ax = plt.subplots()[1]
    figures.dots(ax, [one, None, {"value": 2.0, "low": None, "high": None}], ["a", "b", "c"])
    across, first, alone = ax.lines
    where = [line.get_xydata().tolist() for line in (across, first, alone)]
    assert where == [[[0.25, 0], [1, 0]], [[0.5, 0]], [[2, 2]]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first on top"


def test_dots_upright_hollow_and_once_in_the_legend():
    ax = plt.subplots()[1]
    figures.dots(ax, [TREE, TREE], (), [3, 4], ["r", "g"], hollow=[0, 1], upright=True, label="x")
    assert ax.lines[0].get_xydata().tolist() == [[3, 0.25], [3, 1]]
    assert [line.get_markerfacecolor() for line in ax.lines[1::2]] == ["r", "white"]
    assert ax.get_legend_handles_labels()[1] == ["x"]


def test_bars_are_stacked_from_the_left():
    ax, shares = plt.subplots()[1], pd.DataFrame({"a": [25.0, 50], "b": [75.0, 10]}, ["u", "v"])
    figures.stacked(ax, shares, {"a": ("r", ""), "b": ("g", "//")})
    found = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert found == [(0, 25), (0, 50), (25, 75), (50, 10)]
