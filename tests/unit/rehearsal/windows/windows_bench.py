"""A Windows host on a platform that keeps everything in memory."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal

from rehearsal.interfaces import Nic, Outcome, Request, StreamHandler
from rehearsal.windows.host import WindowsHost

MAC = "02:1a:2b:3c:4d:5e"
CODE = "{11111111-2222-3333-4444-555555555555}"
PACKAGE = {
    "format": "rehearsal-msi",
    "product_name": "Autodesk Backburner 2019.0",
    "product_code": CODE,
    "version": "19.0.0",
    "files": {"C:\\Program Files (x86)\\Autodesk\\Backburner\\serversvc.exe": "base64:AAE="},
    "registry": [["HKLM\\SOFTWARE\\Backburner", "Version", "REG_SZ", "19"]],
    "services": [{"name": "Helper", "display_name": "Help", "path": "C:\\h.exe", "start_mode": "manual"}],
    "path_append": ["C:\\Program Files (x86)\\Autodesk\\Backburner"],
}


@dataclass
class Answer:
    """What the fake metadata service or web server answers to one path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class FakePlatform:
    """Routes, serial port, power and listeners in memory; connections go to ``web``; programs really run."""

    def __init__(self, name: str = "machine", address: str = "10.0.0.21", network: str = "10.0.0.0/24") -> None:
        self.name = name
        self.namespace = "none"
        subnet = IPv4Network(network)
        self.nic = Nic("eth0", MAC, IPv4Address(address), subnet, subnet.network_address + 1)
        self.key_name: str | None = "farm"
        self.console = b""
        self.powered: list[str] = []
        self.passwords: list[str] = []
        self.rulesets: list[str] = []
        self.forwards: list[bool] = []
        self.ports: dict[int, tuple[StreamHandler, ssl.SSLContext | None]] = {}
        self.web: dict[tuple[str, str], Answer] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.spawned: list[list[str]] = []
        self.sysctls: dict[str, str] = {}
        self.route_table = [
            {"dst": "default", "gateway": str(self.nic.gateway), "dev": "eth0", "metric": 100},
            {"dst": str(subnet), "dev": "eth0", "scope": "link", "prefsrc": address},
        ]

    async def listen(
        self, port: int, serve: StreamHandler, *, address: str = "0.0.0.0", tls: ssl.SSLContext | None = None
    ) -> asyncio.AbstractServer:
        self.ports[port] = (serve, tls)
        platform = self

        class Server:
            def close(self) -> None:
                platform.ports.pop(port, None)

        return Server()  # type: ignore[return-value]

    async def connect(
        self, address: str, port: int, *, timeout: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not any(known == f"{address}:{port}" for known, _ in self.web):
            raise ConnectionRefusedError(f"{address}:{port}")
        reader = asyncio.StreamReader()
        return reader, _WebWriter(self, f"{address}:{port}", reader)  # type: ignore[return-value]

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes = b"", timeout: float = 3600.0
    ) -> Outcome:
        self.spawned.append(list(argv))
        if argv[0] == "sysctl":  # never the settings of the machine that the tests run on
            key, _, value = argv[-1].partition("=")
            if value:
                self.sysctls[key] = value
            return Outcome(0, self.sysctls.get(key, "0").encode() + b"\n")
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(stdin), timeout)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Outcome(process.returncode or 0, stdout, stderr)

    async def daemon(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> asyncio.subprocess.Process:
        raise NotImplementedError

    async def ip(self, *arguments: str) -> Outcome:
        words = [word for word in arguments if word not in ("-j", "-4")]
        match words:
            case ["link", "show"]:
                answer: Any = [{"ifindex": 1, "ifname": "lo"}, {"ifindex": 2, "ifname": "eth0", "address": MAC}]
            case ["addr", "show"]:
                address = {"family": "inet", "local": str(self.nic.address), "prefixlen": self.nic.network.prefixlen}
                answer = [{"ifindex": 2, "ifname": "eth0", "addr_info": [address]}]
            case ["route", "show"]:
                answer = self.route_table
            case ["route", "add", network, "via", gateway, "dev", device, "metric", metric]:
                route = {"dst": network, "gateway": gateway, "dev": device, "metric": int(metric)}
                self.route_table.append(route)
                return Outcome(0)
            case ["route", "add", "blackhole", network, "metric", metric]:
                self.route_table.append({"type": "blackhole", "dst": network, "metric": int(metric)})
                return Outcome(0)
            case ["route", "del", "blackhole", network, "metric", metric]:
                self.route_table.remove({"type": "blackhole", "dst": network, "metric": int(metric)})
                return Outcome(0)
            case ["route", "del", network, "via", gateway, "metric", metric]:
                route = {"dst": network, "gateway": gateway, "dev": "eth0", "metric": int(metric)}
                self.route_table.remove(route)
                return Outcome(0)
            case _:
                return Outcome(255, b"", b"unknown")
        return Outcome(0, json.dumps(answer).encode())

    async def forwarding(self, enabled: bool) -> None:
        self.forwards.append(enabled)

    async def firewall(self, ruleset: str) -> None:
        self.rulesets.append(ruleset)

    def serial(self, data: bytes) -> None:
        self.console += data

    def power(self, action: Literal["shutdown", "reboot"]) -> None:
        self.powered.append(action)

    def set_password(self, password: str) -> None:
        self.passwords.append(password)


class _WebWriter:
    """The client's side of a connection to ``FakePlatform.web``."""

    def __init__(self, platform: FakePlatform, server: str, reader: asyncio.StreamReader) -> None:
        self.platform = platform
        self.server = server
        self.reader = reader
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        head = self.sent.partition(b"\r\n\r\n")[0].decode()
        line, *headers = head.split("\r\n")
        method, path, _ = line.split(" ")
        pairs = dict(header.split(": ", 1) for header in headers)
        self.platform.requests.append((method, path, pairs))
        answer = self.platform.web.get((self.server, f"{method} {path}"))
        answer = answer or self.platform.web.get((self.server, path), Answer(status=404))
        reason = {200: "OK", 404: "Not Found", 302: "Found"}.get(answer.status, "Error")
        lines = [f"HTTP/1.1 {answer.status} {reason}", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self.reader.feed_data("\r\n".join([*lines, "", ""]).encode() + answer.body)
        self.reader.feed_eof()

    def close(self) -> None:
        self.reader.feed_eof()


class Listener:
    """Stands for a WinRM listener."""

    def __init__(self, host: WindowsHost, certificate: object) -> None:
        self.certificate = certificate

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def abort(self) -> None:
        pass


def metadata(platform: FakePlatform, user_data: bytes | None = None) -> None:
    """Give the platform a metadata service."""
    server = "169.254.169.254:80"
    platform.web[(server, "PUT /latest/api/token")] = Answer(b"token")
    platform.web[(server, "/latest/meta-data/local-ipv4")] = Answer(b"10.0.0.21")
    platform.web[(server, "/latest/meta-data/public-ipv4")] = Answer(b"198.18.20.7")
    if user_data is not None:
        platform.web[(server, "/latest/user-data")] = Answer(user_data)


class Bench:
    """A host and how tests drive it."""

    def __init__(self, root: Path, platform: FakePlatform) -> None:
        self.root = root
        self.platform = platform
        self.host = WindowsHost(root, platform, winrm=Listener)

    def again(self, platform: FakePlatform | None = None) -> Bench:
        """The same disk in another power cycle."""
        self.host.state.save()
        return Bench(self.root, platform or self.platform)

    async def module(
        self, name: str, /, *, check: bool = False, diff: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        """Run a module; gives its result."""
        name = name if "." in name else f"ansible.windows.{name}"
        internal = {"check_mode": check, "diff": diff}
        reply = await self.host.execute(Request("module", module=name, arguments=arguments, internal=internal))
        result: dict[str, Any] = json.loads(reply.stdout)
        assert reply.rc == (1 if result.get("failed") else 0)
        return result

    async def program(self, *words: str, cwd: str = "C:\\Windows\\System32") -> tuple[int, str, str]:
        """Run a program; gives exit code, output and errors with plain ends of lines."""
        outcome = await self.host.run(words, cwd=cwd)
        return outcome.rc, _lines(outcome.stdout), _lines(outcome.stderr)

    @property
    def log(self) -> str:
        path = self.root / "machine.log"
        return path.read_text() if path.exists() else ""


def _lines(text: bytes) -> str:
    assert b"\n" not in text.replace(b"\r\n", b""), "an end of line that is not Windows'"
    return text.decode().replace("\r\n", "\n")
