"""experiments/nas_compressed.py, for real, on a few pictures."""

import pytest
from tiny_experiments import few_digits, run, settings_of

from experiments import nas_compressed
from rac_helpers import nas
from rac_helpers.records import frame, load

BUDGET = 12_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nas_compressed")
    with few_digits(20) as patch:
        patch.setattr(nas_compressed, "SPARSITIES", (0.0, 0.8))
        patch.setattr(nas_compressed, "BITS", (3, 8))
        patch.setattr(nas_compressed, "TRIALS", 14)
        patch.setattr(nas_compressed, "POPULATION", 4)
        patch.setitem(nas_compressed.BUDGETS_BYTES, "small_cnn", (BUDGET,))
        run(nas_compressed, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def test_every_method_is_recorded(rows):
    counts = rows.groupby(["method", "stage"], dropna=False).size()
    assert counts.groupby("method").sum().to_dict() == {
        "float": 2, "uniform": 2, "random": 2, "evolution": 2
    }  # fmt: skip
    assert rows["test_accuracy"].between(0, 1).all()


def test_all_keep_the_budget(rows):
    plans = rows[rows["method"] != "float"]
    assert (plans["size_bytes"] <= BUDGET).all()
    assert (rows[rows["method"] == "float"]["size_bytes"] > 4 * BUDGET).all()


def test_uniform_plans_are_uniform_and_evolution_begins_there(rows):
    cut = rows[rows["stage"] == "cut"].set_index("method")
    for kind in ("bits", "sparsity"):
        columns = [name for name in rows.columns if name.startswith(f"{kind} ")]
        assert len(columns) == 4
        assert cut.loc["uniform", columns].nunique() == 1
    assert cut.loc["evolution", "val_accuracy"] >= cut.loc["uniform", "val_accuracy"]
    assert cut.loc["uniform", "scored"] <= 8
    assert (cut["scored"] <= 14).all()


def test_training_curves_are_in_the_record(folder):
    for row in load(folder / "record.json")["rows"]:
        assert len(row.get("history", [])) == (row["config"].get("stage") != "cut")


def test_finetuning_keeps_the_plan(rows):
    plans = rows[rows["method"] != "float"].set_index(["method", "stage"])
    same = ["width", *(name for name in rows.columns if name.startswith(("bits ", "sparsity ")))]
    for method in nas_compressed.METHODS:
        cut, tuned = plans.loc[method, "cut"], plans.loc[method, "finetuned"]
        assert (cut[same] == tuned[same]).all()


def test_nothing_is_run_twice(folder, monkeypatch):
    before = load(folder / "record.json")["rows"]

    def never(*_, **__):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(nas_compressed, "run", never)
    run(nas_compressed, folder)
    assert load(folder / "record.json")["rows"] == before


def test_what_fits_nowhere_has_no_row(folder, monkeypatch):
    monkeypatch.setattr(nas_compressed.Search, "accuracy", lambda *_: 1 / 0)
    settings = settings_of(nas_compressed, folder / "work")
    config = {"method": "uniform", "budget_bytes": 10, "seed": 0}
    assert nas_compressed.run(config, settings=settings) == []


def test_masks_of_a_plan_are_kept_while_training():
    model = nas.build((0, 0, 0, 0, 0), seed=0)
    plan = nas.Plan({"classifier": 0.9}, {"classifier": 4})
    masks = nas.masks_of(model, plan)
    masks(model, 1)
    assert int((model.classifier.weight == 0).sum()) == 144
