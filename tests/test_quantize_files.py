"""Stored models compute what they should, are as small as claimed, and files are checked."""

from __future__ import annotations

import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from rac_helpers import metrics, models
from rac_helpers.quantize import (
    affine_params,
    fake_quantize,
    quantize,
    split_groups,
    symmetric_params,
)
from rac_helpers.quantize import files as files_module
from rac_helpers.quantize.decoding import StoredConv2d, StoredLinear
from rac_helpers.quantize.fake import DynamicQuantizer, FakeQuantizer, LearnedQuantizer
from rac_helpers.quantize.files import bytes_by_kind, load, save
from rac_helpers.quantize.fold import fold_batch_norm
from rac_helpers.quantize.packed import AffineWeight, CodebookWeight, SignWeight
from rac_helpers.quantize.stored import (
    ABOUT,
    DIGEST_BYTES,
    store,
    stored_layers,
    trained_params,
)
from rac_helpers.rng import make_generator, scoped_seed

BOTH = pytest.mark.parametrize("huffman", [False, True])
IMAGES = torch.randint(256, (3, 3, 16, 16), generator=make_generator(0), dtype=torch.uint8)


def per_channel(layer: nn.Module, bits: int):
    return symmetric_params(layer.weight.detach().abs().flatten(1).amax(dim=1), bits, axis=0)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def all_stored(model: nn.Module, bits: int = 4) -> nn.Module:
    return store(
        model, {name: per_channel(layer, bits) for name, layer in layers_of(model).items()}
    )


def small_cnn(**settings) -> nn.Module:
    return models.SmallCNN(width=4, **settings).eval()


def mixed() -> tuple[nn.Module, nn.Module]:
    """A network with each form of a weight, and inputs of each kind; float and stored."""
    model = small_cnn()
    layers = layers_of(model)
    layers["block2.0"].input_quantizer = FakeQuantizer(affine_params(0.0, 2.0, 4, signed=False))
    layers["block3.0"].input_quantizer = DynamicQuantizer(bits=8, signed=False)
    layers["classifier"].input_quantizer = nn.Identity()
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    groups = split_groups(weights["block2.0"], 12).abs().amax(dim=1)
    codes = weights["block3.0"].sign().to(torch.int8)
    factors = weights["classifier"].abs().mean(dim=1)
    codings = {
        "block1.0": affine_params(-0.1, 0.4, 5),
        "block2.0": symmetric_params(groups, 3, axis=0),
        "block3.0": CodebookWeight(codes + 1, torch.tensor([-0.2, 0.0, 0.3])),
        "classifier": SignWeight(torch.where(weights["classifier"] > 0, 1, -1), factors),
    }
    return model, store(model, codings)


class Shared(nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Linear(8, 8)
        self.tied, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.tied.weight

    def forward(self, x):
        return self.other(self.tied(self.again(self.first(x))))


# --- layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1, "bias": False},
        {"padding": "same", "dilation": 2},
        {"groups": 2, "padding": (0, 2)},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": (2, 1), "padding_mode": "circular"},
    ],
)
def test_a_stored_convolution_is_the_convolution_with_rounded_weights(settings):
    with scoped_seed(0):
        layer = nn.Conv2d(4, 6, 3, **settings)
    x = torch.randn(2, 4, 9, 8, generator=make_generator(1))
    params = per_channel(layer, 4)
    small = StoredConv2d(layer, AffineWeight(quantize(layer.weight, params), params))
    with torch.no_grad():
        layer.weight.copy_(fake_quantize(layer.weight, params))
    assert torch.equal(small(x), layer(x))
    assert small.extra_repr() == layer.extra_repr()


def test_a_stored_model_is_the_model_with_rounded_weights_and_inputs():
    model, small = mixed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = small_cnn()
    for name, layer in stored_layers(small).items():
        rounded = expected.get_submodule(name)
        rounded.weight.data = layer.weight
        rounded.register_forward_pre_hook(
            lambda _, args, layer=layer: layer.input_quantizer(args[0])
        )
    assert torch.equal(small(IMAGES), expected(IMAGES))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.block1[0], nn.Conv2d)
    assert not isinstance(model.block1[0], StoredConv2d)


def test_no_float_weight_is_left():
    small = all_stored(small_cnn())
    floats = [name for name, v in small.named_parameters() if v.ndim > 1]
    floats += [name for name, v in small.named_buffers() if v.is_floating_point() and v.ndim > 1]
    assert floats == []
    assert not any(module.training for module in small.modules())


def test_multiply_accumulates_are_counted_as_before():
    model = small_cnn()
    assert metrics.count_macs(all_stored(model), IMAGES[:1]) == metrics.count_macs(
        model, IMAGES[:1]
    )


def test_a_learned_range_is_fixed():
    layer = nn.Linear(4, 2)
    layer.input_quantizer = LearnedQuantizer(symmetric_params(1.0, 4))
    layer.input_quantizer.scale.data.fill_(0.5)
    layer.weight_quantizer = LearnedQuantizer(symmetric_params(torch.ones(2), 2, axis=0))
    small = store(layer, {"": trained_params(layer)[""]})
    assert isinstance(small, StoredLinear)
    assert type(small.input_quantizer) is FakeQuantizer
    assert small.input_quantizer.scale.item() == 0.5
    assert torch.equal(small.weight, layer.weight_quantizer(layer.weight))


# --- sizes ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("make", [lambda: mixed()[1], lambda: all_stored(small_cnn(), 8)])
def test_the_file_is_as_long_as_the_ledger_says(tmp_path, make, huffman):
    small = make()
    written = save(small, tmp_path / "small", huffman=huffman)
    assert written == os.path.getsize(tmp_path / "small")
    assert written == sum(bytes_by_kind(tmp_path / "small").values())
    if not huffman:
        assert written == metrics.size_bytes(small)


@pytest.mark.parametrize(("bits", "ratio"), [(8, 3.7), (4, 6.5)])
def test_resnet20_is_as_many_times_smaller(tmp_path, bits, ratio):
    """With scales, biases, fixed input ranges, description and header."""
    model = models.load_weights("resnet20-synth_digits")
    folded = fold_batch_norm(model, IMAGES[:1])
    float_bytes = min(metrics.size_bytes(model), metrics.size_bytes(folded))
    for layer in layers_of(folded).values():
        layer.input_quantizer = FakeQuantizer(affine_params(0.0, 3.0, bits, signed=False))
    written = save(all_stored(folded, bits), tmp_path / "small")
    assert float_bytes / written >= ratio
    compressed = save(all_stored(folded, bits), tmp_path / "small", huffman=True)
    assert compressed < written
    assert torch.equal(load(tmp_path / "small", folded)(IMAGES), all_stored(folded, bits)(IMAGES))


def test_the_bytes_of_each_kind_are_those_counted_by_hand(tmp_path):
    layer = nn.Linear(30, 20)
    save(all_stored(layer, 4), tmp_path / "small")
    found = bytes_by_kind(tmp_path / "small")
    assert (found["codes"], found["scales"], found["bias"]) == (300, 80, 80)
    assert found["other"] == found["codebooks"] == 0
    save(mixed()[1], tmp_path / "small")
    found = bytes_by_kind(tmp_path / "small")
    assert found["codebooks"] == 12
    normalize, batch_norms = 8, 4 * 4 * (4 + 8 + 16) + 3 * 8
    assert found["other"] == normalize + batch_norms
    assert found["bias"] == 4 * 10


def test_huffman_is_used_only_where_it_helps(tmp_path):
    with scoped_seed(0):
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(200, 50))
    small = all_stored(model, 8)
    model[1].weight.data.mul_(torch.rand(50, 200, generator=make_generator(0)) < 0.3)
    small = all_stored(model, 8)
    assert save(small, tmp_path / "small", huffman=True) < metrics.size_bytes(small) - 5000
    about = safetensors.torch.load_file(tmp_path / "small")[ABOUT]
    assert json.loads(about[DIGEST_BYTES:].numpy().tobytes())["huffman"] == ["1"]


# --- there and back -------------------------------------------------------------------------


@BOTH
def test_a_loaded_model_is_the_stored_one(tmp_path, huffman):
    _, small = mixed()
    save(small, tmp_path / "small", huffman=huffman)
    fresh = small_cnn(seed=1).train()
    loaded = load(tmp_path / "small", fresh)
    assert loaded.state_dict().keys() == small.state_dict().keys()
    for name, value in small.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype
    assert torch.equal(loaded(IMAGES), small(IMAGES))
    assert not any(module.training for module in loaded.modules())
    assert fresh.training
    assert stored_layers(fresh) == {}
    assert save(loaded, tmp_path / "again") == metrics.size_bytes(small)
    assert load(tmp_path / "again", small_cnn())(IMAGES).equal(small(IMAGES))


def test_a_second_save_gives_the_same_bytes(tmp_path):
    _, small = mixed()
    save(small, tmp_path / "a")
    save(small, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]  # nothing half-written is left


@BOTH
@pytest.mark.parametrize("names", [["first"], ["again"], ["first", "tied"], ["other"]])
def test_layers_that_are_used_twice(tmp_path, names, huffman):
    model = Shared()
    x = torch.randn(5, 8, generator=make_generator(0))
    first = dict(model.named_modules())
    if "again" in names:  # named_modules() knows a layer by its first name only
        with pytest.raises(ValueError, match="'again': no such layer"):
            store(model, {"again": per_channel(model.again, 4)})
        return
    small = store(model, {name: per_channel(first[name], 4) for name in names})
    assert small.first is small.again
    assert save(small, tmp_path / "small") == metrics.size_bytes(small)
    save(small, tmp_path / "small", huffman=huffman)
    assert torch.equal(load(tmp_path / "small", Shared())(x), small(x))


@BOTH
def test_a_model_that_is_one_layer(tmp_path, huffman):
    small = store(nn.Linear(40, 30), {"": affine_params(-0.1, 0.3, 4)})
    save(small, tmp_path / "small", huffman=huffman)
    assert torch.equal(load(tmp_path / "small", nn.Linear(40, 30)).weight, small.weight)


# --- what is refused ------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    save(store(nn.Linear(6, 3), {"": symmetric_params(0.5, 4)}), tmp_path / "small")
    return tmp_path / "small"


def test_every_flipped_bit_is_noticed(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << (place * 5 % 8)
        file.write_bytes(bytes(wrong))
        with pytest.raises(ValueError, match="path must be a"):
            load(file, nn.Linear(6, 3))


def test_another_type_of_the_same_bytes_is_noticed(file):
    state = safetensors.torch.load_file(file)
    for change in (lambda v: v.view(torch.int32), lambda v: v.reshape(1, -1)):
        safetensors.torch.save_file(state | {"bias": change(state["bias"])}, file)
        with pytest.raises(ValueError, match="its SHA-256 is wrong"):
            load(file, nn.Linear(6, 3))


def test_every_truncated_file_is_noticed(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged or of another format"):
            load(file, nn.Linear(6, 3))
    file.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged or of another format"):
        load(file, nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(6, 3)), "no Conv2d or Linear ''"),
        (nn.Conv2d(6, 3, 1), r"packed must have the shape of the weight, \(3, 6, 1, 1\)"),
        (nn.Linear(3, 6), r"shape of the weight, \(6, 3\), got \(3, 6\)"),
        (nn.Linear(6, 3, bias=False), "differing names: bias"),
    ],
)
def test_another_network_is_refused(file, model, message):
    with pytest.raises(ValueError, match=rf"model must be of the architecture in .*{message}"):
        load(file, model)


def test_other_shapes_beside_the_stored_layers_are_refused(tmp_path):
    def network(channels: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(channels))

    save(store(network(4), {"0": symmetric_params(1.0, 4)}), tmp_path / "small")
    with pytest.raises(ValueError, match=r"1.weight is \(5,\), torch.float32 in the model and"):
        load(tmp_path / "small", network(5))


def test_a_float_file_and_another_format_are_refused(tmp_path, file, monkeypatch):
    safetensors.torch.save_file(nn.Linear(6, 3).state_dict(), tmp_path / "float")
    with pytest.raises(ValueError, match="does not describe itself"):
        load(tmp_path / "float", nn.Linear(6, 3))
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="damaged or of another format"):
        load(tmp_path / "text", nn.Linear(6, 3))
    monkeypatch.setattr(files_module, "FORMAT", "rac-quantized-2")
    with pytest.raises(ValueError, match=r"of format 'rac-quantized-2', got .*'rac-quantized-1'"):
        load(file, nn.Linear(6, 3))


@pytest.mark.parametrize("read", [lambda p: load(p, nn.Linear(2, 2)), bytes_by_kind])
def test_a_missing_file_is_named(tmp_path, read):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, file, monkeypatch):
    before = file.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(mixed()[1], file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["small"]


def unknown_input() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.input_quantizer = nn.ReLU()
    return layer


PARAMS = symmetric_params(1.0, 4)
LINEAR = nn.Linear(2, 2)
SIGNS = SignWeight(torch.ones(2, 3, dtype=torch.int8), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: store("net", {"": PARAMS}), TypeError, "model must be a torch.nn.Module, got str"),
        (lambda: store(LINEAR, {}), ValueError, "codings must name at least one layer"),
        (lambda: store(LINEAR, 4), ValueError, "codings must name at least one layer, got 4"),
        (lambda: store(LINEAR, {"fc": PARAMS}), ValueError, "got 'fc': no such layer"),
        (lambda: store(nn.ReLU(), {"": PARAMS}), ValueError, "got '': ReLU"),
        (lambda: store(LINEAR, {"": 4}), TypeError, "params must be QParams, got int"),
        (lambda: store(LINEAR, {"": SIGNS}), ValueError, r"\(2, 2\), got \(2, 3\)"),
        (
            lambda: store(LINEAR, {"": symmetric_params(torch.ones(3), 4, axis=0)}),
            ValueError,
            "got 3 along axis 0",
        ),
        (lambda: store(mixed()[1], {"block1.0": PARAMS}), ValueError, "is it stored already"),
        (lambda: store(unknown_input(), {"": PARAMS}), TypeError, "Identity, got ReLU"),
        (lambda: StoredLinear(nn.ReLU(), SIGNS), TypeError, "layer must be a Linear, got ReLU"),
        (lambda: StoredConv2d(LINEAR, SIGNS), TypeError, "layer must be a Conv2d, got Linear"),
        (lambda: StoredLinear(LINEAR, nn.ReLU()), TypeError, "SignWeight, got ReLU"),
        (lambda: save({}, "never"), TypeError, "model must be a torch.nn.Module, got dict"),
        (lambda: save(LINEAR, "never"), ValueError, r"model must be one from store\(\)"),
        (lambda: load("never", {}), TypeError, "model must be a torch.nn.Module, got dict"),
        (lambda: load("never", mixed()[1]), ValueError, "must be a float network, got a stored"),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
