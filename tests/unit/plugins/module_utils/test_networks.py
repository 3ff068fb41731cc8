"""The address plan: subnets for zones, and every mistake in the networks found and told."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import networks
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = {
    "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
    "farm_remote_network": "10.9.0.0/24",
    "farm_manager_address": "10.0.0.10",
    "farm_zones": ["eu-central-1a"],
    "farm_nodes": 5,
}


def problems(**changes: Any) -> list[str]:
    return networks.network_problems({**SETTINGS, **changes})


# -------------------------------------------------------------------------------------------------------------- subnets


def test_free_addresses_are_neither_reserved_nor_taken():
    free = networks.free_addresses(IPv4Network("10.0.0.0/24"), ["10.0.0.10", "10.0.0.77"])
    assert len(free) == networks.usable_addresses(IPv4Network("10.0.0.0/24")) - 2
    assert not any(networks.is_reserved(address, IPv4Network("10.0.0.0/24")) for address in free)
    assert not {"10.0.0.10", "10.0.0.77"} & {str(address) for address in free}


@pytest.mark.parametrize(
    ("network", "count", "expected"),
    [
        ("10.0.0.0/24", 1, ["10.0.0.0/24"]),
        ("10.0.0.0/24", 2, ["10.0.0.0/25", "10.0.0.128/25"]),
        ("10.0.0.0/24", 3, ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"]),
        ("10.0.0.0/16", 4, ["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18", "10.0.192.0/18"]),
        ("10.0.0.0/28", 1, ["10.0.0.0/28"]),
    ],
)
def test_the_network_is_divided_by_the_next_power_of_two(network, count, expected):
    divided = networks.zone_subnets(IPv4Network(network), list("abcdef")[:count])
    assert [(zone, str(subnet)) for zone, subnet in divided] == list(zip("abcdef", expected, strict=False))


@given(prefix=st.integers(16, 28), zones=st.integers(1, 8))
def test_subnets_are_equal_disjoint_and_inside_or_refused(prefix, zones):
    network = IPv4Network(("10.0.0.0", prefix))
    names = [f"zone{n}" for n in range(zones)]
    try:
        divided = networks.zone_subnets(network, names)
    except networks.NetworkError as error:
        assert "too small" in str(error)
        assert prefix + (zones - 1).bit_length() > 28
        return
    subnets = [subnet for _, subnet in divided]
    assert [zone for zone, _ in divided] == names
    assert subnets[0].network_address == network.network_address
    assert all(subnet.subnet_of(network) for subnet in subnets)
    assert len({subnet.prefixlen for subnet in subnets}) == 1
    assert sum(subnet.num_addresses for subnet in subnets) <= network.num_addresses
    assert len(set(subnets)) == zones


def test_no_zone_is_refused():
    with pytest.raises(networks.NetworkError, match="name at least one"):
        networks.zone_subnets(IPv4Network("10.0.0.0/24"), [])


def test_reserved_addresses():
    subnet = IPv4Network("10.0.0.0/24")
    assert [n for n in range(256) if networks.is_reserved(subnet[n], subnet)] == [0, 1, 2, 3, 255]
    assert networks.usable_addresses(subnet) == 251


# ------------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"farm_remote_network": None},
        {"farm_nodes": None},
        {"farm_nodes": "249"},
        {"farm_zones": ["a", "b", "c"]},
        {"farm_cloud_network": "10.0.0.0/16", "farm_nodes": 1000},
        {"farm_lan_network": "172.16.0.0/12"},
        {"farm_manager_address": "10.0.0.4"},
        {"farm_manager_address": "10.0.0.254"},
    ],
)
def test_good_settings_have_no_problems(changes):
    assert problems(**changes) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"farm_lan_network": "10.0.0.0/16"},
            ["farm_lan_network (10.0.0.0/16) and farm_cloud_network (10.0.0.0/24) overlap"],
        ),
        (
            {"farm_tunnel_network": "10.0.0.128/25"},
            ["farm_cloud_network", "overlap", "for example farm_tunnel_network: 10.8.0.0/24"],
        ),
        ({"farm_remote_network": "10.8.0.0/24"}, ["farm_tunnel_network and farm_remote_network are both 10.8.0.0/24"]),
        ({"farm_cloud_network": "10.0.0.0/24", "farm_lan_network": "10.0.0.0/24"}, ["are both 10.0.0.0/24"]),
        ({"farm_lan_network": "192.168.1.7/24"}, ["an address inside 192.168.1.0/24: write 192.168.1.0/24"]),
        ({"farm_lan_network": "192.168.1.0"}, ["lacks a prefix length"]),
        ({"farm_lan_network": "192.168.1.0/255.255.255.0"}, ["lacks a prefix length"]),
        ({"farm_lan_network": "fd00::/64"}, ["not an IPv4 network", "for example farm_lan_network: 192.168.1.0/24"]),
        ({"farm_lan_network": "192.168.1.0/33"}, ["not an IPv4 network"]),
        ({"farm_lan_network": None}, ["farm_lan_network is not set"]),
        ({"farm_tunnel_network": ""}, ["farm_tunnel_network is not set"]),
        ({"farm_cloud_network": ["10.0.0.0/24"]}, ["not an IPv4 network"]),
        ({"farm_cloud_network": "10.128.0.0/12"}, ["a VPC is at most /16", "10.128.0.0/16"]),
        ({"farm_cloud_network": "10.0.0.0/29"}, ["too small", "/28 or larger"]),
        (
            {"farm_cloud_network": "10.0.0.0/27", "farm_zones": list("abc")},
            ["too small for 3 subnets", "/26 or larger"],
        ),
        ({"farm_zones": []}, ["farm_zones is []", "for example farm_zones: [eu-central-1a]"]),
        ({"farm_zones": "eu-central-1a"}, ["no list of zones"]),
        ({"farm_zones": None}, ["no list of zones"]),
        ({"farm_zones": ["a", "a"]}, ["names a twice"]),
        ({"farm_manager_address": "10.0.1.10"}, ["outside 10.0.0.0/24", "for example farm_manager_address: 10.0.0.10"]),
        ({"farm_manager_address": "10.0.0.130", "farm_zones": ["a", "b"]}, ["outside 10.0.0.0/25"]),
        ({"farm_manager_address": "10.0.0.3"}, ["keeps the first 4 addresses"]),
        ({"farm_manager_address": "10.0.0.255"}, ["the last one of 10.0.0.0/24"]),
        ({"farm_manager_address": "manager"}, ["not an IPv4 address"]),
        ({"farm_manager_address": None}, ["not an IPv4 address"]),
        ({"farm_nodes": 250}, ["room for 249 nodes", "farm_nodes: 249 or farm_cloud_network: 10.0.0.0/23"]),
        ({"farm_nodes": 1000, "farm_zones": ["a", "b"]}, ["over 2 zones has room for 244 nodes", "10.0.0.0/22"]),
        ({"farm_nodes": -1}, ["not a number from 0 up"]),
        ({"farm_nodes": "many"}, ["not a number from 0 up"]),
    ],
)
def test_each_mistake_is_one_message_with_setting_value_and_example(changes, words):
    found = problems(**changes)
    assert len(found) == 1, found
    for word in words:
        assert word in found[0]
    assert "for example" in found[0]


def test_all_mistakes_are_told_at_once():
    found = problems(farm_lan_network="x", farm_tunnel_network="10.0.0.0/25", farm_manager_address="10.0.0.0")
    assert len(found) == 3


def test_nothing_set_at_all():
    found = networks.network_problems({})
    assert [message.split()[0] for message in found] == [
        "farm_lan_network",
        "farm_cloud_network",
        "farm_tunnel_network",
    ]


@given(
    one=st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30)),
    other=st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30)),
)
def test_networks_that_share_an_address_are_always_found(one, other):
    lan, tunnel = (IPv4Network(pair, strict=False) for pair in (one, other))
    found = networks.network_problems(
        {**SETTINGS, "farm_lan_network": str(lan), "farm_tunnel_network": str(tunnel), "farm_remote_network": None}
    )
    told = any("farm_lan_network" in m and "farm_tunnel_network" in m for m in found)
    assert told == lan.overlaps(tunnel)


def test_a_network_that_leaves_no_room_for_an_example_is_to_be_smaller():
    found = problems(farm_lan_network="0.0.0.0/0")
    assert len(found) == 3
    assert all("use another one, and a smaller farm_lan_network" in text for text in found)
