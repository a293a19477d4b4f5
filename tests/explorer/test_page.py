"""The explorer's numbers and page, without a browser: they are those of a run, and follow what is moved."""

from dataclasses import replace

import numpy as np
import pytest

from simlib import api, metrics
from simlib.explorer import numbers
from simlib.explorer.page import Page

MESSAGES = 1200


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(numbers, "COARSE", 200)
    monkeypatch.setattr(numbers, "DRAFT", 500)
    made = Page("rest", "steady", "en", MESSAGES, 3)
    finish(made)
    return made


def finish(page: Page) -> None:
    """Wait for what is computed in the background."""
    page._later.submit(lambda: None).result()


def said(page: Page) -> str:
    return page._words["status"].value


def test_the_numbers_are_the_metrics_of_the_run():
    history = api.run("message_queue", messages=3000, seed=2)
    found = numbers.numbers(history)
    known = metrics.measure(history, metrics.warmup(history) or 0)
    for level, place in numbers.LEVELS.items():
        for time, kind in numbers.SERIES:
            assert found.times[time, kind][place] == pytest.approx(known[f"{time}_{level}.{kind}"])
    assert {name: known[name] for name in numbers.COUNTS} == numbers.counts(history)
    assert found.utilisation == {name[12:]: value for name, value in known.items() if name.startswith("utilisation.")}


def test_kept_arrivals_change_nothing():
    case = api.case("rest", messages=500)
    assert numbers.run(case, 4).messages.to_pandas().equals(case.run(4).messages.to_pandas())


@pytest.mark.parametrize(
    ("scenario", "messages", "drawn"), [("steady", 500, 500), ("flash_sale", 40_000, 40_000), ("burst", 40_000, 20_000)]
)
def test_a_draft_has_no_more_messages_than_can_be_shown_at_once_unless_a_profile_needs_them(scenario, messages, drawn):
    case = api.case("rest", scenario, messages=messages)
    assert numbers.draft(case) == replace(case, messages=drawn)


@pytest.mark.parametrize("scenario", ["steady", "burst", "flash_sale"])
def test_a_scenarios_base_rate_is_that_of_its_file(scenario):
    assert numbers.base_rate(scenario) == pytest.approx({"steady": 100, "burst": 50, "flash_sale": 50}[scenario])
    assert api.case("rest", scenario, rate=numbers.base_rate(scenario)).scenario.rate == pytest.approx(
        api.case("rest", scenario).scenario.rate
    )


def test_the_page_shows_the_run_of_what_is_chosen(page):
    history = api.run("rest", seed=3, messages=MESSAGES, rate=page.offered)
    expected = numbers.numbers(history).times["response_time", "order"] * 1e3
    assert np.allclose(page.response.lines.x[1], expected)
    assert "1,200 messages, seed 3" in said(page)


def test_a_move_changes_the_figures_and_the_defaults_bring_them_back(page):
    before, bars = page.response.lines.x.copy(), page.utilisation.bars.y.copy()
    page._handles["http_server"].input.value = 20
    finish(page)
    assert not np.allclose(page.response.lines.x, before) and not np.allclose(page.utilisation.bars.y, bars)
    page.defaults.click()
    finish(page)
    assert np.allclose(page.response.lines.x, before) and np.allclose(page.utilisation.bars.y, bars)


def test_the_offered_rate_moves_the_line_in_the_figure_of_loads_and_not_its_points(page):
    points = page.loads.lines["response_time"].y.copy()
    page.rate.value = -20
    finish(page)
    assert page.loads.chosen.x[0] == pytest.approx(page.offered) == pytest.approx(100 * 10**-0.2)
    assert np.array_equal(page.loads.lines["response_time"].y, points)


def test_an_overloaded_run_has_no_percentiles(page):
    page._handles["http_server"].input.value = 150
    finish(page)
    assert "overloaded" in said(page) and "–" in page._words["percentiles"].value


def test_another_architecture_and_language_change_controls_and_words(page):
    page.architecture.value = "message_queue"
    page.language.value = "ru"
    finish(page)
    assert "consumers" in page._handles and "1\u00a0200 сообщений" in said(page)
    assert "обработчиков" in page._handles["consumers"].label.value
    assert page.response.across.label == "время ответа, мс"


def test_what_the_model_refuses_is_one_line(page):
    page.scenario.value = "flash_sale"
    finish(page)
    assert "1200 messages end before the last phase" in said(page) and "\n" not in said(page)
    page.scenario.value = "steady"
    finish(page)
    assert "1,200 messages, seed 3" in said(page)
