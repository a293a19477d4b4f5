"""A workload of which always as many messages are under way: each customer issues the next when the last is over."""

from __future__ import annotations

import numpy as np
import pytest

import simlib
from simlib import api, architectures
from simlib.distributions import Exponential
from simlib.domain import KINDS
from simlib.engines import ENGINES
from simlib.flow import Flow, apply
from simlib.metrics import middle_rate
from simlib.scenario import load_scenario


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


@pytest.mark.parametrize("population", [1, 8])
def test_a_server_that_never_waits_for_work_completes_as_much_as_it_can(population):
    flow, mean = Flow("closed"), 0.01
    flow.source("stock_update", steps=[flow.pool("server", capacity=1).serve(Exponential(mean)), apply("done")])
    workload = load_scenario("steady").model_copy(
        update={"mix": simlib.scenario.Mix(stock_update=1, order=0, stock_query=0)}
    )
    arrivals = workload.draw(1, 20_000).closed(population)
    messages = ENGINES["compiled"](flow, arrivals, KINDS, 1, None, {}).messages
    assert middle_rate(messages["applied"].to_numpy()) == pytest.approx(1 / mean, rel=0.03)
    assert np.mean(messages["applied"].to_numpy() - messages["issued"].to_numpy()) == pytest.approx(
        population * mean, rel=0.03
    )
