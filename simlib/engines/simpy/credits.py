"""Credits: tokens that no row owns, and those who wait for one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from simlib.engines.records import Meter
from simlib.engines.simpy.clock import Clock
from simlib.engines.simpy.rows import Row
from simlib.engines.simpy.tables import keyed
from simlib.flow.model import Credit

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


class Purse:
    """The tokens for one key."""

    def __init__(self, tokens: int, clock: Clock, meter: Meter) -> None:
        self.tokens, self.clock, self.meter = tokens, clock, meter
        self.out = 0
        self.waiting: dict[Row, None] = {}

    def take(self, row: Row) -> bool:
        """Take a token at once, or join those who wait."""
        if self.out < self.tokens:
            self.out += 1
            self.meter.change(self.clock._now, busy=1)
            return True
        self.waiting[row] = None
        self.meter.change(self.clock._now, waiting=1)
        return False

    def give(self) -> None:
        """Give a token back, where one is out; the next who waits has it from now on."""
        if self.waiting:
            following = next(iter(self.waiting))
            del self.waiting[following]
            self.meter.change(self.clock._now, waiting=-1, completed=1)
            following.wake()
        elif self.out:
            self.out -= 1
            self.meter.change(self.clock._now, busy=-1, completed=1)

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        del self.waiting[row]
        self.meter.change(self.clock._now, waiting=-1)


class CreditState:
    """A credit's purses, made when first used."""

    def __init__(self, engine: Engine, credit: Credit) -> None:
        self.tokens, self.clock = credit.tokens, engine.clock
        self.meter = engine.records.meter(credit.name, "credit", credit.capacity)
        self.keys = None if credit.key is None else keyed(engine, credit.key)
        self.purses: dict[Hashable, Purse] = {}

    def purse(self, message: int) -> Purse:
        """The purse that is for the message's key."""
        key = None if self.keys is None else self.keys[message]
        if key not in self.purses:
            self.purses[key] = Purse(self.tokens, self.clock, self.meter)
        return self.purses[key]
