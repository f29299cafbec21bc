"""Successive halving: train many a little, keep the best part, train it longer.

A short training costs less and says less. Here the budget is counted in epochs, and a strategy
that spends few of them on bad networks has more for good ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rac_helpers._check import check_int
from rac_helpers.nas.search import scores_of
from rac_helpers.nas.space import Genome


@dataclass(frozen=True)
class Rung:
    """One round: all ``genomes`` were trained for ``epochs`` and got ``scores``."""

    epochs: int
    genomes: tuple[Genome, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.genomes)

    @property
    def ranked(self) -> list[tuple[Genome, float]]:
        """Genomes with their scores, the best first; of equal ones the earlier first."""
        pairs = zip(self.genomes, self.scores, strict=True)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)


@dataclass(frozen=True)
class Halving:
    """What successive halving did, rung after rung.

    Examples
    --------
    >>> run = Halving((Rung(1, ((0,), (1,), (2,)), (0.2, 0.5, 0.4)), Rung(3, ((1,),), (0.7,))))
    >>> run.best, run.epochs(), run.epochs(restart=True)
    (((1,), 0.7), 5, 6)
    """

    rungs: tuple[Rung, ...]

    @property
    def best(self) -> tuple[Genome, float]:
        """The genome with the highest score of the last rung, and this score."""
        return self.rungs[-1].ranked[0]

    def epochs(self, *, restart: bool = False) -> int:
        """Return the epochs spent: trainings go on from rung to rung, or begin anew in each."""
        before = [0, *(0 if restart else rung.epochs for rung in self.rungs[:-1])]
        pairs = zip(self.rungs, before, strict=True)
        return sum(len(rung) * (rung.epochs - done) for rung, done in pairs)


def successive_halving(
    genomes: Sequence[Genome],
    score: Callable[..., float],
    *,
    min_epochs: int = 1,
    max_epochs: int,
    factor: int = 2,
    executor: Executor | None = None,
    journal: str | os.PathLike | None = None,
    desc: str = "halving",
) -> Halving:
    """Train all genomes briefly, and the best of each rung for ``factor`` times as long.

    Parameters
    ----------
    genomes : sequence of Genome
        The candidates, at least one, none twice; for example drawn by a
        :class:`~rac_helpers.nas.random_search.RandomSearch`.
    score : callable
        ``score(genome, epochs=)`` returns a finite number, higher is better, after so many epochs.
    min_epochs, max_epochs : int
        Length of the first and of the longest training, ``1 <= min_epochs <= max_epochs``.
    factor : int
        At least 2: one in ``factor`` is kept, and trained ``factor`` times as long.
    executor, journal, desc
        As in :func:`~rac_helpers.nas.search`; a rung is scored at once.

    Returns
    -------
    Halving
        Its last rung was trained for ``max_epochs``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a score is no finite number.
    RuntimeError
        With an executor or a journal: if a training fails.

    References
    ----------
    Jamieson and Talwalkar, 2016. Non-stochastic best arm identification and hyperparameter
    optimization. Li et al., 2018. Hyperband. Section 3 (one bracket).

    Examples
    --------
    >>> def score(genome, epochs):
    ...     return genome[0] * epochs / 8
    >>> run = successive_halving([(n,) for n in range(8)], score, max_epochs=8)
    >>> [(rung.epochs, len(rung)) for rung in run.rungs], run.best, run.epochs()
    ([(1, 8), (2, 4), (4, 2), (8, 1)], ((7,), 7.0), 20)
    """
    kept = tuple(genomes)
    if not kept or len(set(kept)) < len(kept):
        raise ValueError(f"genomes must differ and hold at least 1, got {len(kept)}")
    rungs: list[Rung] = []
    number = 0
    for epochs in rung_epochs(min_epochs, max_epochs, factor):
        configs = [
            {"number": number + i, "genome": g, "epochs": epochs} for i, g in enumerate(kept)
        ]
        scores = scores_of(score, configs, executor=executor, journal=journal, desc=desc)
        rungs.append(Rung(epochs, kept, tuple(scores)))
        number += len(kept)
        kept = tuple(genome for genome, _ in rungs[-1].ranked[: max(1, len(kept) // factor)])
    return Halving(tuple(rungs))


def rung_epochs(min_epochs: int, max_epochs: int, factor: int) -> Iterator[int]:
    """Yield the epochs of each rung: ``factor`` times as many each, the last one the longest.

    Examples
    --------
    >>> list(rung_epochs(1, 9, 3)), list(rung_epochs(2, 5, 2))
    ([1, 3, 9], [2, 4, 5])
    """
    check_int("min_epochs", min_epochs, low=1)
    check_int("max_epochs", max_epochs, low=min_epochs)
    check_int("factor", factor, low=2)
    epochs = min_epochs
    while epochs < max_epochs:
        yield epochs
        epochs *= factor
    yield max_epochs
