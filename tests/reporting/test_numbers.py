"""Numbers as Russian reports print them, and conclusions that follow their intervals."""

import math

import pytest

from simlib.reporting.numbers import (
    Number,
    Standing,
    brief,
    cell,
    column,
    full,
    listed,
    russian,
    sentence,
    verdict,
)

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0, "0"),
        (0.7, "0,7"),
        (1 / 3, "0,333"),
        (-1.25, "−1,25"),
        (20000, f"20{NBSP}000"),
        (20000.0, f"20{NBSP}000"),
        (1234567.891, f"1{NBSP}234{NBSP}568"),
        (0.00123456, "0,00123"),
        (-0.0, "0"),
        (math.nan, "—"),
        (math.inf, "∞"),
    ],
)
def test_a_number_has_a_decimal_comma_and_groups_of_three(value, printed):
    assert russian(value) == printed


def test_a_negative_number_that_rounds_to_zero_has_no_sign():
    assert russian(-0.001, decimals=1) == "0,0"


def test_decimals_follow_the_half_width_of_the_interval():
    assert cell(Number(12.34567, "мс", 12.04, 12.65)) == f"12,35 [12,04;{NBSP}12,65]"
    assert cell(Number(1234.567, "мс", 1134.5, 1334.6)) == f"1{NBSP}235 [1{NBSP}134;{NBSP}1{NBSP}335]"


def test_a_number_without_an_interval_prints_its_value_alone():
    assert (brief(Number(4.5, "мс")), full(Number(4.5, "мс")), cell(Number(4.5, "мс"))) == (
        f"4,5{NBSP}мс",
        f"4,5{NBSP}мс",
        "4,5",
    )


def test_an_interval_with_one_end_or_beside_its_value_is_refused():
    with pytest.raises(ValueError, match="two ends"):
        Number(1.0, low=0.5)
    with pytest.raises(ValueError, match="must hold its value"):
        Number(1.0, low=2.0, high=3.0)


def test_a_column_shares_its_decimals():
    assert column([2.13, 10.25, 1800.0]) == ["2,13", "10,25", f"1{NBSP}800,00"]
    assert column([0.3, 0.5, 0.7]) == ["0,3", "0,5", "0,7"]


def test_a_column_over_many_orders_of_magnitude_keeps_small_values_visible():
    assert column([1e-6, 1800.0]) == ["0,000001", f"1{NBSP}800"]


def test_a_column_keeps_texts_and_shows_what_does_not_exist():
    assert column(["a_b", None, math.nan, True, False]) == ["a_b", "—", "—", "да", "нет"]


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-2.0, -1.0, "меньше"),
        (1.0, 2.0, "больше"),
        (-1.0, 2.0, "различие не обнаружено"),
        (0.0, 2.0, "различие не обнаружено"),
        (-2.0, 0.0, "различие не обнаружено"),
        (0.0, 0.0, "различие не обнаружено"),
    ],
)
def test_the_verdict_is_what_the_interval_says(low, high, says):
    assert verdict(Number((low + high) / 2, low=low, high=high)) == says


def test_no_verdict_without_an_interval():
    with pytest.raises(ValueError, match="needs an interval"):
        verdict(Number(-5.0, run="rest@100"))


TITLES = {"a": "А", "b": "Б", "c": "В"}


def _standing(values: dict[str, float], **differences: tuple[float, float]) -> Standing:
    """A standing whose leader is the first that has a value."""
    numbers = {name: Number(value, "мс") for name, value in values.items()}
    leader = next((name for name, value in values.items() if not math.isnan(value)), None)
    found = {name: Number((low + high) / 2, "мс", low, high) for name, (low, high) in differences.items()}
    return Standing("p95 времени ответа", "при 100 сообщ./с", numbers, leader, found)


def test_a_sentence_names_who_is_level_with_the_leader_and_who_is_behind():
    standing = _standing({"a": 1.0, "b": 1.1, "c": 4.2}, b=(-0.1, 0.3), c=(3.0, 3.4))
    assert (standing.level, standing.behind) == (["b"], ["c"])
    assert sentence(standing, TITLES) == (
        f"При 100 сообщ./с лучшее значение показателя «p95 времени ответа» — 1{NBSP}мс — у архитектуры «А»; "
        f"различие с ней не обнаружено у «Б»; «В» отстаёт от неё на 3,20{NBSP}мс "
        f"(ДИ парной разности от 3,00 до 3,40{NBSP}мс)."
    )


def test_those_behind_the_leader_are_told_the_closest_and_the_farthest_of():
    text = sentence(_standing({"a": 1.0, "b": 5.0, "c": 2.0}, b=(3.9, 4.1), c=(0.9, 1.1)), TITLES)
    assert f"«В» отстаёт от неё на 1,00{NBSP}мс" in text
    assert f"дальше всех — «Б», на 4,000{NBSP}мс" in text


def test_a_leader_by_more_tells_how_far_the_others_are_below_it():
    text = sentence(_standing({"a": 9.0, "b": 5.8}, b=(-3.4, -3.0)), TITLES)
    assert f"«Б» отстаёт от неё на 3,20{NBSP}мс (ДИ парной разности от 3,00 до 3,40{NBSP}мс)" in text


def test_where_all_are_equal_nobody_leads():
    text = sentence(_standing({"a": 0.0, "b": 0.0, "c": 0.0}, b=(0, 0), c=(0, 0)), TITLES)
    assert text == f"При 100 сообщ./с p95 времени ответа у всех архитектур одинаково: 0{NBSP}мс."


def test_the_overloaded_are_named_and_compared_with_nobody():
    assert "перегрузка — у «Б»" in sentence(_standing({"a": 1.0, "b": math.nan, "c": 2.0}, c=(0.9, 1.1)), TITLES)
    assert (
        sentence(_standing({"a": math.nan, "b": math.nan}), TITLES) == "При 100 сообщ./с перегружены все архитектуры."
    )


def test_a_unit_with_a_full_stop_ends_the_sentence_once():
    shares = {name: Number(0.0, "сообщ.") for name in "ab"}
    same = Standing("потери", "при отказах", shares, "a", {"b": Number(0.0, "сообщ.", 0.0, 0.0)})
    assert sentence(same, TITLES).endswith("сообщ.") and ".." not in sentence(same, TITLES)


def test_a_distance_between_shares_is_in_percentage_points():
    shares = {"a": Number(1.0, "%"), "b": Number(3.0, "%")}
    text = sentence(Standing("доля", "всегда", shares, "a", {"b": Number(2.0, "%", 1.5, 2.5)}), TITLES)
    assert f"на 2,00{NBSP}п.{NBSP}п. (ДИ парной разности от 1,50 до 2,50{NBSP}п.{NBSP}п.)" in text


@pytest.mark.parametrize(
    ("titles", "said"), [(["А"], "«А»"), (["А", "Б"], "«А» и «Б»"), (["А", "Б", "В"], "«А», «Б» и «В»")]
)
def test_titles_are_listed_as_a_sentence_has_them(titles, said):
    assert listed(titles) == said
