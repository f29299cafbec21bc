"""nas/zero_cost.py: estimates by hand, and ranks against scipy."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from rac_helpers.nas import build, gradient_norm, snip, spearman, synflow
from rac_helpers.rng import make_generator, scoped_seed

GENOME = (0, 1, 2, 0, 1)


def batch(count=6):
    generator = make_generator(0)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10


def test_against_plain_backward():
    images, labels = batch()
    model = build(GENOME, seed=0).eval()
    F.cross_entropy(model(images), labels).backward()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norm = math.sqrt(sum(float(w.grad.square().sum()) for w in weights))
    product = sum(float((w.grad * w.detach()).abs().sum()) for w in weights)
    fresh = build(GENOME, seed=0)
    assert gradient_norm(fresh, (images, labels)) == pytest.approx(norm, rel=1e-4)
    assert snip(fresh, (images, labels)) == pytest.approx(product, rel=1e-4)


def test_synflow_counts_ways():
    with scoped_seed(0):
        layers = [nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)]
    model = nn.Sequential(nn.Flatten(), *layers)
    one, two = (layer.weight.detach().abs().double() for layer in layers)
    ways = float((two @ one).sum())
    assert synflow(model, torch.zeros(1, 3, 1, 1)) == pytest.approx(2 * ways)


def test_synflow_needs_no_data_and_grows_with_width():
    image, wide, narrow = torch.zeros(1, 3, 32, 32), (0, 0, 0, 1, 0), (0, 0, 0, 0, 0)
    assert synflow(build(wide, seed=0), image) > synflow(build(narrow, seed=0), image)
    assert math.isfinite(synflow(build((0, 0, 0, 2, 1), seed=0), image))


def test_synflow_looks_at_one_image_and_also_at_frozen_layers():
    model, image = build(GENOME, seed=0), torch.zeros(1, 3, 32, 32)
    wanted = synflow(model, image)
    assert synflow(model, image.expand(4, 3, 32, 32)) == wanted
    model.stem.requires_grad_(False)
    assert synflow(model, image) == wanted
    assert not model.stem[0].weight.requires_grad


def test_networks_are_left_as_they_were():
    model = build(GENOME, seed=0)
    before = copy.deepcopy(model.state_dict())
    gradient_norm(model, batch()), snip(model, batch()), synflow(model, torch.zeros(1, 3, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9)), min_size=2, max_size=20))
def test_spearman_is_that_of_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        with pytest.raises(ValueError, match="must hold different values"):
            spearman(first, second)
        return
    ours = spearman(first, second)
    assert ours == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([1], [1]), "equally long, at least 2, got 1 and 1"),
        (([1, 2], [1, 2, 3]), "equally long, at least 2, got 2 and 3"),
        (([1, 2], [1, float("nan")]), "each of second must be a finite number, got nan"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(ValueError, match=message):
        spearman(*values)


@pytest.mark.parametrize("wrong", ["1", None, True])
def test_values_that_are_no_numbers(wrong):
    with pytest.raises(TypeError, match="each of second must be a finite number, got"):
        spearman([1, 2], [0, wrong])
