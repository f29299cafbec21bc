"""What sliders and render functions must be; the messages name the argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from rac_helpers.explore.page import value_text


def check_text(name: str, text: str) -> None:
    """Raise unless ``text`` is a string with something in it."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{name} must not be an empty string, got {text!r}")


def check_values(name: str, values: Sequence) -> tuple:
    """Return ``values`` as a tuple of at least two different ones, else raise."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a sequence of values, got {values!r}")
    values = tuple(values)
    if len(values) < 2 or any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError(f"{name} must be at least two different values, got {values!r}")
    return values


def check_keys(stops: tuple) -> None:
    """Raise if two stops have the same text in the address of the page."""
    stop_of = {}
    for stop in stops:
        key = value_text(stop)
        if key in stop_of:
            raise ValueError(
                f"stops must differ in the address of the page, got {stop_of[key]!r} and {stop!r}, "
                f"both {key!r}"
            )
        stop_of[key] = stop


def check_render(render: Callable, keywords: list[str]) -> None:
    """Raise unless ``render`` can be called with these keywords."""
    if not callable(render):
        raise TypeError(f"render must be a function, got {type(render).__name__}")
    try:
        inspect.signature(render).bind(**dict.fromkeys(keywords))
    except TypeError as error:
        expected = ", ".join(keywords)
        raise TypeError(f"render must take the keywords {expected}; {error}") from None


def brief(values: tuple) -> str:
    """Return the values for a message: all of a few, or the first two and the last."""
    if len(values) <= 6:
        return repr(values)
    return f"({values[0]!r}, {values[1]!r}, ..., {values[-1]!r})"
