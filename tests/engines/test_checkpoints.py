"""Where a crashed row goes on, who has a token, and what is undone: stated by hand, to the second."""

from __future__ import annotations

import pytest

import simlib
from simlib.distributions import Exponential
from simlib.flow import (
    RESULT,
    Flow,
    Steps,
    apply,
    branch,
    call,
    checkpoint,
    delay,
    fork,
    mark,
    point,
    reject,
    reply,
    rescue,
    respond,
    spawn,
    timeout,
    undo,
)
from simlib.scenario import Crash, Pause


def dying(*steps: object, at: float = 1.5) -> tuple[Flow, dict[str, object]]:
    """A flow of these steps at a part that is down from a time on, for a second."""
    flow = Flow("dying")
    flow.source("job", at=flow.part("here"), steps=list(steps))  # type: ignore[arg-type]
    return flow, {"faults": [Crash(part="here", at=(at,), restart=1.0)]}


def test_a_row_without_a_checkpoint_ends_and_one_with_goes_on_there_when_its_part_is_up(run_at, effects_of) -> None:
    flow, crash = dying(delay(1.0), apply("before"), checkpoint(), delay(1.0, stream="x"), apply("after"))
    assert effects_of(run_at(flow, [0.0], **crash)) == [(0, "before", 1.0), (0, "after", 3.5)]
    flow, crash = dying(delay(1.0), apply("before"), delay(1.0, stream="x"), apply("after"))
    assert effects_of(run_at(flow, [0.0], **crash)) == [(0, "before", 1.0)]


def test_the_last_checkpoint_counts_and_only_to_the_end_of_the_steps_that_it_stands_in(run_at, effects_of) -> None:
    flow, crash = dying(
        checkpoint(), apply("a"), delay(1.0), checkpoint(), apply("b"), delay(1.0, stream="x"), apply("c")
    )
    done = effects_of(run_at(flow, [0.0], **crash))
    assert done == [(0, "a", 0.0), (0, "b", 1.0), (0, "b", 2.5), (0, "c", 3.5)]
    flow, crash = dying(rescue([checkpoint(), delay(1.0), apply("a")], []), delay(1.0, stream="x"), apply("b"))
    assert effects_of(run_at(flow, [0.0], **crash)) == [(0, "a", 1.0)]


def test_a_row_that_is_back_and_stands_still_goes_back_again_where_its_part_crashes_once_more(
    run_at, effects_of
) -> None:
    """Up at 2.5 and again at 4, it goes on when the pause is over, at 4.5."""
    flow, _ = dying(checkpoint(), delay(2.0), apply("after"))
    faults = [Crash(part="here", at=(1.5, 3.0), restart=1.0), Pause(part="here", at=(2.0,), lasts=2.5)]
    assert effects_of(run_at(flow, [0.0], faults=faults)) == [(0, "after", 6.5)]


def test_what_a_row_took_after_its_checkpoint_a_crash_takes_from_it(run_at, effects_of) -> None:
    """The unit is another's at once, for as long as that one works: the row is back at 2.5, and has it at 4.5."""
    flow = Flow("unit")
    unit = flow.pool("unit")
    flow.source("kept", at=flow.part("here"), steps=[checkpoint(), unit.serve(2.0), apply("kept")])
    flow.source("other", at=flow.part("there"), steps=[unit.serve(3.0), apply("other")])
    history = run_at(flow, [0.0, 1.0], kinds=["kept", "other"], faults=[Crash(part="here", at=(1.5,), restart=1.0)])
    assert effects_of(history) == [(1, "other", 4.5), (0, "kept", 6.5)]


def test_the_registers_are_as_they_were_and_each_return_draws_anew(run_at, effects_of) -> None:
    remembered = branch(RESULT.equals("refused"), [apply("remembered")], otherwise=[apply("forgotten")])
    flow, crash = dying(reject(), checkpoint(), remembered, rescue([call([delay(1.0), reply("failed")])], []), at=0.5)
    assert [effect for _, effect, _ in effects_of(run_at(flow, [0.0], **crash))] == ["remembered", "remembered"]
    flow, crash = dying(checkpoint(), mark("again"), delay(Exponential(100.0)), apply("done"))
    history = run_at(flow, [0.0], **crash)
    calm = run_at(flow, [0.0])
    assert history.messages["applied"][0].as_py() - 2.5 != calm.messages["applied"][0].as_py()


def test_a_caller_that_goes_on_hears_only_the_answer_to_its_new_call(run_at, effects_of) -> None:
    """Asked at 0, the far side answers at 2, when the caller is just dead; asked again at 2.5, it answers at 4.5."""
    flow = Flow("caller")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, 0.5)
    far = [link.send(), delay(1.0), apply("done"), link.send(), reply("ok")]
    flow.source("job", at=here, steps=[checkpoint(), call(far, timeout=10.0), respond()])
    history = run_at(flow, [0.0], faults=[Crash(part="here", at=(1.8,), restart=0.7)])
    assert effects_of(history) == [(0, "done", 1.5), (0, "done", 4.0)]
    assert history.messages["responded"].to_pylist() == [4.5]


def test_a_crash_at_a_point_takes_the_row_that_it_struck_back_too_and_the_others_before_it(run_at, effects_of) -> None:
    flow = Flow("point")
    here = flow.part("here")
    beside = [checkpoint(), delay(3.0), apply("beside")]
    steps = [spawn(beside), checkpoint(), apply("here"), delay(1.0, stream="x"), point("there"), apply("past")]
    flow.source("job", at=here, steps=steps)
    crash = Crash(part="here", point="there", probability=0.5, restart=1.0)
    times = {}
    for seed in range(1, 6):
        history = run_at(flow, [0.0], faults=[crash], seed=seed)
        struck, done = history.faults.num_rows, effects_of(history)
        times[struck] = done
        assert [effect for _, effect, _ in done].count("here") == struck + 1
        assert (0, "past", 1.0 + 2.0 * struck) in done
        assert done.count((0, "beside", 3.0 + 2.0 * struck)) == 1
    assert {0, 1} <= set(times)


def test_a_token_taken_by_one_row_is_given_back_by_another_and_outlives_a_crash(run_at, effects_of) -> None:
    """Whoever takes it dies with its part at 1 s; the other row of its message gives it back at 5 s."""
    flow = Flow("token")
    here, there = flow.part("here"), flow.part("there")
    lock = flow.credit("lock", 1)
    link = flow.link(here, there, 0.5)
    given = spawn([link.send(), delay(4.5), lock.give(), apply("given")])
    flow.source("first", at=here, steps=[lock.take(), given, delay(100.0, stream="x")])
    flow.source("second", at=there, steps=[lock.take(), apply("taken")])
    history = run_at(flow, [0.0, 0.1], kinds=["first", "second"], faults=[Crash(part="here", at=(1.0,), restart=1.0)])
    assert effects_of(history) == [(0, "given", 5.0), (1, "taken", 5.0)]


def test_tokens_go_by_their_key_to_whoever_came_first_and_not_to_those_who_gave_up(run_at, effects_of) -> None:
    flow = Flow("keys")
    lock = flow.credit("lock", 1, key="sku")
    impatient = timeout(0.5, [lock.take(), delay(1.0), lock.give(), apply("done")], [reject()])
    flow.source("patient", steps=[lock.take(), delay(1.0), lock.give(), apply("done")])
    flow.source("impatient", steps=[impatient])
    kinds = ["patient", "impatient", "patient", "patient"]
    history = run_at(flow, [0.0, 0.1, 0.2, 0.3], kinds=kinds, skus=[0, 0, 0, 1])
    assert effects_of(history) == [(0, "done", 1.0), (3, "done", 1.3), (2, "done", 2.0)]


def test_a_credit_never_has_more_tokens_than_it_had_at_first(run_at, effects_of) -> None:
    flow = Flow("full")
    one = flow.credit("one", 1)
    flow.source("job", steps=[one.give(), one.give(), fork([one.take(), apply("a")], [one.take(), apply("b")], join=1)])
    assert effects_of(run_at(flow, [0.0])) == [(0, "a", 0.0)]


def test_a_bucket_lets_through_what_it_holds_and_then_its_rate(run_at, effects_of) -> None:
    """Of 7 at once the first 3 go, and one at each of the next quarters of a second."""
    flow = Flow("bucket")
    bucket = flow.part("gate").credit("bucket", 3, rate=4.0)
    flow.source("job", at=flow.parts["gate"], steps=[bucket.take(), apply("through")])
    done = effects_of(run_at(flow, [0.1] * 7))
    assert [time for _, _, time in done] == [0.1, 0.1, 0.1, 0.25, 0.5, 0.75, 1.0]


def test_tokens_that_a_row_takes_and_gives_back_are_units_of_a_pool() -> None:
    waits = []
    for owned in (True, False):
        flow = Flow("mmc")
        pool, credit = flow.pool("server", 3), flow.credit("tokens", 3)
        take, give = (pool.seize(), pool.release()) if owned else (credit.take(), credit.give())
        flow.source("job", interarrival=Exponential(0.4), steps=[take, mark("begun"), delay(Exponential(1.0)), give])
        waits.append(simlib.simulate(flow, 2_000).messages["mark.begun"].to_pylist())
        bounds = flow.bounds()
        assert bounds.throughput == 3.0
    assert waits[0] == waits[1] and max(waits[0]) > 0


UNDONE: dict[str, tuple[Steps, str]] = {
    "all": ([apply("a"), apply("b"), undo("b"), undo("a")], "compensated"),
    "some": ([apply("a"), apply("b"), undo("b")], "applied"),
    "what was done twice": ([apply("a"), apply("a"), undo("a")], "applied"),
    "and done again": ([apply("a"), undo("a"), apply("a")], "applied"),
    "nothing": ([apply("a")], "applied"),
    "what was never done": ([undo("a")], "failed"),
    "beside what cannot be": ([apply("c"), apply("a"), undo("a")], "compensated"),
}
"""Steps, and the outcome, in a flow that can undo a and b."""


@pytest.mark.parametrize("case", UNDONE)
def test_a_message_is_compensated_where_all_is_undone_that_can_be(case: str, run_at) -> None:
    steps, outcome = UNDONE[case]
    flow = Flow("undone")
    flow.source("job", steps=steps)
    flow.source("nobody", steps=[undo("a"), undo("b")])
    assert run_at(flow, [0.0]).messages["outcome"].to_pylist() == [outcome]


def test_what_is_undone_is_an_effect_that_does_not_count_with_a_change_of_its_own(run_at) -> None:
    flow = Flow("undone")
    stock = flow.part("here").table("stock", stocked=True)
    taken = stock.take([apply("taken", "stock", sign=-1)])
    flow.source("order", at=flow.parts["here"], steps=[taken, stock.add(), undo("taken", "stock", sign=1)])
    history = run_at(flow, [0.0], quantities=[2], units=5)
    rows = history.effects.select(["effect", "version", "change"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [("taken", 1, -2), ("taken.undone", 2, 2)]
    assert history.messages.select(["effects", "duplicates"]).to_pylist() == [{"effects": 1, "duplicates": 0}]
