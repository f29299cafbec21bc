"""What may stand in a record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from rac_helpers._check import check_number

_HEADER = {"name": str, "command": str, "data": str, "hardware": str, "versions": dict}
_PATH = r"(?:~|/|\.\.[/\\]|[A-Za-z]:[/\\])"


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check that each value is plain, so that it reads back equal."""
    plain = {}
    for key, value in _items("config", config):
        if value is None or isinstance(value, str | bool):
            plain[key] = value
        else:
            plain[key] = _number(f"config[{key!r}]", value)
    return plain


def plain_numbers(name: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Check that each value is a finite number."""
    return {key: _number(f"{name}[{key!r}]", value) for key, value in _items(name, values)}


def _number(name: str, value: Any) -> int | float:
    check_number(name, value)
    return int(value) if isinstance(value, Integral) else float(value)


def _items(name: str, mapping: Any) -> list[tuple[str, Any]]:
    if not isinstance(mapping, Mapping) or not all(isinstance(key, str) for key in mapping):
        raise TypeError(f"{name} must be a dict with texts as keys, got {mapping!r}")
    return list(mapping.items())


def check_content(path: Path, content: Any) -> None:
    """Raise unless ``content``, read from ``path``, is that of a record."""
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no record: it holds {type(content).__name__}, not an object")
    for key, kind in (_HEADER | {"rows": list}).items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{path} is no record: {key!r} is missing or no {kind.__name__}")
    for number, row in enumerate(content["rows"]):
        if not isinstance(row, dict) or not {"config", "seed", "metrics"} <= row.keys():
            raise ValueError(f"{path} is damaged: row {number} lacks config, seed or metrics")


def refuse_constant(constant: str) -> None:
    """Raise: JSON knows no NaN and no infinity."""
    raise ValueError(f"{constant} is no number in JSON")


def without_paths(text: str) -> str:
    """Replace the paths of this machine by ``…``."""
    text = re.sub(rf"([\"']){_PATH}.*?\1", "…", text)
    return re.sub(rf"(^|[\s=]){_PATH}\S*", r"\1…", text)
