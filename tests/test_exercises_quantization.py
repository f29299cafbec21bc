"""The checks of chapter 05 accept right answers in several styles and reject typical mistakes."""

import math

import numpy as np
import pytest
import torch

from rac_helpers import exercises, quantize


def span(bits):
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def right_params(low, high, bits):
    low, high, qmin = min(low, 0), max(high, 0), -(2 ** (bits - 1))
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, qmin - round(low / scale)


def params_by_tensors(low, high, bits):
    low, high = torch.tensor(low).clamp(max=0), torch.tensor(high).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    return [scale, torch.round(span(bits)[0] - low / scale)]


def params_from_above(low, high, bits):
    scale, _ = right_params(low, high, bits)
    return np.float64(scale), np.int64(span(bits)[1] - np.rint(max(high, 0) / scale))


def params_by_library(low, high, bits):
    params = quantize.affine_params(low, high, bits)
    return params.scale, params.zero_point


def _params(scale=lambda low, high, bits: right_params(low, high, bits)[0], code=None):
    """Answer with a scale, and with a zero point from the widened range and the right scale."""

    def affine_params(low, high, bits):
        right = right_params(low, high, bits)
        low, high = min(low, 0), max(high, 0)
        place, (qmin, qmax) = low / right[0], span(bits)
        chosen = code(place, qmin, qmax, low=low, scale=right[0]) if code else right[1]
        return scale(low, high, bits), chosen

    return affine_params


def _scale(function):
    return _params(scale=function)


def _code(function):
    return _params(code=lambda place, qmin, qmax, **_: function(place, qmin, qmax))


def _not_widened(low, high, bits):
    scale = (high - low) / (2**bits - 1)
    return scale, span(bits)[0] - round(low / scale)


def _zero_point_not_widened(low, high, bits):
    scale, _ = right_params(low, high, bits)
    return scale, span(bits)[0] - round(low / scale)


def _no_scale_for_zeros(low, high, bits):
    return right_params(low, high, bits) if low < high else (0.0, 0)


def _zero_point_outside_for_zeros(low, high, bits):
    return right_params(low, high, bits) if low < high else (1.0, 128)


def right_codes(values, scale, zero_point, bits):
    return ((values / scale).round() + zero_point).clamp(*span(bits)).to(torch.int8)


def codes_of_torch(values, scale, zero_point, bits):
    qmin, qmax = span(bits)
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, qmin, qmax)
    return torch.round(rounded / scale).int() + zero_point


def codes_in_numpy(values, scale, zero_point, bits):
    codes = np.rint(values.numpy() / np.float32(scale)) + zero_point
    return torch.from_numpy(np.clip(codes, *span(bits)).astype(np.int64))


def codes_rounded_last(values, scale, zero_point, bits):
    qmin, qmax = span(bits)
    codes = torch.round(values * (1 / scale) + zero_point)
    return torch.minimum(torch.maximum(codes, torch.tensor(qmin)), torch.tensor(qmax)).short()


def _codes(steps, *, clamp=span):
    """Answer with ``steps(values, scale, zero_point)``, clamped to ``clamp(bits)``."""

    def to_codes(values, scale, zero_point, bits):
        return steps(values, scale, zero_point).clamp(*clamp(bits)).to(torch.int32)

    return to_codes


def _rounded(values, scale, zero_point):
    return (values / scale).round() + zero_point


def _half_away(x):
    return x.sign() * (x.abs() + 0.5).floor()


def _clamp_first(values, scale, zero_point, bits):
    return (values / scale).round().clamp(*span(bits)).int() + zero_point


def _wraps(values, scale, zero_point, bits):
    codes = (values / scale).round().int() + zero_point
    return codes.to(torch.int8).clamp(*span(bits))


def _codes_in_place(values, scale, zero_point, bits):
    return values.div_(scale).round_().add_(zero_point).clamp_(*span(bits)).to(torch.int8)


def _for_case(number, wrong, right):
    """Answer as ``right`` in the calls before ``number``, then as ``wrong``."""
    calls = iter(range(1000))
    return lambda *args: (right if next(calls) < number else wrong)(*args)


def right_values(codes, scale, zero_point):
    return (codes.float() - zero_point) * scale


def values_multiplied_out(codes, scale, zero_point):
    return codes * scale - zero_point * scale


def values_wide(codes, scale, zero_point):
    return (codes.to(torch.int32) - zero_point).double() * scale


def _first_row_only(codes, scale, zero_point):
    one = scale[0] if isinstance(scale, torch.Tensor) else scale
    return right_values(codes, one, zero_point)


def _along_last(codes, scale, zero_point):
    if isinstance(scale, torch.Tensor):
        scale, zero_point = scale.flatten(), zero_point.flatten()
    return right_values(codes, scale, zero_point)


def _from_the_codes(codes, scale, zero_point):
    """E24's slip in another form: a new scale from the codes, not the one they were made with."""
    values = right_values(codes, 1.0, zero_point)
    return values / values.abs().max()


def _dequantize_in_place(codes, scale, zero_point):
    values = right_values(codes, scale, zero_point)
    codes.zero_()
    return values


def right_fake(values, scale, zero_point, bits):
    low, high = ((code - zero_point) * scale for code in span(bits))
    clamped = values.clamp(low, high)
    return clamped + (clamped.div(scale).round() * scale - clamped).detach()


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def fake_by_function(values, scale, zero_point, bits):
    codes = (RoundThrough.apply(values / scale) + zero_point).clamp(*span(bits))
    return (codes - zero_point) * scale


def fake_of_torch(values, scale, zero_point, bits):
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, *span(bits))


def fake_of_ours(values, scale, zero_point, bits):
    qmin, qmax = span(bits)
    pair = torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)
    return quantize.fake_quantize_ste(values, *pair, qmin=qmin, qmax=qmax)


def _plain(values, scale, zero_point, bits):
    return right_values(right_codes(values.detach(), scale, zero_point, bits), scale, zero_point)


def _with_gradient(function):
    """Make a right result whose gradient is ``function(gradient, inside, scale)``."""

    def fake_quantize(values, scale, zero_point, bits):
        class Rounded(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                free = (x / scale).round() + zero_point
                ctx.inside = free == free.clamp(*span(bits))
                return _plain(x, scale, zero_point, bits)

            @staticmethod
            def backward(ctx, gradient):
                return function(gradient, ctx.inside, scale)

        return Rounded.apply(values)

    return fake_quantize


def _through_everything(values, scale, zero_point, bits):
    return values + (_plain(values, scale, zero_point, bits) - values).detach()


def _flat(values, scale, zero_point, bits):
    codes = ((values / scale).round() + zero_point).clamp(*span(bits))
    return (codes - zero_point) * scale


def _twice(values, scale, zero_point, bits):
    result = right_fake(values, scale, zero_point, bits)
    return result + values - values.detach()


def _forward(function):
    """Make a result ``function(values, scale, zero_point, bits)``, with a gradient through it."""

    def fake_quantize(values, *rest):
        return values + (function(values, *rest) - values).detach()

    return fake_quantize


def _no_zero_point(values, scale, zero_point, bits):
    return (values / scale).round().clamp(*span(bits)) * scale


def _overwrite(values, scale, zero_point, bits):
    values.data.mul_(0.5)
    return right_fake(values, scale, zero_point, bits)


def _bounds(weights):
    return weights.abs().flatten(1).amax(1)


def _column(scales, weights):
    return scales.reshape(-1, *[1] * (weights.ndim - 1))


def right_channels(weights, bits):
    scales = _bounds(weights) / span(bits)[1]
    scales[scales == 0] = 1.0
    return (weights / _column(scales, weights)).round().to(torch.int8), scales


def channels_in_a_loop(weights, bits):
    codes, scales = torch.empty_like(weights, dtype=torch.int32), []
    for k, channel in enumerate(weights):
        scales.append(max(float(channel.abs().max()) / span(bits)[1], 1e-12))
        codes[k] = torch.round(channel / scales[-1])
    return codes, torch.tensor(scales)


def channels_of_columns(weights, bits):
    scales = weights.abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True).double()
    scales = (scales / span(bits)[1]).clamp(min=1e-9)
    return [(weights / scales).round().clamp(*span(bits)).long(), scales]


def channels_by_library(weights, bits):
    params = quantize.symmetric_params(_bounds(weights), bits, axis=0)
    return quantize.quantize(weights, params), params.scale


def _scales(function):
    """Answer with the codes of the right scales, and with ``function(weights, largest)``."""

    def quantize_channels(weights, bits):
        return right_channels(weights, bits)[0], function(weights, span(bits)[1])

    return quantize_channels


def _channel_codes(function):
    """Answer with the right scales, and with codes ``function(weights, scales)``."""

    def quantize_channels(weights, bits):
        scales = right_channels(weights, bits)[1]
        return function(weights, scales).to(torch.int32), scales

    return quantize_channels


def _nearest(weights, scales):
    return (weights / _column(scales, weights)).round()


def _broadcast(weights, scales):
    """Raises unless the last dimension happens to be as long as there are channels."""
    return (weights / scales).round()


def _broadcast_if_silent(weights, scales):
    same = weights.shape[-1] == len(scales)
    return _broadcast(weights, scales) if same else _nearest(weights, scales)


def _zero_scale(weights, bits):
    scales = _bounds(weights) / span(bits)[1]
    return right_channels(weights, bits)[0], scales


def _codes_for_zeros(weights, bits):
    codes, scales = right_channels(weights, bits)
    codes[_bounds(weights) == 0] = 1
    return codes, scales


def _channels_in_place(weights, bits):
    answer = right_channels(weights, bits)
    weights.zero_()
    return answer


def right_bytes(c_in, c_out, kernel, bits):
    return math.ceil(c_in * c_out * kernel**2 * bits / 8) + 8 * c_out


def bytes_added_up(c_in, c_out, kernel, bits):
    all_bits = c_out * c_in * kernel * kernel * bits
    return (all_bits + 7) // 8 + c_out * 4 + c_out * 4


def _bytes(function):
    """Answer with ``function(number of weights, channels out, bits)``."""
    return lambda c_in, c_out, kernel, bits: function(c_in * c_out * kernel**2, c_out, bits)


def _up(bits):
    return math.ceil(bits / 8)


RIGHT = {
    "affine_params": [right_params, params_by_tensors, params_from_above, params_by_library],
    "quantize": [right_codes, codes_of_torch, codes_in_numpy, codes_rounded_last],
    "dequantize": [right_values, values_multiplied_out, values_wide],
    "fake_quantize": [right_fake, fake_by_function, fake_of_torch, fake_of_ours],
    "quantize_channels": [
        right_channels,
        channels_in_a_loop,
        channels_of_columns,
        channels_by_library,
    ],
    "layer_bytes": [right_bytes, bytes_added_up],
}

WRONG = {
    "affine_params": [
        (_scale(lambda a, b, n: (b - a) / 2**n), "2\\*\\*bits - 1 steps"),
        (_scale(lambda a, b, n: (b - a) / (2 * n - 2)), "article A4's codes"),  # E56
        (_scale(lambda a, b, n: (b - a) / (2 * n - 1)), "article A4's codes"),
        (_scale(lambda a, b, n: (2**n - 1) / (b - a)), "upside down"),
        (_scale(lambda a, b, n: b - a), "whole range"),
        (_scale(lambda a, b, n: max(-a, b) / span(n)[1]), "scale of a symmetric range"),
        (_scale(lambda a, b, n: (b - a) / 2 ** (n - 1)), "half of the codes"),
        (_scale(lambda a, b, n: (b - a) / span(n)[1]), "half of the codes"),
        (_scale(lambda a, b, n: b / (2**n - 1)), "high - low long"),
        (_scale(lambda a, b, n: (b + a) / (2**n - 1)), "high - low long"),
        (_scale(lambda a, b, n: (b - a) / (2 ^ n - 1)), "power is"),
        (_scale(lambda a, b, n: (b - a) / ((2 ^ n) - 1)), "power is"),
        (_scale(lambda a, b, n: 3 * (b - a)), "too large"),
        (_not_widened, "must hold 0"),
        (_zero_point_not_widened, "for the zero point, too"),
        (_code(lambda r, qmin, qmax: qmin - r), "not an integer"),
        (_code(lambda r, qmin, qmax: -r), "not an integer"),
        (_code(lambda r, qmin, qmax: -round(r)), "smallest code, .*, not 0"),
        (_code(lambda r, qmin, qmax: qmin + round(r)), "wrong sign"),
        (_code(lambda r, qmin, qmax: round(r)), "wrong sign"),
        (_code(lambda r, qmin, qmax: qmax - round(r)), "swapped"),
        (_code(lambda r, qmin, qmax: qmax + round(r)), "swapped"),
        (_code(lambda r, qmin, qmax: 0), "symmetric range only"),
        (_code(lambda r, qmin, qmax: qmin), "belongs to low"),
        (_code(lambda r, qmin, qmax: qmin - int(r)), "instead of rounded"),
        (_code(lambda r, qmin, qmax: qmin - math.floor(r)), "instead of rounded"),
        (_code(lambda r, qmin, qmax: int(qmin - r)), "instead of rounded"),
        (_code(lambda r, qmin, qmax: math.floor(qmin - r)), "instead of rounded"),
        (
            lambda a, b, n: (
                right_params(a, b, n)[0],
                2 - n + right_params(a, b, n)[1] - span(n)[0],
            ),
            "article A4's smallest code",
        ),
        (_params(code=lambda r, q, _, low, scale: q - round(low)), "count it in steps"),
        (_params(code=lambda r, q, _, low, scale: q - round(low * scale)), "belongs to low"),
        (_code(lambda r, qmin, qmax: qmin - round(r) + 9), "too large"),
        (_no_scale_for_zeros, "must be > 0"),
        (_zero_point_outside_for_zeros, "one of the codes"),
        (lambda a, b, n: right_params(a, b, n)[::-1], "scale comes first"),
        (lambda a, b, n: right_params(a, b, n)[0], "must be a pair"),
        (lambda a, b, n: (*right_params(a, b, n), 0), "must be a pair"),
    ],
    "quantize": [
        (lambda v, s, z, n: _rounded(v, s, z).int(), "clamp is missing"),
        (_codes(lambda v, s, z: (v / s).floor() + z), "cut off .* go down"),
        (_codes(lambda v, s, z: v // s + z), "cut off .* go down"),
        (_codes(lambda v, s, z: (v / s).trunc() + z), "cut off .* towards 0"),
        (_codes(lambda v, s, z: (v / s).int() + z), "cut off .* towards 0"),
        (_codes(lambda v, s, z: (v / s + z).trunc()), "cut off .* after adding"),
        (_codes(lambda v, s, z: (v / s).ceil() + z), "cut off .* goes up"),
        (lambda v, s, z, n: ((v / s).floor() + z).int(), "too"),  # two mistakes at once
        (_codes(lambda v, s, z: _half_away(v / s) + z), "even integer"),
        (_codes(lambda v, s, z: _half_away(v / s + z)), "even integer"),
        (_codes(lambda v, s, z: (v / s + 0.5).floor() + z), "even integer"),
        (_codes(lambda v, s, z: (v / s - 0.5).ceil() + z), "even integer"),
        (_codes(lambda v, s, z: (v / s).round()), "zero point is missing"),
        (_codes(lambda v, s, z: (v / s).round() - z), "do not subtract"),
        (_codes(lambda v, s, z: (v * s).round() + z), "do not multiply"),
        (_codes(lambda v, s, z: ((v + z) / s).round()), "after the division"),
        (_codes(lambda v, s, z: v.round() + z), "scale is missing"),
        (_codes(_rounded, clamp=lambda n: (2 - n, n)), "article A4's codes"),  # E56
        (_codes(_rounded, clamp=lambda n: (0, 2**n - 1)), "here they start at 0"),
        (_codes(_rounded, clamp=lambda n: span(n)[::-1]), "swapped in clamp"),
        (lambda v, s, z, n: v.new_full(v.shape, span(n)[1]).int(), "swapped in clamp"),
        (_codes(_rounded, clamp=lambda n: (-span(n)[1], span(n)[1])), "never used"),
        (_codes(_rounded, clamp=lambda n: (span(n)[0], 2 ** (n - 1))), "largest is one less"),
        (_codes(_rounded, clamp=lambda n: (-128, 127)), "depend on bits"),
        (_clamp_first, "clamp last"),
        (_wraps, "wraps around"),
        (_codes_in_place, "was changed"),
        (lambda *args: right_codes(*args).float(), "integers, got torch.float32: a float takes 4"),
        (lambda *args: right_codes(*args).flatten(), r"shape \(3, 20\), got \(60,\)"),
        (lambda *args: right_codes(*args).numpy(), "integers, got ndarray"),
        (lambda *args: right_codes(*args) > 0, "integers, got torch.bool"),
        (lambda v, s, z, n: right_codes(v, 2 * s, z, n), "too (large|small)"),
        (_for_case(1, lambda *args: right_codes(*args) * 0, right_codes), "all codes are 0"),
        (lambda v, s: v, "raised TypeError"),
    ],
    "dequantize": [
        (lambda q, s, z: q * s, "zero point is missing"),
        (lambda q, s, z: (q - z) * s, "wraps around"),
        (lambda q, s, z: (q.float() + z) * s, "do not add it"),
        (lambda q, s, z: (z - q.float()) * s, "wrong sign"),
        (lambda q, s, z: q * s - z, "before you multiply"),
        (lambda q, s, z: (q.float() - z) / s, "do not divide"),
        (lambda q, s, z: q.float() - z, "scale is missing"),
        (lambda q, s, z: right_values(q, 2 * s, z), "wrong scale: every .* 2 times"),
        (lambda q, s, z: right_values(q, s * s, z), "wrong scale: every .* 0.05 times"),
        (lambda q, s, z: right_values(q, 0.1, z), "wrong scale: every"),
        (_from_the_codes, "wrong scale: every"),
        (_first_row_only, "each row has a scale"),
        (lambda q, s, z: right_values(q, torch.as_tensor(s).mean(), z), "each row has a scale"),
        (lambda q, s, z: right_values(q, torch.as_tensor(s).max(), z), "each row has a scale"),
        (lambda q, s, z: right_values(q, torch.as_tensor([[s]]).flatten()[0], z), "raised"),
        (_along_last, "not to the columns"),
        (lambda q, s, z: right_values(q, s, z) + 1, "too large"),
        (lambda q, s, z: right_values(q, s, z).round(), "too (large|small)"),
        (lambda q, s, z: 0 * q.float(), "wrong scale: every .* 0 times"),
        (lambda q, s, z: right_values(q, s, z) * torch.nan, "too"),
        (lambda q, s, z: right_values(q, s, z).int(), "floats, got torch.int32"),
        (lambda q, s, z: right_values(q, s, z).T[:3], r"shape \(16, 16\), got \(3, 16\)"),
        (lambda q, s, z: right_values(q, s, z).tolist(), "floats, got list"),
        (_dequantize_in_place, "was changed"),
    ],
    "fake_quantize": [
        (_flat, "gradient is 0 everywhere"),
        (_through_everything, "passes where the code is clamped"),
        (_plain, "no gradient reaches values"),
        (lambda *args: right_fake(*args).detach(), "no gradient reaches values"),
        (lambda *args: _plain(*args).requires_grad_(), "no gradient reaches values"),
        (_with_gradient(lambda g, inside, s: g * ~inside), "other way round"),
        (_with_gradient(lambda g, inside, s: g * inside * s), "times the scale"),
        (_with_gradient(lambda g, inside, s: g * inside / s), "divided by it"),
        (_with_gradient(lambda g, inside, s: inside.float()), "arrives from behind"),
        (_with_gradient(lambda g, inside, s: torch.ones_like(g)), "gradient that arrives, and 0"),
        (_with_gradient(lambda g, inside, s: -g * inside), "in range, the gradient is -"),
        (_with_gradient(lambda g, inside, s: g * (1 + 9 * ~inside)), "clamped, the gradient is"),
        (_with_gradient(lambda g, inside, s: (g, g)), "raised RuntimeError"),
        (_twice, "comes twice"),
        (lambda v, s, z, n: v * 1, "they must be rounded"),
        (lambda v, s, z, n: v.clamp(*((c - z) * s for c in span(n))), "only clamped"),
        (_forward(lambda v, s, z, n: right_codes(v, s, z, n).float()), "go back to values"),
        (_forward(lambda v, s, z, n: (v / s).round() * s), "clamp is missing"),
        (_forward(lambda v, s, z, n: right_codes(v, s, z, n) * s), "on the way back"),
        (_forward(_no_zero_point), "moves the range"),
        (_forward(lambda v, s, z, n: 3 * _plain(v, s, z, n)), "wrong scale: every .* 3 times"),
        (_forward(lambda v, s, z, n: _plain(v, s, z, 8)), "clamp is missing"),
        (_forward(lambda v, s, z, n: _plain(v - s / 2, s, z, n)), "too small"),
        (lambda v, s, z, n: right_codes(v, s, z, n), "floats, got torch.int8"),
        (lambda *args: right_fake(*args)[0], "must have the shape"),
        (_overwrite, "was changed"),
        (lambda v, s, z, n: v.mul_(1), "raised RuntimeError"),
    ],
    "quantize_channels": [
        (_scales(lambda w, q: w.abs().max() / q), "per tensor"),
        (_scales(lambda w, q: (w.abs().max() / q).expand(len(w))), "repeated"),
        (_scales(lambda w, q: _bounds(w.movedim(1, 0)) / q), "of the input channels"),
        (
            _for_case(1, _scales(lambda w, q: _bounds(w.movedim(1, 0)) / q), right_channels),
            "of the input channels",
        ),
        (_scales(lambda w, q: w.flatten(1).amax(1) / q), "ignore the sign"),
        (_scales(lambda w, q: -w.flatten(1).amin(1) / q), "ignore the sign"),
        (_scales(lambda w, q: _bounds(w) / (q + 1)), "the - 1 is missing"),
        (_scales(lambda w, q: _bounds(w) / (2 * q + 1)), "above 0 only"),
        (_scales(lambda w, q: 2 * _bounds(w) / (2 * q + 1)), "must be in the middle"),
        (
            _scales(lambda w, q: (w.flatten(1).amax(1) - w.flatten(1).amin(1)) / (2 * q + 1)),
            "the affine scale",
        ),
        (_scales(lambda w, q: _bounds(w) / (8 if q == 127 else 4)), "as in article A4"),  # E56
        (_scales(lambda w, q: _bounds(w)), "divide it by the largest code"),
        (_scales(lambda w, q: q / _bounds(w)), "upside down"),
        (_scales(lambda w, q: w.abs().flatten(1).mean(1) / q), "mean size"),
        (_scales(lambda w, q: w.flatten(1).std(1) / q), "scale of channel . is .*: too small"),
        (_scales(lambda w, q: _bounds(w).amax() * torch.ones(9)), r"shape \(6,\), got \(9,\)"),
        (_scales(lambda w, q: (_bounds(w) / q).tolist()), "floats, got list"),
        (_zero_scale, "channel of zeros has no scale"),
        (_codes_for_zeros, "codes of a channel of zeros"),
        (_channel_codes(_broadcast), "raised RuntimeError"),
        (_channel_codes(_broadcast_if_silent), "go along the last dimension"),
        (_channel_codes(lambda w, s: (w / s.max()).round()), "with one scale for all"),
        (_channel_codes(lambda w, s: (w / _column(s, w)).trunc()), "towards 0"),
        (_channel_codes(lambda w, s: w / _column(s, w)), "towards 0"),  # the conversion cuts off
        (_channel_codes(lambda w, s: (w / _column(s, w)).floor()), "floor goes down"),
        (_channel_codes(lambda w, s: (w * _column(s, w)).round()), "do not multiply"),
        (_channel_codes(lambda w, s: _nearest(w, s).abs()), "sign is lost"),
        (_channel_codes(lambda w, s: _nearest(w, s) + 9), "steps of its channel gets the code"),
        (
            lambda w, n: (w / _column(right_channels(w, n)[1], w), torch.ones(6)),
            "got torch.float32",
        ),
        (lambda w, n: right_channels(w, n)[::-1], "codes come first"),
        (lambda w, n: right_channels(w, n)[0], "must be a pair"),
        (_channels_in_place, "was changed"),
    ],
    "layer_bytes": [
        (_bytes(lambda k, c, n: k * n // 8 + 8 * c), "round up"),
        (_bytes(lambda k, c, n: k * n / 8 + 8 * c), "round up"),
        (_bytes(lambda k, c, n: _up(k * n)), "biases are missing"),
        (_bytes(lambda k, c, n: _up(k * n) + 4 * c), "scale or bias is missing"),
        (_bytes(lambda k, c, n: _up(k * n) + 4 * c + 4), "not one for all"),
        (_bytes(lambda k, c, n: _up(k * n) + 8), "of its own"),
        (lambda i, o, k, n: _up(i * o * k * k * n) + 8 * i, "belong to the output"),
        (lambda i, o, k, n: _up(i * o * k * k * n) + 4 * (i + o), "both belong"),
        (_bytes(lambda k, c, n: k + 8 * c), "not a whole byte"),
        (_bytes(lambda k, c, n: 4 * k + 8 * c), "float32 weights"),
        (_bytes(lambda k, c, n: k * n + 64 * c), "these are bits"),
        (_bytes(lambda k, c, n: k * n + 8 * c), "mixes bits and bytes"),
        (_bytes(lambda k, c, n: _up(k * n) + 64 * c), "mixes bits and bytes"),
        (_bytes(lambda k, c, n: _up(k * n) + 2 * c), "are float32"),
        (_bytes(lambda k, c, n: _up((k + c) * n) + 4 * c), "bias is float32"),
        (_bytes(lambda k, c, n: c * _up(k // c * n) + 8 * c), "not each channel"),
        (lambda i, o, k, n: _up(i * o * k * n) + 8 * o, "two sides"),
        (_bytes(lambda k, c, n: 10**9), "too large"),
        (lambda i, o, k, n: None, "must be a number"),
    ],
}


def test_a_right_fake_quantization_is_accepted_without_gradients_around_it():
    with torch.no_grad():
        assert exercises.check_fake_quantize(right_fake) == exercises.CORRECT


@pytest.mark.parametrize("zero_point", [-1, 0])
def test_both_zero_points_of_the_articles_range_are_accepted(zero_point):
    """E25: for [-1, 1] and 4 bits the exact one is -0.5."""

    def affine_params(low, high, bits):
        scale, code = right_params(low, high, bits)
        return scale, zero_point if (low, high, bits) == (-1.0, 1.0, 4) else code

    assert exercises.check_affine_params(affine_params) == exercises.CORRECT


OTHER = [None, [1.0], [[1], [2]], "ab", {"a": 1}, {1, 2}, True, 1j, float("nan"), 10**400, float]
OTHER += [torch.ones(3), np.ones((2, 2)), torch.tensor(True), (None, None), (1, torch.ones(2))]
OTHER += [torch.ones(16, 16), (torch.tensor(1j), 1)]
