"""Print what the core of the suite needs but torch: the ``lowest`` versions allowed, or any ``newer``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main(kind: str) -> None:
    """Print one requirement a line."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["remote"], *extras["dask"]]:
        if not requirement.startswith("torch"):
            lowest = re.sub(r"^([\w.-]+)>=", r"\1==", requirement)
            print(lowest if kind == "lowest" else requirement)
    print("\n".join(extras["test"]))


if __name__ == "__main__":
    main(sys.argv[1])
