"""Anomalies and breaches planted in sound histories: the checker names exactly them; histories without any give no alarm.

The sound histories are runs of all architectures under several scenarios and seeds. A mutation changes a few messages,
drawn at random, in one way, and says what must be found in addition: itself, and what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest

import simlib
from simlib import architectures
from simlib.architectures.parameters import make
from simlib.checker import ANOMALIES, LAWS
from simlib.distributions import Constant
from simlib.domain import (
    ANNOUNCED,
    CONFIRMED,
    COPIED,
    COPY,
    COUNTED,
    ISSUED,
    ORDER,
    PAID,
    PAYMENTS,
    STOCK,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
    WINDOWS,
    counts,
    undone,
)
from simlib.history import History, to_table
from simlib.scenario import Crash, Goods, Loss, Mix, Phase, Poison, Poisson, Profile, Scenario, load_scenario

SEEDS = (1, 2)
MESSAGES = 500
AT_MOST = 8
"""Messages that a mutation changes."""
_COPY = {"stale", "unseen_write", "oversold", "undersold"}
WEAK = {name: set() if name in ("rest", "service_mesh") else _COPY for name in architectures.names()}
"""What happens in each architecture though nothing fails: a shop answers from a copy, and before accounting did."""
PLAIN = {"batch_exchange": {"coalesce": False, "transaction": "record", "interval": 0.5}, "streaming": {"window": 2.0}}
"""What lets each change be sent and written for itself, and orders be counted: the mutations take one away and leave the others."""
FIRST = 1e-6
"""A moment, s: shorter than anything takes."""


def scenarios() -> dict[str, Scenario]:
    few = {"goods": Goods(skus=40, units=60), "customers": 20}
    sale = load_scenario("flash_sale")
    phases = (Phase(lasts=1, times=1), Phase(lasts=4, times=3))
    goods = sale.goods.model_copy(update={"skus": 40, "sale_units": 10})
    return {
        "steady": load_scenario("steady").with_rate(60).model_copy(update=few),
        "burst": load_scenario("burst").with_rate(40).model_copy(update=few),
        "flash_sale": sale.model_copy(update={"arrivals": Profile(rate=30, phases=phases), "goods": goods}),
    }


def several_steps() -> Scenario:
    """Orders of several steps, none of which fails."""
    goods = Goods(skus=40, units=60)
    chances = {"step_refused": 0.0, "step_timed_out": 0.0}
    return load_scenario("fulfilment").with_rate(60).model_copy(update={"goods": goods, "customers": 20, **chances})


@pytest.fixture(scope="module")
def sound() -> list[History]:
    """Histories of all architectures under all scenarios, several seeds of each, with all mechanisms on."""
    return [
        simlib.run(name, scenario, default(name), seed, MESSAGES)
        for name in architectures.names()
        for scenario in scenarios().values()
        for seed in SEEDS
    ] + [
        simlib.run("saga/orchestrated", several_steps(), default("saga/orchestrated"), seed, MESSAGES)
        for seed in (*SEEDS, 3)
    ]


def default(name: str, **changes: Any) -> dict[str, Any]:
    """The parameters that are assumed, but for the changes: those of a calibration would change the runs."""
    return make(architectures.get(name).parameters, PLAIN.get(name, {}) | changes).model_dump()


@pytest.mark.parametrize("name", architectures.names())
def test_sound_histories_give_no_alarm(sound, name):
    mine = [history for history in sound if history.meta["architecture"] == name]
    found = set()
    for history in mine:
        verdict = history.check()
        assert verdict.ok, str(verdict)
        found |= {anomaly for anomaly, count in verdict.counts.items() if count}
    assert found <= WEAK[name]


# --- mechanisms off -------------------------------------------------------------------------------------------------


def lossy(link: str, probability: float, direction: str | None = None) -> dict[str, Any]:
    return {"faults": (Loss(link=link, probability=probability, direction=direction),)}


SLOW = {"arrivals": Poisson(rate=5), "handler_work": Constant(0.05)}
POISON = {"faults": (Poison(probability=0.1),)}
STRUCK = {"faults": (Crash(part="shop", point="updates.delivered", probability=0.03, restart=0.1),)}
ONLY_UPDATES = {"mix": Mix(stock_update=1, order=0, stock_query=0), "goods": Goods(skus=400, zipf=0)}
ONLY_ORDERS = {"mix": Mix(stock_update=0, order=1, stock_query=0)}
OFF = [  # what is given up is sent by then where it leaves at once; a queue drops
    # the second announcement of an order that was taken twice: it has the id of the first
    ("rest", {"idempotency": False}, SLOW, {"duplicated", "recovered"},
     {"timeout": 0.03, "retries": 1, "backoff": 0.01, "event_loop": False}),
    ("rest", {"retries": 0}, lossy("accounting-shop", 0.1), {"half_done", "recovered"}, {"timeout": 0.05}),
    ("rest", {"retries": 0}, {"handler_failure": 0.1}, {"half_done"}, {}),
    ("message_queue", {"confirm": False}, ONLY_UPDATES | lossy("accounting-broker", 0.1), {"lost", "half_done"}, {}),
    ("message_queue", {"manual_ack": False}, ONLY_UPDATES | STRUCK, {"lost", "half_done"}, {}),
    ("message_queue", {"park": False}, ONLY_UPDATES | POISON, {"lost", "half_done"}, {}),
    ("message_queue", {}, ONLY_UPDATES | POISON, {"half_done"}, {}),
    ("message_queue", {"confirm_retries": 0}, ONLY_ORDERS | lossy("broker-shop", 0.1, "broker"), {"recovered"},
     {"confirm_timeout": 0.05, "ack_wait": 0.2, "max_deliveries": 20}),
    ("message_queue", {"idempotent_receiver": False}, ONLY_ORDERS | lossy("accounting-broker", 0.1, "accounting"),
     {"duplicated", "half_done"}, {"confirm_timeout": 0.05, "ack_wait": 0.2, "max_deliveries": 20}),
    ("message_queue", {"write_if_newer": False}, {"handler_failure": 0.2}, {"reordered"}, {"max_deliveries": 20}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "off", "world", "found", "patience"), OFF)
def test_without_a_mechanism_there_are_the_anomalies_that_it_prevents(name, off, world, found, patience):
    for seed in SEEDS:
        scenario = load_scenario("steady").with_rate(30).model_copy(update=world)
        verdict = simlib.run(name, scenario, default(name, **off, **patience), seed, MESSAGES).check()
        assert verdict.ok, str(verdict)
        assert {anomaly for anomaly, count in verdict.counts.items() if count} - WEAK[name] == found


# --- mutations ------------------------------------------------------------------------------------------------------


class Copy:
    """A history's tables to be changed, what the checker found in it, and where to draw from."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.m, self.e, self.parts = (
            _plain(getattr(self.history, name).to_pandas()) for name in ("messages", "effects", "parts")
        )
        verdict = self.history.check()
        self.base = {name: set(verdict.offenders(name)) for name in (*ANOMALIES, *LAWS)}
        self.n, self.end = len(self.m), max(self.m["issued"].max(), self.e["time"].max(), self.m["responded"].max())
        e = self.e
        self.stock, self.copies = e[e["store"] == STOCK], e[e["store"] == COPY]
        start = self.history.meta["stock"]
        initial = {sku: start["units"] for sku in self.m["sku"]} | {0: start["sale"]}
        self.left = {(sku, 0): units for sku, units in initial.items()}
        self.moments = {sku: mine["time"].to_numpy() for sku, mine in self.stock.groupby("sku")}
        for sku, mine in self.stock.groupby("sku"):
            self.left |= {
                (sku, v): initial[sku] + u for v, u in zip(mine["version"], mine["change"].cumsum(), strict=True)
            }

    def fresh(self, seed: int) -> Copy:
        """One that may be changed."""
        one = copy(self)
        one.m, one.e, one.parts = self.m.copy(), self.e.copy(), self.parts.copy()
        one.random, one.expected = np.random.default_rng(seed), {}
        return one

    def draw(self, ids: Any) -> list[int]:
        """Some of these, ascending."""
        ids = np.unique(np.asarray(ids, int))
        most = min(AT_MOST, ids.size)
        return (
            sorted(self.random.choice(ids, self.random.integers(1, most + 1), replace=False).tolist()) if most else []
        )

    def expect(self, ids: Any, *names: str) -> None:
        """The checker must name these under each of the names."""
        for name in names:
            self.expected[name] = self.expected.get(name, set()) | set(ids)

    def told(self, *kinds: str, outcome: str = "applied", response: str = "ok") -> pd.Series:
        """Which messages are of these kinds, and were told so, and ended so."""
        m = self.m
        return m["kind"].isin(kinds) & (m["response"] == response) & (m["outcome"] == outcome)

    def neutral(self) -> pd.Series:
        """Which messages are queries, answered, in which nothing was found."""
        return self.told(STOCK_QUERY, outcome="answered") & ~self.m.index.isin(set().union(*self.base.values()))

    def rows(self, ids: Any, *effects: str) -> pd.Index:
        """The rows of these effects of these messages."""
        return self.e.index[self.e["message"].isin(ids) & self.e["effect"].isin(effects)]

    def newest(self, sku: int, time: float) -> int:
        """The newest version that accounting had made before a time."""
        return int(np.searchsorted(self.moments.get(sku, []), time))

    def copied(self, *effects: str, newest: bool) -> pd.Series:
        """Messages that wrote to the copy, told ok and applied: the newest of a SKU, each right after the version before
        it; or those after which a newer one was written."""
        ordered = self.copies.sort_values(["sku", "version"])
        groups = ordered.groupby("sku")["version"]
        before = groups.shift(fill_value=0)
        last = ordered["version"] == groups.transform("max")
        chosen = last & (before == ordered["version"] - 1) if newest else ~last
        messages = ordered.loc[chosen & ordered["effect"].isin(effects), "message"]
        return messages[messages.isin(self.m.index[self.told(STOCK_UPDATE, ORDER)])]

    def last_orders(self, spare: int = 0) -> list[int]:
        """Orders, told ok, that took the last units that were taken of their SKU, which nobody asked for since, nobody
        was refused, and of which never fewer than `spare` were left."""
        m, chosen = self.m, []
        for sku, mine in self.stock.groupby("sku"):
            last = mine.iloc[-1]
            i = last["message"]
            about = m[m["sku"] == sku]
            asked = (about["kind"] == STOCK_QUERY) & (about["responded"] >= m.at[i, "issued"])
            refused = (about["kind"] == ORDER) & (about["outcome"] != "applied")
            enough = min(self.left[sku, version] for version in mine["version"]) >= spare
            if (
                last["effect"] == TAKEN
                and m.at[i, "response"] == "ok"
                and not asked.any()
                and not refused.any()
                and enough
            ):
                chosen.append(i)
        return chosen

    def vanish(self, ids: list[int], outcome: str, response: str = "ok") -> None:
        """These messages had no effect, and ended so."""
        self.e = self.e.drop(self.rows(ids, *filter(counts, set(self.e["effect"]))))
        self.m.loc[ids, ["outcome", "response", "effects", "applied"]] = [outcome, response, 0, np.nan]
        self.m.loc[[i for i in ids if self.m.at[i, "kind"] == ORDER], "version"] = -1

    def append(self, rows: list[dict[str, Any]]) -> None:
        """More effects, at the end of the run."""
        end = {"time": self.end, "delivery": 1, "change": 0}
        self.e = pd.concat([self.e, pd.DataFrame([end | row for row in rows])], ignore_index=True)

    def move(self, rows: Any, times: Any) -> None:
        """These effects happened at other times."""
        self.e.loc[rows, "time"] = times
        self.e = self.e.sort_values("time", kind="stable")
        counted = self.e[self.e["effect"].map(counts)]
        self.m["applied"] = counted.groupby("message")["time"].min().reindex(self.m.index)

    def made(self) -> History:
        tables = {"messages": self.m, "effects": self.e, "parts": self.parts}
        changed = {name: to_table(name, {c: table[c].to_numpy() for c in table}) for name, table in tables.items()}
        return History(faults=self.history.faults, attempts=self.history.attempts, meta=self.history.meta, **changed)


@pytest.fixture(scope="module")
def copies(sound: list[History]) -> list[Copy]:
    return [Copy(history) for history in sound]


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    words = table.select_dtypes(["category", "string"]).columns
    return table.astype(dict.fromkeys(words, object))


Mutation = Callable[[Copy], None]
MUTATIONS: list[tuple[str, Mutation]] = []


def plants(name: str) -> Callable[[Mutation], Mutation]:
    """Notes a mutation that plants an anomaly or breaks a law."""

    def note(mutation: Mutation) -> Mutation:
        MUTATIONS.append((name, mutation))
        return mutation

    return note


@plants("lost")
def an_update_vanishes_before_a_newer_one(c):
    ids = c.draw(c.copied(COPIED, newest=False))
    c.vanish(ids, "lost")
    c.expect(ids, "lost")


@plants("lost")
def the_newest_update_vanishes_and_the_copy_stays_behind(c):
    ids = c.draw(c.copied(COPIED, newest=True))
    c.vanish(ids, "lost")
    c.expect(ids, "lost", "half_done")


@plants("lost")
def a_promised_order_vanishes(c):
    ids = c.draw(c.last_orders())
    c.vanish(ids, "lost")
    c.expect(ids, "lost")


@plants("duplicated")
def the_copy_is_written_again(c):
    ids = c.draw(c.copies["message"])
    again = c.rows(ids, COPIED, ANNOUNCED)
    c.e = pd.concat([c.e, c.e.loc[again]]).sort_values("time", kind="stable")
    c.m.loc[ids, ["effects", "duplicates"]] += 1
    c.expect(ids, "duplicated")


@plants("duplicated")
def an_order_takes_again_what_is_never_announced(c):
    ids = c.draw(c.last_orders(spare=1))
    again = c.e.loc[c.rows(ids, TAKEN)].to_dict("records")
    c.append([{**row, "version": row["version"] + 1, "time": c.end} for row in again])
    c.m.loc[ids, ["effects", "duplicates"]] += 1
    c.expect(ids, "duplicated", "half_done")


def _not_asked_after(c):
    """Messages applied and told ok, but for orders of customers who did not see theirs."""
    unseen = c.m.loc[sorted(c.base["unseen_write"]), "session"]
    return c.m.index[c.told(STOCK_UPDATE, ORDER) & ~((c.m["kind"] == ORDER) & c.m["session"].isin(unseen))]


@plants("recovered")
def a_caller_gives_up(c):
    ids = c.draw(_not_asked_after(c))
    c.m.loc[ids, "response"] = "timed_out"
    c.expect(ids, "recovered")


@plants("recovered")
def a_caller_never_hears(c):
    ids = c.draw(_not_asked_after(c))
    c.m.loc[ids, ["response", "responded"]] = ["none", np.nan]
    c.expect(ids, "recovered")


@plants("denied")
def a_caller_is_told_that_it_failed(c):
    ids = c.draw(_not_asked_after(c))
    c.m.loc[ids, "response"] = "failed"
    c.expect(ids, "denied")


@plants("denied")
def a_caller_is_refused_what_happens(c):
    ids = c.draw(c.last_orders(spare=1))
    c.m.loc[ids, "response"] = "refused"
    c.expect(ids, "denied", "undersold")


def _at_the_copy(c):
    """The newest version at the copy, by SKU."""
    return c.copies.groupby("sku")["version"].max()


@plants("unexpected")
def somebody_unknown_writes_to_the_copy(c):
    known = _at_the_copy(c)
    skus = c.draw(known.index)
    ghosts = range(c.n + 5, c.n + 5 + len(skus))
    written = zip(ghosts, skus, strict=True)
    c.append([{"message": i, "effect": COPIED, "store": COPY, "sku": s, "version": known[s]} for i, s in written])
    c.expect(ghosts, "unexpected")


@plants("unexpected")
def a_query_writes_to_the_copy(c):
    known = _at_the_copy(c)
    ids = c.draw(c.m.index[c.neutral() & c.m["sku"].isin(known.index)])
    skus = c.m.loc[ids, "sku"]
    written = zip(ids, skus, strict=True)
    c.append([{"message": i, "effect": COPIED, "store": COPY, "sku": s, "version": known[s]} for i, s in written])
    c.m.loc[ids, ["outcome", "effects", "applied"]] = ["applied", 1, c.end]
    c.expect(ids, "unexpected")


@plants("unexpected")
def an_order_takes_more_than_it_asks_for(c):
    ids = c.draw(c.last_orders(spare=1))
    c.e.loc[c.rows(ids, TAKEN), "change"] -= 1
    c.expect(ids, "unexpected")


@plants("unexpected")
def an_update_is_written_to_another_sku(c):
    known = _at_the_copy(c).reset_index().groupby("version")["sku"].agg(list).to_dict()
    older = c.copies[c.copies["message"].isin(c.copied(COPIED, newest=False))]
    elsewhere = [row for row in older.itertuples() if any(sku != row.sku for sku in known.get(row.version, ()))]
    ids = c.draw([row.message for row in elsewhere])
    for row in elsewhere:
        if row.message in ids:
            c.e.loc[row.Index, "sku"] = next(sku for sku in known[row.version] if sku != row.sku)
    c.move(c.rows(ids, COPIED), c.end)
    c.expect(ids, "unexpected")


@plants("half_done")
def the_newest_update_is_parked(c):
    ids = c.draw(c.copied(COPIED, newest=True))
    c.vanish(ids, "dead_lettered")
    c.expect(ids, "half_done")


@plants("half_done")
def an_order_is_never_announced(c):
    ids = c.draw(c.copied(ANNOUNCED, newest=True))
    c.e = c.e.drop(c.rows(ids, ANNOUNCED))
    c.m.loc[ids, "effects"] -= 1
    c.expect(ids, "half_done")


@plants("half_finished")
def an_order_s_last_step_is_never_done(c):
    ids = c.draw(c.e.loc[c.e["effect"] == CONFIRMED, "message"])
    c.e = c.e.drop(c.rows(ids, CONFIRMED))
    c.m.loc[ids, "effects"] -= 1
    c.expect(ids, "half_finished")


@plants("miscounted")
def an_order_is_counted_again(c):
    ids = c.draw(c.e.loc[c.e["effect"] == COUNTED, "message"])
    c.append([{"message": i, "effect": COUNTED, "store": WINDOWS, "sku": c.m.at[i, "sku"], "version": 99} for i in ids])
    c.expect(ids, "miscounted")


@plants("miscounted")
def an_order_is_never_counted(c):
    ids = c.draw(c.e.loc[c.e["effect"] == COUNTED, "message"])
    c.e = c.e.drop(c.rows(ids, COUNTED))
    c.expect(ids, "miscounted")


@plants("unexpected")
def an_order_s_payment_is_taken_back_twice(c):
    ids = c.draw(c.e.loc[c.e["effect"] == PAID, "message"])
    again = [
        {"message": i, "effect": undone(PAID), "store": PAYMENTS, "sku": c.m.at[i, "sku"], "version": 1} for i in ids
    ]
    c.append(again * 2)
    c.expect(ids, "unexpected", "half_finished")


@plants("reordered")
def an_older_version_is_written_last(c):
    ids = c.draw(c.copied(COPIED, ANNOUNCED, newest=False))
    c.move(c.rows(ids, COPIED, ANNOUNCED), c.end + FIRST)
    c.expect(ids, "reordered")


def _sees(c, i, version):
    """The query sees another version, and the units of it."""
    c.m.at[i, "version"] = version
    c.m.at[i, "answer"] = c.left[c.m.at[i, "sku"], version]


@plants("stale")
def a_query_sees_an_older_version(c):
    own = set(c.m.loc[c.m["kind"] == ORDER, ["session", "sku"]].itertuples(index=False, name=None))
    asked = c.m[c.neutral()]
    newest = {i: c.newest(row.sku, row.issued) for i, row in asked.iterrows() if (row.session, row.sku) not in own}
    ids = c.draw([i for i, version in newest.items() if version > 0])
    for i in ids:
        _sees(c, i, int(c.random.integers(newest[i])))
    c.expect(ids, "stale")


@plants("unseen_write")
def a_customer_sees_what_there_was_before_the_own_order(c):
    seen, last, neutral = {}, {}, set(c.m.index[c.neutral()])
    for row in c.m.itertuples():
        own = last.get(row.session)
        if row.kind == ORDER:
            last[row.session] = row
        elif row.message in neutral and own and (own.sku, own.response) == (row.sku, "ok"):
            if own.version > 0 and own.responded <= row.issued:
                seen[row.message] = own.version - 1
    ids = c.draw(list(seen))
    for i in ids:
        _sees(c, i, seen[i])
    c.expect(ids, "unseen_write")
    c.expect([i for i in ids if c.newest(c.m.at[i, "sku"], c.m.at[i, "issued"]) > seen[i]], "stale")


@plants("oversold")
def a_rejected_order_is_promised(c):
    refused = c.told(ORDER, response="refused", outcome="rejected") & ~c.m.index.isin(c.base["undersold"])
    ids = c.draw(c.m.index[refused])
    c.m.loc[ids, "response"] = "ok"
    c.expect(ids, "oversold", *(["miscounted"] if COUNTED in set(c.e["effect"]) else []))


@plants("undersold")
def an_order_is_refused_though_there_is_enough(c):
    ids = c.draw(c.last_orders(spare=1))
    c.vanish(ids, "rejected", "refused")
    c.expect(ids, "undersold")


@plants("ids")
def a_message_has_a_number_too_high(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m.loc[ids, "message"] += 10 * c.n
    c.expect([i + 10 * c.n for i in ids], "ids")


@plants("ids")
def a_message_is_there_twice(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m = pd.concat([c.m, c.m.loc[ids]])
    c.expect(ids, "ids")
    c.expect(c.m["message"][c.m["message"] >= len(c.m)], "ids")


@plants("outcome")
def an_outcome_is_no_known_word(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "outcome"] = "perished"
    c.expect(ids, "outcome")


@plants("outcome")
def a_response_is_no_known_word(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "response"] = "perhaps"
    c.expect(ids, "outcome")


@plants("outcome")
def what_happened_is_called_superseded(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "outcome"] = "superseded"
    c.expect(ids, "outcome")


@plants("outcome")
def a_query_is_called_applied(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m.loc[ids, "outcome"] = "applied"
    c.expect(ids, "outcome")


@plants("outcome")
def a_query_that_was_answered_ok_is_called_failed(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m.loc[ids, "outcome"] = "failed"
    c.expect(ids, "outcome")


@plants("outcome")
def a_query_is_called_answered_without_an_answer(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m.loc[ids, "response"] = "failed"
    c.expect(ids, "outcome")


@plants("outcome")
def an_update_is_called_applied_without_an_effect(c):
    ids = c.draw(c.copied(COPIED, newest=False))
    c.vanish(ids, "applied")
    c.expect(ids, "outcome", "lost")


@plants("counts")
def a_message_has_fewer_effects_than_it_says(c):
    ids = c.draw(c.m.index)
    c.m.loc[ids, "effects"] += 1
    c.expect(ids, "counts")


@plants("counts")
def a_message_has_no_duplicate_as_it_says(c):
    ids = c.draw(c.m.index)
    c.m.loc[ids, "duplicates"] += 1
    c.expect(ids, "counts")


@plants("applied")
def a_message_is_applied_before_its_effect(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE, ORDER)])
    c.m.loc[ids, "applied"] -= FIRST
    c.expect(ids, "applied")


@plants("applied")
def an_effect_has_no_time_of_application(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE, ORDER)])
    c.m.loc[ids, "applied"] = np.nan
    c.expect(ids, "applied")


@plants("response_time")
def a_message_is_answered_before_its_issue(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "responded"] = c.m.loc[ids, "issued"] - FIRST
    c.expect(ids, "response_time")


@plants("response_time")
def a_message_is_answered_at_no_time(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "responded"] = np.nan
    c.expect(ids, "response_time")


@plants("effect_time")
def an_effect_comes_before_the_issue(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    changed = c.e.loc[c.rows(ids, ISSUED)].set_index("message")["time"].loc[ids]
    c.m.loc[ids, "issued"] = changed + FIRST
    c.m.loc[ids, "responded"] = np.maximum(c.m.loc[ids, "responded"], c.m.loc[ids, "issued"])
    c.expect(ids, "effect_time")


@plants("effect_order")
def two_effects_are_in_the_wrong_order(c):
    time = c.e["time"].to_numpy()
    first = c.draw(np.flatnonzero(np.diff(time) > 0) // 2 * 2)
    first = [i for i in first if i + 1 < len(time) and time[i] < time[i + 1]]
    order = np.arange(len(time))
    for i in first:
        order[[i, i + 1]] = i + 1, i
    c.expect(c.e["message"].iloc[first], "effect_order")
    c.e = c.e.iloc[order]


@plants("versions")
def a_version_is_left_out(c):
    ids = c.draw([i for i in c.last_orders() if len(c.rows([i], ANNOUNCED))])
    c.e.loc[c.rows(ids, TAKEN, ANNOUNCED), "version"] += 3
    c.m.loc[ids, "version"] += 3
    c.expect(ids, "versions")


@plants("versions")
def a_message_claims_a_version_that_it_did_not_make(c):
    ids = c.draw(c.m.index[c.told(STOCK_UPDATE)])
    c.m.loc[ids, "version"] += 1
    c.expect(ids, "versions")


@plants("units")
def an_order_takes_more_than_there_is(c):
    ids = c.draw(c.last_orders())
    for i in ids:
        (row,) = c.rows([i], TAKEN)
        c.m.at[i, "quantity"] += c.left[c.e.at[row, "sku"], c.e.at[row, "version"]] + 1
        c.e.at[row, "change"] = -c.m.at[i, "quantity"]
    c.expect(ids, "units")


@plants("copied")
def the_copy_gets_a_version_that_nobody_made(c):
    newest = c.copies.loc[c.copies.groupby("sku")["version"].idxmax()]
    ids = c.draw(newest["message"])
    c.e.loc[c.rows(ids, COPIED, ANNOUNCED), "version"] += 100
    c.expect(ids, "copied")


@plants("copied")
def the_copy_gets_a_version_before_it_is_made(c):
    made = c.stock.set_index(["sku", "version"])["time"]
    early = {}
    for _, mine in c.copies.groupby("sku"):
        for row in mine.itertuples():
            time = made[row.sku, row.version] - FIRST
            before = mine[mine["version"] < row.version]
            if time > c.m.at[row.message, "issued"] and (before["time"] < time).all():
                early[row.message] = time
    ids = c.draw(list(early))
    rows = c.rows(ids, COPIED, ANNOUNCED)
    c.move(rows, [early[i] for i in c.e.loc[rows, "message"]])
    c.expect(ids, "copied")


@plants("read")
def a_query_sees_the_future(c):
    future = {}
    for i, row in c.m[c.neutral()].iterrows():
        later = c.stock[(c.stock["sku"] == row.sku) & (c.stock["time"] > row.responded)]
        if len(later):
            future[i] = int(later["version"].iloc[0])
    ids = c.draw(list(future))
    for i in ids:
        _sees(c, i, future[i])
    c.expect(ids, "read")


@plants("read")
def a_query_sees_what_was_never_there(c):
    ids = c.draw(c.m.index[c.neutral()])
    c.m.loc[ids, "version"] += 1000
    c.expect(ids, "read")


@plants("read")
def a_query_sees_other_units_than_there_are(c):
    ids = c.draw(c.m.index[c.neutral() & (c.m["read_from"] == STOCK)])
    c.m.loc[ids, "answer"] += 1
    c.expect(ids, "read")


@plants("parts")
def a_pool_is_busier_than_it_can_be(c):
    pools = c.parts.index[c.parts["kind"] == "pool"]
    bins = c.draw(pools)
    span = c.parts.loc[bins, "end"] - c.parts.loc[bins, "start"]
    c.parts.loc[bins, "busy"] = c.parts.loc[bins, "capacity"] * span * 1.001
    c.expect(c.parts.loc[bins, "name"], "parts")


@plants("parts")
def fewer_than_nobody_wait(c):
    bins = c.draw(c.parts.index)
    c.parts.loc[bins, "waiting"] = -FIRST
    c.expect(c.parts.loc[bins, "name"], "parts")


@plants("parts")
def more_wait_than_the_most_that_waited(c):
    bins = c.draw(c.parts.index)
    span = c.parts.loc[bins, "end"] - c.parts.loc[bins, "start"]
    c.parts.loc[bins, "waiting"] = (c.parts.loc[bins, "waiting_max"] + 1) * span
    c.expect(c.parts.loc[bins, "name"], "parts")


def test_there_is_a_mutation_for_every_anomaly_and_every_law():
    assert {name for name, _ in MUTATIONS} == {*ANOMALIES, *LAWS}


@pytest.mark.parametrize(
    ("name", "mutation"), [pytest.param(*one, id=f"{one[0]}-{one[1].__name__}") for one in MUTATIONS]
)
def test_what_is_planted_is_found_and_nothing_else(copies, name, mutation):
    planted = 0
    for seed, original in enumerate(copies):
        changed = original.fresh(seed)
        mutation(changed)
        planted += len(changed.expected.get(name, ()))
        verdict = changed.made().check()
        for each, base in changed.base.items():
            found = set(verdict.offenders(each))
            assert found == base | changed.expected.get(each, set()), f"{each} in history {seed}"
    assert planted >= 5, "what is never planted is never missed"
