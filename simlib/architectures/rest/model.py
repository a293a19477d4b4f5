"""Direct REST, the baseline: each side calls the other's HTTP service and waits for the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from simlib.architectures.fulfilment import tasks
from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Truth
from simlib.architectures.sides import ANNOUNCEMENT_WORK, Side, arrive, leave, processes, sides
from simlib.domain import ANNOUNCED, COPIED, COPY, DONE_BY, ISSUED, ORDER, STOCK, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.flow import (
    MEMBER,
    RESULT,
    Backoff,
    Breaker,
    Budget,
    Flow,
    Link,
    Part,
    Pool,
    Steps,
    apply,
    branch,
    call,
    delay,
    fail,
    hedge,
    reply,
    rescue,
    retry,
    spawn,
    supersede,
    timeout,
)
from simlib.flow.blocks import Step
from simlib.quantities import Duration, Number, Whole
from simlib.scenario import HANDLER_WORK, Scenario

UNBOUNDED = 100_000
"""A backlog that no run fills."""


class Caller(Parameters):
    """Parameters of a side that calls another's service."""

    connections: Count = Field(16, description="connections of each side to the other's service")
    timeout: PositiveDuration = Field(1.0, description="after which a caller abandons a call, s")
    retries: Retries = Field(3, description="further attempts after a call failed or timed out")
    backoff: Duration = Field(0.05, description="before the first retry, doubled each time, s")
    jitter: Truth = Field(True, description="whether the backoff is drawn uniformly up to its length")
    idempotency: Truth = Field(True, description="whether a request carries a key by which the server knows it again")


class Rest(Caller):
    """Parameters of direct REST."""

    retry_budget: Annotated[Number, Field(ge=0, le=100)] = Field(
        100.0, description="further attempts that a call pays for, on average over a process's calls"
    )
    hedge_after: Duration = Field(
        0.0,
        description="without an answer, after which a caller asks once more, and takes the first; 0: it never does, s",
    )
    processes: Annotated[Whole, Field(ge=1, le=16)] = Field(
        1, description="processes of each side that answer calls; callers from outside know the first"
    )
    balancing: Literal["round_robin", "random", "two_choices", "least_requests"] = Field(
        "round_robin", description="how a caller chooses among them"
    )
    backlog: Count = Field(UNBOUNDED, description="requests that a process has in hand at most; it refuses more")
    breaker: Retries = Field(
        0, description="failures in a row after which a caller leaves a process alone; 0: it never does"
    )
    breaker_lasts: PositiveDuration = Field(1.0, description="for how long it does so, s")


def build(p: Rest, scenario: Scenario) -> Flow:
    """The flow of direct REST."""
    flow = Flow("rest")
    return connected(flow, p, scenario, Network(flow, p))


class Network:
    """The processes of both sides, and how one calls the other side's: over connections of its own, each to one of them."""

    def __init__(self, flow: Flow, p: Rest) -> None:
        self.flow, self.p = flow, p
        self.accounting, self.shop = (processes(flow, side, p.processes) for side in sides(flow, p))
        self.machine = self.accounting[0].machine
        everyone = [*self.accounting, *self.shop]
        self.links = self.join()
        self.connections = {
            side.part: side.part.pool(
                "connections", capacity=p.connections, members=self.known, select=p.balancing,
                breaker=Breaker(p.breaker, p.breaker_lasts) if p.breaker else None,
            ) for side in everyone
        }  # fmt: skip
        budgeted = p.retry_budget < p.retries
        self.budgets = {
            side.part: flow.budget(f"{side.part.name}.retries", p.retry_budget) for side in everyone if budgeted
        }
        bounded = p.backlog < UNBOUNDED
        self.accepted = {
            side.part: side.part.pool("accepted", capacity=p.backlog, queue_limit=0) for side in everyone if bounded
        }

    @property
    def known(self) -> int:
        """Among how many a process chooses when it takes a connection."""
        return self.p.processes

    def join(self) -> dict[tuple[Part, Part], Link]:
        """The ways between the processes of the sides, in both directions."""
        ways = {}
        for one in self.accounting:
            for other in self.shop:
                ways[one.part, other.part] = ways[other.part, one.part] = self.link(one.part, other.part)
        return ways

    def link(self, one: Part, other: Part) -> Link:
        """The way between two processes."""
        return self.flow.link(one, other, self.p.network)

    def request(self, label: str, here: Side, there: Sequence[Side], work: Callable[[Side], Steps]) -> Steps:
        """A call of one of the other side's processes."""
        asked = self.ask(label, here, there, lambda side: serve(label, side, work(side), self.accepted.get(side.part)))
        connections, budget = self.connections[here.part], self.budgets.get(here.part)
        return attempted(self.p, label, here, connections, asked, budget, self.p.hedge_after)

    def ask(self, label: str, here: Side, there: Sequence[Side], served: Callable[[Side], Steps]) -> Steps:
        """Ask the process that the connection is to."""
        return chosen([[call(travel(label, self.links[here.part, side.part], served(side)))] for side in there])


def request(p: Caller, label: str, here: Side, connections: Pool, link: Link, there: Side, work: Steps) -> Steps:
    """A call of the other side's service, which is one process."""
    return attempted(p, label, here, connections, [call(travel(label, link, serve(label, there, work)))])


def attempted(
    p: Caller,
    label: str,
    here: Side,
    connections: Pool,
    asked: Steps,
    budget: Budget | None = None,
    hedge_after: float = 0.0,
) -> Steps:
    """Ask over a connection, with a timeout that abandons, and again where that fails; perhaps hedged by a second request."""
    failed = branch(RESULT.equals("timed_out"), [fail("timed_out")], otherwise=[fail()])
    attempt = [
        connections.seize(stream=f"{label}.balancing"),
        *here.post(label),
        rescue(asked, otherwise=[*here.work(p.http_client, f"{label}.client.failed"), failed]),
        *here.work(p.http_client, f"{label}.client.took"),
        connections.release(),
    ]
    policy = Backoff(retries=p.retries, base=p.backoff, jitter=p.jitter, budget=budget)
    once: Step = timeout(p.timeout, attempt, otherwise=[fail("timed_out")])
    return [retry(policy, [hedge(hedge_after, [once]) if hedge_after else once], stream=f"{label}.backoff")]


def travel(label: str, link: Link, served: Steps) -> Steps:
    """There, what is done there, and back with the answer."""
    back = link.send(stream=f"{label}.network.back"), reply()
    failed = link.send(stream=f"{label}.network.failed"), reply("failed")
    answer = branch(RESULT.equals("failed"), failed, otherwise=back)
    return [link.send(stream=f"{label}.network.there"), *served, answer]


def serve(label: str, there: Side, work: Steps, accepted: Pool | None = None) -> Steps:
    """What a request comes to, where it is accepted."""
    steps: list[Step] = [
        *there.receive(f"{label}.server"),
        rescue([*work, *there.answer(f"{label}.server")], otherwise=there.answer(f"{label}.failed")),
    ]
    return [rescue([accepted.seize(), *steps, accepted.release()], otherwise=[])] if accepted else steps


def chosen(ways: Sequence[Steps], number: int = 0) -> Steps:
    """The way to the member that the row has a unit of."""
    if number == len(ways) - 1:
        return ways[number]
    return [branch(MEMBER.equals(number), ways[number], otherwise=chosen(ways, number + 1))]


def connected(flow: Flow, p: Rest, scenario: Scenario, network: Network) -> Flow:
    """Both sides, each of which calls the other over a network."""
    (accounting, *_), (shop, *_) = all_accounting, all_shop = network.accounting, network.shop
    stock = accounting.part.table("stock", stocked=True)
    copy = shop.part.table("copy", stocked=True)
    keys = {
        effect: part.table(f"{part.name}.{effect}", key="message")
        for effect, part in ((ANNOUNCED, shop.part), (COPIED, shop.part), (TAKEN, accounting.part))
        if p.idempotency
    }

    def once(effect: str, steps: Steps) -> Steps:
        """The steps once for each message where requests carry an idempotency key, else each time."""
        return [keys[effect].once(steps)] if p.idempotency else steps

    def write_copy(effect: str) -> Steps:
        return [copy.write_if_newer([apply(effect, COPY)], otherwise=[supersede()] if effect == COPIED else [])]

    steps = tasks(flow, scenario, accounting, stock)
    if p.idempotency:
        for effect, part in ((DONE_BY[task.step][0], task.side.part) for task in steps[1:]):
            keys[effect] = part.table(f"{part.name}.{effect}", key="message")

    def announce(side: Side) -> Steps:
        return [
            *side.handle(scenario, ANNOUNCEMENT_WORK),
            *side.commit("announce.shop"),
            *once(ANNOUNCED, write_copy(ANNOUNCED)),
        ]

    def update(side: Side) -> Steps:
        return [*side.handle(scenario, HANDLER_WORK), *side.commit("update.shop"), *once(COPIED, write_copy(COPIED))]

    def order(side: Side, k: int = 0) -> Steps:
        """A step of an order; where nobody is to hear of it, its answer is late for whoever asked."""
        task = steps[k]
        told = [spawn(network.request("announce", side, all_shop, announce))] if k == 0 else []
        late = branch(RESULT.equals("timed_out"), [delay(p.timeout)])
        unheard = [*task.unheard(), late] if scenario.step_timed_out else []
        name = "order.accounting" if k == 0 else f"{task.step}.{task.side.part.name}"
        return [
            *side.handle(scenario, task.work),
            *side.commit(name),
            *once(DONE_BY[task.step][0], task.done(told)),
            *unheard,
        ]

    def onward(k: int) -> Steps:
        """The shop calls the further services one after the other, as long as none refuses; nobody undoes anything."""
        if k == len(steps):
            return []
        there, name = steps[k].side, steps[k].step
        if there is accounting:
            asked = network.request(name, shop, all_accounting, lambda side: order(side, k))
        else:
            pool = shop.part.pool(f"connections.{there.part.name}", capacity=p.connections)
            asked = request(p, name, shop, pool, flow.link(shop.part, there.part, p.network), there, order(there, k))
        return [branch(RESULT.equals("ok"), [*asked, *onward(k + 1)])]

    def query(side: Side) -> Steps:
        return [*side.handle(scenario), *side.read("query.accounting"), stock.read()]

    flow.source(STOCK_UPDATE, at=accounting.part, steps=[
        *arrive(p, "update"), *accounting.receive("update.accounting"),
        *accounting.commit("update.accounting"), stock.add(), apply(ISSUED, STOCK, sign=1),
        *network.request("update", accounting, all_shop, update),
        *accounting.answer("update.accounting"), *leave(p, "update"),
    ])  # fmt: skip
    flow.source(ORDER, at=shop.part, steps=[
        *arrive(p, "order"), *shop.receive("order.shop"), *network.request("order", shop, all_accounting, order), *onward(1),
        *shop.answer("order.shop"), *leave(p, "order"),
    ])  # fmt: skip
    flow.source(STOCK_QUERY, at=shop.part, steps=[
        *arrive(p, "query"), *shop.receive("query.shop"), *network.request("query", shop, all_accounting, query),
        *shop.answer("query.shop"), *leave(p, "query", answer_from=STOCK),
    ])  # fmt: skip
    return flow
