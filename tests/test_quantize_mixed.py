"""Bits for each layer: the measured losses, and the choice against all others there are."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.data import Split
from rac_helpers.models import SmallCNN
from rac_helpers.quantize import (
    bit_losses,
    choose_bits,
    insert_quantizers,
    largest_weight,
    least_error,
    quantizable,
    weight_bytes,
    weight_params,
)
from rac_helpers.rng import make_generator
from rac_helpers.train import evaluate


def layers(*sizes: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(size, 8) for size in sizes))


@pytest.fixture(scope="module")
def split():
    g = make_generator(0)
    images = torch.randint(256, (30, 3, 16, 16), generator=g, dtype=torch.uint8)
    return Split(images, torch.randint(10, (30,), generator=g))


# -- bytes ----------------------------------------------------------------------------------------


def test_bytes_are_rounded_up_layer_by_layer():
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(1, 5, 1))
    assert weight_bytes(model, {"0": 3, "1": 3}) == 4 + 2  # 27 and 15 bits
    assert weight_bytes(model, {"0": 8}) == 9
    assert weight_bytes(model, {}) == 0


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ({"9": 4}, ValueError, r"bits must name layers of the model \(0, 1\), got 9"),
        ({"0": 0}, ValueError, "bits must be an integer >= 1, got 0"),
        ({"0": 4.0}, TypeError, "bits must be an integer"),
    ],
)
def test_wrong_bits(bits, error, message):
    with pytest.raises(error, match=message):
        weight_bytes(layers(2, 2), bits)


# -- losses ---------------------------------------------------------------------------------------


def test_losses_are_those_of_one_rounded_layer(split):
    model = SmallCNN(width=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for choose in (None, least_error):
        losses = bit_losses(model, split, bits=(2, 8), choose=choose)
        assert list(losses) == list(quantizable(model))
        dense = evaluate(model, split)["loss"]
        for name, own in losses.items():
            assert list(own) == [2, 8]
            for bits, loss in own.items():
                weight = quantizable(model)[name].weight
                params = {name: (choose or largest_weight)(weight, bits)}
                rounded = insert_quantizers(model, weights=params)
                expected = evaluate(rounded, split)["loss"] - dense
                assert loss == pytest.approx(expected, abs=1e-5)
    assert any(abs(own[2]) > 1e-3 for own in losses.values())
    assert model.training
    assert "weight_quantizer" not in str(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("bits", "error"), [((1,), ValueError), ((17,), ValueError), ((4.0,), TypeError)]
)
def test_wrong_bits_to_try(split, bits, error):
    with pytest.raises(error, match=r"bits must be an integer in \[2, 16\]"):
        bit_losses(SmallCNN(width=2), split, bits=bits)


def test_wrong_models_and_splits(split):
    with pytest.raises(TypeError, match="split must be a Split"):
        bit_losses(SmallCNN(width=2), split[0])
    model = SmallCNN(width=2)
    rounded = insert_quantizers(model, weights=weight_params(model, 4))
    with pytest.raises(ValueError, match="model must be without quantizers"):
        bit_losses(rounded, split, bits=(4,))


# -- choice ---------------------------------------------------------------------------------------

rising = st.lists(st.floats(0, 10), min_size=3, max_size=3)


def total(losses, bits):
    return sum(losses[name][b] for name, b in bits.items())


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), rising), min_size=1, max_size=4), st.floats(0, 1)
)
@settings(max_examples=100, deadline=None)
def test_the_choice_is_one_step_of_one_layer_from_the_best(rows, share):
    """Where each further bit is worth less, greedy is the best but for what does not fit."""
    model = layers(*(size for size, _ in rows))
    losses = {
        str(k): {
            8: 0.0,
            6: min(steps),
            4: 2 * min(steps) + 1,
            2: 3 * max(steps) + 4 + 2 * min(steps),
        }
        for k, (_, steps) in enumerate(rows)
    }
    least = weight_bytes(model, dict.fromkeys(losses, 2))
    budget = int(least + share * 3 * least)
    chosen = choose_bits(model, losses, budget_bytes=budget)
    assert weight_bytes(model, chosen) <= budget
    assert list(chosen) == list(losses)
    all_bits = [
        dict(zip(losses, bits, strict=True))
        for bits in itertools.product((8, 6, 4, 2), repeat=len(rows))
    ]
    best = min(total(losses, b) for b in all_bits if weight_bytes(model, b) <= budget)
    step = max(own[a] - own[b] for own in losses.values() for a, b in ((6, 8), (4, 6), (2, 4)))
    assert total(losses, chosen) <= best + step + 1e-6


def test_the_layer_that_loses_least_for_a_byte_gives_up_bits_first():
    model = layers(1, 16)  # 8 and 128 weights
    losses = {"0": {8: 0.0, 4: 0.01}, "1": {8: 0.0, 4: 0.1}}
    assert choose_bits(model, losses, budget_bytes=136) == {"0": 8, "1": 8}
    assert choose_bits(model, losses, budget_bytes=135) == {"0": 8, "1": 4}  # 0.1 for 64 bytes
    losses["0"][4] = 0.001
    assert choose_bits(model, losses, budget_bytes=132) == {"0": 4, "1": 8}
    assert choose_bits(model, losses, budget_bytes=68) == {"0": 4, "1": 4}


def test_bits_may_be_skipped_and_a_gain_is_taken():
    model = layers(8)
    losses = {"0": {8: 0.0, 4: 5.0, 2: -1.0}}
    assert choose_bits(model, losses, budget_bytes=63) == {"0": 2}
    assert losses == {"0": {8: 0.0, 4: 5.0, 2: -1.0}}
    pair = layers(8, 8)
    assert choose_bits(pair, {"1": {4: 0.0}}, budget_bytes=32) == {"1": 4}  # the other is not meant


@pytest.mark.parametrize(
    ("losses", "budget", "error", "message"),
    [
        ({"0": {8: 0.0, 4: 0.1}}, 31, ValueError, "budget_bytes must be at least 32, got 31"),
        ({"0": {8: 0.0}}, 0, ValueError, "budget_bytes must be an integer >= 1, got 0"),
        ({"0": {8: 0.0}}, 99.5, TypeError, "budget_bytes must be an integer"),
        ({"x": {8: 0.0}}, 99, ValueError, "losses must name layers of the model .* got x"),
    ],
)
def test_wrong_choices(losses, budget, error, message):
    with pytest.raises(error, match=message):
        choose_bits(layers(8), losses, budget_bytes=budget)
