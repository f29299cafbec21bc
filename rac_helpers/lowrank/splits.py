"""Layers that are split in two: thinner, with a bottleneck of ``rank`` channels between them.

Each split is a module that is made from a layer and computes nearly the same. It differs in the
matrix that is decomposed:

- :class:`LinearSplit`: the weight itself;
- :class:`ChannelSplit`: a kernel ``(out, in, k, k)`` as a matrix ``(out, in k k)``;
- :class:`SpatialSplit`: the same kernel as ``(out k, in k)``, rows and columns apart.

A matrix ``(m, n)`` has ``m n`` weights, its factors ``rank (m + n)``.
"""

from __future__ import annotations

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.lowrank.layers import Layer, Moves, check_layer, conv_of, linear_of
from rac_helpers.lowrank.svd import energy, singular_values, split_matrix

Rank = int | tuple[int, int]


class LayerSplit(nn.Module):
    """What all splits have in common; see the subclasses.

    The classmethods say what a split would be like, before it is made. They take the layer, and
    count weights without the bias, which stays as it is.
    """

    kind: type[Layer] = nn.Conv2d

    @property
    def rank(self) -> Rank:
        """The number of channels between the layers."""
        raise NotImplementedError

    @classmethod
    def ranks(cls, layer: Layer) -> list[Rank]:
        """Return the ranks to choose from, the smallest first, the full one last."""
        raise NotImplementedError

    @classmethod
    def count_weights(cls, layer: Layer, rank: Rank) -> int:
        """Return the number of weights at a rank."""
        raise NotImplementedError

    @classmethod
    def growth(cls, rank: Rank) -> dict[str, int]:
        """Return for each part how many times the weights, and work, of rank one it has."""
        raise NotImplementedError

    @classmethod
    def energies(cls, layer: Layer) -> dict[Rank, float]:
        """Return for each of the ranks the share of the squared norm of the weights it keeps."""
        raise NotImplementedError

    def fuse(self) -> Layer:
        """Return one layer that computes the same, with as many weights as before the split."""
        raise NotImplementedError


class MatrixSplit(LayerSplit):
    """Two layers, ``first`` and ``last``, by the SVD of one matrix."""

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        check_layer(layer, self.kind)
        first, last = split_matrix(self.matrix(layer), rank)
        self._build_(layer, first, last)
        self.train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map what the layer mapped, to the same shape."""
        return self.last(self.first(x))

    @property
    def rank(self) -> int:
        """The number of channels between the two layers."""
        return self.first.weight.shape[0]

    @classmethod
    def matrix(cls, layer: Layer) -> torch.Tensor:
        """Return the weights as a matrix: a row for what goes out, a column for what comes in."""
        raise NotImplementedError

    @classmethod
    def ranks(cls, layer: Layer) -> list[int]:
        """Return 1, 2, up to the full rank, ``min(m, n)``."""
        return list(range(1, min(cls.matrix(check_layer(layer, cls.kind)).shape) + 1))

    @classmethod
    def count_weights(cls, layer: Layer, rank: int) -> int:
        """Return ``rank * (m + n)`` for a matrix ``(m, n)``."""
        shape = cls.matrix(check_layer(layer, cls.kind)).shape
        return check_int("rank", rank, low=1, high=min(shape)) * sum(shape)

    @classmethod
    def growth(cls, rank: int) -> dict[str, int]:
        """Return the rank for either part."""
        return {"first": rank, "last": rank}

    @classmethod
    def energies(cls, layer: Layer) -> dict[int, float]:
        """Return for each rank the share of the squared singular values that it keeps."""
        kept = energy(singular_values(cls.matrix(check_layer(layer, cls.kind)))).tolist()
        return dict(enumerate(kept, start=1))

    def _build_(self, layer: Layer, first: torch.Tensor, last: torch.Tensor) -> None:
        raise NotImplementedError


class LinearSplit(MatrixSplit):
    """Two linear layers in place of one: ``(out, in)`` is ``(out, rank)`` times ``(rank, in)``.

    Parameters
    ----------
    layer : nn.Linear
        Not changed. The last layer takes over the bias.
    rank : int
        In ``[1, min(in, out)]``. It saves weights below ``in * out / (in + out)``.

    Raises
    ------
    TypeError, ValueError
        If the layer or the rank is not as described.

    References
    ----------
    Denton, Zaremba, Bruna, LeCun and Fergus, 2014. Exploiting linear structure within
    convolutional networks for efficient evaluation.

    Examples
    --------
    >>> split = LinearSplit(nn.Linear(100, 50), rank=10)
    >>> split.first, split.last  # 10 * (100 + 50) weights in place of 5000
    (Linear(in_features=100, out_features=10, bias=False),
     Linear(in_features=10, out_features=50, bias=True))
    """

    kind = nn.Linear

    @classmethod
    def matrix(cls, layer: nn.Linear) -> torch.Tensor:
        """Return the weights, ``(out, in)``."""
        return layer.weight

    def _build_(self, layer: nn.Linear, first: torch.Tensor, last: torch.Tensor) -> None:
        self.first = linear_of(layer, first, None)
        self.last = linear_of(layer, last, layer.bias)

    def fuse(self) -> nn.Linear:
        """Return one linear layer."""
        weight = self.last.weight.double() @ self.first.weight.double()
        return linear_of(self.last, weight, self.last.bias)


class ChannelSplit(MatrixSplit):
    """A convolution to ``rank`` channels, then a 1 x 1 convolution to all of them.

    Parameters
    ----------
    layer : nn.Conv2d
        Without groups; not changed. The first layer takes over stride, padding and dilation, the
        last one the bias.
    rank : int
        In ``[1, min(out, in * k * k)]``.

    Raises
    ------
    TypeError, ValueError
        If the layer or the rank is not as described.

    References
    ----------
    Zhang, Zou, He and Sun, 2016. Accelerating very deep convolutional networks for classification
    and detection. They decompose the responses of the layer on data; here it is the weights.

    Examples
    --------
    >>> split = ChannelSplit(nn.Conv2d(16, 32, 3, padding=1), rank=4)
    >>> split.first, split.last
    (Conv2d(16, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False),
     Conv2d(4, 32, kernel_size=(1, 1), stride=(1, 1)))
    """

    @classmethod
    def matrix(cls, layer: nn.Conv2d) -> torch.Tensor:
        """Return the kernels unfolded to ``(out, in k k)``."""
        return layer.weight.flatten(1)

    def _build_(self, layer: nn.Conv2d, first: torch.Tensor, last: torch.Tensor) -> None:
        kernels = first.reshape(-1, *layer.weight.shape[1:])  # (rank, in, k_h, k_w)
        self.first = conv_of(layer, kernels, None, Moves.of(layer))
        self.last = conv_of(layer, last[:, :, None, None], layer.bias)

    def fuse(self) -> nn.Conv2d:
        """Return one convolution."""
        first, last = self.first.weight.double(), self.last.weight.double()
        weight = torch.einsum("rihw,or->oihw", first, last[:, :, 0, 0])
        return conv_of(self.first, weight, self.last.bias, Moves.of(self.first))


class SpatialSplit(MatrixSplit):
    """A k x 1 convolution down the columns to ``rank`` channels, then 1 x k along the rows.

    Parameters
    ----------
    layer : nn.Conv2d
        Without groups; not changed. Each of the two takes over stride, padding and dilation of its
        direction, the last one the bias.
    rank : int
        In ``[1, min(in, out) * k]`` for a square kernel.

    Raises
    ------
    TypeError, ValueError
        If the layer or the rank is not as described.

    References
    ----------
    Jaderberg, Vedaldi and Zisserman, 2014. Speeding up convolutional neural networks with low rank
    expansions, scheme 2.

    Examples
    --------
    >>> split = SpatialSplit(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), rank=4)
    >>> split.first, split.last
    (Conv2d(16, 4, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0), bias=False),
     Conv2d(4, 32, kernel_size=(1, 3), stride=(1, 2), padding=(0, 1), bias=False))
    """

    @classmethod
    def matrix(cls, layer: nn.Conv2d) -> torch.Tensor:
        """Return the kernels unfolded to ``(out k_w, in k_h)``."""
        out, inner, height, width = layer.weight.shape
        return layer.weight.permute(0, 3, 1, 2).reshape(out * width, inner * height)

    def _build_(self, layer: nn.Conv2d, first: torch.Tensor, last: torch.Tensor) -> None:
        out, inner, height, width = layer.weight.shape
        first = first.reshape(-1, inner, height, 1)  # (rank, in, k_h, 1)
        last = last.reshape(out, width, -1).permute(0, 2, 1)[:, :, None]  # (out, rank, 1, k_w)
        moves = Moves.of(layer)
        self.first = conv_of(layer, first, None, moves.down())
        self.last = conv_of(layer, last, layer.bias, moves.along())

    def fuse(self) -> nn.Conv2d:
        """Return one convolution."""
        first, last = self.first.weight.double(), self.last.weight.double()
        weight = torch.einsum("rih,orw->oihw", first[..., 0], last[:, :, 0])
        moves = Moves.of(self.first).joined(Moves.of(self.last))
        return conv_of(self.first, weight, self.last.bias, moves)
