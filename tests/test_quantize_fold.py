"""Batch norm folded into the layer before it; the list of a network's operations."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from rac_helpers.models import load_weights, resnet20
from rac_helpers.quantize import fold as fold_module
from rac_helpers.quantize.fold import fold_batch_norm
from rac_helpers.quantize.operations import list_operations


def randomize_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw the weights; give batch norms a past: means and variances that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        value.data.uniform_(-1, 1, generator=generator)
    for name, value in model.named_buffers():
        if "running" in name:
            value.uniform_(-1 if "mean" in name else 0.1, 2, generator=generator)
    return model


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A convolution, a batch norm, and a forward pass that is handed over."""

    def __init__(self, forward, **parts: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


@pytest.mark.parametrize("name", ["small_cnn-synth_digits", "resnet20-synth_digits"])
def test_shipped_networks_compute_the_same(name):
    model = load_weights(name)
    images = torch.randint(
        0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    folded = fold_batch_norm(model, images)
    with torch.no_grad():
        expected, found = model(images), folded(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    own, kept = model.state_dict(), folded.state_dict()
    assert {key for key in kept if key not in own} == {
        key.replace("weight", "bias") for key, value in own.items() if value.ndim == 4
    }


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    affine=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect"]),
)
def test_equals_torch_on_random_convolutions(seed, groups, bias, affine, mode):
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=groups, bias=bias, padding_mode=mode)
    model = randomize_(nn.Sequential(conv, nn.BatchNorm2d(6, affine=affine)), seed).eval()
    folded = fold_batch_norm(model, draw(2, 4, 7, 7, seed=seed))
    if affine:  # torch's helper needs a factor
        reference = fuse_conv_bn_eval(model[0], model[1])
        torch.testing.assert_close(folded[0].weight, reference.weight)
        torch.testing.assert_close(folded[0].bias, reference.bias)
    x = draw(2, 4, 7, 7, seed=seed + 1)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_linear_and_1d_and_3d():
    model = randomize_(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))).eval()
    folded = fold_batch_norm(model, draw(3, 5))
    reference = fuse_linear_bn_eval(model[0], model[1])
    torch.testing.assert_close(folded[0].weight, reference.weight)
    torch.testing.assert_close(folded[0].bias, reference.bias)
    for conv, norm, x in (
        (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), draw(2, 2, 8)),
        (nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), draw(2, 2, 4, 4, 4)),
    ):
        model = randomize_(nn.Sequential(conv, norm)).eval()
        torch.testing.assert_close(fold_batch_norm(model, x)(x), model(x), rtol=1e-5, atol=1e-5)


def test_model_is_not_changed_and_folding_twice_changes_nothing():
    model = randomize_(resnet20(width=2)).train()
    before = copy.deepcopy(model.state_dict())
    images = draw(2, 3, 8, 8).abs().clamp(max=1)
    folded = fold_batch_norm(model, images)
    assert (model.training, folded.training) == (True, False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    again = fold_batch_norm(folded, images)
    for key, value in folded.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_dtype_frozen_weights_and_second_names_are_kept():
    model = Net(lambda m, x: m.norm(m.conv(x))).double()
    model.conv.weight.requires_grad_(False)
    model.same = model.norm
    folded = fold_batch_norm(model, draw(1, 3, 4, 4).double())
    assert folded.conv.bias.dtype == folded.conv.weight.dtype == torch.float64
    assert not any(value.requires_grad for value in folded.parameters())
    assert isinstance(folded.norm, nn.Identity)
    assert folded.same is folded.norm


def test_outputs_that_are_no_floats_or_empty_are_left_alone():
    net = Net(lambda m, x: {"y": m.norm(m.conv(x)), "top": x.argmax(), "none": x[:0], "n": 3})
    assert fold_batch_norm(net, draw(1, 3, 4, 4))(draw(1, 3, 4, 4))["n"] == 3


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Net(lambda m, x: m.norm(F.relu(m.conv(x)))), "layer before it, got relu"),
        (Net(lambda m, x: m.norm(m.act(m.conv(x))), act=nn.ReLU()), "before it, got ReLU"),
        (Net(lambda m, x: m.norm(m.up(x)), up=nn.ConvTranspose2d(3, 4, 1)), "ConvTranspose2d"),
        (Net(lambda m, x: m.first(x), first=nn.BatchNorm2d(3)), "before it, got x"),
        (
            Net(lambda m, x: m.norm(y := m.conv(x)) + y),
            "'norm' has the output of 'conv' for itself, got 2 users",
        ),
        (Net(lambda m, x: m.norm(m.conv(m.conv2(m.conv2(x)))) + m.other(m.conv(x)),
             conv2=nn.Conv2d(3, 3, 1), other=nn.ReLU()), "'conv' called once, got 2 calls"),
        (Net(lambda m, x: m.norm(m.conv(x)) + m.norm(m.conv2(x)), conv2=nn.Conv2d(3, 4, 3)),
         "'norm' called once, got 2 calls"),
        (Net(lambda m, x: m.norm(m.conv(x)), norm=nn.BatchNorm2d(4, track_running_stats=False)),
         "a running mean and variance"),
        (Net(lambda m, x: m.norm(m.conv(x)),
             conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), "a plain weight"),
        (Net(lambda m, x: F.batch_norm(m.conv(x), m.norm.running_mean, m.norm.running_var)),
         "batch norms as modules, got a function"),
        (Net(lambda m, x: m.norm(m.conv(x)) + m.conv.weight.sum()), "outputs differ"),
        (Net(lambda m, x: m.conv(x) if x.sum() > 0 else x), "operations torch.fx can list"),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be_folded(net, message):
    with pytest.raises(ValueError, match=r"^model must") as error:
        fold_batch_norm(randomize_(net), draw(2, 3, 5, 5))
    assert message in str(error.value)


def test_refuses_batch_norm_over_other_dimensions():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(4))  # normalizes dimension 1, not 2
    with pytest.raises(ValueError, match=r"'1' has 2 dimensions .* got \(2, 4, 6\)"):
        fold_batch_norm(model, draw(2, 4, 5))


def test_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        fold_batch_norm(3, draw(1))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        list_operations(3)


def test_error_says_where_the_model_stops_the_list():
    inner = Net(lambda m, x: x if x.sum() > 0 else -x)
    with pytest.raises(ValueError, match=r"stops it in 1 \(Net\)"):
        list_operations(nn.Sequential(nn.ReLU(), inner))


@pytest.mark.parametrize("wrong", ["no mean", "no eps", "no offset", "factor of inputs"])
def test_planted_mistakes_are_caught(monkeypatch, wrong):
    right = fold_module._fold_

    def mistake(layer, norm):
        norm = copy.deepcopy(norm)
        if wrong == "no mean":
            norm.running_mean.zero_()
        elif wrong == "no eps":
            norm.eps = 0.0
        elif wrong == "no offset":
            norm.bias = None
        weight = layer.weight
        right(layer, norm)
        if wrong == "factor of inputs":
            layer.weight = weight

    monkeypatch.setattr(fold_module, "_fold_", mistake)
    model = randomize_(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-2)))
    with pytest.raises(ValueError, match="outputs differ by up to"):
        fold_batch_norm(model, draw(2, 3, 5, 5))
