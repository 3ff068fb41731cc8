"""``python -m rehearsal.reach``: what one machine reaches, tried from its own network (see ``rehearsal exec --on``).

``try ADDRESS:PORT …`` sends one echo request to each address and opens a TCP connection to each port, all at the same
time, and prints ``{"ADDRESS:PORT": {"ping": true, "tcp": "open"}}``; a connection is ``open``, ``refused``, ``silent``
or ``unreachable``.  ``listen PORT`` takes TCP connections for whoever has no server, prints ``ready`` and goes on until
it is killed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

PATIENCE = 2.0
"""Seconds that an answer may take."""


def ping(address: str) -> bool:
    """Whether one of two echo requests is answered."""
    command = ["ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", f"{PATIENCE:g}", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def tcp(address: str, port: int) -> str:
    """How an attempt to open a connection ends."""
    try:
        socket.create_connection((address, port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    except OSError:
        return "unreachable"
    return "open"


def seen(targets: Sequence[str]) -> dict[str, dict[str, bool | str]]:
    """What comes back from each ``ADDRESS:PORT``. ValueError when one is not of that form."""
    pairs = [(address, int(port)) for address, _, port in (target.rpartition(":") for target in targets)]
    with ThreadPoolExecutor(max_workers=2 * max(len(pairs), 1)) as pool:
        pings = [pool.submit(ping, address) for address, _ in pairs]
        connections = [pool.submit(tcp, address, port) for address, port in pairs]
        return {
            target: {"ping": answered.result(), "tcp": connected.result()}
            for target, answered, connected in zip(targets, pings, connections, strict=True)
        }


def listen(port: int) -> None:
    """Take connections and close them again, for ever. OSError when the port is taken."""
    with socket.create_server(("", port), backlog=64) as server:
        print("ready", flush=True)
        take_connections(server)


def take_connections(server: socket.socket) -> NoReturn:
    """Close each connection as soon as it is there, for ever."""
    while True:
        server.accept()[0].close()


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 done, 2 wrong usage."""
    match list(arguments):
        case ["try", *targets] if targets:
            print(json.dumps(seen(targets)))
            return 0
        case ["listen", port] if port.isdigit():
            listen(int(port))
    print("usage: python -m rehearsal.reach try ADDRESS:PORT... | listen PORT", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
