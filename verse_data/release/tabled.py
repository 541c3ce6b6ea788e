"""What the metadata of a release say: its tables, and what is asked of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verse_data.errors import IncompleteTable, warn
from verse_data.progress import Progress
from verse_data.records.lock import LockedFile
from verse_data.records.names import Role
from verse_data.records.source_file import SourceFile
from verse_data.release import contents, grades
from verse_data.release.locked import LockedRelease
from verse_data.release.options import notice_engine
from verse_data.releases.commands import command

if TYPE_CHECKING:
    import pandas as pd

    from verse_data.tables.build import Tables
    from verse_data.tables.folds import Folds


class TabledRelease(LockedRelease):
    """The files and tables of one release; :class:`verse_data.Release` documents the rest."""

    _tables_of: tuple[Hashable, Tables] | None = None
    _warned: frozenset[str] = frozenset()

    @property
    def tables(self) -> Tables:
        """All tables at once; see :mod:`verse_data.tables.columns` for every column.

        Raises
        ------
        ValidationFailed, IntegrityError, UnsafeInput
            If a file that they are made of is broken; each is named, with the place in it.
        """
        self._warn_of_absent_files()
        return self._tables_for(None)

    def _warn_of_absent_files(self, *, headers: bool = False) -> None:
        """Warn, once, of files that are not here and would fill rows or cells of the tables.

        `headers` says that the headers of all CTs count, and not only of those without a mask.
        """
        roles = (*contents.TABLE_ROLES, "ct") if headers else contents.TABLE_ROLES
        sentences = []
        if not (grades.is_here(self) or grades.can_be_fetched(self)):
            roles = tuple(role for role in roles if role != "grading")
            sentences.append(grades.absent(self))
        sentences.append(self._absent_files(None, roles))
        alone = [name for name, scan in self.series.items() if contents.needs_ct(scan)]
        if alone and not headers:
            sentences.append(self._absent_files(alone, ("ct",)))
        for sentence in filter(None, sentences):
            self._warn_once(sentence)

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned |= {sentence}
            warn(IncompleteTable(sentence))

    def _absent_files(self, scan_ids: list[str] | None, roles: tuple[Role, ...]) -> str:
        """Return how many files of `scan_ids` are not here, and what brings them; nothing if all are."""
        files = self.locked(scan_ids, roles)
        absent = sum(not self.files.has(file) for file in files)
        if not absent:
            return ""
        words = [word for name in scan_ids or () for word in ("--scan", name)]
        words += ["--role", ",".join(roles)]
        line = command(self.files, "get", *words, version=self.version_for_commands)
        return (
            f"{absent:,} of {len(files):,} files that the tables are made of are not here, and what they "
            f"say is missing: {line}"
        )

    def _tables_for(self, scan_ids: Collection[str] | None, *, graded: bool = True) -> Tables:
        """Return the tables, if no file of `scan_ids` (None: of all), and no workbook if `graded`, is broken."""
        read = self._read_tables()
        if not read.broken:
            return read
        listing = command(self.files, "findings", version=self.version_for_commands)
        return read.sound(scan_ids, graded=graded, listing=listing)

    def _read_tables(self) -> Tables:
        """Read what is here; once, and again when more has come or a broken file was replaced."""
        here = frozenset(file.path for file in self.lock.files if self.files.has(file))
        if self._tables_of is None or self._tables_of[0] != self._state(here, self._tables_of[1]):
            tables = self._build_tables(here)
            self._tables_of = self._state(here, tables), tables
        return self._tables_of[1]

    def _state(self, here: frozenset[str], tables: Tables) -> Hashable:
        """Return what must be as it was for `tables` to be true: sound contents never change."""
        broken = (self.files.object_path(self.lock.by_path[file.path]) for file in tables.broken)
        return here, tuple((path, *_identity(path)) for path in broken)

    def _build_tables(self, here: Collection[str]) -> Tables:
        from verse_data.tables.build import build_tables

        def content(file: LockedFile) -> SourceFile | None:
            if file.path not in here:
                return None
            return self.files.source(file, version=self.version_for_commands)

        return build_tables(
            self.lock,
            content,
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
        self._warn_of_absent_files(headers=True)
        return self._read_tables().findings.copy()

    def select(self, where: str, *, scan_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the rows of :attr:`vertebrae`, or of these scans alone, for which `where` is true.

        A broken file is an error if it belongs to a scan that is looked at, and a finding if not.

        Parameters
        ----------
        where : str
            Such as ``"grade >= 2 and level >= 'T11'"``.
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.

        Returns
        -------
        pandas.DataFrame
            A copy; its columns are those of :attr:`vertebrae`.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; the text points at the position.
        ContentMissing
            If it asks about grades, or anything else that the grading workbook alone says, and that
            is not here.
        """
        from verse_data.tables.query import columns_used, select

        self.require_grades(where)
        chosen = None if scan_ids is None else set(self._ids(scan_ids))
        if chosen is None:
            self._warn_of_absent_files()
        tables = self._tables_for(chosen, graded=bool(grades.of_workbook(columns_used(where))))
        for file in tables.broken:
            if not file.scan_id:
                self._warn_once(f"What the grading workbook says is missing here: {file.error}")
        rows = tables.vertebrae
        return select(rows if chosen is None else rows[rows["scan_id"].isin(chosen)], where)

    def require_grades(self, where: str | None) -> None:
        """Raise `ContentMissing` if `where` asks about grades, and the workbook is not here.

        So it does for every column that the grading workbook alone fills: ``grade``,
        ``fracture_type``, ``foreign_material``, ``bmd_mg_cm3``, ``age_years`` and the like.

        Parameters
        ----------
        where : str or None
            A condition, as in :meth:`select`; None asks for nothing.
        """
        from verse_data.tables.query import columns_used

        if where is not None:
            grades.require(self, columns_used(where), asked=f"The condition {where!r}")

    def fetch_and_select(
        self,
        where: str,
        *,
        scan_ids: Iterable[str] | None = None,
        graded: bool = False,
        engine: str | None = None,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Fetch everything that the tables say of these scans, then :meth:`select`.

        The grading workbook is fetched if `where` asks for what it alone says, or if the rows are to be
        `graded` whatever `where` asks.

        Parameters
        ----------
        where : str
            As in :meth:`select`.
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        graded : bool
            Whether the rows are to have their grades, where an address has the workbook.
        engine : str, optional
            Has no effect, but for a warning: leave it out.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Returns
        -------
        pandas.DataFrame
            What :meth:`select` gives.

        Raises
        ------
        QueryRefused
            If `where` is not part of the query grammar; nothing was fetched.
        Offline, NetworkError, ContentMissing, IntegrityError
            If a mask or centroid file, the CT of a scan without a mask, or a grading workbook that is
            needed, is not here and cannot be had: rows would be missing without a word.
        """
        from verse_data.tables.query import check_condition, columns_used

        notice_engine(engine)
        check_condition(where)
        graded = graded or bool(grades.of_workbook(columns_used(where)))
        graded = graded and grades.can_be_fetched(self)
        if not graded:
            self.require_grades(where)  # before anything large is fetched in vain
        chosen = self._ids(scan_ids)
        self.fetch_tables(chosen, graded=graded, jobs=jobs, progress=progress)
        return self.select(where, scan_ids=chosen)

    def fetch_tables(
        self,
        scan_ids: Iterable[str] | None = None,
        *,
        graded: bool = True,
        jobs: int = 8,
        progress: Progress | None = None,
    ) -> None:
        """Bring what the tables of `scan_ids` are made of to this machine.

        Parameters
        ----------
        scan_ids : iterable of str, optional
            Scan ids such as ``"verse004"``. Default: all.
        graded : bool
            Whether the grading workbook is needed.
        jobs : int
            How many files come at once.
        progress : Progress, optional
            Told of the work. Default: the release's own.

        Raises
        ------
        Offline, NetworkError, ContentMissing, IntegrityError
            As :meth:`fetch_and_select` does.
        """
        chosen = self._ids(scan_ids)
        self.fetch(chosen, roles=contents.table_roles(graded=graded), jobs=jobs, progress=progress)
        alone = [name for name in chosen if contents.needs_ct(self.series[name])]
        if alone:
            self.fetch(alone, roles=("ct",), jobs=jobs, progress=progress)

    def tables_of(
        self, split: str | None, *, graded: bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of :attr:`scans` and :attr:`vertebrae` in a published split.

        Parameters
        ----------
        split : str or None
            Published split; None means all.
        graded : bool
            Whether a broken grading workbook matters.

        Returns
        -------
        tuple of pandas.DataFrame
            Scans, and their vertebrae.

        Raises
        ------
        UsageError
            If there is no such split.
        ValidationFailed, IntegrityError, UnsafeInput
            If a file of these scans is broken; those of others do not matter.
        """
        from verse_data.tables.splits import of_split

        self._warn_of_absent_files()
        scans = of_split(self._read_tables().scans, split)
        vertebrae = self._tables_for(set(scans["scan_id"]), graded=graded).vertebrae
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

        See :func:`verse_data.tables.folds.make_folds`. Where the grading workbook is not here, a
        warning says so.

        Parameters
        ----------
        k : int
            Number of folds, from 2 to the number of subjects.
        seed : int
            Another seed gives other folds, about equally balanced.
        stratify : sequence of str, optional
            Columns of :attr:`vertebrae` whose values are spread evenly. Default: the usual ones, but for
            grades and foreign material where the grading workbook is not here.
        split : {"training", "validation", "test"}, optional
            Published split that is looked at. Default: all.

        Returns
        -------
        Folds
            Which scans are in which part, with the digest of the lock.

        Raises
        ------
        ContentMissing
            If `stratify` names a column of the grading workbook, and that is not here.
        """
        from verse_data.tables.folds import make_folds
        from verse_data.tables.folds_check import column_names

        if stratify is None:
            stratify = self._usual_balance()
        else:
            grades.require(self, column_names(stratify), asked=f"stratify={stratify!r}")
        graded = bool(grades.of_workbook(column_names(stratify)))
        scans, vertebrae = self.tables_of(split, graded=graded)
        return make_folds(
            scans,
            vertebrae,
            k=k,
            seed=seed,
            stratify=stratify,
            release=self.name,
            lock=f"sha256:{self.lock.digest}",
        )

    def _usual_balance(self) -> tuple[str, ...]:
        """Return what folds are balanced over by default; warn once where grades are left out."""
        from verse_data.tables.folds import STRATIFY

        if grades.is_here(self):
            return STRATIFY
        left, sentence = grades.without_grades(self, STRATIFY)
        if sentence not in self._warned:
            self._warned |= {sentence, grades.absent(self)}
            warn(IncompleteTable(sentence))
        return left

    def read_folds(self, path: str | os.PathLike[str], *, split: str | None = None) -> Folds:
        """Read folds that were written before, and check that they are of this version's scans.

        See :meth:`verse_data.tables.folds.Folds.read`, which checks the scans alone.

        Parameters
        ----------
        path : path
            A file that :meth:`verse_data.tables.folds.Folds.write` wrote.
        split : {"training", "validation", "test"}, optional
            Published split that is looked at. Default: all.

        Returns
        -------
        Folds
            As they were written.

        Raises
        ------
        ValidationFailed
            If the file names another release or another lock, or divides other scans.
        IntegrityError
            If it was changed since it was written.
        """
        from verse_data.tables.folds import Folds

        scans, _ = self.tables_of(split, graded=False)
        return Folds.read(Path(path), scans, release=self.name, lock=f"sha256:{self.lock.digest}")


def _identity(path: Path) -> tuple[int, ...]:
    """Return what is another for another file at `path`; nothing where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
