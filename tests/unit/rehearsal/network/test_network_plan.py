"""Names, addresses and routes that follow from the cloud's records."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from rehearsal.interfaces import RehearsalError, RouteView
from rehearsal.network import plan
from tests.unit.rehearsal.views import SUBNET, VPC, interface, view

UPLINK = plan.Uplink.number(0)
ALL = IPv4Network("0.0.0.0/0")
LAN = IPv4Network("192.168.1.0/24")


def wanted(*routes: RouteView, state: str = "running") -> dict[str, str]:
    now = view(routes=routes)
    now = replace(now, instances=tuple(replace(item, state=state) for item in now.instances))  # type: ignore[arg-type]
    known = plan.subnets(now.vpcs[0], {SUBNET: 0})
    return {
        str(key[1]): f"{route.kind} {route.way}".strip()
        for key, route in plan.routes(now.vpcs[0], now, known, UPLINK).items()
    }


def test_names_of_interfaces_fit_into_the_kernels_fifteen_characters() -> None:
    assert plan.bridge_name(SUBNET) == "br-00000000001"
    assert len(plan.port_name("eni-0123456789abcdef0")) <= 15


def test_local_reaches_the_subnets_and_swallows_the_rest_of_the_vpc() -> None:
    routes = wanted(RouteView(IPv4Network("10.0.0.0/16"), "local"))
    assert routes == {"10.0.0.0/16": "blackhole", "10.0.0.0/24": "unicast dev br-00000000001"}


def test_routes_lead_to_gateway_and_interface() -> None:
    eni = interface(1).interface_id
    routes = wanted(RouteView(ALL, "igw-1"), RouteView(LAN, eni), RouteView(IPv4Network("10.8.0.0/24"), "blackhole"))
    assert routes == {
        "0.0.0.0/0": "unicast via 198.18.2.1 dev igw",
        "192.168.1.0/24": "unicast via 10.0.0.11 dev br-00000000001 onlink",
        "10.8.0.0/24": "blackhole",
    }


def test_a_route_to_a_stopped_instance_is_a_black_hole() -> None:
    assert wanted(RouteView(LAN, interface(1).interface_id), state="stopped") == {"192.168.1.0/24": "blackhole"}


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(RehearsalError, match="leads to nat-1"):
        wanted(RouteView(ALL, "nat-1"))


def test_only_what_changed_is_applied() -> None:
    stays = plan.Route(1000, ALL, "unicast", "via 198.18.2.1 dev igw ")
    goes = plan.Route(1000, LAN, "blackhole", "")
    comes = plan.Route(1000, LAN, "unicast", "via 10.0.0.10 dev br-1 onlink ")
    before = {route.key: route for route in (stays, goes)}
    assert plan.route_changes(before, before) == []
    assert plan.route_changes(before, {stays.key: stays}) == ["route del blackhole 192.168.1.0/24 table 1000"]
    assert plan.route_changes(before, {stays.key: stays, comes.key: comes}) == [
        "route replace unicast 192.168.1.0/24 via 10.0.0.10 dev br-1 onlink table 1000"
    ]


def test_network_card_follows_the_subnet() -> None:
    card = plan.nic(interface(1), view())
    assert (card.address, card.gateway) == (IPv4Address("10.0.0.11"), IPv4Address("10.0.0.1"))
    with pytest.raises(RehearsalError, match="subnet-gone, which does not exist"):
        plan.nic(replace(interface(1), subnet_id="subnet-gone"), view())


def test_each_vpc_has_a_wire_of_its_own() -> None:
    assert plan.Uplink.number(1) == plan.Uplink("vpc1", IPv4Address("198.18.2.5"), IPv4Address("198.18.2.6"))
    with pytest.raises(RehearsalError, match="wires for 128 VPCs"):
        plan.Uplink.number(128)


def test_public_addresses_are_those_of_instances_that_have_one() -> None:
    now = view(count=2)
    public = replace(now.instances[0].interface, public_address=IPv4Address("198.18.20.1"))
    now = replace(now, instances=(replace(now.instances[0], interface=public), now.instances[1]))
    assert plan.public_addresses(VPC, now) == {IPv4Address("10.0.0.11"): IPv4Address("198.18.20.1")}
    assert plan.public_addresses("vpc-other", now) == {}
