"""nas/latency.py: a network is the sum of its blocks. (What takes how long is not tested here.)"""

import pytest
import torch
from torch import nn

from rac_helpers import metrics
from rac_helpers.nas import DIGITS_LARGEST, LatencyTable, build, parts_of
from rac_helpers.rng import make_generator

IMAGE = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def test_parts_are_all_that_multiplies():
    model = build((0, 1, 2, 1, 1), seed=0)
    parts = parts_of(model, IMAGE)
    macs = sum(metrics.count_macs(block, example) for _, block, example in parts.values())
    assert macs == metrics.count_macs(model, IMAGE) + metrics.count_macs(nn.Flatten(), IMAGE)
    assert not model.stem[0]._forward_hooks
    assert [*parts] == [
        "normalize",
        "stem",
        *(f"stage{s}.block{b}_{op}" for s, op in enumerate(("conv3", "sep3", "bottleneck"), 1)
          for b in (1, 2)),
        "classifier",
    ]  # fmt: skip


def test_parts_chain_to_the_whole():
    """The input of each block is the output of the one before, so nothing is left out."""
    model = build((0, 3, 2, 0, 1), seed=0).eval()
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=make_generator(0))
    x = image
    with torch.no_grad():
        for name, (_, block, example) in parts_of(model, image).items():
            if name == "classifier":
                x = x.mean(dim=(2, 3))
            assert torch.equal(x, example)
            x = block(x)
        assert torch.equal(x, model(image))


def test_same_kind_same_work():
    found = {}
    for genome in [*DIGITS_LARGEST, (0, 1, 2, 0, 0), (1, 1, 1, 2, 0), (2, 0, 0, 1, 1)]:
        for kind, block, example in parts_of(build(genome, seed=0), IMAGE).values():
            macs = metrics.count_macs(block, example)
            assert found.setdefault(kind, macs) == macs


def test_estimate_is_the_sum(monkeypatch):
    calls = []

    def one_ms(block, example, *, runs):
        calls.append(runs)
        return metrics.Latency(1.0, 1.0, 1.0, runs, 1)

    monkeypatch.setattr(metrics, "latency_ms", one_ms)
    models = [
        build(genome, seed=0) for genome in ((0, 0, 0, 0, 0), (0, 0, 0, 0, 1), (3, 0, 0, 0, 0))
    ]
    table = LatencyTable.measure(models, IMAGE, runs=7)
    assert calls == [7] * len(table)
    assert len(table) == 9 - 1  # the second blocks of stages 2 and 3; of stage 1 both are alike
    assert [table.estimate_ms(model, IMAGE) for model in models] == [6, 9, 5]


def test_wrong_arguments():
    table = LatencyTable({"normalize 3x32x32": 1.0})
    with pytest.raises(ValueError, match="the table must have every block of the model, 'class"):
        table.estimate_ms(build((0, 0, 0, 0, 0), seed=0), IMAGE)
    with pytest.raises(TypeError, match="model must be a StagedNetwork, got Linear"):
        parts_of(nn.Linear(1, 1), IMAGE)
    with pytest.raises(ValueError, match=r"image must have shape \(1, 3, H, W\), got \(2, 3, 32, "):
        parts_of(build((0, 0, 0, 0, 0), seed=0), IMAGE.expand(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"latencies_ms\['stem'\] must be a finite number >= 0"):
        LatencyTable({"stem": float("nan")})
    with pytest.raises(ValueError, match="runs must be an integer >= 1, got 0"):
        LatencyTable.measure([], IMAGE, runs=0)
