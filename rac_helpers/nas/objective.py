"""What a search looks for: accuracy under limits, or the best trade-offs of accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from rac_helpers._check import check_number
from rac_helpers.nas.space import Genome


@dataclass(frozen=True)
class Limits:
    """What a network may cost at most; ``None`` is no limit.

    Parameters
    ----------
    size_bytes : float, optional
        Of the file, header included.
    macs : float, optional
        Multiply-accumulates for one image.
    latency_ms : float, optional
        Of a forward pass, measured or estimated.

    Raises
    ------
    TypeError, ValueError
        If a limit is not above 0.

    Examples
    --------
    >>> limits = Limits(size_bytes=100_000, macs=20e6)
    >>> limits.violation({"size_bytes": 150_000, "macs": 10e6})  # half too much
    0.5
    """

    size_bytes: float | None = None
    macs: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.given().items():
            if check_number(name, limit, low=0) == 0:
                raise ValueError(f"{name} must be a finite number > 0, got 0")

    def given(self) -> dict[str, float]:
        """Return the limits that there are, by name."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in every.items() if limit is not None}

    def violation(self, costs: Mapping[str, float]) -> float:
        """Return by which share the limits are exceeded, added up; 0 if all are kept.

        Parameters
        ----------
        costs : mapping of str to float
            At least those that have a limit.

        Raises
        ------
        ValueError
            If a cost is missing.
        TypeError
            If it is no finite number.
        """
        total = 0.0
        for name, limit in self.given().items():
            if name not in costs:
                raise ValueError(f"costs must have {name!r}, since it has a limit; got {[*costs]}")
            total += max(0.0, check_number(name, costs[name]) / limit - 1)
        return total


def limited(
    score: Callable[[Genome], float],
    costs: Callable[[Genome], Mapping[str, float]],
    limits: Limits,
    *,
    worst: float = 0.0,
) -> Callable[[Genome], float]:
    """Return a score that ranks every genome over the limits below all that keep them.

    Costs are known before a training, so a genome over the limits is never trained: ``score`` is
    not called for it. It gets ``worst - violation``. So a search that begins outside still knows
    which way is in.

    Parameters
    ----------
    score : callable
        ``score(genome)``, higher is better, at least ``worst``.
    costs : callable
        ``costs(genome)`` returns what :class:`Limits` needs.
    limits : Limits
        What is allowed.
    worst : float
        The lowest score a network can have: 0 for an accuracy.

    Returns
    -------
    callable
        ``score(genome)`` for a search.

    Raises
    ------
    TypeError, ValueError
        When called: as :meth:`Limits.violation`, or if a score is below ``worst``.

    Examples
    --------
    >>> of_width = limited(lambda g: 0.9, lambda g: {"macs": 10 * g[0]}, Limits(macs=20))
    >>> [of_width((width,)) for width in (1, 2, 3, 4)]
    [0.9, 0.9, -0.5, -1.0]
    """

    def within(genome: Genome) -> float:
        violation = limits.violation(costs(genome))
        if violation > 0:
            return worst - violation
        value = score(genome)
        if value < worst:
            raise ValueError(f"score must be at least worst {worst}, got {value} for {genome}")
        return value

    return within


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other dominates, in the order of their costs.

    A point dominates another if its cost is not higher and its score not lower, and one of the two
    is better. Of equal points all are kept or none.

    Parameters
    ----------
    points : sequence of (cost, score)
        The cost should be low and the score high.

    Returns
    -------
    list of int
        Places in ``points``; by cost, then by place.

    Raises
    ------
    TypeError, ValueError
        If a point is no pair of finite numbers.

    Examples
    --------
    >>> pareto_front([(3, 0.9), (1, 0.5), (2, 0.4), (4, 0.9)])
    [1, 0]
    """
    checked = _checked(points)
    order = sorted(range(len(checked)), key=lambda i: (checked[i][0], -checked[i][1], i))
    front: list[int] = []
    for place in order:
        last = checked[front[-1]] if front else None
        if last is None or checked[place][1] > last[1] or checked[place] == last:
            front.append(place)
    return front


def hypervolume(points: Sequence[tuple[float, float]], *, cost: float, score: float) -> float:
    """Return the area that the points dominate, up to a reference point: one number for a front.

    Parameters
    ----------
    points : sequence of (cost, score)
        The cost should be low and the score high. Points beyond the reference add nothing.
    cost, score : float
        The reference point: the highest cost and the lowest score that count.

    Returns
    -------
    float
        In units of cost times score, at least 0; larger is better.

    Raises
    ------
    TypeError, ValueError
        If a number is not finite.

    References
    ----------
    Zitzler and Thiele, 1999. Multiobjective evolutionary algorithms: a comparative case study and
    the strength Pareto approach.

    Examples
    --------
    >>> hypervolume([(1, 0.5), (3, 0.75)], cost=4, score=0.0)  # 3 · 0.5 + 1 · 0.25
    1.75
    """
    check_number("cost", cost)
    check_number("score", score)
    inside = [(c, s) for c, s in _checked(points) if c < cost and s > score]
    area, reached = 0.0, score
    for place in pareto_front(inside):
        c, s = inside[place]
        area += (cost - c) * (s - reached)
        reached = s
    return area


def _checked(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points as pairs of finite floats."""
    try:
        table = np.asarray(points, dtype=float)
    except (TypeError, ValueError):  # of different lengths, or no numbers
        table = np.array(np.nan)
    if len(points) and (table.ndim != 2 or table.shape[1] != 2 or not np.isfinite(table).all()):
        raise ValueError(f"points must be pairs (cost, score) of finite numbers, got {points!r}")
    return [(float(c), float(s)) for c, s in table] if len(points) else []
