"""Files of splits: which entries are on which side, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verse_data.errors import UsageError, ValidationFailed
from verse_data.tables.leaks import find_leaks
from verse_data.tables.split_files import read_splits


def test_files_of_splits_are_read(tmp_path: Path) -> None:
    """A list for each side, MONAI's datalist, nnU-Net's folds and our own are understood."""
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"train": [4, "verse005"], "val": ["006"], "note": "mine"}))
    monai = tmp_path / "monai.json"
    items = [{"image": "imagesTr/verse004.nii.gz", "label": "labelsTr/verse004.nii.gz"}]
    monai.write_text(json.dumps({"training": items, "validation": items}))
    nnunet = tmp_path / "splits_final.json"
    nnunet.write_text(json.dumps([{"train": ["verse004"], "val": ["verse005"]}] * 2))
    (tmp_path / "a.txt").write_text("# mine\nverse004\n\nverse005,extra\n")
    (tmp_path / "b.txt").write_text('"verse006"\r\n')

    assert read_splits([str(plain)]) == {"": {"train": [4, "verse005"], "val": ["006"]}}
    assert read_splits([str(monai)])[""]["training"] == ["imagesTr/verse004.nii.gz"]
    assert list(read_splits([str(nnunet)])) == ["fold 0", "fold 1"]
    assert read_splits([f"train={tmp_path}/a.txt", f"val={tmp_path}/b.txt"]) == {
        "": {"train": ["verse004", "verse005"], "val": ["verse006"]}
    }


def test_folds_of_a_datalist_are_sides(tmp_path: Path) -> None:
    """MONAI's fold key divides a list: two series of one patient in two folds leak; transforms are none."""
    path = tmp_path / "datalist.json"
    training = [
        {"fold": 0, "image": "verse201", "label": "verse201_seg"},
        {"fold": 1, "image": "verse253"},
        {"fold": 1.0, "image": ["verse005_0000.nii.gz", "verse005_0001.nii.gz"]},
        {"label": "verse014_seg.nii.gz", "image": "verse014.nii.gz"},
    ]
    transforms = [{"_target_": "RandZoomd", "prob": 0.2}]
    lists = {"training": training, "testing": [{"image": "verse004"}], "transform": transforms}
    path.write_text(json.dumps(lists))
    sides = read_splits([str(path)])[""]

    assert sides == {
        "training fold 0": ["verse201"],
        "training fold 1": ["verse253", "verse005_0000.nii.gz", "verse005_0001.nii.gz"],
        "training": ["verse014.nii.gz"],
        "testing": ["verse004"],
    }
    assert [leak.subject_id for leak in find_leaks(sides).leaks] == ["verse401"]

    path.write_text(json.dumps(training))
    assert list(read_splits([str(path)])[""]) == ["fold 0", "fold 1", "no fold"]
    path.write_text(json.dumps({"training": [{"fold": [0], "image": "verse004"}]}))
    with pytest.raises(ValidationFailed, match=r"the fold \[0\]"):
        read_splits([str(path)])


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (",scan_id\n0,verse004\n1,verse005\n", ["verse004", "verse005"]),
        ("Unnamed: 0,subject_id,scan_id\n0,verse401,verse201\n", ["verse201"]),
        ("verse_ID,split\n4,test\n,test\n", ["4", ""]),
        ("grade;Image\n1;verse004.nii.gz\n", ["verse004.nii.gz"]),
        ("# of July\n\nimage\tlabel\nimg/verse004.nii.gz\tx\n", ["img/verse004.nii.gz"]),
        ('"subject_id"\n"verse004"\n', ["verse004"]),
        ("verse004,extra\nverse005\n", ["verse004", "verse005"]),
        ("", []),
    ],
)
def test_heading_names_the_column_of_a_csv_file(tmp_path: Path, text: str, entries) -> None:
    """The entries are those of the column of scans, and a heading or an index is none."""
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.txt").write_text("verse006\n")

    specs = [f"train={tmp_path}/a.csv", f"val={tmp_path}/b.txt"]
    assert read_splits(specs)[""]["train"] == entries


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",who\n0,verse004\n", "to_csv"),
        ("Unnamed: 0,who\n0,verse004\n", "none of its headings"),
        ("mine,yours\n0,verse004\n", "none of its headings \\('mine', 'yours'\\)"),
        ("0,verse004\n1,verse005\n", "counts 0, 1, 2"),
    ],
)
def test_csv_file_without_a_clear_column_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """An index is not read as verse000, verse001, and no column is guessed."""
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.txt").write_text("verse006\n")

    with pytest.raises(ValidationFailed, match=words):
        read_splits([f"train={tmp_path}/a.csv", f"val={tmp_path}/b.txt"])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"kind": "verse-data folds", "folds": [1, 2]}', ValidationFailed),
        ('{"kind": "verse-data folds", "folds": [{"scans": 5}]}', ValidationFailed),
        ('{"folds": {"a": 1}}', ValidationFailed),
        ('{"scans": 5}', ValidationFailed),
        ('[{"train": 5}]', ValidationFailed),
        ("[]", ValidationFailed),
        ('{"train": ["verse004"]}', ValidationFailed),
        ("3", ValidationFailed),
        ("not json", ValidationFailed),
        (None, UsageError),
    ],
)
def test_files_that_are_no_split_are_refused(tmp_path: Path, content: str | None, error) -> None:
    """Another JSON, fewer than two lists, no JSON and no file each have their error."""
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(error, match=r"split\.json"):
        read_splits([str(path)])


def test_arguments_of_no_known_form_are_refused(tmp_path: Path) -> None:
    """One side alone, and one side twice, are told."""
    with pytest.raises(UsageError, match=r"train=train\.txt val=val\.txt"):
        read_splits(["a.txt", "b.txt"])
    with pytest.raises(UsageError, match="each side once"):
        read_splits(["a=1.txt", "a=2.txt"])
    with pytest.raises(UsageError, match="each side once"):
        read_splits(["train=1.txt"])


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        (
            "scan_id,split\nverse201,train\nverse005,val\n",
            {"": {"train": ["verse201"], "val": ["verse005"]}},
        ),
        (
            "subject;series;Set\nverse201;1 of 2;train\nverse005;1 of 1;\n",
            {"": {"no side": ["verse005"], "train": ["verse201"]}},
        ),
        (
            "scan_id,fold\nverse201,1.0\nverse253,0.0\nverse004,testing\n",
            {"": {"fold 0": ["verse253"], "fold 1": ["verse201"], "fold testing": ["verse004"]}},
        ),
        (
            "scan_id,split,fold\nverse201,training,1\nverse253,training,0\nverse004,testing,\n",
            {
                "": {
                    "testing": ["verse004"],
                    "training fold 0": ["verse253"],
                    "training fold 1": ["verse201"],
                }
            },
        ),
        (
            "name,fold,side\na,0,train\nb,0,val\nb,1,train\na,1,val\nc,,test\n",
            {
                "fold 0": {"train": ["a"], "val": ["b"], "test": ["c"]},
                "fold 1": {"train": ["b"], "val": ["a"], "test": ["c"]},
            },
        ),
        (
            "name,fold,side\na,0,train\nb,0,val\nc,1,train\na,1,val\n",
            {
                "": {
                    "train fold 0": ["a"],
                    "train fold 1": ["c"],
                    "val fold 0": ["b"],
                    "val fold 1": ["a"],
                }
            },
        ),
    ],
    ids=["side", "blank side", "fold", "side and fold", "lists of each fold", "unlike lists"],
)
def test_a_csv_file_says_the_side_or_fold_of_each_row(tmp_path: Path, text, splits) -> None:
    """Folds are sides, unless each lists all entries anew: then each is a split by itself."""
    path = tmp_path / "split.csv"
    path.write_text(text)

    assert read_splits([str(path)]) == splits


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "scan_id,grade\nverse004,1\n", "no column is called split or fold"),
        ("a.csv", "split,grade\ntrain,1\n", "no column is called scan_id"),
        ("a.tsv", "", "no column is called scan_id"),
        ("a.csv", "scan_id,split\nverse004,train\n", "one side: train"),
        ("a.csv", "scan_id,split\n", "one side: none"),
    ],
)
def test_a_csv_file_without_sides_is_refused(tmp_path: Path, name, text, words) -> None:
    """What lacks entries, sides, or a second side is told with the columns that are needed."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ValidationFailed, match=words):
        read_splits([str(path)])


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    """splits_final.pkl of nnU-Net v1 could run programs; the error says what to do."""
    path = tmp_path / "splits_final.pkl"
    path.write_bytes(b"cos\nsystem\n")

    with pytest.raises(UsageError, match=r"json\.dump"):
        read_splits([str(path)])


def test_each_folder_with_lists_is_a_split(tmp_path: Path) -> None:
    """A list for each side; folders of folders; what is no list, or alone, is left out."""
    for name, text in {
        "cv/0/train.txt": "verse201\nverse005\n",
        "cv/0/val.txt": "verse401_verse253_CT-sag\n",
        "cv/1/train.csv": "scan_id,grade\nverse004,1\n",
        "cv/1/test.csv": "GL003\n",
        "cv/0/landmarks.csv": "verse004,1,2,3\n",
        "cv/notes.md": "mine",
        "all.txt": "verse004\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    splits = read_splits([str(tmp_path)])

    assert splits == {
        "cv/0": {"train": ["verse201", "verse005"], "val": ["verse401_verse253_CT-sag"]},
        "cv/1": {"test": ["GL003"], "train": ["verse004"]},
    }
    assert [leak.subject_id for leak in find_leaks(splits["cv/0"]).leaks] == ["verse401"]
    assert read_splits([f"{tmp_path}/cv/0"]) == {"": splits["cv/0"]}
    (tmp_path / "cv/0/val.txt").unlink()
    with pytest.raises(ValidationFailed, match="two lists or more"):
        read_splits([f"{tmp_path}/cv/0"])
