"""The documentation site: ``make docs`` builds it, from a checkout, without the network."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from reference_pages import write_reference  # noqa: E402 - it stands beside this file

from verse_data.config import __version__  # noqa: E402

project = "verse-data"
author = "The verse-data maintainers"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",  # Markdown, and tutorials as notebooks that run at each build
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True
# Docstrings also name modules that are not public, for those who read the code.
nitpick_ignore_regex = [("py:mod", r"verse_data\..*")]
default_role = "code"  # `patch_size` in a docstring

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / ".jupyter_cache")
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 120
nb_merge_streams = True
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

autodoc_typehints = "none"  # types stand in the docstrings, in words
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "verse-data"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "logo": {"text": "verse-data"},
}
html_sidebars = {page: [] for page in ("index", "faq", "gallery")}

ELSEWHERE = {"README": "index", "SECURITY": "security", "CONTRIBUTING": "contributing"}
"""Pages at the root of the repository, and where the site has them."""


def _follow_links(_: Sphinx, page: str, source: list[str]) -> None:
    """Lead a link to a page at the root of the repository to that page of the site."""
    up = "../" * (page.count("/") + 1)

    def moved(match: re.Match[str]) -> str:
        return f"]({'../' * page.count('/')}{ELSEWHERE[match[1]]}.md"

    source[0] = re.sub(rf"\]\({re.escape(up)}({'|'.join(ELSEWHERE)})\.md", moved, source[0])


def _mend_corners(_: Sphinx, doctree: nodes.document, __: str) -> None:
    """Make the empty corner of pandas' tables a plain cell: an empty heading is read out as one."""
    for node in doctree.findall(nodes.raw):
        if "<th></th>" in node.astext():
            node.children = [nodes.Text(node.astext().replace("<th></th>", "<td></td>"))]


def _prepare_phantom(_: Sphinx) -> None:
    """Lock a small phantom where the tutorials find it: their notebooks inherit this environment."""
    from verse_data import lock_tree, phantom

    home = DOCS / "_build" / "home"
    os.environ |= {"VERSE_DATA_HOME": str(home), "VERSE_DATA_PROGRESS": "off", "COLUMNS": "90"}
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["VERSE_DATA_OFFLINE"] = "1"
    if not (home / "releases" / "phantom").exists():
        lock_tree("phantom", phantom.write(home / "tree", shape=(80, 160, 60)), root=home)


def setup(app: Sphinx) -> None:
    """Make what is generated before pages are read."""
    write_reference(DOCS / "reference" / "generated")
    app.connect("builder-inited", _prepare_phantom)
    app.connect("source-read", _follow_links)
    app.connect("doctree-resolved", _mend_corners)
