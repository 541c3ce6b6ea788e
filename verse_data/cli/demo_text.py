"""What ``verse-data demo`` says: counts, findings, the first sample, the course of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from verse_data.errors import counted

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType

    from verse_data.progress import Progress
    from verse_data.release import Release
    from verse_data.training import ScanDataset

_INDENT: Final = 3
_ROWS_OF_LOSS: Final = 8
_BAR: Final = 30


def say(console: Console, content: RenderableType) -> None:
    """Print `content`, indented; long lines wrap under their beginning."""
    from rich.padding import Padding

    console.print(Padding(content, (0, 0, 0, _INDENT), expand=False))


def say_facts(console: Console, facts: Mapping[str, object]) -> None:
    """Print a name and a value a line; values are never wrapped, so that they can be copied."""
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{'':{_INDENT}}{name:{width}}  {value}", soft_wrap=True, markup=False)


def say_tree(console: Console, tree: Path, *, wrote: bool) -> None:
    """Print how much lies in `tree`."""
    files = [path for path in tree.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    scans = sum(path.name.endswith("_ct.nii.gz") for path in files)
    verb = "written" if wrote else "there already"
    say_facts(console, {verb: f"{scans} CT series, {len(files)} files, {size:.0f} MB", "in": tree})


def counts(scans: pd.DataFrame, vertebrae: pd.DataFrame) -> list[dict[str, Any]]:
    """Count patients, series and vertebrae of each split, and of all.

    Parameters
    ----------
    scans, vertebrae : DataFrame
        As :class:`verse_data.Release` gives them.

    Returns
    -------
    list of dict
        A row a split that occurs, in the order training, validation, test; then ``all``.
    """
    from verse_data.records.names import SPLITS

    splits = [split for split in SPLITS if (scans["split"] == split).any()]
    parts = [
        (split, scans[scans["split"] == split], vertebrae[vertebrae["split"] == split])
        for split in splits
    ]
    return [_row(*part) for part in (*parts, ("all", scans, vertebrae))]


def _row(name: str, scans: pd.DataFrame, vertebrae: pd.DataFrame) -> dict[str, Any]:
    grades, status = vertebrae["grade"], vertebrae["grade_status"]
    by_grade = "/".join(str(int((grades == grade).sum())) for grade in (1, 2, 3))
    return {
        "split": name,
        "patients": scans["subject_id"].nunique(),
        "series": len(scans),
        "masks": int(vertebrae["has_mask"].fillna(value=False).sum()),
        "graded": int(grades.notna().sum()),
        "fractures 1/2/3": f"{int((grades > 0).sum())} ({by_grade})",
        "metal": int((status == "foreign_material").sum()),
        "not assessed": int((status == "not_assessed").sum()),
    }


def say_counts(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the counts as a table."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row.values()), style="bold" if row is rows[-1] else None)
    say(console, table)


def say_findings(console: Console, findings: pd.DataFrame) -> None:
    """Print how many findings of each rule there are."""
    from rich.text import Text

    kinds = findings["rule"].value_counts()
    listed = ", ".join(f"{count} x {rule}" for rule, count in kinds.items() if count)
    say(console, Text(f"{counted(len(findings), 'finding')}: {listed or 'none'}", style="dim"))


def described(sample: Mapping[str, Any]) -> dict[str, str]:
    """Return dtype and shape of each array of a sample, and the value of all else."""
    return {
        key: f"{str(value.dtype).removeprefix('torch.'):8} {tuple(value.shape)}"
        if hasattr(value, "dtype")
        else repr(value)
        for key, value in sample.items()
    }


def say_losses(console: Console, losses: Sequence[float]) -> None:
    """Print the mean loss of equal parts of the run, as a bar each."""
    rows = min(_ROWS_OF_LOSS, len(losses) // 3)
    edges = [round(part * len(losses) / rows) for part in range(rows + 1)]
    means = [sum(losses[first:last]) / (last - first) for first, last in pairwise(edges)]
    for (first, last), mean in zip(pairwise(edges), means, strict=True):
        bar = "█" * round(_BAR * mean / max(means))
        console.print(f"{'':{_INDENT}}steps {first + 1:3} to {last:3}  loss {mean:.3f}  {bar}")


def say_release(console: Console, release: Release, progress: Progress) -> None:
    """Hash what the dataset holds again; print how much is as locked, and what identifies it."""
    from verse_data.tables.check import verify

    found = verify(release.files, release.version, release.index, level="hash", progress=progress)
    files, wrong = release.lock.files, {finding.path for finding in found if finding.path}
    size = sum(file.size for file in files) / 1e6
    right = f"{len(files) - len(wrong)} of {len(files)} files"
    facts = {
        "release": f"{release.name} {release.version}",
        "commit": release.commit,
        "lock": f"sha256:{release.lock.digest}",
        "contents": f"{right} ({size:.0f} MB) have the locked SHA-256",
    }
    say_facts(console, facts)


def say_first(console: Console, scans: ScanDataset) -> dict[str, Any]:
    """Print what is served, and return the first sample."""
    facts = scans.counts()
    sample: dict[str, Any] = scans[0]
    say(console, f"{facts['scans']} scans of {facts['subjects']} patients; the first sample:")
    say_facts(console, described(sample))
    return sample


def say_places(console: Console, release: Release, seconds: float) -> None:
    """Print where everything lies, and what to type next."""
    from verse_data import config

    home = release.config.home
    console.print(f"[bold]Done in {seconds:.0f} s.[/bold] Where everything lies:")
    places = {
        "made-up files, picture": home / "demo",
        "DataLad dataset": release.files.path,
        "Zarr stores": release.config.stores,
    }
    say_facts(console, places)
    console.print("\nNext, in Python:")
    root = f', root="{home}"' if release.config != config.resolve() else ""
    console.print(
        f'   import verse_data as vd\n   vd.load_split("training", release="{release.name}"{root})[0]',
        soft_wrap=True,
        markup=False,
    )
