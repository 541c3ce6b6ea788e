"""The explorer as a folder or one file that opens from disk, without a server and a network."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from verse_data.errors import UsageError, counted
from verse_data.explorer.facts import Explored, page_facts
from verse_data.explorer.prepare import describe
from verse_data.explorer.server import FILES, PAGE
from verse_data.files import check_output, publish_folder, staging, write_file
from verse_data.progress import spell_bytes
from verse_data.spine.geometry import Box
from verse_data.stores import make_recipe
from verse_data.views.drawing import encoded
from verse_data.views.report import check_page
from verse_data.volumes.nifti import nifti_bytes
from verse_data.volumes.reader import ScanReader

SPACING_MM: Final = 2.0
"""Voxel size of the volumes of a page on disk, if no other is asked for."""
SINGLE_FILE_BYTES: Final = 60_000_000
"""Size of the volumes from which one file holds previews instead."""
_BYTES_A_VOXEL: Final = 1.5  # of a CT with noise: gzipped, then base64
_PREVIEW_BYTES: Final = 160_000
_SCRIPTS: Final = re.compile(r'<script src="([a-z./]+)"></script>')


@dataclass(frozen=True, kw_only=True)
class SavedPage:
    """A page on disk, or one that would be written.

    Attributes
    ----------
    path : Path
        The folder, or the file.
    scan_ids : tuple of str
        Scans that can be looked at in it.
    estimated_bytes : int
        Size as estimated before.
    nbytes : int
        Size as written; 0 after a dry run.
    has_volumes : bool
        Whether it holds volumes; else previews.
    """

    path: Path
    scan_ids: tuple[str, ...]
    estimated_bytes: int
    nbytes: int
    has_volumes: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What goes into a page: scans, rows of vertebrae that are shown first, voxel size, words for it."""

    scan_ids: tuple[str, ...]
    rows: tuple[int, ...] | None
    where: str | None
    spacing: float
    single_file: bool


def save(
    release: Explored,
    out: Path,
    selection: Selection,
    *,
    dry_run: bool,
    tell: Callable[[str], None],
) -> SavedPage:
    """Write a page, atomically, after its size was told."""
    _require_free(out, single_file=selection.single_file)
    volumes = sum(_volume_bytes(release, selection.spacing, name) for name in selection.scan_ids)
    has_volumes = not (selection.single_file and volumes > SINGLE_FILE_BYTES)
    fixed = sum((PAGE / name).stat().st_size for name in FILES)
    size = fixed + (volumes if has_volumes else _PREVIEW_BYTES * len(selection.scan_ids))
    what = f"volumes of {selection.spacing:g} mm voxels" if has_volumes else "a preview each"
    tell(
        f"{counted(len(selection.scan_ids), 'scan')}, {what}: about {spell_bytes(size)} at {out}"
        + ("." if has_volumes else "; as a folder (without --single-file) it would have volumes.")
    )
    page = SavedPage(
        path=out,
        scan_ids=selection.scan_ids,
        estimated_bytes=size,
        nbytes=0,
        has_volumes=has_volumes,
    )
    if dry_run:
        return page
    scans = _scans(release, selection, has_volumes=has_volumes)
    facts = _call("verseFacts", _facts(release, selection, has_volumes=has_volumes))
    if selection.single_file:
        nbytes = _write_file(out, facts, scans)
    else:
        nbytes = _write_folder(out, facts, scans)
    return SavedPage(**{**vars(page), "nbytes": nbytes})


def _require_free(out: Path, *, single_file: bool) -> None:
    """Refuse a place that holds something else; a page of one file may be written again."""
    if single_file:
        check_page(out)
    elif out.suffix.lower() in {".html", ".htm"}:
        raise UsageError(
            f"{out} would be a folder. For a page of one file give --single-file "
            f"(single_file=True); for a folder, a name without {out.suffix}."
        )
    elif check_output(out).exists() and any(out.iterdir()):
        raise UsageError(f"{out} exists and is not empty. Name a new folder, or remove it first.")


def _volume_bytes(release: Explored, spacing: float, scan_id: str) -> int:
    """Estimate what the volumes of a scan take, by its grid, or by its file where that is not known."""
    scans = release.readable_tables.scans
    row = scans[scans["scan_id"] == scan_id].iloc[0]
    extent = [row[f"shape_{axis}"] * row[f"spacing_{axis}"] / spacing for axis in "ijk"]
    if pd.isna(extent).any():
        return 2 * release.series[scan_id].files["ct"].size
    return round(math.prod(map(float, extent)) * _BYTES_A_VOXEL)


def _facts(release: Explored, selection: Selection, *, has_volumes: bool) -> dict[str, Any]:
    """Return what the page knows, and what it was selected by."""
    ids = selection.scan_ids
    volumes = f"{selection.spacing:g} mm voxels" if has_volumes else "previews"
    words = [counted(len(ids), "scan"), *([selection.where] if selection.where else []), volumes]
    is_part = len(ids) < len(release.series)
    listed = ", ".join(f"'{name}'" for name in ids)
    kept = {
        "scans": list(ids),
        "selection": f"On disk: {' · '.join(words)}",
        "where": selection.where or "",
        "rows": None if selection.rows is None else list(selection.rows),
        "condition": f"scan_id in [{listed}]" if is_part else "",
    }
    return {**page_facts(release, ids), "kept": kept}


def _scans(
    release: Explored, selection: Selection, *, has_volumes: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield the script of each scan, with its volumes or its preview."""
    ids, recipe = list(selection.scan_ids), make_recipe(selection.spacing, "linear", "lz4")
    stores = release.fetch_and_build(ids, recipe=recipe)
    with release.progress("Writing the page", len(ids), "items") as advance:
        for name in ids:
            reader = release.reader(name, stores[name])
            made = _volumes(reader) if has_volumes else _preview(release, name, reader)
            yield name, _call("verseScan", name, made)
            advance(1)


def _volumes(reader: ScanReader) -> dict[str, Any]:
    """Return what is known of a scan, and its volumes as base64 of gzipped NIfTI."""
    image, label = reader.read(Box.whole(reader.shape), label=reader.has_label)
    arrays = {"image": image, "label": label}
    packed = {
        name: base64.b64encode(
            gzip.compress(nifti_bytes(array, reader.affine), 6, mtime=0)
        ).decode()
        for name, array in arrays.items()
        if array is not None
    }
    return {"about": {**describe(reader), "factor": 1}, **packed}


def _preview(release: Explored, scan_id: str, reader: ScanReader) -> dict[str, Any]:
    """Return what is known of a scan, and its preview as the address of a picture."""
    picture = base64.b64encode(encoded(release.preview(scan_id), ".webp")).decode()
    return {"about": {**describe(reader), "preview": f"data:image/webp;base64,{picture}"}}


def _call(function: str, *values: Any) -> bytes:
    """Return a script that calls a function of the page; safe within HTML, too."""
    texts = [json.dumps(value, allow_nan=False).replace("<", "\\u003c") for value in values]
    return f"{function}({', '.join(texts)});\n".encode()


def _write_folder(out: Path, facts: bytes, scans: Iterator[tuple[str, bytes]]) -> int:
    """Publish the page as a folder: its own files, facts.js, and a script for each scan."""
    with staging(out) as staged:
        (staged / "scans").mkdir(parents=True)
        (staged / "vendor").mkdir()
        for name in FILES:
            (staged / name).write_bytes((PAGE / name).read_bytes())
        # After data.js, which has the functions that it calls.
        html = (PAGE / "index.html").read_text(encoding="utf-8")
        own = '<script src="data.js"></script>'
        page = html.replace(own, f'{own}\n<script src="facts.js"></script>')
        (staged / "index.html").write_text(page, encoding="utf-8")
        (staged / "facts.js").write_bytes(facts)
        for name, script in scans:
            (staged / "scans" / f"{name}.js").write_bytes(script)
        nbytes = sum(path.stat().st_size for path in staged.rglob("*") if path.is_file())
        if not publish_folder(staged, out):
            raise UsageError(f"{out} was filled by somebody else meanwhile. Name a new folder.")
    return nbytes


def _write_file(out: Path, facts: bytes, scans: Iterator[tuple[str, bytes]]) -> int:
    """Publish the page as one file, with all scripts within."""
    style = (PAGE / "explorer.css").read_text(encoding="utf-8")
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    html = html.replace('<link rel="stylesheet" href="explorer.css">', f"<style>\n{style}</style>")
    data = [facts, *(script for _, script in scans)]

    def inline(found: re.Match[str]) -> str:
        own = (PAGE / found[1]).read_text(encoding="utf-8").replace("</script", "<\\/script")
        texts = [own, *(part.decode() for part in data)] if found[1] == "data.js" else [own]
        return "\n".join(f"<script>\n{text}</script>" for text in texts)

    licence = (PAGE / "vendor/LICENSE.niivue").read_text(encoding="utf-8")
    html = html.replace("<!-- facts -->", f"<!-- NiiVue 0.69.0:\n{licence}-->")
    content = _SCRIPTS.sub(inline, html).encode()
    write_file(out, content)
    return len(content)
