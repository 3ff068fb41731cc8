r"""What a machine says about itself: its log, and lines on the serial port that EC2 shows as console output.

The lines' format is documented in docs/last-words.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from farmnode import paths
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.programs import Programs

PREFIX: Final = "RENDERFARM-NODE"
_LONGEST_REASON: Final = 600
_LONGEST_LOG: Final = 1024 * 1024
# Windows lets one program at a time have the port; another one (EC2Launch, the bootstrap) needs it for a moment only.
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.5


class Log:
    """``farmnode.log``: one line per event, UTC with milliseconds first. The file before it is ``farmnode.log.1``."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock

    def info(self, text: str) -> None:
        self._write("INFO", text)

    def error(self, text: str) -> None:
        self._write("ERROR", text)

    def _write(self, level: str, text: str) -> None:
        line = f"{self._clock.stamp()} {level} {text}\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > _LONGEST_LOG:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            # A full disk must not keep a machine from its work, nor from its last words.
            print(f"{line.rstrip()} (not in {paths.shown(self.path)}: {error})", file=sys.stderr)


class Serial:
    """Writes event lines to COM1."""

    def __init__(self, folder: Path, programs: Programs, log: Log, clock: Clock) -> None:
        self._path = folder / "serial.txt"
        self._programs = programs
        self._log = log
        self._clock = clock

    def say(self, event: dict[str, Any]) -> None:
        """Put ``event`` on the serial port. When that fails the log tells: nobody else is left to be told."""
        line = event_line(event)
        self._log.info(f"says {line.rstrip()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Written into the blocks that the file has already, so that a full disk does not silence the machine.
            with self._path.open("r+b" if self._path.exists() else "wb") as file:
                file.write(line.encode("ascii"))
                file.truncate()
            self._write()
        except Exception as error:
            self._log.error(f"the serial port took nothing: {error}")

    def _write(self) -> None:
        words = ["/d", "/c", "copy", "/b", paths.shown(self._path), r"\\.\COM1"]
        for _ in range(_TRIES - 1):
            try:
                self._programs.check("cmd.exe", words, timeout=30)
                return
            except FarmNodeError:
                self._clock.sleep(_PAUSE_SECONDS)
        self._programs.check("cmd.exe", words, timeout=30)


def event_line(event: dict[str, Any]) -> str:
    """The line for ``event``: ASCII, so that no code page changes it, and short enough to survive in the console."""
    reason = event.get("reason")
    if isinstance(reason, str) and len(reason) > _LONGEST_REASON:
        event = event | {"reason": reason[: _LONGEST_REASON - 3] + "..."}
    return f"{PREFIX} {json.dumps(event, ensure_ascii=True, separators=(', ', ': '))}\r\n"
