"""experiments/nas_strategies.py, for real, on a small table made up here."""

from __future__ import annotations

import json

import pytest
import torch

from experiments import nas_strategies
from rac_helpers import metrics
from rac_helpers.nas.space import Space
from rac_helpers.nas.table import Benchmark
from rac_helpers.records import frame, load
from rac_helpers.rng import make_generator

SPACE = Space(tuple((name, (1, 2, 3)) for name in "abcd"))
SEEDS, EPOCHS, TRIALS, REPETITIONS = (0, 1), 4, 20, 6
NAMES = [*nas_strategies.STRATEGIES, nas_strategies.HALVING]


def made_up_table():
    """Accuracy grows with each gene; the seeds differ by noise; curves rise and do not cross."""
    generator, rows = make_generator(0), []
    for genome in SPACE.genomes():
        text = "-".join(map(str, genome))
        for seed in SEEDS:
            noise = 0.01 * float(torch.randn((), generator=generator))
            accuracy = 0.4 + 0.05 * sum(genome) + noise
            curve = [accuracy * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
            rows.append(
                {
                    "config": {"genome": text},
                    "seed": seed,
                    "val_accuracy": curve,
                    "metrics": {"test_accuracy": 0.4 + 0.05 * sum(genome)},
                }
            )
    head = {"name": "table", "command": "none", "data": "made up", "hardware": "none"}
    costs = {row["config"]["genome"]: {"macs": 1} for row in rows}
    genes = {name: list(choices) for name, choices in SPACE.genes}
    return head | {"versions": {}, "genes": genes, "architectures": costs, "rows": rows}


def run(folder, *more):
    table = folder / "table.json"
    table.write_text(json.dumps(made_up_table()))
    words = ["--table", str(table), "--out", str(folder / "out.json"), "--work", str(folder)]
    numbers = ["--trials", str(TRIALS), "--repetitions", str(REPETITIONS)]
    nas_strategies.main([*words, *numbers, *more])
    return folder / "out.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas_strategies, "CHUNK", 4)
        run(folder)
    return folder


@pytest.fixture
def table():
    return Benchmark(made_up_table())


def test_each_strategy_has_a_row_with_its_curve(folder):
    rows = load(folder / "out.json")["rows"]
    assert [row["config"] for row in rows] == [{"strategy": n, "budget": TRIALS} for n in NAMES]
    for row in rows:
        trials = [point["trials"] for point in row["history"]]
        halving = row["config"]["strategy"] == nas_strategies.HALVING
        assert trials == ([5, 10, 15, 20] if halving else list(range(1, TRIALS + 1)))
        assert row["metrics"]["repetitions"] == REPETITIONS
        last = row["history"][-1]
        assert {key: row["metrics"][key] for key in last if key != "trials"} == {
            key: value for key, value in last.items() if key != "trials"
        }
        for point in row["history"]:
            assert point["regret_low"] <= point["regret"] <= point["regret_high"]
            assert point["difference_low"] <= point["difference"] <= point["difference_high"]


def test_random_search_does_not_differ_from_itself(folder):
    [row] = [r for r in load(folder / "out.json")["rows"] if r["config"]["strategy"] == "random"]
    assert {point["difference"] for point in row["history"]} == {0.0}


def test_the_curves_are_those_of_the_repetitions(folder, table):
    rows = {row["config"]["strategy"]: row for row in load(folder / "out.json")["rows"]}
    for name in ("random", "evolution", "halving"):
        runs = [nas_strategies.regrets(name, r, table, TRIALS) for r in range(REPETITIONS)]
        ends = metrics.mean_interval([regrets[-1] for regrets in runs])
        assert rows[name]["metrics"]["regret"] == pytest.approx(ends.mean, abs=1e-5)
        assert rows[name]["metrics"]["regret_high"] == pytest.approx(ends.high, abs=1e-5)


def test_strategies_begin_alike_so_that_they_are_compared_in_pairs(table):
    for repetition in range(3):
        first = {
            name: nas_strategies.regrets(name, repetition, table, 5)[0]
            for name in ("random", "evolution", "evolution-crossover", "generations", "bayesian")
        }
        assert len(set(first.values())) == 1


def test_where_the_score_is_a_sum_the_smart_ones_beat_random_search(folder):
    rows = frame(folder / "out.json").set_index("strategy")
    assert (rows.loc[["bayesian", "halving"], "difference"] <= 0).all()
    assert rows["found_best"].between(0, 1).all()


def test_a_finished_run_is_read_and_not_repeated(folder, monkeypatch):
    before = (folder / "out.json").read_bytes()

    def never(*args):
        raise AssertionError

    monkeypatch.setattr(nas_strategies, "regrets", never)
    monkeypatch.setattr(nas_strategies, "CHUNK", 4)
    run(folder)
    assert (folder / "out.json").read_bytes() == before
    (folder / "out.json").unlink()
    run(folder)  # from the journal
    assert load(folder / "out.json")["rows"] == json.loads(before)["rows"]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_epochs_of_halving_are_those_it_spends(table, count):
    from rac_helpers.nas.halving import successive_halving

    genomes = list(SPACE.genomes())[:count]
    spent = successive_halving(genomes, table.validation, max_epochs=EPOCHS).epochs()
    assert nas_strategies.halving_epochs(count, EPOCHS) == spent


def test_wrong_arguments_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="there is no record"):
        nas_strategies.main(["--table", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit):
        run(tmp_path, "--trials", "82")
    assert "--trials must be in [1, 81], got 82" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--repetitions", "1")
    assert "--repetitions must be at least 2, got 1" in capsys.readouterr().err
