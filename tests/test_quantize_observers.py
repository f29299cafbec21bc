"""Observers: against other ways to find the same range, and on values with outliers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.quantize import (
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    affine_params,
    fake_quantize,
)
from rac_helpers.rng import make_generator

ALL = pytest.mark.parametrize(
    "make", [MinMax, MovingAverage, Percentile, MeanSquaredError, Entropy]
)
SAMPLING = pytest.mark.parametrize("make", [Percentile, MeanSquaredError, Entropy])
MODERN = pytest.mark.filterwarnings("ignore:.*deprecated.*")


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=make_generator(seed))


def seen(observer, *batches):
    for batch in batches:
        observer.observe(batch)
    return observer


# -- all of them ----------------------------------------------------------------------------------


@ALL
def test_before_any_values_there_is_no_range(make):
    for call in (make().range, make().params):
        with pytest.raises(ValueError, match="must see values before it can say a range, got none"):
            call()


@ALL
def test_after_a_relu_no_code_is_below_zero(make):
    observer = seen(make(), normal(5000).relu(), normal(5000, 1).relu())
    for bits in (2, 4, 8):
        params = observer.params(bits, signed=False)
        assert (params.zero_point, params.qmin, params.qmax) == (0, 0, 2**bits - 1)
        assert params.low == 0 < params.high <= 6


@ALL
def test_signed_codes_hold_zero_and_both_sides(make):
    params = seen(make(), normal(5000)).params(4)
    assert params.low < -0.5
    assert params.high > 0.5
    assert fake_quantize(torch.zeros(1), params).item() == 0


@ALL
def test_constant_values_of_any_sign(make):
    for value in (0.0, 3.0, -3.0):
        params = seen(make(), torch.full((300,), value)).params(8)
        assert fake_quantize(torch.tensor([value]), params).item() == pytest.approx(value, abs=0.02)


@ALL
def test_numbers_of_all_sizes(make):
    for size in (1e-30, 1e-6, 1e25):
        for signed in (True, False):
            values = normal(2000) * size if signed else normal(2000).abs() * size
            params = seen(make(), values).params(4, signed=signed)
            assert 0.1 * size < params.high.item() < 6 * size


@ALL
@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (torch.ones(0), ValueError, "values must not be empty"),
        (torch.tensor([float("nan")]), ValueError, "values must be finite, got 1 of 1"),
        (torch.ones(2, dtype=torch.int64), TypeError, "values must be a tensor of floats"),
        ([1.0], TypeError, "values must be a tensor of floats, got list"),
    ],
)
def test_wrong_values(make, values, error, message):
    with pytest.raises(error, match=message):
        make().observe(values)


@ALL
def test_wrong_bits(make):
    with pytest.raises(ValueError, match="bits must be an integer"):
        seen(make(), torch.ones(3)).params(17)


@ALL
def test_values_stay_and_gradients_are_not_kept(make):
    values = normal(100).requires_grad_()
    before = values.detach().clone()
    observer = seen(make(), values)
    observer.params(4)
    assert torch.equal(values, before)
    assert not any(bound.requires_grad for bound in observer.range())


# -- one by one -----------------------------------------------------------------------------------


@MODERN
@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_min_max_is_that_of_torch(batches):
    observer, other = MinMax(), torch.ao.quantization.MinMaxObserver()
    for batch in batches:
        observer.observe(torch.tensor(batch))
        other(torch.tensor(batch))
    assert observer.range() == (other.min_val, other.max_val)


def test_min_max_of_each_channel():
    one, two = normal(24).reshape(2, 3, 4), normal(24, 1).reshape(2, 3, 4)
    low, high = seen(MinMax(axis=1), one, two).range()
    both = torch.cat([one, two]).transpose(0, 1).flatten(1)
    assert torch.equal(low, both.amin(1))
    assert torch.equal(high, both.amax(1))
    params = seen(MinMax(axis=1), one).params(4)
    assert params.axis == 1
    assert params.scale.shape == (3,)
    with pytest.raises(ValueError, match="axis must be"):
        MinMax(axis=3).observe(one)
    with pytest.raises(TypeError, match="axis must be an integer"):
        MinMax(axis=0.5)


@MODERN
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
def test_moving_average_is_that_of_torch(rate):
    other = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=rate)
    observer = MovingAverage(rate)
    for seed in range(5):
        observer.observe(normal(50, seed))
        other(normal(50, seed))
    low, high = observer.range()
    assert torch.allclose(low, other.min_val)
    assert torch.allclose(high, other.max_val)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match=r"rate must be a finite number in \[0, 1\]"):
        MovingAverage(rate)


@pytest.mark.parametrize("percent", [0.0, 50.0, 99.0, 100.0])
def test_percentile_is_that_of_numpy(percent):
    batches = normal(3000), normal(2000, 1) + 1
    low, high = seen(Percentile(percent), *batches).range()
    everything = torch.cat(batches)
    bound = np.percentile(everything.abs().numpy(), percent)
    assert high.item() == pytest.approx(min(bound, everything.max().item()), rel=1e-5)
    assert low.item() == pytest.approx(max(-bound, everything.min().item()), rel=1e-5)


def test_percentile_leaves_the_outlier_out():
    values = torch.cat([normal(10_000), torch.tensor([100.0])])
    assert seen(Percentile(99.9), values).range()[1] < 4 < 100 == seen(MinMax(), values).range()[1]


@pytest.mark.parametrize("percent", [-1, 101, float("inf")])
def test_wrong_percents(percent):
    with pytest.raises(ValueError, match=r"percent must be a finite number in \[0, 100\]"):
        Percentile(percent)


@SAMPLING
def test_some_values_of_each_batch_are_remembered(make):
    observer = make(num_values=100)
    observer.observe(torch.arange(10.0))
    assert torch.equal(observer.values, torch.arange(10.0))  # all of a small one
    observer.observe(torch.arange(1001.0))
    assert len(observer.values) == 110
    spread = observer.values[10:]
    assert spread[0] <= 10
    assert spread[-1] >= 990
    assert ((spread.diff() >= 5) & (spread.diff() <= 14)).all()
    assert observer.range() == (0, 1000) if make is not Percentile else True
    with pytest.raises(ValueError, match="num_values must be an integer >= 1, got 0"):
        make(num_values=0)


def squared_error(values, params):
    return (fake_quantize(values, params) - values).square().mean().item()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_no_other_share_of_the_range_has_a_smaller_squared_error(bits, signed):
    values = normal(4000) if signed else normal(4000).relu()
    observer = seen(MeanSquaredError(), values)
    found = squared_error(values, observer.params(bits, signed=signed))
    low, high = values.min(), values.max()
    shares = np.linspace(1 / 80, 1, 80)
    errors = [
        squared_error(values, affine_params(low * s, high * s, bits, signed=signed)) for s in shares
    ]
    assert found <= min(errors) * 1.0001
    assert found <= squared_error(values, seen(MinMax(), values).params(bits, signed=signed))


def test_the_fewer_bits_the_narrower_the_best_range():
    observer = seen(MeanSquaredError(), normal(20_000).relu())
    highs = [observer.params(bits, signed=False).high.item() for bits in (2, 3, 4, 8)]
    assert highs == sorted(highs)
    assert highs[0] < 0.7 * highs[-1]


def brute_divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """Migacz 2017, spelled out with loops."""
    reference = counts[:end].astype(float).copy()
    reference[-1] += counts[end:].sum()
    kept = np.zeros(end)
    for level in range(levels):
        bins = [i for i in range(end) if i * levels // end == level]
        filled = [i for i in bins if counts[i] > 0]
        for i in filled:
            kept[i] = counts[bins].sum() / len(filled)
    kept = np.maximum(kept, 1e-4)
    p, q = reference / reference.sum(), kept / kept.sum()
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize(("end", "levels"), [(7, 7), (50, 7), (64, 15), (33, 2), (64, 1)])
def test_divergence_against_loops(end, levels):
    from rac_helpers.quantize.observers import _divergence

    counts = torch.histc(normal(300).abs(), 64, 0, 4)  # some bins are empty
    ours = _divergence(counts, end, levels)
    assert ours == pytest.approx(brute_divergence(counts.numpy(), end, levels), rel=1e-3, abs=1e-5)


def test_entropy_leaves_the_outlier_out_and_keeps_a_flat_range():
    flat = torch.linspace(0, 1, 10_000)
    outlier = torch.cat([flat, torch.tensor([4.0])])
    for bits, most in ((4, 1.5), (6, 3)):
        assert seen(Entropy(), outlier).params(bits, signed=False).high < most
        assert seen(Entropy(), flat).params(bits, signed=False).high > 0.9
    both = torch.cat([normal(10_000), torch.tensor([50.0])])
    params = seen(Entropy(), both).params(6)
    assert -10 < params.low < -2
    assert 2 < params.high < 10
    wide = seen(Entropy(), outlier).params(12, signed=False)  # as many codes as bins: all of it
    assert wide.high.item() == pytest.approx(4, rel=1e-3)


@SAMPLING
def test_values_of_every_column_are_remembered(make):
    """Every second place would be one column only."""
    observer = make(num_values=200)
    observer.observe(torch.tensor([0.0, 5.0]).repeat(200))
    assert 90 <= (observer.values == 5).sum() <= 110


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("relu", [True, False])
def test_entropy_keeps_most_of_a_normal_distribution(bits, relu):
    values = torch.randn(20_000, generator=make_generator(0))
    values = values.relu() if relu else values
    observer = Entropy()
    observer.observe(values)
    params = observer.params(bits, signed=not relu)
    assert squared_error(values, params) < 0.3 * values.var()
    assert params.high > 1.2
