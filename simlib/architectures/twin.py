"""What the live services of all architectures share: their messages, database, handler work, stamps and server.

A side is one process with one event loop. The code of a pattern stands in its `live.py`; this is the ground under it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import orjson
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

from simlib.domain import ANNOUNCED, COPIED, DONE_BY, RESERVE, RESTOCKED

REJECTED = "rejected"
"""The result of a step that was refused."""
FURTHER = ("payment", "shipping")
"""Programs that run as well where orders go through several steps."""
Call = tuple[Any, ...]
"""SQL that calls a function, `, f(%s)`, and its arguments; or no call, `("",)`."""
SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")


class Config(BaseModel):
    """What a service is started with; a JSON file."""

    side: str
    """Which of the programs it is."""
    process: str
    """Which of its processes: the first has the program's own name."""
    ports: dict[str, int]
    """The port of each process."""
    databases: dict[str, str]
    """The database of each program."""
    servers: dict[str, str] = {}
    """Where each real part answers."""
    folder: str = ""
    """A folder that all programs of the run share."""
    prefix: str = ""
    """What names at the brokers begin with, so that runs do not meet."""
    parameters: dict[str, Any]
    completions: int | None = None
    """UDP port that is told the number of each message whose effect was committed, where someone wants to know."""

    @property
    def port(self) -> int:
        """Its own port."""
        return self.ports[self.process]

    @property
    def peer(self) -> str:
        """The address of the other side, or of the process's own sidecar, where it has one."""
        if sidecar := self.servers.get(f"{self.process}.sidecar"):
            return sidecar
        (other,) = {"accounting", "shop"} - {self.side}
        return self.address(other)

    def address(self, program: str) -> str:
        """The address of a program."""
        return f"http://127.0.0.1:{self.ports[program]}"

    @property
    def database(self) -> str:
        """Its own database."""
        return self.databases[self.side]

    @property
    def broker(self) -> str:
        """The broker that the parameters name."""
        return self.servers[self.parameters["broker"]]


class Drawn(BaseModel):
    """Work of a handler in seconds, and whether it fails, by attempt: drawn ahead, the same for every engine."""

    work: list[float]
    fails: list[bool]


class Update(BaseModel):
    """Accounting changed the stock of a SKU."""

    message: int
    sku: int
    change: int
    handling: Drawn


class Step(BaseModel):
    """A step of an order at its service, and its undoing: what is drawn ahead of them, by attempt."""

    handling: Drawn
    refused: list[bool]
    unheard: list[bool]
    """Whether nobody is to hear that it is done."""
    undoing: Drawn


class Order(BaseModel):
    """A customer buys; `announcing` is the shop's handling of the change that the order makes, `steps` what the order goes
    through, where the twin has services for more than one."""

    message: int
    sku: int
    quantity: int
    session: int
    handling: Drawn
    announcing: Drawn
    steps: dict[str, Step] = {}
    reply_to: str = ""

    @property
    def sequence(self) -> list[str]:
        """The steps in their order, which the object of JSON need not have kept."""
        return [step for step in DONE_BY if step in self.steps]

    def refused(self, step: str, attempt: int) -> bool:
        """Whether a step is refused, as was drawn."""
        return bool(self.steps) and drawn_for(attempt, self.steps[step].refused)

    def unheard(self, step: str, attempt: int) -> bool:
        """Whether nobody is to hear that a step is done, as was drawn."""
        return bool(self.steps) and drawn_for(attempt, self.steps[step].unheard)


class Query(BaseModel):
    """A visitor asks what there is of a SKU."""

    message: int
    sku: int
    session: int
    handling: Drawn


class Level(BaseModel):
    """The stock of a SKU at a version, as accounting tells the shop: the effect is 'copied' or 'announced'."""

    message: int
    effect: str
    sku: int
    level: int
    version: int
    change: int
    handling: Drawn


class Receipt(BaseModel):
    """What became of a step of an order: an effect (at accounting 'taken') or 'rejected', and the stock after it, where known."""

    result: str
    level: int = -1
    version: int = -1

    @property
    def refused(self) -> bool:
        """Whether the step was not done."""
        return self.result == REJECTED


def level_of(update: Update, level: int, version: int) -> Level:
    """What the shop must know after an update."""
    return Level(
        message=update.message, effect=COPIED, sku=update.sku, level=level, version=version,
        change=update.change, handling=update.handling,
    )  # fmt: skip


def level_after(order: Order, receipt: Receipt) -> Level:
    """What the shop must know after an order."""
    return Level(
        message=order.message, effect=ANNOUNCED, sku=order.sku, level=receipt.level, version=receipt.version,
        change=-order.quantity, handling=order.announcing,
    )  # fmt: skip


T = TypeVar("T")


def drawn_for(attempt: int, drawn: Sequence[T]) -> T:
    """What was drawn for an attempt, from 1 on: those beyond the last repeat it."""
    return drawn[min(attempt, len(drawn)) - 1]


class HandlingFailed(Exception):
    """The handler failed, as drawn."""


class Stamp(NamedTuple):
    """A stage that a message went through: monotonic times in ns, comparable between processes of one machine."""

    message: int
    block: str
    attempt: int
    start: int
    end: int
    result: str


class Trace:
    """The stamps of a service, kept in memory until they are asked for."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.stamps: list[Stamp] = []

    def stage(self, message: int, block: str, attempt: int = 1) -> AbstractContextManager[None]:
        """Stamp the block around a stage."""
        return self.stages([message], block, attempt)

    @contextmanager
    def stages(self, messages: Iterable[int], block: str, attempt: int = 1) -> Iterator[None]:
        """Stamp the block around a stage that several messages go through at once."""
        start, result = time.monotonic_ns(), "ok"
        try:
            yield
        except BaseException as error:
            result = type(error).__name__
            raise
        finally:
            end = time.monotonic_ns()
            self.stamps += [Stamp(one, f"{self.side}.{block}", attempt, start, end, result) for one in messages]


class Side:
    """A service's own ground: its database, its handler work, its background tasks, and what it says of itself."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trace = Trace(config.side)
        self.once = bool(config.parameters.get("idempotency", config.parameters.get("idempotent_receiver", True)))
        self.newer = bool(config.parameters.get("write_if_newer", True))
        self.database = AsyncConnectionPool(
            config.database,
            min_size=config.parameters["database_connections"],
            max_size=config.parameters["database_connections"],
            kwargs={"autocommit": True, "row_factory": namedtuple_row},
            open=False,
        )
        self.tasks: set[asyncio.Task[Any]] = set()
        self.requests = 0
        self.pending: Callable[[], Coroutine[Any, Any, int]] | None = None
        self._told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    @staticmethod
    def for_ever(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what ends only when it is cancelled: where it fails, the program ends with it, and says why in its last line."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_end_where_it_failed)
        return task

    def handle(self, message: int, drawn: Drawn, attempt: int) -> None:
        """The handler's work: burn the CPU for as long as was drawn for this attempt (from 1 on), then perhaps fail."""
        with self.trace.stage(message, "handle", attempt):
            end = time.perf_counter_ns() + round(drawn_for(attempt, drawn.work) * 1e9)
            while time.perf_counter_ns() < end:
                pass
            if drawn_for(attempt, drawn.fails):
                raise HandlingFailed(f"message {message}, attempt {attempt}")

    async def change(self, update: Update) -> tuple[int, int]:
        """Accounting: the update's own change; the new level and version."""
        row = await self.transact(
            update.message, "change", 1, "SELECT * FROM change_stock(%s, %s, %s, %s) AS t (level, version)",
            update.message, update.sku, update.change, time.monotonic_ns(),
        )  # fmt: skip
        return row.level, row.version

    async def take(self, order: Order, delivery: int, refused: bool = False) -> tuple[Receipt, bool]:
        """Accounting: take the order's units, or reject it; and whether it was received before."""
        row = await self.transact(
            order.message, "take", delivery,
            "SELECT * FROM take_stock(%s, %s, %s, %s, %s, %s, %s) AS t (result, level, version, again)",
            order.message, order.sku, order.quantity, time.monotonic_ns(), delivery, self.once, refused,
        )  # fmt: skip
        self.tell(order.message)
        return Receipt(result=row.result, level=row.level, version=row.version), row.again

    async def do(self, step: str, order: Order, delivery: int, version: int) -> Receipt:
        """A service: do a step of an order, or refuse it, as was drawn; `version` is of the stock that the order took."""
        refused = order.refused(step, delivery)
        if step == RESERVE:
            receipt, _ = await self.take(order, delivery, refused)
            return receipt
        row = await self.transact(
            order.message, step, delivery, "SELECT do_step(%s, %s, %s, %s, %s, %s, %s, %s) AS result",
            order.message, DONE_BY[step][0], order.sku, version, time.monotonic_ns(), delivery, self.once, refused,
        )  # fmt: skip
        return Receipt(result=row.result, version=version)

    async def undo(self, step: str, order: Order, delivery: int, version: int) -> Receipt:
        """A service: take a step back that it did; one that it did not do it never will."""
        row = await self.transact(
            order.message, f"{step}.undo", delivery,
            "SELECT * FROM undo_step(%s, %s, %s, %s, %s, %s, %s, %s) AS t (result, level, version)",
            order.message, DONE_BY[step][0], order.sku, version, order.quantity if step == RESERVE else 0,
            time.monotonic_ns(), delivery, self.once,
        )  # fmt: skip
        if row.result == REJECTED:
            return Receipt(result=REJECTED)
        return Receipt(result=row.result, level=row.level, version=row.version)

    async def restock(self, order: Order, receipt: Receipt) -> None:
        """Shop: its copy learns what accounting has again, if that is newer."""
        await self.transact(
            order.message, "restock", 1, "SELECT write_copy(%s, %s, %s, %s, %s, 0, %s, 1, false, true)",
            order.message, RESTOCKED, order.sku, receipt.level, receipt.version, time.monotonic_ns(),
        )  # fmt: skip

    async def write(self, level: Level, delivery: int, beside: Call = ("",)) -> None:
        """Shop: write the copy, where the level is newer and was not received before; `beside` it in the same transaction a call,
        with its arguments."""
        text, *more = beside
        await self.transact(
            level.message, "write", delivery, "SELECT write_copy(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)" + text,
            level.message, level.effect, level.sku, level.level, level.version, level.change,
            time.monotonic_ns(), delivery, self.once, self.newer, *more,
        )  # fmt: skip
        if level.effect == COPIED:
            self.tell(level.message)

    async def promise(self, order: Order) -> bool:
        """Shop: take the units from its own copy; whether it showed enough."""
        row = await self.transact(
            order.message, "promise", 1, "SELECT promise(%s, %s) AS promised", order.sku, order.quantity
        )
        return bool(row.promised)

    async def read(self, query: Query, attempt: int = 1) -> dict[str, int]:
        """The level and version of a SKU in this side's store."""
        row = await self.transact(
            query.message, "read", attempt, "SELECT level, version FROM goods WHERE sku = %s", query.sku
        )
        return {"level": row.level, "version": row.version}

    async def park(self, message: int, effect: str, delivery: int) -> None:
        """Keep what cannot be handled for a human to look at."""
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO parked VALUES (%s, %s, %s, %s)", (message, effect, delivery, time.monotonic_ns())
            )

    def tell(self, message: int) -> None:
        """Tell whoever counts completions that a message had its effect."""
        if self.config.completions:
            self._told.sendto(message.to_bytes(4, "little", signed=True), ("127.0.0.1", self.config.completions))

    async def transact(self, message: int, block: str, attempt: int, statement: str, *arguments: Any) -> Any:
        """A statement in a transaction of its own, stamped as a block of a message; its first row."""
        with self.trace.stage(message, block, attempt):
            async with self.database.connection() as connection:
                cursor = await connection.execute(statement, arguments)
                return await cursor.fetchone()


def end(error: BaseException) -> NoReturn:
    """End a service that cannot go on, with the reason as its last words."""
    traceback.print_exception(error)
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_where_it_failed(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        end(error)


class Counted:
    """ASGI middleware that counts the requests under way, those too whose caller has left."""

    def __init__(self, app: Any, side: Side) -> None:
        self.app, self.side = app, side

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.side.requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.side.requests -= 1


def service(side: Side, lifespan: Callable[[], Any]) -> FastAPI:
    """A FastAPI application with what every side answers: what is still at work there, and its stamps."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            try:
                await side.database.open(wait=True)
                opened.push_async_callback(side.database.close)
                await opened.enter_async_context(lifespan())
            except Exception as error:
                end(error)
            gc.collect()
            gc.freeze()
            yield

    app = FastAPI(title=side.config.side, lifespan=running, openapi_url=None)
    app.add_middleware(Counted, side=side)

    @app.get("/pending")
    async def pending() -> int:
        """How much is still at work here: requests, background tasks, and what the pattern itself knows of."""
        waiting = side.requests - 2  # this request, and the server's own lifespan
        return waiting + len(side.tasks) + (await side.pending() if side.pending else 0)

    @app.get("/clock")
    async def clock() -> int:
        """The time that stamps are of, ns."""
        return time.monotonic_ns()

    @app.get("/stamps")
    async def stamps() -> Response:
        """The stamps since the last time they were asked for."""
        taken, side.trace.stamps = side.trace.stamps, []
        return Response(orjson.dumps([list(stamp) for stamp in taken]), media_type="application/json")

    return app


def answer_queries(app: FastAPI, side: Side) -> None:
    """Let a side answer queries from its own store."""

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        try:
            side.handle(query.message, query.handling, 1)
        except HandlingFailed as error:
            raise HTTPException(500) from error
        return await side.read(query)


def serve(app: FastAPI, port: int) -> None:
    """Run a service on its port until SIGTERM: one process, one event loop."""
    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False
    )


def main(sides: dict[str, Callable[[Side], FastAPI]]) -> None:
    """Start the program that the configuration file on the command line names."""
    config = Config.model_validate(json.loads(Path(sys.argv[1]).read_text()))
    serve(sides[config.side](Side(config)), config.port)
