"""The commands: what they print for a script, how bad input ends, and that starting them is quick."""

import json
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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of files that are not what they should be."""
    tmp_path = tmp_path_factory.mktemp("files")
    texts = {
        "broken.yaml": "arrivals: {process: poisson, rate: 100/s\n",
        "twice.yaml": "arrivals: {process: poisson, rate: 100/s}\nmessages: 1\nmessages: 2\n",
        "bomb.yaml": "a: &a [x, x]\nb: &b [*a, *a]\narrivals: *b\n",
        "list.yaml": "- 1\n",
        "word.yaml": "no\n",
        "key.yaml": "arrivals: {process: poisson, rate: 100/s}\nmesages: 5\n",
        "type.yaml": "arrivals: {process: poisson, rate: 100/s}\nmessages: many\n",
        "no.yaml": "arrivals: {process: poisson, rate: no}\n",
        "range.yaml": "arrivals: {process: poisson, rate: 100/s}\ncustomers: 0\n",
        "unit.yaml": "arrivals: {process: poisson, rate: 100/s}\nhandler_work: 2 parsecs\n",
        "mix.yaml": "arrivals: {process: poisson, rate: 100/s}\nmix: {order: 0.9}\n",
        "fault.yaml": "arrivals: {process: poisson, rate: 100/s}\nfaults: [{fault: crash, part: shpo, at: [1 s]}]\n",
        "plan.yaml": "architectures: [{architecture: rest}]\nscenarios: [{scenario: steady, rates: [5, 4]}]\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    api.run("rest", messages=50).save(tmp_path / "history")
    whole = (tmp_path / "history" / "messages.parquet").read_bytes()
    (tmp_path / "history" / "messages.parquet").write_bytes(whole[: len(whole) // 2])
    return tmp_path


BAD = [
    ("", "no command", "runn rest", "Did you mean 'run'?"),
    ("", "no option", "run rest --mesages 5", "--mesages"),
    ("", "no argument", "run", "ARCH"),
    ("", "no number", "run rest --messages lots", "--messages"),
    ("", "architecture", "run restt", "unknown architecture 'restt': did you mean 'rest'?"),
    ("", "one of several", "compare rest message_que", "did you mean 'message_queue'?"),
    ("", "one twice", "compare rest rest", "named twice"),
    ("", "scenario", "run rest --scenario stedy", "did you mean 'steady'?"),
    ("", "engine", "run rest --engine simpie", "unknown engine 'simpie': did you mean 'simpy'?"),
    ("", "parameter", "run rest --set retrys=1", "unknown parameter 'retrys': did you mean 'retries'?"),
    ("", "parameter of another", "run rest --set consumers=4", "unknown parameter 'consumers'"),
    ("", "parameter nobody has", "compare --set consumer=4 --messages 50", "unknown parameter 'consumer'"),
    ("", "type", "run rest --set retries=many", "retries"),
    ("", "no as a number", "run rest --set timeout=no", "timeout"),
    ("", "range", "run rest --set retries=-1", "greater than or equal to 0, got -1"),
    ("", "unit", "run rest --set timeout=5parsecs", "a unit of ns, us, µs, ms, s, min, h, d, got '5parsecs'"),
    ("", "infinity", "run rest --set timeout=.inf", "finite"),
    ("", "no value", "run rest --set retries", "--set takes name=value, got 'retries'"),
    ("", "set twice", "run rest --set retries=1 --set retries=2", "'retries' twice"),
    ("", "broken value", "run rest --set edge=[1", "--set edge: not valid YAML"),
    ("", "distribution", "run rest --set edge={family:nomal}", "edge"),
    ("", "rate", "run rest --rate fast", "write '100/s'"),
    ("", "rate's unit", "run rest --rate 100/week", "write '100/s'"),
    ("", "negative rate", "run rest --rate=-5/s", "above 0, got -5/s"),
    ("", "zero messages", "run rest --messages 0", "at least 1, got 0"),
    ("", "negative replications", "run rest --replications=-2", "at least 1, got -2"),
    ("", "negative seed", "run rest --seed=-1", "at least 0, got -1"),
    ("", "too few messages", "run rest --scenario flash_sale --messages 100", "end before the last phase"),
    ("", "list", "list architecture", "unknown list 'architecture': did you mean 'architectures'?"),
    ("", "parameters of nobody", "list parameters", "name an architecture"),
    ("", "metrics of somebody", "list metrics rest", "leave it out"),
    ("", "no such folder", "check nowhere", "nowhere holds no history"),
    ("", "no such plan", "sweep nowhere.yaml", "nowhere.yaml cannot be read"),
    ("files", "truncated history", "check history", "holds no history that can be read"),
    ("files", "history over a file", "run rest --history broken.yaml --messages 50", "name a writable folder"),
    ("files", "broken YAML", "run rest --scenario broken.yaml", "not valid YAML"),
    ("files", "a key twice", "run rest --scenario twice.yaml", "not valid YAML"),
    ("files", "aliases", "run rest --scenario bomb.yaml", "alias is not allowed"),
    ("files", "a list", "run rest --scenario list.yaml", "must be a mapping"),
    ("files", "a word", "run rest --scenario word.yaml", "must be a mapping"),
    ("files", "no text", "run rest --scenario binary.yaml", "cannot be read"),
    ("files", "a key", "run rest --scenario key.yaml", "unknown key 'mesages'"),
    ("files", "a value's type", "run rest --scenario type.yaml", "messages"),
    ("files", "no as a rate", "run rest --scenario no.yaml", "got 'no'"),
    ("files", "a value's range", "run rest --scenario range.yaml", "greater than or equal to 1, got 0"),
    ("files", "a value's unit", "run rest --scenario unit.yaml", "parsecs"),
    ("files", "shares", "run rest --scenario mix.yaml", "add up to 1"),
    ("files", "a part of a fault", "run rest --scenario fault.yaml", "did you mean 'shop'?"),
    ("files", "a plan", "sweep plan.yaml", "rates must ascend"),
    ("files", "workers", "sweep plan.yaml --workers 0", "--workers must be at least 1, got 0"),
]


@pytest.mark.parametrize(
    ("where", "line", "said"), [pytest.param(where, line, said, id=name) for where, name, line, said in BAD]
)
def test_bad_input_ends_with_status_2_and_one_line_that_says_what(capsys, files, monkeypatch, where, line, said):
    monkeypatch.chdir(files)
    status, out, err = ends(capsys, *line.split())
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert said in err


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
    assert {(row["a"], row["b"]) for row in found["paired"]} == {("message_queue", "rest")}
    values = [row["metrics"]["goodput"]["value"] for row in found["rows"]]
    [difference] = [row["difference"] for row in found["paired"] if row["metric"] == "goodput"]
    assert difference == pytest.approx(values[1] - values[0])
    status, out, _ = ends(capsys, "compare", *SMALL)
    assert status == 0 and "message_queue − rest" in out


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
    assert [part["name"] for part in found["parts"]] == ["postgres", "nats", "rabbitmq"]
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
