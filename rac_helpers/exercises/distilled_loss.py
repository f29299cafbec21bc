"""Check of chapter 06: the loss with a teacher, and what mistakes make of it."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rac_helpers import distill
from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, number, run
from rac_helpers.rng import make_generator

_ARTICLE = ((0.10, 0.20, 0.70), (0.05, 0.15, 0.80))  # student, teacher
_PARTS = ("order", "power", "divisor", "kind", "weights", "heat", "hard")
_RIGHT = dict.fromkeys(_PARTS, "")


def check_kd_loss(kd_loss: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> str:
    """Check ``kd_loss(student_logits, teacher_logits, labels, temperature, alpha)``.

    Parameters
    ----------
    kd_loss : callable
        Takes two tensors of logits ``(n, num_classes)``, labels ``(n,)``, T and the weight of the
        labels; returns a scalar tensor, the mean over the n pictures of
        ``alpha * cross_entropy + (1 - alpha) * T**2 * KL(teacher || student)``.

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
    >>> def kd_loss(student_logits, teacher_logits, labels, temperature, alpha):
    ...     hard = F.cross_entropy(student_logits, labels)
    ...     student = (student_logits / temperature).log_softmax(1)
    ...     teacher = (teacher_logits / temperature).log_softmax(1)
    ...     soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    ...     return alpha * hard + (1 - alpha) * soft
    >>> check_kd_loss(kd_loss)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: T² is missing: without it the gradient of the soft part falls \
with 1/T²
    """
    for student, teacher, labels, temperature, alpha in _cases():
        ours, theirs = student.clone().requires_grad_(), teacher.clone()
        call = f"kd_loss(student, teacher, labels, {temperature}, {alpha})"
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of F.kl_div's "mean": there is a hint
            loss = run(kd_loss, ours, theirs, labels.clone(), temperature, alpha)
        same = torch.equal(ours.detach(), student) and torch.equal(theirs, teacher)
        expect(same, "the logits were changed: make new tensors")
        _compare_loss(call, loss, (student, teacher, labels, temperature, alpha))
        _compare_gradient(call, loss, ours, (student, teacher, labels, temperature, alpha))
    return CORRECT


def _cases() -> list[tuple]:
    """Return arguments of the loss: the article's example, then ones where mistakes differ."""
    student, teacher = (torch.tensor([row]).log() + 1 for row in _ARTICLE)  # not normalized
    cases = [(student, teacher, torch.tensor([2]), t, 0.5) for t in (1.0, 4.0)]
    generator = make_generator(3)
    for n, classes, temperature, alpha in [(3, 5, 2.0, 0.1), (4, 3, 1.0, 0.7), (5, 4, 8.0, 0.0)]:
        logits = 3 * torch.randn(2, n, classes, generator=generator)
        labels = torch.arange(n) % classes
        cases.append((logits[0], logits[1], labels, temperature, alpha))
    return cases


def _compare_loss(call: str, loss: Any, case: tuple) -> None:
    if isinstance(loss, Tensor) and loss.is_floating_point() and loss.isnan().any():
        hint = "if F.kl_div gets logarithms twice, it must be told: log_target=True"
        raise Hint(f"{call} is NaN: {hint}")
    shape = tuple(getattr(loss, "shape", ()))
    expect(shape == (), f"{call} must be a scalar, the mean over the pictures, got shape {shape}")
    right = distill.kd_loss(*case[:3], temperature=case[3], alpha=case[4]).item()
    if not math.isclose(number(call, loss), right, rel_tol=1e-6, abs_tol=1e-12):
        match(call, loss, right, _loss_hints(case))


def _compare_gradient(call: str, loss: Any, ours: Tensor, case: tuple) -> None:
    tensor = isinstance(loss, Tensor)
    hint = f"{call} must be a tensor that backward() can be called on, got {type(loss).__name__}"
    expect(tensor, hint)
    reaches = loss.requires_grad and ours.is_leaf
    expect(reaches, "no gradient reaches the student: detach belongs to the teacher alone")
    (got,) = torch.autograd.grad(loss, ours, allow_unused=True)
    expect(got is not None, "no gradient reaches the student: detach belongs to the teacher alone")
    student = case[0].clone().requires_grad_()
    with torch.enable_grad():
        right = distill.kd_loss(student, *case[1:3], temperature=case[3], alpha=case[4])
    (wanted,) = torch.autograd.grad(right, student)
    hint = "right value, wrong gradient: a part of the loss is cut off (detach, no_grad, item)"
    expect(torch.allclose(got, wanted, atol=1e-5), hint)


def _loss_hints(case: tuple) -> dict[float, str]:
    """Return what one mistake gives, then what two give, with what to say of it."""
    options = [(part, name) for part, names in _FAULTS.items() for name in names]
    pairs = [pair for pair in itertools.combinations(options, 2) if pair[0][0] != pair[1][0]]
    hints: dict[float, str] = {}
    for faults in [*((one,) for one in options), *pairs]:
        value = _value(case, **_RIGHT | dict(faults)).item()
        hints.setdefault(value, "; ".join(_FAULTS[part][name] for part, name in faults))
    return hints


def _value(case: tuple, **how: str) -> Tensor:
    """Return the loss with mistakes; a part that is "" is right."""
    s, t, labels, temperature, alpha = case
    heat_s = 1.0 if how["heat"] in ("none", "teacher") else temperature
    heat_t = 1.0 if how["heat"] in ("none", "student") else temperature
    p, q = (t / heat_t).double(), (s / heat_s).double()
    if how["order"]:
        p, q = q, p
    soft = _KINDS[how["kind"]](p, q).sum()
    soft = soft / {"": len(s), "mean": s.numel(), "sum": 1}[how["divisor"]]
    soft = soft * temperature ** {"": 2, "none": 0, "one": 1}[how["power"]]
    hard_logits = {"soft": s / temperature, "twice": s.softmax(1), "teacher": t}
    logits = hard_logits.get(how["hard"], s)
    hard = F.cross_entropy(logits, labels, reduction="sum" if how["hard"] == "sum" else "mean")
    weight = 1 - alpha if how["weights"] == "swapped" else alpha
    rest = {"": 1 - weight, "swapped": 1 - weight, "whole": 1.0, "only": 0.0}[how["weights"]]
    return weight * hard + rest * soft


_KINDS = {  # p, q: logits of the distribution that weighs, and of the other
    "": lambda p, q: p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1)),
    "plain": lambda p, q: p.softmax(1) * (p.log_softmax(1) - q.softmax(1)),
    "both": lambda p, q: p.softmax(1).exp() * (p.softmax(1) - q.softmax(1)),
    "logits": lambda p, q: p.softmax(1) * (p.log_softmax(1) - q),
    "cross": lambda p, q: -p.softmax(1) * q.log_softmax(1),
    "minus": lambda p, q: p.softmax(1) * (q.log_softmax(1) - p.log_softmax(1)),
    "squares": lambda p, q: (p.softmax(1) - q.softmax(1)).square(),
}
_FAULTS = {
    "order": {
        "swapped": "teacher and student are swapped: in KL(teacher‖student) the teacher's "
        "probabilities weigh the classes"
    },
    "power": {
        "none": "T² is missing: without it the gradient of the soft part falls with 1/T²",
        "one": "the factor is T², not T",
    },
    "divisor": {
        "mean": "`mean` divides by the number of classes, too: take `batchmean`",
        "sum": "divide the sum by the number of pictures: `batchmean`",
    },
    "kind": {
        "plain": "probabilities for log-probabilities: the first argument of F.kl_div is a "
        "logarithm (log_softmax)",
        "both": "probabilities for log-probabilities: with log_target=True both arguments of "
        "F.kl_div are logarithms",
        "logits": "logits for log-probabilities: log_softmax is missing",
        "cross": "that is the cross-entropy with the teacher: not 0 where both agree. Subtract the "
        "teacher's entropy",
        "minus": "wrong sign: KL is the sum of t (log t - log s)",
        "squares": "that is the squared difference of the probabilities, no KL divergence",
    },
    "weights": {
        "swapped": "alpha is the weight of the labels, 1 - alpha that of the teacher",
        "whole": "the soft part has the weight 1 - alpha",
        "only": "the soft part is missing",
    },
    "heat": {
        "none": "both distributions of the soft part are at temperature T, here they are at 1",
        "student": "the teacher's logits must be divided by T, too",
        "teacher": "the student's logits must be divided by T, too",
    },
    "hard": {
        "soft": "the cross-entropy with the labels takes the logits as they are, at T = 1",
        "twice": "F.cross_entropy takes logits: it has its own softmax",
        "sum": "cross-entropy: the mean over the pictures, not the sum",
        "teacher": "the cross-entropy with the labels is the student's, not the teacher's",
    },
}
