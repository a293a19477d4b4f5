"""Links: how long what is sent travels, or whether it is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from simlib import draws
from simlib.flow.model import Link, Part

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


def travel(engine: Engine, link: Link, stream: str) -> Callable[[int, Part], float | None]:
    """How long it takes over a link from a part, at a place; None where it is lost."""
    by_end = {}
    for end in link.ends:
        losses = [
            link.loss,
            *(f.probability for f in engine.faults.losses if f.link == link.name and f.direction in (None, end.name)),
        ]
        keep = 1.0
        for loss in losses:
            keep *= 1.0 - loss
        name = f"{stream}.from.{end.name}"
        by_end[end] = (
            link.delay.draw(draws.stream_key(engine.seed, name)),
            draws.stream_key(engine.seed, f"{name}.loss"),
            keep,
        )

    def travel(place: int, start: Part) -> float | None:
        draw, lost, keep = by_end[start]
        if engine.faults.cut and engine.clock._now < engine.faults.cut.get((link.name, start.name), -math.inf):
            return None
        if keep < 1.0 and draws.uniform(lost, place) >= keep:
            return None
        return draw(place)

    return travel
