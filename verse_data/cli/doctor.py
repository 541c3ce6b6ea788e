"""``verse-data doctor | env``: what works on this machine, what does not, and what to type next."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import note, print_facts, print_json
from verse_data.errors import counted

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()


@app.command()
def doctor(
    *,
    osf: Annotated[
        bool,
        typer.Option(
            "--osf",
            help="Send OSF a few paced requests instead, and print how its answers differ from what is expected.",
        ),
    ] = False,
    root: opt.Root = None,
    offline: opt.Offline = None,
    as_json: opt.Json = False,
) -> None:
    """Check tools, disk, memory, network, folders, releases and stores; print what to type next.

    The exit code is 0 unless something makes verse-data unusable; then it is that of the first such
    problem: 2 a setting, 6 a program, package, folder or disk.
    """
    look = _at_osf if osf else _at_this_machine
    raise typer.Exit(look(root, offline, as_json))


def _at_this_machine(root: Path | None, offline: bool | None, as_json: bool) -> int:  # noqa: FBT001
    from verse_data.doctor import examine, exit_code

    checks = examine(root=root, offline=offline)
    code = exit_code(checks)
    if as_json:
        print_json({"exit_code": code, "checks": checks})
        return code
    for check in checks:
        remedy = f"\n{'':27}-> {check.remedy}" if check.remedy else ""
        sys.stdout.write(f"{check.state:<9}{check.name:<18}{check.fact}{remedy}\n")
    _note_counts([check.state for check in checks])
    return code


def _at_osf(root: Path | None, offline: bool | None, as_json: bool) -> int:  # noqa: FBT001
    from verse_data.releases.osf_probe import report_on_osf

    report = report_on_osf(root=root, offline=offline)
    if as_json:
        print_json({"exit_code": report.exit_code, **asdict(report)})
        return report.exit_code
    print_facts(report.about)
    for answer in report.answers:
        remarks = [f"not as expected: {item}" for item in answer.wrong]
        remarks += [f"new: {', '.join(answer.new)}"] if answer.new else []
        lines = f"\n{'':43}".join([answer.fact, *remarks])
        sys.stdout.write(f"{answer.state:<9}{answer.question:<34}{lines}\n")
    _note_counts([answer.state for answer in report.answers])
    note("The report holds no token, no signed address and no path: paste it into an issue.")
    return report.exit_code


def _note_counts(states: list[str]) -> None:
    problems, warnings = states.count("problem"), states.count("warning")
    counts = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}."
    note(counts if problems or warnings else "All is well.")


@app.command()
def env() -> None:
    """Print the settings of a shell for plain datalad and git annex: eval "$(verse-data env)"."""
    from verse_data.releases.environment import shell_settings

    sys.stdout.write(shell_settings(os.environ))
