"""One release at one version: its files, tables, stores and datasets behind one class."""

from __future__ import annotations

from verse_data.release.facade import Release

__all__ = ["Release"]
