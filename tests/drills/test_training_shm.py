"""Where shared memory is short or missing: what works without it, and what the error says to do."""

from __future__ import annotations

import os
import re
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


SERIAL = """
import sys
from pathlib import Path
import verse_data as vd
from verse_data.errors import StorageError

release = vd.lock_tree("lab", vd.phantom.write(Path(sys.argv[1]), n_subjects=4, shape=(48, 96, 36)))
dataset = release.dataset(["verse901", "verse904"], workers=2)
loader = dataset.loader(batch_size=None)
state = [loader.state_dict() for _ in loader][0]
loader.load_state_dict(state)
print("served", len(dataset), "and", len(list(loader)), "in epoch", dataset.epoch)
try:
    list(dataset.loader(num_workers=1))
except StorageError as error:
    print(error)
"""


def run(mount: str, child: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program where /dev is another; skip the test where this user may not mount."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed: another /dev/shm cannot be made here")
    other = ["unshare", "-Urm", "sh", "-ec", f'{mount}; exec "$0" "$@"']
    if subprocess.run([*other, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount: another /dev/shm cannot be made here")
    return subprocess.run(
        [*other, sys.executable, "-c", child, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_short_shared_memory_is_explained(tmp_path: Path) -> None:
    """With 8 MB of /dev/shm, a loader with workers fails and names --shm-size."""
    made = support.make(tmp_path, support.SPECS[:1])

    done = run("mount -t tmpfs -o size=8m tmpfs /dev/shm", CHILD, str(made.scans[0].store))

    assert "--shm-size" in done.stdout, done.stderr


READ_ONLY = "mount -t tmpfs -o ro tmpfs /dev/shm"
MISSING = """mount -t tmpfs tmpfs /mnt
for name in null zero random urandom tty; do touch /mnt/$name; mount --bind /dev/$name /mnt/$name; done
mount --rbind /mnt /dev"""


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param(READ_ONLY, id="read-only"),
        pytest.param(MISSING, id="missing", marks=pytest.mark.slow),
    ],
)
def test_without_shared_memory_all_works_but_workers(tmp_path: Path, mount: str) -> None:
    """Stores are built in one process, and served without workers; those are refused, with a remedy."""
    done = run(mount, SERIAL, str(tmp_path / "tree"))

    assert "served 2 and 1 in epoch 1" in done.stdout, done.stderr
    assert re.search(r"RuntimeWarning: Stores are built in this process: .*shm-size", done.stderr)
    assert re.search(r"cannot be started.*--shm-size=2g.*num_workers out", done.stdout), done.stderr
    assert "Traceback" not in done.stderr
