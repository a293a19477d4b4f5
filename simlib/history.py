"""The history of a run: five tables of one schema, whichever engine made it, simulated or live.

Times are seconds since the start of the run (float64, NaN where it did not happen); a number that does not exist is -1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
NO_ATTEMPTS = ATTEMPTS.empty_table()
"""Of a run that nobody asked for them."""
SCHEMAS = {"messages": MESSAGES, "effects": EFFECTS, "parts": PARTS, "faults": FAULTS, "attempts": ATTEMPTS}


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


def to_table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """A table of the named schema from its columns; columns named `mark.*` may follow. Strings are dictionary-encoded."""
    schema = SCHEMAS[name]
    arrays = [
        pa.array(columns[f.name], f.type) if not pa.types.is_dictionary(f.type) else _words(columns[f.name])
        for f in schema
    ]
    names = list(schema.names)
    for extra in sorted(set(columns) - set(names)):
        names.append(extra)
        arrays.append(pa.array(columns[extra], pa.float64()))
    return pa.table(arrays, names=names)


def coded(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """A column of names from their numbers, int8 of shape (n,); its dictionary holds all names, in their order."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))


def occurring(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """As `coded`, but its dictionary holds those names that occur, in order of appearance, as that of a column of words does."""
    found = pa.array(codes, pa.int8()).dictionary_encode()
    return _names(found.indices, pa.array([names[code] for code in found.dictionary.to_pylist()], pa.string()))


def _words(values: Any) -> pa.DictionaryArray:
    if isinstance(values, pa.DictionaryArray):
        return values
    found = pa.array(values, pa.string()).dictionary_encode()
    return _names(found.indices, found.dictionary)


def _names(codes: pa.Array, names: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(codes.cast(pa.int8()), names)
