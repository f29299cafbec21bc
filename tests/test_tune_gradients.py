"""Clipping, gradients that explode and vanish, and the learning-rate range test."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.models import SmallCNN
from rac_helpers.rng import make_generator
from rac_helpers.train import fit
from rac_helpers.tune import (
    ClipNorm,
    LrRange,
    RecallNet,
    clip_by_norm_,
    clip_by_value_,
    grad_norm,
    lr_range_test,
    norms_back,
    recall_task,
    rising,
    suggest_lr,
    train_recall,
)


def weights_with_gradients(seed: int, size: float) -> list[nn.Parameter]:
    generator, found = make_generator(seed), []
    for shape in ((3, 2), (4,), ()):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = size * torch.randn(shape, generator=generator)
        found.append(weight)
    return [*found, nn.Parameter(torch.zeros(2))]  # the last has no gradient


# -- clipping -------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), size=st.floats(1e-3, 1e3), bound=st.floats(1e-2, 1e2))
@settings(max_examples=60)
def test_clipping_is_that_of_torch_and_only_makes_shorter(seed, size, bound):
    """E66: no gradient ever becomes longer."""
    ours, theirs = weights_with_gradients(seed, size), weights_with_gradients(seed, size)
    before = [weight.grad.clone() for weight in ours[:3]]
    norm = clip_by_norm_(ours, bound)
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(theirs, bound).item(), rel=1e-5)
    after = [weight.grad for weight in ours[:3]]
    torch.testing.assert_close(after, [w.grad for w in theirs[:3]], rtol=1e-4, atol=1e-6)
    assert grad_norm(after) <= min(norm, bound) * (1 + 1e-5)
    factor = min(1.0, bound / norm)
    torch.testing.assert_close(after, [factor * gradient for gradient in before])
    if norm <= bound:
        assert all(map(torch.equal, after, before))


@given(seed=st.integers(0, 99), bound=st.floats(1e-2, 10))
@settings(max_examples=30)
def test_clipping_by_value_is_that_of_torch(seed, bound):
    ours, theirs = weights_with_gradients(seed, 1.0), weights_with_gradients(seed, 1.0)
    clip_by_value_(ours, bound)
    nn.utils.clip_grad_value_(theirs, bound)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours[:3], theirs, strict=False))


def test_by_norm_keeps_the_direction_and_by_value_does_not():
    cosine = nn.functional.cosine_similarity
    weight = nn.Parameter(torch.zeros(2))
    gradient = torch.tensor([10.0, 0.5])
    for clip, same in ((clip_by_norm_, True), (clip_by_value_, False)):
        weight.grad = gradient.clone()
        clip([weight], 1.0)
        assert (cosine(weight.grad, gradient, dim=0).item() > 0.9999) is same


def test_zero_gradients_and_none_at_all():
    weight = nn.Parameter(torch.zeros(2))
    assert clip_by_norm_([weight], 1.0) == 0
    weight.grad = torch.zeros(2)
    assert clip_by_norm_([weight], 1.0) == 0
    assert torch.equal(weight.grad, torch.zeros(2))


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf])
def test_unfit_bounds_are_named(bound):
    for clip, name in ((clip_by_norm_, "max_norm"), (clip_by_value_, "max_value")):
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            clip([], bound)
    with pytest.raises(ValueError, match="max_norm must be a finite number"):
        ClipNorm(bound)


def test_one_tensor_is_not_silently_passed_over():
    """Whoever goes through its rows finds no gradients, and clips nothing."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    for clip in (clip_by_norm_, clip_by_value_):
        with pytest.raises(TypeError, match="parameters must be several tensors, got one Param"):
            clip(weight, 0.1)


def test_clipping_through_the_door_of_fit():
    """A bound that is never reached changes nothing; a small one keeps each step short."""
    images = torch.randint(256, (24, 3, 8, 8), generator=make_generator(0), dtype=torch.uint8)
    split, ends = (images, torch.arange(24) % 2), {}
    for bound in (None, 1e6, 1e-3):
        net = SmallCNN(2, 4, seed=0)
        clip = None if bound is None else ClipNorm(bound)
        start = nn.utils.parameters_to_vector(net.parameters()).clone()
        options = {"epochs": 1, "batch_size": 8, "lr": 0.1, "momentum": 0, "weight_decay": 0}
        fit(net, split, split, before_step=clip, **options)
        ends[bound] = nn.utils.parameters_to_vector(net.parameters()).detach()
        if clip:
            assert len(clip.norms) == 3
            assert min(clip.norms) > 1e-3
    assert torch.equal(ends[None], ends[1e6])
    assert 0 < (ends[1e-3] - start).norm() <= 3 * 0.1 * 1e-3 * 1.01


# -- exploding and vanishing ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.2])
def test_gradients_change_by_the_scale_in_each_step(scale):
    net = RecallNet(scale=scale, seed=3)
    norms = norms_back(net, 30)
    want = [net.output.norm().item() * scale ** (29 - step) for step in range(30)]
    assert norms == pytest.approx(want, rel=1e-3)
    assert all(value.grad is None for value in net.parameters())


def test_states_are_those_of_torch_rnn_without_tanh():
    """With tanh as good as linear: inputs so small that it does not bend."""
    net = RecallNet(4, scale=0.9, seed=1)
    theirs = nn.RNN(1, 4, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.weight_hh_l0.copy_(net.recurrent)
        theirs.weight_ih_l0.copy_(net.input[:, None])
    inputs = 1e-3 * torch.randn(5, 7, generator=make_generator(0))
    want = theirs(inputs[:, :, None])[0][:, -1] @ net.output
    torch.testing.assert_close(net(inputs), want, rtol=1e-3, atol=1e-6)


def test_clipping_cures_exploding_gradients_and_not_vanishing_ones():
    """E66, by training: what the article promises for both holds for one."""

    def trained(scale, max_norm):
        net = RecallNet(scale=scale, seed=0)
        return train_recall(net, generator=make_generator(0), max_norm=max_norm, num_updates=150)

    assert trained(1.3, math.inf)["diverged"] == 1
    cured = trained(1.3, 1.0)
    assert cured["accuracy"] > 0.95
    assert cured["clipped_share"] > 0
    free, bound = trained(0.5, math.inf), trained(0.5, 1.0)
    assert free == bound  # not a single step was clipped
    assert free["clipped_share"] == free["diverged"] == 0
    assert free["accuracy"] < 0.65


def test_weights_that_overflow_in_the_last_step_have_diverged():
    """Loss and gradient are finite there; only the weights are not."""
    options = {"generator": make_generator(0), "lr": 1e30, "num_updates": 1}
    found = train_recall(RecallNet(scale=3.0), **options)
    assert found["diverged"] == 1
    assert found["accuracy"] == 0.5
    assert math.isfinite(found["median_norm"])


def test_unfit_networks_and_tasks_are_named():
    with pytest.raises(ValueError, match="scale must be a finite number > 0"):
        RecallNet(scale=0)
    with pytest.raises(ValueError, match="hidden must be an integer >= 1"):
        RecallNet(0)
    with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
        recall_task(3, 0, generator=make_generator(0))
    for name, value in {"max_norm": math.nan, "lr": math.nan}.items():
        with pytest.raises(ValueError, match=f"{name} must be a finite number, got nan"):
            train_recall(RecallNet(), generator=make_generator(0), num_updates=1, **{name: value})
    for name, value in {"max_norm": -math.inf, "lr": 0}.items():
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            train_recall(RecallNet(), generator=make_generator(0), num_updates=1, **{name: value})


# -- the learning-rate range test -----------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures():
    """Dark or light: easy to tell apart."""
    labels = torch.arange(128) % 2
    noise = torch.randint(60, (128, 3, 8, 8), generator=make_generator(0))
    return (noise + 150 * labels[:, None, None, None]).to(torch.uint8), labels


def test_rates_rise_by_one_factor():
    rates = rising(1e-4, 10, 6)
    assert rates == pytest.approx([10**e for e in range(-4, 2)])
    with pytest.raises(ValueError, match=r"0 < low < high, got 0\.1 and 0\.1"):
        rising(0.1, 0.1, 5)


def test_the_test_falls_then_breaks_and_leaves_the_model_alone(pictures):
    model = SmallCNN(2, 4, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    options = {"num_steps": 60, "high": 1000.0, "batch_size": 32}
    seen = lr_range_test(model, pictures, generator=make_generator(0), **options)
    assert seen.diverged
    assert len(seen.lrs) == len(seen.losses) == len(seen.smoothed) < 60
    assert min(seen.smoothed) < 0.8 * seen.losses[0]
    assert all(map(math.isfinite, seen.losses))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert lr_range_test(model, pictures, generator=make_generator(0), **options) == seen
    assert suggest_lr(seen) < seen.lrs[-1] / 10


@pytest.mark.parametrize("momentum", [-0.1, 1.5, math.nan])
def test_unfit_momentum_is_named(pictures, momentum):
    with pytest.raises(ValueError, match=r"momentum must be a finite number in \[0, 1\], got"):
        lr_range_test(
            SmallCNN(2, 4), pictures, generator=make_generator(0), momentum=momentum, num_steps=2
        )


def test_low_rates_do_not_break(pictures):
    options = {"low": 1e-6, "high": 1e-5, "num_steps": 10}
    seen = lr_range_test(SmallCNN(2, 4), pictures, generator=make_generator(0), **options)
    assert not seen.diverged
    assert len(seen.lrs) == 10


def test_the_first_losses_are_those_of_a_loop_by_hand(pictures):
    model = SmallCNN(2, 4, seed=1)
    options = {"low": 0.01, "high": 0.1, "num_steps": 3, "batch_size": 16}
    seen = lr_range_test(model, pictures, generator=make_generator(2), **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
    generator, losses = make_generator(2), []
    for lr in (0.01, 0.1**1.5, 0.1):
        optimizer.param_groups[0]["lr"] = lr
        index = torch.randperm(128, generator=generator)[:16]
        loss = nn.functional.cross_entropy(model.train()(pictures[0][index]), pictures[1][index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert seen.losses == pytest.approx(losses, rel=1e-4)
    assert seen.smoothed[0] == seen.losses[0]
    assert seen.smoothed[1] == pytest.approx((0.9 * losses[0] + losses[1]) / 1.9, rel=1e-4)


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_mean():
    seen = LrRange([0.1, 1.0, 10.0], [2.0, 1.0, 0.1], [2.0, 1.4, 1.6], False)
    assert suggest_lr(seen) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="seen must hold at least one step"):
        suggest_lr(LrRange([], [], [], True))
