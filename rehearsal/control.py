"""How commands talk to the daemon of a rehearsal: one JSON line each way over a socket that only root may use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from rehearsal.interfaces import RehearsalError

_NAME = "control.sock"
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class NotUp(RehearsalError):
    """No rehearsal is up in the folder."""


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path of the socket that is short enough for any folder (unix(7): 107 bytes)."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{_NAME}"
    finally:
        os.close(handle)


async def serve(folder: Path, handle: Handler) -> asyncio.AbstractServer:
    """Answer requests to the rehearsal of ``folder``; a RehearsalError becomes the answer's ``error``."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                return
            try:
                answer = await handle(json.loads(line))
            except RehearsalError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            pass  # whoever asked did not wait for the answer
        finally:
            writer.close()

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (folder / _NAME).unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        with _short_path(folder) as path:
            listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen()
    listener.setblocking(False)
    return await asyncio.start_unix_server(talk, sock=listener)


def _connect(folder: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with _short_path(folder) as path:
            connection.connect(path)
    except PermissionError:
        connection.close()
        raise RehearsalError(f"the rehearsal in {folder} belongs to root: use sudo") from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        raise NotUp(f"no rehearsal is up in {folder}; start it with: python -m rehearsal up --dir {folder}") from None
    return connection


def call(folder: Path, request: dict[str, Any], *, timeout: float = 60.0) -> dict[str, Any]:
    """Ask the daemon of ``folder``. NotUp when there is none; RehearsalError with its text when it refuses."""
    with _connect(folder, timeout) as connection, connection.makefile("rwb") as stream:
        stream.write(json.dumps(request).encode() + b"\n")
        stream.flush()
        try:
            line = stream.readline()
        except TimeoutError:
            raise RehearsalError(f"the rehearsal in {folder} did not answer within {timeout:g} s") from None
    if not line:
        raise NotUp(f"the rehearsal in {folder} ended before it answered; its last words: {folder / 'daemon.log'}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RehearsalError(answer["error"])
    return answer


def daemon_pid(folder: Path) -> int:
    """The id of the daemon's process, as this process sees it. NotUp when there is none."""
    with _connect(folder, 10.0) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
