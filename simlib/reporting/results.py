"""From the store to the report: what is missing is run, compared and drawn; then the numbers are taken from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simlib import architectures, comparison, experiments, paths
from simlib.architectures.parameters import calibrated
from simlib.comparison import choice
from simlib.distributions import Distribution
from simlib.errors import BadInput, RunFailed
from simlib.experiments import notebooks, runner, store
from simlib.figures import file
from simlib.figures.catalogue import TEXTS, text, title, twin_title
from simlib.flow.diagram import diagram
from simlib.quantities import seconds
from simlib.reporting.context import Architecture, Figure, Place, ReportContext, Table, TitlePage
from simlib.reporting.documents import build
from simlib.reporting.numbers import Number, Standing, russian
from simlib.scenario import load_scenario

PLAN = "report.yaml"
NOTEBOOK = paths.NOTEBOOKS / "comparison.ipynb"
LEVELS = ("p50", "p95", "p99")
FIGURES = ("response_time", "delivery_time", "saturation", "backlog", "consistency", "differences", "validation")
UNITS = {"s": (1e3, "мс"), "1/s": (1.0, "сообщ./с"), "messages": (1.0, "сообщ."), "units": (1.0, "ед.")}
SHARE = (100.0, "%")
TABLES = {
    "order": ("performance", "response_time_p95.order"),
    "query": ("performance", "response_time_p95.stock_query"),
    "delivery": ("performance", "delivery_time_p95.stock_update"),
    "reliability": ("reliability", None),
    "consistency": ("consistency", None),
    "processes": ("processes", None),
}
"""The tables of values by criterion: of one metric of an aspect in each of its scenarios, or of all its metrics."""
TOLD = ("goodput", *(metric for metrics in comparison.ASPECTS.values() for metric in metrics))
"""The metrics that the report tells of; saturation is made of the first."""
MADE = "data/calibration/validation.json"
COUNTED = "data/cost.json"
PACKAGES = ("simpy", "numpy", "numba", "pandas", "scipy", "matplotlib")


def report(workers: int) -> list[Path]:
    """Bring results, comparison and figures up to date, and build the report; its files.

    Raises BadInput where the models are not validated yet or the costs not known, RunFailed where a run or a notebook failed.
    """
    plan = experiments.load_plan(paths.PLANS / PLAN)
    validation, costs = _validation(), choice.costs(paths.COST)
    for folder in (paths.FIGURES, paths.REPORT):
        paths.writable(folder)
    experiments.require(experiments.sweep(plan, workers))
    _compare(plan)
    return build(context(plan, validation, costs), paths.REPORT)


def context(plan: experiments.Plan, validation: Mapping[str, Any], costs: pd.DataFrame) -> ReportContext:
    """What the report prints, from the plan's part of the store, the validation's document and the programs' costs."""
    return _Results(plan, validation, costs).context()


def _validation() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(paths.VALIDATION.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        raise BadInput(
            f"{paths.VALIDATION} is missing: run simlib measure, simlib calibrate and simlib validate"
        ) from None
    except ValueError as error:
        raise BadInput(f"{paths.VALIDATION} is no JSON ({error}): run simlib validate") from None


def _compare(plan: experiments.Plan) -> None:
    """Run the notebook of the comparison, which draws the figures, unless nothing that it depends on has changed."""
    results = paths.RESULTS / plan.name
    pictures = [file(paths.FIGURES, name, language, "png") for name in FIGURES for language in ("ru", "en")]
    stored = [(results / entry.name / "run.json").read_bytes() for entry in plan.entries]
    key = runner.digest(
        runner.code(), notebooks.source(NOTEBOOK), paths.VALIDATION.read_bytes(), paths.COST.read_bytes(), *stored
    )
    stamp = results / "comparison.key"
    if stamp.exists() and stamp.read_text(encoding="ascii") == key and all(path.exists() for path in pictures):
        return
    stamp.unlink(missing_ok=True)
    parameters = {
        "results": str(results.resolve()),
        "validation": str(paths.VALIDATION.resolve()),
        "costs": str(paths.COST.resolve()),
        "pictures": str(paths.FIGURES.resolve()),
        "languages": ["ru", "en"],
    }
    output = results / "comparison.ipynb"
    (error,) = notebooks.run_all([notebooks.Job(NOTEBOOK, output, parameters)], 1)
    if error:
        raise RunFailed(f"the comparison failed: {error}; kept in {output}")
    stamp.write_text(key, encoding="ascii")


class _Results:
    """The tables of the comparison, in the report's language."""

    def __init__(self, plan: experiments.Plan, validation: Mapping[str, Any], costs: pd.DataFrame) -> None:
        self.plan = plan
        self.candidates = list(dict.fromkeys(entry.candidate for entry in plan.entries))
        self.names = comparison.compared(self.candidates)
        self.validation = comparison.validated(validation, self.candidates)
        stored = store.read(paths.RESULTS / plan.name)
        stored = stored[stored["metric"].isin(TOLD) | stored["metric"].isna()]
        self.points = comparison.points(stored)
        self.saturation = comparison.saturation(stored)
        self.pairs = comparison.pairs(stored)
        self.criteria = comparison.criteria(self.points, self.saturation, self.pairs)
        self.differences = comparison.at_criteria(self.pairs, comparison.reference(self.pairs))
        self.costs = costs
        self.choice = choice.choose(self.criteria, self.pairs, costs, self.validation)
        self.baseline = comparison.baseline(self.candidates)
        self.grid = max(plan.scenarios, key=lambda load: len(load.rates)).scenario

    def context(self) -> ReportContext:
        return ReportContext(
            title_page=TitlePage.load(paths.REPORT_SOURCE / "report.yaml"),
            architectures=tuple(self._architecture(name) for name in self.names),
            numbers=dict(self._numbers()),
            tables={
                "validation": self._validation_table(),
                "points": self._points_table(),
                "saturation": self._saturation_table(),
                **{name: self._values(*chosen) for name, chosen in TABLES.items()},
                **{f"paired-{name}": self._paired(*chosen) for name, chosen in TABLES.items()},
                "cost": self._cost_table(),
                "choice": self._choice_table(),
                "parameters": self._parameters(),
                "reproducibility": self._reproducibility(),
            },
            figures=dict(self._figures()),
            standings={aspect: tuple(self._standings(aspect)) for aspect in comparison.ASPECTS},
            places=self._places(),
        )

    def _run(self, candidate: str, scenario: str, rate: float = math.nan) -> str:
        """Where a number comes from, as the table of origins prints it."""
        entry = next(e for e in self.plan.entries if e.candidate == candidate and Path(e.scenario).stem == scenario)
        at = "" if math.isnan(rate) else f", {russian(rate)} сообщ./с"
        return f"{self.plan.name}/{entry.name}{at}"

    @property
    def _all_runs(self) -> str:
        return f"{self.plan.name}, начальное значение {self.plan.seed}"

    def _architecture(self, name: str) -> Architecture:
        known = architectures.get(name)
        flow = known.build(known.load_parameters(), load_scenario(self.grid))
        picture = paths.FIGURES / f"diagram-{name.replace('/', '-')}.svg"
        drawn = diagram(flow, "ru")
        if not picture.exists() or picture.read_text(encoding="utf-8") != drawn:
            picture.write_text(drawn, encoding="utf-8")
        words = title(name, "ru")
        return Architecture(name, words, Figure(picture, f"Схема обмена: {words}", f"модель {name}"))

    def _numbers(self) -> Iterator[tuple[str, Number]]:
        validation, accuracy = self.validation, self.validation["accuracy"]
        rows = [row for row in validation["rows"] if row["accepted"] is not None]
        errors = {level: [row["error"][level] for row in rows] for level in LEVELS}
        worst = [abs(error) for of_level in errors.values() for error in of_level]
        yield "architectures", Number(len(self.names), run=self.plan.name)
        yield "replications", Number(self.plan.replications, run=self._all_runs)
        yield "messages", Number(self.plan.messages, run=self._all_runs)
        yield "patience", Number(load_scenario(self.grid).patience, "с", run=self.plan.name)
        yield "validation.load", Number(validation["stated_up_to_load"], run=MADE)
        for level in LEVELS:
            yield f"validation.accuracy.{level}", Number(100 * accuracy[level], "%", run=MADE)
        yield "validation.accuracy.saturation", Number(100 * validation["saturation_accuracy"], "%", run=MADE)
        yield "validation.points", Number(len(rows), run=MADE)
        yield "validation.accepted", Number(sum(row["accepted"] for row in rows), run=MADE)
        yield "validation.worst", Number(100 * max(worst, default=math.nan), "%", run=MADE)
        for level in LEVELS:
            yield f"validation.middle.{level}", Number(100 * _median(errors[level]), "%", run=MADE)
        saturations = validation["saturations"]
        yield "validation.saturations", Number(len(saturations), run=MADE)
        yield "validation.saturations.accepted", Number(sum(row["accepted"] for row in saturations), run=MADE)
        yield "measurement.tried", Number(validation["tried"], run=MADE)
        yield "measurement.rejected", Number(validation["rejected"], run=MADE)
        yield "choice.weightings", Number(choice.WEIGHTINGS, run=self.plan.name)

    def _figures(self) -> Iterator[tuple[str, Figure]]:
        for name in FIGURES:
            run = MADE if name == "validation" else self._all_runs
            yield name, Figure(file(paths.FIGURES, name, "ru", "svg"), text(f"caption:{name}", "ru"), run)

    def _standings(self, aspect: str) -> Iterator[Standing]:
        """How the architectures proper stand by each criterion of an aspect."""
        rows = self.criteria[(self.criteria["aspect"] == aspect) & self.criteria["candidate"].isin(self.names)]
        for (metric, scenario), of in rows.groupby(["metric", "scenario"], sort=False):
            values = {row.candidate: self._number(row) for row in of.itertuples()}
            known = of.dropna(subset="value")
            sign = -1 if metric in comparison.MORE else 1
            order = known["candidate"].iloc[np.argsort(sign * known["value"].to_numpy(), kind="stable")].tolist()
            leader, others = order[0] if order else "", order[1:]
            yield Standing(
                text(f"metric:{metric}", "ru"),
                self._where(scenario, of["rate"].iloc[0]),
                values,
                leader or None,
                {name: self._difference(name, leader, metric, scenario) for name in others},
            )

    def _difference(self, a: str, b: str, metric: str, scenario: str) -> Number:
        """The paired difference a − b by a criterion."""
        found = self.differences[(self.differences["metric"] == metric) & (self.differences["scenario"] == scenario)]
        straight = found[(found["a"] == a) & (found["b"] == b)]
        turned = found[(found["a"] == b) & (found["b"] == a)]
        run = f"{self._run(a, scenario)} − {b}"
        if len(straight):
            row = straight.iloc[0]
            return _number(row["difference"], row["low"], row["high"], row["unit"], run)
        row = turned.iloc[0]
        return _number(-row["difference"], -row["high"], -row["low"], row["unit"], run)

    def _where(self, scenario: str, rate: float) -> str:
        """The conditions of a criterion, as a sentence begins with them."""
        where = text(f"where:{scenario}", "ru")
        return where if math.isnan(rate) else f"{where} {russian(rate)} сообщ./с"

    def _number(self, row: Any) -> Number:
        return _number(row.value, row.low, row.high, row.unit, self._run(row.candidate, row.scenario, row.rate))

    def _values(self, aspect: str, metric: str | None) -> Table:
        """Values of all candidates by the criteria of an aspect, or of one of its metrics."""
        caption = self._caption(aspect, metric)
        return Table(self._by_criteria(self.criteria, "candidate", "value", aspect, metric), caption, self._all_runs)

    def _paired(self, aspect: str, metric: str | None) -> Table:
        """The paired differences of all candidates from the baseline by the same criteria."""
        told = self.differences[self.differences["b"] == self.baseline]
        caption = f"{self._caption(aspect, metric)}: разность с архитектурой «{title(self.baseline, 'ru')}»"
        return Table(self._by_criteria(told, "a", "difference", aspect, metric), caption, self._all_runs)

    def _caption(self, aspect: str, metric: str | None) -> str:
        words = text(f"aspect:{aspect}", "ru") if metric is None else f"{text(f'metric:{metric}', 'ru')}, мс"
        return words[:1].upper() + words[1:]

    def _by_criteria(self, rows: pd.DataFrame, who: str, what: str, aspect: str, metric: str | None) -> pd.DataFrame:
        """A row each candidate in the column `who`, a column each criterion with the numbers in the column `what`."""
        rows = rows[rows["aspect"] == aspect]
        if metric is not None:
            rows = rows[rows["metric"] == metric]
        columns: dict[str, dict[str, Number]] = {}
        for (measured, scenario), of in rows.groupby(["metric", "scenario"], sort=False):
            label = title(scenario, "ru") if metric else f"{text(measured, 'ru')} ({title(scenario, 'ru')})"
            cells = of[[who, what, "low", "high", "unit"]].itertuples(index=False, name=None)
            columns[label] = {name: _number(*rest) for name, *rest in cells}
        names = [name for name in self.candidates if name in set(rows[who])]
        frame = pd.DataFrame({"Архитектура": [title(name, "ru") for name in names]})
        for label, cells_of in columns.items():
            frame[label] = pd.Series([cells_of[name] for name in names], dtype=object)
        return frame

    def _validation_table(self) -> Table:
        """A row each twin: how many of its points and whether its saturation are as accurate as stated, and the middle errors."""
        saturations = {twin_title(row, "ru"): row for row in self.validation["saturations"]}
        rows = []
        for twin, saturation in saturations.items():
            own = [
                row for row in self.validation["rows"] if twin_title(row, "ru") == twin and row["accepted"] is not None
            ]
            errors = {
                f"Ошибка {level}, %": round(100 * _median([row["error"][level] for row in own])) if own else None
                for level in LEVELS
            }
            accepted = f"{sum(row['accepted'] for row in own)} из {len(own)}"
            rows.append({"Прототип": twin, "Выдержано": accepted, **errors, **_saturated(saturation)})
        caption = "Точность моделей на нагрузках вне калибровки: выдержанные сопоставления, медианы ошибок и насыщение"
        return Table(pd.DataFrame(rows), caption, MADE)

    def _points_table(self) -> Table:
        """The errors at every point, a row each twin and time, a column each load; an asterisk where the accuracy is missed."""
        rows = [row for row in self.validation["rows"] if row["kind"] == "trace"]
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in sorted(rows, key=lambda row: row["load"]):
            errors = "/".join(russian(round(100 * row["error"][level])) for level in LEVELS)
            of = (twin_title(row, "ru"), text(f"of:{row['metric']}.{row['kind_of_message']}", "ru"))
            missed = "*" if row["accepted"] is False else ""
            cells.setdefault(of, {})[f"ρ = {russian(round(row['load'], 2))}"] = f"{errors}{missed}"
        order = list(dict.fromkeys(twin_title(row, "ru") for row in rows))
        found = sorted(cells.items(), key=lambda each: order.index(each[0][0]))
        frame = pd.DataFrame([{"Прототип": twin, "Показатель": what, **loads} for (twin, what), loads in found])
        caption = "Ошибки предсказанных p50/p95/p99 на нагрузках вне калибровки, %; звёздочка — точность не выдержана"
        return Table(frame.astype(object).where(frame.notna(), None), caption, MADE)

    def _saturation_table(self) -> Table:
        frame = pd.DataFrame(
            {
                "Архитектура": [title(row.candidate, "ru") for row in self.saturation.itertuples()],
                "Наибольшая полезная пропускная способность, сообщ./с": [
                    _number(row.value, row.low, row.high, "1/s") for row in self.saturation.itertuples()
                ],
                "При потоке, сообщ./с": self.saturation["rate"].tolist(),
                "Перегрузка достигнута": self.saturation["reached"].tolist(),
            }
        )
        return Table(frame, "Пропускная способность при насыщении", self._all_runs)

    def _cost_table(self) -> Table:
        frame = pd.DataFrame({"Архитектура": [title(name, "ru") for name in self.names]})
        for measures in choice.COSTS.values():
            for measure in measures:
                words = text(f"measure:{measure}", "ru")
                values = self.costs.loc[self.names, measure]
                frame[words[:1].upper() + words[1:]] = pd.Series(
                    [int(value) if value == int(value) else value for value in values], dtype=object
                )
        return Table(frame, "Сложность интеграции и стоимость разработки прототипов", COUNTED)

    def _choice_table(self) -> Table:
        places = self._places()
        frame = pd.DataFrame({"Архитектура": [place.title for place in places]})
        for k, aspect in enumerate(places[0].aspects, start=1):
            frame[str(k)] = [round(place.aspects[aspect], 2) for place in places]
        frame["В целом"] = [round(place.flow, 2) for place in places]
        frame["Первая, %"] = [round(place.first, 1) for place in places]
        caption = "Чистые потоки предпочтения по аспектам и доля наборов весов, при которых архитектура первая"
        return Table(frame, caption, self._all_runs)

    def _places(self) -> tuple[Place, ...]:
        order = self.choice.overall.sort_values(ascending=False, kind="stable").index
        return tuple(self._place(name) for name in order)

    def _place(self, name: str) -> Place:
        weights = self.choice.weights.loc[name]
        flows = self.choice.flows.loc[name]
        return Place(
            name,
            title(name, "ru"),
            float(self.choice.overall[name]),
            float(100 * self.choice.first[name]),
            {text(f"aspect:{aspect}", "ru"): float(flow) for aspect, flow in flows.items()},
            None if weights.isna().any() else text(f"aspect:{weights.idxmax()}", "ru"),
        )

    def _parameters(self) -> Table:
        """A row each parameter and value, with the numbers of the architectures that have it."""
        found: dict[tuple[str, str, str, str], list[str]] = {}
        for number, name in enumerate(self.names, start=1):
            values = architectures.get(name).load_parameters()
            measured = calibrated(name, values.profile)
            for field, about in type(values).model_fields.items():
                origin = measured[field].provenance if field in measured else "assumed"
                words = TEXTS.get(f"parameter:{field}", {"ru": about.description or ""})["ru"]
                shown = _value(getattr(values, field), about.metadata)
                found.setdefault((field, words, shown, text(f"provenance:{origin}", "ru")), []).append(str(number))
        order = list(dict.fromkeys(field for field, *_ in found))
        rows = sorted(found.items(), key=lambda row: order.index(row[0][0]))
        frame = pd.DataFrame(
            [(*row, "все" if len(numbers) == len(self.names) else ", ".join(numbers)) for row, numbers in rows],
            columns=["Параметр", "Что это", "Значение", "Происхождение", "Архитектуры"],
        )
        caption = "Параметры моделей, их происхождение и номера архитектур, у которых они есть"
        return Table(frame, caption, "data/calibration")

    def _reproducibility(self) -> Table:
        rows = [
            ("Версия пакета и хеш кода", ", ".join(self.points["version"].drop_duplicates())),
            ("Схема случайных чисел", ", ".join(self.points["draws"].drop_duplicates())),
            ("Начальное значение генератора", str(self.plan.seed)),
            ("Повторов в точке", str(self.plan.replications)),
            ("Сообщений в повторе", russian(self.plan.messages)),
        ]
        for candidate, group in self.points.groupby("candidate", sort=False):
            rows.append((f"Параметры: {title(candidate, 'ru')}", ", ".join(group["parameters_hash"].drop_duplicates())))
        files = sorted({one for found in self.points["calibration_hash"].dropna() for one in found.split()})
        rows.append(("Файлы калибровки", ", ".join(files) or "нет: параметры приняты"))
        rows += [(f"Пакет {name}", version(name)) for name in PACKAGES]
        return Table(
            pd.DataFrame(rows, columns=["Что", "Значение"]),
            "Версии, начальные значения и контрольные суммы",
            self.plan.name,
        )


def _number(value: float, low: float, high: float, unit: str, run: str = "") -> Number:
    """A number of the store in the report's unit, with its interval if it has one."""
    scale, name = _unit(unit)
    if math.isnan(low):
        return Number(scale * value, name, run=run)
    return Number(scale * value, name, scale * low, scale * high, run)


def _unit(unit: str) -> tuple[float, str]:
    return UNITS.get(unit, SHARE)


def _median(errors: list[float]) -> float:
    return float(np.median(errors)) if errors else math.nan


def _saturated(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a twin's saturation."""
    return {
        "Насыщение измерено, сообщ./с": round(row["measured"]),
        "Предсказано, сообщ./с": round(row["predicted"]),
        "Ошибка, %": round(100 * row["error"]),
    }


def _value(value: Any, metadata: list[Any]) -> str:
    """A parameter's value as the report prints it; times with their unit."""
    if isinstance(value, bool):
        return "да" if value else "нет"
    if isinstance(value, Distribution):
        return f"{text(f'family:{value.family}', 'ru')}, среднее {russian(1e3 * value.mean_value)} мс"
    if any(getattr(each, "func", None) is seconds for each in metadata):
        return f"{russian(value)} с"
    return russian(value) if isinstance(value, float) else str(value)
