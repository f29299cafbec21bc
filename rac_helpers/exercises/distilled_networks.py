"""Checks of chapter 06: a teacher that does not learn, and where a network looks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rac_helpers import distill
from rac_helpers.exercises.hint import CORRECT, Hint, expect, run
from rac_helpers.exercises.tensors import first_match, floats
from rac_helpers.rng import make_generator, scoped_seed


def check_teacher_answers(teacher_answers: Callable[[nn.Module, Tensor], Tensor]) -> str:
    """Check ``teacher_answers(teacher, images)``: logits to learn from.

    Parameters
    ----------
    teacher_answers : callable
        Takes a network, in whatever mode, and images ``(n, 3, H, W)``; returns its logits
        ``(n, num_classes)`` in eval mode and without gradients. In which mode the network is
        afterwards is free.

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
    >>> def teacher_answers(teacher, images):
    ...     with torch.no_grad():
    ...         return teacher(images)
    >>> check_teacher_answers(teacher_answers)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the teacher is in train mode: its running statistics have \
moved, and so have its answers
    """
    images = torch.rand(6, 3, 4, 4, generator=make_generator(0))
    for build in (_with_batch_norm, _with_dropout):
        for training in (True, False):
            teacher = build().train(training)
            right, before = _eval_logits(teacher, images), copy.deepcopy(teacher.state_dict())
            with torch.enable_grad(), scoped_seed(1):  # dropout draws
                answer = run(teacher_answers, teacher, images.clone())
            _expect_unchanged(teacher, before)
            logits = floats("teacher_answers(teacher, images)", answer, right.shape)
            _compare_answers(logits, right, teacher, images)
            hint = "the teacher learns nothing: torch.no_grad() or detach() is missing"
            expect(not answer.requires_grad, hint)
    return CORRECT


def check_attention_map(attention_map: Callable[[Tensor], Tensor]) -> str:
    """Check ``attention_map(features)``: where in each picture the channels are active.

    Parameters
    ----------
    attention_map : callable
        Takes floats ``(n, channels, H, W)``; returns ``(n, H, W)``: for each place the sum of the
        squares over the channels, divided by one number a picture, so that the squares of a map
        sum to 1.

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
    >>> check_attention_map(lambda features: features.square().sum(1))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: the squares of each map must sum to 1: divide by the root of \
their sum
    """
    for shape in [(3, 3, 3, 3), (4, 2, 3, 5), (1, 6, 4, 2)]:
        features = torch.randn(shape, generator=make_generator(sum(shape)))
        given, call = features.clone(), f"attention_map(features of {shape})"
        answer = run(attention_map, given)
        expect(torch.equal(given, features), "features were changed: make a new tensor")
        right = distill.attention_map(features).double()
        maps = floats(call, answer, right.shape)
        if not torch.allclose(maps, right, atol=1e-5):
            first_match(maps, _map_mistakes(features), tolerance=1e-6)
            raise Hint(f"{call} is off by up to {(maps - right).abs().max():.3g}")
    return CORRECT


def _with_batch_norm() -> nn.Module:
    with scoped_seed(0):
        parts = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(*parts)


def _with_dropout() -> nn.Module:
    with scoped_seed(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Dropout(), nn.Linear(32, 5))


def _eval_logits(teacher: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(teacher).eval()(images).double()


def _expect_unchanged(teacher: nn.Module, before: dict[str, Tensor]) -> None:
    for name, value in teacher.state_dict().items():
        moved = "running" in name or "num_batches" in name
        why = "the teacher is in train mode: its running statistics have moved, and so have its"
        hint = f"{why} answers" if moved else f"{name} of the teacher was changed"
        expect(torch.equal(value, before[name]), hint)


def _compare_answers(logits: Tensor, right: Tensor, teacher: nn.Module, images: Tensor) -> None:
    if torch.allclose(logits, right, atol=1e-5):
        return
    mistakes = {
        "these are probabilities: logits are asked for": right.softmax(1),
        "these are log-probabilities: logits are asked for, for every temperature": (
            right.log_softmax(1)
        ),
        "these are decisions: how wrong the other classes are is lost": torch.eye(5).double()[
            right.argmax(1)
        ],
    }
    first_match(logits, mistakes, tolerance=1e-5)
    again = copy.deepcopy(teacher).train()
    with torch.no_grad():
        norm = again(images).double()
    first_match(logits, {"the teacher is in train mode: call eval() first": norm}, tolerance=1e-5)
    drops = any(isinstance(module, nn.Dropout) for module in teacher.modules())
    hint = "dropout is at work: the teacher is in train mode, call eval() first"
    expect(not drops, hint)
    raise Hint(f"the logits are off by up to {(logits - right).abs().max():.3g}")


def _map_mistakes(features: Tensor) -> dict[str, Tensor]:
    """Return what typical mistakes give; those of another shape are left out."""
    squares = features.square()
    maps, flat = squares.sum(1), (1, 2)
    root = maps.square().sum(flat, keepdim=True).sqrt()
    plain, sizes = features.sum(1), features.abs().sum(1)
    scale = "the squares of each map must sum to 1: divide by the root of their sum"
    mistakes = {
        scale: maps,
        f"{scale} (that is the mean over the channels)": squares.mean(1),
        f"{scale} (not by the largest)": maps / maps.amax(flat, keepdim=True),
        f"{scale} (not by their sum)": maps / maps.sum(flat, keepdim=True),
        f"{scale} (the root is missing)": maps / root**2,
        "square the features first: positive and negative ones cancel": _unit(plain),
        "the sum of the squares, not of the sizes": _unit(sizes),
        "the sum of the squares, without a root": _unit(maps.sqrt()),
        "all channels count, not the largest alone": _unit(squares.amax(1)),
        "one number for each picture, not one for the batch": maps / maps.norm(),
        "sum over the channels, dim=1, not over the pictures": _unit(squares.sum(0)),
        "one number for each picture, not for each row": torch.nn.functional.normalize(maps, dim=2),
        "one number for each picture, not for each column": torch.nn.functional.normalize(maps),
    }
    return {hint: wrong for hint, wrong in mistakes.items() if wrong.shape == maps.shape}


def _unit(maps: Tensor) -> Tensor:
    return maps / maps.flatten(1).norm(dim=1)[:, None, None]
