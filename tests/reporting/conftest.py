"""A report of invented numbers, each marked as such by its run: what the tests read back."""

import math
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure as Plot

from simlib import paths, reporting
from simlib.reporting import Architecture, Figure, Number, Place, ReportContext, Standing, Table, TitlePage

INVENTED = "выдуманный пример"
RATES = (50, 100, 150, 200, 250, 300)
NAMES = {"rest": "вызовы REST", "message_queue": "очередь сообщений"}


def _plot(path: Path) -> Path:
    with matplotlib.rc_context({"font.family": "STIXGeneral", "font.size": 11}):
        plot = Plot(figsize=(6.3, 3.4), layout="constrained")
        axes = plot.subplots()
        for shift, (style, name) in enumerate(zip(("o-", "s--"), NAMES.values(), strict=True)):
            axes.plot(RATES, [5 + shift + rate**2 / 9000 for rate in RATES], style, color="black", label=name)
        axes.set(xlabel="Интенсивность потока, сообщ./с", ylabel="Время, мс")
        axes.legend()
        plot.savefig(path, dpi=200, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
    return path


def _diagram(path: Path, between: str) -> Path:
    boxes = "".join(
        f'<rect x="{x}" y="20" width="140" height="60" fill="none" stroke="black"/>'
        f'<text x="{x + 70}" y="55" text-anchor="middle" font-family="sans-serif" font-size="16">{name}</text>'
        for x, name in ((10, "учёт"), (230, between), (450, "магазин"))
    )
    lines = '<path d="M150 50h80M370 50h80" stroke="black"/>'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 100">{lines}{boxes}</svg>', encoding="utf-8"
    )
    return path


def _number(value: float, unit: str = "", half: float = math.nan) -> Number:
    return Number(value, unit, value - half, value + half, run=INVENTED)


def _standing(
    metric: str, where: str, first: float, second: float, half: float, unit: str, more: bool = False
) -> Standing:
    """Of REST and the queue, whose values are given; the half-width is that of their difference."""
    values = dict(zip(NAMES, (_number(first, unit), _number(second, unit)), strict=True))
    leader, other = (
        ("rest", "message_queue") if (first >= second if more else first <= second) else ("message_queue", "rest")
    )
    distance = values[other].value - values[leader].value
    return Standing(metric, where, values, leader, {other: _number(distance, unit, half)})


def _place(name: str, flow: float, first: float, favoured: str | None) -> Place:
    aspects = dict.fromkeys(
        ("производительность", "масштабируемость", "надёжность доставки", "согласованность данных"), flow
    )
    aspects |= {"сложные бизнес-процессы": -flow, "простота интеграции": flow, "стоимость разработки": flow}
    return Place(name, NAMES[name], flow, first, aspects, favoured)


def _tables() -> dict[str, Table]:
    titles = list(NAMES.values())
    times = pd.DataFrame(
        {
            "Архитектура": [title for title in titles for _ in RATES],
            "Поток, сообщ./с": [*RATES, *RATES],
            "p50 ответа на заказ, мс": [_number(4.3 + rate / 70, half=0.04) for rate in (*RATES, *RATES)],
            "p95 ответа на заказ, мс": [_number(12.3 + rate / 30, half=0.31) for rate in (*RATES, *RATES)],
            "p99 ответа на заказ, мс": [
                *(_number(22.3 + rate / 20, half=1.2) for rate in (*RATES, *RATES[:-1])),
                float("nan"),
            ],
        }
    )
    validation = pd.DataFrame(
        {
            "Архитектура": [title for title in titles for _ in range(3)],
            "Нагрузка ρ": [0.3, 0.5, 0.7] * 2,
            "Показатель": ["p50", "p95", "p99"] * 2,
            "Измерено, мс": [4.31, 10.2, 25.7, 5.2, 11.3, 30.1],
            "Предсказано, мс": [4.25, 10.9, 22.1, 5.4, 11.1, 41.0],
            "Ошибка, %": [-1.4, 6.9, -14.0, 3.8, -1.8, 36.2],
            "Точность выдержана": [True, True, True, True, True, False],
        }
    )
    saturation = pd.DataFrame(
        {
            "Архитектура": titles,
            "Измерено, сообщ./с": [_number(412.3, half=3.1), _number(398.2, half=4.4)],
            "Предсказано, сообщ./с": [420.4, 401.9],
            "Узкое место": ["процессор магазина", "процессор учёта"],
        }
    )
    consistency = pd.DataFrame(
        {
            "Архитектура": titles * 2,
            "Сценарий": ["равномерный", "равномерный", "распродажа", "распродажа"],
            "Потеряно, сообщ.": [0, 0, 0, 0],
            "Дубликаты, сообщ.": [0.0, 3.5, 0.0, 12.1],
            "Перепродано, шт.": [0, 0, 0, 1234],
            "Устаревшие чтения, %": [0.0, 1.25, 0.0, 17.3],
        }
    )
    parameters = pd.DataFrame(
        {
            "Имя": [f"{name}.parameter_{number}" for name in NAMES for number in range(24)],
            "Значение": [
                0.0021 * (number + 1) if number % 3 else "lognormal(2 мс; 0,5)" for _ in NAMES for number in range(24)
            ],
            "Единица": ["с"] * 48,
            "Происхождение": [("измерено", "опубликовано [1]", "допущение")[number % 3] for number in range(48)],
        }
    )
    reproducibility = pd.DataFrame(
        {
            "Что": [
                "Версия simlib",
                "Схема случайных чисел",
                "Начальное значение генератора",
                "Контрольная сумма параметров REST",
            ],
            "Значение": ["0.1.0", "1", "1", "4f2a9c0be1d37a5566018e2d9b44c1aa93f0"],
        }
    )
    values = pd.DataFrame(
        {"Архитектура": titles, "распродажа": [_number(12.3, half=0.31), _number(float("nan"))], "всплески": [1.0, 2.0]}
    )
    names = ("query", "delivery", "reliability", "processes")
    by_criteria = {name: (f"Значения показателя {name}", values) for name in names}
    by_criteria |= {f"paired-{name}": (f"Разности {name}", values) for name in ("order", *names, "consistency")}
    choice = pd.DataFrame({"Архитектура": titles, "1": [0.25, -0.25], "Первая, %": [80.0, 20.0]})
    captions = {
        **by_criteria,
        "points": ("Ошибки во всех точках", validation),
        "cost": ("Стоимость разработки", pd.DataFrame({"Архитектура": titles, "Частей системы": [3, 4]})),
        "choice": ("Чистые потоки предпочтения", choice),
        "validation": ("Измеренные и предсказанные времена ответа на заказ", validation),
        "order": ("Время ответа на заказ в зависимости от интенсивности потока, средние и 95 %-е интервалы", times),
        "saturation": ("Пропускная способность при насыщении", saturation),
        "consistency": ("Потери, дубликаты, перепродажа и устаревшие чтения", consistency),
        "parameters": ("Параметры моделей", parameters),
        "reproducibility": ("Версии и контрольные суммы", reproducibility),
    }
    return {name: Table(frame, f"{caption} ({INVENTED})", INVENTED) for name, (caption, frame) in captions.items()}


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> ReportContext:
    folder = tmp_path_factory.mktemp("pictures")
    steady, sale = "при равномерной нагрузке 100 сообщ./с", "при распродаже"
    return ReportContext(
        title_page=TitlePage.load(paths.REPORT_SOURCE / "report.yaml"),
        architectures=tuple(
            Architecture(name, title, Figure(_diagram(folder / f"{name}.svg", between), f"Схема: {title}", INVENTED))
            for (name, title), between in zip(NAMES.items(), ("HTTP", "брокер"), strict=True)
        ),
        numbers={
            "architectures": _number(2),
            "patience": _number(1, "с"),
            "choice.weightings": _number(10_000),
            "replications": _number(10),
            "messages": _number(20000),
            "validation.load": _number(0.7),
            "validation.accuracy.p50": _number(15, "%"),
            "validation.accuracy.p95": _number(20, "%"),
            "validation.accuracy.p99": _number(30, "%"),
            "validation.accuracy.saturation": _number(5, "%"),
            **{f"validation.middle.{level}": _number(12.5, "%") for level in ("p50", "p95", "p99")},
            "validation.saturations": _number(2),
            "validation.saturations.accepted": _number(1),
            "validation.points": _number(6),
            "validation.accepted": _number(5),
            "validation.worst": _number(36.2, "%"),
            "measurement.tried": _number(40),
            "measurement.rejected": _number(3),
        },
        tables=_tables(),
        figures={
            "validation": Figure(_plot(folder / "validation.png"), "Измеренное и предсказанное время", INVENTED),
            "response_time": Figure(_plot(folder / "response_time.svg"), "Время ответа на заказ, p95", INVENTED),
            "delivery_time": Figure(_plot(folder / "delivery_time.png"), "Время доставки изменения, p95", INVENTED),
            "consistency": Figure(_plot(folder / "consistency.png"), "Доля устаревших чтений", INVENTED, 12),
            **{
                name: Figure(_plot(folder / f"{name}.png"), f"Рисунок {name}", INVENTED)
                for name in ("backlog", "differences", "saturation")
            },
        },
        standings={
            "performance": (
                _standing("p95 времени ответа на заказ", steady, 12.214, 9.0, 0.152, "мс"),
                _standing("p95 времени ответа на заказ", sale, 1334.5, 100.0, 61.2, "мс"),
                _standing("p95 времени доставки изменения", steady, 5.0, 5.812, 0.033, "мс"),
            ),
            "scalability": (
                _standing("пропускная способность", "при насыщении", 412.1, 398.0, 17.5, "сообщ./с", more=True),
            ),
            "reliability": (_standing("число потерянных сообщений", sale, 0, 0, 0, "сообщ."),),
            "consistency": (_standing("доля устаревших чтений", steady, 0.0, 1.25, 0.09, "%"),),
            "processes": (_standing("число незавершённых процессов", steady, 350, 519, 21, "сообщ."),),
        },
        places=(
            _place("rest", 0.25, 80.0, "производительность"),
            _place("message_queue", -0.25, 20.0, "сложные бизнес-процессы"),
        ),
    )


@pytest.fixture(scope="session")
def built(context: ReportContext, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three documents of the sample, by suffix."""
    return {path.suffix[1:]: path for path in reporting.build(context, tmp_path_factory.mktemp("report"))}
