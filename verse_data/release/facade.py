"""`Release`: the files, tables and stores of one release at one version."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verse_data.config import Config
from verse_data.progress import Progress, default
from verse_data.records.catalog import CatalogEntry
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.records.names import Role
from verse_data.release import checks, contents, serving
from verse_data.release.options import sort_options
from verse_data.releases.commands import command, unless_newest
from verse_data.releases.dataset import ReleaseDataset
from verse_data.releases.fetch import FetchReport
from verse_data.tables.index import Index, ScanFiles, index_scans

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from verse_data.records.provenance import Provenance
    from verse_data.release.checks import LabelChange
    from verse_data.release.serving import Contribution
    from verse_data.releases.diff import Change
    from verse_data.releases.verify import FileFinding, Level
    from verse_data.tables.build import Tables
    from verse_data.tables.folds import Folds
    from verse_data.training import PatchDataset, ScanDataset, VertebraDataset
    from verse_data.volumes.recipe import Recipe
    from verse_data.volumes.source import ScanSource


class Release:
    """One release at one version, as :func:`verse_data.open_release` gives it.

    Opening it reads the lock and nothing else; tables, stores and downloads come when asked for.

    Parameters
    ----------
    dataset : ReleaseDataset
        Where its contents are.
    version : str
        A version that `dataset` has.
    config : Config
        Where stores go, and whether the network may be used.
    catalog : CatalogEntry or None
        What is known of the release from elsewhere.
    progress : Progress, optional
        Told of every long step. Default: bars on a terminal, nothing elsewhere.
    """

    def __init__(
        self,
        dataset: ReleaseDataset,
        *,
        version: str,
        config: Config,
        catalog: CatalogEntry | None,
        progress: Progress | None = None,
    ) -> None:
        self.files = dataset
        self.version = version
        self.config = config
        self.catalog = catalog
        self.progress = progress or default()

    @property
    def name(self) -> str:
        """Name of the release, such as ``"verse19"``."""
        return self.files.name

    @cached_property
    def lock(self) -> ReleaseLock:
        """Every file of this version with size and SHA-256."""
        return self.files.lock(self.version)

    @cached_property
    def commit(self) -> str:
        """Commit id of this version in the DataLad dataset; the same on every machine."""
        return self.files.commit(self.version)

    @cached_property
    def index(self) -> Index:
        """Which locked file is what."""
        return index_scans(self.lock, catalog=self.catalog)

    @property
    def gaps(self) -> int:
        """How many files of scans, or whole scans, the lock lacks; :attr:`findings` names them."""
        return sum(finding.severity == "warning" for finding in self.index.findings)

    @cached_property
    def series(self) -> dict[str, ScanFiles]:
        """The files of each CT series by role, by scan id."""
        return {scan.scan_id: scan for scan in self.index.scans}

    # -- tables ----------------------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """All tables at once; see :mod:`verse_data.tables.columns` for every column.

        Raises
        ------
        ValidationFailed, IntegrityError, UnsafeInput
            If a file that they are made of is broken; each is named, with the place in it.
        """
        return self._tables_for(None)

    def _tables_for(self, scan_ids: Collection[str] | None) -> Tables:
        """Return the tables, if no file of `scan_ids` is broken; None means all scans."""
        listing = command(self.files, "findings", version=unless_newest(self.files, self.version))
        return self._read_tables.sound(scan_ids, listing=listing)

    @cached_property
    def _read_tables(self) -> Tables:
        from verse_data.tables.build import build_tables

        return build_tables(
            self.lock,
            self._content_if_here,
            catalog=self.catalog,
            derived=self.config.derived,
            progress=self.progress,
        )

    @property
    def scans(self) -> pd.DataFrame:
        """One row a CT series."""
        return self.tables.scans.copy()

    @property
    def vertebrae(self) -> pd.DataFrame:
        """One row a vertebra that was graded, segmented or marked by a centroid."""
        return self.tables.vertebrae.copy()

    @property
    def subjects(self) -> pd.DataFrame:
        """One row a patient."""
        return self.tables.subjects.copy()

    @property
    def findings(self) -> pd.DataFrame:
        """One row a broken file, a disagreement between files, or one with what is published."""
        return self._read_tables.findings.copy()

    def select(self, where: str, *, scan_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the rows of :attr:`vertebrae`, or of these scans alone, for which `where` is true.

        A broken file is an error if it belongs to a scan that is looked at, and a finding if not.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; the text points at the position.
        """
        from verse_data.tables.query import select

        chosen = None if scan_ids is None else set(self._ids(scan_ids))
        rows = self._tables_for(chosen).vertebrae
        return select(rows if chosen is None else rows[rows["scan_id"].isin(chosen)], where)

    def tables_of(self, split: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of :attr:`scans` and :attr:`vertebrae` in a published split (None: all).

        Raises
        ------
        UsageError
            If there is no such split.
        ValidationFailed, IntegrityError, UnsafeInput
            If a file of these scans is broken; those of others do not matter.
        """
        from verse_data.tables.splits import of_split

        scans = of_split(self._read_tables.scans, split)
        vertebrae = self._tables_for(set(scans["scan_id"])).vertebrae
        return scans.copy(), vertebrae[vertebrae["scan_id"].isin(scans["scan_id"])].copy()

    def folds(
        self,
        k: int,
        *,
        seed: int = 0,
        stratify: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Folds:
        """Deal the patients of a split (default: of all) into `k` folds of like make-up.

        See :func:`verse_data.tables.folds.make_folds`.
        """
        from verse_data.tables.folds import STRATIFY, make_folds

        scans, vertebrae = self.tables_of(split)
        return make_folds(
            scans,
            vertebrae,
            k=k,
            seed=seed,
            stratify=STRATIFY if stratify is None else stratify,
            release=self.name,
            lock=f"sha256:{self.lock.digest}",
        )

    def read_folds(self, path: str | os.PathLike[str], *, split: str | None = None) -> Folds:
        """Read folds that were written before, and check that they are of this version's scans.

        See :meth:`verse_data.tables.folds.Folds.read`, which checks the scans alone.

        Raises
        ------
        ValidationFailed
            If the file names another release or another lock, or divides other scans.
        IntegrityError
            If it was changed since it was written.
        """
        from verse_data.tables.folds import Folds

        scans, _ = self.tables_of(split)
        return Folds.read(Path(path), scans, release=self.name, lock=f"sha256:{self.lock.digest}")

    # -- contents --------------------------------------------------------------------------------

    def locked(
        self, scan_ids: Iterable[str] | None = None, roles: Sequence[Role] | None = None
    ) -> list[LockedFile]:
        """Return the locked files of `scan_ids` with one of `roles`, or all of them.

        Files that belong to no scan, such as the grading workbook, count for every scan.

        Raises
        ------
        UsageError
            If there is no such scan.
        """
        chosen = [item for name in self._ids(scan_ids) for item in self.series[name].files.items()]
        chosen += [("grading", file) for file in self.index.grading]
        return [file for role, file in chosen if roles is None or role in roles]

    def fetch(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        roles: Sequence[Role] | None = None,
        engine: str = "annex",
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> FetchReport:
        """Bring contents of `scan_ids` (default: all) to this machine, verified.

        Files that have no address, and belong to what was asked for only as everything does (such as
        the grading workbook where no role was named), are in the report's ``to_adopt``.

        Raises
        ------
        Offline
            If something is missing and the network is forbidden; it is listed.
        NetworkError, IntegrityError
            If files could not be had; the others are in place.
        """
        files, show = self.locked(scan_ids, roles), progress or self.progress
        report = self.files.fetch(files, engine=engine, jobs=jobs, progress=show)
        report.raise_for_failures(needed=self.needed(files, scan_ids, roles))
        return report

    def needed(
        self,
        files: Iterable[LockedFile],
        scan_ids: Iterable[str] | None,
        roles: Sequence[Role] | None,
    ) -> frozenset[str]:
        """Return the paths of those of `files` that were asked for by scan or by role."""
        for_all = {file.path for file in self.index.grading}
        return frozenset(
            file.path
            for file in files
            if roles is not None or (scan_ids is not None and file.path not in for_all)
        )

    def _content_if_here(self, file: LockedFile) -> Path | None:
        return self.files.object_path(file) if self.files.has(file) else None

    def _ids(self, scan_ids: Iterable[str] | None) -> list[str]:
        known = self.series
        return (
            list(known)
            if scan_ids is None
            else contents.known_scans(scan_ids, known, release=self.name)
        )

    # -- volumes ---------------------------------------------------------------------------------

    def source(self, scan_id: str) -> ScanSource:
        """Return what the store of a scan is made from.

        Raises
        ------
        ContentMissing
            If its CT, mask or centroid file is not on this machine.
        """
        said = contents.attribution(self.name, self.catalog)
        (name,) = self._ids([scan_id])
        return contents.scan_source(self.files, self.series[name], attribution=said)

    def build_cache(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        recipe: Recipe | None = None,
        workers: int | None = None,
        client: Any = None,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Convert scans (default: all that have a CT) into Zarr stores; those that exist are kept.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``.
        recipe : Recipe, optional
            Default: the scan's own grid.
        workers : int, optional
            Processes. Default: one a core.
        client : distributed.Client, optional
            Convert on a Dask cluster that sees the same folders, instead of on processes here.

        Returns
        -------
        dict
            Folder of the store of each scan.

        Raises
        ------
        ContentMissing
            If files are not on this machine; fetch them first.
        ValidationFailed, VolumeCorrupt, NiftiRefused
            If a volume cannot be used; stores of other scans that are finished stay.
        """
        from verse_data.volumes.build import build_stores
        from verse_data.volumes.recipe import Recipe
        from verse_data.volumes.remote import RemoteStores

        with_image = [name for name, scan in self.series.items() if "ct" in scan.files]
        chosen = with_image if scan_ids is None else self._ids(scan_ids)
        url = self.config.stores_url
        return build_stores(
            [self.source(scan_id) for scan_id in chosen],
            recipe or Recipe(),
            self.config.stores,
            workers=workers or os.cpu_count() or 1,
            client=client,
            remote=RemoteStores(url, self.config.stores, offline=self.config.offline)
            if url
            else None,
            progress=progress or self.progress,
        )

    def open_scan(
        self, scan_id: str, *, orientation: str = "RAS", recipe: Recipe | None = None
    ) -> xr.Dataset:
        """Open one scan as an ``xarray.Dataset`` with world coordinates, lazily.

        The store is built first if it does not exist.
        """
        from verse_data.volumes.view import open_xarray

        store = self.build_cache([scan_id], recipe=recipe)[scan_id]
        return open_xarray(store, orientation=orientation)

    # -- training --------------------------------------------------------------------------------

    def contribution(
        self,
        chosen: Iterable[str] | pd.DataFrame,
        *,
        spacing: Sequence[float] | None = None,
        interpolation: str = "linear",
        codec: str = "lz4",
        workers: int | None = None,
        engine: str = "annex",
        progress: Progress | None = None,
    ) -> Contribution:
        """Fetch and convert what is `chosen`, and return it ready to be served."""
        from verse_data.training import LeftOut, ServedScan

        recipe = contents.make_recipe(spacing, interpolation, codec)
        rows, wanted = self._rows(chosen)
        ids = [name for name in self.series if name in wanted]
        with_image = [name for name in ids if "ct" in self.series[name].files]
        self.fetch(with_image, roles=contents.VOLUME_ROLES, engine=engine, progress=progress)
        stores = self.build_cache(with_image, recipe=recipe, workers=workers, progress=progress)
        served = (
            ServedScan(name, self.series[name].subject_id, self.series[name].split or "", store)
            for name, store in stores.items()
        )
        without = (
            LeftOut(name, self.series[name].subject_id, "no_ct")
            for name in ids
            if name not in stores
        )
        facts = self._facts(with_image, recipe)
        return serving.Contribution(tuple(served), tuple(without), rows, facts)

    def _rows(self, chosen: Iterable[str] | pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
        """Return the vertebra rows that are meant by `chosen`, and the ids of their scans."""
        import pandas as pd

        if not isinstance(chosen, pd.DataFrame):
            wanted = set(self._ids(chosen))
        else:
            wanted = set(self._ids(chosen["scan_id"]))
            if "level" in chosen.columns:
                return chosen, wanted
        table = self._tables_for(wanted).vertebrae
        return table[table["scan_id"].isin(wanted)], wanted

    def dataset(
        self, chosen: Iterable[str] | pd.DataFrame, *, unit: str = "scan", **options: Any
    ) -> ScanDataset | PatchDataset | VertebraDataset:
        """Serve scans, or rows of a table, to a training run.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            Scan ids; or rows of :attr:`vertebrae` or :attr:`scans`, for example out of
            :meth:`select` or a fold.
        unit : {"scan", "patch", "vertebra"}
            What one sample is.
        **options
            As in :func:`verse_data.load_split`.
        """
        how, own = sort_options(unit, options)
        return serving.dataset([self.contribution(chosen, **how)], unit=unit, **own)

    def verify(
        self,
        *,
        level: Level = "hash",
        scan_ids: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> tuple[FileFinding, ...]:
        """Check what is here against the lock, and the lock against the catalog; nothing means clean.

        `level` is ``"presence"``, ``"size"``, ``"hash"`` or ``"content"``; each finding names the
        command that mends it.
        """
        return checks.verify(
            self.files,
            self.version,
            self.index,
            level=level,
            scan_ids=None if scan_ids is None else self._ids(scan_ids),
            derived=self.config.derived,
            progress=progress or self.progress,
        )

    def diff(self, other: str, /) -> tuple[tuple[Change, ...], tuple[LabelChange, ...]]:
        """Return what changed from the version `other` to this one: files, and labels of masks."""
        old = self.files.resolve(other)
        return checks.diff(self.files, old, self.version, derived=self.config.derived)

    def provenance(self, scan_id: str | None = None) -> Provenance:
        """Return what exactly this release is, or what exactly one scan of it is.

        Raises
        ------
        UsageError
            If there is no such scan.
        """
        from verse_data.releases.provenance import describe

        return describe(self.files, self.version, scan_id=scan_id, catalog=self.catalog)

    def _facts(self, scan_ids: Collection[str], recipe: Recipe) -> dict[str, Any]:
        """Return the provenance of served scans: that of the release, with their files alone."""
        whole = self.provenance()
        facts = whole.model_dump(mode="json", exclude={"files", "stores", "scan_id"})
        files = [file for file in whole.files if file.scan_id in scan_ids]
        facts["files"] = [f.model_dump(mode="json", exclude={"here", "fetched"}) for f in files]
        return {**facts, "recipe": recipe.model_dump(mode="json")}

    def __repr__(self) -> str:
        return (
            f"<Release {self.name} {self.version}: {len(self.series)} scans, "
            f"lock {self.lock.digest[:12]}, commit {self.commit[:12]}>"
        )
