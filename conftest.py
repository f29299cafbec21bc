"""Settings of all test suites; and what nbval compares: text outputs, nothing else."""

from __future__ import annotations

import os
from collections.abc import Container

import pytest
from hypothesis import settings

from tools.notebooks import is_text

# The same examples in every run, and no deadline: tests never time.
settings.register_profile("course", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("course")


class NotCompared:
    """The keys of an output that nbval passes over: its own list, and every type but text."""

    def __init__(self, passed_over: Container[str]) -> None:
        self.passed_over = passed_over

    def __contains__(self, key: str) -> bool:
        return key in self.passed_over or ("/" in key and not is_text(key))


def pytest_configure(config: pytest.Config) -> None:
    """Let the kernels under nbval know that nobody is watching: no progress bars."""
    if config.getoption("nbval", default=False):
        os.environ["RAC_STATIC_BUILD"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Committed notebooks hold text outputs only (tools/notebooks.py): compare just those."""
    notebooks = {item.parent for item in items if hasattr(item.parent, "skip_compare")}
    for notebook in notebooks:
        notebook.skip_compare = NotCompared(notebook.skip_compare)
