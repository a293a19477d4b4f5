"""Orders of several steps where nobody undoes anything, live: they end as in the models, and some of them half finished."""

from __future__ import annotations

import pytest

from simlib import api
from simlib.domain import ORDER
from simlib.scenario import Crash, Mix, load_scenario

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
MESSAGES = 60
WHO_ASKS = [("rest", {}), ("message_queue", {}), ("message_queue", {"broker": "rabbitmq"}), ("cqrs", {})]
"""One for each who asks for the further steps: the shop, each service through a queue of each broker's, accounting."""
TWINS = [
    *WHO_ASKS,
    ("outbox", {}),
    ("batch_exchange", {"interval": 0.2, "coalesce": False}),
    ("event_sourcing", {}),
    ("streaming", {}),
    ("service_mesh", {}),
]
STEPS = ["taken", "paid", "shipped", "confirmed"]


def of(twins):
    """Marks a test of these twins."""
    ids = ["-".join([name, *map(str, parameters.values())]) for name, parameters in twins]
    return pytest.mark.parametrize("twin", twins, indirect=True, ids=ids)


@pytest.fixture(scope="module")
def twin(request, bench):
    """An architecture, its parameters, and a bench of it with all services."""
    name, parameters = request.param
    with bench(name, process="fulfilment", **parameters) as ready:
        yield name, parameters, ready


def orders(**properties):
    """The scenario `fulfilment` with other properties, only its orders."""
    only = {"mix": Mix(stock_update=0, order=1, stock_query=0)}
    return load_scenario("fulfilment").with_rate(30.0).model_copy(update={**only, **properties})


def run(twin, scenario, messages=MESSAGES):
    """The history of a live run, in which the checker's laws hold, and the case that the model has of it."""
    name, parameters, ready = twin
    case = api.case(name, scenario, parameters, messages)
    history = ready.run(scenario, 1, messages, case.meta)
    verdict = history.check()
    assert verdict.ok, str(verdict)
    return history, case


def steps_done(history):
    """The steps of each order that were done, in the order of time. Whether the copy knows of one depends on what overtook it."""
    effects = history.effects.to_pandas().query("store != 'copy'")
    return {message: mine["effect"].astype(str).tolist() for message, mine in effects.groupby("message")}


@of(TWINS)
def test_orders_end_live_as_in_the_model_and_what_was_done_before_a_refusal_stays_in_the_order_of_the_steps(twin):
    live, case = run(twin, orders(step_refused=0.15, step_timed_out=0.1))
    model = case.run(1)
    for column in ("outcome", "response", "duplicates"):
        assert live.messages[column].to_pylist() == model.messages[column].to_pylist(), column
    assert live.meta["quiet"]
    assert live.check().found["half_finished"] == model.check().found["half_finished"] != ()
    done = steps_done(live)
    assert done == steps_done(model)
    assert all(steps == STEPS[: len(steps)] for steps in done.values())


@of(WHO_ASKS)
def test_orders_whose_steps_all_come_to_pass_are_whole_beside_updates_and_queries(twin):
    mixed = load_scenario("fulfilment").with_rate(30.0)
    live, _ = run(twin, mixed.model_copy(update={"step_refused": 0.0, "step_timed_out": 0.0}))
    messages = live.messages.to_pandas()
    assert set(messages["response"]) == {"ok"}
    assert set(messages.loc[messages["kind"] == ORDER, "effects"]) >= {5}, "the steps, and the copy's knowledge"
    assert live.check().counts["half_finished"] == live.check().counts["half_done"] == 0


@of(WHO_ASKS)
def test_a_service_that_is_killed_leaves_orders_half_finished_unless_they_wait_for_it_in_a_queue(twin):
    name, *_ = twin
    struck = orders(step_refused=0.0, step_timed_out=0.0, faults=(Crash(part="payment", at=(0.5,), restart=0.5),))
    live, _ = run(twin, struck)
    assert live.faults.to_pylist()[0]["part"] == "payment" and live.meta["quiet"]
    assert (live.check().counts["half_finished"] > 0) is (name != "message_queue")
