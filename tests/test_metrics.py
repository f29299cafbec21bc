"""What is measured is checked against PyTorch's own counters and against numbers worked by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rac_helpers import metrics
from rac_helpers.metrics import LedgerRow

IMAGE = torch.zeros(1, 3, 32, 32)


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 10),
    )


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return torchvision.models.resnet18(weights=None)


def torch_flops(model: nn.Module, example: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(example)
    return counter.get_total_flops()


# --- accuracy -------------------------------------------------------------------------------


class Brightest(nn.Module):
    """Says which channel is the brightest, and fails in training mode."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return images.float().mean(dim=(-2, -1))


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=20), batch_size=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_accuracy_is_the_fraction_of_hits(labels, batch_size):
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    images[:, 1] = 255  # always channel 1
    model = Brightest()
    got = metrics.accuracy(model, (images, torch.tensor(labels)), batch_size=batch_size)
    assert got == labels.count(1) / len(labels)
    assert model.training


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), "split.images must be a uint8 tensor"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=int), "n >= 1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 3]), r"in \[0, 2\], got 3"),
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            torch.tensor([0]),
            "got 2 images and 1 labels",
        ),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0, 1], "int64 tensor .* got list"),
    ],
)
def test_accuracy_names_what_does_not_fit(images, labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.accuracy(Brightest(), (images, labels))


# --- parameters and zeros -------------------------------------------------------------------


def test_parameters_of_resnet18(resnet18):
    assert metrics.count_params(resnet18) == 11_689_512
    convolutions = [m for m in resnet18.modules() if isinstance(m, nn.Conv2d)]
    assert sum(map(metrics.count_params, convolutions)) == 11_166_912
    shortcuts = [m for m in convolutions if m.kernel_size == (1, 1)]
    assert sum(map(metrics.count_params, shortcuts)) == 11_166_912 - 10_994_880  # E62 without them


def test_frozen_parameters_can_be_left_out():
    model = small_cnn()
    model[0].requires_grad_(False)
    left = metrics.count_params(model) - metrics.count_params(model, trainable_only=True)
    assert left == metrics.conv_params(3, 8, 3)


def test_a_weight_in_two_places_counts_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert metrics.count_params(model) == 16


@given(
    groups=st.integers(1, 4),
    c_in=st.integers(1, 4),
    c_out=st.integers(1, 4),
    kernel=st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    bias=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_conv_formula_equals_the_layer(groups, c_in, c_out, kernel, bias):
    layer = nn.Conv2d(groups * c_in, groups * c_out, kernel, groups=groups, bias=bias)
    formula = metrics.conv_params(groups * c_in, groups * c_out, kernel, groups=groups, bias=bias)
    assert formula == metrics.count_params(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 3, 1), "c_in must be an integer >= 1, got 0"),
        ((8, 8, 0, 1), "kernel must be an integer >= 1, got 0"),
        ((8, 6, 3, 4), "multiples of groups=4, got 8 and 6"),
    ],
)
def test_conv_formula_refuses(arguments, message):
    c_in, c_out, kernel, groups = arguments
    with pytest.raises(ValueError, match=message):
        metrics.conv_params(c_in, c_out, kernel, groups=groups)


@given(zeros=st.integers(0, 24))
def test_nonzeros_and_sparsity(zeros):
    layer = nn.Linear(6, 4, bias=False)
    nn.init.ones_(layer.weight)
    with torch.no_grad():
        layer.weight.view(-1)[:zeros] = 0
    assert metrics.count_nonzeros(layer) == 24 - zeros
    assert metrics.sparsity(layer) == pytest.approx(zeros / 24)


def test_sparsity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="model must have at least one parameter"):
        metrics.sparsity(nn.ReLU())


# --- MACs -----------------------------------------------------------------------------------


def test_macs_of_resnet18_equal_torch_and_the_published_number(resnet18):
    image = torch.zeros(1, 3, 224, 224)
    macs = metrics.count_macs(resnet18, image)
    assert 2 * macs == metrics.count_flops(resnet18, image) == torch_flops(resnet18, image)
    assert macs == 1_814_073_344


@pytest.mark.parametrize("batch", [1, 3])
def test_macs_of_a_small_cnn_equal_torch(batch):
    model, images = small_cnn(), IMAGE.expand(batch, -1, -1, -1)
    assert metrics.count_flops(model, images) == torch_flops(model, images)
    assert list(metrics.macs_by_layer(model, images)) == ["0", "3", "4", "8"]


class Bypass(nn.Sequential):
    """Uses the weights of its layer without calling it, as compiled code does."""

    def forward(self, x):
        return nn.functional.conv2d(x, self[0].weight)


def test_macs_of_layers_that_are_not_called_are_an_error_not_zero():
    model, image = Bypass(nn.Conv2d(3, 2, 1, bias=False)), torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="called none of 1; count a compiled model before"):
        metrics.count_macs(model, image)


def test_macs_of_a_compiled_model_are_right_or_an_error():
    """Whether compiled code notices the hooks of a count depends on what was compiled before."""
    model, image = nn.Sequential(nn.Conv2d(3, 2, 1)), torch.zeros(1, 3, 4, 4)
    right = metrics.count_macs(model, image)
    model.compile(backend="eager")
    with torch.no_grad():
        model.eval()(image)  # compiled here, without hooks
    with contextlib.suppress(ValueError):
        assert metrics.count_macs(model, image) == right


def test_macs_of_one_and_three_dimensions_equal_torch():
    for model, shape in [
        (nn.Conv1d(4, 8, 3, groups=2, stride=2), (1, 4, 17)),
        (nn.Conv3d(2, 3, 3), (1, 2, 5, 6, 7)),
        (nn.Linear(5, 7), (2, 3, 5)),
    ]:
        example = torch.zeros(shape)
        assert metrics.count_flops(model, example) == torch_flops(model, example)


def test_a_layer_used_twice_counts_twice_and_zeros_count():
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    assert metrics.count_macs(nn.Sequential(layer, layer), torch.zeros(1, 4)) == 32


def test_counting_leaves_no_trace():
    model = small_cnn().train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    metrics.count_macs(model, IMAGE)
    with pytest.raises(RuntimeError):
        metrics.count_macs(model, torch.zeros(1, 5, 8, 8))
    assert model.training
    assert not model[1].training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# --- bytes ----------------------------------------------------------------------------------


def test_size_is_that_of_the_file(tmp_path):
    model = small_cnn()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert metrics.size_bytes(model) == os.path.getsize(tmp_path / "model.safetensors")


def test_size_falls_with_the_number_format_but_not_with_zeros():
    model = nn.Linear(100, 100, bias=False)
    full = metrics.size_bytes(model)
    assert full > 40_000
    nn.init.zeros_(model.weight)
    assert metrics.size_bytes(model) == full
    assert full - metrics.size_bytes(model.half()) == 20_000


def test_tied_weights_are_stored_once_and_views_whole():
    tied = nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False))
    apart = metrics.size_bytes(tied)
    tied[1].weight = tied[0].weight
    assert 40_000 < metrics.size_bytes(tied) < apart - 40_000
    base = torch.zeros(10, 10)
    assert metrics.size_bytes({"a": base[:5], "b": base.T, "c": base[5:]}) > 4 * (50 + 100 + 50)
    assert metrics.size_bytes({"a": torch.zeros(0), "b": torch.zeros(0)}) > 0


def test_size_of_something_else_is_refused():
    with pytest.raises(TypeError, match="scale must be a tensor, got float"):
        metrics.size_bytes({"scale": 0.5})


@pytest.mark.parametrize(
    ("model", "floats"),
    [
        (nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 1)), 10 + 100 + 100),
        (nn.Sequential(nn.Linear(10, 100), nn.ReLU(inplace=True)), 10 + 100),
        (nn.Sequential(nn.Linear(10, 100), nn.Unflatten(1, (4, 25)), nn.Flatten()), 10 + 100),
        (nn.Identity(), 10),
    ],
)
@pytest.mark.parametrize("batch", [1, 7])
def test_peak_memory_equals_the_sum_by_hand(model, floats, batch):
    for _ in range(2):  # nothing remains from the first time
        assert metrics.peak_memory_bytes(model, torch.zeros(batch, 10)) == 4 * floats * batch


class Residual(nn.Module):
    """The input of a block lives until the addition: skip connections cost memory."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.skip, self.layers = skip, nn.ModuleList(nn.Linear(50, 50) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x)
        kept = x if self.skip else None
        x = self.layers[1](x)
        x = self.layers[2](x)
        return x if kept is None else x + kept


def test_peak_memory_sees_what_a_skip_connection_holds():
    example = torch.zeros(1, 50)
    assert metrics.peak_memory_bytes(Residual(skip=False), example) == 4 * 50 * 3
    assert metrics.peak_memory_bytes(Residual(skip=True), example) == 4 * 50 * 4


def test_peak_memory_of_resnet18(resnet18):
    """Highest at the first batch norm: image, its input, its output."""
    image = torch.zeros(1, 3, 224, 224)
    wanted = 4 * (3 * 224**2 + 2 * 64 * 112**2)
    assert metrics.peak_memory_bytes(resnet18, image) == wanted


def test_peak_memory_counts_uint8_images_as_bytes():
    class ToFloat(nn.Module):
        def forward(self, images):
            return images.float()

    assert metrics.peak_memory_bytes(ToFloat(), torch.zeros(8, dtype=torch.uint8)) == 8 + 32


# --- time (never asserted: other programs run, too) -----------------------------------------


def test_latency_runs_as_often_as_it_says():
    class Counter(nn.Module):
        calls = 0

        def forward(self, x):
            assert torch.is_inference_mode_enabled()
            assert not self.training
            self.calls += 1
            return x

    model = Counter()
    latency = metrics.latency_ms(model, IMAGE, runs=11, warmup=3)
    assert model.calls == 14
    assert latency.runs == 11
    assert latency.threads == torch.get_num_threads()
    assert 0 < latency.q25_ms <= latency.median_ms <= latency.q75_ms
    assert latency.iqr_ms == latency.q75_ms - latency.q25_ms
    assert "11 runs" in str(latency)
    assert model.training


def test_helpers_are_not_public():
    assert {"check_split", "device_of", "eval_mode"}.isdisjoint(metrics.__all__)
    assert not hasattr(metrics, "eval_mode")


@pytest.mark.parametrize("change", [{"runs": 0}, {"warmup": -1}])
def test_latency_refuses(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be an integer"):
        metrics.latency_ms(nn.Identity(), IMAGE, **change)


# --- ratios ---------------------------------------------------------------------------------


@given(total=st.integers(2, 10**7), data=st.data())
def test_three_definitions_one_ratio(total, data):
    zeros = data.draw(st.integers(0, total - 1))
    ratio = metrics.compression_ratio(total, total - zeros)
    assert ratio >= 1
    assert metrics.ratio_from_fraction((total - zeros) / total) == pytest.approx(ratio)
    if zeros < 0.999 * total:  # beyond, the share is too close to 1/2 for floats
        share = total / (total + zeros)
        assert metrics.ratio_from_zero_share(share) == pytest.approx(ratio, rel=1e-9)


def test_numbers_of_the_articles():
    assert metrics.compression_ratio(240, 6.9) == pytest.approx(34.78, abs=0.01)  # E43
    assert metrics.ratio_from_fraction(6.9 / 240) == pytest.approx(34.78, abs=0.01)
    share = 11_986_370 / (11_986_370 + 2_545_152)  # E62: printed as 18.64 %
    assert share == pytest.approx(0.8249, abs=1e-4)
    assert metrics.ratio_from_zero_share(share) == pytest.approx(11_986_370 / 9_441_218)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.compression_ratio(0, 1), "original must be a finite number > 0, got 0"),
        (lambda: metrics.compression_ratio(1, -1), "compressed must be a finite number >= 0"),
        (lambda: metrics.compression_ratio(1, math.inf), "compressed must be a finite number"),
        (lambda: metrics.ratio_from_zero_share(0.5), "share must be a finite number > 0.5"),
        (lambda: metrics.ratio_from_zero_share(0.1864), r"share .* in \[0.5, 1\], got 0.1864"),
    ],
)
def test_ratios_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- statistics -----------------------------------------------------------------------------

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(values=VALUES, level=st.sampled_from([0.5, 0.95, 0.99]))
def test_interval_equals_scipy(values, level):
    got = metrics.mean_interval(values, level=level)
    assert (got.n, got.level) == (len(values), level)
    assert got.mean == pytest.approx(np.mean(values))
    assert got.std == pytest.approx(np.std(values, ddof=1))
    if stats.sem(values) > 0:
        wanted = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
        assert (got.low, got.high) == pytest.approx(wanted)


def test_interval_holds_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3, 2, size=(2000, 4))
    intervals = [metrics.mean_interval(row.tolist()) for row in draws]
    hits = sum(interval.low <= 3 <= interval.high for interval in intervals)
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


@given(values=VALUES, shift=st.floats(-5, 5))
def test_a_constant_difference_has_no_spread(values, shift):
    got = metrics.paired_difference([value + shift for value in values], values)
    assert got.mean == pytest.approx(shift, abs=1e-9)
    assert got.std == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mean_interval([1.0]), "values must hold at least 2 numbers, got 1"),
        (lambda: metrics.mean_interval([1.0, math.nan]), "each of values .* got nan"),
        (lambda: metrics.mean_interval([1, 2], level=95), r"level must be in \(0, 1\), got 95"),
        (lambda: metrics.paired_difference([1, 2], [1]), "equally long, got 2 and 1 values"),
    ],
)
def test_statistics_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- ledger ---------------------------------------------------------------------------------


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1) / 255)


TEST = (torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))


def test_ledger_row_measures_all():
    model = Tiny()
    nn.init.zeros_(model.linear.weight)
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([1.0, 0.5]))
    row = metrics.ledger_row(model, "zeros", test=TEST, runs=5)
    assert dataclasses.replace(row, latency_ms=None, latency_iqr_ms=None) == LedgerRow(
        "zeros",
        accuracy=1.0,
        params=98,
        nonzeros=2,
        macs=96,
        size_bytes=metrics.size_bytes(model),
    )
    assert row.latency_ms > 0
    assert row.latency_iqr_ms >= 0


def test_ledger_row_without_clock_and_with_another_example():
    row = metrics.ledger_row(Tiny(), "tiny", test=TEST, example=TEST[0][:2], runs=0)
    assert row.latency_ms is row.latency_iqr_ms is None
    assert row.macs == 2 * 96


ROWS = [
    LedgerRow("dense", 0.90, 853_018, 853_018, 125_485_696, 3_500_000, 10.0, 0.5),
    LedgerRow("dense", 0.92, 853_018, 853_018, 125_485_696, 3_500_000, 12.0, 0.7),
    LedgerRow("dense", 0.94, 853_018, 853_018, 125_485_696, 3_500_000, 50.0, 0.6),
    LedgerRow("pruned", 0.91, 853_018, 170_604),
    LedgerRow("unknown"),
]


def test_ledger_numbers_are_averages_over_runs():
    table = metrics.ledger_numbers(ROWS)
    assert list(table.index) == ["dense", "pruned", "unknown"]
    dense = table.loc["dense"]
    assert dense["accuracy"] == pytest.approx(0.92)
    assert dense["accuracy_std"] == pytest.approx(0.02)
    assert (dense["n"], dense["latency_ms"], dense["latency_iqr_ms"]) == (3, 12.0, 0.6)
    assert table.loc["pruned", "nonzeros"] == 170_604
    assert table.loc["unknown"].drop("n").isna().all()
    assert all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes)


def test_ledger_reads_well():
    table = metrics.ledger(ROWS)
    assert table.loc["dense"].tolist() == [
        "92.00 ± 2.00 (n=3)",
        "853,018",
        "853,018",
        "125,485,696",
        "3,500,000",
        "12.00 (IQR 0.60)",
    ]
    assert table.loc["pruned"].tolist() == ["91.00 (n=1)", "853,018", "170,604", "—", "—", "—"]
    assert set(table.loc["unknown"]) == {"—"}
    html = table.to_html()
    for text in ("accuracy (%)", "latency (ms)", "file (bytes)", "853,018", "±"):
        assert text in html
        assert text in table.to_string()
    assert "nan" not in html.lower()
    assert html.count("<tr") == 1 + len(table)  # one line of headings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 91.2}, r"accuracy must be a finite number in \[0, 1\], got 91.2"),
        ({"accuracy": math.nan}, "accuracy must be .* got nan"),
        ({"size_bytes": -1}, "size_bytes must be .* >= 0, got -1"),
        ({"name": ""}, "name must be a text"),
    ],
)
def test_ledger_row_refuses(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LedgerRow(**({"name": "dense"} | change))


def test_ledger_refuses_nothing_and_strangers():
    with pytest.raises(ValueError, match="rows must hold at least one LedgerRow"):
        metrics.ledger([])
    with pytest.raises(TypeError, match="rows must hold LedgerRow only, got dict"):
        metrics.ledger([{"name": "dense"}])


def test_peak_memory_of_a_slice_does_not_count_what_it_was_cut_from():
    model = nn.Linear(10, 5)
    whole = torch.zeros(1000, 10)
    part, copy = whole[:1], whole[:1].clone()
    assert metrics.peak_memory_bytes(model, part) == metrics.peak_memory_bytes(model, copy)
