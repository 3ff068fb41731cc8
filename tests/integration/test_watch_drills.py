"""What a node does when it is taken, advised, idle, late, lost or hung: each for real, in a rehearsed farm.

Every drill launches nodes of its own from the farm's launch template, with short limits in their user data.  After
each: no ghost on the manager's list, no frame missing, no machine running that should have ended.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rehearsal.session import ProofError, Rehearsal, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]

MANAGER = "10.0.0.10"
TEMPLATE = "studio-render-node"
QUICK = {"idle": 0, "deadline": 0, "hung": 6, "manager": 600, "notice": 1, "sample": 1, "rebalance": 8}
SETTINGS = {
    "farm_watch": {"sample": 1, "ghost": 15},
    "farm_nodes": 0,
    "farm_project_folder": r"C:\Projects",
    "farm_project_minutes": 1,
}
PATIENCE = 90.0


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("watch") / "rehearsal"
    with rehearsing(folder, print) as made:
        made.playbook("bake-ami.yml")
        project = drive_of(made, "workstation") / "Projects"
        project.mkdir()
        (project / "scene.max").write_bytes(b"scene")
        made.playbook("farm-up.yml", "-e", json.dumps(SETTINGS))
        yield made


# ---------------------------------------------------------------------------------------------------------- the means


def inject(farm: Rehearsal, *fault: str) -> None:
    command = [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *fault]
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def backburner(farm: Rehearsal, *words: str) -> Any:
    command = [sys.executable, "-m", "rehearsal.backburner.client", MANAGER, *words]
    return json.loads(farm.command(*command, on="studio-manager"))


def servers(farm: Rehearsal) -> dict[str, str]:
    return {server["name"]: server["state"] for server in backburner(farm, "servers")}


class Node:
    """A node that a drill launched."""

    def __init__(self, farm: Rehearsal, name: str, instance: Mapping[str, Any]) -> None:
        self._farm = farm
        self.instance = instance["InstanceId"]
        self.machine = f"{name}-{self.instance}"
        self.name = "ip-" + instance["PrivateIpAddress"].replace(".", "-")

    @property
    def state(self) -> str | None:
        return servers(self._farm).get(self.name)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it said on its console, also when it is gone."""
        logs = (self._farm.folder / "machines").glob(f"**/{self.machine}*/console.log")
        text = "".join(log.read_text(errors="replace") for log in logs)
        lines = [json.loads(line) for line in re.findall(r"RENDERFARM-NODE (\{.*\})", text)]
        return [line for line in lines if line["instance"] == self.instance]

    def said(self, event: str) -> dict[str, Any] | None:
        return next((line for line in self.events if line["event"] == event), None)

    def says(self, event: str) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: self.said(event), f"{self.machine} says {event}: {self.events}")
        return found

    @property
    def ended(self) -> bool:
        answer = self._farm.aws("ec2", "describe-instances", "--instance-ids", self.instance)
        state: str = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
        return state == "terminated"

    def is_gone(self) -> None:
        """It ended, and left no ghost."""
        until(lambda: self.ended, f"{self.machine} is terminated")
        until(lambda: self.name not in servers(self._farm), f"{self.name} is off the manager's list")


def launch(farm: Rehearsal, name: str, *, change: Mapping[str, Any] | None = None, **limits: float) -> Node:
    """A spot node from the farm's template, with ``limits`` for its watch; not awaited."""
    [version] = farm.aws(
        "ec2", "describe-launch-template-versions", "--launch-template-name", TEMPLATE, "--versions", "$Latest"
    )["LaunchTemplateVersions"]
    text = base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()
    told = json.loads(re.fullmatch(r"<farm>(.*)</farm>\s*", text)[1])  # type: ignore[index]
    told |= {"watch": QUICK | limits, **(change or {})}
    path = farm.folder / f"{name}.txt"
    path.write_text(f"<farm>{json.dumps(told)}</farm>\n")
    [subnet] = farm.aws("ec2", "describe-subnets", "--filters", "Name=cidr-block,Values=10.0.0.0/24")["Subnets"]
    tags = [{"Key": "Name", "Value": name}, {"Key": "renderfarm:farm", "Value": "studio"}]
    tags.append({"Key": "renderfarm:role", "Value": "render_node"})
    [instance] = farm.aws(
        "ec2",
        "run-instances",
        *("--launch-template", f"LaunchTemplateName={TEMPLATE}"),
        *("--instance-type", "c7i.4xlarge", "--subnet-id", subnet["SubnetId"], "--user-data", f"file://{path}"),
        *("--instance-market-options", '{"MarketType": "spot"}'),
        *("--tag-specifications", json.dumps([{"ResourceType": "instance", "Tags": tags}])),
    )["Instances"]
    return Node(farm, name, instance)


def ready(node: Node) -> Node:
    node.says("ready")
    return node


class Job:
    """A job whose frames go to the share, by its drive letter."""

    def __init__(self, farm: Rehearsal, name: str, frames: int, seconds: float) -> None:
        self._farm, self.name, self.frames = farm, name, frames
        words = ["--name", name, "--frames", f"1-{frames}", "--seconds", str(seconds)]
        self.handle = backburner(farm, "submit", *words, "--output", rf"F:\{name}\shot.exr")["job"]

    def is_whole(self) -> None:
        """Every frame is on the share, and the manager calls the job complete."""
        jobs = lambda: {job["handle"]: job["state"] for job in backburner(self._farm, "jobs")}  # noqa: E731
        until(lambda: jobs().get(self.handle) == "complete", f"job {self.name} is complete", 120)
        [manager] = [machine for machine in self._farm.machines() if machine["role"] == "manager"]
        folder = Path(manager["c"]) / "Farm" / self.name
        found = sorted(path.name for path in folder.iterdir())
        assert found == [f"shot{number:04d}.exr" for number in range(1, self.frames + 1)]

    def is_on(self, node: Node) -> None:
        until(lambda: node.state == "busy", f"{node.name} renders {self.name}")


def drive_of(farm: Rehearsal, name: str) -> Path:
    """Where drive C: of a machine really is."""
    [machine] = [machine for machine in farm.machines() if machine["name"] == name]
    return Path(machine["c"])


def manager_log(farm: Rehearsal, name: str = "ProgramData/RenderFarm/farmnode.log") -> str:
    return (drive_of(farm, "studio-manager") / name).read_text(errors="replace")


# ---------------------------------------------------------------------------------------------------------- the drills


def test_the_share_is_there_and_its_password_nowhere(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-share"))
    job = Job(farm, "share", 2, 0.5)
    job.is_whole()
    settings = (farm.folder / "inventory/group_vars/all/rehearsal.yml").read_text()
    password = re.search(r"vault_share_password: (\S+)", settings)
    assert password is not None
    [machine] = [machine for machine in farm.machines() if machine["name"] == node.machine]
    places = [Path(machine["c"]).parent / "machine.log", Path(machine["c"]).parent / "console.log"]
    places += [path for path in Path(machine["c"]).rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in places if password[1].strip("'\"").encode() in path.read_bytes()] == []
    inject(farm, "spot-interrupt", node.machine, "5")
    node.is_gone()


def test_spot_notice_while_idle(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-idle-notice"))
    inject(farm, "spot-interrupt", node.machine, "20")
    words = node.says("interrupted")
    until(lambda: node.state is None, "it is off the list before EC2 takes it", 15)
    assert not node.ended and words["reason"].startswith("EC2 takes the machine back in ")
    node.is_gone()


def test_spot_notice_in_the_middle_of_a_frame(farm: Rehearsal) -> None:
    first, second = launch(farm, "drill-notice-1"), launch(farm, "drill-notice-2")
    ready(first), ready(second)
    job = Job(farm, "notice", 8, 3)
    job.is_on(first)
    inject(farm, "spot-interrupt", first.machine, "15")
    first.says("interrupted")
    first.is_gone()
    job.is_whole()
    log = manager_log(farm, "Windows/ServiceProfiles/LocalService/AppData/Local/backburner/backburner.log")
    assert re.search(rf"notice: frame \d+ of {first.name} requeued", log)
    inject(farm, "spot-interrupt", second.machine, "5")
    second.is_gone()


def test_rebalance_recommendation(farm: Rehearsal) -> None:
    first, second = launch(farm, "drill-rebalance-1"), launch(farm, "drill-rebalance-2")
    ready(first), ready(second)
    inject(farm, "rebalance", second.machine)
    second.says("rebalance")
    second.is_gone()
    assert second.said("rebalance_advised") is None
    other = ready(launch(farm, "drill-rebalance-3"))
    job = Job(farm, "rebalance", 6, 4)
    job.is_on(first)
    inject(farm, "rebalance", first.machine)
    first.says("rebalance_advised")
    first.says("rebalance")
    first.is_gone()
    job.is_whole()
    inject(farm, "rebalance", other.machine)
    other.is_gone()


def test_idle_node(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-idle", idle=8))
    job = Job(farm, "idle", 3, 4)
    job.is_whole()
    assert node.said("idle") is None
    assert re.fullmatch(r"no job and no load for \d+ seconds", node.says("idle")["reason"])
    node.is_gone()


def test_deadline(farm: Rehearsal) -> None:
    node, other = launch(farm, "drill-deadline", deadline=16), launch(farm, "drill-deadline-other")
    ready(node), ready(other)
    job = Job(farm, "deadline", 10, 3)
    node.says("deadline_near")
    node.says("deadline")
    node.is_gone()
    job.is_whole()
    inject(farm, "rebalance", other.machine)
    other.is_gone()


def test_hung_render(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-hung"))
    job = Job(farm, "hung", 3, 4)
    job.is_on(node)
    inject(farm, "hang-render", node.machine)
    node.says("hung")
    job.is_whole()
    again = Job(farm, "hung-again", 2, 4)
    again.is_on(node)
    inject(farm, "hang-render", node.machine)
    node.says("quarantined")
    until(lambda: node.state is None, "it takes no more work")
    assert not node.ended
    other = ready(launch(farm, "drill-hung-other"))
    again.is_whole()
    inject(farm, "rebalance", node.machine)
    inject(farm, "rebalance", other.machine)
    node.is_gone()
    other.is_gone()


def test_quarantined_node_ends_when_it_is_idle(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-quarantine", idle=10, hung=3))
    job = Job(farm, "quarantine", 1, 12)
    for event in ("hung", "quarantined"):
        job.is_on(node)
        inject(farm, "hang-render", node.machine)
        node.says(event)
    node.says("idle")
    node.is_gone()
    other = ready(launch(farm, "drill-quarantine-other"))
    job.is_whole()
    inject(farm, "rebalance", other.machine)
    other.is_gone()


def test_share_that_cannot_be_reached(farm: Rehearsal) -> None:
    known = ready(launch(farm, "drill-no-share-known"))
    share = json.loads((farm.folder / "drill-no-share-known.txt").read_text()[6:-8])["share"]
    change = {"share": share | {"unc": rf"\\{MANAGER}\nothing"}, "limits": {"manager": 6}}
    node = launch(farm, "drill-no-share", change=change)
    words = node.says("failed")
    assert (words["phase"], words["code"]) == ("drives", "no_share")
    assert "network name cannot be found" in words["reason"]
    node.is_gone()
    inject(farm, "rebalance", known.machine)
    known.is_gone()


def test_manager_address_that_is_wrong(farm: Rehearsal) -> None:
    node = launch(farm, "drill-wrong-manager", change={"manager": "10.0.0.99", "limits": {"manager": 6}})
    words = node.says("failed")
    assert (words["phase"], words["code"]) == ("manager", "manager_unreachable")
    assert "at 10.0.0.99:3234 for 6 seconds" in words["reason"]
    node.is_gone()


def tunnel(farm: Rehearsal, state: str) -> None:
    """Start or stop OpenVPN on the workstation."""
    module = ["-m", "ansible.windows.win_service", "-a", f"name=OpenVPNService state={state}"]
    farm.command(str(Path(sys.executable).with_name("ansible")), "workstation", *module)


def test_the_project_and_the_frames_while_the_tunnel_is_down(farm: Rehearsal) -> None:
    here, there = (drive_of(farm, "workstation") / "Projects", drive_of(farm, "studio-manager") / "Farm" / "Projects")
    until(lambda: (there / "scene.max").is_file(), "the project is on the share")
    (there / "shot0001.exr").write_bytes(b"frame")
    node = ready(launch(farm, "drill-tunnel"))
    tunnel(farm, "stopped")
    (here / "new.max").write_bytes(b"new")
    note = drive_of(farm, "workstation") / "ProgramData/RenderFarm/project.json"
    until(lambda: "or the tunnel is" in json.loads(note.read_text()).get("reason", ""), "a copy fails")
    Job(farm, "no-tunnel", 3, 2).is_whole()
    assert not (there / "new.max").exists()
    tunnel(farm, "started")
    until(lambda: (there / "new.max").is_file(), "the next copy takes it up", 150)
    assert (there / "shot0001.exr").read_bytes() == b"frame", "what nodes wrote stays"
    until(lambda: json.loads(note.read_text())["outcome"] == "done", "the copy has ended")
    status = farm.playbook("playbooks/farm-status.yml", "-e", json.dumps(SETTINGS)).log.read_text()
    assert re.search(r"Project C:\\+Projects: .* UTC, [01] files copied \(0\.0 MB\), 0 failed\.", status)
    inject(farm, "rebalance", node.machine)
    node.is_gone()


def test_manager_that_is_gone(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-manager-gone", manager=6))
    job = Job(farm, "manager-gone", 4, 3)
    job.is_on(node)
    inject(farm, "kill", "studio-manager")
    node.says("manager_gone")
    until(lambda: node.ended, "it is terminated")
    inject(farm, "repair", "studio-manager")

    def answers() -> bool:
        try:
            return node.name not in servers(farm)
        except ProofError:
            return False

    until(answers, "the manager is back and has swept the ghost", 120)
    other = ready(launch(farm, "drill-manager-back"))
    job.is_whole()
    inject(farm, "rebalance", other.machine)
    other.is_gone()


def test_mail_server_that_is_down_then_up(farm: Rehearsal) -> None:
    node = ready(launch(farm, "drill-mail"))
    folder = farm.folder / "mail"
    folder.mkdir()
    subject = ["-subj", "/CN=mail", "-addext", "subjectAltName=IP:192.168.1.5", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "crt"], check=True, capture_output=True)
    (folder / "server.pem").write_text((folder / "crt").read_text() + (folder / "key").read_text())
    mail = {
        "host": "192.168.1.5", "port": 2525, "sender": "farm@studio.example", "recipients": ["artist@studio.example"],
        "authority": (folder / "crt").read_text(),
    }  # fmt: skip
    settings = {"farm_reminder_mail": mail, "farm_reminder_minutes": 0.05, "farm_prices": {"manager": 0.5, "node": 2}}
    farm.playbook("tests/integration/playbooks/reminder.yml", "-e", json.dumps(settings))
    until(lambda: "reminder: no mail through 192.168.1.5:2525" in manager_log(farm), "the manager says that it cannot")
    job = Job(farm, "mail", 2, 1)
    job.is_whole()
    inside = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(farm.folder), "--", sys.executable]
    server = [*inside, "tests/integration/mail_server.py", "192.168.1.5", "2525", str(folder)]
    with subprocess.Popen(server, stdin=subprocess.PIPE) as process:
        until(lambda: list(folder.glob("*.eml")), "a mail comes")
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
    text = (folder / "0.eml").read_text()
    assert "Subject: Render farm studio: manager and 1 node run, " in text and "USD" in text
    assert node.name in text and "ansible-playbook farm-down.yml" in text
    farm.playbook(
        "tests/integration/playbooks/reminder.yml", "-e", json.dumps({**settings, "farm_reminder_minutes": 0})
    )
    inject(farm, "rebalance", node.machine)
    node.is_gone()


def test_nothing_is_left_running(farm: Rehearsal) -> None:
    assert servers(farm) == {}
    assert {machine["name"] for machine in farm.machines()} == {"studio-manager", "workstation"}


def test_manager_that_renders_as_well(farm: Rehearsal) -> None:
    workstation = drive_of(farm, "workstation").with_name("host.json")
    assert "RenderFarm project" in workstation.read_text()
    assert farm.playbook("farm-down.yml", "-e", json.dumps(SETTINGS)).recap["studio-workstation"]["changed"] == 1
    until(lambda: "RenderFarm project" not in workstation.read_text(), "the project is copied no more")
    assert farm.playbook("farm-down.yml", "-e", json.dumps(SETTINGS)).changed == 0
    settings = json.dumps(SETTINGS | {"farm_manager_renders": True})
    farm.playbook("farm-up.yml", "-e", settings)
    own = "ip-" + MANAGER.replace(".", "-")
    until(lambda: servers(farm) == {own: "idle"}, "the manager is registered with itself")
    Job(farm, "own", 3, 1).is_whole()
    log = drive_of(farm, "studio-manager").with_name("machine.log").read_text()
    assert log.count("3dsmax.exe start with priority class 0x4000") == 3
    status = farm.playbook("playbooks/farm-status.yml", "-e", settings).log.read_text()
    assert re.search(r"studio-manager .* manager .* ready .* idle", status)
    # Its limits are not for it: nodes end after so long a time without the manager, with a hung render, or idle.
    assert {machine["name"] for machine in farm.machines()} == {"studio-manager", "workstation"}


def watches(farm: Rehearsal) -> dict[str, int]:
    """Machine -> process id of its ``farmnode watch``."""
    found = {}
    for machine in farm.machines():
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):
                words = entry.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
                if words[-3:] == ["-m", "farmnode", "watch"] and any(word.startswith(machine["c"]) for word in words):
                    found[machine["name"]] = int(entry.parent.name)
    return found


def resident(pid: int) -> float:
    """Megabytes of memory (``VmRSS`` of proc(5), in KiB)."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024 / 1e6


def processor(pid: int) -> float:
    """Seconds of processor time so far (``utime`` and ``stime`` of proc(5), the 14th and 15th word, in clock ticks)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_the_watch_takes_little_of_its_machine(farm: Rehearsal) -> None:
    """A node with the limits that farms have by themselves. (This farm's manager looks thirty times as often.)"""
    node = ready(launch(farm, "drill-light", change={"watch": {}}))
    job = Job(farm, "light", 16, 10)
    until(lambda: {node.machine, "studio-manager"} <= set(watches(farm)), "both watch")
    before = {name: (pid, processor(pid)) for name, pid in watches(farm).items()}
    began = time.monotonic()
    time.sleep(75)
    for name, (pid, spent) in before.items():
        share = (processor(pid) - spent) / (time.monotonic() - began)
        print(f"watch of {name}: {resident(pid):.1f} MB, {share:.3%} of a processor")
        assert resident(pid) < 30
        assert share < 0.01 or name != node.machine
    job.is_whole()
    inject(farm, "rebalance", node.machine)
    node.is_gone()
