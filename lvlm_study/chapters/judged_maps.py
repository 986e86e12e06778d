"""What lookers said of maps, by method, beside what the evidence says of the same maps.

`data/annotations` holds the files that `annotate.widget` and `annotate.Session` write. A looker
never sees whose map it is; here every choice meets its row of the results again, by its number.
Only pictures on which some region decides are compared with a rule (`ch07_correctness.RULES`).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..heatmaps.names import PAPER_METHOD
from ..metrics.statistics import estimate
from ..paths import data_dir
from . import annotate
from . import ch07_correctness as correctness
from .ch07_correctness import difference_interval
from .summaries import number


def annotations(folder: Path | None = None) -> pd.DataFrame:
    """The choices that stand in the end in all files of a folder (default: data/annotations).

    No rows when nobody has annotated. Raises StudyError for a CSV file that is something else.
    """
    folder = Path(folder or data_dir() / "annotations")
    files = [annotate.read(path) for path in sorted(folder.glob("*.csv"))]
    return annotate.standing(pd.concat([annotate.read(folder / "none.csv"), *files]))


def met(log: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """One row a looker and picture: what was said, of which map, and what each rule says of it.

    `stored` is a `stored_maps` table. Columns `right` and `covered` hold the choices, `verdict` the
    known one, and one column a rule whether the map is on the evidence (None: no region decides).
    Choices about maps that are not in these results are left out. A question that a looker has not
    answered is NaN, and counts nowhere.
    """
    about = stored[stored.status == "ok"].copy()
    about["task"] = [annotate.number_of(row) for row in about.itertuples()]
    for rule in correctness.RULES:
        sorted_ = correctness.sorted_rows(about, rule)
        placed = sorted_[sorted_.quadrant.isin(correctness.QUADRANTS)]
        about[rule] = placed.on.reindex(about.index).astype(object)
    wide = log.pivot(index=["annotator", "task"], columns="about", values="choice").reset_index()
    columns = ["task", "model", "method", "item", "category", "verdict", *correctness.RULES]
    return wide.merge(about[columns], on="task", validate="many_to_one")


def by_method(said: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Share of maps that cover what is needed, by method: to the eye, and by each rule.

    Pictures with a region alone. `eye` is the share of choices that say yes (unsure is not yes),
    with its bootstrap interval over items; the rules judge the same pictures.
    """
    placed, out = said[said.pointing.notna() & said.covered.notna()], []
    for method, part in placed.groupby("method", sort=False):
        eye = estimate(part.covered == "yes", clusters=part.item, seed=seed)
        once = part.drop_duplicates("task")
        row = {
            "method": method,
            "pictures": len(once),
            "unsure": int((part.covered == "unsure").sum()),
        }
        row |= {"eye": eye.value, "low": eye.low, "high": eye.high}
        out.append(row | {rule: float(once[rule].mean()) for rule in correctness.RULES})
    columns = ["method", "pictures", "unsure", "eye", "low", "high", *correctness.RULES]
    return pd.DataFrame(out, columns=columns).sort_values("eye", ascending=False, ignore_index=True)


def apart(said: pd.DataFrame, one: str, other: str, seed: int = 0) -> dict:
    """Share of maps that cover to the eye, method `one` minus `other`, with its 95 % interval.

    Whole items are drawn anew, with all their pictures and lookers. {} where one of the two
    methods was not judged.
    """
    placed = said[said.pointing.notna() & said.covered.notna()]
    both = placed[placed.method.isin([one, other])]
    if both.method.nunique() < 2:
        return {}
    on, yes = (both.method == one).to_numpy(), (both.covered == "yes").to_numpy()
    low, high = difference_interval(on, yes, pd.factorize(both.item)[0], seed=seed)
    value = yes[on].mean() - yes[~on].mean()
    return {"value": number(value), "low": number(low), "high": number(high)}


def beside_rules(said: pd.DataFrame) -> pd.DataFrame:
    """How far each looker agrees with each rule, and with the known answer, beyond chance.

    One row a looker and standard: `n` choices that are not unsure, share the `same`, Cohen's
    `kappa` with its interval.
    """
    out = []
    for who, part in said.groupby("annotator"):
        for rule in correctness.RULES:
            placed = part[part[rule].notna()]
            out.append({"looker": who, "beside": rule} | _same(placed.covered, placed[rule]))
        known = part[part.verdict.isin(["correct", "wrong"])]
        out.append(
            {"looker": who, "beside": "known answer"}
            | _same(known.right, known.verdict == "correct")
        )
    return pd.DataFrame(out)


def summary(log: pd.DataFrame, stored: pd.DataFrame) -> dict:
    """All of it as a tree for `correctness.json`; {} where no annotated map is in these results."""
    if log.empty:
        return {}
    said = met(log, stored)
    if said.empty:
        return {}
    agreed = (
        annotate.agreement(log[log.task.isin(said.task)]) if said.annotator.nunique() > 1 else None
    )
    return {
        "lookers": sorted(said.annotator.unique()),
        "n": int(said.task.nunique()),
        "methods": _plain(by_method(said), ["method"]),
        "igos_minus_sobel": apart(said, PAPER_METHOD, "sobel"),
        "rules": _plain(beside_rules(said), ["looker", "beside"]),
        "agreement": {} if agreed is None else _plain(agreed, ["question"]),
    }


def _plain(table: pd.DataFrame, by: list[str]) -> dict:
    """{"looker, rule": {column: number or None}}."""
    rows = table.set_index(table[by].agg(", ".join, axis=1)).drop(columns=by)
    return {
        name: {key: number(value) for key, value in row.items()}
        for name, row in rows.to_dict("index").items()
    }


def _same(choices: pd.Series, true: pd.Series) -> dict:
    sure = choices.isin(["yes", "no"]).to_numpy()
    said = np.where(choices[sure] == "yes", "yes", "no")
    want = np.where(true[sure].astype(bool), "yes", "no")
    kappa, low, high = annotate.cohens_kappa(said, want)
    same = float((said == want).mean()) if len(said) else np.nan
    return {"n": len(said), "same": same, "kappa": kappa, "low": low, "high": high}
