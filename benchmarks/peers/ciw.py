"""Ciw: a network of nodes and the probabilities of ways between them; it has no prefetch and no caller that gives up."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean

import ciw

from benchmarks.peers import model


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback."""
    rates = [1 / mean for mean in (model.INTERARRIVAL, model.SERVICE, model.HANDLER, model.DATABASE)]
    arrival, *served = (ciw.dists.Exponential(rate) for rate in rates)
    network = ciw.create_network(
        arrival_distributions=[arrival, None, None, None],
        service_distributions=[*served, ciw.dists.Deterministic(model.NACK_DELAY)],
        number_of_servers=[model.SERVICES, 1, model.DATABASES, math.inf],
        routing=[
            [0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, model.HANDLER_FAILS],
            [0.0, 1.0, 0.0, 0.0],
        ],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(messages, method="Finish")
    first: dict[int, float] = {}
    last: dict[int, float] = defaultdict(float)
    for record in simulation.get_all_records():
        one = record.id_number
        first[one] = min(first.get(one, math.inf), record.arrival_date)
        last[one] = max(last[one], record.exit_date)
    return fmean(last[one] - first[one] for one in first)
