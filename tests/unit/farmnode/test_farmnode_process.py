"""The real ``farmnode boot``: an isolated process, real sockets, real files, Windows' programs as programs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import BUILDER, FARM, LAST_WORDS, NODE, SAMPLE

import farmnode
from farmnode.services import MANAGER, SERVER

PROGRAM = Path(__file__).with_name("windows_program.py")
START = """
import sys
sys.path.append({package!r})
assert not [name for name in sys.path if "site-packages" in name]
from farmnode import cli, metadata
options = metadata.MetadataClient.__init__.__kwdefaults__
options |= {{"endpoint": {endpoint!r}, "limit": {limit!r}}}
sys.exit(cli.main(["boot"]))
"""


class Ec2(BaseHTTPRequestHandler):
    """The metadata service; 503 before ``available``."""

    available = 0.0
    user_data = ""

    def do_PUT(self) -> None:
        self._answer("token")

    def do_GET(self) -> None:
        known = {
            "mac": NODE.mac,
            "instance-id": "i-0123456789abcdef0",
            "local-ipv4": NODE.address,
            "local-hostname": f"{NODE.name}.eu-central-1.compute.internal",
            f"network/interfaces/macs/{NODE.mac}/subnet-ipv4-cidr-block": "10.0.0.0/24",
        }
        path = self.path.removeprefix("/latest/")
        self._answer(self.user_data if path == "user-data" else known.get(path.removeprefix("meta-data/")))

    def _answer(self, text: str | None) -> None:
        status = 503 if time.monotonic() < self.available else 404 if text is None else 200
        body = (text or "").encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


class Host:
    """A machine whose ``C:`` is a folder, its metadata service, and a manager that lists it while its service runs."""

    def __init__(self, drive: Path, imds: ThreadingHTTPServer) -> None:
        self.drive, self.imds = drive, imds
        self.system = drive / "Windows" / "System32"
        self.xml = drive / "Windows/ServiceProfiles/LocalService/AppData/Local/backburner/backburner.xml"
        self.manager = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._manage, daemon=True)
        self.thread.start()
        shutil.copy(PROGRAM, self.system / PROGRAM.name)
        for name in ("sc", "route", "reg", "cmd", "shutdown"):
            path = self.system / f"{name}.exe"
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS "{self.system / PROGRAM.name}" "$0" "$@"\n')
            path.chmod(0o755)
        self.xml.parent.mkdir(parents=True)
        self.xml.write_bytes(SAMPLE.encode())
        state = drive / "ProgramData" / "RenderFarm"
        state.mkdir(parents=True)
        (state / "image.json").write_text(json.dumps(BUILDER.as_json()))
        self.world: dict[str, Any] = {
            "services": {SERVER: 1, MANAGER: 1}, "routes": [], "console": [], "off": False, "calls": [], "cut": [],
        }  # fmt: skip
        self.tell()

    def tell(self, limits: str = "", manager: str = "127.0.0.1") -> None:
        port = f'"manager_port":{self.manager.getsockname()[1]}'
        text = FARM % ("render_node", f",{port}{limits}")
        self.handler.user_data = text.replace('"manager":"10.0.0.10"', f'"manager":"{manager}"')

    @property
    def handler(self) -> type[Ec2]:
        return self.imds.RequestHandlerClass  # type: ignore[return-value]

    def boot(self, *, cut: tuple[str, ...] = (), limit: float = 60.0) -> int:
        """Run the boot to its end; its exit code, negative for a signal."""
        place = self.system / "world.json"
        place.write_text(json.dumps(self.world | {"cut": list(cut), "calls": [], "off": False}))
        endpoint = f"127.0.0.1:{self.imds.server_port}"
        start = START.format(package=str(Path(farmnode.__file__).parents[1]), endpoint=endpoint, limit=limit)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", start],
            capture_output=True, text=True, timeout=20, env=dict(os.environ), check=False,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        self.world = json.loads(place.read_text())
        return done.returncode

    @property
    def said(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.world["console"][-1].removeprefix("RENDERFARM-NODE "))
        LAST_WORDS.validate(event)
        return event

    def _manage(self) -> None:
        while True:
            try:
                connection = self.manager.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):  # who only looks whether it listens goes at once
                connection.sendall(b"250 backburner 1.0 Ready.\r\nbackburner>")
                if connection.recv(100):
                    runs = json.loads((self.system / "world.json").read_text())["services"][SERVER] == 4
                    item = f"<s><h>{NODE.handle}</h><s>1</s><n>x</n></s>" if runs else ""
                    body = f"<l>{item}</l>\0".encode()
                    connection.sendall(b"251 %d\r\n" % len(body) + body + b"backburner>")


@pytest.fixture
def host(drive: Path) -> Iterator[Host]:
    imds = ThreadingHTTPServer(("127.0.0.1", 0), type("Service", (Ec2,), {}))
    thread = threading.Thread(target=imds.serve_forever, args=(0.02,))
    thread.start()
    made = Host(drive, imds)
    yield made
    made.manager.shutdown(socket.SHUT_RDWR)
    made.manager.close()
    imds.shutdown()
    imds.server_close()
    thread.join()
    made.thread.join()


def ready(host: Host) -> None:
    assert host.said["event"] == "ready" and not host.world["off"]
    text = host.xml.read_text("utf-8")
    assert f"<ServerName>{NODE.name}<" in text and BUILDER.mac not in text.lower()
    assert host.world["services"] == {SERVER: 4, MANAGER: 1}


def test_a_boot_and_another(host: Host) -> None:
    assert host.boot() == 0
    ready(host)
    before = host.xml.read_bytes()
    host.world["services"][SERVER] = 1
    assert host.boot() == 0
    ready(host)
    assert host.xml.read_bytes() == before and len(host.world["routes"]) == 0


def test_metadata_late(host: Host) -> None:
    host.handler.available = time.monotonic() + 1.0
    assert host.boot() == 0
    ready(host)
    assert host.said["seconds"] >= 1.0


def test_metadata_never(host: Host) -> None:
    host.handler.available = time.monotonic() + 1e6
    assert host.boot(limit=0.5) == 1
    assert (host.said["code"], host.said["phase"], host.world["off"]) == ("metadata", "metadata", True)


def test_a_manager_that_is_somewhere_else(host: Host) -> None:
    host.tell(limits=',"limits":{"manager":0.3}', manager="127.0.0.2")
    assert host.boot() == 1
    assert (host.said["code"], host.world["off"]) == ("manager_unreachable", True)
    assert host.world["services"][SERVER] == 1, "it never registers anywhere"


@pytest.mark.parametrize(
    "cut", [("sc.exe", "qc"), ("sc.exe", "query"), ("route.exe", "PRINT"), ("sc.exe", "start"), ("cmd.exe",)]
)
def test_the_power_goes_and_comes_back(host: Host, cut: tuple[str, ...]) -> None:
    assert host.boot(cut=cut) == -signal.SIGKILL
    host.world["services"] = {SERVER: 1, MANAGER: 1}
    assert host.boot() == 0
    ready(host)
