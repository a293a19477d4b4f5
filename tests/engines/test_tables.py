"""Tables: which cell a message is about, in which replica, who waits for it, and what is compared with it."""

from __future__ import annotations

import pytest

import simlib
from simlib.errors import BadInput
from simlib.flow import (
    LEVEL,
    SKU,
    VERSION,
    Affine,
    Flow,
    Step,
    Table,
    apply,
    branch,
    delay,
    respond,
    timeout,
)
from simlib.scenario import Crash

ORDER = ["write", "read"]


def kept(**options) -> tuple[Flow, Table]:
    """Writers that add to a cell, and a table."""
    flow = Flow("kept")
    host = flow.part("host")
    table = host.table("store", **options)
    flow.source("write", at=host, steps=[table.add(), apply("written")])
    return flow, table


def reads(flow: Flow, *steps: Step) -> Flow:
    """Readers that do the steps, and are applied with the version in their register."""
    flow.source("read", at=flow.parts["host"], steps=[*steps, apply("seen"), respond("ok")])
    return flow


def seen(history) -> list[int]:
    """The versions that the readers saw, in the order of their reading."""
    effects = history.effects.to_pandas()
    return effects.loc[effects["effect"] == "seen", "version"].tolist()


@pytest.mark.parametrize(
    ("key", "versions"),
    [("sku", [2, 0, 2, 0]), ("session", [2, 2, 1, 1]), (("session", "sku"), [1, 0, 1, 0]), (None, [3, 3, 3, 3])],
)
def test_cells_are_those_of_a_sku_a_session_both_or_one_for_all(run_at, key, versions) -> None:
    flow, table = kept(key=key)
    kinds = ["write"] * 3 + ["read"] * 4
    sessions, skus = [1, 1, 2, 1, 1, 2, 2], [0, 1, 0, 0, 2, 0, 2]
    made = run_at(reads(flow, table.read()), range(7), kinds, skus=skus, sessions=sessions)
    assert seen(made) == versions


@pytest.mark.parametrize(("key", "versions"), [("sku", [2, 0, 1, 0]), (None, [2, 2, 2, 2])])
def test_cells_of_a_window_are_those_of_messages_issued_in_it(run_at, key, versions) -> None:
    """Three are written before 10 s, two after; who reads, however late, reads in the window of its own issue."""
    flow, table = kept(key=key, window=10.0)
    kinds, skus = ["write"] * 2 + ["read"] * 2 + ["write"] * 2 + ["read"] * 2, [0, 0, 0, 2, 0, 1, 0, 2]
    made = run_at(reads(flow, delay(5.0), table.read()), [0, 3, 8, 9.9, 10, 11, 12, 19.9], kinds, skus=skus)
    assert seen(made) == versions


def test_messages_of_a_population_are_in_no_window() -> None:
    flow = Flow("customers")
    flow.source("k", population=2, think=1, steps=[flow.part("host").table("t", window=1.0).add(), respond("ok")])
    with pytest.raises(BadInput, match="in no window: let messages arrive"):
        simlib.simulate(flow, 5)


def test_replicas_have_cells_of_their_own_and_a_session_sticks_to_one(run_at) -> None:
    flow, table = kept(replicas=3)
    flow.source("copy", at=table.at, steps=[table.read(), table.write(2)])
    reads(flow, table.read("session"))
    kinds = ["write", "copy", "write", *["read"] * 4]
    made = run_at(flow, range(7), kinds, sessions=[-1, -1, -1, 0, 1, 2, 5])
    assert seen(made) == [2, 0, 1, 1]


def test_a_random_replica_is_any_and_the_same_wherever_a_row_looks_from_one_place(run_at) -> None:
    flow, table = kept(replicas=4)
    aside = table.at.table("aside", key="message")
    flow.source("copy", at=table.at, steps=[table.read(), table.write(3)])
    again = branch(VERSION.equals(aside.version), [apply("same")], otherwise=[apply("other")])
    reads(flow, table.read("random"), aside.write(), table.wait_until(VERSION, "random"), table.read("random"), again)
    n = 400
    effects = run_at(flow, range(n + 2), ["write", "copy", *["read"] * n]).effects.to_pandas()
    assert "other" not in set(effects["effect"])
    assert (effects.loc[effects["effect"] == "seen", "version"] == 1).mean() == pytest.approx(1 / 2, abs=0.1)


def test_who_waits_for_a_cell_goes_on_when_it_is_new_enough_in_the_order_of_waiting(run_at, effects_of) -> None:
    flow, table = kept()
    reads(flow, table.wait_until(2))
    made = run_at(flow, [0, 1, 2, 3, 4], ["read", "read", "write", "write", "read"])
    assert effects_of(made) == [(2, "written", 2), (3, "written", 3), (0, "seen", 3), (1, "seen", 3), (4, "seen", 4)]


def test_who_waits_for_a_cell_is_not_woken_by_another(run_at, effects_of) -> None:
    flow, table = kept()
    reads(flow, table.wait_until(1))
    made = run_at(flow, [0, 1, 2], ["read", "write", "write"], skus=[0, 1, 0])
    assert effects_of(made)[-1] == (0, "seen", 2)


def test_a_wait_for_a_cell_is_given_up_when_its_time_is_up(run_at, effects_of) -> None:
    flow, table = kept()
    reads(flow, timeout("1 s", [table.wait_until(1), apply("new")], otherwise=[apply("old")]))
    made = run_at(flow, [0, 0.5, 3, 3.5, 4], ["read", "read", "read", "write", "read"], skus=[0, 1, 0, 0, 1])
    told = [(message, effect, time) for message, effect, time in effects_of(made) if effect in ("new", "old")]
    assert told == [(0, "old", 1), (1, "old", 1.5), (2, "new", 3.5), (4, "old", 5)]


def test_what_comes_at_the_very_end_of_the_time_is_in_time(run_at, effects_of) -> None:
    flow, table = kept()
    flow.source("late", at=table.at, steps=[delay("1 s"), table.add()])
    reads(flow, timeout("1 s", [table.wait_until(1), apply("new")], otherwise=[apply("old")]))
    made = run_at(flow, [0, 0], ["late", "read"])
    assert (1, "new", 1) in effects_of(made)


def test_a_cell_that_goes_back_lets_nobody_through_who_has_not_looked_yet(run_at, effects_of) -> None:
    flow, table = kept(replicas=2)
    flow.source("undo", at=table.at, steps=[delay("1 s"), table.add(), table.read(1), table.write(0)])
    made = run_at(reads(flow, table.wait_until(1)), [0, 0], ["read", "undo"], horizon=5)
    assert effects_of(made) == []


def test_a_crash_that_clears_a_table_ends_who_waits_at_its_part(run_at) -> None:
    flow, table = kept(durable=False)
    reads(flow, table.wait_until(2))
    crash = Crash(part="host", at=(2.0,), restart=0.5)
    made = run_at(flow, [0, 1, 3, 4, 5], ["write", "read", "write", "read", "write"], faults=[crash])
    assert seen(made) == [-1], "the first reader is dead, the second waits for two writes after the crash"
    assert made.messages["outcome"].to_pylist()[1] == "failed"


def test_conditions_compare_a_register_or_a_cell_with_another_and_with_a_multiple(run_at, effects_of) -> None:
    flow, table = kept()
    snapshots = table.at.table("snapshots")
    due = [apply("snapshot"), snapshots.write()]
    flow.source("event", at=table.at, steps=[table.add(), branch(VERSION.at_least(snapshots.version + 3), due)])
    made = run_at(flow, range(10), ["event"] * 10)
    assert [message for message, effect, _ in effects_of(made) if effect == "snapshot"] == [2, 5, 8]
    flow, table = kept()
    flow.source("odd", at=table.at, steps=[table.read(), branch(LEVEL.equals(2 * SKU + 1), [apply("yes")])])
    made = run_at(
        flow, [0, 1, 2, 3, 4], ["write", "write", "odd", "odd", "odd"], skus=[0, 1, 0, 1, 2], quantities=[1, 2, 1, 1, 1]
    )
    assert [message for message, effect, _ in effects_of(made) if effect == "yes"] == [2]


def test_a_time_grows_with_a_cell(run_at, effects_of) -> None:
    """Rehydration: as long as there are events since the snapshot."""
    flow, table = kept()
    reads(flow, delay(Affine("1 s", "10 ms", of=table.version)))
    made = run_at(flow, [0, 0, 0, 1], ["write", "write", "write", "read"])
    assert effects_of(made)[-1] == (3, "seen", pytest.approx(2.03))
