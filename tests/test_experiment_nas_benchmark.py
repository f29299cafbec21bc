"""experiments/nas_benchmark.py, for real, on a few pictures and networks."""

import functools
import json

import pytest

from experiments import nas_benchmark
from rac_helpers.nas import DIGITS_SPACE, Benchmark
from rac_helpers.records import frame, load

FEW = functools.partial(
    nas_benchmark.Settings, num_train=40, num_validation=20, num_test=20, epochs=2, batch_size=20
)


def run(folder, *more):
    record = folder / "table.json"
    arguments = ["--record", str(record), "--work", str(folder / "work"), "--first", "3", *more]
    nas_benchmark.main(arguments)
    return record


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nas_benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas_benchmark, "Settings", FEW)
        patch.setattr(nas_benchmark, "ROUNDS", 1)
        patch.setattr(nas_benchmark, "RUNS", 2)
        yield run(folder, "--seeds", "2")
    nas_benchmark.load_dataset.cache_clear()


def test_every_network_has_every_seed(table):
    content = load(table)
    genomes = [nas_benchmark.text_of(g) for g in list(DIGITS_SPACE.genomes())[:3]]
    assert [*content["architectures"]] == genomes
    rows = [(row["seed"], row["config"]["genome"]) for row in content["rows"]]
    assert rows == [(seed, genome) for seed in range(2) for genome in genomes]
    for row in content["rows"]:
        assert len(row["val_accuracy"]) == 2
        assert row["metrics"].keys() == {"test_accuracy", "seconds"}
    for costs in content["architectures"].values():
        assert costs.keys() == {"params", "macs", "size_bytes"}
    assert frame(table)["test_accuracy"].between(0, 1).all()
    assert "40 training images" in content["data"]
    assert str(table.parent) not in content["command"]


def test_a_part_is_no_table(table):
    with pytest.raises(ValueError, match="every genome of its space"):
        Benchmark.load(table)


def test_nothing_is_trained_twice(table, monkeypatch):
    before = load(table)["rows"]

    def never(*_, **__):
        raise AssertionError("a finished training was run again")

    monkeypatch.setattr(nas_benchmark, "run", never)
    run(table.parent, "--seeds", "2")
    assert load(table)["rows"] == before


def test_latency_is_added_and_stays(table, tmp_path):
    copy = tmp_path / "table.json"
    copy.write_bytes(table.read_bytes())
    nas_benchmark.main(["--latency", "--record", str(copy)])
    content = load(copy)
    work = ["--work", str(table.parent / "work"), "--first", "3", "--seeds", "2"]
    nas_benchmark.main([*work, "--record", str(copy)])  # from the journal: nothing is new
    assert load(copy) == content
    assert all(costs["latency_ms"] > 0 for costs in content["architectures"].values())
    assert content["latency"]["runs"] == 2
    assert content["rows"] == load(table)["rows"]


def test_check_trains_again(table, tmp_path, capsys):
    nas_benchmark.main(["--check", "2", "--record", str(table)])
    assert capsys.readouterr().out.count("stored") == 2
    content = load(table)
    for row in content["rows"]:
        row["metrics"]["test_accuracy"] = 5.0
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="2 of 2 differ by more"):
        nas_benchmark.main(["--check", "2", "--record", str(wrong)])


def test_a_part_does_not_replace_the_table(table, monkeypatch, tmp_path):
    results = tmp_path / "results"
    monkeypatch.setattr(nas_benchmark, "RESULTS", results)
    nas_benchmark.main(["--work", str(table.parent / "work"), "--first", "3", "--seeds", "2"])
    assert not results.exists()
    assert load(table.parent / "work" / "nas_benchmark.json")["rows"] == load(table)["rows"]


@pytest.mark.parametrize("name", ["seeds", "first", "check"])
def test_wrong_options(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        nas_benchmark.main([f"--{name}", "0"])
    assert f"--{name} must be at least 1, got 0" in capsys.readouterr().err


def test_no_table(tmp_path):
    with pytest.raises(SystemExit, match="is no finished table"):
        nas_benchmark.main(["--check", "1", "--record", str(tmp_path / "none.json")])


def test_genomes_as_text():
    assert nas_benchmark.genome_of(nas_benchmark.text_of((0, 1, 2, 1, 0))) == (0, 1, 2, 1, 0)
    with pytest.raises(ValueError, match="genome"):
        nas_benchmark.genome_of("0-9-0-0-0")
