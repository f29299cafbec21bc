"""Search the compressed network: which layer is cut by how much, and stored in how many bits?

    python -m experiments.nas_compressed --data synth_digits --workers 2
    python -m experiments.nas_compressed --data folder --root FOLDER --workers 2

Float networks of two widths are trained with RandAugment (N = 2, M = 10). A plan takes one of them,
cuts a share of each layer's weights and stores the others in a few bits. What it costs is the size
of its file, header, scales, bitmaps and all that is left in float included. For each budget of
bytes, and each seed:

- "uniform": every layer has the same share and the same bits. All such plans are measured, and the
  best on the validation images among those under the budget is taken.
- "random": so many plans drawn at random, layer by layer.
- "evolution": as many, by aging evolution that begins with the uniform plans; those count, too.

Plans over the budget are not measured (``scored`` says how many were). Plans are compared on the
validation images, and the one that was found is measured on the test images: "cut", without any
training; "finetuned", after a few more epochs (``--tune-epochs``) of the weights that are left,
with the rounding in place and scales that are learned. "float" rows hold the networks before.

A killed run goes on where it stopped: finished runs are in a journal, epochs in checkpoints
(``--work``).
"""

from __future__ import annotations

import copy
import functools

from torch import nn

from experiments import common
from rac_helpers import metrics, nas, prune, quantize
from rac_helpers.rng import derive_seed, make_generator

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
BITS = (2, 3, 4, 5, 6, 8)
TRIALS = 200
POPULATION, SAMPLE = 24, 6
PRESETS = {
    "synth_digits": common.PRESETS["synth_digits"],
    "folder": common.PRESETS["folder"],
}
BUDGETS_BYTES = {"small_cnn": (14_000, 11_000, 8_000), "resnet20": (100_000, 70_000, 50_000)}
METHODS = ("uniform", "random", "evolution")


# -- what to run ----------------------------------------------------------------------------------


def widths(settings: common.Settings) -> tuple[int, int]:
    """Return the widths of the students."""
    return settings.width, settings.width * 3 // 4


def float_configs(seed: int, *, settings: common.Settings) -> list[dict]:
    """Return the networks that all plans begin with."""
    return [{"method": "float", "width": width, "seed": seed} for width in widths(settings)]


def search_configs(seed: int, *, settings: common.Settings) -> list[dict]:
    """Return the searches: all methods at one budget, then the next."""
    return [
        {"method": method, "budget_bytes": budget, "seed": seed}
        for budget in BUDGETS_BYTES[settings.model]
        for method in METHODS
    ]


# -- one run --------------------------------------------------------------------------------------


def run(config: dict, *, settings: common.Settings) -> list[dict]:
    """Return the rows of a run."""
    if config["method"] == "float":
        model, history = common.trained(config["seed"], settings, width=config["width"])
        numbers = common.scores(model, settings) | common.costs(model, settings)
        row = {"config": {}, "metrics": numbers, "history": common.without_seconds(history)}
        return [row]
    students = {w: common.trained(config["seed"], settings, width=w)[0] for w in widths(settings)}
    search = Search(students, config, settings)
    genome = search.find(config["method"])
    if genome is None:
        return []  # nothing fits
    plan = nas.plan_of(search.space, genome)
    student = students[plan.width]
    cut = row_of("cut", student, plan, settings) | {"history": []}
    cut["metrics"] |= {"scored": len(search.scores)}
    return [cut, finetuned(student, plan, config, settings)]


class Search:
    """What a search needs: space, score and limits. A genome is measured once."""

    def __init__(self, students: dict[int, nn.Module], config: dict, settings: common.Settings):
        self.students, self.validation = students, settings.dataset.validation
        self.layers = [*quantize.quantizable(students[settings.width])]
        options = {"sparsities": SPARSITIES, "bits": BITS, "widths": widths(settings)}
        self.space = nas.compressed_space(self.layers, **options)
        self.generator = make_generator(
            derive_seed("search", config["method"], config["budget_bytes"], config["seed"])
        )
        self.scores: dict[nas.Genome, float] = {}
        limits = nas.Limits(size_bytes=config["budget_bytes"])
        self.limited = functools.cache(nas.limited(self.accuracy, self.costs, limits))

    def costs(self, genome: nas.Genome) -> dict[str, int]:
        """Return the bytes of the file."""
        plan = nas.plan_of(self.space, genome)
        return {"size_bytes": nas.compressed_bytes(self.students[plan.width], plan)}

    def accuracy(self, genome: nas.Genome) -> float:
        """Return the validation accuracy, with nothing trained."""
        plan = nas.plan_of(self.space, genome)
        small = nas.compress(self.students[plan.width], plan)
        self.scores[genome] = metrics.accuracy(small, self.validation)
        return self.scores[genome]

    def uniform(self) -> list[nas.Genome]:
        """Return the plans that treat all layers alike."""
        choices = nas.Space((("sparsity", SPARSITIES), ("bits", BITS), ("w", (0, 1))))
        return [(s, b) * len(self.layers) + (w,) for s, b, w in choices.genomes()]

    def find(self, method: str) -> nas.Genome | None:
        """Return the best plan that the method finds under the budget, if there is one."""
        plain = self.uniform()
        if method == "random":
            strategy = nas.RandomSearch(self.space, generator=self.generator)
            nas.search(strategy, self.limited, num_trials=TRIALS)
        else:
            ranked = sorted((self.limited(genome), genome) for genome in plain)
            if method == "evolution":
                self.evolve(ranked)
        return max(self.scores, key=lambda genome: self.scores[genome]) if self.scores else None

    def evolve(self, ranked: list[tuple[float, nas.Genome]]) -> None:
        """Begin with the best of these plans."""
        strategy = nas.AgingEvolution(
            self.space, generator=self.generator, population_size=POPULATION, sample_size=SAMPLE
        )
        for score, genome in ranked[-POPULATION:]:
            strategy.tell(genome, score)
        nas.search(strategy, self.limited, num_trials=max(1, TRIALS - len(ranked)))


def finetuned(student: nn.Module, plan: nas.Plan, config: dict, settings: common.Settings) -> dict:
    """Return the row after a training of the weights that are left, with their rounding."""
    cut, masks = copy.deepcopy(student), nas.masks_of(student, plan)
    masks.apply_(cut)
    model = quantize.insert_quantizers(
        cut,
        weights=quantize.weight_params(cut, plan.bits),
        make_quantizer=quantize.LearnedQuantizer,
    )
    after_step = functools.partial(keep, masks=masks)
    history = common.tune(model, config, settings, after_step=after_step)
    learned, _ = quantize.params_of(model)
    row = row_of("finetuned", quantize.remove_quantizers(model), plan, settings, rounding=learned)
    return row | {"history": common.without_seconds(history)}


def keep(model: nn.Module, step: int, *, masks: prune.MaskSet) -> None:
    """Keep zeros zero, and scales above zero."""
    masks(model, step)
    quantize.keep_scales_positive_(model)


def row_of(
    stage: str,
    model: nn.Module,
    plan: nas.Plan,
    settings: common.Settings,
    *,
    rounding: dict[str, quantize.QParams] | None = None,
) -> dict:
    """Measure the compressed network; the plan stands in the row, layer by layer."""
    numbers = common.scores(nas.compress(model, plan, rounding=rounding), settings)
    numbers |= {"size_bytes": nas.compressed_bytes(model, plan), "width": plan.width}
    for name in plan.bits:
        numbers |= {f"sparsity {name}": plan.sparsity[name], f"bits {name}": plan.bits[name]}
    return {"config": {"stage": stage}, "metrics": numbers}


# -- the record -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing, write the record."""
    name = "nas_compressed"
    options = common.parse(arguments, name=name, presets=PRESETS, description=__doc__)
    settings = common.settings_of(options, PRESETS)
    record = common.open_record(options, settings, name=name, arguments=arguments)
    parts = [
        common.seed_by_seed(functools.partial(part, settings=settings), options.seeds)
        for part in (float_configs, search_configs)
    ]
    common.run_all(run, parts, settings=settings, options=options, record=record)


if __name__ == "__main__":
    main()
