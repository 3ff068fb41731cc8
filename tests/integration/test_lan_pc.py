"""A Windows PC of the studio gets the way to the farm, keeps its own routes, and loses ours again.

The PC is the rehearsal's Windows machine in the studio; the way leads through the Linux PC beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rehearsal.session import ProofError, Rehearsal, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
PLAYBOOK = "playbooks/lan-pc.yml"
NETWORKS = {"10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24"}
GATEWAY = "192.168.1.20"
PC = """\
lan_pcs:
  hosts:
    studio-workstation:
  vars:
    lan_routes_gateway: 192.168.1.20
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("lan") / "rehearsal"
    with rehearsing(folder, print) as made:
        (folder / "inventory" / "lan_pcs.yml").write_text(PC)
        yield made


def ways(studio: Rehearsal) -> set[str]:
    """The networks that the PC sends to the gateway."""
    lines = studio.command("ip", "route", on="workstation").splitlines()
    return {line.split()[0] for line in lines if f"via {GATEWAY} " in f"{line} "}


def test_routes_come_stay_and_go(studio: Rehearsal) -> None:
    assert studio.playbook(PLAYBOOK).changed > 0
    assert ways(studio) == NETWORKS
    assert studio.playbook(PLAYBOOK).changed == 0
    fewer = studio.playbook(PLAYBOOK, "-e", '{"lan_routes_networks": ["10.0.0.0/24"]}')
    assert fewer.changed == 1 and ways(studio) == {"10.0.0.0/24"}
    assert studio.playbook(PLAYBOOK, "-e", '{"lan_routes_networks": []}').changed == 1
    assert ways(studio) == set()


@pytest.mark.parametrize(
    ("networks", "gateway", "said"),
    [
        ('["10.0.0.0/24"]', "10.0.0.10", "no other machine in 192.168.1.0/24"),
        ('["192.168.0.0/16"]', GATEWAY, "overlaps this machine's own network"),
        ('["10.0.0.0/16", "10.0.0.0/24"]', GATEWAY, "overlap; want one of them"),
        ('["fd00::/64"]', "fd00::1", "is not IPv4"),
    ],
)
def test_what_cannot_work_is_refused(studio: Rehearsal, networks: str, gateway: str, said: str) -> None:
    before = ways(studio)
    with pytest.raises(ProofError, match=said):
        studio.playbook(PLAYBOOK, "-e", f'{{"lan_routes_networks": {networks}, "lan_routes_gateway": "{gateway}"}}')
    assert ways(studio) == before
