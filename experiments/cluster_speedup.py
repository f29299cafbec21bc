"""How much faster are two workers than one? The same small trainings on clusters of both sizes.

    python -m experiments.cluster_speedup

Each cluster is a Dask cluster on this machine, with workers of one thread. They run the same 8
trainings of the small network on digits through ``sweep``; "workers" 0 runs them in this process,
without a cluster. Before the clock starts each process has drawn its pictures and trained once.
It is repeated in turn, so that what else the machine does hits all alike; and it needs as many
quiet cores as workers. "speed_up" is over one worker of the same repetition.

Dask tells its workers to give each piece of freed memory back to the system at once (Linux,
``MALLOC_TRIM_THRESHOLD_``), and the next batch has to ask for it anew. The rows with "trim" show
what that costs; the others do without it.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from experiments import common, tuning
from rac_helpers.records import Record
from rac_helpers.sweep import scheduler, sweep

PLACES = ((0, False), (1, True), (1, False), (2, False))  # workers, and whether they trim
TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
CONFIG = {"lr": 0.2, "weight_decay": 5e-4, "batch_size": 32, "num_ops": 1, "magnitude": 5}


def run(config: dict, *, settings: tuning.Settings) -> dict:
    """Train once, on one thread."""
    torch.set_num_threads(1)
    return tuning.try_out(config, settings=settings)


@contextmanager
def cluster_of(workers: int, *, trim: bool) -> Iterator:
    """Yield an executor on a cluster with so many workers; None runs here."""
    if workers == 0:
        yield None
        return
    import dask
    from distributed import LocalCluster

    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which begin now
    if not trim:  # Dask writes it into this process, too, for all workers after the first
        os.environ.pop(TRIM.rpartition(".")[2], None)
    with (
        dask.config.set({} if trim else {TRIM: None}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        scheduler(cluster.scheduler_address, timeout_s=60) as executor,
    ):
        yield executor


def measure(executor, *, trainings: int, settings: tuning.Settings, first: int) -> dict:
    """Return the seconds that a sweep takes, and the mean score, which must be the same for all."""
    configs = [CONFIG | {"seed": first + k} for k in range(trainings)]
    start, one = time.perf_counter(), functools.partial(run, settings=settings)
    scores = [result["score"] for _, result in sweep(one, configs, executor=executor)]
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "trainings": trainings,
        "trainings_per_minute": 60 * trainings / seconds,
        "mean_val_accuracy": sum(scores) / trainings,
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cluster_speedup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=Path, default=Path("book/results/cluster_speedup.json"))
    parser.add_argument("--repeats", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--trainings", type=int, default=8, help="of each sweep (default: 8)")
    parser.add_argument("--num-train", type=int, default=2000, help="how many training images")
    parser.add_argument("--epochs", type=int, default=3, help="of a training")
    options = parser.parse_args(arguments)
    common.check_positive(parser, options, "repeats", "trainings", "num_train", "epochs")
    settings = tuning.Settings(options.num_train, options.epochs, options.trainings, work="")
    command = common.command_of("cluster_speedup", arguments)
    about = f"{options.trainings} trainings: {settings.describe().rpartition(';')[0]}"
    record = Record.open(options.record, name="cluster_speedup", command=command, data=about)
    with ExitStack() as stack:
        places = {
            (workers, trim): stack.enter_context(cluster_of(workers, trim=trim))
            for workers, trim in PLACES
        }
        for (workers, _), executor in places.items():
            warm_up = {"trainings": 4 * max(1, workers), "settings": settings, "first": 1000}
            measure(executor, **warm_up)
        for repeat in range(options.repeats):
            rows = {
                place: measure(executor, trainings=options.trainings, settings=settings, first=0)
                for place, executor in places.items()
            }
            write(record, rows, repeat)


def write(record: Record, rows: dict[tuple[int, bool], dict], repeat: int) -> None:
    """Add the rows of one repetition."""
    if len({row["mean_val_accuracy"] for row in rows.values()}) != 1:
        raise RuntimeError(f"the same trainings must score the same everywhere, got {rows}")
    for (workers, trim), row in rows.items():
        config = {"workers": workers, "trim": trim}
        if not record.has(config, repeat):
            speed_up = {"speed_up": rows[1, False]["seconds"] / row["seconds"]}
            record.append(config=config, seed=repeat, metrics=row | speed_up)


if __name__ == "__main__":
    from experiments import cluster_speedup  # workers of a cluster cannot import __main__

    cluster_speedup.main()
