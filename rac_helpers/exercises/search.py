"""Checks of chapter 08: a new genome, a population that keeps its size, and the Pareto front."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch

from rac_helpers.exercises.hint import CORRECT, Hint, expect, plain, run
from rac_helpers.rng import make_generator

Member = tuple[tuple[int, ...], float]


def check_mutate(mutate: Callable[[list[int], Sequence[int], torch.Generator], tuple]) -> str:
    """Check ``mutate(genome, sizes, generator)``: a new genome with exactly one other gene.

    Parameters
    ----------
    mutate : callable
        Takes a list of integers, how many choices each gene has, and a ``torch.Generator``.
        Returns a tuple. The gene is drawn first, among those with more than one choice, then one
        of its *other* choices; all are equally likely.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> def mutate(genome, sizes, generator):
    ...     genome[0] = (genome[0] + 1) % sizes[0]
    ...     return tuple(genome)
    >>> check_mutate(mutate)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the parent was changed: it lives on in the population, so \
copy it first
    """
    cases = [([1, 0, 1, 2], (3, 1, 2, 4)), ([0], (3,)), ([1, 1], (2, 2)), ([0, 0, 3], (1, 1, 4))]
    for genome, sizes in cases:
        generator = make_generator(0)
        for _ in range(30):
            _child(mutate, genome, sizes, generator)
    genome, sizes = cases[0]
    first, again, other = (_children(mutate, genome, sizes, seed) for seed in (1, 1, 2))
    expect(first == again, "the same generator must give the same children: draw only from it")
    expect(first != other, "another generator gives the same children: draw from it, seed nothing")
    _check_chances(first + other + _children(mutate, genome, sizes, 3), genome, sizes)
    return CORRECT


def check_aging_step(aging_step: Callable[[list[Member], Member], list[Member]]) -> str:
    """Check ``aging_step(population, child)``: the child joins, and the oldest dies.

    Parameters
    ----------
    aging_step : callable
        Takes a list of pairs (genome, score), the oldest first, and a pair; returns a new list of
        the same length, the oldest first.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_aging_step(lambda population, child: [*population, child])
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the population has grown from 4 to 5 members: whenever one \
joins, one must go
    """
    scores = [0.5, 0.9, 0.3, 0.7]  # the oldest is neither the best nor the worst
    population = [((place, 0), score) for place, score in enumerate(scores)]
    for step, score in enumerate((0.1, 0.95, 0.6, 0.4, 0.8)):
        population = _step(aging_step, population, ((step, 1), score))
    _step(aging_step, population[:1], ((0, 2), 0.0))
    return CORRECT


def check_pareto_front(
    pareto_front: Callable[[list[tuple[float, float]]], Sequence[int]],
) -> str:
    """Check ``pareto_front(points)``: the positions of the points that no other dominates.

    Parameters
    ----------
    pareto_front : callable
        Takes a list of pairs (cost, score), lower costs and higher scores being better; returns
        the positions of the front, in any order. One point dominates another if it is at least
        as good in both and better in one.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_pareto_front(lambda points: range(len(points)))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is every point: leave out those that are dominated
    """
    cases = [
        [(3.0, 0.8), (1.0, 0.5), (2.0, 0.55), (4.0, 0.9), (2.5, 0.45), (5.0, 0.85)],
        [(1.0, 0.4), (2.0, 0.6), (2.0, 0.5), (3.0, 0.6), (3.0, 0.7), (4.0, 0.3)],  # ties in one
        [(2.0, 0.6), (1.0, 0.4), (2.0, 0.6), (3.0, 0.5), (4.0, 0.9)],  # two equal points
        [(1.0, 0.1)],
    ]
    for points in cases:
        given, call = list(points), f"pareto_front({points})"
        found = _positions(call, run(pareto_front, given), len(points))
        expect(given == points, "the list was changed: sort a copy")
        right = _not_beaten(points, _dominates)
        if found != right:
            _hint_at_front(found, points)
            kind, which = ("lacks", right - found) if right - found else ("has", found - right)
            raise Hint(f"{call} {kind} the point {points[min(which)]} at {min(which)}")
    return CORRECT


# -- mutate ---------------------------------------------------------------------------------------


def _children(mutate: Callable, genome: list[int], sizes: tuple, seed: int) -> list[tuple]:
    generator = make_generator(seed)
    return [_child(mutate, genome, sizes, generator) for _ in range(200)]


def _child(mutate: Callable, genome: list[int], sizes: tuple, generator: torch.Generator) -> tuple:
    """Call the reader's function; return a child that is legal and differs in one gene."""
    given = list(genome)
    call = f"mutate({genome}, {sizes}, generator)"
    child = run(mutate, given, sizes, generator)
    changed = "the parent was changed: it lives on in the population, so copy it first"
    expect(given == genome, changed)
    got = type(child).__name__
    expect(isinstance(child, tuple), f"{call} must be a tuple, which nobody can change, got {got}")
    child = tuple(plain(value) for value in child)
    whole = all(isinstance(v, Integral) and not isinstance(v, bool) for v in child)
    expect(whole and len(child) == len(sizes), f"{call} must hold {len(sizes)} integers")
    legal = all(0 <= value < size for value, size in zip(child, sizes, strict=True))
    expect(legal, f"{call} gives {child}: a gene with n choices has the numbers 0 to n - 1")
    count = sum(a != b for a, b in zip(genome, child, strict=True))
    expect(
        count > 0,
        f"{call} sometimes changes nothing: draw among the other choices, and only genes that "
        "have another one",
    )
    expect(count == 1, f"{call} changes {count} genes: exactly one must change")
    return child


def _check_chances(children: list[tuple], genome: list[int], sizes: tuple) -> None:
    counts = Counter(children)
    by_gene = {place: {} for place, size in enumerate(sizes) if size > 1}
    for child, count in counts.items():
        [place] = (i for i, old in enumerate(genome) if child[i] != old)
        by_gene[place][child[place]] = count
    for place, found in by_gene.items():
        expect(bool(found), f"gene {place} never changes: draw among all genes")
        others = sizes[place] - 1
        all_of_them = f"gene {place} changes to {sorted(found)} only: every other choice must come"
        expect(len(found) == others, all_of_them)
        even = max(found.values()) <= 1.5 * sum(found.values()) / others
        expect(even, f"the choices of gene {place} are not equally likely")
    totals = [sum(found.values()) for found in by_gene.values()]
    even = max(totals) <= 1.3 * len(children) / len(totals)
    expect(even, "genes with more choices come too often: draw the gene first, then its choice")


# -- aging ----------------------------------------------------------------------------------------


def _step(aging_step: Callable, population: list[Member], child: Member) -> list[Member]:
    given, size = list(population), len(population)
    answer = run(aging_step, given, child)
    expect(given == population, "the given list was changed: return a new one")
    got = type(answer).__name__
    expect(isinstance(answer, list | deque), f"the new population must be a list, got {got}")
    answer, right = list(answer), [*population[1:], child]
    pairs = "the members must be pairs (genome, score), as they are given"
    expect(all(map(_is_member, answer)), pairs)
    if answer == right:
        return right
    grown = f"the population has grown from {size} to {len(answer)} members: whenever one joins, "
    expect(len(answer) <= size, f"{grown}one must go")
    shrunk = f"the population has shrunk from {size} to {len(answer)} members: only the oldest dies"
    expect(len(answer) == size, shrunk)
    _hint_at_member(answer, population, child)
    expect(sorted(answer) != sorted(right), "keep the order of age, the child at the end")
    raise Hint(f"after {population} and the child {child} come {right}, not {answer}")


def _is_member(value: Any) -> bool:
    pair = isinstance(value, tuple) and len(value) == 2
    return pair and isinstance(value[0], tuple) and isinstance(value[1], float)


def _hint_at_member(answer: list[Member], population: list[Member], child: Member) -> None:
    expect(child in answer, f"the child {child} is missing: it joins, however good it is")
    gone = [member for member in population if member not in answer]
    if gone and gone != population[:1]:
        scores = [score for _, score in population]
        why = {min(scores): "worst", max(scores): "best"}.get(gone[0][1], "wrong one")
        raise Hint(f"the {why} has gone: here the oldest dies, however good it is")


# -- the front ------------------------------------------------------------------------------------


def _positions(call: str, answer: Any, count: int) -> set[int]:
    values = answer.tolist() if hasattr(answer, "tolist") else answer
    kind = f"{call} must be a list of positions"
    got = type(answer).__name__
    expect(isinstance(values, list | tuple | set | range), f"{kind}, got {got}")
    values = [plain(value) for value in values]
    whole = all(isinstance(v, Integral) and not isinstance(v, bool) for v in values)
    expect(whole, f"{kind}: integers, not the points themselves")
    expect(all(0 <= v < count for v in values), f"{kind} from 0 to {count - 1}, got {values}")
    expect(len(set(values)) == len(values), f"{kind}, each once, got {values}")
    return set(values)


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def _not_beaten(points: list[tuple], beats: Callable[[tuple, tuple], bool]) -> set[int]:
    """Positions of the points that no point at another position beats."""
    places = range(len(points))
    return {i for i in places if not any(beats(points[j], points[i]) for j in places if j != i)}


def _hint_at_front(found: set[int], points: list[tuple[float, float]]) -> None:
    front = _not_beaten(points, _dominates)
    costs, scores = zip(*points, strict=True)
    places = set(range(len(points)))
    for hint, wrong in {
        "those are the points that are dominated: the front is the others": places - front,
        "that is every point: leave out those that are dominated": places,
        "positions count from 0, these from 1": {place + 1 for place in front},
        "nothing is on the front: a point does not dominate itself": set(),
        "that is the highest score alone: a cheaper point with a lower score may be on the front": {
            scores.index(max(scores))
        },
        "that is the cheapest alone: a dearer point with a higher score may be on the front": {
            costs.index(min(costs))
        },
        "of two equal points both are on the front": {points.index(points[i]) for i in front},
        "that is the convex hull: a point inside it may still not be dominated": _hull(points),
    }.items():
        expect(found != wrong, hint)
    for hint, beats in _WRONG_ORDERS.items():
        expect(found != _not_beaten(points, beats), hint)


_WRONG_ORDERS = {
    "lower costs are better, not higher ones": lambda a, b: _dominates(
        (-a[0], a[1]), (-b[0], b[1])
    ),
    "higher scores are better, not lower ones": lambda a, b: _dominates(
        (a[0], -a[1]), (b[0], -b[1])
    ),
    "a point that is as good in one and better in the other dominates, too": lambda a, b: (
        a[0] < b[0] and a[1] > b[1]
    ),
    "two equal points do not dominate each other: both stay": lambda a, b: (
        a[0] <= b[0] and a[1] >= b[1]
    ),
}


def _hull(points: list[tuple[float, float]]) -> set[int]:
    """Positions that are best for some weights of cost and score."""
    costs, scores = (torch.tensor(x, dtype=torch.float64) for x in zip(*points, strict=True))
    weights = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)[:, None]
    return set((weights * scores - (1 - weights) * costs).argmax(1).tolist())
