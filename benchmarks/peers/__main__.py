"""The table: `python -m benchmarks.peers [--pairs 5] [--messages 5000]`; runs in turn, so that the machine's noise meets all."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

if find_spec("cimba"):
    import cimba  # noqa: F401  # before numba compiles anything, or it cannot compile cimba's models

import numpy as np
from scipy import stats

from benchmarks.peers import model
from benchmarks.peers.model import Answer
from simlib.bench import Ratio, queue_with_database, side_by_side, table
from simlib.engines import simulate
from simlib.errors import RunFailed
from simlib.flow import Backoff, Exponential, Flow, apply, branch, fail, retry

PEERS = {
    "simpy": "simpy",
    "heap": "",
    "asimpy": "asimpy",
    "salabim": "salabim",
    "cimba": "cimba",
    "ciw": "Ciw",
}
"""Modules of this folder, and the distributions that they need."""
LEVEL = 0.999
Model = Callable[[int, int], Any]


def absent(peer: str) -> str | None:
    """The command that installs what a peer lacks."""
    needs = {"salabim": ["salabim", "greenlet"], "cimba": ["cimba", "statsmodels"], "heap": []}.get(peer, [peer])
    return None if all(find_spec(name) for name in needs) else "pip install -e '.[peers]'"


def message_queue(messages: int, seed: int) -> Answer:
    """simlib's own answer."""
    found = simulate(queue_with_database(), messages, seed).messages
    applied, issued, attempts, deliveries = (
        found[name].to_numpy() for name in ("applied", "issued", "attempts", "deliveries")
    )
    return Answer(float(np.nanmean(applied - issued)), float(attempts.mean()), float(deliveries.mean()))


def tandem_flow() -> Flow:
    """Stations in a row with feedback: what every peer can express."""
    flow = Flow("tandem")
    shop = flow.part("shop")
    service, cpu, database = (
        shop.pool(name, capacity=capacity)
        for name, capacity in (("service", model.SERVICES), ("handler", 1), ("database", model.DATABASES))
    )
    again = Backoff(30, model.NACK_DELAY, 1.0)
    work = [
        cpu.serve(Exponential(mean=model.HANDLER)),
        database.serve(Exponential(mean=model.DATABASE)),
        branch(model.HANDLER_FAILS, [fail()]),
    ]
    steps = [service.serve(Exponential(mean=model.SERVICE)), retry(again, work), apply("done")]
    flow.source("job", at=shop, interarrival=Exponential(mean=model.INTERARRIVAL), steps=steps)
    return flow


def tandem(messages: int, seed: int) -> float:
    """simlib's own answer: mean time in the system, s."""
    found = simulate(tandem_flow(), messages, seed).messages
    return float(np.mean(found["applied"].to_numpy() - found["issued"].to_numpy()))


OURS: dict[str, Model] = {"message_queue": message_queue, "tandem": tandem}


def check(ours: Model, theirs: Model, messages: int = 1000, runs: int = 60, peer_runs: int = 6) -> None:
    """Raise RunFailed unless each mean of the peer's runs lies where simlib's runs predict it, at the level."""
    own = np.array([np.atleast_1d(ours(messages, seed)) for seed in range(1, runs + 1)])
    other = np.array([np.atleast_1d(theirs(messages, seed)) for seed in range(1, peer_runs + 1)]).mean(axis=0)
    half = stats.t.ppf((1 + LEVEL) / 2, runs - 1) * own.std(axis=0, ddof=1) * np.sqrt(1 / runs + 1 / peer_runs)
    if np.any(np.abs(other - own.mean(axis=0)) > half):
        raise RunFailed(f"the peer answers {other}, simlib {own.mean(axis=0)} ± {half} ({LEVEL:.1%})")


def ratio(name: str, peer: str, messages: int, pairs: int) -> Ratio | None:
    """How many times as long the peer takes for the model, once its answer is right; None where it cannot express it."""
    module = import_module(f"benchmarks.peers.{peer}")
    if not hasattr(module, name):
        return None
    theirs, ours = getattr(module, name), OURS[name]
    check(ours, theirs)
    return side_by_side(
        f"{name}, {messages} messages",
        (peer, partial(theirs, messages, 1)),
        ("simlib", partial(ours, messages, 1)),
        pairs,
    )


def main() -> None:
    """Print versions, ratios, and what is absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="runs in turn that a ratio is the median of")
    parser.add_argument("--messages", type=int, default=5000, help="of a run")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    arguments = parser.parse_args()
    print(f"{datetime.date.today()}, load of the machine {os.getloadavg()[0]:.1f}", flush=True)
    for peer in arguments.peers:
        if command := absent(peer):
            print(f"{peer}: absent; {command}")
            continue
        if PEERS[peer]:
            print(f"{PEERS[peer]} {version(PEERS[peer])}")
        found = (ratio(name, peer, arguments.messages, arguments.pairs) for name in OURS)
        for row in table(one for one in found if one is not None):
            print("  " + " | ".join(row), flush=True)


if __name__ == "__main__":
    main()
