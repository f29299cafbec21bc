"""The file that lets a killed training go on."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rac_helpers.records import check_writable, write_atomically

History = list[dict[str, float]]
State = dict[str, torch.Tensor]
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """State of a training in a file, tied to the settings it was made with.

    Parameters
    ----------
    path : path or None
        ``None`` stores nothing.
    settings : dict of str to str or number
        Compared with those in the file.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike | None, settings: dict[str, Any]) -> None:
        self.path = None if path is None else check_writable("checkpoint", path)
        self.settings = settings

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: History,
        best: State | None,
    ) -> None:
        """Replace the file by the present state; a kill in between leaves the old file."""
        if self.path is None:
            return
        content = {
            "settings": self.settings,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
            "best": best,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        write_atomically(self.path, hashlib.sha256(data).digest() + data)

    def resume(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[History, State | None]:
        """Put the stored state into model and optimizer; return the history and the best weights.

        Raises
        ------
        ValueError
            If the file is damaged or belongs to other settings.
        """
        if self.path is None or not self.path.exists():
            return [], None
        content = _read(self.path)
        self._compare(content["settings"])
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return content["history"], content["best"]

    def _compare(self, stored: dict[str, Any]) -> None:
        names = [*self.settings, *(name for name in stored if name not in self.settings)]
        differing = [
            f"{name} was {stored.get(name)}, is {self.settings.get(name)}"
            for name in names
            if stored.get(name) != self.settings.get(name)
        ]
        if differing:
            raise ValueError(
                f"checkpoint {self.path} belongs to other settings: {'; '.join(differing)}; "
                "use these settings again or another file"
            )


def fingerprint(model: nn.Module, settings: dict[str, Any], **splits: Any) -> dict[str, Any]:
    """Return plain values that tell one training from another.

    Callables count by their ``repr`` without addresses, data by a hash of their content.

    Examples
    --------
    >>> split = (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    >>> fingerprint(nn.Linear(2, 3), {"lr": 0.1, "transform": len}, train=split)
    {'lr': 0.1, 'transform': '<built-in function len>', 'model': 'Linear ...', \
'train': '1 images ...'}
    """
    plain = {
        name: value
        if value is None or isinstance(value, int | float)
        else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
        for name, value in settings.items()
    }
    layout = {name: (tuple(value.shape), value.requires_grad) for name, value in _tensors(model)}
    plain["model"] = f"{type(model).__name__} {_hash(repr(layout).encode())}"
    for name, (images, labels) in splits.items():
        content = [tensor.cpu().contiguous().numpy() for tensor in (images, labels)]
        plain[name] = f"{len(labels)} images {_hash(repr(images.shape).encode(), *content)}"
    return plain


def _read(path: Path) -> dict[str, Any]:
    """Read the file and compare its digest: torch.load alone misses flipped bits in weights."""
    content = path.read_bytes()
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError(
            f"checkpoint {path} is damaged or was not written by fit; delete it to start anew"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _hash(*contents: Any) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:10]
