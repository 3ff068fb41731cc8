"""Run under ``unshare``: two machines with one cable, a tunnel between them by OpenVPN's service; prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from rehearsal import openvpn
from rehearsal.interfaces import Nic
from rehearsal.machine import MachinePlatform
from rehearsal.network import netns
from rehearsal.packages import openvpn_package
from rehearsal.windows import network
from rehearsal.windows.files import Files
from rehearsal.windows.registry import Registry

CABLE = IPv4Network("198.18.9.0/24")
FOLDER = r"C:\Program Files\OpenVPN\config-auto"


class Host:
    def __init__(self, root: Path, name: str, address: str) -> None:
        self.name = name
        self.files = Files(root, {}, lambda: None)
        self.registry = Registry({}, lambda: None)
        nothing = {"on_serial": print, "on_power": print, "on_password": print}
        card = Nic("Ethernet", "02:00:00:00:00:01", IPv4Address(address), CABLE, None)
        self.platform = MachinePlatform(name, name, card, key_name=None, **nothing)  # type: ignore[arg-type]
        package = openvpn_package()
        for path in package["files"]:
            self.files.make_directory(path.rpartition("\\")[0])
            self.files.write_bytes(path, b"")
        for key, value, kind, data in package["registry"]:
            self.registry.set(key, value, kind, data)

    def log(self, text: str) -> None: ...

    def configure(self, *lines: str) -> None:
        self.files.write_bytes(FOLDER + r"\tunnel.ovpn", "\r\n".join(["\ufeffdev tun", *lines, ""]).encode())

    async def routes(self) -> list[str]:
        found = json.loads((await self.platform.ip("-j", "route")).stdout)
        return [f"{route['dst']} {route['dev']}" for route in found]


async def talk(server: Host, client: Host, address: str) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello from " + writer.get_extra_info("peername")[0].encode())
        writer.close()

    listener = await server.platform.listen(8000, serve, address=address)
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await client.platform.connect(address, 8000, timeout=1)
                break
            except (OSError, TimeoutError):
                await asyncio.sleep(0.2)
    text = (await reader.read()).decode()
    writer.close()
    listener.close()
    return text


async def tunnel_device(host: Host) -> None:
    async with asyncio.timeout(20):
        while "10.8.0." not in (await host.platform.ip("addr")).stdout.decode():
            await asyncio.sleep(0.1)


async def forwarding(host: Host) -> dict[str, str]:
    where = {"all": "all", "tun0": "tun0", "eth0": "eth0"}
    paths = [f"/proc/sys/net/ipv4/conf/{name}/forwarding" for name in where]
    outcome = await host.platform.spawn(["cat", *paths], env={"PATH": "/usr/bin:/bin"}, cwd=Path("/"))
    return dict(zip(where, outcome.stdout.decode().split(), strict=True))


async def main(folder: Path) -> dict[str, object]:
    netns.own_namespaces()
    for name in ("a", "b"):
        netns.create(name)
    addresses = {"a": "198.18.9.1", "b": "198.18.9.2"}
    await netns.ip(["link add eth0 type veth peer name eth0 netns b"], namespace="a")
    for name, address in addresses.items():
        await netns.ip([f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"], namespace=name)
    hosts = {name: Host(folder / name, name, address) for name, address in addresses.items()}
    common = ("proto udp4", "port 1194", "keepalive 1 3", "windows-driver wintun", 'dev-node "OpenVPN TAP-Windows6"')
    hosts["a"].configure("remote 198.18.9.2", "ifconfig 10.8.0.1 10.8.0.2", "route 10.99.0.0 255.255.255.0", *common)
    hosts["b"].configure("remote 198.18.9.1", "ifconfig 10.8.0.2 10.8.0.1", *common)
    services = [asyncio.create_task(openvpn.AutomaticService()(host, "OpenVPNService")) for host in hosts.values()]
    result: dict[str, object] = {}
    try:
        for host in hosts.values():
            await tunnel_device(host)
        result["talk"] = await talk(hosts["a"], hosts["b"], "10.8.0.1")
        result["routes"] = await hosts["a"].routes()
        gateway = hosts["a"]
        await network.set_device_forwarding(gateway.platform, "tun0", True)
        result["one interface"] = await forwarding(gateway)
        await gateway.platform.forwarding(True)
        result["router"] = await forwarding(gateway)
    finally:
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
    result["processes left"] = netns.processes("a") + netns.processes("b")
    result["routes after"] = await hosts["a"].routes()
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
