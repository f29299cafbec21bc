"""Codebooks against scikit-learn; binary and ternary weights against all there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from rac_helpers.quantize import (
    BinaryQuantizer,
    Codebook,
    affine_params,
    binary_weights,
    fake_quantize,
    kmeans_codebook,
    ternary_weights,
)
from rac_helpers.rng import make_generator


def fit(weights, bits, **settings_):
    return kmeans_codebook(weights, bits, generator=make_generator(0), **settings_)


def inertia(weights, book):
    return (weights.double() - book.decode().double()).square().sum().item()


def draw(kind: str, count: int = 3000) -> torch.Tensor:
    g = make_generator(1)
    normal = torch.randn(count, generator=g)
    return {
        "normal": normal,
        "uniform": torch.rand(count, generator=g),
        "heavy": normal**5,
        "two hills": normal * 0.1 + torch.randint(2, (count,), generator=g) * 3,
        "many zeros": normal * (torch.rand(count, generator=g) < 0.2),
        "an outlier": torch.cat([normal * 0.01, torch.tensor([50.0])]),
    }[kind]


# -- k-means --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "kind", ["normal", "uniform", "heavy", "two hills", "many zeros", "an outlier"]
)
def test_as_good_as_scikit_learn(kind, bits):
    weights = draw(kind)
    other = KMeans(2**bits, n_init=3, random_state=0).fit(weights.numpy()[:, None].astype(float))
    assert inertia(weights, fit(weights, bits)) <= other.inertia_ * 1.01


@pytest.mark.parametrize("bits", [1, 3, 6, 9])
def test_each_weight_has_the_nearest_value_and_each_value_is_the_mean(bits):
    weights = draw("normal", 2000).reshape(20, 10, 10)
    before = weights.clone()
    book = fit(weights, bits)
    assert torch.equal(weights, before)
    assert book.indices.shape == weights.shape
    assert book.indices.dtype == (torch.int16 if bits > 8 else torch.uint8)
    assert book.values.dtype == torch.float32
    assert len(book.values) == 2**bits
    assert (book.values.diff() >= 0).all()
    distance = (weights.flatten()[:, None] - book.values).abs()
    chosen = (weights - book.decode()).abs().flatten()
    assert torch.allclose(chosen, distance.min(dim=1).values, atol=1e-7)
    for index in book.indices.unique().tolist():
        mean = weights[book.indices == index].mean()
        assert book.values[index].item() == pytest.approx(mean.item(), abs=1e-6)


@given(
    st.lists(st.sampled_from([-3.5, -1.0, 0.0, 1e-6, 0.1, 2.0, 1e6]), min_size=1, max_size=30),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_few_distinct_weights_are_kept_exactly(values, bits):
    weights = torch.tensor(values)
    book = fit(weights, bits)
    distinct = weights.unique()
    assert len(book.values) == min(len(distinct), 2**bits)
    if len(distinct) <= 2**bits:
        assert torch.allclose(book.decode(), weights, rtol=1e-6, atol=1e-9)


@given(st.lists(st.integers(-20, 20), min_size=4, max_size=9), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_no_other_cut_into_slices_is_better(values, bits):
    """The best clusters of numbers are slices of the sorted ones: try all cuts."""
    points = np.sort(np.array(values, dtype=float))
    k = min(2**bits, len(np.unique(points)))
    best = min(
        sum(((piece - piece.mean()) ** 2).sum() for piece in np.split(points, cuts))
        for cuts in itertools.combinations(range(1, len(points)), k - 1)
    )
    weights = torch.tensor(values, dtype=torch.float32)
    book = fit(weights, bits, restarts=20)
    assert inertia(weights, book) <= best * 1.0001 + 1e-6


def test_a_tie_goes_to_the_lower_value():
    book = fit(torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0]), 1)
    assert book.indices.tolist() in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])  # either is as good
    assert inertia(torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0]), book) == pytest.approx(2 / 3)
    again = fit(torch.tensor([0.0, 4.0, 2.0, 0.0, 4.0, 2.0]), 1, restarts=0, iterations=1)
    assert again.values[0] < again.values[1]


def test_e26_smaller_error_than_a_grid_and_the_size():
    weights = torch.randn(20_000, generator=make_generator(0))
    book = fit(weights, 4)
    grid = fake_quantize(weights, affine_params(weights.min(), weights.max(), bits=4))
    assert (grid - weights).square().mean().item() == pytest.approx(0.0235, abs=0.004)
    assert inertia(weights, book) / 20_000 == pytest.approx(0.0094, abs=0.0006)
    assert book.size_bits == 4 * 20_000 + 16 * 32
    assert 32 * 20_000 / book.size_bits == pytest.approx(7.95, abs=0.01)


def test_more_iterations_and_restarts_never_hurt():
    weights = draw("heavy")
    errors = [inertia(weights, fit(weights, 3, iterations=n, restarts=0)) for n in (1, 3, 10, 300)]
    assert errors == sorted(errors, reverse=True)
    assert inertia(weights, fit(weights, 3)) <= errors[-1]


def test_repeatable_and_of_its_generator_only():
    weights = draw("uniform", 500)
    torch.manual_seed(1)
    one = fit(weights, 4)
    torch.manual_seed(2)
    assert torch.equal(one.values, fit(weights, 4).values)


@pytest.mark.parametrize(
    ("values", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)]
)
def test_size_in_bits(values, bits):
    book = Codebook(torch.zeros(10, dtype=torch.int16), torch.arange(float(values)))
    assert book.size_bits == 10 * bits + 32 * values


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": [1.0]}, TypeError, "weights must be a tensor of floats, got list"),
        ({"weights": torch.ones(0)}, ValueError, "weights must not be empty"),
        ({"weights": torch.ones(1) / 0}, ValueError, "weights must be finite"),
        ({"bits": 0}, ValueError, r"bits must be an integer in \[1, 12\], got 0"),
        ({"bits": 13}, ValueError, r"bits must be an integer in \[1, 12\], got 13"),
        ({"iterations": 0}, ValueError, "iterations must be an integer >= 1, got 0"),
        ({"restarts": -1}, ValueError, "restarts must be an integer >= 0, got -1"),
        ({"generator": 0}, TypeError, "generator must be a torch.Generator, got int"),
    ],
)
def test_wrong_arguments(change, error, message):
    given_ = {"weights": torch.ones(3), "bits": 2, "generator": make_generator(0)} | change
    with pytest.raises(error, match=message):
        kmeans_codebook(**given_)


# -- signs ----------------------------------------------------------------------------------------

rows = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=7)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_no_other_signs_and_factor_have_a_smaller_error(row):
    weights = torch.tensor([row])
    signs, factors = binary_weights(weights)
    found = (weights - factors[:, None] * signs).square().sum().item()
    codes = np.array(list(itertools.product([-1, 1], repeat=len(row))))
    best = np.maximum(codes @ np.array(row), 0) / len(row)  # of each the best factor >= 0
    errors = ((np.array(row) - best[:, None] * codes) ** 2).sum(axis=1)
    assert found <= errors.min() + 1e-3


@given(rows, st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_ternary_codes_by_the_paper(row, threshold):
    weights = torch.tensor([row, [-v for v in row]])
    codes, factors = ternary_weights(weights, threshold=threshold)
    assert torch.equal(codes[0], -codes[1])
    assert factors[0] == factors[1]
    delta = threshold * weights[0].abs().mean()
    expected = [0 if abs(v) <= delta else (1 if v > 0 else -1) for v in weights[0]]
    assert codes[0].tolist() == expected
    kept = [abs(v) for v in row if abs(v) > delta]
    assert factors[0].item() == pytest.approx(np.mean(kept) if kept else 0, rel=1e-5, abs=1e-9)


def test_ternary_near_the_best_of_all_thresholds():
    """Of normal weights; the best factor of given codes is the mean size, so cuts are enough."""
    weights = torch.randn(1, 20_000, generator=make_generator(2))
    codes, factors = ternary_weights(weights)
    found = (weights - factors[:, None] * codes).square().sum().item()
    size = weights.abs().sort(descending=True).values.double()[0]
    count = torch.arange(1, len(size) + 1)
    best = (size.square().sum() - size.cumsum(0).square() / count).min().item()
    assert best <= found <= best * 1.02


def test_each_channel_for_itself_and_any_shape():
    weights = torch.randn(3, 2, 3, 3, generator=make_generator(3)).requires_grad_()
    for make in (binary_weights, ternary_weights):
        codes, factors = make(weights)
        assert codes.dtype == torch.int8
        assert codes.shape == weights.shape
        assert factors.dtype == torch.float32
        assert factors.shape == (3,)
        assert not factors.requires_grad
        for k in range(3):
            alone = make(weights[k : k + 1])
            assert torch.equal(alone[0], codes[k : k + 1])
            assert torch.equal(alone[1], factors[k : k + 1])
    zeros = torch.zeros(2, 2)
    assert binary_weights(zeros)[0].eq(1).all()
    assert binary_weights(zeros)[1].eq(0).all()
    assert ternary_weights(zeros)[0].eq(0).all()
    assert ternary_weights(zeros)[1].eq(0).all()


def test_binary_quantizer_rounds_and_passes_the_gradient():
    weights = torch.randn(3, 2, 3, 3, generator=make_generator(4)).requires_grad_()
    signs, factors = binary_weights(weights)
    rounded = BinaryQuantizer()(weights)
    assert torch.allclose(rounded, factors.reshape(3, 1, 1, 1) * signs, rtol=1e-6)
    direction = torch.randn(3, 2, 3, 3, generator=make_generator(5))
    rounded.backward(direction)
    assert torch.equal(weights.grad, direction)
    assert BinaryQuantizer()(torch.zeros(1, 2)).eq(0).all()


@pytest.mark.parametrize("make", [binary_weights, ternary_weights])
def test_wrong_weights(make):
    with pytest.raises(ValueError, match=r"weights must have shape \(out, in, ...\), got \(3,\)"):
        make(torch.ones(3))
    with pytest.raises(TypeError, match="weights must be a tensor of floats"):
        make(torch.ones(2, 2, dtype=torch.int8))
    with pytest.raises(ValueError, match="weights must be finite"):
        make(torch.full((2, 2), float("nan")))


def test_wrong_thresholds():
    with pytest.raises(ValueError, match=r"threshold must be a finite number >= 0, got -0.1"):
        ternary_weights(torch.ones(2, 2), threshold=-0.1)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["normal", "heavy", "an outlier"])
def test_as_good_as_scikit_learn_on_a_large_layer(kind, bits):
    weights = draw(kind, 10_000)
    other = KMeans(2**bits, n_init=1, random_state=0).fit(weights.numpy()[:, None].astype(float))
    assert inertia(weights, fit(weights, bits)) <= other.inertia_ * 1.01
