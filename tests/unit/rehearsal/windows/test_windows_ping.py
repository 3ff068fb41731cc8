"""ping.exe against a wire of paper; farmnode's reader understands what it prints."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any

import pytest
from windows_bench import Bench

from farmnode.ping import Echo, parse_windows
from rehearsal.windows.programs import ping

Run = Callable[[Callable[[Bench], Coroutine[Any, Any, Any]]], Any]
Reply = Callable[[bytes], list[bytes]]


def ip(source: str, body: bytes, *, ttl: int = 63) -> bytes:
    own = IPv4Address("10.0.0.21").packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, ttl, 1, 0) + IPv4Address(source).packed + own + body


def echo(request: bytes) -> list[bytes]:
    return [ip("10.0.0.10", bytes([0, 0]) + request[2:])]


def error(kind: int, code: int, source: str) -> Reply:
    return lambda request: [ip(source, bytes([kind, code, 0, 0, 0, 0, 0, 0]) + ip("10.0.0.21", request[:8]))]


class Wire(socket.socket):
    """One of a pair of datagram sockets: what is sent is answered by ``reply``, or fails with that error."""

    def __init__(self, reply: Reply | int) -> None:
        near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        super().__init__(fileno=near.detach())
        self.setblocking(False)
        self.reply = reply
        self.requests: list[bytes] = []

    def close(self) -> None:
        self._far.close()
        super().close()

    def sendto(self, request: bytes, address: tuple[str, int]) -> int:  # type: ignore[override]
        self.requests.append(request)
        if isinstance(self.reply, int):
            raise OSError(self.reply, os.strerror(self.reply))
        for packet in self.reply(request):
            self._far.send(packet)
        return len(request)


@pytest.fixture
def pinged(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, Wire]]:
    def call(reply: Reply | int, *words: str) -> tuple[int, str, Wire]:
        monkeypatch.setattr(ping, "_INTERVAL", 0.0)
        with Wire(reply) as wire:
            monkeypatch.setattr(ping, "_wire", lambda namespace, options: wire)

            async def scenario(bench: Bench) -> tuple[int, str, str]:
                answer: tuple[int, str, str] = await bench.program("ping.exe", *words)
                return answer

            rc, out, err = run(scenario)
        return rc, out + err, wire

    return call


def test_layout(pinged: Callable[..., tuple[int, str, Wire]]) -> None:
    rc, out, wire = pinged(echo, "-n", "2", "10.0.0.10")
    lines = out.replace("\r\n", "\n").split("\n")
    assert rc == 0 and lines[:2] == ["", "Pinging 10.0.0.10 with 32 bytes of data:"]
    assert lines[2].startswith("Reply from 10.0.0.10: bytes=32 time") and lines[2].endswith(" TTL=63")
    assert lines[4:7] == [
        "",
        "Ping statistics for 10.0.0.10:",
        "    Packets: Sent = 2, Received = 2, Lost = 0 (0% loss),",
    ]
    assert len(wire.requests) == 2 and len(wire.requests[0]) == 40 and ping._checksum(wire.requests[0]) == 0
    assert parse_windows(out, 2).as_json()["ok"] is True


@pytest.mark.parametrize(
    ("reply", "rc", "line", "expected"),
    [
        (lambda request: [], 1, "Request timed out.", Echo(1, said="Request timed out.")),
        (
            error(3, 1, "192.168.1.1"),
            0,
            "Reply from 192.168.1.1: Destination host unreachable.",
            Echo(1, complaints=(("192.168.1.1", "Destination host unreachable."),)),
        ),
        (
            error(11, 0, "198.18.1.1"),
            0,
            "Reply from 198.18.1.1: TTL expired in transit.",
            Echo(1, complaints=(("198.18.1.1", "TTL expired in transit."),)),
        ),
        (error(3, 4, "10.8.0.1"), 1, "Packet needs to be fragmented but DF set.", Echo(1, too_large=True)),
        (errno.EMSGSIZE, 1, "Packet needs to be fragmented but DF set.", Echo(1, too_large=True)),
        (
            errno.ENETUNREACH,
            1,
            "PING: transmit failed. General failure. ",
            Echo(1, said="PING: transmit failed. General failure."),
        ),
    ],
)
def test_what_else_may_come(
    pinged: Callable[..., tuple[int, str, Wire]], reply: Reply | int, rc: int, line: str, expected: Echo
) -> None:
    code, out, _ = pinged(reply, "-n", "1", "-w", "50", "-f", "-l", "1472", "10.0.0.10")
    assert (code, line in out) == (rc, True), out
    assert parse_windows(out, 1) == expected


def test_strangers_are_ignored(pinged: Callable[..., tuple[int, str, Wire]]) -> None:
    def reply(request: bytes) -> list[bytes]:
        other = bytearray(echo(request)[0])
        other[24] ^= 0xFF  # another identifier
        return [bytes(other), ip("10.0.0.9", request), *echo(request)]

    assert pinged(reply, "-n", "1", "10.0.0.10")[0] == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "IP address must be specified."),
        (["-n", "0", "10.0.0.1"], "Bad value for option -n, valid range is from 1 to 4294967295."),
        (["-l", "70000", "10.0.0.1"], "Bad value for option -l, valid range is from 0 to 65500."),
        (["10.0.0.1", "-n"], "Value must be supplied for option -n."),
        (["-t", "10.0.0.1"], "rehearsal:"),
        (["-6", "::1"], "rehearsal:"),
        (["manager"], "rehearsal:"),
    ],
)
def test_what_is_refused(pinged: Callable[..., tuple[int, str, Wire]], words: list[str], text: str) -> None:
    rc, out, wire = pinged(echo, *words)
    assert rc == 1 and text in out and wire.requests == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="raw sockets need root")
def test_checksum_is_what_the_kernel_takes() -> None:
    """One echo request of ours to the loopback of this machine is answered by its kernel."""
    script = (
        "import socket, sys\nsys.path.insert(0, '.')\nfrom rehearsal.windows.programs import ping\n"
        "w = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nw.settimeout(2)\n"
        "w.sendto(ping._request(7, 1, 33), ('127.0.0.1', 0))\n"
        "while True:\n    p = w.recv(100)\n    if p[20] == 0: break\nprint('answered')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout == "answered\n", done.stderr
