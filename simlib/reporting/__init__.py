"""The coursework report: one source, filled from results, becomes DOCX, PDF and HTML laid out by GOST 7.32-2017."""

from simlib.reporting.context import Architecture, Figure, ReportContext, Table, TitlePage
from simlib.reporting.documents import build
from simlib.reporting.numbers import Difference, Number

__all__ = ["Architecture", "Difference", "Figure", "Number", "ReportContext", "Table", "TitlePage", "build"]
