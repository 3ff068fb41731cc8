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


def line(times: Sequence[BootTime]) -> str:
    """All of it in one line."""
    if not times:
        return "No node became ready."
    return (
        f"From power-on to readiness, without the wait for the manager's port, {len(times)} nodes needed "
        f"{_spread([time.seconds for time in times])}; processor time of their boots: "
        f"{_spread([time.processor for time in times])}."
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s (median), {max(values):.2f} s (most)"
