"""What a model is worth: accuracy, and how sure we can be of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rac_helpers._check import check_int, check_labels, check_number, check_pair

if TYPE_CHECKING:
    from rac_helpers.data import Split


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` into eval mode inside a ``with`` block, and every module back after it.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    >>> with eval_mode(model):
    ...     model[1].training
    False
    >>> model[1].training
    True
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in before:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters, the CPU if it has none.

    Examples
    --------
    >>> device_of(nn.Linear(2, 2))
    device(type='cpu')
    """
    return next((value.device for value in model.parameters()), torch.device("cpu"))


def check_split(name: str, split: Split, *, model: nn.Module) -> Split:
    """Return ``split`` if ``model`` can be trained or measured on it, else raise.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    split : Split
        uint8 images ``(n, 3, H, W)``, ``n >= 1``, and int64 labels ``(n,)``.
    model : nn.Module
        Its number of logits is the number of classes. It sees one image, in eval mode.

    Raises
    ------
    TypeError, ValueError
        Naming what does not fit.

    Examples
    --------
    >>> class TwoClasses(nn.Module):
    ...     def forward(self, images):
    ...         return torch.zeros(len(images), 2)
    >>> split = (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([2]))
    >>> check_split("train", split, model=TwoClasses())
    Traceback (most recent call last):
    ValueError: train.labels must be in [0, 1], got 2 at position 0
    """
    images, labels = check_pair(name, split)
    with eval_mode(model), torch.no_grad():
        logits = model(images[:1].to(device_of(model)))
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(
            f"model must return logits of shape (1, num_classes) for one image, "
            f"got {tuple(logits.shape)}"
        )
    check_labels(f"{name}.labels", labels, num_classes=logits.shape[1])
    return split


def batches_of_logits(
    model: nn.Module, split: Split, *, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the logits of each batch, computed in eval mode, with its labels on the same device.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> split = (torch.zeros(5, 3, 2, 2), torch.zeros(5, dtype=torch.int64))
    >>> [tuple(logits.shape) for logits, _ in batches_of_logits(model, split, batch_size=2)]
    [(2, 2), (2, 2), (1, 2)]
    """
    device = device_of(model)
    for images, labels in zip(*(part.split(batch_size) for part in split), strict=True):
        with eval_mode(model), torch.no_grad():  # not around yield: it would reach the caller
            logits = model(images.to(device))
        yield logits, labels.to(device)


def count_hits(logits: torch.Tensor, labels: torch.Tensor) -> int:
    """Return for how many rows of ``logits`` the largest is that of the label.

    Examples
    --------
    >>> count_hits(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    1
    """
    return int((logits.argmax(dim=1) == labels).sum())


def accuracy(model: nn.Module, split: Split, *, batch_size: int = 500) -> float:
    """Return the fraction of images whose largest logit is that of their label.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits ``(B, num_classes)``. Used in eval
        mode.
    split : Split
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)``, ``n >= 1``.
    batch_size : int
        At least 1.

    Returns
    -------
    float
        In ``[0, 1]``. Its standard error is ``sqrt(accuracy * (1 - accuracy) / n)``.

    Raises
    ------
    TypeError, ValueError
        If images or labels do not fit.

    Examples
    --------
    >>> class AlwaysZero(nn.Module):
    ...     def forward(self, images):
    ...         return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)
    >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    >>> accuracy(AlwaysZero(), (images, torch.tensor([0, 0, 0, 1])))
    0.75
    """
    check_int("batch_size", batch_size, low=1)
    check_split("split", split, model=model)
    batches = batches_of_logits(model, split, batch_size=batch_size)
    return sum(count_hits(logits, labels) for logits, labels in batches) / len(split[1])


@dataclass(frozen=True)
class Interval:
    """Mean of ``n`` values with their standard deviation and a t interval for the mean."""

    mean: float
    std: float
    low: float
    high: float
    n: int
    level: float

    def __str__(self) -> str:
        return (
            f"{self.mean:.4f} ± {self.std:.4f} (n={self.n}, "
            f"{self.level:.0%} interval {self.low:.4f} to {self.high:.4f})"
        )


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return mean, standard deviation and Student's t interval of a few runs.

    Parameters
    ----------
    values : sequence of float
        At least two finite numbers, for example one accuracy per seed.
    level : float
        In ``(0, 1)``: how often such intervals hold the true mean.

    Returns
    -------
    Interval
        ``std`` is that of the sample (divided by ``n - 1``).

    Raises
    ------
    TypeError, ValueError
        If values are missing or not finite, or if the level is out of range.

    Examples
    --------
    >>> print(mean_interval([0.90, 0.91, 0.92]))
    0.9100 ± 0.0100 (n=3, 95% interval 0.8852 to 0.9348)
    """
    from scipy import stats  # slow to import, rarely needed

    checked = [check_number("each of values", value) for value in values]
    n = len(checked)
    if n < 2:
        raise ValueError(f"values must hold at least 2 numbers, got {n}")
    if not 0 < check_number("level", level) < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    mean, std = float(np.mean(checked)), float(np.std(checked, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * std / math.sqrt(n)
    return Interval(mean, std, mean - half, mean + half, n, level)


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, level: float = 0.95
) -> Interval:
    """Return the interval of ``ours - theirs``, run by run with the same seed.

    What a seed does to both runs cancels in the difference, so pairs show smaller effects than
    two separate means.

    Parameters
    ----------
    ours, theirs : sequence of float
        Values of the same seeds in the same order, at least two.
    level : float
        In ``(0, 1)``.

    Raises
    ------
    TypeError, ValueError
        If the lengths differ or values do not fit.

    Examples
    --------
    >>> print(paired_difference([0.91, 0.93, 0.92], [0.90, 0.91, 0.91]))
    0.0133 ± 0.0058 (n=3, 95% interval -0.0010 to 0.0277)
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"ours and theirs must be equally long, got {len(ours)} and {len(theirs)} values"
        )
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)], level=level)
