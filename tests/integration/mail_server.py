"""A mail server with TLS for the drills: ``mail_server.py ADDRESS PORT FOLDER`` puts each mail it takes into FOLDER.

FOLDER has its certificate and key in ``server.pem``.  It ends when its standard input does.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        number = len(list(self._path.glob("*.eml")))
        (self._path / f"{number}.eml").write_bytes(envelope.content)
        return "250 OK"


def main() -> None:
    address, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    controller = Controller(Folder(folder), hostname=address, port=port, tls_context=context, require_starttls=True)
    controller.start()
    sys.stdin.read()
    controller.stop()


main()
