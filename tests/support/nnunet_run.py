"""One short epoch of nnU-Net on a preprocessed dataset: ``python -m tests.support.nnunet_run FOLDER``.

A process of its own, since nnU-Net reads its folders from the environment when it is imported, and
starts others by spawning. Its own commands do the rest; ``nnUNetv2_train`` knows no epoch of two
steps. It prints what the test asks about as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(raw: Path) -> None:
    """Train fold 0 of the dataset that lies in `raw`, and print what its loader served."""
    from nnunetv2.paths import nnUNet_preprocessed

    made = Path(nnUNet_preprocessed) / raw.name
    plans = json.loads((made / "nnUNetPlans.json").read_text())
    dataset = json.loads((raw / "dataset.json").read_text())
    trainer = small(plans, dataset)
    served = trainer.dataset_class(trainer.preprocessed_dataset_folder)
    found = {name: np.unique(served.load_case(name)[1]).tolist() for name in served.identifiers}
    train, validation = trainer.do_split()
    print(json.dumps({"served": found, "train": train, "val": validation}))  # noqa: T201


def small(plans: dict[str, Any], dataset: dict[str, Any]) -> Any:
    """Return nnU-Net's trainer without mirroring after one epoch of two steps on this machine's CPU."""
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
        nnUNetTrainerNoMirroring,
    )

    trainer = nnUNetTrainerNoMirroring(
        plans | {"continue_training": False}, "3d_fullres", 0, dataset, device=torch.device("cpu")
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 2
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    return trainer


if __name__ == "__main__":
    main(Path(sys.argv[1]))
