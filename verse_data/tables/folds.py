"""Cross-validation folds that keep each person on one side, and are balanced.

The folds depend only on the tables, `k`, `seed` and `stratify`. They are computed from integers and
SHA-256, so that every platform and every version of NumPy makes the same ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, count
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ConfigDict, ValidationError, model_validator

from verse_data import markup
from verse_data.errors import IntegrityError, UsageError, ValidationFailed, counted, did_you_mean
from verse_data.files import canonical_json, locate, sha256_of_json, storage_errors, write_file
from verse_data.problems import listed, shown
from verse_data.records.base import Record, described, read_json, rules_of

STRATIFY: Final = ("grade", "region", "foreign_material")
"""Columns of the vertebrae that folds are balanced over, each and jointly."""
KIND: Final = "verse-data folds"
"""Field ``kind`` of a folds file."""
_SCHEMA_VERSION: Final = "1.0.0"
_SHOWN, _MOST_VALUES, _JOINT = 20, 64, "joint"
# A single value weighs more than a combination: figures are reported by grade, region and so on.
_PRIORITY, _SCALE = 4, 1 << 20
_MAX_RESTARTS, _MAX_PAIRS, _SWAPS_PER_RESTART = 100, 4000, 3
# Swaps try at most so many subjects of a fold: enough to even out the counts of a large one.
_CANDIDATES: Final = 128

_Integers = npt.NDArray[np.int64]
_says = partial(described, source="make_folds")


class FoldPart(Record):
    """One fold."""

    subjects: tuple[str, ...] = _says("Persons of the fold, sorted")
    scans: tuple[str, ...] = _says("Their CT series, sorted")


class FoldScans(tuple[str, ...]):  # noqa: SLOT001 - it has an attribute
    """Scan ids of one side of a fold, and which fold that is: a dataset of them says so."""

    fold: Mapping[str, Any]


class Folds(Record):
    """Everything that ``folds.json`` says.

    A division of scans into `k` parts; all scans of a person lie in one part.
    """

    model_config = ConfigDict(populate_by_name=True, title="FoldsFile")

    schema_version: Literal["1.0.0"] = _says("Version of this format", default="1.0.0")
    kind: Literal["verse-data folds"] = _says("What the file is", default=KIND)
    release: str | None = _says("Name of the release")
    lock: str | None = _says("Digest of the release's lock, as sha256:HEX")
    k: int = _says("Number of folds", ge=2)
    seed: int = _says("Seed of the division")
    stratify: tuple[str, ...] = _says("Columns that are balanced")
    parts: tuple[FoldPart, ...] = _says("The folds, numbered from 0", alias="folds")
    digest: str = _says("SHA-256 (hex) of all other fields in canonical JSON", default="")

    @model_validator(mode="after")
    def _complete(self) -> Folds:
        """Refuse subjects and scans that occur twice, and add the digest."""
        if len(self.parts) != self.k:
            raise ValueError(f"k is {self.k}, and there are {len(self.parts)} folds")
        for what in ("subjects", "scans"):
            names = pd.Index([name for part in self.parts for name in getattr(part, what)])
            if twice := sorted({*names[names.duplicated()]}):
                raise ValueError(f"{what} in two places: {listed(twice)}")
        content = self.model_dump(mode="json", by_alias=True, exclude={"digest"})
        self.__dict__["digest"] = sha256_of_json(content)
        return self

    def split(self, fold: int) -> dict[str, FoldScans]:
        """Return the ``scan_id`` of ``training`` and ``validation`` for one fold.

        Raises
        ------
        UsageError
            If there is no such fold; they are numbered from 0.
        """
        fold = _whole_number("fold", fold)
        if not 0 <= fold < self.k:
            raise UsageError(f"There is no fold {fold}; folds are 0 to {self.k - 1}.")
        training = sorted(scan for scan, n in self._fold_of("scans").items() if n != fold)
        sides = {"training": FoldScans(training), "validation": FoldScans(self.parts[fold].scans)}
        made = self.model_dump(mode="json", include={"seed", "stratify", "digest"})
        for side, scans in sides.items():
            scans.fold = {"number": fold, "of": self.k, "side": side, **made}
        return sides

    def balance(self, scans: pd.DataFrame, vertebrae: pd.DataFrame) -> pd.DataFrame:
        """Return count per fold, total and spread of each value of a column, and each combination.

        Parameters
        ----------
        scans, vertebrae : pandas.DataFrame
            The tables that the folds were made of.
        """
        self.check(scans)
        counts, fold_of = _counts(scans, vertebrae, self.stratify), self._fold_of("subjects")
        held = np.zeros((self.k, counts.shape[1]), dtype=np.int64)
        np.add.at(held, [fold_of[name] for name in counts.index], counts.to_numpy())
        report = pd.DataFrame(held.T, counts.columns, [f"fold {n}" for n in range(self.k)])
        return report.assign(total=held.sum(axis=0), spread=np.ptp(held, axis=0))

    def __repr__(self) -> str:
        of = f" of {self.release}" if self.release else ""
        over = ", ".join(self.stratify) or "nothing"
        head = f"<Folds{of}: k={self.k}, seed={self.seed}, balanced over {over}, digest {self.digest[:12]}>"
        sizes = [
            f"fold {n}: {counted(len(part.subjects), 'subject')}, {counted(len(part.scans), 'scan')}"
            for n, part in enumerate(self.parts)
        ]
        return "\n".join([head, *shown(sizes, indent="  ")])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return the sizes of the folds for a notebook."""
        sizes = ((n, len(part.subjects), len(part.scans)) for n, part in enumerate(self.parts))
        caption = f"Folds: k={self.k}, seed={self.seed}, digest {self.digest[:12]}"
        return markup.table(("fold", "subjects", "scans"), sizes, caption=caption)

    def check(self, scans: pd.DataFrame) -> None:
        """Raise ValidationFailed unless the folds divide exactly the scans of a table."""
        # Two maps: a scan and its subject often have one name, and may lie in different folds here.
        owner, of_scan, of_subject = (
            _owners(scans),
            self._fold_of("scans"),
            self._fold_of("subjects"),
        )
        problems = {
            "only in the folds": of_scan.keys() - owner.keys(),
            "only in the release": owner.keys() - of_scan.keys(),
            "not in the fold of their subject": {
                scan
                for scan in of_scan.keys() & owner.keys()
                if of_subject.get(owner[scan]) != of_scan[scan]
            },
            "subjects without a scan in the release": of_subject.keys() - set(owner.values()),
        }
        lines = [f"{what}: {listed(sorted(names))}" for what, names in problems.items() if names]
        if lines:
            raise ValidationFailed(
                f"The folds do not fit the table of scans: {'; '.join(lines)}. "
                f"Give the same scans that they were made of, or make them again."
            )

    def _fold_of(self, what: Literal["subjects", "scans"]) -> dict[str, int]:
        return {name: n for n, part in enumerate(self.parts) for name in getattr(part, what)}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the folds atomically to `path`, as JSON with a digest."""
        write_file(Path(path), canonical_json(self.model_dump(mode="json", by_alias=True)))

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        scans: pd.DataFrame,
        *,
        release: str | None = None,
        lock: str | None = None,
    ) -> Folds:
        """Read folds that :meth:`write` wrote, and check that they divide exactly `scans`.

        Parameters
        ----------
        path : path
            The file, or the name of folds in the catalog, such as ``"verse19-k5-seed0"``.
        scans : pandas.DataFrame
            The scans that they must divide: ``scan_id``, ``subject_id``.
        release, lock : str, optional
            Name of the release, and digest of its lock as ``sha256:HEX``, that they must have been
            made of. A file that names none fits any.

        Raises
        ------
        ValidationFailed
            If it is not such a file, was made of something else, or does not fit `scans`.
        IntegrityError
            If it was changed since it was written: its digest does not match.
        """
        folds = parse_folds(Path(path))
        for what, made_of, given in (
            ("release", folds.release, release),
            ("lock", folds.lock, lock),
        ):
            if made_of and given and made_of != given:
                raise ValidationFailed(
                    f"{path}: the folds were made of another {what}: {made_of}, and this one's is "
                    f"{given}. Open that one (a lock by version={made_of!r}), or make the folds again. "
                    f"Folds.read(path, release.scans) checks only scans and patients."
                )
        folds.check(scans)
        return folds


def make_folds(
    scans: pd.DataFrame,
    vertebrae: pd.DataFrame,
    *,
    k: int,
    seed: int = 0,
    stratify: Sequence[str] = STRATIFY,
    release: str | None = None,
    lock: str | None = None,
) -> Folds:
    """Divide scans into `k` folds, grouped by subject and balanced over `stratify`.

    Parameters
    ----------
    scans, vertebrae : pandas.DataFrame
        Tables of one release, or some of their rows. Vertebrae of other scans are left out.
    k : int
        Number of folds, from 2 to the number of subjects.
    seed : int
        Another seed gives other folds, about equally balanced.
    stratify : sequence of str
        Columns of `vertebrae`. Each value of each column is spread evenly, and each combination of
        values; a missing value counts as one. Numbers of subjects and scans are spread as well.
    release, lock : str, optional
        Name of the release and digest of its lock, kept in the file.

    Raises
    ------
    UsageError
        If `k`, `seed` or a column of `stratify` cannot be used.
    ValidationFailed
        If a scan is listed twice, or has no subject.
    """
    k, seed = _whole_number("k", k), _whole_number("seed", seed)
    stratify = column_names(stratify)
    counts = _counts(scans, vertebrae, stratify)
    subjects: list[str] = counts.index.tolist()
    if not 2 <= k <= len(subjects):
        raise UsageError(f"k={k} must lie between 2 and the number of subjects, {len(subjects)}.")
    # Sorting by a digest with the seed in it shuffles them, the same on every platform.
    subjects.sort(key=lambda subject: hashlib.sha256(f"{seed}/{subject}".encode()).digest())
    weights = [1 if axis == _JOINT else _PRIORITY for axis in counts.columns.get_level_values(0)]
    found = _divide(counts.loc[subjects].to_numpy(), np.array(weights), parts=k, seed=seed)
    table = pd.DataFrame(_owners(scans).items(), columns=["scan", "subject"])
    fold = table["subject"].map(dict(zip(subjects, found, strict=True)))
    parts = [
        FoldPart(subjects=tuple(sorted({*part["subject"]})), scans=tuple(sorted(part["scan"])))
        for part in (table[fold == number] for number in range(k))
    ]
    return Folds(k=k, seed=seed, stratify=stratify, parts=tuple(parts), release=release, lock=lock)


def parse_folds(path: Path) -> Folds:
    """Read ``folds.json``, or folds of the catalog by name; check the digest, but no scans."""
    guess = ""
    if not path.is_file() and path.name == str(path):
        in_catalog = {file.stem: file for file in sorted(locate("catalog").glob("folds/*.json"))}
        guess = did_you_mean(path.name, in_catalog)
        path = in_catalog.get(path.name, path)
    if not path.is_file():
        write = f"verse-data folds RELEASE --out {path.name}"
        raise UsageError(f"No file {path}.{guess} Write it: {write}")
    with storage_errors(path):
        data = path.read_bytes()
    value = read_json(data, name=str(path))
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ValidationFailed(f"{path}: not a folds file of verse-data.")
    if value.get("schema_version") != _SCHEMA_VERSION:
        raise ValidationFailed(
            f"{path}: schema_version is {value.get('schema_version')!r}, and this package reads "
            f"{_SCHEMA_VERSION!r}. Upgrade verse-data, or make the folds again with this one."
        )
    try:
        folds = Folds.model_validate_json(data)
    except ValidationError as error:
        raise ValidationFailed(f"{path}: {rules_of(error)}.") from None
    if value.get("digest") != folds.digest:
        raise IntegrityError(
            f"{path}: its content has the digest {folds.digest[:12]}, and its field digest says "
            f"{str(value.get('digest'))[:12]!r}: it was changed after it was written. Copy it "
            f"again from its source, or make it again."
        )
    return folds


def column_names(stratify: Any) -> tuple[str, ...]:
    """Return the columns to stratify by, each once."""
    is_list = isinstance(stratify, Iterable) and not isinstance(stratify, str)
    names = tuple(stratify) if is_list else (None,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"stratify takes a list of names such as ['grade'], not {stratify!r}.")
    return tuple(dict.fromkeys(names))


def _whole_number(name: str, value: Any) -> int:
    """Return `value` as int if it is an integer, also of NumPy; 5.0 and True are refused."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not -(1 << 63) <= value < 1 << 63:
        raise UsageError(f"{name} must be a whole number of 64 bits, such as 3, not {value!r}.")
    return int(value)


def _owners(scans: pd.DataFrame) -> dict[str, str]:
    """Return the subject of each scan of a table."""
    for column in ("scan_id", "subject_id"):
        if column not in scans.columns:
            raise UsageError(f"The table of scans has no column {column}, which folds need.")
    names, people = scans["scan_id"].astype(str), scans["subject_id"]
    faults = {"have no subject": people.isna(), "are listed twice": names.duplicated()}
    for what, wrong in faults.items():
        if wrong.any():
            raise ValidationFailed(f"These scans {what}: {listed(names[wrong].tolist())}.")
    return dict(zip(names, people.astype(str), strict=True))


def _counts(scans: pd.DataFrame, vertebrae: pd.DataFrame, stratify: Sequence[str]) -> pd.DataFrame:
    """Count scans and vertebrae of each subject (sorted) by each column and by all columns together."""
    if "scan_id" not in vertebrae.columns:
        raise UsageError("The table of vertebrae has no column scan_id, which folds need.")
    owner = _owners(scans)
    subject = vertebrae["scan_id"].astype(str).map(owner)
    rows, subject = vertebrae[subject.notna()], subject.dropna()
    by_axis = {name: _values(rows, name) for name in stratify}
    if len(by_axis) > 1:
        by_axis[_JOINT] = [", ".join(row) for row in zip(*by_axis.values(), strict=True)]
    scans_of = pd.Series(owner).value_counts()
    counts = {"size": pd.DataFrame({"subjects": 1, "scans": scans_of}, scans_of.index)}
    for axis, values in by_axis.items():
        counts[axis] = (
            pd.get_dummies(pd.Series(values), dtype=int).groupby(subject.to_numpy()).sum()
        )
    table = pd.concat(counts, axis="columns", names=["axis", "value"]).sort_index()
    return table.fillna(0).astype(np.int64)


def _values(rows: pd.DataFrame, name: str) -> list[str]:
    """Return the values of a column as text, ``missing`` where there is none."""
    if name not in rows.columns:
        known = list(map(str, rows.columns))
        problem = f"no such column.{did_you_mean(name, known)} Columns: {', '.join(known)}."
    elif (several := rows[name].nunique()) > _MOST_VALUES:
        problem = f"it has {several:,} different values, over {_MOST_VALUES}."
    else:
        column = rows[name].astype(object)
        values = [str(v).lower() if isinstance(v, bool | np.bool_) else v for v in column]
        return ["missing" if pd.isna(value) else str(value) for value in values]
    raise UsageError(f"Folds cannot be stratified by {name!r}: {problem}")


class _Partition:
    """Divides subjects into parts that each have an equal share of every count, as far as possible.

    The cost is a sum of squares: for each count, the distance of each part from an equal share,
    weighted so that rare counts matter as much as frequent ones.
    """

    def __init__(self, counts: _Integers, priority: _Integers, parts: int) -> None:
        totals = counts.sum(axis=0)
        self._weights = np.maximum(_SCALE // np.maximum(totals, 1) * priority, 1)
        # Per part and kind: parts * count - total, which is 0 at an equal share.
        self._empty = np.tile(-totals, (parts, 1))
        # The last row is an empty subject in every part: a move is a swap with it.
        self._steps = parts * np.vstack([counts, np.zeros_like(totals)])
        self._weighted = self._steps // parts * self._weights
        self._square = (self._weighted * self._steps).sum(axis=1)
        # Floating point is much faster here, and exact: whole numbers far below 2**53.
        self._factors = self._weighted.astype(np.float64), 2.0 * self._steps
        # The cost if no count differs by more than one between parts.
        self.least_cost = int((totals % parts * (parts - totals % parts) * parts) @ self._weights)

    def greedy(self) -> _Integers:
        """Return a part for each subject: large ones first, each where it costs least."""
        part, off = np.zeros(len(self._steps), dtype=np.int64), self._empty.copy()
        for subject in np.argsort(-self._square[:-1], kind="stable"):
            part[subject] = np.argmin(off @ self._weighted[subject])
            off[part[subject]] += self._steps[subject]
        return part

    def improve(self, part: _Integers) -> int:
        """Make the best swap of each pair of parts until none lowers the cost; return the cost."""
        off, improved = self._empty.copy(), True
        np.add.at(off, part, self._steps)
        while improved:
            improved = False
            for one, other in combinations(range(len(off)), 2):
                while swap := self._best_swap(part, off, one, other):
                    step = self._steps[swap[0]] - self._steps[swap[1]]
                    off[one] -= step
                    off[other] += step
                    part[swap[0]], part[swap[1]] = other, one
                    improved = True
        return int((off**2 @ self._weights).sum())

    def _best_swap(
        self, part: _Integers, off: _Integers, one: int, other: int
    ) -> tuple[int, int] | None:
        """Return the subjects whose swap lowers the cost most, or None if no swap lowers it."""
        empty = len(self._steps) - 1
        a, b = (
            np.append((part[:-1] == side).nonzero()[0][:_CANDIDATES], empty)
            for side in (one, other)
        )
        # The change of cost of each swap, divided by the common factor 2 * parts.
        pull = off[other] - off[one]
        leave = self._square[a] + self._weighted[a] @ pull
        come = self._square[b] - self._weighted[b] @ pull
        both = (self._factors[0][a] @ self._factors[1][b].T).astype(np.int64)
        change = leave[:, None] + come - both
        # A part never loses its last subject.
        change[:-1, -1] *= len(a) > 2
        change[-1, :-1] *= len(b) > 2
        first, second = divmod(int(np.argmin(change)), len(b))
        return (int(a[first]), int(b[second])) if change[first, second] < 0 else None


def _divide(counts: _Integers, priority: _Integers, *, parts: int, seed: int) -> _Integers:
    """Return the part of each subject: a local search, restarted after a few random swaps."""
    partition = _Partition(counts, priority, parts)
    best = partition.greedy()
    cost = partition.improve(best)
    digests = (hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in count())
    drawn = (int(digest[:16], 16) % len(counts) for digest in digests)
    for _ in range(min(_MAX_RESTARTS, len(counts), _MAX_PAIRS // (parts * (parts - 1)))):
        if cost == partition.least_cost:
            break
        trial = best.copy()
        for _ in range(_SWAPS_PER_RESTART):
            pair = [next(drawn), next(drawn)]
            trial[pair] = trial[pair[::-1]]
        found = partition.improve(trial)
        if found <= cost:
            best, cost = trial, found
    return best[:-1]
