"""The eyes of the link's proofs: each sees the fault it is there for."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from rehearsal import proof_link, reach, session
from rehearsal.proof_link import CLOUD, LAN, REMOTE, Point

MACHINES = [
    {"name": "workstation", "role": "workstation", "address": "192.168.1.10"},
    {"name": "studio-manager", "role": "manager", "address": "10.0.0.10"},
    *({"name": f"node-{n}", "role": "render_node", "address": f"10.0.0.2{n}"} for n in (3, 1, 2)),
    {"name": "far", "role": "remote_node", "address": "172.31.0.5"},
    {"name": "builder", "role": "builder", "address": "10.0.0.99"},
]


def test_points_are_one_of_each_kind_and_two_nodes() -> None:
    found = proof_link.points(MACHINES, {"far": "10.9.0.2"})
    assert [(point.name, point.segment, point.target) for point in found] == [
        ("pc", LAN, "192.168.1.20:445"),
        ("far", REMOTE, "10.9.0.2:3233"),
        ("node-1", CLOUD, "10.0.0.21:3233"),
        ("node-2", CLOUD, "10.0.0.22:3233"),
        ("studio-manager", CLOUD, "10.0.0.10:3234"),
        ("workstation", LAN, "192.168.1.10:445"),
    ]


def test_address_in_the_tunnel_is_that_of_the_network() -> None:
    listed = [
        {"addr_info": [{"family": "inet", "local": "172.31.0.5"}, {"family": "inet6", "local": "fe80::1"}]},
        {"addr_info": [{"family": "inet", "local": "10.9.0.2"}]},
    ]
    assert proof_link.tunnel_address(listed, proof_link.REMOTE_NETWORK) == "10.9.0.2"
    assert proof_link.tunnel_address(listed[:1], proof_link.REMOTE_NETWORK) == ""


@pytest.mark.parametrize(
    ("answer", "problems"),
    [
        ({"ping": True, "tcp": "open"}, []),
        ({"ping": False, "tcp": "open"}, ["a has no echo of b (10.0.0.21)"]),
        ({"ping": True, "tcp": "silent"}, ["a to b, TCP 10.0.0.21:3233: silent"]),
    ],
)
def test_failures_are_named(answer: dict[str, Any], problems: list[str]) -> None:
    one, other = Point("a", LAN, "192.168.1.20", 445), Point("b", CLOUD, "10.0.0.21", 3233)
    assert proof_link.failures(one, [other], {other.target: answer}) == problems


def test_routes_of_pcs_are_read_from_what_is_printed() -> None:
    printed = "x ip route replace 10.8.0.0/24 via 192.168.1.10\n y  ip route replace 10.0.0.0/24 via 192.168.1.10\n"
    assert proof_link.routes_of_pcs(printed * 2) == [
        "ip route replace 10.0.0.0/24 via 192.168.1.10",
        "ip route replace 10.8.0.0/24 via 192.168.1.10",
    ]
    with pytest.raises(session.ProofError, match="the way to the farm"):
        proof_link.routes_of_pcs("route -p ADD 10.0.0.0 MASK 255.255.255.0 192.168.1.10")


def test_reach_tells_open_from_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reach.seen([f"127.0.0.1:{port}"])[f"127.0.0.1:{port}"]["tcp"] == "open"
    with socket.socket() as taken:  # by a socket that takes no connections
        taken.bind(("127.0.0.1", 0))
        assert reach.tcp("127.0.0.1", taken.getsockname()[1]) == "refused"
    assert reach.main(["try"]) == 2 and "usage" in capsys.readouterr().err


def test_listener_takes_one_connection_after_another() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    threading.Thread(target=reach.take_connections, args=(server,), daemon=True).start()
    assert [reach.tcp("127.0.0.1", port) for _ in range(3)] == ["open"] * 3
