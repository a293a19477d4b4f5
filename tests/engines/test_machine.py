"""The machine's pace: slow episodes are found by their length and their factor, and a steady machine has none."""

import numpy as np
import pytest

from simlib.engines import machine


def test_slow_episodes_are_counted_with_their_share_and_factor():
    times = np.arange(0, 10, 0.001)
    phase = times % 2
    slow = (phase < 0.1) | ((phase > 0.15) & (phase < 0.2))  # the second part is the same episode
    found = machine.paced(times, np.where(slow, 0.004, 0.001))
    assert found["episodes_per_second"] == pytest.approx(0.5, rel=0.01)
    assert found["share"] == pytest.approx(0.075, rel=0.1)
    assert found["factor"] == pytest.approx(4.0, rel=0.1)


def test_a_steady_machine_has_no_slow_episodes():
    found = machine.paced(np.arange(0, 5, 0.001), np.random.default_rng(1).uniform(0.9e-3, 1.1e-3, 5000))
    assert (found["share"], found["episodes_per_second"], found["factor"]) == (0.0, 0.0, 1.0)


def test_the_pace_of_this_machine_is_measured_for_as_long_as_asked():
    found = machine.pace(0.2)
    assert found["seconds"] == pytest.approx(0.2, abs=0.1)
    assert 0 <= found["share"] <= 1 and found["factor"] >= 1
