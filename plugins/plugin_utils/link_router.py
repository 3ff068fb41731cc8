# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the studio's side must have that no playbook can set: the lines for the home router, and those for the PCs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from .link import Settings


def far_networks(settings: Settings) -> list[IPv4Network]:
    """The networks behind the workstation. The tunnel's own belong to them: its ends speak with addresses of it."""
    return [settings.cloud, settings.tunnel, settings.remote]


def port_forward(settings: Settings) -> str:
    """The one rule of the router for incoming traffic; empty when the server is in the cloud."""
    workstation = settings.first("workstation")
    if settings.side != "studio" or workstation is None:
        return ""
    return (
        f"forward UDP port {settings.port} (external) to {workstation.address} port {settings.port} (internal), "
        "protocol UDP, for any source"
    )


def router_route(network: IPv4Network, gateway: IPv4Address) -> str:
    """A static route as the pages of home routers ask for it."""
    return f"static route: destination {network.network_address}, mask {network.netmask}, gateway {gateway}"


def windows_route(network: IPv4Network, gateway: IPv4Address) -> str:
    """A persistent route, for an administrator's prompt on a PC."""
    return f"route -p ADD {network.network_address} MASK {network.netmask} {gateway} METRIC 1"


def linux_route(network: IPv4Network, gateway: IPv4Address) -> str:
    """The same until the next boot, on a PC with Linux."""
    return f"ip route replace {network} via {gateway}"


def router_lines(settings: Settings) -> list[dict[str, str]]:
    """``where``, ``what`` and ``line`` for everything that has to be set by hand.

    Persistent routes on the PCs are the recommended way: with a route on the router alone, a connection passes the
    router in one direction only, and a router that drops what it has not seen begin lets pings through but no TCP.
    """
    workstation = settings.first("workstation")
    if workstation is None:
        return []
    lines = []
    if forward := port_forward(settings):
        lines.append({"where": "home router", "what": "port forward, needed", "line": forward})
    for network in far_networks(settings):
        line = windows_route(network, workstation.address)
        lines.append({"where": "each PC (Windows)", "what": "route, recommended", "line": line})
    for network in far_networks(settings):
        line = linux_route(network, workstation.address)
        lines.append({"where": "each PC (Linux)", "what": "route, recommended", "line": line})
    for network in far_networks(settings):
        line = router_route(network, workstation.address)
        lines.append({"where": "home router", "what": "route, for all other devices", "line": line})
    lines.append(
        {
            "where": "home router",
            "what": "advice",
            "line": "drop 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 towards the internet: nothing for the cloud may "
            "leave while the tunnel is down",
        }
    )
    return lines
