"""One record: a JSON file that grows one finished row at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rac_helpers._check import check_int
from rac_helpers.records.content import (
    check_content,
    plain_config,
    plain_numbers,
    refuse_constant,
    without_paths,
)
from rac_helpers.records.files import check_writable, locked, write_atomically
from rac_helpers.records.machine import hardware, versions

if TYPE_CHECKING:
    import pandas as pd


class Record:
    """One record file. Make it with :meth:`open`.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "pruning.json")
    >>> record = Record.open(
    ...     path, name="pruning", command="python pruning.py --root /data", data="digits 1,000"
    ... )
    >>> config = {"method": "magnitude-global", "sparsity": 0.8}
    >>> if not record.has(config, seed=0):
    ...     record.append(config=config, seed=0, metrics={"test_accuracy": 0.9, "params": 1234})
    >>> frame(path)
                 method  sparsity  seed  test_accuracy  params
    0  magnitude-global       0.8     0            0.9    1234
    >>> load(path)["command"]  # paths of this machine are left out
    'python pruning.py --root …'
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def open(cls, path: str | os.PathLike, *, name: str, command: str, data: str) -> Record:
        """Open a record, or start a new one.

        Hardware and versions are found out here. Rows that are later appended elsewhere, or with
        other versions, carry their own.

        Parameters
        ----------
        path : path
            The JSON file; its folder is made if it is missing.
        name : str
            Name of the experiment.
        command : str
            What to type to run it again. Paths of this machine are replaced by ``…``.
        data : str
            The data set and its sizes.

        Raises
        ------
        TypeError, ValueError
            If a text is empty, if the file is damaged, or if it is the record of another
            experiment or of other data.
        OSError
            If the file cannot be written, or if another process keeps it locked.
        """
        given = {"name": name, "command": command, "data": data}
        for key, value in given.items():
            if not isinstance(value, str) or not value:
                raise TypeError(f"{key} must be a text that is not empty, got {value!r}")
        given = {key: without_paths(value) for key, value in given.items()}
        path = check_writable("path", path)
        with locked(path):
            if not path.exists():
                made = {"hardware": hardware(), "versions": versions(), "rows": []}
                cls(path, given | made)._write()
        content = load(path)
        for key in ("name", "data"):
            if content[key] != given[key]:
                raise ValueError(
                    f"{path} is a record with {key} {content[key]!r}, not {given[key]!r}; "
                    "use another file"
                )
        return cls(path, content)

    def has(self, config: Mapping[str, Any], seed: int) -> bool:
        """Whether the row of ``config`` and ``seed`` is done.

        Parameters
        ----------
        config : mapping
            What differs between rows; the order of the keys does not matter.
        seed : int
            The seed of the run.

        Returns
        -------
        bool
            As of the last :meth:`open` or :meth:`append`.

        Raises
        ------
        TypeError, ValueError
            If a value of ``config`` cannot be in a record.

        Examples
        --------
        >>> rows = [{"config": {"bits": 8}, "seed": 0, "metrics": {"test_accuracy": 0.9}}]
        >>> record = Record(Path("run.json"), {"rows": rows})
        >>> record.has({"bits": 8}, seed=0), record.has({"bits": 8}, seed=1)
        (True, False)
        """
        wanted = (plain_config(config), seed)
        return any((row["config"], row["seed"]) == wanted for row in self.content["rows"])

    def append(
        self,
        *,
        config: Mapping[str, str | int | float | bool | None],
        seed: int,
        metrics: Mapping[str, float],
        history: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        """Add one finished row and write the file; a crash leaves the file as it was before.

        Several processes may append to one file: they wait for each other.

        Parameters
        ----------
        config : mapping
            What differs between rows.
        seed : int
            At least 0.
        metrics : mapping of str to number
            Finite numbers; their names must differ from those in ``config``.
        history : sequence of mappings, optional
            What ``train.fit`` returned.

        Raises
        ------
        TypeError, ValueError
            If a value does not fit (the message names it) or if the row exists already.
        OSError
            If the file cannot be written, or if another process keeps it locked.
        """
        row = {"config": plain_config(config), "seed": check_int("seed", seed, low=0)}
        row["metrics"] = plain_numbers("metrics", metrics)
        if history is not None:
            row["history"] = [
                plain_numbers(f"history[{i}]", epoch) for i, epoch in enumerate(history)
            ]
        for key in row["metrics"]:
            if key in row["config"] or key == "seed":
                raise ValueError(f"metrics[{key!r}] must have a name of its own, config has it too")
        with locked(self.path):
            self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        if self.path.exists():  # another process may have added rows
            self.content = load(self.path)
        if self.has(row["config"], row["seed"]):
            raise ValueError(
                f"{self.path} has a row with seed {row['seed']} and config {row['config']}"
            )
        here = {"hardware": hardware(), "versions": versions()}
        row |= {key: value for key, value in here.items() if value != self.content[key]}
        before = self.content
        self.content = before | {"rows": [*before["rows"], row]}
        try:
            self._write()
        except BaseException:
            self.content = before
            raise

    def _write(self) -> None:
        """One line a row, so that a new row is one new line for git."""
        head = {key: value for key, value in self.content.items() if key != "rows"}
        rows = [json.dumps(row, ensure_ascii=False) for row in self.content["rows"]]
        text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
        text += ',\n "rows": [' + ",".join(f"\n  {row}" for row in rows) + "\n ]\n}\n"
        write_atomically(self.path, text.encode())


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a record file.

    Parameters
    ----------
    path : path
        A file written by :class:`Record`.

    Returns
    -------
    dict
        ``name``, ``command``, ``data``, ``hardware``, ``versions`` and ``rows``: a list of dicts
        with ``config``, ``seed``, ``metrics``, and ``history`` if there is one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or no record. The message names the file.

    Examples
    --------
    >>> load("nothing.json")
    Traceback (most recent call last):
    FileNotFoundError: there is no record nothing.json; its experiment writes it
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no record {path}; its experiment writes it")
    try:
        content = json.loads(path.read_bytes().decode(), parse_constant=refuse_constant)
    except ValueError as error:  # wrong JSON, wrong encoding
        raise ValueError(f"the record {path} is damaged: {error}") from error
    check_content(path, content)
    return content


def frame(record: Record | str | os.PathLike) -> pd.DataFrame:
    """Return the rows of a record: columns of ``config``, then ``seed``, then ``metrics``.

    Parameters
    ----------
    record : Record or path
        Histories are left out; :func:`load` has them.

    Returns
    -------
    pandas.DataFrame
        One line a row, in the order they were finished. Keys that a row lacks are NaN.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load`.

    Examples
    --------
    >>> rows = [{"config": {"bits": 8}, "seed": 0, "metrics": {"test_accuracy": 0.9}}]
    >>> frame(Record(Path("run.json"), {"rows": rows}))
       bits  seed  test_accuracy
    0     8     0            0.9
    """
    import pandas as pd

    rows = (record.content if isinstance(record, Record) else load(record))["rows"]
    columns: dict[str, None] = {}
    for part in ("config", "seed", "metrics"):
        for row in rows:
            columns |= dict.fromkeys(["seed"] if part == "seed" else row[part])
    flat = [row["config"] | {"seed": row["seed"]} | row["metrics"] for row in rows]
    return pd.DataFrame(flat, columns=list(columns))
