"""Parts of a map: recovered from maps that were put together from known ones."""

import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study.metrics.components import (
    parts,
    picture_parts,
    standardised,
    unit,
    without,
)
from lvlm_study.metrics.plausibility import rank_correlation
from lvlm_study.metrics.statistics import estimate

SHARES = {"picture": 0.4, "question": 0.1, "model": 0.05, "method": 0.2, "question,method": 0.1}


def put_together(shares: dict[str, float], pictures=60, cells=400, seed=0):
    """Maps of 3 questions, 3 models and 3 methods that share what `shares` says, and noise."""
    random, effects = np.random.default_rng(seed), {}
    levels = [(q, m, k) for q in "abc" for m in "def" for k in "ghi"]
    rows, maps = [], []
    for picture in range(pictures):
        for q, m, k in levels:
            who = {"question": q, "model": m, "method": k}
            value = np.zeros(cells)
            for name, share in shares.items():
                key = (picture, name, *(who[f] for f in name.split(",") if f in who))
                if key not in effects:
                    effects[key] = random.normal(size=cells)
                value += np.sqrt(share) * effects[key]
            value += np.sqrt(1 - sum(shares.values())) * random.normal(size=cells)
            maps.append(value)
            rows.append(who | {"picture": picture})
    maps = np.stack(maps) - np.mean(maps, 1, keepdims=True)
    return maps / np.linalg.norm(maps, axis=1, keepdims=True), pd.DataFrame(rows)


def test_known_parts_are_found():
    found = {
        name: estimate(values, draws=200)
        for name, values in picture_parts(*put_together(SHARES)).items()
    }
    for name, one in found.items():
        true = SHARES.get(name, 1 - sum(SHARES.values()) if name == "rest" else 0.0)
        assert one.value == pytest.approx(true, abs=0.015), name
        assert one.low - 0.01 < true < one.high + 0.01, name
    assert sum(e.value for e in found.values()) == pytest.approx(1)


def test_parts_by_hand():
    shared = {"": 0.3, "question": 0.4, "model": 0.3, "method": 0.5}
    shared |= {"question,model": 0.4, "question,method": 0.7, "model,method": 0.5}
    found = parts(shared)
    assert [found[name] for name in ("picture", "question", "model", "method")] == pytest.approx(
        [0.3, 0.1, 0, 0.2]
    )
    assert found["question,method"] == pytest.approx(0.1)
    assert found["rest"] == pytest.approx(0.3)


def test_pairs_that_are_missing_are_told():
    refuses("share exactly the picture", parts, {"question": 0.1})


def test_two_factors_and_pictures_that_lack_a_kind_of_pair():
    maps, about = put_together({"picture": 0.5, "question": 0.2}, pictures=3)
    some = about.method == "g"
    lone = some & ~((about.picture == 2) & (about.model != "d"))  # picture 2 has one model only
    found = picture_parts(maps[lone], about[lone], ("question", "model"))
    assert found.index.tolist() == [0, 1]
    assert list(found) == ["picture", "question", "model", "rest"]
    assert found.sum(axis=1).tolist() == pytest.approx([1, 1])
    assert found.picture.mean() == pytest.approx(0.5, abs=0.1)


def test_a_product_is_the_rank_correlation_of_the_study():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 21, 35))
    a, b, large = standardised([one, other, np.kron(other, np.ones((2, 2)))], grid=8)
    assert a @ b == pytest.approx(rank_correlation(one, other, 8))
    assert b == pytest.approx(large)


def test_ranks_have_no_scale_and_a_flat_map_has_no_order():
    ramp = np.arange(64.0).reshape(8, 8)
    one, other, flat = standardised([ramp, np.exp(ramp / 9), np.ones((8, 8))])
    assert one == pytest.approx(other) and one @ one == pytest.approx(1)
    assert np.isnan(flat).all()


def test_what_is_known_is_taken_away():
    random = np.random.default_rng(0)
    known = random.normal(size=(2, 64))
    known -= known.mean(1, keepdims=True)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    apart = without(np.stack([known[0], random.normal(size=64)]), known)
    assert np.abs(apart[0]).max() < 1e-12
    assert apart[1] @ known.T == pytest.approx(np.zeros(2))
    assert np.isnan(unit(apart)[0]).all() and np.linalg.norm(unit(apart)[1]) == pytest.approx(1)
