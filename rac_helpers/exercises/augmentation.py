"""Checks of chapter 03."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rac_helpers import corrupt
from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, number, plain, run
from rac_helpers.rng import make_generator

if TYPE_CHECKING:
    import pandas as pd

_ADD = "variances add up, also when you subtract"
# Luck on validation by (num_ops, magnitude, seed): of the best run, and of the best of seed 0.
_LUCK = {(3, 15, 1): 0.06, (3, 15, 2): -0.05, (1, 9, 0): 0.04, (1, 9, 1): -0.04}


def check_difference_error(standard_error: Callable[[float, float, int], float]) -> str:
    """Check ``standard_error(a, b, num_images)``: that of the difference of two accuracies.

    Parameters
    ----------
    standard_error : callable
        Takes two accuracies in ``[0, 1]``, each measured on ``num_images`` images of its own;
        returns the standard error of their difference, a fraction.

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
    >>> check_difference_error(lambda a, b, num_images: (a * (1 - a) / num_images) ** 0.5)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the error of a alone; b has one, too
    """
    for a, b, num_images in [(0.9, 0.6, 400), (0.2818, 0.4789, 10_000)]:
        one, two = a * (1 - a) / num_images, b * (1 - b) / num_images
        right, gap, pooled = math.sqrt(one + two), abs(a - b), (a + b) / 2
        hints = {
            math.sqrt(one): "that is the error of a alone; b has one, too",
            math.sqrt(two): "that is the error of b alone; a has one, too",
            math.sqrt(one) + math.sqrt(two): f"add the squares of the errors: {_ADD}",
            abs(math.sqrt(one) - math.sqrt(two)): f"errors do not cancel: {_ADD}",
            math.sqrt(abs(one - two)): f"errors do not cancel: {_ADD}",
            one + two: "that is the variance: the standard error is its square root",
            math.sqrt((one + two) / 2): "each accuracy has num_images of its own: do not halve",
            math.sqrt(gap * (1 - gap) / num_images): "the difference is no share of images itself",
            math.sqrt(2 * pooled * (1 - pooled) / num_images): "that supposes a = b (pooled): use "
            "each accuracy's own variance",
            math.sqrt((one + two) * num_images): "that is the spread of one pair of images; divide "
            "by num_images under the root",
            right / math.sqrt(num_images): "divide by num_images once, under the root",
            100 * right: "that is in percentage points; fractions are asked for",
            1.96 * right: "that is half of a 95 % interval, 1.96 standard errors",
            (a - b) / right: "that is the difference in standard errors; the error itself is asked",
        }
        call = f"standard_error({a}, {b}, {num_images})"
        match(call, run(standard_error, a, b, num_images), right, hints)
    return CORRECT


def check_corrupted_accuracy(mean_accuracy: Callable[[pd.DataFrame], float]) -> str:
    """Check ``mean_accuracy(rows)``: over the 15 standard kinds and 5 severities of one network.

    Parameters
    ----------
    mean_accuracy : callable
        Takes a DataFrame with columns ``corruption`` (NaN for clean images), ``severity`` and
        ``test_accuracy``; returns the mean, a fraction.

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
    >>> check_corrupted_accuracy(lambda rows: rows["test_accuracy"].mean())
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the mean of all rows: the clean one and the 4 extra \
kinds do not belong to it
    """
    rows = _network_rows()
    scores, standard = rows["test_accuracy"], rows["corruption"].isin(corrupt.STANDARD)
    spoiled, strongest = rows["corruption"].notna(), rows["severity"].eq(5)
    right = float(scores[standard].mean())
    hints = {
        scores.mean(): "that is the mean of all rows: the clean one and the 4 extra kinds do not "
        "belong to it",
        scores[spoiled].mean(): "that is the mean of all 19 kinds; the 4 extra ones are for "
        "choosing settings",
        scores[standard | ~spoiled].mean(): "the clean row is no corruption: leave it out",
        scores[standard & strongest].mean(): "that is severity 5 alone; take all five",
        scores[strongest].mean(): "that is severity 5 alone, and of all 19 kinds",
        scores[spoiled & ~standard].mean(): "that is the mean of the 4 extra kinds",
        scores[standard].median(): "that is the median; the mean is asked for",
        scores[standard].sum(): "that is the sum: divide by 15 * 5",
        scores[standard].sum() / 15: "divide by the severities, too: 15 * 5 sets",
        scores[standard].sum() / 95: "there are 15 * 5 standard sets, not 95",
        1 - right: "that is the error; the accuracy is asked for",
        100 * right: "that is in per cent; a fraction is asked for",
    }
    given = rows.copy()
    answer = run(mean_accuracy, given)
    expect(given.equals(rows), "rows was changed: work on a copy")
    match("mean_accuracy(rows)", answer, right, hints)
    return CORRECT


def check_choose_setting(choose: Callable[[pd.DataFrame], tuple[int, int]]) -> str:
    """Check ``choose(grid)``: the pair (num_ops, magnitude) that the validation images favour.

    Parameters
    ----------
    choose : callable
        Takes a DataFrame, one row a run, with columns ``num_ops``, ``magnitude``, ``seed``,
        ``train_accuracy``, ``val_accuracy`` and ``test_accuracy``; returns the pair.

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
    >>> check_choose_setting(lambda grid: (1, 27))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the best on the test images: whoever chooses there \
has no fair test left
    """
    grid = _grid_rows()
    given = grid.copy()
    answer = _pair("choose(grid)", run(choose, given))
    expect(given.equals(grid), "grid was changed: work on a copy")
    hints = {
        (1, 27): "that is the best on the test images: whoever chooses there has no fair test left",
        (1, 3): "that is the best on the training images: they favour weak augmentation",
        (3, 15): "that is the best single run: take the mean over the seeds first",
        (1, 9): "that is the best of seed 0 alone: take the mean over the seeds first",
        (9, 2): "the order is (num_ops, magnitude)",
        (3, 27): "that is the worst on validation",
    }
    expect(answer == (2, 9), hints.get(answer, f"{answer} is not the best mean on validation"))
    return CORRECT


def check_flip_batch(flip: Callable[[Tensor, torch.Generator], Tensor]) -> str:
    """Check ``flip(images, generator)``: each image mirrored with probability 1/2, on its own.

    Parameters
    ----------
    flip : callable
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
    >>> check_flip_batch(lambda images, generator: images.flip(-1))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: all images were mirrored: each one with probability 1/2
    """
    shape = (200, 3, 6, 8)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=make_generator(0))
    given, shares = batch.clone(), []
    for seed in range(1, 5):
        result = _flipped(flip, given, generator=make_generator(seed))
        expect(torch.equal(given, batch), "the input was written to: work on a copy")
        shares.append(_mirrored_share(batch, result))
    together = "draw once per image, not once per batch"
    expect(any(0 < share < 1 for share in shares) or len(set(shares)) == 1, together)
    expect(set(shares) != {1.0}, "all images were mirrored: each one with probability 1/2")
    expect(set(shares) != {0.0}, "no image was mirrored")
    mean = sum(shares) / len(shares)
    expect(0.4 < mean < 0.6, f"each with probability 1/2; {mean:.0%} of 800 images were mirrored")
    again = [_flipped(flip, given, generator=make_generator(9)) for _ in range(2)]
    expect(torch.equal(*again), "the same seed gave other pixels: use the generator")
    other = _flipped(flip, given, generator=make_generator(10))
    expect(
        not torch.equal(again[0], other),
        "another seed mirrored the same images: use the generator",
    )
    expect(len(set(shares)) > 1, "always exactly half: draw for each image on its own")
    return CORRECT


def _flipped(flip: Callable, batch: Tensor, *, generator: torch.Generator) -> Tensor:
    shape = tuple(batch.shape)
    result = run(flip, batch, generator)
    if not isinstance(result, Tensor):
        raise Hint(f"the result must be a tensor of shape {shape}, got {type(result).__name__}")
    got = tuple(result.shape)
    expect(got == shape, f"the result must be a tensor of shape {shape}, got {got}")
    expect(result.dtype == torch.uint8, f"the result must be uint8, got {result.dtype}")
    return result.cpu()


def _mirrored_share(before: Tensor, after: Tensor) -> float:
    """Return the share of mirrored images; raise a hint if one is neither the same nor mirrored."""
    same, mirrored = ((after == x).flatten(1).all(1) for x in (before, before.flip(-1)))
    upside_down = (after == before.flip(-2)).flatten(1).all(1)
    expect(not (upside_down & ~same).any(), "left to right is the last dimension, -1")
    neither = int((~same & ~mirrored).sum())
    expect(neither == 0, f"{neither} of {len(before)} images are neither the same nor mirrored")
    return float(mirrored.float().mean())


def _network_rows() -> pd.DataFrame:
    """Rows of a network that was never trained: every score is another one."""
    import pandas as pd

    sets = [(kind, severity) for kind in corrupt.KINDS for severity in range(1, 6)]
    rows = [
        {
            "corruption": kind,
            "severity": severity,
            "test_accuracy": 0.9 - 0.07 * severity - 0.0002 * position**1.5,
        }
        for position, (kind, severity) in enumerate(sets)
    ]
    rows.insert(40, {"test_accuracy": 0.93})
    return pd.DataFrame(rows)


def _grid_rows() -> pd.DataFrame:
    """A grid in which the means of training, validation and test favour different settings."""
    import pandas as pd

    rows = []
    for num_ops in (1, 2, 3):
        for magnitude in (3, 9, 15, 21, 27):
            validation = 0.86 - 0.01 * (num_ops != 2) - 0.001 * num_ops - 0.002 * abs(magnitude - 9)
            for seed, luck in enumerate((-0.004, 0.0, 0.004)):
                luck_on_validation = _LUCK.get((num_ops, magnitude, seed), 0.0)
                rows.append(
                    {
                        "num_ops": num_ops,
                        "magnitude": magnitude,
                        "seed": seed,
                        "train_accuracy": 0.99 - 0.03 * num_ops - 0.002 * magnitude + luck,
                        "val_accuracy": validation + luck + luck_on_validation,
                        "test_accuracy": 0.84 - 0.01 * num_ops + 0.001 * magnitude + luck,
                    }
                )
    return pd.DataFrame(rows)


def _pair(call: str, answer: Any) -> tuple[int, int]:
    """Return the reader's answer as two integers, or raise a hint."""
    wanted = f"{call} must be a pair (num_ops, magnitude) of integers"
    expect(
        isinstance(answer, tuple | list) and len(answer) == 2,
        f"{wanted}, got {type(answer).__name__}",
    )
    values = [number(call, value) for value in map(plain, answer)]
    expect(all(value == int(value) for value in values), f"{wanted}, got {values}")
    return int(values[0]), int(values[1])
