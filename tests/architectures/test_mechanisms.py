"""What each mechanism is worth: switched off, something is lost, doubled, parked, late or out of order; on, it is not.

Every run also passes the checker: whatever goes wrong in an architecture, conservation and causality hold.
"""

import math

import pandas as pd
import pytest

import simlib
from simlib import architectures, draws
from simlib.architectures.parameters import make
from simlib.distributions import Constant, Exponential
from simlib.errors import BadInput
from simlib.metrics import measure
from simlib.scenario import Crash, Goods, Loss, Mix, Phase, Poison, PowerLoss, Profile, Slowdown, load_scenario

ONE_SKU = Goods(skus=1)
SLOW = {"handler_work": Constant(0.05)}
"""Handler work that takes longer than what waits for it below."""


def workload(rate, only="", **properties):
    """The scenario `steady` with other properties; `only` names the one kind of message in it."""
    if only:
        properties["mix"] = Mix.model_validate({"stock_update": 0, "order": 0, "stock_query": 0, only: 1})
    return load_scenario("steady").with_rate(rate).model_copy(update=properties)


def history(name, scenario, messages, **changes):
    """A run with the default parameters, but for the changes, that the checker finds without violations."""
    parameters = make(architectures.get(name).parameters, changes)
    made = simlib.run(name, scenario, parameters.model_dump(), messages=messages)
    verdict = made.check()
    assert verdict.ok, str(verdict)
    return made


def columns(*arguments, **changes):
    """The messages of such a run."""
    return history(*arguments, **changes).messages.to_pandas()


def small_sale():
    """A flash sale of four seconds."""
    sale = load_scenario("flash_sale")
    phases = (Phase(lasts=1, times=1), Phase(lasts=4, times=12))
    goods = sale.goods.model_copy(update={"sale_units": 30})
    return sale.model_copy(update={"arrivals": Profile(rate=50, phases=phases), "goods": goods})


def lossy(probability, link, direction=None):
    return {"faults": (Loss(link=link, probability=probability, direction=direction),)}


def process(rate=20, **properties):
    """Orders alone, each of four steps, with plenty of everything unless said otherwise."""
    properties = {"goods": Goods(skus=1000, zipf=0.0, units=1000)} | properties
    return workload(rate, only="order", process="fulfilment", **properties)


@pytest.mark.parametrize("part", ["accounting", "shop"])
@pytest.mark.parametrize("name", architectures.names())
def test_a_slow_side_makes_every_architecture_slower(name, part):
    slow = workload(50, faults=(Slowdown(part=part, at=(0.0,), lasts=1000.0, factor=3.0),))
    before, after = (measure(history(name, scenario, 1000), 0) for scenario in (workload(50), slow))
    kind = "stock_update" if part == "accounting" else "stock_query"
    assert after[f"response_time_p50.{kind}"] > 1.5 * before[f"response_time_p50.{kind}"]


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_fails_while_a_side_is_down_and_loses_and_doubles_nothing(name):
    made = history(name, load_scenario("crashes"), 13_000)
    assert sorted(made.faults["part"].to_pylist()) == ["accounting", "shop"]
    found = measure(made)
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert found["failed"] > 100, "of the five hundred that come while each side is down"


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_goes_through_the_steps_of_an_order_and_only_a_saga_undoes_them(name):
    """Without failures all of them do all steps; with failures only sagas leave nothing half finished."""
    whole, failing = (history(name, process(**chances), 150) for chances in ({}, {"step_refused": 0.2}))
    confirmed = whole.effects.to_pandas().query("effect == 'confirmed'")["message"]
    assert sorted(confirmed) == list(range(150)) and measure(whole)["half_finished"] == 0
    assert (measure(failing)["half_finished"] > 10) == ("saga" not in name) == (measure(failing)["compensated"] == 0)


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_at_rest_answers_a_query_in_the_sum_of_its_times(name):
    """From the shop's copy; direct REST and the mesh ask accounting, the mesh by way of two sidecars and back. In the median: a
    relay that polls is in the way now and then."""
    p = make(architectures.get(name).parameters, {})
    edge, server, client, ask, read, network = (
        time.mean_value for time in (p.edge, p.http_server, p.http_client, p.database_client, p.read, p.network)
    )
    total = 2 * edge + 2 * server + 0.002 + 2 * ask + read
    if name in ("rest", "service_mesh"):
        total += 2 * client + 2 * network + 2 * server
    if name == "service_mesh":
        total += 4 * (p.loopback.mean_value + p.hop.mean_value + p.tls.mean_value)
    calm = workload(0.01, only="stock_query", handler_work=Constant(0.002))
    messages = columns(name, calm, 20)
    assert (messages["responded"] - messages["issued"]).median() == pytest.approx(total)


# --- rest -------------------------------------------------------------------------------------------------------------


def test_rest_loses_what_the_network_loses_unless_it_retries():
    updates = workload(50, only="stock_update", **lossy(0.1, "accounting-shop"))
    without = columns("rest", updates, 300, retries=0, timeout=0.05)
    assert (without["outcome"] == "failed").sum() > 15
    assert set(without.loc[without["outcome"] == "failed", "response"]) == {"timed_out"}
    retried = columns("rest", updates, 300, retries=8, timeout=0.05)
    assert set(retried["outcome"]) <= {"applied", "superseded"}
    assert set(retried["response"]) == {"ok"}


def test_rest_callers_whose_answer_is_lost_do_not_know_that_it_is_done():
    updates = workload(50, only="stock_update", **lossy(0.2, "accounting-shop", "shop"))
    messages = columns("rest", updates, 200, retries=0, timeout=0.05)
    unheard = messages[messages["response"] == "timed_out"]
    assert len(unheard) > 20
    assert set(unheard["outcome"]) <= {"applied", "superseded"}


def test_rest_retries_mend_failing_handlers():
    queries = workload(50, only="stock_query", handler_failure=0.3)
    failed = [(columns("rest", queries, 300, retries=n)["response"] == "failed").sum() for n in (0, 1, 8)]
    assert failed[0] > 60 > 45 > failed[1] > failed[2] == 0


def test_rest_retries_after_a_timeout_double_orders_unless_requests_carry_a_key():
    orders = workload(5, only="order", **SLOW)
    impatient = {"timeout": 0.03, "retries": 1, "backoff": 0.01}
    doubled, once = (columns("rest", orders, 60, **impatient, idempotency=key) for key in (False, True))
    for messages in (doubled, once):
        assert set(messages["response"]) == {"timed_out"}
        assert (messages["outcome"] == "applied").sum() > 40, "the callers do not know, but the server worked on"
    assert (doubled["duplicates"] > 0).sum() > 40
    assert (once["duplicates"] == 0).all()


def test_rest_callers_who_are_told_that_it_failed_can_rely_on_it():
    """A call that timed out once may have been carried out, whatever its later attempts were told."""
    flaky = workload(60, only="order", handler_failure=0.5, **lossy(0.1, "accounting-shop"))
    messages = columns("rest", flaky, 400, retries=1, timeout=0.05)
    assert (messages["response"] == "failed").sum() > 40
    assert "applied" not in set(messages.loc[messages["response"] == "failed", "outcome"])
    assert ((messages["response"] == "timed_out") & (messages["outcome"] == "applied")).sum() > 5


def test_rest_retries_of_a_crowd_come_together_unless_they_are_jittered():
    """Full jitter spreads them (Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015)."""
    crowd = workload(100_000, only="order")
    patience = {"timeout": 0.05, "retries": 20, "backoff": 0.1, "connections": 100}
    together, spread = (columns("rest", crowd, 120, **patience, jitter=jitter) for jitter in (False, True))
    assert set(spread["response"]) == {"ok"}
    assert together["attempts"].sum() > 2 * spread["attempts"].sum()
    assert (together["response"] == "timed_out").sum() > 30


def test_rest_backoff_outlasts_an_outage():
    struck = workload(50, only="stock_update", faults=(Crash(part="shop", at=(1.0,), restart=0.5),))
    hasty, patient = (columns("rest", struck, 150, backoff=backoff, jitter=False) for backoff in ("50 ms", "500 ms"))
    assert (hasty["response"] == "failed").sum() > 3
    assert set(patient["response"]) == {"ok"}


def test_rest_timeouts_free_connections_from_calls_without_an_answer():
    updates = workload(20, only="stock_update", **lossy(0.05, "accounting-shop"))
    long, short = (history("rest", updates, 200, connections=1, retries=8, timeout=t) for t in ("2 s", "50 ms"))
    assert measure(long)["response_time_p50"] > 10 * measure(short)["response_time_p50"]


def test_rest_connections_bound_the_throughput_on_a_long_link():
    far = {"network": "20 ms", "timeout": "10 s"}
    updates = workload(60, only="stock_update")
    few, many = (measure(history("rest", updates, 200, connections=n, **far)) for n in (1, 16))
    assert few["response_time_p50"] > 20 * many["response_time_p50"]
    assert few["utilisation.accounting.connections"] > 0.95
    assert few["utilisation.accounting.cpu"] < 0.1


def test_rest_budget_bounds_what_retries_add():
    """At most 1 + b times the calls, where every one of them fails (Brooker, Builders' Library: a token bucket)."""
    failing = workload(50, only="stock_query", handler_failure=1.0)
    free, bounded, none = (
        columns("rest", failing, 400, backoff="1 ms", retry_budget=b)["attempts"].sum() for b in (100.0, 0.25, 0.0)
    )
    assert (free, none) == (1600, 400)
    assert 480 <= bounded <= 500


def test_rest_breaker_fails_at_once_while_the_other_side_is_too_slow():
    stuck = workload(50, only="stock_query", faults=(Slowdown(part="accounting", at=(1.0,), lasts=4.0, factor=50.0),))
    waits = {"timeout": 0.2, "retries": 0}
    open_, closed = (columns("rest", stuck, 500, **waits, breaker=n, breaker_lasts="500 ms") for n in (3, 0))
    for messages in (open_, closed):
        messages["took"] = messages["responded"] - messages["issued"]
    meanwhile = [messages[messages["issued"].between(1.5, 5.0)] for messages in (open_, closed)]
    assert (meanwhile[0]["took"] < 0.01).mean() > 0.6 > 0.01 > (meanwhile[1]["took"] < 0.1).mean()
    assert set(open_.loc[open_["issued"] > 6.5, "response"]) == {"ok"}, "it closes again"


def test_rest_backlog_refuses_what_would_wait_too_long():
    crowd = workload(450, only="stock_query")
    open_, bounded = (
        columns("rest", crowd, 3000, retries=0, connections=1000, timeout=100.0, backlog=b) for b in (100_000, 8)
    )
    waited = [(m["responded"] - m["issued"])[m["response"] == "ok"].quantile(0.95) for m in (open_, bounded)]
    assert set(open_["response"]) == {"ok"} and (bounded["response"] == "failed").mean() > 0.1
    assert waited[1] < 0.2 * waited[0]


def test_rest_processes_share_the_work_of_a_side():
    crowd = workload(450, only="stock_query")
    one, three = (measure(history("rest", crowd, 3000, processes=n, cores=16, timeout=100.0)) for n in (1, 3))
    assert one["utilisation.accounting.cpu"] > 0.95 and three["utilisation.accounting.cpu"] < 0.6
    assert three["response_time_p95"] < 0.2 * one["response_time_p95"]


def test_rest_callers_who_look_before_they_choose_wait_less():
    """Two choices are nearly as good as all of them, and far better than one (Mitzenmacher, 2001)."""
    busy = workload(300, only="stock_query", handler_work=Exponential(0.009))
    spread = {"processes": 4, "cores": 1000, "connections": 1000, "timeout": 100.0}
    random, two, least = (
        measure(history("rest", busy, 8000, balancing=b, **spread))["response_time_mean"]
        for b in ("random", "two_choices", "least_requests")
    )
    assert least < two < 0.75 * random
    assert random - two > 3 * (two - least)


def test_rest_hedges_answer_in_the_place_of_a_slow_process_and_ask_it_all_the_same():
    """One process takes a hundred times as long. The first call goes to the other; each further one to the slow one, in its turn,
    and is answered by the other, by so much later as the caller waited."""
    slow = Slowdown(part="accounting.2", at=(0.0,), lasts=1e6, factor=100.0)
    queries = workload(0.01, only="stock_query", faults=(slow,), handler_work=Constant(0.002))
    two = {"processes": 2, "timeout": 10.0}
    runs = [history("rest", queries, 40, **two, hedge_after=after) for after in (0.0, 0.05)]
    alone, hedged = ((messages["responded"] - messages["issued"]).to_numpy() for messages in (
        run.messages.to_pandas() for run in runs
    ))  # fmt: skip
    assert (alone[1::2] > 0.25).all() and alone[::2] == pytest.approx(alone[0]), "every second is slow"
    assert hedged[0] == pytest.approx(alone[0]) and hedged[1:] == pytest.approx(alone[0] + 0.05)
    visits = [run.parts.to_pandas().query("name == 'accounting.2.cpu'")["completed"].sum() for run in runs]
    assert visits[1] / visits[0] == 39 / 20, "the slow one has all calls to do but the first"


def test_rest_hedged_orders_are_taken_twice_unless_requests_carry_a_key():
    """Taken again, and so announced again."""
    orders = workload(0.2, only="order", **SLOW)
    doubled, once = (columns("rest", orders, 30, hedge_after=0.03, idempotency=key) for key in (False, True))
    assert set(doubled["response"]) == set(once["response"]) == {"ok"}
    assert (doubled["duplicates"] == 2).all() and (once["duplicates"] == 0).all()


# --- message queue ----------------------------------------------------------------------------------------------------


def test_queue_without_confirms_loses_messages_that_were_answered_ok():
    updates = workload(50, only="stock_update", **lossy(0.1, "accounting-broker"))
    blind = columns("message_queue", updates, 300, confirm=False)
    assert set(blind["response"]) == {"ok"}
    assert (blind["outcome"] == "lost").sum() > 15
    sure = columns("message_queue", updates, 300, confirm_timeout=0.05, confirm_retries=8)
    assert set(sure["response"]) == {"ok"}
    assert set(sure["outcome"]) <= {"applied", "superseded"}


@pytest.mark.parametrize("only", ["stock_update", "order"])
def test_queue_publication_without_a_confirm_is_indeterminate(only):
    link = "accounting-broker" if only == "stock_update" else "broker-shop"
    deaf = workload(50, only=only, **lossy(0.2, link, "broker"))
    messages = columns("message_queue", deaf, 300, confirm_timeout=0.05, confirm_retries=0, ack_wait=0.2)
    unheard = messages[messages["response"] == "timed_out"]
    assert len(unheard) > 30
    assert set(unheard["outcome"]) <= {"applied", "superseded"}, "it was in the queue all the same"


def test_queue_copies_of_unconfirmed_publications_double_orders_unless_broker_or_receiver_knows_them():
    deaf = workload(50, only="order", **lossy(0.3, "broker-shop", "broker"))
    again = {"confirm_timeout": 0.05, "confirm_retries": 5, "ack_wait": 0.2}
    doubled = columns("message_queue", deaf, 200, **again, deduplication=0, idempotent_receiver=False)
    assert (doubled["duplicates"] > 0).sum() > 20
    for either in ({"idempotent_receiver": False}, {"deduplication": 0}):
        messages = columns("message_queue", deaf, 200, **again, **either)
        assert (messages["duplicates"] == 0).all()
        assert set(messages["outcome"]) == {"applied"}


def test_queue_loses_what_a_crashed_shop_held_unless_it_acknowledges_by_hand():
    struck = workload(
        80, only="stock_update", faults=(Crash(part="shop", point="updates.delivered", probability=0.02, restart=0.1),)
    )
    automatic = columns("message_queue", struck, 300, manual_ack=False)
    assert set(automatic["response"]) == {"ok"}
    assert (automatic["outcome"] == "lost").sum() > 3
    manual = columns("message_queue", struck, 300, manual_ack=True, ack_wait=1)
    assert set(manual["outcome"]) <= {"applied", "superseded"}
    assert (manual["duplicates"] == 0).all()


def test_queue_redeliveries_double_orders_unless_the_receiver_is_idempotent():
    deaf = workload(50, only="order", **lossy(0.2, "accounting-broker", "accounting"))
    late = {"ack_wait": 0.2, "confirm_timeout": 0.05}
    doubled = columns("message_queue", deaf, 200, **late, idempotent_receiver=False)
    assert (doubled["duplicates"] > 0).sum() > 10
    once = columns("message_queue", deaf, 200, **late, idempotent_receiver=True)
    assert (once["duplicates"] == 0).all()
    assert once["deliveries"].max() > 2


@pytest.mark.parametrize("guard", ["idempotent_receiver", "write_if_newer"])
def test_queue_redeliveries_write_the_copy_twice_unless_either_guard_stands(guard):
    deaf = workload(50, only="stock_update", **lossy(0.2, "broker-shop", "shop"))
    unguarded = {"ack_wait": 0.2, "idempotent_receiver": False, "write_if_newer": False}
    assert (columns("message_queue", deaf, 200, **unguarded)["duplicates"] > 0).sum() > 20
    assert (columns("message_queue", deaf, 200, **{**unguarded, guard: True})["duplicates"] == 0).all()


@pytest.mark.parametrize("limit", [1, 3])
def test_queue_parks_poison_after_the_last_delivery_or_loses_it(limit):
    poisoned = workload(50, only="stock_update", faults=(Poison(probability=0.1),))
    for park, outcome in ((True, "dead_lettered"), (False, "lost")):
        messages = columns("message_queue", poisoned, 200, park=park, max_deliveries=limit)
        ended = messages[~messages["outcome"].isin(["applied", "superseded"])]
        assert 8 < len(ended) < 40
        assert set(ended["outcome"]) == {outcome} and set(ended["deliveries"]) == {limit}


def test_queue_redeliveries_mend_failing_handlers():
    flaky = workload(50, only="stock_update", handler_failure=0.3)
    parked = [
        (columns("message_queue", flaky, 300, max_deliveries=n)["outcome"] == "dead_lettered").sum() for n in (1, 2, 8)
    ]
    assert parked[0] > 60 > 45 > parked[1] > parked[2] == 0


def test_queue_prefetch_hides_a_long_link():
    updates = workload(60, only="stock_update")
    one, many = (measure(history("message_queue", updates, 200, uplink="20 ms", prefetch=n)) for n in (1, 50))
    assert one["delivery_time_p50"] > 10 * many["delivery_time_p50"]
    assert one["utilisation.shop.cpu"] < 0.2, "nothing was busy, all was on its way"


def test_queue_consumers_hide_a_slow_database():
    updates = workload(60, only="stock_update")
    one, four = (measure(history("message_queue", updates, 300, read="20 ms", cores=8, consumers=n)) for n in (1, 4))
    assert one["delivery_time_p50"] > 5 * four["delivery_time_p50"]


def test_queue_redeliveries_write_old_levels_over_new_ones_unless_the_copy_knows_versions():
    flaky = workload(60, only="stock_update", handler_failure=0.2, goods=ONE_SKU)
    blind, knowing = (history("message_queue", flaky, 300, write_if_newer=w).check().counts for w in (False, True))
    assert blind["reordered"] > 20
    assert knowing["reordered"] == 0


def test_queue_announces_every_order_even_where_confirms_are_lost():
    """An order whose announcement was not confirmed is not acknowledged, and comes again."""
    deaf = workload(50, only="order", **lossy(0.2, "accounting-broker", "accounting"))
    late = {"confirm_timeout": 0.05, "confirm_retries": 0, "ack_wait": 0.2, "max_deliveries": 20}
    effects = history("message_queue", deaf, 200, **late, write_if_newer=False).effects.to_pandas()
    taken, announced = (set(effects.loc[effects["effect"] == name, "message"]) for name in ("taken", "announced"))
    assert len(taken) == 200 and announced == taken


RABBITMQ = {"broker": "rabbitmq"}


def test_queue_on_rabbitmq_delivers_again_as_soon_as_the_connection_of_a_dead_consumer_is_seen_to_be_closed():
    crash = Crash(part="shop", point="updates.delivered", probability=0.08, restart=0.1)
    struck = workload(50, only="stock_update", faults=(crash,))
    late = []
    for changes in ({"ack_wait": 5.0}, RABBITMQ):
        messages = columns("message_queue", struck, 150, max_deliveries=20, **changes)
        assert set(messages["outcome"]) <= {"applied", "superseded"} and (messages["duplicates"] == 0).all()
        again = messages[messages["deliveries"] > 1]
        assert len(again) > 3
        late.append((again["applied"] - again["issued"]).min())
    assert late[0] > 4 > 1 > late[1]


def test_queue_on_rabbitmq_publishes_copies_that_only_an_idempotent_receiver_knows():
    deaf = workload(50, only="order", **lossy(0.3, "broker-shop", "broker"))
    again = {"confirm_timeout": 0.05, "confirm_retries": 5, **RABBITMQ}
    doubled, once = (columns("message_queue", deaf, 200, **again, idempotent_receiver=i) for i in (False, True))
    assert (doubled["duplicates"] > 0).sum() > 20
    assert (once["duplicates"] == 0).all() and once["deliveries"].max() > 2


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_queue_on_rabbitmq_delivers_poison_for_ever_unless_a_limit_is_set(queue_type):
    poisoned = workload(50, only="stock_update", faults=(Poison(probability=0.1),), horizon=2.0)
    unlimited = {"max_deliveries": None} if queue_type == "quorum" else {}
    endless = columns("message_queue", poisoned, 100, queue_type=queue_type, **unlimited, **RABBITMQ)
    assert set(endless["outcome"]) <= {"applied", "superseded", "in_flight"}
    assert endless.loc[endless["outcome"] == "in_flight", "deliveries"].min() > 20
    limited = columns("message_queue", poisoned, 100, max_deliveries=3, **RABBITMQ)
    parked = limited[limited["outcome"] == "dead_lettered"]
    assert len(parked) > 3 and set(parked["deliveries"]) == {3}


def test_rest_leaves_processes_half_finished_where_a_later_step_is_refused():
    made = history("rest", process(step_refused=0.1), 300)
    messages, half = made.messages.to_pandas(), made.check().found["half_finished"]
    refused = messages["response"] == "refused"
    first = messages["outcome"] == "rejected"
    assert len(half) > 50 and set(half) == set(messages.index[refused & ~first])
    assert set(made.check().found["denied"]) == set(half), "refused, and yet something of it stands"


def test_rest_retries_mend_steps_of_which_nobody_heard():
    unheard = process(step_timed_out=0.1)
    asked_once, again = (history("rest", unheard, 300, retries=n, timeout=0.1) for n in (0, 8))
    assert len(asked_once.check().found["half_finished"]) > 50
    assert not any(asked_once.check().found[name] for name in ("duplicated", "lost"))
    assert set(again.messages["response"].to_pylist()) == {"ok"} and not again.check().found["half_finished"]


def test_queue_holds_what_rest_fails_while_the_shop_is_down():
    struck = workload(50, only="stock_update", faults=(Crash(part="shop", at=(2.0,), restart=1.0),))
    called, queued = (columns(name, struck, 300) for name in ("rest", "message_queue"))
    assert (called["outcome"] == "failed").sum() > 20
    assert set(queued["outcome"]) <= {"applied", "superseded"}


def test_queue_oversells_where_customers_are_answered_on_the_confirm_but_not_on_the_reply():
    rush = small_sale()
    runs = ("message_queue", {"answered_on": "confirm"}), ("message_queue", {"answered_on": "reply"}), ("rest", {})
    promised, told, asked = (
        measure(history(name, rush, rush.arrivals.needed(), **changes))["oversold_units"] for name, changes in runs
    )
    assert promised > 10
    assert told == asked == 0


def test_queue_customers_who_wait_for_the_reply_wait_longer_and_know_more():
    orders = workload(50, only="order")
    confirmed, replied = (history("message_queue", orders, 300, answered_on=on) for on in ("confirm", "reply"))
    assert measure(replied)["response_time_p50.order"] > measure(confirmed)["response_time_p50.order"]
    for made, knows in ((confirmed, False), (replied, True)):
        messages = made.messages.to_pandas()
        assert (messages["responded"] > messages["applied"]).all() == knows


def test_queue_leaves_processes_half_finished_that_customers_were_promised():
    for answered_on in ("confirm", "reply"):
        made = history("message_queue", process(step_refused=0.1), 300, answered_on=answered_on)
        messages, half = made.messages.to_pandas(), list(made.check().found["half_finished"])
        assert len(half) > 50 and set(messages.loc[half, "response"]) == {"ok"}


def test_queue_consumers_that_compete_overtake_each_other_unless_one_works_or_each_has_its_goods():
    """What is refused comes again behind what was handed out meanwhile, unless that is nothing."""
    sound, flaky = (workload(60, only="stock_update", handler_failure=f, goods=Goods(skus=3)) for f in (0.0, 0.2))
    unguarded = {"read": "exponential(5 ms)", "cores": 8, "write_if_newer": False, "max_deliveries": 100}

    def reordered(scenario, **changes):
        return history("message_queue", scenario, 400, **unguarded, **changes).check().counts["reordered"]

    assert reordered(sound) > 10
    for sharing in ("single", "by_sku"):
        assert reordered(sound, sharing=sharing) == 0
        assert reordered(flaky, sharing=sharing) > 10
        assert reordered(flaky, sharing=sharing, prefetch=1) == 0


def test_queue_by_sku_keeps_the_order_and_most_of_the_speed_that_one_consumer_loses():
    updates = workload(60, only="stock_update", goods=Goods(skus=100, zipf=0.0))
    slow = {"read": "20 ms", "cores": 8, "write_if_newer": False}
    alone, hashed, free = (
        history("message_queue", updates, 400, **slow, sharing=sharing) for sharing in ("single", "by_sku", "competing")
    )
    times = [measure(made)["delivery_time_p50"] for made in (alone, hashed, free)]
    assert times[0] > 5 * times[1] and times[1] < 3 * times[2]
    assert [made.check().counts["reordered"] == 0 for made in (alone, hashed)] == [True, True]


def test_queue_announcements_of_orders_overtake_updates_where_they_are_urgent():
    backlog = workload(110, mix=Mix(stock_update=0.8, order=0.2, stock_query=0), handler_work=Constant(0.009))
    late = []
    for first in (False, True):
        made = history("message_queue", backlog, 1000, sharing="single", prefetch=1, orders_first=first)
        effects = (
            made.effects.to_pandas()
            .drop_duplicates(["message", "effect"])
            .pivot(index="message", columns="effect", values="time")
        )
        late.append(
            [(effects[end] - effects[start]).median() for start, end in (("taken", "announced"), ("issued", "copied"))]
        )
    (announced, copied), (urgent, behind) = late
    assert urgent < 0.2 * announced and behind > 0.9 * copied


def test_queue_that_is_full_drops_the_oldest_or_holds_publishers_up():
    rush = workload(60, only="stock_update", goods=MANY_SKUS, **SLOW)
    alone = {"sharing": "single", "prefetch": 1, "max_length": 10, "deduplication": 0}
    endless, drop, lose, refuse = (
        history("message_queue", rush, 200, **alone, **changes)
        for changes in ({}, {"at_limit": "drop"}, {"at_limit": "drop", "park": False}, {"at_limit": "refuse"})
    )
    most = [
        int(made.parts.to_pandas().query("name == 'updates'")["waiting_max"].max())
        for made in (endless, drop, lose, refuse)
    ]
    assert most[0] > 100 and max(most[1:]) <= 11
    outcomes = [made.messages.to_pandas()["outcome"].value_counts() for made in (drop, lose, refuse)]
    assert outcomes[0]["dead_lettered"] > 100 and outcomes[1]["lost"] == outcomes[0]["dead_lettered"]
    told = refuse.messages.to_pandas()
    assert set(told["response"]) == {"ok", "timed_out"} and (told["response"] == "timed_out").sum() > 10
    assert set(told.loc[told["response"] == "ok", "outcome"]) == {"applied"}, "what was confirmed is not lost"


def test_queue_whose_messages_expire_is_never_later_than_their_time_to_live():
    rush = workload(60, only="stock_update", goods=MANY_SKUS, **SLOW)
    alone = {"sharing": "single", "prefetch": 1, "time_to_live": 0.2}
    for park, end in ((True, "dead_lettered"), (False, "expired")):
        late, never = (columns("message_queue", rush, 200, **alone, expire=e, park=park) for e in (False, True))
        assert (late["applied"] - late["issued"]).max() > 5
        assert (never["applied"] - never["issued"]).max() < 0.2 + 0.1
        assert (never["outcome"] == end).sum() > 100


def test_queue_on_several_nodes_confirms_when_most_have_written():
    """To the bit: a follower that is alone with the leader must be waited for, one of two need not (Raft)."""
    updates = workload(1, only="stock_update")
    one, two, three, five = (
        columns("message_queue", updates, 100, nodes=nodes, between_nodes=0.005)["responded"] for nodes in (1, 2, 3, 5)
    )
    assert (two - one).min() == pytest.approx(0.01) and two.equals(three) and three.equals(five)


def test_queue_writes_all_that_wait_at_once():
    """Who comes while the disk writes waits for that write and for its own, however many come; alone, 150 a second of 10 ms
    are half as much again as the disk can do."""
    rush, slow = workload(150, only="stock_update"), {"store": "10 ms", "confirm_retries": 0}
    alone, together, calm = (
        (messages["responded"] - messages["issued"]).max()
        for messages in (
            columns("message_queue", rush, 300, **slow),
            columns("message_queue", rush, 300, **slow, group_commit=True),
            columns("message_queue", rush, 300, **slow | {"store": "0 ms"}),
        )
    )
    assert together < 2 * 0.010 + calm < 0.5 < alone


@pytest.mark.parametrize(
    ("changes", "response", "outcome"),
    [
        ({"broker": "rabbitmq", "mandatory": False}, "ok", "lost"),
        ({"broker": "rabbitmq", "mandatory": True}, "failed", "failed"),
        ({"broker": "nats", "confirm_timeout": 0.1}, "timed_out", "failed"),
    ],
)
def test_queue_that_is_not_bound_loses_what_is_confirmed_unless_it_must_be_handed_back(changes, response, outcome):
    """As on the live brokers (`tests/live/test_live_mechanisms.py`): all of it."""
    for only, queue in (("stock_update", "updates"), ("order", "orders")):
        messages = columns("message_queue", workload(40, only=only), 50, unbound=queue, **changes)
        assert (set(messages["response"]), set(messages["outcome"])) == ({response}, {outcome})
    bound = columns("message_queue", workload(40, only="stock_update"), 50, unbound="orders", **changes)
    assert set(bound["response"]) == {"ok"}


# --- outbox -----------------------------------------------------------------------------------------------------------

RELAYS = ["polling", "log_tailing"]
PUBLISHERS = [*RELAYS, "dual_write"]
MANY_SKUS = Goods(skus=1_000_000, zipf=0.0)
"""So many that no change is made good by a later one of the same SKU."""


def struck(point, part, rate, only):
    """A side that dies now and then where something is committed or published."""
    crash = Crash(part=part, point=point, probability=0.1, restart=0.05)
    return workload(rate, only, faults=(crash,), goods=MANY_SKUS)


@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_outbox_that_never_crashes_loses_nothing_and_neither_does_the_dual_write(publisher):
    made = history("outbox", workload(60), 600, publisher=publisher)
    messages, found = made.messages.to_pandas(), made.check().found
    assert set(messages["outcome"]) <= {"applied", "superseded", "answered", "rejected"}
    assert not any(found[name] for name in ("lost", "half_done", "duplicated", "reordered"))


def test_outbox_without_an_outbox_is_the_message_queue(differences):
    flaky = workload(100, handler_failure=0.1, faults=(Crash(part="shop", at=(1.0, 2.0), restart=0.2),))
    assert (
        differences(history("outbox", flaky, 500, publisher="dual_write"), history("message_queue", flaky, 500)) == []
    )


@pytest.mark.parametrize(
    ("only", "part", "point"),
    [("stock_update", "accounting", "update.committed"), ("order", "shop", "order.committed")],
)
def test_outbox_keeps_what_a_dual_write_loses_between_commit_and_publication(only, part, point):
    """Exactly those that a crash struck there, each a change that one side made and the other never hears of."""
    for publisher in PUBLISHERS:
        made = history("outbox", struck(point, part, 10, only), 200, publisher=publisher)
        hit = made.faults["message"].to_pylist()
        messages = made.messages.to_pandas().loc[hit]
        assert len(hit) > 10 and set(messages["response"]) == {"none"}, "the caller's connection broke"
        if publisher == "dual_write":
            assert set(messages["outcome"]) == {"failed"}
            assert list(made.check().found["half_done"]) == (hit if only == "stock_update" else [])
        else:
            assert set(messages["outcome"]) == {"applied"}
            assert not made.check().found["half_done"]
            assert set(made.check().found["recovered"]) == set(hit)


@pytest.mark.parametrize("publisher", RELAYS)
def test_outbox_relay_that_dies_before_it_marks_publishes_again_what_broker_or_receiver_drop(publisher):
    dying = struck("relay.published", "shop", 20, "order")
    relay = {"publisher": publisher, "deduplication": 0}
    doubled = columns("outbox", dying, 200, **relay, idempotent_receiver=False)
    assert (doubled["duplicates"] > 0).sum() > 10
    for either in ({"idempotent_receiver": False, "deduplication": 120}, {}):
        messages = columns("outbox", dying, 200, **relay | either)
        assert (messages["duplicates"] == 0).all()
        assert (messages.loc[messages["response"] == "ok", "outcome"] == "applied").all()


@pytest.mark.parametrize("publisher", RELAYS)
def test_outbox_relay_without_confirms_marks_what_the_network_lost(publisher):
    updates = workload(20, only="stock_update", goods=MANY_SKUS, **lossy(0.1, "accounting-broker", "accounting"))
    blind, sure = (
        history("outbox", updates, 200, publisher=publisher, confirm=c, confirm_timeout=0.05).check().found["half_done"]
        for c in (False, True)
    )
    assert len(blind) > 10 and not sure


def test_outbox_waits_for_a_broker_that_is_down_where_a_dual_write_fails():
    down = workload(50, only="stock_update", goods=MANY_SKUS, faults=(Crash(part="broker", at=(1.0,), restart=1.0),))
    for publisher in PUBLISHERS:
        made = history("outbox", down, 150, publisher=publisher, confirm_timeout=0.05, confirm_retries=0)
        responses = set(made.messages["response"].to_pylist())
        if publisher == "dual_write":
            assert responses == {"ok", "timed_out"} and len(made.check().found["half_done"]) > 20
        else:
            assert responses == {"ok"} and not made.check().found["half_done"]


def test_outbox_callers_do_not_wait_for_the_broker():
    slow = workload(10, only="stock_update")
    outbox, dual = (
        measure(history("outbox", slow, 200, store="40 ms", publisher=p)) for p in ("polling", "dual_write")
    )
    assert outbox["response_time_p50"] < 0.01 < 0.04 < dual["response_time_p50"]


def test_outbox_polls_delay_publication_by_half_their_interval():
    """Commits are Poisson, so the next poll is as far away as a uniform draw (Ross, Stochastic Processes, ch. 3)."""
    calm = workload(2, only="stock_update")
    polled, tailed = (
        history("outbox", calm, 2000, publisher=publisher, poll_interval="200 ms", tail="0 ms").messages.to_pandas()
        for publisher in RELAYS
    )
    wait = (polled["applied"] - tailed["applied"]).dropna()
    assert wait.mean() == pytest.approx(0.1, abs=0.01)
    assert wait.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)


def test_outbox_batch_bounds_a_polling_relay():
    updates = workload(60, only="stock_update", horizon=30.0)
    few = {"batch_size": 2, "poll_interval": 0.1}
    flow = architectures.get("outbox").build(make(architectures.get("outbox").parameters, few), updates)
    (relay,) = [s for s in flow.bounds({"stock_update": 60.0}).stations if s.name == "accounting.relay"]
    assert relay.throughput == pytest.approx(20.0)
    behind, along = (history("outbox", updates, 300, **changes) for changes in (few, {}))
    assert measure(behind)["backlog_max"] > 150 > 30 > measure(along)["backlog_max"]
    times = behind.messages.to_pandas()["applied"].dropna()
    assert len(times) / (times.max() - times.min()) == pytest.approx(20.0, rel=0.05)


def test_outbox_relay_that_tails_the_log_is_sooner_and_spares_the_database():
    polled, tailed = (measure(history("outbox", workload(60), 600, publisher=publisher)) for publisher in RELAYS)
    assert tailed["delivery_time_p50.stock_update"] < 0.5 * polled["delivery_time_p50.stock_update"]
    assert tailed["utilisation.database_log"] < polled["utilisation.database_log"]


# --- batch exchange ---------------------------------------------------------------------------------------------------

UNGUARDED = {"idempotent_receiver": False, "write_if_newer": False}
UNHEARD = {"timeout": 0.05, "retry_after": 0.1, "max_deliveries": 100}
"""A side that asks gives up soon, and tries again for long."""


def late(messages, kind="stock_update"):
    """From issue to effect."""
    of_kind = messages[messages["kind"] == kind]
    return (of_kind["applied"] - of_kind["issued"]).dropna()


def test_batch_exchange_delivers_half_an_interval_and_the_cost_of_a_run_later():
    """Changes are Poisson, so the next run is as far away as a uniform draw; a run costs a and b for each record, twice."""
    interval, rate, work = 2.0, 2, 0.002
    calm = workload(rate, only="stock_update", goods=MANY_SKUS, handler_work=Constant(work))
    messages = columns("batch_exchange", calm, 2000, interval=interval, file="50 ms", record="1 ms")
    cost = messages["applied"] % interval
    records = messages.groupby("applied")["message"].transform("size")
    fixed = cost - 2 * (0.05 + 0.001 * records) - work * records
    assert fixed.between(0.003, 0.01).all(), "a few transactions and requests"
    assert late(messages).mean() == pytest.approx(interval / 2 + cost.mean(), rel=0.03)
    assert (late(messages) - cost).std() == pytest.approx(interval / 12**0.5, rel=0.05)


def test_batch_exchange_shows_what_is_older_the_longer_the_interval():
    stale, oldest = zip(*(
        [measure(history("batch_exchange", workload(60), 1500, interval=interval))[name]
         for name in ("stale_read_fraction", "age_of_information_max")] for interval in (0.5, 2.0, 8.0)
    ), strict=True)  # fmt: skip
    assert 0 < stale[0] < stale[1] < stale[2]
    assert oldest[0] < 1.5 and 2.0 < oldest[1] < 4.0 and 8.0 < oldest[2]


@pytest.mark.parametrize("only", ["stock_update", "order"])
def test_batch_exchange_reads_a_file_again_as_a_whole_and_doubles_it_unless_the_receiver_is_idempotent(only):
    deaf = workload(20, only=only, goods=MANY_SKUS, **lossy(0.3, "accounting-shop"))
    doubled = columns("batch_exchange", deaf, 200, interval=0.5, **UNHEARD, **UNGUARDED)
    again = doubled["duplicates"] > 0
    assert again.sum() > 20
    assert (again.groupby(doubled["applied"]).nunique() == 1).all(), "all of a file, or none"
    once = columns("batch_exchange", deaf, 200, interval=0.5, **UNHEARD)
    assert (once["duplicates"] == 0).all() and set(once["outcome"]) == {"applied"}
    assert once["deliveries"].max() > 3


def test_batch_exchange_side_that_dies_over_a_file_reads_it_again():
    dying = workload(
        20, only="order", goods=MANY_SKUS,
        faults=(Crash(part="accounting", point="accounting.import.written", probability=0.02, restart=0.1),),
    )  # fmt: skip
    doubled, once = (
        columns("batch_exchange", dying, 200, interval=0.5, max_deliveries=100, idempotent_receiver=guard)
        for guard in (False, True)
    )
    assert (doubled["duplicates"] > 0).sum() > 5
    assert (once["duplicates"] == 0).all() and set(once["outcome"]) == {"applied"}


def test_batch_exchange_record_that_fails_fails_its_file_unless_each_is_a_transaction():
    poisoned = workload(20, only="stock_update", goods=MANY_SKUS, faults=(Poison(probability=0.02),))
    tries = {"interval": 1.0, "retry_after": 0.05, "max_deliveries": 3}
    whole, alone, dropped = (
        columns("batch_exchange", poisoned, 300, transaction=transaction, park=park, **tries)
        for transaction, park in (("file", True), ("record", True), ("record", False))
    )
    bad = set(alone.index[alone["outcome"] == "dead_lettered"])
    assert 2 < len(bad) < 20 and set(alone["outcome"]) == {"applied", "dead_lettered"}
    aside = set(whole.index[whole["outcome"] == "dead_lettered"])
    assert bad < aside and len(aside) > 5 * len(bad), "what stood in a file with one of them"
    assert set(dropped.index[dropped["outcome"] == "lost"]) == bad


def test_batch_exchange_commits_once_a_file_unless_each_record_is_a_transaction():
    together, apart = (
        measure(history("batch_exchange", workload(40), 800, interval=2.0, transaction=transaction))
        for transaction in ("file", "record")
    )
    assert apart["utilisation.database_log"] > 1.3 * together["utilisation.database_log"]


def test_batch_exchange_sends_the_last_change_of_a_sku_alone_where_it_coalesces():
    busy = workload(60, only="stock_update", goods=Goods(skus=20))
    each, last = (history("batch_exchange", busy, 900, interval=2.0, coalesce=coalesce) for coalesce in (False, True))
    outcomes = last.messages.to_pandas()["outcome"]
    files = last.effects.to_pandas().query("effect == 'copied'").groupby("time").size()
    assert files.max() <= 20 and (outcomes == "superseded").sum() > 500
    assert (each.messages.to_pandas()["outcome"] == "applied").all()
    assert measure(last)["utilisation.shop.cpu"] < 0.5 * measure(each)["utilisation.shop.cpu"]
    level = [made.effects.to_pandas().query("store == 'copy'").groupby("sku")["version"].max() for made in (each, last)]
    assert (level[0] == level[1]).all(), "the copy ends the same"


def test_batch_exchange_of_all_there_is_costs_as_much_as_there_are_goods():
    changes = {"interval": 4.0, "record": "0.5 ms"}
    full, delta = (
        [late(columns("batch_exchange", workload(5, only="stock_update", goods=Goods(skus=skus, zipf=0.0)), 100,
                      exchange=exchange, **changes)).mean() for skus in (100, 2100)]
        for exchange in ("full", "delta")
    )  # fmt: skip
    assert full[1] - full[0] == pytest.approx(2 * 2000 * 0.0005, rel=0.05)
    assert delta[1] == pytest.approx(delta[0], rel=0.02)


def test_batch_exchange_runs_that_overlap_hide_a_long_way():
    far = workload(10, only="stock_update", goods=MANY_SKUS)
    one, four = (
        late(columns("batch_exchange", far, 200, interval=0.5, network="1 s", timeout=10.0, runs=runs)).median()
        for runs in (1, 4)
    )
    assert one > 1.2 * four


def test_batch_exchange_runs_that_overlap_write_old_levels_over_new_ones_unless_the_copy_knows_versions():
    tangled = workload(40, only="stock_update", goods=ONE_SKU)
    overlapping = {"interval": 0.1, "network": "exponential(300 ms)", "timeout": 10.0, "runs": 8}
    blind, knowing = (
        history("batch_exchange", tangled, 300, **overlapping, write_if_newer=newer).check().counts["reordered"]
        for newer in (False, True)
    )
    assert blind > 5 and knowing == 0


def test_batch_exchange_keeps_what_rest_fails_while_the_shop_is_down():
    struck = workload(50, only="stock_update", faults=(Crash(part="shop", at=(2.0,), restart=1.0),))
    called, exchanged = (columns(name, struck, 300) for name in ("rest", "batch_exchange"))
    assert (called["outcome"] == "failed").sum() > 20
    assert set(exchanged["outcome"]) <= {"applied", "superseded"} and set(exchanged["response"]) == {"ok"}


# --- cqrs -------------------------------------------------------------------------------------------------------------

CURIOUS = {"customers": 10, "goods": Goods(skus=20), "mix": Mix(stock_update=0.2, order=0.3, stock_query=0.5)}
"""Few customers of few goods, who often look at what they have just ordered."""
SCARCE = Goods(skus=20, zipf=0.0, units=2)
LAGGING = {"replicas": 3, "replication": "100 ms"}
NO_TIME = {
    "uplink": 0,
    "store": 0,
    "publish_client": 0,
    "consume_client": 0,
    "commit": 0,
    "read": 0,
    "database_client": 0,
}


def unseen(made):
    """How many queries did not see their customer's own order."""
    return len(made.check().found["unseen_write"])


def test_cqrs_queries_are_answered_while_accounting_is_down_where_those_of_rest_fail():
    down = workload(50, only="stock_query", faults=(Crash(part="accounting", at=(1.0,), restart=2.0),))
    rest, cqrs = (columns(name, down, 200)["response"] for name in ("rest", "cqrs"))
    assert set(cqrs) == {"ok"} and (rest == "failed").sum() > 50


def test_cqrs_with_a_projection_in_no_time_shows_nothing_stale():
    busy = workload(100, **CURIOUS | {"handler_work": Constant(0.0)})
    at_once, later = (
        measure(history("cqrs", busy, 2000, **NO_TIME, **lag))["stale_read_fraction"]
        for lag in ({"replication": 0}, LAGGING)
    )
    assert at_once == 0 and later > 0.1


def test_cqrs_sells_no_more_than_there_is_where_the_message_queue_does():
    rush = small_sale()
    queue, cqrs = (
        measure(history(name, rush, rush.arrivals.needed()))["oversold_units"] for name in ("message_queue", "cqrs")
    )
    assert queue > 0 and cqrs == 0


def test_cqrs_commands_take_as_long_as_those_of_rest_where_nothing_else_is_done():
    """To the bit: the event of a command is published after its answer."""
    orders = workload(1, only="order", goods=SCARCE, handler_failure=0.1)
    rest, cqrs = (columns(name, orders, 200) for name in ("rest", "cqrs"))
    assert (rest["responded"] == cqrs["responded"]).all()
    assert list(rest["response"]) == list(cqrs["response"]) and set(cqrs["response"]) == {"ok", "refused"}


def test_cqrs_reads_are_stale_where_a_change_came_within_the_lag_of_their_replica():
    """Changes of a SKU are Poisson of rate r, so that a replica that lags by L is stale with probability 1 − exp(−r·L) (the
    staleness of a single replica in Bailis et al., PVLDB 5(8), 2012)."""
    rate, skus, lag = 120, 10, 0.05
    busy = workload(
        rate, goods=Goods(skus=skus, zipf=0.0, units=10**6), mix=Mix(stock_update=0.5, order=0, stock_query=0.5), customers=10,
        handler_work=Constant(0.0),
    )  # fmt: skip
    for replicas in (1, 3):
        made = history("cqrs", busy, 20_000, **NO_TIME, replicas=replicas, replication=lag)
        changes = 0.5 * rate / skus
        expected = sum(1 - math.exp(-changes * k * lag) for k in range(replicas)) / replicas
        assert measure(made)["stale_read_fraction"] == pytest.approx(expected, abs=0.01)


def test_cqrs_tokens_show_customers_their_own_orders_and_make_them_wait():
    curious = workload(60, **CURIOUS)
    blind, knowing = (
        history("cqrs", curious, 2000, read_your_writes=remedy, patience=5, **LAGGING) for remedy in ("none", "token")
    )
    assert unseen(blind) > 50 and unseen(knowing) == 0
    slow, quick = (measure(made)["response_time_p95.stock_query"] for made in (knowing, blind))
    assert slow > 5 * quick
    assert measure(knowing)["stale_read_fraction"] > 0.1, "others' orders are as unseen as before"


def test_cqrs_tokens_are_given_up_when_the_patience_is_over():
    lossy_events = workload(60, **CURIOUS, **lossy(0.2, "accounting-broker", "accounting"))
    token = {"read_your_writes": "token", "confirm": False}
    patient, hasty = (history("cqrs", lossy_events, 1000, patience=patience, **token) for patience in ("2 s", "50 ms"))
    waits = [
        made.messages.to_pandas().query("kind == 'stock_query'").eval("responded - issued") for made in (patient, hasty)
    ]
    assert waits[0].max() > 2 and waits[1].max() < 0.5
    assert set(patient.messages["response"].to_pylist()) <= {"ok", "refused"}, "what there is, late"


def test_cqrs_sticky_reads_show_own_orders_within_one_replica_only():
    curious = workload(60, **CURIOUS)
    sticky = {"read_your_writes": "sticky", **LAGGING}
    blind, astray, stuck = (
        unseen(history("cqrs", curious, 2000, **changes)) for changes in (LAGGING, {**sticky, "affinity": 0.5}, sticky)
    )
    assert stuck == 0 < 0.3 * blind < astray < 0.8 * blind


def test_cqrs_sticky_reads_cost_the_command_and_tokens_the_query():
    curious = workload(30, **CURIOUS)
    none, token, sticky = (
        measure(history("cqrs", curious, 1000, read_your_writes=remedy, **LAGGING))
        for remedy in ("none", "token", "sticky")
    )
    order, query = "response_time_p50.order", "response_time_mean.stock_query"
    assert token[order] == none[order] and sticky[order] > none[order] + 0.001
    assert sticky[query] == pytest.approx(none[query], rel=0.1) and token[query] > 1.5 * none[query]


def test_cqrs_events_that_come_again_take_the_read_model_back_unless_it_knows_versions():
    flaky = workload(60, only="stock_update", handler_failure=0.2, goods=ONE_SKU)
    blind, knowing = (history("cqrs", flaky, 300, write_if_newer=w).check().counts for w in (False, True))
    assert blind["reordered"] > 20 and knowing["reordered"] == 0


def test_cqrs_events_without_confirm_are_lost_and_the_read_model_never_knows():
    orders = workload(20, only="order", goods=MANY_SKUS, **lossy(0.1, "accounting-broker", "accounting"))
    blind, sure = (
        history("cqrs", orders, 200, confirm=c, confirm_timeout=0.05).check().found["half_done"] for c in (False, True)
    )
    assert len(blind) > 10 and not sure


def test_cqrs_projects_what_accounting_dies_over_only_where_it_keeps_its_events():
    """Accounting dies where a change is committed and not yet published, or answered: what is in its streams comes of itself."""
    projected = {}
    for sourced, point in ((False, "update.committed"), (True, "event.appended")):
        dying = struck(point, "accounting", 20, only="stock_update")
        made = history("cqrs", dying, 200, event_sourcing=sourced)
        effects = made.effects.to_pandas()
        issued, copied = (set(effects.loc[effects["effect"] == effect, "message"]) for effect in ("issued", "copied"))
        projected[sourced] = len(issued - copied)
    assert projected[False] > 5 and projected[True] == 0


def test_cqrs_with_event_sourcing_takes_as_long_as_event_sourcing():
    """To the bit: with one replica of the read model the two are one."""
    shared = {"dispatch": "0.25 ms"}
    busy = workload(40, goods=SCARCE, handler_failure=0.1)
    alone, behind = (
        columns("event_sourcing", busy, 300, **shared),
        columns("cqrs", busy, 300, **shared, event_sourcing=True, replicas=1),
    )
    for column in ("responded", "applied", "response", "version"):
        assert alone[column].equals(behind[column])


# --- event sourcing ---------------------------------------------------------------------------------------------------

ES = "event_sourcing"


@pytest.mark.parametrize("concurrency", ["optimistic", "lock"])
def test_event_sourcing_conflicts_grow_with_the_contention_of_one_stream_and_a_lock_has_none(concurrency):
    tries = []
    for skus in (1000, 20, 1):
        updates = workload(50, only="stock_update", goods=Goods(skus=skus))
        messages = columns(ES, updates, 400, concurrency=concurrency)
        assert set(messages["response"]) == {"ok"}
        tries.append(messages["attempts"].mean() - 1)
    if concurrency == "optimistic":
        assert tries[0] < 0.05 < tries[2] and tries == sorted(tries)
    else:
        assert tries == [0, 0, 0]


def test_event_sourcing_fails_changes_that_conflict_unless_it_tries_again():
    updates = workload(50, only="stock_update", goods=ONE_SKU)
    never, often = (columns(ES, updates, 400, conflict_retries=n) for n in (0, 10))
    assert (never["response"] == "failed").sum() > 20
    assert set(never.loc[never["response"] == "failed", "outcome"]) == {"failed"}, "nothing was appended"
    assert set(often["response"]) == {"ok"}


def test_event_sourcing_takes_longer_with_each_event_unless_there_are_snapshots():
    updates = workload(20, only="stock_update", goods=ONE_SKU)
    times = {}
    for every in (0, 10):
        messages = columns(ES, updates, 400, snapshot_every=every, per_event="0.1 ms", conflict_backoff=0)
        waited = messages["responded"] - messages["issued"]
        times[every] = waited[:100].median(), waited[300:].median()
    early, late = times[0]
    assert late - early > 0.9 * 0.0002 * 250, "each event costs the server and the side"
    early, late = times[10]
    assert late < 1.2 * early < times[0][0] * 1.2


def test_event_sourcing_flushes_many_appends_at_once():
    updates = workload(150, only="stock_update")
    slow = {"commit": "10 ms", "event_retries": 0}
    alone, together = (history(ES, updates, 300, group_commit=g, **slow).messages.to_pandas() for g in (False, True))
    alone, together = ((m["responded"] - m["issued"]).quantile(0.9) for m in (alone, together))
    assert together < 0.2 < alone, "150 flushes a second of 10 ms are more than one disk can do"


def test_event_sourcing_projects_what_was_appended_whatever_dies_after_it():
    """Where accounting dies between its append and its answer, nobody was told; but there is no second write to be missed."""
    crash = Crash(part="accounting", point="event.appended", probability=0.1, restart=0.05)
    for only in ("stock_update", "order"):
        made = history(ES, workload(10, only=only, faults=(crash,), goods=MANY_SKUS), 200)
        assert made.faults.num_rows > 10
        assert set(made.messages.to_pandas().loc[made.faults["message"].to_pylist(), "outcome"]) == {"applied"}
        assert not made.check().found["half_done"] and not made.check().found["duplicated"]


def test_event_sourcing_projection_that_was_down_catches_up_from_its_position():
    crash = Crash(part="shop", point="event.projected", probability=0.03, restart=0.5)
    messages = columns(ES, workload(50, only="stock_update", faults=(crash,), goods=ONE_SKU), 300)
    assert set(messages["outcome"]) <= {"applied", "superseded"}
    assert (messages["deliveries"] > 2).sum() > 10 and (messages["duplicates"] == 0).all()
    updated = messages.sort_values("version")
    assert updated["applied"].dropna().is_monotonic_increasing, "in the order of the log"


@pytest.mark.parametrize("what", ["delivered again", "replayed"])
def test_event_sourcing_replays_write_old_levels_again_unless_the_copy_knows_versions(what):
    changes, faults = {"rebuild_every": 2.0}, ()
    if what == "delivered again":
        crash = Crash(part="shop", point="event.projected", probability=0.05, restart=0.05)
        changes, faults = {"rebuild_every": 0}, (crash,)
    updates = workload(50, only="stock_update", faults=faults, goods=ONE_SKU)
    blind, knowing = (history(ES, updates, 150, write_if_newer=w, **changes) for w in (False, True))
    assert len(blind.check().found["duplicated"]) > 5
    assert (len(blind.check().found["reordered"]) > 5) == (what == "replayed"), "the last is delivered again, or all"
    assert not knowing.check().found["duplicated"] and not knowing.check().found["reordered"]


def test_event_sourcing_rebuild_replays_all_events_and_holds_up_what_is_new():
    steady = workload(100, goods=Goods(skus=20))
    undisturbed, rebuilt = (history(ES, steady, 800, rebuild_every=t) for t in (0, 5.0))
    before, after = (made.messages.to_pandas() for made in (undisturbed, rebuilt))
    appended = before["kind"] != "stock_query"
    early = appended & (before["responded"] < 4.5)
    assert ((after["deliveries"] - before["deliveries"])[early] == 1).all()
    later = appended & (before["issued"] > 5.1) & (before["issued"] < 6.0)
    delays = [
        (made["applied"] - made["issued"])[later & (made["kind"] == "stock_update")].median()
        for made in (before, after)
    ]
    assert delays[1] > 20 * delays[0]
    assert measure(rebuilt)["stale_read_fraction"] > 2 * measure(undisturbed)["stale_read_fraction"]


def test_event_sourcing_poison_is_set_aside_or_holds_up_the_rest():
    poisoned = workload(20, only="stock_update", faults=(Poison(probability=0.05),), horizon=2.0)
    aside = columns(ES, poisoned, 100, event_backoff=0.01)
    assert 2 < (aside["outcome"] == "dead_lettered").sum() < 15
    assert set(aside["outcome"]) <= {"applied", "superseded", "dead_lettered"}
    stuck = columns(ES, poisoned, 100, event_backoff=0.1, set_aside=False)
    first = aside.index[aside["outcome"] == "dead_lettered"][0]
    assert (stuck.loc[stuck.index > first + 5, "outcome"] == "in_flight").all()


def test_event_sourcing_projection_tries_again_what_it_failed_on():
    flaky = workload(50, only="stock_update", handler_failure=0.3)
    aside = [(columns(ES, flaky, 300, event_retries=n)["outcome"] == "dead_lettered").sum() for n in (0, 1, 8)]
    assert aside[0] > 60 > 45 > aside[1] > aside[2] == 0


def test_event_sourcing_orders_sent_again_are_taken_twice_unless_they_carry_a_key():
    orders = workload(5, only="order", **SLOW)
    impatient = {"timeout": 0.03, "retries": 1, "backoff": 0.01}
    doubled, once = (columns(ES, orders, 60, **impatient, idempotency=key) for key in (False, True))
    assert (doubled["duplicates"] > 0).sum() > 40
    assert (once["duplicates"] == 0).all() and (once["outcome"] == "applied").sum() > 40


# --- service mesh -----------------------------------------------------------------------------------------------------

NO_MESH = {
    "loopback": 0.0, "hop": 0.0, "mtls": False, "push": 0.0, "proxy_retries": 0, "proxy_timeout": 1000.0, "ejection": 0,
}  # fmt: skip
"""Sidecars that cost nothing and do nothing."""


@pytest.mark.parametrize("changes", [{}, {"timeout": 0.02}, {"connections": 2, "timeout": 0.05, "idempotency": False}])
def test_service_mesh_that_costs_and_does_nothing_is_rest(changes):
    flaky = workload(150, handler_failure=0.2)
    called, passed = (
        history(name, flaky, 600, **changes, **none) for name, none in (("rest", {}), ("service_mesh", NO_MESH))
    )
    for table in ("messages", "effects"):
        one, other = (getattr(made, table).to_pandas() for made in (called, passed))
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_categorical=False)


def test_service_mesh_adds_its_passages_to_every_call():
    calm = workload(5, only="stock_query")
    times = {"hop": "1 ms", "tls": "0.5 ms", "loopback": "0.25 ms"}
    without, plain, encrypted = (
        measure(history(name, calm, 200, **changes))["response_time_mean"]
        for name, changes in (("rest", {}), ("service_mesh", times | {"mtls": False}), ("service_mesh", times))
    )
    assert plain - without == pytest.approx(4 * 0.001 + 4 * 0.00025, rel=0.05)
    assert encrypted - plain == pytest.approx(4 * 0.0005, rel=0.05)


@pytest.mark.parametrize(("retries", "proxy_retries"), [(0, 0), (0, 2), (3, 0), (3, 2)])
def test_service_mesh_retries_multiply_those_of_the_application(retries, proxy_retries):
    failing = workload(5, only="stock_query", handler_failure=1.0)
    made = history("service_mesh", failing, 50, retries=retries, proxy_retries=proxy_retries)
    parts = made.parts.to_pandas()
    visits = parts.loc[parts["name"] == "accounting.cpu", "completed"].sum() / 3
    assert visits == 50 * (retries + 1) * (proxy_retries + 1)


def test_service_mesh_budget_bounds_what_its_retries_add():
    failing = workload(20, only="stock_query", handler_failure=1.0)
    made = history("service_mesh", failing, 400, retries=0, proxy_budget=0.25)
    parts = made.parts.to_pandas()
    assert 480 <= parts.loc[parts["name"] == "accounting.cpu", "completed"].sum() / 3 <= 500


def test_service_mesh_tries_again_before_the_application_knows():
    lossy_updates = workload(20, only="stock_update", goods=MANY_SKUS, **lossy(0.1, "accounting-shop"))
    hasty, patient = (
        columns("service_mesh", lossy_updates, 200, proxy_timeout=t, proxy_retries=8, proxy_backoff="5 ms")
        for t in ("50 ms", "10 s")
    )
    assert set(hasty["outcome"]) == set(patient["outcome"]) == {"applied"}
    assert (hasty["attempts"] == 1).all() and (patient["attempts"] > 1).sum() > 20
    assert hasty["responded"].sub(hasty["issued"]).max() < 1.0


def test_service_mesh_leaves_a_bad_process_out_until_it_is_tried_again():
    struck = workload(30, only="stock_query", faults=(Crash(part="accounting.2", at=(1.0,), restart=5.0),))
    once = {"processes": 3, "retries": 0, "proxy_retries": 0}
    kept, ejected = (columns("service_mesh", struck, 300, **once, ejection=n, ejection_lasts="2 s") for n in (0, 3))
    failed = [messages["response"] == "failed" for messages in (kept, ejected)]
    assert 40 < failed[0].sum() < 60, "one in three of those who asked meanwhile"
    assert failed[1].sum() == 5, "three to be left out, and one each time that it is tried again"


def test_service_mesh_leaves_out_no_more_than_it_may():
    """One process is all there is: half of it is none."""
    failing = workload(20, only="stock_query", handler_failure=0.7)
    for share, responses in ((0.5, {"ok", "failed"}), (1.0, {"failed"})):
        made = columns("service_mesh", failing, 200, retries=0, ejection=1, ejection_lasts="1 h", max_ejected=share)
        assert set(made["response"][20:]) == responses


def test_service_mesh_limits_keep_what_would_overload_the_other_side_away_from_it():
    crowd = workload(450, only="stock_query")
    patient = {"connections": 1000, "timeout": 100.0, "proxy_timeout": 100.0, "retries": 0, "proxy_retries": 0}
    limits = {"proxy_connections": 4, "proxy_pending": 4}
    free, limited = (columns("service_mesh", crowd, 3000, **patient, **some) for some in ({}, limits))
    waited = [(m["responded"] - m["issued"])[m["response"] == "ok"].quantile(0.95) for m in (free, limited)]
    assert set(free["response"]) == {"ok"} and (limited["response"] == "failed").mean() > 0.1
    assert waited[1] < 0.2 * waited[0]


def test_service_mesh_on_haproxy_leaves_out_the_last_process_too_and_envoy_keeps_it():
    failing = workload(20, only="stock_query", handler_failure=1.0)
    once = {"retries": 0, "proxy_retries": 0, "ejection_lasts": "1 h"}
    kept, alone = (columns("service_mesh", failing, 100, proxy=proxy, **once) for proxy in ("envoy", "haproxy"))
    assert set(kept["response"]) == set(alone["response"]) == {"failed"}
    asked, refused = ((made["responded"] - made["issued"])[20:] for made in (kept, alone))
    assert refused.max() < asked.min(), "what is refused here never comes to the other side"


def test_service_mesh_stands_still_for_a_moment_when_it_is_configured():
    calm = workload(50, only="stock_query")
    seldom, often = (
        measure(history("service_mesh", calm, 1000, push=push, push_interval="1 s", workers=1))["response_time_p99"]
        for push in ("0 ms", "100 ms")
    )
    assert often > 5 * seldom


def test_service_mesh_cuts_a_side_off_whose_sidecar_is_down():
    struck = workload(50, only="stock_query", faults=(Crash(part="shop.sidecar", at=(1.0,), restart=1.0),))
    messages = columns("service_mesh", struck, 150, retries=0)
    meanwhile = messages["issued"].between(1.0, 1.95)
    assert set(messages.loc[meanwhile, "response"]) == {"failed"}
    assert set(messages.loc[messages["issued"] > 2.0, "response"]) == {"ok"}


# --- sagas ------------------------------------------------------------------------------------------------------------

STYLES = ["saga/orchestrated", "saga/choreographed"]
both_styles = pytest.mark.parametrize("name", STYLES)
UNHAPPY = {"step_refused": 0.1, "step_timed_out": 0.05}


def drawn(scenario, messages, seed=1):
    """What becomes of each order by the failures that are drawn for its steps, whoever meets them."""

    def happens(probability, stream, message):
        place = draws.fold(draws.fold(0, message), 0)
        return draws.uniform(draws.stream_key(seed, stream), place) < probability

    def outcome(message):
        for k, step in enumerate(scenario.steps):
            if happens(scenario.step_refused, f"step_refused.{step}", message):
                return "compensated" if k else "rejected"
            if happens(scenario.step_timed_out, f"step_timed_out.{step}", message):
                return "compensated"
        return "applied"

    return [outcome(message) for message in range(messages)]


def undoings(made):
    """The rows of the history that undo something."""
    rows = made.effects.to_pandas()
    return rows[rows["effect"].astype(str).str.endswith(".undone")]


@both_styles
def test_saga_without_failures_undoes_nothing(name):
    made = history(name, process(), 300)
    assert set(made.messages["outcome"].to_pylist()) == {"applied"} and undoings(made).empty
    assert not any(made.check().counts.values())


@both_styles
def test_saga_undoes_exactly_the_orders_that_the_draws_say(name):
    """As many as are drawn, which is a binomial number: refused after the first step, or not heard of."""
    made, expected = history(name, process(**UNHAPPY), 500), drawn(process(**UNHAPPY), 500)
    assert made.messages["outcome"].to_pylist() == expected
    p = 1 - (0.9 * 0.95) ** 4 - 0.1
    assert abs(measure(made)["compensated"] - 500 * p) < 3 * (500 * p * (1 - p)) ** 0.5
    assert set(made.messages["response"].to_pylist()) == {"ok", "refused"}
    assert measure(made)["half_finished"] == 0 and not any(
        made.check().found[n] for n in ("denied", "half_done", "lost")
    )


def test_saga_styles_end_alike_under_the_same_failures_and_differ_in_times():
    one, other = (history(name, process(**UNHAPPY), 300) for name in STYLES)
    for column in ("outcome", "response"):
        assert one.messages[column].to_pylist() == other.messages[column].to_pylist()
    happened = [
        sorted(zip(made.effects["message"].to_pylist(), made.effects["effect"].to_pylist(), strict=True))
        for made in (one, other)
    ]
    assert happened[0] == happened[1]
    times = [measure(made)["response_time_p50.order"] for made in (one, other)]
    assert times[0] > 1.1 * times[1], "an orchestrator hears of each step, and writes down what it heard"


@both_styles
def test_saga_undoes_in_reverse_order_what_was_done_and_nothing_else(name):
    rows = history(name, process(**UNHAPPY), 300).effects.to_pandas()
    assert rows["effect"].astype(str).str.endswith(".undone").sum() > 60
    for _, mine in rows[~rows["store"].isin(["copy"])].groupby("message"):
        effects = mine["effect"].astype(str).tolist()
        done = [effect for effect in effects if not effect.endswith(".undone")]
        assert done == ["taken", "paid", "shipped", "confirmed"][: len(done)]
        assert effects[len(done) :] in ([], [f"{effect}.undone" for effect in reversed(done)])


@both_styles
def test_saga_without_compensation_leaves_processes_half_finished(name):
    on, off = (history(name, process(**UNHAPPY), 300, compensation=c) for c in (True, False))
    assert measure(on)["half_finished"] == 0 == measure(off)["compensated"]
    silent = {i for i, outcome in enumerate(drawn(process(**UNHAPPY), 300)) if outcome == "compensated"}
    assert measure(off)["half_finished"] > 60 and set(off.check().found["half_finished"]) <= silent


@both_styles
def test_saga_undoing_that_fails_is_tried_again_and_at_last_left_undone(name):
    hard = process(step_refused=0.2, undoing_failed=0.5)
    patient = history(name, hard, 300, max_deliveries=40)
    assert measure(patient)["half_finished"] == 0 < measure(patient)["compensated"]
    assert (
        patient.messages.to_pandas()["deliveries"].max()
        > history(name, process(), 300).messages.to_pandas()["deliveries"].max()
    )
    once = {"undo_retries": 0} if name == "saga/orchestrated" else {}
    hasty = history(name, hard, 300, max_deliveries=1, **once)
    assert measure(hasty)["half_finished"] > 20


@both_styles
def test_saga_without_locks_refuses_an_order_for_units_that_come_back(name):
    """Units that nobody has in the end, of a SKU of which an order was refused for want of them."""
    scarce = process(10, step_timed_out=0.2, goods=Goods(skus=5, zipf=0.0, units=3, receipts=False))
    for locks in (True, False):
        made = history(name, scarce, 60, semantic_locks=locks, answer_timeout=1000)
        messages, rows = made.messages.to_pandas(), made.effects.to_pandas()
        left = 3 + rows.loc[rows["store"] == "stock"].groupby("sku")["change"].sum()
        refused = set(messages.loc[messages["outcome"] == "rejected", "sku"])
        assert refused
        assert (max(left[sku] for sku in refused) > 0) != locks


@both_styles
def test_saga_locks_make_orders_of_one_sku_wait_for_each_other(name):
    one = process(15, goods=Goods(skus=1, units=10_000))
    locked, free = (measure(history(name, one, 300, semantic_locks=locks)) for locks in (True, False))
    assert locked["response_time_p95.order"] > 1.5 * free["response_time_p95.order"]


@both_styles
def test_saga_that_is_remembered_outlives_a_crash_of_the_shop(name):
    """What nobody hears of is undone only where the shop still waits for it."""
    struck = process(step_timed_out=0.1, faults=(Crash(part="shop", at=(2.0, 5.0, 8.0), restart=0.5),))
    kept, forgotten = (history(name, struck, 300, durable_state=d) for d in (True, False))
    assert measure(kept)["half_finished"] == 0 < measure(kept)["compensated"]
    assert measure(forgotten)["half_finished"] > 0
    assert not kept.check().found["duplicated"]


@both_styles
def test_saga_steps_that_are_delivered_again_are_done_again_unless_services_are_idempotent(name):
    deaf = process(**lossy(0.1, "broker-payment", "payment"))
    for idempotent in (True, False):
        made = history(name, deaf, 100, idempotent_receiver=idempotent, ack_wait=0.2)
        twice = made.effects.to_pandas().query("effect == 'paid'")["message"].duplicated().sum()
        assert (twice > 3) != idempotent


@both_styles
def test_saga_customers_who_do_not_wait_for_the_end_do_not_know_it(name):
    made = columns(name, process(), 200, answer_timeout=0.01)
    assert set(made["response"]) == {"timed_out"} and set(made["outcome"]) == {"applied"}


def test_orchestrated_saga_of_one_step_is_a_request_to_a_message_queue(differences):
    """Without event loops, in which the saga has a turn beside that of the request that began it."""
    flaky = workload(100, handler_failure=0.1, goods=Goods(skus=20, zipf=0.0, units=5))
    saga = history("saga/orchestrated", flaky, 500, durable_state=False, compensation=False, event_loop=False)
    queue = history("message_queue", flaky, 500, answered_on="reply", deduplication=0, event_loop=False)
    assert differences(saga, queue) == []


def test_tasks_of_event_loops_go_on_before_whoever_waits_in_line():
    """A task keeps its loop until it waits, and its call leaves a turn later, so that answers are later the busier a service is."""
    for rate, least, most in ((5, 0.999, 1.02), (250, 1.03, 2.0)):
        together, piece_by_piece = (columns("rest", workload(rate), 2000, event_loop=each) for each in (True, False))
        means = [(made["responded"] - made["issued"]).mean() for made in (together, piece_by_piece)]
        assert least < means[0] / means[1] < most, f"at {rate}/s"


def test_orchestrated_saga_waits_for_a_step_as_long_as_its_timeout_and_then_has_it_undone():
    for limit in (0.2, 1.0):
        made = columns("saga/orchestrated", process(step_timed_out=0.1), 200, step_timeout=limit)
        times = (made["responded"] - made["issued"])[made["outcome"] == "compensated"]
        assert limit < times.min() < times.max() < limit + 0.2
    hasty = history("saga/orchestrated", process(handler_work=Constant(0.02)), 100, step_timeout=0.01)
    assert set(hasty.messages["outcome"].to_pylist()) <= {"compensated", "rejected"}, (
        "undone, or it never came to be done"
    )


def test_choreographed_saga_of_one_step_takes_the_units_when_a_message_queue_does():
    flaky = workload(100, handler_failure=0.1, goods=Goods(skus=20, zipf=0.0, units=5))
    saga = columns("saga/choreographed", flaky, 500, durable_state=False)
    queue = columns("message_queue", flaky, 500, answered_on="reply", deduplication=0)
    for column in ("outcome", "response"):
        assert saga[column].tolist() == queue[column].tolist()
    orders = saga["kind"] == "order"
    assert (saga.loc[orders, "responded"] > queue.loc[orders, "responded"]).all()


def test_choreographed_saga_waits_for_the_end_until_its_deadline_and_then_has_all_undone():
    for deadline in (0.3, 1.0):
        made = columns("saga/choreographed", process(step_timed_out=0.1), 200, deadline=deadline)
        late = made[made["outcome"] == "compensated"]
        assert (late["responded"] - late["issued"]).between(deadline, deadline + 0.1).all()
    alone = history("saga/choreographed", process(step_timed_out=0.1), 200, compensation=False)
    assert (
        set(alone.messages["response"].to_pylist()) == {"ok", "timed_out"}
        and alone.check().counts["half_finished"] > 30
    )


# --- streaming --------------------------------------------------------------------------------------------------------

UNKNOWING = {"idempotent_receiver": False, "write_if_newer": False}


def test_streaming_without_load_takes_the_sum_of_its_times():
    calm = workload(1, only="stock_update", handler_work=Constant(0.002))
    p = make(architectures.get("streaming").parameters, {})
    transaction = 2 * p.database_client.mean_value + p.read.mean_value + p.commit.mean_value
    written = p.linger + p.write_batch.mean_value + p.per_record + p.flush.mean_value
    way = p.publish_client.mean_value + p.uplink.mean_value + written
    read = p.uplink.mean_value + p.consume_client.mean_value + 0.002 + transaction
    total = p.edge.mean_value + p.http_server.mean_value + transaction + way + read
    messages = columns("streaming", calm, 50)
    assert late(messages).median() == pytest.approx(total, rel=1e-9)


def test_streaming_linger_makes_single_records_later_and_lets_many_through():
    """A flush of 10 ms for each batch: without linger there are more batches a second than one disk can flush."""
    slow_disk = {"flush": "10 ms", "in_flight": 100}
    times = {}
    for rate in (5, 150):
        updates = workload(rate, only="stock_update")
        for linger in (0, 0.02):
            messages = columns("streaming", updates, 30 * rate if rate > 5 else 100, linger=linger, **slow_disk)
            times[rate, linger] = (messages["responded"] - messages["issued"]).median()
    assert times[5, 0.02] == pytest.approx(times[5, 0] + 0.02, rel=0.1)
    assert times[150, 0.02] < 0.1 < 1 < times[150, 0]


def test_streaming_large_batches_spare_the_broker():
    updates = workload(150, only="stock_update")
    alone, together = (
        measure(history("streaming", updates, 500, batch_records=n, linger=0.02))["utilisation.broker.updates.io"]
        for n in (1, 16)
    )
    assert alone > 2 * together


def test_streaming_batches_in_flight_bound_the_throughput_on_a_long_link():
    updates = workload(100, only="stock_update")
    one, many = (
        measure(history("streaming", updates, 300, uplink="20 ms", in_flight=n, batch_records=1, linger=0))
        for n in (1, 20)
    )
    assert one["response_time_p50"] > 10 * many["response_time_p50"]
    assert one["utilisation.broker.updates.io"] < 0.1, "nothing was busy, all was on its way"


@pytest.mark.parametrize("partitions", [1, 4])
def test_streaming_keeps_the_order_of_each_key_where_a_queue_with_redeliveries_does_not(partitions):
    flaky = workload(60, only="stock_update", handler_failure=0.2, goods=Goods(skus=3))
    queue, stream = (
        history(name, flaky, 300, **UNKNOWING, **changes).check().counts["reordered"]
        for name, changes in (("message_queue", {}), ("streaming", {"partitions": partitions, "handler_retries": 20}))
    )
    assert queue > 10 and stream == 0


def test_streaming_positions_committed_before_lose_those_after_double_and_those_with_the_effects_do_neither():
    """A side that dies between an effect and the commit, or between the commit and the effect."""
    found = {}
    for guarantee, point in (
        ("at_least_once", "updates.applied"), ("at_most_once", "updates.committed"), ("exactly_once", "updates.applied"),
    ):  # fmt: skip
        crash = Crash(part="shop", point=point, probability=0.05, restart=0.1)
        dying = workload(50, only="stock_update", faults=(crash,), goods=MANY_SKUS)
        made = history("streaming", dying, 400, guarantee=guarantee, **UNKNOWING)
        assert made.faults.num_rows > 10
        counts = made.check().counts
        found[guarantee] = counts["lost"], counts["duplicated"]
    assert found["at_least_once"][0] == 0 and found["at_least_once"][1] > 10
    assert found["at_most_once"][0] > 10 and found["at_most_once"][1] == 0
    assert found["exactly_once"] == (0, 0)


def test_streaming_at_least_once_doubles_nothing_that_an_idempotent_receiver_knows():
    crash = Crash(part="accounting", point="orders.applied", probability=0.05, restart=0.1)
    dying = workload(50, only="order", faults=(crash,), goods=MANY_SKUS)
    doubled, once = (columns("streaming", dying, 300, idempotent_receiver=i)["duplicates"].sum() for i in (False, True))
    assert doubled > 10 and once == 0


def test_streaming_confirms_that_are_lost_double_records_unless_the_producer_is_idempotent():
    deaf = workload(50, only="order", **lossy(0.2, "shop-broker", "broker"), goods=MANY_SKUS)
    again = {"confirm_timeout": 0.05, "confirm_retries": 8, "retry_backoff": 0.01, "idempotent_receiver": False}
    doubled, once = (columns("streaming", deaf, 200, idempotent_producer=i, **again) for i in (False, True))
    assert (doubled["duplicates"] > 0).sum() > 10
    assert (once["duplicates"] == 0).all() and set(once["outcome"]) == {"applied"}


def test_streaming_without_acks_loses_what_the_network_lost():
    updates = workload(50, only="stock_update", **lossy(0.1, "accounting-broker", "accounting"))
    blind, sure = (columns("streaming", updates, 300, acks=acks, confirm_timeout=0.05) for acks in ("none", "all"))
    assert set(blind["response"]) == {"ok"} and (blind["outcome"] == "lost").sum() > 15
    assert set(sure["outcome"]) <= {"applied", "superseded"}


def test_streaming_acks_of_all_wait_for_the_followers():
    updates = workload(20, only="stock_update")
    leader, everybody = (measure(history("streaming", updates, 200, acks=acks)) for acks in ("leader", "all"))
    assert everybody["response_time_p50"] == pytest.approx(leader["response_time_p50"] + 0.0005, abs=0.0002)
    assert everybody["delivery_time_p50"] == pytest.approx(leader["delivery_time_p50"], rel=0.05)


def test_streaming_records_are_read_and_confirmed_when_the_followers_have_fetched_them():
    """Each fetch takes 5 ms: so much later than when the leader has a record it is confirmed, and read; without followers it
    is confirmed as late, but read at once."""
    updates, fetched = (
        workload(5, only="stock_update", handler_work=Constant(0.002)),
        {"replicate": "5 ms", "broker_work": 0},
    )
    times = {}
    for followers, acks in ((0, "leader"), (0, "all"), (1, "all"), (3, "all")):
        made = columns("streaming", updates, 60, followers=followers, acks=acks, **fetched)
        times[followers, acks] = (made["responded"] - made["issued"]).median(), late(made).median()
    confirmed, read = times[0, "leader"]
    assert times[0, "all"] == pytest.approx((confirmed + 0.005, read), rel=1e-9)
    assert times[1, "all"] == pytest.approx((confirmed + 0.005, read + 0.005), rel=1e-9)
    assert times[3, "all"] == pytest.approx(times[1, "all"], rel=1e-9)


def test_streaming_a_dead_follower_holds_up_the_confirms_until_it_is_out_of_sync_and_too_few_in_sync_refuse():
    """One of two followers is dead from 2.0 to 3.5 s; the leader waits half a second for it."""
    dead = Crash(part="follower.0", at=(2.0,), restart=1.5)
    updates = workload(40, only="stock_update", faults=(dead,), goods=MANY_SKUS, handler_work=Constant(0.002))
    replicated = {"followers": 2, "replicate": "5 ms", "replica_lag": 0.5, "confirm_retries": 0, "in_flight": 100}
    replicated |= {"publish_client": 0}  # or the first answer would wait until all confirms are taken
    enough, few = (columns("streaming", updates, 200, min_insync_replicas=n, **replicated) for n in (2, 3))
    stalled = enough[(enough["issued"] > 2.0) & (enough["issued"] < 2.49)]
    assert len(stalled) > 10 and stalled["responded"].max() - stalled["responded"].min() < 0.02, "all at once"
    waits = enough["responded"] - enough["issued"]
    assert waits[stalled.index[0]] == pytest.approx(0.5 + waits.median() - 0.005, abs=1e-4)
    assert waits[(enough["issued"] > 2.6) & (enough["issued"] < 3.4)].max() < 0.03, "those in sync are soon enough"
    assert set(enough["response"]) == {"ok"} and set(enough["outcome"]) == {"applied"}
    without = (few["issued"] > 2.6) & (few["issued"] < 3.4)
    assert set(few[without]["response"]) == {"failed"} and set(few[without]["outcome"]) == {"failed"}
    assert set(few[few["issued"] > 3.6]["response"]) == {"ok"} == set(few[few["issued"] < 1.9]["response"])
    appended = few[few["issued"].between(2.0, 2.49) & (few["response"] == "failed")]
    assert len(appended) > 0 and set(appended["outcome"]) == {"applied"}, "refused when it was in the log"


def test_streaming_page_cache_is_lost_with_the_power_and_a_flush_is_not():
    dark = PowerLoss(part="broker", at=(2.0, 4.0), restart=0.1)
    backlog = {"read": "20 ms", "cores": 8, "members": 1}
    updates = workload(60, only="stock_update", faults=(dark,), goods=MANY_SKUS)
    cached, flushed = (columns("streaming", updates, 300, flush_every=f, **backlog) for f in (1.5, 0))
    assert (cached["outcome"] == "lost").sum() > 10
    assert set(flushed["outcome"]) <= {"applied", "superseded"}


def test_streaming_members_work_on_partitions_side_by_side():
    updates = workload(60, only="stock_update")
    one, four = (measure(history("streaming", updates, 300, read="20 ms", cores=8, members=n)) for n in (1, 4))
    assert one["delivery_time_p50"] > 5 * four["delivery_time_p50"]


def test_streaming_polls_of_many_records_commit_less_often():
    updates = workload(100, only="stock_update")
    single, many = (
        measure(history("streaming", updates, 400, commit_position="30 ms", max_poll_records=n)) for n in (1, 50)
    )
    assert single["delivery_time_p50"] > 5 * many["delivery_time_p50"]


def test_streaming_positions_committed_by_the_clock_double_what_was_done_since_the_last():
    """The shop dies 0.9 s after a multiple of all intervals: each doubles what it had written since its own last commit."""
    doubled = {}
    for interval in (0, 0.25, 0.6, 2.0):
        dying = workload(50, only="stock_update", faults=(Crash(part="shop", at=(6.9,), restart=0.1),), goods=MANY_SKUS)
        made = history("streaming", dying, 400, auto_commit_interval=interval, **UNKNOWING)
        assert made.check().counts["lost"] == 0
        doubled[interval] = made.check().counts["duplicated"]
        written = made.effects.to_pandas().query("effect == 'copied' and time < 6.9")["time"]
        if interval:
            assert doubled[interval] == (written > 6.9 // interval * interval).sum()
    assert doubled[0] <= 2 < doubled[0.25] < doubled[0.6] < doubled[2.0] and doubled[2.0] == pytest.approx(
        0.9 * 50, rel=0.3
    )


def test_streaming_sets_poison_aside_and_tries_again_what_failed():
    poisoned = workload(50, only="stock_update", faults=(Poison(probability=0.1),))
    messages = columns("streaming", poisoned, 200, handler_backoff=0.001)
    assert 8 < (messages["outcome"] == "dead_lettered").sum() < 40
    assert set(messages["outcome"]) <= {"applied", "superseded", "dead_lettered"}
    flaky = workload(50, only="stock_update", handler_failure=0.3)
    aside = [
        (columns("streaming", flaky, 300, handler_retries=n)["outcome"] == "dead_lettered").sum() for n in (0, 1, 8)
    ]
    assert aside[0] > 60 > 45 > aside[1] > aside[2] == 0


def test_streaming_state_in_memory_is_written_sooner_and_restored_by_reading_the_log_again():
    """The longer the log, the longer what is new waits behind it."""
    waits = {}
    for state in ("database", "memory"):
        for at in (1.0, 5.0):
            crash = Crash(part="shop", at=(at,), restart=0.1)
            updates = workload(60, only="stock_update", faults=(crash,), goods=Goods(skus=50))
            made = history("streaming", updates, 400, state=state)
            assert not any(made.check().counts[name] for name in ("lost", "duplicated", "reordered"))
            messages = made.messages.to_pandas()
            new = messages[(messages["issued"] > at + 0.1) & (messages["issued"] < at + 0.5)]
            waits[state, at] = late(messages[messages["issued"] < at - 0.1]).median(), late(new).max()
    assert waits["memory", 5.0][0] < waits["database", 5.0][0] - 0.001, "no transaction"
    assert waits["database", 5.0][1] < 0.1 and waits["memory", 5.0][1] > 3 * waits["memory", 1.0][1]


def counted(made):
    """What the windows counted, in that order: each order with the count of its window after it, and when it was issued."""
    effects = made.effects.to_pandas().query("effect == 'counted'")
    return effects.merge(made.messages.to_pandas()[["message", "issued"]], on="message")


def test_streaming_windows_count_the_orders_of_each_sku_that_were_issued_in_them():
    orders = workload(100, only="order", goods=Goods(skus=5, units=1000))
    made = history("streaming", orders, 400, window=0.7, commit_interval=0.05)
    found = counted(made)
    assert sorted(found["message"]) == list(range(400)) and measure(made)["miscounted"] == 0
    assert (found["version"] == found.groupby(["sku", found["issued"] // 0.7]).cumcount() + 1).all()


def test_streaming_windows_are_known_at_once_or_exactly_once_with_the_next_commit():
    """Each order is work; in a transaction it waits a second where it is the first of those that are committed together, the last
    of them hardly at all."""
    late = {}
    for guarantee in ("at_least_once", "exactly_once"):
        orders = workload(20, only="order", goods=Goods(skus=1000, zipf=0.0))
        slow = {"consume_client": "3 ms", "publish_client": "2 ms", "partitions": 1, "cores": 8, "commit_interval": 1.0}
        made = history("streaming", orders, 400, window=5, guarantee=guarantee, **slow)
        found = counted(made)
        late[guarantee] = (found["time"] - found["issued"]).mean()
        assert measure(made)["utilisation.windows.cpu"] == pytest.approx(20 * 0.005, rel=0.15)
    assert late["at_least_once"] < 0.05 and late["exactly_once"] == pytest.approx(0.6, rel=0.2)


@pytest.mark.parametrize("at", [0.9, 2.3])
@pytest.mark.parametrize("guarantee", ["at_least_once", "at_most_once", "exactly_once"])
def test_streaming_windows_count_twice_what_a_crash_finds_uncommitted_unless_the_counts_are_committed_with_it(
    guarantee, at
):
    """Sixty orders of one SKU in one window; every second it is committed what was counted. The program is killed between."""
    orders = workload(20, only="order", goods=ONE_SKU, faults=(Crash(part="windows", at=(at,), restart=0.1),))
    made = history("streaming", orders, 60, window=60, guarantee=guarantee, commit_interval=1.0)
    found = counted(made)
    twice = ((found["time"] > at // 1.0) & (found["time"] < at)).sum() if guarantee != "exactly_once" else 0
    assert found["version"].max() == 60 + twice and measure(made)["miscounted"] == twice
    assert guarantee == "exactly_once" or twice > 4


def test_streaming_windows_are_restored_from_their_changelog_and_that_takes_the_longer_the_longer_it_is():
    """The counts go on where they were; each record of the changelog takes 5 ms."""
    written, waits = {}, {}
    for at in (3.0, 9.0):
        killed = Crash(part="windows", at=(at,), restart=0.1)
        orders = workload(20, only="order", goods=Goods(skus=1, units=1000), faults=(killed,))
        made = history(
            "streaming", orders, 300, window=60, partitions=1, guarantee="exactly_once", consume_client="5 ms"
        )
        found = counted(made)
        assert found["version"].tolist() == list(range(1, 301))
        written[at], waits[at] = (found["time"] < at).sum(), found.loc[found["time"] > at, "time"].min() - at - 0.1
        assert waits[at] > 0.005 * written[at]
    assert waits[9.0] - waits[3.0] == pytest.approx(0.005 * (written[9.0] - written[3.0]), rel=0.25)


APART = {"members": 2, "processes": 2}
"""Each member is a process: partitions 0 and 2 begin at the shop's first, 1 and 3 at its second."""


def second_dies(rate, at, restart, **properties):
    """Updates of all partitions, while the second process of the shop is dead once."""
    crash = Crash(part="shop.2", at=(at,), restart=restart)
    return workload(rate, only="stock_update", faults=(crash,), goods=MANY_SKUS, **properties)


@pytest.mark.parametrize(
    ("strategy", "reads_on"),
    [("roundrobin", ["1001", "0001", "1001", "0001"]), ("cooperative-sticky", ["1111", "0011", "1110", "0010"])],
)
def test_streaming_an_eager_rebalance_stops_all_partitions_and_a_cooperative_one_those_that_move(strategy, reads_on):
    """A member dies at 2.0, which is noticed at 2.5, and is back at 5.0; a rebalance takes 0.25. Of each partition, whether
    anything is handled before the death is noticed, while the survivor gets all, while both share them out, and just after that,
    when what was given up then is shared out."""
    dying = second_dies(200, 2.0, 3.0, handler_work=Constant(0.0005))
    times = {"session_timeout": 0.5, "rebalance": 0.25}
    made = history("streaming", dying, 1300, partition_assignment_strategy=strategy, **times, **APART)
    assert (made.check().counts["lost"], made.check().counts["duplicated"]) == (0, 0)
    copied = made.effects.to_pandas().query("effect == 'copied'")
    spans = [(2.02, 2.5), (2.52, 2.75), (5.02, 5.25), (5.27, 5.5)]
    handled = [[copied[copied["sku"] % 4 == i]["time"].between(*span).any() for span in spans] for i in range(4)]
    assert ["".join("1" if any_ else "0" for any_ in of_one) for of_one in handled] == reads_on


@pytest.mark.parametrize("strategy", ["roundrobin", "cooperative-sticky"])
def test_streaming_what_a_dead_member_had_in_hand_is_lost_doubled_or_neither_and_its_partitions_keep_their_order(
    strategy,
):
    """It dies with a backlog: of what it took it had handled some and committed all, or none, or each. There are cores for all, so
    that changes are published in the order in which they come."""
    dying, counts = second_dies(200, 0.8, 0.5, handler_work=Constant(0.02)), {}
    for guarantee in ("at_most_once", "at_least_once", "exactly_once"):
        changes = {"partition_assignment_strategy": strategy, "guarantee": guarantee, "cores": 8}
        made = history("streaming", dying, 160, **changes, **APART, **UNKNOWING)
        counts[guarantee] = tuple(made.check().counts[name] > 0 for name in ("lost", "duplicated"))
        messages = made.messages.to_pandas()
        of_the_dead = messages[(messages["outcome"] == "lost") | (messages["duplicates"] > 0)]
        assert set(of_the_dead["sku"] % 4) <= {1, 3}
        first = made.effects.to_pandas().query("store == 'copy'").drop_duplicates("message")
        for _, of_one in first.groupby(first["sku"] % 4):
            assert of_one["message"].is_monotonic_increasing
    assert counts == {"at_most_once": (True, False), "at_least_once": (False, True), "exactly_once": (False, False)}


def test_streaming_members_that_are_processes_are_on_one_database():
    with pytest.raises(BadInput, match="that of one process"):
        make(architectures.get("streaming").parameters, {**APART, "state": "memory"})


def test_streaming_a_member_that_takes_too_long_is_thrown_out_and_comes_back():
    """The second process is slow for two seconds: its polls last longer than is waited for, and its partitions are read by the
    first; afterwards both read."""
    slow = Slowdown(part="shop.2", at=(1.0,), lasts=2.0, factor=100.0)
    struck = workload(100, only="stock_update", faults=(slow,), goods=MANY_SKUS)
    made = history("streaming", struck, 1000, max_poll_interval=0.3, max_poll_records=5, **APART, **UNKNOWING)
    assert made.check().counts["lost"] == 0 < made.check().counts["duplicated"]
    copied = made.effects.to_pandas().query("effect == 'copied'")
    for span in ((1.5, 2.5), (5.0, 9.0)):
        assert set(copied[copied["time"].between(*span)]["sku"] % 4) == {0, 1, 2, 3}


def test_streaming_polls_that_last_too_long_are_never_committed():
    """A poll of many records takes longer than the group has patience, and so it does the next time."""
    slow = workload(40, only="stock_update", handler_work=Constant(0.02), goods=MANY_SKUS, horizon=3.0)
    hasty = {"max_poll_interval": 0.1, "members": 1, "partitions": 1, "commit_position": "50 ms", **UNKNOWING}
    few, many = (history("streaming", slow, 200, max_poll_records=n, **hasty) for n in (2, 50))
    assert many.check().counts["duplicated"] > 20 and few.check().counts["duplicated"] == 0
    assert set(few.messages["outcome"].to_pylist()) <= {"applied", "in_flight"}
