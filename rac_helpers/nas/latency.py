"""How long a network takes, estimated from a table of its parts.

A search cannot wait for a quiet machine with every genome. Networks of one space are made of a few
different blocks; each is measured once, and a network is the sum of its blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from rac_helpers import metrics
from rac_helpers._check import check_int, check_number
from rac_helpers.metrics.score import eval_mode
from rac_helpers.nas.networks import StagedNetwork


def parts_of(model: StagedNetwork, image: torch.Tensor) -> dict[str, tuple]:
    """Return the blocks of a network, each with the input that it gets.

    Parameters
    ----------
    model : StagedNetwork
        Used in eval mode.
    image : torch.Tensor
        Input of the network, ``(1, 3, H, W)``.

    Returns
    -------
    dict of str to (kind, nn.Module, torch.Tensor)
        By their names, in the order of their calls. Blocks with the same ``kind`` (operation,
        shape of input and output) take the same time. Skips that do nothing are left out.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is no StagedNetwork, or ``image`` not one image.

    Examples
    --------
    >>> from rac_helpers.nas import build
    >>> image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    >>> {name: kind for name, (kind, *_) in parts_of(build((3, 0, 1, 0, 0), seed=0), image).items()}
    {'normalize': 'normalize 3x32x32', 'stem': 'stem 3x32x32 4x16x16', \
'stage2.block1_conv3': 'conv3 4x16x16 8x8x8', 'stage3.block1_sep3': 'sep3 8x8x8 16x4x4', \
'classifier': 'classifier 16 10'}
    """
    if not isinstance(model, StagedNetwork):
        raise TypeError(f"model must be a StagedNetwork, got {type(model).__name__}")
    if image.ndim != 4 or len(image) != 1:  # blocks of one kind take the same time for one image
        raise ValueError(f"image must have shape (1, 3, H, W), got {tuple(image.shape)}")
    found: dict[str, tuple] = {}

    def watch(name: str) -> Callable:
        def note(block: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            kind = name.rpartition("_")[2], *map(_shape, (inputs[0], output))
            found[name] = (" ".join(dict.fromkeys(kind)), block, inputs[0])

        return note

    hooks = [block.register_forward_hook(watch(name)) for name, block in _blocks(model)]
    try:
        with eval_mode(model), torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class LatencyTable(Mapping[str, float]):
    """Milliseconds of each kind of block, measured on this machine.

    Parameters
    ----------
    latencies_ms : mapping of str to float
        By ``kind``, see :func:`parts_of`. At least 0.

    Raises
    ------
    TypeError, ValueError
        If a time is no finite number, or negative.

    References
    ----------
    Cai, Zhu and Han, 2019. ProxylessNAS: direct neural architecture search on target task and
    hardware, section 3.3. Wu et al., 2019. FBNet: hardware-aware efficient ConvNet design via
    differentiable neural architecture search, section 3.

    Examples
    --------
    >>> from rac_helpers.nas import build
    >>> image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    >>> one, two = build((0, 0, 0, 0, 0), seed=0), build((0, 0, 0, 0, 1), seed=0)
    >>> table = LatencyTable.measure([one, two], image, runs=3)
    >>> len(table), table.estimate_ms(one, image) < table.estimate_ms(two, image)
    (8, True)
    """

    def __init__(self, latencies_ms: Mapping[str, float]) -> None:
        self._latencies_ms = {
            kind: check_number(f"latencies_ms[{kind!r}]", value, low=0)
            for kind, value in latencies_ms.items()
        }

    def __getitem__(self, kind: str) -> float:
        return self._latencies_ms[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._latencies_ms)

    def __len__(self) -> int:
        return len(self._latencies_ms)

    @classmethod
    def measure(
        cls, models: Iterable[StagedNetwork], image: torch.Tensor, *, runs: int = 30
    ) -> LatencyTable:
        """Measure each kind of block that occurs in the networks, once.

        Parameters
        ----------
        models : iterable of StagedNetwork
            Together they should have every block of the space.
        image : torch.Tensor
            Input of the networks, ``(1, 3, H, W)``.
        runs : int
            The median of so many runs counts, at least 1.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        check_int("runs", runs, low=1)
        table: dict[str, float] = {}
        for model in models:
            for kind, block, example in parts_of(model, image).values():
                if kind not in table:
                    table[kind] = metrics.latency_ms(block, example, runs=runs).median_ms
        return cls(table)

    def estimate_ms(self, model: StagedNetwork, image: torch.Tensor) -> float:
        """Return the sum over the blocks of a network; it is not run for that but to see shapes.

        Raises
        ------
        ValueError
            If the network has a kind of block that was not measured.
        """
        kinds = [kind for kind, *_ in parts_of(model, image).values()]
        if missing := sorted(set(kinds) - self.keys()):
            raise ValueError(f"the table must have every block of the model, {missing[0]!r} is new")
        return sum(self[kind] for kind in kinds)


def _blocks(model: StagedNetwork) -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        if not name.startswith("stage"):
            yield name, child
            continue
        for inner, block in child.named_children():
            if not isinstance(block, nn.Identity):
                yield f"{name}.{inner}", block


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:]))
