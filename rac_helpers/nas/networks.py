"""Small networks made of stages, and the space of those that the course searches.

Every combination is legal: the first block of a stage changes the number of channels and halves
the picture where that is wanted, whatever its operation; a skip does so by a 1x1 convolution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.models import Normalize
from rac_helpers.nas.space import Genome, Space
from rac_helpers.rng import scoped_seed


def _unit(in_channels: int, out_channels: int, kernel: int = 1, **options: int) -> list[nn.Module]:
    """Convolution and normalization, the size of the picture kept (or halved, by a stride)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False, **options)
    return [conv, nn.BatchNorm2d(out_channels)]


def _conv3(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 3x3 convolution."""
    return nn.Sequential(*_unit(in_channels, out_channels, 3, stride=stride), nn.ReLU())


def _sep3(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 3x3 convolution of each channel alone, then a 1x1 convolution that mixes the channels."""
    depthwise = _unit(in_channels, in_channels, 3, stride=stride, groups=in_channels)
    return nn.Sequential(*depthwise, *_unit(in_channels, out_channels), nn.ReLU())


def _bottleneck(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 3x3 convolution on half of the channels, between two 1x1 convolutions."""
    middle = max(1, out_channels // 2)
    return nn.Sequential(
        *_unit(in_channels, middle),
        nn.ReLU(),
        *_unit(middle, middle, 3, stride=stride),
        nn.ReLU(),
        *_unit(middle, out_channels),
        nn.ReLU(),
    )


def _skip(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Nothing; where the shape changes, an average over 2x2 pixels and a 1x1 convolution."""
    if (in_channels, stride) == (out_channels, 1):
        return nn.Identity()
    halve = [nn.AvgPool2d(2)] if stride == 2 else []
    return nn.Sequential(*halve, *_unit(in_channels, out_channels))


OPERATIONS = {"conv3": _conv3, "sep3": _sep3, "bottleneck": _bottleneck, "skip": _skip}


@dataclass(frozen=True)
class Stage:
    """Blocks of one operation; the first one changes the channels and halves the picture.

    Parameters
    ----------
    op : str
        One of ``OPERATIONS``: ``conv3``, ``sep3``, ``bottleneck``, ``skip``.
    channels, blocks : int
        At least 1.
    stride : int
        1, or 2 to halve the picture.

    Examples
    --------
    >>> Stage("conv3", channels=8, blocks=1, stride=2)
    Stage(op='conv3', channels=8, blocks=1, stride=2)
    """

    op: str
    channels: int
    blocks: int
    stride: int

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS:
            raise ValueError(f"op must be one of {sorted(OPERATIONS)}, got {self.op!r}")
        check_int("channels", self.channels, low=1)
        check_int("blocks", self.blocks, low=1)
        check_int("stride", self.stride, low=1, high=2)


class StagedNetwork(nn.Module):
    """A stem that halves the picture, stages, the mean over all pixels, one linear layer.

    The operation stands in the name of each block (``stage2.block1_sep3``), so that networks that
    have a block in common have its names in common.

    Parameters
    ----------
    stages : sequence of Stage
        At least one.
    stem_channels, stem_stride : int
        Of the first 3x3 convolution.
    classes : int
        Number of logits, at least 2.
    seed : int
        The same seed gives the same starting weights.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> model = StagedNetwork([Stage("skip", 4, 1, 1), Stage("sep3", 8, 2, 2)], stem_channels=4)
    >>> model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    >>> [name for name, _ in model.stage2.named_children()]
    ['block1_sep3', 'block2_sep3']
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        stem_channels: int,
        stem_stride: int = 2,
        classes: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not stages:
            raise ValueError("stages must hold at least one Stage, got none")
        for stage in stages:
            if not isinstance(stage, Stage):
                raise TypeError(f"stages must hold Stage only, got {type(stage).__name__}")
        check_int("stem_stride", stem_stride, low=1)
        check_int("classes", classes, low=2)
        with scoped_seed(seed):
            self.normalize = Normalize()
            self.stem = _conv3(3, check_int("stem_channels", stem_channels, low=1), stem_stride)
            channels, self.num_stages = stem_channels, len(stages)
            for number, stage in enumerate(stages, start=1):
                self.add_module(f"stage{number}", _blocks(channels, stage))
                channels = stage.channels
            self.classifier = nn.Linear(channels, classes)
            _init_convs(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, classes)`` of images ``(n, 3, H, W)``."""
        x = self.stem(self.normalize(images))
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"stage{number}")(x)
        return self.classifier(x.mean(dim=(2, 3)))


def _blocks(in_channels: int, stage: Stage) -> nn.Sequential:
    make, out = OPERATIONS[stage.op], stage.channels
    blocks = [make(in_channels, out, stage.stride)]
    blocks += [make(out, out, 1) for _ in range(stage.blocks - 1)]
    names = [f"block{number}_{stage.op}" for number in range(1, stage.blocks + 1)]
    return nn.Sequential(OrderedDict(zip(names, blocks, strict=True)))


def _init_convs(model: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. (2015) do; the linear layer keeps torch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


DIGITS_SPACE = Space(
    (
        ("stage1", tuple(OPERATIONS)),
        ("stage2", tuple(OPERATIONS)),
        ("stage3", tuple(OPERATIONS)),
        ("width", (4, 8, 16)),
        ("blocks", (1, 2)),
    )
)
# every layer that occurs in the space, as large as it gets
DIGITS_LARGEST: tuple[Genome, ...] = tuple((op, op, op, 2, 1) for op in range(len(OPERATIONS)))


def build(genome: Genome, *, seed: int, classes: int = 10) -> StagedNetwork:
    """Return the network of a genome of ``DIGITS_SPACE``, with new weights.

    Three stages, each with an operation of its own; all have as many blocks. The first has
    ``width`` channels, the next ones twice and four times as many.

    Parameters
    ----------
    genome : Genome
        One of ``DIGITS_SPACE``.
    seed : int
        Of the starting weights.
    classes : int
        Number of logits, at least 2.

    Returns
    -------
    StagedNetwork
        For images of at least 8x8 pixels, in training mode.

    Raises
    ------
    TypeError, ValueError
        If the genome is not one of the space, or a number is out of range.

    Examples
    --------
    >>> model = build((0, 1, 3, 1, 0), seed=0)
    >>> sum(p.numel() for p in model.parameters())
    1978
    """
    choice = DIGITS_SPACE.decode(genome)
    width, blocks = choice["width"], choice["blocks"]
    stages = [
        Stage(choice["stage1"], width, blocks, 1),
        Stage(choice["stage2"], 2 * width, blocks, 2),
        Stage(choice["stage3"], 4 * width, blocks, 2),
    ]
    return StagedNetwork(stages, stem_channels=width, classes=classes, seed=seed)
