"""Calls of one live side to the other over HTTP: the client, and what the server answers where its handler fails."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated, Any

import aiohttp
from fastapi import Header, HTTPException
from pydantic import BaseModel

from simlib.architectures.twin import Drawn, HandlingFailed, Level, Order, Query, Side

Attempt = Annotated[int, Header()]


class Client:
    """Calls the other side, or another program: a pool of connections, a timeout that abandons, retries with backoff and jitter.

    The number of the message is the key by which the server knows a request again (`idempotency`).
    aiohttp and not httpx: a call costs about a seventh of the CPU, which both sides share.
    """

    def __init__(self, side: Side, to: str | None = None) -> None:
        self.side = side
        p = side.config.parameters
        self.retries, self.backoff, self.jitter = int(p["retries"]), float(p["backoff"]), bool(p["jitter"])
        self.session = aiohttp.ClientSession(
            base_url=side.config.address(to) if to else side.config.peer,
            connector=aiohttp.TCPConnector(limit=int(p["connections"]), keepalive_timeout=3600),
            timeout=aiohttp.ClientTimeout(total=float(p["timeout"])),
        )

    async def post(self, path: str, message: int, body: BaseModel) -> Any:
        """The answer; raises HTTPException 504 where an attempt may have succeeded unheard, 502 where all failed."""
        content, unheard = body.model_dump_json().encode(), False
        for attempt in range(1, self.retries + 2):
            if attempt > 1:
                await asyncio.sleep(self.backoff * 2 ** (attempt - 2) * (random.random() if self.jitter else 1.0))
            try:
                with self.side.trace.stage(message, "call", attempt):
                    return await self._once(path, message, content, attempt)
            except TimeoutError:
                unheard = True
            except aiohttp.ClientResponseError as error:
                unheard = unheard or error.status == 504  # who answers in the server's place does not know either
            except aiohttp.ClientConnectorError:
                continue
            except aiohttp.ClientError:
                unheard = True
        raise HTTPException(504 if unheard else 502)

    async def _once(self, path: str, message: int, content: bytes, attempt: int) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(message),
            "Attempt": str(attempt),
        }
        async with self.session.post(path, data=content, headers=headers) as response:
            response.raise_for_status()
            return await response.json()


def handle(side: Side, message: Order | Query | Level, attempt: int, drawn: Drawn | None = None) -> None:
    """The handler's work, as drawn for the message or for a step of it; a failure is an error of the server to the caller."""
    try:
        side.handle(message.message, drawn or message.handling, attempt)
    except HandlingFailed as error:
        raise HTTPException(500) from error
