"""Where only metrics are kept they are those of the whole history: counted ones to the bit, quantiles within the stated error."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import simlib
from simlib import metrics
from simlib.api import case
from simlib.distributions import Exponential
from simlib.engines import compiled, simulate, totals
from simlib.engines.running_totals import ABSENT, ERROR
from simlib.errors import BadInput
from simlib.flow import Flow, apply
from simlib.scenario import Crash, Loss, Poison, load_scenario

FAULTS = (
    Crash(part="accounting", every=Exponential(3.0), restart=0.2),
    Crash(part="shop", at=(2.0,), restart=0.5),
    Loss(link="broker-shop", probability=0.02),
    Poison(probability=0.01),
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places are taken again in a short run."""
    monkeypatch.setattr("simlib.engines.running_totals.CHUNK", 256)


@pytest.mark.parametrize(
    ("name", "scenario", "faults"),
    [
        ("rest", "steady", ()),
        ("rest", "burst", ()),
        ("message_queue", "steady", ()),
        ("message_queue", "burst", FAULTS),
    ],
)
def test_metrics_are_those_of_the_history(name: str, scenario: str, faults: tuple[object, ...]) -> None:
    one = case(name, load_scenario(scenario).model_copy(update={"faults": faults}), messages=6000)
    kept, history = one.totals(3), one.run(3)
    whole = metrics.measure(history, metrics.warmup(history) or 0)
    found = kept.values()
    assert set(found) == {metric for metric in whole if metric not in ABSENT}
    for metric, value in found.items():
        exact = pytest.approx(whole[metric], rel=1e-12, nan_ok=True)
        assert value == (pytest.approx(whole[metric], rel=ERROR, nan_ok=True) if "time_p" in metric else exact), metric


def test_a_window_that_is_too_small_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case("rest", "burst", messages=3000)
    ordinary = one.totals(1).values()
    monkeypatch.setattr("simlib.engines.running_totals.CHUNK", 8)
    np.testing.assert_equal(one.totals(1).values(), ordinary)


@pytest.mark.parametrize("scenario", ["steady", "burst", "flash_sale"])
def test_arrivals_in_chunks_are_those_drawn_at_once(scenario: str) -> None:
    loaded = load_scenario(scenario)
    whole = loaded.draw(5, 16000)
    chunks = list(loaded.chunks(5, 16000, 300))
    for name in ("issued", "kind", "sku", "session", "quantity"):
        np.testing.assert_array_equal(np.concatenate([getattr(each, name) for each in chunks]), getattr(whole, name))
    assert loaded.last_arrival(5, 16000) == whole.issued[-1]


def _single_server() -> Flow:
    flow = Flow("mm1")
    server = flow.pool("server", capacity=1)
    flow.source("job", interarrival=Exponential(mean=1.25), steps=[server.serve(Exponential(mean=1.0)), apply("done")])
    return flow


def test_a_flow_of_its_own_has_the_metrics_of_its_history() -> None:
    kept, history = totals(_single_server(), 5000, seed=2).values(), simulate(_single_server(), 5000, seed=2)
    whole = metrics.measure(history, metrics.warmup(history) or 0)
    assert kept["delivery_time_mean"] == pytest.approx(whole["delivery_time_mean"], rel=1e-12)
    assert kept["delivery_time_p99"] == pytest.approx(whole["delivery_time_p99"], rel=ERROR)
    assert kept["utilisation.server"] == whole["utilisation.server"]


def test_what_keeps_every_message_is_refused() -> None:
    closed = Flow("closed")
    closed.source("job", population=2, steps=[apply("done")])
    for run in (partial(totals, closed, 10), partial(simlib.totals, "event_sourcing", messages=300)):
        with pytest.raises(BadInput, match="only metrics"):
            run()


def test_a_queue_whose_broker_dies_and_may_forget_what_was_settled_is_refused() -> None:
    dying = load_scenario("steady").model_copy(update={"faults": (Crash(part="broker", at=(1.0,)),)})
    with pytest.raises(BadInput, match="may hand out again what was settled"):
        case("message_queue", dying, messages=100).totals(1)
    case("message_queue", dying, {"broker": "rabbitmq"}, messages=100).totals(1)


def test_a_history_that_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LITTLE", 0)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e6))
    with pytest.raises(
        BadInput, match=r"20000 messages needs 0\.0 GB of memory, of which 0\.0 are free: ask for fewer"
    ):
        simulate(_single_server(), 20_000)


def test_a_quantile_is_within_the_stated_error() -> None:
    from simlib.engines import kernel
    from simlib.engines.running_totals import _quantile

    times = np.random.default_rng(1).lognormal(-5.0, 3.0, 20_000)
    spread = np.bincount([kernel.bucket(time) for time in times], minlength=kernel.SPREAD)
    for p in (0.0, 0.5, 0.95, 0.999, 1.0):
        assert math.isclose(_quantile(spread, p), np.quantile(times, p), rel_tol=ERROR)
