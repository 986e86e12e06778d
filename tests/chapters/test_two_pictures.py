"""Chapter 01's two pictures: which of them an answer rests on, and where in it maps lie."""

import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch01_two_pictures as two

ITEMS = load_benchmark("sprites_two")


def row(item, llr, verdict="correct"):
    told = {"benchmark": "sprites_two", "baseline": "blur", "item": item.id, "llr": llr}
    return told | {"crucial": [value > 1 for value in llr], "verdict": verdict}


def test_a_prompt_is_told_by_its_two_pictures():
    """Of the first two prompts the object is in the first picture, then in the second."""
    rows = [row(ITEMS[0], [3.0, 0.5]), row(ITEMS[1], [0.25, 0.25])]
    rows += [row(ITEMS[2], [0.0, -0.5], "wrong"), row(ITEMS[3], [2.0, 2.0], "wrong")]
    rows.append(row(ITEMS[4], [1.0, 1.0]))  # its other half was not asked
    one, other = two.prompts(pd.DataFrame(rows)).to_dict("records")
    assert one == {
        **{"prompt": ITEMS[0].extra["picture"], "holder": 3.5, "other": 0.5},
        **{"told": True, "other_told": False, "first": True, "right": True},
    }
    assert (other["holder"], other["other"], other["first"], other["right"]) == (
        4,
        -0.5,
        False,
        False,
    )


def test_places_are_compared_on_the_items_that_all_methods_have():
    rows = [("a", "occlusion", 0.9), ("b", "occlusion", 0.7), ("c", "occlusion", 0.1)]
    rows += [("a", "difference", 0.6), ("b", "difference", 0.8), ("c", "difference", float("nan"))]
    found = two.places(pd.DataFrame(rows, columns=["item", "method", "auc"]))
    assert list(found) == ["occlusion", "difference"]
    assert [one.value for one in found.values()] == pytest.approx([0.8, 0.7])
    assert all(one.n == 2 for one in found.values())
