"""The loop of ask and tell: order, batches, executors, journals, what a history knows."""

from __future__ import annotations

import functools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.nas.bayesian import BayesianSearch
from rac_helpers.nas.evolution import AgingEvolution, GenerationalEvolution
from rac_helpers.nas.halving import successive_halving
from rac_helpers.nas.random_search import RandomSearch
from rac_helpers.nas.reinforce import Reinforce
from rac_helpers.nas.search import History, Strategy, Trial, scores_of, search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator
from rac_helpers.sweep import processes

SPACE = Space((("op", ("conv", "skip")), ("width", (4, 8, 16)), ("depth", (1, 2, 3))))


class Recorder(Strategy):
    """Asks for all genomes in turn and keeps what it is told."""

    def __init__(self, space):
        super().__init__(space, generator=make_generator(0))
        self.todo, self.told = iter(space.genomes()), []

    def ask(self):
        return next(self.todo)

    def tell(self, genome, score):
        self.told.append((genome, score))


def total(genome, *, factor=1.0):
    return factor * sum(genome)


def evolution(seed=0):
    return AgingEvolution(SPACE, generator=make_generator(seed), population_size=5)


def test_what_is_told_is_what_was_asked_for_in_order():
    strategy = Recorder(SPACE)
    history = search(strategy, total, num_trials=10)
    assert strategy.told == [(trial.genome, trial.score) for trial in history.trials]
    assert [trial.number for trial in history.trials] == list(range(10))
    assert [trial.genome for trial in history.trials] == list(SPACE.genomes())[:10]


@pytest.mark.parametrize("batch", [2, 4, 100])
def test_a_batch_is_asked_for_before_the_first_is_told(batch):
    calls = []

    class Noisy(Recorder):
        def ask(self):
            calls.append("ask")
            return super().ask()

        def tell(self, genome, score):
            calls.append("tell")
            super().tell(genome, score)

    assert len(search(Noisy(SPACE), total, num_trials=10, batch=batch)) == 10
    first = min(batch, 10)
    assert calls[: 2 * first] == ["ask"] * first + ["tell"] * first
    assert calls.count("ask") == calls.count("tell") == 10


def test_results_are_told_in_trial_order_whichever_ends_first():
    from threading import Event

    second_ended = Event()

    def score(genome):
        if genome == (0, 0, 0):
            assert second_ended.wait(20)
        elif genome == (0, 0, 1):
            second_ended.set()
        return total(genome)

    strategy = Recorder(SPACE)
    with ThreadPoolExecutor(2) as executor:
        search(strategy, score, num_trials=4, batch=2, executor=executor)
    assert [genome for genome, _ in strategy.told] == list(SPACE.genomes())[:4]


def test_an_executor_and_a_journal_change_nothing(tmp_path):
    here = search(evolution(), total, num_trials=23, batch=3)
    with ThreadPoolExecutor(3) as executor:
        there = search(
            evolution(),
            total,
            num_trials=23,
            batch=3,
            executor=executor,
            journal=tmp_path / "search.jsonl",
        )
    assert here == there


def test_processes_score_a_partial():
    score = functools.partial(total, factor=0.5)
    with processes(1, threads=1) as executor:
        history = search(evolution(), score, num_trials=4, batch=2, executor=executor)
    assert history == search(evolution(), score, num_trials=4, batch=2)


def test_a_journal_goes_on_where_a_search_was_killed(tmp_path):
    journal, calls = tmp_path / "search.jsonl", []

    def score(genome, limit=10**9):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(genome)
        return total(genome)

    with pytest.raises(KeyboardInterrupt):
        search(evolution(), functools.partial(score, limit=7), num_trials=20, journal=journal)
    history = search(evolution(), score, num_trials=20, journal=journal)
    assert len(calls) == 20  # nothing twice
    assert history == search(evolution(), total, num_trials=20)
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert [line["config"]["number"] for line in lines] == list(range(20))


def test_a_journal_of_other_scores_is_refused(tmp_path):
    """Numbers and genomes are the same, so its scores would be taken for these."""
    journal = tmp_path / "search.jsonl"
    search(evolution(), total, num_trials=4, journal=journal, desc="sums")
    with pytest.raises(ValueError, match="is the journal of the sweep 'sums', not of 'halves'"):
        search(evolution(), total, num_trials=4, journal=journal, desc="halves")
    with pytest.raises(ValueError, match="is the journal of the sweep 'sums', not of 'halving'"):
        successive_halving([(0, 0, 0)], total, max_epochs=1, journal=journal)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_best_so_far_is_the_running_maximum(scores):
    history = History(tuple(Trial(n, (n,), float(s)) for n, s in enumerate(scores)))
    best = history.best_so_far()
    assert best == [max(scores[: n + 1]) for n in range(len(scores))]
    assert history.best.score == best[-1] == max(scores)
    assert history.best.number == scores.index(max(scores))  # the earliest
    assert [trial.score for trial in history.incumbents()] == best


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(0, 29))
def test_a_family_is_closed_under_parents_and_older(seed, number):
    history = search(evolution(seed), total, num_trials=30)
    family = {trial.number for trial in history.family(number)}
    assert number == max(family)
    for member in family:
        parents = set(history.trials[member].parents)
        assert parents <= family
        assert all(parent < member for parent in parents)


@pytest.mark.parametrize("kind", [AgingEvolution, GenerationalEvolution, BayesianSearch, Reinforce])
@pytest.mark.parametrize(
    ("genome", "score", "error", "message"),
    [
        ((0, 0, 0), float("nan"), ValueError, "score must be a finite number, got nan"),
        ((0, 0, 0), float("-inf"), ValueError, "score must be a finite number, got -inf"),
        ((0, 0, 0), True, TypeError, "score must be a finite number, got True"),
        ((0, 0), 0.5, ValueError, "genome must hold 3 numbers, got 2"),
        ((0, 3, 0), 0.5, ValueError, r"genome\[1\] \(width\) must be in \[0, 2\], got 3"),
    ],
)
def test_a_strategy_is_not_spoilt_by_what_is_no_trial(kind, genome, score, error, message):
    strategy = kind(SPACE, generator=make_generator(0))
    with pytest.raises(error, match=message):
        strategy.tell(genome, score)


@pytest.mark.parametrize("kind", [AgingEvolution, GenerationalEvolution])
def test_parents_of_a_second_search_are_trials_of_this_search(kind):
    """A strategy counts on; a history begins with 0, and knows nothing of earlier trials."""
    strategy = kind(SPACE, generator=make_generator(0), population_size=5)
    search(strategy, total, num_trials=12)
    history = search(strategy, total, num_trials=25)
    for trial in history.trials:
        assert all(0 <= parent < trial.number for parent in trial.parents)
        history.family(trial.number)
    for trial in history.trials[6:]:
        if kind is AgingEvolution:
            [parent] = trial.parents
            mother = history.trials[parent].genome
            assert sum(a != b for a, b in zip(mother, trial.genome, strict=True)) == 1


def test_a_history_holds_at_least_one_trial():
    with pytest.raises(ValueError, match="trials must hold at least one, got none"):
        History(())


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "0.5", None])
def test_a_score_that_is_no_number_is_named(score):
    with pytest.raises((TypeError, ValueError), match=r"score\(\(0, 0, 0\)\) must be a finite"):
        search(Recorder(SPACE), lambda genome: score, num_trials=1)


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="strategy must be a Strategy, got function"):
        search(total, total, num_trials=1)
    with pytest.raises(ValueError, match="num_trials must be an integer >= 1, got 0"):
        search(Recorder(SPACE), total, num_trials=0)
    with pytest.raises(ValueError, match="batch must be an integer >= 1, got 0"):
        search(Recorder(SPACE), total, num_trials=1, batch=0)
    with pytest.raises(TypeError, match="space must be a Space, got list"):
        RandomSearch([1], generator=make_generator(0))
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        RandomSearch(SPACE, generator=0)
    history = History((Trial(0, (0,), 0.1),))
    with pytest.raises(ValueError, match=r"number must be an integer in \[0, 0\], got 1"):
        history.family(1)


def test_further_arguments_reach_the_score(tmp_path):
    configs = [{"number": n, "genome": (n, 1), "factor": 2.0} for n in (3, 1)]
    assert scores_of(total, configs) == [8.0, 4.0]
    assert scores_of(total, configs, journal=tmp_path / "a.jsonl") == [8.0, 4.0]
