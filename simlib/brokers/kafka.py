"""Kafka: found or started as one node in KRaft mode. Its jars come from Maven, once: run as a program, this module fetches them.

A record is in the page cache when it is confirmed, and a power cut can lose it; whoever wants it on disk before gives the topic
`flush.messages=1` (Apache Kafka documentation, Topic Configs).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from simlib import paths
from simlib.brokers import Part, Server, answers, processes, version_at
from simlib.errors import BadInput, MissingPart, RunFailed

URL = "SIMLIB_KAFKA_URL"
INSTALL = f"put Java 17 on the PATH and install the jars (`make parts`, which needs Maven), or set {URL}"
"""What to do where it is missing."""
SCHEMES = ("kafka",)
QUIET = {"log_level": 0}
"""Settings of a client that prints nothing."""
_POM = Path(__file__).with_name("kafka.pom.xml")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_JVM = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
"""A small heap, the simplest collector and the first compiler only: it starts in two seconds."""


def found() -> Part | None:
    """The server that `kafka()` would use, None if there is none; raises BadInput where the named one is of no use."""
    if url := os.environ.get(URL):
        return Part("kafka", version(url), URL)
    jar, java = next(_jars().glob("kafka_*.jar"), None), shutil.which("java")
    return Part("kafka", jar.stem.rpartition("-")[2], str(_jars())) if jar and java else None


def version(url: str, named: str = URL) -> str:
    """Version of the server at a URL; raises BadInput, which says what `named` it, where it is of no use."""
    return version_at(named, url, SCHEMES, "Kafka server", _greet)


@contextmanager
def kafka() -> Iterator[Server]:
    """A running server: the one that the environment names, else one of our own for as long as the block lasts.

    Raises MissingPart where there is none, and BadInput where it cannot be used or started.
    """
    part = found()
    if part is None:
        raise MissingPart(f"Kafka is not on this machine: {INSTALL}")
    if url := os.environ.get(URL):
        yield Server(part, url)
        return
    with processes.folder({}) as folder:
        port, log = processes.free_port(), folder / "server.log"
        config, logging = folder / "server.properties", folder / "log4j.properties"
        config.write_text(_properties(_settings(port, folder / "data")))
        logging.write_text(_properties(_LOGGING))
        java = ["java", *_JVM, f"-Dlog4j.configuration=file:{logging}", "-cp", f"{_jars()}/*"]
        make = [*java, "kafka.tools.StorageTool", "format", "-t", "c2ltbGliLWthZmthLTAwMQ", "-c", str(config)]
        with log.open("wb") as out:
            made = subprocess.run(make, stdout=out, stderr=out, cwd=folder, check=False)
        if made.returncode:
            raise BadInput(f"Kafka cannot make its data folder in {folder.parent}: {processes.last_words(log)}")
        url = f"kafka://127.0.0.1:{port}"
        command = [*java, "kafka.Kafka", str(config)]
        with processes.Program("Kafka", command, log, lambda: answers(url, _greet), cwd=folder) as program:
            yield Server(part, url, program)


def address(url: str) -> str:
    """Host and port of a URL, as Kafka's clients want them; raises ValueError where it names none."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or 9092}"


def install() -> None:
    """Fetch the jars; raises RunFailed where Maven is not there, or fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise RunFailed("Maven is not on this machine: apt-get install maven openjdk-17-jre-headless")
    paths.writable(_jars())
    fetched = subprocess.run([maven, "-q", "-B", "-f", str(_POM), _COPY, f"-DoutputDirectory={_jars()}"], check=False)
    if fetched.returncode:
        raise RunFailed(f"Maven could not fetch Kafka's jars into {_jars()}: see what it says above")


def _jars() -> Path:
    return paths.PARTS / "kafka"


def _settings(port: int, data: Path) -> dict[str, object]:
    """One node, broker and controller in one, on loopback; groups may have short sessions, and begin at once. A node that was
    killed is let in again when its session is over (Kafka's default: 9 s)."""
    controller = processes.free_port()
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
        "log.flush.scheduler.interval.ms": 100,
        "auto.create.topics.enable": "false",
        "num.network.threads": 2,
        "num.io.threads": 4,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.min.session.timeout.ms": 10,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 8 * 2**20,
    }


_LOGGING = {
    "log4j.rootLogger": "ERROR, out",
    "log4j.appender.out": "org.apache.log4j.ConsoleAppender",
    "log4j.appender.out.layout": "org.apache.log4j.PatternLayout",
    "log4j.appender.out.layout.ConversionPattern": "%m%n",
}


def _properties(settings: dict[str, object] | dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _greet(url: str) -> str:
    """Ask who is there, as a client does; the version that the nodes speak to each other. Raises OSError or ValueError where no
    Kafka answers."""
    parts = urlsplit(url)
    socket.create_connection((parts.hostname or "", parts.port or 9092), timeout=5).close()
    try:
        client = AdminClient({"bootstrap.servers": address(url), **QUIET})
        brokers = client.list_topics(timeout=5).brokers
        if not brokers:
            raise ValueError("no broker has registered there yet")
        node = ConfigResource(ConfigResource.Type.BROKER, str(next(iter(brokers))))
        configuration = client.describe_configs([node], request_timeout=5)[node].result()
    except KafkaException as error:
        raise ValueError(error.args[0].str()) from None
    spoken = configuration.get("inter.broker.protocol.version")
    return str(spoken.value).partition("-")[0] if spoken else "unknown"


if __name__ == "__main__":
    try:
        install()
    except (BadInput, RunFailed) as failure:
        sys.exit(f"error: {failure}")
