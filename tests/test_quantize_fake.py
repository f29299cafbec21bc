"""Fake quantization: values and gradients those of PyTorch and of the paper of learned scales."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.quantize import (
    DynamicQuantizer,
    FakeQuantizer,
    LearnedQuantizer,
    ObservedQuantizer,
    QParams,
    QuantAware,
    affine_params,
    fake_quantize,
    insert_quantizers,
    keep_scales_positive_,
    round_ste,
    symmetric_params,
)
from rac_helpers.rng import make_generator

QUANTIZERS = (FakeQuantizer, LearnedQuantizer, ObservedQuantizer)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=make_generator(seed))


def leaf(values: torch.Tensor) -> torch.Tensor:
    return values.clone().requires_grad_()


# -- values and gradients -------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_rounding_is_exact_and_the_gradient_passes(numbers):
    values = leaf(torch.tensor(numbers))
    rounded = round_ste(values)
    assert torch.equal(rounded, values.round())
    rounded.mul(torch.arange(1.0, len(numbers) + 1)).sum().backward()
    assert torch.equal(values.grad, torch.arange(1.0, len(numbers) + 1))


def case(number: int, channels: int | None = None):
    g = make_generator(number)
    bits = int(torch.randint(1, 9, (), generator=g))
    qmin, qmax = (0, 2**bits - 1) if number % 2 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    shape = () if channels is None else (channels,)
    scale = 10 ** (torch.rand(shape, generator=g) * 8 - 4)
    zero_point = torch.randint(qmin, qmax + 1, shape, generator=g, dtype=torch.int32)
    along = scale if channels is None else scale[:, None]
    values = torch.randn(6, channels or 3, 5, generator=g) * 2**bits * along
    ends = torch.tensor([qmin, qmax])[torch.randint(2, values.shape, generator=g)]
    some = torch.rand(values.shape, generator=g) < 0.2
    zero = zero_point if channels is None else zero_point[:, None]
    return torch.where(some, (ends - zero) * along, values), QParams(
        scale, zero_point, qmin, qmax, axis=None if channels is None else 1
    )


@pytest.mark.parametrize("channels", [None, 4])
def test_value_and_gradient_are_those_of_torch(channels):
    for number in range(200):
        values, params = case(number, channels)
        ours, other = leaf(values), leaf(values)
        grids = params.scale, params.zero_point
        if channels is None:
            expected = torch.fake_quantize_per_tensor_affine(
                other, *grids, params.qmin, params.qmax
            )
        else:
            expected = torch.fake_quantize_per_channel_affine(
                other, *grids, 1, params.qmin, params.qmax
            )
        for quantizer in (FakeQuantizer(params), LearnedQuantizer(params)):
            ours.grad = other.grad = None
            found = quantizer(ours)
            assert torch.allclose(found, expected, rtol=1e-6, atol=0), number
            direction = torch.randn(values.shape, generator=make_generator(number))
            found.backward(direction)
            expected.backward(direction, retain_graph=True)
            assert torch.allclose(ours.grad, other.grad, rtol=1e-6, atol=0), number
        assert torch.equal(FakeQuantizer(params)(values), fake_quantize(values, params))


# -- learned scales -------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 4])
def test_the_gradient_of_a_scale_is_that_of_torch(channels):
    for number in range(100):
        values, params = case(number, channels)
        if params.qmax < 1 or (channels is None and params.zero_point < 0):
            continue  # torch rounds a negative zero point of the whole tensor the wrong way
        quantizer = LearnedQuantizer(params)
        direction = torch.randn(values.shape, generator=make_generator(number))
        quantizer(values).backward(direction)
        scale, zero_point = leaf(params.scale), params.zero_point.float()
        factor = 1 / math.sqrt(values.numel() // scale.numel() * params.qmax)
        if channels is None:
            other = torch._fake_quantize_learnable_per_tensor_affine(
                values, scale[None], zero_point[None], params.qmin, params.qmax, factor
            )
        else:
            other = torch._fake_quantize_learnable_per_channel_affine(
                values, scale, zero_point, 1, params.qmin, params.qmax, factor
            )
        other.backward(direction)
        close = torch.isclose(quantizer.scale.grad, scale.grad, rtol=1e-3, atol=1e-3)
        assert close.all(), number


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("axis", [None, 0])
def test_the_gradient_of_a_scale_is_that_of_the_paper(bits, axis):
    """Esser et al. 2020, equation 3; but for the half step above the last code.

    What is rounded to the last code counts as inside, as in torch; the paper: as outside.
    """
    values = normal(3, 4, 5)
    bound = torch.tensor([0.5, 1.0, 3.0]) if axis == 0 else torch.tensor(1.0)
    params = symmetric_params(bound, bits, axis=axis)
    scale, _ = params.along(3)
    ratio = values / scale
    edge = (ratio.abs() > params.qmax) & (ratio.abs() <= params.qmax + 0.5)
    values, ratio = (torch.where(edge, 0.0, one) for one in (values, ratio))
    quantizer = LearnedQuantizer(params)
    direction = normal(3, 4, 5, seed=1)
    quantizer(values).backward(direction)
    inside = ratio.abs() < params.qmax
    own = torch.where(inside, ratio.round() - ratio, ratio.clamp(params.qmin, params.qmax))
    assert (~inside).any()
    own = (own * direction).sum() if axis is None else (own * direction).sum(dim=(1, 2))
    count = values.numel() if axis is None else 20
    expected = own / math.sqrt(count * params.qmax)
    assert torch.allclose(quantizer.scale.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_scale_numerically():
    """Straight through: how much a value is rounded by, in codes, is held as a constant."""
    values, scale = normal(50).double(), 0.3
    params = symmetric_params(2.1, bits=4)
    held = (values / scale).round() - values / scale
    codes = (values / scale).round().clamp(params.qmin, params.qmax)
    inside = (values / scale).abs() < params.qmax + 0.5

    def value(s: float) -> float:
        return (torch.where(inside, values / s + held, codes) * s).sum().item()

    numeric = (value(scale + 1e-6) - value(scale - 1e-6)) / 2e-6
    quantizer = LearnedQuantizer(params)
    quantizer(values).sum().backward()
    assert params.scale.item() == pytest.approx(scale)
    found = quantizer.scale.grad.item() * math.sqrt(50 * params.qmax)
    assert found == pytest.approx(numeric, rel=1e-3)


def test_one_signed_bit_can_be_learned():
    quantizer = LearnedQuantizer(affine_params(-1.0, 0.0, bits=1))
    assert quantizer.qmax == 0
    quantizer(normal(5)).sum().backward()
    assert quantizer.scale.grad.isfinite()


def test_learned_scales_find_the_range():
    """From a scale ten times too large, or too small, to a small squared error."""
    values = normal(500)
    for bound in (30.0, 0.3):
        quantizer = LearnedQuantizer(symmetric_params(bound, bits=4))
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            (quantizer(values) - values).square().mean().backward()
            optimizer.step()
            keep_scales_positive_(quantizer)
        assert (quantizer(values) - values).square().mean() < 0.03


def test_learned_scale_is_the_only_parameter_and_in_the_file():
    quantizer = LearnedQuantizer(symmetric_params(1.0, bits=4))
    assert [name for name, _ in quantizer.named_parameters()] == ["scale"]
    assert set(quantizer.state_dict()) == {"scale", "zero_point"}
    other = LearnedQuantizer(symmetric_params(9.0, bits=4))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.scale, quantizer.scale)
    assert not quantizer.params.scale.requires_grad


def test_scales_stay_above_zero():
    model = nn.Sequential(
        LearnedQuantizer(symmetric_params(torch.ones(3), bits=4, axis=0)),
        LearnedQuantizer(symmetric_params(1.0, bits=4)),
        FakeQuantizer(symmetric_params(1e-9, bits=4)),
    )
    model[0].scale.data.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    keep_scales_positive_(model)
    assert torch.equal(model[0].scale.data, torch.tensor([1e-6, 1e-6, 0.5]))
    assert torch.equal(model[1].scale.data, symmetric_params(1.0, bits=4).scale)
    assert model[2].scale < 1e-9  # fixed ones are not touched
    keep_scales_positive_(model, smallest=0.1)
    assert model[0].scale.min() >= 0.1


# -- observed and dynamic ranges ------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_an_observed_range_follows_the_formula(rate):
    quantizer = ObservedQuantizer(affine_params(-1.0, 2.0, bits=6), rate=rate)
    low, high = quantizer.low.item(), quantizer.high.item()
    first = quantizer.params
    for seed in range(4):
        values = normal(60, seed=seed) * 3
        quantizer(values)
        low += rate * (values.min().item() - low)
        high += rate * (values.max().item() - high)
        assert quantizer.low.item() == pytest.approx(low, rel=1e-5)
        assert quantizer.high.item() == pytest.approx(high, rel=1e-5)
        if rate:
            expected = affine_params(quantizer.low, quantizer.high, bits=6)
            assert torch.equal(quantizer.scale, expected.scale)
            assert torch.equal(quantizer.zero_point, expected.zero_point)
            assert torch.equal(quantizer(values * 0), values * 0)  # 0 is exact
            low, high = quantizer.low.item(), quantizer.high.item()
        else:
            assert torch.equal(quantizer.scale, first.scale)
            assert torch.equal(quantizer.zero_point, first.zero_point)


def test_an_observed_range_rests_in_eval_mode():
    quantizer = ObservedQuantizer(affine_params(0.0, 1.0), rate=0.5).eval()
    before = copy.deepcopy(quantizer.state_dict())
    values = normal(10) * 50
    assert torch.equal(quantizer(values), fake_quantize(values, quantizer.params))
    assert all(torch.equal(before[name], now) for name, now in quantizer.state_dict().items())


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_an_observed_symmetric_range_stays_symmetric(axis):
    values = normal(3, 3, 3) + 1
    bound = torch.ones(()) if axis is None else torch.ones(3)
    quantizer = ObservedQuantizer(symmetric_params(bound, bits=4, axis=axis), rate=1.0)
    quantizer(values)
    size = values.abs()
    size = size.amax() if axis is None else size.movedim(axis, 0).flatten(1).amax(1)
    assert torch.allclose(quantizer.scale, size / 7)
    assert quantizer.zero_point.eq(0).all()
    assert quantizer.params.qmin == -7


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_an_observed_range_is_that_of_torch():
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    other = FakeQuantize(
        MovingAverageMinMaxObserver,
        averaging_constant=0.3,
        quant_min=0,
        quant_max=255,
        dtype=torch.quint8,
    )
    other(normal(9).relu())  # torch begins with the first batch
    low, high = other.activation_post_process.min_val, other.activation_post_process.max_val
    ours = ObservedQuantizer(affine_params(low, high, bits=8, signed=False), rate=0.3)
    for seed in range(1, 5):
        values = normal(200, seed=seed).relu()
        assert torch.allclose(ours(values), other(values), rtol=1e-5, atol=ours.scale.item() * 0.01)
        assert torch.allclose(ours.scale, other.scale, rtol=1e-5)


def test_a_checkpoint_keeps_the_range_and_whether_it_is_frozen():
    inputs = {"0": affine_params(0.0, 1.0, bits=8, signed=False)}
    make = functools.partial(ObservedQuantizer, rate=0.5)
    model = insert_quantizers(nn.Sequential(nn.Linear(4, 2)), inputs=inputs, make_quantizer=make)
    model(torch.full((2, 4), 3.0))
    after_step = QuantAware(freeze_after=2)
    after_step(model, 1)
    assert model[0].input_quantizer.rate == 0.5
    after_step(model, 2)
    state = model.state_dict()
    names = {n.removeprefix("0.input_quantizer.") for n in state if "input_quantizer" in n}
    assert names == {"scale", "zero_point", "rate", "low", "high"}
    assert state["0.input_quantizer.rate"] == 0
    fresh = insert_quantizers(nn.Sequential(nn.Linear(4, 2)), inputs=inputs, make_quantizer=make)
    fresh.load_state_dict(state)
    fresh(torch.full((2, 4), 30.0))  # in training mode, but frozen
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert fresh[0].input_quantizer.high.item() == pytest.approx(2.0)


def test_quant_aware_keeps_learned_scales_above_zero_and_nothing_else():
    model = nn.Sequential(
        LearnedQuantizer(symmetric_params(1.0, bits=4)),
        ObservedQuantizer(affine_params(0.0, 1.0), rate=0.25),
    )
    model[0].scale.data.fill_(-3)
    QuantAware()(model, 10**6)
    assert model[0].scale > 0
    assert model[1].rate == 0.25


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_wrong_freezing(value, error):
    with pytest.raises(error, match="freeze_after must be an integer >= 1"):
        QuantAware(freeze_after=value)


@pytest.mark.parametrize("signed", [True, False])
def test_a_dynamic_range_is_that_of_each_slice(signed):
    values = normal(4, 3, 5) * torch.tensor([0.01, 1.0, 7.0, 0.0])[:, None, None]
    values = values if signed else values.relu()
    found = DynamicQuantizer(bits=5, signed=signed)(values)
    for one, own in zip(values, found, strict=True):
        params = affine_params(one.min(), one.max(), bits=5, signed=signed)
        assert torch.equal(own, fake_quantize(one, params))
    alone = DynamicQuantizer(bits=5, signed=signed)(values[1:2])
    assert torch.equal(alone[0], found[1])  # a picture does not depend on its neighbours
    needs = leaf(values)
    DynamicQuantizer(bits=5, signed=signed)(needs).sum().backward()
    assert torch.allclose(needs.grad, torch.ones(()).expand_as(values), atol=1e-6) or (
        (needs.grad.isclose(torch.tensor(1.0)) | needs.grad.eq(0)).all()
    )
    assert not list(DynamicQuantizer().state_dict())


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", QUANTIZERS)
def test_parameters_come_back_and_are_copies(make):
    params = symmetric_params(torch.ones(2), bits=4, axis=1)
    quantizer = make(params)
    back = quantizer.params
    assert torch.equal(back.scale, params.scale)
    assert torch.equal(back.zero_point, params.zero_point)
    assert (back.qmin, back.qmax, back.axis) == (-7, 7, 1)
    back.scale.fill_(5)
    params.zero_point.fill_(1)
    assert quantizer.scale.max() < 1
    assert quantizer.zero_point.eq(0).all()
    assert "codes -7 to 7, axis=1" in repr(quantizer)


def test_the_repr_of_a_dynamic_one():
    assert "codes 0 to 15, a range for each slice" in repr(DynamicQuantizer(4, signed=False))


@pytest.mark.parametrize("make", QUANTIZERS)
def test_wrong_parameters(make):
    with pytest.raises(TypeError, match="params must be QParams, got float"):
        make(0.5)


@pytest.mark.parametrize(
    ("rate", "error"), [(-0.1, ValueError), (1.5, ValueError), ("x", TypeError)]
)
def test_wrong_rates(rate, error):
    with pytest.raises(error, match=r"rate must be a finite number in \[0, 1\]"):
        ObservedQuantizer(affine_params(0.0, 1.0), rate=rate)


def test_wrong_bits():
    with pytest.raises(ValueError, match=r"bits must be an integer in \[1, 16\], got 0"):
        DynamicQuantizer(0)
