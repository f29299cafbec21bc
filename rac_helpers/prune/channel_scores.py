"""How much each output channel is worth: four scores of whole filters.

A channel score is a dict from the name of a layer's weight to a tensor with a number for each
output channel; higher is more worth keeping. The outputs of the last layer are the classes: they
get scores, too, but must not be cut.
"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers.metrics.score import eval_mode
from rac_helpers.prune.channel_rules import NORMS
from rac_helpers.prune.scores import Scores
from rac_helpers.prune.weights import RECURRENT, prunable


def filter_l1(model: nn.Module) -> Scores:
    """Score each filter by the sum of its absolute weights.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.

    Returns
    -------
    dict of str to torch.Tensor
        Shape ``(out_channels,)`` for each linear and conv layer. Recurrent layers have none:
        their outputs are tied to each other.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`; if there are recurrent layers only.

    References
    ----------
    Li, Kadav, Durdanovic, Samet and Graf, 2017. Pruning filters for efficient ConvNets,
    section 3.1.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -4.0], [0.5, 0.5]]))
    >>> filter_l1(layer)
    {'weight': tensor([7., 1.])}
    """
    return {name: rows.abs().sum(1) for name, rows in _filters(model).items()}


def filter_l2(model: nn.Module) -> Scores:
    """Score each filter by its length, the root of the sum of its squared weights.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.

    Returns
    -------
    dict of str to torch.Tensor
        Shape ``(out_channels,)`` for each linear and conv layer.

    Raises
    ------
    TypeError, ValueError
        As :func:`filter_l1`.

    References
    ----------
    He, Kang, Dong, Fu and Yang, 2018. Soft filter pruning for accelerating deep convolutional
    neural networks, section 3.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -4.0], [0.5, 0.5]]))
    >>> filter_l2(layer)
    {'weight': tensor([5.0000, 0.7071])}
    """
    return {name: torch.linalg.vector_norm(rows, dim=1) for name, rows in _filters(model).items()}


def geometric_median(model: nn.Module) -> Scores:
    """Score each filter by its summed distance to the other filters of its layer.

    The filter with the smallest sum is nearest to the layer's geometric median. Others can do its
    work; a small filter that is unlike all others is kept.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.

    Returns
    -------
    dict of str to torch.Tensor
        Shape ``(out_channels,)`` for each linear and conv layer.

    Raises
    ------
    TypeError, ValueError
        As :func:`filter_l1`.

    References
    ----------
    He, Liu, Wang, Hu and Yang, 2019. Filter pruning via geometric median for deep convolutional
    neural networks acceleration, section 3.

    Examples
    --------
    >>> layer = nn.Linear(1, 4)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0], [5.0], [6.0], [8.0]]))
    >>> geometric_median(layer)  # 5 and 6 lie in the middle
    {'weight': tensor([19.,  9.,  9., 13.])}
    """
    exact = "donot_use_mm_for_euclid_dist"  # the quick way rounds small distances to 0
    return {n: torch.cdist(f, f, compute_mode=exact).sum(1) for n, f in _filters(model).items()}


def bn_scale(model: nn.Module, example: torch.Tensor) -> Scores:
    """Score each channel by the scale \\|γ\\| of the batch norm right behind its layer.

    Batch norm divides by the standard deviation of a channel, so the size of the filter no longer
    counts; what the next layer gets is of size γ.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`. Used in eval mode.
    example : torch.Tensor
        Input of the model. It runs once, to see which batch norm takes the output of which layer.

    Returns
    -------
    dict of str to torch.Tensor
        Shape ``(out_channels,)`` for each layer with a batch norm right behind it. The others
        have no score, so leave them whole.

    Raises
    ------
    TypeError, ValueError
        As :func:`filter_l1`; if no layer has a batch norm with a scale right behind it.

    References
    ----------
    Liu, Li, Shen, Huang, Yan and Zhang, 2017. Learning efficient convolutional networks through
    network slimming, section 3.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 1))
    >>> _ = model[1].weight.data.copy_(torch.tensor([0.25, -2.0]))
    >>> bn_scale(model, torch.zeros(1, 3, 8, 8))
    {'0.weight': tensor([0.2500, 2.0000])}
    """
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in _filters(model)}
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.weight is not None]
    outputs: dict[str, tuple[torch.Tensor, int]] = {}
    scores = {}

    def remember(name: str):
        return lambda layer, inputs, out: outputs.__setitem__(name, (out, out._version))

    def compare(norm: nn.Module, inputs: tuple, named: dict[str, torch.Tensor]) -> None:
        given = (*inputs, *named.values())[0]
        for name, (output, version) in outputs.items():
            if given is output and output._version == version:  # no ReLU in place between
                scores[name] = norm.weight.detach().abs()

    hooks = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    hooks += [norm.register_forward_pre_hook(compare, with_kwargs=True) for norm in norms]
    try:
        with eval_mode(model), torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not scores:
        raise ValueError("model must have a batch norm with a scale right behind a layer, got none")
    return {name: scores[name] for name in layers if name in scores}


def _filters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of each linear and conv layer as a matrix, one filter a row; float32 at least."""
    filters = {}
    for name, weight in prunable(model).items():
        if not isinstance(model.get_submodule(name.rpartition(".")[0]), RECURRENT):
            dtype = torch.promote_types(weight.dtype, torch.float32)
            filters[name] = weight.detach().flatten(1).to(dtype)
    if not filters:
        raise ValueError("model must have a linear or convolutional layer, got recurrent ones only")
    return filters
