"""CIFAR-10-C as published: the test images of CIFAR-10, corrupted by its authors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from rac_helpers._check import check_int, check_labels
from rac_helpers.data.base import Split

_KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
_SEVERITIES = 5
_ARCHIVE = "https://zenodo.org/records/2535967 (CIFAR-10-C.tar, 2.9 GB)"


def cifar10_c(root: str | os.PathLike, kind: str, severity: int) -> Split:
    """Return one of the 95 sets of the published CIFAR-10-C: 10,000 images of 32x32 px.

    A file holds the five severities one after the other; only the wanted part is read.

    Parameters
    ----------
    root : path
        Folder that holds ``labels.npy``, ``fog.npy`` and so on, as unpacked from the archive. There
        is no download here: the archive has 2.9 GB.
    kind : str
        One of the 19 kinds, for example ``"saturate"``; see ``rac_helpers.corrupt.KINDS``.
    severity : int
        1 (mild) to 5 (strong).

    Returns
    -------
    Split
        uint8 images ``(10000, 3, 32, 32)`` and their labels, in the order of CIFAR-10's test set.
        From smaller files of the same layout it returns a fifth of the images.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it and says where the archive is.
    TypeError, ValueError
        If there is no such kind or severity, or if a file holds something else.

    References
    ----------
    Hendrycks and Dietterich, 2019. Benchmarking neural network robustness to common corruptions
    and perturbations. arXiv:1903.12261.

    Examples
    --------
    >>> cifar10_c("no such folder", "fog", 3)
    Traceback (most recent call last):
    FileNotFoundError: missing file 'no such folder...fog.npy'; unpack \
https://zenodo.org/records/2535967 ...
    """
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    severity = check_int("severity", severity, low=1, high=_SEVERITIES)
    image_file, label_file = Path(root) / f"{kind}.npy", Path(root) / "labels.npy"
    stored, labels = _open_array(image_file), _open_array(label_file)
    count = len(stored) // _SEVERITIES if stored.ndim == 4 else 0
    if stored.dtype != np.uint8 or stored.shape != (_SEVERITIES * count, 32, 32, 3) or not count:
        raise ValueError(
            f"{str(image_file)!r} must hold uint8 of shape (5 * n, 32, 32, 3), "
            f"got {stored.dtype} of shape {stored.shape}"
        )
    part = slice((severity - 1) * count, severity * count)
    images = torch.from_numpy(np.array(stored[part]))  # a copy: (n, 32, 32, 3)
    return Split(
        images.permute(0, 3, 1, 2).contiguous(), _pick_labels(label_file, labels, part, count)
    )


def _pick_labels(file: Path, labels: np.ndarray, part: slice, count: int) -> torch.Tensor:
    """Return the labels of one severity; the file may hold them once, or once a severity."""
    lengths = (count, _SEVERITIES * count)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) not in lengths:
        raise ValueError(
            f"{str(file)!r} must hold {lengths[1]} integers, one for each image (or {lengths[0]}, "
            f"for one severity), got {labels.dtype} of shape {labels.shape}"
        )
    picked = labels[part] if len(labels) == lengths[1] else labels
    return check_labels(str(file), torch.from_numpy(picked.astype(np.int64)), num_classes=10)


def _open_array(file: Path) -> np.ndarray:
    """Open a ``.npy`` file without reading its contents."""
    if not file.is_file():
        raise FileNotFoundError(f"missing file {str(file)!r}; unpack {_ARCHIVE} there")
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"cannot read {str(file)!r} as .npy: {error}") from error
