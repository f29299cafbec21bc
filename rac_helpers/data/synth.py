"""Street numbers made here: 32x32 colour pictures of digits, without any download.

Drawing is separated from deciding: a *scene* is a row of numbers (which font, which angle, which
colours ...) drawn for all images at once, and :func:`_render` turns one scene into pixels.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from rac_helpers._check import check_int, check_number
from rac_helpers._progress import progress_bar
from rac_helpers.data.base import Dataset, Split
from rac_helpers.rng import derive_seed, make_generator

IMAGE_PX = 32

# Of the 44 fonts inside the matplotlib wheel those that hold upright-looking Arabic digits. The
# others draw blanks (STIXSiz*, STIXNonUni*, *Display), boxes (LastResort), other symbols in the
# places of digits (cmex10, cmsy10), or old-style digits of different heights (cmmi10).
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)


def synth_digits(
    num_train: int = 4000,
    num_validation: int = 1000,
    num_test: int = 2000,
    *,
    seed: int = 0,
    difficulty: float = 0.5,
    progress: bool | None = None,
) -> Dataset:
    """Draw pictures of digits that look like street numbers; the digit in the centre is the label.

    Each picture has a random font, size, angle (at most 15 degrees) and colours, up to two cut-off
    neighbours as clutter, blur and noise. Labels run 0, 1, ..., 9, 0, 1, ... A longer split starts
    with the images of a shorter one of the same seed.

    Parameters
    ----------
    num_train, num_validation, num_test : int
        Images in each split, >= 1. One image costs about half a millisecond.
    seed : int
        In ``[0, 2**63)``. The same seed is the same data set, on every machine with the same
        versions of Pillow, matplotlib and torch.
    difficulty : float
        In ``[0, 1]``: 0 is clean and high in contrast, 1 is close to unreadable. At the default
        :class:`rac_helpers.models.SmallCNN` reaches about 90 % after half a minute of training.
    progress : bool or None
        Show a progress bar; ``None`` means when a person is watching.

    Returns
    -------
    Dataset
        uint8 images ``(n, 3, 32, 32)`` and the ten classes ``"0"`` to ``"9"``.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.
    FileNotFoundError
        If matplotlib, whose fonts are used, is not installed.

    Examples
    --------
    >>> synth_digits(20, 10, 10)
    Dataset 'synth_digits': 10 classes, 32x32 px, train 20, validation 10, test 10
    """
    check_int("seed", seed, low=0, high=2**63 - 1)
    check_number("difficulty", difficulty, low=0, high=1)
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    for name, count in counts.items():
        check_int(f"num_{name}", count, low=1)
    with progress_bar(total=sum(counts.values()), desc="synth_digits", progress=progress) as bar:
        splits = {
            name: _draw_split(count, seed=derive_seed(seed, name), difficulty=difficulty, bar=bar)
            for name, count in counts.items()
        }
    return Dataset("synth_digits", tuple("0123456789"), **splits)


def _draw_split(count: int, *, seed: int, difficulty: float, bar) -> Split:
    ranges = _ranges(difficulty)
    generator = make_generator(derive_seed(seed, "scenes"))
    unit = torch.rand(count, len(ranges), dtype=torch.float64, generator=generator)
    low, high = torch.tensor(list(ranges.values()), dtype=torch.float64).T
    scenes = (low + (unit * (high - low + 1)).floor()).long().tolist()  # (count, len(ranges))
    noise = make_generator(derive_seed(seed, "noise"))
    images = np.empty((count, 3, IMAGE_PX, IMAGE_PX), dtype=np.uint8)
    labels = torch.arange(count) % 10
    for i, values in enumerate(scenes):
        scene = dict(zip(ranges, values, strict=True))
        picture = _render(int(labels[i]), scene)
        images[i] = _add_noise(picture, scene["noise"], generator=noise)
        bar.update()
    return Split(torch.from_numpy(images), labels)


def _ranges(difficulty: float) -> dict[str, tuple[int, int]]:
    """Return for each number of a scene its smallest and largest value (both included)."""
    hard = float(difficulty)
    return {
        "font": (0, len(FONTS) - 1),
        "height_px": (16, 24),
        "angle_deg": (-15, 15),
        "shift_x_px": (-2, 2),
        "shift_y_px": (-2, 2),
        "level": (40, 215),  # brightness of the background
        "contrast": (round(130 - 116 * hard), round(200 - 90 * hard)),
        "tint_red": (-25, 25),
        "tint_green": (-25, 25),
        "tint_blue": (-25, 25),
        **{f"shade_{k}": (-12, 12) for k in range(12)},  # four corners x RGB
        "left": (0, 19),  # 0-9 is a digit, more is none
        "right": (0, 19),
        "gap_px": (1, 4),
        "neighbour_contrast": (20, round(60 + 100 * hard)),
        "blur_percent_px": (round(20 + 60 * hard), round(40 + 180 * hard)),
        "noise": (round(5 + 20 * hard), round(15 + 80 * hard)),
    }


def _render(label: int, scene: dict[str, int]) -> Image.Image:
    """Turn a scene into a picture, before noise."""
    shades = [scene["level"] + scene[f"shade_{k}"] for k in range(12)]
    corners = Image.frombytes("RGB", (2, 2), bytes(shades))
    picture = corners.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR)
    digit, neighbours = _masks(label, scene)
    picture.paste(_colour(scene, scene["neighbour_contrast"], tint=-1), mask=neighbours)
    picture.paste(_colour(scene, scene["contrast"], tint=1), mask=digit)
    return picture.filter(ImageFilter.GaussianBlur(scene["blur_percent_px"] / 100))


def _masks(label: int, scene: dict[str, int]) -> tuple[Image.Image, Image.Image]:
    """Return where the digit is, and where its neighbours are (never on the digit)."""
    font, height_px = FONTS[scene["font"]], scene["height_px"]
    glyph = _glyph(font, label, height_px)
    x = (IMAGE_PX - glyph.width) // 2 + scene["shift_x_px"]
    y = (IMAGE_PX - height_px) // 2 + scene["shift_y_px"]
    digit, neighbours = (Image.new("L", (IMAGE_PX, IMAGE_PX)) for _ in range(2))
    digit.paste(glyph, (x, y))
    if scene["left"] < 10:
        other = _glyph(font, scene["left"], height_px)
        neighbours.paste(other, (x - scene["gap_px"] - other.width, y))
    if scene["right"] < 10:
        other = _glyph(font, scene["right"], height_px)
        neighbours.paste(other, (x + glyph.width + scene["gap_px"], y))
    turn = {"angle": scene["angle_deg"], "resample": Image.Resampling.BILINEAR}
    return digit.rotate(**turn), neighbours.rotate(**turn)


def _colour(scene: dict[str, int], contrast: int, *, tint: int) -> tuple[int, ...]:
    """Return a colour ``contrast`` levels away from the background, towards the farther end."""
    sign = 1 if scene["level"] < 128 else -1
    middle = scene["level"] + sign * contrast
    tints = (scene["tint_red"], scene["tint_green"], scene["tint_blue"])
    return tuple(min(255, max(0, middle + tint * value)) for value in tints)


def _add_noise(picture: Image.Image, noise: int, *, generator: torch.Generator) -> np.ndarray:
    """Add triangular noise of ``noise`` levels at most; return uint8 of shape (3, 32, 32).

    Sums of integers instead of normal numbers: they are equal on every processor.
    """
    shape = (2, 3, IMAGE_PX, IMAGE_PX)
    drawn = torch.randint(-noise, noise + 1, shape, generator=generator, dtype=torch.int16)
    pixels = np.asarray(picture, dtype=np.int16).transpose(2, 0, 1)  # (3, H, W)
    return np.clip(pixels + drawn.numpy().sum(axis=0) // 2, 0, 255)


@functools.cache
def _glyph(font: str, digit: int, height_px: int) -> Image.Image:
    """Return the ink of a digit as an "L" mask, scaled to ``height_px``."""
    face = _face(font)
    canvas = Image.new("L", (128, 128))
    ImageDraw.Draw(canvas).text((32, 16), str(digit), font=face, fill=255)
    ink = canvas.crop(canvas.getbbox())
    width_px = max(2, round(ink.width * height_px / ink.height))
    return ink.resize((width_px, height_px), Image.Resampling.BOX)


@functools.cache
def _face(font: str) -> ImageFont.FreeTypeFont:
    path = font_folder() / f"{font}.ttf"
    # BASIC: the other layout engine depends on a library of the system.
    return ImageFont.truetype(str(path), 64, layout_engine=ImageFont.Layout.BASIC)


def font_folder() -> Path:
    """Return the folder of fonts inside the matplotlib wheel, without importing matplotlib."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("synth_digits draws with matplotlib's fonts: install matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
