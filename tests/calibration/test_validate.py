"""A validation runs on a model of the machine that was measured on, which slows down by itself, with the calibration's times."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simlib import api, paths
from simlib.calibration.measure import Measurement
from simlib.calibration.validate import Saturation, held_out, on_machine, saturated
from simlib.engines import machine

PACE = {"share": 0.08, "episodes_per_second": 0.5, "factor": 2.5, "seconds": 30.0}


def test_all_parts_are_slow_at_once_for_the_share_of_time_that_was_seen():
    case = api.case("message_queue", "steady", messages=200_000, rate="100/s")
    faults = on_machine(case, PACE, 1).faults
    assert len({(fault.at, fault.factor, fault.duration.mean_value) for fault in faults}) == 1
    assert {fault.part for fault in faults} == {"accounting", "shop", "broker"}
    starts = np.array([at for at in faults[0].at if at < 2000.0])
    assert faults[0].factor == 2.5
    assert starts.size * faults[0].duration.mean_value / 2000.0 == pytest.approx(0.08, rel=0.1)
    assert (np.diff(starts) > faults[0].duration.mean_value).all()
    assert faults[0].at[-1] > 2000.0


def test_other_seeds_are_slow_at_other_times_and_a_steady_machine_never():
    case = api.case("rest", "steady", messages=100)
    assert on_machine(case, PACE, 1) == on_machine(case, PACE, 1) != on_machine(case, PACE, 2)
    steady = machine.paced(np.arange(0, 5, 0.001), np.full(5000, 0.001))
    for pace in (steady, {}):
        assert on_machine(case, pace, 1) is case.scenario


def test_a_point_keeps_what_the_twin_was_set_to_and_leaves_its_times_to_the_calibration(tmp_path, monkeypatch):
    plan = held_out()
    monkeypatch.setattr(paths, "MEASUREMENTS", tmp_path)
    case = api.case("message_queue", "steady", {"broker": "rabbitmq", "consumers": 3, "store": "70 ms"}, 100)
    measurement, run = Measurement("message_queue", "rabbitmq"), {"run": "0.3-0", "load": 0.3, "rate": 100.0}
    rows = case.run(1).messages
    measurement.write("held_out.json", [{**json.loads(json.dumps(case.meta)), **run}])
    pq.write_table(
        rows.append_column("run", pa.array(["0.3-0"] * rows.num_rows)), measurement.folder / "held_out.parquet"
    )
    (point,) = measurement.points(plan)
    kept = api.case("message_queue", "steady", point.parameters).parameters
    assert kept == case.parameters.replace(
        store=api.case("message_queue", "steady", {"broker": "rabbitmq"}).parameters.store
    )


def test_saturation_is_predicted_from_the_same_messages_as_many_under_way():
    """Of a twin that is the model itself there is no error, and of one that is a tenth faster a tenth."""
    plan = held_out()
    assert plan.saturation_accuracy == 0.05
    first = saturated(Saturation("message_queue", "nats", {}, {1: 1.0, 2: 1.0}), plan)["predicted"]
    same = saturated(Saturation("message_queue", "nats", {}, {1: first, 2: first}), plan)
    faster = saturated(Saturation("message_queue", "nats", {}, {1: 1.1 * first, 2: 1.1 * first}), plan)
    assert same["error"] == 0 and same["accepted"]
    assert faster["error"] == pytest.approx(1 / 1.1 - 1) and not faster["accepted"]
