"""The relations: orderings, ratios and laws that others measured or derived, and that the architectures must show.

Each test is of the relation's own assertion and tolerance. What a relation says of a whole system is tested on the
architecture; what it says of one mechanism, on a flow of that alone. Times are the calibrated ones, or those that the
relation publishes; none is tuned. docs/relations.md says what became of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

import simlib
from simlib import architectures
from simlib.architectures.queues import Feed
from simlib.distributions import Constant, Distribution, Exponential, Lognormal
from simlib.draws import replication_seed
from simlib.engines import ENGINES
from simlib.flow import (
    Affine,
    Field,
    Flow,
    Step,
    ack,
    apply,
    branch,
    call,
    choose,
    delay,
    mark,
    publish,
    reject,
    reply,
    rescue,
    respond,
)
from simlib.history import History
from simlib.metrics import measure
from simlib.scenario import Arrivals, Crash, Goods, Loss, Mix, Scenario, Slowdown, load_scenario
from simlib.statistics import mean_interval

ROOT = Path(__file__).resolve().parents[2]


def entries(name: str, key: str) -> dict[str, Any]:
    """The entries of a file of reference results, by id."""
    text = (ROOT / f"data/reference/{name}.yaml").read_text(encoding="utf-8")
    return {entry["id"]: entry for entry in YAML(typ="safe", pure=True).load(text)[key]}


RELATIONS, MEASURED = entries("relations", "relations"), entries("live_measurements", "entries")
AS_CASES = {"R79_fanout_max": ("fanout_max_exp", "forkjoin2_rho05", "forkjoin5_NT")}
"""Relations that are analytic cases: tests/reference/test_theory.py tells those."""
TOLD: set[str] = set()


def tells(relation: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of a relation."""

    def note(test: Callable[..., None]) -> Callable[..., None]:
        TOLD.add(relation)
        return test

    return note


# --- runs -----------------------------------------------------------------------------------------------------------

STEADY = load_scenario("steady")
ARCHITECTURES = [
    pytest.param("rest", {}, id="rest"),
    pytest.param("message_queue", {}, id="nats"),
    pytest.param("message_queue", {"broker": "rabbitmq"}, id="rabbitmq"),
]
QUEUES = ARCHITECTURES[1:]
BARE = {
    **dict.fromkeys(
        ("edge", "http_server", "http_client", "database_client", "commit", "read", "publish_client", "consume_client",
         "store", "uplink", "dispatch"), "0 ms",
    ),
    "cores": 1000, "database_connections": 100_000, "broker": "rabbitmq", "queue_type": "classic",
}  # fmt: skip
"""RabbitMQ's queue where nothing takes time but what a test names, and the handler's work."""


def only(kind: str, rate: float, **properties: Any) -> Scenario:
    """The steady scenario with messages of one kind alone, at a rate, and other properties."""
    mix = Mix.model_validate({"stock_update": 0, "order": 0, "stock_query": 0, kind: 1})
    return STEADY.with_rate(rate).model_copy(update={"mix": mix, **properties})


def throughput(history: History, skip: float = 0.1) -> float:
    """Effects a second, without the first and the last of them."""
    times = np.sort(history.messages["applied"].to_numpy())
    times = times[np.isfinite(times)]
    middle = times[int(skip * times.size) : times.size - int(skip * times.size)]
    return (middle.size - 1) / float(middle[-1] - middle[0])


def bottleneck_rate(name: str, scenario: Scenario, changes: dict[str, Any]) -> float:
    """The rate at which the busiest part would be busy all the time, /s: the bound of the utilisation law."""
    rate = 100.0
    metrics = measure(simlib.run(name, scenario.with_rate(rate), changes, messages=10_000))
    return rate / max(value for metric, value in metrics.items() if metric.startswith("utilisation."))


def sojourn(history: History, kind: str | None = None) -> np.ndarray:
    """From issue to effect of the messages of a kind, or of all."""
    messages = history.messages.to_pandas()
    chosen = messages if kind is None else messages[messages["kind"] == kind]
    return (chosen["applied"] - chosen["issued"]).to_numpy()


def failing(part: str, up: float, restart: float, until: float, seed: int) -> Crash:
    """Crashes of a part by renewal: exponential times between a start and the next crash."""
    lasts = Exponential(up).sample(seed, f"{part}.up", int(2 * until / up))
    return Crash(part=part, at=tuple(np.cumsum(lasts) + restart * np.arange(lasts.size)), restart=restart)


# --- windows and capacities -----------------------------------------------------------------------------------------


def prefetched(prefetch: int, work: Distribution, one_way: float, messages: int) -> float:
    """The rate at which one consumer of RabbitMQ's queue works off a backlog."""
    backlog = only("stock_update", 1e6, handler_work=work)
    parameters = {**BARE, "consumers": 1, "prefetch": prefetch, "uplink": one_way}
    return throughput(simlib.run("message_queue", backlog, parameters, messages=messages))


@tells("R01_prefetch_shape")
def test_throughput_rises_with_prefetch_and_then_stays() -> None:
    cycle, work = 1 / 900, 1 / 15_800
    law = Lognormal(work, STEADY.handler_work.cv)
    rates = {w: prefetched(w, law, (cycle - work) / 2, 30_000) for w in (1, 10, 100, 1000, 30_000)}
    assert 6.5 <= rates[10] / rates[1] <= 10
    assert rates[100] / rates[1] >= 13
    assert rates[1000] / rates[30_000] >= 0.97


@tells("R02_prefetch_math")
def test_the_smallest_prefetch_that_saturates_is_the_round_trip_in_units_of_work() -> None:
    rates = {w: prefetched(w, Constant(0.004), 0.05, 6_000) for w in (1, 10, 25, 26)}
    assert rates[1] == pytest.approx(9.615, rel=0.02)
    assert rates[10] == pytest.approx(96.15, rel=0.02)
    assert rates[25] < 0.97 * 250 <= rates[26]
    assert math.ceil((0.1 + 0.004) / 0.004) == 26


@tells("R04_confirm_little")
@pytest.mark.parametrize("measured", ["classic_amqp091", "quorum_amqp091_window192"])
def test_confirms_take_the_window_over_the_throughput(measured: str) -> None:
    """As many publishers as the window has room, each with the next message as soon as the last is confirmed."""
    rate, window = MEASURED["rabbit_amqp_2024"]["data"][measured]["rate"], 192
    parameters = architectures.get("message_queue").load_parameters({**BARE, "store": Exponential(1 / rate)})
    flow = Flow("publishers")
    between = Feed(flow, parameters, STEADY)
    published, [updates] = between.publish("update", between.accounting), between.updates
    steps, at = [*published, respond()], between.accounting.part
    flow.source("stock_update", at=at, population=window, think=0.0, steps=steps)
    flow.consumers(updates.queue, at=between.shop.part, count=window, steps=[apply("taken"), ack()])
    messages = simlib.simulate(flow, 20_000).messages
    confirmed = messages["responded"].to_numpy()
    latency = float(np.mean(confirmed - messages["issued"].to_numpy()))
    assert abs(latency * confirmed.size / confirmed.max() / window - 1) <= 0.05


@tells("R07_consumer_capacity")
@pytest.mark.parametrize("work", [0.01, 0.03])
@pytest.mark.parametrize("consumers", [200, 300, 400])
def test_consumers_take_as_many_as_they_are_over_the_time_of_one(consumers: int, work: float) -> None:
    flow = Flow("consumers")
    broker = flow.part("broker")
    jobs = broker.queue("jobs")
    flow.source("job", at=broker, interarrival=Constant(1e-6), steps=[publish(jobs)])
    flow.consumers(jobs, at=broker, count=consumers, steps=[delay(Constant(work)), apply("done"), ack()])
    done = simlib.simulate(flow, 60 * consumers).messages["applied"].to_numpy()
    assert done.size / done.max() == pytest.approx(consumers / work, rel=0.01)


@tells("R33_message_size")
def test_larger_messages_are_fewer_in_a_second_and_more_bytes() -> None:
    """A time that grows with the size, through the smallest and the largest that were measured."""
    measured = MEASURED["petrolmuffin_2026"]["data"]["async_msgs_per_s"]
    small, large = 256, 64 * 1024
    per = (1 / measured["64KB"]["rabbit"] - 1 / measured["256B"]["rabbit"]) / (large - small)
    flow, rates = Flow("sizes"), {}
    work = Affine(1 / measured["256B"]["rabbit"] - per * small, per, of=Field("quantity"))
    flow.source("stock_update", steps=[flow.pool("broker").serve(work), apply("done")])
    for size in (small, 1024, 4 * 1024, large):
        at_once, none = np.zeros(6_000), np.zeros(6_000, np.int32)
        arrivals = Arrivals(at_once, none.astype(np.int8), none, none - 1, none + size)
        history = ENGINES["compiled"](flow, arrivals, ["stock_update"], 1, STEADY, {})
        rates[size] = 6_000 / float(history.messages["applied"].to_numpy().max())
    assert rates[small] == pytest.approx(measured["256B"]["rabbit"]) and rates[large] == pytest.approx(
        measured["64KB"]["rabbit"]
    )
    assert all(rates[one] > rates[other] and rates[one] * one < rates[other] * other for one, other in pairwise(rates))


# --- load and overload ----------------------------------------------------------------------------------------------


@tells("R10_hockey_stick")
@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
def test_times_explode_at_the_peak(name: str, changes: dict[str, Any]) -> None:
    """At the peak and below it, a minute each; services that send at once, so that the peak is that of the utilisation law."""
    changes = changes | {"event_loop": False}
    peak, metric = (
        bottleneck_rate(name, STEADY, changes),
        "response_time_p99" if name == "rest" else "delivery_time_p99",
    )

    def p99(load: float) -> float:
        values = [
            measure(simlib.run(name, STEADY.with_rate(load * peak), changes, seed, int(60 * load * peak)))[metric]
            for seed in range(1, 4)
        ]
        return float(np.mean(values))

    assert p99(1.0) / p99(0.79) >= (50 if name == "rest" else 10)


@tells("R12_goodput_plateau")
def test_a_bounded_queue_serves_what_it_can_and_rejects_the_rest() -> None:
    flow, workers, work = Flow("bounded"), 4, 0.01
    served = flow.pool("workers", capacity=workers, queue_limit=50).serve(Exponential(work))
    steps = rescue([served, apply("done")], [reject()])
    flow.source("request", interarrival=Exponential(work / workers / 1.5), steps=[steps])
    history = simlib.simulate(flow, 300_000)
    rejected = np.mean(np.isnan(history.messages["applied"].to_numpy()))
    assert throughput(history) == pytest.approx(workers / work, rel=0.01)
    assert rejected == pytest.approx(1 - 1 / 1.5, rel=0.01)


@tells("R13_rest_rejects_queue_absorbs")
def test_under_overload_the_direct_call_fails_where_the_queue_waits() -> None:
    """200 users; 100 connections, none of whom waits, against 16 handlers behind a queue; half a second of work.

    A user's pause follows from what was measured: 200 users made 977 calls a second, of which 164.5 took half a second.
    """
    users, work = 200, 0.5
    measured = MEASURED["http_vs_messaging_2025"]["data"]["highload_200vu"]["http"]
    pause = Constant((users - measured["ok_rps"] * work) / measured["rps"])
    direct = Flow("direct")
    connections = direct.pool("connections", capacity=100, queue_limit=0)
    answered = rescue([connections.serve(Constant(work)), apply("done")], [reject()])
    direct.source("call", population=users, think=pause, steps=[answered])
    queued = Flow("queued")
    broker = queued.part("broker")
    requests = broker.queue("requests")
    asked = call([publish(requests)])
    queued.source("call", at=broker, population=users, think=pause, steps=[asked])
    queued.consumers(requests, at=broker, count=16, steps=[delay(Constant(work)), apply("done"), reply(), ack()])
    at_once, later = (sojourn(simlib.simulate(flow, 20_000)) for flow in (direct, queued))
    assert np.mean(np.isnan(at_once)) > 0.5
    assert not np.isnan(later).any()
    assert np.quantile(later, 0.95) >= 5 * np.nanquantile(at_once, 0.95)


ORDERS = {"goods": Goods(units=1_000_000)}
"""As many units as anybody may order."""


def accepted(name: str, changes: dict[str, Any], rate: float) -> float:
    """The 95th percentile of the time until an order is answered."""
    return measure(simlib.run(name, only("order", rate, **ORDERS), changes, messages=9_000))["response_time_p95"]


@tells("R14_async_accept_flat")
def test_acceptance_is_flat_where_it_has_a_process_of_its_own_and_a_call_is_not() -> None:
    """Work of 10 ms behind an acceptance of 1 ms, at a twentieth of what the worker can do and at all of it."""

    def p95(synchronous: bool, load: float) -> float:
        flow = Flow("acceptance")
        front, worker = flow.part("front"), flow.part("worker")
        link = flow.link(front, worker, Constant(0.0))
        jobs, work = front.queue("jobs", link=link), worker.cpu.serve(Exponential(0.01))
        called = call([link.send(stream="there"), work, link.send(stream="back"), reply()])
        steps = [front.cpu.serve(Exponential(0.001)), called if synchronous else publish(jobs), respond("ok")]
        flow.source("order", at=front, interarrival=Exponential(0.01 / load), steps=steps)
        flow.consumers(jobs, at=worker, count=1, steps=[work, ack()])
        return measure(simlib.simulate(flow, 50_000))["response_time_p95"]

    assert p95(synchronous=False, load=1.0) / p95(synchronous=False, load=0.05) <= 1.5
    assert p95(synchronous=True, load=1.0) / p95(synchronous=True, load=0.05) >= 10


@pytest.mark.parametrize(("name", "changes"), QUEUES)
def test_acceptance_is_not_flat_where_the_process_that_accepts_also_consumes(
    name: str, changes: dict[str, Any]
) -> None:
    """What the page says of the architectures: less than the call by far, but more than half as much again."""

    def grows(name: str, changes: dict[str, Any]) -> float:
        return accepted(name, changes, 300.0) / accepted(name, changes, 20.0)

    assert 1.5 < grows(name, changes) < grows("rest", {}) / 10


@tells("R16_broker_hop_cost")
@pytest.mark.parametrize(("name", "changes"), QUEUES)
def test_trivial_work_is_done_sooner_by_a_direct_call_than_behind_a_broker(name: str, changes: dict[str, Any]) -> None:
    trivial = only("stock_update", 10, handler_work=Constant(0.0001))
    direct, behind = (
        np.nanmedian(sojourn(simlib.run(one, trivial, set_, messages=6_000)))
        for one, set_ in (("rest", {}), (name, changes))
    )
    assert behind > direct


def test_a_reply_over_rabbitmq_is_back_later_than_the_answer_of_a_call_and_over_nats_as_soon() -> None:
    trivial = only("order", 10, handler_work=Constant(0.0001), **ORDERS)
    call, nats, rabbitmq = (
        measure(simlib.run(name, trivial, changes, messages=6_000))["response_time_p50"]
        for name, changes in (
            ("rest", {}),
            ("message_queue", {"answered_on": "reply"}),
            ("message_queue", {"broker": "rabbitmq", "answered_on": "reply"}),
        )
    )
    assert rabbitmq > 1.1 * call
    assert nats == pytest.approx(call, rel=0.1)


# --- the broker's disk ----------------------------------------------------------------------------------------------

NUC = MEASURED["rabbit_amqp_2024"]["data"]
FSYNC = NUC["fsync_mean_ms"] / 1000


def publishing(window: int, fsync: float) -> History:
    """As many publishers as the window, to a broker with a processor of 88,534 messages a second, which answers when an
    fsync that began after the write has ended: one of the waiting starts it for all, and closes the door behind them."""
    flow = Flow("group commit")
    processor, disk = flow.pool("processor"), flow.pool("disk")
    next_to_flush = flow.pool("next_to_flush", queue_limit=0)
    flush = [next_to_flush.seize(), disk.seize(), next_to_flush.release(), mark("flush"), delay(fsync), disk.release()]
    committed = [rescue(flush, [disk.seize(), disk.release()])] if fsync else []
    work = processor.serve(Constant(1 / NUC["classic_amqp091"]["rate"]))
    flow.source("command", population=window, think=0.0, steps=[work, *committed, apply("confirmed")])
    return simlib.simulate(flow, 60_000)


@tells("R28_group_commit")
def test_what_waits_for_the_disk_takes_as_long_as_its_fsyncs() -> None:
    runs = [publishing(window, FSYNC) for window in (128, 1600)]
    times = [float(run.messages["applied"].to_numpy().max()) for run in runs]
    fsyncs = [int(np.isfinite(run.messages["mark.flush"].to_numpy()).sum()) for run in runs]
    for time, count in zip(times, fsyncs, strict=True):
        assert time == pytest.approx(count * FSYNC, rel=0.15)
    assert times[0] - times[1] == pytest.approx((fsyncs[0] - fsyncs[1]) * FSYNC, rel=0.15)


@tells("R27_quorum_vs_classic")
@pytest.mark.parametrize("window", [192, 3000])
def test_a_queue_that_flushes_serves_no_more_than_one_that_does_not_and_confirms_later(window: int) -> None:
    classic, quorum = publishing(192, 0.0), publishing(window, FSYNC)
    assert throughput(classic) >= throughput(quorum) * 0.999
    assert np.median(sojourn(quorum)) > np.median(sojourn(classic))


# --- consumers and partitions ---------------------------------------------------------------------------------------


def partitioned(queues: int, consumers: int, between: Distribution, work: Sequence[Step]) -> Flow:
    """Deliveries shared out over queues at random, each with consumers of its own."""
    flow = Flow("partitioned")
    broker = flow.part("broker")
    for i in range(queues):
        jobs = broker.queue(f"jobs{i}", prefetch=1)
        flow.stage(f"partition{i}", [publish(jobs)])
        flow.consumers(jobs, at=broker, count=consumers, steps=[mark("started"), *work, apply("done"), ack()])
    chosen = choose({f"partition{i}": 1 / queues for i in range(queues)})
    flow.source("job", at=broker, interarrival=between, steps=[chosen])
    return flow


@tells("R38_shared_vs_partitioned")
@pytest.mark.long
def test_competing_consumers_wait_less_than_partitions_by_the_ratio_of_the_theory() -> None:
    means = []
    for queues, consumers in ((8, 1), (1, 8)):
        flow = partitioned(queues, consumers, Exponential(1 / 6.4), [delay(Exponential(1.0))])
        waits = []
        for r in range(30):
            messages = simlib.simulate(flow, 64_000, replication_seed(38, r)).messages
            waits.append(np.mean((messages["mark.started"].to_numpy() - messages["issued"].to_numpy())[4_000:]))
        means.append(mean_interval(waits, 0.999))
    apart, shared = means
    assert math.hypot(apart.half_width / apart.value, shared.half_width / shared.value) <= 0.05, "too short to tell"
    assert apart.value / shared.value == pytest.approx(13.98, rel=0.05)


@tells("R39_head_of_line")
@pytest.mark.parametrize("queues", [1, 8])
def test_a_slow_message_holds_up_its_own_partition(queues: int) -> None:
    """One in a thousand takes a hundred times as long: of those who come meanwhile, how many wait for it?"""
    work = 0.01
    slow = branch(
        0.001, [mark("slow"), delay(Constant(100 * work), stream="slow")], [delay(Constant(work), stream="other")]
    )
    history = simlib.simulate(partitioned(queues, 1, Exponential(10 * work), [slow]), 300_000)
    messages = history.messages.to_pandas()
    lasting = messages.dropna(subset="mark.slow").sort_values("mark.slow")
    latest = np.searchsorted(lasting["mark.slow"].to_numpy(), messages["issued"].to_numpy()) - 1
    ends = lasting["applied"].to_numpy()[latest] - 5 * work
    meanwhile = (latest >= 0) & (messages["issued"].to_numpy() < ends)
    held_up = (messages["mark.started"] - messages["issued"])[meanwhile] > 4 * work
    assert held_up.mean() == pytest.approx(1 / queues, abs=0.05)


# --- loss, retries, failures ----------------------------------------------------------------------------------------

LOST, UNHEARD = 0.05, 0.03
"""Probabilities that a publication, or its confirm, is lost."""


def published(**changes: Any) -> pd.DataFrame:
    """Updates over RabbitMQ, whose publications and confirms may be lost, to a receiver who knows none again: all messages
    of five runs."""
    ends = {"accounting": LOST, "broker": UNHEARD}
    lossy = tuple(Loss(link="accounting-broker", probability=p, direction=end) for end, p in ends.items())
    blind = {"broker": "rabbitmq", "idempotent_receiver": False, "write_if_newer": False, "confirm_timeout": 0.5}
    scenario = only("stock_update", 20, faults=lossy)
    runs = (simlib.run("message_queue", scenario, {**blind, **changes}, seed, 20_000) for seed in range(5))
    return pd.concat([run.messages.to_pandas() for run in runs])


def three_sigma(values: np.ndarray) -> Any:
    """What the mean of independent values may be."""
    return pytest.approx(float(np.mean(values)), abs=3 * float(np.std(values)) / math.sqrt(values.size))


NO_TIME = {
    **dict.fromkeys(
        ("edge", "http_server", "database_client", "commit", "read", "publish_client", "consume_client", "uplink", "write_batch",
         "broker_work", "per_record", "replicate", "flush", "commit_position"), 0,
    ),
    "cores": 1000, "database_connections": 100_000,
}  # fmt: skip
"""Streaming where nothing takes time but what a test names."""


@tells("R06_inflight1_vs2")
def test_a_second_batch_in_flight_is_worth_much_and_a_fifth_little() -> None:
    """One batch after the other waits for its confirm; from two on the disk is never idle."""
    p = architectures.get("streaming").parameters()
    times = {name: getattr(p, name) for name in ("uplink", "write_batch", "per_record", "replicate", "flush")}
    backlog, rates = only("stock_update", 1e6, handler_work=Constant(0.0)), {}
    for in_flight in (1, 2, 5):
        parameters = {**NO_TIME, **times, "in_flight": in_flight, "linger": 0}
        rates[in_flight] = throughput(simlib.run("streaming", backlog, parameters, messages=10_000))
    assert rates[2] / rates[1] >= 1.3
    assert rates[5] / rates[2] <= 1.3


@tells("R31_linger_delay")
def test_records_wait_for_their_batch_as_long_as_theory_says() -> None:
    """Where time ends a batch, and where its size does."""
    rate, linger, size = 100, 0.01, 100
    records, waits = only("stock_update", rate, handler_work=Constant(0.0)), []
    for changes in ({"linger": linger, "batch_records": 1000}, {"linger": 1000.0, "batch_records": size}):
        messages = simlib.run(
            "streaming", records, {**NO_TIME, "confirm_timeout": 2000.0, **changes}, messages=30_000
        ).messages
        waits.append(float(np.mean(messages["responded"].to_numpy() - messages["issued"].to_numpy())))
    assert waits[0] == pytest.approx(linger * (1 + rate * linger / 2) / (1 + rate * linger), rel=0.02)
    assert waits[1] == pytest.approx(size / 2 / rate, rel=0.02)


# --- two brokers ----------------------------------------------------------------------------------------------------


def broker_alone(name: str) -> dict[str, Any]:
    """An architecture whose broker takes its calibrated times, and nothing else any: RabbitMQ's queue on three nodes, or Kafka
    with followers and with batches of the published 1000 records."""
    architecture = architectures.get(name)
    if name == "message_queue":
        calibrated = architecture.load_parameters({"broker": "rabbitmq"})
        own = {"queue_type": "quorum", "nodes": 3, "confirm_timeout": 1000.0}
        return BARE | {one: getattr(calibrated, one) for one in ("store", "uplink", "dispatch")} | own
    calibrated = architecture.load_parameters()
    times = ("uplink", "write_batch", "per_record", "flush", "fetch", "commit_position")
    followers = {"replicate": type(calibrated).model_fields["replicate"].default}
    own = {"batch_records": 1000, "max_poll_records": 1000, "confirm_timeout": 1000.0}
    return NO_TIME | {one: getattr(calibrated, one) for one in times} | followers | own


def passing(name: str, rate: float, messages: int, **changes: Any) -> History:
    """Updates that nobody has work with, of many goods, through a broker alone."""
    updates = only("stock_update", rate, handler_work=Constant(0.0), goods=Goods(skus=1000, zipf=0.0))
    return simlib.run(name, updates, broker_alone(name) | changes, messages=messages)


@cache
def peak(name: str) -> float:
    """What a broker alone lets pass of a backlog, messages/s."""
    return throughput(passing(name, 1e6, {"message_queue": 10_000, "streaming": 100_000}[name]))


@tells("R20_kafka_vs_rabbit_peak")
def test_a_log_that_is_written_in_batches_lets_pass_far_more_than_a_queue() -> None:
    """The page says why it is more still than the published 40 times."""
    assert peak("streaming") / peak("message_queue") >= 5


@tells("R21_low_load_latency_order")
@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
def test_a_queue_is_faster_up_to_its_capacity_than_a_log_at_a_third_of_its_own(load: float) -> None:
    """A third is the published 200 of 605 MB/s, and a batch lingers for 1 ms in runs for the latency."""

    def p99(history: History) -> float:
        return float(np.quantile(sojourn(history)[1_000:], 0.99))

    queue, log = peak("message_queue"), peak("streaming")
    assert p99(passing("message_queue", load * queue, 10_000)) < p99(passing("streaming", log / 3, 50_000))


def test_above_the_queue_s_capacity_the_log_is_as_fast_as_ever_and_the_queue_slower_and_slower() -> None:
    rate = 1.5 * peak("message_queue")
    for name, grows in (("message_queue", True), ("streaming", False)):
        times = sojourn(passing(name, rate, 10_000))
        assert bool(np.mean(times[8_000:]) > 2 * np.mean(times[1_000:3_000])) is grows


def replicated(acks: str, followers: bool, in_flight: int = 5) -> float:
    """Records/s of one producer of the published batches of 82 records."""
    none = {} if followers else {"replicate": 0}
    changes = {"acks": acks, "in_flight": in_flight, "batch_records": 82, **none}
    return throughput(passing("streaming", 1e6, 20_000, **changes))


@tells("R23_replication_async_sync")
def test_followers_that_nobody_waits_for_cost_little() -> None:
    assert 0.85 <= replicated("leader", followers=True) / replicated("leader", followers=False) <= 1.0


@pytest.mark.parametrize(("in_flight", "least", "most"), [(5, 0.99, 1.01), (1, 0.76, 0.99)])
def test_followers_that_are_waited_for_cost_time_and_throughput_only_where_one_batch_is_in_flight(
    in_flight: int, least: float, most: float
) -> None:
    """What the page says of the model: less than the published half."""
    waited, not_waited = (replicated(acks, followers=True, in_flight=in_flight) for acks in ("all", "leader"))
    assert least < waited / not_waited < most


@tells("R24_scaling_producers")
def test_three_clients_with_a_processor_each_do_up_to_three_times_as_much() -> None:
    """The published work of one producer, which hands to a broker that takes no time, and of one consumer."""
    published = MEASURED["linkedin2014"]["data"]["records_per_s"]
    for one in ("one_producer_3x_async", "one_consumer"):
        work, backlog = delay(Constant(1 / published[one])), Constant(1e-9)
        runs = [simlib.simulate(partitioned(clients, 1, backlog, [work]), 30_000) for clients in (1, 3)]
        rates = [30_000 / float(run.messages["applied"].to_numpy().max()) for run in runs]
        assert rates[0] == pytest.approx(published[one], rel=0.01)
        assert 2.0 < rates[1] / rates[0] <= 3.0


def test_three_members_of_one_process_do_not_twice_as_much_as_one() -> None:
    """What the page says of the architecture: they share the side's one event loop."""
    rates = [
        throughput(
            simlib.run("streaming", only("stock_update", 1e6), {"members": members, "partitions": 6}, messages=5_000)
        )
        for members in (1, 3)
    ]
    assert 1.0 < rates[1] / rates[0] < 2.0


@tells("R69_es_replay_linear")
@pytest.mark.parametrize("every", [20, 100])
def test_rehydration_takes_as_long_as_the_events_since_the_snapshot(every: int) -> None:
    """Paired: the same changes of one SKU, whose events cost nothing, and something at the server and at the side."""
    calm, per_event = only("stock_update", 0.2, goods=Goods(skus=1)), 0.0002
    means = []
    for cost in (0.0, per_event):
        parameters = {"snapshot_every": every, "per_event": cost}
        messages = simlib.run("event_sourcing", calm, parameters, messages=6 * every).messages
        means.append(float(np.mean(messages["responded"].to_numpy() - messages["issued"].to_numpy())))
    assert (means[1] - means[0]) / (2 * per_event) == pytest.approx((every - 1) / 2, rel=0.03)


@tells("R70_at_most_vs_least")
def test_loss_and_duplicates_over_a_lossy_link_are_those_of_the_theory() -> None:
    def lost(messages: pd.DataFrame) -> np.ndarray:
        return messages["applied"].isna().to_numpy()

    assert three_sigma(lost(published(confirm=False))) == LOST
    once, often = published(confirm_retries=1), published(confirm_retries=50)
    assert three_sigma(lost(once)) == LOST**2
    assert not lost(often).any()
    assert three_sigma(often["duplicates"].to_numpy()) == UNHEARD / (1 - UNHEARD)


def collapses(load: float = 0.6, lasts: float = 2.0, factor: float = 5.0) -> float:
    """Of calls by REST half a minute after a slowdown of accounting, the share that is not answered, over two runs."""
    slow = Slowdown(part="accounting", at=(5.0,), lasts=lasts, factor=factor)
    rate, shares = load * bottleneck_rate("rest", only("stock_query", 100), {}), []
    for seed in range(2):
        history = simlib.run("rest", only("stock_query", rate, faults=(slow,)), seed=seed, messages=int(45 * rate))
        messages = history.messages.to_pandas()
        shares.append((messages.loc[messages["issued"] > 5 + lasts + 30, "response"] != "ok").mean())
    return float(np.mean(shares))


@tells("R73_trigger_size_and_load")
@pytest.mark.parametrize(
    ("what", "values"), [("load", (0.2, 0.4, 0.6)), ("lasts", (0.5, 1.0, 4.0)), ("factor", (1.5, 2.0, 5.0))]
)
def test_a_collapse_that_outlasts_its_trigger_takes_a_large_one_and_a_high_load(
    what: str, values: tuple[float, ...]
) -> None:
    shares = [collapses(**{what: value}) for value in values]
    assert shares == sorted(shares)
    assert shares[0] < 0.01 and shares[-1] > 0.9


@tells("R74_retry_amplification")
@pytest.mark.parametrize("fails", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("retries", [1, 3])
def test_retries_multiply_the_work_as_a_truncated_geometric_series(fails: float, retries: int) -> None:
    queries = only("stock_query", 10, handler_failure=fails)
    attempts = simlib.run("rest", queries, {"retries": retries}, messages=20_000).messages["attempts"].to_numpy()
    expected = retries + 1 if fails == 1 else (1 - fails ** (retries + 1)) / (1 - fails)
    assert attempts.mean() == pytest.approx(expected, rel=0.02)
    assert attempts.max() <= retries + 1


@pytest.mark.parametrize("fails", [0.5, 1.0])
@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_a_budget_bounds_what_retries_multiply(fails: float, budget: float) -> None:
    queries = only("stock_query", 10, handler_failure=fails)
    history = simlib.run("rest", queries, {"retry_budget": budget}, messages=20_000)
    assert history.messages["attempts"].to_numpy().mean() == pytest.approx(1 + budget, rel=0.02)


def test_retries_of_the_application_multiply_those_of_the_mesh() -> None:
    """Each layer its own series: what the outer sees fail is what the inner has given up."""
    fails, inner, outer = 0.5, 2, 3
    queries = only("stock_query", 10, handler_failure=fails)
    history = simlib.run("service_mesh", queries, {"retries": outer, "proxy_retries": inner}, messages=20_000)
    parts = history.parts.to_pandas()
    tries = parts.loc[parts["name"] == "accounting.sidecar.cpu", "completed"].sum() / 2
    lost = fails ** (inner + 1)
    attempts = (1 - lost ** (outer + 1)) / (1 - lost)
    assert history.messages["attempts"].to_numpy().mean() == pytest.approx(attempts, rel=0.02)
    assert tries / 20_000 == pytest.approx(attempts * (1 - lost) / (1 - fails), rel=0.02)


AT_ONCE = {"confirm_retries": 0, "confirm_timeout": 0.05}
"""Publishers who hardly wait for a broker that is down: NATS's client keeps what it publishes as long as they do."""


@tells("R75_availability_chain")
@pytest.mark.parametrize(
    ("name", "changes", "fail", "needed"),
    [
        ("rest", {"retries": 0}, ("accounting", "shop"), 2),
        *((p.values[0], p.values[1] | AT_ONCE, ("accounting", "broker"), 1) for p in QUEUES),
        *((p.values[0], p.values[1] | AT_ONCE, ("accounting",), 0) for p in QUEUES),
    ],
)
def test_a_chain_is_as_available_as_all_its_parts_and_a_queue_as_its_broker(
    name: str, changes: dict[str, Any], fail: Sequence[str], needed: int
) -> None:
    """Orders that the shop answers well, while it and accounting, or accounting and the broker, fail by themselves."""
    up, restart, rate, messages = 25.0, 1.0, 10.0, 12_000
    shares = []
    for seed in range(1, 5):
        faults = tuple(failing(part, up, restart, messages / rate, seed) for part in fail)
        history = simlib.run(name, only("order", rate, faults=faults, **ORDERS), changes, seed, messages)
        shares.append((history.messages.to_pandas()["response"] == "ok").mean())
    assert np.mean(shares) == pytest.approx((up / (up + restart)) ** needed, rel=0.01)


# --- sidecars -------------------------------------------------------------------------------------------------------

SIDECARS = {"none": ("rest", {}), "light": ("service_mesh", {"hop": "0.05 ms"}), "heavy": ("service_mesh", {})}


def answered(name: str, rate: float, seed: int = 1, messages: int = 8_000, **changes: Any) -> np.ndarray:
    """The response times of queries in the steady mix."""
    rows = simlib.run(name, STEADY.with_rate(rate), changes, seed, messages).messages.to_pandas()
    queries = rows[rows["kind"] == "stock_query"]
    return (queries["responded"] - queries["issued"]).to_numpy()


@tells("R50_mesh_adds")
@pytest.mark.parametrize("rate", [20.0, 100.0, 200.0])
def test_sidecars_add_to_the_median_at_every_load_the_more_the_more_they_do(rate: float) -> None:
    none, light, heavy = (np.median(answered(name, rate, **changes)) for name, changes in SIDECARS.values())
    assert none < light < heavy


def test_what_sidecars_add_is_the_time_that_calls_spend_in_them() -> None:
    """At low load, where they take nothing from anybody: by Little's law, from the areas of their pools."""
    calm, even = only("stock_query", 10), {"network": "0.2 ms", "push": 0.0, "loopback": "0.05 ms"}
    called, passed = (
        simlib.run(name, calm, {key: even[key] for key in keys}, messages=4_000)
        for name, keys in (("rest", ["network"]), ("service_mesh", list(even)))
    )
    parts = passed.parts.to_pandas()
    inside = parts[parts["name"].str.endswith(".sidecar.cpu")][["busy", "waiting"]].to_numpy().sum() / 4_000
    added = [
        float(np.mean(made.messages["responded"].to_numpy() - made.messages["issued"].to_numpy()))
        for made in (passed, called)
    ]
    assert added[0] - added[1] == pytest.approx(inside + 4 * 0.00005, rel=0.02)


@tells("R51_istio_delta")
def test_two_sidecars_add_milliseconds_at_most_and_hardly_more_to_the_tail() -> None:
    added = {
        q: np.mean([np.quantile(answered("service_mesh", 100.0, seed), q) - np.quantile(answered("rest", 100.0, seed), q)
                    for seed in range(1, 6)])
        for q in (0.9, 0.99)
    }  # fmt: skip
    assert 0.0002 <= added[0.9] <= 0.008
    assert 0.9 <= added[0.99] / added[0.9] <= 1.6


@tells("R53_mesh_cpu")
@pytest.mark.parametrize("rate", [50.0, 100.0, 200.0])
def test_the_work_of_a_sidecar_is_linear_in_the_rate(rate: float) -> None:
    """Both ways of a call: the published 0.2 to 0.6 processors for a thousand calls a second."""
    p = architectures.get("service_mesh").load_parameters({"cores": 1000, "push": 0.0})
    work = 2 * (p.hop.mean_value + p.tls.mean_value)  # type: ignore[attr-defined]
    assert 0.0002 <= work <= 0.0006
    history = simlib.run("service_mesh", only("stock_query", rate), p.model_dump(), messages=8_000)
    parts, calls = history.parts.to_pandas(), history.messages["issued"].to_numpy()
    for side in ("accounting", "shop"):
        busy = parts.loc[parts["name"] == f"{side}.sidecar.cpu", "busy"].sum() / calls.max()
        assert busy == pytest.approx(calls.size / calls.max() * work, rel=0.02)


@tells("R56_mesh_chain")
def test_what_sidecars_add_grows_with_the_calls_of_a_chain() -> None:
    """A thousand calls a second through two sidecars of two threads each way, the services at their leisure."""
    p = architectures.get("service_mesh").load_parameters()
    passage = Exponential(p.hop.mean_value + p.tls.mean_value)  # type: ignore[attr-defined]

    def mean(hops: int, sidecars: bool) -> float:
        flow, there, back = Flow("chain"), list[Step](), list[Step]()
        for hop in range(hops):
            pair = [flow.pool(f"sidecar{hop}{side}", capacity=2) for side in "ab"]
            if sidecars:
                there += [pool.serve(passage, stream=f"{pool.name}.there") for pool in pair]
                back += [pool.serve(passage, stream=f"{pool.name}.back") for pool in pair]
            there.append(delay(Exponential(0.001), stream=f"service{hop}"))
        flow.source("call", interarrival=Exponential(0.001), steps=[*there, *back, apply("done")])
        return float(np.mean(sojourn(simlib.simulate(flow, 40_000))))

    added = [mean(hops, True) - mean(hops, False) for hops in (1, 2, 4)]
    assert added[1] == pytest.approx(2 * added[0], rel=0.1) and added[2] == pytest.approx(4 * added[0], rel=0.1)


# --- laws -----------------------------------------------------------------------------------------------------------


@tells("R77_littles_law")
@pytest.mark.long
@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
@pytest.mark.parametrize("scenario", ["steady", "burst", "flash_sale"])
def test_what_is_present_is_what_came_times_how_long_it_stayed(
    name: str, changes: dict[str, Any], scenario: str
) -> None:
    """At every pool and queue of a run of 100,000 visits, to nine digits: tests/conftest.py sees to it on SimPy's engine."""
    history = simlib.run(name, scenario, changes, messages=25_000, engine="simpy")
    parts = history.parts.to_pandas().groupby("name")["completed"].sum()
    assert parts["shop.cpu"] >= 100_000


@tells("R78_utilisation_law")
@pytest.mark.parametrize("kind", ["stock_update", "stock_query"])
@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES)
def test_stations_are_as_busy_as_what_comes_to_them_brings(name: str, changes: dict[str, Any], kind: str) -> None:
    architecture, scenario = architectures.get(name), only(kind, 150)
    history = simlib.run(name, scenario, changes, messages=50_000)
    outcomes = history.messages.to_pandas()["outcome"].value_counts()
    assert outcomes.sum() == 50_000
    assert set(outcomes[outcomes > 0].index) <= {"applied", "superseded", "answered"}
    parts = history.parts.to_pandas()
    end, busy = parts["end"].max(), parts.groupby("name")["busy"].sum()
    flow = architecture.build(architecture.load_parameters(changes), scenario)
    for station in flow.bounds({kind: 50_000 / end}).stations:
        if station.demand and station.name.endswith(("log", "cores")):
            used = busy[station.name] / station.capacity / end
            assert used == pytest.approx(station.utilisation, rel=0.01), station.name


# --- all of them ----------------------------------------------------------------------------------------------------


@tells("R64_outbox_poll_delay")
def test_a_polling_relay_is_later_by_half_its_period_on_average() -> None:
    """Against a relay that hears of each row at once; the wait is uniform over the period."""
    period, updates = 1.0, only("stock_update", 2.0, messages=9_000)
    polled, heard = (
        simlib.run("outbox", updates, {"publisher": publisher, "poll_interval": period, "tail": "0 ms"}).messages
        for publisher in ("polling", "log_tailing")
    )
    wait = polled["applied"].to_numpy() - heard["applied"].to_numpy()
    assert np.nanmean(wait) == pytest.approx(period / 2, rel=0.02)
    assert np.nanquantile(wait, 0.95) == pytest.approx(0.95 * period, rel=0.02)


@tells("R66_cdc_vs_polling")
@pytest.mark.parametrize(("tail", "period"), [(0.04, 0.2), (0.04, 0.05)])
def test_tailing_the_log_is_sooner_than_polls_unless_half_their_period_is_shorter(tail: float, period: float) -> None:
    updates = only("stock_update", 2.0, messages=1_000)
    polled, tailed = (
        measure(simlib.run("outbox", updates, {"publisher": publisher, "poll_interval": period, "tail": tail}))
        for publisher in ("polling", "log_tailing")
    )
    sooner = tailed["delivery_time_mean.stock_update"] < polled["delivery_time_mean.stock_update"]
    assert sooner == (tail < period / 2)


# --- sagas ----------------------------------------------------------------------------------------------------------

FREE = {
    **dict.fromkeys(
        ("edge", "http_server", "http_client", "database_client", "commit", "read", "publish_client", "consume_client",
         "store", "uplink", "dispatch"), "0 ms",
    ),
    "cores": 1000, "database_connections": 100_000,
}  # fmt: skip
"""A saga where nothing takes time but what a test names, and the handler's work."""
PLENTY = {"goods": Goods(skus=1000, zipf=0.0, units=1_000_000)}


@tells("R60_saga_slope")
def test_a_step_that_is_orchestrated_takes_longer_by_the_way_back_and_the_orchestrator_s_work() -> None:
    """A step takes s, its commit in it; a hop to the next, h, two uplinks and the broker's write; the way back two uplinks; the
    orchestrator writes down how far it is, o, as long as a commit. Told from payment on, when the announcement that accounting
    sent does not occupy the shop any more."""
    s, uplink, store, commit = 0.01, 0.001, 0.002, 0.003
    times = FREE | {"uplink": uplink, "store": store, "commit": commit}
    orders, slopes = only("order", 1.0, process="fulfilment", handler_work=Constant(s), **PLENTY), {}
    for style in ("orchestrated", "choreographed"):
        effects = simlib.run(f"saga/{style}", orders, times, messages=20).effects.to_pandas()
        done = effects.pivot(index="message", columns="effect", values="time")
        slopes[style] = float(((done["confirmed"] - done["paid"]) / 2).median())
    assert slopes["choreographed"] == pytest.approx(s + commit + 2 * uplink + store, rel=0.02)
    assert slopes["orchestrated"] - slopes["choreographed"] == pytest.approx(2 * uplink + commit, rel=0.02)


@tells("R62_orchestrator_bottleneck")
def test_an_orchestrator_bears_no_more_sagas_than_its_work_for_each_of_their_steps_and_one_more_allows() -> None:
    """Its work for a step is what its processor does to write down how far a saga is: before and after the database's."""
    work, sagas = 0.001, 2_000
    backlog = only("order", 1e6, process="fulfilment", handler_work=Constant(0.0), **PLENTY)
    patient = {"step_timeout": 1e6, "answer_timeout": 1e6, "ack_wait": 1e6, "semantic_locks": False}
    history = simlib.run("saga/orchestrated", backlog, {**FREE, **patient, "database_client": work}, messages=sagas)
    assert set(history.messages["response"].to_pylist()) == {"ok"}
    rate = sagas / float(np.max(history.messages["responded"].to_numpy()))
    assert rate == pytest.approx(1 / (2 * work) / (4 + 1), rel=0.02)


@tells("R63_saga_counts")
@pytest.mark.parametrize("style", ["orchestrated", "choreographed"])
def test_sagas_of_both_styles_complete_and_undo_as_many_as_the_geometric_sum_says(style: str) -> None:
    n, p, orders = 4, 0.04, 6_000
    steps = range(1, n + 1)
    failing = only("order", 50.0, process="fulfilment", step_refused=p, **PLENTY)
    history = simlib.run(f"saga/{style}", failing, messages=orders)
    completed = float(np.mean([outcome == "applied" for outcome in history.messages["outcome"].to_pylist()]))
    undone = sum(effect.endswith(".undone") for effect in history.effects["effect"].to_pylist()) / orders
    sure, mean = (1 - p) ** n, math.fsum((k - 1) * p * (1 - p) ** (k - 1) for k in steps)
    spread = math.fsum((k - 1) ** 2 * p * (1 - p) ** (k - 1) for k in steps) - mean**2
    assert abs(completed - sure) < 3 * math.sqrt(sure * (1 - sure) / orders)
    assert abs(undone - mean) < 3 * math.sqrt(spread / orders)


def test_every_relation_is_told() -> None:
    assert TOLD | set(AS_CASES) == set(RELATIONS)
    assert not TOLD & set(AS_CASES)


def test_the_page_says_of_each_relation_what_became_of_it() -> None:
    page = (ROOT / "docs/relations.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| R")
    ]
    assert [row[0] for row in rows] == list(RELATIONS)
    for name, _, status, *_ in rows:
        if name in AS_CASES:
            assert status == "as " + ", ".join(f"`{case}`" for case in AS_CASES[name]), name
        else:
            assert status in ("holds", "holds in part"), name
