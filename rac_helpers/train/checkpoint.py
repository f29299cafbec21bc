"""The file that lets a killed training go on."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rac_helpers.records import check_writable, write_atomically
from rac_helpers.train.fingerprint import STARTING_WEIGHTS, fingerprint

History = list[dict[str, float]]
State = dict[str, torch.Tensor]
_DIGEST_BYTES = hashlib.sha256().digest_size
_KEYS = {"settings", "model", "optimizer", "history", "best"}
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError)


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

    @classmethod
    def of(
        cls,
        path: str | os.PathLike | None,
        model: nn.Module,
        settings: dict[str, Any],
        **splits: Any,
    ) -> Checkpoint:
        """Make a checkpoint for ``model`` as it is now; without a path nothing is hashed."""
        return cls(path, {} if path is None else fingerprint(model, settings, **splits))

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
            f"the {name} differ (build the model anew, with the same seed)"
            if name == STARTING_WEIGHTS
            else f"{name} was {stored.get(name)}, is {self.settings.get(name)}"
            for name in names
            if stored.get(name) != self.settings.get(name)
        ]
        if differing:
            raise ValueError(
                f"checkpoint {self.path} belongs to other settings: {'; '.join(differing)}; "
                "use these settings again or another file"
            )


def _read(path: Path) -> dict[str, Any]:
    """Read the file and compare its digest: torch.load alone misses flipped bits in weights."""
    content = path.read_bytes()
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    message = f"checkpoint {path} is damaged or was not written by fit; delete it to start anew"
    if hashlib.sha256(data).digest() != digest:
        raise ValueError(message)
    try:
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(message) from error
    if not isinstance(stored, dict) or stored.keys() != _KEYS:
        raise ValueError(message)
    return stored
