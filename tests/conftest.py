"""What several test modules need."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def read_only_folder() -> Callable[[], contextlib.AbstractContextManager[Path]]:
    """Make a folder in which nothing can be written inside a ``with`` block."""
    if os.name == "nt":
        pytest.skip("Windows folders have no such permission")
    return _read_only_folder


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of PyTorch's threads back afterwards."""
    import torch  # here: the browser suite does without

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads: None) -> None:
    """Compute with one thread, so that sums come out the same in another process."""
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _read_only_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        try:
            with _ordinary_user():
                with pytest.raises(PermissionError):  # else the test would prove nothing
                    (folder / "probe").write_text("")
                yield folder
        finally:
            folder.chmod(0o755)
        assert os.listdir(folder) == []


@contextlib.contextmanager
def _ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so be somebody else for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
