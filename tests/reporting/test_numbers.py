"""Numbers as Russian reports print them, and conclusions that follow their intervals."""

import math

import pytest

from simlib.reporting.numbers import (
    Difference,
    Number,
    brief,
    cell,
    column,
    full,
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


def _difference(low: float, high: float, better="меньше") -> Difference:
    number = Number((low + high) / 2, "мс", low, high)
    return Difference("p95 времени ответа", "при 100 сообщ./с", "a", "b", number, better)


def test_a_sentence_turns_with_its_interval():
    less = sentence(_difference(-3.4, -3.0), "А", "Б")
    more = sentence(_difference(3.0, 3.4), "А", "Б")
    assert less == (
        f"При 100 сообщ./с p95 времени ответа у архитектуры «А» меньше, чем у архитектуры «Б», "
        f"на 3,20{NBSP}мс (ДИ парной разности от 3,00 до 3,40{NBSP}мс)."
    )
    assert more == less.replace("меньше", "больше")


def test_a_sentence_on_an_interval_with_zero_claims_nothing():
    text = sentence(_difference(-0.2, 0.4), "А", "Б")
    assert "не обнаружено" in text
    assert "меньше" not in text and "больше" not in text
    assert f"парная разность 0,10{NBSP}мс (ДИ от −0,20 до 0,40{NBSP}мс)" in text


@pytest.mark.parametrize(
    ("low", "high", "better", "winner"),
    [
        (-2, -1, "меньше", "a"),
        (1, 2, "меньше", "b"),
        (1, 2, "больше", "a"),
        (-1, 1, "меньше", None),
        (1, 2, None, None),
    ],
)
def test_the_advantage_goes_by_the_sign_that_is_better(low, high, better, winner):
    assert _difference(low, high, better).winner == winner
