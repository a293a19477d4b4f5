"""Calibration: measure the twins, fit the models' parameters, and hold their predictions against loads they did not see."""

from simlib.calibration.calibrate import calibrate
from simlib.calibration.measure import Measurement, measure, measured
from simlib.calibration.stages import has_own
from simlib.calibration.validate import HeldOut, held_out, twin, validate

__all__ = ["HeldOut", "Measurement", "calibrate", "has_own", "held_out", "measure", "measured", "twin", "validate"]
