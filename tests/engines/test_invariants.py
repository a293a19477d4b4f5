"""Laws over random flows: each run ends, each message has one outcome, areas are sums of times, no bound is exceeded.

Conservation, causality, Little's law and the utilisation law are checked on every run of the suite (see the fixture in
tests/conftest.py); here the flows are drawn at random, so that the laws meet what nobody thought of.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simlib
from simlib.distributions import Constant, Distribution, Exponential
from simlib.errors import BadInput
from simlib.flow import (
    Backoff,
    Flow,
    Step,
    ack,
    apply,
    branch,
    call,
    delay,
    fail,
    fork,
    nack,
    publish,
    reject,
    repeat,
    reply,
    rescue,
    retry,
    spawn,
    timeout,
)

LAWS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
POOLS = 3
LONGEST = 10.0
"""Seconds of a station's time that a message seldom exceeds: bounds the variance by that of as many visits of this length."""
Recipe = tuple[Any, ...]
"""A step as data: its name, then its values and the lists of recipes inside it."""


def programs(deep: bool, certain: bool, patient: bool = False) -> st.SearchStrategy[list[Recipe]]:
    """Lists of recipes. `certain`: whatever is in them happens to every message, and takes constant times. `patient`: nobody
    leaves before all is done."""
    times = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    works = times if certain else st.one_of(times, st.just("random"))
    leaf = st.one_of(
        st.tuples(st.just("serve"), st.integers(0, POOLS - 1), works),
        st.tuples(st.just("delay"), works),
        st.tuples(st.just("apply")),
        *([] if certain else [st.tuples(st.just("fail"), st.sampled_from([0.1, 0.5]))]),
    )

    def around(inner: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
        steps = st.lists(inner, min_size=1, max_size=3)
        sure = [
            st.tuples(st.just("hold"), st.integers(0, POOLS - 1), steps),
            st.tuples(st.just("fork"), st.lists(steps, min_size=1, max_size=3), st.none()),
            st.tuples(st.just("spawn"), steps),
            st.tuples(st.just("call"), steps, st.none()),
            st.tuples(st.just("publish")),
        ]
        unsure = [
            st.tuples(st.just("branch"), st.sampled_from([0.2, 0.5]), steps, steps),
            st.tuples(st.just("repeat"), steps, st.sampled_from([0.3, 0.5])),
            st.tuples(st.just("retry"), st.integers(0, 2), times, steps),
            st.tuples(st.just("rescue"), steps, steps),
        ]
        hasty = [
            st.tuples(st.just("fork"), st.lists(steps, min_size=1, max_size=3), st.integers(1, 3)),
            st.tuples(st.just("call"), steps, times),
            st.tuples(st.just("timeout"), times, steps, steps),
        ]
        return st.one_of(*sure, *([] if certain else unsure), *([] if certain or patient else hasty))

    recipe = st.recursive(leaf, around, max_leaves=8) if deep else leaf
    return st.lists(recipe, min_size=1, max_size=4)


@dataclass
class Builder:
    """Steps from recipes: each draw has a stream of its own, and pools are held in one order, so that no ring waits."""

    flow: Flow
    queue: Any = None
    names: Iterator[int] = field(default_factory=count)
    surely: bool = True

    def steps(self, recipes: list[Recipe], free: int = 0) -> list[Step]:
        """The steps, which may hold pools from number `free` on."""
        return [step for recipe in recipes for step in self.step(recipe, free)]

    def time(self, value: float | str) -> Distribution:
        return Exponential(1.0) if value == "random" else Constant(float(value))

    def step(self, recipe: Recipe, free: int) -> list[Step]:
        stream = f"stream{next(self.names)}"
        pools = list(self.flow.pools.values())[-POOLS:]
        match recipe:
            case ("serve", pool, time):
                return (
                    [pools[pool].serve(self.time(time), stream)] if pool >= free else [delay(self.time(time), stream)]
                )
            case ("delay", time):
                return [delay(self.time(time), stream)]
            case ("apply",):
                return [apply(stream)]
            case ("fail", p):
                return [branch(p, [fail()], stream=stream)]
            case ("hold", pool, inner):
                inside = self.steps(inner, max(free, pool + 1))
                return [pools[pool].seize(), *inside, pools[pool].release()] if pool >= free else inside
            case ("fork", branches, needed):
                needed = None if needed is None else min(needed, len(branches))
                return [fork(*(self.steps(inner, free) for inner in branches), join=needed)]
            case ("spawn", inner):
                return [spawn(self.steps(inner))]
            case ("call", inner, limit):
                return [call([rescue(self.steps(inner, free), []), reply("ok")], timeout=limit)]
            case ("branch", p, then, otherwise):
                return [branch(p, self.steps(then, free), self.steps(otherwise, free), stream)]
            case ("repeat", inner, again):
                return [repeat(self.steps(inner, free), again, stream)]
            case ("retry", retries, base, inner):
                policy = Backoff(retries=retries, base=base, jitter=True)
                return [retry(policy, self.steps(inner, free), [apply(f"{stream} gave up")], stream)]
            case ("timeout", after, inner, otherwise):
                return [timeout(after, self.steps(inner, free), self.steps(otherwise, free))]
            case ("rescue", inner, otherwise):
                return [rescue(self.steps(inner, free), self.steps(otherwise, free))]
            case ("publish",):
                return [publish(self.queue)] if self.queue is not None else []
        raise AssertionError(recipe)


@st.composite
def flows(draw: st.DrawFn, certain: bool, patient: bool = False) -> Flow:
    """A flow of one part with three pools and perhaps a queue, whose consumers always settle what they get."""
    unlimited = certain or patient
    flow = Flow("random")
    part = flow.part("part")
    for i in range(POOLS):
        limit = None if unlimited else draw(st.sampled_from([None, None, 0, 1]))
        flow.pool(f"pool{i}", capacity=draw(st.integers(1, 2)), queue_limit=limit)
    builder = Builder(flow)
    if draw(st.booleans()):
        prefetch, shared = draw(st.sampled_from([(None, False), (1, False), (2, True)]))
        options = {"prefetch": prefetch, "shared": shared}
        if not unlimited:
            options |= {
                "automatic_ack": draw(st.booleans()), "ack_wait": draw(st.sampled_from([None, 0.5, 3.0])),
                "max_deliveries": 3, "dead_letter": draw(st.booleans()),
                "deduplicate": draw(st.sampled_from([None, 1.0])),
            }  # fmt: skip
        queue = part.queue("jobs", **options)
        work = builder.steps(draw(programs(deep=True, certain=certain, patient=patient)))
        settling: list[Step] = [ack()] if unlimited else [branch(0.3, [nack(delay=0.5)], [ack()], stream="settling")]
        flow.consumers(queue, part, count=draw(st.integers(1, 3)), steps=[rescue(work, []), *settling])
        builder.queue = queue
    inside = builder.steps(draw(programs(deep=True, certain=certain, patient=patient)))
    last: list[Step] = [publish(builder.queue)] if builder.queue is not None else []
    rate = Constant(draw(st.sampled_from([0.0, 0.5, 2.0]))) if certain or draw(st.booleans()) else Exponential(1.0)
    steps = [*last, rescue(inside, [reject()]), apply("end")]
    flow.source("job", at=part, interarrival=rate, batch=draw(st.integers(1, 2)), steps=steps)
    return flow


@LAWS
@given(flows(certain=False), st.integers(0, 2**31))
def test_every_random_run_obeys_the_laws_and_leaves_nothing_in_flight(flow: Flow, seed: int) -> None:
    history = simlib.simulate(flow, 25, seed=seed)
    outcomes = Counter(history.messages["outcome"].to_pylist())
    assert sum(outcomes.values()) == 25
    assert outcomes["in_flight"] == 0


@LAWS
@given(flows(certain=False), st.integers(0, 2**31))
def test_every_random_run_is_the_same_again(flow: Flow, seed: int) -> None:
    one, other = (simlib.simulate(flow, 15, seed=seed) for _ in range(2))
    for name in ("messages", "effects", "parts"):
        assert getattr(one, name).equals(getattr(other, name)) or _same(getattr(one, name), getattr(other, name))


def _same(one: Any, other: Any) -> bool:
    """Equal tables, where NaN equals NaN."""
    return bool(one.to_pandas().equals(other.to_pandas()))


@LAWS
@given(flows(certain=True))
def test_no_random_run_serves_more_than_the_bound_or_works_less_than_the_demand(flow: Flow) -> None:
    """What surely comes to every message keeps each pool busy for the demand at least (a pool may be held for longer),
    and the messages that were served a second are never more than the bound."""
    n = 12
    history = simlib.simulate(flow, n)
    parts = history.parts.to_pandas()
    try:
        bounds = flow.bounds({"job": 1.0})
    except BadInput as error:
        pytest.fail(str(error))
    end = float(parts["end"].max()) if len(parts) else 0.0
    busy = parts.groupby("name")["busy"].sum()
    for station in bounds.stations:
        if station.name in flow.pools and end:
            assert busy[station.name] >= station.demand * n * (1 - 1e-9)
            assert station.capacity * end >= busy[station.name] * (1 - 1e-9)
    if end:
        assert n / end <= bounds.throughput * (1 + 1e-9)
    else:
        assert math.isinf(bounds.throughput)


@settings(LAWS, max_examples=25)
@given(flows(certain=False, patient=True), st.integers(0, 2**31))
def test_no_long_random_run_serves_more_than_the_bound_where_chances_weigh(flow: Flow, seed: int) -> None:
    """What messages bring is then the demand on average: five standard deviations are left to chance."""
    n = 20_000
    parts = simlib.simulate(flow, n, seed).parts.to_pandas()
    end = float(parts["end"].max()) if len(parts) else 0.0
    busy = parts.groupby("name")["busy"].sum()
    for station in flow.bounds({"job": 1.0}).stations:
        brought = n * station.demand
        surely = brought - 5 * math.sqrt(brought * LONGEST)
        assert station.capacity * end >= surely, station.name
        assert station.name not in flow.pools or busy.get(station.name, 0.0) >= surely, station.name


@LAWS
@given(programs(deep=False, certain=True), st.integers(1, 2))
def test_the_work_of_a_chain_of_stations_is_exactly_the_demand(recipes: list[Recipe], batch: int) -> None:
    flow = Flow("chain")
    for i in range(POOLS):
        flow.pool(f"pool{i}")
    steps = Builder(flow).steps(recipes)
    flow.source("job", interarrival=Constant(1.0), batch=batch, steps=[*steps, apply("end")])
    busy = simlib.simulate(flow, 10).parts.to_pandas().groupby("name")["busy"].sum()
    for station in flow.bounds().stations:
        assert busy[station.name] == pytest.approx(10 * station.demand)
