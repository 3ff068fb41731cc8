"""win_firewall_rule, win_hosts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict
from typing import Any

from rehearsal.windows import firewall
from rehearsal.windows.modules.base import Call

# Property of the COM interface -> field of the rule, in the order in which the module compares and shows them.
_PROPERTIES = {
    "Description": "description",
    "Direction": "direction",
    "Action": "action",
    "ApplicationName": "application",
    "Grouping": "group",
    "ServiceName": "service",
    "Enabled": "enabled",
    "Profiles": "profiles",
    "LocalAddresses": "local_addresses",
    "RemoteAddresses": "remote_addresses",
    "LocalPorts": "local_ports",
    "RemotePorts": "remote_ports",
    "Protocol": "protocol",
    "InterfaceTypes": "interface_types",
    "EdgeTraversalOptions": "edge",
    "SecureFlags": "secure",
    "IcmpTypesAndCodes": "icmp",
}
_OPTIONS = [
    "description",
    "direction",
    "action",
    "program",
    "group",
    "service",
    "enabled",
    "profiles",
    "localip",
    "remoteip",
    "localport",
    "remoteport",
    "protocol",
    "interfacetypes",
    "edge",
    "security",
    "icmp_type_code",
]
_EDGE = {"no": 0, "yes": 1, "deferapp": 2, "deferuser": 3}
_SECURE = {"notrequired": 0, "authnoencap": 1, "authenticate": 2, "authdynenc": 3, "authenc": 4}


def _wanted(call: Call) -> firewall.Rule:
    """The rule that the task describes (the module's ``$new_rule``)."""
    rule = firewall.Rule(name=call.text("name"))
    rule.enabled = True if call.get("enabled") is None else bool(call.get("enabled"))
    rule.description = call.text("description")
    rule.group = call.text("group")
    for option, field in (
        ("localport", "local_ports"),
        ("remoteport", "remote_ports"),
        ("localip", "local_addresses"),
        ("remoteip", "remote_addresses"),
        ("service", "service"),
    ):
        value = call.get(option)
        if value is not None and str(value) != "any":
            setattr(rule, field, str(value))
    if call.get("program") is not None and call.text("program") != "any":
        rule.application = call.expand(call.text("program"))
    protocol = call.text("protocol").lower()
    if protocol and protocol != "any":
        known = next((n for name, n in firewall.PROTOCOLS.items() if name != "any" and protocol.startswith(name)), None)
        if protocol.isdigit():
            known = int(protocol)
        if known is None:
            raise call.fail(f"Unknown protocol '{call.text('protocol')}'.")
        rule.protocol = known
    if call.get("icmp_type_code") is not None and call.get("icmp_type_code") != ["any"]:
        rule.icmp = ",".join(str(item) for item in call.get("icmp_type_code"))
    if call.get("direction") is not None:
        rule.direction = 1 if call.get("direction") == "in" else 2
    if call.get("action") is not None:
        rule.action = int(call.get("action") == "allow")
    if call.get("profiles") is not None:
        unknown = [name for name in call.get("profiles") if str(name).lower() not in firewall.PROFILES]
        if unknown:
            raise call.fail(f"Unknown profile '{unknown[0]}'.")
        profiles = sum({firewall.PROFILES[str(name).lower()] for name in call.get("profiles")})
        rule.profiles = firewall.ALL_PROFILES if profiles == 7 else profiles
    if call.get("interfacetypes") not in (None, ["any"]):
        raise call.fail("rehearsal: interfacetypes of a firewall rule are not modelled")
    rule.edge = _EDGE.get(call.text("edge"), 0)
    rule.secure = _SECURE.get(call.text("security"), 0)
    try:
        rule.check()
    except firewall.InvalidRule as error:
        raise call.fail(str(error)) from error
    return rule


def _lines(sign: str, rule: firewall.Rule) -> str:
    values = asdict(rule)
    return f"{sign}[{rule.name}]\n" + "".join(f"{sign}{name}='{values[f]}'\n" for name, f in _PROPERTIES.items())


async def win_firewall_rule(call: Call) -> None:
    """Make, change or remove firewall rules by name or group."""
    host = call.host
    name, group = call.get("name"), call.get("group")
    if not name and not group:
        raise call.fail("Either name or group must be specified")
    existing = [
        rule
        for rule in host.firewall.rules
        if (rule.name.lower() == str(name).lower() if name else rule.group.lower() == str(group).lower())
    ]
    new = _wanted(call)
    prepared = ""
    if call.get("state") == "absent":
        if not existing:
            call.result["msg"] = (
                f"Firewall rule '{name}' does not exist." if name else f"No firewall rules in group '{group}' exist."
            )
        else:
            prepared = "".join(_lines("-", rule) for rule in existing)
            call.changed()
            names = "', '".join(rule.name for rule in existing)
            call.result["msg"] = f"Firewall rule(s) '{names}' removed."
            if not call.check_mode:
                host.firewall.remove(existing)
    elif not existing and name:
        prepared = _lines("+", new)
        call.changed()
        call.result["msg"] = f"Firewall rule '{name}' created."
        if not call.check_mode:
            host.firewall.add(new)
    elif existing:
        prepared = _update(call, existing, new)
    if call.diff_mode:
        call.result["diff"] = {"prepared": prepared}
    if call.result["changed"] and not call.check_mode:
        await host.apply_firewall()


def _same(name: str, old: Any, new: Any) -> bool:
    if name.endswith("Addresses"):
        return sorted(str(old).split(",")) == sorted(str(new).split(","))
    return str(old).lower() == str(new).lower()


def _update(call: Call, existing: list[firewall.Rule], new: firewall.Rule) -> str:
    prepared = ""
    changed: list[str] = []
    unchanged: list[str] = []
    given = dict(zip(_PROPERTIES, _OPTIONS, strict=True))
    for rule in existing:
        prepared += f"[{rule.name}]\n"
        before = prepared
        for name, field in _PROPERTIES.items():
            old, value = getattr(rule, field), getattr(new, field)
            if call.get(given[name]) is None or _same(name, old, value):
                continue
            prepared += f"-{name}='{old}'\n+{name}='{value}'\n"
            if not call.check_mode:
                setattr(rule, field, value)
        (changed if prepared != before else unchanged).append(rule.name)
    if changed:
        call.changed()
        if not call.check_mode:
            try:
                call.host.firewall.save()
            except firewall.InvalidRule as error:
                raise call.fail(str(error)) from error
    joined = "', '"
    call.result["msg"] = f"Firewall rule(s) changed '{joined.join(changed)}' - unchanged '{joined.join(unchanged)}'"
    return prepared


# ----------------------------------------------------------------------------------------------------------- win_hosts

HOSTS_FILE = r"C:\Windows\System32\drivers\etc\hosts"


def _fields(line: str) -> tuple[str, str, list[str]] | None:
    """Address, canonical name and aliases of a line; None for comments and what is no entry."""
    fields = line.split("#", 1)[0].split()
    if line.strip().startswith("#") or len(fields) < 2:
        return None
    try:
        address = ipaddress.ip_address(fields[0])
    except ValueError:
        return None
    return str(address), fields[1], fields[2:]


def _without(line: str, names: list[str]) -> str | None:
    """The line without these names; None when only its address would be left."""
    code, hash_sign, comment = line.partition("#")
    for name in names:
        code = re.sub(rf"(\s){re.escape(name)}(\s|$)", r"\1", code, count=1, flags=re.IGNORECASE)
        if not re.search(r"\s", code.strip()):
            return None
    return code + hash_sign + comment


def _contains(names: list[str], name: str) -> bool:
    return name.lower() in (known.lower() for known in names)


def win_hosts(call: Call) -> None:
    """Entries of the hosts file."""
    files = call.host.files
    address, name = call.get("ip_address"), call.get("canonical_name")
    aliases = [str(alias) for alias in call.get("aliases") or []]
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            message = f"win_hosts: Argument ip_address needs to be a valid ip address, but was {address}"
            raise call.fail(message) from None
    before = files.read_bytes(HOSTS_FILE).decode("utf-8", errors="replace").splitlines()
    if call.get("state") == "absent":
        lines = []
        for line in before:
            entry = _fields(line)
            gone = entry is not None and (not address or entry[0] == address) and (not name or entry[1] == name)
            if not gone:
                lines.append(line)
    else:
        lines = _hosts_present(call, before, str(address), str(name), aliases)
    call.diff = {"before": "\n".join(before) + "\n", "after": "\n".join(lines) + "\n"}
    if lines != before:
        call.changed()
        if not call.check_mode:
            files.write_bytes(HOSTS_FILE, "".join(f"{line}\r\n" for line in lines).encode())


def _hosts_present(call: Call, before: list[str], address: str, name: str, aliases: list[str]) -> list[str]:
    action = call.text("action")
    version = ipaddress.ip_address(address).version
    lines: list[str] = []
    kept: list[str] = []
    place = -1
    for line in before:
        entry = _fields(line)
        if entry is None:
            lines.append(line)
            continue
        known_address, known_name, known_aliases = entry
        removed: list[str] = []
        if known_address == address and known_name.lower() == name.lower():
            place = len(lines)
            if action == "set":
                removed = [alias for alias in known_aliases if not _contains(aliases, alias)]
            elif action == "remove":
                removed = aliases
        elif known_address == address:
            removed = [*aliases, name]
        elif ipaddress.ip_address(known_address).version == version:
            spare = [alias for alias in known_aliases if not _contains([*aliases, *kept, name], alias)]
            if known_name.lower() == name.lower():
                kept += [] if action == "set" else spare
                continue
            if action == "remove":
                removed = [name]
            elif _contains(aliases, known_name):
                kept += spare if action == "add" else []
                continue
            else:
                removed = [*aliases, name]
        changed = _without(line, removed)
        if changed is not None:
            lines.append(changed)
    if place >= 0:
        entry = _fields(lines[place])
        present = entry[2] if entry is not None else []
        wanted = kept if action == "remove" else [*aliases, *kept]
        code, hash_sign, comment = lines[place].partition("#")
        for alias in (alias for alias in wanted if not _contains(present, alias)):
            code += f" {alias} "
        lines[place] = code + hash_sign + comment
    else:
        names = kept if action == "remove" else [*aliases, *kept]
        lines.append(f"{address} {name} {' '.join(names)}")
    return lines
