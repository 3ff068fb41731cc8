"""The firewall of a Windows host: its rules, and the nftables table that enforces them.

Rules have the properties of the firewall's COM interface (reference: Microsoft, INetFwRule), which is also what
``netsh advfirewall`` and the module win_firewall_rule work on.  The PowerShell cmdlets know two names of a rule: their
``-Name`` is the identifier here, their ``-DisplayName`` is the name that everything else shows.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from typing import Any

from rehearsal.windows.errors import WindowsError

ANY_PROTOCOL = 256
PROTOCOLS = {"any": ANY_PROTOCOL, "icmpv4": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
PROFILES = {"domain": 1, "private": 2, "public": 4}
ALL_PROFILES = 0x7FFFFFFF
_KEYWORD_PORTS = frozenset({"rpc", "rpc-epmap", "iphttps", "teredo", "ply2disc"})


class InvalidRule(ValueError):
    """The firewall refuses a property of a rule; the text is what Windows says."""


@dataclass
class Rule:
    """One rule. Lists of ports and addresses are strings with commas, as the COM interface has them; "*" is any."""

    name: str
    id: str = field(default_factory=lambda: "{" + str(uuid.uuid4()).upper() + "}")
    description: str = ""
    application: str = ""
    service: str = ""
    protocol: int = ANY_PROTOCOL
    local_ports: str = ""
    remote_ports: str = ""
    local_addresses: str = "*"
    remote_addresses: str = "*"
    icmp: str = ""
    direction: int = 1  # 1 in, 2 out
    interface_types: str = "All"
    enabled: bool = True
    group: str = ""
    profiles: int = ALL_PROFILES
    edge: int = 0
    action: int = 1  # 0 block, 1 allow
    secure: int = 0

    def check(self) -> None:
        """Complete the rule as Windows does; InvalidRule when Windows or the rehearsal cannot take it."""
        ported = self.protocol in (6, 17)
        if (self.local_ports or self.remote_ports) and not ported:
            raise InvalidRule("Value does not fall within the expected range.")
        if self.icmp and self.protocol not in (1, 58):
            raise InvalidRule("Value does not fall within the expected range.")
        if ported:
            self.local_ports = _ports(self.local_ports)
            self.remote_ports = _ports(self.remote_ports)
        if self.protocol in (1, 58) and not self.icmp:
            self.icmp = "*"
        self.local_addresses = addresses(self.local_addresses)
        self.remote_addresses = addresses(self.remote_addresses)
        if self.application and self.direction == 1 and self.action == 1 and self.local_ports in ("", "*"):
            raise InvalidRule(
                f"rehearsal: the firewall rule {self.name!r} opens whatever ports the program {self.application} "
                "listens on, which cannot be rehearsed; name the protocol and the ports"
            )
        if self.edge or self.secure:
            raise InvalidRule(f"rehearsal: edge traversal and IPsec of the rule {self.name!r} are not modelled")


def _ports(text: str) -> str:
    if text in ("", "*") or text.lower() == "any":
        return "*"
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if part.strip().lower() in _KEYWORD_PORTS:
            raise InvalidRule(f"rehearsal: the port keyword {part.strip()} is not modelled; name the ports")
        if not low.isdigit() or (high and not high.isdigit()) or int(low) > 65535 or int(high or 0) > 65535:
            raise InvalidRule("Value does not fall within the expected range.")
    return ",".join(part.strip() for part in text.split(","))


def addresses(text: str) -> str:
    """A list of addresses as the COM interface gives it back: networks with their mask, keywords in their spelling."""
    if text in ("", "*") or text.lower() == "any":
        return "*"
    result = []
    for part in (part.strip() for part in text.split(",")):
        if part.lower() == "localsubnet":
            result.append("LocalSubnet")
        elif "-" in part:
            first, _, last = part.partition("-")
            try:
                ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)
            except ValueError:
                raise InvalidRule("Value does not fall within the expected range.") from None
            result.append(part)
        else:
            try:
                network = IPv4Network(part)
            except ValueError:
                raise InvalidRule("Value does not fall within the expected range.") from None
            result.append(f"{network.network_address}/{network.netmask}")
    return ",".join(result)


class Firewall:
    """The rules of a host, in the order of their making, and the default of each direction."""

    def __init__(self, state: dict[str, Any], changed: Callable[[], None]) -> None:
        """``state``: ``enabled`` and ``rules`` of the host's saved state."""
        self._state = state
        self._changed = changed
        state.setdefault("enabled", True)
        self.rules = [Rule(**rule) for rule in state.get("rules", [])]

    @property
    def enabled(self) -> bool:
        """Whether the firewall works (in all profiles)."""
        return bool(self._state["enabled"])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._state["enabled"] = value
        self._changed()

    def save(self) -> None:
        """Keep the rules after a change; InvalidRule when one of them cannot be."""
        for rule in self.rules:
            rule.check()
        self._state["rules"] = [asdict(rule) for rule in self.rules]
        self._changed()

    def add(self, rule: Rule) -> None:
        """Add a rule; WindowsError 183 when its identifier is taken, InvalidRule when it cannot be."""
        rule.check()
        if any(known.id.lower() == rule.id.lower() for known in self.rules):
            raise WindowsError(183)
        self.rules.append(rule)
        self.save()

    def named(self, name: str) -> list[Rule]:
        """Rules of that (display) name."""
        return [rule for rule in self.rules if rule.name.lower() == name.lower()]

    def remove(self, rules: Iterable[Rule]) -> None:
        """Remove rules."""
        gone = {rule.id for rule in rules}
        self.rules = [rule for rule in self.rules if rule.id not in gone]
        self.save()

    # ------------------------------------------------------------------------------------------------------- nftables

    def ruleset(self, local_subnet: IPv4Network) -> str:
        """The table ``inet host`` that enforces the rules.

        What comes in is dropped unless a rule, loopback or an open connection allows it; what goes out is allowed
        unless a rule blocks it; block comes before allow, as in Windows.  Profiles are not told apart: a rule for any
        profile counts.  Forwarded packets are not the firewall's business (as in Windows' routing).
        """
        if not self.enabled:
            return "table inet host {\n}\n"
        inbound: list[str] = []
        outbound: list[str] = []
        for rule in sorted((rule for rule in self.rules if rule.enabled), key=lambda rule: rule.action):
            target = inbound if rule.direction == 1 else outbound
            target += [f"    {line}" for line in _nft(rule, local_subnet)]
        return "\n".join(
            [
                "table inet host {",
                "  chain input {",
                "    type filter hook input priority 0; policy drop;",
                '    iif "lo" accept',
                "    ct state established,related accept",
                "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept",
                "    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
                *inbound,
                "  }",
                "  chain output {",
                "    type filter hook output priority 0; policy accept;",
                *outbound,
                "  }",
                "}",
                "",
            ]
        )


def _nft(rule: Rule, local_subnet: IPv4Network) -> list[str]:
    """The lines of nftables for one rule."""
    here, there = ("daddr", "saddr") if rule.direction == 1 else ("saddr", "daddr")
    here_port, there_port = ("dport", "sport") if rule.direction == 1 else ("sport", "dport")
    words = []
    for keyword, value in ((here, rule.local_addresses), (there, rule.remote_addresses)):
        if value != "*":
            words.append(
                f"ip {keyword} {{ {', '.join(_nft_address(part, local_subnet) for part in value.split(','))} }}"
            )
    if rule.protocol in (6, 17):
        protocol = "tcp" if rule.protocol == 6 else "udp"
        ports = [
            f"{protocol} {keyword} {{ {value.replace(',', ', ')} }}"
            for keyword, value in ((here_port, rule.local_ports), (there_port, rule.remote_ports))
            if value != "*"
        ]
        words += ports or [f"meta l4proto {protocol}"]
    verdict = "accept" if rule.action else "drop"
    if rule.protocol in (1, 58):
        family = "icmp" if rule.protocol == 1 else "icmpv6"
        kinds = [part.partition(":")[0] for part in rule.icmp.split(",")]
        if "*" in kinds:
            words.append(f"meta l4proto {'icmp' if rule.protocol == 1 else 'ipv6-icmp'}")
        else:
            words.append(f"{family} type {{ {', '.join(kinds)} }}")
    elif rule.protocol not in (6, 17, ANY_PROTOCOL):
        words.append(f"meta l4proto {rule.protocol}")
    return [" ".join([*words, verdict])]


def _nft_address(text: str, local_subnet: IPv4Network) -> str:
    if text == "LocalSubnet":
        return str(local_subnet)
    return text if "-" in text else str(IPv4Network(text))
