"""Checks of chapter 05: codes back to values, with and without a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rac_helpers import quantize
from rac_helpers.exercises.hint import CORRECT, Hint, expect, run
from rac_helpers.exercises.tensors import first_match, floats
from rac_helpers.rng import make_generator


def check_dequantize(to_values: Callable[[Tensor, Any, Any], Tensor]) -> str:
    """Check ``to_values(codes, scale, zero_point)``: from codes back to values.

    Parameters
    ----------
    to_values : callable
        Takes codes, int8, of any shape, their scale and zero point; returns floats of the same
        shape. Scale and zero point are numbers, or tensors of a shape that broadcasts to the codes:
        ``(n, 1)``, one for each row.

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
    >>> check_dequantize(lambda codes, scale, zero_point: codes * scale)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the zero point is missing: its code must become 0.0
    """
    every = torch.arange(-128, 128).reshape(16, 16).to(torch.int8)
    rows = 0.02 * torch.arange(1, 17).reshape(16, 1)
    zeros = torch.arange(-8, 8, dtype=torch.int32).reshape(16, 1)
    for scale, zero_point in [(0.05, -100), (0.3, 7), (rows, zeros)]:
        kind = "one scale for each row" if isinstance(scale, Tensor) else f"{scale}, {zero_point}"
        call, codes = f"to_values(codes, {kind})", every.clone()
        answer = run(to_values, codes, scale, zero_point)
        expect(torch.equal(codes, every), "codes was changed: make a new tensor")
        values = floats(call, answer, every.shape)
        _compare_values(call, values, every, scale, zero_point)
    return CORRECT


def check_fake_quantize(fake_quantize: Callable[[Tensor, float, int, int], Tensor]) -> str:
    """Check ``fake_quantize(values, scale, zero_point, bits)``: to codes, back, with a gradient.

    Parameters
    ----------
    fake_quantize : callable
        Takes floats that need a gradient, the scale, the code of 0.0 and the bits (signed codes);
        returns what is left of the values after the way to codes and back. The gradient passes
        unchanged where the code is in range, and is 0 where it is clamped.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    References
    ----------
    Bengio, Leonard and Courville, 2013, section 4 (the straight-through estimator).

    Examples
    --------
    >>> def fake_quantize(values, scale, zero_point, bits):
    ...     largest = 2 ** (bits - 1) - 1
    ...     codes = ((values / scale).round() + zero_point).clamp(-largest - 1, largest)
    ...     return (codes - zero_point) * scale
    >>> check_fake_quantize(fake_quantize)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the gradient is 0 everywhere: rounding is flat, so let the \
gradient pass as if it had not happened
    """
    for scale, zero_point, bits in [(0.125, 2, 4), (0.5, -5, 5)]:
        qmin, qmax = quantize.code_range(bits)
        steps = torch.arange(qmin - 8, qmax + 9) - zero_point  # 8 codes too many on both sides
        offsets = torch.rand(2, len(steps), generator=make_generator(0)) * 0.8 - 0.4
        values = scale * (steps + offsets)
        given = values.clone().requires_grad_()
        with torch.enable_grad():
            answer = run(fake_quantize, given, scale, zero_point, bits)
        expect(torch.equal(given.detach(), values), "values was changed: make a new tensor")
        call = f"fake_quantize(values, {scale}, {zero_point}, {bits})"
        rounded = floats(call, answer, values.shape)
        _compare_rounded(call, rounded, values, scale, zero_point, bits=bits)
        codes = (steps + zero_point).expand_as(values)
        _compare_gradient(answer, given, codes, (qmin, qmax), scale=scale)
    return CORRECT


def _compare_values(call: str, values: Tensor, codes: Tensor, scale: Any, zero_point: Any) -> None:
    codes, step = codes.double(), torch.as_tensor(scale).double()
    right, atol = (codes - zero_point) * step, 1e-4 * float(step.min())
    if torch.allclose(values, right, rtol=1e-5, atol=atol):
        return
    first_match(values, _value_mistakes(codes, step, zero_point), tolerance=atol)
    if _one_factor(values, right):
        share = float(values[0, 0] / right[0, 0])
        raise Hint(f"wrong scale: every value of {call} is {share:.4g} times what it should be")
    rows = all(_one_factor(row, wanted) for row, wanted in zip(values, right, strict=True))
    expect(not rows, "wrong scale: each row has a scale of its own")
    worst = int((values - right).abs().argmax())
    size = "large" if values.flatten()[worst] > right.flatten()[worst] else "small"
    got = f"the code {int(codes.flatten()[worst])} becomes {values.flatten()[worst]:.4g}"
    raise Hint(f"{call}: {got}, which is too {size}")


def _value_mistakes(codes: Tensor, step: Tensor, zero_point: Any) -> dict[str, Tensor]:
    wrapped = (codes - zero_point + 128) % 256 - 128
    turned = (codes - torch.as_tensor(zero_point).reshape(1, -1)) * step.reshape(1, -1)
    return {
        "the zero point is missing: its code must become 0.0": codes * step,
        "an int8 minus an int8 wraps around: 127 - (-100) is no int8; make floats first": wrapped
        * step,
        "subtract the zero point, do not add it": (codes + zero_point) * step,
        "wrong sign: the code minus the zero point": (zero_point - codes) * step,
        "the zero point is a code: subtract it before you multiply": codes * step - zero_point,
        "multiply by the scale, do not divide": (codes - zero_point) / step,
        "the scale is missing: that still counts steps": codes - zero_point,
        "scale and zero point belong to the rows, not to the columns": turned,
    }


def _one_factor(values: Tensor, right: Tensor) -> bool:
    shares = (values / right)[right != 0]
    return float(shares.max() - shares.min()) < 1e-4


def _compare_rounded(
    call: str, rounded: Tensor, values: Tensor, scale: float, zero_point: int, *, bits: int
) -> None:
    qmin, qmax = quantize.code_range(bits)
    free = (values.double() / scale).round() + zero_point
    codes = free.clamp(qmin, qmax)
    right = (codes - zero_point) * scale
    if torch.allclose(rounded, right, rtol=1e-5, atol=1e-4 * scale):
        return
    unmoved = (free - zero_point).clamp(qmin, qmax) * scale
    mistakes = {
        "these are the values as they came: they must be rounded": values,
        "these are codes: go back to values": codes,
        "clamp is missing: there are only 2**bits codes": (free - zero_point) * scale,
        "the zero point is missing on the way back": codes * scale,
        "the zero point is missing: it moves the range of the codes": unmoved,
        "these are only clamped: they must be rounded, too": values.double().clamp(
            right.min(), right.max()
        ),
    }
    first_match(rounded, mistakes, tolerance=1e-4 * scale)
    _compare_values(call, rounded, codes, scale, zero_point)


def _compare_gradient(
    answer: Tensor, values: Tensor, codes: Tensor, ends: tuple[int, int], *, scale: float
) -> None:
    """Compare, but not at the outermost codes: there values or codes may be clamped."""
    arriving = torch.rand(values.shape, generator=make_generator(1)) + 0.5  # not 1 everywhere
    none = "no gradient reaches values: detach only what rounding adds, not the whole result"
    expect(answer.requires_grad, none)

    def backward() -> Tensor | None:
        return torch.autograd.grad(answer, values, arriving, allow_unused=True)[0]

    gradient = run(backward)
    if gradient is None:
        raise Hint(none)
    clear = (codes != ends[0]) & (codes != ends[1])
    inside = ((codes > ends[0]) & (codes < ends[1]))[clear]
    gradient, arriving = gradient[clear], arriving[clear]
    right = arriving * inside
    if torch.allclose(gradient, right, rtol=1e-5, atol=1e-6):
        return
    first_match(gradient, _gradient_mistakes(arriving, inside, scale), tolerance=1e-6)
    k = int((gradient - right).abs().argmax())
    where, size = "in range" if inside[k] else "clamped", f"{float(gradient[k]):.4g}"
    raise Hint(f"where the code is {where}, the gradient is {size} instead of {right[k]:.4g}")


def _gradient_mistakes(arriving: Tensor, inside: Tensor, scale: float) -> dict[str, Tensor]:
    flat = "rounding is flat, so let the gradient pass as if it had not happened"
    cancels = "the scale must cancel: the value is divided by it, and the code multiplied"
    return {
        f"the gradient is 0 everywhere: {flat}": 0 * arriving,
        "the gradient passes where the code is clamped: there it must be 0": arriving,
        "it is the other way round: 0 where the code is clamped": arriving * ~inside,
        f"{cancels} (here the gradient is times the scale)": arriving * inside * scale,
        f"{cancels} (here the gradient is divided by it)": arriving * inside / scale,
        "multiply by the gradient that arrives from behind": inside.float(),
        "multiply by the gradient that arrives, and 0 where the code is clamped": torch.ones_like(
            arriving
        ),
        "the gradient comes twice: detach what rounding adds": arriving + arriving * inside,
    }
