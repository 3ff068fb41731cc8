# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains the log of either end of the tunnel: which line says why nothing passes, and what helps.

The lines are those of OpenVPN 2.6 at ``verb 3`` (files ``ssl_verify*.c``, ``ssl*.c``, ``tls_crypt.c``, ``multi.c``,
``socket.c``, ``route.c``, ``tun.c`` of its source); the certificate errors in them are OpenSSL's
(``X509_verify_cert_error_string(3)``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_READY = re.compile(r"Initialization Sequence Completed")
_NAME = r"(?P<name>[^,\n]+?)(?:, serial=\S+)?\s*$"
_RENEW = "renew it: ansible-playbook playbooks/vpn-renew.yml"
_CLOCKS = "set the clock of this machine (w32tm /resync) and of the controller"


@dataclass(frozen=True)
class Finding:
    """One line of a log, what it means and what helps."""

    line: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class _Rule:
    """``cause`` and ``remedy`` may name groups of the pattern.

    :param stays: true also after the tunnel came up later in the same log.
    """

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    stays: bool = False


def _verify(error: str, cause: str, remedy: str, *, depth: str = r"\d+") -> _Rule:
    return _Rule(re.compile(rf"VERIFY ERROR: depth={depth}, error={error}: {_NAME}"), cause, remedy)


# The first rule that matches a line explains it.
_RULES = (
    _verify(
        "certificate has expired",
        "the certificate of the authority ({name}) has expired",
        "make a new authority: move the folder pki away and run farm-up.yml",
        depth="[1-9]",
    ),
    _verify("certificate has expired", "the certificate of {name} has expired", _RENEW),
    _verify(
        "certificate is not yet valid",
        "the certificate of {name} begins in the future: a clock is wrong, here or where it was made",
        _CLOCKS,
    ),
    _verify(
        "certificate revoked",
        "the certificate of {name} is revoked",
        "if that was a mistake, give the machine a new certificate: ansible-playbook playbooks/vpn-renew.yml",
    ),
    _verify(
        "CRL has expired",
        "the list of revoked certificates has expired; every machine is refused",
        "write a new list: ansible-playbook playbooks/vpn-renew.yml",
    ),
    _verify("CRL is not yet valid", "the list of revoked certificates begins in the future: a clock is wrong", _CLOCKS),
    _verify(
        "unable to get certificate CRL",
        "there is no list of revoked certificates of this authority; every machine is refused",
        "write the list again: ansible-playbook farm-up.yml",
    ),
    _verify(
        "(?:unable to get (?:local )?issuer certificate|unable to verify the first certificate"
        "|self[- ]signed certificate(?: in certificate chain)?|certificate signature failure)",
        "the certificate of {name} is from another authority than this end's",
        "configure both ends from one controller with one folder of keys: ansible-playbook farm-up.yml",
    ),
    _verify(
        "(?:unsuitable|unsupported) certificate purpose",
        "the certificate of {name} is for the other end of a tunnel (server and client swapped)",
        "run farm-up.yml again: it gives each end a certificate of its own usage",
    ),
    _Rule(
        re.compile(r"VERIFY (?:EKU|KU) ERROR"),
        "the other end's certificate is for another usage",
        "run farm-up.yml again: it gives each end a certificate of its own usage",
    ),
    _Rule(
        re.compile(r"VERIFY X509NAME ERROR: CN=(?P<name>.+?), must be (?P<wanted>\S+)"),
        "the server presents itself as {name} instead of {wanted}",
        "another OpenVPN server answers at this address: check the name of the server and the router's port forward",
    ),
    _verify(".+", "the certificate of {name} is refused", "the line names the reason; vpn-renew.yml makes new ones"),
    _Rule(
        re.compile(r"TLS Auth Error: --client-config-dir authentication failed for common name '(?P<name>[^']*)'"),
        "the server has no entry for {name}",
        "run farm-up.yml: it writes an entry for each machine that may dial in",
    ),
    _Rule(
        re.compile(r"AUTH: Received control message: AUTH_FAILED"),
        "the server refuses this machine: it has no entry for it",
        "run farm-up.yml: it writes an entry for each machine that may dial in",
    ),
    _Rule(
        re.compile(r"can not extract tls-crypt-v2 client key|tls_crypt_v2_unwrap_client_key: .*error"),
        "the client's key of the handshake (tls-crypt-v2) is not of this server, or a stranger knocks",
        "configure both ends from one controller with one folder of keys: ansible-playbook farm-up.yml",
    ),
    _Rule(
        re.compile(r"RESOLVE: Cannot resolve host address: (?P<name>[^ (]+)"),
        "the name of the server cannot be resolved ({name})",
        "check farm_studio_endpoint and the dynamic DNS entry of the studio; until then an address works, too",
    ),
    _Rule(
        re.compile(r"Server poll timeout|TLS key negotiation failed to occur|Inactivity timeout \(--ping-restart\)"),
        "the server does not answer",
        "check, in this order: its service OpenVPNService runs; its log refuses nobody; the home router forwards the "
        "UDP port to it; there is no second router (double NAT) or carrier NAT before it (then farm_vpn_server_side: "
        "cloud); both ends use the same keys",
    ),
    _Rule(
        re.compile(r"Connection refused|WSAECONNRESET|Connection reset by peer"),
        "at the server's address nothing listens on the port",
        "start OpenVPNService there, or mend the router's port forward",
    ),
    _Rule(
        re.compile(r"No route to host|Host unreachable|WSAEHOSTUNREACH"),
        "nobody is reached at the server's address: a router says that there is no route to the host",
        "see that the server's machine runs, and has the address that the port forward of the router before it names",
    ),
    _Rule(
        re.compile(r"Network is unreachable|Network unreachable|WSAENETUNREACH"),
        "this machine has no way to the internet",
        "check its default route and, on AWS, its public address",
    ),
    _Rule(
        re.compile(r"WARNING: Your certificate has expired"),
        "this machine's own certificate has expired",
        _RENEW,
        stays=True,
    ),
    _Rule(
        re.compile(r"WARNING: Your certificate is not yet valid"),
        "this machine's own certificate begins in the future: its clock is wrong",
        _CLOCKS,
        stays=True,
    ),
    _Rule(
        re.compile(r"potential (?:TUN/TAP|route) .*conflict"),
        "a network of the tunnel overlaps a network that this machine is in",
        "choose other networks: farm_lan_network, farm_cloud_network, farm_tunnel_network, farm_remote_network",
        stays=True,
    ),
    _Rule(
        re.compile(r"(?:ROUTE|route).*(?:failed|denied)"),
        "a route of the tunnel could not be set",
        "OpenVPN must run as the service OpenVPNService (version 2.6: as LocalSystem)",
        stays=True,
    ),
    _Rule(
        re.compile(r"All .*adapters on this system are currently in use|no TAP-Windows adapters|no dco adapter"),
        "there is no free network adapter for the tunnel",
        "install OpenVPN's drivers again (features Drivers.TAPWindows6 and Drivers.OvpnDco of its installer)",
    ),
    _Rule(
        re.compile(r"Socket bind failed.*"),
        "another program uses the tunnel's UDP port",
        "end it, or choose another farm_vpn_port",
    ),
    _Rule(
        re.compile(r"CRL: cannot read|CRL: loaded 0 CRLs|--crl-verify.*(?:No such file|cannot)"),
        "the list of revoked certificates is missing or damaged; every machine is refused",
        "write the list again: ansible-playbook farm-up.yml",
    ),
    _Rule(
        re.compile(r"Options error: (?P<name>.+)"),
        "OpenVPN does not understand its configuration ({name})",
        "write it again with farm-up.yml; OpenVPN must be version 2.6 or newer",
    ),
    _Rule(
        re.compile(r"Cannot (?:load|open) .*|Private key does not match the certificate"),
        "a key or certificate in the configuration is damaged",
        "write it again: ansible-playbook farm-up.yml",
    ),
)

_CONNECTED = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:[^\s/]+/)?(?P<address>[\d.]+):\d+ .*\[(?P<name>[^\]]+)\] "
    r"Peer Connection Initiated"
)
_DROPPED = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) MULTI: new connection by client '(?P<name>[^']+)' will cause previous "
    r"active sessions"
)
# Two machines with one name push each other out about every 15 seconds (the server's ping-restart). A single machine
# that was restarted does it once.
_OFTEN = 3
_SOON = timedelta(minutes=2)
# A server's log goes on when they have certificates of their own: a quarrel that is over is not told.
_OVER = timedelta(minutes=10)
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_TWO_MACHINES = "two machines use the certificate of "


def is_quarrel(cause: str) -> bool:
    """Whether a cause is that two machines push each other out: the tunnel stands and falls by turns then."""
    return cause.startswith(_TWO_MACHINES)


def explain(log_text: str) -> list[Finding]:
    """What a log of OpenVPN says about a tunnel that does not work; empty when it says nothing that matters.

    Each cause once, with its latest line, in the order of the rules. What came before the tunnel's last coming up is
    over and not told, except what still holds then.

    :param log_text: the log, or its end, of a server or a client, in either kind of line ends.
    """
    lines = log_text.splitlines()
    ready = max((number for number, line in enumerate(lines) if _READY.search(line)), default=-1)
    found: dict[tuple[int, str], Finding] = {}
    for number, line in enumerate(lines):
        for order, rule in enumerate(_RULES):
            match = rule.pattern.search(line)
            if match is None:
                continue
            if number > ready or rule.stays:
                groups = {name: value.removeprefix("CN=") for name, value in match.groupdict(default="").items()}
                cause = rule.cause.format(**groups)
                found[order, cause] = Finding(line.strip(), cause, rule.remedy)
            break
    return _duplicates(lines) + [found[key] for key in sorted(found)]


def _duplicates(lines: list[str]) -> list[Finding]:
    """Names that two machines use at the same time, as the server's log shows it."""
    findings: dict[str, Finding] = {}
    drops: dict[str, list[datetime]] = {}
    sources: dict[str, list[str]] = {}
    for line in lines:
        if connected := _CONNECTED.match(line):
            addresses = sources.setdefault(connected["name"], [])
            if not addresses or addresses[-1] != connected["address"]:
                addresses.append(connected["address"])
        elif dropped := _DROPPED.match(line):
            name = dropped["name"]
            times = drops.setdefault(name, [])
            times.append(datetime.fromisoformat(dropped["time"]))
            recent = [time for time in times if times[-1] - time <= _SOON]
            returned = len(sources.get(name, ())) != len(set(sources.get(name, ())))
            if len(recent) >= _OFTEN or returned:
                doubt = "" if returned else ", or the one that has it restarts over and over"
                findings[name] = Finding(
                    line.strip(),
                    f"{_TWO_MACHINES}{name} and push each other out{doubt}",
                    "give each machine a certificate of its own, and never copy one into an image",
                )
    return [found for name, found in findings.items() if _last_time(lines) - drops[name][-1] <= _OVER]


def _last_time(lines: list[str]) -> datetime:
    """When the last line was written that has a time."""
    return next(datetime.fromisoformat(found[0]) for line in reversed(lines) if (found := _TIME.match(line)))
