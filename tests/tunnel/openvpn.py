"""The real OpenVPN at both ends of a tunnel, with exactly the files that the roles' templates give."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.templates.render import render, value
from tests.tunnel import network as plan
from tests.tunnel.namespaces import Namespace
from tests.tunnel.network import Network
from tests.tunnel.pki import Authority

READY = "Initialization Sequence Completed"
_rendering = threading.Lock()


@dataclass(frozen=True)
class Link:
    """One tunnel: the machines at its ends, the names of their certificates, what the client dials.

    ``settings`` are variables of the roles openvpn_server and vpn_gateway; the rest are the roles' defaults.
    """

    server: str
    client: str
    server_name: str
    client_name: str
    endpoint: str
    settings: dict[str, Any]


_FARM = {
    "farm_vpn_port": plan.PORT,
    "farm_lan_network": plan.LAN,
    "farm_cloud_network": plan.CLOUD,
    "farm_tunnel_network": plan.TUNNEL,
    "farm_remote_network": plan.REMOTE,
}
# The tunnel between studio and cloud, with its server here or there ...
STUDIO_SIDE = Link(
    "workstation", "manager", "studio-workstation", "aws-gateway", plan.STUDIO_PUBLIC,
    {"farm_vpn_server_side": "studio"},
)  # fmt: skip
CLOUD_SIDE = Link(
    "manager", "workstation", "aws-gateway-server", "studio-workstation-client", plan.MANAGER_PUBLIC,
    {"farm_vpn_server_side": "cloud"},
)  # fmt: skip
# ... and the one of a remote node to the manager.
REMOTE = Link(
    "manager", "remote", "aws-gateway-server", "remote-1", plan.MANAGER_PUBLIC,
    {
        "farm_vpn_server_side": "studio",
        "openvpn_server_instance": "remote",
        "openvpn_server_name": "aws-gateway-server",
        "openvpn_server_port": plan.REMOTE_PORT,
        "openvpn_server_network": plan.REMOTE,
        "openvpn_server_networks": [plan.CLOUD, plan.LAN, plan.TUNNEL],
        "openvpn_server_clients": [{"name": "remote-1", "address": plan.ADDRESSES["remote"], "networks": []}],
        "vpn_gateway_instance": "remote",
        "vpn_gateway_name": "remote-1",
        "vpn_gateway_server_name": "aws-gateway-server",
        "vpn_gateway_port": plan.REMOTE_PORT,
    },
)  # fmt: skip


def settings(link: Link, pki: Path, endpoint: str = "") -> dict[str, Any]:
    """All variables that the roles openvpn_server and vpn_gateway need for one link."""
    return {
        **_FARM,
        "openvpn_server_pki_dir": str(pki),
        "vpn_gateway_pki_dir": str(pki),
        "vpn_gateway_endpoint": endpoint or link.endpoint,
        **link.settings,
    }


def write_server(folder: Path, link: Link, pki: Path) -> Path:
    """The server's folder as the role leaves it; returns its configuration file."""
    variables = settings(link, pki)
    with _rendering:
        instance = value("openvpn_server", "openvpn_server_instance", variables)
        clients = value("openvpn_server", "openvpn_server_clients", variables)
    entries = folder / f"ccd-{instance}"
    entries.mkdir(parents=True, exist_ok=True)
    for client in clients:
        _write(entries / client["name"], "openvpn_server", "client.ccd.j2", {**variables, "client": client})
    shutil.copy(pki / "crl.pem", folder / "crl.pem")
    return _write(folder / f"{instance}.ovpn", "openvpn_server", "server.ovpn.j2", variables)


def write_client(folder: Path, link: Link, pki: Path, endpoint: str = "") -> Path:
    """The client's folder as the role leaves it; returns its configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = settings(link, pki, endpoint)
    with _rendering:
        instance = value("vpn_gateway", "vpn_gateway_instance", variables)
    return _write(folder / f"{instance}.ovpn", "vpn_gateway", "gateway.ovpn.j2", variables)


def _write(path: Path, role: str, template: str, variables: dict[str, Any]) -> Path:
    with _rendering:
        text = render(role, template, variables)
    path.write_text(text, newline="\r\n")  # as win_template writes
    return path


@dataclass
class End:
    """One OpenVPN process of a machine, as OpenVPN's service for Windows starts it: in the file's folder, with a log.

    ``hosts`` is the machine's own list of names, read anew at each look-up; it has no other. ``options`` are further
    ones of the command line, for drills that show what a setting is for or that cannot wait an hour.
    """

    machine: Namespace
    config: Path
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def hosts(self) -> Path:
        return self.config.with_name("hosts")

    @property
    def log_file(self) -> Path:
        return self.config.with_suffix(".log")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self) -> None:
        """Start it with an empty log."""
        assert self._process is None, f"{self.config.name} runs already"
        if not self.hosts.exists():
            self.hosts.write_text("127.0.0.1 localhost\n")
        self.log_file.unlink(missing_ok=True)
        nameservers = self.config.with_name("nameservers")
        nameservers.write_text("nameserver 127.0.0.1\n")
        own_names = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec openvpn "$@"'
        with self.log_file.open("ab") as output:
            self._process = self.machine.start(
                *("unshare", "--mount", "--", "sh", "-c", own_names, "sh", str(self.hosts), str(nameservers)),
                *("--cd", str(self.config.parent), "--config", self.config.name, *self.options),
                output=output,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, *, kill: bool = False) -> None:
        """End it gracefully, as a service stop, or at once, as a power failure."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise
            finally:
                self._process = None

    def wait_for(self, pattern: str, *, within: float = 10.0) -> re.Match[str]:
        """Wait until the log matches. AssertionError with the log when it does not or the process ends."""
        limit = time.monotonic() + within
        while time.monotonic() < limit:
            if found := re.search(pattern, self.log()):
                return found
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the log of {self.config}:\n{self.log()}")


class Tunnel:
    """Both ends of one link; leave the ``with`` block to end them."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        pki: Path,
        link: Link = STUDIO_SIDE,
        *,
        endpoint: str = "",
        server_options: tuple[str, ...] = (),
        client_options: tuple[str, ...] = (),
    ) -> None:
        self.network = network
        self.link = link
        server = write_server(folder / link.server, link, pki)
        client = write_client(folder / link.client, link, pki, endpoint)
        self.server = End(network.machine(link.server), server, server_options)
        self.client = End(network.machine(link.client), client, client_options)

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop(kill=True)
        self.server.stop(kill=True)

    def up(self) -> Tunnel:
        """Start both ends and wait until the tunnel stands."""
        self.server.start()
        self.server.wait_for(READY)
        self.client.start()
        self.client.wait_for(READY)
        return self


def authority(folder: Path, *links: Link, **options: Any) -> Authority:
    """An authority with all certificates of the links."""
    made = Authority(folder, **options)
    for link in links or (STUDIO_SIDE, CLOUD_SIDE, REMOTE):
        for name, usage in ((link.server_name, "server"), (link.client_name, "client")):
            made.issue(name, usage)
    return made
