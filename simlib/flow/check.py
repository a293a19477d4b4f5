"""What can be known of a flow before it runs."""

from __future__ import annotations

from simlib.flow.model import Flow


def check(flow: Flow) -> list[str]:
    """Warnings; raises BadInput where the flow cannot run."""
    return []
