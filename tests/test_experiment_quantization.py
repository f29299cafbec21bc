"""experiments/quantization.py, for real, on a few pictures."""

import json

import pytest
import torch
from tiny_experiments import TINY, few_digits, run, settings_of

from experiments import common, quantization
from rac_helpers import quantize
from rac_helpers.records import frame, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantization")
    with few_digits(40):
        run(quantization, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def test_every_method_is_recorded(rows):
    bits, inputs = len(quantization.BITS), len(quantization.ACTIVATION_BITS)
    assert rows.groupby("method").size().to_dict() == {
        "float": 1,
        "float-longer": 1,
        "qat": len(quantization.QAT_BITS),
        "qat-observed": len(quantization.OBSERVED_BITS),
        "ptq": (bits + 1) * (inputs + 1) - 1,
        "ptq-max": bits,
        "ptq-tensor": bits,
        "ptq-group": bits,
        "kmeans": bits + 1,
        "binary": 1,
        "ternary": 1,
        "calibration": 5 * len(quantization.CALIBRATION_BITS),
        "dynamic": len(quantization.DYNAMIC_BITS),
        "mixed": 3,
    }
    assert rows["test_accuracy"].between(0, 1).all()
    where = ["method", "bits_weight", "bits_activation", "observer"]
    assert not rows[where].fillna("").duplicated().any()


def test_fewer_bits_take_fewer_bytes(rows):
    plain = rows[rows["bits_activation"].eq(32)].set_index(["method", "bits_weight"])["size_bytes"]
    [whole] = rows[rows["method"].eq("float")]["size_bytes"]
    for method in ("ptq", "ptq-max", "ptq-tensor", "ptq-group", "kmeans"):
        sizes = plain[method].sort_index()
        sizes = sizes[sizes.index < 32]
        assert sizes.is_monotonic_increasing
        assert sizes.is_unique
        assert sizes.iloc[-1] < whole / 2
    assert plain["ptq-tensor"][4] < plain["ptq"][4] < plain["ptq-group"][4]
    assert plain["binary"][1] < plain["ternary"][2] < plain["ptq"][3]
    for bits in (3, 4, 5):
        assert plain["mixed"][bits] <= plain["ptq"][bits] + 100  # the header names other bits
    weights = rows[rows["method"].eq("ptq") & rows["bits_weight"].eq(4)]["size_bytes"]
    assert weights.max() - weights.min() < 3000  # scales of inputs


def test_mixed_bits_are_in_the_record(rows):
    [names] = {tuple(c for c in rows if c.startswith("bits ")) for _ in (0,)}
    mixed = rows[rows["method"].eq("mixed")]
    assert len(names) == len(quantize.quantizable(settings_of(quantization, "x").build(seed=0)))
    assert mixed[list(names)].isin(quantization.BITS).all(axis=None)
    assert rows[~rows["method"].eq("mixed")][list(names)].isna().all(axis=None)


def test_training_curves_are_in_the_record(folder):
    for row in load(folder / "record.json")["rows"]:
        trained = row["config"]["method"] in ("float", "float-longer", "qat", "qat-observed")
        assert len(row.get("history", [])) == trained  # one epoch
        assert ("val_accuracy" in row["metrics"]) == trained
        assert all("seconds" not in epoch for epoch in row.get("history", []))


def test_all_begin_with_the_same_network(folder):
    checkpoints = list((folder / "work").glob("*.pt"))
    assert len(checkpoints) == 2 + len(quantization.QAT_BITS) + len(quantization.OBSERVED_BITS)
    settings = settings_of(quantization, folder / "work")
    before = {path: path.stat().st_mtime for path in checkpoints}
    one, history = common.trained(0, settings)
    two, _ = common.trained(0, settings)
    assert before == {p: p.stat().st_mtime for p in (folder / "work").glob("*.pt")}
    assert len(history) == 1
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_nothing_is_run_twice_and_the_journal_rebuilds_the_record(folder, monkeypatch):
    record, work = folder / "record.json", folder / "work"
    before, checkpoints = load(record)["rows"], {p: p.stat().st_mtime for p in work.glob("*.pt")}
    record.unlink()

    def never(*_, **__):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(quantization, "run", never)
    run(quantization, folder)
    assert load(record)["rows"] == before
    run(quantization, folder)  # and once more with all the rows there
    assert load(record)["rows"] == before
    assert {p: p.stat().st_mtime for p in work.glob("*.pt")} == checkpoints


def test_first_and_last_layer_keep_eight_bits():
    model = settings_of(quantization, "x").build(seed=0)
    for bits in (1, 4, 8, 10):
        chosen = list(quantization.layer_bits(model, bits).values())
        assert chosen[0] == chosen[-1] == max(8, bits)
        assert set(chosen[1:-1]) == {bits}


def test_configurations_differ_and_all_have_a_function():
    parts = quantization.float_configs, quantization.tuned_configs, quantization.ptq_configs
    configs = [config for part in parts for seed in (0, 1) for config in part(seed)]
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == len(configs)
    methods = {config["method"] for config in quantization.ptq_configs(0)}
    assert methods == set(quantization.WITHOUT_TRAINING)


def test_other_settings_have_other_checkpoints():
    from dataclasses import replace

    settings = settings_of(quantization, "x")
    config = {"method": "qat", "seed": 0}
    others = [
        replace(settings, **{name: value})
        for name, value in {"data": "folder", "model": "resnet20", "width": 4, "num_train": 1,
                            "batch_size": 1, "epochs": 9, "lr": 1.0, "bf16": True,
                            "tune_epochs": 9, "tune_lr": 1.0}.items()
    ]  # fmt: skip
    paths = [common.checkpoint(config, one, "finetuned") for one in (settings, *others)]
    paths.append(common.checkpoint(config, settings, "float"))
    paths.append(common.checkpoint(config | {"seed": 1}, settings, "finetuned"))
    assert len(set(paths)) == len(paths) == 13
    for later in others[-2:]:  # fine-tuning does not change what it begins with
        assert common.checkpoint(config, later, "float") == common.checkpoint(
            config, settings, "float"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "folder"], "--root is needed with --data folder"),
        ([*TINY, "--root", "x"], "--root is needed with --data folder, and only there"),
        ([*TINY, "--seeds", "0"], "--seeds must be at least 1, got 0"),
        ([*TINY, "--tune-epochs", "-1"], "--tune-epochs must be at least 1, got -1"),
        (["--data", "mnist"], "invalid choice: 'mnist'"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        quantization.main(arguments)
    assert message in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path):
    folders = ["--work", str(tmp_path), "--record", str(tmp_path / "record.json")]
    with pytest.raises(SystemExit, match=r"error: root must be an existing folder, got .*missing"):
        quantization.main(["--data", "folder", "--root", str(tmp_path / "missing"), *folders])
