"""Tables and summaries of any number of items, from none up: missing intervals stay missing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from lvlm_study import cli
from lvlm_study.chapters.summaries import report, write_summaries
from lvlm_study.sweep.tables import META, read_table, write_shard

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "data" / "results" / "mini"
CONTROLS = ["random", "center", "sobel"]
KINDS = {"igos": ["igos[preset=paper]"], "tam": ["tam"], "controls": CONTROLS, "none": []}
METHODS = ["igos[preset=paper]", "igos[l2=1,preset=paper]", "tam", "gae", *CONTROLS]
MODELS = {"one": ["mini/llava-1.5"], "two": ["mini/llava-1.5-s", "mini/llava-ov-s"]}


def cut(source: Path, target: Path, keep) -> None:
    """Copy the committed tables with the rows that `keep` keeps."""
    for path in sorted(source.rglob("*.parquet")):
        table = pq.read_table(path, partitioning=None)
        rows = [row for row in table.to_pylist() if keep(row)]
        if rows:
            about = json.loads(table.schema.metadata[META])
            write_shard(target / path.relative_to(source), rows, table.schema, about)


def names_of(folder: str, model: str) -> Path:
    return RESULTS / folder / model.replace("/", "--")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The tables of four models with the first four items that have maps, all methods."""
    place = tmp_path_factory.mktemp("few")
    models = sorted({name for names in MODELS.values() for name in names})
    shard = names_of("maps", models[0]) / "sprites" / "igos@preset=paper" / "000.parquet"
    rows = pq.read_table(shard, partitioning=None, columns=["item"]).to_pylist()
    items = list(dict.fromkeys(row["item"] for row in rows))[:4]

    def wanted(row):
        return row["item"] in items and row.get("method", METHODS[0]) in METHODS

    for kind in ("reliance", "maps", "effects"):
        for model in models:
            cut(names_of(kind, model), place / kind / model.replace("/", "--"), wanted)
    return place, items


def summarised(results: Path) -> str:
    """Write every summary; what the terminal shows. All files are JSON without NaN."""
    trees = write_summaries(results, "mini", 0)
    for name in trees:
        json.loads((results / f"{name}.json").read_text(), parse_constant=pytest.fail)
    return report(trees)


def check(few, place: Path, count: int, models, keep) -> None:
    source, items = few
    some = set(items[:count])
    for kind in ("reliance", "maps", "effects"):
        if kind == "effects" and not any(map(keep, METHODS)):
            continue  # without methods none are measured
        for model in models:
            folder = Path(kind) / model.replace("/", "--")
            cut(
                source / folder,
                place / folder,
                lambda row: row["item"] in some and ("method" not in row or keep(row["method"])),
            )
    told = summarised(place)
    if not count:
        assert told == "Nothing has been computed yet."
        return
    table = read_table(place, "reliance")
    assert set(table.item) == some and set(table.model) == set(models)
    found = json.loads((place / "reliance.json").read_text())["models"]
    for model in models:
        accuracy = found[model]["sprites"]["all"]["accuracy"]
        assert found[model]["sprites"]["all"]["n"] == count and model in told
        assert accuracy["value"] is not None and accuracy["low"] is None  # of so few
    assert "nan" not in told.lower()


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("models", MODELS)
def test_few_items_of_every_method(few, tmp_path, count, models):
    check(few, tmp_path, count, MODELS[models], lambda method: True)


@pytest.mark.parametrize("count", (1, 3))
@pytest.mark.parametrize("kind", KINDS)
def test_few_items_of_one_kind_of_method(few, tmp_path, count, kind):
    check(few, tmp_path, count, MODELS["two"], lambda method: method in KINDS[kind])


def test_variants_alone(few, tmp_path):
    check(few, tmp_path, 3, MODELS["one"], lambda method: method == "igos[l2=1,preset=paper]")


@pytest.mark.parametrize("step", (1, 2, 3, 5))
def test_few_answers_about_the_controlled_subsets(tmp_path, step):
    """Half a pair, an arm of a triple: a share of nothing is null, with n = 0."""
    name = "mini--llava-1.5"
    items: dict[str, list] = {}
    for row in read_table(RESULTS / "controlled", "reliance").itertuples():
        items.setdefault(row.benchmark, []).append(row.item)
    some = {item for names in items.values() for item in sorted(set(names))[:step]}
    source = RESULTS / "controlled" / "reliance" / name
    folder = tmp_path / "controlled" / "reliance" / name
    cut(source, folder, lambda row: row["item"] in some)
    summarised(tmp_path)
    told = json.loads((tmp_path / "controlled.json").read_text())["models"]["mini/llava-1.5"]
    pairs, prior = told["pairs"]["both"], told["prior"]
    assert pairs["n"] == step // 2 and (pairs["percent"] is None) == (step < 2)
    assert {cell["n"] for cell in prior["arms"].values()} == ({step // 3} if step >= 3 else set())
    assert (prior["conflict"]["percent"] is None) == (step < 3)
    assert prior["conflict"]["low"] is None


RUN = ["--benchmarks", "sprites", "--units", "grid", "--fills", "blur", "--baselines", "blur"]


def ran(results, capsys, items, models, methods) -> str:
    words = ["--models", models, "--methods", methods, "--items", str(items)]
    assert cli.main(["run", *words, *RUN, "--results", str(results)]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("models", ["mini/llava-1.5", "mini/llava-1.5-s,mini/llava-ov-s"])
@pytest.mark.parametrize("methods", ["tam", "random,center", "none", "igos[iterations=1],gae"])
def test_the_command_with_few_items(models, methods, tmp_path, capsys):
    """One folder that grows from nothing to four items, summarised each time."""
    for items in range(5):
        told = ran(tmp_path, capsys, items, models, methods)
        if items == 0:
            assert "Nothing has been computed yet." in told
            continue
        table = read_table(tmp_path, "reliance")
        assert table.item.nunique() == items and table.model.nunique() == models.count(",") + 1
        assert f"{models.split(',')[0]}" in told and "accuracy" in told
        maps = read_table(tmp_path, "maps")
        assert isinstance(maps, pd.DataFrame) and maps.empty == (methods == "none")
        assert (tmp_path / "methods.json").exists() == (methods != "none")
    shutil.rmtree(tmp_path / "reliance")


@pytest.mark.parametrize("methods", ["tam", "none"])
def test_the_command_with_no_item(methods, tmp_path, capsys):
    """It ends well and says that nothing was computed."""
    told = ran(tmp_path, capsys, 0, "mini/llava-1.5-s,mini/llava-1.5", methods)
    assert "Nothing has been computed yet." in told
