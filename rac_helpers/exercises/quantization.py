"""Checks of chapter 05: scale and zero point, and the codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rac_helpers import quantize
from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, number, run
from rac_helpers.exercises.tensors import first_match, integers, pair
from rac_helpers.rng import make_generator

_RANGES = [(-1.0, 2.2, 8), (-0.33, 1.17, 4), (-1.0, 1.0, 4), (0.5, 3.0, 8), (-6.0, -2.0, 4)]
_ROUND = "cut off instead of rounded: take the nearest integer"


def check_affine_params(affine_params: Callable[[float, float, int], tuple[float, int]]) -> str:
    """Check ``affine_params(low, high, bits)``: scale and zero point of a range.

    Parameters
    ----------
    affine_params : callable
        Takes a range, ``low <= high``, and a number of bits; returns a pair: the scale and the
        code of 0.0, an integer. Codes go from ``-2**(bits-1)`` to ``2**(bits-1) - 1``; the range is
        first widened to hold 0. If it holds nothing else, any scale above 0 will do.

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
    >>> check_affine_params(lambda low, high, bits: ((high - low) / 2**bits, 0))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: between 2**bits codes there are 2**bits - 1 steps
    """
    for low, high, bits in _RANGES:
        call = f"affine_params({low}, {high}, {bits})"
        scale, zero_point = pair(call, run(affine_params, low, high, bits), "(scale, zero_point)")
        swapped = number(call, zero_point) > 0 > number(call, scale)
        expect(not swapped, f"{call}: scale comes first, and is > 0")
        right = quantize.affine_params(low, high, bits).scale.item()
        match(f"the scale of {call}", scale, right, _scale_hints(low, high, bits))
        _match_zero_point(call, zero_point, low, high, bits)
    call = "affine_params(0.0, 0.0, 8)"
    scale, zero_point = pair(call, run(affine_params, 0.0, 0.0, 8), "(scale, zero_point)")
    positive = number(f"the scale of {call}", scale) > 0
    expect(positive, f"the scale of {call} must be > 0: it is divided by")
    code = number(f"the zero point of {call}", zero_point)
    expect(code in range(-128, 128), f"the zero point of {call} must be one of the codes")
    return CORRECT


def check_quantize(to_codes: Callable[[Tensor, float, int, int], Tensor]) -> str:
    """Check ``to_codes(values, scale, zero_point, bits)``: the codes of a tensor.

    Parameters
    ----------
    to_codes : callable
        Takes floats of any shape, the scale, the code of 0.0 and the bits; returns integers of the
        same shape in ``[-2**(bits-1), 2**(bits-1) - 1]``. Halves go to the even integer.

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
    >>> def to_codes(values, scale, zero_point, bits):
    ...     return (values / scale).round().int() + zero_point
    >>> check_quantize(to_codes)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: clamp is missing: 4 bits have no code -318
    """
    for scale, zero_point, bits in [(0.125, 2, 4), (0.1, -3, 8), (0.25, 100, 8)]:
        values = scale * _steps(zero_point, bits)
        call = f"to_codes(values, {scale}, {zero_point}, {bits})"
        given = values.clone()
        answer = run(to_codes, given, scale, zero_point, bits)
        expect(torch.equal(given, values), "values was changed: make a new tensor")
        codes = integers(call, answer, values.shape)
        _compare_codes(codes, values, scale, zero_point, bits)
    return CORRECT


def _scale_hints(low: float, high: float, bits: int) -> dict[float, str]:
    steps, lowest, highest = 2**bits - 1, min(low, 0.0), max(high, 0.0)
    length, largest, xor = highest - lowest, 2 ** (bits - 1) - 1, "in Python, power is **, not ^"
    article = "article A4's codes -b+2 ... b are too few: b bits have 2**b codes"
    half = "that counts half of the codes: there are as many below 0 as from 0 on"
    longer = "the range is high - low long"
    return {
        length / 2**bits: "between 2**bits codes there are 2**bits - 1 steps",
        length / (2 * bits - 2): article,
        length / (2 * bits - 1): article,
        steps / length: "upside down: that is steps per 1.0, the scale is the value of one step",
        length: "that is the whole range: divide by the number of steps",
        max(-lowest, highest) / largest: "that is the scale of a symmetric range: 0 in the middle",
        length / largest: half,
        length / 2 ** (bits - 1): half,
        (high - low) / steps: "the range must hold 0: widen it first",
        highest / steps: longer,
        (low + high) / steps: longer,
        length / (2 ^ bits - 1): xor,
        length / ((2 ^ bits) - 1): xor,
    }


def _match_zero_point(call: str, answer: Any, low: float, high: float, bits: int) -> None:
    call = f"the zero point of {call}"
    code, params = number(call, answer), quantize.affine_params(low, high, bits)
    whole = code == round(code)
    expect(whole, f"{call} is {code:.6g}, not an integer: 0.0 would have no code of its own")
    place = min(low, 0.0) / params.scale.item()  # in steps
    tie = math.isclose(abs(place % 1 - 0.5), 0, abs_tol=1e-5)
    if tie and abs(code - (params.qmin - place)) < 0.6:
        return  # the article's range [-1, 1] with 4 bits: -0.5, either will do
    steps, cut = round(place), {params.qmin - math.trunc(place), params.qmin - math.floor(place)}
    above = "wrong sign: 0.0 is above low, so its code is above that of low"
    hints = {
        -steps: "low must get the smallest code, -2**(bits-1), not 0",
        params.qmin + steps: above,
        steps: above,
        params.qmax - steps: "smallest and largest code are swapped: low gets the smallest",
        params.qmax + steps: "smallest and largest code are swapped: low gets the smallest",
        0: "a zero point of 0 fits a symmetric range only",
        2 - bits - steps: "article A4's smallest code is -b+2; with b bits it is -2**(b-1)",
        params.qmin - round(low / params.scale.item()): "widen the range for the zero point, too",
        params.qmin - round(low): "low is a value: count it in steps of the scale",
        params.qmin: "that is the smallest code, which belongs to low: 0.0 is steps away from it",
    }
    hints |= dict.fromkeys(cut | {math.trunc(params.qmin - place)}, _ROUND)
    match(call, code, params.zero_point.item(), hints)


def _steps(zero_point: int, bits: int) -> Tensor:
    """Return values in steps of the scale, shape (3, 20): in range, at halves, out of range."""
    qmin, qmax = quantize.code_range(bits)
    codes = torch.linspace(qmin, qmax, 20).round() - zero_point
    inside = codes + torch.rand(20, generator=make_generator(0)) * 0.8 - 0.4
    inside = inside.clamp(qmin - zero_point, qmax - zero_point)
    halves = (inside.floor() + 0.5).clamp(qmin - zero_point, qmax - zero_point)
    if zero_point % 2:  # round before or after adding an odd zero point: both are in use
        halves = inside.flip(0)
    outside = torch.linspace(qmax - zero_point + 1.2, qmax - zero_point + 200.3, 10)
    return torch.stack([inside, halves, torch.cat([outside, -320.2 + torch.arange(10.0)])])


def _compare_codes(codes: Tensor, values: Tensor, scale: float, zero_point: int, bits: int) -> None:
    """Raise a hint at the first mistake; the rows of values are those of :func:`_steps`."""
    qmin, qmax = quantize.code_range(bits)
    steps = (values.double() / scale).float()  # ties are ties again
    free = steps.round() + zero_point
    right = free.clamp(qmin, qmax).long()
    if torch.equal(codes, right):
        return
    one = int(codes.min())
    expect(one < codes.max(), f"all codes are {one}: are qmin and qmax swapped in clamp?")
    first_match(codes, {f"clamp is missing: {bits} bits have no code {int(free.min())}": free})
    first_match(codes, _clamped_wrongly(steps, zero_point, bits))
    first_match(codes, _placed_wrongly(values, scale, zero_point, bits))
    inside, halves, outside = codes == right
    wrong = (~inside).nonzero().flatten()
    if len(wrong):
        k = int(wrong[0])
        got, size = int(codes[0, k]), "large" if codes[0, k] > right[0, k] else "small"
        raise Hint(f"{values[0, k]:.4g} with scale {scale} gets the code {got}: too {size}")
    expect(
        bool(halves.all()), "halves go to the even integer, as in torch.round: 0.5 to 0, 1.5 to 2"
    )
    k = int(outside.logical_not().nonzero()[0])
    raise Hint(
        f"{values[2, k]:.4g} with scale {scale} gets the code {int(codes[2, k])}: clamp it before "
        "it becomes an int8, or it wraps around"
    )


def _clamped_wrongly(steps: Tensor, zero_point: int, bits: int) -> dict[str, Tensor]:
    qmin, qmax = quantize.code_range(bits)
    codes = steps.round() + zero_point
    return {
        "article A4's codes -b+2 ... b are too few: b bits have 2**b codes": codes.clamp(
            2 - bits, bits
        ),
        "the codes go from -2**(bits-1) to 2**(bits-1) - 1, here they start at 0": codes.clamp(
            0, 2**bits - 1
        ),
        "the smallest code, -2**(bits-1), is never used": codes.clamp(qmin + 1, qmax),
        "2**(bits-1) is no code: the largest is one less": codes.clamp(qmin, qmax + 1),
        "the codes depend on bits: that is clamped to 8 bits": codes.clamp(-128, 127),
        "clamp last: the zero point still moves the codes": steps.round().clamp(qmin, qmax)
        + zero_point,
    }


def _placed_wrongly(values: Tensor, scale: float, zero_point: int, bits: int) -> dict[str, Tensor]:
    """Return what comes out where the codes are wrong, clamped or not."""
    steps = (values.double() / scale).float()
    mistakes = {
        "the zero point is missing: 0.0 must get the code zero_point": steps.round(),
        "add the zero point, do not subtract it": steps.round() - zero_point,
        "divide by the scale, do not multiply": (values * scale).round() + zero_point,
        "the zero point is a code: add it after the division": (
            (values + zero_point) / scale
        ).round(),
        "the scale is missing: count the value in steps": values.round() + zero_point,
        f"{_ROUND} (int and trunc go towards 0)": steps.trunc() + zero_point,
        f"{_ROUND} (here after adding the zero point)": (steps + zero_point).trunc(),
        f"{_ROUND} (floor and // go down)": steps.floor() + zero_point,
        f"{_ROUND} (ceil goes up)": steps.ceil() + zero_point,
    }
    qmin, qmax = quantize.code_range(bits)
    return {hint: wrong.clamp(qmin, qmax) for hint, wrong in mistakes.items()}
