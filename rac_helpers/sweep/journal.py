"""The journal of a sweep: a file of JSON lines, one finished configuration a line.

The first line names the sweep; each other one is ``{"config": {...}, "result": ...}``. Lines are
only ever added at the end, so a kill can cut the last one in half and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

from rac_helpers._check import check_number
from rac_helpers.records.content import plain_config, refuse_constant
from rac_helpers.records.files import check_writable

_FORMAT = 1
_FAR_AWAY = 2**30  # Windows locks bytes, not files: one behind the end is in nobody's way


class Journal:
    """What is finished: ``results`` maps the keys of configurations to their results."""

    def __init__(self, file: BinaryIO | None, results: dict[str, Any]) -> None:
        self._file, self.results = file, results

    def append(self, key: str, result: str) -> None:
        """Write one line, and return when it is on the disk."""
        if self._file is None:
            return
        try:
            _write(self._file, f'{{"config": {key}, "result": {result}}}\n'.encode())
        except OSError:
            self._file = None  # nothing may follow half a line
            raise


@contextlib.contextmanager
def open_journal(path: str | os.PathLike | None, name: str) -> Iterator[Journal]:
    """Open the journal of the sweep ``name``, or start one; ``None`` keeps nothing.

    Raises
    ------
    OSError
        If it cannot be written, or another process writes to it.
    ValueError
        If it belongs to another sweep or is damaged.
    """
    if path is None:
        yield Journal(None, {})
        return
    path = check_writable("journal", path)
    with open(path, "a+b", buffering=0) as file:
        _lock(file, path)
        yield Journal(file, _read(file, path, name))


def key_of(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for equal configurations: JSON with sorted names.

    Examples
    --------
    >>> key_of({"seed": 0, "arm": "none"})
    '{"arm": "none", "seed": 0}'
    """
    return json.dumps(config, sort_keys=True, allow_nan=False)


def to_json(name: str, value: Any) -> str:
    """Return ``value`` as JSON on one line; numbers of numpy become plain ones, tuples lists.

    Examples
    --------
    >>> to_json("result", {"loss": (0.5, float("nan"))})
    Traceback (most recent call last):
    ValueError: result['loss'][1] must be a finite number, got nan
    """
    return json.dumps(_plain(name, value), allow_nan=False)


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Real):
        check_number(name, value)
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{place}]", item) for place, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{name}[{key!r}]", item) for key, item in value.items()}
    got = "a dict with other keys" if isinstance(value, Mapping) else type(value).__name__
    raise TypeError(
        f"{name} must be a text, a finite number, a bool, None, or a list or dict (texts as keys) "
        f"of them, got {got}"
    )


def _read(file: BinaryIO, path: Path, name: str) -> dict[str, Any]:
    """Check the header, drop half a line at the end, and return the results."""
    header = json.dumps({"sweep": name, "format": _FORMAT}).encode() + b"\n"
    file.seek(0)
    content = file.read()
    if header.startswith(content):  # empty, or killed while the header was written
        file.truncate(0)
        _write(file, header)
        return {}
    if not content.startswith(header):
        raise ValueError(_foreign(path, content, name))
    *lines, tail = content[len(header) :].split(b"\n")
    results = {}
    for number, line in enumerate(lines, start=2):
        try:
            key, result = _parse(line)
        except (ValueError, TypeError) as error:
            message = f"{path}, line {number} is damaged ({error}); delete this line to repeat it"
            raise ValueError(message) from error
        results.setdefault(key, result)
    if tail:  # no newline at the end: a kill came in between
        file.truncate(len(content) - len(tail))
    return results


def _parse(line: bytes) -> tuple[str, Any]:
    row = json.loads(line, parse_constant=refuse_constant)
    if not isinstance(row, dict) or row.keys() != {"config", "result"}:
        raise ValueError("it must hold config and result")
    return key_of(plain_config(row["config"])), row["result"]


def _foreign(path: Path, content: bytes, name: str) -> str:
    try:
        other = json.loads(content.partition(b"\n")[0])["sweep"]
    except (ValueError, TypeError, KeyError, IndexError):
        return f"{path} is no journal of a sweep; nothing was changed, choose another file"
    if other == name:
        return f"{path} is a journal in another format than {_FORMAT}; choose another file"
    return f"{path} is the journal of the sweep {other!r}, not of {name!r}; choose another file"


def _write(file: BinaryIO, line: bytes) -> None:
    """Add a line with one call of the system, so that it cannot mix with others."""
    written = file.write(line)
    if written != len(line):
        raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written")
    os.fsync(file.fileno())


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes out. The system gives the lock back, however this process ends."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(_FAR_AWAY)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not flock: forked workers would inherit it and keep it after a kill.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return  # some network drives know no locks
        message = f"journal {path} is in use by another process; wait, or choose another file"
        raise OSError(message) from error
