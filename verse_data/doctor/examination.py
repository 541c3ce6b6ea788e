"""Runs all checks side by side; none of them can raise, or hold up the report."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from verse_data import __version__, config
from verse_data.config import Config
from verse_data.doctor.check import Check, State
from verse_data.errors import ToolMissing, VerseDataError

_Look = Callable[[], Iterable[Check]]


def examine(
    *,
    root: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    seconds: float = 20.0,
) -> tuple[Check, ...]:
    """Look at tools, machine, network, folders, releases and stores. Never raises.

    Parameters
    ----------
    root, offline : optional
        As in :func:`verse_data.open_release`. OSF is asked one question unless the network is forbidden.
    seconds : float
        How long all checks together may take; a disk or a server that does not answer is named.

    Returns
    -------
    tuple of Check
        One a line of the report.
    """
    settings, found = _settings(root=root, offline=offline)
    groups: list[Callable[[], dict[str, _Look]]] = [_software, _machine, _environment]
    if settings is not None:
        groups += [lambda: _places(settings, root), lambda: _osf(settings)]
    looks: dict[str, _Look] = {}
    for group in groups:
        try:  # imported here and not side by side: a package may be broken
            looks |= group()
        except Exception as error:  # noqa: BLE001 - whatever is broken here is what is to be said
            found.append(_broken("packages", error))
    end = time.monotonic() + seconds
    running = [_Running(name, look) for name, look in looks.items()]
    return (*found, *(check for run in running for check in run.result(end)))


def exit_code(checks: Sequence[Check]) -> int:
    """Return the exit code of the first problem, or 0."""
    return next((check.exit_code for check in checks if check.exit_code), 0)


def _settings(
    *, root: str | os.PathLike[str] | None, offline: bool | None
) -> tuple[Config | None, list[Check]]:
    fact = f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    found = [Check(name="verse-data", state="ok", fact=fact)]
    try:
        return config.resolve(root=root, offline=offline), found
    except VerseDataError as error:
        remedy = "verse-data doctor, once the variable is mended: folders and OSF come then"
        code = error.exit_code
        wrong = Check(
            name="settings", state="problem", fact=str(error), remedy=remedy, exit_code=code
        )
        return None, [*found, wrong]


def _software() -> dict[str, _Look]:
    from verse_data.doctor import software

    return {"git": software.tool_checks, "packages": software.package_checks}


def _machine() -> dict[str, _Look]:
    from verse_data.doctor import machine

    cores = machine.cores()
    return {
        "cores": lambda: [machine.cores_check(cores, machine.allowed_cores())],
        "memory": lambda: [machine.memory_check(machine.memory(), machine.memory_limit(), cores)],
        "shared memory": lambda: [machine.shared_memory_check(machine.shared_memory())],
    }


def _environment() -> dict[str, _Look]:
    from verse_data.doctor import network

    return {
        "proxy": lambda: [network.proxy_check(os.environ)],
        "certificates": lambda: [network.certificates_check(os.environ)],
    }


def _places(settings: Config, root: object) -> dict[str, _Look]:
    from verse_data.doctor import places

    return {
        "folders": lambda: places.folder_checks(settings, root=root),
        "disk": lambda: places.disk_checks(settings),
        "releases": lambda: places.release_checks(settings),
        "stores": lambda: [places.stores_check(settings)],
    }


def _osf(settings: Config) -> dict[str, _Look]:
    from verse_data.doctor import network

    return {"OSF": lambda: [network.osf_check(settings)]}


def _broken(name: str, error: Exception) -> Check:
    """Return what an error means that no check foresaw."""
    if isinstance(error, ImportError):
        fact = f"{error.name or 'a package'} cannot be imported: {error}"
        remedy = f"pip install --force-reinstall {error.name or 'verse-data'}"
        code = ToolMissing.exit_code
    else:
        fact = f"cannot be looked at: {type(error).__name__}: {error}"
        remedy = "Mend what is named. If it is a fault of verse-data, please report this line"
        code = error.exit_code if isinstance(error, VerseDataError) else 0
    state: State = "problem" if code else "warning"
    return Check(name=name, state=state, fact=fact, remedy=remedy, exit_code=code)


class _Running:
    """A check in a thread of its own, which is left behind if a disk or a server hangs."""

    def __init__(self, name: str, look: _Look) -> None:
        self._name = name
        self._look = look
        self._found: list[Check] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.extend(self._look())
        except Exception as error:  # noqa: BLE001 - as above
            self._found.append(_broken(self._name, error))

    def result(self, end: float) -> list[Check]:
        self._thread.join(max(0.0, end - time.monotonic()))
        if not self._thread.is_alive():
            return self._found
        fact = "no answer for too long: a disk or a server hangs"
        remedy = f"Try again, or set {config.HOME_VARIABLE} to a folder on another disk"
        return [Check(name=self._name, state="warning", fact=fact, remedy=remedy)]
