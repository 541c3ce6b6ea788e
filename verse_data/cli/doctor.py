"""``verse-data doctor | env``: what works on this machine, what does not, and what to type next."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import Annotated

import typer

from verse_data.cli import options as opt
from verse_data.cli.common import note, print_facts, print_json
from verse_data.errors import counted

app = typer.Typer()


@app.command()
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
    from dataclasses import asdict

    if osf:
        from verse_data.releases.osf_probe import report_on_osf

        report = report_on_osf(root=root, offline=offline)
        code, facts = report.exit_code, asdict(report)
    else:
        from verse_data.doctor import examine, exit_code

        checks = examine(root=root, offline=offline)
        code, facts = exit_code(checks), {"checks": checks}
    if as_json:
        print_json({"exit_code": code, **facts})
        raise typer.Exit(code)
    if osf:
        print_facts(report.about)
        sys.stdout.write("\n")
        for answer in report.answers:
            remarks = [f"not as expected: {item}" for item in answer.wrong]
            remarks += [f"new: {', '.join(answer.new)}"] if answer.new else []
            _print(f"{answer.state:<9}{answer.question:<34}", answer.fact, *remarks)
        _note_counts([answer.state for answer in report.answers])
        note("The report holds no token, no signed address and no path: paste it into an issue.")
    else:
        for check in checks:
            remedy = [f"-> {check.remedy}"] if check.remedy else []
            _print(f"{check.state:<9}{check.name:<18}", check.fact, *remedy)
        _note_counts([check.state for check in checks])
    raise typer.Exit(code)


def _print(head: str, *lines: str) -> None:
    """Print lines behind a head; in a terminal they are wrapped to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20
    for number, line in enumerate(lines):
        wrapped = textwrap.wrap(
            line,
            width=max(width, len(head) + 30),
            initial_indent=" " * len(head) if number else head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
        sys.stdout.write("\n".join(wrapped) + "\n")


def _note_counts(states: list[str]) -> None:
    problems, warnings = states.count("problem"), states.count("warning")
    counts = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}."
    note(counts if problems or warnings else "All is well.")


@app.command()
def env() -> None:
    """Print what a shell needs for plain datalad and git annex: eval "$(verse-data env)"."""
    from verse_data.releases.environment import shell_settings

    sys.stdout.write(shell_settings(os.environ))
