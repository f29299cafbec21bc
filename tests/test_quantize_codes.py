"""Codes: bit for bit those of PyTorch; the article's examples; properties of the rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.quantize import (
    QParams,
    affine_params,
    code_range,
    dequantize,
    fake_quantize,
    fixed_point_params,
    quantize,
    quantize_stochastic,
    split_groups,
    symmetric_params,
    value_range,
)
from rac_helpers.quantize.codes import code_dtype
from rac_helpers.quantize.ranges import check_values
from rac_helpers.rng import make_generator

ZERO = torch.tensor(0, dtype=torch.int32)
ONE = torch.tensor(1.0)
NAN = torch.tensor([1.0, float("nan"), float("inf")])


def grid(scale: float, zero_point: int, qmin: int, qmax: int) -> QParams:
    return QParams(
        torch.tensor(float(scale)), torch.tensor(zero_point, dtype=torch.int32), qmin, qmax
    )


def same_bits(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(ours.view(torch.int32), other.view(torch.int32))


# -- parity ---------------------------------------------------------------------------------------


def draw(number: int, channels: int | None = None):
    """Values, scales from 1e-30 to 1e30, zero points and codes that differ from draw to draw."""
    g = make_generator(number)
    bits = int(torch.randint(1, 17, (), generator=g))
    signed = bool(torch.randint(2, (), generator=g))
    qmin, qmax = code_range(bits, signed=signed)
    shape = () if channels is None else (channels,)
    scale = 10 ** (torch.rand(shape, generator=g) * 60 - 30)
    zero_point = torch.randint(qmin, qmax + 1, shape, generator=g, dtype=torch.int32)
    steps = torch.randn(7, channels or 3, 5, generator=g) * 2**bits
    halves = (steps * 2).round() / 2  # many of them exactly between two codes
    steps = torch.where(torch.rand(steps.shape, generator=g) < 0.5, steps, halves)
    along = scale if channels is None else scale[:, None]
    return steps * along, scale, zero_point, qmin, qmax


def test_one_scale_for_all_is_bit_for_bit_that_of_torch():
    for number in range(1000):
        values, scale, zero_point, qmin, qmax = draw(number)
        ours = fake_quantize(values, QParams(scale, zero_point, qmin, qmax))
        torchs = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, qmin, qmax)
        assert same_bits(ours, torchs), number


def test_a_scale_for_each_channel_is_bit_for_bit_that_of_torch():
    for number in range(1000):
        values, scale, zero_point, qmin, qmax = draw(number, channels=1 + number % 6)
        torchs = torch.fake_quantize_per_channel_affine(values, scale, zero_point, 1, qmin, qmax)
        for axis in (1, -2):
            ours = fake_quantize(values, QParams(scale, zero_point, qmin, qmax, axis=axis))
            assert same_bits(ours, torchs), number


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize(("dtype", "qmin"), [(torch.qint8, -128), (torch.quint8, 0)])
def test_codes_are_those_of_quantize_per_tensor(dtype, qmin):
    params = grid(0.03125, qmin + 77, qmin, qmin + 255)  # a power of two: torch divides here
    values = torch.randn(1000, generator=make_generator(1)) * 5
    torchs = torch.quantize_per_tensor(values, 0.03125, qmin + 77, dtype)
    assert torch.equal(quantize(values, params), torchs.int_repr())
    assert torch.equal(dequantize(torchs.int_repr(), params), torchs.dequantize())


def test_values_far_outside_are_clamped_where_the_division_overflows():
    params = grid(2.0**-126, 0, -8, 7)
    codes = quantize(torch.tensor([3e38, -3e38, 0.0]), params)
    assert codes.tolist() == [7, -8, 0]
    stochastic = quantize_stochastic(
        torch.tensor([3e38, -3e38, 0.0]), params, generator=make_generator(0)
    )
    assert stochastic.tolist() == [7, -8, 0]


# -- the articles' examples -----------------------------------------------------------------------


def test_e24_and_e25_the_worked_example():
    step = 2 / 15

    def article(value):
        return round((value + 1) / step) - 8

    assert (article(0.5), article(1.2), article(-1.1)) == (3, 8, -9)  # not 2; two are no codes
    assert article(0.0) * step == 0  # a tie, to even: its code is 0 ...
    assert (0 + 8) * step - 1 == pytest.approx(0.0667, abs=1e-4)  # ... and that is not 0.0
    assert (article(0.5) + 8) * step - 1 == pytest.approx(0.4667, abs=1e-4)
    params = affine_params(-1.0, 1.0, bits=4)
    assert params.scale.item() == pytest.approx(step)
    assert params.zero_point == -1
    assert (params.qmin, params.qmax) == (-8, 7)
    values = torch.tensor([0.5, 0.0, 1.2, -1.1])
    assert quantize(values, params).tolist() == [3, -1, 7, -8]
    back = fake_quantize(values, params)
    assert back[:2].tolist() == pytest.approx([0.5333, 0.0], abs=1e-4)
    assert back[1] == 0
    symmetric = symmetric_params(1.0, bits=4)
    assert symmetric.scale.item() == pytest.approx(1 / 7)
    # 0.5 is exactly between 3 and 4: 4 on paper (halves to even); 1 / 7 in float32 is a bit more
    exact = round(0.5 * 7)
    assert exact == 4
    assert exact / 7 == pytest.approx(0.5714, abs=1e-4)
    torchs = torch.fake_quantize_per_tensor_affine(values, symmetric.scale, ZERO, -7, 7)
    assert torch.equal(fake_quantize(values, symmetric), torchs)
    assert quantize(values[:1], symmetric).item() == 3
    assert quantize(values[:1] + 1e-6, symmetric).item() == 4


@pytest.mark.parametrize("bits", range(1, 17))
def test_e56_there_are_two_to_the_bits_codes(bits):
    low, high = code_range(bits)
    assert (low, high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert code_range(bits, signed=False) == (0, 2**bits - 1)
    if bits > 1:
        assert code_range(bits, narrow=True) == (-high, high)
        article = bits - (-bits + 2) + 1  # the article: from -b + 2 to b
        assert article == 2 * bits - 1 < 2**bits


# -- properties -----------------------------------------------------------------------------------

floats = st.floats(-(2.0**100), 2.0**100, width=32)
bits_of = st.integers(1, 16)


@st.composite
def params_and_values(draw_):
    bits, signed = draw_(bits_of), draw_(st.booleans())
    low, high = sorted((draw_(floats), draw_(floats)))
    params = affine_params(low, high, bits, signed=signed)
    shares = torch.tensor(draw_(st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=20)))
    return params, params.low + shares * (params.high - params.low)


@given(params_and_values())
@settings(max_examples=100, deadline=None)
def test_inside_the_range_the_error_is_at_most_half_a_step(case):
    params, values = case
    codes = quantize(values, params)
    assert codes.min() >= params.qmin
    assert codes.max() <= params.qmax
    inside = (values >= params.low) & (values <= params.high)
    error = (dequantize(codes, params).double() - values.double()).abs()[inside]
    steps = 2.0**-22 * 2**17  # float rounding of a quotient of up to 2^16 steps
    assert (error <= params.scale.double() * (0.5 + steps / 8)).all()
    if params.qmax - params.qmin < 256:
        assert (error <= params.scale.double() * (0.5 + 256 * 2.0**-22)).all()


@given(params_and_values())
@settings(max_examples=100, deadline=None)
def test_zero_is_exact_order_is_kept_and_twice_is_once(case):
    params, values = case
    assert fake_quantize(torch.zeros(1), params).item() == 0
    assert quantize(torch.zeros(1), params).item() == params.zero_point
    assert (quantize(values.sort().values, params).int().diff() >= 0).all()
    once = quantize(values, params)
    assert torch.equal(quantize(dequantize(once, params), params), once)


@given(floats, floats, bits_of, st.booleans())
@settings(max_examples=100, deadline=None)
def test_affine_codes_reach_over_the_range(one, two, bits, signed):
    low, high = min(one, two), max(one, two)
    params = affine_params(low, high, bits, signed=signed)
    step = params.scale.item()
    slack = step * 0.501 + (params.qmax - params.qmin) * step * 1e-6
    assert params.low <= min(low, 0) + slack
    assert params.high >= max(high, 0) - slack
    if low >= 0:
        assert params.zero_point == params.qmin  # after a ReLU no code is spent below 0
        if high > 1e-30:
            assert params.high.item() == pytest.approx(high, rel=1e-5)
    if low < -1e-30 and high <= 0:
        assert params.zero_point == params.qmax


@given(st.floats(0, 2.0**100, width=32), st.integers(2, 16))
@settings(max_examples=100, deadline=None)
def test_symmetric_codes(bound, bits):
    params = symmetric_params(bound, bits)
    assert params.zero_point == 0
    assert params.qmin == -params.qmax
    values = torch.tensor([bound, -bound])
    assert torch.equal(fake_quantize(values, params), -fake_quantize(-values, params))
    if bound > 1e-30:
        assert quantize(values, params).tolist() == [params.qmax, -params.qmax]
        assert params.high.item() == pytest.approx(bound, rel=1e-6)


@given(st.integers(1, 16), st.integers(-64, 64))
@settings(max_examples=50, deadline=None)
def test_fixed_point_numbers_survive(bits, fraction_bits):
    params = fixed_point_params(bits, fraction_bits)
    codes = torch.tensor([params.qmin, 0, params.qmax])
    values = codes.double() * 2.0**-fraction_bits
    assert torch.equal(dequantize(codes, params).double(), values)
    assert torch.equal(quantize(values.float(), params).long(), codes)


def test_all_zeros_and_the_smallest_numbers():
    for params in (affine_params(0.0, 0.0), symmetric_params(0.0)):
        assert params.scale == 1
        assert fake_quantize(torch.zeros(3), params).eq(0).all()
    tiny = affine_params(0.0, 1e-42, bits=8)
    assert tiny.scale == 2.0**-126
    assert (1 / tiny.scale).isfinite()
    assert affine_params(-3e38, 3e38, bits=8).scale.isfinite()


def test_a_range_for_each_channel():
    values = torch.randn(3, 4, 5, generator=make_generator(0))
    for axis in (0, 1, 2, -1):
        low, high = value_range(values, axis=axis)
        params = affine_params(low, high, bits=6, axis=axis)
        codes = quantize(values, params)
        for k in range(values.shape[axis]):
            piece = values.select(axis, k)
            alone = affine_params(piece.min(), piece.max(), bits=6)
            assert torch.equal(codes.select(axis, k), quantize(piece, alone))
    one = affine_params(torch.tensor([-1.0, -2.0]), 1.0, axis=0)  # a number goes with a vector
    assert torch.equal(
        one.scale, affine_params(torch.tensor([-1.0, -2.0]), torch.ones(2), axis=0).scale
    )


def test_groups_do_not_cross_channels():
    weights = torch.arange(24.0).reshape(2, 3, 2, 2)
    groups = split_groups(weights, 4)
    assert groups.shape == (6, 4)
    assert torch.equal(groups.reshape(weights.shape), weights)
    for size in (5, 24, 8):
        with pytest.raises(
            ValueError, match=f"must divide the 12 weights of a channel, got {size}"
        ):
            split_groups(weights, size)
    with pytest.raises(ValueError, match="group_size must be an integer >= 1, got 0"):
        split_groups(weights, 0)
    assert split_groups(torch.tensor(2.0), 1).shape == (1, 1)


@pytest.mark.parametrize(
    ("qmin", "qmax", "dtype"),
    [
        (-128, 127, torch.int8),
        (0, 127, torch.int8),
        (0, 255, torch.uint8),
        (-1, 255, torch.int16),
        (-(2**15), 2**15 - 1, torch.int16),
        (0, 2**16 - 1, torch.int32),
    ],
)
def test_the_smallest_integer_type(qmin, qmax, dtype):
    params = grid(1.0, 0, qmin, qmax)
    assert code_dtype(params) == quantize(torch.zeros(1), params).dtype == dtype
    assert quantize(torch.tensor([1e9, -1e9]), params).tolist() == [qmax, qmin]


def test_inputs_stay_and_other_floats_are_taken():
    values = torch.randn(9, generator=make_generator(3), requires_grad=True)
    before = values.detach().clone()
    params = symmetric_params(1.0, bits=4)
    codes = quantize(values, params)
    assert torch.equal(values, before)
    assert not codes.requires_grad
    for dtype in (torch.float64, torch.bfloat16):
        same = before.to(dtype)
        assert torch.equal(quantize(same, params), quantize(same.float(), params))
    copy = codes.clone()
    dequantize(codes, params)
    assert torch.equal(codes, copy)
    assert quantize(torch.tensor(0.0), params).shape == ()


# -- stochastic rounding --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_stochastic_rounding_is_unbiased(share):
    count = 40_000
    for zero_point in (0, 3):
        params = grid(0.5, zero_point, -8, 7)
        values = torch.full((count,), 0.5 * (-2 + share))
        codes = quantize_stochastic(values, params, generator=make_generator(4)).float()
        assert set(codes.unique().tolist()) == {zero_point - 2.0, zero_point - 1.0}
        spread = (share * (1 - share) / count) ** 0.5
        assert abs(codes.mean().item() - (zero_point - 2 + share)) < 4 * spread


def test_stochastic_rounding_leaves_codes_alone():
    """Also large ones: 30,000 and a draw near 1 would be the next code in float32."""
    params = fixed_point_params(16, 0)
    values = torch.full((200_000,), 30_000.0)
    codes = quantize_stochastic(values, params, generator=make_generator(0))
    assert codes.eq(30_000).all()


def test_stochastic_rounding_is_repeatable_clamped_and_per_channel():
    values = torch.randn(2, 1000, generator=make_generator(5)) * 9
    params = symmetric_params(torch.tensor([1.0, 9.0]), bits=4, axis=0)
    one, two = (quantize_stochastic(values, params, generator=make_generator(6)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.dtype == torch.int8
    assert one.min() == params.qmin
    assert one.max() == params.qmax
    assert not torch.equal(one, quantize_stochastic(values, params, generator=make_generator(7)))
    inside = values.abs() <= params.high[:, None]
    error = (dequantize(one, params) - values).abs()
    assert (error < params.scale[:, None] * 1.0001)[inside].all()
    assert (error > params.scale[:, None] * 0.6)[inside].any()  # not to the nearest


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 0}, ValueError, r"bits must be an integer in \[1, 16\], got 0"),
        ({"bits": 17}, ValueError, r"bits must be an integer in \[1, 16\], got 17"),
        ({"bits": 2.0}, TypeError, "bits must be an integer"),
        ({"bits": True}, TypeError, "bits must be an integer"),
        ({"bits": 1, "narrow": True}, ValueError, r"bits must be in \[2, 16\].*got 1"),
        ({"bits": 8, "signed": False, "narrow": True}, ValueError, "narrow must be False"),
    ],
)
def test_wrong_bits(arguments, error, message):
    with pytest.raises(error, match=message):
        code_range(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"qmin": 0.5}, TypeError, "qmin must be an integer"),
        ({"qmax": -8}, ValueError, "qmax must be an integer >= -7, got -8"),
        ({"scale": 0.5}, TypeError, "scale must be a tensor of torch.float32, got 0.5"),
        ({"scale": ONE.double()}, TypeError, "scale must be .* got torch.float64"),
        ({"zero_point": torch.tensor(0)}, TypeError, "zero_point must be .*int32, got torch.int64"),
        ({"scale": torch.ones(2)}, ValueError, r"scale must have shape \(\), got \(2,\)"),
        ({"axis": 0}, ValueError, r"scale must have shape \(n,\), one for each"),
        ({"axis": 0.0, "scale": torch.ones(1), "zero_point": ZERO[None]}, TypeError, "axis must"),
        (
            {"axis": 0, "scale": torch.ones(2), "zero_point": ZERO[None]},
            ValueError,
            r"the same shape, got \(2,\) and \(1,\)",
        ),
        ({"scale": ONE * 0}, ValueError, "scale must be finite and > 0"),
        ({"scale": -ONE}, ValueError, "scale must be finite and > 0"),
        ({"scale": ONE / 0}, ValueError, "scale must be finite and > 0"),
        ({"scale": ONE * float("nan")}, ValueError, "scale must be finite and > 0"),
        ({"zero_point": ZERO + 8}, ValueError, r"zero_point must be in \[-8, 7\], got"),
        ({"zero_point": ZERO - 9}, ValueError, r"zero_point must be in \[-8, 7\], got"),
    ],
)
def test_wrong_params(change, error, message):
    given_ = {"scale": ONE, "zero_point": ZERO, "qmin": -8, "qmax": 7} | change
    with pytest.raises(error, match=message):
        QParams(**given_)


@pytest.mark.parametrize("low_high", [(1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_wrong_ranges(low_high):
    with pytest.raises(ValueError, match="low and high must be finite with low <= high"):
        affine_params(*low_high)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: symmetric_params(-1.0), ValueError, "bound must be finite and >= 0"),
        (lambda: symmetric_params(float("inf")), ValueError, "bound must be finite and >= 0"),
        (lambda: symmetric_params(1.0, 1), ValueError, "bits must be in"),
        (
            lambda: fixed_point_params(8, 65),
            ValueError,
            r"fraction_bits must .*\[-64, 64\], got 65",
        ),
        (lambda: fixed_point_params(0, 1), ValueError, "bits must be"),
        (lambda: quantize([1.0], grid(1, 0, 0, 3)), TypeError, "values must be .* got list"),
        (lambda: quantize(torch.ones(1, dtype=torch.int8), 1), TypeError, "got torch.int8"),
        (lambda: quantize(torch.ones(1), 0.5), TypeError, "params must be QParams, got float"),
        (lambda: quantize(NAN, grid(1, 0, 0, 3)), ValueError, "got 2 of 3 that are not"),
        (lambda: quantize(torch.ones(0), grid(1, 0, 0, 3)), ValueError, "must not be empty"),
        (lambda: dequantize(torch.ones(1), grid(1, 0, 0, 3)), TypeError, "codes must be a tensor"),
        (lambda: dequantize([1], grid(1, 0, 0, 3)), TypeError, "codes must .* got list"),
        (lambda: dequantize(torch.tensor([4]), grid(1, 0, 0, 3)), ValueError, r"got \[4, 4\]"),
        (lambda: dequantize(torch.tensor([-1]), grid(1, 0, 0, 3)), ValueError, r"in \[0, 3\]"),
        (
            lambda: quantize_stochastic(torch.ones(1), grid(1, 0, 0, 3), generator=None),
            TypeError,
            "generator must be a torch.Generator, got NoneType",
        ),
        (
            lambda: quantize_stochastic(NAN, grid(1, 0, 0, 3), generator=make_generator(0)),
            ValueError,
            "values must be finite",
        ),
        (lambda: value_range(NAN), ValueError, "values must be finite"),
        (lambda: value_range(torch.ones(2), axis=1), ValueError, r"axis must .*\[-1, 0\], got 1"),
        (lambda: check_values("x", None), TypeError, "x must be a tensor of floats, got NoneType"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_params_that_do_not_fit():
    params = symmetric_params(torch.ones(3), axis=1)
    for call in (quantize, lambda v, p: dequantize(v.int(), p)):
        with pytest.raises(ValueError, match="each of the 2 slices along axis 1, got 3"):
            call(torch.ones(3, 2), params)
        with pytest.raises(ValueError, match=r"axis must be an integer in \[-1, 0\], got 1"):
            call(torch.ones(3), params)
