"""Which scale and zero point for which layer: from its weights, and from what goes into it.

Weights are all known, so their scales can be computed: by the largest weight of each channel, or
by the least error. What goes into a layer depends on the pictures: a few hundred are shown to the
network and an observer at each layer remembers what it needs (calibration).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.metrics.score import device_of, eval_mode
from rac_helpers.quantize.codes import fake_quantize
from rac_helpers.quantize.layers import check_names, quantizable
from rac_helpers.quantize.observers import MinMax
from rac_helpers.quantize.params import QParams, symmetric_params
from rac_helpers.quantize.ranges import check_values

Bits = int | Mapping[str, int]


class Observer(Protocol):
    """What remembers the values that it is shown, as far as it takes to find a range."""

    def observe(self, values: torch.Tensor) -> None:
        """Take some values into account."""

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smallest and the largest value that shall have a code."""

    def params(self, bits: int = 8, *, signed: bool = True) -> QParams:
        """Return scale and zero point."""


def weight_params(
    model: nn.Module,
    bits: Bits = 8,
    *,
    choose: Callable[[torch.Tensor, int], QParams] | None = None,
) -> dict[str, QParams]:
    """Return parameters for the weights of each layer, by the layer's name.

    Parameters
    ----------
    model : nn.Module
        See :func:`quantizable`.
    bits : int or mapping of str to int
        In [2, 16]; a mapping names the layers that are meant, others are left out.
    choose : callable, optional
        ``choose(weight, bits)`` returns the :class:`QParams` of one weight; default
        :func:`largest_weight`.

    Returns
    -------
    dict of str to QParams
        For :func:`insert_quantizers`.

    Raises
    ------
    TypeError, ValueError
        If ``bits`` is out of range or names a layer that is not there.

    Examples
    --------
    >>> params = weight_params(nn.Sequential(nn.Linear(4, 3)), bits=4)
    >>> params["0"].scale.shape, params["0"].qmax
    (torch.Size([3]), 7)
    """
    choose = largest_weight if choose is None else choose
    layers = quantizable(model)
    return {name: choose(layers[name].weight, b) for name, b in bits_by_layer(layers, bits).items()}


def largest_weight(weight: torch.Tensor, bits: int) -> QParams:
    """Return a scale for each output channel that brings its largest weight to the last code.

    Examples
    --------
    >>> largest_weight(torch.tensor([[0.5, -1.0], [0.0, 0.25]]), bits=2).scale
    tensor([1.0000, 0.2500])
    """
    return symmetric_params(weight.detach().abs().flatten(1).amax(dim=1), bits, axis=0)


def least_error(weight: torch.Tensor, bits: int, *, num_shares: int = 60) -> QParams:
    """Return the scale for each output channel that makes the squared error of rounding smallest.

    With few bits it pays to clamp the largest weights, so that the steps get finer. Tried are
    ``num_shares`` shares of the largest weight, up to all of it.

    Parameters
    ----------
    weight : torch.Tensor
        Shape ``(out, ...)``.
    bits : int
        In [2, 16].
    num_shares : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Banner et al., 2019. Post-training 4-bit quantization of convolutional networks for
    rapid-deployment, section 3 (which computes the best share from a distribution instead).

    Examples
    --------
    >>> weight = torch.tensor([[0.9, -1.0, 1.1, 2.0]])
    >>> largest_weight(weight, bits=2).scale, least_error(weight, bits=2).scale
    (tensor([2.]), tensor([1.2333]))
    """
    check_int("num_shares", num_shares, low=1)
    rows = check_values("weight", weight).detach().float().flatten(1)
    bound = rows.abs().amax(dim=1)
    best, least = largest_weight(rows, bits).scale, torch.full_like(bound, torch.inf)
    for number in range(num_shares, 0, -1):
        params = symmetric_params(bound * number / num_shares, bits, axis=0)
        error = (fake_quantize(rows, params) - rows).square().sum(dim=1)
        best = torch.where(error < least, params.scale, best)
        least = torch.minimum(error, least)
    zero_point = torch.zeros_like(best, dtype=torch.int32)
    return QParams(best, zero_point, params.qmin, params.qmax, axis=0)


def input_params(
    model: nn.Module,
    images: torch.Tensor,
    bits: Bits = 8,
    *,
    make_observer: Callable[[], Observer] = MinMax,
    batch_size: int = 250,
) -> dict[str, QParams]:
    """Return parameters for the inputs of each layer, from what goes in for calibration images.

    Inputs that are never negative, such as those after a ReLU, get codes from 0 on, others codes
    around 0.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode.
    images : torch.Tensor
        uint8 or float ``(n, ...)``, what the model takes; a few hundred training images.
    bits : int or mapping of str to int
        In [1, 16]; a mapping names the layers that are meant.
    make_observer : callable
        Makes an observer for each layer, such as :class:`MinMax`, or
        ``functools.partial(Percentile, 99.9)``.
    batch_size : int
        At least 1.

    Returns
    -------
    dict of str to QParams
        One scale and zero point a layer.

    Raises
    ------
    TypeError, ValueError
        If ``images`` are none, ``bits`` is out of range or names a layer that is not there, or if
        a layer is not used.

    Examples
    --------
    >>> params = input_params(nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), torch.eye(4), bits=4)
    >>> params["1"].qmax, round(params["1"].scale.item(), 4)
    (15, 0.0667)
    """
    bits = bits_by_layer(quantizable(model), bits)
    observers = observe_inputs(model, images, make_observer, names=bits, batch_size=batch_size)
    # an observer of a layer that was never called raises here
    signed = {name: bool(observer.range()[0] < 0) for name, observer in observers.items()}
    return {name: o.params(bits[name], signed=signed[name]) for name, o in observers.items()}


def observe_inputs(
    model: nn.Module,
    images: torch.Tensor,
    make_observer: Callable[[], Observer],
    *,
    names: Iterable[str] | None = None,
    batch_size: int = 250,
) -> dict[str, Observer]:
    """Show images to a model and return an observer of the inputs of each layer.

    Parameters
    ----------
    model, images, make_observer, batch_size
        As for :func:`input_params`.
    names : iterable of str, optional
        The layers that are meant; default all.

    Raises
    ------
    TypeError, ValueError
        As :func:`input_params`.

    Examples
    --------
    >>> model = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
    >>> observe_inputs(model, torch.eye(4) - 0.5, MinMax)["1"].range()
    (tensor(0.), tensor(0.5000))
    """
    check_int("batch_size", batch_size, low=1)
    if not isinstance(images, torch.Tensor) or not len(images):
        raise ValueError("images must be a tensor of at least one calibration image, got none")
    layers = quantizable(model)
    names = list(layers) if names is None else check_names("names", names, layers)
    observers = {name: make_observer() for name in names}
    hooks = [
        layers[name].register_forward_pre_hook(_showing(observer))
        for name, observer in observers.items()
    ]
    try:
        with eval_mode(model), torch.no_grad():
            for batch in images.split(batch_size):
                model(batch.to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return observers


def bits_by_layer(layers: Mapping[str, nn.Module], bits: Bits) -> dict[str, int]:
    """Return the bits of each layer that is meant, in the order of the model.

    Examples
    --------
    >>> bits_by_layer({"conv": nn.Conv2d(3, 8, 3), "fc": nn.Linear(8, 2)}, 4)
    {'conv': 4, 'fc': 4}
    """
    if not isinstance(bits, Mapping):
        bits = dict.fromkeys(layers, bits)
    chosen = {name: bits[name] for name in check_names("bits", bits, layers)}
    return {name: check_int("bits", b, low=1, high=16) for name, b in chosen.items()}


def _showing(observer: Observer) -> Callable:
    def hook(layer: nn.Module, inputs: tuple) -> None:
        observer.observe(inputs[0].detach().float())

    return hook
