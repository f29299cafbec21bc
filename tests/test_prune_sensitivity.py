"""The sensitivity scan against cuts made by hand; and that the model never notices."""

from __future__ import annotations

import copy
import inspect
import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from rac_helpers.data import Split
from rac_helpers.metrics import accuracy
from rac_helpers.models import SmallCNN
from rac_helpers.prune.builders import layer_masks, n_m_masks
from rac_helpers.prune.scores import magnitude_scores, taylor_scores
from rac_helpers.prune.sensitivity import largest_sparsities, sensitivity_scan
from rac_helpers.rng import make_generator
from rac_helpers.train import fit

SPARSITIES = [0.0, 0.5, 0.8, 0.95]
LAYERS = ["block1.0.weight", "block2.0.weight", "block3.0.weight", "classifier.weight"]


def make_split(n: int, seed: int) -> Split:
    """Noise that is red, green or blue."""
    generator = make_generator(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(180, (n, 3, 8, 8), generator=generator)
    images[torch.arange(n), labels] += 60
    return Split(images.to(torch.uint8), labels)


VALIDATION = make_split(150, seed=1)


@pytest.fixture(scope="module")
def trained() -> SmallCNN:
    model = SmallCNN(3, width=4)
    fit(model, make_split(120, seed=0), VALIDATION, epochs=6, batch_size=20, lr=0.05)
    assert accuracy(model, VALIDATION) > 0.6  # three classes: chance is a third
    return model


def by_hand(model: nn.Module, layer: str, sparsity: float) -> float:
    """Accuracy of a copy in which PyTorch itself has cut one layer."""
    copied = copy.deepcopy(model)
    prune.l1_unstructured(copied.get_submodule(layer.removesuffix(".weight")), "weight", sparsity)
    return accuracy(copied, VALIDATION)


# --- the scan -------------------------------------------------------------------------------


def test_rows_are_those_of_one_layer_cut_by_torch_nn_utils_prune(trained):
    """Fails if a cut is not undone before the next one, or reaches another layer."""
    rows = list(sensitivity_scan(trained, VALIDATION, SPARSITIES))
    assert [(row["layer"], row["sparsity"]) for row in rows] == [
        (layer, sparsity) for layer in LAYERS for sparsity in SPARSITIES
    ]
    whole = accuracy(trained, VALIDATION)
    for row in rows:
        assert row["accuracy"] == by_hand(trained, row["layer"], row["sparsity"]), row
        assert row["drop"] == whole - row["accuracy"]
        assert row["weights"] == trained.get_parameter(row["layer"]).numel()
    assert len({row["accuracy"] for row in rows}) > 3, "every cut gave the same: proves nothing"
    assert all(row["drop"] == 0 for row in rows if row["sparsity"] == 0)


def test_cuts_that_pile_up_would_be_seen(trained):
    """The test above compares with single cuts; here all layers are cut, as a wrong scan would."""
    all_cut = copy.deepcopy(trained)
    layer_masks(magnitude_scores(trained), 0.95).apply_(all_cut)
    assert accuracy(all_cut, VALIDATION) != by_hand(trained, LAYERS[-1], 0.95)


def test_rows_are_plain_and_can_be_written_as_json(trained):
    row = next(sensitivity_scan(trained, tuple(VALIDATION), [0.5]))
    assert json.loads(json.dumps(row)) == row
    assert {name: type(value) for name, value in row.items()} == {
        "layer": str,
        "weights": int,
        "sparsity": float,
        "accuracy": float,
        "drop": float,
    }


def test_other_scores_and_other_masks(trained):
    def slopes(model):
        calls.append(model)
        scores = taylor_scores(model, [VALIDATION])
        return {name: scores[name] for name in LAYERS[1:]}

    def two_of_four(scores, sparsity):
        return n_m_masks(scores)

    calls = []
    rows = list(sensitivity_scan(trained, VALIDATION, [0.5], score=slopes, choose=two_of_four))
    assert len(calls) == 1
    assert [row["layer"] for row in rows] == LAYERS[1:]
    for row in rows:
        copied = copy.deepcopy(trained)
        n_m_masks({row["layer"]: slopes(trained)[row["layer"]]}).apply_(copied)
        assert row["accuracy"] == accuracy(copied, VALIDATION)


# --- what it leaves alone -------------------------------------------------------------------


class State:
    """Everything of a model and of the world that a scan could change."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.grads = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.modes = [module.training for module in model.modules()]
        self.identity = [(id(p), p.data_ptr(), p.requires_grad) for p in model.parameters()]
        self.images = VALIDATION.images.clone()
        self.random = torch.get_rng_state()

    def check(self) -> None:
        now = State(self.model)
        assert now.state.keys() == self.state.keys()
        assert all(torch.equal(value, self.state[name]) for name, value in now.state.items())
        for ours, theirs in zip(now.grads, self.grads, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)
        assert (now.modes, now.identity) == (self.modes, self.identity)
        assert torch.equal(now.images, self.images)
        assert torch.equal(now.random, self.random)


@pytest.fixture
def busy(trained) -> SmallCNN:
    """A model in the middle of something: gradients, mixed modes, a frozen layer."""
    model = copy.deepcopy(trained).train()
    F.cross_entropy(model(VALIDATION.images), VALIDATION.labels).backward()
    model.block2[1].eval()
    model.block1.requires_grad_(False)
    return model


def test_the_model_is_bit_identical_at_every_row_and_afterwards(busy):
    before = State(busy)
    scan = sensitivity_scan(busy, VALIDATION, SPARSITIES)
    before.check()
    for _ in scan:
        before.check()  # also in between, where the reader may use the model
    before.check()


def test_also_if_nobody_asks_for_more(busy):
    before = State(busy)
    scan = sensitivity_scan(busy, VALIDATION, [0.9])
    next(scan)
    scan.close()
    before.check()


def test_also_if_a_run_fails(busy):
    def fails_later(scores, sparsity):
        if sparsity > 0.5:
            raise KeyboardInterrupt
        return layer_masks(scores, sparsity)

    before = State(busy)
    with pytest.raises(KeyboardInterrupt):
        list(sensitivity_scan(busy, VALIDATION, SPARSITIES, choose=fails_later))
    before.check()


def test_the_scan_is_of_the_model_as_it_was_at_the_call(trained):
    model = copy.deepcopy(trained)
    scan = sensitivity_scan(model, VALIDATION, [0.5])
    nn.init.zeros_(model.classifier.weight)
    assert list(scan) == list(sensitivity_scan(trained, VALIDATION, [0.5]))


# --- the bar --------------------------------------------------------------------------------


def test_a_bar_counts_every_measurement(trained, capsys, monkeypatch):
    monkeypatch.setenv("RAC_STATIC_BUILD", "1")  # the argument is stronger
    list(sensitivity_scan(trained, VALIDATION, [0.5, 0.9], progress=True))
    bar = capsys.readouterr().err
    assert "sensitivity" in bar
    assert f"{2 * 4 + 1}/{2 * 4 + 1}" in bar


def test_no_bar_unless_wanted(trained, capsys, monkeypatch):
    monkeypatch.setenv("RAC_STATIC_BUILD", "1")
    list(sensitivity_scan(trained, VALIDATION, [0.5]))
    list(sensitivity_scan(trained, VALIDATION, [0.5], progress=False))
    assert capsys.readouterr().err == ""


# --- bad input ------------------------------------------------------------------------------


def shared() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Linear(192, 192))
    model[2].weight = model[1].weight
    return model


def pruned_by_torch() -> nn.Module:
    model = SmallCNN(3, width=4)
    prune.l1_unstructured(model.classifier, "weight", 0.5)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsities": [0.5, 1.0]}, r"each of sparsities must be in \[0, 1\).*got 1.0"),
        ({"sparsities": [-0.1]}, "each of sparsities must be .*got -0.1"),
        ({"sparsities": []}, "sparsities must hold at least one number, got none"),
        ({"sparsities": 0.5}, "sparsities must be a sequence of numbers, got 0.5"),
        ({"sparsities": "0.5"}, "sparsities must be a sequence of numbers, got '0.5'"),
        ({"sparsities": ["half"]}, "each of sparsities must be .*got 'half'"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"validation": VALIDATION.images}, "validation must be a Split"),
        ({"validation": Split(VALIDATION.images, VALIDATION.labels + 1)}, r"in \[0, 2\], got 3"),
        ({"validation": Split(VALIDATION.images / 255, VALIDATION.labels)}, "must be a uint8"),
        ({"model": nn.Sequential(nn.Flatten())}, "must have a linear, conv"),
        ({"model": shared()}, "must not share weights"),
        ({"model": pruned_by_torch()}, "torch.nn.utils.prune"),
    ],
)
def test_bad_input_is_refused_at_the_call(change, message):
    arguments = {"model": SmallCNN(3, width=4), "validation": VALIDATION, "sparsities": [0.5]}
    with pytest.raises((ValueError, TypeError), match=message):
        sensitivity_scan(**(arguments | change))


def test_scores_of_another_model_are_refused(trained):
    scan = sensitivity_scan(
        trained, VALIDATION, [0.5], score=lambda model: {"fc.weight": torch.ones(2, 2)}
    )
    with pytest.raises(ValueError, match=r"another model: it has no parameter 'fc\.weight'"):
        next(scan)


# --- choosing by the scan -------------------------------------------------------------------


def rows_of(drops: dict[float, float], layer: str = "fc.weight") -> list[dict]:
    return [{"layer": layer, "sparsity": s, "drop": drop} for s, drop in drops.items()]


@pytest.mark.parametrize(
    ("drops", "max_drop", "wanted"),
    [
        ({0.3: 0.0, 0.5: 0.01, 0.9: 0.3}, 0.01, 0.5),  # equal to the limit is allowed
        ({0.9: 0.3, 0.5: 0.01, 0.3: 0.0}, 0.01, 0.5),  # in whatever order
        ({0.3: 0.0, 0.5: 0.02, 0.9: 0.0}, 0.01, 0.3),  # luck beyond a bad one does not count
        ({0.3: 0.1, 0.5: 0.0}, 0.01, 0.0),
        ({0.3: -0.02, 0.5: -0.01, 0.9: 0.0}, -0.01, 0.5),  # only what gains
        ({0.0: 0.0, 0.9: 0.0}, 0, 0.9),
    ],
)
def test_largest_sparsity_up_to_which_no_drop_is_too_large(drops, max_drop, wanted):
    assert largest_sparsities(rows_of(drops), max_drop=max_drop) == {"fc.weight": wanted}


@settings(deadline=None)
@given(st.lists(st.floats(-0.1, 0.5), min_size=1, max_size=6), st.floats(0, 0.5), st.floats(0, 0.5))
def test_more_tolerance_never_cuts_less(drops, one, other):
    rows = rows_of({k / 10: drop for k, drop in enumerate(drops)})
    low, high = (largest_sparsities(rows, max_drop=d)["fc.weight"] for d in sorted([one, other]))
    assert low <= high
    assert all(row["drop"] <= max(one, other) for row in rows if 0 < row["sparsity"] <= high)


def test_what_the_scan_chooses_goes_into_layer_masks(trained):
    scan = sensitivity_scan(trained, VALIDATION, SPARSITIES)
    assert inspect.isgenerator(scan)
    largest = largest_sparsities(scan, max_drop=0.02)
    assert list(largest) == LAYERS
    masks = layer_masks(magnitude_scores(trained), largest)
    for name, share in masks.sparsity_by_layer().items():
        n = masks[name].numel()
        assert share == pytest.approx(round(largest[name] * n) / n)


@pytest.mark.parametrize(
    ("rows", "max_drop", "message"),
    [
        ([], 0.01, "rows must hold at least one row"),
        (rows_of({0.5: 0.0}), math.nan, "max_drop must be a finite number, got nan"),
        (rows_of({0.5: 0.0}), "1 %", "max_drop must be a finite number, got '1 %'"),
    ],
)
def test_bad_choices_are_refused(rows, max_drop, message):
    with pytest.raises((ValueError, TypeError), match=message):
        largest_sparsities(rows, max_drop=max_drop)
