"""The grid of an entry: what is kept, what a failure leaves, and what a changed calibration changes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from simlib import api, comparison, draws, experiments, metrics, paths
from simlib.errors import BadInput, RunFailed
from simlib.experiments import CUTS, Entry, runner, store

TINY = Entry("rest", rates=(50.0, 100.0), messages=300, replications=2, seed=5)


@pytest.fixture(scope="module")
def grid():
    return experiments.run_grid(TINY)


def test_there_is_a_row_for_each_run_cut_and_metric(grid):
    found = grid.frame()
    assert grid.result.schema.equals(store.RESULT)
    assert set(found["cut"]) == {int(share * 300) for share in CUTS}
    per_run = found.groupby(["rate", "replication", "cut"])["metric"].nunique()
    assert per_run.nunique() == 1 and len(per_run) == 2 * 2 * len(CUTS)
    assert list(found["seed"].drop_duplicates()) == [5, draws.replication_seed(5, 1)]
    assert set(found["unit"]) == {metrics.unit_of(name) for name in found["metric"]}
    assert (found["version"] == api.version()).all() and (found["draws"] == draws.DRAWS).all()


def test_a_row_holds_what_the_run_itself_gives(grid):
    history = api.run("rest", rate=100.0, messages=300, seed=draws.replication_seed(5, 1))
    found = grid.frame().query("rate == 100 and replication == 1 and cut == 75").set_index("metric")["value"]
    measured = metrics.measure(history, 75)
    assert found.dropna().to_dict() == {name: value for name, value in measured.items() if value == value}
    assert list(found.index) == list(measured)


def test_points_have_the_same_numbers_in_any_order_and_beside_each_other(grid):
    entries = [replace(TINY, rates=rates) for rates in ((100.0, 50.0), (100.0,), (50.0,))]
    with ThreadPoolExecutor(len(entries)) as threads:
        others = list(threads.map(experiments.run_grid, entries))
    for other in others:
        for rate in other.entry.rates:
            for one, same in ((grid.result, other.result), (grid.backlog, other.backlog)):
                at_rate = [table.filter(pc.equal(table["rate"], rate)).to_pandas() for table in (one, same)]
                assert len(at_rate[0]) and at_rate[0].equals(at_rate[1])


def test_a_terminating_scenario_is_measured_uncut(tmp_path):
    file = tmp_path / "peak.yaml"
    file.write_text("arrivals: {process: profile, rate: 50/s, phases: [{lasts: 1 s, times: 3}]}\n")
    found = experiments.run_grid(Entry("rest", scenario=str(file), messages=300, replications=1)).frame()
    assert set(found["cut"]) == {0}


def test_the_backlog_ends_with_nothing_left(grid):
    last = grid.backlog.to_pandas().groupby(["rate", "replication"])["backlog"].last()
    assert (last == 0).all()
    assert grid.backlog.schema.equals(store.BACKLOG)


def test_a_run_that_fails_is_a_row_that_says_why(monkeypatch):
    run = api.Case.run

    def broken(case, seed):
        if seed != 5:
            raise RunFailed("the weather\nwas bad")
        return run(case, seed)

    monkeypatch.setattr(api.Case, "run", broken)
    found = experiments.run_grid(TINY)
    failed = found.frame()[found.frame()["failed"].notna()]
    assert found.failures == ["RunFailed: the weather was bad"]
    assert len(failed) == 2 and failed["metric"].isna().all()
    points = comparison.points(found.frame())
    assert set(points["failed"]) == {1} and set(points["runs"]) == {1}


def test_a_history_that_breaks_an_invariant_is_a_failed_run(monkeypatch):
    run = api.Case.run

    def unlawful(case, seed):
        history = run(case, seed)
        rows = history.messages.set_column(
            history.messages.schema.get_field_index("effects"),
            "effects",
            pa.array([9] * history.messages.num_rows, pa.int16()),
        )
        return type(history)(rows, history.effects, history.parts, history.faults, history.attempts, history.meta)

    monkeypatch.setattr(api.Case, "run", unlawful)
    found = experiments.run_grid(Entry("rest", messages=200, replications=1))
    assert "an invariant broke: counts" in found.failures[0]


def test_what_is_finished_is_not_run_again_and_ends_as_the_same_bytes(monkeypatch, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    experiments.run_grid(TINY, whole, "k")
    run, ran = api.Case.run, []

    def interrupted(case, seed):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(seed)
        return run(case, seed)

    monkeypatch.setattr(api.Case, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.run_grid(TINY, parts, "k")
    assert store.finished_runs(parts) == 3 and store.about(parts) is None

    monkeypatch.setattr(api.Case, "run", lambda case, seed: ran.append(seed) or run(case, seed))
    experiments.run_grid(TINY, parts, "k")
    assert len(ran) == 4, "three runs before the interrupt, one after it"
    for name in ("result.parquet", "backlog.parquet", "run.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert not list(parts.glob("runs-*"))


def test_runs_of_another_key_are_not_taken_over(tmp_path):
    old = tmp_path / "runs-old"
    old.mkdir()
    (old / "000-0000.result.parquet").write_bytes(b"of other code")
    experiments.run_grid(Entry("rest", messages=200, replications=1), tmp_path, "new")
    assert not old.exists()
    assert store.about(tmp_path)["key"] == "new"


def test_a_changed_calibrated_value_changes_the_tables_and_the_key(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CALIBRATION", tmp_path)
    assumed = runner.key(TINY)
    (tmp_path / "system.yaml").write_text("parameters: {http_server: {value: 1 ms, provenance: measured}}\n")
    slower = experiments.run_grid(TINY).frame()
    (tmp_path / "system.yaml").write_text("parameters: {http_server: {value: 0.1 ms, provenance: measured}}\n")
    faster = experiments.run_grid(TINY).frame()
    orders = "metric == 'response_time_p95.order'"
    tables = [comparison.points(frame).query(orders)["value"] for frame in (slower, faster)]
    assert (tables[0].to_numpy() > tables[1].to_numpy()).all()
    assert slower["calibration_hash"].nunique() == 1
    assert slower["calibration_hash"].iloc[0] != faster["calibration_hash"].iloc[0]
    assert runner.key(TINY) != assumed


def test_the_key_follows_whatever_the_results_depend_on(monkeypatch, tmp_path):
    keys = [runner.key(TINY)]
    keys.append(runner.key(Entry("rest", rates=(50.0, 100.0), messages=300, replications=2, seed=6)))
    lock = tmp_path / "requirements.lock"
    lock.write_text("simpy==0\n")
    monkeypatch.setattr(paths, "LOCK", lock)
    keys.append(runner.key(TINY))
    package = tmp_path / "simlib"
    (package / "figures").mkdir(parents=True)
    (package / "domain.py").write_text("A = 1\n")
    monkeypatch.setattr(paths, "PACKAGE", package)
    keys.append(runner.key(TINY))
    (package / "domain.py").write_text("A = 2\n")
    keys.append(runner.key(TINY))
    (package / "figures" / "charts.py").write_text("B = 1\n")
    assert runner.key(TINY) == keys[-1], "what comes after the store does not change it"
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", ["truncated", "other table", "missing"])
def test_a_store_that_cannot_be_read_is_refused(tmp_path, damage):
    folder = tmp_path / "rest-steady"
    experiments.run_grid(Entry("rest", messages=200, replications=1), folder, "k")
    file = folder / "result.parquet"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "other table":
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        file.unlink()
    with pytest.raises(BadInput, match=r"result\.parquet .*sweep again"):
        experiments.read(tmp_path)


def test_an_empty_store_says_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="run simlib sweep"):
        experiments.read(tmp_path)


def test_an_entry_without_its_last_file_is_not_there(tmp_path):
    assert store.about(tmp_path) is None
    (tmp_path / "run.json").write_text("{")
    assert store.about(tmp_path) is None
    assert not runner.is_there(tmp_path, "k")
