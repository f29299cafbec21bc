r"""Convolution and linear layer, computed with integers only.

Codes come in, codes go out. With ``x = s_x (q_x - z_x)`` and ``w = s_w q_w`` a layer is

.. math:: q_y = z_y + \frac{s_x s_w}{s_y} \Big( \sum (q_x - z_x)\, q_w + b \Big), \quad
          b = round\Big(\frac{bias}{s_x s_w}\Big)

The sum is an int32, the fraction is a multiplier and a shift (see ``rescale``), the result is
clamped to the range of the codes. So it differs from the computation with floats by at most one
code, as long as the step of the bias, ``s_x s_w``, is not larger than that of the outputs (with 8
bits it is far smaller). The layers run on the CPU: only there torch has convolutions of integers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers.quantize.codes import quantize
from rac_helpers.quantize.integer import INT32_MAX, IntegerModule, centre, largest_code
from rac_helpers.quantize.params import QParams
from rac_helpers.quantize.rescale import fixed_multiplier, rescale


class IntegerLayer(IntegerModule):
    """What convolution and linear layer have in common; see :class:`IntegerConv2d`."""

    kind: type[nn.Module]
    channel_shape: tuple[int, ...]  # of one number a channel, to go with the sums

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        *,
        inputs: QParams,
        weights: QParams,
        outputs: QParams,
        relu: bool = False,
    ) -> None:
        super().__init__(outputs, relu=relu, inputs=inputs)
        _check_layer(layer, self.kind, weights)
        product = (inputs.scale.double() * weights.scale.double()).expand(len(layer.weight))
        bias = torch.zeros_like(product) if layer.bias is None else layer.bias.detach().double()
        bias = (bias / product).round()
        self.register_buffer("weight", quantize(layer.weight, weights))
        _check_sums(self.weight, bias, inputs)
        multiplier, shift = fixed_multiplier(product / outputs.scale.double())
        parts = {"bias": bias.to(torch.int32), "multiplier": multiplier, "shift": shift}
        for name, part in parts.items():
            self.register_buffer(name, part.reshape(self.channel_shape))

    def accumulate(self, centred: torch.Tensor) -> torch.Tensor:
        """Return the int32 sums of products of ``centred`` codes with the weights' codes."""
        raise NotImplementedError

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes to codes; the shapes are those of the layer with floats."""
        sums = self.accumulate(centre(codes, self.inputs)) + self.bias
        return self.to_codes(rescale(sums, self.multiplier, self.shift))


class IntegerConv2d(IntegerLayer):
    """A convolution of codes.

    Parameters
    ----------
    layer : nn.Conv2d
        Padded with zeros, if at all. Its weights are copied.
    inputs, outputs : QParams
        Of the codes that come in and go out; without ``axis``.
    weights : QParams
        For the weights: zero point 0, for the whole tensor or for each output channel (``axis``
        0).
    relu : bool
        Clamp the outputs at the code of 0.0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or if the sum could leave the range of int32: that is
        tested for the worst inputs, so that it cannot happen later.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, sections 2.2 and 2.4.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params, symmetric_params
    >>> layer = nn.Conv2d(1, 1, 1)
    >>> _ = layer.weight.data.fill_(0.5), layer.bias.data.fill_(1.0)
    >>> unit = affine_params(0, 255, signed=False)  # scale 1: the code is the value
    >>> conv = IntegerConv2d(layer, inputs=unit, weights=symmetric_params(0.5), outputs=unit)
    >>> conv(torch.tensor([[[[0, 10, 100]]]], dtype=torch.uint8))
    tensor([[[[ 1,  6, 51]]]], dtype=torch.uint8)
    """

    kind, channel_shape = nn.Conv2d, (-1, 1, 1)

    def __init__(self, layer: nn.Conv2d, **params: QParams | bool) -> None:
        super().__init__(layer, **params)
        if layer.padding_mode != "zeros":
            raise ValueError(f"layer must be padded with zeros, got {layer.padding_mode!r}")
        self.stride, self.padding, self.groups = layer.stride, layer.padding, layer.groups
        self.dilation = layer.dilation

    def accumulate(self, centred: torch.Tensor) -> torch.Tensor:
        """Return the int32 sums; 0 is the value 0.0, also in the padding."""
        weight = _spread(self.weight.to(torch.int32), self.dilation)
        return F.conv2d(centred, weight, None, self.stride, self.padding, groups=self.groups)


class IntegerLinear(IntegerLayer):
    """A linear layer of codes; arguments and errors are those of :class:`IntegerConv2d`.

    Examples
    --------
    >>> from rac_helpers.quantize import affine_params, symmetric_params
    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -0.5]])), layer.bias.data.fill_(1.0)
    >>> unit = affine_params(0, 255, signed=False)
    >>> linear = IntegerLinear(layer, inputs=unit, weights=symmetric_params(0.5), outputs=unit)
    >>> linear(torch.tensor([[100, 10]], dtype=torch.uint8))
    tensor([[46]], dtype=torch.uint8)
    """

    kind, channel_shape = nn.Linear, (-1,)

    def accumulate(self, centred: torch.Tensor) -> torch.Tensor:
        """Return the int32 sums."""
        return F.linear(centred, self.weight.to(torch.int32))


def _spread(weight: torch.Tensor, dilation: tuple[int, int]) -> torch.Tensor:
    """Write zeros between the weights: torch cannot dilate a convolution of integers."""
    if dilation == (1, 1):
        return weight
    sides = [d * (side - 1) + 1 for d, side in zip(dilation, weight.shape[2:], strict=True)]
    spread = weight.new_zeros(*weight.shape[:2], *sides)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread


def _check_layer(layer: nn.Module, kind: type[nn.Module], weights: QParams) -> None:
    if not isinstance(layer, kind):
        raise TypeError(f"layer must be a {kind.__name__}, got {type(layer).__name__}")
    if not isinstance(weights, QParams):
        raise TypeError(f"weights must be QParams, got {type(weights).__name__}")
    if weights.axis not in (None, 0) or bool(weights.zero_point.any()):
        raise ValueError(
            "weights must have zero point 0, and axis None or 0, "
            f"got {weights.zero_point} and {weights.axis}"
        )


def _check_sums(weight: torch.Tensor, bias: torch.Tensor, inputs: QParams) -> None:
    """Raise if inputs that all have the largest code could make a sum too large for int32."""
    sums = weight.to(torch.int64).abs().flatten(1).sum(dim=1) * largest_code(inputs)
    largest = (sums.double() + bias.abs()).max().item()
    if largest > INT32_MAX:
        raise ValueError(
            f"layer must have sums of products (with the bias) of at most {INT32_MAX}, "
            f"got up to {largest:.0f}; use fewer bits or larger scales"
        )
