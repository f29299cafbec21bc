"""RandAugment (N = 2, M = 9) of several libraries behind one call, for ``throughput.py``.

Each function takes uint8 images ``(n, 3, H, W)`` and the size of a batch, prepares the inputs in
the form that the library likes best, and returns a function that augments all images once. The
docstrings say what each does differently.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image

from rac_helpers import models
from rac_helpers.augment import OPS, BatchRandAugment, Op, RandAugment
from rac_helpers.rng import make_generator

NUM_OPS, MAGNITUDE = 2, 9
BATCH_SIZES = (2048, 512, 128, 32)
TRAINING_BATCH = 128
REFERENCE = "torchvision-tensor"

Run = Callable[[], object]


def _on_all(transform: Callable, inputs: Sequence) -> Run:
    return lambda: [transform(part) for part in inputs]


def _pil(images: Tensor) -> list:
    return [to_pil_image(image) for image in images]


def rac_batch(images: Tensor, batch_size: int, *, num_ops: int = NUM_OPS, ops=OPS) -> Run:
    """Each image its own operations, a batch at a time; out comes one uint8 tensor a batch."""
    transform, generator = BatchRandAugment(num_ops, MAGNITUDE, ops=ops), make_generator(0)
    return _on_all(functools.partial(transform, generator=generator), images.split(batch_size))


def rac_per_image(images: Tensor, _: int) -> Run:
    """Our transform on one image after the other."""
    return _on_all(RandAugment(NUM_OPS, MAGNITUDE, generator=make_generator(0)), list(images))


def torchvision_tensor(images: Tensor, _: int) -> Run:
    """On uint8 tensors, one image after the other."""
    return _on_all(v2.RandAugment(NUM_OPS, MAGNITUDE), list(images))


def torchvision_pil(images: Tensor, _: int) -> Run:
    """On PIL images."""
    return _on_all(v2.RandAugment(NUM_OPS, MAGNITUDE), _pil(images))


def torchvision_batch_one_op(images: Tensor, batch_size: int) -> Run:
    """On batches, which is something else: all images of a batch get the same operations."""
    return _on_all(v2.RandAugment(NUM_OPS, MAGNITUDE), images.split(batch_size))


def timm(images: Tensor, _: int) -> Run:
    """On PIL images. ``p1``: every drawn operation is applied; ``inc1``: all grow with M."""
    from timm.data.auto_augment import rand_augment_transform

    config = f"rand-m{MAGNITUDE}-n{NUM_OPS}-p1-inc1"  # M of 10, not of 30
    options = {"interpolation": Image.Resampling.NEAREST}  # as all others here
    return _on_all(rand_augment_transform(config, options), _pil(images))


def kornia_batch_one_op(images: Tensor, batch_size: int) -> Run:
    """On float batches: the same operations for all images of a batch, signs of their own."""
    from kornia.augmentation.auto import RandAugment as KorniaRandAugment

    transform = KorniaRandAugment(n=NUM_OPS, m=MAGNITUDE)
    return _on_all(transform, (images.float() / 255).split(batch_size))


def albumentations(images: Tensor, _: int) -> Run:
    """On NumPy arrays: it has no RandAugment, so we compose one from its operations."""
    os.environ["ALBUMENTATIONS_OFFLINE"] = "1"  # otherwise it sends usage data
    import albumentations as A
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    px = images.shape[-1]
    choices = [_albumentations_op(A, Op(name, MAGNITUDE, s), px) for name in OPS for s in (1, -1)]
    # SomeOf would apply what it has drawn in the order of the list
    transform = A.RandomOrder(choices, n=NUM_OPS, replace=True, p=1.0)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    return lambda: [transform(image=array)["image"] for array in arrays]


def _albumentations_op(A, op: Op, px: int):
    """The operation that comes closest, in its default method.

    Not as ours: the centre of a shear, the rounding of Equalize and AutoContrast; and Sharpness
    only sharpens.
    """
    amount, axis = op.amount(height=px, width=px), op.name[-1].lower()
    if op.name.startswith("Shear"):
        angle_deg = math.degrees(math.atan(amount))
        shear = {"x": (0.0, 0.0), "y": (0.0, 0.0), axis: (angle_deg, angle_deg)}
        return A.Affine(shear=shear, interpolation=0, p=1)
    if op.name.startswith("Translate"):
        shift = {"x": (0, 0), "y": (0, 0), axis: (int(amount), int(amount))}
        return A.Affine(translate_px=shift, interpolation=0, p=1)
    if op.name in ("Brightness", "Color", "Contrast"):
        colour = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
        colour[{"Color": "saturation"}.get(op.name, op.name.lower())] = amount
        return A.ColorJitter(**{f"{key}_range": (x, x) for key, x in colour.items()}, p=1)
    return {
        "Identity": lambda: A.NoOp(p=1),
        "Rotate": lambda: A.Rotate(angle_range=(amount, amount), interpolation=0, p=1),
        "Sharpness": lambda: A.Sharpen((abs(amount - 1) / 13,) * 2, (1.0, 1.0), p=1),
        "Posterize": lambda: A.Posterize((amount, amount), p=1),
        "Solarize": lambda: A.Solarize((amount / 255, amount / 255), p=1),
        "AutoContrast": lambda: A.AutoContrast(p=1),
        "Equalize": lambda: A.Equalize(p=1),
    }[op.name]()


def clone(images: Tensor, batch_size: int) -> Run:
    """Copying the images: what no transform can beat."""
    return _on_all(torch.clone, images.split(batch_size))


def resnet20_step(images: Tensor, _: int) -> Run:
    """One training step without augmentation, in the memory format that is faster on a CPU."""
    model = models.resnet20(seed=0).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images)) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


@dataclass(frozen=True)
class Implementation:
    """How to make it, what must be installed, and whether each image has its own operations."""

    make: Callable[..., Run]
    packages: tuple[str, ...]
    batch_sizes: tuple[int, ...] = (1,)
    own_ops: bool = True


IMPLEMENTATIONS = {
    "rac-batch": Implementation(rac_batch, ("rac-helpers",), BATCH_SIZES),
    "rac-per-image": Implementation(rac_per_image, ("rac-helpers",)),
    REFERENCE: Implementation(torchvision_tensor, ("torchvision",)),
    "torchvision-pil": Implementation(torchvision_pil, ("torchvision", "pillow")),
    "torchvision-batch-one-op": Implementation(
        torchvision_batch_one_op, ("torchvision",), (256,), own_ops=False
    ),
    "timm": Implementation(timm, ("timm", "pillow")),
    "kornia-batch-one-op": Implementation(kornia_batch_one_op, ("kornia",), (1, 256), False),
    "albumentations": Implementation(albumentations, ("albumentationsx", "opencv-python")),
    "clone": Implementation(clone, ("torch",), (BATCH_SIZES[0],)),
    "resnet20-step": Implementation(resnet20_step, ("torch",), (TRAINING_BATCH,)),
}
NO_AUGMENTATION = ("clone", "resnet20-step")


def library(implementation: str) -> str:
    """Return the packages behind an implementation with their versions.

    Raises
    ------
    PackageNotFoundError
        If one of them is not installed.
    """
    return ", ".join(f"{name} {version(name)}" for name in IMPLEMENTATIONS[implementation].packages)


def installed_implementations() -> list[str]:
    """Return the implementations that can run here; print a line for each that cannot."""
    found = []
    for name in IMPLEMENTATIONS:
        try:
            library(name)
            found.append(name)
        except PackageNotFoundError as error:
            print(f"{name}: left out, {error.name} is not installed (see requirements-bench.txt)")
    return found


@dataclass(frozen=True)
class Contender:
    """One line of a table: an implementation, prepared for its images."""

    implementation: str
    run: Run
    num_images: int
    image_px: int
    batch_size: int
    threads: int
    more: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, images: Tensor, batch_size: int = 1, **options) -> Contender:
        """Prepare the inputs of an implementation; ``options`` go to the function behind it."""
        run = IMPLEMENTATIONS[name].make(images, batch_size, **options)
        more = {"op": options["ops"][0]} if "ops" in options else {}
        return cls(
            name, run, len(images), images.shape[-1], batch_size, torch.get_num_threads(), more
        )

    @property
    def own_ops(self) -> bool:
        """Whether each image gets its own operations."""
        return IMPLEMENTATIONS[self.implementation].own_ops or self.batch_size == 1

    @property
    def is_peer(self) -> bool:
        """Whether it does the same as ours, and is not ours."""
        ours = self.implementation.startswith("rac-") or self.implementation in NO_AUGMENTATION
        return self.own_ops and not ours

    def config(self, part: str) -> dict[str, str | int | bool]:
        """What tells this row of the record from others."""
        row = {"part": part, "implementation": self.implementation, "batch_size": self.batch_size}
        row |= {"image_px": self.image_px, "threads": self.threads} | self.more
        if self.implementation not in NO_AUGMENTATION:
            row["own_ops"] = self.own_ops
        return row | {"library": library(self.implementation)}
