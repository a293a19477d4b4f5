"""The memory that the compiled engine's kernel works in: its tables, and the state that says where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from simlib.engines.kernel import STATE, TABLES

LINE = 64
"""Bytes of a line of the processor's cache; each table begins at one, but for those that come from elsewhere."""
RETAINED = 1 << 22
"""Bytes of a table, up to which it lies in Arrow's memory, which stays with the process for a while after it is let go: pages that
the system gives anew would cost a tenth of a short run. Larger ones go back at once."""
Content = np.ndarray | Sequence[Any] | int
"""Of a table: an array, which stays where it is; its records, or their values where they have one field; or how many there
are, all zero."""


class Workspace:
    """The tables by name, and `s`, the state over them, with which the kernel's functions are called while the tables are kept."""

    def __init__(self, contents: Mapping[str, Content], **values: float) -> None:
        """What is no array lies in one block; tables that are not named are empty, and the state's other numbers zero."""
        self._arrays = {name: content for name, content in contents.items() if isinstance(content, np.ndarray)}
        self._places: dict[str, tuple[int, int]] = {}
        rows: dict[str, Sequence[Any]] = {}
        end = 0
        for name, content in contents.items():
            if isinstance(content, np.ndarray):
                assert content.dtype == TABLES[name] and content.flags.c_contiguous, name
                continue
            if not isinstance(content, int):
                rows[name], content = content, len(content)
            self._places[name] = end, content
            end += -(-content * TABLES[name].itemsize // LINE) * LINE
        self._block = _bytes(end)
        start = self._block.ctypes.data
        where = {name: (start + offset, count) for name, (offset, count) in self._places.items()}
        where |= {name: (array.ctypes.data, array.size) for name, array in self._arrays.items()}
        for name, content in rows.items():
            if content:
                self[name][:] = content
        state = np.zeros(1, STATE)
        state.view(np.int64)[-2 * len(TABLES) :] = [number for name in TABLES for number in where.get(name, (0, 0))]
        self.s: np.void = state[0]
        for name, value in values.items():
            self.s[name] = value

    def __getitem__(self, name: str) -> np.ndarray:
        """A table."""
        if name in self._arrays:
            return self._arrays[name]
        offset, count = self._places[name]
        return np.ndarray(count, TABLES[name], self._block, offset)

    def keep(self, *names: str) -> None:
        """Let go of all tables but these, which were given as arrays."""
        self._arrays = {name: self._arrays[name] for name in names}
        self._places, self._block = {}, _bytes(0)


def unset(name: str, count: int) -> np.ndarray:
    """So many records of a table, of which nothing is set."""
    size = count * TABLES[name].itemsize
    small = size <= RETAINED
    block = np.frombuffer(pa.allocate_buffer(size), np.uint8) if small else _bytes(size, np.empty)
    return block.view(TABLES[name])


def _bytes(size: int, make: Any = np.zeros) -> np.ndarray:
    """So many bytes from the beginning of a line on; many of them in the large pages that numpy asks the system for."""
    block = make(size + LINE, np.uint8)
    first = -block.ctypes.data % LINE
    return block[first : first + size]
