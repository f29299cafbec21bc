"""RandAugment as a torchvision transform."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rac_helpers._check import check_generator, check_images, check_int
from rac_helpers.augment.draw import apply_ops, draw_ops
from rac_helpers.augment.table import (
    NUM_MAGNITUDE_BINS,
    OPS,
    Op,
    check_magnitude,
    check_ops,
)
from rac_helpers.rng import WorkerGenerator


class RandAugment(v2.Transform):
    """Apply ``num_ops`` random operations of one magnitude, drawn anew for every image.

    Use it like any torchvision transform: alone, in ``v2.Compose``, in a ``Dataset``. Boxes and
    masks are refused, because they would not move along.

    Parameters
    ----------
    num_ops, magnitude, num_magnitude_bins, ops, replacement, uniform_magnitude
        As in :func:`draw_ops`.
    generator : torch.Generator, optional
        Source of all draws; by default a new one, seeded by the system. In the workers of a
        ``DataLoader`` it is replaced by one that differs between workers and epochs.

    Raises
    ------
    TypeError, ValueError
        When constructed with a value outside its range; when called with anything but RGB
        pictures (``PIL.Image``, or uint8 tensors of shape ``(3, H, W)`` or ``(B, 3, H, W)``).

    Notes
    -----
    Different from torchvision: a batch ``(B, 3, H, W)`` gets its own draws for every image, and
    a PIL image is processed as a tensor, so that both give the same pixels. (torchvision's own PIL
    path differs by one level in Color, Contrast, Sharpness and AutoContrast, and fetches other
    pixels in ShearX, ShearY, Rotate and, at its threshold, Solarize.)

    Examples
    --------
    >>> image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    >>> RandAugment(2, 9, generator=torch.Generator().manual_seed(0))(image).shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        *,
        num_magnitude_bins: int = NUM_MAGNITUDE_BINS,
        ops: Sequence[str] = OPS,
        replacement: bool = True,
        uniform_magnitude: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_ops = check_int("num_ops", num_ops, low=0)
        self.magnitude = check_magnitude(magnitude, num_magnitude_bins)
        self.num_magnitude_bins = num_magnitude_bins
        self.ops = check_ops(ops)
        self.replacement = replacement
        self.uniform_magnitude = uniform_magnitude
        if not replacement:
            check_int("num_ops (without replacement)", num_ops, low=0, high=len(self.ops))
        self._source = WorkerGenerator(generator)
        self._given: torch.Generator | None = None

    def draw(self, generator: torch.Generator | None = None) -> list[Op]:
        """Draw the operations for one image, from ``generator`` or from the transform's own."""
        return draw_ops(
            self.num_ops,
            self.magnitude,
            generator=self._generator(generator),
            num_magnitude_bins=self.num_magnitude_bins,
            ops=self.ops,
            replacement=self.replacement,
            uniform_magnitude=self.uniform_magnitude,
        )

    def _generator(self, given: torch.Generator | None) -> torch.Generator:
        """The generator to draw from: the given one, that of this call, or the transform's own."""
        if given is not None:
            return check_generator(given)
        return self._given or self._source.get()

    def forward(self, *inputs: Any, generator: torch.Generator | None = None) -> Any:
        """Transform a sample; draws come from ``generator``, as it is, if one is given."""
        if generator is None:
            return super().forward(*inputs)
        check_generator(generator)
        twin = copy.copy(self)
        twin._given = generator
        return twin(*inputs)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse samples without a picture, or with boxes, masks or key points."""
        unmoved = (tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)
        for item in flat_inputs:
            if isinstance(item, unmoved):
                raise TypeError(
                    f"inputs must be pictures and labels; {type(item).__name__} would not move "
                    "along with the picture"
                )

        if not any(isinstance(item, PIL.Image.Image | torch.Tensor) for item in flat_inputs):
            kinds = ", ".join(sorted({type(item).__name__ for item in flat_inputs})) or "nothing"
            raise TypeError(f"inputs must hold a PIL image or a uint8 tensor, got {kinds}")

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Transform one picture (called by torchvision for every picture of the sample)."""
        if isinstance(inpt, PIL.Image.Image):
            if inpt.mode != "RGB":
                raise ValueError(f"image must have mode 'RGB', got {inpt.mode!r}; convert it first")
            return F.to_pil_image(self.transform(F.pil_to_tensor(inpt), params))
        images = check_images("image", inpt)
        images = images.as_subclass(torch.Tensor)
        if images.ndim == 3 or isinstance(inpt, tv_tensors.Video):  # one draw for all frames
            result = apply_ops(images, self.draw())
        else:
            result = self._transform_batch(images)
        return tv_tensors.wrap(result, like=inpt)

    def _transform_batch(self, images: torch.Tensor) -> torch.Tensor:
        """Transform images of shape ``(B, ..., 3, H, W)``, each with its own draws."""
        result = images.clone()
        for index, image in enumerate(images):
            result[index] = self.transform(image, {})
        return result
