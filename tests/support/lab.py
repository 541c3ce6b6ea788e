"""A lab's folder before it is a release, made of the phantom: names, headers and labels of the tools.

Sources: dcm2niix v1.0.20241211 (``nii_SaveBIDSX``, default name ``%f_%p_%t_%s``), TotalSegmentator
2.18 (``nnunet.py``, ``map_to_binary.py``), TPTBox and SPINEPS of August 2026 (``save_load.py``,
``seg_run.py``, ``seg_pipeline.py``).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from openpyxl import load_workbook

from verse_data.records.tables import FRACTURE_TYPES, LIST_COLUMNS, SHEET
from verse_data.spine.levels import GRADED_LEVELS, LABEL_OF_LEVEL, LEVEL_OF_LABEL

# Class ids of TotalSegmentator's task `total`: from the sacrum, 25, up to C1, 50. No T13, no L6.
_UPWARDS = [LEVEL_OF_LABEL[label] for label in range(24, 0, -1)]
TOTAL = {25: "sacrum", 26: "vertebrae_S1"} | {
    number: f"vertebrae_{level}" for number, level in enumerate(_UPWARDS, start=27)
}
SPLEEN, SACRUM, DISC, ENDPLATE = 1, 26, 100, 200
SIDECAR = {
    "Modality": "CT",
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Made-up scanner",
    "BodyPart": "SPINE",
    "PatientPosition": "HFS",
    "SeriesDescription": "Spine 1.0 Br60",
    "ProtocolName": "Spine",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SeriesNumber": 4,
    "AcquisitionTime": "12:00:0.000000",
    "AcquisitionNumber": 1,
    "ConvolutionKernel": "Br60f",
    "ExposureTime": 0.5,
    "XRayTubeCurrent": 300,
    "XRayExposure": 150,
    "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0],
    "ConversionSoftware": "dcm2niix",
    "ConversionSoftwareVersion": "v1.0.20241211",
}
"""What dcm2niix writes of a CT with its default, ``-ba y``."""

CASES = (
    # scan of the phantom, folder, rest of the CT's name, split, scan of the lab
    ("verse912", "patient-a", "Spine_20000101120000_4.nii.gz", "training", "lab001"),
    ("verse902_split-verse951", "patient-b", "Spine_20000102120000_3.nii.gz", "training", "lab002_split-lab102"),
    ("verse902_split-verse952", "patient-b", "Spine_20000102120000_5.nii.gz", "training", "lab002_split-lab103"),
    ("verse911", "sub-c", "ct.nii.gz", "training", "lab003"),
    ("verse906", "patient-d", "Spine_20000104120000_4.nii", "training", "lab004"),
    ("verse909", "patient-e", "Spine_20000105120000_2.nii.gz", "test", "lab005"),
)  # fmt: skip

LEVELS_OF_SCAN = {
    "lab001": ("T6", "L1", 8),
    "lab002_split-lab102": ("T3", "T11", 9),
    "lab002_split-lab103": ("T10", "L4", 7),
    "lab003": ("T12", "L5", 6),
    "lab004": ("T7", "L2", 8),
    "lab005": ("C3", "L5", 22),
}
"""First level, last level and number of levels of each mask; the same in every tool's form."""


def write_lab(tree: Path, folder: Path) -> None:
    """Write CTs, masks, ``cases.csv`` and ``grades.csv`` into `folder`, from a phantom's `tree`."""
    rows: list[tuple[Path | str, ...]] = []
    for phantom, patient, series, split, scan in CASES:
        if patient.startswith("sub-"):
            files = _spineps(tree, phantom, folder / "spineps", patient)
        else:
            ct = _dcm2niix(tree, phantom, folder / "nifti" / patient, f"{patient}_{series}")
            write, ending = (_multilabel, ".nii.gz") if patient == "patient-b" else (_binary, "")
            mask = folder / "masks" / f"{ct.name.partition('.')[0]}{ending}"
            write(mask, _volume(tree, phantom, "seg-vert_msk"))
            files = (ct, mask)
        ct, mask, *points = (path.relative_to(folder) for path in files)
        rows.append((ct, mask, *(points or [""]), split, scan))
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ct", "mask", "centroids", "split", "scan"), *rows])
    scout = folder / "nifti" / "patient-a" / "patient-a_Topogram_20000101120000_1.nii.gz"
    _save(scout, np.zeros((64, 48, 1), np.int16), np.eye(4))
    scout.with_name(scout.name.replace(".nii.gz", ".json")).write_text(json.dumps(SIDECAR))
    _write_grades(tree, folder / "grades.csv")


def _write_grades(tree: Path, path: Path) -> None:
    """Write a line for each graded vertebra of the training scans, with the lab's own labels."""
    graded = {
        int(phantom[-3:]): scan for phantom, _, _, split, scan in CASES if split == "training"
    }
    with path.open("w", newline="") as file:
        (workbook,) = tree.glob("*.xlsx")
        headings, *rows = load_workbook(workbook)[SHEET].values
        writer = csv.writer(file)
        writer.writerow(LIST_COLUMNS)
        for row in rows:
            cells = dict(zip(headings, row, strict=True))
            scan = graded.get(cells["verse_ID"])
            for level in GRADED_LEVELS if scan else ():
                grade, shape = cells[f"{level}_fx-g"], cells[f"{level}_fx-s"]
                if grade == "x":
                    writer.writerow([scan, level, "", "", "true"])
                elif grade is not None:
                    writer.writerow([scan, level, grade, FRACTURE_TYPES[shape], "false"])


def _volume(tree: Path, phantom: str, kind: str) -> Any:
    """Return a volume of the phantom in dcm2niix's orientation of an axial CT, LAS."""
    (path,) = tree.rglob(f"sub-{phantom}_{kind}.nii.gz")
    image = nib.load(path)
    flips = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("LAS")
    )
    return image.as_reoriented(flips)


def _save(path: Path, array: npt.NDArray[Any], affine: npt.ArrayLike, *, table: str = "") -> None:
    """Write an image with the header that dcm2niix gives a CT, and an extension as TotalSegmentator's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header["descrip"] = b"Time=120000.000"
    image.header.set_xyzt_units("mm", "sec")
    if table:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(0, table.encode()))
    nib.save(image, path)


def _dcm2niix(tree: Path, phantom: str, folder: Path, name: str) -> Path:
    """Write a CT and its sidecar."""
    image = _volume(tree, phantom, "ct")
    path = folder / name
    _save(path, np.asarray(image.dataobj).astype(np.int16), image.affine)
    path.with_name(f"{name.partition('.')[0]}.json").write_text(json.dumps(SIDECAR, indent="\t"))
    return path


def _binary(folder: Path, mask: Any) -> None:
    """Write a file for each class of the spine, also for those that are not in the image."""
    labels = np.asarray(mask.dataobj)
    for name in TOTAL.values():
        label = LABEL_OF_LEVEL.get(name.removeprefix("vertebrae_"), -1)
        _save(folder / f"{name}.nii.gz", (labels == label).astype(np.uint8), mask.affine)


def _multilabel(path: Path, mask: Any) -> None:
    """Write what ``--ml`` writes: class ids, other organs too, with a table of names in the header."""
    labels = np.asarray(mask.dataobj)
    ids = np.zeros(labels.shape, np.uint8)
    for number, name in TOTAL.items():
        ids[labels == LABEL_OF_LEVEL.get(name.removeprefix("vertebrae_"), -1)] = number
    ids[:2, :2, :2] = SPLEEN
    rows = "\n".join(
        f'<Label Key="{number}" Red="1.0" Green="0.0" Blue="0.0" Alpha="1"><![CDATA[{name}]]></Label>'
        for number, name in ({SPLEEN: "spleen"} | TOTAL).items()
    )
    table = (
        f'<VolumeInformation Index="0">   <LabelTable>{rows}\n  </LabelTable></VolumeInformation>'
    )
    head = '<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>'
    _save(path, ids, mask.affine, table=f"{head}{table}</CaretExtension>")


def _spineps(tree: Path, phantom: str, dataset: Path, subject: str) -> tuple[Path, ...]:
    """Write a BIDS dataset as SPINEPS leaves it: the CT as it was, and its outputs beside."""
    ct, mask = _volume(tree, phantom, "ct"), _volume(tree, phantom, "seg-vert_msk")
    path = _dcm2niix(tree, phantom, dataset / "rawdata" / subject / "ct", f"{subject}_ct.nii.gz")
    labels = np.asarray(mask.dataobj).astype(np.uint8)
    free = np.argwhere(labels == 0)
    for number, label in enumerate((SACRUM, DISC + 20, ENDPLATE + 20)):
        labels[tuple(free[number])] = label
    derived = dataset / "derivatives_seg" / subject / "ct"
    vertebrae = derived / f"{subject}_mod-ct_seg-vert_msk.nii.gz"
    _save(vertebrae, labels, mask.affine)
    _save(derived / f"{subject}_mod-ct_seg-spine_msk.nii.gz", labels.clip(0, 49), mask.affine)
    (drawn,) = tree.rglob(f"sub-{phantom}_seg-*_ctd.json")
    bodies = {
        LEVEL_OF_LABEL[point["label"]]: {"50": [point[axis] for axis in "XYZ"]}
        for point in json.loads(drawn.read_text())[1:]
    }
    grid = {
        "direction": ["L", "A", "S"],
        "zoom": [float(size) for size in ct.header.get_zooms()],
        "origin": ct.affine[:3, 3].tolist(),
        "rotation": (ct.affine[:3, :3] / ct.header.get_zooms()).tolist(),
        "shape": list(ct.shape),
        "format": "POI",
        "level_one_info": "Vertebra_Instance",
        "level_two_info": "Location",
        "source": "MRI Segmentation Pipeline",
        "version": "Version not found",
        "models": {"0": {"name": "No Model"}},
    }
    entries = [grid, bodies | {"S1": {"50": [1.0, 1.0, 1.0]}}]
    centroids = derived / f"{subject}_mod-ct_seg-spine_ctd.json"
    centroids.write_text(json.dumps(entries, indent=4))
    return path, vertebrae, centroids
