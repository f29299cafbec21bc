"""Checks of chapter 05: a layer of codes, and its bytes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, run
from rac_helpers.exercises.tensors import first_match, floats, integers, pair
from rac_helpers.metrics import conv_params
from rac_helpers.rng import make_generator


def check_quantize_channels(
    quantize_channels: Callable[[Tensor, int], tuple[Tensor, Tensor]],
) -> str:
    """Check ``quantize_channels(weights, bits)``: symmetric, with a scale per output channel.

    Parameters
    ----------
    quantize_channels : callable
        Takes weights ``(out, in, k, k)`` or ``(out, in)`` and the bits; returns a pair: the codes,
        integers of the same shape, and the scales, floats of shape ``(out,)``. The largest size in
        a channel gets the code ``2**(bits-1) - 1`` or its negative. Of a channel of zeros any
        scale above 0 will do.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> def quantize_channels(weights, bits):
    ...     scale = weights.abs().max() / (2 ** (bits - 1) - 1)
    ...     return (weights / scale).round().int(), scale.repeat(len(weights))
    >>> check_quantize_channels(quantize_channels)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is one scale for the whole tensor, repeated: each \
channel needs its own
    """
    for shape, bits in [((6, 4, 3, 3), 8), ((3, 3, 3, 3), 4), ((5, 5), 4)]:
        weights = _channels(shape)
        codes, scales = _codes_and_scales(quantize_channels, weights, bits)
        _compare_scales(scales, weights, bits)
        _compare_channel_codes(codes, weights, scales, bits)
    weights = _channels((4, 3, 3, 3))
    weights[2] = 0
    codes, scales = _codes_and_scales(quantize_channels, weights, 8)
    positive = bool((scales > 0).all() and scales.isfinite().all())
    expect(positive, "a channel of zeros has no scale > 0: it is divided by, so take any other")
    expect(not codes[2].any(), "the codes of a channel of zeros must be 0")
    return CORRECT


def check_layer_bytes(layer_bytes: Callable[[int, int, int, int], int]) -> str:
    """Check ``layer_bytes(c_in, c_out, kernel, bits)``: the bytes of a convolution of codes.

    Parameters
    ----------
    layer_bytes : callable
        Takes channels in and out, the side of the square kernel and the bits of a code; returns
        the bytes of codes (packed without a gap, the last byte filled up), of a float32 scale and
        of a float32 bias for each output channel.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_layer_bytes(lambda c_in, c_out, kernel, bits: c_in * c_out * kernel**2 * bits // 8)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: scales and biases are missing: 4 bytes each, for each output \
channel
    """
    for c_in, c_out, kernel, bits in [(64, 32, 5, 2), (3, 16, 3, 4), (5, 3, 3, 3), (64, 128, 3, 8)]:
        codes = conv_params(c_in, c_out, kernel, bias=False)
        right = -(-codes * bits // 8) + 8 * c_out
        call = f"layer_bytes({c_in}, {c_out}, {kernel}, {bits})"
        answer = run(layer_bytes, c_in, c_out, kernel, bits)
        match(call, answer, right, _byte_hints(c_in, c_out, kernel, bits))
    return CORRECT


def _channels(shape: tuple[int, ...]) -> Tensor:
    """Return weights whose channels, in and out, differ in size; some reach furthest below 0."""
    weights = torch.rand(shape, generator=make_generator(0)) - 0.55
    first = torch.linspace(0.05, 1.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    second = torch.linspace(1.0, 0.6, shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return weights * first * second


def _codes_and_scales(function: Callable, weights: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the reader's codes (int64) and scales (float64, one for each channel)."""
    given, call = weights.clone(), f"quantize_channels(weights, {bits})"
    codes, scales = pair(call, run(function, given, bits), "(codes, scales)")
    expect(torch.equal(given, weights), "weights was changed: make new tensors")
    both = all(isinstance(part, Tensor) for part in (codes, scales))
    swapped = both and scales.shape == weights.shape and codes.ndim < weights.ndim
    expect(not swapped, f"{call}: the codes come first")
    codes = integers(f"the codes of {call}", codes, weights.shape)
    if isinstance(scales, Tensor) and scales.numel() == 1:
        raise Hint(
            "that is one scale for the whole tensor (per tensor): each channel needs its own"
        )
    n = len(weights)
    if isinstance(scales, Tensor) and scales.numel() == n and len(scales) == n:
        scales = scales.reshape(n)  # (n, 1, 1, 1) is as good
    elif isinstance(scales, Tensor) and scales.shape == weights.shape[1:2]:
        raise Hint("these are scales of the input channels: the output channels are dimension 0")
    return codes, floats(f"the scales of {call}", scales, (n,))


def _compare_scales(scales: Tensor, weights: Tensor, bits: int) -> None:
    rows, largest = weights.double().flatten(1), 2 ** (bits - 1) - 1
    right = rows.abs().amax(1) / largest
    if torch.allclose(scales, right, rtol=1e-5, atol=0):
        return
    columns = weights.double().movedim(1, 0).flatten(1).abs().amax(1) / largest
    if len(columns) == len(rows):
        inputs = "these are scales of the input channels: the output channels are dimension 0"
        first_match(scales, {inputs: columns})
    first_match(scales, _scale_mistakes(rows, bits))
    k = int((scales - right).abs().argmax())
    size = "large" if scales[k] > right[k] else "small"
    raise Hint(f"the scale of channel {k} is {scales[k]:.4g}: too {size}")


def _scale_mistakes(rows: Tensor, bits: int) -> dict[str, Tensor]:
    bound, largest, grid = rows.abs().amax(1), 2 ** (bits - 1) - 1, 2**bits - 1
    whole = "that is one scale for the whole tensor, repeated"
    return {
        f"{whole}: each channel needs its own": bound.max().expand_as(bound) / largest,
        "the largest weight is not the largest size: ignore the sign": rows.amax(1) / largest,
        "the smallest weight is not the largest size: ignore the sign": -rows.amin(1) / largest,
        "the largest code is 2**(bits-1) - 1: the - 1 is missing": bound / (largest + 1),
        "2**bits - 1 steps reach from -bound to bound: divide by those above 0 only": bound / grid,
        "the code 0 must be in the middle: as many steps above it as below": 2 * bound / grid,
        "that is the affine scale, from the smallest to the largest": (rows.amax(1) - rows.amin(1))
        / grid,
        "the largest code is not bits, as in article A4, but 2**(bits-1) - 1": bound / bits,
        "that is the largest size: divide it by the largest code": bound,
        "upside down: that is steps per 1.0": largest / bound,
        "the mean size leaves the largest weights out of range": rows.abs().mean(1) / largest,
    }


def _compare_channel_codes(codes: Tensor, weights: Tensor, scales: Tensor, bits: int) -> None:
    column = scales.reshape(-1, *[1] * (weights.ndim - 1))
    steps = weights.double() / column
    clear = (steps % 1 - 0.5).abs() > 1e-3  # float32 may round the others either way
    if torch.equal(codes[clear], steps.round().long()[clear]):
        return
    mistakes = {
        "cut off instead of rounded (int and trunc go towards 0)": steps.trunc(),
        "cut off instead of rounded (floor goes down)": steps.floor(),
        "divide by the scale, do not multiply": (weights * column).round(),
        "the sign is lost: scales need sizes, codes need signs": steps.round().abs(),
        "these codes were made with one scale for all": (weights / scales.max()).round(),
    }
    if weights.shape[-1] == len(scales):
        last = "scales of shape (n,) go along the last dimension: reshape them to (n, 1, ...)"
        mistakes = {last: (weights / scales).round()} | mistakes
    largest = 2 ** (bits - 1) - 1  # clamped or not: the mistake is the same
    clamped = {hint: wrong.clamp(-largest, largest) for hint, wrong in mistakes.items()}
    between = (steps - steps.round()).abs() > 1e-3  # where cutting off and rounding differ surely
    sure = {hint: wrong[between] for hint, wrong in clamped.items()}
    first_match(codes.clamp(-largest, largest)[between], sure)
    k = int((codes - steps).abs().argmax())
    steps, got = steps.flatten()[k], codes.flatten()[k]
    raise Hint(f"a weight of {steps:.2f} steps of its channel gets the code {int(got)}")


def _byte_hints(c_in: int, c_out: int, kernel: int, bits: int) -> dict[float, str]:
    count = c_in * c_out * kernel**2
    packed, floor, extra = -(-count * bits // 8), count * bits // 8, 8 * c_out
    up, unit = "the last byte is stored whole: round up", "that mixes bits and bytes: divide by 8"
    missing = "scales and biases are missing: 4 bytes each, for each output channel"
    return {
        floor + extra: up,
        count * bits / 8 + extra: up,
        packed: missing,
        floor: missing,
        packed + extra / 2: "scale or bias is missing: each output channel has both",
        packed + extra / 2 + 4: "each output channel has a scale of its own, not one for all",
        packed + 8: "each output channel has a scale and a bias of its own",
        packed + 8 * c_in: "scale and bias belong to the output channels",
        packed + 4 * (c_in + c_out): "scale and bias both belong to the output channels",
        count + extra: "a code takes bits / 8 bytes when it is packed, not a whole byte",
        4 * count + extra: "these are float32 weights: the codes take bits / 8 bytes each",
        count * bits + 8 * extra: "these are bits: a byte is 8 bits",
        count * bits + extra: unit,
        packed + 64 * c_out: unit,
        packed + extra / 4: "scale and bias are float32: 4 bytes each",
        packed + 2 * c_out: "scale and bias are float32: 4 bytes each",
        -(-(count + c_out) * bits // 8) + 4 * c_out: "the bias is float32: 4 bytes each",
        c_out * -(-count // c_out * bits // 8) + extra: "pack the whole layer, not each channel",
        -(-c_in * c_out * kernel * bits // 8) + extra: "the kernel has two sides: kernel * kernel",
    }
