"""Overlays laid over a release: which there are, what they change of scans, and of labels and grades.

Files, locks and stores stay as they are. An overlay is applied where files have become an index
(:func:`applied`), tables (:func:`corrected`), or a reader of a store (:func:`relabelling`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from verse_data.errors import ContentMissing, UsageError, ValidationFailed, did_you_mean, warn
from verse_data.files import locate, storage_errors
from verse_data.records.base import LIMIT_BYTES, rules_of
from verse_data.records.overlay import AddedGrade, Layer, Overlay, ScanCorrection
from verse_data.records.tables import GradingRow, ListedGrades
from verse_data.releases import catalog
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVEL_OF_LABEL, LEVELS
from verse_data.tables.findings import Finding
from verse_data.tables.index import Content, Index, ScanFiles, finder_of, read_centroids, scan_file
from verse_data.tables.join import ScanSources
from verse_data.tables.splits import Place, same_series

if TYPE_CHECKING:
    from verse_data.records.centroids import CentroidFile

_REASON: Final = "overlay"  # in ``excluded``, for a scan that one leaves out
_PIN: Final = re.compile(r"(.+)@(sha256:[0-9a-f]{12,64})")
_SHORT: Final = 19  # of a digest: sha256: and 12 digits

Given = str | os.PathLike[str]
"""A name of the catalog or the path of a file; ``@sha256:…`` behind it pins its bytes."""


# --- reading --------------------------------------------------------------------------------------


def names() -> tuple[str, ...]:
    """Return the names of the overlays that come with the package, sorted."""
    return tuple(sorted(path.stem for path in locate("catalog").glob("overlays/*.toml")))


def read_overlay(given: Given) -> Layer:
    """Read one overlay: by its name in the catalog, or out of a file; UsageError if its pin differs."""
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError(f"overlay {given!r}: give a name such as 'veridah-2025', or a path.")
    text = os.fspath(given)
    pin = _PIN.fullmatch(text)
    where, digest = (pin[1], pin[2]) if pin else (text, "")
    if "@sha256:" in where:
        raise UsageError(f"{text}: a digest is sha256: and 12 to 64 digits, 0-9 and a-f.")
    is_file = not isinstance(given, str) or where.endswith(".toml") or os.sep in where
    path = Path(where) if is_file else locate("catalog") / "overlays" / f"{where}.toml"
    if not is_file and where not in names():
        raise UsageError(
            f"There is no overlay {where!r}; there are {', '.join(names())}."
            f"{did_you_mean(where, names())} A file of your own ends in .toml."
        )
    with storage_errors(path):
        if not path.is_file():
            raise UsageError(f"There is no file {path}. List overlays: verse-data overlays list")
        data = path.read_bytes() if path.stat().st_size <= LIMIT_BYTES else b"\xff"
    layer = Layer(_parse(data, str(path)), f"sha256:{hashlib.sha256(data).hexdigest()}")
    if not layer.digest.startswith(digest):
        raise UsageError(
            f"{where} is {layer.digest[:_SHORT]}, not {digest}. Bring the file that was meant, or "
            f"name this one: {where}@{layer.digest[:_SHORT]}"
        )
    return layer


def _parse(data: bytes, name: str) -> Overlay:
    """Return the overlay in the bytes of a TOML file, or raise ValidationFailed."""
    try:
        # Via JSON, whose lists a strict record accepts for its tuples.
        text = json.dumps(tomllib.loads(data.decode("utf-8-sig")), default=str)
        return Overlay.model_validate_json(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        why = f"not TOML in UTF-8: {error}"
    except ValidationError as error:
        why = rules_of(error)
    raise ValidationFailed(f"{name}: {why}. Its form: verse-data schemas show overlay") from None


def read_overlays(
    given: Sequence[Given] | None, releases: Sequence[str]
) -> dict[str, tuple[Layer, ...]]:
    """Return the overlays of each of `releases`; each must be of one, and unconfirmed ones warn."""
    given = () if given is None else given
    if isinstance(given, (str, os.PathLike)) or not isinstance(given, Sequence):
        raise UsageError(f"overlays={given!r}: give a list, such as ['veridah-2025'].")
    layers = sorted(map(read_overlay, given), key=lambda layer: layer.overlay.name)
    for one, other in pairwise(layers):
        if one.overlay.name == other.overlay.name:
            raise UsageError(f"Two overlays are called {one.overlay.name}. Give one of them.")
    for layer in layers:
        overlay = layer.overlay
        if not {*releases} & {*overlay.releases}:
            raise UsageError(
                f"Overlay {overlay.name} is for {', '.join(overlay.releases)}, not for "
                f"{', '.join(releases)}. Leave it out, or name the release in a file of your own."
            )
        if not overlay.confirmed:
            warn(UserWarning(f"Overlay {layer.applied} is not confirmed: {overlay.source}"))
    return {
        name: tuple(layer for layer in layers if name in layer.overlay.releases)
        for name in releases
    }


# --- scans and patients ---------------------------------------------------------------------------


def applied(index: Index, layers: Sequence[Layer], *, release: str) -> Index:
    """Return the index with `layers` laid over it; UsageError if they conflict or name no scan."""
    if not layers:
        return index
    said: dict[str, list[tuple[str, ScanCorrection]]] = {}
    for layer in layers:
        found, absent = _found(index, layer)
        _check_known(layer, absent, index, release)
        for scan_id, correction in found.items():
            said.setdefault(scan_id, []).append((layer.overlay.name, correction))
    for scan_id, corrections in said.items():
        _check_conflicts(scan_id, corrections)
    patient = _patients(layers)
    scans, out = [], dict[str, str]()
    for scan in index.scans:
        own = tuple(said.get(scan.scan_id, ()))
        made, subject = replace(scan, corrections=own), patient.get(scan.subject_id)
        if subject and subject != scan.subject_id:
            made = replace(made, subject_id=subject, published_subject=scan.subject_id)
        if why := [f"overlay {name}: {one.why}" for name, one in own if one.exclude]:
            out[scan.scan_id] = why[0]
        scans.append(made)
    return replace(index, scans=tuple(scans), layers=tuple(layers)).without(out, _REASON)


def without_copies(indexes: Sequence[Index]) -> list[Index]:
    """Return the indexes of releases without copies of scans that overlays correct in another.

    The labels of a copy may be others. So an excluded series is served from no release, and a corrected
    one only from those where an overlay corrects it.
    """
    held = [{scan.scan_id: scan for scan in index.listed} for index in indexes]
    numbers = same_series(held)
    excluded, fit, why = set[int](), set[Place](), dict[int, str]()
    for (release, scan_id), number in numbers.items():
        for name, one in held[release][scan_id].corrections:
            if not one.is_remark:
                why[number] = f"overlay {name}, of its copy {scan_id}: {one.why}"
                fit.add((release, scan_id))
            if one.exclude:
                excluded.add(number)
    out: list[dict[str, str]] = [{} for _ in indexes]
    for (release, scan_id), number in numbers.items():
        if number in why and (number in excluded or (release, scan_id) not in fit):
            out[release][scan_id] = why[number]
    return [one.without(own, _REASON) for one, own in zip(indexes, out, strict=True)]


def _found(index: Index, layer: Layer) -> tuple[dict[str, ScanCorrection], list[str]]:
    """Return the corrections of scans of the release by their ids, and the ids that it lacks."""
    find, absent = finder_of(index.listed), []
    found: dict[str, ScanCorrection] = {}
    for name, correction in layer.overlay.scans.items():
        if (scan := find(name)) is None:
            absent.append(name)
        elif found.setdefault(scan.scan_id, correction) is not correction:
            overlay = layer.overlay.name
            raise UsageError(f"Overlay {overlay} names {scan.scan_id} twice. Leave one out.")
    return found, absent


def _check_known(layer: Layer, absent: Iterable[str], index: Index, release: str) -> None:
    """Raise UsageError for a name that no release of the overlay has, where all of them are known."""
    expected = {
        name: catalog.load_catalog(name).expected if name in catalog.names() else ()
        for name in layer.overlay.releases
    }
    if any(not series and name != release for name, series in expected.items()):
        return  # a release that is known nowhere may have it
    series = [one for some in expected.values() for one in some]
    scans = {name for one in series for name in (one.scan_id, one.series_id)}
    scans |= {scan.scan_id for scan in index.listed}
    subjects = {one.subject_id for one in series} | {scan.own_subject for scan in index.listed}
    patients = [name for alias in layer.overlay.aliases for name in alias.subjects]
    for what, names_given, known in (("scan", absent, scans), ("subject", patients, subjects)):
        for name in names_given:
            if name not in known:
                raise UsageError(
                    f"Overlay {layer.overlay.name} names {name!r}, and {release} has no such {what}."
                    f"{did_you_mean(name, known)} List them: verse-data table {release} {what}s"
                )


def _check_conflicts(scan_id: str, corrections: Sequence[tuple[str, ScanCorrection]]) -> None:
    """Raise UsageError if two overlays give one scan other labels, or a vertebra two grades."""
    labels = [name for name, one in corrections if one.relabels]
    grades: dict[str, tuple[str, AddedGrade]] = {}
    both, what = (labels[:2], "labels") if len(labels) > 1 else ([], "")
    for name, one in corrections:
        for level, grade in one.grades.items():
            other, known = grades.setdefault(level, (name, grade))
            if known != grade:
                both, what = [other, name], f"the grade of {level}"
    if both and not any(one.exclude for _, one in corrections):
        raise UsageError(
            f"Overlays {' and '.join(both)} both correct {what} of {scan_id}. Leave one out, or "
            f"write what is meant into a file of your own."
        )


def _patients(layers: Iterable[Layer]) -> dict[str, str]:
    """Return the id that each subject of an alias gets."""
    first: dict[str, str] = {}
    for layer in layers:
        for alias in layer.overlay.aliases:
            same = {first.get(name, name) for name in alias.subjects}
            one = first.get(alias.subjects[0], alias.subjects[0])
            first |= {name: one for name, other in first.items() if other in same}
            first |= dict.fromkeys((*alias.subjects, *same), one)
    return first


# --- labels, points and grades --------------------------------------------------------------------


def relabelling(
    scan: ScanFiles, labels: Collection[int], points: Collection[int]
) -> dict[int, int]:
    """Return the new label of each that changes, for a scan with these labels in mask and centroids."""
    for name, correction in scan.corrections:
        if correction.relabels:
            try:
                return correction.mapping(labels, points)
            except ValueError as error:
                raise ValidationFailed(
                    f"Overlay {name} does not fit {scan.scan_id}: {error}. Correct it, or leave it out."
                ) from None
    return {}


def relabelling_of(
    scan: ScanFiles, content: Content, *, derived: Path | None = None
) -> dict[int, int]:
    """Return the new label of each that changes in the files of a scan, which must be here."""
    if not scan.relabelled:
        return {}
    mask, file = scan_file(scan, "mask", content), scan_file(scan, "centroids", content)
    if (mask or file) is None:
        return {}
    from verse_data.volumes.mask_facts import mask_facts

    labels = mask_facts(mask, derived=derived).labels.keys() if mask else ()
    return relabelling(scan, labels, _pointed(read_centroids(file)) if file else ())


def _pointed(file: CentroidFile) -> tuple[int, ...]:
    return (*(point.label for point in file.points), *file.unplaced)


def corrected(
    sources: ScanSources, row: GradingRow | None
) -> tuple[ScanSources, GradingRow | None]:
    """Return the contents of a scan's files, and its grades, as overlays correct them.

    Grades move with their vertebrae: the workbook names a vertebra by the level that the release's
    own labels give it. An overlay that corrects labels alone says ``grades_move = false``.
    """
    scan = sources.scan
    if scan.relabelled and sources.broken:  # which is told already
        return ScanSources(scan), None
    if scan.relabelled:
        if sources.mask is None and "mask" in scan.files:
            raise ContentMissing(
                f"Overlay {scan.relabelled} relabels {scan.scan_id}, and which labels it has is not "
                f"known: its mask is not on this machine. Get it: verse-data get RELEASE --scan "
                f"{scan.scan_id} --role mask"
            )
        labels = sources.mask.labels.keys() if sources.mask else ()
        points = _pointed(sources.centroids) if sources.centroids else ()
        new = relabelling(scan, labels, points)
        sources = _relabelled(sources, new)
        if row and all(one.grades_move for _, one in scan.corrections if one.relabels):
            # A vertebra below that the workbook alone has moves with those that the files show.
            below = any(one.renumber for _, one in scan.corrections)
            graded = [LABEL_OF_LEVEL[level] for level in row.grades] if below else ()
            row = _moved(scan, row, relabelling(scan, labels, (*points, *graded)) | new)
    added = {lv: grade for _, one in scan.corrections for lv, grade in one.grades.items()}
    for name, level in ((name, lv) for name, one in scan.corrections for lv in one.grades):
        if sources.mask and level not in sources.levels:
            raise ValidationFailed(
                f"Overlay {name} does not fit {scan.scan_id}: it grades {level}, and the scan has "
                f"{', '.join(sorted(sources.levels, key=LEVELS.index))}. Correct it, or leave it out."
            )
    return sources, _graded(scan, row, added) if added else row


def _relabelled(sources: ScanSources, new: Mapping[int, int]) -> ScanSources:
    """Return mask facts and points with their new labels."""
    mask, file = sources.mask, sources.centroids
    if mask:
        labels = {new.get(label, label): facts for label, facts in mask.labels.items()}
        at = {place: new.get(label, label) for place, label in mask.at.items()}
        mask = mask.model_copy(update={"labels": dict(sorted(labels.items())), "at": at})
    if file:
        points = [p.model_copy(update={"label": new.get(p.label, p.label)}) for p in file.points]
        unplaced = tuple(new.get(label, label) for label in file.unplaced)
        file = file.model_copy(update={"points": tuple(points), "unplaced": unplaced})
    return replace(sources, mask=mask, centroids=file)


def _moved(scan: ScanFiles, row: GradingRow, new: Mapping[int, int]) -> GradingRow:
    """Return a row whose marks stand at the new levels of their vertebrae."""
    level = {LEVEL_OF_LABEL[old]: LEVEL_OF_LABEL[label] for old, label in new.items()}
    marks: dict[str, Any] = {
        name: {level.get(lv, lv): mark for lv, mark in getattr(row, name).items()}
        for name in ("grades", "shapes")
    }
    if len(marks["grades"]) < len(row.grades):
        raise ValidationFailed(
            f"Overlay {scan.relabelled} moves a grade of {scan.scan_id} to a level that the workbook "
            f"grades too, and that the scan lacks. Correct it, or leave it out."
        )
    return row.model_copy(update=marks)


def _graded(scan: ScanFiles, row: GradingRow | None, added: Mapping[Any, AddedGrade]) -> GradingRow:
    """Return the row with the grades that overlays add; a new one if there was none."""
    if row is None:
        ids = {"series_id": scan.series_id, "subject_id": scan.own_subject, "split": scan.split}
        blank: dict[str, Any] = dict.fromkeys(GradingRow.model_fields)
        row = ListedGrades.model_construct(**blank | ids | {"grades": {}, "shapes": {}})
    grades = {**row.grades, **{level: one.grade for level, one in added.items()}}
    shapes = {level: mark for level, mark in row.shapes.items() if level not in added}
    shapes |= {level: one.shape for level, one in added.items() if one.shape is not None}
    counts = {"foreign_material": None, "n_fractures": None}  # of the workbook's own marks
    return row.model_copy(update={"grades": grades, "shapes": shapes, **counts})


# --- what is told ---------------------------------------------------------------------------------


def overlay_findings(index: Index) -> Iterator[Finding]:
    """Yield what overlays change of a release, what they remark, and what they name that it lacks."""
    held = {scan.scan_id: scan for scan in index.listed}
    for layer in index.layers:
        by = f"by overlay {layer.applied}"
        severity: Any = "note" if layer.overlay.confirmed else "warning"
        found, absent = _found(index, layer)
        for scan_id, one in found.items():
            what = "overlay-remark" if one.is_remark else "overlay"
            about: Any = {"scan_id": scan_id, "subject_id": held[scan_id].subject_id}
            yield Finding(rule=what, severity=severity, message=f"{one}, {by}: {one.why}", **about)
        for scan in index.listed:
            is_of = any(scan.own_subject in alias.subjects for alias in layer.overlay.aliases)
            if scan.published_subject and is_of:
                message = f"is of patient {scan.subject_id}, not {scan.own_subject}, {by}"
                about = {"scan_id": scan.scan_id, "subject_id": scan.subject_id}
                yield Finding(rule="overlay", severity=severity, message=message, **about)
        subjects = {scan.own_subject for scan in index.listed}
        absent += [n for one in layer.overlay.aliases for n in one.subjects if n not in subjects]
        if absent:
            message = f"{len(absent)} of its scans and subjects are not in this version, {by}"
            yield Finding(rule="overlay-unused", severity="note", message=message)
