"""Small programs: cmd (one form), hostname, getmac, powercfg, shutdown."""

from __future__ import annotations

import ntpath
import re

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import MESSAGES, WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

ADAPTER = "Ethernet"
# Names of power schemes that powercfg takes (reference: Microsoft, powercfg).
_SCHEMES = {
    "scheme_min": ("8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c", "High performance"),
    "scheme_balanced": ("381b4222-f694-41f0-9685-ff5bb260df2e", "Balanced"),
    "scheme_max": ("a1841308-3541-4fab-bc81-f71556f20b4a", "Power saver"),
}
_POWER_KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\Power\User\PowerSchemes"
_TIMEOUTS = re.compile(r"^(monitor|disk|standby|hibernate)-timeout-(ac|dc)$")


async def cmd(invocation: Invocation) -> Outcome:
    """``cmd.exe /d /c copy /b FILE \\\\.\\COM1``: write a file to the serial port."""
    words = invocation.arguments
    lowered = [word.lower() for word in words]
    if lowered[:4] != ["/d", "/c", "copy", "/b"] or len(words) != 6 or lowered[5] != "\\\\.\\com1":
        return refuse(invocation, r"only 'cmd.exe /d /c copy /b FILE \\.\COM1' is modelled")
    path = words[4] if ntpath.isabs(words[4]) else ntpath.join(invocation.cwd, words[4])
    try:
        invocation.host.platform.serial(invocation.host.files.read_bytes(path))
    except WindowsError as error:
        return console(f"{MESSAGES[error.code] if error.code in (2, 3) else error}\n", 1)
    return console("        1 file(s) copied.\n")


async def hostname(invocation: Invocation) -> Outcome:
    """``hostname``: the computer's name."""
    if invocation.arguments:
        return refuse(invocation)
    return console(f"{invocation.host.computer_name}\n")


async def getmac(invocation: Invocation) -> Outcome:
    """``getmac [/fo table|csv|list] [/nh] [/v]``: the MAC of each adapter."""
    options = [word.lower() for word in invocation.arguments]
    form, heading, verbose = "table", True, False
    while options:
        option = options.pop(0)
        if option == "/nh":
            heading = False
        elif option == "/v":
            verbose = True
        elif option == "/fo" and options and options[0] in ("table", "csv", "list"):
            form = options.pop(0)
        else:
            return refuse(invocation)
    mac = invocation.host.platform.nic.mac.upper().replace(":", "-")
    fields = {"Physical Address": mac, "Transport Name": r"\Device\Tcpip_{3B1B0F2C-6D4E-4C1B-9A4E-5A0C5E0F7A11}"}
    if verbose:
        fields = {"Connection Name": ADAPTER, "Network Adapter": "Amazon Elastic", **fields}
    if form == "csv":
        rows = [",".join(f'"{name}"' for name in fields)] if heading else []
        return console("\n".join([*rows, ",".join(f'"{value}"' for value in fields.values()), ""]))
    if form == "list":
        width = max(len(name) for name in fields) + 1
        return console("\n".join(["", *(f"{name + ':':<{width}} {value}" for name, value in fields.items()), ""]))
    widths = [max(len(name), len(value)) for name, value in fields.items()]
    lines = [""]
    if heading:
        lines.append(" ".join(f"{name:<{width}}" for name, width in zip(fields, widths, strict=True)))
        lines.append(" ".join("=" * width for width in widths))
    lines.append(" ".join(f"{value:<{width}}" for value, width in zip(fields.values(), widths, strict=True)))
    return console("\n".join([*lines, ""]))


async def powercfg(invocation: Invocation) -> Outcome:
    """``powercfg /setactive SCHEME``, ``/getactivescheme``, ``/change NAME MINUTES``, ``/hibernate on|off``."""
    words = [word.lower() for word in invocation.arguments]
    registry = invocation.host.registry
    by_guid = {guid: (guid, name) for guid, name in _SCHEMES.values()}
    match words:
        case ["/setactive" | "-setactive" | "/s" | "-s", scheme]:
            chosen = _SCHEMES.get(scheme) or by_guid.get(scheme)
            if chosen is None:
                return failure("The power scheme, subgroup or setting specified does not exist.\n")
            registry.set(_POWER_KEY, "ActivePowerScheme", "REG_SZ", chosen[0])
        case ["/getactivescheme" | "-getactivescheme"]:
            guid = str(registry.data(_POWER_KEY, "ActivePowerScheme", _SCHEMES["scheme_balanced"][0]))
            return console(f"Power Scheme GUID: {guid}  ({by_guid[guid][1]})\n")
        case ["/change" | "-change" | "/x" | "-x", setting, minutes] if _TIMEOUTS.match(setting) and minutes.isdigit():
            registry.set(_POWER_KEY, setting, "REG_DWORD", int(minutes))
        case ["/hibernate" | "-hibernate" | "/h" | "-h", "on" | "off" as state]:
            key = r"HKLM\SYSTEM\CurrentControlSet\Control\Power"
            registry.set(key, "HibernateEnabled", "REG_DWORD", int(state == "on"))
        case _:
            return refuse(invocation)
    return console("")


async def shutdown(invocation: Invocation) -> Outcome:
    """``shutdown /s|/r [/t seconds] [/f] [/c text] [/d reason]``, ``/a``, ``/p``."""
    action, delay, force = "", 30, False
    words = iter(invocation.arguments)
    for word in words:
        option = word.lower().replace("-", "/", 1)
        if option in ("/s", "/r", "/a", "/p"):
            if action:
                return refuse(invocation, "more than one action")
            action = option[1]
        elif option == "/f":
            force = True
        elif option in ("/t", "/c", "/d"):
            value = next(words, None)
            if value is None or (option == "/t" and not value.isdigit()):
                return refuse(invocation, f"{option} needs a value")
            delay = int(value) if option == "/t" else delay
        else:
            return refuse(invocation)
    host = invocation.host
    pending = host.pending_shutdown
    if action == "a":
        if pending is None or pending.done():
            return _failed(1116)
        pending.cancel()
        host.pending_shutdown = None
        host.log("shutdown was aborted")
        return console("")
    if not action:
        return refuse(invocation, "no action")
    if pending is not None:
        return _failed(1115 if pending.done() else 1190)
    delay = 0 if action == "p" else delay
    host.log(f"{'reboot' if action == 'r' else 'shutdown'} in {delay} s{' (forced)' if force else ''}")

    async def go() -> None:
        host.platform.power("reboot" if action == "r" else "shutdown")

    host.pending_shutdown = host.later(delay, go, "shutdown")
    return console("")


def _failed(code: int) -> Outcome:
    return failure(f"{MESSAGES[code]}({code})\n", code)
