# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the settings of a tunnel's ends, before anything is written.

Each message names the variable, its value, what is allowed and an example.  Whatever passes here can stand in a
configuration of OpenVPN as one word: no white space, no quotes, no line end, no path.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from itertools import combinations
from typing import Any

from .networks import LARGEST_PREFIX, SMALLEST_PREFIX, NetworkError, parse_network, usable_addresses

SIDES = ("studio", "cloud")
# A tunnel needs the server's address and one for each client; more than a /16 is a mistake.
LARGEST_TUNNEL = 16
SMALLEST_TUNNEL = 29
# Each has a certificate and a WinRM connection of its own; more belong into the farm's VPC.
MOST_REMOTE_NODES = 100
# A line of OpenVPN's configuration has at most 255 characters with its end: ``remote <endpoint> 65535`` and CR, LF.
LONGEST_ENDPOINT = 240

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# Names that Windows keeps for devices, whatever follows a dot (Microsoft, "Naming files, paths and namespaces").
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
# OpenVPN's service starts every file with this ending that it finds below its folder, entries of clients among them.
_CONFIGURATION = ".ovpn"


def server_problems(settings: Mapping[str, Any]) -> list[str]:
    """One message for each mistake in the variables of the role openvpn_server.

    Reads ``instance``, ``name``, ``port``, ``network``, ``networks`` (behind the server) and ``clients`` (each with
    ``name``, ``address``, ``networks`` behind it).
    """
    problems = _name("openvpn_server_instance", settings.get("instance"), "studio")
    problems += _name("openvpn_server_name", settings.get("name"), "studio-workstation")
    problems += _port("openvpn_server_port", settings.get("port"))
    networks: dict[str, IPv4Network] = {}
    tunnel = _tunnel("openvpn_server_network", settings.get("network"), problems)
    if tunnel is not None:
        networks["openvpn_server_network"] = tunnel
    _add_networks("openvpn_server_networks", settings.get("networks"), "192.168.1.0/24", networks, problems)
    clients: Any = settings.get("clients")
    if not _is_list(clients) or not all(isinstance(client, Mapping) for client in clients):
        return [
            *problems,
            f"openvpn_server_clients is {clients!r}: a list of name, address and networks, for example "
            "[{name: aws-gateway, address: 10.8.0.2, networks: [10.0.0.0/24]}]",
        ]
    for client in clients:
        where = f"openvpn_server_clients, {client.get('name')!r}"
        problems += _name(f"{where}: name", client.get("name"), "aws-gateway")
        _add_networks(f"{where}: networks", client.get("networks", []), "10.0.0.0/24", networks, problems)
        if tunnel is not None:
            problems += _client_address(f"{where}: address", client.get("address"), tunnel)
    problems += _twice("name", [client.get("name") for client in clients])
    problems += _twice("address", [client.get("address") for client in clients])
    own = str(settings.get("name")).lower()
    if any(str(client.get("name")).lower() == own for client in clients):
        problems.append(
            f"openvpn_server_clients has a client with the server's own name {settings.get('name')!r}: each machine "
            "has a certificate of its own, for example aws-gateway"
        )
    return problems + _overlaps(networks)


def client_problems(settings: Mapping[str, Any]) -> list[str]:
    """One message for each mistake in the variables of the role vpn_gateway.

    Reads ``instance``, ``name``, ``server_name``, ``endpoint`` and ``port``.
    """
    problems = _name("vpn_gateway_instance", settings.get("instance"), "studio")
    problems += _name("vpn_gateway_name", settings.get("name"), "aws-gateway")
    problems += _name("vpn_gateway_server_name", settings.get("server_name"), "studio-workstation")
    problems += _endpoint("vpn_gateway_endpoint", settings.get("endpoint"))
    problems += _port("vpn_gateway_port", settings.get("port"))
    if str(settings.get("name")).lower() == str(settings.get("server_name")).lower():
        problems.append(
            f"vpn_gateway_name and vpn_gateway_server_name are both {settings.get('name')!r}: each machine has a "
            "certificate of its own, for example vpn_gateway_name: aws-gateway"
        )
    return problems


def farm_problems(settings: Mapping[str, Any]) -> list[str]:
    """One message for each mistake in the farm's settings of the tunnel; their networks are judged elsewhere.

    Reads ``farm_vpn_server_side``, ``farm_vpn_port``, ``farm_studio_endpoint``, ``farm_workstation_address``,
    ``farm_lan_network``, and of remote nodes (may be missing) ``farm_remote_nodes``, ``farm_remote_vpn_port``,
    ``farm_remote_vpc_network`` with the networks that it must not overlap.
    """
    problems = []
    side = settings.get("farm_vpn_server_side")
    if side not in SIDES:
        problems.append(f"farm_vpn_server_side is {side!r}: studio or cloud, for example farm_vpn_server_side: studio")
    problems += _port("farm_vpn_port", settings.get("farm_vpn_port"))
    problems += _endpoint("farm_studio_endpoint", settings.get("farm_studio_endpoint"))
    if settings.get("farm_remote_network", "missing") in (None, ""):
        problems.append(
            "farm_remote_network is not set: the tunnels' routes name it also while there are no remote nodes, for "
            "example farm_remote_network: 10.9.0.0/24"
        )
    if settings.get("farm_remote_nodes") not in (None, ""):
        problems += _remote_problems(settings)
    try:
        lan = parse_network(settings.get("farm_lan_network"))
    except NetworkError:
        return problems  # told by network_problems
    return problems + _inside("farm_workstation_address", settings.get("farm_workstation_address"), lan)


def _remote_problems(settings: Mapping[str, Any]) -> list[str]:
    nodes = str(settings["farm_remote_nodes"])
    if not (nodes.isascii() and nodes.isdigit() and int(nodes) <= MOST_REMOTE_NODES):
        return [f"farm_remote_nodes is {nodes!r}: 0 to {MOST_REMOTE_NODES}, for example farm_remote_nodes: 2"]
    if int(nodes) == 0:
        return []
    problems = _port("farm_remote_vpn_port", settings.get("farm_remote_vpn_port"))
    same = str(settings.get("farm_remote_vpn_port")) == str(settings.get("farm_vpn_port"))
    if same and settings.get("farm_vpn_server_side") == "cloud":
        problems.append(
            f"farm_vpn_port and farm_remote_vpn_port are both {settings.get('farm_vpn_port')}: the manager cannot "
            "listen twice on one port, for example farm_remote_vpn_port: 1195"
        )
    networks: dict[str, IPv4Network] = {}
    for name in ("farm_lan_network", "farm_cloud_network", "farm_tunnel_network", "farm_remote_network"):
        with contextlib.suppress(NetworkError):  # told by network_problems
            networks[name] = parse_network(settings.get(name))
    tunnel = networks.get("farm_remote_network")
    if tunnel is not None and tunnel.num_addresses < int(nodes) + 3:
        problems.append(
            f"farm_remote_network is {tunnel}, which has no room for {nodes} remote nodes, for example 10.9.0.0/24"
        )
    try:
        vpc = parse_network(settings.get("farm_remote_vpc_network"))
    except NetworkError as error:
        return [*problems, f"farm_remote_vpc_network {error}, for example farm_remote_vpc_network: 172.31.0.0/24"]
    if not LARGEST_PREFIX <= vpc.prefixlen <= SMALLEST_PREFIX:
        problems.append(
            f"farm_remote_vpc_network is {vpc}: a prefix from /{LARGEST_PREFIX} to /{SMALLEST_PREFIX}, for example "
            "172.31.0.0/24"
        )
    if usable_addresses(vpc) < int(nodes):
        problems.append(
            f"farm_remote_vpc_network is {vpc}, which has room for {usable_addresses(vpc)} machines, not for {nodes}, "
            "for example 172.31.0.0/24"
        )
    others = {name: network for name, network in networks.items() if network.overlaps(vpc)}
    return problems + [
        f"farm_remote_vpc_network ({vpc}) and {name} ({network}) overlap: traffic could not be routed between them; "
        "use another network, for example 172.31.0.0/24"
        for name, network in others.items()
    ]


def numbered(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A number for each of ``nodes`` (``id``, ``number`` or nothing, ``since``) that has none: the lowest free ones.

    Numbers are those of certificates and addresses, so no two machines ever have one. ValueError when two do.
    """
    taken = [int(node["number"]) for node in nodes if node.get("number")]
    twice = sorted({number for number in taken if taken.count(number) > 1})
    if twice:
        raise ValueError(f"two remote nodes have the number {twice[0]} in their tag: terminate one of them")
    free = (number for number in itertools.count(1) if number not in taken)
    waiting = sorted((str(node.get("since", "")), str(node["id"])) for node in nodes if not node.get("number"))
    return [{"id": identifier, "number": next(free)} for _, identifier in waiting]


def elsewhere(networks: Sequence[str], address: str) -> list[str]:
    """The networks that ``address`` is not in, in their order. NetworkError for what is no network or address."""
    own = _address(address)
    if own is None:
        raise NetworkError(f"{address!r} is no IPv4 address")
    return [str(network) for network in networks if own not in parse_network(network)]


def _name(variable: str, value: Any, example: str) -> list[str]:
    text = str(value)
    if not isinstance(value, str) or not _NAME.fullmatch(text) or ".." in text:
        rule = "1 to 63 letters, digits, dots and hyphens, a letter or digit at both ends"
    elif _DEVICE.fullmatch(text):
        rule = "not the name of a device of Windows, for it is the name of files"
    elif text.lower().endswith(_CONFIGURATION):
        rule = f"not ending in {_CONFIGURATION}, for OpenVPN's service would take the file for a configuration"
    else:
        return []
    return [f"{variable} is {value!r}: {rule}, for example {example}"]


def _port(variable: str, value: Any) -> list[str]:
    text = str(value)
    if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535:
        return []
    return [f"{variable} is {value!r}: a port from 1 to 65535, for example {variable}: 1194"]


def _endpoint(variable: str, value: Any) -> list[str]:
    text = str(value)
    labels = text.split(".")
    sound = (
        isinstance(value, str) and len(text) <= LONGEST_ENDPOINT and all(_LABEL.fullmatch(label) for label in labels)
    )
    if sound and labels[-1].isdigit():  # no name ends in digits only: it is an address
        sound = _address(text) is not None
    if sound:
        return []
    return [f"{variable} is {value!r}: a public name or IPv4 address, for example {variable}: studio.example.net"]


def _address(value: Any) -> IPv4Address | None:
    try:
        return IPv4Address(value) if isinstance(value, str) else None
    except AddressValueError:
        return None


def _inside(variable: str, value: Any, network: IPv4Network) -> list[str]:
    address = _address(value)
    if address is not None and address in network and address not in _ends(network):
        return []
    example = network.network_address + min(10, network.num_addresses - 2)
    return [f"{variable} is {value!r}: an address of a machine in {network}, for example {variable}: {example}"]


def _ends(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    return network.network_address, network.broadcast_address


def _client_address(variable: str, value: Any, tunnel: IPv4Network) -> list[str]:
    address = _address(value)
    first = tunnel.network_address + 1
    if address is not None and address in tunnel and address not in (*_ends(tunnel), first):
        return []
    return [f"{variable} is {value!r}: an address in {tunnel} but {first}, the server's, for example {first + 1}"]


def _tunnel(variable: str, value: Any, problems: list[str]) -> IPv4Network | None:
    try:
        network = parse_network(value)
    except NetworkError as error:
        problems.append(f"{variable} {error}, for example {variable}: 10.8.0.0/24")
        return None
    if not LARGEST_TUNNEL <= network.prefixlen <= SMALLEST_TUNNEL:
        problems.append(
            f"{variable} is {network}: a prefix from /{LARGEST_TUNNEL} to /{SMALLEST_TUNNEL}, for example {variable}: "
            "10.8.0.0/24"
        )
    return network


def _add_networks(
    variable: str, values: Any, example: str, networks: dict[str, IPv4Network], problems: list[str]
) -> None:
    if not _is_list(values):
        problems.append(f"{variable} is {values!r}: a list of networks, for example [{example}]")
        return
    for number, value in enumerate(values):
        try:
            network = parse_network(value)
        except NetworkError as error:
            problems.append(f"{variable} {error}, for example {example}")
            continue
        if network.prefixlen == 0:
            problems.append(f"{variable} is {network}, which is everything: name a network, for example {example}")
            continue
        networks[f"{variable}[{number}]"] = network


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _twice(what: str, values: Sequence[Any]) -> list[str]:
    # names are names of files, which Windows compares without case
    texts = [str(value).lower() for value in values]
    return [
        f"openvpn_server_clients has the {what} {text!r} twice: two clients would push each other out of the tunnel; "
        f"give each its own {what}"
        for text in sorted({text for text in texts if texts.count(text) > 1})
    ]


def _overlaps(networks: Mapping[str, IPv4Network]) -> list[str]:
    return [
        f"{one} ({first}) and {other} ({second}) overlap: traffic could not be routed between them; use another network"
        for (one, first), (other, second) in combinations(networks.items(), 2)
        if first.overlaps(second)
    ]
