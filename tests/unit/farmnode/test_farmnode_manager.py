"""The manager's text protocol against a local socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from farmnode import manager
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.manager import Server

XML = (
    b"<ServerList><Server><Handle>06112233445F0000</Handle><State>1</State><Name>ip-10-0-0-21</Name><More/></Server>"
    b"<Server><a>0600aabbccdd0000</a><b>0</b><c/></Server><Server><a>0600aabbccde0000</a><b>9</b><c> n </c></Server>"
    b"</ServerList>"
)
LISTED = [
    Server("06112233445F0000", "idle", "ip-10-0-0-21"),
    Server("0600AABBCCDD0000", "absent", ""),
    Server("0600AABBCCDE0000", "state 9", "n"),
]
GREETING = b"250 backburner 1.0 Ready.\r\nbackburner>"
ANSWER = b"251 %d\r\n" % (len(XML) + 1) + XML + b"\0backburner>"

Serve = Callable[[Sequence[bytes | float]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A manager that sends pieces (or sleeps); the first piece greets, the rest answers the command."""
    threads: list[threading.Thread] = []
    heard: list[bytes] = []

    def start(pieces: Sequence[bytes | float]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                greeting, *rest = pieces
                assert isinstance(greeting, bytes)
                connection.sendall(greeting)
                if rest:
                    heard.append(connection.recv(100))
                for piece in rest:
                    if isinstance(piece, float):
                        time.sleep(piece)
                    else:
                        connection.sendall(piece)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join()
    assert set(heard) <= {b"get srvlist\r\n"}


def ask(port: int, timeout: float = 5.0) -> list[Server]:
    return manager.servers("127.0.0.1", port, Clock(), timeout=timeout)


def test_the_list_is_read(serve: Serve) -> None:
    assert ask(serve([GREETING, ANSWER])) == LISTED
    assert LISTED[0].as_json() == {
        "handle": "06112233445F0000",
        "mac": "06:11:22:33:44:5f",
        "state": "idle",
        "name": "ip-10-0-0-21",
    }


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 10, 50, len(ANSWER) - 12, len(ANSWER) - 1])
def test_pieces_may_be_cut_anywhere(serve: Serve, cut: int) -> None:
    assert ask(serve([GREETING, ANSWER[:cut], 0.01, ANSWER[cut:]])) == LISTED


def test_a_byte_at_a_time_and_all_at_once(serve: Serve) -> None:
    pieces = [bytes([byte]) for byte in ANSWER]
    assert ask(serve([GREETING.replace(b"backburner>", b"backburner(Controller)>"), *pieces])) == LISTED


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"220 mail.example ESMTP\r\n"], "no Backburner manager: it greets with '220 mail"),
        ([GREETING, b"500 what?\r\nbackburner>"], "answers 'get srvlist' with '500 what"),
        ([GREETING, b"251 -1\r\n"], "answers 'get srvlist' with '251 -1'"),
        ([GREETING, b"251 0\r\n"], "with '251 0'"),
        ([GREETING, b"251 99999999999\r\n"], "with '251 9"),
        ([GREETING, b"x" * 5000], "goes on and on: 'xxx"),
        ([GREETING, b"251 4\r\n<a>\0backburner>"], "is not XML"),
        ([GREETING, b"251 20\r\n<a><b><c/></b></a>  \0backburner>"], "not handle, state, name"),
    ],
)
def test_what_is_not_understood_is_told(serve: Serve, pieces: list[bytes], said: str) -> None:
    with pytest.raises(FarmNodeError, match=said) as caught:
        ask(serve(pieces))
    assert caught.value.reason == "manager_protocol"


@pytest.mark.parametrize(
    "xml",
    [
        b"<l><s><a>06112233445F</a><b>1</b><c/></s></l>",
        b"<l><s><a>06112233445F0001</a><b>1</b><c/></s></l>",
        b"<l><s><a>06112233445F0000</a><b>one</b><c/></s></l>",
        b"<l><s><a>06112233445F0000</a><b>1</b></s></l>",
    ],
)
def test_items_must_be_handle_state_name(xml: bytes) -> None:
    with pytest.raises(FarmNodeError, match="not handle, state, name"):
        manager.parse_servers(xml)


def test_a_connection_that_ends_or_hangs(serve: Serve) -> None:
    with pytest.raises(FarmNodeError, match="closed the connection") as caught:
        ask(serve([GREETING, ANSWER[:30]]))
    assert caught.value.reason == "manager_unreachable"
    with pytest.raises(FarmNodeError, match="timed out"):
        ask(serve([GREETING, ANSWER[:30], 0.4]), timeout=0.1)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert manager.listens("127.0.0.1", port)
    assert not manager.listens("127.0.0.1", port)
    with pytest.raises(FarmNodeError, match=rf"manager at 127.0.0.1:{port}: .*refused.*firewall"):
        ask(port)


def test_addresses_resolve_to_themselves() -> None:
    assert manager.resolve("10.0.0.10") == "10.0.0.10"
    assert manager.resolve("localhost") == "127.0.0.1"


@pytest.mark.parametrize("name", ["10.0.0.999", "no.such.manager.invalid", "a" * 70])
def test_unknown_managers(name: str) -> None:
    with pytest.raises(
        FarmNodeError, match=f"the manager '{name}' is no address and its name does not resolve"
    ) as caught:
        manager.resolve(name)
    assert caught.value.reason == "unknown_manager"


def test_a_deadline_that_passed_before_reading() -> None:
    left, right = socket.socketpair()
    with left, right:
        conversation = manager._Conversation(left, Clock(), 0.0)
        with pytest.raises(TimeoutError):
            conversation.greet()


JOBS = (
    b"<JobList><Job><Handle>12</Handle><State>2</State><Name>shot 1</Name></Job>"
    b"<Job><a>13</a><b>7</b><c/></Job></JobList>"
)


def test_jobs_are_read_by_position() -> None:
    assert manager.parse_jobs(JOBS) == [manager.Job("12", "busy", "shot 1"), manager.Job("13", "state 7", "")]
    assert manager.parse_jobs(b"<JobList/>") == []
    for strange in (
        b"<a><Job><x>1</x><y>busy</y><z/></Job></a>",
        b"<a><Job><x/><y>1</y><z/></Job></a>",
        b"<a><Job/></a>",
    ):
        with pytest.raises(FarmNodeError, match="jobs is not handle, state, name"):
            manager.parse_jobs(strange)


def test_servers_and_jobs_in_one_conversation(serve: Serve) -> None:
    jobs = b"251 %d\r\n" % (len(JOBS) + 1) + JOBS + b"\0backburner>"
    listed, queue = manager.queue("127.0.0.1", serve([GREETING, ANSWER + jobs]), Clock())
    assert listed == LISTED and [job.name for job in queue] == ["shot 1", ""]


class Turned(Clock):
    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.mark.parametrize(("after", "ends"), [(0.0, 0.0), (1.1, 1.25), (99.0, 4.0)])
def test_the_wait_ends_with_the_last_registration(monkeypatch: pytest.MonkeyPatch, after: float, ends: float) -> None:
    clock = Turned()
    macs = [server.mac for server in LISTED]

    def servers(address: str, port: int, clock: Turned) -> list[Server]:
        return [replace(each, state="idle" if clock.passed >= after else "absent") for each in LISTED]

    monkeypatch.setattr(manager, "servers", servers)
    listed = manager.wait_for(macs, "127.0.0.1", 1, clock, limit=4.0)
    assert clock.passed == ends and {each.state for each in listed} == {"idle" if after < 4 else "absent"}
    assert manager.wait_for([], "127.0.0.1", 1, clock, limit=0) == listed
