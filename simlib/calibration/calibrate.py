"""Calibration: what was measured of messages one by one and in bursts becomes the parameters of the models, with provenance.

`system.yaml` holds what every architecture shares, from REST's twin; an architecture's own file what is its alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from simlib import paths
from simlib.architectures.parameters import calibration_files, entries, own_times
from simlib.calibration import elsewhere, stages
from simlib.calibration.fit import fit
from simlib.calibration.measure import CALIBRATED, Measurement
from simlib.calibration.stages import Estimate, Estimates
from simlib.distributions import Constant
from simlib.errors import BadInput
from simlib.history import History


def calibrate(architecture: str, broker: str | None) -> dict[str, Any]:
    """Fit the times of an architecture's own to its measurement and write its file; what was written.

    REST writes the shared file, which the others stand on. Raises BadInput as `estimated` does, and where there is too little.
    """
    estimates = estimated(architecture, broker)
    runs = {kind: Measurement(architecture, broker).calibration_run("idle", kind) for kind in CALIBRATED}
    return _write(architecture, broker, _machine(runs), estimates)


def calibrate_from(file: Path, architecture: str, broker: str) -> dict[str, Any]:
    """Fit the times of an architecture's own to those in a file, which were measured elsewhere, and write the calibration of a
    broker of the user's own; what was written. Raises BadInput as `elsewhere.estimates` does."""
    return _write(architecture, broker, {}, from_elsewhere(file, architecture, broker))


def from_elsewhere(file: Path, architecture: str, broker: str) -> Estimates:
    """The samples of a file for each time of an architecture's own; raises BadInput as `elsewhere.estimates` does."""
    return elsewhere.estimates(file, own_times(architecture, {"broker": broker}))


def estimated(architecture: str, broker: str | None) -> Estimates:
    """The times of an architecture's own, from its measurement.

    Raises BadInput where a measurement is missing, and where an architecture has no times of its own.
    """
    if not stages.has_own(architecture):
        raise BadInput(f"architecture '{architecture}' has no times of its own to fit: it takes those of others")
    of = Measurement(architecture, broker)
    contrasts = stages.contrasts(architecture, broker)
    idle, busy = (
        {
            name: of.calibration_run(how, name)
            for name in (*CALIBRATED, *(n for n, c in contrasts.items() if c.how == how))
        }
        for how in ("idle", "busy")
    )
    *others, _ = calibration_files(architecture, broker)
    known = {name: entry.value.mean_value for name, entry in entries(others).items()}
    if others and not known:
        raise BadInput(
            f"{architecture} stands on times that are not calibrated ({others[0]}): run simlib calibrate rest"
        )
    ways = np.array(of.read("ways.json", []))
    if ways.size:
        known["uplink"] = float(ways.mean())
    estimates = stages.estimates(architecture, idle, busy, known)
    if ways.size and "uplink" in estimates:
        estimates["uplink"] = Estimate(ways, "half the time in which a connection to the broker opens")
    return estimates


def _write(
    architecture: str, broker: str | None, machine: Mapping[str, Any], estimates: Mapping[str, Estimate]
) -> dict[str, Any]:
    """Fit, and replace the calibration file as a whole."""
    file = calibration_files(architecture, broker)[-1]
    parameters = {name: _fitted(estimate) for name, estimate in estimates.items()}
    written = {"architecture": architecture, "broker": broker, "machine": machine, "parameters": parameters}
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(_plain(written), text)
    paths.CALIBRATION.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text("# Written by `simlib calibrate`; times in seconds.\n" + text.getvalue(), encoding="utf-8")
    part.replace(file)
    return written


def _fitted(estimate: Estimate) -> dict[str, Any]:
    """What a calibration file holds of a time."""
    entry = {"provenance": estimate.provenance, "source": estimate.source}
    if isinstance(estimate.of, float):
        return {"value": Constant(value=estimate.of).model_dump(mode="json"), **entry, "fit": {}}
    found = fit(estimate.of)
    goodness = {"samples": found.samples, "distance": found.distance, "p_value": found.p_value}
    return {"value": found.distribution.model_dump(mode="json"), **entry, "fit": goodness}


def _machine(runs: Mapping[str, History]) -> dict[str, Any]:
    meta = next(iter(runs.values())).meta
    return {**meta["machine"], **{f"{name}_server": version for name, version in meta["server_versions"].items()}}


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, floats to six digits, lists of numbers as they are."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}")
    return value
