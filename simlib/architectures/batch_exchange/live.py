"""Batch exchange, live: each side registers what changed, a scheduled run makes a file of it, and the other side reads that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from psycopg.types.json import Jsonb

from simlib.architectures import twin
from simlib.architectures.batch_exchange.file import Files, Goods, Record
from simlib.architectures.batch_exchange.runs import Apply, Export, Import, serve_files
from simlib.architectures.steps import Onward, program
from simlib.architectures.twin import FURTHER, Level, Order, Side, Update, answer_queries, main, service
from simlib.domain import COPIED, COPY, RESERVE

PARTS = ("postgres",)
"""Real parts that this architecture stands on."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = COPY
"""The store that answers queries."""
SCHEMA = twin.SCHEMA + Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
SIMULATED = ("runs",)
"""Parameters that the model alone has."""
MEASURED = {"interval": 0.5}
"""Runs short enough that a measurement of some seconds has many of them."""
UNDER_WAY = 512
"""More than the two sides can exchange in an interval, so that there is always something to do."""


def drains_within(parameters: dict[str, Any]) -> float:
    """An order takes a file each way, and a failing file some tries."""
    return 30.0 + 3 * float(parameters["interval"])


def running(
    side: Side, app: Callable[[], FastAPI], apply: Apply, all_goods: bool
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """What a side runs beside its requests: its own scheduled run, its files, and a reader of the other's."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        files = Files(Path(side.config.folder) / f"{side.config.side}.files")
        export, reader = Export(side, files, all_goods), Import(side, apply)
        idle = serve_files(app(), files, within=0.5 * float(side.config.parameters["timeout"]))

        async def pending() -> int:
            return await export.waiting() - idle()

        side.pending = pending
        tasks = [side.for_ever(one.run()) for one in (export, reader)]
        yield
        for task in tasks:
            task.cancel()
        await reader.session.close()

    return run


def accounting(side: Side) -> FastAPI:
    """The accounting program: registers each change, and takes stock for the orders in the shop's files."""
    full = side.config.parameters["exchange"] == "full"
    coalesce = full or bool(side.config.parameters["coalesce"])
    onward = Onward(side)

    async def apply(records: Sequence[Record], unchanged: Sequence[Goods], nth: int) -> None:
        orders = [one for one in records if isinstance(one, Order)]
        rows = [(o.message, o.sku, o.quantity, announcing(o), o.refused(RESERVE, nth)) for o in orders]
        with side.trace.stages([order.message for order in orders], "take", nth):
            async with side.database.connection() as connection:
                found = await connection.execute(
                    "SELECT * FROM take_orders(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (*map(list, zip(*rows, strict=True)), time.monotonic_ns(), nth, side.once, coalesce),
                )  # fmt: skip
                taken = await found.fetchall()
        by_number = {order.message: order for order in orders}
        for message, version, gone in taken:
            onward.begin(by_number[message], version, nth)
            if gone is not None:
                side.tell(gone)
        for message in by_number:
            side.tell(message)

    exchange = running(side, lambda: app, apply, full)

    @asynccontextmanager
    async def going_on() -> AsyncIterator[None]:
        async with onward, exchange():
            yield

    app = service(side, going_on)

    @app.post("/updates")
    async def update(update: Update) -> None:
        row = await side.transact(
            update.message, "change", 1, "SELECT change_and_register(%s, %s, %s, %s, %s, %s) AS gone",
            update.message, update.sku, update.change, time.monotonic_ns(),
            Jsonb({"handling": update.handling.model_dump()}), coalesce,
        )  # fmt: skip
        if row.gone is not None:
            side.tell(row.gone)

    return app


def announcing(order: Order) -> Jsonb:
    """What the shop's handling of the order's new level will be."""
    return Jsonb({"handling": order.announcing.model_dump()})


def shop(side: Side) -> FastAPI:
    """The web shop: answers queries and promises units from its own copy, which accounting's files keep."""

    async def apply(records: Sequence[Record], unchanged: Sequence[Goods], nth: int) -> None:
        levels = [one for one in records if isinstance(one, Level)]
        rows = [(one.message, one.effect, one.sku, one.level, one.version, one.change) for one in levels]
        columns = zip(
            *rows, *((None, None, sku, level, version, None) for sku, level, version in unchanged), strict=True
        )
        with side.trace.stages([level.message for level in levels], "write", nth):
            async with side.database.connection() as connection:
                await connection.execute(
                    "SELECT write_copies(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (*map(list, columns), time.monotonic_ns(), nth, side.once, side.newer),
                )  # fmt: skip
        for level in levels:
            if level.effect == COPIED:
                side.tell(level.message)

    app = service(side, running(side, lambda: app, apply, all_goods=False))
    answer_queries(app, side)

    @app.post("/orders")
    async def order(order: Order) -> None:
        row = await side.transact(
            order.message, "promise", 1, "SELECT promise_and_register(%s, %s, %s, %s, %s, %s) AS promised",
            order.message, order.sku, order.quantity, order.session,
            Jsonb({"handling": order.handling.model_dump(), "announcing": order.announcing.model_dump()}),
            Jsonb({step: drawn.model_dump() for step, drawn in order.steps.items()}) if order.steps else None,
        )  # fmt: skip
        if not row.promised:
            raise HTTPException(409, "sold out")

    return app


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, **dict.fromkeys(FURTHER, program)})
