"""What happens to an architecture: the workload (arrivals, goods, customers) and the faults; the same for all of them.

A scenario is frozen. `Scenario.draw` turns it into a table of arrivals ahead of the run, by the streams of the seed:
every architecture and every engine, the live one too, gets the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simlib import draws, paths
from simlib.distributions import AnyDistribution, Constant, Distribution, Lognormal
from simlib.domain import KINDS, ORDER, PROCESSES, STOCK_QUERY, STOCK_UPDATE
from simlib.errors import BadInput, unknown
from simlib.quantities import Duration, Number, PositiveDuration, Probability, Rate, Truth, Whole, whole
from simlib.reading import Frozen, read_model

SEEDS = 2**63 - 1
"""The largest seed."""
MESSAGES = 10_000_000
"""Most messages of a run whose history is kept: as many as an ordinary machine holds."""
CHUNK = 1 << 14
"""Messages that are drawn at a time."""
HANDLER_WORK, HANDLER_FAILURE, POISON = "handler_work", "handler_failure", "poison"
"""Shared streams: the work of a message's handler and its failures, by (message, attempt); poison, by message."""
STEP_REFUSED, STEP_UNHEARD, UNDOING_FAILED = "step_refused", "step_timed_out", "undoing_failed"
"""Shared streams, one for each step of an order's process, by (message, attempt)."""


class Poisson(Frozen):
    """Poisson arrivals at one rate."""

    process: Literal["poisson"] = "poisson"
    rate: Rate

    @property
    def stationary(self) -> bool:
        return True

    def at_rate(self, rate: float) -> Poisson:
        return Poisson(rate=rate)

    @property
    def mean_rate(self) -> float:
        return self.rate

    def clock(self, n: int, seed: int) -> Clock:
        """The time at each moment of the process of rate 1, in a run of n messages."""
        return lambda moments: moments / self.rate


class Bursts(Frozen):
    """Markov-modulated Poisson process of two states: `rates` while in each, exponential stays of mean `stays`."""

    process: Literal["mmpp"] = "mmpp"
    rates: tuple[Rate, Rate]
    stays: tuple[PositiveDuration, PositiveDuration]

    @property
    def stationary(self) -> bool:
        return True

    def at_rate(self, rate: float) -> Bursts:
        return self.model_copy(update={"rates": (rate, rate * self.rates[1] / self.rates[0])})

    @property
    def mean_rate(self) -> float:
        (a, b), (s, t) = self.rates, self.stays
        return (a * s + b * t) / (s + t)

    def clock(self, n: int, seed: int) -> Clock:
        """The time at each moment of the process of rate 1, in a run of n messages."""
        last = _last_moment(n, seed)
        stays = max(16, int(2 * n / (self.mean_rate * sum(self.stays)) * 2) + 16)
        while True:
            units = -np.array([np.log(u) for u in draws.uniforms(draws.stream_key(seed, "arrivals.stay"), stays, 0)])
            lengths = units * np.resize(self.stays, stays)
            rates = np.resize(self.rates, stays)
            if np.add.accumulate(lengths * rates)[-1] >= last:
                return partial(_inverse, lengths=lengths, rates=rates)
            stays *= 2


class Phase(Frozen):
    """A stretch of a profile: `times` the base rate for `lasts`."""

    lasts: PositiveDuration
    times: Annotated[Number, Field(gt=0)] = 1.0


class Profile(Frozen):
    """Arrivals whose rate follows phases in turn: once (the base rate after the last), or every day again."""

    process: Literal["profile"] = "profile"
    rate: Rate
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    repeats: Truth = False

    @property
    def stationary(self) -> bool:
        return False

    def at_rate(self, rate: float) -> Profile:
        return self.model_copy(update={"rate": rate})

    @property
    def mean_rate(self) -> float:
        length = sum(p.lasts for p in self.phases)
        return self.rate * sum(p.lasts * p.times for p in self.phases) / length

    def clock(self, n: int, seed: int) -> Clock:
        """The time at each moment of the process of rate 1, in a run of n messages."""
        last = _last_moment(n, seed)
        lengths = np.array([p.lasts for p in self.phases])
        rates = np.array([p.times * self.rate for p in self.phases])
        if self.repeats:
            turns = int(last / float(lengths @ rates)) + 1
            lengths, rates = np.tile(lengths, turns), np.tile(rates, turns)
        rest = max(1.0, last / self.rate)
        return partial(_inverse, lengths=np.append(lengths, rest), rates=np.append(rates, self.rate))

    def needed(self) -> int:
        """How many messages reach past the last phase, on average and two standard deviations more."""
        expected = sum(p.lasts * p.times for p in self.phases) * self.rate
        return int(expected + 2 * expected**0.5) + 1


class Trace(Frozen):
    """Recorded arrivals: a text file with one time in seconds a line, ascending."""

    process: Literal["trace"] = "trace"
    file: Path

    @property
    def stationary(self) -> bool:
        return False

    def at_rate(self, rate: float) -> Trace:
        raise BadInput(f"a recorded trace has its own rate, got --rate {rate:g}: leave the rate out")

    @cached_property
    def recorded(self) -> np.ndarray:
        """All times of the file, shape (n,); raises BadInput where it is missing, no list of numbers or not ascending."""
        try:
            times = np.array(self.file.read_text(encoding="utf-8").splitlines(), float)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise BadInput(f"trace {self.file} cannot be read as one time a line: {why}: correct it") from None
        if not np.all(np.isfinite(times)) or np.any(np.diff(times, prepend=0.0) < 0) or not times.any():
            raise BadInput(f"trace {self.file} must hold ascending times from 0 on, not all 0: correct it")
        return times

    @property
    def mean_rate(self) -> float:
        return self.recorded.size / float(self.recorded[-1])


Clock = Callable[[np.ndarray], np.ndarray]


def _moments(n: int, seed: int, size: int) -> Iterator[np.ndarray]:
    """Arrivals of a Poisson process of rate 1, `size` at a time: every process is this one with its clock stretched."""
    last = np.empty(0)
    for first in range(0, n, size):
        key, count = draws.stream_key(seed, "arrivals"), min(size, n - first)
        gaps = draws.samples(draws.EXPONENTIAL, 1.0, 0.0, 0.0, draws.NO_TABLE, key, count, first)
        moments = np.add.accumulate(np.concatenate((last, gaps)))[last.size :]
        last = moments[-1:]
        yield moments


def _last_moment(n: int, seed: int) -> float:
    """The last of n arrivals of the process of rate 1."""
    for moments in _moments(n, seed, CHUNK):
        last = float(moments[-1])
    return last


def _inverse(target: np.ndarray, lengths: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Times at which the integral of a step-wise rate reaches `target`."""
    ends, areas = np.add.accumulate(lengths), np.add.accumulate(lengths * rates)
    step = np.searchsorted(areas, target)
    before = np.where(step > 0, areas[step - 1], 0.0)
    start = np.where(step > 0, ends[step - 1], 0.0)
    return start + (target - before) / rates[step]


class Mix(Frozen):
    """Shares of the kinds of message."""

    stock_update: Probability = 0.6
    order: Probability = 0.1
    stock_query: Probability = 0.3

    @model_validator(mode="after")
    def _whole(self) -> Mix:
        total = self.stock_update + self.order + self.stock_query
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of the mix must add up to 1, got {total:g}: correct them")
        return self


class Goods(Frozen):
    """The SKUs: popularity by Zipf's law, units of each at the start, receipts, and one SKU on sale."""

    skus: Annotated[Whole, Field(ge=1, le=10_000_000)] = 1000
    zipf: Annotated[Number, Field(ge=0)] = 1.0
    units: Annotated[Whole, Field(ge=0, le=2_000_000_000)] = 100
    receipts: Truth = True
    """Whether updates bring what orders take, on average; without, an update changes no quantity (a price)."""
    sale_share: Probability = 0.0
    """Share of the orders that go to the SKU on sale, which is SKU 0."""
    sale_units: Annotated[Whole, Field(ge=0, le=2_000_000_000)] | None = None


class Loss(Frozen):
    """A link loses what is sent over it, each with a probability; `direction` one end's name limits it to what leaves there."""

    fault: Literal["loss"] = "loss"
    link: str
    probability: Probability
    direction: str | None = None


class Poison(Frozen):
    """Messages of a kind whose handler fails at every attempt, each with a probability."""

    fault: Literal["poison"] = "poison"
    kind: Literal["stock_update", "order"] = "stock_update"
    probability: Probability


class Strike(Frozen):
    """What strikes and passes: `at` times; by renewal, `every` so long after the last one is over; or where a message
    passes a named `point`, each time with a probability."""

    fault: str
    at: tuple[Duration, ...] = ()
    every: AnyDistribution | None = None
    point: str | None = None
    probability: Probability = 0.0

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if [bool(self.at), self.every is not None, self.point is not None].count(True) != 1:
            raise ValueError("it strikes `at` times, `every` so often, or at a `point`: give one of them")
        if (self.point is not None) != (self.probability > 0):
            raise ValueError("a `point` and a `probability` above 0 go together: give both or none")
        if any(one >= other for one, other in pairwise(self.at)):
            raise ValueError(f"`at` must ascend, got {list(self.at)}: sort the times, each once")
        if self.every is not None and self.every.mean_value == 0:
            raise ValueError("`every` must be above 0: give a time")
        return self

    @property
    def where(self) -> str:
        """The part or link that it strikes."""
        raise NotImplementedError(self.fault)

    @property
    def duration(self) -> Distribution:
        """How long until it has passed, s."""
        raise NotImplementedError(self.fault)


class OfPart(Strike):
    """What strikes a part."""

    part: str

    @property
    def where(self) -> str:
        return self.part


class Death(OfPart):
    """What ends a part's process; it starts again after `restart`."""

    restart: AnyDistribution = Constant(value=1.0)

    @property
    def duration(self) -> Distribution:
        return self.restart


class Crash(Death):
    """A part's process dies: what runs there ends, what is in memory only is gone."""

    fault: Literal["crash"] = "crash"


class PowerLoss(Death):
    """A part's machine loses power: a crash that also loses what was not flushed to disk."""

    fault: Literal["power_loss"] = "power_loss"


class Episode(OfPart):
    """What changes a part's behaviour while it `lasts`; one that lasts no time changes nothing."""

    lasts: AnyDistribution

    @property
    def duration(self) -> Distribution:
        return self.lasts


class Outage(Episode):
    """A part lets no caller in while it goes on with what it has: they are refused at once, or blocked until it is over.
    What comes over connections that stand (deliveries, acknowledgements) waits in either mode."""

    fault: Literal["outage"] = "outage"
    mode: Literal["refuse", "block"] = "refuse"


class Slowdown(Episode):
    """Service at a part takes `factor` times as long where it begins meanwhile: that of the part's pools, and that of pools
    of no part for what runs there."""

    fault: Literal["slowdown"] = "slowdown"
    factor: Annotated[Number, Field(gt=0)]


class Pause(Episode):
    """A part stands still (a stopped process, a long garbage collection): nothing goes on or comes in until it is over, and
    nothing is lost. Service is interrupted where `Slowdown` would make it longer."""

    fault: Literal["pause"] = "pause"


class Partition(Strike):
    """A link loses all that is sent over it while it `lasts`; `direction` as in `Loss`."""

    fault: Literal["partition"] = "partition"
    link: str
    direction: str | None = None
    lasts: AnyDistribution

    @property
    def where(self) -> str:
        return self.link

    @property
    def duration(self) -> Distribution:
        return self.lasts


Fault = Annotated[
    Loss | Poison | Crash | PowerLoss | Outage | Slowdown | Pause | Partition, Field(discriminator="fault")
]
FAULTS = ("crash", "power_loss", "outage", "slowdown", "pause", "partition")
"""The kinds of fault that a history lists as they strike."""


@dataclass(frozen=True)
class Arrivals:
    """Messages drawn ahead, one row each: arrays of shape (n,). `change` is the units an update brings, or an order takes."""

    issued: np.ndarray
    """Seconds, ascending; NaN where a population issues them."""
    kind: np.ndarray
    """Index into `domain.KINDS`."""
    sku: np.ndarray
    session: np.ndarray
    """The customer of an order or a query, -1 for an update."""
    quantity: np.ndarray
    population: int = 0
    """How many customers issue them, each the next as soon as its last is over; 0: they are issued when `issued` says."""

    def __len__(self) -> int:
        return self.issued.size

    def windows(self, length: float) -> np.ndarray:
        """Which of the windows of so many seconds each message is issued in, 0 the first; shape (n,).

        Raises BadInput where a population issues them: nobody knows when.
        """
        if self.population:
            raise BadInput("a population issues its messages nobody knows when, in no window: let messages arrive")
        return np.floor(self.issued / length).astype(np.int64)

    def closed(self, population: int) -> Arrivals:
        """The same messages, always so many of them under way."""
        return replace(self, issued=np.full(len(self), math.nan), population=population)


def joined(chunks: Iterable[Arrivals], n: int) -> Arrivals:
    """The n messages of chunks that follow each other."""
    issued, kind = np.empty(n), np.empty(n, np.int8)
    sku, session, quantity = np.empty((3, n), np.int32)
    first = 0
    for chunk in chunks:
        here = slice(first, first + len(chunk))
        issued[here], kind[here] = chunk.issued, chunk.kind
        sku[here], session[here], quantity[here] = chunk.sku, chunk.session, chunk.quantity
        first += len(chunk)
    return Arrivals(issued, kind, sku, session, quantity)


class Scenario(Frozen):
    """A workload and its faults. Times in seconds, rates in 1/s."""

    name: str
    arrivals: Annotated[Poisson | Bursts | Profile | Trace, Field(discriminator="process")]
    messages: Annotated[Whole, Field(ge=1, le=MESSAGES)] = 20_000
    mix: Mix = Mix()
    goods: Goods = Goods()
    customers: Annotated[Whole, Field(ge=1, le=100_000_000)] = 500
    asks_for_own_order: Probability = 0.3
    """Share of the queries that ask for the SKU of that customer's last order."""
    handler_work: AnyDistribution = Lognormal(mean=0.002, cv=0.5)
    handler_failure: Probability = 0.0
    process: Literal["simple", "fulfilment"] = "simple"
    """What an order goes through: `domain.PROCESSES`."""
    step_refused: Probability = 0.0
    """Of each step of a process of several: its service says no."""
    step_timed_out: Probability = 0.0
    """Of each step that is not refused: it is done, and whoever asked for it never hears of that."""
    undoing_failed: Probability = 0.0
    """Of each try to undo a step: it fails."""
    patience: PositiveDuration = 1.0
    """How long a caller waits before an answer is worth nothing: what goodput counts by."""
    faults: tuple[Fault, ...] = ()
    horizon: PositiveDuration = 3600.0
    """How long after the last arrival a run may go on before what is left counts as in flight."""

    @model_validator(mode="after")
    def _several_steps(self) -> Scenario:
        for name in ("step_refused", "step_timed_out", "undoing_failed"):
            if self.process == "simple" and getattr(self, name):
                raise ValueError(
                    f"`{name}` is of a process of several steps, `process` is simple: say process: fulfilment"
                )
        return self

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that an order goes through, in their order."""
        return PROCESSES[self.process]

    @property
    def stationary(self) -> bool:
        """Whether the workload has no profile, so that a warm-up may be cut."""
        return self.arrivals.stationary

    @property
    def rate(self) -> float:
        """Mean arrivals a second."""
        return self.arrivals.mean_rate

    @property
    def strikes(self) -> dict[str, Strike]:
        """The faults that strike and pass, by the names of their streams."""
        named: dict[str, Strike] = {}
        for fault in self.faults:
            if isinstance(fault, Strike):
                name = f"fault.{fault.fault}.{fault.where}"
                again = sum(other == name or other.startswith(f"{name}.") for other in named)
                named[f"{name}.{again}" if again else name] = fault
        return named

    def with_rate(self, rate: float) -> Scenario:
        """The same scenario with another base rate; other phases keep their ratio to it and their times."""
        return self.model_copy(update={"arrivals": self.arrivals.at_rate(rate)})

    def stock(self) -> np.ndarray:
        """Units of each SKU at the start, shape (skus,)."""
        units = np.full(self.goods.skus, self.goods.units, np.int64)
        if self.goods.sale_units is not None:
            units[0] = self.goods.sale_units
        return units

    def count(self, messages: int | None = None, most: int = MESSAGES) -> int:
        """How many messages a run has that is asked for so many, or for none; raises BadInput where the scenario has no such
        run: they end before the last phase of a profile, or after a trace."""
        n = self.messages if messages is None else whole(messages, "messages", 1, most)
        if isinstance(self.arrivals, Profile) and not self.arrivals.repeats and n < self.arrivals.needed():
            raise BadInput(
                f"{n} messages end before the last phase of scenario '{self.name}': ask for {self.arrivals.needed()} or more"
            )
        if isinstance(self.arrivals, Trace) and n > self.arrivals.recorded.size:
            raise BadInput(
                f"trace {self.arrivals.file} has {self.arrivals.recorded.size} arrivals, asked for {n}: ask for fewer messages"
            )
        return n

    def draw(self, seed: int, messages: int | None = None) -> Arrivals:
        """The messages of a run; raises BadInput as `count` does."""
        n = self.count(messages)
        return joined(self.chunks(seed, n), n)

    def last_arrival(self, seed: int, n: int) -> float:
        """When the last of n messages is issued, s."""
        if isinstance(self.arrivals, Trace):
            return float(self.arrivals.recorded[n - 1])
        return float(self.arrivals.clock(n, seed)(np.array([_last_moment(n, seed)]))[0])

    def chunks(self, seed: int, n: int, size: int = CHUNK) -> Iterator[Arrivals]:
        """The n messages of a run, `size` at a time: the same as all at once."""
        times: Iterator[np.ndarray]
        if isinstance(self.arrivals, Trace):
            times = (self.arrivals.recorded[first : min(first + size, n)] for first in range(0, n, size))
        else:
            times = map(self.arrivals.clock(n, seed), _moments(n, seed, size))
        ordered = np.full(self.customers, -1, np.int32)
        for first, issued in zip(range(0, n, size), times, strict=True):
            yield self._requests(seed, first, issued, ordered)

    def _requests(self, seed: int, first: int, issued: np.ndarray, ordered: np.ndarray) -> Arrivals:
        """Messages from the first on; `ordered` has the SKU that each customer ordered last before, and then the new ones."""
        n = issued.size
        u = {
            name: draws.uniforms(draws.stream_key(seed, name), n, first)
            for name in ("kind", "sku", "sale", "session", "change", "own")
        }
        shares = np.add.accumulate([self.mix.stock_update, self.mix.order])
        kind = np.searchsorted(shares, u["kind"], side="right").astype(np.int8)
        sku = np.searchsorted(_zipf(self.goods.skus, self.goods.zipf), u["sku"], side="right").astype(np.int32)
        order, query, update = (kind == KINDS.index(k) for k in (ORDER, STOCK_QUERY, STOCK_UPDATE))
        sku[order & (u["sale"] < self.goods.sale_share)] = 0
        session = np.where(update, -1, (u["session"] * self.customers).astype(np.int64)).astype(np.int32)
        asking, orders = np.flatnonzero(query & (u["own"] < self.asks_for_own_order)), np.flatnonzero(order)
        last = _last(orders, session, asking)
        own = np.where(last >= 0, sku[last], ordered[session[asking]])
        sku[asking[own >= 0]] = own[own >= 0]
        ordered[session[orders]] = sku[orders]
        received = self.mix.order / self.mix.stock_update if self.goods.receipts and self.mix.stock_update else 0.0
        receipt = np.floor(received) + (u["change"] < received % 1.0)
        quantity = np.where(update, receipt, np.where(order, 1, 0)).astype(np.int32)
        return Arrivals(issued, kind, sku, session, quantity)


@lru_cache(maxsize=8)
def _zipf(skus: int, exponent: float) -> np.ndarray:
    """The distribution function of Zipf's law, shape (skus,), with the powers of the mathematical library."""
    popularity = np.add.accumulate([float(k) ** -exponent for k in range(1, skus + 1)])
    return popularity / popularity[-1]


def _last(orders: np.ndarray, session: np.ndarray, asking: np.ndarray) -> np.ndarray:
    """For each message of `asking`, the last of `orders` before it of the same session, -1 for none; both ascend."""
    keys = np.sort((session[orders].astype(np.int64) << 32) + orders)
    found = np.append(keys, -1)[np.searchsorted(keys, (session[asking].astype(np.int64) << 32) + asking) - 1]
    return np.where(found >> 32 == session[asking], found & 0xFFFFFFFF, -1)


def scenario_names() -> list[str]:
    """Names of the scenarios that come with the package."""
    return sorted(path.stem for path in paths.SCENARIOS.glob("*.yaml"))


def load_scenario(name: str) -> Scenario:
    """The named scenario, or the one in a YAML file; raises BadInput for an unknown name or a bad file."""
    if name.endswith((".yaml", ".yml")):
        return read_model(Scenario, Path(name), "a scenario", name=Path(name).stem)
    if name not in scenario_names():
        raise unknown("scenario", name, scenario_names())
    return _named(name)


@cache
def _named(name: str) -> Scenario:
    """A scenario that comes with the package."""
    return read_model(Scenario, paths.SCENARIOS / f"{name}.yaml", "a scenario", name=name)
