"""Audit a diffusion model of slices twice: trained on 20 patients, and on many.

    python docs/medical_example.py FOLDER

Writes FOLDER/few and FOLDER/many: folders of DICOM slices, `train` and `held-out`, with patients as
groups, that were dealt from one pool. A patient is a place in one of the photographs that come with
the package, its slices are two crops of 16x16 that are two pixels apart. A UNet2DModel of
diffusers is trained on each `train`, for as many steps, and audited: as a model, and by its samples
alone. Nothing is fetched. The two run side by side, for 360 and 400 s of a core each.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from torch.nn import functional as F

from twinscore import images
from twinscore.experiments import audit
from twinscore.sampling import SamplingSpec

SIDE, SLICES = 16, 2
PATIENTS = {"few": (20, 200), "many": (1000, 400)}
"""Trained on, and held out."""
STEPS, BATCH, RATE = 2000, 16, 2e-3
SAMPLES = 200


def patients() -> np.ndarray:
    """Slices of every patient, uint8 (P, SLICES, SIDE, SIDE), in random order."""
    places = images.load(f"photos,size={SIDE + 2 * (SLICES - 1)}")
    apart = np.flatnonzero(~images.near_duplicates(places, 0.9).drop)
    pixels = places[apart].numpy()[:, 0]
    pixels = np.random.default_rng(0).permutation(pixels[pixels.std((1, 2)) > 0.09])
    cuts = [slice(2 * i, 2 * i + SIDE) for i in range(SLICES)]
    return np.rint(255 * np.stack([pixels[:, cut, cut] for cut in cuts], 1)).astype(np.uint8)


def write_slice(pixels: np.ndarray, patient: str, file: Path) -> None:
    """One slice as a DICOM file of 8 bits."""
    of = Dataset()
    of.file_meta = FileMetaDataset()
    of.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    of.SOPClassUID = of.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    name = generate_uid(entropy_srcs=[str(file.name)])
    of.SOPInstanceUID = of.file_meta.MediaStorageSOPInstanceUID = name
    of.PatientID, of.Modality = patient, "OT"
    of.Rows, of.Columns = pixels.shape
    of.SamplesPerPixel, of.PhotometricInterpretation = 1, "MONOCHROME2"
    of.BitsAllocated, of.BitsStored, of.HighBit, of.PixelRepresentation = 8, 8, 7, 0
    of.PixelData = pixels.tobytes()
    of.save_as(file, enforce_file_format=True)


def write(folder: Path, pixels: np.ndarray, first: int) -> None:
    """A folder of patients, each a folder of slices."""
    for i, slices in enumerate(pixels, start=first):
        own = folder / f"patient-{i:04d}"
        own.mkdir(parents=True)
        for k, of in enumerate(slices):
            write_slice(of, own.name, own / f"{own.name}-slice-{k}.dcm")


def train(folder: Path, pixels: np.ndarray) -> None:
    """Train a network on slices and save it as a pipeline."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 48, 64),
        norm_num_groups=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    scheduler = DDPMScheduler()
    slices = torch.from_numpy(pixels.reshape(-1, 1, SIDE, SIDE)).float() / 127.5 - 1
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    for step in range(STEPS):
        x = slices[torch.randint(len(slices), (BATCH,))]
        z, t = torch.randn_like(x), torch.randint(1000, (BATCH,))
        loss = F.mse_loss(network(scheduler.add_noise(x, z, t), t).sample, z)
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    DDPMPipeline(network, scheduler).save_pretrained(folder)


def audited(folder: Path) -> str:
    """What the audit of the model says, and that of its samples alone."""
    sets = {"train": f"{folder}/train", "held_out": f"{folder}/held-out"}
    sets |= {"steered": "no", "chosen": "no"}
    own = {"count": SAMPLES, "draws": 1, "sampling": SamplingSpec(method="flow")}
    of_model = audit.Spec(model=f"diffusers:{folder}/model", **own, **sets)
    found = audit.run(of_model, folder / "audit", device="cpu", workers=1, threads=1)
    [samples] = folder.glob("audit-samples-*.npz")
    by_samples = audit.Spec(samples=str(samples), **sets)
    alone = audit.run(by_samples, folder / "audit-of-samples", device="cpu", workers=1, threads=1)
    return (
        f"{folder.name}: {found.result.verdict}\n{found.result.table()}\n"
        f"{folder.name}, from its samples alone: {alone.result.verdict}\n"
    )


def studied(folder: Path, pool: np.ndarray, trained: int, held_out: int) -> str:
    """Deal the patients of a pool, train and audit."""
    write(folder / "train", pool[:trained], 0)
    write(folder / "held-out", pool[trained : trained + held_out], trained)
    train(folder / "model", pool[:trained])
    return audited(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder, began = parser.parse_args().folder, time.monotonic()
    pool = patients()
    with ProcessPoolExecutor(len(PATIENTS), get_context("spawn")) as workers:
        said = [
            workers.submit(studied, folder / name, pool, *counts)
            for name, counts in PATIENTS.items()
        ]
        for future in said:
            print(future.result())
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
