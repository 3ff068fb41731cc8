r"""The wire of Backburner as far as it is known, and the few commands of our own that the rest of it needs.

Known of the manager's text protocol (TCP 3234, no login; from two public client scripts that agree): the greeting, the
prompt, commands that end with CR LF, ``251 <length>`` followed by XML of that length whose last byte is a terminator,
``200``, ``201``, the positions of values in the answers.  Ours: every tag name, the terminator being NUL, the error
replies (500 and up), and the commands in ``OWN_COMMANDS`` that carry JSON where the real wire is not documented.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

GREETING = b"250 backburner 1.0 Ready.\r\n"
PROMPT = b"backburner>"
CONTROLLER_PROMPT = b"backburner(Controller)>"
TERMINATOR = b"\x00"
MAX_LINE = 65536
OWN_COMMANDS = ("register", "report", "submit", "ping", "run", "cancel")

_PIECE = 1400
_PAUSE = 0.001

ABSENT, IDLE, BUSY, ERROR, SUSPENDED = range(5)
"""States of a server (3ds Max SDK, maxnet_types.h)."""
COMPLETE, WAITING, JOB_BUSY, JOB_ERROR, JOB_SUSPENDED = range(5)
"""States of a job (3ds Max SDK, maxnet_types.h)."""


class ProtocolError(Exception):
    """The other end does not speak the protocol that was expected."""


@dataclass(frozen=True)
class Answer:
    """A reply: its code, the rest of the status line, and the XML of a 251."""

    code: int
    text: str
    xml: bytes = b""

    def root(self) -> ElementTree.Element:
        """The XML as a tree. ProtocolError when the reply has none."""
        if self.code != 251:
            raise ProtocolError(f"the reply is {self.code} {self.text}, not a list")
        return ElementTree.fromstring(self.xml)


def encode(answer: Answer) -> bytes:
    """``answer`` as it goes over the wire, without the prompt."""
    if answer.code == 251:
        body = answer.xml + TERMINATOR
        return f"251 {len(body)}\r\n".encode() + body
    return f"{answer.code} {answer.text}\r\n".encode()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write ``data`` so that it arrives in several pieces: the status line, then parts of at most 1400 bytes.

    Clients of the real manager had to cope with pieces that are split or merged, so ours must too.
    """
    head, separator, rest = data.partition(b"\r\n")
    writer.write(head + separator)
    await writer.drain()
    for start in range(0, len(rest), _PIECE):
        await asyncio.sleep(_PAUSE)
        writer.write(rest[start : start + _PIECE])
        await writer.drain()


async def read_line(reader: asyncio.StreamReader) -> str | None:
    """One command without its CR LF; None at the end of the connection. ProtocolError when it is too long."""
    try:
        line = await reader.readline()
    except ValueError as error:  # longer than the reader's limit
        raise ProtocolError("a command is longer than 64 KiB") from error
    if not line.endswith(b"\n"):
        return None
    return line.decode("utf-8", errors="replace").rstrip("\r\n")


class Connection:
    """The client's side of a connection to a manager (3234) or, for the stand-ins themselves, a server (3233)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def greet(self) -> None:
        """Read greeting and prompt. ProtocolError when something else answers."""
        line = await self._until(b"\n")
        if line != GREETING:
            raise ProtocolError(f"not Backburner: greeting is {line!r}")
        await self._until(b">")

    async def command(self, text: str) -> Answer:
        """Send one command and read its reply and the prompt after it. ProtocolError, OSError."""
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()
        line = (await self._until(b"\n")).decode("utf-8", errors="replace")
        match = re.fullmatch(r"(\d{3})(?: (.*))?\r\n", line)
        if match is None:
            raise ProtocolError(f"the reply to {text.split(' ', 2)[:2]} is no status line: {line!r}")
        code, rest = int(match[1]), match[2] or ""
        xml = b""
        if code == 251:
            if not rest.isdigit():
                raise ProtocolError(f"251 without a length: {line!r}")
            xml = (await self._exactly(int(rest)))[:-1]
        await self._until(b">")
        return Answer(code, rest, xml)

    async def ended(self) -> None:
        """Return when the other end closed the connection (anything that arrives meanwhile is dropped)."""
        try:
            while await self.reader.read(4096):
                pass
        except OSError:
            return

    def close(self) -> None:
        self.writer.close()

    async def _until(self, mark: bytes) -> bytes:
        try:
            return await self.reader.readuntil(mark)
        except asyncio.IncompleteReadError as error:
            raise ProtocolError(f"the connection ended after {error.partial!r}") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError(f"no {mark!r} within {error.consumed} bytes") from error

    async def _exactly(self, count: int) -> bytes:
        try:
            return await self.reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            raise ProtocolError(f"the connection ended {count - len(error.partial)} bytes before the end") from error


def element(tag: str, *content: str | int | float | ElementTree.Element) -> ElementTree.Element:
    """An element with text or with children."""
    made = ElementTree.Element(tag)
    for item in content:
        if isinstance(item, ElementTree.Element):
            made.append(item)
        else:
            made.text = str(item)
    return made


def listing(root: ElementTree.Element) -> Answer:
    """``root`` as the 251 reply to a query."""
    return Answer(251, "", ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def stamp(seconds: float | None) -> str:
    """A time (seconds since 1970) as the protocol writes it (seen: ``2019/12/18-20:27:58:0597-03``); "" for None."""
    if seconds is None:
        return ""
    time = datetime.fromtimestamp(seconds, UTC)
    return time.strftime("%Y/%m/%d-%H:%M:%S:") + f"{time.microsecond // 100:04d}+00"
