"""Which machine is asked what, and what the router must have."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.renderfarm.cloud.plugins.filter import link as filters
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import link

from farmnode.probe import _checked

HOSTS: dict[str, dict[str, Any]] = {
    "studio-workstation": {"ansible_host": "192.168.1.10"},
    "studio-manager": {"farm_private_ip": "10.0.0.10"},
    **{f"node-{n}": {"farm_private_ip": f"10.0.0.2{n}", "farm_state": "running"} for n in (1, 2, 3)},
    "node-0": {"farm_private_ip": "10.0.0.20", "farm_state": "pending"},
    "remote-1": {"farm_tunnel_address": "10.9.0.5"},
    "remote-2": {},
}
OWN = ["172.17.0.1", "192.168.1.5"]
GROUPS = {
    "workstation": ["studio-workstation"],
    "manager": ["studio-manager"],
    "render_nodes": ["node-3", "node-0", "node-2", "node-1"],
    "remote_nodes": ["remote-2", "remote-1"],
}


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "server_side": "studio",
        "endpoint": "studio.example.net",
        "port": 1194,
        "lan_network": "192.168.1.0/24",
        "cloud_network": "10.0.0.0/24",
        "tunnel_network": "10.8.0.0/24",
        "remote_network": "10.9.0.0/24",
        "points": filters.link_points(GROUPS, HOSTS, OWN, "10.0.0.10", 2, {"pc": "192.168.1.20"}),
        "ports": {"manager": {"3234": "Backburner Manager"}, "node": {3233: "Backburner Server"}},
        "names": {"manager": "10.0.0.10"},
        "megabytes": 1.5,
        **changes,
    }


def test_points() -> None:
    points = link.settings_from(settings()).points
    assert [(point.name, point.kind, str(point.address), point.host) for point in points] == [
        ("controller", "controller", "192.168.1.5", "localhost"),
        ("studio-workstation", "workstation", "192.168.1.10", "studio-workstation"),
        ("pc", "pc", "192.168.1.20", ""),
        ("studio-manager", "manager", "10.0.0.10", "studio-manager"),
        ("node-1", "node", "10.0.0.21", ""),
        ("node-2", "node", "10.0.0.22", ""),
        ("remote-1", "remote", "10.9.0.5", "remote-1"),
    ]


def test_controller_elsewhere_is_left_out() -> None:
    changed = settings(points=filters.link_points(GROUPS, HOSTS, ["172.17.0.1"], "10.0.0.10", 2, {}))
    assert "localhost" not in filters.link_questions(changed)


def test_workstation_with_linux() -> None:
    hosts = HOSTS | {"studio-workstation": {"ansible_host": "ws.local", "farm_workstation_address": "192.168.1.11"}}
    groups = GROUPS | {"workstation_linux": ["studio-workstation"]}
    ports = {"workstation": {445: "file sharing"}}
    changed = settings(points=filters.link_points(groups, hosts, OWN, "10.0.0.10", 2, {}), ports=ports)
    parsed = link.settings_from(changed)
    workstation = parsed.by_name("studio-workstation")
    assert workstation.linux and str(workstation.address) == "192.168.1.11"
    asked = link.first_round(parsed)
    assert not [question for question in asked["studio-manager"] if question.check == "port"]
    assert not [question for question in asked["studio-workstation"] if question.check == "name"]


def test_first_round() -> None:
    plan = filters.link_questions(settings())
    assert set(plan) == {"localhost", "studio-workstation", "studio-manager", "remote-1"}
    for probes in plan.values():
        for probe in probes:
            _checked(probe, "here")  # farmnode takes every one of them
    kinds = [probe["kind"] for probe in plan["studio-workstation"]]
    assert {"openvpn", "forwarding", "clock", "routes", "name"} <= set(kinds)
    mtu = [probe for probe in plan["studio-workstation"] if probe.get("df")]
    assert [(probe["address"], probe["size"]) for probe in mtu] == [
        (address, size) for address in ("10.0.0.10", "10.0.0.21", "10.9.0.5") for size in (1372, 1472)
    ]
    assert not {"openvpn", "name"} & {probe["kind"] for probe in plan["localhost"]}


def test_every_pair_is_pinged() -> None:
    parsed = link.settings_from(settings())
    for host, asked in link.first_round(parsed).items():
        pinged = {question.target for question in asked if question.check == "ping"}
        assert pinged == {point.name for point in parsed.points if point.host != host}


def answers(*reached: str) -> dict[str, Any]:
    """Everybody answered; the hosts in ``reached`` have had answers of the manager."""
    parsed = link.settings_from(settings())
    return {
        host: {
            "results": [
                {"received": 3 if host in reached and question.target == "studio-manager" else 0} for question in asked
            ]
        }
        for host, asked in link.first_round(parsed).items()
    }


def test_second_round_is_between_those_who_reach_each_other() -> None:
    plan = filters.link_questions(settings(), answers("localhost", "studio-workstation"))
    assert set(plan) == {"studio-manager", "localhost", "studio-workstation"}
    (listen,) = plan["studio-manager"]
    assert (listen["kind"], listen["transfers"]) == ("listen", 4)
    assert listen["networks"] == ["192.168.1.0/24", "10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24"]
    assert [(probe["kind"], probe["address"], probe["bytes"]) for probe in plan["localhost"]] == [
        ("send", "10.0.0.10", 1_500_000),
        ("receive", "10.0.0.10", 1_500_000),
    ]
    for probes in plan.values():
        for probe in probes:
            _checked(probe, "here")


def test_second_round_without_manager_or_without_anyone() -> None:
    said = answers("localhost")
    assert filters.link_questions(settings(), answers()) == {}
    assert filters.link_questions(settings(), said | {"studio-manager": {"msg": "unreachable"}}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server_side": "both"}, "server_side is 'both': studio or cloud"),
        ({"points": [{"name": "a", "kind": "printer", "addresses": ["10.0.0.1"]}]}, "kind is 'printer'"),
        ({"points": [{"name": "a", "kind": "pc", "addresses": []}]}, "a has no address"),
        ({"points": [{"name": "a", "kind": "pc", "addresses": ["192.168.1.1"]}] * 2}, "a is there twice"),
        ({"points": [{"name": "a", "kind": "pc", "addresses": ["ws.local"]}]}, "ws.local"),
        ({"lan_network": "x"}, "x"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        filters.link_questions(settings(**changes))


def test_missing_setting() -> None:
    incomplete = settings()
    del incomplete["port"]
    with pytest.raises(AnsibleFilterError, match="lack 'port'"):
        filters.link_questions(incomplete)


def test_router_lines() -> None:
    lines = filters.link_router_lines(settings(port=1195))
    texts = [line["line"] for line in lines]
    forward = "forward UDP port 1195 (external) to 192.168.1.10 port 1195 (internal), protocol UDP, for any source"
    assert texts[0] == forward and lines[0]["where"] == "home router"
    for network in ("10.0.0.0", "10.8.0.0", "10.9.0.0"):
        assert f"route -p ADD {network} MASK 255.255.255.0 192.168.1.10 METRIC 1" in texts
        assert f"ip route replace {network}/24 via 192.168.1.10" in texts
        assert f"static route: destination {network}, mask 255.255.255.0, gateway 192.168.1.10" in texts


def test_router_needs_no_forward_when_the_cloud_listens() -> None:
    assert not [line for line in filters.link_router_lines(settings(server_side="cloud")) if "forward" in line["what"]]


def test_filters_are_documented() -> None:
    from pathlib import Path

    folder = Path(filters.__file__).parent
    assert {name for name in filters.FilterModule().filters() if not (folder / f"{name}.yml").is_file()} == set()


def test_short_check_asks_each_machine_once() -> None:
    short = link.settings_from(settings(full=False))
    asked = link.first_round(short)
    said = {host: {"results": [{"ok": True, "received": 2, "sent": 2} for _ in asked[host]]} for host in asked}
    assert link.second_round(short, link.Answers(asked, said)) == {}
    pings = [question.probe["count"] for question in asked["studio-manager"] if question.check == "ping"]
    assert set(pings) == {link.PINGS_SHORT}
    full = link.settings_from(settings())
    assert "studio-manager" in link.second_round(full, link.Answers(link.first_round(full), said))
