"""Coordinators: the members of a group that die, stand still or take too long, and how its partitions are shared out then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simlib.errors import BadInput
from simlib.flow import (
    DELIVERY,
    SKU,
    Flow,
    Steps,
    ack,
    apply,
    branch,
    delay,
    for_each,
    nack,
    point,
    publish,
    receive,
    respond,
    wait_until,
)
from simlib.scenario import Crash, Pause

TIMEOUT, REBALANCE = 1.0, 0.5
NOTHING: Steps = []


def shared(
    cooperative: bool, work: Steps = NOTHING, each: Steps = NOTHING, end: Steps | None = None, members: int = 2,
    partitions: int = 2, **options: Any,
) -> Flow:  # fmt: skip
    """Jobs that are appended to a log, whose partitions members `m0`, `m1` … share; a job's effect is named after who did it."""
    flow = Flow("shared")
    broker = flow.part("broker")
    parts = [flow.part(f"m{i}") for i in range(members)]
    log = broker.log("log", partitions=partitions)
    coordinator = broker.coordinator(
        "coordinator", parts, session_timeout=TIMEOUT, rebalance=REBALANCE, cooperative=cooperative
    )
    flow.source("job", at=broker, steps=[publish(log), respond("ok")])
    for partition in log.group("group", coordinator=coordinator, **options):
        for part in parts:
            done = for_each([*each, apply(part.name), point(f"{part.name}.did")])
            taken = [wait_until(partition), receive(partition, 1), *work, done, *([ack()] if end is None else end)]
            flow.actor(f"{partition.name}.{part.name}", part, taken)
    return flow


@pytest.fixture
def done(run_at: Any) -> Callable[..., list[tuple[float, int, str, float]]]:
    """Run jobs (time, SKU), and say what was done of each: when it came, its SKU, who did it, when."""

    def run(flow: Flow, jobs: Sequence[tuple[float, int]], *faults: Any) -> list[tuple[float, int, str, float]]:
        history = run_at(flow, [time for time, _ in jobs], skus=[sku for _, sku in jobs], faults=faults, horizon=100.0)
        effects = history.effects.to_pandas()
        return [
            (*jobs[m], e, t) for m, e, t in zip(effects["message"], effects["effect"], effects["time"], strict=True)
        ]

    return run


def test_partitions_are_shared_out_round_robin(done) -> None:
    jobs = [(float(sku), sku) for sku in range(5)]
    readers = [who for _, _, who, _ in done(shared(False, partitions=5, members=2), jobs)]
    assert readers == ["m0", "m1", "m0", "m1", "m0"]


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_dead_members_partitions_go_on_after_session_timeout_and_rebalance_and_those_of_others_stand_still_if_eager(
    done, cooperative
) -> None:
    """m0 dies at 2.25, which is noticed at 3.25; all are shared out at 3.75."""
    jobs = [(2.0, 0), (2.5, 0), (3.0, 1), (3.5, 1), (4.0, 0), (4.5, 1)]
    happened = done(shared(cooperative), jobs, Crash(part="m0", at=(2.25,), restart=50.0))
    assert sorted(happened) == [
        (2.0, 0, "m0", 2.0), (2.5, 0, "m1", 3.75), (3.0, 1, "m1", 3.0), (3.5, 1, "m1", 3.5 if cooperative else 3.75),
        (4.0, 0, "m1", 4.0), (4.5, 1, "m1", 4.5),
    ]  # fmt: skip


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_member_that_is_back_gets_partitions_by_one_rebalance_of_all_or_by_two_of_those_that_move(
    done, cooperative
) -> None:
    """m0 is dead until 5.25. Eager: all stand still until 5.75. Cooperative: m1 reads both on until 5.75, when it gives one up,
    which m0 has at 6.25."""
    jobs = [(5.5, 0), (5.5, 1), (6.0, 0), (6.0, 1), (6.5, 0), (6.5, 1)]
    happened = sorted(done(shared(cooperative), jobs, Crash(part="m0", at=(2.25,), restart=3.0)))
    eager = [("m0", 5.75), ("m1", 5.75), ("m0", 6.0), ("m1", 6.0), ("m0", 6.5), ("m1", 6.5)]
    moved = [("m1", 5.5), ("m1", 5.5), ("m1", 6.0), ("m0", 6.25), ("m1", 6.5), ("m0", 6.5)]
    assert [(who, time) for _, _, who, time in happened] == (moved if cooperative else eager)


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_member_that_is_back_soon_waits_until_its_death_is_noticed(done, cooperative) -> None:
    """It is another member, and its partition is the dead one's until 3.25. Eager: the whole group stands still meanwhile."""
    jobs = [(2.5, 0), (2.75, 1), (3.5, 1)]
    happened = done(shared(cooperative), jobs, Crash(part="m0", at=(2.25,), restart=0.125))
    other = [(2.75, 1, "m1", 2.75), (3.5, 1, "m1", 3.5)] if cooperative else []
    assert sorted(happened)[1:] == (other or [(2.75, 1, "m1", 3.75), (3.5, 1, "m1", 3.75)])
    assert sorted(happened)[0] == (2.5, 0, "m0", 3.75)


@pytest.mark.parametrize("cooperative", [False, True])
def test_what_a_dead_member_had_not_committed_is_done_again_by_another_in_its_order(done, cooperative) -> None:
    flow = shared(cooperative, end=[delay(0.5), ack()])
    happened = done(flow, [(2.0, 0), (2.0, 0)], Crash(part="m0", at=(2.25,), restart=50.0))
    assert happened == [(2.0, 0, "m0", 2.0), (2.0, 0, "m1", 3.75), (2.0, 0, "m1", 4.25)]


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_rebalance_waits_for_what_members_have_in_hand(done, cooperative) -> None:
    """m1 is busy from 3.0 to 4.5; then the time of the rebalance begins."""
    slow = [branch(SKU.equals(1), [delay(1.5)])]
    happened = done(shared(cooperative, each=slow), [(2.5, 0), (3.0, 1)], Crash(part="m0", at=(2.25,), restart=50.0))
    assert happened == [(3.0, 1, "m1", 4.5), (2.5, 0, "m1", 5.0)]


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_member_that_takes_too_long_is_thrown_out_and_joins_again(done, cooperative) -> None:
    """m0's first try lasts from 2.0 to 4.25, with 1.5 allowed: m1 has the partition at 4.0. m0's commit counts for nothing, and it
    joins again."""
    slow = [branch(DELIVERY.at_least(2), NOTHING, [branch(SKU.equals(2), [delay(2.25)])])]
    happened = done(shared(cooperative, each=slow, ack_wait=1.5), [(2.0, 2), (6.0, 0), (6.0, 1)])
    readers = ("m1", "m0") if cooperative else ("m0", "m1")
    assert happened[:2] == [(2.0, 2, "m1", 4.0), (2.0, 2, "m0", 4.25)]
    assert sorted(happened[2:]) == [(6.0, sku, who, 6.0) for sku, who in enumerate(readers)]


@pytest.mark.parametrize(("lasts", "who", "when"), [(0.75, "m0", 3.0), (2.0, "m1", 3.75)])
def test_a_member_that_stands_still_is_one_no_longer_after_the_session_timeout(done, lasts, who, when) -> None:
    happened = done(shared(True), [(2.5, 0), (8.0, 0), (8.0, 1)], Pause(part="m0", at=(2.25,), lasts=lasts))
    assert happened[0] == (2.5, 0, who, when)
    assert sorted(who for _, _, who, _ in happened[1:]) == ["m0", "m1"]


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_member_that_gives_a_partition_up_commits_before_and_one_that_dies_does_not(done, cooperative) -> None:
    """By the clock they commit at 10. m0 reads for m1 until that is back at 3.25; m1 dies again at 5.5."""
    died = Crash(part="m1", at=(0.25, 5.5), restart=3.0)
    happened = done(shared(cooperative, commit_every=10.0), [(2.0, 1), (5.0, 1), (8.0, 0)], died)
    assert happened == [(2.0, 1, "m0", 2.0), (5.0, 1, "m1", 5.0), (5.0, 1, "m0", 7.0), (8.0, 0, "m0", 8.0)]


def test_what_is_handed_back_comes_again_to_its_reader(done) -> None:
    flow = shared(False, each=[branch(DELIVERY.at_least(2), [ack()], [nack()])], end=[delay(0.25)])
    assert done(flow, [(1.0, 0)]) == [(1.0, 0, "m0", 1.0), (1.0, 0, "m0", 1.25)]


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_coordinator_that_was_away_knows_its_members_and_counts_their_sessions_anew(done, cooperative) -> None:
    """Back at 3.0, it notices at 4.0 that m0 is dead."""
    faults = [Crash(part="m0", at=(2.25,), restart=50.0), Crash(part="broker", at=(2.5,), restart=0.5)]
    happened = done(shared(cooperative), [(2.375, 0), (5.0, 1)], *faults)
    assert happened == [(2.375, 0, "m1", 4.5), (5.0, 1, "m1", 5.0)]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    cooperative=st.booleans(), members=st.integers(1, 4), partitions=st.integers(1, 5),
    struck=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([Crash, Pause]), st.floats(0, 20), st.floats(0, 4)), max_size=8),
)  # fmt: skip
def test_whoever_dies_or_stands_still_every_record_is_done_and_no_sooner_than_those_before_it_in_its_partition(
    run_at, cooperative, members, partitions, struck
) -> None:
    flow = shared(cooperative, members=members, partitions=partitions, each=[delay(0.125)])
    faults = []
    for member, kind, at, lasts in struck:
        where = {"part": f"m{member % members}", "at": (at,)}
        faults.append(Crash(**where, restart=lasts) if kind is Crash else Pause(**where, lasts=lasts))
    history = run_at(flow, [0.3 * i for i in range(80)], skus=[i % 7 for i in range(80)], faults=faults)
    assert history.messages["outcome"].to_pylist() == ["applied"] * 80
    first = history.effects.to_pandas().groupby(["sku", "message"])["time"].min().reset_index()
    assert first.groupby("sku")["time"].apply(lambda times: times.is_monotonic_increasing).all()


def test_what_cannot_be_said_of_a_coordinator_is_refused_in_one_line() -> None:
    def elsewhere(flow: Flow) -> None:
        flow.actor("other", flow.parts["broker"], flow.actors["group.0.m0"].steps)

    def unread(flow: Flow) -> None:
        del flow.actors["group.0.m0"]

    def twice(flow: Flow) -> None:
        flow.coordinator("other", [flow.parts["m0"]] * 2, at=flow.parts["broker"], session_timeout=1.0, rebalance=0.0)

    def nobody(flow: Flow) -> None:
        flow.coordinator("other", [], at=flow.parts["broker"], session_timeout=1.0, rebalance=0.0)

    def queue(flow: Flow) -> None:
        flow.parts["broker"].queue("queue", coordinator=flow.coordinators["coordinator"])

    def later(flow: Flow) -> None:
        [partition] = (one for one in flow.queues.values() if one.name == "group.0")
        flow.actor("other", flow.parts["m0"], [wait_until(partition), receive(partition), nack(1.0)])

    said = {}
    for spoil in (elsewhere, unread, twice, nobody, queue, later):
        flow = shared(False)
        with pytest.raises(BadInput) as error:
            spoil(flow)
            flow.check()
        said[spoil.__name__] = str(error.value)
    assert "have an actor at each member" in said["elsewhere"] and "have an actor at each member" in said["unread"]
    assert "has a member twice" in said["twice"]
    assert "members of coordinator 'other' must be" in said["nobody"]
    assert "give it to a group" in said["queue"]
    assert "leave the delay of its nack out" in said["later"]
    assert all("\n" not in line for line in said.values())
