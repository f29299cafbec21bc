"""Codes without a grid: a list of values that k-means fits to the weights (non-uniform).

Each weight is replaced by the nearest of ``2 ** bits`` values, the codebook. Where weights are
dense the values are dense, too. Price: the codebook has to be stored, and a code is an index, so
nothing can be computed with it before it is looked up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from rac_helpers._check import check_generator, check_int
from rac_helpers.quantize.ranges import check_values
from rac_helpers.quantize.slices import best_slices

_NUM_GROUPS = 4096
_NUM_SEEDS = 4096  # k-means++ draws from so many weights, evenly spread in rank: it is slow


@dataclass(frozen=True, eq=False)
class Codebook:
    """Indices into a list of values.

    Parameters
    ----------
    indices : torch.Tensor
        uint8 (int16 above 256 values), in the shape of the weights.
    values : torch.Tensor
        float32 of shape ``(k,)``, rising.

    Examples
    --------
    >>> book = Codebook(torch.tensor([1, 0, 1], dtype=torch.uint8), torch.tensor([-0.5, 2.0]))
    >>> book.decode(), book.size_bits  # 3 * 1 + 2 * 32
    (tensor([ 2.0000, -0.5000,  2.0000]), 67)
    """

    indices: torch.Tensor
    values: torch.Tensor

    def decode(self) -> torch.Tensor:
        """Return the value of each index, float32, in the shape of the indices."""
        return self.values[self.indices.long()]

    @property
    def size_bits(self) -> int:
        """Bits of the indices, densely packed, and of the values."""
        bits = max(1, (len(self.values) - 1).bit_length())
        return bits * self.indices.numel() + 32 * len(self.values)


def kmeans_codebook(
    weights: torch.Tensor,
    bits: int,
    *,
    generator: torch.Generator,
    iterations: int = 300,
    restarts: int = 5,
) -> Codebook:
    """Fit ``2 ** bits`` values to the weights, so that the squared error is small.

    Lloyd's algorithm: each weight goes to the nearest value, each value to the mean of its
    weights, until nothing changes. The weights are sorted once, so that a cluster is a slice. It
    finds a local optimum; of several starts (evenly spaced in value, as in the paper, in rank, up
    to 8 bits the best cut of 4,096 groups of weights, and k-means++) the best one counts.

    Parameters
    ----------
    weights : torch.Tensor
        Floats of any shape, finite.
    bits : int
        In [1, 12].
    generator : torch.Generator
        Of the CPU, for k-means++.
    iterations : int
        At most so many for each start, at least 1.
    restarts : int
        Starts by k-means++, at least 0.

    Returns
    -------
    Codebook
        With fewer values if the weights have fewer.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Han, Mao and Dally, 2016. Deep compression, section 3. Arthur and Vassilvitskii, 2007.
    k-means++: the advantages of careful seeding.

    Examples
    --------
    >>> weights = torch.tensor([0.1, 0.2, 0.9, 1.1])
    >>> book = kmeans_codebook(weights, bits=1, generator=torch.Generator())
    >>> book.values, book.indices
    (tensor([0.1500, 1.0000]), tensor([0, 0, 1, 1], dtype=torch.uint8))
    """
    check_values("weights", weights)
    check_int("bits", bits, low=1, high=12)
    check_int("iterations", iterations, low=1)
    check_int("restarts", restarts, low=0)
    check_generator(generator)
    points = weights.detach().cpu().flatten().double().sort().values
    k = min(2**bits, int((points.diff() > 0).sum()) + 1)
    sums = torch.cat([points.new_zeros(1), points.cumsum(0)])
    starts = [torch.linspace(points[0], points[-1], k, dtype=points.dtype)]
    starts += [_by_rank(points, k)]
    if k <= _NUM_GROUPS // 16:  # up to 8 bits: time and memory grow with k
        starts.append(_by_groups(points, k))
    some = _by_rank(points, min(len(points), max(_NUM_SEEDS, k)))
    starts += [_plus_plus(some, k, generator) for _ in range(restarts)]
    found = [_lloyd(points, sums, start, iterations) for start in starts]
    values = min(found, key=lambda values: _inertia(points, values)).float()
    indices = torch.bucketize(weights.detach().cpu().float(), _borders(values))
    dtype = torch.uint8 if k <= 256 else torch.int16
    return Codebook(indices.to(weights.device, dtype), values.to(weights.device))


def _lloyd(
    points: torch.Tensor, sums: torch.Tensor, values: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Move the values until they stay; a value without points keeps its place."""
    for _ in range(iterations):
        ends = torch.searchsorted(points, _borders(values), right=True)
        ends = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([len(points)])])
        counts = ends.diff()
        means = (sums[ends[1:]] - sums[ends[:-1]]) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, values).sort().values
        if torch.equal(moved, values):
            break
        values = moved
    return values


def _borders(values: torch.Tensor) -> torch.Tensor:
    """Half-way between neighbours: below it the lower one is the nearest."""
    return (values[1:] + values[:-1]) / 2


def _inertia(points: torch.Tensor, values: torch.Tensor) -> float:
    """Sum of the squared distances to the nearest value."""
    return (points - values[torch.bucketize(points, _borders(values))]).square().sum().item()


def _by_rank(points: torch.Tensor, k: int) -> torch.Tensor:
    ranks = (torch.arange(k) + 0.5) / k * len(points)
    return points[ranks.long()]


def _by_groups(points: torch.Tensor, k: int) -> torch.Tensor:
    """The means of the best cut; of few points itself, of many after they are put in groups."""
    flat = points.numpy()
    begins = np.arange(len(flat))
    if len(flat) > _NUM_GROUPS:  # half by rank, half by value: tails are wide
        number = _NUM_GROUPS // 2
        roots = np.cbrt(flat - np.median(flat))
        widths = np.searchsorted(roots, np.linspace(roots[0], roots[-1], number))
        begins = np.unique([*np.linspace(0, len(flat), number, endpoint=False, dtype=int), *widths])
    counts = np.diff(begins, append=len(flat)).astype(float)
    means = np.add.reduceat(flat, begins) / counts
    slices = best_slices(means, counts, k)
    totals = np.add.reduceat(means * counts, slices) / np.add.reduceat(counts, slices)
    return torch.from_numpy(totals)


def _plus_plus(points: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """Draw values one by one, a point the more likely the farther it is from those drawn."""
    first = torch.randint(len(points), (1,), generator=generator)
    values, distance = [points[first]], (points - points[first]).square()
    tries = 2 + int(math.log(k))  # of several draws the one that helps most, as scikit-learn does
    for _ in range(k - 1):
        draws = torch.rand(tries, generator=generator).double() * distance.sum()
        places = torch.searchsorted(distance.cumsum(0), draws).clamp(max=len(points) - 1)
        left = torch.minimum(distance, (points - points[places, None]).square())  # (tries, n)
        best = left.sum(dim=1).argmin()
        values.append(points[places[best], None])
        distance = left[best]
    return torch.cat(values).sort().values
