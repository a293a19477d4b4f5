"""A validation runs on a model of the machine that was measured on, which slows down by itself."""

import numpy as np
import pytest

from simlib import api
from simlib.calibration.validate import on_machine
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
