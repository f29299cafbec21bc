"""nas/plan.py, nas/compressed.py: what is measured is what is stored."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers import metrics, models, quantize
from rac_helpers.nas import (
    Plan,
    compress,
    compressed_bytes,
    compressed_space,
    masks_of,
    pack_compressed,
    plan_of,
    unpack_compressed_,
)

MODEL = models.SmallCNN(width=4)
LAYERS = [*quantize.quantizable(MODEL)]
GRID = quantize.symmetric_params(1.0, bits=2)
COLUMNS = quantize.symmetric_params(torch.ones(2), bits=3, axis=1)
ROWS = quantize.symmetric_params(torch.ones(2), bits=3, axis=0)
SHIFTED = dataclasses.replace(ROWS, zero_point=torch.ones(2, dtype=torch.int32))


def grids(rounding):
    layer = nn.Sequential(nn.Linear(2, 2))
    return compress(layer, Plan({"0": 0.0}, {"0": 3}), rounding=rounding)


def reread(stored):
    layer = nn.Sequential(nn.Linear(2, 2))
    unpack_compressed_(layer, stored, Plan({"0": 0.0}, {"0": 3}))


@st.composite
def plans(draw):
    sparsity = {name: draw(st.sampled_from([0.0, 0.3, 0.6, 0.95])) for name in LAYERS}
    return Plan(sparsity, {name: draw(st.integers(2, 8)) for name in LAYERS})


def layer_by_layer(plan):
    """The same with pieces of prune and quantize alone: cut, then round."""
    network = models.SmallCNN(width=4)
    network.load_state_dict(MODEL.state_dict())
    for name, layer in quantize.quantizable(network).items():
        flat = layer.weight.detach().flatten()
        flat[flat.abs().argsort(stable=True)[: round(plan.sparsity[name] * len(flat))]] = 0
        weight = flat.view_as(layer.weight)
        params = quantize.largest_weight(weight, plan.bits[name])
        layer.weight.data = quantize.fake_quantize(weight, params)
    return network


@settings(max_examples=20, deadline=None)
@given(plans())
def test_compress_cuts_and_rounds_and_leaves_the_model(plan):
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    ours, expected = compress(MODEL, plan).state_dict(), layer_by_layer(plan).state_dict()
    for name, value in expected.items():
        assert torch.allclose(ours[name], value, atol=1e-6)
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())


@settings(max_examples=20, deadline=None)
@given(plans())
def test_a_file_says_all(plan):
    """Another network, with other weights, becomes the same by the stored bytes alone."""
    stored = pack_compressed(MODEL, plan)
    other = models.SmallCNN(width=4, seed=9)
    unpack_compressed_(other, stored, plan)
    for name, value in compress(MODEL, plan).state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert compressed_bytes(MODEL, plan) == metrics.size_bytes(stored)


@settings(max_examples=20, deadline=None)
@given(plans())
def test_weights_take_so_many_values(plan):
    network = compress(MODEL, plan)
    for name, layer in quantize.quantizable(network).items():
        for channel in layer.weight.detach().flatten(1):
            assert len(channel.unique()) <= 2 ** plan.bits[name] - 1
        zeros = int((layer.weight == 0).sum())
        assert zeros >= round(plan.sparsity[name] * layer.weight.numel())


def test_bytes_by_hand():
    layer = nn.Sequential(nn.Linear(64, 2))
    dense, sparse = Plan({"0": 0.0}, {"0": 3}), Plan({"0": 0.75}, {"0": 16})
    sizes = {name: value.nbytes for name, value in pack_compressed(layer, dense).items()}
    assert sizes == {"0.bias": 8, "0.weight.scale": 8, "0.weight.codes": 128 * 3 // 8}
    stored = pack_compressed(layer, sparse)
    assert stored["0.weight.codes"].nbytes == 32 * 16 // 8
    assert stored["0.weight.bitmap"].nbytes == 128 // 8


def test_a_bitmap_only_where_it_pays():
    layer = nn.Sequential(nn.Linear(64, 2))
    assert "0.weight.bitmap" not in pack_compressed(layer, Plan({"0": 0.3}, {"0": 3}))
    assert "0.weight.bitmap" in pack_compressed(layer, Plan({"0": 0.9}, {"0": 3}))


def test_fewer_bits_and_more_zeros_take_fewer_bytes():
    def size(sparsity, bits):
        plan = Plan(dict.fromkeys(LAYERS, sparsity), dict.fromkeys(LAYERS, bits))
        return compressed_bytes(MODEL, plan)

    assert size(0, 2) < size(0, 4) < size(0, 8) < metrics.size_bytes(MODEL)
    assert size(0.95, 8) < size(0.8, 8) < size(0, 8)


def test_the_size_follows_from_the_plan_alone():
    """Weights that are rounded to zero are stored, so that training cannot change the size."""
    plan = Plan(dict.fromkeys(LAYERS, 0.8), dict.fromkeys(LAYERS, 2))
    other = models.SmallCNN(width=4, seed=9)
    other.classifier.weight.data[:, 0] = 99.0  # all others become zero
    assert compressed_bytes(other, plan) == compressed_bytes(MODEL, plan)


def test_a_learned_grid_is_what_is_stored():
    layer = nn.Sequential(nn.Linear(3, 1, bias=False))
    layer[0].weight.data = torch.tensor([[0.2, -0.4, 1.0]])
    plan = Plan({"0": 0.0}, {"0": 2})
    grid = quantize.symmetric_params(torch.tensor([0.4]), bits=2, axis=0)
    assert compress(layer, plan, rounding={"0": grid})[0].weight.tolist() == [
        pytest.approx([0.0, -0.4, 0.4])
    ]
    stored = pack_compressed(layer, plan, rounding={"0": grid})
    assert stored["0.weight.scale"].tolist() == pytest.approx([0.4])


def test_masks_are_those_of_the_plan():
    plan = Plan({"classifier": 0.5}, {"classifier": 4})
    masks = masks_of(MODEL, plan)
    assert masks.sparsity_by_layer() == {"classifier.weight": 0.5}
    cut = compress(MODEL, plan).classifier.weight == 0
    assert bool(cut[~masks["classifier.weight"]].all())


def test_space_and_plan():
    space = compressed_space(LAYERS, sparsities=(0.0, 0.5), bits=(2, 4, 8), widths=(4, 8))
    assert len(space) == (2 * 3) ** 4 * 2
    plan = plan_of(space, (1, 0) * 4 + (1,))
    assert plan == Plan(dict.fromkeys(LAYERS, 0.5), dict.fromkeys(LAYERS, 2), 8)
    assert plan_of(compressed_space(["a"]), (0, 0)).width is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Plan({"a": 1.0}, {"a": 4}), ValueError, r"sparsity of a must be in \[0, 1\)"),
        (lambda: Plan({"a": 0.5}, {"a": 1}), ValueError, r"bits of a must be an integer in \[2,"),
        (lambda: Plan({"a": 0.5}, {"b": 4}), ValueError, "must name the same layers"),
        (lambda: Plan({}, {}), ValueError, "at least one"),
        (lambda: compress(MODEL, Plan({"x": 0}, {"x": 4})), ValueError, "plan must name layers"),
        (lambda: grids({"x": GRID}), ValueError, "rounding must be for the layers"),
        (lambda: grids({"0": GRID}), ValueError, "codes -3 to 3, .*got codes -1 to 1"),
        (lambda: grids({"0": COLUMNS}), ValueError, "2 scales along axis 0, .* along axis 1"),
        (lambda: grids({"0": SHIFTED}), ValueError, r"zero point 0 .*zero points \[1\]"),
        (lambda: Plan([0.5], [4]), TypeError, "sparsity must be a mapping of layers, got list"),
        (lambda: compressed_space("fc"), TypeError, "layers must be a sequence of names"),
        (lambda: reread({}), ValueError, "model and stored must hold the layer '0'"),
        (lambda: compressed_space([]), ValueError, "genes must have names"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
