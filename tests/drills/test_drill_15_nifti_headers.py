"""Drill 15: a thousand fuzzed NIfTI headers: no crash, no hang, little memory, nothing read wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = """
import json, resource, sys, time, warnings
import numpy as np, nibabel as nib
from pathlib import Path
from tests.support.headers import nifti, packed, voxels
from verse_data.errors import VerseDataError
from verse_data.volumes.nifti import read_image

warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
count, path = int(sys.argv[1]), Path(sys.argv[2])
rng = np.random.default_rng(15)
fields = (0, 2), (40, 56), (70, 74), (76, 112), (112, 120), (123, 124), (252, 280), (280, 328), (344, 352)
sound = [nifti(voxels(kind)) for kind in ("i2", "u1", "f4", "f8")]
sound.append(nifti(voxels(), qform_code=1, quatern=(0.0, 0, 0.7, 1, 2, 3)))
sound.append(nifti(voxels(), sform_code=0, qform_code=1, quatern=(0.6, 0.0, 0.8, 1, 2, 3)))
sound.append(nifti(voxels(), scl_slope=2.0, scl_inter=-1024.0))
out = {"accepted": 0, "refused": 0, "foreign": [], "slowest": 0.0, "wrong": [], "naive": 0, "peak": 0}
turned_away = []
extremes = [b"\\xff\\xff\\xff\\xff", b"\\x00\\x00\\xc0\\x7f", b"\\x00\\x00\\x80\\x7f", b"\\xff\\x7f\\xff\\x7f", bytes(4)]
for number in range(count):
    content = bytearray(sound[number % len(sound)])
    for _ in range(int(rng.integers(1, 5))):
        begin, end = fields[rng.integers(len(fields))]
        place = int(rng.integers(begin, end))
        if rng.random() < 0.5:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            content[place : place + 4] = extremes[rng.integers(len(extremes))]
    path.write_bytes(packed(bytes(content)))
    start = time.process_time()
    volume = None
    try:
        volume = read_image(path, name="CT")
        out["accepted"] += 1
    except VerseDataError:
        out["refused"] += 1
    except BaseException as error:
        out["foreign"].append(f"{number}: {error!r}")
    out["slowest"] = max(out["slowest"], time.process_time() - start)
    status = open("/proc/self/status").read()  # ru_maxrss starts at the forking process's
    out["peak"] = int(status.split("VmHWM:")[1].split()[0])
    if volume is not None:
        truth = nib.load(path)
        values = np.rint(np.asarray(truth.dataobj, dtype=np.float64)).reshape(volume.shape)
        same = np.array_equal(values, volume.array)
        if not same or np.abs(truth.affine - volume.affine).max() > 1e-4:
            out["wrong"].append(number)
    else:
        turned_away.append(bytes(content))
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 6 << 30))
for content in turned_away[::4]:
    path.write_bytes(packed(content))
    try:
        np.asarray(nib.load(path).dataobj)
        out["naive"] += 1
    except Exception:
        pass
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a process of its own made of a thousand mutated headers."""
    path = tmp_path_factory.mktemp("fuzz") / "fuzzed.nii.gz"
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, "1000", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    return json.loads(done.stdout)


def test_every_header_is_read_or_refused_by_name(outcome):
    """No header crashes the reader or brings out an error that is not ours."""
    assert outcome["foreign"] == []
    assert outcome["accepted"] + outcome["refused"] == 1000
    assert min(outcome["accepted"], outcome["refused"]) > 50, "the fuzzer must reach both ends"


def test_every_accepted_file_is_read_right(outcome):
    """Where the guard lets a file through, voxels and affine are those of nibabel."""
    assert outcome["wrong"] == []


def test_no_header_costs_time_or_memory(outcome):
    """No header takes two seconds of a processor, and the process stays below 300 MB."""
    assert outcome["slowest"] < 2.0
    assert outcome["peak"] < 300_000, "kilobytes"


def test_control_nibabel_reads_refused_files(outcome):
    """The naive way reads files whose header is wrong, so that the drill can see."""
    assert outcome["naive"] > 10
