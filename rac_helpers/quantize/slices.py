"""The best way to cut sorted numbers into slices: k-means in one dimension, without luck."""

from __future__ import annotations

import numpy as np


def best_slices(points: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Cut sorted points into ``k`` slices with the least squared distances to their means.

    Dynamic programming: the best cut of the first j points into c slices ends with a slice that
    begins where the best cut into c - 1 slices stops. As j grows this place never moves back, so
    that the places of the points between two others need to be looked for only between theirs.

    Parameters
    ----------
    points : numpy.ndarray
        float64 of shape ``(n,)``, rising.
    counts : numpy.ndarray
        float64 of shape ``(n,)``, > 0: how often each point counts.
    k : int
        In [1, n].

    Returns
    -------
    numpy.ndarray
        Where the slices begin: int64 of shape ``(k,)``, the first one 0.

    References
    ----------
    Grønlund et al., 2017. Fast exact k-means, k-medians and Bregman divergence clustering in 1D.

    Examples
    --------
    >>> best_slices(np.array([0.0, 1.0, 5.0, 6.0, 9.0]), np.ones(5), 3)
    array([0, 2, 4])
    """
    weights = np.concatenate([[0.0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * (points - points.mean()))])
    n = len(points)
    best = np.concatenate([[np.inf], -(sums[1:] ** 2) / weights[1:]])
    begins = np.zeros((k, n + 1), dtype=np.int64)
    for number in range(1, k):
        best, begins[number] = _one_more(best, sums, weights, number)
    cuts = [n]
    for number in range(k - 1, -1, -1):
        cuts.append(begins[number, cuts[-1]])
    return np.array(cuts[:0:-1])


def _one_more(
    best: np.ndarray, sums: np.ndarray, weights: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add a slice: for each end the least cost and where the last slice begins."""
    n = len(best) - 1
    cost, begin = np.full(n + 1, np.inf), np.full(2 * n + 2, n - 1)
    begin[number] = number
    step = 2 ** (n - number).bit_length() // 2
    while step:
        ends = np.arange(number + step, n + 1, 2 * step)  # each between two that are known
        low, high = begin[ends - step], np.minimum(begin[ends + step], ends - 1)
        sizes = high - low + 1
        first = sizes.cumsum() - sizes
        start = np.arange(sizes.sum()) - (first - low).repeat(sizes)
        end = ends.repeat(sizes)
        costs = best[start] - (sums[end] - sums[start]) ** 2 / (weights[end] - weights[start])
        cost[ends] = np.minimum.reduceat(costs, first)
        hits = np.flatnonzero(costs == cost[end])[::-1]  # the first hit of an end is written last
        begin[end[hits]] = start[hits]
        step //= 2
    return cost, begin[: n + 1]
