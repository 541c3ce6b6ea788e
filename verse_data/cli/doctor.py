"""``verse-data doctor``: what works here, what does not, and what to type next."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Final

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json

if TYPE_CHECKING:
    from pathlib import Path

_NAMES: Final = 18
_QUESTIONS: Final = 34
"""Columns of what stands before a fact."""


def register(app: typer.Typer) -> None:
    """Add this part's commands to `app`."""
    app.command("doctor")(doctor)


def doctor(
    *,
    osf: Annotated[
        bool,
        typer.Option(
            "--osf",
            help="Ask OSF a few paced questions instead, and print how its answers differ from what is expected.",
        ),
    ] = False,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Check tools, disk, memory, network, folders, releases and stores; say what to type next.

    The exit code is 0 unless something makes verse-data unusable; then it is that of the first such
    problem: 2 a setting, 6 a program, package, folder or disk.
    """
    if osf:
        _osf(root, offline=offline, as_json=as_json)
        return
    from dataclasses import asdict

    from verse_data.doctor import examine, exit_code

    checks = examine(root=root, offline=offline)
    code = exit_code(checks)
    if as_json:
        print_json({"exit_code": code, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            _print(
                f"{check.state:<9}{check.name:<{_NAMES}}",
                check.fact,
                check.remedy and f"-> {check.remedy}",
            )
        _note_counts([check.state for check in checks])
    raise typer.Exit(code)


def _osf(root: Path | None, *, offline: bool | None, as_json: bool) -> None:
    from verse_data.doctor.network import report_on_osf

    report = report_on_osf(root=root, offline=offline)
    if as_json:
        print_json(report.facts())
    else:
        for name, value in report.about.items():
            _print(f"{name:<{9 + _QUESTIONS}}", value)
        sys.stdout.write("\n")
        for answer in report.answers:
            more = [f"not as expected: {item}" for item in answer.wrong]
            more += [f"new: {', '.join(answer.new)}"] if answer.new else []
            _print(f"{answer.state:<9}{answer.question:<{_QUESTIONS}}", answer.fact, *more)
        _note_counts([answer.state for answer in report.answers])
        note("The report holds no token, no signed address and no path: paste it into an issue.")
    raise typer.Exit(report.exit_code)


def _print(head: str, *lines: str) -> None:
    """Print lines behind a head; in a terminal they are wrapped to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20
    indent = " " * len(head)
    wrap = textwrap.TextWrapper(
        width=max(width, len(head) + 30),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line, first in zip(lines, (head, *[indent] * len(lines)), strict=False):
        if line:
            wrap.initial_indent = first if first.endswith(" ") else f"{first} "
            sys.stdout.write(wrap.fill(line) + "\n")


def _note_counts(states: list[str]) -> None:
    from verse_data.errors import counted

    problems, warnings = states.count("problem"), states.count("warning")
    if problems or warnings:
        note(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}.")
    else:
        note("All is well.")
