"""The IPv4 routes of a host: real routes of its machine, and those that Windows keeps in the registry."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rehearsal.interfaces import Platform, RehearsalError
from rehearsal.windows.errors import WindowsError

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

# Each persistent route is a value "network,mask,gateway,metric" without data (reference: Windows registry, TCP/IP).
PARAMETERS = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
PERSISTENT_ROUTES = PARAMETERS + r"\PersistentRoutes"
INTERFACE_METRIC = 15  # automatic metric of an Ethernet interface of 2 Gbit/s and more
LOOPBACK_METRIC = 331
LOOPBACK_INDEX = 1
LOOPBACK_MTU = 4294967295
# Adapters that OpenVPN's installer makes (OpenVPN/openvpn-build, msi.wxs). They are there whether or not a tunnel is;
# the device of the tunnel that stands in exists only while one is. Their indexes are ours.
OPENVPN_KEY = r"HKLM\SOFTWARE\OpenVPN"
TUNNEL_ADAPTERS = {1001: "OpenVPN TAP-Windows6", 1002: "OpenVPN Data Channel Offload"}
# Names of the adapters that tapctl.exe made. Windows keeps its adapters elsewhere.
FURTHER_ADAPTERS = r"HKLM\SYSTEM\CurrentControlSet\Control\Network\Further"
# Where the forwarding of each adapter is kept, by its name. Windows keeps it in a format that is not documented.
FORWARDING = r"HKLM\SYSTEM\CurrentControlSet\Control\Nsi\Forwarding"
# What marks a persistent route over the loopback adapter. How Windows remembers the adapter is not documented.
_NULL = "if 1"
_TUNNEL_DEVICE = "tun"
_SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Interface:
    """A network interface of the host. ``index`` is what Windows calls IF."""

    index: int
    name: str
    mac: str
    address: IPv4Address
    network: IPv4Network


@dataclass(frozen=True)
class Route:
    """A route. ``metric`` is that of the route alone; gateway None means on-link."""

    network: IPv4Network
    gateway: IPv4Address | None
    interface: str
    metric: int
    null: bool = False  # over the loopback adapter: what takes it is dropped


@dataclass(frozen=True)
class Adapter:
    """A network adapter as netsh lists it. ``device`` is what carries it here; None while a tunnel adapter is idle."""

    index: int
    name: str
    device: str | None
    mtu: int
    connected: bool


async def _ip_json(host: WindowsHost, *arguments: str) -> list[dict[str, Any]]:
    outcome = await host.platform.ip("-j", "-4", *arguments)
    if outcome.rc:
        raise RehearsalError(f"{host.name}: ip {' '.join(arguments)} failed: {outcome.stderr.decode(errors='replace')}")
    entries: list[dict[str, Any]] = json.loads(outcome.stdout or b"[]")
    return entries


async def interfaces(host: WindowsHost) -> list[Interface]:
    """The interfaces with an IPv4 address, loopback excepted."""
    links = {entry["ifname"]: entry.get("address", "") for entry in await _ip_json(host, "link", "show")}
    found = []
    for entry in await _ip_json(host, "addr", "show"):
        for address in entry.get("addr_info", []):
            if entry["ifname"] == "lo" or address.get("family") != "inet":
                continue
            local = IPv4Address(address["local"])
            network = IPv4Network(f"{local}/{address['prefixlen']}", strict=False)
            found.append(
                Interface(int(entry["ifindex"]), entry["ifname"], links.get(entry["ifname"], ""), local, network)
            )
            break
    return found


async def routes(host: WindowsHost) -> list[Route]:
    """The routes in force."""
    found = []
    for entry in await _ip_json(host, "route", "show"):
        destination = "0.0.0.0/0" if entry["dst"] == "default" else entry["dst"]
        network, metric = IPv4Network(destination), int(entry.get("metric", 0))
        gateway = entry.get("gateway")
        null = entry.get("type") == "blackhole"
        if null:
            gateway = next(
                (kept.gateway for _, kept in persistent(host) if kept.null and kept.network == network), None
            )
        found.append(Route(network, IPv4Address(gateway) if gateway else None, entry.get("dev", ""), metric, null))
    return found


async def add(host: WindowsHost, network: IPv4Network, gateway: IPv4Address, metric: int) -> None:
    """Add a route; WindowsError with the text of route.exe when it exists or its gateway is not on-link."""
    on_link = [interface for interface in await interfaces(host) if gateway in interface.network]
    if not on_link:
        raise WindowsError(
            87,
            "The route addition failed: Either the interface index is wrong or the gateway does not lie on the same "
            "network as the interface. Check the IP Address Table for the machine.",
        )
    if any(route.network == network and route.gateway == gateway for route in await routes(host)):
        raise WindowsError(183, "The route addition failed: The object already exists.")
    outcome = await host.platform.ip(
        "-4", "route", "add", str(network), "via", str(gateway), "dev", on_link[0].name, "metric", str(metric)
    )
    if outcome.rc:
        raise WindowsError(87, f"The route addition failed: {outcome.stderr.decode(errors='replace').strip()}")


async def add_null(host: WindowsHost, network: IPv4Network, gateway: IPv4Address, metric: int) -> None:
    """Add a route over the loopback adapter: it drops. WindowsError as route.exe is reported to refuse it.

    Source: reports that a gateway of the machine's own network is taken, and 127.0.0.1 is not.
    """
    if not any(gateway in interface.network for interface in await interfaces(host)):
        raise WindowsError(87, "The route addition failed: The parameter is incorrect.")
    if any(route.network == network and route.null for route in await routes(host)):
        raise WindowsError(183, "The route addition failed: The object already exists.")
    outcome = await host.platform.ip("-4", "route", "add", "blackhole", str(network), "metric", str(metric))
    if outcome.rc:
        raise WindowsError(87, f"The route addition failed: {outcome.stderr.decode(errors='replace').strip()}")


async def delete(host: WindowsHost, network: IPv4Network, gateway: IPv4Address | None) -> None:
    """Delete the routes to ``network`` (through ``gateway``), also from the registry; WindowsError 1168 when none."""
    gone = [
        route
        for route in await routes(host)
        if route.network == network and route.gateway is not None and gateway in (None, route.gateway)
    ]
    for route in gone:
        way = ["blackhole", str(network)] if route.null else [str(network), "via", str(route.gateway)]
        await host.platform.ip("-4", "route", "del", *way, "metric", str(route.metric))
    stored = [
        (name, entry)
        for name, entry in persistent(host)
        if entry.network == network and gateway in (None, entry.gateway)
    ]
    for name, _ in stored:
        host.registry.unset(PERSISTENT_ROUTES, name)
    if not gone and not stored:
        raise WindowsError(1168, "The route deletion failed: Element not found.")


def persistent(host: WindowsHost) -> list[tuple[str, Route]]:
    """The routes of the registry, each with the name of its value."""
    found = []
    for value in host.registry.values(PERSISTENT_ROUTES):
        fields = value.name.split(",")
        if len(fields) != 4:
            continue
        network, mask, gateway, metric = fields
        route = Route(IPv4Network(f"{network}/{mask}"), IPv4Address(gateway), "", int(metric), null=value.data == _NULL)
        found.append((value.name, route))
    return found


def keep(host: WindowsHost, network: IPv4Network, gateway: IPv4Address, metric: int, *, null: bool = False) -> None:
    """Make a route survive a boot."""
    name = f"{network.network_address},{network.netmask},{gateway},{metric}"
    host.registry.set(PERSISTENT_ROUTES, name, "REG_SZ", _NULL if null else "")


async def restore_persistent_routes(host: WindowsHost) -> None:
    """Set the routes of the registry, as Windows does at boot; what cannot be set goes to the log."""
    for _, route in persistent(host):
        assert route.gateway is not None  # the registry's form has always one
        try:
            set_route = add_null if route.null else add
            await set_route(host, route.network, route.gateway, max(route.metric, 1))
        except WindowsError as error:
            if error.code != 183:
                host.log(f"persistent route {route.network} via {route.gateway}: {error}")


async def apply_forwarding(host: WindowsHost) -> None:
    """Route between interfaces when the registry says so; Windows reads ``IPEnableRouter`` at boot only.

    Adapters that have a setting of their own follow that.
    """
    await host.platform.forwarding(host.registry.data(PARAMETERS, "IPEnableRouter", 0) == 1)
    for adapter in await adapters(host):
        kept = host.registry.data(FORWARDING, adapter.name)
        if kept is not None and adapter.device is not None:
            await set_device_forwarding(host.platform, adapter.device, kept == 1)


async def adapters(host: WindowsHost) -> list[Adapter]:
    """The adapters as netsh lists them: the cards, and those of OpenVPN when it is installed; loopback excepted."""
    found, tunnels = [], []
    for link in await _ip_json(host, "link", "show"):
        name, mtu = link["ifname"], int(link.get("mtu", 1500))
        if name.startswith(_TUNNEL_DEVICE):
            tunnels.append((name, mtu))
        elif name != "lo":
            shown = "Ethernet" if name == host.platform.nic.name else name
            found.append(Adapter(int(link["ifindex"]), shown, name, mtu, connected=True))
    if host.registry.exists(OPENVPN_KEY):
        names = tunnel_adapters(host)
        devices = dict(zip(names, sorted(tunnels), strict=False))
        for index, name in names.items():
            device, mtu = devices.get(index, (None, 1500))
            found.append(Adapter(index, name, device, mtu, connected=device is not None))
    return found


def tunnel_adapters(host: TunnelHost) -> dict[int, str]:
    """OpenVPN's adapters by index: those of its installer, and those that were made later."""
    further = enumerate(host.registry.values(FURTHER_ADAPTERS), max(TUNNEL_ADAPTERS) + 1)
    return {**TUNNEL_ADAPTERS, **{index: value.name for index, value in further}}


def tap_adapters(host: TunnelHost) -> list[str]:
    """The adapters that a server can use."""
    return [name for name in tunnel_adapters(host).values() if name != TUNNEL_ADAPTERS[1002]]


async def forwards(host: WindowsHost, adapter: Adapter) -> bool:
    """Whether packets that arrive on the adapter are forwarded."""
    if adapter.device is None:
        router = host.registry.data(FORWARDING, adapter.name)
        return bool(router == 1)
    outcome = await host.platform.spawn(
        ["sysctl", "-n", _forwarding_key(adapter.device)], env=_environment(), cwd=Path("/")
    )
    if outcome.rc:
        raise RehearsalError(f"{host.name}: {outcome.stderr.decode(errors='replace').strip()}")
    return outcome.stdout.strip() == b"1"


async def set_forwarding(host: WindowsHost, adapter: Adapter, enabled: bool) -> None:
    """Let an adapter forward or not, at once and after each boot (netsh: the default store is ``persistent``)."""
    host.registry.set(FORWARDING, adapter.name, "REG_DWORD", int(enabled))
    if adapter.device is not None:
        await set_device_forwarding(host.platform, adapter.device, enabled)


async def set_device_forwarding(platform: Platform, device: str, enabled: bool) -> None:
    """Switch the forwarding of what arrives on ``device``, on Windows as on Linux.

    RehearsalError when there is no such device.
    """
    outcome = await platform.spawn(
        ["sysctl", "-w", f"{_forwarding_key(device)}={int(enabled)}"], env=_environment(), cwd=Path("/")
    )
    if outcome.rc:
        raise RehearsalError(f"{platform.name}: {outcome.stderr.decode(errors='replace').strip()}")


class _Registry(Protocol):
    def data(self, path: str, name: str = "", default: Any = None) -> Any: ...
    def values(self, path: str) -> Any: ...


class TunnelHost(Protocol):
    """What of a host decides about the devices of its tunnels."""

    @property
    def registry(self) -> _Registry: ...
    @property
    def platform(self) -> Platform: ...


async def prepare_tunnel_adapters(host: TunnelHost) -> None:
    """Let the device of the next tunnel have the forwarding that was set for OpenVPN's adapters."""
    kept = [host.registry.data(FORWARDING, name) for name in tunnel_adapters(host).values()]
    if any(value is not None for value in kept):
        await set_device_forwarding(host.platform, "default", 1 in kept)


def _forwarding_key(device: str) -> str:
    return f"net.ipv4.conf.{device.replace('.', '/')}.forwarding"


def _environment() -> dict[str, str]:
    return {"PATH": f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"}
