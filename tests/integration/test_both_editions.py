"""VerSe'19 and VerSe'20 as one: listed, fetched, divided and served, each series once."""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from osf_standin import Node, OsfStandin
from typer.testing import CliRunner

import verse_data as vd
from tests.support import editions
from tests.support.workbooks import row, write_xlsx
from verse_data.api import lock_tree
from verse_data.cli.main import app
from verse_data.errors import ContentMissing, QueryRefused, UsageError, ValidationFailed
from verse_data.tables.leaks import assert_no_leak

pytestmark = pytest.mark.usefixtures("one_core")

BOTH = "verse19+verse20"
MICCAI = {"ct": ".nii.gz", "mask": "_seg.nii.gz", "centroids": "_iso-ctd.json"}
EDITION = {
    "verse004": "verse19+verse20", "verse401_split-verse201": "verse19+verse20",
    "verse401_split-verse253": "verse19+verse20", "verse006": "verse19",
    "gl003_dir-ax": "verse20", "verse500_dir-ax": "verse20",
}  # fmt: skip
"""Editions of the training scans, as published."""


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of one scan of a small phantom, by role."""
    return editions.contents(tmp_path_factory.mktemp("phantom") / "tree")


@pytest.fixture(scope="module")
def nodes(contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Node]:
    """The two nodes of OSF, with a grading workbook on the first alone."""
    made = [Node("jtfa5"), Node("4skx2")]
    for node, release in zip(made, editions.SCANS, strict=True):
        for path, content in editions.files_of(release, contents):
            node.upload(path, content)
    book = tmp_path_factory.mktemp("book") / "ryai190138_AppendixE1.xlsx"
    write_xlsx(book, [row(4), row(6)])
    made[0].upload(book.name, book.read_bytes())
    return made


@pytest.fixture(scope="module")
def fetched(nodes: list[Node], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A root in which both are locked and fetched by the command line, and what it printed."""
    root, said = tmp_path_factory.mktemp("both"), []
    with ExitStack() as stack:
        osf = stack.enter_context(OsfStandin(*nodes))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**osf.environment, "VERSE_DATA_PROGRESS": "off"}.items():
            patch.setenv(name, value)
        for words in ("lock verse19", "get verse19", "lock verse20", "get verse20"):
            with warnings.catch_warnings(action="ignore", category=vd.TrustOnFirstUse):
                answer = CliRunner().invoke(app, [*words.split(), "--root", str(root)])
            assert answer.exit_code == 0, (answer.output, answer.exception)
            said.append(answer.output)
    return root, said


@pytest.fixture
def root(fetched: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root with both editions; no network any more."""
    monkeypatch.setenv("VERSE_DATA_OFFLINE", "1")
    return fetched[0]


@pytest.fixture
def both(root: Path) -> vd.UnitedReleases:
    """Both editions, opened as one."""
    return vd.open_releases(["verse19", "verse20"], root=root)


def test_a_split_of_both_editions_is_served_as_one(root: Path) -> None:
    """The series of each, with what no lock lists among what is left out; a list or names with +."""
    data = vd.load_split("training", release=["verse19", "verse20"], root=root)
    same = vd.load_split("training", release=BOTH, root=root)

    assert sorted(scan.scan_id for scan in data.scans) == sorted(EDITION)
    assert [sample["scan_id"] for sample in same] == [sample["scan_id"] for sample in data]
    about = data.provenance
    assert (about["release"], about["version"]) == ("verse19 + verse20", "v1 + v1")
    assert about["licence"] == "CC-BY-SA-4.0 + unconfirmed"
    named = vd.open_releases(about["release"], version=about["version"], root=root)
    assert named.version == "v1+v1"
    assert len(data) + len(data.excluded) == 141
    assert set(data.excluded["reason"]) == {"not_in_lock"}


@pytest.mark.parametrize(
    ("where", "scans"),
    [
        ("edition == 'verse20'", {"gl003_dir-ax", "verse500_dir-ax"}),
        ("edition in ['verse19+verse20', 'verse20']", set(EDITION) - {"verse006"}),
        ("grade >= 0", {"verse004", "verse006"}),
        ("direction == 'ax'", {"gl003_dir-ax", "verse500_dir-ax"}),
        ("release == 'verse20' or split == 'test'", {"gl003_dir-ax", "verse500_dir-ax"}),
        ("release == 'verse19' and grade >= 0", {"verse004", "verse006"}),
    ],
)
@pytest.mark.filterwarnings("ignore:verse20 v1 lists no grading:verse_data.IncompleteTable")
def test_conditions_choose_among_both(root: Path, where: str, scans: set[str]) -> None:
    """By edition, release and direction, and by grades, which VerSe'20 does not have."""
    data = vd.load_split("training", release=BOTH, where=where, root=root)

    assert {scan.scan_id for scan in data.scans} == scans


def test_tables_say_edition_and_release(both: vd.UnitedReleases, root: Path) -> None:
    """Scans, vertebrae and patients of all, with documented types; load_table gives the same."""
    scans, rows, patients = both.scans, both.vertebrae, both.subjects

    training = scans[scans["split"] == "training"].set_index("scan_id")
    assert dict(training["edition"]) == EDITION
    assert set(training["release"]) == {"verse19", "verse20"}
    assert list(rows["level"].cat.categories)[:2] == ["C1", "C2"]
    assert rows["level"].cat.ordered
    assert set(rows["scan_id"]) == set(scans["scan_id"])
    assert len(patients) == scans["subject_id"].nunique() == 9
    assert dict(zip(patients["subject_id"], patients["n_scans"], strict=True))["verse401"] == 2
    pd.testing.assert_frame_equal(vd.load_table("scans", release=BOTH, root=root), scans)
    assert repr(both) == (
        "<UnitedReleases verse19+verse20: 10 scans (verse19 v1: 6, verse20 v1: 4; 0 copies)>"
    )


def test_folds_of_both_are_clean_saved_and_served(both: vd.UnitedReleases, tmp_path: Path) -> None:
    """Balanced by release, too; a file of them fits these locks alone, and a side is a dataset."""
    folds = both.folds(3, seed=1)

    assert "release" in folds.stratify
    assert "grade" in folds.stratify
    for number in range(3):
        assert_no_leak(folds.split(number))
    folds.write(tmp_path / "folds.json")
    assert both.read_folds(tmp_path / "folds.json") == folds
    other = vd.UnitedReleases(both.members[::-1])
    with pytest.raises(ValidationFailed, match="made of another release: verse19"):
        other.read_folds(tmp_path / "folds.json")

    side = folds.split(0)["training"]
    data = both.dataset(side)
    assert {scan.scan_id for scan in data.scans} == set(side)
    assert data.provenance["selection"]["fold"]["number"] == 0
    rows = both.vertebrae.query("level == 'L1'")
    crops = both.dataset(rows, unit="vertebra", crop_size_mm=16.0, include=("not_assessed",))
    assert len(crops) + len(crops.excluded) == len(rows)


def test_the_command_line_takes_both(root: Path, tmp_path: Path) -> None:
    """Tables, conditions, folds, findings and the summary of ``verse19+verse20``."""

    def said(*words: str) -> Any:
        answer = CliRunner().invoke(app, [*words, "--root", str(root), "--json"])
        assert answer.exit_code == 0, (answer.output, answer.exception)
        return json.loads(answer.stdout)

    out = tmp_path / "scans.parquet"
    answer = CliRunner().invoke(
        app, ["table", BOTH, "scans", "--out", str(out), "--root", str(root)]
    )
    assert answer.exit_code == 0, answer.output
    assert len(pd.read_parquet(out)) == 10
    assert {one["scan_id"] for one in said("query", BOTH, "edition == 'verse20'")} == {
        scan for scans in editions.SCANS["verse20"].values() for scan in scans
    }
    assert len(said("folds", BOTH, "--k", "2", "--out", str(tmp_path / "two.json"))["folds"]) == 2
    assert said("folds", BOTH, "--check", str(tmp_path / "two.json"))["folds"]
    assert {"verse19", "verse20"} == {one["release"] for one in said("findings", BOTH)}
    assert {one["release"] for one in said("query", BOTH, "release == 'verse20'")} == {"verse20"}
    with pytest.raises(QueryRefused, match="no column release"):
        vd.load_table("vertebrae", release="verse19", where="release == 'verse19'", root=root)
    assert {one["release"] for one in said("query", BOTH, "--columns", "release")} == {
        "verse19",
        "verse20",
    }
    assert said("summary", BOTH)["release"] == BOTH


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_both_leave_python_as_one_dataset_and_predictions_come_back(
    both: vd.UnitedReleases, root: Path, tmp_path: Path
) -> None:
    """Each series is one case, no patient on two sides; predictions are scored against all at once."""
    done = vd.export.nnunet(both, tmp_path, k=2, variable="VERSE")
    facts = json.loads((done.path / "dataset.json").read_text())
    folds = json.loads((done.path / "splits_final.json").read_text())

    assert done.path.name == "Dataset400_verse19-verse20"
    assert set(facts["dataset"]) == set(both.series) == set(facts["licences"])
    assert set(facts["licences"].values()) == {"CC-BY-SA-4.0", "unconfirmed"}
    assert facts["licence"] == "CC-BY-SA-4.0 + unconfirmed", "which the README says, too"
    assert facts["verse_data"]["lock"] == both.pin
    assert "10.1148" in facts["citation"], "that of VerSe'19"
    assert "10.1016/j.media" in facts["citation"], "that of VerSe'20"
    for scan_id, case in facts["dataset"].items():
        (path,) = case["images"]
        home = both.home(scan_id)
        assert path.startswith(f"$VERSE/{home.name}/")
        assert (root / "releases" / path.removeprefix("$VERSE/")).samefile(home.path(scan_id, "ct"))
    patient = {scan_id: scan.subject_id for scan_id, scan in both.series.items()}
    for fold in folds:
        assert not {patient[s] for s in fold["train"]} & {patient[s] for s in fold["val"]}

    predicted = tmp_path / "predicted"
    shutil.copytree(done.path / "labelsTr", predicted)
    run = partial(CliRunner().invoke, app, env={"VERSE_DATA_HOME": str(root)})
    words = ["predictions", "import", "nnunet", BOTH, predicted, tmp_path / "native"]
    answer = run([*map(str, words), "--dataset-json", str(done.path / "dataset.json")])
    assert answer.exit_code == 0, answer.output
    page = tmp_path / "worst.html"
    answer = run(["evaluate", BOTH, str(tmp_path / "native"), "--json", "--html", str(page)])
    scores = json.loads(answer.stdout)
    assert {one["scan_id"] for one in scores["scans"]} == set(both.series)
    assert {one["dice"] for one in scores["scans"]} == {1.0}
    assert {one["grade"] for one in scores["vertebrae"] if one["scan_id"] == "verse004"} >= {0, 2}
    assert (scores["release"], scores["lock"]) == (BOTH, both.pin)
    assert page.read_text().count("<img") == len(both.series)
    assert "unconfirmed + CC-BY-SA-4.0" in page.read_text()

    with pytest.raises(ValidationFailed, match=r"Open those: verse19\+verse20"):
        vd.predictions.import_predictions(
            "nnunet",
            both.members[0],
            predicted,
            tmp_path / "again",
            dataset_json=done.path / "dataset.json",
        )


def test_a_datalist_of_both_has_the_folds_of_both(both: vd.UnitedReleases, tmp_path: Path) -> None:
    """MONAI's items are those of nnU-Net; BIDS and Hugging Face describe one release each."""
    vd.export.monai(both, tmp_path / "list", labels="verse", k=2)
    items = json.loads((tmp_path / "list/datalist.json").read_text())["training"]

    folds = both.folds(2)
    held_out = {s: n for n in range(2) for s in folds.split(n)["validation"]}
    assert {one["scan_id"].removeprefix("scan/"): one["fold"] for one in items} == held_out
    for write in (vd.export.bids, vd.export.hf):
        with pytest.raises(UsageError, match="describes one release"):
            write(both, tmp_path / "one")
    alone = vd.open_releases("verse19", root=both.members[0].config.home)
    assert {*vd.export.hf(alone, tmp_path / "one").scans} == {*both.members[0].series}
    done = vd.export.nnunet(alone, tmp_path, variable="VERSE")
    assert "folder of release verse19 on" in (done.path / "README.md").read_text()
    assert '"$VERSE/.git/' in (done.path / "dataset.json").read_text()


def test_what_does_not_go_with_several_is_refused(root: Path, both: vd.UnitedReleases) -> None:
    """A version of one alone, a release that is not there, a scan that none has, what is not open."""
    assert vd.open_releases(BOTH, version="v1+v1", root=root).pin == both.pin
    with pytest.raises(UsageError, match=r"one for each of verse19, verse20.* such as v1\+v1\."):
        vd.load_table("scans", release=BOTH, version="v1", root=root)
    for members in ([], ["verse19", "verse20"], both.members[0], both.members[:1] * 2, [both]):
        with pytest.raises(UsageError, match=r"by name: open_releases\("):
            vd.UnitedReleases(members)  # type: ignore[arg-type]
    for given in (BOTH, list(both.members), None):
        for use in (
            vd.export.nnunet,
            vd.export.bids,
            partial(vd.predictions.import_predictions, "folder", folder=root),
        ):
            with pytest.raises(
                UsageError, match=r"no open release.*open_releases\('verse19\+verse20'"
            ):
                use(given, out=root / "out")  # type: ignore[operator]
    for given in (BOTH, ["verse19", "verse20"]):
        with pytest.raises(UsageError, match="Here one is needed; open_releases"):
            vd.open_release(given, root=root)
    with pytest.raises(
        AttributeError, match=r"not have 'preview', but open_release\('verse19'\) does"
    ):
        both.preview("verse004")
    with pytest.raises(UsageError, match="There is no release 'verse21'"):
        vd.open_releases("verse19+verse21", root=root)
    with pytest.raises(UsageError, match=r"verse19\+verse20 has no scan 'verse999'"):
        both.dataset(["verse999"])
    with pytest.raises(ContentMissing, match="no grading workbook"):
        vd.open_releases("verse20", root=root).folds(2, stratify=["grade"])


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_the_miccai_layout_of_the_second_edition_repeats_series(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    """Adopted by content with irregular names: its copies of series of VerSe'19 count once."""
    names = {
        "verse401_verse201_CT-iso": "verse401_split-verse201",
        "GL003": "gl003_dir-ax",
        "verse500": "verse500_dir-ax",
        "GL124_CT-ax": "gl124_dir-ax",
    }
    for number, stem in enumerate(names):
        folder = tmp_path / "tree" / "01_training" / stem.split("_")[0]
        folder.mkdir(parents=True)
        for role, content in editions.distinct(contents, 50 + number).items():
            (folder / f"{stem}{MICCAI[role]}").write_bytes(content)
    broken = tmp_path / "tree/01_training/GL124/GL124_CT-ax_iso-ctd.json"
    broken.rename(broken.with_name("GL124_CT_ax-iso-ctd.json"))
    lock_tree("verse20", tmp_path / "tree", root=tmp_path / "home", check=False)
    editions.write_edition(tmp_path / "first", "verse19", contents)
    lock_tree("verse19", tmp_path / "first", root=tmp_path / "home", check=False)

    release = vd.open_release("verse20", root=tmp_path / "home")
    assert set(release.series) == {*names.values()}
    assert {scan.split for scan in release.series.values()} == {"training"}
    known = release.provenance("gl124_dir-ax")
    assert len([file for file in known.files if file.scan_id == "gl124_dir-ax"]) == 3
    assert not release.verify(scan_ids=["gl124_dir-ax"])
    both = vd.open_releases("verse19+verse20", root=tmp_path / "home")
    shown = both.scans.set_index("scan_id")
    assert len(shown) == 6 + 3
    assert shown.loc["verse401_split-verse201", "release"] == "verse19"
    assert shown.loc["verse401_split-verse201", "edition"] == "verse19+verse20"

    data = vd.load_split("training", release=BOTH, root=tmp_path / "home")
    served = [scan.scan_id for scan in data.scans]
    assert sorted(served) == sorted({*EDITION, "gl124_dir-ax"})
    files = [file for part in data.provenance["releases"] for file in part["files"]]
    assert {file["scan_id"] for file in files} >= {"gl003_dir-ax", "gl124_dir-ax"}


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_predictions_come_back_to_older_versions_and_by_the_id_that_counts(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    """A new version of one asks for ``--version``; the id of a copy names the one that counts."""
    where: Any = {"root": tmp_path / "home", "check": False}
    vd.lock_tree(
        "verse19", editions.write_edition(tmp_path / "first", "verse19", contents), **where
    )
    own = tmp_path / "own/training/rawdata/sub-p1/sub-p1_ct.nii.gz"
    own.parent.mkdir(parents=True)
    shutil.copy(next((tmp_path / "first").rglob("sub-verse004_ct.nii.gz")), own)
    vd.lock_tree("lab-b", tmp_path / "own", **where)
    both = vd.open_releases("verse19+lab-b", root=where["root"])
    rows = pd.DataFrame({"scan_id": ["verse006", "p1"]})
    for use, given in ((both.grid, "p1"), (both.home, "p1"), (both.dataset, rows)):
        with pytest.raises(UsageError, match="p1 of lab-b counts as verse004 of verse19 here"):
            use(given)
    assert [sample["scan_id"] for sample in both.dataset(["p1"])] == ["verse004"]

    with warnings.catch_warnings(record=True, action="always") as said:
        done = vd.export.nnunet(both, tmp_path, k=2)
    told = [str(one.message) for one in said]
    assert not [one for one in told for other in told if one != other and one in other], (
        "said twice"
    )
    predicted = done.path / "labelsTr"
    shutil.copy(predicted / "verse004.nii.gz", own.with_name("sub-p2_ct.nii.gz"))
    vd.lock_tree("lab-b", tmp_path / "own", **where)  # a new version
    run = partial(CliRunner().invoke, app, env={"VERSE_DATA_HOME": str(where["root"])})
    words = ["predictions", "import", "nnunet", "verse19+lab-b", str(predicted)]
    said = run([*words, str(tmp_path / "native")])
    assert str(said.exception).endswith("Open those: verse19+lab-b --version v1+v1")
    said = run([*words, str(tmp_path / "native"), "--version", "v1+v1"])
    assert said.exit_code == 0, said.output
    said = run(["evaluate", "verse19+lab-b", str(tmp_path / "native"), "--version", "v1+v1"])
    assert said.output.startswith("6 scans of 5 patients")

    (predicted / "verse004.nii.gz").rename(predicted / "p1_pred.nii.gz")
    (tmp_path / "out.toml").write_text(
        'name = "out"\ntitle = "-"\nversion = "1"\nreleases = ["verse19"]\nsource = "-"\n'
        'licence = "CC0-1.0"\n[scans.verse006]\nwhy = "motion"\nexclude = true\n'
    )
    both = vd.open_releases("verse19+lab-b", overlays=[tmp_path / "out.toml"], root=where["root"])
    with pytest.raises(ValidationFailed, match="2 problems") as refused:
        vd.predictions.import_predictions("folder", both, predicted, tmp_path / "again")
    assert "verse006.nii.gz: verse006 is left out of verse19+lab-b: overlay out: motion" in str(
        refused.value
    )
    assert "p1_pred.nii.gz: p1 of lab-b counts as verse004" in str(refused.value)


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_rows_of_the_tables_of_several_are_served(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    """Also where the release of the copy that counts has the patient by another id; none is dropped."""
    for release, scan, roles in (("lab-a", "p1", ["ct"]), ("lab-b", "q1", list(contents))):
        for role in roles:
            room = "rawdata" if role == "ct" else "derivatives"
            path = (
                tmp_path / f"{release}/training/{room}/sub-{scan}/sub-{scan}{editions.ENDS[role]}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[role])
        lock_tree(release, tmp_path / release, root=tmp_path / "home")
    both = vd.open_releases("lab-a+lab-b", root=tmp_path / "home")

    assert dict(both.scans.set_index("scan_id")["subject_id"]) == {"q1": "p1"}
    both.vertebrae.to_csv(tmp_path / "rows.csv", index=False)
    for rows in (both.scans, both.scans.set_index("scan_id"), pd.read_csv(tmp_path / "rows.csv")):
        assert len(both.dataset(rows)) == 1
    for given, said in (
        (both.scans.assign(subject_id="q2"), "subject_id is q2, not q1"),
        (both.scans[["split"]], "no column scan_id"),
        ("q1", "no list of scan ids"),
        (both.scans.assign(scan_id="p1"), "p1 of lab-a counts as q1 of lab-b"),
    ):
        with pytest.raises(UsageError, match=said):
            both.dataset(given)
