"""Low rank: a layer as two or three thinner ones, by the singular value decomposition.

Open a module for what you want to know; in this order they build on each other.

- ``svd``: the best matrix of low rank, and how far it is off;
- ``splits``: a linear layer in two, a convolution in two by its channels or by its rows and
  columns; ``tucker``: a convolution in three (``layers``: plain layers from given weights);
- ``replace``: splits in a network, in place of its layers, and fused back;
- ``ranks``: the rank at which it pays, by energy, by a share of the weights; ``budget``: ranks for
  a whole network; ``scan``: by validation.

Fine-tuning is :func:`rac_helpers.train.fit`, as for any network.
"""

from rac_helpers.lowrank.budget import Option, choose_ranks, mac_options, weight_options
from rac_helpers.lowrank.ranks import (
    break_even_rank,
    rank_for_energy,
    rank_for_share,
    ranks_for_energy,
    ranks_for_share,
)
from rac_helpers.lowrank.replace import factorize, fuse_all, splits_of, splittable
from rac_helpers.lowrank.scan import rank_scan, smallest_ranks
from rac_helpers.lowrank.splits import ChannelSplit, LayerSplit, LinearSplit, SpatialSplit
from rac_helpers.lowrank.svd import (
    energy,
    singular_values,
    split_matrix,
    truncated_svd,
    truncation_error,
)
from rac_helpers.lowrank.tucker import HooiSplit, TuckerSplit, tucker2, tucker_break_even

__all__ = [
    "ChannelSplit",
    "HooiSplit",
    "LayerSplit",
    "LinearSplit",
    "Option",
    "SpatialSplit",
    "TuckerSplit",
    "break_even_rank",
    "choose_ranks",
    "energy",
    "factorize",
    "fuse_all",
    "mac_options",
    "rank_for_energy",
    "rank_for_share",
    "rank_scan",
    "ranks_for_energy",
    "ranks_for_share",
    "singular_values",
    "smallest_ranks",
    "split_matrix",
    "splits_of",
    "splittable",
    "truncated_svd",
    "truncation_error",
    "tucker2",
    "tucker_break_even",
    "weight_options",
]
