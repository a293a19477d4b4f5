"""The files of the live exchange: XML after the manner of CommerceML, checked against `exchange.xsd`; and where they lie."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lxml import etree

from simlib.architectures.twin import Drawn, Level, Order
from simlib.domain import TAKEN

SCHEMA = etree.XMLSchema(file=str(Path(__file__).with_name("exchange.xsd")))
Record = Level | Order
Goods = tuple[int, int, int]
"""A SKU, its level and version."""
ROW = ("message", "effect", "sku", "level", "version", "change", "session", "handling", "steps")
"""What is registered of a message, as columns."""
STEPS = "steps"
"""The element of an order that goes through several steps."""


class Unreadable(Exception):
    """A file is no exchange."""


def written(side: str, registered: Iterable[Any], unchanged: Iterable[Goods] = ()) -> bytes:
    """A file of what is registered (see `ROW`), and of goods that no message changed."""
    root = etree.Element("exchange", {"from": side})
    for message, effect, sku, level, version, change, session, handling, steps in registered:
        if effect == TAKEN:
            attributes = {"message": message, "sku": sku, "quantity": change, "session": session}
        else:
            attributes = {"message": message, "effect": effect, "sku": sku, "level": level, "version": version}
            attributes["change"] = change
        element = etree.SubElement(root, "order" if effect == TAKEN else "offer", _texts(attributes))
        for name, drawn in handling.items():
            etree.SubElement(element, name, {"work": _list(drawn["work"]), "fails": _list(map(int, drawn["fails"]))})
        if steps:
            etree.SubElement(element, STEPS).text = json.dumps(steps)
    for sku, level, version in unchanged:
        etree.SubElement(root, "offer", _texts({"sku": sku, "level": level, "version": version}))
    return bytes(etree.tostring(root, xml_declaration=True, encoding="utf-8", pretty_print=True))


def opened(content: bytes) -> tuple[list[Record], list[Goods]]:
    """The records and the unchanged goods that a file holds; raises Unreadable where it is no exchange."""
    try:
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True))
        SCHEMA.assertValid(root)
    except (etree.XMLSyntaxError, etree.DocumentInvalid) as error:
        raise Unreadable(str(error)) from None
    records: list[Record] = []
    unchanged: list[Goods] = []
    for element in root:
        of = dict(element.attrib) | {
            one.tag: _drawn(one) if one.tag != STEPS else json.loads(one.text) for one in element
        }
        if element.tag == "order":
            records.append(Order.model_validate(of))
        elif "message" in of:
            records.append(Level.model_validate(of))
        else:
            unchanged.append((int(of["sku"]), int(of["level"]), int(of["version"])))
    return records, unchanged


def only(content: bytes, messages: Iterable[int]) -> bytes:
    """A file with no more than what it holds of these messages."""
    root, kept = etree.fromstring(content), {str(message) for message in messages}
    for element in root:
        if element.get("message") not in kept:
            root.remove(element)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="utf-8"))


def _texts(attributes: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in attributes.items()}


def _list(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))


def _drawn(element: Any) -> Drawn:
    work, fails = element.get("work").split(), element.get("fails").split()
    return Drawn(work=[float(one) for one in work], fails=[one in ("1", "true") for one in fails])


class Files:
    """The files that the other side has not read, each NUMBER-TRIES.xml in a folder: how often it was fetched is in its name, so
    that a crash forgets nothing. What was read is kept in `read`, what nobody can read in `aside`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.there = folder, asyncio.Event()
        for kept in ("read", "aside"):
            (folder / kept).mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes) -> None:
        """A new file, whole from the moment at which it is there."""
        self._write(self.folder / f"{time.time_ns()}-0.xml", content)
        self.there.set()

    def unread(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("*-*.xml"))

    async def fetched(self, within: float) -> Path | None:
        """The oldest, fetched once more; None where there is none for so long, s."""
        if not self.unread():
            self.there.clear()
            try:
                await asyncio.wait_for(self.there.wait(), within)
            except TimeoutError:
                return None
        oldest = self.unread()[0]
        number, tries = oldest.stem.split("-")
        return oldest.rename(oldest.with_stem(f"{number}-{int(tries) + 1}"))

    def settle(self, name: str, into: str) -> None:
        """It is `read`, or set `aside`."""
        file = self.folder / name
        if file.exists():
            file.rename(self.folder / into / name)

    def keep(self, name: str, messages: Iterable[int]) -> None:
        """It is read, but for these messages, which are to be read again before all else."""
        file = self.folder / name
        self._write(file, only(file.read_bytes(), messages))

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
