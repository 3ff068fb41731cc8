r"""Persistent routes: exactly the wanted ones of ours, and no other route is ever touched.

Which are ours is remembered in ``state.json`` (key ``routes``) before they are set, so that a power cut never leaves a
route that nobody calls his own.  A wanted route that somebody else had set stays his, also when it is no longer wanted.
``route.exe`` sets IPv4 routes; the types hold IPv6 as well, which `require_sound` refuses until there is a way.

``route.exe -p`` keeps persistent routes in the registry as value names ``network,mask,gateway,metric`` under
``HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\PersistentRoutes`` (Microsoft Learn, "route").
Nothing is read from words that Windows translates: registry values and rows of numbers only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from farmnode.errors import FarmNodeError
from farmnode.programs import Programs

_ROUTE: Final = "route.exe"
_PARAMETERS: Final = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
_PERSISTENT: Final = _PARAMETERS + r"\PersistentRoutes"
_NUMBERS: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
_VALUE = re.compile(rf"^\s+({_NUMBERS}),({_NUMBERS}),({_NUMBERS}),(\d+)\s+REG_SZ\b", re.MULTILINE)
_ROW = re.compile(rf"^\s*({_NUMBERS})\s+({_NUMBERS})\s+(\S.*?)\s+({_NUMBERS})\s+(\d+)\s*$", re.MULTILINE)


Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Route:
    """A way to ``network`` through ``gateway``. Routes sort by version, network, gateway and metric."""

    network: Network
    gateway: Address
    metric: int = 1

    def __lt__(self, other: Route) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, int, int, int]:
        network = self.network
        return (network.version, int(network.network_address), network.prefixlen, int(self.gateway), self.metric)

    def __str__(self) -> str:
        return f"{self.network} via {self.gateway} metric {self.metric}"

    @property
    def arguments(self) -> list[str]:
        """As ``route.exe`` names it."""
        return [str(self.network.network_address), "MASK", str(self.network.netmask), str(self.gateway)]

    def as_json(self) -> dict[str, Any]:
        return {"network": str(self.network), "gateway": str(self.gateway), "metric": self.metric}


@dataclass(frozen=True)
class Active:
    """The routes in use: through gateways, and the networks on the machine's own links with its address there."""

    routes: frozenset[tuple[IPv4Network, IPv4Address]]
    links: frozenset[tuple[IPv4Network, IPv4Address]]
    null: frozenset[tuple[IPv4Network, IPv4Address]] = frozenset()  # over the loopback adapter: dropped
    default: IPv4Address | None = None  # the default gateway, of several the one with the smallest metric


@dataclass(frozen=True)
class Plan:
    """What makes the wanted set true. ``ours`` is what to remember afterwards."""

    add: tuple[Route, ...] = ()
    remove: tuple[Route, ...] = ()
    keep: tuple[Route, ...] = ()
    activate: tuple[Route, ...] = ()  # persistent already, but not in use
    ours: frozenset[Route] = frozenset()

    @property
    def changes(self) -> bool:
        return bool(self.add or self.remove or self.activate)


def route_from_json(data: Any, where: str) -> Route:
    """The route that ``data`` describes; FarmNodeError names ``where`` it was found when something is amiss."""
    if not isinstance(data, dict) or not {"network", "gateway"} <= set(data) <= {"network", "gateway", "metric"}:
        raise FarmNodeError("bad_desired_state", f"{where}: a route has network, gateway and metric, not {data!r}.")
    metric = data.get("metric", 1)
    if isinstance(metric, bool) or not isinstance(metric, int) or not 0 < metric < 9999:
        raise FarmNodeError("bad_desired_state", f"{where}: a metric is a number from 1 to 9998, not {metric!r}.")
    if not isinstance(data["network"], str) or not isinstance(data["gateway"], str):
        raise FarmNodeError("bad_desired_state", f"{where}: network and gateway are text, not {data!r}.")
    try:
        network, gateway = ip_network(data["network"]), ip_address(data["gateway"])
    except ValueError as error:
        raise FarmNodeError("bad_desired_state", f"{where}: {error}.") from None
    if network.version != gateway.version:
        raise FarmNodeError("bad_desired_state", f"{where}: {network} and {gateway} are of two versions of IP.")
    return Route(network, gateway, metric)


def on_link(gateway: Address, links: Iterable[tuple[IPv4Network, IPv4Address]]) -> bool:
    """Can the machine reach ``gateway`` without another gateway, and is it another machine?"""
    links = list(links)
    return any(gateway in network for network, _ in links) and all(gateway != own for _, own in links)


def require_sound(wanted: Iterable[Route], links: Iterable[tuple[IPv4Network, IPv4Address]]) -> None:
    """FarmNodeError when a gateway cannot be reached, or networks overlap each other or one of the machine's own."""
    links = sorted(links)
    routes = sorted(wanted)
    for index, route in enumerate(routes):
        if route.network.version != 4:
            raise FarmNodeError("route", f"{route} is not IPv4; other routes cannot be set yet, leave it out.")
        if not on_link(route.gateway, links):
            raise FarmNodeError(
                "route",
                f"the gateway of {route} is no other machine in {_list(network for network, _ in links)}; "
                "name one that this machine reaches directly.",
            )
        for network, own in links:
            if route.network.overlaps(network):
                raise FarmNodeError(
                    "route", f"{route.network} overlaps this machine's own network {network} (address {own})."
                )
        for other in routes[index + 1 :]:
            if route.network.overlaps(other.network):
                raise FarmNodeError("route", f"{route} and {other} overlap; want one of them.")


def plan(wanted: Iterable[Route], ours: Iterable[Route], present: Iterable[Route], active: Active) -> Plan:
    """What to do so that of ours exactly ``wanted`` are ``present``.

    A wanted route that someone else set is kept and stays theirs.  FarmNodeError when someone else set it with another
    metric: Windows has no room for both.
    """
    wanted, ours, present = frozenset(wanted), frozenset(ours), frozenset(present)
    remove = (ours - wanted) & present
    add = wanted - present
    for route in add:
        for other in present - remove:
            if (other.network, other.gateway) == (route.network, route.gateway):
                raise FarmNodeError(
                    "route",
                    f"cannot set {route}: somebody else set {other}. Remove it with 'route DELETE "
                    f"{route.network.network_address}' or want that metric.",
                )
    keep = wanted & present
    return Plan(
        add=tuple(sorted(add)),
        remove=tuple(sorted(remove)),
        keep=tuple(sorted(keep)),
        activate=tuple(sorted(route for route in keep if (route.network, route.gateway) not in active.routes)),
        ours=add | (keep & ours),
    )


def parse_persistent(text: str) -> frozenset[Route]:
    """The routes in what ``reg.exe query`` says about the key."""
    return frozenset(
        Route(IPv4Network(f"{network}/{mask}"), IPv4Address(gateway), int(metric))
        for network, mask, gateway, metric in _VALUE.findall(text)
    )


def parse_active(text: str) -> Active:
    """The active routes in what ``route.exe PRINT -4`` says.

    Rows of the active table have five columns: network, mask, gateway, own address, metric; the gateway of a network on
    the machine's own link is a word.  A way through a gateway over the loopback adapter is a null route.  Rows of the
    persistent table have four columns.
    """
    routes: set[tuple[IPv4Network, IPv4Address]] = set()
    links: set[tuple[IPv4Network, IPv4Address]] = set()
    null: set[tuple[IPv4Network, IPv4Address]] = set()
    defaults: list[tuple[int, IPv4Address]] = []
    for address, mask, gateway, own, metric in _ROW.findall(text):
        network = IPv4Network(f"{address}/{mask}")
        numeric = re.fullmatch(_NUMBERS, gateway) is not None
        if IPv4Address(own).is_loopback:
            if numeric and not network.is_loopback:
                null.add((network, IPv4Address(gateway)))
        elif numeric:
            routes.add((network, IPv4Address(gateway)))
            if network.prefixlen == 0:
                defaults.append((int(metric), IPv4Address(gateway)))
        elif 0 < network.prefixlen < 32 and not network.is_multicast:
            links.add((network, IPv4Address(own)))
    default = min(defaults)[1] if defaults else None
    return Active(frozenset(routes), frozenset(links), frozenset(null), default)


class RouteTable:
    """The machine's routes, through ``route.exe`` and ``reg.exe``."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def persistent(self) -> frozenset[Route]:
        done = self._programs.run("reg.exe", ["query", _PERSISTENT])
        if done.rc == 0:
            return parse_persistent(done.stdout)
        # The text that tells "no such key" from other errors is translated, so ask about the key above it.
        above = self._programs.check("reg.exe", ["query", _PARAMETERS])
        if _PERSISTENT.rpartition("\\")[2].lower() in above.stdout.lower():
            raise FarmNodeError("program", f"reg.exe cannot read {_PERSISTENT}: {done.text}")
        return frozenset()

    def active(self) -> Active:
        return parse_active(self._programs.check(_ROUTE, ["PRINT", "-4"]).stdout)

    def apply(self, change: Plan) -> None:
        """Carry out ``change`` and see that it is so: the exit code of ``route.exe`` is 0 for some failures."""
        for route in change.remove:
            self._programs.check(_ROUTE, ["DELETE", *route.arguments])
        said = ""
        for options, routes in (([], change.activate), (["-p"], change.add)):
            for route in routes:
                words = [*options, "ADD", *route.arguments, "METRIC", str(route.metric)]
                said += self._programs.check(_ROUTE, words).text + " "
        present, used = self.persistent(), self.active().routes
        # A route may be removed for the sake of one that differs in its metric only; the active table tells none.
        stay = {(route.network, route.gateway) for route in (*change.add, *change.keep)}
        wrong = [route for route in change.add if route not in present]
        wrong += [route for route in change.remove if route in present or (route.network, route.gateway) in used - stay]
        if wrong:
            raise FarmNodeError("route", f"route.exe did not change {_list(wrong)}: {said.strip() or 'no output'}")
        idle = [route for route in (*change.activate, *change.add) if (route.network, route.gateway) not in used]
        if idle:
            raise FarmNodeError(
                "route",
                f"route.exe keeps {_list(idle)} for the next start, but Windows does not use it now: "
                f"{said.strip() or 'no output'}",
            )


def _list(things: Iterable[object]) -> str:
    return ", ".join(str(each) for each in things) or "nothing"
