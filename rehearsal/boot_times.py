"""How long the nodes of a rehearsed farm needed from power-on to readiness, by their own notes."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

STATE = "ProgramData/RenderFarm/state.json"
#: Phases that last for as long as somebody else lets the node wait.
WAITING = frozenset({"manager", "tunnel"})

#: Seconds of its own time that a node has from power-on to readiness. The median of a farm must hold it: the slowest
#: of many machines that share a few processors only tells how long it had to wait for one.
LIMIT = 2.0


@dataclass(frozen=True)
class BootTime:
    """One boot: ``seconds`` from power-on to readiness without `WAITING`, ``processor`` seconds of its process."""

    seconds: float
    processor: float


def boot_time(boot: Mapping[str, Any], machine_log: str) -> BootTime | None:
    """The time of the ``boot`` in a node's state.json; None when it did not become ready. The log tells of power-on."""
    powered = re.findall(r"^(\S+) power on:", machine_log, re.MULTILINE)
    if boot.get("event") != "ready" or not powered:
        return None
    before = datetime.fromisoformat(boot["started"]) - datetime.fromisoformat(powered[-1])
    waited = sum(phase["seconds"] for phase in boot["phases"] if phase["name"] in WAITING)
    return BootTime(before.total_seconds() + boot["seconds"] - waited, boot["processor_seconds"])


def boot_times(machines: Iterable[Mapping[str, Any]]) -> list[BootTime]:
    """Those of the render nodes among ``machines`` (of the rehearsal's state.json) that are ready."""
    found = []
    for machine in machines:
        drive = Path(machine["c"])
        if machine["role"] != "render_node" or not (drive / STATE).is_file():
            continue
        boot = json.loads((drive / STATE).read_bytes()).get("boot", {})
        found.append(boot_time(boot, drive.with_name("machine.log").read_text(errors="replace")))
    return [time for time in found if time is not None]


def median(times: Sequence[BootTime]) -> float:
    """Seconds from power-on to readiness; StatisticsError when there are no ``times``."""
    return statistics.median(time.seconds for time in times)


def line(times: Sequence[BootTime]) -> str:
    """All of it in one line."""
    if not times:
        return "no node became ready"
    slowest = max(time.seconds for time in times)
    processor = [time.processor for time in times]
    processors = f"{statistics.median(processor):.2f} s (median), {max(processor):.2f} s (most)"
    return (
        f"from power-on to readiness, without the wait for the manager's port, {len(times)} nodes needed "
        f"{median(times):.2f} s (median; the limit is {LIMIT:g} s), {slowest:.2f} s (most); "
        f"processor time of their boots: {processors}"
    )
