"""Evolution: the population keeps its size, nobody is changed, children are legal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.nas.evolution import (
    AgingEvolution,
    GenerationalEvolution,
    Individual,
    tournament,
)
from rac_helpers.nas.random_search import RandomSearch
from rac_helpers.nas.search import search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)
SEEDS = st.integers(0, 10**6)


def space_of(sizes):
    return Space(tuple((f"gene{i}", tuple(range(size))) for i, size in enumerate(sizes)))


def differences(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


@settings(max_examples=40)
@given(SIZES, SEEDS, st.integers(1, 8), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]))
def test_aging_population_is_the_last_trials(sizes, seed, size, sample, crossover):
    space = space_of(sizes)
    strategy = AgingEvolution(
        space,
        generator=make_generator(seed),
        population_size=size,
        sample_size=sample,
        crossover=crossover,
    )
    history = search(strategy, sum, num_trials=size + 15)
    assert [one.number for one in strategy.population] == list(range(15, size + 15))
    assert [one.genome for one in strategy.population] == [
        trial.genome for trial in history.trials[-size:]
    ]
    for trial in history.trials:
        space.check(trial.genome)
        assert (
            len(trial.parents) == (0 if trial.number < size else 1 + bool(crossover == 1))
            or crossover == 0.5
        )


@settings(max_examples=30)
@given(SIZES, SEEDS)
def test_without_crossover_a_child_differs_in_one_gene_from_its_parent(sizes, seed):
    space = space_of(sizes)
    strategy = AgingEvolution(space, generator=make_generator(seed), population_size=4)
    history = search(strategy, sum, num_trials=30)
    for trial in history.trials[4:]:
        [parent] = trial.parents
        assert 1 <= trial.number - parent <= 4  # older ones are dead
        changed = differences(trial.genome, history.trials[parent].genome)
        assert changed == (1 if len(space) > 1 else 0)


@settings(max_examples=30)
@given(SIZES, SEEDS, st.integers(2, 8), st.integers(1, 7), st.integers(1, 4))
def test_generations_keep_their_size_and_the_best(sizes, seed, size, elite, batch):
    elite = min(elite, size - 1)
    space = space_of(sizes)
    strategy = GenerationalEvolution(
        space, generator=make_generator(seed), population_size=size, elite_size=elite
    )
    scores = []

    def score(genome):
        if strategy.population:
            assert len(strategy.population) == size
            scores.append(strategy.population[0].score)
        return float(sum(genome))

    history = search(strategy, score, num_trials=size + 4 * (size - elite), batch=batch)
    assert len(strategy.population) == size
    assert scores == sorted(scores)  # the best never gets worse
    assert strategy.population[0].score == history.best.score
    for member in strategy.population:  # nobody was changed since its trial
        trial = history.trials[member.number]
        assert (member.genome, member.score) == (trial.genome, trial.score)
        space.check(member.genome)


def test_children_of_generations_come_from_the_elite_of_the_generation_before():
    strategy = GenerationalEvolution(
        space_of([4] * 5), generator=make_generator(1), population_size=6, elite_size=2
    )
    history = search(strategy, sum, num_trials=10)
    first = sorted(history.trials[:6], key=lambda trial: trial.score, reverse=True)
    elite = {trial.number for trial in first[:2]}
    assert all(set(trial.parents) <= elite and trial.parents for trial in history.trials[6:10])


def test_the_first_population_is_diverse():
    """E21: the article begins with copies of one individual."""
    strategy = GenerationalEvolution(space_of([4] * 5), generator=make_generator(0))
    history = search(strategy, sum, num_trials=12)
    assert len({trial.genome for trial in history.trials}) >= 11


@pytest.mark.parametrize("kind", [AgingEvolution, GenerationalEvolution])
@pytest.mark.parametrize("sizes", [[3], [1], [1, 1], [1, 4]])
def test_one_gene_and_one_choice_work(kind, sizes):
    """E21: the article's crossover needs two genes."""
    history = search(kind(space_of(sizes), generator=make_generator(0)), sum, num_trials=60)
    assert history.best.genome == tuple(size - 1 for size in sizes)


@pytest.mark.parametrize(
    "options", [{"population_size": 10}, {"population_size": 10, "crossover": 0.5}]
)
def test_aging_evolution_beats_random_search_where_neighbours_are_alike(options):
    space, wins, ties = space_of([4] * 8), 0, 0
    for seed in range(20):
        ours = AgingEvolution(space, generator=make_generator(seed), **options)
        plain = RandomSearch(space, generator=make_generator(seed))
        a, b = (search(x, sum, num_trials=150).best.score for x in (ours, plain))
        wins, ties = wins + (a > b), ties + (a == b)
    assert wins + ties / 2 >= 17


def test_a_tournament_of_many_finds_the_best_and_of_one_is_uniform():
    population = [Individual(n, (n,), float(n % 7)) for n in range(10)]
    generator = make_generator(0)
    assert tournament(population, 200, generator=generator).score == 6.0
    winners = [tournament(population, 1, generator=generator).number for _ in range(500)]
    assert {winners.count(n) > 20 for n in range(10)} == {True}


def test_pressure_grows_with_the_sample():
    population = [Individual(n, (n,), float(n)) for n in range(20)]
    means = []
    for size in (1, 3, 10):
        generator = make_generator(0)
        picks = [tournament(population, size, generator=generator).score for _ in range(300)]
        means.append(sum(picks) / len(picks))
        assert means[-1] == pytest.approx(20 * size / (size + 1), abs=1.2)  # the largest of size
    assert means == sorted(means)


def test_wrong_arguments_are_named():
    space, generator = space_of([2]), make_generator(0)
    with pytest.raises(ValueError, match="population_size must be an integer >= 1, got 0"):
        AgingEvolution(space, generator=generator, population_size=0)
    with pytest.raises(ValueError, match="sample_size must be an integer >= 1, got 0"):
        AgingEvolution(space, generator=generator, sample_size=0)
    with pytest.raises(ValueError, match=r"crossover must be a finite number in \[0, 1\], got 2"):
        AgingEvolution(space, generator=generator, crossover=2)
    with pytest.raises(ValueError, match=r"elite_size must be an integer in \[1, 3\], got 4"):
        GenerationalEvolution(space, generator=generator, population_size=4, elite_size=4)
    with pytest.raises(ValueError, match="population must hold at least 1 individual, got none"):
        tournament([], 3, generator=generator)
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
        tournament([Individual(0, (0,), 0.5)], 3, generator=None)  # global state


def test_numbers_of_numpy_are_numbers():
    sizes = {"population_size": np.int64(4), "sample_size": np.int64(2)}
    strategy = AgingEvolution(space_of([4, 4]), generator=make_generator(0), **sizes)
    search(strategy, sum, num_trials=10)
    assert len(strategy.population) == 4
