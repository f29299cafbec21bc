"""Milliseconds of split layers: does a rank that saves bytes save time?

    python -m experiments.lowrank_latency

Layers and networks with random weights, which are as fast as trained ones: two linear layers, two
convolutions (on 8 x 8 pixels: 64 channels, as at the end of ResNet-20, and 256), and
ResNet-20 itself. Each of them whole, and split so that a share of the weights is left, up to 1:
there, at break-even, a split has as many bytes as the layer. One image and 64 of them, eager and
compiled (compiled at fewer shares: it takes long).

In each round each module of a group has a turn, one after the other, and speed-ups over the whole
one are taken within a round: the speed of a machine wanders.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from experiments.lowrank import SPLITS, split_layers
from experiments.pruning_latency import (
    BATCH_SIZES,
    MODES,
    check_timing,
    measure,
    replaced,
    timings,
)
from rac_helpers import lowrank, metrics, models
from rac_helpers.records import Record
from rac_helpers.rng import make_generator, scoped_seed

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
COMPILED_SHARES = {"layer": (0.25, 0.5, 1.0), "network": (0.25,)}
WHOLE = "whole"


class Group(NamedTuple):
    """A module, whole and split, with what it takes in."""

    name: str
    input_shape: tuple[int, ...]  # of one example
    modules: dict[tuple[str, float], nn.Module]  # by method and share of the weights


def groups(*, small: bool = False) -> Iterator[Group]:
    """Make the modules; ``small`` ones for a test."""
    for features in (16,) if small else (256, 1024):
        with scoped_seed(0):
            layer = nn.Linear(features, features)
        modules = _layers(layer, {"linear": lowrank.LinearSplit})
        yield Group(f"linear-{features}", (features,), modules)
    for channels, side in ((8, 4),) if small else ((64, 8), (256, 8)):
        with scoped_seed(0):
            layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        modules = _layers(layer, {name: SPLITS[name] for name in ("channel", "spatial", "tucker")})
        yield Group(f"conv-{channels}", (channels, side, side), modules)
    network = (models.ResNet(8, width=4) if small else models.resnet20()).eval()
    yield Group("resnet20", (3, 32, 32), _networks(network))


def _layers(layer: nn.Module, splits: dict) -> dict[tuple[str, float], nn.Module]:
    modules = {(WHOLE, 1.0): layer.eval()}
    for method, split in splits.items():
        for share in SHARES:
            rank = lowrank.rank_for_share(layer, share, split=split)
            modules[method, share] = split(layer, rank)
    return modules


def _networks(network: nn.Module) -> dict[tuple[str, float], nn.Module]:
    modules, layers = {(WHOLE, 1.0): network}, split_layers(network)
    for method in ("channel", "spatial", "tucker"):
        for share in SHARES:
            ranks = lowrank.ranks_for_share(network, share, split=SPLITS[method], layers=layers)
            modules[method, share] = lowrank.factorize(network, ranks, split=SPLITS[method])
    return modules


def prepared(group: Group, mode: str) -> dict[tuple[str, float], nn.Module]:
    """Return copies to be measured, compiled ones if that is asked for."""
    if mode == "eager":
        return group.modules
    torch.compiler.reset()  # its limit of shapes for one kind of module; past it all runs eager
    kept = COMPILED_SHARES["network" if group.name == "resnet20" else "layer"]
    modules = {
        key: copy.deepcopy(module)
        for key, module in group.modules.items()
        if key[0] == WHOLE or key[1] in kept
    }
    for module in modules.values():
        module.compile(dynamic=False)
    return modules


def append_rows(record: Record, times: dict, group: Group, where: dict) -> None:
    """Write one row for each module."""
    example = torch.zeros(1, *group.input_shape)
    for (method, share), own in times.items():
        module = group.modules[method, share]
        numbers = {
            **timings(own, times[WHOLE, 1.0]),
            "params": metrics.count_params(module),
            "macs": metrics.count_macs(module, example),
            "size_bytes": metrics.size_bytes(module),
        }
        if isinstance(module, lowrank.TuckerSplit):
            numbers["rank_in"], numbers["rank_out"] = module.rank
        elif isinstance(module, lowrank.LayerSplit):
            numbers["rank"] = module.rank
        config = {"module": group.name, "method": method, "share": share, **where}
        record.append(config=config, seed=0, metrics=numbers)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure into a file beside the record, then replace the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn-s", type=float, default=0.05, help="seconds of a module's turn")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--out", type=Path, default=Path("book/results/lowrank_latency.json"))
    options = parser.parse_args(arguments)
    check_timing(parser, options)
    torch.set_num_threads(options.threads)
    command = f"python -m experiments.lowrank_latency --threads {options.threads}"
    command += f" --rounds {options.rounds} --turn-s {options.turn_s}"
    command += f" --modes {' '.join(options.modes)}"
    about = {"command": command, "data": "random numbers"}
    with replaced(options.out, name="lowrank_latency", **about) as record:
        for group, mode, batch in itertools.product(groups(), options.modes, BATCH_SIZES):
            _measure(record, group, {"mode": mode, "batch_size": batch}, options)


def _measure(record: Record, group: Group, where: dict, options: argparse.Namespace) -> None:
    shape = where["batch_size"], *group.input_shape
    inputs = torch.rand(shape, generator=make_generator(0))
    desc = f"{group.name}, {where['mode']}, batch {where['batch_size']}"
    modules = prepared(group, where["mode"])
    times = measure(modules, inputs, rounds=options.rounds, turn_s=options.turn_s, desc=desc)
    append_rows(record, times, group, where | {"threads": options.threads})


if __name__ == "__main__":
    main()
