"""Four kinds of noise. Each value (a colour of a pixel) is disturbed on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from rac_helpers._check import check_generator, check_number
from rac_helpers.corrupt._pixels import (
    draw_normal,
    draw_uniform,
    to_pixels,
    to_unit,
)


def gaussian_noise(images: Tensor, *, std: float, generator: torch.Generator) -> Tensor:
    """Add noise of the same strength everywhere, like that of a sensor in the dark.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    std : float
        Standard deviation; 1 is the way from black to white. At least 0.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    >>> noisy = gaussian_noise(grey, std=0.1, generator=torch.Generator().manual_seed(0))
    >>> bool((noisy.float().std() / 255 - 0.1).abs() < 0.002)
    True
    """
    std = check_number("std", std, low=0)
    values = to_unit(images)
    return to_pixels(values + std * draw_normal(*values.shape, generator=generator), images)


def shot_noise(images: Tensor, *, photons: float, generator: torch.Generator) -> Tensor:
    """Count photons: bright values vary more than dark ones, black stays black.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    photons : float
        Mean number of photons for a full value (255), above 0. A value ``v`` of 0–1 gets the
        standard deviation ``sqrt(v / photons)``.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    >>> int(shot_noise(black, photons=50, generator=torch.Generator().manual_seed(0)).max())
    0
    """
    photons = check_number("photons", photons, low=1e-6)
    counts = torch.poisson(to_unit(images) * photons, generator=check_generator(generator))
    return to_pixels(counts / photons, images)


def impulse_noise(images: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Set some values to 0 or 255 (salt and pepper): dead sensor cells, or broken bits.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    share : float
        Share of the values that are hit, 0–1; half of them become 0, half 255.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    >>> hit = impulse_noise(grey, share=0.1, generator=torch.Generator().manual_seed(0))
    >>> hit.unique().tolist()
    [0, 128, 255]
    """
    share = check_number("share", share, low=0, high=1)
    values = to_unit(images)
    hit = draw_uniform(*values.shape, low=0, high=1, generator=generator) < share
    salt = draw_uniform(*values.shape, low=0, high=1, generator=generator) < 0.5
    return to_pixels(torch.where(hit, salt.float(), values), images)


def speckle_noise(images: Tensor, *, std: float, generator: torch.Generator) -> Tensor:
    """Multiply each value by a random factor near 1: the brighter, the noisier.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    std : float
        Standard deviation of the factor, at least 0.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    >>> int(speckle_noise(black, std=0.2, generator=torch.Generator().manual_seed(0)).max())
    0
    """
    std = check_number("std", std, low=0)
    values = to_unit(images)
    return to_pixels(
        values + values * std * draw_normal(*values.shape, generator=generator), images
    )
