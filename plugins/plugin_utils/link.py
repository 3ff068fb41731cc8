# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The link between studio and cloud as its check sees it: which machines there are, and what each is asked.

Machines that Ansible reaches ask: the controller, the workstation, PCs of the inventory, the manager, remote nodes.
Render nodes have no WinRM: they are only asked.  What a node reaches follows from that: an answer to a ping and a TCP
connection take the node's own route back, and a node is registered at the manager only after it connected there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

LAN: Final = "lan"
CLOUD: Final = "cloud"
REMOTE: Final = "remote"

#: Kind of machine -> its segment.
SEGMENTS: Final[Mapping[str, str]] = {
    "controller": LAN,
    "workstation": LAN,
    "pc": LAN,
    "manager": CLOUD,
    "node": CLOUD,
    "remote": REMOTE,
}
#: MTU inside the tunnel (``tun-mtu`` of the server's configuration) and of the Ethernet around it.
TUNNEL_MTU: Final = 1400
ETHERNET_MTU: Final = 1500
#: IPv4 and ICMP headers, which the size of a ping leaves out.
HEADERS: Final = 28
#: An address on the internet that nobody has (RFC 5737): packets go there, and end on the way.
BEYOND: Final = "192.0.2.1"
#: Echo requests for each pair in a full and in a short check (there is a second between two), seconds that a reply may
#: take. The first of them may be lost while somebody learns an address or a path MTU.
PINGS: Final = 3
PINGS_SHORT: Final = 2
WAIT: Final = 2


@dataclass(frozen=True)
class Point:
    """A machine at one of the link's ends. ``host`` is its name in the inventory, empty when Ansible cannot ask it."""

    name: str
    kind: str
    address: IPv4Address
    host: str = ""
    linux: bool = False

    @property
    def segment(self) -> str:
        return SEGMENTS[self.kind]


@dataclass(frozen=True)
class Settings:
    """What the check is about. ``ports``: kind of machine -> {port: what listens there}.

    ``full``: with the transfers; otherwise each machine is asked once.
    """

    side: str
    port: int
    endpoint: str
    lan: IPv4Network
    cloud: IPv4Network
    tunnel: IPv4Network
    remote: IPv4Network
    points: tuple[Point, ...]
    ports: Mapping[str, Mapping[int, str]]
    names: Mapping[str, IPv4Address]
    bytes: int
    least_mbit: float
    problems: tuple[str, ...] = ()
    full: bool = True

    def ports_of(self, point: Point) -> Mapping[int, str]:
        """What must listen there. A workstation with Linux need not share files."""
        return {} if point.linux else self.ports.get(point.kind, {})

    def of_kind(self, kind: str) -> list[Point]:
        return [point for point in self.points if point.kind == kind]

    def first(self, kind: str) -> Point | None:
        return next(iter(self.of_kind(kind)), None)

    def by_name(self, name: str) -> Point:
        return next(point for point in self.points if point.name == name)

    @property
    def networks(self) -> dict[str, IPv4Network]:
        return {LAN: self.lan, CLOUD: self.cloud, "tunnel": self.tunnel, REMOTE: self.remote}


def settings_from(data: Mapping[str, Any]) -> Settings:
    """The settings of the role ``link_check`` as one object. ValueError names what is wrong."""
    side = data["server_side"]
    if side not in ("studio", "cloud"):
        raise ValueError(f"server_side is {side!r}: studio or cloud")
    lan = IPv4Network(data["lan_network"])
    points = tuple(point for each in data["points"] if (point := _point(each, lan)) is not None)
    names = [point.name for point in points]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"points: {', '.join(twice)} is there twice")
    return Settings(
        side=side,
        port=int(data["port"]),
        endpoint=str(data["endpoint"]),
        lan=lan,
        cloud=IPv4Network(data["cloud_network"]),
        tunnel=IPv4Network(data["tunnel_network"]),
        remote=IPv4Network(data["remote_network"]),
        points=points,
        ports={kind: {int(port): str(what) for port, what in ports.items()} for kind, ports in data["ports"].items()},
        names={str(name): IPv4Address(address) for name, address in data.get("names", {}).items()},
        bytes=round(float(data["megabytes"]) * 1_000_000),
        least_mbit=float(data.get("least_mbit", 0)),
        problems=tuple(data.get("problems", ())),
        full=bool(data.get("full", True)),
    )


def _point(data: Mapping[str, Any], lan: IPv4Network) -> Point | None:
    """A point; None for a controller that is not in the studio's network, so that it sees nothing of the link."""
    if data["kind"] not in SEGMENTS:
        raise ValueError(f"{data['name']}: kind is {data['kind']!r}, not one of {', '.join(SEGMENTS)}")
    addresses = [IPv4Address(address) for address in data.get("addresses", ())]
    if data["kind"] == "controller":
        addresses = [address for address in addresses if address in lan]
        if not addresses:
            return None
    elif not addresses:
        raise ValueError(f"{data['name']} has no address")
    return Point(str(data["name"]), data["kind"], addresses[0], str(data.get("host") or ""), bool(data.get("linux")))


def points(
    hosts: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    *,
    controller: Sequence[str],
    manager_address: str,
    samples: int,
    pcs: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The machines to be checked, from the inventory: ``hosts`` are its variables by host.

    ``controller``: its addresses.  Of the render nodes the first ``samples`` that run are taken.  ``pcs``: machines of
    the studio that are only asked.
    """
    found: list[dict[str, Any]] = [
        {"name": "controller", "kind": "controller", "host": "localhost", "addresses": list(controller)}
    ]
    for group, kind in (("workstation", "workstation"), ("lan_pcs", "pc")):
        for name in groups.get(group, ()):
            address = hosts[name].get("ansible_host", name)
            if kind == "workstation":
                address = hosts[name].get("farm_workstation_address", address)
            linux = name in groups.get("workstation_linux", ())
            found.append({"name": name, "kind": kind, "host": name, "addresses": [address], "linux": linux})
    found += [{"name": name, "kind": "pc", "host": "", "addresses": [address]} for name, address in pcs.items()]
    for name in groups.get("manager", ()):
        found.append({"name": name, "kind": "manager", "host": name, "addresses": [manager_address]})
    running = [name for name in sorted(groups.get("render_nodes", ())) if hosts[name].get("farm_state") == "running"]
    for name in running[:samples]:
        found.append({"name": name, "kind": "node", "host": "", "addresses": [hosts[name]["farm_private_ip"]]})
    for name in sorted(groups.get("remote_nodes", ())):
        if address := hosts[name].get("farm_tunnel_address"):
            found.append({"name": name, "kind": "remote", "host": name, "addresses": [address]})
    return found


@dataclass(frozen=True)
class Question:
    """One probe of ``farmnode probe`` with what it is for. ``target`` is the name of a point, or empty."""

    check: str
    probe: Mapping[str, Any]
    target: str = ""
    required: bool = True


def questions(settings: Settings, asker: Point) -> list[Question]:
    """What ``asker`` finds out in the first round."""
    asked = [Question("clock", {"kind": "clock"}), Question("routes", {"kind": "routes"})]
    if asker.kind in ("workstation", "manager", "remote"):
        asked.append(Question("OpenVPN", {"kind": "openvpn"}))
    if asker.kind in ("workstation", "manager"):
        asked.append(Question("forwarding", {"kind": "forwarding"}))
    if asker.segment == LAN and settings.side == "studio":
        # Who answers one hop behind the studio's router: a private address there means that there is another router.
        asked.append(Question("second hop", {"kind": "ping", "address": BEYOND, "count": 1, "wait": 1, "ttl": 2}))
    # Names are the managed hosts entries of the machines that the farm configures.
    asked += [
        Question("name", {"kind": "name", "name": name, "expect": str(address)}, name)
        for name, address in settings.names.items()
        if asker.kind in ("workstation", "manager", "remote") and not asker.linux
    ]
    seen: set[str] = set()
    for target in settings.points:
        if target.name == asker.name:
            continue
        address = str(target.address)
        # Whoever runs Ansible may have a firewall of his own; the PCs of the studio are what counts.
        required = target.kind != "controller"
        count = PINGS if settings.full else PINGS_SHORT
        ping = {"kind": "ping", "address": address, "count": count, "wait": WAIT}
        asked.append(Question("ping", ping, target.name, required))
        if target.segment != asker.segment and target.kind not in seen:
            seen.add(target.kind)
            for size in (TUNNEL_MTU - HEADERS, ETHERNET_MTU - HEADERS):
                probe = {"kind": "ping", "address": address, "count": 2, "wait": WAIT, "size": size, "df": True}
                asked.append(Question("path MTU", probe, target.name, required))
        for port in settings.ports_of(target):
            asked.append(Question("port", {"kind": "tcp", "address": address, "port": port}, target.name))
    return asked


def first_round(settings: Settings) -> dict[str, list[Question]]:
    """Host of the inventory -> its questions."""
    return {point.host: questions(settings, point) for point in settings.points if point.host}


def second_round(settings: Settings, answers: Answers) -> dict[str, list[Question]]:
    """The transfers, between the manager and everyone else who asks and reaches it by ping."""
    manager = settings.first("manager")
    if not settings.full or manager is None or not manager.host or not answers.results(manager.host):
        return {}
    clients = [
        point
        for point in settings.points
        if point.host and point.name != manager.name and answers.pings(point.host, manager.name)
    ]
    if not clients:
        return {}
    longest = _longest(settings.bytes) * 2 * len(clients)
    listen = {
        "kind": "listen",
        "transfers": 2 * len(clients),
        "seconds": min(3600, 60 + longest),
        "networks": [str(network) for network in settings.networks.values()],
    }
    plan = {manager.host: [Question("listener", listen)]}
    for client in clients:
        common = {"address": str(manager.address), "bytes": settings.bytes, "patience": min(600, 60 + longest)}
        plan[client.host] = [
            Question("transfer to", {"kind": "send", **common}, manager.name),
            Question("transfer from", {"kind": "receive", **common}, manager.name),
        ]
    return plan


def _longest(size: int) -> int:
    """Seconds that a transfer of ``size`` bytes may take: at 5 Mbit/s."""
    return round(size * 8 / 5e6) + 1


class Answers:
    """What the hosts said in one round: results beside the questions that they belong to."""

    def __init__(self, plan: Mapping[str, Sequence[Question]], said: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._pairs: dict[str, list[tuple[Question, Mapping[str, Any]]]] = {}
        self._silent: dict[str, str] = {}
        self._asked_at: dict[str, float] = {}
        for host, asked in plan.items():
            answer = said.get(host) or {}
            results = answer.get("results")
            if isinstance(results, list) and len(results) == len(asked):
                self._pairs[host] = list(zip(asked, results, strict=True))
                self._asked_at[host] = float(answer.get("asked_at", 0))
            else:
                self._silent[host] = str(answer.get("msg") or "it was not asked")

    def results(self, host: str) -> list[tuple[Question, Mapping[str, Any]]]:
        """Questions and results of ``host``; nothing when it gave none."""
        return self._pairs.get(host, [])

    @property
    def silent(self) -> Mapping[str, str]:
        """Hosts that gave no answer, with the reason."""
        return self._silent

    def asked_at(self, host: str) -> float:
        """The controller's clock while ``host`` was asked, seconds since 1970."""
        return self._asked_at.get(host, 0.0)

    def one(self, host: str, check: str, target: str = "") -> Mapping[str, Any] | None:
        """The first result of that check."""
        return next(iter(self.all(host, check, target)), None)

    def all(self, host: str, check: str, target: str = "") -> list[Mapping[str, Any]]:
        return [
            result for question, result in self.results(host) if (question.check, question.target) == (check, target)
        ]

    def pings(self, host: str, target: str) -> bool:
        """Did ``host`` get at least one answer from ``target``?"""
        result = self.one(host, "ping", target)
        return bool(result and result.get("received"))


def as_plan(plan: Mapping[str, Iterable[Question]]) -> dict[str, list[dict[str, Any]]]:
    """Only what the machines need: host -> the list for ``farmnode probe``."""
    return {host: [dict(question.probe) for question in asked] for host, asked in plan.items()}
