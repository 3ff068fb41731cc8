"""Each line that says why nothing passes is explained; everything else is left alone."""

from __future__ import annotations

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.openvpn_log import explain
from hypothesis import given
from hypothesis import strategies as st

READY = "2026-11-23 04:40:29 Initialization Sequence Completed"
PEER = "2026-11-23 04:40:29 198.18.20.10:43084 "
SERIAL = "serial=603003077980567263852951293828101992046971360680"

# line as OpenVPN 2.6 writes it -> words of the cause
LINES = {
    PEER + f"VERIFY ERROR: depth=0, error=certificate has expired: CN=aws-gateway, {SERIAL}": (
        "the certificate of aws-gateway has expired"
    ),
    f"x VERIFY ERROR: depth=1, error=certificate has expired: CN=studio render farm, {SERIAL}": (
        "the certificate of the authority (studio render farm) has expired"
    ),
    PEER + f"VERIFY ERROR: depth=0, error=certificate is not yet valid: CN=aws-gateway, {SERIAL}": (
        "aws-gateway begins in the future"
    ),
    PEER + f"VERIFY ERROR: depth=0, error=certificate revoked: CN=aws-gateway, {SERIAL}": "aws-gateway is revoked",
    PEER + f"VERIFY ERROR: depth=0, error=CRL has expired: CN=aws-gateway, {SERIAL}": "the list of revoked",
    PEER + f"VERIFY ERROR: depth=0, error=unable to get local issuer certificate: CN=aws-gateway, {SERIAL}": (
        "the certificate of aws-gateway is from another authority"
    ),
    "x VERIFY ERROR: depth=1, error=self-signed certificate in certificate chain: CN=other, serial=1": (
        "the certificate of other is from another authority"
    ),
    PEER + f"VERIFY ERROR: depth=0, error=unsuitable certificate purpose: CN=aws-gateway, {SERIAL}": (
        "for the other end of a tunnel"
    ),
    PEER + "VERIFY ERROR: depth=0, error=something new: CN=aws-gateway, serial=1": "aws-gateway is refused",
    "x VERIFY X509NAME ERROR: CN=somebody, must be studio-workstation": (
        "presents itself as somebody instead of studio-workstation"
    ),
    PEER + "TLS Auth Error: --client-config-dir authentication failed for common name 'nobody' file='ccd/nobody'": (
        "no entry for nobody"
    ),
    "x AUTH: Received control message: AUTH_FAILED": "it has no entry for it",
    "x TLS Error: can not extract tls-crypt-v2 client key from [AF_INET]198.18.20.10:52979": "tls-crypt-v2",
    "x tls_crypt_v2_unwrap_client_key: client key authentication error": "tls-crypt-v2",
    "x RESOLVE: Cannot resolve host address: studio.invalid:1194 (Name or service not known)": (
        "cannot be resolved (studio.invalid:1194)"
    ),
    "x Server poll timeout, restarting": "does not answer",
    "x [studio-workstation] Inactivity timeout (--ping-restart), restarting": "does not answer",
    "x TLS Error: TLS key negotiation failed to occur within 60 seconds (check your network connectivity)": (
        "does not answer"
    ),
    "x read UDPv4 [ECONNREFUSED]: Connection refused (fd=3,code=111)": "nothing listens",
    "x write UDPv4 []: Network is unreachable (fd=3,code=101)": "no way to the internet",
    "x read UDPv4 [EHOSTUNREACH]: No route to host (fd=3,code=113)": "nobody is reached at the server's address",
    "x WARNING: Your certificate has expired!": "own certificate has expired",
    "x WARNING: Your certificate is not yet valid!": "clock is wrong",
    "x WARNING: potential route subnet conflict between local LAN [10.0.0.0/255.255.255.0] and remote VPN [10.0.0.0/"
    "255.255.255.0]": "overlaps a network",
    "x ROUTE: route addition failed using CreateIpForwardEntry: Access is denied. [status=5 if_index=7]": (
        "a route of the tunnel could not be set"
    ),
    "x All tap-windows6 adapters on this system are currently in use or disabled.": "no free network adapter",
    "x TCP/UDP: Socket bind failed on local address [AF_INET][undef]:1194: Address already in use": "UDP port",
    "x Options error: Unrecognized option or missing or extra parameter(s) in studio.ovpn:3: nonsense (2.6.14)": (
        "does not understand its configuration"
    ),
    "x Cannot load inline certificate file": "damaged",
}

HARMLESS = f"""\
2026-11-23 04:40:29 Note: --cipher is not set. OpenVPN versions before 2.5 defaulted to BF-CBC as fallback when cipher \
negotiation failed in this case.
2026-11-23 04:40:29 NOTE: your local LAN uses the extremely common subnet address 192.168.0.x or 192.168.1.x.
2026-11-23 04:40:29 CRL: loaded 1 CRLs from file crl.pem
2026-11-23 04:40:29 ROUTE_GATEWAY 192.168.1.1/255.255.255.0 IFACE=eth0
2026-11-23 04:40:29 net_route_v4_add: 10.0.0.0/24 via 10.8.0.2 dev [NULL] table 0 metric -1
{READY}
2026-11-23 04:40:30 198.18.20.10:43084 [aws-gateway] Peer Connection Initiated with [AF_INET]198.18.20.10:43084
"""


@pytest.mark.parametrize(("line", "cause"), LINES.items())
def test_a_line_is_explained_once_with_a_remedy(line, cause):
    (finding,) = explain(f"{HARMLESS}{line}\r\n{line}\r\n")
    assert cause in finding.cause
    assert finding.line == line
    assert finding.remedy
    assert "{" not in finding.cause


def test_harmless_lines_are_left_alone():
    assert explain(HARMLESS) == []


def test_what_is_over_is_not_told():
    assert explain(f"x Server poll timeout, restarting\n{READY}\n") == []
    (finding,) = explain(f"x WARNING: Your certificate has expired!\n{READY}\n")
    assert "has expired" in finding.cause


def drop(time):
    return (
        f"2026-11-23 {time} MULTI: new connection by client 'aws-gateway' will cause previous active sessions by this "
        "client to be dropped.  Remember to use the --duplicate-cn option if you want multiple clients using the same "
        "certificate or username to concurrently connect."
    )


def connected(time, address, port=43084):
    peer = f"{address}:{port}"
    return f"2026-11-23 {time} {peer} [aws-gateway] Peer Connection Initiated with [AF_INET]{peer}"


def test_a_machine_that_was_restarted_or_moved_is_no_duplicate():
    log = [READY, connected("04:40:29", "198.18.20.10"), connected("05:00:00", "198.18.20.10", 1), drop("05:00:00")]
    assert explain("\n".join(log)) == []
    log += [connected("06:00:00", "198.18.20.99"), drop("06:00:00")]
    assert explain("\n".join(log)) == []


def test_two_machines_with_one_certificate_alternate():
    log = [READY, connected("04:40:29", "198.18.20.10"), connected("04:40:31", "198.18.3.2"), drop("04:40:31")]
    log += [connected("04:40:46", "198.18.20.10"), drop("04:40:46")]
    (finding,) = explain("\n".join(log))
    assert finding.cause == "two machines use the certificate of aws-gateway and push each other out"
    assert finding.line.startswith("2026-11-23 04:40:46")


@pytest.mark.parametrize(("later", "told"), [("04:50:00", 1), ("05:00:00", 0)])
def test_a_quarrel_is_told_while_it_lasts(later, told):
    log = [READY, connected("04:40:29", "198.18.20.10"), connected("04:40:31", "198.18.3.2"), drop("04:40:31")]
    log += [connected("04:40:46", "198.18.20.10"), drop("04:40:46"), f"2026-11-23 {later} VERIFY OK: depth=0, CN=x", ""]
    assert len(explain("\n".join(log))) == told


def test_often_from_one_address_leaves_a_doubt():
    log = [READY, *(drop(time) for time in ("04:40:31", "04:40:46", "04:41:01"))]
    (finding,) = explain("\n".join(log))
    assert "restarts over and over" in finding.cause


@given(st.text())
def test_any_text_is_read(text):
    explain(text)


@given(st.lists(st.sampled_from([*LINES, READY]), max_size=6))
def test_any_mixture_gives_each_cause_once(lines):
    causes = [finding.cause for finding in explain("\n".join(lines))]
    assert len(causes) == len(set(causes))
