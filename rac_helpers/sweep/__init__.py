"""Run a list of configurations, each once: here, in processes or on a Dask cluster.

Every sweep of the course goes through :func:`sweep`. A journal keeps what is finished, so that a
sweep that was killed goes on where it stopped.
"""

from rac_helpers.sweep.executors import add_arguments, open_executor, processes, scheduler
from rac_helpers.sweep.loop import sweep

__all__ = ["add_arguments", "open_executor", "processes", "scheduler", "sweep"]
