r"""Null routes: the last resort for networks beyond the tunnel; nothing for them ever leaves by the default route.

Windows has no route that drops.  What is reported to work is a route to the default gateway over the loopback adapter,
whose index is 1: ``route -p ADD NETWORK MASK MASK GATEWAY METRIC 9999 IF 1``.  The metric lets every other route win,
the tunnel's among them; when that is gone, packets end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from farmnode.errors import FarmNodeError
from farmnode.programs import Programs
from farmnode.routes import Route

METRIC: Final = 9999
_LOOPBACK: Final = "1"
_ROUTE: Final = "route.exe"


@dataclass(frozen=True)
class Plan:
    """What makes the wanted set true. ``renew`` are there in part only: they are removed and set again."""

    add: tuple[IPv4Network, ...] = ()
    renew: tuple[IPv4Network, ...] = ()
    remove: tuple[IPv4Network, ...] = ()
    keep: tuple[IPv4Network, ...] = ()
    ours: frozenset[IPv4Network] = frozenset()

    @property
    def changes(self) -> bool:
        return bool(self.add or self.renew or self.remove)

    def as_json(self) -> dict[str, Any]:
        return {
            "added": [str(network) for network in (*self.add, *self.renew)],
            "removed": [str(network) for network in self.remove],
            "kept": [str(network) for network in self.keep],
        }


def network_from_json(data: Any, where: str) -> IPv4Network:
    """The network that ``data`` names; FarmNodeError says where it stood when it is none."""
    try:
        if not isinstance(data, str) or "/" not in data:
            raise ValueError(f"{data!r} is no network such as 10.0.0.0/24")
        network = IPv4Network(data)
        if not 0 < network.prefixlen < 32:
            raise ValueError(f"{data!r} is not a network of some but not all addresses")
    except ValueError as error:
        raise FarmNodeError("bad_desired_state", f"{where}: {error}.") from None
    return network


def require_sound(wanted: Iterable[IPv4Network], links: Iterable[tuple[IPv4Network, IPv4Address]]) -> None:
    """FarmNodeError when a network would take addresses away from one that the machine is part of.

    The same network is fine: the link's own route wins by its metric.
    """
    links = list(links)
    for network in wanted:
        for link, own in links:
            if network != link and network.subnet_of(link):
                raise FarmNodeError(
                    "route", f"a null route for {network} would cut off a part of {link}, where this machine is {own}."
                )


def plan(
    wanted: Iterable[IPv4Network],
    ours: Iterable[IPv4Network],
    persistent: Mapping[IPv4Network, IPv4Address],
    active: Mapping[IPv4Network, IPv4Address],
) -> Plan:
    """What to do so that of ours exactly ``wanted`` are there, both now and after the next start."""
    wanted, ours = frozenset(wanted), frozenset(ours)
    present = frozenset(persistent) | frozenset(active)
    complete = frozenset(persistent) & frozenset(active)
    return Plan(
        add=tuple(sorted(wanted - present)),
        renew=tuple(sorted((wanted & present) - complete)),
        remove=tuple(sorted((ours - wanted) & present)),
        keep=tuple(sorted(wanted & complete)),
        ours=wanted,
    )


def is_null(route: Route) -> bool:
    """Whether a persistent route, as it is kept, is a null route: nothing else of ours has this metric."""
    return route.metric == METRIC


def of_routes(routes: Iterable[Route]) -> dict[IPv4Network, IPv4Address]:
    """The null routes among persistent ones, each with the gateway that it names."""
    return {
        route.network: route.gateway
        for route in routes
        if is_null(route) and isinstance(route.network, IPv4Network) and isinstance(route.gateway, IPv4Address)
    }


def apply(
    change: Plan,
    programs: Programs,
    gateway: IPv4Address | None,
    present: Mapping[IPv4Network, IPv4Address],
) -> None:
    """Carry out ``change``. ``present`` names the gateway of each null route that is there.

    FarmNodeError when the machine has no default gateway: it has then no way on which anything could leak, but Windows
    takes no route without one.
    """
    for network in (*change.renew, *change.remove):
        programs.check(_ROUTE, ["DELETE", *Route(network, present[network]).arguments])
    for network in (*change.renew, *change.add):
        if gateway is None:
            raise FarmNodeError(
                "route", f"no null route for {network}: the machine has no default gateway, which Windows wants in it."
            )
        words = Route(network, gateway, METRIC).arguments
        programs.check(_ROUTE, ["-p", "ADD", *words, "METRIC", str(METRIC), "IF", _LOOPBACK])
