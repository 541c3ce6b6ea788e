"""Overlays: corrections laid over a release, whose files, lock and stores stay as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import verse_data as vd
from tests.support.command import verse_data
from tests.support.releases import write_scan
from verse_data.api import lock_tree
from verse_data.errors import ContentMissing, UsageError, ValidationFailed
from verse_data.explorer import cuts
from verse_data.explorer.facts import page_facts
from verse_data.explorer.prepare import describe
from verse_data.release import Release
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.tables.overlays import names, read_overlay

pytestmark = [
    pytest.mark.usefixtures("one_core"),
    pytest.mark.filterwarnings("ignore::verse_data.errors.IncompleteTable"),
]
LEVELS = ("T11", "T12", "L1", "L2")
GRADES = (
    "scan_id,level,grade,fracture_type\np1,T11,0,none\np1,T12,2,wedge\np1,L1,0,none\np1,L2,x,\n"
    "p2,L1,0,none\np2,L2,1,wedge\n"
)
SWAP = 'relabel = { T12 = "L1", L1 = "T12" }'

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of three scans of three patients, locked once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("lab")
    for number, split in enumerate(("training", "training", "validation"), start=1):
        labels = [LABEL_OF_LEVEL[level] for level in LEVELS]
        write_scan(folder / "tree", f"p{number}", labels[: 5 - number], split=split)
    (folder / "tree" / "grades.csv").write_text(GRADES)
    lock_tree("lab", folder / "tree", root=folder / "home")
    return folder / "home"


@pytest.fixture
def lab(built: Path, home: Path) -> Path:
    """The release on the machine of the test."""
    return Path(shutil.copytree(built, home, symlinks=True))


@pytest.fixture
def overlay(tmp_path: Path) -> Write:
    """Write overlay files: scans with their corrections, and lines at the top."""

    def write(
        scans: dict[str, str], *lines: str, name: str = "mine", releases: str = "lab"
    ) -> Path:
        head = [f'name = "{name}"', 'title = "ours"', 'version = "1"', 'licence = "CC0-1.0"']
        head += [f'releases = ["{releases}"]', 'source = "a test"', *lines]
        parts = [f'[scans.{scan}]\nwhy = "seen by us"\n{said}' for scan, said in scans.items()]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join([*head, *parts, ""]))
        return path

    return write


def opened(*overlays: Path | str, release: str = "lab") -> Release:
    """Open the release with these overlays."""
    return vd.open_release(release, overlays=list(overlays))


def rows(release: Release, scan: str = "p1") -> Any:
    """Return the vertebrae of a scan by level."""
    found = release.vertebrae
    return found[found["scan_id"] == scan].set_index("level")


# --- labels ---------------------------------------------------------------------------------------


def test_labels_points_and_grades_move_together(lab: Path, overlay: Write) -> None:
    """Two levels swapped: voxels, centroid and grade of each are those of the other."""
    before, after = rows(opened()), rows(opened(overlay({"p1": SWAP})))

    for old, new in (("T12", "L1"), ("L1", "T12"), ("T11", "T11"), ("L2", "L2")):
        was, now = before.loc[old], after.loc[new]
        for column in ("grade", "fracture_type", "foreign_material", "voxels", "centroid_j"):
            assert str(was[column]) == str(now[column]), (old, column)
        assert now["label"] == LABEL_OF_LEVEL[new]
    assert after.loc["L1", "grade"] == 2
    assert rows(opened(), "p2").equals(rows(opened(overlay({"p1": SWAP})), "p2"))


def test_grades_below_the_mask_follow_a_renumbering(lab: Path, overlay: Write) -> None:
    """Of a vertebra that the workbook alone has, the level shifts with those above it."""
    found = rows(opened(overlay({"p2": 'renumber = { from = "L1", to = "T13" }'})), "p2")
    assert [*found.index] == ["T11", "T12", "T13", "L1"]
    assert found.loc[["T13", "L1"], "grade"].tolist() == [0, 1]
    assert found.loc["L1", "grade_status"] == "no_mask"


def test_grades_stay_where_the_overlay_says_so(lab: Path, overlay: Write) -> None:
    """A correction of masks alone leaves the workbook as it is."""
    after = rows(opened(overlay({"p1": f"{SWAP}\ngrades_move = false"})))

    assert after["grade"].astype(object).equals(rows(opened())["grade"].astype(object))
    assert after.loc["L1", "centroid_j"] == rows(opened()).loc["T12", "centroid_j"]


@pytest.mark.parametrize(
    ("said", "levels"),
    [
        ('renumber = { from = "L1", to = "T13" }', ["T11", "T12", "T13", "L1"]),
        ('renumber = { from = "T12", to = "L1" }', ["T11", "L1", "L2", "L3"]),
        ('renumber = { from = "T11", to = "T10" }', ["T10", "T11", "T12", "L1"]),
        ('levels = ["C7", "T1", "T2", "T3"]', ["C7", "T1", "T2", "T3"]),
        ('relabel = { L2 = "L3" }', ["T11", "T12", "L1", "L3"]),
    ],
)
def test_each_way_to_relabel_gives_these_levels(
    lab: Path, overlay: Write, said: str, levels: list[str]
) -> None:
    """From one vertebra down, all at once, or one by one; in tables and in the store's labels."""
    release = opened(overlay({"p1": said}))
    store = release.build_cache(["p1"])["p1"]

    assert list(rows(release).index) == levels
    assert list(release.reader("p1", store).labels) == [LABEL_OF_LEVEL[level] for level in levels]


def test_predictions_are_scored_against_corrected_labels(
    lab: Path, overlay: Write, tmp_path: Path
) -> None:
    """The published masks as predictions: right without the overlay, two levels missed with it."""
    plain, release = opened(), opened(overlay({"p1": SWAP}))
    (tmp_path / "predicted").mkdir()
    shutil.copy(plain.path("p1", "mask"), tmp_path / "predicted" / "p1.nii.gz")

    published, corrected = (one.evaluate(tmp_path / "predicted") for one in (plain, release))
    before, after = (one.vertebrae.set_index("level") for one in (published, corrected))

    assert set(before["dice"]) == {1.0}
    assert after["dice"].to_dict() == {"T11": 1.0, "T12": 0.0, "L1": 0.0, "L2": 1.0}
    assert after.loc["L1", "grade"] == 2
    for scores, other in ((published, release), (corrected, plain)):
        with pytest.raises(UsageError, match=r"not of lab v1.*evaluate anew"):
            other.write_worst(scores, tmp_path / "predicted", tmp_path / "worst.html")


def test_a_prediction_of_an_excluded_scan_is_named_and_not_scored(
    lab: Path, overlay: Write, tmp_path: Path
) -> None:
    """A folder with predictions of all scans serves for a release without some of them, too."""
    release = opened(overlay({"p1": "exclude = true"}))
    first, second = list(opened().series)[:2]
    for scan_id in (first, second):
        shutil.copy(opened().path(scan_id, "mask"), tmp_path / f"{scan_id}.nii.gz")

    made = release.evaluate(tmp_path)

    assert (first, list(made.scans["scan_id"])) == ("p1", [second])
    assert any(note.startswith("not read: p1.nii.gz (overlay ") for note in made.notes)


def test_exports_write_corrected_masks_or_refuse(lab: Path, overlay: Write, tmp_path: Path) -> None:
    """nnU-Net's masks have the new labels and name the overlay; folders of published masks are refused."""
    release = opened(overlay({"p1": SWAP}))

    done = vd.export.nnunet(release, tmp_path / "raw").path

    written = np.asarray(nib.load(done / "labelsTr" / "p1.nii.gz").dataobj)
    assert (written == release.open_scan("p1", orientation="PIR")["label"].values).all()
    about = json.loads((done / "dataset.json").read_text())["verse_data"]
    assert about["overlays"][0]["name"] == "mine"
    assert "verse-data evaluate lab native --overlay mine\n" in (done / "README.md").read_text()
    for export in (vd.export.hf, vd.export.bids):
        with pytest.raises(UsageError, match=r"mine relabels 1 scan, such as p1.*published"):
            export(release, tmp_path / "folder")
    with pytest.raises(UsageError, match="mine relabels 1 scan"):
        vd.export.monai(release, tmp_path / "folder", labels="verse")
    same = '[[aliases]]\nsubjects = ["p1", "p2"]\nwhy = "one person"'
    with pytest.raises(UsageError, match="Export without the overlay that makes them one patient"):
        vd.export.bids(opened(overlay({}, same)), tmp_path / "folder")
    vd.export.hf(opened(overlay({"p2": "exclude = true"})), tmp_path / "folder")
    assert "overlay mine 1 sha256:" in (tmp_path / "folder" / "README.md").read_text()


def test_pictures_and_page_follow(lab: Path, overlay: Write) -> None:
    """The explorer's labels, points and voxels are the corrected ones, and its page names the overlay."""
    release = opened(overlay({"p1": SWAP}))
    plain, new = (one.reader("p1", one.build_cache(["p1"])["p1"]) for one in (opened(), release))

    assert [describe(one)["centroids"][19] for one in (plain, new)] == [
        describe(one)["centroids"][20] for one in (new, plain)
    ]
    assert describe(new)["labels"] == [18, 19, 20, 21]
    point = tuple(describe(plain)["centroids"][19])
    assert [cuts.voxel_at(one, point)["label"] for one in (plain, new)] == [19, 20]
    assert cuts.etag(plain, "label", None) != cuts.etag(new, "label", None)
    page = page_facts(release)
    assert "overlay mine 1" in page["release"]["note"]
    assert page["tables"]["vertebrae"]["cells"]["grade"][:4] == [0, 0, 2, None]
    preview = release.preview("p1")
    assert preview.tobytes() != opened().preview("p1").tobytes()


def test_a_mask_that_is_not_here_gives_no_rows_of_wrong_levels(lab: Path, overlay: Write) -> None:
    """What a scan is relabelled from is not known: tables name its file, other scans are served."""
    release = opened(overlay({"p1": SWAP}))
    file = release.series["p1"].files["mask"]
    release.files.object_path(file).chmod(0o644)
    shutil.rmtree(release.files.object_path(file).parent, ignore_errors=True)
    release.files.object_path(file).unlink(missing_ok=True)

    with pytest.raises(ContentMissing, match=r"relabels p1.*its mask is not on this machine"):
        _ = release.vertebrae
    found = release.readable_tables
    assert set(found.vertebrae["scan_id"]) == {"p2", "p3"}


# --- grades, scans, patients ------------------------------------------------------------------------


def test_grades_are_added_and_corrected(lab: Path, overlay: Write) -> None:
    """Of corrected levels: beside those of the workbook, in their place, and where there were none."""
    said = f'{SWAP}\ngrades = {{ T12 = {{ grade = 3, fracture_type = "crush" }}, L2 = {{ grade = 0 }} }}'
    release = opened(overlay({"p1": said, "p2": 'grades = { T11 = { grade = "x" } }'}))
    one, other = rows(release), rows(release, "p2")

    assert [str(grade) for grade in one["grade"]] == ["0", "3", "2", "0"]
    assert list(one["fracture_type"]) == ["none", "crush", "wedge", "none"]
    assert other.loc["T11", "grade_status"] == "foreign_material"
    assert other.loc["T12", "grade_status"] == "not_assessed"
    assert len(release.select("grade >= 2")) == 2


def test_an_excluded_scan_is_nowhere_and_its_reason_is_told(lab: Path, overlay: Write) -> None:
    """Tables, stores and folds lack it, naming it is refused with the reason, findings list it."""
    release = opened(overlay({"p2": "exclude = true"}))

    assert set(release.scans["scan_id"]) == {"p1", "p3"}
    assert set(release.vertebrae["scan_id"]) == {"p1", "p3"}
    assert "p2" not in release.series
    with pytest.raises(UsageError, match="p2 is left out of lab: overlay mine: seen by us"):
        release.build_cache(["p2"])
    told = release.findings.query("rule == 'overlay'")
    assert list(told["scan_id"]) == ["p2"]
    assert "excluded, by overlay mine 1 (sha256:" in told["message"].iloc[0]


def test_aliases_make_one_patient(lab: Path, overlay: Write) -> None:
    """Two ids of a patient are one: in tables, in folds, and in the check of splits."""
    same = '[[aliases]]\nsubjects = ["p1", "p2"]\nwhy = "one person"'
    tree = lab.parent / "again"
    write_scan(tree, "p1", [18, 19])
    write_scan(tree, "p2", [18, 19, 20])
    (tree / "patients.csv").write_text("subject_id,sex\np2,M\n")
    lock_tree("again", tree, check=False)
    again = opened(overlay({}, same, releases="again"), release="again")
    assert list(again.subjects["sex"]) == ["M"]
    release = opened(overlay({}, same))

    assert list(release.scans["subject_id"]) == ["p1", "p1", "p3"]
    assert list(release.subjects["n_scans"]) == [2, 1]
    folds = release.folds(2, stratify=["level"])
    assert {part.scans for part in folds.parts} == {("p1", "p2"), ("p3",)}
    told = release.findings.query("rule == 'overlay'")["message"].iloc[0]
    assert told.startswith("is of patient p1, not p2, by overlay mine 1")
    assert not release.findings["rule"].eq("subject-differs").any()


# --- what is told ---------------------------------------------------------------------------------


def test_provenance_findings_and_diff_name_the_overlay(lab: Path, overlay: Write) -> None:
    """Name, version and digest, wherever it is said what a release is; nothing without one."""
    file = overlay({"p1": SWAP, "p3": ""})
    release, plain = opened(file), opened()
    digest = read_overlay(file).digest

    assert release.provenance().model_dump()["overlays"][0]["digest"] == digest
    assert "overlays" not in plain.provenance("p1").model_dump()
    assert "mine 1" in repr(release)
    assert "mine 1" in release._repr_html_()
    rules = dict(
        release.findings.query("rule.str.startswith('overlay')")[["scan_id", "rule"]].values
    )
    assert rules == {"p1": "overlay", "p3": "overlay-remark"}
    found = release.diff("v1")
    assert found.overlays[0] == (
        f"p1: labels T12 -> L1, L1 -> T12, by overlay mine 1 ({digest[:19]}): seen by us"
    )
    assert str(plain.diff("v1")) == "no difference"
    assert plain.findings.query("rule.str.startswith('overlay')").empty


def test_an_unconfirmed_overlay_warns_and_is_a_warning(lab: Path, overlay: Write) -> None:
    """It is never taken for granted."""
    file = overlay({"p1": SWAP}, "confirmed = false")

    with pytest.warns(UserWarning, match=r"mine 1 \(.*unconfirmed\) is not confirmed: a test"):
        release = opened(file)
    assert list(release.findings.query("rule == 'overlay'")["severity"]) == ["warning"]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scans", "lines", "text"),
    [
        ({"p1": 'relabel = { L4 = "L5" }'}, [], "it names L4, and the scan has T11, T12, L1, L2"),
        ({"p1": 'relabel = { T12 = "L1" }'}, [], "two vertebrae would be L1"),
        ({"p1": 'levels = ["T11", "T12"]'}, [], "it lists 2 levels, and the scan has 4"),
        ({"p1": 'renumber = { from = "T11", to = "L4" }'}, [], "L2 would come to lie below L6"),
        ({"p1": "grades = { L4 = { grade = 1 } }"}, [], "it grades L4, and the scan has T11"),
    ],
)
def test_what_does_not_fit_a_scan_is_refused(
    lab: Path, overlay: Write, scans: dict[str, str], lines: list[str], text: str
) -> None:
    """One sentence names overlay, scan and level, and no other overlay; a store is refused as tables are."""
    other = overlay({"p1": "grades = { T11 = { grade = 0 } }"}, name="another")
    release = opened(other, overlay(scans, *lines))

    with pytest.raises(ValidationFailed, match=f"Overlay mine does not fit p1: {text}"):
        _ = release.vertebrae
    assert release.findings.query("severity == 'error'")["message"].str.contains(text).any()
    if "grades" not in scans["p1"]:
        store = release.build_cache(["p1"])["p1"]
        with pytest.raises(ValidationFailed, match=text):
            release.reader("p1", store)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ('relabel = { L7 = "L1" }', "relabel.L7"),
        ('relabel = { T12 = "T12" }', "is that level already"),
        ('relabel = { T12 = "L1", T11 = "L1" }', "two vertebrae would be L1"),
        ('levels = ["L1", "T12"]', "run from head to foot"),
        (f'{SWAP}\nlevels = ["L1"]', "relabel and levels say the same thing"),
        (f"exclude = true\n{SWAP}", "has no other correction"),
        ("exlude = true", "exlude: is not a known field"),
        ("grades = { L1 = { grade = 4 } }", "grades.L1.grade: must be 0, 1, 2, 3 or 'x'"),
        ("grades = { L1 = { grade = true } }", "grades.L1.grade"),
        ('grades = { L1 = { grade = 0, fracture_type = "wedge" } }', "grade 0 goes with shape 0"),
        ("grades = {", "not TOML in UTF-8"),
    ],
)
def test_a_file_that_breaks_its_schema_is_refused(overlay: Write, said: str, text: str) -> None:
    """The file, the field and the rule are named."""
    file = overlay({"p1": said})

    with pytest.raises(ValidationFailed, match=text) as caught:
        read_overlay(file)
    assert str(file) in str(caught.value)


def test_overlays_that_cannot_be_used_are_refused(lab: Path, overlay: Write) -> None:
    """Unknown names, other digests, other releases, unknown scans, and two that conflict."""
    file = overlay({"p1": SWAP})
    other = overlay({"p1": 'relabel = { L2 = "L3" }'}, name="other")
    absent = overlay({"p9": SWAP}, name="absent")
    same = '[[aliases]]\nsubjects = ["p1", "p7"]\nwhy = "one person"'
    stranger = overlay({}, same, name="stranger")
    session = overlay({"p1_ses-2": SWAP}, name="session")
    digest = read_overlay(file).digest

    assert opened(f"{file}@{digest}").overlays[0].digest == digest
    for given, text in (
        (["veridah"], "There is no overlay 'veridah'.*Did you mean 'veridah-2025'"),
        (["veridah-2025"], "is for verse19, verse20, not for lab"),
        (["nowhere.toml"], "There is no file nowhere.toml"),
        ([f"{file}@sha256:{'0' * 12}"], f"is {digest[:19]}, not sha256:000000000000"),
        ([f"{file}@sha256:xyz"], "a digest is sha256: and 12 to 64 digits"),
        ([file, file], "Two overlays are called mine"),
        ([file, other], "mine and other both correct labels of p1"),
        ([absent], "names 'p9', and lab has no such scan"),
        ([session], "names 'p1_ses-2', and lab has no such scan"),
        ([stranger], "names 'p7', and lab has no such subject"),
        ([3], "give a name such as 'veridah-2025'"),
        ("mine.toml", "give a list"),
    ):
        with pytest.raises(UsageError, match=text):
            vd.open_release("lab", overlays=given)


# --- the package's own, and the command line ----------------------------------------------------------


def test_the_overlays_of_the_package_are_those_of_their_sources(shared: Path) -> None:
    """All 25 rows of VERIDAH: 12 with a T13, 3 with a list of labels, 10 without a change."""
    import pandas as pd

    listed = pd.read_csv(shared / "data" / "lists" / "veridah_corrections.csv").set_index("fid")
    scans = read_overlay("veridah-2025").overlay.scans

    assert set(scans) == set(listed.index)
    for scan, row in listed.iterrows():
        one = scans[str(scan)]
        labels = [] if pd.isna(row["LabelOverride"]) else json.loads(row["LabelOverride"])
        assert [LABEL_OF_LEVEL[level] for level in one.levels] == labels
        assert bool(one.renumber) == (row["T13"] == 1 and not labels)
    assert names() == ("gl016-gl017", "totalspineseg-anomalies", "veridah-2025")
    assert [read_overlay(name).overlay.confirmed for name in names()] == [False, True, True]


def test_the_command_line_lists_shows_checks_and_applies(lab: Path, overlay: Write) -> None:
    """list, show and check; --overlay on what reads a release."""
    file, bad = overlay({"p1": SWAP}), overlay({"p1": 'relabel = { L4 = "L5" }'}, name="bad")

    listed = json.loads(verse_data("overlays", "list", "--json").stdout)
    assert [one["name"] for one in listed] == list(names())
    assert "T13" in verse_data("overlays", "show", "veridah-2025").stdout
    whole = json.loads(verse_data("overlays", "show", str(file), "--json").stdout)
    assert whole["scans"]["p1"]["relabel"] == {"T12": "L1", "L1": "T12"}
    said = verse_data("overlays", "check", str(file), "--release", "lab")
    assert (said.returncode, said.stderr.splitlines()[-1]) == (
        0,
        "It fits lab v1, and corrects 1 of its scans.",
    )
    refused = verse_data("overlays", "check", str(bad), "--release", "lab")
    assert (refused.returncode, "it names L4" in refused.stderr) == (3, True)
    query = verse_data(
        "query", "lab", "level == 'L1' and grade == 2", "--overlay", str(file), "--csv"
    )
    assert query.stdout.count("\n") == 2
    told = verse_data("diff", "lab", "v1", "v1", "--overlay", str(file)).stdout
    assert told.startswith("p1: labels T12 -> L1, L1 -> T12, by overlay mine 1")


# --- terms of single scans ------------------------------------------------------------------------

ABOUT = """
title = "Scans of ours"
licence = "CC-BY-4.0"
attribution = "our lab"
terms = { p2 = "LicenseRef-in-house" }
"""


def test_scans_under_other_terms_are_left_out_of_tables_and_exports(
    built: Path, tmp_path: Path
) -> None:
    """All are there by default, with their terms; licence= keeps those under the terms that it names."""
    tree = Path(shutil.copytree(built.parent / "tree", tmp_path / "tree"))
    (tree / "about.toml").write_text(ABOUT)
    lock_tree("lab", tree)
    whole, open_ones = vd.open_release("lab"), vd.open_release("lab", licence="CC-BY-4.0")

    assert [whole.licence_of(name) for name in whole.series] == [
        "CC-BY-4.0", "LicenseRef-in-house", "CC-BY-4.0",
    ]  # fmt: skip
    assert whole.provenance("p2").licence == "LicenseRef-in-house"
    assert set(open_ones.scans["scan_id"]) == {"p1", "p3"}
    assert open_ones.gaps == whole.gaps
    with pytest.raises(UsageError, match=r"its licence is LicenseRef-in-house, not CC-BY-4\.0"):
        open_ones.path("p2", "mask")
    done = vd.export.nnunet(open_ones, tmp_path / "raw")
    assert done.left_out == {"p2": "its licence is LicenseRef-in-house, not CC-BY-4.0"}
    assert "p2: its licence is LicenseRef-in-house" in str(done)
    facts = json.loads((done.path / "dataset.json").read_text())
    assert facts["licences"] == {"p1": "CC-BY-4.0", "p3": "CC-BY-4.0"}
    vd.export.bids(whole, tmp_path / "bids")
    (table,) = (tmp_path / "bids" / "sub-p2").rglob("*_scans.tsv")
    assert table.read_text().splitlines()[1].endswith("\tLicenseRef-in-house")
    printed = verse_data("export", "hf", "lab", str(tmp_path / "hf"), "--licence", "CC-BY-4.0")
    assert (printed.returncode, "p2: its licence is" in printed.stderr) == (0, True)


def test_terms_of_a_scan_that_there_is_not_are_refused_by_the_gate(
    built: Path, tmp_path: Path
) -> None:
    """A slip in an id must not let the scan through that was meant."""
    tree = Path(shutil.copytree(built.parent / "tree", tmp_path / "tree"))
    (tree / "about.toml").write_text(ABOUT.replace("p2", "p02"))
    lock_tree("lab", tree)

    with pytest.raises(UsageError, match=r"about.toml gives terms of 'p02', and there is no such"):
        vd.open_release("lab", licence="CC-BY-4.0")


@pytest.mark.parametrize(
    ("licence", "text"),
    [
        ("CC-BY-SA-4.0", "no scan of .* is left; its scans are under unknown"),
        ([], "give an identifier such as"),
        ([3], "give an identifier such as"),
    ],
)
def test_a_licence_that_no_scan_has_is_refused(lab: Path, licence: Any, text: str) -> None:
    """An empty release would be a silent mistake; the licences that there are are named."""
    with pytest.raises(UsageError, match=text):
        vd.open_release("lab", licence=licence)
