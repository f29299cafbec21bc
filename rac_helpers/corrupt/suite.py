"""The single entrance: corrupt images by the name of a kind and a severity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rac_helpers._check import check_generator, check_images, check_int
from rac_helpers.corrupt import blur, digital, lens, noise, weather
from rac_helpers.corrupt.table import SEVERITIES

# Images are worked on in parts of this many pixels, so that 50,000 do not fill the memory.
_PART_PX = 2**20

_FIXED: dict[str, Callable[..., Tensor]] = {
    "defocus_blur": blur.defocus_blur,
    "zoom_blur": blur.zoom_blur,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "gaussian_blur": blur.gaussian_blur,
    "saturate": digital.saturate,
}
_DRAWN: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "elastic_transform": digital.elastic_transform,
    "speckle_noise": noise.speckle_noise,
    "spatter": lens.spatter,
}


def corrupt(images: Tensor, kind: str, severity: int, *, generator: torch.Generator) -> Tensor:
    """Corrupt images the way CIFAR-10-C does.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``: one image, a batch, or a batch of batches. Any size works
        (frost: up to 2,048 px).
        The constants are made for 32 px; lengths in pixels do not grow with the picture, so blur
        and flakes look weaker on larger ones (fog, frost, pixelate and elastic_transform go with
        the size).
    kind : str
        One of :data:`KINDS`.
    severity : int
        1 (mild) to 5 (strong); :data:`SEVERITIES` says what it means.
    generator : torch.Generator
        Source of all draws, on the CPU. Each image gets its own. Kinds without randomness leave it
        alone.

    Returns
    -------
    Tensor
        uint8, same shape, new memory.

    Raises
    ------
    TypeError, ValueError
        If the images, the kind, the severity or the generator are not as said above.

    References
    ----------
    D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations", arXiv:1903.12261.

    Examples
    --------
    >>> image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    >>> corrupt(image, "fog", 3, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 32, 32])
    >>> corrupt(image, "rain", 3, generator=torch.Generator())
    Traceback (most recent call last):
    ValueError: kind must be one of 'gaussian_noise', ..., 'saturate', got 'rain'
    """
    constants = find_constants(kind, severity)
    check_generator(generator)
    check_images("images", images)
    draws = {"generator": generator} if kind in _DRAWN else {}
    function = (_DRAWN if kind in _DRAWN else _FIXED)[kind]
    height, width = images.shape[-2:]
    flat = images.flatten(0, -4) if images.ndim > 3 else images[None]
    parts = flat.split(max(1, _PART_PX // (height * width)))
    return torch.cat([function(part, **constants, **draws) for part in parts]).reshape(images.shape)


def find_constants(kind: str, severity: int) -> dict[str, float]:
    """Return the constants of a kind at a severity: a row of :data:`SEVERITIES`.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    severity : int
        1 to 5.

    Raises
    ------
    TypeError, ValueError
        If there is no such kind or severity.

    Examples
    --------
    >>> find_constants("saturate", 5)
    {'factor': 2.5, 'offset': 0.2}
    """
    if not isinstance(kind, str) or kind not in SEVERITIES:
        known = ", ".join(repr(name) for name in SEVERITIES)
        raise ValueError(f"kind must be one of {known}, got {kind!r}")
    rows = SEVERITIES[kind]
    return dict(rows[check_int("severity", severity, low=1, high=len(rows)) - 1])
