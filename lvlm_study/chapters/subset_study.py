"""What SpriteVQA's controlled subsets say about the models: pairs, priors, another style.

`lvlm-study run --benchmarks sprites_pairs,sprites_prior,sprites_flat --methods none --results
RESULTS/subsets` answers them, and `lvlm-study summarise` writes the summary, `subsets.json`, beside
those of the other chapters. An answer counts as right if it equals the reference word for word.
"""

import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..benchmarks.sprite_subsets import PRIOR_ARMS, prior_scores
from ..metrics.statistics import estimate, share
from ..sweep.tables import read_table
from .ch14_zoo import told
from .summaries import Tables, interval, number

FOLDER = "subsets"  # of its tables, inside a results folder: no other chapter reads them
STYLES = {"shaded": "sprites", "flat": "sprites_flat", "outline": "sprites_outline"}


def answered(reliance: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """One row a model and item of a benchmark: the item, `right`, `ratio` (nats, blur) and more.

    `ratio` is the summed log-likelihood ratio of the answer, its need of the picture. What the
    subset knows of an item (pair, triple, arm) is in columns of that name.
    """
    rows = reliance[(reliance.benchmark == benchmark) & (reliance.baseline == "blur")]
    known = {item.id: item for item in load_benchmark(benchmark)}
    return pd.DataFrame(
        {
            "model": row.model,
            "item": row.item,
            "right": row.answer == known[row.item].reference,
            "ratio": float(sum(row.llr)),
        }
        | {k: known[row.item].extra.get(k) for k in ("pair", "triple", "arm")}
        for row in rows[rows.llr.notna()].itertuples()  # an empty answer has no ratio
    )


def of_pairs(part: pd.DataFrame) -> dict:
    """Answers one by one, and pairs of which both are right, with Wilson intervals (%)."""
    pairs = part.groupby("pair").right
    whole = pairs.all()[pairs.size() == 2]
    single = share(int(part.right.sum()), len(part))
    return {"single": single, "both": share(int(whole.sum()), len(whole))}


def of_prior(part: pd.DataFrame) -> dict:
    """{arm: right (%), mean ratio (nats)}, and how often the picture matters more against a guess.

    `conflict` is the share of scenes (%) where P- needs the picture more than P+; without a prior
    it is 50.
    """
    table = part.pivot(index="triple", columns="arm", values="ratio")
    table = table.reindex(columns=list(PRIOR_ARMS)).dropna()
    if table.empty:
        return {"arms": {}, "conflict": share(0, 0), "triples": 0}
    whole = part[part.triple.isin(table.index)]
    items = {item.id: item for item in load_benchmark("sprites_prior")}
    scores = prior_scores([items[name] for name in whole["item"]], whole.ratio.tolist())
    arms = {
        arm: share(int(some.right.sum()), len(some)) | {"ratio": interval(some.ratio)}
        for arm, some in whole.groupby("arm")
    }
    more = 100 * (np.sign(table["P-"] - table["P+"]) + 1) / 2  # a tie counts half
    found = estimate(more)
    against = {"percent": 100 * scores["conflict"]}
    against |= {"low": number(found.low), "high": number(found.high)}
    return {"arms": arms, "conflict": against, "triples": len(table)}


def summary(tables: Tables) -> dict:
    """`subsets.json`: {model: {"pairs", "prior", "styles"}}, {} before anything has been run."""
    rows = read_table(tables.results / FOLDER, "reliance")
    if rows.empty:
        return {}
    models: dict = {}
    for benchmark, name, tell in (
        ("sprites_pairs", "pairs", of_pairs),
        ("sprites_prior", "prior", of_prior),
    ):
        for model, part in _by_model(rows, benchmark):
            models.setdefault(model, {})[name] = tell(part)
    both = pd.concat([tables.reliance, rows])
    for style, benchmark in STYLES.items():
        for model, part in _by_model(both[both.model.isin(list(models))], benchmark):
            found = share(int(part.right.sum()), len(part))
            models[model].setdefault("styles", {})[style] = found
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    return {"provenance": own.origin(rows), "models": models}


def _by_model(rows: pd.DataFrame, benchmark: str):
    found = answered(rows, benchmark)
    return found.groupby("model") if len(found) else ()


def table(tree: dict) -> pd.DataFrame:
    """The page's table of `subsets.json`: a row a model, per cent with 95 % intervals."""
    return pd.DataFrame([{"member": name} | _row(found) for name, found in tree["models"].items()])


def _row(found: dict) -> dict:
    row = {}
    if pairs := found.get("pairs"):
        row |= {"pairs, one by one": told(pairs["single"]), "pairs, both": told(pairs["both"])}
    if prior := found.get("prior"):
        row |= {f"prior, {arm}": told(cell) for arm, cell in prior["arms"].items()}
        row["P- above P+"] = told(prior["conflict"])
    return row | {name: told(cell) for name, cell in found.get("styles", {}).items()}
