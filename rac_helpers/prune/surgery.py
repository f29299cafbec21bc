"""From masks to a network that is really smaller.

Masks leave every tensor as large as it was: the zeros are stored and multiplied. A channel that is
cut in all the layers that it occurs in can be taken out, with what reads it: the filter, its bias,
its scale and shift in batch norm, and in the next layer the weights for it.

The two networks give the same outputs only if the masked channel is silent. A filter of zeros
alone is not: batch norm adds its shift, and the next layer reads that. So the masks cover scale
and shift, too.

The shortcuts of :class:`rac_helpers.models.BasicBlock` stay a slice and an ``F.pad``: channels
along the shortcut are tied place by place (:func:`channel_groups`), so those that remain still lie
in the middle, and only the numbers of zeros before and after them change.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from rac_helpers.metrics.score import eval_mode
from rac_helpers.prune.masks import MaskSet
from rac_helpers.prune.wiring import (
    FIXED,
    ChannelMasks,
    ChannelPad,
    Wiring,
    follow_channels,
    kept_channels,
)


def parameter_masks(
    model: nn.Module, channel_masks: ChannelMasks, example: torch.Tensor
) -> MaskSet:
    """Widen channel masks to every parameter of these channels: weight, bias, scale and shift.

    The result keeps the channels silent during training, as ``after_step`` of
    :func:`rac_helpers.train.fit`.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    channel_masks : mapping of str to torch.Tensor
        By the names of the weights: bools of shape ``(out_channels,)``, True = kept, the same for
        tied channels. A layer without a mask is kept whole.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Returns
    -------
    MaskSet
        Of the parameters' shapes.

    Raises
    ------
    TypeError, ValueError
        As :func:`channel_groups`; or if a mask is no tensor of bools, belongs to another model,
        keeps no channel, cuts an output of the network, or differs between tied channels.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    >>> cut = {"0.weight": torch.tensor([True, False])}
    >>> masks = parameter_masks(model, cut, torch.zeros(1, 3, 4, 4))
    >>> list(masks), masks["1.bias"]  # the shift of batch norm, too
    (['0.weight', '0.bias', '1.weight', '1.bias'], tensor([ True, False]))
    """
    wiring = follow_channels(model, example)
    return _widen(model, wiring, kept_channels(wiring, channel_masks))


def _widen(model: nn.Module, wiring: Wiring, kept: torch.Tensor) -> MaskSet:
    masks = {}
    for layer, numbers in [*wiring.outputs.items(), *wiring.norms.items()]:
        if (numbers == FIXED).all():
            continue
        for name, value in model.get_submodule(layer).named_parameters(recurse=False):
            column = kept[numbers].reshape(-1, *[1] * (value.ndim - 1))  # (out, 1, 1, 1)
            masks[f"{layer}.{name}"] = column.expand(value.shape)
    return MaskSet(masks)


def zero_channels_(model: nn.Module, channel_masks: ChannelMasks, example: torch.Tensor) -> None:
    """Silence channels: set their weights, biases, scales and shifts to zero.

    The model keeps its size and its cost. :func:`shrink` takes the channels out.

    Parameters
    ----------
    model : nn.Module
        Changed, unless something is wrong with the masks.
    channel_masks : mapping of str to torch.Tensor
        As for :func:`parameter_masks`.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Raises
    ------
    TypeError, ValueError
        As :func:`parameter_masks`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    >>> _ = nn.init.constant_(model[1].bias, 5.0)  # the shift of batch norm
    >>> images = torch.rand(4, 3, 8, 8)
    >>> zero_channels_(model, {"0.weight": torch.tensor([True, False])}, images)
    >>> model[:2](images)[:, 1].count_nonzero()
    tensor(0)
    """
    parameter_masks(model, channel_masks, example).apply_(model)


def shrink(model: nn.Module, channel_masks: ChannelMasks, example: torch.Tensor) -> nn.Module:
    """Return a narrower copy of ``model`` without the channels that are cut.

    Its outputs are those of the model after :func:`zero_channels_`, which is checked on
    ``example``. It is of the same class and its parameters have the same names, but other shapes.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    channel_masks : mapping of str to torch.Tensor
        As for :func:`parameter_masks`.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Returns
    -------
    nn.Module
        In the model's mode (training or eval).

    Raises
    ------
    TypeError, ValueError
        As :func:`parameter_masks`; or if ``forward`` itself holds numbers of channels, so that the
        narrower copy cannot run it.

    References
    ----------
    Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, ICLR 2017,
    section 3.1.

    Examples
    --------
    >>> from rac_helpers import models
    >>> from rac_helpers.prune import channel_groups, filter_l1, uniform_group_masks
    >>> model, image = models.ResNet(8, width=4), torch.zeros(1, 3, 32, 32)
    >>> masks = uniform_group_masks(channel_groups(model, image), filter_l1(model), 0.5)
    >>> small = shrink(model, masks, image)
    >>> small.stem[0], small.stage2[0].pad
    (Conv2d(3, 2, kernel_size=(3, 3), ...), (0, 0, 0, 0, 1, 1))
    """
    wiring = follow_channels(model, example)
    kept = kept_channels(wiring, channel_masks)
    small = copy.deepcopy(model)
    for name, numbers in wiring.outputs.items():
        _narrow_layer_(small.get_submodule(name), kept[wiring.inputs[name]], kept[numbers])
    for name, numbers in wiring.norms.items():
        _narrow_norm_(small.get_submodule(name), kept[numbers])
    for pad in wiring.pads:
        _narrow_pad_(small.get_submodule(pad.owner), pad, kept)
    masked = copy.deepcopy(model)
    _widen(model, wiring, kept).apply_(masked)
    _check_same(small, masked, example)
    return small


def _narrow_layer_(layer: nn.Module, read: torch.Tensor, kept: torch.Tensor) -> None:
    """Take out the filters that are cut, and in the others the weights that read cut channels."""
    if getattr(layer, "groups", 1) > 1:  # depthwise: each filter reads its own channel
        layer.groups = int(kept.sum())
    else:
        _take_(layer, "weight", read, dim=1)
    _take_(layer, "weight", kept)
    _take_(layer, "bias", kept)
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = int(read.sum()), int(kept.sum())
    else:
        layer.in_channels, layer.out_channels = int(read.sum()), int(kept.sum())


def _narrow_norm_(norm: nn.Module, kept: torch.Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        _take_(norm, name, kept)
    norm.num_features = int(kept.sum())


def _take_(layer: nn.Module, name: str, kept: torch.Tensor, *, dim: int = 0) -> None:
    """Keep the entries of a parameter or buffer that are marked in ``kept``."""
    value = getattr(layer, name)
    if value is None:  # no bias; no running means
        return
    taken = value.detach().index_select(dim, kept.nonzero().flatten().to(value.device))
    if isinstance(value, nn.Parameter):
        taken = nn.Parameter(taken, requires_grad=value.requires_grad)
    setattr(layer, name, taken)


def _narrow_pad_(owner: nn.Module, pad: ChannelPad, kept: torch.Tensor) -> None:
    """Write the new numbers of zeros into the attribute that the owner's ``forward`` reads."""
    added = (int(kept[pad.before].sum()), int(kept[pad.after].sum()))
    amounts = (*pad.amounts[: pad.place], *added, *pad.amounts[pad.place + 2 :])
    if amounts == pad.amounts:
        return
    tuples = {name: value for name, value in vars(owner).items() if isinstance(value, tuple | list)}
    names = [name for name, value in tuples.items() if tuple(value) == pad.amounts]
    if len(names) != 1:
        raise ValueError(
            f"module {pad.owner!r} must keep the amounts {pad.amounts} of its F.pad in one "
            f"attribute, so that they can be changed, got {len(names)}"
        )
    setattr(owner, names[0], amounts)


def _check_same(small: nn.Module, masked: nn.Module, example: torch.Tensor) -> None:
    """Raise unless both give the same outputs: some number of channels stands in ``forward``."""
    message = "model's forward must not hold numbers of channels itself; without the cut channels"
    with eval_mode(small), eval_mode(masked), torch.no_grad():
        expected = _tensors(masked(example))
        try:
            found = _tensors(small(example))
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{message} it fails: {error}") from error
    for one, other in zip(found, expected, strict=True):
        one, other = one.cpu().double(), other.cpu().double()
        scale = float(other.nan_to_num().abs().max())  # rounding differs: sums have fewer terms
        if not torch.allclose(one, other, rtol=0, atol=1e-2 * scale, equal_nan=True):
            raise ValueError(f"{message} it gives other outputs")


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
