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
    """Answers while `stand` has opened it. `close` ends it and its threads."""

    def __init__(self, folder: Path, networks: tuple[IPv4Network, ...], log: Log, *, address: str = "0.0.0.0") -> None:
        self._folder = secrets_folder(folder)
        self._networks = networks
        self._log = log
        self._address = address
        self._server: _Server | None = None
        self._stamp: tuple[float, ...] = ()

    def stand(self, port: int = PORT) -> None:
        """Answer with what the files say now; nothing happens when they are as before.

        FarmNodeError when they are there and cannot be used, or the port is taken.
        """
        files = (self._folder / "share.pem", self._folder / "share.json")
        stamp = tuple(file.stat().st_mtime for file in files if file.exists())
        if len(stamp) < len(files) or stamp == self._stamp:
            return
        self.close()
        try:
            told = json.loads(files[1].read_bytes())
            answer = json.dumps({"user": told["user"], "password": told["password"]}).encode("ascii")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files[0])
            self._server = _Server((self._address, port), answer, context, self._networks, self._log)
        except (ValueError, KeyError, TypeError, ssl.SSLError) as error:
            # The text of these errors may quote the file, and so the password.
            kind = type(error).__name__
            raise FarmNodeError(
                "no_share", f"share.pem or share.json cannot be used ({kind}): run farm-up.yml."
            ) from None
        except OSError as error:
            raise reading_failed(error, f"share.pem, share.json or port {port}") from error
        self._stamp = stamp
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
            self._stamp = ()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    # On Windows it would let another program take the port; elsewhere it only ends the wait after a restart.
    allow_reuse_address = os.name != "nt"
    request_queue_size = 128  # so many nodes may boot in the same second

    def __init__(
        self,
        place: tuple[str, int],
        answer: bytes,
        context: ssl.SSLContext,
        networks: tuple[IPv4Network, ...],
        log: Log,
    ) -> None:
        super().__init__(place, _Handler)
        self.answer, self.context, self.networks, self.log = answer, context, networks, log

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
            with self.server.context.wrap_socket(self.request, server_side=True) as secured:
                secured.sendall(self.server.answer)
        except OSError as error:
            self.server.log.info(f"{self.client_address[0]} did not take the share's password: {error}")
