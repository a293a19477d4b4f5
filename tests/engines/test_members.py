"""What a pool knows of its members, and a retry of its budget: breakers, ejection, what retries are paid from."""

from __future__ import annotations

import pytest

from simlib.flow import (
    ATTEMPT,
    MEMBER,
    Backoff,
    Breaker,
    Field,
    Flow,
    Steps,
    apply,
    branch,
    delay,
    fail,
    rescue,
    retry,
    timeout,
)
from simlib.flow.model import Pool
from simlib.scenario import Crash

BAD = Field("quantity").equals(2)


def visited(visit, **options) -> Flow:
    """Jobs that visit a pool; where that fails, they say so."""
    flow = Flow("visited")
    host = flow.part("host")
    pool = host.pool("server", capacity=10, **options)
    flow.source("job", at=host, steps=[rescue(visit(pool), otherwise=[apply("failed")])])
    return flow


def served(pool: Pool) -> Steps:
    """A quarter of a second, after which a bad job fails."""
    return [pool.seize(), delay(0.25), branch(BAD, [fail()]), pool.release(), apply("done")]


def named(pool: Pool) -> Steps:
    """The same, which names the member."""
    which = branch(MEMBER.equals(0), [apply("first")], [branch(MEMBER.equals(1), [apply("second")], [apply("third")])])
    return [pool.seize(), which, delay(0.25), branch(BAD, [fail()]), pool.release()]


def told(history, effects_of, *without) -> list[tuple[str, float]]:
    return [(effect, time) for _, effect, time in effects_of(history) if effect not in without]


@pytest.mark.parametrize(("tried", "then"), [
    (1, [("done", 2.0), ("done", 2.75), ("failed", 3.25), ("done", 4.25)]),
    (2, [("failed", 2.0), ("failed", 2.5), ("failed", 2.75), ("done", 4.25)]),
], ids=["a success closes it", "a failure opens it again"])  # fmt: skip
def test_a_breaker_opens_after_failures_in_a_row_and_is_tried_when_it_has_lasted(
    run_at, effects_of, tried, then
) -> None:
    flow = visited(served, breaker=Breaker(failures=2, lasts=1.0))
    times, bad = (
        [0.0, 0.5, 1.0, 1.75, 2.5, 2.75 if tried == 2 else 3.0, 4.0],
        [2, 2, 1, tried, 1, 1 if tried == 2 else 2, 1],
    )
    happened = told(run_at(flow, times, quantities=bad), effects_of)
    assert happened == [("failed", 0.25), ("failed", 0.75), ("failed", 1.0), *then]


def test_successes_between_failures_keep_a_breaker_closed(run_at, effects_of) -> None:
    flow = visited(served, breaker=Breaker(failures=2, lasts=1.0))
    happened = told(run_at(flow, [0.0, 1.0, 2.0, 3.0], quantities=[2, 1, 2, 1]), effects_of)
    assert happened == [("failed", 0.25), ("done", 1.25), ("failed", 2.25), ("done", 3.25)]


def test_a_timeout_is_a_failure_of_the_member_and_a_crash_of_its_holder_is_none(run_at, effects_of) -> None:
    def late(pool: Pool) -> Steps:
        return [timeout(0.5, [pool.seize(), delay(1.0), pool.release()], [apply("late")])]

    flow = visited(late, breaker=Breaker(failures=1, lasts=10.0))
    assert told(run_at(flow, [0.0, 1.0]), effects_of) == [("late", 0.5), ("failed", 1.0)]
    flow = visited(served, breaker=Breaker(failures=1, lasts=10.0))
    struck = [Crash(part="host", at=(0.125,), restart=0.25)]
    assert told(run_at(flow, [0.0, 1.0], faults=struck), effects_of) == [("done", 1.25)]


@pytest.mark.parametrize("select", ["round_robin", "least_requests"])
def test_a_member_that_fails_is_left_out_while_others_are_there(run_at, effects_of, select) -> None:
    flow = visited(named, members=3, select=select, breaker=Breaker(failures=1, lasts=2.0, at_most=0.4))
    times = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.5, 2.5, 2.5]
    bad = [1, 2, 1, 1, 1, 1, 1, 1, 1]
    happened = told(run_at(flow, times, quantities=bad), effects_of, "failed")
    names = [name for name, _ in happened]
    assert names[:3] == ["first", "second", "third"]
    assert "second" not in names[3:6] and names[6:].count("second") == 1


def test_no_more_members_are_left_out_than_may_be(run_at, effects_of) -> None:
    flow = visited(named, members=2, breaker=Breaker(failures=1, lasts=10.0, at_most=0.5))
    happened = told(run_at(flow, [0.0, 0.0, 1.0, 2.0], quantities=[2, 2, 1, 1]), effects_of, "failed")
    assert [name for name, _ in happened] == ["first", "second", "second", "second"], "the second failed no less"


def test_all_members_are_left_out_where_that_is_said(run_at, effects_of) -> None:
    flow = visited(named, members=2, breaker=Breaker(failures=1, lasts=10.0))
    happened = told(run_at(flow, [0.0, 0.0, 1.0], quantities=[2, 2, 1]), effects_of)
    assert happened == [("first", 0.0), ("second", 0.0), ("failed", 0.25), ("failed", 0.25), ("failed", 1.0)]


def tried(policy, steps, **options) -> Flow:
    flow = Flow("tried")
    flow.source("job", steps=[retry(policy(flow), steps, [apply("failed")], **options)])
    return flow


def test_retries_are_paid_from_what_calls_paid_in(run_at) -> None:
    """Half a retry from each call: 0.5, 1 of which one is spent, 0.5, 1 …; never more than the reserve."""
    flow = tried(lambda flow: Backoff(retries=3, budget=flow.budget("retries", 0.5)), [fail()])
    assert run_at(flow, [0.0, 1.0, 2.0, 3.0]).messages["attempts"].to_pylist() == [1, 2, 1, 2]
    flow = tried(lambda flow: Backoff(retries=3, budget=flow.budget("retries", 5.0, reserve=2.0)), [fail()])
    assert run_at(flow, [0.0, 1.0]).messages["attempts"].to_pylist() == [3, 3]


@pytest.mark.parametrize(("goes_on", "numbers"), [(False, [1, 2, 3] * 2), (True, [1, 2, 3, 4, 5, 6])])
def test_attempts_of_a_retry_inside_a_retry_go_on_counting_where_that_is_said(run_at, goes_on, numbers) -> None:
    again = retry(Backoff(retries=2), [apply("tried"), fail()], [fail()], goes_on=goes_on)
    history = run_at(tried(lambda flow: Backoff(retries=1), [again]), [0.0])
    effects = history.effects.to_pandas()
    assert list(effects.loc[effects["effect"] == "tried", "delivery"]) == numbers


def test_the_outer_attempt_is_there_again_after_an_inner_retry(run_at, effects_of) -> None:
    inner = retry(Backoff(retries=2), [branch(ATTEMPT.equals(5), [], [fail()])], goes_on=True)
    flow = tried(lambda flow: Backoff(retries=1), [inner, branch(ATTEMPT.equals(2), [apply("second")], [fail()])])
    assert [effect for _, effect, _ in effects_of(run_at(flow, [0.0]))] == ["second"]
