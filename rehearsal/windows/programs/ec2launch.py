"""EC2Launch.exe: ``reset`` (reference: Amazon EC2 User Guide, "EC2Launch v2 settings", command line)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows import ec2launch
from rehearsal.windows.programs.base import Invocation, console, refuse


async def main(invocation: Invocation) -> Outcome:
    """``EC2Launch.exe reset [--clean|-c] [--block|-b]``: what runs once runs again at the next boot."""
    words = invocation.arguments
    if words[:1] != ["reset"] or set(words[1:]) - {"--clean", "-c", "--block", "-b"}:
        return refuse(invocation, "only 'reset [--clean] [--block]' is modelled")
    ec2launch.reset(invocation.host, clean=bool({"--clean", "-c"} & set(words)))
    return console("")
