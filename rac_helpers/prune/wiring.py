"""Where each channel goes: one forward pass with a number for every channel.

A channel leaves a convolution and meets others on its way: an addition needs as many channels
from both sides, batch norm has a scale and a shift for each, a linear layer after flattening reads
it H·W times. To cut it, one must know all these places.

So every output channel of a layer gets a number. The numbers follow the tensors through the
network (``torch.fx`` lists its operations), always for dimension 1. Where two channels are added,
their numbers become one: they can only be cut together. Number 0 stands for all channels that are
never cut: the network's inputs and outputs, and whatever is tied to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from rac_helpers.metrics.score import eval_mode
from rac_helpers.models import Normalize
from rac_helpers.prune.channel_rules import Numbers, follow
from rac_helpers.prune.weights import prunable

FIXED = 0
ChannelMasks = Mapping[str, torch.Tensor]  # by a weight's name: bools (out_channels,), True = kept


@dataclass(frozen=True)
class ChannelPad:
    """An ``F.pad`` that adds channels of zeros, in the ``forward`` of the module ``owner``.

    ``amounts[place : place + 2]`` is how many, before and after; their numbers follow.
    """

    owner: str
    amounts: tuple[int, ...]
    place: int
    before: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True)
class Wiring:
    """The numbers of the channels at each place; a number occurs wherever its channel does.

    ``inputs`` and ``outputs`` are keyed by the names of convolutions and linear layers, ``norms``
    by those of batch norms, all as in ``model.named_modules()``.
    """

    count: int
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    norms: dict[str, torch.Tensor]
    pads: list[ChannelPad]


def follow_channels(model: nn.Module, example: torch.Tensor) -> Wiring:
    """Send ``example`` through ``model`` and note where each channel goes.

    Parameters
    ----------
    model : nn.Module
        Used in eval mode, and left as it was.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Raises
    ------
    ValueError
        If ``torch.fx`` cannot list the operations, one of them is not known here, or no channel
        can be cut.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 5))
    >>> wiring = follow_channels(model, torch.zeros(1, 3, 4, 4))
    >>> wiring.outputs["0"].tolist(), wiring.inputs["2"].tolist()  # each is read 2·2 times
    ([1, 2], [1, 1, 1, 1, 2, 2, 2, 2])
    >>> wiring.outputs["2"].tolist()  # the network's outputs
    [0, 0, 0, 0, 0]
    """
    prunable(model)  # raises where weights are shared or hidden
    with eval_mode(model), torch.no_grad():
        walk = Walk(model, graph=_operations(model))
        walk.run(example)
    wiring = walk.wiring()
    if all((numbers == FIXED).all() for numbers in wiring.outputs.values()):
        raise ValueError("model must have channels between its input and its output, got none")
    return wiring


def kept_channels(wiring: Wiring, masks: ChannelMasks) -> torch.Tensor:
    """Turn masks of layers into one bool for each number, or raise if they do not fit.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 5, 1))
    >>> wiring = follow_channels(model, torch.zeros(1, 3, 4, 4))
    >>> kept = kept_channels(wiring, {"0.weight": torch.tensor([False, True])})
    >>> kept[wiring.inputs["1"]]
    tensor([False,  True])
    """
    layers = {f"{name}.weight": numbers for name, numbers in wiring.outputs.items()}
    kept = torch.ones(wiring.count, dtype=torch.bool)
    if not isinstance(masks, Mapping):
        raise TypeError(f"channel_masks must be a mapping of names, got {type(masks).__name__}")
    for name, mask in masks.items():
        _check_mask(name, mask, layers)
        kept[layers[name][~mask.cpu()]] = False
    for name, numbers in layers.items():
        mask = masks[name].cpu() if name in masks else torch.ones(len(numbers), dtype=torch.bool)
        wrong = (mask & ~kept[numbers]).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(
                f"channel_masks must cut tied channels together, but {name!r} keeps channel "
                f"{wrong[0]}, and one that is tied to it is cut"
            )
    return kept


def _check_mask(name: str, mask: torch.Tensor, layers: Mapping[str, torch.Tensor]) -> None:
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"channel_masks[{name!r}] must be a tensor of bools, got {got}")
    if name not in layers:
        raise ValueError(f"channel_masks must be of this model, which has no layer {name!r}")
    if mask.shape != layers[name].shape:
        shape = tuple(layers[name].shape)
        raise ValueError(
            f"channel_masks[{name!r}] must have shape {shape}, got {tuple(mask.shape)}"
        )
    if not mask.any():
        raise ValueError(f"channel_masks[{name!r}] must keep at least one channel, got none")
    if (layers[name][~mask.cpu()] == FIXED).any():
        raise ValueError(
            f"channel_masks[{name!r}] must keep the channels that belong to the network's outputs "
            "or inputs, or are tied to them"
        )


class _Tracer(fx.Tracer):
    """Note which module is being traced; Normalize asks for its input's type, so leave it whole."""

    path = "model"

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Normalize) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outer, self.path = self.path, f"{self.path_of_module(module)} ({type(module).__name__})"
        result = super().call_module(module, forward, args, kwargs)
        self.path = outer  # not restored after an error: then it says where that was
        return result


def _operations(model: nn.Module) -> fx.Graph:
    tracer = _Tracer()
    try:
        return tracer.trace(model)
    except Exception as error:  # whatever the model's code does with a stand-in for a tensor
        raise ValueError(
            f"model must be one whose operations torch.fx can list, "
            f"got {type(model).__name__}, which stops it in {tracer.path}: {error}"
        ) from error


class Walk(fx.Interpreter):
    """Run the operations one by one; ``numbers`` holds the channels of each result."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.parent = [FIXED]  # of each number: the one it was tied to, at last itself
        self.numbers: dict[fx.Node, Numbers] = {}
        self.shapes: dict[fx.Node, torch.Size | None] = {}
        self.inputs: dict[str, list[int]] = {}
        self.outputs: dict[str, list[int]] = {}
        self.norms: dict[str, list[int]] = {}
        self.pads: list[tuple[fx.Node, int, list[int], list[int]]] = []

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        self.shapes[node] = value.shape if isinstance(value, torch.Tensor) else None
        self.numbers[node] = follow(self, node)
        return value

    def fresh(self, count: int) -> list[int]:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return list(range(first, first + count))

    def root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    def tie(self, some: Iterable[int], others: Iterable[int]) -> None:
        for one, other in zip(some, others, strict=True):
            low, high = sorted((self.root(one), self.root(other)))
            self.parent[high] = low  # the lowest stays: 0 above all

    def fix(self, numbers: Numbers) -> None:
        self.tie(numbers or [], [FIXED] * len(numbers or []))

    def is_fixed(self, node: fx.Node) -> bool:
        return all(self.root(number) == FIXED for number in self.numbers[node] or [])

    def fixed_like(self, node: fx.Node) -> Numbers:
        shape = self.shapes[node]
        return [FIXED] * shape[1] if shape is not None and len(shape) > 1 else None

    def place(self, places: dict[str, list[int]], name: str, numbers: list[int]) -> list[int]:
        """Note the numbers at a layer; a layer that is called twice ties those of both calls."""
        self.tie(places.setdefault(name, numbers), numbers)
        return numbers

    def wiring(self) -> Wiring:
        """Return what was found, with one number for all channels that were tied."""
        places = (self.inputs, self.outputs, self.norms)
        found = [{name: self.resolve(at) for name, at in place.items()} for place in places]
        pads = {}  # a module that is called twice comes once
        for node, place, *added in self.pads:
            stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            owner, amounts = stack[-1] if stack else "", tuple(node.args[1])
            before, after = map(self.resolve, added)
            key = owner, amounts, *before.tolist(), *after.tolist()
            pads[key] = ChannelPad(owner, amounts, place, before, after)
        return Wiring(len(self.parent), *found, list(pads.values()))

    def resolve(self, numbers: Iterable[int]) -> torch.Tensor:
        return torch.tensor([self.root(number) for number in numbers], dtype=torch.int64)
