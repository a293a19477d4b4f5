"""Parts killed at seeded times, live, and what the model predicts of it: replayed with the times at which they really fell
and answered again, it has the same kinds of anomaly, and as many of each as a 95 % prediction interval says.

The replications meet the same arrivals as the live run, each with its own times of service, and with faults that begin and end
at times of its own, between those within which the supervisor saw the part end, and stand again. Where the intervals
are right, one count in twenty at most lies outside: of all counts of a run there may be as many as chance allows (99.9 %).
A run is judged by its counts where it would be valid as a measurement: a busy machine keeps more in hand when the kill comes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from simlib import api, draws
from simlib.brokers import nats, rabbitmq
from simlib.calibration.validate import Effort
from simlib.checker import ANOMALIES
from simlib.engines import ENGINES, compiled
from simlib.engines.live import Bench
from simlib.errors import BadInput
from simlib.history import History
from simlib.scenario import Crash, Goods, Scenario, load_scenario
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.alone]
MESSAGES = 200
REPLICATIONS = 199
"""Of as many values, the next one lies from the 5th to the 195th with a chance of 95 %."""
QUEUE = {"ack_wait": 1.0}
BLIND = {"idempotent_receiver": False, "write_if_newer": False}
TWINS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "rest": ("rest", {"idempotency": False}, ("shop", "accounting")),
    "queue": ("message_queue", QUEUE, ("shop", "accounting", "broker")),
    "queue-blind": ("message_queue", QUEUE | BLIND, ("shop", "accounting", "broker")),
    "queue-automatic": ("message_queue", {"manual_ack": False}, ("shop",)),
    "rabbitmq-blind": ("message_queue", {"broker": "rabbitmq"} | BLIND, ("shop", "broker")),
}
"""An architecture with its parameters, and the parts of it that are killed."""
SEEDS = (1, 2)


def struck(part: str, seed: int) -> Scenario:
    """The scenario `steady` on few goods, in which a part is killed at a time of the seed."""
    crash = Crash(part=part, at=(random.Random(seed).uniform(1.0, 3.0),), restart=0.5)
    return load_scenario("steady").with_rate(40.0).model_copy(update={"goods": Goods(skus=50), "faults": (crash,)})


def counts(history: History) -> dict[str, int]:
    """The checker's anomalies, what callers were told, and what came again or was parked."""
    verdict = history.check()
    assert verdict.ok, str(verdict)
    messages = history.messages.to_pandas()
    told = messages["response"].value_counts()
    again = (messages["kind"] == "stock_update") & (messages["deliveries"] > 1)
    return verdict.counts | {
        "refused": int(told.get("refused", 0)),
        "failed": int(told.get("failed", 0)),
        "unheard": int(told.get("timed_out", 0) + told.get("none", 0)),
        "parked": int((messages["outcome"] == "dead_lettered").sum()),
        "redelivered": int(again.sum()),
    }


def predicted(case: api.Case, live: History, seed: int) -> list[dict[str, int]]:
    """The counts of the replications that meet the arrivals of the seed and the faults that the live run met."""

    def replication(r: int) -> History:
        chance = random.Random(draws.replication_seed(seed, r))
        faults = []
        for struck in live.meta["struck"]:
            fell, stood = chance.uniform(*struck["fell"]), chance.uniform(*struck["stood"])
            faults.append(Crash(part=struck["part"], at=(fell,), restart=stood - fell))
        scenario = case.scenario.model_copy(update={"faults": tuple(faults)})
        again = api.Case(case.architecture, scenario, case.parameters, MESSAGES)
        return again.run(draws.replication_seed(seed, r), arrivals)

    arrivals = case.scenario.draw(seed, MESSAGES)
    histories = [replication(1)]
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # one is compared with SimPy's engine, as everywhere; 199 would take long
        patch.setitem(ENGINES, "compiled", compiled.run)
        histories += [replication(r) for r in range(2, REPLICATIONS + 1)]
    return [counts(history) for history in histories]


def compared(ready: Bench, name: str, parameters: dict[str, Any], part: str, seed: int) -> pd.DataFrame:
    """A row each count of a live run: the live one, and the interval that was predicted."""
    case = api.case(name, struck(part, seed), parameters, MESSAGES)
    live = ready.run(case.scenario, seed, MESSAGES, case.meta)
    (fault,) = live.faults.to_pylist()
    (planned,) = case.scenario.faults[0].at
    assert fault["part"] == part
    assert planned - 0.1 < fault["start"] and fault["start"] + 0.5 <= fault["end"]
    assert live.meta["quiet"]
    replications = pd.DataFrame(predicted(case, live, seed))
    ordered = np.sort(replications.to_numpy(), axis=0)
    table = pd.DataFrame(
        {"live": counts(live), "low": dict(zip(replications, ordered[4], strict=True)),
         "high": dict(zip(replications, ordered[194], strict=True)),
         "most": dict(zip(replications, ordered[-1], strict=True))}
    )  # fmt: skip
    table["inside"] = (table["low"] <= table["live"]) & (table["live"] <= table["high"])
    shown = table[(table[["live", "high"]] > 0).any(axis=1)]
    table["judged"] = (
        live.meta["send_lag_p99"] <= Effort().latest
        and live.meta["foreign_cpu"] + live.meta["steal"] <= Effort().busiest
    )
    busy = {name: round(live.meta[name], 4) for name in ("foreign_cpu", "steal", "send_lag_p99")}
    print(
        f"\n{name} {parameters}, {part} down from {fault['start']:.3f} to {fault['end']:.3f} s, seed {seed}, {busy}\n{shown}"
    )
    return table


def agree(tables: list[pd.DataFrame]) -> None:
    """Every kind of anomaly seen live was seen in a replication; no more counts are outside than chance allows."""
    table = pd.concat(tables)
    if not table["judged"].any():
        pytest.skip("other processes took more of the machine than a measurement allows")
    table = table[table["judged"] & (table[["live", "most"]] > 0).any(axis=1)]
    kinds = table[table.index.isin(ANOMALIES)].groupby(level=0)[["live", "most"]].max()
    unforeseen = kinds[kinds["most"] == 0]
    assert unforeseen.empty, str(unforeseen)
    outside = table[~table["inside"]]
    assert len(outside) <= binom.ppf(0.999, len(table), 0.05), str(outside)


def broker_of(name: str, parameters: dict[str, Any]) -> str | None:
    return None if name == "rest" else parameters.get("broker", "nats")


@pytest.fixture
def strikes(bench) -> Callable[..., list[pd.DataFrame]]:
    """Kills parts of a twin that has a broker of its own, once for each seed."""

    def strike(twin: str, parts: Sequence[str], seeds: Sequence[int]) -> list[pd.DataFrame]:
        name, parameters, _ = TWINS[twin]
        own = {"nats": nats, "rabbitmq": rabbitmq}.get(broker_of(name, parameters) or "")
        with pytest.MonkeyPatch.context() as environment:
            if own:
                environment.delenv(own.URL, raising=False)
                require_part(own.found() is not None, f"no broker: {own.INSTALL}")
        with bench(name, own_broker=True, **parameters) as ready:
            return [compared(ready, name, parameters, part, seed) for part in parts for seed in seeds]

    return strike


@pytest.mark.parametrize(("twin", "part"), [("rest", "accounting"), ("queue", "shop"), ("queue", "broker")])
def test_a_killed_part_leaves_what_the_model_predicts(strikes, twin, part):
    agree(strikes(twin, [part], SEEDS[:1]))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("twin", TWINS)
def test_parts_killed_at_seeded_times_leave_what_the_model_predicts(strikes, twin):
    agree(strikes(twin, TWINS[twin][2], SEEDS))


def test_a_broker_that_is_not_ours_is_not_killed(bench, workload):
    struck = workload(40.0, faults=(Crash(part="broker", at=(0.1,)),))
    with bench("message_queue") as ready, pytest.raises(BadInput, match="not ours to kill: unset it"):
        ready.run(struck, 1, 20)
