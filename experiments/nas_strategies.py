"""Let all search strategies search the table of trained networks, hundreds of times each.

    python -m experiments.nas_strategies --table book/results/nas_benchmark.json --workers 2

The table (``experiments/nas_benchmark.py``) says what every network of the space is worth, so a
search takes milliseconds and what it missed is known: its regret, the mean test accuracy of the
best network of the space less that of the network the search would return. A search sees the
validation accuracy of one training of each network (repetition ``r`` that of seed ``r`` modulo the
seeds): what it takes for the best may have been lucky.

All strategies have the same budget. That of successive halving is counted in epochs: for ``t``
trials it may train for ``t`` times the epochs of the table, and trainings go on from rung to rung.
Repetition ``r`` of every strategy draws from the same seed, so they are compared pair by pair.
Settings of the strategies are those of ``STRATEGIES``; none was tuned on the table.

A killed run goes on where it stopped (a journal in ``--work``).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from experiments import common, nas_benchmark
from rac_helpers.metrics import mean_interval, paired_difference
from rac_helpers.nas.bayesian import BayesianSearch
from rac_helpers.nas.evolution import AgingEvolution, GenerationalEvolution
from rac_helpers.nas.halving import rung_epochs, successive_halving
from rac_helpers.nas.policies import LSTMPolicy
from rac_helpers.nas.random_search import RandomSearch
from rac_helpers.nas.reinforce import Reinforce
from rac_helpers.nas.search import Strategy, search
from rac_helpers.nas.table import Benchmark
from rac_helpers.records import Record
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.sweep import add_arguments, open_executor, sweep

NAME = "nas_strategies"
RANDOM, HALVING = "random", "halving"
STRATEGIES: dict[str, Callable[..., Strategy]] = {
    RANDOM: RandomSearch,
    "evolution": functools.partial(AgingEvolution, population_size=20, sample_size=5),
    "evolution-crossover": functools.partial(
        AgingEvolution, population_size=20, sample_size=5, crossover=0.5
    ),
    "generations": functools.partial(GenerationalEvolution, population_size=12, elite_size=4),
    "reinforce": functools.partial(Reinforce, lr=0.1),
    "reinforce-lstm": functools.partial(Reinforce, policy=LSTMPolicy, lr=0.01),
    "bayesian": functools.partial(BayesianSearch, num_initial=10),
}
REPETITIONS = dict.fromkeys(STRATEGIES, 500) | {HALVING: 500}
REPETITIONS |= {"reinforce-lstm": 200}  # by far the slowest
CHUNK = 50  # repetitions between two lines of the journal
HALVING_EVERY = 5  # it has no curve: it is run anew for each of these budgets


@functools.lru_cache(maxsize=1)
def load_table(path: str) -> Benchmark:
    """Read the table; once in each process."""
    return Benchmark.load(path)


# -- one repetition -------------------------------------------------------------------------------


def regrets(name: str, repetition: int, table: Benchmark, num_trials: int) -> list[float]:
    """Return the regret after each trial: of the network with the best validation so far."""
    seed = table.seeds[repetition % len(table.seeds)]
    generator = make_generator(derive_seed("search", repetition))
    if name == HALVING:
        genomes = [
            halve(table, budget, seed=seed, generator=generator)
            for budget in halving_budgets(num_trials)
        ]
    else:
        strategy = STRATEGIES[name](table.space, generator=generator)
        score = functools.partial(table.validation, seed=seed)
        history = search(strategy, score, num_trials=num_trials)
        genomes = [trial.genome for trial in history.incumbents()]
    return [round(table.regret(genome), 6) for genome in genomes]


def halving_budgets(num_trials: int) -> list[int]:
    """Return for how many trials' worth of epochs successive halving is run."""
    return list(range(min(HALVING_EVERY, num_trials), num_trials + 1, HALVING_EVERY))


def halve(table: Benchmark, budget: int, *, seed: int, generator: torch.Generator):
    """Return what halving finds when it may train for ``budget`` times all epochs."""
    count = num_candidates(budget * table.epochs, table.epochs, len(table.space))
    candidates = RandomSearch(table.space, generator=generator)
    run = successive_halving(
        [candidates.ask() for _ in range(count)],
        functools.partial(table.validation, seed=seed),
        max_epochs=table.epochs,
    )
    return run.best[0]


@functools.cache
def num_candidates(num_epochs: int, max_epochs: int, most: int) -> int:
    """Return with how many candidates halving may begin."""
    counts = range(1, most + 1)
    return max(n for n in counts if halving_epochs(n, max_epochs) <= num_epochs)


def halving_epochs(count: int, max_epochs: int) -> int:
    """Return the epochs that halving spends on so many candidates."""
    total, done = 0, 0
    for epochs in rung_epochs(1, max_epochs, 2):
        total, done, count = total + count * (epochs - done), epochs, max(1, count // 2)
    return total


def run(config: dict, *, path: str, num_trials: int) -> list[list[float]]:
    """Return the regrets of some repetitions of one strategy."""
    torch.set_num_threads(1)
    table = load_table(path)
    repetitions = range(config["first"], config["first"] + config["count"])
    return [regrets(config["strategy"], r, table, num_trials) for r in repetitions]


# -- the record -----------------------------------------------------------------------------------


def curve(ours: list[list[float]], theirs: list[list[float]], budgets: list[int]) -> list[dict]:
    """Return for each budget the mean regret and the paired difference to random search.

    Parameters
    ----------
    ours, theirs : list of list of float
        A list of regrets for each repetition; those of random search after each trial.
    budgets : list of int
        To how many trials each of our regrets belongs.
    """
    theirs = theirs[: len(ours)]
    points = []
    for place, budget in enumerate(budgets):
        own = [regret[place] for regret in ours]
        mean = mean_interval(own)
        gap = paired_difference(own, [regret[budget - 1] for regret in theirs])
        numbers = {"regret": mean, "difference": gap}
        point = {"trials": budget}
        for name, interval in numbers.items():
            ends = {"": interval.mean, "_low": interval.low, "_high": interval.high}
            point |= {name + end: round(value, 5) for end, value in ends.items()}
        points.append(point)
    return points


def summarize(found: dict[str, list[list[float]]], record: Record, num_trials: int) -> None:
    """Write one row for each strategy: its curve, and where it ends."""
    for name, ours in found.items():
        config = {"strategy": name, "budget": num_trials}
        if record.has(config, 0):
            continue
        every = list(range(1, num_trials + 1))
        points = curve(
            ours, found[RANDOM], halving_budgets(num_trials) if name == HALVING else every
        )
        ends = [regret[-1] for regret in ours]
        more = {"repetitions": len(ours), "found_best": ends.count(0.0) / len(ours)}
        last = {key: value for key, value in points[-1].items() if key != "trials"}
        record.append(config=config, seed=0, metrics=last | more, history=points)


def search_all(options: argparse.Namespace, desc: str) -> dict[str, list[list[float]]]:
    """Return the regrets of all repetitions of all strategies; what the journal holds is read."""
    repetitions = {n: min(count, options.repetitions or count) for n, count in REPETITIONS.items()}
    configs = [
        {"strategy": name, "first": first, "count": min(CHUNK, count - first)}
        for name, count in repetitions.items()
        for first in range(0, count, CHUNK)
    ]
    one = functools.partial(run, path=str(options.table), num_trials=options.trials)
    journal, chunks = options.work / f"{NAME}.jsonl", {}
    options.work.mkdir(parents=True, exist_ok=True)
    with open_executor(options) as executor:
        for config, result in sweep(one, configs, journal=journal, executor=executor, desc=desc):
            chunks[config["strategy"], config["first"]] = result
    found: dict[str, list[list[float]]] = {name: [] for name in repetitions}
    for name, first in sorted(chunks):
        found[name] += chunks[name, first]
    return found


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, write the record."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    results = Path("book/results")
    parser.add_argument("--table", type=Path, default=results / "nas_benchmark.json")
    parser.add_argument("--out", type=Path, default=results / f"{NAME}.json")
    parser.add_argument("--work", type=Path, default=Path("_build", NAME))
    parser.add_argument("--trials", type=int, default=60, help="budget (default: 60)")
    parser.add_argument("--repetitions", type=int, help="at most so many, at least 2")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    table = nas_benchmark.load_table(options.table)
    if not 1 <= options.trials <= len(table.space):
        parser.error(f"--trials must be in [1, {len(table.space)}], got {options.trials}")
    if options.repetitions is not None and options.repetitions < 2:
        parser.error(f"--repetitions must be at least 2, got {options.repetitions}")
    digest = hashlib.sha256(options.table.read_bytes()).hexdigest()[:12]
    desc = f"{len(table.space)} networks (table {digest}), {options.trials} trials"
    command = common.command_of(NAME, arguments)
    record = Record.open(options.out, name=NAME, command=command, data=desc)
    summarize(search_all(options, f"{NAME}, {desc}"), record, options.trials)


if __name__ == "__main__":
    from experiments import nas_strategies  # workers of a cluster cannot import __main__

    nas_strategies.main()
