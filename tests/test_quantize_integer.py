"""Arithmetic, layers and whole networks with integers only, against floats."""

from __future__ import annotations

import copy
import operator
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rac_helpers.data import synth_digits
from rac_helpers.metrics import accuracy
from rac_helpers.models import Normalize, ResNet, SmallCNN, load_weights
from rac_helpers.quantize import (
    QParams,
    affine_params,
    dequantize,
    fixed_point_params,
    quantize,
    symmetric_params,
)
from rac_helpers.quantize import integer as integer_module
from rac_helpers.quantize import integer_layers as layers_module
from rac_helpers.quantize.fold import fold_batch_norm
from rac_helpers.quantize.integer import (
    IntegerAdd,
    IntegerMean,
    IntegerModule,
    IntegerTable,
    centre,
)
from rac_helpers.quantize.integer_layers import IntegerConv2d, IntegerLayer, IntegerLinear
from rac_helpers.quantize.integer_network import integer_network
from rac_helpers.quantize.rescale import fixed_multiplier, rescale, shift_right

UNIT = affine_params(0, 255, signed=False)


class NoFloats(TorchDispatchMode):
    """Raise if an operation takes or returns floats."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
            if tensor or isinstance(value, float):
                raise AssertionError(f"{func} works with floats")
        return result


def draw(shape, seed: int, *, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape).uniform_(low, high, generator=generator)


def draw_codes(shape, params: QParams, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        params.qmin, params.qmax + 1, shape, generator=generator, dtype=torch.int32
    ).to(quantize(torch.zeros(1), params).dtype)


def filled(layer: nn.Module, seed: int) -> nn.Module:
    """Draw the weights, smaller in some channels than in others."""
    with torch.no_grad():
        layer.weight.copy_(draw(layer.weight.shape, seed))
        factors = draw((len(layer.weight),), seed + 1, low=0.05)
        layer.weight.mul_(factors.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.copy_(draw(layer.bias.shape, seed + 2))
    return layer


def weight_params(layer: nn.Module, bits: int = 8, *, per_channel: bool = True) -> QParams:
    bound = layer.weight.detach().abs()
    if per_channel:
        return symmetric_params(bound.flatten(1).amax(dim=1), bits, axis=0)
    return symmetric_params(bound.max(), bits)


def reference(layer: nn.Module, codes: torch.Tensor, inputs: QParams, weights: QParams):
    """Compute with floats, in double precision, what codes stand for."""
    layer = copy.deepcopy(layer).double()
    layer.weight.data = dequantize(quantize(layer.weight.float(), weights), weights).double()
    with torch.no_grad():
        return layer(dequantize(codes, inputs).double()).float()


# ------------------------------------------------------------------------------- multiply, shift


@settings(max_examples=300, deadline=None)
@given(st.floats(2.0**-32, 2.0**29, exclude_max=True))
def test_multiplier_is_as_close_as_31_bits_allow(ratio):
    multiplier, shift = (int(value) for value in fixed_multiplier(ratio))
    assert 2**30 <= multiplier < 2**31
    assert 1 <= shift <= 62
    assert abs(Fraction(multiplier, 2**shift) / Fraction(ratio) - 1) <= Fraction(1, 2**31)


def test_multiplier_of_tiny_and_of_nearly_full_ratios():
    assert [int(v) for v in fixed_multiplier(2.0**-40)] == [2**22, 62]
    assert [int(v) for v in fixed_multiplier(1e-300)] == [0, 62]
    assert [int(v) for v in fixed_multiplier(1 - 2.0**-40)] == [2**30, 30]  # rounded up to 1
    multiplier, shift = fixed_multiplier(torch.tensor([0.25, 3.0]))
    assert (multiplier.dtype, shift.dtype) == (torch.int32, torch.uint8)
    assert (multiplier / 2.0 ** shift.double()).tolist() == [0.25, 3.0]


@pytest.mark.parametrize("ratio", [0.0, -1.0, 2.0**29, float("nan"), float("inf")])
def test_multiplier_refuses(ratio):
    with pytest.raises(ValueError, match=r"ratio must be > 0 and < 2 \*\* 29, got"):
        fixed_multiplier(ratio)


@settings(max_examples=300, deadline=None)
@given(value=st.integers(-(2**31), 2**31 - 1), ratio=st.floats(2.0**-40, 2.0**28))
def test_rescale_is_exact_arithmetic(value, ratio):
    multiplier, shift = fixed_multiplier(ratio)
    found = int(rescale(torch.tensor([value], dtype=torch.int32), multiplier, shift))
    exact = Fraction(value * int(multiplier), 2 ** int(shift))
    assert found == (exact + Fraction(1, 2)).__floor__()  # halves go up, no overflow anywhere


def test_rescale_refuses_other_types():
    multiplier, shift = fixed_multiplier(0.5)
    with pytest.raises(TypeError, match=r"values must be a tensor of int32, got torch.int64"):
        rescale(torch.tensor([1]), multiplier, shift)
    with pytest.raises(TypeError, match=r"multiplier must be a tensor of int32, got float"):
        rescale(torch.tensor([1], dtype=torch.int32), 0.5, shift)


# ------------------------------------------------------------------------------------------ layers


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    low=st.floats(-3, 0),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "same"]),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_convolution_equals_floats_within_one_code(
    seed, low, stride, padding, dilation, groups, options
):
    relu, bias, per_channel, signed = options
    stride = 1 if padding == "same" else stride
    layer = nn.Conv2d(4, 8, 3, stride, padding, dilation, groups, bias=bias)
    filled(layer, seed)
    inputs = affine_params(low, 1.0 + (low == 0), signed=signed)
    codes = draw_codes((2, 4, 7, 6), inputs, seed + 3)
    weights = weight_params(layer, per_channel=per_channel)
    expected = reference(layer, codes, inputs, weights)
    expected = expected.relu() if relu else expected
    outputs = affine_params(expected.min(), expected.max(), signed=not relu)
    integer = IntegerConv2d(layer, inputs=inputs, weights=weights, outputs=outputs, relu=relu)
    with NoFloats():
        found = integer(codes)
    target = quantize(expected, outputs)
    assert found.dtype == target.dtype
    assert (found.int() - target.int()).abs().max() <= 1
    if bias is False:  # then only ties and the last bit of the multiplier differ
        assert (found == target).float().mean() > 0.99


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.integers(2, 8), low=st.floats(-3, 0))
def test_linear_equals_floats_within_one_code(seed, bits, low):
    layer = filled(nn.Linear(20, 6), seed)
    inputs = affine_params(low, 1.0, bits, signed=False)
    codes = draw_codes((5, 20), inputs, seed)
    weights = weight_params(layer, bits)
    expected = reference(layer, codes, inputs, weights)
    outputs = affine_params(expected.min(), expected.max(), signed=False)
    integer = IntegerLinear(layer, inputs=inputs, weights=weights, outputs=outputs)
    with NoFloats():
        found = integer(codes)
    step = inputs.scale * weights.scale.max() / outputs.scale  # of the bias, in output codes
    assert (found.int() - quantize(expected, outputs).int()).abs().max() <= int(step / 2 + 1)


def test_sums_and_bias_are_exactly_those_of_python():
    layer = filled(nn.Conv2d(2, 3, 2), 5)
    inputs, weights = affine_params(-1.0, 2.0), weight_params(layer)
    conv = IntegerConv2d(layer, inputs=inputs, weights=weights, outputs=affine_params(-9, 9))
    codes = draw_codes((1, 2, 2, 2), inputs, 6)
    zero = int(inputs.zero_point)
    for channel in range(3):
        q_w = quantize(layer.weight, weights)[channel].flatten().tolist()
        q_x = codes.flatten().tolist()
        total = sum((x - zero) * w for x, w in zip(q_x, q_w, strict=True))
        step = inputs.scale.double() * weights.scale[channel].double()
        total += round(layer.bias[channel].item() / step.item())
        found = conv.accumulate(centre(codes, inputs))[0, channel] + conv.bias[channel]
        assert found.dtype == torch.int32
        assert int(found) == total


def test_padding_is_the_value_zero_not_the_code_zero():
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(layer.weight)
    inputs = affine_params(-1.0, 1.0, signed=False)  # 0.0 has the code 128
    conv = IntegerConv2d(layer, inputs=inputs, weights=symmetric_params(1.0), outputs=inputs)
    zeros = torch.full((1, 1, 3, 3), int(inputs.zero_point), dtype=torch.uint8)
    assert torch.equal(conv(zeros), zeros)


def test_relu_is_the_clamp():
    layer = filled(nn.Linear(4, 4), 0)
    inputs, outputs = affine_params(-1.0, 1.0), affine_params(-2.0, 2.0)
    make = {"inputs": inputs, "weights": weight_params(layer), "outputs": outputs}
    codes = draw_codes((50, 4), inputs, 1)
    plain, clamped = (IntegerLinear(layer, **make, relu=relu)(codes) for relu in (False, True))
    assert torch.equal(clamped, plain.clamp(min=int(outputs.zero_point)))
    assert not torch.equal(clamped, plain)


def test_layer_does_not_change_or_share_its_arguments():
    layer = filled(nn.Linear(4, 2), 0)
    before = copy.deepcopy(layer.state_dict())
    made = IntegerLinear(layer, inputs=UNIT, weights=weight_params(layer), outputs=UNIT)
    expected = made(codes := draw_codes((3, 4), UNIT, 0))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    layer.weight.data.zero_()
    assert torch.equal(made(codes), expected)
    assert torch.equal(codes, draw_codes((3, 4), UNIT, 0))


def test_sums_that_could_overflow_are_refused_and_those_just_below_are_right():
    layer = nn.Linear(1024, 1, bias=False)
    nn.init.ones_(layer.weight)
    wide = affine_params(0, 65535.0, 16, signed=False)
    outputs = affine_params(0, 2.0**31, signed=False)
    make = {"inputs": wide, "weights": symmetric_params(32.0, 7), "outputs": outputs}
    with pytest.raises(ValueError, match="at most 2147483647, got up to"):
        IntegerLinear(layer, **make | {"weights": symmetric_params(1.0, 7)})
    worst = torch.full((1, 1024), 65535, dtype=torch.int32)
    made = IntegerLinear(layer, **make)  # codes of 1024 weights: 63 / 32, rounded to 2
    sums = made.accumulate(centre(worst, wide))
    assert int(sums) == 1024 * 65535 * 2
    big = nn.Linear(1, 1)
    nn.init.constant_(big.bias, 1e9)
    with pytest.raises(ValueError, match="use fewer bits or larger scales"):
        IntegerLinear(big, inputs=UNIT, weights=symmetric_params(0.01), outputs=UNIT)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer": nn.Linear(1, 1)}, TypeError, "layer must be a Conv2d, got Linear"),
        ({"layer": nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")}, ValueError,
         "padded with zeros, got 'circular'"),
        ({"inputs": 3}, TypeError, "inputs must be QParams, got int"),
        ({"outputs": symmetric_params(torch.ones(2), axis=0)}, ValueError,
         "outputs must have one scale for all, got axis 0"),
        ({"weights": None}, TypeError, "weights must be QParams, got NoneType"),
        ({"weights": UNIT.__class__(UNIT.scale, UNIT.zero_point + 1, 0, 255)}, ValueError,
         "weights must have zero point 0"),
        ({"weights": symmetric_params(torch.ones(1), axis=1)}, ValueError, "axis None or 0"),
        ({"weights": symmetric_params(torch.ones(2), axis=0)}, RuntimeError, "expanded size"),
    ],
)  # fmt: skip
def test_convolution_refuses(change, error, message):
    arguments = {"inputs": UNIT, "weights": symmetric_params(1.0), "outputs": UNIT} | change
    with pytest.raises(error) as caught:
        IntegerConv2d(arguments.pop("layer", nn.Conv2d(1, 1, 1)), **arguments)
    assert message in str(caught.value)


def test_codes_of_another_type_are_refused():
    made = IntegerMean(UNIT, UNIT, count=1)
    with pytest.raises(TypeError, match=r"codes must be a tensor of torch.uint8, got torch.int8"):
        made(torch.zeros(1, 1, 1, 1, dtype=torch.int8))
    with pytest.raises(TypeError, match=r"codes must be a tensor of torch.uint8, got list"):
        centre([1], UNIT)
    layer = nn.Linear(1, 1)
    base = IntegerLayer.__new__(IntegerLayer)
    with pytest.raises(NotImplementedError):
        IntegerLayer.accumulate(base, layer.weight)


# ---------------------------------------------------------------------------- add, mean, table


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ends=st.tuples(*[st.floats(0.01, 50)] * 3),
    lows=st.tuples(*[st.floats(0, 50)] * 3),
    relu=st.booleans(),
)
def test_addition_equals_floats_within_one_code(seed, ends, lows, relu):
    one, other, outputs = (
        affine_params(-low, end, signed=False) for low, end in zip(lows, ends, strict=True)
    )
    first, second = draw_codes((200,), one, seed), draw_codes((200,), other, seed + 1)
    exact = dequantize(first, one).double() + dequantize(second, other).double()
    expected = quantize((exact.relu() if relu else exact).float(), outputs)
    add = IntegerAdd(one, other, outputs, relu=relu)
    with NoFloats():
        found = add(first, second)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found == expected).float().mean() > 0.9  # ties only, and what floats round twice


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(-3, 0), side=st.integers(1, 9))
def test_mean_equals_floats_within_one_code(seed, low, side):
    inputs, outputs = affine_params(low, 1.0, signed=False), affine_params(low / 2, 0.5)
    codes = draw_codes((3, 4, side, side), inputs, seed)
    expected = quantize(dequantize(codes, inputs).double().mean(dim=(2, 3)).float(), outputs)
    mean = IntegerMean(inputs, outputs, side * side)
    with NoFloats():
        found = mean(codes)
    assert found.dtype == torch.int8
    assert (found.int() - expected.int()).abs().max() <= 1


def test_mean_refuses():
    with pytest.raises(ValueError, match=r"count must be an integer in \[1, 8421504\], got 0"):
        IntegerMean(UNIT, UNIT, count=0)
    with pytest.raises(ValueError, match=r"in \[1, 8421504\], got 8421505"):  # 255 * count
        IntegerMean(UNIT, UNIT, count=8421505)
    mean = IntegerMean(UNIT, UNIT, count=4)
    for shape in ((1, 1, 3, 3), (1, 2, 2)):
        with pytest.raises(ValueError, match=r"codes must have 4 dimensions, H \* W = 4, got"):
            mean(torch.zeros(shape, dtype=torch.uint8))


def test_table_is_the_function_of_every_byte():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    values = Normalize()(images.flatten())
    params = affine_params(-2.0, 2.0, signed=False)
    table = IntegerTable(values, params)
    with NoFloats():
        found = table(images)
    assert torch.equal(found, quantize(Normalize()(images), params))
    with pytest.raises(TypeError, match=r"images must be uint8, got torch.float32"):
        table(images / 255)
    for wrong in (values[:3], 4):
        with pytest.raises(ValueError, match=r"values must be a tensor of shape \(256,\), got"):
            IntegerTable(wrong, params)


# ------------------------------------------------------------------------------- whole networks


@pytest.fixture(scope="module")
def digits():
    return synth_digits(num_train=200, num_validation=1, num_test=2000, seed=0, progress=False)


@pytest.mark.parametrize(
    ("name", "count"), [("small_cnn-synth_digits", 2000), ("resnet20-synth_digits", 400)]
)
def test_accuracy_of_shipped_networks_is_kept(digits, name, count):
    folded = fold_batch_norm(load_weights(name), digits.train[0][:2])
    network = integer_network(folded, digits.train[0][:200])
    test = digits.test[0][:count], digits.test[1][:count]
    assert abs(accuracy(network, test) - accuracy(folded, test)) <= 0.005
    with NoFloats():
        logits = network(test[0][:50])
    assert logits.dtype == torch.int16
    with torch.no_grad():
        expected = folded(test[0][:50])
    error = (dequantize(logits, network.outputs) - expected).abs().mean()
    assert error < 0.03 * expected.abs().mean() + 0.2
    state = network.state_dict().values()
    assert not any(value.is_floating_point() for value in state)
    assert not list(network.parameters())


def grey(count: int = 12, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


class Net(nn.Module):
    """Normalize, convolution, and a forward pass that is handed over."""

    def __init__(self, forward, **parts: nn.Module) -> None:
        super().__init__()
        self.normalize, self.run = Normalize(), forward
        self.conv = filled(nn.Conv2d(3, 4, 3, padding=1), 0)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)

    def values(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.normalize(x))


@pytest.mark.parametrize(
    "net",
    [
        Net(lambda m, x: F.relu(m.values(x))),
        Net(lambda m, x: torch.relu(m.values(x)).flatten(1)),
        Net(lambda m, x: (y := m.values(x)) + y.relu()),  # a ReLU of its own
        Net(lambda m, x: torch.add(y := m.values(x), F.pad(y[:, ::2], (0, 0, 0, 0, 1, 1)))),
        Net(lambda m, x: m.drop(m.none(m.pool(m.act(m.values(x))))), pool=nn.MaxPool2d(3, 1, 1),
            act=nn.ReLU(inplace=True), drop=nn.Dropout(), none=nn.Identity()),
        Net(lambda m, x: torch.mean(m.values(x), [2, 3])),
        Net(lambda m, x: m.conv(m.act(m.normalize(x))), act=nn.ReLU()),
        Net(lambda m, x: operator.iadd(m.values(x), m.conv2(m.normalize(x))),
            conv2=filled(nn.Conv2d(3, 4, 1), 4)),
        Net(lambda m, x: m.values(x).mean(dim=(-2, -1)).relu()),
        Net(lambda m, x: m.two(torch.flatten(m.one(m.values(x)), 1)), one=nn.Conv2d(4, 4, 1),
            two=filled(nn.Linear(256, 5), 2)),
        Net(lambda m, x: m.none(m.conv2(m.conv2(m.conv2(m.normalize(x))))), none=nn.Identity(),
            conv2=filled(nn.Conv2d(3, 3, 1, bias=False), 3)),
    ],
)  # fmt: skip
def test_each_known_operation_computes_what_floats_do(net):
    images = grey()
    network = integer_network(net, images, bits=8, weight_bits=8, batch_size=5)
    with NoFloats():
        codes = network(images)
    with torch.no_grad():
        expected = net.eval()(images)
    error = (dequantize(codes, network.outputs) - expected).abs().max()
    assert codes.shape == expected.shape
    assert error <= 0.04 * (expected.max() - expected.min())


@pytest.mark.parametrize("make", [lambda: SmallCNN(width=4), lambda: ResNet(8, width=4)])
def test_more_bits_are_closer_and_the_model_stays_as_it_was(make):
    model = fold_batch_norm(make(), grey()).train()
    before = copy.deepcopy(model.state_dict())
    images, errors = grey(), []
    for bits in (4, 6, 8, 10):
        network = integer_network(model, images, bits=bits, weight_bits=bits)
        logits = dequantize(network(images), network.outputs)
        errors.append((logits - model(images)).abs().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 16
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_channel_without_weights_keeps_its_bias():
    net = Net(lambda m, x: m.values(x))
    net.conv.weight.data[1] = 1e-12
    net.conv.weight.data[2] = 0
    net.conv.bias.data[1:3] = torch.tensor([0.5, -0.75])
    network = integer_network(net, grey())
    found = dequantize(network(grey()), network.outputs)
    for channel, value in {1: 0.5, 2: -0.75}.items():
        assert (found[:, channel] - value).abs().max() <= network.outputs.scale


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Net(lambda m, x: m.conv(x / 255)), "operations known here, got truediv"),
        (Net(lambda m, x: m.act(m.values(x)), act=nn.GELU()), "known here, got GELU"),
        (Net(lambda m, x: m.norm(m.values(x)), norm=nn.BatchNorm2d(4)), "got BatchNorm2d"),
        (Net(lambda m, x: m.values(x).softmax(1)), "known here, got softmax (at 'softmax')"),
        (Net(lambda m, x: F.relu(x)), "must begin with Normalize (at 'relu')"),
        (Net(lambda m, x: x + x), "codes to add; the model must begin with Normalize"),
        (Net(lambda m, x: m.values(x) + 1), "additions of two results only"),
        (Net(lambda m, x: torch.add(y := m.values(x), y, alpha=2)), "additions of two"),
        (Net(lambda m, x: (y := m.values(x)) + F.relu(y, inplace=True)), "no ReLU in place"),
        (Net(lambda m, x: m.act(y := m.values(x)) + y, act=nn.ReLU(True)), "no ReLU in place"),
        (Net(lambda m, x: m.normalize(m.normalize(x))), "Normalize at the input only"),
        (Net(lambda m, x: m.values(x).mean(1)), "means over H and W only"),
        (Net(lambda m, x: m.values(x).mean()), "means over H and W only"),
        (Net(lambda m, x: m.values(x).mean((2, 3), True)), "means without keepdim"),
        (Net(lambda m, x: F.pad(m.values(x), (1, 1), value=1.0)), "padding with zeros only"),
        (Net(lambda m, x: F.pad(m.values(x), (1, 1, 1, 1), "reflect")), "padding with zeros only"),
        (Net(lambda m, x: {"logits": m.values(x)}), "codes to work on"),
    ],
)
def test_network_refuses_what_it_cannot_compute(net, message):
    with pytest.raises(ValueError, match=r"^model must have ") as caught:
        integer_network(net, grey(4))
    assert message in str(caught.value)


def test_network_refuses_other_arguments():
    model = fold_batch_norm(SmallCNN(width=2), grey(2))
    for name, value, message in (
        ("bits", 17, r"bits must be an integer in \[1, 16\], got 17"),
        ("weight_bits", 1, r"weight_bits must be an integer in \[2, 16\], got 1"),
        ("batch_size", 0, "batch_size must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            integer_network(model, grey(2), **{name: value})
    for images, got in ((grey(2) / 255, "torch.float32"), (grey(2)[:0], "torch.uint8"), (3, "int")):
        with pytest.raises(TypeError, match=f"images must be .* at least one image, got {got}"):
            integer_network(model, images)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        integer_network(3, grey(2))


def test_network_refuses_other_sizes_and_floats():
    network = integer_network(fold_batch_norm(SmallCNN(width=2), grey(2)), grey(2))
    with pytest.raises(ValueError, match=r"H \* W = 4"):
        network(grey(2, side=16))
    with pytest.raises(TypeError, match="images must be uint8"):
        network(grey(2) / 255)


# -------------------------------------------------------------------------- planted mistakes


@pytest.mark.parametrize("wrong", ["zero point", "floor", "wrong shift", "no bias", "relu at 0"])
def test_planted_mistakes_leave_the_one_code(monkeypatch, wrong):
    layer = filled(nn.Conv2d(4, 8, 3, padding=1), 3)
    inputs, weights = affine_params(-1.0, 2.0, signed=False), weight_params(layer)
    codes = draw_codes((2, 4, 7, 7), inputs, 4)
    expected = reference(layer, codes, inputs, weights).relu()
    outputs = affine_params(-0.5, expected.max(), signed=False)
    if wrong == "zero point":
        monkeypatch.setattr(layers_module, "centre", lambda codes, params: codes.int())
    elif wrong == "floor":  # within one code, but half of the codes are wrong
        monkeypatch.setattr(
            layers_module, "rescale", lambda v, m, s: (v.long() * m) >> s.to(torch.int64)
        )
    elif wrong == "wrong shift":
        monkeypatch.setattr(layers_module, "rescale", lambda v, m, s: rescale(v, m, s - 1))
    made = IntegerConv2d(layer, inputs=inputs, weights=weights, outputs=outputs, relu=True)
    if wrong == "no bias":
        made.bias.zero_()
    elif wrong == "relu at 0":
        made.low = 0
    difference = (made(codes).int() - quantize(expected, outputs).int()).abs()
    assert difference.max() > 1 or (difference > 0).float().mean() > 0.2


def test_planted_32_bit_product_is_caught(monkeypatch):
    """A multiplier without dimensions does not turn int32 into int64: the product overflows."""
    codes = torch.arange(256).to(torch.uint8)
    add = IntegerAdd(UNIT, UNIT, affine_params(0, 510, signed=False))
    right = add(codes, codes)
    monkeypatch.setattr(
        integer_module, "shift_right", lambda v, s: shift_right(v.to(torch.int32).long(), s)
    )
    assert torch.equal(right, codes)
    assert not torch.equal(add(codes, codes), codes)


def test_no_floats_can_fail():
    with NoFloats(), pytest.raises(AssertionError, match="works with floats"):
        torch.ones(2) + 1
    assert IntegerModule(fixed_point_params(8, 4)).zero == 0
