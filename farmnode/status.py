"""What a machine knows about itself, in short."""

from __future__ import annotations

from typing import Any

from farmnode import project, services
from farmnode.machine import Machine
from farmnode.watch import read_note


def status(machine: Machine) -> dict[str, Any]:
    """The summary of state.json and the services as they are; ``event`` is ``none`` before the first boot."""
    state = machine.state.load()
    boot = state.get("boot", {})
    return {
        "event": boot.get("event", "none"),
        **{key: boot.get(key) for key in ("instance", "role", "phase", "reason", "started", "seconds")},
        "phases": {phase["name"]: phase["seconds"] for phase in boot.get("phases", [])},
        "identity": state.get("identity"),
        "path": state.get("backburner_xml"),
        "routes": state.get("routes", []),
        "watch": read_note(machine),
        "project": project.read_note(machine),
        "services": {name: machine.services.describe(name) for name in (services.MANAGER, services.SERVER)},
    }
