"""A network whose layers compute with rounded weights and inputs.

:func:`insert_quantizers` makes a copy of a network with quantizers in its layers. Weights alone,
or inputs, too; other bits in each layer; fixed ranges, or ranges that are trained: it is all in
the parameters that are handed over (see ``calibration``) and in what is made of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from rac_helpers._check import check_module
from rac_helpers.quantize.codes import fake_quantize
from rac_helpers.quantize.fake import FakeQuantizer
from rac_helpers.quantize.params import QParams

MakeQuantizer = Callable[[QParams], nn.Module]


class QuantConv2d(nn.Conv2d):
    """A convolution of rounded inputs with rounded weights; made by :func:`insert_quantizers`.

    The weights themselves stay floats, so that small steps of a training add up.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H', W')``."""
        return self._conv_forward(self.input_quantizer(x), rounded_weight(self), self.bias)


class QuantLinear(nn.Linear):
    """A linear layer of rounded inputs and rounded weights; made by :func:`insert_quantizers`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return nn.functional.linear(self.input_quantizer(x), rounded_weight(self), self.bias)


_QUANTIZING = {nn.Conv2d: QuantConv2d, nn.Linear: QuantLinear}


def rounded_weight(layer: QuantConv2d | QuantLinear) -> torch.Tensor:
    """Return the weights that a layer computes with."""
    return layer.weight_quantizer(layer.weight)


def quantizable(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers by their names, in the order of the model.

    Parameters
    ----------
    model : nn.Module
        Layers that are quantized already are among them.

    Returns
    -------
    dict of str to nn.Conv2d or nn.Linear
        The layers themselves.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is no module or has none of these layers.

    Examples
    --------
    >>> list(quantizable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))))
    ['0', '2']
    """
    check_module("model", model)
    kinds = tuple(_QUANTIZING)
    found = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    if not found:
        raise ValueError("model must have at least one Conv2d or Linear layer, got none")
    return found


def insert_quantizers(
    model: nn.Module,
    *,
    weights: Mapping[str, QParams | nn.Module] | None = None,
    inputs: Mapping[str, QParams | nn.Module] | None = None,
    make_quantizer: MakeQuantizer = FakeQuantizer,
) -> nn.Module:
    """Return a copy of ``model`` whose layers compute with rounded weights and inputs.

    Parameters
    ----------
    model : nn.Module
        Plain: without quantizers. Not changed.
    weights, inputs : mapping of str to QParams or nn.Module, optional
        Parameters by the names of the layers, see :func:`weight_params` and :func:`input_params`.
        What is not named stays as it is. In place of parameters also a module that rounds, such
        as :class:`DynamicQuantizer`.
    make_quantizer : callable
        ``make_quantizer(params)`` makes each quantizer: :class:`FakeQuantizer`,
        :class:`LearnedQuantizer`, or ``functools.partial(ObservedQuantizer, rate=0.1)``.

    Returns
    -------
    nn.Module
        Its weights keep their names, in the mode of ``model``; quantizers are named
        ``<layer>.weight_quantizer`` and ``<layer>.input_quantizer``.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of a layer, if parameters do not fit a weight, or if there are
        quantizers already.

    Examples
    --------
    >>> from rac_helpers.quantize import weight_params
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> rounded = insert_quantizers(model, weights=weight_params(model, bits=2))
    >>> rounded[0].weight_quantizer(rounded[0].weight).unique().numel() <= 3 * 3
    True
    """
    weights, inputs = dict(weights or {}), dict(inputs or {})
    changed = copy.deepcopy(model)
    layers = quantizable(changed)
    for name in check_names("weights and inputs", weights.keys() | inputs.keys(), layers):
        layer = layers[name]
        if hasattr(layer, "weight_quantizer"):
            raise ValueError(f"model must be without quantizers, but {name!r} has some")
        kind = next(kind for kind in _QUANTIZING if isinstance(layer, kind))
        if type(layer) is not kind:
            got = type(layer).__name__
            raise TypeError(f"{name!r} must be a plain {kind.__name__}, got {got}")
        layer.__class__ = _QUANTIZING[kind]  # the parameters stay where they are
        layer.weight_quantizer = _quantizer(weights.get(name), make_quantizer)
        layer.input_quantizer = _quantizer(inputs.get(name), make_quantizer)
        if isinstance(weights.get(name), QParams):
            fake_quantize(layer.weight, weights[name])  # raises if the parameters do not fit
        with torch.no_grad():
            rounded_weight(layer)  # as does a module that rounds
    return changed


def _quantizer(params: QParams | nn.Module | None, make_quantizer: MakeQuantizer) -> nn.Module:
    if params is None:
        return nn.Identity()
    return params if isinstance(params, nn.Module) else make_quantizer(params)


def check_names(argument: str, names: Iterable[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """Return ``names`` in the order of ``layers``, or raise if one is not among them.

    Examples
    --------
    >>> check_names("bits", {"fc"}, {"conv": nn.Conv2d(3, 8, 3)})
    Traceback (most recent call last):
    ValueError: bits must name layers of the model (conv), got fc
    """
    names = set(names)
    if odd := sorted(names - layers.keys()):
        known = ", ".join(layers)
        raise ValueError(f"{argument} must name layers of the model ({known}), got {odd[0]}")
    return [name for name in layers if name in names]
