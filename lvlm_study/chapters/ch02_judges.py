"""Three more judges of a map: what corrects a wrong answer, picture and words together, ROAD.

The first two are measured by `tools/measures.py`, which writes `measures.json`; ROAD is a fill of
deletion and insertion like any other, whose rows lie in a folder of their own.
"""

import pandas as pd

from ..heatmaps.names import title
from ..metrics.ranks import complete, rank_agreement
from ..metrics.statistics import estimate
from ..sweep.stored import Tables
from .compare import TEST, or_not_yet, rows_of, scored, shown, wide

FOLDER = "road"  # of a results folder
NULL = "difference"  # the control that the others are held against
RANKINGS = {
    "gradient": "Gradient × input",
    "attnlrp": title("attnlrp"),
    "glimpse": title("glimpse"),
    "noise": "Noise",
}


def correction_table(part: dict) -> pd.DataFrame:
    """A row a method, the smallest region first; `part` is that of `measures.json`."""
    rows = [
        {"method": title(name), "AMCR": shown(told["amcr"])}
        | {f"less than {title(rival).lower()}": shown(less) for rival, less in told["less"].items()}
        | {"CSR@10 %": percent(told["csr"])}
        for name, told in sorted(part["methods"].items(), key=lambda kv: kv[1]["amcr"]["value"])
    ]
    return pd.DataFrame(rows)


def percent(told: dict) -> str:
    """A share of `statistics.share` for a table cell, "12 [5, 26]"."""
    return shown(told | {"value": told["percent"]}, 0)


def synergy_table(part: dict) -> pd.DataFrame:
    """A row a ranking of the prompt, the highest F_syn first; `part` is that of `measures.json`."""
    rows = [
        {"ranking": RANKINGS[name], "F_syn": shown(told["score"])}
        | {"minus noise": shown(told["above"]), "not clipped": shown(told["unclipped"])}
        | {"picture alone": shown(told["image"]), "words alone": shown(told["words"])}
        for name, told in sorted(part["methods"].items(), key=lambda kv: -kv[1]["score"]["value"])
    ]
    return pd.DataFrame(rows)


def both_fills(maps: pd.DataFrame) -> list[pd.DataFrame]:
    """[blur, ROAD]: insertion - deletion in probability, (items, methods), of the same items.

    In probability, because ROAD ends on the mean colour, which leaves some answers nearly all of
    theirs: little is then left to normalise by.
    """
    units = TEST[0]
    parts = [scored(rows_of(maps, (units, fill), variants=True)) for fill in ("blur", FOLDER)]
    return complete(*(wide(part, "gap_raw") for part in parts)) if all(map(len, parts)) else []


def road_table(tables: Tables) -> pd.DataFrame:
    """A row a method, best under blur first: scores under both fills, and beside the control."""
    found = both_fills(tables.maps)
    if not found:
        return or_not_yet(pd.DataFrame())
    blur, road = found
    rows = []
    for name in blur.mean().sort_values(ascending=False).index:
        row = {"method": title(name), "n": len(blur)}
        row |= {"blur": f"{estimate(blur[name]):.2f}", "ROAD": f"{estimate(road[name]):.2f}"}
        for head, table in (("blur", blur), ("ROAD", road)):
            told = "–" if name == NULL else f"{estimate(table[name] - table[NULL]):.2f}"
            row[f"minus difference picture, {head}"] = told
        rows.append(row)
    return pd.DataFrame(rows)


def summary(tables: Tables) -> dict:
    """`road.json`: does ROAD order the maps as blur does, those of controls among them?"""
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    found = both_fills(own.maps) if len(own.maps) else []
    if not found:
        return {}
    return {"provenance": own.origin(own.maps), "agreement": rank_agreement(*found)}
