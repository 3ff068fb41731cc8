# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the ends of a tunnel: networks as OpenVPN's configuration wants them, and mistakes in the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import tunnel_settings
from ..module_utils.networks import NetworkError


def _network(value: Any) -> IPv4Network:
    try:
        return IPv4Network(str(value))
    except ValueError as error:
        raise AnsibleFilterError(f"{value!r} is no IPv4 network ({error}); example: 10.8.0.0/24") from error


def with_netmask(value: Any) -> str:
    """``10.8.0.0/24`` -> ``10.8.0.0 255.255.255.0``."""
    return _network(value).with_netmask.replace("/", " ")


def netmask(value: Any) -> str:
    """``10.8.0.0/24`` -> ``255.255.255.0``."""
    return str(_network(value).netmask)


def host_address(value: Any, number: int) -> str:
    """The ``number``-th address of a network: ``10.8.0.0/24``, 2 -> ``10.8.0.2``."""
    network = _network(value)
    if not 0 < number < network.num_addresses - 1:
        raise AnsibleFilterError(f"{network} has no host number {number} (1 to {network.num_addresses - 2})")
    return str(network[number])


def _settings(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"{name}: needs a dictionary of settings, not {type(value).__name__}.")
    return value


def openvpn_server_problems(settings: Any) -> list[str]:
    """What is wrong with the variables of the role openvpn_server."""
    return tunnel_settings.server_problems(_settings(settings, "openvpn_server_problems"))


def vpn_gateway_problems(settings: Any) -> list[str]:
    """What is wrong with the variables of the role vpn_gateway."""
    return tunnel_settings.client_problems(_settings(settings, "vpn_gateway_problems"))


def tunnel_problems(settings: Any) -> list[str]:
    """What is wrong with the farm's settings of the tunnel."""
    return tunnel_settings.farm_problems(_settings(settings, "tunnel_problems"))


def networks_elsewhere(networks: Any, address: str) -> list[str]:
    """The networks that an address is not in."""
    if isinstance(networks, str) or not isinstance(networks, Sequence):
        raise AnsibleFilterError(f"networks_elsewhere: needs a list of networks, not {networks!r}.")
    try:
        return tunnel_settings.elsewhere(networks, str(address))
    except NetworkError as error:
        raise AnsibleFilterError(f"networks_elsewhere: {error}.") from error


def remote_numbers(hosts: Any) -> list[dict[str, Any]]:
    """A number for each remote node that has none; ``hosts`` are the variables of all remote nodes."""
    try:
        return tunnel_settings.numbered(
            [
                {
                    "id": host["farm_instance_id"],
                    "number": host["farm_tags"].get("renderfarm:number", ""),
                    "since": host["farm_launch_time"],
                }
                for host in hosts
            ]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"remote_numbers: {error}.") from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "with_netmask": with_netmask,
            "netmask": netmask,
            "host_address": host_address,
            "openvpn_server_problems": openvpn_server_problems,
            "vpn_gateway_problems": vpn_gateway_problems,
            "tunnel_problems": tunnel_problems,
            "networks_elsewhere": networks_elsewhere,
            "remote_numbers": remote_numbers,
        }
