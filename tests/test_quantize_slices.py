"""The dynamic program finds the best of all cuts."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.quantize.slices import best_slices


def cost(points, counts, begins):
    slices = [slice(a, b) for a, b in itertools.pairwise([*begins, len(points)])]
    means = [np.average(points[s], weights=counts[s]) for s in slices]
    return sum(
        (counts[s] * (points[s] - mean) ** 2).sum() for s, mean in zip(slices, means, strict=True)
    )


@settings(deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 3)), min_size=1, max_size=9),
    data=st.data(),
)
def test_no_other_cut_is_better(drawn, data):
    points, counts = np.array(sorted(drawn), dtype=float).T
    k = data.draw(st.integers(1, len(points)))
    found = best_slices(points, counts, k)
    assert len(found) == k
    assert found[0] == 0
    assert (np.diff(found) > 0).all()
    others = itertools.combinations(range(1, len(points)), k - 1)
    best = min(cost(points, counts, [0, *other]) for other in others)
    assert cost(points, counts, found) <= best + 1e-9
