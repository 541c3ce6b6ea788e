"""``verse-data doctor``: what works here, what does not, and what to type next."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import note, print_json
from verse_data.errors import counted


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
    raise typer.Exit(_osf(root, offline, as_json) if osf else _machine(root, offline, as_json))


def _machine(root: Path | None, offline: bool | None, as_json: bool) -> int:  # noqa: FBT001
    from dataclasses import asdict

    from verse_data.doctor import examine, exit_code

    checks = examine(root=root, offline=offline)
    if as_json:
        print_json({"exit_code": exit_code(checks), "checks": [asdict(check) for check in checks]})
        return exit_code(checks)
    for check in checks:
        _print(
            f"{check.state:<9}{check.name:<18}", check.fact, check.remedy and f"-> {check.remedy}"
        )
    _note_counts([check.state for check in checks])
    return exit_code(checks)


def _osf(root: Path | None, offline: bool | None, as_json: bool) -> int:  # noqa: FBT001
    from dataclasses import asdict

    from verse_data.releases.osf_probe import report_on_osf

    report = report_on_osf(root=root, offline=offline)
    if as_json:
        print_json({"exit_code": report.exit_code, **asdict(report)})
        return report.exit_code
    for name, value in report.about.items():
        _print(f"{name:<43}", value)
    sys.stdout.write("\n")
    for answer in report.answers:
        more = [f"not as expected: {item}" for item in answer.wrong]
        more += [f"new: {', '.join(answer.new)}"] if answer.new else []
        _print(f"{answer.state:<9}{answer.question:<34}", answer.fact, *more)
    _note_counts([answer.state for answer in report.answers])
    note("The report holds no token, no signed address and no path: paste it into an issue.")
    return report.exit_code


def _print(head: str, *lines: str) -> None:
    """Print lines behind a head; in a terminal they are wrapped to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20
    indent = " " * len(head)
    for line, first in zip(filter(None, lines), (head, *[indent] * len(lines)), strict=False):
        wrapped = textwrap.wrap(
            line,
            width=max(width, len(head) + 30),
            initial_indent=first if first.endswith(" ") else f"{first} ",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        sys.stdout.write("\n".join(wrapped) + "\n")


def _note_counts(states: list[str]) -> None:
    problems, warnings = states.count("problem"), states.count("warning")
    said = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}."
    note(said if problems or warnings else "All is well.")
