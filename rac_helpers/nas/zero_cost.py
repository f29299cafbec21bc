"""Estimates without a training: what does a network look like at its start?

All of them are cheap (one batch, once forward and back) and all of them are to be doubted: measure
against trained networks how well they sort them, and compare with the number of parameters, which
costs nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from rac_helpers import prune
from rac_helpers._check import check_module, check_number

Batch = tuple[torch.Tensor, torch.Tensor]


def gradient_norm(model: nn.Module, batch: Batch) -> float:
    """Return the Euclidean norm of the loss's gradient over all weights of layers.

    Parameters
    ----------
    model : nn.Module
        Just built. Used in eval mode and left as it is.
    batch : (images, labels)
        One batch of training images.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`rac_helpers.prune.gradient_scores`.

    References
    ----------
    Abdelfattah, Mehrotra, Dudziak and Lane, 2021. Zero-cost proxies for lightweight NAS, section 3.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = nn.init.zeros_(model[1].weight)
    >>> gradient_norm(model, (torch.ones(1, 1, 2, 2), torch.tensor([0])))  # each of 8 is ±1/2
    1.4142...
    """
    scores = prune.gradient_scores(model, [batch])
    return float(sum(score.square().sum() for score in scores.values()) ** 0.5)


def snip(model: nn.Module, batch: Batch) -> float:
    """Return the sum over all weights of \\|g w\\|: how much the loss would feel each one's loss.

    Parameters are those of :func:`gradient_norm`.

    References
    ----------
    Lee, Ajanthan and Torr, 2019. SNIP: single-shot network pruning based on connection
    sensitivity, section 4. Abdelfattah et al., 2021, section 3, add the scores up.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> _ = nn.init.ones_(model[1].weight)
    >>> snip(model, (torch.ones(1, 1, 1, 1), torch.tensor([0])))  # \\|-1/2 · 1\\| + \\|1/2 · 1\\|
    1.0
    """
    return float(sum(score.sum() for score in prune.taylor_scores(model, [batch]).values()))


def synflow(model: nn.Module, image: torch.Tensor) -> float:
    """Return the sum over all weights of w · ∂R/∂w, after all have been made positive.

    R is the sum of the outputs for an image of ones. No data is needed. The number is the number of
    ways through the network, each weighted by the product of its weights; it grows so fast with
    depth that its logarithm is easier to look at.

    Parameters
    ----------
    model : nn.Module
        Just built: batch norm must not yet have seen images. Left as it is.
    image : torch.Tensor
        An input ``(n, 3, H, W)``; only the shape of one image counts.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    TypeError
        If ``model`` is no module.

    References
    ----------
    Tanaka, Kunin, Yamins and Ganguli, 2020. Pruning neural networks without any data by
    iteratively conserving synaptic flow. Abdelfattah et al., 2021, section 3.

    Examples
    --------
    >>> layers = nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False)
    >>> model = nn.Sequential(nn.Flatten(), *layers)
    >>> for weight in model.parameters():
    ...     _ = nn.init.constant_(weight, -1)
    >>> synflow(model, torch.zeros(1, 3, 1, 1))  # 6 ways through, counted in each of two layers
    12.0
    """
    positive = copy.deepcopy(check_module("model", model)).double().eval()
    with torch.no_grad():
        for value in positive.parameters():
            value.requires_grad_().abs_()  # also of frozen layers
    weights = list(prune.prunable(positive).values())
    with torch.enable_grad():
        flow = positive(torch.ones(1, *image.shape[1:], dtype=torch.float64)).sum()
        gradients = torch.autograd.grad(flow, weights)
    parts = [(w.detach() * g).sum() for w, g in zip(weights, gradients, strict=True)]
    return float(sum(parts))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation: does one sort as the other does?

    Each value is replaced by its rank (equal values share the mean of theirs); the result is the
    correlation of the ranks: 1 for the same order, -1 for the reverse, near 0 for none.

    Parameters
    ----------
    first, second : sequence of float
        Of the same things in the same order, at least two.

    Returns
    -------
    float
        In [-1, 1].

    Raises
    ------
    TypeError, ValueError
        If the lengths differ, a value is not finite, or all values of one side are equal.

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4], [1, 10, 100, 50]), 3)
    0.8
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"first and second must be equally long, at least 2, got {len(first)} and {len(second)}"
        )
    ranks = []
    for name, values in {"first": first, "second": second}.items():
        checked = np.array([check_number(f"each of {name}", value) for value in values])
        _, place, counts = np.unique(checked, return_inverse=True, return_counts=True)
        if len(counts) == 1:
            raise ValueError(f"{name} must hold different values, got only {values[0]}")
        ends = counts.cumsum()
        ranks.append((ends - (counts - 1) / 2)[place])  # the mean of the ranks they share
    a, b = (rank - rank.mean() for rank in ranks)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
