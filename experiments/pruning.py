"""Prune a trained network: its accuracy before the cut, after it, and after fine-tuning.

    python -m experiments.pruning --data folder --root FOLDER --workers 2 --compile --bf16
    python -m experiments.pruning --data synth_digits --workers 2

The article's example: RandAugment (N = 2, M = 10), a residual network, half of the weights pruned.
The article does not say on which scale M is meant, so the example runs on both: 31 bins, where 10
is a third of the full strength (torchvision), and 11, where it is all of it (the paper). Around it:

- the curve to 98 % zeros, by magnitude, over the whole network;
- other scores and masks: the same share in each layer, Taylor, random, 2 of every 4 weights, and
  gradual cutting;
- whole channels by their L1 norm, taken out, at three shares of the multiply-accumulates;
- two fair comparisons: the dense network trained on for as long as the pruned ones, and networks
  that were narrow from the start and got all these epochs;
- "-long": 80 % zeros, half of the MACs, and the dense network, with twice the fine-tuning.
  (Added after the others had been seen: they were still rising.)

The runs of one seed cut the same trained network. Fine-tuning: the same images and augmentation, a
lower learning rate. The test images give the score; nothing is chosen by them. A killed run goes on
where it stopped: finished runs are in a journal, epochs in checkpoints (``--work``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from experiments import common
from experiments.common import Settings
from rac_helpers import data, metrics, prune
from rac_helpers.rng import derive_seed, make_generator

BINS = (31, 11)  # of torchvision's scale and of the paper's
ARTICLE_SPARSITY = 0.5
CURVE = (0.5, 0.8, 0.9, 0.95, 0.98)
OTHERS = (0.5, 0.8, 0.9)  # sparsities at which other scores are compared, straight after the cut
TUNED = 0.9  # and the one at which they are fine-tuned, too
MACS_SHARES = (0.724, 0.5, 0.25)  # the first one: 27.6 % fewer, as Li et al. (2017), table 1
NARROW = (11, 8)  # widths in place of 16: about 1/2 and 1/4 of the MACs
LONG = "-long"  # three methods once more, with twice the fine-tuning, at a higher rate
LONG_TIMES, LONG_LR = 2, 0.05
ENCODERS = (prune.encode_dense, prune.encode_bitmap, prune.encode_csr, prune.encode_gaps)


PRESETS = common.PRESETS


# -- what to run ----------------------------------------------------------------------------------


def base_configs(seed: int) -> list[dict]:
    """Return the trainings that others begin from, and the one on the paper's scale."""
    return [{"method": "dense", "num_magnitude_bins": bins, "seed": seed} for bins in BINS]


def cut_configs(seed: int) -> list[dict]:
    """Return the runs that cut a trained network, and the narrow ones."""
    main, paper = BINS
    configs = [{"method": "magnitude-global", "sparsity": s} for s in CURVE]
    configs += [{"method": "channel-l1", "macs_share": share} for share in MACS_SHARES]
    configs += [{"method": "small-dense", "width": width} for width in NARROW]
    for method in ("magnitude-layer", "taylor-global", "random-global"):
        configs += [{"method": method, "sparsity": s} for s in OTHERS]
    configs.append({"method": "magnitude-2:4", "sparsity": 0.5})
    configs.append({"method": "magnitude-gradual", "sparsity": TUNED})
    configs = [config | {"num_magnitude_bins": main} for config in configs]
    article = {"method": "magnitude-global", "sparsity": ARTICLE_SPARSITY}
    configs.append(article | {"num_magnitude_bins": paper})
    return [config | {"seed": seed} for config in configs]


def long_configs(seed: int) -> list[dict]:
    """Return the runs with more fine-tuning."""
    configs = [{"method": "dense"}, {"method": "magnitude-global", "sparsity": 0.8}]
    configs.append({"method": "channel-l1", "macs_share": 0.5})
    main, _ = BINS
    long = {"num_magnitude_bins": main, "seed": seed}
    return [config | long | {"method": config["method"] + LONG} for config in configs]


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Return what is to be recorded: for each stage its name, numbers, and the training curves."""
    method = config["method"].removesuffix(LONG)
    if method == "dense":
        return list(_dense(config, settings))
    if method == "small-dense":
        model = settings.build(seed=config["seed"], width=config["width"])
        epochs = settings.epochs + settings.tune_epochs
        history = _fit(model, config, settings, stage="dense", epochs=epochs, lr=settings.lr)
        return [_stage("dense", model, settings, history)]
    if method == "magnitude-gradual":
        return [_gradual(config, settings)]
    return list(_cut_and_tune(config, settings))


def _dense(config: dict, settings: Settings) -> Iterator[dict]:
    model, history = trained(config, settings)
    if not config["method"].endswith(LONG):
        yield _stage("dense", model, settings, history)
    history = _tune(model, config, settings)
    yield _stage("finetuned", model, settings, history)


def _cut_and_tune(config: dict, settings: Settings) -> Iterator[dict]:
    """Cut once, then train on with the zeros held, or without the channels."""
    model, _ = trained(config, settings)
    method, sparsity = config["method"].removesuffix(LONG), config.get("sparsity")
    if method == "channel-l1":
        example = settings.dataset.test.images[:1]
        model, masks = narrowed(model, example, config["macs_share"]), None
    else:
        masks = chosen_masks(model, config, settings)
        masks.apply_(model)
    if not config["method"].endswith(LONG):
        yield _stage("cut", model, settings)
    compared = method in ("magnitude-layer", "taylor-global") and sparsity != TUNED
    if compared or method == "random-global":
        return
    history = _tune(model, config, settings, after_step=masks)
    yield _stage("finetuned", model, settings, history)


def _gradual(config: dict, settings: Settings) -> dict:
    """Cut more and more in the first three quarters of the fine-tuning."""
    model, _ = trained(config, settings)
    steps = settings.tune_epochs * -(-len(settings.dataset.train.labels) // settings.batch_size)
    cuts = min(20, 3 * steps // 4)
    every = 3 * steps // 4 // cuts
    schedule = prune.CubicSchedule(config["sparsity"], start=0, end=every * cuts, every=every)
    pruner = prune.Pruner(schedule)
    pruner.attach_(model)
    history = _tune(model, config, settings, after_step=pruner)
    pruner.detach_(model)
    return _stage("finetuned", model, settings, history)


def chosen_masks(model: nn.Module, config: dict, settings: Settings) -> prune.MaskSet:
    """Choose the masks of a method, all weights of the network taken into account."""
    method, sparsity = config["method"], config["sparsity"]
    if method == "taylor-global":
        scores = prune.taylor_scores(model, _batches(settings.dataset.train))
    elif method == "random-global":
        generator = make_generator(derive_seed("random scores", config["seed"]))
        scores = prune.random_scores(model, generator=generator)
    else:
        scores = prune.magnitude_scores(model)
    if method == "magnitude-2:4":  # the first layer has three inputs and stays dense
        fitting = {name: s for name, s in scores.items() if s.shape[1] % 4 == 0}
        return prune.n_m_masks(fitting, n=2, m=4)
    choose = prune.layer_masks if method == "magnitude-layer" else prune.global_masks
    return choose(scores, sparsity)


def narrowed(model: nn.Module, example: torch.Tensor, macs_share: float) -> nn.Module:
    """Take out the filters with the smallest L1 norms, the same share in each group."""
    groups = prune.channel_groups(model, example)
    scores = prune.filter_l1(model)
    masks = prune.channel_masks_for_macs(
        model,
        example,
        lambda sparsity: prune.uniform_group_masks(groups, scores, sparsity),
        macs_share=macs_share,
    )
    return prune.shrink(model, masks, example)


def trained(config: dict, settings: Settings) -> tuple[nn.Module, list[dict]]:
    """Return the dense network of a seed; epochs that its checkpoint holds are not run again."""
    base = {key: config[key] for key in ("num_magnitude_bins", "seed")} | {"method": "dense"}
    model = settings.build(seed=config["seed"])
    history = _fit(model, base, settings, stage="dense", epochs=settings.epochs, lr=settings.lr)
    return model, history


def _tune(model: nn.Module, config: dict, settings: Settings, after_step=None) -> list[dict]:
    long = config["method"].endswith(LONG)
    return _fit(
        model,
        config,
        settings,
        stage="finetuned",
        epochs=settings.tune_epochs * (LONG_TIMES if long else 1),
        lr=LONG_LR if long else settings.tune_lr,
        after_step=after_step,
    )


def _fit(model: nn.Module, config: dict, settings: Settings, **how) -> list[dict]:
    bins = config["num_magnitude_bins"]
    transform = common.randaugment(num_magnitude_bins=bins)
    return common.fit(model, config, settings, transform=transform, **how)


def _batches(split: data.Split, size: int = 500, number: int = 4) -> list:
    """The first few training pictures, unchanged, for scores that need gradients."""
    pieces = zip(split.images.split(size), split.labels.split(size), strict=True)
    return list(pieces)[:number]


def _stage(stage: str, model: nn.Module, settings: Settings, history: list | None = None) -> dict:
    """Measure a network: what it is worth and what it costs."""
    encoded = [metrics.size_bytes(prune.pack(model, encode)) for encode in ENCODERS]
    numbers = {
        **common.scores(model, settings),
        **common.costs(model, settings),
        "nonzeros": metrics.count_nonzeros(model),
        "size_bytes_sparse": min(encoded),
    }
    rows = common.without_seconds(history or [])
    return {"config": {"stage": stage}, "metrics": numbers, "history": rows}


# -- the record -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "pruning"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = common.settings_of(options, PRESETS)
    record = common.open_record(options, settings, name=name, arguments=arguments)
    seeds = range(options.seeds)  # one part after the other: cutting needs the trained networks
    parts = [part(seed) for seed in seeds for part in (base_configs, cut_configs)]
    parts += [long_configs(seed) for seed in seeds]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    main()
