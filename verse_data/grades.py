"""The grading workbook of one version of a release, and what is said where it is not on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from verse_data.errors import ContentMissing
from verse_data.records.catalog import CatalogEntry
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.tables.index import Index, index_scans

_E1: Final = (
    "supplement E1 of Löffler et al. 2020, Radiology: Artificial Intelligence, "
    "https://doi.org/10.1148/ryai.2020190138"
)
_HOLDS: Final = "fracture grades, foreign material, bone density, ages"


@dataclass(frozen=True)
class Workbook:
    """Whether the grades of a version are here or can be had, and the errors where they are not."""

    files: Repository
    version: str
    index: Index
    catalog: CatalogEntry | None

    @property
    def is_listed(self) -> bool:
        """Whether the version lists a workbook."""
        return bool(self.index.grading)

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return any(self.files.has(file) for file in self.index.grading)

    @property
    def can_be_fetched(self) -> bool:
        """Whether an address, or a sibling in a folder, may give it."""
        listed = self.index.grading
        return bool(listed) and (
            bool(self.files.siblings()) or any(self.files.addresses(file) for file in listed)
        )

    def absence(self) -> str:
        """Return what the workbook is that is not here, where it is found, and what to type then."""
        supplements = self.catalog.supplements if self.catalog else ()
        published = {extra.sha256: extra.path for extra in supplements}
        for file in self.index.grading:
            what = f"The grading workbook {file.path} ({_HOLDS}) is not on this machine"
            if self.can_be_fetched:
                return f"{what}. Fetch it: {self._command('get', '--role', 'grading')}"
            adopt = self._command("adopt", file.path.rsplit("/", 1)[-1])
            if file.sha256 in published:
                return (
                    f"{what}. It is {_E1}; OSF does not have it. Download it there, then: {adopt}"
                )
            return f"{what}. Bring it from where the release was made: {adopt}"
        what = f"{self.files.name} {self.version} lists no grading workbook ({_HOLDS})"
        if later := self._later_version():
            newest = later == self.files.resolve()
            way = "leave version= (--version) out, or open the release again"
            return f"{what}. {later} lists one: {way if newest else f'open version={later!r}'}"
        if published:
            adopt = command(self.files, "adopt", *map(shlex.quote, published.values()))
            return f"{what}. It is {_E1}. Download it there, then: {adopt}"
        adopt = command(self.files, "adopt", "WORKBOOK.xlsx")
        return f"{what}. One has the sheet and headings of {_E1}. If you have one: {adopt}"

    def _later_version(self) -> str:
        """Return the newest of the later versions that lists a workbook; empty if none does."""
        versions = self.files.versions()
        later = reversed(versions[versions.index(self.version) + 1 :])
        return next((name for name in later if index_scans(self.files.lock(name)).grading), "")

    def _command(self, verb: str, *words: str) -> str:
        version = unless_newest(self.files, self.version)
        return command(self.files, verb, *map(shlex.quote, words), version=version)

    def require(self, columns: Iterable[str], *, asked: str) -> None:
        """Raise `ContentMissing` if one of `columns` comes from the workbook, and that is not here.

        Without it every such cell is missing, and whatever is `asked` of it would come back empty.
        """
        blind = workbook_columns_of(columns)
        if blind and not self.is_here:
            raise ContentMissing(
                f"{asked} needs {' and '.join(blind)}, which only the grading workbook holds. "
                f"{self.absence()}"
            )

    def require_obtainable(self) -> None:
        """Raise `ContentMissing` if the version lists a workbook that is neither here nor to be had."""
        if self.is_listed and not (self.is_here or self.can_be_fetched):
            raise ContentMissing(
                f"What is to be served needs the grades of the vertebrae. {self.absence()}"
            )


def workbook_columns_of(columns: Iterable[str]) -> list[str]:
    """Return those of `columns` that the grading workbook alone fills."""
    from verse_data.tables.columns import workbook_columns

    return [name for name in columns if name in workbook_columns()]


def require_listed(workbooks: Sequence[Workbook], unit: str, options: Mapping[str, Any]) -> None:
    """Raise `ContentMissing` if no release lists a workbook, and nothing is served without its grades."""
    if any(workbook.is_listed for workbook in workbooks):
        return
    if unit == "vertebra" and "not_assessed" not in options.get("include", ("graded",)):
        asked, way = "unit='vertebra'", "include=('graded', 'not_assessed') serves vertebrae"
    elif unit == "patch" and options.get("sampling") == "grade":
        asked, way = "sampling='grade'", "sampling='level' serves patches"
    else:
        return
    raise ContentMissing(
        f"{asked} needs the grades of the vertebrae, so there is nothing to serve. {way} without them. "
        f"{workbooks[0].absence()}"
    )
