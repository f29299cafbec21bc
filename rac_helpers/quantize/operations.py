"""The operations of a network, one by one, as ``torch.fx`` lists them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from rac_helpers._check import check_module
from rac_helpers.models import Normalize

_WHOLE = (Normalize, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.modules.batchnorm._BatchNorm)


def list_operations(model: nn.Module) -> fx.Graph:
    """Return the graph of the operations of ``model``; calls of layers stay calls.

    Parameters
    ----------
    model : nn.Module
        In the mode (training or not) that is wanted.

    Raises
    ------
    ValueError
        If ``torch.fx`` cannot list them, because the forward pass asks for values on its way.

    Examples
    --------
    >>> graph = list_operations(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    >>> [node.name for node in graph.nodes]
    ['input_1', '_0', '_1', 'output']
    """
    check_module("model", model)
    tracer = _Tracer()
    try:
        return tracer.trace(model)
    except Exception as error:  # whatever the model's code does with a stand-in for a tensor
        raise ValueError(
            f"model must be one whose operations torch.fx can list, "
            f"got {type(model).__name__}, which stops it in {tracer.path}: {error}"
        ) from error


class _Tracer(fx.Tracer):
    """Keep layers whole, also those of subclasses; Normalize asks for its input's type."""

    path = "model"

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _WHOLE) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outer, self.path = self.path, f"{self.path_of_module(module)} ({type(module).__name__})"
        result = super().call_module(module, forward, args, kwargs)
        self.path = outer  # not restored after an error: then it says where that was
        return result


class Results(fx.Interpreter):
    """Run ``model`` operation by operation and keep every result in ``values``.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> results = Results(model, list_operations(model))
    >>> _ = results.run(torch.zeros(3, 2, 2))
    >>> {node.name: tuple(value.shape) for node, value in results.values.items()}
    {'input_1': (3, 2, 2), '_0': (3, 4), '_1': (3, 2), 'output': (3, 2)}
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run one operation."""
        self.values[node] = super().run_node(node)
        if isinstance(self.values[node], torch.Tensor):  # a later operation may work in place
            self.values[node] = self.values[node].clone()
        return self.values[node]


class Ranges(fx.Interpreter):
    """Run ``model`` operation by operation; note the ``shapes`` and ``ranges`` of the results.

    ``ranges`` holds the smallest and the largest value over all calls of ``run``, and 0.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> ranges = Ranges(model, list_operations(model))
    >>> _ = ranges.run(torch.tensor([[-1.0, 2.0]])), ranges.run(torch.tensor([[-3.0, 1.0]]))
    >>> {node.name: found for node, found in ranges.ranges.items() if node.op == "call_module"}
    {'_0': (-3.0, 2.0), '_1': (0.0, 2.0)}
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.ranges: dict[fx.Node, tuple[float, float]] = {}
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run one operation."""
        value = super().run_node(node)
        if isinstance(value, torch.Tensor):
            low, high = self.ranges.get(node, (0.0, 0.0))
            self.ranges[node] = min(low, float(value.min())), max(high, float(value.max()))
            self.shapes[node] = value.shape
        return value
