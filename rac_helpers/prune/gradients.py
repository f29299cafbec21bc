"""Derivatives of the mean loss by the weights, without touching the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from rac_helpers.metrics.score import device_of, eval_mode
from rac_helpers.prune.weights import prunable

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
LossFn = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Tensors = Sequence[torch.Tensor]


def mean_over_inputs(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    measure: Callable[[torch.Tensor, Tensors], Tensors],
) -> dict[str, torch.Tensor]:
    """Return the mean of ``measure(loss, weights)`` over all inputs; the model stays as it was.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode, so batch norm takes (and keeps) its running means.
    batches : iterable of (inputs, labels)
        A batch counts as often as it has labels.
    loss_fn : callable
        ``loss_fn(outputs, labels)`` returns the mean loss of a batch.
    measure : callable
        ``measure(loss, weights)`` returns one tensor for each weight, such as the gradients.

    Examples
    --------
    >>> layer, batch = nn.Linear(2, 1, bias=False), (torch.ones(1, 2), torch.zeros(1))
    >>> mean_over_inputs(layer, [batch], lambda outputs, _: outputs.sum(), torch.autograd.grad)
    {'weight': tensor([[1., 1.]])}
    """
    weights = prunable(model)
    sums, seen = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0
    with eval_mode(model), torch.enable_grad(), _trainable(list(weights.values())):
        for batch in batches:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TypeError(
                    "batches must yield pairs (inputs, labels); one pair alone goes into a list, "
                    f"[split]; got {type(batch).__name__}"
                )
            inputs, labels = (part.to(device_of(model)) for part in batch)
            loss = _checked(loss_fn(model(inputs), labels))
            parts = measure(loss, list(weights.values()))
            for total, part in zip(sums.values(), parts, strict=True):
                total += len(labels) * part.detach()
            seen += len(labels)
    if not seen:
        raise ValueError("batches must hold at least one batch, got none")
    return {name: total / seen for name, total in sums.items()}


@contextlib.contextmanager
def _trainable(weights: Tensors) -> Iterator[None]:
    """Let gradients flow to frozen weights, too, inside a ``with`` block."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_()
        yield
    finally:
        for weight, needed in zip(weights, before, strict=True):
            weight.requires_grad_(needed)


def _checked(loss: torch.Tensor) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        got = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn must return a tensor of shape (), got {got}")
    if not loss.isfinite():
        raise RuntimeError(f"the loss must be finite, got {loss.item()}")
    return loss
