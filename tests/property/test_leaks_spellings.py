"""However the entries of a split are spelled, exactly the patients on two sides are found."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from verse_data.records.names import SUBJECT_OF_SERIES
from verse_data.tables.leaks import find_leaks

SINGLE = [f"verse{number:03d}" for number in (4, 5, 7, 8, 14, 31, 290 - 1, 500, 833)] + [
    "gl003",
    "gl016",
]
SERIES = [(series, subject) for series, subject in sorted(SUBJECT_OF_SERIES.items())[:12]]
SCANS = [(name, name) for name in SINGLE] + SERIES


def spellings(series: str, subject: str) -> list[object]:
    """Return ways in which people write one CT series."""
    number = int(series[-3:])
    stem = subject if series == subject else f"{subject}_split-{series}"
    written: list[object] = [
        stem,
        f"sub-{stem}",
        f"sub-{stem}_ct.nii.gz",
        f"/data/verse19/rawdata/sub-{subject}/sub-{stem}_ct.nii.gz",
        f"derivatives\\sub-{subject}\\sub-{stem}_seg-vert_msk.nii.gz",
        f"{series}.nii.gz",
        f"{series.upper()}_seg.nii.gz",
        f"crops/{stem}/T12_{number}.npy",
        f"sub-{series}/anat/{series}_0000.nii.gz",
        f"verse20-{series}_0000.nii.gz",
    ]
    if series.startswith("verse"):
        padded = f"{number:03d}"
        written += [
            f"sub-verse{number}_ct.nii.gz",
            f"sub-verse{number}_seg-vert_msk.nii.gz",
            f"sub-{padded}",
            f"sub-{number}_ct.nii.gz",
            f"sub-{padded}_ct.nii.gz",
            f"sub-{padded}/T12.npy",
            f"sub-{subject}_split-{padded}_ct.nii.gz",
            f"verse19_{padded}",
            f"VerSe20_{padded}",
            f"verse19-{padded}.nii.gz",
            f"imagesTr/verse19_{padded}_0000.nii.gz",
            f"/data/verse19_160/{padded}.nii.gz",
            f"verse{number}_ct.nii.gz",
        ]
        written += [series, number, str(number), f"{number:03d}", f"{number}.0", f"verse{number}"]
    return written


def entries() -> st.SearchStrategy[list[tuple[str, object]]]:
    """Return entries of one side, each with the patient behind it."""
    one = st.sampled_from(SCANS).flatmap(
        lambda scan: st.tuples(st.just(scan[1]), st.sampled_from(spellings(*scan)))
    )
    return st.lists(one, min_size=1, max_size=10)


@settings(max_examples=150, deadline=None)
@given(train=entries(), val=entries())
def test_exactly_the_patients_on_two_sides_are_found(
    train: list[tuple[str, object]], val: list[tuple[str, object]]
) -> None:
    """No leak is missed, none is made up, and no entry is lost."""
    report = find_leaks({"train": [e for _, e in train], "val": [e for _, e in val]})
    sides = {subject for subject, _ in train}, {subject for subject, _ in val}

    assert {leak.subject_id for leak in report.leaks} == sides[0] & sides[1]
    assert report.unknown == ()
    assert report.patients == {"train": len(sides[0]), "val": len(sides[1])}
