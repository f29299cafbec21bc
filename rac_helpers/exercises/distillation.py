"""Checks of chapter 06: soft targets, and the gradient of the soft part of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rac_helpers import distill
from rac_helpers.exercises.hint import CORRECT, Hint, expect, run
from rac_helpers.exercises.tensors import first_match, floats
from rac_helpers.rng import make_generator


def check_soften(soften: Callable[[Tensor, float], Tensor]) -> str:
    """Check ``soften(logits, temperature)``: probabilities at a temperature.

    Parameters
    ----------
    soften : callable
        Takes floats ``(n, num_classes)`` and T > 0; returns probabilities of the same shape.

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
    >>> check_soften(lambda logits, temperature: logits.softmax(1) / temperature)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: divide the logits, not the probabilities: these no longer \
sum to 1
    """
    for (n, classes), temperature in [((4, 3), 1.0), ((3, 3), 4.0), ((4, 6), 0.5), ((2, 3), 20.0)]:
        logits = 4 * torch.randn(n, classes, generator=make_generator(n + classes))
        call = f"soften(logits, {temperature})"
        _compare_soft(call, _untouched(soften, call, logits, temperature), logits, temperature)
    large = torch.tensor([[1000.0, 998.0, -1000.0]])
    answer = floats("soften(logits, 2.0)", run(soften, large.clone(), 2.0), large.shape)
    right = distill.soft_targets(large, 2.0).double()
    hint = "large logits overflow in exp: subtract the largest first, as softmax does"
    expect(torch.allclose(answer, right, atol=1e-6), hint)
    return CORRECT


def check_soft_gradient(soft_gradient: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Check ``soft_gradient(student_logits, teacher_logits, temperature)``, without autograd.

    Parameters
    ----------
    soft_gradient : callable
        Takes the logits of one picture, floats ``(num_classes,)``, of student and teacher, and T;
        returns the gradient of ``T**2 * KL(teacher || student)`` for the student's logits.

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
    >>> def soft_gradient(student_logits, teacher_logits, temperature):
    ...     return student_logits.softmax(0) - teacher_logits.softmax(0)
    >>> check_soft_gradient(soft_gradient)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: both distributions are at temperature T, here they are at 1
    """
    generator = make_generator(5)
    for classes, temperature in [(3, 1.0), (3, 4.0), (6, 2.0), (4, 0.5)]:
        student, teacher = 2 * torch.randn(2, classes, generator=generator)
        call = f"soft_gradient(student, teacher, {temperature})"
        answer = _untouched(soft_gradient, call, student, teacher, temperature)
        p, q = (distill.soft_targets(x[None], temperature)[0] for x in (student, teacher))
        right = (temperature * (p - q)).double()
        if not torch.allclose(answer, right, atol=1e-5):
            first_match(answer, _gradient_mistakes(student, teacher, temperature), tolerance=1e-5)
            raise Hint(f"{call} is off by up to {(answer - right).abs().max():.3g}")
    return CORRECT


def _untouched(function: Callable, call: str, *args: Any) -> Tensor:
    """Return the floats of the reader's function; its shape is that of the first argument."""
    given = [x.clone() if isinstance(x, Tensor) else x for x in args]
    answer = run(function, *given)
    pairs = zip(given, args, strict=True)
    same = all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))
    expect(same, "the logits were changed: make a new tensor")
    return floats(call, answer, args[0].shape)


def _compare_soft(call: str, answer: Tensor, logits: Tensor, temperature: float) -> None:
    right = distill.soft_targets(logits, temperature).double()
    if torch.allclose(answer, right, atol=1e-6):
        return
    first_match(answer, _soft_mistakes(logits, temperature), tolerance=1e-6)
    sums = answer.sum(1)
    one = torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
    expect(one, f"{call}: the rows must sum to 1, the first sums to {sums[0]:.4g}")
    raise Hint(f"{call} is off by up to {(answer - right).abs().max():.3g}")


def _soft_mistakes(logits: Tensor, temperature: float) -> dict[str, Tensor]:
    p, wide = logits.softmax(1), logits / temperature
    return {
        "that is T = 1, whatever the temperature": p,
        "divide by the temperature, do not multiply": (logits * temperature).softmax(1),
        "divide the logits, not the probabilities: these no longer sum to 1": p / temperature,
        "softmax of probabilities: divide the logits and take softmax once": (
            p / temperature
        ).softmax(1),
        "the powers of the probabilities must be divided by their sum": p ** (1 / temperature),
        "divide by T, not by T²": (logits / temperature**2).softmax(1),
        "these are logarithms: probabilities are asked for": wide.log_softmax(1),
        "exp alone: divide by the sum over the classes": wide.exp(),
        "the sum goes over the classes of a picture, dim=1, not over the pictures": wide.softmax(0),
        "the sum goes over the classes of a picture, dim=1, not over all": wide.flatten()
        .softmax(0)
        .reshape(wide.shape),
        "softmax is missing": wide,
    }


def _gradient_mistakes(student: Tensor, teacher: Tensor, temperature: float) -> dict[str, Tensor]:
    p, q = ((x / temperature).softmax(0) for x in (student, teacher))
    gap = p - q
    cold = student.softmax(0) - teacher.softmax(0)
    return {
        "wrong sign: a student that says too much must come down, student minus teacher": -(
            temperature * gap
        ),
        "both distributions are at temperature T, here they are at 1": cold,
        "both distributions are at temperature T; only the factor has it here": temperature * cold,
        "that is the gradient for student_logits / T: the chain rule and T² leave a factor": gap,
        "T² is missing: without it the gradient falls with 1/T², with it a factor T is left": gap
        / temperature,
        "the chain rule is missing: logits / T brings a factor 1/T": temperature**2 * gap,
        "no mean over the classes: the gradient belongs to the sum": temperature * gap / len(p),
        "that is the limit for high T: this T is not high": (student - teacher) / len(p),
        "that is the difference of the logits: softmax is missing": student - teacher,
        "that is the term of each class in KL, not its derivative": q * (q.log() - p.log()),
    }
