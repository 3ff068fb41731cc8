from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tunnel.network import Network
from tests.tunnel.openvpn import Tunnel, authority
from tests.tunnel.pki import Authority


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"))


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("controller") / "pki")


@pytest.fixture(scope="module")
def tunnel(network: Network, pki: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnel]:
    with Tunnel(network, tmp_path_factory.mktemp("machines"), pki.folder) as made:
        yield made.up()
