"""What all exports share: the scans, files of the release and texts, a folder all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from verse_data.errors import UsageError, counted
from verse_data.files import publish_folder, staging
from verse_data.problems import shown
from verse_data.progress import spell_bytes
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role

ROLES: Final[tuple[Role, ...]] = ("ct", "mask", "centroids")
"""Files that an export fetches; :meth:`Release.source` reads the centroids with the others."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The scans to develop a model on, those to test it on, and why others are left out."""

    development: tuple[str, ...]
    test: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def scans(self) -> tuple[str, ...]:
        """Ids of all scans, those to test on last."""
        return (*self.development, *self.test)


@dataclass(frozen=True, kw_only=True)
class Exported(Chosen):
    """What an export has written, or would write in a dry run.

    Attributes
    ----------
    path : Path
        The folder.
    development, test : tuple of str
        Ids of the scans to train and validate on or to divide into folds, and of those to test on.
    left_out : dict
        Why each other scan is left out, by its id.
    nbytes : int
        Bytes of the files; links take none. In a dry run an estimate, without what is in `texts`.
    texts : str
        What small files lie beside them, in words.
    to_fetch : int
        Bytes that a dry run would have to fetch first.
    dry_run : bool
        Whether nothing was written.
    """

    path: Path
    nbytes: int
    texts: str
    to_fetch: int = 0
    dry_run: bool = False

    def __str__(self) -> str:
        """Return a summary in a few lines."""
        held = counted(len(self.development), "scan")
        scans = f"{held} to train on, {len(self.test)} to test on"
        size = spell_bytes(self.nbytes)
        if self.dry_run:
            fetched = f", after fetching {spell_bytes(self.to_fetch)}" if self.to_fetch else ""
            files = f"about {size}, and " if self.nbytes else ""
            head = f"Would write {files}{self.texts} to {self.path}{fetched}: {scans}."
        else:
            head = f"Wrote {self.path} ({size}): {scans}."
        why = [f"{scan_id}: {reason}" for scan_id, reason in self.left_out.items()]
        return "\n".join([head, *(["Left out:"] if why else []), *shown(why, indent="  ")])


def check_release(release: object) -> None:
    """Raise UsageError if this is the name of a release, a list of several, or something else."""
    if not hasattr(release, "members"):
        raise UsageError(
            f"{release!r} is no open release. Open it: vd.open_release('verse19'), or several as one: "
            f"vd.open_releases('verse19+verse20')."
        )


def scans_with_ct_and_mask(release: Any) -> Chosen:
    """Return the scans that have a CT and a mask, and why others are left out."""
    check_release(release)
    lacking = {
        scan_id: f"no {' and no '.join(roles)}"
        for scan_id, scan in release.series.items()
        if (roles := [role for role in ("ct", "mask") if role not in scan.files])
    }
    lacking |= {one.scan.scan_id: one.why for one in release.withheld}
    held = {name: scan.split for name, scan in release.series.items() if name not in lacking}
    if not held:
        raise UsageError(f"{release.name} {release.version} has no scan with both CT and mask.")
    test = tuple(name for name, split in held.items() if split == "test")
    development = tuple(name for name in held if name not in test)
    return Chosen(development=development, test=test, left_out=lacking)


def refuse_relabelled(release: Any, chosen: Chosen, what: str) -> None:
    """Raise UsageError if an overlay relabels a chosen scan, whose mask is handed on as published."""
    overlay_of = {name: release.series[name].relabelled for name in chosen.scans}
    if found := [name for name in overlay_of if overlay_of[name]]:
        overlays = " and ".join(dict.fromkeys(overlay_of[name] for name in found))
        relabels = "relabel" if " and " in overlays else "relabels"
        raise UsageError(
            f"Overlay {overlays} {relabels} {counted(len(found), 'scan')}, such as {found[0]}, and {what} "
            f"holds masks as they were published. Open the release without it, or write masks anew: "
            f"export nnunet, or export monai with labels='consecutive'."
        )


def planned(
    release: Any, chosen: Chosen, path: Path, *, written: Collection[str], texts: str
) -> Exported:
    """Return what an export that writes files of these roles takes, by the sizes in the lock."""
    files = [release.series[name].files for name in chosen.scans]
    absent = [
        file.size
        for name, one in zip(chosen.scans, files, strict=True)
        for role, file in one.items()
        if role in ROLES and not release.home(name).files.has(file)
    ]
    return Exported(
        path=path,
        development=chosen.development,
        test=chosen.test,
        left_out=chosen.left_out,
        nbytes=sum(one[role].size for one in files for role in written if role in one),
        texts=texts,
        to_fetch=sum(absent),
        dry_run=True,
    )


def published(plan: Exported, build: Callable[[Path], None]) -> Exported:
    """Build the folder of `plan` and give it its name, all or nothing; return what was written."""
    with _without_empty_folders(plan.path), staging(plan.path, needed=plan.nbytes) as staged:
        staged.mkdir()
        build(staged)
        files = [path for path in staged.rglob("*") if path.is_file() and not path.is_symlink()]
        nbytes = sum(path.stat().st_size for path in files)
        if not publish_folder(staged, plan.path):
            raise folder_exists_error(plan.path)
    return replace(plan, nbytes=nbytes, to_fetch=0, dry_run=False)


@contextmanager
def _without_empty_folders(path: Path) -> Iterator[None]:
    """Remove the folders above `path` that are made within, if nothing comes to be in them."""
    absent = [folder for folder in path.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # another process may write there too
            for folder in absent:
                folder.rmdir()
        raise


def folder_exists_error(folder: Path) -> UsageError:
    """Return the error of an export whose folder is there already."""
    return UsageError(
        f"{folder} exists, and nothing in it was changed. Remove it, or name another."
    )


def as_json(value: Any) -> str:
    """Return JSON to read, in the order given: nnU-Net counts regions by it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def ending(file: LockedFile) -> str:
    """Return the ending that the copy of a volume gets."""
    return ".nii.gz" if file.path.lower().endswith(".gz") else ".nii"


def place(source: Path, target: Path, *, copy: bool) -> None:
    """Copy a file of the release, or let a symbolic link point at it."""
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.absolute())


# --- folders of links or copies -------------------------------------------------------------------


@dataclass
class Plan:
    """The files of a folder, by path: those of the release, as scan and role, and bytes.

    Files of `copied` roles are copied, and others are links.
    """

    release: Any
    copied: Collection[Role]
    files: dict[str, tuple[str, Role]] = field(default_factory=dict)
    made: dict[str, bytes] = field(default_factory=dict)

    def add_file(self, path: str, scan_id: str, role: Role) -> None:
        """Put a file of a scan at `path`."""
        if path in self.files:
            other = self.files[path][0]
            aliases = [self.release.series[name].published_subject for name in (scan_id, other)]
            way = "Export without the overlay that makes them one patient, or name" * any(aliases)
            raise UsageError(
                f"{scan_id} and {other} would both be {path}. {way or 'Name'} the files of one "
                f"otherwise, and lock the release again."
            )
        self.files[path] = (scan_id, role)

    def add_text(self, path: str, content: str | bytes | Mapping[str, Any]) -> None:
        """Put text, bytes or JSON at `path`."""
        if isinstance(content, Mapping):
            content = as_json(content)
        self.made[path] = content.encode() if isinstance(content, str) else content

    @property
    def links(self) -> int:
        """How many files are links."""
        return sum(role not in self.copied for _, role in self.files.values())

    def build(self, staged: Path) -> None:
        """Write all files below `staged`."""
        for path in (*self.files, *self.made):
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
        sizes = [self.release.series[scan].files[role].size for scan, role in self.files.values()]
        with self.release.progress("Copying or linking files", sum(sizes), "bytes") as advance:
            for (path, (scan_id, role)), size in zip(self.files.items(), sizes, strict=True):
                source = self.release.path(scan_id, role)
                place(source, staged / path, copy=role in self.copied)
                advance(size)
        for path, content in self.made.items():
            (staged / path).write_bytes(content)


def export_folder(
    release: Any,
    out: str | os.PathLike[str],
    *,
    copied: Collection[Role],
    dry_run: bool,
    add_scan: Callable[[Plan, str], None],
    describe: Callable[[Plan, tuple[str, ...]], None],
    texts: str,
) -> Exported:
    """Write the files that `add_scan` adds of a scan, and the texts that `describe` adds."""
    folder, chosen = Path(out), scans_with_ct_and_mask(release)
    if len(release.members) > 1:
        raise UsageError(
            f"This folder describes one release, and {release.name} is {len(release.members)}. Export "
            f"each into a folder of its own; nnunet and monai take several as one."
        )
    (release,) = release.members
    plan = Plan(release, copied)
    refuse_relabelled(release, chosen, "this folder")
    if folder.exists():
        raise folder_exists_error(folder)
    for scan_id in chosen.scans:
        add_scan(plan, scan_id)
    written = {role for _, role in plan.files.values()}.intersection(copied)
    links = f"links to {counted(plan.links, 'file')}, " if plan.links else ""
    planned_folder = planned(release, chosen, folder, written=written, texts=links + texts)
    if dry_run:
        return planned_folder
    release.fetch(chosen.scans, roles=ROLES)
    release.fetch_tables(chosen.scans)
    describe(plan, chosen.scans)
    return published(planned_folder, plan.build)
