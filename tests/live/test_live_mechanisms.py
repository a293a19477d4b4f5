"""What each mechanism of the twins is worth: switched off, something is lost or doubled; switched on, nothing is."""

from __future__ import annotations

import os
import signal
import threading
import time

import psycopg
import pytest

from simlib.distributions import Constant
from simlib.scenario import Crash, Poison

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
SLOW = {"handler_work": Constant(0.05)}
"""Handler work that takes longer than what waits for it below."""


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
    ended = messages[messages["outcome"] != "applied"]
    assert 3 < len(ended) < 30
    assert set(ended["outcome"]) == {"dead_lettered" if park else "lost"}
    assert set(ended["deliveries"]) == {3}


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

        def pause():
            with psycopg.connect(ready.databases["accounting"], autocommit=True) as connection:
                while connection.execute("SELECT count(*) FROM effects WHERE message >= 110").fetchone()[0] == 0:
                    time.sleep(0.02)
            os.kill(nats.pid, signal.SIGSTOP)
            time.sleep(1.0)
            os.kill(nats.pid, signal.SIGCONT)

        pausing = threading.Thread(target=pause)
        pausing.start()
        messages = columns(ready.run(workload(40.0, only="stock_update"), 1, 80))
        pausing.join()
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
