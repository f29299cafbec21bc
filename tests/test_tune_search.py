"""Search: spaces, strategies, Hyperband, and what survives a kill."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.tune import (
    Choice,
    Genetic,
    Integer,
    RandomSearch,
    Real,
    Space,
    Tpe,
    best_of,
    best_so_far,
    best_trial,
    blend,
    brackets,
    cost_epochs,
    hyperband,
    mutate,
    rungs,
    search,
    tournament,
)

SPACE = Space(
    {"lr": Real(1e-3, 1, log=True), "depth": Integer(1, 5), "kind": Choice(("a", "b", "c"))}
)
UNIT = st.floats(0, 1)
STRATEGIES = {
    "random": lambda: RandomSearch(SPACE, generator=make_generator(1)),
    "genetic": lambda: Genetic(SPACE, generator=make_generator(1), population=4),
    "tpe": lambda: Tpe(SPACE, seed=1, num_random=4),
}


def bowl(config: dict) -> dict:
    """Best at lr = 0.1, depth 3, kind b."""
    distance = abs(math.log10(config["lr"]) + 1) + abs(config["depth"] - 3) / 4
    return {"score": -distance - (config["kind"] != "b"), "seed": config["seed"]}


# -- spaces ---------------------------------------------------------------------------------------


@given(unit=UNIT, other=UNIT)
@settings(max_examples=60)
def test_values_are_in_range_and_rise(unit, other):
    low, high = sorted((unit, other))
    for parameter in (Real(-2, 3), Real(1e-5, 10, log=True), Integer(-1, 4)):
        assert parameter.low <= parameter.value(low) <= parameter.value(high) <= parameter.high
    assert type(Integer(0, 3).value(unit)) is int
    assert type(Real(1, 3).value(unit)) is float


def test_log_scale_halves_by_ratio_and_draws_are_even():
    assert Real(0.01, 100, log=True).value(0.5) == pytest.approx(1)
    generator = make_generator(0)
    drawn = [SPACE.draw(generator=generator) for _ in range(3000)]
    for low in (1e-3, 1e-2, 1e-1):
        assert sum(low <= one["lr"] < 10 * low for one in drawn) == pytest.approx(1000, abs=100)
    for depth in range(1, 6):
        assert sum(one["depth"] == depth for one in drawn) == pytest.approx(600, abs=90)
    for kind in "abc":
        assert sum(one["kind"] == kind for one in drawn) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Real(0, 1, log=True), ValueError, "low must be a finite number > 0 on a log"),
        (lambda: Real(1, 1), ValueError, "low must be below high, got 1.0 and 1.0"),
        (lambda: Real(0, math.inf), ValueError, "high must be a finite number, got inf"),
        (lambda: Integer(1.5, 2), TypeError, "low must be an integer, got 1.5"),
        (lambda: Integer(3, 2), ValueError, "low must be below high"),
        (lambda: Choice(("a",)), ValueError, "options must be two or more that differ"),
        (lambda: Choice(("a", "a")), ValueError, "options must be two or more that differ"),
        (lambda: Choice(["a", "b"]), TypeError, "options must be a tuple, got list"),
        (lambda: Choice(("a", ["b"])), TypeError, r"options must be texts, .* got \['b'\]"),
        (lambda: Choice(("a", None)), TypeError, "options must be texts, .* got None"),
        (lambda: Space([Real(0, 1)]), TypeError, "parameters must be a mapping, got list"),
        (lambda: Space({1: Real(0, 1)}), TypeError, "parameters must have texts as names, got 1"),
        (lambda: Tpe({}, seed=0), TypeError, "space must be a Space, got dict"),
        (lambda: RandomSearch([], generator=make_generator(0)), TypeError, "a Space, got list"),
        (lambda: Genetic(1, generator=make_generator(0)), TypeError, "a Space, got int"),
        (lambda: Space({}), ValueError, "parameters must hold at least one"),
        (lambda: Space({"lr": 0.1}), TypeError, r"parameters\['lr'\] must be .* got float"),
        (lambda: SPACE.config(torch.zeros(2)), ValueError, r"must have the shape \(3,\)"),
        (lambda: SPACE.config(torch.tensor([0, 2, 0])), ValueError, r"must be in \[0, 1\]"),
        (lambda: SPACE.draw(generator=0), TypeError, "generator must be a torch.Generator"),
    ],
)
def test_unfit_spaces_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_integers_of_numpy_become_plain_ones():
    """Else they stand in configurations, where an Optuna file does not take them."""
    value = Integer(np.int64(1), np.int64(4)).value(0.5)
    assert type(value) is int
    assert value == 3


# -- the loop -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_repeats_itself_resumes_and_does_not_depend_on_the_executor(name, tmp_path):
    """The order in which threads finish is another one; what a strategy is told is not."""
    options = {"num_trials": 14, "seed": 5, "at_once": 4}
    whole = search(bowl, STRATEGIES[name](), **options)
    assert [trial.number for trial in whole] == list(range(14))
    assert len({trial.result["seed"] for trial in whole}) == 14
    assert whole[3].result["seed"] == derive_seed(5, "trial", 3)
    with ThreadPoolExecutor(3) as executor:
        assert search(bowl, STRATEGIES[name](), executor=executor, **options) == whole

    def broken(config):
        if config["trial"] == 9:
            raise KeyboardInterrupt
        return bowl(config)

    journal = tmp_path / "search.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search(broken, STRATEGIES[name](), journal=journal, **options)
    ran = []

    def watched(config):
        ran.append(config["trial"])
        return bowl(config)

    assert search(watched, STRATEGIES[name](), journal=journal, **options) == whole
    assert ran == list(range(9, 14))


@pytest.mark.parametrize("name", ["genetic", "tpe"])
def test_clever_strategies_beat_random_on_a_smooth_bowl(name):
    """As a mean over seeds of the best of 40: on a hill without noise it must show."""

    def mean(make):
        runs = [search(bowl, make(s), num_trials=42, seed=s, at_once=6) for s in range(8)]
        return sum(best_trial(trials).score for trials in runs) / 8

    clever = {
        "genetic": lambda s: Genetic(SPACE, generator=make_generator(s), population=6),
        "tpe": lambda s: Tpe(SPACE, seed=s, num_random=8),
    }
    assert mean(clever[name]) > mean(lambda s: RandomSearch(SPACE, generator=make_generator(s)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_trials": 0}, ValueError, "num_trials must be an integer >= 1"),
        ({"at_once": 0}, ValueError, "at_once must be an integer >= 1"),
        ({"strategy": None}, TypeError, "strategy must have ask and tell, got NoneType"),
        ({"run": lambda c: 0.5}, TypeError, "run must return a dict with 'score', got 0.5"),
        ({"run": lambda c: {"score": "x"}}, TypeError, "score must be a finite number, got 'x'"),
    ],
)
def test_unfit_searches_are_named(changes, error, message):
    options = {"run": bowl, "strategy": STRATEGIES["random"](), "num_trials": 2, "seed": 0}
    with pytest.raises(error, match=message):
        search(**options | changes)


def test_names_of_the_search_are_refused_as_parameters():
    strategy = RandomSearch(Space({"seed": Integer(0, 3)}), generator=make_generator(0))
    with pytest.raises(ValueError, match="must not be named trial or seed, got 'seed'"):
        search(bowl, strategy, num_trials=1, seed=0)


def test_scores_of_strangers_are_refused():
    for name in ("genetic", "tpe"):
        strategy = STRATEGIES[name]()
        strategy.ask()
        with pytest.raises(ValueError, match="config must be one that was asked for"):
            strategy.tell({"lr": 1.0}, 0.5)


def test_who_changes_a_configuration_changes_nothing_of_the_strategy():
    for name in ("genetic", "tpe"):
        strategy = STRATEGIES[name]()
        config = strategy.ask()
        asked = dict(config)
        config["lr"] = 0.123
        strategy.tell(asked, 0.5)


def test_best_so_far_never_falls():
    assert best_so_far([1, 0, 3, 2]) == [1, 1, 3, 3]
    with pytest.raises(ValueError, match="trials must hold at least one"):
        best_trial([])


def test_two_tpe_searches_share_a_file(tmp_path):
    """What one has tried, the other knows."""
    one, two = (Tpe(SPACE, seed=s, study_file=tmp_path / "study.log") for s in range(2))
    config, other = one.ask(), two.ask()
    assert config != other
    one.tell(config, 0.75)
    two.tell(other, 0.25)
    assert one.study.best_value == two.study.best_value == 0.75
    later = Tpe(SPACE, seed=2, study_file=tmp_path / "study.log")
    assert [trial.value for trial in later.study.trials] == [0.75, 0.25]
    assert later.study.trials[0].params == config


# -- the parts of the genetic algorithm -----------------------------------------------------------

POINTS = st.lists(UNIT, min_size=3, max_size=3).map(lambda p: torch.tensor(p, dtype=torch.float64))


@given(one=POINTS, other=POINTS, alpha=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_children_stay_in_the_cube_and_near_their_parents(one, other, alpha, seed):
    child = blend(one, other, alpha, generator=make_generator(seed))
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    reach = alpha * (high - low) + 1e-12
    assert ((child >= low - reach) & (child <= high + reach)).all()
    assert ((child >= 0) & (child <= 1)).all()


def test_blending_keeps_the_mean_and_without_alpha_loses_spread():
    """Deb: a population under BLX-0 shrinks; with alpha = 0.5 it grows a little."""
    generator, points = make_generator(0), torch.rand(400, 1, generator=make_generator(1)) / 5 + 0.4

    def spread(alpha):
        pairs = torch.randint(400, (400, 2), generator=generator)
        children = [blend(points[a], points[b], alpha, generator=generator) for a, b in pairs]
        return torch.stack(children)

    narrow, wide = spread(0.0), spread(0.5)
    assert narrow.mean().item() == pytest.approx(points.mean().item(), abs=0.01)
    assert narrow.std() < 0.9 * points.std()
    assert wide.std() > points.std() > narrow.std()


def test_tournaments_select_harder_when_they_are_larger():
    scores, generator = torch.arange(10.0), make_generator(0)
    means = []
    for size in (1, 2, 4):
        winners = [tournament(scores, size, generator=generator) for _ in range(2000)]
        means.append(sum(winners) / len(winners))
    # the mean of the largest of k out of n without replacement: k (n + 1) / (k + 1) - 1
    assert means == pytest.approx([4.5, 2 * 11 / 3 - 1, 4 * 11 / 5 - 1], abs=0.2)
    assert tournament(scores, 10, generator=generator) == 9


@pytest.mark.parametrize(
    "draw",
    [
        lambda point: tournament(point, 2, generator=None),
        lambda point: blend(point, point, generator=None),
        lambda point: mutate(point, 0.5, 0.1, generator=None),
    ],
)
def test_nothing_is_drawn_from_global_state(draw):
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
        draw(torch.tensor([0.1, 0.2, 0.3]))


def test_mutation_moves_the_given_share_by_the_given_amount():
    point = torch.full((4000,), 0.5, dtype=torch.float64)
    moved = mutate(point, 0.25, 0.05, generator=make_generator(0))
    changed = moved[moved != point]
    assert len(changed) == pytest.approx(1000, abs=90)
    assert changed.std().item() == pytest.approx(0.05, rel=0.1)
    assert torch.equal(point, torch.full((4000,), 0.5, dtype=torch.float64))
    edge = mutate(torch.ones(100), 1.0, 5.0, generator=make_generator(0))
    assert ((edge >= 0) & (edge <= 1)).all()


def test_the_best_live_on_and_are_not_tried_again():
    strategy = Genetic(Space({"x": Real(0, 1)}), generator=make_generator(0), population=3)
    asked = [strategy.ask() for _ in range(3)]
    for config, score in zip(asked, (0.1, 0.9, 0.5), strict=True):
        strategy.tell(config, score)
    children = [strategy.ask() for _ in range(3)]
    for config, score in zip(children, (0.0, 0.0, 0.7), strict=True):
        strategy.tell(config, score)
    assert strategy._scores == [0.9, 0.7, 0.5]
    assert not any(child in asked for child in children)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 1}, "population must be an integer >= 2, got 1"),
        ({"population": 4, "tournament_size": 5}, r"tournament_size must be .* \[1, 4\], got 5"),
        ({"mutation_probability": 1.5}, r"mutation_probability must be .* \[0, 1\], got 1.5"),
        ({"mutation_std": -1}, "mutation_std must be a finite number >= 0"),
    ],
)
def test_unfit_genetic_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Genetic(SPACE, generator=make_generator(0), **options)


# -- Hyperband ------------------------------------------------------------------------------------


def test_brackets_are_those_of_the_paper():
    """Algorithm 1 of Li and others for R = 81 and eta = 3, worked out by its formulas."""
    want = []
    for s in (4, 3, 2, 1, 0):
        n, r = math.ceil(5 / (s + 1) * 3**s), 81 / 3**s
        want.append([(n // 3**i, int(r * 3**i)) for i in range(s + 1)])
    assert [[tuple(rung) for rung in bracket] for bracket in brackets(81)] == want
    assert [bracket[0].num_trials for bracket in brackets(81)] == [81, 34, 15, 8, 5]


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 8, 9, 26, 27, 81])
def test_as_many_brackets_as_optuna(max_epochs):
    import optuna

    pruner = optuna.pruners.HyperbandPruner(max_resource=max_epochs, reduction_factor=3)
    pruner.prune(optuna.create_study(pruner=pruner), optuna.trial.create_trial(value=0.0))
    assert len(brackets(max_epochs)) == pruner._n_brackets


def test_rungs_are_those_of_scikit_learn():
    """Which rounds up where Hyperband rounds down: the same for powers of the factor."""
    import numpy as np
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    labels = np.arange(162) % 2
    halving = HalvingGridSearchCV(
        DecisionTreeClassifier(random_state=0),
        {"min_samples_leaf": list(range(1, 28))},
        factor=3,
        min_resources=6,
        max_resources=162,
        random_state=0,
    ).fit(labels[:, None] + np.linspace(0, 1, 162)[:, None], labels)
    ours = rungs(27, 6, max_epochs=162)
    assert [rung.num_trials for rung in ours] == halving.n_candidates_
    assert [rung.epochs for rung in ours] == halving.n_resources_


@given(max_epochs=st.integers(1, 100), factor=st.integers(2, 4))
@settings(max_examples=60)
def test_brackets_cost_about_the_same_and_never_train_longer(max_epochs, factor):
    found = brackets(max_epochs, factor=factor)
    longest = found[-1][0].epochs
    assert longest <= max_epochs < longest * factor
    for bracket in found:
        assert bracket[-1].epochs == longest
        assert cost_epochs(bracket) <= (len(found) + factor) * longest


def curve(config: dict) -> dict:
    """The longer, the nearer to its x."""
    return {"score": config["x"] * (1 - 0.5 ** config["epochs"])}


def test_hyperband_goes_on_with_the_best_and_keeps_the_budget(tmp_path):
    space = Space({"x": Real(0, 1)})
    options = {"max_epochs": 9, "budget_epochs": 80, "seed": 3, "journal": tmp_path / "j.jsonl"}
    trials = hyperband(curve, space, **options)
    assert sum(trial.config["epochs"] for trial in trials) == 78
    first = trials[:13]
    best_three = sorted(first[:9], key=lambda trial: -trial.score)[:3]
    assert {t.number for t in first[9:12]} == {t.number for t in best_three}
    assert first[12].number == max(first[9:12], key=lambda trial: trial.score).number
    assert first[12].config == {"x": best_three[0].config["x"], "epochs": 9}
    lines = [json.loads(line) for line in options["journal"].read_text().splitlines()[1:]]
    assert len(lines) == len(trials) == 13 + 6 + 3
    seeds = {line["config"]["trial"]: line["config"]["seed"] for line in lines}
    assert all(line["config"]["seed"] == seeds[line["config"]["trial"]] for line in lines)
    assert len(set(seeds.values())) == 17

    def never(config):
        raise AssertionError("a finished run was run again")

    assert hyperband(never, space, **options) == trials
    twice = hyperband(curve, space, max_epochs=9, budget_epochs=160, seed=3)
    assert twice[: len(trials)] == trials
    assert sum(trial.config["epochs"] for trial in twice) == 156


def test_unfit_numbers_of_hyperband_are_named():
    with pytest.raises(ValueError, match="budget_epochs must be an integer >= 27, got 26"):
        hyperband(curve, Space({"x": Real(0, 1)}), max_epochs=9, budget_epochs=26, seed=0)
    with pytest.raises(ValueError, match="must not be named epochs"):
        hyperband(curve, Space({"epochs": Integer(1, 3)}), max_epochs=1, budget_epochs=9, seed=0)
    with pytest.raises(TypeError, match="space must be a Space, got dict"):
        hyperband(curve, {}, max_epochs=1, budget_epochs=9, seed=0)
    with pytest.raises(ValueError, match="max_epochs must be an integer >= 3, got 2"):
        rungs(9, 3, max_epochs=2)
    with pytest.raises(ValueError, match=r"keep must be an integer in \[0, 2\], got 3"):
        best_of([0.1, 0.2], 3)
