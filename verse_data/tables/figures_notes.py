"""What a report of the published figures says beside its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from verse_data.records.catalog import CatalogEntry
from verse_data.records.grading import FRACTURE_TYPES
from verse_data.records.tables import PatientRow
from verse_data.tables.grading import Grading

_SHOWN: Final = 20


def strangers(patients: Iterable[PatientRow], entry: CatalogEntry) -> tuple[str, ...]:
    """Return a line for the rows whose subject the release does not have, if it is known whole."""
    known = set(entry.subject_of_series.values())
    lines = []
    for patient in patients:
        if not known or patient.subject_id in known:
            continue
        person = entry.subject_of_series.get(patient.subject_id)
        lines.append(
            f"{patient.subject_id} (a series of {person})" if person else patient.subject_id
        )
    if not lines:
        return ()
    more = ", ..." if len(lines) > _SHOWN else ""
    text = (
        f"{len(lines)} subjects of the patient table are not in {entry.name}, and count for nothing"
    )
    return (f"{text}: {', '.join(lines[:_SHOWN])}{more}",)


def contradictions(entry: CatalogEntry, grading: Grading | None) -> Iterator[str]:
    """Yield each claim of the publication's text that its whole workbook contradicts."""
    if grading is None or len(grading.rows) < len(entry.expected):
        return
    shapes: Counter[object] = Counter(
        shape for graded in grading.rows for shape in graded.row.shapes.values()
    )
    counts = {name: shapes[code] for code, name in enumerate(FRACTURE_TYPES) if code}
    ranked = sorted(counts, key=lambda name: -counts[name])
    for claim in entry.prose:
        if claim.figure == "commonest_shape" and claim.says != ranked[0]:
            found = ", ".join(f"{counts[name]} {name}" for name in ranked)
            yield f"{claim.text}, and the workbook has {found}"
