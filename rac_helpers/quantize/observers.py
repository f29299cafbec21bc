"""Observers: remember what goes through a layer, then say from where to where the codes reach.

A wide range loses precision, since the steps get larger; a narrow one clamps what is outside. The
observers differ in how they choose: all of it (:class:`MinMax`), an average over batches
(:class:`MovingAverage`), all but a share (:class:`Percentile`), the least squared error
(:class:`MeanSquaredError`), or the smallest loss of information (:class:`Entropy`).
"""

from __future__ import annotations

import torch

from rac_helpers._check import check_int, check_number
from rac_helpers.quantize.codes import fake_quantize
from rac_helpers.quantize.params import QParams, affine_params
from rac_helpers.quantize.ranges import code_range, value_range

Range = tuple[torch.Tensor, torch.Tensor]
_NUM_SHARES = 80
_NUM_BINS = 2048
_FEWEST_BINS = 128  # as Migacz; with few levels the first few bins alone are always kept well
_GOLDEN = (5**0.5 - 1) / 2


class MinMax:
    """Remembers the smallest and the largest value.

    Parameters
    ----------
    axis : int, optional
        A range for each slice along it; ``None``: one for all.

    Examples
    --------
    >>> observer = MinMax()
    >>> observer.observe(torch.tensor([0.0, 2.0]))
    >>> observer.observe(torch.tensor([0.5, 6.0]))
    >>> observer.range()
    (tensor(0.), tensor(6.))
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis if axis is None else check_int("axis", axis)
        self._seen: Range | None = None

    def observe(self, values: torch.Tensor) -> None:
        """Take values into account: finite floats of any shape.

        Raises
        ------
        TypeError, ValueError
            If there are none, or some that are not finite, or if there is no such axis.
        """
        low, high = (bound.detach() for bound in value_range(values, axis=self.axis))
        self._seen = (low, high) if self._seen is None else self._join(self._seen, (low, high))

    def range(self) -> Range:
        """Return the smallest and the largest value that shall have a code.

        Raises
        ------
        ValueError
            If nothing was observed.
        """
        if self._seen is None:
            raise ValueError("the observer must see values before it can say a range, got none")
        return self._seen

    def params(self, bits: int = 8, *, signed: bool = True) -> QParams:
        """Return scale and zero point for codes of ``bits`` bits; see :func:`affine_params`."""
        return affine_params(*self.range(), bits, signed=signed, axis=self.axis)

    def _join(self, before: Range, now: Range) -> Range:
        return torch.minimum(before[0], now[0]), torch.maximum(before[1], now[1])


class MovingAverage(MinMax):
    """Remembers a range that goes a part of the way to that of each batch.

    Parameters
    ----------
    rate : float
        In [0, 1]: the part of the way. A single outlier counts for little.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 3.1.

    Examples
    --------
    >>> observer = MovingAverage(rate=0.1)
    >>> observer.observe(torch.tensor([0.0, 2.0]))
    >>> observer.observe(torch.tensor([0.0, 7.0]))
    >>> observer.range()
    (tensor(0.), tensor(2.5000))
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = check_number("rate", rate, low=0, high=1)

    def _join(self, before: Range, now: Range) -> Range:
        return tuple(a + self.rate * (b - a) for a, b in zip(before, now, strict=True))


class _Sampling(MinMax):
    """Remembers the range, and of each batch some values, spread over its places."""

    def __init__(self, num_values: int = 20_000) -> None:
        super().__init__()
        self.num_values = check_int("num_values", num_values, low=1)
        self._values: list[torch.Tensor] = []

    def observe(self, values: torch.Tensor) -> None:
        """Take values into account: finite floats of any shape."""
        super().observe(values)
        flat = values.detach().float().flatten()
        if len(flat) <= self.num_values:
            self._values.append(flat.clone())
            return
        # multiples of the golden ratio spread evenly, too, but hit all rows, columns and channels
        shares = torch.arange(self.num_values).double() * _GOLDEN % 1
        places = (shares * len(flat)).long().sort().values
        self._values.append(flat[places.to(flat.device)])

    @property
    def values(self) -> torch.Tensor:
        """The values that are remembered, flat."""
        self.range()  # raises if there are none
        return torch.cat(self._values)


class Percentile(_Sampling):
    """Leaves out the outermost values: those whose size is above a percentile.

    Parameters
    ----------
    percent : float
        In [0, 100]: so many of the values, by size, are inside the range.
    num_values : int
        How many values of each batch are remembered, at least 1.

    References
    ----------
    McKinstry et al., 2019. Discovering low-precision networks close to full-precision networks
    for efficient embedded inference, section 3.1.

    Examples
    --------
    >>> observer = Percentile(99)
    >>> observer.observe(torch.arange(101.0))
    >>> observer.range()
    (tensor(0.), tensor(99.))
    """

    def __init__(self, percent: float = 99.9, num_values: int = 20_000) -> None:
        super().__init__(num_values)
        self.percent = check_number("percent", percent, low=0, high=100)

    def range(self) -> Range:
        """Return the range without the outermost values."""
        low, high = super().range()
        values = torch.cat(self._values)
        bound = torch.quantile(values.abs(), self.percent / 100)
        return low.clamp(min=-bound), high.clamp(max=bound)


class MeanSquaredError(_Sampling):
    """Chooses the share of the range whose codes have the least squared error.

    Parameters
    ----------
    num_values : int
        How many values of each batch are remembered, at least 1.

    References
    ----------
    Nagel et al., 2021. A white paper on neural network quantization, section 3.1.

    Examples
    --------
    >>> observer = MeanSquaredError()
    >>> observer.observe(torch.cat([torch.linspace(0.0, 1.0, 10_000), torch.tensor([4.0])]))
    >>> observer.params(bits=4, signed=False).high < 1.2  # the one 4.0 is clamped
    tensor(True)
    """

    def params(self, bits: int = 8, *, signed: bool = True) -> QParams:
        """Return scale and zero point for codes of ``bits`` bits."""
        (low, high), values = self.range(), self.values
        best, least = affine_params(low, high, bits, signed=signed), torch.inf  # squares overflow
        for number in range(_NUM_SHARES, 0, -1):
            share = number / _NUM_SHARES
            params = affine_params(low * share, high * share, bits, signed=signed)
            error = (fake_quantize(values, params) - values).square().mean().item()
            if error < least:
                best, least = params, error
        return best


class Entropy(_Sampling):
    """Chooses the range whose codes tell most about the values: the smallest KL divergence.

    The sizes of the values go into a histogram. For each range its bins are put together to as
    many as there are codes for sizes, spread out again, and compared with what they were, the
    clamped ones in the last bin.

    Parameters
    ----------
    num_values : int
        How many values of each batch are remembered, at least 1.

    References
    ----------
    Migacz, 2017. 8-bit inference with TensorRT (GTC talk S7310).

    Examples
    --------
    >>> observer = Entropy()
    >>> observer.observe(torch.cat([torch.linspace(0.0, 1.0, 10_000), torch.tensor([4.0])]))
    >>> observer.params(bits=4, signed=False).high < 1.2
    tensor(True)
    """

    def params(self, bits: int = 8, *, signed: bool = True) -> QParams:
        """Return scale and zero point for codes of ``bits`` bits."""
        _, qmax = code_range(bits, signed=signed)
        low, high = self.range()
        sizes, bound = self.values.abs(), torch.maximum(-low, high)
        levels = max(1, qmax)  # codes for sizes above 0
        if bound == 0 or levels >= _NUM_BINS:
            return affine_params(low, high, bits, signed=signed)
        # zeros have a code of their own; left in, those of a ReLU drown the rest of their bin
        counts = torch.histc(sizes[sizes > 0], _NUM_BINS, 0, bound.item())
        fewest = max(levels, _FEWEST_BINS)
        ends = range(fewest, _NUM_BINS + 1, max(1, (_NUM_BINS - fewest) // _NUM_SHARES))
        best = min([*ends, _NUM_BINS], key=lambda end: _divergence(counts, end, levels))
        bound = bound * best / _NUM_BINS
        return affine_params(low.clamp(min=-bound), high.clamp(max=bound), bits, signed=signed)


def _divergence(counts: torch.Tensor, end: int, levels: int) -> float:
    """KL divergence of the first ``end`` bins, the rest clamped, from what ``levels`` keep."""
    inside = counts[:end]
    clamped = inside.clone()
    clamped[-1] += counts[end:].sum()
    level = torch.arange(end) * levels // end
    filled = (inside > 0).float()
    sums = torch.zeros(levels).index_add_(0, level, inside)
    spread = torch.zeros(levels).index_add_(0, level, filled)
    kept = filled * (sums / spread.clamp(min=1))[level]
    # a clamped value in a bin that holds none of its own has no counterpart: a small one
    p, q = clamped / clamped.sum(), kept.clamp(min=1e-4) / kept.clamp(min=1e-4).sum()
    return (p * (p.clamp(min=1e-12) / q).log()).sum().item()
