"""`Release`: the files, tables and stores of one release at one version."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from verse_data.errors import (
    FILE_FAULTS,
    IntegrityError,
    NetworkError,
    Offline,
    UsageError,
    VerseDataError,
    counted,
    warn,
)
from verse_data.progress import Progress
from verse_data.release import contents, grades, serving
from verse_data.release.options import needs, split_options
from verse_data.release.tabled import TabledRelease

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from verse_data.release.serving import Contribution
    from verse_data.training import PatchDataset, ScanDataset, VertebraDataset
    from verse_data.volumes.recipe import Recipe, ScanSource
    from verse_data.volumes.remote import RemoteStores


class Release(TabledRelease):
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
        Told of every long step. Default: bars on a terminal or in a notebook, else lines on stderr.
    """

    def source(self, scan_id: str) -> ScanSource:
        """Return what the store of a scan is made from.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.

        Returns
        -------
        ScanSource
            The CT, and the mask and centroid file where it has them, with their digests.

        Raises
        ------
        ContentMissing
            If its CT, mask or centroid file is not on this machine.
        ContentCorrupt
            If its centroid file is not the locked one.
        """
        licence = contents.attribution(self.name, self.catalog)["licence"]
        (name,) = self._ids([scan_id])
        return contents.scan_source(
            self.files, self.series[name], licence=licence, version=self.version_for_commands
        )

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
            Processes, 1 or more. Default: one per core.
        client : distributed.Client, optional
            Convert on a Dask cluster that sees the same folders, instead of on processes here.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        dict
            Folder of the store of each scan.

        Raises
        ------
        UsageError
            If there is no such scan, or `workers` is no number of processes.
        ContentMissing
            If there is no store yet and files are not on this machine; fetch them first.
        ValidationFailed, VolumeCorrupt, NiftiRefused
            If a volume cannot be used; stores of other scans that are finished stay.
        """
        from verse_data.volumes.build import build_stores
        from verse_data.volumes.recipe import Recipe

        processes = serving.check_processes(workers)
        if recipe is not None and not isinstance(recipe, Recipe):
            raise UsageError(f"recipe={recipe!r} is no verse_data.volumes.recipe.Recipe.")
        recipe = recipe or Recipe()
        with_image = [name for name, scan in self.series.items() if "ct" in scan.files]
        chosen = with_image if scan_ids is None else self._ids(scan_ids)
        sources, finished = self._sources(chosen, recipe)
        return finished | build_stores(
            sources,
            recipe,
            self.config.stores,
            workers=processes,
            client=client,
            remote=self._remote_stores(),
            progress=progress or self.progress,
        )

    def _sources(
        self, scan_ids: Iterable[str], recipe: Recipe
    ) -> tuple[list[ScanSource], dict[str, Path]]:
        """Return what stores are made from, and the finished stores of scans without sound files here."""
        sources: list[ScanSource] = []
        faults: dict[str, VerseDataError] = {}
        for scan_id in scan_ids:
            try:
                sources.append(self.source(scan_id))
            except FILE_FAULTS as error:
                faults[scan_id] = error
        with_image = [name for name in faults if "ct" in self.series[name].files]
        finished, lost = self._finished(with_image, recipe)
        for name, fault in faults.items():
            if name not in finished:
                with _saying(lost):
                    raise fault
        return sources, finished

    def _remote_stores(self) -> RemoteStores | None:
        """Return the stores that machines share, if there are some."""
        from verse_data.volumes.remote import RemoteStores

        url = self.config.stores_url
        return RemoteStores(url, self.config.stores, offline=self.config.offline) if url else None

    def _finished(self, scan_ids: Iterable[str], recipe: Recipe) -> tuple[dict[str, Path], str]:
        """Return the stores of scans that are finished, and why a shared one cannot be had, if so."""
        from verse_data.volumes.recipe import fingerprint
        from verse_data.volumes.store import find_store, store_path

        licence = contents.attribution(self.name, self.catalog)["licence"]
        remote = self._remote_stores()
        found: dict[str, Path] = {}
        damaged, lost = [], ""
        for scan_id in scan_ids:
            keys = contents.store_keys(self.series[scan_id], licence=licence)
            name = fingerprint(keys, recipe)
            try:
                store = remote.find(name) if remote else find_store(name, self.config.stores)
            except IntegrityError as error:
                if store_path(self.config.stores, name).is_dir():
                    raise  # it is this machine's own
                damaged.append(str(error))
            except Offline as error:
                lost = str(error)
            else:
                if store:
                    found[scan_id] = store
        if damaged:
            told = counted(len(damaged), "shared store is", "shared stores are")
            lost = f"{told} damaged. {damaged[0]}"
            warn(UserWarning(lost))
        return found, lost

    def open_scan(
        self, scan_id: str, *, orientation: str = "RAS", recipe: Recipe | None = None
    ) -> xr.Dataset:
        """Open one scan as an ``xarray.Dataset`` with world coordinates, lazily.

        The store is built first if it does not exist. Its attributes say whose scan it is, and
        licence and attribution of the release.

        Parameters
        ----------
        scan_id : str
            Such as ``"verse004"``.
        orientation : str
            Axis codes of the grid, such as ``"PIR"``; flips and permutations only.
        recipe : Recipe, optional
            Default: the scan's own grid.

        Returns
        -------
        xarray.Dataset
            ``image`` (int16 HU) and, where there is a mask, ``label`` (uint8).
        """
        from verse_data.volumes.view import open_xarray

        store = self.build_cache([scan_id], recipe=recipe)[scan_id]
        scan = self.series[scan_id]
        return open_xarray(store, orientation=orientation).assign_attrs(
            subject_id=scan.subject_id,
            split=scan.split,
            **contents.attribution(self.name, self.catalog),
        )

    def contribution(
        self,
        chosen: Iterable[str] | pd.DataFrame,
        *,
        spacing: float | Sequence[float] | None = None,
        interpolation: str = "linear",
        codec: str = "lz4",
        workers: int | None = None,
        with_rows: bool = True,
        graded: bool = False,
        progress: Progress | None = None,
    ) -> Contribution:
        """Fetch and convert what is `chosen`, and return it ready to be served.

        A finished store needs no volume; rows of vertebrae need mask and centroids.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            As in :meth:`dataset`.
        spacing, interpolation, codec : optional
            Of the stores, as in :func:`verse_data.load_split`.
        workers : int, optional
            As in :meth:`build_cache`.
        with_rows : bool
            Whether vertebrae are needed; tables are made for nothing else.
        graded : bool
            Whether their grades are needed.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        Contribution
            Scans with their stores, those left out, rows of vertebrae, and provenance.
        """
        from verse_data.training import LeftOut, ServedScan

        recipe = contents.make_recipe(spacing, interpolation, codec)
        given, wanted = self._rows(chosen)
        graded = graded or _gives_grades(given)
        if graded:
            grades.require_obtainable(self, asked="What is to be served")
        ids = [name for name in self.series if name in wanted]
        # Before anything large is fetched or converted for rows that are refused.
        rows = (
            None if given is None else self._own_rows(given, ids, graded=graded, progress=progress)
        )
        with_image = [name for name in ids if "ct" in self.series[name].files]
        stores, lost = self._finished(with_image, recipe)
        unbuilt = [name for name in with_image if name not in stores]
        if rows is None and with_rows:
            self._require_room(unbuilt, codec)
            self.fetch_tables(ids, graded=graded, progress=progress)
            table = self._tables_for(wanted, graded=graded).vertebrae
            rows = table[table["scan_id"].isin(wanted)]
        if unbuilt:
            self._require_room(unbuilt, codec)
            with _saying(lost):
                self.fetch(unbuilt, roles=contents.VOLUME_ROLES, progress=progress)
        stores |= self.build_cache(unbuilt, recipe=recipe, workers=workers, progress=progress)
        served = (
            ServedScan(
                name, self.series[name].subject_id, self.series[name].split or "", stores[name]
            )
            for name in with_image
        )
        without = (
            LeftOut(name, self.series[name].subject_id, "no_ct")
            for name in ids
            if name not in stores
        )
        facts = self._facts(with_image, recipe, tables=rows is not None)
        return serving.Contribution(tuple(served), tuple(without), rows, facts, self.series)

    def _require_room(self, unbuilt: Iterable[str], codec: str) -> None:
        """Refuse what would not fit on the disk, files that are missing and stores together."""
        files = [
            (role, file)
            for name in unbuilt
            for role, file in self.series[name].files.items()
            if role in contents.VOLUME_ROLES
        ]
        contents.require_room(
            {
                self.files.path: sum(f.size for _, f in files if not self.files.has(f)),
                self.config.stores: contents.store_bytes(files, codec),
            },
            what=f"{self.name} {self.version}",
        )

    def _rows(self, chosen: Iterable[str] | pd.DataFrame) -> tuple[pd.DataFrame | None, set[str]]:
        """Return `chosen` if it holds vertebra rows, and the ids of its scans."""
        if not _is_table(chosen):
            return None, set(self._ids(cast("Iterable[str]", chosen)))
        from verse_data.tables.given_rows import check_scans, with_scan_ids

        if "scan_id" in chosen.index.names and "scan_id" not in chosen.columns:
            chosen = chosen.reset_index()
        if "scan_id" not in chosen.columns:
            raise UsageError("The rows that are to be served have no column scan_id.")
        chosen = with_scan_ids(chosen, self.series)
        ids = set(self._ids(chosen["scan_id"]))
        if "level" in chosen.columns:
            return chosen, ids
        check_scans(chosen, self.series, version=f"{self.name} {self.version}")
        return None, ids

    def _own_rows(
        self, given: pd.DataFrame, ids: Sequence[str], *, graded: bool, progress: Progress | None
    ) -> pd.DataFrame:
        """Return this version's own rows of the vertebrae that are `given`."""
        from verse_data.tables.given_rows import own_rows

        self.fetch_tables(ids, graded=graded, progress=progress)
        own = self._tables_for(set(ids), graded=graded).vertebrae
        return own_rows(given, own, version=f"{self.name} {self.version}")

    def dataset(
        self, chosen: Iterable[str] | pd.DataFrame, *, unit: str = "scan", **options: Any
    ) -> ScanDataset | PatchDataset | VertebraDataset:
        """Serve scans, or rows of a table, to a training run.

        Parameters
        ----------
        chosen : iterable of str, or DataFrame
            Scan ids; or rows of :attr:`vertebrae` or :attr:`scans`, for example out of
            :meth:`select`, a fold, or a CSV file of them. Rows choose vertebrae by ``scan_id`` and
            ``level``, each once; what is served of them is what this version says. Other columns
            are compared with it where the table has them, and ignored where not.
        unit : {"scan", "patch", "vertebra"}
            What one sample is.
        **options
            As in :func:`verse_data.load_split`.

        Returns
        -------
        ScanDataset, PatchDataset or VertebraDataset
            What :func:`verse_data.load_split` gives for this `unit`.

        Raises
        ------
        UsageError
            Beside what :func:`verse_data.load_split` raises: if a row names a vertebra that this
            version lacks, a vertebra is given twice, or a value is not what this version says.
        """
        how, own = split_options(unit, options)
        serving.check_options(unit, how, own)
        grades.require_listed([self], unit, own)
        part = self.contribution(chosen, **needs(unit, own), **how)
        return serving.dataset([part], unit=unit, **own)

    def _facts(self, scan_ids: Collection[str], recipe: Recipe, *, tables: bool) -> dict[str, Any]:
        """Return the provenance of served scans: that of the release, with their files alone.

        `tables` says that rows of the tables decided what is served.
        """
        from verse_data.releases import provenance

        whole = self.provenance()
        facts = whole.model_dump(mode="json", exclude={"files", "stores", "scan_id", "packages"})
        files = [file for file in whole.files if file.scan_id in scan_ids]
        facts["files"] = [f.model_dump(mode="json", exclude={"here", "fetched"}) for f in files]
        facts["recipe"] = recipe.model_dump(mode="json")
        shaped = provenance.of_stores([file.path for file in files], facts["recipe"])
        if tables:
            shaped |= provenance.of_tables([file.path for file in self.lock.files])
        return {**facts, "packages": provenance.versions(shaped)}


@contextmanager
def _saying(lost: str) -> Iterator[None]:
    """Add to an error of files that cannot be had why a shared store does not stand in for them."""
    try:
        yield
    except (IntegrityError, NetworkError) as error:
        if not lost:
            raise
        raise type(error)(f"{error}\n{lost}") from None


def _is_table(chosen: Iterable[str] | pd.DataFrame) -> TypeGuard[pd.DataFrame]:
    """Whether `chosen` is a DataFrame; pandas is not imported to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(chosen, pandas.DataFrame)


def _gives_grades(rows: pd.DataFrame | None) -> bool:
    """Whether rows came with what the workbook says, which is held against that of the version."""
    if rows is None:
        return False
    said = rows[grades.of_workbook(rows.columns)]
    return bool((said.notna() & (said != "not_assessed")).any(axis=None))
