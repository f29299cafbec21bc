"""The truncated SVD is the best matrix of its rank, and its error is what was left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.decomposition import TruncatedSVD

from rac_helpers.lowrank import (
    energy,
    singular_values,
    split_matrix,
    truncated_svd,
    truncation_error,
)
from rac_helpers.rng import make_generator

SHAPES = [(5, 5), (7, 3), (3, 8), (1, 4), (6, 1)]


def random_matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=make_generator(seed))


@st.composite
def matrices_with_ranks(draw):
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    entries = st.floats(-10, 10, width=32).map(lambda x: round(x, 3))
    matrix = draw(arrays.arrays(np.float64, (rows, columns), elements=entries))
    return torch.from_numpy(matrix), draw(st.integers(1, min(rows, columns)))


# -- the decomposition ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_numpy(shape):
    matrix = random_matrix(*shape)
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert singular_values(matrix).dtype == torch.float64
    np.testing.assert_allclose(singular_values(matrix).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_same_matrix_as_scikit_learn(rank):
    matrix = random_matrix(12, 7)
    solver = TruncatedSVD(rank, algorithm="arpack", random_state=0)
    theirs = solver.fit_transform(matrix.double().numpy()) @ solver.components_
    left, values, right = truncated_svd(matrix, rank)
    np.testing.assert_allclose((left * values @ right).numpy(), theirs, atol=1e-10)
    np.testing.assert_allclose(values.numpy(), solver.singular_values_, rtol=1e-10)


@given(matrices_with_ranks())
@settings(max_examples=60, deadline=None)
def test_error_is_the_norm_of_the_discarded_values(pair):
    """Eckart and Young: the difference has the norm of the singular values that are left out."""
    matrix, rank = pair
    left, values, right = truncated_svd(matrix, rank)
    difference = (matrix - left * values @ right).norm().item()
    scale = max(1.0, matrix.norm().item())
    assert difference == pytest.approx(
        truncation_error(singular_values(matrix), rank), abs=1e-12 * scale
    )
    kept = energy(singular_values(matrix))[rank - 1].item()
    lost = max(0.0, 1 - kept) ** 0.5 * matrix.norm().item()
    assert difference == pytest.approx(lost, abs=1e-6 * scale)


@given(matrices_with_ranks(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_nothing_of_that_rank_is_closer(pair, seed):
    matrix, rank = pair
    rows, columns = matrix.shape
    _, last = split_matrix(matrix, rank)
    generator = make_generator(seed)
    other = last + 0.1 * torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    best_first = torch.linalg.pinv(other) @ matrix  # the best partner of these columns
    best = truncation_error(singular_values(matrix), rank)
    assert (matrix - other @ best_first).norm() >= best - 1e-9 * max(1.0, matrix.norm())
    random = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
    assert (matrix - last @ random).norm() >= best - 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_give_the_matrix_back_at_full_rank(shape):
    matrix = random_matrix(*shape)
    first, last = split_matrix(matrix, min(shape))
    assert first.shape == (min(shape), shape[1])
    assert last.shape == (shape[0], min(shape))
    torch.testing.assert_close(last @ first, matrix.double(), rtol=0, atol=1e-12)


def test_both_factors_have_the_same_size():
    matrix = random_matrix(9, 6)
    first, last = split_matrix(matrix, 4)
    values = singular_values(matrix)[:4]
    torch.testing.assert_close(first.square().sum(1), values)
    torch.testing.assert_close(last.square().sum(0), values)


def test_a_matrix_of_low_rank_is_kept_whole():
    matrix = random_matrix(8, 2) @ random_matrix(2, 9, seed=1)
    first, last = split_matrix(matrix, 2)
    torch.testing.assert_close((last @ first).float(), matrix, rtol=0, atol=1e-5)
    assert truncation_error(singular_values(matrix), 2) < 1e-5
    assert truncation_error(singular_values(matrix), 1) > 0.1


def test_zeros_and_ties():
    zeros = torch.zeros(3, 4)
    first, last = split_matrix(zeros, 2)
    assert not (last @ first).any()
    assert energy(singular_values(zeros)).tolist() == [1, 1, 1]
    assert truncation_error(singular_values(zeros), 1) == 0
    first, last = split_matrix(torch.eye(4), 3)  # any three directions are the best
    assert (torch.eye(4) - last @ first).norm().item() == pytest.approx(1)


def test_half_precision_and_gradients_come_in_and_do_not_go_out():
    matrix = random_matrix(4, 4).to(torch.bfloat16).requires_grad_()
    parts = [*truncated_svd(matrix, 2), *split_matrix(matrix, 2), singular_values(matrix)]
    assert {part.dtype for part in parts} == {torch.float64}
    assert not any(part.requires_grad for part in parts)


def test_nothing_is_written_or_drawn():
    matrix, state = random_matrix(5, 4), torch.get_rng_state()
    before = matrix.clone()
    split_matrix(matrix, 2)
    energy(singular_values(matrix))
    assert torch.equal(matrix, before)
    assert torch.equal(torch.get_rng_state(), state)


# -- energy and error -----------------------------------------------------------------------------


def _round(value: float) -> float:
    return round(value, 6)  # squares of the smallest floats are 0


falling = st.lists(st.floats(0, 100), min_size=1, max_size=8).map(
    lambda values: torch.tensor(sorted(map(_round, values), reverse=True), dtype=torch.float64)
)


@given(falling)
@settings(max_examples=60, deadline=None)
def test_energy_rises_to_one_while_the_error_falls_to_zero(values):
    share = energy(values)
    errors = [truncation_error(values, rank) for rank in range(len(values) + 1)]
    assert share[-1] == 1
    assert (share.diff() >= 0).all()
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
    assert errors[0] == pytest.approx(math.sqrt(math.fsum(v * v for v in values.tolist())))


def test_energy_counts_squares():
    assert energy(torch.tensor([4.0, 3.0])).tolist() == pytest.approx([16 / 25, 1])
    assert truncation_error(torch.tensor([9.0, 4.0, 3.0]), 1) == 5  # neither 4 nor 4 + 3


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        ([[1.0]], TypeError, "matrix must be a tensor of floats, got list"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, r"of floats, got torch\.int64"),
        (torch.ones(2), ValueError, r"must have shape \(m, n\) with m, n >= 1, got \(2,\)"),
        (torch.ones(2, 0), ValueError, r"got \(2, 0\)"),
        (torch.tensor([[math.inf]]), ValueError, "finite numbers only"),
        (torch.tensor([[math.nan]]), ValueError, "finite numbers only"),
    ],
)
def test_wrong_matrices(matrix, error, message):
    for function in (lambda m: truncated_svd(m, 1), lambda m: split_matrix(m, 1), singular_values):
        with pytest.raises(error, match=message):
            function(matrix)


@pytest.mark.parametrize(
    ("rank", "error"), [(0, ValueError), (4, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_wrong_ranks(rank, error):
    for function in (truncated_svd, split_matrix):
        with pytest.raises(error, match=r"rank must be an integer in \[1, 3\], got"):
            function(torch.ones(3, 5), rank)


@pytest.mark.parametrize("rank", [-1, 3])
def test_wrong_ranks_of_an_error(rank):
    with pytest.raises(ValueError, match=rf"rank must be an integer in \[0, 2\], got {rank}"):
        truncation_error(torch.tensor([2.0, 1.0]), rank)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([1.0], TypeError, "values must be a tensor of floats, got list"),
        (torch.tensor([1]), TypeError, r"of floats, got torch\.int64"),
        (torch.ones(1, 2), ValueError, r"shape \(k,\) with k >= 1, got \(1, 2\)"),
        (torch.ones(0), ValueError, r"got \(0,\)"),
        (torch.tensor([1.0, -1.0]), ValueError, "finite numbers >= 0"),
        (torch.tensor([math.nan]), ValueError, "finite numbers >= 0"),
        (torch.tensor([1.0, 2.0]), ValueError, "the largest first"),
    ],
)
def test_wrong_values(values, error, message):
    with pytest.raises(error, match=message):
        energy(values)
    with pytest.raises(error, match=message):
        truncation_error(values, 0)
