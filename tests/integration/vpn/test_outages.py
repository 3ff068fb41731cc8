"""How long nothing passes when one of the things happens that do happen to a tunnel.

The figures are the best ones that were measured for the settings that this tunnel uses (``keepalive 3 15``,
``connect-timeout 4``, ``tls-timeout 1``), each on a quiet machine. Nearly all the time of a drill is waiting, so all of
them run at once, each in a network of its own.

What no setting can heal is tried as well, and so is what two settings that look helpful would do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.tunnel.judge import causes
from tests.tunnel.network import ADDRESSES, STUDIO_PUBLIC, Network
from tests.tunnel.openvpn import CLOUD_SIDE, STUDIO_SIDE, Link, Tunnel
from tests.tunnel.pki import Authority
from tests.tunnel.traffic import TOLERANCE, Probe

LONG = 40.0  # seconds after which a drill gives up
NEW_STUDIO_PUBLIC = "198.18.1.77"
NAME = "studio.example.net"
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A network with a tunnel that stands."""

    network: Network
    tunnel: Tunnel

    def probe(self) -> Probe:
        return Probe(self.network.node1, ADDRESSES["pc"])

    def cloud_speaks(self) -> Probe:
        return Probe(self.network.node1, ADDRESSES["pc"], self.network.pc)

    def studio_speaks(self) -> Probe:
        return Probe(self.network.pc, ADDRESSES["node1"], self.network.node1)

    def name_the_studio(self, address: str) -> None:
        self.tunnel.client.hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")


def restart_client(stage: Stage, *, kill: bool) -> float:
    with stage.probe() as probe:
        stage.tunnel.client.stop(kill=kill)
        time.sleep(3)
        begin = time.monotonic()
        stage.tunnel.client.start()
        return probe.back(begin, within=LONG)


def restart_server(stage: Stage, *, seconds: float) -> float:
    with stage.probe() as probe:
        stage.tunnel.server.stop()
        time.sleep(seconds)
        begin = time.monotonic()
        stage.tunnel.server.start()
        return probe.back(begin, within=LONG)


def kill_server(stage: Stage) -> float:
    with stage.probe() as probe:
        time.sleep(1)
        stage.tunnel.server.stop(kill=True)
        time.sleep(3)
        begin = time.monotonic()
        stage.tunnel.server.start()
        probe.back(begin, within=LONG)
    return probe.outage()


def cut_the_gateway_off(stage: Stage, *, seconds: float) -> float:
    with stage.probe() as probe:
        stage.network.vpc.ip("link set p-manager down")
        time.sleep(seconds)
        begin = time.monotonic()
        stage.network.vpc.ip("link set p-manager up")
        return probe.back(begin, within=LONG)


def move_the_gateway(stage: Stage, speaker: Callable[[Stage], Probe]) -> float:
    with speaker(stage) as probe:
        time.sleep(1)
        begin = time.monotonic()
        stage.network.manager_address("198.18.20.99")
        time.sleep(0.2)
        probe.back(begin + 0.2, within=LONG)
        time.sleep(1)
    return probe.outage()


def move_the_studio(stage: Stage, speaker: Callable[[Stage], Probe]) -> float:
    with speaker(stage) as probe:
        time.sleep(1)
        begin = time.monotonic()
        stage.network.studio_address(NEW_STUDIO_PUBLIC)
        stage.name_the_studio(NEW_STUDIO_PUBLIC)
        time.sleep(0.2)
        probe.back(begin + 0.2, within=LONG)
        time.sleep(1)
    return probe.outage()


@dataclass(frozen=True)
class Scene:
    """``endpoint``: what the client dials, if not the usual address. ``client_options``: see ``End``.

    ``carrier``: the studio's provider has a NAT of its own.
    """

    link: Link = STUDIO_SIDE
    endpoint: str = ""
    carrier: bool = False
    client_options: tuple[str, ...] = ()


SERVED = Scene(CLOUD_SIDE)
SERVED_BEHIND_CARRIER = Scene(CLOUD_SIDE, carrier=True)


@dataclass(frozen=True)
class Drill:
    """``figure``: seconds of the best measurement."""

    figure: float
    run: Callable[[Stage], float]
    scene: Scene = Scene()


DRILLS = {
    "gateway restarted": Drill(0.14, lambda stage: restart_client(stage, kill=False)),
    "gateway killed": Drill(0.14, lambda stage: restart_client(stage, kill=True)),
    "gateway cut off for 8 s": Drill(0.37, lambda stage: cut_the_gateway_off(stage, seconds=8)),
    "gateway cut off for 20 s": Drill(0.40, lambda stage: cut_the_gateway_off(stage, seconds=20)),
    "gateway's address changed, both speak": Drill(0.0, lambda stage: move_the_gateway(stage, Stage.probe)),
    "gateway's address changed, studio speaks": Drill(3.0, lambda stage: move_the_gateway(stage, Stage.studio_speaks)),
    "server restarted, down 3 s": Drill(1.1, lambda stage: restart_server(stage, seconds=3)),
    "server restarted, down 10 s": Drill(1.1, lambda stage: restart_server(stage, seconds=10)),
    "server killed": Drill(15.5, kill_server),
    "studio's address changed, by name": Drill(
        19.3, lambda stage: move_the_studio(stage, Stage.probe), Scene(endpoint=NAME)
    ),
    "cloud serves: studio's address changed, studio speaks": Drill(
        0.0, lambda stage: move_the_studio(stage, Stage.studio_speaks), SERVED
    ),
    "cloud serves: studio's address changed, cloud speaks": Drill(
        3.0, lambda stage: move_the_studio(stage, Stage.cloud_speaks), SERVED
    ),
    # Another address outside is another entry of the NAT, too: what a carrier does that forgets one.
    "cloud serves, carrier's NAT: its address changed, studio speaks": Drill(
        0.0, lambda stage: move_the_studio(stage, Stage.studio_speaks), SERVED_BEHIND_CARRIER
    ),
    "cloud serves, carrier's NAT: its address changed, cloud speaks": Drill(
        3.0, lambda stage: move_the_studio(stage, Stage.cloud_speaks), SERVED_BEHIND_CARRIER
    ),
    "cloud serves: server restarted, down 3 s": Drill(1.1, lambda stage: restart_server(stage, seconds=3), SERVED),
    "cloud serves: server killed": Drill(15.5, kill_server, SERVED),
}
# Seconds in which everything that heals at all has healed.
HOPELESS = max(drill.figure for drill in DRILLS.values()) + TOLERANCE
# The studio gets another address, and the tunnel does not come back; none of the three is what the roles write.
UNHEALED = {
    "dialled by address": Scene(),
    "dialled by address, with float": Scene(client_options=("--float",)),
    "dialled by name, with persist-remote-ip": Scene(endpoint=NAME, client_options=("--persist-remote-ip",)),
}


@dataclass(frozen=True)
class Loss:
    """Whether the tunnel came back after all, and what the check says."""

    healed: bool
    causes: list[str]


def lose_the_studio(stage: Stage) -> Loss:
    with stage.probe() as probe:
        stage.network.studio_address(NEW_STUDIO_PUBLIC)
        stage.name_the_studio(NEW_STUDIO_PUBLIC)
        time.sleep(0.2)
        healed = probe.back(time.monotonic(), within=HOPELESS) < HOPELESS
    return Loss(healed, causes(stage.tunnel))


def carry_out(run: Callable[[Stage], T], scene: Scene, folder: Path, pki: Authority) -> T:
    network = Network(port_forward=scene.link.server == "workstation", carrier=scene.carrier)
    try:
        with Tunnel(
            network, folder, pki.folder, scene.link, endpoint=scene.endpoint, client_options=scene.client_options
        ) as tunnel:
            stage = Stage(network, tunnel)
            stage.name_the_studio(STUDIO_PUBLIC)
            tunnel.up()
            with stage.probe() as probe:
                assert probe.back(time.monotonic(), within=5) < 5, "the tunnel does not even come up"
            return run(stage)
    finally:
        network.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(len(DRILLS) + len(UNHEALED)) as made:
        yield made


@pytest.fixture(scope="module")
def losses(
    pool: ThreadPoolExecutor, pki: Authority, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[Loss]]:
    return {
        name: pool.submit(carry_out, lose_the_studio, scene, tmp_path_factory.mktemp("loss"), pki)
        for name, scene in UNHEALED.items()
    }


@pytest.fixture(scope="module")
def outages(
    pool: ThreadPoolExecutor,
    losses: dict[str, Future[Loss]],
    pki: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Future[float]]:
    return {
        name: pool.submit(carry_out, drill.run, drill.scene, tmp_path_factory.mktemp("drill"), pki)
        for name, drill in DRILLS.items()
    }


@pytest.mark.parametrize("name", DRILLS)
def test_the_outage_is_short(
    name: str, outages: dict[str, Future[float]], record_property: Callable[[str, object], None]
) -> None:
    seconds = outages[name].result()
    record_property("seconds", round(seconds, 2))
    print(f"{name}: {seconds:.2f} s, best {DRILLS[name].figure} s")
    assert seconds <= DRILLS[name].figure + TOLERANCE


@pytest.mark.parametrize("name", UNHEALED)
def test_a_studio_with_another_address_is_found_by_its_name_only(name: str, losses: dict[str, Future[Loss]]) -> None:
    loss = losses[name].result()
    assert not loss.healed
    assert loss.causes == ["port forward missing"], "whose remedy says: the endpoint must be the router's address"
