"""Windows' own programs, started by full path with argument lists (no shell, no search path)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from farmnode import paths
from farmnode.errors import FarmNodeError

#: Console programs write in the OEM code page. Only their numbers are parsed; their text is quoted in errors.
_ENCODING: Final = "oem" if os.name == "nt" else "utf-8"


@dataclass(frozen=True)
class Completed:
    """How a program ended."""

    rc: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """What it said, in one line: for error messages."""
        return " ".join((self.stdout + " " + self.stderr).split())[:400] or "no output"


class Programs:
    """Runs programs of ``System32``."""

    def run(
        self, name: str, arguments: Sequence[str], *, timeout: float = 60.0, stdin: bytes | None = None
    ) -> Completed:
        """Run ``name`` and return how it ended, whatever its exit code. ``stdin`` is what it may read: secrets, mostly.

        Raises FarmNodeError when it cannot be started or does not end within ``timeout`` seconds.
        """
        path = paths.system_program(name)
        try:
            done = subprocess.run(
                [str(path), *arguments], input=stdin or b"", capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise FarmNodeError(
                "program", f"{command(name, arguments)} did not end within {timeout:g} seconds."
            ) from None
        except OSError as error:
            raise FarmNodeError(
                "program", f"cannot start {paths.shown(path)}: {error.strerror or error}. It belongs to Windows."
            ) from error
        return Completed(
            done.returncode, done.stdout.decode(_ENCODING, "replace"), done.stderr.decode(_ENCODING, "replace")
        )

    def check(self, name: str, arguments: Sequence[str], *, timeout: float = 60.0) -> Completed:
        """As `run`, but an exit code other than 0 is an error."""
        done = self.run(name, arguments, timeout=timeout)
        if done.rc != 0:
            raise FarmNodeError("program", f"{command(name, arguments)} ended with {done.rc}: {done.text}")
        return done


def command(name: str, arguments: Sequence[str]) -> str:
    """The command line for people."""
    return " ".join([name, *(f'"{word}"' if " " in word else word for word in arguments)])
