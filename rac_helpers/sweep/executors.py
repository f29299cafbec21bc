"""Where to run a sweep: here, in processes, or on a Dask cluster; options for the command line."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import Connection

import torch

from rac_helpers._check import check_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, ``--scheduler`` and ``--threads``, for :func:`open_executor`.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["--workers", "4"])
    Namespace(workers=4, scheduler=None, threads=None)
    """
    group = parser.add_argument_group("where to run")
    place = group.add_mutually_exclusive_group()
    place.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that run at the same time; 1 runs in this one (default: 1)",
    )
    place.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run on the Dask cluster with this scheduler, for example tcp://127.0.0.1:8786",
    )
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="PyTorch threads of each process here (default: the cores, shared among them)",
    )


@contextlib.contextmanager
def open_executor(options: argparse.Namespace) -> Iterator[Executor | None]:
    """Yield the executor that the options of :func:`add_arguments` ask for.

    Parameters
    ----------
    options : argparse.Namespace
        ``workers``: 0 or 1 runs in this process (the executor is ``None``), more in processes;
        ``scheduler``: address of a Dask scheduler, or ``None``; ``threads``: PyTorch threads of
        each process here. On a Dask cluster, whoever starts its workers chooses their threads
        (``OMP_NUM_THREADS``).

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or ``threads`` is given with a scheduler.
    ConnectionError, ModuleNotFoundError
        As :func:`scheduler`.

    Examples
    --------
    >>> from rac_helpers.sweep import sweep
    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> with open_executor(parser.parse_args([])) as executor:
    ...     print(list(sweep(len, [{"a": 1, "b": 2}], executor=executor)))
    [({'a': 1, 'b': 2}, 2)]
    """
    workers = check_int("workers", options.workers, low=0)
    if options.scheduler is not None:
        if options.threads is not None:
            raise ValueError("threads must be chosen where the workers of the cluster are started")
        with scheduler(options.scheduler) as executor:
            yield executor
    elif workers > 1:
        with processes(workers, threads=options.threads) as executor:
            yield executor
    else:
        with _threads(options.threads):
            yield None


@contextlib.contextmanager
def processes(workers: int, *, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor with fresh processes, which end with the ``with`` block.

    After an error in the block, or Ctrl-C, they are stopped at once; and they never outlive this
    process, even if it is killed. The block must stand under ``if __name__ == "__main__"`` in a
    script, since each process imports the script anew.

    Parameters
    ----------
    workers : int
        At least 1.
    threads : int, optional
        PyTorch threads of each, at least 1. ``None`` shares the cores among them.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> with processes(2) as executor:
    ...     executor.submit(max, 3, 4).result()
    4
    """
    check_int("workers", workers, low=1)
    threads = max(1, _num_cores() // workers) if threads is None else threads
    check_int("threads", threads, low=1)
    context = multiprocessing.get_context("spawn")  # the same on every system
    ours, theirs = context.Pipe()
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(theirs, threads)
    )
    try:
        yield executor
        executor.shutdown()
    finally:
        ours.close()
        theirs.close()
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def scheduler(address: str, *, timeout_s: float = 10) -> Iterator[Executor]:
    """Yield an executor that runs on the Dask cluster with the scheduler at ``address``.

    The workers need this package, and ``run`` must be importable there.

    Parameters
    ----------
    address : str
        For example ``"tcp://127.0.0.1:8786"``, as ``dask scheduler`` prints it.
    timeout_s : float
        How long to wait for an answer.

    Raises
    ------
    ModuleNotFoundError
        If the package ``distributed`` is not installed.
    ConnectionError
        If no scheduler answers.
    """
    try:
        from distributed import Client  # slow to import, and few need it
    except ModuleNotFoundError as error:
        message = "a Dask scheduler needs the package distributed: pip install distributed"
        raise ModuleNotFoundError(message) from error
    try:
        client = Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address!r} within {timeout_s} s: {error}"
        ) from error
    with client:
        yield client.get_executor(pure=False)  # pure would hand out old results


def _begin(lifeline: Connection, threads: int) -> None:
    """Begin as a worker: leave Ctrl-C to the parent, and end when its end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(threads)


def _end_with(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Set the PyTorch threads of this process for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else check_int("threads", threads, low=1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _num_cores() -> int:
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(usable(0))
