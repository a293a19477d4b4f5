"""The `simlib` command.

Every command prints tables to read, or with `--json` one JSON document and nothing else on standard output.
Exit status: 0 done; 1 a run failed, an invariant broke or a stated accuracy was missed; 2 bad input, in one line;
130 interrupted.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from simlib.brokers.processes import interruptible
from simlib.errors import BadInput, RunFailed, unknown

if TYPE_CHECKING:
    import pandas as pd

    from simlib import api
    from simlib.checker import Verdict
    from simlib.history import History

app = typer.Typer(
    help="A laboratory for choosing an integration architecture: simulate it, measure it, compare it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

REPLICATIONS = 10
STORIES = 3
"""Messages of each of the checker's findings that are told in full."""
SHOWN = (
    "response_time_p",
    "delivery_time_p",
    "throughput",
    "goodput",
    "utilisation",
    "backlog_max",
    "oversold",
    "undersold",
    "stale_read_fraction",
    "read_your_writes",
    "retry_amplification",
)
"""How the metrics begin that a table shows; a JSON document has all of them."""


def _whole(least: int, most: int | None = None) -> Callable[[object], int]:
    """What reads an option that is a whole number between two others, written in digits."""

    def read(text: object) -> int:
        number = int(str(text)) if re.fullmatch(r"-?(0|[1-9]\d*)", str(text)) else least - 1
        if least <= number and (most is None or number <= most):
            return number
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise BadInput(f"it must be a whole number {limits}, got '{text}': give one")

    return read


Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[ARCH]...", help="Architectures; all, when none is named.")]
ScenarioName = Annotated[str, typer.Option("--scenario", help="A named scenario, or a YAML file.", metavar="NAME|FILE")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A parameter of the model.", metavar="NAME=VALUE")]
RateText = Annotated[str | None, typer.Option("--rate", help="Base rate of arrivals, such as 100/s.", metavar="RATE")]
Messages = Annotated[
    int | None,
    typer.Option("--messages", help="Messages of a run; the scenario's by default.", parser=_whole(1), metavar="N"),
]
Replications = Annotated[
    int | None,
    typer.Option(
        "--replications",
        help=f"Runs of different seeds; {REPLICATIONS} by default, 1 on the live engine.",
        parser=_whole(1),
        metavar="N",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", help="What the random numbers come from.", parser=_whole(0, 2**63 - 1), metavar="N")
]
Keep = Annotated[
    Literal["history", "metrics"],
    typer.Option(
        "--keep", help="Of a run of very many messages the metrics only, in constant memory; quantiles within 0.1 %."
    ),
]
Engine = Annotated[str, typer.Option("--engine", help="compiled, simpy or live.")]
HistoryFolder = Annotated[
    Path | None, typer.Option("--history", help="Save the first run's history here.", metavar="FOLDER")
]
MeasurementPlan = Annotated[
    Path | None,
    typer.Option("--plan", help="What to measure; data/measurements/held_out.yaml by default.", metavar="FILE"),
]
Called = Annotated[str | None, typer.Option("--as", help="The name of a broker of your own.", metavar="NAME")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Notebooks at once; the processors by default.", parser=_whole(1), metavar="N"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    try:
        with interruptible():
            status = int(app(arguments, prog_name="simlib", standalone_mode=False) or 0)
        return _fail("interrupted", 130) if status == 130 else status
    except BadInput as error:
        return _fail(str(error), 2)
    except typer.TyperException as error:
        return _fail(f"{error.format_message().replace('Value error, ', '')} (see simlib --help)", 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except OSError as error:
        if error.filename is None:  # a full disk, a server that hung up
            return _fail(f"{type(error).__name__}: {error}", 1)
        return _fail(f"{error.filename} cannot be read or written: {error.strerror}: correct or name another", 2)


@app.command()
def doctor(as_json: Json = False) -> int:
    """The environment: versions, and which real parts were found, where, and what to install for the rest."""
    import platform
    from importlib.metadata import version

    from simlib import paths
    from simlib.brokers import envoy, haproxy, kafka, nats, postgres, rabbitmq

    parts = []
    for module in (postgres, nats, rabbitmq, kafka, envoy, haproxy):
        name = module.__name__.rpartition(".")[2]
        found = module.found()
        where = {"version": found.version, "where": found.where} if found else {"version": None, "where": None}
        parts.append({"name": name, "found": found is not None, **where, "install": None if found else module.INSTALL})
    packages = {name: version(name) for name in ("simpy", "numpy", "numba", "pandas", "matplotlib", "papermill")}
    calibration = sorted(file.name for file in paths.CALIBRATION.glob("*.yaml"))
    document = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": packages,
        "parts": parts,
        "calibration": calibration,
        **_origin(),
    }
    if as_json:
        return _print(document)
    _say(f"simlib {document['version']}, {os.cpu_count()} processors")
    _say(f"Python {document['python']} on {document['system']}")
    _say(", ".join(f"{name} {number}" for name, number in packages.items()))
    _say(f"calibration: {', '.join(calibration) or 'none, parameters are assumed: simlib measure, simlib calibrate'}")
    _table(
        ["part", "version", "where"],
        [
            (part["name"], part["version"] or "not found", part["where"] or f"to have it, {part['install']}")
            for part in parts
        ],
    )
    return 0


@app.command("list")
def show(
    what: Annotated[str, typer.Argument(help="architectures, scenarios, metrics or parameters.")] = "architectures",
    architecture: Annotated[str | None, typer.Argument(metavar="[ARCH]", help="Whose parameters.")] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> int:
    """What there is: architectures, scenarios, metrics, or the parameters of an architecture."""
    if what not in _LISTS:
        raise unknown("list", what, _LISTS)
    if what == "parameters" and architecture is None:
        raise BadInput("whose parameters? name an architecture: simlib list parameters rest")
    if what != "parameters" and architecture is not None:
        raise BadInput(f"only parameters are of an architecture, got '{architecture}': leave it out")
    if what != "parameters" and settings:
        raise BadInput(f"only parameters can be set, got --set {settings[0]} for {what}: leave it out")
    rows = _list_parameters(architecture, _settings(settings)) if architecture else _LISTS[what]()
    if as_json:
        return _print(rows)
    columns = list(rows[0])
    _table(columns, [[_short(row[name]) for name in columns] for row in rows])
    return 0


@app.command()
def run(
    architecture: Annotated[str, typer.Argument(metavar="ARCH")],
    scenario: ScenarioName = "steady",
    settings: Settings = None,
    rate: RateText = None,
    messages: Messages = None,
    replications: Replications = None,
    seed: Seed = 1,
    engine: Engine = "compiled",
    history: HistoryFolder = None,
    keep: Keep = "history",
    as_json: Json = False,
) -> int:
    """Run an architecture on a scenario: its metrics with 95 % intervals, and the checker's counts."""
    from simlib import api, paths
    from simlib.validity import beyond

    values = _settings(settings)
    if keep == "metrics":
        if history or engine != "compiled":
            raise BadInput(
                "only metrics are kept by the compiled engine and without a history: leave out --engine and --history"
            )
        return _totals(architecture, scenario, values, rate, messages, _count(replications, engine), seed, as_json)
    api.case(architecture, scenario, values, messages, rate, engine)
    if history:
        paths.writable(history)
    count = _count(replications, engine)
    found = api.replicate(
        architecture, scenario, values, count, seed, messages, rate, engine, workers=os.cpu_count() or 1
    )
    if history:
        found.histories[0].save(history)
    table = found.table()
    checked = found.check()
    if as_json:
        return _print(
            {
                "architecture": architecture,
                **_about([found]),
                "calibration": found.case.meta["calibration"],
                "parameters": found.case.meta["parameters"],
                "overloaded": found.overloaded,
                "beyond": beyond(found.case),
                "metrics": _metrics(table),
                "check": checked,
                **_origin(found.case.meta["parameters_hash"]),
            }
        )
    _headline(architecture, [found])
    _table(["metric", "value [95 % interval]"], [(row.name, _quantity(row)) for row in _shown(table)])
    _findings(found)
    return 0


def _totals(
    architecture: str,
    scenario: str,
    values: dict[str, Any],
    rate: str | None,
    messages: int | None,
    count: int,
    seed: int,
    as_json: bool,
) -> int:
    """Run an architecture so that only metrics are kept."""
    import pandas as pd

    from simlib import api, draws
    from simlib.engines.running_totals import ABSENT, ERROR, MOST
    from simlib.metrics import unit_of
    from simlib.statistics import mean_interval
    from simlib.validity import beyond

    one = api.case(architecture, scenario, values, messages, rate, most=MOST)
    runs = [one.totals(draws.replication_seed(seed, r)) for r in range(count)]
    found = pd.DataFrame([run.values() for run in runs])
    intervals = [(name, mean_interval(found[name]), unit_of(name)) for name in found.columns]
    rows = [(name, each.value, each.low, each.high, unit) for name, each, unit in intervals]
    table = pd.DataFrame(rows, columns=["name", "value", "low", "high", "unit"])
    outside = beyond(one)
    meta, overloaded = one.meta, sum(run.overloaded for run in runs) > count / 2
    if as_json:
        about = {name: meta[name] for name in ("scenario", "engine", "messages", "rate", "calibration", "parameters")}
        return _print(
            {
                "architecture": architecture,
                **about,
                "seed": seed,
                "replications": count,
                "overloaded": overloaded,
                "beyond": outside,
                "metrics": _metrics(table),
                "absent": ABSENT,
                "error": ERROR,
                **_origin(meta["parameters_hash"]),
            }
        )
    _say(
        f"{architecture} under {meta['scenario']} at {meta['rate']:.4g}/s: {count} runs of {meta['messages']} messages, seed {seed}"
    )
    _say(f"parameters {meta['parameters_hash']}; {meta['version']}, draws {meta['draws']}")
    if outside:
        _say(f"beyond what its model was validated at: {'; '.join(outside)}")
    if overloaded:
        _say("overloaded: a pool is as good as always busy")
    _table(["metric", "value [95 % interval]"], [(row.name, _quantity(row)) for row in _shown(table)])
    _say(f"quantiles within {ERROR:.2g} of themselves; not known without the history: {', '.join(ABSENT)}")
    return 0


@app.command()
def compare(
    names: Names = None,
    scenario: ScenarioName = "steady",
    settings: Settings = None,
    rate: RateText = None,
    messages: Messages = None,
    replications: Replications = None,
    seed: Seed = 1,
    engine: Engine = "compiled",
    as_json: Json = False,
) -> int:
    """Compare architectures on the same random numbers: metrics of each, and paired differences with 95 % intervals (of each from
    the first; with --json, of all pairs)."""
    from simlib import api
    from simlib.validity import beyond

    values = _settings(settings)
    chosen = _architectures(names)
    count = _count(replications, engine)
    found = api.compare(chosen, scenario, values, count, seed, messages, rate, engine, workers=os.cpu_count() or 1)
    checks = {each.case.architecture: each.check() for each in found.replicates}
    paired = found.paired()
    if as_json:
        rows = [
            {
                "architecture": each.case.architecture,
                "overloaded": each.overloaded,
                "beyond": beyond(each.case),
                "calibration": each.case.meta["calibration"],
                "parameters": each.case.meta["parameters"],
                "parameters_hash": each.case.meta["parameters_hash"],
                "metrics": _metrics(each.table()),
                "check": checks[each.case.architecture],
            }
            for each in found.replicates
        ]
        document = {**_about(found.replicates), "rows": rows, "paired": paired.to_dict("records")}
        return _print({**document, **_origin(_joint([row["parameters_hash"] for row in rows]))})
    _headline("", found.replicates)
    tables = {each.case.architecture: {row.name: row for row in _shown(each.table())} for each in found.replicates}
    metrics = list(dict.fromkeys(name for table in tables.values() for name in table))
    _table(
        ["metric", *tables],
        [(name, *(_quantity(table[name]) if name in table else "" for table in tables.values())) for name in metrics],
    )
    for (a, b), rows in paired[paired["b"] == next(iter(tables))].groupby(["a", "b"], sort=False):
        _say(f"\n{a} − {b}")
        kept = [row for row in rows.rename(columns={"metric": "name", "difference": "value"}).itertuples()]
        _table(
            ["metric", "paired difference [95 % interval]"], [(row.name, _quantity(row)) for row in _only_shown(kept)]
        )
    return 0


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="Where a history was saved.")], as_json: Json = False) -> int:
    """The checker on a saved history: what was lost, duplicated, stale …, and whether the invariants hold."""
    from simlib.history import History

    history = History.load(folder)
    verdict = history.check()
    if as_json:
        document = {name: history.meta.get(name) for name in ("architecture", "scenario", "engine", "seed")}
        found = {"messages": verdict.messages, **verdict.as_dict()}
        origin = {name: history.meta.get(name) for name in ("version", "draws", "parameters_hash")}
        _print({**document, "check": found, **origin})
    else:
        _say(str(verdict))
        _stories(history, verdict)
    if not verdict.ok:
        raise RunFailed(f"{folder}: an invariant broke: {verdict.violations[0]}")
    return 0


@app.command()
def measure(
    names: Names = None,
    plan_file: MeasurementPlan = None,
    settings: Settings = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A broker of your own, such as nats://host:4222.", metavar="URL")
    ] = None,
    called: Called = None,
    as_json: Json = False,
) -> int:
    """Measure the live architectures, what is not measured yet; some minutes each, on a machine that is idle. With --url and --as
    a broker of your own, whose times others take with --set broker=NAME."""
    from simlib import calibration

    plan = calibration.held_out(plan_file)
    with _broker_at(url, called, names, _broker_set(settings)) as chosen:
        found = [calibration.measure(name, plan, _progress, chosen) for name in _twins(names)]
    missing = [f"{one.folder.name} {name}" for one in found for name in one.missing(plan)]
    if as_json:
        columns = ("architecture", "broker", "saturation")
        rows = [{**{name: getattr(one, name) for name in columns}, "missing": one.missing(plan)} for one in found]
        _print({"rows": rows, **_origin()})
    else:
        _table(["architecture", "saturation"], [(one.architecture, f"{one.saturation:.4g} 1/s") for one in found])
    if missing:
        points = f"{len(missing)} points ({', '.join(missing[:3])}{' …' if len(missing) > 3 else ''})"
        raise RunFailed(f"no try of {points} was valid, as the machine was too busy: measure again when it is idle")
    return 0


@contextmanager
def _broker_at(
    url: str | None, called: str | None, names: Sequence[str] | None, chosen: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The settings that choose the broker: the one at a URL, where it is given, under the name that it is called."""
    from simlib import architectures
    from simlib.brokers import own

    if url is None or called is None:
        if url or called:
            raise BadInput("a broker of your own needs its URL and a name: give both --url and --as")
        yield chosen
        return
    if chosen or not names:
        raise BadInput("--url names the broker: name the architectures that stand on it, and leave out --set")
    broker = own.at(url)
    for name in _twins(names):
        if broker.kind not in (kinds := architectures.get(name).kinds):
            known = " or ".join(kinds) or "no broker"
            raise BadInput(f"architecture '{name}' stands on {known}, got the URL of {broker.kind}: name another")
    own.keep(called, broker)
    with own.standing(url):
        yield {"broker": called}


@app.command()
def calibrate(
    names: Names = None,
    settings: Settings = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Times measured elsewhere: a column each, as 'store [ms]'.", metavar="FILE.csv"),
    ] = None,
    called: Called = None,
    as_json: Json = False,
) -> int:
    """Fit the parameters of the models to the measurements; with --from and --as those of a broker of your own, of the kind that
    --set broker=KIND says, to a file of times, and draw the fits."""
    from simlib import architectures, calibration

    chosen = _broker_set(settings)
    figures: list[str] = []
    if source or called:
        row, figures = _calibrate_from(source, called, names, chosen)
        rows = [row]
    else:
        fitted = _fitted(names, next(iter(chosen.values()), None))
        rows = [calibration.calibrate(name, architectures.get(name).broker(chosen)) for name in fitted]
    if as_json:
        return _print({"rows": rows, "figures": figures, **_origin()})
    for row in rows:
        _say(f"\n{calibration.twin(row)}")
        values = [(name, _short(entry["value"]), entry["provenance"]) for name, entry in row["parameters"].items()]
        _table(["parameter", "value", "provenance"], values)
    for file in figures:
        _say(file)
    return 0


def _calibrate_from(
    source: Path | None, called: str | None, names: Sequence[str] | None, chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """What was written for a broker of the user's own, from a file of times, and the figures of it."""
    from simlib import architectures, calibration
    from simlib.brokers import own
    from simlib.figures import draw_fits

    if source is None or called is None:
        raise BadInput("times measured elsewhere need a file and a name for their broker: give both --from and --as")
    if len(names or ()) != 1:
        raise BadInput("times measured elsewhere are of one architecture: name it")
    (name,) = _architectures(names)
    known = architectures.get(name)
    if not known.kinds:
        raise BadInput(f"architecture '{name}' stands on no broker that could be your own: name another")
    known.broker(chosen)
    kind = own.kind(str(chosen.get("broker", known.kinds[0])))
    estimates = calibration.from_elsewhere(source, name, kind)
    own.keep(called, own.Own(kind=kind))
    row = calibration.calibrate_from(source, name, called)
    return row, [str(file) for file in draw_fits(row, estimates)]


@app.command()
def validate(
    names: Names = None, plan_file: MeasurementPlan = None, settings: Settings = None, as_json: Json = False
) -> int:
    """Predict the loads that calibration did not see, and hold the predictions against what was measured."""
    from simlib.calibration import held_out, measured, twin
    from simlib.calibration.validation import validation

    broker = next(iter(_broker_set(settings).values()), None)
    document = {**validation(_twins(names or measured(broker)), held_out(plan_file), broker), **_origin()}
    if as_json:
        _print(document)
    else:
        _table(
            ["architecture", "load", "kind", "metric", "error p50", "p95", "p99", "accepted"],
            [
                (
                    twin(row),
                    f"{row['load']:.2g}",
                    row["kind"],
                    f"{row['metric']}.{row['kind_of_message']}",
                    *(f"{100 * error:+.0f} %" for error in row["error"].values()),
                    {True: "yes", False: "missed", None: ""}[row["accepted"]],
                )
                for row in document["rows"]
            ],
        )
        _table(
            ["architecture", "saturation, /s", "predicted, /s", "error", "accepted"],
            [
                (
                    twin(row),
                    f"{row['measured']:.0f}",
                    f"{row['predicted']:.0f}",
                    f"{100 * row['error']:+.0f} %",
                    "yes" if row["accepted"] else "missed",
                )
                for row in document["saturations"]
            ],
        )
    missed = [row for row in (*document["rows"], *document["saturations"]) if row["accepted"] is False]
    if missed:
        points = [
            f"{twin(row)} at load {row['load']:.2g}, {row['kind_of_message']}"
            if "load" in row
            else f"{twin(row)} at saturation"
            for row in missed
        ]
        raise RunFailed(f"the stated accuracy was missed at {len(missed)} points: {'; '.join(points)}")
    return 0


@app.command()
def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="What to run; see data/plans.")],
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Run a plan: a notebook for each architecture and scenario; goes on where an earlier one stopped."""
    from simlib import experiments

    outcomes = experiments.sweep(experiments.load_plan(plan), workers or os.cpu_count() or 1)
    rows: list[dict[str, Any]] = [
        {
            "name": one.entry.name,
            "folder": str(one.folder),
            "runs": one.entry.runs,
            "kept": one.kept,
            "failed_runs": one.failed_runs,
            "error": one.error,
        }
        for one in outcomes
    ]
    if as_json:
        _print({"plan": str(plan), "rows": rows, **_origin()})
    else:
        states = [one.error or ("was there" if one.kept else "done") for one in outcomes]
        _table(
            ["entry", "runs", "state"],
            [(row["name"], str(row["runs"]), state) for row, state in zip(rows, states, strict=True)],
        )
        _say(f"results: {outcomes[0].folder.parent}")
    experiments.require(outcomes)
    return 0


@app.command()
def report(workers: Workers = None, as_json: Json = False) -> int:
    """Everything that the report needs and is not there yet (but it never measures), then DOCX, PDF and HTML."""
    from simlib.reporting.results import report as make

    files = [str(path) for path in make(workers or os.cpu_count() or 1)]
    if as_json:
        return _print({"files": files, **_origin()})
    for file in files:
        _say(file)
    return 0


@app.command()
def explore(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="Where to listen on 127.0.0.1; a free port by default.", parser=_whole(1, 65535), metavar="N"
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """The explorer in a browser: move a parameter, see at once what comes of it; Ctrl-C ends it."""
    from simlib.explorer.server import serving

    with serving(port) as (address, server):
        if as_json:
            _print({"address": address, **_origin()})
        else:
            _say(f"the explorer is at {address} (Ctrl-C ends it)")
        status = server.wait()
    raise RunFailed(f"the explorer's server ended by itself, with status {status}")


@app.command()
def new(
    what: Annotated[str, typer.Argument(metavar="architecture")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    as_json: Json = False,
) -> int:
    """A folder for a new architecture, with a test that fails until it is filled in and says with what."""
    from simlib.architectures.new import create

    if what != "architecture":
        raise unknown("thing to make", what, ["architecture"])
    files = [str(file) for file in create(name)]
    if as_json:
        return _print({"architecture": name, "files": files, **_origin()})
    _say("\n".join(files))
    _say(f"what is to be filled in: python -m pytest {files[4]}")
    return 0


@app.command()
def bench(
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs", help="Pairs of runs, in turn, that a ratio is the median of.", parser=_whole(1), metavar="N"
        ),
    ] = 5,
    as_json: Json = False,
) -> int:
    """Speed, as ratios measured side by side: the engines, the oracles, threads, long runs."""
    from simlib import bench as speed

    found = speed.ratios(pairs)
    if as_json:
        _print({"ratios": [one.row() for one in found], **_origin()})
    else:
        _table(["what", "ratio [range] (pairs)", "time of the faster"], speed.table(found))
    return 0


def _list_architectures() -> list[dict[str, Any]]:
    from simlib import architectures

    return [
        {
            "name": name,
            "live twin": "yes" if architectures.get(name).has_twin else "no twin yet",
            "description": _first_line(architectures.get(name).parameters.__module__),
        }
        for name in architectures.names()
    ]


def _list_scenarios() -> list[dict[str, Any]]:
    from simlib.scenario import load_scenario, scenario_names

    scenarios = [load_scenario(name) for name in scenario_names()]
    return [
        {"name": one.name, "arrivals": one.arrivals.process, "rate": one.rate, "messages": one.messages}
        for one in scenarios
    ]


def _list_metrics() -> list[dict[str, Any]]:
    from simlib.metrics import REGISTRY

    return [
        {"name": one.name, "unit": one.unit, "by": one.by or None, "formula": one.formula} for one in REGISTRY.values()
    ]


def _list_parameters(architecture: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    from simlib import architectures
    from simlib.architectures.parameters import calibrated

    known = architectures.get(architecture)
    parameters = known.load_parameters(settings)
    values = parameters.model_dump(mode="json")
    measured = calibrated(architecture, parameters.profile)
    origins = dict.fromkeys(values, "assumed") | {name: entry.provenance for name, entry in measured.items()}
    origins |= dict.fromkeys(settings, "set")
    return [
        {
            "name": name,
            "value": values[name],
            "provenance": origins[name],
            "description": field.description,
        }
        for name, field in type(parameters).model_fields.items()
    ]


_LISTS = {
    "architectures": _list_architectures,
    "scenarios": _list_scenarios,
    "metrics": _list_metrics,
    "parameters": list,
}


def _architectures(names: Sequence[str] | None) -> list[str]:
    """The named architectures, each known and named once; all of them when none is named."""
    from simlib import architectures

    for name in names or ():
        architectures.get(name)
        if list(names or ()).count(name) > 1:
            raise BadInput(f"architecture '{name}' is named twice: name it once")
    return [name for name in architectures.names() if not names or name in names]


def _twins(names: Sequence[str] | None) -> list[str]:
    """The named architectures, each of which can be measured; all of those when none is named."""
    from simlib import architectures

    for name in names or ():
        _ = architectures.get(name).live
    return _architectures(names or architectures.twins())


def _fitted(names: Sequence[str] | None, broker: str | None) -> list[str]:
    """The named architectures; of those that were measured all with times of their own when none is named."""
    from simlib import calibration

    return _twins(names or [name for name in calibration.measured(broker) if calibration.has_own(name)])


def _broker_set(settings: Iterable[str] | None) -> dict[str, Any]:
    """The broker or proxy whose twin is measured and calibrated; everything else of it is as it is by default."""
    from simlib.architectures.parameters import PROFILES

    values = _settings(settings)
    for name in values.keys() - set(PROFILES):
        raise BadInput(f"only the broker or the proxy can be set here, got '{name}': leave it out")
    return values


def _settings(settings: Iterable[str] | None) -> dict[str, Any]:
    """The overrides of `--set name=value`; a value is written as in YAML."""
    from simlib.reading import parse_yaml

    values: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise BadInput(f"--set takes name=value, got '{setting}': write --set consumers=4")
        if name in values:
            raise BadInput(f"--set gives '{name}' twice: give it once")
        values[name] = parse_yaml(value, f"--set {name}")
    return values


def _count(replications: int | None, engine: str) -> int:
    return replications or (1 if engine == "live" else REPLICATIONS)


def _origin(parameters_hash: str | None = None) -> dict[str, Any]:
    """What every document says of the code it comes from."""
    from simlib import api, draws

    return {"version": api.version(), "draws": draws.DRAWS, "parameters_hash": parameters_hash}


def _about(found: Sequence[api.Replicates]) -> dict[str, Any]:
    """What the replicates have in common."""
    meta = found[0].case.meta
    common = {name: meta[name] for name in ("scenario", "engine", "messages", "rate")}
    return {**common, "seed": found[0].seed, "replications": len(found[0].histories)}


def _joint(hashes: Sequence[str]) -> str:
    """One hash for the parameters of several architectures."""
    from hashlib import blake2b

    return blake2b(" ".join(hashes).encode(), digest_size=6).hexdigest()


def _metrics(table: pd.DataFrame) -> dict[str, Any]:
    return {
        row.name: {"value": row.value, "low": row.low, "high": row.high, "unit": row.unit}
        for row in table.itertuples(index=False)
    }


def _shown(table: pd.DataFrame) -> list[Any]:
    return _only_shown(table.itertuples(index=False))


def _only_shown(rows: Iterable[Any]) -> list[Any]:
    """The rows that a table shows: of the metrics in `SHOWN`, times by kind of message, and any count above zero."""
    kept = []
    for row in rows:
        timely = "time_p" in row.name
        listed = row.name.startswith(SHOWN) and ("." in row.name or not timely)
        counted = row.unit == "messages" and row.value > 0
        if (listed or counted) and not math.isnan(row.value):
            kept.append(row)
    return kept


def _quantity(row: Any) -> str:
    from simlib.comparison.words import quantity

    return quantity(row.value, row.unit, row.low, row.high)


def _headline(name: str, found: Sequence[api.Replicates]) -> None:
    """What was run, what it stands on, and what of it is beyond what was validated."""
    from simlib.validity import beyond

    about, meta = _about(found), found[0].case.meta
    runs = (
        f"{about['replications']} runs of {about['messages']} messages"
        if about["replications"] > 1
        else f"{about['messages']} messages"
    )
    start = f"{name} under " if name else "under "
    _say(f"{start}{about['scenario']} at {about['rate']:.4g}/s: {runs}, seed {about['seed']}, {about['engine']}")
    files = meta["calibration"]
    calibration = f"calibration {', '.join(files)}" if files else "parameters assumed, not calibrated"
    hashes = ", ".join(one.case.meta["parameters_hash"] for one in found)
    _say(f"{calibration}; parameters {hashes}; {meta['version']}, draws {meta['draws']}")
    for one in found:
        if outside := beyond(one.case):
            _say(f"{one.case.architecture} is beyond what its model was validated at: {'; '.join(outside)}")
        if one.overloaded:
            _say(f"{one.case.architecture} is overloaded: its times have no mean and no percentile")


def _findings(found: api.Replicates) -> None:
    """What the checker found in all runs, what it means, and the first messages that it befell."""
    from simlib.checker import ANOMALIES, listed

    rows = []
    for name, number in found.check().items():
        if number:
            run, first = next((r, v.found[name]) for r, v in enumerate(found.verdicts) if v.found[name])
            where = f" (replication {run})" if len(found.verdicts) > 1 else ""
            rows.append((name, str(number), ANOMALIES[name], listed(first) + where))
    none = [name for name in ANOMALIES if name not in {row[0] for row in rows}]
    _say("checker: conservation and causality hold")
    if rows:
        _table(["anomaly", "messages", "what it means", "the first of them"], rows)
    if none:
        _say(f"none: {', '.join(none)}")


def _stories(history: History, verdict: Verdict) -> None:
    """The first messages of each finding, a line each."""
    from simlib.checker import story

    found = dict(verdict.found) | {violation.name: violation.offenders for violation in verdict.violations}
    for name, offenders in found.items():
        ids = [one for one in offenders if isinstance(one, int)]
        if ids:
            _say(f"\n{name}")
        for message in ids[:STORIES]:
            _say(f"  {story(history, message)}")


def _short(value: Any) -> str:
    """A value for a table's cell."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return " ".join(_short(one) if name == "family" else f"{name}={_short(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return f"[{len(value)} numbers]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _first_line(module: str) -> str:
    from importlib import import_module

    return (import_module(module).__doc__ or "").strip().splitlines()[0]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, no_wrap=k == 0)
    for row in rows:
        table.add_row(*row)
    with _output():
        _console().print(table)


def _say(words: str) -> None:
    with _output():
        _console().print(words, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=160)


def _print(document: Any) -> int:
    """One JSON document; NaN and infinity, which JSON has not, are null."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    with _output():
        sys.stdout.write(orjson.dumps(document, option=options).decode() + "\n")
    return 0


@contextmanager
def _output() -> Iterator[None]:
    """Write to standard output, at once; raises BadInput where it takes nothing more."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        raise BadInput(f"standard output cannot be written: {error.strerror}: send it elsewhere") from None


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _fail(words: str, status: int) -> int:
    print(f"error: {' '.join(words.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
