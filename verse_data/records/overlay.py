"""An overlay: corrections of a release as data, with a version, laid over files that stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Literal, cast

from pydantic import Field, field_validator, model_validator

from verse_data.records.base import Record, described
from verse_data.records.names import is_scan_id
from verse_data.records.tables import FRACTURE_TYPES, FractureType, Level, Mark, pair_rule
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS

_field: Final = partial(described, source="overlay")


class AddedGrade(Record):
    """What an overlay says of one vertebra, in place of the grading workbook."""

    grade: Literal[0, 1, 2, 3, "x"] = _field("Genant grade, or x for foreign material")
    fracture_type: FractureType | None = _field("Genant shape, where it is known", default=None)

    @field_validator("grade", mode="before")
    @classmethod
    def _is_no_truth(cls, grade: object) -> object:
        if isinstance(grade, bool):  # which equals 0 or 1
            raise ValueError("must be 0, 1, 2, 3 or 'x'")  # noqa: TRY004 - Pydantic's rule
        return grade

    @model_validator(mode="after")
    def _fits(self) -> AddedGrade:
        if self.fracture_type and (rule := pair_rule(self.grade, self.shape)):
            raise ValueError(rule)
        return self

    @property
    def shape(self) -> Mark | None:
        """The shape as the workbook codes it; None where it is not known."""
        if self.fracture_type is None:
            return self.grade if self.grade in {0, "x"} else None
        return cast("Mark", FRACTURE_TYPES.index(self.fracture_type))


class Renumbering(Record, populate_by_name=True):
    """A vertebra that has another level, and with it all below: they follow in the usual order."""

    first: Level = _field("Level of the first, as published", alias="from")
    to: Level = _field("Its level")


class ScanCorrection(Record):
    """What an overlay says of one CT series; with `why` alone it is a remark."""

    why: str = _field("Reason and evidence, in a sentence", min_length=1, max_length=1000)
    exclude: bool = _field("Leave the scan out of everything", default=False)
    relabel: dict[Level, Level] = _field("Level as published, and the level that it is", default={})
    renumber: Renumbering | None = _field("From one vertebra down, other levels", default=None)
    levels: tuple[Level, ...] = _field("All levels of the mask, from head to foot", default=())
    grades_move: bool = _field(
        "Whether grades of the workbook move with their vertebrae to other levels", default=True
    )
    grades: dict[Level, AddedGrade] = _field("Grades by corrected level", default={})

    @model_validator(mode="after")
    def _is_one_correction(self) -> ScanCorrection:
        given = [name for name in ("relabel", "renumber", "levels") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say the same thing in two ways: give one")
        if self.exclude and (given or self.grades):
            raise ValueError("a scan that is excluded has no other correction")
        for listed in (self.levels, tuple(self.relabel.values())):
            if twice := [level for level in LEVELS if listed.count(level) > 1]:
                raise ValueError(f"two vertebrae would be {twice[0]}")
        if list(self.levels) != sorted(self.levels, key=LEVELS.index):
            raise ValueError("levels run from head to foot, T13 after T12")
        if same := [level for level, new in self.relabel.items() if level == new]:
            raise ValueError(f"relabel {same[0]}: is that level already")
        return self

    @property
    def relabels(self) -> bool:
        """Whether vertebrae get other levels."""
        return bool(self.relabel or self.renumber or self.levels)

    @property
    def is_remark(self) -> bool:
        """Whether it changes nothing."""
        return not any(self._parts())

    def mapping(self, labels: Collection[int], points: Collection[int]) -> dict[int, int]:
        """Return the new label of each that changes, of a scan with these in mask and centroid file.

        ValueError if the correction does not fit: it names a vertebra that the scan does not have,
        or two would be one.
        """
        # A list counts the vertebrae of the mask; a single one may have only a centroid.
        present = (labels or points) if self.levels else {*labels, *points}
        names = {level: label for label, level in LEVEL_OF_LABEL.items() if label in present}
        new = dict[str, str](self.relabel.items())
        if self.levels:
            if len(self.levels) != len(names):
                raise ValueError(
                    f"it lists {len(self.levels)} levels, and the scan has {len(names)}"
                )
            new = dict(zip(names, self.levels, strict=True))
        elif self.renumber:
            below = _down(self.renumber.first, names)
            new = dict(zip(below, _down(self.renumber.to), strict=False))
            if lost := [level for level in names if level in below and level not in new]:
                raise ValueError(f"{lost[0]} would come to lie below {LEVELS[-1]}")
        needed = [self.renumber.first] if self.renumber else [*new]
        if lacking := [level for level in needed if level not in names]:
            raise ValueError(
                f"it names {lacking[0]}, and the scan has {', '.join(names) or 'none'}"
            )
        moved = {names[level]: LABEL_OF_LEVEL[to] for level, to in new.items() if level in names}
        after = [moved.get(label, label) for label in {*labels, *points}]
        if twice := [label for label in after if after.count(label) > 1]:
            raise ValueError(f"two vertebrae would be {LEVEL_OF_LABEL.get(twice[0], twice[0])}")
        return {old: label for old, label in moved.items() if old != label}

    def __str__(self) -> str:
        """Return what is done, in a few words."""
        return "; ".join(self._parts()) or "remark"

    def _parts(self) -> Iterator[str]:
        if self.exclude:
            yield "excluded"
        if self.relabel:
            yield f"labels {', '.join(f'{old} -> {new}' for old, new in self.relabel.items())}"
        if self.renumber:
            yield f"labels {self.renumber.first} -> {self.renumber.to}, and all below in order"
        if self.levels:
            yield f"labels {self.levels[0]} to {self.levels[-1]}, {len(self.levels)} from head to foot"
        if self.relabels and not self.grades_move:
            yield "grades stay at their levels"
        if self.grades:
            yield f"grades {', '.join(f'{lv} = {one.grade}' for lv, one in self.grades.items())}"


def _down(first: str, present: Collection[str] = ()) -> list[str]:
    """Return the levels from `first` to L6; T13 is one only if it is `first`, or `present`."""
    below = LEVELS[LEVELS.index(first) :]
    return [level for level in below if level in {first, *present} or level != "T13"]


class Alias(Record):
    """Subjects that are one patient."""

    subjects: tuple[str, ...] = _field("Their ids; the first is used for all", min_length=2)
    why: str = _field("Reason and evidence, in a sentence", min_length=1, max_length=1000)


class Overlay(Record):
    """Corrections of releases: labels, grades, scans to leave out, and patients with two ids."""

    name: str = _field("Its name", pattern="^[a-z0-9][a-z0-9_-]*$")
    title: str = _field("One line", min_length=1, max_length=200)
    version: str = _field("Its version, such as 1", pattern="^[A-Za-z0-9][A-Za-z0-9.-]*$")
    releases: tuple[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*$")], ...] = _field(
        "Releases that it corrects", min_length=1
    )
    source: str = _field("Who found this, and where it is written", min_length=1)
    licence: str = _field("SPDX identifier of the corrections' own licence")
    confirmed: bool = _field("Whether the evidence is good; if not, each use warns", default=True)
    scans: dict[str, ScanCorrection] = _field("Corrections by scan id", default={})
    aliases: tuple[Alias, ...] = _field("Patients with several ids", default=())

    @field_validator("scans")
    @classmethod
    def _are_scans(cls, scans: dict[str, ScanCorrection]) -> dict[str, ScanCorrection]:
        if wrong := [name for name in scans if not is_scan_id(name)]:
            raise ValueError(f"{wrong[0][:60]!r} is no scan id such as verse004")
        return scans

    @model_validator(mode="after")
    def _says_something(self) -> Overlay:
        if not self.scans and not self.aliases:
            raise ValueError("it corrects nothing: give scans or aliases")
        if any(len({*alias.subjects}) < len(alias.subjects) for alias in self.aliases):
            raise ValueError("aliases: a subject stands twice in one")
        return self


class AppliedOverlay(Record):
    """Which overlay lies over a release: name, version, and SHA-256 of its file.

    Attributes
    ----------
    name, version : str
        As the overlay says.
    digest : str
        ``sha256:`` and the SHA-256 (hex) of the file's bytes.
    confirmed : bool
        Whether its evidence is good.
    """

    name: str
    version: str
    digest: str
    confirmed: bool

    def __str__(self) -> str:
        """Return name, version and digest in one line."""
        doubt = "" if self.confirmed else ", unconfirmed"
        return f"{self.name} {self.version} ({self.digest[:19]}{doubt})"


@dataclass(frozen=True)
class Layer:
    """An overlay as it was read, and what names it."""

    overlay: Overlay
    digest: str

    @property
    def applied(self) -> AppliedOverlay:
        """What names it."""
        about = self.overlay.model_dump(include={"name", "version", "confirmed"})
        return AppliedOverlay(**about, digest=self.digest)
