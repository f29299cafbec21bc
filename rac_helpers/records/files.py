"""Files that are whole or not there, and places that can be written."""

from __future__ import annotations

import os
from pathlib import Path


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
        write_atomically(path.with_name(f".{path.name}.probe"), b"")
        path.with_name(f".{path.name}.probe").unlink()
    except OSError as error:
        raise OSError(f"{name} must be a file that can be written, got {path}: {error}") from error
    return path
