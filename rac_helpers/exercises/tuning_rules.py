"""Checks of chapter 09: who goes on, and until when: early stopping, successive halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, plain, run


def check_stop_epoch(stop_epoch: Callable[[list[float], int], int]) -> str:
    """Check ``stop_epoch(accuracies, patience)``: when does training stop?

    Parameters
    ----------
    stop_epoch : callable
        Takes the validation accuracy of each epoch, and a number >= 1; returns the number of the
        last epoch that is trained, where the first has the number 1: as soon as ``patience``
        epochs in a row are not better than the best before them. If that never happens, all.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_stop_epoch(lambda accuracies, patience: 1 + accuracies.index(max(accuracies)))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the best of all epochs: whoever stops early does not \
see the later ones
    """
    for accuracies, patience in _CURVES:
        call = f"stop_epoch({accuracies}, {patience})"
        answer = run(stop_epoch, list(accuracies), patience)
        right = _stops(accuracies, patience)
        match(call, answer, right, _stop_hints(accuracies, patience, right))
    return CORRECT


def check_halve(halve: Callable[[list[float], int], Sequence[int]]) -> str:
    """Check ``halve(scores, factor)``: which trials survive a rung of successive halving.

    Parameters
    ----------
    halve : callable
        Takes scores, of which higher is better, and a number >= 2; returns the places (from 0) of
        the best ``len(scores) // factor`` trials, in any order.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_halve(lambda scores, factor: sorted(scores, reverse=True)[: len(scores) // factor])
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: these are scores: return the places of the trials in the list
    """
    for scores, factor in [
        ([0.3, 0.9, 0.5, 0.1, 0.8, 0.7], 3),
        ([0.2, 0.4, 0.1, 0.9, 0.6, 0.5, 0.75, 0.3], 3),
        ([0.6, 0.2, 0.7, 0.65], 2),
    ]:
        call = f"halve({scores}, {factor})"
        places = _places(call, run(halve, list(scores), factor), scores)
        order = sorted(range(len(scores)), key=lambda place, s=scores: -s[place])
        keep = len(scores) // factor
        if set(places) != set(order[:keep]):
            raise Hint(_halve_hint(call, places, order, keep))
    return CORRECT


_CURVES = [  # one after the other they tell the mistakes apart
    ([0.5, 0.6, 0.7, 0.65, 0.66, 0.6, 0.9, 0.95, 0.9, 0.8, 0.85], 2),
    ([0.5, 0.6, 0.6, 0.6, 0.7, 0.65, 0.6, 0.75, 0.7], 2),
    ([0.5, 0.4, 0.6, 0.55, 0.7, 0.65, 0.66, 0.8, 0.9], 2),
    ([0.5, 0.8, 0.7, 0.75, 0.78, 0.79, 0.85], 3),
    ([0.4, 0.3, 0.5, 0.45, 0.6, 0.55], 2),
    ([0.5, 0.6, 0.6, 0.7, 0.8], 1),
]


def _stops(
    accuracies: Sequence[float],
    patience: int,
    *,
    ties_count: bool = False,
    to_last: bool = False,
    in_a_row: bool = True,
) -> int:
    """Return the number of the last epoch, by the rule or by a mistaken one."""
    best, waited = -math.inf, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        if accuracy > best or (ties_count and accuracy == best):
            best, waited = accuracy, 0 if in_a_row else waited
        else:
            waited += 1
        best = accuracy if to_last else best
        if waited >= patience:
            return epoch
    return len(accuracies)


def _stop_hints(accuracies: Sequence[float], patience: int, right: int) -> dict[float, str]:
    """Return what mistakes give; of two that give the same, the first counts."""
    mistakes = [
        (_stops(accuracies, patience, ties_count=True), "an equal accuracy is not better"),
        (
            1 + accuracies.index(max(accuracies)),
            "that is the best of all epochs: whoever stops early does not see the later ones",
        ),
        (
            1 + accuracies.index(max(accuracies[:right])),
            "that is the best epoch, not the last one that is trained",
        ),
        (
            _stops(accuracies, patience, to_last=True),
            "compare with the best epoch, not with the one before",
        ),
        (_stops(accuracies, patience, in_a_row=False), "a better epoch begins the count anew"),
        (right - 1, "epochs count from 1"),
        (right + 1, "one epoch too late: stop when patience epochs have brought nothing"),
        (len(accuracies), "it never stops"),
    ]
    return {epoch: hint for epoch, hint in reversed(mistakes) if epoch != right}


def _places(call: str, answer: Any, scores: Sequence[float]) -> list[int]:
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(
        isinstance(answer, list | tuple | set),
        f"{call} must be a list of places, got {type(answer).__name__}",
    )
    places = [plain(place) for place in answer]
    asked = "these are scores: return the places of the trials in the list"
    expect(not places or any(place not in scores for place in places), asked)
    whole = all(isinstance(place, int) and not isinstance(place, bool) for place in places)
    expect(whole, f"{call} must hold integers only, got {places}")
    expect(len(set(places)) == len(places), f"{call} holds a place twice: {places}")
    inside = all(0 <= place < len(scores) for place in places)
    expect(inside, f"places count from 0 to {len(scores) - 1}, got {places}")
    return places


def _halve_hint(call: str, places: list[int], order: list[int], keep: int) -> str:
    n, got = len(order), set(places)
    if len(got) == keep:
        if got == set(order[-keep:]):
            return "these are the worst: higher scores are better"
        if got == set(range(keep)):
            return "these are the first ones, whatever their scores"
        return f"{call} is {sorted(got)}, but a better one was left out"
    if got == set(order[: n - keep]) or got == set(order[keep:]):
        return "that throws away the share that should stay"
    if got == set(order[: keep + 1]):
        return "one too many: round down"
    return f"{call} must be {keep} places (round down), got {len(got)}"
