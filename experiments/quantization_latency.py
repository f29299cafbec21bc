"""Milliseconds of one network in many runtimes, in floats and in int8, side by side.

    make runtimes
    OMP_WAIT_POLICY=passive python -m experiments.quantization_latency --rounds 9

ResNet-56 (or 20), two threads, one image and 64 of them. In PyTorch: eager, channels last,
bfloat16, compiled; converted to int8 by PT2E (not compiled: the trap; compiled: the real thing);
linear layers in int8 by torchao. Outside of it: ONNX Runtime, OpenVINO and ExecuTorch.

In each round each runtime has a turn, one after the other, and speed-ups are taken within a round:
the speed of a machine wanders. Each runtime has threads of its own; passive ones do not disturb the
next runtime's turn by waiting busily. The network is trained first, briefly, so that it can be told
whether int8 says the same about the test images; weights do not change how fast it is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from experiments.pruning_latency import BATCH_SIZES, check_timing, measure, replaced, timings
from experiments.quantization_runtimes import Job, Variant, software, variants
from rac_helpers import data, models, train
from rac_helpers.quantize.compare import agreement
from rac_helpers.records import Record, check_writable

BASE = ("eager", "float32")
CALIBRATION_IMAGES = 256
COMPARED_IMAGES = 512  # a multiple of the batch sizes: some runtimes take no other


def dataset_of(options: argparse.Namespace) -> data.Dataset:
    """Draw digits, or read a folder of images."""
    if options.data == "folder":
        return data.folder(options.root, seed=0)
    return data.synth_digits(options.num_train, num_validation=500, num_test=COMPARED_IMAGES)


def network(options: argparse.Namespace, dataset: data.Dataset) -> nn.Module:
    """Return the network in eval mode: from ``--weights`` if the file is there, else trained."""
    model = models.ARCHITECTURES[options.model](len(dataset.classes), seed=0)
    if options.weights is not None and options.weights.exists():
        model.load_state_dict(safetensors.torch.load_file(options.weights))
        return model.eval()
    if options.epochs:
        part = data.Split(*(values[: options.num_train] for values in dataset.train))
        train.fit(model, part, dataset.validation, epochs=options.epochs)
    if options.weights is not None:
        safetensors.torch.save_file(model.state_dict(), check_writable("weights", options.weights))
    return model.eval()


class InBatches(nn.Module):
    """A network that sees as many images at a time as it was made for."""

    def __init__(self, module: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.module, self.batch_size = module, batch_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of all images; their number is a multiple of the batch size."""
        return torch.cat([self.module(batch) for batch in images.split(self.batch_size)])


def append_rows(
    record: Record, times: dict, found: dict[tuple[str, str], Variant], *, images, where: dict
) -> None:
    """Write one row for each runtime and precision."""
    base = found[BASE].module
    for key, own in times.items():
        other = InBatches(found[key].module, where["batch_size"])
        same = agreement(base, other, images, batch_size=len(images))
        numbers = {
            **timings(own, times[BASE]),
            "size_bytes": found[key].size_bytes,
            **same,
        }
        config = {"runtime": key[0], "precision": key[1], **where, "software": software(key[0])}
        record.append(config=config, seed=0, metrics=numbers)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("resnet20", "resnet56"), default="resnet56")
    parser.add_argument("--data", choices=("synth_digits", "folder"), default="synth_digits")
    parser.add_argument("--root", help="the folder of images, one folder a class")
    parser.add_argument("--weights", type=Path, help="file to read, or to write after training")
    parser.add_argument("--num-train", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=12, help="0: random weights")
    parser.add_argument("--threads", type=int, default=2, help="threads of each runtime")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-s", type=float, default=1.0, help="seconds of a runtime's turn")
    parser.add_argument("--out", type=Path, default=Path("book/results/quantization_latency.json"))
    options = parser.parse_args(arguments)
    check_timing(parser, options)
    for name, low in {"num_train": 1, "epochs": 0}.items():
        if getattr(options, name) < low:
            parser.error(
                f"--{name.replace('_', '-')} must be at least {low}, got {getattr(options, name)}"
            )
    if (options.root is None) == (options.data == "folder"):
        parser.error("--root is needed with --data folder, and only there")
    return options


def command_of(options: argparse.Namespace) -> str:
    """Return what to type to run it again."""
    names = ["model", "data", "root", "weights", "num_train", "epochs", "threads", "rounds"]
    given = {name.replace("_", "-"): getattr(options, name) for name in [*names, "turn_s"]}
    words = [f"--{name} {value}" for name, value in given.items() if value is not None]
    policy = os.environ.get("OMP_WAIT_POLICY")  # of idle threads: they spin, or let others work
    set_before = [] if policy is None else [f"OMP_WAIT_POLICY={policy}"]
    return " ".join([*set_before, "python -m experiments.quantization_latency", *words])


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure into a file beside the record, then replace the record."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    dataset = dataset_of(options)
    model = network(options, dataset)
    calibration = dataset.train.images[:CALIBRATION_IMAGES] / 255
    compared = dataset.test.images[:COMPARED_IMAGES] / 255
    data = f"{dataset.name}: {len(calibration)} images to calibrate, {len(compared)} to compare"
    about = {"command": command_of(options), "data": data}
    with replaced(options.out, name="quantization_latency", **about) as record:
        for batch_size in BATCH_SIZES:
            torch.compiler.reset()  # its limit of shapes for one network; past it all runs eager
            with tempfile.TemporaryDirectory() as folder:
                example = calibration[:batch_size].clone()
                found = variants(Job(model, calibration, example, options.threads, Path(folder)))
                modules = {key: variant.module for key, variant in found.items()}
                pace = {"rounds": options.rounds, "turn_s": options.turn_s}
                times = measure(modules, example, **pace, desc=f"batch {batch_size}")
                where = {"model": options.model, "batch_size": batch_size}
                where["threads"] = options.threads
                append_rows(record, times, found, images=compared, where=where)


if __name__ == "__main__":
    main()
