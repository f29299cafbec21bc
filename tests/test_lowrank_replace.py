"""Splits in a network: names, numbers, files, training; and the original left as it was."""

from __future__ import annotations

import copy

import pytest
import safetensors.torch
import torch
from torch import nn

from rac_helpers import metrics, train
from rac_helpers.data import synth_digits
from rac_helpers.lowrank import (
    ChannelSplit,
    LayerSplit,
    LinearSplit,
    SpatialSplit,
    TuckerSplit,
    factorize,
    fuse_all,
    ranks_for_share,
    splits_of,
    splittable,
)
from rac_helpers.lowrank.replace import split_for
from rac_helpers.models import ResNet, SmallCNN
from rac_helpers.rng import make_generator

SPLITS = [ChannelSplit, SpatialSplit, TuckerSplit]
IMAGE = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def images(n=4) -> torch.Tensor:
    return torch.randint(256, (n, 3, 32, 32), generator=make_generator(0), dtype=torch.uint8)


@pytest.fixture
def model() -> nn.Module:
    return ResNet(8, width=4).eval()


# -- in place of layers ---------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_full_rank_gives_the_outputs_of_the_network(model, split):
    ranks = {n: split_for(one, split).ranks(one)[-1] for n, one in splittable(model).items()}
    small = factorize(model, ranks, split=split)
    torch.testing.assert_close(small(images()), model(images()), rtol=0, atol=1e-5)
    assert list(splits_of(small)) == list(splittable(model))


@pytest.mark.parametrize("split", SPLITS)
def test_fused_computes_the_same_and_fits_into_the_original(model, split):
    small = factorize(model, ranks_for_share(model, 0.5, split=split), split=split)
    whole = fuse_all(small)
    torch.testing.assert_close(whole(images()), small(images()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole(images()), model(images()), atol=1e-2)
    model.load_state_dict(whole.state_dict())  # strict: same names, same shapes
    torch.testing.assert_close(model(images()), whole(images()), rtol=0, atol=0)


def test_only_the_named_layers_are_split(model):
    small = factorize(model, {"stage2.0.conv1": 3, "classifier": 2}, split=SpatialSplit)
    assert {name: type(one) for name, one in splits_of(small).items()} == {
        "stage2.0.conv1": SpatialSplit,
        "classifier": LinearSplit,
    }
    assert {name: one.rank for name, one in splits_of(small).items()} == {
        "stage2.0.conv1": 3,
        "classifier": 2,
    }
    before, after = model.state_dict(), small.state_dict()
    gone = {"stage2.0.conv1.weight", "classifier.weight", "classifier.bias"}
    new = {f"{n}.{p}.weight" for n in ("stage2.0.conv1", "classifier") for p in ("first", "last")}
    assert before.keys() - after.keys() == gone
    assert after.keys() - before.keys() == new | {"classifier.last.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_nothing_to_split_is_a_copy(model):
    same = factorize(model, {})
    assert same is not model
    assert torch.equal(same(images()), model(images()))


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_not_changed_and_the_mode_is_kept(model, mode):
    model.train(mode)
    before, text = copy.deepcopy(model.state_dict()), repr(model)
    small = factorize(model, ranks_for_share(model, 0.5))
    whole = fuse_all(small)
    with torch.no_grad():
        for value in (*small.parameters(), *whole.parameters()):
            value.zero_()
    assert repr(model) == text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for one in (small, whole):
        assert {module.training for module in one.modules()} == {mode}


def test_a_split_is_not_split_again(model):
    small = factorize(model, {"classifier": 2})
    assert "classifier" not in splittable(small)
    assert not any(name.startswith("classifier") for name in splittable(small))
    assert "classifier" in splittable(fuse_all(small))
    with pytest.raises(ValueError, match=r"ranks must name layers .* got classifier\.first"):
        factorize(small, {"classifier.first": 1})


def test_subclasses_of_splits_can_be_used(model):
    class Iterated(TuckerSplit):
        def __init__(self, layer, rank):
            super().__init__(layer, rank, iterations=2)

    small = factorize(model, {"stage1.0.conv1": (2, 3)}, split=Iterated)
    assert isinstance(small.stage1[0].conv1, Iterated)


# -- numbers, files, training ---------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_parameters_work_and_bytes_are_counted(model, split):
    layers = {"stage1.0.conv1": 16, "stage3.0.conv1": 8}  # by the side of their outputs
    pixels = {"stage1.0.conv1": 32 * 32, "stage3.0.conv1": 8 * 8}
    ranks = ranks_for_share(model, 0.5, split=split, layers=layers)
    small = factorize(model, ranks, split=split)
    saved = macs = 0
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        part = split.count_weights(layer, rank)
        saved += layer.weight.numel() - part
        if name == "stage1.0.conv1":  # stride 1: each weight looks at each pixel
            macs += (layer.weight.numel() - part) * pixels[name]
    assert saved > 0
    assert metrics.count_params(model) - metrics.count_params(small) == saved
    only_first = factorize(model, {"stage1.0.conv1": ranks["stage1.0.conv1"]}, split=split)
    assert metrics.count_macs(model, IMAGE) - metrics.count_macs(only_first, IMAGE) == macs
    by_layer = metrics.macs_by_layer(small, IMAGE)
    assert {f"stage3.0.conv1.{part}" for part in split.growth(ranks["stage3.0.conv1"])} <= set(
        by_layer
    )
    header = 2000  # names and shapes
    saved_bytes = metrics.size_bytes(model) - metrics.size_bytes(small)
    assert 4 * saved - header < saved_bytes <= 4 * saved


def test_macs_of_a_stride_by_hand():
    """Down the columns first: that layer still has all the columns to look at."""
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False))
    example = torch.zeros(1, 4, 8, 8)
    macs = {
        split: metrics.count_macs(factorize(model, {"0": rank}, split=split), example)
        for split, rank in ((ChannelSplit, 2), (SpatialSplit, 2), (TuckerSplit, (2, 3)))
    }
    assert macs[ChannelSplit] == 16 * (2 * 36 + 6 * 2)
    assert macs[SpatialSplit] == 4 * 8 * (2 * 4 * 3) + 16 * (6 * 2 * 3)
    assert macs[TuckerSplit] == 64 * (2 * 4) + 16 * (3 * 2 * 9) + 16 * (6 * 3)


@pytest.mark.parametrize("split", SPLITS)
def test_saved_and_loaded_with_safetensors(model, split, tmp_path):
    ranks = ranks_for_share(model, 0.3, split=split)
    small = factorize(model, ranks, split=split)
    file = tmp_path / "small.safetensors"
    safetensors.torch.save_file(small.state_dict(), file)
    assert file.stat().st_size == metrics.size_bytes(small)
    other = factorize(ResNet(8, width=4, seed=1).eval(), ranks, split=split)
    other.load_state_dict(safetensors.torch.load_file(file))
    assert torch.equal(other(images()), small(images()))


def test_fine_tuning_is_the_ordinary_training():
    data = synth_digits(60, 20, 20)
    model = SmallCNN(width=4)
    small = factorize(model, ranks_for_share(model, 0.5))
    before = copy.deepcopy(small.state_dict())
    history = train.fit(small, data.train, data.validation, epochs=2, batch_size=20, lr=0.05)
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["train_loss"] < history[0]["train_loss"]
    for name, one in splits_of(small).items():
        for part in ("first", "last"):
            weight = getattr(one, part).weight
            assert not torch.equal(weight, before[f"{name}.{part}.weight"])
    torch.testing.assert_close(
        fuse_all(small)(data.test.images), small(data.test.images), rtol=1e-3, atol=1e-4
    )


def test_other_tools_see_plain_layers(model):
    """torch.fx looks into a split, so that what works on layers works on its parts."""
    small = factorize(model, {"stage1.0.conv1": 2})
    graph = torch.fx.symbolic_trace(small.stage1)
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    assert {"0.conv1.first", "0.conv1.last"} <= targets


# -- what is refused ------------------------------------------------------------------------------


def test_which_layers_can_be_split():
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 4),
            "own": Own(4, 4),
            "depthwise": nn.Conv2d(4, 4, 3, groups=4),
            "conv1d": nn.Conv1d(4, 4, 3),
            "attention": nn.MultiheadAttention(4, 1),  # reads its weights itself
            "inner": nn.Sequential(nn.Conv2d(4, 4, 3)),
        }
    )
    assert list(splittable(model)) == ["linear", "inner.0"]
    with pytest.raises(ValueError, match="model must have at least one Linear or Conv2d to split"):
        splittable(nn.Linear(4, 4))  # it has no place to put a split


@pytest.mark.parametrize("function", [splittable, splits_of, fuse_all, lambda m: factorize(m, {})])
def test_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got dict"):
        function({})


def test_nothing_to_fuse_is_refused(model):
    with pytest.raises(ValueError, match="model must have at least one split, got none"):
        fuse_all(model)


@pytest.mark.parametrize(
    ("ranks", "error", "message"),
    [
        (
            {"stem": 2},
            ValueError,
            r"ranks must name layers that can be split \(stem\.0, .*got stem",
        ),
        ({"conv9": 2}, ValueError, "got conv9"),
        ({3: 2}, ValueError, "got 3"),
        ({"stem.0": 5}, ValueError, r"rank must be an integer in \[1, 4\], got 5"),
        ({"stem.0": (2, 2)}, TypeError, "rank must be an integer"),
        ([("stem.0", 2)], TypeError, "ranks must be a mapping of names to ranks, got list"),
    ],
)
def test_wrong_ranks(model, ranks, error, message):
    with pytest.raises(error, match=message):
        factorize(model, ranks)


@pytest.mark.parametrize(
    "split", [nn.Conv2d, LayerSplit, "channel", ChannelSplit(nn.Conv2d(2, 2, 1), 1)]
)
def test_wrong_splits(model, split):
    with pytest.raises(TypeError, match="split must be a split such as ChannelSplit, got"):
        factorize(model, {"stem.0": 2}, split=split)


def test_shared_weights_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"must not share weights.*\['0\.weight', '1\.weight'\]"):
        factorize(model, {"0": 1})
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="must not share weights"):
        splittable(nn.Sequential(layer, nn.ReLU(), layer))
