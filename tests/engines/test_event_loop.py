"""An event loop: who is served in which iteration, who keeps it, and when output leaves, counted by hand."""

from __future__ import annotations

import pytest

from simlib.flow import Flow, Steps, apply, delay, mark
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


SENT = {
    "alone at once": ([0.0], [1.0]),
    "who waited when the iteration began leaves with the others of it": ([0.0, 0.25, 0.5], [1.0, 3.0, 3.0]),
    "who came meanwhile leaves with the next": ([0.0, 0.25, 0.5, 1.5], [1.0, 3.0, 3.0, 4.0]),
    "a loop that was idle begins anew": ([0.0, 5.0], [1.0, 6.0]),
}
"""When messages come that each take 1 s, and when what they send leaves."""


@pytest.mark.parametrize(("comes", "leaves"), SENT.values(), ids=SENT)
def test_output_leaves_when_the_iteration_is_over(comes: list[float], leaves: list[float], run_at) -> None:
    flow = loops(lambda cpu: {"message": [cpu.serve(1.0), mark("served"), cpu.output()]})
    history = run_at(flow, comes)
    assert told(history) == leaves
    served = told(history, "mark.served")
    assert served == sorted(served) and len(set(served)) == len(served), "one at a time, in order"


GOES_ON: dict[str, tuple[Steps, list[float]]] = {
    "who goes on at once keeps the loop": ([], [2.0, 4.0]),
    "who waits meanwhile stands behind": ([delay(0.0)], [3.0, 4.0]),
    "who waits for longer, too": ([delay(0.5)], [3.0, 4.0]),
}
"""What a message does between two services of 1 s, while another comes at 0.5; when both are done."""


@pytest.mark.parametrize(("between", "done"), GOES_ON.values(), ids=GOES_ON)
def test_a_row_keeps_the_loop_until_it_waits(between: Steps, done: list[float], run_at) -> None:
    flow = loops(lambda cpu: {"message": [cpu.serve(1.0), *between, cpu.serve(1.0)]})
    assert told(run_at(flow, [0.0, 0.5])) == done


def test_a_unit_of_another_pool_that_is_free_is_no_wait(run_at) -> None:
    def steps(cpu):
        core = cpu.at.flow.pool("core")
        return {"message": [cpu.serve(1.0), core.seize(), cpu.serve(1.0), core.release()]}

    assert told(run_at(loops(steps), [0.0, 0.5])) == [2.0, 4.0]


def test_a_crash_ends_the_iteration(run_at) -> None:
    """Of three rows the first is being served when the part dies; after it is up, the loop is free."""
    flow = loops(lambda cpu: {"message": [cpu.serve(1.0), cpu.output()]})
    crash = Crash(part="part", at=(0.75,), restart=0.25)
    history = run_at(flow, [0.0, 0.25, 0.5, 2.0], faults=[crash])
    assert history.messages["outcome"].to_pylist()[:3] == ["failed"] * 3
    assert told(history)[3] == 3.0


def test_how_busy_a_loop_is_counts_what_it_serves(run_at) -> None:
    """Two services of a second each, one after the other without a wait, of the four until the next message."""
    history = run_at(loops(lambda cpu: {"message": [cpu.serve(1.0), cpu.serve(1.0)]}), [0.0, 4.0])
    assert measure(history)["utilisation.part.cpu"] == pytest.approx(0.5)
