"""The timing of pruned networks runs, and compares what it says; how fast they are is no test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments import pruning_latency
from rac_helpers import metrics, models
from rac_helpers.records import frame, load

KEYS = [
    ("dense", 1.0),
    ("masked", 1.0),
    ("channel-l1", 0.5),
    ("channel-l1", 0.25),
    ("torch-pruning", 0.5),
    ("torch-pruning", 0.25),
    ("narrow", 0.25),
]
IMAGE = torch.zeros(1, 3, 32, 32)


def small_resnet(num_classes: int, width: int, *, seed: int) -> torch.nn.Module:
    return models.ResNet(8, num_classes, width, seed=seed)


@pytest.fixture(scope="module")
def networks():
    return pruning_latency.networks(small_resnet)


def test_the_networks_are_what_they_are_called(networks):
    assert list(networks) == KEYS
    macs = {key: metrics.count_macs(network, IMAGE) for key, network in networks.items()}
    dense = networks["dense", 1.0]
    assert macs["masked", 1.0] == macs["dense", 1.0]  # zeroed is not removed
    weights = metrics.count_params(dense) - metrics.count_nonzeros(networks["masked", 1.0])
    assert weights > 0.88 * metrics.count_params(dense)
    for (name, share), count in macs.items():
        if name in ("channel-l1", "torch-pruning"):
            assert 0.8 * share < count / macs["dense", 1.0] <= share, name
    assert 0.2 < macs["narrow", 0.25] / macs["dense", 1.0] < 0.3
    assert not any(network.training for network in networks.values())


def test_a_short_run_is_recorded(networks, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(pruning_latency, "networks", lambda build: networks)
    out = tmp_path / "latency.json"
    command = ["--model", "resnet20", "--threads", "1", "--rounds", "2", "--turn-s", "0.001"]
    pruning_latency.main([*command, "--modes", "eager", "--out", str(out)])
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]
    content, rows = load(out), frame(out)
    assert content["command"] == "python -m experiments.pruning_latency " + " ".join(
        [*command, "--modes", "eager"]
    )
    assert list(zip(rows["network"], rows["macs_share"], strict=True)) == 2 * KEYS
    assert rows["batch_size"].tolist() == 7 * [1] + 7 * [64]
    assert set(rows["mode"]) == {"eager"}
    assert set(rows["threads"]) == {1}
    assert (rows["latency_ms"] > 0).all()
    assert (rows["speedup_q25"] <= rows["speedup"]).all()
    assert (rows["speedup"] <= rows["speedup_q75"]).all()
    dense = rows[rows["network"] == "dense"]
    assert (dense[["speedup", "speedup_q25", "speedup_q75"]] == 1).all(axis=None)
    for key in ("params", "macs"):
        masked = rows[rows["network"] == "masked"]
        assert masked[key].tolist() == dense[key].tolist()


def test_speedups_are_taken_within_a_round(networks):
    """A machine that gets slower hits both; the medians alone would say otherwise."""

    class Rows(list):
        def append(self, **row):
            super().append(row)

    times = {("dense", 1.0): np.array([2.0, 4.0, 40.0]), ("masked", 1.0): np.array([1.0, 4.0, 10])}
    rows = Rows()
    pruning_latency.append_rows(rows, times, networks, {"mode": "eager"})
    assert [row["metrics"]["speedup"] for row in rows] == [1, 2]  # of 2, 1 and 4
    assert [row["metrics"]["latency_ms"] for row in rows] == [4, 4]
    assert rows[1]["config"] == {"network": "masked", "macs_share": 1.0, "mode": "eager"}


def test_each_network_has_a_turn_in_each_round(monkeypatch):
    """In another order each time, so that none always follows the same one."""
    turns = []

    def latency_ms(module, images, *, runs, warmup=3):
        turns.append(module)
        return type("Latency", (), {"median_ms": float(len(turns))})

    monkeypatch.setattr(pruning_latency.metrics, "latency_ms", latency_ms)
    modules = {(name, 1.0): name for name in "abc"}
    times = pruning_latency.measure(modules, IMAGE, rounds=3, turn_s=0.001, desc="test")
    assert "".join(turns) == "abc" + "abc" + "bca" + "cab"
    assert times["a", 1.0].tolist() == [4, 9, 11]


@pytest.mark.parametrize("option", ["--threads", "--rounds"])
def test_bad_numbers_are_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        pruning_latency.main([option, "0", "--out", str(tmp_path / "latency.json")])
    assert f"{option} must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_turn_takes_time(value, tmp_path, capsys):
    with pytest.raises(SystemExit):
        pruning_latency.main([f"--turn-s={value}", "--out", str(tmp_path / "latency.json")])
    assert f"--turn-s must be above 0, got {float(value)}" in capsys.readouterr().err


def test_a_network_that_cannot_get_so_small_is_named():
    with pytest.raises(RuntimeError, match=r"did not reach a share of 0\.0001"):
        pruning_latency.torch_pruned(small_resnet(10, 2, seed=0).eval(), IMAGE, 0.0001)
