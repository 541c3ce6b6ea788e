"""nnU-Net itself on one raw dataset, at reduced size: ``python -m tests.support.nnunet_run FOLDER``.

A process of its own, since nnU-Net reads its folders from the environment when it is imported, and
starts others by spawning. It prints what the test asks about as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(raw: Path) -> None:
    """Verify, plan, preprocess, train one epoch on fold 0, and predict ``imagesTs``."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.paths import nnUNet_preprocessed

    number = int(raw.name[7:10])
    extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
    plan_experiments([number], gpu_memory_target_in_gb=0.5)
    made = Path(nnUNet_preprocessed) / raw.name
    preprocess([number], configurations=["3d_fullres"], num_processes=[1])
    plans = json.loads((made / "nnUNetPlans.json").read_text())
    dataset = json.loads((raw / "dataset.json").read_text())

    trainer = small(plans, dataset)
    served = trainer.dataset_class(trainer.preprocessed_dataset_folder)
    found = {name: np.unique(served.load_case(name)[1]).tolist() for name in served.identifiers}
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        dataset,
        type(trainer).__name__,
        None,
    )
    predictor.predict_from_files(
        str(raw / "imagesTs"),
        str(raw.parent / "predictions"),
        num_processes_preprocessing=1,
        num_processes_segmentation_export=1,
    )
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
