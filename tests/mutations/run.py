"""Break the code on purpose, one patch at a time, and show that a test notices: ``make mutate``.

Each ``*.patch`` beside this file says in its first lines what it breaks (``# What:``) and which tests
must fail with it (``# Test:``, one line a test), and pass without it. The patches are applied to a
copy of the checkout, so nothing here is touched. A patch that no longer applies, a test that passes
with it, or one that fails without it, ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIME_LIMIT = 300  # seconds; a test that hangs has noticed nothing


def header(patch: Path, field: str) -> list[str]:
    """Return what the first lines of a patch say of `field`."""
    return re.findall(rf"^# {field}: (.+)$", patch.read_text(), re.MULTILINE)


def copy_of_checkout(folder: Path) -> Path:
    """Copy the files that git knows, or would add, to `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # git apply wants a repository
    if (shared := ROOT.parent / "shared").is_dir():
        (folder.parent / "shared").symlink_to(shared)
    return folder


def passes(checkout: Path, tests: list[str], seconds: int = TIME_LIMIT) -> bool | None:
    """Return whether the tests pass in a checkout; None if they hang or cannot be run."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-m", "", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=checkout, env=environment, timeout=seconds,
            capture_output=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    return {0: True, 1: False}.get(done.returncode)


def verdict(checkout: Path, patch: Path) -> str:
    """Return "noticed", or what is wrong with a mutation or its test."""
    tests = header(patch, "Test")
    if not tests or not header(patch, "What"):
        return "has no '# What:' or no '# Test:' line"
    apply = ["git", "apply", str(patch)]
    if subprocess.run(apply, cwd=checkout, capture_output=True, check=False).returncode:
        return "does not apply"
    try:
        answer = passes(checkout, tests)
    finally:
        subprocess.run([*apply, "--reverse"], cwd=checkout, check=True)
    return {False: "noticed", True: "SURVIVED"}.get(answer, "its test hangs, or cannot be run")


def main() -> int:
    """Run all mutations, or those whose names are given, and print what became of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names of patches; default: all")
    names = parser.parse_args().names
    patches = [patch for patch in sorted(HERE.glob("*.patch")) if not names or patch.stem in names]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        checkout = copy_of_checkout(Path(folder) / "checkout")
        tests = sorted({test for patch in patches for test in header(patch, "Test")})
        if passes(checkout, tests, TIME_LIMIT * len(tests)) is not True:
            print("the tests do not pass without a mutation either")
            return 1
        for patch in patches:
            start = time.monotonic()
            outcome = verdict(checkout, patch)
            failed += outcome != "noticed"
            print(f"{patch.stem:<40} {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(patches) - failed} of {len(patches)} mutations noticed")
    return 1 if failed or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
