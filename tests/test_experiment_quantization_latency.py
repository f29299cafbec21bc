"""The timing of runtimes runs, and compares what it says; how fast they are is no test."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from experiments import quantization_latency, quantization_runtimes
from experiments.quantization_runtimes import Job, Variant
from rac_helpers import data, models
from rac_helpers.records import frame, load

KEYS = [("eager", "float32"), ("onnxruntime", "int8")]
IMAGES = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small(num_classes: int = 10, *, seed: int) -> nn.Module:
    return models.SmallCNN(num_classes, 4, seed=seed)


def two(job: Job) -> dict:
    """The network, and one that says the opposite."""
    opposite = quantization_runtimes.Calls(lambda images: -job.model(images))
    return {KEYS[0]: Variant(job.model, 400), KEYS[1]: Variant(opposite, 100)}


def test_a_short_run_is_recorded(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(quantization_latency, "variants", two)
    monkeypatch.setitem(models.ARCHITECTURES, "resnet20", small)
    monkeypatch.setattr(quantization_latency, "COMPARED_IMAGES", 64)
    out = tmp_path / "latency.json"
    command = ["--model", "resnet20", "--data", "synth_digits", "--num-train", "64"]
    command += ["--epochs", "0", "--threads", "1", "--rounds", "2", "--turn-s", "0.001"]
    quantization_latency.main([*command, "--out", str(out)])
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]
    content, rows = load(out), frame(out)
    assert content["command"] == "python -m experiments.quantization_latency " + " ".join(command)
    assert "int8: " in content["hardware"]
    assert list(zip(rows["runtime"], rows["precision"], strict=True)) == 2 * KEYS
    assert rows["batch_size"].tolist() == [1, 1, 64, 64]
    assert set(rows["model"]) == {"resnet20"}
    assert set(rows["threads"]) == {1}
    assert rows["size_bytes"].tolist() == 2 * [400, 100]
    assert rows["equal_predictions"].tolist() == 2 * [1, 0]
    assert (rows["max_logit_difference"] > 1e-3).tolist() == 2 * [False, True]  # float rounding
    assert (rows["latency_ms"] > 0).all()
    assert (rows["speedup_q25"] <= rows["speedup"]).all()
    assert (rows["speedup"] <= rows["speedup_q75"]).all()
    assert (rows[rows["runtime"] == "eager"]["speedup"] == 1).all()
    assert rows["software"].str.startswith(("torch ", "onnxruntime ")).all()


def test_speedups_are_taken_within_a_round():
    """A machine that gets slower hits both; the medians alone would say otherwise."""

    class Rows(list):
        def append(self, **row):
            super().append(row)

    job = Job(small(seed=0).eval(), IMAGES, IMAGES[:1], 1, None)
    times = {KEYS[0]: np.array([2.0, 4.0, 40.0]), KEYS[1]: np.array([1.0, 4.0, 10.0])}
    rows = Rows()
    where = {"batch_size": 1}
    quantization_latency.append_rows(rows, times, two(job), images=IMAGES, where=where)
    assert [row["metrics"]["speedup"] for row in rows] == [1, 2]  # of 2, 1 and 4
    assert [row["metrics"]["latency_ms"] for row in rows] == [4, 4]


def test_onnx_runtime_is_made_ready(tmp_path):
    model = small(seed=0).eval()
    found = quantization_runtimes.in_onnxruntime(Job(model, IMAGES, IMAGES[:1], 1, tmp_path))
    assert list(found) == [("onnxruntime", "float32"), ("onnxruntime", "int8")]
    for (runtime, precision), variant in found.items():
        assert variant.size_bytes == (tmp_path / f"{precision}.onnx").stat().st_size, runtime
        assert variant.module.session.get_session_options().intra_op_num_threads == 1
        torch.testing.assert_close(variant.module(IMAGES), model(IMAGES), rtol=0, atol=0.2)


def test_what_is_not_installed_is_named(tmp_path, monkeypatch, capsys):
    for name in ("in_torch", "with_torchao", "in_onnxruntime"):
        monkeypatch.setattr(quantization_runtimes, name, lambda job: {})
    monkeypatch.setattr(quantization_runtimes.importlib.util, "find_spec", lambda name: None)
    assert quantization_runtimes.variants(Job(None, IMAGES, IMAGES, 1, tmp_path)) == {}
    assert capsys.readouterr().err.splitlines() == [
        "left out: OpenVINO (not installed: openvino, nncf)",
        "left out: ExecuTorch (not installed: executorch)",
    ]


def test_weights_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "resnet20", small)
    file = tmp_path / "weights.safetensors"
    command = ["--model", "resnet20", "--weights", str(file), "--num-train", "16", "--epochs", "1"]
    options = quantization_latency.parse(command)
    dataset = data.synth_digits(16, num_validation=4, num_test=4)
    first = quantization_latency.network(options, dataset)
    assert not first.training
    assert not torch.equal(first.block1[0].weight, small(seed=0).block1[0].weight)
    state = safetensors.torch.load_file(file)
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    again = quantization_latency.network(options, dataset)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--num-train", "0"], "--num-train must be at least 1, got 0"),
        (["--epochs=-1"], "--epochs must be at least 0, got -1"),
        (["--turn-s", "nan"], "--turn-s must be above 0, got nan"),
        (["--data", "folder"], "--root is needed with --data folder, and only there"),
        (["--root", "x"], "--root is needed with --data folder, and only there"),
    ],
)
def test_bad_options_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        quantization_latency.parse(words)
    assert message in capsys.readouterr().err
