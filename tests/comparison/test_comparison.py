"""The comparison: one cut for all, no times where overloaded, pairs on the same seeds, and what is concluded."""

import math

import numpy as np
import pandas as pd
import pytest

from simlib import comparison
from simlib.comparison import words
from simlib.statistics import mean_interval, paired

ORDERS = "response_time_p95.order"


def value(points: pd.DataFrame, candidate: str, scenario: str, rate: float, metric: str) -> pd.Series:
    rows = points[(points["candidate"] == candidate) & (points["scenario"] == scenario)]
    return rows[(rows["rate"] == rate) & (rows["metric"] == metric)].iloc[0]


def pair(pairs: pd.DataFrame, a: str, b: str, scenario: str, metric: str) -> pd.DataFrame:
    rows = pairs[(pairs["a"] == a) & (pairs["b"] == b)]
    return rows[(rows["scenario"] == scenario) & (rows["metric"] == metric)]


def test_the_same_messages_are_cut_for_all_and_no_fewer_than_the_longest_warm_up(invented_results):
    points = comparison.points(invented_results)
    steady = points[(points["scenario"] == "steady") & (points["rate"] == 100)]
    assert set(steady["cut"]) == {250}, "the longest warm-up is 130 messages, the next cut that was measured 250"
    own = invented_results.query("architecture == 'rest' and scenario == 'steady' and rate == 100 and cut == 250")
    expected = mean_interval(own.loc[own["metric"] == ORDERS, "value"])
    found = value(points, "rest", "steady", 100, ORDERS)
    assert (found["value"], found["low"], found["high"]) == (expected.value, expected.low, expected.high)


def test_a_longer_warm_up_of_one_architecture_cuts_the_others_too(invented_results):
    slow = (invented_results["architecture"] == "rest") & (invented_results["replication"] == 2)
    results = invented_results.assign(warm_up=invented_results["warm_up"].mask(slow, 400))
    points = comparison.points(results)
    assert set(points.loc[points["rate"] == 200, "cut"]) == {500}


def test_an_overloaded_architecture_does_not_cut_the_others(invented_results):
    full = (invented_results["architecture"] == "rest") & (invented_results["rate"] == 200)
    results = invented_results.assign(
        overloaded=invented_results["overloaded"] | full, warm_up=invented_results["warm_up"].mask(full, 499)
    )
    points = comparison.points(results)
    assert set(points.loc[points["rate"] == 200, "cut"]) == {250}


def test_a_terminating_scenario_is_not_cut(invented_results):
    points = comparison.points(invented_results)
    assert set(points.loc[points["scenario"] == "flash_sale", "cut"]) == {0}


def test_an_overloaded_point_has_throughput_and_backlog_but_no_times(invented_results):
    points = comparison.points(invented_results)
    full = points[points["rate"] == 400].set_index(["candidate", "metric"])
    assert full["overloaded"].all()
    assert math.isnan(full.loc[("rest", ORDERS), "value"])
    assert full.loc[("rest", "goodput"), "value"] == pytest.approx(351.5)
    assert full.loc[("rest", "backlog_max"), "value"] == 40


def test_one_overloaded_run_of_four_does_not_make_a_point_overloaded(invented_results):
    one = (invented_results["rate"] == 100) & (invented_results["replication"] == 0)
    points = comparison.points(invented_results.assign(overloaded=invented_results["overloaded"] | one))
    assert not points.loc[points["rate"] == 100, "overloaded"].any()


def test_a_failed_run_is_counted_and_left_out_of_its_pairs(invented_results):
    broken = (invented_results["variant"] == "reply") & (invented_results["replication"] == 1)
    row = invented_results[broken].drop_duplicates(["scenario", "rate"])
    row = row.assign(metric=None, value=math.nan, unit=None, cut=None, warm_up=None, failed="RunFailed: it broke")
    results = pd.concat([invented_results[~broken], row], ignore_index=True)
    points = comparison.points(results)
    assert set(points.loc[points["candidate"] == "message_queue/reply", "runs"]) == {3}
    assert set(points.loc[points["candidate"] == "message_queue/reply", "failed"]) == {1}
    assert set(points.loc[points["candidate"] == "rest", "failed"]) == {0}
    pairs = comparison.pairs(results)
    assert set(pairs.loc[pairs["a"] == "message_queue/reply", "runs"]) == {3}
    assert set(pairs.loc[(pairs["a"] == "message_queue") & (pairs["b"] == "rest"), "runs"]) == {4}


def test_pairs_are_of_the_same_replications_the_baseline_second(invented_results):
    shuffled = invented_results.sample(frac=1, random_state=3)
    pairs = comparison.pairs(shuffled)
    assert list(pairs[["a", "b"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("message_queue", "rest"),
        ("message_queue/reply", "rest"),
        ("message_queue/reply", "message_queue"),
    ]
    chosen = invented_results.query("scenario == 'steady' and rate == 200 and cut == 250 and metric == @ORDERS")
    queue, rest = (
        chosen[(chosen["architecture"] == name) & (chosen["variant"] == "")].sort_values("replication")["value"]
        for name in ("message_queue", "rest")
    )
    expected = paired(queue.to_numpy(), rest.to_numpy())
    [found] = pair(pairs, "message_queue", "rest", "steady", ORDERS).query("rate == 200").to_dict("records")
    assert (found["difference"], found["low"], found["high"]) == (expected.value, expected.low, expected.high)
    assert found["reference"] == pytest.approx(np.mean(rest))


def test_no_difference_of_times_is_told_where_either_is_overloaded(invented_results):
    pairs = comparison.pairs(invented_results)
    full = pairs[pairs["rate"] == 400].set_index("metric")
    assert full.loc[ORDERS, "low"].isna().all()
    assert full.loc["goodput", "low"].notna().all()


def test_saturation_is_the_largest_goodput_of_the_grid(invented_results):
    found = comparison.saturation(invented_results).set_index("candidate")
    assert found.loc["rest", "rate"] == 400
    assert found.loc["rest", "value"] == pytest.approx(351.5)
    assert found["reached"].all()
    never = comparison.saturation(invented_results[invented_results["rate"] != 400])
    assert not never["reached"].any()


def test_load_is_the_share_of_the_own_saturation(invented_results):
    points = comparison.points(invented_results)
    assert value(points, "rest", "steady", 200, ORDERS)["load"] == pytest.approx(200 / 351.5)
    never = comparison.points(invented_results[invented_results["rate"] != 400])
    assert never["load"].isna().all()


def test_headlines_stand_at_the_middle_rate_where_all_have_times(invented_results):
    found = comparison.headlines(comparison.pairs(invented_results))
    assert list(found["aspect"].drop_duplicates()) == list(comparison.ASPECTS)
    steady = found[(found["scenario"] == "steady") & (found["metric"] != comparison.SATURATION)]
    assert set(steady["rate"]) == {200.0}
    first = found.iloc[0]
    assert (first["metric"], first["scenario"], first["a"], first["b"]) == (ORDERS, "steady", "message_queue", "rest")


def test_headlines_tell_each_candidate_from_the_baseline_and_a_variant_from_its_architecture(invented_results):
    other = invented_results[invented_results["architecture"] == "message_queue"].assign(architecture="outbox")
    other = other[other["variant"] == ""]
    found = comparison.headlines(comparison.pairs(pd.concat([invented_results, other])))
    assert set(found[["a", "b"]].itertuples(index=False, name=None)) == {
        ("message_queue", "rest"),
        ("message_queue/reply", "rest"),
        ("outbox", "rest"),
        ("message_queue/reply", "message_queue"),
    }


def test_criteria_hold_each_candidate_at_the_conditions_of_the_headlines(invented_results):
    tables = (comparison.points(invented_results), comparison.saturation(invented_results))
    found = comparison.criteria(*tables, comparison.pairs(invented_results))
    assert list(found["aspect"].drop_duplicates()) == list(comparison.ASPECTS)
    assert found["value"].notna().all()
    assert (found.groupby(["metric", "scenario"])["candidate"].nunique() == 3).all()


def test_what_is_compared_are_the_architectures_of_the_candidates():
    candidates = ["rest", "message_queue", "message_queue/reply", "saga/orchestrated", "saga/choreographed/slow"]
    names = ["rest", "message_queue", "saga/orchestrated", "saga/choreographed"]
    assert comparison.compared(candidates) == names
    validation = {part: [{"architecture": name} for name in ("rest", "outbox")] for part in ("rows", "saturations")}
    found = comparison.validated({**validation, "tried": 7}, candidates)
    assert found == {"rows": [{"architecture": "rest"}], "saturations": [{"architecture": "rest"}], "tried": 7}


def test_the_warm_ups_say_in_how_many_runs_none_was_found(invented_results):
    steady = (invented_results["scenario"] == "steady") & (invented_results["replication"] == 3)
    found = comparison.warm_ups(invented_results.assign(warm_up=invented_results["warm_up"].mask(steady)))
    row = found[(found["scenario"] == "steady") & (found["rate"] == 100)].iloc[0]
    assert (row["longest"], row["used"], row["runs"], row["not_stationary"]) == (100, 100, 12, 3)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.002, -0.001, "waiting is less with a than with b"),
        (0.001, 0.002, "waiting is more with a than with b"),
        (-0.001, 0.002, "no difference found in waiting between a and b"),
        (0.0, 0.0, "no difference found in waiting between a and b"),
        (math.nan, math.nan, "there is no interval"),
    ],
)
def test_a_sentence_says_no_more_than_its_interval(low, high, said):
    assert said in words.difference("waiting", "somewhere", "a", "b", (low + high) / 2, low, high, "s")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((0.0123, "s"), "12.3 ms"),
        ((0.0123, "s", 0.0119, 0.0127), "12.3 ms [11.9, 12.7]"),
        ((1.5, "s", 0.9, 2.1), "1.5 s [0.9, 2.1]"),
        ((4e-6, "s"), "4 µs"),
        ((0.0, "s", 0.0, 0.0), "0 s [0, 0]"),
        ((math.nan, "s"), words.ABSENT),
        ((12345.6, "1/s"), "12346 1/s"),
        ((0.25, "1"), "0.25"),
        ((-0.0, "messages"), "0 messages"),
    ],
)
def test_a_quantity_is_shown_with_its_unit_and_interval(arguments, shown):
    assert words.quantity(*arguments) == shown


def test_conclusions_are_a_sentence_for_each_headline(invented_results):
    pairs = comparison.pairs(invented_results)
    lines = comparison.conclusions(pairs).splitlines()
    assert len(lines) == len(comparison.headlines(pairs))
    assert "`response_time_p95.order` is less with message_queue than with rest" in lines[0]


def test_the_words_of_an_entry_name_overload_and_failures(invented_results):
    rest = invented_results.query("architecture == 'rest' and scenario == 'steady'")
    said = comparison.in_words(comparison.points(rest), ["RunFailed: it broke"])
    assert "overloaded at 400 messages a second" in said
    assert "RunFailed: it broke" in said
