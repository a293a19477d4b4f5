"""A plan's entries and their cases; what a plan may not be stands in tests/test_bad_input.py."""

from simlib import architectures, experiments
from simlib.experiments import Entry
from simlib.scenario import scenario_names

PLAN = """
replications: 2
messages: 500
architectures: [{architecture: message_queue, variant: reply, parameters: {answered_on: reply}}, {architecture: rest}]
scenarios: [{scenario: steady, rates: [50/s, 100/s]}, {scenario: burst}]
"""


def test_entries_are_candidates_on_scenarios_the_longest_grids_first(tmp_path):
    (tmp_path / "tiny.yaml").write_text(PLAN)
    found = experiments.load_plan(tmp_path / "tiny.yaml")
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
    assert candidates == {*architectures.names(), "message_queue/reply"}
    assert {entry.scenario for entry in found.entries} == set(scenario_names())
