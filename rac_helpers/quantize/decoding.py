"""Layers that hold packed codes and decode their weight in each forward pass."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers.quantize.fake import DynamicQuantizer, FakeQuantizer
from rac_helpers.quantize.packed import PackedWeight
from rac_helpers.quantize.params import QParams


class StoredConv2d(nn.Conv2d):
    """A convolution whose weight is decoded from codes when it is needed.

    Parameters
    ----------
    layer : nn.Conv2d
        Gives stride, padding, bias and so on; its weight is not kept.
    packed : PackedWeight
        The weight, of the same shape.

    Raises
    ------
    TypeError, ValueError
        If ``layer`` or ``packed`` is something else, or the shapes differ.

    Examples
    --------
    >>> from rac_helpers.quantize.packed import SignWeight
    >>> layer = nn.Conv2d(1, 1, 2, bias=False)
    >>> signs = torch.tensor([[[[1, -1], [1, 1]]]])
    >>> small = StoredConv2d(layer, SignWeight(signs, torch.tensor(0.5)))
    >>> small(torch.ones(1, 1, 2, 2)).item(), small.weight.shape
    (1.0, torch.Size([1, 1, 2, 2]))
    """

    def __init__(self, layer: nn.Conv2d, packed: PackedWeight) -> None:
        nn.Module.__init__(self)  # that of Conv2d would make a float weight
        _set_up(self, layer, packed, nn.Conv2d)

    @property
    def weight(self) -> torch.Tensor:
        """The decoded weight, float32: a new tensor each time."""
        return self.packed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H', W')``."""
        return self._conv_forward(self.input_quantizer(x), self.weight, self.bias)


class StoredLinear(nn.Linear):
    """A linear layer whose weight is decoded from codes when it is needed.

    Parameters
    ----------
    layer : nn.Linear
        Gives the bias; its weight is not kept.
    packed : PackedWeight
        The weight, of the same shape.

    Raises
    ------
    TypeError, ValueError
        If ``layer`` or ``packed`` is something else, or the shapes differ.

    Examples
    --------
    >>> from rac_helpers.quantize.packed import SignWeight
    >>> small = StoredLinear(
    ...     nn.Linear(2, 1, bias=False), SignWeight(torch.tensor([[1, -1]]), torch.tensor(0.5))
    ... )
    >>> small(torch.tensor([[3.0, 1.0]])).item()
    1.0
    """

    def __init__(self, layer: nn.Linear, packed: PackedWeight) -> None:
        nn.Module.__init__(self)
        _set_up(self, layer, packed, nn.Linear)

    @property
    def weight(self) -> torch.Tensor:
        """The decoded weight, float32: a new tensor each time."""
        return self.packed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return F.linear(self.input_quantizer(x), self.weight, self.bias)


STORED = {nn.Conv2d: StoredConv2d, nn.Linear: StoredLinear}
Stored = StoredConv2d | StoredLinear
_CONV_SETTINGS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "transposed",
    "output_padding",
    "groups",
    "padding_mode",
    "_reversed_padding_repeated_twice",  # what Conv2d._conv_forward uses for other padding modes
)
_SETTINGS = {nn.Conv2d: _CONV_SETTINGS, nn.Linear: ("in_features", "out_features")}


def _set_up(own: nn.Module, layer: nn.Module, packed: PackedWeight, kind: type[nn.Module]) -> None:
    if not isinstance(layer, kind):
        raise TypeError(f"layer must be a {kind.__name__}, got {type(layer).__name__}")
    if not isinstance(packed, PackedWeight):
        raise TypeError(
            f"packed must be an AffineWeight, CodebookWeight or SignWeight, "
            f"got {type(packed).__name__}"
        )
    if packed.shape != tuple(layer.weight.shape):
        raise ValueError(
            f"packed must have the shape of the weight, {tuple(layer.weight.shape)}, "
            f"got {packed.shape}"
        )
    for name in _SETTINGS[kind]:
        setattr(own, name, getattr(layer, name))
    own.packed = copy.deepcopy(packed)
    own.input_quantizer = _fixed(getattr(layer, "input_quantizer", nn.Identity()))
    own.to(layer.weight.device)
    own.bias = copy.deepcopy(layer.bias)
    own.train(layer.training)


def _fixed(quantizer: nn.Module) -> nn.Module:
    """The quantizer as it is used for prediction, which a file can describe."""
    if isinstance(quantizer, FakeQuantizer):
        return FakeQuantizer(quantizer.params)
    if isinstance(quantizer, DynamicQuantizer | nn.Identity):
        return copy.deepcopy(quantizer)
    raise TypeError(
        "input_quantizer must be a FakeQuantizer, DynamicQuantizer or Identity, "
        f"got {type(quantizer).__name__}"
    )


def about_input(quantizer: nn.Module) -> list[int | None] | None:
    """Return smallest and largest code and, if the range is fixed, axis and number of scales.

    Examples
    --------
    >>> about_input(nn.Identity()), about_input(DynamicQuantizer(bits=4))
    (None, [-8, 7])
    """
    if isinstance(quantizer, nn.Identity):
        return None
    about = [quantizer.qmin, quantizer.qmax]
    if isinstance(quantizer, FakeQuantizer):
        about += [quantizer.axis, quantizer.scale.numel()]
    return about


def blank_input(about: list[int | None] | None) -> nn.Module:
    """Return a quantizer with buffers of the right sizes, to load a file into.

    Examples
    --------
    >>> blank_input([0, 255, None, 1])
    FakeQuantizer(codes 0 to 255, axis=None)
    """
    if about is None:
        return nn.Identity()
    qmin, qmax, *fixed = about
    if not fixed:
        return DynamicQuantizer((qmax - qmin).bit_length(), signed=qmin < 0)
    axis, count = fixed
    scale = torch.ones(() if axis is None else (count,))
    zero_point = torch.full_like(scale, min(max(0, qmin), qmax), dtype=torch.int32)
    return FakeQuantizer(QParams(scale, zero_point, qmin, qmax, axis))
