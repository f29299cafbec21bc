"""Snow, frost, fog and bright light."""

from __future__ import annotations

import torch
from torch import Tensor

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.corrupt._pixels import (
    blur_along,
    cut_levels,
    draw_normal,
    draw_uniform,
    magnify,
    to_grey,
    to_pixels,
    to_unit,
)
from rac_helpers.corrupt.ice import frost_pictures


def snow(
    images: Tensor,
    *,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius_px: int,
    sigma_px: float,
    image_share: float,
    generator: torch.Generator,
) -> Tensor:
    """Let snow fall: bright streaks over a picture that is paler than before.

    Flakes are the high spots of a noise picture, smeared along the wind. Each picture draws its
    own flakes, and a wind from -135° to -45°. The flakes are laid over the picture twice, the
    second time turned by half a turn.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    mean, std : float
        Of the normal noise that the flakes are cut from, on a scale of 0–1.
    zoom : float
        Size of a flake in pixels, from 1 to 10.
    threshold : float
        Noise below it is no flake: 0–1.
    radius_px : int
        A streak is ``2 * radius_px + 1`` pixels long, at least 0.
    sigma_px : float
        How slowly a streak fades (see :func:`motion_blur`), above 0.
    image_share : float
        How much of the clear picture stays, 0–1; the rest is paled.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> from rac_helpers.corrupt import SEVERITIES
    >>> night = torch.zeros(3, 32, 32, dtype=torch.uint8)
    >>> generator = torch.Generator().manual_seed(0)
    >>> bool(snow(night, **SEVERITIES["snow"][0], generator=generator).float().mean() > 0)
    True
    """
    image_share = check_number("image_share", image_share, low=0, high=1)
    values = to_unit(images)
    count, _, height, width = values.shape
    mean, std = check_number("mean", mean), check_number("std", std, low=0)
    layer = mean + std * draw_normal(count, 1, height, width, generator=generator)
    layer = magnify(layer, check_number("zoom", zoom, low=1, high=10))
    layer = cut_levels(layer.masked_fill(layer < check_number("threshold", threshold), 0))
    wind_deg = draw_uniform(count, low=-135.0, high=-45.0, generator=generator)
    radius_px = check_int("radius_px", radius_px, low=0)
    sigma_px = check_number("sigma_px", sigma_px, low=1e-3)
    layer = blur_along(layer, wind_deg, radius_px=radius_px, sigma_px=sigma_px)
    layer = cut_levels(layer + 0.5 / 255)  # rounded
    paled = torch.maximum(values, to_grey(values) * 1.5 + 0.5)
    values = image_share * values + (1 - image_share) * paled
    return to_pixels(values + layer + layer.flip(-2, -1), images)


def frost(
    images: Tensor, *, image_share: float, frost_share: float, generator: torch.Generator
) -> Tensor:
    """Lay a piece of a frozen window over the picture.

    The authors used photographs. Ours are drawn by :func:`frost_pictures`, about as bright and as
    rough as theirs: this kind is the only one whose pixels cannot be compared with CIFAR-10-C.
    Each picture draws one of five windows and a place in it, a quarter of its side long, so a
    larger picture shows the same crystals in more detail.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    image_share, frost_share : float
        Weights of the picture and of the frost, both 0–1; their sum may pass 1.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> night = torch.zeros(3, 32, 32, dtype=torch.uint8)
    >>> generator = torch.Generator().manual_seed(0)
    >>> frozen = frost(night, image_share=1.0, frost_share=0.2, generator=generator)
    >>> bool(frozen.max() <= 0.2 * 255)
    True
    """
    image_share = check_number("image_share", image_share, low=0, high=1)
    frost_share = check_number("frost_share", frost_share, low=0, high=1)
    values = to_unit(images)
    count, _, height, width = values.shape
    windows = frost_pictures(4 * max(height, width))  # (5, 3, side, side)
    check_generator(generator)
    which = torch.randint(len(windows), (count, 1, 1, 1), generator=generator)
    top = torch.randint(windows.shape[-2] - height, (count, 1, 1, 1), generator=generator)
    left = torch.randint(windows.shape[-1] - width, (count, 1, 1, 1), generator=generator)
    rows, columns = top + torch.arange(height)[:, None], left + torch.arange(width)
    pieces = windows[which, torch.arange(3)[:, None, None], rows, columns]  # (n, 3, H, W)
    return to_pixels(image_share * values + frost_share * (pieces.float() / 255), images)


def fog(images: Tensor, *, thickness: float, decay: float, generator: torch.Generator) -> Tensor:
    """Add clouds of fog: a random landscape of grey, the same for all three colours.

    Each picture draws its own fog. It spans the whole picture, whatever its size.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    thickness : float
        What the fog adds where it is thickest; 1 is the way from black to white. At least 0. Then
        the whole picture is darkened, so that its brightest value stays where it was or below.
    decay : float
        By how much the square root of the roughness falls each time the scale is halved, above
        0.1; large is smooth.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    >>> foggy = fog(image, thickness=1.0, decay=2.0, generator=torch.Generator().manual_seed(0))
    >>> bool(foggy.max() <= 200)
    True
    """
    thickness = check_number("thickness", thickness, low=0)
    decay = check_number("decay", decay, low=0.1)
    values = to_unit(images)
    count, _, height, width = values.shape
    side = 2 ** max(1, (max(height, width) - 1).bit_length())
    cloud = _landscape(count, side, decay=decay, generator=generator)
    brightest = values.amax((1, 2, 3), keepdim=True)
    values += thickness * cloud[:, None, :height, :width]
    return to_pixels(values * brightest / (brightest + thickness).clamp(min=1e-6), images)


def _landscape(count: int, side: int, *, decay: float, generator: torch.Generator) -> Tensor:
    """Return random heights 0–1 of shape ``(count, side, side)``, by the diamond-square method.

    Start with a coarse grid of known heights. Each round halves its step: a new point gets the
    mean of its four neighbours plus a random bump, and the bumps shrink from round to round. The
    landscape goes round at its edges. ``side`` is a power of two.
    """
    heights = torch.zeros(count, side, side)
    step, bump = side, 100.0

    def new_points(neighbours: Tensor) -> Tensor:
        height = bump**2  # squared, as in the authors' script
        shape = neighbours.shape
        return neighbours / 4 + draw_uniform(*shape, low=-height, high=height, generator=generator)

    while step >= 2:
        half = step // 2
        known = heights[:, ::step, ::step]
        pairs = known + known.roll(-1, 1)
        heights[:, half::step, half::step] = new_points(pairs + pairs.roll(-1, 2))
        middle = heights[:, half::step, half::step]
        beside = known + known.roll(-1, 2)
        heights[:, ::step, half::step] = new_points(middle + middle.roll(1, 1) + beside)
        above = known + known.roll(-1, 1)
        heights[:, half::step, ::step] = new_points(middle + middle.roll(1, 2) + above)
        step, bump = half, bump / decay
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


def brightness(images: Tensor, *, offset: float) -> Tensor:
    """Add light: raise the value V of hue, saturation and value (HSV).

    V is the largest of red, green and blue. Hue and saturation stay, so all three colours grow by
    the same factor.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    offset : float
        Added to V, which goes from 0 to 1 and is cut off there; -1 to 1.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> pixel = torch.tensor([100, 50, 0], dtype=torch.uint8).view(3, 1, 1)
    >>> brightness(pixel, offset=0.2).flatten()
    tensor([151,  75,   0], dtype=torch.uint8)
    """
    offset = check_number("offset", offset, low=-1, high=1)
    values = to_unit(images)
    value = values.amax(1, keepdim=True)
    raised = (value + offset).clamp(0, 1)
    black = value == 0  # no hue: becomes grey
    return to_pixels(torch.where(black, raised, values * (raised / value.clamp(min=1e-9))), images)
