"""What is known of a release before any of it is here: a catalog entry, as data."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Final, Literal

from verse_data.records.base import Record, described
from verse_data.records.names import Role, Split

_CATALOG: Final = "catalog"
_HEX64: Final = r"^[0-9a-f]{64}$"
_HEX32: Final = r"^[0-9a-f]{32}$"

OTHERS: Final = "others"
"""Stands at the end of a list of authors that names the first ones only."""
_NAMED: Final = 3

Requirement = Literal["workbook", "vertebrae", "sex", "contrast"]


class ExpectedSeries(Record):
    """One CT series that the release is known to hold."""

    scan_id: Annotated[str, described("CT series", source=_CATALOG)]
    subject_id: Annotated[str, described("Person", source=_CATALOG)]
    series_label: Annotated[str | None, described("Value of the split- entity", source=_CATALOG)]
    split: Annotated[Split, described("Published split", source=_CATALOG)]
    series: Annotated[str, described("'k of n'", source=_CATALOG, pattern=r"^[0-9] of [0-9]$")]

    @property
    def series_id(self) -> str:
        """Name of the series alone, the key that is the same in both layouts."""
        return self.series_label or self.subject_id


class Supplement(Record):
    """A file that belongs to the release but lies elsewhere, such as a journal's supplement."""

    path: Annotated[str, described("Path that it gets in the release", source=_CATALOG)]
    size: Annotated[int, described("Size", unit="byte", source=_CATALOG, ge=0)]
    sha256: Annotated[str, described("SHA-256, lower-case hex", source=_CATALOG, pattern=_HEX64)]
    md5: Annotated[
        str | None, described("MD5, lower-case hex", source=_CATALOG, pattern=_HEX32)
    ] = None
    urls: Annotated[tuple[str, ...], described("Where it has been published", source=_CATALOG)] = ()
    title: Annotated[str, described("What it is", source=_CATALOG)] = ""


class KnownGap(Record):
    """A file that the source is known to lack, although the release had it."""

    scan_id: Annotated[str, described("CT series", source=_CATALOG)]
    roles: Annotated[tuple[Role, ...], described("What is missing", source=_CATALOG)]
    note: Annotated[str, described("Evidence", source=_CATALOG)] = ""


class ProseClaim(Record):
    """What the running text of the publication says, and its own table or data may not."""

    figure: Annotated[Literal["commonest_shape"], described("What it is about", source=_CATALOG)]
    says: Annotated[str, described("Its value", source=_CATALOG)]
    text: Annotated[str, described("The claim in words", source=_CATALOG)]


class Citation(Record):
    """A publication that users of the release cite."""

    authors: Annotated[
        tuple[str, ...],
        described(
            "Family name, comma, given names; 'others' at the end if there are more",
            source=_CATALOG,
            min_length=1,
        ),
    ]
    title: Annotated[str, described("Title of the article", source=_CATALOG)]
    journal: Annotated[str, described("Name of the journal", source=_CATALOG)]
    year: Annotated[int, described("Year of publication", source=_CATALOG, ge=1900)]
    volume: Annotated[str | None, described("Volume", source=_CATALOG)] = None
    number: Annotated[str | None, described("Issue", source=_CATALOG)] = None
    pages: Annotated[str | None, described("Pages, or article number", source=_CATALOG)] = None
    doi: Annotated[
        str, described("DOI without address", source=_CATALOG, pattern=r"^10\.[0-9]{4,9}/\S+$")
    ]

    @property
    def text(self) -> str:
        """Authors (the first three), title, journal and year in one line."""
        names = [_short(name) for name in self.authors if name != OTHERS]
        more = len(names) > _NAMED or OTHERS in self.authors
        who = ", ".join(names[:_NAMED]) + (", et al." if more else ".")
        place = self.volume or ""
        place += f"({self.number})" if self.number else ""
        place += f":{self.pages}" if self.pages else ""
        return f"{who} {self.title}. {self.journal} {self.year}{';' if place else ''}{place}."


def _short(name: str) -> str:
    """Turn ``Löffler, Maximilian T.`` into ``Löffler MT``."""
    family, _, given = name.partition(", ")
    return f"{family} {''.join(part[0] for part in re.split(r'[ -]', given) if part)}".strip()


class PublishedFigure(Record):
    """One cell of a published table."""

    figure: Annotated[str, described("Name of the row, such as fractures", source=_CATALOG)]
    group: Annotated[
        Literal["all", "training", "validation", "test"], described("Column", source=_CATALOG)
    ]
    expected: Annotated[
        str, described("The number as printed", source=_CATALOG, pattern=r"^\d+(\.\d+)?$")
    ]
    needs: Annotated[Requirement, described("What it takes to recompute it", source=_CATALOG)]
    title: Annotated[str, described("The row's heading", source=_CATALOG)]


class CatalogEntry(Record):
    """All that is known of one release."""

    name: Annotated[
        str, described("Name of the release", source=_CATALOG, pattern=r"^[a-z0-9][a-z0-9_-]*$")
    ]
    title: Annotated[str, described("One line", source=_CATALOG)]
    osf_node: Annotated[str | None, described("OSF node that holds the files", source=_CATALOG)] = (
        None
    )
    osf_parent: Annotated[
        str | None, described("OSF node that holds the DOI, and no files", source=_CATALOG)
    ] = None
    doi: Annotated[str | None, described("DOI of the data", source=_CATALOG)] = None
    licence: Annotated[str, described("SPDX identifier of the data's licence", source=_CATALOG)]
    attribution: Annotated[
        str, described("Line that redistributed copies must carry", source=_CATALOG)
    ]
    creators: Annotated[
        tuple[str, ...],
        described("Who made the data, written like the authors of a citation", source=_CATALOG),
    ] = ()
    citations: Annotated[
        tuple[Citation, ...], described("Publications to cite", source=_CATALOG)
    ] = ()
    roots: Annotated[
        dict[Split, tuple[str, ...]],
        described("Folder names known for each split", source=_CATALOG),
    ]
    expected: Annotated[
        tuple[ExpectedSeries, ...], described("The series of the release", source=_CATALOG)
    ] = ()
    supplements: Annotated[
        tuple[Supplement, ...], described("Files from elsewhere", source=_CATALOG)
    ] = ()
    known_gaps: Annotated[
        tuple[KnownGap, ...], described("Files that the source lacks", source=_CATALOG)
    ] = ()
    figures: Annotated[
        tuple[PublishedFigure, ...], described("Published numbers", source=_CATALOG)
    ] = ()
    prose: Annotated[
        tuple[ProseClaim, ...],
        described("What the publication's text says beside its numbers", source=_CATALOG),
    ] = ()

    @cached_property
    def subject_of_series(self) -> dict[str, str]:
        """Subject of each expected series, by the series' own name."""
        return {series.series_id: series.subject_id for series in self.expected}
