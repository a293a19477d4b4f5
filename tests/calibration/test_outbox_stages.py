"""The times of the outbox's twin come from its stamps by the arithmetic that the module states."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simlib.architectures import get
from simlib.architectures.parameters import own_times
from simlib.calibration import stages
from simlib.calibration.stages import SHORTEST, outbox
from simlib.errors import BadInput

KNOWN = {"database_client": 90e-6, "read": 300e-6, "commit": 400e-6}
MESSAGES, POLL = 40, 0.05


def run(insert: np.ndarray, tail: float = POLL) -> SimpleNamespace:
    """A run of updates, each on an idle system, whose rows last so long, and are published so much later."""
    issued = np.arange(MESSAGES) * 0.1
    changed = issued + 2 * KNOWN["database_client"] + KNOWN["read"] + KNOWN["commit"] + insert
    blocks = {"accounting.change": (issued, changed), "accounting.relay": (changed + tail, changed + tail + 0.001)}
    stamps = pd.concat(
        pd.DataFrame({"message": range(MESSAGES), "block": block, "start": start, "end": end, "attempt": 1})
        for block, (start, end) in blocks.items()
    )
    return SimpleNamespace(attempts=pa.Table.from_pandas(stamps), messages=pa.table({"issued": issued}), meta={})


@pytest.mark.parametrize(
    ("insert", "expected"), [(np.linspace(0.0, 200e-6, MESSAGES), 100e-6), (np.full(MESSAGES, -50e-6), SHORTEST)]
)
def test_the_row_of_the_outbox_is_what_a_change_lasts_longer_and_no_less_than_nothing(insert, expected):
    found = outbox.estimates({outbox.TAILED: run(insert, 0.002)}, {}, KNOWN)
    assert set(found) == own_times("outbox", {})
    assert found["insert"].of == pytest.approx(expected) and found["insert"].measured


@pytest.mark.parametrize(("tail", "expected"), [(0.002, 0.002), (-0.0005, SHORTEST)])
def test_the_tail_is_what_a_relay_that_reads_the_log_begins_later_and_no_less_than_nothing(tail, expected):
    insert = np.full(MESSAGES, 100e-6)
    found = outbox.estimates({outbox.TAILED: run(insert, tail)}, {}, KNOWN)
    assert found["tail"].of == pytest.approx(np.full(MESSAGES, expected)) and found["tail"].measured


def test_messages_that_met_no_idle_system_are_too_few_for_a_fit():
    """Each waits for the poll after the next message was issued, so that only the first met nothing."""
    with pytest.raises(
        BadInput, match="1 of 40 messages met an idle system, a fit needs 30: measure them further apart"
    ):
        outbox.estimates({outbox.TAILED: run(np.zeros(MESSAGES), 0.11)}, {}, KNOWN)


def test_the_contrast_tails_the_log_at_low_load():
    (contrast,) = stages.contrasts("outbox", "nats").values()
    assert contrast.how == "idle"
    assert get("outbox").load_parameters().replace(**contrast.changes).publisher == "log_tailing"
