"""Mistakes in the settings of a tunnel's ends are told before anything is written."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import tunnel_settings
from ansible_collections.renderfarm.cloud.plugins.module_utils.networks import NetworkError
from hypothesis import given
from hypothesis import strategies as st

CLIENT = {"name": "aws-gateway", "address": "10.8.0.2", "networks": ["10.0.0.0/24", "10.9.0.0/24"]}
SERVER = {
    "instance": "studio",
    "name": "studio-workstation",
    "port": 1194,
    "network": "10.8.0.0/24",
    "networks": ["192.168.1.0/24"],
    "clients": [CLIENT],
}
GATEWAY = {
    "instance": "studio",
    "name": "aws-gateway",
    "server_name": "studio-workstation",
    "endpoint": "studio.example.net",
    "port": 1194,
}
FARM = {
    "farm_vpn_server_side": "studio",
    "farm_vpn_port": "1194",
    "farm_studio_endpoint": "198.51.100.7",
    "farm_workstation_address": "192.168.1.10",
    "farm_lan_network": "192.168.1.0/24",
}


def test_good_settings_are_fine() -> None:
    assert tunnel_settings.server_problems(SERVER) == []
    assert tunnel_settings.server_problems(SERVER | {"networks": [], "clients": []}) == []
    assert tunnel_settings.client_problems(GATEWAY) == []
    assert tunnel_settings.farm_problems(FARM) == []
    assert tunnel_settings.farm_problems(FARM | {"farm_vpn_server_side": "cloud"}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instance": "../x"}, "openvpn_server_instance is '../x': 1 to 63 letters"),
        ({"instance": "con"}, "device of Windows"),
        ({"name": "a\nup x"}, "openvpn_server_name"),
        ({"name": "workstation\n"}, "openvpn_server_name"),
        ({"name": None}, "openvpn_server_name is None"),
        ({"port": 0}, "openvpn_server_port is 0: a port from 1 to 65535, for example openvpn_server_port: 1194"),
        ({"port": 65536}, "openvpn_server_port"),
        ({"port": "1194 x"}, "openvpn_server_port"),
        ({"port": True}, "openvpn_server_port is True"),
        ({"network": "10.8.0.0"}, "openvpn_server_network is '10.8.0.0', which lacks a prefix length"),
        ({"network": "10.8.0.1/24"}, "write 10.8.0.0/24"),
        ({"network": "10.8.0.0/30"}, "a prefix from /16 to /29"),
        (
            {"network": "192.168.1.0/25", "clients": []},
            "(192.168.1.0/25) and openvpn_server_networks[0] (192.168.1.0/24)",
        ),
        ({"networks": "192.168.1.0/24"}, "a list of networks"),
        ({"networks": ["0.0.0.0/0"]}, "which is everything"),
        ({"networks": ["10.0.0.0/8"]}, "overlap"),
        ({"clients": "aws-gateway"}, "openvpn_server_clients is 'aws-gateway': a list of name, address and networks"),
        ({"clients": [CLIENT | {"name": "x.ovpn"}]}, "not ending in .ovpn"),
        ({"clients": [CLIENT | {"name": "STUDIO-workstation"}]}, "the server's own name"),
        ({"clients": [CLIENT | {"address": "10.8.0.1"}]}, "10.8.0.1, the server's, for example 10.8.0.2"),
        ({"clients": [CLIENT | {"address": "10.8.0.255"}]}, "an address in 10.8.0.0/24"),
        ({"clients": [CLIENT | {"address": "10.9.0.2"}]}, "an address in 10.8.0.0/24"),
        ({"clients": [CLIENT | {"networks": ["192.168.1.0/24"]}]}, "overlap"),
        ({"clients": [CLIENT, CLIENT | {"name": "AWS-gateway", "networks": []}]}, "the name 'aws-gateway' twice"),
        ({"clients": [CLIENT, CLIENT | {"name": "b", "networks": []}]}, "the address '10.8.0.2' twice"),
    ],
)
def test_mistakes_of_a_server(changes: dict[str, Any], said: str) -> None:
    assert said in " ".join(tunnel_settings.server_problems(SERVER | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"endpoint": "studio.example.net 1194"},
            "vpn_gateway_endpoint is 'studio.example.net 1194': a public name or",
        ),
        ({"endpoint": "198.51.100"}, "vpn_gateway_endpoint"),
        ({"endpoint": "198.51.100.256"}, "vpn_gateway_endpoint"),
        ({"endpoint": "-x.net"}, "vpn_gateway_endpoint"),
        ({"endpoint": "a..net"}, "vpn_gateway_endpoint"),
        ({"endpoint": ""}, "vpn_gateway_endpoint"),
        ({"endpoint": None}, "vpn_gateway_endpoint"),
        ({"port": -1}, "vpn_gateway_port"),
        ({"name": "a b"}, "vpn_gateway_name"),
        ({"server_name": "AWS-gateway"}, "are both 'aws-gateway'"),
        ({"server_name": "x; up evil"}, "vpn_gateway_server_name"),
    ],
)
def test_mistakes_of_a_client(changes: dict[str, Any], said: str) -> None:
    assert said in " ".join(tunnel_settings.client_problems(GATEWAY | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"farm_vpn_server_side": "lan"}, "farm_vpn_server_side is 'lan': studio or cloud"),
        ({"farm_vpn_port": "x"}, "farm_vpn_port"),
        ({"farm_studio_endpoint": "x y"}, "farm_studio_endpoint"),
        ({"farm_workstation_address": "192.168.2.10"}, "an address of a machine in 192.168.1.0/24"),
        ({"farm_workstation_address": "192.168.1.255"}, "farm_workstation_address"),
    ],
)
def test_mistakes_of_the_farm(changes: dict[str, Any], said: str) -> None:
    assert said in " ".join(tunnel_settings.farm_problems(FARM | changes))


def test_networks_elsewhere() -> None:
    assert tunnel_settings.elsewhere(["192.168.1.0/24", "10.0.0.0/24"], "10.0.0.10") == ["192.168.1.0/24"]
    for networks, address in ((["x"], "10.0.0.10"), (["10.0.0.0/24"], "x")):
        with pytest.raises(NetworkError, match="'x'"):
            tunnel_settings.elsewhere(networks, address)


REMOTE = FARM | {
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
    "farm_remote_network": "10.9.0.0/24",
    "farm_remote_nodes": "2",
    "farm_remote_vpn_port": 1195,
    "farm_remote_vpc_network": "172.31.0.0/24",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"farm_remote_nodes": "-1"}, "farm_remote_nodes is '-1': 0 to 100"),
        ({"farm_remote_nodes": 101}, "farm_remote_nodes is '101'"),
        ({"farm_remote_vpn_port": 0}, "farm_remote_vpn_port is 0"),
        ({"farm_remote_vpn_port": "1194", "farm_vpn_server_side": "cloud"}, "cannot listen twice on one port"),
        ({"farm_remote_network": "10.9.0.0/30"}, "no room for 2 remote nodes"),
        ({"farm_remote_network": ""}, "farm_remote_network is not set"),
        ({"farm_remote_vpc_network": "172.31.0.1/24"}, "write 172.31.0.0/24"),
        ({"farm_remote_vpc_network": "172.0.0.0/8"}, "a prefix from /16 to /28"),
        ({"farm_remote_vpc_network": "172.31.0.0/28", "farm_remote_nodes": 12}, "has room for 11 machines, not for 12"),
        ({"farm_remote_vpc_network": "10.0.0.0/16"}, "and farm_cloud_network (10.0.0.0/24) overlap"),
        ({"farm_remote_vpc_network": "192.168.0.0/16"}, "and farm_lan_network (192.168.1.0/24) overlap"),
    ],
)
def test_mistakes_of_remote_nodes(changes: dict[str, Any], said: str) -> None:
    assert tunnel_settings.farm_problems(REMOTE) == []
    assert said in " ".join(tunnel_settings.farm_problems(REMOTE | changes))


def test_without_remote_nodes_their_settings_do_not_matter() -> None:
    assert tunnel_settings.farm_problems(REMOTE | {"farm_remote_nodes": 0, "farm_remote_vpc_network": "x"}) == []


def test_remote_nodes_get_the_lowest_free_numbers() -> None:
    nodes = [
        {"id": "i-c", "number": "2", "since": "1"},
        {"id": "i-b", "number": "", "since": "3"},
        {"id": "i-a", "since": "2"},
    ]
    assert tunnel_settings.numbered(nodes) == [{"id": "i-a", "number": 1}, {"id": "i-b", "number": 3}]
    assert tunnel_settings.numbered([]) == []
    with pytest.raises(ValueError, match="two remote nodes have the number 2"):
        tunnel_settings.numbered([*nodes, {"id": "i-d", "number": "2"}])


def test_a_bad_lan_is_told_elsewhere() -> None:
    assert tunnel_settings.farm_problems(FARM | {"farm_lan_network": "x"}) == []


@given(text=st.text(max_size=80))
def test_no_text_that_passes_is_more_than_one_word(text: str) -> None:
    for key in ("instance", "name", "server_name", "endpoint", "port"):
        if tunnel_settings.client_problems(GATEWAY | {key: text}) == []:
            assert text.isascii() and text.split() == [text] and not set(text) & set("\"'#;\\/<>")
