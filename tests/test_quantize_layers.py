"""Layers with quantizers: put in, calibrated, trained, folded, stored, and taken out again."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from rac_helpers import train
from rac_helpers.data import synth_digits
from rac_helpers.models import SmallCNN, resnet20
from rac_helpers.quantize import (
    BinaryQuantizer,
    DynamicQuantizer,
    FakeQuantizer,
    LearnedQuantizer,
    MeanSquaredError,
    MinMax,
    ObservedQuantizer,
    Percentile,
    QuantAware,
    QuantConv2d,
    QuantLinear,
    SignWeight,
    affine_params,
    binary_weights,
    fake_quantize,
    fold_batch_norm,
    fold_quantized,
    input_params,
    insert_quantizers,
    largest_weight,
    least_error,
    load,
    observe_inputs,
    params_of,
    quantizable,
    quantize,
    remove_quantizers,
    rounded_weight,
    save,
    store,
    symmetric_params,
    trained_params,
    weight_params,
)
from rac_helpers.rng import make_generator

IMAGES = torch.randint(256, (12, 3, 16, 16), generator=make_generator(0), dtype=torch.uint8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=make_generator(seed))


def with_a_past_(model: nn.Module) -> nn.Module:
    """Batch norms that have seen something: some factors are negative, one is 0."""
    g = make_generator(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=g)
            module.running_var.uniform_(0.2, 2, generator=g)
            module.weight.data.uniform_(-1, 2, generator=g)
            module.bias.data.uniform_(-1, 1, generator=g)
            module.weight.data[0] = 0
    return model.eval()


def same_state(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def small_cnn() -> nn.Module:
    return with_a_past_(SmallCNN(width=4))


# -- in and out -----------------------------------------------------------------------------------


def test_layers_are_found_by_their_names():
    names = list(quantizable(small_cnn()))
    modules = dict(small_cnn().named_modules())
    assert names == [n for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(quantizable(resnet20(10, 4))) == 20
    model = insert_quantizers(small_cnn(), weights=weight_params(small_cnn(), 4))
    assert list(quantizable(model)) == names


@pytest.mark.parametrize("bits", [2, 8])
def test_layers_compute_with_rounded_weights_and_inputs(bits):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect")
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(6 * 16, 3))
    weights = weight_params(model, bits)
    inputs = {name: affine_params(-1.0, 2.0, bits) for name in weights}
    rounded = insert_quantizers(model, weights=weights, inputs=inputs)
    assert type(rounded[0]) is QuantConv2d
    assert type(rounded[2]) is QuantLinear
    x = normal(2, 4, 8, 8)
    plain = copy.deepcopy(model)
    for name, params in weights.items():
        layer = quantizable(plain)[name]
        layer.weight.data = fake_quantize(layer.weight, params)
    hidden = plain[0](fake_quantize(x, inputs["0"])).flatten(1)
    expected = plain[2](fake_quantize(hidden, inputs["2"]))
    assert torch.allclose(rounded(x), expected, atol=1e-6)
    assert not torch.allclose(rounded(x), model(x), atol=1e-4)


def test_without_parameters_nothing_changes_and_the_model_is_a_copy():
    model = small_cnn()
    before = copy.deepcopy(model)
    rounded = insert_quantizers(model)
    assert same_state(rounded, model)
    assert torch.equal(rounded(IMAGES), model(IMAGES))
    rounded = insert_quantizers(model, weights=weight_params(model, 2))
    assert same_state(model, before)
    assert type(quantizable(model)["classifier"]) is nn.Linear
    quantizable(rounded)["classifier"].weight.data.zero_()
    assert same_state(model, before)
    assert not rounded.training
    assert insert_quantizers(model.train()).training
    assert model.state_dict().keys() <= rounded.state_dict().keys()


def test_only_named_layers_change_and_a_module_may_round():
    model = small_cnn()
    names = list(quantizable(model))
    dynamic = DynamicQuantizer(4)
    rounded = insert_quantizers(
        model, weights={names[1]: symmetric_params(1.0, 4)}, inputs={names[2]: dynamic}
    )
    layers = quantizable(rounded)
    assert type(layers[names[0]]) is nn.Conv2d
    assert isinstance(layers[names[1]].weight_quantizer, FakeQuantizer)
    assert isinstance(layers[names[1]].input_quantizer, nn.Identity)
    assert isinstance(layers[names[2]].weight_quantizer, nn.Identity)
    assert layers[names[2]].input_quantizer is dynamic
    weights, inputs = params_of(rounded)
    assert list(weights) == names[1:2]
    assert inputs == {names[2]: dynamic}
    assert weights[names[1]].qmax == 7


@pytest.mark.parametrize("make", [FakeQuantizer, LearnedQuantizer, ObservedQuantizer])
def test_out_again_the_weights_are_the_rounded_ones(make):
    model = small_cnn()
    weights = weight_params(model, 3)
    rounded = insert_quantizers(model, weights=weights, make_quantizer=make)
    before = copy.deepcopy(rounded)
    plain = remove_quantizers(rounded)
    assert same_state(rounded, before)
    assert isinstance(quantizable(rounded)["classifier"], QuantLinear)
    assert plain.state_dict().keys() == model.state_dict().keys()
    for name, layer in quantizable(plain).items():
        assert type(layer) in (nn.Conv2d, nn.Linear)
        expected = fake_quantize(quantizable(model)[name].weight, weights[name])
        assert torch.allclose(layer.weight, expected, rtol=1e-6, atol=0)
        assert not hasattr(layer, "input_quantizer")
    assert torch.equal(plain(IMAGES), rounded(IMAGES))
    assert same_state(remove_quantizers(model), model)
    again = insert_quantizers(plain, weights=weights)  # what is rounded stays
    assert torch.allclose(again(IMAGES), rounded(IMAGES), atol=1e-5)


def test_gradients_reach_the_weights():
    model = small_cnn()
    weights, inputs = weight_params(model, 4), input_params(model, IMAGES, 4)
    rounded = insert_quantizers(
        model, weights=weights, inputs=inputs, make_quantizer=LearnedQuantizer
    )
    rounded(IMAGES).square().sum().backward()
    assert all(value.grad is not None for value in rounded.parameters())
    assert quantizable(rounded)["classifier"].weight_quantizer.scale.grad.abs().sum() > 0


class Odd(nn.Linear):
    """A layer with a forward of its own."""


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantizable(3), TypeError, "model must be a torch.nn.Module, got int"),
        (lambda: quantizable(nn.ReLU()), ValueError, "at least one Conv2d or Linear layer"),
        (
            lambda: insert_quantizers(nn.Sequential(nn.Linear(2, 2)), weights={"1": None}),
            ValueError,
            r"weights and inputs must name layers of the model \(0\), got 1",
        ),
        (
            lambda: insert_quantizers(nn.Sequential(Odd(2, 2)), inputs={"0": DynamicQuantizer()}),
            TypeError,
            "'0' must be a plain Linear, got Odd",
        ),
        (
            lambda: insert_quantizers(nn.Sequential(nn.Linear(2, 2)), weights={"0": 4}),
            TypeError,
            "params must be QParams, got int",
        ),
    ],
)
def test_wrong_models_and_names(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_quantizers_are_not_put_in_twice():
    model = nn.Sequential(nn.Linear(2, 2))
    rounded = insert_quantizers(model, weights=weight_params(model, 4))
    with pytest.raises(ValueError, match="must be without quantizers, but '0' has some"):
        insert_quantizers(rounded, weights=weight_params(model, 4))


@pytest.mark.parametrize(("count", "axis"), [(4, 0), (1, 0), (3, 2), (2, 1)])
def test_parameters_that_do_not_fit_the_weight(count, axis):
    params = symmetric_params(torch.ones(count), 4, axis=axis)
    with pytest.raises(ValueError, match=r"a scale for each of the|axis must be"):
        insert_quantizers(nn.Sequential(nn.Linear(4, 3)), weights={"0": params})


# -- which scales ---------------------------------------------------------------------------------


def test_the_largest_weight_gets_the_last_code():
    weight = normal(5, 3, 2, 2)
    params = largest_weight(weight, 4)
    assert params.axis == 0
    assert (params.qmin, params.qmax) == (-7, 7)
    largest = quantize(weight, params).abs().flatten(1).amax(1)
    assert largest.eq(7).all()
    assert torch.allclose(params.scale, weight.abs().flatten(1).amax(1) / 7)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_other_share_has_a_smaller_error(bits):
    weight = normal(4, 30) ** 3
    weight[3] = 0
    params = least_error(weight, bits)
    found = (fake_quantize(weight, params) - weight).square().sum(dim=1)
    bound = weight.abs().amax(1)
    for share in range(1, 61):
        other = symmetric_params(bound * share / 60, bits, axis=0)
        error = (fake_quantize(weight, other) - weight).square().sum(dim=1)
        assert (found <= error * 1.0001 + 1e-12).all()
    if bits == 2:
        assert (params.scale < largest_weight(weight, bits).scale)[:3].any()
    one = least_error(weight, bits, num_shares=1)
    assert torch.allclose(one.scale, largest_weight(weight, bits).scale)
    assert torch.equal(least_error(weight.reshape(4, 5, 2, 3), bits).scale, params.scale)


def test_bits_by_layer():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    assert {n: p.qmax for n, p in weight_params(model).items()} == {"0": 127, "1": 127}
    assert {n: p.qmax for n, p in weight_params(model, {"1": 3}).items()} == {"1": 3}
    chosen = weight_params(model, 4, choose=lambda w, b: symmetric_params(w.abs().max(), b))
    assert chosen["0"].axis is None
    for bits, error, message in (
        (1, ValueError, r"bits must be in \[2, 16\] where narrow"),
        (17, ValueError, r"bits must be an integer in \[1, 16\], got 17"),
        ({"2": 4}, ValueError, r"bits must name layers of the model \(0, 1\), got 2"),
        ({"0": "4"}, TypeError, "bits must be an integer"),
    ):
        with pytest.raises(error, match=message):
            weight_params(model, bits)
    with pytest.raises(ValueError, match="num_shares must be an integer >= 1, got 0"):
        least_error(normal(2, 2), 4, num_shares=0)
    with pytest.raises(ValueError, match="weight must be finite"):
        least_error(normal(2, 2) / 0, 4)


def test_calibration_sees_what_goes_in_batch_by_batch():
    model = small_cnn().train()
    before = copy.deepcopy(model)
    seen = {}
    handles = [
        layer.register_forward_pre_hook(lambda m, x, name=name: seen.update({name: x[0]}))
        for name, layer in quantizable(model).items()
    ]
    with torch.no_grad():
        model.eval()(IMAGES)
    for handle in handles:
        handle.remove()
    model.train()
    names = list(seen)
    for batch_size in (5, 250):
        observers = observe_inputs(model, IMAGES, MinMax, batch_size=batch_size)
        assert list(observers) == names
        for name, observer in observers.items():
            low, high = observer.range()
            assert torch.allclose(low, seen[name].min(), atol=1e-5)
            assert torch.allclose(high, seen[name].max(), atol=1e-5)
    params = input_params(model, IMAGES, {names[0]: 8, names[-1]: 3})
    assert list(params) == [names[0], names[-1]]
    assert params[names[0]].qmin == -128  # normalized images go below 0
    assert (params[names[-1]].qmin, params[names[-1]].qmax) == (0, 7)  # after a ReLU
    assert params[names[-1]].zero_point == 0
    assert same_state(model, before)
    assert model.training
    assert not any(layer._forward_pre_hooks for layer in quantizable(model).values())


@pytest.mark.parametrize("make", [functools.partial(Percentile, 99), MeanSquaredError])
def test_other_observers(make):
    params = input_params(small_cnn(), IMAGES, 2, make_observer=make)
    wide = input_params(small_cnn(), IMAGES, 2)
    assert any(params[name].scale < wide[name].scale for name in wide)


class Lazy(nn.Module):
    """Has a layer that it does not use, or whose forward fails."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.used, self.unused, self.fails = nn.Linear(4, 4), nn.Linear(4, 4), fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise RuntimeError("out of order")
        return self.used(x)


def test_wrong_calibration():
    model = Lazy()
    with pytest.raises(ValueError, match="must see values before it can say a range"):
        input_params(model, torch.eye(4))
    assert list(input_params(model, torch.eye(4), {"used": 4})) == ["used"]
    for images in (torch.ones(0, 4), [1], None):
        with pytest.raises(ValueError, match="images must be a tensor of at least one calibration"):
            input_params(model, images)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        input_params(model, torch.eye(4), batch_size=0)
    with pytest.raises(ValueError, match="names must name layers of the model"):
        observe_inputs(model, torch.eye(4), MinMax, names=["x"])
    with pytest.raises(ValueError, match=r"bits must be an integer in \[1, 16\], got 0"):
        input_params(model, torch.eye(4), 0)
    broken = Lazy(fails=True)
    with pytest.raises(RuntimeError, match="out of order"):
        observe_inputs(broken, torch.eye(4), MinMax)
    assert not broken.used._forward_pre_hooks  # taken off also after an error


# -- batch norm folded into the scales ------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("build", [small_cnn, lambda: with_a_past_(resnet20(10, 4))])
def test_folding_changes_no_code(bits, build):
    model = build()
    rounded = insert_quantizers(
        model, weights=weight_params(model, bits), inputs=input_params(model, IMAGES, bits)
    )
    before = copy.deepcopy(rounded)
    folded = fold_quantized(rounded, IMAGES[:1])
    assert same_state(rounded, before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert set(params_of(folded)[1]) == set(quantizable(model))  # inputs are rounded as before
    layers = quantizable(folded)
    for name, layer in quantizable(rounded).items():
        codes = quantize(layer.weight, layer.weight_quantizer.params)
        own = quantize(layers[name].weight, layers[name].weight_quantizer.params)
        alive = own.flatten(1).any(dim=1)  # a factor of 0 leaves no weight
        assert torch.equal(own.abs()[alive], codes.abs()[alive])
        assert torch.allclose(rounded_weight(layers[name]), layers[name].weight, rtol=1e-5)
    assert torch.allclose(weights_only(folded)(IMAGES), weights_only(rounded)(IMAGES), atol=1e-3)


def weights_only(model: nn.Module) -> nn.Module:
    """Without rounded inputs, where a last bit can become a whole step."""
    model = copy.deepcopy(model)
    for layer in quantizable(model).values():
        layer.input_quantizer = nn.Identity()
    return model


def test_folding_of_binary_weights():
    model = small_cnn()
    names = list(quantizable(model))
    weights = {name: BinaryQuantizer() for name in names[1:-1]}
    weights |= weight_params(model, {names[0]: 8, names[-1]: 8})
    rounded = insert_quantizers(model, weights=weights)
    folded = fold_quantized(rounded, IMAGES[:1])
    assert torch.allclose(folded(IMAGES), rounded(IMAGES), atol=1e-4)
    assert set(trained_params(folded)) == {names[0], names[-1]}
    codings = trained_params(folded)
    for name in names[1:-1]:
        codings[name] = SignWeight(*binary_weights(quantizable(folded)[name].weight))
    assert torch.allclose(store(folded, codings)(IMAGES), rounded(IMAGES), atol=1e-4)


@pytest.mark.parametrize(
    "params", [symmetric_params(1.0, 4), affine_params(-torch.ones(4), torch.ones(4), 4, axis=0)]
)
def test_scales_that_batch_norm_cannot_be_folded_into(params):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    rounded = insert_quantizers(model, weights={"0": params})
    with pytest.raises(ValueError, match="weights of '0' must have a symmetric scale for each"):
        fold_quantized(rounded, torch.rand(1, 3, 8, 8))


# -- from end to end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return synth_digits(60, 20, 20)


@pytest.mark.parametrize("make", [LearnedQuantizer, ObservedQuantizer])
def test_trained_folded_stored_saved_and_loaded_it_says_the_same(make, digits, tmp_path):
    model = SmallCNN(width=4)
    images = digits.train.images
    weights = weight_params(model, 4, choose=least_error)
    inputs = input_params(model, images, 4, make_observer=MeanSquaredError)
    aware = insert_quantizers(model, weights=weights, inputs=inputs, make_quantizer=make)
    before = copy.deepcopy(aware)
    history = train.fit(
        aware,
        digits.train,
        digits.validation,
        epochs=3,
        batch_size=20,
        lr=0.05,
        after_step=QuantAware(freeze_after=6),
        progress=False,
    )
    aware.eval()
    assert len(history) == 3
    for name, layer in quantizable(aware).items():
        old = quantizable(before)[name]
        assert not torch.equal(layer.weight, old.weight)
        assert not torch.equal(layer.input_quantizer.scale, old.input_quantizer.scale)
        if make is ObservedQuantizer:
            assert layer.input_quantizer.rate == 0
    folded = fold_quantized(aware, images[:1])
    stored = store(folded, trained_params(folded))
    save(stored, tmp_path / "model.safetensors")
    loaded = load(
        tmp_path / "model.safetensors", fold_batch_norm(SmallCNN(width=4).eval(), images[:1])
    )
    with torch.no_grad():
        logits = folded(digits.test.images)
        assert torch.equal(loaded(digits.test.images), stored(digits.test.images))
        assert torch.allclose(loaded(digits.test.images), logits, atol=1e-4)
        trained = aware(digits.test.images)
    # without batch norm sums are rounded elsewhere: now and then an input goes to the next code
    assert (trained - logits).abs().mean() < 0.05 * trained.std()
    assert (trained.argmax(1) == logits.argmax(1)).float().mean() >= 0.9


LAST_STEP = [99]


def freeze_or_stop(model: nn.Module, step: int) -> None:
    QuantAware(freeze_after=2)(model, step)
    if step > LAST_STEP[0]:
        raise KeyboardInterrupt


def test_a_training_goes_on_from_its_checkpoint_with_ranges_frozen(digits, tmp_path):
    def aware():
        model = SmallCNN(width=2)
        make = functools.partial(ObservedQuantizer, rate=0.2)
        inputs = input_params(model, digits.train.images, 4)
        return insert_quantizers(model, inputs=inputs, make_quantizer=make)

    def fit(model, last_step, checkpoint):
        LAST_STEP[0] = last_step
        return train.fit(
            model,
            digits.train,
            digits.validation,
            epochs=4,
            batch_size=60,
            lr=0.05,
            after_step=freeze_or_stop,
            checkpoint=checkpoint,
            progress=False,
        )

    whole, halves = aware(), aware()
    fit(whole, 99, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(halves, 3, tmp_path / "halves.pt")
    resumed = aware()
    fit(resumed, 99, tmp_path / "halves.pt")
    assert same_state(resumed, whole)
    assert all(q.rate == 0 for q in whole.modules() if isinstance(q, ObservedQuantizer))
