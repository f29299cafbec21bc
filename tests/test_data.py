"""Data sets made here or found in wheels: what they hold, that they repeat, their checks."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from rac_helpers import data
from rac_helpers.data import base, synth

SMALL = {"num_train": 200, "num_validation": 50, "num_test": 50}


def keys(images):
    """One hashable value for each image."""
    return [image.numpy().tobytes() for image in images]


def tiny_split(n=2, px=8, classes=2):
    images = torch.arange(n * 3 * px * px).remainder(256).to(torch.uint8).view(n, 3, px, px)
    return data.Split(images, torch.arange(n) % classes)


class TestSynthDigits:
    def test_shapes_types_and_balance(self):
        digits = data.synth_digits(**SMALL)
        assert digits.classes == tuple("0123456789")
        for split, count in zip(digits.splits().values(), (200, 50, 50), strict=True):
            assert split.images.shape == (count, 3, 32, 32)
            assert split.images.dtype == torch.uint8
            assert split.labels.bincount().tolist() == [count // 10] * 10

    def test_no_image_is_in_two_splits(self):
        digits = data.synth_digits(**SMALL)
        every = [key for split in digits.splits().values() for key in keys(split.images)]
        assert len(set(every)) == len(every) == 300

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**63 - 1), short=st.integers(1, 12), extra=st.integers(1, 12))
    def test_same_seed_is_the_same_data_and_a_longer_split_begins_alike(self, seed, short, extra):
        first = data.synth_digits(short, 1, 1, seed=seed)
        second = data.synth_digits(short + extra, 2, 3, seed=seed)
        for a, b in zip(first.splits().values(), second.splits().values(), strict=True):
            assert torch.equal(a.images, b.images[: len(a.images)])
            assert torch.equal(a.labels, b.labels[: len(a.labels)])

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**62))
    def test_other_seed_is_other_data(self, seed):
        first, second = (data.synth_digits(5, 1, 1, seed=s) for s in (seed, seed + 1))
        assert not set(keys(first.train.images)) & set(keys(second.train.images))

    def test_another_process_draws_the_same(self):
        code = (
            "import hashlib; from rac_helpers import data\n"
            "images = data.synth_digits(50, 1, 1, seed=3).train.images\n"
            "print(hashlib.sha256(images.numpy().tobytes()).hexdigest())"
        )
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
            for _ in range(2)
        ]
        assert len({run.stdout for run in runs}) == 1
        assert len(runs[0].stdout.strip()) == 64

    def test_global_random_state_is_left_alone(self):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        data.synth_digits(10, 1, 1)
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])

    def test_difficulty_lowers_contrast_and_raises_noise(self):
        easy, middle, hard = (synth._ranges(value) for value in (0, 0.5, 1))
        assert easy["contrast"][1] > middle["contrast"][1] > hard["contrast"][1]
        assert easy["noise"][1] < middle["noise"][1] < hard["noise"][1]
        for ranges in (easy, middle, hard):
            assert all(low <= high for low, high in ranges.values())

    def test_pixels_alone_do_not_tell_the_digit(self):
        """Taking the label of the nearest training image is wrong more often than right."""
        digits = data.synth_digits(1000, 10, 300)
        train, test = (split.images.flatten(1).float() for split in (digits.train, digits.test))
        nearest = torch.cdist(test, train).argmin(1)
        accuracy = (digits.train.labels[nearest] == digits.test.labels).float().mean()
        assert 0.1 < accuracy < 0.6

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_neighbours_never_cover_the_digit_in_the_centre(self, choose):
        ranges = synth._ranges(0.5)
        scene = {name: choose.draw(st.integers(*span), name) for name, span in ranges.items()}
        scene |= {"angle_deg": 0}  # turning is the same for both masks
        label = choose.draw(st.integers(0, 9))
        digit, neighbours = synth._masks(label, scene)
        left, _, right, _ = digit.getbbox()
        assert left <= 15 < right + 2  # its box holds the centre, but for a shift of 2 px
        columns = np.asarray(neighbours).any(axis=0).nonzero()[0]
        assert not ((columns >= left) & (columns < right)).any()

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"num_train": 0}, ValueError, "num_train must be an integer >= 1, got 0"),
            ({"num_test": 2.5}, TypeError, "num_test must be an integer >= 1, got 2.5"),
            ({"seed": -1}, ValueError, "seed must be an integer in .*, got -1"),
            ({"difficulty": 1.5}, ValueError, r"difficulty .* in \[0, 1\], got 1.5"),
            ({"difficulty": float("nan")}, ValueError, "difficulty .* got nan"),
            ({"difficulty": "hard"}, TypeError, "difficulty .* got 'hard'"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            data.synth_digits(**arguments)

    def test_missing_matplotlib_is_named(self, monkeypatch):
        monkeypatch.setattr(synth, "find_spec", lambda name: None)
        with pytest.raises(FileNotFoundError, match="install matplotlib"):
            synth.font_folder()

    def test_progress_bar_writes_to_stderr_only_when_asked(self, capsys):
        data.synth_digits(5, 1, 1, progress=True)
        assert "synth_digits: 100%" in capsys.readouterr().err
        data.synth_digits(5, 1, 1, progress=False)
        assert capsys.readouterr().err == ""


class TestFonts:
    """Which fonts hold digits is found out here from their pictures, not from their names."""

    @staticmethod
    def likeness(font):
        """Mean correlation of the ten glyphs with the mean of those of FONTS; 0 for a blank."""
        face = ImageFont.truetype(
            str(synth.font_folder() / f"{font}.ttf"), 48, layout_engine=ImageFont.Layout.BASIC
        )
        glyphs = []
        for digit in "0123456789":
            canvas = Image.new("L", (96, 96))
            ImageDraw.Draw(canvas).text((24, 12), digit, font=face, fill=255)
            box = canvas.getbbox()
            glyphs.append(np.asarray((canvas.crop(box) if box else canvas).resize((16, 24)), float))
        return np.stack(glyphs).reshape(10, -1)

    def test_the_list_holds_exactly_the_fonts_that_draw_digits(self):
        fonts = sorted(path.stem for path in synth.font_folder().glob("*.ttf"))
        glyphs = {font: self.likeness(font) for font in fonts}
        mean = np.mean([glyphs[font] for font in synth.FONTS], axis=0)
        alike = {font for font in fonts if self.right_digits(glyphs[font], mean) >= 8}
        assert alike - {"cmmi10"} == set(synth.FONTS)  # cmmi10: old-style digits, left out
        assert len(set(synth.FONTS)) == len(synth.FONTS) == 21

    @staticmethod
    def right_digits(glyphs, mean):
        """How many of ten glyphs are most like the mean picture of their own digit."""
        if (glyphs.std(axis=1) == 0).any():
            return 0
        return int((np.corrcoef(glyphs, mean)[:10, 10:].argmax(axis=1) == np.arange(10)).sum())

    def test_symbol_fonts_would_have_been_a_trap(self):
        """These draw something for each digit, but not the digit."""
        for font in ("cmsy10", "cmex10", "LastResortHE-Regular"):
            assert (self.likeness(font).std(axis=1) > 0).all()
            assert font not in synth.FONTS

    @pytest.mark.parametrize("font", synth.FONTS)
    def test_ten_different_digits(self, font):
        glyphs = [synth._glyph(font, digit, 20) for digit in range(10)]
        assert len({glyph.tobytes() for glyph in glyphs}) == 10
        assert all(glyph.height == 20 and 2 <= glyph.width <= 24 for glyph in glyphs)


class TestDigits:
    def test_splits(self):
        digits = data.digits()
        total = torch.cat([split.labels for split in digits.splits().values()])
        assert len(total) == 1797
        assert digits.train.images.shape[1:] == (3, 32, 32)
        train, validation, test = (set(keys(s.images)) for s in digits.splits().values())
        assert train.isdisjoint(validation | test)
        assert validation.isdisjoint(test)

    def test_enlarged_images_show_the_small_ones(self):
        from sklearn.datasets import load_digits

        small = load_digits().images
        digits = data.digits(seed=1)
        images = torch.cat([split.images for split in digits.splits().values()]).float()
        assert images.max() == 255
        assert images.mean().item() / 255 * 16 == pytest.approx(small.mean(), abs=0.05)

    def test_seed_chooses_the_split(self):
        first, again, other = data.digits(seed=1), data.digits(seed=1), data.digits(seed=2)
        assert torch.equal(first.test.images, again.test.images)
        assert not torch.equal(first.test.images, other.test.images)


class TestPhotographs:
    def test_real_colour_pictures(self):
        pictures = data.photographs()
        assert len(pictures) == 6
        for picture in pictures.values():
            assert picture.shape == (3, 128, 128)
            assert picture.dtype == torch.uint8
            assert picture.float().std() > 30
            assert (picture[0] != picture[2]).any()

    def test_centre_square_is_not_squeezed(self):
        """The flower is 640x427: its centre square is what a plain crop gives."""
        with Image.open(data.known._file_in_package(*data.known._PHOTOGRAPHS["flower"])) as full:
            width, height = full.size
            left = (width - height) / 2
            square = full.crop((round(left), 0, round(left) + height, height)).resize((64, 64))
        ours = data.photographs(size_px=64)["flower"].permute(1, 2, 0).numpy().astype(float)
        assert np.abs(ours - np.asarray(square, float)).mean() < 6

    @pytest.mark.parametrize("size", [7, 513])
    def test_size_out_of_range(self, size):
        with pytest.raises(ValueError, match=rf"size_px must be .* got {size}"):
            data.photographs(size_px=size)

    def test_missing_package_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"'x\.jpg' of the package 'no_such_package'"):
            data.known._file_in_package("no_such_package", "x.jpg")


class TestSplitPositions:
    @settings(max_examples=200, deadline=None)
    @given(
        labels=st.lists(st.integers(0, 3), min_size=40, max_size=120),
        validation=st.one_of(st.integers(1, 8), st.floats(0.02, 0.2)),
        test=st.one_of(st.integers(1, 8), st.floats(0.02, 0.2)),
        seed=st.integers(0, 2**63 - 1),
    )
    def test_parts_cover_everything_once_in_proportion(self, labels, validation, test, seed):
        labels = torch.tensor([*labels, *[0, 1, 2, 3] * 10])
        asked = {"held_out": [("validation", validation), ("test", test)], "names": "abcd"}
        parts = base.split_positions(labels, **asked, seed=seed)
        assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
        for part, size in zip(parts[1:], (validation, test), strict=True):
            count = size if isinstance(size, int) else max(1, round(size * len(labels)))
            assert len(part) == count
            share = labels.bincount(minlength=4) * count / len(labels)
            assert (labels[part].bincount(minlength=4) - share).abs().max() < 2
        again = base.split_positions(labels, **asked, seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))

    @pytest.mark.parametrize(
        ("size", "error", "message"),
        [
            (0, ValueError, r"validation must be an integer in \[1, 19\], got 0"),
            (20, ValueError, r"validation must be an integer in \[1, 19\], got 20"),
            (19, ValueError, "validation=19 leaves no training image of class 'a'|'b'"),
            (0.0, ValueError, r"validation must be a share in \(0, 1\)"),
            (1.0, ValueError, r"validation must be a share in \(0, 1\)"),
            (float("nan"), ValueError, "validation .* got nan"),
            ("5000", TypeError, "validation .* got '5000'"),
        ],
    )
    def test_bad_sizes(self, size, error, message):
        labels = torch.tensor([0, 1] * 10)
        with pytest.raises(error, match=message):
            base.split_positions(labels, held_out=[("validation", size)], names="ab", seed=0)

    def test_negative_seed(self):
        with pytest.raises(ValueError, match=r"seed must be .* got -1"):
            base.split_positions(torch.zeros(4).long(), held_out=[("t", 1)], names="a", seed=-1)


class TestDataset:
    @pytest.mark.parametrize(
        ("split", "error", "message"),
        [
            (tiny_split()._replace(images=torch.rand(2, 3, 8, 8)), TypeError, "bad.test.images"),
            (tiny_split()._replace(images=tiny_split().images[0]), ValueError, r"\(n, 3, H, W\)"),
            (tiny_split()._replace(labels=torch.tensor([0, 2])), ValueError, "got 2 at position 1"),
            (tiny_split()._replace(labels=torch.tensor([0])), ValueError, "2 images and 1 labels"),
            (tiny_split(n=0), ValueError, "bad.test must hold at least one image"),
            (tiny_split(px=9), ValueError, "images of one size"),
        ],
    )
    def test_bad_split(self, split, error, message):
        with pytest.raises(error, match=message):
            data.Dataset("bad", ("a", "b"), tiny_split(), tiny_split(), split)

    @pytest.mark.parametrize("classes", [(), ("a", "a")])
    def test_bad_classes(self, classes):
        with pytest.raises(ValueError, match="classes must be one or more different names"):
            data.Dataset("bad", classes, tiny_split(), tiny_split(), tiny_split())


def test_import_loads_no_plotting_and_no_big_package():
    code = (
        "import sys; from rac_helpers import data, models; data.synth_digits(2, 1, 1)\n"
        "heavy = {'matplotlib', 'ipywidgets', 'sklearn', 'skimage', 'torchvision', 'pandas'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
