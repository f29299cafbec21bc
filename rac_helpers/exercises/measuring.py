"""Checks of chapter 01."""

from __future__ import annotations

import math
from collections.abc import Callable

from rac_helpers.exercises.hint import CORRECT, expect, match, run
from rac_helpers.metrics import conv_params


def check_conv_macs(conv_macs: Callable[[int, int, int, int, int], int]) -> str:
    """Check ``conv_macs(c_in, c_out, kernel, side_out, groups)``: the MACs of one convolution.

    Parameters
    ----------
    conv_macs : callable
        Takes channels in and out, the side of the square kernel, the side of the square output in
        pixels, and the number of groups; returns the multiply-accumulates for one image.

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
    >>> check_conv_macs(lambda c_in, c_out, kernel, side_out, groups: c_in * c_out * kernel**2)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: these are the parameters; each of them works once at every \
output pixel
    """
    for c_in, c_out, kernel, side_out, groups in [(3, 16, 3, 32, 1), (64, 64, 5, 8, 64)]:
        params = conv_params(c_in, c_out, kernel, groups=groups, bias=False)
        right, pixels = params * side_out**2, side_out**2
        hints = {
            params: "these are the parameters; each of them works once at every output pixel",
            2 * right: "these are FLOPs; one MAC is two FLOPs",
            params * side_out: "the output has two sides: side_out * side_out pixels",
            right // kernel: "the kernel has two sides: kernel * kernel",
            kernel**2: "the channels are missing: the article forgets them, too",
            kernel**2 * pixels: "the channels are missing: the article forgets them, too",
            right // c_out: "that is the work for one output channel",
            right * groups: "with groups each output channel sees only c_in / groups channels",
            right // groups: "divide by groups once",
            right + c_out * pixels: "leave the bias out: an addition alone is no MAC",
        }
        call = f"conv_macs({c_in}, {c_out}, {kernel}, {side_out}, {groups})"
        answer = run(conv_macs, c_in, c_out, kernel, side_out, groups)
        match(call, answer, right, hints)
    return CORRECT


def check_compression_ratio(ratio: Callable[[int, float, int], float]) -> str:
    """Check ``ratio(num_weights, zero_share, bits)``: original / compressed.

    The original holds ``num_weights`` numbers of 32 bits. The compressed file holds the non-zero
    ones with ``bits`` bits each, and one bit for every weight that says whether it is zero.

    Parameters
    ----------
    ratio : callable
        Takes the number of weights, the share of zeros in ``[0, 1]``, and the bits of a stored
        weight; returns how many times smaller the file becomes.

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
    >>> check_compression_ratio(lambda num_weights, zero_share, bits: 1 / (1 - zero_share))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: a stored weight takes bits bits instead of 32, and each of \
all weights one bit of the mask
    """
    for num_weights, zero_share, bits in [(1000, 0.9, 8), (1000, 0.0, 16)]:
        kept = 1 - zero_share
        right = 32 / (kept * bits + 1)
        both = "a stored weight takes bits bits instead of 32, and each of all weights one bit of "
        hints = {
            1 / right: "that is compressed / original: article A3's way, upside down here",
            100 / right: "that is compressed / original in per cent, upside down here",
            1 / (1 + zero_share): "total / (total + zeros) counts the zeros twice (article A4)",
            100 / (1 + zero_share): "total / (total + zeros) counts the zeros twice (article A4)",
            1 / kept: both + "the mask",
            32 / bits: "the zeros are not stored: only the share 1 - zero_share is",
            32 / (kept * bits): "the mask is missing: one bit for every weight, zero or not",
            32 / (kept * (bits + 1)): "the mask has a bit for every weight, not only the kept ones",
            32 / (zero_share * bits + 1): "the zeros are the weights that are not stored",
            right / 8: "bits over bytes: take both files in the same unit",
            right * 8: "bytes over bits: take both files in the same unit",
            right / num_weights: "both files hold num_weights weights: it cancels",
        }
        call = f"ratio({num_weights}, {zero_share}, {bits})"
        match(call, run(ratio, num_weights, zero_share, bits), right, hints)
    return CORRECT


def check_typical_latency(typical: Callable[[list[float], int], float]) -> str:
    """Check ``typical(times_ms, warmup)``: one honest number from a list of timings.

    Parameters
    ----------
    typical : callable
        Takes the timings in the order in which they were measured, and how many of the first ones
        are warm-up; returns the median of the others.

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
    >>> check_typical_latency(lambda times_ms, warmup: sum(times_ms) / len(times_ms))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the mean of all timings: drop the warm-up, and take \
the median
    """
    times_ms, warmup, right = [90.0, 31.0, 5.3, 48.0, 5.6, 5.0, 5.1, 5.2, 4.0], 2, 5.2
    given, kept, drop = list(times_ms), times_ms[warmup:], "drop exactly the first warmup timings"
    hints = {
        sum(times_ms) / 9: "that is the mean of all timings: drop the warm-up, and take the median",
        sum(kept) / 7: "that is the mean: one slow run moves it; take the median",
        5.3: "that is the median of all timings: the first ones are warm-up",
        min(kept): "that is the fastest run: it is lucky, not typical",
        times_ms[0]: "that is the first run, the least typical of all",
        5.0: "that is the one in the middle of the list: sort the timings first",
        5.6: "drop the warm-up before you sort: its place in the list is what counts",
        5.15: drop,
        5.25: drop,
    }
    answer = run(typical, given, warmup)
    expect(given == times_ms, "the reader's list was changed: work on a copy, sorted(...)")
    match(f"typical({times_ms}, {warmup})", answer, right, hints)
    even = [2.5, 1.0, 2.0, 4.0, 8.0]
    hints = {
        4.0: "of an even number of timings take the mean of the two in the middle",
        2.0: "of an even number of timings take the mean of the two in the middle",
        2.25: "the warm-up are the first timings, not the slowest",
    }
    match(f"typical({even}, 1)", run(typical, list(even), 1), 3.0, hints)
    match("typical([3.0, 1.0, 2.0], 0)", run(typical, [3.0, 1.0, 2.0], 0), 2.0, {})
    return CORRECT


def check_standard_error(standard_error: Callable[[float, int], float]) -> str:
    """Check ``standard_error(accuracy, num_images)``, both results as fractions.

    Parameters
    ----------
    standard_error : callable
        Takes an accuracy in ``[0, 1]`` and the number of test images, returns the standard error.

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
    >>> check_standard_error(lambda accuracy, num_images: (accuracy * (1 - accuracy)) ** 0.5)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is the spread of one image; the mean of num_images is \
sqrt(num_images) times steadier
    """
    for accuracy, num_images in [(0.93, 5000), (0.8, 100)]:
        variance = accuracy * (1 - accuracy)
        right = math.sqrt(variance / num_images)
        hints = {
            math.sqrt(variance): "that is the spread of one image; the mean of num_images is "
            "sqrt(num_images) times steadier",
            variance / num_images: "that is the variance: the standard error is its square root",
            math.sqrt(variance) / num_images: "divide by sqrt(num_images), not by num_images",
            math.sqrt(accuracy / num_images): "the factor (1 - accuracy) is missing",
            math.sqrt((1 - accuracy) / num_images): "the factor accuracy is missing",
            1 / math.sqrt(num_images): "it also depends on the accuracy",
            0.5 / math.sqrt(num_images): "that is the largest it can be, at an accuracy of 0.5",
            100 * right: "that is in percentage points; fractions are asked for",
            1.96 * right: "that is half of a 95 % interval, 1.96 standard errors",
        }
        call = f"standard_error({accuracy}, {num_images})"
        match(call, run(standard_error, accuracy, num_images), right, hints)
    perfect = run(standard_error, 1.0, 100)
    match("standard_error(1.0, 100)", perfect, 0.0, {})
    return CORRECT
