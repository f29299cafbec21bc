"""Flip and crop, and the article's simple augmentation, against slow references."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from rac_helpers import data
from rac_helpers.augment import flip_crop, flip_rotate_zoom
from rac_helpers.rng import make_generator

PICTURES = torch.stack(list(data.photographs(size_px=32).values()))[:, :, :, :24]  # 32 x 24


def photographs(number):
    return PICTURES[torch.arange(number) % len(PICTURES)].contiguous()


@pytest.mark.parametrize("pad_px", [0, 1, 4])
def test_flip_crop_gives_windows_of_the_padded_image(pad_px):
    images = photographs(120)
    before = images.clone()
    result = flip_crop(images, generator=make_generator(0), pad_px=pad_px)
    assert torch.equal(images, before)
    assert result.shape == images.shape
    seen = set()
    for image, changed in zip(images, result, strict=True):
        for mirrored in (False, True):
            padded = np.pad(
                (image.flip(-1) if mirrored else image).numpy(),
                [(0, 0), (pad_px, pad_px), (pad_px, pad_px)],
            )
            for top in range(2 * pad_px + 1):
                for left in range(2 * pad_px + 1):
                    window = padded[:, top : top + 32, left : left + 24]
                    if np.array_equal(window, changed.numpy()):
                        seen.add((mirrored, top, left))
                        break
                else:
                    continue
                break
            else:
                continue
            break
        else:
            pytest.fail("no window of the padded image")
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    every = set(range(2 * pad_px + 1))
    assert {top for _, top, _ in seen} == {left for _, _, left in seen} == every
    assert pad_px == 0 or any(top != left for _, top, left in seen)  # each its own draw


def test_flip_crop_draws_evenly():
    gradient = torch.arange(1, 10, dtype=torch.uint8).expand(3, 9, 9)  # columns 1..9
    images = gradient.expand(8100, -1, -1, -1)
    result = flip_crop(images, generator=make_generator(1), pad_px=1)
    middle, right = result[:, 0, 4, 4].long(), result[:, 0, 4, 5].long()
    mirrored = (right < middle).float().mean()
    assert abs(mirrored - 0.5) < 5 * 0.5 / 8100**0.5
    for shift in (-1, 0, 1):
        share = ((middle - 5).abs() == abs(shift)).float().mean()
        assert abs(share - (1 / 3 if shift == 0 else 2 / 3)) < 5 * 0.5 / 8100**0.5


def test_flip_rotate_zoom_is_what_scipy_computes():
    images = photographs(12)
    before = images.clone()
    result = flip_rotate_zoom(images, generator=make_generator(5))
    assert torch.equal(images, before)
    draws = torch.rand(4, 12, generator=make_generator(5), dtype=torch.float64).numpy()
    centre = np.array([15.5, 11.5])
    for image, changed, (mirror, turn, tall, wide) in zip(images, result, draws.T, strict=True):
        angle = (2 * turn - 1) * 0.02 * 2 * math.pi
        zoom = np.diag([0.8 + 0.4 * tall, 0.8 + 0.4 * wide])  # rows, columns
        flip = np.diag([1.0, -1.0 if mirror < 0.5 else 1.0])
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])  # of (row, column)
        matrix = flip @ rotation @ zoom
        for channel, expected_of in zip(changed, image, strict=True):
            expected = ndimage.affine_transform(
                expected_of.double().numpy(),
                matrix,
                offset=centre - matrix @ centre,
                order=1,
                mode="reflect",
            )
            assert np.abs(channel.numpy() - expected).max() <= 0.51


def test_flip_rotate_zoom_gives_each_image_its_own_draws():
    draws = flip_rotate_zoom(photographs(200), generator=make_generator(0))
    assert len(draws.flatten(1).unique(dim=0)) == 200  # each image its own draws


@pytest.mark.parametrize("transform", [flip_crop, flip_rotate_zoom])
def test_randomness_comes_from_the_generator_alone(transform):
    before = torch.get_rng_state()
    one, same, other = (transform(photographs(20), generator=make_generator(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("transform", [flip_crop, flip_rotate_zoom])
def test_bad_input(transform):
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), got \(3, 8, 8\)"):
        transform(torch.zeros(3, 8, 8, dtype=torch.uint8), generator=make_generator(0))
    for wrong in (None, 0):
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
            transform(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), generator=wrong)
    with pytest.raises(TypeError, match="uint8"):
        transform(torch.zeros(2, 3, 8, 8), generator=make_generator(0))
    assert transform(
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8), generator=make_generator(0)
    ).shape == (0, 3, 8, 8)


def test_negative_padding():
    with pytest.raises(ValueError, match="pad_px must be an integer >= 0, got -1"):
        flip_crop(photographs(1), generator=make_generator(0), pad_px=-1)
