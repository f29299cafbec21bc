"""The training loop, above all: what survives a kill, and what is refused."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.rng import make_generator, scoped_seed
from rac_helpers.train import evaluate, fit
from rac_helpers.train.checkpoint import Checkpoint
from rac_helpers.train.fingerprint import describe, fingerprint

STEP_PAUSE = "RAC_TEST_STEP_PAUSE"


class Net(nn.Module):
    """Small, but with everything that makes resuming hard: batch norm, dropout, a buffer."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, num_classes))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.norm(self.conv(images / 255))))


def make_net(num_classes: int = 3) -> Net:
    with scoped_seed(7):
        return Net(num_classes)


def make_split(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise that is red, green or blue: easy, but not at once."""
    generator = make_generator(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(180, (n, 3, 8, 8), generator=generator)
    images[torch.arange(n), labels] += 60
    return images.to(torch.uint8), labels


def shift(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    by = int(torch.randint(-1, 2, (1,), generator=generator))
    return images.roll(by, dims=-1)


STEPS_SEEN: list[int] = []
BREAK_AT: list[int] = []


class BreakError(Exception):
    """Stands for whatever ends a training."""


def count_and_pause(model: Net, step: int) -> None:
    if step in BREAK_AT:
        raise BreakError
    model.steps += 1
    STEPS_SEEN.append(step)
    time.sleep(float(os.environ.get(STEP_PAUSE, "0")))


def job(checkpoint: Path | None, **changes) -> tuple[Net, list[dict]]:
    net = changes.pop("model", None) or make_net()
    arguments = {
        "epochs": 4,
        "batch_size": 16,
        "transform": shift,
        "after_step": count_and_pause,
        "checkpoint": checkpoint,
        "seed": 3,
    }
    return net, fit(net, make_split(), make_split(30, seed=1), **(arguments | changes))


def without_time(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


# The killed child and this process must add up numbers in the same order.
pytestmark = pytest.mark.usefixtures("one_thread")


# --- what training does ---------------------------------------------------------------------


def test_learns_and_reports_each_epoch():
    net, history = job(None, epochs=8)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert set(history[0]) == {
        "epoch",
        "lr",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
    }
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["val_accuracy"] >= 0.9  # three classes: chance is a third
    assert not any(module.training for module in net.modules())
    assert evaluate(net, make_split(30, seed=1)) == {
        "loss": history[-1]["val_loss"],
        "accuracy": history[-1]["val_accuracy"],
    }


def test_equals_a_loop_written_by_hand():
    """The same numbers from PyTorch's own scheduler and optimizer, full batches, no methods."""
    images, labels = make_split(32)
    ours, by_hand = nn.Sequential(Scale(), nn.Linear(192, 3)), None
    with torch.no_grad():
        ours[1].weight.zero_()
        ours[1].bias.zero_()
    by_hand = nn.Sequential(Scale(), nn.Linear(192, 3))
    by_hand.load_state_dict(ours.state_dict())
    fit(ours, (images, labels), (images, labels), epochs=5, batch_size=32, lr=0.05)

    optimizer = torch.optim.SGD(
        by_hand.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(by_hand(images), labels).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours.state_dict(), by_hand.state_dict())


class Scale(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / 255


def test_learning_rate_falls_along_a_cosine_step_by_step():
    _, history = job(None, epochs=4, lr=0.2)
    wanted = [0.2 * 0.5 * (1 + math.cos(math.pi * e / 4)) for e in range(4)]
    assert [row["lr"] for row in history] == pytest.approx(wanted)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_each_image_is_seen_once_an_epoch_in_batches_of_nearly_one_size(n, batch_size):
    images = torch.zeros(n, 3, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(n)
    split, sizes, seen = (images, torch.zeros(n, dtype=torch.int64)), [], []

    def watch(batch, *, generator):
        sizes.append(len(batch))
        seen.extend(batch[:, 0, 0, 0].tolist())
        return batch

    net = nn.Sequential(Scale(), nn.Linear(48, 2))
    fit(net, split, split, epochs=1, batch_size=batch_size, transform=watch)
    assert sorted(seen) == list(range(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_repeats_itself_and_depends_on_the_seed():
    one, first = job(None)
    two, second = job(None)
    other, _ = job(None, seed=4)
    assert_same_weights(one, two)
    assert without_time(first) == without_time(second)
    assert not torch.equal(one.conv.weight, other.conv.weight)


def test_touches_no_global_randomness_and_does_not_depend_on_it():
    def draws_globally(images, *, generator):
        return images + torch.randint(2, (1,)).to(torch.uint8)

    one, _ = job(None, transform=draws_globally)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    two, _ = job(None, transform=draws_globally)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert_same_weights(one, two)


def test_transform_gets_a_generator_of_its_own_for_each_epoch():
    first_draws = {}

    def watch(images, *, generator):
        assert generator is not torch.default_generator
        first_draws.setdefault(generator.initial_seed(), torch.rand(1, generator=generator).item())
        return images

    job(None, transform=watch)
    assert len(set(first_draws.values())) == 4


def test_data_and_labels_are_left_alone():
    train, validation = make_split(), make_split(30, seed=1)
    copies = [tensor.clone() for tensor in (*train, *validation)]

    def darken_(images, *, generator):
        return images.zero_()

    fit(make_net(), train, validation, epochs=1, transform=darken_)
    assert all(map(torch.equal, copies, (*train, *validation)))


def test_loss_fn_sees_logits_labels_and_the_transformed_images():
    def blacken(images, *, generator):
        return torch.zeros_like(images)

    def loss(logits, labels, images):
        assert logits.shape == (len(labels), 3)
        assert images.dtype == torch.uint8
        assert images.max() == 0
        return 2 * F.cross_entropy(logits, labels)

    _, doubled = job(None, epochs=1, transform=blacken, loss_fn=loss, lr=1e-9)
    _, plain = job(None, epochs=1, transform=blacken, lr=1e-9)
    assert doubled[0]["train_loss"] == pytest.approx(2 * plain[0]["train_loss"], rel=1e-4)
    assert doubled[0]["val_loss"] == pytest.approx(plain[0]["val_loss"], rel=1e-4)


def test_after_step_counts_and_its_zeros_hold():
    steps = []

    def cut(model, step):
        steps.append(step)
        model.conv.weight[0] = 0  # allowed: gradients are off

    net, _ = job(None, epochs=2, after_step=cut)
    assert steps == list(range(1, 9))
    assert not net.conv.weight[0].any()
    assert net.conv.weight[1].all()


def test_before_step_sees_the_gradients_of_the_step_to_come_and_may_change_them():
    steps = []

    def only_the_first(model, step):
        steps.append(step)
        assert all(value.grad is not None for value in model.parameters())
        assert not torch.is_grad_enabled()
        if step > 1:
            for value in model.parameters():
                value.grad.zero_()

    def nothing_more(model, step):
        weights.append(model.conv.weight.clone())

    weights = []
    hooks = {"before_step": only_the_first, "after_step": nothing_more}
    job(None, epochs=2, momentum=0, weight_decay=0, **hooks)
    assert steps == list(range(1, 9))
    assert all(torch.equal(weights[0], later) for later in weights)
    assert not torch.equal(weights[0], make_net().conv.weight)


def test_a_checkpoint_of_before_before_step_fits_a_training_without_it(tmp_path):
    plain = {"epochs": 1, "batch_size": 16, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    rest = {"transform": None, "loss_fn": None, "after_step": None, "seed": 3}
    settings = plain | rest | {"patience": None}
    net, path = make_net(), tmp_path / "run.pt"
    store = Checkpoint.of(
        path, net, settings, train=make_split(), validation=make_split(30, seed=1)
    )
    history = [{"epoch": 1, "val_accuracy": 0.5}]
    store.save(net, torch.optim.SGD(net.parameters(), 0.1), history, None)
    assert job(path, epochs=1, transform=None, after_step=None)[1] == history


def test_frozen_parameters_stay():
    net = make_net()
    net.conv.requires_grad_(False)
    before = net.conv.weight.clone()
    job(None, model=net, epochs=1)
    assert torch.equal(net.conv.weight, before)


def test_early_stopping_restores_the_best_weights():
    def spoil(model, step):
        if step > 12:  # from the fourth epoch on
            model.last[2].weight.zero_()

    net, history = job(None, epochs=20, patience=2, after_step=spoil)
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in history]
    best = scores.index(max(scores))
    assert len(history) == best + 1 + 2 < 20
    assert evaluate(net, make_split(30, seed=1))["accuracy"] == history[best]["val_accuracy"]
    assert net.last[2].weight.any()


def test_without_patience_the_last_weights_stay():
    def spoil(model, step):
        if step > 12:
            model.last[2].weight.zero_()

    net, history = job(None, epochs=5, after_step=spoil)
    assert len(history) == 5
    assert not net.last[2].weight.any()


# --- evaluate -------------------------------------------------------------------------------


@given(batch_size=st.integers(1, 70))
@settings(max_examples=15, deadline=None)
def test_evaluate_does_not_depend_on_the_batch_size(batch_size):
    net, split = make_net(), make_split()
    images, labels = split
    with torch.no_grad():
        logits = net.eval()(images)
    got = evaluate(net, split, batch_size=batch_size)
    assert got["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert got["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_evaluate_restores_the_mode_of_every_module():
    net = make_net().train()
    net.norm.eval()  # a frozen batch norm inside a network that trains
    norm = net.norm.running_mean.clone()
    evaluate(net, make_split())
    assert net.training
    assert not net.norm.training
    assert torch.equal(net.norm.running_mean, norm)


# --- checkpoints ----------------------------------------------------------------------------


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path):
    """A real process, really killed, resumed here: the same weights bit for bit."""
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
    resumed, history = job(checkpoint)
    steps_seen = STEPS_SEEN.copy()
    unbroken, wanted = job(None)
    assert 0 < len(steps_seen) < 16, "nothing was left to do, or nothing was done before"
    assert steps_seen == list(range(17 - len(steps_seen), 17))
    assert_same_weights(resumed, unbroken)
    assert without_time(history) == without_time(wanted)
    assert resumed.steps == 16


@given(last_step=st.integers(1, 16), patience=st.sampled_from([None, 1, 2]))
@settings(max_examples=12, deadline=None)
def test_resume_equals_unbroken_wherever_it_broke(last_step, patience):
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "new", "run.pt")  # the folder is made
        BREAK_AT.append(last_step)
        try:
            with contextlib.suppress(BreakError):  # early stopping may end it before
                job(checkpoint, patience=patience)
        finally:
            BREAK_AT.clear()
        resumed, history = job(checkpoint, patience=patience)
        again, same = job(checkpoint, patience=patience)  # finished: nothing is done
        assert os.listdir(checkpoint.parent) == ["run.pt"]
    unbroken, wanted = job(None, patience=patience)
    assert without_time(history) == without_time(wanted) == without_time(same)
    assert_same_weights(resumed, unbroken)
    assert_same_weights(again, unbroken)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.05}, "lr was 0.1, is 0.05"),
        ({"epochs": 5}, "epochs was 4, is 5"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"patience": 2}, "patience was None, is 2"),
        ({"transform": None}, "transform was <function shift> "),
        ({"before_step": lambda model, step: None}, "before_step was None, is <func"),
        ({"loss_fn": lambda logits, labels, images: logits.mean()}, "loss_fn was None, is <func"),
        ({"model": make_net(4)}, "model was Net "),
    ],
)
def test_checkpoint_of_other_settings_is_refused(tmp_path, change, named):
    job(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="belongs to other settings") as caught:
        job(tmp_path / "run.pt", **change)
    assert named in str(caught.value)
    assert "run.pt" in str(caught.value)
    assert str(caught.value).count(" was ") == 1


def test_checkpoint_of_other_starting_weights_is_refused(tmp_path):
    net, _ = job(tmp_path / "run.pt")
    with scoped_seed(8):
        other = Net()
    for start in (other, net):  # another seed; trained already
        with pytest.raises(ValueError, match=r"the starting weights differ .*same seed") as caught:
            job(tmp_path / "run.pt", model=start)
        assert " was " not in str(caught.value)


def make_loss(temperature):
    return lambda logits, labels, images: F.cross_entropy(logits / temperature, labels)


def make_distillation(teacher):
    def loss(logits, labels, images):
        return F.mse_loss(logits, teacher(images))

    return loss


class Softened:
    def __init__(self, temperature):
        self.temperature = temperature

    def __call__(self, logits, labels, images):
        return F.cross_entropy(logits / self.temperature, labels)

    def method(self, logits, labels, images):
        return self(logits, labels, images)


class SoftenedModule(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature


def with_default(temperature):
    return lambda logits, labels, images, t=temperature: F.cross_entropy(logits / t, labels)


def with_tensor(value):
    weight = torch.full((2000,), value)  # its repr leaves numbers out
    weight[1000] += value
    return lambda logits, labels, images: F.cross_entropy(logits, labels) * weight[1000]


def teacher(seed):
    with scoped_seed(seed):
        return Net()


@pytest.mark.parametrize(
    "make",
    [
        make_loss,
        with_default,
        with_tensor,
        Softened,
        SoftenedModule,
        lambda t: Softened(t).method,
        lambda t: functools.partial(make_loss(2), t=t),
        lambda t: functools.partial(make_loss(t)),
        lambda t: make_distillation(teacher(t)),
        lambda t: make_distillation(make_loss([t, {"t": t}])),
        lambda t: {1: lambda a, b, c: a.mean(), 9: lambda a, b, c: a.sum()}[t],
        lambda t: {1: lambda a, b, c: a * 1.0, 9: lambda a, b, c: a * 9.0}[t],
    ],
)
def test_callables_that_do_something_else_are_told_apart(make):
    assert describe(make(1)) == describe(make(1))
    assert describe(make(1)) != describe(make(9))
    assert "0x" not in describe(make(1))


def test_a_closure_with_another_value_is_refused_and_the_same_is_not(tmp_path):
    job(tmp_path / "run.pt", loss_fn=make_loss(1))
    job(tmp_path / "run.pt", loss_fn=make_loss(1))
    with pytest.raises(ValueError, match=r"loss_fn was .*\(temperature=1\), is .*\(temperature=9"):
        job(tmp_path / "run.pt", loss_fn=make_loss(9))


def test_describe_ends_where_a_function_holds_itself():
    def outer(n):
        return outer(n - 1) if n else later

    assert "outer=…" in describe(outer)
    later = 0
    assert "later=0" in describe(outer)


DESCRIBE = """
from rac_helpers.train.fingerprint import describe
def make(names):
    return lambda text: text in {"red", "green", "blue", "white"} and text not in names
print(describe(make({"black", "yellow", "brown", "pink"})))
"""


def test_describe_is_the_same_in_every_process():
    texts = {
        subprocess.run(
            [sys.executable, "-c", DESCRIBE],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(texts) == 1


def test_nothing_is_hashed_without_a_checkpoint(tmp_path):
    asked = []

    class Noticing:
        def __repr__(self):
            asked.append(1)
            return "Noticing()"

    def make(noticing):
        return lambda images, *, generator: images if noticing else None

    job(None, epochs=1, transform=make(Noticing()))
    assert asked == []
    job(tmp_path / "run.pt", epochs=1, transform=make(Noticing()))
    assert asked


def test_numbers_of_numpy_work_with_checkpoints(tmp_path):
    numbers = {"lr": np.float64(0.1), "epochs": np.int64(2), "weight_decay": np.float32(0.5)}
    numbers |= {"momentum": np.float64(0.9), "seed": np.int32(3), "batch_size": np.int64(16)}
    one, history = job(tmp_path / "run.pt", **numbers)
    two, again = job(tmp_path / "run.pt", **numbers)
    plain, _ = job(tmp_path / "run.pt", **{key: value.item() for key, value in numbers.items()})
    assert history == again
    assert_same_weights(one, two)
    assert_same_weights(one, plain)


def test_checkpoint_of_other_data_is_refused(tmp_path):
    job(tmp_path / "run.pt")
    arguments = {"epochs": 4, "batch_size": 16, "transform": shift, "after_step": count_and_pause}
    with pytest.raises(ValueError, match=r"settings: train was 60 images .*, is 60 images"):
        fit(
            make_net(),
            make_split(seed=9),
            make_split(30, seed=1),
            checkpoint=tmp_path / "run.pt",
            seed=3,
            **arguments,
        )


def test_fingerprint_holds_no_addresses():
    class Method:
        def __call__(self, images, *, generator):
            return images

    split = make_split(4)
    prints = [fingerprint(make_net(), {"transform": Method()}, train=split) for _ in range(2)]
    assert prints[0] == prints[1]
    assert " at 0x" not in str(prints)


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_one_flipped_bit_anywhere_in_a_checkpoint_is_noticed(where, bit):
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.pt")
        store = Checkpoint(path, {"lr": 0.1})
        store.save(net, optimizer, [{"epoch": 1}], None)
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.pt is damaged"):
            store.resume(net, optimizer)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt is damaged or was not written"):
        job(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("stored", [{"lr": np.float64(0.1)}, {"model": {}}, [1]])
def test_whole_files_with_other_content_are_refused(tmp_path, stored):
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    data = buffer.getvalue()
    (tmp_path / "run.pt").write_bytes(hashlib.sha256(data).digest() + data)
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt is damaged or was not written"):
        job(tmp_path / "run.pt")


def test_a_whole_file_that_torch_cannot_read_is_refused(tmp_path):
    (tmp_path / "run.pt").write_bytes(hashlib.sha256(b"abc").digest() + b"abc")
    with pytest.raises(ValueError, match=r"checkpoint .*run\.pt is damaged or was not written"):
        job(tmp_path / "run.pt")


def fails_if_called(images, *, generator):
    raise AssertionError("the training began")


def test_checkpoint_below_a_file_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="checkpoint must be a file that can be written"):
        job(tmp_path / "file" / "run.pt", transform=fails_if_called)


def test_a_folder_as_checkpoint_is_refused_before_training(tmp_path):
    with pytest.raises(OSError, match=r"checkpoint must be a file .* got the folder"):
        job(tmp_path, transform=fails_if_called)


def test_checkpoint_in_a_read_only_folder_is_refused_before_training(read_only_folder):
    message = r"checkpoint must be a file .*Permission denied"
    with read_only_folder() as folder, pytest.raises(OSError, match=message):
        job(folder / "run.pt", transform=fails_if_called)


LOSS_CALLS: list[int] = []


def nan_in_the_eleventh_call(logits, labels, images):
    LOSS_CALLS.append(0)
    return F.cross_entropy(logits, labels) * (float("nan") if len(LOSS_CALLS) == 11 else 1)


def test_nan_loss_is_an_error_and_finished_epochs_are_kept(tmp_path):
    calls = LOSS_CALLS
    calls.clear()
    loss = nan_in_the_eleventh_call
    with pytest.raises(RuntimeError, match="loss is nan in epoch 3, step 11"):
        job(tmp_path / "run.pt", loss_fn=loss)
    _, history = job(tmp_path / "run.pt", loss_fn=loss)
    assert len(calls) == 11 + 8  # epochs 3 and 4 again
    assert len(history) == 4


def test_weights_that_blow_up_in_the_last_step_are_noticed():
    def explode(model, step):
        if step == 4:
            model.last[2].weight.fill_(math.inf)

    with pytest.raises(RuntimeError, match="loss is nan in the validation after epoch 1"):
        job(None, after_step=explode)


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be an integer >= 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 16.0}, TypeError, "batch_size must be an integer >= 1, got 16.0"),
        ({"lr": 0}, ValueError, "lr must be a finite number > 0, got 0"),
        ({"lr": math.nan}, ValueError, "lr must be a finite number >= 0, got nan"),
        ({"momentum": 1.5}, ValueError, r"momentum must be .* in \[0, 1\], got 1.5"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be .* >= 0, got -1"),
        ({"patience": 0}, ValueError, "patience must be an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
        ({"transform": "flip"}, TypeError, "transform must be callable or None, got 'flip'"),
    ],
)
def test_settings_out_of_range_are_named(change, error, message):
    with pytest.raises(error, match=message):
        job(None, **change)


def test_momentum_zero_is_plain_sgd():
    job(None, epochs=1, momentum=0)


IMAGES, LABELS = make_split(8)


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        ((IMAGES, LABELS + 1), ValueError, r"labels must be in \[0, 2\], got 3 at position"),
        ((IMAGES, LABELS - 3), ValueError, r"labels must be in \[0, 2\], got -"),
        ((IMAGES, LABELS[:5]), ValueError, "as many labels as images, got 8 images and 5 labels"),
        ((IMAGES, LABELS.float()), TypeError, "labels must be an int64 tensor"),
        ((IMAGES / 255, LABELS), TypeError, "images must be a uint8 tensor .* torch.float32"),
        ((IMAGES[:, :1], LABELS), ValueError, r"images .* got shape \(8, 1, 8, 8\); repeat a grey"),
        ((IMAGES[0], LABELS), ValueError, r"images must have shape \(n, 3, H, W\)"),
        ((IMAGES[:0], LABELS[:0]), ValueError, "must hold at least one image"),
        (IMAGES, TypeError, r"must be a Split \(images, labels\), got Tensor"),
    ],
)
def test_unfit_data_are_named(split, error, message):
    good = (IMAGES, LABELS)
    with pytest.raises(error, match=f"^train.*{message}"):
        fit(make_net(), split, good, epochs=1, transform=fails_if_called)
    with pytest.raises(error, match=f"^validation.*{message}"):
        fit(make_net(), good, split, epochs=1, transform=fails_if_called)
    with pytest.raises(error, match=f"^split.*{message}"):
        evaluate(make_net(), split)


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda x, *, generator: x / 255, TypeError, "what transform returns .* torch.float32"),
        (lambda x, *, generator: x[:, :, 1:], ValueError, r"shape \(15, 3, 8, 8\) .* 7, 8\)"),
        (lambda x, *, generator: x[1:], ValueError, r"what transform returns .* got \(14, 3"),
        (lambda x, *, generator: x[:, :1], ValueError, r"what transform returns .* grey"),
        (lambda x, *, generator: None, TypeError, "what transform returns .* got NoneType"),
    ],
)
def test_unfit_transforms_are_named(transform, error, message):
    with pytest.raises(error, match=message):
        job(None, transform=transform)


@pytest.mark.parametrize(
    ("loss_fn", "got"),
    [
        (lambda logits, labels, images: logits.mean(dim=1), r"\(15,\)"),
        (lambda logits, labels, images: 1.0, "float"),
    ],
)
def test_unfit_losses_are_named(loss_fn, got):
    with pytest.raises(ValueError, match=rf"loss_fn must return a tensor of shape \(\), got {got}"):
        job(None, loss_fn=loss_fn)


def test_model_without_logits_or_without_parameters_is_named():
    with pytest.raises(ValueError, match=r"model must return logits .* got \(1, 4, 3, 3\)"):
        job(None, model=nn.Sequential(Bytes(), nn.Conv2d(3, 4, 3, stride=2)))
    with pytest.raises(ValueError, match="model must have a parameter with requires_grad=True"):
        job(None, model=make_net().requires_grad_(False))


class Bytes(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255


# --- progress -------------------------------------------------------------------------------


def test_progress_bar_shows_loss_and_accuracy_only_when_wanted(capfd, monkeypatch):
    monkeypatch.setenv("RAC_STATIC_BUILD", "1")
    job(None, epochs=1, progress=True)
    shown = capfd.readouterr()
    assert "loss=" in shown.err
    assert "accuracy=" in shown.err
    job(None, epochs=1, progress=False)
    job(None, epochs=1)  # the book is built: off by itself
    silent = capfd.readouterr()
    assert shown.out == silent.out == silent.err == ""


if __name__ == "__main__":  # the process that test_a_killed_training kills
    torch.set_num_threads(1)
    job(Path(sys.argv[1]))
