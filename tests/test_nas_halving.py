"""Successive halving: what is kept, how long it is trained, what it costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rac_helpers.nas.halving import Halving, Rung, rung_epochs, successive_halving

CANDIDATES = [(n,) for n in range(16)]


def learning(genome, epochs):
    """Larger genomes are better, and none of them overtakes another."""
    return genome[0] * (1 - 0.5**epochs)


def crossing(genome, epochs):
    """The best in the end is the worst in the beginning."""
    return genome[0] / 16 if epochs >= 8 else -genome[0] / 16


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(2, 4),
)
def test_each_rung_keeps_the_best_and_trains_longer(count, min_epochs, more, factor):
    asked = []

    def score(genome, epochs):
        asked.append((genome, epochs))
        return float(-((7 * genome[0]) % 41))

    run = successive_halving(
        [(n,) for n in range(count)],
        score,
        min_epochs=min_epochs,
        max_epochs=min_epochs + more,
        factor=factor,
    )
    epochs = [rung.epochs for rung in run.rungs]
    assert epochs == list(rung_epochs(min_epochs, min_epochs + more, factor))
    assert epochs[-1] == min_epochs + more
    for rung, after in zip(run.rungs, run.rungs[1:], strict=False):
        assert len(after) == max(1, len(rung) // factor)
        assert after.epochs > rung.epochs
        left = set(rung.genomes) - set(after.genomes)
        by_genome = dict(zip(rung.genomes, rung.scores, strict=True))
        worst = min(by_genome[genome] for genome in after.genomes)
        assert all(by_genome[genome] <= worst for genome in left)
    assert run.epochs(restart=True) == sum(epochs for _, epochs in asked)
    assert run.epochs() <= run.epochs(restart=True)


def test_where_curves_do_not_cross_it_finds_the_best_for_less():
    run = successive_halving(CANDIDATES, learning, max_epochs=16)
    assert run.best[0] == (15,)
    assert [len(rung) for rung in run.rungs] == [16, 8, 4, 2, 1]
    assert run.epochs() == 16 + 8 + 4 * 2 + 2 * 4 + 8
    assert run.epochs() < len(CANDIDATES) * 16 / 5


def test_where_curves_cross_it_misses_the_best():
    run = successive_halving(CANDIDATES, crossing, max_epochs=16)
    assert run.best[0] in {(0,), (1,)}


def test_one_rung_is_plain_training():
    run = successive_halving(CANDIDATES, learning, min_epochs=8, max_epochs=8)
    assert [len(rung) for rung in run.rungs] == [16]
    assert run.epochs() == run.epochs(restart=True) == 128


def test_equal_scores_keep_the_order():
    run = successive_halving(CANDIDATES[:5], lambda genome, epochs: 0.5, max_epochs=2)
    assert run.rungs[1].genomes == ((0,), (1,))


def test_an_executor_and_a_journal_change_nothing(tmp_path):
    here = successive_halving(CANDIDATES, learning, max_epochs=6)
    journal = tmp_path / "halving.jsonl"
    with ThreadPoolExecutor(2) as executor:
        there = successive_halving(
            CANDIDATES, learning, max_epochs=6, executor=executor, journal=journal
        )
    assert here == there

    def never(genome, epochs):
        raise AssertionError

    assert successive_halving(CANDIDATES, never, max_epochs=6, journal=journal) == here


def test_epochs_that_never_grow_are_refused():
    """They would never reach the longest training."""
    with pytest.raises(ValueError, match="factor must be an integer >= 2, got 1"):
        next(rung_epochs(1, 5, 1))


def test_ranked_is_best_first():
    rung = Rung(1, ((0,), (1,), (2,)), (0.1, 0.9, 0.5))
    assert [genome for genome, _ in rung.ranked] == [(1,), (2,), (0,)]
    assert Halving((rung,)).best == ((1,), 0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genomes": []}, "genomes must differ and hold at least 1, got 0"),
        ({"genomes": [(1,), (1,)]}, "genomes must differ and hold at least 1, got 2"),
        ({"factor": 1}, "factor must be an integer >= 2, got 1"),
        ({"min_epochs": 0}, "min_epochs must be an integer >= 1, got 0"),
        ({"min_epochs": 4}, "max_epochs must be an integer >= 4, got 3"),
        ({"score": lambda genome, epochs: float("nan")}, "must be a finite number, got nan"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    options = {"genomes": CANDIDATES, "score": learning, "max_epochs": 3} | change
    with pytest.raises(ValueError, match=message):
        successive_halving(options.pop("genomes"), options.pop("score"), **options)
