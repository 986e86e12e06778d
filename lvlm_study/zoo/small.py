"""Small objects: does a member that sees more detail answer more questions about them?

A question is about something small when the smallest object that decides its answer is no larger
than the lower quartile of the objects in attribute questions, which ask about one object each.
The rule reads pictures and no answers. A member that sees more than one view, or more pixels, is
compared with the member that sees one view and has a language model of the same size, question by
question.
"""

import pandas as pd

from ..benchmarks.sprites import sprites
from ..metrics.statistics import holm, paired_test
from ..scenes import scenes
from .members import RECIPES

ONE_VIEW = ("llava-1.5", "misled")  # families that see one small picture
LEVEL = 0.05


def smallest() -> pd.DataFrame:
    """item, category and area (pixels) of the smallest object that decides each test question.

    Questions that no object decides (about the whole place, or about what is absent) are left out.
    """
    rows = []
    for item in sprites():
        areas = [scenes.mask(item.extra["scene"], i).sum() for i in item.extra["objects"] or ()]
        if areas:
            rows.append({"item": item.id, "category": item.category, "area": int(min(areas))})
    return pd.DataFrame(rows)


def limit(sizes: pd.DataFrame) -> float:
    """The largest area that counts as small: lower quartile over the attribute questions."""
    return float(sizes.area[sizes.category == "attribute"].quantile(0.25))


def reference(name: str) -> str | None:
    """The one-view member that `name` has to beat: same size of language model; or None."""
    short, _, _ = name.removeprefix("mini/").partition("-seed")
    recipe = RECIPES.get(short)
    if recipe is None or recipe.family in ONE_VIEW or recipe.first is None:
        return None
    return f"mini/{recipe.first}"


def compare(rows: pd.DataFrame, sizes: pd.DataFrame | None = None) -> dict:
    """Each member on small objects and on the others, and against its one-view reference.

    `rows` is the table of reliance: one verdict a model and item. Differences are in percentage
    points, paired by question (sign-flip test, bootstrap interval), p-values after Holm over all
    members that are compared. `verdict` is "beats", "does not beat" or "falls behind".
    """
    sizes = smallest() if sizes is None else sizes
    most = limit(sizes)
    once = rows[rows.benchmark == "sprites"].drop_duplicates(["model", "item"])
    joined = once[["model", "item", "verdict"]].merge(sizes, on="item")
    right = joined.assign(right=joined.verdict == "correct", small=joined.area <= most)
    members = {str(name): _shares(part) for name, part in right.groupby("model")}
    for name, found in members.items():
        other = reference(name)
        if other in members:
            found["against"] = {"member": other, **_paired(right[right.small], name, other)}
    pairs = [m["against"] for m in members.values() if "against" in m]
    _correct(pairs)
    return {
        "pixels": most,
        "picture_percent": 100 * most / scenes.SIDE**2,
        "n": int((sizes.area <= most).sum()),
        "compared": len(pairs),
        "beating": sum(pair["verdict"] == "beats" for pair in pairs),
        "behind": sum(pair["verdict"] == "falls behind" for pair in pairs),
        "members": members,
    }


def _shares(part: pd.DataFrame) -> dict:
    from ..metrics.statistics import share

    sides = {"small": part[part.small], "larger": part[~part.small]}
    return {k: share(int(v.right.sum()), len(v)) for k, v in sides.items() if len(v)}


def _paired(right: pd.DataFrame, name: str, other: str) -> dict:
    """Right answers of one member minus another's on the questions that both answered."""
    wide = right.pivot(index="item", columns="model", values="right")[[name, other]].dropna()
    mine, theirs = (wide[m].to_numpy(float) for m in (name, other))
    found = paired_test(100 * mine, 100 * theirs).where_enough()
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "n": found.n,
        "only_this": int((mine > theirs).sum()),
        "only_other": int((mine < theirs).sum()),
    }


def _correct(pairs: list[dict]) -> None:
    """Add Holm's p-values and what they say, in place."""
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = float(p)
        told = "beats" if pair["difference"] > 0 else "falls behind"
        pair["verdict"] = told if p < LEVEL else "does not beat"


def sentence(name: str, found: dict) -> str:
    """What a member's card says about small objects; "" for one that was not measured."""
    mine = found["members"].get(name)
    if mine is None or "small" not in mine:
        return ""
    text = (
        f"Small objects: of the {mine['small']['n']} test questions whose smallest deciding object "
        f"covers at most {found['pixels']:.0f} pixels ({found['picture_percent']:.1f} % of the "
        f"picture), {_told(mine['small'])} % are answered rightly"
    )
    text += f", of the others {_told(mine['larger'])} %." if "larger" in mine else "."
    return text + _against(mine["against"]) if "against" in mine else text


def _against(pair: dict) -> str:
    p = "< 0.01" if pair["p_holm"] < 0.01 else f"= {pair['p_holm']:.2f}"
    return (
        f" It {pair['verdict']} {pair['member']}, which sees one view, on the small ones: "
        f"{pair['difference']:+.1f} points [{pair['low']:+.1f}, {pair['high']:+.1f}], alone right "
        f"{pair['only_this']} times against {pair['only_other']}, p {p} "
        "(sign-flip test by question, after Holm)."
    )


def _told(cell: dict) -> str:
    return f"{cell['percent']:.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"
