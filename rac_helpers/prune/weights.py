"""Which tensors of a model pruning is about."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, prune

from rac_helpers._check import check_not_shared

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *RECURRENT)
HIDDEN = ("_orig", "_g", "_v")  # what the hooks of spectral_norm and weight_norm compute from


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that pruning is about: those of all linear, conv and recurrent layers.

    Biases and the scales and shifts of normalisation are left out: they are few, and each of them
    matters much. So are embeddings, transposed convolutions, and attention that does not use
    ``nn.Linear``.

    Parameters
    ----------
    model : nn.Module
        With plain weights, each used in one place.

    Returns
    -------
    dict of str to nn.Parameter
        By their names in the model, such as ``"stem.0.weight"`` or ``"lstm.weight_hh_l0"``. These
        are the model's own tensors, not copies.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    ValueError
        If there are no such weights, a layer's weight is empty or shared with another layer, the
        weights are no plain parameters, as after ``torch.nn.utils.prune``, or ``torch.compile``
        has wrapped the model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    >>> {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    {'0.weight': (8, 3, 3, 3), '3.weight': (2, 8)}
    """
    check_module(model)
    weights = {}
    for prefix, layer in model.named_modules():
        if not isinstance(layer, PRUNABLE):
            continue
        _check_plain(prefix, layer)
        for name, value in layer.named_parameters(recurse=False):
            if name.startswith("weight"):
                weights[f"{prefix}.{name}".lstrip(".")] = value
    if not weights:
        raise ValueError(
            "model must have a linear, convolutional or recurrent layer, got one without weights "
            "to prune"
        )
    check_not_shared(model, weights)
    return weights


def check_module(model: nn.Module) -> nn.Module:
    """Return ``model`` if it is a module under its own names, else raise.

    Examples
    --------
    >>> check_module({})
    Traceback (most recent call last):
    TypeError: model must be a torch.nn.Module, got dict
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "model must be the module itself, not what torch.compile has wrapped around it: give "
            "model._orig_mod, or compile in place with model.compile()"
        )
    return model


def _check_plain(prefix: str, layer: nn.Module) -> None:
    """Raise if the layer's weights are computed from other tensors, or are not there yet."""
    hidden = any(name.endswith(HIDDEN) for name, _ in layer.named_parameters(recurse=False))
    if hidden or prune.is_pruned(layer) or parametrize.is_parametrized(layer):
        raise ValueError(
            f"model must have plain weights, but those of layer {prefix!r} are computed from other "
            "tensors, as in a model already pruned by torch.nn.utils.prune; make them plain first "
            "with torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
        )
    for name, value in layer.named_parameters(recurse=False):
        if nn.parameter.is_lazy(value):
            raise ValueError(f"layer {prefix!r} has no weights yet; run the model once first")
        if value.numel() == 0:
            shape = tuple(value.shape)
            raise ValueError(f"layer {prefix!r} must have weights, got {name} of shape {shape}")
