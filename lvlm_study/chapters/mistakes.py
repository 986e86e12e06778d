"""Where the members go wrong: the wrong answers of the test set, and what they have in common.

Read from the tables of reliance, where every answer stands with its verdict.
"""

import pandas as pd

from ..scenes.questions import NUMBERS

ASKED = (1, 2, 3, 4)  # the counts of the test set
COLUMNS = ("model", "item", "category", "question", "answer", "truth", "missed_by")


def wrong(rows: pd.DataFrame, items) -> pd.DataFrame:
    """One row a wrong answer: model, item, category, question, answer, truth, missed_by.

    `items` are those of the test set; `missed_by` counts the members that miss the item. Rows keep
    the order of the table, in which items were dealt once for all members.
    """
    truth = {item.id: item.reference for item in items}
    once = rows[rows.item.isin(list(truth))].drop_duplicates(["model", "item"])
    bad = once[once.verdict == "wrong"]
    bad = bad.assign(
        truth=bad.item.map(truth), missed_by=bad.groupby("item").model.transform("size")
    )
    return bad[list(COLUMNS)].reset_index(drop=True)


def summary(bad: pd.DataFrame) -> dict:
    """The mistakes in a few numbers: how many, in which category, how many are shared."""
    per_category = bad.category.value_counts()
    out = {"wrong": len(bad), "items": bad.item.nunique()}
    out["shared"] = bad.item[bad.missed_by > 1].nunique()
    if len(bad):
        out["hardest"] = str(per_category.index[0])
        out["hardest_percent"] = 100 * int(per_category.iloc[0]) / len(bad)
    return out | counting(bad)


def counting(bad: pd.DataFrame) -> dict:
    """How often a wrong count is off by one, and how often it would be if it were a random one."""
    asked = bad[bad.category == "counting"]
    pairs = [(number(a), number(t)) for a, t in zip(asked.answer, asked.truth, strict=True)]
    counts = [(a, t) for a, t in pairs if a is not None and t is not None]
    if not counts:
        return {"counts": 0}
    near = [sum(abs(k - t) == 1 for k in ASKED) for _, t in counts]
    return {
        "counts": len(counts),
        "off_by_one": sum(abs(a - t) == 1 for a, t in counts),
        "off_by_one_percent": 100 * sum(abs(a - t) == 1 for a, t in counts) / len(counts),
        "off_by_one_by_chance": 100 * sum(near) / (len(ASKED) - 1) / len(counts),
        "too_many": sum(a > t for a, t in counts),
    }


def number(text: str) -> int | None:
    """The number in an answer about a count ("There are three cats." is 3); None without one."""
    words = text.lower().rstrip(".").split()
    return next((NUMBERS.index(word) for word in words if word in NUMBERS), None)
