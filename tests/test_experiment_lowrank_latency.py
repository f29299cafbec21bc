"""The timing of split layers runs, and compares what it says; how fast they are is no test."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments import lowrank_latency
from rac_helpers import metrics
from rac_helpers.records import frame, load

SHARES = lowrank_latency.SHARES
METHODS = ("channel", "spatial", "tucker")


@pytest.fixture(scope="module")
def groups():
    return list(lowrank_latency.groups(small=True))


def test_the_modules_are_what_they_are_called(groups):
    assert [group.name for group in groups] == ["linear-16", "conv-8", "resnet20"]
    for group in groups:
        methods = ("linear",) if group.name == "linear-16" else METHODS
        expected = [("whole", 1.0), *((method, share) for method in methods for share in SHARES)]
        assert list(group.modules) == expected
        example = torch.zeros(2, *group.input_shape)
        outputs = {tuple(module(example).shape) for module in group.modules.values()}
        assert len(outputs) == 1
        whole = metrics.count_params(group.modules["whole", 1.0])
        for (method, share), module in group.modules.items():
            params = metrics.count_params(module)
            assert params <= whole, (method, share)
            if group.name == "conv-8" and method != "whole":
                assert 0.5 * share * whole < params <= share * whole or module.rank in (1, (1, 1))
        assert not any(module.training for module in group.modules.values())


def test_compiled_ones_are_fewer_and_copies(groups):
    """Made, not run: that would take a compiler."""
    for group in groups:
        assert lowrank_latency.prepared(group, "eager") is group.modules
        compiled = lowrank_latency.prepared(group, "compiled")
        shares = {share for method, share in compiled if method != "whole"}
        assert shares == ({0.25} if group.name == "resnet20" else {0.25, 0.5, 1.0})
        assert next(iter(compiled)) == ("whole", 1.0)
        assert not {id(m) for m in compiled.values()} & {id(m) for m in group.modules.values()}
        assert all(m._compiled_call_impl is not None for m in compiled.values())
        assert all(m._compiled_call_impl is None for m in group.modules.values())


def test_a_short_run_is_recorded(groups, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(lowrank_latency, "groups", lambda: groups)
    monkeypatch.setattr(lowrank_latency, "BATCH_SIZES", (1, 3))
    out = tmp_path / "latency.json"
    command = ["--threads", "1", "--rounds", "2", "--turn-s", "0.0001", "--modes", "eager"]
    lowrank_latency.main([*command, "--out", str(out)])
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]
    content, rows = load(out), frame(out)
    assert content["command"] == "python -m experiments.lowrank_latency " + " ".join(command)
    assert len(rows) == 2 * sum(len(group.modules) for group in groups)
    assert set(rows["batch_size"]) == {1, 3}
    assert set(rows["mode"]) == {"eager"}
    assert set(rows["threads"]) == {1}
    assert (rows["latency_ms"] > 0).all()
    assert (rows["speedup_q25"] <= rows["speedup"]).all()
    assert (rows["speedup"] <= rows["speedup_q75"]).all()
    whole = rows[rows["method"].eq("whole")]
    assert (whole[["speedup", "speedup_q25", "speedup_q75"]] == 1).all(axis=None)
    layers = rows[~rows["method"].eq("whole") & ~rows["module"].eq("resnet20")]
    assert layers["rank"].min() == 1
    assert (layers["rank"].isna() == layers["method"].eq("tucker")).all()
    assert (layers["rank_out"].isna() == ~layers["method"].eq("tucker")).all()
    for _, own in rows.groupby(["module", "method", "batch_size"]):
        for key in ("params", "macs", "size_bytes"):
            assert own.sort_values("share")[key].is_monotonic_increasing


@pytest.mark.parametrize("option", ["--threads", "--rounds"])
def test_bad_numbers_are_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        lowrank_latency.main([option, "0", "--out", str(tmp_path / "latency.json")])
    assert f"{option} must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_turn_takes_time(value, tmp_path, capsys):
    with pytest.raises(SystemExit):
        lowrank_latency.main([f"--turn-s={value}", "--out", str(tmp_path / "latency.json")])
    assert f"--turn-s must be above 0, got {float(value)}" in capsys.readouterr().err


def test_layers_of_a_network_are_split(groups):
    network = groups[-1].modules["spatial", 0.25]
    assert isinstance(network.stem[0], nn.Conv2d)
    assert isinstance(network.classifier, nn.Linear)
    assert type(network.stage2[0].conv1).__name__ == "SpatialSplit"
