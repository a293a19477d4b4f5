"""The store of a sweep: a folder for each plan, in it one for each entry, which its notebook writes.

An entry's folder holds `result.parquet` (a row each run, cut and metric), `backlog.parquet` (the backlog of each run
through time), `run.json` (what was run, under which key) and the executed `notebook.ipynb`; while it is under way, also
a file for each run that is finished. Files appear whole or not at all, so a sweep that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from simlib.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

RESULT = pa.schema(
    [
        ("architecture", pa.string()),
        ("variant", pa.string()),
        ("scenario", pa.string()),
        ("rate", pa.float64()),  # mean arrivals, 1/s
        ("messages", pa.int32()),
        ("replication", pa.int32()),
        ("seed", pa.int64()),
        ("cut", pa.int32()),  # messages at the start that times and rates leave out
        ("metric", pa.string()),
        ("value", pa.float64()),  # NaN where it does not exist
        ("unit", pa.string()),
        ("overloaded", pa.bool_()),
        (
            "warm_up",
            pa.int32(),
        ),  # messages that MSER-5 would cut from this run, null where it is not seen to be stationary
        ("failed", pa.string()),  # why the run failed, null where it did not
        ("parameters_hash", pa.string()),
        ("calibration_hash", pa.string()),  # null where nothing was calibrated
        ("version", pa.string()),
        ("draws", pa.string()),
    ]
)
"""One row each run, cut and metric. A run that failed is one row, without a metric."""
BACKLOG = pa.schema(
    [
        ("architecture", pa.string()),
        ("variant", pa.string()),
        ("scenario", pa.string()),
        ("rate", pa.float64()),
        ("replication", pa.int32()),
        ("time", pa.float64()),  # s
        ("backlog", pa.int32()),  # messages issued and not settled
    ]
)
"""One row each run and time."""
_SCHEMAS = {"result": RESULT, "backlog": BACKLOG}


class Journal:
    """The runs of an entry that are finished, each kept in its file until the whole entry is written.

    What stands under another key was made by other code, parameters or data, and goes. Without a folder nothing is
    kept.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key
        if folder:
            for old in folder.glob("runs-*"):
                if old.name != f"runs-{key}":
                    shutil.rmtree(old)
            self._runs(folder).mkdir(parents=True, exist_ok=True)

    def _runs(self, folder: Path) -> Path:
        return folder / f"runs-{self.key}"

    def kept(self, run: str, make: Callable[[], tuple[pa.Table, pa.Table]]) -> tuple[pa.Table, pa.Table]:
        """The result and the backlog of a run: as they were kept, or else made and kept."""
        if self.folder is None:
            return make()
        result, backlog = (self._runs(self.folder) / f"{run}.{name}.parquet" for name in ("result", "backlog"))
        try:
            return pq.read_table(result), pq.read_table(backlog)
        except (OSError, pa.ArrowException):  # not made yet, or cut short
            tables = make()
        _write(tables[1], backlog)
        _write(tables[0], result)
        return pq.read_table(result), pq.read_table(backlog)

    def close(self) -> None:
        """Forget the runs, when the entry is written."""
        if self.folder:
            shutil.rmtree(self._runs(self.folder))


def finished_runs(folder: Path) -> int:
    """How many runs of an entry under way are finished."""
    return sum(1 for _ in folder.glob("runs-*/*.result.parquet"))


def write(folder: Path, result: pa.Table, backlog: pa.Table, about: dict[str, Any]) -> None:
    """An entry's part of the store; `about` says what was run, and becomes `run.json`, which says that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").unlink(missing_ok=True)
    _write(result, folder / "result.parquet")
    _write(backlog, folder / "backlog.parquet")
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    _whole(folder / "run.json", lambda path: path.write_text(text, encoding="utf-8"))


def about(folder: Path) -> dict[str, Any] | None:
    """What an entry's `run.json` says; None where the entry is not there, or not whole."""
    try:
        data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def read(folder: Path | str, table: str = "result") -> pd.DataFrame:
    """A table (`result` or `backlog`) of all entries of a plan, in the order of their names.

    Raises BadInput where there is none, or a file is broken or of another schema.
    """
    import pandas as pd

    entries = sorted(path.parent for path in Path(folder).glob("*/run.json"))
    if not entries:
        raise BadInput(f"{folder} holds no results: run simlib sweep with a plan of that name")
    frames = []
    for entry in entries:
        path = entry / f"{table}.parquet"
        try:
            found = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            why = " ".join(str(error).split())[:150]
            raise BadInput(f"{path} cannot be read: {why}: remove its folder, and sweep again") from None
        if not found.schema.equals(_SCHEMAS[table]):
            raise BadInput(f"{path} is not a table of this version: remove its folder, and sweep again")
        frames.append(found.to_pandas())
    return pd.concat(frames, ignore_index=True)


def _write(table: pa.Table, path: Path) -> None:
    _whole(path, lambda part: pq.write_table(table, part))


def _whole(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    write_to(part)
    os.replace(part, path)
