"""Distillation through the door of ``train.fit``: a ``loss_fn`` that asks a teacher."""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers.distill.losses import check_alpha, check_temperature, kd_loss
from rac_helpers.distill.teacher import CachedTeacher, Teacher


class DistillationLoss(nn.Module):
    """The ``loss_fn`` of :func:`rac_helpers.train.fit` that trains a student with a teacher.

    The teacher looks at the very pictures the student has seen, augmented as they are. So the pair
    of question and answer fits, however strong the augmentation.

    A checkpoint of the training knows the teacher by its weights, and the two settings.

    Parameters
    ----------
    teacher : Teacher or CachedTeacher
        On the device of the student.
    temperature : float
        T, above 0.
    alpha : float
        Weight of the labels in ``[0, 1]``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Hinton, Vinyals and Dean, 2015. Distilling the knowledge in a neural network.
    Beyer et al., 2022. Knowledge distillation: a good teacher is patient and consistent.

    Examples
    --------
    >>> from rac_helpers import data, models, train
    >>> digits = data.synth_digits(60, 20, 20)
    >>> teacher = Teacher(models.SmallCNN(width=4, seed=1))  # a real one would be trained
    >>> student = models.SmallCNN(width=2)
    >>> loss_fn = DistillationLoss(teacher, temperature=4, alpha=0.1)
    >>> history = train.fit(student, digits.train, digits.validation, epochs=1, loss_fn=loss_fn)
    >>> len(history)
    1
    """

    def __init__(
        self, teacher: Teacher | CachedTeacher, *, temperature: float, alpha: float
    ) -> None:
        super().__init__()
        self.teacher = check_teacher(teacher)
        self.temperature = check_temperature(temperature)
        self.alpha = check_alpha(alpha)

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Return :func:`kd_loss` for the student's logits ``(n, num_classes)``."""
        answers = self.teacher(images)
        return kd_loss(logits, answers, labels, temperature=self.temperature, alpha=self.alpha)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"temperature={self.temperature:g}, alpha={self.alpha:g}"


def check_teacher(teacher: Teacher | CachedTeacher) -> Teacher | CachedTeacher:
    """Return ``teacher`` if it is one, else raise: a plain network would be left in its mode.

    Examples
    --------
    >>> check_teacher(nn.Linear(2, 2))
    Traceback (most recent call last):
    TypeError: teacher must be a Teacher or a CachedTeacher, got Linear; wrap it: Teacher(model)
    """
    if not isinstance(teacher, Teacher | CachedTeacher):
        hint = "; wrap it: Teacher(model)" if isinstance(teacher, nn.Module) else ""
        raise TypeError(
            f"teacher must be a Teacher or a CachedTeacher, got {type(teacher).__name__}{hint}"
        )
    return teacher
