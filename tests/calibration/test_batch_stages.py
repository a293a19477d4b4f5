"""The times of the exchange's twin come from its stamps by the arithmetic that the module states."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simlib.architectures import get
from simlib.architectures.parameters import times
from simlib.calibration.stages import batch_exchange
from simlib.domain import STOCK_UPDATE

MAKING, READING, RECORD, REGISTRATION = 4e-3, 1e-3, 50e-6, 120e-6
KNOWN = {"database_client": 90e-6, "read": 300e-6, "commit": 1e-3}
CHANGE = 2 * 90e-6 + 300e-6 + 1e-3 + REGISTRATION
INTERVAL = 0.5


def run(files: list[int]) -> SimpleNamespace:
    """A run of updates, so many of which go into each file; the last of each is issued while the one before is changed."""
    rows = []
    for nth, size in enumerate(files):
        messages = [sum(files[:nth]) + i for i in range(size)]
        issued = [INTERVAL * nth + 0.01 * (i + 1) for i in range(size - 1)]
        for message, at in zip(messages[:-1], issued, strict=True):
            rows.append((message, "accounting.change", at, at + CHANGE))
        late = issued[-1] + CHANGE / 2
        rows.append((messages[-1], "accounting.change", late, late + 2 * CHANGE))
        made = INTERVAL * (nth + 1)
        opened = made + MAKING + size * RECORD
        for message in messages:
            rows.append((message, "accounting.make", made, opened))
            rows.append((message, "shop.open", opened, opened + READING + size * RECORD))
            rows.append((message, "request", made - INTERVAL, opened))
    stamps = pd.DataFrame(rows, columns=["message", "block", "start", "end"]).assign(attempt=1)
    return SimpleNamespace(attempts=pa.Table.from_pandas(stamps))


def test_each_time_comes_back_from_the_stamps_that_it_makes():
    sizes = [3, 12, 7]
    found = batch_exchange.estimates({STOCK_UPDATE: run(sizes)}, {}, KNOWN)
    assert set(found) == times(get("batch_exchange").parameters) - times(get("rest").parameters)
    assert found["file"].of == pytest.approx((MAKING + READING) / 2), "whatever the sizes of the files"
    assert found["record"].of == pytest.approx(RECORD)
    assert found["registration"].of == pytest.approx(np.full(sum(sizes) - 3, REGISTRATION)), "not of those that waited"
    assert all(estimate.measured for estimate in found.values())
