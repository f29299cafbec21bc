"""Files that are whole or not there, and places that can be written."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_STALE_S = 300
_PAUSE_S = 0.02


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new one, never half.

    Parameters
    ----------
    path : path
        The folder must exist.
    content : bytes
        The whole new content.

    Raises
    ------
    OSError
        If the file cannot be written. The old file is left as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "note.txt"), b"done")
    ...     print(Path(folder, "note.txt").read_text(), os.listdir(folder))
    done ['note.txt']
    """
    path = Path(path)
    temporary = _beside(path, "tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(name: str, path: str | os.PathLike) -> Path:
    """Return ``path`` if a file can be written there, and make its folder if it is missing.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    path : path
        File that is to be written later; it need not exist.

    Raises
    ------
    OSError
        If the file could not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable("checkpoint", folder)
    Traceback (most recent call last):
    OSError: checkpoint must be a file that can be written, got the folder ...
    """
    path = Path(path)
    if path.is_dir():
        raise OSError(f"{name} must be a file that can be written, got the folder {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(path, "probe")
        write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{name} must be a file that can be written, got {path}: {error}") from error
    return path


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, timeout_s: float = 30) -> Iterator[None]:
    """Keep other processes (and threads) that lock ``path`` out, inside a ``with`` block.

    Parameters
    ----------
    path : path
        The file to protect; it need not exist. The lock is a file beside it.
    timeout_s : float
        How long to wait for the others.

    Raises
    ------
    TimeoutError
        If the lock is not given back in time, or at once if a killed process left it minutes
        ago. The message names the lock file.
    OSError
        If the lock cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with locked(Path(folder, "run.json")):
    ...         print(os.listdir(folder))
    ...     print(os.listdir(folder))
    ['.run.json.lock']
    []
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    end = time.monotonic() + timeout_s
    while not _take(lock):
        age_s = _age_s(lock)
        if age_s > _STALE_S or time.monotonic() > end:
            raise TimeoutError(
                f"{path} is locked by {lock}, which is {age_s:.0f} s old; a process that was "
                "killed leaves it behind: if no other process writes, delete it and try again"
            )
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _take(lock: Path) -> bool:
    """Make the lock file, which only one can."""
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except PermissionError:
        if os.name == "nt" and lock.parent.is_dir():  # it is just being deleted
            return False
        raise
    return True


def _age_s(lock: Path) -> float:
    try:
        return time.time() - lock.stat().st_mtime
    except OSError:  # given back in the meantime
        return 0.0


def _beside(path: Path, ending: str) -> Path:
    """A name in the same folder that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{ending}")
