"""Our Dice and Hausdorff distances against panoptica's, on masks of the phantom.

Run: python benchmarks/metrics.py

panoptica 2.1.7 says that it wants NumPy below 2.3 and pandas below 3, and runs with newer ones:

    pip install --no-deps panoptica connected-components-3d ruamel.yaml plotly scikit-image

Masks are moved by a few voxels, so that no figure is trivial. Each level is an instance, and grids
have no tilt, since panoptica knows a spacing and no affine. Printed are the largest differences
over all vertebrae; the exit code is 1 if one of Dice or Hausdorff distance is above 1e-4. Its HD95
is another figure: the percentile of both directions together, where ours is the larger of both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from panoptica import InputType, Metric, Panoptica_Evaluator
from panoptica.panoptica_result import MetricMode

import verse_data as vd
from verse_data.spine.geometry import voxel_sizes
from verse_data.volumes.nifti import read_mask

NAMES = {"dice": Metric.DSC, "hd_mm": Metric.HD, "hd95_mm": Metric.HD95}
AGREE = ("dice", "hd_mm")
LIMIT = 1e-4


def theirs(truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...]) -> dict:
    """Return panoptica's figures of one vertebra."""
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.MATCHED_INSTANCE,
        instance_metrics=list(NAMES.values()),
        global_metrics=[],
    )
    found = evaluator.evaluate(predicted, truth, voxelspacing=spacing)["ungrouped"]
    return {name: found.get_list_metric(one, MetricMode.AVG) for name, one in NAMES.items()}


def main() -> int:
    """Compare all scans of the phantom."""
    worst, seconds, count = dict.fromkeys(NAMES, 0.0), [0.0, 0.0], 0
    with tempfile.TemporaryDirectory() as home:
        tree = vd.phantom.write(Path(home) / "tree", shape=(48, 96, 72))
        release = vd.lock_tree("phantom", tree, root=home)
        for scan_id, scan in release.series.items():
            if "mask" not in scan.files:
                continue
            mask = read_mask(release.path(scan_id, "mask"), name=scan_id)
            truth, spacing = mask.array, voxel_sizes(mask.affine)
            predicted = np.roll(truth, (1, 2, 0), (0, 1, 2))
            start = time.perf_counter()
            ours = vd.metrics.score_scan(truth, predicted, np.diag([*spacing, 1.0])).vertebrae
            middle = time.perf_counter()
            peers = [
                theirs(*((one == label).astype(np.uint8) for one in (truth, predicted)), spacing)
                for label in ours["label"]
            ]
            seconds[0] += middle - start
            seconds[1] += time.perf_counter() - middle
            for row, peer in zip(ours.to_dict(orient="records"), peers, strict=True):
                worst = {name: max(worst[name], abs(row[name] - peer[name])) for name in NAMES}
                count += 1
    print(f"{count} vertebrae; largest difference: {worst}")
    print(f"ours {seconds[0]:.1f} s, panoptica {seconds[1]:.1f} s")
    return int(max(worst[name] for name in AGREE) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
