"""From the store to the report: what is missing is run, compared and drawn; then the numbers are taken from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from simlib import architectures, comparison, experiments, paths
from simlib.architectures.parameters import calibrated
from simlib.distributions import Distribution
from simlib.errors import BadInput, RunFailed
from simlib.experiments import notebooks, runner, store
from simlib.figures import file
from simlib.figures.catalogue import TEXTS, text, title, twin_title
from simlib.flow.diagram import diagram
from simlib.reporting.context import Architecture, Figure, ReportContext, Table, TitlePage
from simlib.reporting.documents import build
from simlib.reporting.numbers import Difference, Number, russian
from simlib.scenario import load_scenario

PLAN = "report.yaml"
NOTEBOOK = paths.NOTEBOOKS / "comparison.ipynb"
FIGURES = ("response_time", "delivery_time", "saturation", "backlog", "consistency", "differences", "validation")
UNITS = {"s": (1e3, "мс"), "1/s": (1.0, "сообщ./с"), "messages": (1.0, "сообщ."), "units": (1.0, "ед.")}
SHARE = (100.0, "%")
VARIED = ("response_time", "oversold")
"""The topics in which variants differ: when a customer is answered, and what is promised."""
PACKAGES = ("simpy", "numpy", "numba", "pandas", "scipy", "matplotlib")


def report(workers: int) -> list[Path]:
    """Bring results, comparison and figures up to date, and build the report; its files.

    Raises BadInput where the models are not validated yet, RunFailed where a run or a notebook failed.
    """
    plan = experiments.load_plan(paths.PLANS / PLAN)
    validation = _validation()
    for folder in (paths.FIGURES, paths.REPORT):
        paths.writable(folder)
    experiments.require(experiments.sweep(plan, workers))
    _compare(plan)
    return build(context(plan, validation), paths.REPORT)


def context(plan: experiments.Plan, validation: Mapping[str, Any]) -> ReportContext:
    """What the report prints, from the plan's part of the store and the validation's document."""
    return _Results(plan, validation).context()


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
    key = runner.digest(runner.code(), notebooks.source(NOTEBOOK), paths.VALIDATION.read_bytes(), *stored)
    stamp = results / "comparison.key"
    if stamp.exists() and stamp.read_text(encoding="ascii") == key and all(path.exists() for path in pictures):
        return
    stamp.unlink(missing_ok=True)
    parameters = {
        "results": str(results.resolve()),
        "validation": str(paths.VALIDATION.resolve()),
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

    def __init__(self, plan: experiments.Plan, validation: Mapping[str, Any]) -> None:
        self.plan = plan
        self.names = list(dict.fromkeys(candidate.architecture for candidate in plan.architectures))
        compared = [row for row in validation["rows"] if row["architecture"] in self.names]
        self.validation = {**validation, "rows": compared}
        stored = store.read(paths.RESULTS / plan.name)
        self.points = comparison.points(stored)
        self.saturation = comparison.saturation(stored)
        self.headlines = comparison.headlines(comparison.pairs(stored))
        self.candidates = [entry.candidate for entry in plan.entries]
        self.grid = max(plan.scenarios, key=lambda load: len(load.rates)).scenario

    def context(self) -> ReportContext:
        return ReportContext(
            title_page=TitlePage.load(paths.REPORT_SOURCE / "report.yaml"),
            architectures=tuple(self._architecture(name) for name in self.names),
            variants={name: title(name, "ru") for name in dict.fromkeys(self.candidates) if name not in self.names},
            numbers=dict(self._numbers()),
            tables={
                "validation": self._validation_table(),
                "times": self._times(),
                "saturation": self._saturation_table(),
                "consistency": self._consistency(),
                "parameters": self._parameters(),
                "reproducibility": self._reproducibility(),
            },
            figures=dict(self._figures()),
            differences={topic: tuple(self._differences(topic)) for topic in comparison.TOPICS},
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
        errors = [100 * abs(error) for row in rows for error in row["error"].values()]
        made = "data/calibration/validation.json"
        yield "replications", Number(self.plan.replications, run=self._all_runs)
        yield "messages", Number(self.plan.messages, run=self._all_runs)
        yield "validation.load", Number(validation["stated_up_to_load"], run=made)
        yield "validation.accuracy.p50", Number(100 * accuracy["p50"], "%", run=made)
        yield "validation.accuracy.p95", Number(100 * accuracy["p95"], "%", run=made)
        yield "validation.accuracy.p99", Number(100 * accuracy["p99"], "%", run=made)
        yield "validation.points", Number(len(rows), run=made)
        yield "validation.accepted", Number(sum(row["accepted"] for row in rows), run=made)
        yield "validation.worst", Number(max(errors, default=math.nan), "%", run=made)
        yield "measurement.tried", Number(validation["tried"], run=made)
        yield "measurement.rejected", Number(validation["rejected"], run=made)
        for row in self.saturation.itertuples():
            run = self._run(row.candidate, row.scenario)
            yield f"saturation.{row.candidate}", _number(row.value, row.low, row.high, "1/s", run)

    def _figures(self) -> Iterator[tuple[str, Figure]]:
        for name in FIGURES:
            run = "data/calibration/validation.json" if name == "validation" else self._all_runs
            yield name, Figure(file(paths.FIGURES, name, "ru", "svg"), text(f"caption:{name}", "ru"), run)

    def _differences(self, topic: str) -> Iterator[Difference]:
        """Of architectures proper: every metric of the topic in its first scenario, the main one of times in all; none where
        every point is overloaded.

        A variant is compared with its own architecture, in what it changes.
        """
        rows = self.headlines[(self.headlines["topic"] == topic) & self.headlines["low"].notna()]
        proper = rows["a"].isin(self.names) & rows["b"].isin(self.names)
        if rows.empty:
            return
        first = rows["scenario"] == rows["scenario"].iloc[0]
        main = rows["metric"] == comparison.TOPICS[topic][0]
        own = rows["a"].str.partition("/")[0] == rows["b"]
        told = rows[proper & (first | (main & (topic in comparison.TIMELY)))]
        varied = rows[~proper & own & main & first & (topic in VARIED)]
        for row in pd.concat([told, varied]).itertuples():
            where = text(f"where:{row.scenario}", "ru")
            if not math.isnan(row.rate):
                where += f" {russian(row.rate)} сообщ./с"
            yield Difference(
                text(f"metric:{row.metric}", "ru"),
                where,
                row.a,
                row.b,
                _number(
                    row.difference, row.low, row.high, row.unit, f"{self._run(row.a, row.scenario, row.rate)} − {row.b}"
                ),
                "больше" if topic == comparison.SATURATION else "меньше",
            )

    def _validation_table(self) -> Table:
        rows = [row for row in self.validation["rows"] if row["kind"] == "trace"]
        frame = pd.DataFrame(
            {
                "Архитектура": [twin_title(row, "ru") for row in rows],
                "ρ": [round(row["load"], 2) for row in rows],
                "Показатель": [text(f"of:{row['metric']}.{row['kind_of_message']}", "ru") for row in rows],
                "Измерено p95, мс": [1e3 * row["measured"]["p95"] for row in rows],
                "Предсказано p95, мс": [1e3 * row["predicted"]["p95"] for row in rows],
                **{
                    f"Ошибка {level}, %": [round(100 * row["error"][level]) for row in rows]
                    for level in ("p50", "p95", "p99")
                },
                "Точность": [
                    {True: "выдержана", False: "промах", None: "не заявлена"}[row["accepted"]] for row in rows
                ],
            }
        )
        return Table(
            frame, "Измеренное и предсказанное время при нагрузках вне калибровки", "data/calibration/validation.json"
        )

    def _times(self) -> Table:
        rows = self.points[self.points["scenario"] == self.grid]
        columns = {
            "Ответ на заказ: p50, мс": "response_time_p50.order",
            "p95, мс": "response_time_p95.order",
            "Доставка изменения: p50, мс": "delivery_time_p50.stock_update",
            "p95, мс ": "delivery_time_p95.stock_update",
        }
        found = []
        for (candidate, rate), group in rows.groupby(["candidate", "rate"], sort=False):
            of = group.set_index("metric")
            cells = {label: self._cell(of.loc[metric]) for label, metric in columns.items()}
            load = group["load"].iloc[0]
            found.append(
                {"Архитектура": title(candidate, "ru"), "Сообщ./с": rate, "Доля насыщения": round(load, 2), **cells}
            )
        frame = pd.DataFrame(found).sort_values("Сообщ./с", kind="stable", ignore_index=True)
        return Table(
            frame, f"Время ответа и доставки, {_named(self.grid)}; прочерк означает перегрузку", self._all_runs
        )

    def _cell(self, row: Any) -> Number:
        return _number(row["value"], row["low"], row["high"], row["unit"])

    def _saturation_table(self) -> Table:
        measured = {
            row["architecture"]: row["rate"] / row["load"]
            for row in self.validation["rows"]
            if row["broker"] == architectures.get(row["architecture"]).brokers[0]
        }
        frame = pd.DataFrame(
            {
                "Архитектура": [title(row.candidate, "ru") for row in self.saturation.itertuples()],
                "По модели, сообщ./с": [
                    _number(row.value, row.low, row.high, "1/s") for row in self.saturation.itertuples()
                ],
                "При потоке, сообщ./с": self.saturation["rate"].tolist(),
                "Перегрузка достигнута": self.saturation["reached"].tolist(),
                "Измерено на прототипе, сообщ./с": [measured.get(name) for name in self.saturation["candidate"]],
            }
        )
        return Table(frame, "Пропускная способность при насыщении", self._all_runs)

    def _consistency(self) -> Table:
        conditions = self.headlines[~self.headlines["topic"].isin(comparison.TIMELY)][
            ["scenario", "rate"]
        ].drop_duplicates()
        found = []
        for scenario, rate in conditions.itertuples(index=False):
            rows = self.points[(self.points["scenario"] == scenario) & (self.points["rate"] == rate)]
            for candidate, group in rows.groupby("candidate", sort=False):
                of = group.set_index("metric")
                cells = {text(metric, "ru"): self._cell(of.loc[metric]) for metric in comparison.CONSISTENCY}
                found.append({"Сценарий": _named(scenario), "Архитектура": title(candidate, "ru"), **cells})
        return Table(
            pd.DataFrame(found),
            "Потери, дубликаты, перепродажа и устаревшие чтения, в среднем за прогон",
            self._all_runs,
        )

    def _parameters(self) -> Table:
        found: dict[str, tuple[str, str, str]] = {}
        for name in self.names:
            values = architectures.get(name).load_parameters()
            measured = calibrated(name, values.profile)
            for field, about in type(values).model_fields.items():
                origin = measured[field].provenance if field in measured else "assumed"
                words = TEXTS.get(f"parameter:{field}", {"ru": about.description or ""})["ru"]
                found[field] = (words, _value(getattr(values, field)), text(f"provenance:{origin}", "ru"))
        frame = pd.DataFrame(
            [(name, *rest) for name, rest in found.items()],
            columns=["Параметр", "Что это", "Значение", "Происхождение"],
        )
        return Table(frame, "Параметры моделей и их происхождение", "data/calibration")

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


def _named(scenario: str) -> str:
    return title(scenario, "ru")


def _value(value: Any) -> str:
    """A parameter's value as the report prints it; times in ms."""
    if isinstance(value, bool):
        return "да" if value else "нет"
    if isinstance(value, Distribution):
        return f"{text(f'family:{value.family}', 'ru')}, среднее {russian(1e3 * value.mean_value)} мс"
    if isinstance(value, float):
        return f"{russian(value)} с"
    return str(value)
