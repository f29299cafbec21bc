"""Train every network of a small search space: a table in which strategies search in no time.

    python -m experiments.nas_benchmark --workers 2
    python -m experiments.nas_benchmark --latency
    python -m experiments.nas_benchmark --check 5

All networks of ``rac_helpers.nas.DIGITS_SPACE`` are trained on synth_digits, each with three seeds,
on one thread: 2,000 training images, 8 epochs, no augmentation. A row holds the accuracy on the
validation images after each epoch, that on the test images after the last one, and the seconds of
the processor; strategies see the first, the second says what they found. Learning rates fall along
a cosine over all 8 epochs, so the accuracy after 4 of them is that of a training broken off, not of
a shorter one.

A killed run goes on where it stopped (a journal in ``--work``); the record is written when the
table is complete. ``--latency`` adds the time of a forward pass of one image on two threads,
measured in an order drawn anew for each round; run it on a quiet machine. ``--check N`` trains
N entries again and says how far they are from the stored ones.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from experiments import common
from rac_helpers import data, metrics, nas, train
from rac_helpers.nas import DIGITS_SPACE, Genome, build, text_of
from rac_helpers.records import write_atomically
from rac_helpers.records.content import without_paths
from rac_helpers.records.machine import hardware, versions
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.sweep import add_arguments, open_executor, sweep

NAME = "nas_benchmark"
RESULTS = Path("book/results")
ROUNDS, RUNS, WARMUP = 5, 20, 3
LATENCY_THREADS = 2


@dataclass(frozen=True)
class Settings:
    """On what every network is trained, and for how long."""

    num_train: int = 2000
    num_validation: int = 1000
    num_test: int = 2000
    difficulty: float = 0.45
    epochs: int = 8
    batch_size: int = 50
    lr: float = 0.1

    def describe(self) -> str:
        """Say so, for the record."""
        return (
            f"synth_digits, difficulty {self.difficulty}: {self.num_train:,} training images, "
            f"{self.num_validation:,} for validation, {self.num_test:,} for the test; "
            f"{self.epochs} epochs from lr {self.lr} (cosine), batch {self.batch_size}, "
            "momentum 0.9, weight decay 5e-4, no augmentation"
        )


@functools.lru_cache(maxsize=1)
def load_dataset(settings: Settings) -> data.Dataset:
    """Draw the digits; once in each process."""
    sizes = settings.num_train, settings.num_validation, settings.num_test
    return data.synth_digits(*sizes, difficulty=settings.difficulty, progress=False)


def genome_of(text: str) -> Genome:
    """Read a genome of the record; it must be one of the space."""
    return DIGITS_SPACE.check(nas.genome_of(text))


# -- one network ----------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> dict:
    """Train one network with one seed."""
    dataset = load_dataset(settings)
    model = build(
        genome_of(config["genome"]),
        seed=derive_seed("start", config["seed"]),
        classes=len(dataset.classes),
    )
    begin = time.process_time()
    history = train.fit(
        model,
        dataset.train,
        dataset.validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=derive_seed("order", config["seed"]),
        progress=False,
    )
    seconds = time.process_time() - begin
    return {
        "val_accuracy": [round(row["val_accuracy"], 4) for row in history],
        "test_accuracy": round(metrics.accuracy(model, dataset.test), 4),
        "seconds": round(seconds, 2),
    }


def costs(genome: Genome) -> dict[str, int]:
    """Return parameters, multiply-accumulates for one image, and the bytes of the file."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return common.costs_of(build(genome, seed=0), image)


# -- the table ------------------------------------------------------------------------------------


def make_table(options: argparse.Namespace, genomes: list[Genome], command: str) -> None:
    """Train what is missing; write the record when all is there."""
    settings = Settings()
    configs = [
        {"genome": text_of(genome), "seed": seed}
        for seed in range(options.seeds)  # all networks once, before one is trained twice
        for genome in genomes
    ]
    results = {}
    options.work.mkdir(parents=True, exist_ok=True)
    journal, one = options.work / f"{NAME}.jsonl", functools.partial(run, settings=settings)
    with open_executor(options) as executor:
        found = sweep(one, configs, journal=journal, executor=executor, desc=settings.describe())
        for config, result in found:
            results[config["genome"], config["seed"]] = result
    content = head_of(NAME, command, settings.describe()) | {
        "settings": asdict(settings),
        "genes": {name: list(choices) for name, choices in DIGITS_SPACE.genes},
        "architectures": {text_of(genome): costs(genome) for genome in genomes},
        "rows": [row_of(config, results) for config in configs],
    }
    if not is_done(options.record, content["rows"]):
        write(options.record, content)


def head_of(name: str, command: str, data: str) -> dict:
    """Return what a record says of itself and of this machine."""
    about = {"name": name, "command": without_paths(command), "data": data}
    return about | {"hardware": hardware(), "versions": versions()}


def is_done(path: Path, rows: list[dict]) -> bool:
    """Whether the record holds just these rows: then what ``--latency`` added to it stays."""
    return path.is_file() and read(path)["rows"] == rows


def row_of(config: dict, results: dict) -> dict:
    """Return the row of one training; its names are those of the other records."""
    result = dict(results[config["genome"], config["seed"]])
    return {
        "config": {"genome": config["genome"]},
        "seed": config["seed"],
        "val_accuracy": result.pop("val_accuracy"),
        "metrics": result,
    }


def write(path: Path, content: dict) -> None:
    """Write the record, a line for each network and each training."""
    lines = []
    for key, value in content.items():
        if key == "rows":
            inner = ",\n  ".join(map(json.dumps, value))
            lines.append(f' "rows": [\n  {inner}\n ]')
        elif key == "architectures":
            inner = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f' "architectures": {{\n  {inner}\n }}')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read(path: Path) -> dict:
    """Return the record, or end the program with one line."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path} is no finished table: {error}")


def load_table(path: Path) -> nas.Benchmark:
    """Return the finished table, or end the program with one line."""
    try:
        return nas.Benchmark.load(path)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


# -- more about a finished table ------------------------------------------------------------------


def add_latency(path: Path) -> None:
    """Measure each network of the table and write the median into it."""
    content = read(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(LATENCY_THREADS)
    try:
        where, times = hardware(), measure([genome_of(t) for t in content["architectures"]])
    finally:
        torch.set_num_threads(threads)
    for genome, values in times.items():
        content["architectures"][text_of(genome)]["latency_ms"] = round(
            statistics.median(values), 4
        )
    content["latency"] = {
        "threads": LATENCY_THREADS,
        "batch_size": 1,
        "runs": ROUNDS * RUNS,
        "hardware": where,
    }
    write(path, content)


def measure(genomes: list[Genome]) -> dict[Genome, list[float]]:
    """Return the median of each round in ms; a slow moment of the machine hits one round only."""
    times: dict[Genome, list[float]] = {genome: [] for genome in genomes}
    generator = make_generator(0)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for _ in range(ROUNDS):
        for place in torch.randperm(len(genomes), generator=generator).tolist():
            model = build(genomes[place], seed=0)
            latency = metrics.latency_ms(model, image, runs=RUNS, warmup=WARMUP)
            times[genomes[place]].append(latency.median_ms)
    return times


def check(path: Path, count: int) -> None:
    """Train some rows again; end with an error where one is far from what is stored."""
    content = read(path)
    settings, rows = Settings(**content["settings"]), content["rows"]
    order = torch.randperm(len(rows), generator=make_generator(count))[:count].tolist()
    wrong = 0
    for row in (rows[place] for place in order):
        again = run(row["config"] | {"seed": row["seed"]}, settings=settings)["test_accuracy"]
        stored = row["metrics"]["test_accuracy"]
        same = [r["metrics"]["test_accuracy"] for r in rows if r["config"] == row["config"]]
        allowed = max(0.05, 2 * (max(same) - min(same)))
        wrong += abs(again - stored) > allowed
        print(
            f"{row['config']['genome']} seed {row['seed']}: stored {stored:.4f}, again {again:.4f}"
            f", allowed {allowed:.4f}"
        )
    if wrong:
        sys.exit(f"error: {wrong} of {count} differ by more than the seeds do")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; make the table, or add to it, or check it."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=Path, help="the JSON file (default: in book/results)")
    parser.add_argument("--work", type=Path, default=Path("_build", NAME))
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument(
        "--first", type=int, help="only so many networks, to try it out; written into --work"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--latency", action="store_true", help="add latency_ms to the table")
    mode.add_argument("--check", type=int, metavar="N", help="train N entries again")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    common.check_positive(parser, options, "seeds", "first", "check")
    if options.record is None:  # a part must not replace the table
        options.record = (options.work if options.first else RESULTS) / f"{NAME}.json"
    if options.latency:
        add_latency(options.record)
    elif options.check is not None:
        check(options.record, options.check)
    else:
        command = common.command_of(NAME, arguments)
        make_table(options, list(DIGITS_SPACE.genomes())[: options.first], command)


if __name__ == "__main__":
    from experiments import nas_benchmark  # workers of a cluster cannot import __main__

    nas_benchmark.main()
