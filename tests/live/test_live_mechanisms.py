"""What each mechanism of the twins is worth: switched off, something is lost or doubled; switched on, nothing is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time

import aio_pika
import psycopg
import pytest

from simlib.distributions import Constant
from simlib.scenario import Crash, Poison

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
SLOW = {"handler_work": Constant(0.05)}
"""Handler work that takes longer than what waits for it below."""


def with_a_pause(ready, broker, scenario, seconds):
    """The history of a run during which the broker's process stands still once."""

    def pause():
        begun = f"SELECT count(*) FROM effects WHERE message >= {ready.numbered + 10}"
        with psycopg.connect(ready.databases["accounting"], autocommit=True) as connection:
            while connection.execute(begun).fetchone()[0] == 0:
                time.sleep(0.02)
        os.kill(broker, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(broker, signal.SIGCONT)

    pausing = threading.Thread(target=pause)
    pausing.start()
    history = ready.run(scenario, 1, 80)
    pausing.join()
    return history


def columns(history):
    return history.messages.to_pandas()


@pytest.mark.parametrize("idempotency", [False, True])
def test_rest_retries_after_a_timeout_double_orders_unless_requests_carry_a_key(run, workload, idempotency):
    impatient = {"timeout": 0.03, "retries": 1, "backoff": 0.01, "idempotency": idempotency}
    messages = columns(run("rest", workload(6.0, only="order", **SLOW), 12, **impatient))
    assert set(messages["response"]) == {"timed_out"}
    assert (messages["outcome"] == "applied").sum() > 5, "the caller does not know, but the far side worked on"
    assert (messages["attempts"] == 2).all()
    assert (messages["duplicates"].sum() > 0) is not idempotency


def test_rest_retries_mend_failed_calls_and_without_them_they_fail(run, workload):
    flaky = workload(30.0, only="stock_query", handler_failure=0.3)
    without = columns(run("rest", flaky, 60, retries=0))
    mended = columns(run("rest", flaky, 60, retries=3, backoff=0.005))
    assert 5 < (without["response"] == "failed").sum()
    assert (mended["response"] == "failed").sum() <= 3


@pytest.mark.parametrize("idempotent", [False, True])
def test_queue_redeliveries_double_orders_unless_the_receiver_is_idempotent(run, workload, idempotent):
    hasty = {"ack_wait": 0.03, "idempotent_receiver": idempotent}
    messages = columns(run("message_queue", workload(6.0, only="order", **SLOW), 12, **hasty))
    assert set(messages["outcome"]) == {"applied"}
    assert messages["deliveries"].max() > 2, (
        "an order and its announcement are delivered once each where nothing is hasty"
    )
    assert (messages["duplicates"].sum() > 0) is not idempotent


@pytest.mark.parametrize("park", [False, True])
def test_queue_poison_is_parked_or_lost(run, workload, park):
    poison = workload(50.0, only="stock_update", faults=(Poison(probability=0.2),))
    messages = columns(run("message_queue", poison, 60, park=park, max_deliveries=3, redelivery_delay=0.01))
    ended = messages[~messages["outcome"].isin(["applied", "superseded"])]
    assert 3 < len(ended) < 30
    assert set(ended["outcome"]) == {"dead_lettered" if park else "lost"}
    assert set(ended["deliveries"]) == {3}


RABBITMQ = {"broker": "rabbitmq"}


@pytest.mark.parametrize("manual", [False, True])
def test_rabbitmq_loses_what_a_killed_shop_held_unless_it_acknowledges_by_hand(run, workload, manual):
    struck = workload(
        80.0, only="stock_update", handler_work=Constant(0.02), faults=(Crash(part="shop", at=(0.8,), restart=0.1),)
    )
    messages = columns(run("message_queue", struck, 100, manual_ack=manual, **RABBITMQ))
    assert ((messages["outcome"] == "lost").sum() > 0) is not manual
    assert messages["duplicates"].sum() == 0


@pytest.mark.parametrize(("park", "outcome"), [(True, "dead_lettered"), (False, "lost")])
def test_rabbitmq_parks_poison_after_the_last_delivery_or_drops_it(run, workload, park, outcome):
    poison = workload(50.0, only="stock_update", faults=(Poison(probability=0.2),))
    messages = columns(run("message_queue", poison, 60, park=park, max_deliveries=3, **RABBITMQ))
    ended = messages[~messages["outcome"].isin(["applied", "superseded"])]
    assert 3 < len(ended) < 30
    assert set(ended["outcome"]) == {outcome} and set(ended["deliveries"]) == {3}


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_rabbitmq_delivers_poison_for_ever_where_there_is_no_limit(run, workload, queue_type):
    poison = workload(50.0, only="stock_update", faults=(Poison(probability=0.2),), horizon=1.0)
    without = {"max_deliveries": None} if queue_type == "quorum" else {}
    history = run("message_queue", poison, 30, queue_type=queue_type, **without, **RABBITMQ)
    ended = columns(history).query("outcome != 'applied'")
    assert 1 < len(ended) < 20
    assert set(ended["outcome"]) == {"in_flight"} and ended["deliveries"].min() > 10


@pytest.mark.parametrize("idempotent", [False, True])
def test_rabbitmq_copies_of_unconfirmed_publications_double_orders_unless_the_receiver_knows_them(
    bench, workload, rabbitmq, idempotent
):
    """The broker pauses, so that confirms come after their time-out, and nobody but the receiver drops the copies."""
    hasty = {"confirm_timeout": 0.3, "idempotent_receiver": idempotent, **RABBITMQ}
    with bench("message_queue", **hasty) as ready:
        messages = columns(with_a_pause(ready, rabbitmq.pid, workload(40.0, only="order"), 0.7))
    assert set(messages["outcome"]) <= {"applied", "rejected"}
    assert (messages["attempts"] > 1).sum() > 5
    assert (messages["duplicates"].sum() > 0) is not idempotent


@pytest.mark.parametrize("mandatory", [False, True])
def test_rabbitmq_confirms_what_no_queue_takes_unless_it_must_hand_it_back(bench, workload, rabbitmq, mandatory):
    with bench("message_queue", mandatory=mandatory, **RABBITMQ) as ready:
        prefix = json.loads((ready.folder / "shop.json").read_text())["prefix"]

        async def unbind():
            async with await aio_pika.connect(rabbitmq.url) as connection:
                channel = await connection.channel()
                queue = await channel.get_queue(f"{prefix}_updates")
                await queue.unbind(f"{prefix}_", routing_key=queue.name)

        asyncio.run(unbind())
        messages = columns(ready.run(workload(40.0, only="stock_update"), 1, 20))
    said, happened = ("failed", "failed") if mandatory else ("ok", "lost")
    assert (set(messages["response"]), set(messages["outcome"])) == ({said}, {happened})


def test_rabbitmq_twin_passes_the_checker_with_flaky_handlers_and_replies(run, workload):
    flaky = workload(40.0, handler_failure=0.1)
    history = run("message_queue", flaky, 100, answered_on="reply", **RABBITMQ)
    verdict = history.check()
    assert verdict.ok, str(verdict)
    assert verdict.as_dict()["lost"] == verdict.as_dict()["duplicated"] == 0
    updates = columns(history).query("kind == 'stock_update'")
    assert updates["deliveries"].max() > 1


@pytest.mark.parametrize("manual", [False, True])
def test_queue_loses_what_a_killed_shop_held_unless_it_acknowledges_by_hand(run, workload, manual):
    struck = workload(
        80.0, only="stock_update", handler_work=Constant(0.02), faults=(Crash(part="shop", at=(0.8,), restart=0.1),)
    )
    history = run("message_queue", struck, 100, manual_ack=manual, ack_wait=1.0)
    lost = (columns(history)["outcome"] == "lost").sum()
    assert (lost > 0) is not manual
    assert columns(history)["duplicates"].sum() == 0
    assert history.faults.to_pylist()[0]["part"] == "shop"


def test_queue_publication_without_a_confirm_is_indeterminate(bench, workload, nats):
    with bench("message_queue", confirm_timeout=0.2, confirm_retries=0) as ready:
        messages = columns(with_a_pause(ready, nats.pid, workload(40.0, only="stock_update"), 1.0))
    unheard = messages[messages["response"] == "timed_out"]
    assert len(unheard) > 5
    assert set(unheard["outcome"]) <= {"applied", "superseded"}, "the message was in the queue all the same"


def test_queue_answers_on_the_reply_where_asked_to(run, workload):
    history = run("message_queue", workload(20.0, only="order"), 30, answered_on="reply")
    messages = columns(history)
    assert set(messages["response"]) == {"ok"} and set(messages["outcome"]) == {"applied"}
    assert (messages["responded"] > messages["applied"]).all(), (
        "the customer hears of it after accounting took the units"
    )
