"""The augmentations that RandAugment is compared with: the usual one, and the article's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rac_helpers._check import check_generator, check_images, check_int


def flip_crop(images: Tensor, *, generator: torch.Generator, pad_px: int = 4) -> Tensor:
    """Mirror half of the images and move each by a few pixels.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(B, 3, H, W)``.
    generator : torch.Generator
        Source of all draws, each image its own.
    pad_px : int
        At least 0. Each image gets a black frame this wide, then a window of its old size is cut
        out anywhere: it moves by ``-pad_px`` to ``pad_px`` pixels in both directions.

    Returns
    -------
    Tensor
        uint8, same shape; the input is not changed.

    References
    ----------
    He, Zhang, Ren and Sun, 2016. Deep residual learning for image recognition, section 4.2.

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> flip_crop(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """
    _check_batch(images, generator)
    check_int("pad_px", pad_px, low=0)
    number, _, height, width = images.shape
    mirrored = (torch.rand(number, generator=generator) < 0.5).to(images.device)
    images = torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(-1), images)
    padded = F.pad(images, (pad_px,) * 4).movedim(1, -1)  # (B, H + 2 pad, W + 2 pad, 3)
    corner = torch.randint(2 * pad_px + 1, (2, number, 1), generator=generator)
    row, column = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    which = torch.arange(number).reshape(-1, 1, 1)
    index = (part.to(images.device) for part in (which, row[:, :, None], column[:, None, :]))
    return padded[tuple(index)].movedim(-1, 1).contiguous()


def flip_rotate_zoom(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, turn each by up to 7.2 degrees, zoom each by up to 20 %.

    This is ``simple_aug`` of the Keras example that the course follows: ``RandomFlip``,
    ``RandomRotation(0.02)`` (a share of a full turn) and ``RandomZoom(0.2, 0.2)`` (height and
    width on their own). Each image is sampled once, not twice, so it loses less sharpness.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(B, 3, H, W)``.
    generator : torch.Generator
        Source of all draws, each image its own.

    Returns
    -------
    Tensor
        uint8, same shape; bilinear, reflected at the border. The input is not changed.

    References
    ----------
    Paul and Prasad, 2021. RandAugment for Image Classification for Improved Robustness
    (Keras code examples).

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> flip_rotate_zoom(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """
    _check_batch(images, generator)
    number, _, height, width = images.shape
    if not images.numel():
        return images.clone()
    draws = torch.rand(4, number, generator=generator, dtype=torch.float64)
    mirror = torch.where(draws[0] < 0.5, -1.0, 1.0)
    angle = (2 * draws[1] - 1) * 0.02 * 2 * math.pi
    zoom_y, zoom_x = 0.8 + 0.4 * draws[2], 0.8 + 0.4 * draws[3]
    sin, cos, ratio = angle.sin(), angle.cos(), height / width  # grids count from -1 to 1
    x_row = torch.stack([cos * zoom_x, -sin * zoom_y * ratio], dim=1) * mirror[:, None]
    y_row = torch.stack([sin * zoom_x / ratio, cos * zoom_y], dim=1)
    theta = F.pad(torch.stack([x_row, y_row], dim=1), (0, 1))  # (B, 2, 3), no shift
    theta = theta.float().to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def _check_batch(images: Tensor, generator: torch.Generator) -> None:
    check_generator(generator)
    if check_images("images", images).ndim != 4:
        raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}")
