"""The two sides that every architecture connects, as parts of a flow: what a visit to their HTTP service or database costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simlib.architectures.parameters import CONNECTION_GIVEN, Parameters
from simlib.domain import ORDER, STOCK_UPDATE
from simlib.flow import (
    AWAITED,
    KIND,
    POISONED,
    Flow,
    Part,
    Pool,
    Step,
    Steps,
    ack,
    branch,
    by_attempt,
    call,
    delay,
    fail,
    for_each,
    publish,
    receive,
    reply,
    respond,
    wait_until,
)
from simlib.flow.blocks import Time
from simlib.flow.model import Discipline
from simlib.scenario import HANDLER_FAILURE, HANDLER_WORK, Scenario

ANNOUNCEMENT_WORK = "announcement_work"
"""Shared stream: the shop's handling of the change of stock that an order made."""


@dataclass(frozen=True)
class Machine:
    """What both sides stand on, as their twins do: the cores of one machine, and one database server's log, which is flushed
    to disk one commit at a time."""

    cores: Pool
    log: Pool


@dataclass(frozen=True)
class Side:
    """A side: one process with one event loop, and its database. `label` in the methods tells visits apart in the draws."""

    part: Part
    database: Pool
    machine: Machine
    parameters: Parameters

    def work(self, time: Time, stream: str) -> Steps:
        """Processor work of the side."""
        return work(self.part, self.machine, time, stream)

    def turns(self, count: int) -> Steps:
        """So many turns of the event loop, the last of which the row goes on in; whoever waits comes before."""
        return [self.part.cpu.turn()] * count if self.parameters.event_loop else []

    def turns_of_who_waited(self, count: int) -> Steps:
        """So many turns where the row waited for what it was given: what is there is had without a task that is woken."""
        return [branch(AWAITED.equals(1), self.turns(count))] if self.parameters.event_loop else []

    def post(self, label: str) -> Steps:
        """Send an HTTP request that has content, which the client writes in a task of its own (aiohttp on Python 3.11)."""
        return [*self.work(self.parameters.http_client, f"{label}.client.send"), *self.turns(1)]

    def receive(self, label: str) -> Steps:
        """Take in an HTTP request."""
        return self.work(self.parameters.http_server, f"{label}.receive")

    def answer(self, label: str) -> Steps:
        """Answer an HTTP request."""
        return self.work(self.parameters.http_server, f"{label}.answer")

    def commit(self, label: str, insert: Steps = ()) -> Steps:
        """A writing transaction: what a read costs, what else is written, and the flush of the log."""
        p, machine, stream = self.parameters, self.machine, f"{label}.commit"
        written = [*insert, machine.log.serve(p.commit, stream=f"{stream}.flush")]
        return self.transact(stream, [machine.cores.serve(p.read, stream=stream), *written])

    def read(self, label: str) -> Steps:
        """A read, with the processor work that it costs here before and after, and on the server."""
        return self.transact(f"{label}.read", [self.machine.cores.serve(self.parameters.read, stream=f"{label}.read")])

    def transact(self, label: str, server: Steps) -> Steps:
        """A connection, and what the database's client does around the work of the server."""
        client = self.parameters.database_client
        return [
            self.database.seize(),
            *self.turns_of_who_waited(CONNECTION_GIVEN),
            *self.work(client, f"{label}.ask"),
            *server,
            *self.work(client, f"{label}.took"),
            self.database.release(),
        ]

    def handle(self, scenario: Scenario, stream: str = HANDLER_WORK) -> Steps:
        """The handler's work, which may fail, and fails for poison."""
        steps = [
            *self.work(scenario.handler_work, stream),
            branch(scenario.handler_failure, [fail()], stream=f"{HANDLER_FAILURE}.{stream}"),
            branch(POISONED.equals(1), [fail()]),
        ]
        return [by_attempt(steps)]


def work(part: Part, machine: Machine, time: Time, stream: str) -> Steps:
    """Processor work: in the part's one event loop, on a core of the machine."""
    return [part.cpu.seize(), machine.cores.serve(time, stream=stream), part.cpu.release()]


def sides(flow: Flow, parameters: Parameters) -> tuple[Side, Side]:
    """Accounting and shop, on one machine."""
    machine = Machine(flow.pool("cores", capacity=parameters.cores), flow.pool("database_log", capacity=1))
    accounting, shop = (side(flow, name, machine, parameters) for name in ("accounting", "shop"))
    return accounting, shop


def side(flow: Flow, name: str, machine: Machine, parameters: Parameters) -> Side:
    """A service with a database of its own, on a machine."""
    part = process(flow, name, parameters)
    return Side(part, part.pool("database", capacity=parameters.database_connections), machine, parameters)


def process(flow: Flow, name: str, parameters: Parameters, replica_of: Part | None = None) -> Part:
    """A process of a service."""
    discipline: Discipline = "event_loop" if parameters.event_loop else "priority"
    return flow.part(name, replica_of=replica_of, discipline=discipline)


def processes(flow: Flow, one: Side, count: int) -> list[Side]:
    """A side's processes, all on its database: that one, and further parts that are called after it."""
    names = [f"{one.part.name}.{number}" for number in range(2, count + 1)]
    return [one, *(replace(one, part=process(flow, name, one.parameters, one.part)) for name in names)]


def group_commit(part: Part, log: Pool, flush: Time, name: str) -> Step:
    """A wait for a flush of the log: one serves all who wait when the log is free (DeWitt et al., SIGMOD 1984)."""
    unflushed = part.queue(f"{name}.unflushed", detected_after=0.0)
    together = [log.seize(), receive(unflushed), delay(flush, stream=f"{name}.flush"), log.release()]
    part.flow.actor(f"{name}.flusher", part, [wait_until(unflushed), *together, for_each([reply("ok")]), ack()])
    return call([publish(unflushed)])


def arrive(parameters: Parameters, label: str) -> Steps:
    """From the caller to the side it calls."""
    return [delay(parameters.edge, stream=f"{label}.edge.there")]


def leave(parameters: Parameters, label: str, answer_from: str = "") -> Steps:
    """From the side back to the caller, who then knows."""
    return [delay(parameters.edge, stream=f"{label}.edge.back"), respond(answer_from=answer_from)]


IS_ORDER, IS_UPDATE = KIND.equals(ORDER), KIND.equals(STOCK_UPDATE)
