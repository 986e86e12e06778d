"""Orders compared: equal, opposite, none; items drawn anew."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.metrics import ranks


def test_ranks_of_rows():
    """Equal orders 1, opposite ones -1; a row without an order has no number."""
    rows = np.array([[1.0, 2, 3], [1, 2, 3], [5, 5, 5]])
    found = ranks.spearman(rows, np.array([[1.0, 8, 27], [0, -1, -2], [1, 2, 3]]))
    assert found[:2] == pytest.approx([1, -1]) and np.isnan(found[2])


@pytest.mark.usefixtures("few_have_ends")
def test_agreement_of_ranks():
    one = pd.DataFrame(
        {"a": [3.0, 4, 5], "b": [2.0, 2, 2], "c": [1.0, 0, 1], "d": [np.nan, 9, np.nan]}
    )
    same = ranks.rank_agreement(one, 10 * one)
    assert same == {"value": 1.0, "low": 1.0, "high": 1.0, "methods": 3, "n": 3}
    assert ranks.rank_agreement(one, -one)["value"] == pytest.approx(-1.0)
    assert ranks.rank_agreement(one[["a", "b"]], one)["value"] is None


def test_resampled_means():
    found = ranks.means(pd.DataFrame({"a": [1.0, 3.0], "b": [5.0, 5.0]}), draws=100)
    assert found[0].tolist() == [2.0, 5.0]
    assert set(found[1:, 0]) == {1.0, 2.0, 3.0} and set(found[:, 1]) == {5.0}


def test_within_items_and_within_methods():
    gap = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 3, 4], "c": [3.0, 4, 5]})
    truth = pd.DataFrame({"a": [3.0, 2, 1], "b": [4.0, 3, 2], "c": [5.0, 4, 3]})
    assert ranks.within_items(gap, truth).value == pytest.approx(1.0)
    assert ranks.within_methods(gap, truth).value == pytest.approx(-1.0)
