"""What a queue refuses, drops, or hands out before its turn; and queues that are chosen by SKU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import simlib
from simlib.flow import (
    DELIVERY,
    Exponential,
    Field,
    Flow,
    Queue,
    Steps,
    ack,
    apply,
    branch,
    by_sku,
    delay,
    mark,
    nack,
    publish,
    reject,
    rescue,
    respond,
)
from simlib.scenario import Pause


def served(put: Callable[[Queue], Steps] = lambda jobs: [publish(jobs)], work: Steps = (), **options: Any) -> Flow:
    """Jobs in a queue, from which one consumer takes one at a time for a second; messages of `sale` are urgent."""
    flow = Flow("served")
    host = flow.part("host")
    jobs = host.queue("jobs", prefetch=1, **options)
    flow.source("job", at=host, steps=[*put(jobs), respond("ok")])
    flow.source("sale", at=host, steps=[publish(jobs, urgent=True), respond("ok")])
    flow.consumers(jobs, at=host, count=1, steps=work or [delay("1 s"), apply("done"), ack()])
    return flow


def outcomes(history: Any) -> list[str]:
    return history.messages["outcome"].to_pylist()


def test_urgent_deliveries_stand_before_the_others_in_the_order_of_their_publication(run_at, effects_of) -> None:
    made = run_at(served(), [0, 0.1, 0.2, 0.3, 0.4, 0.5], ["job", "job", "job", "sale", "sale", "job"])
    assert [message for message, _, _ in effects_of(made)] == [0, 3, 4, 1, 2, 5]


@pytest.mark.parametrize(("requeue", "order"), [("head", [0, 1, 2, 3, 4]), ("back", [0, 2, 1, 4, 3])])
def test_what_comes_back_stands_among_its_like(run_at, effects_of, requeue, order) -> None:
    """Of 1, which is urgent, and of 3, which is not, the first delivery is refused."""
    done = [apply("done"), ack()]
    refuses = branch(Field("quantity").equals(2), [branch(DELIVERY.at_least(2), done, [nack()])], done)
    made = run_at(
        served(work=[delay("1 s"), refuses], requeue=requeue),
        [0, 0.1, 0.2, 0.3, 0.4], ["sale", "sale", "sale", "job", "job"], quantities=[1, 2, 1, 2, 1],
    )  # fmt: skip
    assert [message for message, _, _ in effects_of(made)] == order


@pytest.mark.parametrize(("parks", "end"), [(True, "dead_lettered"), (False, "lost")])
def test_a_full_queue_drops_the_first_of_those_that_are_ready(run_at, parks, end) -> None:
    """One is in hand and two are ready: the fourth takes the place of the second."""
    made = run_at(served(length=2, dead_letter=parks), [0, 0.1, 0.2, 0.3])
    assert outcomes(made) == ["applied", end, "applied", "applied"]


def test_a_full_queue_that_refuses_fails_the_publication(run_at) -> None:
    refused = served(lambda jobs: [rescue([publish(jobs)], otherwise=[reject()])], length=2, overflow="refuse")
    made = run_at(refused, [0, 0.1, 0.2, 0.3, 1.1])
    assert outcomes(made) == ["applied", "applied", "applied", "rejected", "applied"]


def test_a_refused_publication_is_not_remembered_as_published(run_at) -> None:
    twice = served(
        lambda jobs: [rescue([publish(jobs)], otherwise=[delay("3 s"), publish(jobs)])],
        length=1, overflow="refuse", deduplicate=60.0,
    )  # fmt: skip
    assert outcomes(run_at(twice, [0, 0.1, 0.2])) == ["applied"] * 3


@pytest.mark.parametrize(("parks", "end"), [(True, "dead_lettered"), (False, "expired")])
def test_what_is_not_handed_out_in_its_time_to_live_is_dropped(run_at, effects_of, parks, end) -> None:
    made = run_at(served(ttl=1.5, dead_letter=parks), [0, 0.1, 0.2])
    assert outcomes(made) == ["applied", "applied", end]
    assert made.messages["responded"].to_pylist() == [0, 0.1, 0.2]


def test_what_comes_back_after_its_time_to_live_is_dropped(run_at) -> None:
    work = [delay("1 s"), branch(DELIVERY.at_least(2), [apply("done"), ack()], [nack()])]
    made = run_at(served(work=work, ttl=1.5, dead_letter=False), [0, 0.6])
    assert outcomes(made) == ["applied", "expired"], (
        "the first comes back at 1 and is handed out again, the second at 3"
    )


def test_a_paused_broker_drops_late(run_at) -> None:
    """The second message is ready from 0.1 on, and would be dropped at 0.6."""
    made = run_at(served(ttl=0.5, dead_letter=False), [0, 0.1], faults=[Pause(part="host", at=(0.3,), lasts=0.5)])
    parts = made.parts.to_pandas()
    assert outcomes(made)[1] == "expired" and parts.loc[parts["name"] == "jobs", "waiting"].sum() == pytest.approx(0.7)


def test_by_sku_takes_one_branch_for_all_messages_of_a_sku(run_at, effects_of) -> None:
    flow = Flow("hashed")
    flow.source("job", steps=[by_sku([apply("even")], [delay("1 s"), apply("odd")])])
    made = run_at(flow, [0, 1, 2, 3], skus=[0, 1, 2, 1])
    assert sorted(effects_of(made)) == [(0, "even", 0), (1, "odd", 2), (2, "even", 2), (3, "odd", 4)]


# --- by theory --------------------------------------------------------------------------------------------------------


def mm1(rates: dict[str, float], **options: Any) -> Flow:
    """Jobs of rate 1 at one consumer, who takes one at a time; those of kind `urgent` go first."""
    flow = Flow("mm1")
    host = flow.part("host")
    jobs = host.queue("jobs", prefetch=1, **options)
    flow.consumers(jobs, at=host, count=1, steps=[mark("begun"), delay(Exponential(1.0)), apply("done"), ack()])
    for kind, rate in rates.items():
        put = rescue([publish(jobs, urgent=kind == "urgent")], otherwise=[reject()])
        flow.source(kind, at=host, interarrival=Exponential(1 / rate), steps=[put])
    return flow


def test_urgent_deliveries_wait_as_long_as_cobham_says() -> None:
    """Non-preemptive priorities (Cobham, Operations Research 2, 1954): W1 = R / (1 − ρ1), W2 = W1 / (1 − ρ), R = λ E[S²] / 2."""
    messages = simlib.simulate(mm1({"urgent": 0.3, "plain": 0.5}), 60_000, seed=1).messages.to_pandas()
    waits = (messages["mark.begun"] - messages["issued"]).groupby(messages["kind"].astype(str)).mean()
    assert waits["urgent"] == pytest.approx(0.8 / 0.7, rel=0.05)
    assert waits["plain"] == pytest.approx(0.8 / 0.7 / 0.2, rel=0.12)


@pytest.mark.parametrize("overflow", ["refuse", "drop"])
def test_a_limited_queue_loses_as_many_as_an_mm1k(overflow) -> None:
    """K = 1 in hand and 4 that wait: (1 − ρ) ρ^K / (1 − ρ^(K+1)) are lost, whether the new one is or the oldest."""
    flow = mm1({"plain": 0.9}, length=4, overflow=overflow)
    outcomes = simlib.simulate(flow, 40_000, seed=1).messages.to_pandas()["outcome"]
    lost = 0.1 * 0.9**5 / (1 - 0.9**6)
    assert (outcomes != "applied").mean() == pytest.approx(lost, rel=0.05)


def test_what_expires_is_as_much_as_patience_of_one_length_gives_up() -> None:
    """M/M/1 with patience of constant length τ (Barrer, ordered service, Operations Research 5, 1957): ρ (1 − ρ) d / (1 − ρ² d)
    give up, where d = exp(−τ (1 − ρ)); here ρ = 0.8, τ = 2 services."""
    outcomes = simlib.simulate(mm1({"plain": 0.8}, ttl=2.0), 40_000, seed=1).messages.to_pandas()["outcome"]
    decay = math.exp(-2.0 * 0.2)
    lost = 0.8 * 0.2 * decay / (1 - 0.8**2 * decay)
    assert (outcomes != "applied").mean() == pytest.approx(lost, rel=0.05)
