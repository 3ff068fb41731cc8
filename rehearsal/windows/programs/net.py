"""net.exe: start and stop of services, and the lists of users and shares (reference: Microsoft, net commands)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

_HELP = "\nMore help is available by typing NET HELPMSG {number}.\n\n"


async def main(invocation: Invocation) -> Outcome:
    """``start [SERVICE]``, ``stop SERVICE``, ``user``, ``share``."""
    words = invocation.arguments
    lowered = [word.lower() for word in words]
    if lowered[:1] == ["start"] and len(words) == 1:
        names = [
            service.display_name
            for service in map(invocation.host.services.get, invocation.host.services.names())
            if invocation.host.services.status(service.name).state == "running"
        ]
        lines = [f"   {name}" for name in sorted(names, key=str.lower)]
        return console("\n".join(["These Windows services are started:", "", *lines, "", _DONE]))
    if lowered[:1] == ["start"] and len(words) == 2:
        return await _start(invocation, words[1])
    if lowered[:1] == ["stop"] and len(words) in (2, 3) and set(lowered[2:]) <= {"/y"}:
        return await _stop(invocation, words[1], force=len(words) == 3)
    if lowered == ["user"]:
        names = sorted((user.name for user in invocation.host.accounts.users.values()), key=str.lower)
        rows = ["".join(f"{name:<25}" for name in names[index : index + 3]) for index in range(0, len(names), 3)]
        title = f"User accounts for \\\\{invocation.host.computer_name}"
        return console("\n".join(["", title, "", "-" * 79, *rows, _DONE]))
    if lowered == ["share"]:
        rows = [
            f"{share['name']:<13}{share['path']:<32}{share['description']}" for share in invocation.host.shares.values()
        ]
        return console(
            "\n".join(["", "Share name   Resource                        Remark", "", "-" * 79, *rows, _DONE])
        )
    return refuse(invocation)


_DONE = "The command completed successfully.\n\n"


def _failed(text: str, number: int) -> Outcome:
    return failure(f"{text}\n{_HELP.format(number=number)}", 2)


async def _start(invocation: Invocation, name: str) -> Outcome:
    services = invocation.host.services
    service = services.find(name)
    if service is None:
        return _failed("The service name is invalid.", 2185)
    try:
        await services.start(service.name)
    except WindowsError as error:
        if error.code == 1056:
            return _failed("The requested service has already been started.", 2182)
        if error.code == 1053:
            text = f"The {service.display_name} service is not responding to the control function."
            return _failed(text, 2186)
        return failure(f"System error {error.code} has occurred.\n\n{error}\n\n", 2)
    title = f"The {service.display_name} service"
    return console(f"{title} is starting.\n{title} was started successfully.\n\n")


async def _stop(invocation: Invocation, name: str, *, force: bool) -> Outcome:
    services = invocation.host.services
    service = services.find(name)
    if service is None:
        return _failed("The service name is invalid.", 2185)
    title = f"The {service.display_name} service"
    try:
        await services.stop(service.name, force=force)
    except WindowsError as error:
        if error.code == 1062:
            return _failed(f"{title} is not started.", 3521)
        if error.code == 1051:
            return refuse(invocation, "other services depend on it: net stop would ask; use /y", 2)
        return failure(f"System error {error.code} has occurred.\n\n{error}\n\n", 2)
    return console(f"{title} is stopping.\n{title} was stopped successfully.\n\n")
