"""Escaped HTML for notebooks and pages: tables without scripts or colours of their own.

Nothing sets a colour, so a table is as readable on a dark notebook as on a light one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

_LEFT: Final = ' style="text-align:left"'


def table(
    heads: Iterable[object],
    rows: Iterable[Iterable[object]],
    *,
    caption: str = "",
    left: Iterable[int] = (),
) -> str:
    """Return a table whose first column names its rows; columns in `left` hold prose, not numbers."""
    prose = set(left)

    def cells(row: Iterable[object], *, head: bool) -> str:
        found = []
        for number, value in enumerate(row):
            scope = "col" if head else "row"
            named = value != "" if head else not number  # a heading without words heads nothing
            mark = f'th scope="{scope}"' if named else "td"
            side = _LEFT if not number or number in prose else ""
            found.append(f"<{mark}{side}>{escape(str(value))}</{mark[:2]}>")
        return f"<tr>{''.join(found)}</tr>"

    parts = [cells(heads, head=True), "".join(cells(row, head=False) for row in rows)]
    inside = f"<thead>{parts[0]}</thead><tbody>{parts[1]}</tbody>"
    return f'<table style="text-align:right">{_caption(caption)}{inside}</table>'


def facts(caption: str, values: Mapping[str, object]) -> str:
    """Return a table of a name and a value in each row; what is empty is left out."""
    rows = "".join(
        f'<tr><th scope="row"{_LEFT}>{escape(name)}</th><td{_LEFT}>{escape(str(value))}</td></tr>'
        for name, value in values.items()
        if value not in {None, ""}
    )
    return f"<table>{_caption(caption)}<tbody>{rows}</tbody></table>"


def _caption(text: str) -> str:
    return f"<caption>{escape(text)}</caption>" if text else ""
