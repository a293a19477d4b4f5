"""Calibration: measure the twins, fit the models' parameters, and hold their predictions against loads they did not see."""

from simlib.calibration.calibrate import calibrate, calibrate_from, estimated, from_elsewhere
from simlib.calibration.measure import Measurement, measure, measured
from simlib.calibration.stages import has_own
from simlib.calibration.validate import HeldOut, held_out, twin, validate

__all__ = [
    "HeldOut",
    "Measurement",
    "calibrate",
    "calibrate_from",
    "estimated",
    "from_elsewhere",
    "has_own",
    "held_out",
    "measure",
    "measured",
    "twin",
    "validate",
]
