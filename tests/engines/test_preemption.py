"""A preemptive pool: who displaces whom when, and with what is left of a service, counted by hand."""

from __future__ import annotations

import pytest

from simlib.flow import Flow, Steps, apply, mark, reject, rescue, timeout
from simlib.flow.model import Pool
from simlib.scenario import Crash, Pause, Slowdown

SERVICES = {"urgent": (1.0, 0), "usual": (2.0, 1), "idle": (4.0, 2)}


def serving(queue_limit: int | None = None) -> tuple[Flow, Pool]:
    """A flow with a source for each service, whose time and priority are above; the idle ones come from another part."""
    flow = Flow("preemptive")
    one, other = flow.part("one"), flow.part("other")
    server = flow.pool("server", discipline="preemptive", queue_limit=queue_limit)
    for kind, (time, priority) in SERVICES.items():
        steps: Steps = [server.serve(time, priority=priority), apply("done")]
        flow.source(
            kind, steps if queue_limit is None else [rescue(steps, [reject()])], at=other if kind == "idle" else one
        )
    return flow, server


COUNTED = {
    "the work goes on where it stood": ({"idle": [0.0], "urgent": [1.0, 3.0]}, {"idle": [6.0], "urgent": [2.0, 4.0]}),
    "who displaced is displaced": (
        {"idle": [0.0], "usual": [1.0], "urgent": [2.0]}, {"urgent": [3.0], "usual": [4.0], "idle": [7.0]},
    ),
    "nobody displaces his like": ({"usual": [0.0, 1.0]}, {"usual": [2.0, 4.0]}),
    "the displaced are the first of their priority, not of all": (
        {"idle": [0.0, 0.5], "urgent": [1.0], "usual": [1.5]}, {"urgent": [2.0], "usual": [4.0], "idle": [7.0, 11.0]},
    ),
    "who is done as another comes is done": ({"usual": [0.0], "urgent": [2.0]}, {"usual": [2.0], "urgent": [3.0]}),
    "who begins as another comes is displaced": (
        {"urgent": [0.0, 1.0], "usual": [0.5]}, {"urgent": [1.0, 2.0], "usual": [4.0]},
    ),
}  # fmt: skip
"""When who comes, and when who is done."""


@pytest.mark.parametrize(("comes", "done"), COUNTED.values(), ids=COUNTED)
def test_who_is_done_when(comes: dict[str, list[float]], done: dict[str, list[float]], run_at) -> None:
    flow, _ = serving()
    assert applied(flow, comes, run_at) == done


def applied(flow: Flow, comes: dict[str, list[float]], run_at, faults=()) -> dict[str, list[float]]:
    """When the messages of each kind were done."""
    times = sorted((time, kind) for kind, each in comes.items() for time in each)
    history = run_at(flow, [time for time, _ in times], kinds=[kind for _, kind in times], faults=faults)
    messages = history.messages.to_pandas().dropna(subset="applied")
    return {kind: sorted(messages["applied"][messages["kind"] == kind]) for kind in messages["kind"].unique()}


STRUCK = {
    "the pause of the displaced stops nobody else, and lasts it longer": (
        Pause(part="other", at=(1.0,), lasts=3.0), {"urgent": [2.0, 3.0], "idle": [7.0]},
    ),
    "a pause of who displaces lasts until it is over": (
        Pause(part="one", at=(1.5,), lasts=2.0), {"urgent": [4.0, 5.0], "idle": [8.0]},
    ),
    "a crash gives back nothing of what the displaced waits for": (
        Crash(part="other", at=(1.5,), restart=1.0), {"urgent": [2.0, 3.0]},
    ),
    "a crash of who displaces gives the unit back": (
        Crash(part="one", at=(1.25,), restart=0.5), {"urgent": [3.0], "idle": [5.25]},
    ),
    "a slowdown counts where the service begins": (
        Slowdown(part="other", at=(0.5,), lasts=9.0, factor=2.0), {"urgent": [2.0, 3.0], "idle": [6.0]},
    ),
}  # fmt: skip
"""What strikes two of the urgent, who come at 1 and 2, and one who idles since 0; and who is done when."""


@pytest.mark.parametrize(("fault", "done"), STRUCK.values(), ids=STRUCK)
def test_who_is_done_when_a_fault_strikes(
    fault: Crash | Pause | Slowdown, done: dict[str, list[float]], run_at
) -> None:
    flow, _ = serving()
    assert applied(flow, {"idle": [0.0], "urgent": [1.0, 2.0]}, run_at, faults=[fault]) == done


def test_who_displaces_is_not_refused_and_who_is_displaced_counts_as_waiting(run_at) -> None:
    flow, _ = serving(queue_limit=0)
    history = run_at(flow, [0.0, 1.0, 1.5], kinds=["idle", "urgent", "usual"])
    assert history.messages["outcome"].to_pylist() == ["applied", "applied", "rejected"]


def test_the_displaced_may_tire_of_waiting(run_at) -> None:
    flow, server = serving()
    flow.source("patient", [timeout(3.0, [server.serve(2.0, priority=1), apply("done")], [mark("left"), reject()])])
    history = run_at(flow, [0.0, 1.0, 1.25, 2.5], kinds=["patient", "urgent", "urgent", "urgent"])
    assert history.messages["mark.left"].to_pylist()[0] == 3.0
    assert history.messages["applied"].to_pylist()[1:] == [2.0, 3.0, 4.0]


def test_a_meter_sees_one_unit_and_who_waits_for_it(run_at) -> None:
    """Busy from 0 to 6; the idle one waits from 1 to 2 and from 3 to 4."""
    flow, _ = serving()
    history = run_at(flow, [0.0, 1.0, 3.0], kinds=["idle", "urgent", "urgent"])
    meter = history.parts.to_pandas().query("name == 'server'")
    assert meter[["busy", "waiting"]].sum().to_list() == pytest.approx([6.0, 2.0])
    assert (meter["waiting_max"].max(), meter["completed"].sum()) == (1, 3)
