"""Take the record that ``test_recorded.py`` holds the package against, and write it anew.

``python -m tests.house.record`` writes ``tests/house/recorded/*.json``; read the difference before
it is committed, since it says what changed for those who use the package.
``python -m tests.house.record --whole FOLDER`` writes everything unabridged to another folder: two
such folders, of two commits, show in full what the committed files hold digests of.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # pytest finds the stand-in by itself
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.house import commands, samples, stores, tables
from tests.house.brief import brief
from tests.house.place import Place, made

RECORDED = Path(__file__).parent / "recorded"
PACKAGES = (
    "numcodecs",
    "numpy",
    "openpyxl",
    "pandas",
    "pillow",
    "pyarrow",
    "scipy",
    "torch",
    "zarr",
)
SECTIONS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "options": commands.options,
    "releases": stores.releases,
    "commands": commands.answers,
    "mistakes": commands.mistakes,
    "tables": tables.tables,
    "folds": tables.folds,
    "stores": stores.stores,
    "samples": samples.samples,
    "exports": stores.exports,
    "damage": commands.damage,
}
"""In this order: what comes later finds what the earlier ones have made."""


def take(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every section, unabridged; one that could not be taken holds its error alone."""
    found = {}
    with made(folder) as place:
        for name, section in SECTIONS.items():
            try:
                found[name] = section(place)
            except Exception as error:  # noqa: BLE001 - the other sections shall be seen as well
                found[name] = {"the whole section": f"{type(error).__name__}: {error}"}
    return found


def made_with() -> dict[str, str]:
    """Return the versions that bytes depend on, for whoever wonders at a difference."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def shortened(section: dict[str, Any]) -> dict[str, Any]:
    """Return a section as it is committed."""
    return {entry: brief(value) for entry, value in section.items()}


def write(path: Path, value: Any) -> None:
    """Write sorted JSON, a line for each value."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Write the record anew, or unabridged to another folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.house.record", description=__doc__)
    parser.add_argument("--whole", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    target = (chosen.whole or RECORDED).resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verse-record-") as folder:
        found = take(Path(folder))
    for name, section in found.items():
        if "the whole section" in section:
            raise SystemExit(f"{name} could not be taken: {section['the whole section']}")
        write(target / f"{name}.json", section if chosen.whole else shortened(section))
    write(target / "made_with.json", made_with())
    sys.stdout.write(f"{sum(map(len, found.values()))} entries are in {target}\n")


if __name__ == "__main__":
    main()
