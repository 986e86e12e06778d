"""Chapter 12: how few answers the chapter on focus and correctness rests on."""

from ..figures import panels


def thin_figure(found: dict):
    """Bars of one ground of `correctness.json`: answers without a map, a region, or wrong."""
    counts = {name: found["counts"][name] for name in ("no map", "no region")}
    counts["wrong, with a map"] = found["counts"]["wrong, on"] + found["counts"]["wrong, off"]
    figure, (ax,) = panels(1, len(counts))
    ax.bar_label(ax.barh(list(counts), list(counts.values())), padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set_xlabel(f"answers, of {found['n']}")
    return figure
