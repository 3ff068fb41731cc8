"""The Backburner manager's text protocol on TCP 3234: who is registered.

The protocol is not documented by Autodesk.  It is what independent clients agree on: a greeting ``250 …``, a prompt
that ends with ``>``, commands that end with CR LF, and for lists ``251 <length>`` CR LF, then XML of that many bytes
whose last one is a terminator.  Names of the XML's elements are not known for certain, so items are read by position.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar
from xml.etree import ElementTree

from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.identity import normal_mac

Told = TypeVar("Told")

PORT: Final = 3234
ABSENT: Final = "absent"
#: 3ds Max SDK, maxnet_types.h: HSERVERSTATE_ABSENT and following.
_STATES: Final = (ABSENT, "idle", "busy", "error", "suspended")
#: The same, JOBSTATE_COMPLETE and following.
_JOB_STATES: Final = ("complete", "waiting", "busy", "error", "suspended")
_HANDLE = re.compile(r"[0-9A-Fa-f]{12}0000")
_LONGEST: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Server:
    """One row of the manager's list."""

    handle: str
    state: str
    name: str

    @property
    def mac(self) -> str:
        return normal_mac(self.handle[:12])

    def as_json(self) -> dict[str, str]:
        return {"handle": self.handle, "mac": self.mac, "state": self.state, "name": self.name}


@dataclass(frozen=True)
class Job:
    """One row of the manager's queue."""

    handle: str
    state: str
    name: str

    def as_json(self) -> dict[str, str]:
        return {"handle": self.handle, "state": self.state, "name": self.name}


def resolve(manager: str) -> str:
    """The address of ``manager``; FarmNodeError when the name does not resolve or is no address."""
    try:
        found = socket.getaddrinfo(manager, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FarmNodeError(
            "unknown_manager",
            f"the manager {manager!r} is no address and its name does not resolve ({error}); "
            "give the manager's address, as Autodesk advises, or put its name into the DNS.",
        ) from error
    return str(found[0][4][0])


def listens(address: str, port: int, *, timeout: float = 3.0) -> bool:
    """Does something accept connections there?"""
    try:
        socket.create_connection((address, port), timeout).close()
    except OSError:
        return False
    return True


def servers(address: str, port: int, clock: Clock, *, timeout: float = 15.0) -> list[Server]:
    """The manager's list. FarmNodeError when it is not reached or answers what is not understood.

    ``timeout`` is in seconds for the whole conversation.
    """
    return _asked(address, port, clock, timeout, servers_of)


def _asked(address: str, port: int, clock: Clock, timeout: float, ask: Callable[[_Conversation], Told]) -> Told:
    try:
        with socket.create_connection((address, port), timeout) as connection:
            conversation = _Conversation(connection, clock, clock.monotonic() + timeout)
            conversation.greet()
            return ask(conversation)
    except OSError as error:
        raise FarmNodeError(
            "manager_unreachable",
            f"no list of servers from the manager at {address}:{port}: {error}. "
            "See that its service runs and that the firewall lets farm machines in.",
        ) from error


def servers_of(conversation: _Conversation) -> list[Server]:
    return parse_servers(conversation.ask("get srvlist"))


def jobs_of(conversation: _Conversation) -> list[Job]:
    return parse_jobs(conversation.ask("get joblist"))


def queue(address: str, port: int, clock: Clock, *, timeout: float = 15.0) -> tuple[list[Server], list[Job]]:
    """The manager's servers and its jobs. FarmNodeError as `servers`."""
    return _asked(address, port, clock, timeout, lambda told: (servers_of(told), jobs_of(told)))


def wait_for(
    expected: Collection[str], address: str, port: int, clock: Clock, *, limit: float, pause: float = 0.25
) -> list[Server]:
    """The manager's list as soon as it has a server that is not absent for each MAC address of ``expected``.

    After ``limit`` seconds it is the list as it is then. FarmNodeError as soon as the manager does not answer.
    """
    listed: list[Server] = []

    def complete() -> bool:
        listed[:] = servers(address, port, clock)
        return set(expected) <= {server.mac for server in listed if server.state != ABSENT}

    clock.wait(complete, limit, first=pause, most=pause)
    return listed


def delete(address: str, port: int, handle: str, clock: Clock, *, timeout: float = 15.0) -> None:
    """Take an absent server off the manager's list. FarmNodeError when the manager does not do that now.

    That only absent servers can be deleted, and only by the queue's controller, is documented (Backburner User's Guide;
    3ds Max SDK), and so do clients take control (``new controller``). The word ``del server`` is not: it is made after
    ``del job``, which is. A manager that does not know it keeps the entry, and people delete it in the Monitor.
    """
    try:
        with socket.create_connection((address, port), timeout) as connection:
            conversation = _Conversation(connection, clock, clock.monotonic() + timeout)
            conversation.greet()
            conversation.tell("new controller", 201)
            try:
                conversation.tell(f"del server {handle}", 200)
            finally:
                conversation.tell("del controller Yes", 200)
    except OSError as error:
        raise FarmNodeError("manager_unreachable", f"{handle} is not deleted at {address}:{port}: {error}.") from error


def parse_servers(xml: bytes) -> list[Server]:
    """The servers in the answer to ``get srvlist``: of each item the first three parts are handle, state, name."""
    return [_server(parts) for parts in _items(xml)]


def parse_jobs(xml: bytes) -> list[Job]:
    """The jobs in the answer to ``get joblist``: of each item the first three parts are handle, state, name."""
    return [_job(parts) for parts in _items(xml)]


def _items(xml: bytes) -> list[list[str]]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise FarmNodeError("manager_protocol", f"the manager's list is not XML: {error}.") from error
    return [[(part.text or "").strip() for part in item] for item in root]


def _job(parts: list[str]) -> Job:
    if len(parts) < 3 or not parts[0] or not parts[1].isdecimal():
        raise FarmNodeError("manager_protocol", f"an item of the manager's jobs is not handle, state, name: {parts!r}.")
    number = int(parts[1])
    return Job(parts[0], _JOB_STATES[number] if number < len(_JOB_STATES) else f"state {number}", parts[2])


def _server(parts: list[str]) -> Server:
    if len(parts) < 3 or not _HANDLE.fullmatch(parts[0]) or not parts[1].isdecimal():
        raise FarmNodeError("manager_protocol", f"an item of the manager's list is not handle, state, name: {parts!r}.")
    number = int(parts[1])
    return Server(parts[0].upper(), _STATES[number] if number < len(_STATES) else f"state {number}", parts[2])


class _Conversation:
    """Reads from a stream whose pieces TCP splits and joins as it likes."""

    def __init__(self, connection: socket.socket, clock: Clock, end: float) -> None:
        self._connection = connection
        self._clock = clock
        self._end = end
        self._pending = b""

    def greet(self) -> None:
        line = self._until(b"\n")
        if not line.startswith(b"250 "):
            raise FarmNodeError("manager_protocol", f"no Backburner manager: it greets with {_quote(line)}.")
        self._until(b">")

    def ask(self, command: str) -> bytes:
        """The XML that answers a list command."""
        self._connection.sendall(command.encode("ascii") + b"\r\n")
        line = self._until(b"\n").strip()
        code, _, length = line.partition(b" ")
        if code != b"251" or not length.isdigit() or not 0 < int(length) <= _LONGEST:
            raise FarmNodeError("manager_protocol", f"the manager answers {command!r} with {_quote(line)}.")
        body = self._exactly(int(length))
        self._until(b">")
        return body[:-1]

    def tell(self, command: str, code: int) -> None:
        """A command that is answered by ``code`` and a text."""
        self._connection.sendall(command.encode("ascii") + b"\r\n")
        line = self._until(b"\n").strip()
        self._until(b">")
        if not line.startswith(b"%d" % code):
            raise FarmNodeError("manager_protocol", f"the manager answers {command!r} with {_quote(line)}.")

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._pending:
            if len(self._pending) > 4096:
                raise FarmNodeError("manager_protocol", f"the manager goes on and on: {_quote(self._pending[:80])}.")
            self._pending += self._more()
        found, _, self._pending = self._pending.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        pieces = [self._pending]
        missing = length - len(self._pending)
        while missing > 0:
            piece = self._more()
            pieces.append(piece)
            missing -= len(piece)
        whole = b"".join(pieces)
        self._pending = whole[length:]
        return whole[:length]

    def _more(self) -> bytes:
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        piece = self._connection.recv(65536)
        if not piece:
            raise ConnectionError("the manager closed the connection")
        return piece


def _quote(line: bytes) -> str:
    return repr(line.decode("ascii", "replace").strip())
