"""Two models, the same images: do they say the same?"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.metrics.score import batches_of_logits


def agreement(
    model: nn.Module, other: nn.Module, images: torch.Tensor, *, batch_size: int = 500
) -> dict[str, float]:
    """Compare what two models say about the same images.

    Parameters
    ----------
    model, other : nn.Module
        Return logits ``(n, num_classes)``. Used in eval mode.
    images : torch.Tensor
        ``(n, ...)``, ``n >= 1``.
    batch_size : int
        At least 1.

    Returns
    -------
    dict
        ``max_logit_difference``: the largest absolute difference of two logits;
        ``equal_predictions``: the share of images with the same largest logit, in ``[0, 1]``.

    Raises
    ------
    TypeError, ValueError
        If ``images`` is no tensor or empty, or if the logits differ in shape.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> agreement(model, model, torch.rand(4, 3))
    {'max_logit_difference': 0.0, 'equal_predictions': 1.0}
    """
    check_batch("images", images)
    check_int("batch_size", batch_size, low=1)
    split = images, torch.zeros(len(images))  # labels are not looked at
    ours, theirs = (
        torch.cat([logits for logits, _ in batches_of_logits(one, split, batch_size=batch_size)])
        for one in (model, other)
    )
    if ours.shape != theirs.shape:
        raise ValueError(
            f"both models must return logits of the same shape, "
            f"got {tuple(ours.shape)} and {tuple(theirs.shape)}"
        )
    return {
        "max_logit_difference": float((ours - theirs).abs().max()),
        "equal_predictions": float((ours.argmax(1) == theirs.argmax(1)).double().mean()),
    }


def check_batch(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return ``values`` if it is a tensor with at least one item along its first axis.

    Examples
    --------
    >>> check_batch("images", torch.zeros(0, 3))
    Traceback (most recent call last):
    ValueError: images must have shape (n, ...) with n >= 1, got shape (0, 3)
    """
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")
    if values.ndim < 2 or not len(values):
        raise ValueError(
            f"{name} must have shape (n, ...) with n >= 1, got shape {tuple(values.shape)}"
        )
    return values
