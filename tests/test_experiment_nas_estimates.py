"""experiments/nas_estimates.py, for real, on a few pictures and an invented table."""

import json

import pytest
import torch

from experiments import nas_benchmark, nas_estimates
from rac_helpers.nas import DIGITS_SPACE, Space, build, parts_of
from rac_helpers.records import frame, load

SETTINGS = nas_benchmark.Settings(20, 20, 20, epochs=2, batch_size=10)

# the first genes of the real space, the others with one choice
FEW = Space(
    tuple((name, choices[:2] if place < 2 else choices[:1])
          for place, (name, choices) in enumerate(DIGITS_SPACE.genes))
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of random accuracies for the few networks of a smaller space."""
    folder = tmp_path_factory.mktemp("nas_estimates")
    texts = [nas_benchmark.text_of(g) for g in FEW.genomes()]
    rows = [
        {
            "config": {"genome": text},
            "seed": 0,
            "val_accuracy": [0.1 + place / 90, 0.2 + place / 80],
            "metrics": {"test_accuracy": 0.2 + place / 70, "seconds": 1.0},
        }
        for place, text in enumerate(texts)
    ]
    costs = {t: {"params": i, "macs": 99 - i, "latency_ms": 1 + i} for i, t in enumerate(texts)}
    head = {"name": "nas_benchmark", "command": "x", "data": "few", "hardware": "z", "versions": {}}
    more = {"settings": vars(SETTINGS), "genes": dict(FEW.genes), "architectures": costs}
    (folder / "table.json").write_text(json.dumps(head | more | {"rows": rows}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas_estimates, "DIGITS_SPACE", FEW)
        patch.setattr(nas_estimates, "SUPERNET", {"epochs": 1, "batch_size": 10, "lr": 0.1})
        patch.setattr(nas_estimates, "LATENCY_RUNS", 1)
        main(folder)
        main(folder, "--latency")
        yield folder


def main(folder, *more):
    paths = {name: str(folder / name) for name in ("table", "record", "work")}
    arguments = ["--table", paths["table"] + ".json", "--record", paths["record"] + ".json"]
    nas_estimates.main([*arguments, "--work", paths["work"], "--seeds", "1", *more])


def test_every_estimate_has_a_row(folder):
    rows = frame(folder / "record.json")
    assert [*rows["estimate"]] == [
        "params", "macs", "epochs-1", "gradient_norm", "snip", "synflow", "supernet"
    ]  # fmt: skip
    assert rows["spearman"].between(-1, 1).all()
    by_name = rows.set_index("estimate")["spearman"]
    assert by_name["params"] == by_name["epochs-1"] == 1
    assert by_name["macs"] == -1


def test_numbers_of_each_network(folder):
    for row in load(folder / "record.json")["rows"]:
        assert len(row["values"]) == len(FEW) == 4


def test_latency_from_parts(folder):
    latency = load(folder / "record.json")["latency"]
    assert len(latency["estimate_ms"]) == 4
    assert min(latency["parts_ms"].values()) > 0
    assert latency["spearman_macs"] == -1


def test_the_blocks_of_all_networks_are_measured():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    def kinds(genomes):
        parts = (parts_of(build(genome, seed=0), image) for genome in genomes)
        return {kind for found in parts for kind, *_ in found.values()}

    assert kinds(list(DIGITS_SPACE.genomes())[::7]) <= kinds(nas_estimates._with_all_blocks())


def test_nothing_is_run_twice(folder, monkeypatch):
    before = load(folder / "record.json")

    def never(*_, **__):
        raise AssertionError("a finished estimate was computed again")

    monkeypatch.setattr(nas_estimates, "run", never)
    main(folder)
    assert load(folder / "record.json") == before  # what --latency added, too


def test_wrong_options(capsys):
    with pytest.raises(SystemExit, match="2"):
        nas_estimates.main(["--seeds", "0"])
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err


def test_without_a_table(tmp_path):
    with pytest.raises(SystemExit, match="there is no record"):
        main(tmp_path)
