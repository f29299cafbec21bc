"""Short texts that tell one training from another, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

STARTING_WEIGHTS = "starting weights"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LONGEST = 60


def fingerprint(model: nn.Module, settings: Mapping[str, Any], **splits: Any) -> dict[str, Any]:
    """Return plain values that tell one training from another.

    Settings count as :func:`describe` puts them; model and data by their shapes and a hash of
    their content.

    Examples
    --------
    >>> split = (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    >>> fingerprint(nn.Linear(2, 3), {"lr": 0.1, "transform": len}, train=split)
    {'lr': 0.1, 'transform': '<built-in function len>', 'model': 'Linear ...', \
'starting weights': '...', 'train': '1 images ...'}
    """
    plain = {
        name: value if value is None or isinstance(value, int | float) else describe(value)
        for name, value in settings.items()
    }
    tensors = [*model.named_parameters(), *model.named_buffers()]
    layout = {name: (tuple(value.shape), value.requires_grad) for name, value in tensors}
    plain["model"] = f"{type(model).__name__} {_hash(repr(layout))}"
    plain[STARTING_WEIGHTS] = _hash(*_state(model))
    for name, (images, labels) in splits.items():
        plain[name] = f"{len(labels)} images {_hash(*_tensor(images), *_tensor(labels))}"
    return plain


def describe(value: Any, _inside: tuple[int, ...] = ()) -> str:
    """Return a text that is equal for values that do the same, as far as can be seen.

    Functions count by their code, their defaults and the variables they close over, tensors by a
    hash of their numbers, modules by that of their ``state_dict`` and their plain attributes,
    plain values by their ``repr``, other callable objects by their attributes, too, anything else
    by its type and its ``repr`` without addresses. What a function reads from global variables is
    not seen.

    Examples
    --------
    >>> def make_power(n):
    ...     return lambda x: x**n
    >>> describe(make_power(2))
    '<function make_power.<locals>.<lambda>> ... (n=2)'
    >>> describe(make_power(2)) == describe(make_power(2)), describe(make_power(2)) == describe(
    ...     make_power(3)
    ... )
    (True, False)
    """
    if isinstance(value, _PLAIN):
        return _short(repr(value))
    if id(value) in _inside:  # for example a function that calls itself
        return "…"
    inside = (*_inside, id(value))
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__} {_hash(*_tensor(value))}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array {_hash(f'{value.dtype} {value.shape}', value.tobytes())}"
    if isinstance(value, nn.Module):
        layers = [_without_addresses(value), *map(_plain_attributes, value.modules())]
        return f"{type(value).__name__} {_hash(*layers, *_state(value))}"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _short(_container(value, inside))
    return _callable(value, inside) if callable(value) else _other(value)


def _container(value: Any, inside: tuple[int, ...]) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"{kind}({_pairs({str(key): item for key, item in value.items()}, inside)})"
    texts = [describe(item, inside) for item in value]
    if isinstance(value, set | frozenset):  # their order differs between processes
        texts.sort()
    return f"{kind}({', '.join(texts)})"


def _callable(value: Any, inside: tuple[int, ...]) -> str:
    """A function, a method, a ``partial``, a class, or an object with ``__call__``."""
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, types.MethodType):
        return f"{_function(value.__func__, inside)} of {describe(value.__self__, inside)}"
    if isinstance(value, functools.partial):
        given = {"func": value.func, "args": value.args} | value.keywords
        return f"partial({_pairs(given, inside)})"
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return _without_addresses(value)
    content = {"__call__": type(value).__call__} | vars(value)
    return f"{_other(value)} ({_pairs(content, inside)})"


def _function(value: types.FunctionType, inside: tuple[int, ...]) -> str:
    names, cells = value.__code__.co_freevars, value.__closure__ or ()
    content = {name: _content(cell) for name, cell in zip(names, cells, strict=True)}
    if value.__defaults__ or value.__kwdefaults__:
        content |= {"defaults": (value.__defaults__, value.__kwdefaults__)}
    text = f"{_without_addresses(value)} {_code(value.__code__, inside)}"
    return f"{text} ({_pairs(content, inside)})" if content else text


def _code(code: types.CodeType, inside: tuple[int, ...]) -> str:
    constants = [
        _code(one, inside) if isinstance(one, types.CodeType) else describe(one, inside)
        for one in code.co_consts
    ]
    return _hash(code.co_code, repr(code.co_names), repr(constants))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _pairs(content: Mapping[str, Any], inside: tuple[int, ...]) -> str:
    return ", ".join(f"{name}={describe(value, inside)}" for name, value in content.items())


def _other(value: Any) -> str:
    text = _without_addresses(value)
    name = type(value).__name__
    return text if name in text else f"{name} {text}"


def _without_addresses(value: Any) -> str:
    return _short(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… {_hash(text)}"


def _state(model: nn.Module) -> list[Any]:
    """Everything in the ``state_dict``, ready for the hash."""
    parts: list[Any] = []
    for name, value in model.state_dict().items():
        parts += [name, *(_tensor(value) if isinstance(value, torch.Tensor) else [describe(value)])]
    return parts


def _plain_attributes(layer: nn.Module) -> str:
    """For example the temperature of a loss; whether the layer trains does not count."""
    content = {name: value for name, value in vars(layer).items() if isinstance(value, _PLAIN)}
    return repr({name: content[name] for name in sorted(content) if name != "training"})


def _tensor(value: torch.Tensor) -> list[Any]:
    if value.layout != torch.strided or value.is_quantized:
        return [_without_addresses(value)]
    bytes_ = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return [f"{value.dtype} {tuple(value.shape)}", bytes_.numpy()]


def _hash(*contents: Any) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content.encode() if isinstance(content, str) else content)
        digest.update(b"\0")
    return digest.hexdigest()[:10]
