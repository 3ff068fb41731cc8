"""Builds the studio, the internet and the VPCs, and keeps them as the cloud's records say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from rehearsal.interfaces import CloudView, InterfaceView, Nic, VpcView
from rehearsal.network import filters, netns, plan


@dataclass
class _Vpc:
    """What was applied for one VPC so far."""

    uplink: plan.Uplink
    subnets: dict[str, plan.Subnet] = field(default_factory=dict)
    routes: dict[tuple[int, IPv4Network], plan.Route] = field(default_factory=dict)
    gateway: str = ""
    reachable: frozenset[IPv4Address] = frozenset()


class Network:
    """All namespaces of one rehearsal. One task at a time may call ``sync``; cables are independent of each other."""

    def __init__(self) -> None:
        self._vpcs: dict[str, _Vpc] = {}
        self._free_uplinks: list[int] = []
        self._uplinks_used = 0
        self._numbers: dict[str, int] = {}
        self._security: dict[str, str] = {}

    async def start(self) -> None:
        """Make the studio and the internet: namespaces, links, addresses, NAT, leak counters."""
        for name in (plan.HOME, plan.INTERNET):
            netns.create(name, forwarding=True)
        for name in (plan.CONTROLLER, plan.PC):
            netns.create(name)
        await netns.ip(plan.studio_commands())
        await netns.ip(plan.home_commands(), namespace=plan.HOME)
        await netns.ip(plan.internet_commands(), namespace=plan.INTERNET)
        for name in (plan.CONTROLLER, plan.PC):
            card = plan.lan_nic(plan.LAN_HOSTS[name])
            await netns.ip(plan.machine_commands(card, mtu=plan.INTERNET_MTU, metadata=False), namespace=name)
        router = filters.home_router(
            inside=plan.LAN_BRIDGE, vpn_port=plan.VPN_PORT, vpn_server=plan.LAN_HOSTS[plan.WORKSTATION]
        )
        await netns.nft(plan.HOME, router)
        await netns.nft(plan.INTERNET, filters.leak_detector())

    async def leaks(self) -> int:
        """How many packets with a private address the internet saw."""
        listed = json.loads(await netns.nft_json(plan.INTERNET, "list", "counters", "table", "inet", "leak"))
        return sum(entry["counter"]["packets"] for entry in listed["nftables"] if "counter" in entry)

    # ------------------------------------------------------------------------------------------------------- VPCs

    async def sync(self, view: CloudView) -> None:
        """Bring the VPCs with instances, their subnets, routes and public addresses to what ``view`` says."""
        inhabited = {instance.interface.vpc_id for instance in view.instances if instance.state != "terminated"}
        wanted = {vpc.vpc_id: vpc for vpc in view.vpcs if vpc.vpc_id in inhabited or vpc.vpc_id in self._vpcs}
        for vpc_id in self._vpcs.keys() - wanted.keys():
            await self._remove_vpc(vpc_id)
        for vpc in wanted.values():
            known = self._vpcs.get(vpc.vpc_id) or await self._add_vpc(vpc)
            await self._sync_subnets(vpc, known)
            await self._sync_gateway(vpc, view, known)

    async def _add_vpc(self, vpc: VpcView) -> _Vpc:
        if self._free_uplinks:
            index = self._free_uplinks.pop()
        else:
            index = self._uplinks_used
            self._uplinks_used += 1
        uplink = plan.Uplink.number(index)
        netns.create(vpc.vpc_id, forwarding=True)
        await netns.ip(
            [f"link add name {plan.OUTSIDE} netns {vpc.vpc_id} type veth peer name {uplink.name} netns {plan.INTERNET}"]
        )
        await netns.ip(plan.vpc_commands(uplink), namespace=vpc.vpc_id)
        await netns.ip(
            [f"address add {uplink.provider}/30 dev {uplink.name}", f"link set {uplink.name} up"],
            namespace=plan.INTERNET,
        )
        self._vpcs[vpc.vpc_id] = known = _Vpc(uplink)
        return known

    async def _remove_vpc(self, vpc_id: str) -> None:
        known = self._vpcs.pop(vpc_id)
        await netns.ip([f"link del {known.uplink.name}"], namespace=plan.INTERNET)
        netns.remove(vpc_id)
        self._free_uplinks.append(int(known.uplink.name.removeprefix("vpc")))

    async def _sync_subnets(self, vpc: VpcView, known: _Vpc) -> None:
        for subnet in vpc.subnets:
            self._numbers.setdefault(subnet.subnet_id, len(self._numbers))
        wanted = plan.subnets(vpc, self._numbers)
        lines: list[str] = []
        for subnet_id in known.subnets.keys() - wanted.keys():
            gone = known.subnets[subnet_id]
            lines += gone.removal()
            known.routes = {
                key: route
                for key, route in known.routes.items()
                if route.table != gone.table and f"dev {gone.bridge} " not in route.way
            }
        for subnet_id in wanted.keys() - known.subnets.keys():
            lines += wanted[subnet_id].commands()
        await netns.ip(lines, namespace=vpc.vpc_id)
        known.subnets = wanted

    async def _sync_gateway(self, vpc: VpcView, view: CloudView, known: _Vpc) -> None:
        wanted = plan.routes(vpc, view, known.subnets, known.uplink)
        await netns.ip(plan.route_changes(known.routes, wanted), namespace=vpc.vpc_id)
        known.routes = wanted

        public = plan.public_addresses(vpc.vpc_id, view)
        gateway = filters.internet_gateway(public, outside=plan.OUTSIDE)
        if gateway != known.gateway:
            await netns.nft(vpc.vpc_id, gateway)
            known.gateway = gateway
        reachable = frozenset(public.values())
        way = f"via {known.uplink.gateway} dev {known.uplink.name}"
        lines = [f"route del {address}/32 {way}" for address in sorted(known.reachable - reachable)]
        lines += [f"route replace {address}/32 {way}" for address in sorted(reachable - known.reachable)]
        await netns.ip(lines, namespace=plan.INTERNET)
        known.reachable = reachable

    # ----------------------------------------------------------------------------------------------------- cables

    async def plug_studio(self, namespace: str, card: Nic) -> None:
        """Make the namespace of a machine of the studio and put its cable into the LAN."""
        netns.create(namespace)
        port = f"p-{namespace}"
        await netns.ip([_cable(namespace, card, port, plan.HOME)])
        await netns.ip([f"link set {port} master {plan.LAN_BRIDGE} up"], namespace=plan.HOME)
        await netns.ip(plan.machine_commands(card, mtu=plan.INTERNET_MTU, metadata=False), namespace=namespace)

    async def plug_instance(self, namespace: str, card: Nic, interface: InterfaceView, view: CloudView) -> None:
        """Make the namespace of an instance, guarded by its security groups, and put its cable into its subnet."""
        netns.create(namespace)
        await self.guard(namespace, interface, view)
        port = plan.port_name(interface.interface_id)
        await netns.ip([_cable(namespace, card, port, interface.vpc_id)])
        bridge = plan.bridge_name(interface.subnet_id)
        await netns.ip([f"link set {port} mtu {plan.VPC_MTU} master {bridge} up"], namespace=interface.vpc_id)
        await netns.ip(plan.machine_commands(card, mtu=plan.VPC_MTU, metadata=True), namespace=namespace)

    async def guard(self, namespace: str, interface: InterfaceView, view: CloudView) -> None:
        """Apply the security groups and the source/destination check of an instance, if they changed."""
        ruleset = filters.security_groups(interface, view)
        if self._security.get(namespace) != ruleset:
            await netns.nft(namespace, ruleset)
            self._security[namespace] = ruleset

    async def unplug(self, namespace: str, card: Nic) -> None:
        """Kill what runs in a machine's namespace and remove it with its cable."""
        self._security.pop(namespace, None)
        if netns.exists(namespace):
            netns.kill_processes(namespace)
            # the namespace itself goes when the kernel gets round to it; the cable must be gone now
            outcome = await netns.run(["ip", "-n", namespace, "link", "del", card.name])
            if outcome.rc != 0 and b"Cannot find device" not in outcome.stderr:
                raise netns.NetworkError(
                    f"the cable of {namespace} cannot be removed: {outcome.stderr.decode().strip()}"
                )
            netns.remove(namespace)


def _cable(namespace: str, card: Nic, port: str, far: str) -> str:
    return f"link add name {card.name} netns {namespace} address {card.mac} type veth peer name {port} netns {far}"
