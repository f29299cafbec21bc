"""Files of stored models: safetensors with a description and a SHA-256 of all that is inside.

The description is one more tensor, ``about``: 32 bytes of SHA-256, then JSON with the format and,
for each stored layer, the form of its weight. So the file is exactly as long as
``metrics.size_bytes`` of the model says.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from rac_helpers._check import check_module
from rac_helpers.quantize.bits import pack_bits
from rac_helpers.quantize.decoding import STORED, blank_input
from rac_helpers.quantize.huffman import decode_huffman, encode_huffman
from rac_helpers.quantize.packed import FORMS
from rac_helpers.quantize.stored import (
    ABOUT,
    DIGEST_BYTES,
    FORMAT,
    describe,
    replace_layers,
    stored_layers,
)
from rac_helpers.records import write_atomically

State = dict[str, torch.Tensor]
_KINDS = {
    "packed.codes": "codes",
    "packed.scale": "scales",
    "packed.zero_point": "scales",
    "packed.values": "codebooks",
    "input_quantizer.scale": "scales",
    "input_quantizer.zero_point": "scales",
    "bias": "bias",
}


def save(model: nn.Module, path: str | os.PathLike, *, huffman: bool = False) -> int:
    """Write a stored model into a file that is either whole or not there.

    Parameters
    ----------
    model : nn.Module
        From :func:`store`.
    path : path
        An old file is replaced; the folder must exist.
    huffman : bool
        Store the codes of each layer as Huffman words where that is smaller.

    Returns
    -------
    int
        The size of the file in bytes; without ``huffman`` that is ``metrics.size_bytes(model)``.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is not from :func:`store`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from rac_helpers.metrics import size_bytes
    >>> from rac_helpers.quantize import symmetric_params
    >>> from rac_helpers.quantize.stored import store
    >>> model = nn.Sequential(nn.Linear(1000, 100))
    >>> small = store(model, {"0": symmetric_params(0.1, bits=4)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = save(small, Path(folder, "small.safetensors"))
    ...     loaded = load(Path(folder, "small.safetensors"), model)
    >>> written == size_bytes(small), torch.equal(loaded[0].weight, small[0].weight)
    (True, True)
    """
    check_module("model", model)
    if not stored_layers(model) or not hasattr(model, ABOUT):
        raise ValueError("model must be one from store(), got one without stored layers")
    state = _distinct(model.state_dict())
    about = describe(model)
    if huffman:
        about["huffman"] = _compress_(state, model)
    text = json.dumps(about, separators=(",", ":")).encode()
    state[ABOUT] = torch.frombuffer(bytearray(DIGEST_BYTES) + text, dtype=torch.uint8)
    state[ABOUT][:DIGEST_BYTES] = _digest(state)
    content = safetensors.torch.save(state)
    write_atomically(path, content)
    return len(content)


def load(path: str | os.PathLike, model: nn.Module) -> nn.Module:
    """Return the stored model in a file.

    Parameters
    ----------
    path : path
        Written by :func:`save`.
    model : nn.Module
        A float network of the same architecture, with batch norm folded if that was done. It is
        not changed; all its weights are replaced in the copy that is returned.

    Returns
    -------
    nn.Module
        In eval mode, on the CPU or wherever ``model`` is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If the file is damaged or of another format, or belongs to another network.

    Examples
    --------
    >>> load("nothing.safetensors", nn.Linear(2, 2))
    Traceback (most recent call last):
    FileNotFoundError: path must be a file written by save, got 'nothing.safetensors': no such file
    """
    check_module("model", model)
    if hasattr(model, ABOUT):
        raise ValueError("model must be a float network, got a stored one")
    state, about = _checked(_read(path), path)
    modules = dict(model.named_modules())
    layers = {}
    for name, entry in about["layers"].items():
        kind = next((kind for kind in STORED if isinstance(modules.get(name), kind)), None)
        if kind is None:
            raise _other(path, f"it has no Conv2d or Linear {name!r}")
        try:
            layers[name] = STORED[kind](modules[name], FORMS[entry["form"]].blank(entry))
        except ValueError as error:
            raise _other(path, f"{name}: {error}") from error
        layers[name].input_quantizer = blank_input(entry["input"])
    for name in about.get("huffman", []):
        codes = decode_huffman(state[_codes_of(name)].numpy().tobytes())
        state[_codes_of(name)] = pack_bits(codes, layers[name].packed.bits)
    return _filled(replace_layers(model, layers), state, path).eval()


def bytes_by_kind(path: str | os.PathLike) -> dict[str, int]:
    """Return where the bytes of a file go: they add up to its size.

    Parameters
    ----------
    path : path
        Written by :func:`save`, or any other safetensors file.

    Returns
    -------
    dict of str to int
        Of the stored layers ``codes``, ``scales`` (with zero points, also of inputs),
        ``codebooks`` and ``bias``; then ``description``, ``other`` (batch norm, float layers) and
        ``header`` (names, types and shapes).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is no safetensors file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "float.safetensors")
    ...     safetensors.torch.save_file({"bias": torch.zeros(10)}, path)
    ...     found = bytes_by_kind(path)
    >>> found["other"], found["header"]
    (40, 72)
    """
    content = _read(path)
    sizes = dict.fromkeys([*_KINDS.values(), "description", "other", "header"], 0)
    state = _parsed(content, path)
    layers = {name.removesuffix("packed.codes") for name in state if name.endswith("packed.codes")}
    own = {f"{layer}{ending}": kind for layer in layers for ending, kind in _KINDS.items()}
    own[ABOUT] = "description"
    for name, value in state.items():
        sizes[own.get(name, "other")] += value.nbytes
    sizes["header"] = len(content) - sum(sizes.values())
    return sizes


def _distinct(state: State) -> State:
    """Leave out tensors that are there under another name, as ``metrics.size_bytes`` does."""
    seen: set[Any] = set()
    distinct = {}
    for name, value in state.items():
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.stride())
        key = (place, value.shape, value.dtype)
        if value.numel() == 0 or key not in seen:
            distinct[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        seen.add(key)
    return distinct


def _compress_(state: State, model: nn.Module) -> list[str]:
    """Replace codes by Huffman words where that is smaller; return the names of these layers."""
    smaller = []
    for name, layer in stored_layers(model).items():
        words = encode_huffman(layer.packed.unpacked)
        if len(words) < layer.packed.codes.nbytes:
            state[_codes_of(name)] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
            smaller.append(name)
    return smaller


def _codes_of(name: str) -> str:
    return f"{name}.packed.codes" if name else "packed.codes"


def _digest(state: State) -> torch.Tensor:
    """SHA-256 of names, types, shapes and numbers of all but itself."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name][DIGEST_BYTES:] if name == ABOUT else state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _read(path: str | os.PathLike) -> bytes:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"path must be a file written by save, got {str(path)!r}: no such file"
        )
    return Path(path).read_bytes()


def _parsed(content: bytes, path: str | os.PathLike) -> State:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"path must be a whole safetensors file, got {str(path)!r}, damaged or of another "
            f"format: {error}"
        ) from error


def _checked(content: bytes, path: str | os.PathLike) -> tuple[State, dict[str, Any]]:
    """Return tensors and description, if the SHA-256 is right and the format is known."""
    state = _parsed(content, path)
    about = state.get(ABOUT)
    if about is None or about.dtype != torch.uint8 or about.numel() <= DIGEST_BYTES:
        raise ValueError(
            f"path must be a file written by save, got {str(path)!r}, which does not describe "
            "itself: damaged, or the weights of a float network"
        )
    if not torch.equal(about[:DIGEST_BYTES], _digest(state)):
        raise ValueError(f"path must be a whole file, got {str(path)!r}: its SHA-256 is wrong")
    text = json.loads(about[DIGEST_BYTES:].numpy().tobytes())
    if text.get("format") != FORMAT:
        raise ValueError(
            f"path must be a file of format {FORMAT!r}, got {str(path)!r} of format "
            f"{text.get('format')!r}"
        )
    return state, text


def _filled(model: nn.Module, state: State, path: str | os.PathLike) -> nn.Module:
    """Load the tensors into a model of the right kind, or say what does not fit."""
    own = _distinct(model.state_dict())
    if odd := sorted(own.keys() ^ state.keys()):
        raise _other(path, f"differing names: {', '.join(odd[:5])}")
    for name, value in own.items():
        same = (value.shape, value.dtype) == (state[name].shape, state[name].dtype)
        if name != ABOUT and not same:
            raise _other(
                path,
                f"{name} is {tuple(value.shape)}, {value.dtype} in the model and "
                f"{tuple(state[name].shape)}, {state[name].dtype} in the file",
            )
    del state[ABOUT]  # the model has its own, without a word on Huffman
    model.load_state_dict(state, strict=False)  # tied tensors are there under one name only
    return model


def _other(path: str | os.PathLike, reason: str) -> ValueError:
    return ValueError(f"model must be of the architecture in {str(path)!r}: {reason}")
