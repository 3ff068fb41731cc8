"""nftables rulesets as text: NAT of the studio's router, of the internet gateway, security groups, leak counters.

Every function is pure; each text replaces its table as one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from rehearsal.interfaces import CloudView, InterfaceView, RehearsalError, SecurityRule

METADATA_ADDRESS = "169.254.169.254"
PRIVATE_NETWORKS = "{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 }"
LEAK_COUNTERS = ("private_source", "private_destination")


def replacing(family: str, table: str, body: str) -> str:
    """A ruleset that replaces one table whether or not it exists (nft(8): a file is one transaction)."""
    return f"table {family} {table}\ndelete table {family} {table}\ntable {family} {table} {{\n{body}}}\n"


def without(family: str, table: str) -> str:
    """A ruleset that removes one table whether or not it exists."""
    return f"table {family} {table}\ndelete table {family} {table}\n"


def home_router(*, inside: str, vpn_port: int, vpn_server: IPv4Address) -> str:
    """The studio's router: source NAT towards the internet, a stateful filter and one UDP port forward."""
    body = f"""  chain forwarded_port {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{inside}" fib daddr type local udp dport {vpn_port} dnat ip to {vpn_server}
  }}
  chain translate {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "{inside}" oifname != "lo" masquerade
  }}
  chain stateful {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ct state invalid counter drop
    iifname != "{inside}" ct status dnat accept
    iifname != "{inside}" counter drop
  }}
  chain own {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    iifname != "{inside}" ip protocol != icmp iifname != "lo" counter drop
  }}
"""
    return replacing("inet", "router", body)


def leak_detector() -> str:
    """Counts, on the simulated internet, every packet that carries a private address (RFC 1918): none ever should."""
    source, destination = LEAK_COUNTERS
    body = f"""  counter {source} {{
  }}
  counter {destination} {{
  }}
  chain watch {{
    type filter hook prerouting priority raw; policy accept;
    ip saddr {PRIVATE_NETWORKS} counter name "{source}"
    ip daddr {PRIVATE_NETWORKS} counter name "{destination}"
  }}
"""
    return replacing("inet", "leak", body)


def drop_ports(ports: Iterable[int]) -> str:
    """Packets to these TCP ports of a machine vanish."""
    listed = ", ".join(str(port) for port in ports)
    body = f"""  chain lost {{
    type filter hook prerouting priority -290; policy accept;
    tcp dport {{ {listed} }} counter drop
  }}
"""
    return replacing("inet", "fault", body)


def without_forward(port: int) -> str:
    """The studio's router no longer lets this UDP port in, also not for what has passed so far."""
    body = f"""  chain closed {{
    type filter hook prerouting priority -310; policy accept;
    iifname "wan" udp dport {port} counter drop
  }}
"""
    return replacing("inet", "fault", body)


def internet_gateway(public: Mapping[IPv4Address, IPv4Address], *, outside: str) -> str:
    """The internet gateway of a VPC: 1:1 NAT of ``public`` (private -> public); all else stays inside.

    Source: Amazon VPC User Guide, "Enable internet access for a VPC using an internet gateway": an instance without a
    public address cannot be reached and cannot reach out; the instance itself knows only its private address.
    """
    pairs = sorted(public.items())
    translate_in = translate_out = ""
    known = ""
    if pairs:
        to_private = ", ".join(f"{outer} : {inner}" for inner, outer in pairs)
        to_public = ", ".join(f"{inner} : {outer}" for inner, outer in pairs)
        inner_set = ", ".join(str(inner) for inner, _ in pairs)
        translate_in = f'    iifname "{outside}" dnat ip to ip daddr map {{ {to_private} }}\n'
        translate_out = f'    oifname "{outside}" snat ip to ip saddr map {{ {to_public} }}\n'
        known = (
            f'    iifname "{outside}" oifname != "{outside}" ip daddr {{ {inner_set} }} ct status dnat accept\n'
            f'    oifname "{outside}" iifname != "{outside}" ip saddr {{ {inner_set} }} '
            f"ip daddr != {PRIVATE_NETWORKS} accept\n"
        )
    body = f"""  chain inbound {{
    type nat hook prerouting priority dstnat; policy accept;
{translate_in}  }}
  chain outbound {{
    type nat hook postrouting priority srcnat; policy accept;
{translate_out}  }}
  chain between {{
    type filter hook forward priority filter; policy accept;
    iifname != "{outside}" oifname != "{outside}" accept
    ct state established,related accept
{known}    counter drop
  }}
"""
    return replacing("inet", "gateway", body)


def security_groups(interface: InterfaceView, view: CloudView, *, device: str = "eth0") -> str:
    """The security groups and the source/destination check of one network interface, enforced on ``device``.

    Stateful: a reply to what was allowed passes whatever the rules of its direction say.  Traffic that the machine only
    forwards is filtered too, as it passes the interface.  The metadata address is on another device and so exempt; with
    the hop limit 1 nobody but the machine itself gets a token there, so nothing from elsewhere reaches it at all.
    A reference to a group stands for the private addresses of the interfaces in that group.
    Source: Amazon VPC User Guide, "Security group rules" and "NAT instances: disable source/destination checks"; EC2
    User Guide, "Limit access to the Instance Metadata Service" (HttpPutResponseHopLimit).
    """
    unknown = [group for group in interface.group_ids if group not in view.security_groups]
    if unknown:
        raise RehearsalError(f"{interface.interface_id} names the security group {unknown[0]}, which does not exist")
    groups = [view.security_groups[group] for group in interface.group_ids]
    members = group_members(view)
    ingress = _rules([rule for group in groups for rule in group.ingress], members, "saddr")
    egress = _rules([rule for group in groups for rule in group.egress], members, "daddr")
    metadata = check_in = check_out = ""
    if _hop_limit(interface, view) <= 1:
        metadata = f'    iifname != "lo" ip daddr {METADATA_ADDRESS} counter drop comment "hop limit of the metadata"\n'
    if interface.source_dest_check:
        own = interface.private_address
        check_in = f'    ip daddr != {own} counter drop comment "source/destination check"\n'
        check_out = f'    ip saddr != {own} counter drop comment "source/destination check"\n'
    body = f"""  chain ingress {{
    type filter hook prerouting priority -190; policy accept;
{metadata}    iifname != "{device}" accept
{check_in}    ct state established,related accept
{ingress}    counter drop
  }}
  chain egress {{
    type filter hook postrouting priority 300; policy accept;
    oifname != "{device}" accept
{check_out}    ct state established,related accept
{egress}    counter drop
  }}
"""
    return replacing("inet", "sg", body)


def _hop_limit(interface: InterfaceView, view: CloudView) -> int:
    return next((each.metadata_hop_limit for each in view.instances if each.instance_id == interface.instance_id), 1)


def group_members(view: CloudView) -> dict[str, list[IPv4Address]]:
    """Security group -> private addresses of the interfaces that are in it (terminated instances have none)."""
    members: dict[str, list[IPv4Address]] = {}
    for instance in view.instances:
        if instance.state != "terminated":
            for group in instance.interface.group_ids:
                members.setdefault(group, []).append(instance.interface.private_address)
    return members


def _rules(rules: Iterable[SecurityRule], members: Mapping[str, list[IPv4Address]], side: str) -> str:
    lines = []
    for rule in rules:
        networks = list(rule.networks)
        for group in rule.groups:
            networks += [IPv4Network(address) for address in members.get(group, [])]
        peers = _peers(networks, side)
        if peers is not None:
            lines.append(f"    {peers}{_traffic(rule)}accept\n")
    return "".join(dict.fromkeys(lines))


def _peers(networks: Iterable[IPv4Network], side: str) -> str | None:
    """The match for the far end; None when no address can match."""
    merged = list(collapse_addresses(networks))
    if not merged:
        return None
    if merged[0].prefixlen == 0:
        return "meta nfproto ipv4 "
    listed = ", ".join(str(network) for network in merged)
    return f"ip {side} {{ {listed} }} "


def _traffic(rule: SecurityRule) -> str:
    """The match for protocol and ports (EC2 API Reference, IpPermission: -1 means all)."""
    if rule.protocol == "-1":
        return ""
    if rule.protocol in ("tcp", "udp"):
        if rule.from_port < 0 or (rule.from_port, rule.to_port) == (0, 65535):
            return f"meta l4proto {rule.protocol} "
        ports = f"{rule.from_port}" if rule.from_port == rule.to_port else f"{rule.from_port}-{rule.to_port}"
        return f"{rule.protocol} dport {ports} "
    if rule.protocol == "icmp":
        if rule.from_port < 0:
            return "meta l4proto icmp "
        code = "" if rule.to_port < 0 else f"icmp code {rule.to_port} "
        return f"icmp type {rule.from_port} {code}"
    raise RehearsalError(
        f"security groups of the rehearsal know the protocols tcp, udp, icmp and -1, not {rule.protocol!r}"
    )
