"""The studio, the internet, the VPC and a remote node, as they are before any tunnel.

::

    pc .20 ----------+                                                   +-- manager 10.0.0.10 (198.18.20.10)
    workstation .10 -+-- home 192.168.1.1 -- internet 198.18.x.1 -- vpc -+-- node1   10.0.0.21
                         NAT 198.18.1.2          |            10.0.0.1   +-- node2   10.0.0.22
                         UDP 1194 forwarded      +-- away 198.18.3.2 (NAT) -- remote 172.31.0.5

The VPC router knows the LAN and both tunnel networks (10.8.0.0/24, 10.9.0.0/24) as the manager's; the PC knows them as
the workstation's. Inside the VPC the MTU is 9001. The internet counts every packet with a private address.

With ``carrier`` the studio's provider shares its public addresses: its own NAT stands between home and internet and
forwards nothing (RFC 6598, carrier-grade NAT)::

    home 100.64.0.2 -- carrier 100.64.0.1, 198.18.1.2 -- internet
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from rehearsal.network.filters import PRIVATE_NETWORKS, home_router, leak_detector, replacing, without
from tests.tunnel.namespaces import Namespace, cable, close_all

LAN = "192.168.1.0/24"
CLOUD = "10.0.0.0/24"
TUNNEL = "10.8.0.0/24"
REMOTE = "10.9.0.0/24"
PORT = 1194
REMOTE_PORT = 1195
STUDIO_PUBLIC = "198.18.1.2"
MANAGER_PUBLIC = "198.18.20.10"
VPC_MTU = 9001  # Amazon EC2 User Guide, "Network MTU"

# Where each machine is reached through the tunnel.
ADDRESSES = {
    "workstation": "192.168.1.10",
    "pc": "192.168.1.20",
    "manager": "10.0.0.10",
    "node1": "10.0.0.21",
    "node2": "10.0.0.22",
    "remote": "10.9.0.2",
}
# Networks that only tunnels lead to, seen from each machine that has an end of one.
FAR_NETWORKS = {
    "workstation": (CLOUD, TUNNEL, REMOTE),
    "manager": (LAN, TUNNEL, REMOTE),
    "remote": (CLOUD, LAN, TUNNEL, REMOTE),
}


class Network:
    """All machines; ``close`` takes everything away."""

    def __init__(self, *, home_mtu: int = 1500, port_forward: bool = True, carrier: bool = False) -> None:
        self.workstation = Namespace("workstation", forwarding=True)
        self.pc = Namespace("pc")
        self.home = Namespace("home", forwarding=True)
        self.internet = Namespace("internet", forwarding=True)
        self.vpc = Namespace("vpc", forwarding=True)
        self.manager = Namespace("manager", forwarding=True)
        self.node1 = Namespace("node1")
        self.node2 = Namespace("node2")
        self.away = Namespace("away", forwarding=True)
        self.remote = Namespace("remote")
        self.carrier = Namespace("carrier", forwarding=True) if carrier else None
        self._studio(port_forward)
        self._internet(home_mtu)
        self._vpc()
        self._remote()

    @property
    def namespaces(self) -> list[Namespace]:
        return [value for value in vars(self).values() if isinstance(value, Namespace)]

    def machine(self, name: str) -> Namespace:
        found = getattr(self, name)
        assert isinstance(found, Namespace)
        return found

    def close(self) -> None:
        close_all(self.namespaces)

    def _studio(self, port_forward: bool) -> None:
        self.home.ip("link add br0 type bridge", "address add 192.168.1.1/24 dev br0", "link set br0 up")
        for machine in (self.workstation, self.pc):
            cable(machine, "eth0", self.home, f"p-{machine.name}")
            self.home.ip(f"link set p-{machine.name} master br0")
            machine.ip(
                f"address add {ADDRESSES[machine.name]}/24 dev eth0", "route add default via 192.168.1.1 dev eth0"
            )
        self.pc.ip(*(f"route add {network} via 192.168.1.10" for network in (CLOUD, TUNNEL, REMOTE)))
        server = ADDRESSES["workstation"] if port_forward else "192.168.1.99"
        self.home.nft(home_router(inside="br0", vpn_port=PORT, vpn_server=IPv4Address(server)))

    def _edge(self) -> Namespace:
        """Who has the studio's public address."""
        return self.carrier or self.home

    def _internet(self, home_mtu: int) -> None:
        edge = self._edge()
        cable(edge, "wan", self.internet, "home")
        edge.ip(
            f"link set wan mtu {home_mtu}",
            f"address add {STUDIO_PUBLIC}/24 dev wan",
            "route add default via 198.18.1.1",
        )
        if self.carrier is not None:
            cable(self.home, "wan", self.carrier, "customers")
            self.carrier.ip("address add 100.64.0.1/24 dev customers")
            self.home.ip("address add 100.64.0.2/24 dev wan", "route add default via 100.64.0.1")
            nobody = IPv4Address("100.64.0.99")
            self.carrier.nft(home_router(inside="customers", vpn_port=PORT, vpn_server=nobody))
        self.internet.ip("address add 198.18.1.1/24 dev home", f"link set home mtu {home_mtu}")
        self.internet.nft(leak_detector())

    def _vpc(self) -> None:
        cable(self.vpc, "igw", self.internet, "vpc")
        self.internet.ip("address add 198.18.2.1/24 dev vpc", "route add 198.18.20.0/24 via 198.18.2.2")
        self.vpc.ip(
            "address add 198.18.2.2/24 dev igw",
            "route add default via 198.18.2.1",
            f"link add br0 mtu {VPC_MTU} type bridge",
            "address add 10.0.0.1/24 dev br0",
            "link set br0 up",
        )
        for machine in (self.manager, self.node1, self.node2):
            cable(machine, "eth0", self.vpc, f"p-{machine.name}")
            self.vpc.ip(f"link set p-{machine.name} mtu {VPC_MTU} master br0")
            machine.ip(
                f"link set eth0 mtu {VPC_MTU}",
                f"address add {ADDRESSES[machine.name]}/24 dev eth0",
                "route add default via 10.0.0.1",
            )
        self.vpc.ip(
            f"link set br0 mtu {VPC_MTU}", *(f"route add {network} via 10.0.0.10" for network in (LAN, TUNNEL, REMOTE))
        )
        self.manager_address(MANAGER_PUBLIC)

    def _remote(self) -> None:
        cable(self.away, "wan", self.internet, "away")
        self.internet.ip("address add 198.18.3.1/24 dev away")
        self.away.ip("address add 198.18.3.2/24 dev wan", "route add default via 198.18.3.1")
        cable(self.remote, "eth0", self.away, "lan")
        self.away.ip("address add 172.31.0.1/16 dev lan")
        self.remote.ip("address add 172.31.0.5/16 dev eth0", "route add default via 172.31.0.1")
        self.away.nft(home_router(inside="lan", vpn_port=PORT, vpn_server=IPv4Address("172.31.0.99")))

    # ------------------------------------------------------------------------------------------- what may happen to it

    def manager_address(self, public: str) -> None:
        """The internet gateway of the VPC: 1:1 NAT of the manager alone, at once also for what is under way.

        Nothing with a private destination leaves, as on AWS (Amazon VPC User Guide, "Internet gateways").
        """
        body = f"""  counter looped {{
  }}
  chain inbound {{
    type filter hook prerouting priority raw; policy accept;
    iifname "igw" ip daddr {public} ip daddr set {ADDRESSES["manager"]}
  }}
  chain between {{
    type filter hook forward priority filter; policy accept;
    iifname "br0" oifname "br0" ip daddr {{ {LAN}, {TUNNEL}, {REMOTE} }} counter name "looped"
    oifname "igw" ip daddr {PRIVATE_NETWORKS} drop
    oifname "igw" ip saddr != {ADDRESSES["manager"]} drop
  }}
  chain outbound {{
    type filter hook postrouting priority srcnat; policy accept;
    oifname "igw" ip saddr {ADDRESSES["manager"]} ip saddr set {public}
  }}
"""
        self.vpc.nft(replacing("ip", "gateway", body))

    def studio_address(self, public: str) -> None:
        """The studio's provider gives it another address, and carries nothing from the old one."""
        self._edge().ip("address flush dev wan", f"address add {public}/24 dev wan", "route add default via 198.18.1.1")
        body = f"""  chain own_customers_only {{
    type filter hook prerouting priority -290; policy accept;
    iifname "home" ip saddr != {public} drop
  }}
"""
        self.internet.nft(replacing("ip", "provider", body))

    def source_destination_check(self, on: bool) -> None:
        """EC2's check on the manager's network interface: only its own packets pass."""
        own = ADDRESSES["manager"]
        body = f"""  chain arriving {{
    type filter hook prerouting priority -290; policy accept;
    iifname "eth0" ip daddr != {own} drop
  }}
  chain leaving {{
    type filter hook postrouting priority 300; policy accept;
    oifname "eth0" ip saddr != {own} drop
  }}
"""
        self.manager.nft(replacing("ip", "eni", body) if on else without("ip", "eni"))

    def null_routes(self) -> None:
        """What the roles set on the machines with a tunnel, and the home router's line: far networks are unreachable.

        Any route of a running tunnel is better than these.
        """
        for name, networks in FAR_NETWORKS.items():
            self.machine(name).ip(*(f"route add unreachable {network} metric 9999" for network in networks))

    def hostile_path(self) -> None:
        """The internet drops IP fragments and the ICMP messages that would tell about too large packets."""
        body = """  counter fragments {
  }
  counter told {
  }
  chain before_reassembly {
    type filter hook prerouting priority -450; policy accept;
    ip frag-off & 0x3fff != 0 counter name "fragments" drop
    icmp type destination-unreachable icmp code 4 counter name "told" drop
  }
"""
        self.internet.nft(replacing("ip", "hostile", body))

    # ------------------------------------------------------------------------------------------------- what is counted

    def leaks(self) -> int:
        """Packets with a private address that the internet saw so far."""
        return sum(self.internet.packets("inet", "leak").values())

    def loops(self) -> int:
        """How often the VPC router sent a packet for the LAN or a tunnel back into the VPC so far."""
        return self.vpc.packets("ip", "gateway")["looped"]

    def fragments(self) -> int:
        """Fragments that a hostile path dropped so far."""
        return self.internet.packets("ip", "hostile")["fragments"]


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every ordered pair of two different machines."""
    listed = list(names)
    return [(one, other) for one in listed for other in listed if one != other]
