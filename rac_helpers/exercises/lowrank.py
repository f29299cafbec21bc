"""Checks of chapter 07: the rank that pays, and what a rank loses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rac_helpers import lowrank
from rac_helpers.exercises.hint import CORRECT, expect, match, run
from rac_helpers.exercises.tensors import pair


def check_break_even_rank(break_even_rank: Callable[[int, int], float]) -> str:
    """Check ``break_even_rank(rows, columns)``: where two factors have the weights of the matrix.

    Parameters
    ----------
    break_even_rank : callable
        Takes the shape of a matrix; returns the rank, not rounded, at which factors of shapes
        ``(rows, rank)`` and ``(rank, columns)`` have as many entries as the matrix.

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
    >>> check_break_even_rank(lambda rows, columns: min(rows, columns) / 2)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: half of the smaller side is right for a square only
    """
    for rows, columns in [(100, 300), (576, 64), (100, 75), (8, 8)]:
        call = f"break_even_rank({rows}, {columns})"
        right = lowrank.break_even_rank(rows, columns)
        answer = run(break_even_rank, rows, columns)
        match(call, answer, right, _break_even_hints(rows, columns))
    return CORRECT


def check_truncation(truncation: Callable[[Tensor, int], tuple[float, float]]) -> str:
    """Check ``truncation(values, rank)``: what a rank loses and what it keeps.

    Parameters
    ----------
    truncation : callable
        Takes all singular values of a matrix, the largest first, floats of shape ``(k,)``, and a
        rank in ``[1, k]``; returns a pair of numbers: the Frobenius norm of the difference to the
        best matrix of that rank, and the energy: the share of the squared norm that is kept.

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
    >>> check_truncation(lambda values, rank: (values[rank], 0.0))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the largest value left out is the error in the spectral norm: \
the Frobenius norm counts them all
    """
    for numbers, rank in [((24.0, 12.0, 4.0, 3.0), 1), ((5.0, 4.0, 2.0, 1.0, 0.5), 3), ((2, 1), 2)]:
        values = torch.tensor(numbers, dtype=torch.float32)
        given, call = values.clone(), f"truncation({list(numbers)}, {rank})"
        answer = run(truncation, given, rank)
        expect(torch.equal(given, values), "values was changed: make a new tensor")
        error, energy = pair(call, answer, "(error, energy)")
        match(f"the error of {call}", error, *_errors(values.double(), rank))
        match(f"the energy of {call}", energy, *_energies(values.double(), rank))
    return CORRECT


def _break_even_hints(m: int, n: int) -> dict[float, str]:
    brackets = "brackets are missing: division comes before addition"
    return {
        min(m, n) / 2: "half of the smaller side is right for a square only",
        min(m, n): "that is the full rank: there two factors have more entries than the matrix",
        (m + n) / (m * n): "upside down: the entries of the matrix go above",
        m + n / m * n: brackets,
        m + n / (m * n): brackets,
        m * n / m + n: brackets,
        m * n: "these are the entries of the matrix: divide them by those of each rank",
        m
        + n: "these are the entries of the factors for each rank: how many ranks are m n of them?",
        m * n / (m + n) / 2: "both factors are in m + n already: no further half",
        2 * m * n / (m + n): "twice too much: each rank costs a row and a column, m + n",
        m * n / (m + n + 1): "the singular values are multiplied into a factor, not stored",
        math.sqrt(m * n): "set rank * (m + n) equal to m n",
        math.floor(m * n / (m + n)): "not rounded: give the number itself",
        round(m * n / (m + n)): "not rounded: give the number itself",
    }


def _errors(values: Tensor, rank: int) -> tuple[float, dict[float, str]]:
    rest, whole = values[rank:], values.norm().item()
    error = rest.norm().item()
    if not len(rest):
        return 0.0, {whole: "at full rank nothing is left out"}
    shifted = "off by one: rank values are kept, so the rest begins at index rank"
    spectral = "the largest value left out is the error in the spectral norm: the Frobenius norm"
    return error, {
        rest[0].item(): f"{spectral} counts them all",
        rest.sum().item(): "add the squares, not the values",
        error**2: "the root is missing",
        rest.square().mean().sqrt().item(): "sum up the squares: no mean",
        values[:rank].norm().item(): "that is the norm of what is kept",
        values[rank - 1 :].norm().item(): shifted,
        values[rank + 1 :].norm().item(): shifted,
        whole: "that is the norm of the whole matrix",
        error / whole: "that is the relative error: do not divide by the norm of the matrix",
        (error / whole) ** 2: "that is the share that is lost: the error is a norm",
    }


def _energies(values: Tensor, rank: int) -> tuple[float, dict[float, str]]:
    squares = values.square()
    share = (squares[:rank].sum() / squares.sum()).item()
    if rank == len(values):
        return 1.0, {0.0: "at full rank all energy is kept"}
    shifted = "off by one: energy of the first rank values"
    return share, {
        (values[:rank].sum() / values.sum()).item(): "energy counts squares, not values",
        1 - share: "that is the share that is lost",
        math.sqrt(share): "no root: energy is a share of the squared norm",
        squares[:rank].sum().item(): "a share: divide by the squared norm of the whole",
        (squares[: rank - 1].sum() / squares.sum()).item(): shifted,
        (squares[: rank + 1].sum() / squares.sum()).item(): shifted,
        rank / len(values): "that is the share of the values, whatever their size",
        100 * share: "a share between 0 and 1, not percent",
        1 - math.sqrt(1 - share): "energy is 1 minus the squared relative error",
    }
