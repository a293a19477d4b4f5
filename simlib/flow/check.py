"""What can be known of a flow before it runs: it is walked as its rows would walk it, along every path."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple, get_args

from simlib.distributions import Constant
from simlib.domain import RESPONSES
from simlib.errors import BadInput, unknown
from simlib.flow.blocks import (
    CELL_FIELDS,
    COMPARISONS,
    FIELDS,
    Ack,
    Add,
    Affine,
    Apply,
    Backoff,
    Branch,
    ByAttempt,
    BySku,
    Call,
    Checkpoint,
    Choose,
    Condition,
    Delay,
    Every,
    Fail,
    ForEach,
    Fork,
    GiveToken,
    Hedge,
    Linear,
    Mark,
    Nack,
    Once,
    Publish,
    Read,
    Receive,
    Reject,
    Release,
    Repeat,
    Reply,
    Rescue,
    Respond,
    Retry,
    Seek,
    Seize,
    Send,
    Serve,
    Spawn,
    Step,
    Steps,
    Supersede,
    Take,
    TakeToken,
    Time,
    Timeout,
    Turn,
    WaitForCell,
    WaitUntil,
    Write,
    WriteIfNewer,
)
from simlib.flow.model import (
    Actor,
    Choice,
    Coordinator,
    Credit,
    Discipline,
    Flow,
    Key,
    Link,
    Log,
    Overflow,
    Part,
    Pool,
    Queue,
    Replica,
    Requeue,
    Select,
    Table,
    children,
    everything,
)  # fmt: skip

NOUNS: dict[type, str] = {
    Pool: "pool", Link: "link", Queue: "queue", Log: "log", Table: "table", Credit: "credit",
}  # fmt: skip
WAITING = (
    Delay,
    Every,
    Seize,
    Serve,
    Turn,
    Send,
    Call,
    Fork,
    Hedge,
    Retry,
    Timeout,
    WaitUntil,
    WaitForCell,
    TakeToken,
)
"""Steps that may take time."""
OF_A_MESSAGE = (
    Publish, Read, Write, WriteIfNewer, Add, Take, Once, Apply, Respond, Reject, Supersede, Mark, Reply, Call, Fork, Hedge, Spawn,
    ByAttempt, BySku, Send, WaitForCell,
)  # fmt: skip
"""Steps that an actor can do for a message alone."""
DEEPER = (Repeat, Retry, Hedge)
"""Steps that repeat what is in them: a draw there counts the turns."""
READING = (Branch, Delay, Serve, WaitForCell)
"""Steps that may read fields."""
BY_ATTEMPT, EACH = -1_000, -1_000_000
"""The depth inside `by_attempt`, whose draws do not count what repeats around them; the first of those inside a `for_each`,
whose draws are those of the deliveries, others each time."""
ROUNDING = 1e-9
"""How far probabilities that were added up may be beyond 0 and 1."""


def check(flow: Flow) -> list[str]:
    """Warnings, a line each; raises BadInput where the flow cannot run."""
    warnings = Checker(flow).run()
    between = [source.interarrival for source in flow.sources.values()]
    if all(time is not None and time.mean_value > 0 for time in between):
        warnings += [f"flow '{flow.name}': {warning}" for warning in flow.bounds().warnings]
    return list(dict.fromkeys(warnings))


def must_run(flow: Flow) -> None:
    """Raise BadInput where the flow cannot run."""
    Checker(flow).run()


class State(NamedTuple):
    """What a row can be like between two steps: where it is, what it holds (the last taken last), and the named
    streams that it has drawn from, each with how many counters deep it was."""

    part: Part | None
    held: tuple[Pool, ...] = ()
    drawn: frozenset[tuple[str, int]] = frozenset()


class Scope(NamedTuple):
    """What stands around a step: the kind of row, the queue whose delivery it has in hand, the actor whose loop it is,
    whether somebody waits for its reply, whether a failure is caught or a time-out runs, how many counters deep it is, and
    how many units were held before."""

    row: str
    queue: Queue | None = None
    actor: Actor | None = None
    answers: bool = False
    rescued: bool = False
    timed: bool = False
    depth: int = 0
    floor: int = 0


class Checker:
    """One check of a flow."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.where = f"flow '{flow.name}'"
        self.warnings: dict[str, None] = {}
        self.entered: dict[tuple[str, State, Scope], None] = {}
        self.published: dict[Queue, None] = {}
        self.met: list[tuple[str, int]] = []
        self.awaited: list[Queue] = []

    def bad(self, message: str) -> BadInput:
        """The error for what cannot run, with where it stands."""
        return BadInput(f"{self.where}: {message}")

    def warn(self, message: str) -> None:
        """Note what can run, but was hardly meant so."""
        self.warnings[f"{self.where}: {message}"] = None

    def run(self) -> list[str]:
        """Walk all there is."""
        flow, whole = self.flow, self.where
        if not flow.sources:
            raise self.bad("nothing enters: give it a source")
        self.nouns()
        for source in flow.sources.values():
            self.where = f"{whole}, source '{source.kind}'"
            self.program(source.kind, source.steps, State(source.at), Scope("source"))
        for group in flow.consumer_groups.values():
            self.where = f"{whole}, consumers of '{group.queue.name}'"
            self.program(group.name, group.steps, State(group.at), Scope("consumer", group.queue, answers=True))
        for actor in flow.actors.values():
            self.where = f"{whole}, actor '{actor.name}'"
            if not _surely_waits(actor.steps):
                raise self.bad(
                    "a turn that may take no time goes round for ever: let it wait until something, or for a time"
                )
            self.program(actor.name, actor.steps, State(actor.at), Scope("actor", actor=actor))
        walked = 0
        while walked < len(self.entered):
            stage, state, scope = list(self.entered)[walked]
            self.where = f"{whole}, stage '{stage}'"
            self.program(f"stage.{stage}", flow.stages[stage], state, scope)
            walked += 1
        self.where = whole
        for stage in flow.stages:
            if stage not in {name for name, _, _ in self.entered}:
                raise self.bad(f"no step chooses stage '{stage}': choose it or take it out")
        self.deliveries()
        return list(self.warnings)

    # --- nouns ------------------------------------------------------------------------------------------------------

    def nouns(self) -> None:
        """What was said of parts, links, pools, queues, tables and sources."""
        flow = self.flow
        for link in flow.links.values():
            self.number(link.loss, f"loss of link '{link.name}'", most=1.0)
            if link.ends[0] is link.ends[1]:
                raise self.bad(f"link '{link.name}' has part '{link.ends[0].name}' at both ends: give it two parts")
        for pool in flow.pools.values():
            self.number(pool.members, f"members of pool '{pool.name}'", least=1, whole=True)
            if pool.queue_limit is not None:
                self.number(pool.queue_limit, f"queue_limit of pool '{pool.name}'", whole=True)
            if pool.breaker is not None:
                what = f"the breaker of pool '{pool.name}'"
                self.number(pool.breaker.failures, f"failures of {what}", least=1, whole=True)
                self.number(pool.breaker.lasts, f"lasts of {what}", above=True)
                self.number(pool.breaker.at_most, f"at_most of {what}", most=1.0)
            if pool.select not in get_args(Select):
                raise unknown(f"select of pool '{pool.name}'", str(pool.select), get_args(Select))
            if pool.discipline not in get_args(Discipline):
                raise unknown(f"discipline of pool '{pool.name}'", str(pool.discipline), get_args(Discipline))
            if pool.discipline == "preemptive" and pool.capacity > 1:
                raise self.bad(
                    f"pool '{pool.name}' is preemptive with a capacity of {pool.capacity}: give it a capacity of 1, and members"
                )
            if pool.discipline == "event_loop" and (pool.capacity, pool.members) != (1, 1):
                raise self.bad(
                    f"event loop '{pool.name}' has {pool.members} members with a capacity of {pool.capacity}: give it one of each"
                )
        for budget in flow.budgets.values():
            self.number(budget.share, f"share of budget '{budget.name}'")
            self.number(budget.reserve, f"reserve of budget '{budget.name}'", least=1)
        for queue in flow.queues.values():
            counts = ("prefetch", "max_deliveries", "length")
            for option, value in ((name, getattr(queue, name)) for name in counts):
                if value is not None:
                    self.number(value, f"{option} of queue '{queue.name}'", least=1, whole=True)
            if queue.requeue not in get_args(Requeue):
                raise unknown(f"requeue of queue '{queue.name}'", str(queue.requeue), get_args(Requeue))
            if queue.overflow not in get_args(Overflow):
                raise unknown(f"overflow of queue '{queue.name}'", str(queue.overflow), get_args(Overflow))
            times = ("ack_wait", "deduplicate", "detected_after", "flush_every", "state_every", "commit_every", "ttl")
            for option, time in ((name, getattr(queue, name)) for name in times):
                if time is not None:
                    above = option in ("ack_wait", "flush_every", "state_every", "commit_every", "ttl")
                    self.number(time, f"{option} of queue '{queue.name}'", above=above)
            if queue.log is not None:
                self.grouped(queue)
            elif queue.commit_every is not None:
                raise self.bad(f"queue '{queue.name}' has no position to commit: make it the group of a log")
            if queue.coordinator is not None:
                self.coordinated(queue, queue.coordinator)
        for coordinator in flow.coordinators.values():
            what = f"coordinator '{coordinator.name}'"
            self.number(coordinator.session_timeout, f"session_timeout of {what}")
            self.number(len(set(coordinator.members)), f"different members of {what}", least=1, whole=True)
            if len(set(coordinator.members)) < len(coordinator.members):
                raise self.bad(f"{what} has a member twice: name each part once")
            for part in coordinator.members:
                self.mine(part, "part", flow.parts)
        for what, noun in [("table", table) for table in flow.tables.values()] + [
            ("credit", credit) for credit in flow.credits.values()
        ]:
            for key in (noun.key,) if isinstance(noun.key, str) else noun.key or ():
                if key not in get_args(Key):
                    raise unknown(f"key of {what} '{noun.name}'", str(key), get_args(Key))
        for table in flow.tables.values():
            if table.stocked and (table.key != "sku" or table.window is not None):
                raise self.bad(f"table '{table.name}' is stocked, but not by SKU: leave its key, window or stock out")
            if table.window is not None:
                self.number(table.window, f"window of table '{table.name}'", above=True)
            self.number(table.replicas, f"replicas of table '{table.name}'", least=1, whole=True)
        for source in flow.sources.values():
            if source.population is not None:
                self.number(source.population, f"population of source '{source.kind}'", least=1, whole=True)
                if source.interarrival is not None:
                    raise self.bad(
                        f"source '{source.kind}' has an interarrival time and a population: give it one of them"
                    )
            elif source.think is not None:
                raise self.bad(f"source '{source.kind}' thinks, but has no population: give it one")
        nouns: tuple[dict[str, Any], ...] = (
            flow.pools, flow.queues, flow.tables, flow.sources, flow.consumer_groups, flow.actors, flow.credits,
            flow.coordinators,
        )  # fmt: skip
        for noun in (noun for named in nouns for noun in named.values() if noun.at is not None):
            self.mine(noun.at, "part", flow.parts)
        for link in flow.links.values():
            for end in link.ends:
                self.mine(end, "part", flow.parts)
        for group in flow.consumer_groups.values():
            self.mine(group.queue, "queue", flow.queues)
            over = group.queue.link
            if over is not None:
                self.mine(over, "link", flow.links)
                if {group.queue.at, group.at} != set(over.ends):
                    raise self.bad(
                        f"queue '{group.queue.name}' at '{group.queue.at.name}' delivers to '{group.at.name}' over link"
                        f" '{over.name}', which joins others: name the link between them"
                    )

    def grouped(self, queue: Queue) -> None:
        """A log's group has its deliveries in the log's order, from its position on."""
        assert queue.log is not None
        self.mine(queue.log, "log", self.flow.logs)
        unfit = ("automatic_ack", "max_deliveries", "deduplicate", "coalesce", "length", "ttl")
        for option in (name for name in unfit if getattr(queue, name) not in (None, False)):
            raise self.bad(f"queue '{queue.name}' is the group of a log, which has no {option}: leave it out")
        if queue.requeue != "head" or queue.detected_after is None:
            raise self.bad(
                f"queue '{queue.name}' is the group of a log, which comes again from its position on, after a"
                " session timeout: leave requeue out, and give it a detected_after"
            )

    def coordinated(self, queue: Queue, coordinator: Coordinator) -> None:
        """A coordinator says which of its members reads a partition of a log's group."""
        self.mine(coordinator, "coordinator", self.flow.coordinators)
        if queue.log is None or queue.at is not coordinator.at or queue.detected_after != coordinator.session_timeout:
            raise self.bad(
                f"queue '{queue.name}' has coordinator '{coordinator.name}', which shares out the groups of logs at its own"
                " part: give it to a group, and leave detected_after out"
            )
        reading = {actor.at for actor in self.flow.actors.values() if queue in actor.queues}
        if queue.name in self.flow.consumer_groups or reading != set(coordinator.members):
            raise self.bad(
                f"queue '{queue.name}' is shared out by coordinator '{coordinator.name}': have an actor at each member receive"
                " from it, and nobody else"
            )

    def mine(self, noun: Any, what: str, table: dict[str, Any]) -> None:
        """A noun must be one of this flow's own."""
        if table.get(noun.name) is not noun:
            raise self.bad(f"{what} '{noun.name}' belongs to another flow: use one that was made with this flow")

    def number(
        self, value: Any, what: str, least: float = 0, most: float = math.inf, above: bool = False, whole: bool = False
    ) -> None:
        """A value must be a number between two others; `above`: more than the least; `whole`: without a fraction."""
        proper = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if proper and least <= value <= most and value < math.inf and not (above and value == least):
            return
        limits = f"above {least:g}" if above else f"at least {least:g}"
        if most < math.inf:
            limits = f"between {least:g} and {most:g}"
        raise self.bad(f"{what} must be {'a whole number of ' if whole else ''}{limits}, got {value!r}: correct it")

    def deliveries(self) -> None:
        """What becomes of what is published."""
        readers: dict[Queue, Actor] = {}
        for actor in self.flow.actors.values():
            for queue in actor.queues:
                if queue.name in self.flow.consumer_groups:
                    raise self.bad(
                        f"actor '{actor.name}' receives from queue '{queue.name}', which has consumers: have one"
                    )
                if readers.setdefault(queue, actor).at is not actor.at and queue.coordinator is None:
                    raise self.bad(
                        f"actors at two parts receive from queue '{queue.name}': have all of them at one, or a coordinator"
                    )
                if queue.coordinator is not None and any(
                    isinstance(step, Nack) and step.delay for step in everything(actor.steps)
                ):
                    raise self.bad(
                        f"actor '{actor.name}' hands back for later what it has of queue '{queue.name}', which another member may"
                        " read then: leave the delay of its nack out"
                    )
                if queue.link is not None:
                    raise self.bad(
                        f"actor '{actor.name}' receives from queue '{queue.name}', which delivers over a link: leave the link"
                        " out, and delay the actor by what asking over it takes"
                    )
            if actor.queues and not any(isinstance(step, Ack | Nack) for step in everything(actor.steps)):
                self.warn(f"actor '{actor.name}' never acknowledges: add ack()")
        for queue in self.awaited:
            if queue not in readers:
                raise self.bad(f"no actor receives from queue '{queue.name}' that is waited for: receive from it")
        for queue in self.flow.queues.values():
            if queue in self.published and queue.name not in self.flow.consumer_groups and queue not in readers:
                raise self.bad(f"queue '{queue.name}' has no consumers: give it some, or do not publish to it")
            if queue not in self.published:
                self.warn(f"nobody publishes to queue '{queue.name}'")
            if queue.link is not None and queue.link.loss and queue.ack_wait is None and not queue.automatic_ack:
                self.warn(
                    f"link '{queue.link.name}' loses deliveries of queue '{queue.name}', which are never delivered"
                    " again: give the queue an ack_wait"
                )
        for group in self.flow.consumer_groups.values():
            entered = (self.flow.stages[name] for name, _, scope in self.entered if scope.queue is group.queue)
            reached = [group.steps, *entered]
            settles = any(isinstance(step, Ack | Nack) for steps in reached for step in everything(steps))
            if not settles and not group.queue.automatic_ack:
                self.warn(
                    f"consumers of '{group.queue.name}' never acknowledge: add ack(), or make the queue automatic_ack"
                )

    # --- programs ---------------------------------------------------------------------------------------------------

    def program(self, name: str, steps: Steps, state: State, scope: Scope) -> None:
        """A program from its start: its steps, its streams, its paths."""
        found: list[Step] = []
        self.valid(steps, found)
        streams = Counter(f"{name}.{stream}" for stream in map(_own_stream, found) if stream)
        for stream, times in streams.items():
            if times > 1:
                raise self.bad(f"{times} steps draw from one stream, '{stream}': give each a stream= of its own")
        self.path(steps, state, scope)

    def valid(self, steps: Any, found: list[Step]) -> None:
        """Steps are steps, their values can be used, and their nouns are this flow's own; all that are found, in order."""
        if isinstance(steps, Step) or not isinstance(steps, list | tuple):
            raise self.bad(f"steps must be a list, got {_shown(steps)}: write it in brackets")
        for step in steps:
            if not isinstance(step, Step):
                raise self.bad(f"{_shown(step)} is no step: call it, or take it out")
            found.append(step)
            for name, value in vars(step).items():
                if (what := NOUNS.get(type(value))) is not None:
                    self.mine(value, what, getattr(self.flow, f"{what}s"))
                elif name in ("steps", "then", "otherwise"):
                    self.valid(value, found)
                elif name == "branches":
                    for branch in value:
                        self.valid(branch, found)
            self.values(step)

    def values(self, step: Step) -> None:
        """The numbers and words in a step."""
        for field in _fields(step):
            if field not in FIELDS and self.cell(field) is None:
                cells = [f"{table}.{which}" for table in self.flow.tables for which in CELL_FIELDS]
                raise unknown("field", field, [*FIELDS, *cells])
        for linear in _linear(step):
            self.number(linear.times, "how many times a field is compared with", whole=True)
        match step:
            case Serve() | Seize() | Release() | Send() | Fail():
                return  # most steps, which have no other values
            case Branch(when=Condition(comparison=comparison)):
                if comparison not in COMPARISONS:
                    raise unknown("comparison", comparison, COMPARISONS)
            case Branch(when=probability):
                self.number(probability, "probability of a branch", most=1.0)
            case Choose(stages=stages):
                for stage, probability in stages:
                    self.number(probability, f"probability of stage '{stage}'", least=-ROUNDING, most=1.0 + ROUNDING)
                    if stage not in self.flow.stages:
                        raise unknown("stage", stage, self.flow.stages)
                self.number(
                    math.fsum(p for _, p in stages), "sum of the probabilities of a choice", most=1.0 + ROUNDING
                )
            case Repeat(again=again):
                self.number(again, "again of a repeat", most=1.0)
                if again == 1.0:
                    raise self.bad("a repeat with again=1 never ends: give it a probability below 1")
            case Retry(policy=Backoff(retries=retries, base=base, factor=factor, longest=longest, budget=budget)):
                if budget is not None:
                    self.mine(budget, "budget", self.flow.budgets)
                self.number(retries, "retries of a retry", whole=True)
                for what, value in (("base", base), ("factor", factor), ("longest", longest)):
                    self.number(value, f"{what} of a retry's backoff")
            case Call(steps=steps, timeout=timeout):
                if timeout is not None:
                    self.number(timeout, "timeout of a call")
                if not _answered(steps):
                    raise self.bad("a call that nothing answers: let its steps reply, or publish to consumers who do")
            case Hedge(after=after):
                self.number(after, "after of a hedge")
            case Nack(delay=delay):
                self.number(delay, "delay of a nack")
            case Every(period=period):
                self.number(period, "period of an every", above=True)
            case WaitUntil(queue=queue, at_least=count):
                self.number(count, f"at_least of a wait for queue '{queue.name}'", least=1, whole=True)
                self.awaited.append(queue)
            case Receive(queue=queue, at_most=count) if count is not None:
                self.number(count, f"at_most of what is received from queue '{queue.name}'", least=1, whole=True)
            case (
                Read(table=table, replica=replica)
                | WaitForCell(table=table, replica=replica)
                | Write(table=table, replica=replica)
                | WriteIfNewer(table=table, replica=replica)
            ):
                self.replica(replica, table)
            case Publish(to=Queue(name=name) | Log(name=name, streams=None), sign=sign, expect=expect) if (
                sign or expect
            ):
                raise self.bad(f"'{name}' has no streams to expect or change: publish to a log, and name its streams=")
            case Publish(to=Log() as log, urgent=True):
                raise self.bad(f"log '{log.name}' keeps the order of its records: publish without urgent")
            case Publish(to=Log() as log, sign=0, expect=True):
                raise self.bad(f"a record that changes nothing expects a version of log '{log.name}': give it a sign")
            case Publish(to=Log(flush_every=float() | int()) as log, sign=1 | -1):
                raise self.bad(
                    f"log '{log.name}' loses with the power what was not flushed, but a stream cannot take a version"
                    " back: flush each record (leave flush_every out)"
                )
            case Publish(to=Log() as log) if not log.queues:
                raise self.bad(f"log '{log.name}' is read by nobody: give it a group, with consumers or an actor")
            case Seek(queue=queue):
                if queue.log is None:
                    raise self.bad(f"queue '{queue.name}' keeps nothing to seek in: make it the group of a log")
            case Fork(branches=branches, join=join):
                self.number(
                    len(branches) if join is None else join, "join of a fork", least=1, most=len(branches), whole=True
                )
            case BySku(branches=branches):
                self.number(len(branches), "how many branches there are by SKU", least=1, whole=True)
            case Once(steps=steps):
                slow = next((inner for inner in _at_once(steps) if isinstance(inner, WAITING)), None)
                if slow is not None:
                    raise self.bad(
                        f"{_name(slow)} takes time inside once(), which stands for one transaction: do it before"
                    )
            case Respond(result=str(result)) | Reply(result=str(result)):
                if result not in RESPONSES:
                    raise unknown("result", result, RESPONSES)

    def replica(self, replica: Replica, table: Table) -> None:
        """A replica that a table has."""
        what = f"replica of table '{table.name}'"
        if not isinstance(replica, str):
            self.number(replica, what, most=table.replicas - 1, whole=True)
        elif replica not in get_args(Choice):
            raise unknown(what, replica, get_args(Choice))

    def cell(self, field: str) -> Table | None:
        """The table that a field is of; None where it is none."""
        table, _, which = field.rpartition(".")
        return self.flow.tables.get(table) if which in CELL_FIELDS else None

    def path(self, steps: Steps, state: State, scope: Scope) -> None:
        """A row's whole path, at whose end it holds nothing."""
        for end in self.walk(steps, [state], scope):
            if end.held:
                raise self.bad(f"pool '{end.held[-1].name}' is seized and on a path never released: release it")

    def walk(self, steps: Steps, states: list[State], scope: Scope) -> list[State]:
        """All that a row can be like after the steps; none where it never gets there."""
        before: Step | None = None
        for step in steps:
            if not states and before is not None:
                raise self.bad(f"{_name(step)} after {_name(before)} is never reached: take it out")
            states = [after for state in states for after in self.step(step, state, scope)]
            if len(states) > 1:
                states = _merged(states)
            before = step
        return states

    def step(self, step: Step, state: State, scope: Scope) -> list[State]:
        """All that a row can be like after a step."""
        deep = scope.depth + isinstance(step, DEEPER)
        if (stream := getattr(step, "stream", None)) is not None and _draws(step):
            state = self.draw(state, stream, deep)
        self.in_hand(step, scope)
        for table in filter(None, map(self.cell, _fields(step))):
            self.here(table, "table", state)
        match step:
            case Serve(pool=pool) | Seize(pool=pool):
                self.here(pool, "pool", state)
                if isinstance(step, Seize) and pool.discipline == "preemptive":
                    raise self.bad(f"pool '{pool.name}' is preemptive, which only a service can be: serve there")
                if step.priority and pool.discipline == "event_loop":
                    raise self.bad(
                        f"priority {step.priority} at event loop '{pool.name}', which knows none: leave it out"
                    )
                return [state if isinstance(step, Serve) else state._replace(held=(*state.held, pool))]
            case Release(pool=pool):
                return [state._replace(held=self.released(pool, state.held, scope))]
            case Branch(then=then, otherwise=otherwise):
                return [*self.walk(then, [state], scope), *self.walk(otherwise, [state], scope)]
            case Fail():
                self.failed(scope)
                return []
            case Turn(pool=pool):
                self.here(pool, "pool", state)
                if pool.discipline != "event_loop":
                    raise self.bad(f"turn of pool '{pool.name}', which is no event loop: give it that discipline")
                if pool in state.held:
                    raise self.bad(f"turn of event loop '{pool.name}' by who holds it: release it before")
                return [state]
            case Send():
                return [self.sent(step, state, scope)]
            case Read(table=table) | WaitForCell(table=table) | Write(table=table) | Add(table=table):
                self.here(table, "table", state)
                return [state]
            case Publish(to=to, expect=expect, otherwise=otherwise):
                self.here(to, "log" if isinstance(to, Log) else "queue", state)
                self.published |= dict.fromkeys(to.queues)
                if any(queue.length is not None and queue.overflow == "refuse" for queue in to.queues):
                    self.failed(scope)
                return [state, *self.walk(otherwise, [state], scope)] if expect else [state]
            case TakeToken(credit=credit) | GiveToken(credit=credit):
                self.here(credit, "credit", state)
                return [state]
            case Checkpoint():
                self.outlives(state, scope)
                return [state]
            case ForEach(steps=steps):
                return [state, *self.each(steps, state, _within(scope, state, answers=True, row="consumer"))]
            case Ack() | Nack():
                self.settled(step, state, scope)
                return [state]
            case Reply():
                if not scope.answers:
                    raise self.bad("a reply, but nobody waits for it: reply inside a call or a consumer")
                return [state]
            case Choose(stages=stages):
                if state.held:
                    raise self.bad(
                        f"a row chooses a stage while it holds pool '{state.held[-1].name}': release it before"
                    )
                entry = scope._replace(rescued=False, timed=False, depth=0, floor=0)
                self.entered |= dict.fromkeys((stage, State(state.part), entry) for stage, p in stages if p > 0)
                return []
            case BySku(branches=branches):
                return [after for branch in branches for after in self.walk(branch, [state], scope)]
            case (
                Take(table=table, then=then, otherwise=otherwise)
                | WriteIfNewer(table=table, then=then, otherwise=otherwise)
            ):
                self.here(table, "table", state)
                return [*self.walk(then, [state], scope), *self.walk(otherwise, [state], scope)]
            case Once(table=table, steps=steps):
                self.here(table, "table", state)
                return [state, *self.walk(steps, [state], _within(scope, state))]
            case Repeat(steps=steps):
                return self.repeated(steps, state, _within(scope, state, depth=deep))
            case ByAttempt(steps=steps):
                return self.walk(steps, [state], scope._replace(depth=BY_ATTEMPT))
            case Rescue(steps=steps, otherwise=otherwise):
                return self.attempted(steps, otherwise, state, _within(scope, state, rescued=True), scope)
            case Retry(steps=steps, otherwise=otherwise):
                return self.attempted(steps, otherwise, state, _within(scope, state, rescued=True, depth=deep), scope)
            case Timeout(steps=steps, otherwise=otherwise):
                return self.attempted(steps, otherwise, state, _within(scope, state, timed=True), scope)
            case Fork(branches=branches):
                return [self.beside(branches, state, scope._replace(row="branch"))]
            case Spawn(steps=steps):
                return [self.beside([steps], state, scope._replace(row="branch"))]
            case Hedge(steps=steps):
                tried = scope._replace(row="branch", answers=False, depth=deep)
                return [self.beside([steps], state, tried, rescued=True)]
            case Call(steps=steps, timeout=limit):
                if limit is None and not scope.timed and _lossy(steps):
                    self.warn("a call without a timeout crosses a link that loses: its caller may wait for ever")
                return [self.beside([steps], state, scope._replace(row="call", answers=True))]
        return [state]

    def in_hand(self, step: Step, scope: Scope) -> None:
        """An actor has a batch in hand, a message only inside a for_each; nobody else has a batch."""
        alone = scope.row == "actor"
        match step:
            case Serve(pool=pool) | Seize(pool=pool):
                self.keyed(pool, alone)
            case Receive() | ForEach():
                if not alone:
                    raise self.bad(f"{_name(step)} outside of an actor's own steps: do it there")
                if isinstance(step, ForEach) and scope.actor is not None and not scope.actor.queues:
                    raise self.bad("a for_each, but nothing is received: receive before")
            case Choose():
                if scope.actor is not None:
                    raise self.bad("an actor chooses a stage, which would end its loop: branch instead")
            case TakeToken(credit=credit) | GiveToken(credit=credit):
                if alone and credit.key is not None:
                    raise self.bad(
                        f"credit '{credit.name}' goes by key in an actor, which has no message: do it inside for_each"
                    )
        for field in _fields(step):
            self.field(field, scope)
        if alone and isinstance(step, OF_A_MESSAGE):
            raise self.bad(f"{_name(step)} in an actor, which has no message in hand: do it inside for_each")

    def field(self, field: str, scope: Scope) -> None:
        """What a condition or a time reads is there."""
        if scope.row == "actor" and field not in ("attempt", "awaited", "batch", "member", "result"):
            raise self.bad(f"field '{field}' in an actor, which has no message in hand: read it inside for_each")
        if field in ("batch", "nth") and (scope.actor is None or scope.row not in ("actor", "consumer")):
            raise self.bad(f"field '{field}' where there is none: only an actor has a batch in hand")

    def keyed(self, pool: Pool, alone: bool) -> None:
        """A member is chosen by the key of a message."""
        if alone and pool.select == "key" and pool.members > 1:
            raise self.bad(
                f"pool '{pool.name}' selects by key in an actor, which has no message: do it inside for_each"
            )

    def draw(self, state: State, stream: str, depth: int) -> State:
        """One place of a stream gives one number: who draws there twice would draw the same."""
        key = (stream, depth)
        if key in state.drawn:
            raise self.bad(f"stream '{stream}' is drawn from twice on one path: give each draw a stream of its own")
        self.met.append(key)
        return state._replace(drawn=state.drawn | {key})

    def outlives(self, state: State, scope: Scope) -> None:
        """A row that goes on after a crash has nothing then that a crash ends, and nobody else works for its message again."""
        if state.part is None:
            raise self.bad("a checkpoint of a row at no part, which no crash strikes: take it out")
        if scope.row in ("consumer", "actor"):
            raise self.bad("a checkpoint with a delivery in hand, which comes again after a crash: take it out")
        if state.held:
            raise self.bad(
                f"a checkpoint while the row holds pool '{state.held[-1].name}', which a crash takes from it: release it before"
            )
        if scope.timed:
            raise self.bad("a checkpoint within a timeout, whose timer a crash ends: make it before")

    def here(self, noun: Pool | Queue | Log | Table | Credit, what: str, state: State) -> None:
        """What is at a part is used by who is there, or at its replica; rows at no part, and pools at none, are anywhere."""
        if state.part is not None and noun.at not in (None, state.part, state.part.replica_of):
            raise self.bad(
                f"{what} '{noun.name}' is at part '{noun.at.name}', the row at '{state.part.name}': send it there first"
            )

    def sent(self, step: Send, state: State, scope: Scope) -> State:
        """Sent from one end to the other. The direction is part of the stream; a fault makes any link draw."""
        one, other = step.link.ends
        if scope.row == "consumer":
            raise self.bad(
                f"a consumer sends itself away over link '{step.link.name}': let it spawn or call what is sent"
            )
        if state.part is None:
            raise self.bad(f"a row at no part cannot be sent over link '{step.link.name}': give its source at=")
        if state.part not in step.link.ends:
            raise self.bad(
                f"link '{step.link.name}' joins '{one.name}' and '{other.name}', the row is at '{state.part.name}':"
                " send it over a link of that part"
            )
        stream = step.stream or f"{step.link.name}.send"
        state = self.draw(state, f"{stream} from {state.part.name}", scope.depth)
        return state._replace(part=other if state.part is one else one)

    def released(self, pool: Pool, held: tuple[Pool, ...], scope: Scope) -> tuple[Pool, ...]:
        """What is held after a release, which must have been taken, and within the scope that a failure would leave."""
        for i in reversed(range(scope.floor, len(held))):
            if held[i] is pool:
                return held[:i] + held[i + 1 :]
        if pool in held:
            raise self.bad(
                f"pool '{pool.name}' is released inside a scope that it was seized outside of: release it there"
            )
        raise self.bad(f"pool '{pool.name}' is released, but on a path not seized before: seize it first")

    def settled(self, step: Ack | Nack, state: State, scope: Scope) -> None:
        """Only who has a delivery in hand settles it, from an end of the queue's link."""
        if scope.actor is not None and scope.actor.queues:
            return
        if scope.queue is None:
            raise self.bad(f"{_name(step)} outside of consumers, where there is no delivery: take it out")
        link = scope.queue.link
        if link is not None and state.part not in link.ends:
            raise self.bad(
                f"{_name(step)} away from link '{link.name}', over which queue '{scope.queue.name}' delivers:"
                " do it at an end of the link"
            )

    def failed(self, scope: Scope) -> None:
        """What becomes of a failure that nothing catches; a source's caller is told of it."""
        if scope.rescued or scope.row == "source":
            return
        if scope.row in ("consumer", "actor"):
            raise self.bad("a fail that nothing catches leaves the delivery unsettled: rescue it, and nack")
        if scope.row == "call":
            self.warn("a fail inside a call tells its caller nothing: rescue it into a reply")
        else:
            self.warn("a fail that no retry or rescue catches ends the row")

    def repeated(self, steps: Steps, state: State, inner: Scope) -> list[State]:
        """After any number of turns, each of which begins where one before it ended."""
        begun, ended = [state], list[State]()
        for start in begun:
            for end in self.walk(steps, [start], inner):
                if end.held != state.held:
                    raise self.bad(
                        "a turn of a repeat ends with other units than it began with: release what it seizes"
                    )
                for stream, depth in end.drawn - state.drawn:
                    if depth == BY_ATTEMPT:
                        raise self.bad(
                            f"stream '{stream}' is drawn from by attempt in a repeat, whose turns would draw alike"
                        )
                ended.append(end)
                if all(end.part is not known.part for known in begun):
                    begun.append(state._replace(part=end.part))
        return _merged(ended)

    def each(self, steps: Steps, state: State, inner: Scope) -> list[State]:
        """After the steps with a delivery of the batch, whose draws are its own."""
        ended = self.walk(steps, [state], inner._replace(depth=EACH - 100 * len(self.met)))
        if any(end.held != state.held for end in ended):
            raise self.bad("a for_each ends with other units than it began with: release what it seizes")
        return ended

    def attempted(self, steps: Steps, otherwise: Steps, state: State, inner: Scope, outer: Scope) -> list[State]:
        """After the steps, or after the others, which begin where the steps began."""
        met = len(self.met)
        done = self.walk(steps, [state], inner)
        left = state._replace(drawn=state.drawn | frozenset(self.met[met:]))
        return [*done, *self.walk(otherwise, [left], outer)]

    def beside(self, programs: Iterable[Steps], state: State, scope: Scope, rescued: bool = False) -> State:
        """After rows were started here that hold nothing yet and draw at the same place."""
        scope = scope._replace(rescued=rescued, timed=False, floor=0)
        for steps in programs:
            met = len(self.met)
            self.path(steps, state._replace(held=()), scope)
            state = state._replace(drawn=state.drawn | frozenset(self.met[met:]))
        return state


def _within(scope: Scope, state: State, **changes: Any) -> Scope:
    """What stands around the steps of a scope that a row comes into."""
    return scope._replace(floor=len(state.held), **changes)


def _merged(states: Iterable[State]) -> list[State]:
    """States that differ only in what was drawn as one: what one of the paths has drawn cannot be drawn after it."""
    drawn: dict[tuple[Part | None, tuple[Pool, ...]], frozenset[tuple[str, int]]] = {}
    for part, held, streams in states:
        drawn[part, held] = drawn.get((part, held), frozenset()) | streams
    return [State(part, held, streams) for (part, held), streams in drawn.items()]


def _at_once(steps: Steps) -> Iterator[Step]:
    """The steps and all inside them that the same row does."""
    for step in steps:
        yield step
        for inner in () if isinstance(step, Spawn) else children(step):
            yield from _at_once(inner)


def _answered(steps: Steps) -> bool:
    """Whether something in a call's steps may answer the caller; what the steps of an inner call or hedge reply is not for it."""
    return any(
        isinstance(step, Reply | Publish | Choose)
        or (not isinstance(step, Call | Hedge) and any(map(_answered, children(step))))
        for step in steps
    )


def _lossy(steps: Steps) -> bool:
    """Whether something is sent over a link that loses."""
    links: list[Link | None] = [step.link for step in everything(steps) if isinstance(step, Send)]
    links += [queue.link for step in everything(steps) if isinstance(step, Publish) for queue in step.queues]
    return any(link is not None and link.loss > 0 for link in links)


def _surely_waits(steps: Steps) -> bool:
    """Whether on every way through the steps there is one that may take time."""
    for step in steps:
        if isinstance(step, WAITING):
            return True
        if isinstance(step, Branch) and _surely_waits(step.then) and _surely_waits(step.otherwise):
            return True
        if isinstance(step, Rescue | Repeat) and _surely_waits(step.steps):
            return True
    return False


def _linear(step: Step) -> list[Linear]:
    """What a step compares a field with, or waits for, where that grows with a field."""
    match step:
        case Branch(when=Condition(value=Linear() as value)) | WaitForCell(at_least=value) if value.field:
            return [value]
    return []


def _fields(step: Step) -> list[str]:
    """The fields that a step reads."""
    if not isinstance(step, READING):
        return []
    match step:
        case Branch(when=Condition(field=field)):
            return [field, *(value.field for value in _linear(step))]
        case Delay(duration=Affine(field=field)) | Serve(duration=Affine(field=field)):
            return [field]
        case WaitForCell():
            return [value.field for value in _linear(step)]
    return []


def _random(duration: Time) -> bool:
    return not isinstance(duration.base if isinstance(duration, Affine) else duration, Constant)


def _draws(step: Step) -> bool:
    """Whether what a step does really depends on a draw; what is sent is judged apart."""
    match step:
        case Delay(duration=duration) | Timeout(after=duration):
            return _random(duration)
        case Serve(pool=pool) | Seize(pool=pool):
            chosen = pool.members > 1 and pool.select in ("random", "two_choices")
            return chosen or (isinstance(step, Serve) and _random(step.duration))
        case Branch(when=probability):
            return not isinstance(probability, Condition) and 0 < probability < 1
        case Choose(stages=stages):
            return any(0 < probability < 1 for _, probability in stages)
        case Repeat(again=again):
            return again > 0
        case Retry(policy=policy):
            return policy.jitter and policy.retries > 0 and policy.base > 0
    return False


def _own_stream(step: Step) -> str:
    """The stream of a step without an explicit one, as the engine names it after the program; '' where none draws."""
    if getattr(step, "stream", "") is not None or not _draws(step):
        return ""
    if isinstance(step, Serve | Seize):
        return f"{step.pool.name}.{_word(step)}"
    return "retry.backoff" if isinstance(step, Retry) else _word(step)


def _word(step: Step) -> str:
    return _words(type(step).__name__)


@cache
def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _name(step: Step) -> str:
    """A step as its writer knows it."""
    noun = next((value for each in fields(step) if type(value := getattr(step, each.name)) in NOUNS), None)  # type: ignore[arg-type]
    return f"{_word(step)}()" if noun is None else f"{_word(step)} of '{noun.name}'"


def _shown(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)[:60]
