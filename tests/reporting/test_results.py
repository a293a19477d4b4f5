"""What the report prints is what the store holds: the context filled from invented results."""

import pyarrow as pa
import pytest

from simlib import comparison, experiments, paths, reporting
from simlib.comparison import choice
from simlib.errors import BadInput
from simlib.experiments import Candidate, Load, Plan, store
from simlib.figures import style
from simlib.reporting import results

LEVELS = ("p50", "p95", "p99")


@pytest.fixture(scope="module")
def plan():
    return Plan(
        name="invented",
        seed=7,
        replications=4,
        messages=1000,
        architectures=(
            Candidate(architecture="rest"),
            Candidate(architecture="message_queue"),
            Candidate(architecture="message_queue", variant="reply", parameters={"answered_on": "reply"}),
        ),
        scenarios=(
            Load(scenario="steady", rates=(100, 200, 400)),
            Load(scenario="burst"),
            Load(scenario="flash_sale"),
            Load(scenario="fulfilment"),
            Load(scenario="crashes"),
        ),
    )


@pytest.fixture(scope="module")
def validation():
    rows = [
        {
            "architecture": architecture,
            "broker": {"rest": None, "message_queue": "nats"}[architecture],
            "rate": 300 * load,
            "load": load,
            "kind": kind,
            "metric": "response_time",
            "kind_of_message": "order",
            "measured": dict.fromkeys(LEVELS, 0.01),
            "predicted": dict.fromkeys(LEVELS, 0.011),
            "error": {"p50": 0.1, "p95": -0.25, "p99": 0.1},
            "accepted": (architecture == "rest" if load <= 0.7 and kind == "trace" else None),
        }
        for architecture in ("rest", "message_queue")
        for load in (0.5, 0.85)
        for kind in ("trace", "independent")
    ]
    saturations = [
        {
            "architecture": name,
            "broker": broker,
            "measured": 400.0,
            "predicted": 410.0,
            "error": 0.025,
            "accepted": True,
        }
        for name, broker in (("rest", None), ("message_queue", "nats"))
    ]
    return {
        "rows": rows, "saturations": saturations, "accuracy": {"p50": 0.2, "p95": 0.1, "p99": 0.3},
        "saturation_accuracy": 0.05, "stated_up_to_load": 0.7, "tried": 12, "rejected": 2, "calibration": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def costs():
    return choice.costs(paths.COST)


@pytest.fixture
def stored(monkeypatch, tmp_path, plan, invented_results):
    """The invented results in a store of their own, with pictures for the report to print."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    paths.FIGURES.mkdir()
    for entry in plan.entries:
        own = invented_results.query(
            "architecture == @entry.architecture and variant == @entry.variant and scenario == @entry.scenario"
        )
        table = pa.Table.from_pandas(own, store.RESULT, preserve_index=False)
        folder = paths.RESULTS / plan.name / entry.name
        store.write(folder, table.replace_schema_metadata(None), store.BACKLOG.empty_table(), {"key": "k"})
    for name in results.FIGURES:
        style.file(paths.FIGURES, name, "ru", "svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return experiments.read(paths.RESULTS / plan.name)


@pytest.fixture
def context(stored, plan, validation, costs):
    return results.context(plan, validation, costs)


def test_the_template_finds_all_that_it_asks_for(context):
    source = reporting.markdown.fill(context, paths.REPORT_SOURCE)
    assert "очередь с ожиданием ответа" in source.text
    assert {"response_time.svg", "validation.svg"} <= set(source.pictures)


def test_of_the_validation_the_report_tells_the_architectures_that_it_compares(stored, plan, validation, costs):
    more = {
        part: [*validation[part], *({**row, "architecture": "outbox"} for row in validation[part])]
        for part in ("rows", "saturations")
    }
    context = results.context(plan, {**validation, **more}, costs)
    twins = {"вызовы REST", "очередь сообщений (nats)"}
    assert (
        set(context.tables["validation"].frame["Прототип"]) == set(context.tables["points"].frame["Прототип"]) == twins
    )
    assert (context.numbers["validation.points"].value, context.numbers["validation.saturations"].value) == (2, 2)


@pytest.mark.parametrize("invented_results", [{"overloaded": True}], indirect=True)
def test_where_every_point_is_overloaded_the_report_says_so(stored, plan, validation, costs):
    source = reporting.markdown.fill(results.context(plan, validation, costs), paths.REPORT_SOURCE)
    assert "перегружены все архитектуры" in source.text


def test_numbers_are_those_of_the_store(context, stored):
    found = comparison.saturation(stored).set_index("candidate").loc["rest"]
    [standing] = context.standings["scalability"]
    number = standing.values["rest"]
    assert (number.value, number.low, number.high) == (found["value"], found["low"], found["high"])
    assert number.run == "invented/rest-steady"
    row = context.tables["order"].frame.set_index("Архитектура").loc["вызовы REST"]
    points = comparison.points(stored).query("candidate == 'rest' and rate == 200").set_index("metric")
    assert row["равномерная нагрузка"].value == pytest.approx(1e3 * points.loc["response_time_p95.order", "value"])
    assert set(context.tables["paired-order"].frame["Архитектура"]) == {
        "очередь сообщений",
        "очередь с ожиданием ответа",
    }


def test_every_difference_is_one_of_the_paired_intervals(context, stored):
    pairs = comparison.pairs(stored)
    scales = {"мс": 1e3, "%": 100.0}
    known = {
        (row.a, row.b, round(row.difference, 9), round(row.low, 9), round(row.high, 9)) for row in pairs.itertuples()
    }
    assert list(context.standings) == list(comparison.ASPECTS)
    for standing in (each for of_aspect in context.standings.values() for each in of_aspect):
        assert set(standing.values) == {"rest", "message_queue"}, "variants do not compete"
        for name, number in standing.differences.items():
            scale = scales.get(number.unit, 1.0)
            value, low, high = (round(each / scale, 9) for each in (number.value, number.low, number.high))
            straight, turned = (name, standing.leader, value, low, high), (standing.leader, name, -value, -high, -low)
            assert straight in known or turned in known
            assert number.run.startswith("invented/")


def test_the_leader_is_the_fastest_and_of_throughput_the_largest(context):
    assert {each.leader for each in context.standings["performance"]} == {"message_queue"}
    assert [each.leader for each in context.standings["scalability"]] == ["rest"]


def test_places_are_those_of_the_architectures_the_best_first(context):
    assert {place.name for place in context.places} == {"rest", "message_queue"}
    assert context.places[0].flow >= context.places[1].flow
    assert sum(place.first for place in context.places) == pytest.approx(100)
    assert list(context.tables["choice"].frame["Архитектура"]) == [place.title for place in context.places]


def test_what_was_validated_is_counted(context):
    numbers = {name: number.value for name, number in context.numbers.items()}
    assert (numbers["validation.points"], numbers["validation.accepted"]) == (2, 1)
    assert numbers["validation.worst"] == pytest.approx(25)
    assert (numbers["measurement.tried"], numbers["measurement.rejected"]) == (12, 2)
    summary = context.tables["validation"].frame.set_index("Прототип")
    assert list(summary["Выдержано"]) == ["1 из 1", "0 из 1"]
    points = context.tables["points"].frame.set_index("Прототип")
    assert points.loc["вызовы REST", "ρ = 0,5"] == "10/−25/10"
    assert points.loc["очередь сообщений (nats)", "ρ = 0,5"] == "10/−25/10*"
    assert points.loc["очередь сообщений (nats)", "ρ = 0,85"] == "10/−25/10", "no accuracy is stated of it"


def test_every_parameter_is_printed_with_its_provenance(context):
    frame = context.tables["parameters"].frame
    assert {"edge", "retries", "consumers", "answered_on"} <= set(frame["Параметр"])
    assert set(frame["Происхождение"]) <= {"измерено", "принято", "опубликовано"}
    rows = frame.set_index("Параметр")
    assert (rows.loc["edge", "Архитектуры"], rows.loc["consumers", "Архитектуры"]) == ("все", "2")
    assert rows.loc["timeout", "Значение"] == "1 с" and rows.loc["retry_budget", "Значение"] == "100"


def test_without_a_validation_the_report_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "VALIDATION", tmp_path / "validation.json")
    with pytest.raises(BadInput, match="run simlib measure, simlib calibrate and simlib validate"):
        results.report(1)
    (tmp_path / "validation.json").write_text("{")
    with pytest.raises(BadInput, match="is no JSON"):
        results.report(1)


def test_without_the_costs_the_report_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "COST", tmp_path / "cost.json")
    with pytest.raises(BadInput, match=r"cost\.json is missing: run make cost"):
        results.report(1)
    (tmp_path / "cost.json").write_text("{")
    with pytest.raises(BadInput, match="is no JSON"):
        results.report(1)
