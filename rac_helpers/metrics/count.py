"""What can be counted without a clock: parameters, zeros, multiply-accumulates.

A MAC is one multiplication with one addition, that is two FLOPs (a count of operations). FLOPS
(operations per second) describe hardware, never a model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.metrics.score import eval_mode

_COUNTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_params(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Return the number of parameters; a weight used in two places counts once.

    Parameters
    ----------
    model : nn.Module
        Buffers, such as the running means of batch norm, are no parameters.
    trainable_only : bool
        Leave out parameters with ``requires_grad=False``.

    Examples
    --------
    >>> count_params(nn.Conv2d(3, 16, kernel_size=3))  # 16 * (3 * 3 * 3 + 1)
    448
    """
    return sum(
        value.numel() for value in model.parameters() if value.requires_grad or not trainable_only
    )


def count_nonzeros(model: nn.Module) -> int:
    """Return the number of parameters that are not exactly zero.

    Masks that are applied on the fly are not seen: write the zeros into the weights first.

    Parameters
    ----------
    model : nn.Module
        A weight used in two places counts once; buffers do not count.

    Returns
    -------
    int
        At most :func:`count_params`.

    Examples
    --------
    >>> layer = nn.Linear(4, 2, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> with torch.no_grad():
    ...     layer.weight[0] = 0
    >>> count_nonzeros(layer)
    4
    """
    return sum(int(torch.count_nonzero(value)) for value in model.parameters())


def sparsity(model: nn.Module) -> float:
    """Return the fraction of parameters that are exactly zero, in ``[0, 1]``.

    Parameters
    ----------
    model : nn.Module
        A weight used in two places counts once; buffers do not count.

    Returns
    -------
    float
        0 for a dense model, 1 for a model of zeros only.

    Raises
    ------
    ValueError
        If the model has no parameters.

    Examples
    --------
    >>> sparsity(nn.BatchNorm2d(8))  # its 8 offsets start at zero, its 8 factors at one
    0.5
    """
    total = count_params(model)
    if total == 0:
        raise ValueError("model must have at least one parameter, got none")
    return 1 - count_nonzeros(model) / total


def conv_params(
    c_in: int, c_out: int, kernel: int | tuple[int, ...], *, groups: int = 1, bias: bool = True
) -> int:
    r"""Return the parameters of a convolution by its formula.

    .. math:: C_{out} \left(\frac{C_{in}}{G} \, k_h k_w + b\right)

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out, at least 1, multiples of ``groups``.
    kernel : int or tuple of int
        Side lengths in pixels; one number means a square.
    groups : int
        At least 1; ``groups == c_in`` is a depthwise convolution.
    bias : bool
        One more parameter for each output channel.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> conv_params(64, 128, 3, bias=False)
    73728
    >>> conv_params(64, 64, 3, groups=64, bias=False)  # depthwise
    576
    """
    sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    for name, value in {"c_in": c_in, "c_out": c_out, "groups": groups}.items():
        check_int(name, value, low=1)
    for side in sides:
        check_int("kernel", side, low=1)
    if c_in % groups or c_out % groups:
        raise ValueError(
            f"c_in and c_out must be multiples of groups={groups}, got {c_in} and {c_out}"
        )
    return c_out * (c_in // groups * math.prod(sides) + bool(bias))


def macs_by_layer(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution and linear layer in one forward pass.

    Counted are ``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d`` and ``nn.Linear`` (a layer that is
    called twice counts twice). Not counted: bias, normalisation, activations, pooling, additions,
    and products written as functions (``x @ w``, attention). Zeros in the weights are counted:
    the processor multiplies by them, too.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode.
    example : torch.Tensor
        Input of the model. Give a batch of one: the count grows with the batch.

    Returns
    -------
    dict of str to int
        Layers by their names in the model, in the order of their first call.

    Raises
    ------
    ValueError
        If the model has such layers but calls none of them, as a compiled one.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    >>> macs_by_layer(model, torch.zeros(1, 3, 8, 8))  # 8*6*6 outputs * 3*3*3, then 288 * 10
    {'0': 7776, '2': 2880}
    """
    macs: dict[str, int] = {}

    def counter(name: str) -> Any:
        def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
            # weight[0] holds the factors of one output: (c_in / groups, *kernel) or (in_features,)
            macs[name] = macs.get(name, 0) + output.numel() * layer.weight[0].numel()

        return count

    layers = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, _COUNTED)]
    hooks = [layer.register_forward_hook(counter(name)) for name, layer in layers]
    try:
        with eval_mode(model), torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if layers and not macs:
        raise ValueError(
            "model must call its layers one by one to be counted, but it called none of "
            f"{len(layers)}; count a compiled model before it is compiled"
        )
    return macs


def count_macs(model: nn.Module, example: torch.Tensor) -> int:
    """Return the multiply-accumulates of one forward pass.

    :func:`macs_by_layer` says what is counted and what is not. Papers often call this number
    "FLOPs"; see :func:`count_flops`.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode.
    example : torch.Tensor
        Input of the model, a batch of one.

    Examples
    --------
    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))  # 8*32*32 * 27
    221184
    """
    return sum(macs_by_layer(model, example).values())


def count_flops(model: nn.Module, example: torch.Tensor) -> int:
    """Return the floating-point operations of one forward pass: two for each MAC.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode.
    example : torch.Tensor
        Input of the model, a batch of one.

    Returns
    -------
    int
        Twice :func:`count_macs`, which says what is counted.

    Examples
    --------
    >>> count_flops(nn.Linear(100, 10), torch.zeros(1, 100))
    2000
    """
    return 2 * count_macs(model, example)
