"""Guards for arguments: one sentence that names the argument, the allowed range and the value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real

import torch
from torch import nn


def check_int(name: str, value: int, *, low: int | None = None, high: int | None = None) -> int:
    """Return ``value`` as an ``int`` in ``[low, high]``, else raise.

    Examples
    --------
    >>> check_int("num_ops", 2, low=0)
    2
    >>> check_int("num_ops", -1, low=0)
    Traceback (most recent call last):
    ValueError: num_ops must be an integer >= 0, got -1
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer{_span(low, high)}, got {value!r}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} must be an integer{_span(low, high)}, got {value}")
    return int(value)


def check_number(
    name: str, value: float, *, low: float | None = None, high: float | None = None
) -> float:
    """Return ``value`` as a finite ``float`` in ``[low, high]``, else raise.

    Examples
    --------
    >>> check_number("factor", float("nan"), low=0)
    Traceback (most recent call last):
    ValueError: factor must be a finite number >= 0, got nan
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a finite number{_span(low, high)}, got {value!r}")
    below = low is not None and value < low
    above = high is not None and value > high
    if not math.isfinite(value) or below or above:
        raise ValueError(f"{name} must be a finite number{_span(low, high)}, got {value}")
    return float(value)


def check_module(name: str, model: nn.Module) -> nn.Module:
    """Return ``model`` if it is a module, else raise.

    Examples
    --------
    >>> check_module("model", {})
    Traceback (most recent call last):
    TypeError: model must be a torch.nn.Module, got dict
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}")
    return model


def check_not_shared(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Raise if one of ``weights`` is used in two places: what changes one would change the other.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> model[1].weight = model[0].weight
    >>> check_not_shared(model, {"0.weight": model[0].weight})
    Traceback (most recent call last):
    ValueError: model must not share weights, but these are one tensor: ['0.weight', '1.weight']
    """
    places: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        places.setdefault(_place(value), []).append(name)
    for value in weights.values():
        names = places.get(_place(value), [])
        if len(names) > 1:
            raise ValueError(f"model must not share weights, but these are one tensor: {names}")


def _place(value: torch.Tensor) -> int:
    """Where a tensor is; one without memory, on the meta device or not made yet, is where it is."""
    return id(value) if nn.parameter.is_lazy(value) else value.data_ptr() or id(value)


def check_floats(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return ``values`` if it is a tensor of floats, else raise.

    Examples
    --------
    >>> check_floats("matrix", torch.tensor([1, 2]))
    Traceback (most recent call last):
    TypeError: matrix must be a tensor of floats, got torch.int64
    """
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a tensor of floats, got {got}")
    return values


def check_images(name: str, images: torch.Tensor) -> torch.Tensor:
    """Return ``images`` if it is a uint8 tensor of shape ``(..., 3, H, W)``, else raise.

    Examples
    --------
    >>> check_images("images", torch.zeros(3, 8, 8))
    Traceback (most recent call last):
    TypeError: images must be a uint8 tensor of shape (..., 3, H, W), got dtype torch.float32; \
convert with v2.functional.to_dtype(images, torch.uint8, scale=True)
    """
    expected = f"{name} must be a uint8 tensor of shape (..., 3, H, W)"
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"{expected}, got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(
            f"{expected}, got dtype {images.dtype}; "
            "convert with v2.functional.to_dtype(images, torch.uint8, scale=True)"
        )
    shape = tuple(images.shape)
    if images.ndim < 3 or shape[-3] != 3:
        hint = "; repeat a grey channel with images.expand(..., 3, H, W)" if _grey(shape) else ""
        raise ValueError(f"{expected}, got shape {shape}{hint}")
    if 0 in shape[-2:]:
        raise ValueError(f"{expected} with H, W >= 1, got shape {shape}")
    return images


def check_labels(
    name: str, labels: torch.Tensor, *, num_classes: int | None = None
) -> torch.Tensor:
    """Return ``labels`` if it is a 1-D int64 tensor with values in ``[0, num_classes)``.

    ``None`` allows any values.

    Examples
    --------
    >>> check_labels("labels", torch.tensor([0, 12]), num_classes=10)
    Traceback (most recent call last):
    ValueError: labels must be in [0, 9], got 12 at position 1
    """
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        got = (
            f"{labels.dtype} of shape {tuple(labels.shape)}"
            if isinstance(labels, torch.Tensor)
            else type(labels).__name__
        )
        raise TypeError(f"{name} must be an int64 tensor of shape (n,), got {got}")
    if num_classes is None:
        return labels
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        position = int(wrong[0])
        raise ValueError(
            f"{name} must be in [0, {num_classes - 1}], "
            f"got {int(labels[position])} at position {position}"
        )
    return labels


def check_pair(
    name: str, split: tuple[torch.Tensor, torch.Tensor], *, num_classes: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``split`` if it holds images and as many labels, at least one, else raise.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    split : (images, labels)
        uint8 ``(n, 3, H, W)`` and int64 ``(n,)``, ``n >= 1``.
    num_classes : int, optional
        Labels must be in ``[0, num_classes)``. ``None`` allows any.

    Examples
    --------
    >>> check_pair("train", (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0])))
    Traceback (most recent call last):
    ValueError: train must have as many labels as images, got 2 images and 1 labels
    """
    if not isinstance(split, tuple) or len(split) != 2:
        raise TypeError(f"{name} must be a Split (images, labels), got {type(split).__name__}")
    images, labels = split
    shape = tuple(check_images(f"{name}.images", images).shape)
    if len(shape) != 4:
        raise ValueError(f"{name}.images must have shape (n, 3, H, W), got {shape}")
    check_labels(f"{name}.labels", labels, num_classes=num_classes)
    if len(images) != len(labels):
        raise ValueError(
            f"{name} must have as many labels as images, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    if not len(labels):
        raise ValueError(f"{name} must hold at least one image (n >= 1), got none")
    return split


def _grey(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) >= 3 and shape[-3] == 1)


def _span(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" in [{low}, {high}]"
    if low is not None:
        return f" >= {low}"
    return f" <= {high}" if high is not None else ""


def check_generator(generator: torch.Generator) -> torch.Generator:
    """Return ``generator`` if it is one of the CPU, else raise: None would mean global state.

    Examples
    --------
    >>> check_generator(0)
    Traceback (most recent call last):
    TypeError: generator must be a torch.Generator, got int
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be one of the CPU, got device {generator.device}")
    return generator
