"""A model that really is small: its layers hold packed codes and no float weights.

:func:`store` makes it. The layers decode their weight in each forward pass and then compute with
floats: such a model is smaller, not faster. ``metrics.size_bytes`` of it is the size of its file.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rac_helpers._check import check_module
from rac_helpers.quantize.codes import quantize
from rac_helpers.quantize.decoding import STORED, Stored, about_input
from rac_helpers.quantize.fake import FakeQuantizer
from rac_helpers.quantize.packed import AffineWeight, PackedWeight, fit_params
from rac_helpers.quantize.params import QParams

ABOUT = "about"  # the name of the buffer that tells what the file holds
DIGEST_BYTES = hashlib.sha256().digest_size
FORMAT = "rac-quantized-1"


def store(model: nn.Module, codings: Mapping[str, QParams | PackedWeight]) -> nn.Module:
    """Return a copy of ``model`` in which the named layers hold codes instead of float weights.

    Layers with an ``input_quantizer``, as from :func:`insert_quantizers`, keep it, with the range
    fixed as it is now. Everything else stays as it is: fold batch norm before.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    codings : mapping of str to QParams or PackedWeight
        For each layer to store, by its name in ``model.named_modules()``, the parameters of its
        weight (as from :func:`weight_params` or :func:`trained_params`; with ``axis=0`` also those
        of groups), or the packed weight itself.

    Returns
    -------
    nn.Module
        In the mode of ``model``; its buffer ``about`` says what :func:`load` has to know.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of a ``Conv2d`` or ``Linear``, a coding does not fit its weight, or
        ``model`` is stored already.

    Examples
    --------
    >>> from rac_helpers.metrics import size_bytes
    >>> from rac_helpers.quantize import symmetric_params
    >>> model = nn.Sequential(nn.Linear(1000, 100))
    >>> small = store(model, {"0": symmetric_params(0.1, bits=4)})
    >>> small[0].packed.codes.nbytes, size_bytes(model), size_bytes(small) < 52_000
    (50000, 400552, True)
    """
    check_module("model", model)
    if hasattr(model, ABOUT):
        raise ValueError(f"model must not have the attribute {ABOUT!r}: is it stored already?")
    if not isinstance(codings, Mapping) or not codings:
        raise ValueError(f"codings must name at least one layer, got {codings!r}")
    modules = dict(model.named_modules())
    layers = {}
    for name, coding in codings.items():
        layer = modules.get(name)
        kind = next((kind for kind in STORED if isinstance(layer, kind)), None)
        if kind is None:
            got = "no such layer" if layer is None else type(layer).__name__
            raise ValueError(f"codings must name Conv2d or Linear layers, got {name!r}: {got}")
        layers[name] = STORED[kind](layer, _packed(layer.weight, coding))
    return replace_layers(model, layers)


def trained_params(model: nn.Module) -> dict[str, QParams]:
    """Return the parameters in the weight quantizers of a model, by the names of the layers.

    Parameters
    ----------
    model : nn.Module
        From :func:`insert_quantizers`, also after training.

    Returns
    -------
    dict of str to QParams
        For :func:`store`; layers without a weight quantizer are left out.

    Examples
    --------
    >>> trained_params(nn.Linear(2, 2))
    {}
    """
    found = {name: getattr(m, "weight_quantizer", None) for name, m in model.named_modules()}
    return {name: q.params for name, q in found.items() if isinstance(q, FakeQuantizer)}


def stored_layers(model: nn.Module) -> dict[str, Stored]:
    """Return the layers of a model that hold codes, by their names.

    Examples
    --------
    >>> stored_layers(nn.Linear(2, 2))
    {}
    """
    kinds = tuple(STORED.values())
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}


def replace_layers(model: nn.Module, layers: Mapping[str, Stored]) -> nn.Module:
    """Return a copy of ``model`` with other layers, and the buffer that tells which; see ``store``.

    Examples
    --------
    >>> from rac_helpers.quantize.decoding import StoredLinear
    >>> from rac_helpers.quantize.packed import SignWeight
    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> packed = SignWeight(torch.tensor([[1, -1]]), torch.tensor(0.5))
    >>> list(replace_layers(model, {"0": StoredLinear(model[0], packed)}).state_dict())
    ['about', '0.bias', '0.packed.codes', '0.packed.scale']
    """
    modules = dict(model.named_modules())
    memo = {id(modules[name]): layer for name, layer in layers.items()}
    result = copy.deepcopy(model, memo)  # also where a layer is used in two places
    text = json.dumps(describe(result), separators=(",", ":")).encode()
    about = torch.frombuffer(bytearray(DIGEST_BYTES) + text, dtype=torch.uint8)
    result.register_buffer(ABOUT, about)
    return result


def describe(model: nn.Module) -> dict[str, Any]:
    """Return what a file has to say about the stored layers, beside their buffers.

    Examples
    --------
    >>> describe(nn.Linear(2, 2))
    {'format': 'rac-quantized-1', 'layers': {}}
    """
    layers = {
        name: {**layer.packed.about, "input": about_input(layer.input_quantizer)}
        for name, layer in stored_layers(model).items()
    }
    return {"format": FORMAT, "layers": layers}


def _packed(weight: torch.Tensor, coding: QParams | PackedWeight) -> PackedWeight:
    if isinstance(coding, PackedWeight):
        return coding
    fit_params(coding, weight)
    rows = weight if coding.axis is None else weight.reshape(len(coding.scale), -1)
    return AffineWeight(quantize(rows, coding).reshape(weight.shape), coding)
