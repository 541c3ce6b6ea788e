"""Reads a folder of predictions, and scores each against the mask and centroids of its scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, ValidationFailed, counted, did_you_mean
from verse_data.files import storage_errors
from verse_data.metrics.identification import Hit
from verse_data.metrics.official import Side, official_scores
from verse_data.metrics.scores import ScanScores, score_scan
from verse_data.problems import shown
from verse_data.progress import Progress
from verse_data.records.base import LIMIT_BYTES
from verse_data.records.centroids import CentroidFile, parse_centroids
from verse_data.spine.geometry import Array, Grid
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.tables.index import Content, ScanFiles, Withheld, read_centroids, scan_file
from verse_data.tables.overlays import relabelling_of
from verse_data.volumes.mask_facts import mask_facts
from verse_data.volumes.nifti import VolumeStream
from verse_data.volumes.reader import relabelled

_MASK_ENDINGS: Final = (".nii.gz", ".nii")
_POINTS_ENDING: Final = ".json"
_REPORT: Final = "predictions.json"
"""What an import writes beside its masks."""
Points = dict[str, tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The files that are predicted for one scan."""

    mask: Path | None = None
    points: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Rows of all scans, and what their reader must know."""

    vertebrae: pd.DataFrame
    scans: pd.DataFrame
    notes: tuple[str, ...]
    predicted: frozenset[str] = frozenset()


def find_predictions(
    folder: Path, known: Mapping[str, ScanFiles], withheld: Iterable[Withheld]
) -> tuple[dict[str, Prediction], list[str]]:
    """Return the predictions in `folder` by scan id, and which of its files are not read.

    A volume that is named after no scan is refused: it would be left out of the means unseen.
    """
    why = {one.scan.scan_id: one.why for one in withheld}
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {folder}. Give one with a file SCAN.nii.gz (mask), or SCAN.json "
            f"(centroids), for each predicted scan."
        )
    found: dict[str, dict[str, Path]] = {}
    strangers, others = list[str](), list[str]()
    with storage_errors(folder):
        files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        name = path.name.lower()
        ending = next((e for e in (*_MASK_ENDINGS, _POINTS_ENDING) if name.endswith(e)), None)
        if ending is None or name.startswith(".") or name == _REPORT:
            continue
        scan_id = path.name[: -len(ending)]
        role = "points" if ending == _POINTS_ENDING else "mask"
        if scan_id in why:
            others.append(f"{path.name} ({why[scan_id]})")
        elif scan_id not in known:
            (others if role == "points" else strangers).append(path.name)
        elif role in found.setdefault(scan_id, {}):
            raise UsageError(f"{folder} has two masks of {scan_id}, .nii and .nii.gz: remove one.")
        else:
            found[scan_id][role] = path
    if strangers:
        near = did_you_mean(strangers[0].partition(".")[0], known)
        raise UsageError(
            f"{counted(len(strangers), 'volume')} of {folder} named after no scan of the release: "
            f"{', '.join(shown(strangers))}.{near} Rename them SCAN.nii.gz, or bring them in with: "
            f"verse-data predictions import"
        )
    if not found:
        raise UsageError(
            f"{folder} has no prediction. A mask is called SCAN.nii.gz, such as "
            f"{next(iter(known), 'verse004')}.nii.gz, and a centroid file SCAN.json."
        )
    return {name: Prediction(**files) for name, files in found.items()}, others


def choose(
    found: Mapping[str, Prediction],
    scan_ids: Sequence[str],
    scans: Mapping[str, ScanFiles],
    folder: Path,
) -> dict[str, Prediction]:
    """Return the predictions of `scan_ids`; a scan with a mask but without one is refused."""
    lacking = [name for name in scan_ids if name not in found and "mask" in scans[name].files]
    if lacking:
        raise UsageError(
            f"{folder} has no prediction of {counted(len(lacking), 'scan')} of {len(scan_ids)}: "
            f"{', '.join(shown(lacking))}. Predict them too, or choose those that are there with --scan."
        )
    chosen = {name: found[name] for name in scan_ids if name in found}
    if not chosen:
        raise UsageError("None of the chosen scans has a mask in the release and a prediction.")
    return chosen


def score_folder(
    folder: Path,
    scans: Mapping[str, ScanFiles],
    content_of: Callable[[str], Content],
    *,
    scan_ids: Sequence[str] | None,
    withheld: Iterable[Withheld],
    **how: Any,
) -> Scored:
    """Score the predictions in `folder`, of `scan_ids` or of all scans, as `score_predictions` does.

    `content_of` returns what reads the locked files of a scan.
    """
    found, others = find_predictions(folder, scans, withheld)
    if scan_ids is not None:
        found = choose(found, scan_ids, scans, folder)
    made = score_predictions(found, scans, content_of, **how)
    notes = [*made.notes, *([f"not read: {', '.join(shown(others))}"] if others else [])]
    masks = sum("mask" in scan.files for scan in scans.values())
    if scan_ids is None and len(made.scans) < masks:
        notes.append(f"{len(made.scans)} of the release's {masks} scans with a mask were scored")
    return replace(made, notes=tuple(notes), predicted=frozenset(found))


def score_predictions(
    predictions: Mapping[str, Prediction],
    scans: Mapping[str, ScanFiles],
    content_of: Callable[[str], Content],
    *,
    hit: Hit = "lt20",
    official_code: bool = False,
    derived: Path | None = None,
    progress: Progress,
) -> Scored:
    """Score each prediction against the files of its scan, one scan in memory at a time."""
    tables, rows, notes = [], [], []
    with progress("Scoring predictions", len(predictions), "items") as advance:
        for scan_id, prediction in predictions.items():
            scan = scans[scan_id]
            scored, lacking = _score(
                scan,
                prediction,
                content_of(scan_id),
                hit=hit,
                official_code=official_code,
                derived=derived,
            )
            notes += [f"{scan_id}: {note}" for note in lacking]
            if scored is not None:
                ids = {"scan_id": scan_id, "subject_id": scan.subject_id, "split": scan.split}
                tables.append(pd.DataFrame(scored.vertebrae).assign(**ids))
                rows.append(ids | scored.scan)
                notes += _note_of_shift(scan_id, scored.scan)
            advance(1)
    if not rows:
        raise ValidationFailed("\n".join(["No prediction could be scored:", *shown(notes)]))
    vertebrae = pd.concat(tables, ignore_index=True)
    first = ["scan_id", "subject_id", "split"]
    ordered = vertebrae[[*first, *(name for name in vertebrae if name not in first)]]
    return Scored(vertebrae=ordered, scans=pd.DataFrame(rows), notes=tuple(notes))


def _note_of_shift(scan_id: str, scan: Mapping[str, Any]) -> list[str]:
    """Return a sentence if the predicted labels of a scan are off by one."""
    if not scan.get("shift"):
        return []
    where, dice = ("down", scan["dice_down"]) if scan["shift"] > 0 else ("up", scan["dice_up"])
    told = f"the predicted labels are one level too far {where}; with them put right"
    return [f"{scan_id}: {told}, the mean Dice is {dice:.2f}"]


def _score(
    scan: ScanFiles,
    prediction: Prediction,
    content: Content,
    *,
    hit: Hit,
    official_code: bool,
    derived: Path | None,
) -> tuple[ScanScores | None, list[str]]:
    """Score one scan: None where the release has nothing to compare with; and notes."""
    file, path = scan_file(scan, "mask", content), prediction.mask
    if file is None:
        return None, ["the release has no mask of it, so that it was not scored"]
    new = relabelling_of(scan, content, derived=derived)
    masks: Any = (None, False), (None, False)
    if path is None:
        grid = Grid.of(mask_facts(file, derived=derived))
    else:
        locked = VolumeStream(file.path, kind="mask", name=file.name, sha256=file.sha256)
        true, grid = _read_mask(locked)
        true = relabelled(true[0], new), true[1]
        own, _ = _read_mask(VolumeStream(path, kind="mask", name=str(path)), grid, scan.scan_id)
        masks = true, own
    true_points, notes = _true_points(scan, content, grid, new)
    points = true_points, predicted_points(prediction.points, grid)
    if path is None and true_points is None:
        return None, [*notes, "the release has no centroids of it, so that it was not scored"]
    found = score_scan(
        masks[0][0],
        masks[1][0],
        grid.affine,
        truth_points=points[0],
        predicted_points=points[1],
        hit=hit,
        name=str(path),
    )
    if official_code:
        truth, predicted = (
            Side(mask=mask, is_signed=is_signed, points=placed)
            for (mask, is_signed), placed in zip(masks, points, strict=True)
        )
        official = official_scores(truth, predicted, grid.affine)
        found.scan.update(official_dice=official.dice, official_id_rate=official.id_rate)
    return found, notes


def _true_points(
    scan: ScanFiles, content: Content, grid: Grid, new: Mapping[int, int]
) -> tuple[Points | None, list[str]]:
    """Return the release's points, or None and why they cannot be compared."""
    file = scan_file(scan, "centroids", content)
    if file is None:
        return None, []
    read = read_centroids(file)
    if read.fits(grid):
        return _by_level(read, new), []
    return None, ["the release's centroids are not on the grid of its mask: not compared"]


def predicted_points(path: Path | None, grid: Grid) -> Points | None:
    """Return the predicted points, which must be voxel indices of `grid`."""
    if path is None:
        return None
    with storage_errors(path):
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise ValidationFailed(
                f"{path}: {size:,} bytes of JSON are over the limit of {LIMIT_BYTES:,}."
            )
        read = parse_centroids(path.read_bytes(), name=str(path))
    if not read.fits(grid):
        raise ValidationFailed(
            f"{path}: its points have the direction {read.direction}, and the scan's grid is "
            f"{grid.axcodes}, of shape {grid.shape}. Write them as voxel indices of the CT, with "
            f"{{'direction': {list(grid.axcodes)}}} as the first entry."
        )
    return _by_level(read)


def predicted_mask(path: Path, grid: Grid) -> Array:
    """Return a predicted mask, which must lie on `grid`."""
    (mask, _), _ = _read_mask(VolumeStream(path, kind="mask", name=str(path)), grid, path.name)
    return mask


def _by_level(file: CentroidFile, new: Mapping[int, int] | None = None) -> Points:
    """Return the points by level; `new` has labels that overlays change."""
    labels = new or {}
    return {LEVEL_OF_LABEL[labels.get(one.label, one.label)]: one.point for one in file.points}


def _read_mask(
    stream: VolumeStream, grid: Grid | None = None, scan_id: str = ""
) -> tuple[tuple[Array, bool], Grid]:
    """Return a mask, whether its number type has -1024, and its grid, which must be `grid` if given."""
    with stream:
        header = stream.header
        own = Grid(header.shape, header.affine)
        if grid is not None and not own.matches(grid):
            apart = f", {own.distance(grid):.2f} mm apart" if own.shape == grid.shape else ""
            raise ValidationFailed(
                f"{stream.name}: its grid is not that of {scan_id}: shape {own.shape}, {own.axcodes}, "
                f"where the scan has {grid.shape}, {grid.axcodes}{apart}. No mask is resampled here. "
                f"Put it back on the scan's grid: verse-data predictions import folder RELEASE "
                f"{Path(stream.name).parent} OUT"
            )
        kind = "f" if header.scaled else header.dtype.kind
        return (stream.read_rest(), kind in "if"), own
