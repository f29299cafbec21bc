"""What a check asks of tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from rac_helpers.exercises.hint import Hint, expect

_INTEGERS = {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8}


def integers(call: str, answer: Any, shape: Iterable[int]) -> Tensor:
    """Return the reader's codes as int64, or raise a hint if they are no integers of that shape.

    Examples
    --------
    >>> integers("to_codes()", torch.ones(2), (2,))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: to_codes() must be a tensor of integers, got torch.float32: \
a float takes 4 bytes whatever it holds
    """
    _check_tensor(call, answer, shape, "integers")
    why = ": a float takes 4 bytes whatever it holds" if answer.is_floating_point() else ""
    expect(
        answer.dtype in _INTEGERS, f"{call} must be a tensor of integers, got {answer.dtype}{why}"
    )
    return answer.detach().cpu().long()


def floats(call: str, answer: Any, shape: Iterable[int]) -> Tensor:
    """Return the reader's values as float64, or raise a hint if they are no floats of that shape.

    Examples
    --------
    >>> floats("to_values()", torch.ones(2), (3,))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: to_values() must have the shape (3,), got (2,)
    """
    _check_tensor(call, answer, shape, "floats")
    got = answer.dtype
    expect(answer.is_floating_point(), f"{call} must be a tensor of floats, got {got}")
    return answer.detach().cpu().double()


def first_match(answer: Tensor, mistakes: dict[str, Tensor], *, tolerance: float = 0.0) -> None:
    """Raise as hint the first of the mistakes whose result is the answer.

    Examples
    --------
    >>> first_match(torch.ones(2), {"that is zero": torch.zeros(2)})
    >>> first_match(torch.ones(2), {"that is one": torch.ones(2)})
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is one
    """
    for hint, wrong in mistakes.items():
        if torch.allclose(answer.double(), wrong.double(), rtol=1e-5, atol=tolerance):
            raise Hint(hint)


def pair(call: str, answer: Any, names: str) -> tuple[Any, Any]:
    """Return the two parts of the reader's answer, or raise a hint if it is no pair.

    Examples
    --------
    >>> pair("params()", 0.5, "(scale, zero_point)")
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: params() must be a pair (scale, zero_point), got float
    """
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Hint(f"{call} must be a pair {names}, got {type(answer).__name__}")
    return answer[0], answer[1]


def _check_tensor(call: str, answer: Any, shape: Iterable[int], kind: str) -> None:
    if not isinstance(answer, Tensor):
        raise Hint(f"{call} must be a tensor of {kind}, got {type(answer).__name__}")
    wanted, got = tuple(shape), tuple(answer.shape)
    expect(got == wanted, f"{call} must have the shape {wanted}, got {got}")
