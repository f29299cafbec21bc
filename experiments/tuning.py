"""Search for hyper-parameters in four ways, at equal cost: is a clever search worth it?

    python -m experiments.tuning --workers 2

Searched are learning rate, weight decay, batch size, and N and M of RandAugment, for a small
network on 2,000 digits, trained for 9 epochs. The score is the accuracy on 500 validation images;
the test images are looked at by nobody, their accuracy is only noted. A search may train 216
epochs, as many as 24 full trainings:

- "random": 24 configurations drawn at random;
- "genetic": four rounds of a population of 6; the first is that of the random search;
- "tpe": 6 at random, then 18 that Optuna's TPE asks for, one after the other;
- "hyperband": from 1, 3 or 9 epochs, the best third goes on; a bracket that would cost too much is
  left out.

Each search is repeated with several seeds. A training that diverges scores 0. There is one row for
each search: what it chose, and as its history each training in order. Seconds are those of the
processor, with one thread. A killed run goes on where it stopped: each search has a journal of its
own (``--work``).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from experiments import common
from rac_helpers import augment, data, metrics, models, train, tune
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.sweep import add_arguments
from rac_helpers.tune import Choice, Integer, Real, Space, Trial

SPACE = Space(
    {
        "lr": Real(0.003, 3.0, log=True),
        "weight_decay": Real(1e-5, 1e-2, log=True),
        "batch_size": Choice((32, 64, 128)),
        "num_ops": Integer(0, 2),
        "magnitude": Integer(1, 15),
    }
)
POPULATION = 6
WIDTH = 8


@dataclass(frozen=True)
class Settings:
    """What is trained on what, for how long, and how much a search may cost."""

    num_train: int
    epochs: int
    num_trials: int
    work: str

    def describe(self) -> str:
        """Say what was trained on what, for the record."""
        return (
            f"synth_digits: {self.num_train:,} training images, "
            f"{len(self.dataset.validation.labels):,} for validation, "
            f"{len(self.dataset.test.labels):,} for the test; small_cnn of width {WIDTH}, "
            f"{self.epochs} epochs (cosine), momentum 0.9; "
            f"a search may train {self.num_trials * self.epochs} epochs"
        )

    @property
    def dataset(self) -> data.Dataset:
        """The images; drawn once in each process."""
        return _draw(self.num_train)


@functools.lru_cache(maxsize=1)
def _draw(num_train: int) -> data.Dataset:
    return data.synth_digits(num_train, num_validation=500, num_test=1000, progress=False)


# -- one training ---------------------------------------------------------------------------------


def try_out(config: dict, *, settings: Settings) -> dict:
    """Train one configuration; the score is the accuracy on the validation images."""
    start, dataset = time.process_time(), settings.dataset
    model = models.SmallCNN(len(dataset.classes), WIDTH, seed=config["seed"])
    epochs = config.get("epochs", settings.epochs)
    score = test_accuracy = 0.0
    if fit(model, dataset, config, epochs=epochs):
        score = metrics.accuracy(model, dataset.validation)
        test_accuracy = metrics.accuracy(model, dataset.test)
    return {
        "score": score,
        "test_accuracy": test_accuracy,
        "epochs": epochs,
        "cpu_seconds": time.process_time() - start,
    }


def fit(model: nn.Module, dataset: data.Dataset, config: dict, *, epochs: int) -> bool:
    """Train as ``config`` says; return whether it went well."""
    ops = config["num_ops"]
    try:
        train.fit(
            model,
            dataset.train,
            dataset.validation,
            epochs=epochs,
            batch_size=config["batch_size"],
            lr=config["lr"],
            weight_decay=config["weight_decay"],
            transform=augment.BatchRandAugment(ops, config["magnitude"]) if ops else None,
            seed=config["seed"],
            progress=False,
        )
    except RuntimeError as error:
        if "the loss is" not in str(error):
            raise
        return False
    return True


# -- one search: each returns its trainings in order ----------------------------------------------


def random(run: Callable, seed: int, settings: Settings, **where) -> list[Trial]:
    """All at random."""
    strategy = tune.RandomSearch(SPACE, generator=make_generator(derive_seed(seed, "draws")))
    return tune.search(run, strategy, num_trials=settings.num_trials, seed=seed, **where)


def genetic(run: Callable, seed: int, settings: Settings, **where) -> list[Trial]:
    """Rounds of a population."""
    generator = make_generator(derive_seed(seed, "draws"))  # the first round is the random one's
    strategy = tune.Genetic(SPACE, generator=generator, population=POPULATION)
    where |= {"num_trials": settings.num_trials, "at_once": POPULATION}
    return tune.search(run, strategy, seed=seed, **where)


def tpe(run: Callable, seed: int, settings: Settings, **where) -> list[Trial]:
    """One after the other, each by what the others gave."""
    strategy = tune.Tpe(SPACE, seed=seed, num_random=POPULATION)
    return tune.search(run, strategy, num_trials=settings.num_trials, seed=seed, **where)


def hyperband(run: Callable, seed: int, settings: Settings, **where) -> list[Trial]:
    """Few epochs for many."""
    budget = settings.num_trials * settings.epochs
    where |= {"max_epochs": settings.epochs, "budget_epochs": budget}
    return tune.hyperband(run, SPACE, seed=seed, **where)


SEARCHES = {"random": random, "tpe": tpe, "genetic": genetic, "hyperband": hyperband}


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Search once, and return the row of it."""
    strategy, seed = config["strategy"], config["seed"]
    trials = SEARCHES[strategy](
        functools.partial(try_out, settings=settings),
        seed,
        settings,
        journal=Path(settings.work, f"{strategy}-{seed}.jsonl"),
        desc=f"{strategy} {seed}, {settings.describe()}",
    )
    best = tune.best_trial(trials)
    numbers = {
        "val_accuracy": best.score,
        "test_accuracy": best.result["test_accuracy"],
        "trainings": len(trials),
        "configurations": len({trial.number for trial in trials}),
        "epochs": sum(trial.result["epochs"] for trial in trials),
        "cpu_seconds": sum(trial.result["cpu_seconds"] for trial in trials),
    }
    numbers |= {f"chosen_{name}": best.config[name] for name in SPACE.parameters}
    return [{"config": {}, "metrics": numbers, "history": curve(trials)}]


def curve(trials: list[Trial]) -> list[dict]:
    """Return each training with what the search had cost and found by then."""
    spent = itertools.accumulate(trial.result["epochs"] for trial in trials)
    best = tune.best_so_far([trial.score for trial in trials])
    return [
        {
            "spent_epochs": epochs,
            "best_val_accuracy": found,
            "trial": trial.number,
            "epochs": trial.result["epochs"],
            "val_accuracy": trial.score,
            "test_accuracy": trial.result["test_accuracy"],
            **{name: trial.config[name] for name in SPACE.parameters},
        }
        for epochs, found, trial in zip(spent, best, trials, strict=True)
    ]


# -- the record -----------------------------------------------------------------------------------


def configurations(seed: int) -> list[dict]:
    """Return the searches of a seed."""
    return [{"strategy": strategy, "seed": seed} for strategy in SEARCHES]


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """Return the options that all experiments on tuning have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=Path, default=Path("book/results", f"{name}.json"))
    parser.add_argument("--work", type=Path, default=Path("_build", name))
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default: 5)")
    add_arguments(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    parser = parser_of("tuning", __doc__)
    parser.add_argument("--num-train", type=int, default=2000, help="how many training images")
    parser.add_argument("--epochs", type=int, default=9, help="of a full training; a power of 3")
    parser.add_argument("--trials", type=int, default=24, help="full trainings that a search costs")
    options = parser.parse_args(arguments)
    common.check_positive(parser, options, "seeds", "num_train", "epochs", "trials")
    least = max(map(tune.cost_epochs, tune.brackets(options.epochs)))
    if options.trials * options.epochs < least:
        parser.error(f"--trials times --epochs must be at least {least}")
    settings = Settings(options.num_train, options.epochs, options.trials, str(options.work))
    record = common.open_record(options, settings, name="tuning", arguments=arguments)
    parts = [common.seed_by_seed(configurations, options.seeds)]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    from experiments import tuning  # workers of a cluster cannot import __main__

    tuning.main()
