"""A small CNN and the CIFAR ResNets.

ResNets follow He et al. 2016 (section 4.2), with parameter-free shortcuts (option A).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_int, check_number
from rac_helpers.rng import scoped_seed


class Normalize(nn.Module):
    """Turn images into numbers around 0; the first layer of every network here.

    With it inside the network, the file of weights is all that is needed to use the network.

    Parameters
    ----------
    mean, std : float
        Output is ``(x - mean) / std`` with ``x`` in ``[0, 1]``. Both finite, ``std`` > 0.

    Raises
    ------
    TypeError, ValueError
        If ``mean`` or ``std`` is not as described.

    Examples
    --------
    >>> white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    >>> Normalize()(white).unique(), Normalize()(white / 255).unique()
    (tensor([2.]), tensor([2.]))
    >>> Normalize(std=0.0)
    Traceback (most recent call last):
    ValueError: std must be a number > 0, got 0.0
    """

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        check_number("mean", mean)
        if check_number("std", std) <= 0:
            raise ValueError(f"std must be a number > 0, got {std}")
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Take ``(n, 3, H, W)`` images: uint8 in 0–255, or floats in 0–1; return floats."""
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        elif not images.is_floating_point():
            raise TypeError(f"images must be uint8 or floats in [0, 1], got {images.dtype}")
        return (images - self.mean) / self.std


class SmallCNN(nn.Module):
    """Three convolutions, average pooling and one linear layer; trains in seconds.

    Parameters
    ----------
    num_classes : int
        Number of logits, >= 2.
    width : int
        Channels of the first convolution, >= 1; the next ones have twice and four times as many.
    seed : int
        The same seed gives the same starting weights.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> model = SmallCNN(width=16)
    >>> model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10, width: int = 16, *, seed: int = 0) -> None:
        super().__init__()
        _check_sizes(num_classes, width)
        with scoped_seed(seed):
            self.normalize = Normalize()
            self.block1 = _conv_block(3, width)
            self.block2 = _conv_block(width, 2 * width)
            self.block3 = _conv_block(2 * width, 4 * width)
            self.classifier = nn.Linear(4 * width, num_classes)
            _init_convs(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(n, num_classes)``; H and W must be at least 4."""
        x = self.block1(self.normalize(images))  # (n, width, H, W)
        x = self.block2(F.max_pool2d(x, 2))  # (n, 2 width, H/2, W/2)
        x = self.block3(F.max_pool2d(x, 2))  # (n, 4 width, H/4, W/4)
        return self.classifier(x.mean(dim=(2, 3)))


def _conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Where the block halves the picture and doubles the channels, the shortcut takes every second
    pixel and adds channels of zeros (option A of the paper).

    Parameters
    ----------
    in_channels, out_channels : int
        >= 1; ``out_channels`` is equal to ``in_channels`` or larger.
    stride : int
        1, or 2 to halve the picture.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or there are fewer channels out than in.

    Examples
    --------
    >>> BasicBlock(4, 8, 2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    >>> BasicBlock(8, 4, 1)
    Traceback (most recent call last):
    ValueError: out_channels must be >= in_channels 8, got 4
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        check_int("in_channels", in_channels, low=1)
        check_int("stride", stride, low=1, high=2)
        if check_int("out_channels", out_channels, low=1) < in_channels:
            raise ValueError(
                f"out_channels must be >= in_channels {in_channels}, got {out_channels}"
            )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()  # two objects: one used twice breaks quantization by export
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.stride = stride
        extra = out_channels - in_channels
        self.pad = (0, 0, 0, 0, extra // 2, extra - extra // 2)  # (W, W, H, H, C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H / stride, W / stride)``."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x
        if self.stride != 1 or any(self.pad):
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)
        return self.relu2(out + shortcut)


class ResNet(nn.Module):
    """Residual network for small pictures: three stages of ``(depth - 2) / 6`` blocks.

    Parameters
    ----------
    depth : int
        ``6 k + 2`` with k >= 1, such as 20 or 56.
    num_classes : int
        Number of logits, >= 2.
    width : int
        Channels of the first stage, >= 1 (16 in the paper); then twice and four times as many.
    seed : int
        The same seed gives the same starting weights.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    He, Zhang, Ren and Sun, 2016. Deep residual learning for image recognition, section 4.2.

    Examples
    --------
    >>> model = ResNet(8, width=4)
    >>> model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, depth: int, num_classes: int = 10, width: int = 16, *, seed: int = 0
    ) -> None:
        super().__init__()
        check_int("depth", depth, low=8)
        if depth % 6 != 2:
            raise ValueError(f"depth must be 6 k + 2 (8, 14, 20, ..., 56), got {depth}")
        _check_sizes(num_classes, width)
        blocks = (depth - 2) // 6
        with scoped_seed(seed):
            self.normalize = Normalize()
            self.stem = _conv_block(3, width)
            self.stage1 = _stage(width, width, blocks=blocks, stride=1)
            self.stage2 = _stage(width, 2 * width, blocks=blocks, stride=2)
            self.stage3 = _stage(2 * width, 4 * width, blocks=blocks, stride=2)
            self.classifier = nn.Linear(4 * width, num_classes)
            _init_convs(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(n, num_classes)``."""
        x = self.stem(self.normalize(images))  # (n, width, H, W)
        x = self.stage3(self.stage2(self.stage1(x)))  # (n, 4 width, H/4, W/4)
        return self.classifier(x.mean(dim=(2, 3)))


def _stage(in_channels: int, out_channels: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    rest = [BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet20(num_classes: int = 10, width: int = 16, *, seed: int = 0) -> ResNet:
    """Return a ResNet of 20 layers (0.27 million parameters at width 16).

    Parameters
    ----------
    num_classes : int
        Number of logits, >= 2.
    width : int
        Channels of the first stage, >= 1.
    seed : int
        The same seed gives the same starting weights.

    Returns
    -------
    ResNet
        In training mode.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    He, Zhang, Ren and Sun, 2016. Deep residual learning for image recognition, table 6.

    Examples
    --------
    >>> sum(p.numel() for p in resnet20().parameters())
    269722
    """
    return ResNet(20, num_classes, width, seed=seed)


def resnet56(num_classes: int = 10, width: int = 16, *, seed: int = 0) -> ResNet:
    """Return a ResNet of 56 layers (0.85 million parameters at width 16).

    Parameters
    ----------
    num_classes : int
        Number of logits, >= 2.
    width : int
        Channels of the first stage, >= 1.
    seed : int
        The same seed gives the same starting weights.

    Returns
    -------
    ResNet
        In training mode.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    He, Zhang, Ren and Sun, 2016. Deep residual learning for image recognition, table 6.

    Examples
    --------
    >>> sum(p.numel() for p in resnet56().parameters())
    853018
    """
    return ResNet(56, num_classes, width, seed=seed)


def _check_sizes(num_classes: int, width: int) -> None:
    check_int("num_classes", num_classes, low=2)
    check_int("width", width, low=1)


def _init_convs(model: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. (2015) do; other layers keep torch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
