"""Nodes that meet trouble while they boot, each case for real on a machine of its own, all at the same time.

Every machine was a good node before, and renders.  Then the manager's service stops, each machine is spoiled in its
own way and rebooted; two minutes later the manager comes back.  A node either becomes ready by itself, or says its last
words and ends.  The job that they rendered is whole in the end.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rehearsal import proof
from rehearsal.session import Rehearsal, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
XML = Path(proof.PROFILE) / "backburner.xml"
STATE = Path("ProgramData/RenderFarm/state.json")
MANAGER_AWAY = 120.0
#: The manager sweeps what nodes could not take off its list themselves: it was away when they failed.
SAMPLE = 5
SETTINGS = {"farm_watch": {"sample": SAMPLE, "ghost": 15, "idle": 1800, "deadline": 3000}}
LIMIT = 240.0
JOB, FRAMES = "drill", 120
HOUR = 3600
LINE = re.compile(r"RENDERFARM-NODE (\{.*\})")


@dataclass
class Node:
    """One machine of the drill, and the drill's farm."""

    farm: Rehearsal
    facts: dict[str, Any]

    @property
    def instance(self) -> str:
        return str(self.facts["instance_id"])

    @property
    def xml(self) -> Path:
        return Path(self.facts["c"]) / XML

    def inject(self, fault: str, *arguments: str) -> None:
        words = [fault, self.facts["name"], *arguments]
        subprocess.run(
            [sys.executable, "-m", "rehearsal", "inject", "--dir", str(self.farm.folder), *words],
            check=True, timeout=60, capture_output=True,
        )  # fmt: skip

    def builders(self) -> bytes:
        """backburner.xml as the image has it: with the builder's identity."""
        (image,) = (self.farm.folder / "images").glob(f"*/c/{XML}")
        return image.read_bytes()

    def put(self, data: bytes) -> None:
        self.xml.chmod(0o644)
        self.xml.write_bytes(data)

    def events(self) -> list[dict[str, Any]]:
        consoles = [
            path
            for path in (self.farm.folder / "machines").glob("**/console.log")
            if self.facts["name"] in path.parent.name and self.instance in path.read_text(errors="replace")
        ]
        text = consoles[0].read_text(errors="replace") if consoles else ""
        return [json.loads(found) for found in LINE.findall(text)]


# ------------------------------------------------------------------------------------------------------------- spoiling


def nothing(node: Node) -> None:
    """Only the manager is away."""


def metadata_late(node: Node) -> None:
    node.inject("metadata-late", "30")


def metadata_never(node: Node) -> None:
    node.inject("metadata-late", "100000")


def clock_ahead(node: Node) -> None:
    node.inject("clock-off", str(HOUR))


def clock_behind(node: Node) -> None:
    node.inject("clock-off", str(-HOUR))


def corrupt(node: Node) -> None:
    node.inject("corrupt-xml")


def missing(node: Node) -> None:
    node.xml.unlink()


def read_only(node: Node) -> None:
    node.put(node.builders())
    node.xml.chmod(0o444)


def disk_full(node: Node) -> None:
    node.put(node.builders())
    node.inject("disk-full")


def memory_broken(node: Node) -> None:
    (Path(node.facts["c"]) / STATE).write_bytes(bytes(512))


def another_manager(node: Node) -> None:
    text = node.builders().decode("utf-8")
    node.put(re.sub("<ManagerName>[^<]*<", "<ManagerName>10.0.0.99<", text).encode("utf-8"))


def duplicate(node: Node) -> None:
    """It is the copy of another node that runs, with that one's MAC, name and memory."""
    nodes = [facts for facts in node.farm.machines() if facts["role"] == "render_node"]
    other = next(facts for facts in nodes if facts["name"] != node.facts["name"])
    for path in (XML, STATE):
        (Path(node.facts["c"]) / path).write_bytes((Path(other["c"]) / path).read_bytes())


def encoded(mark: bytes, codec: str, declaration: str) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        text = node.builders().decode("utf-8")
        text = re.sub(r"^<\?xml[^>]*\?>\r\n", declaration, text)
        node.put(mark + text.encode(codec))

    return spoil


def power_cut(node: Node) -> None:
    """It loses its power while it waits for the manager, and gets it back."""
    node.put(node.builders())


def cut_in(phase: str) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        node.put(node.builders())
        node.inject("power-cut", phase)

    return spoil


@dataclass(frozen=True)
class Drill:
    """``code`` is that of the last words, None for a node that becomes ready; ``cut`` is the phase without power."""

    name: str
    spoil: Callable[[Node], None]
    code: str | None = None
    cut: str | None = None
    mark: bytes = b""
    codec: str = "utf-8"


def declared(encoding: str) -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>\r\n'


DRILLS = [
    Drill("manager late", nothing),
    Drill("duplicate MAC", duplicate),
    Drill("another manager", another_manager),
    Drill("metadata late", metadata_late),
    Drill("metadata never", metadata_never, "metadata"),
    Drill("clock ahead", clock_ahead),
    Drill("clock behind", clock_behind),
    Drill("corrupt", corrupt, "broken_xml"),
    Drill("missing", missing),
    Drill("read-only", read_only, "unwritable_file"),
    Drill("disk full", disk_full, "disk_full"),
    Drill("memory broken", memory_broken),
    Drill("power cut", power_cut),
    *(
        Drill(f"power cut in {phase}", cut_in(phase), cut=phase)
        for phase in ("metadata", "role", "identity", "routes", "drives", "manager", "services", "registration")
    ),
    Drill("UTF-8 without declaration", encoded(b"", "utf-8", "")),
    Drill("UTF-8 with mark", encoded(codecs.BOM_UTF8, "utf-8", declared("UTF-8")), mark=codecs.BOM_UTF8),
    *(
        Drill(f"UTF-16 {end}", encoded(mark, codec, declared("UTF-16")), mark=mark, codec=codec)
        for end, mark, codec in (
            ("little", codecs.BOM_UTF16_LE, "utf-16-le"),
            ("big", codecs.BOM_UTF16_BE, "utf-16-be"),
        )
    ),
]


# -------------------------------------------------------------------------------------------------------------- running


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("drills") / "rehearsal"
    with rehearsing(folder, print) as made:
        made.playbook("bake-ami.yml")
        made.playbook("farm-up.yml", "-e", json.dumps(SETTINGS | {"farm_nodes": len(DRILLS)}))
        yield made


@pytest.fixture(scope="module")
def drilled(farm: Rehearsal) -> dict[str, Node]:
    """The node of each drill, all drills being over; a job of `FRAMES` was rendered when they began."""
    words = ["submit", "--name", JOB, "--frames", f"1-{FRAMES}", "--seconds", "15", "--output", rf"F:\{JOB}\shot.exr"]
    backburner(farm, *words)
    until(lambda: {server["state"] for server in backburner(farm, "servers")} == {"busy"}, "all nodes render")
    return run_drills(farm)


def backburner(farm: Rehearsal, *words: str) -> Any:
    command = [sys.executable, "-m", "rehearsal.backburner.client", manager(farm)["address"], *words]
    return json.loads(farm.command(*command, on="studio-manager"))


def service(farm: Rehearsal, state: str) -> None:
    """Start or stop the manager's service."""
    module = ["-m", "ansible.windows.win_service", "-a", f"name=BACKBURNER_MGR_200 state={state}"]
    farm.command(str(Path(sys.executable).with_name("ansible")), "manager", *module)


def run_drills(farm: Rehearsal) -> dict[str, Node]:
    nodes = [Node(farm, facts) for facts in farm.machines() if facts["role"] == "render_node"]
    table = dict(zip([drill.name for drill in DRILLS], nodes, strict=True))
    service(farm, "stopped")
    away = time.monotonic()
    for drill in DRILLS:
        drill.spoil(table[drill.name])
    said = {name: len(node.events()) for name, node in table.items()}
    farm.command(
        str(Path(sys.executable).with_name("aws")), "ec2", "reboot-instances", "--instance-ids",
        *(node.instance for node in nodes),
    )  # fmt: skip
    cut = table["power cut"]
    until(lambda: any(event["event"] == "waiting" for event in cut.events()), "the node waits")
    cut.inject("kill")
    cut.inject("repair")
    time.sleep(max(0.0, away + MANAGER_AWAY - time.monotonic()))
    service(farm, "started")
    for drill in DRILLS:
        if drill.cut:
            back_after_power_cut(table[drill.name], drill.cut)
    for drill in DRILLS:
        node, before = table[drill.name], said[drill.name]
        until(
            lambda node=node, before=before: any(
                event["event"] in ("ready", "failed") for event in node.events()[before:]
            ),
            f"{drill.name} ends",
        )
    return table


def back_after_power_cut(node: Node, phase: str) -> None:
    """See that the node lost its power in that ``phase``, and give it power again."""

    def dead() -> bool:
        states = {facts["name"]: facts["state"] for facts in node.farm.machines()}
        return states.get(node.facts["name"]) == "dead"

    until(dead, f"the power goes in phase {phase}")
    boot = json.loads((Path(node.facts["c"]) / "ProgramData/RenderFarm/state.json").read_text())["boot"]
    assert (boot["event"], boot["phase"]) == ("booting", phase)
    node.inject("repair")


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"not within {LIMIT:g} seconds: {what}"
        time.sleep(0.5)


def alive(farm: Rehearsal) -> set[str]:
    states = ["--filters", "Name=instance-state-name,Values=pending,running,stopping,stopped"]
    found = farm.aws("ec2", "describe-instances", *states)["Reservations"]
    return {instance["InstanceId"] for reservation in found for instance in reservation["Instances"]}


def test_only_administrators_write_what_system_runs_and_believes(farm: Rehearsal) -> None:
    rules = json.loads((Path(manager(farm)["c"]).parent / "host.json").read_text())["access_rules"]
    for folder in (r"c:\renderfarm", r"c:\programdata\renderfarm"):
        rights = {rule["sid"]: rule["rights"] for rule in rules[folder]}
        assert rights == {"S-1-5-18": "F", "S-1-5-32-544": "F", "S-1-5-32-545": "RX"}, folder


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_a_node_in_trouble(farm: Rehearsal, drilled: dict[str, Node], drill: Drill) -> None:
    node = drilled[drill.name]
    event = node.events()[-1]
    if drill.code:
        assert (event["event"], event["code"]) == ("failed", drill.code), event
        assert event["reason"]
        until(lambda: node.instance not in alive(farm), "the machine has ended")
        return
    assert event["event"] == "ready", event
    if not drill.cut:  # these boot again when the manager is back
        assert event["seconds"] > (MANAGER_AWAY - 60 if drill.name != "metadata late" else 25)
    data = node.xml.read_bytes()
    assert data.startswith(drill.mark)
    text = data.removeprefix(drill.mark).decode(drill.codec)
    assert f"<ManagerName>{manager(farm)['address']}<" in text and f"<ServerName>{event['name']}<" in text
    assert event["mac"].replace(":", "") in text.lower() and "<AutomaticSearch>0<" in text


def test_a_clock_that_is_off_by_an_hour_disturbs_nothing(farm: Rehearsal, drilled: dict[str, Node]) -> None:
    """Its phases, the share's certificate and its watch: none of them goes by the time of the day."""
    for name, off in (("clock ahead", HOUR), ("clock behind", -HOUR)):
        node = drilled[name]
        said, true = node.events()[-1], drilled["manager late"].events()[-1]
        apart = (moment(said["time"]) - moment(true["time"])).total_seconds()
        assert abs(apart - off) < MANAGER_AWAY, f"its clock is {apart} s off, not {off}"
        boot = json.loads((Path(node.facts["c"]) / STATE).read_text())["boot"]
        phases = {phase["name"]: phase for phase in boot["phases"]}
        assert (phases["drives"]["outcome"], phases["drives"]["detail"][:2]) == ("done", "F:")
        assert 0 <= phases["drives"]["seconds"] <= boot["seconds"] < MANAGER_AWAY + 60
        # Deadline and idle time are shorter than the hour: who mixed the clocks would have ended by now.
        note = Path(node.facts["c"]) / "ProgramData/RenderFarm/watch.json"
        until(lambda note=note: time.time() - note.stat().st_mtime > 3 * SAMPLE, "the watch has looked three times")
        watch = json.loads(note.read_text())
        assert watch["event"] == "working" and abs((moment(watch["since"]) - moment(said["time"])).total_seconds()) < 60
        assert node.instance in alive(farm)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def manager(farm: Rehearsal) -> dict[str, Any]:
    return next(machine for machine in farm.machines() if machine["role"] == "manager")


def test_no_frame_is_missing(farm: Rehearsal, drilled: dict[str, Node]) -> None:
    until(lambda: [job["state"] for job in backburner(farm, "jobs")] == ["complete"], f"the job {JOB} is complete")
    found = sorted(path.name for path in (Path(manager(farm)["c"]) / "Farm" / JOB).iterdir())
    assert found == [f"shot{number:04d}.exr" for number in range(1, FRAMES + 1)]


def test_no_ghost_and_no_machine_is_left(farm: Rehearsal, drilled: dict[str, Node]) -> None:
    ready = {node.events()[-1]["mac"] for node in drilled.values() if node.events()[-1]["event"] == "ready"}

    def all_listed() -> set[str]:
        return {server["mac"] for server in listed(farm)}

    until(lambda: all_listed() == ready, f"the list is {sorted(ready)}, not {sorted(all_listed())}")
    assert len(ready) == sum(drill.code is None for drill in DRILLS)
    assert {server["state"] for server in listed(farm)} == {"idle"}
    whole = {node.instance for name, node in drilled.items() if node.events()[-1]["event"] == "ready"}
    assert alive(farm) == whole | {manager(farm)["instance_id"]}


def listed(farm: Rehearsal) -> list[dict[str, str]]:
    module = ["-m", "renderfarm.cloud.backburner_servers", "-o"]
    said = farm.command(str(Path(sys.executable).with_name("ansible")), "manager", *module)
    servers: list[dict[str, str]] = json.loads(said[said.index("{") :])["servers"]
    return servers


def test_the_status_tells_why_nodes_ended(farm: Rehearsal, drilled: dict[str, Node]) -> None:
    text = farm.playbook("playbooks/farm-status.yml").log.read_text()
    for drill in DRILLS:
        if drill.code:
            assert re.search(rf"{drilled[drill.name].instance} .*failed: {drill.code}: ", text), drill.name
