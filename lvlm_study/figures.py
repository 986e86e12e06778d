"""How the study draws: one style, one colour scale for every saliency map, real tables.

A map is drawn on a scale that the caller gives (`vmin`, `vmax`): in the chapters one for all maps
that are compared, so that two maps that look alike are alike; for a map that stands alone its own
(`own_scale`), whose end is written beside it. The scale's colours rise evenly in lightness and can
be told apart by colour-blind readers; where saliency is near 0 the picture shows through.
"""

import functools
import html
import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize

from .errors import StudyError

CMAP = "viridis"  # even in lightness, safe for colour-blind readers
SIGNED = "coolwarm"  # blue against the answer, red for it: safe for colour-blind readers too
QUANTILE = 0.99  # of |map|, where the scale of a map that stands alone ends
FAINT = 0.01  # negative values below this share of the end are rounding, no sign
PALETTE = "colorblind"  # seaborn's, for categories
WIDTH = 7.0  # inches: the book's text column


def use_style() -> None:
    """The look of every figure of the study; call it once, in the setup cell."""
    import seaborn as sns  # takes seconds to import, which a lone overlay need not wait for

    sns.set_theme(style="ticks", context="notebook", palette=PALETTE)
    matplotlib.rcParams.update(
        {
            "figure.figsize": (WIDTH, 0.6 * WIDTH),
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "figure.facecolor": "white",  # the same picture in the light and the dark book
            "font.family": "DejaVu Sans",  # ships with matplotlib: same letters everywhere
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "image.interpolation": "nearest",
            "image.cmap": CMAP,
            "legend.frameon": False,
            "svg.hashsalt": "lvlm-study",
        }
    )


def colour(saliency: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Saliency (H, W) to RGBA (H, W, 4) in [0, 1]: clear at `vmin`, four fifths opaque at `vmax`.

    Opacity rises with the square root, so that a map at a third of the scale is still seen on a
    busy picture; the value itself is told by the colour alone. A scale around 0 (`vmin` = -`vmax`)
    has two colours and is clear at 0, in proportion: a root would draw a line along every zero.
    """
    part = share(saliency, vmin, vmax)  # (H, W), in [0, 1]
    rgba = matplotlib.colormaps[colours_of(vmin, vmax)](part)
    rgba[..., 3] = 0.8 * (abs(2 * part - 1) if around_zero(vmin, vmax) else np.sqrt(part))
    return rgba


def around_zero(vmin: float, vmax: float) -> bool:
    """Whether a scale is one for signed maps."""
    return vmin < 0 and vmin == -vmax


def colours_of(vmin: float, vmax: float) -> str:
    """matplotlib's name for the colours of a scale."""
    return SIGNED if around_zero(vmin, vmax) else CMAP


def gradient(vmin: float, vmax: float) -> str:
    """The colours of a scale, from its low to its high end, as CSS."""
    stops = matplotlib.colormaps[colours_of(vmin, vmax)](np.linspace(0, 1, 9))
    return f"linear-gradient(90deg,{','.join(map(matplotlib.colors.to_hex, stops))})"


def own_scale(saliency: np.ndarray) -> tuple[float, float] | None:
    """(vmin, vmax) for a map that stands alone; None where it has the same value everywhere.

    It ends at the `QUANTILE` of |map|, so that one outlier cannot darken the rest (at the largest
    value where less of the map than that is not 0), and begins at 0, or at minus the end where
    the map has values below 0.
    """
    size = np.abs(saliency, dtype=np.float64)
    if np.ptp(saliency) <= 1e-6 * size.max():
        return None
    end = float(np.quantile(size, QUANTILE)) or float(size.max())
    return (-end if saliency.min() < -FAINT * end else 0.0), end


def share(saliency: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Where each value lies between `vmin` and `vmax`, as [0, 1]; values outside are clipped."""
    if not (math.isfinite(vmin) and math.isfinite(vmax) and vmin < vmax):
        raise StudyError(f"A colour scale needs vmin < vmax, both finite, not {vmin} and {vmax}.")
    return np.clip((np.asarray(saliency, np.float64) - vmin) / (vmax - vmin), 0, 1)


def overlay(ax, rgb, saliency, vmin: float, vmax: float, title: str = "", bar: bool = True):
    """Draw a map over its picture; returns the axes.

    `rgb` is uint8 (H, W, 3), `saliency` float (H, W) in the same pixels, high = important. Give the
    same `vmin` and `vmax` to every map that a reader may compare. `ax=None` makes a new figure.
    """
    rgb, saliency = np.asarray(rgb), np.asarray(saliency)
    if saliency.shape != rgb.shape[:2]:
        raise StudyError(
            f"The map is {saliency.shape} but its picture is {rgb.shape[:2]}; "
            "pass Explanation.saliency, which has the picture's size."
        )
    colours = colour(saliency, vmin, vmax)
    ax = ax if ax is not None else plt.subplots(layout="constrained")[1]
    ax.imshow(rgb)
    ax.imshow(colours)
    ax.set_axis_off()
    ax.set_title(title)
    if bar:
        scale_bar(ax, vmin, vmax)
    return ax


def picture(ax, rgb, title: str = "", size: str = "x-small") -> None:
    """A picture without axes, with what is to be said about it on top."""
    ax.imshow(rgb)
    ax.set_axis_off()
    ax.set_title(title, fontsize=size)


def outline(ax, evidence) -> None:
    """The edge of the evidence (H, W) over a picture: seen on light and on dark ground."""
    for colour, width in (("white", 3), ("black", 1.2)):
        ax.contour(evidence, [0.5], colors=[colour], linewidths=width)


def scale_bar(ax, vmin: float, vmax: float, label: str = "saliency"):
    """The colour scale of `overlay` beside `ax` (an axes, or a list of axes that share it)."""
    scale = matplotlib.cm.ScalarMappable(Normalize(vmin, vmax), colours_of(vmin, vmax))
    figure = (ax if hasattr(ax, "figure") else np.ravel(ax)[0]).figure
    return figure.colorbar(scale, ax=ax, label=label, shrink=0.8)


def overlay_image(rgb, saliency, vmin: float, vmax: float) -> np.ndarray:
    """The same blend as `overlay`, pixel for pixel, as uint8 (H, W, 3): for PNG files."""
    colours = colour(saliency, vmin, vmax)  # (H, W, 4)
    alpha = colours[..., 3:]  # (H, W, 1)
    mixed = np.asarray(rgb) * (1 - alpha) + 255 * colours[..., :3] * alpha
    return mixed.round().astype(np.uint8)


def show_table(frame, caption: str, name: str, digits: int = 3):
    """A data frame as a numbered table of the book, referred to by {numref}`name`.

    Returns a Markdown object for the last line of a cell that has `markdown_format: myst` in its
    `mystnb` settings. A missing value is shown as a dash, never as an empty cell.
    """
    from IPython.display import Markdown

    return Markdown(f":::{{table}} {caption}\n:name: {name}\n\n{markdown(frame, digits)}\n:::")


def markdown(frame, digits: int = 3) -> str:
    """A data frame as a Markdown table: numbers to the right, floats with `digits` decimals."""
    if frame.columns.nlevels > 1:
        raise StudyError("A table needs plain column names; join the levels first.")
    sides = ["--:" if frame[c].dtype.kind in "iuf" else ":--" for c in frame.columns]
    lines = [_row(frame.columns, digits), _row(sides, digits)]
    lines += [_row(row, digits) for row in frame.itertuples(index=False, name=None)]
    return "\n".join(lines)


def _row(values, digits: int) -> str:
    return "| " + " | ".join(_cell(value, digits) for value in values) + " |"


def _cell(value, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}".replace("-", "−")
    return str(value).replace("|", r"\|").replace("\n", " ")


def marked_tokens_html(tokens, weights, crucial, vmax: float | None = None) -> str:
    """The answer as HTML: each token shaded by its weight, the crucial ones underlined and bold.

    `weights` are log-likelihood ratios (A,) in nats; shading starts at 0 and is full at `vmax`
    (default: the largest weight). The weight is also in the hover text and the mark does not
    depend on colour, so that nothing is lost without it.
    """
    weights = np.asarray(weights, np.float64)
    if not len(tokens) == len(weights) == len(crucial):
        raise StudyError(
            f"Tokens, weights and marks must be as many: {len(tokens)}, {len(weights)}, "
            f"{len(crucial)}."
        )
    top = vmax if vmax is not None else max(float(np.nanmax(weights, initial=0.0)), 1e-9)
    marks = zip(tokens, share(np.nan_to_num(weights), 0.0, top), weights, crucial, strict=True)
    return f'<div class="tokens">{"".join(_token(*mark) for mark in marks)}</div>'


def _token(token: str, strength: float, weight: float, crucial) -> str:
    red, green, blue, _ = matplotlib.colormaps[CMAP](strength, bytes=True)
    style = f"background: rgba({red}, {green}, {blue}, {0.45 * strength:.2f})"
    kind = "token crucial" if crucial else "token"
    hover = f"log-likelihood ratio {weight:.2f}{', crucial' if crucial else ''}"
    word = token.lstrip()
    space = html.escape(
        token[: len(token) - len(word)]
    )  # outside, so that words stand apart evenly
    return f'{space}<span class="{kind}" style="{style}" title="{hover}">{html.escape(word)}</span>'


# --- panels: what several chapters draw alike -----------------------------------------------------

ROW = 0.24  # inches for one line of a dot plot
PANELS = 4  # dot plots beside each other
ENDS = ("value", "low", "high")


def nothing_yet(words: str = "not yet run"):
    """An empty figure that says that nothing has been run."""
    figure, ax = plt.subplots(figsize=(0.6 * WIDTH, 0.8), layout="constrained")
    ax.text(0.5, 0.5, words, ha="center", va="center")
    ax.set_axis_off()
    return figure


def when_run(draw):
    """Draw if the first table has rows, else say that nothing has been run."""

    @functools.wraps(draw)
    def or_not(frame, *args, **options):
        if frame is None or len(frame) == 0:
            return nothing_yet()
        figure = draw(frame, *args, **options)
        return nothing_yet() if figure is None else figure

    return or_not


def grid(count: int, high: float, columns: int = 3, wide: float = WIDTH, **shared):
    """`count` axes, at most `columns` beside each other, `high` inches a line: (figure, axes).

    They share the y axis unless `sharey=False`; `sharex=True` shares the other one too.
    """
    columns = max(1, min(count, columns))
    rows = max(1, -(-count // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(wide, rows * high), squeeze=False, layout="constrained",
        **{"sharey": True} | shared,
    )  # fmt: skip
    for ax in axes.ravel()[count:]:
        ax.remove()
    return figure, axes.ravel()[: max(count, 1)]


def panels(count: int, lines: int, sharex: bool | str = True, columns: int = PANELS):
    """`count` dot plots of `lines` dots, at most `columns` beside each other: (figure, axes)."""
    return grid(count, ROW * lines + 0.7 + 0.2 / -(-count // columns), columns, sharex=sharex)


def ends(found) -> tuple[float, float, float]:
    """(value, low, high) of an estimate, its part of a tree, or three numbers; NaN for nothing."""
    if found is None:
        return (math.nan,) * 3
    if isinstance(found, dict):
        found = [found.get(name) for name in ENDS]
    elif hasattr(found, "value"):
        found = [getattr(found, name) for name in ENDS]
    return tuple(math.nan if x is None else float(x) for x in found)


def dots(
    ax, found, names=(), places=None, colour="C0", marker="o", hollow=False, upright=False, label=""
) -> None:
    """Values with their intervals, one below the other: the dots of every chapter.

    `found` has one entry a place: whatever `ends` reads, so that a tree, an estimate and three
    columns of a table draw alike. No value leaves its place empty, no interval its dot alone.
    `names` label the places on the left, the first on top. `colour`, `marker` and `hollow` are one
    for all or a list, one a place; `label` is for the legend. `places` (default 0, 1, ...) may be
    moved a little for a second group of dots, or lie on a scale of their own; `upright` sets values
    on the y axis.
    """
    count = len(found)
    places = range(count) if places is None else places
    looks = ([x] * count if not isinstance(x, list) else x for x in (colour, marker, hollow))
    for one, place, shade, mark, empty in zip(found, places, *looks, strict=True):
        value, low, high = ends(one)
        if math.isnan(value):
            continue
        line, dot = ([low, high], [place] * 2), ([value], [place])
        look = {"color": shade, "mfc": "white" if empty else shade, "ms": 5, "label": label}
        if not math.isnan(low):
            ax.plot(*(line[::-1] if upright else line), color=shade, linewidth=1.6)
        ax.plot(*(dot[::-1] if upright else dot), mark, **look)
        label = ""  # once in the legend
    if len(names):
        ax.set_yticks(range(len(names)), names, fontsize="small")
        ax.set_ylim(len(names) - 0.4, -0.6)


def chance_line(ax, at: float, upright: bool = False) -> None:
    """Where a map that knows nothing would be; across for `upright` dots."""
    draw = ax.axhline if upright else ax.axvline
    draw(at, color="0.3", linestyle=":", linewidth=1)


def legend_below(figure, ax, columns: int = 3, **options) -> None:
    """One legend for all panels, with the marks of one of them."""
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncol=columns, **options
    )


def stacked(ax, shares, styles: dict) -> None:
    """A bar a row of `shares`, per cent by column, the first on top; styles are (colour, hatch)."""
    left = np.zeros(len(shares))
    for name, (shade, hatch) in styles.items():
        part = shares[name].to_numpy(float)
        look = {"color": shade, "hatch": hatch, "edgecolor": "white", "label": name}
        ax.barh(shares.index, part, left=left, **look)
        left = left + part
    ax.set(xlabel="% of items", xlim=(0, 100), ylim=(len(shares) - 0.4, -0.6))


def heat(ax, table, label: str, form: str = ".2f") -> None:
    """A table of numbers on the colours of the maps, each number written in."""
    import seaborn as sns

    sns.heatmap(
        table.astype(float), annot=True, fmt=form, cmap="cividis", ax=ax, cbar_kws={"label": label},
        annot_kws={"fontsize": "small"},
    )  # fmt: skip
    middle = sum(ax.collections[0].get_clim()) / 2
    for text in ax.texts:  # seaborn writes white on the greys of the middle, which nobody can read
        text.set_color("black" if float(text.get_text()) >= middle else "white")
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
