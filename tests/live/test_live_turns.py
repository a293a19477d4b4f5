"""The turns of an event loop that the models give the tasks of their twins' clients are those that these take."""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import aio_pika
import aiohttp
import nats as nats_client
import pytest
import uvloop
from psycopg_pool import AsyncConnectionPool

from simlib.architectures.parameters import CONNECTION_GIVEN, THREAD_DONE
from simlib.architectures.queues import Client, JetStream, QuorumQueue

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
LASTS, TRIES = 0.005, 15
"""How long a turn is made to last, s; and how often each thing is done."""
UNDER_WAY = 0.5
"""How long what was written may take to a peer on this machine, s."""


class Turns:
    """Something that takes some time in every turn of the event loop, and counts them; and in which a socket was last read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.read = 0
        feed = asyncio.StreamReader.feed_data

        def note(reader: asyncio.StreamReader, data: bytes) -> None:
            self.read = self.count
            feed(reader, data)

        monkeypatch.setattr(asyncio.StreamReader, "feed_data", note)

    def take(self) -> None:
        self.count += 1
        end = time.perf_counter() + LASTS
        while time.perf_counter() < end:
            pass
        asyncio.get_running_loop().call_soon(self.take)

    async def of(self, act: Callable[[], Awaitable[object]]) -> float:
        """The turns that an act takes: the median of the tries."""
        taken = []
        for _ in range(TRIES):
            before = self.count
            await act()
            taken.append(self.count - before)
        return statistics.median(taken)

    async def since_read(self, act: Callable[[], Awaitable[object]]) -> float:
        """The turns from the reading of what an act waits for: the median of the tries."""
        taken = []
        for _ in range(TRIES):
            await act()
            taken.append(self.count - self.read)
        return statistics.median(taken)

    async def client(
        self,
        publish: Callable[[], Awaitable[object]],
        consume: Callable[[], Awaitable[object]],
        send: Callable[[], Awaitable[object]],
        inbox: asyncio.Queue,
    ) -> Client:
        """What a client takes that publishes with a confirm, then has deliveries put into an inbox, and sends without a confirm."""

        async def acknowledge() -> None:
            await (await inbox.get()).ack()

        async def deliver() -> None:
            await send()
            await inbox.get()

        self.take()
        confirm = await self.since_read(publish)
        await consume()
        while inbox.qsize() < TRIES:
            await asyncio.sleep(0)
        waits = await self.of(acknowledge)
        assert waits in (0, 2)
        return Client(delivery=int(await self.since_read(deliver)), confirm=int(confirm), waits=waits == 2)


async def of_jetstream(url: str, turns: Turns) -> Client:
    connection = await nats_client.connect(url)
    jetstream, inbox = connection.jetstream(), asyncio.Queue()
    await jetstream.add_stream(name="turns", subjects=["turns"])

    async def take(delivery) -> None:
        inbox.put_nowait(delivery)

    def consume():
        return jetstream.subscribe("turns", stream="turns", cb=take, manual_ack=True)

    counted = await turns.client(
        lambda: jetstream.publish("turns", b""), consume, lambda: connection.publish("turns", b""), inbox
    )
    await jetstream.delete_stream("turns")
    return counted


async def of_rabbitmq(url: str, turns: Turns) -> Client:
    connection = await aio_pika.connect_robust(url)
    confirming, plain = [await connection.channel(publisher_confirms=confirms) for confirms in (True, False)]
    queue, inbox = await plain.declare_queue(exclusive=True, auto_delete=True), asyncio.Queue()

    async def take(delivery) -> None:
        inbox.put_nowait(delivery)

    def publish(channel):
        return channel.default_exchange.publish(aio_pika.Message(b""), routing_key=queue.name)

    return await turns.client(lambda: publish(confirming), lambda: queue.consume(take), lambda: publish(plain), inbox)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="asyncio.wait_for takes a turn less from Python 3.12 on")
def test_jetstreams_client_takes_the_turns_that_the_models_count(nats, monkeypatch):
    assert uvloop.run(of_jetstream(nats.url, Turns(monkeypatch))) == JetStream().client


def test_rabbitmqs_client_takes_the_turns_that_the_models_count(rabbitmq, monkeypatch):
    assert uvloop.run(of_rabbitmq(rabbitmq.url, Turns(monkeypatch))) == QuorumQueue().client


async def turns_until(peer: socket.socket) -> int:
    """The turns of the loop, from this one on, until a peer has something to read: none ends while that may be under way."""
    for turn in itertools.count():
        if select.select([peer], [], [], UNDER_WAY)[0]:
            return turn
        assert turn < TRIES, "nothing comes"
        await asyncio.sleep(0)


async def of_a_write() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = listener.accept()

        async def write() -> None:
            transport.write(b"x")

        with peer:
            writing, looking = asyncio.create_task(write()), asyncio.create_task(turns_until(peer))
            turns = await looking
            await writing
            transport.close()
    return turns


async def of_a_request(content: bytes | None) -> int:
    """Over a connection that stands."""

    def answer() -> None:
        peer.recv(1 << 16)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with aiohttp.ClientSession("http://{}:{}".format(*listener.getsockname())) as session:

            async def ask() -> None:
                async with session.post("/", data=content) as answered:
                    await answered.read()

            asking = asyncio.create_task(ask())
            peer, _ = await asyncio.to_thread(listener.accept)
            with peer:
                await asyncio.to_thread(answer)
                await asking
                asking, looking = asyncio.create_task(ask()), asyncio.create_task(turns_until(peer))
                turns = await looking
                answer()
                await asking
    return turns


def test_what_a_task_writes_leaves_at_once_and_waits_for_no_other_task_of_the_iteration():
    assert uvloop.run(of_a_write()) == 0


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="aiohttp writes in the task that asks from Python 3.12 on")
def test_a_request_with_content_leaves_one_turn_after_the_task_that_posts_it():
    assert uvloop.run(of_a_request(b"{}")) == 1


def test_a_request_without_content_leaves_at_once():
    assert uvloop.run(of_a_request(None)) == 0


async def of_a_connection(url: str, turns: Turns) -> float:
    """From the turn in which a connection is given back until who waits for it has it."""
    async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
        turns.take()

        async def had() -> int:
            connection = await pool.getconn()
            turn = turns.count
            await pool.putconn(connection)
            return turn

        async def waited() -> int:
            connection = await pool.getconn()
            waiting = asyncio.create_task(had())
            await asyncio.sleep(5 * LASTS)
            given = turns.count
            await pool.putconn(connection)
            return await waiting - given

        return statistics.median([await waited() for _ in range(TRIES)])


async def of_a_thread(turns: Turns) -> float:
    """From the turn in which a thread is done until who waits for it goes on."""
    with ThreadPoolExecutor(1) as threads:
        turns.take()

        def work() -> None:
            time.sleep(3.5 * LASTS)
            turns.read = turns.count

        return await turns.since_read(lambda: asyncio.get_running_loop().run_in_executor(threads, work))


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="asyncio.wait_for takes two turns less from Python 3.12 on")
def test_who_waits_for_a_connection_to_the_database_goes_on_in_the_turn_that_the_models_count(postgres, monkeypatch):
    assert uvloop.run(of_a_connection(postgres.url, Turns(monkeypatch))) == CONNECTION_GIVEN


def test_who_waits_for_a_thread_goes_on_in_the_turn_that_the_models_count(monkeypatch):
    assert uvloop.run(of_a_thread(Turns(monkeypatch))) == THREAD_DONE
