"""Tips for tuning, each measured: what does it bring, and when?

    python -m experiments.tuning_tips --workers 2

The first five are the tips of article A4, the last is its advice after pruning. Networks are small
and pictures few, so that each effect has room to be seen. There is one row for each arm and seed;
the arms of a tip share the seed, the first weights and the pictures, so that differences can be
paired.

- "objective": 12 settings are drawn and trained on 300 pictures; arm "training" chooses the one
  with the lowest loss on the training images, arm "validation" that on 200 others;
- "augmentation": none or RandAugment (N = 1, M = 5) on 500 pictures, for 10 epochs and for 60;
- "clipping": a recurrent network that must recall its first input after 30 steps. Its gradients
  explode (scale 1.2), keep their length (1.0) or vanish (0.5); clipped to a norm of 1, or not;
- "stopping": 60 epochs on 300 pictures. Arm "last" takes the last epoch, "validation" the best
  for 200 validation images, "test" the best for 200 test images, and each reports its accuracy
  on these test images. On 3,000 fresh pictures it turns out what was promised too much;
- "start": a network that comes with the course, trained on digits drawn from fonts, or new
  weights, trained on 20, 50 or 200 handwritten digits. Learning rate 0.1 or 0.01, by validation;
- "retune": that network with 95 % of its weights cut, the smallest of all, and trained on for a
  while on 1,000 new pictures: with each of several learning rates and two weight decays. 0.1 and
  0.0005 are those it was trained with. One row for each, for the chapter to choose by validation.

A killed run goes on where it stopped: finished runs are in a journal (``--work``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from experiments import common, tuning
from rac_helpers import augment, data, metrics, models, prune, train, tune
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.tune import Integer, Real, Space

WIDTH = 8
POOL = Space(
    {
        "lr": Real(0.01, 1.0, log=True),
        "weight_decay": Real(1e-5, 3e-2, log=True),
        "num_ops": Integer(0, 2),
        "magnitude": Integer(1, 15),
    }
)
SCALES = (0.5, 1.0, 1.2)
FEW = (20, 50, 200)
START_LRS = (0.1, 0.01)
SHIPPED = "small_cnn-synth_digits"
TUNE_LRS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
CUT = 0.95


@dataclass(frozen=True)
class Settings:
    """How long is trained, and how much is tried."""

    epochs: int
    pool_size: int
    fresh: int

    def describe(self) -> str:
        """Say what was trained on what, for the record."""
        return (
            f"synth_digits and digits: few training images; small_cnn of width {WIDTH}, up to "
            f"{self.epochs} epochs (cosine); {self.pool_size} settings to choose from, "
            f"{self.fresh:,} fresh images"
        )


def digits_of(num_train: int, seed: int, *, num_test: int = 200) -> data.Dataset:
    """Draw digits that no other seed has seen: training, 200 for validation, and test."""
    sizes = {"num_train": num_train, "num_validation": 200, "num_test": num_test}
    return data.synth_digits(**sizes, seed=derive_seed("tips", seed), progress=False)


def fit(model: nn.Module, dataset: data.Dataset, seed: int, **options) -> list[dict]:
    """Train a network in batches of 32."""
    options = {"lr": 0.1, "batch_size": 32, "seed": seed, "progress": False} | options
    return train.fit(model, dataset.train, dataset.validation, **options)


# -- the tips: each returns rows of all arms with one seed -----------------------------------------


def objective(seed: int, settings: Settings) -> list[dict]:
    """Choose by the training images or by others."""
    dataset = digits_of(300, seed, num_test=settings.fresh)
    generator, found = make_generator(derive_seed(seed, "pool")), []
    for _ in range(settings.pool_size):
        config, model = POOL.draw(generator=generator), models.SmallCNN(10, WIDTH, seed=seed)
        config |= {"batch_size": 32, "seed": seed}
        if not tuning.fit(model, dataset, config, epochs=settings.epochs // 2):
            continue
        parts = ("train", "validation", "test")
        found.append(
            {name: train.evaluate(model, getattr(dataset, name)) | config for name in parts}
        )
    rows = []
    for arm, part in {"training": "train", "validation": "validation"}.items():
        chosen = min(found, key=lambda one: one[part]["loss"])
        numbers = {f"{name}_accuracy": one["accuracy"] for name, one in chosen.items()}
        numbers |= {f"chosen_{name}": chosen["test"][name] for name in POOL.parameters}
        rows.append(_row(numbers, arm=arm))
    return rows


def augmentation(seed: int, settings: Settings) -> list[dict]:
    """Without and with RandAugment, for a short and a long time."""
    dataset, rows = digits_of(500, seed, num_test=settings.fresh), []
    for epochs in (math.ceil(settings.epochs / 6), settings.epochs):
        for arm, transform in {"none": None, "randaugment": augment.BatchRandAugment(1, 5)}.items():
            model = models.SmallCNN(10, WIDTH, seed=seed)
            history = fit(model, dataset, seed, epochs=epochs, transform=transform)
            numbers = {
                "train_accuracy": metrics.accuracy(model, dataset.train),
                "test_accuracy": metrics.accuracy(model, dataset.test),
            }
            rows.append(_row(numbers, history, arm=arm, epochs=epochs))
    return rows


def clipping(seed: int, settings: Settings) -> list[dict]:
    """Gradients that explode, keep their length, and vanish; clipped or not."""
    rows = []
    for scale in SCALES:
        for arm, max_norm in {"none": math.inf, "clipped": 1.0}.items():
            net = tune.RecallNet(scale=scale, seed=seed)
            first, *_, last = tune.norms_back(net, 30)
            generator = make_generator(derive_seed(seed, "recall"))
            numbers = tune.train_recall(
                net, generator=generator, max_norm=max_norm, num_updates=5 * settings.epochs
            )
            numbers |= {"first_to_last_norm": first / last}
            rows.append(_row(numbers, arm=arm, scale=scale))
    return rows


def stopping(seed: int, settings: Settings) -> list[dict]:
    """Stop by validation, by the test, or not at all."""
    dataset = digits_of(300, seed, num_test=200 + settings.fresh)
    test = data.Split(*(part[:200] for part in dataset.test))
    fresh = data.Split(*(part[200:] for part in dataset.test))
    seen, model = [], models.SmallCNN(10, WIDTH, seed=seed)

    def look(net: nn.Module, step: int) -> None:
        if step % 10 == 0:  # an epoch: 300 pictures in batches of at most 32
            scores = {"test_accuracy": test, "fresh_accuracy": fresh}
            seen.append({name: metrics.accuracy(net, split) for name, split in scores.items()})

    history = fit(model, dataset, seed, epochs=settings.epochs, after_step=look)
    epochs = [row | scores for row, scores in zip(history, seen, strict=True)]
    arms = {
        "last": epochs[-1],
        "validation": max(epochs, key=lambda row: row["val_accuracy"]),
        "test": max(epochs, key=lambda row: row["test_accuracy"]),
    }
    rows = []
    for arm, row in arms.items():
        numbers = {name: row[name] for name in ("epoch", *seen[0])}
        numbers["promised_too_much"] = row["test_accuracy"] - row["fresh_accuracy"]
        rows.append(_row(numbers, epochs if arm == "last" else None, arm=arm))
    return rows


def start(seed: int, settings: Settings) -> list[dict]:
    """Begin with weights from the model zoo, or with new ones."""
    begin: dict[str, Callable[[], nn.Module]] = {
        "new": lambda: models.SmallCNN(10, seed=seed),
        "shipped": lambda: models.load_weights(SHIPPED),
    }
    whole, rows = data.digits(seed=seed), []
    order = torch.randperm(len(whole.train.labels), generator=make_generator(seed))
    for num_train in FEW:
        train_part = data.Split(*(part[order[:num_train]] for part in whole.train))
        dataset = data.Dataset(whole.name, whole.classes, train_part, whole.validation, whole.test)
        for arm, build in begin.items():
            tried = []
            for lr in START_LRS:
                model = build()
                fit(model, dataset, seed, epochs=settings.epochs // 2, lr=lr, batch_size=20)
                tried.append((metrics.accuracy(model, dataset.validation), lr, model))
            _, lr, model = max(tried, key=lambda one: one[0])
            numbers = {"test_accuracy": metrics.accuracy(model, dataset.test), "chosen_lr": lr}
            numbers["untrained_accuracy"] = metrics.accuracy(build(), dataset.test)
            rows.append(_row(numbers, arm=arm, num_train=num_train))
    return rows


def retune(seed: int, settings: Settings) -> list[dict]:
    """Fine-tune a pruned network with several learning rates and weight decays."""
    dataset, rows = digits_of(1000, seed, num_test=settings.fresh), []
    for lr in TUNE_LRS:
        for weight_decay in (0.0, 5e-4):
            model = models.load_weights(SHIPPED)
            masks = prune.global_masks(prune.magnitude_scores(model), CUT)
            masks.apply_(model)
            cut_accuracy = metrics.accuracy(model, dataset.test)
            options = {"lr": lr, "weight_decay": weight_decay, "after_step": masks}
            fit(model, dataset, seed, epochs=math.ceil(settings.epochs / 20), **options)
            numbers = {
                "cut_accuracy": cut_accuracy,
                "val_accuracy": metrics.accuracy(model, dataset.validation),
                "test_accuracy": metrics.accuracy(model, dataset.test),
                "sparsity": metrics.sparsity(model),  # measured again: are the zeros still there?
            }
            rows.append(_row(numbers, lr=lr, weight_decay=weight_decay))
    return rows


def _row(numbers: dict, history: list[dict] | None = None, **where) -> dict:
    rows = common.without_seconds(history or [])
    return {"config": where, "metrics": numbers, "history": rows}


TIPS = {
    "clipping": clipping,
    "objective": objective,
    "augmentation": augmentation,
    "stopping": stopping,
    "start": start,
    "retune": retune,
}


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Return the rows of one tip with one seed."""
    return TIPS[config["tip"]](config["seed"], settings)


# -- the record -----------------------------------------------------------------------------------


def configurations(tip: str, seed: int) -> list[dict]:
    """Return the one run of a tip and a seed."""
    return [{"tip": tip, "seed": seed}]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    parser = tuning.parser_of("tuning_tips", __doc__)
    parser.add_argument("--epochs", type=int, default=60, help="of the longest trainings")
    parser.add_argument("--pool", type=int, default=12, help="settings to choose from")
    parser.add_argument("--fresh", type=int, default=3000, help="pictures that nobody chose by")
    options = parser.parse_args(arguments)
    common.check_positive(parser, options, "seeds", "pool", "fresh")
    if options.epochs < 2:
        parser.error(f"--epochs must be at least 2, got {options.epochs}")
    settings = Settings(options.epochs, options.pool, options.fresh)
    record = common.open_record(options, settings, name="tuning_tips", arguments=arguments)
    parts = [
        common.seed_by_seed(functools.partial(configurations, tip), options.seeds) for tip in TIPS
    ]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    from experiments import tuning_tips  # workers of a cluster cannot import __main__

    tuning_tips.main()
