"""A whole experiment on a few digits, for the tests of each."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from experiments import common
from rac_helpers import data
from rac_helpers.data import synth_digits

TINY = ("--data", "synth_digits", "--num-train", "60", "--epochs", "1", "--tune-epochs", "1")


def run(experiment: ModuleType, folder: Path) -> Path:
    """Run it with one seed; journal, checkpoints and record stand in the folder."""
    record = folder / "record.json"
    work = str(folder / "work")
    experiment.main([*TINY, "--seeds", "1", "--work", work, "--record", str(record)])
    return record


@contextlib.contextmanager
def few_digits(num_tests: int) -> Iterator[pytest.MonkeyPatch]:
    """Let experiments see few digits, also for validation and test; yields a patch for more."""

    def few(num_train, **_):
        return synth_digits(num_train, num_tests, num_tests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "synth_digits", few)
        common.load_dataset.cache_clear()
        yield patch
    common.load_dataset.cache_clear()


def settings_of(experiment: ModuleType, work: Path) -> common.Settings:
    """Return the settings of such a run."""
    name = experiment.__name__.rpartition(".")[2]
    options = common.parse(
        [*TINY, "--work", str(work)], name=name, presets=experiment.PRESETS, description=""
    )
    return common.settings_of(options, experiment.PRESETS)
