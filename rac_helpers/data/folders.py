"""Any tree of images with one folder a class, read fast and with little memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from rac_helpers._check import check_int
from rac_helpers._progress import progress_bar
from rac_helpers.data.base import Dataset, Split, split_positions

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_CHUNK = 256  # files that a thread reads before it reports


def folder(
    root: str | os.PathLike,
    *,
    image_px: int | None = 32,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    progress: bool | None = None,
) -> Dataset:
    """Read a tree of images with one folder a class.

    With ``root/train/<class>/`` and ``root/test/<class>/`` the test images stay as they are and
    validation is taken from the training images. With ``root/<class>/`` alone both are taken from
    all images. Either way each class is split in the same proportion.

    Parameters
    ----------
    root : path
        The folder. Class names are folder names in alphabetical order; files that are no images
        (by their extension) and names that start with a dot are passed over.
    image_px : int or None
        Side of the square images, 1–1024: others are resized and cropped at the centre. ``None``
        keeps sizes as they are; then all must be equal.
    validation, test : float or int
        A share in (0, 1) or a number of images. ``test`` is used for a tree without ``test/``.
    seed : int
        The same seed gives the same split of the same files.
    progress : bool or None
        Show a progress bar; ``None`` means when a person is watching.

    Returns
    -------
    Dataset
        uint8 images ``(n, 3, image_px, image_px)``, named as the folder is.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If ``root`` is missing or no folder.
    ValueError
        If a folder or class is empty, if ``train/`` and ``test/`` have different classes, if a
        file cannot be read as an image or has another size; the message names the file or folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         for i in range(4):
    ...             Image.new("RGB", (40, 30), (i, 0, 0)).save(Path(root, name, f"{i}.png"))
    ...     data = folder(root, validation=0.25, test=0.25)
    >>> data.classes, data.train.images.shape
    (('cat', 'dog'), torch.Size([4, 3, 32, 32]))
    """
    if image_px is not None:
        check_int("image_px", image_px, low=1, high=1024)
    root = _existing_folder(root)
    listings = _list_splits(root, validation=validation, test=test, seed=seed)
    classes = tuple(listings.pop("classes"))
    size = (image_px, image_px) if image_px else _size_of(listings["train"][0][0])
    splits = {
        name: _read_split(files, labels, size=size, fit=bool(image_px), name=name, show=progress)
        for name, (files, labels) in listings.items()
    }
    return Dataset(root.resolve().name, classes, **splits)


def _existing_folder(root: str | os.PathLike) -> Path:
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"root must be an existing folder, got {str(root)!r}: not found")
    if not root.is_dir():
        raise NotADirectoryError(f"root must be a folder, got the file {str(root)!r}")
    return root


def _list_splits(root: Path, *, validation: float, test: float, seed: int) -> dict:
    """Return ``classes`` and, for each split, its files and labels."""
    parts = [name for name in ("train", "test") if (root / name).is_dir()]
    if len(parts) == 1:
        missing = root / ("test" if parts == ["train"] else "train")
        raise ValueError(
            f"{str(root)!r} has {parts[0]}/ but the folder {str(missing)!r} is missing"
        )
    sizes = [("validation", validation)] if parts else [("validation", validation), ("test", test)]
    classes, files, labels = _list_files(root / "train" if parts else root)
    positions = split_positions(labels, held_out=sizes, names=classes, seed=seed)
    names = ("train", "validation", "test")
    listings = {
        name: ([files[i] for i in part.tolist()], labels[part])
        for name, part in zip(names, positions, strict=False)
    }
    if parts:
        test_classes, *listings["test"] = _list_files(root / "test")
        _check_same_classes(root, classes, test_classes)
    return {"classes": classes, **listings}


def _list_files(root: Path) -> tuple[list[str], list[Path], torch.Tensor]:
    """Return class names, files in a fixed order, and their labels."""
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ValueError(
            f"{str(root)!r} is empty: it must hold one folder of images for each class"
        )
    files, labels = [], []
    for k, name in enumerate(classes):
        entries = sorted(os.scandir(root / name), key=lambda entry: entry.name)
        found = [Path(e.path) for e in entries if _is_image_name(e.name)]
        if not found:
            raise ValueError(
                f"class folder {str(root / name)!r} is empty: it must hold images "
                f"({', '.join(EXTENSIONS)})"
            )
        files += found
        labels += [k] * len(found)
    return classes, files, torch.tensor(labels)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _check_same_classes(root: Path, train: Sequence[str], test: Sequence[str]) -> None:
    if list(train) == list(test):
        return
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    raise ValueError(
        f"train/ and test/ in {str(root)!r} must hold the same classes, "
        f"got only in train/: {only_train}, only in test/: {only_test}"
    )


def _read_split(
    files: Sequence[Path], labels: torch.Tensor, *, size, fit: bool, name: str, show: bool | None
) -> Split:
    """Read the files with threads (decoding runs beside Python) into one uint8 block."""
    images = np.empty((len(files), 3, size[1], size[0]), dtype=np.uint8)

    def read_chunk(start: int) -> int:
        stop = min(start + _CHUNK, len(files))
        for i in range(start, stop):
            images[i] = _read_image(files[i], size=size, fit=fit)
        return stop - start

    with (
        progress_bar(total=len(files), desc=f"reading {name}", progress=show) as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        try:
            for done in pool.map(read_chunk, range(0, len(files), _CHUNK)):
                bar.update(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one bad file: do not read the rest first
            raise
    return Split(torch.from_numpy(images), labels)


def _read_image(file: Path, *, size: tuple[int, int], fit: bool) -> np.ndarray:
    """Return one image as uint8 of shape (3, H, W)."""
    try:
        with Image.open(file) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"mode {opened.mode!r} has more than 8 bits a channel")
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {str(file)!r}: {error}") from error
    if picture.size != size:
        if not fit:
            raise ValueError(
                f"all images must have one size, got {picture.size} in {str(file)!r} "
                f"after {size}; pass image_px to resize"
            )
        picture = ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def _size_of(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as opened:
            return ImageOps.exif_transpose(opened).size
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"cannot read the image {str(file)!r}: {error}") from error
