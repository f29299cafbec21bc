"""Checks of chapter 02."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from rac_helpers.augment import OPS
from rac_helpers.exercises.hint import CORRECT, Hint, expect, number, plain, run
from rac_helpers.rng import make_generator


def check_enhance_factor(factor: Callable[[int, int], float]) -> str:
    """Check ``factor(magnitude, sign)``: the factor of brightness, color, contrast, sharpness.

    Parameters
    ----------
    factor : callable
        Takes the bin (0 to 30) and the sign (1 or -1), returns the factor.

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
    >>> check_enhance_factor(lambda magnitude, sign: 0.9 * magnitude / 30)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: magnitude 0 must leave the image as it is, which is factor 1; \
got 0.0
    """
    unchanged = _call("factor", factor, 0, 1)
    expect(
        _close(unchanged, 1.0),
        f"magnitude 0 must leave the image as it is, which is factor 1; got {unchanged}",
    )
    full = _call("factor", factor, 30, 1)
    expect(_close(full, 1.9), f"the last of the 31 bins is number 30: 1.9 there, got {full}")
    weak = _call("factor", factor, 30, -1)
    expect(_close(weak, 0.1), f"sign -1 must go the other way from 1: 0.1 at bin 30, got {weak}")
    half = _call("factor", factor, 15, -1)
    expect(_close(half, 0.55), f"the bins lie on a straight line: 0.55 at bin 15 down, got {half}")
    return CORRECT


def check_draw_names(draw: Callable[..., list[str]]) -> str:
    """Check ``draw(num_ops, generator)``: names of operations, uniform and with replacement.

    Parameters
    ----------
    draw : callable
        Takes the number of operations and a ``torch.Generator``, returns a list of names.

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
    >>> check_draw_names(lambda num_ops, generator: ["Rotate"] * num_ops)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: all 200 draws are the same: draw anew at every call
    """
    for num_ops in (0, 1, 3):
        _draw_names(draw, num_ops, generator=make_generator(0))
    generator = make_generator(1)
    draws = [_draw_names(draw, 3, generator=generator) for _ in range(200)]
    expect(len(set(draws)) > 1, "all 200 draws are the same: draw anew at every call")
    again = [_draw_names(draw, 3, generator=make_generator(2)) for _ in range(2)]
    expect(again[0] == again[1], "the same seed gave two different draws: use the generator")
    repeats = sum(len(set(names)) < 3 for names in draws)
    expect(repeats > 0, "in 200 draws no operation came twice: draw with replacement")
    expect(repeats < 120, "the same operation comes too often: draw each one independently")
    counts = Counter(name for names in draws for name in names)
    missing = sorted(set(OPS) - set(counts))
    expect(not missing, f"in 600 operations these never came: {missing}")
    expect(max(counts.values()) < 90, f"not uniform: {counts.most_common(1)[0]} of 600")
    return CORRECT


def check_augment_batch(augment: Callable[..., Tensor]) -> str:
    """Check ``augment(images, generator)``: every image of the batch has its own draw.

    Parameters
    ----------
    augment : callable
        Takes a uint8 batch ``(B, 3, H, W)`` and a ``torch.Generator``, returns a new batch.

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
    >>> check_augment_batch(lambda images, generator: images)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: all 48 equal images came back equal: draw once per image, \
not once per batch
    """
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=make_generator(0))
    batch = picture.expand(48, -1, -1, -1).clone()
    given = batch.clone()
    result = _augment_batch(augment, given, generator=make_generator(1))
    expect(torch.equal(given, batch), "the input was written to: work on a copy")
    distinct = len({image.numpy().tobytes() for image in result})
    expect(
        distinct > 1, "all 48 equal images came back equal: draw once per image, not once per batch"
    )
    expect(distinct > 16, f"only {distinct} different results for 48 images: draw for every image")
    again = _augment_batch(augment, given, generator=make_generator(1))
    expect(torch.equal(result, again), "the same seed gave other pixels: use the generator")
    return CORRECT


def check_repeat_probability(probability: Callable[[int], float]) -> str:
    """Check ``probability(num_ops)``: the chance that some operation comes twice.

    Parameters
    ----------
    probability : callable
        Takes the number of operations drawn with replacement from 14, returns a probability.

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
    >>> check_repeat_probability(lambda num_ops: num_ops / 14)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: one operation cannot repeat itself: 0 for num_ops=1, \
got 0.0714...
    """
    one = _call("probability", probability, 1)
    expect(_close(one, 0.0), f"one operation cannot repeat itself: 0 for num_ops=1, got {one}")
    two = _call("probability", probability, 2)
    expect(
        _close(two, 1 / 14), f"two draws agree with probability 1/14 for num_ops=2, got {two:.4f}"
    )
    three = _call("probability", probability, 3)
    expect(
        _close(three, 1 - 13 / 14 * 12 / 14),
        "for num_ops=3 multiply the chances that the second and the third are new, and take that "
        f"from 1; got {three:.4f}",
    )
    full = _call("probability", probability, 15)
    expect(_close(full, 1.0), f"15 draws from 14 must repeat: 1 for num_ops=15, got {full}")
    return CORRECT


def check_to_torchvision(convert: Callable[[float], int]) -> str:
    """Check ``convert(magnitude)``: from the paper's scale to torchvision's 31 bins.

    Parameters
    ----------
    convert : callable
        Takes a magnitude of the paper's scale, returns torchvision's ``magnitude``; raises
        ``ValueError`` where there is none.

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
    >>> check_to_torchvision(lambda magnitude: magnitude)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: full strength is 10 on the paper's scale and 30 in \
torchvision, got 10
    """
    full, none, four = (_call("convert", convert, magnitude) for magnitude in (10, 0, 4))
    expect(
        full == 30, f"full strength is 10 on the paper's scale and 30 in torchvision, got {full:g}"
    )
    expect(none == 0, "no strength is 0 on both scales")
    expect(
        four == 12, f"the paper's M = 4 (WRN-28-2, CIFAR-10) rotates by 12 degrees, got {four:g}"
    )
    answer = run(convert, 4)
    expect(isinstance(plain(answer), Integral), f"a bin is an integer, got {type(answer).__name__}")
    for beyond in (14, 2.5, -1):
        _expect_value_error(convert, beyond)
    return CORRECT


def _call(name: str, function: Callable[..., Any], *args: float) -> float:
    """Return the number that the reader's function gives."""
    return number(f"{name}({', '.join(map(str, args))})", run(function, *args))


def _draw_names(draw: Callable, num_ops: int, *, generator: torch.Generator) -> tuple[str, ...]:
    names = run(draw, num_ops, generator)
    expect(
        isinstance(names, list) and len(names) == num_ops,
        f"num_ops={num_ops} must give a list of {num_ops} names, got {names!r}",
    )
    unknown = [name for name in names if not (isinstance(name, str) and name in OPS)]
    expect(not unknown, f"only names from OPS, got {unknown}")
    return tuple(names)


def _augment_batch(augment: Callable, batch: Tensor, *, generator: torch.Generator) -> Tensor:
    shape = tuple(batch.shape)
    result = run(augment, batch, generator)
    if not isinstance(result, Tensor):
        raise Hint(f"the result must be a tensor of shape {shape}, got {type(result).__name__}")
    got = tuple(result.shape)
    expect(got == shape, f"the result must be a tensor of shape {shape}, got {got}")
    expect(result.dtype == torch.uint8, f"the result must be uint8, got {result.dtype}")
    return result.cpu()


def _expect_value_error(convert: Callable, beyond: float) -> None:
    try:
        got = repr(convert(beyond))
    except NotImplementedError:
        raise
    except ValueError:
        return
    except Exception as error:
        got = type(error).__name__
    raise Hint(f"{beyond} has no bin in torchvision: raise ValueError, not {got}")


def _close(value: float, expected: float) -> bool:
    return abs(value - expected) < 1e-6
