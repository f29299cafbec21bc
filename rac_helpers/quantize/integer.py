"""Operations on codes with integers only: addition, mean, table; and what they have in common.

Scales are floats, but they are used up when a module is made: what is left are integers. The
layers with weights are in ``integer_layers``.
"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.quantize.codes import code_dtype, quantize
from rac_helpers.quantize.params import QParams
from rac_helpers.quantize.rescale import fixed_multiplier, rescale, shift_right

INT32_MAX = 2**31 - 1


class IntegerModule(nn.Module):
    """A module that takes codes and returns codes; the base of those below.

    Parameters
    ----------
    outputs : QParams
        Of the codes that go out; without ``axis``.
    relu : bool
        Clamp the outputs at the code of 0.0.
    **inputs : QParams
        Of the codes that come in; without ``axis``.

    Raises
    ------
    TypeError, ValueError
        If there is something else than :class:`QParams`, or an ``axis``.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> module = IntegerModule(affine_params(-1.0, 1.0), relu=True)
    >>> module.low, module.high  # the codes of 0.0 and 1.0
    (-1, 127)
    """

    def __init__(self, outputs: QParams, *, relu: bool = False, **inputs: QParams) -> None:
        super().__init__()
        for name, params in {"outputs": outputs, **inputs}.items():
            if not isinstance(params, QParams):
                raise TypeError(f"{name} must be QParams, got {type(params).__name__}")
            if params.axis is not None:
                raise ValueError(f"{name} must have one scale for all, got axis {params.axis}")
            setattr(self, name, params)
        self.zero, self.high = int(outputs.zero_point), outputs.qmax
        self.low = self.zero if relu else outputs.qmin

    def to_codes(self, values: torch.Tensor) -> torch.Tensor:
        """Return codes of integers that are in steps of the outputs' scale."""
        return (values + self.zero).clamp(self.low, self.high).to(code_dtype(self.outputs))


def centre(codes: torch.Tensor, params: QParams) -> torch.Tensor:
    """Return ``codes - zero_point`` as int32: then 0 is the value 0.0.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> centre(torch.tensor([0, 255], dtype=torch.uint8), affine_params(-1.0, 3.0, signed=False))
    tensor([-64, 191], dtype=torch.int32)
    """
    if not isinstance(codes, torch.Tensor) or codes.dtype != code_dtype(params):
        got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
        raise TypeError(f"codes must be a tensor of {code_dtype(params)}, got {got}")
    return codes.to(torch.int32) - int(params.zero_point)


def largest_code(params: QParams) -> int:
    """Return the largest distance of a code from that of 0.0.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> largest_code(affine_params(-1.0, 3.0, signed=False))
    191
    """
    zero = int(params.zero_point)
    return max(params.qmax - zero, zero - params.qmin)


class IntegerAdd(IntegerModule):
    """The sum of two tensors of codes with scales of their own, such as at a shortcut.

    Both are multiplied, added, and only then shifted: rounded once.

    Parameters
    ----------
    first, second, outputs : QParams
        Of both inputs and of the result; without ``axis``.
    relu : bool
        Clamp the outputs at the code of 0.0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Jacob et al., 2018, appendix A.2 (which rounds each input, too).

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> unit, half = affine_params(0, 255, signed=False), affine_params(0, 127.5, signed=False)
    >>> add = IntegerAdd(unit, half, outputs=unit)
    >>> codes = torch.tensor([10, 11], dtype=torch.uint8)
    >>> add(codes, codes)  # 10 + 5, 11 + 5.5
    tensor([15, 17], dtype=torch.uint8)
    """

    def __init__(
        self, first: QParams, second: QParams, outputs: QParams, *, relu: bool = False
    ) -> None:
        super().__init__(outputs, relu=relu, first=first, second=second)
        scales = torch.stack([first.scale, second.scale]).double()
        ratios = scales / outputs.scale.double()
        _, shift = fixed_multiplier(ratios.max())
        multipliers = torch.ldexp(ratios, shift.to(torch.int32)).round()
        self.register_buffer("multipliers", multipliers.to(torch.int32))
        self.register_buffer("shift", shift)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Add codes of the same shape."""
        pairs = ((first, self.first), (second, self.second))
        one, other = (centre(codes, params).to(torch.int64) for codes, params in pairs)
        sums = one * self.multipliers[0] + other * self.multipliers[1]
        return self.to_codes(shift_right(sums, self.shift))


class IntegerMean(IntegerModule):
    """The mean of the codes of each channel (global average pooling).

    Parameters
    ----------
    inputs, outputs : QParams
        Without ``axis``.
    count : int
        Pixels of a channel, H * W: the division by it is part of the multiplier.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the sum could leave the range of int32.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> unit = affine_params(0, 255, signed=False)
    >>> IntegerMean(unit, unit, count=4)(torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8))
    tensor([[3]], dtype=torch.uint8)
    """

    def __init__(self, inputs: QParams, outputs: QParams, count: int) -> None:
        super().__init__(outputs, inputs=inputs)
        self.count = check_int("count", count, low=1, high=INT32_MAX // largest_code(inputs))
        ratio = inputs.scale.double() / outputs.scale.double() / count
        multiplier, shift = fixed_multiplier(ratio)
        self.register_buffer("multiplier", multiplier)
        self.register_buffer("shift", shift)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes ``(n, channels, H, W)`` to ``(n, channels)``."""
        if codes.ndim != 4 or codes.shape[2:].numel() != self.count:
            shape = tuple(codes.shape)
            raise ValueError(f"codes must have 4 dimensions, H * W = {self.count}, got {shape}")
        sums = centre(codes, self.inputs).sum(dim=(2, 3), dtype=torch.int32)
        return self.to_codes(rescale(sums, self.multiplier, self.shift))


class IntegerTable(IntegerModule):
    """A function of one byte, such as the normalization of images: its 256 results in a table.

    Parameters
    ----------
    values : torch.Tensor
        Floats ``(256,)``, the function of 0, 1, ..., 255.
    outputs : QParams
        Without ``axis``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> table = IntegerTable(torch.arange(256).sqrt(), affine_params(0, 16, signed=False))
    >>> table(torch.tensor([0, 16, 255], dtype=torch.uint8))  # 0, 4 and 15.97 of 16
    tensor([  0,  64, 255], dtype=torch.uint8)
    """

    def __init__(self, values: torch.Tensor, outputs: QParams) -> None:
        super().__init__(outputs)
        if not isinstance(values, torch.Tensor) or values.shape != (256,):
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else repr(values)
            raise ValueError(f"values must be a tensor of shape (256,), got {got}")
        self.register_buffer("table", quantize(values, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 of any shape to codes of the same shape."""
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        return self.table[images.to(torch.int64)]
