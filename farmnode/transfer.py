"""A TCP transfer between two machines, both ways, with SHA-256 and figures.

One machine listens for a short time, the others connect to it, one after another.  A connection begins with one line
of JSON from the client (``{"direction": "send", "bytes": N}``), the listener answers ``go`` when it is its turn, then
the bytes pass, then the side that received (``send``) or sent (``receive``) them writes one line with the SHA-256.
Both sides compute it; the client compares.  The bytes are random, so nothing on the way can shrink them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

PORT: Final = 3235
LARGEST: Final = 1 << 30
_BLOCK: Final = 1 << 20
_LINE: Final = 1024
#: Seconds without a single byte after which a transfer is given up.
_SILENCE: Final = 20.0


class TransferError(Exception):
    """A transfer did not come to its end; the text says how far it came."""


@dataclass(frozen=True)
class Transfer:
    """A transfer that ended: ``seconds`` is the client's time from the listener's ``go`` to the last line."""

    bytes: int
    seconds: float
    sha256: str
    same: bool

    def as_json(self) -> dict[str, Any]:
        mbit = self.bytes * 8 / max(self.seconds, 1e-6) / 1e6
        return {
            "ok": self.same,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "mbit": round(mbit, 1),
            "sha256": self.sha256,
            **({} if self.same else {"error": "the bytes that arrived are not those that were sent (SHA-256 differs)"}),
        }


def client(address: str, port: int, direction: str, size: int, *, patience: float) -> Transfer:
    """Send ``size`` bytes to the listener, or receive them from it.

    ``patience`` is how many seconds the listener may take to open its port and to give this client its turn.
    TransferError when it does not, when the connection breaks, or when nothing passes for 20 seconds.
    """
    link = _connect(address, port, time.monotonic() + patience)
    with link, _reader(link) as stream:
        try:
            link.sendall(json.dumps({"direction": direction, "bytes": size}).encode() + b"\n")
            link.settimeout(patience)
            if stream.readline(_LINE) != b"go\n":
                raise TransferError(f"{address}:{port} answers, but is no farmnode: another program uses the port")
            link.settimeout(_SILENCE)
            began = time.monotonic()
            own = _push(link, size) if direction == "send" else _pull(stream, size)
            told = _line(stream).get("sha256")
            return Transfer(size, time.monotonic() - began, own, told == own)
        except TimeoutError:
            raise TransferError(f"the connection to {address}:{port} stands, but nothing passes any more") from None
        except OSError as error:
            raise TransferError(f"the connection to {address}:{port} broke: {error}") from error


def listen(
    transfers: int, *, port: int = PORT, limit: float, opened: Callable[[int], None] = lambda port: None
) -> list[dict[str, Any]]:
    """Serve ``transfers`` transfers, one after another, for at most ``limit`` seconds; what each was.

    ``opened`` is called with the port once it is open. OSError when the port is taken.
    """
    end = time.monotonic() + limit
    served: list[dict[str, Any]] = []
    with socket.create_server(("", port), backlog=16, reuse_port=False) as listener:
        opened(listener.getsockname()[1])
        while len(served) < transfers and (left := end - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                link, (peer, _) = listener.accept()
            except TimeoutError:
                break
            with link:
                served.append({"peer": peer, **_serve(link, min(_SILENCE, max(left, 1.0)))})
    return served


def _serve(link: socket.socket, silence: float) -> dict[str, Any]:
    link.settimeout(silence)
    try:
        with _reader(link) as stream:
            wanted = _line(stream)
            direction, size = wanted.get("direction"), wanted.get("bytes")
            if direction not in ("send", "receive") or not isinstance(size, int) or not 0 < size <= LARGEST:
                return {"ok": False, "error": "a connection that is no transfer"}
            link.sendall(b"go\n")
            digest = _pull(stream, size) if direction == "send" else _push(link, size)
            link.sendall(json.dumps({"sha256": digest}).encode() + b"\n")
            stream.read(1)  # the client closes once it has read that line
            return {"ok": True, "direction": direction, "bytes": size, "sha256": digest}
    except (OSError, TransferError) as error:
        return {"ok": False, "error": str(error) or type(error).__name__}


def _connect(address: str, port: int, end: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((address, port), timeout=3.0)
        except OSError as error:
            if time.monotonic() >= end:
                why = "nothing listens" if isinstance(error, ConnectionRefusedError) else str(error) or "no answer"
                raise TransferError(f"no connection to {address}:{port}: {why}") from None
            time.sleep(0.3)


def _reader(link: socket.socket) -> io.BufferedReader:
    return io.BufferedReader(socket.SocketIO(link, "r"), _BLOCK)


def _push(link: socket.socket, size: int) -> str:
    digest = hashlib.sha256()
    for block in _blocks(size):
        digest.update(block)
        link.sendall(block)
    return digest.hexdigest()


def _blocks(size: int) -> Iterator[memoryview]:
    """Random bytes: one block of them, begun at another place each time."""
    block = memoryview(os.urandom(_BLOCK) * 2)
    number = 0
    while size > 0:
        start = number * 4093 % _BLOCK
        yield block[start : start + min(size, _BLOCK)]
        size -= _BLOCK
        number += 1


def _pull(stream: io.BufferedIOBase, size: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    left = size
    while left:
        count = stream.readinto(buffer[: min(left, _BLOCK)])
        if not count:
            raise TransferError(f"the connection ended after {size - left} of {size} bytes")
        digest.update(buffer[:count])
        left -= count
    return digest.hexdigest()


def _line(stream: io.BufferedIOBase) -> dict[str, Any]:
    try:
        said = json.loads(stream.readline(_LINE))
    except ValueError:
        raise TransferError("the other side ended the connection in the middle") from None
    return said if isinstance(said, dict) else {}
