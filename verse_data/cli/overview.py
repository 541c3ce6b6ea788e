"""The help of ``verse-data``: the commands in groups, and what the exit codes mean."""

from __future__ import annotations

import shutil
from typing import Any, Final

from typer.core import TyperGroup

GROUPS: Final = {
    "Get the data": ("releases", "lock", "get", "adopt", "status", "verify", "diff", "drop"),
    "Ask the tables": ("query", "table", "columns", "findings", "summary", "report", "overlays"),
    "Divide the patients": ("folds", "leaks"),
    "Convert, look, train": ("cache", "preview", "explore", "demo"),
    "Predictions": ("predictions", "evaluate"),
    "Describe and cite": ("provenance", "export", "cite", "schemas"),
    "This machine": ("doctor", "env"),
}
"""All commands, in the order of their use."""

EXIT_CODES: Final = {
    0: "done",
    1: "a fault of verse-data, or a training sample could not be made",
    2: "an argument, option, name or condition is wrong; nothing was done",
    3: "metadata or a volume breaks a rule, or a split leaks",
    4: "bytes are missing, or not those that were promised",
    5: "the network or a server failed, or is forbidden (offline)",
    6: "trouble on this machine: disk, permissions, locks, tools",
    7: "an input was refused before use: hostile, or beyond a limit",
    130: "stopped by Ctrl-C (143: by SIGTERM); run it again, and it goes on",
}
"""The codes of :mod:`verse_data.errors`, one line each."""

_WIDEST: Final = 100
_NARROWEST: Final = 30


class Overview(TyperGroup):
    """A group whose help has each command's full first sentence; that of the top level, exit codes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, section by section."""
        sections = {"Commands": self.list_commands(ctx)} if ctx.parent else GROUPS
        for title, names in sections.items():
            shown = [(name, self.commands[name]) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(name, one.get_short_help_str(limit=500)) for name, one in shown]
                )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the exit codes, at the top level only."""
        if ctx.parent is None:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])


def help_width() -> int:
    """Return the columns for help: those of the terminal, within limits."""
    columns = shutil.get_terminal_size().columns - 1
    return max(_NARROWEST, min(columns, _WIDEST))
