"""A small HTTP client that connects from inside a host (HTTP/1.1 with identity or chunked bodies, no compression)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

HOSTS_FILE = r"C:\Windows\System32\drivers\etc\hosts"
MAX_REDIRECTS = 50  # as .NET's HttpWebRequest


class HttpError(Exception):
    """No usable answer came; the text is that of .NET's WebException."""

    def __init__(self, text: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Response:
    """An answer. Header names are lower case."""

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


async def request(
    host: WindowsHost,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 30,
    validate: bool = True,
) -> Response:
    """Send one request and follow redirects. HttpError when there is no answer or its status is 400 and above."""
    for _ in range(MAX_REDIRECTS):
        try:
            response = await asyncio.wait_for(_once(host, method, url, headers or {}, body, validate), timeout)
        except TimeoutError:
            raise HttpError("The operation has timed out") from None
        if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
            url = urljoin(url, response.headers["location"])
            continue
        if response.status >= 400:
            raise HttpError(
                f"The remote server returned an error: ({response.status}) {response.reason}.",
                response.status,
                response.reason,
            )
        return response
    raise HttpError("Too many automatic redirections were attempted.")


async def _once(
    host: WindowsHost, method: str, url: str, headers: Mapping[str, str], body: bytes, validate: bool
) -> Response:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HttpError(f"rehearsal: only http and https URLs can be fetched, not {url}")
    reader, writer = await _connect(host, parts, validate)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        status_line = (await reader.readline()).decode("latin-1").strip()
        fields = status_line.split(" ", 2)
        if len(fields) < 2 or not fields[1].isdigit():
            raise HttpError("The underlying connection was closed: The connection was closed unexpectedly.")
        received: dict[str, str] = {}
        while (line := (await reader.readline()).decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            received[name.strip().lower()] = value.strip()
        content = b"" if method == "HEAD" else await _body(reader, received)
        return Response(url, int(fields[1]), fields[2] if len(fields) > 2 else "", received, content)
    except (ConnectionError, asyncio.IncompleteReadError):
        raise HttpError("The underlying connection was closed: The connection was closed unexpectedly.") from None
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        return b"".join(parts)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


async def _connect(
    host: WindowsHost, parts: SplitResult, validate: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        reader, writer = await host.platform.connect(resolve(host, name), port)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if not validate:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            await writer.start_tls(context, server_hostname=name)
    except ssl.SSLError:
        raise HttpError(
            "The underlying connection was closed: Could not establish trust relationship for the SSL/TLS secure "
            "channel."
        ) from None
    except (OSError, TimeoutError):
        raise HttpError("Unable to connect to the remote server") from None
    return reader, writer


def resolve(host: WindowsHost, name: str) -> str:
    """The address that the hosts file of C: gives for ``name``, else ``name`` for the platform to resolve."""
    if name.lower() == "localhost":
        return "127.0.0.1"
    if host.files.is_file(HOSTS_FILE):
        for line in host.files.read_bytes(HOSTS_FILE).decode("utf-8", errors="replace").splitlines():
            fields = line.split("#", 1)[0].split()
            if name.lower() in (field.lower() for field in fields[1:]):
                return fields[0]
    return name
