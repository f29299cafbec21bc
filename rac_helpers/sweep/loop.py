"""One loop for every sweep: hand out configurations, keep what comes back."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from itertools import islice
from typing import Any, NoReturn

from rac_helpers._progress import progress_bar
from rac_helpers.records.content import plain_config
from rac_helpers.sweep.journal import Journal, key_of, open_journal, to_json

_LOOK_S = 2  # how often to look for workers that joined a cluster


def sweep(
    run: Callable[[dict[str, Any]], Any],
    configs: Iterable[Mapping[str, Any]],
    *,
    journal: str | os.PathLike | None = None,
    executor: Executor | None = None,
    desc: str = "sweep",
    progress: bool | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Call ``run`` with each configuration and yield both as each finishes.

    Whatever the executor, results are yielded as they come back from JSON, fresh ones and those
    of the journal alike: tuples become lists, numbers of numpy plain ones. Random numbers belong
    to the configuration (a seed), never to the order in which runs happen to start.

    Parameters
    ----------
    run : callable
        ``run(config)`` takes a dict and returns texts, finite numbers, bools, ``None``, lists and
        dicts (texts as keys) of them. For processes it must be a function at the top of a module,
        or a ``functools.partial`` of one.
    configs : iterable of mappings
        Texts as keys; values are texts, finite numbers, bools or ``None``. No two may be equal.
    journal : path, optional
        File of JSON lines that keeps what is finished. Each result is on the disk before it is
        yielded. Started again, a sweep yields first what the journal holds, in the order of
        ``configs``, then runs the others. The journal may hold other configurations, too, so a
        grid can be widened later. One process at a time may use it.
    executor : concurrent.futures.Executor, optional
        Where to run: threads, processes (:func:`processes`), a Dask cluster (:func:`scheduler`).
        ``None`` runs here, one after the other. It gets as many configurations at once as it has
        workers.
    desc : str
        Name of the sweep, in front of the progress bar and in the journal: a journal with another
        name is refused. Put into it what changes the results and is in no configuration, such as
        the data.
    progress : bool, optional
        A bar on stderr. ``None`` shows it in a terminal or a notebook, unless the environment
        variable ``RAC_STATIC_BUILD`` or ``CI`` is set.

    Yields
    ------
    config : dict
        The configuration.
    result : object
        What ``run`` returned.

    Raises
    ------
    TypeError, ValueError
        If a configuration is not plain or comes twice, if ``run`` cannot be sent to processes, or
        if the journal is damaged (the message names the line) or belongs to another sweep.
    OSError
        If the journal cannot be written or is in use. Found out before the first run.
    RuntimeError
        If a run fails; the message names its configuration. Runs that had begun before it finish
        and are kept and yielded first.

    Examples
    --------
    >>> def run(config):
    ...     return {"area": config["width"] * config["height"]}
    >>> for config, result in sweep(run, [{"width": w, "height": 2} for w in (1, 3)]):
    ...     print(config, result)
    {'width': 1, 'height': 2} {'area': 2}
    {'width': 3, 'height': 2} {'area': 6}
    """
    if not callable(run):
        raise TypeError(f"run must be callable, got {run!r}")
    if not isinstance(desc, str) or not desc:
        raise TypeError(f"desc must be a text that is not empty, got {desc!r}")
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor or None, got {executor!r}")
    if isinstance(executor, ProcessPoolExecutor):
        _check_importable(run)
    return _sweep(run, _keyed(configs), journal, executor, desc=desc, progress=progress)


def _sweep(
    run: Callable,
    todo: dict[str, dict],
    path: str | os.PathLike | None,
    executor: Executor | None,
    *,
    desc: str,
    progress: bool | None,
) -> Iterator[tuple[dict[str, Any], Any]]:
    with (
        open_journal(path, desc) as journal,
        progress_bar(total=len(todo), desc=desc, progress=progress) as bar,
    ):
        done = {key: journal.results[key] for key in todo if key in journal.results}
        bar.initial = bar.n = len(done)  # so that the time left is judged by new ones only
        bar.refresh()
        for key, result in done.items():
            yield todo.pop(key), result
        flying: dict[Future, str] = {}
        failed: dict[str, BaseException] = {}
        here = executor is None
        batches = _run_here(run, todo) if here else _fly(run, todo, executor, flying)
        try:
            for batch in batches:
                for key, text in _keep(batch, journal, failed).items():
                    bar.update()
                    yield todo[key], json.loads(text)
        finally:  # an error, Ctrl-C, or nobody asks for more
            _land(flying, journal)
        if failed:
            _raise(todo, failed)


def _run_here(run: Callable, todo: dict[str, dict]) -> Iterator[dict[Future, str]]:
    """Run one after the other and yield each; stop after an error."""
    for key, config in todo.items():
        future: Future = Future()
        try:
            future.set_result(_run_to_json(run, config))
        except Exception as error:  # named by the caller, like those of other executors
            future.set_exception(error)
        yield {future: key}
        if future.exception():
            return


def _fly(
    run: Callable, todo: dict[str, dict], executor: Executor, flying: dict[Future, str]
) -> Iterator[dict[Future, str]]:
    """Keep every worker busy and yield what is finished; after an error, start no more.

    ``flying`` always holds what was handed out and not yet yielded.
    """
    waiting, landed, healthy = iter(todo.items()), set(), True
    while True:
        if healthy:  # before the yield: workers do not wait for the one who reads the results
            free = max(0, _num_workers(executor) - len(flying) + len(landed))
            for key, config in islice(waiting, free):
                flying[executor.submit(_run_to_json, run, config)] = key
        if landed:
            yield {future: flying.pop(future) for future in list(flying) if future in landed}
        if not flying:
            return
        landed = wait(flying, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done
        healthy = healthy and not any(map(_error_of, landed))


def _keep(
    batch: dict[Future, str], journal: Journal, failed: dict[str, BaseException]
) -> dict[str, str]:
    """Write what went well into the journal and return it; note the rest in ``failed``."""
    kept = {}
    for future, key in batch.items():
        error = _error_of(future)
        if error is None:
            kept[key] = future.result()
            journal.append(key, kept[key])
        else:
            failed[key] = error
    return kept


def _land(flying: dict[Future, str], journal: Journal) -> None:
    """Cancel what has not begun; keep what has finished in the meantime."""
    for future in flying:
        future.cancel()
    done = {future: key for future, key in flying.items() if future.done()}
    _keep(done, journal, {})


def _run_to_json(run: Callable, config: dict[str, Any]) -> str:
    """What a worker does. A text comes back, so nothing odd has to travel."""
    return to_json("result", run(dict(config)))


def _error_of(future: Future) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by somebody else
        return error


def _num_workers(executor: Executor) -> int:
    """How many runs it does at once; executors have no public name for it."""
    client = getattr(executor, "_client", None)
    if client is not None:  # Dask: workers come and go
        return max(1, sum(client.nthreads().values()))
    return getattr(executor, "_max_workers", None) or os.cpu_count() or 1


def _raise(todo: dict[str, dict], failed: dict[str, BaseException]) -> NoReturn:
    (key, first), *others = failed.items()
    reason = f"{type(first).__name__}: {first}"
    if isinstance(first, BrokenExecutor):
        reason += "; it was killed, had no memory left, or could not import run (from a notebook?)"
    error = RuntimeError(f"the run with config {todo[key]} failed: {reason}")
    for other, its_error in others:
        error.add_note(f"also failed: config {todo[other]}: {its_error!r}")
    raise error from first


def _keyed(configs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Check the configurations and give each a text that tells it from others."""
    keyed: dict[str, dict[str, Any]] = {}
    for config in configs:
        plain = plain_config(config)
        key = key_of(plain)
        if key in keyed:
            raise ValueError(f"configs must differ from each other, got {plain} twice")
        keyed[key] = plain
    return keyed


def _check_importable(run: Callable) -> None:
    try:
        pickle.dumps(run)
    except Exception as error:  # pickle raises whatever the parts of an object raise
        raise TypeError(
            "run must be a function at the top of a module, or a functools.partial of one, to be "
            f"sent to other processes, got {run!r}: {error}"
        ) from error
