"""Two versions of a release compared: files, labels of masks, cells of the workbook, centroids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verse_data.errors import UnsafeInput, ValidationFailed
from verse_data.inspection import mask_labels
from verse_data.records.centroids import CentroidFile, parse_centroids
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.releases.history import command, unless_newest
from verse_data.releases.repository import Repository
from verse_data.releases.history import ROLE_WORDS, Change, diff_locks
from verse_data.spine.geometry import Grid
from verse_data.tables.changes import CellChange, PointChange, cell_changes, point_changes
from verse_data.tables.index import Index, index_scans
from verse_data.tables.workbook import read_locked_sheet

_SHOWN = 5


@dataclass(frozen=True)
class LabelChange:
    """What changed in a mask that both versions have here: voxels of each label, before and after."""

    change: Change
    appeared: dict[int, int]
    disappeared: dict[int, int]
    resized: dict[int, tuple[int, int]]

    def __str__(self) -> str:
        """Say it in one line, in names of levels."""
        from verse_data.spine.levels import LEVEL_OF_LABEL

        def names(labels: Collection[int]) -> str:
            return ", ".join(LEVEL_OF_LABEL.get(label, str(label)) for label in sorted(labels))

        parts = [
            f"{word} {names(labels)}"
            for word, labels in (
                ("now has", self.appeared),
                ("no longer has", self.disappeared),
                ("redrew", self.resized),
            )
            if labels
        ]
        return f"mask of {self.change.scan_id} {'; '.join(parts) or 'has the same voxel counts'}"


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """One file that changed, and could not be looked into.

    Attributes
    ----------
    role, scan_id, path
        Which file; `scan_id` is empty for the workbook.
    version : str
        The version whose content is not here, or not readable.
    reason : str
        Why it is not readable; empty where it is not here.
    command : str
        What brings it; empty where it is here.
    """

    role: Role
    scan_id: str
    path: str
    version: str
    reason: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class VersionDiff:
    """What changed from one version to another.

    Attributes
    ----------
    old, new : str
        The two versions.
    files : tuple of Change
        Every file that is not the same.
    labels : tuple of LabelChange
        Masks that changed, of those that are here in both versions.
    cells : tuple of CellChange
        Cells of the grading workbook, if it is here in both versions.
    points : tuple of PointChange
        Points of centroid files that changed, of those that are here in both versions.
    not_compared : tuple of NotCompared
        Masks, centroid files and workbooks that changed and could not be looked into.
    """

    old: str
    new: str
    files: tuple[Change, ...]
    labels: tuple[LabelChange, ...]
    cells: tuple[CellChange, ...]
    points: tuple[PointChange, ...]
    not_compared: tuple[NotCompared, ...]

    def lines(self) -> list[str]:
        """Return every change in one line, and last what was not compared."""
        changes = (*self.files, *self.labels, *self.cells, *self.points)
        return [*map(str, changes), *self._same(), *self._gaps()]

    def _same(self) -> Iterator[str]:
        """Yield the files of which only the bytes changed, and nothing that they say."""
        gaps = {gap.path for gap in self.not_compared}
        moved = {point.scan_id for point in self.points}
        for change in self.files:
            if change.kind != "changed" or change.path in gaps:
                continue
            if change.role == "grading" and not self.cells:
                yield f"grading workbook {change.path}: every cell says the same"
            if change.role == "centroids" and change.scan_id not in moved:
                yield f"centroids of {change.scan_id}: every point is the same"

    def _gaps(self) -> Iterator[str]:
        away = [gap for gap in self.not_compared if not gap.reason]
        for version, line in dict.fromkeys((gap.version, gap.command) for gap in away):
            same = [gap for gap in away if (gap.version, gap.command) == (version, line)]
            counts = Counter(ROLE_WORDS[gap.role] for gap in same)
            listed = ", ".join(f"{word} ({number:,})" for word, number in counts.items())
            yield f"not compared, for want of the contents of {version}: {listed}. Bring them: {line}"
        for gap in self.not_compared:
            if gap.reason:
                yield f"not compared: {gap.path} of {gap.version}: {gap.reason}"

    def __str__(self) -> str:
        """Say everything, a line each."""
        return "\n".join(self.lines()) or "no difference"

    def __repr__(self) -> str:
        lines = self.lines()
        more = [f"  and {len(lines) - _SHOWN:,} more; print() shows all"] * (len(lines) > _SHOWN)
        shown = [f"  {line}" for line in lines[:_SHOWN]] or ["  no difference"]
        return "\n".join([f"<VersionDiff {self.old} to {self.new}>", *shown, *more])


def compare(
    dataset: Repository, old: str, new: str, *, derived: Path | None = None
) -> VersionDiff:
    """Return what changed between two versions, as deep as the contents that are here allow."""
    return _Comparison(dataset, old, new, derived).run()


class _Comparison:
    """The contents of two versions, looked into side by side."""

    def __init__(self, dataset: Repository, old: str, new: str, derived: Path | None) -> None:
        self._dataset, self._derived = dataset, derived
        self._versions = (old, new)
        self._locks = tuple(dataset.lock(version) for version in self._versions)
        self._gaps: list[NotCompared] = []

    def run(self) -> VersionDiff:
        """Return what changed."""
        old, new = self._versions
        files = diff_locks(*self._locks)
        indexes = tuple(index_scans(lock) for lock in self._locks)
        return VersionDiff(
            old=old,
            new=new,
            files=files,
            labels=tuple(self._labels(files)),
            cells=tuple(self._cells(indexes)),
            points=tuple(self._points(files, indexes)),
            not_compared=tuple(self._gaps),
        )

    def _labels(self, files: Collection[Change]) -> Iterator[LabelChange]:
        def labels(file: SourceFile) -> dict[int, int]:
            return mask_labels(file, derived=self._derived)

        for change in files:
            if change.kind == "changed" and change.role == "mask":
                read = self._read(change.role, change.scan_id, (change.old, change.new), labels)
                if read:
                    yield _label_change(change, *read)

    def _cells(self, indexes: tuple[Index, ...]) -> Iterator[CellChange]:
        old, new = (index.grading[0] if index.grading else None for index in indexes)
        if old and new and old.sha256 != new.sha256:
            read = self._read("grading", "", (old, new), read_locked_sheet)
            if read:
                yield from cell_changes(*read)

    def _points(
        self, files: Collection[Change], indexes: tuple[Index, ...]
    ) -> Iterator[PointChange]:
        def points(file: SourceFile) -> CentroidFile:
            return parse_centroids(file.read(), name=file.name)

        for change in files:
            if change.kind != "changed" or change.role != "centroids":
                continue
            read = self._read(change.role, change.scan_id, (change.old, change.new), points)
            if read:
                grids = (self._grid(change, indexes[0], 0), self._grid(change, indexes[1], 1))
                yield from point_changes(change.scan_id, *read, grids=grids)

    def _grid(self, change: Change, index: Index, side: int) -> Grid | None:
        """Return the voxel grid of a scan, out of the header of its mask or CT, if one is here."""
        from verse_data.volumes.mask_facts import header_facts

        locked = change.new if side else change.old
        scan = next((s for s in index.scans if s.files.get("centroids") == locked), None)
        for role in ("mask", "ct"):
            file = scan.files.get(role) if scan else None
            if file and self._dataset.has(file):
                typed = unless_newest(self._dataset, self._versions[side])
                source = self._dataset.source(file, version=typed)
                return Grid.of(header_facts(source, derived=self._derived))
        return None

    def _read(
        self,
        role: Role,
        scan_id: str,
        files: tuple[LockedFile | None, LockedFile | None],
        read: Callable[[SourceFile], Any],
    ) -> tuple[Any, Any] | None:
        """Return what both files say; None, and a note of it, if one is not here or not readable."""
        found = []
        for file, version in zip(files, self._versions, strict=True):
            if file is None:
                return None
            reason, line = "", ""
            typed = unless_newest(self._dataset, version)
            if not self._dataset.has(file):
                line = self._bring(file, role, typed)
            else:
                try:
                    found.append(read(self._dataset.source(file, version=typed)))
                    continue
                except (ValidationFailed, UnsafeInput) as error:
                    reason = str(error)
            self._gaps.append(
                NotCompared(
                    role=role,
                    scan_id=scan_id,
                    path=file.path,
                    version=version,
                    reason=reason,
                    command=line,
                )
            )
        return (found[0], found[1]) if len(found) == len(files) else None

    def _bring(self, file: LockedFile, role: Role, version: str | None) -> str:
        if self._dataset.addresses(file) or self._dataset.siblings():
            return command(self._dataset, "get", "--role", role, version=version)
        return command(self._dataset, "adopt", "PATH", version=version)


def _label_change(change: Change, before: dict[int, int], after: dict[int, int]) -> LabelChange:
    return LabelChange(
        change,
        appeared={label: after[label] for label in after.keys() - before.keys()},
        disappeared={label: before[label] for label in before.keys() - after.keys()},
        resized={
            label: (before[label], after[label])
            for label in before.keys() & after.keys()
            if before[label] != after[label]
        },
    )
