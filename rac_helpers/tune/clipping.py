"""Gradient clipping: a step is never longer than a bound.

Clipping makes long gradients shorter. It makes none longer: against vanishing gradients it does
nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from rac_helpers._check import check_number


def clip_by_norm_(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor, so that their common norm is at most ``max_norm``.

    The direction of the step stays what it was.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Their ``grad`` is changed in place; those without are passed over.
    max_norm : float
        Above 0.

    Returns
    -------
    float
        The norm before: of all gradients as one long vector. 0 if there are none.

    Raises
    ------
    TypeError, ValueError
        If ``max_norm`` is not above 0.

    References
    ----------
    Pascanu, Mikolov, Bengio: On the Difficulty of Training Recurrent Neural Networks, ICML 2013,
    section 3.2, algorithm 1. ``torch.nn.utils.clip_grad_norm_`` does the same, but for 1e-6 that
    it adds to the norm.

    Examples
    --------
    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_by_norm_([weight], 1.0), [round(x, 3) for x in weight.grad.tolist()]
    (5.0, [0.6, 0.8])
    >>> clip_by_norm_([weight], 2.0) <= 1.001, [round(x, 3) for x in weight.grad.tolist()]
    (True, [0.6, 0.8])
    """
    _check_bound("max_norm", max_norm)
    gradients = _gradients(parameters)
    norm = grad_norm(gradients)
    if norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / norm)
    return norm


def clip_by_value_(parameters: Iterable[nn.Parameter], max_value: float) -> None:
    """Cut each entry of the gradients to ``[-max_value, max_value]``.

    What the article describes. Large entries are cut, small ones stay, so the step points
    elsewhere.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Their ``grad`` is changed in place; those without are passed over.
    max_value : float
        Above 0.

    Raises
    ------
    TypeError, ValueError
        If ``max_value`` is not above 0.

    Examples
    --------
    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 0.5])
    >>> clip_by_value_([weight], 1.0)
    >>> weight.grad
    tensor([1.0000, 0.5000])
    """
    _check_bound("max_value", max_value)
    for gradient in _gradients(parameters):
        gradient.clamp_(-max_value, max_value)


class ClipNorm:
    """Clipping as ``before_step`` of :func:`rac_helpers.train.fit`; it keeps the norms it saw.

    Parameters
    ----------
    max_norm : float
        As in :func:`clip_by_norm_`.

    Attributes
    ----------
    norms : list of float
        The norm before clipping, of each step.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[-4.0]])
    >>> clip = ClipNorm(1.0)
    >>> clip(model, 1)
    >>> clip.norms, model.weight.grad.item()
    ([4.0], -1.0)
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = _check_bound("max_norm", max_norm)
        self.norms: list[float] = []

    def __call__(self, model: nn.Module, step: int) -> None:
        """Clip the gradients of ``model``."""
        self.norms.append(clip_by_norm_(model.parameters(), self.max_norm))


def grad_norm(gradients: Iterable[torch.Tensor]) -> float:
    """Return the norm of several tensors as one long vector; added up in float64.

    Examples
    --------
    >>> grad_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    5.0
    """
    return sum(gradient.double().square().sum().item() for gradient in gradients) ** 0.5


def _gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    if isinstance(parameters, torch.Tensor):  # its rows have no gradients: nothing would be done
        raise TypeError(f"parameters must be several tensors, got one {type(parameters).__name__}")
    return [value.grad for value in parameters if value.grad is not None]


def _check_bound(name: str, value: float) -> float:
    if check_number(name, value) <= 0:
        raise ValueError(f"{name} must be a finite number > 0, got {value}")
    return float(value)
