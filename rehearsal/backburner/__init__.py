"""Stand-ins for the Backburner manager and server, as programs of Windows services.

What they model, from which source, and what they cannot show: docs/rehearsal/backburner.md.
"""

from __future__ import annotations

from rehearsal.backburner.manager import BackburnerManager
from rehearsal.backburner.server import BackburnerServer
from rehearsal.interfaces import ServiceProgram

__all__ = ["SERVICE_PROGRAMS", "service_programs"]


def service_programs(*, time_scale: float = 1.0) -> dict[str, ServiceProgram]:
    """The programs by the lowercase name of their executable.

    ``time_scale`` multiplies every wait of the protocol (not the time of a frame).
    """
    return {"serversvc.exe": BackburnerServer(time_scale), "managersvc.exe": BackburnerManager(time_scale)}


SERVICE_PROGRAMS = service_programs()
