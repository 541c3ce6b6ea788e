"""A patch worker stays small on the largest scans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import training as support
from verse_data.volumes.nifti import write_nifti

LIMIT = 400_000_000
SHAPE = (512, 512, 1000)
SEED = 0

CHILD = """
import json, sys
from pathlib import Path
import torch
from verse_data.training import PatchDataset, ServedScan

def own():  # what this process holds that is not a file's page, and at its highest
    lines = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines())
    return {k: int(lines[k].split()[0]) * 1024 for k in ("VmHWM", "RssAnon")}

before = own()
scan = ServedScan("verse900", "verse900", "training", Path(sys.argv[1]))
patches = PatchDataset([scan], patch_size=(96,) * 3, patches_per_scan=150, sampling=sys.argv[2])
for sample in patches:
    pass
after = own()
print(json.dumps({"peak": after["VmHWM"] - before["VmHWM"], "anon": after["RssAnon"]}))
"""


@pytest.mark.slow
def test_a_patch_worker_stays_below_400_mb_on_a_whole_spine(tmp_path: Path) -> None:
    """150 patches out of 512 x 512 x 1000 voxels cost less than 400 MB above importing torch."""
    store = whole_spine(tmp_path)

    for sampling in ("uniform", "foreground"):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(store), sampling],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert json.loads(done.stdout)["peak"] < LIMIT


def whole_spine(folder: Path) -> Path:
    """Build the store of a scan of 512 x 512 x 1000 voxels with noise and 20 vertebrae."""
    tile = np.random.default_rng(SEED).normal(0, 45, (512, 512, 8)).astype(np.int16)
    image = np.tile(tile, (1, 1, SHAPE[2] // 8))
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for n in range(20):
        mask[200:300, 220:300, 50 * n + 5 : 50 * n + 45] = n + 1
    ct, seg = folder / "ct.nii", folder / "msk.nii"
    write_nifti(ct, image, np.diag([0.4, 0.4, 0.6, 1]))
    write_nifti(seg, mask, np.diag([0.4, 0.4, 0.6, 1]))
    return support.build_files(folder, "verse900", ct, seg, {}).store
