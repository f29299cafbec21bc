"""Data sets and pictures that come with scikit-learn, scikit-image and torchvision."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from rac_helpers._check import check_int
from rac_helpers.data.base import Dataset, Split, split_positions

# name: (package, file inside it). The packages' own download functions are not used.
_PHOTOGRAPHS = {
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}

_FASHION_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def photographs(*, size_px: int = 128) -> dict[str, torch.Tensor]:
    """Return a few real colour photographs: the centre square of each, resized.

    Parameters
    ----------
    size_px : int
        Side of the square, 8–512.

    Returns
    -------
    dict of str to torch.Tensor
        uint8, shape ``(3, size_px, size_px)``.

    Raises
    ------
    TypeError, ValueError
        If ``size_px`` is out of range.
    FileNotFoundError
        If a picture's package is not installed or lacks the file.

    Examples
    --------
    >>> pictures = photographs(size_px=64)
    >>> list(pictures)
    ['temple', 'flower', 'astronaut', 'cat', 'coffee', 'rocket']
    >>> pictures["cat"].shape, pictures["cat"].dtype
    (torch.Size([3, 64, 64]), torch.uint8)
    """
    size = (check_int("size_px", size_px, low=8, high=512),) * 2
    pictures = {}
    for name, (package, inside) in _PHOTOGRAPHS.items():
        with Image.open(_file_in_package(package, inside)) as opened:
            picture = ImageOps.fit(opened.convert("RGB"), size, Image.Resampling.LANCZOS)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        pictures[name] = pixels.view(*size, 3).permute(2, 0, 1).contiguous()  # (3, H, W)
    return pictures


def _file_in_package(package: str, inside: str) -> Path:
    """Find a file inside an installed package without importing it."""
    spec = find_spec(package)
    file = Path(spec.origin).parent / inside if spec and spec.origin else None
    if file is None or not file.is_file():
        raise FileNotFoundError(f"the file {inside!r} of the package {package!r} is not installed")
    return file


def digits(*, seed: int = 0) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, enlarged from 8x8 grey to 32x32 RGB.

    A fifth of the images is for validation, a fifth for the test.

    Parameters
    ----------
    seed : int
        Chooses the split.

    Returns
    -------
    Dataset
        uint8 images ``(n, 3, 32, 32)`` and the ten classes ``"0"`` to ``"9"``.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` is out of range.

    References
    ----------
    Alpaydin and Kaynak, 1998. Optical recognition of handwritten digits. UCI repository.

    Examples
    --------
    >>> digits()
    Dataset 'digits': 10 classes, 32x32 px, train 1,079, validation 359, test 359
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float() / 16 * 255  # (n, 8, 8), 0..16 -> 0..255
    large = F.interpolate(grey[:, None], size=(32, 32), mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).expand(-1, 3, -1, -1)  # (n, 3, 32, 32)
    labels = torch.from_numpy(bunch.target).long()
    names = [str(name) for name in bunch.target_names]
    sizes = [("validation", 0.2), ("test", 0.2)]
    return Dataset("digits", tuple(names), *_hold_out(Split(images, labels), sizes, names, seed))


def cifar10(root: str | os.PathLike, *, download: bool = False, seed: int = 0) -> Dataset:
    """Return CIFAR-10 from torchvision's files: 45,000 / 5,000 / 10,000 images of 32x32 px.

    Parameters
    ----------
    root : path
        Folder that holds, or will hold, ``cifar-10-batches-py/``.
    download : bool
        Fetch the files (170 MB) if they are missing or damaged.
    seed : int
        Chooses the 5,000 validation images, 500 of each class, out of the 50,000.

    Returns
    -------
    Dataset
        uint8 images ``(n, 3, 32, 32)`` and the ten classes ``"airplane"`` to ``"truck"``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged; the message names it.
    OSError
        If the download fails.

    References
    ----------
    Krizhevsky, 2009. Learning multiple layers of features from tiny images.

    Examples
    --------
    >>> cifar10("no such folder")
    Traceback (most recent call last):
    FileNotFoundError: missing file 'no such folder...data_batch_1'; pass download=True to fetch it
    """
    from torchvision.datasets import CIFAR10

    base = Path(root) / CIFAR10.base_folder
    listed = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    listed[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    _prepare(CIFAR10, root, {base / name: md5 for name, md5 in listed.items()}, download=download)
    with _clear_errors(base):
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    splits = []
    for part in (train, test):
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2)  # (n, H, W, 3) -> (n, 3, H, W)
        splits.append(Split(images, torch.tensor(part.targets)))
    return _hold_out_validation("cifar10", train.classes, *splits, seed=seed)


def fashion_mnist(root: str | os.PathLike, *, download: bool = False, seed: int = 0) -> Dataset:
    """Return Fashion-MNIST from torchvision's files: 54,000 / 6,000 / 10,000 images.

    The 28x28 grey images get a black border of 2 px and three equal channels, so that they have
    the same shape as the other data sets.

    Parameters
    ----------
    root : path
        Folder that holds, or will hold, ``FashionMNIST/raw/``.
    download : bool
        Fetch the files (31 MB) if they are missing.
    seed : int
        Chooses the 6,000 validation images, 600 of each class, out of the 60,000.

    Returns
    -------
    Dataset
        uint8 images ``(n, 3, 32, 32)`` and the ten classes ``"T-shirt/top"`` to ``"Ankle boot"``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged; the message names it.
    OSError
        If the download fails.

    References
    ----------
    Xiao, Rasul and Vollgraf, 2017. Fashion-MNIST. arXiv:1708.07747.

    Examples
    --------
    >>> fashion_mnist("no such folder")
    Traceback (most recent call last):
    FileNotFoundError: missing file 'no such folder...train-images-idx3-ubyte'; pass \
download=True to fetch it
    """
    from torchvision.datasets import FashionMNIST

    raw = Path(root) / "FashionMNIST" / "raw"
    pairs = [[raw / name for name in pair] for pair in _FASHION_FILES]
    _prepare(FashionMNIST, root, {file: None for pair in pairs for file in pair}, download=download)
    splits = []
    for image_file, label_file in pairs:
        grey, labels = _read_idx_pair(image_file, label_file)
        padded = F.pad(grey, (2, 2, 2, 2))[:, None]  # (n, 28, 28) -> (n, 1, 32, 32)
        splits.append(Split(padded.expand(-1, 3, -1, -1), labels))
    return _hold_out_validation("fashion_mnist", FashionMNIST.classes, *splits, seed=seed)


def _read_idx_pair(image_file: Path, label_file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    with _clear_errors(image_file):
        images = read_image_file(str(image_file))
    with _clear_errors(label_file):
        labels = read_label_file(str(label_file))
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise ValueError(
            f"{str(image_file)!r} must hold 28x28 images, one for each of the {len(labels)} "
            f"labels, got shape {tuple(images.shape)}"
        )
    return images, labels


def _hold_out_validation(
    name: str, classes: Sequence[str], full: Split, test: Split, *, seed: int
) -> Dataset:
    chosen = _hold_out(full, [("validation", 0.1)], classes, seed)
    return Dataset(name, tuple(classes), *chosen, Split(test.images.contiguous(), test.labels))


def _hold_out(
    full: Split, sizes: Sequence[tuple[str, float]], classes: Sequence[str], seed: int
) -> list[Split]:
    parts = split_positions(full.labels, held_out=sizes, names=classes, seed=seed)
    return [Split(full.images[part].contiguous(), full.labels[part]) for part in parts]


def _prepare(dataset: type, root: str | os.PathLike, files: dict, *, download: bool) -> None:
    """Download if asked to, then check that each file is there and has its MD5 sum (if known)."""
    from torchvision.datasets.utils import check_integrity

    def wrong() -> list[Path]:
        return [file for file, md5 in files.items() if not check_integrity(str(file), md5)]

    if download:
        try:
            dataset(root, download=True)
        except Exception as error:
            if wrong():  # else it is a damaged file, which the reader names
                place = f"{dataset.__name__} into {os.fspath(root)!r}"
                raise OSError(f"cannot download {place}: {error}") from error
    for file in wrong():
        if not file.is_file():
            raise FileNotFoundError(f"missing file {str(file)!r}; pass download=True to fetch it")
        raise ValueError(f"damaged file {str(file)!r}; pass download=True to fetch it again")


# All that numpy, pickle and torchvision raise on a file that is cut short or holds other things.
_READING_ERRORS = (
    *(OSError, EOFError, pickle.UnpicklingError, AssertionError, RuntimeError),
    *(ValueError, TypeError, KeyError, IndexError),
)


@contextmanager
def _clear_errors(place: Path) -> Iterator[None]:
    """Turn what torchvision raises on a bad file into one error that names the place."""
    try:
        yield
    except _READING_ERRORS as error:
        raise ValueError(_damaged(place, error)) from error


def _damaged(place: Path, error: Exception) -> str:
    reason = str(error) or type(error).__name__
    return f"cannot read {str(place)!r} ({reason}); delete it and pass download=True"
