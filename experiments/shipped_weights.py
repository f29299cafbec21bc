"""Train the networks that come with the course, and write them to ``rac_helpers/weights``.

    python experiments/shipped_weights.py
    python experiments/shipped_weights.py --only small_cnn-synth_digits

Each network is trained with three seeds; the weights of seed 0 are shipped, the others give the
spread. Everything was chosen on the validation images; the test images are used once, at the end.
A killed run goes on where it stopped (checkpoints are kept in ``--checkpoints``). It uses one
thread: such small networks gain little from a second one, and the result does not depend on the
number of cores. On one core the small network takes about a minute a seed, ResNet-20 about three.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save

from rac_helpers import data, models, train
from rac_helpers.records import check_writable, write_atomically


@dataclass(frozen=True)
class Recipe:
    """What is trained on what, and how."""

    architecture: str  # a key of models.ARCHITECTURES
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    arguments: Mapping[str, int] = field(default_factory=lambda: {"num_classes": 10, "width": 16})
    images: Mapping[str, int] = field(
        default_factory=lambda: {"num_train": 4000, "num_validation": 1000, "num_test": 2000}
    )

    def __post_init__(self) -> None:
        if self.architecture not in models.ARCHITECTURES:
            known = sorted(models.ARCHITECTURES)
            raise ValueError(f"architecture must be one of {known}, got {self.architecture!r}")


RECIPES = {
    "small_cnn-synth_digits": Recipe("small_cnn", epochs=18),
    "resnet20-synth_digits": Recipe("resnet20", epochs=8, batch_size=64),
}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and ship each network asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(RECIPES), help="ship this network alone")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, at least 3")
    parser.add_argument("--checkpoints", type=Path, default=Path("_build/shipped_weights"))
    options = parser.parse_args(arguments)
    if options.seeds < 3:
        parser.error(f"--seeds must be at least 3, got {options.seeds}")
    torch.set_num_threads(1)
    names = [options.only] if options.only else list(RECIPES)
    for name in names:
        entry = ship(
            name,
            RECIPES[name],
            seeds=range(options.seeds),
            weights=models.WEIGHTS_FOLDER,
            checkpoints=options.checkpoints,
        )
        print(f"{name}: {json.dumps(entry['scores'])}")


def ship(
    name: str, recipe: Recipe, *, seeds: Iterable[int], weights: Path, checkpoints: Path
) -> dict:
    """Train with all seeds, write the first one's weights and the catalogue entry; return it."""
    catalogue = check_writable("catalogue", weights / "catalogue.json")
    dataset = data.synth_digits(**recipe.images)
    trained, scores = {}, []
    for seed in seeds:
        checkpoint = checkpoints / f"{name}-seed{seed}.pt"
        trained[seed], score = train_one(recipe, dataset, seed=seed, checkpoint=checkpoint)
        scores.append({"seed": seed, **score})
    shipped = next(iter(trained.values()))
    content = save({key: value.contiguous() for key, value in shipped.state_dict().items()})
    write_atomically(weights / f"{name}.safetensors", content)
    entry = describe(name, recipe, content=content, scores=scores)
    entries = json.loads(catalogue.read_text(encoding="utf-8")) if catalogue.exists() else {}
    text = json.dumps(dict(sorted((entries | {name: entry}).items())), indent=2) + "\n"
    write_atomically(catalogue, text.encode())
    return entry


def train_one(
    recipe: Recipe, dataset: data.Dataset, *, seed: int, checkpoint: Path
) -> tuple[torch.nn.Module, dict[str, float]]:
    """Train one network; return it with its scores."""
    model = models.ARCHITECTURES[recipe.architecture](**recipe.arguments, seed=seed)
    history = train.fit(
        model,
        dataset.train,
        dataset.validation,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        checkpoint=checkpoint,
        seed=seed,
    )
    score = {
        "test_accuracy": train.evaluate(model, dataset.test)["accuracy"],
        "val_accuracy": history[-1]["val_accuracy"],
        "train_accuracy": train.evaluate(model, dataset.train)["accuracy"],
    }
    return model, {key: round(value, 4) for key, value in score.items()}


def describe(name: str, recipe: Recipe, *, content: bytes, scores: list[dict]) -> dict:
    """Return the catalogue entry: how to check the file, what it scores, how to make it again."""
    accuracies = [score["test_accuracy"] for score in scores]
    summary = {
        "test_accuracy": accuracies[0],
        "val_accuracy": scores[0]["val_accuracy"],
        "test_accuracy_mean": round(statistics.mean(accuracies), 4),
        "test_accuracy_std": round(statistics.stdev(accuracies), 4),
        "num_seeds": len(accuracies),
    }
    sizes = ", ".join(f"{key}={value}" for key, value in recipe.images.items())
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    packages = ("torch", "pillow", "matplotlib", "rac-helpers")
    return {
        "file": f"{name}.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "architecture": recipe.architecture,
        "arguments": dict(recipe.arguments),
        "data": f"synth_digits({sizes}, seed=0)",
        "recipe": asdict(recipe),
        "scores": summary,
        "seeds": scores,
        "command": f"python experiments/shipped_weights.py --only {name}",
        "hardware": f"{torch.get_num_threads()} thread(s) of {cores}",
        "versions": {package: version(package) for package in packages},
    }


if __name__ == "__main__":
    main()
