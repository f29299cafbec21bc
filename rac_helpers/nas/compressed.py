"""The compressed network as a search space: how sparse, how many bits, how wide.

A genome says for each layer which share of its weights is cut and with how many bits the others are
stored; one more gene can choose among students of several widths. What a genome costs are the
bytes of the file that holds it, known without a training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from rac_helpers import metrics, prune, quantize
from rac_helpers._check import check_int, check_number
from rac_helpers.nas.space import Genome, Space


@dataclass(frozen=True)
class Plan:
    """How a network is compressed.

    Parameters
    ----------
    sparsity : mapping of str to float
        Share of the weights to cut, in ``[0, 1)``, by the names of layers.
    bits : mapping of str to int
        Bits of each weight that is kept, in [2, 16], for the same layers.
    width : int, optional
        Of the student that is compressed; ``None`` if there is only one network.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or the layers differ.

    Examples
    --------
    >>> Plan({"fc": 0.5}, {"fc": 4})
    Plan(sparsity={'fc': 0.5}, bits={'fc': 4}, width=None)
    """

    sparsity: Mapping[str, float]
    bits: Mapping[str, int]
    width: int | None = field(default=None)

    def __post_init__(self) -> None:
        if self.sparsity.keys() != self.bits.keys() or not self.bits:
            raise ValueError(
                "sparsity and bits must name the same layers, at least one, got "
                f"{[*self.sparsity]} and {[*self.bits]}"
            )
        for name in self.bits:
            if check_number(f"sparsity of {name}", self.sparsity[name], low=0, high=1) == 1:
                raise ValueError(f"sparsity of {name} must be in [0, 1), got 1")
            check_int(f"bits of {name}", self.bits[name], low=2, high=16)


def compressed_space(
    layers: Sequence[str],
    *,
    sparsities: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9),
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
    widths: Sequence[int] = (),
) -> Space:
    """Return the space of all plans for some layers.

    Parameters
    ----------
    layers : sequence of str
        Names of layers, such as those of :func:`rac_helpers.quantize.quantizable`.
    sparsities, bits : sequence
        The choices of each layer.
    widths : sequence of int
        Widths of the students, if there are several.

    Returns
    -------
    Space
        Two genes a layer, ``"sparsity <layer>"`` and ``"bits <layer>"``, and perhaps ``"width"``.

    Raises
    ------
    TypeError, ValueError
        As :class:`Space`.

    Examples
    --------
    >>> space = compressed_space(["conv", "fc"], sparsities=(0.0, 0.5), bits=(4, 8))
    >>> len(space), plan_of(space, (1, 0, 0, 1))
    (16, Plan(sparsity={'conv': 0.5, 'fc': 0.0}, bits={'conv': 4, 'fc': 8}, width=None))
    """
    genes: list[tuple[str, tuple]] = []
    for name in layers:
        genes += [(f"sparsity {name}", tuple(sparsities)), (f"bits {name}", tuple(bits))]
    if widths:
        genes.append(("width", tuple(widths)))
    return Space(tuple(genes))


def plan_of(space: Space, genome: Genome) -> Plan:
    """Return the plan of a genome.

    Raises
    ------
    TypeError, ValueError
        If the genome is not one of the space, or the space not one of :func:`compressed_space`.
    """
    choice = space.decode(genome)
    parts: dict[str, dict] = {"sparsity": {}, "bits": {}}
    width = choice.pop("width", None)
    for key, value in choice.items():
        kind, _, layer = key.partition(" ")
        if kind not in parts or not layer:
            raise ValueError(f"space must be one of compressed_space, got the gene {key!r}")
        parts[kind][layer] = value
    return Plan(**parts, width=width)


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


def masks_of(model: nn.Module, plan: Plan) -> prune.MaskSet:
    """Return the masks of a plan: the smallest weights of each layer are cut.

    They serve also to train on what is left: ``train.fit(..., after_step=masks)``.

    Examples
    --------
    >>> masks_of(nn.Sequential(nn.Linear(4, 2)), Plan({"0": 0.5}, {"0": 8})).sparsity
    0.5
    """
    layers = quantize.quantizable(model)
    if missing := sorted(plan.bits.keys() - layers.keys()):
        raise ValueError(f"plan must name layers of the model {[*layers]}, got {missing[0]!r}")
    scores = {f"{name}.weight": layers[name].weight.detach().abs() for name in plan.bits}
    return prune.layer_masks(scores, {f"{name}.weight": s for name, s in plan.sparsity.items()})


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
        if (grid.qmin, grid.qmax, grid.scale.numel()) != (-most, most, channels):
            raise ValueError(
                f"rounding of {name} must have codes {-most} to {most} and {channels} scales, got "
                f"codes {grid.qmin} to {grid.qmax} and {grid.scale.numel()} scales"
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
