"""The small HTTP server, over real sockets on the loopback device."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import pytest

from rehearsal.network.http import Handler, Request, Response, serving, static_files


async def exchange(handle: Handler, *requests: bytes) -> bytes:
    """Everything that comes back when these bytes are sent and the sending side is closed."""
    server = await asyncio.start_server(serving(handle), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for request in requests:
        writer.write(request)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    server.close()
    return answer


async def echo(request: Request) -> Response:
    return Response(HTTPStatus.OK, f"{request.method} {request.path}".encode())


def test_several_requests_on_one_connection() -> None:
    answer = asyncio.run(
        exchange(echo, b"GET /a%20b?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", b"PUT /c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"GET /a b" in answer
    assert answer.endswith(b"PUT /c")


def test_connection_is_closed_on_request() -> None:
    answer = asyncio.run(exchange(echo, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /never HTTP/1.1\r\n\r\n"))
    assert b"never" not in answer
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET / SPDY/3\r\n\r\n"]
)
def test_what_is_not_understood_is_refused(request_: bytes) -> None:
    assert asyncio.run(exchange(echo, request_)).startswith(b"HTTP/1.1 400 ")


def get(path: str, folder: Path, method: str = "GET") -> bytes:
    return asyncio.run(exchange(static_files(folder), f"{method} {path} HTTP/1.1\r\n\r\n".encode()))


def test_files_are_served_and_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    served = tmp_path / "downloads"
    served.mkdir()
    (served / "big.msi").write_bytes(b"x" * 200_000)
    answer = get("/big.msi", served)
    assert b"Content-Length: 200000" in answer
    assert answer.endswith(b"x" * 1000)
    assert get("/big.msi", served, "HEAD").endswith(b"\r\n\r\n")
    for path in ("/../secret", "/%2e%2e/secret", "//etc/passwd", "/absent", "/"):
        assert get(path, served).startswith(b"HTTP/1.1 404 ")
    assert get("/big.msi", served, "DELETE").startswith(b"HTTP/1.1 405 ")
