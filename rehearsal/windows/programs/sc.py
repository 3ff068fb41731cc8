"""sc.exe: the service control manager on the command line (reference: Microsoft, sc.exe; layouts as it prints them)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import MESSAGES, WindowsError
from rehearsal.windows.programs.base import Invocation, console, refuse
from rehearsal.windows.services import Running, Service

_STATES = {"stopped": 1, "start_pending": 2, "stop_pending": 3, "running": 4}
_STARTS = {"auto": "auto", "delayed-auto": "delayed", "demand": "demand", "disabled": "disabled"}
_START_TEXTS = {
    "auto": "2   AUTO_START",
    "delayed": "2   AUTO_START  (DELAYED)",
    "demand": "3   DEMAND_START",
    "disabled": "4   DISABLED",
}
_ERROR_TEXTS = {"ignore": "0   IGNORE", "normal": "1   NORMAL", "severe": "2   SEVERE", "critical": "3   CRITICAL"}
_ACTIONS = {"restart": "restart", "run": "run_command", "reboot": "reboot", "": "none"}
_ACTION_TEXTS = {"restart": "RESTART", "run_command": "RUN PROCESS", "reboot": "REBOOT"}


async def main(invocation: Invocation) -> Outcome:
    """``query|queryex|qc|qfailure|start|stop|config|failure|create|delete|description`` of the local machine."""
    words = invocation.arguments
    if not words or words[0].startswith("\\\\"):
        return refuse(invocation, "only the commands of the local machine are modelled")
    verb, rest = words[0].lower(), words[1:]
    commands = {
        "query": _query,
        "queryex": _query,
        "qc": _qc,
        "qfailure": _qfailure,
        "start": _start,
        "stop": _stop,
        "config": _config,
        "failure": _failure,
        "create": _create,
        "delete": _delete,
        "description": _description,
    }
    if verb not in commands:
        return refuse(invocation)
    if not rest and verb != "query":
        return refuse(invocation, "the name of a service is missing")
    return await commands[verb](invocation, rest)


def _failed(call: str, error: WindowsError, *, rc: int | None = None) -> Outcome:
    text = MESSAGES.get(error.code, str(error))
    return console(f"[SC] {call} FAILED {error.code}:\n\n{text}\n\n", error.code if rc is None else rc)


def _status_text(service: Service, status: Running, *, with_display: bool, extended: bool) -> str:
    kind = "10  WIN32_OWN_PROCESS" if service.type == "own" else "20  WIN32_SHARE_PROCESS"
    if service.interactive:
        kind = "110  WIN32_OWN_PROCESS (interactive)"
    state = f"{_STATES[status.state]}  {status.state.upper()} "
    lines = ["", f"SERVICE_NAME: {service.name} "]
    if with_display:
        lines.append(f"DISPLAY_NAME: {service.display_name}")
    lines += [f"        TYPE               : {kind}  ", f"        STATE              : {state}"]
    if status.state == "running":
        lines.append("                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)")
    elif status.state != "stopped":
        lines.append("                                (NOT_STOPPABLE, NOT_PAUSABLE, IGNORES_SHUTDOWN)")
    code = status.exit_code if status.state == "stopped" else 0
    lines += [
        f"        WIN32_EXIT_CODE    : {code}  (0x{code:x})",
        "        SERVICE_EXIT_CODE  : 0  (0x0)",
        "        CHECKPOINT         : 0x0",
        "        WAIT_HINT          : 0x0",
    ]
    if extended:
        lines += [f"        PID                : {status.process_id}", "        FLAGS              : "]
    return "\n".join(lines) + "\n"


async def _query(invocation: Invocation, rest: list[str]) -> Outcome:
    host = invocation.host
    extended = invocation.arguments[0].lower() == "queryex"
    words = [word.lower().replace(" ", "") for word in rest]
    options = ("type=", "state=", "bufsize=", "ri=", "group=")
    if not rest or words[0].startswith(options):
        wanted = "active"
        pairs = "".join(f"{word} " if not word.endswith("=") else word for word in words).split()
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name == "state" and value in ("active", "inactive", "all"):
                wanted = value
            elif (name, value) not in (("type", "service"), ("type", "all")):
                return refuse(invocation)
        text = ""
        for name in host.services.names():
            service, status = host.services.get(name), host.services.status(name)
            active = status.state != "stopped"
            if wanted == "all" or active == (wanted == "active"):
                text += _status_text(service, status, with_display=True, extended=extended)
        return console(text)
    if len(rest) > 1:
        return refuse(invocation)
    try:
        service, status = host.services.get(rest[0]), host.services.status(rest[0])
    except WindowsError as error:
        return _failed("EnumQueryServicesStatus:OpenService", error)
    return console(_status_text(service, status, with_display=False, extended=extended))


async def _qc(invocation: Invocation, rest: list[str]) -> Outcome:
    if len(rest) > 1:
        return refuse(invocation)
    try:
        service = invocation.host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    kind = "10  WIN32_OWN_PROCESS" if service.type == "own" else "20  WIN32_SHARE_PROCESS"
    dependencies = service.dependencies or [""]
    lines = [
        "[SC] QueryServiceConfig SUCCESS",
        "",
        f"SERVICE_NAME: {service.name}",
        f"        TYPE               : {kind} ",
        f"        START_TYPE         : {_START_TEXTS[service.start]}",
        f"        ERROR_CONTROL      : {_ERROR_TEXTS[service.error_control]}",
        f"        BINARY_PATH_NAME   : {service.path}",
        f"        LOAD_ORDER_GROUP   : {service.load_order_group}",
        "        TAG                : 0",
        f"        DISPLAY_NAME       : {service.display_name}",
        f"        DEPENDENCIES       : {dependencies[0]}",
        *(f"                           : {name}" for name in dependencies[1:]),
        f"        SERVICE_START_NAME : {service.account}",
        "",
    ]
    return console("\n".join(lines))


async def _qfailure(invocation: Invocation, rest: list[str]) -> Outcome:
    if len(rest) > 1:
        return refuse(invocation)
    try:
        service = invocation.host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    lines = [
        "[SC] QueryServiceConfig2 SUCCESS",
        "",
        f"SERVICE_NAME: {service.name}",
        f"        RESET_PERIOD (in seconds)    : {service.failure_reset}",
        f"        REBOOT_MESSAGE               : {service.failure_reboot_message}",
        f"        COMMAND_LINE                 : {service.failure_command}",
    ]
    label = "        FAILURE_ACTIONS              : "
    for kind, delay in service.failure_actions:
        if kind in _ACTION_TEXTS:
            lines.append(f"{label}{_ACTION_TEXTS[kind]} -- Delay = {delay} milliseconds.")
            label = " " * len(label)
    return console("\n".join([*lines, ""]))


async def _start(invocation: Invocation, rest: list[str]) -> Outcome:
    if len(rest) > 1:
        return refuse(invocation, "arguments for the service are not modelled")
    host = invocation.host
    try:
        service = host.services.get(rest[0])
    except WindowsError as error:
        return _failed("StartService: OpenService", error)
    try:
        await host.services.start(rest[0])
    except WindowsError as error:
        return _failed("StartService", error)
    status = Running(state="start_pending", process_id=host.services.status(rest[0]).process_id)
    return console(_status_text(service, status, with_display=False, extended=True))


async def _stop(invocation: Invocation, rest: list[str]) -> Outcome:
    if len(rest) > 1:
        return refuse(invocation)
    host = invocation.host
    try:
        service = host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    try:
        await host.services.stop(rest[0])
    except WindowsError as error:
        return _failed("ControlService", error)
    return console(_status_text(service, Running(state="stop_pending"), with_display=False, extended=False))


def _pairs(rest: list[str]) -> list[tuple[str, str]] | None:
    """``name= value`` pairs (the space after = is required by sc.exe; ``name=value`` works too)."""
    pairs = []
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            return None
        if not value:
            following = next(words, None)
            if following is None:
                return None
            value = following
        pairs.append((name.lower(), value))
    return pairs


def _configure(invocation: Invocation, service: Service, pairs: list[tuple[str, str]]) -> str | None:
    """Change a service; gives the reason when an option is not known or a value not allowed."""
    for name, value in pairs:
        lowered = value.lower()
        if name == "start" and lowered in _STARTS:
            service.start = _STARTS[lowered]  # type: ignore[assignment]
        elif name == "binpath":
            service.path = value
        elif name == "displayname":
            service.display_name = value
        elif name == "obj":
            service.account = invocation.host.services.check_account(value)
        elif name == "password":
            service.password = value
        elif name == "depend":
            service.dependencies = [] if value in ("", "/") else value.split("/")
        elif name == "error" and lowered in _ERROR_TEXTS:
            service.error_control = lowered
        elif name == "type" and lowered in ("own", "share"):
            service.type = lowered
        elif name == "group":
            service.load_order_group = value
        else:
            return f"the option {name}= {value} is not modelled"
    return None


async def _config(invocation: Invocation, rest: list[str]) -> Outcome:
    pairs = _pairs(rest[1:])
    if not pairs:
        return refuse(invocation, "options have the form name= value")
    try:
        service = invocation.host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    try:
        reason = _configure(invocation, service, pairs)
    except WindowsError as error:
        return _failed("ChangeServiceConfig", error)
    if reason is not None:
        return refuse(invocation, reason, rc=1639)
    invocation.host.services.save(service)
    return console("[SC] ChangeServiceConfig SUCCESS\n")


async def _create(invocation: Invocation, rest: list[str]) -> Outcome:
    pairs = _pairs(rest[1:])
    if pairs is None or "binpath" not in dict(pairs):
        return refuse(invocation, "binPath= is needed", rc=1639)
    service = Service(name=rest[0], display_name=rest[0], path="")
    try:
        reason = _configure(invocation, service, pairs)
        if reason is not None:
            return refuse(invocation, reason, rc=1639)
        invocation.host.services.create(service)
    except WindowsError as error:
        return _failed("CreateService", error)
    return console("[SC] CreateService SUCCESS\n")


async def _delete(invocation: Invocation, rest: list[str]) -> Outcome:
    try:
        await invocation.host.services.delete(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    return console("[SC] DeleteService SUCCESS\n")


async def _description(invocation: Invocation, rest: list[str]) -> Outcome:
    try:
        service = invocation.host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    service.description = rest[1] if len(rest) > 1 else ""
    invocation.host.services.save(service)
    return console("[SC] ChangeServiceConfig2 SUCCESS\n")


async def _failure(invocation: Invocation, rest: list[str]) -> Outcome:
    pairs = dict(_pairs(rest[1:]) or [])
    try:
        service = invocation.host.services.get(rest[0])
    except WindowsError as error:
        return _failed("OpenService", error)
    if not pairs or set(pairs) - {"reset", "reboot", "command", "actions"}:
        return refuse(invocation, rc=1639)
    if ("actions" in pairs) != ("reset" in pairs):
        return refuse(invocation, "reset= and actions= go together", rc=1639)
    if "actions" in pairs:
        fields = pairs["actions"].rstrip("/").split("/") if pairs["actions"] else []
        kinds, delays = fields[::2], fields[1::2]
        if len(kinds) != len(delays) or not all(kind in _ACTIONS for kind in kinds) or not pairs["reset"].isdigit():
            return refuse(invocation, "actions= has the form action/milliseconds/…", rc=1639)
        service.failure_actions = [[_ACTIONS[kind], int(delay)] for kind, delay in zip(kinds, delays, strict=True)]
        service.failure_reset = int(pairs["reset"])
    service.failure_command = pairs.get("command", service.failure_command)
    service.failure_reboot_message = pairs.get("reboot", service.failure_reboot_message)
    invocation.host.services.save(service)
    return console("[SC] ChangeServiceConfig2 SUCCESS\n")
