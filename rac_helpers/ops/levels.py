"""Five operations that give every value of a channel a new value, wherever the pixel stands."""

from __future__ import annotations

import torch
from torch import Tensor

from rac_helpers._check import check_images, check_int, check_number
from rac_helpers.ops.blend import to_uint8


def identity(image: Tensor) -> Tensor:
    """Return a copy of the image, unchanged.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.

    Returns
    -------
    Tensor
        uint8, same shape.

    Examples
    --------
    >>> identity(torch.full((3, 1, 2), 7, dtype=torch.uint8)).flatten().tolist()
    [7, 7, 7, 7, 7, 7]
    """
    return check_images("image", image).clone()


def posterize(image: Tensor, bits: int) -> Tensor:
    """Keep only the highest ``bits`` bits of each value.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    bits : int
        From 0 (black) to 8 (unchanged).

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    TypeError, ValueError
        If ``bits`` is no integer from 0 to 8.

    Examples
    --------
    >>> posterize(torch.tensor([15, 130, 255], dtype=torch.uint8).reshape(3, 1, 1), 2).flatten()
    tensor([  0, 128, 192], dtype=torch.uint8)
    """
    bits = check_int("bits", bits, low=0, high=8)
    return check_images("image", image) & (256 - 2 ** (8 - bits))


def solarize(image: Tensor, threshold: float) -> Tensor:
    """Invert all values of at least ``threshold``.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.
    threshold : float
        From 0 (everything is inverted) to 256 (nothing is).

    Returns
    -------
    Tensor
        uint8, same shape.

    Raises
    ------
    ValueError
        If ``threshold`` is outside 0 to 256.

    Examples
    --------
    >>> solarize(torch.tensor([10, 128, 250], dtype=torch.uint8).reshape(3, 1, 1), 128).flatten()
    tensor([ 10, 127,   5], dtype=torch.uint8)
    """
    threshold = check_number("threshold", threshold, low=0, high=256)
    mask = (check_images("image", image) >= threshold).view(torch.uint8).neg_()  # 255 or 0
    return mask.bitwise_xor_(image)  # 255 ^ v is 255 - v, and 0 ^ v is v


def auto_contrast(image: Tensor) -> Tensor:
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.

    Returns
    -------
    Tensor
        uint8, same shape. A channel of one single value stays as it is. For most value ranges the
        brightest becomes 254, not 255: float32 rounding, kept because torchvision has it too.

    Examples
    --------
    >>> auto_contrast(torch.tensor([[[100, 120, 186]]] * 3, dtype=torch.uint8))[0]
    tensor([[  0,  59, 255]], dtype=torch.uint8)
    """
    low = check_images("image", image).amin(dim=(-2, -1), keepdim=True).float()
    high = image.amax(dim=(-2, -1), keepdim=True).float()
    flat = low == high
    step = ((high - low) * (1.0 / 255)).masked_fill_(flat, 1.0)
    stretched = image.float().sub_(low.masked_fill(flat, 0.0)).div_(step)
    return to_uint8(stretched, largest=255)


def equalize(image: Tensor) -> Tensor:
    """Spread the values of each channel so that all levels are used about equally often.

    Parameters
    ----------
    image : Tensor
        uint8, shape ``(..., 3, H, W)``.

    Returns
    -------
    Tensor
        uint8, same shape. A channel with too few distinct pixels stays as it is.

    Notes
    -----
    The look-up table is Pillow's: with the histogram's running count ``c`` and
    ``step = (pixels - pixels of the brightest value) // 255``, the value ``v`` becomes
    ``(c[v - 1] + step // 2) // step``.

    Examples
    --------
    >>> narrow = (torch.arange(32 * 32) // 16 + 90).reshape(1, 32, 32).expand(3, -1, -1)
    >>> narrow.unique().tolist()[:4], equalize(narrow.to(torch.uint8)).unique().tolist()[:4]
    ([90, 91, 92, 93], [0, 5, 11, 16])
    """
    flat = check_images("image", image).flatten(-2).flatten(0, -2)  # (channels of all, H*W)
    index = flat.long()
    # floats divide faster than integers; float32 holds integers up to 2^24 exactly
    dtype = torch.float32 if flat.shape[-1] < 2**24 else torch.float64
    histogram = torch.zeros(len(flat), 256, dtype=dtype, device=image.device)
    histogram.scatter_add_(1, index, torch.ones_like(index, dtype=dtype))
    brightest = histogram.gather(1, flat.amax(1, keepdim=True).long()).long()
    step = (flat.shape[-1] - brightest) // 255
    darker = histogram.cumsum(1).sub_(histogram)  # how many pixels are darker than each value
    table = to_uint8(darker.add_(step // 2).div_(step.clamp(min=1)))
    if not step.all():
        same = torch.arange(256, dtype=torch.uint8, device=image.device)
        table = torch.where(step > 0, table, same)
    return table.gather(1, index).reshape(image.shape)
