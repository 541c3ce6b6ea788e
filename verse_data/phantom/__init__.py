"""A small synthetic release with the layout, the file formats and the awkward cases of VerSe'19.

For the demo, the documentation, and the tests of this package and of packages that build on it.
No value in it was measured on a person. See ``docs/phantom.md``.
"""

from __future__ import annotations

from verse_data.phantom.folder import DEFAULT_SHAPE, write
from verse_data.phantom.paint import paint_ct
from verse_data.phantom.spec import CASES, cases

__all__ = ["CASES", "DEFAULT_SHAPE", "cases", "paint_ct", "write"]
