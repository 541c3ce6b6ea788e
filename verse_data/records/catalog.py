"""A catalog entry: what is known of a release before any of it is downloaded."""

from __future__ import annotations

import re
from functools import cached_property, partial
from typing import Annotated, Final, Literal

from pydantic import Field

from verse_data.records.base import Record, described
from verse_data.records.names import Role, Split

_field: Final = partial(described, source="catalog")
_DOI: Final = r"^10\.[0-9]{4,9}/\S+$"
_HEX64: Final = r"^[0-9a-f]{64}$"
_HEX32: Final = r"^[0-9a-f]{32}$"

_Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]

OTHERS: Final = "others"
"""Last entry of a list that names only the first authors."""
_AUTHORS_SHOWN: Final = 3

Requirement = Literal["workbook", "vertebrae", "sex", "contrast"]


class ExpectedSeries(Record):
    """One CT series that the release is known to hold."""

    scan_id: str = _field("CT series")
    subject_id: str = _field("Person")
    series_label: str | None = _field("Value of the split- entity")
    split: Split = _field("Published split")
    series: str = _field("'k of n'", pattern="^[0-9] of [0-9]$")
    edition: str | None = _field(
        "Editions of the data set that it belongs to, such as verse19+verse20", default=None
    )
    terms: str | None = _field(
        "Terms of its imaging where these are not the release's licence: an SPDX identifier, or "
        "'unconfirmed'",
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$",
    )

    @property
    def direction(self) -> str:
        """The dir- entity, in which VerSe'20 names the plane of a reformation; empty without one."""
        return self.scan_id.partition("_dir-")[2]

    @property
    def series_id(self) -> str:
        """Name of the series alone, the key that is the same in both layouts."""
        return self.series_label or self.subject_id


class Supplement(Record):
    """A file that belongs to the release but lies elsewhere, such as a journal's supplement."""

    path: str = _field("Path that it gets in the release")
    size: int = _field("Size", unit="byte", ge=0)
    sha256: str = _field("SHA-256, lower-case hex", pattern=_HEX64)
    md5: str | None = _field("MD5, lower-case hex", default=None, pattern=_HEX32)
    urls: tuple[str, ...] = _field("Where it has been published", default=())
    title: str = _field("What it is", default="")


class KnownGap(Record):
    """A file that the source is known to lack, although the release had it."""

    scan_id: str = _field("CT series")
    roles: tuple[Role, ...] = _field("What is missing")
    note: str = _field("Evidence", default="")


class Reported(Record):
    """What others say is wrong or unusual in scans, and the findings that would show it."""

    scan_ids: tuple[str, ...] = _field("CT series; empty where the source names none", default=())
    says: str = _field("What they say")
    rules: tuple[str, ...] = _field("Rules of findings that measure it", min_length=1)
    source: str = _field("Who says it")


class PublishedCount(Record):
    """A published number of a whole edition, which may lie in several releases."""

    edition: str = _field("Edition, or several joined with +")
    what: str = _field("What was counted")
    group: Literal["all", "training", "validation", "test"] = _field("Split")
    number: int = _field("As published", ge=0)
    source: str = _field("Where it was published")


class ProseClaim(Record):
    """What the running text of the publication says, and its own table or data may not."""

    figure: Literal["commonest_shape"] = _field("What it is about")
    says: str = _field("Its value")
    text: str = _field("The claim in words")


class Citation(Record):
    """A publication that users of the release cite."""

    authors: tuple[str, ...] = _field(
        "Family name, comma, given names; 'others' at the end if there are more", min_length=1
    )
    title: str = _field("Title of the article")
    journal: str = _field("Name of the journal")
    year: int = _field("Year of publication", ge=1900)
    volume: str | None = _field("Volume", default=None)
    number: str | None = _field("Issue", default=None)
    pages: str | None = _field("Pages, or article number", default=None)
    doi: str = _field("DOI without address", pattern=_DOI)

    @property
    def text(self) -> str:
        """Authors (the first three), title, journal and year in one line."""
        names = [_short(name) for name in self.authors if name != OTHERS]
        more = len(names) > _AUTHORS_SHOWN or OTHERS in self.authors
        who = ", ".join(names[:_AUTHORS_SHOWN]) + (", et al." if more else ".")
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

    figure: str = _field("Name of the row, such as fractures")
    group: Literal["all", "training", "validation", "test"] = _field("Column")
    expected: str = _field("The number as printed", pattern=r"^\d+(\.\d+)?$")
    needs: Requirement = _field("What it takes to recompute it")
    title: str = _field("The row's heading")


class PublishedResult(Record):
    """One number of the running text of a publication, ``results.csv``."""

    result: str = _field("Which number, such as fractured_age_mean", pattern="^[a-z_]+$")
    expected: str = _field("As printed; '> .05' of a P value", pattern=r"^\d+(\.\d+)?$|^> 0?\.\d+$")


class About(Record):
    """What the owner of a release says of it in ``about.toml``, as the catalog does of published ones."""

    title: str = _field("One line", min_length=1, max_length=200)
    licence: str = _field(
        "SPDX identifier of the data's licence, or LicenseRef- and a name of your own",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$",
    )
    attribution: str = _field("Line that copies must carry", min_length=1)
    terms: dict[str, _Identifier] = _field(
        "Licence of single scans, by scan id, where it is another", default={}
    )
    creators: tuple[str, ...] = _field(
        "Who made the data, written like the authors of a citation", default=()
    )
    doi: str | None = _field("DOI of the data", default=None, pattern=_DOI)
    citations: tuple[Citation, ...] = _field("Publications to cite", default=())


class CatalogEntry(Record):
    """All that is known of one release."""

    name: str = _field("Name of the release", pattern="^[a-z0-9][a-z0-9_-]*$")
    title: str = _field("One line")
    osf_node: str | None = _field("OSF node that holds the files", default=None)
    osf_parent: str | None = _field("OSF node that holds the DOI, and no files", default=None)
    doi: str | None = _field("DOI of the data", default=None)
    licence: str = _field("SPDX identifier of the data's licence")
    attribution: str = _field("Line that redistributed copies must carry")
    creators: tuple[str, ...] = _field(
        "Who made the data, written like the authors of a citation", default=()
    )
    citations: tuple[Citation, ...] = _field("Publications to cite", default=())
    roots: dict[Split, tuple[str, ...]] = _field("Folder names known for each split")
    terms: dict[str, _Identifier] = _field("Licence of scans that have another", default={})
    expected: tuple[ExpectedSeries, ...] = _field("The series of the release", default=())
    supplements: tuple[Supplement, ...] = _field("Files from elsewhere", default=())
    known_gaps: tuple[KnownGap, ...] = _field("Files that the source lacks", default=())
    figures: tuple[PublishedFigure, ...] = _field("Published numbers", default=())
    prose: tuple[ProseClaim, ...] = _field(
        "What the publication's text says beside its numbers", default=()
    )

    reported: tuple[Reported, ...] = _field("What others say of scans", default=())
    counts: tuple[PublishedCount, ...] = _field("Published numbers of an edition", default=())

    @cached_property
    def by_series(self) -> dict[str, ExpectedSeries]:
        """The expected series by their own names, the same in both layouts."""
        return {series.series_id: series for series in self.expected}

    @property
    def subject_of_series(self) -> dict[str, str]:
        """Subject of each expected series, by the series' own name."""
        return {name: series.subject_id for name, series in self.by_series.items()}
