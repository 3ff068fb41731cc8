"""serversvc.exe and managersvc.exe of Backburner when they are run by hand: they register their service.

Switches: Autodesk help, "Set up Backburner as a service" (``-i`` installs, ``-r`` removes).  Exit codes, and what
happens when the service is registered already, are not documented: the latter is an error here.
"""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse
from rehearsal.windows.services import Service

SERVER = ("BACKBURNER_SRV_200", "Backburner Server")
MANAGER = ("BACKBURNER_MGR_200", "Backburner Manager")


async def server(invocation: Invocation) -> Outcome:
    """``serversvc.exe -i|-r``."""
    return await _register(invocation, *SERVER)


async def manager(invocation: Invocation) -> Outcome:
    """``managersvc.exe -i|-r``."""
    return await _register(invocation, *MANAGER)


async def _register(invocation: Invocation, name: str, display_name: str) -> Outcome:
    services = invocation.host.services
    if invocation.arguments not in (["-i"], ["-r"]):
        return refuse(invocation, "the switches are -i (register the service) and -r (remove it)")
    try:
        if invocation.arguments == ["-r"]:
            await services.delete(name)
        else:
            services.create(
                Service(
                    name=name,
                    display_name=display_name,
                    path=f'"{invocation.path}"',
                    start="auto",
                    account="NT AUTHORITY\\LocalService",
                )
            )
    except WindowsError as error:
        return failure(
            f"rehearsal: {invocation.arguments[0]} of {name}: {error} (the real exit code is not documented)\n"
        )
    return console("")
