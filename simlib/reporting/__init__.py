"""The coursework report: one source, filled from results, becomes DOCX, PDF and HTML laid out by GOST 7.32-2017."""

from simlib.reporting.context import Architecture, Figure, Place, ReportContext, Table, TitlePage
from simlib.reporting.documents import build
from simlib.reporting.numbers import Number, Standing

__all__ = ["Architecture", "Figure", "Number", "Place", "ReportContext", "Standing", "Table", "TitlePage", "build"]
