"""nas/objective.py: limits, trade-offs, and the area under them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rac_helpers.nas import Limits, hypervolume, limited, pareto_front

SMALL = st.integers(0, 6)
POINTS = st.lists(st.tuples(SMALL, SMALL), max_size=12)


def dominates(one, other):
    no_worse = one[0] <= other[0] and one[1] >= other[1]
    return no_worse and one != other


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    front = pareto_front(points)
    brute = [
        i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)
    ]
    assert sorted(front) == brute
    costs = [points[i][0] for i in front]
    assert costs == sorted(costs)


def test_front_of_equal_points_and_of_none():
    assert pareto_front([(1, 1), (1, 1), (2, 1)]) == [0, 1]
    assert pareto_front([]) == []


@given(POINTS)
def test_hypervolume_counts_squares(points):
    squares = sum(
        any(c <= x and s >= y + 1 for c, s in points) for x in range(5) for y in range(1, 5)
    )
    inside = [(c, min(s, 5)) for c, s in points]
    assert hypervolume(inside, cost=5, score=1) == pytest.approx(squares)


@given(POINTS, st.tuples(SMALL, SMALL))
def test_hypervolume_never_falls_with_a_point_more(points, more):
    area = hypervolume(points, cost=7, score=-1)
    assert hypervolume([*points, more], cost=7, score=-1) >= area
    front = [points[i] for i in pareto_front(points)]
    assert hypervolume(front, cost=7, score=-1) == pytest.approx(area)


@pytest.mark.parametrize(
    "points", [[(1, float("nan"))], [(1, 2, 3)], [1, 2], [(1, 2), (3,)], [("a", 1)], [(1, None)]]
)
def test_wrong_points(points):
    with pytest.raises(ValueError, match="points must be pairs"):
        pareto_front(points)


def test_violation_adds_up():
    limits = Limits(size_bytes=100, macs=1000, latency_ms=2)
    assert limits.violation({"size_bytes": 100, "macs": 1000, "latency_ms": 2}) == 0
    costs = {"size_bytes": 150, "macs": 1200, "latency_ms": 1}
    assert limits.violation(costs) == pytest.approx(0.7)
    assert Limits().violation({}) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 100)), min_size=2, max_size=10))
def test_what_breaks_a_limit_is_below_all_that_keep_it(networks):
    score = limited(
        lambda g: networks[g[0]][0], lambda g: {"macs": networks[g[0]][1]}, Limits(macs=50)
    )
    values = [score((i,)) for i in range(len(networks))]
    for value, (accuracy, macs) in zip(values, networks, strict=True):
        assert (value == accuracy) if macs <= 50 else (value < 0)
    over = sorted((macs, value) for value, (_, macs) in zip(values, networks, strict=True))
    outside = [value for macs, value in over if macs > 50]
    assert outside == sorted(outside, reverse=True)


def test_nothing_over_the_limits_is_trained():
    def never(genome):
        raise AssertionError("trained")

    assert limited(never, lambda g: {"macs": 3}, Limits(macs=1))((0,)) == -2


def test_wrong_limits_and_costs():
    with pytest.raises(ValueError, match="macs must be a finite number > 0, got 0"):
        Limits(macs=0)
    with pytest.raises(ValueError, match="costs must have 'latency_ms', since it has a limit"):
        Limits(latency_ms=1).violation({"macs": 1})
    with pytest.raises(ValueError, match="score must be at least worst"):
        limited(lambda g: -1, lambda g: {}, Limits())((0,))
