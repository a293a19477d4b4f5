"""The explorer: move a parameter, see at once what becomes of latency, losses and utilisation."""

from simlib.explorer.page import page

__all__ = ["page"]
