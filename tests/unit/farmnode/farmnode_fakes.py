"""A Windows machine in memory: clock, programs, metadata."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import jsonschema

from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.identity import Identity
from farmnode.machine import Machine
from farmnode.metadata import Instance
from farmnode.programs import Completed, Programs
from farmnode.routes import Route
from farmnode.services import MANAGER, SERVER

BUILDER = Identity("06:aa:bb:cc:dd:ee", "ip-10-0-0-200", "10.0.0.200", "EC2AMAZ-BUILD01")
NODE = Identity("06:11:22:33:44:5f", "ip-10-0-0-21", "10.0.0.21")
SAMPLE = Path(__file__).with_name("sample.xml").read_text("utf-8").replace("\n", "\r\n")
FARM = (
    '<farm>{"version":1,"farm":"studio","role":"%s","manager":"10.0.0.10",'
    '"networks":{"lan":"192.168.1.0/24","cloud":"10.0.0.0/24","tunnel":"10.8.0.0/24"}%s}</farm>'
)
LAN = Route(IPv4Network("192.168.1.0/24"), IPv4Address("10.0.0.10"))
TUNNEL = Route(IPv4Network("10.8.0.0/24"), IPv4Address("10.0.0.10"))

ENCODINGS = {
    "utf-8": (b"", "utf-8"),
    "utf-8 with mark": (codecs.BOM_UTF8, "utf-8"),
    "utf-16 little": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16 big": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "utf-16 little without mark": (b"", "utf-16-le"),
    "utf-16 big without mark": (b"", "utf-16-be"),
    "latin-1": (b"", "iso-8859-1"),
}


def encoded(text: str, encoding: str) -> bytes:
    """``text`` in one of `ENCODINGS`, declared as it is written."""
    mark, codec = ENCODINGS[encoding]
    declared = {"utf-16-le": "utf-16", "utf-16-be": "utf-16"}.get(codec, codec)
    return mark + text.replace('encoding="utf-8"', f'encoding="{declared}"').encode(codec)


LAST_WORDS = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parents[3] / "docs" / "last-words.schema.json").read_text("utf-8"))
)


class FakeClock(Clock):
    """Stands still but for `sleep`."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return 1_800_000_000.0 + self.passed

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.passed += seconds


@dataclass
class FakeService:
    state: int = 1
    start_type: int = 3


@dataclass
class FakeWindows(Programs):
    """Answers as sc.exe, route.exe, reg.exe, netsh.exe, cmd.exe, icacls.exe and shutdown.exe do."""

    services: dict[str, FakeService] = field(default_factory=lambda: {SERVER: FakeService(), MANAGER: FakeService()})
    persistent: set[Route] = field(default_factory=set)
    active: set[Route] = field(default_factory=set)
    null: set[Route] = field(default_factory=set)
    adapters: dict[int, bool] = field(default_factory=lambda: {12: False, 21: False})
    router: bool = False
    account: str = "NT AUTHORITY\\LocalService"
    address: str = "10.0.0.21"
    tunnel: str | None = None
    calls: list[list[str]] = field(default_factory=list)
    serial: list[bytes] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)
    answers: dict[tuple[str, ...], Completed] = field(default_factory=dict)
    on_call: Callable[[list[str]], None] = lambda words: None
    real: Callable[[str], Path] = Path

    def run(
        self, name: str, arguments: Sequence[str], *, timeout: float = 60.0, stdin: bytes | None = None
    ) -> Completed:
        words = [name, *arguments]
        self.calls.append(words)
        self.on_call(words)
        for start, answer in self.answers.items():
            if tuple(words[: len(start)]) == start:
                return answer
        return getattr(self, "_" + name.removesuffix(".exe"))(*arguments)

    def called(self, *start: str) -> list[list[str]]:
        return [words for words in self.calls if words[: len(start)] == list(start)]

    def _sc(self, verb: str, name: str, *options: str) -> Completed:
        service = self.services.get(name)
        if service is None:
            return Completed(1060, "[SC] OpenService FEHLER 1060:\r\n\r\nDer Dienst ist nicht installiert.\r\n", "")
        if verb == "start":
            if service.state == 4:
                return Completed(1056 & 255, "[SC] StartService FAILED 1056:\r\n\r\nAlready running.\r\n", "")
            service.state = 4
        elif verb == "stop":
            if service.state == 1:
                return Completed(1062, "[SC] ControlService FAILED 1062:\r\n", "")
            service.state = 1
        elif verb == "config":
            assert options == ("start=", "demand")
            service.start_type = 3
            return Completed(0, "[SC] ChangeServiceConfig SUCCESS\r\n", "")
        elif verb == "qc":
            return Completed(
                0,
                f"[SC] QueryServiceConfig SUCCESS\r\n\r\nSERVICE_NAME: {name}\r\n        TYPE               : 10  "
                f"WIN32_OWN_PROCESS \r\n        STARTTYP           : {service.start_type}   X_START\r\n"
                "        ERROR_CONTROL      : 1   NORMAL\r\n"
                '        BINARY_PATH_NAME   : "C:\\Program Files (x86)\\Autodesk\\Backburner\\serversvc.exe"\r\n'
                "        LOAD_ORDER_GROUP   : \r\n        TAG                : 0\r\n"
                "        DISPLAY_NAME       : Backburner Server\r\n        DEPENDENCIES       : \r\n"
                f"        KONTO              : {self.account}\r\n",
                "",
            )
        return Completed(
            0,
            f"\r\nSERVICE_NAME: {name} \r\n        TYPE               : 10  WIN32_OWN_PROCESS  \r\n"
            f"        STATUS             : {service.state}  X \r\n                                (STOPPABLE)\r\n"
            "        WIN32_EXIT_CODE    : 0  (0x0)\r\n        CHECKPOINT         : 0x0\r\n",
            "",
        )

    def _route(self, *arguments: str) -> Completed:
        words = list(arguments)
        if words == ["PRINT", "-4"]:
            return Completed(0, self.table(), "")
        keep = words[0] == "-p"
        verb, network, mask, netmask, gateway, *rest = words[keep:]
        assert mask == "MASK"
        place = (IPv4Network(f"{network}/{netmask}"), IPv4Address(gateway))
        if verb == "DELETE":
            assert not rest
            self.persistent = {route for route in self.persistent if (route.network, route.gateway) != place}
            self.active = {route for route in self.active if (route.network, route.gateway) != place}
            self.null = {route for route in self.null if (route.network, route.gateway) != place}
        else:
            assert verb == "ADD" and rest[0] == "METRIC" and rest[2:] in ([], ["IF", "1"])
            route = Route(*place, int(rest[1]))
            (self.null if rest[2:] else self.active).add(route)
            if keep:
                self.persistent.add(route)
        return Completed(0, " OK!\r\n", "")

    def table(self) -> str:
        own = self.address
        rows = [
            ("0.0.0.0", "0.0.0.0", "10.0.0.1", own, 25),
            ("10.0.0.0", "255.255.255.0", "Auf Verbindung", own, 281),
            (own, "255.255.255.255", "Auf Verbindung", own, 281),
            *([("10.9.0.0", "255.255.255.0", "Auf Verbindung", self.tunnel, 281)] if self.tunnel else []),
            ("127.0.0.0", "255.0.0.0", "Auf Verbindung", "127.0.0.1", 331),
            ("224.0.0.0", "240.0.0.0", "Auf Verbindung", own, 281),
            *((str(r.network.network_address), str(r.network.netmask), str(r.gateway), own, 26) for r in self.active),
            *(
                (str(r.network.network_address), str(r.network.netmask), str(r.gateway), "127.0.0.1", 10330)
                for r in self.null
            ),
        ]
        kept = [
            f"{r.network.network_address!s:>17}{r.network.netmask!s:>17}{r.gateway!s:>17}{r.metric:>8}"
            for r in self.persistent
        ]
        lines = [
            "Schnittstellenliste",
            " 12...06 11 22 33 44 5f ......Amazon Elastic Network Adapter",
            "Aktive Routen:",
            "     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik",
            *("{:>17}{:>17}{:>17}{:>16}{:>7}".format(*row) for row in rows),
            "Persistente Routen:",
            *(kept or ["  Keine"]),
        ]
        return "\r\n".join(lines) + "\r\n"

    def _reg(self, verb: str, key: str, *options: str) -> Completed:
        if options:
            assert options[:2] == ("/v", "IPEnableRouter")
            if verb == "add":
                self.router = options[2:] == ("/t", "REG_DWORD", "/d", "1", "/f")
            value = f"    IPEnableRouter    REG_DWORD    0x{int(self.router)}\r\n"
            return Completed(0, f"\r\nHKEY_LOCAL_MACHINE\\SYSTEM\\...\\Parameters\r\n{value}\r\n", "")
        assert verb == "query" and key.endswith("PersistentRoutes")
        values = "".join(
            f"    {r.network.network_address},{r.network.netmask},{r.gateway},{r.metric}    REG_SZ    \r\n"
            for r in sorted(self.persistent)
        )
        return Completed(0, f"\r\nHKEY_LOCAL_MACHINE\\SYSTEM\\...\\PersistentRoutes\r\n{values}\r\n", "")

    def _netsh(self, *arguments: str) -> Completed:
        if arguments == ("interface", "ipv4", "show", "interfaces", "level=verbose"):
            return Completed(0, self.interfaces(), "")
        assert arguments[:4] == ("interface", "ipv4", "set", "interface")
        index = int(arguments[4].removeprefix("interface="))
        self.adapters[index] = arguments[5] == "forwarding=enabled"
        return Completed(0, "OK.\r\n\r\n", "")

    def interfaces(self) -> str:
        """As a German Windows writes it: labels are translated, switches are not."""
        blocks = []
        for index, luid, forwards in [
            (1, "loopback_0", False),
            *((i, f"ethernet_{i}", f) for i, f in self.adapters.items()),
        ]:
            rows = {
                "IfLuid": luid,
                "IfIndex": str(index),
                "Status": "connected",
                "Metrik": "25",
                "Verbindungs-MTU": "1500 Bytes",
                "Weiterleitung": "enabled" if forwards else "disabled",
                "Ankündigung": "disabled",
            }
            lines = ["", f"Schnittstelle {luid} Parameter", "-" * 46, *(f"{k:<35}: {v}" for k, v in rows.items()), ""]
            blocks.append("\r\n".join(lines))
        return "\r\n".join(blocks)

    def _cmd(self, *arguments: str) -> Completed:
        assert arguments[:4] == ("/d", "/c", "copy", "/b") and arguments[5] == r"\\.\COM1"
        self.serial.append(self.real(arguments[4]).read_bytes())
        if (event := self.serial[-1].partition(b"RENDERFARM-NODE ")[2]).startswith(b"{"):
            # Not raised here: who has nobody left to tell swallows what goes wrong with the serial port.
            self.undocumented += [error.message for error in LAST_WORDS.iter_errors(json.loads(event))]
        return Completed(0, "        1 file(s) copied.\r\n", "")

    def _icacls(self, folder: str, *options: str) -> Completed:
        assert self.real(folder).is_dir() and options[:2] == ("/inheritance:r", "/grant:r")
        return Completed(0, f"processed file: {folder}\r\n", "")

    def _shutdown(self, *arguments: str) -> Completed:
        assert arguments == ("/s", "/f", "/t", "0")
        return Completed(0, "", "")


def instance(user_data: str = "", tag: str | None = None, identity: Identity = NODE) -> Instance:
    return Instance(
        "i-0123456789abcdef0",
        identity.mac,
        IPv4Address(identity.address),
        IPv4Network("10.0.0.0/24"),
        f"{identity.name}.eu-central-1.compute.internal",
        tag,
        user_data.encode(),
    )


class FakeMetadata:
    """The metadata service, or its silence."""

    def __init__(self, answer: Instance | None = None) -> None:
        self.answer = answer

    def instance(self) -> Instance:
        if self.answer is None:
            raise FarmNodeError("metadata", "the metadata service is silent.")
        return self.answer


@dataclass
class Bench:
    """One machine with a file, ready to be worked on."""

    drive: Path
    windows: FakeWindows
    clock: FakeClock
    metadata: FakeMetadata
    machine: Machine
    file: Path

    def put(self, text: str = SAMPLE, encoding: str = "utf-8") -> bytes:
        """Write backburner.xml; returns its bytes."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(text, encoding)
        self.file.write_bytes(data)
        return data

    @property
    def log(self) -> str:
        return self.machine.log.path.read_text("utf-8")
