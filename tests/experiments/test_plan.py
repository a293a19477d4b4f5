"""A plan is read strictly: every mistake is one line that names it, before anything runs."""

import pytest

from simlib import experiments
from simlib.errors import BadInput
from simlib.experiments import Entry

GOOD = {
    "replications": "2",
    "messages": "500",
    "architectures": "[{architecture: rest}, {architecture: message_queue}]",
    "scenarios": "[{scenario: steady, rates: [50/s, 100/s]}, {scenario: burst}]",
}


def plan(folder, text=None, **changes):
    file = folder / "tiny.yaml"
    lines = {**GOOD, **changes}
    file.write_text(text or "".join(f"{key}: {value}\n" for key, value in lines.items() if value), encoding="utf-8")
    return file


def test_entries_are_candidates_on_scenarios_the_longest_grids_first(tmp_path):
    variant = "[{architecture: message_queue, variant: reply, parameters: {answered_on: reply}}, {architecture: rest}]"
    found = experiments.load_plan(plan(tmp_path, architectures=variant))
    names = ["message_queue.reply-steady", "rest-steady", "message_queue.reply-burst", "rest-burst"]
    assert [entry.name for entry in found.entries] == names
    assert found.entries[0].rates == (50.0, 100.0)
    assert [entry.runs for entry in found.entries] == [4, 4, 2, 2]
    assert (found.name, found.seed) == ("tiny", 1)


def test_a_grid_sets_the_base_rate_and_none_keeps_the_scenarios_own():
    assert [case.scenario.rate for case in Entry("rest", rates=(20.0, 30.0)).cases()] == [20, 30]
    assert [case.scenario.rate for case in Entry("rest", scenario="burst").cases()] == [100]


def test_the_reports_plan_can_be_run():
    found = experiments.load_plan("data/plans/report.yaml")
    assert (found.name, found.replications, found.messages) == ("report", 10, 20_000)
    candidates = {entry.candidate for entry in found.entries}
    assert candidates == {"rest", "message_queue", "message_queue/reply"}
    assert {entry.scenario for entry in found.entries} == {"steady", "burst", "flash_sale"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": "[{architecture: restt}]"}, "unknown architecture 'restt': did you mean 'rest'"),
        ({"architectures": "[rest]"}, "architectures.0"),
        ({"architectures": "[]"}, "architectures"),
        ({"architectures": None}, "architectures: Field required"),
        ({"architectures": "[{architecture: rest}, {architecture: rest}]"}, "'rest-steady' stands in the plan twice"),
        ({"architectures": "[{architecture: rest, variant: x}]"}, "give both or neither"),
        ({"architectures": "[{architecture: rest, parameters: {retries: 0}}]"}, "give both or neither"),
        ({"architectures": "[{architecture: rest, variant: x, parameters: {retrys: 0}}]"}, "did you mean 'retries'"),
        ({"architectures": "[{architecture: rest, variant: x/y, parameters: {retries: 0}}]"}, "variant"),
        ({"scenarios": "[{scenario: stedy}]"}, "unknown scenario 'stedy': did you mean 'steady'"),
        ({"scenarios": "[{scenario: steady, rate: 5}]"}, "unknown key 'scenarios.0.rate'"),
        ({"scenarios": "[{scenario: steady, rates: [100/s, 50/s]}]"}, "rates must ascend"),
        ({"scenarios": "[{scenario: steady, rates: [0]}]"}, "greater than 0"),
        ({"scenarios": "[{scenario: steady, rates: [100/week]}]"}, "write '100/s'"),
        ({"scenarios": "[{scenario: flash_sale}]"}, "500 messages end before the last phase"),
        ({"replications": "1"}, "replications"),
        ({"replications": "many"}, "replications"),
        ({"messages": "-5"}, "messages"),
        ({"seed": "-1"}, "seed"),
        ({"speed": "1"}, "unknown key 'speed'"),
        ({"name": "../other"}, "name"),
        ({"text": "- a list\n"}, "must be a mapping"),
        ({"text": "no\n"}, "must be a mapping"),
        ({"text": "seed: 1\nseed: 2\n"}, "not valid YAML"),
        ({"text": "a: &a [1]\nb: *a\n"}, "alias is not allowed"),
        ({"text": "seed: [1\n"}, "not valid YAML"),
    ],
)
def test_a_bad_plan_is_refused_in_one_line(tmp_path, changes, said):
    with pytest.raises(BadInput) as refused:
        experiments.load_plan(plan(tmp_path, **changes))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_plan_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        experiments.load_plan(tmp_path / "none.yaml")
