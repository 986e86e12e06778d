"""Pinned revisions and local folders, from the command to the metadata of the tables."""

import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_benchmarks_real import MMVP_ROWS, original_mmvp

from lvlm_study import cli
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import runner
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep, plain_name

REPO = "MMVP/MMVP"


def mmvp_folder(folder):
    """MMVP's six rows of the other tests, with pictures that the planted reader can look at."""
    original_mmvp(folder)
    for row in MMVP_ROWS:
        picture = Image.fromarray(planted_scene((32, 48), row[0]))
        picture.save(folder / "MMVP Images" / f"{row[0]}.jpg")
    return folder


class Hub:
    """The hub's answer to a download: one folder a commit; branches may move."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []
        self.names = {None: "bbb222", "v1": "aaa111", "aaa111": "aaa111", "bbb222": "bbb222"}
        for commit in set(self.names.values()):
            mmvp_folder(folder / commit)

    def __call__(self, repo, repo_type, revision, allow_patterns):
        self.asked.append((repo, revision))
        if revision not in self.names:
            raise OSError(f"404: {revision} is no revision")
        return str(self.folder / self.names[revision])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    found = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


@pytest.fixture
def go(monkeypatch, tmp_path, capsys):
    """`go(benchmarks, *more)` runs the command; gives (exit code, what it told)."""
    made = []

    def load(name, **options):
        reader = planted("object")
        reader.name = name
        made.append(reader)
        return reader

    monkeypatch.setattr(runner, "load_model", load)
    fixed = ["--methods", "center", "--baselines", "black", "--units", "grid", "--fills", "blur"]

    def call(benchmarks, *more, model="planted/object"):
        where = ["--models", model, "--benchmarks", benchmarks, "--results", str(call.results)]
        code = cli.main(["run", *where, *fixed, *more])
        told = capsys.readouterr()
        return code, told.out + told.err

    call.results, call.made = tmp_path / "results", made
    call.table = lambda kind: shards.read_table(call.results, kind)
    return call


def about(results):
    """Metadata of every file, by kind of table."""
    found = {}
    for path in results.rglob("*.parquet"):
        kind = path.relative_to(results).parts[0]
        found[kind] = shards.json.loads(pq.read_schema(path).metadata[shards.META])
    return found


def test_a_pinned_benchmark_runs_and_its_commit_is_kept(hub, go):
    code, told = go("mmvp@v1")
    assert code == 0 and "mmvp" in told
    assert set(hub.asked) == {(REPO, "v1")}
    assert set(go.table("reliance").benchmark) == {"mmvp"} and len(go.table("maps")) == 6
    assert (go.results / "maps" / "planted--object" / "mmvp" / "center" / "000.parquet").is_file()
    for made in about(go.results).values():
        assert made["source"] == {"source": REPO, "revision": "aaa111"}
        assert made["settings"]["revision"] == "aaa111"


def test_pages_find_a_pinned_table_under_its_plain_name(hub, go):
    go("mmvp@v1", "--kept", "--baselines", "blur", model="planted/object@v2")
    tree = shards.json.loads((go.results / "filter.json").read_text())
    assert set(tree["benchmarks"]) == {"mmvp"}
    assert set(go.table("reliance").model) == {"planted/object"}
    assert about(go.results)["reliance"]["model"] == "planted/object@v2"


def test_commits_do_not_mix_and_the_same_one_goes_on(hub, go):
    go("mmvp@v1", "--items", "4")
    before = go.table("maps")
    code, told = go("mmvp")  # the main branch is another commit
    assert code == 2
    assert "made from revision aaa111 of its benchmark, not bbb222; name the first behind @" in told
    assert go.table("maps").equals(before)
    hub.names[None] = "aaa111"
    assert go("mmvp")[0] == 0 and len(go.table("maps")) == 6
    assert go.table("maps").iloc[:4].equals(before)  # by the main branch, when it is that commit
    assert go("mmvp@bbb222", "--fresh")[0] == 0
    assert about(go.results)["maps"]["settings"]["revision"] == "bbb222"


def test_rows_from_a_folder_and_from_the_hub_do_not_mix(hub, go, tmp_path):
    folder = mmvp_folder(tmp_path / "mine")
    assert go("mmvp", "--data", f"mmvp={folder}")[0] == 0
    assert hub.asked == [] and len(go.table("maps")) == 6
    assert about(go.results)["maps"]["source"] == {"source": "mine", "revision": None}
    code, told = go("mmvp@v1")
    assert code == 2 and "other settings (revision)" in told


WRONG = {
    "mmvq@v1": "no benchmark named 'mmvq'; did you mean mmvp",
    "mmvp@": "mmvp@ names no revision",
    "mmvp@v9": "MMVP/MMVP (revision v9) could not be downloaded (OSError: 404: v9 is no revision)",
    "mmvp@v1,mmvp": "mmvp@v1 and mmvp share one table",
    "sprites@v1": "sprites is no dataset of the hub",
    "pope": "pope cannot be downloaded; give its folder, --data pope=FOLDER",
    "sprites --data sprites=here": "sprites is made here and reads no folder",
    "mmvp --data mmvq=here": "no benchmark named 'mmvq'; did you mean mmvp",
    "mmvp --data mmvp=/no/such": "There is no folder /no/such",
    "vqa_hat": "VQA-HAT has no downloader",
}


@pytest.mark.parametrize("names", WRONG)
def test_wrong_names_are_one_sentence_before_any_model_is_loaded(hub, go, names):
    code, told = go(*names.split())
    assert code == 2 and WRONG[names] in told and told.count("\n") == 1
    assert go.made == [] and not go.results.exists()


def test_plain_names(tmp_path, monkeypatch):
    assert plain_name("mmvp@v1") == "mmvp" and plain_name("mmvp") == "mmvp"
    assert plain_name("org/model@refs/pr/1") == "org/model"
    assert plain_name("/data/runs@home/model") == "/data/runs@home/model"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model@2").mkdir()
    assert plain_name("model@2") == "model@2"  # a folder


def test_a_model_named_with_and_without_its_revision_is_refused(tmp_path):
    models = ("org/model", "org/model@v1")
    with pytest.raises(runner.StudyError, match="share one table"):
        Sweep(models, ("sprites",), (), tmp_path).check()
