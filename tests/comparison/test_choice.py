"""The choice: preferred is what is better by more than the models are accurate, and the first depends on the weights."""

import json

import numpy as np
import pandas as pd
import pytest

from simlib import comparison, paths
from simlib.comparison import choice

ACCURACY = {"accuracy": {"p50": 0.1, "p95": 0.1, "p99": 0.1}, "saturation_accuracy": 0.05}
ORDERS = "response_time_p95.order"


def costs(**names: float) -> pd.DataFrame:
    measures = [measure for each in choice.COSTS.values() for measure in each]
    return pd.DataFrame({measure: names for measure in measures})


def chosen(results: pd.DataFrame, validation=ACCURACY, **cost: float) -> choice.Choice:
    pairs = comparison.pairs(results)
    criteria = comparison.criteria(comparison.points(results), comparison.saturation(results), pairs)
    return choice.choose(criteria, pairs, costs(**(cost or {"rest": 1.0, "message_queue": 2.0})), validation)


def preferred(found: choice.Choice, metric: str, scenario: str) -> float:
    """1 where the queue is preferred to REST, -1 where REST is."""
    rows = found.preferences
    [row] = rows[(rows["metric"] == metric) & (rows["scenario"] == scenario)].to_dict("records")
    assert (row["a"], row["b"]) == ("message_queue", "rest")
    return row["preferred"]


def test_preferred_is_what_takes_less_time_carries_more_and_costs_less(invented_results):
    found = chosen(invented_results)
    assert preferred(found, ORDERS, "steady") == 1, "its times are four fifths of those of REST"
    assert preferred(found, comparison.SATURATION, "steady") == -1, "and so is what it carries"
    assert preferred(found, "half_finished", "fulfilment") == 0, "as many for both"
    assert preferred(found, "cognitive", "") == -1, "the queue costs twice as much"


def test_a_difference_that_the_models_are_too_inaccurate_for_is_none(invented_results):
    rough = {"accuracy": {"p95": 0.3}, "saturation_accuracy": 0.3}
    found = chosen(invented_results, rough)
    assert preferred(found, ORDERS, "steady") == preferred(found, comparison.SATURATION, "steady") == 0
    assert preferred(found, "failed", "crashes") == 1, "of counts no accuracy is stated"


def test_the_overloaded_stand_behind_those_that_are_not(invented_results):
    full = (invented_results["architecture"] == "message_queue") & (invented_results["scenario"] == "burst")
    found = chosen(invented_results.assign(overloaded=invented_results["overloaded"] | full))
    assert preferred(found, ORDERS, "burst") == -1
    both = chosen(invented_results.assign(overloaded=True))
    assert preferred(both, ORDERS, "burst") == 0


def test_flows_lie_within_one_and_add_up_to_nothing(invented_results):
    found = chosen(invented_results)
    assert list(found.flows.columns) == [*comparison.ASPECTS, *choice.COSTS]
    assert found.flows.abs().to_numpy().max() <= 1
    np.testing.assert_allclose(found.flows.sum(), 0, atol=1e-12)
    np.testing.assert_allclose(found.overall, found.flows.mean(axis=1))


def test_what_is_better_by_every_aspect_is_first_whatever_they_weigh(invented_results):
    slow = invented_results["architecture"] == "rest"
    worse = invented_results["metric"] != "goodput"
    results = invented_results[invented_results["variant"] == ""]
    results = results.assign(value=results["value"].mask(slow & worse, 2 * results["value"] + 1))
    results = results.assign(value=results["value"].mask(slow & ~worse, results["value"] / 2))
    found = chosen(results, rest=2.0, message_queue=1.0)
    assert dict(found.first) == {"rest": 0.0, "message_queue": 1.0}
    assert found.weights.loc["rest"].isna().all()


def test_where_each_is_better_by_some_aspects_the_weights_decide(invented_results):
    found = chosen(invented_results)
    assert 0 < found.first["rest"] < 1
    assert found.first.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    assert found.weights.loc["rest", "cost"] > found.weights.loc["message_queue", "cost"], "REST costs less"
    again = chosen(invented_results)
    assert dict(again.first) == dict(found.first)


def test_equal_architectures_share_the_first_place(invented_results):
    rest = invented_results[invented_results["architecture"] == "rest"]
    results = pd.concat([rest, rest.assign(architecture="message_queue")])
    assert dict(chosen(results, rest=1.0, message_queue=1.0).first) == {"rest": 0.5, "message_queue": 0.5}


def test_costs_are_those_of_the_broker_that_an_architecture_has_by_default(tmp_path):
    measured = {"statements": 1, "cognitive": 44, "settings": 25, "concepts": ["a", "b"], "failures": ["c"]}
    measured |= {"parts": ["d", "e", "f"], "person_months": 0.6}
    rows = [{"architecture": "message_queue", "broker": broker, **measured} for broker in ("nats", "rabbitmq")]
    rows[1]["cognitive"] = 53
    (tmp_path / "cost.json").write_text(json.dumps({"rows": rows}))
    found = choice.costs(tmp_path / "cost.json")
    assert dict(found.loc["message_queue"]) == {
        "parts": 3, "concepts": 2, "settings": 25, "failures": 1, "person_months": 0.6, "cognitive": 44,
    }  # fmt: skip


def test_every_architecture_has_its_costs():
    from simlib import architectures

    assert set(choice.costs(paths.COST).index) >= set(architectures.twins())
