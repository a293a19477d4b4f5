"""Filling the report's template: nothing missing, nothing concluded that the intervals do not say."""

from dataclasses import replace

import pytest

from simlib import paths
from simlib.errors import BadInput, RunFailed
from simlib.reporting import Number, ReportContext, TitlePage
from simlib.reporting.markdown import fill, plain


def _with_response_time(context: ReportContext, number: Number) -> ReportContext:
    first, *rest = context.differences["response_time"]
    changed = (replace(first, number=number), *rest)
    return replace(context, differences={**context.differences, "response_time": changed})


def test_every_conclusion_follows_its_interval(context):
    more = fill(context, paths.REPORT_SOURCE).text
    turned = _with_response_time(context, Number(-3.2, "мс", -3.4, -3.0, "другой прогон"))
    less = fill(turned, paths.REPORT_SOURCE).text
    start = "При равномерной нагрузке 100 сообщ./с p95 времени ответа на заказ у архитектуры «вызовы REST»"
    assert more.count(f"{start} больше") == less.count(f"{start} меньше") == 3  # abstract, comparison, conclusion
    assert f"{start} меньше" not in more and f"{start} больше" not in less


def test_an_advantage_that_is_lost_is_not_claimed(context):
    claim = "Преимущество архитектуры «очередь сообщений» установлено"
    assert claim in fill(context, paths.REPORT_SOURCE).text
    turned = _with_response_time(context, Number(-3.2, "мс", -3.4, -3.0))
    text = fill(turned, paths.REPORT_SOURCE).text
    assert claim not in text
    assert "Ни одна из архитектур не лучше" not in text
    assert "Архитектура «вызовы REST» не уступает другим" in text


def test_a_conclusion_without_an_interval_fails_the_build(context):
    with pytest.raises(RunFailed, match="needs an interval"):
        fill(_with_response_time(context, Number(-3.2, "мс")), paths.REPORT_SOURCE)


@pytest.mark.parametrize(("kind", "name"), [("numbers", "messages"), ("tables", "times"), ("figures", "consistency")])
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
    assert "промах" in fill(context, paths.REPORT_SOURCE).text
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
