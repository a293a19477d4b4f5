"""Bad input, in one table: what a user gets wrong, and the one line that it ends with.

A command ends with status 2 and prints nothing else. In an expected line `…` stands for whatever depends on the rest of the
project or on the machine.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import simlib
from simlib import api, cli, experiments, metrics, paths
from simlib.brokers import answers, kafka, nats, postgres, processes, rabbitmq
from simlib.errors import BadInput
from simlib.experiments import runner
from simlib.flow import (
    Backoff,
    Constant,
    Exponential,
    Flow,
    Lognormal,
    Quantiles,
    ack,
    apply,
    choose,
    delay,
    fork,
    retry,
)
from simlib.scenario import SEEDS
from tests.conftest import require_part

WHOLE = "it must be a whole number of at least {}, got '{}': give one (see simlib --help)"
TIME = "a duration must be a number and a unit of ns, us, µs, ms, s, min, h, d, got '{}': write '5 ms'"
RATE = "a rate must be a number, a slash and a unit of time, got '{}': write '100/s'"

COMMANDS = [
    # names
    ("runn rest", "No such command 'runn'. Did you mean 'run'? (see simlib --help)"),
    ("run rest --mesages 5", "No such option: --mesages (Possible options: --messages) (see simlib --help)"),
    ("run", "Missing argument 'ARCH'. (see simlib --help)"),
    ("run rest message_queue", "Got unexpected extra argument(s) (message_queue) (see simlib --help)"),
    ("run restt", "unknown architecture 'restt': did you mean 'rest'? known are …"),
    ("compare rest message_que", "unknown architecture 'message_que': did you mean 'message_queue'? known are …"),
    ("compare rest rest", "architecture 'rest' is named twice: name it once"),
    (
        "run message_queue --engine live --set sharing=by_sku",
        "parameter 'sharing' is of the model alone: leave it at its default in a live run",
    ),
    ("new architecture rest", "the name 'rest' is taken: choose another"),
    ("new architecture sides", "the name 'sides' is taken: choose another"),
    (
        "new architecture My-Own",
        "the name of an architecture must be of lower-case letters, digits and _, and no word of Python, got 'My-Own':"
        " choose another",
    ),
    ("new scenario mine", "unknown thing to make 'scenario': known are architecture"),
    ("calibrate restt", "unknown architecture 'restt': did you mean 'rest'? known are …"),
    ("run rest --scenario stedy", "unknown scenario 'stedy': did you mean 'steady'? known are …"),
    ("run rest --scenario ../steady", "unknown scenario '../steady': did you mean 'steady'? known are …"),
    (
        "run rest --engine live --messages 10 --set processes=2",
        "parameter 'processes' is of the model alone: leave it at its default in a live run",
    ),
    (
        "run rest --keep metrics --engine simpy",
        "only metrics are kept by the compiled engine and without a history: leave out --engine and --history",
    ),
    ("run rest --engine simpie", "unknown engine 'simpie': did you mean 'simpy'? known are compiled, live, simpy"),
    ("list metric", "unknown list 'metric': did you mean 'metrics'? known are …"),
    ("list parameters", "whose parameters? name an architecture: simlib list parameters rest"),
    ("list metrics rest", "only parameters are of an architecture, got 'rest': leave it out"),
    ("list scenarios --set a=1", "only parameters can be set, got --set a=1 for scenarios: leave it out"),
    # numbers
    ("run rest --messages lots", f"Invalid value for '--messages': {WHOLE.format(1, 'lots')}"),
    ("run rest --messages 1e3", f"Invalid value for '--messages': {WHOLE.format(1, '1e3')}"),
    ("run rest --messages 012", f"Invalid value for '--messages': {WHOLE.format(1, '012')}"),
    ("run rest --messages 0", f"Invalid value for '--messages': {WHOLE.format(1, '0')}"),
    (
        "run rest --messages 99999999999999999999",
        "messages must be a whole number from 1 to 10000000, got 99999999999999999999: give one",
    ),
    ("run rest --replications=-2", f"Invalid value for '--replications': {WHOLE.format(1, '-2')}"),
    (
        "run rest --seed=-1",
        f"Invalid value for '--seed': it must be a whole number from 0 to {SEEDS}, got '-1': give one …",
    ),
    ("sweep nowhere.yaml --workers 0", f"Invalid value for '--workers': {WHOLE.format(1, '0')}"),
    ("bench --pairs no", f"Invalid value for '--pairs': {WHOLE.format(1, 'no')}"),
    (
        "explore --port 70000",
        "Invalid value for '--port': it must be a whole number from 1 to 65535, got '70000': give one …",
    ),
    ("run rest --rate fast", RATE.format("fast")),
    ("run rest --rate 100/week", RATE.format("100/week")),
    ("run rest --rate=-5/s", "a rate must be above 0, got -5/s: write --rate 100/s"),
    ("run rest --rate 1e400/s", "a number must be finite, got 1e400/s: give a finite one"),
    (
        "run rest --scenario flash_sale --messages 100",
        "100 messages end before the last phase of scenario 'flash_sale': ask for … or more",
    ),
    # files
    ("run rest --scenario nowhere.yaml", "nowhere.yaml cannot be read: No such file or directory: name a YAML file …"),
    ("run rest --scenario .yaml", ".yaml cannot be read: Is a directory: name a YAML file that is there"),
    ("sweep nowhere.yaml", "nowhere.yaml cannot be read: No such file or directory: name a YAML file that is there"),
    ("measure --plan nowhere.yaml", "nowhere.yaml cannot be read: No such file or directory: name a YAML file …"),
    ("check nowhere", "nowhere holds no history that can be read: nowhere/messages.parquet: run again with --history"),
    ("calibrate rest", "…idle-stock_update is not measured: run simlib measure"),
    ("validate rest", "…held_out.yaml cannot be read: No such file or directory: name a YAML file that is there"),
    ("report", "…report.yaml cannot be read: No such file or directory: name a YAML file that is there"),
    # output
    (
        "run rest --history file",
        "folder file cannot be written: File exists: name a writable one",
    ),
    ("run rest --history file/history", "folder file/history cannot be written: Not a directory: name a writable one"),
    ("run rest --history /proc/history", "folder /proc/history cannot be written: …: name a writable one"),
]

SETTINGS = [
    ("rest retrys=1", "unknown parameter 'retrys': did you mean 'retries'? known are …"),
    ("rest consumers=4", "unknown parameter 'consumers': known are …"),
    ("rest retries", "--set takes name=value, got 'retries': write --set consumers=4"),
    ("rest retries=1 retries=2", "--set gives 'retries' twice: give it once"),
    ("rest retries=many", "parameters: retries must be a whole number, got 'many': write digits without quotes"),
    ("rest retries=2.5", "parameters: retries must be a whole number, got 2.5: write digits without quotes"),
    ("rest retries=1e3", "parameters: retries must be a whole number, got 1000.0: write digits without quotes"),
    ("rest retries='1e3'", "parameters: retries must be a whole number, got '1e3': write digits without quotes"),
    ("rest retries=012", "--set retries: a number must not begin with 0, got 012: write 12, or quotes around a text"),
    ("rest retries=true", "parameters: retries must be a whole number, got True: write digits without quotes"),
    ("rest retries=", "parameters: retries must be a whole number, got nothing: write digits without quotes"),
    ("rest retries=-1", "parameters: retries must be at least 0, got -1: give a larger one"),
    ("rest retries=101", "parameters: retries must be at most 100, got 101: give a smaller one"),
    ("rest idempotency=no", "parameters: idempotency must be true or false, got 'no': write one of them"),
    ("rest idempotency=0", "parameters: idempotency must be true or false, got 0: write one of them"),
    ("rest timeout=no", f"parameters: timeout: {TIME.format('no')}"),
    ("rest timeout=5parsecs", f"parameters: timeout: {TIME.format('5parsecs')}"),
    ("rest timeout=5/s", f"parameters: timeout: {TIME.format('5/s')}"),
    ("rest timeout=0", "parameters: timeout must be above 0, got 0: give a larger one"),
    ("rest timeout=.inf", "parameters: timeout: a number must be finite, got inf: give a finite one"),
    ("rest edge=[1", "--set edge, line 1: not valid YAML: expected ',' or ']', but got '<stream end>': correct it"),
    ("rest edge=-1ms", "parameters: edge: Constant: value must be at least 0, got -0.001: give a larger one"),
    ("rest edge=nomal(5ms)", "parameters: edge: unknown distribution 'nomal': did you mean 'lognormal'? known are …"),
    ("rest edge=lognormal(5ms)", "parameters: edge: Lognormal: cv is missing: add it"),
    (
        "rest edge=lognormal(5ms,x)",
        "parameters: edge: Lognormal: cv must be a number, got 'x': write one without quotes",
    ),
    ("rest edge=exponential(1,2)", "parameters: edge: Exponential takes mean, got 2 values: take some out"),
    ("rest edge=quantiles(3,2,1)", "parameters: edge: Quantiles: values must ascend: sort them"),
    ("rest edge=[1,2]", "parameters: edge: must be a time such as '5 ms', or a distribution …, got a list: write one"),
    ("message_queue broker=nat", "unknown broker 'nat': did you mean 'nats'? known are nats, rabbitmq"),
    ("message_queue queue_type=quorum", "parameter 'queue_type' is of broker=rabbitmq with …, not of …: leave it out"),
    ("message_queue answered_on=replay", "parameters: unknown answered_on 'replay': did you mean 'reply'? known are …"),
]

ARRIVALS = "arrivals: {process: poisson, rate: 100/s}\n"
SCENARIOS = [
    # YAML
    ("", "a scenario must be a mapping of keys to values, got nothing: write 'key: value' lines"),
    ("no", "a scenario must be a mapping of keys to values, got 'no': write 'key: value' lines"),
    ("- 1", "a scenario must be a mapping of keys to values, got a list: write 'key: value' lines"),
    ("arrivals: {", ", line 1: not valid YAML: expected the node content, but found '<stream end>': correct it"),
    ("messages: 1\nmessages: 2", ', line 2: not valid YAML: found duplicate key "messages" …: correct it'),
    ("arrivals: {rate: 1, rate: 2}", ', line 1: not valid YAML: found duplicate key "rate" …: correct it'),
    ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "a YAML alias is not allowed, got '*a': write the value out"),
    ("[" * 2000, "at most 50 lists and mappings may stand inside each other: write it flat"),
    ("messages: !!python/name:os.system 1", "a YAML tag is not allowed, got '…os.system': write the value alone"),
    ("name: a\n--- \nname: b", ", line 2: not valid YAML: but found another document: correct it"),
    ("name: \x00", "not valid YAML: unacceptable character #x0000: special characters are not allowed: correct it"),
    # keys
    (f"{ARRIVALS}mesages: 5", "unknown key 'mesages': did you mean 'messages'? known are …"),
    (f"{ARRIVALS}5: 6", "unknown key '5': known are …"),
    (f"{ARRIVALS}goods: {{sku: 5}}", "goods: unknown key 'sku': did you mean 'skus'? known are …"),
    ("arrivals: {process: poisson, rat: 5}", "arrivals.poisson: unknown key 'rat': did you mean 'rate'? known are …"),
    ("arrivals: {process: poison, rate: 5}", "arrivals: unknown process 'poison': did you mean 'poisson'? known are …"),
    ("arrivals: {rate: 5}", "arrivals.process is missing: add it"),
    ("arrivals: {process: poisson}", "arrivals.poisson.rate is missing: add it"),
    ("messages: 5", "arrivals is missing: add it"),
    # types, ranges, units
    ("arrivals: {process: poisson, rate: no}", f"arrivals.poisson.rate: {RATE.format('no')}"),
    ("arrivals: {process: poisson, rate: 5 ms}", f"arrivals.poisson.rate: {RATE.format('5 ms')}"),
    (
        "arrivals: {process: poisson, rate: -5/s}",
        "arrivals.poisson.rate must be above 0, got '-5/s': give a larger one",
    ),
    ("arrivals: {process: poisson, rate: [5]}", "arrivals.poisson.rate must be a number, got a list: write one …"),
    ("arrivals: poisson", "arrivals must be a mapping of keys to values, got 'poisson': put it in braces"),
    (
        "arrivals: {process: mmpp, rates: [1, 2, 3], stays: [1, 1]}",
        "arrivals.mmpp.rates must have 2 at most, got a list: take some out",
    ),
    (
        "arrivals: {process: profile, rate: 1, phases: []}",
        "arrivals.profile.phases must have 1 or more, got a list: add what is missing",
    ),
    (f"{ARRIVALS}messages: many", "messages must be a whole number, got 'many': write digits without quotes"),
    (f"{ARRIVALS}messages: '1e3'", "messages must be a whole number, got '1e3': write digits without quotes"),
    (f"{ARRIVALS}messages: 012", "a number must not begin with 0, got 012: write 12, or quotes around a text"),
    (f"{ARRIVALS}messages: 1_000_000_000", "messages must be at most 10000000, got 1000000000: give a smaller one"),
    (f"{ARRIVALS}customers: 0", "customers must be at least 1, got 0: give a larger one"),
    (f"{ARRIVALS}goods: {{receipts: no}}", "goods.receipts must be true or false, got 'no': write one of them"),
    (f"{ARRIVALS}goods: {{zipf: .inf}}", "goods.zipf must be finite, got inf: give a finite one"),
    (f"{ARRIVALS}handler_failure: 5%", "handler_failure must be a number, got '5%': write one without quotes"),
    (f"{ARRIVALS}handler_failure: 1.5", "handler_failure must be at most 1…, got 1.5: give a smaller one"),
    (f"{ARRIVALS}handler_work: 2 parsecs", f"handler_work: {TIME.format('2 parsecs')}"),
    (f"{ARRIVALS}patience: 1:30", f"patience: {TIME.format('1:30')}"),
    (f"{ARRIVALS}patience: 2020-01-01", "patience must be a number, got datetime.date(2020, 1, 1): write one …"),
    (f"{ARRIVALS}name: 5", "name must be a text, got 5: put it in quotes"),
    (
        f"{ARRIVALS}step_refused: 0.1",
        "`step_refused` is of a process of several steps, `process` is simple: say process: fulfilment",
    ),
    (f"{ARRIVALS}process: fulfillment", "unknown process 'fulfillment': did you mean 'fulfilment'? known are …"),
    (f"{ARRIVALS}mix: {{order: 0.9}}", "mix: the shares of the mix must add up to 1, got 1.8: correct them"),
    # faults
    (f"{ARRIVALS}faults: [{{fault: crush}}]", "faults.0: unknown fault 'crush': did you mean 'crash'? known are …"),
    (f"{ARRIVALS}faults: [{{part: shop}}]", "faults.0.fault is missing: add it"),
    (f"{ARRIVALS}faults: {{fault: crash}}", "faults must be a list, got a mapping: put it in brackets"),
    (
        f"{ARRIVALS}faults: [{{fault: loss, link: accounting-shop, probability: -0.1}}]",
        "faults.0.loss.probability must be at least 0…, got -0.1: give a larger one",
    ),
]

ELSEWHERE = [
    ("faults: [{fault: crash, part: shpo, at: [1 s]}]", "unknown part of a fault 'shpo': did you mean 'shop'? …"),
    ("faults: [{fault: loss, link: shop, probability: 0.1}]", "unknown link of a fault 'shop': … are …"),
]
"""What only the architecture knows to be wrong with a scenario."""

TRACES = [
    (None, "trace t.txt cannot be read as one time a line: No such file or directory: correct it"),
    ("", "trace t.txt must hold ascending times from 0 on, not all 0: correct it"),
    ("one\n", "trace t.txt cannot be read as one time a line: could not convert string to float: 'one': correct it"),
    ("1 2\n", "trace t.txt cannot be read as one time a line: could not convert string to float: '1 2': correct it"),
    ("2\n1\n", "trace t.txt must hold ascending times from 0 on, not all 0: correct it"),
    ("0\n0\n", "trace t.txt must hold ascending times from 0 on, not all 0: correct it"),
    ("1\n2\n", "trace t.txt has 2 arrivals, asked for 5: ask for fewer messages"),
]

PLAN = {
    "replications": "2",
    "messages": "500",
    "architectures": "[{architecture: rest}, {architecture: message_queue}]",
    "scenarios": "[{scenario: steady, rates: [50/s, 100/s]}, {scenario: burst}]",
}
PLANS = [
    ("architectures", "[{architecture: restt}]", "unknown architecture 'restt': did you mean 'rest'? known are …"),
    ("architectures", "[{architectur: rest}]", "architectures.0: unknown key 'architectur': did you mean …"),
    ("architectures", "[rest]", "architectures.0 must be a mapping of keys to values, got 'rest': put it in braces"),
    ("architectures", "[]", "architectures must have 1 or more, got a list: add what is missing"),
    ("architectures", None, "architectures is missing: add it"),
    ("architectures", "[{architecture: rest}, {architecture: rest}]", "'rest-steady' stands in the plan twice: …"),
    ("architectures", "[{architecture: rest, variant: x}]", "architectures.0: a variant is …: give both or neither"),
    (
        "architectures",
        "[{architecture: rest, variant: x, parameters: {retrys: 0}}]",
        "unknown parameter 'retrys': did you mean 'retries'? known are …",
    ),
    (
        "architectures",
        "[{architecture: rest, variant: x, parameters: {retries: -1}}]",
        "parameters: retries must be at least 0, got -1: give a larger one",
    ),
    (
        "architectures",
        "[{architecture: rest, variant: x/y, parameters: {retries: 0}}]",
        "architectures.0.variant must match …, got 'x/y': change it",
    ),
    ("scenarios", "[{scenario: stedy}]", "unknown scenario 'stedy': did you mean 'steady'? known are …"),
    ("scenarios", "[{scenario: steady, rate: 5}]", "scenarios.0: unknown key 'rate': did you mean 'rates'? known …"),
    ("scenarios", "[{scenario: steady, rates: 5}]", "scenarios.0.rates must be a list, got 5: put it in brackets"),
    ("scenarios", "[{scenario: steady, rates: [9, 5]}]", "scenarios.0: rates must ascend, each given once: sort them"),
    ("scenarios", "[{scenario: steady, rates: [0]}]", "scenarios.0.rates.0 must be above 0, got 0: give a larger one"),
    ("scenarios", "[{scenario: flash_sale}]", "500 messages end before the last phase of …: ask for … or more"),
    ("replications", "1", "replications must be at least 2, got 1: give a larger one"),
    ("replications", "true", "replications must be a whole number, got True: write digits without quotes"),
    ("messages", "-5", "messages must be at least 1, got -5: give a larger one"),
    ("seed", "-1", "seed must be at least 0, got -1: give a larger one"),
    ("speed", "1", "unknown key 'speed': did you mean 'seed'? known are …"),
    ("name", "..", "name must match …, got '..': change it"),
]


def cut(part: float):
    """What leaves only the first part of a file."""
    return lambda content: content[: int(part * len(content))]


def until(word: bytes):
    """What leaves a file up to a word."""
    return lambda content: content[: content.index(word)]


DAMAGED = [
    ("history/messages.parquet", cut(0.5), "check history", "history holds no history that can be read: …"),
    ("history/messages.parquet", cut(0), "check history", "history holds no history that can be read: … 0 bytes: …"),
    ("history/effects.parquet", None, "check history", "history holds no history …: history/effects.parquet: …"),
    ("history/meta.json", cut(0.5), "check history", "history holds no history that can be read: …"),
    ("history/meta.json", lambda _: b"[]", "check history", "history holds no history …: meta.json is no mapping: …"),
    (
        "history/faults.parquet",
        "history/parts.parquet",
        "check history",
        "history/faults.parquet has no column 'fault' of string, as a history of this version has: run again …",
    ),
    ("calibration/system.yaml", cut(0.3), "run rest", "…system.yaml…"),
    (
        "calibration/system.yaml",
        until(b"  commit:"),
        "run rest",
        "…system.yaml must hold 'commit', but was cut short: …",
    ),
    ("calibration/system.yaml", cut(0), "run rest", "…system.yaml: a calibration must be a mapping …, got nothing: …"),
    (
        "calibration/system.yaml",
        lambda _: b"parameters: {network: {value: 5 parsecs, provenance: measured}}",
        "run rest",
        f"…system.yaml: parameters.network.value: {TIME.format('5 parsecs')}",
    ),
    (
        "calibration/system.yaml",
        lambda _: b"parameters: {netwrok: {value: 5 ms, provenance: measured}}",
        "run rest",
        "…system.yaml: unknown parameter 'netwrok': did you mean 'network'? known are …",
    ),
    ("sweep.ipynb", cut(0.5), "sweep plan.yaml", "…sweep.ipynb is not a notebook: …"),
    (
        "sweep.ipynb",
        lambda content: content.replace(b'"parameters"', b'"settings"'),
        "sweep plan.yaml",
        "…sweep.ipynb must have one cell tagged 'parameters', it has 0: tag the one",
    ),
    (
        "sweep.ipynb",
        lambda content: content.replace(b"rates = ", b"rate = "),
        "sweep plan.yaml",
        "unknown parameter of sweep.ipynb 'rates': did you mean 'rate'? known are …",
    ),
    (
        "sweep.ipynb",
        lambda content: content.replace(b"seed = 1", b"seed = messages"),
        "sweep plan.yaml",
        "…sweep.ipynb: the parameters cell may hold only names and literals, got 'seed = messages': move it",
    ),
    ("results", lambda _: b"a file", "sweep plan.yaml", "folder …results/tiny cannot be written: Not a directory: …"),
    (
        "results/tiny/rest-burst",
        lambda _: b"",
        "sweep plan.yaml",
        "folder …rest-burst cannot be written: File exists: …",
    ),
]

PARTS = {"postgres": postgres, "nats": nats, "rabbitmq": rabbitmq, "kafka": kafka}
SCHEMES = {"postgres": "postgresql", "nats": "nats", "rabbitmq": "amqp", "kafka": "kafka"}
URLS = [
    ("http://127.0.0.1:80", "{variable} must start with {scheme}://, got 'http': correct or unset it"),
    ("{scheme}://127.0.0.1:{closed}/x", "{variable} must name …: …Connection refused…: correct or unset it"),
    ("{scheme}://127.0.0.1:{other}/x", "{variable} must name …: correct or unset it"),
    ("{scheme}://[/x", "{variable} must name …: correct or unset it"),
]

CALLS = [
    (lambda: simlib.run("restt"), "unknown architecture 'restt': did you mean 'rest'? known are …"),
    (lambda: simlib.run("rest", "stedy"), "unknown scenario 'stedy': did you mean 'steady'? known are …"),
    (lambda: simlib.run("rest", params={"retrys": 1}), "unknown parameter 'retrys': did you mean 'retries'? …"),
    (lambda: simlib.run("rest", seed=-1), f"seed must be a whole number from 0 to {SEEDS}, got -1: give one"),
    (lambda: simlib.run("rest", messages=1.5), "messages must be a whole number from 1 to 10000000, got 1.5: give one"),
    (lambda: simlib.run("rest", rate=-5), "a rate must be above 0, got -5: write --rate 100/s"),
    (lambda: simlib.run("rest", engine="simpie"), "unknown engine 'simpie': did you mean 'simpy'? known are …"),
    (lambda: simlib.replicate("rest", replications=0), "replications must be a whole number of at least 1, got 0: …"),
    (lambda: metrics.unit_of("througput"), "unknown metric 'througput': did you mean 'throughput'? known are …"),
    (lambda: experiments.read("nowhere"), "nowhere holds no results: run simlib sweep with a plan of that name"),
    (lambda: Exponential(mean=-1), "Exponential: mean must be above 0, got -1: give a larger one"),
    (lambda: Exponential(meen=1), "Exponential: unknown key 'meen': did you mean 'mean'? known are family, mean"),
    (lambda: Exponential(1, 2), "Exponential takes mean, got 2 values: take some out"),
    (lambda: Lognormal("2 ms"), "Lognormal: cv is missing: add it"),
    (lambda: Quantiles([2, 1]), "Quantiles: values must ascend: sort them"),
    (lambda: Constant("2 parsecs"), f"Constant: value: {TIME.format('2 parsecs')}"),
    (lambda: delay("exponential(0)"), "Exponential: mean must be above 0, got 0: give a larger one"),
    (lambda: delay(None), "must be a time such as '5 ms', or a distribution such as …, got nothing: write one"),
    (lambda: delay({"family": [1]}), "unknown distribution '[1]': known are …"),
    (lambda: delay({"family": "nomal"}), "unknown distribution 'nomal': did you mean 'lognormal'? known are …"),
    (lambda: Flow("f").pool("p", capacity=0), "capacity of pool 'p' must be a whole number of at least 1, got 0: …"),
    (lambda: Flow("f").source("s", [], batch=True), "batch of source 's' must be a whole number …, got True: give one"),
    (lambda: checked(), "flow 'f': nothing enters: give it a source"),
    (lambda: checked(apply), "flow 'f', source 'job': apply is no step: call it, or take it out"),
    (lambda: checked(ack()), "flow 'f', source 'job': ack() outside of consumers, where there is no delivery: …"),
    (lambda: checked(choose({"end": 1.0})), "unknown stage 'end': known are "),
    (lambda: checked(fork([apply("a")], join=2)), "… join of a fork must be …, got 2: correct it"),
    (lambda: checked(retry(Backoff(-1), [])), "… retries of a retry must be a whole number of at least 0, got -1: …"),
    (lambda: simlib.simulate(Flow("f"), messages=0), "messages must be a whole number from 1 to 10000000, got 0: …"),
]
"""Calls of the API: the vocabulary's own check is tested in tests/flow/test_check.py."""


def checked(*steps):
    flow = Flow("f")
    if steps:
        flow.source("job", interarrival=1, steps=steps)
    return flow.check()


def says(expected: str, line: str) -> bool:
    """Whether a line is the expected one."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), line) is not None


def refused(capsys, command: str) -> str:
    """The one line that a command ends with, which prints nothing else, and leaves nothing behind."""
    before = tree(Path())
    status = cli.main(shlex.split(command, posix=False))
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and printed.err.endswith("\n")
    assert tree(Path()) == before
    return printed.err.removeprefix("error: ").removesuffix("\n")


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty folder to be in, which is the project's too."""
    monkeypatch.chdir(tmp_path)
    for name in ("PLANS", "MEASUREMENTS", "BROKERS", "CALIBRATION", "RESULTS", "FIGURES", "REPORT"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for part in PARTS.values():
        monkeypatch.delenv(part.URL, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of files as they should be."""
    folder = tmp_path_factory.mktemp("whole")
    api.run("rest", messages=50).save(folder / "history")
    shutil.copytree(paths.PACKAGE.parent / "data" / "calibration", folder / "calibration")
    shutil.copy(runner.NOTEBOOK, folder)
    (folder / "plan.yaml").write_text("name: tiny\n" + "".join(f"{key}: {value}\n" for key, value in PLAN.items()))
    return folder


def test_the_table_is_long():
    tables = (COMMANDS, SETTINGS, SCENARIOS, ELSEWHERE, TRACES, PLANS, DAMAGED, URLS * len(PARTS), CALLS)
    assert sum(map(len, tables)) >= 200


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_that_cannot_be(capsys, home, command, line):
    (home / "file").touch()
    (home / ".yaml").mkdir()
    assert says(line, found := refused(capsys, command)), found


@pytest.mark.parametrize(("settings", "line"), SETTINGS, ids=[settings for settings, _ in SETTINGS])
def test_a_parameter_that_cannot_be(capsys, settings, line):
    architecture, *values = settings.split()
    options = " ".join(f"--set {value}" for value in values)
    assert says(line, found := refused(capsys, f"run {architecture} {options}")), found


@pytest.mark.parametrize(("text", "line"), SCENARIOS, ids=[text[-40:] for text, _ in SCENARIOS])
def test_a_scenario_that_cannot_be(capsys, home, text, line):
    (home / "s.yaml").write_text(text)
    line = f"s.yaml{'' if line.startswith(',') else ': '}{line}"
    assert says(line, found := refused(capsys, "run rest --scenario s.yaml")), found


@pytest.mark.parametrize(("text", "line"), ELSEWHERE)
def test_a_scenario_that_the_architecture_cannot_have(capsys, home, text, line):
    (home / "s.yaml").write_text(ARRIVALS + text)
    assert says(line, found := refused(capsys, "run rest --scenario s.yaml")), found


def test_a_scenario_that_is_no_text(capsys, home):
    (home / "s.yaml").write_bytes(b"\xff\xfe\x00")
    assert refused(capsys, "run rest --scenario s.yaml") == "s.yaml is no text in UTF-8 (byte 0): name a YAML file"


@pytest.mark.parametrize(("text", "line"), TRACES)
def test_a_trace_that_cannot_be(capsys, home, text, line):
    if text is not None:
        (home / "t.txt").write_text(text)
    (home / "s.yaml").write_text("arrivals: {process: trace, file: t.txt}")
    assert says(line, found := refused(capsys, "run rest --scenario s.yaml --messages 5")), found


@pytest.mark.parametrize(("key", "value", "line"), PLANS, ids=[f"{key}: {value}" for key, value, _ in PLANS])
def test_a_plan_that_cannot_be(capsys, home, key, value, line):
    entries = {**PLAN, key: value}
    (home / "p.yaml").write_text("".join(f"{key}: {value}\n" for key, value in entries.items() if value is not None))
    assert says(f"p.yaml: {line}", found := refused(capsys, "sweep p.yaml")), found


@pytest.mark.parametrize(("file", "damage", "command", "line"), DAMAGED)
def test_a_file_that_was_damaged(capsys, monkeypatch, whole, home, file, damage, command, line):
    shutil.copytree(whole, home, dirs_exist_ok=True)
    monkeypatch.setattr(runner, "NOTEBOOK", home / "sweep.ipynb")
    path = home / file
    if damage is None:
        path.unlink()
    elif isinstance(damage, str):
        shutil.copy(home / damage, path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage(path.read_bytes() if path.exists() else b""))
    assert says(line, found := refused(capsys, command)), found


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("url", "line"), URLS)
def test_a_server_that_is_none(capsys, monkeypatch, name, url, line):
    with a_server_of_another_kind() as other:
        where = {"scheme": SCHEMES[name], "closed": processes.free_port(), "other": other}
        monkeypatch.setenv(PARTS[name].URL, url.format(**where))
        found = refused(capsys, "doctor")
    assert says(line.format(variable=PARTS[name].URL, **where), found), found


@contextmanager
def a_server_of_another_kind():
    """The port of a server that answers as a web server does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak():
            with suppress(OSError):
                connection, _ = listening.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        threading.Thread(target=speak, daemon=True).start()
        yield listening.getsockname()[1]


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "line"),
    [("postgres", "…password…"), ("nats", "…Authorization Violation…"), ("rabbitmq", "…refused…")],
)
def test_a_server_that_lets_nobody_in_with_this_password(capsys, monkeypatch, tmp_path, name, line):
    part = PARTS[name]
    require_part(part.found() is not None, part.INSTALL)
    with ExitStack() as stack:
        url = locked(stack, tmp_path) if name == "nats" else stack.enter_context(getattr(part, name)()).url
        monkeypatch.setenv(part.URL, url.replace("simlib:", "simlib:not-"))
        found = refused(capsys, "doctor")
    assert says(f"{part.URL} must name …: correct or unset it", found) and says(line, found), found


def locked(stack: ExitStack, folder: Path) -> str:
    """The URL of a NATS that asks for a password."""
    port = processes.free_port()
    url = f"nats://simlib:secret@127.0.0.1:{port}"
    command = [nats._binary(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "store")]
    log = folder / "nats.log"
    server = processes.start([*command, "--user", "simlib", "--pass", "secret"], log)
    stack.callback(processes.stop, server)
    processes.wait_until(lambda: answers(url, nats._greet), server, "NATS", log)
    return url


@pytest.mark.parametrize(("call", "line"), CALLS, ids=[line[:50] for _, line in CALLS])
def test_a_call_that_cannot_be(call, line):
    with pytest.raises(BadInput) as refusal:
        call()
    assert says(line, str(refusal.value)), refusal.value


def test_numbers_that_are_written_otherwise_are_the_same(home):
    """What YAML 1.2 and the units mean is no bad input."""
    (home / "s.yaml").write_text("arrivals: {process: poisson, rate: 6000/min}\npatience: 1e3 ms\nhorizon: 1e2\n")
    scenario = simlib.scenario.load_scenario("s.yaml")
    assert (scenario.rate, scenario.patience, scenario.horizon) == (100.0, 1.0, 100.0)


# --- what needs a process of its own --------------------------------------------------------------------------------


def command(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "simlib.cli", *arguments], stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_output_that_takes_nothing(options):
    with open("/dev/full", "w") as full:
        listing = command("list", "metrics", *options, stdout=full)
        _, err = listing.communicate(timeout=60)
    assert listing.returncode == 2
    assert err == "error: standard output cannot be written: No space left on device: send it elsewhere\n"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(os.cpu_count() == 1, reason="one processor, no workers")
def test_however_a_run_is_stopped_its_processes_end(tmp_path, by):
    """SimPy's replications run in processes; an interrupt in a terminal reaches them too."""
    run = command(
        "run", "rest", "--engine", "simpy", "--messages", "200000", "--replications", "2",
        start_new_session=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    main, deadline = psutil.Process(run.pid), time.monotonic() + 120
    workers = []
    while sum(each.cpu_times().user > 0.3 for each in workers) < 2:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
        workers = main.children()
    if by is signal.SIGINT:
        os.killpg(run.pid, by)
    else:
        run.send_signal(by)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == ((-by, "") if by is signal.SIGKILL else (130, "error: interrupted\n"))
    assert not list(tmp_path.iterdir())
