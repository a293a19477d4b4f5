"""Every word that a figure or a report shows, in Russian and in English."""

from __future__ import annotations

from typing import Literal, get_args

from simlib.errors import unknown

Language = Literal["ru", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

TEXTS: dict[str, dict[Language, str]] = {
    # architectures and their variants
    "rest": {"ru": "вызовы REST", "en": "REST calls"},
    "message_queue": {"ru": "очередь сообщений", "en": "message queue"},
    "message_queue/reply": {
        "ru": "очередь сообщений с ожиданием ответа",
        "en": "message queue, reply awaited",
    },
    # kinds of message, named as what happens to them
    "stock_update": {"ru": "изменение остатка", "en": "stock update"},
    "order": {"ru": "заказ", "en": "order"},
    "stock_query": {"ru": "запрос остатка", "en": "stock query"},
    # scenarios
    "steady": {"ru": "равномерная нагрузка", "en": "steady load"},
    "burst": {"ru": "всплески", "en": "bursts"},
    "flash_sale": {"ru": "распродажа", "en": "flash sale"},
    # axes
    "rate": {"ru": "интенсивность потока, сообщ./с", "en": "offered rate, messages/s"},
    "load": {"ru": "доля насыщения: {candidate}", "en": "share of saturation: {candidate}"},
    "response_time": {"ru": "время ответа, мс", "en": "response time, ms"},
    "delivery_time": {"ru": "время доставки, мс", "en": "delivery time, ms"},
    "goodput": {"ru": "полезная пропускная способность, сообщ./с", "en": "goodput, messages/s"},
    "backlog": {"ru": "незавершённые сообщения", "en": "unsettled messages"},
    "time": {"ru": "время, с", "en": "time, s"},
    "relative_difference": {"ru": "парная разность, % от второй архитектуры", "en": "paired difference, % of the second"},
    "measured": {"ru": "измерено, мс", "en": "measured, ms"},
    "predicted": {"ru": "предсказано, мс", "en": "predicted, ms"},
    # titles of panels
    "lost": {"ru": "потеряно, сообщ.", "en": "lost, messages"},
    "duplicated": {"ru": "дубликаты, сообщ.", "en": "duplicated, messages"},
    "oversold_units": {"ru": "перепродано, ед.", "en": "oversold, units"},
    "undersold_units": {"ru": "недопродано, ед.", "en": "undersold, units"},
    "stale_read_fraction": {"ru": "устаревшие чтения, %", "en": "stale reads, %"},
    "against": {"ru": "{a} − {b}", "en": "{a} − {b}"},
    "per_second": {"ru": "{rate} сообщ./с", "en": "{rate}/s"},
    "none_in_any_run": {"ru": "ни в одном прогоне", "en": "none in any run"},
    "short:saturation": {"ru": "насыщение", "en": "saturation"},
    "short:response_time_p95.order": {"ru": "заказ:\nвремя ответа, p95", "en": "order:\nresponse time, p95"},
    "short:response_time_p95.stock_query": {"ru": "запрос остатка:\nвремя ответа, p95", "en": "stock query:\nresponse time, p95"},
    "short:response_time_p95.stock_update": {"ru": "изменение остатка:\nвремя ответа, p95", "en": "stock update:\nresponse time, p95"},
    "short:delivery_time_p95.stock_update": {"ru": "изменение остатка:\nвремя доставки, p95", "en": "stock update:\ndelivery time, p95"},
    "short:delivery_time_p95.order": {"ru": "заказ:\nвремя доставки, p95", "en": "order:\ndelivery time, p95"},
    # legends
    "p50": {"ru": "медиана", "en": "median"},
    "p95": {"ru": "95-й процентиль", "en": "95th percentile"},
    "p99": {"ru": "99-й процентиль", "en": "99th percentile"},
    "ideal": {"ru": "обработано всё поступившее", "en": "all that is offered"},
    "overloaded": {"ru": "перегрузка", "en": "overloaded"},
    "trace": {"ru": "те же поступления", "en": "same arrivals"},
    "independent": {"ru": "независимые прогоны", "en": "independent runs"},
    "stated": {"ru": "заявленная точность", "en": "stated accuracy"},
    "one_run": {"ru": "один прогон", "en": "one run"},
    "mean_of_runs": {"ru": "среднее по {runs} прогонам", "en": "mean of {runs} runs"},
    # metrics as a sentence names them
    "saturation": {"ru": "пропускная способность при насыщении", "en": "saturation throughput"},
    "response_time_p95.order": {
        "ru": "95-й процентиль времени ответа на заказ",
        "en": "95th percentile of the response time of orders",
    },
    "response_time_p95.stock_query": {
        "ru": "95-й процентиль времени ответа на запрос остатка",
        "en": "95th percentile of the response time of stock queries",
    },
    "response_time_p95.stock_update": {
        "ru": "95-й процентиль времени ответа на изменение остатка",
        "en": "95th percentile of the response time of stock updates",
    },
    "delivery_time_p95.stock_update": {
        "ru": "95-й процентиль времени доставки изменения остатка",
        "en": "95th percentile of the delivery time of stock updates",
    },
    "delivery_time_p95.order": {
        "ru": "95-й процентиль времени доставки заказа",
        "en": "95th percentile of the delivery time of orders",
    },
    # footers
    "calibrated": {"ru": "калибровка: {files}", "en": "calibration: {files}"},
    "assumed": {"ru": "параметры приняты, не измерены", "en": "parameters assumed, not measured"},
    "origin": {
        "ru": "95 %-е доверительные интервалы, прогонов в точке: {runs}; зерно {seed}, схема {draws}, {version}",
        "en": "95 % intervals over {runs} runs a point; seed {seed}, draws {draws}, {version}",
    },
}


def text(name: str, language: Language, **values: object) -> str:
    """The words for a name, with values put in; raises BadInput for a name or language that the catalogue has not."""
    if name not in TEXTS:
        raise unknown("text of the catalogue", name, TEXTS)
    if language not in LANGUAGES:
        raise unknown("language", language, LANGUAGES)
    return TEXTS[name][language].format(**values)


def title(candidate: str, language: Language) -> str:
    """An architecture or variant by its title, or by its name where the catalogue has none (as of a user's own)."""
    return text(candidate, language) if candidate in TEXTS else candidate
