"""One progress bar for all long work: on for people, off for builds, tests and files."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm


def progress_bar(*, total: int, desc: str, progress: bool | None = None) -> tqdm:
    """Return a tqdm bar that writes to stderr, or one that writes nothing.

    Parameters
    ----------
    total : int
        Steps until done.
    desc : str
        Words in front of the bar.
    progress : bool or None
        ``None`` means: on in a terminal or a notebook, off while the book is built
        (``RAC_STATIC_BUILD=1``), on a CI machine (``CI``) and when stderr goes to a file.

    Examples
    --------
    >>> with progress_bar(total=2, desc="work", progress=False) as bar:
    ...     _ = bar.update()
    """
    return tqdm(total=total, desc=desc, disable=not _wanted(progress), dynamic_ncols=True)


def _wanted(progress: bool | None) -> bool:
    if progress is not None:
        return bool(progress)
    if os.environ.get("RAC_STATIC_BUILD") or os.environ.get("CI"):
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()
