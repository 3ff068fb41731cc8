"""Taking an absent server off the manager's list, against a socket that answers line by line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping

import pytest

from farmnode import manager
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError

HANDLE = "06112233445F0000"
GRANTED = {"new controller": "201 Controller granted", f"del server {HANDLE}": "200 OK", "del controller Yes": "200 OK"}


def converse(answers: Mapping[str, str]) -> tuple[list[str], FarmNodeError | None]:
    """Delete at a manager that gives these answers; what it heard, and how that ended."""
    heard: list[str] = []

    def run() -> None:
        with listener, listener.accept()[0] as connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"250 backburner 1.0 Ready.\r\nbackburner>")
            for line in stream:
                heard.append(line.decode().removesuffix("\r\n"))
                stream.write(answers[heard[-1]].encode() + b"\r\nbackburner(Controller)>")

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=run)
    thread.start()
    problem = None
    try:
        manager.delete("127.0.0.1", listener.getsockname()[1], HANDLE, Clock(), timeout=5.0)
    except FarmNodeError as error:
        problem = error
    thread.join(10)
    return heard, problem


def test_control_is_taken_and_given_back() -> None:
    assert converse(GRANTED) == (list(GRANTED), None)


@pytest.mark.parametrize("answer", ["505 Only absent servers can be deleted", "500 Unknown command"])
def test_a_refusal_gives_control_back_too(answer: str) -> None:
    heard, problem = converse(GRANTED | {f"del server {HANDLE}": answer})
    assert heard == list(GRANTED)
    assert problem is not None and problem.reason == "manager_protocol"
    assert f"answers 'del server {HANDLE}' with '{answer}'" in problem.message


def test_without_control_nothing_is_tried() -> None:
    heard, problem = converse(GRANTED | {"new controller": "503 Queue control is held by 192.168.1.20"})
    assert heard == ["new controller"]
    assert problem is not None and "503 Queue control is held" in problem.message


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FarmNodeError, match=f"{HANDLE} is not deleted") as caught:
        manager.delete("127.0.0.1", port, HANDLE, Clock())
    assert caught.value.reason == "manager_unreachable"
