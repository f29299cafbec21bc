"""Which channels can only be cut together, and which of them to cut.

The output of a convolution that is added to another one's has the same channels as that one: both
lose channel 3, or neither does. A depthwise convolution has the channels of its input. Such
channels form a group, for which one decision is made for each channel. The network's inputs and
outputs, and what is tied to them, are in no group: they are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from rac_helpers.prune.builders import check_sparsity, lowest
from rac_helpers.prune.scores import Scores, check_scores
from rac_helpers.prune.wiring import FIXED, ChannelMasks, follow_channels


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that are tied, in all the layers that they occur in.

    Attributes
    ----------
    members : dict of str to torch.Tensor
        By the names of the weights: int64 of shape ``(size,)``. ``members[name][j]`` is the output
        channel of that layer which stays or goes with the others at place ``j``. A layer whose
        channels are tied to different layers has its channels in several groups.
    """

    members: dict[str, torch.Tensor]

    @property
    def size(self) -> int:
        """Number of decisions: one for each place ``j``."""
        return len(next(iter(self.members.values())))

    def __repr__(self) -> str:
        first, *more = self.members
        return f"ChannelGroup({self.size} channels of {first}, tied to {len(more)} other layers)"


def channel_groups(model: nn.Module, example: torch.Tensor) -> list[ChannelGroup]:
    """Return the groups of channels that can only be cut together.

    A shortcut of :class:`rac_helpers.models.BasicBlock` adds channels of zeros on both sides
    (option A). The channels of one stage are then tied to those in the middle of the next one. So
    one group spans all three stages, one the last two, and one is of the last stage alone.

    Parameters
    ----------
    model : nn.Module
        Not changed. Its operations are listed by ``torch.fx``, so its ``forward`` must not branch
        on values.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Returns
    -------
    list of ChannelGroup
        In the order of the network.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    ValueError
        If an operation cannot be followed (the message names it), weights are shared or hidden, or
        no channel can be cut.

    References
    ----------
    Fang, Ma, Song, Mi, Wang: DepGraph: Towards Any Structural Pruning, CVPR 2023, section 3.

    Examples
    --------
    >>> from rac_helpers import models
    >>> groups = channel_groups(models.ResNet(8, width=4), torch.zeros(1, 3, 32, 32))
    >>> groups[0].members["stem.0.weight"], groups[0].members["stage2.0.conv2.weight"]
    (tensor([0, 1, 2, 3]), tensor([2, 3, 4, 5]))
    >>> groups[1]  # inside a block nothing is added
    ChannelGroup(4 channels of stage1.0.conv1.weight, tied to 0 other layers)
    """
    wiring = follow_channels(model, example)
    places: dict[int, list[tuple[str, int]]] = {}  # number -> where it leaves a layer
    for layer, numbers in wiring.outputs.items():
        for channel, number in enumerate(numbers.tolist()):
            places.setdefault(number, []).append((f"{layer}.weight", channel))
    places.pop(FIXED, None)
    by_layers: dict[tuple[str, ...], list[list[int]]] = {}
    for where in places.values():
        layers, channels = zip(*where, strict=True)
        by_layers.setdefault(layers, []).append(channels)
    return [ChannelGroup(_members(*found)) for found in by_layers.items()]


def _members(layers: Sequence[str], channels: list[Sequence[int]]) -> dict[str, torch.Tensor]:
    if len(set(layers)) < len(layers):
        raise ValueError(
            f"model must not add channels of one layer to each other, got {channels[0]} of {layers}"
        )
    columns = torch.tensor(channels).T  # (layers, size)
    return dict(zip(layers, columns, strict=True))


def uniform_group_masks(
    groups: Sequence[ChannelGroup], scores: Scores, sparsity: float
) -> ChannelMasks:
    """Cut the same share of every group: the network keeps its proportions.

    A channel's score is the mean over the layers that it occurs in.

    Parameters
    ----------
    groups : sequence of ChannelGroup
        From :func:`channel_groups`.
    scores : mapping of str to torch.Tensor
        By the names of the weights: ``(out_channels,)``, higher = more worth keeping. A group in
        which a layer has no score is kept whole; layers in no group are passed over.
    sparsity : float
        Share of the channels to cut, in ``[0, 1)``. A group of n channels loses
        ``round(sparsity * n)``, but keeps at least one.

    Returns
    -------
    dict of str to torch.Tensor
        By the names of the weights: bools of shape ``(out_channels,)``, True = kept.

    Raises
    ------
    TypeError, ValueError
        If no group has scores, one is NaN or of another shape, or the sparsity is out of range.

    References
    ----------
    Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, ICLR 2017,
    section 3.3 for the residual networks.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> groups = channel_groups(model, torch.zeros(1, 3, 8, 8))
    >>> uniform_group_masks(groups, {"0.weight": torch.tensor([4.0, 1.0, 3.0, 2.0])}, 0.5)
    {'0.weight': tensor([ True, False,  True, False])}
    """
    check_sparsity("sparsity", sparsity)
    scored, means = _group_scores(groups, scores)
    counts = [min(round(sparsity * len(mean)), len(mean) - 1) for mean in means]
    kept = [~lowest(mean, count) for mean, count in zip(means, counts, strict=True)]
    return _spread(scored, kept, scores)


def global_group_masks(
    groups: Sequence[ChannelGroup], scores: Scores, sparsity: float
) -> ChannelMasks:
    """Cut the channels with the lowest scores wherever they are: some groups lose more.

    Scores of different layers are compared, so they must be comparable. Norms of filters are not:
    they grow with the number of weights in a filter.

    Parameters
    ----------
    groups : sequence of ChannelGroup
        From :func:`channel_groups`.
    scores : mapping of str to torch.Tensor
        By the names of the weights: ``(out_channels,)``, higher = more worth keeping. A group in
        which a layer has no score is kept whole; layers in no group are passed over.
    sparsity : float
        Share of the decisions that are cuts, in ``[0, 1)``. The best channel of each group always
        stays, so a very high share is not reached.

    Returns
    -------
    dict of str to torch.Tensor
        By the names of the weights: bools of shape ``(out_channels,)``, True = kept.

    Raises
    ------
    TypeError, ValueError
        If no group has scores, one is NaN or of another shape, or the sparsity is out of range.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    >>> groups = channel_groups(model, torch.zeros(1, 3, 8, 8))
    >>> scores = {"0.weight": torch.tensor([1.0, 2.0]), "1.weight": torch.tensor([8.0, 9.0])}
    >>> global_group_masks(groups, scores, 0.5)["0.weight"]  # 1.0 goes; 2.0 is the group's best
    tensor([False,  True])
    >>> global_group_masks(groups, scores, 0.5)["1.weight"]
    tensor([False,  True])
    """
    check_sparsity("sparsity", sparsity)
    scored, means = _group_scores(groups, scores)
    for mean in means:
        mean[~lowest(mean, len(mean) - 1)] = torch.inf  # the best one stays
    together = torch.cat(means)
    count = min(round(sparsity * len(together)), len(together) - len(scored))
    kept = (~lowest(together, count)).split([len(mean) for mean in means])
    return _spread(scored, kept, scores)


def _group_scores(
    groups: Sequence[ChannelGroup], scores: Scores
) -> tuple[list[ChannelGroup], list[torch.Tensor]]:
    """The groups that have scores, and one score for each decision: the mean over the layers."""
    check_scores(scores)
    if not groups:
        raise ValueError("groups must hold at least one ChannelGroup, got none")
    scored = [group for group in groups if group.members.keys() <= scores.keys()]
    if not scored:
        raise ValueError(
            f"scores must have entries for all layers of a group, such as "
            f"{[*groups[0].members]}, got {[*scores]}"
        )
    means = []
    for group in scored:
        for name, channels in group.members.items():
            if scores[name].ndim != 1 or len(scores[name]) <= int(channels.max()):
                shape = tuple(scores[name].shape)
                raise ValueError(f"scores[{name!r}] must have shape (out_channels,), got {shape}")
        rows = [scores[name].cpu().double()[at] for name, at in group.members.items()]
        means.append(torch.stack(rows).mean(0))
    return scored, means


def _spread(
    groups: Sequence[ChannelGroup],
    kept: Sequence[torch.Tensor],
    scores: Scores,
) -> ChannelMasks:
    """Write each group's decision into the masks of all its layers."""
    masks: dict[str, torch.Tensor] = {}
    for group, decision in zip(groups, kept, strict=True):
        for name, channels in group.members.items():
            mask = masks.setdefault(name, torch.ones(len(scores[name]), dtype=torch.bool))
            mask[channels] = decision
    return masks
