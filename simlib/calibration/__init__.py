"""Calibration: measure the twins, fit the models' parameters, and hold their predictions against loads they did not see."""

from simlib.calibration.calibrate import calibrate
from simlib.calibration.measure import Measurement, measure
from simlib.calibration.validate import HeldOut, held_out, twin, validate

__all__ = ["HeldOut", "Measurement", "calibrate", "held_out", "measure", "twin", "validate"]
