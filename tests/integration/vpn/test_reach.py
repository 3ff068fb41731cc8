"""Who reaches whom through the tunnel, with packets of which size, and what a missing setting breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tunnel.network import ADDRESSES, CLOUD, LAN, TUNNEL, Network, pairs
from tests.tunnel.openvpn import CLOUD_SIDE, REMOTE, Tunnel
from tests.tunnel.pki import Authority
from tests.tunnel.traffic import ping, reaches, transfer, udp_answer

MEGABYTE = 1_000_000
TUNNEL_MTU = 1400
WITHOUT_REMOTE = [name for name in ADDRESSES if name != "remote"]
ACROSS = [("node1", "pc"), ("pc", "node1"), ("manager", "workstation"), ("workstation", "manager")]


def who_reaches_whom(network: Network, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    return {(one, other): reaches(network.machine(one), ADDRESSES[other], tries=2) for one, other in wanted}


@pytest.fixture(scope="module")
def remote(
    network: Network, tunnel: Tunnel, pki: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tunnel]:
    with Tunnel(network, tmp_path_factory.mktemp("remote"), pki.folder, REMOTE) as made:
        yield made.up()


def test_every_pair_reaches_each_other(network: Network, tunnel: Tunnel, remote: Tunnel) -> None:
    failed = [pair for pair, passed in who_reaches_whom(network, pairs(ADDRESSES)).items() if not passed]
    assert failed == []


@pytest.mark.parametrize(("one", "other"), ACROSS)
def test_what_fits_passes_and_what_does_not_is_answered(network: Network, tunnel: Tunnel, one: str, other: str) -> None:
    source, address = network.machine(one), ADDRESSES[other]
    assert ping(source, address, size=TUNNEL_MTU - 28, dont_fragment=True).kind == "reply"
    too_big = ping(source, address, size=1500 - 28, dont_fragment=True)
    assert (too_big.kind, too_big.mtu) == ("too big", TUNNEL_MTU)
    assert ping(source, address, size=1500 - 28).kind == "reply"


@pytest.mark.parametrize(("one", "other"), [("pc", "node1"), ("node1", "pc"), ("remote", "pc"), ("pc", "remote")])
def test_a_stream_arrives_byte_by_byte(network: Network, tunnel: Tunnel, remote: Tunnel, one: str, other: str) -> None:
    arrived = transfer(network.machine(one), network.machine(other), ADDRESSES[other], 20 * MEGABYTE)
    assert arrived.identical


def test_nothing_private_is_on_the_internet_meanwhile(network: Network, tunnel: Tunnel, remote: Tunnel) -> None:
    before = network.leaks()
    who_reaches_whom(network, pairs(ADDRESSES))
    assert network.leaks() == before == 0


@pytest.mark.parametrize("carrier", [False, True], ids=["one router", "carrier's NAT"])
def test_the_other_side_may_serve(pki: Authority, tmp_path: Path, carrier: bool) -> None:
    """The workstation dials, from behind its own router alone or also behind a NAT of its provider."""
    own = Network(port_forward=False, carrier=carrier)
    try:
        with Tunnel(own, tmp_path, pki.folder, CLOUD_SIDE).up():
            failed = [pair for pair, passed in who_reaches_whom(own, pairs(WITHOUT_REMOTE)).items() if not passed]
            assert failed == []
            for one, other in (("pc", "node1"), ("node1", "pc")):
                assert transfer(own.machine(one), own.machine(other), ADDRESSES[other], 5 * MEGABYTE).identical
            assert own.leaks() == 0
    finally:
        own.close()


@pytest.mark.parametrize(
    ("client", "service", "end"), [("workstation", "manager", "10.8.0.2"), ("manager", "workstation", "10.8.0.1")]
)
def test_a_udp_service_at_the_end_of_a_tunnel_is_bound_to_the_address_that_it_is_asked_at(
    network: Network, tunnel: Tunnel, client: str, service: str, end: str
) -> None:
    """Bound to none, it answers from its address in the tunnel, which a client that was connected does not take."""
    asking, serving = network.machine(client), network.machine(service)
    assert udp_answer(asking, serving, ADDRESSES[service]) == end
    assert udp_answer(asking, serving, ADDRESSES[service], bound_to=ADDRESSES[service]) == ADDRESSES[service]
    assert udp_answer(asking, serving, end) == end
    behind = network.machine({"workstation": "pc", "manager": "node1"}[client])
    assert udp_answer(behind, serving, ADDRESSES[service], bound_to=ADDRESSES[service]) == ADDRESSES[service]


@pytest.fixture(scope="module")
def narrow(pki: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A studio behind PPPoE, on an internet that drops fragments and does not tell about too large packets."""
    made = Network(home_mtu=1492)
    made.hostile_path()
    with Tunnel(made, tmp_path_factory.mktemp("narrow"), pki.folder).up():
        yield made
    made.close()


@pytest.mark.parametrize(("one", "other"), ACROSS)
def test_a_narrow_and_hostile_path_carries_everything(narrow: Network, one: str, other: str) -> None:
    source, address = narrow.machine(one), ADDRESSES[other]
    assert ping(source, address, size=TUNNEL_MTU - 28, dont_fragment=True).kind == "reply"
    assert ping(source, address, size=8000).kind == "reply"
    assert transfer(source, narrow.machine(other), address, 5 * MEGABYTE).identical
    assert narrow.fragments() == 0


# ----------------------------------------------------------------------------------------------- what a setting is for


def test_the_source_destination_check_must_be_off(network: Network, tunnel: Tunnel) -> None:
    network.source_destination_check(True)
    try:
        seen = who_reaches_whom(network, [*ACROSS, ("workstation", "node1"), ("node1", "workstation")])
    finally:
        network.source_destination_check(False)
    assert {pair for pair, passed in seen.items() if passed} == {("manager", "workstation"), ("workstation", "manager")}
    assert reaches(network.node1, ADDRESSES["pc"])


def test_the_vpc_needs_the_route_to_the_tunnel_network(network: Network, tunnel: Tunnel) -> None:
    network.vpc.ip(f"route del {TUNNEL}")
    try:
        seen = who_reaches_whom(network, [("workstation", "node1"), ("pc", "node1"), ("node1", "pc")])
    finally:
        network.vpc.ip(f"route add {TUNNEL} via {ADDRESSES['manager']}")
    assert seen == {("workstation", "node1"): False, ("pc", "node1"): True, ("node1", "pc"): True}
    assert reaches(network.workstation, ADDRESSES["node1"])


def test_the_vpc_needs_the_route_to_the_lan_or_each_node_does(network: Network, tunnel: Tunnel) -> None:
    network.vpc.ip(f"route del {LAN}")
    try:
        assert not reaches(network.node1, ADDRESSES["pc"], tries=2)
        assert reaches(network.manager, ADDRESSES["pc"])
        network.node1.ip(f"route add {LAN} via {ADDRESSES['manager']}")
        assert reaches(network.node1, ADDRESSES["pc"])
        assert not reaches(network.node2, ADDRESSES["pc"], tries=2)
        network.node1.ip(f"route del {LAN}")
    finally:
        network.vpc.ip(f"route add {LAN} via {ADDRESSES['manager']}")


def test_a_route_on_the_home_router_alone_passes_echo_requests_but_no_stream(network: Network, tunnel: Tunnel) -> None:
    """The PC sends by the router and hears without it: a stateful router drops what it has not seen begin."""
    network.pc.sysctls({"net/ipv4/conf/all/accept_redirects": "0", "net/ipv4/conf/eth0/accept_redirects": "0"})
    network.pc.ip(f"route del {CLOUD}")
    network.home.ip(f"route add {CLOUD} via {ADDRESSES['workstation']}")
    try:
        assert reaches(network.pc, ADDRESSES["node1"])
        with pytest.raises(TimeoutError):
            transfer(network.pc, network.node1, ADDRESSES["node1"], MEGABYTE, patience=2)
    finally:
        network.home.ip(f"route del {CLOUD}")
        network.pc.ip(f"route add {CLOUD} via {ADDRESSES['workstation']}")
    assert transfer(network.pc, network.node1, ADDRESSES["node1"], MEGABYTE).identical


def test_the_pc_needs_the_route_to_the_tunnel_network(network: Network, tunnel: Tunnel) -> None:
    network.pc.ip(f"route del {TUNNEL}")
    try:
        seen = who_reaches_whom(network, [("manager", "pc"), ("node1", "pc")])
    finally:
        network.pc.ip(f"route add {TUNNEL} via {ADDRESSES['workstation']}")
    assert seen == {("manager", "pc"): False, ("node1", "pc"): True}
