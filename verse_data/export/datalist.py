"""A release as a datalist of MONAI, in the form of the Medical Segmentation Decathlon.

Read by ``monai.data.load_decathlon_datalist`` and Auto3DSeg (MONAI 1.5). Both read any string as a
path if such a file exists, so ids have a prefix: ``scan/verse004``. Auto3DSeg divides items, and so
patients, at random, unless each has a ``fold`` or there is a list ``validation``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from verse_data.export import cases, folders
from verse_data.export.cases import Fold, LabelMap, Labels
from verse_data.export.folders import Chosen, Exported

DATALIST: Final = "datalist.json"
_LABELS: Final[tuple[Labels, ...]] = ("consecutive", "binary", "verse")
_MASKS: Final = "labels"


def monai(
    release: Any,
    out: str | os.PathLike[str],
    *,
    labels: Labels = "consecutive",
    k: int | None = None,
    seed: int = 0,
    split: str | None = None,
    dry_run: bool = False,
) -> Exported:
    """Write a release as a datalist of MONAI, with patients divided as a whole.

    The folder gets ``datalist.json`` and the renumbered masks; CTs are referenced where they are.
    Files that are not here are fetched first.

    Parameters
    ----------
    release, out : Release or UnitedReleases, path
        As in :func:`verse_data.export.nnunet`; `out` is the folder to make.
    labels : {"consecutive", "binary", "verse"}
        VerSe's labels with T13 (28) as 26; one class; or VerSe's own: masks are referenced too.
    k : int, optional
        Divide the patients into so many folds, as :meth:`verse_data.Release.folds` does: the ``fold``
        of each item. Default: the published split, as lists ``training``, ``validation`` and
        ``testing``.
    seed, split, dry_run : optional
        As in :func:`verse_data.export.nnunet`.

    Returns
    -------
    Exported
        The folder, its scans, those that are left out, and bytes.

    Raises
    ------
    UsageError, Offline, NetworkError, ContentMissing, ValidationFailed, IntegrityError, UnsafeInput
        As in :func:`verse_data.export.nnunet`.
    """
    numbers, folder = cases.label_map(labels, allowed=_LABELS), Path(out)
    chosen = cases.choose(release, k=k, seed=seed, split=split)
    if folder.exists():
        raise folders.folder_exists_error(folder)
    own = labels != "verse"
    if not own:
        folders.refuse_relabelled(release, chosen, "a datalist with labels='verse'")
    written = ("mask",) if own else ()
    plan = folders.planned(release, chosen, folder, written=written, texts=DATALIST)
    if dry_run:
        return plan
    folds, made = cases.divide(release, chosen, k=k, seed=seed, split=split)
    release.fetch(chosen.scans, roles=folders.ROLES)
    items = {scan_id: _item(release, scan_id, own=own) for scan_id in chosen.scans}
    text = folders.as_json(
        _head(release, chosen, numbers)
        | {"folds": made}
        | _lists(items, folds, chosen, published=k is None)
    )
    masks = {
        name: Path(item["label"]) if own and "label" in item else None
        for name, item in items.items()
    }

    def build(staged: Path) -> None:
        if own:
            (staged / _MASKS).mkdir()
        cases.write_masks(release, {s: p and staged / p for s, p in masks.items()}, numbers)
        (staged / DATALIST).write_text(text, encoding="utf-8")

    return folders.published(plan, build)


def _item(release: Any, scan_id: str, *, own: bool) -> dict[str, Any]:
    """Return an item: files by path, and ids that neither reader takes for one."""
    scan, source = release.series[scan_id], release.source(scan_id)
    item = {
        "image": os.fspath(source.image.path.absolute()),
        "scan_id": f"scan/{scan_id}",
        "subject_id": f"subject/{scan.subject_id}",
    }
    if source.mask is not None:
        written = f"{_MASKS}/{scan_id}.nii.gz"
        item["label"] = written if own else os.fspath(source.mask.path.absolute())
    return item


def _head(release: Any, chosen: Chosen, labels: LabelMap) -> dict[str, Any]:
    """Return what a datalist says before its lists."""
    return {
        **cases.facts(release, labels, chosen),
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(number): name for name, number in labels.classes.items()},
        "numTraining": len(chosen.development),
        "numTest": len(chosen.test),
    }


def _lists(
    items: dict[str, dict[str, Any]], folds: list[Fold], chosen: Chosen, *, published: bool
) -> dict[str, Any]:
    """With folds, each item says in which one it is held out; else a list per split."""
    if published:
        sides = {"training": folds[0]["train"], "validation": folds[0]["val"]}
        lists = {side: [items[name] for name in names] for side, names in sides.items()}
    else:
        fold_of = {name: number for number, fold in enumerate(folds) for name in fold["val"]}
        lists = {"training": [items[s] | {"fold": fold_of[s]} for s in chosen.development]}
    return {**lists, "testing": [items[name] for name in chosen.test]}
