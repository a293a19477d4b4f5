"""Logs: streams with a version, groups with a position each, and what comes again when a reader dies or begins anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simlib.distributions import Exponential
from simlib.engines import ENGINES
from simlib.errors import BadInput
from simlib.flow import (
    DELIVERY,
    SKU,
    Affine,
    Field,
    Flow,
    Log,
    Step,
    Steps,
    ack,
    apply,
    branch,
    delay,
    every,
    fail,
    for_each,
    nack,
    point,
    publish,
    receive,
    respond,
    seek,
)
from simlib.scenario import Arrivals, Crash, Poisson, PowerLoss, Scenario

DONE: Steps = [apply("done"), ack()]


def read(log: Log) -> Step:
    """The message's stream, as it is."""
    assert log.streams is not None
    return log.streams.read()


def logged(write: Callable[[Log], Steps], count: int = 1, work: Steps = DONE, **options: Any) -> tuple[Flow, Log]:
    """Jobs that are appended to a log at one part, which one group reads at another."""
    flow = Flow("logged")
    store, reader = flow.part("store"), flow.part("reader")
    stock = store.table("stock", stocked=True)
    log = store.log("log", streams=stock)
    flow.source("job", at=store, steps=[*write(log), respond("ok")])
    flow.consumers(*log.group("group", **options), at=reader, count=count, steps=work)
    return flow, log


def test_a_log_that_one_reader_follows_is_a_queue(run_at, differences) -> None:
    """To the bit, when it is named so: also where the reader dies over what it holds."""

    def followed(noun: str) -> Any:
        flow = Flow("read")
        store, reader = flow.part("store"), flow.part("reader")
        link = flow.link(store, reader, 0.1)
        log = store.log("log") if noun == "log" else None
        options = {"link": link, "prefetch": 2, "detected_after": 0.25}
        [jobs] = log.group("jobs", **options) if log else [store.queue("jobs", **options)]
        flow.source("job", at=store, steps=[publish(log or jobs), respond("ok")])
        flow.consumers(jobs, reader, 1, [delay(Exponential(0.3)), apply("done"), point("done"), ack()])
        faults = [Crash(part="reader", point="done", probability=0.2, restart=1.0)]
        return run_at(flow, [0.2 * i for i in range(60)], faults=faults, units=0)

    assert differences(followed("log"), followed("queue")) == []


def test_every_group_reads_every_record_at_its_own_pace(run_at, effects_of) -> None:
    flow, log = logged(lambda log: [publish(log)])
    [slow] = log.group("slow")
    flow.consumers(slow, at=flow.parts["reader"], count=1, steps=[delay(2.0), apply("late"), ack()])
    happened = effects_of(run_at(flow, [0.0, 0.5]))
    assert happened == [(0, "done", 0.0), (1, "done", 0.5), (0, "late", 2.0), (1, "late", 4.0)]


def test_a_record_makes_the_next_version_of_its_stream_and_carries_it(run_at) -> None:
    flow, _ = logged(lambda log: [publish(log, sign=-1)], work=DONE)
    history = run_at(flow, [0.0, 1.0, 2.0], skus=[1, 2, 1], quantities=[2, 1, 3])
    effects = history.effects.to_pandas()
    assert list(effects["version"]) == [1, 1, 2]


def test_an_append_is_refused_where_another_was_faster(run_at, effects_of) -> None:
    """Both have read version 0; of another stream nobody minds."""

    def write(log: Log) -> Steps:
        return [read(log), delay(1.0), publish(log, sign=-1, expect=True, otherwise=[apply("conflict"), fail()])]

    flow, _ = logged(write)
    happened = effects_of(run_at(flow, [0.0, 0.5, 0.75, 1.25], skus=[1, 1, 2, 1]))
    assert happened == [(0, "done", 1.0), (1, "conflict", 1.5), (2, "done", 1.75), (3, "done", 2.25)]


def test_an_append_that_expects_nothing_is_never_refused(run_at, effects_of) -> None:
    flow, _ = logged(lambda log: [read(log), delay(1.0), publish(log, sign=-1)])
    assert [effect for _, effect, _ in effects_of(run_at(flow, [0.0, 0.5]))] == ["done", "done"]


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_conflicts_are_those_of_a_counter_with_dead_time(rate: float) -> None:
    """Of those who come by a Poisson process of rate λ to one stream and append w after they have read it, each success spoils
    the next w: λw / (1 + λw) are refused, as by Erlang's formula for one line (J. Giltay, Physica 10, 1943, of a counter that a
    pulse makes blind for w)."""
    flow = Flow("contended")
    store = flow.part("store")
    log = store.log("log", streams=store.table("streams"))
    append = publish(log, sign=-1, expect=True, otherwise=[fail()])
    flow.source("job", at=store, steps=[read(log), delay(1.0), append, respond("ok")])
    flow.consumers(*log.group("group"), at=log.at, count=1, steps=DONE)
    n = 40_000
    times, none = np.cumsum(Exponential(1 / rate).sample(1, "arrivals", n)), np.zeros(n, np.int32)
    arrivals = Arrivals(times, none.astype(np.int8), none, none - 1, none + 1)
    scenario = Scenario(name="one stream", arrivals=Poisson(rate=rate))
    history = ENGINES["compiled"](flow, arrivals, ["job"], 1, scenario, {})
    refused = (history.messages["response"].to_numpy() == "failed").mean()
    assert refused == pytest.approx(rate / (1 + rate), rel=0.02)


@pytest.mark.parametrize("timeout", [0.0, 0.5, 5.0])
def test_what_a_dead_reader_had_not_committed_comes_again_in_order_after_the_session_timeout(
    run_at, effects_of, timeout
) -> None:
    """At the latest when the reader is back."""
    work = [apply("seen"), delay(1.0), ack()]
    flow, _ = logged(lambda log: [publish(log)], work=work, prefetch=2, detected_after=timeout)
    struck = [Crash(part="reader", at=(1.5,), restart=2.0)]
    happened = effects_of(run_at(flow, [0.0, 0.1, 0.2], faults=struck))
    assert happened == [(0, "seen", 0.0), (1, "seen", 1.0), (1, "seen", 3.5), (2, "seen", 4.5)]


@pytest.mark.parametrize(("at", "again"), [(3.75, [2, 3]), (4.25, []), (4.75, [4])])
def test_what_was_committed_by_the_clock_is_done_and_what_was_acknowledged_since_comes_again(
    run_at, effects_of, at, again
) -> None:
    """A record each second from 0.5 on, done at once; the positions are committed at 2, 4 and 6."""
    flow, _ = logged(lambda log: [publish(log)], commit_every=2.0)
    struck = [Crash(part="reader", at=(at,), restart=0.1)]
    happened = effects_of(run_at(flow, [0.5 + i for i in range(7)], faults=struck))
    back = [(message, "done", at + 0.1) for message in again]
    done = [(message, "done", 0.5 + message) for message in range(7)]
    assert happened == sorted([*done, *back], key=lambda one: one[2])


def test_actors_commit_by_the_clock_too_and_what_is_in_hand_comes_after_what_comes_again(run_at, effects_of) -> None:
    """One poll each second, which lasts until half a second later; the group notices the death at once."""
    flow = Flow("polled")
    store, reader = flow.part("store"), flow.part("reader")
    log = store.log("log")
    [group] = log.group("group", commit_every=10.0)
    flow.source("job", at=store, steps=[publish(log), respond("ok")])
    polled = [every(1.0), receive(group), for_each([delay(0.5), apply("done"), ack()])]
    flow.actor("poll", at=reader, steps=polled)
    struck = [Crash(part="reader", at=(2.25,), restart=0.25)]
    happened = effects_of(run_at(flow, [0.1, 0.2, 1.6], faults=struck))
    assert happened == [
        (0, "done", 1.5), (1, "done", 2.0), (0, "done", 3.5), (1, "done", 4.0), (2, "done", 4.5)
    ]  # fmt: skip


def test_what_is_not_committed_in_time_is_handed_out_again_from_the_position_on(run_at, effects_of) -> None:
    """The first record takes too long, the first time: what was committed late does not count."""
    work = [branch(DELIVERY.at_least(2), [delay(0.25)], [delay(1.0)]), apply("seen"), ack()]
    flow, _ = logged(lambda log: [publish(log)], work=work, ack_wait=0.8)
    happened = effects_of(run_at(flow, [0.0, 0.1]))
    assert happened == [(0, "seen", 1.0), (0, "seen", 1.25), (1, "seen", 1.5)]


def test_what_is_refused_comes_again_with_all_behind_it(run_at, effects_of) -> None:
    first = branch(
        SKU.equals(1), [branch(DELIVERY.at_least(2), [apply("seen"), ack()], [nack()])], [apply("seen"), ack()]
    )
    flow, _ = logged(lambda log: [publish(log)], work=[delay(1.0), first], prefetch=3)
    happened = effects_of(run_at(flow, [0.0, 0.1, 0.2], skus=[1, 2, 3]))
    assert happened == [(0, "seen", 2.0), (1, "seen", 3.0), (2, "seen", 4.0)]


def test_a_group_that_is_sought_reads_all_from_the_first_record_on(run_at, effects_of) -> None:
    """In their order, before what comes meanwhile; what is under way when it is sought is done, and counts for nothing."""
    flow, log = logged(lambda log: [publish(log)], work=[delay(0.5), apply("seen"), ack()])
    flow.actor("operator", at=log.at, steps=[every(3.25), seek(log.queues[0]), delay(100.0)])
    history = run_at(flow, [0.0, 1.0, 3.0, 3.5])
    again = [0, 1, 2, 3]
    assert [message for message, *_ in effects_of(history)] == [0, 1, 2, *again]
    assert [time for *_, time in effects_of(history)] == [0.5, 1.5, 3.5, 4.0, 4.5, 5.0, 5.5]
    assert history.messages["outcome"].to_pylist() == ["applied"] * 4
    assert history.messages["deliveries"].to_pylist() == [2, 2, 2, 1]


def test_an_actor_that_reads_a_group_takes_batches_in_order(run_at, effects_of) -> None:
    flow, log = logged(lambda log: [publish(log)])
    [batches] = log.group("batches")
    turn = [every(2.0), receive(batches, at_most=2), delay(0.5), for_each([apply("read")]), ack()]
    flow.actor("projection", at=log.at, steps=turn)
    happened = [(m, time) for m, effect, time in effects_of(run_at(flow, [0.0, 0.5, 1.0, 2.75])) if effect == "read"]
    assert happened == [(0, 2.5), (1, 2.5), (2, 4.5), (3, 4.5)]


def test_a_log_that_is_not_flushed_loses_with_the_power_what_nobody_can_read_again(run_at, effects_of) -> None:
    flow = Flow("unflushed")
    store = flow.part("store")
    log = store.log("log", flush_every=1.0)
    [group] = log.group("group")
    flow.source("job", at=store, steps=[publish(log), respond("ok")])
    turn = [every(10.0), receive(group), for_each([apply("read")]), ack()]
    flow.actor("reader", at=store, steps=turn)
    happened = effects_of(run_at(flow, [0.5, 1.5], faults=[PowerLoss(part="store", at=(1.75,), restart=0.5)]))
    assert happened == [(0, "read", 10.0)]


def test_positions_outlive_a_crash_of_the_store(run_at, effects_of) -> None:
    flow, _ = logged(lambda log: [publish(log)], work=[delay(0.25), *DONE])
    struck = [Crash(part="store", at=(0.3,), restart=1.0)]
    happened = effects_of(run_at(flow, [0.0, 0.1, 2.0], faults=struck))
    assert [message for message, *_ in happened] == [0, 1, 2]


def test_records_of_one_key_are_in_one_partition_which_keeps_their_order(run_at, effects_of) -> None:
    """Each partition has a reader of its own: a slow record holds up those behind it there, and nobody else."""
    flow = Flow("partitioned")
    store = flow.part("store")
    log = store.log("log", partitions=2)
    flow.source("job", at=store, steps=[publish(log), respond("ok")])
    for partition in log.group("group"):
        flow.consumers(partition, at=store, count=1, steps=[delay(Affine(0.0, 1.0, of=Field("quantity"))), *DONE])
    history = run_at(flow, [0.0, 0.1, 0.2, 0.3], skus=[4, 2, 1, 4], quantities=[5, 1, 1, 1])
    assert effects_of(history) == [(2, "done", 1.2), (0, "done", 5.0), (1, "done", 6.0), (3, "done", 7.0)]


def refusal(build: Callable[[Flow, Log], None]) -> str:
    flow, log = logged(lambda log: [publish(log)])
    with pytest.raises(BadInput) as said:
        build(flow, log)
        flow.check()
    return str(said.value)


def test_what_cannot_be_said_of_a_log_is_refused_in_one_line() -> None:
    def unread(flow: Flow, log: Log) -> None:
        flow.source("other", at=log.at, steps=[publish(log.at.log("unread"))])

    def committed(flow: Flow, log: Log) -> None:
        log.at.queue("queue", commit_every=1.0)

    def limited(flow: Flow, log: Log) -> None:
        log.group("limited", max_deliveries=3)

    def sought(flow: Flow, log: Log) -> None:
        queue = log.at.queue("queue")
        flow.source("other", at=log.at, steps=[publish(queue), seek(queue)])
        flow.consumers(queue, at=log.at, count=1, steps=DONE)

    def signed(flow: Flow, log: Log) -> None:
        queue = log.at.queue("queue")
        flow.source("other", at=log.at, steps=[publish(queue, sign=1)])
        flow.consumers(queue, at=log.at, count=1, steps=DONE)

    def unflushed(flow: Flow, log: Log) -> None:
        other = log.at.log("other", streams=log.streams, flush_every=1.0)
        flow.consumers(*other.group("others"), at=log.at, count=1, steps=DONE)
        flow.source("other", at=log.at, steps=[publish(other, sign=1)])

    said = {build.__name__: refusal(build) for build in (unread, committed, limited, sought, signed, unflushed)}
    assert "give it a group" in said["unread"]
    assert "has no position to commit" in said["committed"]
    assert "has no max_deliveries" in said["limited"]
    assert "make it the group of a log" in said["sought"]
    assert "name its streams=" in said["signed"]
    assert "cannot take a version back" in said["unflushed"]
    assert all("\n" not in line for line in said.values())
