"""What ping prints, in several languages, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from farmnode import ping
from farmnode.ping import Echo
from farmnode.programs import Completed, Programs


def page(*lines: str, head: str = "Pinging 10.0.0.10 with 32 bytes of data:", tail: str = "Packets: Sent = 3") -> str:
    return "\r\n".join(["", head, *lines, "", "Ping statistics for 10.0.0.10:", f"    {tail}", ""])


GERMAN = "Ping wird ausgeführt für 10.0.0.10 mit 32 Bytes Daten:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            page("Reply from 10.0.0.10: bytes=32 time<1ms TTL=127", "Reply from 10.0.0.10: bytes=32 time=21ms TTL=127"),
            Echo(3, (0.5, 21.0)),
            id="english",
        ),
        pytest.param(
            page(
                "Antwort von 10.0.0.10: Bytes=32 Zeit=20ms TTL=127", "Zeitüberschreitung der Anforderung.", head=GERMAN
            ),
            Echo(3, (20.0,), said="Zeitüberschreitung der Anforderung."),
            id="german with a loss",
        ),
        pytest.param(
            page(
                "Réponse de 10.0.0.10 : octets=32 temps=20 ms TTL=127",
                "Réponse de 10.0.0.10 : octets=32 temps<1ms TTL=127",
            ),
            Echo(3, (20.0, 0.5)),
            id="french",
        ),
        pytest.param(
            page(
                "10.0.0.10 からの応答: バイト数 =32 時間 =3ms TTL=127",
                head="10.0.0.10 に ping を送信しています 32 バイトのデータ:",
            ),
            Echo(3, (3.0,)),
            id="japanese",
        ),
        pytest.param(
            page(
                "Reply from 192.168.1.1: Destination host unreachable.",
                "Reply from 192.168.1.1: Destination host unreachable.",
            ),
            Echo(3, complaints=(("192.168.1.1", "Destination host unreachable."),)),
            id="a router answers, which is no reply",
        ),
        pytest.param(
            page("Reply from 10.0.0.1: TTL expired in transit."),
            Echo(3, complaints=(("10.0.0.1", "TTL expired in transit."),)),
            id="expired is no reply",
        ),
        pytest.param(page("Packet needs to be fragmented but DF set."), Echo(3, too_large=True), id="too large"),
        pytest.param(
            page("Paket müsste fragmentiert werden, DF-Flag ist jedoch gesetzt.", head=GERMAN),
            Echo(3, too_large=True),
            id="too large in german",
        ),
        pytest.param(
            page("Es necesario fragmentar el paquete pero se especificó DF."), Echo(3, too_large=True), id="spanish"
        ),
        pytest.param(
            page("PING: transmit failed. General failure. "),
            Echo(3, said="PING: transmit failed. General failure."),
            id="no route",
        ),
        pytest.param("", Echo(3), id="nothing"),
    ],
)
def test_windows(text: str, expected: Echo) -> None:
    assert ping.parse_windows(text, 3) == expected


LINUX_HEAD = "PING 10.0.0.10 (10.0.0.10) 1472(1500) bytes of data.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64 bytes from 10.0.0.10: icmp_seq=1 ttl=63 time=0.43 ms\n", Echo(2, (0.43,))),
        ("ping: local error: message too long, mtu=1400\n", Echo(2, too_large=True, mtu=1400)),
        ("From 192.168.1.10 icmp_seq=1 Frag needed and DF set (mtu = 1400)\n", Echo(2, too_large=True, mtu=1400)),
        (
            "From 192.168.1.1 icmp_seq=1 Destination Host Unreachable\n"
            "From 192.168.1.1 icmp_seq=2 Destination Host Unreachable\n",
            Echo(2, complaints=(("192.168.1.1", "Destination Host Unreachable"),)),
        ),
        (
            "From 198.18.1.1 icmp_seq=1 Time to live exceeded\n",
            Echo(2, complaints=(("198.18.1.1", "Time to live exceeded"),)),
        ),
        ("ping: connect: Network is unreachable\n", Echo(2, said="ping: connect: Network is unreachable")),
    ],
)
def test_linux(text: str, expected: Echo) -> None:
    assert ping.parse_linux(LINUX_HEAD + text + "\n2 packets transmitted, 0 received\n", 2) == expected


def test_result() -> None:
    assert Echo(3, (1.0, 2.0)).as_json() == {
        "ok": False,
        "sent": 3,
        "received": 2,
        "ms": 1.5,
        "complaints": [],
        "too_large": False,
        "mtu": None,
        "said": "",
    }
    assert Echo(2, (1.0, 2.0)).as_json()["ok"] is True


@dataclass
class OnlyPing(Programs):
    calls: list[list[str]] = field(default_factory=list)

    def run(self, name: str, arguments: Sequence[str], *, timeout: float = 60.0) -> Completed:
        self.calls.append([name, *arguments])
        return Completed(0, page("Reply from 10.0.0.10: bytes=1372 time=1ms TTL=127"), "")


def test_documented_switches() -> None:
    programs = OnlyPing()
    ping.windows(programs, "10.0.0.10", count=2, size=1372, df=True, ttl=None, wait=1.5)
    ping.windows(programs, "10.0.0.10", count=1, size=32, df=False, ttl=2, wait=1)
    assert programs.calls == [
        ["ping.exe", "-4", "-n", "2", "-l", "1372", "-w", "1500", "-f", "10.0.0.10"],
        ["ping.exe", "-4", "-n", "1", "-l", "32", "-w", "1000", "-i", "2", "10.0.0.10"],
    ]
