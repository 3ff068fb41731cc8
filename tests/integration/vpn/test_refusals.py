"""Whoever must not come in does not, nothing passes, and the log says why in words that the link's check explains."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import openvpn_keys
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.openvpn_log import Finding, explain

from tests.tunnel.judge import causes, rows
from tests.tunnel.network import ADDRESSES, Network
from tests.tunnel.openvpn import READY, STUDIO_SIDE, End, Tunnel, authority, write_client
from tests.tunnel.pki import YEAR, Authority
from tests.tunnel.traffic import TOLERANCE, Probe, reaches

HOUR, SECOND = dt.timedelta(hours=1), dt.timedelta(seconds=1)
CLIENT, SERVER = STUDIO_SIDE.client_name, STUDIO_SIDE.server_name


def other_authority(pki: Authority) -> None:
    """The client's certificate is of another authority of the same name, everything else is right."""
    other = authority(pki.folder.with_name("other"), STUDIO_SIDE)
    for kind in ("crt", "key"):
        shutil.copy(other.folder / f"{CLIENT}.{kind}", pki.folder)


def clock_wrong_by_a_year(pki: Authority) -> None:
    """Both machines live a year before the controller that made everything."""
    authority(pki.folder, STUDIO_SIDE, now=dt.datetime.now(dt.UTC) + YEAR)


@dataclass(frozen=True)
class Refusal:
    """``log``: the end whose log says it; ``cause``: words of the explanation.

    ``check``: words of the cause that the link's check names first, when the other log says more.
    """

    spoil: Callable[[Authority], None]
    log: Literal["server", "client"]
    cause: str
    check: str = ""


REFUSALS = {
    "client expired": Refusal(
        lambda pki: pki.issue(CLIENT, "client", lasts=-HOUR), "server", f"the certificate of {CLIENT} has expired"
    ),
    "server expired": Refusal(
        lambda pki: pki.issue(SERVER, "server", lasts=-HOUR),
        "client",
        f"the certificate of {SERVER} has expired",
        check="this machine's own certificate has expired (log of workstation)",
    ),
    "client not yet valid": Refusal(
        lambda pki: pki.issue(CLIENT, "client", begins=HOUR), "server", f"{CLIENT} begins in the future"
    ),
    "clock wrong by a year": Refusal(
        clock_wrong_by_a_year, "client", "a clock is wrong", check="its clock is wrong (log of workstation)"
    ),
    "revoked": Refusal(lambda pki: pki.revoke(CLIENT), "server", f"the certificate of {CLIENT} is revoked"),
    "revocation list expired": Refusal(
        lambda pki: pki.revoke(lasts=-HOUR), "server", "the list of revoked certificates has expired"
    ),
    "wrong key of the handshake": Refusal(
        lambda pki: pki.handshake_key(CLIENT, openvpn_keys.server_key()), "server", "tls-crypt-v2"
    ),
    "other authority": Refusal(other_authority, "server", f"the certificate of {CLIENT} is from another authority"),
    "wrong usage": Refusal(
        lambda pki: pki.issue(CLIENT, "client", extended_usage="server"), "server", "for the other end of a tunnel"
    ),
    "server's certificate is for a client": Refusal(
        lambda pki: pki.issue(SERVER, "server", extended_usage="client"), "client", "for the other end of a tunnel"
    ),
    "server has another name": Refusal(
        lambda pki: pki.issue(SERVER, "server", common_name="stranger"), "client", "presents itself as stranger"
    ),
    "no client entry": Refusal(
        lambda pki: pki.issue(CLIENT, "client", common_name="stranger"), "server", "no entry for stranger"
    ),
}


@dataclass(frozen=True)
class Outcome:
    """``check``: the causes that the link's check names."""

    came_up: bool
    passed: bool
    findings: list[Finding]
    check: list[str]


def findings_of(end: End, cause: str, *, within: float = 8.0) -> list[Finding]:
    """What the log says, as soon as it says the cause, or when the time is up."""
    limit = time.monotonic() + within
    while not any(cause in finding.cause for finding in explain(end.log())) and time.monotonic() < limit:
        time.sleep(0.05)
    return explain(end.log())


def passes(network: Network) -> bool:
    return reaches(network.node1, ADDRESSES["pc"], tries=1) or reaches(network.pc, ADDRESSES["node1"], tries=1)


def try_it(refusal: Refusal, folder: Path) -> Outcome:
    network = Network()
    try:
        pki = authority(folder / "pki", STUDIO_SIDE)
        refusal.spoil(pki)
        with Tunnel(network, folder / "machines", pki.folder) as tunnel:
            tunnel.server.start()
            tunnel.server.wait_for(READY)
            tunnel.client.start()
            findings = findings_of(getattr(tunnel, refusal.log), refusal.cause)
            passed = passes(network)
            time.sleep(1.5)  # it tries again meanwhile
            passed = passed or passes(network)
            return Outcome(READY in tunnel.client.log(), passed, findings, causes(tunnel))
    finally:
        network.close()


@dataclass(frozen=True)
class CutOff:
    """Seconds to the last answer: from the revocation to the last ``before`` the restart, from there to the last."""

    before: float
    after: float
    findings: list[Finding]


def revoke_while_connected(folder: Path) -> CutOff:
    network = Network()
    try:
        pki = authority(folder / "pki", STUDIO_SIDE)
        with Tunnel(network, folder / "machines", pki.folder).up() as tunnel:
            with Probe(network.node1, ADDRESSES["pc"]) as probe:
                assert probe.back(time.monotonic(), within=5) < 5
                pki.revoke(CLIENT)
                shutil.copy(pki.folder / "crl.pem", tunnel.server.config.with_name("crl.pem"))
                revoked = time.monotonic()
                time.sleep(3)
                restarted = time.monotonic()
                answered = [arrival for arrival in probe.arrivals if arrival < restarted]
                tunnel.server.stop()
                tunnel.server.start()
                findings = findings_of(tunnel.server, "is revoked", within=20)
                time.sleep(1)
            return CutOff(answered[-1] - revoked, probe.arrivals[-1] - restarted, findings)
    finally:
        network.close()


# OpenVPN looks at a certificate when a session begins and, by default, once an hour; an old key lives an hour longer.
RENEGOTIATION, OLD_KEY = 8, 4
LASTS = 7  # seconds until the certificate expires


@dataclass(frozen=True)
class Expiry:
    """The gateway's certificate expires while its session stands. Seconds count from the moment that it does."""

    last_answer: float
    check_before: list[str]
    check_after: list[str]
    came_back: bool


def expire_while_connected(folder: Path) -> Expiry:
    network = Network()
    try:
        pki = authority(folder / "pki", STUDIO_SIDE)
        sooner = ("--reneg-sec", str(RENEGOTIATION), str(RENEGOTIATION), "--tran-window", str(OLD_KEY))
        pki.issue(CLIENT, "client", begins=-HOUR, lasts=dt.datetime.now(dt.UTC) - pki.now + LASTS * SECOND)
        expires = time.monotonic() + LASTS
        with (
            Tunnel(network, folder / "machines", pki.folder, server_options=sooner).up() as tunnel,
            Probe(network.node1, ADDRESSES["pc"]) as probe,
        ):
            time.sleep(expires + 0.5 - time.monotonic())
            before = causes(tunnel, pki=pki.folder)
            findings_of(tunnel.server, "has expired", within=RENEGOTIATION + 5)
            time.sleep(OLD_KEY + 2)
            tunnel.client.stop()
            tunnel.client.start()
            came_back = probe.back(time.monotonic(), within=6) < 6
            return Expiry(probe.arrivals[-1] - expires, before, causes(tunnel), came_back)
    finally:
        network.close()


@dataclass(frozen=True)
class Copy:
    """Two machines with one certificate: what the server's log says, and what the link's check makes of it."""

    findings: list[Finding]
    check: list[str]


def copy_the_certificate(folder: Path) -> Copy:
    """The gateway's certificate is also on a machine behind another router."""
    network = Network()
    try:
        pki = authority(folder / "pki", STUDIO_SIDE)
        copy = End(network.remote, write_client(folder / "copy", STUDIO_SIDE, pki.folder))
        with Tunnel(network, folder / "machines", pki.folder).up() as tunnel:
            copy.start()
            try:
                copy.wait_for(READY)
                return Copy(findings_of(tunnel.server, "two machines", within=30), causes(tunnel))
            finally:
                copy.stop(kill=True)
    finally:
        network.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Each drill has a network of its own, so all can run at once; mostly they wait."""
    with ThreadPoolExecutor(len(REFUSALS) + 3) as made:
        yield made


@pytest.fixture(scope="module")
def cut_off(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Future[CutOff]:
    return pool.submit(revoke_while_connected, tmp_path_factory.mktemp("revoked"))


@pytest.fixture(scope="module")
def copied(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Future[Copy]:
    return pool.submit(copy_the_certificate, tmp_path_factory.mktemp("copied"))


@pytest.fixture(scope="module")
def expired(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Future[Expiry]:
    return pool.submit(expire_while_connected, tmp_path_factory.mktemp("expired"))


@pytest.fixture(scope="module")
def outcomes(
    pool: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
    copied: Future[Copy],
    cut_off: Future[CutOff],
    expired: Future[Expiry],
) -> dict[str, Future[Outcome]]:
    return {
        name: pool.submit(try_it, refusal, tmp_path_factory.mktemp("refusal")) for name, refusal in REFUSALS.items()
    }


@pytest.mark.parametrize("name", REFUSALS)
def test_nothing_passes_and_the_log_is_explained(name: str, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[name].result()
    assert not outcome.came_up
    assert not outcome.passed
    told = [finding.cause for finding in outcome.findings]
    assert any(REFUSALS[name].cause in cause for cause in told), told
    assert all(finding.remedy for finding in outcome.findings)
    assert (REFUSALS[name].check or REFUSALS[name].cause) in outcome.check[0], outcome.check


def test_a_good_tunnel_has_nothing_to_explain(tunnel: Tunnel, pki: Authority) -> None:
    assert explain(tunnel.server.log()) == []
    assert explain(tunnel.client.log()) == []
    assert [row for row in rows(tunnel, pki=pki.folder) if not row["ok"]] == []


def test_a_silent_server_is_explained(network: Network, pki: Authority, tmp_path: Path) -> None:
    """A missing port forward, a second router, a stopped service: the client cannot tell them apart."""
    with Tunnel(network, tmp_path, pki.folder, endpoint="198.18.3.2") as tunnel:
        tunnel.client.start()
        assert "does not answer" in findings_of(tunnel.client, "does not answer")[0].cause


@pytest.mark.parametrize("forwarded", [True, False], ids=["carrier's NAT", "no port forward"])
def test_a_port_that_leads_nowhere_is_explained(pki: Authority, tmp_path: Path, forwarded: bool) -> None:
    """With a NAT of the provider before it, the home router may forward what it likes."""
    network = Network(port_forward=forwarded, carrier=forwarded)
    try:
        with Tunnel(network, tmp_path, pki.folder) as tunnel:
            tunnel.server.start()
            tunnel.client.start()
            tunnel.client.wait_for("Server poll timeout|No route to host")
            cause = causes(tunnel)[0]
            assert cause.startswith("double NAT") == forwarded
            assert ("100.64.0.1" in cause) == forwarded
            assert cause.startswith("port forward missing") != forwarded
    finally:
        network.close()


def test_a_name_that_nobody_knows_is_explained(network: Network, pki: Authority, tmp_path: Path) -> None:
    with Tunnel(network, tmp_path, pki.folder, endpoint="studio.invalid") as tunnel:
        tunnel.client.start()
        assert "studio.invalid" in findings_of(tunnel.client, "cannot be resolved", within=15)[0].cause


def test_revocation_and_a_restart_cut_a_machine_off_at_once(cut_off: Future[CutOff]) -> None:
    outcome = cut_off.result()
    assert outcome.before > 2, "without a restart a session goes on until its next renegotiation"
    assert outcome.after < 0.5
    assert f"the certificate of {CLIENT} is revoked" in outcome.findings[0].cause


def test_a_certificate_that_expires_ends_a_session_at_its_next_renegotiation(expired: Future[Expiry]) -> None:
    """Until then the check warns of it; from then on nobody comes back with it."""
    outcome = expired.result()
    assert outcome.check_before == [f"expired certificate ({CLIENT})"]
    assert 0.5 < outcome.last_answer < RENEGOTIATION + OLD_KEY + TOLERANCE
    assert f"the certificate of {CLIENT} has expired" in outcome.check_after[0]
    assert not outcome.came_back


def test_two_machines_with_one_certificate_are_noticed(copied: Future[Copy]) -> None:
    outcome = copied.result()
    assert f"two machines use the certificate of {CLIENT}" in outcome.findings[0].cause
    assert f"two machines use the certificate of {CLIENT}" in outcome.check[0]
