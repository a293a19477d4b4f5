"""The commands: what they print for a script, how bad input ends, and that starting them is quick."""

import json
import re
import subprocess
import sys

import pytest

from simlib import api, architectures, cli, metrics
from simlib.errors import RunFailed
from simlib.scenario import scenario_names

SMALL = ("--messages", "300", "--replications", "2")


def ends(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    status = cli.main(arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def document(capsys, *arguments: str):
    status, out, _ = ends(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_a_command_without_arguments_prints_its_help(capsys):
    status, out, err = ends(capsys)
    assert "compare" in out + err and status in (0, 2)
    status, out, _ = ends(capsys, "run", "--help")
    assert status == 0 and "--replications" in out


def test_run_prints_a_document_of_the_promised_shape(capsys):
    found = document(capsys, "run", "message_queue", *SMALL, "--rate", "80/s", "--seed", "3", "--set", "consumers=2")
    assert {
        "architecture": "message_queue",
        "scenario": "steady",
        "engine": "compiled",
        "seed": 3,
    }.items() <= found.items()
    assert (found["messages"], found["replications"], found["rate"]) == (300, 2, 80.0)
    assert found["parameters"]["consumers"] == 2
    assert found["version"] == api.version() and found["draws"] and len(found["parameters_hash"]) == 12
    for name, value in found["metrics"].items():
        assert set(value) == {"value", "low", "high", "unit"}, name
        assert value["unit"] == metrics.unit_of(name)
    time = found["metrics"]["response_time_p95.order"]
    assert time["low"] < time["value"] < time["high"]
    assert {"lost", "duplicated", "stale", "reordered"} <= set(found["check"])
    assert all(isinstance(count, int) for count in found["check"].values())


def test_run_names_each_anomaly_that_it_found_with_its_meaning_and_its_first_messages(capsys):
    status, out, _ = ends(capsys, "run", "message_queue", "--scenario", "burst", "--rate", "80/s", *SMALL)
    counted = document(capsys, "run", "message_queue", "--scenario", "burst", "--rate", "80/s", *SMALL)["check"]
    assert status == 0 and counted["stale"] > 0
    shown = " ".join(out[out.index("checker:") :].split())
    assert f"stale {counted['stale']} a query that saw an older version" in shown
    assert "(replication " in shown and "none: lost, duplicated" in shown


def test_check_tells_what_became_of_the_first_messages_of_a_finding(capsys, tmp_path):
    folder = tmp_path / "history"
    lossy = tmp_path / "lossy.yaml"
    lossy.write_text(
        "arrivals: {process: poisson, rate: 50/s}\nmix: {stock_update: 1, order: 0, stock_query: 0}\n"
        "faults: [{fault: loss, link: accounting-broker, probability: 0.1}]\n"
    )
    blind = ("--set", "confirm=false", "--scenario", str(lossy), "--history", str(folder))
    assert ends(capsys, "run", "message_queue", *SMALL, *blind)[0] == 0
    status, out, _ = ends(capsys, "check", str(folder))
    assert status == 0 and "told ok, but no effect ever happened" in out
    first = out[out.index("\nlost\n") :].splitlines()[2]
    assert ": stock_update of SKU " in first and "; outcome lost; issued version " in first


def test_run_prints_what_replicate_gives(capsys):
    found = document(capsys, "run", "rest", *SMALL)["metrics"]
    table = api.replicate("rest", messages=300, replications=2).table().set_index("name")
    assert list(found) == list(table.index)
    for name, row in table.iterrows():
        assert found[name]["value"] == (row["value"] if row["value"] == row["value"] else None)


def test_ten_replications_are_the_default_and_one_has_the_batches_intervals(capsys):
    assert document(capsys, "run", "rest", "--messages", "60")["replications"] == 10
    one = document(capsys, "run", "rest", "--messages", "2000", "--replications", "1")
    table = api.run("rest", messages=2000).metrics().set_index("name")
    assert one["metrics"]["goodput"]["low"] == table.loc["goodput", "low"]


def test_a_value_that_does_not_exist_is_null(capsys):
    found = document(capsys, "run", "rest", "--messages", "30", "--replications", "1")
    assert found["metrics"]["goodput"]["low"] is None
    assert found["metrics"]["age_of_information_max"]["high"] is None


def test_run_shows_interval_seed_and_units(capsys):
    status, out, err = ends(capsys, "run", "rest", *SMALL, "--seed", "8")
    assert (status, err) == (0, "")
    assert "seed 8" in out and "95 % interval" in out and "2 runs of 300 messages" in out
    [row] = [line for line in out.splitlines() if "response_time_p95.order" in line]
    assert " ms [" in row
    assert "parameters " in out and api.version() in out


def test_an_overloaded_run_says_so_and_shows_no_percentiles(capsys):
    found = document(capsys, "run", "rest", "--rate", "900/s", "--messages", "600", "--replications", "2")
    assert found["overloaded"] is True
    assert found["metrics"]["response_time_p95.order"]["value"] is None
    assert found["metrics"]["goodput"]["value"] > 0
    _, out, _ = ends(capsys, "run", "rest", "--rate", "900/s", "--messages", "600", "--replications", "2")
    assert "overloaded" in out and "response_time_p95" not in out


def test_compare_prints_rows_and_paired_differences(capsys):
    found = document(capsys, "compare", *SMALL, "--scenario", "burst")
    assert [row["architecture"] for row in found["rows"]] == architectures.names()
    assert (found["scenario"], found["replications"]) == ("burst", 2)
    for row in found["paired"]:
        assert {"a", "b", "metric", "difference", "low", "high"} <= set(row)
    names = architectures.names()
    pairs = {(later, earlier) for i, later in enumerate(names) for earlier in names[:i]}
    assert {(row["a"], row["b"]) for row in found["paired"]} == pairs
    values = {row["architecture"]: row["metrics"]["goodput"]["value"] for row in found["rows"]}
    goodputs = [row for row in found["paired"] if row["metric"] == "goodput"]
    assert len(goodputs) == len(pairs)
    for row in goodputs:
        assert row["difference"] == pytest.approx(values[row["a"]] - values[row["b"]])
    status, out, _ = ends(capsys, "compare", *SMALL)
    assert status == 0
    assert re.findall(r"^(\S+) − (\S+)$", out, re.MULTILINE) == [(name, names[0]) for name in names[1:]]


def test_an_architecture_without_a_twin_is_listed_so_and_cannot_be_run_live_or_measured(capsys, monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "template", architectures.Architecture("template", "CLASS"))
    listed = {row["name"]: row["live twin"] for row in document(capsys, "list")}
    assert listed["template"] == "no twin yet" and listed["rest"] == listed["message_queue"] == "yes"
    others = [name for name, twin in listed.items() if twin == "yes"]
    for command in (("run", "template", "--engine", "live"), ("measure", "template"), ("calibrate", "template")):
        status, _, said = ends(capsys, *command)
        assert status == 2
        assert said.strip() == (
            f"error: architecture 'template' has no live twin yet: simulate it, or take {' or '.join(others)}"
        )


def test_the_same_command_prints_the_same_document(capsys):
    arguments = ("run", "message_queue", *SMALL)
    assert document(capsys, *arguments) == document(capsys, *arguments)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("architectures", architectures.names()),
        ("scenarios", scenario_names()),
        ("metrics", list(metrics.REGISTRY)),
        ("parameters rest", list(architectures.get("rest").parameters.model_fields)),
    ],
)
def test_a_list_is_of_objects_with_a_name(capsys, what, names):
    found = document(capsys, "list", *what.split())
    assert [row["name"] for row in found] == names
    status, out, _ = ends(capsys, "list", *what.split())
    assert status == 0 and all(name in out for name in names)


def test_check_judges_a_saved_history(capsys, tmp_path):
    folder = tmp_path / "deep" / "history"
    assert ends(capsys, "run", "rest", *SMALL, "--history", str(folder))[0] == 0
    found = document(capsys, "check", str(folder))
    assert found["architecture"] == "rest" and found["check"]["lost"] == 0 and found["check"]["violations"] == {}
    assert "conservation and causality hold" in ends(capsys, "check", str(folder))[1]


def test_doctor_names_the_real_parts(capsys):
    found = document(capsys, "doctor")
    assert [part["name"] for part in found["parts"]] == ["postgres", "nats", "rabbitmq", "kafka", "envoy", "haproxy"]
    for part in found["parts"]:
        assert part["found"] == (part["install"] is None)
    assert ends(capsys, "doctor")[0] == 0


def test_a_failed_run_ends_with_status_1_and_an_interrupt_with_130(capsys, monkeypatch):
    def fails(*_, **__):
        raise RunFailed("the weather\nwas bad")

    monkeypatch.setattr(api, "replicate", fails)
    assert ends(capsys, "run", "rest") == (1, "", "error: the weather was bad\n")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "replicate", interrupted)
    assert ends(capsys, "run", "rest") == (130, "", "error: interrupted\n")


def test_the_command_starts_without_what_it_does_not_need():
    heavy = ["numpy", "pandas", "matplotlib", "scipy", "numba", "simpy", "papermill", "fastapi", "nbformat"]
    code = f"import sys, simlib.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_run_needs_no_figures_no_notebooks_and_no_servers():
    code = (
        "import sys; from simlib import cli; cli.main(['run', 'rest', '--messages', '50', '--replications', '1'])\n"
        "heavy = ('matplotlib', 'papermill', 'nbformat', 'fastapi', 'uvicorn', 'psycopg')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
