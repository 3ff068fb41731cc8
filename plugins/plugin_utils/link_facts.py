# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What EC2 says of the link: the manager's network interface, routes, security groups (by amazon.aws' modules)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

_ANY = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True)
class Permission:
    """One permission of a security group for what comes in. ``protocol`` is tcp, udp, icmp or -1 (all)."""

    protocol: str
    first: int
    last: int
    networks: tuple[IPv4Network, ...]

    def allows(self, protocol: str, port: int, source: IPv4Network) -> bool:
        if not any(source.subnet_of(network) for network in self.networks):
            return False
        if self.protocol in ("-1", "all"):
            return True
        return self.protocol == protocol and (protocol == "icmp" or self.first < 0 or self.first <= port <= self.last)


@dataclass(frozen=True)
class RouteTable:
    """``routes``: network -> (id of the network interface or empty, state)."""

    table_id: str
    routes: Mapping[IPv4Network, tuple[str, str]]


@dataclass(frozen=True)
class Cloud:
    """``source_check`` None: the manager has no network interface. ``known`` False: EC2 was not asked."""

    known: bool = False
    interface: str = ""
    source_check: bool | None = None
    public_address: str = ""
    tables: tuple[RouteTable, ...] = ()
    groups: Mapping[str, tuple[str, tuple[Permission, ...]]] = field(default_factory=dict)

    def allows(self, role: str, protocol: str, port: int, source: IPv4Network) -> bool | None:
        """Does the role's security group let that in? None when there is no such group."""
        if role not in self.groups:
            return None
        return any(permission.allows(protocol, port, source) for permission in self.groups[role][1])

    def group_name(self, role: str) -> str:
        return self.groups[role][0] if role in self.groups else role


def cloud_from(
    interfaces: Sequence[Mapping[str, Any]], tables: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> Cloud:
    """From ``network_interfaces`` of ec2_eni_info, ``route_tables`` of ec2_vpc_route_table_info and ``security_groups``
    of ec2_security_group_info."""
    interface = interfaces[0] if interfaces else {}
    association = interface.get("association") or {}
    return Cloud(
        known=True,
        interface=str(interface.get("network_interface_id") or interface.get("id") or ""),
        source_check=interface.get("source_dest_check") if interface else None,
        public_address=str(association.get("public_ip") or ""),
        tables=tuple(_table(table) for table in tables),
        groups={
            str(role): (str(group["group_name"]), tuple(_permissions(group.get("ip_permissions") or ())))
            for group in groups
            if (role := (group.get("tags") or {}).get("renderfarm:role"))
        },
    )


def _table(table: Mapping[str, Any]) -> RouteTable:
    routes = {
        IPv4Network(route["destination_cidr_block"]): (
            str(route.get("network_interface_id") or ""),
            str(route.get("state") or "active"),
        )
        for route in table.get("routes") or ()
        if route.get("destination_cidr_block")
    }
    return RouteTable(str(table.get("route_table_id") or table.get("id")), routes)


def _permissions(entries: Iterable[Mapping[str, Any]]) -> Iterable[Permission]:
    for entry in entries:
        networks = tuple(IPv4Network(each["cidr_ip"]) for each in entry.get("ip_ranges") or ())
        if networks:
            first, last = entry.get("from_port"), entry.get("to_port")
            yield Permission(
                str(entry["ip_protocol"]),
                -1 if first is None else int(first),
                -1 if last is None else int(last),
                networks,
            )


def host_network(address: IPv4Address) -> IPv4Network:
    """One address as a network."""
    return IPv4Network(address)
