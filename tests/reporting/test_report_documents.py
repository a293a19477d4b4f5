"""The documents read back: GOST's layout, counts that are real, and the numbers of the context in all three."""

import re
from pathlib import Path

import pytest
from docx import Document
from docx.enum.text import WD_ALIGN_PARAGRAPH as Align
from docx.oxml.ns import qn
from pypdf import PdfReader

from simlib import paths, reporting
from simlib.errors import RunFailed
from simlib.reporting import documents
from simlib.reporting.numbers import brief, column, sentence

pytestmark = pytest.mark.xdist_group("report")

ABSTRACT = re.compile(r"Отчёт (\d+) с., (\d+) рис., (\d+) табл., (\d+) источн., (\d+) прил.")


@pytest.fixture(scope="session")
def word(built):
    return Document(str(built["docx"]))


@pytest.fixture(scope="session")
def pdf(built):
    return PdfReader(built["pdf"])


@pytest.fixture(scope="session")
def pdf_pages(pdf):
    return [_spaced(page.extract_text()) for page in pdf.pages]


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _texts(document, style: str) -> list[str]:
    return [_spaced(each.text) for each in document.paragraphs if each.style.name == style]


def _instructions(document) -> list[str]:
    return [each.text.strip() for each in document.element.body.iter(qn("w:instrText"))]


def _data_tables(document) -> list:
    return [table for table in document.tables if table.style.name == "Table"]


def _all_text(document) -> str:
    return _spaced(" ".join(each.text or "" for each in document.element.body.iter(qn("w:t"))))


def _html_text(path: Path) -> str:
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", path.read_text(encoding="utf-8"), flags=re.S)
    return _spaced(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


# The Word document


def test_the_page_is_a4_with_the_margins_of_gost(word):
    section = word.sections[0]
    sizes = (section.page_width, section.page_height, section.left_margin, section.right_margin)
    assert [round(size.mm) for size in (*sizes, section.top_margin, section.bottom_margin)] == [
        210,
        297,
        30,
        15,
        20,
        20,
    ]


def test_the_page_number_is_below_in_the_centre_and_not_on_the_title_page(word, context):
    section = word.sections[0]
    assert section.different_first_page_header_footer
    assert "PAGE" in section.footer._element.xml
    assert section.footer.paragraphs[0].style.paragraph_format.alignment == Align.CENTER
    assert "PAGE" not in section.first_page_footer._element.xml
    assert section.first_page_footer.paragraphs[0].text == f"{context.title_page.city} {context.title_page.year}"


@pytest.mark.parametrize("style", ["Normal", "Body Text", "First Paragraph"])
def test_text_is_14_points_justified_at_one_and_a_half_lines(word, style):
    found = word.styles[style]
    layout = found.paragraph_format
    assert (found.font.name, found.font.size.pt, layout.alignment) == ("Times New Roman", 14, Align.JUSTIFY)
    assert (layout.line_spacing, round(layout.first_line_indent.cm, 2)) == (1.5, 1.25)


def test_all_text_has_a_style_of_the_report(word):
    known = {"Body Text", "First Paragraph", "Bibliography", "Heading 1", "Heading 2", "toc 1", "toc 2"}
    assert {name for each in word.paragraphs if not (name := each.style.name).startswith("GOST")} == known


def test_the_parts_stand_in_the_order_of_gost(word):
    parts = [
        _spaced(each.text) for each in word.paragraphs if each.style.name.startswith(("GOST Structural", "Heading 1"))
    ]
    assert parts == [
        "РЕФЕРАТ",
        "СОДЕРЖАНИЕ",
        "ТЕРМИНЫ И ОПРЕДЕЛЕНИЯ",
        "ПЕРЕЧЕНЬ СОКРАЩЕНИЙ И ОБОЗНАЧЕНИЙ",
        "ВВЕДЕНИЕ",
        "Архитектуры обмена",
        "Метод",
        "Измеренное и предсказанное",
        "Сравнение архитектур",
        "ЗАКЛЮЧЕНИЕ",
        "СПИСОК ИСПОЛЬЗОВАННЫХ ИСТОЧНИКОВ",
        "ПРИЛОЖЕНИЕ А Параметры моделей и их происхождение",
        "ПРИЛОЖЕНИЕ Б Проверка моделей",
        "ПРИЛОЖЕНИЕ В Парные разности с базовой архитектурой",
        "ПРИЛОЖЕНИЕ Г Воспроизводимость",
        "ПРИЛОЖЕНИЕ Д Происхождение чисел",
    ]


def test_captions_are_numbered_in_order_by_fields(word):
    figures, tables = _texts(word, "GOST Figure Caption"), _texts(word, "GOST Table Caption")
    assert [text.split(" — ")[0] for text in figures] == [f"Рисунок {n + 1}" for n in range(len(figures))]
    assert [text.split(" — ")[0] for text in tables] == [
        *(f"Таблица {n + 1}" for n in range(10)),
        *("Таблица А.1", "Таблица Б.1", *(f"Таблица В.{n + 1}" for n in range(6))),
        *("Таблица Г.1", "Таблица Г.2", "Таблица Д.1"),
    ]
    assert _instructions(word).count("SEQ Рисунок \\* ARABIC") == len(figures)
    assert _instructions(word).count("SEQ Таблица \\* ARABIC") == 10
    assert _instructions(word).count("SEQ Таблица_Г \\* ARABIC") == 2


def test_formulas_are_numbered_by_fields(word):
    assert _instructions(word).count("SEQ Формула \\* ARABIC") == 4
    numbers = [
        each.text
        for table in word.tables
        for each in table._cells[-1].paragraphs
        if each.style.name == "GOST Formula Number"
    ]
    assert numbers == ["(1)", "(2)", "(3)", "(4)"]


def test_every_reference_is_a_field_with_a_target(word):
    targets = {each.get(qn("w:name")) for each in word.element.body.iter(qn("w:bookmarkStart"))}
    wanted = [text.split()[1] for text in _instructions(word) if text.startswith(("REF ", "PAGEREF "))]
    assert len(wanted) > 20
    assert set(wanted) <= targets


def test_tables_have_borders_a_repeated_head_and_whole_rows(word):
    borders = word.styles["Table"].element.find(qn("w:tblPr")).find(qn("w:tblBorders"))
    assert {each.get(qn("w:val")) for each in borders} == {"single"} and len(borders) == 6
    for table in _data_tables(word):
        head, *_ = table.rows
        assert head._tr.trPr.find(qn("w:tblHeader")) is not None
        assert all(row._tr.trPr.find(qn("w:cantSplit")) is not None for row in table.rows)


def test_the_contents_are_a_field_filled_with_the_pages_of_the_pdf(word, pdf_pages):
    assert 'TOC \\o "1-3" \\h \\z \\u' in _instructions(word)
    entries = [each.text.split("\t") for each in word.paragraphs if each.style.name.startswith("toc")]
    assert len(entries) > 15
    for title, page in entries:
        assert _spaced(title).split()[-1] in pdf_pages[int(page) - 1]
    assert ["4 Сравнение архитектур", "ЗАКЛЮЧЕНИЕ"] == [
        title for title, _ in entries if title in ("4 Сравнение архитектур", "ЗАКЛЮЧЕНИЕ")
    ]


def test_the_abstract_counts_what_is_there(word, pdf):
    pages, figures, tables, sources, appendices = map(int, ABSTRACT.search(_all_text_of_abstract(word)).groups())
    assert "NUMPAGES" in _instructions(word)
    assert pages == len(pdf.pages)
    assert figures == len(_texts(word, "GOST Figure")) == len(word.inline_shapes)
    assert tables == len(_data_tables(word))
    assert sources == len(_texts(word, "Bibliography"))
    assert appendices == sum(text.startswith("ПРИЛОЖЕНИЕ") for text in _texts(word, "GOST Structural"))


def _all_text_of_abstract(document) -> str:
    return next(_spaced(each.text) for each in document.paragraphs if each.text.startswith("Отчёт"))


def test_the_tables_of_the_word_document_hold_the_numbers_of_the_context(word, context):
    captions = _texts(word, "GOST Table Caption")
    tables = dict(zip((text.split(" — ")[1] for text in captions), _data_tables(word), strict=True))
    for table in context.tables.values():
        found = tables[_spaced(table.caption)]
        rows = [[_spaced(cell.text) for cell in row.cells] for row in found.rows]
        expected = zip(*(column(table.frame[name].tolist()) for name in table.frame.columns), strict=True)
        assert rows[0] == [_spaced(name) for name in table.frame.columns]
        assert rows[1:] == [[_spaced(text) for text in row] for row in expected]


def test_the_word_document_carries_no_date_and_no_path_of_the_machine(word, built):
    assert (
        word.core_properties.created
        == word.core_properties.modified
        == reporting.docx.EPOCH.replace(tzinfo=word.core_properties.created.tzinfo)
    )
    package = word.part.package
    contents = b"".join(part.blob for part in package.iter_parts())
    assert str(Path.home()).encode() not in contents
    assert str(paths.PACKAGE.parent).encode() not in contents


# All three


def test_numbers_and_conclusions_are_in_all_three_documents(word, pdf_pages, built, context):
    unbroken = _spaced("".join(pdf_pages)).replace("- ", "").replace("-", "").replace(" ", "")
    texts = {"docx": _all_text(word), "html": _html_text(built["html"])}
    titles = {each.name: each.title for each in context.architectures}
    wanted = [brief(number) for number in context.numbers.values()]
    wanted += [sentence(each, titles) for aspect in context.standings.values() for each in aspect]
    for text in map(_spaced, wanted):
        for name, whole in texts.items():
            assert text.replace(" ", "") in whole.replace(" ", ""), (name, text)
        assert text.replace("-", "").replace(" ", "") in unbroken, ("pdf", text)


def test_every_printed_number_has_its_run_in_the_last_appendix(word, context):
    rows = {_spaced(row.cells[0].text): row.cells for row in _data_tables(word)[-1].rows}
    for name, number in context.numbers.items():
        assert rows[name][2].text == number.run
    assert {"Рисунок 3", "Таблица 1", "Таблица 10", "Таблица А.1"} <= set(rows)


# The PDF


def test_the_pdf_counts_its_own_pages_and_numbers_all_but_the_first(pdf, pdf_pages):
    assert int(ABSTRACT.search(pdf_pages[1]).group(1)) == len(pdf.pages)
    assert not re.search(r"\d\s*$", pdf_pages[0])
    for number, text in enumerate(pdf_pages[1:], start=2):
        assert text.split()[-1] == str(number)


def test_the_pdf_has_no_glyph_from_a_fallback_font(pdf):
    fonts = set()
    for page in pdf.pages:
        for font in page["/Resources"]["/Font"].values():
            fonts.add(font.get_object()["/BaseFont"].split("+")[1])
    assert fonts
    assert all(name.startswith(("STIXGeneral", "NewCMMath")) for name in fonts), fonts


def test_a_long_table_says_that_it_goes_on(pdf_pages):
    pages = [text for text in pdf_pages if "А.1" in text and "Имя Значение Единица Происхождение" in text]
    assert len(pages) > 1
    assert "Таблица А.1 —" in pages[0] and "Продолжение таблицы А.1" not in pages[0]
    assert all("Продолжение таблицы А.1" in text for text in pages[1:])


def test_the_html_stands_alone(built):
    text = built["html"].read_text(encoding="utf-8")
    assert 'lang="ru-RU"' in text
    assert not re.search(r'(src|href)="(?!data:|#|https?://)', text)
    assert not re.search(r'src="http', text)


# The build


def test_the_same_context_gives_the_same_bytes(built, context, tmp_path):
    for path in reporting.build(context, tmp_path):
        assert path.read_bytes() == built[path.suffix[1:]].read_bytes(), path.name


def test_nothing_is_done_again_until_an_input_changes(built, context, monkeypatch):
    output = built["docx"].parent
    calls = []
    monkeypatch.setattr(documents, "_typeset", lambda *_: calls.append(1))
    assert reporting.build(context, output) == [output / f"report.{suffix}" for suffix in ("docx", "pdf", "html")]
    assert not calls


def test_a_changed_picture_is_an_input(context):
    source = documents.fill(context, paths.REPORT_SOURCE)
    before = documents._digest(source, context.title_page)
    source.pictures["validation.png"] = source.pictures["response_time.svg"]
    assert documents._digest(source, context.title_page) != before


@pytest.mark.parametrize(
    ("text", "says"),
    [("Ссылка [@nobody].", "nobody"), ("Рисунок @fig:nowhere.", "no such label: fig:nowhere")],
)
def test_what_pandoc_refuses_is_told_in_a_few_lines(context, tmp_path, text, says):
    with pytest.raises(RunFailed, match=says) as failure:
        documents._typeset(documents.Source(text, {}), context.title_page, tmp_path)
    assert len(str(failure.value).splitlines()) <= 5


def test_what_typst_refuses_is_told_in_a_few_lines(context, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    source = documents.Source("![Подпись](broken.png){#fig:x}", {"broken.png": tmp_path / "in" / "broken.png"})
    with pytest.raises(RunFailed, match="typst could not write") as failure:
        documents._typeset(source, context.title_page, tmp_path)
    assert len(str(failure.value).splitlines()) <= 5
