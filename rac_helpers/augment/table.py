"""The level table: what a magnitude means for each of the 14 operations.

References
----------
.. [1] E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical automated data
   augmentation with a reduced search space", arXiv:1909.13719, figure 2 (the operations).
.. [2] E. D. Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data",
   arXiv:1805.09501 (their ranges).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rac_helpers import ops as image_ops
from rac_helpers._check import check_int

NUM_MAGNITUDE_BINS = 31


@dataclass(frozen=True)
class Level:
    """What a magnitude means for one operation.

    Parameters
    ----------
    apply : callable
        The operation, from :mod:`rac_helpers.ops`.
    unit : str
        Name of its amount, for example ``"angle_deg"``; empty if it has none.
    low, high : float
        Amount at magnitude 0 and at the last bin, before ``center`` and ``scale``; for
        ``shift_px`` a share of the image's side.
    signed : bool
        Whether the amount's direction is drawn, each with probability one half.
    center : float
        Added to the signed amount: 1 for factors, so that they lie around "unchanged".
    scale : float
        Multiplies the amount: 255 for thresholds, which torchvision keeps as shares of white.
    """

    apply: Callable[..., Tensor]
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    center: float = 0.0
    scale: float = 1.0


LEVELS: dict[str, Level] = {
    "Identity": Level(image_ops.identity),
    "ShearX": Level(image_ops.shear_x, "slope", 0.0, 0.3, signed=True),
    "ShearY": Level(image_ops.shear_y, "slope", 0.0, 0.3, signed=True),
    "TranslateX": Level(image_ops.translate_x, "shift_px", 0.0, 150.0 / 331.0, signed=True),
    "TranslateY": Level(image_ops.translate_y, "shift_px", 0.0, 150.0 / 331.0, signed=True),
    "Rotate": Level(image_ops.rotate, "angle_deg", 0.0, 30.0, signed=True),
    "Brightness": Level(image_ops.brightness, "factor", 0.0, 0.9, signed=True, center=1.0),
    "Color": Level(image_ops.color, "factor", 0.0, 0.9, signed=True, center=1.0),
    "Contrast": Level(image_ops.contrast, "factor", 0.0, 0.9, signed=True, center=1.0),
    "Sharpness": Level(image_ops.sharpness, "factor", 0.0, 0.9, signed=True, center=1.0),
    "Posterize": Level(image_ops.posterize, "bits", 8.0, 4.0),
    "Solarize": Level(image_ops.solarize, "threshold", 1.0, 0.0, scale=255.0),
    "AutoContrast": Level(image_ops.auto_contrast),
    "Equalize": Level(image_ops.equalize),
}
OPS: tuple[str, ...] = tuple(LEVELS)


@dataclass(frozen=True)
class Op:
    """One drawn operation: its name, its magnitude and its direction.

    Parameters
    ----------
    name : str
        One of :data:`OPS`.
    magnitude : int
        Bin from 0 to ``num_magnitude_bins - 1``.
    sign : int
        1 or -1; ignored by operations without direction.
    num_magnitude_bins : int
        At least 2.

    Raises
    ------
    TypeError, ValueError
        If a value is outside these ranges.

    Examples
    --------
    >>> Op("Rotate", magnitude=9, sign=-1).amount(height=32, width=32)
    -9.0
    """

    name: str
    magnitude: int
    sign: int = 1
    num_magnitude_bins: int = NUM_MAGNITUDE_BINS

    def __post_init__(self) -> None:
        check_ops((self.name,))
        check_magnitude(self.magnitude, self.num_magnitude_bins)
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1 or -1, got {self.sign!r}")

    def amount(self, *, height: int, width: int) -> float | int | None:
        """Return the amount in the operation's unit on an image of this size, or None."""
        return _amount(self, height, width)

    def describe(self, *, height: int, width: int) -> str:
        """Say in words what the operation does on an image of this size.

        Examples
        --------
        >>> Op("Rotate", magnitude=9, sign=-1).describe(height=32, width=32)
        'Rotate by -9°'
        >>> Op("Posterize", magnitude=9).describe(height=32, width=32)
        'Posterize to 7 bits'
        """
        amount = self.amount(height=height, width=width)
        if amount is None:
            return self.name
        if LEVELS[self.name].unit == "shift_px":
            amount = int(amount)
        return self.name + _WORDS[LEVELS[self.name].unit].format(round(amount, 2))


@functools.lru_cache(maxsize=4096)
def _amount(op: Op, height: int, width: int) -> float | int | None:
    level = LEVELS[op.name]
    if not level.unit:
        return None
    if level.unit == "bits":
        step = (op.num_magnitude_bins - 1) / (level.low - level.high)
        return round(level.low - op.magnitude / step)
    side = {"TranslateX": width, "TranslateY": height}.get(op.name, 1)
    bins = torch.linspace(level.low, level.high * side, op.num_magnitude_bins)
    amount = level.scale * float(bins[op.magnitude])  # float32 steps, as in torchvision
    return level.center + (op.sign * amount if level.signed else amount)


_WORDS = {
    "slope": " by {:+g} px per px",
    "shift_px": " by {:+d} px",
    "angle_deg": " by {:+g}°",
    "factor": " × {:g}",
    "bits": " to {} bits",
    "threshold": " from {:g} up",
}


def check_ops(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of operations as a tuple, or raise ``ValueError`` for an unknown one."""
    unknown = [name for name in names if name not in LEVELS]
    if unknown or not names:
        raise ValueError(f"ops must be one or more of {', '.join(OPS)}, got {list(names)}")
    return tuple(names)


def check_magnitude(magnitude: int, num_magnitude_bins: int) -> int:
    """Return the magnitude, or raise if it is no bin of the scale.

    Examples
    --------
    >>> check_magnitude(31, 31)
    Traceback (most recent call last):
    ValueError: magnitude must be an integer in [0, 30], got 31
    """
    check_int("num_magnitude_bins", num_magnitude_bins, low=2)
    return check_int("magnitude", magnitude, low=0, high=num_magnitude_bins - 1)
