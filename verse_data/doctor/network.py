"""Checks of proxies and certificates as the environment names them, and of OSF."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import certifi  # comes with requests

from verse_data import config
from verse_data.config import Config
from verse_data.doctor import software
from verse_data.doctor.check import Check
from verse_data.errors import VerseDataError
from verse_data.releases import catalog
from verse_data.releases.http import Clock
from verse_data.releases.osf_probe import OsfAnswer, probe_osf, reach_osf
from verse_data.releases.urls import shown, shown_proxy

_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def proxy_check(variables: Mapping[str, str]) -> Check:
    """Return which proxies the environment names, without user and password."""
    spellings = [name for upper in _PROXIES for name in (upper.lower(), upper)]
    found = {name: variables[name] for name in spellings if variables.get(name)}
    hosts = {
        name: shown_proxy(value) for name, value in found.items() if name.upper() != "NO_PROXY"
    }
    fact = ", ".join(f"{name}={hosts.get(name, value)}" for name, value in found.items())
    if any(host.startswith("socks") for host in hosts.values()) and not software.version_of(
        "PySocks"
    ):
        return Check(
            name="proxy",
            state="warning",
            fact=f"{fact}; a SOCKS proxy needs a package that is not installed",
            remedy="pip install pysocks",
        )
    bare = [name for name in hosts if "@" in found[name] and "://" not in found[name]]
    if bare:
        return Check(
            name="proxy",
            state="warning",
            fact=f"{fact}; a user and no scheme, which cannot be read as an address",
            remedy=f"Write http:// in front of the value of {' and '.join(bare)}",
        )
    return Check(name="proxy", state="ok", fact=fact or "none")


def certificates_check(variables: Mapping[str, str]) -> Check:
    """Return where certificates are looked for, and whether that is there."""
    named = {name: variables[name] for name in _CERTIFICATES if variables.get(name)}
    absent = [name for name, value in named.items() if not Path(value).exists()]
    if absent:
        return Check(
            name="certificates",
            state="warning",
            fact=", ".join(f"{name}={named[name]}" for name in absent)
            + " does not exist, so https fails",
            remedy=f"unset {' '.join(absent)}, or set it to your system's bundle",
        )
    if named:
        fact = ", ".join(f"{name}={value}" for name, value in named.items())
        return Check(name="certificates", state="ok", fact=fact)
    bundle = certifi.where()
    if Path(bundle).is_file():
        return Check(name="certificates", state="ok", fact=bundle)
    return Check(
        name="certificates",
        state="warning",
        fact=f"{bundle} does not exist, so https fails",
        remedy="pip install --force-reinstall certifi",
    )


def verse_node() -> str:
    """Return the OSF node of verse19, out of the catalog."""
    return catalog.load_catalog("verse19").osf_node or ""


def osf_check(settings: Config) -> Check:
    """Ask OSF one small question, unless the network is forbidden."""
    if settings.offline:
        fact = f"not asked: the network is forbidden (--offline, or {config.OFFLINE_VARIABLE})"
        return Check(name="OSF", state="ok", fact=fact)
    try:
        reach_osf(settings, node=verse_node())
    except VerseDataError as error:
        return Check(
            name="OSF",
            state="warning",
            fact=str(error),
            remedy="What is here works without it. For a closer look: verse-data doctor --osf",
        )
    return Check(name="OSF", state="ok", fact=f"{shown(settings.osf_api)} answers")


@dataclass(frozen=True, kw_only=True)
class OsfReport:
    """What OSF answers, for an issue: no token, no signed address, no path.

    Attributes
    ----------
    about : dict
        Versions, endpoints, node, and whether a token was sent.
    answers : tuple of OsfAnswer
    """

    about: dict[str, str]
    answers: tuple[OsfAnswer, ...]

    @property
    def exit_code(self) -> int:
        """That of the first problem, or 0."""
        return next((answer.exit_code for answer in self.answers if answer.exit_code), 0)

    def facts(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        answers = [asdict(answer) for answer in self.answers]
        return {"exit_code": self.exit_code, "about": self.about, "answers": answers}


def report_on_osf(
    *,
    root: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    clock: Clock | None = None,
) -> OsfReport:
    """Ask OSF about ten paced questions, and compare the answers with what the client expects.

    Raises
    ------
    Offline
        If the network is forbidden.
    UsageError
        If a setting is wrong.
    """
    settings, node = config.resolve(root=root, offline=offline), verse_node()
    answers = probe_osf(settings, node=node, clock=clock)
    about = {
        **software.about(),
        "api": shown(settings.osf_api),
        "site": shown(settings.osf_site),
        "node": node,
        "token": "sent to the api" if settings.osf_token else "none",
        "asked": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }
    return OsfReport(about=about, answers=answers)
