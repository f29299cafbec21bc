"""The corruptions: form, draws, strength, constants and bad input. Pixels: test_corrupt_parity."""

from __future__ import annotations

import inspect
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers import corrupt, data
from rac_helpers.corrupt import suite
from rac_helpers.rng import make_generator

SETS = [(kind, severity) for kind in corrupt.KINDS for severity in range(1, 6)]
DRAWN = tuple(suite._DRAWN)
FIXED = tuple(suite._FIXED)

# Typed from make_cifar_c.py of the authors, a second time, in its order. zoom_blur there is
# arange(1, stop, 0.01), here the largest zoom in it; glass_blur's reach (always 1) is left out.
AUTHORS = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "glass_blur": [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [np.arange(1, stop, 0.01).max() for stop in (1.06, 1.11, 1.16, 1.21, 1.26)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "frost": [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    "snow": [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "spatter": [
        (0.62, 0.1, 0.7, 0.7, 0.5),
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    ],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    "jpeg_compression": [80, 65, 58, 50, 40],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "elastic_transform": [
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ],
}
# kinds whose severities are in order of strength; motion_blur's radius hardly matters at 3 and 4
ORDERED = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    *("snow", "fog", "brightness", "contrast", "pixelate", "jpeg_compression"),
)


def run(images, kind, severity, seed=0):
    return corrupt.corrupt(images, kind, severity, generator=make_generator(seed))


def psnr_db(images, kind, severity):
    error = (run(images, kind, severity).double() - images.double()) ** 2
    return float((10 * torch.log10(255**2 / error.mean((1, 2, 3)).clamp(min=0.01))).mean())


@pytest.fixture(scope="module")
def photographs():
    """Six photographs, twenty times: 120 images of 32 px."""
    pictures = torch.stack(list(data.photographs(size_px=32).values()))
    return pictures.repeat(20, 1, 1, 1)


class TestTable:
    def test_kinds(self):
        assert len(corrupt.KINDS) == 19
        assert (*corrupt.STANDARD, *corrupt.EXTRA) == corrupt.KINDS
        assert corrupt.EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
        assert set(DRAWN) | set(FIXED) == set(corrupt.KINDS)
        assert not set(DRAWN) & set(FIXED)

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_constants_are_those_of_the_authors(self, kind):
        rows = [tuple(row.values()) for row in corrupt.SEVERITIES[kind]]
        theirs = [row if isinstance(row, tuple) else (row,) for row in AUTHORS[kind]]
        assert np.allclose(rows, theirs, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_each_kind_is_a_function_of_its_own(self, kind):
        function = getattr(corrupt, kind)
        assert function is {**suite._DRAWN, **suite._FIXED}[kind]
        assert ("generator" in inspect.signature(function).parameters) == (kind in DRAWN)

    def test_constants_cannot_be_changed(self):
        with pytest.raises(TypeError):
            corrupt.SEVERITIES["fog"][0]["decay"] = 9
        row = corrupt.find_constants("fog", 1)
        row["decay"] = 9
        assert corrupt.find_constants("fog", 1)["decay"] == 3


class TestForm:
    @pytest.mark.parametrize(("kind", "severity"), SETS)
    @given(data=st.data())
    @settings(max_examples=3, deadline=None)
    def test_shape_type_and_purity(self, kind, severity, data):
        height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        lead = data.draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]))
        seed = data.draw(st.integers(0, 10**6))
        shape = (*lead, 3, height, width)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=make_generator(seed))
        before = images.clone()
        result = run(images, kind, severity, seed)
        assert result.shape == images.shape
        assert result.dtype == torch.uint8
        assert torch.equal(images, before), "the input was written to"
        assert not len(images) or result.data_ptr() != images.data_ptr()

    @pytest.mark.parametrize(("kind", "severity"), SETS)
    def test_something_changes(self, kind, severity, photographs):
        result = run(photographs[:6], kind, severity)
        assert (result != photographs[:6]).flatten(1).any(1).all()

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    @pytest.mark.parametrize("level", [0, 255])
    def test_black_and_white_pictures(self, kind, level):
        images = torch.full((2, 3, 16, 16), level, dtype=torch.uint8)
        assert run(images, kind, 5).shape == images.shape

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_strided_images_give_the_same(self, kind, photographs):
        images = photographs[:3].flip(-1)[..., ::2, 1::2]
        strided = photographs[:3].flip(-1).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert torch.equal(run(strided[..., ::2, 1::2], kind, 3), run(images.contiguous(), kind, 3))

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_larger_pictures(self, kind):
        images = torch.stack(list(data.photographs(size_px=96).values()))[:2]
        assert 5 < psnr_db(images, kind, 3) < 45

    @pytest.mark.parametrize("kind", FIXED)
    def test_without_draws_a_batch_is_treated_like_its_images(self, kind, photographs):
        batch = photographs[:6]
        alone = torch.stack([run(image, kind, 4) for image in batch])
        assert torch.equal(run(batch, kind, 4), alone)

    @pytest.mark.parametrize("kind", ["fog", "contrast", "jpeg_compression"])
    def test_work_in_parts_leaves_no_image_out(self, kind, photographs, monkeypatch):
        whole = run(photographs[:7], kind, 2)
        monkeypatch.setattr(suite, "_PART_PX", 2 * 32 * 32)
        parts = run(photographs[:7], kind, 2)
        assert parts.shape == whole.shape
        if kind in FIXED:
            assert torch.equal(parts, whole)
        assert psnr_db(photographs[6:7], kind, 2) > 15


class TestDraws:
    @pytest.mark.parametrize("kind", DRAWN)
    def test_same_generator_same_pixels(self, kind, photographs):
        images = photographs[:6]
        assert torch.equal(run(images, kind, 3, seed=5), run(images, kind, 3, seed=5))
        assert not torch.equal(run(images, kind, 3, seed=5), run(images, kind, 3, seed=6))

    @pytest.mark.parametrize("kind", DRAWN)
    def test_the_generator_moves_on(self, kind, photographs):
        generator = make_generator(0)
        first, second = (
            corrupt.corrupt(photographs[:2], kind, 3, generator=generator) for _ in "ab"
        )
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("kind", FIXED)
    def test_kinds_without_draws_leave_the_generator_alone(self, kind, photographs):
        generator = make_generator(0)
        before = generator.get_state()
        corrupt.corrupt(photographs[:2], kind, 3, generator=generator)
        assert torch.equal(before, generator.get_state())

    @pytest.mark.parametrize("kind", DRAWN)
    def test_each_image_gets_its_own_draws(self, kind, photographs):
        same = photographs[:1].expand(4, -1, -1, -1)
        results = run(same, kind, 5)
        assert len({image.numpy().tobytes() for image in results}) == 4

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_no_global_random_state_is_touched(self, kind, photographs):
        before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
        run(photographs[:2], kind, 5)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (str(np.random.get_state()), random.getstate())

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_global_random_state_has_no_influence(self, kind, photographs):
        first = run(photographs[:2], kind, 5)
        with torch.random.fork_rng():
            torch.manual_seed(123)
            assert torch.equal(first, run(photographs[:2], kind, 5))


class TestStrength:
    @pytest.mark.parametrize("kind", ORDERED)
    def test_severities_are_in_order(self, kind, photographs):
        values = [psnr_db(photographs, kind, severity) for severity in range(1, 6)]
        slack = 0.2 if kind == "motion_blur" else 0.0
        assert all(a > b - slack for a, b in itertools.pairwise(values)), values
        assert values[0] - values[-1] > 3

    def test_saturate_is_not_in_order(self, photographs):
        """1 and 2 take colour away, 3 to 5 add some: 3 is the mildest."""
        values = [psnr_db(photographs, "saturate", severity) for severity in range(1, 6)]
        assert max(values) == values[2]

    def test_gaussian_noise_has_its_standard_deviation(self):
        grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
        noise = (run(grey, "gaussian_noise", 3).float() - 127.5) / 255
        assert abs(float(noise.mean())) < 5 * 0.08 / grey.numel() ** 0.5
        assert float(noise.std()) == pytest.approx(0.08, rel=0.02)

    def test_shot_and_speckle_noise_grow_with_the_value(self):
        for level in (64, 191):
            images = torch.full((20, 3, 32, 32), level, dtype=torch.uint8)
            shot = float(run(images, "shot_noise", 2).float().std() / 255)
            speckle = float(run(images, "speckle_noise", 1).float().std() / 255)
            assert shot == pytest.approx((level / 255 / 250) ** 0.5, rel=0.03)
            assert speckle == pytest.approx(level / 255 * 0.06, rel=0.03)

    def test_contrast_and_brightness_by_hand(self):
        image = torch.tensor([100, 200], dtype=torch.uint8).expand(3, 1, 2)
        assert run(image, "contrast", 2)[0].tolist() == [[125, 175]]
        assert run(image, "brightness", 4)[0].tolist() == [[151, 251]]
        assert run(image, "brightness", 5)[0].tolist() == [[176, 255]]

    def test_brightness_of_black_is_grey(self):
        black = torch.zeros(3, 1, 1, dtype=torch.uint8)
        assert run(black, "brightness", 4).flatten().tolist() == [51, 51, 51]

    def test_saturate_turns_grey_reddish(self):
        """By convention grey has the hue of red; so have the published files."""
        grey = torch.full((3, 1, 1), 200, dtype=torch.uint8)
        assert run(grey, "saturate", 3).flatten().tolist() == [200, 200, 200]
        assert run(grey, "saturate", 5).flatten().tolist() == [200, 160, 160]

    def test_directions_of_motion_differ_and_keep_their_range(self):
        """A dot in the middle is smeared within the cone of directions, never outside."""
        dot = torch.zeros(50, 3, 33, 33, dtype=torch.uint8)
        dot[:, :, 16, 16] = 255
        lit = run(dot, "motion_blur", 5)[:, 0].amax(0) > 0
        rows, columns = lit.nonzero().T - 16
        # colours are fetched from the right, so the smear goes to the left
        assert (columns <= 0).all()
        assert (rows.abs() <= columns.abs()).all()
        assert len(set(rows.tolist())) > 5


class TestFrost:
    def test_pictures_are_the_same_each_time_and_not_all_alike(self):
        pictures = corrupt.frost_pictures(64)
        corrupt.frost_pictures.cache_clear()
        assert torch.equal(pictures, corrupt.frost_pictures(64))
        assert len({picture.numpy().tobytes() for picture in pictures}) == 5

    def test_brightness_and_roughness_are_near_the_photographs(self):
        """Photographs, at a fifth of their size: mean 78-214, standard deviation 15-48."""
        pictures = corrupt.frost_pictures(128).double()
        assert ((pictures.mean((2, 3)) > 60) & (pictures.mean((2, 3)) < 225)).all()
        assert ((pictures.std((2, 3)) > 8) & (pictures.std((2, 3)) < 50)).all()
        assert (pictures[:, 2].mean((1, 2)) > pictures[:, 0].mean((1, 2))).all()  # bluish

    def test_frost_is_added_with_its_weight(self):
        black = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
        windows = corrupt.frost_pictures(128).double().mean()
        for severity in (1, 5):
            share = corrupt.find_constants("frost", severity)["frost_share"]
            mean = run(black, "frost", severity).double().mean()
            assert float(mean) == pytest.approx(share * float(windows), rel=0.15)

    @pytest.mark.parametrize(
        ("value", "error"), [(3, ValueError), (9000, ValueError), (8.0, TypeError)]
    )
    def test_bad_size(self, value, error):
        with pytest.raises(error, match=rf"side_px must be an integer in \[4, 8192\], got {value}"):
            corrupt.frost_pictures(value)


class TestBadInput:
    IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)

    @pytest.mark.parametrize("kind", ["rain", "Fog", "", None, 3, ["fog"]])
    def test_unknown_kind_lists_the_kinds(self, kind):
        with pytest.raises(ValueError, match="kind must be one of") as caught:
            run(self.IMAGE, kind, 1)
        assert all(repr(known) in str(caught.value) for known in corrupt.KINDS)
        assert str(caught.value).endswith(f"got {kind!r}")

    @pytest.mark.parametrize(
        ("severity", "error"),
        [(0, ValueError), (6, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)],
    )
    def test_bad_severity(self, severity, error):
        with pytest.raises(
            error, match=rf"severity must be an integer in \[1, 5\], got {severity}"
        ):
            run(self.IMAGE, "fog", severity)

    @pytest.mark.parametrize("kind", corrupt.KINDS)
    def test_bad_images(self, kind):
        constants = corrupt.find_constants(kind, 1)
        draws = {"generator": make_generator(0)} if kind in DRAWN else {}

        def alone(images):
            return getattr(corrupt, kind)(images, **constants, **draws)

        for function in (alone, lambda images: run(images, kind, 1)):
            with pytest.raises(TypeError, match=r"images must be a uint8 tensor.*float32"):
                function(torch.rand(3, 8, 8))
            with pytest.raises(TypeError, match="got ndarray"):
                function(np.zeros((3, 8, 8), dtype=np.uint8))
            with pytest.raises(ValueError, match=r"got shape \(8, 8, 3\)"):
                function(torch.zeros(8, 8, 3, dtype=torch.uint8))
            with pytest.raises(ValueError, match=r"got shape \(1, 8, 8\); repeat a grey channel"):
                function(torch.zeros(1, 8, 8, dtype=torch.uint8))

    @pytest.mark.parametrize("generator", [None, 0, np.random.default_rng(0)])
    @pytest.mark.parametrize("kind", DRAWN)
    def test_bad_generator(self, kind, generator):
        constants = corrupt.find_constants(kind, 1)
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got "):
            getattr(corrupt, kind)(self.IMAGE, **constants, generator=generator)

    def test_the_entrance_wants_a_generator_for_all_kinds(self):
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got NoneType"):
            corrupt.corrupt(self.IMAGE, "contrast", 1, generator=None)

    @pytest.mark.parametrize(
        ("kind", "name", "value"),
        [
            (kind, name, value)
            for kind in corrupt.KINDS
            for name in corrupt.SEVERITIES[kind][0]
            for value in (float("nan"), "1", True)
        ],
    )
    def test_bad_constants(self, kind, name, value):
        constants = {**corrupt.SEVERITIES[kind][0], name: value}
        draws = {"generator": make_generator(0)} if kind in DRAWN else {}
        with pytest.raises((TypeError, ValueError), match=rf"{name} must be .*got {value!r}"):
            getattr(corrupt, kind)(self.IMAGE, **constants, **draws)
