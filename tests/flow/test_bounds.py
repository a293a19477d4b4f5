"""The bounds against closed forms, and against what blocks surely bring."""

from __future__ import annotations

import math

import numpy as np
import pytest

import simlib
from simlib import architectures
from simlib.errors import BadInput
from simlib.flow import (
    ATTEMPT,
    BATCH,
    KIND,
    POISONED,
    Affine,
    Backoff,
    Constant,
    Exponential,
    Flow,
    Part,
    Queue,
    Step,
    ack,
    apply,
    branch,
    by_attempt,
    by_sku,
    call,
    choose,
    delay,
    every,
    fail,
    for_each,
    fork,
    hedge,
    publish,
    receive,
    repeat,
    reply,
    rescue,
    retry,
    spawn,
    timeout,
)
from simlib.flow.blocks import Steps
from simlib.flow.bounds import Bounds, Station
from simlib.scenario import load_scenario


def station(bounds: Bounds, name: str) -> Station:
    return next(station for station in bounds.stations if station.name == name)


def brought(steps: Steps, flow: Flow, pool: str, at: Part | None = None) -> float:
    """Seconds of a pool that the steps bring."""
    flow.source("job", interarrival=1.0, at=at, steps=steps)
    flow.check()
    return station(flow.bounds(), pool).demand


def served(times: dict[str, float]) -> tuple[Flow, dict[str, Steps]]:
    """A flow with a pool for each name, and a service there."""
    flow = Flow("flow")
    return flow, {name: [flow.pool(name).serve(time, stream=f"{name}.work")] for name, time in times.items()}


def test_a_single_station_has_the_utilisation_of_the_textbook() -> None:
    flow = Flow("mmc")
    server = flow.pool("server", capacity=4)
    flow.source("job", interarrival=Exponential(0.5), batch=2, steps=[server.serve(Exponential(0.75))])
    bounds = flow.bounds()
    assert station(bounds, "server").utilisation == pytest.approx(4 * 0.75 / 4)
    assert bounds.throughput == pytest.approx(4 / 0.75)
    assert bounds.bottleneck is not None and bounds.bottleneck.name == "server"


def test_the_mix_of_kinds_weighs_what_each_brings() -> None:
    flow = Flow("mix")
    a, b = flow.pool("a"), flow.pool("b", capacity=2, members=3)
    flow.source("light", steps=[a.serve("10 ms")])
    flow.source("heavy", steps=[a.serve("30 ms"), b.serve("60 ms")])
    bounds = flow.bounds({"light": 30.0, "heavy": 10.0})
    assert station(bounds, "a").utilisation == pytest.approx(0.6)
    assert station(bounds, "b").utilisation == pytest.approx(0.1)
    assert bounds.throughput == pytest.approx(40 / 0.6)


def test_kinds_are_told_apart_inside_shared_steps() -> None:
    flow = Flow("kinds")
    part = flow.part("broker")
    jobs = part.queue("jobs")
    for kind in ("order", "stock_update"):
        flow.source(kind, at=part, steps=[publish(jobs)])
    handling = branch(KIND.equals("order"), [part.cpu.serve(3.0)], [part.cpu.serve(1.0)])
    flow.consumers(jobs, part, count=8, steps=[handling, ack()])
    assert station(flow.bounds({"order": 1.0}), "broker.cpu").demand == 3.0
    assert station(flow.bounds({"stock_update": 1.0}), "broker.cpu").demand == 1.0
    assert station(flow.bounds({"order": 1.0, "stock_update": 3.0}), "broker.cpu").demand == pytest.approx(1.5)


def test_chances_weigh_and_what_a_chance_ends_brings_nothing_more() -> None:
    flow, work = served({"a": 1.0})
    assert brought([branch(0.25, work["a"])], flow, "a") == 0.25
    flow, work = served({"a": 1.0})
    assert brought([branch(0.25, [fail()]), *work["a"]], flow, "a") == 0.75
    flow, work = served({"a": 1.0})
    assert brought([rescue([branch(0.25, [fail()])], work["a"])], flow, "a") == 0.25


def test_of_an_unknown_condition_the_smaller_arm_counts() -> None:
    flow, work = served({"a": 3.0})
    smaller = [flow.pools["a"].serve(2.0, stream="smaller")]
    assert brought([branch(ATTEMPT.at_least(2), work["a"], smaller)], flow, "a") == 2.0
    flow, work = served({"a": 3.0})
    assert brought([branch(ATTEMPT.at_least(2), work["a"])], flow, "a") == 0.0
    flow, work = served({"a": 3.0})
    table = flow.part("side").table("stock")
    assert brought([table.take(work["a"], [])], flow, "a", at=None) == 0.0


def acted(turn: list[Step], jobs: Queue, flow: Flow) -> Station:
    """The station that an actor is, whose turn handles what is published."""
    flow.source("job", at=jobs.at, interarrival=1.0, steps=[publish(jobs)])
    flow.actor("actor", at=jobs.at, steps=turn)
    flow.check()
    return station(flow.bounds(), "actor")


@pytest.mark.parametrize(("largest", "throughput"), [(1, 1.0), (10, 5.0), (None, 10.0)])
def test_an_actor_s_turn_is_shared_by_its_largest_batch(largest: int | None, throughput: float) -> None:
    flow = Flow("batch")
    part = flow.part("host")
    jobs = part.queue("jobs")
    turn = [delay(Affine(0.9, 0.05, of=BATCH)), receive(jobs, at_most=largest), for_each([part.cpu.serve(0.05)]), ack()]
    assert acted(turn, jobs, flow).throughput == pytest.approx(throughput, rel=0.06)
    assert station(flow.bounds(), "host.cpu").demand == pytest.approx(0.05)


def test_an_actor_serves_no_more_than_a_batch_each_period_however_little_it_does() -> None:
    flow = Flow("polled")
    jobs = flow.part("host").queue("jobs")
    each = for_each([retry(Backoff(3), [branch(0.1, [fail()])])])
    assert acted(
        [every(0.5), receive(jobs, at_most=20), each, delay(0.1), ack()], jobs, flow
    ).throughput == pytest.approx(40)


def test_an_actor_that_receives_again_in_one_turn_is_bound_by_its_work_alone() -> None:
    flow = Flow("drained")
    jobs = flow.part("host").queue("jobs")
    handled = [receive(jobs, at_most=20), delay(0.1), for_each([delay(0.01, stream="each")]), ack()]
    assert acted([every(0.5), repeat(handled, again=0.5)], jobs, flow).throughput == pytest.approx(100)


@pytest.mark.parametrize(("coalesce", "demand"), [(False, 0.5), (True, 0.0)])
def test_what_may_be_superseded_is_surely_delivered_to_nobody(coalesce: bool, demand: float) -> None:
    flow = Flow("coalescing")
    jobs = flow.part("host").queue("jobs", coalesce=coalesce)
    acted([every(0.5), receive(jobs), for_each([jobs.at.cpu.serve(0.5)]), ack()], jobs, flow)
    assert station(flow.bounds(), "host.cpu").demand == demand


def test_nothing_is_poisoned_without_a_fault() -> None:
    flow, work = served({"a": 1.0})
    assert brought([branch(POISONED.equals(1), [fail()]), *work["a"]], flow, "a") == 1.0


def test_a_retry_counts_one_attempt_and_a_repeat_its_mean_turns() -> None:
    flow, work = served({"a": 1.0})
    assert brought([retry(Backoff(retries=5), [by_attempt(work["a"]), branch(0.5, [fail()])])], flow, "a") == 1.0
    flow, work = served({"a": 1.0, "b": 1.0})
    assert brought([retry(Backoff(retries=1), [branch(0.5, [fail()])], work["a"])], flow, "a") == 0.25
    flow, work = served({"a": 1.0})
    assert brought([repeat(work["a"], again=0.6)], flow, "a") == pytest.approx(2.5)


def test_branches_spawned_and_called_steps_all_count() -> None:
    flow, work = served({"a": 1.0, "b": 2.0, "c": 4.0})
    flow.source("job", interarrival=100.0, steps=[
        fork(work["a"], work["b"], join=1), spawn(work["c"]),
        call([flow.pools["a"].serve(8.0), reply(), flow.pools["b"].serve(16.0)], timeout=0.1),
        hedge(1.0, [flow.pools["c"].serve(32.0)]),
    ])  # fmt: skip
    assert [s.demand for s in flow.bounds().stations] == [9.0, 18.0, 36.0], "of a hedge one try is sure"


def test_what_is_held_counts_while_it_is_held() -> None:
    """A connection is held while its holder works, waits for a reply, and for the longest of its branches."""
    flow = Flow("held")
    connections, server = flow.pool("connections", capacity=10), flow.pool("server")
    tasks = [[delay(1.0, stream="short")], [delay(2.0, stream="long")]]
    flow.source("job", interarrival=100.0, steps=[
        connections.seize(), server.serve(0.5), delay(0.25),
        call([server.serve(4.0, stream="called"), reply(), delay(100.0, stream="after")]), fork(*tasks),
        connections.release(), delay(1000.0, stream="rest"),
    ])  # fmt: skip
    assert station(flow.bounds(), "connections").demand == pytest.approx(0.5 + 0.25 + 4.0 + 2.0)
    assert station(flow.bounds(), "server").demand == pytest.approx(4.5)


@pytest.mark.parametrize(("prefetch", "throughput"), [(1, 9.615), (10, 96.15), (26, 250.0)])
def test_the_prefetch_window_bounds_a_consumer_as_its_round_trip_says(prefetch: int, throughput: float) -> None:
    """4 ms of work and 50 ms each way: W / 104 ms, until the consumer itself is the bottleneck."""
    flow = Flow("window")
    broker, client = flow.part("broker"), flow.part("client")
    jobs: Queue = broker.queue("jobs", link=flow.link(broker, client, "50 ms"), prefetch=prefetch)
    flow.source("job", at=broker, interarrival="1 ms", steps=[publish(jobs)])
    flow.consumers(jobs, at=client, count=1, steps=[client.cpu.serve("4 ms"), ack(), delay(0.0)])
    bounds = flow.bounds()
    assert bounds.throughput == pytest.approx(throughput, rel=1e-3)
    assert station(bounds, "jobs.prefetch").throughput == pytest.approx(prefetch / 0.104)


def test_consumers_bound_as_many_as_they_are() -> None:
    flow = Flow("consumers")
    part = flow.part("broker")
    jobs = part.queue("jobs", prefetch=100, shared=True)
    flow.source("job", at=part, interarrival="1 ms", steps=[publish(jobs)])
    flow.consumers(jobs, part, count=3, steps=[ack(), delay("10 ms")])
    bounds = flow.bounds()
    assert bounds.throughput == pytest.approx(300.0)
    assert station(bounds, "jobs.prefetch").demand == 0.0


def test_stages_are_visited_as_the_traffic_equations_say() -> None:
    """Two stations that send back and on: visits v = e + Pᵀv, solved by hand."""
    flow = Flow("jackson")
    a, b = flow.pool("a"), flow.pool("b")
    flow.stage("a", [a.serve(1.0), choose({"b": 0.5})])
    flow.stage("b", [b.serve(1.0), choose({"a": 0.5, "b": 0.2})])
    flow.source("job", interarrival=Exponential(10.0), steps=[choose({"a": 1.0})])
    flow.check()
    visits = np.linalg.solve(np.array([[1.0, -0.5], [-0.5, 0.8]]), [1.0, 0.0])
    assert [s.demand for s in flow.bounds().stations] == pytest.approx(visits)


def test_stages_that_never_let_go_are_refused() -> None:
    flow = Flow("ring")
    for one, other in (("a", "b"), ("b", "a")):
        flow.stage(one, [choose({other: 1.0})])
    flow.source("job", interarrival=1.0, steps=[choose({"a": 1.0})])
    with pytest.raises(BadInput, match="go round for ever"):
        flow.bounds()


def test_a_closed_population_is_bounded_by_its_size_and_by_its_bottleneck() -> None:
    """The asymptotic bounds min(1 / D_max, N / (D + Z))."""
    for customers, expected in ((2, 2 / 19.055), (30, 1 / 2.1)):
        flow = Flow("closed")
        steps = [flow.pool(name).serve(Exponential(d)) for name, d in (("cpu", 0.605), ("disk1", 2.1), ("disk2", 1.35))]
        flow.source("job", population=customers, think=Exponential(15.0), steps=steps)
        bounds = flow.bounds()
        assert bounds.throughput == pytest.approx(expected)
        history = simlib.simulate(flow, 2_000)
        end = history.parts["end"].to_numpy().max()
        assert 2_000 / end < expected * 1.05


def test_a_simulated_station_is_as_busy_as_predicted() -> None:
    flow = Flow("predicted")
    a, b = flow.pool("a"), flow.pool("b", capacity=2)
    flow.source(
        "job",
        interarrival=Exponential(1.0),
        steps=[repeat([a.serve(Exponential(0.4))], again=0.3), branch(0.5, [b.serve(0.9)])],
    )
    parts = simlib.simulate(flow, 20_000).parts.to_pandas()
    end = parts["end"].max()
    for each in flow.bounds().stations:
        busy = parts.loc[parts["name"] == each.name, "busy"].sum() / (end * each.capacity)
        assert busy == pytest.approx(each.utilisation, rel=0.04)


def test_overload_is_named_with_its_utilisation() -> None:
    flow = Flow("overload")
    flow.source("job", steps=[flow.pool("server").serve("10 ms"), flow.pool("idle").serve("1 ms")])
    (warning,) = flow.bounds({"job": 150.0}).warnings
    assert warning == "'server' is overloaded: 150 messages/s bring a utilisation of 1.5, it can bear 100/s"
    assert flow.bounds({"job": 99.0}).warnings == []


def test_rates_that_cannot_be_are_refused() -> None:
    flow = Flow("rates")
    flow.source("one", steps=[apply("done")])
    flow.source("two", steps=[apply("done")])
    for rates, message in (
        (None, "source 'one' of flow 'rates' has no rate of its own"),
        ({"three": 1.0}, "unknown kind 'three'"),
        ({"one": -1.0}, "the rate of 'one' must be finite and at least 0, got -1.0"),
        ({"one": math.nan}, "the rate of 'one'"),
        ({"one": 0.0}, "are all 0"),
    ):
        with pytest.raises(BadInput, match=message):
            flow.bounds(rates)


def test_a_flow_without_work_has_no_bottleneck() -> None:
    flow = Flow("free")
    flow.source("job", interarrival=Constant(1.0), steps=[delay(5.0)])
    assert flow.bounds().bottleneck is None and flow.bounds().throughput == math.inf


def test_the_rows_are_a_table_and_a_text() -> None:
    flow = Flow("shown")
    flow.source("job", interarrival="10 ms", steps=[flow.pool("server").serve("4 ms"), timeout("1 s", [delay("1 ms")])])
    bounds = flow.bounds()
    table = bounds.table()
    assert table.columns.tolist() == ["name", "capacity", "demand", "utilisation", "throughput"]
    assert table.iloc[0].tolist() == ["server", 1, 0.004, pytest.approx(0.4), 250.0]
    assert str(bounds).splitlines()[-1] == "shown: bottleneck 'server', at most 250 messages/s, offered 100"


@pytest.mark.parametrize("name", architectures.names())
def test_no_architecture_serves_more_than_its_bound(name: str) -> None:
    """All that arrives at once keeps the bottleneck busy as long as can be."""
    architecture, scenario = architectures.get(name), load_scenario("steady").with_rate(2_000.0)
    history = simlib.run(name, scenario, messages=2_000, seed=3)
    messages = history.messages.to_pandas()
    shares = messages["kind"].value_counts()
    bounds = architecture.build(architecture.load_parameters(), scenario).bounds(
        {k: float(n) for k, n in shares.items()}
    )
    served = messages["outcome"].isin(["applied", "answered"]).sum()
    assert served / history.parts["end"].to_numpy().max() <= bounds.throughput * 1.05


def test_what_is_hashed_by_sku_is_shared_evenly() -> None:
    """By chance it is not: the bound is one that no uneven sharing exceeds."""
    flow = Flow("hashed")
    servers = [flow.pool(f"server{k}") for k in range(3)]
    flow.source("job", [by_sku(*([server.serve(1.0)] for server in servers))], interarrival=1.0)
    assert flow.bounds().throughput == pytest.approx(3.0)
