"""Tables: cells by SKU or message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simlib.flow.model import Table

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


class TableState:
    """Cells, made when first touched: [level, version]; and what `once` remembers."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self.table = table
        self.stock: list[int] | None = engine.stock if table.stocked else None
        self.key: list[int] | range = engine.skus if table.key == "sku" else range(len(engine.skus))
        self.cells: dict[int, list[int]] = {}
        self.results: dict[int, tuple[int, int, int]] = {}

    def cell(self, message: int) -> list[int]:
        """The cell that the message is about."""
        key = self.key[message]
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = [self.stock[key] if self.stock else 0, 0]
        return cell

    def clear(self) -> None:
        """What a crash does to a table that is not durable."""
        self.cells.clear()
        self.results.clear()
