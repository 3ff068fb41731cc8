r"""On the manager: tells the share's password to the machines of the farm, over TLS.

Who may ask is who is in one of the farm's networks: EC2's security group lets nobody else reach the port, and addresses
inside a VPC cannot be forged (source/destination check).  What the password opens is what such a machine may do anyway:
read and write the share.

``share.pem`` (certificate, then key) and ``share.json`` (``user``, ``password``) come over WinRM into `FOLDER`, which
only SYSTEM and Administrators may read.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import ssl
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from farmnode.errors import FarmNodeError, reading_failed
from farmnode.report import Log

FOLDER: Final = "secrets"
PORT: Final = 3240
_SECONDS: Final = 5.0


def secrets_folder(folder: Path) -> Path:
    r"""``C:\ProgramData\RenderFarm\secrets``."""
    return folder / FOLDER


class Keys:
    """Answers while `stand` has opened it. `close` ends it and its threads.

    What is told is read from the files for each who asks: new ones count at once, and the nodes of the first farm-up
    need not wait until somebody has looked for them.
    """

    def __init__(self, folder: Path, networks: tuple[IPv4Network, ...], log: Log, *, address: str = "0.0.0.0") -> None:
        self._folder = secrets_folder(folder)
        self._networks = networks
        self._log = log
        self._address = address
        self._server: _Server | None = None

    def stand(self, port: int = PORT) -> None:
        """Open ``port``; nothing happens when it is open already. FarmNodeError when it is taken."""
        if self._server is not None:
            return
        try:
            self._server = _Server((self._address, port), self._folder, self._networks, self._log)
        except OSError as error:
            raise reading_failed(error, f"port {port}") from error
        threading.Thread(target=self._server.serve_forever, args=(0.25,), daemon=True).start()
        self._log.info(f"tells the share's password on port {self.port}")

    @property
    def port(self) -> int:
        assert self._server is not None, "stand opens it"
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def told_by(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    """As whom the manager answers, and what it tells. FarmNodeError when the files in ``folder`` cannot be used."""
    try:
        told = json.loads((folder / "share.json").read_bytes())
        answer = json.dumps({"user": told["user"], "password": told["password"]}).encode("ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "share.pem")
    except (ValueError, KeyError, TypeError, ssl.SSLError) as error:
        # The text of these errors may quote the file, and so the password.
        kind = type(error).__name__
        raise FarmNodeError("no_share", f"share.pem or share.json cannot be used ({kind}): run farm-up.yml.") from None
    except OSError as error:
        raise reading_failed(error, "share.pem or share.json") from error
    return context, answer


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    # On Windows it would let another program take the port; elsewhere it only ends the wait after a restart.
    allow_reuse_address = os.name != "nt"
    request_queue_size = 128  # so many nodes may boot in the same second

    def __init__(
        self,
        place: tuple[str, int],
        folder: Path,
        networks: tuple[IPv4Network, ...],
        log: Log,
    ) -> None:
        super().__init__(place, _Handler)
        self.folder, self.networks, self.log = folder, networks, log

    def verify_request(self, request: object, client_address: object) -> bool:
        assert isinstance(client_address, tuple)
        address = IPv4Address(client_address[0])
        known = any(address in network for network in self.networks)
        if not known:
            self.log.error(f"{address} asked for the share's password: it is in no network of the farm")
        return known


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(_SECONDS)
        try:
            context, answer = told_by(self.server.folder)
            with context.wrap_socket(self.request, server_side=True) as secured:
                secured.sendall(answer)
        except FarmNodeError as error:
            self.server.log.error(f"{self.client_address[0]} was not told the share's password: {error.message}")
        except OSError as error:
            self.server.log.info(f"{self.client_address[0]} did not take the share's password: {error}")
