"""What a model takes: bytes on disk, bytes while it runs, time; and how to compare two models."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rac_helpers._check import check_int, check_number
from rac_helpers.metrics.score import eval_mode


def size_bytes(model: nn.Module | Mapping[str, torch.Tensor]) -> int:
    """Return the size of the model's safetensors file, header included.

    Everything in the ``state_dict`` is stored: parameters and buffers. A tensor that occurs under
    several names (tied weights) is stored once. Zeros take as many bytes as other numbers.

    Parameters
    ----------
    model : nn.Module or mapping of str to torch.Tensor
        A mapping is for what a method stores instead of weights: indices, codebooks, scales.

    Raises
    ------
    TypeError
        If something to store is no tensor.

    Examples
    --------
    >>> size_bytes({"weight": torch.zeros(100)})  # 400 bytes of numbers and a header
    472
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    stored, seen = {}, set()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.stride())
        if value.numel() and (place, value.shape, value.dtype) in seen:
            continue
        seen.add((place, value.shape, value.dtype))
        stored[name] = value.detach().clone(memory_format=torch.contiguous_format)
    return len(safetensors.torch.save(stored))


def peak_memory_bytes(model: nn.Module, example: torch.Tensor) -> int:
    """Return the most bytes that input and activations occupy at one moment of a forward pass.

    Each tensor counts from the operation that makes it until Python lets it go; views and
    in-place results share memory and count once. Not counted: the weights (for them see
    :func:`size_bytes`) and the working space inside an operation.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode, without gradients: training needs more.
    example : torch.Tensor
        Input of the model; the memory grows with the batch.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 1))
    >>> peak_memory_bytes(model, torch.zeros(1, 10))  # 4 * (10 + 100 + 100), during the ReLU
    840
    """
    meter = _LiveBytes(model)
    example = example.clone()  # a slice would count all that it was cut from
    with eval_mode(model), torch.no_grad(), meter:
        meter.add(example)
        model(example)
    return meter.peak


class _LiveBytes(TorchDispatchMode):
    """Add up the storages that operations make, and take them off when they die."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: dict[int, weakref.ref] = {}
        weights = [*model.parameters(), *model.buffers()]
        self.weights = {value.untyped_storage().data_ptr() for value in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return result

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self.alive or storage.data_ptr() in self.weights:
            return
        self.alive[key] = weakref.ref(storage, lambda _: self.remove(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def remove(self, key: int, size: int) -> None:
        del self.alive[key]
        self.now -= size


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass: median and quartiles over ``runs`` measured runs."""

    median_ms: float
    q25_ms: float
    q75_ms: float
    runs: int
    threads: int

    @property
    def iqr_ms(self) -> float:
        """Distance of the quartiles: half of all runs lie between them."""
        return self.q75_ms - self.q25_ms

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.3f} ms (half of {self.runs} runs between {self.q25_ms:.3f} and "
            f"{self.q75_ms:.3f}; threads: {self.threads})"
        )


def latency_ms(
    model: nn.Module, example: torch.Tensor, *, runs: int = 30, warmup: int = 5
) -> Latency:
    """Measure the time of a forward pass on this machine.

    The first runs are slower (memory is fetched, kernels are chosen), so ``warmup`` runs are
    thrown away. The median is reported because other programs make single runs slow.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode and inference mode.
    example : torch.Tensor
        Input of the model, on the model's device.
    runs : int
        At least 1.
    warmup : int
        At least 0.

    Returns
    -------
    Latency
        ``median_ms``, ``q25_ms``, ``q75_ms``, ``iqr_ms``, ``runs``, ``threads`` (of PyTorch).

    Raises
    ------
    TypeError, ValueError
        If ``runs`` or ``warmup`` is out of range.

    Examples
    --------
    >>> latency = latency_ms(nn.Linear(10, 10), torch.zeros(1, 10), runs=20)
    >>> latency.runs, 0 < latency.q25_ms <= latency.median_ms <= latency.q75_ms
    (20, True)
    """
    check_int("runs", runs, low=1)
    check_int("warmup", warmup, low=0)
    times_ms = []
    with eval_mode(model), torch.inference_mode():
        for _ in range(warmup + runs):
            start = time.perf_counter()
            model(example)
            _synchronize(example.device)
            times_ms.append(1000 * (time.perf_counter() - start))
    q25, median, q75 = np.quantile(times_ms[warmup:], [0.25, 0.5, 0.75]).tolist()
    return Latency(median, q25, q75, runs, torch.get_num_threads())


def _synchronize(device: torch.device) -> None:
    """Wait for an accelerator, which works on after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def compression_ratio(original: float, compressed: float) -> float:
    """Return original / compressed, as in the papers: 10 means ten times smaller.

    Two other definitions are in use: see :func:`ratio_from_fraction` and
    :func:`ratio_from_zero_share`.

    Parameters
    ----------
    original, compressed : float
        The same quantity of both models, for example bytes; above 0.

    Raises
    ------
    TypeError, ValueError
        If a number is not above 0.

    References
    ----------
    Han, Mao, Dally: Deep Compression, ICLR 2016: AlexNet from 240 MB to 6.9 MB.

    Examples
    --------
    >>> round(compression_ratio(240, 6.9), 1)
    34.8
    """
    for name, value in {"original": original, "compressed": compressed}.items():
        if check_number(name, value, low=0) == 0:
            raise ValueError(f"{name} must be a finite number > 0, got 0")
    return original / compressed


def ratio_from_fraction(fraction: float) -> float:
    """Turn compressed / original (small is good) into the compression ratio.

    Parameters
    ----------
    fraction : float
        Above 0.

    Examples
    --------
    >>> ratio_from_fraction(0.1)
    10.0
    """
    return compression_ratio(1, fraction)


def ratio_from_zero_share(share: float) -> float:
    """Turn total / (total + zeros) into the compression ratio, if zeros took no space.

    That formula counts the zeros twice. It is 1 for a model without zeros and 0.5 for a model of
    zeros only, so it never tells how much smaller a model is.

    Parameters
    ----------
    share : float
        Above 0.5, at most 1.

    Raises
    ------
    ValueError
        If the share is outside the range.

    Examples
    --------
    >>> total, zeros = 1000, 900
    >>> share = total / (total + zeros)
    >>> round(share, 3), round(ratio_from_zero_share(share), 6)
    (0.526, 10.0)
    """
    if check_number("share", share, low=0.5, high=1) == 0.5:
        raise ValueError("share must be a finite number > 0.5, got 0.5")
    sparsity = 1 / share - 1  # zeros / total
    return 1 / (1 - sparsity)
