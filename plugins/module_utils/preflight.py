# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known before anything is launched: each check is a pure function from the wish and the facts to findings.

``preflight_facts`` asks AWS for the facts. A finding is ``fatal`` when the farm could not come up or would surprise
with its price, ``warning`` when it may, ``ok`` when the check passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from .aws_errors import POLICY_FILE
from .fleet import Lifecycle, lots
from .fleet import Wish as FleetWish
from .networks import NETWORKS, NetworkError, network_problems, parse_network
from .prices import PUBLIC_IPV4_PER_HOUR, volume_per_hour, windows_share

Severity = Literal["fatal", "warning", "ok"]
Purpose = Literal["bake", "up", "check"]

# vCPUs of the standard families in one Region (Amazon EC2 User Guide, "Amazon EC2 instance type quotas").
QUOTAS: Mapping[str, tuple[str, str]] = {
    "spot": ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    "on-demand": ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
}
_STANDARD = re.compile(r"(?:[acdhimrtz]|im|is)\d")


@dataclass(frozen=True)
class Finding:
    """What one check found. ``remedy`` is empty when all is well."""

    check: str
    severity: Severity
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"check": self.check, "severity": self.severity, "text": self.text, "remedy": self.remedy}


@dataclass(frozen=True)
class Wish:
    """What shall be launched: the settings of the farm that cost or that AWS may refuse."""

    purpose: Purpose
    region: str
    zones: tuple[str, ...]
    nodes: int
    remote_nodes: int
    node_types: tuple[str, ...]
    manager_type: str
    builder_type: str
    spot: bool
    spot_percent: int
    """The most of the nodes that may be spot."""
    max_price: float | None
    """USD per spot node and hour; None for the on-demand price, which is EC2's limit anyway."""
    on_demand_fallback: bool
    disk_gib: int
    license_nodes: int
    settings: Mapping[str, Any]
    """The networks and the manager's address, as `network_problems` reads them."""
    workstation: str
    """Address of the studio's end of the tunnel: routes of the controller over it are the farm's own."""

    @property
    def all_nodes(self) -> int:
        """Render nodes and remote nodes: both render, and both cost."""
        return self.nodes + self.remote_nodes


@dataclass(frozen=True)
class Running:
    """One instance that runs in the account and Region."""

    type: str
    lifecycle: str
    farm_role: str
    """Its role in this farm, empty when it belongs to something else."""


@dataclass(frozen=True)
class Route:
    """One route of the controller."""

    network: IPv4Network
    gateway: IPv4Address
    device: str


@dataclass
class Facts:
    """What AWS and the controller say. What could not be found out is None and explained in ``unknown``."""

    credentials_problem: str = ""
    """Why nothing could be asked; else empty."""
    account: str = ""
    caller: str = ""
    permissions: Mapping[str, str] = field(default_factory=dict)
    """IAM action -> ``allowed``, ``denied`` or what else the dry run said."""
    untried: Sequence[str] = ()
    """IAM actions that the farm has nothing to try on yet."""
    quotas: Mapping[str, float | None] = field(default_factory=dict)
    vcpus: Mapping[str, int] | None = None
    offered: frozenset[tuple[str, str]] | None = None
    running: Sequence[Running] | None = None
    vpc_networks: Sequence[str] | None = None
    """CIDR blocks of the farm's VPC."""
    addresses: Sequence[str] = ()
    """Private addresses of the machines that run in it, as far as they are known."""
    images: Sequence[Mapping[str, Any]] | None = None
    """The farm's available images, newest first."""
    base_image: Mapping[str, Any] | None = None
    routes: Sequence[Route] | None = None
    spot_prices: Mapping[tuple[str, str], float] | None = None
    on_demand_prices: Mapping[str, float | None] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Subject -> why it could not be found out."""


def examine(wish: Wish, facts: Facts) -> list[Finding]:
    """All findings, in the order in which a person would look."""
    findings = []
    for check in (credentials, permissions, networks, routes, offers, quotas, image, licences, max_price, price):
        findings += check(wish, facts)
    findings += [
        Finding(subject, "warning", why, f"see {POLICY_FILE} for what the controller must be allowed")
        for subject, why in facts.unknown.items()
    ]
    return findings


def is_fatal(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == "fatal" for finding in findings)


def report(findings: Sequence[Finding]) -> str:
    """The findings as a table of text: what stops the run first, each with its remedy below."""
    order = ("fatal", "warning", "ok")
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in sorted(findings, key=lambda each: order.index(each.severity)):
        lines.append(f"{finding.severity:<7}  {finding.check:<{width}}  {finding.text}")
        if finding.remedy:
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- the checks


def credentials(wish: Wish, facts: Facts) -> list[Finding]:
    """Who asks. Without an answer the checks that need AWS are left out."""
    if facts.credentials_problem:
        text, _, remedy = facts.credentials_problem.partition(" Remedy: ")
        return [Finding("credentials", "fatal", text, remedy)]
    return [Finding("credentials", "ok", f"account {facts.account}, {facts.caller}")]


def permissions(wish: Wish, facts: Facts) -> list[Finding]:
    """What the caller may not do. A dry run that ended otherwise says nothing about rights."""
    if facts.credentials_problem:
        return []
    denied = sorted(action for action, outcome in facts.permissions.items() if outcome == "denied")
    allowed = sum(outcome == "allowed" for outcome in facts.permissions.values())
    if denied:
        return [
            Finding(
                "permissions",
                "fatal",
                f"{facts.caller or 'the caller'} may not {', '.join(denied)}",
                f"attach {POLICY_FILE} to that user or role",
            )
        ]
    other = sorted(
        f"{action} ({said})" for action, said in facts.permissions.items() if said not in ("allowed", "denied")
    )
    more = f"; not known: {', '.join(other)}" if other else ""
    later = f"; nothing of the farm to try them on yet: {', '.join(facts.untried)}" if facts.untried else ""
    return [Finding("permissions", "ok", f"{allowed} actions are allowed (dry run){more}{later}")]


def networks(wish: Wish, facts: Facts) -> list[Finding]:
    """The address plan, and the farm's VPC when it exists."""
    problems = network_problems({**wish.settings, "farm_nodes": wish.nodes})
    findings = [Finding("networks", "fatal", *_text_and_remedy(problem)) for problem in problems]
    cloud = str(wish.settings.get("farm_cloud_network"))
    if not problems and facts.vpc_networks and cloud not in facts.vpc_networks:
        findings.append(
            Finding(
                "networks",
                "fatal",
                f"the farm's VPC has {', '.join(facts.vpc_networks)}, farm_cloud_network is {cloud}",
                "set farm_cloud_network to the VPC's, or delete the farm's network first",
            )
        )
    return findings or [Finding("networks", "ok", f"{cloud}, the manager at {wish.settings['farm_manager_address']}")]


def _text_and_remedy(problem: str) -> tuple[str, str]:
    """`network_problems` ends each sentence with what to write instead."""
    text, found, example = problem.partition(", for example ")
    return (text, f"for example {example}") if found else (problem, "correct it in inventory/group_vars/all/farm.yml")


def routes(wish: Wish, facts: Facts) -> list[Finding]:
    """Networks of the farm that the controller already sends somewhere else.

    A wider route does no harm, for the longer prefix wins; one that is as long or longer takes the farm's traffic away.
    """
    if facts.routes is None:
        return []
    findings = []
    for name in NETWORKS:
        if name == "farm_lan_network" or not wish.settings.get(name):
            continue
        try:
            network = parse_network(wish.settings[name])
        except NetworkError:
            continue  # `networks` says it
        for route in facts.routes:
            if route.network.subnet_of(network) and not _own_route(route, wish):
                via = f"{route.gateway} ({route.device})" if int(route.gateway) else route.device
                findings.append(
                    Finding(
                        "routes",
                        "fatal",
                        f"{name} is {network}, but this controller sends {route.network} to {via}",
                        f"choose another {name}, or remove that route (`ip route`)",
                    )
                )
    return findings or [Finding("routes", "ok", "no route of this controller takes the farm's networks")]


def _own_route(route: Route, wish: Wish) -> bool:
    """Through the workstation, or through the farm's tunnel, which ends here when the controller is the workstation.

    The name of a device alone tells nothing, for any tunnel may be tun0. The farm's has its gateway in
    farm_tunnel_network; that network itself is behind the device without one.
    """
    if str(route.gateway) == wish.workstation:
        return True
    if not route.device.startswith(("tun", "ovpn")):
        return False
    try:
        tunnel = parse_network(wish.settings.get("farm_tunnel_network"))
    except NetworkError:
        return False  # `networks` says it
    return route.gateway in tunnel or (not int(route.gateway) and route.network.subnet_of(tunnel))


def parse_routes(text: str) -> list[Route]:
    """The IPv4 routes in ``/proc/net/route`` (proc(5)) without the default route. ValueError: another format."""
    found = []
    for line in text.splitlines()[1:]:
        device, destination, gateway, _, _, _, _, mask, *_ = line.split()
        network = IPv4Network((_address(destination), str(_address(mask))))
        if network.prefixlen:
            found.append(Route(network, _address(gateway), device))
    return found


def _address(digits: str) -> IPv4Address:
    """Eight hexadecimal digits in the byte order of a little-endian machine."""
    return IPv4Address(int.from_bytes(bytes.fromhex(digits), "little"))


def offers(wish: Wish, facts: Facts) -> list[Finding]:
    """Types that are unknown, or that the farm's zones do not have."""
    if facts.offered is None:
        return []
    zones = {zone for _, zone in facts.offered}
    findings = []
    strange = [zone for zone in wish.zones if zone not in zones]
    if strange:
        findings.append(
            Finding(
                "zones",
                "fatal",
                f"{', '.join(strange)}: none of the farm's instance types is offered there",
                f"name zones of {wish.region} in farm_zones: {', '.join(sorted(zones)) or wish.region + 'a'}",
            )
        )
    findings += [
        Finding(
            "types",
            "fatal",
            f"{setting} {kind} is not offered in {wish.zones[0]}, the zone that it runs in",
            f"another type, or another first zone: {_where(kind, facts.offered) or 'none of this Region has it'}",
        )
        for setting, kind in _single_machines(wish).items()
        if (kind, wish.zones[0]) not in facts.offered
    ]
    if _launches_nodes(wish):
        findings += _node_offers(wish, facts.offered)
    return findings or [Finding("types", "ok", f"every type is offered in {', '.join(wish.zones)}")]


def _node_offers(wish: Wish, offered: frozenset[tuple[str, str]]) -> list[Finding]:
    nowhere = [kind for kind in wish.node_types if not any((kind, zone) in offered for zone in wish.zones)]
    if not nowhere:
        return []
    return [
        Finding(
            "types",
            "fatal" if len(nowhere) == len(wish.node_types) else "warning",
            f"farm_node_types: {', '.join(nowhere)} not offered in {', '.join(wish.zones)}",
            "remove them, or add zones to farm_zones: "
            + (
                "; ".join(f"{kind} in {_where(kind, offered)}" for kind in nowhere if _where(kind, offered))
                or "none has them"
            ),
        )
    ]


def _where(kind: str, offered: frozenset[tuple[str, str]]) -> str:
    return ", ".join(sorted(zone for each, zone in offered if each == kind))


def _launches_nodes(wish: Wish) -> bool:
    return wish.purpose != "bake" and wish.all_nodes > 0


def _single_machines(wish: Wish) -> dict[str, str]:
    """The machines beside the nodes: setting -> instance type."""
    machines = {}
    if wish.purpose in ("bake", "check"):
        machines["farm_builder_type"] = wish.builder_type
    if wish.purpose in ("up", "check"):
        machines["farm_manager_type"] = wish.manager_type
    return machines


def is_standard(kind: str) -> bool:
    """Whether the type counts against the quotas of the standard families (im4gn and is4gen belong to I)."""
    return _STANDARD.match(kind) is not None


def quotas(wish: Wish, facts: Facts) -> list[Finding]:
    """The vCPUs that are still to be launched against what the account may run at a time."""
    if facts.vcpus is None or facts.running is None:
        return []
    missing = {kind for kind in (*_single_machines(wish).values(), *wish.node_types) if kind not in facts.vcpus}
    if missing:
        return [
            Finding(
                "types",
                "fatal",
                f"{', '.join(sorted(missing))}: EC2 in {wish.region} knows no such type",
                "correct farm_node_types, farm_manager_type or farm_builder_type, for example c7i.4xlarge",
            )
        ]
    needed = _needed(wish, facts)
    findings = [
        finding
        for lifecycle in ("on-demand", "spot")
        if (finding := _quota(lifecycle, needed, wish, facts)) is not None
    ]
    uncounted = {each.type for each in facts.running if is_standard(each.type) and each.type not in facts.vcpus}
    if uncounted:
        findings.append(
            Finding(
                "quota",
                "warning",
                f"{', '.join(sorted(uncounted))} run in the account and are not counted: their vCPUs are not known",
                "see Service Quotas, Amazon Elastic Compute Cloud (Amazon EC2), for what is in use",
            )
        )
    others = [kind for kind in wish.node_types if not is_standard(kind)]
    if others and _launches_nodes(wish):
        findings.append(
            Finding(
                "quota",
                "warning",
                f"{', '.join(others)} count against quotas of their own, which are not checked",
                "see Service Quotas, Amazon Elastic Compute Cloud (Amazon EC2)",
            )
        )
    return findings


def _needed(wish: Wish, facts: Facts) -> dict[str, int]:
    """vCPUs to be launched, by lifecycle. Nodes count as the smallest of their types, for EC2 may choose that one."""
    assert facts.vcpus is not None and facts.running is not None
    needed = {"spot": 0, "on-demand": 0}
    if wish.purpose == "bake":
        needed["on-demand"] += facts.vcpus[wish.builder_type]
    if wish.purpose in ("up", "check"):
        if all(instance.farm_role != "manager" for instance in facts.running):
            needed["on-demand"] += facts.vcpus[wish.manager_type]
        smallest = min((facts.vcpus[kind] for kind in wish.node_types if is_standard(kind)), default=0)
        for lifecycle, nodes in _bought(wish, facts, facts.running).items():
            needed[lifecycle] += nodes * smallest
    return needed


def _bought(wish: Wish, facts: Facts, running: Sequence[Running]) -> dict[Lifecycle, int]:
    """How many nodes are launched beside those of ``running``, by what they are most likely to become."""
    number = _asked_for(wish, running)
    if wish.on_demand_fallback and _max_price_is_too_low(wish, facts):
        return {"spot": 0, "on-demand": sum(number.values())}
    return number


def _asked_for(wish: Wish, running: Sequence[Running]) -> dict[Lifecycle, int]:
    """How many nodes are launched beside those of ``running``, by what is tried first: split as the launch does it."""
    number: dict[Lifecycle, int] = {"spot": 0, "on-demand": 0}
    for role, count in (("render_node", wish.nodes), ("remote_node", wish.remote_nodes)):
        there = [instance.lifecycle for instance in running if instance.farm_role == role]
        whole = FleetWish("", role, count, spot=wish.spot, spot_percent=wish.spot_percent)
        for lot in lots(whole, max(0, count - len(there)), there.count("on-demand")):
            number[lot.ways[0]] += lot.missing
    return number


def _used(lifecycle: str, facts: Facts) -> int:
    assert facts.vcpus is not None and facts.running is not None
    return sum(
        facts.vcpus.get(instance.type, 0)
        for instance in facts.running
        if instance.lifecycle == lifecycle and is_standard(instance.type)
    )


def _quota(lifecycle: str, needed: Mapping[str, int], wish: Wish, facts: Facts) -> Finding | None:
    limit = facts.quotas.get(lifecycle)
    code, title = QUOTAS[lifecycle]
    want, used = needed[lifecycle], _used(lifecycle, facts)
    if limit is None or not want:
        return None
    check = f"quota {lifecycle}"
    state = f"{want} vCPUs wished, {used} in use, {limit:g} allowed"
    if used + want <= limit:
        return Finding(check, "ok", state)
    remedy = (
        f"ask for {used + want} in Service Quotas ({code}, {title}; it takes days): aws service-quotas "
        f"request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {used + want} "
        f"--region {wish.region}; or wish for fewer nodes"
    )
    rest = facts.quotas.get("on-demand")
    if lifecycle == "spot" and wish.on_demand_fallback and rest is not None:
        over = used + want - max(int(limit), used)
        if _used("on-demand", facts) + needed["on-demand"] + over <= rest:
            return Finding(check, "warning", f"{state}: the rest would be bought on-demand", remedy)
    return Finding(check, "fatal", state, remedy)


def image(wish: Wish, facts: Facts) -> list[Finding]:
    """The image that machines start from."""
    findings = []
    if wish.purpose in ("bake", "check") and facts.base_image is not None:
        smallest = max((int(size) for size in facts.base_image["sizes"]), default=0)
        if wish.disk_gib < smallest:
            findings.append(
                Finding(
                    "image",
                    "fatal",
                    f"farm_disk_gb is {wish.disk_gib}, but {facts.base_image['name']} has {smallest} GiB",
                    f"farm_disk_gb: {smallest} or more",
                )
            )
        else:
            findings.append(Finding("image", "ok", f"a bake starts from {facts.base_image['name']}"))
    if wish.purpose in ("up", "check") and facts.images is not None:
        if facts.images:
            newest = facts.images[0]
            findings.append(Finding("image", "ok", f"{newest['name']} ({newest['image_id']}), {newest['created']}"))
        else:
            findings.append(
                Finding(
                    "image",
                    "fatal" if wish.purpose == "up" else "warning",
                    f"there is no image of the farm in {wish.region}",
                    "make one first: ansible-playbook bake-ami.yml",
                )
            )
    return findings


def licences(wish: Wish, facts: Facts) -> list[Finding]:
    """Nodes that would render nothing for want of a licence, and cost all the same."""
    if not wish.license_nodes or not _launches_nodes(wish):
        return []
    if wish.all_nodes <= wish.license_nodes:
        return [Finding("licences", "ok", f"{wish.all_nodes} nodes, {wish.license_nodes} licences")]
    return [
        Finding(
            "licences",
            "fatal",
            f"{wish.all_nodes} nodes, but farm_license_nodes is {wish.license_nodes}",
            f"{_fewer_nodes(wish)}, or raise farm_license_nodes if you have more (0: not counted)",
        )
    ]


def _fewer_nodes(wish: Wish) -> str:
    if not wish.remote_nodes:
        return f"farm_nodes={wish.license_nodes}"
    return f"farm_nodes and farm_remote_nodes together at most {wish.license_nodes}"


def max_price(wish: Wish, facts: Facts) -> list[Finding]:
    """A maximum for which no pool is sold: EC2 would refuse every spot node, and not before the manager runs."""
    known = _spot_prices(wish, facts)
    nodes = _asked_for(wish, facts.running or ())["spot"]
    if wish.max_price is None or not known or not nodes or not _launches_nodes(wish):
        return []
    check, cheapest = "spot price", min(known)
    limit = f"farm_max_price is {wish.max_price:.4f} USD per hour"
    if not _max_price_is_too_low(wish, facts):
        enough = sum(each <= wish.max_price for each in known)
        return [Finding(check, "ok", f"{limit}: {enough} of {len(known)} spot pools cost no more now")]
    state = f"{limit}, but no spot pool costs less than {cheapest:.4f} now"
    remedy = f"farm_max_price: {cheapest * 1.2:.4f} for some air, or 0, which means the on-demand price"
    if not wish.on_demand_fallback:
        return [Finding(check, "fatal", state, f"{remedy}; or farm_on_demand_fallback: true")]
    dearest = max(_on_demand_prices(wish, facts), default=None)
    each = "" if dearest is None else f", at up to {dearest:.2f} each"
    return [Finding(check, "warning", f"{state}: {nodes} spot nodes would be bought on-demand{each}", remedy)]


def _max_price_is_too_low(wish: Wish, facts: Facts) -> bool:
    known = _spot_prices(wish, facts)
    return wish.max_price is not None and bool(known) and wish.max_price < min(known)


def price(wish: Wish, facts: Facts) -> list[Finding]:
    """What an hour will cost: machines, Windows' licence in them, volumes and public addresses."""
    if facts.credentials_problem:
        return []
    parts: list[tuple[float, float]] = []
    words = []
    on_demand = facts.on_demand_prices or {}
    machines = 0
    for setting, kind in _single_machines(wish).items():
        if wish.purpose == "check" and setting == "farm_builder_type":
            continue  # only while an image is baked
        each = on_demand.get(kind)
        if each is None:
            return [_no_price(kind)]
        machines += 1
        parts.append((each, each))
        words.append(f"{'manager' if setting == 'farm_manager_type' else 'builder'} {each:.2f}")
    if _launches_nodes(wish):
        machines += wish.all_nodes
        for lifecycle, nodes in _bought(wish, facts, ()).items():
            known = _node_prices(lifecycle, wish, facts)
            if nodes and not known:
                return [_no_price("the nodes")]
            if nodes:
                low, high = min(known), max(known)
                parts.append((nodes * low, nodes * high))
                more = _fallback_price(wish, facts) if lifecycle == "spot" else ""
                words.append(f"{nodes} nodes {lifecycle} {_range(low, high)} each{more}")
    disks = machines * volume_per_hour(wish.disk_gib)
    # the manager's or the builder's, and that of each remote node
    public = 1 + (wish.remote_nodes if _launches_nodes(wish) else 0)
    parts.append((disks + public * PUBLIC_IPV4_PER_HOUR,) * 2)
    addresses = "public address" if public == 1 else f"{public} public addresses"
    words.append(f"volumes {disks:.2f}, {addresses} {public * PUBLIC_IPV4_PER_HOUR:.3f}")
    share = _licence_share(wish, facts)
    if share:
        words.append(f"of it {share:.2f} Windows licences")
    total = _range(sum(part[0] for part in parts), sum(part[1] for part in parts))
    return [Finding("price", "ok", f"{total} USD per hour: {', '.join(words)}")]


def _node_prices(lifecycle: Lifecycle, wish: Wish, facts: Facts) -> list[float]:
    """USD per node and hour in each pool from which the nodes may come."""
    if lifecycle == "on-demand":
        return _on_demand_prices(wish, facts)
    known = _spot_prices(wish, facts)
    if wish.max_price is None or _max_price_is_too_low(wish, facts):
        return known
    return [each for each in known if each <= wish.max_price]


def _spot_prices(wish: Wish, facts: Facts) -> list[float]:
    prices = facts.spot_prices or {}
    return [each for (kind, zone), each in prices.items() if kind in wish.node_types and zone in wish.zones]


def _on_demand_prices(wish: Wish, facts: Facts) -> list[float]:
    prices = facts.on_demand_prices or {}
    return [each for kind in wish.node_types if (each := prices.get(kind)) is not None]


def _fallback_price(wish: Wish, facts: Facts) -> str:
    """What a node costs that spot could not give."""
    known = _on_demand_prices(wish, facts)
    if not wish.on_demand_fallback or not known:
        return ""
    return f" (on-demand up to {max(known):.2f}, where spot is short)"


def _licence_share(wish: Wish, facts: Facts) -> float:
    vcpus = facts.vcpus or {}
    total = sum(
        vcpus.get(kind, 0) for setting, kind in _single_machines(wish).items() if setting != "farm_builder_type"
    )
    if wish.purpose == "bake":
        total = vcpus.get(wish.builder_type, 0)
    if _launches_nodes(wish):
        total += wish.all_nodes * min((vcpus.get(kind, 0) for kind in wish.node_types), default=0)
    return windows_share(total)


def _no_price(what: str) -> Finding:
    return Finding(
        "price",
        "warning",
        f"the price of {what} is not known",
        f"allow pricing:GetProducts and ec2:DescribeSpotPriceHistory ({POLICY_FILE}), or look at https://aws.amazon.com/ec2/pricing/",
    )


def _range(low: float, high: float) -> str:
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
