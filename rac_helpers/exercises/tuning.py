"""Checks of chapter 09: clipping, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, run
from rac_helpers.exercises.tensors import first_match, floats
from rac_helpers.rng import make_generator


def check_clip(clip: Callable[[list[Tensor], float], list[Tensor]]) -> str:
    """Check ``clip(gradients, max_norm)``: all gradients, together at most ``max_norm`` long.

    Parameters
    ----------
    clip : callable
        Takes a list of float tensors and a number above 0; returns new tensors of the same
        shapes. Their common norm, as of one long vector, is at most ``max_norm``; the direction
        stays, and what is short enough stays as it is, zeros too.

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
    >>> check_clip(lambda gradients, max_norm: [g.clamp(-max_norm, max_norm) for g in gradients])
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that cuts each entry, and the step points elsewhere: scale \
all by one factor
    """
    generator = make_generator(9)
    for size, max_norm in [(4.0, 1.5), (0.1, 2.0), (20.0, 0.5)]:
        gradients = [size * torch.randn(shape, generator=generator) for shape in ((2, 3), (4,))]
        given = [gradient.clone() for gradient in gradients]
        call = f"clip(<two tensors>, {max_norm})"
        answer = run(clip, given, max_norm)
        expect(all(map(torch.equal, given, gradients)), "the gradients were changed: make new ones")
        _compare_clipped(call, answer, gradients, max_norm)
    _check_zeros(clip)
    return CORRECT


def check_log_uniform(log_uniform: Callable[[float, float, Tensor], Tensor]) -> str:
    """Check ``log_uniform(low, high, u)``: values whose logarithms are spread evenly.

    Parameters
    ----------
    log_uniform : callable
        Takes ``0 < low < high`` and floats ``u`` in ``[0, 1]``, evenly drawn; returns values of
        the same shape in ``[low, high]``: ``low`` at 0, ``high`` at 1, and equal ratios are
        equally likely.

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
    >>> check_log_uniform(lambda low, high, u: low + u * (high - low))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that spreads the values evenly, not their logarithms: nine of \
ten lie in the highest tenth
    """
    for low, high in [(0.001, 1.0), (0.5, 8.0), (20.0, 300.0)]:
        u = torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0])
        call = f"log_uniform({low}, {high}, <tensor>)"
        answer = floats(call, run(log_uniform, low, high, u.clone()), u.shape)
        right = low * (high / low) ** u.double()
        if not torch.allclose(answer, right, rtol=1e-4, atol=0):
            first_match(answer, _uniform_mistakes(low, high, u.double()))
            where = int((answer / right - 1).abs().argmax())
            raise Hint(f"{call} gives {answer[where]:.4g} at u = {u[where]:.1f}: look there")
    return CORRECT


def check_choose_lr(choose_lr: Callable[[list[float], list[float]], float]) -> str:
    """Check ``choose_lr(lrs, losses)``: a rate to begin with, from a range test.

    Parameters
    ----------
    choose_lr : callable
        Takes the rising learning rates of a range test and the smoothed loss at each; returns a
        tenth of the rate at which the loss was lowest.

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
    >>> check_choose_lr(lambda lrs, losses: lrs[losses.index(min(losses))])
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: at the lowest loss the rate is about to be too high: take a \
tenth of it
    """
    tests = [
        ([0.001, 0.01, 0.2, 1.0, 7.0], [2.3, 2.2, 1.4, 0.9, 8.0]),
        ([0.003, 0.02, 0.5, 3.0], [2.3, 0.7, 1.9, 2.5]),
        ([1e-4, 1e-3, 2e-2], [2.3, 2.1, 1.6]),
    ]
    for lrs, losses in tests:
        call = f"choose_lr({lrs}, {losses})"
        answer = run(choose_lr, list(lrs), list(losses))
        match(call, answer, lrs[losses.index(min(losses))] / 10, _lr_hints(lrs, losses))
    return CORRECT


def _compare_clipped(call: str, answer: Any, gradients: list[Tensor], max_norm: float) -> None:
    expect(
        isinstance(answer, list | tuple) and len(answer) == len(gradients),
        f"{call} must be a list of {len(gradients)} tensors, got {type(answer).__name__}",
    )
    pairs = zip(answer, gradients, strict=True)
    got = torch.cat([floats(call, a, g.shape).flatten() for a, g in pairs])
    parts = [gradient.double().flatten() for gradient in gradients]
    whole = torch.cat(parts)
    right = min(1.0, max_norm / whole.norm().item()) * whole
    if not torch.allclose(got, right, rtol=1e-4, atol=1e-7):
        first_match(got, _clip_mistakes(parts, max_norm))
        raise Hint(f"{call} is {got.norm():.4g} long where {right.norm():.4g} is right")


def _check_zeros(clip: Callable[[list[Tensor], float], list[Tensor]]) -> None:
    shapes = ((2, 3), (4,))
    call = "clip(<two tensors of zeros>, 1.0)"
    answer = run(clip, [torch.zeros(shape) for shape in shapes], 1.0)
    pairs = zip(answer, shapes, strict=False)  # their number was checked before
    got = torch.cat([floats(call, a, shape).flatten() for a, shape in pairs])
    expect(bool((got == 0).all()), f"{call} must be zeros, got {got[0]:.4g}: is 0 divided by 0?")


def _clip_mistakes(parts: list[Tensor], max_norm: float) -> dict[str, Tensor]:
    whole = torch.cat(parts)
    norm = whole.norm()
    each = [min(1.0, max_norm / part.norm().item()) * part for part in parts]
    return {
        "that makes short gradients longer: clipping only shortens": max_norm / norm * whole,
        "that cuts each entry, and the step points elsewhere: scale all by one factor": whole.clamp(
            -max_norm, max_norm
        ),
        "one norm for all tensors together, not one for each": torch.cat(each),
        "nothing is shorter than before": whole,
        "that has the length 1: it must be at most max_norm": whole / norm,
        "the root of the sum of squares is missing": whole * min(1.0, (max_norm / norm**2).item()),
        "that adds up sizes: the norm is the root of the sum of squares": whole
        * min(1.0, (max_norm / whole.abs().sum()).item()),
        "that bounds the largest entry, not the norm": whole
        * min(1.0, (max_norm / whole.abs().max()).item()),
        "upside down: the norm goes below": whole * norm / max_norm,
    }


def _uniform_mistakes(low: float, high: float, u: Tensor) -> dict[str, Tensor]:
    logs = math.log(low) + u * (math.log(high) - math.log(low))
    tens = math.log10(low) + u * (math.log10(high) - math.log10(low))
    return {
        "that spreads the values evenly, not their logarithms: nine of ten lie in the highest "
        "tenth": low + u * (high - low),
        "these are logarithms: exp brings the values back": logs,
        "these are logarithms to base 10: 10 to their power brings the values back": tens,
        "a natural logarithm goes back by exp, not by powers of 10": 10**logs,
        "a logarithm to base 10 goes back by powers of 10, not by exp": tens.exp(),
        "low and high are exchanged: u = 0 gives low": high * (low / high) ** u,
        "the ratio of high to low goes to the power, not high": low * high**u,
        "low is missing in front": (high / low) ** u,
    }


def _lr_hints(lrs: Sequence[float], losses: Sequence[float]) -> dict[float, str]:
    place = losses.index(min(losses))
    falls = [losses[k + 1] - losses[k] for k in range(len(losses) - 1)]
    return {
        lrs[place]: "at the lowest loss the rate is about to be too high: take a tenth of it",
        lrs[place] / 2: "a tenth, not half of it",
        min(losses): "that is the lowest loss: at which rate was it?",
        min(losses) / 10: "that is a tenth of the loss: a tenth of its rate",
        place: "that is a place in the list: which rate stands there?",
        lrs[-1] / 10: "the highest rate of the test is the one that broke it: look at the losses",
        lrs[falls.index(min(falls))]: "that is where the loss falls fastest: another rule",
        10 * lrs[place]: "a tenth, not ten times",
    }
