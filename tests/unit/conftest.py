"""Unit tests reach nobody: a forgotten stand-in is an error at once, and no packet leaves this machine."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(own: socket.socket, address: Any) -> None:
        if own.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "localhost":
            assert ip_address(address[0]).is_loopback, f"a unit test connects to {address[0]}:{address[1]}"

    def guarded(own: socket.socket, address: Any) -> None:
        check(own, address)
        connect(own, address)

    def guarded_ex(own: socket.socket, address: Any) -> int:
        check(own, address)
        return connect_ex(own, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)
