"""Evolution: children of good genomes, a little changed.

Two ways to decide who makes room for a child: the oldest dies (aging), or all but the best do
(elitist generations). In both the population keeps its size, and since genomes are tuples no
child can change its parents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.nas.search import Strategy
from rac_helpers.nas.space import Genome, Space


class Individual(NamedTuple):
    """A member of the population: the number of its trial, its genome and its score."""

    number: int
    genome: Genome
    score: float


def tournament(
    population: Sequence[Individual], sample_size: int, *, generator: torch.Generator
) -> Individual:
    """Draw some members, with replacement, and return the best of them.

    Parameters
    ----------
    population : sequence of Individual
        At least one.
    sample_size : int
        How many are drawn, at least 1: the more, the stronger the pressure towards the best.
    generator : torch.Generator
        What is drawn comes from here.

    Raises
    ------
    TypeError, ValueError
        If nobody is there or nobody is drawn, or ``generator`` is none.

    References
    ----------
    Real, Aggarwal, Huang and Le, 2019. Regularized evolution for image classifier architecture
    search. Algorithm 1.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> population = [Individual(0, (0,), 0.5), Individual(1, (1,), 0.9)]
    >>> tournament(population, 10, generator=make_generator(0)).number
    1
    """
    if not population:
        raise ValueError("population must hold at least 1 individual, got none")
    size = check_int("sample_size", sample_size, low=1)
    drawn = torch.randint(len(population), (size,), generator=check_generator(generator))
    return max((population[place] for place in drawn.tolist()), key=_score)


class AgingEvolution(Strategy):
    """Regularized evolution: the best of a small sample has a child, and the oldest dies.

    Since everybody dies, what stays must be found good again by its children: a lucky score does
    not live for ever.

    Parameters
    ----------
    space : Space
        Where it searches.
    generator : torch.Generator
        What it draws comes from here.
    population_size : int
        At least 1. The first genomes, as many, are drawn at random.
    sample_size : int
        Members in a tournament, at least 1.
    crossover : float
        In ``[0, 1]``: how often a child has two parents. 0 is the method of the paper.

    Attributes
    ----------
    population : deque of Individual
        The oldest first; never more than ``population_size``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Real, Aggarwal, Huang and Le, 2019. Regularized evolution for image classifier architecture
    search. Algorithm 1.

    Examples
    --------
    >>> from rac_helpers.nas.search import search
    >>> from rac_helpers.rng import make_generator
    >>> space = Space(tuple((name, (0, 1, 2, 3)) for name in "abcd"))
    >>> strategy = AgingEvolution(space, generator=make_generator(0), population_size=10)
    >>> history = search(strategy, sum, num_trials=100)
    >>> history.best.genome, len(strategy.population)
    ((3, 3, 3, 3), 10)
    """

    def __init__(
        self,
        space: Space,
        *,
        generator: torch.Generator,
        population_size: int = 20,
        sample_size: int = 5,
        crossover: float = 0.0,
    ) -> None:
        super().__init__(space, generator=generator)
        self.population_size = check_int("population_size", population_size, low=1)
        self.sample_size = check_int("sample_size", sample_size, low=1)
        self.crossover = check_number("crossover", crossover, low=0, high=1)
        self.population: deque[Individual] = deque(maxlen=self.population_size)

    def ask(self) -> Genome:
        """Return a random genome until the population is full, then a child."""
        if len(self.population) < self.population_size:
            self.parents = ()
            return self.space.sample(generator=self.generator)
        first = self._pick()
        genome, self.parents = first.genome, (first.number,)
        if self.crossover and float(torch.rand((), generator=self.generator)) < self.crossover:
            second = self._pick()
            genome = self.space.crossover(genome, second.genome, generator=self.generator)
            self.parents = (first.number, second.number)
        return self.space.mutate(genome, generator=self.generator)

    def tell(self, genome: Genome, score: float) -> None:
        """Add the genome as the youngest; if the population is full, the oldest dies."""
        child = Individual(self._told, *self._checked(genome, score))
        self.population.append(child)  # maxlen drops the oldest
        self._told += 1

    def _pick(self) -> Individual:
        return tournament(self.population, self.sample_size, generator=self.generator)


class GenerationalEvolution(Strategy):
    """Elitist generations: the best live on, and all others are replaced by children at once.

    The algorithm of the article's sample with its errors put right: the first population is
    random, a generation has as many members as the one before it, and children are new genomes.

    Parameters
    ----------
    space : Space
        Where it searches.
    generator : torch.Generator
        What it draws comes from here.
    population_size : int
        At least 2.
    elite_size : int
        How many live on, in ``[1, population_size - 1]``. Their scores are kept, so a generation
        costs ``population_size - elite_size`` trials.

    Attributes
    ----------
    population : list of Individual
        The members, the best first; empty until the first generation is told.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from rac_helpers.nas.search import search
    >>> from rac_helpers.rng import make_generator
    >>> space = Space(tuple((name, (0, 1, 2, 3)) for name in "abcd"))
    >>> strategy = GenerationalEvolution(space, generator=make_generator(0), population_size=10)
    >>> history = search(strategy, sum, num_trials=100)
    >>> history.best.genome, len(strategy.population)
    ((3, 3, 3, 3), 10)
    """

    def __init__(
        self,
        space: Space,
        *,
        generator: torch.Generator,
        population_size: int = 12,
        elite_size: int = 4,
    ) -> None:
        super().__init__(space, generator=generator)
        self.population_size = check_int("population_size", population_size, low=2)
        high = self.population_size - 1
        self.elite_size = check_int("elite_size", elite_size, low=1, high=high)
        self.population: list[Individual] = []
        self._children: list[Individual] = []

    def ask(self) -> Genome:
        """Return a random genome in the first generation, then a child of two of the elite."""
        if not self.population:
            self.parents = ()
            return self.space.sample(generator=self.generator)
        pair = torch.randint(self.elite_size, (2,), generator=self.generator).tolist()
        first, second = (self.population[place] for place in pair)
        self.parents = tuple(sorted({first.number, second.number}))
        child = self.space.crossover(first.genome, second.genome, generator=self.generator)
        return self.space.mutate(child, generator=self.generator)

    def tell(self, genome: Genome, score: float) -> None:
        """Collect the children; when there are enough, the generation changes."""
        self._children.append(Individual(self._told, *self._checked(genome, score)))
        self._told += 1
        elite = self.population[: self.elite_size]
        if len(elite) + len(self._children) == self.population_size:
            self.population = sorted(elite + self._children, key=_score, reverse=True)
            self._children = []


def _score(individual: Individual) -> float:
    return individual.score
