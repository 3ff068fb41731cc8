"""serversvc.exe and managersvc.exe of Backburner when they are run by hand, and cmdjob.exe, which submits a job.

Switches: Autodesk help, "Set up Backburner as a service" (``-i`` installs, ``-r`` removes).  Exit codes, and what
happens when the service is registered already, are not documented: the latter is an error here.
"""

from __future__ import annotations

import json

from rehearsal.backburner.protocol import Connection, ProtocolError
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


CMDJOB_OPTIONS = ("-manager", "-port", "-jobname", "-numtasks")


async def cmdjob(invocation: Invocation) -> Outcome:
    """``cmdjob -manager:NAME -port:N -jobName:NAME -numTasks:N EXECUTABLE arguments``; options are not case-sensitive.

    Source: the help text of CMDJOB. How a submission travels to the manager, and the exit codes, are ours.
    """
    words = list(invocation.arguments)
    options: dict[str, str] = {}
    while words and words[0].startswith("-"):
        name, found, value = words.pop(0).partition(":")
        if not found or name.lower() not in CMDJOB_OPTIONS:
            return refuse(invocation, f"the option {name} is not modelled")
        options[name.lower()] = value
    missing = [name for name in CMDJOB_OPTIONS if name not in options]
    if missing or not words:
        return refuse(invocation, f"it is called with {', '.join(CMDJOB_OPTIONS)} and a program here")
    job = {
        "name": options["-jobname"],
        "first": 1,
        "last": int(options["-numtasks"]),
        "seconds": 0,
        "output": "",
        "command": words,
    }
    address, port = options["-manager"], int(options["-port"])
    try:
        connection = Connection(*await invocation.host.platform.connect(address, port))
        try:
            await connection.greet()
            answer = await connection.command(f"submit {json.dumps(job)}")
        finally:
            connection.close()
    except (OSError, TimeoutError, ProtocolError) as error:
        return failure(f"Manager {address} port {port}: {error}\n")
    return console(f"Job submitted: {answer.text}\n") if answer.code == 200 else failure(f"{answer.text}\n")


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
