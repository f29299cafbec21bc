"""Which codes there are, and from where to where the values of a tensor reach."""

from __future__ import annotations

import torch

from rac_helpers._check import check_floats, check_int


def code_range(bits: int, *, signed: bool = True, narrow: bool = False) -> tuple[int, int]:
    """Return the smallest and the largest code of ``bits`` bits: 2^bits codes.

    Parameters
    ----------
    bits : int
        In [1, 16].
    signed : bool
        From -2^(bits-1) to 2^(bits-1) - 1, or from 0 to 2^bits - 1.
    narrow : bool
        Leave out the smallest signed code, so that the range is the same on both sides.

    Raises
    ------
    TypeError, ValueError
        If ``bits`` is out of range, or ``narrow`` leaves nothing (1 bit) or is not signed.

    Examples
    --------
    >>> code_range(8), code_range(8, signed=False), code_range(4, narrow=True)
    ((-128, 127), (0, 255), (-7, 7))
    """
    check_int("bits", bits, low=1, high=16)
    if not signed:
        if narrow:
            raise ValueError("narrow must be False where signed is False")
        return 0, 2**bits - 1
    if narrow and bits == 1:
        raise ValueError("bits must be in [2, 16] where narrow is True, got 1")
    return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1


def value_range(
    values: torch.Tensor, *, axis: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest value, of the whole tensor or of each slice of ``axis``.

    Raises
    ------
    TypeError, ValueError
        If ``values`` holds no floats, is empty, or not finite, or if it has no such axis.

    Examples
    --------
    >>> value_range(torch.tensor([[1.0, -2.0], [0.5, 4.0]]), axis=0)
    (tensor([-2.0000,  0.5000]), tensor([1., 4.]))
    """
    check_values("values", values)
    if axis is not None:
        check_int("axis", axis, low=-values.ndim, high=values.ndim - 1)
    return extremes(values, axis)


def extremes(values: torch.Tensor, axis: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`value_range` does, without a check.

    Examples
    --------
    >>> extremes(torch.tensor([1.0, -2.0]), None)
    (tensor(-2.), tensor(1.))
    """
    if axis is None:
        return values.amin(), values.amax()
    slices = values.movedim(axis, 0).reshape(values.shape[axis], -1)
    return slices.amin(dim=1), slices.amax(dim=1)


def split_groups(weights: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return the weights as rows of ``group_size``: each row can have a scale of its own.

    Parameters
    ----------
    weights : torch.Tensor
        Shape ``(out, ...)``; a group never reaches from one output channel into the next.
    group_size : int
        A divisor of the number of weights of an output channel.

    Returns
    -------
    torch.Tensor
        Shape ``(number of groups, group_size)``; ``reshape(weights.shape)`` brings it back.

    Raises
    ------
    TypeError, ValueError
        If ``group_size`` is no such divisor.

    Examples
    --------
    >>> split_groups(torch.arange(8.0).reshape(2, 4), 2)
    tensor([[0., 1.],
            [2., 3.],
            [4., 5.],
            [6., 7.]])
    """
    check_values("weights", weights)
    row = weights.numel() // len(weights) if weights.ndim else 1
    if row % check_int("group_size", group_size, low=1):
        raise ValueError(f"group_size must divide the {row} weights of a channel, got {group_size}")
    return weights.reshape(-1, group_size)


def check_values(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return ``values`` if it is a tensor of finite floats with at least one, else raise.

    Examples
    --------
    >>> check_values("values", torch.tensor([1.0, float("nan")]))
    Traceback (most recent call last):
    ValueError: values must be finite, got 1 of 2 that are not
    """
    check_floats(name, values)
    if values.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(values.shape)}")
    wrong = values.numel() - int(values.isfinite().sum())
    if wrong:
        raise ValueError(f"{name} must be finite, got {wrong} of {values.numel()} that are not")
    return values
