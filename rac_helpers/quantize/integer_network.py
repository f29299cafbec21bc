"""A whole network that computes with integers only.

``torch.fx`` lists the operations of a network, a few hundred images tell the range of each result,
and then each operation is written anew for codes. A ReLU costs nothing: it is the lower end of the
clamp of the operation before it. Max-pooling, slices and padding work on codes as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from rac_helpers._check import check_int, check_module
from rac_helpers.metrics.score import eval_mode
from rac_helpers.models import Normalize
from rac_helpers.quantize.integer import IntegerAdd, IntegerMean, IntegerTable
from rac_helpers.quantize.integer_layers import IntegerConv2d, IntegerLinear
from rac_helpers.quantize.operations import Ranges, list_operations
from rac_helpers.quantize.params import QParams, affine_params, symmetric_params

_LOGIT_BITS = 16  # with 8 bits two classes can get the same code
_LARGEST_BIAS = 2**30


def integer_network(
    model: nn.Module,
    images: torch.Tensor,
    *,
    bits: int = 8,
    weight_bits: int = 8,
    batch_size: int = 250,
) -> fx.GraphModule:
    """Return a network that takes uint8 images and computes with integers only.

    It can do what :class:`SmallCNN` and :class:`ResNet` are made of: ``Normalize``, convolution,
    linear layer, ReLU, addition, max-pooling, mean of each channel, slices, padding with zeros,
    flattening.

    Parameters
    ----------
    model : nn.Module
        Without batch norm, see :func:`fold_batch_norm`; begins with ``Normalize``. Used in eval
        mode, on the CPU.
    images : torch.Tensor
        uint8 ``(n, 3, H, W)``, a few hundred training images. Later ones must have the same
        H and W. Each result gets codes for its range on these.
    bits, weight_bits : int
        Of the results in [1, 16], of the weights in [2, 16]; the network's outputs always have 16.
    batch_size : int
        At least 1.

    Returns
    -------
    torch.fx.GraphModule
        Returns codes (int16); the attribute ``outputs`` holds their :class:`QParams` for
        :func:`dequantize`, and ``code`` the program as text. Its state are integers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the model does what cannot be done here.

    References
    ----------
    Jacob et al., 2018. Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, section 2.

    Examples
    --------
    >>> from rac_helpers.models import SmallCNN
    >>> from rac_helpers.quantize import dequantize
    >>> from rac_helpers.quantize.fold import fold_batch_norm
    >>> images = torch.arange(8 * 3 * 8 * 8).reshape(8, 3, 8, 8).to(torch.uint8)
    >>> folded = fold_batch_norm(SmallCNN(width=4), images)
    >>> network = integer_network(folded, images)
    >>> {value.dtype.is_floating_point for value in network.state_dict().values()}
    {False}
    >>> logits = dequantize(network(images), network.outputs)
    >>> bool((logits - folded(images)).abs().max() < 0.05)
    True
    """
    check_int("bits", bits, low=1, high=16)
    check_int("weight_bits", weight_bits, low=2, high=16)
    check_int("batch_size", batch_size, low=1)
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or not len(images):
        got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"images must be a tensor of uint8 with at least one image, got {got}")
    check_module("model", model)
    with eval_mode(model), torch.no_grad():
        ranges = Ranges(model, list_operations(model))
        for batch in images.split(batch_size):
            ranges.run(batch)
        return _Builder(ranges, bits, weight_bits).build()


class _Builder:
    """Write each operation anew: ``done`` holds the new operation and the codes of its result."""

    def __init__(self, ranges: Ranges, bits: int, weight_bits: int) -> None:
        self.ranges, self.bits, self.weight_bits = ranges, bits, weight_bits
        self.graph, self.modules = fx.Graph(), {}
        self.done: dict[fx.Node, tuple[fx.Node, QParams | None]] = {}

    def build(self) -> fx.GraphModule:
        for node in self.ranges.graph.nodes:
            if node not in self.done:  # a ReLU is done with the operation before it
                self.rule(node)(self, node)
        network = fx.GraphModule(self.modules, self.graph, class_name="IntegerNetwork")
        network.outputs = self.outputs
        return network.eval()

    def rule(self, node: fx.Node) -> Callable[[_Builder, fx.Node], None]:
        key = node.op if node.op in ("placeholder", "output") else node.target
        if node.op == "call_module":
            key = type(self.module(node))  # a subclass may do something else
        if key not in _RULES:
            _refuse(node, f"operations known here, got {getattr(key, '__name__', key)}")
        return _RULES[key]

    def module(self, node: fx.Node) -> nn.Module:
        return self.ranges.fetch_attr(node.target)

    def source(self, node: fx.Node) -> tuple[fx.Node, QParams]:
        """Return the codes that an operation works on."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node) or self.done[first][1] is None:
            _refuse(node, "codes to work on; the model must begin with Normalize")
        return self.done[first]

    def put(self, node: fx.Node, module: nn.Module, args: Iterable[fx.Node]) -> None:
        """Add ``module`` in place of ``node``, and of the ReLU after it."""
        self.modules[node.name] = module
        new = self.graph.create_node("call_module", node.name, tuple(args), name=node.name)
        for covered in self.covered(node):
            self.done[covered] = new, module.outputs

    def covered(self, node: fx.Node) -> list[fx.Node]:
        """Return ``node`` and what follows it directly and needs no operation of its own."""
        chain = [node]
        while len(chain[-1].users) == 1:
            after = next(iter(chain[-1].users))
            if not _has_key(self, after, _RELU + _NOTHING):
                break
            chain.append(after)
        return chain

    def params(self, node: fx.Node) -> QParams:
        """Return the codes of a result; with a ReLU they begin at 0.0, so the clamp is the ReLU."""
        end = self.covered(node)[-1]
        last = any(user.op == "output" for user in end.users)
        bits = _LOGIT_BITS if last else self.bits
        return affine_params(*self.ranges.ranges[end], bits, signed=last)

    def weight_params(self, layer: nn.Conv2d | nn.Linear, inputs: QParams) -> QParams:
        """Give each channel its scale, not so small that its bias has no int32."""
        bound = layer.weight.detach().abs().flatten(1).amax(dim=1)
        if layer.bias is not None:
            least = layer.bias.detach().abs() / (inputs.scale * _LARGEST_BIAS)
            bound = torch.maximum(bound, least * (2 ** (self.weight_bits - 1) - 1))
        return symmetric_params(bound, self.weight_bits, axis=0)


def _input(builder: _Builder, node: fx.Node) -> None:
    builder.done[node] = builder.graph.placeholder(node.target), None


def _output(builder: _Builder, node: fx.Node) -> None:
    new, builder.outputs = builder.source(node)
    builder.graph.output(new)


def _normalize(builder: _Builder, node: fx.Node) -> None:
    if node.args[0].op != "placeholder":
        _refuse(node, "Normalize at the input only")
    greys = builder.module(node)(torch.arange(256, dtype=torch.uint8))  # all there are
    if any(_has_key(builder, one, _RELU) for one in builder.covered(node)):
        greys = greys.relu()
    params = affine_params(greys.min(), greys.max(), builder.bits, signed=False)
    builder.put(node, IntegerTable(greys, params), [builder.done[node.args[0]][0]])


def _layer(builder: _Builder, node: fx.Node) -> None:
    layer, (new, inputs) = builder.module(node), builder.source(node)
    make = IntegerConv2d if isinstance(layer, nn.Conv2d) else IntegerLinear
    weights = builder.weight_params(layer, inputs)
    made = make(layer, inputs=inputs, weights=weights, outputs=builder.params(node))
    builder.put(node, made, [new])


def _add(builder: _Builder, node: fx.Node) -> None:
    if node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
        _refuse(node, "additions of two results only")
    pairs = [builder.done[arg] for arg in node.args]
    if None in (params for _, params in pairs):
        _refuse(node, "codes to add; the model must begin with Normalize")
    made = IntegerAdd(*(params for _, params in pairs), builder.params(node))
    builder.put(node, made, [new for new, _ in pairs])


def _mean(builder: _Builder, node: fx.Node) -> None:
    new, inputs = builder.source(node)
    shape = builder.ranges.shapes[node.args[0]]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if len(shape) != 4 or dim not in _PIXELS or "dtype" in node.kwargs:
        _refuse(node, "means over H and W only, dim=(2, 3)")
    if node.kwargs.get("keepdim") or len(node.args) > 2:
        _refuse(node, "means without keepdim")
    made = IntegerMean(inputs, builder.params(node), shape[2:].numel())
    builder.put(node, made, [new])


def _relu(builder: _Builder, node: fx.Node) -> None:
    """Clamp a result that is needed without ReLU, too."""
    new, params = builder.source(node)
    place = builder.module(node).__dict__ if node.op == "call_module" else node.kwargs
    if place.get("inplace"):
        _refuse(node, "no ReLU in place on a result that is used elsewhere, too")
    clamped = builder.graph.call_function(torch.clamp, (new, int(params.zero_point)))
    builder.done[node] = clamped, params


def _pad(builder: _Builder, node: fx.Node) -> None:
    new, params = builder.source(node)
    if node.kwargs.get("mode", "constant") != "constant" or node.kwargs.get("value"):
        _refuse(node, "padding with zeros only")
    args = (new, node.args[1], int(params.zero_point))  # the code of 0.0; F.pad makes it a float
    builder.done[node] = builder.graph.call_function(torch.constant_pad_nd, args), params


def _same(builder: _Builder, node: fx.Node) -> None:
    """Do with codes what was done with values: it moves or compares them only."""
    new, params = builder.source(node)
    if node.op == "call_module":
        builder.modules[node.name] = builder.module(node)
        copied = builder.graph.call_module(node.name, (new,))
    else:
        args = (new, *node.args[1:])
        copied = builder.graph.create_node(node.op, node.target, args, dict(node.kwargs))
    builder.done[node] = copied, params


def _skip(builder: _Builder, node: fx.Node) -> None:
    builder.done[node] = builder.source(node)


_PIXELS = ((2, 3), [2, 3], (-2, -1), [-2, -1])
_RELU = (nn.ReLU, F.relu, torch.relu, "relu")
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_RULES: dict[Any, Callable[[_Builder, fx.Node], None]] = {
    "placeholder": _input,
    "output": _output,
    Normalize: _normalize,
    **dict.fromkeys((nn.Conv2d, nn.Linear), _layer),
    **dict.fromkeys((operator.add, torch.add), _add),
    **dict.fromkeys(("mean", torch.mean), _mean),
    **dict.fromkeys(_RELU, _relu),
    F.pad: _pad,
    **dict.fromkeys((nn.MaxPool2d, nn.Flatten, F.max_pool2d, operator.getitem), _same),
    **dict.fromkeys((torch.flatten, "flatten"), _same),
    **dict.fromkeys(_NOTHING, _skip),
}


def _has_key(builder: _Builder, node: fx.Node, keys: tuple) -> bool:
    if node.op == "call_module":
        return type(builder.module(node)) in keys
    return node.target in keys


def _refuse(node: fx.Node, need: str) -> None:
    raise ValueError(f"model must have {need} (at {node.name!r})")
