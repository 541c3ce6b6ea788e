"""What is published: wheel, source distribution, recipe, and the check of a release."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from verse_data import __version__

ROOT = Path(__file__).parents[2]
FOLDERS = ("catalog", "schemas")


def _build(kind: str, out: Path) -> Path:
    """Return the distribution, built from the checkout as pip would, without asking the network."""
    command = [
        sys.executable,
        "-m",
        "build",
        kind,
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    return _build("--wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_data_file_unchanged(wheel: Path) -> None:
    """Each file of catalog/ and schemas/ is in the wheel with the same bytes."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("verse_data/_resources/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("verse_data/_resources/")
        }
    tracked = [
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]

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


def test_the_page_on_pypi_has_no_relative_link(wheel: Path) -> None:
    """Links and pictures of README name the repository, at the tag of this version."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        page = archive.read(name).decode()
    targets = re.findall(r'\]\(([^)]+)\)|(?:href|src|srcset)="([^"]+)"', page)

    addresses = [link or attribute for link, attribute in targets]
    assert [one for one in addresses if not one.startswith(("https://", "#"))] == []
    assert f"/blob/v{__version__}/docs/" in page
    assert f"raw.githubusercontent.com/verse-data/verse-data/v{__version__}/docs/images/" in page


def test_the_source_distribution_holds_what_its_tests_need(tmp_path: Path) -> None:
    """Every file of the repository but the workflows of its host."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is a source distribution: what is tracked is not known here")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tarfile.open(_build("--sdist", tmp_path)) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}

    expected = {name for name in listed.splitlines() if not name.startswith(".github/")}
    assert packed == expected | {"PKG-INFO"}


def test_the_conda_recipe_asks_for_what_pyproject_asks_for() -> None:
    """The same packages with the same floors; two of them have other names there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "packaging" / "recipe.yaml").read_text(encoding="utf-8")
    names = {"isal": "python-isal", "torch": "pytorch"}
    wanted = [f"python {project['requires-python']}"]
    for requirement in project["dependencies"]:
        name, floor = requirement.split(">=")
        wanted.append(f"{names.get(name, name)} >={floor}")

    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    assert [line.strip(" -") for line in run.splitlines()] == wanted


def test_a_release_stops_where_a_file_names_another_version() -> None:
    """The check of the release workflow accepts this version's tag, and no other."""
    check = ROOT / "packaging" / "check_release.py"

    def stops(tag: str, repository: str) -> str:
        command = [sys.executable, str(check), tag, repository]
        return subprocess.run(command, capture_output=True, text=True).stderr

    here = "https://github.com/verse-data/verse-data"
    assert "verse_data/config.py" not in stops(f"v{__version__}", here)
    assert "verse_data/config.py does not name version 9.9.9" in stops("v9.9.9", here)
    assert "this is https://example.org/fork" in stops(
        f"v{__version__}", "https://example.org/fork"
    )
