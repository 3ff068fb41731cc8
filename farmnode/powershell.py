"""Windows PowerShell, for the few things that no other program of Windows does."""

from __future__ import annotations

from typing import Final

from farmnode.programs import Completed, Programs

POWERSHELL: Final = "WindowsPowerShell/v1.0/powershell.exe"


def run(script: str, programs: Programs, *, stdin: bytes | None = None) -> Completed:
    """Run ``script``, whatever its exit code; what must not be on a command line it may read from ``stdin``."""
    words = ["-NoProfile", "-NonInteractive", "-Command", script]
    return programs.run(POWERSHELL, words, stdin=stdin, timeout=60.0)
