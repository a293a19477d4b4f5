"""What of a case lies beyond what its model was validated at: load, parameters, workload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simlib import api, paths
from simlib.architectures.parameters import calibrated, times
from simlib.brokers import own
from simlib.errors import BadInput
from simlib.scenario import Bursts, Profile, Scenario, load_scenario, scenario_names

_OF_A_RUN = {"name", "arrivals", "messages", "horizon", "patience"}
"""What a workload may have otherwise: its rate is compared by itself."""


def beyond(case: api.Case) -> list[str]:
    """What is outside, a few words each; empty where the model is within what it was held against. A live run has no model."""
    if case.engine == "live":
        return []
    broker = case.parameters.profile
    document = validated(broker)
    rows = [
        row
        for row in document.get("rows", [])
        if (row["architecture"], row["broker"]) == (case.architecture, broker) and row["kind"] == "trace"
    ]
    if not rows:
        return ["it was never held against a live run"]
    found = []
    used = {f"{name}:{digest}" for name, digest in (case.meta["calibration"] or {}).items()}
    if not used <= set(document["calibration"]):
        found.append("its calibration is another than the one that was validated")
    stated = max((row["rate"] for row in rows if row["accepted"] is not None), default=0.0)
    if (most := peak(case.scenario)) > stated:
        found.append(f"at {most:.4g}/s it has more load than {stated:.4g}/s, up to which an accuracy is stated")
    runs = _read(paths.measurement(case.architecture, broker) / "held_out.json", [])
    if other := runs and _other_parameters(case, broker, runs[0]["parameters"]):
        found.append(f"other parameters than were measured: {', '.join(other)}")
    if other := _other_workload(case.scenario, runs[0]["scenario"] if runs else ""):
        found.append(f"another workload than was measured: {', '.join(other)}")
    return found


def validated(broker: str | None) -> dict[str, Any]:
    """The document of the last validation of the kinds of broker, or of a broker of the user's own; empty where there was none."""
    document: dict[str, Any] = _read(paths.validation(broker if broker in own.names() else None), {})
    return document


def _read(file: Path, default: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise BadInput(f"{file} is no JSON ({error}): measure and validate again") from None


def peak(scenario: Scenario) -> float:
    """The highest rate of a workload, 1/s; of a recorded one the mean."""
    arrivals = scenario.arrivals
    if isinstance(arrivals, Bursts):
        return max(arrivals.rates)
    if isinstance(arrivals, Profile):
        return arrivals.rate * max(phase.times for phase in arrivals.phases)
    return scenario.rate


def _other_parameters(case: api.Case, broker: str | None, measured: dict[str, Any]) -> list[str]:
    """Parameters that are not as the twin's were, and times that are not the calibrated ones."""
    parameters, found = case.parameters, calibrated(case.architecture, broker)
    fitted = times(type(parameters))
    other = [name for name, entry in found.items() if getattr(parameters, name) != entry.value]
    shown = parameters.model_dump(mode="json")
    return other + [name for name in shown if name in measured.keys() - fitted and shown[name] != measured[name]]


def _other_workload(scenario: Scenario, measured: str) -> list[str]:
    """What a workload has otherwise than the one that was measured."""
    if measured not in scenario_names():
        return []
    before = load_scenario(measured)
    arrivals = ["arrivals"] if type(scenario.arrivals) is not type(before.arrivals) else []
    others = set(Scenario.model_fields) - _OF_A_RUN
    return arrivals + [name for name in sorted(others) if getattr(scenario, name) != getattr(before, name)]
