"""The farm's settings, which all three tunnels follow from: refused, or every file of both ends is as it is meant.

The tunnels are the one between studio and cloud, with its server at either side, and that of a remote node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils.networks import network_problems
from ansible_collections.renderfarm.cloud.plugins.module_utils.tunnel_settings import (
    client_problems,
    farm_problems,
    server_problems,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.templates.render import value
from tests.templates.test_allowed_inputs import HOSTILE, anything, check_client, check_server, many, names

SANE: dict[str, Any] = {
    "farm_vpn_server_side": "studio",
    "farm_vpn_port": 1194,
    "farm_studio_endpoint": "studio.example.net",
    "farm_workstation_address": "192.168.1.10",
    "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
    "farm_remote_network": "10.9.0.0/24",
    "farm_remote_nodes": 1,
    "farm_remote_vpn_port": 1195,
    "farm_remote_vpc_network": "172.31.0.0/24",
    "farm_manager_address": "10.0.0.10",
    "farm_zones": ["eu-central-1a"],
}
# As the role remote_nodes sets them.
REMOTE: dict[str, Any] = {
    "openvpn_server_instance": "remote",
    "openvpn_server_name": "aws-gateway-server",
    "openvpn_server_port": "{{ farm_remote_vpn_port }}",
    "openvpn_server_network": "{{ farm_remote_network }}",
    "openvpn_server_networks": ["{{ farm_cloud_network }}", "{{ farm_lan_network }}", "{{ farm_tunnel_network }}"],
    "openvpn_server_clients": [
        {"name": "remote-1", "address": "{{ farm_remote_network | renderfarm.cloud.host_address(2) }}"}
    ],
    "vpn_gateway_instance": "remote",
    "vpn_gateway_name": "remote-1",
    "vpn_gateway_server_name": "aws-gateway-server",
    "vpn_gateway_port": "{{ farm_remote_vpn_port }}",
}
# What only EC2 knows.
CLOUD: dict[str, Any] = {
    "groups": {"manager": ["studio-manager"]},
    "hostvars": {"studio-manager": {"farm_public_ip": "198.18.20.10"}},
}
SERVER = ("instance", "name", "port", "network", "networks", "clients")
CLIENT = ("instance", "name", "server_name", "endpoint", "port")
numbers = st.integers(0, 255)
nets = st.builds(lambda one, two, prefix: f"10.{one}.{two}.0/{prefix}", numbers, numbers, st.integers(16, 28))
fields = st.fixed_dictionaries(
    {},
    optional={
        "farm_vpn_server_side": st.sampled_from(["studio", "cloud"]) | anything,
        "farm_vpn_port": st.integers(1, 65535) | anything,
        "farm_studio_endpoint": names | anything,
        "farm_lan_network": nets | anything,
        "farm_tunnel_network": nets | anything,
        "farm_remote_network": nets | anything,
        "farm_remote_vpn_port": st.integers(1, 65535) | anything,
    },
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


def resolved(role: str, options: tuple[str, ...], variables: dict[str, Any]) -> dict[str, Any]:
    return {name: value(role, f"{role}_{name}", variables) for name in options}


def check(farm: dict[str, Any], pki: Path) -> bool:
    """Whether the settings are allowed; then each role's own check allows what follows, and the files are right."""
    if network_problems(farm) or farm_problems(farm):
        return False
    for further in ({}, REMOTE | {"vpn_gateway_endpoint": "198.18.20.10"}):
        variables = {**CLOUD, **farm, **further}
        server = resolved("openvpn_server", SERVER, variables)
        client = resolved("vpn_gateway", CLIENT, variables)
        assert server_problems(server) == []
        assert client_problems(client) == []
        for each in server["clients"]:
            each.setdefault("networks", [])
        check_server(server, pki)
        check_client(client, pki)
    return True


@pytest.mark.parametrize("side", ["studio", "cloud"])
def test_sane_settings_are_written(pki: Path, side: str) -> None:
    assert check(SANE | {"farm_vpn_server_side": side}, pki)


@given(fields)
@settings(parent=many, max_examples=50)
def test_settings_are_refused_or_written_as_meant(pki: Path, given: dict[str, Any]) -> None:
    check(SANE | given, pki)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("side", ["studio", "cloud"])
def test_each_hostile_text_is_refused_or_harmless_in_a_setting(pki: Path, side: str, text: str) -> None:
    for name in SANE.keys() - {"farm_zones", "farm_vpn_server_side"}:
        check(SANE | {"farm_vpn_server_side": side, name: text}, pki)
