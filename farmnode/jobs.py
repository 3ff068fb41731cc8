r"""The processes of render jobs, by ``tasklist.exe`` and ``taskkill.exe``.

Process tree of a rendering node, as farms report it: ``serversvc.exe``, below it ``maxadapter.adp.exe`` (other plug-ins
have adapters of that ending), below that ``3dsmax.exe``.

``tasklist /v /fo csv /nh`` (Windows Commands, "tasklist") gives: image name, process id, session name, session number,
memory, status, user, processor time as ``h:mm:ss``, window title.  The columns' titles are translated, so ``/nh``
leaves them out; process 0 is the processors' idle time.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import Final

from farmnode import powershell
from farmnode.errors import FarmNodeError
from farmnode.programs import Programs
from farmnode.report import Log

#: Killed in this order: an adapter would start its program again.
ADAPTER_END: Final = ".adp.exe"
RENDERER: Final = "3dsmax.exe"

#: All that renders: Backburner's server, its adapters and what these start. 16384 is BELOW_NORMAL_PRIORITY_CLASS.
_GIVE_WAY: Final = r"""
$ErrorActionPreference = 'Stop'
$all = "Name = 'serversvc.exe' or Name like '%.adp.exe' or Name = '3dsmax.exe'"
$found = Get-CimInstance -ClassName Win32_Process -Filter $all
$done = $found | Invoke-CimMethod -MethodName SetPriority -Arguments @{ Priority = 16384 }
$done.ReturnValue
""".strip()

_TIME = re.compile(r"(\d+):(\d\d):(\d\d)")
_IDLE_PROCESS: Final = 0
#: Of ``taskkill``: "the process … not found", which Windows Commands does not give a number.
_NOT_FOUND: Final = 128


@dataclass(frozen=True)
class Process:
    """A line of the task list; ``seconds`` of processor time since its start."""

    image: str
    number: int
    seconds: float

    @property
    def of_job(self) -> bool:
        image = self.image.lower()
        return image == RENDERER or image.endswith(ADAPTER_END)


def listed(programs: Programs, *, timeout: float = 15.0) -> list[Process]:
    """All processes but the idle one. FarmNodeError when ``tasklist.exe`` fails or is not understood."""
    return parse(programs.check("tasklist.exe", ["/v", "/fo", "csv", "/nh"], timeout=timeout).stdout)


def parse(text: str) -> list[Process]:
    """The processes in the output of ``tasklist``."""
    found = []
    for row in csv.reader(text.splitlines()):
        if not row:
            continue
        time = _TIME.fullmatch(row[7]) if len(row) == 9 else None
        if time is None or not row[1].isdecimal():
            raise FarmNodeError("program", f"tasklist.exe printed what is not understood: {','.join(row)[:200]}")
        hours, minutes, seconds = map(int, time.groups())
        found.append(Process(row[0], int(row[1]), hours * 3600.0 + minutes * 60 + seconds))
    return [process for process in found if process.number != _IDLE_PROCESS]


def give_way(programs: Programs) -> None:
    """Let Backburner's server, which runs, and all that it starts compute only when nobody else wants the processor.

    ``SetPriority`` of ``Win32_Process`` (Windows documentation) sets the priority class of a process, and what a
    process of class BELOW_NORMAL starts has that class as well (``CreateProcess``).  It lasts until the server ends.
    """
    done = powershell.run(_GIVE_WAY, programs)
    if done.rc != 0 or set(done.stdout.split()) != {"0"}:  # one number for each process, 0 when it was done
        raise FarmNodeError("program", f"the priority of Backburner's server cannot be lowered: {done.text}")


def end(programs: Programs, log: Log) -> None:
    """End what a stopped service left behind: a hung renderer does not end with it.

    What has ended by itself meanwhile, as a renderer may with its adapter, is done: ``taskkill`` then ends with 128.
    FarmNodeError when something is left after all was tried.
    """
    left = {process.image for process in listed(programs) if process.of_job}
    problems = []
    for image in sorted(left, key=lambda image: image.lower() == RENDERER):
        log.info(f"ending {image}, left behind by Backburner's service")
        done = programs.run("taskkill.exe", ["/f", "/im", image])
        if done.rc not in (0, _NOT_FOUND):
            problems.append(f"taskkill.exe /f /im {image} ended with {done.rc}: {done.text}")
    if problems:
        raise FarmNodeError("program", "; ".join(problems))
