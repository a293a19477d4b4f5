"""The history of a run: five tables of one schema, whichever engine made it, simulated or live.

Times are seconds since the start of the run (float64, NaN where it did not happen); a number that does not exist is -1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simlib.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from simlib.checker import Verdict

_NAME = pa.dictionary(pa.int8(), pa.string())
MESSAGES = pa.schema(
    [
        ("message", pa.int32()),
        ("kind", _NAME),
        ("sku", pa.int32()),
        ("session", pa.int32()),
        ("quantity", pa.int32()),
        ("version", pa.int32()),  # written by an update or order, or seen by a query
        ("answer", pa.int32()),  # the quantity that a query was shown
        ("read_from", _NAME),  # the store that answered a query, '' for none
        ("issued", pa.float64()),
        ("responded", pa.float64()),
        ("applied", pa.float64()),  # first effect (of those that count as delivery)
        ("response", _NAME),  # domain.RESPONSES
        ("outcome", _NAME),  # domain.OUTCOMES
        ("attempts", pa.int16()),
        ("deliveries", pa.int16()),
        ("effects", pa.int16()),
        ("duplicates", pa.int16()),
    ]
)
"""One row each message; columns `mark.NAME` (float64) may follow."""
EFFECTS = pa.schema(
    [
        ("message", pa.int32()),
        ("effect", _NAME),
        ("store", _NAME),
        ("sku", pa.int32()),
        ("version", pa.int32()),
        ("change", pa.int32()),
        ("time", pa.float64()),
        ("delivery", pa.int16()),
    ]
)
"""One row each effect, in order of time."""
PARTS = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),  # pool, lock, queue, credit
        ("capacity", pa.float64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("busy", pa.float64()),  # area: unit-seconds in service
        ("waiting", pa.float64()),  # area: row-seconds (deliveries) waiting
        ("unacknowledged", pa.float64()),  # area
        ("waiting_max", pa.int64()),
        ("completed", pa.int64()),
    ]
)
"""One row each noun and bin of time; bins are equal and cover the run from 0 to its end."""
FAULTS = pa.schema(
    [
        ("fault", pa.string()),
        ("part", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("message", pa.int32()),
    ]
)
"""Faults as they happened; `message` is the one whose point was struck, else -1."""
ATTEMPTS = pa.schema(
    [
        ("message", pa.int32()),
        ("block", pa.string()),
        ("attempt", pa.int16()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("result", pa.string()),
    ]
)
"""The walk of messages through the blocks, on request."""
NO_FAULTS, NO_ATTEMPTS = (pa.Table.from_batches([], schema) for schema in (FAULTS, ATTEMPTS))
"""Of a run in which nothing was struck; and of one that nobody asked for the attempts."""
SCHEMAS = {"messages": MESSAGES, "effects": EFFECTS, "parts": PARTS, "faults": FAULTS, "attempts": ATTEMPTS}


def _in_memory(kind: pa.DataType) -> np.dtype[Any]:
    """The numbers of a column: those that it has, or the codes of its names."""
    return np.dtype((kind.index_type if pa.types.is_dictionary(kind) else kind).to_pandas_dtype())


_COLUMNS = {name: {each.name: (each.type, _in_memory(each.type)) for each in SCHEMAS[name]} for name in SCHEMAS}
_MARK = pa.float64(), np.dtype(np.float64)


@dataclass(frozen=True)
class History:
    """What happened in one run. `meta` says from what: architecture, scenario, engine, seed, messages, parameters,
    parameters_hash, calibration, version, draws, stationary, timeout (the caller's, s or None), process (of an order)."""

    messages: pa.Table
    effects: pa.Table
    parts: pa.Table
    faults: pa.Table
    attempts: pa.Table
    meta: Mapping[str, Any] = field(default_factory=dict)

    def metrics(self) -> pd.DataFrame:
        """A row each metric: name, value, low, high (95 %, by batch means), unit."""
        from simlib.metrics import table

        return table(self)

    def check(self) -> Verdict:
        """The checker's verdict, with the offending messages."""
        from simlib.checker import check

        return check(self)

    def save(self, folder: Path | str) -> None:
        """Write the tables as Parquet and the meta as JSON into a folder, which is made if need be."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in SCHEMAS:
                pq.write_table(getattr(self, name), folder / f"{name}.parquet")
            (folder / "meta.json").write_text(
                json.dumps(dict(self.meta), indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise BadInput(
                f"the history cannot be written to {folder}: {error.strerror}: name a writable folder"
            ) from None

    @classmethod
    def load(cls, folder: Path | str) -> History:
        """The history saved in a folder; raises BadInput where a file is missing, broken or of another schema."""
        folder = Path(folder)
        try:
            tables = {name: pq.read_table(folder / f"{name}.parquet") for name in SCHEMAS}
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if not isinstance(meta, dict):
                raise ValueError("meta.json is no mapping")
        except (OSError, pa.ArrowException, ValueError) as error:
            why = " ".join(str(error).split())[:150]
            raise BadInput(f"{folder} holds no history that can be read: {why}: run again with --history") from None
        for name, schema in SCHEMAS.items():
            for column in schema:
                if column not in list(tables[name].schema):
                    raise BadInput(
                        f"{folder}/{name}.parquet has no column '{column.name}' of {column.type}, as a history of this version"
                        " has: run again with --history"
                    )
        return cls(**tables, meta=meta)


def unset_columns(table: str, names: Iterable[str], count: int) -> dict[str, np.ndarray]:
    """Columns of a table to be written, shape (count,): numbers, or the codes of names."""
    return {name: np.empty(count, _COLUMNS[table][name][1]) for name in names}


def to_table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """A table of the named schema from its columns; columns named `mark.*` may follow. Strings are dictionary-encoded, arrays of
    numbers as the column has them are not copied."""
    kinds = _COLUMNS[name] | dict.fromkeys(sorted(columns.keys() - _COLUMNS[name].keys()), _MARK)
    return pa.table([_array(columns[each], *kind) for each, kind in kinds.items()], names=list(kinds))


def coded(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """A column of names from their numbers, int8 of shape (n,); its dictionary holds all names, in their order."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(codes, np.int8))]
    return pa.DictionaryArray.from_buffers(_NAME, codes.size, buffers, _words(tuple(names)), 0)


@lru_cache(1000)
def _words(words: tuple[str, ...]) -> pa.StringArray:
    """The same for every run of an architecture; unlike `pyarrow.array`, made without importing pandas."""
    encoded = [word.encode() for word in words]
    return texts(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int32))


def texts(text: bytes, ends: np.ndarray) -> pa.StringArray:
    """A column of words from their bytes and where each begins and the last ends, int32 of shape (rows + 1,)."""
    return pa.StringArray.from_buffers(ends.size - 1, pa.py_buffer(ends), pa.py_buffer(text), None, 0)


def _array(values: Any, kind: pa.DataType, numbers: np.dtype[Any]) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if kind == _NAME:
        found = pa.array(values, pa.string()).dictionary_encode()
        return pa.DictionaryArray.from_arrays(found.indices.cast(pa.int8()), found.dictionary)
    if isinstance(values, np.ndarray) and values.dtype == numbers and kind != pa.string() and values.flags.c_contiguous:
        return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values)], 0)
    return pa.array(values, kind)
