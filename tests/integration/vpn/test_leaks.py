"""Nothing for the other side goes anywhere else while there is no tunnel, and everything else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tunnel.network import ADDRESSES, FAR_NETWORKS, LAN, Network
from tests.tunnel.openvpn import REMOTE, Tunnel
from tests.tunnel.pki import Authority
from tests.tunnel.traffic import knock, ping, reaches

FILE_SHARING = 445
# who speaks to whom: each side to the other, from a machine with an end of the tunnel and from one without
ACROSS = [
    ("workstation", "node1"), ("workstation", "manager"), ("pc", "node1"), ("pc", "manager"),
    ("manager", "workstation"), ("node1", "pc"), ("node2", "workstation"), ("remote", "pc"), ("remote", "node1"),
]  # fmt: skip
WITHIN = [("node1", "node2"), ("node1", "manager"), ("manager", "node2"), ("pc", "workstation")]


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


def speak(network: Network) -> None:
    """Each sends an echo request and the first packet of a connection; nobody hears them."""
    ends_of_tunnels = [("pc", "10.8.0.2"), ("pc", "10.9.0.2"), ("node1", "10.8.0.1"), ("node1", "10.9.0.2")]
    for one, address in [(one, ADDRESSES[other]) for one, other in ACROSS] + ends_of_tunnels:
        assert ping(network.machine(one), address, timeout=0.1).kind != "reply", (one, address)
        knock(network.machine(one), address, FILE_SHARING)


def all_within(network: Network) -> list[tuple[str, str]]:
    return [(one, other) for one, other in WITHIN if not reaches(network.machine(one), ADDRESSES[other])]


def loops_of_one_packet(network: Network) -> int:
    before = network.loops()
    ping(network.node1, ADDRESSES["pc"], timeout=0.3)
    return network.loops() - before


def test_without_null_routes_it_would_leak_and_loop(network: Network) -> None:
    """The counters count, and the null routes are what helps."""
    for one, other in (("workstation", "node1"), ("pc", "manager"), ("remote", "node1"), ("remote", "pc")):
        before = network.leaks()
        knock(network.machine(one), ADDRESSES[other], FILE_SHARING)
        assert network.leaks() > before, (one, other)
    assert loops_of_one_packet(network) > 20


def test_a_tunnel_that_never_came_up_leaks_nothing(network: Network) -> None:
    network.null_routes()
    # told at once, so that programs need not wait (Linux tells a machine only now and then, hence first of all)
    assert ping(network.node1, ADDRESSES["pc"]).kind == "unreachable"
    speak(network)
    assert network.leaks() == 0
    assert loops_of_one_packet(network) == 1
    assert all_within(network) == []


@pytest.mark.parametrize("dead", ["server", "client", "both"])
def test_a_tunnel_that_went_down_leaks_nothing(network: Network, pki: Authority, tmp_path: Path, dead: str) -> None:
    network.null_routes()
    with Tunnel(network, tmp_path, pki.folder).up() as tunnel:
        assert reaches(network.node1, ADDRESSES["pc"])
        for end in ("client", "server"):
            if dead in (end, "both"):
                getattr(tunnel, end).stop(kill=True)
        speak(network)
        assert network.leaks() == 0
        assert loops_of_one_packet(network) == 1
        assert all_within(network) == []


def test_a_server_that_stays_away_does_not_make_the_client_leak(
    network: Network, pki: Authority, tmp_path: Path
) -> None:
    """After ``ping-restart`` the client dials again and again; its route stays on the tunnel all the time."""
    network.null_routes()
    with Tunnel(network, tmp_path, pki.folder).up() as tunnel:
        tunnel.server.stop()
        tunnel.client.wait_for("SIGUSR1.*process restarting", within=20)
        assert f"{LAN} via 10.8.0.1" in network.manager.run("ip", "route")
        speak(network)
        assert network.leaks() == 0
        assert loops_of_one_packet(network) == 1


def test_a_remote_node_without_its_tunnel_leaks_nothing(network: Network, pki: Authority, tmp_path: Path) -> None:
    network.null_routes()
    with Tunnel(network, tmp_path, pki.folder, REMOTE).up() as tunnel:
        assert reaches(network.remote, ADDRESSES["node1"])
        tunnel.client.stop()
        speak(network)
        assert network.leaks() == 0


def test_the_tunnel_wins_over_the_null_routes(network: Network, pki: Authority, tmp_path: Path) -> None:
    network.null_routes()
    with Tunnel(network, tmp_path, pki.folder).up() as tunnel:
        for one, other in (("pc", "node1"), ("node1", "pc"), ("workstation", "manager"), ("manager", "workstation")):
            assert reaches(network.machine(one), ADDRESSES[other]), (one, other)
        tunnel.client.stop()
        for name in ("workstation", "manager"):
            routes = network.machine(name).run("ip", "route")
            assert all(f"unreachable {network_} metric 9999" in routes for network_ in FAR_NETWORKS[name])
    assert network.leaks() == 0
