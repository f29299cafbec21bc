"""Translate a strength between the scales of the paper, torchvision and KerasCV.

The same place on the scale is meant: half way up one is half way up the other. Between the paper
and torchvision equal places are equal pixels. KerasCV's operations have other ranges, so there
an equal place is only a starting point.
"""

from __future__ import annotations

from dataclasses import dataclass

from rac_helpers._check import check_number


@dataclass(frozen=True)
class Scale:
    """A scale of strength.

    Parameters
    ----------
    name : str
        Whose scale it is.
    full : float
        The value of full strength (a rotation by 30 degrees in the paper).
    integer : bool
        Whether only whole numbers exist on it.
    open_ended : bool
        Whether values above ``full`` exist: the paper's studies go beyond 10.
    """

    name: str
    full: float
    integer: bool = False
    open_ended: bool = False


PAPER = Scale("paper", full=10.0, open_ended=True)
TORCHVISION = Scale("torchvision (31 bins)", full=30.0, integer=True)
KERAS_CV = Scale("KerasCV", full=1.0)


def convert_magnitude(magnitude: float, *, source: Scale, target: Scale) -> float:
    """Translate a magnitude from one scale to another.

    Parameters
    ----------
    magnitude : float
        A value of the source scale.
    source, target : Scale
        :data:`PAPER`, :data:`TORCHVISION` or :data:`KERAS_CV`.

    Returns
    -------
    float
        The equivalent value of the target scale.

    Raises
    ------
    ValueError
        If the source scale has no such value, or the target scale has no equivalent.

    References
    ----------
    Cubuk et al., arXiv:1909.13719, section 3, note 2 (the paper's scale).

    Examples
    --------
    >>> convert_magnitude(4, source=PAPER, target=TORCHVISION)
    12.0
    >>> convert_magnitude(14, source=PAPER, target=TORCHVISION)
    Traceback (most recent call last):
    ValueError: magnitude 14 on the scale of paper has no equivalent on the scale of torchvision \
(31 bins): it would be 42, but that scale ends at 30
    """
    value = check_number("magnitude", magnitude, low=0)
    problem = _problem(value, source)
    if problem:
        raise ValueError(f"magnitude {value:g} is not on {_of(source)}, {problem}")
    result = round(value / source.full * target.full, 9)
    problem = _problem(result, target)
    if problem:
        raise ValueError(
            f"magnitude {value:g} on {_of(source)} has no equivalent on {_of(target)}: "
            f"it would be {result:g}, {problem}"
        )
    return result


def _of(scale: Scale) -> str:
    return f"the scale of {scale.name}"


def _problem(value: float, scale: Scale) -> str:
    """Say why ``value`` is none of the scale; empty if it is."""
    if value > scale.full and not scale.open_ended:
        return f"but that scale ends at {scale.full:g}"
    if scale.integer and value != int(value):
        return "but that scale has whole numbers only"
    return ""
