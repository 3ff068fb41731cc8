"""A WinRM server on the loopback, driven by the real client."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from winrm.protocol import Protocol

from rehearsal.interfaces import Reply, Request
from rehearsal.winrm.server import Endpoint, serve_connection


@dataclass
class Certificate:
    """Files of a certificate as New-SelfSignedCertificate makes one: no BasicConstraints, no AuthorityKeyIdentifier."""

    pem: Path
    key: Path
    der: bytes

    @classmethod
    def make(cls, folder: Path, name: str) -> Certificate:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(
            ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only",
             "decipher_only"), False
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=10))
            .not_valid_after(now + datetime.timedelta(days=365))
            .add_extension(x509.KeyUsage(digital_signature=True, key_encipherment=True, **usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = folder / f"{name}.pem"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cls(pem, private, certificate.public_bytes(serialization.Encoding.DER))


async def echo(request: Request) -> Reply:
    return Reply(0, f"{request.kind}:{request.script}:{request.stdin}".encode())


@dataclass
class FakeHost:
    """A host that answers by one function."""

    name: str = "WIN1"
    users: dict[str, str] = field(default_factory=lambda: {"Administrator": "geheim:§1"})
    basic: bool = True
    up: bool = True
    answer: Callable[[Request], Awaitable[Reply]] = echo
    requests: list[Request] = field(default_factory=list)

    def winrm_users(self) -> dict[str, str]:
        return self.users

    def winrm_basic_allowed(self) -> bool:
        return self.basic

    def winrm_up(self) -> bool:
        return self.up

    async def execute(self, request: Request) -> Reply:
        self.requests.append(request)
        return await self.answer(request)


class Loop:
    """An event loop in a thread of its own, because the client blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@dataclass
class Listener:
    """A started endpoint and how to reach it."""

    endpoint: Endpoint
    host: FakeHost
    port: int
    certificate: Certificate

    def client(self, transport: str = "ntlm", user: str = "Administrator", **options: Any) -> Protocol:
        scheme = "https" if self.endpoint.tls else "http"
        settings: dict[str, Any] = {
            "username": user,
            "password": self.host.users.get(user, ""),
            "ca_trust_path": str(self.certificate.pem),
            "operation_timeout_sec": 5,
            "read_timeout_sec": 8,
            "proxy": None,
        }
        return Protocol(f"{scheme}://127.0.0.1:{self.port}/wsman", transport=transport, **{**settings, **options})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificates"), "server")


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificates"), "other")


@pytest.fixture
def listen(certificate: Certificate) -> Iterator[Callable[..., Listener]]:
    """Start listeners: ``listen(tls=True, options=dict of Endpoint's options, **fields of FakeHost)``."""
    loop = Loop()
    servers: list[asyncio.AbstractServer] = []
    endpoints: list[Endpoint] = []

    def start(*, tls: bool = True, options: dict[str, Any] | None = None, **fields: Any) -> Listener:
        host = FakeHost(**fields)
        endpoint = Endpoint(host, tls=tls, **(options or {}))
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.pem, certificate.key)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve_connection(reader, writer, endpoint)

        server = loop.run(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        servers.append(server)
        endpoints.append(endpoint)
        return Listener(endpoint, host, server.sockets[0].getsockname()[1], certificate)

    async def stop() -> None:
        for server in servers:
            server.close()
        for endpoint in endpoints:
            endpoint.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=5) if others else None

    yield start
    loop.run(stop())
    loop.close()
