"""Masks against torch.nn.utils.prune, and what must hold for any scores: counts, ties, nesting."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from rac_helpers import metrics, models, prune
from rac_helpers.data import Split
from rac_helpers.prune import MaskSet
from rac_helpers.rng import make_generator
from rac_helpers.train import fit

SPARSITIES = st.floats(0, 1, exclude_max=True)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6)
TIED = hnp.arrays(np.float32, SHAPES, elements=st.integers(-3, 3).map(float))  # few values
DISTINCT = SHAPES.flatmap(
    lambda shape: st.permutations(range(np.prod(shape))).map(
        lambda order: (
            (np.array(order, dtype=np.float32).reshape(shape) + 1)
            * (-1) ** np.array(order).reshape(shape)
        )
    )
)


def random_weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=make_generator(seed))


class Weights(nn.Module):
    """Layers whose weights are given; never run."""

    def __init__(self, *weights: np.ndarray | torch.Tensor) -> None:
        super().__init__()
        for number, weight in enumerate(weights):
            layer = nn.Linear(1, 1)
            layer.weight = nn.Parameter(torch.as_tensor(weight).float())
            self.add_module(f"layer{number}", layer)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.classifier = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.lstm(x)[0][:, -1])


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- what can be pruned ---------------------------------------------------------------------


def test_prunable_are_the_weights_of_linear_conv_and_recurrent_layers():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(2, 4, 3),
            "norm": nn.BatchNorm1d(4),
            "lstm": nn.LSTM(4, 3, num_layers=2, bidirectional=True),
            "cell": nn.GRUCell(3, 2),
            "embedding": nn.Embedding(5, 4),
            "out": nn.Linear(2, 2),
        }
    )
    lstm = [f"lstm.weight_{p}h_l{n}{d}" for n in (0, 1) for d in ("", "_reverse") for p in "ih"]
    cell = ["cell.weight_ih", "cell.weight_hh"]
    found = prune.prunable(model)
    assert set(found) == {"conv.weight", *lstm, *cell, "out.weight"}
    assert all(found[name] is model.get_parameter(name) for name in found)  # no copies


def test_all_weights_but_those_of_norms_are_prunable_in_resnet56():
    model = models.resnet56()
    found = prune.prunable(model)
    assert len(found) == 56
    biases_and_norms = sum(p.numel() for n, p in model.named_parameters() if n not in found)
    norms = sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert biases_and_norms == norms + 10


def _shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def _shared_by_data() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


def _tied_embedding() -> nn.Module:
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "out": nn.Linear(4, 7)})
    model["out"].weight = model["embed"].weight
    return model


def _layer_twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, layer)


def _pruned_by_torch() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    torch_prune.l1_unstructured(model[0], "weight", amount=0.5)
    return model


def _pruned_recurrent() -> nn.Module:
    model = Recurrent()
    torch_prune.l1_unstructured(model.lstm, "weight_hh_l0", amount=0.5)
    return model


def _hidden_by_hooks(layer: nn.Module, hide, name: str = "weight") -> nn.Module:
    """Older ways to compute a weight: no parametrization, a hook and other parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(hide(layer, name))


def _no_inputs() -> nn.Module:
    model = nn.Linear(1, 3)
    model.weight = nn.Parameter(torch.empty(3, 0))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), "must have a linear, conv"),
        (_no_inputs, r"layer '' must have weights, got weight of shape \(3, 0\)"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "layer '0' has no weights yet; run the model"),
        (_shared, r"must not share weights.*\['0.weight', '2.weight'\]"),
        (_shared_by_data, r"must not share weights.*\['0.weight', '1.weight'\]"),
        (_tied_embedding, "must not share weights.*'embed.weight', 'out.weight'"),
        (_layer_twice, r"must not share weights.*\['0.weight', '1.weight'\]"),
        (_pruned_by_torch, "layer '0' are computed.*already pruned.*prune.remove"),
        (_pruned_recurrent, "layer 'lstm' are computed.*already pruned"),
        (
            lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3))),
            "remove_parametrizations",
        ),
        (lambda: _hidden_by_hooks(nn.Conv2d(3, 3, 1), nn.utils.weight_norm), "'0' are computed"),
        (lambda: _hidden_by_hooks(nn.Linear(3, 3), nn.utils.spectral_norm), "'0' are computed"),
        (
            lambda: _hidden_by_hooks(nn.LSTM(3, 3), nn.utils.weight_norm, "weight_hh_l0"),
            "'0' are computed",
        ),
        (lambda: torch.compile(nn.Linear(3, 3), backend="eager"), r"module itself.*_orig_mod"),
    ],
)
@pytest.mark.parametrize("use", [prune.prunable, prune.magnitude_scores, prune.nonzero_masks])
def test_models_that_cannot_be_pruned_are_refused(build, message, use):
    with pytest.raises(ValueError, match=message):
        use(build())


def test_no_model_is_refused():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got dict"):
        prune.prunable({})


def test_what_is_no_linear_conv_or_recurrent_layer_stays_dense():
    """Convolutions with groups are cut like others; transposed ones, embeddings, norms are not."""
    model = nn.ModuleDict(
        {
            "grouped": nn.Conv2d(8, 12, 3, groups=4),
            "transposed": nn.ConvTranspose2d(4, 4, 2),
            "bilinear": nn.Bilinear(2, 2, 2),
            "attention": nn.MultiheadAttention(4, 2),
            "norm": nn.LayerNorm(4),
        }
    )
    before = state_of(model)
    masks = prune.layer_masks(prune.magnitude_scores(model), 0.5)
    assert set(masks) == {"grouped.weight", "attention.out_proj.weight"}
    masks.apply_(model)
    changed = {
        name for name, value in state_of(model).items() if not torch.equal(value, before[name])
    }
    assert changed == set(masks)
    assert int((model["grouped"].weight == 0).sum()) == 12 * 2 * 9 / 2


def test_torch_masks_made_permanent_are_no_obstacle():
    model = _pruned_by_torch()
    torch_prune.remove(model[0], "weight")
    assert prune.nonzero_masks(model).sparsity == 0.5


# --- same masks as torch.nn.utils.prune -----------------------------------------------------


@settings(deadline=None)
@given(weight=DISTINCT, sparsity=SPARSITIES)
def test_layer_masks_are_those_of_torch(weight, sparsity):
    model = Weights(weight)
    ours = prune.layer_masks(prune.magnitude_scores(model), sparsity)["layer0.weight"]
    torch_prune.l1_unstructured(model.layer0, "weight", amount=sparsity)
    assert torch.equal(ours, model.layer0.weight_mask.bool())


@settings(deadline=None)
@given(weight=TIED, sparsity=SPARSITIES)
def test_under_ties_torch_cuts_as_many_and_differs_only_among_equals(weight, sparsity):
    model = Weights(weight)
    ours = prune.layer_masks(prune.magnitude_scores(model), sparsity)["layer0.weight"]
    torch_prune.l1_unstructured(model.layer0, "weight", amount=sparsity)
    theirs = model.layer0.weight_mask.bool()
    assert ours.sum() == theirs.sum()
    sizes = torch.as_tensor(weight).abs()
    assert torch.equal(sizes[ours].sort().values, sizes[theirs].sort().values)


@settings(deadline=None)
@given(st.lists(DISTINCT, min_size=1, max_size=3), SPARSITIES)
def test_global_masks_are_those_of_torch(weights, sparsity):
    shifted = [weight + np.sign(weight) * k / 4 for k, weight in enumerate(weights)]  # no ties
    model = Weights(*shifted)
    ours = prune.global_masks(prune.magnitude_scores(model), sparsity)
    layers = [(layer, "weight") for layer in model.children()]
    torch_prune.global_unstructured(
        layers, pruning_method=torch_prune.L1Unstructured, amount=sparsity
    )
    for number, layer in enumerate(model.children()):
        assert torch.equal(ours[f"layer{number}.weight"], layer.weight_mask.bool())


@pytest.mark.parametrize(("score", "n"), [(prune.filter_l1, 1), (prune.filter_l2, 2)])
@pytest.mark.parametrize(
    ("layer", "after", "shape"),
    [
        (nn.Conv2d(5, 12, 3), nn.Conv2d(12, 2, 1), (1, 5, 4, 4)),
        (nn.Conv1d(5, 9, 2), nn.Conv1d(9, 2, 1), (1, 5, 4)),
        (nn.Linear(7, 11), nn.Linear(11, 2), (1, 7)),
    ],
)
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.7])
def test_filter_masks_are_those_of_torch(score, n, layer, after, shape, sparsity):
    """Where no channels are tied; the last layer's outputs stay."""
    model, example = nn.Sequential(copy.deepcopy(layer), after), torch.zeros(shape)
    chosen = prune.uniform_group_masks(prune.channel_groups(model, example), score(model), sparsity)
    ours = prune.parameter_masks(model, chosen, example)["0.weight"]
    torch_prune.ln_structured(model[0], "weight", amount=sparsity, n=n, dim=0)
    assert torch.equal(ours, model[0].weight_mask.bool())


def test_the_pruned_model_computes_what_torchs_does():
    ours, theirs = models.SmallCNN(seed=1).eval(), models.SmallCNN(seed=1).eval()
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=make_generator(0))
    prune.global_masks(prune.magnitude_scores(ours), 0.7).apply_(ours)
    layers = [(m, "weight") for m in theirs.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=0.7)
    assert torch.equal(ours(images), theirs(images))


# --- counts, ties, nesting ------------------------------------------------------------------


@settings(deadline=None)
@given(weight=TIED, sparsity=SPARSITIES)
def test_exactly_so_many_are_cut_under_ties(weight, sparsity):
    scores = {"a": torch.as_tensor(weight), "b": torch.zeros(7)}
    wanted = round(sparsity * (weight.size + 7))
    masks = prune.global_masks(scores, sparsity)
    assert sum(int((~mask).sum()) for mask in masks.values()) == wanted
    assert masks.sparsity == pytest.approx(wanted / (weight.size + 7))
    by_layer = prune.layer_masks(scores, sparsity)
    assert int((~by_layer["a"]).sum()) == round(sparsity * weight.size)
    assert int((~by_layer["b"]).sum()) == round(sparsity * 7)


@pytest.mark.parametrize("choose", [prune.layer_masks, prune.global_masks, prune.block_masks])
@settings(deadline=None)
@given(weight=TIED, sparsities=st.tuples(SPARSITIES, SPARSITIES))
def test_masks_nest_as_sparsity_rises(choose, weight, sparsities):
    scores = {"a": torch.as_tensor(weight), "b": torch.ones(3, 4)}
    less, more = (choose(scores, sparsity) for sparsity in sorted(sparsities))
    for name in scores:
        assert not (more[name] & ~less[name]).any()  # nothing comes back
    assert less & more == more


@settings(deadline=None)
@given(weight=TIED, thresholds=st.tuples(st.floats(-4, 4), st.floats(-4, 4)))
def test_masks_nest_as_the_threshold_rises(weight, thresholds):
    less, more = (
        prune.threshold_masks({"a": torch.as_tensor(weight)}, t) for t in sorted(thresholds)
    )
    assert less & more == more


@settings(deadline=None)
@given(weight=TIED, sparsity=SPARSITIES)
def test_what_is_kept_scores_at_least_as_high_as_what_is_cut(weight, sparsity):
    """E59: the sample of the article keeps the share that it should cut."""
    scores = torch.as_tensor(weight)
    kept = prune.layer_masks({"a": scores}, sparsity)["a"]
    if kept.any() and not kept.all():
        assert scores[kept].min() >= scores[~kept].max()


def test_seventy_percent_are_cut_not_kept():
    """E59 on its own layer, the first of ResNet-18."""
    layer = nn.Conv2d(3, 64, 7)
    prune.layer_masks(prune.magnitude_scores(layer), 0.7).apply_(layer)
    assert int((layer.weight == 0).sum()) == round(0.7 * 9408)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_exactly_so_many_are_cut_in_other_precisions(dtype):
    """Half precision has many ties."""
    scores = {"w": random_weights(32, 64, 3, 3).abs().to(dtype)}
    for choose in (prune.layer_masks, prune.global_masks):
        kept = choose(scores, 0.7)["w"]
        assert int((~kept).sum()) == round(0.7 * kept.numel())
        assert scores["w"][kept].min() >= scores["w"][~kept].max()
    assert prune.n_m_masks(scores).sparsity == 0.5
    assert prune.block_masks(scores, 0.75).sparsity == 0.75


def test_the_order_in_memory_does_not_matter(tmp_path):
    """channels_last, and views: the same masks, also through a file."""
    plain = {"w": random_weights(8, 4, 3, 3).mul(4).round().abs()}  # many ties
    other = {"w": plain["w"].to(memory_format=torch.channels_last)}
    view = {"w": plain["w"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)}
    for choose in (
        lambda scores: prune.layer_masks(scores, 0.6),
        lambda scores: prune.global_masks(scores, 0.6),
        lambda scores: prune.threshold_masks(scores, 2.0),
        lambda scores: prune.block_masks(scores, 0.5, block=(2, 3)),
        prune.n_m_masks,
    ):
        masks = choose(plain)
        assert choose(other) == choose(view) == masks
        choose(other).save(tmp_path / "masks")
        assert MaskSet.load(tmp_path / "masks") == masks
    layer = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    masks = MaskSet({"weight": masks["w"]})
    masks.apply_(layer)
    assert prune.nonzero_masks(layer) == masks
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_among_equals_those_in_front_go_first():
    scores = {"a": torch.ones(2, 2), "b": torch.ones(2)}
    masks = prune.global_masks(scores, 0.5)
    assert masks["a"].tolist() == [[False, False], [False, True]]
    assert masks["b"].tolist() == [True, True]


def test_infinite_scores_cut_first_or_last():
    scores = {"a": torch.tensor([torch.inf, 1.0, -torch.inf, 2.0])}
    assert prune.layer_masks(scores, 0.25)["a"].tolist() == [True, True, False, True]
    assert prune.layer_masks(scores, 0.7)["a"].tolist() == [True, False, False, False]


def test_a_layer_can_have_a_sparsity_of_its_own():
    scores = {"a": torch.rand(10, 10), "b": torch.rand(4, 5)}
    masks = prune.layer_masks(scores, {"b": 0.75, "a": 0.0})
    assert masks.sparsity_by_layer() == {"a": 0.0, "b": 0.75}
    assert masks.sparsity == pytest.approx(15 / 120)


def test_a_weight_at_the_threshold_is_kept():
    """E22, the article's ten weights; also for thresholds that float32 cannot hold exactly."""
    weights = torch.arange(1, 11) / 10
    for place in range(10):
        kept = prune.threshold_masks({"w": weights}, (place + 1) / 10)["w"]
        assert kept.tolist() == [False] * place + [True] * (10 - place)


# --- N:M and blocks -------------------------------------------------------------------------


@settings(deadline=None)
@given(
    groups=st.integers(1, 3),
    out=st.integers(1, 4),
    kernel=st.sampled_from([(), (2,), (3, 2)]),
    pattern=st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 3)]),
    data=st.data(),
)
def test_every_group_along_the_inputs_keeps_its_n_highest(groups, out, kernel, pattern, data):
    n, m = pattern
    shape = (out, groups * m, *kernel)
    score = data.draw(hnp.arrays(np.float32, shape, elements=st.integers(0, 3).map(float)))
    kept = prune.n_m_masks({"w": torch.as_tensor(score)}, n=n, m=m)["w"].numpy()
    for o in range(out):
        for place in np.ndindex(*kernel):
            for first in range(0, groups * m, m):
                column = (o, slice(first, first + m), *place)
                k, s = kept[column], score[column]
                assert k.sum() == n
                assert sorted(s[k]) == sorted(s)[m - n :]
                assert list(np.flatnonzero(~k)) == sorted(np.argsort(s, kind="stable")[: m - n])


@settings(deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=7),
    block=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sparsity=SPARSITIES,
    seed=st.integers(0, 99),
)
def test_blocks_go_as_a_whole_lowest_mean_first(shape, block, sparsity, seed):
    score = random_weights(*shape, seed=seed).abs()
    kept = prune.block_masks({"w": score}, sparsity, block=block)["w"].flatten(1)
    matrix = score.flatten(1)
    means, states = [], []
    for r in range(0, matrix.shape[0], block[0]):
        for c in range(0, matrix.shape[1], block[1]):
            inside = slice(r, r + block[0]), slice(c, c + block[1])
            assert kept[inside].all() or not kept[inside].any()
            means.append(matrix[inside].mean().item())
            states.append(bool(kept[inside].all()))
    means, states = np.array(means), np.array(states)
    assert (~states).sum() == round(sparsity * len(states))
    if states.any() and not states.all():
        assert means[states].min() >= means[~states].max() - 1e-6


# --- bad arguments of the builders ----------------------------------------------------------

GOOD = {"a": torch.ones(4, 4)}


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("choose", [prune.layer_masks, prune.global_masks, prune.block_masks])
def test_sparsity_must_be_in_the_range(choose, sparsity):
    with pytest.raises(ValueError, match=r"sparsity must be .* got"):
        choose(GOOD, sparsity)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prune.layer_masks(GOOD, "half"), TypeError, "sparsity must be a finite number"),
        (lambda: prune.layer_masks(GOOD, {"b": 0.5}), ValueError, r"names of scores, \['a'\], got"),
        (lambda: prune.layer_masks(GOOD, {"a": 1.0}), ValueError, r"sparsity\['a'\] .* got 1.0"),
        (lambda: prune.layer_masks({}, 0.5), ValueError, "at least one layer, got none"),
        (lambda: prune.layer_masks([GOOD["a"]], 0.5), TypeError, "mapping of names, got list"),
        (lambda: prune.global_masks({"a": [1.0]}, 0.5), TypeError, "tensor of floats, got list"),
        (lambda: prune.global_masks({"a": torch.arange(4)}, 0.5), TypeError, "got torch.int64"),
        (lambda: prune.global_masks({"a": torch.ones(0)}, 0.5), ValueError, "must not be empty"),
        (
            lambda: prune.global_masks({"a": torch.tensor([1.0, torch.nan])}, 0.5),
            ValueError,
            r"scores\['a'\] must not be NaN, got 1 NaN",
        ),
        (lambda: prune.threshold_masks(GOOD, float("nan")), ValueError, "threshold must be a fin"),
        (lambda: prune.n_m_masks(GOOD, n=3, m=2), ValueError, r"n must be .* in \[1, 2\], got 3"),
        (lambda: prune.n_m_masks(GOOD, n=0), ValueError, r"n must be .* got 0"),
        (lambda: prune.n_m_masks({"a": torch.rand(2, 3)}), ValueError, "multiple of m=4 .* 'a'"),
        (
            lambda: prune.n_m_masks({"a": torch.rand(4)}),
            ValueError,
            r"\(out, in, ...\), got \(4,\)",
        ),
        (lambda: prune.block_masks({"a": torch.rand(4)}, 0.5), ValueError, r"\(out, in, ...\)"),
        (lambda: prune.block_masks(GOOD, 0.5, block=(0, 4)), ValueError, "block .* got 0"),
        (
            lambda: prune.block_masks(GOOD, 0.5, block=4),
            TypeError,
            r"block must be a pair \(rows, columns\), got 4",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- the mask set ---------------------------------------------------------------------------


@st.composite
def mask_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    arrays = hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    return {name: torch.from_numpy(draw(arrays)) for name in names}


@settings(deadline=None)
@given(mask_dicts())
def test_sparsity_is_the_share_of_false(masks):
    mask_set = MaskSet(masks)
    everything = torch.cat([mask.flatten() for mask in masks.values()])
    assert mask_set.sparsity == pytest.approx((~everything).float().mean().item(), abs=1e-6)
    by_layer = {name: (~mask).float().mean().item() for name, mask in masks.items()}
    assert mask_set.sparsity_by_layer() == pytest.approx(by_layer, abs=1e-6)


def test_a_mask_set_cannot_be_changed_from_outside():
    mask = torch.ones(3, dtype=torch.bool)
    masks = MaskSet({"weight": mask})
    mask[0] = False
    masks["weight"][1] = False
    assert masks["weight"].all()
    with pytest.raises(TypeError):
        masks["weight"] = mask


def test_equal_masks_are_equal():
    a, b = MaskSet({"w": torch.eye(2).bool()}), MaskSet({"w": torch.eye(2).bool()})
    assert a == b
    assert a != MaskSet({"w": torch.ones(2, 2).bool()})
    assert a != MaskSet({"v": torch.eye(2).bool()})
    assert a != {"w": torch.eye(2).bool()}


def test_and_keeps_what_both_keep():
    a = MaskSet({"x": torch.tensor([True, True, False]), "y": torch.tensor([False])})
    b = MaskSet({"x": torch.tensor([True, False, False]), "z": torch.tensor([True])})
    both = a & b
    assert {name: mask.tolist() for name, mask in both.items()} == {
        "x": [True, False, False],
        "y": [False],
        "z": [True],
    }


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3)])
def test_masks_of_different_shapes_do_not_combine(shape):
    """Broadcasting would make a mask of neither."""
    one, other = torch.ones(2, 3).bool(), torch.ones(shape).bool()
    with pytest.raises(ValueError, match=r"masks of 'w' must have one shape, got \(2, 3\) and \("):
        MaskSet({"w": one}) & MaskSet({"w": other})


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([torch.ones(2).bool()], TypeError, "mapping of names, got list"),
        ({}, ValueError, "at least one mask, got none"),
        ({"w": torch.ones(2)}, TypeError, "tensor of bools, got torch.float32"),
        ({"w": [True]}, TypeError, "tensor of bools, got list"),
        ({"w": torch.ones(0).bool()}, ValueError, "must not be empty"),
    ],
)
def test_masks_must_be_masks(masks, error, message):
    with pytest.raises(error, match=message):
        MaskSet(masks)


def test_applying_multiplies_by_the_mask():
    model = models.SmallCNN(width=4)
    before = state_of(model)
    masks = prune.global_masks(prune.magnitude_scores(model), 0.6)
    masks.apply_(model)
    for name, value in model.state_dict().items():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(value, expected)
    assert metrics.count_nonzeros(model) < metrics.count_params(model)
    assert prune.nonzero_masks(model) == masks


def test_cut_weights_become_plain_zeros():
    """No -0.0, which is no zero byte, and no NaN, which 0 times NaN would be."""
    layer = nn.Linear(3, 1)
    layer.weight.data.copy_(torch.tensor([[-1.0, torch.nan, torch.inf]]))
    MaskSet({"weight": torch.zeros(1, 3, dtype=torch.bool)}).apply_(layer)
    assert layer.weight.detach().numpy().tobytes() == bytes(12)


def test_recurrent_layers_compute_with_the_zeros():
    model, x = Recurrent().eval(), torch.randn(2, 4, 6, generator=make_generator(0))
    full = model(x)
    masks = prune.layer_masks(prune.magnitude_scores(model), 0.5)
    masks.apply_(model)
    assert not torch.equal(model(x), full)
    fresh = Recurrent().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(x), fresh(x))
    assert masks.sparsity_by_layer()["lstm.weight_hh_l0"] == 0.5


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"block9.weight": torch.zeros(3).bool()}, "another model: it has no parameter 'block9"),
        (
            {"classifier.weight": torch.zeros(10, 64).bool()},
            r"'classifier.weight' has shape \(10, 16\) there, got a mask of \(10, 64\)",
        ),
    ],
)
def test_masks_of_another_model_leave_it_untouched(masks, message):
    model = models.SmallCNN(width=4)
    before = state_of(model)
    good = {"block1.0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.bool)}
    for use in (MaskSet(good | masks).apply_, MaskSet(good | masks).check, MaskSet(good | masks)):
        with pytest.raises(ValueError, match=message):
            use(model)
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("build", "name", "message"),
    [
        (_shared, "0.weight", "must not share weights"),
        (_pruned_by_torch, "0.weight", "no parameter '0.weight'; call torch.nn.utils.prune.remove"),
        (
            lambda: torch.compile(nn.Sequential(nn.Linear(4, 4)), backend="eager"),
            "0.weight",
            "module itself.*_orig_mod",
        ),
    ],
)
def test_masks_refuse_models_that_cannot_be_pruned(build, name, message):
    model = build()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        MaskSet({name: torch.zeros(4, 4).bool()}).apply_(model)
    assert_untouched(model, before)


def test_masks_need_a_model():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got dict"):
        MaskSet({"w": torch.ones(1).bool()}).apply_({})


def test_a_model_compiled_in_place_computes_with_the_zeros():
    model, images = models.SmallCNN(width=4).eval(), torch.rand(2, 3, 8, 8)
    plain = copy.deepcopy(model)
    model.compile(backend="aot_eager")
    with torch.no_grad():
        full = model(images)
        masks = prune.global_masks(prune.magnitude_scores(model), 0.7)
        masks.apply_(model)
        masks.apply_(plain)
        assert not torch.equal(model(images), full)
        torch.testing.assert_close(model(images), plain(images))


# --- files ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(mask_dicts())
def test_masks_come_back_from_a_file(masks):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "masks.safetensors")
        MaskSet(masks).save(path)
        assert MaskSet.load(path) == MaskSet(masks)
        assert os.listdir(folder) == ["masks.safetensors"]


def test_a_weight_takes_one_bit_in_the_file(tmp_path):
    MaskSet({"w": torch.rand(1000, 80) > 0.5}).save(tmp_path / "masks")
    assert 10_000 < (tmp_path / "masks").stat().st_size < 10_500


def test_every_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "masks"
    MaskSet({"w": torch.tensor([True, False, True])}).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged or was not written by MaskSet.save"):
            MaskSet.load(path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        MaskSet.load(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no masks")
    with pytest.raises(ValueError, match=r"'.*text' is damaged or was not written"):
        MaskSet.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        MaskSet.load(tmp_path / "missing")


def test_a_failed_save_leaves_nothing(read_only_folder):
    with read_only_folder() as folder, pytest.raises(PermissionError):
        MaskSet({"w": torch.ones(3).bool()}).save(folder / "masks")


# --- training -------------------------------------------------------------------------------


def _sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


def _adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


@pytest.mark.parametrize("build_optimizer", [_sgd, _adamw])
def test_zeros_survive_momentum_and_weight_decay(build_optimizer):
    """E29: without the mask, training fills the zeros again."""
    x = torch.randn(32, 20, generator=make_generator(0))
    y = torch.randn(32, 5, generator=make_generator(1))
    kept, forgotten = nn.Linear(20, 5), nn.Linear(20, 5)
    zeros = {}
    for model, with_mask in ((kept, True), (forgotten, False)):
        optimizer = build_optimizer(model.parameters())
        for step in range(1, 11):
            if step == 4:  # momentum has gathered speed
                masks = prune.layer_masks(prune.magnitude_scores(model), 0.8)
                masks.apply_(model)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
            if step >= 4 and with_mask:
                masks(model, step)
                assert not model.weight[~masks["weight"]].any()
                assert model.weight[masks["weight"]].all()
        zeros[with_mask] = int((model.weight == 0).sum())
    assert zeros == {True: 80, False: 0}


def _stripes() -> Split:
    images = torch.randint(256, (48, 3, 4, 4), dtype=torch.uint8, generator=make_generator(0))
    images[:24] //= 4
    return Split(images, torch.arange(48) // 24)


def test_fit_keeps_the_zeros_and_learns_around_them():
    model, split = models.SmallCNN(2, width=4), _stripes()
    masks = prune.global_masks(prune.magnitude_scores(model), 0.5)
    masks.apply_(model)
    before = state_of(model)
    fit(model, split, split, epochs=2, batch_size=16, after_step=masks, progress=False)
    assert prune.nonzero_masks(model) == masks
    assert not torch.equal(model.state_dict()["block1.0.weight"], before["block1.0.weight"])


def test_a_checkpoint_made_with_other_masks_is_refused(tmp_path):
    split = _stripes()
    settings = {"batch_size": 16, "checkpoint": tmp_path / "state", "progress": False}
    for sparsity in (0.5, 0.5, 0.6):
        model = models.SmallCNN(2, width=4)
        masks = prune.global_masks(prune.magnitude_scores(model), sparsity)
        if sparsity == 0.5:
            fit(model, split, split, epochs=1, after_step=masks, **settings)
            assert prune.nonzero_masks(model) == masks
        else:
            with pytest.raises(ValueError, match="after_step"):
                fit(model, split, split, epochs=1, after_step=masks, **settings)


def test_no_global_random_state_is_touched():
    before = torch.get_rng_state()
    model = models.SmallCNN(width=4)
    scores = prune.magnitude_scores(model)
    prune.global_masks(scores, 0.5).apply_(model)
    prune.random_scores(model, generator=make_generator(0))
    assert torch.equal(before, torch.get_rng_state())
