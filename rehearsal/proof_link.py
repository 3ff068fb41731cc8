"""The proofs of the link between studio and cloud: who reaches whom, and what never passes the internet.

Each machine tries it itself, from its own network (``rehearsal exec --on``), with nothing of the product in between.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from rehearsal import control
from rehearsal.network import plan
from rehearsal.session import Rehearsal, expect

LAN = "lan"
CLOUD = "cloud"
REMOTE = "remote"
REMOTE_NETWORK = IPv4Network("10.9.0.0/24")
WINRM = 5986
_PC_PORT = 445
# role of a machine -> its segment, and a TCP port on which its own software listens
_ROLES: Mapping[str, tuple[str, int]] = {
    plan.WORKSTATION: (LAN, 445),
    "manager": (CLOUD, 3234),
    "render_node": (CLOUD, 3233),
    "remote_node": (REMOTE, 3233),
}
_REACH = (sys.executable, "-m", "rehearsal.reach")


@dataclass(frozen=True)
class Point:
    """A machine of the matrix: its name, where it stands, and the address and TCP port by which others know it."""

    name: str
    segment: str
    address: str
    port: int

    @property
    def target(self) -> str:
        return f"{self.address}:{self.port}"


def points(machines: Sequence[Mapping[str, Any]], tunnel_addresses: Mapping[str, str], nodes: int = 2) -> list[Point]:
    """The PC, the workstation, the manager, the first ``nodes`` render nodes and every remote node.

    ``tunnel_addresses``: remote node -> its address in the tunnel, by which it is known.
    """
    found = [Point(plan.PC, LAN, str(plan.LAN_HOSTS[plan.PC]), _PC_PORT)]
    left = nodes
    for machine in sorted(machines, key=lambda machine: str(machine["name"])):
        if machine["role"] not in _ROLES:
            continue
        if machine["role"] == "render_node":
            left -= 1
            if left < 0:
                continue
        segment, port = _ROLES[machine["role"]]
        address = tunnel_addresses[machine["name"]] if segment == REMOTE else machine["address"]
        found.append(Point(machine["name"], segment, address, port))
    return found


def tunnel_address(addresses: Sequence[Mapping[str, Any]], network: IPv4Network) -> str:
    """The address inside ``network`` out of what ``ip -json address`` prints; empty when there is none."""
    own = [info["local"] for link in addresses for info in link["addr_info"] if info["family"] == "inet"]
    return next((address for address in own if IPv4Address(address) in network), "")


def failures(source: Point, targets: Sequence[Point], seen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What ``source`` does not reach."""
    found = []
    for target in targets:
        answer = seen[target.target]
        if not answer["ping"]:
            found.append(f"{source.name} has no echo of {target.name} ({target.address})")
        if answer["tcp"] != "open":
            found.append(f"{source.name} to {target.name}, TCP {target.target}: {answer['tcp']}")
    return found


def routes_of_pcs(output: str) -> list[str]:
    """The commands for a PC with Linux that farm-up.yml or link-check.yml printed. ProofError when there are none."""
    found = sorted(set(re.findall(r"\bip route replace \d\S+ via \d[\d.]+", output)))
    expect(bool(found), "nothing was printed that tells a PC the way to the farm (ip route replace …)")
    return found


class Link:
    """The link of a rehearsed farm, as the machines at its ends see it."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def points(self) -> list[Point]:
        machines = self._rehearsal.machines()
        remote = [machine["name"] for machine in machines if machine["role"] == "remote_node"]
        tunnels = {name: self._tunnel_address(name) for name in remote}
        return points(machines, tunnels)

    def _tunnel_address(self, name: str) -> str:
        listed = json.loads(self._rehearsal.command("ip", "-json", "address", "show", on=name))
        address = tunnel_address(listed, REMOTE_NETWORK)
        expect(bool(address), f"{name} has no address in {REMOTE_NETWORK}: its tunnel to the manager does not stand")
        return address

    def pc_knows_the_way(self, printed: str) -> None:
        """Do on the PC what the playbook's output says."""
        for line in routes_of_pcs(printed):
            self._rehearsal.command(*line.split(), on=plan.PC)

    @contextmanager
    def pc_listens(self) -> Iterator[None]:
        """The PC has no program that takes connections: give it one inside the block."""
        words = ["exec", "--dir", str(self._rehearsal.folder), "--on", plan.PC, "--", *_REACH, "listen", str(_PC_PORT)]
        listener = subprocess.Popen([sys.executable, "-m", "rehearsal", *words], stdout=subprocess.PIPE, text=True)
        try:
            assert listener.stdout is not None
            expect(listener.stdout.readline() == "ready\n", f"TCP port {_PC_PORT} of the PC cannot be listened on")
            yield
        finally:
            listener.kill()
            listener.communicate()

    def seen(self, sources: Sequence[Point], targets: Sequence[Point]) -> dict[str, dict[str, dict[str, Any]]]:
        """Source -> target -> what came back, all of them at the same time; nobody asks itself."""

        def ask(source: Point) -> dict[str, dict[str, Any]]:
            others = [target.target for target in targets if target.name != source.name]
            answer: dict[str, dict[str, Any]] = json.loads(
                self._rehearsal.command(*_REACH, "try", *others, on=source.name)
            )
            return answer

        with self.pc_listens(), ThreadPoolExecutor(max_workers=len(sources)) as pool:
            return dict(zip([source.name for source in sources], pool.map(ask, sources), strict=True))

    def leaks(self) -> int:
        """Packets with a private address that the internet has seen since the rehearsal began, either way."""
        return int(control.call(self._rehearsal.folder, {"do": "status"})["leaks"])


# --------------------------------------------------------------------------------------------------------- the promises


def prove_reach(rehearsal: Rehearsal) -> str:
    """Everybody reaches everybody else, by ping and by TCP."""
    link = Link(rehearsal)
    found = link.points()
    seen = link.seen(found, found)
    wrong = [
        problem
        for source in found
        for problem in failures(source, [target for target in found if target != source], seen[source.name])
    ]
    expect(not wrong, f"{len(wrong)} of {2 * len(found) * (len(found) - 1)} attempts fail: {'; '.join(wrong)}")
    names = ", ".join(point.name for point in found)
    return f"{len(found) * (len(found) - 1)} pairs reach each other by ping and TCP, 0 failures ({names})"


def prove_no_leaks(rehearsal: Rehearsal) -> str:
    leaks = Link(rehearsal).leaks()
    expect(leaks == 0, f"the internet saw {leaks} packets with private addresses")
    return "0 packets with private addresses on the internet, in either direction, during the whole run"


def prove_winrm_shut(rehearsal: Rehearsal) -> str:
    """From the studio the manager's WinRM answers through the tunnel, and no longer at its public address."""
    manager = next(machine for machine in rehearsal.machines() if machine["role"] == "manager")
    inside, outside = f"{manager['address']}:{WINRM}", f"{manager['public_address']}:{WINRM}"
    seen = json.loads(rehearsal.command(*_REACH, "try", inside, outside))
    expect(seen[inside]["tcp"] == "open", f"the manager's WinRM is {seen[inside]['tcp']} through the tunnel")
    expect(
        seen[outside]["tcp"] == "silent", f"the manager's WinRM is {seen[outside]['tcp']} for the studio at {outside}"
    )
    return f"the manager's WinRM answers at {inside} through the tunnel, and nobody at {outside}"
