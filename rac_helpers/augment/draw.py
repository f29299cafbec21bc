"""Draw, then apply: random numbers in one function, pixels in the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rac_helpers._check import check_images, check_int
from rac_helpers.augment.table import (
    LEVELS,
    NUM_MAGNITUDE_BINS,
    OPS,
    Op,
    check_magnitude,
    check_ops,
)


def draw_ops(
    num_ops: int,
    magnitude: int,
    *,
    generator: torch.Generator,
    num_magnitude_bins: int = NUM_MAGNITUDE_BINS,
    ops: Sequence[str] = OPS,
    replacement: bool = True,
    uniform_magnitude: bool = False,
) -> list[Op]:
    """Draw the operations for one image.

    Parameters
    ----------
    num_ops : int
        N: how many operations to draw, at least 0.
    magnitude : int
        M: bin from 0 to ``num_magnitude_bins - 1``.
    generator : torch.Generator
        Source of all draws.
    num_magnitude_bins : int
        Number of bins of the scale; 31 makes magnitude 9 a rotation by 9 degrees.
    ops : sequence of str
        Operations to draw from, all equally likely.
    replacement : bool
        True, as published: an operation can come twice. False: all are different.
    uniform_magnitude : bool
        False, as published: all operations have magnitude M. True: each draws its own from
        0, 1, ..., M, all equally likely (mean M / 2).

    Returns
    -------
    list of Op
        ``num_ops`` operations, in the order in which they are to be applied.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range, or if there are fewer than ``num_ops`` operations
        to draw without replacement.

    Notes
    -----
    With the default settings the draws come in torchvision's order: a generator seeded like the
    global one draws the operations that ``torchvision.transforms.v2.RandAugment`` applies.

    References
    ----------
    Cubuk et al., arXiv:1909.13719, figure 2; random magnitudes: table 7.

    Examples
    --------
    >>> [op.name for op in draw_ops(2, 9, generator=torch.Generator().manual_seed(0))]
    ['TranslateY', 'Color']
    """
    check_int("num_ops", num_ops, low=0)
    check_magnitude(magnitude, num_magnitude_bins)
    names = check_ops(ops)
    if replacement:
        chosen = None
    else:
        check_int("num_ops (without replacement)", num_ops, low=0, high=len(names))
        chosen = torch.randperm(len(names), generator=generator).tolist()
    drawn = []
    for position in range(num_ops):
        index = chosen[position] if chosen else _draw_int(len(names), generator)
        level = _draw_int(magnitude + 1, generator) if uniform_magnitude else magnitude
        negative = LEVELS[names[index]].signed and torch.rand((), generator=generator) <= 0.5
        drawn.append(Op(names[index], level, -1 if negative else 1, num_magnitude_bins))
    return drawn


def apply_op(image: Tensor, op: Op) -> Tensor:
    """Apply one drawn operation.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    op : Op
        From :func:`draw_ops`, or made by hand.

    Returns
    -------
    Tensor
        uint8, same shape; the input is not changed.

    Raises
    ------
    TypeError, ValueError
        If ``image`` is no uint8 tensor with three channels.

    Examples
    --------
    >>> image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    >>> apply_op(image, Op("Solarize", magnitude=15))[0, 0].tolist()
    [55, 55, 55, 55]
    """
    height, width = check_images("image", image).shape[-2:]
    amount = op.amount(height=height, width=width)
    apply = LEVELS[op.name].apply
    return apply(image) if amount is None else apply(image, amount)


def apply_ops(image: Tensor, ops: Sequence[Op]) -> Tensor:
    """Apply drawn operations one after the other.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    ops : sequence of Op
        From :func:`draw_ops`; none leave the image as it is.

    Returns
    -------
    Tensor
        uint8, same shape; the input is not changed.

    Examples
    --------
    >>> image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    >>> apply_ops(image, [Op("Solarize", 15), Op("Posterize", 30)])[0, 0].tolist()
    [48, 48, 48, 48]
    """
    image = check_images("image", image)
    for op in ops:
        image = apply_op(image, op)
    return image


def _draw_int(stop: int, generator: torch.Generator) -> int:
    return int(torch.randint(stop, (), generator=generator))
