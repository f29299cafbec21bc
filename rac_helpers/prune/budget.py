"""Which channels to cut so that a given share of the multiply-accumulates is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from rac_helpers._check import check_number
from rac_helpers.metrics import macs_by_layer
from rac_helpers.prune.wiring import ChannelMasks, Wiring, follow_channels, kept_channels


def channel_masks_for_macs(
    model: nn.Module,
    example: torch.Tensor,
    masks_at: Callable[[float], ChannelMasks],
    *,
    macs_share: float,
) -> ChannelMasks:
    """Return the masks that cut least, among those that leave at most a share of the MACs.

    A layer's MACs fall with its inputs and with its outputs: half the channels everywhere leave
    about a quarter. The right sparsity is found by halving the interval that it lies in.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    example : torch.Tensor
        Input of the model, a batch of one.
    masks_at : callable
        Takes a sparsity in ``[0, 1)`` and returns channel masks; a higher sparsity cuts more. Such
        as ``lambda sparsity: uniform_group_masks(groups, scores, sparsity)``.
    macs_share : float
        In ``(0, 1]``: the share to leave. 0.5 means 50 % fewer MACs.

    Returns
    -------
    dict of str to torch.Tensor
        What ``masks_at`` gave.

    Raises
    ------
    TypeError, ValueError
        As :func:`parameter_masks`; or if the share is out of range, or too low for ``masks_at``.

    Examples
    --------
    >>> from rac_helpers.prune import channel_groups, uniform_group_masks
    >>> model = nn.Sequential(nn.Conv2d(1, 100, 1), nn.Conv2d(100, 100, 1), nn.Conv2d(100, 1, 1))
    >>> image = torch.zeros(1, 1, 2, 2)
    >>> groups = channel_groups(model, image)
    >>> scores = {name: torch.arange(100.0) for name in ("0.weight", "1.weight")}
    >>> masks = channel_masks_for_macs(
    ...     model, image, lambda s: uniform_group_masks(groups, scores, s), macs_share=0.5
    ... )
    >>> int(masks["0.weight"].sum())  # 70 · 70 + 2 · 70 of 100 · 100 + 2 · 100
    70
    """
    if check_number("macs_share", macs_share, low=0, high=1) == 0:
        raise ValueError("macs_share must be a finite number in (0, 1], got 0")
    wiring, dense = follow_channels(model, example), macs_by_layer(model, example)
    total = sum(dense.values())

    def share(sparsity: float) -> float:
        return _macs(model, wiring, dense, masks_at(sparsity)) / total

    low, high = 0.0, 1 - 2**-20
    if share(low) <= macs_share:
        return masks_at(low)
    if share(high) > macs_share:
        raise ValueError(f"macs_share must be >= {share(high):.4g} here, got {macs_share}")
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) <= macs_share else (middle, high)
    return masks_at(high)


def _macs(model: nn.Module, wiring: Wiring, dense: Mapping[str, int], masks: ChannelMasks) -> int:
    """MACs of the network without the channels that are cut."""
    kept, total = kept_channels(wiring, masks), 0
    for name, numbers in wiring.outputs.items():
        left = dense[name] * int(kept[numbers].sum()) // len(numbers)
        if getattr(model.get_submodule(name), "groups", 1) == 1:  # depthwise reads one channel
            read = kept[wiring.inputs[name]]
            left = left * int(read.sum()) // len(read)
        total += left
    return total
