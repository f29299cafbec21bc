"""One bit and less than two: binary and ternary weights, a sign and a factor.

With so few codes the grid of :func:`symmetric_params` fits badly; these two choose the factor
that goes best with the signs.
"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers._check import check_number
from rac_helpers.quantize.ranges import check_values


def binary_weights(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return signs and a factor for each output channel: ``weights ≈ factor * sign``.

    The mean size of the weights is the factor with the least squared error.

    Parameters
    ----------
    weights : torch.Tensor
        Floats of shape ``(out, ...)``, finite.

    Returns
    -------
    signs : torch.Tensor
        int8, -1 or 1, in the shape of the weights; 0.0 gets 1.
    factors : torch.Tensor
        float32 of shape ``(out,)``, >= 0.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` are not as described.

    References
    ----------
    Rastegari et al., 2016. XNOR-Net, section 3.1.

    Examples
    --------
    >>> signs, factors = binary_weights(torch.tensor([[0.5, -1.5], [2.0, 0.0]]))
    >>> signs.tolist(), factors.tolist()
    ([[1, -1], [1, 1]], [1.0, 1.0])
    """
    _check_matrix(weights)
    signs = torch.where(weights >= 0, 1, -1).to(torch.int8)
    return signs, weights.detach().float().abs().flatten(1).mean(dim=1)


def ternary_weights(
    weights: torch.Tensor, *, threshold: float = 0.7
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes -1, 0, 1 and a factor for each output channel.

    What is smaller than ``threshold`` times the mean size becomes 0; the factor is the mean size
    of the others.

    Parameters
    ----------
    weights : torch.Tensor
        Floats of shape ``(out, ...)``, finite.
    threshold : float
        At least 0. 0.7 is near the best one for weights that are normally distributed.

    Returns
    -------
    codes : torch.Tensor
        int8 in the shape of the weights.
    factors : torch.Tensor
        float32 of shape ``(out,)``, >= 0.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` are not as described, or ``threshold`` is below 0.

    References
    ----------
    Li, Zhang and Liu, 2016. Ternary weight networks, section 2.

    Examples
    --------
    >>> codes, factors = ternary_weights(torch.tensor([[0.1, -1.0, 2.0]]))
    >>> codes.tolist(), factors.tolist()
    ([[0, -1, 1]], [1.5])
    """
    _check_matrix(weights)
    check_number("threshold", threshold, low=0)
    rows = weights.detach().float().flatten(1)
    kept = rows.abs() > threshold * rows.abs().mean(dim=1, keepdim=True)
    codes = (rows.sign() * kept).to(torch.int8).reshape(weights.shape)
    return codes, (rows.abs() * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


class BinaryQuantizer(nn.Module):
    """Weights go to their sign times the factor of their channel; gradients pass unchanged.

    The factor follows the weights. For ``weights`` of :func:`insert_quantizers`.

    References
    ----------
    Rastegari et al., 2016. XNOR-Net, section 3.1.

    Examples
    --------
    >>> weight = torch.tensor([[0.5, -1.5]], requires_grad=True)
    >>> BinaryQuantizer()(weight).tolist()
    [[1.0, -1.0]]
    """

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """Take weights ``(out, ...)``; return as many."""
        values = weights.detach().float()
        factors = values.abs().flatten(1).mean(dim=1).reshape(-1, *[1] * (values.ndim - 1))
        rounded = torch.where(values >= 0, factors, -factors)
        return rounded + (weights - weights.detach())  # exactly what is rounded


def _check_matrix(weights: torch.Tensor) -> None:
    check_values("weights", weights)
    if weights.ndim < 2:
        raise ValueError(f"weights must have shape (out, in, ...), got {tuple(weights.shape)}")
