"""What circulates of single scans of VerSe'20: measured in each file, and told with a rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.releases import PIR, SHAPE, tables, write_scan
from verse_data.releases.catalog import load_catalog
from verse_data.volumes.nifti import write_nifti

VERSE20 = load_catalog("verse20")
LUMBAR = [20, 21, 22, 23, 24]


def write_ct(root: Path, stem: str, *, affine=PIR, low: int = -1024, high: int = 700) -> None:
    """Replace the CT of a scan."""
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[0, 0, :2] = low, high
    (path,) = root.rglob(f"sub-{stem}_ct.nii.gz")
    write_nifti(path, image, affine)


def findings(root: Path, *rules: str, without: str = "nothing") -> pd.DataFrame:
    """Return the findings of these rules in a tree of scans of VerSe'20."""
    found = tables(root, catalog=VERSE20, without=without).findings
    return found[found["rule"].isin(rules)]


def sheared(angle: float) -> np.ndarray:
    """Return PIR with its third axis turned by some degrees towards the first."""
    affine = PIR.copy()
    affine[:3, 2] += np.tan(np.radians(angle)) * 2.0 * affine[:3, 0]
    return affine


@pytest.mark.parametrize(
    ("angle", "is_told"), [(0.0, False), (0.003, False), (0.02, True), (3.0, True)]
)
def test_axes_that_itk_refuses_are_a_finding(
    tmp_path: Path, angle: float, *, is_told: bool
) -> None:
    """From its own tolerance on, with the angle; an oblique grid is none of them."""
    write_scan(tmp_path / "tree", "verse525_dir-sag", LUMBAR)
    write_ct(tmp_path / "tree", "verse525_dir-sag", affine=sheared(angle))

    found = findings(tmp_path / "tree", "not-orthonormal")

    assert list(found["file"].str.endswith("_ct.nii.gz")) == [True] * is_told
    assert found["message"].str.contains(f"by {angle:.2g} degrees").all()


@pytest.mark.parametrize(
    ("low", "high", "rules"),
    [
        (-1024, 3071, []),
        (-1200, 3600, []),
        (-3024, 700, ["ct-padding"]),
        (-1024, 10110, ["ct-metal"]),
    ],
)
def test_values_beyond_a_ct_are_notes(
    tmp_path: Path, low: int, high: int, rules: list[str]
) -> None:
    """Padding of -3024 HU and metal of 10,110 HU are told; overshoot of an interpolation is not."""
    write_scan(tmp_path / "tree", "verse500_dir-ax", LUMBAR)
    write_ct(tmp_path / "tree", "verse500_dir-ax", low=low, high=high)

    found = findings(tmp_path / "tree", "ct-padding", "ct-metal")

    assert list(found["rule"]) == rules
    assert set(found["severity"]) <= {"note"}


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ([20, 21, 22, 23, 24, 25], "l6"),
        ([19, 28, 20], "t13"),
        ([17, 18, 20, 21], "no-t12"),
        ([22, 23, 24], None),
        ([22, 23], None),
    ],
)
def test_rare_levels_are_notes(tmp_path: Path, labels: list[int], rule: str | None) -> None:
    """L6, T13 and a missing T12; a scan may end at any level."""
    write_scan(tmp_path / "tree", "verse627", labels, split="validation")

    found = findings(tmp_path / "tree", "l6", "t13", "no-t12", "no-l5")

    assert list(found["rule"]) == [rule] * (rule is not None)


def test_labels_that_end_above_the_end_of_the_image_are_a_note(tmp_path: Path) -> None:
    """L4 is the last label, and a whole vertebra lies below it in the image."""
    write_scan(
        tmp_path / "tree", "verse627", [20, 21, 22, 23], split="validation", mask_shape=(12, 140, 6)
    )

    (message,) = findings(tmp_path / "tree", "no-l5", without="_ct.nii.gz")["message"]

    assert "goes on for 122 mm below" in message


REPORTED = [
    ("verse588", [18, 19, 28, 20], "labels above 25", "its files show it (t13)"),
    ("verse602_dir-iso", LUMBAR, "labels above 25", "nothing of the kind (t13, label-unknown)"),
    ("verse525_dir-sag", LUMBAR, "nnU-Net", "show nothing of the kind (not-orthonormal, mask-"),
    ("verse585", [*LUMBAR, 25], "sixth lumbar", "its files show it (l6)"),
]


@pytest.mark.parametrize(("scan_id", "labels", "says", "verdict"), REPORTED)
def test_what_others_say_of_a_scan_is_measured(
    tmp_path: Path, scan_id: str, labels: list[int], says: str, verdict: str
) -> None:
    """A list is no reason: each scan says whether its own files show what it is listed for."""
    write_scan(tmp_path / "tree", scan_id, labels)

    found = findings(tmp_path / "tree", "reported")

    (message,) = found["message"][found["message"].str.contains(says)]
    assert verdict in message
    assert set(found["severity"]) == {"note"}


def test_a_skewed_file_explains_why_a_converter_left_it_out(tmp_path: Path) -> None:
    """The rule that fits is named; what cannot be read yet says nothing."""
    write_scan(tmp_path / "tree", "verse641_dir-ax", LUMBAR)
    write_ct(tmp_path / "tree", "verse641_dir-ax", affine=sheared(0.5))

    (message,) = findings(tmp_path / "tree", "reported")["message"]

    assert message.endswith("its files show it (not-orthonormal)")
    assert findings(tmp_path / "tree", "reported", without="_ct.nii.gz").empty


def test_unconfirmed_terms_are_shown(tmp_path: Path) -> None:
    """Of gl series alone, and nothing is left out for it."""
    write_scan(tmp_path / "tree", "gl003_dir-ax", LUMBAR)
    write_scan(tmp_path / "tree", "verse500_dir-ax", LUMBAR[:3])

    made = tables(tmp_path / "tree", catalog=VERSE20)

    told = made.findings[made.findings["rule"] == "terms"]
    assert list(told["scan_id"]) == ["gl003_dir-ax"]
    assert "unconfirmed" in told["message"].iloc[0]
    assert list(made.scans["edition"]) == ["verse20", "verse20"]
