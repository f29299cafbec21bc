"""Pictures of an explorer as bytes: one encoder for the built page and for the live view."""

from __future__ import annotations

import base64
import html
import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from rac_helpers._check import check_images

FIGURE_DPI = 144  # 1.5 pixels of the file for one of the page
EXACT_PX = 64  # pictures up to this size are stored without loss
ENLARGED_PX = 480  # small pictures are shown a whole number of times larger, up to this width
UPLOAD_PX = 256


def check_picture(name: str, image: Any) -> None:
    """Raise unless ``image`` is a uint8 tensor ``(3, H, W)``, a PIL image or a Figure.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    image : object
        What is checked.

    Raises
    ------
    TypeError, ValueError
        If it is something else; the message names the argument.

    Examples
    --------
    >>> check_picture("image", "photo.png")
    Traceback (most recent call last):
    TypeError: image must be a uint8 tensor (3, H, W), a PIL image or a matplotlib Figure, got str
    """
    if isinstance(image, torch.Tensor):
        check_images(name, image)
        if image.ndim != 3:
            raise ValueError(f"{name} must have shape (3, H, W), got {tuple(image.shape)}")
    elif not (isinstance(image, Image.Image) or is_figure(image)):
        raise TypeError(
            f"{name} must be a uint8 tensor (3, H, W), a PIL image or a matplotlib Figure, "
            f"got {type(image).__name__}"
        )


def is_figure(image: Any) -> bool:
    """Return whether ``image`` is a matplotlib Figure, without loading matplotlib.

    Parameters
    ----------
    image : object
        Anything.

    Returns
    -------
    bool
        True for a Figure.

    Examples
    --------
    >>> is_figure(Image.new("RGB", (2, 2)))
    False
    """
    matplotlib = sys.modules.get("matplotlib.figure")
    return matplotlib is not None and isinstance(image, matplotlib.Figure)


def detach_figure(image: Any) -> None:
    """Let pyplot forget ``image``, or the notebook would show it a second time.

    Parameters
    ----------
    image : object
        A Figure; anything else is left alone.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> detach_figure(plt.figure())
    >>> plt.get_fignums()
    []
    """
    if is_figure(image) and "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(image)


def to_pil(image: Any) -> Image.Image:
    """Return an RGB picture.

    Grey levels of 16 bits are scaled to 8; what is transparent is laid on white.

    Parameters
    ----------
    image : torch.Tensor, PIL.Image.Image or matplotlib.figure.Figure
        A tensor is uint8 of shape ``(3, H, W)``, on any device.

    Returns
    -------
    PIL.Image.Image
        Of mode ``RGB``; a figure has 144 dpi.

    Examples
    --------
    >>> to_pil(torch.zeros(3, 4, 6, dtype=torch.uint8)).size
    (6, 4)
    >>> to_pil(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(image, torch.Tensor):
        return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())  # (H, W, 3)
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    buffer = io.BytesIO()
    image.savefig(buffer, format="png", dpi=FIGURE_DPI)
    return Image.open(buffer).convert("RGB")


def png_bytes(image: Any) -> bytes:
    """Return ``image`` as a PNG file, for print.

    Parameters
    ----------
    image : torch.Tensor, PIL.Image.Image or matplotlib.figure.Figure
        A tensor is uint8 of shape ``(3, H, W)``, on any device.

    Returns
    -------
    bytes
        The file's content.

    Examples
    --------
    >>> png_bytes(Image.new("RGB", (2, 2)))[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Encoded:
    """A picture as a WebP data address, its size, and how wide it looks best on a page.

    Parameters
    ----------
    uri : str
        Starts with ``data:image/webp;base64,``.
    width_px, height_px : int
        Size of the stored picture.
    shown_px : int
        Width on the page.
    """

    uri: str
    width_px: int
    height_px: int
    shown_px: int


def encode(image: Any) -> Encoded:
    """Return ``image`` as bytes for a page.

    Photographs are stored with little loss, small pictures exactly, figures whichever is smaller.

    Parameters
    ----------
    image : torch.Tensor, PIL.Image.Image or matplotlib.figure.Figure
        A tensor is uint8 of shape ``(3, H, W)``, on any device.

    Returns
    -------
    Encoded
        The WebP picture and its sizes.

    Examples
    --------
    >>> encoded = encode(torch.zeros(3, 32, 32, dtype=torch.uint8))
    >>> encoded.width_px, encoded.shown_px
    (32, 480)
    """
    picture = to_pil(image)
    width, height = picture.size
    if is_figure(image):
        data = min(_webp(picture, lossless=True), _webp(picture), key=len)
        shown_px = round(width * 96 / FIGURE_DPI)
    else:
        data = _webp(picture, lossless=max(width, height) <= EXACT_PX)
        shown_px = width * max(1, ENLARGED_PX // width)
    uri = "data:image/webp;base64," + base64.b64encode(data).decode()
    return Encoded(uri, width, height, shown_px)


def img_tag(picture: Encoded, caption: str, *, width_px: int | None = None) -> str:
    """Return the ``<img>`` of a picture; enlarged pixels stay sharp.

    Parameters
    ----------
    picture : Encoded
        From :func:`encode`.
    caption : str
        Alternative text.
    width_px : int, optional
        Width on the page, >= 1. By default ``picture.shown_px``.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> img_tag(Encoded("data:,", 10, 5, 20), "A <cat>")[:60]
    '<img src="data:," alt="A &lt;cat&gt;" width="20" height="10"'
    """
    shown_px = picture.shown_px if width_px is None else width_px
    height_px = round(shown_px * picture.height_px / picture.width_px)
    sharp = ";image-rendering:pixelated" if shown_px >= 2 * picture.width_px else ""
    return (
        f'<img src="{picture.uri}" alt="{html.escape(caption)}" width="{shown_px}" '
        f'height="{height_px}" style="max-width:100%;height:auto{sharp}">'
    )


def read_upload(data: bytes) -> torch.Tensor:
    """Return the photograph in the file ``data`` as a uint8 tensor ``(3, H, W)``.

    It is turned upright as its EXIF says. Grey levels of 16 bits are scaled to 8 (of colours Pillow
    reads 8 bits), and what is transparent is laid on white.

    Parameters
    ----------
    data : bytes
        Content of a JPEG, PNG, WebP or other file that Pillow reads.

    Returns
    -------
    torch.Tensor
        uint8, shape ``(3, H, W)``, both sides at most 256 pixels.

    Raises
    ------
    ValueError
        If the bytes are not a picture, or one cut short.

    Examples
    --------
    >>> read_upload(png_bytes(Image.new("RGB", (512, 384)))).shape
    torch.Size([3, 192, 256])
    >>> read_upload(b"no picture")
    Traceback (most recent call last):
    ValueError: it is not a picture, or it is cut short
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (2 * UPLOAD_PX, 2 * UPLOAD_PX))  # a large JPEG is read small
            upright = _to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("it is not a picture, or it is cut short") from error
    upright.thumbnail((UPLOAD_PX, UPLOAD_PX))
    pixels = torch.frombuffer(bytearray(upright.tobytes()), dtype=torch.uint8)
    return pixels.reshape(upright.height, upright.width, 3).permute(2, 0, 1).contiguous()


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):  # convert() would clip at 255
        levels = np.asarray(picture).astype(np.int64).clip(0, 65535)
        picture = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _webp(picture: Image.Image, *, lossless: bool = False) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=lossless, quality=80, method=4)
    return buffer.getvalue()
