"""Hyperband: train many for a short time, go on with the best.

Successive halving starts many trials with few epochs, keeps the best third, trains these three
times as long, and so on. How many and how few? Whoever begins with one epoch may throw away what
learns slowly. Hyperband does not choose: it runs several such brackets, from many trials with few
epochs to few trials with all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from rac_helpers._check import check_int
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.tune.search import OWN_NAMES, Trial, run_all, with_seed
from rac_helpers.tune.space import Space, check_space


class Rung(NamedTuple):
    """One step of a bracket: so many trials, each for so many epochs."""

    num_trials: int
    epochs: int


def rungs(num_trials: int, epochs: int, *, max_epochs: int, factor: int = 3) -> list[Rung]:
    """Return the steps of successive halving: ``factor`` times fewer trials, and longer ones.

    Parameters
    ----------
    num_trials, epochs : int
        Of the first step, at least 1.
    max_epochs : int
        No trial is trained for longer; at least ``epochs``.
    factor : int
        At least 2.

    Returns
    -------
    list of Rung
        The last one has fewer than ``factor`` trials left, or trains as long as it may.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization,
    AISTATS 2016, figure 3.

    Examples
    --------
    >>> rungs(9, 1, max_epochs=9)
    [Rung(num_trials=9, epochs=1), Rung(num_trials=3, epochs=3), Rung(num_trials=1, epochs=9)]
    """
    check_int("num_trials", num_trials, low=1)
    check_int("epochs", epochs, low=1)
    check_int("max_epochs", max_epochs, low=epochs)
    check_int("factor", factor, low=2)
    steps = [Rung(num_trials, epochs)]
    while steps[-1].num_trials // factor >= 1 and steps[-1].epochs * factor <= max_epochs:
        steps.append(Rung(steps[-1].num_trials // factor, steps[-1].epochs * factor))
    return steps


def brackets(max_epochs: int, *, factor: int = 3) -> list[list[Rung]]:
    """Return the brackets of Hyperband: from the most trials with one epoch to the fewest with all.

    Parameters
    ----------
    max_epochs : int
        Of one trial, at least 1. A power of ``factor`` is used up; else the trainings are up to
        ``factor`` times shorter.
    factor : int
        At least 2.

    Returns
    -------
    list of list of Rung
        All brackets cost about the same.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Li and others: Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR
    2018, algorithm 1 and table 1.

    Examples
    --------
    >>> [[tuple(rung) for rung in bracket] for bracket in brackets(9)]
    [[(9, 1), (3, 3), (1, 9)], [(5, 3), (1, 9)], [(3, 9)]]
    """
    check_int("max_epochs", max_epochs, low=1)
    check_int("factor", factor, low=2)
    halvings = 0
    while factor ** (halvings + 1) <= max_epochs:
        halvings += 1
    found = []
    for left in range(halvings, -1, -1):
        num_trials = math.ceil((halvings + 1) * factor**left / (left + 1))
        epochs = factor ** (halvings - left)
        found.append(rungs(num_trials, epochs, max_epochs=factor**halvings, factor=factor))
    return found


def cost_epochs(bracket: list[Rung]) -> int:
    """Return the epochs that a bracket trains, all trials together.

    Examples
    --------
    >>> [cost_epochs(bracket) for bracket in brackets(9)]
    [27, 24, 27]
    """
    return sum(rung.num_trials * rung.epochs for rung in bracket)


def best_of(scores: list[float], keep: int) -> list[int]:
    """Return the places of the ``keep`` highest scores, in order; of equals the first ones.

    Examples
    --------
    >>> best_of([0.2, 0.9, 0.5, 0.9], 2)
    [1, 3]
    """
    check_int("keep", keep, low=0, high=len(scores))
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return sorted(order[:keep])


def hyperband(
    run: Callable[[dict[str, Any]], dict[str, Any]],
    space: Space,
    *,
    max_epochs: int,
    budget_epochs: int,
    seed: int,
    factor: int = 3,
    **where: Any,
) -> list[Trial]:
    """Run brackets, one after the other and from the first again, as long as the budget lasts.

    Parameters
    ----------
    run : callable
        As for :func:`rac_helpers.tune.search`; ``config`` also holds ``"epochs"``. A trial that
        survives is trained anew for longer, with the same parameters and the same seed: the
        learning rate of a longer training falls more slowly from the start.
    space : Space
        Each bracket begins with trials that are drawn from it at random. No parameter may be
        named ``"epochs"``.
    max_epochs, factor
        As in :func:`brackets`.
    budget_epochs : int
        All trainings together take at most so many epochs; a bracket that does not fit is left
        out. At least what the first bracket costs.
    seed : int
        The trials and their seeds follow from it.
    **where
        ``journal``, ``executor``, ``desc`` of :func:`rac_helpers.sweep.sweep`.

    Returns
    -------
    list of Trial
        Every training, in order; a trial that survived comes several times, with more epochs.

    Raises
    ------
    TypeError, ValueError
        If an argument or a result is not as described.
    RuntimeError
        If a run fails.

    Examples
    --------
    >>> from rac_helpers.tune import Real
    >>> run = lambda c: {"score": c["x"] * c["epochs"]}
    >>> space = Space({"x": Real(0, 1)})
    >>> trials = hyperband(run, space, max_epochs=9, budget_epochs=30, seed=0)
    >>> [trial.config["epochs"] for trial in trials]
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 9]
    """
    if "epochs" in check_space(space).parameters:
        raise ValueError("parameters must not be named epochs, which Hyperband chooses")
    plan = brackets(max_epochs, factor=factor)
    check_int("budget_epochs", budget_epochs, low=cost_epochs(plan[0]))
    generator = make_generator(derive_seed(seed, "hyperband"))
    trials: list[Trial] = []
    spent, begun = 0, 0  # epochs, trials
    upcoming = itertools.cycle(plan)
    while (spent := spent + cost_epochs(bracket := next(upcoming))) <= budget_epochs:
        numbers = range(begun, begun + bracket[0].num_trials)
        configs = [with_seed(space.draw(generator=generator), n, seed) for n in numbers]
        trials += _run_bracket(run, configs, bracket, where)
        begun += len(configs)
    return trials


def _run_bracket(
    run: Callable, configs: list[dict[str, Any]], bracket: list[Rung], where: dict[str, Any]
) -> list[Trial]:
    """Successive halving: train all, keep the best, train these longer."""
    trials: list[Trial] = []
    for rung in bracket:
        if trials:
            scores = [trial.score for trial in trials[-len(configs) :]]
            configs = [configs[place] for place in best_of(scores, rung.num_trials)]
        longer = [config | {"epochs": rung.epochs} for config in configs]
        for config, result in zip(longer, run_all(run, longer, **where), strict=True):
            own = {name: value for name, value in config.items() if name not in OWN_NAMES}
            trials.append(Trial(config["trial"], own, result["score"], result))
    return trials
