"""Trained networks that come with the course, so that a chapter can start from one at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from rac_helpers.models.networks import SmallCNN, resnet20, resnet56

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
ARCHITECTURES = {"small_cnn": SmallCNN, "resnet20": resnet20, "resnet56": resnet56}


def catalogue() -> pd.DataFrame:
    """Return a table of the shipped weights: what they are, how they score, how to retrain them.

    Returns
    -------
    pandas.DataFrame
        One row a network; scores are fractions of the test images.

    Raises
    ------
    FileNotFoundError, ValueError
        If the catalogue is missing or damaged.

    Examples
    --------
    >>> "small_cnn-synth_digits" in catalogue().index
    True
    """
    import pandas as pd  # only needed here

    rows = {
        name: {
            "architecture": entry["architecture"],
            "data": entry["data"],
            "test accuracy": entry["scores"]["test_accuracy"],
            "mean over seeds": entry["scores"]["test_accuracy_mean"],
            "standard deviation": entry["scores"]["test_accuracy_std"],
            "seeds": entry["scores"]["num_seeds"],
            "size (bytes)": entry["size_bytes"],
            "command": entry["command"],
        }
        for name, entry in _read_catalogue().items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("network", axis="columns")  # a named index makes a second header row


def load_weights(name: str) -> nn.Module:
    """Return a trained network in eval mode, from the files that come with the course.

    Parameters
    ----------
    name : str
        A row of :func:`catalogue`, such as ``"small_cnn-synth_digits"``.

    Returns
    -------
    torch.nn.Module
        In eval mode.

    Raises
    ------
    ValueError
        If there is no such name, or the file is not the one in the catalogue (SHA-256).
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> model = load_weights("small_cnn-synth_digits")
    >>> model.training
    False
    """
    from safetensors.torch import load

    entries = _read_catalogue()
    if name not in entries:
        raise ValueError(f"name must be one of {sorted(entries)}, got {name!r}")
    entry = entries[name]
    model = ARCHITECTURES[entry["architecture"]](**entry["arguments"])
    model.load_state_dict(load(_verified_bytes(WEIGHTS_FOLDER / entry["file"], entry["sha256"])))
    return model.eval()


def _verified_bytes(file: Path, sha256: str) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"missing file of weights {str(file)!r}; reinstall rac_helpers")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"damaged file of weights {str(file)!r}: its SHA-256 must be {sha256}, got {found}"
        )
    return content


def _read_catalogue() -> dict[str, dict]:
    file = WEIGHTS_FOLDER / "catalogue.json"
    if not file.is_file():
        raise FileNotFoundError(f"missing catalogue of weights {str(file)!r}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"damaged catalogue of weights {str(file)!r}: {error}") from error
