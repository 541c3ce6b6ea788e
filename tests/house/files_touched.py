"""Which files of `verse_data` work for one sample: run as ``python tests/house/files_touched.py``.

Two figures, each a number of files below ``verse_data/`` (version 0.1, commit 95f0ef39, gives 77 and 19):

* **first**: in a fresh process, ``verse_data.load_split("training", release="phantom")[0]``, with
  the release locked and its stores built by an earlier process;
* **next**: ``dataset[1]`` right after it.

A file counts if one of its functions, methods or lambdas is called, as `sys.setprofile` sees it, in
the main thread. Left out: the bodies of modules and classes; comprehensions and generator
expressions by themselves; whatever runs while a module of the package is being imported; and
``__init__.py``, which hands names on. Files that work in other threads only (0.1: 3 more) are
listed apart; other processes are not followed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mass import PACKAGE, ROOT, checkout

PREPARE = """
import sys, verse_data
verse_data.phantom.write(sys.argv[1], shape=(48, 96, 36))
"""

WATCH = """
import json, sys, threading
from pathlib import Path
import verse_data as vd

package = Path(vd.__file__).parent
main, called = threading.get_ident(), {}

def is_importing(frame):
    while frame := frame.f_back:
        if frame.f_code.co_name == "<module>" and package in Path(frame.f_code.co_filename).parents:
            return True
    return False

def watch(frame, event, _):
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(f"{package}/"):
        return
    is_function = code.co_flags & 1 and (code.co_name[0] != "<" or code.co_name == "<lambda>")
    if is_function and not code.co_filename.endswith("__init__.py") and not is_importing(frame):
        where = "main" if threading.get_ident() == main else "threads"
        path = Path(code.co_filename).relative_to(package).as_posix()
        called.setdefault(where, set()).add(path)

def watched(act):
    called.clear()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        result = act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    in_main = called.get("main", set())
    return result, {"main": sorted(in_main), "threads": sorted(called.get("threads", set()) - in_main)}

def first_sample():
    dataset = vd.load_split("training", release="phantom")
    dataset[0]
    return dataset

dataset, first = watched(first_sample)
_, following = watched(lambda: dataset[1])
print(json.dumps({"package": str(package), "first": first, "next": following}))
"""


def touched(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return the files that work in each case, for the package below a folder."""
    with tempfile.TemporaryDirectory(prefix="verse-touched-") as scratch:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VERSE_DATA_")} | {
            "PYTHONPATH": str(root),
            "VERSE_DATA_HOME": f"{scratch}/home",
            "VERSE_DATA_PROGRESS": "off",
        }

        def python(*arguments: str) -> str:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=scratch,
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout

        python("-c", PREPARE, "tree")
        python("-m", PACKAGE, "lock", "phantom", "--from-tree", "tree")
        python("-c", WATCH)  # builds the stores
        watched = json.loads(python("-c", WATCH))
    if Path(watched["package"]) != root / PACKAGE:
        raise RuntimeError(f"another copy of the package was imported: {watched['package']}")
    return {case: watched[case] for case in ("first", "next")}


def report(found: dict[str, dict[str, list[str]]]) -> str:
    """Write the figures, and the files below each."""
    lines = []
    for case, files in found.items():
        apart = len(files["threads"])
        lines += [f"{case}: {len(files['main'])} files, and {apart} in other threads only"]
        lines += [f"  {path}" for path in files["main"]]
        lines += [f"  {path} (in a thread)" for path in files["threads"]]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the files that the checkout needs, or a commit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--of", metavar="COMMIT", help="look at this commit, not at the checkout")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="verse-commit-") as folder:
        found = touched(checkout(options.of, Path(folder).resolve()) if options.of else ROOT)
    print(json.dumps(found, indent=1) if options.json else report(found))


if __name__ == "__main__":
    main(sys.argv[1:])
