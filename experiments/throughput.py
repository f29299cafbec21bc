"""Images a second of RandAugment (N = 2, M = 9): ours and other libraries', in one run.

    make bench
    python -m experiments.throughput --data folder --root cifar10

All start from the same 2,048 uint8 images of 32 px, each in the form that it likes best (tensors,
PIL images, NumPy arrays), which is prepared before the clock runs; drawing the operations is part
of the time. Every round runs every implementation once, in an order that rotates, so that a slow
moment of the machine hits all alike; ratios are taken within a round. The parts of the record:

- ``peers``: all implementations;
- ``image``: the cost by the size of the image;
- ``op``: the batch transform with one operation alone (both directions, as drawn);
- ``threads``: one thread against several;
- ``training``: augmentation of a batch in percent of a training step of ResNet-20.

``own_ops`` is false where all images of a batch get the same operations: that is something else,
and faster. Peers are in ``requirements-bench.txt``; those that are not installed are left out,
with a line that says so. The file is replaced when the last part is done.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.randaugment_peers import (
    BATCH_SIZES,
    IMPLEMENTATIONS,
    MAGNITUDE,
    NUM_OPS,
    REFERENCE,
    TRAINING_BATCH,
    Contender,
    installed_implementations,
)
from rac_helpers import data
from rac_helpers._progress import progress_bar
from rac_helpers.augment import OPS
from rac_helpers.records import Record, check_writable, frame
from rac_helpers.rng import make_generator, scoped_seed

IMAGE_SIZES_PX = (32, 64, 128, 224)
MIN_ROUNDS = 5
RECORD = Path("book/results/throughput.json")
TITLES = {
    "peers": f"RandAugment, N={NUM_OPS}, M={MAGNITUDE}, side by side",
    "image": "By the size of the image",
    "op": "One operation alone, and its share of the time if all are drawn equally often",
    "threads": "By threads",
    "training": "In percent of a training step of ResNet-20 without augmentation",
}
HEADS = {  # of the printed columns
    **{name: name for name in ("implementation", "op", "batch_size", "image_px", "threads")},
    "own_ops": "own_ops",
    "images_per_second": "images/s",
    "images_per_second_best": "best",
    "us_per_image": "µs/image",
    "ratio_to_torchvision": "× torchvision",
    "ratio_to_torchvision_q25": "from",
    "ratio_to_torchvision_q75": "to",
    "ratio_to_best_peer": "× best peer",
    "times_of_clone": "÷ copying",
    "share": "share",
    "percent_of_step": "% of step",
}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("synth_digits", "folder"), default="synth_digits")
    parser.add_argument("--root", type=Path, help="folder of images, one folder a class")
    parser.add_argument("--rounds", type=int, default=15, help=f"at least {MIN_ROUNDS}")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--out", type=Path, help=f"the record to write, by default {RECORD}")
    parser.add_argument("--quick", action="store_true", help="few images: a trial, no measurement")
    options = parser.parse_args(arguments)
    if options.quick and options.out is None:
        parser.error(f"--quick needs --out FILE, so that {RECORD} stays a measurement")
    options.out = options.out or RECORD
    for name, low in {"rounds": MIN_ROUNDS, "threads": 1}.items():
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    if (options.data == "folder") != (options.root is not None):
        parser.error("--root FOLDER and --data folder belong together")
    torch.set_num_threads(options.threads)
    num_images = 48 if options.quick else BATCH_SIZES[0]
    try:
        check_writable("--out", options.out)
        name, images = load_images(options.root, num_images)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    measure(images, options, data_name=f"{name}, {num_images:,} images of {images.shape[-1]} px")
    print_tables(options.out)


def load_images(root: Path | None, num_images: int) -> tuple[str, Tensor]:
    """Return the name of the data and images of all its classes, at random."""
    dataset = data.folder(root) if root else data.synth_digits(num_images, 1, 1)
    images = dataset.train.images
    if len(images) < num_images:
        raise ValueError(
            f"{root} must hold at least {num_images:,} images to train on, got {len(images):,}"
        )
    order = torch.randperm(len(images), generator=make_generator(0))
    return dataset.name, images[order[:num_images]]


def measure(images: Tensor, options: argparse.Namespace, *, data_name: str) -> None:
    """Measure all parts into a file beside the record, then replace the record."""
    partial = options.out.with_suffix(".partial.json")
    partial.unlink(missing_ok=True)
    source = "--data folder --root …" if options.root else "--data synth_digits"
    command = f"python -m experiments.throughput {source} --rounds {options.rounds}"
    command += f" --threads {options.threads}" + " --quick" * options.quick
    record = Record.open(partial, name="throughput", command=command, data=data_name)
    turn_s = 0.0 if options.quick else 0.3
    with scoped_seed(0):  # the peers draw from global state
        for part, contenders in parts(images, installed_implementations(), options.threads):
            speeds = images_per_second(contenders, rounds=options.rounds, turn_s=turn_s, desc=part)
            torch.set_num_threads(options.threads)
            append_rows(record, part, contenders, speeds)
    os.replace(partial, options.out)


def parts(
    images: Tensor, names: Sequence[str], threads: int
) -> Iterator[tuple[str, list[Contender]]]:
    """Yield the name of each part and what runs side by side in it."""
    named = {name: IMPLEMENTATIONS[name].batch_sizes for name in names if name != "resnet20-step"}
    yield "peers", list(_contenders(images, named))
    yield "image", list(_by_image_size(images, names))
    options = [{"num_ops": 1, "ops": (op,)} for op in OPS]
    yield "op", [Contender.of("rac-batch", images, len(images), **option) for option in options]
    yield "threads", list(_by_threads(images, threads))
    training = {"resnet20-step": (TRAINING_BATCH,), "rac-batch": (TRAINING_BATCH,)}
    training |= {name: (1,) for name in names if 1 in IMPLEMENTATIONS[name].batch_sizes}
    yield "training", list(_contenders(images[:TRAINING_BATCH], training))


def _contenders(images: Tensor, named: Mapping[str, Sequence[int]]) -> Iterator[Contender]:
    for name, batch_sizes in named.items():
        for size in dict.fromkeys(min(size, len(images)) for size in batch_sizes):
            yield Contender.of(name, images, size)


def _by_image_size(images: Tensor, names: Sequence[str]) -> Iterator[Contender]:
    """The larger, the fewer, so that large ones do not take all the time."""
    named = {"rac-batch": (32, 128), REFERENCE: (1,), "albumentations": (1,), "clone": (128,)}
    for px in IMAGE_SIZES_PX:
        some = images[: max(1, len(images) * images.shape[-1] // px)]
        if px != images.shape[-1]:
            some = F.interpolate(some.float(), size=px, mode="bilinear").round().to(torch.uint8)
        yield from _contenders(some, {name: named[name] for name in named if name in names})


def _by_threads(images: Tensor, threads: int) -> Iterator[Contender]:
    for number in dict.fromkeys((1, threads)):
        torch.set_num_threads(number)
        named = {"rac-batch": (BATCH_SIZES[0], TRAINING_BATCH), REFERENCE: (1,)}
        named["clone"] = BATCH_SIZES[:1]
        yield from _contenders(images, named)
    torch.set_num_threads(threads)


def images_per_second(
    contenders: Sequence[Contender], *, rounds: int, turn_s: float, desc: str
) -> np.ndarray:
    """Return the speeds, shape ``(len(contenders), rounds)``.

    A turn runs over the images as often as fits into ``turn_s``, at least once.
    """
    passes = [_passes(contender, turn_s) for contender in contenders]
    speeds = np.empty((len(contenders), rounds))
    with progress_bar(total=speeds.size, desc=desc) as bar:
        for number in range(rounds):
            for i in np.roll(np.arange(len(contenders)), -number):
                elapsed_s = _elapsed_s(contenders[i], passes[i])
                speeds[i, number] = passes[i] * contenders[i].num_images / elapsed_s
                bar.update()
    return speeds


def _passes(contender: Contender, turn_s: float) -> int:
    """Warm up (memory, caches), and see how often the images fit into a turn."""
    _elapsed_s(contender, 1)
    return max(1, int(turn_s / _elapsed_s(contender, 1)))


def _elapsed_s(contender: Contender, passes: int) -> float:
    torch.set_num_threads(contender.threads)
    start = time.perf_counter()
    for _ in range(passes):
        contender.run()
    return time.perf_counter() - start


def append_rows(
    record: Record, part: str, contenders: Sequence[Contender], speeds: np.ndarray
) -> None:
    """Append a row for each contender; its speeds in all rounds are its history."""
    for number, contender in enumerate(contenders):
        metrics = summary(contenders, speeds, number)
        if part == "peers":
            peers = [speed for c, speed in zip(contenders, speeds, strict=True) if c.is_peer]
            metrics["ratio_to_best_peer"] = np.median(speeds[number] / np.max(peers, axis=0))
        if part == "op":
            cost = 1 / np.median(speeds, axis=1)
            metrics["share"] = cost[number] / cost.sum()
        record.append(
            config=contender.config(part),
            seed=0,
            metrics={"num_images": contender.num_images}
            | {key: float(f"{value:.5g}") for key, value in metrics.items()},
            history=[
                {"round": i, "images_per_second": round(speed, 1)}
                for i, speed in enumerate(speeds[number].tolist(), start=1)
            ],
        )


def summary(contenders: Sequence[Contender], speeds: np.ndarray, number: int) -> dict[str, float]:
    """Medians and quartiles over the rounds of one contender; ratios are taken within a round."""
    own, speed = contenders[number], speeds[number]
    metrics = {**_spread("images_per_second", speed), "images_per_second_best": speed.max()}
    metrics["us_per_image"] = 1e6 / np.median(speed)
    for other, reference in zip(contenders, speeds, strict=True):
        if (other.image_px, other.threads) != (own.image_px, own.threads):
            continue
        if other.implementation == "resnet20-step":
            metrics |= _spread("percent_of_step", 100 * reference / speed)
        elif own.implementation == "resnet20-step":
            continue
        elif other.implementation == REFERENCE:
            metrics |= _spread("ratio_to_torchvision", speed / reference)
        elif other.implementation == "clone":
            metrics["times_of_clone"] = np.median(reference / speed)
    return metrics


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    """Median and quartiles over the rounds."""
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    return {name: median, f"{name}_q25": q25, f"{name}_q75": q75}


def print_tables(path: Path) -> None:
    """Print the parts of the record, each as a table."""
    rows = frame(path)
    for part, title in TITLES.items():
        table = rows[rows["part"] == part].dropna(axis="columns", how="all")
        table = table[[name for name in HEADS if name in table]].rename(columns=HEADS)
        print(f"\n{title}")
        print(table.to_string(index=False, na_rep="", float_format=_three_digits))
    print("\n" + "\n".join(sorted(set(rows["library"]))))


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
