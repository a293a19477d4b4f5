"""Steps and nouns are data, made from what a model gives."""

from __future__ import annotations

import dataclasses

import pytest

from simlib.errors import BadInput
from simlib.flow import (
    DELIVERY,
    KIND,
    RESULT,
    Backoff,
    Constant,
    Exponential,
    Flow,
    ack,
    apply,
    branch,
    choose,
    delay,
    fork,
    retry,
    spawn,
    timeout,
)
from simlib.flow.blocks import Condition, Delay
from simlib.flow.model import children, everything


@pytest.mark.parametrize(
    "value", ["5 ms", 0.005, Constant(0.005), "constant(5 ms)", {"family": "constant", "value": "5 ms"}]
)
def test_a_duration_is_a_distribution_seconds_or_a_text(value: object) -> None:
    assert delay(value).duration == Constant(0.005)


def test_steps_are_values_that_cannot_be_changed() -> None:
    step = delay("5 ms")
    assert step == Delay(Constant(0.005)) and hash(step) == hash(delay(0.005))
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.stream = "x"  # type: ignore[misc]


def test_conditions_name_kinds_and_results_and_compare_numbers() -> None:
    assert KIND.equals("order") == Condition("kind", "==", 1)
    assert RESULT.differs("ok") == Condition("result", "!=", 1)
    assert DELIVERY.at_least(2) == Condition("delivery", ">=", 2)


@pytest.mark.parametrize(("field", "name"), [(RESULT, "okay"), (KIND, "ordre")])
def test_a_misspelt_kind_or_result_is_refused_with_what_was_meant(field: object, name: str) -> None:
    with pytest.raises(BadInput, match=f"unknown .* '{name}': did you mean"):
        field.equals(name)  # type: ignore[attr-defined]


def test_the_steps_inside_a_step_are_found_at_any_depth() -> None:
    inner = [branch(0.5, [apply("a")], [spawn([apply("b")])]), timeout("1 s", [apply("c")], [apply("d")])]
    step = fork(inner, [retry(Backoff(retries=1), [apply("e")], [apply("f")])])
    assert children(choose({"stage": 1.0})) == []
    assert [len(steps) for steps in children(step)] == [2, 1]
    assert [each.effect for each in everything([step]) if hasattr(each, "effect")] == ["a", "b", "c", "d", "e", "f"]


def test_each_noun_has_its_own_name() -> None:
    flow = Flow("names")
    part = flow.part("shop")
    part.pool("database", 4)
    jobs = part.queue("jobs")
    flow.consumers(jobs, part, count=1, steps=[ack()])
    flow.source("job", [apply("done")])
    assert set(flow.pools) == {"shop.cpu", "shop.database"} and part.cpu.capacity == 1
    for again in (
        lambda: flow.part("shop"),
        lambda: part.pool("database", 2),
        lambda: part.queue("jobs"),
        lambda: flow.consumers(jobs, part, count=2, steps=[ack()]),
        lambda: flow.source("job", [apply("done")]),
    ):
        with pytest.raises(BadInput, match="twice"):
            again()


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "2"])
def test_a_pool_has_a_whole_number_of_units(capacity: object) -> None:
    with pytest.raises(BadInput, match="capacity of pool 'server' must be a whole number of at least 1"):
        Flow("units").pool("server", capacity=capacity)  # type: ignore[arg-type]


def test_a_flow_knows_all_its_programs() -> None:
    flow = Flow("programs")
    part = flow.part("shop")
    flow.source("job", [apply("a")], at=part)
    flow.consumers(part.queue("jobs"), part, count=1, steps=[apply("b"), ack()])
    flow.stage("end", [apply("c"), delay(Exponential(1.0))])
    assert [(name, len(steps)) for name, steps in flow.programs()] == [
        ("job", 1),
        ("jobs.consumers", 2),
        ("stage.end", 2),
    ]
