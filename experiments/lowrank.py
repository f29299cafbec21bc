"""Split the layers of a trained network: what does a rank cost, and what does training bring back?

    python -m experiments.lowrank --data folder --root FOLDER --workers 2 --compile --bf16
    python -m experiments.lowrank --data synth_digits --workers 2

A residual network is trained with RandAugment (N = 2, M = 10 of 31 bins). Then its convolutions are
split, all but the first; the last layer, a linear one, stays whole, too:

- "channel": k x k to a few channels, then 1 x 1; "spatial": k x 1, then 1 x k; "tucker": 1 x 1,
  k x k, 1 x 1, from the higher-order SVD; "tucker-hooi": the same with ten iterations;
- "share": which part of the weights of these layers is left, at most: the same for all methods;
- "choice": who gets them. "uniform": each layer keeps the same share; "energy": ranks are taken
  away where the least energy of the weights is lost; "validated": where the loss on validation
  images, measured with one layer split, rises least;
- stage "cut": straight after the split; "finetuned": trained on, at a lower learning rate;
- "float-longer": the whole network, trained on for as long: the fair comparison.

All of one seed begin with the same trained network. The test images give the score; nothing is
chosen by them. A killed run goes on where it stopped: finished runs are in a journal, epochs in
checkpoints (``--work``).
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from experiments import common
from experiments.common import Settings
from rac_helpers import data, lowrank, metrics, train
from rac_helpers.lowrank import Option
from rac_helpers.rng import make_generator

SPLITS = {
    "channel": lowrank.ChannelSplit,
    "spatial": lowrank.SpatialSplit,
    "tucker": lowrank.TuckerSplit,
    "tucker-hooi": lowrank.HooiSplit,
}
METHODS = ("channel", "spatial", "tucker")
TUNED = (0.5, 0.25)  # in the order of the runs
SCAN = (0.9, 0.75, 0.6, 0.5, 0.35, 0.25, 0.15, 0.1)  # straight after the split
CHOSEN = (0.5, 0.25, 0.15)  # where the choice by energy, and iterations, are compared
VALIDATED = (0.5, 0.25)
CHOICE_TUNED = 0.25
CUT_SHARES = {
    **{(method, "uniform"): SCAN for method in METHODS},
    **{(method, "energy"): CHOSEN for method in METHODS},
    ("tucker-hooi", "uniform"): CHOSEN,
    ("spatial", "validated"): VALIDATED,
}
MEASURED = (0.75, 0.5, 0.25, 0.1)  # shares of a layer, for the choice by validation
NUM_VALIDATION = 500  # enough for the rise of a loss on the same images; there are 72 of them

PRESETS = common.LONGER


# -- what to run ----------------------------------------------------------------------------------


def float_configs(seed: int) -> list[dict]:
    """Return the training that all others begin with."""
    return [{"method": "float", "seed": seed}]


def cut_configs(seed: int) -> list[dict]:
    """Return the runs without training; each of them ends in several rows."""
    return [
        {"method": method, "choice": choice, "stage": "cut", "seed": seed}
        for method, choice in CUT_SHARES
    ]


def tuned_configs(seed: int) -> list[dict]:
    """Return the runs with training, those that the course needs most first."""
    pairs = [("uniform", share, method) for share in TUNED for method in METHODS]
    pairs += [(choice, CHOICE_TUNED, "spatial") for choice in ("validated", "energy")]
    configs = [{"method": m, "choice": c, "share": s, "stage": "finetuned"} for c, s, m in pairs]
    return [config | {"seed": seed} for config in ({"method": "float-longer"}, *configs)]


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Return the rows of a run: for each its config, its numbers, and its training curves."""
    model, history = common.trained(config["seed"], settings)
    method = config["method"]
    if method == "float":
        where = {"method": method, "share": 1.0, "stage": "float"}
        return [_row(where, model, settings, history=history)]
    if method == "float-longer":
        history = common.tune(model, config, settings)
        where = {"method": method, "share": 1.0, "stage": "finetuned"}
        return [_row(where, model, settings, history=history)]
    return split_rows(model, config, settings)


def split_rows(model: nn.Module, config: dict, settings: Settings) -> list[dict]:
    """Split the network for each share, and train it on if the stage says so."""
    method, choice, found = config["method"], config["choice"], []
    split, layers = SPLITS[method], split_layers(model)
    choose = CHOICES[choice](model, split, layers, settings=settings)
    for share in [config["share"]] if "share" in config else CUT_SHARES[method, choice]:
        ranks = choose(share)
        small = lowrank.factorize(model, ranks, split=split)
        numbers = split_numbers(model, small)
        if choice != "uniform":
            numbers |= _rank_numbers(ranks)
        where = {"method": method, "choice": choice, "share": share, "stage": config["stage"]}
        history = None
        if config["stage"] == "finetuned":
            history = common.tune(small, where | {"seed": config["seed"]}, settings)
        row = _row(where, small, settings, history=history)
        found.append(row | {"metrics": row["metrics"] | numbers})
    return found


# -- who gets the weights: each returns a function from a share to ranks ---------------------------


def uniform(model: nn.Module, split: type, layers: list[str], **_):
    """The same share of its weights for each layer."""
    return functools.partial(lowrank.ranks_for_share, model, split=split, layers=layers)


def by_energy(model: nn.Module, split: type, layers: list[str], **_):
    """Least energy lost for each weight that is saved."""
    return functools.partial(
        under_budget, lowrank.weight_options(model, split=split, layers=layers)
    )


def by_validation(model: nn.Module, split: type, layers: list[str], *, settings: Settings):
    """Least rise of the loss on validation images for each weight that is saved."""
    images, labels = settings.dataset.validation
    some = torch.randperm(len(labels), generator=make_generator(0))[:NUM_VALIDATION]
    validation = data.Split(images[some], labels[some])
    options = lowrank.weight_options(model, split=split, layers=layers)
    before = train.evaluate(model, validation)["loss"]
    measured = {}
    for name, own in options.items():
        layer = model.get_submodule(name)
        tried = {lowrank.rank_for_share(layer, share, split=split) for share in MEASURED}
        measured[name] = [own[0]]
        for option in own:
            if option.rank in tried:
                small = lowrank.factorize(model, {name: option.rank}, split=split)
                loss = train.evaluate(small, validation)["loss"] - before
                measured[name].append(Option(option.rank, option.cost, loss))
    return functools.partial(under_budget, measured)


def under_budget(options: dict[str, list[Option]], share: float) -> dict:
    """Choose ranks so that a share of the weights is left."""
    return lowrank.choose_ranks(options, int(share * sum(own[0].cost for own in options.values())))


CHOICES = {"uniform": uniform, "energy": by_energy, "validated": by_validation}


# -- parts ----------------------------------------------------------------------------------------


def split_layers(model: nn.Module) -> list[str]:
    """Return the convolutions but the first one."""
    layers = lowrank.splittable(model)
    return [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)][1:]


def split_numbers(model: nn.Module, small: nn.Module) -> dict[str, float]:
    """Return the share of the weights that is left, and of the energy, as a mean over layers."""
    layers = {name: model.get_submodule(name) for name in split_layers(model)}
    whole = {name: layer.weight.numel() for name, layer in layers.items()}
    left, lost = dict(whole), dict.fromkeys(whole, 0.0)
    for name, split in lowrank.splits_of(small).items():
        left[name] = split.count_weights(layers[name], split.rank)
        weight = layers[name].weight.detach().double()
        rest = weight - split.fuse().weight.detach().double()
        lost[name] = float(rest.square().sum() / weight.square().sum())
    return {
        "weights_share": sum(left.values()) / sum(whole.values()),
        "energy": 1 - sum(lost.values()) / len(lost),
    }


def _rank_numbers(ranks: dict) -> dict[str, int]:
    numbers = {}
    for name, rank in ranks.items():
        pairs = (
            {"": rank} if isinstance(rank, int) else dict(zip(("_in", "_out"), rank, strict=True))
        )
        numbers |= {f"rank{end} {name}": one for end, one in pairs.items()}
    return numbers


def _row(where: dict, model: nn.Module, settings: Settings, history: list | None = None) -> dict:
    """Measure a network: what it is worth and what it costs."""
    numbers = {
        "test_accuracy": metrics.accuracy(model, settings.dataset.test),
        **common.costs(model, settings),
    }
    if history is not None:
        numbers["val_accuracy"] = metrics.accuracy(model, settings.dataset.validation)
    rows = common.without_seconds(history or [])
    return {"config": where, "metrics": numbers, "history": rows}


# -- the record -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "lowrank"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = common.settings_of(options, PRESETS)
    record = common.open_record(options, settings, name=name, arguments=arguments)
    all_parts = (float_configs, cut_configs, tuned_configs)  # all begin with the first
    parts = [common.seed_by_seed(part, options.seeds) for part in all_parts]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    main()
