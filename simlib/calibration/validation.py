"""The validation as one document: every prediction against its measurement, and what they stand on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from simlib import api, architectures, draws, paths
from simlib.brokers import own
from simlib.calibration.measure import Measurement, measured
from simlib.calibration.validate import HeldOut, saturated, validate


def measurements(name: str) -> list[Measurement]:
    """Those of an architecture, on each of its brokers: on the default one also where it is missing."""
    first, *others = [Measurement(name, broker) for broker in architectures.get(name).brokers]
    return [first, *(other for other in others if other.read("held_out.json", []))]


def validation(names: Sequence[str], plan: HeldOut, broker: str | None = None) -> dict[str, Any]:
    """The document that `simlib validate --json` prints, of all kinds of broker or of one broker alone; of all that were measured
    (on a broker of the user's own) it is also kept, for the report and for what runs say of their range.

    Raises BadInput where a measurement is missing.
    """
    those = [one for name in names for one in ([Measurement(name, broker)] if broker else measurements(name))]
    points = [point for one in those for point in one.points(plan)]
    tries = [attempt for one in those for attempt in one.read("tries.json", [])]
    files = {file for one in those for file in api.calibration(one.architecture, one.broker).items()}
    document = {
        "rows": validate(points, plan),
        "saturations": [saturated(one.saturations(plan), plan) for one in those],
        "accuracy": plan.accuracy,
        "stated_up_to_load": plan.stated_up_to_load,
        "saturation_accuracy": plan.saturation_accuracy,
        "tried": len(tries),
        "rejected": sum(not attempt["valid"] for attempt in tries),
        "calibration": [f"{name}:{digest}" for name, digest in sorted(files)],
        "version": api.version(),
        "draws": draws.DRAWS,
    }
    if set(names) == set(measured(broker)) and (broker is None or broker in own.names()):
        paths.CALIBRATION.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        paths.validation(broker).write_text(text, encoding="utf-8")
    return document
