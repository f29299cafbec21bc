"""The loop of every search: ask a strategy, run what it asks for, tell it the scores.

Trials run through :func:`rac_helpers.sweep.sweep`: here, in processes or on a cluster, with a
journal. A strategy is always told the scores in the order of the trials, however they came back;
so a search does not depend on the executor, and one that was killed goes on as if nothing had
happened: what the journal holds is told again, not run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rac_helpers._check import check_int, check_number
from rac_helpers._progress import progress_bar
from rac_helpers.rng import derive_seed
from rac_helpers.sweep import sweep
from rac_helpers.tune.space import Value

OWN_NAMES = ("trial", "seed")


@runtime_checkable
class Strategy(Protocol):
    """What chooses configurations."""

    def ask(self) -> dict[str, Value]:
        """Return the configuration to try next."""

    def tell(self, config: dict[str, Value], score: float) -> None:
        """Learn how good one was. Higher is better."""


class Trial(NamedTuple):
    """One try: its number (0, 1, ...), its configuration, its score, all that ``run`` returned."""

    number: int
    config: dict[str, Any]
    score: float
    result: dict[str, Any]


def search(
    run: Callable[[dict[str, Any]], dict[str, Any]],
    strategy: Strategy,
    *,
    num_trials: int,
    seed: int,
    at_once: int = 1,
    journal: str | os.PathLike | None = None,
    executor: Executor | None = None,
    desc: str = "search",
    progress: bool | None = None,
) -> list[Trial]:
    """Try ``num_trials`` configurations and return them in order.

    Parameters
    ----------
    run : callable
        ``run(config)`` returns a dict with ``"score"``, a finite number; higher is better. In
        ``config`` are the parameters, ``"trial"`` (0, 1, ...) and ``"seed"``, its own for each
        trial. A training that diverges should return its worst score, not raise.
    strategy : Strategy
        ``RandomSearch``, ``Genetic`` or ``Tpe``. A fresh one, also to resume.
    num_trials : int
        At least 1.
    seed : int
        The trials' seeds follow from it and their numbers.
    at_once : int
        How many are asked for before the first is told, at least 1. As many can run at the same
        time; the more, the less each knows. A genetic search has its population here.
    journal, executor, desc, progress
        As in :func:`rac_helpers.sweep.sweep`. Another seed or strategy needs another journal.

    Returns
    -------
    list of Trial
        In the order in which they were asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument or a result is not as described.
    RuntimeError
        If a run fails.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> from rac_helpers.tune import RandomSearch, Real, Space, best_trial
    >>> strategy = RandomSearch(Space({"x": Real(0, 1)}), generator=make_generator(0))
    >>> run = lambda config: {"score": -abs(config["x"] - 0.5)}
    >>> trials = search(run, strategy, num_trials=20, seed=0)
    >>> abs(best_trial(trials).config["x"] - 0.5) < 0.1
    True
    """
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy must have ask and tell, got {type(strategy).__name__}")
    check_int("num_trials", num_trials, low=1)
    check_int("at_once", at_once, low=1)
    where = {"journal": journal, "executor": executor, "desc": desc}
    trials: list[Trial] = []
    with progress_bar(total=num_trials, desc=desc, progress=progress) as bar:
        while (first := len(trials)) < num_trials:
            asked = [strategy.ask() for _ in range(min(at_once, num_trials - first))]
            configs = [with_seed(config, first + k, seed) for k, config in enumerate(asked)]
            found = run_all(run, configs, **where)
            for config, result in zip(asked, found, strict=True):
                trials.append(Trial(len(trials), config, result["score"], result))
                strategy.tell(config, result["score"])
            bar.update(len(asked))
    return trials


def with_seed(config: Mapping[str, Value], number: int, seed: int) -> dict[str, Value]:
    """Return what ``run`` gets: the parameters, the number of the trial, and its own seed.

    Examples
    --------
    >>> with_seed({"lr": 0.1}, 3, 0)["seed"] == derive_seed(0, "trial", 3)
    True
    """
    if taken := [name for name in OWN_NAMES if name in config]:
        raise ValueError(f"parameters must not be named {' or '.join(OWN_NAMES)}, got {taken[0]!r}")
    return {**config, "trial": number, "seed": derive_seed(seed, "trial", number)}


def run_all(
    run: Callable[[dict[str, Any]], dict[str, Any]], configs: list[dict], **where: Any
) -> list[dict[str, Any]]:
    """Sweep over ``configs`` and return the checked results in their order."""
    results: dict[int, dict[str, Any]] = {}
    for config, result in sweep(run, configs, progress=False, **where):
        if not isinstance(result, dict) or "score" not in result:
            raise TypeError(f"run must return a dict with 'score', got {result!r}")
        check_number("score", result["score"])
        results[config["trial"]] = result
    return [results[config["trial"]] for config in configs]


def best_trial(trials: list[Trial]) -> Trial:
    """Return the trial with the highest score; of equals the first.

    Examples
    --------
    >>> best_trial([Trial(0, {}, 0.5, {}), Trial(1, {}, 0.7, {}), Trial(2, {}, 0.7, {})]).number
    1
    """
    if not trials:
        raise ValueError("trials must hold at least one, got none")
    return max(trials, key=lambda trial: trial.score)


def best_so_far(scores: list[float]) -> list[float]:
    """Return for each trial the best score up to it: what a search had found by then.

    Examples
    --------
    >>> best_so_far([0.5, 0.3, 0.8, 0.7])
    [0.5, 0.5, 0.8, 0.8]
    """
    return [max(scores[: n + 1]) for n in range(len(scores))]
