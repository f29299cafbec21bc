"""Scale and zero point: what it takes to turn numbers into codes.

A :class:`QParams` holds a step (``scale``), the code of 0.0 (``zero_point``), and the smallest and
largest code. Here they are found from a range (affine), from a bound on both sides (symmetric), or
as a power of two (fixed point): one pair for a whole tensor, or one for each slice along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rac_helpers._check import check_int
from rac_helpers.quantize.ranges import code_range

_SMALLEST_SCALE = 2.0**-126  # 1 / scale must be a finite float32, too


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale, zero point and range of the codes of one tensor.

    Parameters
    ----------
    scale : torch.Tensor
        float32, > 0 and finite; the distance of two neighbouring values. Shape ``()``, or ``(n,)``
        with ``axis``: one scale for each of the n slices along it.
    zero_point : torch.Tensor
        int32 of the same shape, the code of 0.0, in ``[qmin, qmax]``. It is an integer so that
        0.0 is represented exactly: padding and ReLU produce many zeros.
    qmin, qmax : int
        The smallest and the largest code, ``qmin < qmax``.
    axis : int, optional
        The dimension that has a scale for each slice. ``None``: one scale for all.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes or values are not as described.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 2.1.

    Examples
    --------
    >>> params = QParams(torch.tensor(0.5), torch.tensor(1, dtype=torch.int32), qmin=-8, qmax=7)
    >>> params.low, params.high  # the values of the smallest and the largest code
    (tensor(-4.5000), tensor(3.))
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    qmin: int
    qmax: int
    axis: int | None = None

    def __post_init__(self) -> None:
        check_int("qmin", self.qmin)
        check_int("qmax", self.qmax, low=self.qmin + 1)
        for name, dtype in {"scale": torch.float32, "zero_point": torch.int32}.items():
            value = getattr(self, name)
            if not isinstance(value, torch.Tensor) or value.dtype != dtype:
                got = value.dtype if isinstance(value, torch.Tensor) else repr(value)
                raise TypeError(f"{name} must be a tensor of {dtype}, got {got}")
            if value.ndim != (self.axis is not None):
                shape = "()" if self.axis is None else "(n,), one for each slice along axis"
                raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        if self.axis is not None:
            check_int("axis", self.axis)
        if self.scale.shape != self.zero_point.shape:
            shapes = f"{tuple(self.scale.shape)} and {tuple(self.zero_point.shape)}"
            raise ValueError(f"scale and zero_point must have the same shape, got {shapes}")
        if not bool((self.scale.isfinite() & (self.scale > 0)).all()):
            raise ValueError(f"scale must be finite and > 0, got {self.scale}")
        if not bool(((self.zero_point >= self.qmin) & (self.zero_point <= self.qmax)).all()):
            span = f"[{self.qmin}, {self.qmax}]"
            raise ValueError(f"zero_point must be in {span}, got {self.zero_point}")

    @property
    def low(self) -> torch.Tensor:
        """The smallest value that has a code; smaller ones are clamped to it."""
        return (self.qmin - self.zero_point) * self.scale

    @property
    def high(self) -> torch.Tensor:
        """The largest value that has a code; larger ones are clamped to it."""
        return (self.qmax - self.zero_point) * self.scale

    def along(self, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point, shaped to go with a tensor of ``ndim`` dimensions."""
        if self.axis is None:
            return self.scale, self.zero_point
        axis = check_int("axis", self.axis, low=-ndim, high=ndim - 1) % ndim
        shape = [-1 if d == axis else 1 for d in range(ndim)]
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def affine_params(
    low: torch.Tensor | float,
    high: torch.Tensor | float,
    bits: int = 8,
    *,
    signed: bool = True,
    axis: int | None = None,
) -> QParams:
    """Return parameters whose codes reach from ``low`` to ``high``.

    The range is first widened to hold 0. The zero point is rounded to an integer, which moves
    the range by up to half a step.

    Parameters
    ----------
    low, high : float or torch.Tensor
        Finite, ``low <= high``. With ``axis``: shape ``(n,)``.
    bits : int
        In [1, 16].
    signed : bool
        Codes around 0, or from 0 on.
    axis : int, optional
        See :class:`QParams`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Jacob et al., 2018, section 2.1 and 3. Krishnamoorthi, 2018. Quantizing deep convolutional
    networks for efficient inference, section 2.1.

    Examples
    --------
    >>> params = affine_params(-1.0, 1.0, bits=4)
    >>> round(params.scale.item(), 4), params.zero_point.item()  # 2 / 15
    (0.1333, -1)
    >>> params.low, params.high  # moved by half a step, so that 0 has a code
    (tensor(-0.9333), tensor(1.0667))
    """
    qmin, qmax = code_range(bits, signed=signed)
    low, high = (torch.as_tensor(v, dtype=torch.float32).detach() for v in (low, high))
    if not bool((low.isfinite() & high.isfinite() & (low <= high)).all()):
        raise ValueError(f"low and high must be finite with low <= high, got {low} and {high}")
    return QParams(*affine_grid(low, high, qmin, qmax), qmin, qmax, axis)


def symmetric_params(
    bound: torch.Tensor | float, bits: int = 8, *, axis: int | None = None
) -> QParams:
    """Return parameters for ``[-bound, bound]`` with zero point 0 and as many codes on both sides.

    Parameters
    ----------
    bound : float or torch.Tensor
        Finite, >= 0. With ``axis``: shape ``(n,)``.
    bits : int
        In [2, 16]; one code of 2^bits is given up (-128 for 8 bits).
    axis : int, optional
        See :class:`QParams`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Krishnamoorthi, 2018. Quantizing deep convolutional networks for efficient inference,
    section 2.2.

    Examples
    --------
    >>> params = symmetric_params(1.0, bits=4)
    >>> params.qmin, params.qmax, round(params.scale.item(), 4)  # 1 / 7
    (-7, 7, 0.1429)
    """
    qmin, qmax = code_range(bits, narrow=True)
    bound = torch.as_tensor(bound, dtype=torch.float32).detach()
    if not bool((bound.isfinite() & (bound >= 0)).all()):
        raise ValueError(f"bound must be finite and >= 0, got {bound}")
    return QParams(*symmetric_grid(bound, qmax), qmin, qmax, axis)


def fixed_point_params(bits: int, fraction_bits: int) -> QParams:
    """Return the parameters of fixed-point numbers: the scale is a power of two, 0 has the code 0.

    Parameters
    ----------
    bits : int
        All bits, with the sign; in [1, 16].
    fraction_bits : int
        Bits behind the binary point, in [-64, 64]: ``scale = 2 ** -fraction_bits``.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> params = fixed_point_params(8, 5)
    >>> params.low, params.high  # 3 bits before the point, one of them the sign
    (tensor(-4.), tensor(3.9688))
    """
    qmin, qmax = code_range(bits)
    check_int("fraction_bits", fraction_bits, low=-64, high=64)
    return QParams(
        torch.tensor(2.0**-fraction_bits), torch.tensor(0, dtype=torch.int32), qmin, qmax
    )


def affine_grid(
    low: torch.Tensor, high: torch.Tensor, qmin: int, qmax: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point of a range that is widened to hold 0; nothing is checked.

    Examples
    --------
    >>> affine_grid(torch.tensor(1.0), torch.tensor(3.0), 0, 3)  # from 0
    (tensor(1.), tensor(0, dtype=torch.int32))
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _positive(high / (qmax - qmin) - low / (qmax - qmin))  # high - low could overflow
    zero_point = (qmin - (low / scale).round()).clamp(qmin, qmax)
    return scale, zero_point.to(torch.int32)


def symmetric_grid(bound: torch.Tensor, qmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale that brings ``bound`` to ``qmax``, and zero points; nothing is checked.

    Examples
    --------
    >>> symmetric_grid(torch.tensor(3.5), 7)
    (tensor(0.5000), tensor(0, dtype=torch.int32))
    """
    scale = _positive(bound / qmax)
    return scale, torch.zeros_like(scale, dtype=torch.int32)


def _positive(scale: torch.Tensor) -> torch.Tensor:
    """Where all is zero any scale will do; where it is too small, the smallest will."""
    return torch.where(scale == 0, 1.0, scale.clamp(min=_SMALLEST_SCALE))
