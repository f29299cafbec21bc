"""What each operation does to the channels: one rule for each kind.

A rule takes the walk through the network and an operation, and returns the numbers of the result's
channels (``wiring`` explains the numbers). On its way it ties numbers that can only be cut
together, and fixes those that cannot be cut.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, NoReturn

import torch
import torch.nn.functional as F
from torch import fx, nn

if TYPE_CHECKING:
    from rac_helpers.prune.wiring import Walk

Numbers = list[int] | None  # one for each channel (dimension 1); None: no tensor with channels
ALL = slice(None)

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Works on each channel alone and turns zeros into zeros: a channel that is cut stays silent.
QUIET_MODULES = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh)
QUIET_MODULES += (nn.Mish, nn.Hardswish, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
QUIET_MODULES += (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d)
QUIET_MODULES += (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.Upsample)
QUIET = {torch.relu, torch.tanh, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish}
QUIET |= {F.hardswish, F.dropout, F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d}
QUIET |= {F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
QUIET |= {F.interpolate, "relu", "relu_", "tanh", "contiguous", "clone", "detach"}
# Turns zeros into something else, or mixes channels: none of them may be cut.
LOUD_MODULES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.LogSoftmax, nn.LayerNorm, nn.GroupNorm)
LOUD = {torch.sigmoid, F.sigmoid, F.hardsigmoid, torch.softmax, F.softmax, F.log_softmax}
LOUD |= {torch.log_softmax, "sigmoid", "softmax", "log_softmax"}
SUMS = {operator.add, operator.iadd, torch.add, "add", "add_", operator.sub, torch.sub}
PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
MEANS = {torch.mean, torch.sum, torch.amax, "mean", "sum", "amax"}
RESHAPES = {torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze"}
SIZES = {getattr, "size", "dim"}


def follow(walk: Walk, node: fx.Node) -> Numbers:
    """Return the numbers of the channels that the operation ``node`` gives."""
    layer = walk.fetch_attr(node.target) if node.op == "call_module" else None
    if isinstance(layer, LAYERS):
        return _layer(walk, node, layer)
    if node.op == "output":
        return _fix_all(walk, node)
    if all(walk.is_fixed(source) for source in node.all_input_nodes):
        return walk.fixed_like(node)
    for rule, modules, functions in _RULES:
        if isinstance(layer, modules) if layer is not None else node.target in functions:
            return rule(walk, node)
    return _refuse(walk, node)


def _layer(walk: Walk, node: fx.Node, layer: nn.Module) -> Numbers:
    """Convolution or linear layer: reads all channels, gives new ones; depthwise: the same ones."""
    source = node.all_input_nodes[0]
    numbers, groups = walk.numbers[source], getattr(layer, "groups", 1)
    depthwise = groups > 1 and groups == layer.in_channels == layer.out_channels
    if groups > 1 and not depthwise:
        _refuse(walk, node, f": groups={groups}; only 1, or one for each channel, can be cut")
    if len(walk.shapes[node]) != layer.weight.ndim:
        _refuse(walk, node, f" with an input of shape {tuple(walk.shapes[source])}")
    result = numbers if depthwise else walk.fresh(layer.weight.shape[0])
    walk.place(walk.inputs, node.target, numbers)
    return walk.place(walk.outputs, node.target, result)


def _norm(walk: Walk, node: fx.Node) -> Numbers:
    """Batch norm: one scale and one shift for each channel."""
    if walk.fetch_attr(node.target).weight is None:
        _refuse(walk, node, ": with affine=False its output for a silent channel is not zero")
    return walk.place(walk.norms, node.target, _same(walk, node))


def _same(walk: Walk, node: fx.Node) -> Numbers:
    return walk.numbers[node.all_input_nodes[0]]


def _fix_all(walk: Walk, node: fx.Node) -> Numbers:
    for source in node.all_input_nodes:
        walk.fix(walk.numbers[source])
    return walk.fixed_like(node)


def _sum(walk: Walk, node: fx.Node) -> Numbers:
    """x + y ties channel by channel; x + 1 is not zero where x is, so x must stay."""
    return _combine(walk, node, zero_stays=False)


def _product(walk: Walk, node: fx.Node) -> Numbers:
    """x · y ties channel by channel; x · 2 is zero where x is."""
    return _combine(walk, node, zero_stays=True)


def _combine(walk: Walk, node: fx.Node, *, zero_stays: bool) -> Numbers:
    shape = walk.shapes[node]
    numbers, whole = walk.fresh(shape[1]), 0
    for source in node.all_input_nodes:
        found = walk.shapes[source]
        if found is not None and len(found) == len(shape) and found[1] == shape[1]:
            walk.tie(numbers, walk.numbers[source])
            whole += 1
        else:  # one number or one channel for all; or one for each, in a tensor of fewer dimensions
            walk.fix(walk.numbers[source])
            if found is not None and (*[1] * (len(shape) - len(found)), *found)[1] > 1:
                walk.fix(numbers)
    operands = {*node.args, *node.kwargs.values()} - {None}
    if not zero_stays and whole < len(operands):
        walk.fix(numbers)
    return numbers


def _mean(walk: Walk, node: fx.Node) -> Numbers:
    """Mean, sum or maximum over places of the picture, not over channels."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None) or (1,)
    rank = len(walk.shapes[node.all_input_nodes[0]])
    if any(dim % rank < 2 for dim in ([dims] if isinstance(dims, int) else dims)):
        _refuse(walk, node, " over the channels")
    return _same(walk, node)


def _reshape(walk: Walk, node: fx.Node) -> Numbers:
    """Change the picture's shape, or flatten: all places of channel 0, of channel 1, ..."""
    before, after = walk.shapes[node.all_input_nodes[0]], walk.shapes[node]
    if after[:2] == before[:2]:
        return _same(walk, node)
    if after != (before[0], math.prod(before[1:])):
        _refuse(walk, node, f" from shape {tuple(before)} to {tuple(after)}")
    places = math.prod(before[2:])
    return [number for number in _same(walk, node) for _ in range(places)]


def _slice(walk: Walk, node: fx.Node) -> Numbers:
    """x[:, :, ...]: any places, but all pictures and all channels."""
    index = node.args[1]
    if not isinstance(index, tuple) or index[:2] != (ALL, ALL) or None in index[2:]:
        _refuse(walk, node, " that takes some of the channels")
    return _same(walk, node)


def _pad(walk: Walk, node: fx.Node) -> Numbers:
    """Add places of zeros, or channels of zeros: these get numbers, too."""
    amounts, rank = list(node.args[1]), len(walk.shapes[node])
    amounts += [0] * (2 * rank - len(amounts))  # pairs, from the last dimension to the first
    *_, before, after, first, last = amounts
    mode, value = node.kwargs.get("mode", "constant"), node.kwargs.get("value")
    if len(node.args) > 2 or (mode == "constant" and value) or first or last:
        _refuse(walk, node, " with something other than zeros, or of the batch")
    if before == after == 0:
        return _same(walk, node)
    if mode != "constant" or min(before, after) < 0:
        _refuse(walk, node, " that takes channels away, or repeats them")
    start, end = walk.fresh(before), walk.fresh(after)
    walk.pads.append((node, 2 * (rank - 2), start, end))
    return [*start, *_same(walk, node), *end]


def _join(walk: Walk, node: fx.Node) -> Numbers:
    """Put the channels of several tensors one after the other."""
    sources, dim = (*node.args, *node.kwargs.values(), 0)[:2]
    if dim % len(walk.shapes[node]) != 1:
        _refuse(walk, node, " along another dimension than the channels")
    return [number for source in sources for number in walk.numbers[source]]


def _size(walk: Walk, node: fx.Node) -> Numbers:
    """x.shape, x.dtype: no channels any more."""
    return None if walk.shapes[node] is None else _refuse(walk, node)


def _refuse(walk: Walk, node: fx.Node, why: str = "") -> NoReturn:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if node.op == "call_module":
        name = f"{name} ({type(walk.fetch_attr(node.target)).__name__})"
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    where = f" in module {stack[-1]!r}" if stack and node.op != "call_module" else ""
    raise ValueError(
        f"model must be made of operations that can be followed channel by channel, "
        f"got {name}{where}{why}"
    )


_RULES = (
    (_norm, NORMS, set()),
    (_same, QUIET_MODULES, QUIET),
    (_fix_all, LOUD_MODULES, LOUD),
    (_reshape, (nn.Flatten,), RESHAPES),
    (_sum, (), SUMS),
    (_product, (), PRODUCTS),
    (_mean, (), MEANS),
    (_slice, (), {operator.getitem}),
    (_pad, (), {F.pad}),
    (_join, (), {torch.cat, torch.concat}),
    (_size, (), SIZES),
)
