"""Resizes images, in the same way for trainings, digits and saved models."""

import torch
from torch import Tensor
from torch.nn import functional as F


def interpolated(images: Tensor, size: int) -> Tensor:
    """Return (N, H, W) images as float (N, size, size), bilinear with antialiasing, on the same device."""
    images = images.unsqueeze(1).float()
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).squeeze(1)


def resized(images: Tensor, size: int) -> Tensor:
    """Return (N, 28, 28) images with pixels from 0 to 255 as uint8 (N, size, size), on the same device."""
    # From 28 to 32 pixels every value is a multiple of 1/256. Rounding to that first removes the rounding errors of the
    # summation, which differ between devices and onnxruntime and would turn one half into 0 or 1.
    exact = interpolated(images, size).mul_(256).round_().div_(256)
    return exact.round_().clamp_(0, 255).to(torch.uint8)
