"""Transfers over the loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from farmnode import transfer
from farmnode.transfer import TransferError
from tests.ports import free_port


class Listener:
    """`transfer.listen` in a thread."""

    def __init__(self, transfers: int, limit: float = 10.0) -> None:
        opened = threading.Event()
        self.port = 0
        self.served: list[dict[str, Any]] = []

        def note(port: int) -> None:
            self.port = port
            opened.set()

        def work() -> None:
            self.served = transfer.listen(transfers, port=0, limit=limit, opened=note)

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert opened.wait(5)

    def end(self) -> list[dict[str, Any]]:
        self._thread.join(20)
        return self.served


SIZES = [1, 1000, (1 << 20) - 1, (1 << 20) + 1, 5_000_003]


@pytest.mark.parametrize("direction", ["send", "receive"])
@pytest.mark.parametrize("size", SIZES)
def test_both_sides_see_the_same_bytes(direction: str, size: int) -> None:
    listener = Listener(1)
    done = transfer.client("127.0.0.1", listener.port, direction, size, patience=5)
    (served,) = listener.end()
    assert done.same and done.bytes == size and len(done.sha256) == 64
    assert served == {"peer": "127.0.0.1", "ok": True, "direction": direction, "bytes": size, "sha256": done.sha256}
    result = done.as_json()
    assert result["ok"] is True and result["mbit"] >= 0 and "error" not in result


def test_clients_wait_for_their_turn() -> None:
    listener = Listener(4)
    results: list[bool] = []

    def client(direction: str) -> None:
        results.append(transfer.client("127.0.0.1", listener.port, direction, 300_000, patience=10).same)

    threads = [threading.Thread(target=client, args=[direction]) for direction in ("send", "receive") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [True] * 4 and [each["ok"] for each in listener.end()] == [True] * 4


def test_a_stranger_does_not_end_the_listener() -> None:
    listener = Listener(2)
    with socket.create_connection(("127.0.0.1", listener.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert transfer.client("127.0.0.1", listener.port, "send", 10, patience=5).same
    assert [each["ok"] for each in listener.end()] == [False, True]


def test_listener_gives_up() -> None:
    assert Listener(1, limit=0.2).end() == []


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda link: link.close(), "another program uses the port|broke"),
        (lambda link: link.sendall(b"220 mail\r\n"), "another program uses the port"),
        (lambda link: (link.sendall(b"go\n" + b"x" * 50), link.close()), "ended after 50 of 1000 bytes|broke"),
    ],
)
def test_what_the_other_side_may_do(behave: Callable[[socket.socket], object], message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1000)
                behave(link)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(TransferError, match=message):
            transfer.client("127.0.0.1", server.getsockname()[1], "receive", 1000, patience=2)
        thread.join(5)


def test_changed_bytes_are_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1000)
                link.sendall(b"go\n" + b"x" * 10 + json.dumps({"sha256": "0" * 64}).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        done = transfer.client("127.0.0.1", server.getsockname()[1], "receive", 10, patience=2)
        thread.join(5)
    assert not done.same and "SHA-256 differs" in done.as_json()["error"]


def test_nobody_listens() -> None:
    port = free_port()
    with pytest.raises(TransferError, match=f"127.0.0.1:{port}: nothing listens"):
        transfer.client("127.0.0.1", port, "send", 10, patience=0.1)
