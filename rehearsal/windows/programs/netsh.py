"""netsh.exe: the firewall and the adapters (reference: Microsoft, netsh advfirewall, netsh interface ipv4)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows import firewall, network
from rehearsal.windows.programs.base import Invocation, console, refuse

_KEYS = frozenset(
    {"name", "dir", "action", "program", "service", "description", "enable", "profile", "localip", "remoteip",
     "localport", "remoteport", "protocol", "new"}
)  # fmt: skip


async def main(invocation: Invocation) -> Outcome:
    """``advfirewall firewall add|set|delete|show rule …``, ``advfirewall set allprofiles state on|off``,
    ``interface ipv4 show interfaces [level=verbose]``, ``interface ipv4 set interface [interface=]X forwarding=…``."""
    words = invocation.arguments
    lowered = [word.lower() for word in words]
    if lowered[:2] == ["interface", "ipv4"]:
        return await _ipv4(invocation, words[2:])
    if lowered[:3] == ["advfirewall", "set", "allprofiles"] and lowered[3:4] == ["state"] and len(words) == 5:
        if lowered[4] not in ("on", "off"):
            return refuse(invocation)
        invocation.host.firewall.enabled = lowered[4] == "on"
        await invocation.host.apply_firewall()
        return console("Ok.\n\n")
    if lowered[:2] != ["advfirewall", "firewall"] or len(words) < 4 or lowered[3] != "rule":
        return refuse(invocation)
    commands = {"add": _add, "set": _set, "delete": _delete, "show": _show}
    if lowered[2] not in commands:
        return refuse(invocation)
    try:
        outcome = commands[lowered[2]](invocation, words[4:])
    except firewall.InvalidRule as error:
        return console(f"{error}\n\n", 1)
    await invocation.host.apply_firewall()
    return outcome


async def _ipv4(invocation: Invocation, words: list[str]) -> Outcome:
    lowered = [word.lower() for word in words]
    adapters = await network.adapters(invocation.host)
    if lowered == ["show", "interfaces"]:
        return console(_short_list(adapters))
    if lowered == ["show", "interfaces", "level=verbose"]:
        blocks = [_LOOPBACK_BLOCK]
        for adapter in adapters:
            switch = "enabled" if await network.forwards(invocation.host, adapter) else "disabled"
            blocks.append(_block(adapter, switch))
        return console("".join(blocks))
    if lowered[:2] == ["set", "interface"] and len(words) == 4:
        wanted = words[2].partition("=")[2] if lowered[2].startswith("interface=") else words[2]
        option, _, value = lowered[3].partition("=")
        if option != "forwarding" or value not in ("enabled", "disabled"):
            return refuse(invocation, "of the options of an interface only forwarding=enabled|disabled is modelled")
        for adapter in adapters:
            if wanted in (str(adapter.index), adapter.name):
                await network.set_forwarding(invocation.host, adapter, value == "enabled")
                return console("Ok.\n\n")
        return console("The filename, directory name, or volume label syntax is incorrect.\n\n", 1)
    return refuse(invocation)


def _short_list(adapters: list[network.Adapter]) -> str:
    lines = [
        "",
        "Idx     Met         MTU          State                Name",
        "---  ----------  ----------  " + "-" * 12,
    ]
    lines[2] += "  " + "-" * 27
    rows = [(network.LOOPBACK_INDEX, 75, network.LOOPBACK_MTU, "connected", "Loopback Pseudo-Interface 1")]
    for adapter in adapters:
        state = "connected" if adapter.connected else "disconnected"
        rows.append((adapter.index, network.INTERFACE_METRIC, adapter.mtu, state, adapter.name))
    lines += [f"{index:>3}  {metric:>10}  {mtu:>10}  {state:<12}  {name}" for index, metric, mtu, state, name in rows]
    return "\n".join([*lines, "", ""])


def _parameters(name: str, rows: dict[str, str]) -> str:
    lines = ["", f"Interface {name} Parameters", "-" * 46]
    return "\n".join([*lines, *(f"{label:<35}: {value}" for label, value in rows.items()), ""])


def _block(adapter: network.Adapter, forwarding: str) -> str:
    return _parameters(
        adapter.name,
        {
            "IfLuid": f"ethernet_{adapter.index}",
            "IfIndex": str(adapter.index),
            "State": "connected" if adapter.connected else "disconnected",
            "Metric": str(network.INTERFACE_METRIC),
            "Link MTU": f"{adapter.mtu} bytes",
            "Reachable Time": "30000 ms",
            "Base Reachable Time": "30000 ms",
            "Retransmission Interval": "1000 ms",
            "DAD Transmits": "3",
            "Site Prefix Length": "64",
            "Site Id": "1",
            "Forwarding": forwarding,
            "Advertising": "disabled",
            "Neighbor Discovery": "enabled",
        },
    )


_LOOPBACK_BLOCK = _parameters(
    "Loopback Pseudo-Interface 1",
    {
        "IfLuid": "loopback_0",
        "IfIndex": str(network.LOOPBACK_INDEX),
        "State": "connected",
        "Metric": "75",
        "Link MTU": f"{network.LOOPBACK_MTU} bytes",
        "Forwarding": "disabled",
        "Advertising": "disabled",
        "Neighbor Discovery": "disabled",
    },
)


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name.lower() not in _KEYS:
            raise firewall.InvalidRule(f"'{word}' is not a valid argument for this command.")
        pairs[name.lower()] = value
    if "name" not in pairs:
        raise firewall.InvalidRule("One or more essential parameters were not entered.")
    return pairs


def _apply(rule: firewall.Rule, pairs: dict[str, str]) -> None:
    for name, value in pairs.items():
        lowered = value.lower()
        if name == "name":
            rule.name = value
        elif name == "dir" and lowered in ("in", "out"):
            rule.direction = 1 if lowered == "in" else 2
        elif name == "action" and lowered in ("allow", "block"):
            rule.action = int(lowered == "allow")
        elif name == "enable" and lowered in ("yes", "no"):
            rule.enabled = lowered == "yes"
        elif name == "protocol":
            kind, _, icmp = lowered.partition(":")
            if kind not in firewall.PROTOCOLS and not kind.isdigit():
                raise firewall.InvalidRule("A specified protocol value is not valid.")
            rule.protocol = firewall.PROTOCOLS[kind] if kind in firewall.PROTOCOLS else int(kind)
            number, _, code = icmp.partition(",")
            rule.icmp = f"{number}:{'*' if code in ('', 'any') else code}" if number not in ("", "any") else ""
        elif name == "localport":
            rule.local_ports = value
        elif name == "remoteport":
            rule.remote_ports = value
        elif name == "localip":
            rule.local_addresses = value
        elif name == "remoteip":
            rule.remote_addresses = value
        elif name == "program":
            rule.application = value
        elif name == "service":
            rule.service = "" if lowered == "any" else value
        elif name == "description":
            rule.description = value
        elif name == "profile":
            parts = [part.strip() for part in lowered.split(",")]
            if parts == ["any"]:
                rule.profiles = firewall.ALL_PROFILES
            elif all(part in firewall.PROFILES for part in parts):
                rule.profiles = sum(firewall.PROFILES[part] for part in set(parts))
            else:
                raise firewall.InvalidRule("A specified profile value is not valid.")
        else:
            raise firewall.InvalidRule(f"'{name}={value}' is not a valid argument for this command.")


def _add(invocation: Invocation, words: list[str]) -> Outcome:
    pairs = _pairs(words)
    if "dir" not in pairs or "action" not in pairs:
        raise firewall.InvalidRule("One or more essential parameters were not entered.")
    rule = firewall.Rule(name=pairs["name"])
    ordered = {"protocol": pairs["protocol"]} if "protocol" in pairs else {}
    _apply(rule, {**ordered, **{name: value for name, value in pairs.items() if name != "new"}})
    invocation.host.firewall.add(rule)
    return console("Ok.\n\n")


def _select(invocation: Invocation, pairs: dict[str, str]) -> list[firewall.Rule]:
    rules = (
        invocation.host.firewall.rules
        if pairs["name"].lower() == "all"
        else invocation.host.firewall.named(pairs["name"])
    )
    probe = firewall.Rule(name=pairs["name"])
    _apply(probe, {name: value for name, value in pairs.items() if name not in ("name", "new")})
    checks = {
        "dir": "direction",
        "protocol": "protocol",
        "localport": "local_ports",
        "remoteport": "remote_ports",
        "profile": "profiles",
        "program": "application",
    }
    chosen = [
        rule
        for rule in rules
        if all(getattr(rule, checks[n]) == getattr(probe, checks[n]) for n in pairs if n in checks)
    ]
    for side in ("localip", "remoteip"):
        if side in pairs:
            attribute = "local_addresses" if side == "localip" else "remote_addresses"
            chosen = [rule for rule in chosen if getattr(rule, attribute) == firewall.addresses(pairs[side])]
    return chosen


_NO_MATCH = "\nNo rules match the specified criteria.\n\n"


def _delete(invocation: Invocation, words: list[str]) -> Outcome:
    rules = _select(invocation, _pairs(words))
    if not rules:
        return console(_NO_MATCH, 1)
    invocation.host.firewall.remove(rules)
    return console(f"\nDeleted {len(rules)} rule(s).\nOk.\n\n")


def _set(invocation: Invocation, words: list[str]) -> Outcome:
    split = next((index for index, word in enumerate(words) if word.lower() == "new"), None)
    if split is None:
        raise firewall.InvalidRule("One or more essential parameters were not entered.")
    rules = _select(invocation, _pairs(words[:split]))
    if not rules:
        return console(_NO_MATCH, 1)
    changes = _pairs(["name=", *words[split + 1 :]])
    if not changes["name"]:
        del changes["name"]
    for rule in rules:
        _apply(rule, changes)
    invocation.host.firewall.save()
    return console(f"\nUpdated {len(rules)} rule(s).\nOk.\n\n")


def _show(invocation: Invocation, words: list[str]) -> Outcome:
    rules = _select(invocation, _pairs(words))
    if not rules:
        return console(_NO_MATCH, 1)
    blocks = []
    names = {number: name for name, number in (("ICMPv4", 1), ("TCP", 6), ("UDP", 17), ("Any", 256), ("ICMPv6", 58))}
    for rule in rules:
        profiles = [name.capitalize() for name, bit in firewall.PROFILES.items() if rule.profiles & bit]
        rows = [
            ("Enabled", "Yes" if rule.enabled else "No"),
            ("Direction", "In" if rule.direction == 1 else "Out"),
            ("Profiles", ",".join(profiles)),
            ("Grouping", rule.group),
            ("LocalIP", _shown(rule.local_addresses)),
            ("RemoteIP", _shown(rule.remote_addresses)),
            ("Protocol", names.get(rule.protocol, str(rule.protocol))),
        ]
        if rule.protocol in (6, 17):
            rows += [("LocalPort", _shown(rule.local_ports)), ("RemotePort", _shown(rule.remote_ports))]
        rows += [("Edge traversal", "No"), ("Action", "Allow" if rule.action else "Block")]
        lines = ["", f"{'Rule Name:':<38}{rule.name}", "-" * 70]
        lines += [f"{name + ':':<38}{value}" for name, value in rows]
        blocks.append("\n".join(lines))
    return console("\n".join([*blocks, "Ok.", "", ""]))


def _shown(text: str) -> str:
    return "Any" if text in ("*", "") else text
