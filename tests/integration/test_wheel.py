"""The wheel carries the data files, and an installed package finds them."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("catalog", "schemas")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout as pip would, without asking the network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_data_file_unchanged(wheel: Path) -> None:
    """Each file of catalog/ and schemas/ is in the wheel with the same bytes."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("verse_data/_resources/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("verse_data/_resources/")
        }
    tracked = subprocess.run(
        ["git", "ls-files", *FOLDERS], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()

    assert tracked
    assert packed == {name: (ROOT / name).read_bytes() for name in tracked}


def test_the_wheel_holds_the_page_of_the_explorer(wheel: Path) -> None:
    """Each file of the page, with what is vendored, its licence and its digest."""
    page = ROOT / "verse_data" / "explorer" / "page"
    files = [path for path in page.rglob("*") if path.is_file()]
    with zipfile.ZipFile(wheel) as archive:
        for path in files:
            assert archive.read(path.relative_to(ROOT).as_posix()) == path.read_bytes()
    assert len(files) > 8


def test_an_installed_wheel_finds_its_data_files(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, the package reads the packaged copies."""
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "from verse_data.files import locate; print(locate('catalog')); print(locate('schemas'))"
    found = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-I", "-c", code],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()

    assert found == [str(site / "verse_data" / "_resources" / name) for name in FOLDERS]
