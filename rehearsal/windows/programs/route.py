"""route.exe for IPv4 (reference: Microsoft, route; layout of PRINT as Windows prints it)."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from rehearsal.interfaces import Outcome
from rehearsal.windows import network
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

_RULE = "=" * 75


async def main(invocation: Invocation) -> Outcome:
    """``route [-4] [-p] ADD network MASK mask gateway [METRIC m] [IF 1]``, ``[-4] DELETE network [MASK m] [gateway]``,
    ``[-4] PRINT``."""
    words = list(invocation.arguments)
    persistent = False
    flags = {word.lower() for word in words if word.startswith(("-", "/"))}
    words = [word for word in words if not word.startswith(("-", "/"))]
    if flags - {"-4", "-p", "/4", "/p"}:
        return refuse(invocation, "only the flags -4 and -p are modelled")
    persistent = bool(flags & {"-p", "/p"})
    if not words:
        return refuse(invocation)
    verb, rest = words[0].lower(), words[1:]
    try:
        if verb == "add":
            return await _add(invocation, rest, persistent)
        if verb == "delete" and not persistent:
            return await _delete(invocation, rest)
        if verb == "print" and not rest:
            return console(await _print(invocation))
    except WindowsError as error:
        return failure(f"{error}\n\n")
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        return failure(f"route: bad argument {error}\n")
    return refuse(invocation)


def _network(address: str, mask: str) -> IPv4Network:
    try:
        return IPv4Network(f"{IPv4Address(address)}/{mask}")
    except (AddressValueError, NetmaskValueError):
        raise
    except ValueError:
        raise WindowsError(
            87,
            "The route addition failed: The specified mask parameter is invalid. (Destination & Mask) != Destination.",
        ) from None


async def _add(invocation: Invocation, rest: list[str], persistent: bool) -> Outcome:
    lowered = [word.lower() for word in rest]
    form = "the form is ADD network MASK mask gateway [METRIC metric] [IF 1]"
    if len(rest) < 4 or lowered[1] != "mask":
        return refuse(invocation, form)
    options = dict(zip(lowered[4::2], rest[5::2], strict=False))
    if len(rest) % 2 or len(options) != len(rest[4:]) // 2 or set(options) - {"metric", "if"}:
        return refuse(invocation, form)
    metric = int(options.get("metric", "1"))
    if not 1 <= metric <= 9999:
        return failure(f"route: bad argument {metric}\n")
    target, gateway = _network(rest[0], rest[2]), IPv4Address(rest[3])
    null = "if" in options
    if null and (options["if"] != str(network.LOOPBACK_INDEX) or not persistent):
        return refuse(invocation, "of IF only the loopback adapter (IF 1) is modelled, together with -p")
    if null:
        await network.add_null(invocation.host, target, gateway, metric)
    else:
        await network.add(invocation.host, target, gateway, metric)
    if persistent:
        network.keep(invocation.host, target, gateway, metric, null=null)
    return console(" OK!\n")


async def _delete(invocation: Invocation, rest: list[str]) -> Outcome:
    lowered = [word.lower() for word in rest]
    if not rest:
        return refuse(invocation)
    mask = None
    if len(rest) >= 3 and lowered[1] == "mask":
        mask = rest[2]
        rest = [rest[0], *rest[3:]]
    if len(rest) > 2:
        return refuse(invocation)
    gateway = IPv4Address(rest[1]) if len(rest) == 2 else None
    address = IPv4Address(rest[0])
    host = invocation.host
    if mask is None:
        known = [route.network for route in await network.routes(host)]
        known += [route.network for _, route in network.persistent(host)]
        targets = [entry for entry in dict.fromkeys(known) if entry.network_address == address]
        if not targets:
            raise WindowsError(1168, "The route deletion failed: Element not found.")
    else:
        targets = [_network(rest[0], mask)]
    for target in targets:
        await network.delete(host, target, gateway)
    return console(" OK!\n")


async def _print(invocation: Invocation) -> str:
    host = invocation.host
    interfaces = await network.interfaces(host)
    by_name = {interface.name: interface for interface in interfaces}
    lines = [_RULE, "Interface List"]
    for interface in interfaces:
        mac = " ".join(interface.mac.split(":"))
        name = "Amazon Elastic Network Adapter" if interface.mac else "Wintun Userspace Tunnel"
        lines.append(
            f"{interface.index:3}...{mac} ......{name}"
            if mac
            else f"{interface.index:3}...........................{name}"
        )
    lines += ["  1...........................Software Loopback Interface 1", _RULE, "", "IPv4 Route Table", _RULE]
    lines += ["Active Routes:", "Network Destination        Netmask          Gateway       Interface  Metric"]
    rows = []
    for route in await network.routes(host):
        owner = by_name.get(route.interface)
        address = str(owner.address) if owner is not None else "127.0.0.1"
        gateway = str(route.gateway) if route.gateway is not None else "On-link"
        rows.append((route.network, gateway, address, route.metric + network.INTERFACE_METRIC))
    loopback = str(IPv4Address("127.0.0.1"))
    rows.append((IPv4Network("127.0.0.0/8"), "On-link", loopback, network.LOOPBACK_METRIC))
    for interface in interfaces:
        own = IPv4Network(f"{interface.address}/32")
        rows.append((own, "On-link", str(interface.address), 256 + network.INTERFACE_METRIC))
    for row in sorted(rows, key=lambda row: (row[0].network_address, row[0].prefixlen, row[3])):
        lines.append(f"{row[0].network_address!s:>17}{row[0].netmask!s:>17}{row[1]:>17}{row[2]:>16}{row[3]:>7}")
    lines += [_RULE, "Persistent Routes:"]
    kept = [route for _, route in network.persistent(host)]
    if kept:
        lines.append("  Network Address          Netmask  Gateway Address  Metric")
        lines += [
            f"{route.network.network_address!s:>17}{route.network.netmask!s:>17}{route.gateway!s:>17}{route.metric:>8}"
            for route in kept
        ]
        lines.append(_RULE)
    else:
        lines.append("  None")
    return "\n".join([*lines, ""])
