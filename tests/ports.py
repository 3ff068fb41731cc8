"""Ports for tests that open one themselves, or want one that nobody opens."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to connections: what else runs on this machine takes none of these by chance.
_PORTS = range(20000, 30000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has."""
    for port in random.sample(_PORTS, 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError(f"no free port among 100 of {_PORTS}")
