"""File names: parts to name and back, for names that nobody has written yet."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from verse_data.records.names import FileName, parse_path

SUFFIX = {
    "ct": ("", ".nii.gz"),
    "ct_json": ("", ".json"),
    "mask": ("seg-vert", ".nii.gz"),
    "centroids": ("seg-subreg", ".json"),
    "snapshot": ("seg-vert", ".png"),
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
def test_any_parts_round_trip(role: str, subject: str, entities: list[tuple[str, str]]) -> None:
    """Formatting and parsing are inverse, unknown entities and any order included."""
    marker, extension = SUFFIX[role]
    name = FileName(
        role=role,  # type: ignore[arg-type]
        extension=extension,
        subject_id=subject,
        series_label=dict(entities).get("split"),
        entities=tuple(entities),
        marker=marker,
    )

    assert parse_path(f"any/folder/{name.format()}") == name


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_name_or_none(text: str) -> None:
    """No text makes the parser fail, and what it accepts has a scan or is the workbook."""
    name = parse_path(text)

    assert name is None or name.role == "grading" or name.scan_id.startswith(name.subject_id)
