"""Times measured elsewhere are fitted to a file, which must be right; and a run says what of it is beyond what was validated."""

import json

import numpy as np
import pytest

from simlib import api, cli, paths
from simlib.calibration.fit import fit, quantiles
from simlib.distributions import Constant, Lognormal, Quantiles, Weibull
from simlib.validity import beyond

HEAD = "publish_client [us],consume_client [us],store [ms],dispatch,uplink [ms]"
ROW = "40,50,1.5,0.0001,0.2"
DATA = paths.PACKAGE.parent / "data"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to be in, which is the project's too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "VALIDATION", tmp_path / "validation.json")
    for name in ("BROKERS", "CALIBRATION", "MEASUREMENTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


def said(capsys, command, status):
    found = cli.main(command.split())
    printed = capsys.readouterr()
    assert found == status, printed.err
    return json.loads(printed.out) if status == 0 else printed.err


def test_a_file_of_times_calibrates_a_broker_of_ones_own_and_its_fits_are_drawn(capsys, home):
    drawn = Lognormal(mean=0.002, cv=0.4).sample(1, "store", 300)
    rows = [f"40,50,{1e3 * store:.6g},,{'0.2' if k < 40 else ''}" for k, store in enumerate(drawn)]
    rows[:40] = [f"40,50,{1e3 * store:.6g},0.0001,0.2" for store in drawn[:40]]
    (home / "times.csv").write_text("\n".join([HEAD, *rows]))
    found = said(capsys, "calibrate message_queue --set broker=rabbitmq --from times.csv --as mine --json", 0)
    entries = found["rows"][0]["parameters"]
    assert {entry["provenance"] for entry in entries.values()} == {"measured elsewhere"}
    assert all(entry["source"].startswith("times.csv, blake2b ") for entry in entries.values())
    assert [path.removeprefix(str(home)) for path in found["figures"]] == [
        "/figures/fits_message_queue.mine.ru.png", "/figures/fits_message_queue.mine.png",
    ]  # fmt: skip
    p = api.case("message_queue", params={"broker": "mine"}, messages=50).parameters
    assert p.store.mean_value == pytest.approx(drawn.mean(), rel=0.02)
    means = [getattr(p, name).mean_value for name in ("publish_client", "dispatch", "uplink")]
    assert means == pytest.approx([4e-5, 1e-4, 2e-4])


@pytest.mark.parametrize(
    ("head", "row", "line"),
    [
        (HEAD.replace(",dispatch", ""), "40,50,1.5,0.2", "must have a column 'dispatch'"),
        (HEAD + ",stores", ROW + ",1", "unknown column 'stores': did you mean 'store'?"),
        (HEAD + ",store", ROW + ",1", "has the column 'store' twice: leave one out"),
        (HEAD.replace("[ms]", "[parsec]", 1), ROW, "the unit of store must be one of"),
        (
            HEAD,
            ROW.replace("1.5", "-1"),
            "line 2: store must be at least 0, got '-1': it was taken by two clocks that do not match",
        ),
        (HEAD, ROW.replace("1.5", "nan"), "line 2: store must be a finite number, got 'nan'"),
        (HEAD, ROW.replace("1.5", "fast"), "line 2: store must be a finite number, got 'fast'"),
        (HEAD, ROW + ",7", "line 2: 5 columns have a name, got 6"),
        (HEAD, "", "must have at least 30 samples, got 0: measure for longer"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line_and_leaves_nothing(capsys, home, head, row, line):
    (home / "times.csv").write_text("\n".join([head, *[row] * 40]))
    error = said(capsys, "calibrate message_queue --from times.csv --as mine", 2)
    assert line in error and error.count("\n") == 1
    assert [path.name for path in home.iterdir()] == ["times.csv"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("calibrate message_queue --from none.csv --as mine", "none.csv cannot be read"),
        ("calibrate message_queue --from none.csv", "give both --from and --as"),
        ("calibrate --from none.csv --as mine", "are of one architecture: name it"),
        ("calibrate rest --from none.csv --as mine", "'rest' stands on no broker that could be your own"),
    ],
)
def test_a_file_that_cannot_be_used(capsys, home, command, line):
    assert line in said(capsys, command, 2)


@pytest.mark.parametrize("law", [Lognormal(mean=0.002, cv=0.5, shift=0.001), Weibull(0.003, 1.5, 0.001), Constant(0.2),
                                 Quantiles((0.001, 0.002, 0.005))])  # fmt: skip
def test_quantiles_of_a_fit_are_those_of_what_it_draws(law):
    levels = np.array([0.1, 0.5, 0.9])
    drawn = law.sample(1, "drawn", 200_000)
    assert quantiles(law, levels) == pytest.approx(np.quantile(drawn, levels), rel=0.01)
    assert quantiles(fit(drawn[:2000]).distribution, levels) == pytest.approx(quantiles(law, levels), rel=0.1)


def test_a_run_within_what_was_validated_has_nothing_beyond_it(monkeypatch):
    validated = json.loads((DATA / "calibration" / "validation.json").read_text())
    case = api.case("rest", messages=100)
    used = {f"{name}:{digest}" for name, digest in case.meta["calibration"].items()}
    monkeypatch.setitem(validated, "calibration", sorted(used))
    monkeypatch.setattr("simlib.validity.validated", lambda broker: validated)
    assert beyond(case) == []
    (load,) = beyond(api.case("rest", rate="5000/s", messages=100))
    assert load.startswith("at 5000/s it has more load than ")
    (other,) = beyond(api.case("rest", params={"retries": 1, "commit": "5 ms"}, messages=100))
    assert other == "other parameters than were measured: commit, retries"
    monkeypatch.setitem(validated, "calibration", [])
    assert beyond(case) == ["its calibration is another than the one that was validated"]
    workload = " ".join(beyond(api.case("rest", "fulfilment", messages=100)))
    assert "another workload than was measured: " in workload and "process" in workload


def test_what_was_never_held_against_a_live_run_says_so_in_the_output(capsys, home):
    assert cli.main("run rest --messages 200 --replications 2".split()) == 0
    assert "rest is beyond what its model was validated at: it was never held" in capsys.readouterr().out
    found = said(capsys, "run rest --messages 200 --replications 2 --json", 0)
    assert found["beyond"] == ["it was never held against a live run"]
