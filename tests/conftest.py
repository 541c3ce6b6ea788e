"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples at each run, so that a change is judged by what it changed, and no limit on
# time, which a busy machine would break. `make test-all` draws new ones.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

# Two test processes share two cores: a pool of threads in each makes torch many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """Folder with the real VerSe files, which the repository must not contain."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"the real VerSe files are not at {_SHARED}: this test needs them")
    return _SHARED


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache root of its own, and no settings of the person who runs it."""
    for name in [name for name in os.environ if name.startswith("VERSE_DATA_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "verse-home"
    monkeypatch.setenv("VERSE_DATA_HOME", str(folder))
    monkeypatch.setenv("VERSE_DATA_PROGRESS", "off")  # on a busy machine there would be lines
    return folder


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have one core, so that a conversion runs in this process.

    Starting others for scans as small as these takes a second, and the scans a few milliseconds.
    """
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(autouse=True, scope="session")
def _no_user_git_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run git without the user's configuration, so that no test reads or writes it."""
    empty = tmp_path_factory.mktemp("gitconfig") / "config"
    empty.touch()
    patch = pytest.MonkeyPatch()
    patch.setenv("GIT_CONFIG_GLOBAL", str(empty))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path_factory.mktemp("hypothesis")))
    yield
    patch.undo()
    assert empty.read_text() == "", "a test wrote to the user's git configuration"
