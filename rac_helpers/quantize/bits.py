"""Codes of a few bits, packed so that they take no more than these bits.

The smallest number a computer addresses has 8 bits; two codes of 4 bits share it. What is packed
counts from 0: subtract ``qmin`` from codes first.
"""

from __future__ import annotations

import torch

from rac_helpers._check import check_int


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the bits of all codes, one code after the other, as bytes.

    The lowest bit of a code comes first, in the lowest free bit of the byte; what is left of the
    last byte is 0.

    Parameters
    ----------
    codes : torch.Tensor
        Integers in ``[0, 2 ** bits - 1]``, any shape, taken row by row.
    bits : int
        In [1, 16].

    Returns
    -------
    torch.Tensor
        uint8, shape ``(ceil(number of codes * bits / 8),)``.

    Raises
    ------
    TypeError, ValueError
        If ``codes`` are no integers or out of range, or if ``bits`` is.

    Examples
    --------
    >>> pack_bits(torch.tensor([1, 2, 15]), bits=4)  # 1 + 2 * 16, then 15
    tensor([33, 15], dtype=torch.uint8)
    """
    check_int("bits", bits, low=1, high=16)
    check_codes(codes, high=2**bits - 1)
    flat = codes.detach().flatten().to(torch.int32)
    single = (flat[:, None] >> _places(bits, flat)).bitwise_and_(1).flatten()  # (count * bits,)
    single = torch.nn.functional.pad(single, (0, -len(single) % 8))
    return (single.reshape(-1, 8) << _places(8, flat)).sum(dim=1).to(torch.uint8)


def unpack_bits(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return the codes that :func:`pack_bits` has packed.

    Parameters
    ----------
    packed : torch.Tensor
        uint8, shape ``(ceil(count * bits / 8),)``.
    bits : int
        In [1, 16], as when they were packed.
    count : int
        Number of codes, at least 0.

    Returns
    -------
    torch.Tensor
        int32, shape ``(count,)``, in ``[0, 2 ** bits - 1]``.

    Raises
    ------
    TypeError, ValueError
        If ``packed`` is no uint8 tensor of this shape, or a number is out of range.

    Examples
    --------
    >>> unpack_bits(torch.tensor([33, 15], dtype=torch.uint8), bits=4, count=3)
    tensor([ 1,  2, 15], dtype=torch.int32)
    """
    check_int("bits", bits, low=1, high=16)
    check_int("count", count, low=0)
    if not isinstance(packed, torch.Tensor) or packed.dtype != torch.uint8:
        got = packed.dtype if isinstance(packed, torch.Tensor) else type(packed).__name__
        raise TypeError(f"packed must be a uint8 tensor, got {got}")
    shape = (-(-count * bits // 8),)
    if packed.shape != shape:
        raise ValueError(
            f"packed must have shape {shape} for {count} codes of {bits} bits, "
            f"got {tuple(packed.shape)}"
        )
    if bits == 8:
        return packed.to(torch.int32)
    single = (packed[:, None] >> _places(8, packed)).bitwise_and_(1).flatten()
    single = single[: count * bits].reshape(count, bits).to(torch.int32)
    return (single << _places(bits, single)).sum(dim=1, dtype=torch.int32)


def check_codes(codes: torch.Tensor, *, high: int) -> torch.Tensor:
    """Return ``codes`` if it is a tensor of integers in ``[0, high]``, else raise.

    Examples
    --------
    >>> check_codes(torch.tensor([1, 16]), high=15)
    Traceback (most recent call last):
    ValueError: codes must be in [0, 15], got [1, 16]
    """
    check_integers(codes)
    if codes.numel():
        lowest, highest = int(codes.min()), int(codes.max())
        if lowest < 0 or highest > high:
            raise ValueError(f"codes must be in [0, {high}], got [{lowest}, {highest}]")
    return codes


def check_integers(codes: torch.Tensor) -> torch.Tensor:
    """Return ``codes`` if it is a tensor of integers, else raise.

    Examples
    --------
    >>> check_integers(torch.tensor([1.0]))
    Traceback (most recent call last):
    TypeError: codes must be a tensor of integers, got torch.float32
    """
    kind = codes.dtype if isinstance(codes, torch.Tensor) else None
    if kind is None or kind == torch.bool or kind.is_floating_point or kind.is_complex:
        got = type(codes).__name__ if kind is None else kind
        raise TypeError(f"codes must be a tensor of integers, got {got}")
    return codes


def _places(bits: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(bits, dtype=like.dtype, device=like.device)
