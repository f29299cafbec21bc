"""RandAugment on a whole batch at once, each image with its own operations.

One image of 32 pixels keeps a processor busy for a few microseconds an operation; calling the
operation costs more than that. With one magnitude M there are only 23 different transforms (14
operations, nine of them with two directions). So we draw for all images, sort the batch by
transform, and call each transform once, on all its images.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rac_helpers._check import check_int
from rac_helpers.augment.draw import apply_op
from rac_helpers.augment.table import LEVELS, Op
from rac_helpers.augment.transform import RandAugment

_CHUNK_VALUES = 3 * 2**18  # values that an operation gets at once: their floats fit into the cache


class BatchRandAugment(RandAugment):
    """:class:`RandAugment` for batches: the same draws, the same pixels, many times faster.

    This is the training transform of the course. The speed is for small images: at 32 pixels it is
    large, at 224 pixels nearly all time goes into the pixels and little is gained.

    Parameters
    ----------
    num_ops, magnitude, num_magnitude_bins, ops, replacement, uniform_magnitude, generator
        As in :class:`RandAugment`. With ``replacement=False`` the drawing is slow.

    Notes
    -----
    Different from torchvision's transform, which draws once and applies the same operations, with
    the same signs, to the whole batch.

    Examples
    --------
    >>> images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    >>> batch = BatchRandAugment(2, 9)(images, generator=torch.Generator().manual_seed(0))
    >>> one_by_one = RandAugment(2, 9)(images, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(batch, one_by_one)
    True
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kinds = self._all_kinds()

    def draw_batch(
        self, num_images: int, generator: torch.Generator | None = None
    ) -> list[list[Op]]:
        """Draw the operations for each image, as ``num_images`` calls of ``draw`` would.

        Parameters
        ----------
        num_images : int
            At least 0.
        generator : torch.Generator, optional
            Source of the draws; by default the transform's own.

        Returns
        -------
        list of list of Op
            ``num_ops`` operations for each image.

        Examples
        --------
        >>> for ops in BatchRandAugment(2, 9).draw_batch(2, torch.Generator().manual_seed(0)):
        ...     print([op.name for op in ops])
        ['TranslateY', 'Color']
        ['ShearX', 'Equalize']
        """
        check_int("num_images", num_images, low=0)
        drawn = self._draw_kinds(num_images, generator).tolist()
        return [[self._kinds[number] for number in row] for row in drawn]

    def _transform_batch(self, images: Tensor) -> Tensor:
        if not images.numel():
            return images.clone()
        if images.ndim > 4:
            return self._transform_batch(images.flatten(0, -4)).reshape(images.shape)
        drawn = self._draw_kinds(len(images))
        place = torch.arange(len(images))  # place[i]: where in the batch the i-th image belongs
        other, spare = torch.empty_like(images), torch.empty_like(images)
        for column in drawn.unbind(1):
            kind, order = column[place].sort()
            place = place[order]
            torch.index_select(images, 0, order.to(images.device), out=other)
            images, other, spare = other, spare, other  # images of a kind now lie together
            found, counts = kind.unique_consecutive(return_counts=True)
            for number, group in zip(found.tolist(), images.split(counts.tolist()), strict=True):
                _apply_(self._kinds[number], group)
        return torch.index_select(images, 0, place.argsort().to(images.device), out=other)

    def _all_kinds(self) -> list[Op]:
        """List what can be drawn: levels, names, directions."""
        lowest = 0 if self.uniform_magnitude else self.magnitude
        levels = range(lowest, self.magnitude + 1)
        each = itertools.product(levels, self.ops, (1, -1))
        return [Op(name, level, sign, self.num_magnitude_bins) for level, name, sign in each]

    def _draw_kinds(self, num_images: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw positions in ``_kinds``: int64, shape ``(num_images, num_ops)``."""
        generator = self._generator(generator)
        shape = num_images, self.num_ops
        if not self.replacement:
            position = {kind: i for i, kind in enumerate(self._kinds)}
            drawn = [position[op] for _ in range(num_images) for op in self.draw(generator)]
            return torch.tensor(drawn, dtype=torch.int64).reshape(shape)
        num_levels = self.magnitude + 1 if self.uniform_magnitude else 1
        signed = torch.tensor([LEVELS[name].signed for name in self.ops])
        return _draw_many(num_images * self.num_ops, signed, num_levels, generator).reshape(shape)


def _apply_(op: Op, images: Tensor) -> None:
    if op.name == "Identity":
        return
    for part in images.tensor_split(-(-images.numel() // _CHUNK_VALUES)):  # that many, rounded up
        part.copy_(apply_op(part, op))


def _draw_many(count: int, signed: Tensor, num_levels: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` operations, each ``(level * len(signed) + index) * 2 + negative``.

    ``draw_ops`` takes one number from the generator for the operation, one for the level if there
    are several, and one for the direction if there is one. Here all numbers are taken at once;
    then a walk finds where each operation's numbers begin.
    """
    state = generator.get_state()
    extra = int(num_levels > 1)
    numbers = _random_numbers((2 + extra) * count, generator)
    index = numbers % len(signed)
    length = bytes((1 + extra + signed[index].byte()).numpy())  # if an operation began here
    begins = [0]
    for _ in range(count):
        begins.append(begins[-1] + length[begins[-1]])
    generator.set_state(state)
    torch.randint(2, (begins.pop(),), generator=generator)  # take as many numbers as draw_ops
    begin = torch.from_numpy(np.array(begins, dtype=np.int64))  # faster than torch.tensor
    index = index[begin]
    level = numbers[begin + 1] % num_levels if extra else 0
    negative = signed[index] & (numbers[begin + 1 + extra] % 2**24 <= 2**23)  # torch.rand() <= 0.5
    return (level * len(signed) + index) * 2 + negative


def _random_numbers(count: int, generator: torch.Generator) -> Tensor:
    """The generator's next numbers, from 0 to 2³² - 1, as int64."""
    pairs = torch.empty((count + 1) // 2, dtype=torch.int64)
    pairs.random_(-(2**63), None, generator=generator)  # 64 bits: two numbers, the first one high
    return torch.stack([pairs >> 32, pairs], dim=1).flatten().bitwise_and_(2**32 - 1)
