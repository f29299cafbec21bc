"""Pictures of frozen windows, drawn here, because photographs belong to their makers."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from rac_helpers._check import check_int

_DRAWN_PX = 1024
# seed, darkest and brightest colour, crystals, their length as a share of the side, veil 0–1.
# The means are near those of the authors' five photographs.
_WINDOWS = (
    (1, (0, 85, 105), (170, 225, 240), 200, 0.30, 0.65),
    (2, (155, 160, 172), (255, 255, 255), 330, 0.30, 0.20),
    (3, (150, 150, 155), (255, 255, 255), 420, 0.24, 0.20),
    (4, (55, 70, 90), (255, 255, 255), 400, 0.22, 0.40),
    (5, (25, 35, 50), (255, 255, 255), 300, 0.26, 0.20),
)


@functools.lru_cache(maxsize=2)
def frost_pictures(side_px: int) -> Tensor:
    """Return five pictures of frost on a window: the same ones each time.

    Crystals like feathers grow at random places: a stem, branches at 60° on both sides, and twigs
    on these. A veil of smooth noise at several scales lies behind them. The seeds are fixed, and
    the pictures are drawn once.

    Parameters
    ----------
    side_px : int
        Side of the square pictures, 4–8192. They are drawn at 1024 px and resized.

    Returns
    -------
    Tensor
        uint8, shape ``(5, 3, side_px, side_px)``. Do not write to it: it is kept for later calls.

    Raises
    ------
    TypeError, ValueError
        If ``side_px`` is out of range.

    Examples
    --------
    >>> frost_pictures(128).shape
    torch.Size([5, 3, 128, 128])
    """
    side_px = check_int("side_px", side_px, low=4, high=8192)
    size = (side_px, side_px)
    resized = F.interpolate(_drawn().float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp_(0, 255).to(torch.uint8)


@functools.cache
def _drawn() -> Tensor:
    """Draw all windows at full size: uint8 ``(5, 3, side, side)``."""
    windows = []
    for seed, dark, bright, crystals, length_share, veil in _WINDOWS:
        rng = np.random.default_rng(seed)
        ice = (1 - veil) * _crystals(rng, crystals, length_share) + veil * _veil(rng)
        ice = torch.from_numpy(np.clip(ice, 0, 1)).float()
        low, high = (torch.tensor(color).view(3, 1, 1) for color in (dark, bright))
        windows.append((low + (high - low) * ice).to(torch.uint8))
    return torch.stack(windows)


def _veil(rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise 0–1: coarse blots with finer ones on them."""
    total = np.zeros((_DRAWN_PX, _DRAWN_PX))
    for power in range(2, 9):
        cells = rng.random((2**power, 2**power)).astype(np.float32)
        layer = Image.fromarray(cells).resize(total.shape, Image.Resampling.BICUBIC)
        total += np.asarray(layer) * 0.6**power
    total -= total.min()
    return total / total.max()


def _crystals(rng: np.random.Generator, count: int, length_share: float) -> np.ndarray:
    """Draw feathers of ice on black: values 0–1."""
    canvas = Image.new("L", (_DRAWN_PX, _DRAWN_PX))
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        angle, length_px = rng.uniform(0, math.tau), rng.uniform(0.3, 1) * length_share * _DRAWN_PX
        lines = np.array([[*rng.uniform(0, _DRAWN_PX, 2), angle, length_px]])  # x, y, angle, length
        light = rng.uniform(0.3, 1)
        for width_px, gap_px in ((6, 13), (5, 11), (5, 0)):  # stem, branches, twigs
            x, y, angles, lengths = lines.T
            ends = np.stack([x, y, x + lengths * np.cos(angles), y + lengths * np.sin(angles)], 1)
            for end, shade in zip(ends.tolist(), rng.uniform(0.5, 1, len(ends)), strict=True):
                pen.line(end, fill=int(255 * light * shade), width=width_px)
            lines = _sprout(rng, lines, gap_px) if gap_px else lines
    return np.asarray(canvas) / 255


def _sprout(rng: np.random.Generator, lines: np.ndarray, gap_px: int) -> np.ndarray:
    """Return the side branches of each line, longest near its root, on both sides."""
    sprouts = [np.empty((0, 4))]
    for x, y, angle, length_px in lines:
        along = np.arange(gap_px, length_px, gap_px)[:, None]
        turn = np.array([-1.0, 1.0]) * np.deg2rad(rng.normal(60, 4, (len(along), 2)))
        size = 0.35 * (length_px - along) * rng.uniform(0.5, 1, (len(along), 2))
        root_x, root_y = x + along * math.cos(angle), y + along * math.sin(angle)
        parts = np.broadcast_arrays(root_x, root_y, angle + turn, size)
        sprouts.append(np.stack(parts, -1).reshape(-1, 4))
    return np.concatenate(sprouts)
