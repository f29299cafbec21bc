"""Four operations that blend the image with a degraded version of itself.

All are ``factor * image + (1 - factor) * other``: the other picture is black (brightness), grey
(color), one flat grey (contrast) or blurred (sharpness). A factor above 1 moves away from it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rac_helpers._check import check_images, check_number


def brightness(image: Tensor, factor: float) -> Tensor:
    """Multiply every pixel by ``factor``.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    factor : float
        At least 0: 0 is black, 1 leaves the image as it is, above 1 is brighter.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    ValueError
        If ``factor`` is negative, infinite or NaN.

    Examples
    --------
    >>> brightness(torch.tensor([10, 100, 200], dtype=torch.uint8).reshape(3, 1, 1), 1.5).flatten()
    tensor([ 15, 150, 255], dtype=torch.uint8)
    """
    factor = check_number("factor", factor, low=0)
    return to_uint8(check_images("image", image).float().mul_(factor), largest=255 * factor)


def color(image: Tensor, factor: float) -> Tensor:
    """Blend the image with its grey version: saturation.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    factor : float
        At least 0: 0 is grey, 1 leaves the image as it is, above 1 is more colourful.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    ValueError
        If ``factor`` is negative, infinite or NaN.

    Examples
    --------
    >>> color(torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(3, 1, 1), 0.0).flatten()
    tensor([124, 124, 124], dtype=torch.uint8)
    """
    factor = check_number("factor", factor, low=0)
    values = check_images("image", image).float()
    return _blend(values, _grey(values), factor)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Blend the image with one grey value, the mean of its grey version.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    factor : float
        At least 0: 0 is a flat grey, 1 leaves the image as it is, above 1 has more contrast.

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    ValueError
        If ``factor`` is negative, infinite or NaN.

    Examples
    --------
    >>> contrast(torch.tensor([[[0, 200]]] * 3, dtype=torch.uint8), 0.5)[0]
    tensor([[ 49, 149]], dtype=torch.uint8)
    """
    factor = check_number("factor", factor, low=0)
    values = check_images("image", image).float()
    return _blend(values, _grey(values).mean(dim=(-3, -2, -1), keepdim=True), factor)


def sharpness(image: Tensor, factor: float) -> Tensor:
    """Blend the image with a slightly blurred version of itself.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``. Images less than 3 pixels high or wide come back as
        they are.
    factor : float
        At least 0: 0 is the blurred image, 1 leaves it as it is, above 1 sharpens.

    Returns
    -------
    Tensor
        uint8, same shape. The outermost row and column of pixels stay as they are.

    Raises
    ------
    ValueError
        If ``factor`` is negative, infinite or NaN.

    Examples
    --------
    >>> dot = torch.zeros(3, 3, 3, dtype=torch.uint8)
    >>> dot[:, 1, 1] = 130
    >>> sharpness(dot, 0.0)[0, 1, 1], sharpness(dot, 1.5)[0, 1, 1]
    (tensor(50, dtype=torch.uint8), tensor(170, dtype=torch.uint8))
    """
    factor = check_number("factor", factor, low=0)
    if min(check_images("image", image).shape[-2:]) < 3:
        return image.clone()
    width = image.shape[-1]
    around = width + 1  # in reading order, a neighbour is at most this far away
    values = image.flatten(-2).short()
    rows = (values[..., : -2 * width] + values[..., width:-width]).add_(values[..., 2 * width :])
    window = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])  # sum over 3 x 3 pixels
    centre = values[..., around:-around]
    blurred = window.add_(centre, alpha=4).float().mul_(1 / 13).round_()  # weights: 5, 1 around
    centre = centre.float()
    out = image.clone(memory_format=torch.contiguous_format)
    # add with alpha rounds as torchvision does
    inner = to_uint8(centre.add_(blurred.sub_(centre), alpha=1.0 - factor), largest=255 * factor)
    out.flatten(-2)[..., around:-around] = inner
    for column in (0, -1):  # its neighbours in reading order are none
        out[..., column] = image[..., column]
    return out


def to_uint8(values: Tensor, *, largest: float = math.inf) -> Tensor:
    """Cut off the fractions of floats and cut them to 0–255, as torchvision does.

    By way of int16 it takes half the time, but that ends at 32,767. So say how large the values
    can be, up or down. They are overwritten.
    """
    if largest > 2**15 - 1:
        values.clamp_(0, 255)
    whole = values.short()
    return (whole.clamp_(0, 255) if largest > 255 else whole).to(torch.uint8)


def _grey(values: Tensor) -> Tensor:
    """Brightness as the eye weighs the channels: whole numbers, shape (..., 1, H, W)."""
    red, green, blue = values.unbind(-3)
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey.floor_().unsqueeze(-3)


def _blend(values: Tensor, other: Tensor, factor: float) -> Tensor:
    """``factor * values + (1 - factor) * other``; ``values`` are overwritten."""
    return to_uint8(values.mul_(factor).add_(other, alpha=1.0 - factor), largest=255 * factor)
