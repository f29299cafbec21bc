"""Errata E17 to E21: what the article's update rules do, and beside them what ours do."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from rac_helpers.nas import article
from rac_helpers.nas.evolution import GenerationalEvolution
from rac_helpers.nas.reinforce import reinforce_loss
from rac_helpers.nas.search import search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator


def fitness(chromosome):
    """Toy fitness in [-3, 3]: linear, relu, linear in this order, and many units."""
    wanted = ("linear", "relu", "linear")
    fits = sum(kind == right for (kind, _), right in zip(chromosome, wanted, strict=True))
    return fits - 3 + sum(units for _, units in chromosome) / 100


def evolve(generations, *, seed=0, copy_genes=False, size=4, elite=2):
    """Yield each population; it is cut to its size, so that growth hides nothing else."""
    generator = make_generator(seed)
    population = article.printed_population(size)
    for _ in range(generations):
        yield population
        population = article.printed_generation(
            population, fitness, elite_size=elite, generator=generator, copy_genes=copy_genes
        )[:size]


# -- E17: the loss --------------------------------------------------------------------------------


@pytest.mark.parametrize("rewarded", [0, 1])
def test_the_printed_loss_ends_at_even_odds_whichever_action_is_rewarded(rewarded):
    def loss_of(log_p, action):
        return article.printed_loss(log_p, 1.0 if action == rewarded else 0.2)

    p = article.train_policy(loss_of, [2.0, 0.0], num_steps=200, generator=make_generator(0))
    assert torch.allclose(p[-1], torch.tensor([0.5, 0.5]), atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_our_loss_finds_the_rewarded_action_from_the_same_beginning(seed):
    def loss_of(log_p, action):
        rewards = torch.tensor([1.0 if action == 1 else 0.0])
        return reinforce_loss(log_p[action][None], rewards, 0.5)

    p = article.train_policy(loss_of, [2.0, 0.0], num_steps=200, generator=make_generator(seed))
    assert p[0, 0] > 0.85
    assert p[-1, 1] > 0.9


def test_the_printed_loss_is_smallest_where_all_actions_are_even():
    logits = torch.randn(20, 4, generator=make_generator(0))
    even = article.printed_loss(torch.zeros(4).log_softmax(0), 0.7)
    assert all(article.printed_loss(row.log_softmax(0), 0.7) > even for row in logits)


# -- E18: the shapes ------------------------------------------------------------------------------


def test_of_eight_masks_two_crash_and_two_have_another_width():
    widths = [article.printed_width(mask) for mask in itertools.product((0, 1), repeat=3)]
    assert [widths.count(width) for width in (None, 20, 10)] == [2, 2, 4]


# -- E19: the size --------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "elite", "after"), [(10, 4, 16), (20, 5, 35)])
def test_the_printed_population_grows(size, elite, after):
    population = article.printed_population(size)
    new = article.printed_generation(
        population, fitness, elite_size=elite, generator=make_generator(0)
    )
    assert len(new) == after == 2 * size - elite


@pytest.mark.parametrize(("size", "elite"), [(10, 4), (20, 5)])
def test_ours_keeps_its_size(size, elite):
    space = Space((("a", (0, 1, 2)), ("b", (0, 1, 2))))
    strategy = GenerationalEvolution(
        space, generator=make_generator(0), population_size=size, elite_size=elite
    )
    for _ in range(5):
        search(strategy, sum, num_trials=size - elite if strategy.population else size)
        assert len(strategy.population) == size


# -- E20: the genes -------------------------------------------------------------------------------


def test_printed_genes_become_one_family_and_all_are_the_same():
    counts = [article.count_gene_objects(population) for population in evolve(20)]
    assert counts[0] == 12
    assert counts == sorted(counts, reverse=True)  # no generation makes a new one
    assert counts[-1] == 3
    *_, last = evolve(20)
    assert all(chromosome == last[0] for chromosome in last)


def test_copied_genes_stay_apart():
    *_, last = evolve(20, copy_genes=True)
    assert article.count_gene_objects(last) > 3


@pytest.mark.parametrize("copy_genes", [False, True])
def test_without_copies_the_best_is_made_worse(copy_genes):
    worse, best = 0, None
    for population in evolve(300, copy_genes=copy_genes):
        now = max(map(fitness, population))
        worse += best is not None and now < best
        best = now
    assert worse == 0 if copy_genes else worse > 50


def test_copies_end_better():
    ends = {}
    for copy_genes in (False, True):
        runs = [list(evolve(100, seed=s, copy_genes=copy_genes))[-1] for s in range(5)]
        ends[copy_genes] = sum(max(map(fitness, run)) for run in runs) / 5
    assert ends[True] > ends[False] + 1


# -- E21: one gene, and a first population without differences ------------------------------------


def test_the_first_printed_population_is_one_individual_many_times():
    first, *others = article.printed_population(5)
    assert others == [first] * 4


def test_one_gene_crashes_as_printed():
    with pytest.raises(ValueError, match="empty range"):
        article.printed_generation(
            [[["relu", 10]], [["relu", 20]]], len, elite_size=1, generator=make_generator(0)
        )


def test_without_a_generator_nothing_is_drawn():
    for call in (
        lambda: article.train_policy(lambda p, a: -p[a], [0.0, 0.0], num_steps=1, generator=None),
        lambda: article.printed_generation(
            article.printed_population(4), fitness, elite_size=2, generator=None
        ),
    ):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
            call()


def test_global_state_stays():
    before, python = torch.get_rng_state(), random.getstate()
    list(evolve(3))
    article.printed_width((1, 1, 1))
    article.train_policy(
        lambda log_p, action: -log_p[action], [0.0, 0.0], num_steps=3, generator=make_generator(0)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert python == random.getstate()
