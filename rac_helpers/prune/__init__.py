"""Pruning: cut what matters least, W' = m ⊙ W.

Open a module for what you want to know; in this order they build on each other.

Single weights:

- ``weights``: which tensors can be cut; ``masks``: the mask as an object, applied and kept;
- ``scores``: what a weight is worth (``gradients``: derivatives, with the model left as it was);
- ``builders``: from scores to masks, by layer, over all layers, N:M, in blocks;
- ``schedule``, ``callback``: when to cut, and how to do it during a training; ``lottery``: cut,
  rewind and train again;
- ``sensitivity``: which layer can lose how much;
- ``storage``: the bytes of a tensor with zeros, honestly counted; ``packing``: of a whole model.

Whole channels, for a network that is really narrower:

- ``channel_scores``: what a channel is worth;
- ``groups``: which channels are tied, and from scores to masks of channels (``wiring`` and
  ``channel_rules``: how the channels are followed through the network);
- ``surgery``: silence channels, or take them out; ``budget``: how many, for a share of the MACs.
"""

from rac_helpers.prune.budget import channel_masks_for_macs
from rac_helpers.prune.builders import (
    block_masks,
    global_masks,
    layer_masks,
    n_m_masks,
    threshold_masks,
)
from rac_helpers.prune.callback import Pruner
from rac_helpers.prune.channel_scores import bn_scale, filter_l1, filter_l2, geometric_median
from rac_helpers.prune.groups import (
    ChannelGroup,
    channel_groups,
    global_group_masks,
    uniform_group_masks,
)
from rac_helpers.prune.lottery import TicketRound, find_ticket_, rewind_
from rac_helpers.prune.masks import MaskSet, nonzero_masks
from rac_helpers.prune.packing import pack, unpack_
from rac_helpers.prune.schedule import CubicSchedule, InEpochs, StepSchedule, iterative, one_shot
from rac_helpers.prune.scores import (
    gradient_scores,
    magnitude_scores,
    obd_scores,
    random_scores,
    taylor_scores,
)
from rac_helpers.prune.sensitivity import largest_sparsities, sensitivity_scan
from rac_helpers.prune.storage import (
    decode_bitmap,
    decode_csr,
    decode_dense,
    decode_gaps,
    encode_bitmap,
    encode_csr,
    encode_dense,
    encode_gaps,
)
from rac_helpers.prune.surgery import parameter_masks, shrink, zero_channels_
from rac_helpers.prune.weights import prunable

__all__ = [
    "ChannelGroup",
    "CubicSchedule",
    "InEpochs",
    "MaskSet",
    "Pruner",
    "StepSchedule",
    "TicketRound",
    "block_masks",
    "bn_scale",
    "channel_groups",
    "channel_masks_for_macs",
    "decode_bitmap",
    "decode_csr",
    "decode_dense",
    "decode_gaps",
    "encode_bitmap",
    "encode_csr",
    "encode_dense",
    "encode_gaps",
    "filter_l1",
    "filter_l2",
    "find_ticket_",
    "geometric_median",
    "global_group_masks",
    "global_masks",
    "gradient_scores",
    "iterative",
    "largest_sparsities",
    "layer_masks",
    "magnitude_scores",
    "n_m_masks",
    "nonzero_masks",
    "obd_scores",
    "one_shot",
    "pack",
    "parameter_masks",
    "prunable",
    "random_scores",
    "rewind_",
    "sensitivity_scan",
    "shrink",
    "taylor_scores",
    "threshold_masks",
    "uniform_group_masks",
    "unpack_",
    "zero_channels_",
]
