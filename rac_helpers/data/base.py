"""What a data set is here, and how one set of labels is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch

from rac_helpers._check import check_int, check_number, check_pair
from rac_helpers.rng import derive_seed, make_generator


class Split(NamedTuple):
    """Images with their labels.

    Attributes
    ----------
    images : torch.Tensor
        uint8, shape ``(n, 3, H, W)``, values 0–255.
    labels : torch.Tensor
        int64, shape ``(n,)``.
    """

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits that share no image: train, validation (for choices), test (for the score).

    Parameters
    ----------
    name : str
        Short name, for tables.
    classes : tuple of str
        ``classes[label]`` is the name of a label.
    train, validation, test : Split
        Checked when the data set is made: uint8 images of one size, int64 labels in range, as
        many images as labels, nothing empty.

    Raises
    ------
    TypeError, ValueError
        If a split does not hold what is said above.

    Examples
    --------
    >>> split = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> Dataset("tiny", ("a", "b"), split, split, split)
    Dataset 'tiny': 2 classes, 8x8 px, train 2, validation 2, test 2
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be one or more different names, got {self.classes!r}")
        for name, split in self.splits().items():
            check_pair(f"{self.name}.{name}", split, num_classes=len(self.classes))
        sizes = {name: tuple(split.images.shape[1:]) for name, split in self.splits().items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"{self.name}: all splits must have images of one size, got {sizes}")

    def __repr__(self) -> str:
        height, width = self.train.images.shape[-2:]
        counts = ", ".join(f"{name} {len(split.labels):,}" for name, split in self.splits().items())
        return f"Dataset {self.name!r}: {len(self.classes)} classes, {width}x{height} px, {counts}"

    def splits(self) -> dict[str, Split]:
        """Return the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_positions(
    labels: torch.Tensor, *, held_out: Sequence[tuple[str, float]], names: Sequence[str], seed: int
) -> list[torch.Tensor]:
    """Split ``range(len(labels))`` so that every part has each class in the same proportion.

    Parameters
    ----------
    labels : torch.Tensor
        int64, shape ``(n,)``, values in ``[0, len(names))``.
    held_out : sequence of (str, float or int)
        Name and size of the parts to hold out: a share in (0, 1), or a number of images >= 1.
    names : sequence of str
        Class names, for error messages.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    list of torch.Tensor
        int64 positions in ascending order: first the rest (for training), then one part for each
        entry of ``held_out``. They do not overlap.

    Raises
    ------
    TypeError, ValueError
        If a size is out of range, or leaves a class without training images.

    Examples
    --------
    >>> train, test = split_positions(
    ...     torch.tensor([0, 0, 0, 1, 1, 1]), held_out=[("test", 2)], names="ab", seed=0)
    >>> len(train), len(test)
    (4, 2)
    """
    check_int("seed", seed, low=0, high=2**63 - 1)
    sizes = [(name, _count(name, size, total=len(labels))) for name, size in held_out]
    generator = make_generator(derive_seed(seed, "split"))
    rest = torch.randperm(len(labels), generator=generator)
    parts = []
    for _, size in sizes:
        taken = _take(labels[rest], size, num_classes=len(names))
        parts.append(rest[taken].sort().values)
        rest = rest[~taken]
    present, left = labels.unique().tolist(), set(labels[rest].unique().tolist())
    for k in present:
        if k not in left:
            asked = ", ".join(f"{name}={size}" for name, size in held_out)
            raise ValueError(
                f"{asked} leaves no training image of class {names[k]!r}; ask for less"
            )
    return [rest.sort().values, *parts]


def _count(name: str, size: float, *, total: int) -> int:
    """Return how many of ``total`` images ``size`` means."""
    if isinstance(size, Integral):
        return check_int(name, size, low=1, high=total - 1)
    share = check_number(name, size, low=0, high=1)
    if not 0 < share < 1:
        raise ValueError(f"{name} must be a share in (0, 1) or a number of images, got {size}")
    return max(1, round(share * total))


def _take(labels: torch.Tensor, size: int, *, num_classes: int) -> torch.Tensor:
    """Mark ``size`` entries, from each class in proportion (largest remainders get the rest)."""
    counts = torch.bincount(labels, minlength=num_classes)
    exact = counts.double() * size / max(1, len(labels))
    quota = exact.floor().long()
    missing = min(size, len(labels)) - int(quota.sum())
    quota[torch.argsort(quota - exact, stable=True)[:missing]] += 1
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for k in range(num_classes):
        taken[(labels == k).nonzero().flatten()[: int(quota[k])]] = True
    return taken
