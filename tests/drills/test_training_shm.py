"""Where shared memory is short, the error says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import training as support

CHILD = """
import sys, warnings
from pathlib import Path
from verse_data.errors import SampleError
from verse_data.training import PatchDataset, ServedScan

warnings.simplefilter("ignore")
scan = ServedScan("verse900", "verse900", "training", Path(sys.argv[1]))
patches = PatchDataset([scan], patch_size=(96,) * 3)
try:
    for batch in patches.loader(batch_size=4, num_workers=2):
        pass
except SampleError as error:
    print(error)
"""


def test_short_shared_memory_is_explained(tmp_path: Path) -> None:
    """With 8 MB of /dev/shm, a loader with workers fails and names --shm-size."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed: a small /dev/shm cannot be made here")
    made = support.make(tmp_path, support.SPECS[:1])
    command = 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$0" "$@"'
    small = ["unshare", "-Urm", "sh", "-c", command]
    if subprocess.run([*small, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount: a small /dev/shm cannot be made here")

    done = subprocess.run(
        [*small, sys.executable, "-c", CHILD, str(made.scans[0].store)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert "--shm-size" in done.stdout, done.stderr
