"""Scores against derivatives that are known: by hand, by autograd's Hessian, by true changes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from rac_helpers import models, prune
from rac_helpers.rng import make_generator


def images_and_labels(n: int, *, classes: int = 10, seed: int = 0):
    generator = make_generator(seed)
    images = torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def warm_up(model: nn.Module) -> nn.Module:
    """Give batch norm running means that differ from its start."""
    with torch.no_grad():
        model(images_and_labels(32, seed=5)[0])
    return model


class Quadratic(nn.Module):
    """Outputs a (w - c) for each w; their mean square is a quadratic loss with diagonal Hessian."""

    def __init__(self, n: int, seed: int) -> None:
        super().__init__()
        generator = make_generator(seed)
        self.minimum = torch.randn(n, generator=generator)
        self.a = torch.rand(n, generator=generator) + 0.1
        self.layer = nn.Linear(n, 1, bias=False)
        self.layer.weight.data.copy_(self.minimum[None])

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.a * (self.layer.weight[0] - self.minimum)

    def hessian_diagonal(self) -> torch.Tensor:
        return 2 * self.a**2 / len(self.a)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1), torch.zeros(1)


def mean_square(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


def true_changes(model: Quadratic) -> torch.Tensor:
    """By how much the loss grows when one weight becomes 0, for each weight."""
    weight, changes = model.layer.weight, []
    with torch.no_grad():
        start = mean_square(model(None), None)
        for place in range(weight.numel()):
            kept = weight[0, place].clone()
            weight[0, place] = 0
            changes.append(mean_square(model(None), None) - start)
            weight[0, place] = kept
    return torch.stack(changes)


# --- values ---------------------------------------------------------------------------------


def test_magnitude_is_the_size_of_the_weight():
    model = models.SmallCNN(width=4)
    scores = prune.magnitude_scores(model)
    assert scores.keys() == prune.prunable(model).keys()
    for name, weight in prune.prunable(model).items():
        assert torch.equal(scores[name], weight.abs())


def test_scores_are_not_the_weights_themselves():
    layer = nn.Linear(3, 3)
    layer.weight.data.abs_()
    prune.magnitude_scores(layer)["weight"].zero_()
    assert layer.weight.all()


def test_gradient_is_that_of_the_mean_loss():
    model = warm_up(models.SmallCNN(width=4)).eval()
    images, labels = images_and_labels(12)
    gradients = prune.gradient_scores(model, [(images, labels)])
    taylor = prune.taylor_scores(model, [(images, labels)])
    F.cross_entropy(model(images), labels).backward()
    for name, weight in prune.prunable(model).items():
        torch.testing.assert_close(gradients[name], weight.grad.abs())
        torch.testing.assert_close(taylor[name], (weight.grad * weight).abs())


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 11), unique=True, max_size=4).map(sorted))
def test_how_inputs_are_cut_into_batches_does_not_matter(cuts):
    model = warm_up(models.SmallCNN(width=2))
    images, labels = images_and_labels(12)
    whole = prune.taylor_scores(model, [(images, labels)])
    parts = zip(images.tensor_split(cuts), labels.tensor_split(cuts), strict=True)
    for name, score in prune.taylor_scores(model, parts).items():
        torch.testing.assert_close(score, whole[name], rtol=1e-4, atol=1e-7)


def test_taylor_is_the_first_order_of_the_true_change():
    """Shrink one weight by a millionth: the loss changes by that much of the score."""
    model = warm_up(models.SmallCNN(width=2)).double().eval()
    images, labels = images_and_labels(8)
    batch = (images.double() / 255, labels)
    scores = prune.taylor_scores(model, [batch])
    loss = F.cross_entropy(model(batch[0]), labels).item()
    for name, weight in prune.prunable(model).items():
        place = scores[name].argmax()
        value = weight.data.view(-1)[place].clone()
        weight.data.view(-1)[place] = value * (1 - 1e-6)
        change = abs(F.cross_entropy(model(batch[0]), labels).item() - loss) / 1e-6
        weight.data.view(-1)[place] = value
        assert change == pytest.approx(scores[name].max().item(), rel=1e-3)


def test_random_scores_follow_the_generator():
    model = models.SmallCNN(width=4)
    first, again, other = (
        prune.random_scores(model, generator=make_generator(seed)) for seed in (0, 0, 1)
    )
    for name, weight in prune.prunable(model).items():
        assert first[name].shape == weight.shape
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert 0 <= first[name].min() <= first[name].max() < 1


# --- optimal brain damage -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_obd_is_the_true_change_at_the_minimum_of_a_quadratic(seed):
    model = Quadratic(20, seed)
    obd = prune.obd_scores(model, [model.batch()], generator=make_generator(0), loss_fn=mean_square)
    torch.testing.assert_close(obd["layer.weight"][0], true_changes(model))
    h_w_w = 0.5 * model.hessian_diagonal() * model.minimum**2
    torch.testing.assert_close(obd["layer.weight"][0], h_w_w)
    for blind in (prune.gradient_scores, prune.taylor_scores):  # E23
        assert not blind(model, [model.batch()], loss_fn=mean_square)["layer.weight"].any()


def test_obd_ranks_weights_better_than_the_gradient_near_a_minimum():
    """E23: rank correlation with the true change, over quadratics near their minimum."""
    ranks = {"gradient": [], "taylor": [], "obd": []}
    for seed in range(30):
        model = Quadratic(50, seed)
        noise = torch.randn(50, generator=make_generator(1000 + seed))
        model.layer.weight.data.add_(0.1 * noise)
        batches, true = [model.batch()], true_changes(model)
        found = {
            "gradient": prune.gradient_scores(model, batches, loss_fn=mean_square),
            "taylor": prune.taylor_scores(model, batches, loss_fn=mean_square),
            "obd": prune.obd_scores(
                model, batches, generator=make_generator(0), loss_fn=mean_square
            ),
        }
        for name, scores in found.items():
            ranks[name].append(stats.spearmanr(scores["layer.weight"][0], true).statistic)
    mean = {name: np.mean(values) for name, values in ranks.items()}
    assert mean["gradient"] < mean["taylor"] < mean["obd"]
    assert mean["obd"] > 0.9


def test_obd_approaches_the_diagonal_of_the_hessian():
    """A small network with cross-entropy, against the full Hessian of autograd."""
    generator = make_generator(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    for value in model.parameters():
        value.data.normal_(generator=generator)
    inputs = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (16,), generator=generator)

    def loss(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        weights = {"0.weight": first, "2.weight": last}
        return F.cross_entropy(torch.func.functional_call(model, weights, (inputs,)), labels)

    weights = (model[0].weight.detach(), model[2].weight.detach())
    blocks = torch.autograd.functional.hessian(loss, weights)
    exact = {
        name: 0.5 * blocks[k][k].reshape(w.numel(), -1).diagonal().reshape(w.shape) * w**2
        for k, (name, w) in enumerate(zip(("0.weight", "2.weight"), weights, strict=True))
    }

    def error(draws: int) -> float:
        signs = make_generator(1)
        found = prune.obd_scores(model, [(inputs, labels)], generator=signs, draws=draws)
        squared = sum((found[name] - exact[name]).square().sum() for name in exact)
        return (squared / sum(value.square().sum() for value in exact.values())).sqrt().item()

    errors = {draws: error(draws) for draws in (10, 1000)}
    assert errors[1000] < 0.1
    assert errors[1000] < errors[10] / 3  # the root of a hundred is ten


def test_obd_averages_over_batches():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.fill_(1)
    batches = [(torch.tensor([[a, 0.0]]), torch.zeros(1, 1)) for a in (1.0, 2.0, 3.0)]
    found = prune.obd_scores(layer, batches, generator=make_generator(0), loss_fn=F.mse_loss)
    torch.testing.assert_close(found["weight"], torch.tensor([[(1 + 4 + 9) / 3, 0.0]]))


@pytest.mark.parametrize("slope", [1.0, 0.0])
def test_obd_of_a_straight_loss_is_zero(slope):
    """Its second derivatives are; autograd has no graph for them."""
    layer, batch = nn.Linear(2, 1, bias=False), (torch.ones(1, 2), torch.zeros(1))
    found = prune.obd_scores(
        layer, [batch], generator=make_generator(0), loss_fn=lambda out, _: slope * out.sum()
    )
    assert torch.equal(found["weight"], torch.zeros(1, 2))


# --- the model is left as it was ------------------------------------------------------------

SCORES = {
    "gradient": prune.gradient_scores,
    "taylor": prune.taylor_scores,
    "obd": lambda *args, **kwargs: prune.obd_scores(*args, generator=make_generator(0), **kwargs),
}
DRAWN = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


@DRAWN
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("context", [contextlib.nullcontext, torch.no_grad])
def test_nothing_of_the_model_changes(score, training, context):
    model = warm_up(models.SmallCNN(width=2)).train(training)
    model.block1.eval()
    model.block2[0].weight.requires_grad_(False)
    model.classifier.bias.grad = torch.ones(10)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    with context():  # after_step runs without gradients
        scores = score(model, [images_and_labels(4)])
    assert all(value.any() for value in scores.values())  # of the frozen weight, too
    assert not any(value.requires_grad for value in scores.values())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["block2.0.weight"]
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["classifier.bias"]
    assert torch.equal(model.classifier.bias.grad, torch.ones(10))
    assert torch.equal(torch.get_rng_state(), random_state)


@DRAWN
def test_a_failure_leaves_the_model_as_it_was(score):
    model = models.SmallCNN(width=2)
    model.block2[0].weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="the loss must be finite, got nan"):
        score(model, [images_and_labels(4)], loss_fn=lambda outputs, _: outputs.sum() * torch.nan)
    assert model.training
    assert not model.block2[0].weight.requires_grad


@DRAWN
def test_recurrent_layers_and_unused_layers(score):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 5, batch_first=True)
            self.out = nn.Linear(5, 3)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.lstm(x)[0][:, -1])

    x = torch.randn(4, 7, 6, generator=make_generator(0))
    scores = score(Recurrent(), [(x, torch.tensor([0, 1, 2, 0]))])
    assert scores["lstm.weight_hh_l0"].count_nonzero() == 100
    assert not scores["unused.weight"].any()


@DRAWN
@pytest.mark.parametrize(
    ("batches", "settings", "error", "message"),
    [
        ([], {}, ValueError, "batches must hold at least one batch, got none"),
        (images_and_labels(2), {}, TypeError, r"pairs .* goes into a list, \[split\]; got Tensor"),
        ([(torch.zeros(1), torch.zeros(1), 3)], {}, TypeError, "pairs"),
        (
            [images_and_labels(2)],
            {"loss_fn": lambda outputs, _: outputs},
            ValueError,
            r"loss_fn must return a tensor of shape \(\), got \(2, 10\)",
        ),
        ([images_and_labels(2)], {"loss_fn": lambda *_: 1.0}, ValueError, "got float"),
    ],
)
def test_bad_batches_and_losses_are_named(score, batches, settings, error, message):
    with pytest.raises(error, match=message):
        score(models.SmallCNN(width=2), batches, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"generator": 0}, TypeError, r"generator must be a torch.Generator, got int"),
        (
            {"generator": make_generator(0), "draws": 0},
            ValueError,
            "draws must be an integer >= 1, got 0",
        ),
    ],
)
def test_bad_draws_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        prune.obd_scores(models.SmallCNN(width=2), [images_and_labels(2)], **settings)


def test_random_scores_need_a_generator():
    with pytest.raises(TypeError, match="generator must be"):
        prune.random_scores(models.SmallCNN(width=2), generator=None)


# --- channels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Conv1d(2, 5, 2), nn.Linear(4, 7)]
)
def test_filter_scores_are_what_numpy_says(layer):
    filters = layer.weight.detach().numpy().reshape(len(layer.weight), -1)
    expected = {
        prune.filter_l1: [np.abs(f).sum() for f in filters],
        prune.filter_l2: [np.linalg.norm(f) for f in filters],
        prune.geometric_median: [sum(np.linalg.norm(f - g) for g in filters) for f in filters],
    }
    for score, values in expected.items():
        np.testing.assert_allclose(score(layer)["weight"].numpy(), values, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("score", [prune.filter_l1, prune.filter_l2, prune.geometric_median])
def test_filter_scores_of_other_precisions(score, dtype):
    layer = nn.Conv2d(3, 6, 3).to(dtype)
    found = score(layer)["weight"]
    assert found.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, score(layer.double())["weight"].to(found.dtype))


def test_the_geometric_median_spares_a_small_filter_unlike_the_others():
    layer = nn.Conv2d(1, 4, 2)
    layer.weight.data.copy_(
        torch.tensor([1.0, 1.01, 1.02, 0.1]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    )
    assert prune.filter_l2(layer)["weight"].argmin() == 3
    assert prune.geometric_median(layer)["weight"].argmax() == 3


def test_small_distances_between_large_filters_are_not_lost():
    """torch.cdist by matrix products, its default for many rows, rounds them away."""
    layer = nn.Linear(64, 100)
    noise = torch.randn(100, 64, generator=make_generator(0))
    layer.weight.data.copy_(100 + 0.01 * noise)
    rows = layer.weight.detach().double().numpy()
    expected = np.linalg.norm(rows[:, None] - rows, axis=2).sum(1)
    found = prune.geometric_median(layer)["weight"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bn_scale_finds_the_norm_behind_each_convolution():
    model = models.ResNet(8, width=4)
    for number, norm in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.copy_((-1.0) ** torch.arange(norm.num_features) * (number + 1))
    scores = prune.bn_scale(model, images_and_labels(1)[0])
    pairs = {"stem.0.weight": model.stem[1]}
    for stage in ("stage1", "stage2", "stage3"):
        for k in (1, 2):
            pairs[f"{stage}.0.conv{k}.weight"] = getattr(getattr(model, stage)[0], f"bn{k}")
    assert list(scores) == list(pairs)  # not the classifier
    for name, norm in pairs.items():
        assert torch.equal(scores[name], norm.weight.detach().abs())


def test_bn_scale_of_mobilenet_reaches_every_convolution():
    model = torchvision.models.mobilenet_v2(weights=None)
    scores = prune.bn_scale(model, torch.zeros(1, 3, 32, 32))
    convolutions = {n for n, w in prune.prunable(model).items() if w.ndim == 4}
    assert scores.keys() == convolutions


def test_bn_scale_of_a_norm_that_is_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(input=self.conv(x))

    model = Keyword()
    assert torch.equal(prune.bn_scale(model, torch.zeros(1, 3, 4, 4))["conv.weight"], torch.ones(4))


def test_bn_scale_leaves_the_model_as_it_was():
    model = warm_up(models.SmallCNN(width=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune.bn_scale(model, images_and_labels(2)[0])["block1.0.weight"].zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    "norm",
    [
        nn.ReLU(),
        nn.BatchNorm2d(4, affine=False),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm2d(4)),
    ],
)
def test_bn_scale_needs_a_norm_right_behind(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
    with pytest.raises(
        ValueError, match="a batch norm with a scale right behind a layer, got none"
    ):
        prune.bn_scale(model, torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("score", [prune.filter_l1, prune.filter_l2, prune.geometric_median])
def test_recurrent_layers_have_no_channels(score):
    with pytest.raises(ValueError, match="got recurrent ones only"):
        score(nn.LSTM(2, 3))
    both = nn.ModuleList([nn.GRU(2, 3), nn.Linear(3, 4)])
    assert {name: len(value) for name, value in score(both).items()} == {"1.weight": 4}
