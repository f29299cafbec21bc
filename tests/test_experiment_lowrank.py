"""experiments/lowrank.py, for real, on a few pictures."""

import json

import pytest
import torch
from tiny_experiments import TINY, few_digits, run, settings_of

from experiments import common, lowrank
from rac_helpers import metrics
from rac_helpers.lowrank import splits_of
from rac_helpers.records import frame, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lowrank")
    with few_digits(40) as patch:
        patch.setattr(lowrank, "TUNED", (0.5,))
        patch.setattr(lowrank, "SCAN", (0.9, 0.5, 0.25, 0.15))
        for method in lowrank.METHODS:
            patch.setitem(lowrank.CUT_SHARES, (method, "uniform"), lowrank.SCAN)
        run(lowrank, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def test_every_method_is_recorded(rows):
    counts = rows.groupby(["method", "choice", "stage"], dropna=False).size()
    scan, chosen = len(lowrank.SCAN), len(lowrank.CHOSEN)
    expected = {("float", None, "float"): 1, ("float-longer", None, "finetuned"): 1}
    for method in lowrank.METHODS:
        expected[method, "uniform", "cut"] = scan
        expected[method, "uniform", "finetuned"] = len(lowrank.TUNED)
        expected[method, "energy", "cut"] = chosen
    expected["tucker-hooi", "uniform", "cut"] = chosen
    expected["spatial", "validated", "cut"] = len(lowrank.VALIDATED)
    for choice in ("validated", "energy"):
        expected["spatial", choice, "finetuned"] = 1
    found = {
        tuple(part if isinstance(part, str) else None for part in key): n
        for key, n in counts.to_dict().items()
    }
    assert found == expected
    assert rows["test_accuracy"].between(0, 1).all()
    assert not rows[["method", "choice", "share", "stage"]].fillna("").duplicated().any()


def test_fewer_weights_take_less_of_everything(rows):
    [whole] = rows[rows["method"].eq("float")].to_dict("records")
    cut = rows[rows["stage"].eq("cut")]
    for _, own in cut.groupby(["method", "choice"]):
        own = own.sort_values("share")
        for key in ("params", "macs", "size_bytes", "weights_share", "energy"):
            assert own[key].is_monotonic_increasing, key
        assert (own["params"] < whole["params"]).all()
    assert (cut["weights_share"] <= cut["share"]).all()
    assert (cut["weights_share"] > 0.8 * cut["share"] - 0.05).all()
    assert cut["energy"].between(0, 1).all()
    mild = cut[cut["choice"].eq("uniform") & cut["share"].eq(0.9)].set_index("method")
    assert (mild["energy"] > 0.8).all()


def test_energy_is_better_kept_by_its_own_choice(rows):
    cut = rows[rows["stage"].eq("cut")].set_index(["method", "choice", "share"])["energy"]
    for method in lowrank.METHODS:
        for share in lowrank.CHOSEN:
            assert cut[method, "energy", share] >= cut[method, "uniform", share] - 0.02


def test_iterations_keep_more_energy_at_the_same_weights(rows):
    cut = rows[rows["stage"].eq("cut") & rows["choice"].eq("uniform")].set_index("share")
    plain, hooi = (cut[cut["method"].eq(name)] for name in ("tucker", "tucker-hooi"))
    for share in lowrank.CHOSEN:
        assert hooi["params"][share] == plain["params"][share]
        assert hooi["energy"][share] > plain["energy"][share]


def test_chosen_ranks_are_in_the_record(rows):
    layers = lowrank.split_layers(settings_of(lowrank, "x").build(seed=0))
    chosen = rows[rows["choice"].isin(["energy", "validated"])]
    for method, own in chosen.groupby("method"):
        ends = ("_in", "_out") if method == "tucker" else ("",)
        names = [f"rank{end} {layer}" for layer in layers for end in ends]
        assert own[names].notna().any(axis=None)
        assert (own[names].dropna() >= 1).all(axis=None)
    others = rows[~rows["choice"].isin(["energy", "validated"])]
    ranks = [name for name in rows if name.startswith("rank")]
    assert others[ranks].isna().all(axis=None)


def test_training_curves_are_in_the_record(folder):
    for row in load(folder / "record.json")["rows"]:
        trained = row["config"]["stage"] != "cut"
        assert len(row.get("history", [])) == trained  # one epoch
        assert ("val_accuracy" in row["metrics"]) == trained
        assert all("seconds" not in epoch for epoch in row.get("history", []))


def test_nothing_is_run_twice_and_the_journal_rebuilds_the_record(folder, monkeypatch):
    record, work = folder / "record.json", folder / "work"
    before, checkpoints = load(record)["rows"], {p: p.stat().st_mtime for p in work.glob("*.pt")}
    record.unlink()

    def never(*_, **__):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(lowrank, "run", never)
    run(lowrank, folder)
    assert load(record)["rows"] == before
    assert {p: p.stat().st_mtime for p in work.glob("*.pt")} == checkpoints
    assert len(checkpoints) == 1 + len(lowrank.tuned_configs(0))


def test_first_convolution_and_last_layer_stay_whole():
    model = settings_of(lowrank, "x").build(seed=0)
    assert lowrank.split_layers(model) == ["block2.0", "block3.0"]
    ranks = lowrank.uniform(model, lowrank.SPLITS["spatial"], ["block3.0"])(0.5)
    assert list(ranks) == ["block3.0"]


def test_the_split_network_is_trained_from_where_the_cut_left_it(folder):
    """No step of training: fine-tuned is what was cut."""
    settings = settings_of(lowrank, folder / "work")
    model, _ = common.trained(0, settings)
    [row] = lowrank.split_rows(
        model,
        {"method": "channel", "choice": "uniform", "share": 0.5, "stage": "cut", "seed": 0},
        settings,
    )
    small = lowrank.lowrank.factorize(
        model, lowrank.uniform(model, lowrank.SPLITS["channel"], ["block2.0", "block3.0"])(0.5)
    )
    assert row["metrics"]["test_accuracy"] == metrics.accuracy(small, settings.dataset.test)
    assert row["metrics"]["params"] == metrics.count_params(small)
    assert list(splits_of(small)) == ["block2.0", "block3.0"]
    before = {name: value.clone() for name, value in small.state_dict().items()}
    config = {"method": "channel", "choice": "test", "share": 0.5, "seed": 0}
    common.tune(small, config, settings)
    changed = [n for n, v in small.state_dict().items() if not torch.equal(v, before[n])]
    assert {"block2.0.first.weight", "block2.0.last.weight"} <= set(changed)


def test_configurations_differ():
    parts = lowrank.float_configs, lowrank.cut_configs, lowrank.tuned_configs
    configs = [config for part in parts for seed in (0, 1) for config in part(seed)]
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == len(configs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "folder"], "--root is needed with --data folder"),
        ([*TINY, "--seeds", "0"], "--seeds must be at least 1, got 0"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        lowrank.main(arguments)
    assert message in capsys.readouterr().err
