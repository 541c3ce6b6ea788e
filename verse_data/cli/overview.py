"""What ``verse-data --help`` shows: the commands in groups, and what the exit codes mean."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Final

from typer.core import TyperGroup

GROUPS: Final = {
    "Get the data": ("releases", "lock", "get", "adopt", "status", "verify", "diff", "drop"),
    "Ask the tables": ("summary", "query", "table", "columns", "findings", "report"),
    "Divide the patients": ("folds", "leaks"),
    "Convert, look, train": ("cache", "preview", "demo"),
    "Describe and cite": ("provenance", "export", "cite", "schemas"),
    "This machine": ("doctor", "env"),
}
"""The commands in the order of their use; a command that is in no group comes last."""

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
"""Those of :mod:`verse_data.errors`, in a line each."""

_WIDEST: Final = 100
_NARROWEST: Final = 30


class Summaries(TyperGroup):
    """A group whose help shows the whole first sentence of each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, section by section."""
        for title, names in self.sections(ctx):
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, one.get_short_help_str(limit=500)) for name, one in found if one]
            with formatter.section(title):
                formatter.write_dl(rows)

    def sections(self, ctx: Any) -> Iterator[tuple[str, list[str]]]:
        """Yield the title and the commands of each section."""
        yield "Commands", self._shown(ctx)

    def _shown(self, ctx: Any) -> list[str]:
        return [name for name in self.list_commands(ctx) if not self.commands[name].hidden]


class Overview(Summaries):
    """The whole command: its help lists the commands in groups, and the exit codes."""

    def sections(self, ctx: Any) -> Iterator[tuple[str, list[str]]]:
        """Yield the groups, in the order of their use."""
        left = self._shown(ctx)
        for title, names in GROUPS.items():
            if here := [name for name in names if name in left]:
                yield title, here
            left = [name for name in left if name not in names]
        if left:
            yield "Other", left

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the exit codes."""
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])


def help_width() -> int:
    """Return the columns that help may use: those of the terminal, within reason."""
    columns = shutil.get_terminal_size().columns - 1
    return max(_NARROWEST, min(columns, _WIDEST))
