"""A remote node whose VPC is peered with the farm's dials the manager's inside address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tunnel.network import ADDRESSES, MANAGER_PUBLIC, Network
from tests.tunnel.openvpn import REMOTE, Tunnel
from tests.tunnel.pki import Authority
from tests.tunnel.traffic import reaches, transfer

NAME = "ec2-198-18-20-10.eu-central-1.compute.amazonaws.com"
OWN = "172.31.0.5"
LINK = replace(REMOTE, endpoint=NAME, settings=REMOTE.settings | {"vpn_gateway_local": OWN})


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    made.null_routes()
    made.strong_host("remote")
    yield made
    made.close()


def dialled(node: Tunnel, address: str) -> None:
    node.client.hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")
    node.up()
    node.client.wait_for(rf"UDPv4 link remote: \[AF_INET\]{address}:")


def test_elsewhere_the_name_is_the_public_address(network: Network, pki: Authority, tmp_path: Path) -> None:
    with Tunnel(network, tmp_path, pki.folder, LINK) as node:
        dialled(node, MANAGER_PUBLIC)
        assert reaches(network.remote, ADDRESSES["manager"])


def test_inside_nothing_passes_the_internet(network: Network, pki: Authority, tmp_path: Path) -> None:
    network.peering()
    with Tunnel(network, tmp_path, pki.folder, LINK) as node:
        dialled(node, ADDRESSES["manager"])
        for one, other in (("remote", "manager"), ("manager", "remote"), ("remote", "node1"), ("node1", "remote")):
            assert reaches(network.machine(one), ADDRESSES[other]), (one, other)
        # to the very address that the tunnel's own packets go to, and still through the tunnel
        assert transfer(network.remote, network.manager, ADDRESSES["manager"], 5_000_000).identical
    passed = network.inside()
    assert passed.pop("tunnel") > 1000 and passed == {"outside": 0, "bare": 0}
