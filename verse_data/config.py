"""Settings: folders, network and endpoints, from an argument, the environment, or a default.

Nothing is read at import; :func:`resolve` reads the environment when it is called.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from verse_data.errors import Offline, UsageError

__version__ = "0.1.0"

HOME_VARIABLE = "VERSE_DATA_HOME"
"""One root for releases and stores; without it the platform's data and cache folders."""
OFFLINE_VARIABLE = "VERSE_DATA_OFFLINE"
"""1 forbids the network: no socket is opened, and what is missing is listed."""
STORES_VARIABLE = "VERSE_DATA_STORES"
"""Root of stores that machines share: an absolute path, or an fsspec URL such as s3://bucket/verse."""
OSF_API_VARIABLE = "VERSE_DATA_OSF_API"
"""Address of the OSF API, if it is not https://api.osf.io/v2."""
OSF_SITE_VARIABLE = "VERSE_DATA_OSF_SITE"
"""Address of the OSF site, if it is not https://osf.io."""
OSF_TOKEN_VARIABLE = "VERSE_DATA_OSF_TOKEN"  # noqa: S105 - a variable's name, not a token
"""Personal token of OSF, for more requests an hour; sent to the API alone."""

_LONGEST = 3500  # leaves room for the paths below the root: systems allow 4,096 bytes
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time limits for a server's response.

    Attributes
    ----------
    connect, idle : float
        Seconds to connect, and between two pieces of a response.
    window_seconds : float
        Seconds of waiting in which `window_bytes` must arrive, from the first byte on, unless the
        response ends before.
    window_bytes : int
    total : float
        Deadline in seconds of a short response, such as a listing or a lock. The deadline of a file
        is ``total + size / slowest``.
    slowest : float
        Lowest acceptable rate, in bytes per second.
    """

    connect: float = 10.0
    idle: float = 20.0
    window_seconds: float = 30.0
    window_bytes: int = 10 << 10
    total: float = 600.0
    slowest: float = 5_000.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one call.

    Attributes
    ----------
    home : Path
        Root of everything that can be rebuilt: stores, facts derived from files, the demo's files.
    data : Path, optional
        Root of the releases, if it is not `home`.
    offline : bool
        Whether opening a socket is forbidden.
    stores_url : str or None
        Root of stores that several machines share, as an fsspec URL such as ``s3://bucket/verse``.
    osf_api, osf_site : str
        Base addresses of the OSF API and site, without a trailing slash.
    osf_token : str or None
        Personal token; sent to the host of `osf_api` only.
    limits : Limits
        Time limits for a server's response.
    """

    home: Path
    offline: bool
    osf_api: str
    osf_site: str
    osf_token: str | None = None
    stores_url: str | None = None
    limits: Limits = Limits()
    data: Path | None = None

    def __repr__(self) -> str:
        """Show the settings without the token."""
        token = "set" if self.osf_token else "none"
        return f"Config(home={str(self.home)!r}, offline={self.offline}, osf_token={token})"

    def require_network(self) -> None:
        """Raise Offline if opening a socket is forbidden."""
        if self.offline:
            raise Offline(
                "The network is needed, but forbidden by VERSE_DATA_OFFLINE, offline=True, --offline, "
                "or VerSeDataset without download=True. Change that to allow it."
            )

    @property
    def releases(self) -> Path:
        """Folder of the DataLad datasets, one per release."""
        return (self.data or self.home) / "releases"

    def release(self, name: str) -> Path:
        """Return the folder of a release, which need not exist.

        Version 0.1 kept releases beside the stores; one that is still there is used in place.
        """
        usual, old = self.releases / name, self.home / "releases" / name
        return old if old.is_dir() and not (usual / ".git").exists() else usual

    @property
    def stores(self) -> Path:
        """Folder of the derived Zarr stores, one per fingerprint."""
        return self.home / "stores"

    @property
    def derived(self) -> Path:
        """Folder of small facts derived from single files, named by annex key."""
        return self.home / "derived"


def resolve(*, root: str | os.PathLike[str] | None = None, offline: bool | None = None) -> Config:
    """Return the configuration for one call.

    Parameters
    ----------
    root : path, optional
        One root for everything. It overrides ``VERSE_DATA_HOME``; without either, releases are in the
        platform's data folder, and stores in its cache folder.
    offline : bool, optional
        Overrides ``VERSE_DATA_OFFLINE``.

    Raises
    ------
    UsageError
        If `root` is not a path, ``VERSE_DATA_OFFLINE`` neither yes nor no, or
        ``VERSE_DATA_OSF_TOKEN`` not a token.
    """
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise UsageError(f"root={root!r} is no path. Give one, or None for the configured root.")
    home = root or os.environ.get(HOME_VARIABLE)
    return Config(
        home=_absolute(home or platformdirs.user_cache_dir("verse-data")),
        data=None if home else _absolute(platformdirs.user_data_dir("verse-data")),
        offline=_offline_from_environment() if offline is None else offline,
        stores_url=os.environ.get(STORES_VARIABLE) or None,
        osf_api=(os.environ.get(OSF_API_VARIABLE) or "https://api.osf.io/v2").rstrip("/"),
        osf_site=(os.environ.get(OSF_SITE_VARIABLE) or "https://osf.io").rstrip("/"),
        osf_token=_token_from_environment(),
    )


def _absolute(folder: str | os.PathLike[str]) -> Path:
    try:
        path = Path(folder).expanduser().absolute()
        if max(map(len, map(os.fsencode, path.parts))) > 255 or len(os.fsencode(path)) > _LONGEST:
            raise ValueError(f"too long a path: {len(os.fsencode(path))} bytes")  # noqa: TRY301
    except (OSError, RuntimeError, ValueError) as error:
        # Also: the working folder was removed, or there is no such user.
        raise UsageError(
            f"{folder}: {error}. Choose another place: --root, {HOME_VARIABLE}."
        ) from error
    return path


def _token_from_environment() -> str | None:
    token = os.environ.get(OSF_TOKEN_VARIABLE, "").strip()
    if re.fullmatch(r"[!-~]*", token) is None:
        raise UsageError(
            f"{OSF_TOKEN_VARIABLE} holds blanks or other characters that no token has. Set it to "
            f"the token alone, or leave it out: public nodes need none."
        )
    return token or None


def _offline_from_environment() -> bool:
    text = os.environ.get(OFFLINE_VARIABLE, "").strip().lower()
    if text not in _TRUE | _FALSE:
        raise UsageError(
            f"{OFFLINE_VARIABLE}={text!r} is neither a yes nor a no. "
            f"Set it to 1 to forbid the network, or to 0 to allow it."
        )
    return text in _TRUE
