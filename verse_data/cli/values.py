"""How the text of an option becomes its value, with a refusal in plain words where it cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import typer

from verse_data.errors import did_you_mean


def one_of(*known: str) -> Callable[[str], str]:
    """Return a parser for one of some words."""

    def parse(text: str) -> str:
        if text not in known:
            raise typer.BadParameter(
                f"{text!r} is none of {', '.join(known)}.{did_you_mean(text, known)}"
            )
        return text

    return parse


def some_of(*known: str) -> Callable[[str], list[str]]:
    """Return a parser for a list with commas of some words."""
    one = one_of(*known)

    def parse(text: str) -> list[str]:
        return [one(part) for part in listed(text)]

    return parse


def listed(text: str) -> list[str]:
    """Return the words of a list with commas, of which there is at least one."""
    parts = [part for part in (part.strip() for part in text.split(",")) if part]
    if not parts:
        raise typer.BadParameter(f"{text!r} names nothing.")
    return parts


def whole(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """Return a parser for a whole number from `least` to `most`."""
    meant = f"{least} or more" if most is None else f"from {least} to {most}"

    def parse(text: str | int) -> int:
        number = int(text) if re.fullmatch(r"-?[0-9]+", str(text)) else None
        if number is None or number < least or (most is not None and number > most):
            raise typer.BadParameter(f"{text}: give a whole number, {meant}.")
        return number

    return parse


def days(text: str | float) -> float:
    """Return a number of days, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise typer.BadParameter(f"{text}: give a number of days, 0 or more.")
    return number


def spacing(text: str) -> float | list[float]:
    """Return one size in mm, or three."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in {1, 3}:
        raise typer.BadParameter(
            f"{text!r}: give one size in mm, such as 1, or three, such as 1,1,3."
        )
    return sizes if len(sizes) == 3 else sizes[0]


def table_file(text: str) -> Path:
    """Return the path of a table that can be written; its ending says how."""
    path = Path(text)
    if path.suffix.lower() not in {".parquet", ".csv"}:
        raise typer.BadParameter(f"{text!r}: a table is written as .parquet or .csv.")
    return path
