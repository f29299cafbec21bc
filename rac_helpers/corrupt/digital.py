"""What computers do to pictures: contrast, saturation, warping, coarse pixels, JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rac_helpers._check import check_images, check_int, check_number
from rac_helpers.corrupt._pixels import draw_uniform, smooth, to_pixels, to_unit


def contrast(images: Tensor, *, factor: float) -> Tensor:
    """Pull each colour towards its mean over the picture.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    factor : float
        What is left of the distance to the mean; at least 0, 1 changes nothing.

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
    >>> image = torch.tensor([0, 200], dtype=torch.uint8).expand(3, 1, 2)
    >>> contrast(image, factor=0.5)[0]
    tensor([[ 50, 150]], dtype=torch.uint8)
    """
    factor = check_number("factor", factor, low=0)
    values = to_unit(images)
    mean = values.mean((2, 3), keepdim=True)
    return to_pixels(mean + factor * (values - mean), images)


def saturate(images: Tensor, *, factor: float, offset: float) -> Tensor:
    """Change the saturation S of hue, saturation and value (HSV) to ``factor * S + offset``.

    S is how far the smallest of red, green and blue lies below the largest, as a share of the
    largest. Hue and value stay.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    factor : float
        Below 1 the picture turns grey, above 1 its colours grow. At least 0.
    offset : float
        Added afterwards, 0–1. S goes from 0 to 1 and is cut off there.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Notes
    -----
    The severities of CIFAR-10-C are not in order of strength: 1 and 2 take colour away, 3 to 5 add
    some. A grey pixel has no hue; by convention its hue counts as red, so with an ``offset`` above
    0 (severities 4 and 5) it turns reddish, in the published files too.

    Examples
    --------
    >>> pixel = torch.tensor([200, 150, 100], dtype=torch.uint8).view(3, 1, 1)
    >>> saturate(pixel, factor=0.5, offset=0.0).flatten()
    tensor([200, 175, 150], dtype=torch.uint8)
    """
    factor = check_number("factor", factor, low=0)
    offset = check_number("offset", offset, low=0, high=1)
    values = to_unit(images)
    value, low = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    saturation = (value - low) / value.clamp(min=1e-9)
    wanted = (factor * saturation + offset).clamp(0, 1)
    # how far each colour lies below the largest: 0 for the largest, 1 for the smallest
    depth = (value - values) / (value - low).clamp(min=1e-9)
    red = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    depth = torch.where(value == low, red, depth)
    return to_pixels(value * (1 - wanted * depth), images)


def elastic_transform(
    images: Tensor,
    *,
    shift_share: float,
    sigma_share: float,
    corner_share: float,
    generator: torch.Generator,
) -> Tensor:
    """Tilt the picture a little, then move its pixels as if it were printed on rubber.

    All three lengths are shares of the picture's shorter side, so the warp does not depend on the
    size. Each picture draws its own.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    shift_share : float
        How far a pixel may move before smoothing, 0–1. With 0 there is only the tilt.
    sigma_share : float
        Standard deviation of the Gaussian that smooths the field of moves, 0–1. Smoothing also
        shrinks the moves: neighbours that go different ways cancel out.
    corner_share : float
        How far the three points that define the tilt move, at most, both ways; 0–0.1.
    generator : torch.Generator
        Source of all draws.

    Returns
    -------
    Tensor
        uint8, same shape. The picture is mirrored at its edges.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    >>> still = {"shift_share": 0.0, "sigma_share": 0.0, "corner_share": 0.0}
    >>> torch.equal(
    ...     elastic_transform(image, **still, generator=torch.Generator().manual_seed(0)), image
    ... )
    True
    """
    shift_share = check_number("shift_share", shift_share, low=0, high=1)
    sigma_share = check_number("sigma_share", sigma_share, low=0, high=1)
    corner_share = check_number("corner_share", corner_share, low=0, high=0.1)
    values = to_unit(images)
    count, _, height, width = values.shape
    side = min(height, width)
    reach_px = corner_share * side
    moves = draw_uniform(count, 3, 2, low=-reach_px, high=reach_px, generator=generator)
    x, y = _tilted_grid(moves, height, width)
    values = _fetch(values, x, y, mirror_on_pixel=True)
    field = draw_uniform(2, count, height, width, low=-1.0, high=1.0, generator=generator)
    field = smooth(field, sigma_share * side, edge="reflect", truncate=3) * (shift_share * side)
    x, y = _tilted_grid(torch.zeros(count, 3, 2), height, width)
    return to_pixels(_fetch(values, x + field[0], y + field[1], mirror_on_pixel=False), images)


def _tilted_grid(moves: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where each pixel comes from (x, y in pixels) if three points make these moves.

    The points are three corners of a square around the middle, two thirds of the side long.
    """
    middle = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    arm = max(1, min(height, width) // 3)
    before = middle + arm * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    after = before + moves.double()  # (n, 3, 2)
    after = torch.cat([after, torch.ones_like(after[..., :1])], -1)
    back = torch.linalg.solve(after, before.expand(len(after), 3, 2))  # (n, 3, 2)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).double().reshape(1, -1, 3)
    source = (points @ back).float().reshape(-1, height, width, 2)
    return source[..., 0], source[..., 1]


def _fetch(values: Tensor, x: Tensor, y: Tensor, *, mirror_on_pixel: bool) -> Tensor:
    """Return the colours at ``x, y``, linearly interpolated, mirrored at the edges.

    The mirror stands on the outermost pixels, or half a pixel outside them.
    """
    height, width = values.shape[-2:]
    spare = 1 if mirror_on_pixel else 0
    scaled = [
        (2 * place + 1 - spare) / max(1, side - spare) - 1
        for place, side in ((x, width), (y, height))
    ]
    grid = torch.stack(scaled, -1)  # (n, H, W, 2), -1 to 1
    return F.grid_sample(values, grid, padding_mode="reflection", align_corners=mirror_on_pixel)


def pixelate(images: Tensor, *, side_share: float) -> Tensor:
    """Shrink the picture by averaging, then enlarge it again without smoothing.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    side_share : float
        Side of the small picture as a share of the side, 0.01–1.

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
    >>> image = torch.tensor([0, 10, 20, 30], dtype=torch.uint8).expand(3, 4, 4)
    >>> pixelate(image, side_share=0.5)[0, 0].tolist()
    [5, 5, 25, 25]
    """
    side_share = check_number("side_share", side_share, low=0.01, high=1)

    def shrink_and_enlarge(picture: Image.Image) -> Image.Image:
        small = tuple(max(1, int(side * side_share)) for side in picture.size)
        box = Image.Resampling.BOX
        return picture.resize(small, box).resize(picture.size, box)

    return _one_by_one(images, shrink_and_enlarge)


def jpeg_compression(images: Tensor, *, quality: int) -> Tensor:
    """Save as JPEG and read back.

    Parameters
    ----------
    images : Tensor
        uint8, shape ``(..., 3, H, W)``.
    quality : int
        Pillow's quality, 1–100; low is strong.

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
    >>> grey = torch.full((3, 16, 16), 128, dtype=torch.uint8)
    >>> torch.equal(jpeg_compression(grey, quality=80), grey)
    True
    """
    quality = check_int("quality", quality, low=1, high=100)

    def save_and_read(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _one_by_one(images, save_and_read)


def _one_by_one(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change each picture by Pillow."""
    check_images("images", images)
    flat = images.cpu().reshape(math.prod(images.shape[:-3]), *images.shape[-3:])
    result = torch.empty_like(flat)
    for index, picture in enumerate(flat.permute(0, 2, 3, 1).contiguous().numpy()):
        changed = change(Image.fromarray(picture)).tobytes()  # RGB, row by row
        pixels = torch.frombuffer(bytearray(changed), dtype=torch.uint8)
        result[index] = pixels.view(picture.shape).permute(2, 0, 1)
    return result.reshape(images.shape).to(images.device)
