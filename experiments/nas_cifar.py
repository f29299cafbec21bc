"""Search a network for real pictures under hard limits, and compare it with a slim ResNet-20.

    python -m experiments.nas_cifar --data folder --root FOLDER --workers 2 --compile --bf16
    python -m experiments.nas_cifar --data folder --root FOLDER --workers 2 --compile --bf16 \\
        --tune-epochs 12 --record book/results/nas_cifar_longer.json
    python -m experiments.nas_cifar --data synth_digits --workers 2

The file of the network may have 100,000 bytes, and one picture may take 20 million
multiply-accumulates. A network has three stages; of each are searched the operation, the channels
and the number of blocks. What breaks the limits is neither drawn nor trained.

Search: random search and aging evolution train so many candidates each (``CANDIDATES``), all for
``--tune-epochs`` epochs on a few pictures, and score them on the validation pictures. The budget is
the processor time of all candidates together (``cpu_seconds`` in their rows). Then three networks
are trained for ``--epochs`` epochs on ``--num-train`` pictures, each seed anew:

- "searched": the candidate with the best score, whichever strategy found it;
- "unsearched": the first candidate of random search, so any network within the limits;
- "resnet20": a ResNet-20, as wide as the limits allow.

"candidate" rows hold all candidates. No augmentation: networks of this size do not learn the
training pictures by heart. A killed run goes on where it stopped (journals and checkpoints in
``--work``).
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from concurrent.futures import Executor

import torch
from torch import nn

from experiments import common
from rac_helpers import metrics, models, nas, train
from rac_helpers.data import Split
from rac_helpers.records import Record
from rac_helpers.rng import derive_seed, make_generator
from rac_helpers.sweep import open_executor, sweep

OPERATIONS = ("conv3", "sep3", "bottleneck")
GENES = (
    *((f"op{stage}", OPERATIONS) for stage in (1, 2, 3)),
    ("channels1", (8, 12, 16, 24)),
    ("channels2", (16, 24, 32, 48)),
    ("channels3", (32, 48, 64, 96)),
    *((f"blocks{stage}", (1, 2, 3)) for stage in (1, 2, 3)),
)
LIMITS = nas.Limits(size_bytes=100_000, macs=20e6)
CANDIDATES = 24  # of each strategy
POPULATION, SAMPLE = 8, 3
SHARE = 0.2  # of the training pictures, for a candidate
BATCH = 2  # candidates asked for at once, whatever the workers: so the search is the same

PRESETS = {
    "synth_digits": common.PRESETS["synth_digits"] | {"epochs": 8, "tune_epochs": 4},
    "folder": common.PRESETS["folder"] | {"num_train": 25_000, "epochs": 16, "tune_epochs": 4},
}
for _preset in PRESETS.values():
    _preset |= {"model": "resnet20", "tune_lr": 0.1}


class Settings(common.Settings):
    """What is trained on what, and for how long; the second training is that of candidates."""

    def trainings(self) -> str:
        """Say how long is trained, and with which learning rates."""
        return (
            f"{self.epochs} epochs from lr {self.lr}; candidates {self.tune_epochs} epochs from "
            f"lr {self.tune_lr} on {self.few} images"
        )

    @property
    def few(self) -> int:
        """How many pictures a candidate sees."""
        return max(1, round(SHARE * self.num_train))


# -- the space ------------------------------------------------------------------------------------


class SpaceWithin(nas.Space):
    """The genomes that keep the limits: others are drawn again."""

    def sample(self, *, generator: torch.Generator) -> nas.Genome:
        """Draw until one fits."""
        return _first(functools.partial(super().sample, generator=generator))

    def mutate(self, genome: nas.Genome, *, generator: torch.Generator) -> nas.Genome:
        """Change one gene, until the child fits."""
        return _first(functools.partial(super().mutate, genome, generator=generator))


def _first(draw) -> nas.Genome:
    while True:
        genome = draw()
        if LIMITS.violation(costs(genome)) == 0:
            return genome


SPACE = SpaceWithin(GENES)


def build(genome: nas.Genome, *, seed: int, classes: int = 10) -> nn.Module:
    """Return the network of a genome."""
    choice = SPACE.decode(genome)
    stages = [
        nas.Stage(choice[f"op{n}"], choice[f"channels{n}"], choice[f"blocks{n}"], min(n, 2))
        for n in (1, 2, 3)
    ]
    return nas.StagedNetwork(
        stages, stem_channels=choice["channels1"], stem_stride=1, classes=classes, seed=seed
    )


@functools.cache
def costs(genome: nas.Genome) -> dict[str, int]:
    """Return what the limits are about."""
    return costs_of(build(genome, seed=0))


def costs_of(model: nn.Module) -> dict[str, int]:
    """Return parameters, multiply-accumulates for a picture of 32x32, bytes of the file."""
    return common.costs_of(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def slim_width(classes: int) -> int:
    """Return the width of the largest ResNet-20 within the limits."""
    width = 1
    while LIMITS.violation(costs_of(models.resnet20(classes, width + 1))) == 0:
        width += 1
    return width


# -- the search -----------------------------------------------------------------------------------


def candidate(config: dict, *, settings: Settings) -> dict[str, float]:
    """Train a candidate for a short time; return its validation accuracy, and what that took."""
    dataset = settings.dataset
    started = time.process_time()
    model = build(nas.genome_of(config["genome"]), seed=0, classes=len(dataset.classes))
    few = Split(*(part[: settings.few] for part in dataset.train))
    train.fit(
        model.to(memory_format=torch.channels_last),
        few,
        dataset.validation,
        epochs=settings.tune_epochs,
        batch_size=settings.batch_size,
        lr=settings.tune_lr,
        progress=False,
    )
    score = metrics.accuracy(model, dataset.validation)
    return {"val_accuracy": score, "cpu_seconds": time.process_time() - started}


def search(name: str, settings: Settings, executor: Executor | None) -> Iterator[dict]:
    """Run one strategy and yield its candidates; those in the journal are not trained again."""
    generator = make_generator(derive_seed("search", name))
    strategy = {
        "random": lambda: nas.RandomSearch(SPACE, generator=generator),
        "evolution": lambda: nas.AgingEvolution(
            SPACE, generator=generator, population_size=POPULATION, sample_size=SAMPLE
        ),
    }[name]()
    same = {"strategy": name, "candidates": [CANDIDATES, POPULATION, SAMPLE, SHARE]}
    journal = common.checkpoint(same, settings, "finetuned").with_suffix(".jsonl")
    one = functools.partial(candidate, settings=settings)
    for first in range(0, CANDIDATES, BATCH):
        numbers = range(first, min(first + BATCH, CANDIDATES))
        asked = [{"number": n, "genome": nas.text_of(strategy.ask())} for n in numbers]
        finished = sweep(one, asked, journal=journal, executor=executor, desc=name)
        for config, found in sorted(finished, key=lambda pair: pair[0]["number"]):
            strategy.tell(nas.genome_of(config["genome"]), found["val_accuracy"])
            yield config | found


def record_candidate(record: Record, name: str, found: dict) -> None:
    """Write the row of a candidate."""
    config = {"method": name, "stage": "candidate", "number": found["number"]}
    config["genome"] = found["genome"]
    if not record.has(config, 0):
        numbers = {key: found[key] for key in ("val_accuracy", "cpu_seconds")}
        numbers |= costs(nas.genome_of(found["genome"]))
        record.append(config=config, seed=0, metrics=numbers)


# -- the networks that are compared ---------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Train one of the three, for long; return its row."""
    model = network(config, len(settings.dataset.classes))
    history = common.fit(
        model, config, settings, stage="final", epochs=settings.epochs, lr=settings.lr
    )
    numbers = common.scores(model, settings) | common.costs(model, settings)
    rows = common.without_seconds(history)
    return [{"config": {"stage": "final"}, "metrics": numbers, "history": rows}]


def network(config: dict, classes: int) -> nn.Module:
    """Return the network of a run, with the weights of its seed."""
    seed = derive_seed("final", config["seed"])
    if config["method"] == "resnet20":
        return models.resnet20(classes, config["width"], seed=seed)
    genome = nas.genome_of(config["genome"])
    return build(genome, seed=seed, classes=classes)


def final_configs(candidates: list[dict], settings: Settings) -> list[dict]:
    """Return the three networks."""
    best = max(candidates, key=lambda found: found["val_accuracy"])
    return [
        {"method": "searched", "genome": best["genome"]},
        {"method": "resnet20", "width": slim_width(len(settings.dataset.classes))},
        {"method": "unsearched", "genome": candidates[0]["genome"]},
    ]


def search_all(options: argparse.Namespace, settings: Settings, record: Record) -> list[dict]:
    """Run both strategies, random search first, and write their candidates."""
    candidates = []
    with open_executor(options) as executor:
        for name in ("random", "evolution"):
            for found in search(name, settings, executor):
                record_candidate(record, name, found)
                candidates.append(found)
    return candidates


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "nas_cifar"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = Settings(**vars(common.settings_of(options, PRESETS)))
    record = common.open_record(options, settings, name=name, arguments=arguments)
    finals = final_configs(search_all(options, settings, record), settings)
    with_seeds = [config | {"seed": seed} for seed in range(options.seeds) for config in finals]
    common.run_all(run, [with_seeds], settings=settings, options=options, record=record)


if __name__ == "__main__":
    from experiments import nas_cifar  # workers of a cluster cannot import __main__

    nas_cifar.main()
