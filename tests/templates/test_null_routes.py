"""The unit with the null routes of a Linux server: one route for each far network, each taken away again."""

from __future__ import annotations

import re

import pytest

from tests.templates.render import render

SETTINGS = {
    "farm_vpn_server_side": "studio",
    "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
    "farm_remote_network": "10.9.0.0/24",
}


@pytest.mark.parametrize("instance", ["studio", "remote"])
def test_every_far_network_has_a_null_route(instance: str) -> None:
    text = render("openvpn_server", "null-routes.service.j2", SETTINGS | {"openvpn_server_instance": instance})
    commands = dict.fromkeys(("ExecStart", "ExecStop"), "")
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        if key in commands:
            commands[key] += value + "\n"
    networks = ["10.8.0.0/24", "10.0.0.0/24", "10.9.0.0/24"]
    assert commands["ExecStart"].splitlines() == [
        f"/bin/ip route replace unreachable {network} metric 9999" for network in networks
    ]
    assert commands["ExecStop"].splitlines() == [
        f"-/bin/ip route del unreachable {network} metric 9999" for network in networks
    ]
    assert f"Before=openvpn-server@{instance}.service" in text
