"""Random search: uniform, and without replacement a permutation of the space."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rac_helpers.nas.bayesian import BayesianSearch
from rac_helpers.nas.random_search import RandomSearch, sample_new
from rac_helpers.nas.search import search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator

SPACE = Space((("op", ("conv", "skip")), ("width", (4, 8, 16))))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 10**6))
def test_without_replacement_each_genome_comes_once(sizes, seed):
    space = Space(tuple((f"gene{i}", tuple(range(size))) for i, size in enumerate(sizes)))
    history = search(
        RandomSearch(space, generator=make_generator(seed)), sum, num_trials=len(space)
    )
    assert sorted(trial.genome for trial in history.trials) == list(space.genomes())


def test_more_trials_than_genomes_is_an_error():
    with pytest.raises(ValueError, match="has 6 genomes and all have been tried"):
        search(RandomSearch(SPACE, generator=make_generator(0)), sum, num_trials=7)


def test_a_space_may_hold_more_genomes_than_len_can_say():
    """That of the plans for a ResNet-20 has 10**31; Python's len ends at 2**63 - 1."""
    space = Space(tuple((f"gene{i}", tuple(range(36))) for i in range(20)))
    with pytest.raises(OverflowError):
        len(space)
    assert space.num_genomes == 36**20
    for kind in (RandomSearch, BayesianSearch):
        strategy = kind(space, generator=make_generator(0))
        space.check(strategy.ask())


@pytest.mark.parametrize("seen", [set(), {(0, 0), (0, 1), (0, 2), (1, 0)}])
def test_nothing_is_drawn_from_global_state(seen):
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
        sample_new(SPACE, seen, generator=None)


def test_with_replacement_genomes_come_again():
    strategy = RandomSearch(SPACE, generator=make_generator(0), replacement=True)
    history = search(strategy, sum, num_trials=100)
    assert len({trial.genome for trial in history.trials}) == 6


@pytest.mark.parametrize("position", [0, 2, 4, 5])
def test_each_position_of_the_order_is_uniform(position):
    """Also those behind the middle, which are drawn in another way."""
    counts = Counter()
    for seed in range(600):
        strategy = RandomSearch(SPACE, generator=make_generator(seed))
        counts[[strategy.ask() for _ in range(6)][position]] += 1
    assert stats.chisquare([counts[genome] for genome in SPACE.genomes()]).pvalue > 1e-3


def test_one_seed_is_one_order_and_global_state_stays():
    state = torch.get_rng_state()
    first, again, other = (
        [RandomSearch(SPACE, generator=make_generator(seed)).ask() for _ in range(1)]
        + [sample_new(SPACE, set(), generator=make_generator(seed))]
        for seed in (3, 3, 4)
    )
    assert first == again != other
    assert torch.equal(state, torch.get_rng_state())
