"""The HTTP side of WinRM: one endpoint for each listener of a host.

Sources: RFC 9112 (HTTP/1.1), "[MS-WSMV]" 2.2 (transport), reports of pywinrm and Packer for what Windows answers to
requests that it refuses (401 for credentials, 500 without a body for unencrypted traffic, 413 for a huge body).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from typing import Final

from rehearsal.interfaces import WinrmHost
from rehearsal.winrm import auth, wsman

log = logging.getLogger(__name__)

SOAP_TYPE: Final = "application/soap+xml;charset=UTF-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Request Entity Too Large",
    500: "Internal Server Error",
}
# http.sys reads a somewhat larger body so that WinRM itself can answer with a fault; beyond that it answers 413.
_BODY_FACTOR: Final = 4
_LINGER_BYTES: Final = 64 * 1024 * 1024
_LINGER_S: Final = 0.2


@dataclass
class Stats:
    """What a listener has seen."""

    connections: int = 0
    requests: int = 0
    commands: int = 0
    refused: int = 0
    """Requests answered with 401 although they carried credentials."""


class Endpoint:
    """One WinRM listener of one host."""

    def __init__(
        self,
        host: WinrmHost,
        *,
        tls: bool,
        certificate: bytes | None = None,
        max_shells: int = wsman.MAX_SHELLS_PER_USER,
        max_envelope_kb: int = wsman.MAX_ENVELOPE_KB,
    ) -> None:
        """:param tls: the listener's transport is HTTPS.
        :param certificate: the listener's certificate (DER), to check NTLM channel bindings.
        :param max_shells: quota of concurrent shells for each user (``MaxShellsPerUser``).
        :param max_envelope_kb: ``MaxEnvelopeSizekb``.
        """
        self.host = host
        self.tls = tls
        self.certificate = certificate
        self.shells = wsman.ShellService(host, max_shells=max_shells, max_envelope_kb=max_envelope_kb)
        self._stats = Stats()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def stats(self) -> Stats:
        self._stats.commands = self.shells.commands_started
        return self._stats

    def abort(self) -> None:
        """Cut all connections and end all shells, as a host does that goes down."""
        self.shells.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def accounts(self) -> auth.Accounts:
        return auth.Accounts(self.host.name, self.host.winrm_users(), self.host.winrm_basic_allowed())


@dataclass
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class _Response:
    status: int
    body: bytes = b""
    content_type: str = SOAP_TYPE
    challenges: list[str] = field(default_factory=list)
    close: bool = False


class _HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(_REASONS[status])
        self.status = status


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    """Serve one TCP connection until either side closes it."""
    endpoint.stats.connections += 1
    endpoint._writers.add(writer)
    authenticator = auth.ConnectionAuthenticator(tls=endpoint.tls, certificate=endpoint.certificate)
    try:
        while endpoint.host.winrm_up():
            try:
                request = await _read(reader, endpoint.shells.max_envelope_kb * 1024 * _BODY_FACTOR)
                if request is None:
                    return
                endpoint.stats.requests += 1
                response = await _answer(request, endpoint, authenticator)
            except _HttpError as error:
                response = _Response(error.status, close=True)
            if not endpoint.host.winrm_up():
                break
            writer.write(_encode(response))
            await writer.drain()
            if response.close:
                if response.status == 413:
                    await _linger(reader)
                return
        writer.transport.abort()
    except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError) as error:
        log.debug("%s: connection lost: %r", endpoint.host.name, error)
    finally:
        endpoint._writers.discard(writer)
        writer.close()


async def _linger(reader: asyncio.StreamReader) -> None:
    """Discard what the client still sends, so that it gets to read the answer before the connection closes."""
    discarded = 0
    while discarded < _LINGER_BYTES:
        try:
            data = await asyncio.wait_for(reader.read(65536), _LINGER_S)
        except TimeoutError:
            return
        if not data:
            return
        discarded += len(data)


async def _read(reader: asyncio.StreamReader, limit: int) -> _Request | None:
    """Read one HTTP request; None at the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise _HttpError(400) from None
        return None
    except asyncio.LimitOverrunError:
        raise _HttpError(400) from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not words[0].isalpha():
        raise _HttpError(400)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _HttpError(400)
        headers[name.lower()] = value.strip()
    request = _Request(words[0], words[1], headers)
    if "transfer-encoding" in headers:
        raise _HttpError(411)
    length = headers.get("content-length")
    if length is None:
        if request.method == "POST":
            raise _HttpError(411)
        return request
    if not length.isascii() or not length.isdigit():
        raise _HttpError(400)
    if int(length) > limit:
        raise _HttpError(413)
    request.body = await reader.readexactly(int(length))
    return request


async def _answer(request: _Request, endpoint: Endpoint, authenticator: auth.ConnectionAuthenticator) -> _Response:
    if request.path.partition("?")[0].rstrip("/").lower() != "/wsman":
        raise _HttpError(404)
    if request.method != "POST":
        raise _HttpError(405)
    accounts = endpoint.accounts()
    header = request.headers.get("authorization")
    try:
        challenge = authenticator.authenticate(header, accounts)
    except auth.AuthenticationError as error:
        if header is not None:
            endpoint.stats.refused += 1
            log.info("%s: logon refused: %s", endpoint.host.name, error)
        return _Response(401, challenges=authenticator.challenges(accounts))
    user = authenticator.user
    if user is None:
        return _Response(401, challenges=[challenge] if challenge else authenticator.challenges(accounts))
    response = await _authenticated(request, endpoint, authenticator, user)
    if challenge:
        response.challenges = [challenge]
    return response


async def _authenticated(
    request: _Request, endpoint: Endpoint, authenticator: auth.ConnectionAuthenticator, user: str
) -> _Response:
    if not request.body:  # a client authenticates a connection before it encrypts
        return _Response(200)
    encrypted = request.headers.get("content-type", "").startswith(auth.ENCRYPTED_TYPE)
    if not encrypted and not endpoint.tls:
        return _Response(500)  # AllowUnencrypted is false
    try:
        message = authenticator.unwrap(request.body) if encrypted else request.body
        status, answer = await endpoint.shells.answer(message, user)
    except (auth.MessageError, wsman.MalformedMessageError) as error:
        log.info("%s: message refused: %s", endpoint.host.name, error)
        raise _HttpError(400) from None
    if encrypted:
        return _Response(status, authenticator.wrap(answer), auth.ENCRYPTED_CONTENT_TYPE)
    return _Response(status, answer)


def _encode(response: _Response) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        "Server: Microsoft-HTTPAPI/2.0",
        f"Content-Length: {len(response.body)}",
    ]
    if response.body:
        lines.append(f"Content-Type: {response.content_type}")
    lines += [f"WWW-Authenticate: {challenge}" for challenge in response.challenges]
    if response.close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + response.body
