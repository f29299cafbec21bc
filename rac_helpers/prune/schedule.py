"""When to cut how much: functions from the step of training to the sparsity wanted there.

A schedule is anything that can be called with the number of steps done (0, 1, 2, ...) and returns
a sparsity in ``[0, 1)`` that never falls. A step is one batch, that is one update of the weights.
To count in epochs, put a schedule into :class:`InEpochs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass

from rac_helpers._check import check_int
from rac_helpers.prune.builders import check_sparsity

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class StepSchedule:
    """Sparsity that jumps at some steps and stays in between.

    Parameters
    ----------
    milestones : iterable of (int, float)
        ``(step, sparsity)``: from this step on, this sparsity. At least one; steps >= 0 that
        rise, sparsities in ``[0, 1)`` that do not fall. Before the first, the sparsity is 0.

    Raises
    ------
    TypeError, ValueError
        If the milestones are not as described.

    Examples
    --------
    >>> schedule = StepSchedule([(0, 0.0), (5, 0.5), (10, 0.8)])
    >>> [schedule(step) for step in (0, 4, 5, 9, 10, 99)]
    [0.0, 0.0, 0.5, 0.5, 0.8, 0.8]
    """

    milestones: Iterable[tuple[int, float]]

    def __post_init__(self) -> None:
        checked = _check_milestones(self.milestones)
        object.__setattr__(self, "milestones", checked)

    def __call__(self, step: int) -> float:
        """Return the sparsity wanted after ``step`` steps."""
        check_int("step", step, low=0)
        reached = [sparsity for at, sparsity in self.milestones if at <= step]
        return reached[-1] if reached else 0.0


@dataclass(frozen=True)
class CubicSchedule:
    r"""Sparsity that rises fast at first, while there is plenty to cut, and slowly at the end.

    .. math:: s_t = s_f + (s_i - s_f) \left(1 - \frac{t - t_0}{n \, \Delta t}\right)^3

    Parameters
    ----------
    final : float
        :math:`s_f`, in ``[0, 1)``.
    start, end : int
        :math:`t_0` and :math:`t_0 + n \, \Delta t`, in steps; ``0 <= start < end``. A training
        that stops before ``end`` never gets to ``final``.
    every : int
        :math:`\Delta t`, in steps; ``end - start`` must be a multiple of it. In between the
        sparsity stays.
    initial : float
        :math:`s_i`, the sparsity at ``start``, in ``[0, final]``. Before ``start`` it is 0.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Zhu and Gupta, 2017. To prune, or not to prune: exploring the efficacy of pruning for model
    compression, equation 1.

    Examples
    --------
    >>> schedule = CubicSchedule(0.8, start=100, end=500, every=100)
    >>> [round(schedule(step), 4) for step in (0, 100, 199, 200, 300, 400, 500, 999)]
    [0.0, 0.0, 0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]
    """

    final: float
    _: KW_ONLY
    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        final = check_sparsity("final", self.final)
        start = check_int("start", self.start, low=0)
        check_int("end", self.end, low=start + 1)
        check_int("every", self.every, low=1)
        if (self.end - start) % self.every:
            raise ValueError(
                f"end - start must be a multiple of every={self.every}, got {self.end - start}"
            )
        if check_sparsity("initial", self.initial) > final:
            raise ValueError(f"initial must be in [0, final={final}], got {self.initial}")

    def __call__(self, step: int) -> float:
        """Return the sparsity wanted after ``step`` steps."""
        if check_int("step", step, low=0) < self.start:
            return 0.0
        n = (self.end - self.start) // self.every
        done = (min(step, self.end) - self.start) // self.every  # 0, 1, ..., n
        return self.final + (self.initial - self.final) * (1 - done / n) ** 3


@dataclass(frozen=True)
class InEpochs:
    """A schedule whose numbers are epochs: it is asked once an epoch is done, not at each batch.

    Parameters
    ----------
    schedule : callable
        For example ``StepSchedule([(0, 0.0), (5, 0.5), (10, 0.8)])`` with 0, 5 and 10 in epochs.
    steps_per_epoch : int
        At least 1; of ``train.fit`` it is ``math.ceil(len(train.labels) / batch_size)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> schedule = InEpochs(StepSchedule([(0, 0.0), (5, 0.5), (10, 0.8)]), steps_per_epoch=100)
    >>> [schedule(step) for step in (5, 10, 499, 500, 999, 1000)]
    [0.0, 0.0, 0.0, 0.5, 0.5, 0.8]
    """

    schedule: Schedule
    steps_per_epoch: int

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        check_int("steps_per_epoch", self.steps_per_epoch, low=1)

    def __call__(self, step: int) -> float:
        """Return the sparsity wanted after ``step`` steps."""
        return self.schedule(check_int("step", step, low=0) // self.steps_per_epoch)


def one_shot(sparsity: float, *, at: int = 0) -> StepSchedule:
    """Return the schedule that cuts everything at once.

    Parameters
    ----------
    sparsity : float
        In ``[0, 1)``.
    at : int
        The step of the cut, at least 0; 0 is before training.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> schedule = one_shot(0.8, at=100)
    >>> schedule(99), schedule(100)
    (0.0, 0.8)
    """
    return StepSchedule([(at, sparsity)])


def iterative(final: float, *, rounds: int, every: int, start: int = 0) -> StepSchedule:
    """Return the schedule that cuts the same share of what is left in each round.

    Parameters
    ----------
    final : float
        Sparsity after the last round, in ``[0, 1)``.
    rounds : int
        Number of cuts, at least 1.
    every : int
        Steps of training from one cut to the next, at least 1.
    start : int
        The step of the first cut, at least 0.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Han, Pool, Tran and Dally, 2015. Learning both weights and connections for efficient neural
    networks, section 3.4.

    Examples
    --------
    >>> schedule = iterative(0.875, rounds=3, every=200)  # half of what is left, three times
    >>> [schedule(step) for step in (0, 199, 200, 400)]
    [0.5, 0.5, 0.75, 0.875]
    """
    sparsities = round_sparsities(final, rounds)
    check_int("every", every, low=1)
    check_int("start", start, low=0)
    return StepSchedule([(start + every * done, s) for done, s in enumerate(sparsities)])


def round_sparsities(final: float, rounds: int) -> list[float]:
    """Return the sparsity after each of some rounds that cut the same share of what is left.

    Parameters
    ----------
    final : float
        Sparsity after the last round, in ``[0, 1)``.
    rounds : int
        At least 1.

    Returns
    -------
    list of float
        ``1 - (1 - final) ** (k / rounds)`` for k = 1 ... ``rounds``.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> [round(sparsity, 4) for sparsity in round_sparsities(0.488, 3)]  # 20 % of what is left
    [0.2, 0.36, 0.488]
    """
    kept = 1 - check_sparsity("final", final)
    check_int("rounds", rounds, low=1)
    return [1 - kept ** (k / rounds) for k in range(1, rounds)] + [float(final)]


def check_schedule(schedule: Schedule) -> Schedule:
    """Return ``schedule`` if it can be called, else raise.

    Examples
    --------
    >>> check_schedule(0.8)
    Traceback (most recent call last):
    TypeError: schedule must be callable (step -> sparsity), got 0.8
    """
    if not callable(schedule):
        raise TypeError(f"schedule must be callable (step -> sparsity), got {schedule!r}")
    return schedule


def _check_milestones(milestones: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    try:
        pairs = [(step, sparsity) for step, sparsity in milestones]
    except (TypeError, ValueError) as error:
        raise TypeError(f"milestones must be pairs (step, sparsity), got {milestones!r}") from error
    if not pairs:
        raise ValueError("milestones must hold at least one pair (step, sparsity), got none")
    checked: list[tuple[int, float]] = []
    for step, sparsity in pairs:
        now = check_int("step", step, low=0), check_sparsity("sparsity", sparsity)
        if checked and now[0] <= checked[-1][0]:
            raise ValueError(f"steps of milestones must rise, got {step} after {checked[-1][0]}")
        if checked and now[1] < checked[-1][1]:
            raise ValueError(
                "sparsities of milestones must not fall, for what is cut stays cut; "
                f"got {sparsity} after {checked[-1][1]}"
            )
        checked.append(now)
    return tuple(checked)
