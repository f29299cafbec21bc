"""How well do cheap estimates sort networks? Measured against the table of trained ones.

    python -m experiments.nas_estimates --table book/results/nas_benchmark.json --workers 2
    python -m experiments.nas_estimates --table book/results/nas_benchmark.json --latency

Each estimate gives every network of the table a number; its rank correlation (Spearman) with the
mean test accuracy of the trained networks says how well it sorts them:

- "params", "macs": counted; "epochs-1", "epochs-2", "epochs-4": the validation accuracy of the
  table after so many epochs of the eight;
- "gradient_norm", "snip", "synflow": at the start, from one batch of 100 training images;
- "supernet": one training with shared weights, each step another network (single path one-shot);
  then each network is measured on the validation images, after its batch norm was counted anew.

A row holds the numbers, too, in the order of the genomes. "seconds" is what the estimate took of
the processor for all networks. ``--latency`` measures the blocks of all networks on two threads and
adds the sums: run it on a quiet machine, on the one where the table's latencies were measured.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from pathlib import Path

import torch

from experiments import common
from experiments import nas_benchmark as table_of
from rac_helpers import metrics, train
from rac_helpers.nas import (
    DIGITS_LARGEST,
    DIGITS_SPACE,
    Benchmark,
    LatencyTable,
    Supernet,
    build,
    gradient_norm,
    snip,
    spearman,
    synflow,
)
from rac_helpers.records import hardware, load
from rac_helpers.rng import derive_seed
from rac_helpers.sweep import add_arguments, open_executor, sweep

NAME = "nas_estimates"
BATCH = 100  # images of one estimate at the start
SUPERNET = {"epochs": 150, "batch_size": 50, "lr": 0.1}
CALIBRATION = 500  # training images for the batch norm of a network of the supernet
COUNTED = ("params", "macs")
AT_THE_START = ("gradient_norm", "snip", "synflow")
BROKEN_OFF = (1, 2, 4)
LATENCY_RUNS = 100


# -- one estimate of all networks -----------------------------------------------------------------


def run(config: dict, *, settings: table_of.Settings) -> dict:
    """Return the estimate of each genome, in their order."""
    dataset, begin = table_of.load_dataset(settings), time.process_time()
    one = with_supernet if config["estimate"] == "supernet" else at_the_start
    values = one(config, dataset)
    return {"values": [_short(v) for v in values], "seconds": round(time.process_time() - begin, 1)}


def at_the_start(config: dict, dataset) -> list[float]:
    """Return what one batch says of networks that are not trained."""
    images, labels = dataset.train.images[:BATCH], dataset.train.labels[:BATCH]
    seed = derive_seed("start", config["seed"])  # as the trained networks began
    estimate = {
        "gradient_norm": lambda model: gradient_norm(model, (images, labels)),
        "snip": lambda model: snip(model, (images, labels)),
        "synflow": lambda model: synflow(model, images[:1]),
    }[config["estimate"]]
    return [estimate(build(genome, seed=seed)) for genome in DIGITS_SPACE.genomes()]


def with_supernet(config: dict, dataset) -> list[float]:
    """Train all networks at once, and measure each with its part of the weights."""
    supernet = Supernet(seed=derive_seed("supernet", config["seed"]))
    train.fit(
        supernet,
        dataset.train,
        dataset.validation,
        **SUPERNET,
        after_step=supernet.draw_,
        seed=derive_seed("order", config["seed"]),
        progress=False,
    )
    images = dataset.train.images[:CALIBRATION]
    return [
        metrics.accuracy(supernet.subnet(genome, images), dataset.validation)
        for genome in DIGITS_SPACE.genomes()
    ]


def from_table(table: Benchmark) -> dict[str, list[float]]:
    """Return what needs no computing."""
    genomes = list(DIGITS_SPACE.genomes())
    found = {name: [table.costs(genome)[name] for genome in genomes] for name in COUNTED}
    for epochs in BROKEN_OFF:
        if epochs < table.epochs:
            early = [table.validation(genome, epochs=epochs) for genome in genomes]
            found[f"epochs-{epochs}"] = [_short(value) for value in early]
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")


# -- the record -----------------------------------------------------------------------------------


def make_record(options: argparse.Namespace, table: Benchmark, command: str) -> None:
    """Compute what is missing, and write the record when all is there."""
    content = load(options.table)
    settings = table_of.Settings(**content["settings"])
    tests = [table.test(genome) for genome in DIGITS_SPACE.genomes()]
    configs = [
        {"estimate": estimate, "seed": seed}
        for estimate in (*AT_THE_START, "supernet")
        for seed in range(options.seeds)
    ]
    rows = [
        row_of({"estimate": name, "seed": 0}, {"values": values, "seconds": 0.0}, tests)
        for name, values in from_table(table).items()
    ]
    options.work.mkdir(parents=True, exist_ok=True)
    journal, one = options.work / f"{NAME}.jsonl", functools.partial(run, settings=settings)
    desc = f"{content['data']}; supernet: {SUPERNET}"
    with open_executor(options) as executor:
        done = sweep(one, configs, journal=journal, executor=executor, desc=desc)
        found = {(c["estimate"], c["seed"]): result for c, result in done}
    rows += [row_of(c, found[c["estimate"], c["seed"]], tests) for c in configs]
    if not table_of.is_done(options.record, rows):
        table_of.write(options.record, table_of.head_of(NAME, command, desc) | {"rows": rows})


def row_of(config: dict, result: dict, tests: list[float]) -> dict:
    """Return the row of an estimate: how well it sorts, and its numbers."""
    correlation = spearman(result["values"], tests)
    return {
        "config": {"estimate": config["estimate"]},
        "seed": config["seed"],
        "metrics": {"spearman": round(correlation, 4), "seconds": result["seconds"]},
        "values": result["values"],
    }


def add_latency(path: Path, table: Benchmark) -> None:
    """Add the sums of measured blocks, and how well they sort measured networks."""
    if not path.is_file():
        sys.exit(f"error: there is no record {path}; make it first, without --latency")
    content, genomes = load(path), list(DIGITS_SPACE.genomes())
    measured = [table.costs(genome).get("latency_ms") for genome in genomes]
    if None in measured:
        sys.exit("error: the table has no latencies; experiments.nas_benchmark --latency adds them")
    image, threads = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.get_num_threads()
    torch.set_num_threads(table_of.LATENCY_THREADS)
    try:
        parts = LatencyTable.measure(
            (build(g, seed=0) for g in _with_all_blocks()), image, runs=LATENCY_RUNS
        )
        where = hardware()
    finally:
        torch.set_num_threads(threads)
    sums = [parts.estimate_ms(build(genome, seed=0), image) for genome in genomes]
    content["latency"] = {
        "hardware": where,
        "parts_ms": {kind: _short(ms) for kind, ms in parts.items()},
        "estimate_ms": [_short(ms) for ms in sums],
        "spearman": round(spearman(sums, measured), 4),
        "spearman_macs": round(spearman([table.costs(g)["macs"] for g in genomes], measured), 4),
    }
    table_of.write(path, content)


def _with_all_blocks() -> list[tuple[int, ...]]:
    """Genomes that have, together, each block of the space."""
    return [(*genome[:3], width, 1) for genome in DIGITS_LARGEST for width in range(3)]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; make the record, or add latencies."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", type=Path, default=Path("book/results/nas_benchmark.json"))
    parser.add_argument("--record", type=Path, default=Path("book/results", f"{NAME}.json"))
    parser.add_argument("--work", type=Path, default=Path("_build", NAME))
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--latency", action="store_true", help="add latencies from parts")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    common.check_positive(parser, options, "seeds")
    table = table_of.load_table(options.table)
    if options.latency:
        add_latency(options.record, table)
    else:
        make_record(options, table, common.command_of(NAME, arguments))


if __name__ == "__main__":
    main()
