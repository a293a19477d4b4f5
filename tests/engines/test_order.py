"""Which of two events at one instant comes first."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simlib.engines import order
from simlib.errors import RunFailed
from simlib.flow import Flow, apply, branch, call, delay, fork, mark, reject, reply, rescue, respond, timeout
from simlib.flow.blocks import RESULT

PLACES = st.tuples(
    st.sampled_from([order.FAULT, order.COMPLETION, order.TIMER, order.ARRIVAL, order.OBSERVER]),
    st.integers(0, order.ENTITIES - 1),
    st.integers(0, order.COPIES - 1),
    st.integers(0, order.SLOTS - 1),
)


@given(st.lists(PLACES, min_size=2))
def test_keys_order_as_rank_entity_copy_slot(places: list[tuple[int, int, int, int]]) -> None:
    places = sorted(set(places))
    assert all(order.key(*one) < order.key(*other) for one, other in pairwise(places))


@pytest.mark.parametrize("place", [(order.ENTITIES, 0, 0), (0, order.COPIES, 0), (0, 0, order.SLOTS)])
def test_a_key_that_does_not_fit_is_an_error(place: tuple[int, int, int]) -> None:
    with pytest.raises(RunFailed, match="overflows"):
        order.key(order.TIMER, *place)


def test_work_that_ends_at_its_deadline_is_in_time(run_at, effects_of) -> None:
    flow = Flow("deadline")
    flow.source("job", steps=[timeout(1.0, [delay(1.0), apply("in time")], [apply("late")])])
    assert effects_of(run_at(flow, [0.0])) == [(0, "in time", 1.0)]


def test_work_that_ends_after_its_deadline_is_late(run_at, effects_of) -> None:
    flow = Flow("deadline")
    flow.source("job", steps=[timeout(1.0, [delay(1.0 + 1e-9), apply("in time")], [apply("late")])])
    assert effects_of(run_at(flow, [0.0])) == [(0, "late", 1.0)]


def test_a_chain_of_work_that_takes_no_time_at_the_deadline_is_in_time(run_at, effects_of) -> None:
    flow = Flow("deadline")
    steps = [delay(1.0), *(delay(0.0, stream=str(i)) for i in range(5)), apply("in time")]
    flow.source("job", steps=[timeout(1.0, steps, [apply("late")])])
    assert effects_of(run_at(flow, [0.0])) == [(0, "in time", 1.0)]


def test_a_reply_at_the_caller_s_deadline_is_in_time(run_at) -> None:
    flow = Flow("deadline")
    flow.source("job", steps=[call([delay(1.0), reply("ok")], timeout=1.0), respond()])
    assert run_at(flow, [0.0]).messages["response"].to_pylist() == ["ok"]


def test_a_unit_that_becomes_free_at_the_deadline_is_had_in_time(run_at) -> None:
    flow = Flow("deadline")
    server = flow.pool("server")
    patient = [timeout(1.0, [server.seize(), mark("had"), delay(0.5), server.release()], [reject()])]
    flow.source("first", steps=[server.serve(1.0), apply("done")])
    flow.source("second", steps=patient)
    history = run_at(flow, [0.0, 0.0], kinds=["first", "second"])
    assert history.messages["mark.had"].to_pylist()[1] == 1.0


def test_the_outer_of_two_deadlines_at_one_time_counts(run_at, effects_of) -> None:
    flow = Flow("deadlines")
    inner = timeout(1.0, [delay(2.0)], [apply("inner")], stream="inner")
    flow.source("job", steps=[timeout(1.0, [inner], [apply("outer")])])
    assert effects_of(run_at(flow, [0.0])) == [(0, "outer", 1.0)]


def test_who_leaves_at_an_instant_makes_room_for_who_arrives_then(run_at) -> None:
    flow = Flow("room")
    server = flow.pool("server", queue_limit=0)
    flow.source("job", steps=[rescue([server.serve(1.0), apply("done")], [reject()])])
    outcomes = run_at(flow, [0.0, 0.5, 1.0]).messages["outcome"].to_pylist()
    assert outcomes == ["applied", "rejected", "applied"]


def test_what_ends_at_one_instant_ends_in_the_order_of_messages_whenever_it_began(run_at, effects_of) -> None:
    flow = Flow("ties")
    flow.source("slow", steps=[delay(2.0), apply("done")])
    flow.source("fast", steps=[delay(1.0), apply("done")])
    history = run_at(flow, [0.0, 0.0, 1.0, 1.0], kinds=["slow", "slow", "fast", "fast"])
    assert effects_of(history) == [(message, "done", 2.0) for message in range(4)]


def test_those_who_wait_are_served_in_the_order_of_their_coming_and_what_is_free_at_once(run_at, effects_of) -> None:
    flow = Flow("line")
    server = flow.pool("server")
    flow.source("job", steps=[server.serve(1.0), apply("done")])
    done = effects_of(run_at(flow, [0.0, 0.0, 0.0]))
    assert done == [(0, "done", 1.0), (1, "done", 2.0), (2, "done", 3.0)]


def test_the_branches_of_a_fork_begin_in_their_order(run_at, effects_of) -> None:
    flow = Flow("fork")
    server = flow.pool("server")
    branches = [[server.serve(1.0, stream=name), apply(name)] for name in ("a", "b", "c")]
    flow.source("job", steps=[fork(*branches)])
    assert effects_of(run_at(flow, [0.0])) == [(0, "a", 1.0), (0, "b", 2.0), (0, "c", 3.0)]


def test_rows_that_wake_at_one_instant_run_in_the_order_of_their_waking(run_at, effects_of) -> None:
    """Message 0 holds two units that 1 and 2 wait for: to whom it gives one first goes on first, whoever came first."""
    flow = Flow("agenda")
    a, b = flow.pool("a"), flow.pool("b")
    flow.source("holder", steps=[a.seize(), b.seize(), delay(1.0), b.release(), a.release()])
    flow.source("wants_a", steps=[a.seize(), apply("a"), a.release()])
    flow.source("wants_b", steps=[b.seize(), apply("b"), b.release()])
    history = run_at(flow, [0.0, 0.1, 0.2], kinds=["holder", "wants_a", "wants_b"])
    assert effects_of(history) == [(2, "b", 1.0), (1, "a", 1.0)]


def test_the_result_of_a_call_that_failed_at_once_is_seen_by_the_next_step(run_at, effects_of) -> None:
    flow = Flow("result")
    steps = [rescue([call([reply("failed")])], [branch(RESULT.equals("failed"), [apply("seen")], [apply("missed")])])]
    flow.source("job", steps=steps)
    assert effects_of(run_at(flow, [0.0])) == [(0, "seen", 0.0)]
