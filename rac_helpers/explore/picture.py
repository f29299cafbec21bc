"""Pictures of an explorer as bytes: one encoder for the built page and for the live view."""

from __future__ import annotations

import base64
import html
import io
import sys
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageOps

from rac_helpers._check import check_images

FIGURE_DPI = 144  # 1.5 pixels of the file for one of the page
EXACT_PX = 64  # pictures up to this size are stored without loss
ENLARGED_PX = 480  # small pictures are shown a whole number of times larger, up to this width
UPLOAD_PX = 256


def check_picture(name: str, image: Any) -> None:
    """Raise unless ``image`` is a uint8 tensor ``(3, H, W)``, a PIL image or a Figure."""
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
    """Return whether ``image`` is a matplotlib Figure, without loading matplotlib."""
    matplotlib = sys.modules.get("matplotlib.figure")
    return matplotlib is not None and isinstance(image, matplotlib.Figure)


def detach_figure(image: Any) -> None:
    """Let pyplot forget ``image``, or the notebook would show it a second time."""
    if is_figure(image) and "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(image)


def to_pil(image: Any) -> Image.Image:
    """Return an RGB picture."""
    if isinstance(image, torch.Tensor):
        return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())  # (H, W, 3)
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    buffer = io.BytesIO()
    image.savefig(buffer, format="png", dpi=FIGURE_DPI)
    return Image.open(buffer).convert("RGB")


def png_bytes(image: Any) -> bytes:
    """Return ``image`` as a PNG file, for print."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Encoded:
    """A picture as a WebP data address, its size, and how wide it looks best on a page."""

    uri: str
    width_px: int
    height_px: int
    shown_px: int


def encode(image: Any) -> Encoded:
    """Return ``image`` as bytes for a page.

    Photographs are stored with little loss, small pictures exactly, figures whichever is smaller.
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
    """Return the ``<img>`` of a picture; enlarged pixels stay sharp."""
    shown_px = picture.shown_px if width_px is None else width_px
    height_px = round(shown_px * picture.height_px / picture.width_px)
    sharp = ";image-rendering:pixelated" if shown_px >= 2 * picture.width_px else ""
    return (
        f'<img src="{picture.uri}" alt="{html.escape(caption)}" width="{shown_px}" '
        f'height="{height_px}" style="max-width:100%;height:auto{sharp}">'
    )


def read_upload(data: bytes) -> torch.Tensor:
    """Return the photograph in the file ``data`` as a uint8 tensor ``(3, H, W)``.

    Raises
    ------
    ValueError
        If the bytes are not a picture, or one cut short.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (2 * UPLOAD_PX, 2 * UPLOAD_PX))  # a large JPEG is read small
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("it is not a picture, or it is cut short") from error
    upright.thumbnail((UPLOAD_PX, UPLOAD_PX))
    pixels = torch.frombuffer(bytearray(upright.tobytes()), dtype=torch.uint8)
    return pixels.reshape(upright.height, upright.width, 3).permute(2, 0, 1).contiguous()


def _webp(picture: Image.Image, *, lossless: bool = False) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=lossless, quality=80, method=4)
    return buffer.getvalue()
