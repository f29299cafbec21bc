"""To codes and back: ``code = round(value / scale) + zero_point``, kept in its range."""

from __future__ import annotations

import torch

from rac_helpers._check import check_generator
from rac_helpers.quantize.params import QParams
from rac_helpers.quantize.ranges import check_values


def quantize(values: torch.Tensor, params: QParams) -> torch.Tensor:
    """Return the codes of ``values``: ``clamp(round(values / scale) + zero_point)``.

    As PyTorch does, the values are multiplied by ``1 / scale`` and halves go to the even integer.

    Parameters
    ----------
    values : torch.Tensor
        Floats of any shape, finite.
    params : QParams
        With ``axis``, as many scales as ``values`` has slices along it.

    Returns
    -------
    torch.Tensor
        The same shape, in the smallest integer type that holds the codes.

    Raises
    ------
    TypeError, ValueError
        If ``values`` holds no floats or is not finite, or if ``params`` do not fit its shape.

    Examples
    --------
    >>> params = QParams(torch.tensor(0.1), torch.tensor(3, dtype=torch.int32), qmin=-8, qmax=7)
    >>> quantize(torch.tensor([0.0, 0.21, -0.6, 9.0]), params)
    tensor([ 3,  5, -3,  7], dtype=torch.int8)
    """
    scale, zero_point = _fitting(check_values("values", values), params)
    codes = (values.detach().float() * (1 / scale)).round() + zero_point
    return codes.clamp(params.qmin, params.qmax).to(code_dtype(params))


def dequantize(codes: torch.Tensor, params: QParams) -> torch.Tensor:
    """Return the values of ``codes``: ``(codes - zero_point) * scale``, float32.

    Raises
    ------
    TypeError, ValueError
        If ``codes`` are no integers or out of ``[qmin, qmax]``, or if ``params`` do not fit.

    Examples
    --------
    >>> params = QParams(torch.tensor(0.5), torch.tensor(3, dtype=torch.int32), qmin=-8, qmax=7)
    >>> dequantize(torch.tensor([3, 5, -8]), params)
    tensor([ 0.0000,  1.0000, -5.5000])
    """
    if not isinstance(codes, torch.Tensor) or codes.is_floating_point() or codes.is_complex():
        got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
        raise TypeError(f"codes must be a tensor of integers, got {got}")
    if codes.numel() and (int(codes.min()) < params.qmin or int(codes.max()) > params.qmax):
        found = f"[{int(codes.min())}, {int(codes.max())}]"
        raise ValueError(f"codes must be in [{params.qmin}, {params.qmax}], got {found}")
    scale, zero_point = _fitting(codes, params)
    return (codes.to(torch.int32) - zero_point) * scale


def fake_quantize(values: torch.Tensor, params: QParams) -> torch.Tensor:
    """Return what is left of ``values`` after :func:`quantize` and :func:`dequantize`.

    Examples
    --------
    >>> params = QParams(torch.tensor(0.5), torch.tensor(0, dtype=torch.int32), qmin=-2, qmax=2)
    >>> fake_quantize(torch.tensor([0.1, 0.6, 9.0]), params)
    tensor([0.0000, 0.5000, 1.0000])
    """
    return dequantize(quantize(values, params), params)


def quantize_stochastic(
    values: torch.Tensor, params: QParams, *, generator: torch.Generator
) -> torch.Tensor:
    """Return codes rounded up or down at random, so that the mean of many draws is the value.

    A value a quarter of the way between two codes goes up in a quarter of the draws.

    Parameters
    ----------
    values, params
        As for :func:`quantize`.
    generator : torch.Generator
        Of the CPU.

    Raises
    ------
    TypeError, ValueError
        As :func:`quantize`.

    References
    ----------
    Gupta et al., 2015. Deep learning with limited numerical precision, section 3.

    Examples
    --------
    >>> params = QParams(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), qmin=-8, qmax=7)
    >>> generator = torch.Generator().manual_seed(0)
    >>> codes = quantize_stochastic(torch.full((10_000,), 2.25), params, generator=generator)
    >>> codes.unique().tolist(), round(codes.float().mean().item(), 1)
    ([2, 3], 2.2)
    """
    check_generator(generator)
    scale, zero_point = _fitting(check_values("values", values), params)
    draws = torch.rand(values.shape, generator=generator).to(values.device)
    steps = values.detach().float() * (1 / scale)
    down = steps.floor()  # not floor(steps + draws): that sum is rounded, also up to the next code
    codes = down + (draws >= 1 - (steps - down)) + zero_point
    return codes.clamp(params.qmin, params.qmax).to(code_dtype(params))


def code_dtype(params: QParams) -> torch.dtype:
    """Return the smallest integer type that holds the codes.

    Examples
    --------
    >>> params = QParams(torch.tensor(0.1), torch.tensor(0, dtype=torch.int32), qmin=0, qmax=255)
    >>> code_dtype(params)
    torch.uint8
    """
    for dtype in (torch.int8, torch.uint8, torch.int16):
        info = torch.iinfo(dtype)
        if info.min <= params.qmin and params.qmax <= info.max:
            return dtype
    return torch.int32


def _fitting(tensor: torch.Tensor, params: QParams) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(params, QParams):
        raise TypeError(f"params must be QParams, got {type(params).__name__}")
    scale, zero_point = params.along(tensor.ndim)
    if params.axis is not None and len(params.scale) != tensor.shape[params.axis]:
        raise ValueError(
            f"params must have a scale for each of the {tensor.shape[params.axis]} slices along "
            f"axis {params.axis}, got {len(params.scale)}"
        )
    return scale, zero_point
