"""What every program gets and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehearsal.interfaces import Outcome

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost


@dataclass(frozen=True)
class Invocation:
    """One start of a program: ``path`` is its file, ``arguments`` what follows it on the command line."""

    host: WindowsHost
    path: str
    arguments: list[str]
    cwd: str
    stdin: bytes
    environment: Mapping[str, str]
    user: str


Program = Callable[[Invocation], Awaitable[Outcome]]


def console(text: str, rc: int = 0) -> Outcome:
    """What a console program printed, with Windows' ends of lines."""
    return Outcome(rc, _windows_lines(text))


def failure(text: str, rc: int = 1) -> Outcome:
    """The same on standard error."""
    return Outcome(rc, b"", _windows_lines(text))


def refuse(invocation: Invocation, reason: str = "these arguments are not modelled", rc: int = 1) -> Outcome:
    """The rehearsal does not know what the program would do."""
    words = " ".join([invocation.path.rpartition("\\")[2], *invocation.arguments])
    text = f"rehearsal: {words}: {reason}"
    invocation.host.log(text)
    return failure(text + "\n", rc)


def _windows_lines(text: str) -> bytes:
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
