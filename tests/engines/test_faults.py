"""What each fault leaves of a message at each place where it can be: stated by hand, to the second."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from simlib.distributions import Quantiles
from simlib.errors import BadInput, RunFailed
from simlib.flow import Flow
from simlib.flow.blocks import ack, apply, call, delay, point, publish, reply, respond, timeout
from simlib.scenario import (
    Crash,
    Outage,
    Partition,
    Pause,
    PowerLoss,
    Scenario,
    Slowdown,
    load_scenario,
)

LASTS = 2.0
AT_THERE: dict[str, Any] = {
    "crash": lambda at, part, lasts: Crash(part=part, at=(at,), restart=lasts),
    "power loss": lambda at, part, lasts: PowerLoss(part=part, at=(at,), restart=lasts),
    "outage, refuse": lambda at, part, lasts: Outage(part=part, at=(at,), lasts=lasts),
    "outage, block": lambda at, part, lasts: Outage(part=part, at=(at,), lasts=lasts, mode="block"),
    "slowdown": lambda at, part, lasts: Slowdown(part=part, at=(at,), lasts=lasts, factor=2.0),
    "pause": lambda at, part, lasts: Pause(part=part, at=(at,), lasts=lasts),
    "partition": lambda at, part, lasts: Partition(link="here-there", at=(at,), lasts=lasts),
    "partition, to there": lambda at, part, lasts: Partition(
        link="here-there", direction="here", at=(at,), lasts=lasts
    ),
    "partition, from there": lambda at, part, lasts: Partition(
        link="here-there", direction="there", at=(at,), lasts=lasts
    ),
}
"""Each fault at a time: of a part, or of the link to it."""


def caller() -> Flow:
    """A call that travels 1 s each way and is served for 2 s by one unit; its caller waits for 10 s."""
    flow = Flow("caller")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, 1.0)
    steps = [link.send(), there.cpu.serve(2.0), apply("done"), link.send(), reply("ok")]
    flow.source("job", at=here, steps=[call(steps, timeout=10.0), respond()])
    return flow


CALLS = {
    # in transit to there, from 0 to 1 s: struck at 0.5
    ("in transit", "crash"): ([], 1.0, "failed"),
    ("in transit", "power loss"): ([], 1.0, "failed"),
    ("in transit", "outage, refuse"): ([], 1.0, "failed"),
    ("in transit", "outage, block"): ([4.5], 5.5, "ok"),
    ("in transit", "slowdown"): ([5.0], 6.0, "ok"),
    ("in transit", "pause"): ([4.5], 5.5, "ok"),
    ("in transit", "partition"): ([3.0], 4.0, "ok"),
    ("in transit", "partition, to there"): ([3.0], 4.0, "ok"),
    ("in transit", "partition, from there"): ([3.0], 4.0, "ok"),
    # served from 1 to 3 s: struck at 2
    ("holding", "crash"): ([], 10.0, "timed_out"),
    ("holding", "power loss"): ([], 10.0, "timed_out"),
    ("holding", "outage, refuse"): ([3.0], 4.0, "ok"),
    ("holding", "outage, block"): ([3.0], 4.0, "ok"),
    ("holding", "slowdown"): ([3.0], 4.0, "ok"),
    ("holding", "pause"): ([5.0], 6.0, "ok"),
    ("holding", "partition"): ([3.0], 10.0, "timed_out"),
    ("holding", "partition, to there"): ([3.0], 4.0, "ok"),
    ("holding", "partition, from there"): ([3.0], 10.0, "timed_out"),
    # waiting from 1 to 3 s behind another, then served: struck at 2
    ("queued", "crash"): ([], 10.0, "timed_out"),
    ("queued", "power loss"): ([], 10.0, "timed_out"),
    ("queued", "outage, refuse"): ([5.0], 6.0, "ok"),
    ("queued", "outage, block"): ([5.0], 6.0, "ok"),
    ("queued", "slowdown"): ([7.0], 8.0, "ok"),
    ("queued", "pause"): ([7.0], 8.0, "ok"),
    ("queued", "partition"): ([5.0], 6.0, "ok"),
    ("queued", "partition, to there"): ([5.0], 6.0, "ok"),
    ("queued", "partition, from there"): ([5.0], 6.0, "ok"),
    # sent when the fault is there already: struck at 0, by what is at the same instant before it
    ("sent", "crash"): ([], 1.0, "failed"),
    ("sent", "power loss"): ([], 1.0, "failed"),
    ("sent", "outage, refuse"): ([], 1.0, "failed"),
    ("sent", "outage, block"): ([4.0], 5.0, "ok"),
    ("sent", "slowdown"): ([5.0], 6.0, "ok"),
    ("sent", "pause"): ([4.0], 5.0, "ok"),
    ("sent", "partition"): ([], 10.0, "timed_out"),
    ("sent", "partition, to there"): ([], 10.0, "timed_out"),
    ("sent", "partition, from there"): ([3.0], 4.0, "ok"),
}
"""Place and fault: when the effect happens, when the caller has its answer, and which."""
STRUCK = {"in transit": 0.5, "holding": 2.0, "queued": 2.0, "sent": 0.0}


@pytest.mark.parametrize(("place", "fault"), CALLS, ids=" - ".join)
def test_what_a_fault_leaves_of_a_call(place, fault, run_at, effects_of) -> None:
    effects, responded, response = CALLS[place, fault]
    times = [0.0, 0.0] if place == "queued" else [0.0]
    history = run_at(caller(), times, faults=[AT_THERE[fault](STRUCK[place], "there", LASTS)])
    last = history.messages.to_pylist()[-1]
    assert [time for message, _, time in effects_of(history) if message == last["message"]] == effects
    assert (last["responded"], last["response"]) == (responded, response)
    assert last["outcome"] == ("applied" if effects else "failed")


def consumer(**options: Any) -> Flow:
    """Deliveries travel 1 s from here, are handled there for 2 s, applied, acknowledged half a second later, by one consumer
    of prefetch 1; what is not acknowledged within 20 s comes again."""
    flow = Flow("consumer")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, 1.0)
    queue = here.queue("queue", link=link, prefetch=1, ack_wait=20.0, **options)
    flow.source("job", at=here, steps=[publish(queue), respond("ok")])
    flow.consumers(queue, there, 1, [there.cpu.serve(2.0), apply("done"), delay(0.5), ack()])
    return flow


DELIVERIES = {
    # on its way to the consumer from 0 to 1 s: struck at 0.5
    ("in transit", "crash"): ([23.0], 2),
    ("in transit", "power loss"): ([23.0], 2),
    ("in transit", "outage, refuse"): ([4.5], 1),
    ("in transit", "outage, block"): ([4.5], 1),
    ("in transit", "slowdown"): ([5.0], 1),
    ("in transit", "pause"): ([4.5], 1),
    ("in transit", "partition"): ([3.0], 1),
    ("in transit", "partition, to there"): ([3.0], 1),
    ("in transit", "partition, from there"): ([3.0], 1),
    # handled from 1 to 3 s: struck at 2
    ("unacknowledged", "crash"): ([23.0], 2),
    ("unacknowledged", "power loss"): ([23.0], 2),
    ("unacknowledged", "outage, refuse"): ([3.0], 1),
    ("unacknowledged", "outage, block"): ([3.0], 1),
    ("unacknowledged", "slowdown"): ([3.0], 1),
    ("unacknowledged", "pause"): ([5.0], 1),
    ("unacknowledged", "partition"): ([3.0, 23.0], 2),
    ("unacknowledged", "partition, to there"): ([3.0], 1),
    ("unacknowledged", "partition, from there"): ([3.0, 23.0], 2),
    # applied at 3, acknowledged at 3.5 s: struck at 3.25
    ("applied", "crash"): ([3.0, 23.0], 2),
    ("applied", "power loss"): ([3.0, 23.0], 2),
    ("applied", "outage, refuse"): ([3.0], 1),
    ("applied", "outage, block"): ([3.0], 1),
    ("applied", "slowdown"): ([3.0], 1),
    ("applied", "pause"): ([3.0], 1),
    ("applied", "partition"): ([3.0, 23.0], 2),
    ("applied", "partition, to there"): ([3.0], 1),
    ("applied", "partition, from there"): ([3.0, 23.0], 2),
}
"""Place and fault of the consumer: when the effects happen, and how many deliveries there are."""
BROKEN = {"in transit": 0.5, "unacknowledged": 2.0, "applied": 3.25}


@pytest.mark.parametrize(("place", "fault"), DELIVERIES, ids=" - ".join)
def test_what_a_fault_of_the_consumer_leaves_of_a_delivery(place, fault, run_at, effects_of) -> None:
    effects, deliveries = DELIVERIES[place, fault]
    history = run_at(consumer(), [0.0], faults=[AT_THERE[fault](BROKEN[place], "there", LASTS)])
    assert [time for _, _, time in effects_of(history)] == effects
    assert history.messages.to_pylist()[0] | {
        "deliveries": deliveries, "duplicates": len(effects) - 1, "outcome": "applied"
    } == history.messages.to_pylist()[0]  # fmt: skip


READY = {
    # the acknowledgement of the first comes at 4.5 s, with the broker struck from 3 to 5
    "crash": ([3.0, 23.0], [27.5]),
    "power loss": ([3.0, 23.0], [27.5]),
    "outage, refuse": ([3.0], [8.0]),
    "outage, block": ([3.0], [8.0]),
    "slowdown": ([3.0], [7.5]),
    "pause": ([3.0], [8.0]),
}
"""Fault of the broker, while one message is handled and the next is ready: when the effects of each happen."""


@pytest.mark.parametrize("fault", READY)
def test_what_a_fault_of_the_broker_leaves_of_its_queue(fault, run_at, effects_of) -> None:
    history = run_at(consumer(), [0.0, 0.0], faults=[AT_THERE[fault](3.0, "here", LASTS)])
    done = effects_of(history)
    assert tuple([time for message, _, time in done if message == which] for which in (0, 1)) == READY[fault]


@pytest.mark.parametrize("fault", ["crash", "power loss"])
def test_only_a_power_loss_loses_what_was_not_flushed(fault, run_at, effects_of) -> None:
    """Flushed every 2.5 s: at 3 s the first and second are on disk, the third, published at 2.75 s, is not."""
    history = run_at(consumer(flush_every=2.5), [0.0, 1.0, 2.75], faults=[AT_THERE[fault](3.0, "here", LASTS)])
    assert {message for message, _, _ in effects_of(history)} == ({0, 1} if fault == "power loss" else {0, 1, 2})
    outcomes = history.messages["outcome"].to_pylist()
    assert outcomes == ["applied", "applied", "lost" if fault == "power loss" else "applied"]


def test_a_published_message_that_power_loss_took_is_not_known_any_more(run_at, effects_of) -> None:
    """The broker drops a second publication within 60 s, but for what it lost."""
    flow = Flow("again")
    here, there = flow.part("here"), flow.part("there")
    queue = here.queue("queue", deduplicate=60.0, flush_every=100.0)
    flow.source("job", steps=[publish(queue), delay(5.0), publish(queue)])
    flow.consumers(queue, there, 1, [delay(4.0), apply("done"), ack()])
    history = run_at(flow, [0.5], faults=[PowerLoss(part="here", at=(1.0,), restart=1.0)])
    assert effects_of(history) == [(0, "done", 4.5), (0, "done", 9.5)]


def settling(**options: Any) -> Flow:
    """Published at once, handled for 0.25 s by one consumer elsewhere, who acknowledges at once."""
    flow = Flow("settling")
    here, there = flow.part("here"), flow.part("there")
    queue = here.queue("queue", **options)
    flow.source("job", steps=[publish(queue)])
    flow.consumers(queue, there, 1, [delay(0.25), apply("done"), ack()])
    return flow


SETTLED = {
    # handed out at 0 (and written at once), settled at 0.25: not written before 2
    1.5: [(0, 0.25), (0, 2.25)],
    # written at 2: the first is done for good
    2.5: [(0, 0.25)],
}


@pytest.mark.parametrize("at", SETTLED)
@pytest.mark.parametrize("fault", ["crash", "power loss"])
def test_a_queue_that_dies_forgets_what_was_settled_since_it_wrote_its_state(fault, at, run_at, effects_of) -> None:
    """It writes every 2 s at most; it is down for half a second."""
    faults = [AT_THERE[fault](at, "here", 0.5)]
    history = run_at(settling(state_every=2.0), [0.0, 10.0], faults=faults)
    done = [(message, time) for message, _, time in effects_of(history)]
    assert done == [*SETTLED[at], (1, 10.25)]
    assert history.messages["duplicates"].to_pylist() == [len(SETTLED[at]) - 1, 0]
    steady = run_at(settling(), [0.0, 10.0], faults=faults)
    assert [time for _, _, time in effects_of(steady)] == [0.25, 10.25]


def test_what_a_queue_wrote_before_it_died_is_known_when_it_dies_again(run_at, effects_of) -> None:
    faults = [AT_THERE["crash"](at, "here", 0.5) for at in (5.0, 6.0)]
    done = [time for _, _, time in effects_of(run_at(settling(state_every=2.0), [0.0], faults=faults))]
    assert done == [0.25]


def test_what_a_queue_forgot_comes_again_in_its_order_and_before_the_rest(run_at, effects_of) -> None:
    """Four published at 0, one at a time; the broker dies at 0.6, when two were done, and hears that the third is at 0.75."""
    history = run_at(settling(state_every=2.0, prefetch=1), [0.0] * 4, faults=[AT_THERE["crash"](0.6, "here", 0.4)])
    done = [(message, time) for message, _, time in effects_of(history)]
    assert done == [(0, 0.25), (1, 0.5), (2, 0.75), (0, 1.25), (1, 1.5), (3, 1.75)]


@pytest.mark.parametrize(("prefetch", "first"), [(3, [0, 1, 2]), (None, [0, 1, 2, 3])])
def test_consumers_that_begin_again_are_filled_one_after_the_other(prefetch, first, run_at, effects_of) -> None:
    """Four were published while the two consumers were down, who then take a second for each."""
    flow = Flow("filled")
    here, there = flow.part("here"), flow.part("there")
    queue = here.queue("queue", prefetch=prefetch)
    flow.source("job", steps=[publish(queue)])
    flow.consumers(queue, there, 2, [delay(1.0), apply("done"), ack()])
    history = run_at(flow, [0.5, 0.5, 0.5, 0.5], faults=[AT_THERE["crash"](0.25, "there", 0.75)])
    done = sorted((time, message) for message, _, time in effects_of(history))
    one_after_the_other = [(2.0 + k, message) for k, message in enumerate(first)]
    beside = [(2.0 + k, message) for k, message in enumerate({0, 1, 2, 3} - set(first))]
    assert done == sorted(one_after_the_other + beside)


@pytest.mark.parametrize("fault", ["outage, refuse", "outage, block", "slowdown", "pause", "partition"])
def test_a_fault_of_no_length_changes_nothing(fault, run_at, differences) -> None:
    times = [0.0, 0.0, 1.0, 2.0]
    for flow in (caller, consumer):
        undisturbed = run_at(flow(), times)
        assert differences(undisturbed, run_at(flow(), times, faults=[AT_THERE[fault](1.0, "there", 0.0)])) == []


def test_faults_of_one_moment_add_up(run_at, effects_of) -> None:
    """Struck at 2 s of a service from 1 to 3 by two pauses, the longer of which counts, and again while it lasts."""
    pauses = [Pause(part="there", at=(2.0, 4.0), lasts=3.0), Pause(part="there", at=(2.0,), lasts=1.0)]
    assert [time for *_, time in effects_of(run_at(caller(), [0.0], faults=pauses))] == [8.0]


def test_a_timer_of_a_part_that_stands_still_is_late(run_at, effects_of) -> None:
    """Due at 2 s, in a pause from 1 to 4; what is done within it at the same time is in time."""
    flow = Flow("late")
    here = flow.part("here")
    flow.source("job", at=here, steps=[timeout(2.0, [delay(9.0), apply("in time")], [apply("late")])])
    flow.source("short", at=here, steps=[timeout(2.0, [delay(3.0), apply("in time")], [apply("late")])])
    pause = Pause(part="here", at=(1.0,), lasts=3.0)
    history = run_at(flow, [0.0, 0.0], kinds=["job", "short"], faults=[pause])
    assert effects_of(history) == [(1, "in time", 4.0), (0, "late", 4.0)]


def test_renewal_counts_from_the_end_of_a_fault_to_the_next(run_at) -> None:
    flow = caller()
    fault = Outage(part="there", every=3.0, lasts=2.0)
    history = run_at(flow, [0.0, 20.0], faults=[fault])
    rows = history.faults.to_pylist()
    assert [(row["fault"], row["part"], row["start"], row["end"]) for row in rows[:3]] == [
        ("outage", "there", 3.0, 5.0), ("outage", "there", 8.0, 10.0), ("outage", "there", 13.0, 15.0)
    ]  # fmt: skip


def test_renewals_are_those_of_the_seed_in_every_flow(run_at) -> None:
    fault = Slowdown(part="there", every="exponential(5 s)", lasts="exponential(1 s)", factor=2.0)
    struck = [
        run_at(flow(), [0.0, 200.0], faults=[fault], seed=7).faults.to_pylist()[:20] for flow in (caller, consumer)
    ]
    assert struck[0] == struck[1]
    assert run_at(caller(), [0.0, 200.0], faults=[fault], seed=8).faults.to_pylist()[:20] != struck[0]


def test_a_pause_at_a_point_holds_who_passes_it(run_at, effects_of) -> None:
    flow = Flow("point")
    here = flow.part("here")
    flow.source("job", at=here, steps=[delay(1.0), point("between"), apply("done")])
    pause = Pause(part="here", point="between", probability=1.0, lasts=2.0)
    assert effects_of(run_at(flow, [0.0], faults=[pause])) == [(0, "done", 3.0)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"fault": "crash", "part": "shop"}, "give one of them"),
        ({"fault": "crash", "part": "shop", "at": [1], "every": 5}, "give one of them"),
        ({"fault": "pause", "part": "shop", "at": [2, 1], "lasts": 1}, "must ascend"),
        ({"fault": "pause", "part": "shop", "at": [1]}, "lasts"),
        ({"fault": "pause", "part": "shop", "at": [-1], "lasts": 1}, "at"),
        ({"fault": "outage", "part": "shop", "at": [1], "lasts": 1, "mode": "slow"}, "refuse"),
        ({"fault": "partition", "link": "network", "every": 0, "lasts": 1}, "must be above 0"),
        ({"fault": "crash", "part": "shop", "point": "here"}, "go together"),
        ({"fault": "crash", "part": "shop", "at": [1], "probability": 0.5}, "go together"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_in_one_line(fault, says, tmp_path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(json.dumps({"arrivals": {"process": "poisson", "rate": 10}, "faults": [fault]}))
    with pytest.raises(BadInput, match=says) as error:
        load_scenario(str(file))
    assert "\n" not in str(error.value)


def test_streams_of_equal_faults_differ() -> None:
    twice = (Pause(part="shop", every="exponential(1)", lasts=1), Pause(part="shop", every="exponential(1)", lasts=1))
    scenario = Scenario.model_validate({"name": "x", "arrivals": {"process": "poisson", "rate": 1}, "faults": twice})
    assert list(scenario.strikes) == ["fault.pause.shop", "fault.pause.shop.1"]
    assert math.isfinite(scenario.rate)


# --- at one instant -------------------------------------------------------------------------------------------------


def test_a_crash_at_the_instant_of_completion_comes_first(run_at, effects_of) -> None:
    """Served from 1 to 3 s: struck at 3."""
    history = run_at(caller(), [0.0], faults=[Crash(part="there", at=(3.0,), restart=1.0)])
    assert effects_of(history) == []
    assert history.messages["responded"].to_pylist() == [10.0]


def test_who_died_in_line_is_not_served_and_who_died_in_service_makes_room_at_once(run_at, effects_of) -> None:
    """One unit, wanted by three: here, which dies at 1 s in service; here too, in line; and there, in line behind both."""
    flow = Flow("shared")
    here, there, unit = flow.part("here"), flow.part("there"), flow.pool("unit")
    for name, part in (("here", here), ("there", there)):
        flow.source(name, at=part, steps=[unit.serve(2.0), apply("done")])
    crash = Crash(part="here", at=(1.0,), restart=5.0)
    history = run_at(flow, [0.0, 0.0, 0.0], kinds=["here", "here", "there"], faults=[crash])
    assert effects_of(history) == [(2, "done", 3.0)]


@pytest.mark.parametrize("first", ["crash", "pause"])
def test_of_two_faults_at_one_instant_a_crash_leaves_the_other_nothing(first, run_at, effects_of) -> None:
    faults = [Crash(part="there", at=(2.0,), restart=1.0), Pause(part="there", at=(2.0,), lasts=3.0)]
    history = run_at(caller(), [0.0, 3.5], faults=faults if first == "crash" else faults[::-1])
    assert effects_of(history) == [(1, "done", 7.0)]  # comes at 4.5, is let in at 5
    assert set(history.faults["fault"].to_pylist()) == {"crash", "pause"}


def test_one_time_among_ten_thousand_that_is_none_ends_the_run_where_it_is_drawn(run_at) -> None:
    class Broken(Quantiles):
        def law(self) -> Any:
            *law, table = super().law()
            table[-1] = math.nan  # the last ten-thousandth
            return (*law, table)

    flow = Flow("broken")
    here = flow.part("here")
    times = Broken(values=tuple(np.linspace(0.0, 0.5, 10_001)))
    flow.source("job", at=here, steps=[here.cpu.serve(times), apply("done")])
    with pytest.raises(RunFailed, match=r"'job.here.cpu.serve' drew nan for message \d+: a time must be finite"):
        run_at(flow, list(np.arange(100_000.0)))
