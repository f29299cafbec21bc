"""Ask, score, tell: the loop that all search strategies share.

A strategy says which genome to look at next (``ask``) and hears how good it was (``tell``). It
never trains anything; ``search`` calls the score between the two and writes down the trials.
"""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.nas.space import Genome, Space, check_space
from rac_helpers.sweep import sweep

Score = Callable[[Genome], float]


class Strategy(ABC):
    """What a strategy must be able to do.

    Parameters
    ----------
    space : Space
        Where it searches.
    generator : torch.Generator
        Everything it draws comes from here.

    Attributes
    ----------
    parents : tuple of int
        Numbers of the trials from which the genome that was asked for last was made; empty if
        from none. Trials are numbered in the order in which they are told, from 0.

    Raises
    ------
    TypeError
        If ``space`` or ``generator`` is something else.
    """

    parents: tuple[int, ...] = ()
    _told: int = 0  # how many trials, by those that have parents

    def __init__(self, space: Space, *, generator: torch.Generator) -> None:
        self.space = check_space(space)
        self.generator = check_generator(generator)

    @abstractmethod
    def ask(self) -> Genome:
        """Return the genome to look at next. Several may be asked for before the first is told."""

    @abstractmethod
    def tell(self, genome: Genome, score: float) -> None:
        """Hear the score of a genome that was asked for; higher is better."""

    def _checked(self, genome: Genome, score: float) -> tuple[Genome, float]:
        """Return both if the genome is one of the space and the score finite, else raise.

        A strategy learns from all that it is told: one NaN would spoil it for good.
        """
        return self.space.check(genome), check_number("score", score)


@dataclass(frozen=True)
class Trial:
    """One genome that was looked at.

    ``number`` counts from 0 in the order of asking; ``parents`` are the numbers of earlier trials
    of the same search from which the genome was made.
    """

    number: int
    genome: Genome
    score: float
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class History:
    """The trials of a search, in the order in which they were asked for.

    Parameters
    ----------
    trials : tuple of Trial
        At least one; that with the number n has place n.

    Examples
    --------
    >>> history = History((Trial(0, (1,), 0.6), Trial(1, (0,), 0.5), Trial(2, (2,), 0.9)))
    >>> history.best_so_far(), history.best.genome, len(history)
    ([0.6, 0.6, 0.9], (2,), 3)
    """

    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.trials:
            raise ValueError("trials must hold at least one, got none")

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def best(self) -> Trial:
        """The trial with the highest score; the earliest of equal ones."""
        return max(self.trials, key=lambda trial: trial.score)

    def incumbents(self) -> list[Trial]:
        """Return for each trial the best one up to it: what a search that ends there would give."""
        best, found = self.trials[0], []
        for trial in self.trials:
            best = trial if trial.score > best.score else best
            found.append(best)
        return found

    def best_so_far(self) -> list[float]:
        """Return the highest score up to each trial."""
        return [trial.score for trial in self.incumbents()]

    def family(self, number: int) -> list[Trial]:
        """Return a trial and all its ancestors, the oldest first.

        Raises
        ------
        ValueError
            If there is no trial with this number.

        Examples
        --------
        >>> tree = History((Trial(0, (0,), 0.1), Trial(1, (1,), 0.2), Trial(2, (2,), 0.3, (1,))))
        >>> [trial.number for trial in tree.family(2)]
        [1, 2]
        """
        waiting, found = {check_int("number", number, low=0, high=len(self) - 1)}, set()
        while waiting:
            one = waiting.pop()
            found.add(one)
            waiting |= set(self.trials[one].parents) - found
        return [self.trials[one] for one in sorted(found)]


def search(
    strategy: Strategy,
    score: Score,
    *,
    num_trials: int,
    executor: Executor | None = None,
    batch: int = 1,
    journal: str | os.PathLike | None = None,
    desc: str = "search",
) -> History:
    """Ask, score and tell until the budget is used up.

    Parameters
    ----------
    strategy : Strategy
        Which genome next. It may have been told trials before.
    score : callable
        ``score(genome)`` returns a finite number, higher is better. With processes it must be a
        function at the top of a module, or a ``functools.partial`` of one.
    num_trials : int
        Budget, at least 1.
    executor : concurrent.futures.Executor, optional
        Where to score. ``None`` scores here.
    batch : int
        How many genomes are asked for before the first of them is told: as many can be scored at
        the same time. At least 1.
    journal : path, optional
        File that keeps finished trials: the same search (same space, strategy, settings and seed)
        reads their scores from there and goes on. ``None`` keeps nothing.
    desc : str
        Name of the search in the journal: a journal with another name is refused. Put into it
        what changes the scores of genomes, such as the data: the journal knows numbers and
        genomes only.

    Returns
    -------
    History
        The same for every executor: trials are told in the order of asking, whichever ends first.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or a score is no finite number.
    RuntimeError
        With an executor or a journal: if a trial fails; the message names it.

    Examples
    --------
    >>> from rac_helpers.nas.random_search import RandomSearch
    >>> from rac_helpers.rng import make_generator
    >>> space = Space((("op", ("conv", "skip")), ("width", (8, 16, 32))))
    >>> history = search(RandomSearch(space, generator=make_generator(0)), sum, num_trials=6)
    >>> history.best.genome, history.best.score
    ((1, 2), 3.0)
    """
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy must be a Strategy, got {type(strategy).__name__}")
    check_int("num_trials", num_trials, low=1)
    check_int("batch", batch, low=1)
    trials, before = [], strategy._told
    while len(trials) < num_trials:
        numbers = range(len(trials), min(len(trials) + batch, num_trials))
        asked = [(strategy.ask(), _since(before, strategy.parents)) for _ in numbers]
        configs = [{"number": n, "genome": g} for n, (g, _) in zip(numbers, asked, strict=True)]
        scores = scores_of(score, configs, executor=executor, journal=journal, desc=desc)
        for number, (genome, parents), value in zip(numbers, asked, scores, strict=True):
            strategy.tell(genome, value)
            trials.append(Trial(number, genome, value, parents))
    return History(tuple(trials))


def _since(before: int, parents: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of parents in this search; those of an earlier one are left out."""
    return tuple(parent - before for parent in parents if parent >= before)


def scores_of(
    score: Callable[..., float],
    configs: Sequence[Mapping[str, Any]],
    *,
    executor: Executor | None = None,
    journal: str | os.PathLike | None = None,
    desc: str = "search",
) -> list[float]:
    """Score some genomes, here or on an executor, and return the scores in the same order.

    Parameters
    ----------
    score : callable
        Called with the genome of a configuration and what else it holds beside ``number``.
    configs : sequence of mapping
        ``number`` (each another one), ``genome``, and further arguments by name.
    executor, journal, desc
        As in :func:`search`.

    Raises
    ------
    TypeError, ValueError
        If a score is no finite number.
    RuntimeError
        With an executor or a journal: if a call fails.

    Examples
    --------
    >>> scores_of(sum, [{"number": 0, "genome": (1, 2)}, {"number": 1, "genome": (0, 4)}])
    [3.0, 4.0]
    """
    if executor is None and journal is None:
        return [_call(score, config) for config in configs]
    as_text = [{**config, "genome": " ".join(map(str, config["genome"]))} for config in configs]
    run = functools.partial(_call_text, score)
    finished = sweep(run, as_text, journal=journal, executor=executor, desc=desc, progress=False)
    found = {config["number"]: value for config, value in finished}
    return [found[config["number"]] for config in configs]


def _call(score: Callable[..., float], config: Mapping[str, Any]) -> float:
    more = {key: value for key, value in config.items() if key not in ("number", "genome")}
    genome = config["genome"]
    return check_number(f"score({genome})", score(genome, **more))


def _call_text(score: Callable[..., float], config: Mapping[str, Any]) -> float:
    """In a worker: genomes travel as text, since a configuration holds plain values only."""
    return _call(score, {**config, "genome": tuple(map(int, config["genome"].split()))})
