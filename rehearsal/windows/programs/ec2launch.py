"""EC2Launch.exe: ``reset`` and ``sysprep`` (reference: Amazon EC2 User Guide, "EC2Launch v2 settings", commands)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows import ec2launch
from rehearsal.windows.programs.base import Invocation, console, refuse


async def main(invocation: Invocation) -> Outcome:
    """``EC2Launch.exe reset|sysprep [--clean|-c] [--block|-b]``: what runs once runs again at the next boot.

    ``sysprep`` takes the host's identity as well: at its next boot, and at the first one of each clone, Windows gets a
    new name and a new machine identifier. ``--shutdown`` is not modelled.
    """
    words = invocation.arguments
    if words[:1] not in (["reset"], ["sysprep"]) or set(words[1:]) - {"--clean", "-c", "--block", "-b"}:
        return refuse(invocation, "only 'reset' and 'sysprep' with [--clean] [--block] are modelled")
    ec2launch.reset(invocation.host, clean=bool({"--clean", "-c"} & set(words)))
    if words[0] == "sysprep":
        invocation.host.state.values["generalized"] = True
        invocation.host.state.changed()
    return console("")
