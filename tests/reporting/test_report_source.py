"""Filling the report's template: nothing missing, nothing concluded that the intervals do not say."""

from dataclasses import replace

import pytest

from simlib import paths
from simlib.errors import BadInput, RunFailed
from simlib.reporting import Number, Place, ReportContext, Standing, TitlePage
from simlib.reporting.markdown import fill, plain
from simlib.reporting.numbers import NBSP


def _with_performance(context: ReportContext, standing: Standing) -> ReportContext:
    _, *rest = context.standings["performance"]
    return replace(context, standings={**context.standings, "performance": (standing, *rest)})


def _with_places(context: ReportContext, *places: Place) -> str:
    return fill(replace(context, places=places), paths.REPORT_SOURCE).text


def test_every_conclusion_follows_its_interval(context):
    first = context.standings["performance"][0]
    start = "При равномерной нагрузке 100 сообщ./с лучшее значение показателя «p95 времени ответа на заказ»"
    said = fill(context, paths.REPORT_SOURCE).text
    assert said.count(f"{start} — 9{NBSP}мс — у архитектуры «очередь сообщений»; «вызовы REST» отстаёт") == 2
    level = replace(first, differences={"rest": Number(0.1, "мс", -0.2, 0.4, "другой прогон")})
    text = fill(_with_performance(context, level), paths.REPORT_SOURCE).text
    assert "«очередь сообщений»; различие с ней не обнаружено у «вызовы REST»" in text
    assert f"{start} — 9{NBSP}мс — у архитектуры «очередь сообщений»; «вызовы REST» отстаёт" not in text


def test_recommended_is_what_comes_first_and_no_more_surely_than_the_weights_let_it(context):
    rest, queue = context.places
    sure = _with_places(context, rest, queue)
    assert "рекомендуется архитектура «вызовы REST»; эта рекомендация сохраняется при большинстве наборов весов" in sure
    assert f"«очередь сообщений» первая при 20,0{NBSP}% наборов весов" in sure
    torn = _with_places(context, replace(queue, flow=0.1, first=45.0), replace(rest, flow=0.05, first=40.0))
    assert "если ни один аспект не важнее других, рекомендуется архитектура «очередь сообщений»" in torn
    assert "рекомендация сохраняется" not in torn


def test_where_another_is_better_at_processes_it_is_recommended_for_them(context):
    advice = "рекомендацию следует дополнить"
    assert advice in fill(context, paths.REPORT_SOURCE).text
    rest, queue = context.places
    best = {**rest.aspects, "сложные бизнес-процессы": 0.9}
    assert advice not in _with_places(context, replace(rest, aspects=best), queue)


def test_a_conclusion_without_an_interval_fails_the_build(context):
    first = context.standings["performance"][0]
    without = replace(first, differences={"rest": Number(3.2, "мс")})
    with pytest.raises(RunFailed, match="needs an interval"):
        fill(_with_performance(context, without), paths.REPORT_SOURCE)


@pytest.mark.parametrize(("kind", "name"), [("numbers", "messages"), ("tables", "order"), ("figures", "consistency")])
def test_what_the_context_has_not_is_named(context, kind, name):
    without = {key: value for key, value in getattr(context, kind).items() if key != name}
    with pytest.raises(RunFailed, match=f"has no .* '{name}'"):
        fill(replace(context, **{kind: without}), paths.REPORT_SOURCE)


def test_a_picture_that_is_not_there_is_named(context, tmp_path):
    gone = replace(context.figures["consistency"], path=tmp_path / "gone.png")
    with pytest.raises(RunFailed, match="gone"):
        fill(replace(context, figures={**context.figures, "consistency": gone}), paths.REPORT_SOURCE)


def test_missed_accuracy_is_said(context):
    met = replace(context, numbers={**context.numbers, "validation.accepted": context.numbers["validation.points"]})
    few = replace(context, numbers={**context.numbers, "validation.accepted": Number(2)})
    assert "отмечены как промах" in fill(context, paths.REPORT_SOURCE).text
    assert "Промахов больше половины" not in fill(context, paths.REPORT_SOURCE).text
    assert "Промахов больше половины" in fill(few, paths.REPORT_SOURCE).text
    assert "промах" not in fill(met, paths.REPORT_SOURCE).text


def test_markup_in_texts_is_text():
    assert plain("a_b*c* [x](y) $z$ #1 @k | <b>") == r"a\_b\*c\* \[x\]\(y\) \$z\$ \#1 \@k \| \<b\>"


def test_the_title_page_refuses_a_misspelt_key(tmp_path):
    text = (paths.REPORT_SOURCE / "report.yaml").read_text(encoding="utf-8")
    (tmp_path / "report.yaml").write_text(text.replace("student:", "studnet:"), encoding="utf-8")
    with pytest.raises(BadInput, match="unknown key 'studnet': did you mean 'student'"):
        TitlePage.load(tmp_path / "report.yaml")


def test_the_title_page_takes_a_year_as_a_number(tmp_path):
    text = (paths.REPORT_SOURCE / "report.yaml").read_text(encoding="utf-8")
    (tmp_path / "report.yaml").write_text(text.replace('"[год]"', "2026"), encoding="utf-8")
    assert TitlePage.load(tmp_path / "report.yaml").year == "2026"
