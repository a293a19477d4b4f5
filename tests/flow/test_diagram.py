"""The diagram shows every noun, reads the same each time, and speaks both languages."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from simlib import architectures
from simlib.flow import Exponential, Flow, ack, publish
from simlib.flow.diagram import diagram, draw
from simlib.scenario import load_scenario


def shop() -> Flow:
    flow = Flow("shop")
    near, broker, far = flow.part("near"), flow.part("broker"), flow.part("far", cores=2)
    flow.link(near, broker, "0.5 ms")
    link = flow.link(broker, far, "20 us", loss=0.025)
    flow.link(near, far, "2 s", name="detour")
    jobs = broker.queue("jobs", link=link)
    far.table("copy")
    far.credit("locks", 3, key="sku")
    far.pool("workers", capacity=3, members=2)
    flow.source(
        "order",
        at=near,
        interarrival="10 ms",
        steps=[near.cpu.serve("1 ms"), flow.links["near-broker"].send(), publish(jobs)],
    )
    flow.consumers(
        jobs, at=far, count=7, steps=[far.cpu.serve("1 ms"), far.flow.pools["far.workers"].serve("1 ms"), ack()]
    )
    return flow


def words(svg: str) -> set[str]:
    """The texts of an SVG of matplotlib, which notes them beside their outlines."""
    return {part.split("-->")[0].strip() for part in svg.split("<!--")[1:]}


def test_every_noun_is_shown_with_its_numbers() -> None:
    shown = words(diagram(shop()))
    assert {"near", "broker", "far", "jobs", "copy", "7", "order 100/s"} <= shown
    assert {"cpu  ×2", "cpu  ×1", "workers  2×3", "locks  ×3"} <= shown
    assert {"0.5 ms", "20 µs, 2.5 % lost", "detour, 2 s"} <= shown


def test_a_processor_that_no_step_uses_is_left_out() -> None:
    flow = Flow("idle")
    part = flow.part("broker")
    jobs = part.queue("jobs")
    flow.source("job", at=part, steps=[publish(jobs)])
    flow.consumers(jobs, part, count=1, steps=[ack()])
    assert not any("cpu" in word for word in words(diagram(flow)))


def test_numbers_and_units_follow_the_language() -> None:
    assert {"0,5 мс", "20 мкс, потери 2,5 %", "detour, 2 с", "order 100/с"} <= words(diagram(shop(), "ru"))


def test_a_textbook_queue_without_parts_is_shown_under_its_name() -> None:
    flow = Flow("mm1")
    server = flow.pool("server")
    flow.source("job", population=3, think=Exponential(1.0), steps=[server.serve(Exponential(1.0))])
    assert {"mm1", "server  ×1", "job ×3"} <= words(flow.diagram())


def test_the_diagram_is_the_same_text_in_every_process() -> None:
    script = f"import runpy; f = runpy.run_path({__file__!r}); print(f['diagram'](f['shop']()), end='')"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, encoding="utf-8")
    assert other.stdout == diagram(shop())


@pytest.mark.parametrize("name", architectures.names())
def test_nothing_overlaps_and_nothing_is_cut_off(name: str) -> None:
    architecture = architectures.get(name)
    flow = architecture.build(architecture.load_parameters(), load_scenario("steady"))
    figure = draw(flow)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [text.get_window_extent() for text in axes.texts]
    assert all(
        figure.bbox.fully_contains(box.x0, box.y0) and figure.bbox.fully_contains(box.x1, box.y1) for box in texts
    )
    overlapping = [(i, j) for i, one in enumerate(texts) for j, other in enumerate(texts[:i]) if one.overlaps(other)]
    assert not overlapping
    assert ElementTree.fromstring(flow.diagram()).tag.endswith("svg")
