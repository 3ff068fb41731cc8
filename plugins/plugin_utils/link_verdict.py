# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results and facts -> rows with a verdict and, for each failure, the likeliest cause and its remedy.

Causes are looked for in the order in which one hides the other: what no traffic can pass (networks, certificates,
clock, service, what OpenVPN's log says, port forward), then what stops traffic that the tunnel's ends only forward
(source check, VPC routes, forwarding, routes in the studio), then what stops one kind of traffic (security group,
firewall, a program that does not listen).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, Protocol

from .link import CLOUD, ETHERNET_MTU, HEADERS, LAN, REMOTE, TUNNEL_MTU, Answers, Point, Question, Settings
from .link_facts import Cloud, host_network
from .link_router import far_networks, port_forward, router_route, windows_route
from .openvpn_log import is_quarrel

#: Seconds by which a machine's clock may differ: NTLM and Kerberos take five minutes.
CLOCK_TOLERANCE: Final = 300
#: Certificates are made to begin a day in the past: from there on the tunnel itself fails.
CLOCK_BREAKS_TUNNEL: Final = 86400
#: Days before the end of a certificate or of the revocation list from which it is said.
EXPIRY_WARNING: Final = 60
#: Causes of `openvpn_log` that a client names whose packets vanish: why they do is found elsewhere.
_UNHEARD: Final = (
    "the server does not answer",
    "at the server's address nothing listens",
    "nobody is reached at the server's address",
)
_RENEW: Final = "ansible-playbook playbooks/vpn-renew.yml"
_CRL: Final = "expired revocation list (CRL): everybody is refused"
_RERUN: Final = "ansible-playbook farm-up.yml"


class Finding(Protocol):
    """A line of OpenVPN's log that says why the tunnel does not stand (`openvpn_log.explain`)."""

    @property
    def line(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def remedy(self) -> str: ...


Explain = Callable[[str], Sequence[Finding]]


@dataclass(frozen=True)
class Cause:
    """Why, and what to do about it."""

    cause: str
    remedy: str


@dataclass(frozen=True)
class Row:
    """One line of the table. ``to`` is empty when the check is about one machine alone."""

    check: str
    frm: str
    to: str
    ok: bool
    detail: str
    cause: str = ""
    remedy: str = ""
    required: bool = True

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        return {"from" if key == "frm" else key: value for key, value in row.items()}


def verdict(
    settings: Settings,
    first: Answers,
    second: Answers,
    cloud: Cloud,
    pki: Mapping[str, Any] | None,
    explain: Explain,
) -> list[dict[str, Any]]:
    """The rows, what is wrong with the whole link before what is wrong between two machines."""
    evidence = Evidence(settings, first, cloud, pki, explain)
    rows = [
        *_input_rows(evidence),
        *_pki_rows(evidence),
        *_cloud_rows(evidence),
        *_machine_rows(evidence),
        *_tunnel_rows(evidence),
        *_pair_rows(evidence),
        *_transfer_rows(evidence, second),
    ]
    return [row.as_json() for row in rows]


def problems(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each cause of a failure once, with its remedy and how many rows it explains; those that must be mended first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["ok"]:
            continue
        key = (str(row["cause"]), str(row["remedy"]))
        known = found.setdefault(
            key, {"cause": key[0], "remedy": key[1], "failures": 0, "required": False, "checks": []}
        )
        known["failures"] += 1
        known["required"] = known["required"] or bool(row["required"])
        if row["check"] not in known["checks"]:
            known["checks"].append(row["check"])
    return sorted(found.values(), key=lambda problem: (not problem["required"], -problem["failures"]))


class Evidence:
    """All that is known, and what follows from it for a pair of machines."""

    def __init__(
        self,
        settings: Settings,
        answers: Answers,
        cloud: Cloud,
        pki: Mapping[str, Any] | None,
        explain: Explain,
    ) -> None:
        self.settings = settings
        self.answers = answers
        self.cloud = cloud
        self.pki = pki
        self.explain = explain
        self.workstation = settings.first("workstation")
        self.manager = settings.first("manager")
        self.tunnel_up = self._crossed(LAN, CLOUD)

    # ---------------------------------------------------------------------------------------------------- observations

    def _crossed(self, one: str, other: str) -> bool:
        """Did any packet come back from the other side?"""
        return any(
            self.answers.pings(asker.host, target.name)
            for asker in self.settings.points
            for target in self.settings.points
            if asker.host and {asker.segment, target.segment} == {one, other}
        )

    def silent(self, point: Point) -> str:
        """Why Ansible had no answer of that machine; empty when it had, or does not ask it."""
        return self.answers.silent.get(point.host, "") if point.host else ""

    def clock_offset(self, point: Point) -> float | None:
        """By how many seconds its clock is ahead of the controller's."""
        result = self.answers.one(point.host, "clock") if point.host else None
        return float(result["now"]) - self.answers.asked_at(point.host) if result and "now" in result else None

    def openvpn(self, point: Point | None) -> Mapping[str, Any] | None:
        return self.answers.one(point.host, "OpenVPN") if point and point.host else None

    def findings(self, point: Point | None) -> list[Finding]:
        """What the logs of a machine complain of, the most telling first."""
        result = self.openvpn(point)
        return [finding for text in (result or {}).get("logs", {}).values() for finding in self.explain(str(text))]

    def telling(self, point: Point | None) -> Finding | None:
        """The first complaint that says more than that nobody answers."""
        return next((found for found in self.findings(point) if not found.cause.startswith(_UNHEARD)), None)

    def has_route(self, point: Point, address: IPv4Address) -> bool | None:
        """Has it a route of its own to the address, other than the default route? None when it was not asked."""
        result = self.answers.one(point.host, "routes") if point.host else None
        if not result or "routes" not in result:
            return None
        networks = [IPv4Network(route["network"]) for route in result["routes"]]
        return any(address in network for network in networks if network.prefixlen > 0)

    def forwards(self, point: Point | None) -> bool:
        result = self.answers.one(point.host, "forwarding") if point and point.host else None
        return result is None or result.get("enabled") is not False

    def double_nat(self) -> str:
        """A private address one hop behind the studio's router, or nothing."""
        for point in self.settings.points:
            result = self.answers.one(point.host, "second hop") if point.host else None
            for complaint in (result or {}).get("complaints", ()):
                address = IPv4Address(complaint["from"])
                if _behind_nat(address) and address not in self.settings.lan:
                    return str(address)
        return ""

    # ---------------------------------------------------------------------------------------------------------- causes

    def overlap(self) -> Cause | None:
        problems = self.settings.problems
        return Cause("overlapping networks", " ".join(problems)) if problems else None

    def expired(self) -> Cause | None:
        """A certificate or the revocation list that has ended."""
        if not self.pki:
            return None
        for certificate in (self.pki.get("authority") or {}, *self.pki.get("certificates", ())):
            if certificate.get("state") == "expired":
                return Cause(
                    f"expired certificate ({certificate.get('name', 'authority')})",
                    _RENEW,
                )
        if _days(self.pki.get("revocations")) < 0:
            return Cause(_CRL, _RENEW)
        return None

    def wrong_clock(self) -> Cause | None:
        for point in self.settings.points:
            offset = self.clock_offset(point)
            if offset is not None and abs(offset) >= CLOCK_BREAKS_TUNNEL:
                return _clock_cause(point, offset)
        return None

    def service_down(self, point: Point | None) -> Cause | None:
        result = self.openvpn(point)
        if point is None or result is None or result.get("service") == "running":
            return None
        return Cause(
            f"the OpenVPN service of {point.name} is {result.get('service') or 'not known'}",
            f"on {point.name}: Start-Service OpenVPNService (Linux: systemctl start openvpn…), or {_RERUN}",
        )

    def tunnel_down(self) -> Cause:
        """Why nothing crosses between studio and cloud."""
        plain = (
            self.overlap()
            or self.expired()
            or self.wrong_clock()
            or self.service_down(self.workstation)
            or self.service_down(self.manager)
        )
        if plain:
            return plain
        # The server knows why it refused; a client whose packets are dropped only knows that nobody answers.
        server, client = self.workstation, self.manager
        if self.settings.side == "cloud":
            server, client = client, server
        for point in (server, client):
            finding = self.telling(point)
            if finding is not None and point is not None:
                return Cause(f"{finding.cause} (log of {point.name})", finding.remedy)
        return self._unheard()

    def _unheard(self) -> Cause:
        """The server hears nothing of the client."""
        settings = self.settings
        if settings.side == "studio":
            if router := self.double_nat():
                return Cause(
                    f"double NAT: behind the studio's router is another one ({router})",
                    "forward the port on both routers, ask the provider for a public address, or set "
                    f"farm_vpn_server_side: cloud and run {_RERUN}",
                )
            return Cause(
                "port forward missing",
                f"in the home router: {port_forward(settings)}; {settings.endpoint} must be its public address",
            )
        if self.cloud.known and not self.cloud.public_address:
            return Cause("the manager has no public address", _RERUN)
        source = host_network(IPv4Address("0.0.0.0"))
        if self.cloud.allows("manager", "udp", settings.port, source) is False:
            return _group_cause(self.cloud, "manager", "udp", settings.port, "anywhere")
        return Cause(
            "firewall: the studio lets no UDP out",
            f"allow UDP port {settings.port} to {self.cloud.public_address or 'the manager'} in the studio's firewall",
        )

    def between(self, asker: Point, target: Point, protocol: str = "icmp", port: int = -1) -> Cause:
        """Why no packet comes back from ``target``."""
        if asker.segment == target.segment:
            return _firewall(target, protocol, port)
        segments = {asker.segment, target.segment}
        if REMOTE in segments and not self._remote_up(asker if asker.segment == REMOTE else target):
            return self._remote_down(asker if asker.segment == REMOTE else target)
        if LAN in segments and not self.tunnel_up:
            return self.tunnel_down()
        return (
            self._forwarded(asker, target)
            or self._grouped(asker, target, protocol, port)
            or self._studio_route(asker, target)
            or self._answers_others(asker, target)
            or _firewall(target, protocol, port)
        )

    def _answers_others(self, asker: Point, target: Point) -> Cause | None:
        """A node that answers the manager beside it: then its firewall is narrow."""
        if target.kind != "node" or self.manager is None or not self.answers.pings(self.manager.host, target.name):
            return None
        return Cause(
            f"firewall of {target.name}: it answers the manager, but not {asker.name}",
            f"let {', '.join(map(str, self.sources(asker)))} in there (a new image: ansible-playbook bake-ami.yml)",
        )

    def _remote_up(self, remote: Point) -> bool:
        manager = self.manager
        return manager is not None and (
            self.answers.pings(manager.host, remote.name) or self.answers.pings(remote.host, manager.name)
        )

    def _remote_down(self, remote: Point) -> Cause:
        if plain := self.expired() or self.service_down(remote) or self.service_down(self.manager):
            return plain
        if finding := self.telling(remote) or self.telling(self.manager):
            return Cause(finding.cause, finding.remedy)
        return Cause(
            f"the tunnel of {remote.name} does not stand",
            f"see that the manager's security group lets UDP in; {_RERUN}",
        )

    def _ends(self, point: Point) -> bool:
        """Is it an end of the tunnel, so that nobody forwards for it?"""
        return point.kind in ("workstation", "manager", "remote")

    def _forwarded(self, asker: Point, target: Point) -> Cause | None:
        """What EC2 or the gateways drop because they only forward it."""
        node = next((point for point in (asker, target) if point.kind == "node"), None)
        far = target if node is asker else asker
        if node is not None and self.cloud.known:
            if self.cloud.source_check:
                return _source_check(self.cloud)
            for network in self.sources(far):
                if cause := _missing_route(self.cloud, network):
                    return cause
        if node is not None and not self.forwards(self.manager):
            return _forwarding(self.manager)
        behind = [point for point in (asker, target) if point.segment == LAN and not self._ends(point)]
        if behind and not self.forwards(self.workstation):
            return _forwarding(self.workstation)
        return None

    def _grouped(self, asker: Point, target: Point, protocol: str, port: int) -> Cause | None:
        """The node's security group. (The manager's sees only the tunnel's own packets.)"""
        if target.kind != "node":
            return None
        for network in self.sources(asker)[:1]:
            if self.cloud.allows("render_node", protocol, port, network) is False:
                return _group_cause(self.cloud, "render_node", protocol, port, str(network))
        return None

    def sources(self, point: Point) -> list[IPv4Network]:
        """The networks that its packets come from: the tunnel's ends use their address inside the tunnel."""
        settings = self.settings
        if point.kind == "workstation":
            return [settings.tunnel, settings.lan]
        return [{LAN: settings.lan, CLOUD: settings.cloud, REMOTE: settings.remote}[point.segment]]

    def _studio_route(self, asker: Point, target: Point) -> Cause | None:
        """A machine of the studio whose packets for the cloud do not go to the workstation."""
        for near, far in ((asker, target), (target, asker)):
            if near.segment != LAN or near.kind == "workstation" or self.workstation is None:
                continue
            # The workstation answers the tunnel's other end with its own address there, a node with that of its VPC.
            address = self.settings.tunnel[1] if far.kind == "workstation" else far.address
            if self.has_route(near, address) is False:
                return self.route_missing(near)
            if near is target and not near.host:
                return Cause(f"route missing in the studio, or the firewall of {near.name}", self._route_lines())
        return None

    def route_missing(self, point: Point) -> Cause:
        return Cause(f"route missing in the studio ({point.name} and its router)", self._route_lines())

    def _route_lines(self) -> str:
        assert self.workstation is not None
        gateway = self.workstation.address
        networks = far_networks(self.settings)
        on_pc = "; ".join(windows_route(network, gateway) for network in networks)
        return f"on the PC: {on_pc}. Or in the home router: {router_route(networks[0], gateway)}, and so for the others"


# -------------------------------------------------------------------------------------------------------------- causes


def _behind_nat(address: IPv4Address) -> bool:
    """RFC 1918 and the addresses of carriers (RFC 6598)."""
    ranges = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
    return any(address in IPv4Network(network) for network in ranges)


def _days(entry: Mapping[str, Any] | None) -> int:
    return int((entry or {}).get("days_left") if (entry or {}).get("days_left") is not None else 99999)  # type: ignore[arg-type]


def _source_check(cloud: Cloud) -> Cause:
    return Cause(
        "source/destination check is on",
        f"aws ec2 modify-network-interface-attribute --network-interface-id {cloud.interface} --no-source-dest-check, "
        f"or {_RERUN}",
    )


def _missing_route(cloud: Cloud, network: IPv4Network) -> Cause | None:
    for table in cloud.tables:
        target, state = table.routes.get(network, ("", ""))
        remedy = (
            f"aws ec2 {'replace' if state else 'create'}-route --route-table-id {table.table_id} "
            f"--destination-cidr-block {network} --network-interface-id {cloud.interface}, or {_RERUN}"
        )
        if not state:
            return Cause(f"VPC route missing: {table.table_id} has no route to {network}", remedy)
        if state != "active":
            return Cause(f"VPC route to {network} is a {state}: the manager does not run", remedy)
        if target != cloud.interface:
            return Cause(f"VPC route to {network} does not lead to the manager", remedy)
    return None


def _group_cause(cloud: Cloud, role: str, protocol: str, port: int, source: str) -> Cause:
    what = "ICMP" if protocol == "icmp" else f"{protocol.upper()} port {port}"
    return Cause(f"firewall: the security group {cloud.group_name(role)} does not let {what} in from {source}", _RERUN)


def _forwarding(point: Point | None) -> Cause:
    name = point.name if point else "the gateway"
    switch = "netsh interface ipv4 set interface interface=INDEX forwarding=enabled"
    return Cause(f"forwarding is off on {name}", f"{_RERUN}; or there, for each adapter: {switch}")


def _firewall(target: Point, protocol: str, port: int) -> Cause:
    what = "ping" if protocol == "icmp" else f"TCP port {port}"
    return Cause(
        f"firewall of {target.name}: it does not answer ({what})",
        f"allow {what} there from the studio's, the cloud's and the tunnel's network, in any profile",
    )


def _unanswered(point: Point) -> Cause:
    return Cause(f"Ansible does not reach {point.name}", "see the row 'answers'; then run this again")


def _clock_cause(point: Point, offset: float) -> Cause:
    way = "ahead" if offset > 0 else "behind"
    return Cause(
        f"wrong clock: {point.name} is {abs(offset):.0f} s {way}",
        f"on {point.name}: w32tm /resync /force (Linux: timedatectl set-ntp true), and see that it has a time server",
    )


# ---------------------------------------------------------------------------------------------------------------- rows


def _row(
    check: str, frm: str, to: str, ok: bool, detail: str, cause: Cause | None = None, *, required: bool = True
) -> Row:
    if ok:
        return Row(check, frm, to, True, detail, required=required)
    known = cause or Cause("not known", "see the detail")
    return Row(check, frm, to, False, detail, known.cause, known.remedy, required)


def _input_rows(evidence: Evidence) -> list[Row]:
    problems = evidence.settings.problems
    networks = ", ".join(f"{name} {network}" for name, network in evidence.settings.networks.items())
    return [_row("networks", "settings", "", not problems, networks, evidence.overlap())]


def _pki_rows(evidence: Evidence) -> list[Row]:
    pki = evidence.pki
    if not pki:
        return []
    rows = []
    for certificate in (pki.get("authority") or {}, *pki.get("certificates", ())):
        state = str(certificate.get("state") or "missing")
        name = str(certificate.get("name") or "authority")
        days = certificate.get("days_left")
        ok = state in ("good", "due")
        detail = f"{state}, {days} days left" if days is not None else state
        cause = {
            "expired": f"expired certificate ({name})",
            "revoked": f"the certificate {name} is revoked",
            "missing": f"the certificate {name} is missing",
        }.get(state, f"the certificate {name} is {state}")
        rows.append(_row("certificate", "controller", name, ok, detail, Cause(cause, _RENEW)))
    days = _days(pki.get("revocations"))
    rows.append(
        _row(
            "revocation list",
            "controller",
            "",
            days >= 0,
            f"{days} days left" if days < 99999 else "none",
            Cause(_CRL, _RENEW),
        )
    )
    return rows


def _cloud_rows(evidence: Evidence) -> list[Row]:
    cloud, settings = evidence.cloud, evidence.settings
    if not cloud.known:
        return []
    missing = Cause("the manager has no network interface", _RERUN)
    check = cloud.source_check
    text = {True: "on", False: "off", None: "no network interface"}[check]
    rows = [_row("source check", "EC2", "manager", check is False, text, _source_check(cloud) if check else missing)]
    wanted = [settings.lan, settings.tunnel]
    if settings.of_kind("remote"):
        wanted.append(settings.remote)
    for network in wanted:
        cause = _missing_route(cloud, network) if cloud.tables else Cause("the VPC has no route table", _RERUN)
        rows.append(_row("VPC route", "EC2", str(network), cause is None, cloud.interface, cause))
    for network in (settings.lan, settings.tunnel):
        for protocol, port in (("icmp", -1), *(("tcp", port) for port in settings.ports.get("node", {}))):
            allowed = cloud.allows("render_node", protocol, port, network)
            if allowed is None:
                continue
            what = "ICMP" if protocol == "icmp" else f"TCP {port}"
            cause = _group_cause(cloud, "render_node", protocol, port, str(network))
            rows.append(_row("security group", str(network), "nodes", allowed, what, cause))
    if not settings.of_kind("node"):
        rows = [row for row in rows if row.check != "security group"]
    return rows


def _machine_rows(evidence: Evidence) -> list[Row]:
    rows: list[Row] = []
    for point in evidence.settings.points:
        if not point.host:
            continue
        if why := evidence.silent(point):
            cause = evidence.tunnel_down() if point.kind == "manager" and not evidence.tunnel_up else None
            rows.append(_row("answers", "controller", point.name, False, _short(why), cause or _unanswered(point)))
            continue
        offset = evidence.clock_offset(point)
        if offset is not None:
            off = abs(offset) > CLOCK_TOLERANCE
            rows.append(_row("clock", point.name, "", not off, f"{offset:+.0f} s", _clock_cause(point, offset)))
        forwarding = evidence.answers.one(point.host, "forwarding")
        if forwarding is not None:
            on = forwarding.get("enabled")
            text = {True: "on", False: "off for an adapter"}.get(on, str(forwarding.get("error") or "not known"))  # type: ignore[arg-type]
            rows.append(_row("forwarding", point.name, "", on is not False, text, _forwarding(point)))
        rows += _route_rows(evidence, point)
        rows += _name_rows(evidence, point)
    return rows


def _route_rows(evidence: Evidence, point: Point) -> list[Row]:
    """Only PCs of the studio need routes to the workstation; without their own, the router must have them."""
    if point.segment != LAN or point.kind == "workstation" or evidence.workstation is None:
        return []
    missing = [
        network
        for network in far_networks(evidence.settings)
        if evidence.has_route(point, network.network_address + 1) is False
    ]
    detail = "none to " + ", ".join(map(str, missing)) if missing else "own routes through the workstation"
    return [_row("route", point.name, "cloud", not missing, detail, evidence.route_missing(point), required=False)]


def _name_rows(evidence: Evidence, point: Point) -> list[Row]:
    rows = []
    for name, address in evidence.settings.names.items():
        result = evidence.answers.one(point.host, "name", name)
        if result is None:
            continue
        found = ", ".join(result.get("addresses", ())) or "it does not resolve"
        cause = Cause(
            f"{point.name} does not know the name" if not result.get("addresses") else "another address for the name",
            f"in the hosts file of {point.name}: {address} {name}",
        )
        rows.append(_row("name", point.name, name, bool(result.get("ok")), found, cause))
    return rows


def _tunnel_rows(evidence: Evidence) -> list[Row]:
    settings = evidence.settings
    rows = []
    for point in (evidence.workstation, evidence.manager, *settings.of_kind("remote")):
        result = evidence.openvpn(point)
        if point is None or result is None:
            continue
        running = result.get("service") == "running"
        findings = evidence.findings(point)
        detail = str(result.get("service") or result.get("error") or "")
        if findings:
            detail += f"; log: {_short(findings[0].line)}"
        rows.append(_row("OpenVPN", point.name, "", running, detail, evidence.service_down(point)))
        if evidence.tunnel_up and (quarrel := next((found for found in findings if is_quarrel(found.cause)), None)):
            cause = Cause(f"{quarrel.cause} (log of {point.name})", quarrel.remedy)
            rows.append(_row("OpenVPN", point.name, "", False, _short(quarrel.line), cause))
    if evidence.workstation and evidence.manager:
        ends = (evidence.workstation.name, evidence.manager.name)
        up = evidence.tunnel_up
        text = "stands" if up else "nothing crosses it"
        rows.append(_row("tunnel", *ends, up, text, None if up else evidence.tunnel_down()))
        if settings.side == "studio":
            # That the gateway's tunnel stands is the proof: its packets came in through the router.
            unheard = None if up else evidence.tunnel_down()
            forwarded = up or unheard is None or not unheard.cause.startswith(("port forward", "double NAT"))
            text = "proved by the tunnel" if up else "not proved" if forwarded else "no packet comes in"
            rows.append(_row("port forward", "router", evidence.workstation.name, forwarded, text, unheard))
    return rows


def _pair_rows(evidence: Evidence) -> list[Row]:
    rows = []
    for asker in evidence.settings.points:
        results = evidence.answers.results(asker.host) if asker.host else []
        mtu: dict[str, list[tuple[Question, Mapping[str, Any]]]] = {}
        for question, result in results:
            if question.check == "ping":
                rows.append(_ping_row(evidence, asker, question, result))
            elif question.check == "path MTU":
                mtu.setdefault(question.target, []).append((question, result))
            elif question.check == "port":
                rows.append(_port_row(evidence, asker, question, result))
        for target, pair in mtu.items():
            rows.append(_mtu_row(evidence, asker, target, pair))
    order = {"ping": 0, "path MTU": 1, "port": 2}
    return sorted(rows, key=lambda row: order[row.check])


def _ping_row(evidence: Evidence, asker: Point, question: Question, result: Mapping[str, Any]) -> Row:
    target = evidence.settings.by_name(question.target)
    received, sent = result.get("received", 0), result.get("sent", 0)
    detail = f"{received}/{sent}"
    if received:
        detail += f", {result['ms']} ms"
    elif "error" in result:
        detail = _short(str(result["error"]))
    complaints = [f"{each['from']}: {each['text']}" for each in result.get("complaints", ())]
    if not received:
        detail = "; ".join([detail, *complaints[:1], *([str(result["said"])] if result.get("said") else [])])
    if received and not result.get("ok"):
        cause = Cause("packets are lost on the way", "see the line's load and quality; run this again")
    else:
        cause = evidence.between(asker, target) if not result.get("ok") else Cause("", "")
    return _row("ping", asker.name, target.name, bool(result.get("ok")), detail, cause, required=question.required)


def _mtu_row(evidence: Evidence, asker: Point, name: str, pair: Sequence[tuple[Question, Mapping[str, Any]]]) -> Row:
    (inside, small), (_, large) = pair
    target = evidence.settings.by_name(name)
    fits = bool(small.get("received"))
    told = bool(large.get("too_large") or large.get("received"))
    size, ethernet = TUNNEL_MTU - HEADERS, ETHERNET_MTU - HEADERS
    answer = "passes too" if large.get("received") else "is answered" if large.get("too_large") else "vanishes"
    detail = f"{size} {'passes' if fits else 'does not pass'}, {ethernet} {answer}"
    if not evidence.answers.pings(asker.host, name):
        cause = evidence.between(asker, target)
    elif not fits:
        cause = Cause(
            "path MTU: packets of the tunnel's size vanish",
            f"see that the server's configuration has 'tun-mtu {TUNNEL_MTU}' and no router on the way drops fragments",
        )
    else:
        cause = Cause(
            "firewall: ICMP 'fragmentation needed' is filtered",
            f"let ICMP type 3 code 4 through between {asker.name} and the workstation or manager",
        )
    return _row("path MTU", asker.name, name, fits and told, detail, cause, required=inside.required)


def _port_row(evidence: Evidence, asker: Point, question: Question, result: Mapping[str, Any]) -> Row:
    target = evidence.settings.by_name(question.target)
    port = int(question.probe["port"])
    what = evidence.settings.ports_of(target)[port]
    if result.get("ok"):
        return _row("port", asker.name, target.name, True, f"{port} {what}, {result.get('ms')} ms")
    error = str(result.get("error") or "")
    if error == "refused":
        cause = Cause(f"{what}: nothing listens on port {port} of {target.name}", f"start that service there; {_RERUN}")
    elif (
        evidence.answers.pings(asker.host, target.name)
        and evidence.has_route(asker, target.address) is False
        and (asker.segment == LAN and target.segment != LAN)
    ):
        cause = Cause(
            "route only in the home router, which drops connections that it sees one half of",
            evidence.route_missing(asker).remedy,
        )
    elif evidence.answers.pings(asker.host, target.name):
        cause = (
            evidence._grouped(asker, target, "tcp", port) if asker.segment != target.segment else None
        ) or _firewall(target, "tcp", port)
    else:
        cause = evidence.between(asker, target, "tcp", port)
    return _row("port", asker.name, target.name, False, f"{port} {what}: {error}", cause)


def _transfer_rows(evidence: Evidence, second: Answers) -> list[Row]:
    rows = []
    settings = evidence.settings
    for point in settings.points:
        results = second.results(point.host) if point.host else []
        for question, result in results:
            if not question.check.startswith("transfer"):
                continue
            target = settings.by_name(question.target)
            ends = (point, target) if question.check == "transfer to" else (target, point)
            rows.append(_transfer_row(evidence, ends, result))
    if not rows and settings.full and evidence.manager is not None:
        text = "not tried: no pings pass, or the manager does not answer"
        cause = _unanswered(evidence.manager) if evidence.tunnel_up else evidence.tunnel_down()
        rows.append(_row("transfer", "", evidence.manager.name, False, text, cause))
    return rows


def _transfer_row(evidence: Evidence, ends: tuple[Point, Point], result: Mapping[str, Any]) -> Row:
    source, sink = ends
    if not result.get("ok"):
        far = sink if source.kind != "manager" else source
        near = source if far is sink else sink
        cause = evidence._studio_route(near, far) or Cause(
            "firewall, or path MTU: pings pass, a transfer does not",
            f"see the rows 'path MTU' and 'port' of {near.name}",
        )
        return _row("transfer", source.name, sink.name, False, _short(str(result.get("error", ""))), cause)
    size = result["bytes"] / 1e6
    detail = f"{size:g} MB in {result['seconds']:.1f} s, {result['mbit']:.0f} Mbit/s, SHA-256 equal"
    least = evidence.settings.least_mbit
    enough = result["mbit"] >= least
    cause = Cause(
        f"slower than link_check_least_mbit ({least:g} Mbit/s)", "see the studio's line and the type of the manager"
    )
    return _row("transfer", source.name, sink.name, enough, detail, cause)


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
