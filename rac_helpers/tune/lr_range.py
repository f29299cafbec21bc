"""The learning-rate range test: one short training with a rate that rises until it breaks."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.metrics.score import check_split, device_of
from rac_helpers.rng import derive_seed, scoped_seed

if TYPE_CHECKING:
    from rac_helpers.data import Split

_MEMORY = 0.9  # of the running mean: about the last ten steps
_TOO_HIGH = 4.0  # times the lowest mean so far


class LrRange(NamedTuple):
    """What was seen: the rates, the loss before each step, its running mean; did it diverge?"""

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool


def lr_range_test(
    model: nn.Module,
    train: Split,
    *,
    generator: torch.Generator,
    low: float = 1e-4,
    high: float = 10.0,
    num_steps: int = 100,
    batch_size: int = 64,
    momentum: float = 0.9,
) -> LrRange:
    """Train a copy of ``model`` with a learning rate that rises from ``low`` to ``high``.

    The rate is multiplied by the same factor after each step. The test stops early when the
    running mean of the loss is four times its lowest value, or the loss is not finite.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits. Not changed.
    train : Split
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)``.
    generator : torch.Generator
        Draws the batches.
    low, high : float
        First and last rate, ``0 < low < high``.
    num_steps : int
        At least 2.
    batch_size : int
        At least 1. Give the one of the training that follows: larger batches bear larger rates.
    momentum : float
        In ``[0, 1]``; give that of the training that follows, too.

    Returns
    -------
    LrRange
        An entry for each step that was taken, at most ``num_steps``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Smith: Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3. There the
    rate rises linearly; the exponential rise is the usual one by now.

    Examples
    --------
    >>> from rac_helpers.models import SmallCNN
    >>> images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    >>> seen = lr_range_test(
    ...     SmallCNN(2, 4), (images, torch.arange(20) % 2), num_steps=5, low=0.001, high=10,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> [round(lr, 4) for lr in seen.lrs]
    [0.001, 0.01, 0.1, 1.0, 10.0]
    """
    check_split("train", train, model=model)
    check_generator(generator)
    check_int("batch_size", batch_size, low=1)
    check_number("momentum", momentum, low=0, high=1)
    lrs = rising(low, high, num_steps)
    copied = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(copied.parameters(), low, momentum, nesterov=momentum > 0)
    seen = LrRange([], [], [], False)
    with scoped_seed(derive_seed(generator.initial_seed(), "dropout")):
        for lr in lrs:
            for group in optimizer.param_groups:
                group["lr"] = lr
            index = torch.randperm(len(train[1]), generator=generator)[:batch_size]
            loss = _step(copied, optimizer, train[0][index], train[1][index])
            if not math.isfinite(loss):
                return seen._replace(diverged=True)
            _note(seen, lr, loss)
            if seen.smoothed[-1] > _TOO_HIGH * min(seen.smoothed):
                return seen._replace(diverged=True)
    return seen


def rising(low: float, high: float, num_steps: int) -> list[float]:
    """Return ``num_steps`` rates from ``low`` to ``high``, each the same multiple of the last.

    Examples
    --------
    >>> [round(lr, 6) for lr in rising(0.01, 1, 3)]
    [0.01, 0.1, 1.0]
    """
    check_int("num_steps", num_steps, low=2)
    check_number("low", low)
    check_number("high", high)
    if not 0 < low < high:
        raise ValueError(f"low and high must be 0 < low < high, got {low} and {high}")
    return [low * (high / low) ** (step / (num_steps - 1)) for step in range(num_steps)]


def suggest_lr(seen: LrRange) -> float:
    """Return a tenth of the rate at which the running mean of the loss was lowest.

    At its lowest the loss is about to rise, so that rate is too high for a whole training.

    Parameters
    ----------
    seen : LrRange
        From :func:`lr_range_test`, with at least one step.

    Returns
    -------
    float
        A learning rate to begin a search with. No more: how long is trained matters, too.

    Raises
    ------
    ValueError
        If nothing was seen.

    Examples
    --------
    >>> suggest_lr(LrRange([0.1, 1.0, 10.0], [2.3, 0.5, 9.0], [2.3, 1.3, 5.0], True))
    0.1
    """
    if not seen.smoothed:
        raise ValueError("seen must hold at least one step, got none")
    return seen.lrs[seen.smoothed.index(min(seen.smoothed))] / 10


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> float:
    device = device_of(model)
    loss = F.cross_entropy(model(images.to(device)), labels.to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _note(seen: LrRange, lr: float, loss: float) -> None:
    """Add a step; the running mean starts without a bias towards 0, as in Adam."""
    seen.lrs.append(lr)
    seen.losses.append(loss)
    weights = [_MEMORY**age for age in reversed(range(len(seen.losses)))]
    mean = sum(w * x for w, x in zip(weights, seen.losses, strict=True)) / sum(weights)
    seen.smoothed.append(mean)
