"""Mixed precision: more bits for the layers that need them, under a number of bytes for all.

How much a layer needs is measured: only its weights are rounded, to each number of bits, and the
loss is compared with that of the float network (:func:`bit_losses`). :func:`choose_bits` then
takes bits away where they are missed least, byte for byte. It adds the losses of the layers up,
as if each did its harm for itself; whether that holds is for a test of the whole to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.metrics.score import batches_of_logits, check_split
from rac_helpers.quantize.calibration import weight_params
from rac_helpers.quantize.layers import check_names, insert_quantizers, quantizable
from rac_helpers.quantize.params import QParams

if TYPE_CHECKING:
    from rac_helpers.data import Split

Losses = Mapping[str, Mapping[int, float]]


def weight_bytes(model: nn.Module, bits: Mapping[str, int]) -> int:
    """Return the bytes of the weights' codes, densely packed layer by layer.

    Parameters
    ----------
    model : nn.Module
        See :func:`quantizable`.
    bits : mapping of str to int
        By the names of layers.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of a layer, or bits are below 1.

    Examples
    --------
    >>> weight_bytes(nn.Sequential(nn.Linear(4, 3)), {"0": 4})  # half a byte each
    6
    """
    layers = quantizable(model)
    for name in check_names("bits", bits, layers):
        check_int("bits", bits[name], low=1)
    return sum(math.ceil(layers[name].weight.numel() * b / 8) for name, b in bits.items())


def bit_losses(
    model: nn.Module,
    split: Split,
    *,
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
    choose: Callable[[torch.Tensor, int], QParams] | None = None,
) -> dict[str, dict[int, float]]:
    """Return by how much the loss rises if one layer alone is rounded to so many bits.

    Parameters
    ----------
    model : nn.Module
        Without quantizers.
    split : Split
        Held-out images, not those of the test: bits are chosen by them.
    bits : sequence of int
        Each in [2, 16].
    choose : callable, optional
        As for :func:`weight_params`.

    Returns
    -------
    dict of str to dict of int to float
        Cross-entropy minus that of the float network, by layer and bits; below 0 where rounding
        happens to help.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from rac_helpers.data import synth_digits
    >>> from rac_helpers.models import SmallCNN
    >>> losses = bit_losses(SmallCNN(width=2), synth_digits(10, 10, 10).validation, bits=(4, 8))
    >>> list(losses)[0], abs(losses["classifier"][8]) < abs(losses["classifier"][4])
    ('block1.0', True)
    """
    check_split("split", split, model=model)
    before = _loss(model, split)
    return {
        name: {
            b: _loss(_only(model, name, b, choose), split) - before
            for b in (check_int("bits", one, low=2, high=16) for one in bits)
        }
        for name in quantizable(model)
    }


def choose_bits(model: nn.Module, losses: Losses, *, budget_bytes: int) -> dict[str, int]:
    """Return bits for each layer, under a number of bytes, with a small sum of losses.

    All begin with the most bits. As long as the bytes are too many, the layer gives up bits that
    loses least by it for each byte that is saved.

    Parameters
    ----------
    model : nn.Module
        See :func:`quantizable`.
    losses : mapping of str to mapping of int to float
        From :func:`bit_losses`.
    budget_bytes : int
        For the codes of all these layers, see :func:`weight_bytes`.

    Raises
    ------
    TypeError, ValueError
        If the fewest bits take more bytes, or a name is not that of a layer.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    >>> losses = {"0": {8: 0.0, 4: 0.5}, "1": {8: 0.0, 4: 0.1}}
    >>> choose_bits(model, losses, budget_bytes=100)  # 64 + 32
    {'0': 8, '1': 4}
    """
    names = check_names("losses", losses, quantizable(model))
    check_int("budget_bytes", budget_bytes, low=1)
    least = weight_bytes(model, {name: min(losses[name]) for name in names})
    if least > budget_bytes:
        raise ValueError(f"budget_bytes must be at least {least}, got {budget_bytes}")
    bits = {name: max(losses[name]) for name in names}
    while weight_bytes(model, bits) > budget_bytes:
        steps = [(name, b) for name in names for b in losses[name] if b < bits[name]]
        name, b = min(steps, key=lambda step: _price(model, losses, bits, *step))
        bits[name] = b
    return bits


def _price(model: nn.Module, losses: Losses, bits: Mapping[str, int], name: str, b: int) -> float:
    """What the loss rises for each byte that is saved."""
    saved = weight_bytes(model, {name: bits[name]}) - weight_bytes(model, {name: b})
    return (losses[name][b] - losses[name][bits[name]]) / max(saved, 1)


def _only(model: nn.Module, name: str, bits: int, choose: Callable | None) -> nn.Module:
    params = weight_params(model, {name: bits}, choose=choose)
    return insert_quantizers(model, weights=params)


def _loss(model: nn.Module, split: Split) -> float:
    total = 0.0
    for logits, labels in batches_of_logits(model, split, batch_size=500):
        total += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    return total / len(split[1])
