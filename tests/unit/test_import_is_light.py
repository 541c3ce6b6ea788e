"""Importing the package costs nothing and touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "zarr", "xarray", "nibabel", "datalad", "pandas")


def loaded_after(code: str) -> str:
    """Return which heavy packages a fresh interpreter has loaded after running `code`."""
    script = f"{code}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_import_loads_no_heavy_package() -> None:
    """``import verse_data`` loads none of the heavy packages."""
    assert loaded_after("import verse_data") == "[]"


def test_probe_sees_a_heavy_package() -> None:
    """Control: the probe notices a heavy package when one is loaded."""
    assert loaded_after("import pandas") == "['pandas']"


def test_help_loads_no_heavy_package() -> None:
    """``verse-data --help`` loads none of them either."""
    code = "from typer.testing import CliRunner; from verse_data.cli.main import app; assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    assert loaded_after(code) == "[]"


def test_checking_a_release_loads_no_package_of_tables() -> None:
    """What `Release.verify` and `lock_tree` use costs a command no second of imports."""
    assert loaded_after("import verse_data.release, verse_data.tables.check") == "[]"


def test_import_writes_nothing(tmp_path: Path) -> None:
    """Importing the package and listing its names creates no folder."""
    environment = {**os.environ, "HOME": str(tmp_path), "VERSE_DATA_HOME": str(tmp_path / "home")}
    code = "import verse_data; dir(verse_data); verse_data.errors"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    assert list(tmp_path.iterdir()) == []


def test_windows_is_refused_with_the_way_to_install() -> None:
    """On Windows the import names the Windows Subsystem for Linux, and no missing module."""
    code = "import sys; sys.platform = 'win32'; import verse_data"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "ImportError: verse-data needs the file locks" in done.stderr
    assert "Windows Subsystem for Linux" in done.stderr
