"""Bayesian search: Optuna's tree-structured Parzen estimator behind ``ask`` and ``tell``.

It splits what was tried into good and bad, estimates how dense each is in every parameter, and
tries where good ones are dense and bad ones are not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rac_helpers._check import check_int, check_number
from rac_helpers.tune.space import Choice, Integer, Real, Space, Value, check_space

if TYPE_CHECKING:
    import optuna


class Tpe:
    """A search that models what was good: the strategy for :func:`rac_helpers.tune.search`.

    Parameters
    ----------
    space : Space
        Where to look.
    seed : int
        Of Optuna's draws, in ``[0, 2**32)``.
    num_random : int
        So many are drawn at random before the model is used, at least 1.
    study_file : path, optional
        A file that several searches share, on one machine or on a common drive: each learns from
        the trials of all (Optuna's journal storage). Give each another seed, or all would try the
        same. Such a search depends on who was faster; one to be repeated or resumed exactly has
        ``None`` here, and a journal of its trials.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Bergstra, Bardenet, Bengio, Kegl: Algorithms for Hyper-Parameter Optimization, NeurIPS 2011,
    section 4. Akiba and others: Optuna, KDD 2019.

    Examples
    --------
    >>> from rac_helpers.tune import best_trial, search
    >>> strategy = Tpe(Space({"x": Real(0, 1)}), seed=0, num_random=5)
    >>> trials = search(lambda c: {"score": -abs(c["x"] - 0.5)}, strategy, num_trials=20, seed=0)
    >>> abs(best_trial(trials).config["x"] - 0.5) < 0.1
    True
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        num_random: int = 6,
        study_file: str | os.PathLike | None = None,
    ) -> None:
        check_int("seed", seed, low=0, high=2**32 - 1)
        check_int("num_random", num_random, low=1)
        self.space = check_space(space)
        self.study = _open_study(study_file, seed, num_random)
        self._distributions = {n: _distribution(p) for n, p in space.parameters.items()}
        self._asked: list[tuple[dict[str, Value], int]] = []

    def ask(self) -> dict[str, Value]:
        """Return the configuration to try next; those still running count as bad ones."""
        trial = self.study.ask(self._distributions)
        self._asked.append((trial.params, trial.number))
        return dict(trial.params)

    def tell(self, config: dict[str, Value], score: float) -> None:
        """Learn how good one was."""
        check_number("score", score)
        place = next((k for k, (asked, _) in enumerate(self._asked) if asked == config), None)
        if place is None:
            raise ValueError(f"config must be one that was asked for, got {config}")
        self.study.tell(self._asked.pop(place)[1], score)


def _open_study(path: str | os.PathLike | None, seed: int, num_random: int) -> optuna.Study:
    import optuna  # slow to import, and only needed here
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with _quiet(optuna.logging):
        return optuna.create_study(
            storage=None if path is None else JournalStorage(JournalFileBackend(os.fspath(path))),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            # asked before others are told: running ones count as bad, so that each tries its own
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=num_random, seed=seed, constant_liar=True
            ),
        )


@contextlib.contextmanager
def _quiet(logging) -> Iterator[None]:
    """Nothing about new studies on stderr, for a while."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _distribution(parameter: Real | Integer | Choice) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if isinstance(parameter, Real):
        low, high = parameter.low, parameter.high
        return distributions.FloatDistribution(low, high, log=parameter.log)
    if isinstance(parameter, Integer):
        return distributions.IntDistribution(parameter.low, parameter.high)
    return distributions.CategoricalDistribution(parameter.options)
