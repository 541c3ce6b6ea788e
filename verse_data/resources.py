"""Find ``catalog/`` and ``schemas/``: packaged copy, else the checkout, else an error."""

from __future__ import annotations

from pathlib import Path

from verse_data.errors import StorageError


def locate(name: str) -> Path:
    """Return the folder `name` (``"catalog"`` or ``"schemas"``).

    A wheel carries both inside the package; an editable install and a checkout have them
    beside it, recognised by the ``pyproject.toml`` next to them.
    """
    package = Path(__file__).parent
    packaged, checkout = package / "_resources" / name, package.parent / name
    if packaged.is_dir():
        return packaged
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise StorageError(
        f"The installed package lacks its {name!r} folder (looked at {packaged} and {checkout}). "
        f"Reinstall it: pip install --force-reinstall verse-data"
    )
