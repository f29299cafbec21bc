"""Milliseconds of a pruned network: zeroed, narrowed, and by Torch-Pruning, side by side.

    python -m experiments.pruning_latency --model resnet20

ResNet-20 (or 56, the default) with random weights, which are as fast as trained ones. In one
run: the dense network; the same with 90 % of its weights zero; with filters taken out until half
and a quarter of the multiply-accumulates are left, by the course and by Torch-Pruning; and the
network that was built with half the width. One image and 64 of them, eager and compiled.

In each round each network has a turn, one after the other, and speed-ups are taken within a round:
the speed of a machine wanders.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import copy
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiments import common
from experiments.pruning import narrowed
from rac_helpers import metrics, models, prune
from rac_helpers._progress import progress_bar
from rac_helpers.records import Record, check_writable
from rac_helpers.rng import make_generator

MACS_SHARES = (0.5, 0.25)
MASKED_SPARSITY = 0.9
BATCH_SIZES = (1, 64)
IMAGE_PX = 32
MODES = ("eager", "compiled")


def networks(build, *, width: int = 16) -> dict[tuple[str, float], nn.Module]:
    """Return the networks by name and by the share of the MACs that was asked for."""
    dense, example = build(10, width, seed=0).eval(), torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    masked = copy.deepcopy(dense)
    prune.global_masks(prune.magnitude_scores(masked), MASKED_SPARSITY).apply_(masked)
    found = {("dense", 1.0): dense, ("masked", 1.0): masked}
    found |= {("channel-l1", share): narrowed(dense, example, share) for share in MACS_SHARES}
    found |= {("torch-pruning", s): torch_pruned(dense, example, s) for s in MACS_SHARES}
    found["narrow", 0.25] = build(10, width // 2, seed=0).eval()
    return found


def torch_pruned(model: nn.Module, example: torch.Tensor, macs_share: float) -> nn.Module:
    """Let Torch-Pruning take out filters, in steps of 1 %, until the MACs are few enough."""
    import torch_pruning

    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    limit = macs_share * metrics.count_macs(model, example)

    def pruned(percent: int) -> nn.Module:
        small = copy.deepcopy(model)
        pruner = torch_pruning.pruner.MagnitudePruner(
            small,
            example,
            importance=importance,
            pruning_ratio=percent / 100,
            ignored_layers=[small.classifier],
        )
        pruner.step()
        return small

    def is_small(percent: int) -> bool:
        return metrics.count_macs(pruned(percent), example) <= limit

    percent = 1 + bisect.bisect_left(range(1, 100), True, key=is_small)
    if percent == 100:
        raise RuntimeError(f"Torch-Pruning did not reach a share of {macs_share}")
    return pruned(percent)


def measure(
    modules: dict, images: torch.Tensor, *, rounds: int, turn_s: float, desc: str
) -> dict[tuple[str, float], np.ndarray]:
    """Return the median milliseconds of each turn, shape ``(rounds,)``."""
    first = {key: metrics.latency_ms(module, images, runs=3) for key, module in modules.items()}
    runs = {key: max(3, int(1000 * turn_s / one.median_ms)) for key, one in first.items()}
    times = {key: np.empty(rounds) for key in modules}
    keys = list(modules)
    with progress_bar(total=rounds * len(keys), desc=desc) as bar:
        for number in range(rounds):
            for place in range(len(keys)):
                key = keys[(place + number) % len(keys)]
                turn = metrics.latency_ms(modules[key], images, runs=runs[key], warmup=1)
                times[key][number] = turn.median_ms
                bar.update()
    return times


def timings(own: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """Return median and spread of the turns' milliseconds, and of the speed-ups over ``base``."""
    speedups = base / own  # within each round
    quartiles = np.quantile(own, [0.25, 0.5, 0.75]).tolist()
    return {
        "latency_ms": quartiles[1],
        "latency_iqr_ms": quartiles[2] - quartiles[0],
        "speedup": float(np.median(speedups)),
        "speedup_q25": float(np.quantile(speedups, 0.25)),
        "speedup_q75": float(np.quantile(speedups, 0.75)),
    }


def check_timing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program unless there are threads, rounds and time, and a place for the record."""
    common.check_positive(parser, options, "threads", "rounds")
    if not options.turn_s > 0:
        parser.error(f"--turn-s must be above 0, got {options.turn_s}")
    check_writable("--out", options.out)


@contextlib.contextmanager
def replaced(path: Path, *, name: str, command: str, data: str) -> Iterator[Record]:
    """Yield a new record beside ``path``; it takes that place when all is measured."""
    partial = path.with_suffix(".partial.json")
    partial.unlink(missing_ok=True)
    yield Record.open(partial, name=name, command=command, data=data)
    os.replace(partial, path)


def append_rows(record: Record, times: dict, modules: dict, where: dict) -> None:
    """Write one row for each network."""
    example = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    for key, own in times.items():
        numbers = {
            **timings(own, times["dense", 1.0]),
            "params": metrics.count_params(modules[key]),
            "macs": metrics.count_macs(modules[key], example),
        }
        config = {"network": key[0], "macs_share": key[1], **where}
        record.append(config=config, seed=0, metrics=numbers)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure into a file beside the record, then replace the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("resnet20", "resnet56"), default="resnet56")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-s", type=float, default=1.0, help="seconds of a network's turn")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--out", type=Path, default=Path("book/results/pruning_latency.json"))
    options = parser.parse_args(arguments)
    check_timing(parser, options)
    torch.set_num_threads(options.threads)
    command = f"python -m experiments.pruning_latency --model {options.model}"
    command += f" --threads {options.threads} --rounds {options.rounds} --turn-s {options.turn_s}"
    command += f" --modes {' '.join(options.modes)}"
    about = {"command": command, "data": f"random images of {IMAGE_PX} px"}
    build = {"resnet20": models.resnet20, "resnet56": models.resnet56}[options.model]
    plain = networks(build)  # once: Torch-Pruning searches for long
    with replaced(options.out, name="pruning_latency", **about) as record:
        for mode, batch_size in itertools.product(options.modes, BATCH_SIZES):
            modules = copy.deepcopy(plain)
            torch.compiler.reset()  # its limit of shapes for one network; past it all runs eager
            if mode == "compiled":
                for module in modules.values():
                    module.compile(dynamic=False)
            images = torch.rand(batch_size, 3, IMAGE_PX, IMAGE_PX, generator=make_generator(0))
            where = {"model": options.model, "batch_size": batch_size, "mode": mode}
            where["threads"] = options.threads
            desc = f"{mode}, batch {batch_size}"
            times = measure(
                modules, images, rounds=options.rounds, turn_s=options.turn_s, desc=desc
            )
            append_rows(record, times, plain, where)


if __name__ == "__main__":
    main()
