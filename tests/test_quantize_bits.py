"""Packed codes take as many bits as they should, and come back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.quantize import (
    QParams,
    affine_params,
    fake_quantize,
    quantize,
    split_groups,
    symmetric_params,
)
from rac_helpers.quantize.bits import pack_bits, unpack_bits
from rac_helpers.quantize.packed import FORMS, AffineWeight, CodebookWeight, SignWeight
from rac_helpers.rng import make_generator


@st.composite
def codes_and_bits(draw):
    bits = draw(st.integers(1, 16))
    codes = draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    return torch.tensor(codes, dtype=torch.int64), bits


def reference_pack(codes: list[int], bits: int) -> list[int]:
    """One large number whose lowest bits are the first code."""
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    return list(number.to_bytes(math.ceil(len(codes) * bits / 8), "little"))


@settings(deadline=None)
@given(codes_and_bits())
def test_codes_are_packed_densely_and_come_back(case):
    codes, bits = case
    before = codes.clone()
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == reference_pack(codes.tolist(), bits)
    assert torch.equal(unpack_bits(packed, bits, len(codes)).long(), codes)
    assert torch.equal(codes, before)


def test_one_bit_is_as_in_numpy_and_eight_bits_are_bytes():
    codes = torch.randint(256, (1001,), generator=make_generator(0))
    expected = np.packbits(codes.numpy() & 1, bitorder="little")
    assert pack_bits(codes & 1, 1).tolist() == expected.tolist()
    assert torch.equal(pack_bits(codes, 8), codes.to(torch.uint8))
    assert pack_bits(codes, 16).numpy().view("<u2").tolist() == codes.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_and_layout(dtype):
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    assert torch.equal(pack_bits(codes.t(), 3), pack_bits(codes.t().contiguous(), 3))
    assert unpack_bits(pack_bits(codes.t(), 3), 3, 6).tolist() == [1, 4, 2, 5, 3, 6]


@pytest.mark.parametrize(
    ("codes", "bits", "error", "message"),
    [
        (torch.tensor([16]), 4, ValueError, r"codes must be in \[0, 15\], got \[16, 16\]"),
        (torch.tensor([-1, 3]), 4, ValueError, r"codes must be in \[0, 15\], got \[-1, 3\]"),
        (torch.tensor([1.0]), 4, TypeError, "codes must be a tensor of integers, got torch.float"),
        (torch.tensor([True]), 4, TypeError, "codes must be a tensor of integers, got torch.bool"),
        ([1], 4, TypeError, "codes must be a tensor of integers, got list"),
        (torch.tensor([1]), 0, ValueError, r"bits must be an integer in \[1, 16\], got 0"),
        (torch.tensor([1]), 17, ValueError, r"bits must be an integer in \[1, 16\], got 17"),
    ],
)
def test_wrong_codes_are_refused(codes, bits, error, message):
    with pytest.raises(error, match=message):
        pack_bits(codes, bits)


@pytest.mark.parametrize(
    ("packed", "count", "error", "message"),
    [
        (torch.zeros(2, dtype=torch.uint8), 5, ValueError, r"shape \(3,\) for 5 codes of 4 bits"),
        (torch.zeros(4, dtype=torch.uint8), 5, ValueError, r"got \(4,\)"),
        (torch.zeros(3, 1, dtype=torch.uint8), 5, ValueError, r"got \(3, 1\)"),
        (torch.zeros(3), 5, TypeError, "packed must be a uint8 tensor, got torch.float32"),
        (b"123", 5, TypeError, "packed must be a uint8 tensor, got bytes"),
        (torch.zeros(3, dtype=torch.uint8), -1, ValueError, "count must be an integer >= 0"),
    ],
)
def test_wrong_bytes_are_refused(packed, count, error, message):
    with pytest.raises(error, match=message):
        unpack_bits(packed, 4, count)


# --- weights --------------------------------------------------------------------------------

WEIGHT = torch.randn(6, 4, 3, 3, generator=make_generator(1))


def affine_cases():
    low, high = WEIGHT.flatten(1).aminmax(dim=1)
    groups = split_groups(WEIGHT, 12)
    yield "tensor", 4, symmetric_params(WEIGHT.abs().max(), 4)
    yield "zero point", 5, affine_params(-0.3, 2.0, 5)
    yield "unsigned", 3, affine_params(0.0, 2.0, 3, signed=False)
    yield "channel", 3, symmetric_params(WEIGHT.abs().flatten(1).amax(1), 3, axis=0)
    yield "channel, axis from behind", 3, symmetric_params(torch.ones(6), 3, axis=-4)
    yield "channel, zero point", 8, affine_params(low, high, 8, axis=0)
    yield "16 bits", 16, affine_params(low, high, 16, axis=0)
    yield "group", 2, symmetric_params(groups.abs().amax(1), 2, axis=0)


@pytest.mark.parametrize(("name", "bits", "params"), list(affine_cases()))
def test_affine_weights_are_those_of_fake_quantization_to_the_bit(name, bits, params):
    rows = split_groups(WEIGHT, 12) if name == "group" else WEIGHT
    packed = AffineWeight(quantize(rows, params).reshape(WEIGHT.shape), params)
    assert torch.equal(packed(), fake_quantize(rows, params).reshape(WEIGHT.shape))
    assert packed().dtype == torch.float32
    assert packed.codes.nbytes == math.ceil(WEIGHT.numel() * bits / 8)
    assert (packed.zero_point is not None) == bool(params.zero_point.any())


def test_scales_count_in_the_bits_per_weight():
    params = symmetric_params(WEIGHT.abs().flatten(1).amax(1), 4, axis=0)
    packed = AffineWeight(quantize(WEIGHT, params), params)
    assert packed.bits_per_weight == pytest.approx(4 + 32 * 6 / WEIGHT.numel())
    assert "6x4x3x3, 4 bits" in repr(packed)


def test_ternary_weights_take_two_bits():
    codes = WEIGHT.sign().to(torch.int8) * (WEIGHT.abs() > 0.5)
    params = QParams(torch.tensor(0.7), torch.tensor(0, dtype=torch.int32), -1, 1)
    packed = AffineWeight(codes, params)
    assert packed.bits == 2
    assert torch.equal(packed(), codes * torch.tensor(0.7))


@pytest.mark.parametrize(("k", "bits"), [(1, 1), (2, 1), (3, 2), (16, 4), (17, 5), (300, 9)])
def test_codebooks_take_as_few_bits_as_they_have_values_for(k, bits):
    values = torch.randn(k, generator=make_generator(2))
    indices = torch.randint(k, WEIGHT.shape, generator=make_generator(3))
    packed = CodebookWeight(indices, values)
    assert packed.bits == bits
    assert torch.equal(packed(), values[indices])


@pytest.mark.parametrize("factors", [torch.tensor(0.5), torch.arange(1.0, 7.0)])
def test_binary_weights_take_one_bit(factors):
    signs = torch.where(WEIGHT > 0, 1, -1)
    packed = SignWeight(signs, factors)
    assert packed.codes.nbytes == math.ceil(WEIGHT.numel() / 8)
    assert torch.equal(packed(), signs * factors.reshape(-1, 1, 1, 1))


def weights():
    for name, _, params in affine_cases():
        if name != "group":
            yield AffineWeight(quantize(WEIGHT, params), params)
    yield CodebookWeight(torch.ones(2, 3, dtype=torch.uint8), torch.tensor([1.0, 2.0, 3.0]))
    yield SignWeight(torch.ones(2, 3, dtype=torch.int8), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("packed", list(weights()))
def test_a_blank_weight_takes_over_the_buffers(packed):
    blank = FORMS[packed.about["form"]].blank(packed.about)
    blank.load_state_dict(packed.state_dict())
    assert torch.equal(blank(), packed())
    assert blank.about == packed.about


def qparams(count: int, axis: int | None = 0) -> QParams:
    return symmetric_params(torch.ones(count), 4, axis=axis)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AffineWeight(torch.full((2, 2), 8), qparams(2)), ValueError, r"got \[14, 15\]|15"),
        (lambda: AffineWeight(torch.zeros(2, 2), qparams(2)), TypeError, "codes must be a tensor"),
        (lambda: AffineWeight(torch.ones(2, 2).int(), 3), TypeError, "params must be QParams"),
        (lambda: AffineWeight(torch.ones(2, 6).int(), qparams(3)), ValueError, "got 3 along axis"),
        (lambda: AffineWeight(torch.ones(2, 6).int(), qparams(8)), ValueError, "got 8 along axis"),
        (lambda: AffineWeight(torch.ones(2, 2).int(), qparams(2, 1)), ValueError, "along axis 1"),
        (lambda: CodebookWeight(torch.tensor([2]), torch.ones(2)), ValueError, r"in \[0, 1\]"),
        (lambda: CodebookWeight(torch.tensor([0]), torch.ones(1, 1)), ValueError, r"shape \(k,\)"),
        (lambda: CodebookWeight(torch.tensor([0]), [1.0]), TypeError, "values must be a tensor"),
        (lambda: SignWeight(torch.tensor([1, 0]), torch.tensor(1.0)), ValueError, "got 0 among"),
        (lambda: SignWeight(torch.ones(2), torch.tensor(1.0)), TypeError, "codes must be a tensor"),
        (lambda: SignWeight(torch.ones(2).int(), torch.ones(3)), ValueError, r"factors must have"),
        (lambda: SignWeight(torch.ones(2).int(), 0.5), TypeError, "factors must be a tensor"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
