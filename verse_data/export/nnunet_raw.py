"""A release as a raw dataset of nnU-Net v2: masks that it can train on, and CTs that stay in place.

Format: nnU-Net 2.8, ``documentation/dataset_format.md`` and ``region_based_training.md``. Its
planner copies the ``splits_final.json`` that lies beside ``dataset.json``; without one, nnU-Net
divides cases, so that two series of a patient end up on two sides.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final, Literal, get_args

from verse_data.errors import UsageError, one_of
from verse_data.export import cases, folders
from verse_data.export.cases import Fold, LabelMap, Labels
from verse_data.export.folders import Chosen, Exported

_LABELS: Final[tuple[Labels, ...]] = ("consecutive", "binary", "regions")
_REGION_NUMBERS: Final = {"cervical": 1, "thoracic": 2, "lumbar": 3, "vertebra": 4}
"""What nnU-Net writes for each region; 4 is a vertebra of no region."""
CtFiles = Literal["reference", "copy", "link"]
_TEXTS: Final = "dataset.json, splits_final.json and README.md"
_FOLDER: Final = re.compile(r"Dataset\d{3}_.+")


def nnunet(
    release: Any,
    out: str | os.PathLike[str],
    *,
    dataset_id: int = 400,
    name: str | None = None,
    labels: Labels = "consecutive",
    k: int | None = None,
    seed: int = 0,
    split: str | None = None,
    ct: CtFiles = "reference",
    variable: str | None = None,
    dry_run: bool = False,
) -> Exported:
    """Write a release as a raw dataset of nnU-Net v2, with patients divided as a whole.

    Masks are written with labels that nnU-Net takes, on the grid of their CT bit for bit; CTs are
    referenced. Beside ``dataset.json`` lie ``splits_final.json`` and a README for whoever trains.
    Files that are not here are fetched first.

    Parameters
    ----------
    release : Release or UnitedReleases
        As opened by :func:`verse_data.open_release` or :func:`verse_data.open_releases`.
    out : path
        The folder ``nnUNet_raw``; ``DatasetXXX_NAME`` is made in it, complete or not at all.
    dataset_id : int
        Number of the dataset, from 1 to 999.
    name : str, optional
        Rest of the dataset's name. Default: the release's, of several joined with ``-``.
    labels : {"consecutive", "binary", "regions"}
        VerSe's labels with T13 (28) as 26; one class; or nnU-Net's overlapping regions (whole
        spine, cervical, thoracic, lumbar), whose masks are those of ``"consecutive"``.
    k : int, optional
        Divide the patients into so many folds, as :meth:`verse_data.Release.folds` does. Default: the
        published split, as one fold; its test scans go to ``imagesTs`` and ``labelsTs``.
    seed : int
        Seed of the folds.
    split : {"training", "validation", "test"}, optional
        Divide only this published split into folds. Default: all scans, those for testing too.
    ct : {"reference", "copy", "link"}
        Whether CTs to train on are named by path in ``dataset.json``, or lie in ``imagesTr`` as copies
        or symbolic links. In ``imagesTs``, where nnU-Net wants files, references are links too.
    variable : str, optional
        Begin the paths of referenced CTs with this environment variable, which whoever trains sets to
        the release's folder on that machine; of several, to the folder that holds theirs. Default:
        absolute paths of this machine.
    dry_run : bool
        Write and fetch nothing, and return what would be.

    Returns
    -------
    Exported
        The folder, its scans, those that are left out, and bytes.

    Raises
    ------
    UsageError
        If an option cannot be used, the folder exists, or its number is taken in `out`.
    Offline, NetworkError, ContentMissing
        If files are not here and cannot be fetched.
    ValidationFailed, IntegrityError, UnsafeInput
        If a CT or mask is broken, they are not on one grid, or a mask holds what is no vertebra;
        all such scans are named, and nothing is left behind.
    """
    numbers = cases.label_map(labels, allowed=_LABELS)
    _check_place(ct, variable)
    chosen = cases.choose(release, k=k, seed=seed, split=split)
    ending = _ending(release, chosen)
    own_name = name or "-".join(one.name for one in release.members)
    folder = _folder(Path(out), dataset_id, own_name)
    written = ("mask", "ct") if ct == "copy" else ("mask",)
    plan = folders.planned(release, chosen, folder, written=written, texts=_TEXTS)
    if dry_run:
        return plan
    folds, made = cases.divide(release, chosen, k=k, seed=seed, split=split)
    release.fetch(chosen.scans, roles=folders.ROLES)
    masks = _mask_paths(release, chosen, ending)
    images = _image_paths(chosen, ending, referenced=ct == "reference")
    facts = _dataset_json(release, chosen, numbers, ending) | {"folds": made}
    if ct == "reference":
        facts["dataset"] = {
            scan_id: {
                "images": [_reference(release, scan_id, variable)],
                "label": str(masks[scan_id]),
            }
            for scan_id in chosen.development
        }
    texts = {
        "dataset.json": folders.as_json(facts),
        "splits_final.json": folders.as_json(folds),
        "README.md": _readme(facts, folder, chosen, folds, variable),
    }

    def build(staged: Path) -> None:
        for part in {path.parent for path in (*masks.values(), *images.values()) if path}:
            (staged / part).mkdir(exist_ok=True)
        cases.write_masks(release, {s: p and staged / p for s, p in masks.items()}, numbers)
        for scan_id, path in images.items():
            folders.place(release.source(scan_id).image.path, staged / path, copy=ct == "copy")
        for file, text in texts.items():
            (staged / file).write_text(text, encoding="utf-8")

    return folders.published(plan, build)


def _check_place(ct: str, variable: str | None) -> None:
    """Check `ct` and `variable`."""
    one_of("ct", ct, get_args(CtFiles))
    if variable is None:
        return
    if ct != "reference":
        raise UsageError(f"variable={variable!r} is for CTs by reference, and ct={ct!r} has none.")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise UsageError(f"{variable!r} is no name of an environment variable, such as VERSE_ROOT.")


def _ending(release: Any, chosen: Chosen) -> str:
    """Return the ending of all CTs, ``.nii.gz`` or ``.nii``; nnU-Net wants one for all cases."""
    found = {folders.ending(release.series[s].files["ct"]): s for s in chosen.scans[::-1]}
    if len(found) > 1:
        raise UsageError(
            f"The CT of {found['.nii']} ends in .nii and that of {found['.nii.gz']} in .nii.gz; "
            f"nnU-Net takes one ending for all cases. Gzip the others, and lock the release again."
        )
    return next(iter(found))


def _reference(release: Any, scan_id: str, variable: str | None) -> str:
    """Return the path of a CT: absolute, or below ``$VARIABLE``, the folder of the release or releases."""
    path: Path = release.source(scan_id).image.path.absolute()
    if variable is None:
        return os.fspath(path)
    home = release.home(scan_id)
    within = path.relative_to(home.files.path.absolute())
    return f"${variable}/{(home.name / within if len(release.members) > 1 else within).as_posix()}"


def _folder(out: Path, dataset_id: int, name: str) -> Path:
    """Return the folder of the dataset, whose number must not be taken in `out`."""
    if not isinstance(dataset_id, int) or not 1 <= dataset_id <= 999:
        raise UsageError(
            f"The id of a dataset is a whole number from 1 to 999, not {dataset_id!r}."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"{name!r} is no name of a dataset: use letters, digits, '_' and '-'.")
    if _FOLDER.fullmatch(out.name):
        raise UsageError(
            f"{out} is called as a dataset. OUT is the folder nnUNet_raw, not a dataset in it. "
            f"Give {out.parent}, with dataset_id and name (--id and --name)."
        )
    folder = out / f"Dataset{dataset_id:03d}_{name}"
    if folder.exists():
        raise folders.folder_exists_error(folder)
    taken = sorted(path.name for path in out.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise UsageError(
            f"{out} holds {taken[0]}, and nnU-Net refuses two datasets of one number. "
            f"Give another: dataset_id={dataset_id % 999 + 1} (--id {dataset_id % 999 + 1})."
        )
    return folder


def _mask_paths(release: Any, chosen: Chosen, ending: str) -> dict[str, Path | None]:
    """Return where the mask of each scan goes; None for a test scan that has none."""
    sides = {"labelsTr": chosen.development, "labelsTs": chosen.test}
    return {
        scan_id: Path(part, scan_id + ending) if "mask" in release.series[scan_id].files else None
        for part, scan_ids in sides.items()
        for scan_id in scan_ids
    }


def _image_paths(chosen: Chosen, ending: str, *, referenced: bool) -> dict[str, Path]:
    """Return where CTs lie in the dataset itself."""
    sides = {"imagesTr": () if referenced else chosen.development, "imagesTs": chosen.test}
    return {
        scan_id: Path(part, f"{scan_id}_0000{ending}")
        for part, scan_ids in sides.items()
        for scan_id in scan_ids
    }


def _dataset_json(release: Any, chosen: Chosen, labels: LabelMap, ending: str) -> dict[str, Any]:
    """Return ``dataset.json`` without its list of cases; nnU-Net reads the order of labels."""
    order = [_REGION_NUMBERS[part] for part in labels.classes if part in _REGION_NUMBERS]
    regions = {"regions_class_order": order} if labels.kind == "regions" else {}
    return {
        "channel_names": {"0": "CT"},
        "labels": dict(labels.classes),
        **regions,
        "numTraining": len(chosen.development),
        "file_ending": ending,
        # nnU-Net does not reorient by itself, and VerSe's scans have many orientations.
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        **cases.facts(release, labels, chosen),
    }


def _readme(
    facts: dict[str, Any],
    folder: Path,
    chosen: Chosen,
    folds: list[Fold],
    variable: str | None,
) -> str:
    """Return the README for whoever trains: what this is, which commands, and the way back."""
    kind, release = facts["verse_data"]["labels"], facts["verse_data"]["release"]
    overlays = "".join(
        f" --overlay {one['name']}" for one in facts["verse_data"].get("overlays", ())
    )
    one, number = len(folds) == 1, folder.name[7:10].lstrip("0")
    every = " ".join(map(str, range(len(folds))))
    train = (
        f"nnUNetv2_train {number} 3d_fullres {0 if one else '$fold'} -tr nnUNetTrainerNoMirroring"
    )
    folders_of = f"that holds the folders {release.replace('+', ' and ')}"
    place = folders_of if "+" in release else f"of release {release}"
    setting = f"export {variable}=...   # the folder {place} on this machine\n"
    return _README.format(
        **facts,
        cite=f" Cite: {facts['citation']}" if facts["citation"] else "",
        folder=folder.name,
        raw=folder.parent.absolute(),
        number=number,
        train=train if one else f"for fold in {every}; do\n    {train}\ndone",
        every=every,
        several="The only fold is 0" if one else f"Folds are 0 to {len(folds) - 1}",
        made=facts["folds"]["made_by"],
        setting=setting if variable else "",
        images=f"$nnUNet_raw/{folder.name}/imagesTs" if chosen.test else "FOLDER",
        meaning=_MEANING[kind],
        back=_BACK.format(release_name=release, overlays=overlays) if kind == "consecutive" else "",
    )


_MEANING: Final = {
    "consecutive": "C1 to L6 are 1 to 25 as in VerSe; T13, which is 28 there, is 26 here.",
    "binary": "Every vertebra is 1; which one it was is not kept.",
    "regions": "Masks hold C1 to L6 as 1 to 25 and T13 as 26; nnU-Net learns the regions named in\n"
    "dataset.json; its predictions hold 1 cervical, 2 thoracic, 3 lumbar, 4 vertebra of no region.",
}
_BACK: Final = """
## The way back

On a machine that has the release, with VerSe's labels (T13 as 28) and on the grid of each scan:

```sh
verse-data predictions import nnunet {release_name} predictions native
verse-data evaluate {release_name} native{overlays}
```
"""
_README: Final = """# {folder}

{description}

Licence of the data: {licence}. {attribution}
The masks here were renumbered and are an adaptation: pass licence and attribution on with them.{cite}

## Labels

{meaning}
Vertebrae cut by the field of view have no mask, so predicting them counts as an error.

## Train

```sh
export nnUNet_raw="{raw}"
export nnUNet_preprocessed=... nnUNet_results=...
{setting}nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity
{train}
nnUNetv2_predict -i "{images}" -o predictions -d {number} -c 3d_fullres -f {every} \\
    -tr nnUNetTrainerNoMirroring
```

- `splits_final.json` (by: {made}) keeps every patient on one side. {several}; for any other
  number nnU-Net makes a random division of cases, with patients on two sides.
- nnU-Net mirrors along all axes, head to foot too, which turns the order of the levels around: train
  without. `nnUNetTrainer_onlyMirror01` is no way out: which axes are 0 and 1 depends on the plans.
- CTs are never clipped or normalised here; nnU-Net does that for the channel `CT`.
- Scans keep their own orientation: NibabelIOWithReorient turns them to RAS+ on reading, and back.
{back}"""
