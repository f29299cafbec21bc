"""Quantization-aware training: train on with the rounding in place, so that weights adapt to it.

``train.fit`` trains a network with quantizers like any other. :class:`QuantAware` is its
``after_step``: it keeps learned scales above 0 and lets observed ranges come to rest. Afterwards
:func:`remove_quantizers` and :func:`fold_quantized` make of it what is stored and run.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.quantize.fake import FakeQuantizer, ObservedQuantizer, keep_scales_positive_
from rac_helpers.quantize.fold import fold_batch_norm
from rac_helpers.quantize.layers import insert_quantizers, quantizable, rounded_weight
from rac_helpers.quantize.params import QParams


@dataclass(frozen=True)
class QuantAware:
    """What quantizers need during a training: ``after_step`` of :func:`rac_helpers.train.fit`.

    Parameters
    ----------
    freeze_after : int, optional
        After so many steps the ranges of :class:`ObservedQuantizer` stay as they are, so that
        the weights can settle on them. At least 1; ``None``: they follow to the end.

    Raises
    ------
    TypeError, ValueError
        If ``freeze_after`` is out of range.

    References
    ----------
    Krishnamoorthi, 2018. Quantizing deep convolutional networks for efficient inference,
    section 3.2.

    Examples
    --------
    >>> import functools
    >>> from rac_helpers.quantize import affine_params, insert_quantizers
    >>> inputs = {"0": affine_params(0.0, 1.0, bits=8, signed=False)}
    >>> model = insert_quantizers(
    ...     nn.Sequential(nn.Linear(4, 2)), inputs=inputs,
    ...     make_quantizer=functools.partial(ObservedQuantizer, rate=0.5))
    >>> after_step = QuantAware(freeze_after=2)
    >>> for step in (1, 2, 3):
    ...     _ = model(torch.full((8, 4), 3.0))
    ...     after_step(model, step)
    ...     print(step, round(model[0].input_quantizer.high.item(), 2))
    1 2.0
    2 2.5
    3 2.5
    """

    freeze_after: int | None = None

    def __post_init__(self) -> None:
        if self.freeze_after is not None:
            check_int("freeze_after", self.freeze_after, low=1)

    def __call__(self, model: nn.Module, step: int) -> None:
        """Look after the quantizers of ``model`` when ``step`` steps are done."""
        keep_scales_positive_(model)
        if self.freeze_after is not None and step >= self.freeze_after:
            for module in model.modules():
                if isinstance(module, ObservedQuantizer):
                    module.rate.zero_()


def params_of(model: nn.Module) -> tuple[dict[str, QParams | nn.Module], ...]:
    """Return the parameters of the quantizers in a model: for weights, and for inputs.

    Returns
    -------
    weights, inputs : dict of str to QParams or nn.Module
        By the names of the layers, for :func:`insert_quantizers`; quantizers without fixed
        parameters, such as :class:`DynamicQuantizer`, as they are.

    Examples
    --------
    >>> from rac_helpers.quantize import weight_params
    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> model = insert_quantizers(model, weights=weight_params(model, bits=4))
    >>> weights, inputs = params_of(model)
    >>> weights["0"].qmax, inputs
    (7, {})
    """
    weights, inputs = {}, {}
    for name, layer in quantizable(model).items():
        for found, kind in ((weights, "weight_quantizer"), (inputs, "input_quantizer")):
            quantizer = getattr(layer, kind, None)
            if isinstance(quantizer, FakeQuantizer):
                found[name] = quantizer.params
            elif quantizer is not None and not isinstance(quantizer, nn.Identity):
                found[name] = quantizer
    return weights, inputs


def remove_quantizers(model: nn.Module) -> nn.Module:
    """Return a plain copy of a model, with the rounded weights in place of the weights.

    Inputs of layers are no longer rounded.

    Examples
    --------
    >>> from rac_helpers.quantize import symmetric_params
    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[0.9, -2.0]]))
    >>> model = insert_quantizers(model, weights={"0": symmetric_params(2.0, bits=2)})
    >>> remove_quantizers(model)[0]
    Linear(in_features=2, out_features=1, bias=False)
    >>> remove_quantizers(model)[0].weight.tolist()
    [[0.0, -2.0]]
    """
    plain = copy.deepcopy(model)
    for layer in quantizable(plain).values():
        if not hasattr(layer, "weight_quantizer"):
            continue
        with torch.no_grad():
            layer.weight.copy_(rounded_weight(layer))
        del layer.weight_quantizer, layer.input_quantizer
        layer.__class__ = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    return plain


def fold_quantized(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a model with quantizers that computes the same without batch norm.

    Batch norm multiplies each output channel by a factor. A channel with a scale of its own takes
    it into the scale, and no code changes.

    Parameters
    ----------
    model : nn.Module
        Whose weights have a symmetric scale for each output channel (``axis=0``), or are binary.
    example : torch.Tensor
        Input of the model.

    Raises
    ------
    ValueError
        If weights have other parameters, or as :func:`fold_batch_norm`.

    Examples
    --------
    >>> from rac_helpers.quantize import weight_params
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    >>> model = insert_quantizers(model, weights=weight_params(model, bits=4))
    >>> image = torch.rand(1, 3, 5, 5)
    >>> folded = fold_quantized(model, image)
    >>> torch.allclose(folded(image), model(image), atol=1e-6), folded[1]
    (True, Identity())
    """
    weights, inputs = params_of(model)
    grids = {name: params for name, params in weights.items() if isinstance(params, QParams)}
    for name, params in grids.items():
        if params.axis != 0 or bool(params.zero_point.any()):
            raise ValueError(f"weights of {name!r} must have a symmetric scale for each channel")
    plain = remove_quantizers(model)
    folded = fold_batch_norm(plain, example)
    before, after = quantizable(plain), quantizable(folded)
    scaled = {
        name: _scaled(params, before[name].weight, after[name].weight)
        for name, params in grids.items()
    }
    return insert_quantizers(folded, weights=weights | scaled, inputs=inputs)


def _scaled(params: QParams, before: torch.Tensor, after: torch.Tensor) -> QParams:
    """Multiply the scales by what each channel was multiplied by; its largest weight tells."""
    before, after = (weight.detach().flatten(1).abs().amax(dim=1) for weight in (before, after))
    factor = torch.where((before > 0) & (after > 0), after / before, 1.0)
    return QParams(params.scale * factor, params.zero_point, params.qmin, params.qmax, axis=0)
