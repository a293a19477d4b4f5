"""Tables: cells by what messages have and when they were issued, and the rows that wait until one is new enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlib.engines.simpy.rows import Watchers
from simlib.flow.model import Key, Table

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from simlib.engines.simpy.engine import Engine


class Cell:
    """A level and a version, and who waits for newer ones."""

    __slots__ = ("level", "version", "watchers")

    def __init__(self, level: int) -> None:
        self.level, self.version, self.watchers = level, 0, Watchers()

    def change(self, level: int, version: int) -> None:
        """Another level and version, which those who wait may see."""
        self.level, self.version = level, version
        if self.watchers.rows:
            self.watchers.see(version)


def keyed(engine: Engine, key: Key | tuple[Key, ...] | None) -> Sequence[Hashable]:
    """What each message's cell is known by."""
    columns = {"sku": engine.skus, "session": engine.sessions, "message": range(len(engine.skus))}
    if key is None:
        return [None] * len(engine.skus)
    return columns[key] if isinstance(key, str) else list(zip(*(columns[one] for one in key), strict=True))


class TableState:
    """The cells of each replica, made when first touched; and what `once` remembers."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self.table = table
        self.stock: list[int] | None = engine.stock if table.stocked else None
        self.key = keyed(engine, table.key)
        if table.window is not None:
            self.key = list(zip(self.key, engine.arrivals.windows(table.window).tolist(), strict=True))
        self.replicas: list[dict[Hashable, Cell]] = [{} for _ in range(table.replicas)]
        self.results: dict[int, tuple[int, int, int]] = {}

    def cell(self, message: int, replica: int = 0) -> Cell:
        """The cell that the message is about."""
        key, cells = self.key[message], self.replicas[replica]
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = Cell(self.begins_with(key))
        return cell

    def begins_with(self, key: Hashable) -> int:
        """The level of a cell that nobody has changed."""
        return self.stock[key] if self.stock and isinstance(key, int) else 0

    def clear(self) -> None:
        """What a crash does to a table that is not durable; who waits for a cell is told of the next change."""
        for cells in self.replicas:
            for key, cell in cells.items():
                cell.level, cell.version = self.begins_with(key), 0
        self.results.clear()
