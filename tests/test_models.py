"""Networks: sizes as published, shortcuts without parameters, weights that are checked."""

import hashlib
import json
import shutil
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments import shipped_weights
from rac_helpers import data, models, train

BUILDERS = [models.SmallCNN, models.resnet20, models.resnet56]
IMAGE = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def some_images(n=4, px=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, px, px), generator=generator, dtype=torch.uint8)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


class TestSizes:
    def test_resnet56_has_the_published_size(self):
        model = models.resnet56().eval()
        assert count(model) == 853_018
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(IMAGE)
        macs = counter.get_total_flops() / 2
        assert round(macs / 1e6, 1) == 125.5

    def test_resnet20(self):
        assert count(models.resnet20()) == 269_722  # "0.27M" in table 6 of the paper

    @pytest.mark.parametrize("depth", [8, 20, 56])
    def test_depth_counts_the_layers_with_weights(self, depth):
        model = models.ResNet(depth, width=2)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth

    def test_small_cnn(self):
        width = 16
        convs = 9 * (3 * width + width * 2 * width + 2 * width * 4 * width)
        norms = 2 * (width + 2 * width + 4 * width)
        assert count(models.SmallCNN(width=width)) == convs + norms + 4 * width * 10 + 10


class TestForward:
    @pytest.mark.parametrize("build", BUILDERS)
    @pytest.mark.parametrize("px", [32, 28, 33])
    def test_logits(self, build, px):
        logits = build(num_classes=7, width=4)(some_images(px=px))
        assert logits.shape == (4, 7)
        assert logits.isfinite().all()

    @pytest.mark.parametrize("build", BUILDERS)
    def test_bytes_and_fractions_are_the_same_image(self, build):
        model = build(width=4).eval()
        images = some_images()
        torch.testing.assert_close(model(images), model(images / 255))

    def test_normalize_rejects_whole_numbers(self):
        with pytest.raises(TypeError, match=r"uint8 or floats in \[0, 1\], got torch.int64"):
            models.Normalize()(torch.zeros(1, 3, 4, 4, dtype=torch.int64))

    def test_normalize_rejects_a_zero_spread(self):
        with pytest.raises(ValueError, match="std must be a number > 0, got 0"):
            models.Normalize(std=0)

    def test_shortcut_takes_every_second_pixel_and_adds_zeros(self):
        block = models.BasicBlock(4, 8, stride=2).eval()
        nn.init.zeros_(block.bn2.weight)  # nothing comes through the convolutions
        x = torch.rand(2, 4, 6, 6)
        expected = torch.zeros(2, 8, 3, 3)
        expected[:, 2:6] = x[:, :, ::2, ::2]
        torch.testing.assert_close(block(x), expected)

    def test_block_matches_the_formula(self):
        block = models.BasicBlock(4, 4, stride=1).eval()
        x = torch.randn(2, 4, 5, 5)
        inner = F.relu(block.bn1(block.conv1(x)))
        torch.testing.assert_close(block(x), F.relu(block.bn2(block.conv2(inner)) + x))

    @pytest.mark.parametrize("build", BUILDERS)
    def test_each_relu_is_used_once(self, build):
        """One object used twice breaks quantization by export."""
        model, calls = build(width=4).eval(), []
        for name, module in model.named_modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
        model(IMAGE)
        assert len(calls) == len(set(calls)) > 2

    @pytest.mark.parametrize("build", [models.SmallCNN, models.resnet20])
    def test_export_keeps_the_answers(self, build):
        model, images = build(width=4).eval(), some_images(2)
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model(images))


class TestSeed:
    @pytest.mark.parametrize("build", BUILDERS)
    def test_same_seed_same_weights_and_global_state_left_alone(self, build):
        before = torch.get_rng_state()
        first, again, other = (build(width=4, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(before, torch.get_rng_state())
        for a, b in zip(first.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(next(first.parameters()), next(other.parameters()))

    def test_convolutions_keep_the_scale_of_the_signal(self):
        weight = models.resnet20(width=64).stage1[0].conv1.weight
        assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: models.ResNet(21), ValueError, r"depth must be 6 k \+ 2 .* got 21"),
        (lambda: models.ResNet(2), ValueError, "depth must be an integer >= 8, got 2"),
        (lambda: models.resnet20(num_classes=1), ValueError, "num_classes .* >= 2, got 1"),
        (lambda: models.resnet20(width=0), ValueError, "width .* >= 1, got 0"),
        (lambda: models.SmallCNN(width=1.5), TypeError, "width .* got 1.5"),
        (
            lambda: models.BasicBlock(8, 4, 1),
            ValueError,
            "out_channels must be >= in_channels 8, got 4",
        ),
        (lambda: models.BasicBlock(0, 4, 1), ValueError, "in_channels .* got 0"),
        (lambda: models.BasicBlock(4, 4, 0), ValueError, "stride .* got 0"),
        (lambda: models.Normalize(mean=float("nan")), ValueError, "mean must be .* got nan"),
        (lambda: models.Normalize(mean=float("inf")), ValueError, "mean must be .* got inf"),
        (lambda: models.Normalize(std=float("nan")), ValueError, "std must be .* got nan"),
        (lambda: models.Normalize(std=float("inf")), ValueError, "std must be .* got inf"),
        (lambda: models.Normalize(std=-1.0), ValueError, "std must be .* got -1"),
        (lambda: models.Normalize(std="1"), TypeError, "std must be .* got '1'"),
        (lambda: models.SmallCNN(seed=-1), ValueError, "seed .* got -1"),
    ],
)
def test_bad_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()


NAMES = ["small_cnn-synth_digits", "resnet20-synth_digits"]


@pytest.fixture
def copied_weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(models.WEIGHTS_FOLDER, folder)
    monkeypatch.setattr(models.shipped, "WEIGHTS_FOLDER", folder)
    return folder


class TestShippedWeights:
    @pytest.mark.parametrize("name", NAMES)
    def test_score_is_the_catalogue_s(self, name):
        """Scored on a quarter of the test images; 4 standard errors apart at most."""
        model = models.load_weights(name)
        assert not model.training
        digits = data.synth_digits(1, 1, 500)
        claimed = models.catalogue().loc[name, "test accuracy"]
        margin = 4 * (claimed * (1 - claimed) / 500) ** 0.5
        assert train.evaluate(model, digits.test)["accuracy"] == pytest.approx(claimed, abs=margin)

    @pytest.mark.parametrize("name", NAMES)
    def test_table_says_what_is_shipped(self, name):
        row = models.catalogue().loc[name]
        file = models.WEIGHTS_FOLDER / f"{name}.safetensors"
        assert row["size (bytes)"] == file.stat().st_size <= 2_000_000
        assert row["seeds"] >= 3
        assert row["command"].startswith("python experiments/shipped_weights.py")
        assert 0 < row["standard deviation"] < 0.05

    def test_every_file_is_in_the_catalogue(self):
        files = {file.stem for file in models.WEIGHTS_FOLDER.glob("*.safetensors")}
        assert files == set(models.catalogue().index) == set(NAMES)

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"name must be one of \['resnet20.*got 'vgg'"):
            models.load_weights("vgg")

    def test_one_changed_bit(self, copied_weights):
        file = copied_weights / f"{NAMES[0]}.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"damaged file .*{NAMES[0]}.safetensors.*SHA-256"):
            models.load_weights(NAMES[0])

    def test_missing_file(self, copied_weights):
        (copied_weights / f"{NAMES[0]}.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=f"missing file .*{NAMES[0]}.safetensors"):
            models.load_weights(NAMES[0])

    def test_missing_or_damaged_catalogue(self, copied_weights):
        file = copied_weights / "catalogue.json"
        file.write_text("{")
        with pytest.raises(ValueError, match=r"damaged catalogue .*catalogue\.json"):
            models.catalogue()
        file.unlink()
        with pytest.raises(FileNotFoundError, match=r"missing catalogue .*catalogue\.json"):
            models.catalogue()


class TestScript:
    """experiments/shipped_weights.py, on a tiny recipe."""

    @pytest.fixture
    def ship(self, tmp_path):
        recipe = shipped_weights.Recipe(
            "small_cnn",
            epochs=1,
            arguments={"num_classes": 10, "width": 2},
            images={"num_train": 40, "num_validation": 10, "num_test": 20},
        )
        folders = {"weights": tmp_path / "weights", "checkpoints": tmp_path / "checkpoints"}
        return lambda name: shipped_weights.ship(name, recipe, seeds=(0, 1, 2), **folders)

    def test_what_it_writes_can_be_loaded(self, ship, tmp_path, monkeypatch):
        entries = {name: ship(name) for name in ("b", "a")}
        monkeypatch.setattr(models.shipped, "WEIGHTS_FOLDER", tmp_path / "weights")
        assert list(models.catalogue().index) == ["a", "b"]
        model = models.load_weights("a")
        test = data.synth_digits(40, 10, 20).test
        scored = train.evaluate(model, test)["accuracy"]
        assert scored == entries["a"]["scores"]["test_accuracy"]

    def test_second_run_resumes_and_ends_with_the_same_bytes(self, ship, tmp_path):
        first = ship("a")
        assert len(list((tmp_path / "checkpoints").iterdir())) == 3
        assert ship("a") == first
        content = (tmp_path / "weights" / "a.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == first["sha256"]

    def test_shipped_entries_are_of_the_present_recipes(self):
        entries = json.loads((models.WEIGHTS_FOLDER / "catalogue.json").read_text(encoding="utf-8"))
        for name, recipe in shipped_weights.RECIPES.items():
            assert entries[name]["recipe"] == asdict(recipe)

    def test_bad_arguments(self, capsys):
        with pytest.raises(ValueError, match=r"architecture must be one of .* got 'vgg'"):
            shipped_weights.Recipe("vgg", epochs=1)
        with pytest.raises(SystemExit):
            shipped_weights.main(["--seeds", "2"])
        assert "--seeds must be at least 3, got 2" in capsys.readouterr().err
