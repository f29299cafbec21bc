"""Pruning while training: schedules against worked values, zeros that stay, kills, tickets."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.prune.builders import block_masks, global_masks, layer_masks, n_m_masks
from rac_helpers.prune.callback import Pruner
from rac_helpers.prune.lottery import find_ticket_, rewind_
from rac_helpers.prune.masks import MaskSet, nonzero_masks
from rac_helpers.prune.schedule import (
    CubicSchedule,
    InEpochs,
    StepSchedule,
    iterative,
    one_shot,
    round_sparsities,
)
from rac_helpers.prune.scores import gradient_scores, magnitude_scores, taylor_scores
from rac_helpers.prune.weights import prunable
from rac_helpers.rng import make_generator, scoped_seed
from rac_helpers.train import evaluate, fit

STEP_PAUSE = "RAC_TEST_STEP_PAUSE"
EPOCHS, STEPS_PER_EPOCH = 4, 4
CUBIC = CubicSchedule(0.8, start=2, end=12, every=2)


class Net(nn.Module):
    """Two layers with 108 weights each; batch norm and dropout make it hard."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.norm(self.conv(images / 255))))


WEIGHTS = 3 * 4 * 9 + 36 * 3


def make_net() -> Net:
    with scoped_seed(7):
        return Net()


def make_split(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise that is red, green or blue."""
    generator = make_generator(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(180, (n, 3, 8, 8), generator=generator)
    images[torch.arange(n), labels] += 60
    return images.to(torch.uint8), labels


def shift(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    by = int(torch.randint(-1, 2, (1,), generator=generator))
    return images.roll(by, dims=-1)


def job(model: nn.Module, after_step=None, **changes) -> list[dict]:
    """Train with strong momentum and weight decay, 4 epochs of 4 steps."""
    arguments = {"epochs": EPOCHS, "batch_size": 16, "weight_decay": 0.01, "seed": 3}
    arguments |= {"transform": shift, "after_step": after_step}
    return fit(model, make_split(), make_split(30, seed=1), **(arguments | changes))


def count_zeros(model: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in prunable(model).values())


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


# The killed child and this process must add up numbers in the same order.
pytestmark = pytest.mark.usefixtures("one_thread")


# --- schedules ------------------------------------------------------------------------------


def test_cubic_is_equation_1_of_zhu_and_gupta():
    """In exact fractions: s_f + (s_i - s_f) (1 - k / n)^3 at t_0 + k dt."""
    schedule = CubicSchedule(0.875, start=100, end=1100, every=250, initial=0.25)
    final, initial, n = Fraction(7, 8), Fraction(1, 4), 4
    for k in range(n + 1):
        wanted = final + (initial - final) * (1 - Fraction(k, n)) ** 3
        assert schedule(100 + 250 * k) == pytest.approx(float(wanted), abs=1e-15)


@pytest.mark.parametrize(
    ("step", "wanted"), [(1000, 0), (3000, 0.2647), (5500, 0.4375), (3910, 0.345), (15_630, 0.5)]
)
def test_cubic_gives_the_values_of_the_article_run_in_tensorflow(step, wanted):
    """Erratum E10: 10 epochs of batch 128 are 3,910 steps and stop at 34.5 %, not at 50 %."""
    schedule = CubicSchedule(0.5, start=1000, end=10_000)
    assert schedule(step) == pytest.approx(wanted, abs=5e-4 if step == 3910 else 5e-5)


@settings(deadline=None)
@given(
    final=st.floats(0, 0.99),
    share=st.floats(0, 1),
    start=st.integers(0, 20),
    every=st.integers(1, 7),
    n=st.integers(1, 9),
)
def test_cubic_never_falls_rises_only_every_so_often_and_ends_exactly(
    final, share, start, every, n
):
    end = start + n * every
    schedule = CubicSchedule(final, start=start, end=end, every=every, initial=share * final)
    values = [schedule(step) for step in range(end + 5)]
    assert values == sorted(values)
    assert set(values[:start]) <= {0.0}
    assert values[start] == pytest.approx(share * final)
    assert values[end:] == [final] * 5
    for step in range(start + 1, end):
        assert values[step] == values[step - 1] or (step - start) % every == 0


def test_step_schedule_of_the_article_in_epochs():
    """0 / 0.5 / 0.8 at epochs 0 / 5 / 10 of 79 batches each, not at batches 0 / 5 / 10."""
    schedule = InEpochs(StepSchedule([(0, 0.0), (5, 0.5), (10, 0.8)]), steps_per_epoch=79)
    changes = [step for step in range(1, 1000) if schedule(step) != schedule(step - 1)]
    assert changes == [5 * 79, 10 * 79]
    assert [schedule(step) for step in (0, 5 * 79, 10 * 79, 10_000)] == [0.0, 0.5, 0.8, 0.8]


def test_one_shot_waits_then_cuts_all():
    assert [one_shot(0.9)(0), one_shot(0.9, at=3)(2), one_shot(0.9, at=3)(3)] == [0.9, 0.0, 0.9]


def test_iterative_cuts_the_same_share_of_what_is_left():
    final = 1 - 0.8**5
    schedule = iterative(final, rounds=5, every=10, start=4)
    kept = [1 - schedule(step) for step in (3, 4, 14, 24, 34, 44)]
    assert [b / a for a, b in itertools.pairwise(kept)] == pytest.approx([0.8] * 5)
    assert schedule(43) < schedule(44) == schedule(1000) == final


@settings(deadline=None)
@given(final=st.floats(0, 0.999), rounds=st.integers(1, 12))
def test_rounds_rise_to_exactly_the_final_sparsity(final, rounds):
    values = round_sparsities(final, rounds)
    assert len(values) == rounds
    assert values == sorted(values)
    assert values[-1] == final


def test_schedules_cannot_be_changed_and_are_equal_by_value():
    assert StepSchedule([[0, 0.5]]) == one_shot(0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        CUBIC.final = 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one_shot(0.5).milestones = ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one_shot(1.0), r"sparsity must be in \[0, 1\).*got 1.0"),
        (lambda: one_shot(-0.1), r"sparsity must be .*got -0.1"),
        (lambda: one_shot(float("nan")), "sparsity must be .*got nan"),
        (lambda: one_shot("half"), "sparsity must be .*got 'half'"),
        (lambda: one_shot(0.5, at=-1), "step must be an integer >= 0, got -1"),
        (lambda: one_shot(0.5, at=1.5), "step must be an integer >= 0, got 1.5"),
        (lambda: StepSchedule([]), "milestones must hold at least one"),
        (lambda: StepSchedule(0.5), "milestones must be pairs .*got 0.5"),
        (lambda: StepSchedule([0.5, 0.8]), r"milestones must be pairs .*got \[0.5, 0.8\]"),
        (lambda: StepSchedule([(5, 0.5), (5, 0.8)]), "steps of milestones must rise, got 5 after"),
        (lambda: StepSchedule([(0, 0.8), (5, 0.5)]), "must not fall.*got 0.5 after 0.8"),
        (lambda: CubicSchedule(1.0, start=0, end=5), "final must be in"),
        (lambda: CubicSchedule(0.5, start=-1, end=5), "start must be an integer >= 0, got -1"),
        (lambda: CubicSchedule(0.5, start=5, end=5), "end must be an integer >= 6, got 5"),
        (lambda: CubicSchedule(0.5, start=0, end=5, every=0), "every must be .* >= 1, got 0"),
        (lambda: CubicSchedule(0.5, start=0, end=5, every=2), "multiple of every=2, got 5"),
        (lambda: CubicSchedule(0.5, start=0, end=5, initial=0.6), "initial must be .*got 0.6"),
        (lambda: InEpochs(0.5, 10), "schedule must be callable .*got 0.5"),
        (lambda: InEpochs(CUBIC, 0), "steps_per_epoch must be an integer >= 1, got 0"),
        (lambda: iterative(0.5, rounds=0, every=1), "rounds must be an integer >= 1, got 0"),
        (lambda: iterative(0.5, rounds=2, every=0), "every must be an integer >= 1, got 0"),
        (lambda: iterative(0.5, rounds=2, every=1, start=-1), "start must be .*got -1"),
        (lambda: CUBIC(-1), "step must be an integer >= 0, got -1"),
        (lambda: one_shot(0.5)(0.5), "step must be an integer >= 0, got 0.5"),
        (lambda: InEpochs(CUBIC, 10)(-1), "step must be an integer >= 0, got -1"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# --- a pruner inside train.fit, and callbacks that are wrong --------------------------------


class ForgetsTheMask(Pruner):
    """Cuts when it is time, but does not put the zeros back after the other steps."""

    def __call__(self, model, step):
        if self.schedule(step) > self.schedule(step - 1):
            super().__call__(model, step)


class ShrinksAgain(Pruner):
    """Chooses anew from what training has filled, so that other weights are cut than before."""

    def __call__(self, model, step):
        rises = self.schedule(step) > self.schedule(step - 1)
        if not rises:
            return super().__call__(model, step)
        masks = self.choose(self.score(model), self.schedule(step))
        for name, mask in masks.items():
            model.get_buffer(f"{name}_mask").copy_(mask)
        masks.apply_(model)


class CutsUnionsOnly(Pruner):
    """Chooses anew and adds what was cut before: more zeros than wanted."""

    def __call__(self, model, step):
        masks = self.masks(model) & self.choose(self.score(model), self.schedule(step))
        for name, mask in masks.items():
            model.get_buffer(f"{name}_mask").copy_(mask)
        masks.apply_(model)


class RemembersByItself(Pruner):
    """Holds its masks outside the model, where no checkpoint finds them."""

    def __call__(self, model, step):
        masks = MEMORY.get("masks", self.masks(model))
        if self.schedule(step) > self.schedule(step - 1):
            masks = masks & self.choose(self.score(model), self.schedule(step))
        MEMORY["masks"] = masks
        masks.apply_(model)


MEMORY: dict[str, MaskSet] = {}


def noisy_scores(model: nn.Module) -> dict[str, torch.Tensor]:
    """Scores that change their mind: gradients on data that the masks know nothing of."""
    return gradient_scores(model, [make_split()])


def check_each_step(pruner: Pruner, wanted) -> nn.Module:
    """Train and compare, after every step, the zeros with the schedule ``wanted``."""
    net, before, steps = make_net(), [], []
    pruner.attach_(net)

    def watch(model, step):
        pruner(model, step)
        steps.append(step)
        zeros = {name: weight == 0 for name, weight in prunable(model).items()}
        assert count_zeros(model) == round(wanted(step) * WEIGHTS), f"wrong count at step {step}"
        for name in zeros if before else ():
            assert (zeros[name] | ~before[-1][name]).all(), f"{name} grew again at step {step}"
        before.append(zeros)

    job(net, watch)
    assert steps == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    pruner.detach_(net)
    return net


@pytest.mark.parametrize("score", [magnitude_scores, noisy_scores])
def test_every_step_has_exactly_the_zeros_of_the_schedule(score):
    net = check_each_step(Pruner(CUBIC, score=score), CUBIC)
    assert count_zeros(net) == round(0.8 * WEIGHTS)


IN_EPOCHS = InEpochs(StepSchedule([(1, 0.5), (3, 0.8)]), STEPS_PER_EPOCH)


@pytest.mark.parametrize(
    ("mutant", "message"),
    [
        (ForgetsTheMask(CUBIC), "wrong count at step"),
        (ShrinksAgain(CUBIC, score=noisy_scores), "grew again at step"),
        (CutsUnionsOnly(CUBIC, score=noisy_scores), "wrong count at step"),
        (Pruner(IN_EPOCHS.schedule), r"wrong count at step 1\n"),  # counts batches as epochs
    ],
)
def test_wrong_callbacks_are_rejected(mutant, message):
    wanted = IN_EPOCHS if isinstance(mutant.schedule, StepSchedule) else CUBIC
    with pytest.raises(AssertionError, match=message):
        check_each_step(mutant, wanted)


def test_epochs_of_a_schedule_are_those_of_fit():
    """Epochs of 4 steps: half is cut at the end of the first, more at the end of the third."""

    def wanted(step):
        return 0.8 if step >= 12 else 0.5 if step >= 4 else 0.0

    check_each_step(Pruner(IN_EPOCHS), wanted)


def test_training_fills_zeros_that_nobody_puts_back():
    """Else the tests above would prove nothing about momentum and weight decay."""
    net = make_net()
    masks = global_masks(magnitude_scores(net), 0.8)
    masks.apply_(net)
    job(net, epochs=1)
    assert count_zeros(net) == 0


def test_zeros_survive_steps_without_any_gradient():
    """Momentum alone moves weights on; the gradient of a cut weight is not zero either."""
    net = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()  # now every weight has momentum
    pruner = Pruner(one_shot(0.5, at=1))
    pruner.attach_(net)
    pruner(net, 1)
    net.weight.grad.zero_()
    for step in (2, 3):
        optimizer.step()
        assert count_zeros(net) == 0
        pruner(net, step)
        assert count_zeros(net) == 2


def test_the_masks_returned_are_the_zeros_and_keep_them_in_fine_tuning():
    net, pruner = make_net(), Pruner(CUBIC)
    keys = list(net.state_dict())
    pruner.attach_(net)
    assert {"conv.weight_mask", "last.2.weight_mask"} == net.state_dict().keys() - set(keys)
    job(net, pruner)
    masks = pruner.detach_(net)
    assert list(net.state_dict()) == keys
    assert masks == nonzero_masks(net)
    job(net, masks, epochs=1)
    assert masks == nonzero_masks(net)


def test_a_cut_at_step_0_comes_before_training():
    net, wanted = make_net(), global_masks(magnitude_scores(make_net()), 0.6)
    pruner = Pruner(one_shot(0.6))
    pruner.attach_(net)
    assert nonzero_masks(net) == wanted == pruner.masks(net)
    job(net, pruner, epochs=1)
    assert nonzero_masks(net) == wanted


def test_same_weights_as_torch_nn_utils_prune():
    """Torch hides the dense weights and multiplies by the mask in each forward pass."""
    images, labels = make_split(32)
    ours = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    theirs = copy.deepcopy(ours)
    pruner = Pruner(one_shot(0.7, at=3))
    pruner.attach_(ours)
    for net in (ours, theirs):
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=0.01)
        for step in range(1, 8):
            optimizer.zero_grad()
            F.cross_entropy(net(images.double() / 255), labels).backward()
            optimizer.step()
            if net is ours:
                pruner(net, step)
            elif step == 3:
                torch.nn.utils.prune.l1_unstructured(net[1], "weight", 0.7)
    pruner.detach_(ours)
    torch.nn.utils.prune.remove(theirs[1], "weight")
    torch.testing.assert_close(ours[1].weight, theirs[1].weight)
    assert nonzero_masks(ours) == nonzero_masks(theirs)


def test_scores_of_the_readers_own_may_use_gradients():
    """``after_step`` is called under ``no_grad``."""

    def own_scores(model):
        images, labels = make_split()
        weights = prunable(model)
        loss = F.cross_entropy(model(images), labels)
        slopes = torch.autograd.grad(loss, list(weights.values()))
        return {name: slope.abs() for name, slope in zip(weights, slopes, strict=True)}

    net, pruner = make_net(), Pruner(one_shot(0.5, at=3), score=own_scores)
    pruner.attach_(net)
    job(net, pruner, epochs=1)
    assert pruner.detach_(net).sparsity == 0.5


@pytest.mark.parametrize("choose", [layer_masks, functools.partial(block_masks, block=(1, 3))])
def test_other_ways_to_choose_hold_too(choose):
    net, pruner = make_net(), Pruner(CUBIC, choose=choose)
    pruner.attach_(net)
    job(net, pruner)
    masks = pruner.detach_(net)
    assert nonzero_masks(net) == masks
    assert masks.sparsity_by_layer() == pytest.approx(dict.fromkeys(masks, 0.8), abs=0.01)


def test_two_of_four_in_training():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    pruner = Pruner(one_shot(0.5, at=5), choose=lambda scores, _: n_m_masks(scores))
    pruner.attach_(net)
    job(nn.Sequential(Scale(), net), None, epochs=1)  # some weights
    with torch.no_grad():
        for step in range(1, 7):
            pruner(net, step)
    assert ((net[1].weight.view(-1, 4) != 0).sum(1) == 2).all()


class Scale(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255


def test_layers_without_scores_stay_dense():
    def conv_scores(model):
        return {"conv.weight": magnitude_scores(model)["conv.weight"]}

    net, pruner = make_net(), Pruner(CUBIC, score=conv_scores)
    pruner.attach_(net)
    job(net, pruner)
    assert pruner.detach_(net).sparsity_by_layer() == {"conv.weight": round(0.8 * 108) / 108}
    assert net.last[2].weight.all()


def test_a_recurrent_layer_is_pruned_as_well():
    lstm = nn.LSTM(5, 7)
    pruner = Pruner(one_shot(0.9, at=1))
    pruner.attach_(lstm)
    optimizer = torch.optim.Adam(lstm.parameters())
    for step in (1, 2, 3):
        lstm(torch.ones(4, 2, 5))[0].square().sum().backward()
        optimizer.step()
        pruner(lstm, step)
    masks = pruner.detach_(lstm)
    assert set(masks) == {"weight_ih_l0", "weight_hh_l0"}
    assert count_zeros(lstm) == round(0.9 * 28 * 12)


def test_a_schedule_that_falls_brings_nothing_back():
    net, pruner = make_net(), Pruner(lambda step: [0.8, 0.5, 0.1, 0.3, 0.6][min(step, 4)])
    pruner.attach_(net)
    masks = pruner.masks(net)
    job(net, pruner, epochs=2)
    assert pruner.detach_(net) == masks == nonzero_masks(net)


def test_pruning_goes_on_from_masks_that_were_there():
    net = make_net()
    first = global_masks(magnitude_scores(net), 0.3)
    first.apply_(net)
    pruner = Pruner(CUBIC)
    pruner.attach_(net, masks=first)
    job(net, pruner)
    masks = pruner.detach_(net)
    assert masks & first == masks
    assert count_zeros(net) == round(0.8 * WEIGHTS)


def test_what_is_cut_goes_before_scores_of_minus_infinity():
    """As the logarithm of a weight that is 0; the count is exact all the same."""

    def log_scores(model):
        return {name: weight.detach().abs().log() for name, weight in prunable(model).items()}

    layer = nn.Linear(8, 1)
    layer.weight.data.copy_(torch.tensor([0.0, 0.0, 3, 4, 5, 6, 7, 8]))
    cut = torch.tensor([[True] * 5 + [False] * 3])
    pruner = Pruner(one_shot(0.5, at=1), score=log_scores)
    pruner.attach_(layer, masks=MaskSet({"weight": cut}))
    pruner(layer, 1)
    assert pruner.detach_(layer)["weight"].tolist() == [[False] + [True] * 4 + [False] * 3]


def test_a_zero_by_chance_is_no_sign_of_pruning():
    """E62: torch.randn draws an exact zero now and then; ResNet-18 has up to three."""
    layer = nn.Linear(200, 100)
    layer.weight.data[7, 5] = 0
    pruner = Pruner(one_shot(0.25, at=1))
    pruner.attach_(layer)
    assert pruner.masks(layer).sparsity == 0
    pruner(layer, 1)
    assert pruner.detach_(layer).sparsity == 0.25


def test_early_stopping_brings_back_weights_and_masks_that_fit():
    def spoil(model, step):
        pruner(model, step)
        if step > 8:
            model.norm.weight.zero_()

    net, pruner = make_net(), Pruner(CUBIC)
    pruner.attach_(net)
    history = job(net, spoil, epochs=20, patience=2)
    assert len(history) < 20
    masks = pruner.detach_(net)
    assert masks == nonzero_masks(net)
    assert masks.sparsity < 0.8  # the docstring warns of it


# --- kills ----------------------------------------------------------------------------------


class BreakError(Exception):
    """Stands for whatever ends a training."""


BREAK_AT: list[int] = []
STEPS_SEEN: list[int] = []


def prune_and_pause(pruner: Pruner, model: nn.Module, step: int) -> None:
    if step in BREAK_AT:
        raise BreakError
    pruner(model, step)
    STEPS_SEEN.append(step)
    time.sleep(float(os.environ.get(STEP_PAUSE, "0")))


def pruned_job(checkpoint: Path | None, pruner: Pruner) -> Net:
    """What a process does from its start: model, masks, training."""
    net = make_net()
    pruner.attach_(net)
    job(net, functools.partial(prune_and_pause, pruner), checkpoint=checkpoint)
    return net


def check_resumes(folder: Path, make_pruner, break_at: int) -> Net:
    """Break a training off, start it again like a new process, compare with an unbroken one."""
    checkpoint = folder / f"{break_at}.pt"
    BREAK_AT[:] = [break_at]
    with contextlib.suppress(BreakError):
        pruned_job(checkpoint, make_pruner())
    BREAK_AT.clear()
    MEMORY.clear()
    resumed = pruned_job(checkpoint, make_pruner())
    MEMORY.clear()
    assert_same_weights(resumed, pruned_job(None, make_pruner()))
    return resumed


def slope_scores(model: nn.Module) -> dict[str, torch.Tensor]:
    return taylor_scores(model, [make_split()])


@pytest.mark.parametrize("break_at", [3, 6, 9, 11, 14])  # cuts: 4, 6, 8, 10, 12
@pytest.mark.parametrize("score", [magnitude_scores, slope_scores])
def test_resume_equals_unbroken_wherever_it_broke(tmp_path, score, break_at):
    resumed = check_resumes(tmp_path, lambda: Pruner(CUBIC, score=score), break_at)
    assert count_zeros(resumed) == round(0.8 * WEIGHTS)


def test_a_one_shot_cut_before_training_resumes_too(tmp_path):
    resumed = check_resumes(tmp_path, lambda: Pruner(one_shot(0.5)), 11)
    assert count_zeros(resumed) == round(0.5 * WEIGHTS)


def test_masks_outside_the_checkpoint_are_rejected(tmp_path):
    with pytest.raises(AssertionError, match="weight"):
        check_resumes(tmp_path, lambda: RemembersByItself(CUBIC), 14)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path):
    """A real process, really killed, resumed here: the same weights and masks bit for bit."""
    checkpoint = tmp_path / "run.pt"
    environment = os.environ | {STEP_PAUSE: "0.15"}
    child = subprocess.Popen([sys.executable, __file__, str(checkpoint)], env=environment)
    try:
        for _ in range(600):
            if checkpoint.exists():
                break
            assert child.poll() is None, "the child ended before its first epoch"
            time.sleep(0.1)
        time.sleep(0.3)  # into the second epoch
        child.kill()
    finally:
        child.kill()
        child.wait()
    assert child.returncode != 0

    STEPS_SEEN.clear()
    resumed = pruned_job(checkpoint, Pruner(CUBIC))
    assert 0 < len(STEPS_SEEN) < 16, "nothing was left to do, or nothing was done before"
    assert_same_weights(resumed, pruned_job(None, Pruner(CUBIC)))
    assert count_zeros(resumed) == round(0.8 * WEIGHTS)


def test_another_schedule_does_not_take_over_a_checkpoint(tmp_path):
    pruned_job(tmp_path / "run.pt", Pruner(CUBIC))
    with pytest.raises(ValueError, match="belongs to other settings: after_step was"):
        pruned_job(tmp_path / "run.pt", Pruner(CubicSchedule(0.9, start=2, end=12, every=2)))


# --- a pruner and bad input -----------------------------------------------------------------


def attached(schedule=CUBIC) -> Net:
    net = make_net()
    Pruner(schedule).attach_(net)
    return net


def pruned_by_torch() -> Net:
    net = make_net()
    torch.nn.utils.prune.l1_unstructured(net.conv, "weight", 0.5)
    return net


def with_zeros() -> Net:
    net = make_net()
    global_masks(magnitude_scores(net), 0.5).apply_(net)
    return net


def shared() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


def compiled() -> nn.Module:
    return torch.compile(make_net(), backend="eager")


def prune_by(score) -> Pruner:
    return Pruner(CUBIC, score=lambda model: score)


OTHER_MASKS = MaskSet({"fc.weight": torch.ones(2, 2, dtype=torch.bool)})
BAD_SHAPE = MaskSet({"conv.weight": torch.ones(2, 2, dtype=torch.bool)})


@pytest.mark.parametrize(
    ("model", "call", "message"),
    [
        (attached(), lambda net: Pruner(CUBIC).attach_(net), "holds masks .* already"),
        (with_zeros(), lambda net: Pruner(CUBIC).attach_(net), "holds zeros already .*50.0% of"),
        (pruned_by_torch(), lambda net: Pruner(CUBIC).attach_(net), "torch.nn.utils.prune"),
        (shared(), lambda net: Pruner(CUBIC).attach_(net), "must not share weights"),
        (compiled(), lambda net: Pruner(CUBIC).attach_(net), "module itself.*_orig_mod"),
        (nn.BatchNorm2d(3), lambda net: Pruner(CUBIC).attach_(net), "without weights"),
        (make_net(), lambda net: Pruner(CUBIC).attach_(net, OTHER_MASKS), "another model"),
        (make_net(), lambda net: Pruner(CUBIC).attach_(net, BAD_SHAPE), "another model"),
        (make_net(), lambda net: Pruner(CUBIC).attach_(net, {}), "must be a MaskSet, got dict"),
        (make_net(), lambda net: prune_by(None).attach_(net), "scores must be a mapping"),
        (make_net(), lambda net: prune_by({"fc": torch.ones(2)}).attach_(net), "another model"),
        (make_net(), lambda net: Pruner(lambda step: 1.0).attach_(net), "schedule returns must be"),
        (make_net(), lambda net: Pruner(CUBIC)(net, 1), "call attach_ first"),
        (make_net(), lambda net: Pruner(CUBIC).masks(net), "call attach_ first"),
        (make_net(), lambda net: Pruner(CUBIC).detach_(net), "call attach_ first"),
        (attached(), lambda net: Pruner(CUBIC)(net, 0), "step must be an integer >= 1, got 0"),
        (attached(), lambda net: Pruner(lambda step: step / 2)(net, 2), "must be .*got 1.0"),
        (attached(), lambda net: Pruner(lambda step: "all")(net, 1), "must be .*got 'all'"),
    ],
)
def test_bad_models_are_refused_and_not_touched(model, call, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises((ValueError, TypeError), match=message):
        call(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("bad", [{"schedule": 0.5}, {"score": "magnitude"}, {"choose": None}])
def test_a_pruner_needs_callables(bad):
    with pytest.raises(TypeError, match=rf"{next(iter(bad))} must be callable.*got"):
        Pruner(**({"schedule": CUBIC} | bad))


# --- lottery tickets ------------------------------------------------------------------------


def start_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(net.state_dict())


def test_rewind_sets_everything_back_and_cuts():
    net = make_net()
    start = start_of(net)
    job(net, epochs=1)
    masks = global_masks(magnitude_scores(net), 0.8)
    rewind_(net, start, masks)
    for name, value in net.state_dict().items():  # batch norm, too
        kept = masks[name] if name in masks else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value, torch.where(kept, start[name], 0)), name
    assert nonzero_masks(net) == masks


def without(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net, start: without(start, "norm.bias"), "differs in .*norm.bias"),
        (lambda net, start: start | {"extra": torch.ones(1)}, "differs in .*extra"),
        (lambda net, start: start | {"norm.bias": torch.ones(1)}, r"\(4,\), got \(1,\)"),
        (lambda net, start: net.state_dict(), "own tensor.*deepcopy"),
        (lambda net, start: None, "state must"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    net = make_net()
    start = start_of(net)
    masks = global_masks(magnitude_scores(net), 0.8)
    job(net, epochs=1)
    trained = start_of(net)
    with pytest.raises(ValueError, match=message):
        rewind_(net, change(net, start), masks)
    with pytest.raises(ValueError, match="another model"):
        rewind_(net, start, OTHER_MASKS)
    with pytest.raises(TypeError, match="masks must be a MaskSet, got dict"):
        rewind_(net, start, dict(masks))
    assert all(torch.equal(value, trained[name]) for name, value in net.state_dict().items())


def test_a_ticket_starts_each_round_from_the_first_weights():
    net, first, starts = make_net(), make_net(), []

    def train(model, after_step):
        starts.append(start_of(model))
        job(model, after_step, epochs=1)
        return evaluate(model, make_split(30, seed=1))["accuracy"]

    rounds = list(find_ticket_(net, train, sparsity=0.488, rounds=3))
    assert [row.round for row in rounds] == [0, 1, 2, 3]
    cut = [round(row.masks.sparsity * WEIGHTS) for row in rounds]
    assert cut == [round(s * WEIGHTS) for s in (0, 0.2, 0.36, 0.488)]
    for row, start in zip(rounds, starts, strict=True):
        for name, value in start.items():
            kept = row.masks[name] if name in row.masks else torch.tensor(True)
            assert torch.equal(value, torch.where(kept, first.state_dict()[name], 0)), name
    for row, after in itertools.pairwise(rounds):
        assert row.masks & after.masks == after.masks
    assert nonzero_masks(net) == rounds[-1].masks
    assert rounds[-1].result == evaluate(net, make_split(30, seed=1))["accuracy"]


def test_the_first_cut_is_by_the_trained_weights_and_the_whole_net_is_trained_first():
    dense = make_net()
    job(dense, epochs=1)
    wanted = global_masks(magnitude_scores(dense), 0.7)

    def train(model, after_step):
        job(model, after_step, epochs=1)
        return start_of(model)

    whole, ticket = find_ticket_(make_net(), train, sparsity=0.7, rounds=1)
    assert all(torch.equal(value, dense.state_dict()[n]) for n, value in whole.result.items())
    assert ticket.masks == wanted


def test_scores_that_change_their_mind_still_cut_exactly_as_much():
    rows = list(
        find_ticket_(
            make_net(),
            lambda model, after_step: job(model, after_step, epochs=1),
            sparsity=0.8,
            rounds=3,
            score=noisy_scores,
            choose=layer_masks,
        )
    )
    assert rows[-1].masks.sparsity_by_layer() == {
        name: round(0.8 * size) / size
        for name, size in {"conv.weight": 108, "last.2.weight": 108}.items()
    }


def test_a_training_that_forgets_the_mask_is_rejected():
    search = find_ticket_(
        make_net(), lambda model, after_step: job(model, epochs=1), sparsity=0.5, rounds=2
    )
    assert next(search).masks.sparsity == 0  # the whole network needs no mask
    with pytest.raises(RuntimeError, match="grow that are cut; it must call after_step"):
        next(search)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "got 1.0"),
        ({"rounds": 0}, "rounds must be an integer >= 1, got 0"),
        ({"train": None}, "train must be callable, got None"),
        ({"model": shared()}, "must not share weights"),
        ({"model": nn.BatchNorm2d(3)}, "without weights"),
    ],
)
def test_bad_searches_are_refused_before_anything_is_trained(change, message):
    def train(model, after_step):
        raise AssertionError("trained")

    arguments = {"model": make_net(), "train": train, "sparsity": 0.5, "rounds": 2} | change
    with pytest.raises((ValueError, TypeError), match=message):
        find_ticket_(arguments.pop("model"), arguments.pop("train"), **arguments)


if __name__ == "__main__":  # the child that is killed
    torch.set_num_threads(1)
    pruned_job(Path(sys.argv[1]), Pruner(CUBIC))
