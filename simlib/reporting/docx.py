"""The DOCX beside pandoc: the styles that it is given beforehand, and what it leaves undone afterwards."""

from __future__ import annotations

import io
import subprocess
import zipfile
from datetime import datetime
from pathlib import Path

import pypandoc
from docx import Document
from docx.document import Document as Docx
from docx.enum.style import WD_STYLE_TYPE
from docx.enum.text import WD_ALIGN_PARAGRAPH as Align
from docx.enum.text import WD_TAB_ALIGNMENT, WD_TAB_LEADER
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import nsdecls, qn
from docx.shared import Cm, Mm, Pt, RGBColor
from docx.styles.style import ParagraphStyle

from simlib.reporting.context import TitlePage

FONT = "Times New Roman"
EPOCH = datetime(1980, 1, 1)
"""The date of all that carries one: the same report is the same bytes. A ZIP knows none before it."""

TEXT_WIDTH = Cm(16.5)
INDENT = Cm(1.25)


def reference(path: Path, title_page: TitlePage) -> None:
    """Write the document whose styles and page pandoc takes over: GOST 7.32-2017, and the title page's last line."""
    default = subprocess.run(
        [pypandoc.get_pandoc_path(), "--print-default-data-file", "reference.docx"], capture_output=True, check=True
    )
    document = Document(io.BytesIO(default.stdout))
    _text_styles(document)
    _heading_styles(document)
    _table_styles(document)
    _page(document, f"{title_page.city} {title_page.year}")
    document.settings.element.append(parse_xml(f"<w:autoHyphenation {nsdecls('w')}/>"))
    document.save(str(path))


def finish(path: Path, title_page: TitlePage) -> None:
    """Finish pandoc's document in place: rows that do not split, lists of GOST's kind, properties, fixed dates."""
    document = Document(str(path))
    for table in document.tables:
        for row in table.rows:
            properties = row._tr.get_or_add_trPr()
            if properties.find(qn("w:cantSplit")) is None:
                properties.insert(0, OxmlElement("w:cantSplit"))
    _lists(document)
    properties = document.core_properties
    properties.title, properties.author = title_page.title, title_page.student
    properties.last_modified_by, properties.language = title_page.student, "ru-RU"
    properties.created = properties.modified = EPOCH
    _settings(document)
    _without_custom_properties(document)
    saved = io.BytesIO()
    document.save(saved)
    _with_fixed_dates(saved, path)


def _settings(document: Docx) -> None:
    """Word counts the fields anew when it opens the document, and lays out as its present versions do."""
    mode = '<w:compatSetting w:name="compatibilityMode" w:uri="http://schemas.microsoft.com/office/word" w:val="15"/>'
    revisions = document.settings.element.find(qn("w:rsids"))
    revisions.addprevious(parse_xml(f'<w:updateFields {nsdecls("w")} w:val="true"/>'))
    revisions.addprevious(parse_xml(f"<w:compat {nsdecls('w')}>{mode}</w:compat>"))


def _without_custom_properties(document: Docx) -> None:
    """Take out pandoc's copy of its metadata, where the paths of this machine are."""
    relations = document.part.package.rels
    for key in [key for key, relation in relations.items() if relation.reltype.endswith("/custom-properties")]:
        del relations[key]


def _with_fixed_dates(archive: io.BytesIO, path: Path) -> None:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name, EPOCH.timetuple()[:6])
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, old.read(name))


def _style(
    document: Docx,
    name: str,
    *,
    size: float = 14,
    bold: bool = False,
    align: Align = Align.JUSTIFY,
    indent: int = 0,
    left: int = 0,
    spacing: float = 1.5,
    before: float = 0,
    after: float = 0,
    keep: bool = False,
) -> ParagraphStyle:
    """A paragraph style, changed or made; sizes and distances in points, indents in Word's units."""
    styles = document.styles
    if name in styles:
        style = styles[name]
    else:
        style = styles.add_style(name, WD_STYLE_TYPE.PARAGRAPH, builtin=name.startswith("toc "))
        style.base_style = styles["Normal"]
    assert isinstance(style, ParagraphStyle)
    style.font.name, style.font.size = FONT, Pt(size)
    style.font.bold, style.font.italic, style.font.color.rgb = bold, False, RGBColor(0, 0, 0)
    fonts = style.element.get_or_add_rPr().find(qn("w:rFonts"))
    fonts.attrib.clear()
    for script in ("ascii", "hAnsi", "cs", "eastAsia"):
        fonts.set(qn(f"w:{script}"), FONT)
    layout = style.paragraph_format
    layout.alignment, layout.first_line_indent, layout.left_indent = align, indent, left
    layout.line_spacing, layout.space_before, layout.space_after = spacing, Pt(before), Pt(after)
    layout.keep_with_next = keep
    return style


def _text_styles(document: Docx) -> None:
    for name in ("Normal", "Body Text", "First Paragraph", "Bibliography"):
        _style(document, name, indent=INDENT)
    _style(document, "GOST No Indent")
    _style(document, "GOST List", indent=INDENT)
    _style(document, "Compact", size=12, align=Align.LEFT, spacing=1.0)  # pandoc's style of the cells of a table
    _style(document, "GOST Narrow Cell", size=10, align=Align.LEFT, spacing=1.0)
    _style(document, "GOST Formula", align=Align.CENTER, spacing=1.0, before=6, after=6)
    _style(document, "GOST Formula Number", align=Align.RIGHT, spacing=1.0)
    _style(document, "GOST Figure", align=Align.CENTER, spacing=1.0, before=12, keep=True)
    _style(document, "GOST Figure Caption", align=Align.CENTER, spacing=1.0, before=6, after=12)
    _style(document, "GOST Table Caption", align=Align.LEFT, spacing=1.0, before=12, after=6, keep=True)
    _style(document, "GOST After Table", size=9, spacing=1.0)
    _style(document, "GOST Title", align=Align.CENTER, spacing=1.15)
    _style(document, "GOST Title Gap", size=100, align=Align.CENTER, spacing=1.0)
    _style(document, "GOST Title Signature", align=Align.LEFT, left=Cm(9), spacing=1.15)
    for level in (1, 2, 3):
        contents = _style(document, f"toc {level}", align=Align.LEFT, left=Cm(0.75 * (level - 1)), spacing=1.15)
        contents.paragraph_format.tab_stops.add_tab_stop(TEXT_WIDTH, WD_TAB_ALIGNMENT.RIGHT, WD_TAB_LEADER.DOTS)
    link = document.styles["Hyperlink"]
    link.font.color.rgb, link.font.underline = RGBColor(0, 0, 0), False


def _heading_styles(document: Docx) -> None:
    """Headings with Word's own numbers; the structural elements have the heading's level and no number."""
    numbering = document.part.numbering_part.element
    levels = "".join(
        f'<w:lvl w:ilvl="{level}"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:pStyle w:val="Heading{level + 1}"/>'
        f'<w:suff w:val="space"/><w:lvlText w:val="{text}"/><w:lvlJc w:val="left"/>'
        f'<w:pPr><w:ind w:left="0" w:firstLine="{INDENT.twips}"/></w:pPr></w:lvl>'
        for level, text in enumerate(("%1", "%1.%2", "%1.%2.%3"))
    )
    kind = '<w:multiLevelType w:val="multilevel"/>'
    numbering.insert(0, parse_xml(f'<w:abstractNum {nsdecls("w")} w:abstractNumId="1">{kind}{levels}</w:abstractNum>'))
    numbering.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="1"><w:abstractNumId w:val="1"/></w:num>'))
    for level in (1, 2, 3):
        style = _style(
            document,
            f"Heading {level}",
            bold=True,
            align=Align.LEFT,
            indent=INDENT,
            before=0 if level == 1 else 6,
            after=6,
            keep=True,
        )
        style.paragraph_format.page_break_before = level == 1
        numbered = style.element.get_or_add_pPr().get_or_add_numPr()
        numbered.get_or_add_ilvl().val, numbered.get_or_add_numId().val = level - 1, 1
    for name, outline in (("GOST Structural", 0), ("GOST Structural Unlisted", 9)):
        style = _style(document, name, bold=True, align=Align.CENTER, after=6, keep=True)
        style.paragraph_format.page_break_before = True
        style.element.get_or_add_pPr().append(parse_xml(f'<w:outlineLvl {nsdecls("w")} w:val="{outline}"/>'))


def _table_styles(document: Docx) -> None:
    """Tables have all borders; what lays out a formula and its number has none."""
    document.styles.add_style("GOST Formula Table", WD_STYLE_TYPE.TABLE)
    style = document.styles["Table"].element
    for old in style.findall(qn("w:tblPr")) + style.findall(qn("w:tblStylePr")):
        style.remove(old)
    edges = "".join(
        f'<w:{edge} w:val="single" w:sz="4" w:space="0" w:color="000000"/>'
        for edge in ("top", "left", "bottom", "right", "insideH", "insideV")
    )
    margins = "".join(
        f'<w:{side} w:w="{width}" w:type="dxa"/>'
        for side, width in (("top", 40), ("left", 80), ("bottom", 40), ("right", 80))
    )
    layout = f'<w:jc w:val="center"/><w:tblBorders>{edges}</w:tblBorders><w:tblCellMar>{margins}</w:tblCellMar>'
    style.append(parse_xml(f"<w:tblPr {nsdecls('w')}>{layout}</w:tblPr>"))


def _page(document: Docx, title_foot: str) -> None:
    """A4 with GOST's margins; the number of the page bottom centre, on the title page city and year instead."""
    section = document.sections[0]
    section.page_width, section.page_height = Mm(210), Mm(297)
    section.left_margin, section.right_margin, section.top_margin, section.bottom_margin = (
        Mm(30),
        Mm(15),
        Mm(20),
        Mm(20),
    )
    section.header_distance, section.footer_distance, section.gutter = Mm(10), Mm(10), 0
    section.different_first_page_header_footer = True
    foot = section.first_page_footer.paragraphs[0]
    foot.style = document.styles["GOST Title"]
    foot.add_run(title_foot)
    number = section.footer.paragraphs[0]
    number.style = document.styles["GOST Title"]
    number._p.append(parse_xml(f'<w:fldSimple {nsdecls("w")} w:instr=" PAGE "><w:r><w:t>2</w:t></w:r></w:fldSimple>'))


def _lists(document: Docx) -> None:
    """Lists begin at the paragraph's indent, with a dash where they have no number."""
    for abstract in document.part.numbering_part.element.findall(qn("w:abstractNum")):
        if abstract.get(qn("w:abstractNumId")) == "1":
            continue
        for level in abstract.findall(qn("w:lvl")):
            if level.find(qn("w:numFmt")).get(qn("w:val")) == "bullet":
                level.find(qn("w:lvlText")).set(qn("w:val"), "–")
            for old in level.findall(qn("w:pPr")) + level.findall(qn("w:rPr")) + level.findall(qn("w:suff")):
                level.remove(old)
            level.find(qn("w:lvlText")).addprevious(parse_xml(f'<w:suff {nsdecls("w")} w:val="space"/>'))
            level.append(parse_xml(f'<w:pPr {nsdecls("w")}><w:ind w:left="0" w:firstLine="{INDENT.twips}"/></w:pPr>'))
