"""Accounting's goods as an aggregate: a stream of events for each SKU, and the store that keeps them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.postgres import PostgresApplicationRecorder
from eventsourcing.utils import get_topic
from psycopg import Cursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow

from simlib.architectures.twin import Config, Order, Receipt, Update
from simlib.domain import RESERVE, TAKEN


class SoldOut(Exception):
    """An order is refused, for want of units or as was drawn; with the level and the version."""


class Goods(Aggregate):
    """The stock of a SKU, which is what its events add up to; they are numbered by its versions."""

    INITIAL_VERSION = 0

    class Opened(Aggregate.Created):
        """The stock that there was when the stream began."""

        sku: int
        level: int

    class Changed(Aggregate.Event):
        """Units came or went, which left a level. `handling` is what the reader's work was drawn as, `at` a monotonic time, ns."""

        message: int
        sku: int
        units: int
        level: int
        handling: dict[str, Any]
        at: int
        delivery: int

        def apply(self, aggregate: Any) -> None:
            """The event's one consequence."""
            aggregate.level += self.units

    class Received(Changed):
        """Units were received."""

    class Taken(Changed):
        """An order took units."""

    def __init__(self, sku: int, level: int) -> None:
        self.sku, self.level = sku, level

    @staticmethod
    def identity(sku: int) -> UUID:
        """The stream of a SKU."""
        return UUID(int=sku)

    def receive(self, update: Update, at: int) -> None:
        """A stock update."""
        self._change(self.Received, update.change, message=update.message, handling=update.handling, at=at, delivery=1)

    def take(self, order: Order, at: int, delivery: int) -> None:
        """An order; raises SoldOut."""
        if self.level < order.quantity or order.refused(RESERVE, delivery):
            raise SoldOut(self.level, self.version)
        self._change(
            self.Taken, -order.quantity, message=order.message, handling=order.announcing, at=at, delivery=delivery
        )

    def _change(self, event: type[Changed], units: int, **said: Any) -> None:
        said["handling"] = said["handling"].model_dump()
        self.trigger_event(event, sku=self.sku, units=units, level=self.level + units, **said)


CHANGES = (get_topic(Goods.Received), get_topic(Goods.Taken))
"""What those are told who follow the events."""


class Recorder(PostgresApplicationRecorder):
    """Keeps with the event of an order that the order was received: both or none."""

    def _insert_events(
        self, curs: Cursor[DictRow], stored_events: Any, order: Receipt | None = None, message: int = -1, **kwargs: Any
    ) -> None:
        if order:
            curs.execute("INSERT INTO received VALUES (%s, %s, %s, %s)", (message, TAKEN, order.level, order.version))
        super()._insert_events(curs, stored_events, **kwargs)


class Accounting(Application[UUID]):
    """The event store of accounting."""


def place(config: Config, program: str, connections: int) -> dict[str, str]:
    """A program's database, as the library wants to be told of it."""
    where = conninfo_to_dict(config.databases[program])
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "APPLICATION_RECORDER_TOPIC": get_topic(Recorder),
        "IS_SNAPSHOTTING_ENABLED": "y" if config.parameters["snapshot_every"] else "n",
        "CREATE_TABLE": "no",
        "POSTGRES_POOL_SIZE": str(connections),
        "POSTGRES_MAX_OVERFLOW": "0",
        **{
            f"POSTGRES_{name.upper()}": str(where.get(name, ""))
            for name in ("dbname", "host", "port", "user", "password")
        },
    }
