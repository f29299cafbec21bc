"""What the corruptions share: uint8 to numbers and back, draws, and filters for a whole batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rac_helpers._check import check_generator, check_images

# Published files were made with np.uint8(...), which cuts off the fraction. A value that is whole
# but for float rounding must not lose a level that way.
_SLACK = 1 / 4096
_GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 ``(..., 3, H, W)`` as new float32 values 0–1 of shape ``(n, 3, H, W)``."""
    check_images("images", images)
    count = math.prod(images.shape[:-3])
    return images.cpu().reshape(count, *images.shape[-3:]).float() / 255


def to_pixels(values: Tensor, like: Tensor) -> Tensor:
    """Return values 0–1 as uint8 in the shape of ``like``; the fraction of a level is cut off."""
    levels = (values * 255 + _SLACK).clamp_(0, 255).to(torch.uint8)
    return levels.reshape(like.shape).to(like.device)


def cut_levels(values: Tensor) -> Tensor:
    """Return values 0–1 as they would come back from a picture of 256 levels."""
    return (values * 255 + _SLACK).clamp_(0, 255).floor_() / 255


def draw_normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw from the normal distribution of mean 0 and standard deviation 1."""
    return torch.randn(shape, generator=check_generator(generator))


def draw_uniform(*shape: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw evenly from ``[low, high)``."""
    return low + (high - low) * torch.rand(shape, generator=check_generator(generator))


def to_grey(values: Tensor) -> Tensor:
    """Return how bright each pixel looks: ``(n, 3, H, W)`` to ``(n, 1, H, W)``."""
    return (values * values.new_tensor(_GREY).view(3, 1, 1)).sum(1, keepdim=True)


def smooth(
    values: Tensor, sigma_px: float, *, edge: str = "nearest", truncate: float = 4
) -> Tensor:
    """Blur the last two axes by a Gaussian, cut off at ``truncate`` standard deviations."""
    from scipy.ndimage import gaussian_filter  # takes a while to import

    sigmas = (*[0.0] * (values.ndim - 2), sigma_px, sigma_px)
    return torch.from_numpy(gaussian_filter(values.numpy(), sigmas, mode=edge, truncate=truncate))


def filter_2d(values: Tensor, kernel: Tensor) -> Tensor:
    """Weigh each pixel's surroundings by ``kernel``; the picture is mirrored at its edges."""
    from scipy.ndimage import correlate

    kernel = kernel.reshape(*[1] * (values.ndim - 2), *kernel.shape)
    return torch.from_numpy(correlate(values.numpy(), kernel.numpy(), mode="mirror"))


def blur_along(values: Tensor, angle_deg: Tensor, *, radius_px: int, sigma_px: float) -> Tensor:
    """Smear each picture in its own direction, as ImageMagick does.

    Parameters
    ----------
    values : Tensor
        float, shape ``(n, channels, H, W)``.
    angle_deg : Tensor
        Shape ``(n,)``; 0 fetches colours from the right, 90 from below.
    radius_px : int
        ``2 * radius_px + 1`` pixels are averaged: the pixel itself and those after it.
    sigma_px : float
        The weights fall off like half of a Gaussian of this standard deviation.

    Returns
    -------
    Tensor
        float, same shape. Beyond the edge the pixels of the edge go on.
    """
    count, channels, height, width = values.shape
    steps = torch.arange(2 * radius_px + 1, dtype=torch.float64)
    weights = torch.exp(-(steps**2) / (2 * sigma_px**2))
    weights /= weights.sum()
    radians = torch.deg2rad(angle_deg.double())[:, None]
    right = torch.ceil(steps * radians.cos() - 0.5).long()  # (n, taps), whole pixels
    down = torch.ceil(steps * radians.sin() - 0.5).long()
    flat, result = values.flatten(2), torch.zeros_like(values.flatten(2))
    for tap, weight in enumerate(weights.tolist()):
        rows = (torch.arange(height) + down[:, tap, None]).clamp_(0, height - 1)  # (n, H)
        columns = (torch.arange(width) + right[:, tap, None]).clamp_(0, width - 1)  # (n, W)
        index = (rows[:, :, None] * width + columns[:, None, :]).reshape(count, 1, height * width)
        result.add_(flat.gather(2, index.expand(-1, channels, -1)), alpha=weight)
    return result.reshape(values.shape)


def magnify(values: Tensor, zoom: float) -> Tensor:
    """Enlarge the middle of each picture to its full size, with linear interpolation."""
    rows, columns = (_zoom_matrix(side, zoom) for side in values.shape[-2:])
    wide = torch.nn.functional.linear(values, columns)  # one large product, not one an image
    return torch.nn.functional.linear(wide.mT, rows).mT.contiguous()


def _zoom_matrix(side: int, zoom: float) -> Tensor:
    """Return the ``(side, side)`` weights that enlarge the middle of a row of pixels.

    The corners of the part that is cut out stay corners, as in ``scipy.ndimage.zoom``. Then at
    most a pixel too many is left, which is cut off.
    """
    part = math.ceil(side / zoom)
    size = round(part * zoom)
    too_many = (size - side) // 2
    place = torch.arange(too_many, too_many + side, dtype=torch.float64)
    place *= (part - 1) / max(1, size - 1)
    low = place.floor().long().clamp(max=part - 1)
    high = (low + 1).clamp(max=part - 1)
    fraction = (place - low)[:, None].float()
    eye = torch.eye(side)[(side - part) // 2 :]
    return eye[low] * (1 - fraction) + eye[high] * fraction
