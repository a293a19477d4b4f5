"""The sides where the shop answers from a copy of its own: what the architectures share in which changes reach it later."""

from __future__ import annotations

from simlib.architectures.fulfilment import called, tasks
from simlib.architectures.parameters import Parameters
from simlib.architectures.sides import ANNOUNCEMENT_WORK, IS_ORDER, Side, arrive, leave, sides
from simlib.domain import ANNOUNCED, COPIED, COPY, ISSUED, ORDER, STOCK, STOCK_QUERY, STOCK_UPDATE
from simlib.flow import Flow, Steps, Table, apply, branch, point, reject, rescue, spawn, supersede
from simlib.scenario import Scenario


class Copied:
    """The two sides and their goods. How a change reaches the other side is left to the architecture: `row` is what it writes
    in the transaction of the change, `insert` the work for that, `then` what it does when that is committed."""

    def __init__(
        self,
        flow: Flow,
        p: Parameters,
        scenario: Scenario,
        *,
        idempotent_receiver: bool,
        write_if_newer: bool,
        replicas: int = 1,
        durable: bool = True,
    ) -> None:
        """Where the copy is not `durable`, what restores it after a crash is no effect again."""
        self.flow, self.p, self.scenario = flow, p, scenario
        self.idempotent_receiver, self.write_if_newer = idempotent_receiver, write_if_newer
        self.accounting, self.shop = sides(flow, p)
        self.stock = self.accounting.part.table("stock", stocked=True)
        self.copy = self.shop.part.table("copy", stocked=True, replicas=replicas, durable=durable)
        self.handled_here = self.accounting.part.table("accounting.handled", key="message")
        self.handled_there = self.shop.part.table("shop.handled", key="message", durable=durable)
        if not durable:
            self.told = self.shop.part.table("shop.told", key="message")
        self.tasks = tasks(flow, scenario, self.accounting, self.stock)

    def accept_updates(self, then: Steps = (), row: Steps = (), insert: Steps = ()) -> None:
        """Accounting changes its stock, and answers."""
        side = self.accounting
        self.flow.source(STOCK_UPDATE, at=side.part, steps=[
            *arrive(self.p, "update"), *side.receive("update.accounting"),
            *side.commit("update.accounting", insert), self.stock.add(), apply(ISSUED, STOCK, sign=1), *row,
            point("update.committed"), *then,
            *side.answer("update.accounting"), *leave(self.p, "update"),
        ])  # fmt: skip

    def accept_orders(self, promised: Steps) -> None:
        """The shop takes in orders, and answers with a promise."""
        self.flow.source(
            ORDER, at=self.shop.part, steps=[*arrive(self.p, "order"), *self.shop.receive("order.shop"), *promised]
        )

    def promise(self, then: Steps = (), row: Steps = (), insert: Steps = ()) -> Steps:
        """The shop promises the units that its copy shows, and answers; or refuses."""
        refused = [reject(), *self.shop.answer("order.shop.refused"), *leave(self.p, "order.refused")]
        promised = [*row, point("order.committed"), *then, *self.answer_order()]
        return [*self.shop.commit("order.shop", insert), self.copy.take(promised, otherwise=refused, versioned=False)]

    def answer_order(self) -> Steps:
        """The customer knows."""
        return [*self.shop.answer("order.shop"), *leave(self.p, "order")]

    def accept_queries(self, look: Steps = ()) -> None:
        """The shop answers from its copy: by one read, or as the architecture looks at it."""
        shop = self.shop
        look = look or [*shop.read("query.shop"), self.copy.read()]
        self.flow.source(STOCK_QUERY, at=shop.part, steps=[
            *arrive(self.p, "query"), *shop.receive("query.shop"),
            rescue([*shop.handle(self.scenario), *look], otherwise=[]),
            *shop.answer("query.shop"), *leave(self.p, "query", answer_from=COPY),
        ])  # fmt: skip

    def handle_change(self, shop: Side | None = None) -> Steps:
        """The shop's work for a change, in one of its processes: an update, or what an order made."""
        shop = shop or self.shop
        changed, ordered = shop.handle(self.scenario), shop.handle(self.scenario, ANNOUNCEMENT_WORK)
        return [branch(IS_ORDER, ordered, otherwise=changed)]

    def write_change(self) -> Steps:
        """The shop's copy gets a level, if that is newer."""
        return [branch(IS_ORDER, self._write(ANNOUNCED), otherwise=self._write(COPIED))]

    def _write(self, effect: str) -> Steps:
        written: Steps = [apply(effect, COPY)]
        if not self.copy.durable:
            written = [self.told.once(written)]
        if not self.write_if_newer:
            return self.once(self.handled_there, [self.copy.write(), *written])
        older = [supersede()] if effect == COPIED else []
        return self.once(self.handled_there, [self.copy.write_if_newer(written, otherwise=older)])

    def take(self, row: Steps = (), accounting: Side | None = None) -> Steps:
        """Accounting takes the units, or rejects the order, in one of its processes. Where there are further steps, that then
        calls one service after the other, and nobody undoes anything."""
        return self.once(self.handled_here, self.tasks[0].done([*row, *self.onward(accounting)]))

    def onward(self, accounting: Side | None = None) -> Steps:
        """The further steps of an order, where it has some, beside what accounting does."""
        others = self.tasks[1:]
        return [spawn(called(self.flow, self.p, accounting or self.accounting, others))] if others else []

    def once(self, table: Table, steps: Steps) -> Steps:
        """The steps once for each message where the receiver is idempotent."""
        return [table.once(steps)] if self.idempotent_receiver else steps
