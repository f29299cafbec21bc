"""Losses on the last layer: the labels, and the soft targets of a teacher.

A label says "cat". A teacher says "cat, a bit dog, no lorry": how wrong the wrong answers are.
The temperature decides how much of that a student gets to see.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from rac_helpers._check import check_labels, check_number


class KDTerms(NamedTuple):
    """The parts of :func:`kd_loss`: scalars of shape ``()``.

    ``hard`` is the cross-entropy with the labels; ``soft`` is T² KL(teacher‖student), in nats;
    ``total`` is ``alpha * hard + (1 - alpha) * soft``.
    """

    hard: torch.Tensor
    soft: torch.Tensor
    total: torch.Tensor


def soft_targets(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the probabilities of ``logits`` at a temperature: softmax(logits / T).

    T = 1 gives the probabilities themselves. A higher T brings them nearer to each other, and
    never changes their order; a lower one pushes the largest towards 1.

    Parameters
    ----------
    logits : torch.Tensor
        Floats of shape ``(n, num_classes)``. Logarithms of probabilities are logits, too.
    temperature : float
        Above 0.

    Returns
    -------
    torch.Tensor
        Shape ``(n, num_classes)``; each row sums to 1. At least float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Hinton, Vinyals and Dean, 2015. Distilling the knowledge in a neural network, equation 1.

    Examples
    --------
    >>> teacher = torch.log(torch.tensor([[0.05, 0.15, 0.80]]))
    >>> soft_targets(teacher, 1)
    tensor([[0.0500, 0.1500, 0.8000]])
    >>> soft_targets(teacher, 4)
    tensor([[0.2317, 0.3049, 0.4634]])
    """
    return (_check_logits("logits", logits) / check_temperature(temperature)).softmax(dim=1)


def kd_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    alpha: float,
) -> torch.Tensor:
    """Return the loss of knowledge distillation, a scalar to train a student with.

    alpha · CE(labels) + (1 - alpha) · T² · KL(teacher‖student), both distributions at temperature
    T. The factor T² belongs to it: the gradient of the KL term falls with 1/T², so without the
    factor a change of T would change the balance of the two terms, too.

    Parameters
    ----------
    student_logits : torch.Tensor
        Floats of shape ``(n, num_classes)``, ``n >= 1``: logits, not probabilities.
    teacher_logits : torch.Tensor
        The same shape. No gradient goes to the teacher.
    labels : torch.Tensor
        int64, shape ``(n,)``, in ``[0, num_classes)``.
    temperature : float
        T, above 0. 1 leaves the distributions as they are.
    alpha : float
        Weight of the labels in ``[0, 1]``, as in the article: 1 is plain training, 0 learns from
        the teacher alone.

    Returns
    -------
    torch.Tensor
        Shape ``()``: the mean over the n pictures, in nats.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Hinton, Vinyals and Dean, 2015. Distilling the knowledge in a neural network, section 2.

    Examples
    --------
    The worked example of the article, at T = 1 and at T = 4:

    >>> student = torch.log(torch.tensor([[0.10, 0.20, 0.70]]))
    >>> teacher = torch.log(torch.tensor([[0.05, 0.15, 0.80]]))
    >>> label = torch.tensor([2])
    >>> round(kd_loss(student, teacher, label, temperature=1, alpha=0.5).item(), 5)
    0.19285
    >>> round(kd_loss(student, teacher, label, temperature=4, alpha=0.5).item(), 5)
    0.20615
    """
    terms = kd_terms(student_logits, teacher_logits, labels, temperature=temperature, alpha=alpha)
    return terms.total


def kd_terms(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    alpha: float,
) -> KDTerms:
    """Return the parts of :func:`kd_loss`, which takes the same arguments.

    Examples
    --------
    >>> student = torch.log(torch.tensor([[0.10, 0.20, 0.70]]))
    >>> teacher = torch.log(torch.tensor([[0.05, 0.15, 0.80]]))
    >>> terms = kd_terms(student, teacher, torch.tensor([2]), temperature=1, alpha=0.5)
    >>> [round(term.item(), 5) for term in terms]
    [0.35667, 0.02902, 0.19285]
    """
    temperature, alpha = check_temperature(temperature), check_alpha(alpha)
    student, teacher = _check_both(student_logits, teacher_logits, labels)
    hard = F.cross_entropy(student, labels)
    soft = temperature**2 * _divergence(teacher / temperature, student / temperature)
    return KDTerms(hard, soft, alpha * hard + (1 - alpha) * soft)


def printed_kd_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    alpha: float,
) -> torch.Tensor:
    """Return the loss as the article prints it: to compare, not to train with.

    alpha · CE(labels) + (1 - alpha) · KL(student‖teacher). The direction is the other one, and
    there is no temperature. KL(student‖teacher) weighs each class by the student's own
    probability, so it hardly says anything about a class that the student has given up.

    Parameters
    ----------
    student_logits, teacher_logits, labels : torch.Tensor
        As in :func:`kd_loss`.
    alpha : float
        Weight of the labels in ``[0, 1]``.

    Returns
    -------
    torch.Tensor
        Shape ``()``: the mean over the pictures, in nats.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> student = torch.log(torch.tensor([[0.10, 0.20, 0.70]]))
    >>> teacher = torch.log(torch.tensor([[0.05, 0.15, 0.80]]))
    >>> round(printed_kd_loss(student, teacher, torch.tensor([2]), alpha=0.5).item(), 5)
    0.19503
    """
    alpha = check_alpha(alpha)
    student, teacher = _check_both(student_logits, teacher_logits, labels)
    hard = F.cross_entropy(student, labels)
    return alpha * hard + (1 - alpha) * _divergence(student, teacher)


def check_temperature(temperature: float) -> float:
    """Return a temperature as a float above 0, else raise.

    Examples
    --------
    >>> check_temperature(0)
    Traceback (most recent call last):
    ValueError: temperature must be a finite number > 0, got 0
    """
    value = check_number("temperature", temperature)
    if value <= 0:
        raise ValueError(f"temperature must be a finite number > 0, got {temperature}")
    return value


def check_alpha(alpha: float) -> float:
    """Return the weight of the labels as a float in ``[0, 1]``, else raise.

    Examples
    --------
    >>> check_alpha(1.5)
    Traceback (most recent call last):
    ValueError: alpha must be a finite number in [0, 1], got 1.5
    """
    return check_number("alpha", alpha, low=0, high=1)


def _divergence(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """KL(p‖q) = Σ p (log p - log q): summed over the classes, the mean over the pictures."""
    log_p, log_q = p_logits.log_softmax(dim=1), q_logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def _check_both(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both logits, ready for a loss; the teacher's are constants."""
    student = _check_logits("student_logits", student_logits)
    teacher = _check_logits("teacher_logits", teacher_logits)
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher_logits must have the shape {tuple(student.shape)} of student_logits, "
            f"got {tuple(teacher.shape)}"
        )
    check_labels("labels", labels, num_classes=student.shape[1])
    if len(labels) != len(student):
        raise ValueError(f"labels must have shape ({len(student)},), got ({len(labels)},)")
    return student, teacher.detach()


def _check_logits(name: str, logits: torch.Tensor) -> torch.Tensor:
    """Return logits as floats of 32 bits or more, or raise."""
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"{name} must be floats of shape (n, num_classes), got {got}")
    if logits.ndim != 2 or not logits.numel():
        raise ValueError(
            f"{name} must have shape (n, num_classes), n >= 1, got {tuple(logits.shape)}"
        )
    return at_least_float32(logits)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return floats as float32, or float64 if they are: T² enlarges what bfloat16 rounds away.

    Examples
    --------
    >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16))
    tensor([1., 1.])
    """
    return values if values.dtype == torch.float64 else values.float()
