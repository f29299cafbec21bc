"""Fake quantization: round the values, compute in floats, and let gradients through.

A network that is to run with few bits is tried, and trained, with values that have been to the
codes and back. Rounding has the gradient 0 almost everywhere, so nothing would be learned; the
straight-through estimator takes it for 1, inside the range of the codes, and for 0 outside.

The quantizers differ in where their range comes from: :class:`FakeQuantizer` has it fixed,
:class:`ObservedQuantizer` follows the values it sees in training, :class:`LearnedQuantizer` learns
its scale with the weights, and :class:`DynamicQuantizer` looks at each batch anew.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from rac_helpers._check import check_number
from rac_helpers.quantize.params import (
    QParams,
    affine_grid,
    symmetric_grid,
)
from rac_helpers.quantize.ranges import code_range, extremes


def round_ste(values: torch.Tensor) -> torch.Tensor:
    """Round, halves to even; the gradient passes as if nothing had happened.

    References
    ----------
    Bengio, Leonard and Courville, 2013. Estimating or propagating gradients through stochastic
    neurons for conditional computation, section 4 (the straight-through estimator).

    Examples
    --------
    >>> x = torch.tensor([0.4, 1.5], requires_grad=True)
    >>> y = round_ste(x)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 2.0], [1.0, 1.0])
    """
    return values + (values.round() - values).detach()  # exact: the difference has no rounding


def fake_quantize_ste(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, *, qmin: int, qmax: int
) -> torch.Tensor:
    """Return :func:`~rac_helpers.quantize.fake_quantize` of ``values``, with a gradient.

    For ``values`` it is 1 where the code is inside ``[qmin, qmax]`` and 0 where it is clamped, as
    in ``torch.fake_quantize_per_tensor_affine``. Where ``scale`` needs a gradient it gets that of
    learned step size quantization: the rounding error in codes, or the outermost code.

    Parameters
    ----------
    values : torch.Tensor
        Floats of any shape.
    scale, zero_point : torch.Tensor
        In a shape that goes with ``values``; see :meth:`QParams.along`.
    qmin, qmax : int
        The smallest and the largest code.

    References
    ----------
    Esser et al., 2020. Learned step size quantization, section 2.

    Examples
    --------
    >>> x = torch.tensor([0.26, 0.9, 7.0], requires_grad=True)
    >>> y = fake_quantize_ste(x, torch.tensor(0.5), torch.tensor(0), qmin=-2, qmax=1)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.5, 0.5, 0.5], [1.0, 0.0, 0.0])
    """
    codes = round_ste(values.float() * (1 / scale)) + zero_point
    clamped = codes.detach().clamp(qmin, qmax)
    # not codes.clamp(): its gradient is 0 at the two ends, too, which are good codes
    codes = torch.where(codes == clamped, codes, clamped)
    return (codes - zero_point) * scale


class FakeQuantizer(nn.Module):
    """Rounds what goes through it to the values that have a code; its range is fixed.

    Parameters
    ----------
    params : QParams
        Scale and zero point become buffers, so that they are in the file of the model.

    Raises
    ------
    TypeError
        If ``params`` are no :class:`QParams`.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> quantizer = FakeQuantizer(affine_params(0.0, 1.5, bits=2, signed=False))
    >>> quantizer(torch.tensor([0.1, 0.6, 9.0]))
    tensor([0.0000, 0.5000, 1.5000])
    """

    def __init__(self, params: QParams) -> None:
        super().__init__()
        if not isinstance(params, QParams):
            raise TypeError(f"params must be QParams, got {type(params).__name__}")
        self.register_buffer("scale", params.scale.clone())
        self.register_buffer("zero_point", params.zero_point.clone())
        self.qmin, self.qmax, self.axis = params.qmin, params.qmax, params.axis

    @property
    def params(self) -> QParams:
        """Scale and zero point as they are now."""
        scale = self.scale.detach().float().clone()
        return QParams(scale, self.zero_point.clone(), self.qmin, self.qmax, self.axis)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Take floats of any shape that goes with the axis; return as many."""
        return self._rounded(values, self.scale, self.zero_point)

    def extra_repr(self) -> str:
        """Say which codes there are."""
        return f"codes {self.qmin} to {self.qmax}, axis={self.axis}"

    def _rounded(
        self, values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor
    ) -> torch.Tensor:
        if self.axis is not None:
            shape = [1] * values.ndim
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        return fake_quantize_ste(values, scale, zero_point, qmin=self.qmin, qmax=self.qmax)


class LearnedQuantizer(FakeQuantizer):
    """A quantizer whose scale is a parameter: it is trained with the weights.

    The gradient of the scale is divided by ``sqrt(values a scale * qmax)``: a scale serves many
    values, and all of them pull at it. Call :func:`keep_scales_positive_` after each step.

    Parameters
    ----------
    params : QParams
        What training begins with.

    Raises
    ------
    TypeError
        If ``params`` are no :class:`QParams`.

    References
    ----------
    Esser et al., 2020. Learned step size quantization, section 2.2.

    Examples
    --------
    >>> from rac_helpers.quantize import symmetric_params
    >>> quantizer = LearnedQuantizer(symmetric_params(1.0, bits=2))
    >>> quantizer(torch.tensor([0.3, 4.0])).sum().backward()  # the clamped value pulls it up
    >>> round(quantizer.scale.grad.item(), 3)  # (-0.3 + 1) / sqrt(2)
    0.495
    """

    def __init__(self, params: QParams) -> None:
        super().__init__(params)
        del self.scale
        self.scale = nn.Parameter(params.scale.clone())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Take floats of any shape that goes with the axis; return as many."""
        count = max(1, values.numel() // self.scale.numel())
        factor = 1 / math.sqrt(count * max(1, self.qmax))  # 1 bit: the codes are -1 and 0
        pulled = self.scale * factor
        scale = self.scale.detach() + (pulled - pulled.detach())  # exactly the scale
        return self._rounded(values, scale, self.zero_point)


class ObservedQuantizer(FakeQuantizer):
    """A quantizer whose range follows the values that it sees in training mode.

    ``range = range + rate * (range of this batch - range)``. In eval mode the range stays.

    Parameters
    ----------
    params : QParams
        The range to begin with; zero points all 0 and ``qmin == -qmax`` keep it symmetric.
    rate : float
        In [0, 1]; 1 takes each batch as it is (for weights), 0 stands still. A buffer, so that
        :class:`~rac_helpers.quantize.QuantAware` can freeze it and a checkpoint remembers.

    Raises
    ------
    TypeError, ValueError
        If ``params`` are no :class:`QParams`, or ``rate`` is out of range.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 3.1.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params
    >>> quantizer = ObservedQuantizer(affine_params(0.0, 1.0, bits=8, signed=False), rate=0.5)
    >>> _ = quantizer(torch.tensor([0.0, 3.0]))
    >>> round(quantizer.params.high.item(), 4)  # half of the way from 1 to 3
    2.0
    """

    def __init__(self, params: QParams, rate: float = 0.1) -> None:
        super().__init__(params)
        self.register_buffer("rate", torch.tensor(check_number("rate", rate, low=0, high=1)))
        self.register_buffer("low", params.low.clone())
        self.register_buffer("high", params.high.clone())
        self.symmetric = self.qmin == -self.qmax and not bool(params.zero_point.any())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Take floats of any shape that goes with the axis; return as many."""
        if self.training:
            self._follow_(values.detach().float())
        return super().forward(values)

    def _follow_(self, values: torch.Tensor) -> None:
        low, high = extremes(values, self.axis)
        self.low.add_(self.rate * (low - self.low))
        self.high.add_(self.rate * (high - self.high))
        if self.symmetric:
            found = symmetric_grid(torch.maximum(-self.low, self.high), self.qmax)
        else:
            found = affine_grid(self.low, self.high, self.qmin, self.qmax)
        for own, new in zip((self.scale, self.zero_point), found, strict=True):
            own.copy_(torch.where(self.rate > 0, new, own))


class DynamicQuantizer(nn.Module):
    """A quantizer that takes the range of each slice along dimension 0 as it comes.

    Nothing has to be calibrated; the range costs a pass over the values, in each forward. Each
    picture of a batch has a range of its own, so that what it becomes does not depend on others.

    Parameters
    ----------
    bits : int
        In [1, 16].
    signed : bool
        Codes around 0, or from 0 on.

    Raises
    ------
    TypeError, ValueError
        If ``bits`` is out of range.

    Examples
    --------
    >>> quantizer = DynamicQuantizer(bits=2, signed=False)
    >>> quantizer(torch.tensor([[0.0, 0.9, 3.0], [0.0, 9.0, 30.0]]))
    tensor([[ 0.,  1.,  3.],
            [ 0., 10., 30.]])
    """

    def __init__(self, bits: int = 8, *, signed: bool = True) -> None:
        super().__init__()
        self.qmin, self.qmax = code_range(bits, signed=signed)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Take floats ``(n, ...)``; return as many."""
        low, high = extremes(values.detach().float(), 0)
        shape = [-1] + [1] * (values.ndim - 1)
        scale, zero_point = affine_grid(low, high, self.qmin, self.qmax)
        return fake_quantize_ste(
            values,
            scale.reshape(shape),
            zero_point.reshape(shape),
            qmin=self.qmin,
            qmax=self.qmax,
        )

    def extra_repr(self) -> str:
        """Say which codes there are."""
        return f"codes {self.qmin} to {self.qmax}, a range for each slice"


def keep_scales_positive_(model: nn.Module, *, smallest: float = 1e-6) -> None:
    """Raise learned scales below ``smallest`` to it; the optimizer may have made one negative.

    Examples
    --------
    >>> from rac_helpers.quantize import symmetric_params
    >>> quantizer = LearnedQuantizer(symmetric_params(1.0, bits=2))
    >>> _ = quantizer.scale.data.fill_(-0.1)
    >>> keep_scales_positive_(quantizer)
    >>> quantizer.scale.item() > 0
    True
    """
    for module in model.modules():
        if isinstance(module, LearnedQuantizer):
            module.scale.data.clamp_(min=smallest)
