"""Spatter: drops of water, or blots of mud, on the lens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rac_helpers._check import check_number
from rac_helpers.corrupt._pixels import draw_normal, smooth, to_pixels, to_unit

_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)  # brown
_FAR_PX = 20
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # lit from the bottom right
# steps (down, right) and their lengths: straight, diagonal, a knight's move
_STEPS = {
    (down, right): {1: 1.0, 2: 1.4, 5: 2.1969}[down**2 + right**2]
    for down in range(-2, 3)
    for right in range(-2, 3)
    if down**2 + right**2 in (1, 2, 5)
}
_FLAT_DEG, _STEEP_DEG = 22.5, 67.5


def spatter(images: Tensor, *, generator: torch.Generator, **constants: float) -> Tensor:
    """Put drops of water or blots of mud on the lens, as the constants say.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    generator : torch.Generator
        Source of all draws.
    **constants : float
        Those of :func:`spatter_mud` if ``edge_sigma_px`` is among them (severities 4 and 5), else
        those of :func:`spatter_water`.

    Returns
    -------
    Tensor
        uint8, same shape.
    """
    put = spatter_mud if "edge_sigma_px" in constants else spatter_water
    return put(images, **constants, generator=generator)


def spatter_water(
    images: Tensor,
    *,
    mean: float,
    std: float,
    sigma_px: float,
    threshold: float,
    opacity: float,
    generator: torch.Generator,
) -> Tensor:
    """Put drops of water on the lens: pale turquoise, with a relief.

    The drops are the high spots of smoothed noise. How far a pixel lies from the nearest edge of a
    drop makes the relief. Each picture draws its own drops.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    mean, std : float
        Of the normal noise, before it is smoothed.
    sigma_px : float
        Standard deviation of the smoothing in pixels, at least 0.
    threshold : float
        Smoothed noise below it stays dry.
    opacity : float
        Weight of the water where it is thickest, 0–1.
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
    >>> from rac_helpers.corrupt import SEVERITIES
    >>> night = torch.zeros(3, 32, 32, dtype=torch.uint8)
    >>> generator = torch.Generator().manual_seed(0)
    >>> wet = spatter_water(night, **SEVERITIES["spatter"][0], generator=generator)
    >>> wet.amax((1, 2)).tolist()
    [87, 119, 119]
    """
    opacity = check_number("opacity", opacity, low=0, high=1)
    values = to_unit(images)
    liquid = _liquid(values, mean, std, sigma_px=sigma_px, generator=generator)
    liquid = liquid.masked_fill(liquid < check_number("threshold", threshold), 0)
    # 256 wraps round to 0, as in the authors' script: thick drops of severity 3 can have a hole
    levels = ((liquid * 255).int() & 255).to(torch.uint8).numpy()
    water = torch.from_numpy(levels * _relief(levels)).float()[:, None]  # (n, 1, H, W)
    water *= opacity / water.amax((2, 3), keepdim=True).clamp(min=1e-6)
    return to_pixels(values + water * _color(_WATER), images)


def spatter_mud(
    images: Tensor,
    *,
    mean: float,
    std: float,
    sigma_px: float,
    threshold: float,
    edge_sigma_px: float,
    generator: torch.Generator,
) -> Tensor:
    """Put blots of brown mud on the lens; they hide what is behind them.

    The blots are the high spots of smoothed noise. Each picture draws its own.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    mean, std : float
        Of the normal noise, before it is smoothed.
    sigma_px : float
        Standard deviation of the smoothing in pixels, at least 0.
    threshold : float
        Smoothed noise above it is mud.
    edge_sigma_px : float
        The blots are smoothed by this standard deviation in pixels; what is then thinner than 0.8
        is taken away. At least 0.
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
    >>> from rac_helpers.corrupt import SEVERITIES
    >>> white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    >>> generator = torch.Generator().manual_seed(0)
    >>> dirty = spatter_mud(white, **SEVERITIES["spatter"][4], generator=generator)
    >>> bool(dirty.float().mean() < 255)
    True
    """
    edge_sigma_px = check_number("edge_sigma_px", edge_sigma_px, low=0)
    values = to_unit(images)
    liquid = _liquid(values, mean, std, sigma_px=sigma_px, generator=generator)
    mud = (liquid > check_number("threshold", threshold)).float()
    mud = smooth(mud, edge_sigma_px)[:, None]  # (n, 1, H, W)
    mud = mud.masked_fill(mud < 0.8, 0)
    return to_pixels(values * (1 - mud) + mud * _color(_MUD), images)


def _liquid(
    values: Tensor, mean: float, std: float, *, sigma_px: float, generator: torch.Generator
) -> Tensor:
    """Draw smoothed noise of shape ``(n, H, W)``."""
    mean, std = check_number("mean", mean), check_number("std", std, low=0)
    noise = draw_normal(len(values), *values.shape[-2:], generator=generator)
    return smooth(mean + std * noise, check_number("sigma_px", sigma_px, low=0))


def _color(levels: tuple[int, int, int]) -> Tensor:
    return torch.tensor(levels).view(3, 1, 1) / 255


def _relief(liquid: np.ndarray) -> np.ndarray:
    """Return the light on drops of ``(n, H, W)`` uint8, whole numbers 0–255 as float.

    The steps and their roundings are those of the OpenCV calls in the authors' script.
    """
    from scipy.ndimage import correlate, uniform_filter

    distance = uniform_filter(_distance(_edges(liquid)), (0, 3, 3), mode="mirror")
    level = _equalize((distance + 1e-4).astype(np.uint8))  # a float just below 20 is 20
    lit = correlate(level, _RELIEF[None], output=np.int32, mode="mirror").clip(0, 255)
    return uniform_filter(lit.astype(np.float64), (0, 3, 3), mode="mirror").round()


def _distance(edges: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to the nearest edge in its picture, at most 20.

    It is the length of the shortest way there in steps to a neighbour, along a diagonal, or as
    a knight moves in chess, counted as OpenCV does: 2 % off the true distance at most.
    """
    height, width = edges.shape[1:]
    distance = np.where(edges, 0.0, _FAR_PX)
    while True:
        before = distance.copy()
        wide = np.pad(before, ((0, 0), (2, 2), (2, 2)), constant_values=_FAR_PX)
        for (down, right), length in _STEPS.items():
            from_there = wide[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width]
            np.minimum(distance, from_there + length, out=distance)
        if np.array_equal(before, distance):
            return distance


def _equalize(levels: np.ndarray) -> np.ndarray:
    """Spread the levels of each picture over 0–255 so that all are used about equally often."""
    count, height, width = levels.shape
    flat = levels.reshape(count, height * width).astype(np.int64)
    size = _FAR_PX + 1
    histogram = np.zeros((count, size), dtype=np.int64)
    np.add.at(histogram, (np.arange(count)[:, None], flat), 1)
    lowest = np.take_along_axis(histogram, flat.min(1, keepdims=True), 1)
    step = np.float32(255) / np.maximum(flat.shape[1] - lowest, 1).astype(np.float32)
    table = np.round((histogram.cumsum(1) - lowest).astype(np.float32) * step)
    table = np.where(lowest == flat.shape[1], np.arange(size), table)  # one level: stays
    return np.take_along_axis(table, flat, 1).clip(0, 255).astype(np.uint8).reshape(levels.shape)


def _edges(pictures: np.ndarray, *, weak: int = 50, strong: int = 150) -> np.ndarray:
    """Mark the edges in ``(n, H, W)`` uint8 by Canny's method: bool, same shape.

    A pixel is an edge if its slope is larger than that of both neighbours along the slope, above
    ``weak``, and joined to one above ``strong``.
    """
    from scipy.ndimage import label

    right, down = _slopes(pictures.astype(np.int32))
    slope = np.abs(right) + np.abs(down)
    thin = _is_ridge(slope, right, down) & (slope > weak)
    touching = np.zeros((3, 3, 3))  # neighbours in the same picture, diagonal ones too
    touching[1] = 1
    joined, count = label(thin, structure=touching)
    kept = np.zeros(count + 1, dtype=bool)
    kept[joined[thin & (slope > strong)]] = True
    return kept[joined]


def _slopes(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Sobel's slopes to the right and down."""
    wide = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    right, down = wide[:, :, 2:] - wide[:, :, :-2], wide[:, 2:] - wide[:, :-2]
    right = right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return right, down


def _is_ridge(slope: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Mark where the slope is larger than before and after it, in its own direction.

    Directions are rounded to eighths of a turn. Of two equal ones in a row or column the first
    counts; on a diagonal neither does.
    """
    height, width = slope.shape[1:]
    wide = np.pad(slope, ((0, 0), (1, 1), (1, 1)))

    def near(rows: int, columns: int) -> np.ndarray:
        return wide[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    flat = np.abs(down) < np.abs(right) * np.tan(np.deg2rad(_FLAT_DEG))
    steep = np.abs(down) > np.abs(right) * np.tan(np.deg2rad(_STEEP_DEG))
    across = (slope > near(0, -1)) & (slope >= near(0, 1))
    along = (slope > near(-1, 0)) & (slope >= near(1, 0))
    falling = (slope > near(-1, -1)) & (slope > near(1, 1))
    rising = (slope > near(-1, 1)) & (slope > near(1, -1))
    diagonal = np.where((right ^ down) < 0, rising, falling)
    return np.where(flat, across, np.where(steep, along, diagonal))
