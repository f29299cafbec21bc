"""The published CIFAR-10-C files: small ones in their layout, good and bad."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
import torch

from rac_helpers import corrupt, data

COUNT = 4


@pytest.fixture
def root(tmp_path):
    """Twenty images in fog.npy; each image holds its own position, each colour another one."""
    position = np.arange(5 * COUNT, dtype=np.uint8)
    images = np.zeros((5 * COUNT, 32, 32, 3), dtype=np.uint8)
    images += position[:, None, None, None] + np.array([0, 100, 200], dtype=np.uint8)
    images[:, 0, 31] = 9  # a mark at the top right
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.array([3, 8, 8, 0], dtype=np.uint8), 5))
    return tmp_path


def test_kinds_are_those_of_the_corruptions():
    from rac_helpers.data.corrupted import _KINDS

    assert _KINDS == corrupt.KINDS


@pytest.mark.parametrize("severity", range(1, 6))
def test_each_severity_is_its_part_of_the_file(root, severity):
    split = data.cifar10_c(root, "fog", severity)
    assert split.images.shape == (COUNT, 3, 32, 32)
    assert split.images.dtype == torch.uint8
    assert split.images.is_contiguous()
    first = COUNT * (severity - 1)
    assert split.images[:, 0, 5, 7].tolist() == list(range(first, first + COUNT))
    assert split.images[0, :, 5, 7].tolist() == [first, first + 100, first + 200]
    assert (split.images[:, :, 0, 31] == 9).all()
    assert split.images[0, 0, 31, 0] == first
    assert split.labels.dtype == torch.int64
    assert split.labels.tolist() == [3, 8, 8, 0]


def test_labels_belong_to_their_severity(root):
    np.save(root / "labels.npy", np.arange(5 * COUNT, dtype=np.uint8) // COUNT)
    assert data.cifar10_c(root, "fog", 4).labels.tolist() == [3] * COUNT


def test_labels_may_stand_there_once(root):
    np.save(root / "labels.npy", np.array([1, 2, 3, 4]))
    assert data.cifar10_c(root, "fog", 2).labels.tolist() == [1, 2, 3, 4]


def test_result_is_a_copy_that_leaves_the_file_alone(root):
    data.cifar10_c(root, "fog", 1).images.fill_(0)
    assert data.cifar10_c(root, "fog", 1).images[1, 0, 5, 7] == 1


def test_only_the_wanted_part_is_read(tmp_path):
    """A fifth of 3 MB twice (a copy, then colours first) stays well below all of it."""
    np.save(tmp_path / "snow.npy", np.zeros((1000, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(1000, dtype=np.uint8))
    tracemalloc.start()
    try:
        split = data.cifar10_c(tmp_path, "snow", 5)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    part_bytes = 200 * 3 * 32 * 32
    assert part_bytes <= peak_bytes < 2.5 * part_bytes  # numpy reports here, torch does not
    assert split.images.untyped_storage().nbytes() == part_bytes


@pytest.mark.parametrize("kind", ["rain", "Fog", "fog.npy", "../fog", "", None, 3])
def test_unknown_kind(root, kind):
    message = rf"kind must be one of 'gaussian_noise', .*'saturate', got {re.escape(repr(kind))}"
    with pytest.raises(ValueError, match=message):
        data.cifar10_c(root, kind, 1)


@pytest.mark.parametrize(
    ("severity", "error"), [(0, ValueError), (6, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_bad_severity(root, severity, error):
    with pytest.raises(error, match=rf"severity must be an integer in \[1, 5\], got {severity}"):
        data.cifar10_c(root, "fog", severity)


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy"])
def test_missing_file(root, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"missing file '.*{name}'; unpack .*2535967"):
        data.cifar10_c(root, "fog", 1)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing file '.*nowhere.*snow.npy'"):
        data.cifar10_c(tmp_path / "nowhere", "snow", 1)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((20, 32, 32, 3), dtype=np.float32), r"float32 of shape \(20, 32, 32, 3\)"),
        (np.zeros((21, 32, 32, 3), dtype=np.uint8), r"uint8 of shape \(21, 32, 32, 3\)"),
        (np.zeros((20, 3, 32, 32), dtype=np.uint8), r"uint8 of shape \(20, 3, 32, 32\)"),
        (np.zeros((0, 32, 32, 3), dtype=np.uint8), r"uint8 of shape \(0, 32, 32, 3\)"),
        (np.zeros(20, dtype=np.uint8), r"uint8 of shape \(20,\)"),
        (np.zeros((), dtype=np.uint8), r"uint8 of shape \(\)"),
    ],
)
def test_images_of_another_form(root, array, got):
    np.save(root / "fog.npy", array)
    with pytest.raises(ValueError, match=rf"fog.npy' must hold uint8 of shape .*, got {got}"):
        data.cifar10_c(root, "fog", 1)


@pytest.mark.parametrize(
    "array", [np.zeros(19, np.uint8), np.zeros((20, 1), np.uint8), np.zeros(20), np.array(3)]
)
def test_labels_of_another_form(root, array):
    np.save(root / "labels.npy", array)
    with pytest.raises(ValueError, match=r"labels.npy' must hold 20 integers.* got "):
        data.cifar10_c(root, "fog", 1)


def test_labels_out_of_range(root):
    np.save(root / "labels.npy", np.full(20, 10))
    with pytest.raises(ValueError, match=r"labels.npy must be in \[0, 9\], got 10"):
        data.cifar10_c(root, "fog", 1)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_damaged_file(root, content):
    (root / "fog.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read '.*fog.npy' as .npy"):
        data.cifar10_c(root, "fog", 1)


def test_file_cut_short(root):
    whole = (root / "fog.npy").read_bytes()
    (root / "fog.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read '.*fog.npy' as .npy"):
        data.cifar10_c(root, "fog", 1)
