"""Times that were measured elsewhere: a CSV file with a column for each time of the model, which is fitted as our own are."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from simlib.calibration.fit import FEWEST
from simlib.calibration.stages import Estimate, Estimates
from simlib.errors import BadInput, unknown
from simlib.quantities import SECONDS

_HEAD = re.compile(r"\s*(\w+)\s*(?:\[\s*([^\[\]]*?)\s*\])?\s*")


def estimates(file: Path, wanted: Iterable[str]) -> Estimates:
    """The samples of each time that is wanted, from a file whose first line names them, each with its unit in brackets:
    `store [ms],uplink [us]`; seconds where none is given. Columns may differ in length: an empty cell is no sample.

    Raises BadInput where a column is missing, unknown, twice there, too short, or of no unit of time, and for a cell that is no
    finite number of at least 0.
    """
    names = sorted(wanted)
    try:
        content = file.read_bytes()
        rows = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}: name a CSV file that is there") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} is no CSV in UTF-8 ({error}): name a CSV file") from None
    columns = _columns(file, rows[0] if rows else [], names)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], 2):
        if len(row) > len(columns):
            raise BadInput(f"{file}, line {number}: {len(columns)} columns have a name, got {len(row)}: correct it")
        for (name, unit), cell in zip(columns, row, strict=False):
            if cell.strip():
                samples[name].append(_seconds(f"{file}, line {number}: {name}", cell, unit))
    for name, values in samples.items():
        if len(values) < FEWEST:
            raise BadInput(f"{file}: {name} must have at least {FEWEST} samples, got {len(values)}: measure for longer")
    source = f"{file.name}, blake2b {hashlib.blake2b(content, digest_size=6).hexdigest()}"
    return {name: Estimate(np.array(values), source, elsewhere=True) for name, values in samples.items()}


def _columns(file: Path, head: list[str], names: list[str]) -> list[tuple[str, float]]:
    """Name and unit, in seconds, of each column."""
    columns: list[tuple[str, float]] = []
    for cell in head:
        match = _HEAD.fullmatch(cell)
        if not match or match[1] not in names:
            raise BadInput(f"{file}: {unknown('column', match[1] if match else cell.strip(), names)}")
        unit = match[2] or "s"
        if unit not in SECONDS:
            raise BadInput(
                f"{file}: the unit of {match[1]} must be one of {', '.join(SECONDS)}, got '{unit}': correct it"
            )
        if match[1] in dict(columns):
            raise BadInput(f"{file} has the column '{match[1]}' twice: leave one out")
        columns.append((match[1], SECONDS[unit]))
    for name in names:
        if name not in dict(columns):
            raise BadInput(f"{file} must have a column '{name}', as {', '.join(names)} are times of the model: add it")
    return columns


def _seconds(where: str, cell: str, unit: float) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if value < 0:
        raise BadInput(
            f"{where} must be at least 0, got {cell.strip()!r}: it was taken by two clocks that do not match, measure by one"
        )
    if not math.isfinite(value):
        raise BadInput(f"{where} must be a finite number, got {cell.strip()!r}: correct it or leave it empty")
    return value * unit
