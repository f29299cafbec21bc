"""Batch norm, folded into the layer before it: two linear steps become one.

In eval mode batch norm multiplies each channel by ``gamma / sqrt(var + eps)`` and adds a number.
The convolution before it can do that with its own weights and bias. So the weights that are
quantized are the ones that are multiplied, and nothing of batch norm is left to store or compute.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from rac_helpers._check import check_module
from rac_helpers.quantize.operations import Results, list_operations

# For each layer that batch norm can go into: the dimensions of its output.
_DIMENSIONS = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
_ROUNDINGS = 1000  # the outputs may differ by so many of the smallest relative steps


def fold_batch_norm(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a copy of ``model`` in eval mode that computes the same without batch norm.

    The layers keep their names; each batch norm becomes an ``nn.Identity``, and the convolution
    or linear layer before it gets a bias. Outputs differ by float rounding only.

    Parameters
    ----------
    model : nn.Module
        Not changed. Its batch norms are used as in eval mode: with the running mean and variance.
    example : torch.Tensor
        Input of the model, with a batch dimension: the result is compared on it.

    Returns
    -------
    nn.Module
        In eval mode. Training it further would be training without batch norm.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    ValueError
        If ``torch.fx`` cannot list the operations, if a batch norm does not directly follow a
        convolution or linear layer that is used for nothing else, or if the copy computes
        something else.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 3.2.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    >>> folded = fold_batch_norm(model, torch.rand(1, 3, 5, 5))
    >>> [type(layer).__name__ for layer in folded], folded[0].bias.shape
    (['Conv2d', 'Identity', 'ReLU'], torch.Size([8]))
    """
    check_module("model", model)
    folded = copy.deepcopy(model).eval()
    results = Results(folded, list_operations(folded))
    with torch.no_grad():
        expected = tree_leaves(results.run(example))
        for layer, norm in _pairs(results):
            _fold_(layer, norm)
            _replace_(folded, norm, nn.Identity())
        _check_same(expected, tree_leaves(folded(example)))
    return folded


def _pairs(results: Results) -> list[tuple[nn.Module, nn.Module]]:
    """Return the layers with the batch norms after them."""
    found = []
    for node in results.values:
        if node.op == "call_function" and node.target in (F.batch_norm, torch.batch_norm):
            raise ValueError(f"model must have batch norms as modules, got a function in {node}")
        norm = _module(results, node)
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            found.append((_layer_before(results, node), norm))
    return found


def _layer_before(results: Results, node: fx.Node) -> nn.Module:
    """Return the layer whose output goes to the batch norm of ``node`` and nowhere else."""
    before, norm = node.all_input_nodes[0], _module(results, node)
    layer = _module(results, before)
    kind = next((kind for kind in _DIMENSIONS if isinstance(layer, kind)), None)
    if kind is None:
        what = type(layer).__name__ if layer else before
        _refuse(node, f"a convolution or linear layer before it, got {what}")
    if results.values[before].ndim != _DIMENSIONS[kind]:
        shape = tuple(results.values[before].shape)
        _refuse(node, f"{_DIMENSIONS[kind]} dimensions (n, channels, ...), got {shape}")
    if len(before.users) > 1:
        _refuse(node, f"the output of {before.target!r} for itself, got {len(before.users)} users")
    for module, call in ((layer, before), (norm, node)):
        calls = sum(_module(results, other) is module for other in results.values)
        if calls > 1:
            _refuse(node, f"{call.target!r} called once, got {calls} calls")
    if "weight" not in layer._parameters:
        _refuse(node, f"a plain weight in {before.target!r}, got one that is computed")
    if norm.running_mean is None:
        _refuse(node, "a running mean and variance, got track_running_stats=False")
    return layer


def _module(results: Results, node: fx.Node) -> nn.Module | None:
    return results.fetch_attr(node.target) if node.op == "call_module" else None


def _refuse(node: fx.Node, need: str) -> None:
    raise ValueError(f"model must be one whose batch norm {node.target!r} has {need}")


def _fold_(layer: nn.Module, norm: nn.Module) -> None:
    """Write ``norm(layer(x))`` into the weight and the bias of ``layer``."""
    weight = layer.weight.double()  # in the end rounded once
    factor = 1 / (norm.running_var.double() + norm.eps).sqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    bias = -norm.running_mean.double() * factor
    if layer.bias is not None:
        bias = bias + layer.bias.double() * factor
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    kind, trained = layer.weight.dtype, layer.weight.requires_grad
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=trained)
    layer.bias = nn.Parameter(bias.to(kind), requires_grad=trained)


def _replace_(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` is a part of ``model``."""
    for module in list(model.modules()):
        for name, part in module._modules.items():
            if part is old:
                module._modules[name] = new


def _check_same(expected: list, found: list) -> None:
    """Compare the outputs: what ``torch.fx`` does not see may use a layer's weights, too."""
    for one, other in zip(expected, found, strict=True):
        if not isinstance(one, torch.Tensor) or not one.is_floating_point() or not one.numel():
            continue
        allowed = _ROUNDINGS * torch.finfo(one.dtype).eps * one.abs().max().item()
        if not torch.allclose(one, other, rtol=0, atol=allowed, equal_nan=True):
            raise ValueError(
                "model must use the weights before a batch norm only there, but folded its "
                f"outputs differ by up to {(one - other).abs().max().item():.3g}"
            )
