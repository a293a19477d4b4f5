"""Direct REST, the baseline: each side calls the other's HTTP service and waits for the answer."""

from __future__ import annotations

from pydantic import Field

from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Truth
from simlib.architectures.sides import ANNOUNCEMENT_WORK, Side, arrive, leave, sides
from simlib.domain import ANNOUNCED, COPIED, COPY, ISSUED, ORDER, STOCK, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.flow import (
    Backoff,
    Flow,
    Link,
    Pool,
    Steps,
    Table,
    apply,
    call,
    fail,
    reject,
    reply,
    rescue,
    retry,
    spawn,
    supersede,
    timeout,
)
from simlib.quantities import Duration
from simlib.scenario import HANDLER_WORK, Scenario


class Rest(Parameters):
    """Parameters of direct REST."""

    connections: Count = Field(16, description="connections of each side to the other's service")
    timeout: PositiveDuration = Field(1.0, description="after which a caller abandons a call, s")
    retries: Retries = Field(3, description="further attempts after a call failed or timed out")
    backoff: Duration = Field(0.05, description="before the first retry, doubled each time, s")
    jitter: Truth = Field(True, description="whether the backoff is drawn uniformly up to its length")
    idempotency: Truth = Field(True, description="whether a request carries a key by which the server knows it again")


def build(p: Rest, scenario: Scenario) -> Flow:
    """The flow of direct REST."""
    flow = Flow("rest")
    accounting, shop = sides(flow, p)
    network = flow.link(accounting.part, shop.part, p.network)
    to_shop = accounting.part.pool("connections", capacity=p.connections)
    to_accounting = shop.part.pool("connections", capacity=p.connections)
    stock = accounting.part.table("stock", stocked=True)
    copy = shop.part.table("copy", stocked=True)

    def write_copy(effect: str) -> Steps:
        return [copy.write_if_newer([apply(effect, COPY)], otherwise=[supersede()] if effect == COPIED else [])]

    announce = request(
        p, "announce", accounting, to_shop, network, shop,
        [*shop.handle(scenario, ANNOUNCEMENT_WORK), *shop.commit("announce.shop"),
         *once(p, shop, "announced", write_copy(ANNOUNCED))],
    )  # fmt: skip
    take = [stock.take([apply(TAKEN, STOCK, sign=-1), spawn(announce)], otherwise=[reject()])]

    flow.source(STOCK_UPDATE, at=accounting.part, steps=[
        *arrive(p, "update"), *accounting.receive("update.accounting"),
        *accounting.commit("update.accounting"), stock.add(), apply(ISSUED, STOCK, sign=1),
        *request(p, "update", accounting, to_shop, network, shop,
                 [*shop.handle(scenario, HANDLER_WORK), *shop.commit("update.shop"), *once(p, shop, "copied", write_copy(COPIED))]),
        *accounting.answer("update.accounting"), *leave(p, "update"),
    ])  # fmt: skip
    flow.source(ORDER, at=shop.part, steps=[
        *arrive(p, "order"), *shop.receive("order.shop"),
        *request(p, "order", shop, to_accounting, network, accounting,
                 [*accounting.handle(scenario), *accounting.commit("order.accounting"), *once(p, accounting, "taken", take)]),
        *shop.answer("order.shop"), *leave(p, "order"),
    ])  # fmt: skip
    flow.source(STOCK_QUERY, at=shop.part, steps=[
        *arrive(p, "query"), *shop.receive("query.shop"),
        *request(p, "query", shop, to_accounting, network, accounting,
                 [*accounting.handle(scenario), *accounting.read("query.accounting"), stock.read()]),
        *shop.answer("query.shop"), *leave(p, "query", answer_from=STOCK),
    ])  # fmt: skip
    return flow


def request(p: Rest, label: str, here: Side, connections: Pool, network: Link, there: Side, work: Steps) -> Steps:
    """A call of the other side's service: a connection, a timeout that abandons, retries."""
    server = [
        network.send(stream=f"{label}.network.there"),
        *there.receive(f"{label}.server"),
        rescue([*work, *there.answer(f"{label}.server"), network.send(stream=f"{label}.network.back"), reply()],
               otherwise=[*there.answer(f"{label}.failed"), network.send(stream=f"{label}.network.failed"), reply("failed")]),
    ]  # fmt: skip
    attempt = [
        connections.seize(),
        *here.work(p.http_client, f"{label}.client.send"),
        rescue([call(server)],
               otherwise=[*here.work(p.http_client, f"{label}.client.failed"), fail()]),
        *here.work(p.http_client, f"{label}.client.took"),
        connections.release(),
    ]  # fmt: skip
    policy = Backoff(retries=p.retries, base=p.backoff, jitter=p.jitter)
    return [retry(policy, [timeout(p.timeout, attempt, otherwise=[fail("timed_out")])], stream=f"{label}.backoff")]


def once(p: Rest, at: Side, name: str, steps: Steps) -> Steps:
    """The steps once for each message where requests carry an idempotency key, else each time."""
    if not p.idempotency:
        return steps
    received: Table = at.part.table(f"{at.part.name}.{name}", key="message")
    return [received.once(steps)]
