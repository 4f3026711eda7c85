"""Functions from a noisy image to its clean estimate."""

from twinscore.denoisers.base import Denoiser, check, denoise, per_image, psnr, score
from twinscore.denoisers.bf_cnn import BFCNN
from twinscore.denoisers.checkpoint import Checkpoint, save
from twinscore.denoisers.conditioned_unet import ConditionedUNet
from twinscore.denoisers.loading import load
from twinscore.denoisers.spec import NetworkSpec, build
from twinscore.denoisers.unet import UNet

__all__ = [
    "BFCNN",
    "Checkpoint",
    "ConditionedUNet",
    "Denoiser",
    "NetworkSpec",
    "UNet",
    "build",
    "check",
    "denoise",
    "load",
    "per_image",
    "psnr",
    "save",
    "score",
]
