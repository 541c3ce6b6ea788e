"""A release as a folder that Hugging Face's ``datasets`` loads: its builder ``niftifolder``.

One row a CT series, with image, mask, patient, and its vertebrae with their grades.
"""

from __future__ import annotations

import io
import os
from typing import Any, Final

from verse_data.export.folders import ROLES, Exported, Plan, ending, export_folder
from verse_data.records.names import Role
from verse_data.tables.export import plain_rows

_ROLES: Final[tuple[Role, ...]] = ("ct", "mask")
_FOLDERS: Final = {"training": "train", "validation": "validation", "test": "test"}
_OF_SCAN: Final = (
    "scan_id", "subject_id", "split", "age_years", "sex", "bmd_mg_cm3", "t_score", "ct_device",
)  # fmt: skip
_OF_VERTEBRA: Final = (
    "level", "label", "grade", "fracture_type", "foreign_material", "grade_status",
)  # fmt: skip


def hf(
    release: Any, out: str | os.PathLike[str], *, copy: bool = False, dry_run: bool = False
) -> Exported:
    """Write a release as a folder for ``datasets.load_dataset("niftifolder", data_dir=out)``.

    Its splits are the published ones; scans without a split are in ``train``. Files that are not
    here are fetched first.

    Parameters
    ----------
    release, out : Release, path
        As in :func:`verse_data.export.bids`.
    copy : bool
        Copy CTs and masks, to hand the folder on. Default: symbolic links, which take no room.
    dry_run : bool
        As in :func:`verse_data.export.bids`, also of what is returned and raised.

    Returns
    -------
    Exported
        The folder, its scans, those that are left out, and bytes.
    """
    return export_folder(
        release,
        out,
        copied=ROLES if copy else (),
        dry_run=dry_run,
        add_scan=_add_scan,
        describe=_describe,
        texts="a metadata.parquet for each split, and README.md",
    )


def _add_scan(plan: Plan, scan_id: str) -> None:
    for role in _ROLES:
        plan.add_file(_path(plan.release, scan_id, role), scan_id, role)


def _path(release: Any, scan_id: str, role: Role) -> str:
    scan = release.series[scan_id]
    return f"{_FOLDERS[scan.split or 'training']}/{scan_id}.{role}{ending(scan.files[role])}"


def _describe(plan: Plan, chosen: tuple[str, ...]) -> None:
    """Add a table of metadata for each split, and the dataset card."""
    release = plan.release
    scans = release.scans.merge(release.subjects[["subject_id", "sex"]], on="subject_id")
    of_scan = {row["scan_id"]: row for row in plain_rows(scans[[*_OF_SCAN]])}
    vertebrae: dict[str, list[dict[str, Any]]] = {}
    for one in plain_rows(release.vertebrae[["scan_id", *_OF_VERTEBRA]]):
        vertebrae.setdefault(one.pop("scan_id"), []).append(one)
    rows: dict[str, list[dict[str, Any]]] = {}
    for scan_id in chosen:
        paths = {role: _path(release, scan_id, role).partition("/") for role in _ROLES}
        row = {"image_file_name": paths["ct"][2], "mask_file_name": paths["mask"][2]}
        row |= of_scan[scan_id] | {"vertebrae": vertebrae.get(scan_id, [])}
        row["licence"] = release.licence_of(scan_id)
        rows.setdefault(paths["ct"][0], []).append(row)
    for name, listed in rows.items():
        plan.add_text(f"{name}/metadata.parquet", _parquet(listed))
    plan.add_text("README.md", _card(release))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    """Return the rows as Parquet, with types that do not depend on which values are missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"label": pa.int16(), "grade": pa.int8(), "foreign_material": pa.bool_()}
    vertebra = pa.struct([(name, kinds.get(name, pa.string())) for name in _OF_VERTEBRA])
    kinds = dict.fromkeys(("age_years", "bmd_mg_cm3", "t_score"), pa.float64())
    kinds["vertebrae"] = pa.list_(vertebra)
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)
    return stream.getvalue()


def _card(release: Any) -> str:
    """Return the card of the dataset, with licence, attribution and what pins its bytes."""
    facts = release.provenance()
    known = facts.licence or ""
    licence = known.lower() if known and not known.startswith("LicenseRef-") else "other"
    return f"""---
license: {licence}
pretty_name: {release.name} {release.version}
task_categories:
- image-segmentation
tags:
- medical
- spine
- CT
---

# {facts.title}

{facts.attribution or "No licence is stated. Ask those who hold the data before you use them."}

`datasets.load_dataset("niftifolder", data_dir="THIS FOLDER")` gives one row a CT series. Divide the
rows by `subject_id`: a patient may have several. In masks, T13 is 28; a missing grade means not
assessed, never healthy.

Release {release.name} {facts.pin}.

```text
{release.citation().rstrip()}
```
"""
