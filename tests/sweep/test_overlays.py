"""`overlay.png` can be read whatever the method's unit: measured inside the picture itself."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from lvlm_study import figures, heatmaps
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps.names import UNITS
from lvlm_study.models import load_model
from lvlm_study.pixels.images import load_image
from lvlm_study.sweep import explain_files

PHOTO = Path(__file__).resolve().parents[2] / "data" / "photos" / "chelsea.jpg"
FEW = {  # the same maps, rougher
    "igos": {"iterations": 1},
    "igos++": {"iterations": 1},
    "llava_cam": {"samples": 4},
    "rise": {"masks": 64},
    "occlusion": {"window": 1 / 4, "stride": 1 / 4},
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 4},
    "iia": {"steps": 2},
    "eagle": {"regions": 8},
    "eagle_lazy": {"regions": 8},
    "shapley": {"regions": 8, "orders": 4},
}


@pytest.fixture(scope="module")
def mini():
    return {name: load_model(name) for name in ("mini/llava-1.5", "mini/joint")}


@pytest.fixture(scope="module")
def pictures():
    item = load_benchmark("sprites")[5]
    photo = (load_image(PHOTO), "What is alive in this picture?")
    return {"scene": (item.rgb, item.question), "photo": photo}


def explained(mini, method, rgb, question):
    model = mini["mini/joint" if method == "ga" else "mini/llava-1.5"]
    return heatmaps.explain(model, rgb, question, method=method, **FEW.get(method, {}))


def drawn(path, rgb, ex, monkeypatch):
    """(plain panel, overlay panel, all words) of the picture as it lies on the disc."""
    monkeypatch.setattr(plt, "close", lambda figure: None)
    explain_files.draw_overlay(path, rgb, ex, {})
    figure = plt.gcf()
    monkeypatch.undo()
    figure.set_dpi(110)
    whole = Image.open(path).convert("RGB")
    panels = [panel(whole, ax.get_window_extent()) for ax in figure.axes[:2]]
    words = " ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))
    plt.close(figure)
    return (*panels, " ".join(words.split()))


def panel(whole, place) -> np.ndarray:
    """A part of the picture, (160, 240, 3), without its rim."""
    box = (place.x0 + 1, whole.height - place.y1 + 1, place.x1 - 1, whole.height - place.y0 - 1)
    return np.asarray(whole.crop(box).resize((240, 160), Image.Resampling.BOX), float)


def check(ex, rgb, path, monkeypatch):
    plain, over, words = drawn(path, rgb, ex, monkeypatch)
    strength = np.linalg.norm(over - plain, axis=2)  # (160, 240), grey levels
    size = Image.fromarray(np.abs(ex.saliency)).resize((240, 160), Image.Resampling.BOX)
    size = np.asarray(size)
    assert strength.std() > 8, "the map is seen"
    high, low = size >= np.quantile(size, 0.97), size <= np.quantile(size, 0.5)
    assert np.median(strength[high]) > np.median(strength[low]) + 8
    vmin, vmax = figures.own_scale(ex.saliency)
    grey = np.full((*ex.saliency.shape, 3), 128, np.uint8)
    alone = np.abs(figures.overlay_image(grey, ex.saliency, vmin, vmax).astype(float) - 128)
    shown = np.round(np.clip(np.abs(ex.saliency), 0, vmax) / vmax * 255)  # as colours can tell
    for side in (ex.saliency >= 0, ex.saliency < 0):  # each side of 0 has colours of its own
        if len(set(shown[side].tolist())) > 1:
            told = spearmanr(alone.sum(2)[side], shown[side])[0]
            assert told > 0.6, "stronger where it is higher"
    assert f"{vmax:.3g}" in words and "99 % quantile" in words and UNITS[ex.method] in words
    assert (vmin < 0) == ("blue against it" in words)


@pytest.mark.parametrize("method", heatmaps.METHODS)
def test_every_method_can_be_read_on_a_drawn_scene(method, mini, pictures, tmp_path, monkeypatch):
    rgb, question = pictures["scene"]
    check(explained(mini, method, rgb, question), rgb, tmp_path / "overlay.png", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("method", heatmaps.METHODS)
def test_every_method_can_be_read_on_a_photograph(method, mini, pictures, tmp_path, monkeypatch):
    rgb, question = pictures["photo"]
    check(explained(mini, method, rgb, question), rgb, tmp_path / "overlay.png", monkeypatch)


def test_the_scale_is_the_maps_own():
    line = np.arange(101.0)[None]  # 0 .. 100
    assert figures.own_scale(line) == (0.0, pytest.approx(99))
    assert figures.own_scale(line * 1e-9) == (0.0, pytest.approx(99e-9))
    assert figures.own_scale(-line) == (pytest.approx(-99), pytest.approx(99))
    outlier = np.append(line, 1e9)[None]
    assert figures.own_scale(outlier)[1] <= 100
    point = np.eye(1, 1000) * 7  # fewer than one in a hundred: its peak is the end
    assert figures.own_scale(point) == (0.0, 7.0)
    assert figures.own_scale(line - 1e-3)[0] == 0.0, "rounding is no sign"
    assert figures.own_scale(np.full((3, 3), 5.0)) is None
    assert figures.own_scale(np.zeros((3, 3))) is None


def test_a_signed_map_has_two_colours_and_none_at_zero():
    red, nothing, blue = figures.colour(np.array([2.0, 0.0, -2.0]), -2.0, 2.0)
    assert red[0] > red[2] and blue[2] > blue[0]
    assert (red[3], nothing[3], blue[3]) == (0.8, 0, 0.8)
    half = figures.colour(np.array([1.0]), -2.0, 2.0)[0]
    assert half[3] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("value", "status", "says"),
    [
        (0.0, "no_crucial_tokens", "no word of the answer depends on the image"),
        (0.0, "diverged", "numbers that are not finite"),
        (0.0, "ok", "the map is zero everywhere and says nothing"),
        (0.25, "constant", "the map is the same (0.25) everywhere and says nothing"),
    ],
)
def test_a_map_without_contrast_is_told(value, status, says, mini, pictures, tmp_path, monkeypatch):
    rgb, question = pictures["scene"]
    ex = explained(mini, "center", rgb, question)
    ex = replace(ex, saliency=np.full_like(ex.saliency, value), status=status)
    assert says in drawn(tmp_path / "overlay.png", rgb, ex, monkeypatch)[2]
