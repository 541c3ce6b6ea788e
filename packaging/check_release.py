"""Stop a release whose tag, package, citation, changelog or repository address disagree.

python packaging/check_release.py v1.2.3 https://github.com/OWNER/NAME
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def disagreements(tag: str, repository: str) -> list[str]:
    """Return one sentence for each file that names another version, or another repository."""
    version = tag.removeprefix("v")
    found = {
        "verse_data/config.py": rf'^__version__ = "{re.escape(version)}"$',
        "CITATION.cff": rf"^version: {re.escape(version)}$",
        "CHANGELOG.md": rf"^## {re.escape(version)}\b",
    }
    wrong = [
        f"{name} does not name version {version}"
        for name, pattern in found.items()
        if not re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if project["urls"]["Repository"] != repository:
        wrong.append(
            f"pyproject.toml names the repository {project['urls']['Repository']}, this is {repository}"
        )
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(disagreements(*sys.argv[1:])) or 0)
