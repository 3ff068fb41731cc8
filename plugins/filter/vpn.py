# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that write networks the way OpenVPN's configuration wants them."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from ansible.errors import AnsibleFilterError


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


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"with_netmask": with_netmask, "netmask": netmask, "host_address": host_address}
