"""A genetic algorithm for real numbers: tournaments, blend crossover, mutation in the unit cube.

An individual is a point of the unit cube, so that a step of 0.1 means as much for a learning rate
as for a batch size. A round breeds as many children as the population has members; the best of
parents and children live on. No parent is trained twice.
"""

from __future__ import annotations

import torch

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.tune.space import Space, Value, check_space


def tournament(scores: torch.Tensor, size: int, *, generator: torch.Generator) -> int:
    """Return the index of the best of ``size`` members that are drawn at random.

    The larger the tournament, the harder the selection: 1 is none at all.

    Parameters
    ----------
    scores : torch.Tensor
        Floats ``(n,)``; higher is better.
    size : int
        In ``[1, n]``. Nobody is drawn twice.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    int
        In ``[0, n)``.

    Raises
    ------
    TypeError, ValueError
        If ``size`` is out of range, or ``generator`` is none.

    References
    ----------
    Goldberg, Deb: A Comparative Analysis of Selection Schemes Used in Genetic Algorithms, FOGA
    1991, section on tournament selection.

    Examples
    --------
    >>> tournament(torch.tensor([0.1, 0.9, 0.5]), 3, generator=torch.Generator().manual_seed(0))
    1
    """
    check_int("size", size, low=1, high=len(scores))
    drawn = torch.randperm(len(scores), generator=check_generator(generator))[:size]
    return int(drawn[scores[drawn].argmax()])


def blend(
    one: torch.Tensor, other: torch.Tensor, alpha: float = 0.5, *, generator: torch.Generator
) -> torch.Tensor:
    """Return a child between two parents, or a little beyond them (BLX-alpha).

    Each coordinate is drawn evenly from the interval between those of the parents, made longer by
    ``alpha`` times its length on both sides, and cut to ``[0, 1]``.

    Parameters
    ----------
    one, other : torch.Tensor
        Points, floats ``(d,)`` in ``[0, 1]``.
    alpha : float
        At least 0. At 0 children stay between their parents, and a population only shrinks.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    torch.Tensor
        A point of the same shape.

    Raises
    ------
    TypeError, ValueError
        If ``alpha`` is negative, or ``generator`` is none.

    References
    ----------
    Eshelman, Schaffer: Real-Coded Genetic Algorithms and Interval-Schemata, FOGA 1993.

    Examples
    --------
    >>> one, other = torch.tensor([0.2, 0.5]), torch.tensor([0.4, 0.5])
    >>> child = blend(one, other, generator=torch.Generator().manual_seed(0))
    >>> bool(0.1 <= child[0] <= 0.5), child[1].item()
    (True, 0.5)
    """
    check_number("alpha", alpha, low=0)
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    reach = alpha * (high - low)
    share = torch.rand(len(one), generator=check_generator(generator), dtype=one.dtype)
    return (low - reach + share * (high - low + 2 * reach)).clamp(0, 1)


def mutate(
    point: torch.Tensor, probability: float, std: float, *, generator: torch.Generator
) -> torch.Tensor:
    """Return the point with some coordinates moved by normal noise, cut to ``[0, 1]``.

    Parameters
    ----------
    point : torch.Tensor
        Floats ``(d,)`` in ``[0, 1]``; not changed.
    probability : float
        Of a coordinate to move, in ``[0, 1]``.
    std : float
        Standard deviation of the noise, at least 0.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    torch.Tensor
        A point of the same shape.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or ``generator`` is none.

    Examples
    --------
    >>> mutate(torch.tensor([0.5]), 0.0, 0.1, generator=torch.Generator().manual_seed(0))
    tensor([0.5000])
    """
    check_number("probability", probability, low=0, high=1)
    check_number("std", std, low=0)
    check_generator(generator)
    moves = torch.rand(len(point), generator=generator, dtype=point.dtype) < probability
    noise = std * torch.randn(len(point), generator=generator, dtype=point.dtype)
    return (point + moves * noise).clamp(0, 1)


class Genetic:
    """A search that breeds configurations: the strategy for :func:`rac_helpers.tune.search`.

    Parameters
    ----------
    space : Space
        Where to look.
    generator : torch.Generator
        Source of the draws.
    population : int
        Members, at least 2. So many are drawn at random first, and so many live on after each
        round. Give it as ``at_once`` to the search.
    tournament_size : int
        In ``[1, population]``.
    mutation_probability, mutation_std : float
        As in :func:`mutate`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> from rac_helpers.tune import Real, best_trial, search
    >>> strategy = Genetic(Space({"x": Real(0, 1)}), generator=make_generator(0), population=6)
    >>> trials = search(
    ...     lambda c: {"score": -abs(c["x"] - 0.5)}, strategy, num_trials=24, seed=0, at_once=6
    ... )
    >>> abs(best_trial(trials).config["x"] - 0.5) < 0.02
    True
    """

    def __init__(
        self,
        space: Space,
        *,
        generator: torch.Generator,
        population: int = 6,
        tournament_size: int = 2,
        mutation_probability: float = 0.3,
        mutation_std: float = 0.15,
    ) -> None:
        self.space, self._generator = check_space(space), check_generator(generator)
        self.population = check_int("population", population, low=2)
        self._size = check_int("tournament_size", tournament_size, low=1, high=population)
        self._probability = check_number(
            "mutation_probability", mutation_probability, low=0, high=1
        )
        self._std = check_number("mutation_std", mutation_std, low=0)
        self._points: list[torch.Tensor] = []  # of the members, and their scores
        self._scores: list[float] = []
        self._asked: list[tuple[dict[str, Value], torch.Tensor]] = []
        self._told: list[tuple[float, torch.Tensor]] = []

    def ask(self) -> dict[str, Value]:
        """Return the configuration to try next."""
        point = self._breed() if self._points else self._draw()
        config = self.space.config(point)
        self._asked.append((config, point))
        return dict(config)

    def tell(self, config: dict[str, Value], score: float) -> None:
        """Learn how good one was; a round is over when all its members have been told."""
        check_number("score", score)
        place = next((k for k, (asked, _) in enumerate(self._asked) if asked == config), None)
        if place is None:
            raise ValueError(f"config must be one that was asked for, got {config}")
        self._told.append((score, self._asked.pop(place)[1]))
        if len(self._told) == self.population:
            self._select()

    def _draw(self) -> torch.Tensor:
        return self.space.draw_point(generator=self._generator)

    def _breed(self) -> torch.Tensor:
        """Choose two parents, one after the other: with itself, nobody has anything new."""
        scores = torch.tensor(self._scores, dtype=torch.float64)
        one = tournament(scores, self._size, generator=self._generator)
        scores[one] = -torch.inf
        other = tournament(scores, max(2, self._size), generator=self._generator)
        child = blend(self._points[one], self._points[other], generator=self._generator)
        return mutate(child, self._probability, self._std, generator=self._generator)

    def _select(self) -> None:
        """Keep the best of parents and children; of equals the newer, so that things move."""
        everyone = [*self._told, *zip(self._scores, self._points, strict=True)]
        everyone.sort(key=lambda pair: pair[0], reverse=True)  # stable: children stand first
        best = everyone[: self.population]
        self._scores, self._points, self._told = [s for s, _ in best], [p for _, p in best], []
