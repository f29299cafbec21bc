"""Ranks for a whole network under one budget: weights, bytes or multiply-accumulates.

Layers differ: in one the first few singular values hold nearly all the energy, in another they are
all alike. :func:`choose_ranks` takes away where the least is lost for what is saved. What is lost
is the share of a layer's energy (:func:`weight_options`, :func:`mac_options`); any other loss that
has been measured can be put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.lowrank.layers import Layer
from rac_helpers.lowrank.replace import factorize, pick_layers, split_for
from rac_helpers.lowrank.splits import ChannelSplit, LayerSplit, Rank
from rac_helpers.metrics import macs_by_layer


class Option(NamedTuple):
    """One way to have a layer: its rank (``None``: whole), what it costs, and what is lost."""

    rank: Rank | None
    cost: int
    loss: float


def weight_options(
    model: nn.Module,
    *,
    split: type[LayerSplit] = ChannelSplit,
    layers: Iterable[str] | None = None,
) -> dict[str, list[Option]]:
    """Return for each layer what there is to choose from; it costs weights, of four bytes each.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    split : type
        How convolutions would be split.
    layers : iterable of str, optional
        Names, see :func:`splittable`. ``None`` means all.

    Returns
    -------
    dict of str to list of Option
        The whole layer first, with a loss of 0; then the ranks that cost less than it, with the
        share of the squared norm of the weights that is lost.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> layer.weight.data = torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0]))
    >>> weight_options(nn.Sequential(layer))["0"]
    [Option(rank=None, cost=16, loss=0.0), Option(rank=1, cost=8, loss=0.36)]
    """
    found = {}
    for name, layer in pick_layers(model, layers).items():
        kind = split_for(layer, split)
        whole = Option(None, layer.weight.numel(), 0.0)
        found[name] = _options(layer, kind, whole, lambda r, k=kind, n=layer: k.count_weights(n, r))
    return found


def mac_options(
    model: nn.Module,
    example: torch.Tensor,
    *,
    split: type[LayerSplit] = ChannelSplit,
    layers: Iterable[str] | None = None,
) -> dict[str, list[Option]]:
    """Return for each layer what there is to choose from; it costs multiply-accumulates.

    Weights at the start of a network cost most: they look at more pixels.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    example : torch.Tensor
        Input of the model, a batch of one.
    split : type
        How convolutions would be split.
    layers : iterable of str, optional
        Names, see :func:`splittable`. ``None`` means all.

    Returns
    -------
    dict of str to list of Option
        As :func:`weight_options`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the model does not call one of the layers.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    >>> options = mac_options(model, torch.zeros(1, 8, 4, 4))["0"]
    >>> [option.cost for option in options]  # 16 pixels times 576 or rank * (72 + 8) weights
    [9216, 1280, 2560, 3840, 5120, 6400, 7680, 8960]
    """
    found = pick_layers(model, layers)
    before = macs_by_layer(model, example)
    if silent := [name for name in found if name not in before]:
        raise ValueError(f"model must call all of layers, but does not call {silent[0]}")
    kinds = {name: split_for(layer, split) for name, layer in found.items()}
    smallest = {name: kinds[name].ranks(layer)[0] for name, layer in found.items()}
    at_one = macs_by_layer(factorize(model, smallest, split=split), example)  # all ranks are 1

    def macs(name: str) -> Callable[[Rank], int]:
        return lambda rank: sum(
            times * at_one[f"{name}.{part}"] for part, times in kinds[name].growth(rank).items()
        )

    return {
        name: _options(layer, kinds[name], Option(None, before[name], 0.0), macs(name))
        for name, layer in found.items()
    }


def choose_ranks(options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Rank]:
    """Return a rank for each layer, so that all together cost at most ``budget``.

    All begin whole. As long as they cost too much, the layer is cut that loses least for what it
    saves. If the last cut saved more than was needed, the rest is given back where it helps most.

    Parameters
    ----------
    options : mapping of str to sequence of Option
        From :func:`weight_options` or :func:`mac_options`. Losses of several layers are added.
    budget : int
        For these layers together, in the unit of their costs. Bytes / 4 for float32 weights.

    Returns
    -------
    dict of str to int or tuple of int
        For :func:`factorize`. Layers that stay whole are not in it.

    Raises
    ------
    TypeError, ValueError
        If ``budget`` is below what the smallest ranks cost, or an argument is not as described.

    Examples
    --------
    >>> options = {
    ...     "flat": [Option(None, 100, 0.0), Option(2, 50, 0.40), Option(1, 25, 0.70)],
    ...     "steep": [Option(None, 100, 0.0), Option(2, 50, 0.02), Option(1, 25, 0.10)],
    ... }
    >>> choose_ranks(options, 150), choose_ranks(options, 100)
    ({'steep': 2}, {'flat': 2, 'steep': 2})
    """
    check_int("budget", budget, low=1)
    least = sum(min(option.cost for option in own) for own in options.values())
    if not options:
        raise ValueError("options must name at least one layer, got none")
    if budget < least:
        raise ValueError(f"budget must be an integer >= {least}, got {budget}")
    now = {name: own[0] for name, own in options.items()}
    while _cost(now) > budget:
        cuts = [(name, o) for name in now for o in options[name] if o.cost < now[name].cost]
        name, option = min(cuts, key=lambda cut: _price(now[cut[0]], cut[1]))
        now[name] = option
    while gains := _affordable(options, now, budget):
        name, option = max(gains, key=lambda gain: _price(now[gain[0]], gain[1]))
        now[name] = option
    return {name: option.rank for name, option in now.items() if option.rank is not None}


def _options(
    layer: Layer, kind: type[LayerSplit], whole: Option, cost: Callable[[Rank], int]
) -> list[Option]:
    kept = kind.energies(layer)
    cheaper = [Option(r, cost(r), max(0.0, 1 - part)) for r, part in kept.items()]
    return [whole, *(option for option in cheaper if option.cost < whole.cost)]


def _cost(chosen: Mapping[str, Option]) -> int:
    return sum(option.cost for option in chosen.values())


def _price(one: Option, other: Option) -> float:
    """Loss per cost between two options of a layer."""
    return (other.loss - one.loss) / (one.cost - other.cost)


def _affordable(
    options: Mapping[str, Sequence[Option]], now: Mapping[str, Option], budget: int
) -> list[tuple[str, Option]]:
    """Return the options that lose less, cost more, and still fit."""
    left = budget - _cost(now)
    return [
        (name, option)
        for name, chosen in now.items()
        for option in options[name]
        if chosen.cost < option.cost <= chosen.cost + left and option.loss < chosen.loss
    ]
