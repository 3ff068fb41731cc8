"""How fast the tunnel is with the files that the roles write, beside other ways to set it up: ``make bench``.

Four tunnels stand at the same time, each between a studio and a cloud of its own. What each can do alone is measured
in turns; how they compare, while each runs beside the best settings, so that whatever else the machine does meets both.
The medians go into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tests.conftest  # noqa: F401 - Ansible's loader of collections
from tests.bench.document import command, machine, parser, write_section
from tests.tunnel.network import ADDRESSES, LAN, STUDIO_PUBLIC, Network
from tests.tunnel.openvpn import STUDIO_SIDE, Tunnel, authority
from tests.tunnel.traffic import knock, reaches, transfer

LOWEST_RATIO = 0.95
MEGABYTE = 1_000_000
IDENTICAL_SIZE = 100 * MEGABYTE
ABSENT = 20  # addresses of the LAN that nobody has, which one PC looks for

# The settings that measurements chose (docs/vpn.md, decisions), written by hand and not by the roles.
_COMMON = """
dev-type {device_type}
proto udp4
ca ca.crt
tls-version-min 1.3
explicit-exit-notify 1
persist-key
persist-tun
verb 3
"""
_SERVER = (
    _COMMON
    + """
port 1194
dev {device}0
client-config-dir entries
ccd-exclusive
crl-verify crl.pem
dh none
cert studio-workstation.crt
key studio-workstation.key
tls-crypt-v2 tls-crypt-v2-server.key
remote-cert-tls client
keepalive 3 15
"""
)
_CLIENT = (
    _COMMON
    + """
client
dev {device}
remote {endpoint} 1194
nobind
connect-retry 1 5
connect-timeout 4
tls-timeout 1
cert aws-gateway.crt
key aws-gateway.key
tls-crypt-v2 aws-gateway.tls-crypt-v2.key
remote-cert-tls server
verify-x509-name studio-workstation name
"""
)
_ROUTED = """
topology subnet
server 10.8.0.0 255.255.255.0 nopool
route 10.0.0.0 255.255.255.0
route 10.9.0.0 255.255.255.0
push "route 192.168.1.0 255.255.255.0"
"""
_ROUTED_ENTRY = """
ifconfig-push 10.8.0.2 255.255.255.0
iroute 10.0.0.0 255.255.255.0
iroute 10.9.0.0 255.255.255.0
"""
_CHOSEN = """
data-ciphers AES-256-GCM:CHACHA20-POLY1305:AES-128-GCM
tun-mtu 1400
sndbuf 524288
rcvbuf 524288
push "sndbuf 524288"
push "rcvbuf 524288"
"""
_BRIDGED = 'mode server\ntls-server\npush "route-gateway 192.168.1.10"\n'
_BRIDGED_ADDRESS = "192.168.1.200"
_BRIDGED_ENTRY = f"ifconfig-push {_BRIDGED_ADDRESS} 255.255.255.0\n"


@dataclass
class Contender:
    """One way to set the tunnel up, and what was measured: Mbit/s out and back, CPU seconds per GB of both ends.

    ``ratios``: how much faster than the best settings it was, beside them.
    """

    title: str
    network: Network
    tunnel: Tunnel
    far_address: str = ADDRESSES["manager"]
    out: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def there_and_back(self, size: int) -> tuple[float, float]:
        """Mbit/s from the workstation to the gateway, and back."""
        workstation, manager = self.network.workstation, self.network.manager
        out = transfer(workstation, manager, self.far_address, size, hashed=False).megabits
        return out, transfer(manager, workstation, ADDRESSES["workstation"], size, hashed=False).megabits

    def measure(self, size: int) -> None:
        """Once there and back, alone."""
        before = _cpu_seconds(self.tunnel)
        out, back = self.there_and_back(size)
        self.out.append(out)
        self.back.append(back)
        self.cpu.append((_cpu_seconds(self.tunnel) - before) / (2 * size / 1e9))

    def race(self, best: Contender, size: int) -> None:
        """Once there and back beside the best settings: both share the machine with each other and with all else."""
        with ThreadPoolExecutor(2) as pool:
            own, theirs = (pool.submit(one.there_and_back, size) for one in (self, best))
            self.ratios.append(sum(own.result()) / sum(theirs.result()))

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios) if self.ratios else 1.0


def _cpu_seconds(tunnel: Tunnel) -> float:
    ticks = 0
    for end in (tunnel.server, tunnel.client):
        fields = Path(f"/proc/{end.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _by_hand(tunnel: Tunnel, pki: Path, server: str, client: str, entry: str, *, device: str = "tun") -> None:
    """Put other files in the place of those that the roles wrote."""
    words = {"device": device, "device_type": device, "endpoint": STUDIO_PUBLIC}
    for end, text in ((tunnel.server, server), (tunnel.client, client)):
        shutil.copytree(pki, end.config.parent, dirs_exist_ok=True)
        end.config.write_text(text.format(**words))
    entries = tunnel.server.config.with_name("entries")
    entries.mkdir()
    (entries / STUDIO_SIDE.client_name).write_text(entry)


def as_rendered(tunnel: Tunnel, pki: Path) -> None:
    """Nothing: the roles' files are there."""


def as_chosen(tunnel: Tunnel, pki: Path) -> None:
    _by_hand(tunnel, pki, _SERVER + _ROUTED + _CHOSEN, _CLIENT, _ROUTED_ENTRY)


def as_default(tunnel: Tunnel, pki: Path) -> None:
    _by_hand(tunnel, pki, _SERVER + _ROUTED, _CLIENT, _ROUTED_ENTRY)


def as_bridge(tunnel: Tunnel, pki: Path) -> None:
    _by_hand(tunnel, pki, _SERVER + _BRIDGED, _CLIENT, _BRIDGED_ENTRY, device="tap")
    own = ADDRESSES["workstation"]
    tunnel.network.workstation.ip(
        "link add br0 type bridge",
        "link set br0 up",
        "tuntap add dev tap0 mode tap",
        "link set tap0 master br0 up",
        "address flush dev eth0",
        "link set eth0 master br0",
        f"address add {own}/24 dev br0",
        "route add default via 192.168.1.1",
    )


@contextmanager
def standing(title: str, folder: Path, prepare: Callable[[Tunnel, Path], None]) -> Iterator[Contender]:
    """A contender whose tunnel stands."""
    network = Network()
    try:
        pki = authority(folder / "pki", STUDIO_SIDE).folder
        with Tunnel(network, folder / "machines", pki) as tunnel:
            prepare(tunnel, pki)
            tunnel.up()
            contender = Contender(title, network, tunnel)
            if prepare is as_bridge:
                contender.far_address = _BRIDGED_ADDRESS
            limit = time.monotonic() + 10
            while not reaches(network.workstation, contender.far_address) and time.monotonic() < limit:
                time.sleep(0.1)
            yield contender
    finally:
        network.close()


def frames_of_a_search(contender: Contender) -> int:
    """Frames that come out of the tunnel while one PC looks for addresses of its LAN that nobody has."""
    device = re.search(r"(t[ua][np]\d+)", contender.network.manager.run("ip", "-o", "link"))
    assert device is not None

    def received() -> int:
        listed = contender.network.manager.run("ip", "-s", "link", "show", device[1])
        after = listed.split("RX:")[1].splitlines()[1].split()
        return int(after[1])

    time.sleep(1)
    before = received()
    base = LAN.rpartition(".")[0]
    for number in range(ABSENT):
        knock(contender.network.pc, f"{base}.{100 + number}", 445)
    time.sleep(2)
    return received() - before


def reached_nodes(contender: Contender) -> bool:
    network = contender.network
    return reaches(network.node1, ADDRESSES["pc"]) or reaches(network.pc, ADDRESSES["node1"])


def openvpn_version() -> str:
    said = subprocess.run(["openvpn", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return said[1]


def report(contenders: list[Contender], bridge: Contender, frames: list[int], arguments: argparse.Namespace) -> str:
    """The section for docs/benchmarks.md."""
    rendered = contenders[0]
    lines = [
        "## Tunnel",
        "",
        f"{arguments.about}, OpenVPN {openvpn_version()}, TCP CUBIC: medians of {arguments.rounds} rounds of "
        f"{arguments.megabytes} MB each way, speeds in turns, the ratio to the best settings beside them at the same "
        "time.",
        "",
        "| tunnel | studio to cloud, Mbit/s | cloud to studio, Mbit/s | CPU seconds per GB, both ends | ratio |",
        "|---|---|---|---|---|",
    ]
    for one in contenders:
        lines.append(
            f"| {one.title} | {statistics.median(one.out):.0f} | {statistics.median(one.back):.0f} "
            f"| {statistics.median(one.cpu):.1f} | {one.ratio:.2f} |"
        )
    nodes = "answer" if reached_nodes(bridge) else "are not reachable"
    lines += [
        "",
        f"- The roles' files reach **{rendered.ratio:.2f}** of the best settings beside them (at least "
        f"{LOWEST_RATIO}).",
        f"- The same path bridged is {bridge.ratio / rendered.ratio:.2f} of the routed tunnel. Render nodes {nodes} "
        "over the bridge: a VPC is no LAN.",
        f"- One PC that looks for {ABSENT} absent addresses of its LAN costs {frames[1]} frames in the bridge and "
        f"{frames[0]} in the routed tunnel.",
        f"- {IDENTICAL_SIZE // MEGABYTE} MB each way between a PC and a render node arrived byte-identical (SHA-256).",
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    options = parser("tunnel", __doc__)
    options.add_argument("--rounds", type=int, default=5, help="how often each takes its turn (default: %(default)s)")
    options.add_argument("--megabytes", type=int, default=50, help="size of one transfer (default: %(default)s)")
    arguments = options.parse_args(words)
    arguments.about = f"{command('tunnel', words or sys.argv[1:])} on {machine()}"
    ways = {
        "the roles' files": as_rendered,
        "best settings, written by hand": as_chosen,
        "OpenVPN's defaults": as_default,
        "bridged (tap), OpenVPN's defaults": as_bridge,
    }
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = [
            stack.enter_context(standing(title, root / str(number), prepare))
            for number, (title, prepare) in enumerate(ways.items())
        ]
        rendered, bridge = contenders[0], contenders[-1]
        frames = [frames_of_a_search(one) for one in (rendered, bridge)]
        best = contenders[1]
        for _ in range(arguments.rounds):
            for one in contenders:
                one.measure(arguments.megabytes * MEGABYTE)
                if one is not best:
                    one.race(best, arguments.megabytes * MEGABYTE)
        network = rendered.network
        for source, sink, far in ((network.pc, network.node1, "node1"), (network.node1, network.pc, "pc")):
            if not transfer(source, sink, ADDRESSES[far], IDENTICAL_SIZE).identical:
                print(f"a stream to {far} arrived damaged", file=sys.stderr)
                return 1
        section = report(contenders, bridge, frames, arguments)
    print(section)
    write_section("tunnel", section, arguments.document)
    ratio = rendered.ratio
    if ratio < LOWEST_RATIO:
        print(f"the roles' files reach {ratio:.2f} of the best settings, less than {LOWEST_RATIO}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
