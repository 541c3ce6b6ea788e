"""A release as a BIDS derivative: masks as ``dseg``, patients and grades as TSV with JSON.

BIDS 1.11 has no CT, so ``.bidsignore`` names CTs, centroids and ``grades.tsv``. VerSe's ``split-``
and ``dir-`` mean other things there, and become ``acq-``; ``scans.tsv`` holds each scan's id.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

from verse_data.config import __version__
from verse_data.export.folders import ROLES, Exported, Plan, ending, export_folder
from verse_data.export.prov import doi_url
from verse_data.spine.levels import LABEL_OF_LEVEL, LEVELS, region

_BIDS: Final = "1.11.1"
_IGNORED: Final = """# BIDS has no CT, no centroids, and no table of vertebrae.
**/*_ct.*
**/*_ctd.json
grades.*
"""
_COLOURS: Final = {"cervical": "#e69f00", "thoracic": "#56b4e9", "lumbar": "#009e73"}
_PATIENT: Final = ("age_years", "sex", "bmd_mg_cm3", "t_score")
_GRADED: Final = (
    "scan_id", "level", "label", "grade", "fracture_type", "foreign_material", "grade_status",
)  # fmt: skip


def bids(
    release: Any, out: str | os.PathLike[str], *, copy: bool = False, dry_run: bool = False
) -> Exported:
    """Write a release as a BIDS derivative dataset, which the BIDS validator passes.

    Files that are not here are fetched first.

    Parameters
    ----------
    release : Release
        As opened by :func:`verse_data.open_release`.
    out : path
        Folder to make, complete or not at all.
    copy : bool
        Copy CTs too, to hand the folder on. Default: CTs are symbolic links, and only masks and
        centroids copies, since the validator does not follow links into an annex.
    dry_run : bool
        Write and fetch nothing, and return what would be.

    Returns
    -------
    Exported
        The folder, its scans, those that are left out, and bytes.

    Raises
    ------
    UsageError
        If the folder exists, no scan has both CT and mask, or two scans would have one name.
    Offline, NetworkError, ContentMissing
        If files are not here and cannot be fetched.
    """
    listed: dict[str, list[tuple[str, ...]]] = {}
    return export_folder(
        release,
        out,
        copied=ROLES if copy else ("mask", "centroids"),
        dry_run=dry_run,
        add_scan=partial(_add_scan, listed=listed),
        describe=partial(_describe, listed=listed),
        texts="a JSON file for each mask, tables of patients, scans, labels and grades, "
        "dataset_description.json, .bidsignore and README.md",
    )


def _add_scan(plan: Plan, scan_id: str, *, listed: dict[str, list[tuple[str, ...]]]) -> None:
    """Add the files of a scan to `plan`, and its mask to the list that stands in ``scans.tsv``."""
    scan = plan.release.series[scan_id]
    parts = [part.partition("-") for part in scan_id.split("_")[1:]]
    session = "".join(f"ses-{value}" for key, _, value in parts if key == "ses")
    others = "".join(value for key, _, value in parts if key not in {"ses", "ce"})
    names = [f"sub-{scan.subject_id}", session, f"acq-{others}" if others else ""]
    names += [f"ce-{value}" for key, _, value in parts if key == "ce"]
    stem = "_".join(filter(None, names))
    above = "/".join(filter(None, names[:2]))
    mask = f"anat/{stem}_desc-vertebrae_dseg{ending(scan.files['mask'])}"
    ct = f"{above}/anat/{stem}_ct{ending(scan.files['ct'])}"
    plan.add_file(f"{above}/{mask}", scan_id, "mask")
    plan.add_file(ct, scan_id, "ct")
    if "centroids" in scan.files:
        plan.add_file(f"{above}/anat/{stem}_desc-centroids_ctd.json", scan_id, "centroids")
    sidecar = {
        "Description": "Vertebrae, with the labels of dseg.tsv",
        "SpatialReference": f"bids::{ct}",
        "Sources": [f"bids::{ct}"],
    }
    plan.add_text(f"{above}/{mask.partition('.')[0]}.json", sidecar)
    table = f"{above}/{'_'.join(filter(None, names[:2]))}_scans.tsv"
    licence = plan.release.licence_of(scan_id)
    listed.setdefault(table, []).append((mask, scan_id, scan.split or "n/a", licence))


def _describe(
    plan: Plan, chosen: tuple[str, ...], *, listed: dict[str, list[tuple[str, ...]]]
) -> None:
    """Add what BIDS wants to know of the dataset, its patients, scans, labels and grades."""
    release = plan.release
    subjects, vertebrae = release.subjects, release.vertebrae
    people = {release.series[scan_id].subject_id for scan_id in chosen}
    patients = subjects[subjects["subject_id"].isin(people)][["subject_id", *_PATIENT]]
    patients = patients.rename(columns={"subject_id": "participant_id", "age_years": "age"})
    patients["participant_id"] = "sub-" + patients["participant_id"]
    grades = vertebrae[vertebrae["scan_id"].isin(chosen)][["subject_id", *_GRADED]]
    grades = grades.rename(columns={"subject_id": "participant_id"})
    grades["participant_id"] = "sub-" + grades["participant_id"]
    for path, table, names in (
        ("participants", patients, {"age": "age_years"}),
        ("grades", grades, {}),
    ):
        plan.add_text(f"{path}.tsv", table.to_csv(sep="\t", index=False, na_rep="n/a"))
        plan.add_text(f"{path}.json", _columns(table.columns[1:], names))
    plan.add_text("scans.json", {
        "scan_id": {"Description": "Id of the CT series in the release"},
        "split": {"Description": "Published split: training, validation or test"},
        "licence": {"Description": "Licence of the scan, an SPDX identifier"},
    })  # fmt: skip
    for path, rows in listed.items():
        lines = [
            "\t".join(row) for row in [("filename", "scan_id", "split", "licence"), *sorted(rows)]
        ]
        plan.add_text(path, "\n".join(lines) + "\n")
    labels = [("index", "name", "abbreviation", "color")]
    labels += [(str(LABEL_OF_LEVEL[x]), f"vertebra {x}", x, _COLOURS[region(x)]) for x in LEVELS]
    plan.add_text("dseg.tsv", "".join("\t".join(row) + "\n" for row in labels))
    plan.add_text(".bidsignore", _IGNORED)
    plan.add_text("dataset_description.json", _dataset(release))
    plan.add_text("README.md", f"{release.citation()}\nMade by verse-data {__version__}.\n")


def _columns(names: Any, renamed: dict[str, str]) -> dict[str, Any]:
    """Return what each column means, in the form of BIDS' sidecars."""
    from verse_data.tables.columns import columns

    known = {
        column.name: column for table in ("vertebrae", "subjects") for column in columns(table)
    }
    found: dict[str, Any] = {}
    for name in names:
        column = known[renamed.get(name, name)]
        found[name] = {"Description": column.description}
        if column.unit:
            found[name]["Units"] = column.unit
    return found


def _dataset(release: Any) -> dict[str, Any]:
    """Return the contents of ``dataset_description.json``."""
    facts = release.provenance()
    source = {"Version": facts.pin}
    if facts.doi:
        source |= {"DOI": f"doi:{facts.doi}", "URL": doi_url(facts.doi)}
    described = {
        "Name": facts.title,
        "BIDSVersion": _BIDS,
        "DatasetType": "derivative",
        "Authors": [*release.catalog.creators] if release.catalog else [],
        "License": facts.licence,
        "HowToAcknowledge": facts.attribution,
        "ReferencesAndLinks": [f"{one.text} {doi_url(one.doi)}" for one in facts.citations],
        "GeneratedBy": [{"Name": "verse-data", "Version": __version__}],
        "SourceDatasets": [source],
    }
    return {name: value for name, value in described.items() if value}
