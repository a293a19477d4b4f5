"""A laboratory for choosing an integration architecture."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simlib.api import VERSION as __version__
    from simlib.api import compare, replicate, run, totals
    from simlib.engines import simulate

__all__ = ["__version__", "compare", "replicate", "run", "simulate", "totals"]
_HOMES = {"__version__": ("simlib.api", "VERSION"), "simulate": ("simlib.engines", "simulate")}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: a live service starts without the engines."""
    if name not in __all__:
        raise AttributeError(f"module 'simlib' has no attribute '{name}'")
    module, attribute = _HOMES.get(name, ("simlib.api", name))
    return getattr(import_module(module), attribute)
