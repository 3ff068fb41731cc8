"""A small HTTP/1.1 server for sockets that live in a namespace (RFC 9110, RFC 9112; no bodies in requests)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rehearsal.interfaces import StreamHandler

_IDLE_SECONDS = 30.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Request:
    """One request; header names are in lower case, ``path`` is decoded and without its query."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None  # sent instead of the body


Handler = Callable[[Request], Awaitable[Response]]


class _Malformed(Exception):
    pass


def serving(handle: Handler) -> StreamHandler:
    """A stream handler for ``asyncio.start_server`` that answers each request by ``handle``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(_IDLE_SECONDS):
                        request = await _read(reader)
                except _Malformed as problem:
                    await _write(writer, "GET", Response(HTTPStatus.BAD_REQUEST, f"{problem}\n".encode()), close=True)
                    return
                if request is None:
                    return
                close = request.headers.get("connection", "").lower() == "close"
                await _write(writer, request.method, await handle(request), close=close)
                if close:
                    return
        except (TimeoutError, ConnectionError):
            return  # the client went away
        finally:
            writer.close()

    return serve


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise _Malformed("the request's head is too long") from error
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Malformed("this is not an HTTP/1.1 request")
    headers = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not length.isdigit() or "transfer-encoding" in headers:
        raise _Malformed("only bodies of a stated length are read here")
    await reader.readexactly(int(length))
    return Request(words[0], unquote(urlsplit(words[1]).path), headers)


async def _write(writer: asyncio.StreamWriter, method: str, response: Response, *, close: bool) -> None:
    length = response.file.stat().st_size if response.file else len(response.body)
    headers = {
        "Content-Type": "text/plain",
        "Content-Length": str(length),
        "Connection": "close" if close else "keep-alive",
        **response.headers,
    }
    head = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"{head}\r\n".encode("latin-1"))
    if method != "HEAD":
        if response.file:
            async for chunk in _chunks(response.file):
                writer.write(chunk)
                await writer.drain()
        else:
            writer.write(response.body)
    await writer.drain()


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as stream:
        while chunk := await asyncio.to_thread(stream.read, _CHUNK):
            yield chunk


def static_files(folder: Path) -> Handler:
    """Serves the files of ``folder`` (not of what lies outside it) for GET and HEAD."""
    root = folder.resolve()

    async def handle(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED)
        wanted = (root / request.path.lstrip("/")).resolve()
        if not wanted.is_relative_to(root) or not wanted.is_file():
            return Response(HTTPStatus.NOT_FOUND, f"there is no {request.path} here\n".encode())
        return Response(HTTPStatus.OK, file=wanted, headers={"Content-Type": "application/octet-stream"})

    return handle
