"""Plain layers made from given weights, which move over a picture as another layer does."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

Layer = nn.Linear | nn.Conv2d


class Moves(NamedTuple):
    """How a convolution moves over a picture: pairs ``(down, along)``.

    ``padding`` may be ``"same"`` or ``"valid"``, as in torch.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    padding_mode: str = "zeros"

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Moves:
        """Return how a layer moves.

        Examples
        --------
        >>> Moves.of(nn.Conv2d(3, 8, 3, stride=2, padding=1)).padding
        (1, 1)
        """
        return cls(layer.stride, layer.padding, layer.dilation, layer.padding_mode)

    def down(self) -> Moves:
        """Return the vertical part: for a k x 1 convolution.

        Examples
        --------
        >>> Moves(stride=(2, 2), padding=(1, 1)).down()[:2]
        ((2, 1), (1, 0))
        """
        return self._mix(Moves(), self)

    def along(self) -> Moves:
        """Return the horizontal part: for a 1 x k convolution.

        Examples
        --------
        >>> Moves(stride=(2, 2), padding=(1, 1)).along()[:2]
        ((1, 2), (0, 1))
        """
        return self._mix(self, Moves())

    def joined(self, along: Moves) -> Moves:
        """Return vertical moves as here, horizontal ones as in another.

        Examples
        --------
        >>> Moves(stride=(2, 1)).joined(Moves(stride=(1, 3))).stride
        (2, 3)
        """
        return self._mix(along, self)

    def _mix(self, along: Moves, down: Moves) -> Moves:
        words = isinstance(self.padding, str)
        padding = self.padding if words else (down.padding[0], along.padding[1])
        stride = down.stride[0], along.stride[1]
        dilation = down.dilation[0], along.dilation[1]
        return Moves(stride, padding, dilation, self.padding_mode)


def check_layer(layer: Any, kind: type[Layer]) -> Layer:
    """Return ``layer`` if it is a plain layer of that kind that can be split, else raise.

    Examples
    --------
    >>> check_layer(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d)
    Traceback (most recent call last):
    ValueError: layer must have groups=1: one with groups is split already, got groups=8
    """
    if type(layer) is not kind:
        raise TypeError(f"layer must be a plain nn.{kind.__name__}, got {type(layer).__name__}")
    groups = getattr(layer, "groups", 1)
    if groups != 1:
        raise ValueError(
            f"layer must have groups=1: one with groups is split already, got groups={groups}"
        )
    if 0 in layer.weight.shape:
        raise ValueError(f"layer must have weights, got shape {tuple(layer.weight.shape)}")
    return layer


def linear_of(like: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """Return a linear layer with these weights.

    Parameters
    ----------
    like : nn.Module
        Gives precision, device, and whether the weights are trained.
    weight : torch.Tensor
        ``(out, in)``.
    bias : torch.Tensor, optional
        ``(out,)``.

    Examples
    --------
    >>> linear_of(nn.Linear(9, 9), torch.zeros(2, 3), None)
    Linear(in_features=3, out_features=2, bias=False)
    """
    out, inner = weight.shape
    layer = nn.Linear(inner, out, bias=bias is not None, device="meta")
    return _fill_(layer, like, weight, bias)


def conv_of(
    like: Layer, weight: torch.Tensor, bias: torch.Tensor | None, moves: Moves | None = None
) -> nn.Conv2d:
    """Return a convolution with these weights.

    Parameters
    ----------
    like : nn.Module
        Gives precision, device, and whether the weights are trained.
    weight : torch.Tensor
        ``(out, in, k_h, k_w)``.
    bias : torch.Tensor, optional
        ``(out,)``.
    moves : Moves, optional
        ``None`` goes pixel by pixel, without padding.

    Examples
    --------
    >>> conv_of(nn.Conv2d(9, 9, 3), torch.zeros(2, 3, 3, 1), None, Moves(stride=(2, 1)))
    Conv2d(3, 2, kernel_size=(3, 1), stride=(2, 1), bias=False)
    """
    out, inner, *kernel = weight.shape
    settings = (moves or Moves())._asdict() | {"bias": bias is not None, "device": "meta"}
    return _fill_(nn.Conv2d(inner, out, tuple(kernel), **settings), like, weight, bias)


def _fill_(layer: Layer, like: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> Layer:
    """Give weights to a layer that was made without any."""
    values = weight.detach().to(like.weight).clone(memory_format=torch.contiguous_format)
    layer.weight = nn.Parameter(values, requires_grad=like.weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer.train(like.training)
