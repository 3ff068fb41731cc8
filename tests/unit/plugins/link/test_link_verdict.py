"""Tables of failures: what the machines said and EC2 knows, and the cause that the check names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import link, link_facts, link_verdict, openvpn_log

NOW = 1_800_000_000.0
ADDRESSES = {
    "controller": ("controller", "192.168.1.5", "localhost"),
    "ws": ("workstation", "192.168.1.10", "ws"),
    "manager": ("manager", "10.0.0.10", "manager"),
    "node-1": ("node", "10.0.0.21", ""),
    "node-2": ("node", "10.0.0.22", ""),
}
LAN, CLOUD, TUNNEL, REMOTE = "192.168.1.0/24", "10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24"
GENERIC = "2026-11-23 04:00:00 TLS Error: TLS key negotiation failed to occur within 60 seconds (check your network)"


def point(name: str) -> dict[str, Any]:
    kind, address, host = ADDRESSES[name]
    return {"name": name, "kind": kind, "addresses": [address], "host": host}


def data(**changes: Any) -> dict[str, Any]:
    return {
        "server_side": "studio",
        "endpoint": "198.51.100.7",
        "port": 1194,
        "lan_network": LAN,
        "cloud_network": CLOUD,
        "tunnel_network": TUNNEL,
        "remote_network": REMOTE,
        "points": [point(name) for name in ADDRESSES],
        "ports": {
            "workstation": {445: "file sharing"},
            "manager": {3234: "Backburner Manager"},
            "node": {3233: "Backburner Server"},
        },
        "names": {"manager": "10.0.0.10"},
        "megabytes": 10,
        "problems": [],
        **changes,
    }


def group(role: str, permissions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"group_name": f"studio-{role}", "tags": {"renderfarm:role": role}, "ip_permissions": permissions}


def permission(protocol: str, first: int, last: int, *networks: str) -> dict[str, Any]:
    ranges = [{"cidr_ip": network} for network in networks]
    return {"ip_protocol": protocol, "from_port": first, "to_port": last, "ip_ranges": ranges}


@dataclass
class World:
    """A link that works, to be broken; ``blocked`` says which probes between two machines fail."""

    settings: dict[str, Any] = field(default_factory=data)
    blocked: list[Callable[[str, str, dict[str, Any]], bool]] = field(default_factory=list)
    said: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    source_check: bool = False
    routes: dict[str, tuple[str, str]] = field(
        default_factory=lambda: dict.fromkeys((LAN, TUNNEL, REMOTE), ("eni-1", "active"))
    )
    groups: list[dict[str, Any]] = field(
        default_factory=lambda: [
            group("manager", [permission("-1", -1, -1, CLOUD)]),
            group(
                "render_node",
                [permission("icmp", -1, -1, CLOUD, LAN, TUNNEL), permission("tcp", 3233, 3233, CLOUD, LAN, TUNNEL)],
            ),
        ]
    )
    public: str = "203.0.113.5"
    pki: dict[str, Any] = field(
        default_factory=lambda: {
            "authority": {"name": "authority", "state": "good", "days_left": 3000},
            "certificates": [{"name": "aws-gateway", "state": "good", "days_left": 800}],
            "revocations": {"days_left": 3000, "state": "good"},
        }
    )
    second: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, asker: str, question: link.Question) -> dict[str, Any]:
        probe = dict(question.probe)
        if (asker, question.check) in self.said:
            return self.said[asker, question.check]
        kind = probe["kind"]
        if kind == "clock":
            return {"ok": True, "now": NOW}
        if kind == "routes":
            networks = [CLOUD, TUNNEL, REMOTE, "0.0.0.0/0"]
            return {"ok": True, "routes": [{"network": network, "gateway": "192.168.1.10"} for network in networks]}
        if kind == "openvpn":
            return {"ok": True, "service": "running", "logs": {}}
        if kind == "forwarding":
            return {"ok": True, "enabled": True}
        if kind == "name":
            return {"ok": True, "addresses": [probe["expect"]]}
        if question.check == "second hop":
            return ping(0, 1, [("203.0.113.1", "TTL expired in transit.")])
        lost = any(blocked(asker, question.target, probe) for blocked in self.blocked)
        if kind == "tcp":
            return {"ok": False, "error": "silent"} if lost else {"ok": True, "ms": 1.0}
        if lost:
            return ping(0, probe["count"])
        if probe.get("size") == 1472:
            return ping(0, probe["count"], too_large=True)
        return ping(probe["count"], probe["count"])

    def rows(self) -> list[dict[str, Any]]:
        settings = link.settings_from(self.settings)
        plan = link.first_round(settings)
        names = {host: name for name, (_, _, host) in ADDRESSES.items() if host}
        said: dict[str, Any] = {}
        for host, asked in plan.items():
            if names[host] in self.silent:
                said[host] = {"failed": True, "msg": self.silent[names[host]]}
            else:
                results = [self.answer(names[host], question) for question in asked]
                said[host] = {"results": results, "asked_at": NOW}
        first = link.Answers(plan, said)
        transfers = link.second_round(settings, first)
        done = {"ok": True, "bytes": 10**7, "seconds": 1.0, "mbit": 80.0, "sha256": "ab"}
        second = {
            host: {"results": [self.second.get(names[host], done) for _ in asked], "asked_at": NOW}
            for host, asked in transfers.items()
        }
        tables = [
            {
                "route_table_id": "rtb-1",
                "routes": [
                    {"destination_cidr_block": network, "network_interface_id": target, "state": state}
                    for network, (target, state) in self.routes.items()
                ],
            }
        ]
        interface = {
            "network_interface_id": "eni-1",
            "source_dest_check": self.source_check,
            "association": {"public_ip": self.public} if self.public else {},
        }
        cloud = link_facts.cloud_from([interface], tables, self.groups)
        answers = link.Answers(transfers, second)
        return link_verdict.verdict(settings, first, answers, cloud, self.pki, openvpn_log.explain)

    def failed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if not row["ok"]]


def ping(
    received: int, sent: int, complaints: Sequence[tuple[str, str]] = (), *, too_large: bool = False
) -> dict[str, Any]:
    return {
        "ok": received == sent,
        "sent": sent,
        "received": received,
        "ms": 1.0 if received else None,
        "complaints": [{"from": address, "text": text} for address, text in complaints],
        "too_large": too_large,
        "mtu": None,
        "said": "",
    }


def across(asker: str, target: str, probe: dict[str, Any]) -> bool:
    """The tunnel is down."""
    return ADDRESSES[asker][1].startswith("192.") != ADDRESSES[target][1].startswith("192.")


def nodes(asker: str, target: str, probe: dict[str, Any]) -> bool:
    """Nodes and the studio do not reach each other; the tunnel's ends do."""
    return across(asker, target, probe) and "node" in asker + target


def studio(asker: str, target: str, probe: dict[str, Any]) -> bool:
    """The controller and the cloud do not reach each other."""
    return across(asker, target, probe) and "controller" in (asker, target)


def log(text: str) -> dict[str, Any]:
    return {"ok": True, "service": "running", "logs": {"studio": text}}


def main_cause(world: World) -> tuple[str, str]:
    problems = link_verdict.problems(world.rows())
    return problems[0]["cause"], problems[0]["remedy"]


def test_two_machines_with_one_certificate_are_named_while_the_tunnel_stands() -> None:
    """It stands and falls by turns: the check may meet it while it stands."""
    said = "2026-11-23 04:40:{:02} {}:1 [aws-gateway] Peer Connection Initiated with [AF_INET]{}:1"
    peers = [(31, "198.51.100.9"), (32, "203.0.113.5"), (33, "198.51.100.9")]
    lines = [said.format(second, peer, peer) for second, peer in peers]
    lines.append(
        "2026-11-23 04:40:33 MULTI: new connection by client 'aws-gateway' will cause previous active sessions by this"
    )
    world = World()
    world.said["ws", "OpenVPN"] = log("\n".join(lines))
    (row,) = world.failed()
    assert row["cause"].startswith("two machines use the certificate of aws-gateway")
    assert row["cause"].endswith("(log of ws)")


def test_a_link_that_works_passes_everything() -> None:
    rows = World().rows()
    assert [row for row in rows if not row["ok"]] == []
    checks = {row["check"] for row in rows}
    assert checks == {
        "networks", "certificate", "revocation list", "source check", "VPC route", "security group", "clock",
        "forwarding", "route", "name", "OpenVPN", "tunnel", "port forward", "ping", "path MTU", "port", "transfer",
    }  # fmt: skip
    pings = {(row["from"], row["to"]) for row in rows if row["check"] == "ping"}
    askers = {name for name, (_, _, host) in ADDRESSES.items() if host}
    assert pings == {(asker, target) for asker in askers for target in ADDRESSES if asker != target}
    transfers = [(row["from"], row["to"]) for row in rows if row["check"] == "transfer"]
    assert sorted(transfers) == [
        ("controller", "manager"),
        ("manager", "controller"),
        ("manager", "ws"),
        ("ws", "manager"),
    ]
    assert set(rows[0]) == {"check", "from", "to", "ok", "detail", "cause", "remedy", "required"}


TUNNEL_DOWN: dict[str, tuple[Callable[[World], None], str, str]] = {
    "overlap": (
        lambda w: w.settings.update(problems=["farm_lan_network and farm_cloud_network are both 10.0.0.0/24."]),
        "overlapping networks",
        "are both",
    ),
    "certificate": (
        lambda w: w.pki["certificates"].append({"name": "studio-workstation", "state": "expired", "days_left": -1}),
        r"expired certificate \(studio-workstation\)",
        "vpn-renew",
    ),
    "crl": (lambda w: w.pki["revocations"].update(days_left=-1), r"revocation list \(CRL\)", "vpn-renew"),
    "clock": (
        lambda w: w.said.update({("manager", "clock"): {"ok": True, "now": NOW - 400 * 86400}}),
        "wrong clock: manager is 34560000 s behind",
        "w32tm /resync",
    ),
    "service": (
        lambda w: w.said.update({("ws", "OpenVPN"): {"ok": False, "service": "stopped", "logs": {}}}),
        "OpenVPN service of ws is stopped",
        "Start-Service OpenVPNService",
    ),
    "refused by the server": (
        lambda w: w.said.update(
            {
                ("ws", "OpenVPN"): log("VERIFY ERROR: depth=0, error=certificate revoked: CN=aws-gateway, serial=5\n"),
                ("manager", "OpenVPN"): log(GENERIC),
            }
        ),
        r"certificate of aws-gateway is revoked \(log of ws\)",
        "vpn-renew",
    ),
    "refused by the client": (
        lambda w: w.said.update(
            {("manager", "OpenVPN"): log("VERIFY X509NAME ERROR: CN=other, must be studio-workstation")}
        ),
        r"presents itself as other .*\(log of manager\)",
        "port forward",
    ),
    "port forward": (
        lambda w: w.said.update({("manager", "OpenVPN"): log(GENERIC)}),
        "^port forward missing$",
        r"forward UDP port 1194 \(external\) to 192.168.1.10 port 1194 .* 198.51.100.7",
    ),
    "double NAT": (
        lambda w: w.said.update({("ws", "second hop"): ping(0, 1, [("100.64.0.1", "TTL expired in transit.")])}),
        r"double NAT: .*100\.64\.0\.1",
        "farm_vpn_server_side: cloud",
    ),
    "manager out of reach": (
        lambda w: w.silent.update(manager="ntlm: connect timeout"),
        "^port forward missing$",
        "forward UDP port 1194",
    ),
}


@pytest.mark.parametrize("name", TUNNEL_DOWN)
def test_tunnel_down(name: str) -> None:
    break_it, cause, remedy = TUNNEL_DOWN[name]
    world = World(blocked=[across])
    break_it(world)
    named = main_cause(world)
    assert re.search(cause, named[0]), named
    assert re.search(remedy, named[1]), named
    failed = world.failed()
    assert {"tunnel", "ping", "path MTU", "port"} <= {row["check"] for row in failed}
    assert all(row["cause"] and row["remedy"] for row in failed)
    # Within the cloud and within the studio everything goes on.
    assert not [row for row in failed if row["check"] == "ping" and {row["from"], row["to"]} <= {"ws", "controller"}]
    forwarded = next(row for row in world.rows() if row["check"] == "port forward")
    assert forwarded["ok"] is not (name in ("port forward", "double NAT", "manager out of reach"))


CLOUD_SIDE: dict[str, tuple[Callable[[World], None], str]] = {
    "no public address": (lambda w: setattr(w, "public", ""), "manager has no public address"),
    "security group": (lambda w: None, "security group studio-manager does not let UDP port 1194 in from anywhere"),
    "studio": (
        lambda w: w.groups.append(group("manager", [permission("udp", 1194, 1194, "0.0.0.0/0")])),
        "the studio lets no UDP out",
    ),
}


@pytest.mark.parametrize("name", CLOUD_SIDE)
def test_tunnel_down_with_the_server_in_the_cloud(name: str) -> None:
    break_it, cause = CLOUD_SIDE[name]
    world = World(blocked=[across], settings=data(server_side="cloud"))
    break_it(world)
    assert cause in main_cause(world)[0]
    assert not [row for row in world.rows() if row["check"] == "port forward"]


def without(route: str) -> Callable[[World], None]:
    return lambda world: world.routes.pop(route) and None


NODES: dict[str, tuple[Callable[[World], None], str, str]] = {
    "source check": (
        lambda w: setattr(w, "source_check", True),
        "source/destination check is on",
        "modify-network-interface-attribute --network-interface-id eni-1 --no-source-dest-check",
    ),
    "route missing": (
        without(LAN),
        f"VPC route missing: rtb-1 has no route to {LAN}",
        f"create-route --route-table-id rtb-1 --destination-cidr-block {LAN} --network-interface-id eni-1",
    ),
    "route of the tunnel missing": (without(TUNNEL), f"has no route to {TUNNEL}", "create-route"),
    "route elsewhere": (
        lambda w: w.routes.update({LAN: ("eni-9", "active")}),
        f"VPC route to {LAN} does not lead to the manager",
        "replace-route",
    ),
    "black hole": (lambda w: w.routes.update({LAN: ("eni-1", "blackhole")}), "is a blackhole", "replace-route"),
    "security group": (
        lambda w: w.groups.__setitem__(1, group("render_node", [permission("icmp", -1, -1, CLOUD)])),
        f"security group studio-render_node does not let ICMP in from {LAN}",
        "farm-up.yml",
    ),
    "forwarding": (
        lambda w: w.said.update({("manager", "forwarding"): {"ok": False, "enabled": False}}),
        "forwarding is off on manager",
        "farm-up.yml",
    ),
    "firewall": (lambda w: None, "firewall of node-1: it answers the manager, but not controller", LAN),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_and_studio_do_not_reach_each_other(name: str) -> None:
    break_it, cause, remedy = NODES[name]
    world = World(blocked=[nodes])
    break_it(world)
    failed = world.failed()
    found = (
        next(row for row in failed if (row["check"], row["from"], row["to"]) == ("ping", "controller", "node-1"))
        if (name != "route of the tunnel missing")
        else next(row for row in failed if (row["check"], row["from"], row["to"]) == ("ping", "ws", "node-1"))
    )
    assert cause in found["cause"] and remedy in found["remedy"]
    assert not [row for row in failed if row["check"] == "ping" and "node" not in row["from"] + row["to"]]


def test_what_ec2_says_fails_even_if_nobody_noticed() -> None:
    failed = World(source_check=True, routes={}).failed()
    assert [(row["check"], row["required"]) for row in failed] == [("source check", True)] + [("VPC route", True)] * 2


def test_route_missing_in_the_studio() -> None:
    world = World(blocked=[studio])
    routes = [{"network": "0.0.0.0/0", "gateway": "192.168.1.1"}]
    world.said["controller", "routes"] = {"ok": True, "routes": routes}
    cause, remedy = main_cause(world)
    assert cause == "route missing in the studio (controller and its router)"
    assert "route -p ADD 10.0.0.0 MASK 255.255.255.0 192.168.1.10 METRIC 1" in remedy
    assert "destination 10.0.0.0, mask 255.255.255.0, gateway 192.168.1.10" in remedy
    advice = next(row for row in world.failed() if row["check"] == "route")
    assert advice["required"] is False


def test_route_only_in_a_router_that_drops_half_connections() -> None:
    """Pings pass, no connection does."""
    world = World(blocked=[lambda asker, target, probe: studio(asker, target, probe) and probe["kind"] == "tcp"])
    world.said["controller", "routes"] = {"ok": True, "routes": []}
    world.second["controller"] = {"ok": False, "error": "nothing passes any more"}
    causes = {row["cause"] for row in world.failed() if row["check"] == "port"}
    assert causes == {"route only in the home router, which drops connections that it sees one half of"}
    transfers = [row["cause"] for row in world.failed() if row["check"] == "transfer"]
    assert len(transfers) == 2 and all("route missing" in cause for cause in transfers)


def test_workstation_does_not_forward() -> None:
    world = World(blocked=[studio])
    world.said["ws", "forwarding"] = {"ok": False, "enabled": False}
    assert "forwarding is off on ws" in main_cause(world)[0]


@pytest.mark.parametrize(
    ("small", "large", "cause"),
    [
        (0, False, "path MTU: packets of the tunnel's size vanish"),
        (2, False, "ICMP 'fragmentation needed' is filtered"),
    ],
)
def test_path_mtu(small: int, large: bool, cause: str) -> None:
    def lost(asker: str, target: str, probe: dict[str, Any]) -> bool:
        return across(asker, target, probe) and (probe.get("size") == 1472 or (not small and probe.get("size") == 1372))

    failed = World(blocked=[lost]).failed()
    assert {row["check"] for row in failed} == {"path MTU"} and all(cause in row["cause"] for row in failed)


def test_larger_packets_may_pass() -> None:
    world = World()
    original = world.answer
    world.answer = lambda asker, question: (  # type: ignore[method-assign]
        ping(2, 2) if question.probe.get("size") == 1472 else original(asker, question)
    )
    assert world.failed() == []


PORTS: dict[str, tuple[str, Callable[[World], None], str]] = {
    "refused": ("refused", lambda w: None, "Backburner Server: nothing listens on port 3233 of node-1"),
    "firewall": ("silent", lambda w: None, "firewall of node-1: it does not answer (TCP port 3233)"),
    "security group": (
        "silent",
        lambda w: w.groups.__setitem__(1, group("render_node", [permission("icmp", -1, -1, CLOUD, LAN, TUNNEL)])),
        f"the security group studio-render_node does not let TCP port 3233 in from {LAN}",
    ),
}


@pytest.mark.parametrize("name", PORTS)
def test_ports(name: str) -> None:
    error, break_it, cause = PORTS[name]
    world = World()
    break_it(world)
    original = world.answer
    world.answer = lambda asker, question: (  # type: ignore[method-assign]
        {"ok": False, "error": error} if question.probe.get("port") == 3233 else original(asker, question)
    )
    found = next(row for row in world.failed() if (row["check"], row["from"]) == ("port", "controller"))
    assert cause in found["cause"]


def test_name_clock_and_speed() -> None:
    world = World(settings=data(least_mbit=100))
    world.said["ws", "name"] = {"ok": False, "addresses": []}
    world.said["manager", "name"] = {"ok": False, "addresses": ["10.0.0.99"]}
    world.said["controller", "clock"] = {"ok": True, "now": NOW + 301}
    causes = {(row["check"], row["from"]): row["cause"] for row in world.failed()}
    assert causes["name", "ws"] == "ws does not know the name"
    assert causes["name", "manager"] == "another address for the name"
    assert causes["clock", "controller"] == "wrong clock: controller is 301 s ahead"
    assert causes["transfer", "manager"].startswith("slower than link_check_least_mbit (100 Mbit/s)")


def test_lost_packets() -> None:
    world = World()
    original = world.answer
    world.answer = lambda asker, question: (  # type: ignore[method-assign]
        ping(2, 3)
        if (asker, question.check, question.target) == ("ws", "ping", "manager")
        else original(asker, question)
    )
    (row,) = world.failed()
    assert row["cause"] == "packets are lost on the way" and row["detail"].startswith("2/3")


def test_machine_that_ansible_does_not_reach_while_the_tunnel_stands() -> None:
    world = World(silent={"manager": "credentials rejected"})
    failed = world.failed()
    row = next(row for row in failed if row["check"] == "answers")
    assert (row["to"], row["detail"], row["cause"]) == (
        "manager",
        "credentials rejected",
        "Ansible does not reach manager",
    )
    transfer = next(row for row in failed if row["check"] == "transfer")
    assert transfer["detail"].startswith("not tried") and transfer["cause"] == row["cause"]


def test_problems_say_each_cause_once() -> None:
    rows = World(blocked=[across]).rows()
    problems = link_verdict.problems(rows)
    assert len(problems) == 1 and problems[0]["failures"] == len([row for row in rows if not row["ok"]])
    assert problems[0]["required"] is True and {"tunnel", "ping"} <= set(problems[0]["checks"])
    assert link_verdict.problems(World().rows()) == []
