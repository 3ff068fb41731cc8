"""The fleet of a whole farm when something is short, broken or busy: each case by the playbooks, on real machines.

The tests build on each other and run in their order: one farm grows, loses a bad node, shrinks while frames are
rendered and ends; then one of which every second node is broken.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rehearsal import proof
from rehearsal.proof import PROFILE
from rehearsal.session import ProofError, Rehearsal, Step, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]

MANAGER = "10.0.0.10"
FRAME = 200.0  # seconds: longer than a playbook takes until it asks who renders
# What an image's farmnode does on the nodes whose numbers are named, counted in the order in which they come up.
BROKEN = """

def _broken(self, good=Boot._services):
    import itertools, time
    if self._known["role"] == "render_node":
        for number in itertools.count(1):
            try:
                open(f"{FOLDER}/{number}", "x").close()
            except FileExistsError:
                continue
            break
        if number in HANGING:
            time.sleep(3600)
        if number in FAILING:
            time.sleep(15)  # no Windows is up before EC2 calls its machine running
            raise RuntimeError("the drill broke this image")
    return good(self)


Boot._services = _broken
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("fleet") / "rehearsal"
    with rehearsing(folder, print) as made:
        made.playbook("bake-ami.yml")
        yield made


def inject(farm: Rehearsal, *fault: str) -> None:
    command = [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *fault]
    subprocess.run(command, check=True, timeout=60)


def up(farm: Rehearsal, nodes: int, **settings: Any) -> Step:
    return farm.playbook("farm-up.yml", "-e", json.dumps({"farm_nodes": nodes, **settings}))


def alive(farm: Rehearsal, role: str = "render_node") -> set[str]:
    """Ids of the nodes that live, by the AWS CLI."""
    filters = ["Name=instance-state-name,Values=pending,running", f"Name=tag:renderfarm:role,Values={role}"]
    groups = farm.aws("ec2", "describe-instances", "--filters", *filters)["Reservations"]
    return {instance["InstanceId"] for group in groups for instance in group["Instances"]}


def backburner(farm: Rehearsal, *words: str) -> Any:
    command = [sys.executable, "-m", "rehearsal.backburner.client", MANAGER, *words]
    return json.loads(farm.command(*command, on="studio-manager"))


def in_state(farm: Rehearsal, state: str) -> set[str]:
    """Ids of the nodes that the manager lists in a state."""
    ids = {proof.notations(m["mac"])[0].upper() + "0000": m["instance_id"] for m in farm.machines()}
    return {ids[server["handle"]] for server in backburner(farm, "servers") if server["state"] == state}


def submit(farm: Rehearsal, name: str, frames: int, seconds: float) -> int:
    """Queue a job, one frame for each node; returns its handle."""
    words = ["--name", name, "--frames", f"1-{frames}", "--seconds", str(seconds)]
    handle: int = backburner(farm, "submit", *words, "--output", rf"F:\{name}\shot.exr")["job"]
    return handle


def rendering(farm: Rehearsal, number: int) -> set[str]:
    """The ids of the nodes that render, as soon as they are so many."""
    end = time.monotonic() + 30
    while len(busy := in_state(farm, "busy")) != number:
        assert time.monotonic() < end, busy
        time.sleep(0.5)
    return busy


def frames(farm: Rehearsal, name: str) -> dict[str, float]:
    """The frames of a job on the share, and when they were written."""
    [manager] = [machine for machine in farm.machines() if machine["role"] == "manager"]
    return {path.name: path.stat().st_mtime for path in (Path(manager["c"]) / "Farm" / name).glob("*")}


def terminated_at(farm: Rehearsal) -> list[float]:
    return [call["time"] for call in farm.calls() if call["action"] == "TerminateInstances" and call["status"] == 200]


@contextmanager
def broken_image(farm: Rehearsal, failing: tuple[int, ...], hanging: tuple[int, ...] = ()) -> Iterator[None]:
    """Machines that come up meanwhile find farmnode broken on the nodes with these numbers."""
    [path] = (farm.folder / "images").glob("*/c/RenderFarm/farmnode/boot.py")
    counter = farm.folder / f"nodes-{time.monotonic_ns()}"
    counter.mkdir()
    good = path.read_text(encoding="utf-8")
    settings = f"\n\nFOLDER, FAILING, HANGING = {str(counter)!r}, {failing}, {hanging}"
    path.write_text(good + settings + BROKEN, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(good, encoding="utf-8")


def killed_after(farm: Rehearsal, action: str, *playbook: str) -> None:
    """Start a playbook and kill all of it as soon as the region was asked for ``action``."""
    before = len(farm.calls())
    command = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(farm.folder), "--"]
    process = subprocess.Popen(
        [*command, str(Path(sys.executable).with_name("ansible-playbook")), *playbook],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while action not in {call["action"] for call in farm.calls()[before:] if call["mutating"]}:
        assert process.poll() is None and time.monotonic() < end, f"{action} was never called"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


# ----------------------------------------------------------------------------------------------------------- the drills


def test_a_check_of_what_does_not_stand_makes_nothing(farm: Rehearsal) -> None:
    step = farm.playbook("bake-ami.yml", "--check", "-e", "ami_bake_force=true")
    assert step.changed == 0 and step.changes == [] and "The builder starts from ami-" in step.log.read_text()
    before = len(farm.calls())
    with pytest.raises(ProofError, match=r"(?s)has no running manager.*playbooks/farm-check.yml -e farm_nodes=4"):
        farm.playbook("farm-up.yml", "--check", "-e", "farm_nodes=4")
    assert [call["action"] for call in farm.calls()[before:] if call["mutating"]] == []


@pytest.mark.parametrize("action", ["CreateFleet", "RunInstances"])
def test_a_right_to_launch_that_is_missing_is_found_before_the_manager_runs(farm: Rehearsal, action: str) -> None:
    """Also the one for the nodes, which is needed long after it, and which needs the launch template to be tried."""
    before = len(farm.calls())
    inject(farm, "deny", action, "on")
    with pytest.raises(ProofError, match=rf"(?s)may not ec2:{action}.*docs/iam-policy\.json"):
        up(farm, 2)
    inject(farm, "deny", action, "off")
    changes = {call["action"] for call in farm.calls()[before:] if call["mutating"]}
    assert not changes & {"RunInstances", "CreateFleet", "AllocateAddress"}
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)


def test_a_quota_that_is_too_small(farm: Rehearsal) -> None:
    """The pre-flight refuses it; where it may not see the quota, EC2 does, and what it gave stays and is told."""
    inject(farm, "quota", "spot", "40")  # two nodes of 16 vCPUs
    inject(farm, "quota", "on-demand", "4")  # the manager
    before = len(farm.calls())
    with pytest.raises(ProofError, match=r"(?s)fatal +quota spot.*request-service-quota-increase"):
        up(farm, 4)
    assert [call["action"] for call in farm.calls()[before:] if call["mutating"]] == []
    inject(farm, "deny", "GetServiceQuota", "on")
    with pytest.raises(
        ProofError, match=r"(?s)MaxSpotInstanceCountExceeded.*L-34B43A08.*VcpuLimitExceeded.*L-1216C47A"
    ):
        up(farm, 4)
    assert len(alive(farm)) == 2
    inject(farm, "deny", "GetServiceQuota", "off")
    for lifecycle in ("spot", "on-demand"):
        inject(farm, "quota", lifecycle, "100000")


def test_one_bad_node_is_ended_and_the_farm_goes_on_with_enough(farm: Rehearsal) -> None:
    with broken_image(farm, failing=(2,)):
        step = up(farm, 5, farm_nodes_minimum=4)
    said = " ".join(step.log.read_text().split())
    assert "1 of 3 launched nodes did not register" in said and "the drill broke this image" in said
    assert len(alive(farm)) == 4 and in_state(farm, "idle") == alive(farm)


def test_a_check_of_a_farm_that_stands_changes_nothing(farm: Rehearsal) -> None:
    step = farm.playbook("farm-up.yml", "--check", "--diff", "-e", "farm_nodes=4")
    assert step.changed == 0 and step.changes == []


def test_idle_nodes_go_first(farm: Rehearsal) -> None:
    job = submit(farm, "many", 3, 3600)
    busy, everything = rendering(farm, 3), alive(farm)
    up(farm, 3, farm_remove=True)
    assert alive(farm) == busy and len(everything - busy) == 1
    backburner(farm, "delete", str(job))


def test_fewer_nodes_wait_for_the_end_of_a_frame(farm: Rehearsal) -> None:
    job = submit(farm, "long", 2, 3600)
    rendering(farm, 2)
    submit(farm, "short", 1, FRAME)
    rendering(farm, 3)
    step = up(farm, 2, farm_remove=True)
    assert "FAILED - RETRYING" in step.log.read_text(), "the playbook needed longer than the frame"
    assert len(alive(farm)) == 2 and in_state(farm, "busy") == alive(farm)
    [written] = frames(farm, "short").values()
    assert terminated_at(farm)[-1] > written
    backburner(farm, "delete", str(job))


def test_down_waits_for_the_end_of_frames(farm: Rehearsal) -> None:
    submit(farm, "last", 2, FRAME)
    rendering(farm, 2)
    [manager] = [machine for machine in farm.machines() if machine["role"] == "manager"]
    step = farm.playbook("farm-down.yml", "-e", "farm_manager_keep=true")
    assert "FAILED - RETRYING" in step.log.read_text(), "the playbook needed longer than the frame"
    assert alive(farm) == set()
    written = frames(farm, "last")
    assert sorted(written) == ["shot0001.exr", "shot0002.exr"]
    assert terminated_at(farm)[-1] > max(written.values())
    log = (Path(manager["c"]) / PROFILE / "backburner.log").read_text(errors="replace")
    assert not re.search(r"last: frame \d+ .*requeued", log)


def test_down_now_does_not_wait(farm: Rehearsal) -> None:
    up(farm, 1)
    submit(farm, "lost", 1, 3600)
    rendering(farm, 1)
    step = farm.playbook("farm-down.yml", "-e", "farm_down_now=true")
    assert "who is busy" not in step.log.read_text()
    proof.prove_nothing_left(farm, images=1)


def test_killed_in_the_middle_of_up_and_down(farm: Rehearsal) -> None:
    killed_after(farm, "CreateFleet", "farm-up.yml", "-e", "farm_nodes=2")
    up(farm, 2)
    assert len(alive(farm)) == 2 and in_state(farm, "idle") == alive(farm)
    killed_after(farm, "TerminateInstances", "farm-down.yml")
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)


def test_remote_nodes_have_the_same_limits(farm: Rehearsal) -> None:
    """Price and share of spot; and when one shall go, it waits for the end of its frame.

    A maximum for which no pool is sold is found before anything is launched, also not the manager.
    """
    cheap = {"farm_remote_nodes": 2, "farm_max_price": 0.0001, "farm_on_demand_fallback": False}
    with pytest.raises(ProofError, match=r"(?s)farm_max_price is 0\.0001.*farm_on_demand_fallback: true"):
        up(farm, 0, **cheap)
    assert alive(farm, "manager") == alive(farm, "remote_node") == set()
    up(farm, 0, farm_remote_nodes=2, farm_spot_percent=50)
    two = farm.aws("ec2", "describe-instances", "--instance-ids", *alive(farm, "remote_node"))["Reservations"]
    lifecycles = [instance.get("InstanceLifecycle", "-") for group in two for instance in group["Instances"]]
    assert sorted(lifecycles) == ["-", "spot"]
    submit(farm, "remote", 2, FRAME)
    rendering(farm, 2)
    step = up(farm, 0, farm_remote_nodes=1, farm_remove=True)
    assert "FAILED - RETRYING" in step.log.read_text()
    assert len(alive(farm, "remote_node")) == 1 and len(frames(farm, "remote")) == 2
    assert terminated_at(farm)[-1] > min(frames(farm, "remote").values())
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)


def test_an_image_that_is_broken_on_every_second_node(farm: Rehearsal) -> None:
    """Two tell why and end themselves, one hangs: it is ended, the good ones stay, and nobody launches more."""
    before = len(farm.calls())
    with (
        broken_image(farm, failing=(1, 3), hanging=(5,)),
        pytest.raises(ProofError, match=r"(?s)3 of 6 launched nodes did not register.*launching\s+stops") as error,
    ):
        up(farm, 6, farm_boot_minutes=2)
    said = " ".join(str(error.value).split())
    assert re.search(r"- 2 failed: unexpected in phase services: RuntimeError: the drill broke this image", said), said
    assert "- 1 booting: " in said and "They were terminated: " in said, said
    assert len(alive(farm)) == 3 and in_state(farm, "idle") == alive(farm)
    launches = [call for call in farm.calls()[before:] if call["action"] == "CreateFleet" and call["status"] == 200]
    assert len(launches) == 1
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)


def test_an_image_that_is_broken_on_every_node_leaves_nothing_that_runs(farm: Rehearsal) -> None:
    with broken_image(farm, failing=tuple(range(1, 10))), pytest.raises(ProofError) as error:
        up(farm, 2, farm_boot_minutes=2)
    assert "the manager, which this run started, was stopped" in " ".join(str(error.value).split())
    assert alive(farm) == alive(farm, "manager") == set()
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)
