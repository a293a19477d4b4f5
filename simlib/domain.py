"""The goods: accounting's stock of SKUs is the truth, the shop shows a copy; what messages say and how they can end."""

from __future__ import annotations

STOCK_UPDATE, ORDER, STOCK_QUERY = KINDS = ("stock_update", "order", "stock_query")
"""The kinds of message. A `stock_update` goes from accounting to the shop, an `order` from the shop to accounting;
a `stock_query` is a visitor's question at the shop."""

RESPONSES = ("none", "ok", "refused", "failed", "timed_out")
"""What the caller believes. `timed_out` is indeterminate: the caller does not know; the outcome does."""

OUTCOMES = (
    "compensated",  # its effects were undone
    "applied",  # its effect happened
    "answered",  # a query got its answer
    "superseded",  # a newer version took its place before it was applied
    "rejected",  # the destination refused it
    "dead_lettered",  # parked after its last delivery
    "expired",  # its time to live ran out
    "in_flight",  # something of it is alive at the end
    "lost",  # the caller was told ok, and it is gone
    "failed",  # nothing happened and nothing of it is alive
)
"""What is so, in the order of precedence: the first that fits."""

STOCK, COPY = STORES = ("stock", "copy")
"""The two stores: accounting's stock (the truth, whose every change is a new version) and the shop's copy."""
PAYMENTS, SHIPMENTS, BOOKS = "payments", "shipments", "books"
"""What a process of several services also writes to: the payments, the shipments, accounting's book of sales."""

ISSUED = "issued"
"""The effect of a stock update at accounting, at the moment of its issue: it makes the truth that reads are compared
with, and is not counted as the message's delivery (nor in its `applied`, `effects`, `duplicates`)."""
TAKEN = "taken"
"""The effect of an order at accounting: stock is taken, a new version made."""
COPIED = "copied"
"""The effect of a stock update at the shop: the copy is written (or found newer: superseded)."""
ANNOUNCED = "announced"
"""The effect of an order's change of stock when the shop's copy learns of it, as of an update."""
RESTOCKED = "restocked"
"""The effect of an order that was undone when the shop's copy learns that accounting has its units again."""
PAID, SHIPPED, CONFIRMED = "paid", "shipped", "confirmed"
"""The effects of an order's further steps, where it goes through a process of several services."""

RESERVE, PAY, SHIP, CONFIRM = "reserve", "pay", "ship", "confirm"
DONE_BY = {RESERVE: (TAKEN, STOCK), PAY: (PAID, PAYMENTS), SHIP: (SHIPPED, SHIPMENTS), CONFIRM: (CONFIRMED, BOOKS)}
"""The effect of each step of an order, and the store that it is written to."""
DONE_AT = {RESERVE: "accounting", PAY: "payment", SHIP: "shipping", CONFIRM: "accounting"}
"""The service that does each step."""
GIVEN_UP = 60.0
"""After so long without an answer a service that goes on with an order, while nobody waits for it, takes it for lost, s."""
PROCESSES = {"simple": (RESERVE,), "fulfilment": tuple(DONE_BY)}
"""The steps that an order goes through, by the name of the process."""
WINDOWS, COUNTED = "windows", "counted"
"""The store and the effect of an order that a stream processor counts in a window: its version is the window's count after it. It
tells of the order, and is not its delivery: it counts among the message's effects no more than `issued` does."""
_UNDONE = ".undone"


def undone(effect: str) -> str:
    """The name of what takes an effect back: an effect too, which makes a version of its own where the first did."""
    return f"{effect}{_UNDONE}"


def undoes(effect: str) -> str | None:
    """The effect that this one takes back; None where it is one that is done."""
    return effect.removesuffix(_UNDONE) if effect.endswith(_UNDONE) else None


def counts(effect: str) -> bool:
    """Whether an effect counts among those of its message: a change that is issued, what is counted in a window and what takes
    an effect back do not."""
    return effect not in (ISSUED, COUNTED) and undoes(effect) is None
