"""The bridges, against the real MONAI, TorchIO and Lightning where they are installed."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from tests.support import training as support
from verse_data.errors import ToolMissing, UsageError
from verse_data.spine.geometry import apply_affine
from verse_data.spine.levels import LABEL_OF_LEVEL
from verse_data.training import (
    PatchDataset,
    ScanDataset,
    VertebraDataset,
    centroid_voxels,
    pad_collate,
)
from verse_data.training.transforms import Compose, CropOrPad

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


def needs(name: str) -> Any:
    return pytest.importorskip(
        name, reason=f"{name} is not installed: pip install 'verse-data[{name}]'"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> support.Made:
    return support.make(tmp_path_factory.mktemp("scans"))


@pytest.mark.parametrize("name", ["monai", "torchio", "lightning"])
def test_without_the_library_a_bridge_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is imported, as it is of no use then."""
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"verse_data.training.{name}", raising=False)

    with pytest.raises(ToolMissing, match=f"training.{name} needs {name}.*: pip install {name}$"):
        importlib.import_module(f"verse_data.training.{name}")


def assert_centroids_on_labels(sample: dict[str, Any]) -> None:
    for level, at in centroid_voxels(sample).items():
        x, y, z = (round(v) for v in at)
        assert sample["label"][0, x, y, z] == LABEL_OF_LEVEL[level]


def test_monai_gets_tensors_that_know_their_affine(made: support.Made) -> None:
    """Image and label are MetaTensors in RAS+, and batch with MONAI's loader."""
    needs("monai")
    from monai.data import DataLoader as MonaiLoader
    from monai.data import MetaTensor

    from verse_data.training.monai import to_monai

    dataset = PatchDataset(made.scans, patch_size=(16, 16, 16), transform=to_monai)
    plain = PatchDataset(made.scans, patch_size=(16, 16, 16))

    batch = next(iter(MonaiLoader(dataset, batch_size=2, num_workers=2)))

    assert isinstance(batch["image"], MetaTensor)
    assert torch.equal(batch["image"][1].as_tensor(), plain[1]["image"])
    assert torch.allclose(dataset[1]["image"].affine, plain[1]["affine"])
    assert dataset[1]["image"].meta["filename_or_obj"] == plain[1]["scan_id"]


def test_monai_transforms_keep_the_centroids_true(made: support.Made) -> None:
    """After MONAI's flips, rotations, crops and spacing, centroids still lie on their label."""
    needs("monai")
    from monai.transforms import Compose as MonaiCompose
    from monai.transforms import CropForegroundd, Flipd, Orientationd, Rotate90d, Spacingd

    from verse_data.training.monai import from_monai, to_monai

    keys = ["image", "label"]
    steps = MonaiCompose(
        [
            to_monai,
            Orientationd(keys, axcodes="PIR", labels=None),
            Flipd(keys, spatial_axis=1),
            Rotate90d(keys, k=1, spatial_axes=(0, 2)),
            CropForegroundd(keys, source_key="label", margin=3),
            Spacingd(keys, pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
            from_monai,
        ]
    )
    for sample in ScanDataset(made.scans, transform=steps):
        assert type(sample["image"]) is torch.Tensor
        assert_centroids_on_labels(sample)


def test_monai_random_transforms_depend_on_the_sample_alone(made: support.Made) -> None:
    """MONAI's own generators are seeded per sample: workers and order change nothing."""
    needs("monai")
    from monai.transforms import Compose as MonaiCompose
    from monai.transforms import RandFlipd, RandGaussianNoised

    from verse_data.training.monai import from_monai, to_monai

    steps = MonaiCompose(
        [
            to_monai,
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandGaussianNoised(["image"], prob=1.0),
            from_monai,
        ]
    )
    dataset = PatchDataset(made.scans, patch_size=(8, 8, 8), transform=steps)

    alone = support.stream_digest(dataset.loader(batch_size=4))
    dataset.set_epoch(0)

    assert support.stream_digest(dataset.loader(batch_size=4, num_workers=2)) == alone


SERVED: dict[str, Any] = {
    "scan": lambda made: (ScanDataset, made.scans, {}),
    "patch": lambda made: (PatchDataset, made.scans, {"patch_size": 16}),
    "vertebra": lambda made: (VertebraDataset, made.scans, {"vertebrae": made.table}),
}
"""Class, scans and options of a dataset of each unit."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("unit", list(SERVED))
@pytest.mark.parametrize("loader", ["dataset.loader", "torch", "pad_collate", "default_collate"])
def test_monai_batches_hold_the_affine_of_each_sample(
    made: support.Made, loader: str, unit: str, workers: int
) -> None:
    """Image and label of a batch have one affine a sample, in every loader, with workers or not."""
    needs("monai")
    from verse_data.training.monai import to_monai

    kind, scans, options = SERVED[unit](made)
    steps = Compose([CropOrPad((16, 16, 16)), to_monai])
    dataset = kind(scans, transform=steps, **options)
    how = {"batch_size": 2, "num_workers": workers}
    batches: Any = {
        "dataset.loader": lambda: dataset.loader(sampler=dataset.sampler(shuffle=False), **how),
        "torch": lambda: DataLoader(dataset, **how),
        "pad_collate": lambda: DataLoader(dataset, collate_fn=pad_collate, **how),
        "default_collate": lambda: DataLoader(dataset, collate_fn=default_collate, **how),
    }[loader]()

    batch = next(iter(batches))

    own = torch.stack([dataset[number]["image"].affine for number in range(2)])
    assert not torch.equal(own[0], own[1])
    for key in ("image", "label"):
        assert torch.equal(batch[key].affine, own)


def test_monai_takes_a_batch_apart_with_the_affine_of_each(made: support.Made) -> None:
    """decollate_batch gives each sample its own affine, name and applied operations back."""
    needs("monai")
    from monai.data import decollate_batch
    from monai.transforms import Compose as MonaiCompose
    from monai.transforms import Invertd, RandFlipd

    from verse_data.training.monai import from_monai, to_monai

    keys = ["image", "label"]
    flips = RandFlipd(keys, prob=0.5, spatial_axis=0)
    dataset = PatchDataset(made.scans, patch_size=12, transform=MonaiCompose([to_monai, flips]))
    plain = PatchDataset(made.scans, patch_size=12)

    batch = next(iter(dataset.loader(sampler=dataset.sampler(shuffle=False), batch_size=8)))
    apart = decollate_batch(batch)
    moved = {torch.equal(apart[n]["image"].affine, plain[n]["affine"]) for n in range(8)}

    assert len(apart) == 8
    assert moved == {True, False}
    for number, sample in enumerate(apart):
        assert torch.equal(sample["image"].affine, dataset[number]["image"].affine)
        assert sample["image"].meta["filename_or_obj"] == plain[number]["scan_id"]
        back = Invertd(keys, transform=flips, orig_keys=keys)(sample)
        assert torch.equal(back["image"].as_tensor(), plain[number]["image"])
        assert torch.allclose(back["image"].affine, plain[number]["affine"])
        assert torch.equal(from_monai(sample)["affine"], sample["image"].affine)
    assert torch.equal(from_monai(batch)["affine"], batch["image"].affine)
    for number, spacing in enumerate(from_monai(batch)["spacing"]):
        assert torch.allclose(spacing, plain[number]["spacing"])


def test_samples_that_a_monai_transform_multiplies_become_one_batch(made: support.Made) -> None:
    """Four crops out of each of two scans are a batch of eight with eight affines, as in MONAI."""
    needs("monai")
    from monai.transforms import Compose as MonaiCompose
    from monai.transforms import RandSpatialCropSamplesd

    from verse_data.training.monai import to_monai

    crops = RandSpatialCropSamplesd(
        ["image", "label"], roi_size=8, num_samples=4, random_size=False
    )
    dataset = ScanDataset(made.scans, transform=MonaiCompose([to_monai, crops]))

    batch = next(iter(dataset.loader(sampler=dataset.sampler(shuffle=False), batch_size=2)))

    own = [crop["image"].affine for number in range(2) for crop in dataset[number]]
    assert batch["image"].shape == (8, 1, 8, 8, 8)
    assert torch.equal(batch["image"].affine, torch.stack(own))


def test_pad_collate_pads_the_tensors_of_monai(made: support.Made) -> None:
    """Crops of differing shapes are padded to one, and each keeps its affine."""
    needs("monai")
    from verse_data.training.monai import to_monai

    dataset = VertebraDataset(made.scans, made.table, around="mask", transform=to_monai)
    last = len(dataset) - 1
    samples = [dataset[0], dataset[last]]
    assert samples[0]["image"].shape != samples[1]["image"].shape

    batch = pad_collate(samples)

    for number, sample in enumerate(samples):
        x, y, z = batch["shape"][number].tolist()
        assert torch.equal(
            batch["image"][number, :, :x, :y, :z].as_tensor(), sample["image"].as_tensor()
        )
        assert torch.equal(batch["image"].affine[number], sample["image"].affine)
        assert torch.equal(batch["label"].affine[number], sample["label"].affine)


def test_torchio_gets_subjects(made: support.Made) -> None:
    """Image and label are TorchIO images with the affine; its transforms keep centroids true."""
    tio = needs("torchio")
    from verse_data.training.torchio import from_subject, to_subject

    subjects = ScanDataset(made.scans, transform=to_subject)
    assert isinstance(subjects[0], tio.Subject)
    assert isinstance(subjects[0]["label"], tio.LabelMap)
    assert subjects[0]["scan_id"] == "verse900"

    steps = Compose([to_subject, tio.ToCanonical(), tio.CropOrPad(50), from_subject])
    for sample in ScanDataset(made.scans, orientation="PIR", transform=steps):
        index = np.argwhere(sample["image"][0].numpy())[::997]
        expected = support.hu(apply_affine(sample["affine"].numpy(), index))
        found = sample["image"][0].numpy()[tuple(index.T)]
        assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(
    "name", ["RandomFlip", "RandomAffine", "RandomElasticDeformation", "RandomNoise"]
)
def test_torchio_knows_no_centroids_after_it_moved_voxels(made: support.Made, name: str) -> None:
    """Its flips, affine and elastic transforms leave the affine: centroids by it would be wrong."""
    tio = needs("torchio")
    from verse_data.training.torchio import from_subject, to_subject

    options = {"flip_probability": 1} if name == "RandomFlip" else {}
    random = tio.OneOf([getattr(tio, name)(**options)])
    sample = ScanDataset(made.scans, transform=Compose([to_subject, random, from_subject]))[0]
    plain = ScanDataset(made.scans)[0]
    assert sample["centroids"].isfinite().any() == (name == "RandomNoise")
    assert sample["centroids"].shape == plain["centroids"].shape
    assert sample["centroids"].dtype == plain["centroids"].dtype


def test_torchio_samples_batch_and_are_reproducible(made: support.Made) -> None:
    """Random TorchIO transforms give the same for 0 and 2 workers, in torch's own batches."""
    tio = needs("torchio")
    from verse_data.training.torchio import from_subject, to_subject

    steps = Compose([to_subject, tio.RandomFlip(axes=(0, 1)), tio.RandomNoise(), from_subject])
    dataset = PatchDataset(made.scans, patch_size=(8, 8, 8), transform=steps)

    streams = {
        workers: support.stream_digest(DataLoader(dataset, batch_size=4, num_workers=workers))
        for workers in (0, 2)
    }

    assert streams[0] == streams[2]


def test_lightning_trains_and_goes_on_where_it_stopped(made: support.Made, tmp_path: Path) -> None:
    """A Trainer sees every sample once an epoch, and a checkpoint goes on in its middle."""
    needs("lightning")
    whole = fit(made, tmp_path, save_at=7)
    rest = fit(made, tmp_path, resume=tmp_path / "step=7.ckpt")

    assert len(whole) == 20
    assert len(set(whole[:10])) == 10
    assert whole[:10] != whole[10:]
    assert rest == whole[7:]


def fit(
    made: support.Made, folder: Path, *, save_at: int = 0, resume: Path | None = None
) -> list[str]:
    """Train on patches for two epochs; return the digest of each batch."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from verse_data.training.lightning import VerSeDataModule

    class Watching(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv3d(1, 1, 1)
            self.seen: list[str] = []

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.seen.append(support.stream_digest([batch]))
            return self.layer(batch["image"] / 1000).mean() ** 2

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    train = PatchDataset(made.scans, patch_size=(8, 8, 8), patches_per_scan=4, seed=3)
    module, data = Watching(), VerSeDataModule(train=train, batch_size=2)
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=save_at, save_top_k=-1)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[saving] if save_at else [],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(save_at),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module.seen


def test_lightning_refuses_a_leak(made: support.Made) -> None:
    """A subject that is trained on and evaluated on is an error, fold or split."""
    needs("lightning")
    from verse_data.training.lightning import VerSeDataModule

    train, val = ScanDataset(made.scans[:4]), ScanDataset(made.scans[4:])

    with pytest.raises(UsageError, match="leaks patients: verse903"):
        VerSeDataModule(train=train, val=val)
    apart = VerSeDataModule(train=ScanDataset(made.scans[:3]), val=val)
    assert len(list(itertools.chain(apart.train_dataloader(), apart.val_dataloader()))) == 4
    assert set(apart.provenance) == {"train", "val"}
