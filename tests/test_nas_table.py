"""nas/table.py: what is looked up is what was trained."""

import json

import pytest

from rac_helpers.nas import Benchmark, RandomSearch, search
from rac_helpers.rng import make_generator


def content(seeds=(0, 1), missing=None):
    rows = [
        {
            "config": {"genome": f"{a}-{b}"},
            "seed": seed,
            "val_accuracy": [0.1, 0.2 * a + 0.1 * b + 0.02 * seed],
            "metrics": {"test_accuracy": 0.2 * a + 0.1 * b + 0.04 * seed, "seconds": 1.0},
        }
        for a in range(3)
        for b in range(2)
        for seed in seeds
        if (a, b, seed) != missing
    ]
    costs = {f"{a}-{b}": {"params": 10 * a, "macs": 5} for a in range(3) for b in range(2)}
    head = {"name": "nas_benchmark", "command": "x", "data": "y", "hardware": "z", "versions": {}}
    genes = {"op": ["conv", "sep", "skip"], "width": [4, 8]}
    return head | {"genes": genes, "architectures": costs, "rows": rows}


def test_values_and_means():
    table = Benchmark(content())
    assert table.seeds == (0, 1)
    assert table.epochs == 2
    assert table.validation((2, 1), seed=1) == pytest.approx(0.52)
    assert table.validation((2, 1)) == pytest.approx(0.51)
    assert table.validation((2, 1), epochs=1) == pytest.approx(0.1)
    assert table.test((2, 1)) == pytest.approx(0.52)
    assert table.test((2, 1), seed=0) == pytest.approx(0.5)
    assert table.costs((2, 1)) == {"params": 20, "macs": 5}
    assert table.space.decode((2, 1)) == {"op": "skip", "width": 8}


def test_costs_are_a_copy():
    table = Benchmark(content())
    table.costs((0, 0))["params"] = -1
    assert table.costs((0, 0))["params"] == 0


def test_best_and_regret():
    table = Benchmark(content())
    assert table.best == (2, 1)
    assert table.regret((2, 1)) == 0
    assert table.regret((2, 0)) == pytest.approx(0.1)
    assert all(table.regret(genome) >= 0 for genome in table.space.genomes())


def test_a_search_uses_it_as_a_score():
    table = Benchmark(content())
    strategy = RandomSearch(table.space, generator=make_generator(0))
    history = search(strategy, table.validation, num_trials=6)
    assert history.best.genome == table.best


def test_load(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content()))
    assert Benchmark.load(path).best == (2, 1)


@pytest.mark.parametrize("key", ["genes", "architectures", "rows"])
def test_load_what_is_no_table(tmp_path, key):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({k: v for k, v in content().items() if k != key}))
    with pytest.raises(ValueError, match=f"other.json is no .*: '{key}' is missing"):
        Benchmark.load(path)


def test_a_table_must_be_complete():
    with pytest.raises(ValueError, match="rows must have the same seeds and epochs"):
        Benchmark(content(missing=(1, 1, 0)))
    with pytest.raises(ValueError, match=r"every genome of its space, \(1, 1\) is missing"):
        Benchmark(content(seeds=(0,), missing=(1, 1, 0)))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t: t.validation((3, 0)), r"genome\[0\] \(op\) must be in \[0, 2\], got 3"),
        (lambda t: t.validation((0, 0), seed=7), r"seed must be one of \[0, 1\], got 7"),
        (lambda t: t.validation((0, 0), epochs=3), r"epochs must be an integer in \[1, 2\], got 3"),
        (lambda t: t.test((0,)), "genome must hold 2 numbers, got 1"),
    ],
)
def test_wrong_questions(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(Benchmark(content()))
