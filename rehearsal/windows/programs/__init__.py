"""Stand-ins of the programs of Windows, of EC2Launch, of Backburner and of Python's embeddable package.

Each takes the command line that the program documents, does what it would do to the host, and prints what it would
print (English).  A form that is not modelled gives a return code other than 0 and a text that begins with
``rehearsal:``.
"""

from __future__ import annotations

from rehearsal.windows.programs import (
    backburner,
    ec2launch,
    icacls,
    msiexec,
    net,
    netsh,
    ping,
    powershell,
    processes,
    python,
    reg,
    robocopy,
    route,
    sc,
    small,
    tapctl,
)
from rehearsal.windows.programs.base import Invocation, Program, console, refuse

TABLE: dict[str, Program] = {
    "cmd.exe": small.cmd,
    "cmdjob.exe": backburner.cmdjob,
    "ec2launch.exe": ec2launch.main,
    "getmac.exe": small.getmac,
    "hostname.exe": small.hostname,
    "icacls.exe": icacls.main,
    "managersvc.exe": backburner.manager,
    "msiexec.exe": msiexec.main,
    "net.exe": net.main,
    "netsh.exe": netsh.main,
    "ping.exe": ping.main,
    "powercfg.exe": small.powercfg,
    "powershell.exe": powershell.main,
    "python.exe": python.main,
    "reg.exe": reg.main,
    "robocopy.exe": robocopy.main,
    "route.exe": route.main,
    "sc.exe": sc.main,
    "serversvc.exe": backburner.server,
    "shutdown.exe": small.shutdown,
    "tapctl.exe": tapctl.main,
    "taskkill.exe": processes.taskkill,
    "tasklist.exe": processes.tasklist,
}
"""Lower-case file name -> program."""

IN_SYSTEM32 = (
    "cmd.exe",
    "getmac.exe",
    "hostname.exe",
    "icacls.exe",
    "msiexec.exe",
    "net.exe",
    "netsh.exe",
    "ping.exe",
    "powercfg.exe",
    "reg.exe",
    "robocopy.exe",
    "route.exe",
    "sc.exe",
    "shutdown.exe",
    "taskkill.exe",
    "tasklist.exe",
    "WindowsPowerShell/v1.0/powershell.exe",
)
"""What a stock image has in ``C:\\Windows\\System32``."""

__all__ = ["IN_SYSTEM32", "TABLE", "Invocation", "Program", "console", "refuse"]
