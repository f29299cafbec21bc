"""Checks of chapter 07: a matrix in two factors, and a convolution in two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rac_helpers import lowrank
from rac_helpers.exercises.hint import CORRECT, Hint, expect, run
from rac_helpers.exercises.tensors import first_match, floats, pair
from rac_helpers.rng import make_generator

_ORDER = "(first, last)"


def check_split_matrix(split_matrix: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> str:
    """Check ``split_matrix(matrix, rank)``: two factors with the best product of that rank.

    Parameters
    ----------
    split_matrix : callable
        Takes floats ``(m, n)`` and a rank; returns a pair: ``first`` of shape ``(rank, n)`` and
        ``last`` of shape ``(m, rank)``, with ``last @ first`` as close to the matrix as any matrix
        of that rank. How the singular values are shared between them is free.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> def split_matrix(matrix, rank):
    ...     left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    ...     return right[:rank], left[:, :rank]
    >>> check_split_matrix(split_matrix)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the singular values are missing: the directions alone have \
length 1
    """
    for shape, rank in [((4, 4), 2), ((6, 3), 2), ((3, 5), 1), ((3, 5), 3)]:
        matrix = _numbers(shape)
        given, call = matrix.clone(), f"split_matrix(matrix of {shape}, {rank})"
        answer = run(split_matrix, given, rank)
        expect(torch.equal(given, matrix), "matrix was changed: make new tensors")
        first, last = pair(call, answer, _ORDER)
        _check_order(first, last, (rank, shape[1]), (shape[0], rank))
        first = floats(f"first of {call}", first, (rank, shape[1]))
        last = floats(f"last of {call}", last, (shape[0], rank))
        _compare(last @ first, matrix, rank)
    return CORRECT


def check_split_kernel(split_kernel: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> str:
    """Check ``split_kernel(weight, rank)``: the weights of a channel split.

    Parameters
    ----------
    split_kernel : callable
        Takes kernels ``(out, in, k, k)`` and a rank; returns a pair: the kernels of a convolution
        to ``rank`` channels, ``(rank, in, k, k)``, and those of the 1 x 1 convolution after it,
        ``(out, rank, 1, 1)``; together as close to the layer as that rank allows.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> def split_kernel(weight, rank):
    ...     out, inner, k, _ = weight.shape
    ...     return torch.zeros(rank, inner, 1, 1), torch.zeros(out, rank, k, k)
    >>> check_split_kernel(split_kernel)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the 1 x 1 convolution comes last: the k x k one before it \
has few outputs
    """
    for (out, inner, k), rank in [((4, 4, 3), 2), ((6, 3, 3), 2), ((3, 5, 2), 3)]:
        weight = _numbers((out, inner, k, k))
        given, call = weight.clone(), f"split_kernel(weight of {tuple(weight.shape)}, {rank})"
        answer = run(split_kernel, given, rank)
        expect(torch.equal(given, weight), "weight was changed: make new tensors")
        first, last = pair(call, answer, _ORDER)
        _check_order(first, last, (rank, inner, k, k), (out, rank, 1, 1))
        _check_side(first, last)
        first = floats(f"first of {call}", first, (rank, inner, k, k))
        last = floats(f"last of {call}", last, (out, rank, 1, 1))
        product = last[:, :, 0, 0] @ first.flatten(1)
        _compare(product, weight.flatten(1), rank, _turned(weight, rank))
    return CORRECT


def _numbers(shape: tuple[int, ...]) -> Tensor:
    """Return fixed numbers whose singular values differ clearly."""
    steps = torch.linspace(2.0, 0.5, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return torch.randn(shape, generator=make_generator(7)) * steps


def _check_order(first: Any, last: Any, small: tuple[int, ...], large: tuple[int, ...]) -> None:
    """Name the mistakes that shapes give away."""
    if not (isinstance(first, Tensor) and isinstance(last, Tensor)):
        return  # the next check names it
    shapes = tuple(first.shape), tuple(last.shape)
    if shapes == (large, small) != (small, large):
        raise Hint(f"the factor of the inputs comes first: {small}, then {large}")
    turned = (small[1], small[0], *small[2:]), (large[1], large[0], *large[2:])
    if shapes[0] == turned[0] != small or shapes[1] == turned[1] != large:
        raise Hint(f"a factor is transposed: {small} and {large} are asked for, got {shapes}")


def _check_side(first: Any, last: Any) -> None:
    sides = [tuple(one.shape[2:]) for one in (first, last) if isinstance(one, Tensor)]
    wrong = len(sides) == 2 and sides[0] == (1, 1) != sides[1] and len(sides[1]) == 2
    if wrong and first.shape[0] == last.shape[1]:
        hint = "the 1 x 1 convolution comes last: the k x k one before it has few outputs"
        raise Hint(hint)


def _turned(weight: Tensor, rank: int) -> dict[str, Tensor]:
    """Return what comes out if the roles of inputs and outputs are mixed up, where that fits."""
    if weight.shape[0] != weight.shape[1]:
        return {}
    product = _best(weight.double().transpose(0, 1).flatten(1), rank)
    return {"unfold to (out, in k k): these are directions of the inputs": product}


def _best(matrix: Tensor, rank: int) -> Tensor:
    left, values, right = lowrank.truncated_svd(matrix, min(rank, *matrix.shape))
    return left * values @ right


def _compare(
    product: Tensor, matrix: Tensor, rank: int, others: dict[str, Tensor] | None = None
) -> None:
    matrix, full = matrix.double(), min(matrix.shape)
    best = _best(matrix, rank)
    scale = matrix.norm().item()
    if torch.allclose(product, best, rtol=0, atol=1e-5 * scale):
        return
    left, values, right = lowrank.truncated_svd(matrix, full)
    kept = left[:, :rank], values[:rank], right[:rank]
    mistakes = _factor_mistakes(*kept) | (others or {})
    tail = left[:, full - rank :] * values[full - rank :] @ right[full - rank :]
    mistakes["keep the largest singular values, not the smallest"] = tail
    if matrix.shape[0] == matrix.shape[1]:
        turned = "torch.linalg.svd gives the right directions as rows: do not transpose them"
        mistakes[turned] = kept[0] * kept[1] @ right.T[:rank]
        columns = "the left directions are columns: take left[:, :rank]"
        mistakes[columns] = left[:rank].T * kept[1] @ kept[2]
    first_match(product, mistakes, tolerance=1e-5 * scale)
    off, least = (product - matrix).norm().item(), (best - matrix).norm().item()
    raise Hint(f"last @ first is off by {off:.4g}; at rank {rank} it can be {least:.4g}")


def _factor_mistakes(left: Tensor, values: Tensor, right: Tensor) -> dict[str, Tensor]:
    return {
        "the singular values are missing: the directions alone have length 1": left @ right,
        "the singular values are in both factors: they count once, or their roots twice": left
        * values**2
        @ right,
        "only one factor got the roots: both, or the values themselves in one": left
        * values.sqrt()
        @ right,
        "divide nothing by the singular values: multiply": left / values @ right,
    }
