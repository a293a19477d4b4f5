"""Hedged steps: once more beside the first, where that takes long; the first to be over counts, and the other gives up."""

from __future__ import annotations

import math

import numpy as np
import pytest

import simlib
from simlib.distributions import Exponential
from simlib.engines import ENGINES
from simlib.flow import (
    ATTEMPT,
    Backoff,
    Flow,
    Steps,
    apply,
    branch,
    delay,
    fail,
    hedge,
    rescue,
    retry,
    timeout,
)


def lasting(first: float, second: float, then: Steps = ()) -> Steps:
    """A first try of so many seconds and a second of so many, each of which says that it began."""
    return [branch(ATTEMPT.equals(1), [apply("first"), delay(first)], [apply("second"), delay(second)]), *then]


def flow_of(*steps) -> Flow:
    flow = Flow("hedged")
    flow.source("job", steps=[*steps, apply("done")])
    return flow


@pytest.mark.parametrize(("first", "begun", "done"), [
    (0.5, [("first", 0.0)], 0.5),
    (1.0, [("first", 0.0)], 1.0),
    (3.0, [("first", 0.0), ("second", 1.0)], 1.75),
    (1.25, [("first", 0.0), ("second", 1.0)], 1.25),
])  # fmt: skip
def test_a_second_try_begins_where_the_first_takes_longer_and_the_sooner_counts(
    first, begun, done, run_at, effects_of
) -> None:
    happened = effects_of(run_at(flow_of(hedge(1.0, lasting(first, 0.75))), [0.0]))
    assert [(effect, time) for _, effect, time in happened] == [*begun, ("done", done)]


def test_what_the_later_try_holds_is_given_back_when_the_sooner_is_over(run_at, effects_of) -> None:
    """Two units: both are taken until the second try is over at 1.75, and the other job is served from then on."""
    flow = Flow("held")
    pool = flow.pool("pool", capacity=2)
    flow.source("job", steps=[hedge(1.0, [pool.seize(), *lasting(9.0, 0.75), pool.release()]), apply("done")])
    flow.source("other", steps=[pool.serve(1.0), apply("served")])
    happened = effects_of(run_at(flow, [0.0, 1.5], kinds=["job", "other"]))
    assert happened[-2:] == [(0, "done", 1.75), (1, "served", 2.75)]


@pytest.mark.parametrize(("first", "second", "failed"), [(0.5, 9.0, 0.5), (9.0, 0.25, 1.25)])
def test_a_try_that_fails_first_fails_the_hedge(first, second, failed, run_at, effects_of) -> None:
    tried = hedge(1.0, lasting(first, second, [fail()]))
    flow = flow_of(rescue([tried, apply("never")], otherwise=[apply("failed")]))
    assert effects_of(run_at(flow, [0.0]))[-2:] == [(0, "failed", failed), (0, "done", failed)]


def test_both_tries_are_given_up_with_what_stands_around_them(run_at, effects_of) -> None:
    flow = Flow("late")
    pool = flow.pool("pool", capacity=2)
    tried = hedge(1.0, [pool.seize(), delay(9.0), apply("never"), pool.release()])
    flow.source("job", steps=[timeout(2.0, [tried], otherwise=[apply("late")]), pool.serve(1.0), apply("done")])
    assert effects_of(run_at(flow, [0.0])) == [(0, "late", 2.0), (0, "done", 3.0)]


def test_the_tries_of_each_attempt_have_numbers_of_their_own(run_at, effects_of) -> None:
    named = [branch(ATTEMPT.equals(n), [apply(f"try {n}")]) for n in range(1, 5)]
    tried = hedge(1.0, [*named, delay(1.5), fail()])
    flow = flow_of(retry(Backoff(retries=1, base=0.0), [tried]))
    happened = [(effect, time) for _, effect, time in effects_of(run_at(flow, [0.0]))]
    assert happened == [("try 1", 0.0), ("try 2", 1.0), ("try 3", 1.5), ("try 4", 2.5), ("done", 3.0)]


@pytest.mark.parametrize("engine", ENGINES)
def test_exponential_tries_last_as_long_as_theory_says(engine) -> None:
    """X is memoryless: after h both have as much before them, and the sooner of two takes half: E = 1 - exp(-h) / 2."""
    flow, after = Flow("theory"), 0.5
    tried = hedge(after, [delay(Exponential(1.0), stream="x")])
    flow.source("job", interarrival=Exponential(1.0), steps=[tried, apply("done")])
    messages = simlib.simulate(flow, messages=20_000, seed=1, engine=engine).messages
    took = messages["applied"].to_numpy() - messages["issued"].to_numpy()
    half_width = 4 * took.std() / math.sqrt(len(took))
    assert np.mean(took) == pytest.approx(1 - math.exp(-after) / 2, abs=half_width)
