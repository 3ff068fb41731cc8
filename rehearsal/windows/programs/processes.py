"""tasklist.exe and taskkill.exe (reference: Windows Commands)."""

from __future__ import annotations

import ntpath
import os
import re

from rehearsal.interfaces import Outcome
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

_IDLE, _SYSTEM = "System Idle Process", "System"


async def tasklist(invocation: Invocation) -> Outcome:
    """``tasklist [/v] [/fo table|csv] [/nh] [/svc] [/fi "IMAGENAME eq NAME"|"PID eq N"]``."""
    form, heading, services, verbose, image, process_id = "table", True, False, False, None, None
    words = iter(invocation.arguments)
    for word in words:
        option = word.lower()
        if option == "/nh":
            heading = False
        elif option == "/svc":
            services = True
        elif option == "/v":
            verbose = True
        elif option == "/fo":
            form = (next(words, "") or "").lower()
        elif option == "/fi":
            match = re.match(r"^(imagename|pid)\s+eq\s+(\S.*)$", next(words, "") or "", re.IGNORECASE)
            if match is None:
                return refuse(invocation, "the filters are IMAGENAME eq NAME and PID eq NUMBER")
            if match[1].lower() == "imagename":
                image = match[2].lower()
            else:
                process_id = match[2]
        else:
            return refuse(invocation)
    if form not in ("table", "csv"):
        return refuse(invocation)
    if verbose and (services or form != "csv"):
        return refuse(invocation, "/v is modelled with /fo csv and without /svc")
    rows = [row for row in _rows(invocation) if image in (None, row[0].lower()) and process_id in (None, row[1])]
    if not rows:
        return console("INFO: No tasks are running which match the specified criteria.\n")
    if services:
        titles = ["Image Name", "PID", "Services"]
        table = [[name, number, service or "N/A"] for name, number, service, _, _ in rows]
    else:
        titles = ["Image Name", "PID", "Session Name", "Session#", "Mem Usage"]
        table = [[name, number, "Services", "0", "8,192 K"] for name, number, *_ in rows]
    if verbose:
        titles += ["Status", "User Name", "CPU Time", "Window Title"]
        for cells, (_, _, _, user, seconds) in zip(table, rows, strict=True):
            cells += ["Unknown", user, _time(seconds), "N/A"]
    if form == "csv":
        lines = [",".join(f'"{cell}"' for cell in row) for row in ([titles] if heading else []) + table]
        return console("\n".join([*lines, ""]))
    widths = [25, 8, 44] if services else [25, 8, 16, 11, 12]
    right = {1, 3, 4} if not services else {1}
    lines = [""]
    if heading:
        lines.append(_row(titles, widths, right))
        lines.append(" ".join("=" * width for width in widths))
    lines += [_row(row, widths, right) for row in table]
    return console("\n".join([*lines, ""]))


def _rows(invocation: Invocation) -> list[tuple[str, str, str, str, float]]:
    """Image, number, service, user, seconds of processor time."""
    host = invocation.host
    found = []
    for service in map(host.services.get, host.services.names()):
        status = host.services.status(service.name)
        if status.state == "running":
            name = ntpath.basename(host.services.binary(service))
            found.append((name, str(status.process_id), service.name, r"NT AUTHORITY\SYSTEM", 0.0))
    processes = host.processes
    found += [
        (process.image, str(process.number), "", r"NT AUTHORITY\LOCAL SERVICE", processes.seconds(process))
        for process in processes.all()
    ]
    up = (host.clock() - host.boot_time) * (os.cpu_count() or 1)
    idle = max(up - sum(row[4] for row in found), 0.0)
    first = [(_IDLE, "0", "", r"NT AUTHORITY\SYSTEM", idle), (_SYSTEM, "4", "", r"N/A", 0.0)]
    return first + found


def _time(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _row(cells: list[str], widths: list[int], right: set[int]) -> str:
    return " ".join(
        f"{cell[:width]:>{width}}" if index in right else f"{cell[:width]:<{width}}"
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


async def taskkill(invocation: Invocation) -> Outcome:
    """``taskkill /f /im NAME``: only processes below a service can be ended here."""
    words = [word.lower() for word in invocation.arguments]
    if len(words) != 3 or words[:2] != ["/f", "/im"] or "*" in words[2]:
        return refuse(invocation, "only '/f /im NAME' is modelled")
    name = invocation.arguments[2]
    ended = invocation.host.processes.kill(name)
    if not ended:
        if any(row[0].lower() == name.lower() for row in _rows(invocation)):
            return refuse(invocation, "the program of a service cannot be ended here; stop the service")
        return failure(f'ERROR: The process "{name}" not found.\n', 128)
    lines = [f'SUCCESS: The process "{name}" with PID {number} has been terminated.' for number in ended]
    return console("\n".join([*lines, ""]))
