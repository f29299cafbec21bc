"""Every format gives back what it stored, and its bytes are those that can be counted by hand."""

from __future__ import annotations

import copy
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from rac_helpers import metrics, models, prune
from rac_helpers.rng import make_generator

FORMATS = {
    "dense": (prune.encode_dense, prune.decode_dense),
    "bitmap": (prune.encode_bitmap, prune.decode_bitmap),
    "csr": (prune.encode_csr, prune.decode_csr),
    "gaps": (prune.encode_gaps, prune.decode_gaps),
}
EACH = pytest.mark.parametrize(("encode", "decode"), FORMATS.values(), ids=FORMATS)
SPARSE = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=9),
    elements=st.one_of(st.just(0.0), st.floats(width=32, allow_nan=False)),
    fill=st.just(0.0),
)


def sparse(*shape: int, share: float, seed: int = 0) -> torch.Tensor:
    """Random weights, exactly ``share`` of them zero."""
    generator = make_generator(seed)
    weights = torch.randn(shape, generator=generator)
    masks = prune.layer_masks({"w": torch.rand(shape, generator=generator)}, share)
    return weights * masks["w"]


# --- round trips ----------------------------------------------------------------------------


@EACH
@settings(deadline=None)
@given(weights=SPARSE)
def test_what_is_stored_comes_back(encode, decode, weights):
    weights = torch.from_numpy(weights)
    stored = encode(weights)
    assert type(stored) is bytes
    assert torch.equal(decode(stored, tuple(weights.shape)), weights)


@settings(deadline=None)
@given(weights=SPARSE, bits=st.integers(1, 16))
def test_gaps_of_any_width_come_back(weights, bits):
    weights = torch.from_numpy(weights)
    stored = prune.encode_gaps(weights, bits=bits)
    assert torch.equal(prune.decode_gaps(stored, tuple(weights.shape), bits=bits), weights)


@EACH
@pytest.mark.parametrize("shape", [(2, 300), (300, 300), (3, 70_000), (), (1,), (5, 1, 1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.9, 0.9999])
def test_large_and_odd_shapes_come_back(encode, decode, shape, share):
    """Places and counts that need 2 and 4 bytes."""
    weights = sparse(*shape, share=share)
    assert torch.equal(decode(encode(weights), shape), weights)


@EACH
def test_zeros_only_come_back(encode, decode):
    assert not decode(encode(torch.zeros(4, 7)), (4, 7)).any()


@EACH
def test_infinities_and_nans_come_back(encode, decode):
    weights = torch.tensor([[0.0, torch.inf, -torch.inf], [torch.nan, 0.0, 1e-45]])
    found = decode(encode(weights), (2, 3))
    torch.testing.assert_close(found, weights, rtol=0, atol=0, equal_nan=True)


@EACH
def test_views_are_stored_in_the_order_of_their_shape(encode, decode):
    weights = sparse(6, 4, share=0.5).t()
    assert not weights.is_contiguous()
    assert torch.equal(decode(encode(weights), (4, 6)), weights)


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.95])
@pytest.mark.parametrize(
    "shape",
    [(16, 3, 3, 3), (64, 64, 3, 3), (10, 64), (1, 255), (1, 256), (2, 256), (2, 257), (256, 256)],
)
def test_bytes_are_those_counted_by_hand(shape, share):
    n, rows = math.prod(shape), shape[0]
    kept = n - round(share * n)
    weights = sparse(*shape, share=share)
    ends = 1 if n < 256 else 2 if n < 65536 else 4
    column = 1 if n // rows <= 256 else 2
    assert len(prune.encode_dense(weights)) == 4 * n
    assert len(prune.encode_bitmap(weights)) == math.ceil(n / 8) + 4 * kept
    assert len(prune.encode_csr(weights)) == rows * ends + kept * (column + 4)
    assert torch.equal(prune.decode_csr(prune.encode_csr(weights), shape), weights)


def reference_gaps(flat: list[float], bits: int) -> tuple[list[int], list[float]]:
    """Deep Compression, section 2, one weight after the other."""
    gaps, values, last = [], [], -1
    for place, value in enumerate(flat):
        if value == 0:
            continue
        while place - last > 2**bits:
            gaps.append(2**bits)
            values.append(0.0)
            last += 2**bits
        gaps.append(place - last)
        values.append(value)
        last = place
    return gaps, values


@settings(deadline=None)
@given(weights=SPARSE, bits=st.integers(1, 6))
def test_gaps_are_those_of_a_loop(weights, bits):
    gaps, values = reference_gaps(weights.flatten().tolist(), bits)
    stored = prune.encode_gaps(torch.from_numpy(weights), bits=bits)
    assert len(stored) == 4 + math.ceil(len(gaps) * bits / 8) + 4 * len(values)
    packed = np.unpackbits(np.frombuffer(stored[4:], np.uint8), count=len(gaps) * bits)
    codes = [sum(int(bit) << k for k, bit in enumerate(row)) for row in packed.reshape(-1, bits)]
    assert [code + 1 for code in codes] == gaps
    tail = stored[len(stored) - 4 * len(values) :]
    assert np.frombuffer(tail, "<f4").tolist() == values


def test_the_figure_of_deep_compression():
    """Figure 2: places 1, 4, 15 with 3 bits are the distances 1, 3, 8, 3; the third is a filler."""
    weights = torch.zeros(16)
    weights[[0, 3, 14]] = torch.tensor([3.4, 0.9, 1.7])  # its places count from 1
    assert reference_gaps(weights.tolist(), 3)[0] == [1, 3, 8, 3]
    stored = prune.encode_gaps(weights, bits=3)
    assert np.frombuffer(stored[:4], "<u4").item() == 4
    values = np.frombuffer(stored[6:], "<f4")
    np.testing.assert_array_equal(values, np.array([3.4, 0.9, 0, 1.7], np.float32))


def test_which_format_is_smallest_depends_on_the_sparsity():
    """Zeros pay only above some sparsity: indices cost bytes, too."""
    sizes = {
        share: {
            name: len(encode(sparse(64, 64, 3, 3, share=share)))
            for name, (encode, _) in FORMATS.items()
        }
        for share in (0.0, 0.5, 0.98)
    }
    assert min(sizes[0.0], key=sizes[0.0].get) == "dense"
    assert min(sizes[0.5], key=sizes[0.5].get) == "bitmap"
    assert min(sizes[0.98], key=sizes[0.98].get) == "csr"  # 5 bits hold gaps up to 32: fillers
    eight_bits = len(prune.encode_gaps(sparse(64, 64, 3, 3, share=0.98), bits=8))
    assert eight_bits < sizes[0.98]["csr"]


# --- whole models ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_comes_back(name):
    encode, decode = FORMATS[name]
    model, other = models.SmallCNN(width=4, seed=0), models.SmallCNN(width=4, seed=1)
    prune.global_masks(prune.magnitude_scores(model), 0.8).apply_(model)
    model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))  # changes the running means
    prune.unpack_(other, prune.pack(model, encode), decode)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_zeros_save_nothing_until_they_are_left_out():
    model = models.SmallCNN()
    dense = metrics.size_bytes(model)
    prune.global_masks(prune.magnitude_scores(model), 0.9).apply_(model)
    assert metrics.size_bytes(model) == dense
    packed = metrics.size_bytes(prune.pack(model, prune.encode_bitmap))
    weights = prune.prunable(model).values()
    by_hand = sum(math.ceil(w.numel() / 8) + 4 * int(w.count_nonzero()) for w in weights)
    rest = sum(4 * w.numel() for w in weights)
    assert packed - by_hand == pytest.approx(dense - rest, abs=200)  # the headers differ
    assert packed < 0.2 * dense


def test_packing_does_not_share_memory_with_the_model():
    layer = nn.Linear(3, 2)
    packed = prune.pack(layer, prune.encode_dense)
    layer.bias.data.fill_(7)
    assert not (packed["bias"] == 7).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed.pop("bias"), r"names of the model's state, differing: \['bias'\]"),
        (lambda packed: packed.update(more=torch.zeros(1)), r"differing: \['more'\]"),
        (lambda packed: packed.update(bias=torch.zeros(3)), r"shape \(2,\), got \(3,\)"),
        (
            lambda packed: packed.update(weight=packed["weight"][:-1]),
            "stored bytes are damaged or of another shape",
        ),
    ],
)
def test_what_does_not_fit_leaves_the_model_untouched(change, message):
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    before = copy.deepcopy(other.state_dict())
    packed = prune.pack(layer, prune.encode_bitmap)
    change(packed)
    with pytest.raises(ValueError, match=message):
        prune.unpack_(other, packed, prune.decode_bitmap)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


# --- bad input ------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], TypeError, "weights must be a float32 tensor, got list"),
        (torch.zeros(2, dtype=torch.float64), TypeError, r"got torch.float64"),
        (torch.zeros(0, 3), ValueError, r"must not be empty, got shape \(0, 3\)"),
    ],
)
def test_only_float32_weights_are_stored(encode, decode, weights, error, message):
    with pytest.raises(error, match=message):
        encode(weights)


@EACH
@pytest.mark.parametrize("change", [lambda stored: stored[:-1], lambda stored: stored + b"\0"])
def test_bytes_cut_short_or_too_long_are_refused(encode, decode, change):
    stored = encode(sparse(5, 7, share=0.5))
    with pytest.raises(ValueError, match="stored bytes are damaged or of another shape"):
        decode(change(stored), (5, 7))


@pytest.mark.parametrize(
    ("decode", "stored", "message"),
    [
        (prune.decode_csr, bytes([1, 0]), "rows end too early"),
        (prune.decode_csr, bytes([0, 1, 3]) + bytes(4), "a column too far"),
        (prune.decode_gaps, bytes([1, 0, 0, 0]) + b"\xff" + bytes(4), "a place too far"),
    ],
)
def test_places_outside_of_the_shape_are_refused(decode, stored, message):
    with pytest.raises(ValueError, match=rf"damaged or not of shape \(2, 3\): {message}"):
        decode(stored, (2, 3))


@EACH
@settings(deadline=None)
@given(stored=st.binary(max_size=60))
def test_any_other_bytes_give_a_tensor_or_a_clear_error(encode, decode, stored):
    outcome = "a tensor"
    try:
        found = decode(stored, (3, 4))
    except ValueError as error:
        outcome = str(error)
    else:
        assert found.shape == (3, 4)
    assert outcome == "a tensor" or outcome.startswith("stored bytes are damaged")


@pytest.mark.parametrize("bits", [0, 17])
@pytest.mark.parametrize(
    "call",
    [
        functools.partial(prune.encode_gaps, torch.ones(3)),
        functools.partial(prune.decode_gaps, bytes(20), (3,)),
    ],
)
def test_bits_must_be_in_the_range(call, bits):
    with pytest.raises(ValueError, match=rf"bits must be an integer in \[1, 16\], got {bits}"):
        call(bits=bits)
