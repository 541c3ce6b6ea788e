"""``Release.evaluate`` and ``verse-data evaluate`` on predictions of a small phantom."""

from __future__ import annotations

import csv
import io
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import verse_data as vd
from tests.support.command import verse_data
from tests.support.releases import write_scan
from verse_data import phantom
from verse_data.errors import UsageError, ValidationFailed
from verse_data.predictions import import_predictions
from verse_data.release import Release
from verse_data.views.drawing import level_colour
from verse_data.volumes.nifti import read_mask, write_nifti

SHAPE = (32, 64, 24)
T13 = phantom.CASES["t13"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock a small phantom once for all tests of this file."""
    home = tmp_path_factory.mktemp("scored")
    vd.lock_tree("phantom", phantom.write(home / "tree", n_subjects=8, shape=SHAPE), root=home)
    return home


@pytest.fixture(scope="module")
def release(root: Path) -> Release:
    return vd.open_release("phantom", root=root)


def predict(release: Release, folder: Path, scan_id: str, change=lambda mask: mask) -> Path:
    """Write the true mask of a scan, changed, as its prediction."""
    folder.mkdir(exist_ok=True)
    path = release.path(scan_id, "mask")
    mask = read_mask(path, name=scan_id)
    write_nifti(folder / f"{scan_id}.nii.gz", change(mask.array.copy()), mask.affine)
    return folder


def without(label: int):
    """Return a change that removes one label."""
    return lambda mask: np.where(mask == label, 0, mask).astype(np.uint8)


def test_a_copy_of_the_truth_has_perfect_scores_and_its_grades(release, tmp_path):
    """Every mask of the release, also oblique and floating ones, scores 1; T13 is T13."""
    scored = [name for name, scan in release.series.items() if "mask" in scan.files]
    for scan_id in scored:
        predict(release, tmp_path / "made", scan_id)
    made = release.evaluate(tmp_path / "made")
    assert made.scans["scan_id"].tolist() == scored
    assert (made.vertebrae[["dice", "hd_mm", "hit"]].astype(float) == [1.0, 0.0, 1.0]).all(
        axis=None
    )
    assert made.notes == ()
    keys = ["scan_id", "level", "grade", "fracture_type"]
    own = release.vertebrae.query("has_mask")[keys].reset_index(drop=True)
    assert made.vertebrae[keys].astype(str).equals(own.astype(str))
    assert "T13" in set(made.vertebrae.loc[made.vertebrae["scan_id"] == T13, "level"])


def test_centroid_files_are_scored_in_mm(release, tmp_path):
    """A point is as far away as its slices are thick; one that is left out, or NaN, is missing."""
    scan_id = phantom.CASES["oblique_2mm_sagittal"]
    entries = json.loads(release.path(scan_id, "centroids").read_text())
    entries[1]["Z"] += 2
    entries[2]["X"] = float("nan")
    (tmp_path / f"{scan_id}.json").write_text(json.dumps(entries[:-1]))
    made = release.evaluate(tmp_path)
    rows, affine = made.vertebrae, read_mask(release.path(scan_id, "mask"), name=scan_id).affine
    assert rows.loc[0, "distance_mm"] == pytest.approx(2 * np.linalg.norm(affine[:3, 2]))
    assert rows["point_status"].tolist()[1:3] == ["missing", "found"]
    (scan,) = made.scans.to_dict(orient="records")
    assert (scan["hits"], scan["n_points_true"], scan["n_missing"]) == (len(rows) - 2, len(rows), 2)
    assert rows["dice"].isna().all()


def test_official_figures_stand_beside_the_right_ones(release, tmp_path):
    """Labels off by one have Dice 0, and 1 by the official code; a note says that they are shifted."""
    scan_id = phantom.CASES["two_series"]
    predict(release, tmp_path, scan_id, lambda mask: np.where(mask, mask + 1, 0).astype(np.uint8))
    made = release.evaluate(tmp_path, official_code=True)
    (scan,) = made.scans.to_dict(orient="records")
    assert (scan["dice"], scan["official_dice"], scan["shift"]) == (0.0, 1.0, 1)
    assert scan_id in made.notes[0]
    assert "one level too far down" in made.notes[0]


def stranger(release: Release, folder: Path) -> None:
    predict(release, folder, T13)
    (folder / f"{T13}.nii.gz").rename(folder / "verse93.nii.gz")


def twice(release: Release, folder: Path) -> None:
    predict(release, folder, T13)
    (folder / f"{T13}.nii").touch()


def other_grid(release: Release, folder: Path) -> None:
    mask = read_mask(release.path(T13, "mask"), name=T13)
    moved = mask.affine.copy()
    moved[0, 3] += 1
    folder.mkdir()
    write_nifti(folder / f"{T13}.nii.gz", mask.array, moved)


def cut(release: Release, folder: Path) -> None:
    predict(release, folder, T13, lambda mask: mask[:-1])


def consecutive(release: Release, folder: Path) -> None:
    predict(release, folder, T13, lambda mask: np.where(mask == 28, 26, mask).astype(np.uint8))


def other_axes(release: Release, folder: Path) -> None:
    folder.mkdir()
    points = [{"direction": ["R", "A", "S"]}, {"label": 20, "X": 1.0, "Y": 1.0, "Z": 1.0}]
    (folder / f"{T13}.json").write_text(json.dumps(points))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda *_: None, UsageError, "no folder"),
        (lambda _, folder: folder.mkdir(), UsageError, f"{phantom.CASES['pir']}.nii.gz"),
        (stranger, UsageError, r"verse93.nii.gz.*Did you mean"),
        (twice, UsageError, "two masks"),
        (other_grid, ValidationFailed, "1.00 mm apart.*predictions import"),
        (cut, ValidationFailed, "predictions import"),
        (consecutive, ValidationFailed, rf"{T13}.nii.gz.*import makes it 28"),
        (other_axes, ValidationFailed, f"{T13}.json.*voxel indices of the CT"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_predictions_that_cannot_be_scored_are_named(release, tmp_path, make, error, words):
    """A wrong name, a second mask, another grid and other labels say what to do, and score nothing."""
    folder = tmp_path / "made"
    make(release, folder)
    with pytest.raises(error, match=f"(?s){words}"):
        release.evaluate(folder)


def test_a_chosen_scan_without_a_prediction_is_refused(release, root, tmp_path):
    """Scans are not left out of the means unseen: neither chosen ones, nor those of a folder."""
    predict(release, tmp_path, T13)
    with pytest.raises(UsageError, match="verse901"):
        release.evaluate(tmp_path, scan_ids=[T13, "verse901"])
    assert "1 of the release's 8 scans with a mask were scored" in release.evaluate(tmp_path).notes
    done = verse_data("evaluate", "phantom", str(tmp_path), "--split", "test", "--root", str(root))
    assert (done.returncode, done.stdout) == (2, "")


def test_a_scan_without_a_true_mask_is_named(release, tmp_path):
    """What the release cannot be compared with is noted beside the scores of the others."""
    lacking = phantom.CASES["missing_derivative"]
    predict(release, tmp_path, T13)
    (tmp_path / f"{lacking}.nii.gz").write_bytes((tmp_path / f"{T13}.nii.gz").read_bytes())
    made = release.evaluate(tmp_path)
    assert made.scans["scan_id"].tolist() == [T13]
    assert any(note.startswith(lacking) for note in made.notes)


def test_an_import_is_scored_without_its_report(release, tmp_path):
    """The report that an import writes is no prediction and gets no note; endings may be capitals."""
    predict(release, tmp_path / "made", T13)
    import_predictions("folder", release, tmp_path / "made", tmp_path / "in")
    (tmp_path / "in" / f"{T13}.nii.gz").rename(tmp_path / "in" / f"{T13}.NII.GZ")
    made = release.evaluate(tmp_path / "in", scan_ids=[T13])
    assert (made.scans["dice"].tolist(), made.notes) == ([1.0], ())


def test_options_of_another_kind_of_prediction_are_refused(root, tmp_path):
    """A CSV has no scans to choose and no rules of masks, a folder no threshold: each is named."""
    folder = ("--split", "test", "--scan", T13, "--hit", "lt20", "--missing", "skip",
              "--additional", "zero", "--official-code", "--table", "scans", "--html", "a.html")  # fmt: skip
    for name, given in (("made.csv", folder), ("made", ("--threshold", "0.5"))):
        words = ("evaluate", "phantom", str(tmp_path / name), "--root", str(root))
        done = verse_data(*words, *given)
        assert (done.returncode, done.stdout) == (2, "")
        named = ", ".join(word for word in given if word.startswith("--"))
        assert f"Leave out {named}." in " ".join(done.stderr.split())


def outlined(page: str, level: str) -> list[int]:
    """Return how many pixels of each picture on a page have about the colour of a level."""
    colour = np.array(level_colour(level))
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    drawn = (np.asarray(Image.open(io.BytesIO(b64decode(one))), int) for one in found)
    return [int((np.abs(one - colour).max(axis=-1) < 40).sum()) for one in drawn]


def test_the_worst_scans_are_shown_as_truth_beside_prediction(release, root, tmp_path):
    """The lowest id rate comes first; a level that was not predicted is outlined half as often."""
    predict(release, tmp_path / "made", "verse901")
    predict(release, tmp_path / "made", T13, without(20))
    lacking = phantom.CASES["l6"]
    points = json.loads(release.path(lacking, "centroids").read_text())
    (tmp_path / "made" / f"{lacking}.json").write_text(json.dumps(points[:-2]))
    words = ("evaluate", "phantom", str(tmp_path / "made"), "--root", str(root))
    done = verse_data(*words, "--html", str(tmp_path / "worst.html"))
    assert (done.returncode, "Wrote" in done.stderr) == (0, True)
    page = (tmp_path / "worst.html").read_text()
    assert re.findall(r"<h2>(verse\d+)</h2>", page) == [lacking, T13, "verse901"]
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert "no person was scanned" in page
    assert len(outlined(page, "L1")) == 3

    predict(release, tmp_path / "perfect", T13)
    perfect, out = release.evaluate(tmp_path / "perfect"), tmp_path / "perfect.html"
    whole = release.write_worst(perfect, tmp_path / "perfect", out).read_text()
    (both,), (one,) = outlined(whole, "L1"), outlined(page, "L1")[1:2]
    assert 0 < one < 0.7 * both
    (tmp_path / "perfect" / f"{T13}.nii.gz").unlink()
    with pytest.raises(UsageError, match="no prediction"):
        release.write_worst(release.evaluate(tmp_path / "made"), tmp_path / "perfect", out)


@pytest.mark.filterwarnings("ignore::verse_data.IncompleteTable")
def test_a_scan_without_a_vertebra_is_last_and_has_no_empty_table(tmp_path, one_core):
    """Its mask is empty, and so is the predicted one; the page says that nothing can be scored."""
    for scan_id, labels in (("verse900", []), ("verse901", [20])):
        write_scan(tmp_path / "tree", scan_id, labels)
    vd.lock_tree("mylab", tmp_path / "tree", root=tmp_path)
    lab = vd.open_release("mylab", root=tmp_path)
    for scan_id in lab.series:
        made = predict(lab, tmp_path / "made", scan_id)
    page = lab.write_worst(lab.evaluate(made), made, tmp_path / "worst.html").read_text()
    assert re.findall("<h2>(verse90.)|(No vertebra)", page)[-2:] == [
        ("verse900", ""),
        ("", "No vertebra"),
    ]


def test_a_page_that_cannot_be_written_is_refused_before_scoring(release, root, tmp_path):
    """Hours of scores would be lost: nothing is printed, and the error says what a page is called."""
    predict(release, tmp_path / "made", T13)
    words = ("evaluate", "phantom", str(tmp_path / "made"), "--root", str(root))
    for name, said in (("worst.png", "ends in .html"), ("made", "ends in .html"), ("-", "stdout")):
        done = verse_data(*words, "--html", name if name == "-" else str(tmp_path / name))
        assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True)


def test_a_table_that_nothing_would_write_is_refused(root, tmp_path):
    """Which table to write is a question only of --csv and --out."""
    words = ("evaluate", "phantom", str(tmp_path), "--root", str(root), "--table", "scans")
    for more in ((), ("--json",)):
        done = verse_data(*words, *more)
        assert (done.returncode, "--csv or --out" in done.stderr) == (2, True)


def test_the_command_prints_tables_json_and_csv(release, root, tmp_path):
    """The same figures in print, as JSON alone on stdout, as CSV, and in a file."""
    for label, scan_id in ((20, T13), (21, "verse901")):
        predict(release, tmp_path / "made", scan_id, without(label))
    made = release.evaluate(tmp_path / "made", seed=1)
    words = ["evaluate", "phantom", str(tmp_path / "made"), "--root", str(root), "--seed", "1"]

    printed = verse_data(*words, "--out", str(tmp_path / "scans.csv"), "--table", "scans")
    assert printed.returncode == 0, printed.stderr
    assert "2 missing" in printed.stdout.splitlines()[0]
    over = made.summary.set_index(["over", "figure"]).loc[("vertebrae", "dice")]
    assert f"{over['mean']:.3f} [{over['low']:.3f}, {over['high']:.3f}]" in printed.stdout
    assert [row["scan_id"] for row in csv.DictReader(io.StringIO((tmp_path / "scans.csv").read_text()))] == [
        "verse901", T13
    ]  # fmt: skip

    told = json.loads(verse_data(*words, "--json").stdout)
    assert (told["lock"], told["seed"]) == (f"sha256:{release.lock.digest}", 1)
    assert len(told["vertebrae"]) == len(made.vertebrae)
    assert {row["mean"] for row in told["summary"] if row["figure"] == "dice"} == {
        round(value, 6) for value in made.summary.query("figure == 'dice'")["mean"]
    }

    rows = list(csv.DictReader(io.StringIO(verse_data(*words, "--csv").stdout)))
    missing = [(row["scan_id"], row["level"]) for row in rows if row["mask_status"] == "missing"]
    assert missing == [("verse901", "L2"), (T13, "L1")]


def test_fracture_scores_are_compared_with_the_workbook(release, root, tmp_path):
    """Scores that follow the grades have AUC 1; graded vertebrae that were not scored are counted."""
    graded = release.select("grade >= 0")
    rows = graded[["scan_id", "level"]].assign(score=graded["grade"] / 3, grade=graded["grade"])
    rows.iloc[1:].to_csv(tmp_path / "made.csv", index=False)
    made = release.evaluate_grades(tmp_path / "made.csv")
    assert made.figures.query("figure == 'auc'")["value"].tolist() == [1.0, 1.0]
    assert made.figures.query("by == 'grade'")["value"].tolist() == [1.0] * 7
    assert made.notes == ("not in the file: 1 graded vertebra of these scans",)
    words = ["evaluate", "phantom", str(tmp_path / "made.csv"), "--root", str(root)]
    told = json.loads(verse_data(*words, "--threshold", "0.2", "--json").stdout)
    assert {row["threshold"] for row in told["figures"] if row["by"] == "score"} == {None, 0.2}
    assert "1.000 [1.000, 1.000]" in verse_data(*words).stdout


@pytest.mark.parametrize(
    ("line", "words"), [("verse901,C1,1", "no such vertebra"), ("verse901,L1,1", "twice")]
)
def test_scores_of_no_vertebra_or_of_one_twice_are_refused(release, tmp_path, line, words):
    """The row is named, and nothing is scored."""
    path = tmp_path / "made.csv"
    path.write_text(f"scan_id,level,score\nverse901,L1,0.2\n{line}\n")
    with pytest.raises(ValidationFailed, match=f"row 3.*{words}"):
        release.evaluate_grades(path)


@pytest.mark.parametrize("scan_id", ["verse004", "verse010"])
def test_real_masks_are_scored(scan_id, shared, tmp_path, one_core):
    """A real mask against itself is perfect; with a vertebra less, its Dice falls by one share."""
    release = vd.lock_tree("verse19", shared / "data/verse19", root=tmp_path / "home")
    made = release.evaluate(predict(release, tmp_path / "made", scan_id))
    assert (made.scans.loc[0, "dice"], made.scans.loc[0, "id_rate"]) == (1.0, 1.0)
    last = int(made.vertebrae["label"].max())
    made = release.evaluate(predict(release, tmp_path / "made", scan_id, without(last)))
    number = len(made.vertebrae)
    assert made.scans.loc[0, "dice"] == pytest.approx((number - 1) / number)
