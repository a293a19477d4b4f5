"""What sagas are for, live: what was done before a refusal is undone, in both styles as in their models; and it is not where
compensation, the shop's memory or its locks are switched off."""

from __future__ import annotations

import numpy as np
import pytest

from simlib import api
from simlib.distributions import Constant
from simlib.domain import ORDER, undone
from simlib.scenario import Crash, Goods, Mix, Trace, load_scenario

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
STYLES = ("saga/orchestrated", "saga/choreographed")
MESSAGES = 40


@pytest.fixture(scope="module", params=STYLES)
def style(request):
    return request.param


@pytest.fixture(scope="module")
def whole(style, bench):
    """A bench with all mechanisms."""
    with bench(style) as ready:
        yield ready


@pytest.fixture(scope="module")
def forgetful(style, bench):
    """One whose shop keeps its sagas in its memory only, and locks nothing."""
    with bench(style, durable_state=False, semantic_locks=False) as ready:
        yield ready


def orders(rate=15.0, **properties):
    """Only orders, which several services carry out."""
    only = {"mix": Mix(stock_update=0, order=1, stock_query=0)}
    return load_scenario("fulfilment").with_rate(rate).model_copy(update={"step_timed_out": 0.0, **only, **properties})


def run(ready, style, scenario, messages=MESSAGES):
    """The history of a live run, in which the checker's laws hold."""
    history = ready.run(scenario, 1, messages, api.case(style, scenario, messages=messages).meta)
    verdict = history.check()
    assert verdict.ok, str(verdict)
    return history


def test_sagas_end_live_as_their_models_do_and_nothing_stays_half_finished(whole, style):
    hard = orders(step_refused=0.15, step_timed_out=0.1, undoing_failed=0.15)
    live = run(whole, style, hard)
    model = api.case(style, hard, messages=MESSAGES).run(1)
    for column in ("outcome", "response", "effects", "duplicates"):
        assert live.messages[column].to_pylist() == model.messages[column].to_pylist()
    assert live.meta["quiet"]
    assert live.check().counts["half_finished"] == 0 < (live.messages.to_pandas()["outcome"] == "compensated").sum()


def test_sagas_wait_for_what_nobody_hears_of_as_long_as_their_limit_and_then_have_all_undone(whole, style):
    messages = run(whole, style, orders(step_refused=0.0, step_timed_out=0.1)).messages.to_pandas()
    limit = whole.parameters["step_timeout" if style == "saga/orchestrated" else "deadline"]
    silent = messages[messages["outcome"] == "compensated"]
    assert len(silent) > 5 and set(silent["response"]) == {"refused"}
    assert (silent["responded"] - silent["issued"] > limit).all()


def test_sagas_undo_in_reverse_order_what_was_done_and_give_the_units_back(whole, style):
    history = run(whole, style, orders(step_refused=0.3))
    rows = history.effects.to_pandas()
    for _, mine in rows[rows["store"] != "copy"].groupby("message"):
        effects = mine["effect"].astype(str).tolist()
        done = [effect for effect in effects if not effect.endswith(".undone")]
        assert done == ["taken", "paid", "shipped", "confirmed"][: len(done)]
        assert effects[len(done) :] in ([], [undone(effect) for effect in reversed(done)])
    refused = history.messages.to_pandas().query("response == 'refused'")["message"]
    left = rows[(rows["store"] == "stock") & rows["message"].isin(refused)].groupby("message")["change"].sum()
    assert len(left) > 5 and (left == 0).all()
    assert history.check().counts["half_done"] == 0, "the shop knows what came back"


def test_sagas_without_compensation_stay_half_finished(style, bench):
    with bench(style, compensation=False) as ready:
        history = run(ready, style, orders(step_refused=0.3))
    assert history.check().counts["half_finished"] > 5
    assert not history.effects.to_pandas()["effect"].astype(str).str.endswith(".undone").any()


def interrupted(tmp_path):
    """Ten orders at once, each of more than a tenth of a second's work, of which some steps are unheard; the shop is killed while
    they are under way."""
    times = tmp_path / "times.txt"
    np.savetxt(times, np.full(10, 0.5))
    return orders().model_copy(
        update={
            "arrivals": Trace(file=times),
            "handler_work": Constant(0.03),
            "step_refused": 0.0,
            "step_timed_out": 0.3,
            "faults": (Crash(part="shop", at=(0.8,), restart=0.2),),
        }
    )


def test_a_killed_shop_goes_on_with_its_sagas_when_it_is_back(whole, style, tmp_path):
    history = run(whole, style, interrupted(tmp_path), 10)
    (fault,) = history.faults.to_pylist()
    rows = history.effects.to_pandas()
    assert (rows["effect"] == "taken").sum() > 3
    assert (rows["effect"].astype(str).str.endswith(".undone") & (rows["time"] > fault["end"])).any()
    assert history.check().counts["half_finished"] == 0
    assert history.meta["quiet"]


def test_a_killed_service_holds_no_saga_half_finished(whole, style):
    history = run(whole, style, orders(faults=(Crash(part="payment", at=(1.0,), restart=0.2),)))
    assert history.faults.to_pylist()[0]["part"] == "payment"
    assert set(history.messages["outcome"].to_pylist()) <= {"applied", "compensated", "rejected"}
    assert history.check().counts["half_finished"] == 0 and history.meta["quiet"]


def test_a_killed_shop_that_remembers_nothing_leaves_its_sagas_half_finished(forgetful, style, tmp_path):
    history = run(forgetful, style, interrupted(tmp_path), 10)
    assert history.check().counts["half_finished"] > 0


def scarce():
    """Orders of a few goods, some of which give their units back after a while."""
    goods = Goods(skus=4, zipf=0.0, units=3, receipts=False)
    return orders(20.0, step_refused=0.0, step_timed_out=0.2, goods=goods)


def in_vain(history):
    """SKUs of which an order was refused at accounting, and of which units are left in the end."""
    rows, messages = history.effects.to_pandas(), history.messages.to_pandas()
    left = 3 + rows[rows["store"] == "stock"].groupby("sku")["change"].sum()
    refused = messages[(messages["kind"] == ORDER) & (messages["outcome"] == "rejected")]["sku"]
    assert len(refused)
    return set(refused) & set(left[left > 0].index)


def test_sagas_that_lock_a_sku_refuse_no_order_for_units_that_come_back(whole, style):
    assert not in_vain(run(whole, style, scarce(), 30))


def test_sagas_without_locks_refuse_orders_for_units_that_come_back(forgetful, style):
    assert in_vain(run(forgetful, style, scarce(), 30))
