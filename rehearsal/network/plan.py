"""Addresses, names and routes of the rehearsal's networks, derived from the cloud's records by pure functions.

::

    pc .20 -----+                        inet                      vpc-... (router .1 of each subnet)
    controller .5 +-- home 192.168.1.1 --- API    198.18.0.10 ------ 1:1 NAT ---+-- manager
    workstation .10    198.18.1.2          downloads 198.18.0.20                +-- render nodes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from rehearsal import vpc_dns
from rehearsal.interfaces import CloudView, InterfaceView, Nic, RehearsalError, VpcView

HOME = "home"
INTERNET = "inet"
CONTROLLER = "controller"
WORKSTATION = "workstation"
PC = "pc"

LAN = IPv4Network("192.168.1.0/24")
LAN_ROUTER = IPv4Address("192.168.1.1")
LAN_BRIDGE = "br0"
LAN_HOSTS: Mapping[str, IPv4Address] = {
    CONTROLLER: IPv4Address("192.168.1.5"),
    WORKSTATION: IPv4Address("192.168.1.10"),
    PC: IPv4Address("192.168.1.20"),
}
STUDIO_PUBLIC_ADDRESS = IPv4Address("198.18.1.2")
STUDIO_PROVIDER_ADDRESS = IPv4Address("198.18.1.1")
API_ADDRESS = IPv4Address("198.18.0.10")
API_PORT = 4566
DOWNLOADS_ADDRESS = IPv4Address("198.18.0.20")
DOWNLOADS_PORT = 80
VPN_PORT = 1194
METADATA_ADDRESS = IPv4Address("169.254.169.254")

OUTSIDE = "igw"  # the interface of a VPC that leads to the internet
VPC_MTU = 9001  # jumbo frames: Amazon EC2 User Guide, "Network MTU"
INTERNET_MTU = 1500
_LINK_NETWORKS = list(IPv4Network("198.18.2.0/23").subnets(new_prefix=30))  # one per VPC, internet <-> gateway
_FIRST_TABLE = 1000


def _suffix(identifier: str, length: int = 11) -> str:
    """The end of an EC2 id, short enough for the name of a Linux interface (15 characters)."""
    return identifier.rsplit("-", 1)[-1][-length:]


def bridge_name(subnet_id: str) -> str:
    """The bridge that stands for a subnet."""
    return f"br-{_suffix(subnet_id)}"


def port_name(interface_id: str) -> str:
    """The far end of a machine's network cable, in its VPC."""
    return f"p-{_suffix(interface_id)}"


def router_address(network: IPv4Network) -> IPv4Address:
    """The VPC router's address in a subnet (Amazon VPC User Guide, "Subnet CIDR blocks": the second address)."""
    return network.network_address + 1


def nic(interface: InterfaceView, view: CloudView) -> Nic:
    """The network card of an instance, as the VPC's DHCP would configure it."""
    for vpc in view.vpcs:
        for subnet in vpc.subnets:
            if subnet.subnet_id == interface.subnet_id:
                gateway = router_address(subnet.network)
                return Nic("eth0", interface.mac, interface.private_address, subnet.network, gateway)
    raise RehearsalError(f"{interface.interface_id} is in the subnet {interface.subnet_id}, which does not exist")


def lan_mac(address: IPv4Address) -> str:
    """A locally administered MAC for a machine of the studio, the same at each start."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in address.packed)


def lan_nic(address: IPv4Address) -> Nic:
    """The network card of a machine in the studio."""
    return Nic("eth0", lan_mac(address), address, LAN, LAN_ROUTER)


@dataclass(frozen=True)
class Uplink:
    """The wire between the internet and one VPC's gateway."""

    name: str
    provider: IPv4Address
    gateway: IPv4Address

    @classmethod
    def number(cls, index: int) -> Uplink:
        """The wire of the VPC that came ``index``-th. RehearsalError when there are too many VPCs."""
        if index >= len(_LINK_NETWORKS):
            raise RehearsalError(f"the rehearsal's internet has wires for {len(_LINK_NETWORKS)} VPCs; delete some")
        provider, gateway = _LINK_NETWORKS[index].hosts()
        return cls(f"vpc{index}", provider, gateway)


def studio_commands() -> list[str]:
    """The lines of ``ip -batch`` that link the studio, its router and the internet (their namespaces exist)."""
    return [
        f"link add name wan netns {HOME} type veth peer name home netns {INTERNET}",
        *(
            f"link add name eth0 netns {host} address {lan_mac(address)} type veth peer name p-{host} netns {HOME}"
            for host, address in LAN_HOSTS.items()
            if host != WORKSTATION
        ),
    ]


def home_commands() -> list[str]:
    """The router's side of the studio, run inside its namespace."""
    return [
        "link set lo up",
        f"link add name {LAN_BRIDGE} type bridge",
        f"address add {LAN_ROUTER}/{LAN.prefixlen} dev {LAN_BRIDGE}",
        f"link set {LAN_BRIDGE} up",
        *(f"link set p-{host} master {LAN_BRIDGE} up" for host in LAN_HOSTS if host != WORKSTATION),
        f"address add {STUDIO_PUBLIC_ADDRESS}/24 dev wan",
        "link set wan up",
        f"route add default via {STUDIO_PROVIDER_ADDRESS}",
    ]


def internet_commands() -> list[str]:
    """The internet's side: the addresses of the API and of the download server, the wire to the studio."""
    return [
        "link set lo up",
        f"address add {API_ADDRESS}/32 dev lo",
        f"address add {DOWNLOADS_ADDRESS}/32 dev lo",
        f"address add {STUDIO_PROVIDER_ADDRESS}/24 dev home",
        "link set home up",
    ]


def machine_commands(card: Nic, *, mtu: int, metadata: bool) -> list[str]:
    """A machine's own side of its cable, run inside its namespace."""
    return [
        "link set lo up",
        *(f"address add {address}/32 dev lo" for address in (METADATA_ADDRESS, vpc_dns.ADDRESS) if metadata),
        f"link set {card.name} mtu {mtu}",
        f"address add {card.address}/{card.network.prefixlen} dev {card.name}",
        f"link set {card.name} up",
        *([f"route add default via {card.gateway}"] if card.gateway else []),
    ]


def vpc_commands(uplink: Uplink) -> list[str]:
    """The router of a new VPC, run inside its namespace: only the way out; subnets follow."""
    return [
        "link set lo up",
        f"address add {uplink.gateway}/30 dev {OUTSIDE}",
        f"link set {OUTSIDE} mtu {INTERNET_MTU} up",
        f"route add default via {uplink.provider}",
    ]


@dataclass(frozen=True)
class Subnet:
    """How the router of a VPC serves one subnet."""

    bridge: str
    network: IPv4Network
    table: int

    def commands(self) -> list[str]:
        """Bridge, router address and the rule that sends the subnet's traffic to its own route table."""
        return [
            f"link add name {self.bridge} mtu {VPC_MTU} type bridge",
            f"address add {router_address(self.network)}/{self.network.prefixlen} dev {self.bridge}",
            f"link set {self.bridge} mtu {VPC_MTU} up",
            f"rule add iif {self.bridge} lookup {self.table}",
            # nothing a route table does not name is delivered: the VPC router drops it without a word
            f"route add blackhole default table {self.table} metric 4294967295",
        ]

    def removal(self) -> list[str]:
        return [
            f"rule del iif {self.bridge} lookup {self.table}",
            f"route flush table {self.table}",
            f"link del {self.bridge}",
        ]


def subnets(vpc: VpcView, numbers: Mapping[str, int]) -> dict[str, Subnet]:
    """The subnets of a VPC; ``numbers`` gives each subnet id a number of its own, kept for its life."""
    return {
        subnet.subnet_id: Subnet(
            bridge_name(subnet.subnet_id), subnet.network, _FIRST_TABLE + numbers[subnet.subnet_id]
        )
        for subnet in vpc.subnets
    }


@dataclass(frozen=True)
class Route:
    """One route of the kernel: ``table`` and ``network`` identify it, ``way`` is the rest of its line."""

    table: int
    network: IPv4Network
    kind: str
    way: str

    @property
    def key(self) -> tuple[int, IPv4Network]:
        return self.table, self.network

    def line(self, verb: str) -> str:
        return f"route {verb} {self.kind} {self.network} {self.way}table {self.table}"


def routes(
    vpc: VpcView, view: CloudView, known: Mapping[str, Subnet], uplink: Uplink
) -> dict[tuple[int, IPv4Network], Route]:
    """Every route that the VPC router should have, by table and destination.

    ``local`` reaches the subnets of the VPC, ``igw-…`` the internet, ``eni-…`` the interface of a running instance; a
    route to anything else swallows the packets, as EC2's state ``blackhole`` does.
    Source: Amazon VPC User Guide, "Configure route tables".
    """
    interfaces = {
        instance.interface.interface_id: instance.interface
        for instance in view.instances
        if instance.state in ("pending", "running")
    }
    wanted: dict[tuple[int, IPv4Network], Route] = {}

    def want(route: Route) -> None:
        wanted[route.key] = route

    for subnet_id, subnet in known.items():
        for route in vpc.routes.get(subnet_id, ()):
            if route.target == "local":
                want(Route(subnet.table, route.network, "blackhole", ""))
                for other in known.values():
                    want(Route(subnet.table, other.network, "unicast", f"dev {other.bridge} "))
            elif route.target.startswith("igw-"):
                want(Route(subnet.table, route.network, "unicast", f"via {uplink.provider} dev {OUTSIDE} "))
            elif route.target.startswith("eni-") and route.target in interfaces:
                hop = interfaces[route.target]
                way = f"via {hop.private_address} dev {bridge_name(hop.subnet_id)} onlink "
                want(Route(subnet.table, route.network, "unicast", way))
            elif route.target.startswith("eni-") or route.target == "blackhole":
                want(Route(subnet.table, route.network, "blackhole", ""))
            else:
                raise RehearsalError(
                    f"the route {route.network} of {subnet_id} leads to {route.target}; the rehearsal's router knows "
                    "local, igw-…, eni-… and blackhole"
                )
    return wanted


def route_changes(
    before: Mapping[tuple[int, IPv4Network], Route], after: Mapping[tuple[int, IPv4Network], Route]
) -> list[str]:
    """The lines of ``ip`` that lead from one set of routes to the other; what stays the same is not touched."""
    gone = [before[key].line("del") for key in before.keys() - after.keys()]
    changed = [route.line("replace") for key, route in after.items() if before.get(key) != route]
    return sorted(gone) + sorted(changed)


def public_addresses(vpc_id: str, view: CloudView) -> dict[IPv4Address, IPv4Address]:
    """Private -> public address of the interfaces of a VPC that have one."""
    return {
        instance.interface.private_address: instance.interface.public_address
        for instance in view.instances
        if instance.interface.vpc_id == vpc_id
        and instance.interface.public_address is not None
        and instance.state in ("pending", "running", "stopping", "shutting-down")
    }
