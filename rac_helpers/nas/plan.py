"""The plan of a compression as a search space: how sparse, how many bits, how wide.

A genome says for each layer which share of its weights is cut and with how many bits the others are
stored; one more gene can choose among students of several widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from rac_helpers import prune, quantize
from rac_helpers._check import check_int, check_number
from rac_helpers.nas.space import Genome, Space


@dataclass(frozen=True)
class Plan:
    """How a network is compressed.

    Parameters
    ----------
    sparsity : mapping of str to float
        Share of the weights to cut, in ``[0, 1)``, by the names of layers.
    bits : mapping of str to int
        Bits of each weight that is kept, in [2, 16], for the same layers.
    width : int, optional
        Of the student that is compressed; ``None`` if there is only one network.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or the layers differ.

    Examples
    --------
    >>> Plan({"fc": 0.5}, {"fc": 4})
    Plan(sparsity={'fc': 0.5}, bits={'fc': 4}, width=None)
    """

    sparsity: Mapping[str, float]
    bits: Mapping[str, int]
    width: int | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("sparsity", "bits"):
            if not isinstance(given := getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a mapping of layers, got {type(given).__name__}")
        if self.sparsity.keys() != self.bits.keys() or not self.bits:
            raise ValueError(
                "sparsity and bits must name the same layers, at least one, got "
                f"{[*self.sparsity]} and {[*self.bits]}"
            )
        for name in self.bits:
            if check_number(f"sparsity of {name}", self.sparsity[name], low=0, high=1) == 1:
                raise ValueError(f"sparsity of {name} must be in [0, 1), got 1")
            check_int(f"bits of {name}", self.bits[name], low=2, high=16)


def compressed_space(
    layers: Sequence[str],
    *,
    sparsities: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9),
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8),
    widths: Sequence[int] = (),
) -> Space:
    """Return the space of all plans for some layers.

    Parameters
    ----------
    layers : sequence of str
        Names of layers, such as those of :func:`rac_helpers.quantize.quantizable`.
    sparsities, bits : sequence
        The choices of each layer.
    widths : sequence of int
        Widths of the students, if there are several.

    Returns
    -------
    Space
        Two genes a layer, ``"sparsity <layer>"`` and ``"bits <layer>"``, and perhaps ``"width"``.

    Raises
    ------
    TypeError, ValueError
        As :class:`Space`.

    Examples
    --------
    >>> space = compressed_space(["conv", "fc"], sparsities=(0.0, 0.5), bits=(4, 8))
    >>> len(space), plan_of(space, (1, 0, 0, 1))
    (16, Plan(sparsity={'conv': 0.5, 'fc': 0.0}, bits={'conv': 4, 'fc': 8}, width=None))
    """
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, got the text {layers!r}")
    genes: list[tuple[str, tuple]] = []
    for name in layers:
        genes += [(f"sparsity {name}", tuple(sparsities)), (f"bits {name}", tuple(bits))]
    if widths:
        genes.append(("width", tuple(widths)))
    return Space(tuple(genes))


def plan_of(space: Space, genome: Genome) -> Plan:
    """Return the plan of a genome.

    Raises
    ------
    TypeError, ValueError
        If the genome is not one of the space, or the space not one of :func:`compressed_space`.
    """
    choice = space.decode(genome)
    parts: dict[str, dict] = {"sparsity": {}, "bits": {}}
    width = choice.pop("width", None)
    for key, value in choice.items():
        kind, _, layer = key.partition(" ")
        if kind not in parts or not layer:
            raise ValueError(f"space must be one of compressed_space, got the gene {key!r}")
        parts[kind][layer] = value
    return Plan(**parts, width=width)


def masks_of(model: nn.Module, plan: Plan) -> prune.MaskSet:
    """Return the masks of a plan: the smallest weights of each layer are cut.

    They serve also to train on what is left: ``train.fit(..., after_step=masks)``.

    Examples
    --------
    >>> masks_of(nn.Sequential(nn.Linear(4, 2)), Plan({"0": 0.5}, {"0": 8})).sparsity
    0.5
    """
    layers = quantize.quantizable(model)
    if missing := sorted(plan.bits.keys() - layers.keys()):
        raise ValueError(f"plan must name layers of the model {[*layers]}, got {missing[0]!r}")
    scores = {f"{name}.weight": layers[name].weight.detach().abs() for name in plan.bits}
    return prune.layer_masks(scores, {f"{name}.weight": s for name, s in plan.sparsity.items()})
