"""The compressed network: what its file holds, how many bytes that is, and what it computes.

What a :class:`Plan` costs are the bytes of this file, known without a training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from rac_helpers import metrics, quantize
from rac_helpers.nas.plan import Plan, masks_of


def compress(
    model: nn.Module, plan: Plan, *, rounding: Mapping[str, quantize.QParams] | None = None
) -> nn.Module:
    """Return a copy of a network with small weights cut and the others rounded.

    It is what :func:`pack_compressed` stores, read back: floats that take only the values in the
    file. So it can be measured like any network. Nothing is trained.

    Parameters
    ----------
    model : nn.Module
        Trained; the plan names linear and convolutional layers of it.
    plan : Plan
        Layers that it does not name stay as they are.
    rounding : mapping of str to QParams, optional
        As for :func:`pack_compressed`.

    Returns
    -------
    nn.Module
        In the mode of ``model``.

    Raises
    ------
    TypeError, ValueError
        If the plan names a layer that is not there.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 1))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[0.1, -0.2, 0.6, 1.0]]))
    >>> compress(model, Plan({"0": 0.5}, {"0": 2}))[0].weight.tolist()  # -1, 0 or 1 times 1.0
    [[0.0, 0.0, 1.0, 1.0]]
    """
    result = copy.deepcopy(model)
    unpack_compressed_(result, pack_compressed(model, plan, rounding=rounding), plan)
    return result


def pack_compressed(
    model: nn.Module, plan: Plan, *, rounding: Mapping[str, quantize.QParams] | None = None
) -> dict[str, torch.Tensor]:
    """Cut, round, and return what a file of the compressed network holds.

    The smallest weights of a layer go. The others get a scale for each output channel, and codes of
    as many bits as the plan says. Where weights were cut, a bitmap (a bit a weight) says which are
    left, and only these have codes, if that is shorter. What is in no layer of the plan is stored
    as it is. So the size of the file follows from the plan; training changes nothing of it.

    Parameters
    ----------
    model : nn.Module
        Trained; not changed.
    plan : Plan
        For layers of the model.
    rounding : mapping of str to QParams, optional
        Grids of the layers of the plan, one scale for each output channel, around 0, of as many
        bits as the plan says: those that a training has learned. ``None``: from the largest
        weight of each channel.

    Returns
    -------
    dict of str to torch.Tensor
        For ``metrics.size_bytes`` and :func:`unpack_compressed_`.

    Raises
    ------
    TypeError, ValueError
        If the plan names a layer that is not there, or ``rounding`` does not fit it.

    Examples
    --------
    >>> model, plan = nn.Sequential(nn.Linear(64, 2)), Plan({"0": 0.75}, {"0": 16})
    >>> {name: value.nbytes for name, value in pack_compressed(model, plan).items()}
    {'0.bias': 8, '0.weight.scale': 8, '0.weight.codes': 64, '0.weight.bitmap': 16}
    """
    cut = copy.deepcopy(model)
    masks = masks_of(cut, plan)
    masks.apply_(cut)
    state = {name: value.detach() for name, value in cut.state_dict().items()}
    grids = quantize.weight_params(cut, plan.bits) if rounding is None else dict(rounding)
    _check_grids(grids, cut, plan)
    for name, grid in grids.items():
        codes = quantize.quantize(state.pop(f"{name}.weight"), grid).to(torch.int32).flatten()
        there, bits = masks[f"{name}.weight"].flatten(), plan.bits[name]
        dense = quantize.pack_bits(codes - grid.qmin, bits)
        kept = quantize.pack_bits(codes[there] - grid.qmin, bits)
        bitmap = torch.from_numpy(np.packbits(there.numpy()))
        shorter = kept.nbytes + bitmap.nbytes < dense.nbytes
        state[f"{name}.weight.scale"] = grid.scale
        state[f"{name}.weight.codes"] = kept if shorter else dense
        if shorter:
            state[f"{name}.weight.bitmap"] = bitmap
    return state


def _check_grids(grids: Mapping[str, quantize.QParams], model: nn.Module, plan: Plan) -> None:
    layers = quantize.quantizable(model)
    if grids.keys() != plan.bits.keys():
        raise ValueError(f"rounding must be for the layers {[*plan.bits]}, got {[*grids]}")
    for name, grid in grids.items():
        most, channels = 2 ** (plan.bits[name] - 1) - 1, len(layers[name].weight)
        fits = (grid.qmin, grid.qmax, grid.scale.numel()) == (-most, most, channels)
        if not fits or grid.axis != 0 or grid.zero_point.any():
            zeros = grid.zero_point.unique().tolist()
            raise ValueError(
                f"rounding of {name} must have codes {-most} to {most}, zero point 0 and "
                f"{channels} scales along axis 0, got codes {grid.qmin} to {grid.qmax}, "
                f"zero points {zeros} and {grid.scale.numel()} scales along axis {grid.axis}"
            )


def unpack_compressed_(model: nn.Module, stored: Mapping[str, torch.Tensor], plan: Plan) -> None:
    """Load into a model what :func:`pack_compressed` stored.

    Parameters
    ----------
    model : nn.Module
        Of the same architecture; its state is replaced.
    stored : mapping of str to torch.Tensor
        From :func:`pack_compressed`.
    plan : Plan
        The same as then.

    Raises
    ------
    RuntimeError, ValueError
        If names or shapes do not fit the model.

    Examples
    --------
    >>> model, plan = nn.Sequential(nn.Linear(8, 2)), Plan({"0": 0.5}, {"0": 3})
    >>> other = nn.Sequential(nn.Linear(8, 2))
    >>> unpack_compressed_(other, pack_compressed(model, plan), plan)
    >>> int((other[0].weight == 0).sum()) >= 8
    True
    """
    state, layers = dict(stored), quantize.quantizable(model)
    for name, bits in plan.bits.items():
        if name not in layers or f"{name}.weight.codes" not in state:
            raise ValueError(f"model and stored must hold the layer {name!r} of the plan")
        weight = layers[name].weight
        scale, codes = state.pop(f"{name}.weight.scale"), state.pop(f"{name}.weight.codes")
        bitmap, half = state.pop(f"{name}.weight.bitmap", None), 2 ** (bits - 1) - 1
        there = torch.ones(weight.numel(), dtype=torch.bool)
        if bitmap is not None:
            there = torch.from_numpy(np.unpackbits(bitmap.numpy(), count=weight.numel())).bool()
        whole = torch.zeros(weight.numel(), dtype=torch.int32)
        whole[there] = quantize.unpack_bits(codes, bits, int(there.sum())) - half
        state[f"{name}.weight"] = (whole.reshape(len(scale), -1) * scale[:, None]).view_as(weight)
    model.load_state_dict(state)


def compressed_bytes(model: nn.Module, plan: Plan) -> int:
    """Return the size of the file of the compressed network, header included.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(64, 8))
    >>> compressed_bytes(model, Plan({"0": 0.5}, {"0": 4})) < metrics.size_bytes(model)
    True
    """
    return metrics.size_bytes(pack_compressed(model, plan))
