"""Tucker-2: a convolution split in three, with a bottleneck at either end of the kernels.

The kernels of a layer are one block of numbers, ``(out, in, k_h, k_w)``. Tucker-2 finds a few
directions among the outputs and a few among the inputs, and keeps a small core between them::

    1 x 1: in -> rank_in,   k x k: rank_in -> rank_out,   1 x 1: rank_out -> out

A CP decomposition goes one step further: 1 x 1, k x 1, 1 x k, 1 x 1, where the two in the middle
work on each channel alone. It is not here: a best one of given rank has no formula and may not
exist, and what iterations find is hard to fine-tune.
"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers._check import check_floats, check_int
from rac_helpers.lowrank.layers import Moves, check_layer, conv_of
from rac_helpers.lowrank.splits import LayerSplit


def tucker2(
    weight: torch.Tensor, ranks: tuple[int, int], *, iterations: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return core and directions of a block of kernels.

    Directions of the inputs are the leading left singular vectors of the block unfolded to
    ``(in, out k k)``, those of the outputs of ``(out, in k k)``: the higher-order SVD. Unlike the
    SVD of a matrix it is not the best there is; each iteration (HOOI) finds the best directions of
    one side while those of the other are fixed.

    Parameters
    ----------
    weight : torch.Tensor
        Floats of shape ``(out, in, k_h, k_w)``.
    ranks : tuple of int
        ``(rank_in, rank_out)``, in ``[1, in]`` and ``[1, out]``.
    iterations : int
        At least 0. The error never grows with them.

    Returns
    -------
    tuple of torch.Tensor
        ``inputs`` of shape ``(in, rank_in)`` and ``outputs`` of shape ``(out, rank_out)``, both
        with orthonormal columns, and ``core`` of shape ``(rank_out, rank_in, k_h, k_w)``, all
        float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    De Lathauwer, De Moor and Vandewalle, 2000. A multilinear singular value decomposition; and
    On the best rank-1 and rank-(R1, R2, ..., RN) approximation of higher-order tensors.

    Examples
    --------
    >>> inputs, outputs, core = tucker2(torch.ones(4, 3, 3, 3), (1, 2))
    >>> inputs.shape, outputs.shape, core.shape
    (torch.Size([3, 1]), torch.Size([4, 2]), torch.Size([2, 1, 3, 3]))
    """
    block = _check_block(weight)
    rank_in, rank_out = _check_ranks(ranks, block.shape[1], block.shape[0])
    check_int("iterations", iterations, low=0)
    inputs = _directions(block, dim=1)[:, :rank_in]
    outputs = _directions(block, dim=0)[:, :rank_out]
    for _ in range(iterations):
        outputs = _directions(_project(block, inputs=inputs), dim=0)[:, :rank_out]
        inputs = _directions(_project(block, outputs=outputs), dim=1)[:, :rank_in]
    return inputs, outputs, _project(block, inputs=inputs, outputs=outputs)


def tucker_break_even(c_in: int, c_out: int, kernel: int) -> float:
    r"""Return the share of the channels at which a Tucker-2 split has as many weights as before.

    With ``rank_in = f * c_in`` and ``rank_out = f * c_out`` it is the root above 0 of

    .. math:: f \, (C_{in}^2 + C_{out}^2) + f^2 k^2 C_{in} C_{out} = k^2 C_{in} C_{out}

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out, at least 1.
    kernel : int
        Side of the square kernel, at least 1.

    Returns
    -------
    float
        In ``(0, 1)``.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> round(tucker_break_even(64, 64, 3), 4)
    0.895
    """
    for name, value in {"c_in": c_in, "c_out": c_out, "kernel": kernel}.items():
        check_int(name, value, low=1)
    sides, whole = c_in**2 + c_out**2, kernel**2 * c_in * c_out
    return ((sides**2 + 4 * whole**2) ** 0.5 - sides) / (2 * whole)


class TuckerSplit(LayerSplit):
    """A 1 x 1 convolution to ``rank_in`` channels, the kernels, and 1 x 1 to all outputs.

    Parameters
    ----------
    layer : nn.Conv2d
        Without groups; not changed. The layer in the middle takes over stride, padding and
        dilation, the last one the bias.
    rank : tuple of int
        ``(rank_in, rank_out)``, in ``[1, in]`` and ``[1, out]``.
    iterations : int
        As in :func:`tucker2`.

    Raises
    ------
    TypeError, ValueError
        If the layer or the ranks are not as described.

    References
    ----------
    Kim, Park, Yoo, Choi, Yang and Shin, 2016. Compression of deep convolutional neural networks
    for fast and low power mobile applications.

    Examples
    --------
    >>> split = TuckerSplit(nn.Conv2d(16, 32, 3, padding=1), (4, 8))
    >>> split.first, split.core, split.last
    (Conv2d(16, 4, kernel_size=(1, 1), stride=(1, 1), bias=False),
     Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False),
     Conv2d(8, 32, kernel_size=(1, 1), stride=(1, 1)))
    """

    def __init__(self, layer: nn.Conv2d, rank: tuple[int, int], *, iterations: int = 0) -> None:
        super().__init__()
        check_layer(layer, nn.Conv2d)
        inputs, outputs, core = tucker2(layer.weight, rank, iterations=iterations)
        self.first = conv_of(layer, inputs.T[:, :, None, None], None)
        self.core = conv_of(layer, core, None, Moves.of(layer))
        self.last = conv_of(layer, outputs[:, :, None, None], layer.bias)
        self.train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map what the layer mapped, to the same shape."""
        return self.last(self.core(self.first(x)))

    @property
    def rank(self) -> tuple[int, int]:
        """The numbers of channels between the layers, ``(rank_in, rank_out)``."""
        out, inner = self.core.weight.shape[:2]
        return inner, out

    @classmethod
    def ranks(cls, layer: nn.Conv2d) -> list[tuple[int, int]]:
        """Return pairs in the proportion of the channels, rounded up, to ``(in, out)``."""
        check_layer(layer, nn.Conv2d)
        c_in, c_out = layer.in_channels, layer.out_channels
        steps = max(c_in, c_out)
        return [(-(-k * c_in // steps), -(-k * c_out // steps)) for k in range(1, steps + 1)]

    @classmethod
    def count_weights(cls, layer: nn.Conv2d, rank: tuple[int, int]) -> int:
        """Return ``in * rank_in + rank_in * rank_out * k * k + rank_out * out``."""
        c_out, c_in, height, width = check_layer(layer, nn.Conv2d).weight.shape
        inner, outer = _check_ranks(rank, c_in, c_out)
        return c_in * inner + inner * outer * height * width + outer * c_out

    @classmethod
    def growth(cls, rank: tuple[int, int]) -> dict[str, int]:
        """Return one rank for the outer parts each, their product for the core."""
        inner, outer = rank
        return {"first": inner, "core": inner * outer, "last": outer}

    @classmethod
    def energies(cls, layer: nn.Conv2d) -> dict[tuple[int, int], float]:
        """Return for each of the pairs the share of the squared norm that the core keeps."""
        block = _check_block(check_layer(layer, nn.Conv2d).weight)
        core = _project(block, inputs=_directions(block, dim=1), outputs=_directions(block, dim=0))
        kept = core.square().sum((2, 3)).cumsum(0).cumsum(1)  # of a smaller core: its first part
        whole = float(kept[-1, -1])
        return {
            (inner, outer): float(kept[outer - 1, inner - 1]) / whole if whole else 1.0
            for inner, outer in cls.ranks(layer)
        }

    def fuse(self) -> nn.Conv2d:
        """Return one convolution."""
        inputs, outputs = self.first.weight.double(), self.last.weight.double()
        weight = torch.einsum(
            "ri,srhw,os->oihw", inputs[:, :, 0, 0], self.core.weight.double(), outputs[:, :, 0, 0]
        )
        return conv_of(self.core, weight, self.last.bias, Moves.of(self.core))


class HooiSplit(TuckerSplit):
    """A :class:`TuckerSplit` whose directions are improved by ten iterations.

    Parameters
    ----------
    layer, rank
        As there.

    Examples
    --------
    >>> HooiSplit(nn.Conv2d(16, 32, 3), (4, 8)).rank
    (4, 8)
    """

    def __init__(self, layer: nn.Conv2d, rank: tuple[int, int]) -> None:
        super().__init__(layer, rank, iterations=10)


def _directions(block: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Return the left singular vectors of a block unfolded along ``dim``, the longest first."""
    rows = block.movedim(dim, 0).flatten(1)
    if len(rows) > rows.shape[1]:  # more directions may be asked for than there are columns
        rows = torch.nn.functional.pad(rows, (0, len(rows) - rows.shape[1]))
    return torch.linalg.svd(rows, full_matrices=False)[0]


def _project(
    block: torch.Tensor, *, inputs: torch.Tensor | None = None, outputs: torch.Tensor | None = None
) -> torch.Tensor:
    """Express the kernels in the directions of inputs, of outputs, or of both."""
    if inputs is not None:
        block = torch.einsum("oihw,ir->orhw", block, inputs)
    if outputs is not None:
        block = torch.einsum("oihw,or->rihw", block, outputs)
    return block


def _check_block(weight: torch.Tensor) -> torch.Tensor:
    """Return kernels in double precision, on the processor, or raise."""
    check_floats("weight", weight)
    if weight.ndim != 4 or 0 in weight.shape:
        raise ValueError(
            f"weight must have shape (out, in, k_h, k_w), none of them 0, got {tuple(weight.shape)}"
        )
    if not weight.isfinite().all():
        raise ValueError("weight must hold finite numbers only, got inf or nan")
    return weight.detach().to("cpu", torch.float64)


def _check_ranks(ranks: tuple[int, int], c_in: int, c_out: int) -> tuple[int, int]:
    if not isinstance(ranks, tuple | list) or len(ranks) != 2:
        raise TypeError(f"rank must be a pair (rank_in, rank_out), got {ranks!r}")
    inner, outer = ranks
    return (
        check_int("rank_in", inner, low=1, high=c_in),
        check_int("rank_out", outer, low=1, high=c_out),
    )
