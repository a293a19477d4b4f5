"""Fills the tables and figures of README.md and README.ru.md from the finished report's results: `make readme`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from simlib import api, architectures, comparison, paths
from simlib.calibration import twin
from simlib.comparison import words
from simlib.domain import STOCK_UPDATE
from simlib.experiments import store
from simlib.scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {"README.md": "readme_comparison.png", "README.ru.md": "readme_comparison.ru.png"}


def main() -> None:
    """Fill every block `<!-- NAME -->` … `<!-- /NAME -->` that either file has."""
    results = store.read(paths.RESULTS / "report")
    validation = json.loads(paths.VALIDATION.read_text(encoding="utf-8"))
    for name, figure in FIGURES.items():
        source, copy = paths.FIGURES / figure, ROOT / "figures" / figure
        if source != copy:
            shutil.copy(source, copy)
        blocks = {"comparison": compared(results), "validation": validated(validation), "faults": faulted()}
        text = (ROOT / name).read_text(encoding="utf-8")
        for block, content in blocks.items():
            between = re.compile(rf"(<!-- {block} -->\n).*?(<!-- /{block} -->)", re.DOTALL)
            text = between.sub(lambda found, content=content: found[1] + content + found[2], text)
        (ROOT / name).write_text(text, encoding="utf-8")


def compared(results: pd.DataFrame) -> str:
    """The first metric of each topic, a row each scenario (the roughest alone where it is not about time)."""
    table = comparison.criteria(results)
    table = table[table["metric"].isin([names[0] for names in comparison.TOPICS.values()])]
    first = table.groupby("topic")["scenario"].transform("first")
    table = table[table["topic"].isin(comparison.TIMELY) | (table["scenario"] == first)]
    candidates = list(dict.fromkeys(table["candidate"]))
    rows = []
    for (metric, scenario, rate), group in table.groupby(["metric", "scenario", "rate"], sort=False, dropna=False):
        where = scenario if pd.isna(rate) else f"{scenario}, {rate:.4g}/s"
        by = group.set_index("candidate")
        cells = [words.quantity(*by.loc[name, ["value", "unit", "low", "high"]]) for name in candidates]
        rows.append([where, f"`{metric}`", *cells])
    return markdown(["scenario", "metric", *candidates], rows)


def validated(validation: dict[str, Any]) -> str:
    """How many points meet the stated accuracy, and measured against predicted: the trace-driven rows."""
    rows, met = [], {}
    for row in validation["rows"]:
        if row["kind"] != "trace":
            continue
        measured = " / ".join(f"{row['measured'][level] * 1e3:.1f}" for level in ("p50", "p95", "p99"))
        errors = " / ".join(f"{row['error'][level]:+.0%}".rstrip("%") for level in ("p50", "p95", "p99"))
        verdict = {True: "met", False: "**missed**", None: "none stated"}[row["accepted"]]
        if row["accepted"] is not None:
            met.setdefault(twin(row), []).append(row["accepted"])
        what = f"{row['kind_of_message']}, {row['metric'].removesuffix('_time')}"
        rows.append([twin(row), f"{row['load']:g} ({row['rate']:g}/s)", what, measured, errors, verdict])
    columns = ["architecture", "load", "message, time", "measured p50 / p95 / p99, ms", "error, %", "stated accuracy"]
    counts = "; ".join(f"{name}: {sum(points)} of {len(points)}" for name, points in met.items())
    rejected = f"{validation['rejected']} of {validation['tried']} measured runs were rejected"
    return f"Points that meet it: {counts}; {rejected}.\n\n{markdown(columns, rows)}"


FAULTS: dict[str, dict[str, Any]] = {
    "crash of the shop": {"fault": "crash", "part": "shop", "restart": 2},
    "crash of accounting": {"fault": "crash", "part": "accounting", "restart": 2},
    "crash of the broker": {"fault": "crash", "part": "broker", "restart": 2},
    "outage of accounting, refusing": {"fault": "outage", "part": "accounting", "lasts": 2},
    "outage of accounting, blocking": {"fault": "outage", "part": "accounting", "lasts": 2, "mode": "block"},
    "accounting three times as slow": {"fault": "slowdown", "part": "accounting", "lasts": 2, "factor": 3},
    "pause of accounting": {"fault": "pause", "part": "accounting", "lasts": 2},
    "pause of the broker": {"fault": "pause", "part": "broker", "lasts": 2},
    "partition": {"fault": "partition", "lasts": 2},
    "partition of what accounting sends": {"fault": "partition", "lasts": 2, "direction": "accounting"},
    "1 % of the updates poisoned": {"fault": "poison", "kind": "stock_update", "probability": 0.01},
    "1 % of what is sent lost": {"fault": "loss", "probability": 0.01},
}
"""What strikes at 20 s, for 2 s where it passes; links are those of accounting."""


def faulted() -> str:
    """What each fault leaves of 50,000 messages, ten runs of 5,000 of the same at 100/s: how many fail, are parked, lost, or take
    effect twice, and how long the slowest delivery takes."""
    stands = {"rest": ("rest", {}), "message_queue (nats)": ("message_queue", {})}
    stands["message_queue (rabbitmq)"] = ("message_queue", {"broker": "rabbitmq"})
    rows = [[fault, *(_left(*stand, FAULTS[fault]) for stand in stands.values())] for fault in FAULTS]
    return markdown(["fault", *stands], rows)


def _left(architecture: str, parameters: dict[str, Any], fault: dict[str, Any]) -> str:
    steady = api.load_scenario("steady")
    known = architectures.get(architecture)
    flow = known.build(known.load_parameters(parameters), steady)
    if fault.get("part", "shop") not in flow.parts:
        return "none there"
    if fault["fault"] in ("partition", "loss"):
        fault = {**fault, "link": next(iter(flow.links))}
    struck = fault if "probability" in fault else {**fault, "at": [20]}
    scenario = Scenario.model_validate({**dict(steady), "faults": [struck]})
    case = api.case(architecture, scenario, parameters, 5000)
    failed, parked, lost, duplicated, slowest = 0, 0, 0, 0, 0.0
    for history in api.histories(case, 10, seed=1):
        messages = history.messages.to_pandas()
        parked += int((messages["outcome"] == "dead_lettered").sum())
        verdict = history.check()
        failed += int((messages["outcome"] == "failed").sum())
        lost += verdict.counts["lost"]
        duplicated += verdict.counts["duplicated"]
        updates = messages[messages["kind"] == STOCK_UPDATE]
        slowest = max(slowest, float((updates["applied"] - updates["issued"]).max()))
    return f"{failed} / {parked} / {lost} / {duplicated} / {slowest:.2g} s"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
