"""Quantize a trained network: how many bits do its weights and activations need?

    python -m experiments.quantization --data folder --root FOLDER --workers 2 --compile --bf16
    python -m experiments.quantization --data synth_digits --workers 2

A residual network is trained with RandAugment (N = 2, M = 10 of 31 bins), and then:

- "ptq": rounded without any training, weights of 2 to 8 bits times activations of 2 to 8 bits, and
  of 32 (left as they are); the scale of each channel from its largest weight ("ptq-max"), or by
  the least squared error ("ptq");
- "ptq-tensor", "ptq-group": one scale for a whole layer, or for each 16 weights;
- "kmeans", "binary", "ternary": other codes for the weights;
- "calibration": five ways to find the range of the activations; "dynamic": none, each picture anew;
- "mixed": the bits of each layer chosen under a number of bytes, by the loss on validation images;
- "qat": trained on with the rounding in place, scales learned; "qat-observed": ranges that follow
  what is seen; "float-longer": the float network, trained on for as long.

Below 8 bits the first and the last layer have 8: they are 0.4 % of the weights. Bytes are those of
the file: codes, scales, biases, header; batch norm is folded. All of one seed begin with the same
trained network. The test images give the score; nothing is chosen by them. A killed run goes on
where it stopped: finished runs are in a journal, epochs in checkpoints (``--work``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import nn

from experiments import common
from experiments.common import Settings
from rac_helpers import data, metrics, quantize
from rac_helpers.rng import derive_seed, make_generator

BITS = (2, 3, 4, 5, 6, 8)
ACTIVATION_BITS = (2, 3, 4, 6, 8)
FLOAT = 32  # bits of what is not rounded
QAT_BITS = ((4, 4), (8, 8), (2, 2), (1, 8))  # of weights, of activations
OBSERVED_BITS = ((4, 4),)
CALIBRATION_BITS = (6, 4)
DYNAMIC_BITS = (8, 6, 4)
GROUP_SIZE = 16
NUM_CALIBRATION = 500
NUM_VALIDATION = 1000  # enough for the loss of one layer rounded, and 132 such losses
EDGE_BITS = 8  # of the first and the last layer

PRESETS = common.LONGER


# -- what to run ----------------------------------------------------------------------------------


def float_configs(seed: int) -> list[dict]:
    """Return the training that all others begin with."""
    return [{"method": "float", "seed": seed}]


def tuned_configs(seed: int) -> list[dict]:
    """Return the runs with training: long ones, so they come first."""
    configs = [{"method": "float-longer"}]
    configs += [_bits("qat", *bits) for bits in QAT_BITS]
    configs += [_bits("qat-observed", *bits) for bits in OBSERVED_BITS]
    return [config | {"seed": seed} for config in configs]


def ptq_configs(seed: int) -> list[dict]:
    """Return the runs without training; each of them ends in several rows."""
    names = ("ptq", "ptq-max", "ptq-tensor", "ptq-group", "kmeans", "signs", "calibration")
    return [{"method": name, "seed": seed} for name in (*names, "dynamic", "mixed")]


def _bits(method: str, weight: int, activation: int) -> dict:
    return {"method": method, "bits_weight": weight, "bits_activation": activation}


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: Settings) -> list[dict]:
    """Return the rows of a run: for each its config, its numbers, and its training curves."""
    model, history = common.trained(config["seed"], settings)
    method = config["method"]
    if method == "float":
        return [_row(_bits("float", FLOAT, FLOAT), model, settings, history=history)]
    if method == "float-longer":
        history = common.tune(model, config, settings)
        return [_row(_bits(method, FLOAT, FLOAT), model, settings, history=history)]
    if method.startswith("qat"):
        return [quantization_aware(model, config, settings)]
    folded = quantize.fold_batch_norm(model, _example(settings))
    return list(WITHOUT_TRAINING[method](folded, settings, seed=config["seed"]))


def quantization_aware(model: nn.Module, config: dict, settings: Settings) -> dict:
    """Train on with the rounding in place, then fold batch norm into the scales and store."""
    bits = layer_bits(model, config["bits_weight"])
    learned = config["method"] == "qat"
    choose = quantize.least_error if learned else quantize.largest_weight
    on_a_grid = {name: b for name, b in bits.items() if b > 1}
    weights = quantize.weight_params(model, on_a_grid, choose=choose)
    observer = quantize.MeanSquaredError if learned else quantize.MinMax
    inputs = _inputs(model, config["bits_activation"], settings, observer)
    if learned:
        weights, inputs = (_each(quantize.LearnedQuantizer, p) for p in (weights, inputs))
    else:
        weights = _each(functools.partial(quantize.ObservedQuantizer, rate=1.0), weights)
        inputs = _each(functools.partial(quantize.ObservedQuantizer, rate=0.01), inputs)
    weights |= {name: quantize.BinaryQuantizer() for name, b in bits.items() if b == 1}
    rounded = quantize.insert_quantizers(model, weights=weights, inputs=inputs)
    history = common.tune(rounded, config, settings, after_step=quantize.QuantAware())
    folded = quantize.fold_quantized(rounded, _example(settings))
    codings = quantize.trained_params(folded)
    for name, b in bits.items():
        if b == 1:
            weight = quantize.quantizable(folded)[name].weight
            codings[name] = quantize.SignWeight(*quantize.binary_weights(weight))
    where = {key: value for key, value in config.items() if key != "seed"}
    return _row(where, quantize.store(folded, codings), settings, history=history)


def _each(make: Callable[[quantize.QParams], nn.Module], params: dict) -> dict[str, nn.Module]:
    return {name: make(one) for name, one in params.items()}


# -- without training: each gets the network without batch norm ------------------------------------


def ptq(model: nn.Module, settings: Settings, *, choose, method: str, **_) -> Iterator[dict]:
    """All bits of weights times all bits of activations."""
    inputs = {b: _inputs(model, b, settings, quantize.MeanSquaredError) for b in ACTIVATION_BITS}
    for bits_weight in (*BITS, FLOAT):
        weights = {}
        if bits_weight != FLOAT:
            weights = quantize.weight_params(model, layer_bits(model, bits_weight), choose=choose)
        for bits_activation in (*ACTIVATION_BITS, FLOAT):
            if bits_weight == bits_activation == FLOAT:
                continue
            if method == "ptq-max" and bits_activation != FLOAT:
                continue
            rounded = _rounded(model, weights, inputs.get(bits_activation, {}))
            yield _row(_bits(method, bits_weight, bits_activation), rounded, settings)


def other_scales(model: nn.Module, settings: Settings, *, method: str, **_) -> Iterator[dict]:
    """One scale for a whole layer, or for each few weights; activations as they are."""
    for bits in BITS:
        codings = {}
        for name, b in layer_bits(model, bits).items():
            weight = quantize.quantizable(model)[name].weight.detach()
            if method == "ptq-tensor" or weight[0].numel() % GROUP_SIZE:
                codings[name] = quantize.symmetric_params(weight.abs().max(), b)
            else:
                groups = quantize.split_groups(weight, GROUP_SIZE)
                codings[name] = quantize.symmetric_params(groups.abs().amax(dim=1), b, axis=0)
        yield _row(_bits(method, bits, FLOAT), quantize.store(model, codings), settings)


def kmeans(model: nn.Module, settings: Settings, *, seed: int) -> Iterator[dict]:
    """A codebook for each layer, fitted to its weights."""
    for bits in (1, *BITS):
        codings = {}
        for name, b in layer_bits(model, bits).items():
            generator = make_generator(derive_seed("kmeans", seed, name))
            weight = quantize.quantizable(model)[name].weight
            book = quantize.kmeans_codebook(weight, b, generator=generator)
            codings[name] = quantize.CodebookWeight(book.indices, book.values)
        yield _row(_bits("kmeans", bits, FLOAT), quantize.store(model, codings), settings)


def signs(model: nn.Module, settings: Settings, **_) -> Iterator[dict]:
    """Binary and ternary weights, straight away; the first and the last layer have 8 bits."""
    layers = quantize.quantizable(model)
    edges = {name: b for name, b in layer_bits(model, 1).items() if b > 1}
    for method in ("binary", "ternary"):
        codings = dict(quantize.weight_params(model, edges))
        for name in layers.keys() - edges.keys():
            weight = layers[name].weight
            if method == "binary":
                codings[name] = quantize.SignWeight(*quantize.binary_weights(weight))
            else:
                codes, factors = quantize.ternary_weights(weight)
                zero = torch.zeros_like(factors, dtype=torch.int32)
                params = quantize.QParams(factors.clamp(min=1e-12), zero, -1, 1, axis=0)
                codings[name] = quantize.AffineWeight(codes, params)
        bits = 1 if method == "binary" else 2
        yield _row(_bits(method, bits, FLOAT), quantize.store(model, codings), settings)


def calibration(model: nn.Module, settings: Settings, **_) -> Iterator[dict]:
    """Five ways to find the range of the activations; weights of 8 bits."""
    observers = {
        "min-max": quantize.MinMax,
        "moving-average": quantize.MovingAverage,
        "percentile": quantize.Percentile,
        "mse": quantize.MeanSquaredError,
        "entropy": quantize.Entropy,
    }
    weights = quantize.weight_params(model, 8)
    for name, observer in observers.items():
        for bits in CALIBRATION_BITS:
            rounded = _rounded(model, weights, _inputs(model, bits, settings, observer))
            where = _bits("calibration", 8, bits) | {"observer": name}
            yield _row(where, rounded, settings)


def dynamic(model: nn.Module, settings: Settings, **_) -> Iterator[dict]:
    """The range of the activations from each picture anew."""
    for bits in DYNAMIC_BITS:
        inputs = {name: quantize.DynamicQuantizer(b) for name, b in layer_bits(model, bits).items()}
        rounded = _rounded(model, quantize.weight_params(model, 8), inputs)
        yield _row(_bits("dynamic", 8, bits), rounded, settings)


def mixed(model: nn.Module, settings: Settings, **_) -> Iterator[dict]:
    """Bits of each layer under the bytes that 3, 4 and 5 bits for all would take."""
    images, labels = settings.dataset.validation
    some = torch.randperm(len(labels), generator=make_generator(0))[:NUM_VALIDATION]
    validation = data.Split(images[some], labels[some])
    losses = quantize.bit_losses(model, validation, bits=BITS, choose=quantize.least_error)
    for bits in (3, 4, 5):
        budget = quantize.weight_bytes(model, layer_bits(model, bits))
        chosen = quantize.choose_bits(model, losses, budget_bytes=budget)
        weights = quantize.weight_params(model, chosen, choose=quantize.least_error)
        where = _bits("mixed", bits, FLOAT)
        row = _row(where, _rounded(model, weights, {}), settings)
        yield row | {"metrics": row["metrics"] | {f"bits {n}": b for n, b in chosen.items()}}


WITHOUT_TRAINING = {
    "ptq": functools.partial(ptq, choose=quantize.least_error, method="ptq"),
    "ptq-max": functools.partial(ptq, choose=quantize.largest_weight, method="ptq-max"),
    "ptq-tensor": functools.partial(other_scales, method="ptq-tensor"),
    "ptq-group": functools.partial(other_scales, method="ptq-group"),
    "kmeans": kmeans,
    "signs": signs,
    "calibration": calibration,
    "dynamic": dynamic,
    "mixed": mixed,
}


# -- parts ----------------------------------------------------------------------------------------


def layer_bits(model: nn.Module, bits: int) -> dict[str, int]:
    """Return the bits of each layer: those asked for, in the first and the last at least 8."""
    names = list(quantize.quantizable(model))
    return {name: max(bits, EDGE_BITS) if name in (names[0], names[-1]) else bits for name in names}


def _inputs(model: nn.Module, bits: int, settings: Settings, observer: Callable) -> dict:
    if bits == FLOAT:
        return {}
    images = settings.dataset.train.images[:NUM_CALIBRATION]
    return quantize.input_params(model, images, layer_bits(model, bits), make_observer=observer)


def _rounded(model: nn.Module, weights: dict, inputs: dict) -> nn.Module:
    """Return what is stored, with rounded inputs if there are any."""
    rounded = quantize.insert_quantizers(model, weights=weights, inputs=inputs)
    return quantize.store(rounded, weights) if weights else rounded


def _example(settings: Settings) -> torch.Tensor:
    return settings.dataset.test.images[:1]


def _row(where: dict, model: nn.Module, settings: Settings, history: list | None = None) -> dict:
    """Measure a network. Its parameters are those of the float network, in other clothes."""
    numbers = {
        "test_accuracy": metrics.accuracy(model, settings.dataset.test),
        "size_bytes": metrics.size_bytes(model),
    }
    if history is not None:
        numbers["val_accuracy"] = metrics.accuracy(model, settings.dataset.validation)
    return {
        "config": where,
        "metrics": numbers,
        "history": common.without_seconds(history or []),
    }


# -- the record -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "quantization"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = common.settings_of(options, PRESETS)
    record = common.open_record(options, settings, name=name, arguments=arguments)
    all_parts = (float_configs, tuned_configs, ptq_configs)  # all begin with the first
    parts = [common.seed_by_seed(part, options.seeds) for part in all_parts]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    main()
