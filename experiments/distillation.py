"""Distill a trained network into smaller ones: what does the teacher bring, and what decides it?

    python -m experiments.distillation --data folder --root FOLDER --workers 2 --compile --bf16
    python -m experiments.distillation --data synth_digits --workers 2

Teachers are residual networks trained with RandAugment (N = 2, M = 10 of 31 bins): width 16, and
width 8. Students have width 8 or 4. All students of one seed and width begin with the same weights
and see the same pictures in the same order. They train for 8 epochs (``--tune-epochs``) where the
teachers had 20, with a teacher or without, so that the comparison is fair:

- "none": no teacher, the labels alone;
- "kd": soft targets at temperature T, alpha is the weight of the labels: over T at alpha = 0.1, and
  over alpha at T = 4; with RandAugment, and on plain pictures;
- "printed": the loss as article A1 prints it, KL(student‖teacher) without temperature, alpha = 0.5;
- "ensemble": "kd" with the average of three teachers, those of three seeds;
- "hint": the second stage of the teacher, through a 1x1 convolution that is trained along;
- "attention": attention maps of all three stages; "relational": the distances between the pictures
  of a batch after the last stage. These three use the labels and the features, no soft targets.
  The weights of their losses (``WEIGHTS``) were set once, by their size, and not tuned;
- "kd" from a teacher of the student's own width is self-distillation.

"teacher" rows hold the teachers themselves. The test images give the score; nothing is chosen by
them. A killed run goes on where it stopped: finished runs are in a journal, epochs in checkpoints
(``--work``). The answers of a teacher are kept there, too: all students of a seed see the same
augmented pictures, so most of them find the answers ready.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from experiments import common
from rac_helpers import distill
from rac_helpers.records import write_atomically
from rac_helpers.rng import derive_seed

TEMPERATURE, ALPHA = 4.0, 0.1  # Hinton: a considerably lower weight on the labels
TEMPERATURES = (1.0, 2.0, 8.0)
ALPHAS = (0.0, 0.5, 0.9)
PRINTED_ALPHA = 0.5  # as in the worked example of the article
ENSEMBLE_SIZE = 3
WEIGHTS = {"hint": 1.0, "attention": 5.0, "relational": 25.0}
COMPARE = {
    "hint": distill.hint_loss,
    "attention": distill.attention_loss,
    "relational": distill.relational_loss,
}
STAGES = {  # of w, 2 w and 4 w channels
    "resnet20": ("stage1", "stage2", "stage3"),
    "small_cnn": ("block1", "block2", "block3"),
}

PRESETS = {
    "synth_digits": common.LONGER["synth_digits"] | {"tune_epochs": 8, "tune_lr": 0.1},
    "folder": common.LONGER["folder"] | {"tune_epochs": 8, "tune_lr": 0.1},
}


class Settings(common.Settings):
    """What is trained on what, and for how long; the second training is that of the students."""

    def trainings(self) -> str:
        """Say how long is trained, and with which learning rates."""
        return (
            f"teachers {self.epochs} epochs from lr {self.lr}, "
            f"students {self.tune_epochs} epochs from lr {self.tune_lr}"
        )


# -- what to run ----------------------------------------------------------------------------------


def parts(settings: Settings) -> list[list[dict]]:
    """Return the runs, those that the course needs most first; a part needs those before it."""
    large, small = settings.width, settings.width // 2
    student, tiny = settings.width // 2, settings.width // 4
    plain = {"transform": "none"}
    first = [
        run | {"student": width}
        for width in (student, tiny)
        for run in ({"method": "none"}, _kd(large))
    ]
    grid = [_kd(large, temperature=t) for t in TEMPERATURES]
    grid += [_kd(large, alpha=a) for a in ALPHAS]
    others = [{"method": "printed", "alpha": PRINTED_ALPHA, "teacher": large}]
    others += [_kd(large) | {"method": "ensemble"}]
    inside = [{"method": name, "teacher": large} for name in WEIGHTS]
    more = ("teacher", small), ("teacher-ensemble", large)
    return [
        [{"method": "teacher", "teacher": large}],
        first,
        [{"method": "none"} | plain, _kd(large) | plain, *grid],
        [*({"method": name, "teacher": w} for name, w in more), *others],
        [_kd(small)],
        inside,
    ]


def complete(config: dict, settings: Settings) -> dict:
    """Add what most runs have in common."""
    if config["method"].startswith("teacher"):
        return config
    return {"student": settings.width // 2, "transform": "randaugment"} | config


def _kd(teacher: int, *, temperature: float = TEMPERATURE, alpha: float = ALPHA) -> dict:
    return {"method": "kd", "teacher": teacher, "temperature": temperature, "alpha": alpha}


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Return the row of a run: its numbers, and its training curves."""
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # features come by hooks
    if config["method"] == "teacher":
        model, history = common.trained(config["seed"], settings, width=config["teacher"])
        return [_row(model, settings, history)]
    if config["method"] == "teacher-ensemble":
        return [_row(distill.Ensemble(_networks(config, settings)), settings, [])]
    student = settings.build(
        seed=derive_seed("student", config["seed"]), width=config["student"]
    )  # another start than a teacher of the same width
    history = LESSONS[config["method"]](student, config, settings)
    return [_row(student, settings, history)]


def without_teacher(student: nn.Module, config: dict, settings: Settings) -> list[dict]:
    """Train on the labels alone."""
    return _fit(student, config, settings, loss_fn=None)


def soft_targets(student: nn.Module, config: dict, settings: Settings) -> list[dict]:
    """Train on labels and soft targets."""
    teacher = _teacher(config, settings)
    options = {"temperature": config["temperature"], "alpha": config["alpha"]}
    history = _fit(student, config, settings, distill.DistillationLoss(teacher, **options))
    keep_answers(teacher, config, settings)
    return history


def printed(student: nn.Module, config: dict, settings: Settings) -> list[dict]:
    """Train with the loss of the article."""
    teacher, alpha = _teacher(config, settings), config["alpha"]

    def loss_fn(logits, labels, images):
        return distill.printed_kd_loss(logits, teacher(images), labels, alpha=alpha)

    history = _fit(student, config, settings, loss_fn)
    keep_answers(teacher, config, settings)
    return history


def features(student: nn.Module, config: dict, settings: Settings) -> list[dict]:
    """Train on labels and on what layers inside put out."""
    method, stages = config["method"], STAGES[settings.model]
    layers = {"hint": stages[1:2], "attention": stages, "relational": stages[2:]}[method]
    [network] = _networks(config, settings)
    teacher = distill.Teacher(distill.WithFeatures(network, layers))
    _prepare(teacher.model, settings)
    regressors = {}
    if method == "hint":  # the second stage has twice the channels of the first
        channels = 2 * config["student"], 2 * config["teacher"]
        seed = derive_seed("regressor", config["seed"])
        regressors = {layers[0]: distill.make_regressor(*channels, seed=seed)}
    watched = distill.WithFeatures(student, layers, regressors=regressors)
    loss_fn = distill.FeatureLoss(
        teacher,
        watched,
        layers={name: name for name in layers},
        compare=COMPARE[method],
        weight=WEIGHTS[method],
    )
    history = _fit(watched, config, settings, loss_fn)
    watched.release_()
    return history


LESSONS: dict[str, Callable[[nn.Module, dict, Settings], list[dict]]] = {
    "none": without_teacher,
    "kd": soft_targets,
    "ensemble": soft_targets,
    "printed": printed,
} | dict.fromkeys(WEIGHTS, features)


# -- parts ----------------------------------------------------------------------------------------


def _fit(model: nn.Module, config: dict, settings: Settings, loss_fn: Callable) -> list[dict]:
    return common.fit(
        model,
        config | {"epochs": settings.tune_epochs, "lr": settings.tune_lr},
        settings,
        stage="student",
        epochs=settings.tune_epochs,
        lr=settings.tune_lr,
        transform=common.randaugment() if config["transform"] == "randaugment" else None,
        loss_fn=loss_fn,
    )


def _networks(config: dict, settings: Settings) -> list[nn.Module]:
    """Return the trained networks of the teacher."""
    seeds = range(ENSEMBLE_SIZE) if "ensemble" in config["method"] else [config["seed"]]
    return [common.trained(seed, settings, width=config["teacher"])[0] for seed in seeds]


def _teacher(config: dict, settings: Settings) -> distill.CachedTeacher:
    """Return the teacher, with the answers that it gave in other runs."""
    networks = _networks(config, settings)
    together = distill.Ensemble(networks) if len(networks) > 1 else networks[0]
    teacher = distill.CachedTeacher(distill.Teacher(together))
    for network in teacher.teacher.model.models if len(networks) > 1 else [teacher.teacher.model]:
        _prepare(network, settings)
    path = answers_file(config, settings)
    if path.exists():
        teacher.remember_(**torch.load(path, weights_only=True))
    return teacher


def _prepare(network: nn.Module, settings: Settings) -> None:
    network.to(memory_format=torch.channels_last)
    if settings.compile:
        network.compile(dynamic=False)


def answers_file(config: dict, settings: Settings) -> Path:
    """Return the file of a teacher's answers to the pictures that students of a seed see."""
    same = {key: config[key] for key in ("teacher", "transform", "seed")}
    same |= {"ensemble": config["method"] == "ensemble", "epochs": settings.tune_epochs}
    return common.checkpoint(same, settings, "answers")


def keep_answers(teacher: distill.CachedTeacher, config: dict, settings: Settings) -> None:
    """Store the answers for the next run, if there are new ones."""
    if teacher.misses:
        buffer = io.BytesIO()
        torch.save(dict(zip(("keys", "logits"), teacher.answers(), strict=True)), buffer)
        write_atomically(answers_file(config, settings), buffer.getvalue())


def _row(model: nn.Module, settings: Settings, history: list[dict]) -> dict:
    """Measure a network: what it is worth and what it costs."""
    numbers = {
        **common.scores(model, settings),
        **common.costs(model, settings),
    }
    return {"config": {}, "metrics": numbers, "history": common.without_seconds(history)}


# -- the record -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "distillation"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = Settings(**vars(common.settings_of(options, PRESETS)))
    record = common.open_record(options, settings, name=name, arguments=arguments)
    with_seeds = [
        [
            complete(config, settings) | {"seed": seed}
            for config in part
            for seed in range(1 if config["method"] == "teacher-ensemble" else options.seeds)
        ]
        for part in parts(settings)
    ]
    common.run_all(run, with_seeds, settings=settings, options=options, record=record)


if __name__ == "__main__":
    main()
