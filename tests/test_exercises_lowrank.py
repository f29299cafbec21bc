"""The checks of chapter 07 accept right answers in several styles and reject typical mistakes."""

import math

import numpy as np
import torch

from rac_helpers import lowrank

# -- right answers --------------------------------------------------------------------------------


def rank_by_formula(rows, columns):
    return rows * columns / (rows + columns)


def rank_by_halves(rows, columns):
    return 1 / (1 / rows + 1 / columns)


def rank_as_array(rows, columns):
    return np.float32(rows * columns) / np.float32(rows + columns)


def svd(matrix):
    return torch.linalg.svd(matrix, full_matrices=False)


def values_on_the_left(matrix, rank):
    left, values, right = svd(matrix)
    return right[:rank], left[:, :rank] * values[:rank]


def values_on_the_right(matrix, rank):
    left, values, right = torch.linalg.svd(matrix)  # full matrices
    return torch.diag(values[:rank]) @ right[:rank], left[:, :rank]


def roots_on_both(matrix, rank):
    return [*lowrank.split_matrix(matrix, rank)]


def by_eigenvectors(matrix, rank):
    _, vectors = torch.linalg.eigh(matrix.double() @ matrix.double().T)
    last = vectors[:, -rank:]
    return last.T @ matrix.double(), last


def truncation_by_slices(values, rank):
    squares = values**2
    return squares[rank:].sum().sqrt(), squares[:rank].sum() / squares.sum()


def truncation_in_python(values, rank):
    values = values.tolist()
    lost, whole = (math.fsum(v * v for v in part) for part in (values[rank:], values))
    return math.sqrt(lost), 1 - lost / whole


def truncation_by_library(values, rank):
    return [lowrank.truncation_error(values, rank), lowrank.energy(values)[rank - 1]]


def kernels_by_svd(weight, rank):
    left, values, right = svd(weight.flatten(1))
    first = right[:rank].reshape(rank, *weight.shape[1:])
    return first, (left[:, :rank] * values[:rank])[:, :, None, None]


def kernels_by_library(weight, rank):
    out, inner, k, _ = weight.shape
    layer = torch.nn.Conv2d(inner, out, k)
    layer.weight.data = weight
    split = lowrank.ChannelSplit(layer, rank)
    return split.first.weight, split.last.weight


RIGHT = {
    "break_even_rank": [rank_by_formula, rank_by_halves, rank_as_array, lowrank.break_even_rank],
    "split_matrix": [values_on_the_left, values_on_the_right, roots_on_both, by_eigenvectors],
    "truncation": [truncation_by_slices, truncation_in_python, truncation_by_library],
    "split_kernel": [kernels_by_svd, kernels_by_library],
}

# -- wrong ones -----------------------------------------------------------------------------------


def _factors(function):
    """Answer with ``function(left, values, right)`` of the leading directions."""

    def split_matrix(matrix, rank):
        left, values, right = svd(matrix)
        return function(left[:, :rank], values[:rank], right[:rank])

    return split_matrix


def _smallest(matrix, rank):
    left, values, right = svd(matrix)
    return right[-rank:], left[:, -rank:] * values[-rank:]


def _right_transposed(matrix, rank):
    left, values, right = svd(matrix)
    return right.T[:rank], left[:, :rank] * values[:rank]


def _rows_of_left(matrix, rank):
    left, values, right = svd(matrix)
    return right[:rank], left[:rank].T * values[:rank]


def _full_rank(matrix, rank):
    left, values, right = svd(matrix)
    return right, left * values


def _changes_the_matrix(matrix, rank):
    answer = values_on_the_left(matrix, rank)
    matrix.zero_()
    return answer


def _pair(error=None, energy=None):
    """Answer with the right numbers but for one: ``function(values, rank)``."""

    def truncation(values, rank):
        right = truncation_by_slices(values, rank)
        return (
            right[0] if error is None or rank == len(values) else error(values, rank),
            right[1] if energy is None or rank == len(values) else energy(values, rank),
        )

    return truncation


def _error(function):
    return _pair(error=function)


def _energy(function):
    return _pair(energy=function)


def _share(values, rank):
    return truncation_by_slices(values, rank)[1]


def _at_full_rank(error, energy):
    def truncation(values, rank):
        return (error, energy) if rank == len(values) else truncation_by_slices(values, rank)

    return truncation


def _changes_the_values(values, rank):
    answer = truncation_by_slices(values, rank)
    values.square_()
    return answer


def _kernels(split_matrix):
    """Turn the factors of the unfolded kernels, right or wrong, into kernels."""

    def split_kernel(weight, rank):
        first, last = split_matrix(weight.flatten(1), rank)
        return first.reshape(len(first), *weight.shape[1:]), last[:, :, None, None]

    return split_kernel


def _one_by_one_first(weight, rank):
    """Also a split of rank r, but of the other unfolding: the 1 x 1 mixes the inputs."""
    inner, k = weight.shape[1], weight.shape[2]
    first, last = values_on_the_left(weight.transpose(0, 1).flatten(1).T, rank)
    return first.reshape(rank, inner, 1, 1), last.reshape(-1, k, k, rank).permute(0, 3, 1, 2)


def _directions_of_inputs(weight, rank):
    if weight.shape[0] != weight.shape[1]:
        return kernels_by_svd(weight, rank)
    return kernels_by_svd(weight.transpose(0, 1), rank)


def _reshaped_not_permuted(weight, rank):
    out, inner, k, _ = weight.shape
    first, last = values_on_the_left(weight.reshape(inner * k, out * k), rank)
    return first.reshape(rank, -1)[:, : inner * k * k].reshape(rank, inner, k, k), last


WRONG = {
    "break_even_rank": [
        (lambda m, n: min(m, n) / 2, "for a square only"),
        (lambda m, n: min(m, n) // 2, "for a square only"),
        (lambda m, n: min(m, n), "full rank"),
        (lambda m, n: (m + n) / (m * n), "upside down"),
        (lambda m, n: m + n / m * n, "brackets are missing"),
        (lambda m, n: m + n / (m * n), "brackets are missing"),
        (lambda m, n: m * n / m + n, "brackets are missing"),
        (lambda m, n: m * n, "entries of the matrix: divide"),
        (lambda m, n: m + n, "for each rank"),
        (lambda m, n: m * n / (m + n) / 2, "no further half"),
        (lambda m, n: 2 * m * n / (m + n), "twice too much"),
        (lambda m, n: m * n / (m + n + 1), "not stored"),
        (lambda m, n: math.sqrt(m * n), "equal to m n"),
        (lambda m, n: m * n // (m + n), "not rounded"),
        (lambda m, n: round(m * n / (m + n)), "not rounded"),
        (lambda m, n: math.ceil(m * n / (m + n)), "not rounded"),
        (lambda m, n: m * n / (m + n) + 1, "too large"),
        (lambda m, n: None, "must be a number"),
        (lambda m: m, "raised TypeError"),
    ],
    "split_matrix": [
        (_factors(lambda u, s, v: (v, u)), "singular values are missing"),
        (_factors(lambda u, s, v: (s[:, None] * v, u * s)), "they count once"),
        (_factors(lambda u, s, v: (v, u * s.sqrt())), "only one factor got the roots"),
        (_factors(lambda u, s, v: (s.sqrt()[:, None] * v, u)), "only one factor got the roots"),
        (_factors(lambda u, s, v: (v, u / s)), "divide nothing"),
        (_factors(lambda u, s, v: (u * s, v)), "factor of the inputs comes first"),
        (_factors(lambda u, s, v: (v.T, u * s)), "a factor is transposed"),
        (_factors(lambda u, s, v: (v, (u * s).T)), "a factor is transposed"),
        (_factors(lambda u, s, v: ((u * s).T, v.T)), "is off by"),  # the transposed matrix
        (_smallest, "not the smallest"),
        (_right_transposed, "do not transpose them"),
        (_rows_of_left, "directions are columns"),
        (_full_rank, r"must have the shape \(2, 4\), got \(4, 4\)"),
        (lambda w, r: (torch.ones(r, w.shape[1]), torch.ones(w.shape[0], r)), "is off by"),
        (_factors(lambda u, s, v: (v, 1.01 * u * s)), "is off by"),
        (_factors(lambda u, s, v: (v, u * s, s)), "must be a pair"),
        (_factors(lambda u, s, v: u * s @ v), "must be a pair"),
        (_factors(lambda u, s, v: (v.numpy(), (u * s).numpy())), "floats, got ndarray"),
        (_changes_the_matrix, "was changed"),
        (lambda w, r: torch.linalg.svd(w, r), "raised TypeError"),
    ],
    "truncation": [
        (_error(lambda s, r: s[r]), "the largest value left out"),
        (_error(lambda s, r: s[r:].sum()), "add the squares"),
        (_error(lambda s, r: (s[r:] ** 2).sum()), "root is missing"),
        (_error(lambda s, r: (s[r:] ** 2).mean().sqrt()), "no mean"),
        (_error(lambda s, r: s[:r].norm()), "what is kept"),
        (_error(lambda s, r: s[r - 1 :].norm()), "(off by one|whole matrix)"),
        (_error(lambda s, r: s[r + 1 :].norm()), "off by one"),
        (_error(lambda s, r: s.norm()), "whole matrix"),
        (_error(lambda s, r: s[r:].norm() / s.norm()), "relative error"),
        (_error(lambda s, r: 1 - _share(s, r)), "share that is lost"),
        (_error(lambda s, r: 2 * s[r:].norm()), "too large"),
        (_error(lambda s, r: s[r:]), "must be a number"),
        (_energy(lambda s, r: s[:r].sum() / s.sum()), "squares, not values"),
        (_energy(lambda s, r: 1 - _share(s, r)), "share that is lost"),
        (_energy(lambda s, r: _share(s, r) ** 0.5), "no root"),
        (_energy(lambda s, r: (s[:r] ** 2).sum()), "divide by the squared norm"),
        (_energy(lambda s, r: _share(s, r + 1)), "off by one"),
        (_energy(lambda s, r: _share(s, r - 1)), "off by one"),
        (_energy(lambda s, r: r / len(s)), "whatever their size"),
        (_energy(lambda s, r: 100 * _share(s, r)), "not percent"),
        (_energy(lambda s, r: 1 - s[r:].norm() / s.norm()), "squared relative error"),
        (_energy(lambda s, r: 0.999), "too large"),
        (_at_full_rank(5**0.5, 1.0), "nothing is left out"),
        (_at_full_rank(0.0, 0.0), "all energy is kept"),
        (lambda s, r: (s[r], 1.0), "largest value|raised IndexError"),
        (lambda s, r: truncation_by_slices(s, r)[0], "must be a pair"),
        (lambda s, r: truncation_by_slices(s, r)[::-1], "error of .* too small"),
        (_changes_the_values, "was changed"),
    ],
    "split_kernel": [
        (_one_by_one_first, "1 x 1 convolution comes last"),
        (lambda w, r: kernels_by_svd(w, r)[::-1], "factor of the inputs comes first"),
        (
            lambda w, r: (kernels_by_svd(w, r)[0], kernels_by_svd(w, r)[1].transpose(0, 1)),
            "a factor is transposed",
        ),
        (
            lambda w, r: (kernels_by_svd(w, r)[0].transpose(0, 1), kernels_by_svd(w, r)[1]),
            "a factor is transposed",
        ),
        (_kernels(_factors(lambda u, s, v: (v, u))), "singular values are missing"),
        (_kernels(_factors(lambda u, s, v: (s[:, None] * v, u * s))), "they count once"),
        (_kernels(_factors(lambda u, s, v: (v, u * s.sqrt()))), "only one factor"),
        (_kernels(_smallest), "not the smallest"),
        (_directions_of_inputs, "directions of the inputs"),
        (_reshaped_not_permuted, "must have the shape|raised"),
        (lambda w, r: (kernels_by_svd(w, r)[0], kernels_by_svd(w, r)[1][..., 0, 0]), "the shape"),
        (lambda w, r: (w[:r], torch.ones(len(w), r, 1, 1)), "is off by"),
        (lambda w, r: w, "must be a pair"),
        (lambda w, r: (w.zero_(), w), "was changed"),
        (lambda w, r: svd(w.flatten(2))[:2], "must have the shape"),
        (lambda w, r: lowrank.split_matrix(w, r), "raised ValueError"),
    ],
}


OTHER = [None, [1.0], [[1], [2]], "ab", {"a": 1}, {1, 2}, True, 1j, float("nan"), 10**400, float]
OTHER += [torch.ones(3), np.ones((2, 2)), torch.tensor(True), (None, None), (1, torch.ones(2))]
OTHER += [torch.ones(16, 16), (torch.tensor(1j), 1), (torch.ones(()), torch.ones(()))]
