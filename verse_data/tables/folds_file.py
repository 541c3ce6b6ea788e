"""The file ``folds.json``: its model, its rules, its digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ValidationError, model_validator

from verse_data.digests import sha256_of_json
from verse_data.errors import IntegrityError, UsageError, ValidationFailed
from verse_data.publishing import storage_errors
from verse_data.records.base import Record, described, read_json, rule_of

SCHEMA_VERSION: Final = "1.0.0"
_MADE: Final = "make_folds"


class FoldPart(Record):
    """One fold."""

    subjects: Annotated[tuple[str, ...], described("Persons of the fold, sorted", source=_MADE)]
    scans: Annotated[tuple[str, ...], described("Their CT series, sorted", source=_MADE)]


class FoldsFile(Record):
    """Everything that ``folds.json`` says."""

    schema_version: Annotated[
        Literal["1.0.0"], described("Version of this format", source=_MADE)
    ] = SCHEMA_VERSION
    kind: Annotated[Literal["verse-data folds"], described("What the file is", source=_MADE)] = (
        "verse-data folds"
    )
    release: Annotated[str | None, described("Name of the release", source=_MADE)]
    lock: Annotated[
        str | None, described("Digest of the release's lock, as sha256:HEX", source=_MADE)
    ]
    k: Annotated[int, described("Number of folds", source=_MADE, ge=2)]
    seed: Annotated[int, described("Seed of the division", source=_MADE)]
    stratify: Annotated[tuple[str, ...], described("Columns that are balanced", source=_MADE)]
    folds: Annotated[tuple[FoldPart, ...], described("The folds, numbered from 0", source=_MADE)]
    digest: Annotated[
        str, described("SHA-256 (hex) of all other fields in canonical JSON", source=_MADE)
    ] = ""

    @model_validator(mode="after")
    def _nobody_sits_twice(self) -> FoldsFile:
        if len(self.folds) != self.k:
            raise ValueError(f"k is {self.k}, and there are {len(self.folds)} folds")
        for what in ("subjects", "scans"):
            names: Sequence[str] = [name for part in self.folds for name in getattr(part, what)]
            if len(set(names)) < len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise ValueError(f"{what} in two places: {', '.join(twice[:20])}")
        return self


def parse_folds(path: Path) -> FoldsFile:
    """Read ``folds.json`` and check its digest.

    Raises
    ------
    UsageError
        If there is no such file.
    ValidationFailed
        If it is no such file, of an unknown schema version, or breaks a rule.
    IntegrityError
        If it was changed since it was written.
    """
    if not path.is_file():
        raise UsageError(
            f"There is no file {path}. Write one with: verse-data folds RELEASE --out {path.name}"
        )
    with storage_errors(path):
        data = path.read_bytes()
    value = read_json(data, name=str(path))
    if not isinstance(value, dict) or value.get("kind") != "verse-data folds":
        raise ValidationFailed(f"{path}: not a folds file of verse-data.")
    _check_version(path, value)
    digest = digest_of(
        {key: item for key, item in value.items() if key != "digest"}, name=str(path)
    )
    if value.get("digest") != digest:
        message = (
            f"{path}: its content has the digest {digest[:12]}, and it says {str(value.get('digest'))[:12]!r}: "
            f"it was changed after it was written. Take it from where it came from, or make it again."
        )
        raise IntegrityError(message)
    try:
        return FoldsFile.model_validate_json(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {rule_of(e)}"
            for e in error.errors(include_url=False)
        ]
        raise ValidationFailed(f"{path}: {'; '.join(lines[:20])}.") from None


def digest_of(value: Any, *, name: str) -> str:
    """Return the SHA-256 (hex) of a JSON value in canonical form.

    Raises
    ------
    ValidationFailed
        If a text of it cannot be written as UTF-8, such as half of a surrogate pair.
    """
    try:
        return sha256_of_json(value)
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X}"
        raise ValidationFailed(f"{name}: a text holds {found}, which is no character.") from None
    except RecursionError:
        raise ValidationFailed(f"{name}: nested too deeply.") from None


def _check_version(path: Path, value: dict[str, Any]) -> None:
    if value.get("schema_version") != SCHEMA_VERSION:
        message = (
            f"{path}: schema_version is {value.get('schema_version')!r}, and this package reads "
            f"{SCHEMA_VERSION!r}. Upgrade verse-data, or make the folds again with this one."
        )
        raise ValidationFailed(message)
