"""Split layers: the same at full rank, the promised error below it, and one layer again."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rac_helpers.lowrank import (
    ChannelSplit,
    HooiSplit,
    LayerSplit,
    LinearSplit,
    SpatialSplit,
    TuckerSplit,
    singular_values,
    truncation_error,
    tucker2,
    tucker_break_even,
)
from rac_helpers.lowrank.layers import Moves
from rac_helpers.metrics import count_params
from rac_helpers.rng import make_generator, scoped_seed

CONV_SPLITS = [ChannelSplit, SpatialSplit, TuckerSplit, HooiSplit]
MOVES = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1, "bias": False},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"padding": "same", "dilation": 2},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular", "stride": 2},
    {"padding": 1, "padding_mode": "replicate"},
]


def conv(c_in=6, c_out=8, kernel=3, *, seed=0, **moves) -> nn.Conv2d:
    with scoped_seed(seed):
        return nn.Conv2d(c_in, c_out, kernel, **moves)


def linear(n=9, m=7, *, seed=0, **how) -> nn.Linear:
    with scoped_seed(seed):
        return nn.Linear(n, m, **how)


def pixels(channels=6, *, seed=1) -> torch.Tensor:
    return torch.randn(2, channels, 9, 11, generator=make_generator(seed))


def full(split: type[LayerSplit], layer: nn.Module) -> LayerSplit:
    return split(layer, split.ranks(layer)[-1])


def middle(split: type[LayerSplit], layer: nn.Module) -> LayerSplit:
    ranks = split.ranks(layer)
    return split(layer, ranks[len(ranks) // 2])


# -- full rank and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("moves", MOVES, ids=str)
@pytest.mark.parametrize("split", CONV_SPLITS)
def test_full_rank_gives_the_outputs(split, moves):
    layer = conv(**moves)
    found, expected = full(split, layer)(pixels()), layer(pixels())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8, 3), (8, 6, 3), (3, 16, (3, 5)), (7, 5, 1), (1, 1, 2)])
@pytest.mark.parametrize("split", CONV_SPLITS)
def test_full_rank_of_all_shapes(split, shape):
    layer = conv(*shape)
    torch.testing.assert_close(full(split, layer).fuse().weight, layer.weight, rtol=0, atol=1e-6)
    x = pixels(shape[0])
    torch.testing.assert_close(full(split, layer)(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(9, 7), (4, 10), (1, 3), (5, 1)])
def test_linear_at_full_rank(shape, bias):
    layer = linear(*shape, bias=bias)
    x = torch.randn(2, 3, shape[0], generator=make_generator(1))
    torch.testing.assert_close(full(LinearSplit, layer)(x), layer(x), rtol=0, atol=1e-5)
    assert (full(LinearSplit, layer).last.bias is None) is (not bias)


@pytest.mark.parametrize("moves", MOVES, ids=str)
@pytest.mark.parametrize("split", CONV_SPLITS)
def test_fused_is_one_layer_that_computes_the_same(split, moves):
    layer = conv(**moves)
    part = middle(split, layer)
    one = part.fuse()
    assert type(one) is nn.Conv2d
    assert repr(one) == repr(layer)
    assert one.weight.shape == layer.weight.shape
    torch.testing.assert_close(one(pixels()), part(pixels()), rtol=0, atol=1e-5)
    assert not torch.allclose(one.weight, layer.weight, atol=1e-3)


def test_linear_fused():
    layer = linear()
    part, x = LinearSplit(layer, 3), torch.randn(4, 9, generator=make_generator(1))
    assert repr(part.fuse()) == repr(layer)
    torch.testing.assert_close(part.fuse()(x), part(x), rtol=0, atol=1e-5)
    assert torch.linalg.matrix_rank(part.fuse().weight, atol=1e-5) == 3


def test_a_split_is_made_of_plain_layers_in_the_order_of_the_paper():
    layer = conv(kernel=(3, 5), stride=(2, 3), padding=(1, 2), dilation=(1, 2))
    x = pixels()
    c, s, t = ChannelSplit(layer, 4), SpatialSplit(layer, 4), TuckerSplit(layer, (3, 5))
    kernels = [part.kernel_size for split in (c, s, t) for part in split.children()]
    assert kernels == [(3, 5), (1, 1), (3, 1), (1, 5), (1, 1), (3, 5), (1, 1)]
    out = F.conv2d(x, c.first.weight, None, (2, 3), (1, 2), (1, 2))
    torch.testing.assert_close(F.conv2d(out, c.last.weight, layer.bias), c(x))
    out = F.conv2d(x, s.first.weight, None, (2, 1), (1, 0), (1, 1))
    out = F.conv2d(out, s.last.weight, layer.bias, (1, 3), (0, 2), (1, 2))
    torch.testing.assert_close(out, s(x))
    out = F.conv2d(F.conv2d(x, t.first.weight), t.core.weight, None, (2, 3), (1, 2), (1, 2))
    torch.testing.assert_close(F.conv2d(out, t.last.weight, layer.bias), t(x))


# -- the error below full rank --------------------------------------------------------------------


def unfolded(split: type[LayerSplit], layer: nn.Module) -> torch.Tensor:
    """Written out again, entry by entry, so that a wrong unfolding shows."""
    if split is LinearSplit:
        return layer.weight.detach()
    out, inner, height, width = layer.weight.shape
    shape = (
        (out, inner * height * width) if split is ChannelSplit else (inner * height, out * width)
    )
    matrix = torch.empty(shape)
    for o in range(out):
        for i in range(inner):
            for h in range(height):
                for w in range(width):
                    place = (o, (i * height + h) * width + w)
                    if split is SpatialSplit:
                        place = (i * height + h, o * width + w)
                    matrix[place] = layer.weight[o, i, h, w]
    return matrix


@pytest.mark.parametrize("split", [LinearSplit, ChannelSplit, SpatialSplit])
def test_error_is_the_norm_of_the_discarded_values(split):
    layer = linear() if split is LinearSplit else conv(4, 5, (3, 2))
    values = singular_values(unfolded(split, layer))
    whole = layer.weight.double().norm().item()
    kept = split.energies(layer)
    assert list(kept) == split.ranks(layer) == list(range(1, len(values) + 1))
    for rank in split.ranks(layer):
        error = (split(layer, rank).fuse().weight - layer.weight).norm().item()
        assert error == pytest.approx(truncation_error(values, rank), abs=2e-6)
        assert error**2 == pytest.approx((1 - kept[rank]) * whole**2, abs=1e-5)


@pytest.mark.parametrize("split", [ChannelSplit, SpatialSplit])
def test_the_outputs_are_off_by_no_more_than_the_next_value(split):
    """On a patch of length one, the matrix left out gives at most its largest singular value."""
    layer = conv(4, 6, 3, bias=False)
    patch = F.normalize(torch.randn(4 * 9, generator=make_generator(2)), dim=0)
    difference = split(layer, 3)(patch.reshape(1, 4, 3, 3)) - layer(patch.reshape(1, 4, 3, 3))
    rest = unfolded(ChannelSplit, layer) - unfolded(ChannelSplit, split(layer, 3).fuse())
    assert 0 < difference.norm() <= torch.linalg.matrix_norm(rest, 2) + 1e-6


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(0, 1000), st.data())
@settings(max_examples=30, deadline=None)
def test_tucker_error_lies_between_its_bounds(c_in, c_out, kernel, seed, data):
    """At least what either side alone must lose, at most what both lose together."""
    generator = make_generator(seed)
    weight = torch.randn(c_out, c_in, kernel, kernel, generator=generator, dtype=torch.float64)
    ranks = data.draw(st.integers(1, c_in)), data.draw(st.integers(1, c_out))
    lost = [
        truncation_error(values, min(rank, len(values))) ** 2
        for dim, rank in ((1, ranks[0]), (0, ranks[1]))
        for values in [singular_values(weight.movedim(dim, 0).flatten(1))]
    ]
    errors = [tucker_error(weight, ranks, iterations=n) for n in (0, 1, 5)]
    for error in errors:
        assert max(lost) - 1e-9 <= error**2 <= sum(lost) + 1e-9
    assert errors[0] >= errors[1] - 1e-9
    assert errors[1] >= errors[2] - 1e-9


def tucker_error(weight: torch.Tensor, ranks: tuple[int, int], *, iterations: int) -> float:
    inputs, outputs, core = tucker2(weight, ranks, iterations=iterations)
    for columns in (inputs, outputs):
        eye = torch.eye(columns.shape[1], dtype=torch.float64)
        torch.testing.assert_close(columns.T @ columns, eye, rtol=0, atol=1e-10)
    back = torch.einsum("ir,srhw,os->oihw", inputs, core, outputs)
    return (weight - back).norm().item()


def test_iterations_help_where_the_first_guess_is_not_the_best():
    layer = conv(8, 8, 3)
    before, after = (
        (split(layer, (3, 3)).fuse().weight - layer.weight).norm().item()
        for split in (TuckerSplit, HooiSplit)
    )
    assert after < 0.999 * before


def test_energy_of_tucker_is_that_of_its_core():
    layer = conv(5, 8, 3)
    kept = TuckerSplit.energies(layer)
    assert list(kept) == TuckerSplit.ranks(layer)
    whole = layer.weight.double().square().sum().item()
    for rank, share in kept.items():
        core = TuckerSplit(layer, rank).core.weight.double().square().sum().item()
        assert core / whole == pytest.approx(share, abs=1e-6)
        error = (TuckerSplit(layer, rank).fuse().weight - layer.weight).norm().item()
        assert error**2 == pytest.approx((1 - share) * whole, abs=1e-5)
    assert list(kept.values())[-1] == pytest.approx(1)


# -- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("split", [*CONV_SPLITS, LinearSplit])
def test_weights_are_counted(split, bias):
    layer = linear(bias=bias) if split is LinearSplit else conv(5, 8, (3, 2), bias=bias)
    biases = layer.bias.numel() if bias else 0
    for rank in split.ranks(layer):
        part = split(layer, rank)
        assert part.rank == rank
        assert count_params(part) == split.count_weights(layer, rank) + biases
        smallest = split(layer, split.ranks(layer)[0])
        for name, times in split.growth(rank).items():
            weights = getattr(part, name).weight.numel()
            assert weights == times * getattr(smallest, name).weight.numel()


def test_counts_by_hand():
    layer = nn.Conv2d(16, 32, 3)
    assert ChannelSplit.count_weights(layer, 10) == 10 * (16 * 9 + 32)
    assert SpatialSplit.count_weights(layer, 10) == 10 * 3 * (16 + 32)
    assert TuckerSplit.count_weights(layer, (8, 16)) == 16 * 8 + 8 * 16 * 9 + 16 * 32
    assert LinearSplit.count_weights(nn.Linear(100, 50), 10) == 1500


def test_pairs_of_ranks_are_in_the_proportion_of_the_channels():
    assert TuckerSplit.ranks(nn.Conv2d(2, 4, 3)) == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert TuckerSplit.ranks(nn.Conv2d(4, 2, 3)) == [(1, 1), (2, 1), (3, 2), (4, 2)]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_break_even_of_tucker(c_in, c_out, kernel):
    f = tucker_break_even(c_in, c_out, kernel)
    assert 0 < f < 1
    whole = c_in * c_out * kernel**2
    assert f * (c_in**2 + c_out**2) + f * f * whole == pytest.approx(whole)


# -- what stays as it was -------------------------------------------------------------------------


@pytest.mark.parametrize("split", [*CONV_SPLITS, LinearSplit])
def test_the_layer_is_not_changed_and_shares_nothing(split):
    layer = linear() if split is LinearSplit else conv()
    before, state = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    part = middle(split, layer)
    one = part.fuse()
    with torch.no_grad():
        for value in (*part.parameters(), *one.parameters()):
            value.zero_()
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("split", [*CONV_SPLITS, LinearSplit])
def test_precision_mode_and_what_is_trained_are_kept(split):
    layer = linear() if split is LinearSplit else conv()
    layer = layer.double().eval()
    layer.weight.requires_grad_(False)
    part = middle(split, layer)
    for module in (part, part.fuse()):
        assert not any(m.training for m in module.modules())
        assert {p.dtype for p in module.parameters()} == {torch.float64}
        trained = {n for n, p in module.named_parameters() if p.requires_grad}
        assert trained == {n for n, _ in module.named_parameters() if n.endswith("bias")}
    assert all(p.is_contiguous() for p in part.parameters())


@pytest.mark.parametrize("split", [*CONV_SPLITS, LinearSplit])
def test_gradients_reach_every_part(split):
    layer = linear() if split is LinearSplit else conv()
    part = middle(split, layer)
    x = torch.randn(3, 9, generator=make_generator(0)) if split is LinearSplit else pixels()
    part(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_halves_of_moves_join_to_the_whole():
    for moves in MOVES:
        whole = Moves.of(conv(**moves))
        assert whole.down().joined(whole.along()) == whole


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("split", CONV_SPLITS)
def test_groups_are_refused(split):
    layer = nn.Conv2d(8, 8, 3, groups=2)
    message = "layer must have groups=1: one with groups is split already, got groups=2"
    for use in (lambda: split(layer, 1), lambda: split.ranks(layer), lambda: split.energies(layer)):
        with pytest.raises(ValueError, match=message):
            use()


class OwnConv(nn.Conv2d):
    """Could compute anything."""


@pytest.mark.parametrize(
    ("layer", "got"),
    [
        (nn.Linear(4, 4), "Linear"),
        (nn.Conv1d(4, 4, 3), "Conv1d"),
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
        (OwnConv(4, 4, 3), "OwnConv"),
        (torch.ones(4, 4, 3, 3), "Tensor"),
    ],
)
@pytest.mark.parametrize("split", CONV_SPLITS)
def test_other_layers_are_refused(split, layer, got):
    with pytest.raises(TypeError, match=rf"layer must be a plain nn\.Conv2d, got {got}"):
        split(layer, (1, 1) if issubclass(split, TuckerSplit) else 1)
    with pytest.raises(TypeError, match="layer must be a plain"):
        split.count_weights(layer, 1)


def test_linear_split_refuses_a_convolution():
    with pytest.raises(TypeError, match=r"layer must be a plain nn\.Linear, got Conv2d"):
        LinearSplit(conv(), 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_weights_is_refused():
    with pytest.raises(ValueError, match=r"layer must have weights, got shape \(0, 3\)"):
        LinearSplit(nn.Linear(3, 0), 1)


@pytest.mark.parametrize(("rank", "error"), [(0, ValueError), (9, ValueError), (2.0, TypeError)])
def test_wrong_ranks(rank, error):
    for use in (
        lambda: ChannelSplit(conv(), rank),
        lambda: ChannelSplit.count_weights(conv(), rank),
    ):
        with pytest.raises(error, match=r"rank must be an integer in \[1, 8\], got"):
            use()
    with pytest.raises(error, match=r"rank must be an integer in \[1, 7\], got"):
        LinearSplit(linear(), rank)
    if rank != 9:  # here up to 18
        with pytest.raises(error, match=r"rank must be an integer in \[1, 18\], got"):
            SpatialSplit(conv(), rank)


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (3, TypeError, r"rank must be a pair \(rank_in, rank_out\), got 3"),
        ((3,), TypeError, "rank must be a pair"),
        ((0, 1), ValueError, r"rank_in must be an integer in \[1, 6\], got 0"),
        ((7, 1), ValueError, r"rank_in must be an integer in \[1, 6\], got 7"),
        ((1, 9), ValueError, r"rank_out must be an integer in \[1, 8\], got 9"),
        ((1, 2.0), TypeError, "rank_out must be an integer"),
    ],
)
def test_wrong_pairs(rank, error, message):
    for use in (
        lambda: TuckerSplit(conv(), rank),
        lambda: tucker2(conv().weight, rank),
        lambda: TuckerSplit.count_weights(conv(), rank),
    ):
        with pytest.raises(error, match=message):
            use()


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (
            torch.ones(2, 2),
            ValueError,
            r"shape \(out, in, k_h, k_w\), none of them 0, got \(2, 2\)",
        ),
        (torch.ones(0, 2, 1, 1), ValueError, "none of them 0"),
        (torch.full((1, 1, 1, 1), math.nan), ValueError, "finite numbers only"),
        (torch.ones(1, 1, 1, 1, dtype=torch.int32), TypeError, r"floats, got torch\.int32"),
        ([1.0], TypeError, "weight must be a tensor of floats, got list"),
    ],
)
def test_wrong_kernels(weight, error, message):
    with pytest.raises(error, match=message):
        tucker2(weight, (1, 1))


def test_wrong_iterations_and_sizes():
    with pytest.raises(ValueError, match="iterations must be an integer >= 0, got -1"):
        tucker2(torch.ones(2, 2, 1, 1), (1, 1), iterations=-1)
    for name in ("c_in", "c_out", "kernel"):
        numbers = {"c_in": 4, "c_out": 4, "kernel": 3} | {name: 0}
        with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0"):
            tucker_break_even(**numbers)


@pytest.mark.parametrize("split", CONV_SPLITS)
def test_weights_that_are_not_finite_are_refused(split):
    layer = conv()
    layer.weight.data[0] = math.inf
    with pytest.raises(ValueError, match="must hold finite numbers only"):
        middle(split, layer)
