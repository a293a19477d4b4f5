"""What the blocks do, on timelines counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import simlib
from simlib.errors import RunFailed
from simlib.flow import (
    ATTEMPT,
    DELIVERY,
    POISONED,
    RESULT,
    Backoff,
    Constant,
    Exponential,
    Field,
    Flow,
    Weibull,
    ack,
    apply,
    branch,
    call,
    choose,
    delay,
    fail,
    fork,
    mark,
    nack,
    point,
    publish,
    reject,
    repeat,
    reply,
    rescue,
    respond,
    retry,
    spawn,
    supersede,
    timeout,
)
from simlib.scenario import Crash, Loss, Poison, Slowdown


def column(history, name: str) -> list:
    return history.messages[name].to_pylist()


# --- pools ----------------------------------------------------------------------------------------------------------


def test_two_pools_are_held_at_once_and_given_back_one_by_one(run_at, effects_of) -> None:
    flow = Flow("two")
    a, b = flow.pool("a"), flow.pool("b")
    flow.source("job", steps=[
        a.seize(), delay(1.0, stream="alone"), b.seize(), delay(1.0, stream="both"),
        a.release(), delay(1.0, stream="rest"), b.release(), apply("done"),
    ])  # fmt: skip
    history = run_at(flow, [0.0, 0.0])
    assert effects_of(history) == [(0, "done", 3.0), (1, "done", 5.0)]
    areas = history.parts.to_pandas().groupby("name")[["busy", "waiting"]].sum()
    assert areas.loc["a"].tolist() == pytest.approx([4.0, 2.0])
    assert areas.loc["b"].tolist() == pytest.approx([4.0, 0.0])


def test_who_times_out_gives_back_what_it_held(run_at, effects_of) -> None:
    flow = Flow("give back")
    server = flow.pool("server")
    flow.source("stuck", steps=[timeout(2.0, [server.seize(), delay(10.0), server.release()], [apply("gave up")])])
    flow.source("job", steps=[server.serve(1.0), apply("done")])
    assert effects_of(run_at(flow, [0.0, 1.0], kinds=["stuck", "job"])) == [(0, "gave up", 2.0), (1, "done", 3.0)]


def test_who_times_out_in_line_is_not_served_later(run_at, effects_of) -> None:
    flow = Flow("leave")
    server = flow.pool("server")
    flow.source("long", steps=[server.serve(5.0), apply("done")])
    flow.source("hasty", steps=[timeout(1.0, [server.serve(1.0), apply("served")], [apply("left")])])
    flow.source("job", steps=[server.serve(1.0), apply("done")])
    history = run_at(flow, [0.0, 1.0, 1.5], kinds=["long", "hasty", "job"])
    assert effects_of(history) == [(1, "left", 2.0), (0, "done", 5.0), (2, "done", 6.0)]


def test_a_failure_gives_back_only_what_was_taken_since_the_rescue(run_at, effects_of) -> None:
    flow = Flow("since")
    a, b = flow.pool("a"), flow.pool("b")
    inner = rescue([b.seize(), fail()], [apply("rescued"), delay(1.0)])
    flow.source("job", steps=[a.seize(), inner, a.release()])
    flow.source("wants_a", steps=[a.serve(1.0), apply("a")])
    flow.source("wants_b", steps=[b.serve(1.0), apply("b")])
    history = run_at(flow, [0.0, 0.0, 0.0], kinds=["job", "wants_a", "wants_b"])
    assert effects_of(history) == [(0, "rescued", 0.0), (2, "b", 1.0), (1, "a", 2.0)]


def test_the_lower_priority_number_goes_first_and_nobody_is_interrupted(run_at, effects_of) -> None:
    flow = Flow("priority")
    server = flow.pool("server")
    for kind, number in (("low", 2), ("high", 1)):
        flow.source(kind, steps=[server.serve(1.0, priority=number), apply("done")])
    history = run_at(flow, [0.0, 0.1, 0.2, 0.3], kinds=["low", "low", "high", "high"])
    assert [message for message, _, _ in effects_of(history)] == [0, 2, 3, 1]


def test_a_full_queue_fails_and_holds_as_many_as_its_limit(run_at) -> None:
    flow = Flow("limit")
    server = flow.pool("server", capacity=2, queue_limit=3)
    flow.source("job", steps=[rescue([server.serve(1.0), apply("done")], [reject()])])
    assert column(run_at(flow, [0.0] * 7), "outcome") == ["applied"] * 5 + ["rejected"] * 2


def test_members_are_taken_in_turn_by_key_or_by_least_requests(run_at, effects_of) -> None:
    def done(select: str, skus: list[int]) -> list[float]:
        flow = Flow(select)
        servers = flow.pool("servers", members=2, select=select)
        flow.source("job", steps=[servers.serve(1.0), apply("done")])
        return [time for _, _, time in sorted(effects_of(run_at(flow, [0.0, 0.0, 0.5, 1.5], skus=skus)))]

    assert done("round_robin", [0, 0, 0, 0]) == [1.0, 1.0, 2.0, 2.5]
    assert done("key", [0, 0, 1, 1]) == [1.0, 2.0, 1.5, 2.5]
    assert done("least_requests", [0, 0, 0, 0]) == [1.0, 1.0, 2.0, 2.5]


@pytest.mark.parametrize("select", ["random", "two_choices"])
def test_the_visits_of_one_message_choose_their_members_apart(select: str) -> None:
    """Two tasks of each message on two idle servers: at random half of the pairs meet, of two choices a quarter."""
    flow = Flow("apart")
    servers = flow.pool("servers", members=2, select=select)
    tasks = [[servers.serve(1.0, stream=name), mark(name)] for name in ("a", "b")]
    flow.source("job", interarrival=Constant(10.0), steps=[fork(*tasks), apply("done")])
    history = simlib.simulate(flow, 2_000)
    met = np.mean(np.array(column(history, "applied")) - column(history, "issued") > 1.5)
    assert met == pytest.approx(0.5 if select == "random" else 0.25, abs=0.05)


def test_only_a_number_waiting_that_lasts_is_seen(run_at) -> None:
    flow = Flow("lasting")
    part = flow.part("broker")
    jobs = part.queue("jobs")
    flow.source("job", at=part, steps=[publish(jobs)])
    flow.consumers(jobs, part, count=1, steps=[delay(0.1), apply("done"), ack()])
    assert run_at(flow, [0.0, 1.0, 2.0]).parts.to_pandas()["waiting_max"].max() == 0


def test_what_is_completed_at_the_edge_of_a_bin_is_counted_once(run_at) -> None:
    flow = Flow("edges")
    server = flow.pool("server")
    flow.source("job", steps=[server.serve(1.0), apply("done")])
    parts = run_at(flow, [float(i) for i in range(51)]).parts.to_pandas()
    assert (parts["end"] > parts["start"]).all()
    assert parts["completed"].sum() == 51


# --- together -------------------------------------------------------------------------------------------------------


def test_a_fork_joins_after_as_many_branches_as_asked_and_the_others_go_on(run_at, effects_of) -> None:
    flow = Flow("join")
    branches = [[delay(float(i), stream=str(i)), mark(f"ended{i}")] for i in (1, 2, 3)]
    flow.source("job", steps=[fork(*branches, join=2), apply("joined")])
    history = run_at(flow, [0.0])
    assert effects_of(history) == [(0, "joined", 2.0)]
    assert column(history, "mark.ended3") == [3.0]


def test_a_branch_that_fails_has_ended(run_at, effects_of) -> None:
    flow = Flow("join")
    flow.source("job", steps=[fork([delay(1.0, stream="a"), fail()], [delay(2.0, stream="b")]), apply("joined")])
    assert effects_of(run_at(flow, [0.0])) == [(0, "joined", 2.0)]


def test_who_spawns_goes_on_at_once(run_at, effects_of) -> None:
    flow = Flow("spawn")
    flow.source("job", steps=[spawn([delay(2.0, stream="beside"), apply("beside")]), delay(1.0), apply("own")])
    assert effects_of(run_at(flow, [0.0])) == [(0, "own", 1.0), (0, "beside", 2.0)]


def test_a_call_that_is_abandoned_is_worked_on_at_the_far_side(run_at) -> None:
    flow = Flow("abandon")
    flow.source("job", steps=[call([delay(5.0), apply("done"), reply()], timeout=1.0), respond()])
    history = run_at(flow, [0.0])
    assert column(history, "response") == ["timed_out"] and column(history, "responded") == [1.0]
    assert column(history, "outcome") == ["applied"] and column(history, "applied") == [5.0]


def test_a_reply_to_a_call_that_was_abandoned_is_no_reply_to_the_next(run_at) -> None:
    """The first reply comes at 1.5, in the middle of the second call, whose own comes at 2.2."""
    flow = Flow("late")
    far = [branch(ATTEMPT.equals(1), [delay(1.5, stream="first")], [delay(1.0, stream="second")]), reply("ok")]
    flow.source("job", steps=[retry(Backoff(retries=1), [call(far, timeout=1.2)]), respond()])
    assert column(run_at(flow, [0.0]), "responded") == [2.2]


def test_who_replies_goes_on_and_only_the_first_reply_counts(run_at, effects_of) -> None:
    flow = Flow("replies")
    flow.source("job", steps=[call([reply("refused"), reply("ok"), delay(1.0), apply("after")]), respond()])
    history = run_at(flow, [0.0])
    assert column(history, "response") == ["refused"] and column(history, "responded") == [0.0]
    assert effects_of(history) == [(0, "after", 1.0)]


def test_only_the_first_response_counts(run_at) -> None:
    flow = Flow("responses")
    flow.source("job", steps=[delay(1.0), respond("refused"), delay(1.0, stream="more"), respond("ok")])
    history = run_at(flow, [0.0])
    assert column(history, "response") == ["refused"] and column(history, "responded") == [1.0]


def test_a_failure_that_nothing_catches_is_told_to_the_caller(run_at) -> None:
    flow = Flow("failed")
    flow.source("job", steps=[delay(1.0), fail()])
    history = run_at(flow, [0.0])
    assert (column(history, "response"), column(history, "outcome")) == (["failed"], ["failed"])


# --- retry and time-out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("longest", "end"), [(60.0, 7.0), (1.5, 4.0)])
def test_the_backoff_doubles_up_to_the_longest(run_at, longest: float, end: float) -> None:
    flow = Flow("backoff")
    policy = Backoff(retries=3, base=1.0, factor=2.0, longest=longest)
    flow.source("job", steps=[retry(policy, [fail()], [apply("gave up")])])
    history = run_at(flow, [0.0])
    assert column(history, "attempts") == [4] and column(history, "applied") == [end]


def test_jitter_draws_each_wait_uniformly_up_to_the_backoff() -> None:
    flow = Flow("jitter")
    policy = Backoff(retries=1, base=1.0, jitter=True)
    flow.source("job", interarrival=Constant(10.0), steps=[retry(policy, [fail()], [apply("gave up")])])
    history = simlib.simulate(flow, 1_000)
    waits = np.array(column(history, "applied")) - column(history, "issued")
    assert 0 < waits.min() and waits.max() < 1.0
    assert waits.mean() == pytest.approx(0.5, abs=3.5 * math.sqrt(1 / 12 / 1_000))


def test_a_retry_that_succeeds_tries_no_more_and_does_not_do_the_others(run_at, effects_of) -> None:
    flow = Flow("second")
    steps = [branch(ATTEMPT.equals(1), [fail()]), apply("done")]
    flow.source("job", steps=[retry(Backoff(retries=5), steps, [apply("gave up")])])
    history = run_at(flow, [0.0])
    assert effects_of(history) == [(0, "done", 0.0)] and column(history, "attempts") == [2]


def test_the_inner_retry_s_attempts_do_not_change_the_outer_s(run_at, effects_of) -> None:
    flow = Flow("nested")
    inner = retry(Backoff(retries=2), [branch(ATTEMPT.at_least(3), [apply("inner")], [fail()])])
    outer = [inner, branch(ATTEMPT.equals(1), [apply("outer is at 1")])]
    flow.source("job", steps=[retry(Backoff(retries=0), outer)])
    assert [effect for _, effect, _ in effects_of(run_at(flow, [0.0]))] == ["inner", "outer is at 1"]


def test_the_attempt_is_the_outer_s_again_after_the_inner_retry_gave_up(run_at, effects_of) -> None:
    flow = Flow("nested")
    given_up = rescue([retry(Backoff(retries=2), [fail()], [fail()])], [])
    flow.source(
        "job", steps=[retry(Backoff(retries=0), [given_up, branch(ATTEMPT.equals(1), [apply("outer is at 1")])])]
    )
    assert [effect for _, effect, _ in effects_of(run_at(flow, [0.0]))] == ["outer is at 1"]


def test_a_scope_that_is_left_early_goes_on_at_the_part_where_it_began(run_at) -> None:
    """The first is on its way when it gives up, the second at the far end when it fails: both have to travel again."""
    flow = Flow("back")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, Constant(2.0))
    again = [link.send(stream="again"), there.cpu.serve(1.0, stream="again work"), apply("done")]
    flow.source("slow", at=here, steps=[timeout(1.0, [link.send()], again)])
    flow.source("failing", at=here, steps=[rescue([link.send(), fail()], again)])
    assert column(run_at(flow, [0.0, 10.0], kinds=["slow", "failing"]), "applied") == [4.0, 15.0]


# --- stages and loops -----------------------------------------------------------------------------------------------


def test_who_chooses_a_stage_leaves_its_steps_at_once_wherever_it_stands(run_at, effects_of) -> None:
    flow = Flow("leave")
    server = flow.pool("server")
    flow.stage("out", [apply("chosen")])
    inside = rescue([timeout(5.0, [branch(ATTEMPT.equals(0), [choose({"out": 1.0})])])], [])
    flow.source("job", steps=[inside, server.serve(1.0), apply("missed")])
    assert effects_of(run_at(flow, [0.0])) == [(0, "chosen", 0.0)]


def test_what_is_left_over_of_a_choice_ends_the_row() -> None:
    flow = Flow("leftover")
    flow.stage("on", [apply("done"), choose({"on": 0.5})])
    flow.source("job", interarrival=Constant(1.0), steps=[choose({"on": 0.75})])
    history = simlib.simulate(flow, 4_000)
    assert np.mean(np.array(column(history, "effects")) > 0) == pytest.approx(0.75, abs=0.03)
    assert np.mean(column(history, "effects")) == pytest.approx(0.75 / 0.5, abs=0.1)


def test_consumers_choose_stages_too_and_acknowledge_there(run_at, effects_of) -> None:
    flow = Flow("stages")
    part = flow.part("broker")
    jobs = part.queue("jobs", prefetch=1)
    flow.source("job", at=part, steps=[publish(jobs)])
    flow.stage("work", [delay(1.0), apply("done"), ack()])
    flow.consumers(jobs, part, count=1, steps=[choose({"work": 1.0})])
    assert effects_of(run_at(flow, [0.0, 0.0])) == [(0, "done", 1.0), (1, "done", 2.0)]


def test_a_repeat_takes_as_many_turns_as_its_probability_says() -> None:
    flow = Flow("turns")
    flow.source("job", interarrival=Constant(100.0), steps=[repeat([delay(1.0), apply("turn")], again=0.6)])
    turns = np.array(column(simlib.simulate(flow, 3_000), "effects"))
    assert turns.min() == 1
    assert turns.mean() == pytest.approx(1 / 0.4, abs=3.5 * math.sqrt(0.6 / 0.4**2 / 3_000))


# --- tables ---------------------------------------------------------------------------------------------------------


def test_cells_count_versions_and_registers_carry_them(run_at) -> None:
    flow = Flow("cells")
    part = flow.part("side")
    stock, copy = part.table("stock", stocked=True), part.table("copy")
    flow.source("add", at=part, steps=[stock.add(), apply("issued", "stock", sign=1), copy.write(), respond("ok")])
    flow.source("ask", at=part, steps=[copy.read(), respond(answer_from="copy")])
    history = run_at(flow, [0.0, 1.0, 2.0], kinds=["add", "add", "ask"], quantities=[3, 4, 0], units=10)
    assert column(history, "version") == [1, 2, 2]
    assert column(history, "answer")[2] == 17 and column(history, "outcome")[2] == "answered"


def test_an_older_version_does_not_overwrite_a_newer_one(run_at) -> None:
    flow = Flow("newer")
    part = flow.part("side")
    stock, copy = part.table("stock", stocked=True), part.table("copy")
    issued, written = apply("issued", "stock", sign=1), copy.write_if_newer([apply("copied", "copy")], [supersede()])
    flow.source("slow", at=part, steps=[stock.add(), issued, delay(5.0), written])
    flow.source("fast", at=part, steps=[stock.add(), issued, delay(1.0), written])
    history = run_at(flow, [0.0, 1.0], kinds=["slow", "fast"])
    assert column(history, "outcome") == ["superseded", "applied"]


def test_only_what_is_there_can_be_taken(run_at) -> None:
    flow = Flow("take")
    part = flow.part("side")
    stock = part.table("stock", stocked=True)
    flow.source("order", at=part, steps=[stock.take([apply("taken", "stock", sign=-1)], [reject()]), respond()])
    history = run_at(flow, [0.0, 1.0, 2.0], quantities=[1, 2, 1], units=2)
    assert column(history, "outcome") == ["applied", "rejected", "applied"]
    assert column(history, "response") == ["ok", "refused", "ok"]


def test_once_does_its_steps_once_for_each_message_and_then_gives_their_result(run_at) -> None:
    flow = Flow("once")
    part = flow.part("side")
    stock, seen = part.table("stock", stocked=True), part.table("seen", key="message")
    take = seen.once([stock.take([apply("taken", "stock", sign=-1)], [reject()])])
    flow.source("order", at=part, steps=[take, delay(1.0), take, respond()])
    history = run_at(flow, [0.0, 0.5], units=1)
    assert column(history, "effects") == [1, 0] and column(history, "duplicates") == [0, 0]
    assert column(history, "response") == ["ok", "refused"]


def test_without_once_the_second_time_is_a_duplicate(run_at) -> None:
    flow = Flow("twice")
    flow.source("order", steps=[apply("done"), delay(1.0), apply("done")])
    history = run_at(flow, [0.0])
    assert (column(history, "effects"), column(history, "duplicates")) == ([2], [1])


# --- links ----------------------------------------------------------------------------------------------------------


def test_a_link_loses_its_share_and_tells_nobody() -> None:
    flow = Flow("lossy")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, Constant(0.1), loss=0.3)
    flow.source("job", at=here, interarrival=Constant(1.0), steps=[link.send(), apply("arrived")])
    history = simlib.simulate(flow, 4_000)
    lost = np.isnan(history.messages["applied"].to_numpy())
    assert lost.mean() == pytest.approx(0.3, abs=3.5 * math.sqrt(0.3 * 0.7 / 4_000))
    assert set(column(history, "response")) == {"none"} and set(column(history, "outcome")) == {"applied", "failed"}


@pytest.mark.parametrize(("direction", "applied"), [("here", False), ("there", True), (None, False)])
def test_a_loss_may_strike_one_direction_only(run_at, direction: str | None, applied: bool) -> None:
    flow = Flow("lossy")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, Constant(0.1))
    flow.source(
        "job", at=here, steps=[call([link.send(), apply("done"), link.send(), reply("ok")], timeout=1.0), respond()]
    )
    history = run_at(flow, [0.0], faults=[Loss(link="here-there", probability=1.0, direction=direction)])
    assert column(history, "response") == ["timed_out"]
    assert column(history, "outcome") == ["applied" if applied else "failed"]


def test_a_run_in_which_nothing_more_can_happen_ends_with_what_hangs_in_flight() -> None:
    flow = Flow("hanging")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, Constant(0.1), loss=0.999999)
    flow.source("job", at=here, interarrival=Constant(1.0), steps=[call([link.send(), reply()]), apply("done")])
    assert set(column(simlib.simulate(flow, 5), "outcome")) == {"in_flight"}


def test_a_run_ends_at_the_horizon_after_the_last_arrival(run_at) -> None:
    flow = Flow("horizon")
    flow.source("job", steps=[delay(100.0), apply("done")])
    history = run_at(flow, [0.0, 50.0], horizon=60.0)
    assert column(history, "outcome") == ["applied", "in_flight"]


# --- queues ---------------------------------------------------------------------------------------------------------


def queued(steps: list, count: int = 1, link: float | None = None, **options) -> tuple[Flow, object]:
    """A source that publishes at a broker, with consumers at another part."""
    flow = Flow("queued")
    broker, shop = flow.part("broker"), flow.part("shop")
    over = None if link is None else flow.link(broker, shop, Constant(link))
    jobs = broker.queue("jobs", link=over, **options)
    flow.source("job", at=broker, steps=[publish(jobs), respond("ok")])
    flow.consumers(jobs, shop, count=count, steps=steps)
    return flow, jobs


WORK = [delay(1.0), apply("done"), ack()]


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ({}, [1.0, 1.0, 2.0, 2.0]),
        ({"prefetch": 1}, [1.0, 1.0, 2.0, 2.0]),
        ({"prefetch": 1, "shared": True}, [1.0, 2.0, 3.0, 4.0]),
        ({"prefetch": 2, "shared": True}, [1.0, 1.0, 2.0, 2.0]),
    ],
)
def test_prefetch_is_each_consumer_s_own_or_shared(run_at, effects_of, options: dict, done: list[float]) -> None:
    flow, _ = queued(WORK, count=2, **options)
    assert [time for _, _, time in effects_of(run_at(flow, [0.0] * 4))] == done


def test_transit_overlaps_with_work_only_as_far_as_prefetch_allows(run_at, effects_of) -> None:
    """A window of one: there, work, back, each time; a window of two hides the transit behind the work."""
    for prefetch, done in ((1, [1.5, 3.5, 5.5]), (2, [1.5, 2.5, 3.5])):
        flow, _ = queued(WORK, link=0.5, prefetch=prefetch)
        assert [time for _, _, time in effects_of(run_at(flow, [0.0] * 3))] == done


def test_what_is_not_acknowledged_in_time_is_delivered_again(run_at, effects_of) -> None:
    slow = [branch(DELIVERY.equals(1), [delay(3.0, stream="slow")]), apply("done"), ack()]
    flow, _ = queued(slow, count=2, ack_wait=2.0)
    history = run_at(flow, [0.0])
    assert effects_of(history) == [(0, "done", 2.0), (0, "done", 3.0)]
    assert (column(history, "deliveries"), column(history, "duplicates")) == ([2], [1])
    assert history.effects["delivery"].to_pylist() == [2, 1]


def test_an_acknowledgement_at_the_end_of_the_wait_is_in_time(run_at) -> None:
    flow, _ = queued([delay(2.0), apply("done"), ack()], count=2, ack_wait=2.0)
    assert column(run_at(flow, [0.0]), "deliveries") == [1]


def test_a_late_acknowledgement_settles_what_waits_to_be_delivered_again(run_at) -> None:
    """The only consumer works for 3 s on each: at 2 s both go back, at 3 s the first is acknowledged while it waits."""
    flow, _ = queued([delay(3.0), apply("done"), ack()], count=1, prefetch=1, ack_wait=2.0)
    assert column(run_at(flow, [0.0]), "effects") == [2]
    flow, _ = queued([delay(3.0), apply("done"), ack()], count=1, prefetch=2, ack_wait=2.0, max_deliveries=1)
    history = run_at(flow, [0.0])
    assert (column(history, "effects"), column(history, "outcome")) == ([1], ["applied"])


def test_a_refused_delivery_comes_again_after_its_delay_at_the_head(run_at, effects_of) -> None:
    steps = [branch(DELIVERY.equals(1), [nack(delay=1.0)], [apply("done"), ack()])]
    flow, _ = queued(steps)
    assert effects_of(run_at(flow, [0.0, 0.0])) == [(0, "done", 1.0), (1, "done", 1.0)]


def test_what_waits_at_the_consumer_while_it_is_delivered_again_is_still_its_first_delivery(run_at) -> None:
    """0.8 s of work each, 1 s to acknowledge: the third is handled at 2.4 s, and was delivered again at 1 s and at 2 s."""
    flow, _ = queued([delay(0.8), apply("done"), ack()], ack_wait=1.0)
    effects = run_at(flow, [0.0, 0.0, 0.0]).effects
    assert effects["message"].to_pylist() == [0, 1, 2, 1, 2, 2]
    assert effects["delivery"].to_pylist() == [1, 1, 1, 2, 2, 3]


def test_a_refusal_inside_a_retry_refuses_the_delivery_in_hand(run_at) -> None:
    flow, _ = queued([retry(Backoff(retries=2), [nack(delay=1.0)])], max_deliveries=3)
    history = run_at(flow, [0.0])
    assert (column(history, "deliveries"), column(history, "outcome")) == ([3], ["dead_lettered"])


@pytest.mark.parametrize(("requeue", "done"), [("head", [(0, 2.0), (1, 3.0)]), ("back", [(1, 2.0), (0, 3.0)])])
def test_what_is_refused_stands_at_the_head_or_the_back(run_at, effects_of, requeue: str, done: list) -> None:
    steps = [delay(1.0), branch(DELIVERY.equals(1), [branch(Field("sku").equals(0), [nack()], [apply("done"), ack()])],
                                [apply("done"), ack()])]  # fmt: skip
    flow, _ = queued(steps, prefetch=1, requeue=requeue)
    history = run_at(flow, [0.0, 0.5], skus=[0, 1])
    assert [(message, time) for message, _, time in effects_of(history)] == done


@pytest.mark.parametrize(("after", "noticed"), [(0.25, 0.75), (5.0, 1.5)])
def test_what_a_dead_consumer_held_comes_back_in_order_when_its_connection_is_seen_to_be_closed(
    run_at, effects_of, after: float, noticed: float
) -> None:
    """One is in hand and two are fetched at the crash at 0.5; at 1.5 the shop is up again, at the latest it is noticed then."""
    flow, _ = queued([delay(1.0), apply("done"), ack()], prefetch=3, detected_after=after)
    struck = [Crash(part="shop", at=(0.5,), restart=1.0)]
    history = run_at(flow, [0.0, 0.0, 0.0, 0.6], faults=struck)
    assert effects_of(history) == [(0, "done", 2.5), (1, "done", 3.5), (2, "done", 4.5), (3, "done", 5.5)]
    assert column(history, "deliveries") == [2, 2, 2, 1]
    held = history.parts.to_pandas().query("name == 'jobs'")["unacknowledged"].sum()
    assert held == pytest.approx(3 * noticed + 3 * 1.0 + 3 * 1.0 + 2 * 1.0 + 1.0)


def test_a_connection_that_closes_with_the_broker_takes_its_acknowledgements_along(run_at) -> None:
    for after, deliveries in ((0.0, 2), (None, 1)):
        flow, _ = queued([delay(2.0), apply("done"), ack()], detected_after=after)
        history = run_at(flow, [0.0], faults=[Crash(part="broker", at=(0.5,), restart=0.5)])
        assert (column(history, "deliveries"), column(history, "effects")) == ([deliveries], [deliveries])


def test_a_delivery_that_a_closed_connection_ends_counts_among_those_that_are_allowed(run_at) -> None:
    flow, _ = queued([delay(1.0), apply("done"), ack()], detected_after=0.0, max_deliveries=1)
    history = run_at(flow, [0.0], faults=[Crash(part="shop", at=(0.5,), restart=1.0)])
    assert column(history, "outcome") == ["dead_lettered"]


@pytest.mark.parametrize(("park", "outcome"), [(True, "dead_lettered"), (False, "lost")])
def test_after_its_last_delivery_a_message_is_parked_or_dropped(run_at, park: bool, outcome: str) -> None:
    flow, _ = queued([nack()], max_deliveries=4, dead_letter=park)
    history = run_at(flow, [0.0])
    assert (column(history, "deliveries"), column(history, "outcome")) == ([4], [outcome])


def test_poison_is_parked_and_holds_up_nobody(run_at) -> None:
    steps = [rescue([branch(POISONED.equals(1), [fail()]), apply("copied", "copy"), ack()], [nack(delay=0.5)])]
    flow = Flow("poison")
    part = flow.part("broker")
    jobs = part.queue("jobs", max_deliveries=3)
    flow.source("stock_update", at=part, steps=[publish(jobs), respond("ok")])
    flow.consumers(jobs, part, count=1, steps=steps)
    history = run_at(flow, list(np.arange(400.0)), faults=[Poison(kind="stock_update", probability=0.2)])
    outcomes = np.array(column(history, "outcome"))
    parked = outcomes == "dead_lettered"
    assert set(outcomes) == {"applied", "dead_lettered"} and parked.mean() == pytest.approx(0.2, abs=0.07)
    assert (np.array(column(history, "deliveries"))[parked] == 3).all()


@pytest.mark.parametrize(("automatic", "outcomes"), [(True, ["lost", "applied"]), (False, ["applied", "applied"])])
def test_a_crash_loses_what_was_acknowledged_automatically_and_not_what_was_not(
    run_at, automatic: bool, outcomes: list[str]
) -> None:
    flow, _ = queued([delay(1.0), apply("done"), ack()], automatic_ack=automatic, ack_wait=5.0)
    history = run_at(flow, [0.0, 20.0], faults=[Crash(part="shop", at=(0.5,), restart=1.0)])
    assert column(history, "outcome") == outcomes


def test_a_crash_between_effect_and_acknowledgement_doubles_the_effect_unless_the_receiver_remembers(run_at) -> None:
    for remembered, effects in ((False, 2), (True, 1)):
        flow = Flow("window")
        broker, shop = flow.part("broker"), flow.part("shop")
        jobs, seen = broker.queue("jobs", ack_wait=5.0), shop.table("seen", key="message")
        work = [apply("done")]
        flow.source("job", at=broker, steps=[publish(jobs)])
        flow.consumers(jobs, shop, count=1, steps=[
            delay(1.0), *([seen.once(work)] if remembered else work),
            branch(DELIVERY.equals(1), [point("applied")]), ack(),
        ])  # fmt: skip
        history = run_at(flow, [0.0], faults=[Crash(part="shop", point="applied", probability=1.0, restart=1.0)])
        assert column(history, "effects") == [effects]
        assert history.faults["message"].to_pylist() == [0]


@pytest.mark.parametrize(("window", "effects"), [(None, 2), (0.5, 2), (1.0, 1)])
def test_what_is_published_again_within_the_window_is_dropped(run_at, window: float | None, effects: int) -> None:
    flow = Flow("again")
    part = flow.part("broker")
    jobs = part.queue("jobs", deduplicate=window)
    flow.source("job", at=part, steps=[publish(jobs), delay(1.0), publish(jobs)])
    flow.consumers(jobs, part, count=1, steps=[apply("done"), ack()])
    assert column(run_at(flow, [0.0]), "effects") == [effects]


def test_a_consumer_replies_to_whoever_published_with_a_call_waiting(run_at) -> None:
    flow = Flow("reply")
    part = flow.part("broker")
    jobs = part.queue("jobs")
    flow.source("job", at=part, steps=[call([publish(jobs)], timeout=5.0), respond()])
    flow.consumers(jobs, part, count=1, steps=[delay(1.0), apply("done"), reply("ok"), ack()])
    history = run_at(flow, [0.0])
    assert (column(history, "response"), column(history, "responded")) == (["ok"], [1.0])


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_crash_ends_what_is_at_the_part_gives_back_its_units_and_clears_its_memory(run_at, effects_of) -> None:
    flow = Flow("crash")
    shop = flow.part("shop")
    volatile, durable = shop.table("volatile", durable=False), shop.table("durable")
    flow.source("job", at=shop, steps=[shop.cpu.serve(1.0), apply("done")])
    flow.source("write", at=shop, steps=[volatile.add(), durable.add()])
    flow.source("ask", at=shop, steps=[
        volatile.read(), branch(RESULT.equals("ok"), [respond(answer_from="volatile")]),
    ])  # fmt: skip
    flow.source("ask_durable", at=shop, steps=[durable.read(), respond(answer_from="durable")])
    kinds = ["write", "job", "job", "job", "ask", "ask_durable"]
    crash = Crash(part="shop", at=(1.5,), restart=1.0)
    history = run_at(flow, [0.0, 1.0, 1.2, 3.0, 4.0, 4.0], kinds=kinds, faults=[crash])
    assert effects_of(history) == [(3, "done", 4.0)]
    assert column(history, "outcome") == ["failed", "failed", "failed", "applied", "answered", "answered"]
    assert column(history, "version")[4:] == [0, 1]
    assert history.faults.to_pylist() == [{"fault": "crash", "part": "shop", "start": 1.5, "end": 2.5, "message": -1}]


def test_who_comes_to_a_part_that_is_down_is_refused_by_it(run_at) -> None:
    flow = Flow("down")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, Constant(0.1))
    flow.source(
        "call", at=here, steps=[call([link.send(), apply("done"), link.send(), reply("ok")], timeout=9.0), respond()]
    )
    flow.source("enter", at=there, steps=[apply("done"), respond("ok")])
    crash = Crash(part="there", at=(1.0,), restart=2.0)
    history = run_at(flow, [1.5, 1.5, 3.5], kinds=["call", "enter", "call"], faults=[crash])
    assert column(history, "response") == ["failed", "failed", "ok"]
    assert column(history, "responded") == pytest.approx([1.6, 1.5, 3.7])


def test_what_is_down_does_not_crash_again(run_at, effects_of) -> None:
    """Its one consumer starts again once, so two messages are handled one after the other."""
    flow, _ = queued(WORK, prefetch=1)
    history = run_at(flow, [5.0, 5.0], faults=[Crash(part="shop", at=(1.0, 2.0), restart=2.0)])
    assert effects_of(history) == [(0, "done", 6.0), (1, "done", 7.0)]
    assert history.faults.num_rows == 1


def test_a_broker_that_is_down_hands_nothing_out_and_hears_no_acknowledgement(run_at, effects_of) -> None:
    """Down from 1 to 4: the acknowledgement of the first, sent at 1, comes at 1.5 and is lost."""
    flow, _ = queued([delay(0.5), apply("done"), ack()], link=0.5, prefetch=1, ack_wait=2.0)
    history = run_at(flow, [0.0, 0.0], faults=[Crash(part="broker", at=(1.25,), restart=2.75)])
    assert effects_of(history) == [(0, "done", 1.0), (0, "done", 5.0), (1, "done", 6.5)]


def test_slowdowns_of_one_moment_multiply_and_end_each_on_its_own(run_at) -> None:
    flow = Flow("slow")
    shop = flow.part("shop")
    flow.source("job", at=shop, steps=[shop.cpu.serve(1.0), apply("done")])
    faults = [
        Slowdown(part="shop", at=(10.0,), lasts=20.0, factor=2.0),
        Slowdown(part="shop", at=(20.0,), lasts=20.0, factor=3.0),
    ]
    times = [0.0, 11.0, 21.0, 31.0, 41.0]
    history = run_at(flow, times, faults=[*faults, Slowdown(part="shop", at=(99.0,), lasts=1.0, factor=5.0)])
    assert (np.array(column(history, "applied")) - times).tolist() == [1.0, 2.0, 6.0, 3.0, 1.0]
    assert history.faults["start"].to_pylist() == [10.0, 20.0]


# --- sources --------------------------------------------------------------------------------------------------------


def test_a_batch_is_issued_at_once() -> None:
    flow = Flow("batch")
    flow.source("job", interarrival=Constant(1.0), batch=3, steps=[apply("done")])
    assert column(simlib.simulate(flow, 7), "issued") == [1.0] * 3 + [2.0] * 3 + [3.0]


def test_each_customer_waits_for_its_message_and_thinks() -> None:
    flow = Flow("closed")
    server = flow.pool("server")
    flow.source("job", population=2, think=Constant(1.0), steps=[server.serve(1.0), apply("done")])
    history = simlib.simulate(flow, 6)
    assert column(history, "issued") == [1.0, 1.0, 3.0, 4.0, 5.0, 6.0]
    assert column(history, "applied") == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_draw_that_is_no_time_fails_the_run() -> None:
    flow = Flow("overflow")
    flow.source("job", interarrival=Constant(1.0), steps=[delay(Weibull(1e300, 0.01))])
    with pytest.raises(RunFailed, match="finite"):
        simlib.simulate(flow, 200)


def test_a_tenfold_load_is_served_ten_times_as_fast_by_ten_times_the_servers() -> None:
    """Scaling the clock: the same draws, so the same history in other units of time."""

    def history(scale: float):
        flow = Flow("scaled")
        server = flow.pool("server", capacity=2)
        flow.source(
            "job", interarrival=Exponential(scale), steps=[server.serve(Exponential(1.5 * scale)), apply("done")]
        )
        return simlib.simulate(flow, 2_000)

    one, other = history(1.0), history(0.125)
    assert np.allclose(np.array(column(one, "applied")) * 0.125, column(other, "applied"), rtol=1e-12)
