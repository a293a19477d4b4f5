"""The control plane, live: tells every sidecar where the other side's processes are, again and again, by Envoy's discovery protocol
over files (envoyproxy.io, "xDS configuration API overview": filesystem subscriptions)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

CLUSTER = "other_side"
"""What the sidecars call the other side."""


def configuration(version: int, ports: list[int]) -> dict[str, Any]:
    """The processes of a side behind these ports. The version stands in the data too: Envoy passes over what it has already."""
    said = {"filter_metadata": {"simlib": {"version": version}}}
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}, "metadata": said}
        for port in ports
    ]
    resource = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": endpoints}],
    }
    return {"version_info": str(version), "resources": [resource]}


def push(version: int, sidecars: dict[str, list[int]]) -> None:
    """Put a configuration in the place of each sidecar's file at once: it reads what is moved there."""
    for name, ports in sidecars.items():
        file = Path(name)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(configuration(version, ports)), encoding="utf-8")
        part.replace(file)


def main(interval: float, sidecars: dict[str, list[int]]) -> None:
    """Send configurations for ever, the first at once."""
    version, due = 0, time.monotonic()
    while True:
        push(version, sidecars)
        version, due = version + 1, due + interval
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
