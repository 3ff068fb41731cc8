"""icacls.exe (reference: Windows Commands, "icacls")."""

from __future__ import annotations

import re

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

_GRANT = re.compile(r"\*(S-1-[0-9-]+):((?:\((?:OI|CI|IO|NP)\))*)(F|M|RX|R|W)", re.IGNORECASE)


async def main(invocation: Invocation) -> Outcome:
    """``icacls FOLDER /inheritance:r /grant:r *SID:(OI)(CI)F …``: nobody else has access from then on."""
    words = invocation.arguments
    if len(words) < 4 or [word.lower() for word in words[1:3]] != ["/inheritance:r", "/grant:r"]:
        return refuse(invocation, "only 'FOLDER /inheritance:r /grant:r *SID:RIGHTS …' is modelled")
    host, path = invocation.host, words[0]
    grants = [_GRANT.fullmatch(word) for word in words[3:]]
    if not host.files.exists(path):
        return failure(f"{path}: {WindowsError(2)}\n", 2)
    rules = []
    for word, grant in zip(words[3:], grants, strict=True):
        if grant is None:
            return refuse(invocation, f"{word} is not *SID:(OI)(CI)RIGHTS")
        rules.append({"sid": grant[1], "inherit": grant[2].upper(), "rights": grant[3].upper(), "type": "allow"})
    host.access_rules[host.files.shown(path).lower()] = rules
    host.state.changed()
    return console(f"processed file: {path}\nSuccessfully processed 1 files; Failed processing 0 files\n")
