"""What theory says of a flow before it runs: who is how busy, and how many messages a second it can serve at most.

The utilisation law and the bottleneck bound of operational analysis (Denning and Buzen, ACM Computing Surveys 10,
1978): a station of c units, of whose time a message takes D on average, serves at most c/D messages a second. D counts
what a message that is served surely brings: no time-out expires, no queue is full, no breaker is open, there is no fault and no
second attempt; chances weigh what depends on them, and where a condition is not on the kind, the arm that brings less counts. Of
an actor's turn a message takes its share in the largest batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simlib.domain import KINDS
from simlib.errors import BadInput, unknown
from simlib.flow.blocks import (
    COMPARISONS,
    Ack,
    Affine,
    Branch,
    ByAttempt,
    BySku,
    Call,
    Choose,
    Condition,
    Delay,
    Every,
    Fail,
    ForEach,
    Fork,
    GiveToken,
    Hedge,
    Nack,
    Once,
    Publish,
    Receive,
    Release,
    Repeat,
    Reply,
    Rescue,
    Retry,
    Seize,
    Send,
    Serve,
    Spawn,
    Step,
    Steps,
    Take,
    TakeToken,
    Time,
    Timeout,
    WriteIfNewer,
)
from simlib.flow.model import Actor, Flow, Queue, everything

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Station:
    """A pool, a queue's consumers, its prefetch window, an actor or a population of customers: units that messages occupy."""

    name: str
    capacity: int
    demand: float
    """Seconds of a unit's time that a message of the mix surely takes, on average."""
    utilisation: float
    """Share of its units' time that is taken at the given rates; NaN where there are none."""

    @property
    def throughput(self) -> float:
        """Messages of the mix that it can serve a second, at most."""
        return self.capacity / self.demand if self.demand > 0 else math.inf


@dataclass(frozen=True)
class Bounds:
    """The stations of a flow under a mix of messages; `rates` are messages of each kind a second."""

    flow: str
    rates: Mapping[str, float]
    stations: tuple[Station, ...]

    @property
    def bottleneck(self) -> Station | None:
        """The station that bounds the flow; None where nothing does."""
        return min((s for s in self.stations if s.demand > 0), key=lambda station: station.throughput, default=None)

    @property
    def throughput(self) -> float:
        """Messages a second, of all kinds in this mix, that no run serves more of in the long run."""
        return math.inf if self.bottleneck is None else self.bottleneck.throughput

    @property
    def warnings(self) -> list[str]:
        """The stations that these rates overload, a line each."""
        return [
            f"'{s.name}' is overloaded: {sum(self.rates.values()):.4g} messages/s bring a utilisation of"
            f" {s.utilisation:.3g}, it can bear {s.throughput:.4g}/s"
            for s in self.stations
            if s.utilisation >= 1
        ]

    def table(self) -> pd.DataFrame:
        """A row each station: name, capacity, demand (s), utilisation, throughput (1/s)."""
        import pandas as pd

        columns = ["name", "capacity", "demand", "utilisation", "throughput"]
        return pd.DataFrame([[getattr(s, name) for name in columns] for s in self.stations], columns=columns)

    def __str__(self) -> str:
        width = max([len("station"), *(len(s.name) for s in self.stations)])
        lines = [f"{'station':<{width}}  capacity   demand, s  utilisation  at most, 1/s"]
        for s in self.stations:
            numbers = f"{s.capacity:>8}  {s.demand:>10.4g}  {s.utilisation:>11.3g}  {s.throughput:>12.4g}"
            lines.append(f"{s.name:<{width}}  {numbers}")
        offered = f", offered {sum(self.rates.values()):.4g}" if not any(map(math.isnan, self.rates.values())) else ""
        limit = f"bottleneck '{self.bottleneck.name}'" if self.bottleneck else "no bottleneck"
        return "\n".join([*lines, f"{self.flow}: {limit}, at most {self.throughput:.4g} messages/s{offered}"])


def bounds(flow: Flow, rates: Mapping[str, float] | None = None) -> Bounds:
    """The bounds of a flow at `rates` (messages a second by kind); textbook sources bring their own.

    Raises BadInput where a kind has no source, a rate is no number of at least 0, or rates are needed and not given.
    """
    for kind, rate in (rates or {}).items():
        if kind not in flow.sources:
            raise unknown("kind", kind, flow.sources)
        if not 0 <= rate < math.inf:
            raise BadInput(f"the rate of '{kind}' must be finite and at least 0, got {rate}: correct it")
    rates = _own_rates(flow) if rates is None else dict(rates)
    total = math.fsum(rates.values())
    if total == 0:
        raise BadInput(f"the rates of flow '{flow.name}' are all 0: give one above 0")
    shares = {kind: rate / total if len(rates) > 1 else 1.0 for kind, rate in rates.items()}
    demands = {kind: _Walk(flow, kind).demand() for kind in rates}
    stations = []
    for unit, (name, capacity) in _units(flow).items():
        demand = math.fsum(share * demands[kind].get(unit, 0.0) for kind, share in shares.items())
        stations.append(Station(name, capacity, demand, total * demand / capacity))
    return Bounds(flow.name, rates, tuple(stations))


def _own_rates(flow: Flow) -> dict[str, float]:
    """What the sources bring; NaN for a population that is alone."""
    rates = {}
    for kind, source in flow.sources.items():
        if source.interarrival is not None and source.interarrival.mean_value > 0:
            rates[kind] = source.batch / source.interarrival.mean_value
        elif len(flow.sources) == 1:
            rates[kind] = math.nan
        else:
            raise BadInput(f"source '{kind}' of flow '{flow.name}' has no rate of its own: give bounds() all rates")
    return rates


class Window(NamedTuple):
    """The unacknowledged deliveries that a queue allows."""

    queue: Queue


def _units(flow: Flow) -> dict[Any, tuple[str, int]]:
    """What messages occupy, with name and capacity."""
    units: dict[Any, tuple[str, int]] = {}
    for pool in flow.pools.values():
        units[pool] = (pool.name, pool.capacity * pool.members)
    for group in flow.consumer_groups.values():
        queue = group.queue
        units[group] = (group.name, group.count)
        if queue.prefetch is not None and not queue.automatic_ack:
            units[Window(queue)] = (f"{queue.name}.prefetch", queue.prefetch * (1 if queue.shared else group.count))
    for actor in flow.actors.values():
        if actor.queues:
            units[actor] = (actor.name, actor.count)
    for credit in flow.credits.values():
        if credit.key is None:
            units[credit] = (credit.name, credit.tokens)
    for source in flow.sources.values():
        if source.population is not None:
            units[source] = (f"{source.kind}.population", source.population)
    return units


class Waiting:
    """What a caller holds until the reply, and a forked row until its branches end: a unit of no station."""


class Program(NamedTuple):
    """Steps that a row goes to, and what it holds all the time: a queue's consumers, or a stage."""

    at: Queue | str
    held: tuple[Any, ...] = ()


class Ways(NamedTuple):
    """What surely comes of steps: seconds of each unit and visits to each program; the probabilities of going on and of
    failing; what is held from there on."""

    demand: dict[Any, float]
    held: tuple[Any, ...]
    on: float = 1.0
    fails: float = 0.0


class _Walk:
    """The demand of a message of one kind."""

    def __init__(self, flow: Flow, kind: str) -> None:
        self.flow, self.kind = flow, kind
        self.code = KINDS.index(kind) if kind in KINDS else list(flow.sources).index(kind)

    def demand(self) -> dict[Any, float]:
        """Seconds of each unit, over all programs that the message visits: visits are a linear system, as in a Jackson
        network, because stages and queues may lead back."""
        source = self.flow.sources[self.kind]
        held = () if source.population is None else (source,)
        begin = self.walk(source.steps, held).demand
        if source.think is not None:
            begin = _sum(begin, {source: source.think.mean_value})
        index: dict[Program, int] = {}
        demands = [begin]
        for demand in demands:
            for program in demand:
                if isinstance(program, Program) and program not in index:
                    demands.append(self.program(program))
                    index[program] = len(demands) - 1
        onward = np.zeros((len(demands), len(demands)))
        for i, demand in enumerate(demands):
            for program, j in index.items():
                onward[j, i] = demand.get(program, 0.0)
        try:
            visits = np.linalg.solve(np.eye(len(demands)) - onward, np.eye(len(demands))[0])
        except np.linalg.LinAlgError:
            visits = np.array([-1.0])
        if (visits < 0).any():
            raise BadInput(f"flow '{self.flow.name}': messages of '{self.kind}' go round for ever: let them leave")
        return _sum(*(_scaled(demand, visit) for demand, visit in zip(demands, visits.tolist(), strict=True)))

    def program(self, program: Program) -> dict[Any, float]:
        """What a visit to a stage, or a delivery to the consumers of a queue, brings."""
        if isinstance(program.at, str):
            return self.walk(self.flow.stages[program.at], program.held).demand
        queue = program.at
        group = self.flow.consumer_groups.get(queue.name)
        if group is None:
            readers = [actor for actor in self.flow.actors.values() if queue in actor.queues]
            return _Turn(self, readers[0], queue).brought() if len(readers) == 1 else {}
        window = Window(queue)
        times = [queue.link.delay if queue.link else None, queue.dispatch]
        transit = {window: math.fsum(time.mean_value for time in times if time is not None)}
        return _sum(transit, self.walk(group.steps, (group, window)).demand)

    def walk(self, steps: Steps, held: tuple[Any, ...]) -> Ways:
        """What comes of steps that begin with these units held."""
        demand: dict[Any, float] = {}
        on, fails = 1.0, 0.0
        for step in steps:
            ways = self.step(step, held)
            if isinstance(step, TakeToken) and GiveToken(step.credit) in steps:
                ways = ways._replace(held=(*held, step.credit))
            demand = _sum(demand, _scaled(ways.demand, on))
            fails += on * ways.fails
            on, held = on * ways.on, ways.held
        return Ways(demand, held, on, fails)

    def step(self, step: Step, held: tuple[Any, ...]) -> Ways:
        """What comes of a step."""
        match step:
            case Delay(duration=duration):
                return Ways(_spent(self.time(duration), held), held)
            case Serve(pool=pool, duration=duration):
                return Ways(_spent(self.time(duration), (*held, pool)), held)
            case Send(link=link):
                return Ways(_spent(link.delay.mean_value, held), held, on=1 - link.loss)
            case Seize(pool=pool):
                return Ways({}, (*held, pool))
            case Release(pool=pool):
                return Ways({}, _without(held, pool))
            case GiveToken(credit=credit):
                return Ways({}, _without(held, credit))
            case Ack() | Nack():
                return self.settled(held)
            case Reply():
                return Ways({}, tuple(unit for unit in held if not isinstance(unit, Waiting)))
            case Publish(to=to, expect=expect, otherwise=otherwise):  # what is superseded is delivered to nobody
                delivered = {Program(queue): 1 / to.partitions for queue in to.queues if not queue.coalesce}
                refused, done = self.walk(otherwise, held), Ways(delivered, held)
                return _smaller(done, refused) if expect and refused.on else done
            case Fail():
                return Ways({}, held, on=0.0, fails=1.0)
            case Choose(stages=stages):
                return Ways({Program(stage, held): p for stage, p in stages if p > 0}, held, on=0.0)
            case Branch(
                when=Condition(field="kind" | "poison" as field, value=float() | int() as value) as when,
                then=then,
                otherwise=otherwise,
            ):
                known = self.code if field == "kind" else 0
                return self.walk(then if COMPARISONS[when.comparison](known, value) else otherwise, held)
            case Branch(when=Condition(), then=then, otherwise=otherwise):
                return _smaller(self.walk(then, held), self.walk(otherwise, held))
            case Branch(when=float(p) | int(p), then=then, otherwise=otherwise):
                return _mixed(p, self.walk(then, held), self.walk(otherwise, held))
            case BySku(branches=branches):
                ways = self.walk(branches[0], held)
                for n, branch in enumerate(branches[1:], 2):
                    ways = _mixed(1 / n, self.walk(branch, held), ways)
                return ways
            case Take(then=then, otherwise=otherwise) | WriteIfNewer(then=then, otherwise=otherwise):
                return _smaller(self.walk(then, held), self.walk(otherwise, held))
            case Once(steps=steps) | Timeout(steps=steps) | ByAttempt(steps=steps):
                return self.walk(steps, held)
            case Repeat(steps=steps, again=again):
                turn = self.walk(steps, held)
                turns = 1 / (1 - again * turn.on)
                return Ways(_scaled(turn.demand, turns), held, turn.on * (1 - again) * turns, turn.fails * turns)
            case Rescue(steps=steps, otherwise=otherwise):
                return self.rescued(steps, otherwise, held, attempts=1)
            case Retry(steps=steps, otherwise=otherwise, policy=policy):
                return self.rescued(steps, otherwise, held, attempts=policy.retries + 1)
            case Spawn(steps=steps):
                return Ways(self.walk(steps, ()).demand, _unsettled([steps], held))
            case Call(steps=steps):
                return self.waited([steps], held)
            case Hedge(steps=steps):
                return self.waited([steps], held, known=False)
            case Fork(branches=branches, join=join):
                return self.waited(branches, held, known=join in (None, len(branches)))
        return Ways({}, held)

    def time(self, duration: Time) -> float:
        """The mean of a time; of one that grows with a field what is sure of it."""
        return duration.base.mean_value if isinstance(duration, Affine) else duration.mean_value

    def settled(self, held: tuple[Any, ...]) -> Ways:
        """The delivery leaves the prefetch window when its acknowledgement has travelled back."""
        for window in held:
            if isinstance(window, Window):
                link = window.queue.link
                return Ways({window: link.delay.mean_value} if link is not None else {}, _without(held, window))
        return Ways({}, held)

    def rescued(self, steps: Steps, otherwise: Steps, held: tuple[Any, ...], attempts: int) -> Ways:
        """The steps, whose demand counts once; where all attempts fail, the others."""
        tried, after = self.walk(steps, held), self.walk(otherwise, held)
        lost = tried.fails**attempts
        on = tried.on * math.fsum(tried.fails**k for k in range(attempts))
        joined = _common(Ways({}, tried.held, on), Ways({}, after.held, after.on * lost))
        return Ways(_sum(tried.demand, _scaled(after.demand, lost)), joined, on + lost * after.on, lost * after.fails)

    def waited(self, programs: Sequence[Steps], held: tuple[Any, ...], known: bool = True) -> Ways:
        """Rows beside this one, which waits for the longest of them where that is `known` to be what it waits for."""
        demand: dict[Any, float] = {}
        longest = 0.0
        for steps in programs:
            waiting = Waiting()
            brought = self.walk(steps, (waiting,)).demand
            longest = max(longest, brought.pop(waiting, 0.0))
            demand = _sum(demand, brought)
        held = _unsettled(programs, held)
        return Ways(_sum(demand, _spent(longest, held)) if known else demand, held)


class _Turn(_Walk):
    """An actor's turn, as seen by one delivery of the largest batch that it receives: its share of what is done for all."""

    def __init__(self, walk: _Walk, actor: Actor, queue: Queue) -> None:
        self.flow, self.kind, self.code = walk.flow, walk.kind, walk.code
        self.alone, self.actor, self.queue, self.in_hand = walk, actor, queue, False
        self.largest = 0.0
        for step in everything(actor.steps):
            if isinstance(step, Receive):
                self.largest += math.inf if step.at_most is None else step.at_most
            elif isinstance(step, Repeat) and any(isinstance(inner, Receive) for inner in everything(step.steps)):
                self.largest = math.inf

    def brought(self) -> dict[Any, float]:
        """What a delivery brings. A turn that waits for the next multiple of a period lasts as long as one, at least."""
        demand = self.walk(self.actor.steps, (self.actor,)).demand
        period = max((step.period for step in self.actor.steps if isinstance(step, Every)), default=0.0)
        return {**demand, self.actor: max(demand.get(self.actor, 0.0), period / self.largest)}

    def step(self, step: Step, held: tuple[Any, ...]) -> Ways:
        match step:
            case Receive(queue=queue):
                self.in_hand = queue is self.queue
            case ForEach(steps=steps):
                return self.alone.walk(steps, held) if self.in_hand else Ways({}, held)
            case Repeat(steps=steps):
                return self.walk(steps, held)
            case Branch(when=Condition(field="batch", comparison=">=", value=float() | int() as value), then=then) if (
                value <= 1
            ):
                return self.walk(then, held)
        return super().step(step, held)

    def time(self, duration: Time) -> float:
        each = duration.per if isinstance(duration, Affine) and duration.field == "batch" else 0.0
        return super().time(duration) / self.largest + each


def _spent(time: float, units: Iterable[Any]) -> dict[Any, float]:
    """A time of each unit that is held."""
    return _sum(*({unit: time} for unit in units))


def _sum(*demands: Mapping[Any, float]) -> dict[Any, float]:
    total: dict[Any, float] = {}
    for demand in demands:
        for unit, time in demand.items():
            total[unit] = total.get(unit, 0.0) + time
    return total


def _scaled(demand: Mapping[Any, float], factor: float) -> dict[Any, float]:
    return {unit: factor * time for unit, time in demand.items()}


def _smaller(one: Ways, other: Ways) -> Ways:
    """What comes surely where either may come."""
    demand = {unit: min(time, other.demand[unit]) for unit, time in one.demand.items() if unit in other.demand}
    return Ways(demand, _common(one, other), min(one.on, other.on), min(one.fails, other.fails))


def _mixed(p: float, one: Ways, other: Ways) -> Ways:
    """What comes on average where one comes with a probability."""
    demand = _sum(_scaled(one.demand, p), _scaled(other.demand, 1 - p))
    on, fails = (p * a + (1 - p) * b for a, b in ((one.on, other.on), (one.fails, other.fails)))
    return Ways(demand, _common(one, other), on, fails)


def _common(one: Ways, other: Ways) -> tuple[Any, ...]:
    """What is held after either; an arm that never goes on has no say."""
    if not one.on or not other.on:
        return one.held if one.on else other.held
    left = list(other.held)
    return tuple(unit for unit in one.held if unit in left and not left.remove(unit))  # type: ignore[func-returns-value]


def _unsettled(programs: Sequence[Steps], held: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is held while rows beside this one may settle its delivery."""
    if any(isinstance(step, Ack | Nack) for steps in programs for step in everything(steps)):
        return tuple(unit for unit in held if not isinstance(unit, Window))
    return held


def _without(held: tuple[Any, ...], unit: Any) -> tuple[Any, ...]:
    """What is held without the last such unit."""
    last = max((i for i, each in enumerate(held) if each == unit), default=len(held))
    return held[:last] + held[last + 1 :]
