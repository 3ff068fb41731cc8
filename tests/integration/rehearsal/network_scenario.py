"""Run under ``unshare``: builds the networks for made-up records, tries what passes, prints it as JSON."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from rehearsal.interfaces import (
    CloudView,
    InstanceView,
    InterfaceView,
    RouteView,
    SecurityGroupView,
    SecurityRule,
    SubnetView,
    VpcView,
)
from rehearsal.network import netns, plan
from rehearsal.network.topology import Network

ANYWHERE = (IPv4Network("0.0.0.0/0"),)
VPC = "vpc-0123456789abcdef0"
SUBNETS = ("subnet-0aaaaaaaaaaaaaaaa", "subnet-0bbbbbbbbbbbbbbbb")


def instance(
    number: int, address: str, public: str | None, *, subnet: int = 0, groups: tuple[str, ...], check: bool = True
) -> InstanceView:
    interface = InterfaceView(
        f"eni-{number:017x}",
        f"0a:00:00:00:00:{number:02x}",
        SUBNETS[subnet],
        VPC,
        IPv4Address(address),
        IPv4Address(public) if public else None,
        check,
        groups,
        f"i-{number:017x}",
    )
    return InstanceView(
        f"i-{number:017x}", "ami-1", "m7i.xlarge", "eu-central-1", "eu-central-1a", "running", "on-demand", 0.0, 1,
        interface, {}, b"", None, True, True, True,
    )  # fmt: skip


MANAGER = instance(1, "10.0.0.10", "198.18.20.1", groups=("sg-manager",), check=False)
NODE = instance(2, "10.0.0.21", None, groups=("sg-node",))
OTHER = instance(3, "10.0.0.140", None, subnet=1, groups=("sg-node",))
PUBLIC = instance(4, "10.0.0.30", "198.18.20.4", groups=("sg-node",))

GROUPS = {
    "sg-manager": SecurityGroupView(
        "sg-manager",
        (
            SecurityRule("tcp", 5986, 5986, (IPv4Network("198.18.1.2/32"),)),
            SecurityRule("-1", -1, -1, (IPv4Network("10.0.0.0/24"),)),
        ),
        (SecurityRule("-1", -1, -1, ANYWHERE),),
    ),
    "sg-node": SecurityGroupView(
        "sg-node",
        (SecurityRule("tcp", 3233, 3234, (), ("sg-manager",)), SecurityRule("icmp", 8, -1, ANYWHERE)),
        (SecurityRule("-1", -1, -1, ANYWHERE),),
    ),
}


def view(manager: InstanceView = MANAGER) -> CloudView:
    routes = (
        RouteView(IPv4Network("10.0.0.0/24"), "local"),
        RouteView(IPv4Network("0.0.0.0/0"), "igw-1"),
        RouteView(IPv4Network("192.168.1.0/24"), MANAGER.interface.interface_id),
    )
    return CloudView(
        (manager, NODE, OTHER, PUBLIC),
        (),
        (
            VpcView(
                VPC,
                IPv4Network("10.0.0.0/24"),
                "eu-central-1",
                (
                    SubnetView(SUBNETS[0], VPC, IPv4Network("10.0.0.0/25"), "eu-central-1a"),
                    SubnetView(SUBNETS[1], VPC, IPv4Network("10.0.0.128/25"), "eu-central-1b"),
                ),
                # the second subnet has no way to the internet
                {SUBNETS[0]: routes, SUBNETS[1]: routes[:1]},
            ),
        ),
        GROUPS,
    )


async def serve(namespace: str, port: int) -> asyncio.AbstractServer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        writer.close()

    return await asyncio.start_server(answer, sock=netns.listening_socket(namespace, "0.0.0.0", port))


async def tcp(namespace: str, address: str, port: int) -> str:
    """Who the far end thinks we are, or the name of the error."""
    try:
        reader, writer = await netns.open_connection(namespace, address, port, timeout=0.7)
        async with asyncio.timeout(0.7):
            text = (await reader.readline()).decode().strip()
        writer.close()
        return text
    except (OSError, TimeoutError) as error:
        return type(error).__name__


async def ping(namespace: str, address: str) -> bool:
    """Whether an ICMP echo is answered within a second."""
    with netns.entered(namespace):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    checksum = ~(sum(struct.unpack("!4H", head)) + 0) & 0xFFFF
    loop = asyncio.get_running_loop()
    try:
        raw.sendto(struct.pack("!BBHHH", 8, 0, checksum, 1, 1), (address, 0))
        async with asyncio.timeout(1.0):
            while True:
                packet = await loop.sock_recv(raw, 2048)
                if packet[20] == 0:
                    return True
    except (OSError, TimeoutError):
        return False
    finally:
        raw.close()


async def main() -> None:
    netns.own_namespaces()
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    network = Network()
    await network.start()
    await network.plug_studio(plan.WORKSTATION, plan.lan_nic(plan.LAN_HOSTS[plan.WORKSTATION]))
    now = view()
    await network.sync(now)
    for item in now.instances:
        await network.plug_instance(item.instance_id, plan.nic(item.interface, now), item.interface, now)
    manager, node, other, public = (item.instance_id for item in now.instances)
    servers = [await serve(manager, port) for port in (5986, 445)]
    servers += [await serve(name, port) for name in (node, other, public) for port in (3233, 5986)]
    servers.append(await serve(plan.INTERNET, 4566))
    servers.append(await serve(plan.PC, 8000))
    results: dict[str, object] = {
        "controller_to_manager_5986": await tcp(plan.CONTROLLER, "198.18.20.1", 5986),
        "controller_to_manager_445": await tcp(plan.CONTROLLER, "198.18.20.1", 445),
        "controller_to_api": await tcp(plan.CONTROLLER, "198.18.0.10", 4566),
        "controller_to_pc": await tcp(plan.CONTROLLER, "192.168.1.20", 8000),
        "controller_to_private": await tcp(plan.CONTROLLER, "10.0.0.10", 5986),
        "node_to_manager_445": await tcp(node, "10.0.0.10", 445),
        "other_subnet_to_manager_445": await tcp(other, "10.0.0.10", 445),
        "manager_to_node_3233": await tcp(manager, "10.0.0.21", 3233),
        "manager_to_other_subnet_3233": await tcp(manager, "10.0.0.140", 3233),
        "node_to_other_3233": await tcp(node, "10.0.0.140", 3233),
        "manager_to_node_5986": await tcp(manager, "10.0.0.21", 5986),
        "node_pings_other": await ping(node, "10.0.0.140"),
        "node_to_api": await tcp(node, "198.18.0.10", 4566),
        "other_to_api": await tcp(other, "198.18.0.10", 4566),
        "manager_to_api": await tcp(manager, "198.18.0.10", 4566),
        "manager_to_public_of_node": await tcp(manager, "198.18.20.4", 3233),
        "manager_pings_public_of_node": await ping(manager, "198.18.20.4"),
        "pc_reaches_metadata": await tcp(plan.PC, "169.254.169.254", 80),
        "leaks": await network.leaks(),
    }
    # traffic for the studio goes to the manager, which forwards it
    netns.set_sysctls(manager, {"net/ipv4/ip_forward": "1"})
    await netns.ip(
        ["link add name tun0 type bridge", "address add 192.168.1.99/24 dev tun0", "link set tun0 up"],
        namespace=manager,
    )
    results["node_to_studio_by_manager"] = await ping(node, "192.168.1.99")
    checked = view(replace(MANAGER, interface=replace(MANAGER.interface, source_dest_check=True)))
    await network.guard(manager, checked.instances[0].interface, checked)
    results["node_to_studio_with_check"] = await ping(node, "192.168.1.99")
    results["node_to_manager_with_check"] = await tcp(node, "10.0.0.10", 445)

    # the manager is replaced: its route leads nowhere, its public address is gone, its namespace too
    await network.unplug(manager, plan.nic(MANAGER.interface, now))
    gone = replace(now, instances=(replace(MANAGER, state="terminated"), NODE, OTHER, PUBLIC))
    await network.sync(gone)
    results["namespace_after_unplug"] = netns.exists(manager)
    results["public_after_unplug"] = await tcp(plan.CONTROLLER, "198.18.20.1", 5986)
    await network.sync(replace(now, instances=(), vpcs=()))
    results["vpc_after_deletion"] = netns.exists(VPC)
    print(json.dumps(results))


asyncio.run(main())
