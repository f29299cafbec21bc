"""What has to be stored of a whole pruned model, so that its size can be stated honestly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from rac_helpers.prune.weights import prunable

Encode = Callable[[torch.Tensor], bytes]
Decode = Callable[[bytes, tuple[int, ...]], torch.Tensor]


def pack(model: nn.Module, encode: Encode) -> dict[str, torch.Tensor]:
    """Return what has to be stored of a model, its prunable weights encoded.

    Parameters
    ----------
    model : nn.Module
        See :func:`prunable`.
    encode : callable
        Such as :func:`encode_bitmap`.

    Returns
    -------
    dict of str to torch.Tensor
        The ``state_dict`` with the bytes of each encoded weight as a uint8 tensor, for
        ``metrics.size_bytes`` or a safetensors file.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable` and ``encode``.

    Examples
    --------
    >>> from rac_helpers.prune import encode_bitmap
    >>> layer = nn.Linear(100, 1)
    >>> _ = layer.weight.data[0, 10:].zero_()
    >>> {name: value.numel() for name, value in pack(layer, encode_bitmap).items()}  # 13 + 40
    {'weight': 53, 'bias': 1}
    """
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, weight in prunable(model).items():
        state[name] = torch.frombuffer(bytearray(encode(weight)), dtype=torch.uint8)
    return state


def unpack_(model: nn.Module, packed: Mapping[str, torch.Tensor], decode: Decode) -> None:
    """Load into a model what :func:`pack` stored; if it does not fit, nothing is changed.

    Parameters
    ----------
    model : nn.Module
        Of the same architecture.
    packed : mapping of str to torch.Tensor
        From :func:`pack`.
    decode : callable
        The counterpart of the ``encode`` that was used, such as :func:`decode_bitmap`.

    Raises
    ------
    ValueError
        If names, shapes or bytes do not fit the model.

    Examples
    --------
    >>> from rac_helpers.prune import decode_csr, encode_csr
    >>> layer, other = nn.Linear(4, 1), nn.Linear(4, 1)
    >>> unpack_(other, pack(layer, encode_csr), decode_csr)
    >>> torch.equal(layer.weight, other.weight)
    True
    """
    own = model.state_dict()
    if packed.keys() != own.keys():
        odd = sorted(packed.keys() ^ own.keys())
        raise ValueError(f"packed must have the names of the model's state, differing: {odd}")
    state = dict(packed)
    for name, weight in prunable(model).items():
        state[name] = decode(state[name].cpu().numpy().tobytes(), tuple(weight.shape))
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"packed[{name!r}] must have the shape {tuple(own[name].shape)}, "
                f"got {tuple(value.shape)}"
            )
    model.load_state_dict(state)
