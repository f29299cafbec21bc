"""Train with and without RandAugment, and test on clean and on corrupted pictures.

    python experiments/randaugment.py --data folder --root FOLDER --workers 2 --compile
    python experiments/randaugment.py --data synth_digits --workers 2

Four studies, each with three seeds by default:

- ``arms``: five ways to augment, tested on clean pictures and on 19 corruptions x 5 severities;
- ``grid``: N x M;
- ``leave-one-out``: RandAugment without one of its operations;
- ``width``: whether a wider network wants a larger M (paper, figure 3).

The runs of one seed (and width) share the starting weights, the order of the images and the
number of steps. Settings are to be compared on the validation images; the test images give the
score. The digits are few (500), so that a small network over-fits and there is something to gain;
their number and the epochs were changed twice, after a look at results that showed under-fitting.
To ``width`` M = 1 and 6 were added afterwards: the best M had been the smallest one tried.

The first command (one folder a class, such as CIFAR-10 as image files) does ``arms`` alone, with
ResNet-20; the second all four, with a small network on pictures that the course draws. A killed
run goes on where it stopped: finished runs are in a journal, epochs in checkpoints (``--work``;
for a Dask cluster a folder that all its machines see).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import rac_helpers
from rac_helpers import augment, corrupt, data, metrics, models, train
from rac_helpers._progress import progress_bar
from rac_helpers.records import Record, write_atomically
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.sweep import add_arguments, open_executor, sweep

ARMS = ("none", "flip-crop", "simple", "randaugment", "flip-crop-randaugment")
NUM_OPS, MAGNITUDE = 2, 9
GRID = [(n, m) for n in (1, 2, 3) for m in (3, 9, 15, 21, 27)]
WIDTHS, WIDTH_MAGNITUDES = (8, 32), (1, 3, 6, 9, 15, 21, 27)
ARTICLE_SET = ("saturate", 5)  # the corruption of the article, tested on all test images


@dataclass(frozen=True)
class Settings:
    """What all runs of one record have in common."""

    data: str
    root: str | None
    model: str
    width: int
    num_train: int
    epochs: int
    batch_size: int
    lr: float
    num_corrupted: int
    studies: tuple[str, ...]
    work: str
    compile: bool = False

    def describe(self) -> str:
        """Say what was trained on what, for the record."""
        return (
            f"{self.dataset.name}: {self.num_train:,} training images, "
            f"{len(self.dataset.validation.labels):,} for validation, "
            f"{len(self.dataset.test.labels):,} for the test, {self.num_corrupted:,} of them, "
            f"spread evenly, for each corruption; {self.model}, {self.epochs} epochs, batch "
            f"{self.batch_size}, lr {self.lr} (cosine), momentum 0.9, weight decay 5e-4"
        )

    @property
    def dataset(self) -> data.Dataset:
        """The images; read or drawn once in each process."""
        return _dataset(self.data, self.root, self.num_train)


PRESETS = {
    "synth_digits": {
        "model": "small_cnn",
        "width": 16,
        "num_train": 500,
        "epochs": 64,
        "batch_size": 50,
        "lr": 0.1,
        "num_corrupted": 1000,
        "studies": ("arms", "grid", "leave-one-out", "width"),
    },
    "folder": {
        "model": "resnet20",
        "width": 16,
        "num_train": 10_000,
        "epochs": 16,
        "batch_size": 50,
        "lr": 0.1,
        "num_corrupted": 1000,
        "studies": ("arms",),
    },
}


# -- what to run ----------------------------------------------------------------------------------


def configurations(settings: Settings, num_seeds: int) -> list[dict]:
    """Return all runs: a seed is finished in all studies before the next one begins."""
    return [
        {"study": study, **config, "seed": seed}
        for seed in range(num_seeds)
        for study in settings.studies
        for config in _study(study, settings.width)
    ]


def _study(study: str, width: int) -> Iterator[dict]:
    if study == "arms":
        for arm in ARMS:
            strength = {"num_ops": NUM_OPS, "magnitude": MAGNITUDE} if "rand" in arm else {}
            yield {"arm": arm, **strength, "width": width}
    elif study == "grid":
        for num_ops, magnitude in GRID:
            yield _randaugment(num_ops, magnitude, width)
    elif study == "leave-one-out":
        for left_out in ("nothing", *augment.OPS):
            yield {**_randaugment(NUM_OPS, MAGNITUDE, width), "left_out": left_out}
    elif study == "width":
        for wide in WIDTHS:
            yield {"arm": "none", "width": wide}
            for magnitude in WIDTH_MAGNITUDES:
                yield _randaugment(NUM_OPS, magnitude, wide)


def _randaugment(num_ops: int, magnitude: int, width: int) -> dict:
    return {"arm": "randaugment", "num_ops": num_ops, "magnitude": magnitude, "width": width}


def transform_of(config: dict):
    """Return the augmentation of a run: ``transform(images, *, generator)``, or None."""
    if config["arm"] == "none":
        return None
    if config["arm"] == "flip-crop":
        return augment.flip_crop
    if config["arm"] == "simple":
        return augment.flip_rotate_zoom
    ops = tuple(name for name in augment.OPS if name != config.get("left_out"))
    randaugment = augment.BatchRandAugment(config["num_ops"], config["magnitude"], ops=ops)
    if config["arm"] == "randaugment":
        return randaugment
    return functools.partial(_flip_crop_then, randaugment)


def _flip_crop_then(transform, images, *, generator):
    return transform(augment.flip_crop(images, generator=generator), generator=generator)


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> dict:
    """Train one network and test it; the result goes into the journal."""
    model, history = train_one(config, settings=settings)
    dataset = settings.dataset
    clean = {
        "test_accuracy": metrics.accuracy(model, dataset.test),
        "val_accuracy": history[-1]["val_accuracy"],
        "train_accuracy": metrics.accuracy(model, dataset.train),  # without augmentation
        "num_images": len(dataset.test.labels),
    }
    corrupted = corrupted_accuracies(model, settings) if config["study"] == "arms" else []
    return {"clean": clean, "history": history, "corrupted": corrupted}


def train_one(config: dict, *, settings: Settings) -> tuple[torch.nn.Module, list[dict]]:
    """Train the network of a run; epochs that its checkpoint holds are not trained again."""
    dataset, seed = settings.dataset, config["seed"]
    build = models.ARCHITECTURES[settings.model]
    model = build(len(dataset.classes), config["width"], seed=seed)
    model = model.to(memory_format=torch.channels_last)
    if settings.compile:
        model.compile(dynamic=False)
    history = train.fit(
        model,
        dataset.train,
        dataset.validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        transform=transform_of(config),
        checkpoint=_checkpoint(config, settings),
        seed=seed,
        progress=None if multiprocessing.parent_process() is None else False,
    )
    return model, history


def _checkpoint(config: dict, settings: Settings) -> Path:
    same = [settings.data, settings.model, settings.num_train]
    same += [settings.epochs, settings.batch_size, settings.lr]
    text = json.dumps([config, same], sort_keys=True)
    return Path(settings.work, f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt")


def corrupted_accuracies(model: torch.nn.Module, settings: Settings) -> list[dict]:
    """Test on every corruption and severity."""
    rows = []
    for kind, severity in corrupted_sets():
        images = torch.from_numpy(np.load(corrupted_file(kind, severity, settings)))
        labels = clean_split(kind, severity, settings).labels
        score = metrics.accuracy(model, data.Split(images, labels))
        row = {"corruption": kind, "severity": severity}
        rows.append(row | {"test_accuracy": score, "num_images": len(images)})
    return rows


def clean_split(kind: str, severity: int, settings: Settings) -> data.Split:
    """Return the test images that a corruption is applied to: all, or some spread evenly.

    The images of a folder lie class by class, so the first ones would be of one class.
    """
    test = settings.dataset.test
    total = len(test.labels)
    number = total if (kind, severity) == ARTICLE_SET else min(settings.num_corrupted, total)
    which = torch.arange(number) * total // number
    return data.Split(test.images[which], test.labels[which])


def corrupted_sets() -> list[tuple[str, int]]:
    """Return all pairs of kind and severity."""
    return [(kind, severity) for kind in corrupt.KINDS for severity in range(1, 6)]


def corrupted_file(kind: str, severity: int, settings: Settings) -> Path:
    """Return the file of corrupted test images, uint8 of shape ``(n, 3, H, W)``."""
    return Path(settings.work, f"{_test_images_key(settings)}-{kind}-{severity}.npy")


@functools.lru_cache(maxsize=1)
def _test_images_key(settings: Settings) -> str:
    """A text that differs if other images would be corrupted, or more of them."""
    digest = hashlib.sha256(settings.dataset.test.images.numpy().tobytes())
    digest.update(f"{corrupt.SEVERITIES} {rac_helpers.__version__}".encode())
    return f"{digest.hexdigest()[:12]}-{settings.num_corrupted}"


def corrupt_test_images(settings: Settings) -> None:
    """Corrupt the test images once; every network is tested on the same ones."""
    if "arms" not in settings.studies:
        return
    todo = [pair for pair in corrupted_sets() if not corrupted_file(*pair, settings).exists()]
    if not todo:
        return
    with progress_bar(total=len(todo), desc="corrupting the test images") as bar:
        for kind, severity in todo:
            images = clean_split(kind, severity, settings).images
            generator = make_generator(derive_seed("corruption", kind, severity))
            changed = corrupt.corrupt(images, kind, severity, generator=generator)
            content = io.BytesIO()
            np.save(content, changed.numpy())
            write_atomically(corrupted_file(kind, severity, settings), content.getvalue())
            bar.update()


@functools.lru_cache(maxsize=1)
def _dataset(name: str, root: str | None, num_train: int) -> data.Dataset:
    if name == "synth_digits":
        return data.synth_digits(num_train, num_validation=500)
    whole = data.folder(root, validation=0.04, seed=0)  # 2,000 of CIFAR-10's 50,000
    return limit_train(whole, num_train, root)


def limit_train(whole: data.Dataset, num_train: int, root: str) -> data.Dataset:
    """Keep ``num_train`` of the training images, at random but always the same ones."""
    if num_train > len(whole.train.labels):
        raise ValueError(
            f"num_train must be at most {len(whole.train.labels):,}, the training images in "
            f"{root} that are not for validation, got {num_train:,}"
        )
    order = torch.randperm(len(whole.train.labels), generator=make_generator(0))[:num_train]
    few = data.Split(whole.train.images[order], whole.train.labels[order])
    return data.Dataset(whole.name, whole.classes, few, whole.validation, whole.test)


# -- the record -----------------------------------------------------------------------------------


def write_rows(record: Record, config: dict, result: dict) -> None:
    """Write the rows of one run: one for each corruption, then the clean one."""
    config = dict(config)
    seed = config.pop("seed")
    for row in result["corrupted"]:
        where = {key: row[key] for key in ("corruption", "severity")}
        scores = {key: row[key] for key in ("test_accuracy", "num_images")}
        if not record.has(config | where, seed):
            record.append(config=config | where, seed=seed, metrics=scores)
    if not record.has(config, seed):
        # how long a run took says little: several share the machine
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in result["history"]]
        record.append(config=config, seed=seed, metrics=result["clean"], history=history)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=sorted(PRESETS), required=True)
    parser.add_argument("--root", help="the folder of images, one folder a class")
    parser.add_argument("--record", type=Path, help="the JSON file to write")
    parser.add_argument("--work", type=Path, default=Path("_build/randaugment"))
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--studies", nargs="+", choices=PRESETS["synth_digits"]["studies"])
    parser.add_argument("--num-train", type=int, help="how many training images")
    parser.add_argument("--num-corrupted", type=int, help="how many test images a corruption")
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: faster, needs a C++ compiler"
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if (options.root is None) == (options.data == "folder"):
        parser.error("--root is needed with --data folder, and only there")
    for name in ("seeds", "num_train", "num_corrupted", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.record is None:
        name = "randaugment" if options.data == "folder" else "randaugment_synth_digits"
        options.record = Path("book/results", f"{name}.json")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    options = parse(arguments)
    preset = PRESETS[options.data] | {
        key: getattr(options, key)
        for key in ("num_train", "epochs", "num_corrupted", "studies")
        if getattr(options, key) is not None
    }
    preset["studies"] = tuple(preset["studies"])
    settings = Settings(
        options.data, options.root, work=str(options.work), compile=options.compile, **preset
    )
    try:
        description = settings.describe()
        options.work.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    record = Record.open(
        options.record,
        name="randaugment",
        command=" ".join(["python experiments/randaugment.py", *(arguments or sys.argv[1:])]),
        data=description,
    )
    corrupt_test_images(settings)
    journal = options.work / f"{options.record.stem}.jsonl"
    configs = configurations(settings, options.seeds)
    one = functools.partial(run, settings=settings)
    with open_executor(options) as executor:
        desc = f"randaugment, {description}"
        for config, result in sweep(one, configs, journal=journal, executor=executor, desc=desc):
            write_rows(record, config, result)


if __name__ == "__main__":
    from experiments import randaugment  # workers of a cluster cannot import __main__

    randaugment.main()
