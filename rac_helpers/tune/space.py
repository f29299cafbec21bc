"""Search spaces: which hyper-parameters there are, and how a point of a unit cube names values.

A strategy should not care whether it looks for a learning rate or a batch size. So each parameter
maps the interval [0, 1] to its values: evenly, by its logarithm, or by parts of equal length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rac_helpers._check import check_generator, check_int, check_number

Value = float | int | str | bool


@dataclass(frozen=True)
class Real:
    """A real number in ``[low, high]``, spread evenly, or by its logarithm.

    What acts by its ratio (a learning rate: from 0.01 to 0.1 is as far as from 0.1 to 1) is best
    spread by its logarithm.

    Parameters
    ----------
    low, high : float
        ``low < high``; with ``log`` above 0.
    log : bool
        Whether equal ratios are equally likely.

    Examples
    --------
    >>> lr = Real(0.001, 10, log=True)
    >>> [round(lr.value(u), 6) for u in (0, 0.25, 0.5, 1)], Real(0, 1).value(0.25)
    ([0.001, 0.01, 0.1, 10.0], 0.25)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        _check_order(self.low, self.high, 0 if self.log else None)

    def value(self, unit: float) -> float:
        """Return the value at ``unit`` in ``[0, 1]``."""
        if self.log:
            exponent = math.log(self.low) + unit * (math.log(self.high) - math.log(self.low))
            return min(max(math.exp(exponent), self.low), self.high)
        return min(max(self.low + unit * (self.high - self.low), self.low), self.high)


@dataclass(frozen=True)
class Integer:
    """An integer in ``[low, high]``, both included, all equally likely.

    Parameters
    ----------
    low, high : int
        ``low < high``.

    Examples
    --------
    >>> [Integer(1, 3).value(u) for u in (0, 0.32, 0.34, 0.67, 1)]
    [1, 1, 2, 3, 3]
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, check_int(name, getattr(self, name)))
        _check_order(self.low, self.high, None)

    def value(self, unit: float) -> int:
        """Return the value at ``unit`` in ``[0, 1]``."""
        return self.low + _part(unit, self.high - self.low + 1)


@dataclass(frozen=True)
class Choice:
    """One of some values without an order between them, all equally likely.

    Parameters
    ----------
    options : tuple
        At least two texts, numbers or bools that differ.

    Examples
    --------
    >>> [Choice((16, 32, 64)).value(u) for u in (0, 0.5, 1)]
    [16, 32, 64]
    """

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.options, tuple):
            raise TypeError(f"options must be a tuple, got {type(self.options).__name__}")
        for option in self.options:
            if not isinstance(option, Value):
                raise TypeError(f"options must be texts, numbers or bools, got {option!r}")
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise ValueError(f"options must be two or more that differ, got {self.options}")

    def value(self, unit: float) -> Value:
        """Return the value at ``unit`` in ``[0, 1]``."""
        return self.options[_part(unit, len(self.options))]


Parameter = Real | Integer | Choice


class Space:
    """Named parameters: a point of the unit cube is a configuration.

    Parameters
    ----------
    parameters : mapping of str to Real, Integer or Choice
        At least one.

    Raises
    ------
    TypeError, ValueError
        If there is none, or something else among them.

    Examples
    --------
    >>> space = Space({"momentum": Real(0, 1), "batch_size": Choice((32, 64))})
    >>> space.config(torch.tensor([0.5, 0.9]))
    {'momentum': 0.5, 'batch_size': 64}
    >>> sorted(space.draw(generator=torch.Generator().manual_seed(0)))
    ['batch_size', 'momentum']
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        if not isinstance(parameters, Mapping):
            raise TypeError(f"parameters must be a mapping, got {type(parameters).__name__}")
        if not parameters:
            raise ValueError("parameters must hold at least one, got none")
        for name, parameter in parameters.items():
            if not isinstance(name, str):
                raise TypeError(f"parameters must have texts as names, got {name!r}")
            if not isinstance(parameter, Parameter):
                got = type(parameter).__name__
                raise TypeError(f"parameters[{name!r}] must be Real, Integer or Choice, got {got}")
        self.parameters = dict(parameters)

    def __len__(self) -> int:
        """How many parameters."""
        return len(self.parameters)

    def config(self, point: torch.Tensor) -> dict[str, Value]:
        """Return the values at a point.

        Parameters
        ----------
        point : torch.Tensor
            Floats in ``[0, 1]``, one a parameter, in their order.

        Returns
        -------
        dict of str to value
            One value a parameter.

        Raises
        ------
        ValueError
            If the shape does not fit, or a coordinate is outside.
        """
        if tuple(point.shape) != (len(self),):
            raise ValueError(f"point must have the shape ({len(self)},), got {tuple(point.shape)}")
        if not ((point >= 0) & (point <= 1)).all():
            raise ValueError(f"point must be in [0, 1], got {point.tolist()}")
        pairs = zip(self.parameters.items(), point.tolist(), strict=True)
        return {name: parameter.value(unit) for (name, parameter), unit in pairs}

    def draw_point(self, *, generator: torch.Generator) -> torch.Tensor:
        """Return a point, float64 ``(number of parameters,)``, evenly drawn from the cube."""
        return torch.rand(len(self), generator=check_generator(generator), dtype=torch.float64)

    def draw(self, *, generator: torch.Generator) -> dict[str, Value]:
        """Return a configuration drawn at random."""
        return self.config(self.draw_point(generator=generator))


def _part(unit: float, parts: int) -> int:
    """Which of so many equal parts of [0, 1]; the end belongs to the last."""
    return min(int(unit * parts), parts - 1)


def _check_order(low: float, high: float, above: float | None) -> None:
    if above is not None and low <= above:
        raise ValueError(f"low must be a finite number > {above} on a log scale, got {low}")
    if low >= high:
        raise ValueError(f"low must be below high, got {low} and {high}")


def check_space(space: Space) -> Space:
    """Return ``space`` if it is one, else raise.

    Examples
    --------
    >>> check_space({"lr": Real(0, 1)})
    Traceback (most recent call last):
    TypeError: space must be a Space, got dict
    """
    if not isinstance(space, Space):
        raise TypeError(f"space must be a Space, got {type(space).__name__}")
    return space
