# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The farm's address plan: subnets of the cloud network, and what is wrong with the networks that the user set.

Addresses are text on the outside (``10.0.0.0/24``) and IPv4 only: that is what Backburner speaks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from itertools import combinations
from typing import Any

# A VPC and a subnet have /16 to /28 (Amazon VPC User Guide, "VPC CIDR blocks" and "Subnet CIDR blocks").
LARGEST_PREFIX = 16
SMALLEST_PREFIX = 28
# EC2 keeps the first four addresses and the last one of each subnet (Amazon VPC User Guide, "Subnet sizing").
RESERVED_FIRST = 4
RESERVED = RESERVED_FIRST + 1

# setting -> what it is and an example that works together with the others
NETWORKS: Mapping[str, tuple[str, str]] = {
    "farm_lan_network": ("the studio's own network", "192.168.1.0/24"),
    "farm_cloud_network": ("the network in the cloud", "10.0.0.0/24"),
    "farm_tunnel_network": ("the addresses inside the tunnel", "10.8.0.0/24"),
    "farm_remote_network": ("the tunnel addresses of remote nodes", "10.9.0.0/24"),
}
_OPTIONAL = frozenset({"farm_remote_network"})


class NetworkError(ValueError):
    """A network or address that cannot be used; the text is for the user."""


def parse_network(value: Any) -> IPv4Network:
    """``10.0.0.0/24`` as a network. NetworkError when it is none, has no prefix, or has host bits set."""
    text = str(value)
    address, slash, prefix = text.partition("/")
    try:
        network = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise NetworkError(f"is {text!r}, which is not an IPv4 network") from error
    if not slash or not prefix.isdigit():
        raise NetworkError(f"is {text!r}, which lacks a prefix length: /24 for 256 addresses")
    if IPv4Address(address) != network.network_address:
        raise NetworkError(f"is {text!r}, which is an address inside {network}: write {network}")
    return network


def zone_subnets(network: IPv4Network, zones: Sequence[str]) -> list[tuple[str, IPv4Network]]:
    """Equal subnets for the zones: the network divided by the next power of two, in the order of the zones.

    The first zone gets the lowest addresses, where the manager lives. NetworkError when that is too small for EC2.
    """
    if not zones:
        raise NetworkError("has no zone to be divided for: name at least one, for example [eu-central-1a]")
    bits = (len(zones) - 1).bit_length()
    if network.prefixlen + bits > SMALLEST_PREFIX:
        raise NetworkError(
            f"is {network}, which is too small for {len(zones)} subnets: EC2 needs /{SMALLEST_PREFIX} or larger for "
            f"each, so use /{SMALLEST_PREFIX - bits} or larger"
        )
    return list(zip(zones, network.subnets(prefixlen_diff=bits), strict=False))


def usable_addresses(subnet: IPv4Network) -> int:
    """How many addresses of a subnet EC2 gives to instances."""
    return max(0, subnet.num_addresses - RESERVED)


def is_reserved(address: IPv4Address, subnet: IPv4Network) -> bool:
    """True for the addresses of a subnet that EC2 keeps for itself: the first four and the last one."""
    first = int(address) - int(subnet.network_address)
    return first < RESERVED_FIRST or address == subnet.broadcast_address


def free_addresses(subnet: IPv4Network, taken: Collection[str]) -> list[IPv4Address]:
    """The addresses of a subnet that EC2 gives to instances, but for those taken. NetworkError: none is left."""
    busy = {int(IPv4Address(address)) for address in taken}
    first, last = int(subnet.network_address) + RESERVED_FIRST, int(subnet.broadcast_address)
    free = [IPv4Address(number) for number in range(first, last) if number not in busy]
    if not free:
        raise NetworkError(f"{subnet} has no free address: end machines in it, or use a larger farm_cloud_network")
    return free


def network_problems(settings: Mapping[str, Any]) -> list[str]:
    """One message for each thing that is wrong with the farm's networks; each names setting, value and a remedy.

    Reads ``farm_lan_network``, ``farm_cloud_network``, ``farm_tunnel_network``, ``farm_remote_network`` (may be
    missing), ``farm_manager_address``, ``farm_zones`` and ``farm_nodes`` (may be missing).
    """
    problems: list[str] = []
    networks: dict[str, IPv4Network] = {}
    for name, (meaning, example) in NETWORKS.items():
        value = settings.get(name)
        if value in (None, ""):
            if name not in _OPTIONAL:
                problems.append(f"{name} is not set. It is {meaning}, for example {name}: {example}")
            continue
        try:
            networks[name] = parse_network(value)
        except NetworkError as error:
            problems.append(f"{name} {error}. It is {meaning}, for example {name}: {example}")
    problems += _overlaps(networks)
    cloud = networks.get("farm_cloud_network")
    if cloud is not None:
        problems += _cloud_problems(cloud, settings)
    return problems


def _overlaps(networks: Mapping[str, IPv4Network]) -> list[str]:
    problems = []
    for (one, first), (other, second) in combinations(networks.items(), 2):
        if first == second:
            relation = "are both"
            text = f"{one} and {other} {relation} {first}"
        elif first.overlaps(second):
            text = f"{one} ({first}) and {other} ({second}) overlap"
        else:
            continue
        free = _free_example(other, networks)
        example = f"for example {other}: {free}" if free else f"and a smaller {one}"
        problems.append(f"{text}. Traffic could not be routed between them; use another one, {example}")
    return problems


def _free_example(name: str, networks: Mapping[str, IPv4Network]) -> IPv4Network | None:
    """A network for ``name`` that overlaps none of the others: the usual example if it is free. None: they are huge."""
    others = [network for other, network in networks.items() if other != name]
    candidates = [IPv4Network(NETWORKS[name][1]), *(IPv4Network(f"172.{n}.0.0/24") for n in range(16, 32))]
    free = (network for network in candidates if not any(network.overlaps(other) for other in others))
    return next(free, None)


def _cloud_problems(cloud: IPv4Network, settings: Mapping[str, Any]) -> list[str]:
    if cloud.prefixlen < LARGEST_PREFIX:
        return [
            f"farm_cloud_network is {cloud}, but a VPC is at most /{LARGEST_PREFIX}, "
            f"for example farm_cloud_network: {cloud.network_address}/{LARGEST_PREFIX}"
        ]
    zones = settings.get("farm_zones")
    if not isinstance(zones, Sequence) or isinstance(zones, str) or not zones:
        return [f"farm_zones is {zones!r}, which is no list of zones, for example farm_zones: [eu-central-1a]"]
    names = [str(zone) for zone in zones]
    twice = sorted({zone for zone in names if names.count(zone) > 1})
    if twice:
        return [
            f"farm_zones names {', '.join(twice)} twice: name each zone once, for example farm_zones: [eu-central-1a]"
        ]
    try:
        subnets = [subnet for _, subnet in zone_subnets(cloud, names)]
    except NetworkError as error:
        return [f"farm_cloud_network {error}, for example farm_cloud_network: 10.0.0.0/24"]
    return _manager_problems(subnets[0], settings) + _room_problems(cloud, subnets, settings)


def _manager_problems(first: IPv4Network, settings: Mapping[str, Any]) -> list[str]:
    value = settings.get("farm_manager_address")
    example = first.network_address + (10 if first.num_addresses > 16 else 5)
    advice = f"for example farm_manager_address: {example}"
    try:
        address = IPv4Address(str(value))
    except AddressValueError:
        return [f"farm_manager_address is {value!r}, which is not an IPv4 address, {advice}"]
    if address not in first:
        return [
            f"farm_manager_address is {address}, which is outside {first}, the part of farm_cloud_network in the first "
            f"of farm_zones, where the manager lives, {advice}"
        ]
    if is_reserved(address, first):
        return [
            f"farm_manager_address is {address}, but EC2 keeps the first {RESERVED_FIRST} addresses and the last one "
            f"of {first} for itself, {advice}"
        ]
    return []


def _room_problems(cloud: IPv4Network, subnets: Sequence[IPv4Network], settings: Mapping[str, Any]) -> list[str]:
    wished = settings.get("farm_nodes")
    if wished in (None, ""):
        return []
    try:
        nodes = int(str(wished))
    except ValueError:
        nodes = -1
    if nodes < 0:
        return [f"farm_nodes is {wished!r}, which is not a number from 0 up, for example farm_nodes: 5"]
    # The manager and, while an image is baked, the builder need an address, too.
    room = sum(map(usable_addresses, subnets)) - 2
    if nodes <= room:
        return []
    prefix = cloud.prefixlen
    while prefix > LARGEST_PREFIX and sum(_room_at(prefix, len(subnets))) - 2 < nodes:
        prefix -= 1
    larger = IPv4Network((cloud.network_address, prefix), strict=False)
    room = max(0, room)
    zones = f"{len(subnets)} zones" if len(subnets) > 1 else "one zone"
    return [
        f"farm_nodes is {nodes}, but farm_cloud_network ({cloud}) over {zones} has room for {room} nodes beside the "
        f"manager and a builder, for example farm_nodes: {room} or farm_cloud_network: {larger}"
    ]


def _room_at(prefix: int, zones: int) -> list[int]:
    size = 2 ** (32 - prefix) >> (zones - 1).bit_length()
    return [size - RESERVED] * zones
