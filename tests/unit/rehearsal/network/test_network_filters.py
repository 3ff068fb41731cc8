"""Rulesets: what is written for which records."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from rehearsal.interfaces import CloudView, InterfaceView, RehearsalError, SecurityGroupView, SecurityRule
from rehearsal.network import filters
from tests.unit.rehearsal.views import interface, view

ANYWHERE = (IPv4Network("0.0.0.0/0"),)


def ruleset(*rules: SecurityRule, egress: tuple[SecurityRule, ...] = (), card: InterfaceView | None = None) -> str:
    return filters.security_groups(
        card or interface(1), view(groups={"sg-1": SecurityGroupView("sg-1", rules, egress)}, count=3)
    )


def accepted(text: str, chain: str) -> list[str]:
    """The rules of one chain after the tracking of connections."""
    body = text.split(f"chain {chain} {{")[1].split("}\n")[0]
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    return lines[lines.index("ct state established,related accept") + 1 :]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            SecurityRule("tcp", 5986, 5986, (IPv4Network("198.18.1.2/32"),)),
            "ip saddr { 198.18.1.2/32 } tcp dport 5986 accept",
        ),
        (SecurityRule("udp", 1194, 1195, ANYWHERE), "meta nfproto ipv4 udp dport 1194-1195 accept"),
        (SecurityRule("tcp", 0, 65535, ANYWHERE), "meta nfproto ipv4 meta l4proto tcp accept"),
        (SecurityRule("tcp", -1, -1, ANYWHERE), "meta nfproto ipv4 meta l4proto tcp accept"),
        (SecurityRule("-1", -1, -1, (IPv4Network("10.0.0.0/24"),)), "ip saddr { 10.0.0.0/24 } accept"),
        (SecurityRule("icmp", -1, -1, ANYWHERE), "meta nfproto ipv4 meta l4proto icmp accept"),
        (SecurityRule("icmp", 8, -1, ANYWHERE), "meta nfproto ipv4 icmp type 8 accept"),
        (SecurityRule("icmp", 3, 4, ANYWHERE), "meta nfproto ipv4 icmp type 3 icmp code 4 accept"),
        (
            SecurityRule("tcp", 445, 445, (), ("sg-1",)),
            "ip saddr { 10.0.0.11/32, 10.0.0.12/31 } tcp dport 445 accept",
        ),
    ],
)  # fmt: skip
def test_each_permission_becomes_one_rule(rule: SecurityRule, expected: str) -> None:
    assert accepted(ruleset(rule), "ingress") == [expected, "counter drop"]


def test_egress_names_the_destination() -> None:
    text = ruleset(egress=(SecurityRule("tcp", 443, 443, (IPv4Network("10.0.0.0/8"),)),))
    assert accepted(text, "egress") == ["ip daddr { 10.0.0.0/8 } tcp dport 443 accept", "counter drop"]
    assert accepted(text, "ingress") == ["counter drop"]


def test_a_group_without_members_lets_nobody_in() -> None:
    assert accepted(ruleset(SecurityRule("-1", -1, -1, (), ("sg-empty",))), "ingress") == ["counter drop"]


def test_overlapping_networks_are_merged() -> None:
    rule = SecurityRule("-1", -1, -1, (IPv4Network("10.0.0.0/8"), IPv4Network("10.0.0.0/24")))
    assert accepted(ruleset(rule), "ingress")[0] == "ip saddr { 10.0.0.0/8 } accept"


def test_source_destination_check_is_on_unless_switched_off() -> None:
    assert "ip daddr != 10.0.0.11 counter drop" in ruleset()
    assert "ip saddr != 10.0.0.11 counter drop" in ruleset()
    assert "check" not in ruleset(card=replace(interface(1), source_dest_check=False))


def test_unknown_protocol_and_unknown_group_are_refused() -> None:
    with pytest.raises(RehearsalError, match="not '47'"):
        ruleset(SecurityRule("47", -1, -1, ANYWHERE))
    with pytest.raises(RehearsalError, match="sg-gone, which does not exist"):
        ruleset(card=replace(interface(1), group_ids=("sg-gone",)))


def test_terminated_instances_are_no_members() -> None:
    now = view(count=2)
    gone = replace(now, instances=(replace(now.instances[0], state="terminated"), now.instances[1]))
    assert filters.group_members(gone) == {"sg-1": [IPv4Address("10.0.0.12")]}


def test_gateway_translates_only_public_addresses() -> None:
    text = filters.internet_gateway({IPv4Address("10.0.0.10"): IPv4Address("198.18.20.1")}, outside="igw")
    assert "dnat ip to ip daddr map { 198.18.20.1 : 10.0.0.10 }" in text
    assert "snat ip to ip saddr map { 10.0.0.10 : 198.18.20.1 }" in text
    assert "nat ip to" not in filters.internet_gateway({}, outside="igw")


@pytest.mark.parametrize(
    "text",
    [
        filters.leak_detector(),
        filters.home_router(inside="br0", vpn_port=1194, vpn_server=IPv4Address("192.168.1.10")),
        filters.drop_ports([5985, 5986]),
        filters.internet_gateway({}, outside="igw"),
        filters.security_groups(interface(1), CloudView((), (), (), {"sg-1": SecurityGroupView("sg-1", (), ())})),
    ],
)
def test_every_ruleset_replaces_its_table_in_one_transaction(text: str) -> None:
    first, second, third = text.splitlines()[:3]
    name = first.removeprefix("table ")
    assert second == f"delete table {name}"
    assert third == f"table {name} {{"
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(("limit", "kept"), [(1, True), (2, False)])
def test_with_hop_limit_1_nobody_else_reaches_the_metadata(limit: int, kept: bool) -> None:
    seen = view(groups={"sg-1": SecurityGroupView("sg-1", (), ())}, count=1)
    machine = replace(seen.instances[0], metadata_hop_limit=limit)
    text = filters.security_groups(machine.interface, replace(seen, instances=(machine,)))
    assert ('iifname != "lo" ip daddr 169.254.169.254 counter drop' in text) is kept
