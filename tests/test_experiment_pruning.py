"""experiments/pruning.py, for real, on a few pictures."""

import json

import pytest
import torch
from tiny_experiments import TINY, few_digits, run, settings_of

from experiments import common, pruning
from rac_helpers import models, prune, train
from rac_helpers.records import frame, load
from rac_helpers.train.checkpoint import _read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruning")
    with few_digits(100):
        run(pruning, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def total(rows):
    model = models.SmallCNN(width=16)
    weights = sum(weight.numel() for weight in prune.prunable(model).values())
    [params] = rows[rows["stage"].eq("dense") & rows["width"].isna()]["params"].unique()
    return int(weights), int(params)


def test_every_method_is_recorded_before_and_after_fine_tuning(rows):
    main = rows[rows["num_magnitude_bins"] == 31]
    counts = main.groupby(["method", "stage"]).size().to_dict()
    assert counts == {
        ("dense", "dense"): 1,
        ("dense", "finetuned"): 1,
        ("magnitude-global", "cut"): 5,
        ("magnitude-global", "finetuned"): 5,
        ("magnitude-layer", "cut"): 3,
        ("magnitude-layer", "finetuned"): 1,
        ("taylor-global", "cut"): 3,
        ("taylor-global", "finetuned"): 1,
        ("random-global", "cut"): 3,
        ("magnitude-2:4", "cut"): 1,
        ("magnitude-2:4", "finetuned"): 1,
        ("magnitude-gradual", "finetuned"): 1,
        ("channel-l1", "cut"): 3,
        ("channel-l1", "finetuned"): 3,
        ("small-dense", "dense"): 2,
        ("dense-long", "finetuned"): 1,
        ("magnitude-global-long", "finetuned"): 1,
        ("channel-l1-long", "finetuned"): 1,
    }
    paper = rows[rows["num_magnitude_bins"] == 11]  # the article's example once more
    assert sorted(paper["stage"]) == ["cut", "dense", "finetuned", "finetuned"]


def test_exactly_the_wanted_weights_are_zero_also_after_fine_tuning(rows):
    weights, params = total(rows)
    masked = rows[rows["sparsity"].notna()]
    assert len(masked) == 27
    first_layer = models.SmallCNN(width=16).state_dict()["block1.0.weight"].numel()
    for row in masked.itertuples():
        zeros = params - row.nonzeros
        if row.method == "magnitude-2:4":
            assert zeros == (weights - first_layer) / 2
            continue
        # a share of each layer is rounded layer by layer
        assert abs(zeros - row.sparsity * weights) <= (2 if row.method == "magnitude-layer" else 1)
        assert row.params == params  # zeroed is not removed
    assert masked["macs"].nunique() == masked["size_bytes"].nunique() == 1
    assert (masked["size_bytes_sparse"] < masked["size_bytes"]).all()


def test_channels_are_taken_out(rows):
    [dense] = rows[rows["stage"].eq("dense") & rows["width"].isna()]["macs"].unique()
    narrow = rows[rows["macs_share"].notna()]
    for row in narrow.itertuples():
        assert 0.8 * row.macs_share < row.macs / dense <= row.macs_share
        assert row.params == row.nonzeros < total(rows)[1]


def test_long_runs_have_twice_the_epochs(rows, folder):
    epochs = {}
    for row in load(folder / "record.json")["rows"]:
        if row["config"]["stage"] == "finetuned":
            epochs.setdefault(row["config"]["method"], set()).add(len(row["history"]))
    assert epochs["dense"] == epochs["channel-l1"] == {1}
    assert epochs["dense-long"] == epochs["channel-l1-long"] == {2}
    assert epochs["magnitude-global-long"] == {2}


def test_all_runs_of_a_seed_cut_the_same_network(folder, rows):
    states = [_read(path)["settings"] for path in (folder / "work").glob("*.pt")]
    assert len(states) == 2 + 2 + 2 + 5 + 3 + 1 + 1 + 1 + 1 + 1 + 3
    after = rows[rows["stage"].eq("cut") & rows["method"].eq("magnitude-global")]
    assert after[after["sparsity"] == 0.5]["num_magnitude_bins"].tolist() == [31, 11]
    trained = pruning.trained
    settings = settings_of(pruning, folder / "work")
    config = {"method": "magnitude-global", "sparsity": 0.5, "num_magnitude_bins": 31, "seed": 0}
    first, _ = trained(config, settings)
    second, _ = trained(config | {"sparsity": 0.9}, settings)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(weight.eq(0).any() for weight in prune.prunable(first).values())


def test_nothing_is_run_twice_and_the_journal_rebuilds_the_record(folder):
    record, work = folder / "record.json", folder / "work"
    before, checkpoints = load(record)["rows"], {p: p.stat().st_mtime for p in work.glob("*.pt")}
    record.unlink()
    run(pruning, folder)
    assert load(record)["rows"] == before
    assert {p: p.stat().st_mtime for p in work.glob("*.pt")} == checkpoints


def test_bfloat16_trains_with_the_weights_of_now(tmp_path):
    """Autocast would keep the weights of the first step in its cache, and go on with those."""
    preset = pruning.PRESETS["synth_digits"] | {"num_train": 400, "epochs": 4}
    losses = {}
    for bf16 in (False, True):
        settings = common.Settings("synth_digits", None, work=str(tmp_path), bf16=bf16, **preset)
        model, history = pruning.trained({"num_magnitude_bins": 31, "seed": 0}, settings)
        losses[bf16] = [row["train_loss"] for row in history]
        in_float32 = train.evaluate(model, settings.dataset.validation)["loss"]
        assert history[-1]["val_loss"] == pytest.approx(in_float32, abs=0.02)
    assert losses[True] == pytest.approx(losses[False], abs=0.02)
    assert losses[True] != losses[False]


def test_configurations_differ():
    configs = [*pruning.base_configs(0), *pruning.cut_configs(0), *pruning.cut_configs(1)]
    configs += pruning.long_configs(0)
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == len(configs)


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
        pruning.main(arguments)
    assert message in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit, match=r"error: root must be an existing folder, got .*missing"):
        pruning.main(
            [
                "--data",
                "folder",
                "--root",
                str(missing),
                "--work",
                str(tmp_path),
                "--record",
                str(tmp_path / "record.json"),
            ]
        )
