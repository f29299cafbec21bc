"""What a check says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

CORRECT = "Correct."


class Hint(AssertionError):  # noqa: N818 - it is a hint, not a failure of the program
    """The answer is not right yet; the message says what to look at."""


def expect(condition: bool, hint: str) -> None:
    """Raise :class:`Hint` unless the condition holds.

    Parameters
    ----------
    condition : bool
        Whether the answer passes.
    hint : str
        What to look at if it does not.

    Raises
    ------
    Hint
        If the condition is false.

    Examples
    --------
    >>> expect(1 + 1 == 3, "count again")
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: count again
    """
    if not condition:
        raise Hint(hint)


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the reader's function; an error in it becomes a hint that names the call.

    Parameters
    ----------
    function : callable
        The answer. ``NotImplementedError`` passes through: the exercise is still open.
    *args, **kwargs
        What it is called with.

    Returns
    -------
    object
        What it returns.

    Raises
    ------
    Hint
        If ``function`` is no function, or raises.

    Examples
    --------
    >>> run(abs, -3)
    3
    >>> run(7)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the answer must be a function, got int
    """
    expect(callable(function), f"the answer must be a function, got {type(function).__name__}")
    try:
        return function(*args, **kwargs)
    except NotImplementedError:
        raise
    except Exception as error:
        shown = ", ".join([*map(_short, args), *(f"{k}={_short(v)}" for k, v in kwargs.items())])
        name = getattr(function, "__name__", "your function")
        raise Hint(f"{name}({shown}) raised {type(error).__name__}: {error}") from error


def number(call: str, answer: Any) -> float:
    """Return the reader's number as a float.

    Parameters
    ----------
    call : str
        What was called, for the hint.
    answer : object
        A number of Python or NumPy, or a tensor or array of shape ``()``.

    Returns
    -------
    float
        The same number, finite.

    Raises
    ------
    Hint
        If ``answer`` is no finite number.

    Examples
    --------
    >>> import torch
    >>> number("half()", torch.tensor(0.5))
    0.5
    >>> number("half()", None)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: half() must be a number, got NoneType
    """
    value = plain(answer)
    expect(
        isinstance(value, Real) and not isinstance(value, bool),
        f"{call} must be a number, got {type(answer).__name__}",
    )
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    expect(math.isfinite(value), f"{call} must be a finite number, got {value}")
    return value


def match(call: str, answer: Any, right: float, hints: Mapping[float, str]) -> None:
    """Compare the reader's number with the right one, then with those of known mistakes.

    Parameters
    ----------
    call : str
        What was called, for the hint.
    answer : object
        As in :func:`number`.
    right : float
        The right number.
    hints : mapping of float to str
        Numbers that typical mistakes give, and what to say of each; the first that fits counts.

    Raises
    ------
    Hint
        If ``answer`` is not the right number.

    Examples
    --------
    >>> match("half(6)", 3.0, 3.0, {12.0: "that is the double"})
    >>> match("half(6)", 12.0, 3.0, {12.0: "that is the double"})
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the double
    """
    value = number(call, answer)
    if _close(value, right):
        return
    for wrong, hint in hints.items():
        if _close(value, wrong):
            raise Hint(hint)
    raise Hint(f"{call} gives {value:.6g}, which is too {'large' if value > right else 'small'}")


def _close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)


def plain(answer: Any) -> Any:
    """Return what a tensor or array of shape ``()`` holds, and anything else as it is.

    Parameters
    ----------
    answer : object
        The reader's answer.

    Returns
    -------
    object
        A number of Python for a tensor or an array of shape ``()``.

    Examples
    --------
    >>> import torch
    >>> plain(torch.tensor(3)), plain([3])
    (3, [3])
    """
    return answer.item() if getattr(answer, "shape", None) == () else answer


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"<{type(value).__name__}>"
