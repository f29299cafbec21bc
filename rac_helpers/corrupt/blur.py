"""Five kinds of blur. Lengths are in pixels of the picture: they do not grow with its size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.corrupt._pixels import (
    blur_along,
    cut_levels,
    draw_uniform,
    filter_2d,
    magnify,
    smooth,
    to_pixels,
    to_unit,
)

_MAX_MOTION_DEG = 45.0


def gaussian_blur(images: Tensor, *, sigma_px: float) -> Tensor:
    """Blur by a Gaussian.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    sigma_px : float
        Standard deviation in pixels, at least 0.

    Returns
    -------
    Tensor
        uint8, same shape. Beyond the edge the pixels of the edge go on.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> dot = torch.zeros(3, 1, 5, dtype=torch.uint8)
    >>> dot[..., 2] = 255
    >>> gaussian_blur(dot, sigma_px=1.0)[0, 0].tolist()
    [13, 61, 101, 61, 13]
    """
    sigma_px = check_number("sigma_px", sigma_px, low=0)
    return to_pixels(smooth(to_unit(images), sigma_px), images)


def defocus_blur(images: Tensor, *, radius_px: float, alias_sigma_px: float) -> Tensor:
    """Spread each point over a disk, as a lens out of focus does.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    radius_px : float
        Radius of the disk, at least 0. Below 1 the disk is a single pixel, and all the blur comes
        from ``alias_sigma_px``: that is how severities 1 to 3 of CIFAR-10-C work.
    alias_sigma_px : float
        The disk is softened by a Gaussian of this standard deviation, cut to 3x3 pixels. Above 0.

    Returns
    -------
    Tensor
        uint8, same shape. The picture is mirrored at its edges.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> dot = torch.zeros(3, 5, 5, dtype=torch.uint8)
    >>> dot[:, 2, 2] = 250
    >>> defocus_blur(dot, radius_px=1, alias_sigma_px=0.1)[0, 1:4, 1:4]
    tensor([[ 0, 50,  0],
            [50, 50, 50],
            [ 0, 50,  0]], dtype=torch.uint8)
    """
    radius_px = check_number("radius_px", radius_px, low=0)
    alias_sigma_px = check_number("alias_sigma_px", alias_sigma_px, low=1e-3)
    kernel = _disk(radius_px, alias_sigma_px)
    return to_pixels(filter_2d(to_unit(images), kernel), images)


def _disk(radius_px: float, alias_sigma_px: float) -> Tensor:
    """Return the weights of a soft disk; their sum is 1."""
    reach = int(radius_px) + 1  # one pixel of room for the softening
    square = torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2
    disk = (square[:, None] + square <= radius_px**2).double()
    truncate = 1.4 / alias_sigma_px  # cuts the Gaussian to one pixel on each side
    return smooth(disk / disk.sum(), alias_sigma_px, edge="constant", truncate=truncate)


def glass_blur(
    images: Tensor, *, sigma_px: float, passes: int, generator: torch.Generator
) -> Tensor:
    """Look through frosted glass: blur, let neighbouring pixels change places, blur again.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    sigma_px : float
        Standard deviation of both blurs in pixels, at least 0.
    passes : int
        How often the pixels move, at least 0.
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

    Notes
    -----
    The authors' loop means to swap each pixel with the one above, to the left, or both, or
    neither. But it swaps two numpy views, so the second assignment reads what the first has just
    written: the pixel takes its neighbour's colour, the neighbour keeps it. The loop goes up from
    the bottom right, so that neighbour has not changed yet. That makes a pass a plain look-up,
    which is what happens here. Two rows and two columns, at the top and at the left, stay.

    Examples
    --------
    >>> image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    >>> glass_blur(image, sigma_px=0.05, passes=1, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 8, 8])
    """
    sigma_px = check_number("sigma_px", sigma_px, low=0)
    passes = check_int("passes", passes, low=0)
    values = cut_levels(smooth(to_unit(images), sigma_px))
    for _ in range(passes):
        values = _take_neighbours(values, generator)
    return to_pixels(smooth(values, sigma_px), images)


def _take_neighbours(values: Tensor, generator: torch.Generator) -> Tensor:
    """Give each pixel its own colour or one from above and left, all four equally likely."""
    count, channels, height, width = values.shape
    shape = (2, count, height, width)
    up, left = torch.randint(2, shape, generator=check_generator(generator))
    for jump in (up, left):
        jump[:, :2] = 0
        jump[:, :, :2] = 0
    rows = torch.arange(height)[:, None] - up
    columns = torch.arange(width) - left
    index = (rows * width + columns).reshape(count, 1, height * width).expand(-1, channels, -1)
    return values.flatten(2).gather(2, index).reshape(values.shape)


def motion_blur(
    images: Tensor, *, radius_px: int, sigma_px: float, generator: torch.Generator
) -> Tensor:
    """Smear in one direction, as a camera that moves does.

    Each picture draws its own direction, evenly from -45° to 45° off the horizontal.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    radius_px : int
        The smear is ``2 * radius_px + 1`` pixels long, at least 0.
    sigma_px : float
        The weights along it fall off like half of a Gaussian of this standard deviation, above 0.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape, rounded (ImageMagick does not cut off). Beyond the edge the pixels of
        the edge go on.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    >>> generator = torch.Generator().manual_seed(0)
    >>> motion_blur(image, radius_px=6, sigma_px=1.0, generator=generator).shape
    torch.Size([3, 8, 8])
    """
    radius_px = check_int("radius_px", radius_px, low=0)
    sigma_px = check_number("sigma_px", sigma_px, low=1e-3)
    values = to_unit(images)
    limits = {"low": -_MAX_MOTION_DEG, "high": _MAX_MOTION_DEG}
    angle_deg = draw_uniform(len(values), **limits, generator=generator)
    values = blur_along(values, angle_deg, radius_px=radius_px, sigma_px=sigma_px)
    return to_pixels(values + 0.5 / 255, images)


def zoom_blur(images: Tensor, *, max_zoom: float, zoom_step: float = 0.01) -> Tensor:
    """Average the picture with enlarged copies of itself, as a camera that rushes forward does.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    max_zoom : float
        How much the largest copy is enlarged, from 1 to 10.
    zoom_step : float
        Copies are made for the zooms ``1, 1 + zoom_step, ...`` up to ``max_zoom``; 0.001 or more.

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
    >>> image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    >>> torch.equal(zoom_blur(image, max_zoom=1.0), image)
    True
    """
    max_zoom = check_number("max_zoom", max_zoom, low=1, high=10)
    zoom_step = check_number("zoom_step", zoom_step, low=0.001)
    values = to_unit(images)
    copies = math.floor((max_zoom - 1) / zoom_step + 1e-6) + 1
    total = values.clone()  # once as it is, and once more for zoom 1
    for step in range(copies):
        total += magnify(values, 1 + step * zoom_step)
    return to_pixels(total / (copies + 1), images)
