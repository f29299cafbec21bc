"""Ranks: where they pay, by energy, by weights, under a budget (against all choices), by a scan."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers import metrics
from rac_helpers.data import Split as Images
from rac_helpers.lowrank import (
    ChannelSplit,
    LinearSplit,
    Option,
    SpatialSplit,
    TuckerSplit,
    break_even_rank,
    choose_ranks,
    factorize,
    mac_options,
    rank_for_energy,
    rank_for_share,
    rank_scan,
    ranks_for_energy,
    ranks_for_share,
    smallest_ranks,
    splittable,
    tucker_break_even,
    weight_options,
)
from rac_helpers.lowrank.replace import split_for
from rac_helpers.models import ResNet, SmallCNN
from rac_helpers.rng import make_generator

SPLITS = [ChannelSplit, SpatialSplit, TuckerSplit]
IMAGE = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)


def diagonal(*values: float) -> nn.Linear:
    layer = nn.Linear(len(values), len(values))
    layer.weight.data = torch.diag(torch.tensor(values))
    return layer


@pytest.fixture(scope="module")
def validation():
    g = make_generator(0)
    images = torch.randint(256, (40, 3, 16, 16), generator=g, dtype=torch.uint8)
    return Images(images, torch.randint(10, (40,), generator=g))


# -- break-even -----------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_break_even_is_where_the_weights_are_equal(m, n):
    rank = break_even_rank(m, n)
    assert rank * (m + n) == pytest.approx(m * n)
    assert min(m, n) / 2 <= rank * (1 + 1e-12)
    assert rank < min(m, n)


def test_break_even_of_each_split_by_its_own_matrix():
    layer = nn.Conv2d(16, 32, 3)
    weights = 16 * 32 * 9
    for split, (rows, columns) in {ChannelSplit: (32, 144), SpatialSplit: (96, 48)}.items():
        rank = break_even_rank(rows, columns)
        below, above = math.floor(rank), math.floor(rank) + 1
        assert split.count_weights(layer, below) <= weights < split.count_weights(layer, above)
        assert rank_for_share(layer, 1, split=split) == below
    rank_in, rank_out = rank_for_share(layer, 1, split=TuckerSplit)
    f = tucker_break_even(16, 32, 3)
    assert (rank_in, rank_out) == (14, 27)
    assert abs(rank_in - f * 16) < 1
    assert abs(rank_out - f * 32) < 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (4, 0), (-1, 4)])
def test_wrong_shapes(rows, columns):
    with pytest.raises(ValueError, match="must be an integer >= 1, got"):
        break_even_rank(rows, columns)


# -- by energy and by share -----------------------------------------------------------------------


def test_energy_by_hand():
    layer = diagonal(4.0, 3.0, 0.0)  # 64 % and 100 %
    wanted = {0.5: 1, 0.64: 1, 0.65: 2, 0.9: 2, 1.0: 2}
    assert {share: rank_for_energy(layer, share) for share in wanted} == wanted


@pytest.mark.parametrize("split", SPLITS)
@given(share=st.floats(0.01, 1), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_smallest_rank_with_enough_energy(split, share, seed):
    layer = nn.Conv2d(3, 5, 3)
    layer.weight.data = torch.randn(5, 3, 3, 3, generator=make_generator(seed))
    rank, kept = rank_for_energy(layer, share, split=split), split.energies(layer)
    place = list(kept).index(rank)
    assert kept[rank] >= min(share, list(kept.values())[-1])
    assert place == 0 or list(kept.values())[place - 1] < share


@pytest.mark.parametrize("split", SPLITS)
@given(share=st.floats(0.01, 2))
@settings(max_examples=20, deadline=None)
def test_largest_rank_within_the_share(split, share):
    layer = nn.Conv2d(6, 9, 3)
    rank, all_ranks = rank_for_share(layer, share, split=split), split.ranks(layer)
    weights = [split.count_weights(layer, one) for one in all_ranks]
    place, limit = all_ranks.index(rank), share * layer.weight.numel()
    assert weights[place] <= limit or place == 0
    assert place == len(weights) - 1 or weights[place + 1] > limit


def test_share_times_break_even():
    for share in (0.1, 0.25, 0.5, 0.9):
        assert rank_for_share(nn.Linear(60, 90), share) == math.floor(share * 36)
        assert rank_for_share(nn.Conv2d(16, 16, 3), share) == math.floor(share * 14.4)
        spatial = rank_for_share(nn.Conv2d(16, 16, 3), share, split=SpatialSplit)
        assert spatial == math.floor(share * 24)


@pytest.mark.parametrize("split", SPLITS)
def test_a_whole_network_keeps_the_share(split):
    model = ResNet(8, width=16)
    layers = [name for name in splittable(model) if name.startswith("stage")]
    before = sum(model.get_submodule(name).weight.numel() for name in layers)
    for share in (0.75, 0.25):
        ranks = ranks_for_share(model, share, split=split, layers=reversed(layers))
        assert list(ranks) == layers  # in the order of the model
        small = factorize(model, ranks, split=split)
        after = before - metrics.count_params(model) + metrics.count_params(small)
        assert 0.85 * share < after / before <= share


@pytest.mark.parametrize("split", SPLITS)
def test_energy_for_a_network_leaves_out_what_does_not_pay(split):
    model = SmallCNN(width=4)
    assert ranks_for_energy(model, 1.0, split=split) == {}
    ranks = ranks_for_energy(model, 0.5, split=split)
    assert 0 < len(ranks) <= 4
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        assert rank == rank_for_energy(layer, 0.5, split=split)
        kind = split_for(layer, split)
        assert kind.count_weights(layer, rank) < layer.weight.numel()


@pytest.mark.parametrize("share", [0, -0.1, 1.1, math.nan])
def test_wrong_energy(share):
    with pytest.raises(ValueError, match="share must be a finite number in"):
        rank_for_energy(nn.Linear(4, 4), share)
    with pytest.raises(ValueError, match="share must be a finite number in"):
        ranks_for_energy(SmallCNN(width=2), share)


@pytest.mark.parametrize("share", [0, -0.1, math.inf])
def test_wrong_share(share):
    with pytest.raises(ValueError, match="share must be a finite number >"):
        rank_for_share(nn.Linear(4, 4), share)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["x"], ValueError, r"layers must name layers that can be split \(block1\.0, .*got x"),
        ("block1.0", TypeError, "layers must be names of layers, got 'block1.0'"),
        (3, TypeError, "layers must be names of layers, got 3"),
    ],
)
def test_wrong_layers(layers, error, message, validation):
    model = SmallCNN(width=2)
    for use in (
        lambda: ranks_for_share(model, 0.5, layers=layers),
        lambda: ranks_for_energy(model, 0.5, layers=layers),
        lambda: weight_options(model, layers=layers),
        lambda: mac_options(model, IMAGE, layers=layers),
        lambda: rank_scan(model, validation, [0.5], layers=layers),
    ):
        with pytest.raises(error, match=message):
            use()


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_options_are_all_ranks_that_save(split):
    model = SmallCNN(width=4)
    for name, options in weight_options(model, split=split).items():
        layer = model.get_submodule(name)
        kind = split_for(layer, split)
        assert options[0] == (None, layer.weight.numel(), 0.0)
        costs = {r: kind.count_weights(layer, r) for r in kind.ranks(layer)}
        expected = {r: cost for r, cost in costs.items() if cost < layer.weight.numel()}
        assert {o.rank: o.cost for o in options[1:]} == expected
        for option in options[1:]:
            assert option.loss == pytest.approx(1 - kind.energies(layer)[option.rank])


@pytest.mark.parametrize("split", SPLITS)
def test_macs_are_those_of_the_network(split):
    model = ResNet(8, width=4)
    options = mac_options(model, IMAGE, split=split)
    before = metrics.count_macs(model, IMAGE)
    assert sum(own[0].cost for own in options.values()) == before
    for name in ("stem.0", "stage1.0.conv1", "stage2.0.conv1", "classifier"):
        for option in options[name][1:]:
            small = factorize(model, {name: option.rank}, split=split)
            saved = options[name][0].cost - option.cost
            assert before - metrics.count_macs(small, IMAGE) == saved > 0


def test_a_layer_that_is_not_called_has_no_macs():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="call all of layers, but does not call other"):
        mac_options(Unused(), torch.zeros(1, 4))
    assert list(mac_options(Unused(), torch.zeros(1, 4), layers=["used"])) == ["used"]


# -- choice ---------------------------------------------------------------------------------------


def made_of(rows: list[tuple[int, list[float]]]) -> dict[str, list[Option]]:
    """Layers with a cost for each rank, whose singular values have these squares."""
    options = {}
    for k, (unit, squares) in enumerate(rows):
        squares = sorted(squares, reverse=True)
        total = sum(squares) or 1.0
        whole = Option(None, unit * (len(squares) + 1), 0.0)
        lost = [sum(squares[rank:]) / total for rank in range(1, len(squares) + 1)]
        cuts = [Option(rank, unit * rank, loss) for rank, loss in enumerate(lost, start=1)]
        options[f"layer{k}"] = [whole, *cuts]
    return options


def cost_and_loss(options, ranks):
    chosen = [next(o for o in own if o.rank == ranks.get(name)) for name, own in options.items()]
    return sum(o.cost for o in chosen), sum(o.loss for o in chosen)


rows = st.lists(
    st.tuples(st.sampled_from([1, 2, 5]), st.lists(st.floats(0, 10), min_size=2, max_size=4)),
    min_size=1,
    max_size=3,
)


@given(rows, st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_the_choice_fits_and_is_near_the_best(rows, share):
    options = made_of(rows)
    least = sum(min(o.cost for o in own) for own in options.values())
    most = sum(own[0].cost for own in options.values())
    budget = round(least + share * (most - least))
    cost, loss = cost_and_loss(options, choose_ranks(options, budget))
    assert cost <= budget
    everything = (
        (sum(o.cost for o in choice), sum(o.loss for o in choice))
        for choice in itertools.product(*options.values())
    )
    best = min(lost for price, lost in everything if price <= budget)
    largest = max(b.loss - a.loss for own in options.values() for a, b in itertools.pairwise(own))
    assert best - 1e-9 <= loss <= best + largest + 1e-9


def test_no_more_can_be_had_for_the_rest_of_the_budget():
    options = made_of([(5, [9.0, 4.0, 1.0, 0.5]), (2, [3.0, 3.0, 3.0])])
    for budget in range(7, 34):
        cost, loss = cost_and_loss(options, ranks := choose_ranks(options, budget))
        for name, own in options.items():
            now = next(o for o in own if o.rank == ranks.get(name))
            better = [o for o in own if o.loss < now.loss and cost - now.cost + o.cost <= budget]
            assert not better, (budget, name, loss)


def test_what_is_flat_keeps_its_rank_what_is_steep_gives_it_up():
    model = nn.Sequential(diagonal(*[1.0] * 12), diagonal(*[10.0, *[0.1] * 11]))
    ranks = choose_ranks(weight_options(model), 288 * 3 // 4)
    assert "0" not in ranks
    assert ranks["1"] <= 3


def test_a_budget_of_all_leaves_all_whole():
    options = weight_options(SmallCNN(width=4))
    whole = sum(own[0].cost for own in options.values())
    assert choose_ranks(options, whole) == {}
    assert choose_ranks(options, whole - 1) != {}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("share", [0.8, 0.4, 0.2])
def test_a_network_under_a_budget(split, share):
    model = ResNet(8, width=8)
    layers = [name for name in splittable(model) if name.startswith("stage")]
    weights = sum(model.get_submodule(name).weight.numel() for name in layers)
    options = weight_options(model, split=split, layers=layers)
    small = factorize(model, choose_ranks(options, int(share * weights)), split=split)
    after = weights - metrics.count_params(model) + metrics.count_params(small)
    assert 0.95 * share < after / weights <= share
    uniform = ranks_for_share(model, share, split=split, layers=layers)
    losses = [
        cost_and_loss(
            options, {n: r for n, r in ranks.items() if r in {o.rank for o in options[n]}}
        )
        for ranks in (choose_ranks(options, int(share * weights)), uniform)
    ]
    assert losses[0][1] < losses[1][1]
    by_macs = mac_options(model, IMAGE, split=split, layers=layers)
    limit = int(share * sum(own[0].cost for own in by_macs.values()))
    smaller = factorize(model, choose_ranks(by_macs, limit), split=split)
    rest = metrics.count_macs(model, IMAGE) - sum(own[0].cost for own in by_macs.values())
    assert 0.9 * limit < metrics.count_macs(smaller, IMAGE) - rest <= limit


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        (15, ValueError, "budget must be an integer >= 16, got 15"),
        (0, ValueError, "budget must be an integer >= 1, got 0"),
        (16.0, TypeError, "budget must be an integer"),
    ],
)
def test_wrong_budgets(budget, error, message):
    options = weight_options(nn.Sequential(diagonal(*[1.0] * 4), diagonal(*[1.0] * 4)))
    with pytest.raises(error, match=message):
        choose_ranks(options, budget)


def test_no_options_are_refused():
    with pytest.raises(ValueError, match="options must name at least one layer"):
        choose_ranks({}, 10)


# -- by validation --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_scan_measures_one_split_layer_at_a_time(validation, split):
    model = SmallCNN(width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scan = rank_scan(model, validation, [0.5, 0.2], split=split)
    assert inspect.isgenerator(scan)
    rows = list(scan)
    assert [row["layer"] for row in rows] == [n for n in splittable(model) for _ in range(2)]
    dense = metrics.accuracy(model, validation)
    for row in rows:
        layer = model.get_submodule(row["layer"])
        kind = split_for(layer, split)
        assert row["rank"] == rank_for_share(layer, row["share"], split=split)
        assert row["weights"] == kind.count_weights(layer, row["rank"])
        assert row["energy"] == kind.energies(layer)[row["rank"]]
        small = factorize(model, {row["layer"]: row["rank"]}, split=split)
        assert row["accuracy"] == metrics.accuracy(small, validation)
        assert row["drop"] == dense - row["accuracy"]
    assert any(row["drop"] != 0 for row in rows)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def rows_of(drops: dict[int, float], layer: str = "fc") -> list[dict]:
    return [{"layer": layer, "rank": r, "weights": 9 * r, "drop": d} for r, d in drops.items()]


@pytest.mark.parametrize(
    ("drops", "max_drop", "wanted"),
    [
        ({9: 0.0, 5: 0.01, 1: 0.3}, 0.01, 5),  # equal to the limit is allowed
        ({1: 0.3, 5: 0.01, 9: 0.0}, 0.01, 5),  # in whatever order
        ({9: 0.0, 5: 0.02, 1: 0.0}, 0.01, 9),  # luck beyond a bad one does not count
        ({9: 0.1, 5: 0.0}, 0.01, None),
        ({9: -0.02, 5: -0.01, 1: 0.0}, -0.01, 5),  # only what gains
    ],
)
def test_smallest_rank_down_to_which_no_drop_is_too_large(drops, max_drop, wanted):
    expected = {} if wanted is None else {"fc": wanted}
    assert smallest_ranks(rows_of(drops), max_drop=max_drop) == expected


def test_the_ranks_of_a_scan_go_into_the_network(validation):
    model = SmallCNN(width=4)
    scan = list(rank_scan(model, validation, [0.9, 0.5], split=SpatialSplit))
    ranks = smallest_ranks(scan, max_drop=1.0)
    assert list(ranks) == list(splittable(model))
    assert metrics.count_params(factorize(model, ranks, split=SpatialSplit)) < (
        metrics.count_params(model)
    )
    two = smallest_ranks(rows_of({1: 0.0}, "b") + rows_of({2: 0.0}, "a"), max_drop=0)
    assert list(two.items()) == [("b", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shares": []}, ValueError, r"shares must hold at least one number, got \[\]"),
        ({"shares": 0.5}, ValueError, "shares must hold at least one number, got 0.5"),
        ({"shares": "0.5"}, ValueError, "shares must hold at least one number, got '0.5'"),
        ({"shares": [0.5, 0]}, ValueError, "share must be a finite number > 0, got 0"),
        ({"shares": ["half"]}, TypeError, "share must be a finite number"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        ({"validation": torch.zeros(1)}, TypeError, "validation must be a Split"),
        ({"split": LinearSplit.matrix}, TypeError, "split must be a split such as"),
    ],
)
def test_a_wrong_scan_is_refused_at_the_call(validation, change, error, message):
    arguments = {"model": SmallCNN(width=2), "validation": validation, "shares": [0.5]}
    with pytest.raises(error, match=message):
        rank_scan(**(arguments | change))


@pytest.mark.parametrize(
    ("rows", "max_drop", "error", "message"),
    [
        ([], 0.01, ValueError, "rows must hold at least one row"),
        (rows_of({5: 0.0}), math.nan, ValueError, "max_drop must be a finite number, got nan"),
        (rows_of({5: 0.0}), "1 %", TypeError, "max_drop must be a finite number, got '1 %'"),
    ],
)
def test_wrong_choices_are_refused(rows, max_drop, error, message):
    with pytest.raises(error, match=message):
        smallest_ranks(rows, max_drop=max_drop)
