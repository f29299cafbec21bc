"""Weights as packed codes, in three forms; call one to get the float weight back.

:class:`AffineWeight` has a scale (and a zero point) for the whole weight, for each output channel,
or for each group; ternary weights are its codes -1, 0, 1. :class:`CodebookWeight` has a list of
values, :class:`SignWeight` a sign for each weight and a factor for each channel (binary weights).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.quantize.bits import check_codes, check_integers, pack_bits, unpack_bits
from rac_helpers.quantize.codes import code_dtype
from rac_helpers.quantize.params import QParams
from rac_helpers.quantize.ranges import check_values


class PackedWeight(nn.Module):
    """What the three forms have in common: the buffer ``codes`` of packed bits, and a shape.

    ``about`` says in plain numbers and texts what the buffers do not say; ``blank(about)`` of the
    class makes an object with buffers of the right sizes, to load a file into.
    """

    def __init__(self, codes: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.shape, self.bits = tuple(codes.shape), bits
        self.register_buffer("codes", pack_bits(codes, bits))

    @property
    def unpacked(self) -> torch.Tensor:
        """The codes from 0 on, int32, flat."""
        return unpack_bits(self.codes, self.bits, math.prod(self.shape))

    @property
    def bits_per_weight(self) -> float:
        """Bits of all buffers, scales and codebook included, for each weight."""
        size_bits = sum(8 * value.nbytes for value in self.buffers())
        return size_bits / math.prod(self.shape)

    def extra_repr(self) -> str:
        """Say which shape, and how many bits a code has."""
        return f"{'x'.join(map(str, self.shape))}, {self.bits} bits"


class AffineWeight(PackedWeight):
    """A weight whose codes are ``value / scale + zero_point``.

    Parameters
    ----------
    codes : torch.Tensor
        Integers in ``[qmin, qmax]``, in the shape of the weight, ``(out, ...)``.
    params : QParams
        ``axis=None``: one scale for all. ``axis=0``: a scale for each of ``out`` channels, or for
        each row of :func:`~rac_helpers.quantize.split_groups`.

    Raises
    ------
    TypeError, ValueError
        If ``codes`` are out of range or ``params`` do not fit their shape.

    Examples
    --------
    >>> from rac_helpers.quantize import quantize, symmetric_params
    >>> weight = torch.tensor([[0.5, -1.0], [0.0, 0.25]])
    >>> params = symmetric_params(torch.tensor([1.0, 0.25]), bits=2, axis=0)
    >>> packed = AffineWeight(quantize(weight, params), params)
    >>> packed()
    tensor([[ 0.0000, -1.0000],
            [ 0.0000,  0.2500]])
    >>> packed.codes.numel()  # four codes of 2 bits
    1
    """

    def __init__(self, codes: torch.Tensor, params: QParams) -> None:
        fit_params(params, check_integers(codes))
        inside = check_codes(codes.to(torch.int32) - params.qmin, high=params.qmax - params.qmin)
        super().__init__(inside, (params.qmax - params.qmin).bit_length())
        self.qmin, self.qmax = params.qmin, params.qmax
        self.register_buffer("scale", params.scale.detach().clone())
        zero_point = params.zero_point.to(code_dtype(params)) if params.zero_point.any() else None
        self.register_buffer("zero_point", zero_point)  # None: all 0, nothing is stored

    def forward(self) -> torch.Tensor:
        """Return the float32 weight."""
        codes = (self.unpacked + self.qmin).reshape(self.scale.numel(), -1)
        if self.zero_point is not None:
            codes = codes - self.zero_point.to(torch.int32).reshape(-1, 1)
        return (codes * self.scale.reshape(-1, 1)).reshape(self.shape)

    @property
    def about(self) -> dict[str, Any]:
        """What a file has to say beside the buffers."""
        return {
            "form": "affine",
            "shape": list(self.shape),
            "qmin": self.qmin,
            "qmax": self.qmax,
            "scales": list(self.scale.shape),
            "zeros": self.zero_point is not None,
        }

    @classmethod
    def blank(cls, about: dict[str, Any]) -> AffineWeight:
        """Return a weight of this form, with the smallest code everywhere."""
        qmin, qmax = about["qmin"], about["qmax"]
        # any zero point other than 0 will do: it makes the buffer that the file is loaded into
        zero_point = (qmin or qmax) if about["zeros"] else min(max(0, qmin), qmax)
        scale = torch.ones(about["scales"])
        zero_point = torch.full_like(scale, zero_point, dtype=torch.int32)
        axis = 0 if about["scales"] else None
        params = QParams(scale, zero_point, qmin, qmax, axis)
        return cls(torch.full(about["shape"], qmin, dtype=torch.int32), params)


class CodebookWeight(PackedWeight):
    """A weight that is, everywhere, one of a few values.

    Parameters
    ----------
    indices : torch.Tensor
        Integers in ``[0, k - 1]``, in the shape of the weight.
    values : torch.Tensor
        Finite floats, shape ``(k,)`` with k in [1, 65536]; kept as float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Han, Mao and Dally, 2016. Deep compression, section 3.

    Examples
    --------
    >>> packed = CodebookWeight(torch.tensor([[0, 2, 1, 0]]), torch.tensor([-0.5, 0.1, 0.7]))
    >>> packed()
    tensor([[-0.5000,  0.7000,  0.1000, -0.5000]])
    >>> packed.codes.nbytes, packed.values.nbytes
    (1, 12)
    """

    def __init__(self, indices: torch.Tensor, values: torch.Tensor) -> None:
        if check_values("values", values).ndim != 1 or len(values) > 2**16:
            raise ValueError(
                f"values must have shape (k,) with k in [1, {2**16}], got {tuple(values.shape)}"
            )
        check_codes(indices, high=len(values) - 1)
        super().__init__(indices, max(1, (len(values) - 1).bit_length()))
        self.register_buffer("values", values.detach().float().clone())

    def forward(self) -> torch.Tensor:
        """Return the float32 weight."""
        return self.values[self.unpacked].reshape(self.shape)

    @property
    def about(self) -> dict[str, Any]:
        """What a file has to say beside the buffers."""
        return {"form": "codebook", "shape": list(self.shape), "values": len(self.values)}

    @classmethod
    def blank(cls, about: dict[str, Any]) -> CodebookWeight:
        """Return a weight of this form, with the first value everywhere."""
        zeros = torch.zeros(about["shape"], dtype=torch.int32)
        return cls(zeros, torch.zeros(check_int("values", about["values"], low=1, high=2**16)))


class SignWeight(PackedWeight):
    """A weight that is ``+factor`` or ``-factor`` everywhere, in 1 bit.

    Parameters
    ----------
    signs : torch.Tensor
        Integers, -1 or 1, in the shape of the weight, ``(out, ...)``.
    factors : torch.Tensor
        Finite floats: shape ``()``, or ``(out,)``, one for each output channel.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Rastegari et al., 2016. XNOR-Net, section 3.1.

    Examples
    --------
    >>> packed = SignWeight(torch.tensor([[1, -1], [-1, -1]]), torch.tensor([0.5, 2.0]))
    >>> packed()
    tensor([[ 0.5000, -0.5000],
            [-2.0000, -2.0000]])
    """

    def __init__(self, signs: torch.Tensor, factors: torch.Tensor) -> None:
        if not bool((check_integers(signs).abs() == 1).all()):
            raise ValueError(f"signs must be -1 or 1, got {signs[signs.abs() != 1][0]} among them")
        if check_values("factors", factors).shape not in (torch.Size(), signs.shape[:1]):
            raise ValueError(
                f"factors must have shape () or {tuple(signs.shape[:1])}, "
                f"got {tuple(factors.shape)}"
            )
        super().__init__((signs > 0).to(torch.uint8), 1)
        self.register_buffer("scale", factors.detach().float().clone())

    def forward(self) -> torch.Tensor:
        """Return the float32 weight."""
        signs = (2 * self.unpacked - 1).reshape(self.scale.numel(), -1)
        return (signs * self.scale.reshape(-1, 1)).reshape(self.shape)

    @property
    def about(self) -> dict[str, Any]:
        """What a file has to say beside the buffers."""
        return {"form": "sign", "shape": list(self.shape), "scales": list(self.scale.shape)}

    @classmethod
    def blank(cls, about: dict[str, Any]) -> SignWeight:
        """Return a weight of this form, minus everywhere."""
        signs = torch.full(about["shape"], -1, dtype=torch.int32)
        return cls(signs, torch.zeros(about["scales"]))


FORMS = {"affine": AffineWeight, "codebook": CodebookWeight, "sign": SignWeight}


def fit_params(params: QParams, codes: torch.Tensor) -> QParams:
    """Return ``params`` if they have a scale for all, each channel, or each group, else raise.

    Examples
    --------
    >>> from rac_helpers.quantize import symmetric_params
    >>> fit_params(symmetric_params(torch.ones(3), axis=0), torch.zeros(2, 6))
    Traceback (most recent call last):
    ValueError: params must have a scale for all, for each of the 2 slices along axis 0, or for \
each group in them, of a weight of shape (2, 6); got 3 along axis 0
    """
    if not isinstance(params, QParams):
        raise TypeError(f"params must be QParams, got {type(params).__name__}")
    if params.axis is None:
        return params
    count, channels = len(params.scale), codes.shape[0] if codes.ndim else 1
    first = params.axis in (0, -codes.ndim)
    if not first or count == 0 or count % max(1, channels) or codes.numel() % count:
        raise ValueError(
            f"params must have a scale for all, for each of the {channels} slices along axis 0, or "
            f"for each group in them, of a weight of shape {tuple(codes.shape)}; "
            f"got {count} along axis {params.axis}"
        )
    return params
