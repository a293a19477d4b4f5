"""Calibration: what was measured at low load and in bursts becomes the parameters of the models, with their provenance.

`system.yaml` holds what every architecture shares, from REST's twin; an architecture's own file what is its alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from simlib import paths
from simlib.architectures.parameters import calibrated, calibration_files
from simlib.calibration import stages
from simlib.calibration.fit import fit
from simlib.calibration.measure import CALIBRATED, Measurement
from simlib.distributions import Constant
from simlib.history import History

UPLINK = 50e-6
"""Way between a client and a broker on one machine, s: its stamps cannot tell it from the broker's write."""
_CPU = "processor time of runs with bursts, by the utilisation law"
_LATER = "stamps of messages that met an idle system: deliveries that begin after their confirm came, in the median"
_WAIT = "stamps of messages that met an idle system"


def calibrate(architecture: str, broker: str | None) -> dict[str, Any]:
    """Fit the parameters of an architecture to its measurement and write its file; what was written.

    REST writes the shared file, which the others stand on. Raises BadInput where a measurement is missing or too short.
    """
    of = Measurement(architecture, broker)
    idle = {kind: of.calibration_run("idle", kind) for kind in CALIBRATED}
    busy = {kind: of.calibration_run("busy", kind) for kind in CALIBRATED}
    system, own = calibration_files(architecture, broker)
    if architecture == "rest":
        cpu = stages.system_cpu(busy)
        waits = stages.system_waits(idle, cpu)
        file = system
    else:
        shared = {name: entry.value.mean_value for name, entry in calibrated("rest", None).items()}
        cpu = stages.queue_cpu(busy, shared)
        waits = stages.queue_waits(idle, cpu, UPLINK)
        file = own
    parameters = {name: _entry(Constant(value=time).model_dump(mode="json"), _CPU, {}) for name, time in cpu.items()}
    parameters |= {name: _fitted(samples) for name, samples in waits.items()}
    if architecture != "rest":
        dispatch = Constant(value=stages.queue_dispatch(idle, cpu)).model_dump(mode="json")
        parameters["dispatch"] = _entry(dispatch, _LATER, {})
        uplink = Constant(value=UPLINK).model_dump(mode="json")
        parameters["uplink"] = {"value": uplink, "provenance": "assumed", "source": "a hop over the loopback interface"}
    written = {"architecture": architecture, "broker": broker, "machine": _machine(idle), "parameters": parameters}
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(_plain(written), text)
    paths.CALIBRATION.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text("# Written by `simlib calibrate`; times in seconds.\n" + text.getvalue(), encoding="utf-8")
    part.replace(file)
    return written


def _fitted(samples: np.ndarray) -> dict[str, Any]:
    found = fit(samples)
    goodness = {"samples": found.samples, "distance": found.distance, "p_value": found.p_value}
    return _entry(found.distribution.model_dump(mode="json"), _WAIT, goodness)


def _entry(value: Any, source: str, goodness: Mapping[str, float]) -> dict[str, Any]:
    return {"value": value, "provenance": "measured", "source": source, "fit": dict(goodness)}


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
