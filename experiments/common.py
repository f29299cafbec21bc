"""What the experiments share: settings, one training that can be resumed, command line, record."""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.randaugment import limit_train
from rac_helpers import augment, data, metrics, models, train
from rac_helpers.records import Record
from rac_helpers.rng import derive_seed
from rac_helpers.sweep import add_arguments, open_executor, sweep


@dataclass(frozen=True)
class Settings:
    """What is trained on what, and for how long."""

    data: str
    root: str | None
    model: str
    width: int
    num_train: int
    epochs: int
    tune_epochs: int
    batch_size: int
    lr: float
    tune_lr: float
    work: str
    compile: bool = False
    bf16: bool = False

    def describe(self) -> str:
        """Say what was trained on what, for the record."""
        return (
            f"{self.dataset.name}: {self.num_train:,} training images, "
            f"{len(self.dataset.validation.labels):,} for validation, "
            f"{len(self.dataset.test.labels):,} for the test; {self.model}, {self.trainings()} "
            f"(cosine), batch {self.batch_size}, momentum 0.9, weight decay 5e-4"
            + (", trained with bfloat16 autocast (weights and tests: float32)" if self.bf16 else "")
        )

    def trainings(self) -> str:
        """Say how long is trained, and with which learning rates."""
        return (
            f"{self.epochs} epochs from lr {self.lr}, "
            f"then {self.tune_epochs} epochs of fine-tuning from lr {self.tune_lr}"
        )

    @property
    def dataset(self) -> data.Dataset:
        """The images; read or drawn once in each process."""
        return load_dataset(self.data, self.root, self.num_train)

    def build(self, *, seed: int, width: int | None = None) -> nn.Module:
        """Return the network with new weights."""
        build = models.ARCHITECTURES[self.model]
        return build(len(self.dataset.classes), width or self.width, seed=seed)


PRESETS = {
    "synth_digits": {
        "model": "small_cnn",
        "width": 16,
        "num_train": 2000,
        "epochs": 16,
        "tune_epochs": 4,
        "batch_size": 50,
        "lr": 0.1,
        "tune_lr": 0.02,
    },
    "folder": {
        "model": "resnet20",
        "width": 16,
        "num_train": 15_000,
        "epochs": 12,
        "tune_epochs": 3,
        "batch_size": 128,
        "lr": 0.1,
        "tune_lr": 0.02,
    },
}
# of the experiments that begin with the same float networks: they can share their checkpoints
LONGER = PRESETS | {"folder": PRESETS["folder"] | {"num_train": 25_000, "epochs": 20}}
NUM_OPS, MAGNITUDE = 2, 10


def randaugment(**options: int) -> augment.BatchRandAugment:
    """Return the augmentation of all experiments on compression."""
    return augment.BatchRandAugment(NUM_OPS, MAGNITUDE, **options)


def trained(
    seed: int, settings: Settings, *, width: int | None = None
) -> tuple[nn.Module, list[dict]]:
    """Return the float network of a seed; epochs that its checkpoint holds are not run again."""
    model, config = settings.build(seed=seed, width=width), {"method": "float", "seed": seed}
    if width not in (None, settings.width):
        config["width"] = width
    doors = {"transform": randaugment(), "epochs": settings.epochs, "lr": settings.lr}
    history = fit(model, config, settings, stage="float", **doors)
    return model, history


def fit(
    model: nn.Module,
    config: dict,
    settings: Settings,
    *,
    stage: str,
    epochs: int,
    lr: float,
    **doors: Any,
) -> list[dict]:
    """Train ``model``, by way of a copy: compiled code can neither be changed nor be measured.

    ``doors`` go to :func:`rac_helpers.train.fit`: ``transform``, ``loss_fn``, ``after_step``.
    Epochs that the checkpoint holds are not run again.
    """
    torch._dynamo.config.recompile_limit = 256  # each width, rank or rounding has code of its own
    running = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if settings.compile:
        running.compile(dynamic=False)
    # without a cache: it would hold the weights of the first step until the context ends
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16, cache_enabled=False):
        history = train.fit(
            running,
            settings.dataset.train,
            settings.dataset.validation,
            epochs=epochs,
            batch_size=settings.batch_size,
            lr=lr,
            checkpoint=checkpoint(config, settings, stage),
            seed=derive_seed(stage, config["seed"]),
            progress=None if multiprocessing.parent_process() is None else False,
            **doors,
        )
    model.load_state_dict(running.state_dict())
    model.eval()
    return history


def tune(model: nn.Module, config: dict, settings: Settings, after_step=None) -> list[dict]:
    """Train on, as the network was trained, for the epochs of fine-tuning."""
    return fit(
        model,
        config,
        settings,
        stage="finetuned",
        epochs=settings.tune_epochs,
        lr=settings.tune_lr,
        transform=randaugment(),
        after_step=after_step,
    )


def checkpoint(config: dict, settings: Settings, stage: str) -> Path:
    """Return the file of one training; other settings or data have another one."""
    same = [settings.data, settings.model, settings.width, settings.num_train, settings.batch_size]
    same += [settings.epochs, settings.lr, settings.bf16]
    if stage == "finetuned":
        same += [settings.tune_epochs, settings.tune_lr]
    text = json.dumps([config, stage, same], sort_keys=True)
    return Path(settings.work, f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt")


@functools.lru_cache(maxsize=1)
def load_dataset(name: str, root: str | None, num_train: int) -> data.Dataset:
    """Read the folder of images, or draw digits."""
    if name == "synth_digits":
        return data.synth_digits(num_train, num_validation=500)
    return limit_train(data.folder(root, seed=0), num_train, root)


def scores(model: nn.Module, settings: Settings) -> dict[str, float]:
    """Return the accuracy on the test images, and on those for validation."""
    return {
        "test_accuracy": metrics.accuracy(model, settings.dataset.test),
        "val_accuracy": metrics.accuracy(model, settings.dataset.validation),
    }


def costs(model: nn.Module, settings: Settings) -> dict[str, int]:
    """Return parameters, multiply-accumulates for one image, and the bytes of the file."""
    return costs_of(model, settings.dataset.test.images[:1])


def costs_of(model: nn.Module, image: torch.Tensor) -> dict[str, int]:
    """Return the same without data: for one image, ``(1, 3, H, W)``, of any content."""
    return {
        "params": metrics.count_params(model),
        "macs": metrics.count_macs(model, image),
        "size_bytes": metrics.size_bytes(model),
    }


def without_seconds(history: list[dict]) -> list[dict]:
    """Leave out how long an epoch took: it says little where several runs share the machine."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


# -- command line and record ----------------------------------------------------------------------


def parse(
    arguments: list[str] | None, *, name: str, presets: dict[str, dict], description: str
) -> argparse.Namespace:
    """Read the command line of the experiment ``name``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", choices=sorted(presets), required=True)
    parser.add_argument("--root", help="the folder of images, one folder a class")
    parser.add_argument("--record", type=Path, help="the JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("_build", name))
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--num-train", type=int, help="how many training images")
    parser.add_argument("--epochs", type=int, help="of the network that all begins with")
    parser.add_argument("--tune-epochs", type=int, help="of fine-tuning")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: faster, needs a C++ compiler"
    )
    parser.add_argument(
        "--bf16", action="store_true", help="bfloat16 autocast: faster on processors that know it"
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if (options.root is None) == (options.data == "folder"):
        parser.error("--root is needed with --data folder, and only there")
    check_positive(parser, options, "seeds", "num_train", "epochs", "tune_epochs")
    if options.record is None:
        stem = name if options.data == "folder" else f"{name}_{options.data}"
        options.record = Path("book/results", f"{stem}.json")
    return options


def check_positive(
    parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str
) -> None:
    """End the program with one line if one of these options is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def settings_of(options: argparse.Namespace, presets: dict[str, dict]) -> Settings:
    """Return the preset of the data with what the command line changes."""
    given = {key: getattr(options, key) for key in ("num_train", "epochs", "tune_epochs")}
    preset = presets[options.data] | {k: v for k, v in given.items() if v is not None}
    return Settings(
        options.data,
        options.root,
        work=str(options.work),
        compile=options.compile,
        bf16=options.bf16,
        **preset,
    )


def open_record(
    options: argparse.Namespace, settings: Settings, *, name: str, arguments: list[str] | None
) -> Record:
    """Open the record, or end the program with one line that says what is wrong."""
    try:
        description = settings.describe()
        options.work.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    command = command_of(name, arguments)
    return Record.open(options.record, name=name, command=command, data=description)


def command_of(name: str, arguments: list[str] | None) -> str:
    """Return the command that was typed; ``None``: with the arguments of the shell."""
    words = sys.argv[1:] if arguments is None else arguments
    return " ".join([f"python -m experiments.{name}", *words])


def seed_by_seed(part: Callable[[int], list[dict]], seeds: int) -> list[dict]:
    """Return the runs of a part, each with all seeds before the next: a kill leaves all seeds."""
    return [config for same in zip(*map(part, range(seeds)), strict=True) for config in same]


def run_all(
    run: Callable[..., list[dict]],
    parts: Iterable[list[dict]],
    *,
    settings: Settings,
    options: argparse.Namespace,
    record: Record,
) -> None:
    """Run what is missing and write its rows; a part begins when the one before it has ended.

    ``run(config, settings=)`` returns rows, each with ``config``, ``metrics`` and ``history``.
    """
    journal = options.work / f"{options.record.stem}.jsonl"
    one = functools.partial(run, settings=settings)
    desc = f"{record.content['name']}, {settings.describe()}"
    with open_executor(options) as executor:
        for configs in parts:
            finished = sweep(one, configs, journal=journal, executor=executor, desc=desc)
            for config, rows in finished:
                write_rows(record, config, rows)


def write_rows(record: Record, config: dict, stages: list[dict]) -> None:
    """Write one row for each stage of a run; a stage has a name, metrics, and often a history."""
    config = dict(config)
    seed = config.pop("seed")
    for stage in stages:
        where = config | stage["config"]
        if not record.has(where, seed):
            history = {"history": stage["history"]} if stage.get("history") else {}
            record.append(config=where, seed=seed, metrics=stage["metrics"], **history)
