"""powershell.exe with a text on its command line (reference: Windows PowerShell, about_PowerShell_exe)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows import powershell
from rehearsal.windows.programs.base import Invocation, refuse


async def main(invocation: Invocation) -> Outcome:
    """``powershell.exe -NoProfile -NonInteractive -Command TEXT``."""
    words = invocation.arguments
    if [word.lower() for word in words[:3]] != ["-noprofile", "-noninteractive", "-command"] or len(words) != 4:
        return refuse(invocation, "only '-NoProfile -NonInteractive -Command TEXT' is modelled")
    return await powershell.run(invocation.host, words[3], invocation.user, invocation.stdin)
