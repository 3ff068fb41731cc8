"""The IPv4 routes of a host: real routes of its machine, and those that Windows keeps in the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from rehearsal.interfaces import RehearsalError
from rehearsal.windows.errors import WindowsError

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

# Each persistent route is a value "network,mask,gateway,metric" without data (reference: Windows registry, TCP/IP).
PARAMETERS = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
PERSISTENT_ROUTES = PARAMETERS + r"\PersistentRoutes"
INTERFACE_METRIC = 15  # automatic metric of an Ethernet interface of 2 Gbit/s and more
LOOPBACK_METRIC = 331


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
        gateway = entry.get("gateway")
        found.append(
            Route(
                IPv4Network(destination),
                IPv4Address(gateway) if gateway else None,
                entry.get("dev", ""),
                int(entry.get("metric", 0)),
            )
        )
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


async def delete(host: WindowsHost, network: IPv4Network, gateway: IPv4Address | None) -> None:
    """Delete the routes to ``network`` (through ``gateway``), also from the registry; WindowsError 1168 when none."""
    gone = [
        route
        for route in await routes(host)
        if route.network == network and route.gateway is not None and gateway in (None, route.gateway)
    ]
    for route in gone:
        await host.platform.ip(
            "-4", "route", "del", str(network), "via", str(route.gateway), "metric", str(route.metric)
        )
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
        found.append((value.name, Route(IPv4Network(f"{network}/{mask}"), IPv4Address(gateway), "", int(metric))))
    return found


def keep(host: WindowsHost, network: IPv4Network, gateway: IPv4Address, metric: int) -> None:
    """Make a route survive a boot."""
    name = f"{network.network_address},{network.netmask},{gateway},{metric}"
    host.registry.set(PERSISTENT_ROUTES, name, "REG_SZ", "")


async def restore_persistent_routes(host: WindowsHost) -> None:
    """Set the routes of the registry, as Windows does at boot; what cannot be set goes to the log."""
    for _, route in persistent(host):
        assert route.gateway is not None  # the registry's form has always one
        try:
            await add(host, route.network, route.gateway, max(route.metric, 1))
        except WindowsError as error:
            if error.code != 183:
                host.log(f"persistent route {route.network} via {route.gateway}: {error}")


async def apply_forwarding(host: WindowsHost) -> None:
    """Route between interfaces when the registry says so; Windows reads ``IPEnableRouter`` at boot only."""
    await host.platform.forwarding(host.registry.data(PARAMETERS, "IPEnableRouter", 0) == 1)
