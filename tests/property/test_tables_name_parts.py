"""File names that nobody has written yet say what they were made of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from verse_data.records.names import FileName, parse_path

SUFFIX = {
    "ct": "ct.nii.gz",
    "ct_json": "ct.json",
    "mask": "seg-vert_msk.nii.gz",
    "centroids": "seg-subreg_ctd.json",
    "snapshot": "seg-vert_snp.png",
}
WORD = st.text("abcXYZ019", min_size=1, max_size=6)
KEY = st.one_of(st.sampled_from(["ses", "split", "dir", "ce"]), WORD).filter(
    lambda key: key not in {"sub", "seg"}
)


@given(
    st.sampled_from(sorted(SUFFIX)),
    WORD,
    st.lists(st.tuples(KEY, WORD), max_size=4, unique_by=lambda pair: pair[0]),
)
@settings(max_examples=300, deadline=None)
def test_any_parts_are_read_back(role: str, subject: str, entities: list[tuple[str, str]]) -> None:
    """Role, subject and entities are those of the name, unknown entities and any order included."""
    words = [f"sub-{subject}", *(f"{key}-{value}" for key, value in entities), SUFFIX[role]]

    assert parse_path(f"any/folder/{'_'.join(words)}") == FileName(
        role=role,  # type: ignore[arg-type]
        subject_id=subject,
        series_label=dict(entities).get("split"),
        entities=tuple(entities),
    )


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_name_or_none(text: str) -> None:
    """No text makes the parser fail, and what it accepts has a scan or is the workbook."""
    name = parse_path(text)

    assert name is None or name.role == "grading" or name.scan_id.startswith(name.subject_id)
