"""``verse-data doctor``: what works on this machine, what does not, and what to type next."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from verse_data import config, machine
from verse_data.config import Config, __version__
from verse_data.doctor import checks
from verse_data.doctor.checks import Check, ok, problem, warning
from verse_data.errors import ToolMissing, VerseDataError

__all__ = ["Check", "examine", "exit_code"]

_Examination = Callable[[], Iterable[Check]]


def examine(
    *,
    root: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    seconds: float = 20.0,
) -> tuple[Check, ...]:
    """Check tools, machine, network, folders, releases and stores. Never raises.

    Parameters
    ----------
    root, offline : optional
        As in :func:`verse_data.open_release`. OSF gets one request unless the network is forbidden.
    seconds : float
        Time limit of all checks together; checks that hang on a disk or server are named.

    Returns
    -------
    tuple of Check
        One per line of the report.
    """
    fact = f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    found, cores = [ok("verse-data", fact)], os.cpu_count() or 1
    examinations: dict[str, _Examination] = {
        "git": checks.tool_checks,
        "packages": checks.package_checks,
        "cores": lambda: [checks.cores_check(cores, machine.allowed_cores())],
        "memory": lambda: [checks.memory_check(machine.memory(), machine.memory_limit(), cores)],
        "shared memory": lambda: [checks.shared_memory_check(checks.shared_memory())],
        "proxy": lambda: [checks.proxy_check(os.environ)],
        "certificates": lambda: [checks.certificates_check(os.environ)],
    }
    try:
        examinations |= _of_places(config.resolve(root=root, offline=offline), root)
    except VerseDataError as error:
        remedy = "verse-data doctor, once the variable is fixed: folders and OSF are checked then"
        found.append(problem("settings", str(error), remedy, error))
    except Exception as error:  # noqa: BLE001 - anything may be broken, and is reported
        found.append(_broken("packages", error))
    end = time.monotonic() + seconds
    running = [_Running(name, examination) for name, examination in examinations.items()]
    return (*found, *(check for run in running for check in run.result(end)))


def exit_code(checks: Sequence[Check]) -> int:
    """Return the exit code of the first problem, or 0."""
    return next((check.exit_code for check in checks if check.exit_code), 0)


def _of_places(settings: Config, root: object) -> dict[str, _Examination]:
    from verse_data.doctor import places  # imports NumPy and more, which may be broken

    return {
        "folders": lambda: places.folder_checks(settings, root=root),
        "disk": lambda: places.disk_checks(settings),
        "releases": lambda: places.release_checks(settings),
        "stores": lambda: [places.stores_check(settings)],
        "OSF": lambda: [places.osf_check(settings)],
    }


def _broken(name: str, error: Exception) -> Check:
    """Return the check for an unexpected error."""
    if isinstance(error, ImportError):
        package = error.name or "a package"
        remedy = f"pip install --force-reinstall {error.name or 'verse-data'}"
        return problem(name, f"{package} cannot be imported: {error}", remedy, ToolMissing)
    fact = f"cannot be checked: {type(error).__name__}: {error}"
    remedy = "Fix what is named. If it is a fault of verse-data, please report this line"
    if isinstance(error, VerseDataError):
        return problem(name, fact, remedy, error)
    return warning(name, fact, remedy)


class _Running:
    """A check in a thread of its own, which is abandoned if a disk or a server hangs."""

    def __init__(self, name: str, examination: _Examination) -> None:
        self._name, self._examination = name, examination
        self._found: list[Check] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.extend(self._examination())
        except Exception as error:  # noqa: BLE001 - as above
            self._found.append(_broken(self._name, error))

    def result(self, end: float) -> list[Check]:
        """Return the checks, or a warning if there are none at the time `end`."""
        self._thread.join(max(0.0, end - time.monotonic()))
        if not self._thread.is_alive():
            return self._found
        remedy = f"Try again, or set {config.HOME_VARIABLE} to a folder on another disk"
        return [warning(self._name, "no answer for too long: a disk or a server hangs", remedy)]
