"""Stand-ins for the Backburner manager and server, as programs of Windows services.

What they model, from which source, and what they cannot show: docs/rehearsal/backburner.md.
"""

from __future__ import annotations

from rehearsal.backburner.manager import BackburnerManager
from rehearsal.backburner.server import BackburnerServer, ShowProcesses, show_nothing
from rehearsal.interfaces import ServiceProgram

__all__ = ["SERVICE_PROGRAMS", "service_programs"]


def service_programs(
    *, time_scale: float = 1.0, show_processes: ShowProcesses = show_nothing
) -> dict[str, ServiceProgram]:
    """The programs by the lowercase name of their executable.

    ``time_scale`` multiplies every wait of the protocol (not the render time); ``show_processes`` makes the render's
    processes visible in a host's task list.
    """
    return {
        "serversvc.exe": BackburnerServer(time_scale, show_processes),
        "managersvc.exe": BackburnerManager(time_scale),
    }


SERVICE_PROGRAMS = service_programs()
