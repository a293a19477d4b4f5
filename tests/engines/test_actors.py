"""Actors: loops that belong to no message, what they receive, and when they turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simlib.flow import (
    BATCH,
    DELIVERY,
    NTH,
    Affine,
    Backoff,
    Field,
    Flow,
    Queue,
    Steps,
    ack,
    apply,
    branch,
    call,
    delay,
    every,
    fail,
    for_each,
    nack,
    point,
    publish,
    receive,
    reply,
    rescue,
    respond,
    retry,
    spawn,
    timeout,
    wait_until,
)
from simlib.scenario import Crash

DONE = [for_each([apply("done")]), ack()]


def read_by(turn: Callable[[Queue], Steps], count: int = 1, **options: Any) -> Flow:
    """Jobs that wait in a queue, from which actors receive them."""
    flow = Flow("read")
    host = flow.part("host")
    jobs = host.queue("jobs", **options)
    flow.source("job", at=host, steps=[publish(jobs), respond("ok")])
    flow.actor("reader", at=host, steps=turn(jobs), count=count)
    return flow


def test_an_actor_turns_at_the_multiples_of_its_period_and_finds_what_came_before(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(0.1), receive(jobs), *DONE])
    happened = effects_of(run_at(flow, [0.0, 0.05, 0.1, 0.25, 0.65]))
    times = [time for _, _, time in happened]
    assert times == [0.1, 0.1, 2 * 0.1, 3 * 0.1, 7 * 0.1], "what comes at the very moment of a poll waits for the next"


def test_turns_that_come_late_are_skipped(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(1.0), receive(jobs, at_most=1), delay(2.5), *DONE])
    assert [time for *_, time in effects_of(run_at(flow, [0.0, 0.0, 0.0]))] == [3.5, 6.5, 9.5]


def test_an_actor_receives_what_is_ready_in_its_order_and_no_more_than_it_wants(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [wait_until(jobs), receive(jobs, at_most=2), delay(1.0), *DONE])
    happened = effects_of(run_at(flow, [0.0, 0.25, 0.5, 0.75]))
    assert [(message, time) for message, _, time in happened] == [(0, 1.0), (1, 2.0), (2, 2.0), (3, 3.0)]


def test_an_actor_waits_until_enough_are_ready(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [wait_until(jobs, at_least=3), receive(jobs), *DONE])
    happened = effects_of(run_at(flow, [0.0, 1.0, 2.0, 3.0], horizon=10.0))
    assert [(message, time) for message, _, time in happened] == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_an_actor_lingers_for_a_batch_but_not_for_ever(run_at, effects_of) -> None:
    flow = read_by(
        lambda jobs: [wait_until(jobs), timeout(1.0, [wait_until(jobs, at_least=2)], []), receive(jobs), *DONE]
    )
    happened = effects_of(run_at(flow, [0.0, 5.0, 5.5]))
    assert [(message, time) for message, _, time in happened] == [(0, 1.0), (1, 5.5), (2, 5.5)]


def test_a_batch_costs_a_time_that_grows_with_it(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(10.0), receive(jobs), delay(Affine(1.0, 0.25, of=BATCH)), *DONE])
    assert [time for *_, time in effects_of(run_at(flow, [0.0, 1.0, 2.0, 11.0]))] == [11.75] * 3 + [21.25]


def test_an_empty_batch_is_received_too(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(1.0), receive(jobs), branch(BATCH.at_least(1), DONE, [delay(0.5)])])
    assert effects_of(run_at(flow, [2.5])) == [(0, "done", 3.0)]


def test_each_of_a_batch_is_worked_for_as_by_a_consumer(run_at) -> None:
    """It carries what it was published with, can be asked for, answered and spawned from; others start from where it was."""
    flow = Flow("asked")
    host = flow.part("host")
    jobs, stock = host.queue("jobs"), host.table("stock", stocked=True)
    asks = [stock.take([call([publish(jobs)])]), stock.read(), respond()]
    flow.source("job", at=host, steps=asks)
    each = [stock.write(), apply("seen"), call([delay(1.0), reply("ok")]), spawn([delay(1.0), reply("refused")]), ack()]
    flow.actor("reader", at=host, steps=[wait_until(jobs), receive(jobs), for_each(each)])
    messages = run_at(flow, [0.0, 0.0], skus=[1, 2], quantities=[3, 4]).messages.to_pandas()
    assert list(messages["responded"]) == [2.0, 3.0], "one after the other"
    assert list(messages["deliveries"]) == [1, 1]


def test_a_failure_inside_a_batch_leaves_the_rest_of_it_in_hand(run_at, effects_of) -> None:
    each = for_each([apply("tried"), branch(DELIVERY.differs(2), [fail()])])
    flow = read_by(lambda jobs: [every(1.0), receive(jobs), rescue([each, ack()], [nack()])])
    happened = effects_of(run_at(flow, [0.0, 0.0, 0.0]))
    assert [(message, time) for message, _, time in happened] == [(0, 1.0), (0, 2.0), (1, 2.0), (2, 2.0)]


@pytest.mark.parametrize(("requeue", "order"), [("head", [0, 1, 2]), ("back", [1, 2, 0])])
def test_a_batch_that_is_handed_back_stands_in_its_order_before_or_behind_the_rest(run_at, effects_of, requeue, order):
    def turn(jobs: Queue) -> Steps:
        each = for_each([branch(DELIVERY.at_least(2), [apply("done")], [fail()])])
        return [every(1.0), receive(jobs, at_most=2), rescue([each, ack()], [nack()])]

    happened = effects_of(run_at(read_by(turn, requeue=requeue), [0.0, 0.0, 0.0]))
    assert [message for message, *_ in happened] == order


def test_a_batch_is_gone_through_as_often_as_it_is_said_and_draws_anew(run_at, effects_of) -> None:
    each = for_each([branch(0.5, [fail()]), apply("done")])
    flow = read_by(
        lambda jobs: [wait_until(jobs, 3), receive(jobs), retry(Backoff(100, 1.0, factor=1.0), [each]), ack()]
    )
    history = run_at(flow, [0.0] * 3, seed=2)
    assert history.messages["outcome"].to_pylist() == ["applied"] * 3
    assert len(effects_of(history)) > 3, "some were done again"


def test_two_actors_share_what_there_is(run_at, effects_of) -> None:
    run = branch(BATCH.at_least(1), [delay(1.5), *DONE])
    flow = read_by(lambda jobs: [every(1.0), receive(jobs), run], count=2)
    happened = effects_of(run_at(flow, [0.0, 1.5]))
    assert happened == [(0, "done", 2.5), (1, "done", 3.5)], "the second run begins while the first is under way"


@pytest.mark.parametrize("notices", [False, True])
def test_what_a_dead_actor_had_in_hand_comes_again_where_the_queue_notices(run_at, effects_of, notices) -> None:
    options = {"detected_after": 0.0} if notices else {}
    flow = read_by(lambda jobs: [every(1.0), receive(jobs), delay(0.5), *DONE], **options)
    struck = [Crash(part="host", at=(1.2,), restart=0.5)]
    happened = effects_of(run_at(flow, [0.0, 0.1], faults=struck, horizon=20.0))
    assert happened == ([(0, "done", 2.5), (1, "done", 2.5)] if notices else [])


def test_what_was_done_and_not_acknowledged_is_done_again(run_at, effects_of) -> None:
    flow = read_by(
        lambda jobs: [every(1.0), receive(jobs), for_each([apply("done"), point("done")]), ack()], detected_after=0.0
    )
    struck = [Crash(part="host", point="done", probability=0.4, restart=0.5)]
    history = run_at(flow, [0.0] * 6, faults=struck)
    crashes = history.faults["message"].to_pylist()
    assert crashes and len(effects_of(history)) == 6 + sum(message + 1 for message in crashes), "from the first on"


def test_an_actor_gives_back_what_it_holds_when_it_dies_and_begins_anew(run_at, effects_of) -> None:
    flow = Flow("holding")
    host, away = flow.part("host"), flow.part("away")
    jobs, desk = host.queue("jobs"), flow.pool("desk")
    flow.source("job", at=host, steps=[publish(jobs)])
    flow.source("guest", at=away, steps=[desk.serve(0.25), apply("served")])
    steps = [every(1.0), desk.seize(), receive(jobs), delay(0.5), *DONE, desk.release()]
    flow.actor("reader", at=host, steps=steps)
    struck = [Crash(part="host", at=(1.25,), restart=3.0)]
    happened = effects_of(run_at(flow, [1.1, 5.0], kinds=["guest", "job"], faults=struck))
    assert happened == [(0, "served", 1.5), (1, "done", 6.5)]


def test_what_waits_outlives_the_actor(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(1.0), receive(jobs), *DONE])
    struck = [Crash(part="host", at=(0.5,), restart=1.7)]
    assert effects_of(run_at(flow, [0.0], faults=struck)) == [(0, "done", 3.0)]


def test_draws_of_an_actor_do_not_begin_again_when_it_does(run_at, effects_of) -> None:
    """Each turn draws its own, also after a crash: a retry of the same chance would fail for ever."""
    flow = read_by(
        lambda jobs: [wait_until(jobs), receive(jobs), branch(0.5, [delay(0.5), point("here")]), *DONE],
        detected_after=0.0,
    )
    struck = [Crash(part="host", point="here", probability=1.0, restart=0.5)]
    happened = effects_of(run_at(flow, [float(k) for k in range(20)], faults=struck))
    assert len(happened) == 20


def test_an_actor_knows_which_of_its_batch_it_is_at_each_time_that_it_goes_through_it(run_at, effects_of) -> None:
    named = [branch(NTH.equals(1), [apply("first")], [branch(NTH.at_least(3), [apply("late")], [delay(0.25)])])]
    flow = read_by(lambda jobs: [wait_until(jobs, 3), receive(jobs), for_each(named), for_each(named[:1]), ack()])
    happened = effects_of(run_at(flow, [0.0, 0.0, 0.0]))
    assert happened == [(0, "first", 0.0), (2, "late", 0.25), (0, "first", 0.25), (2, "late", 0.5)]


def test_an_actor_receives_from_a_queue_that_is_kept_elsewhere_unless_that_part_is_down(run_at, effects_of) -> None:
    flow = Flow("elsewhere")
    here, there = flow.part("here"), flow.part("there")
    jobs = there.queue("jobs")
    flow.source("job", at=there, steps=[publish(jobs)])
    flow.actor("reader", at=here, steps=[wait_until(jobs), delay(0.5), receive(jobs), *DONE])
    struck = [Crash(part="there", at=(2.25,), restart=1.0)]
    assert effects_of(run_at(flow, [0.0, 2.0], faults=struck)) == [(0, "done", 0.5), (1, "done", 3.75)]


COALESCED = {"coalesce": True}


def test_of_the_ready_changes_of_one_sku_only_the_last_stays_at_its_own_place(run_at, effects_of) -> None:
    flow = read_by(lambda jobs: [every(10.0), receive(jobs), *DONE], **COALESCED)
    history = run_at(flow, [0.0, 1.0, 2.0, 3.0, 11.0], skus=[1, 2, 1, 3, 1])
    assert effects_of(history) == [(1, "done", 10.0), (2, "done", 10.0), (3, "done", 10.0), (4, "done", 20.0)]
    assert history.messages["outcome"].to_pylist() == ["superseded", *["applied"] * 4]


@pytest.mark.parametrize(("requeue", "order"), [("head", [1, 2]), ("back", [2, 1])])
def test_what_is_handed_back_is_overtaken_by_what_was_published_meanwhile(run_at, effects_of, requeue, order) -> None:
    each = for_each([branch(Field("quantity").equals(2), [delay(5.0), fail()]), apply("done")])
    flow = read_by(
        lambda jobs: [every(10.0), receive(jobs), rescue([each, ack()], [nack()])], requeue=requeue, **COALESCED
    )
    history = run_at(flow, [0.0, 1.0, 12.0], skus=[1, 2, 1], quantities=[2, 1, 1])
    assert history.messages["outcome"].to_pylist() == ["superseded", "applied", "applied"]
    assert effects_of(history) == [(message, "done", 20.0) for message in order]
