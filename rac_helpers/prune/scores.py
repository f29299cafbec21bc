"""How much each weight is worth: five scores, from blind to dear.

A score is a dict from a weight's name to a tensor of the weight's shape; higher is more worth
keeping. What one would like to know is by how much the loss L grows if weight w becomes 0. With
gradient g and second derivative h that is, to second order,

.. math:: L(0) - L(w) \\approx -g w + \\tfrac{1}{2} h w^2

and each score looks at a part of it: :func:`magnitude_scores` at w, :func:`gradient_scores` at g,
:func:`taylor_scores` at the first term, :func:`obd_scores` at the second. :func:`random_scores`
looks at nothing, which makes it the one to beat.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_floats, check_generator, check_int
from rac_helpers.prune.gradients import Batches, LossFn, Tensors, mean_over_inputs
from rac_helpers.prune.weights import prunable

Scores = Mapping[str, torch.Tensor]  # whoever scores returns a dict; who reads, takes any


def magnitude_scores(model: nn.Module) -> Scores:
    """Score each weight by its size, \\|w\\|.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.

    Returns
    -------
    dict of str to torch.Tensor
        At least 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`.

    References
    ----------
    Han, Pool, Tran and Dally, 2015. Learning both weights and connections for efficient neural
    networks, section 3.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -2.0]]))
    >>> magnitude_scores(layer)
    {'weight': tensor([[0.5000, 2.0000]])}
    """
    return {name: weight.detach().abs() for name, weight in prunable(model).items()}


def random_scores(model: nn.Module, *, generator: torch.Generator) -> Scores:
    """Score each weight by a random number.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.
    generator : torch.Generator
        Source of the numbers, on the CPU.

    Returns
    -------
    dict of str to torch.Tensor
        In ``[0, 1)``.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`; if ``generator`` is none of the CPU.

    Examples
    --------
    >>> random_scores(nn.Linear(2, 1), generator=torch.Generator().manual_seed(0))
    {'weight': tensor([[0.4963, 0.7682]])}
    """
    check_generator(generator)
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in prunable(model).items()
    }


def gradient_scores(
    model: nn.Module, batches: Batches, *, loss_fn: LossFn = F.cross_entropy
) -> Scores:
    """Score each weight by the slope of the loss there, \\|g\\|.

    The slope alone says little: a step of size w is what cutting means, and at the end of training
    all slopes are near 0. It is here to be compared.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`. Used in eval mode; nothing of it is changed, nor its ``.grad``.
    batches : iterable of (inputs, labels)
        Each as large as memory allows; ``[split]`` is one batch of a whole ``data.Split``.
    loss_fn : callable
        ``loss_fn(outputs, labels)`` returns the mean loss of a batch.

    Returns
    -------
    dict of str to torch.Tensor
        At least 0. The gradient is that of the mean loss over all inputs, however they are cut
        into batches.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`; if ``batches`` does not yield pairs, or ``loss_fn`` no scalar.
    RuntimeError
        If the loss is not finite.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> batch = (torch.tensor([[3.0, -1.0]]), torch.tensor([0.0]))
    >>> gradient_scores(layer, [batch], loss_fn=lambda outputs, _: outputs.sum())
    {'weight': tensor([[3., 1.]])}
    """
    gradients = mean_over_inputs(model, batches, loss_fn, _gradients)
    return {name: gradient.abs() for name, gradient in gradients.items()}


def taylor_scores(
    model: nn.Module, batches: Batches, *, loss_fn: LossFn = F.cross_entropy
) -> Scores:
    """Score each weight by the change of the loss to first order, \\|g w\\|.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`. Used in eval mode; nothing of it is changed, nor its ``.grad``.
    batches : iterable of (inputs, labels)
        Each as large as memory allows; ``[split]`` is one batch of a whole ``data.Split``.
    loss_fn : callable
        ``loss_fn(outputs, labels)`` returns the mean loss of a batch.

    Returns
    -------
    dict of str to torch.Tensor
        At least 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`; if ``batches`` does not yield pairs, or ``loss_fn`` no scalar.
    RuntimeError
        If the loss is not finite.

    References
    ----------
    Lee, Ajanthan and Torr, 2019. SNIP: single-shot network pruning based on connection
    sensitivity, section 4; they divide by the sum, which changes no order.

    Molchanov et al., 2019. Importance estimation for neural network pruning, section 3; they
    take the square, which changes no order either.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -2.0]]))
    >>> batch = (torch.tensor([[3.0, -1.0]]), torch.tensor([0.0]))
    >>> taylor_scores(layer, [batch], loss_fn=lambda outputs, _: outputs.sum())
    {'weight': tensor([[1.5000, 2.0000]])}
    """
    gradients = mean_over_inputs(model, batches, loss_fn, _gradients)
    return {name: (gradients[name] * w.detach()).abs() for name, w in prunable(model).items()}


def obd_scores(
    model: nn.Module,
    batches: Batches,
    *,
    generator: torch.Generator,
    draws: int = 1,
    loss_fn: LossFn = F.cross_entropy,
) -> Scores:
    r"""Score each weight by the change of the loss to second order at a minimum, ½ h w².

    "Optimal brain damage": h is the diagonal of the Hessian H, the matrix of second derivatives.
    That matrix has a row for each weight, so it is not computed. With random signs z,

    .. math:: \mathrm{diag}(H) = E[z \odot H z]

    and H z is the gradient of (gradient · z). Each batch draws z anew, ``draws`` times. The
    estimate is exact if H is diagonal; else its error falls with the root of the number of draws.
    (LeCun et al. propagate approximate second derivatives back through the layers instead.)

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`. Used in eval mode; nothing of it is changed, nor its ``.grad``.
    batches : iterable of (inputs, labels)
        Each as large as memory allows; ``[split]`` is one batch of a whole ``data.Split``.
    generator : torch.Generator
        Source of the signs, on the CPU.
    draws : int
        Signs drawn for each batch, at least 1.
    loss_fn : callable
        ``loss_fn(outputs, labels)`` returns the mean loss of a batch. It must be twice
        differentiable.

    Returns
    -------
    dict of str to torch.Tensor
        Can be negative: away from a minimum the loss may curve down, and the estimate is noisy.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`; if ``batches`` does not yield pairs, or ``loss_fn`` no scalar.
    RuntimeError
        If the loss is not finite.

    References
    ----------
    LeCun, Denker and Solla, 1990. Optimal brain damage, section 2.

    Bekas, Kokiopoulou and Saad, 2007. An estimator for the diagonal of a matrix, section 2.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> target = layer.weight.data.copy_(torch.tensor([[0.5, -2.0]])).clone()
    >>> batch = (torch.eye(2), target.T)  # loss = ((w0 - 0.5)² + (w1 + 2)²) / 2, so h = 1
    >>> taylor_scores(layer, [batch], loss_fn=F.mse_loss)["weight"]  # at a minimum it sees nothing
    tensor([[0., 0.]])
    >>> signs = torch.Generator().manual_seed(0)
    >>> obd_scores(layer, [batch], generator=signs, loss_fn=F.mse_loss)["weight"]
    tensor([[0.1250, 2.0000]])
    """
    check_generator(generator)
    check_int("draws", draws, low=1)

    def diagonal(loss: torch.Tensor, weights: Tensors) -> Tensors:
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        estimates = [_z_times_hz(gradients, weights, generator) for _ in range(draws)]
        return [
            torch.stack(of_one_weight).mean(0) for of_one_weight in zip(*estimates, strict=True)
        ]

    h = mean_over_inputs(model, batches, loss_fn, diagonal)
    return {name: 0.5 * h[name] * w.detach().square() for name, w in prunable(model).items()}


def check_scores(scores: Scores) -> Scores:
    """Return ``scores`` if they can be sorted, else raise.

    Examples
    --------
    >>> check_scores({"weight": torch.tensor([float("nan")])})
    Traceback (most recent call last):
    ValueError: scores['weight'] must not be NaN, got 1 NaN
    """
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a mapping of names, got {type(scores).__name__}")
    if not scores:
        raise ValueError("scores must hold at least one layer, got none")
    for name, score in scores.items():
        check_floats(f"scores[{name!r}]", score)
        if score.numel() == 0:
            raise ValueError(f"scores[{name!r}] must not be empty, got {tuple(score.shape)}")
        if score.isnan().any():
            raise ValueError(
                f"scores[{name!r}] must not be NaN, got {int(score.isnan().sum())} NaN"
            )
    return scores


def _gradients(loss: torch.Tensor, weights: Tensors) -> Tensors:
    return torch.autograd.grad(loss, weights, materialize_grads=True)  # 0 where w is not used


def _z_times_hz(gradients: Tensors, weights: Tensors, generator: torch.Generator) -> Tensors:
    """One estimate of the diagonal of the Hessian."""
    z = [(2 * torch.randint(2, w.shape, generator=generator) - 1).to(w) for w in weights]
    g_times_z = sum((g * signs).sum() for g, signs in zip(gradients, z, strict=True))
    if not g_times_z.requires_grad:  # the slopes are constant: the loss is a straight line
        return [torch.zeros_like(w) for w in weights]
    h_times_z = torch.autograd.grad(g_times_z, weights, retain_graph=True, materialize_grads=True)
    return [signs * product for signs, product in zip(z, h_times_z, strict=True)]
