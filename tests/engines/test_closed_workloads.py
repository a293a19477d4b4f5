"""A workload of which always as many messages are under way: each customer issues the next when the last is over."""

from __future__ import annotations

import numpy as np
import pytest

from simlib import api, architectures
from simlib.distributions import Exponential
from simlib.domain import KINDS
from simlib.engines import ENGINES
from simlib.flow import Flow, Steps, ack, apply, delay, publish
from simlib.metrics import middle_rate
from simlib.scenario import Crash, Mix, load_scenario

UPDATES = load_scenario("steady").model_copy(update={"mix": Mix(stock_update=1, order=0, stock_query=0)})


@pytest.mark.parametrize("name", architectures.names())
def test_no_more_are_under_way_than_there_are_customers(name):
    """The first begin at once, and the n-th of the others not before n messages were complete."""
    population, messages = 16, 300
    case = api.case(name, "steady", messages=messages)
    history = case.run(1, case.scenario.draw(1, messages).closed(population))
    table = history.messages
    issued, responded, applied = (table[column].to_numpy() for column in ("issued", "responded", "applied"))
    assert (issued[:population] == 0).all() and (np.diff(issued) >= 0).all()
    complete = np.sort(np.fmax(responded, applied))
    assert (issued[population:] >= complete[: messages - population]).all()
    assert history.check().ok


def forgetful(flow: Flow) -> Steps:
    """A broker that writes down every 2 s what was settled."""
    here, there = flow.part("dies"), flow.part("reader")
    queue = here.queue("queue", state_every=2.0)
    flow.consumers(queue, there, 1, [delay(0.25), apply("done"), ack()])
    return [publish(queue)]


def uncommitted(flow: Flow) -> Steps:
    """A reader who commits every 2 s what it acknowledged."""
    here, there = flow.part("broker"), flow.part("dies")
    log = here.log("log")
    flow.consumers(*log.group("group", commit_every=2.0), there, 1, [delay(0.25), apply("done"), ack()])
    return [publish(log)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kept", [forgetful, uncommitted])
def test_a_customer_goes_on_when_an_order_is_settled_and_not_when_what_came_again_is_settled_again(kept, engine):
    """The first, issued at 0 and done at 0.75, comes again after the crash at 1, before the second, which was issued at 0.75."""
    flow = Flow("closed")
    flow.source("stock_update", steps=[delay(0.5), *kept(flow)])
    scenario = UPDATES.model_copy(update={"faults": (Crash(part="dies", at=(1.0,), restart=0.25),)})
    history = ENGINES[engine](flow, scenario.draw(1, 4).closed(1), KINDS, 1, scenario, {})
    assert history.messages["issued"].to_pylist() == [0.0, 0.75, 1.75, 2.5]
    effects = zip(*(history.effects[column].to_pylist() for column in ("message", "time")), strict=True)
    assert list(effects) == [(0, 0.75), (0, 1.5), (1, 1.75), (2, 2.5), (3, 3.25)]


@pytest.mark.parametrize("population", [1, 8])
def test_a_server_that_never_waits_for_work_completes_as_much_as_it_can(population):
    flow, mean = Flow("closed"), 0.01
    flow.source("stock_update", steps=[flow.pool("server", capacity=1).serve(Exponential(mean)), apply("done")])
    arrivals = UPDATES.draw(1, 20_000).closed(population)
    messages = ENGINES["compiled"](flow, arrivals, KINDS, 1, None, {}).messages
    assert middle_rate(messages["applied"].to_numpy()) == pytest.approx(1 / mean, rel=0.03)
    assert np.mean(messages["applied"].to_numpy() - messages["issued"].to_numpy()) == pytest.approx(
        population * mean, rel=0.03
    )
