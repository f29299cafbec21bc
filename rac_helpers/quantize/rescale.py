"""Multiply integers by a fraction, with integers only: a multiplier and a shift.

The product of two codes has the scale of the one times the scale of the other. To become a code
again it is multiplied by ``ratio = scale_in * scale_weight / scale_out``. A processor without
floats does it as with decimals on paper: times a whole number, then the point is moved.
"""

from __future__ import annotations

import torch

_MULTIPLIER_BITS = 31
_MAX_SHIFT = 62  # int64 has 63 bits beside the sign


def fixed_multiplier(ratio: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return integers so that ``ratio`` is nearly ``multiplier / 2 ** shift``.

    .. math:: ratio = m_0 \cdot 2^{-n}, \quad m_0 \in [1/2, 1), \quad
              multiplier = round(m_0 \cdot 2^{31})

    Parameters
    ----------
    ratio : float or torch.Tensor
        > 0 and < 2^29, any shape.

    Returns
    -------
    multiplier : torch.Tensor
        int32, from 2^30 to 2^31 - 1, so that the error is at most a part in 2^31. For a ratio
        below 2^-32 it is smaller, at last 0.
    shift : torch.Tensor
        uint8, from 1 to 62.

    Raises
    ------
    ValueError
        If a ratio is out of range.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 2.2.

    Examples
    --------
    >>> multiplier, shift = fixed_multiplier(0.3)
    >>> multiplier.item(), shift.item(), multiplier.item() / 2 ** shift.item()
    (1288490189, 32, 0.3000000000...)
    """
    ratio = torch.as_tensor(ratio, dtype=torch.float64).detach()
    if not bool((ratio.isfinite() & (ratio > 0) & (ratio < 2**29)).all()):
        raise ValueError(f"ratio must be > 0 and < 2 ** 29, got {ratio}")
    _, exponent = torch.frexp(ratio)
    shift = (_MULTIPLIER_BITS - exponent).clamp(max=_MAX_SHIFT)
    multiplier = torch.ldexp(ratio, shift).round()
    full = multiplier == 2**_MULTIPLIER_BITS  # 0.99... was rounded up to 1: one bit too many
    multiplier = torch.where(full, multiplier / 2, multiplier)
    return multiplier.to(torch.int32), (shift - full.to(shift.dtype)).to(torch.uint8)


def rescale(values: torch.Tensor, multiplier: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return ``round(values * multiplier / 2 ** shift)``; halves go up.

    Parameters
    ----------
    values : torch.Tensor
        int32. The product with the multiplier takes up to 62 bits, so it is an int64 for a moment.
    multiplier, shift : torch.Tensor
        As from :func:`fixed_multiplier`, of a shape that goes with ``values``.

    Returns
    -------
    torch.Tensor
        int64.

    Raises
    ------
    TypeError
        If ``values`` or ``multiplier`` are not int32.

    Examples
    --------
    >>> multiplier, shift = fixed_multiplier(0.25)
    >>> rescale(torch.tensor([7, 6, -6, -7], dtype=torch.int32), multiplier, shift)
    tensor([ 2,  2, -1, -2])
    """
    for name, tensor in {"values": values, "multiplier": multiplier}.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.int32:
            got = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of int32, got {got}")
    return shift_right(values.to(torch.int64) * multiplier, shift)


def shift_right(values: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return ``round(values / 2 ** shift)`` for int64 ``values``; halves go up.

    Examples
    --------
    >>> shift_right(torch.tensor([5, 6, -6]), torch.tensor(2))
    tensor([ 1,  2, -1])
    """
    half = torch.ones_like(values) << (shift.to(torch.int64) - 1)
    return (values + half) >> shift.to(torch.int64)
