"""Each architecture told twice, by its model in blocks and by its oracle in plain SimPy: both tell the same numbers.

Where durations are continuous they are equal to the last bit, also where connections are scarce.
"""

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest

import simlib
from simlib import architectures
from simlib.architectures.parameters import make
from simlib.distributions import Distribution, Exponential
from simlib.domain import RESPONSES
from simlib.scenario import Crash, Goods, Mix, load_scenario

ORACLES = {
    *("simlib.architectures.rest", "simlib.architectures.rest.oracle", "simlib.architectures.message_queue.oracle"),
    *("simlib.architectures.ground", "simlib.architectures.event_sourcing.oracle", "simlib.architectures.saga.story"),
    "simlib.architectures.streaming.story",
}
KNOWN = ORACLES | {
    "simpy",
    "numpy",
    "simlib.architectures.parameters",
    "simlib.draws",
    "simlib.distributions",
    "simlib.domain",
    "simlib.scenario",
}
"""What an oracle may stand on, besides the standard library: not on a model, but on another oracle."""
FLAKY = {"handler_failure": 0.1}
RABBITMQ = {"broker": "rabbitmq"}
TOKEN, STICKY = {"read_your_writes": "token"}, {"read_your_writes": "sticky"}
TAILING, DUAL = {"publisher": "log_tailing"}, {"publisher": "dual_write"}
FEW = {"customers": 10, "goods": Goods(skus=20)}
"""So that customers often look at what they have just ordered."""
OFTEN = {"mix": Mix(stock_update=0.3, order=0.6, stock_query=0.1)}
SLOW = {"sharing": "single", "prefetch": 1}
"""So that changes wait in their queue."""
SCARCE = Goods(skus=20, zipf=0.0, units=2)
SOURCED = {"event_sourcing": True}
DEATHS = {
    "faults": tuple(
        Crash(part=f"{side}.{k}", at=tuple(first + later for later in (0.0, 0.7, 1.4, 2.1)), restart=0.3)
        for side, k, first in (("accounting", 2, 0.53), ("accounting", 3, 0.66), ("shop", 2, 0.6), ("shop", 3, 0.73))
    )
}
"""Members of both groups die alone; each is away for 0.3 s."""
DYING = {"processes": 3, "session_timeout": 0.1, "handler_backoff": 0.1}
"""So that much is in hand when they do."""
COOPERATIVE = {"partition_assignment_strategy": "cooperative-sticky"}
FULFILMENT = {
    "mix": Mix(stock_update=0.3, order=0.6, stock_query=0.1),
    "process": "fulfilment",
    "step_refused": 0.02,
    "step_timed_out": 0.01,
}


def oracle(name):
    return importlib.import_module(f"simlib.architectures.{name.replace('/', '.')}.oracle")


def continuous(name, **changes):
    """The default parameters with exponential times of the same means."""
    known = architectures.get(name).parameters
    chosen = {field: changes[field] for field in ("broker", "queue_type", "proxy") if field in changes}
    defaults = make(known, chosen)
    times = {field: Exponential(value.mean_value) for field, value in defaults if isinstance(value, Distribution)}
    return defaults.replace(**(times | changes))


def told_twice(name, scenario, seed, messages, **changes):
    """The messages of a history as arrays, and what the oracle says of them."""
    parameters = continuous(name, **changes)
    history = simlib.run(name, scenario, parameters.model_dump(), seed, messages)
    assert history.check().ok, history.check()
    rows = history.messages.to_pandas()
    rows["response"] = rows["response"].map(RESPONSES.index)
    rows["parked"] = rows["outcome"] == "dead_lettered"
    counted = history.effects.to_pandas().query("effect == 'counted'").groupby("message").last().reindex(rows.index)
    rows["counted"], rows["counted_at"] = counted["version"].fillna(-1), counted["time"]
    rows["compensated"] = rows["outcome"] == "compensated"
    story = oracle(name).run(parameters, scenario, seed, messages)
    if "parked" in story:
        story["parked"] &= np.isnan(story["applied"])  # an order is applied though its announcement was parked
    return rows, story


ROUGH = FULFILMENT | {"step_refused": 0.2, "step_timed_out": 0.1}
SAGA = {
    "at low load": (20, FULFILMENT, {}),
    "at moderate load": (60, FULFILMENT, {}),
    "when much is refused": (40, FULFILMENT | {"step_refused": 0.2}, {}),
    "when much is not heard of": (40, FULFILMENT | {"step_timed_out": 0.2}, {}),
    "when handlers fail and undoing fails": (
        40,
        FULFILMENT | FLAKY | {"step_refused": 0.2, "undoing_failed": 0.4},
        {"max_deliveries": 30},
    ),
    "without compensation": (40, FULFILMENT | {"step_refused": 0.2}, {"compensation": False}),
    "without locks": (60, FULFILMENT | {"goods": SCARCE}, {"semantic_locks": False}),
    "with locks on scarce goods": (20, FULFILMENT | {"goods": SCARCE}, {}),
    "without durable state": (40, FULFILMENT, {"durable_state": False}),
    "when customers do not wait": (40, FULFILMENT, {"answer_timeout": 0.02}),
    "of one step": (100, {}, {}),
    "of one step when goods are sold out": (100, {"goods": SCARCE}, {}),
}
"""Cases of both styles of saga."""
EQUAL = {
    "saga/orchestrated": SAGA,
    "saga/choreographed": SAGA,
    "rest": {
        "at low load": (20, {}, {}),
        "at moderate load": (150, {}, {}),
        "when handlers fail": (80, FLAKY, {}),
        "when retries are used up": (80, {"handler_failure": 0.6}, {"retries": 1, "jitter": False}),
        "when callers give up": (100, {}, {"timeout": 0.006}),
        "when callers give up and requests carry no key": (100, {}, {"timeout": 0.006, "idempotency": False}),
        "when callers give up on failing handlers": (80, {"handler_failure": 0.3}, {"timeout": 0.01}),
        "of several processes in turn": (150, FLAKY, {"processes": 3}),
        "of several processes at random": (150, {}, {"processes": 3, "balancing": "random"}),
        "of several processes by two choices": (150, FLAKY, {"processes": 4, "balancing": "two_choices"}),
        "of several processes by requests": (150, {}, {"processes": 2, "balancing": "least_requests", "cores": 4}),
        "when a breaker opens": (80, {"handler_failure": 0.4}, {"breaker": 2, "breaker_lasts": 0.05}),
        "when a breaker opens on some": (80, {"handler_failure": 0.4}, {"breaker": 2, "processes": 3, "timeout": 0.02}),
        "when a backlog is full": (150, {}, {"backlog": 2, "processes": 2}),
        "when the budget of retries is spent": (80, {"handler_failure": 0.4}, {"retry_budget": 0.2}),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "when connections are scarce": (120, {}, {"connections": 2}),
        "when connections are scarce and callers give up": (120, {}, {"connections": 2, "timeout": 0.02}),
        "when connections to the database are scarce": (120, {}, {"database_connections": 1}),
        "without event loops": (100, FLAKY, {"event_loop": False}),
        "when callers hedge": (80, FLAKY, {"hedge_after": 0.006, "processes": 2}),
        "when callers hedge and requests carry no key": (
            60,
            {},
            {"hedge_after": 0.004, "idempotency": False},
        ),
        "when callers hedge, give up and leave alone": (
            80,
            {"handler_failure": 0.3},
            {"hedge_after": 0.004, "timeout": 0.01, "processes": 3, "breaker": 2, "retry_budget": 0.5},
        ),
        "of four steps": (30, FULFILMENT, {}),
        "of four steps that fail": (30, ROUGH | FLAKY, {}),
        "of four steps when requests carry no key": (30, ROUGH, {"timeout": 0.02, "idempotency": False}),
        "of four steps on several processes": (60, ROUGH, {"processes": 3, "breaker": 2, "retry_budget": 0.2}),
    },
    "message_queue": {
        "at low load": (20, {}, {}),
        "at moderate load": (150, {}, {}),
        "when handlers fail": (80, FLAKY, {}),
        "when messages are parked": (80, {"handler_failure": 0.4}, {"max_deliveries": 2}),
        "when confirms come late": (80, {}, {"confirm_timeout": 0.003, "confirm_retries": 1}),
        "when confirms come late and nothing drops the copies": (
            80,
            {},
            {"confirm_timeout": 0.003, "deduplication": 0, "idempotent_receiver": False, "write_if_newer": False},
        ),
        "when acknowledgements come late": (80, FLAKY, {"ack_wait": 0.01, "idempotent_receiver": False}),
        "when few may be unacknowledged": (100, {}, {"prefetch": 2, "uplink": "exponential(5 ms)"}),
        "with one consumer": (100, {}, {"consumers": 1}),
        "without confirms and acknowledgements": (80, FLAKY, {"confirm": False, "manual_ack": False}),
        "when customers wait for the reply": (80, FLAKY, {"answered_on": "reply", "confirm_timeout": 0.03}),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "when goods are sold out and customers wait": (100, {"goods": SCARCE}, {"answered_on": "reply"}),
        "on RabbitMQ at low load": (20, {}, RABBITMQ),
        "on RabbitMQ at moderate load": (150, {}, RABBITMQ),
        "on RabbitMQ when handlers fail": (80, FLAKY, RABBITMQ),
        "on RabbitMQ when messages are parked": (80, {"handler_failure": 0.4}, RABBITMQ | {"max_deliveries": 2}),
        "on RabbitMQ when nothing is ever parked": (80, {"handler_failure": 0.4}, RABBITMQ | {"max_deliveries": None}),
        "on a classic queue when handlers fail": (80, {"handler_failure": 0.4}, RABBITMQ | {"queue_type": "classic"}),
        "on RabbitMQ when confirms come late and nobody drops the copies": (
            80,
            {},
            RABBITMQ | {"confirm_timeout": 0.003, "idempotent_receiver": False, "write_if_newer": False},
        ),
        "on RabbitMQ when each may hold little": (
            100,
            FLAKY,
            RABBITMQ | {"prefetch": 2, "uplink": "exponential(5 ms)"},
        ),
        "with one active consumer": (60, FLAKY | FEW, {"sharing": "single", "write_if_newer": False}),
        "with queues by SKU": (150, FLAKY | FEW, {"sharing": "by_sku", "prefetch": 1, "write_if_newer": False}),
        "on RabbitMQ with queues by SKU": (150, FLAKY | FEW, RABBITMQ | {"sharing": "by_sku"}),
        "when announcements overtake": (110, FEW | OFTEN, SLOW | {"orders_first": True, "write_if_newer": False}),
        "when refused announcements overtake on RabbitMQ": (
            110,
            FLAKY | FEW | OFTEN,
            SLOW | RABBITMQ | {"orders_first": True, "max_deliveries": None},
        ),
        "when full queues drop": (110, FLAKY, SLOW | {"at_limit": "drop", "max_length": 3}),
        "when full queues drop for good": (110, FLAKY, SLOW | {"at_limit": "drop", "max_length": 3, "park": False}),
        "when full queues refuse": (110, FLAKY, SLOW | {"at_limit": "refuse", "max_length": 2, "confirm_timeout": 0.2}),
        "when full queues refuse on RabbitMQ": (110, FLAKY, SLOW | RABBITMQ | {"at_limit": "refuse", "max_length": 2}),
        "when full queues refuse customers who wait": (
            110,
            FLAKY | OFTEN,
            {"consumers": 1, "prefetch": 1, "answered_on": "reply", "at_limit": "refuse", "max_length": 1},
        ),
        "when messages expire": (110, FLAKY, SLOW | {"expire": True, "time_to_live": 0.04}),
        "of four steps": (30, FULFILMENT, {}),
        "of four steps that fail": (30, ROUGH | FLAKY, {}),
        "of four steps on RabbitMQ": (30, ROUGH | FLAKY, RABBITMQ | {"answered_on": "reply", "confirm_timeout": 0.2}),
        "when one flush serves all who wait": (150, FLAKY, {"group_commit": True}),
        "when one flush serves all who wait on three nodes": (100, {}, {"group_commit": True, "nodes": 3}),
        "on RabbitMQ when one flush serves all who wait for their queues": (
            150,
            {},
            RABBITMQ | {"group_commit": True, "sharing": "by_sku"},
        ),
        "when there is no stream": (40, FLAKY, {"unbound": "orders", "confirm_timeout": 0.1}),
        "when what no queue takes is handed back": (40, FLAKY, RABBITMQ | {"unbound": "orders"}),
        "when what no queue takes is confirmed": (40, {}, RABBITMQ | {"unbound": "updates", "mandatory": False}),
        "with three nodes": (100, FLAKY, {"nodes": 3}),
        "with five nodes and without confirms": (100, FLAKY, {"nodes": 5, "confirm": False}),
        "on RabbitMQ without confirms and acknowledgements": (
            80,
            FLAKY,
            RABBITMQ | {"confirm": False, "manual_ack": False},
        ),
        "on RabbitMQ when customers wait for the reply": (
            80,
            FLAKY,
            RABBITMQ | {"answered_on": "reply", "confirm_timeout": 0.03},
        ),
    },
    "event_sourcing": {
        "at low load": (20, {}, {}),
        "at moderate load": (120, {}, {}),
        "when handlers fail": (60, FLAKY, {}),
        "when events are set aside": (
            60,
            {"handler_failure": 0.4},
            {"event_retries": 1, "event_backoff": 0.01},
        ),
        "when many change few goods": (100, {"goods": Goods(skus=3, zipf=0.0)}, {}),
        "when conflicts are given up": (100, {"goods": Goods(skus=1)}, {"conflict_retries": 1}),
        "when streams are locked": (100, {"goods": Goods(skus=2)}, {"concurrency": "lock"}),
        "when one flush serves all who wait": (80, {}, {"group_commit": True}),
        "when replays are long": (60, {"goods": Goods(skus=3)}, {"snapshot_every": 20, "per_event": 0.0002}),
        "without snapshots": (60, {"goods": Goods(skus=3)}, {"snapshot_every": 0}),
        "when callers give up": (80, {}, {"timeout": 0.008}),
        "when callers give up and requests carry no key": (80, {}, {"timeout": 0.008, "idempotency": False}),
        "when few events are under way": (80, FLAKY, {"network": "exponential(5 ms)", "prefetch": 2}),
        "when the copy takes any version": (80, {}, {"write_if_newer": False}),
        "when connections to the database are scarce": (70, {}, {"database_connections": 2}),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "of four steps": (30, FULFILMENT | FLAKY, {}),
        "of four steps that many want": (
            30,
            ROUGH | {"goods": Goods(skus=3, zipf=0.0)},
            {},
        ),
    },
    "service_mesh": {
        "at low load": (20, {}, {}),
        "at moderate load": (120, {}, {"push_interval": 1.0}),
        "when handlers fail": (60, {"handler_failure": 0.4}, {"retries": 1, "proxy_retries": 1}),
        "when sidecars do not retry": (60, FLAKY, {"proxy_retries": 0}),
        "when sidecars give up": (30, {}, {"proxy_timeout": 0.008}),
        "when both give up": (80, {}, {"proxy_timeout": 0.01, "timeout": 0.02, "idempotency": False}),
        "of several processes": (100, FLAKY, {"processes": 3, "balancing": "least_requests", "cores": 4}),
        "when processes are left out": (
            80,
            {"handler_failure": 0.4},
            {"processes": 3, "ejection": 1, "ejection_lasts": 0.05},
        ),
        "when sidecars limit": (150, {}, {"proxy_connections": 1, "proxy_pending": 1}),
        "when budgets are spent": (60, {"handler_failure": 0.4}, {"retry_budget": 0.1, "proxy_budget": 0.2}),
        "without encryption": (100, {}, {"mtls": False, "workers": 1}),
        "on HAProxy": (
            80,
            {"handler_failure": 0.4},
            {"proxy": "haproxy", "processes": 2, "ejection": 2, "ejection_lasts": 0.05},
        ),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "when applications hedge": (60, FLAKY, {"hedge_after": 0.01, "processes": 2}),
        "of four steps": (30, FULFILMENT, {}),
        "of four steps that fail": (30, ROUGH | FLAKY, {"processes": 2}),
    },
    "streaming": {
        "at low load": (20, {}, {}),
        "at moderate load": (120, {}, {}),
        "when handlers fail": (80, FLAKY, {"handler_backoff": 0.01}),
        "when records are set aside": (60, {"handler_failure": 0.4}, {"handler_retries": 1, "handler_backoff": 0.01}),
        "without linger": (80, {}, {"linger": 0}),
        "when batches are full": (150, {}, {"batch_records": 2, "linger": 0.1}),
        "when few are in flight": (120, {}, {"in_flight": 1, "uplink": "exponential(3 ms)"}),
        "with one partition": (60, FLAKY, {"partitions": 1, "handler_backoff": 0.01}),
        "with a member for each partition": (100, {}, {"members": 4, "max_poll_records": 2}),
        "with members that are processes": (120, FLAKY, {"members": 3, "processes": 3, "handler_backoff": 0.01}),
        "when members die": (150, FLAKY | DEATHS, DYING),
        "when members die, by the cooperative protocol": (150, FLAKY | DEATHS, DYING | COOPERATIVE),
        "when members are back before that is noticed": (150, FLAKY | DEATHS, DYING | {"session_timeout": 0.45}),
        "when members are back before that is noticed, by the cooperative protocol": (
            150,
            FLAKY | DEATHS,
            DYING | COOPERATIVE | {"session_timeout": 0.45},
        ),
        "when members die that committed before": (150, FLAKY | DEATHS, DYING | {"guarantee": "at_most_once"}),
        "when members die that commit with the effects": (150, FLAKY | DEATHS, DYING | {"guarantee": "exactly_once"}),
        "when members die that commit by the clock, and nothing drops the copies": (
            150,
            FLAKY | DEATHS,
            DYING | COOPERATIVE | {"auto_commit_interval": 0.15, "idempotent_receiver": False, "write_if_newer": False},
        ),
        "when confirms come late": (80, {}, {"confirm_timeout": 0.004, "confirm_retries": 1, "retry_backoff": 0.01}),
        "when confirms come late and nothing drops the copies": (
            80,
            {},
            {
                "confirm_timeout": 0.004,
                "idempotent_producer": False,
                "idempotent_receiver": False,
                "write_if_newer": False,
            },
        ),
        "without confirms": (80, {}, {"acks": "none"}),
        "confirmed by the leader, from its page cache": (80, {}, {"acks": "leader", "flush_every": 1.0}),
        "fetched by followers": (
            120,
            FLAKY,
            {"followers": 2, "replicate": "exponential(3 ms)", "handler_backoff": 0.01},
        ),
        "fetched by followers when confirms come late": (
            80,
            {},
            {"followers": 1, "confirm_timeout": 0.004, "confirm_retries": 1, "retry_backoff": 0.01},
        ),
        "committed before": (80, FLAKY, {"guarantee": "at_most_once", "handler_backoff": 0.01}),
        "committed with the effects": (80, FLAKY, {"guarantee": "exactly_once", "handler_backoff": 0.01}),
        "committed by the clock": (80, FLAKY, {"auto_commit_interval": 0.5, "handler_backoff": 0.01}),
        "counted in windows": (120, FLAKY, {"window": 0.5, "handler_backoff": 0.01}),
        "counted in windows, of one partition": (60, FEW, {"window": 2.0, "partitions": 1, "flush_every": 1.0}),
        "counted in windows, committed with the effects": (  # two partitions that begin at one instant end in either order
            120,
            FEW,
            {"window": 0.5, "guarantee": "exactly_once", "commit_interval": 0.07},
        ),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "of four steps": (30, FULFILMENT, {}),
        "of four steps that fail": (30, ROUGH | FLAKY, {"handler_backoff": 0.01}),
        "of four steps of members that are processes": (40, ROUGH | FLAKY, {"processes": 3, "handler_backoff": 0.01}),
        "of four steps when nothing drops the copies": (
            30,
            ROUGH,
            {"confirm_timeout": 0.004, "idempotent_producer": False, "idempotent_receiver": False},
        ),
    },
    "outbox": {
        "at low load": (20, {}, {}),
        "at moderate load": (150, {}, {}),
        "when handlers fail": (80, FLAKY, {}),
        "with few rows at once": (60, {}, {"batch_size": 3, "poll_interval": 0.05}),
        "when polls are long": (120, {}, {"poll_interval": 0.003}),
        "when rows cost much": (60, {}, {"per_row": 0.002}),
        "when relays do not hear": (60, {}, {"confirm_timeout": 0.002, "confirm_retries": 1}),
        "when relays do not hear and nobody drops the copies": (
            60,
            {},
            {
                "confirm_timeout": 0.004,
                "confirm_retries": 0,
                "deduplication": 0,
                "idempotent_receiver": False,
                "write_if_newer": False,
            },
        ),
        "when messages are parked": (80, {"handler_failure": 0.4}, {"max_deliveries": 2}),
        "when acknowledgements come late": (80, FLAKY, {"ack_wait": 0.01, "idempotent_receiver": False}),
        "without confirms and acknowledgements": (80, FLAKY, {"confirm": False, "manual_ack": False}),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "of four steps": (30, ROUGH | FLAKY, {}),
        "tailing the log, of four steps": (30, ROUGH | FLAKY, TAILING),
        "without an outbox, of four steps": (30, ROUGH | FLAKY, DUAL),
        "tailing the log at low load": (20, {}, TAILING),
        "tailing the log at moderate load": (150, {}, TAILING),
        "tailing the log when handlers fail": (80, FLAKY, TAILING),
        "tailing the log a few rows at once": (150, {}, TAILING | {"batch_size": 2}),
        "tailing the log when relays do not hear": (
            60,
            {},
            TAILING | {"confirm_timeout": 0.004, "confirm_retries": 0},
        ),
        "tailing the log when goods are sold out": (100, {"goods": SCARCE}, TAILING),
        "without an outbox": (150, {}, DUAL),
        "without an outbox when handlers fail": (80, FLAKY, DUAL),
        "without an outbox when confirms come late": (80, {}, DUAL | {"confirm_timeout": 0.003, "confirm_retries": 1}),
    },
    "batch_exchange": {
        "at low load": (20, {}, {"interval": 0.7}),
        "at moderate load": (150, {}, {"interval": 0.5}),
        "when each change is sent": (80, {}, {"interval": 0.5, "coalesce": False}),
        "when all there is is sent": (60, {}, {"interval": 0.8, "exchange": "full"}),
        "when records fail their file": (30, {"handler_failure": 0.02}, {"interval": 0.5, "retry_after": 0.03}),
        "when records fail alone": (60, FLAKY, {"interval": 0.5, "transaction": "record"}),
        "when files are set aside": (30, FLAKY, {"interval": 0.3, "retry_after": 0.03, "max_deliveries": 2}),
        "when runs are late": (100, {}, {"interval": 0.1, "file": "exponential(80 ms)"}),
        "when runs overlap": (100, FLAKY, {"interval": 0.1, "network": "exponential(0.1 s)", "runs": 3}),
        "when sides do not hear": (
            40,
            {},
            {
                "interval": 0.5,
                "timeout": 0.003,
                "retry_after": 0.03,
                "idempotent_receiver": False,
                "write_if_newer": False,
            },
        ),
        "when goods are sold out": (100, {"goods": SCARCE}, {"interval": 0.5}),
        "without event loops": (100, FLAKY, {"interval": 0.5, "transaction": "record", "event_loop": False}),
        "of four steps": (30, FULFILMENT, {"interval": 0.5}),
        "of four steps whose records fail their file": (30, ROUGH | {"handler_failure": 0.02}, {"interval": 0.5}),
        "of four steps whose records fail alone": (30, ROUGH | FLAKY, {"interval": 0.5, "transaction": "record"}),
    },
    "cqrs": {
        "at low load": (20, {}, {}),
        "at moderate load": (150, FEW, {}),
        "when handlers fail": (80, FLAKY | FEW, {}),
        "when callers give up": (100, FEW, {"timeout": 0.006}),
        "when callers give up and requests carry no key": (100, FEW, {"timeout": 0.006, "idempotency": False}),
        "when goods are sold out": (100, {"goods": SCARCE}, {}),
        "when events come again and nothing guards the read model": (
            80,
            FLAKY | FEW,
            {"ack_wait": 0.01, "idempotent_receiver": False, "write_if_newer": False},
        ),
        "when confirms come late": (80, FEW, {"confirm_timeout": 0.003, "confirm_retries": 1, "deduplication": 0}),
        "when events are parked": (80, {"handler_failure": 0.4} | FEW, {"max_deliveries": 2}),
        "without confirms and acknowledgements": (80, FLAKY | FEW, {"confirm": False, "manual_ack": False}),
        "with one replica": (80, FEW, {"replicas": 1}),
        "with tokens": (80, FEW, TOKEN | {"replicas": 3}),
        "with tokens and little patience": (
            80,
            FLAKY | FEW,
            TOKEN | {"replication": "exponential(200 ms)", "patience": 0.1},
        ),
        "with sticky reads": (80, FLAKY | FEW, STICKY | {"replicas": 3, "affinity": 0.7}),
        "of four steps": (30, ROUGH | FLAKY, {}),
        "with event sourcing, of four steps": (30, ROUGH | FLAKY, SOURCED),
        "with event sourcing": (60, FLAKY | FEW, SOURCED),
        "with event sourcing and tokens": (60, FLAKY | FEW, SOURCED | TOKEN | {"replicas": 3}),
        "with event sourcing and sticky reads": (
            60,
            FEW,
            SOURCED | STICKY | {"group_commit": True, "conflict_retries": 1, "replicas": 3, "affinity": 0.7},
        ),
        "with sticky reads of a read model that knows no versions": (80, FEW, STICKY | {"write_if_newer": False}),
    },
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in EQUAL.items() for case in cases])
def test_model_and_oracle_tell_the_same_to_the_last_bit(name, case):
    rate, properties, changes = EQUAL[name][case]
    scenario = load_scenario("steady").with_rate(rate).model_copy(update=properties)
    rows, story = told_twice(name, scenario, 1, 500, **changes)
    for column, values in story.items():
        np.testing.assert_array_equal(rows[column].to_numpy(values.dtype), values, err_msg=column)


def test_oracles_meet_what_they_are_asked_to_show():
    """The cases above are worth something only if what they are about happens in them."""
    steady = load_scenario("steady")
    _, late = told_twice("rest", steady, 1, 600, timeout=0.006, idempotency=False)
    assert (late["response"] == RESPONSES.index("timed_out")).sum() > 50 and late["duplicates"].sum() > 10
    failing = steady.model_copy(update={"handler_failure": 0.4})
    _, parked = told_twice("message_queue", failing, 1, 600, max_deliveries=2)
    assert parked["parked"].sum() > 50 and parked["deliveries"].max() >= 2
    deaf = {"confirm_timeout": 0.004, "confirm_retries": 0, "deduplication": 0, "idempotent_receiver": False}
    _, again = told_twice("outbox", steady, 1, 600, **deaf, write_if_newer=False)
    assert again["duplicates"].sum() > 20 and again["deliveries"].max() > 4
    curious, lagging = (
        steady.model_copy(update=FEW | {"mix": Mix(stock_update=0.2, order=0.4, stock_query=0.4)}),
        {"replication": "exponential(200 ms)"},
    )
    blind, *seeing = (
        told_twice("cqrs", curious, 1, 600, **lagging, **remedy)[1]["version"] for remedy in ({}, TOKEN, STICKY)
    )
    assert all((seen > blind).sum() > 5 for seen in seeing)
    failed = RESPONSES.index("failed")
    for guard in ({"breaker": 2, "breaker_lasts": 0.05}, {"retry_budget": 0.2}):
        _, guarded = told_twice("rest", failing.with_rate(80), 1, 500, **guard)
        assert (guarded["response"] == failed).sum() > 50, "of 500 that would fail in 3 of 100 cases"
    twice = {"proxy_timeout": 0.01, "timeout": 0.02, "idempotency": False}
    _, meshed = told_twice("service_mesh", steady.with_rate(80), 1, 500, **twice)
    assert (meshed["attempts"] > 1).sum() > 3 and meshed["duplicates"].sum() > 3
    unheard = {
        "interval": 0.5,
        "timeout": 0.003,
        "retry_after": 0.03,
        "idempotent_receiver": False,
        "write_if_newer": False,
    }
    _, files = told_twice("batch_exchange", steady.with_rate(40), 1, 500, **unheard)
    assert files["duplicates"].sum() > 20 and files["deliveries"].max() > 3
    shaky = steady.with_rate(150).model_copy(update=FLAKY)
    (_, living), (_, dying) = (
        told_twice("streaming", shaky.model_copy(update=faults), 1, 500, **DYING) for faults in ({}, DEATHS)
    )
    assert (dying["deliveries"] > living["deliveries"]).sum() > 3, "what a member had in hand comes again"
    for name in architectures.names():
        _, scarce = told_twice(name, steady.model_copy(update={"goods": SCARCE}), 1, 600)
        assert (scarce["response"] == RESPONSES.index("refused")).sum() > 5


@pytest.mark.parametrize("name", architectures.names())
def test_oracles_share_nothing_with_the_blocks_and_the_engine(name):
    source = Path(oracle(name).__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "simlib":
            imported |= {f"simlib.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    standard = {"__future__", "collections.abc", "dataclasses", "functools", "itertools", "math", "typing"}
    assert imported <= KNOWN | standard
