"""An event loop: who is served when, who keeps it, and what a turn is, counted by hand."""

from __future__ import annotations

import pytest

from simlib.flow import AWAITED, Flow, Steps, ack, apply, branch, delay, mark, publish
from simlib.metrics import measure
from simlib.scenario import Crash


def loops(steps_of) -> Flow:
    """A flow of one part, an event loop, at which messages of two kinds do what `steps_of` says."""
    flow = Flow("event loop")
    part = flow.part("part", discipline="event_loop")
    for kind, steps in steps_of(part.cpu).items():
        flow.source(kind, [*steps, apply("done")], at=part)
    return flow


def told(history, what: str = "applied") -> list[float]:
    """When something happened to each message."""
    return history.messages[what].to_pylist()


def test_who_comes_is_served_in_order_and_goes_on_at_once(run_at) -> None:
    """What a message does after its service of 1 s waits for nobody who stands in line."""
    flow = loops(lambda cpu: {"message": [cpu.serve(1.0)]})
    assert told(run_at(flow, [0.0, 0.25, 0.5, 1.5, 5.0])) == [1.0, 2.0, 3.0, 4.0, 6.0]


GOES_ON: dict[str, tuple[Steps, list[float]]] = {
    "who goes on at once keeps the loop": ([], [2.0, 4.0]),
    "who waits meanwhile stands behind": ([delay(0.0)], [3.0, 4.0]),
    "who waits for longer, too": ([delay(0.5)], [3.0, 4.0]),
    "whose task wakes another, too": (["turn"], [3.0, 4.0]),
}
"""What a message does between two services of 1 s, while another comes at 0.5; when both are done."""


@pytest.mark.parametrize(("between", "done"), GOES_ON.values(), ids=GOES_ON)
def test_a_row_keeps_the_loop_until_it_waits(between: Steps, done: list[float], run_at) -> None:
    def steps(cpu):
        return {
            "message": [cpu.serve(1.0), *(cpu.turn() if step == "turn" else step for step in between), cpu.serve(1.0)]
        }

    assert told(run_at(loops(steps), [0.0, 0.5])) == done


def test_turns_take_no_time_where_nobody_waits_and_one_of_each_who_does(run_at) -> None:
    """The first passes through three turns after its second; of the four that came meanwhile each has its second in one."""
    flow = loops(
        lambda cpu: {"first": [cpu.serve(1.0), *[cpu.turn()] * 3, apply("through")], "other": [cpu.serve(1.0)]}
    )
    alone = run_at(flow, [0.0], kinds=["first"])
    assert told(alone) == [1.0]
    comes, kinds = [0.0, 0.25, 0.5, 1.5, 2.5], ["first"] + ["other"] * 4
    assert told(run_at(flow, comes, kinds=kinds))[0] == 5.0


def test_a_turn_is_behind_who_waits_and_before_who_comes_later(run_at) -> None:
    """The second waits when the first asks for another turn, the third comes after that."""
    flow = loops(lambda cpu: {"first": [cpu.serve(1.0), cpu.turn()], "other": [cpu.serve(1.0)]})
    assert told(run_at(flow, [0.0, 0.25, 1.5], kinds=["first", "other", "other"]))[0] == 2.0


def test_a_unit_of_another_pool_that_is_free_is_no_wait(run_at) -> None:
    def steps(cpu):
        core = cpu.at.flow.pool("core")
        return {"message": [cpu.serve(1.0), core.seize(), cpu.serve(1.0), core.release()]}

    assert told(run_at(loops(steps), [0.0, 0.5])) == [2.0, 4.0]


def test_a_crash_frees_the_loop(run_at) -> None:
    """Of three rows the first is being served when the part dies; after it is up, the loop is free."""
    flow = loops(lambda cpu: {"message": [cpu.serve(1.0), cpu.turn()]})
    crash = Crash(part="part", at=(0.75,), restart=0.25)
    history = run_at(flow, [0.0, 0.25, 0.5, 2.0], faults=[crash])
    assert history.messages["outcome"].to_pylist()[:3] == ["failed"] * 3
    assert told(history)[3] == 3.0


def test_how_busy_a_loop_is_counts_what_it_serves(run_at) -> None:
    """Two services of a second each, one after the other without a wait, of the four until the next message."""
    history = run_at(loops(lambda cpu: {"message": [cpu.serve(1.0), cpu.serve(1.0)]}), [0.0, 4.0])
    assert measure(history)["utilisation.part.cpu"] == pytest.approx(0.5)


def reader(steps_of) -> Flow:
    """A consumer of a queue at an event loop, where calls of 1 s are taken too."""
    flow = Flow("reader")
    part, broker = flow.part("part", discipline="event_loop"), flow.part("broker")
    queue = broker.queue("queue")
    flow.source("message", [publish(queue)], at=broker)
    flow.source("call", [part.cpu.serve(1.0), apply("done")], at=part)
    flow.consumers(queue, at=part, count=1, steps=steps_of(part.cpu))
    return flow


@pytest.mark.parametrize(("before", "done"), [([], [1.0, 2.0, 3.0]), ([delay(0.0)], [1.0, 3.0, 2.0])])
def test_a_consumer_keeps_the_loop_for_the_delivery_that_waits_for_it_unless_it_lets_others_have_a_turn(
    before: Steps, done: list[float], run_at
) -> None:
    flow = reader(lambda cpu: [cpu.serve(1.0), apply("done"), *before, ack()])
    assert told(run_at(flow, [0.0, 0.25, 0.5], kinds=["message", "message", "call"])) == done


def test_a_consumer_that_waits_for_a_delivery_keeps_no_loop(run_at) -> None:
    flow = reader(lambda cpu: [cpu.serve(1.0), apply("done"), ack()])
    assert told(run_at(flow, [0.0, 0.5, 1.5], kinds=["message", "call", "message"])) == [1.0, 2.0, 3.0]


def test_a_consumer_knows_whether_it_waited_for_its_delivery(run_at) -> None:
    """The second comes while it works, the third when it has nothing to do, before and after a crash."""
    flow = reader(
        lambda cpu: [branch(AWAITED.equals(1), [mark("awaited")]), cpu.serve(1.0), apply("done"), ack()],
    )
    crash = Crash(part="part", at=(6.0,), restart=0.25)
    history = run_at(flow, [0.0, 0.5, 5.0, 8.0], kinds=["message"] * 4, faults=[crash])
    assert told(history, "mark.awaited") == [0.0, pytest.approx(float("nan"), nan_ok=True), 5.0, 8.0]


def test_a_row_knows_whether_it_waited_for_the_unit_that_it_was_given_and_event_loops_leave_that_as_it_is(
    run_at,
) -> None:
    """The first has the connection at once and waits for the loop, the second waits for the connection, the third for nothing."""

    def steps(cpu):
        connection = cpu.at.pool("connection", capacity=1)
        waited = branch(AWAITED.equals(1), [mark("awaited")])
        visit = [connection.seize(), cpu.serve(1.0), waited, connection.release()]
        return {"call": [cpu.serve(1.0)], "visit": visit}

    history = run_at(loops(steps), [0.0, 0.25, 0.5, 8.0], kinds=["call", "visit", "visit", "visit"])
    assert told(history) == [1.0, 2.0, 3.0, 9.0]
    nothing = pytest.approx(float("nan"), nan_ok=True)
    assert told(history, "mark.awaited") == [nothing, nothing, 3.0, nothing]
