"""A network with splits in place of some of its layers, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from torch import nn

from rac_helpers._check import check_module, check_not_shared
from rac_helpers.lowrank.layers import Layer
from rac_helpers.lowrank.splits import ChannelSplit, LayerSplit, LinearSplit, Rank


def splittable(model: nn.Module) -> dict[str, Layer]:
    """Return the layers that can be split, by their names, in the order of the model.

    These are plain ``nn.Linear`` and ``nn.Conv2d`` without groups. Parts of a split are not among
    them, nor is a model that is itself a layer.

    Parameters
    ----------
    model : nn.Module
        Its layers are returned, not copies.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is no module, has none of these layers, or uses one in two places.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 2))
    >>> list(splittable(model))
    ['0', '2']
    """
    check_module("model", model)
    inside = tuple(f"{name}." for name in splits_of(model))
    found = {
        name: layer
        for name, layer in model.named_modules()
        if name and not name.startswith(inside) and _is_plain(layer)
    }
    if not found:
        raise ValueError("model must have at least one Linear or Conv2d to split, got none")
    check_not_shared(model, {f"{name}.weight": layer.weight for name, layer in found.items()})
    return found


def split_for(layer: Layer, split: type[LayerSplit]) -> type[LayerSplit]:
    """Return what splits a layer: :class:`LinearSplit` for a linear one, else ``split``.

    Examples
    --------
    >>> split_for(nn.Linear(2, 2), ChannelSplit).__name__
    'LinearSplit'
    """
    if not (isinstance(split, type) and issubclass(split, LayerSplit) and split is not LayerSplit):
        raise TypeError(f"split must be a split such as ChannelSplit, got {split!r}")
    return LinearSplit if isinstance(layer, nn.Linear) else split


def pick_layers(
    model: nn.Module, layers: Iterable[str] | None, *, argument: str = "layers"
) -> dict[str, Layer]:
    """Return the layers with these names, in the order of the model; ``None`` means all.

    ``argument`` is the name that an error gives them.

    Examples
    --------
    >>> list(pick_layers(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), ["1"]))
    ['1']
    """
    found = splittable(model)
    if layers is None:
        return found
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TypeError(f"{argument} must be names of layers, got {layers!r}")
    names = set(layers)
    if odd := sorted(map(str, names - found.keys())):
        known = ", ".join(found)
        raise ValueError(f"{argument} must name layers that can be split ({known}), got {odd[0]}")
    return {name: layer for name, layer in found.items() if name in names}


def factorize(
    model: nn.Module, ranks: Mapping[str, Rank], *, split: type[LayerSplit] = ChannelSplit
) -> nn.Module:
    """Return a copy of ``model`` with splits in place of layers.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    ranks : mapping of str to int or tuple of int
        By the names of layers, see :func:`splittable`. Layers that are not named stay whole.
    split : type
        For convolutions: :class:`ChannelSplit`, :class:`SpatialSplit` or :class:`TuckerSplit`, or
        a subclass. Linear layers get a :class:`LinearSplit`.

    Returns
    -------
    nn.Module
        In the mode of ``model``. A split has the name of its layer; the weights of its parts are
        called ``<layer>.first.weight``, ``<layer>.last.weight``. Train it as any network.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of a layer that can be split, or a rank does not fit.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 2))
    >>> [type(layer).__name__ for layer in factorize(model, {"0": 4})]
    ['ChannelSplit', 'Flatten', 'Linear']
    """
    if not isinstance(ranks, Mapping):
        raise TypeError(f"ranks must be a mapping of names to ranks, got {type(ranks).__name__}")
    small = copy.deepcopy(model)
    for name, layer in pick_layers(small, ranks, argument="ranks").items():
        small.set_submodule(name, split_for(layer, split)(layer, ranks[name]))
    return small


def fuse_all(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with one layer in place of each split.

    Parameters
    ----------
    model : nn.Module
        From :func:`factorize`, trained or not. Not changed.

    Returns
    -------
    nn.Module
        It computes the same up to rounding. Names and shapes are those of before the split, so
        the result fits wherever the original did; its weights have low rank.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is no module, or has no split.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    >>> fuse_all(factorize(model, {"0": 2}))
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
      (1): ReLU()
    )
    """
    whole = copy.deepcopy(check_module("model", model))
    splits = splits_of(whole)
    if not splits:
        raise ValueError("model must have at least one split, got none")
    for name, split in splits.items():
        whole.set_submodule(name, split.fuse())
    return whole


def splits_of(model: nn.Module) -> dict[str, LayerSplit]:
    """Return the splits of a model by their names.

    Parameters
    ----------
    model : nn.Module
        From :func:`factorize`; its splits are returned, not copies.

    Examples
    --------
    >>> model = factorize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), {"0": 3})
    >>> {name: split.rank for name, split in splits_of(model).items()}
    {'0': 3}
    """
    modules = check_module("model", model).named_modules()
    return {name: module for name, module in modules if isinstance(module, LayerSplit)}


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) in (nn.Linear, nn.Conv2d) and getattr(layer, "groups", 1) == 1
