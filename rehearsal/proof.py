"""``python -m rehearsal prove``: rehearse a whole farm and check each promise against what is really there.

The product is run as a user runs it (``ansible-playbook bake-ami.yml`` and so on, inside the rehearsal). The checks
read the other side: the machines' own disks, the manager's text protocol, the region's record of calls, and the AWS
CLI. A check that does not hold ends the rehearsal with exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rehearsal.tables import text_table

PROFILE = Path("Windows/ServiceProfiles/LocalService/AppData/Local/backburner")
PLAYBOOK_SECONDS = 900  # longer than any playbook takes with a hundred nodes on two cores
FIRST_WAVE = 20  # farm_first_wave: of a larger launch so many nodes come first, and the others with a second call
OWN_ELEMENTS = frozenset({"ManagerName", "ServerName", "ManagerPort", "ServerPort", "NetworkMask"})


class ProofError(Exception):
    """A promise does not hold. The text says which, what was expected and what was found."""


@dataclass
class Step:
    """One playbook run: how long it took, what it asked of AWS, what Ansible says it did."""

    name: str
    seconds: float
    calls: int
    changes: list[str]
    recap: dict[str, dict[str, int]]
    trips: dict[str, int]  # machine -> commands that it was given over WinRM
    log: Path

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.recap.values())


@dataclass
class Proof:
    """What a rehearsed farm showed."""

    nodes: int
    steps: list[Step] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)


def parse_recap(output: str) -> dict[str, dict[str, int]]:
    """Read the ``PLAY RECAP`` of ansible-playbook: host -> counter -> number.

    :raises ProofError: the output has no recap, so the playbook did not run to its end.
    """
    _, found, recap = output.rpartition("PLAY RECAP")
    if not found:
        raise ProofError("ansible-playbook ended without its recap")
    return {
        host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counters)}
        for host, counters in re.findall(r"^(\S+)\s+: (ok=.*)$", recap, re.MULTILINE)
    }


def notations(mac: str) -> tuple[str, ...]:
    """The ways in which Windows programs write a MAC, in lower case."""
    digits = re.sub("[^0-9a-f]", "", mac.lower())
    pairs = [digits[start : start + 2] for start in range(0, 12, 2)]
    return digits, ":".join(pairs), "-".join(pairs)


def texts(data: bytes) -> Iterator[tuple[str, str]]:
    """Each element's path with its text, and each attribute, of an XML file, in the order of the file."""

    def walk(element: ElementTree.Element, path: str) -> Iterator[tuple[str, str]]:
        place = f"{path}/{element.tag}"
        yield place, element.text or ""
        for name, value in element.attrib.items():
            yield f"{place}@{name}", value
        for child in element:
            yield from walk(child, place)

    yield from walk(ElementTree.fromstring(data), "")


def identity_differences(image: bytes, node: bytes, replaced: Mapping[str, str]) -> list[str]:
    """What in a node's backburner.xml is not the image's with ``replaced`` (old lower-case token -> new) applied.

    The elements that a node sets by their name are left out; their values are checked on their own.
    """
    before, after = list(texts(image)), list(texts(node))
    if [place for place, _ in before] != [place for place, _ in after]:
        return ["the elements are not the same or not in the same order"]
    problems = []
    for (place, old), (_, new) in zip(before, after, strict=True):
        if place.rsplit("/", 1)[1] in OWN_ELEMENTS:
            continue
        expected = old.lower()
        for token, value in replaced.items():
            expected = expected.replace(token, value.lower())
        if new.lower() != expected:
            problems.append(f"{place} is {new!r}, expected {expected!r}")
    return problems


def own_values(data: bytes) -> dict[str, str]:
    """The values of the elements that a node sets by their name."""
    return {
        place.rsplit("/", 1)[1]: text.strip() for place, text in texts(data) if place.rsplit("/", 1)[1] in OWN_ELEMENTS
    }


def registrations(log: str) -> dict[str, datetime]:
    """Handle of a server -> when the manager accepted it first, from the manager's backburner.log."""
    found: dict[str, datetime] = {}
    for line in log.splitlines():
        match = re.match(r"(\S+) INF .*Successful Registration.*\b([0-9A-F]{12}0000)\b", line)
        if match:
            found.setdefault(match[2], datetime.fromisoformat(match[1]))
    return found


class Rehearsal:
    """A rehearsal in its folder, as the user's commands see it."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self._inside = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(folder)]
        self.seen: dict[str, dict[str, Any]] = {}
        self.peak_kilobytes = 0
        self._count = 0

    # ------------------------------------------------------------------------------------------------- the other side

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def machines(self) -> list[dict[str, Any]]:
        machines: list[dict[str, Any]] = self.state()["machines"]
        return machines

    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "cloud.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def sample(self) -> None:
        """Remember every machine that is there now, and the most memory that rehearsal and playbook held together."""
        state = self.state()
        for machine in state["machines"]:
            known = {name: value for name, value in machine.items() if value is not None}
            self.seen.setdefault(machine["instance_id"] or machine["name"], {}).update(known)
        self.peak_kilobytes = max(self.peak_kilobytes, memory_of({os.getpid(), state["daemon_pid"]}))

    # ------------------------------------------------------------------------------------------------ the user's side

    def command(self, *arguments: str, on: str | None = None, timeout: float = 120.0) -> str:
        """Run a command of the user, on the controller or ``on`` another machine's network; returns what it printed.

        :raises ProofError: it failed; its error output is in the text.
        """
        place = ["--on", on] if on else []
        done = subprocess.run(
            [*self._inside, *place, "--", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise ProofError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def aws(self, *arguments: str) -> Any:
        """What the AWS CLI answers, decoded."""
        return json.loads(self.command(_beside_python("aws"), *arguments, "--output", "json"))

    def playbook(self, name: str, *arguments: str, title: str | None = None) -> Step:
        """Run one playbook, show where it is, and return what it did.

        :raises ProofError: it failed; the end of its output is in the text and the whole of it in the log.
        """
        self._count += 1
        title = title or name
        log = self.folder / "logs" / f"{self._count:02d}-{Path(name).stem}.log"
        log.parent.mkdir(exist_ok=True)
        before, given = len(self.calls()), self._trips()
        started = time.monotonic()
        with log.open("wb") as stream, self._watching(title, log):
            done = subprocess.run(
                [*self._inside, "--", _beside_python("ansible-playbook"), name, *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=PLAYBOOK_SECONDS,
                check=False,
            )
        seconds = time.monotonic() - started
        output = log.read_text(errors="replace")
        if done.returncode:
            tail = "\n".join(output.splitlines()[-60:])
            raise ProofError(f"{name} ended with {done.returncode} (whole output: {log}):\n{tail}")
        calls = self.calls()[before:]
        step = Step(
            title,
            seconds,
            len(calls),
            [f"{call['service']}:{call['action']}" for call in calls if call["mutating"]],
            parse_recap(output),
            {name: count - given.get(name, 0) for name, count in self._trips().items() if count > given.get(name, 0)},
            log,
        )
        self.say(f"  {title}: {seconds:.0f} s, {step.calls} AWS calls ({len(step.changes)} of them change something)")
        return step

    def _trips(self) -> dict[str, int]:
        return {machine["name"]: machine["winrm"]["commands"] for machine in self.seen.values() if "winrm" in machine}

    @contextmanager
    def _watching(self, title: str, log: Path) -> Iterator[None]:
        """Sample the machines each second meanwhile, and show the running task on a terminal."""
        ended = threading.Event()
        live = sys.stdout.isatty()
        started = time.monotonic()

        def watch() -> None:
            while not ended.wait(1.0):
                self.sample()
                if live:
                    tasks = re.findall(r"^(?:TASK|PLAY) \[(.*?)\]", log.read_text(errors="replace"), re.MULTILINE)
                    text = f"  {title}: {time.monotonic() - started:.0f} s  {tasks[-1] if tasks else ''}"
                    print(f"\r{text[:110]:<110}", end="", flush=True)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.sample()
            if live:
                print("\r" + " " * 112 + "\r", end="", flush=True)


def memory_of(roots: set[int]) -> int:
    """KiB of memory that ``roots`` and all of their descendants hold, each page once (``Pss`` of proc(5))."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    family = set(roots)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    total = 0
    for pid in family:
        try:
            match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(match[1]) if match else 0
    return total


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).parent / program)


def _expect(condition: bool, text: str) -> None:
    if not condition:
        raise ProofError(text)


# --------------------------------------------------------------------------------------------------------- the promises


def prove_fleet(rehearsal: Rehearsal, up: Step, nodes: int) -> str:
    launches = up.changes.count("ec2:CreateFleet")
    expected = (nodes > 0) + (nodes > FIRST_WAVE)
    _expect(launches == expected, f"{nodes} nodes came from {launches} CreateFleet calls, expected {expected}")
    running = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    _expect(len(running) == nodes, f"{len(running)} render nodes run, expected {nodes}")
    return f"{nodes} nodes from {launches} CreateFleet call{'s' if launches > 1 else ''}"


def prove_manager(rehearsal: Rehearsal) -> str:
    managers = [machine for machine in rehearsal.machines() if machine["role"] == "manager"]
    _expect(len(managers) == 1, f"{len(managers)} managers run, expected one")
    _expect(managers[0]["address"] == "10.0.0.10", f"the manager is at {managers[0]['address']}, expected 10.0.0.10")
    return "the manager is at 10.0.0.10"


def prove_identity(rehearsal: Rehearsal) -> str:
    builders = [machine for machine in rehearsal.seen.values() if machine["role"] == "builder"]
    _expect(bool(builders), "no builder was seen while the image was baked")
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    image_folder = max((rehearsal.folder / "images").iterdir(), key=lambda path: path.stat().st_mtime)
    image = (image_folder / "c" / PROFILE / "backburner.xml").read_bytes()
    for node in nodes:
        data = (Path(node["c"]) / PROFILE / "backburner.xml").read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").lower()
        for builder in builders:
            for token in (*notations(builder["mac"]), builder["address"]):
                _expect(
                    not re.search(rf"(?<![0-9a-z.]){re.escape(token)}(?![0-9a-z]|\.[0-9])", text),
                    f"{node['name']}: backburner.xml still names the builder ({token})",
                )
        _expect(notations(node["mac"])[0] in text.replace("-", "").replace(":", ""), f"{node['name']}: own MAC missing")
        own = own_values(data)
        name = "ip-" + node["address"].replace(".", "-")
        _expect(own.get("ManagerName") == "10.0.0.10", f"{node['name']}: ManagerName is {own.get('ManagerName')!r}")
        _expect(own.get("ServerName") == name, f"{node['name']}: ServerName is {own.get('ServerName')!r}, not {name}")
        replaced: dict[str, str] = {}
        for builder in builders:
            replaced |= dict(zip(notations(builder["mac"]), notations(node["mac"]), strict=True))
            replaced |= {builder["computer_name"].lower(): name, builder["address"]: node["address"]}
        problems = identity_differences(image, data, replaced)
        _expect(not problems, f"{node['name']}: {'; '.join(problems)}")
        _expect(data[:3] == image[:3], f"{node['name']}: the encoding of backburner.xml changed")
        _expect(data.count(b"\r\n") == image.count(b"\r\n"), f"{node['name']}: the line ends changed")
    return f"{len(nodes)} backburner.xml with own MAC, name and manager, all else as in the image"


def prove_registered(rehearsal: Rehearsal) -> str:
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    manager = next(machine for machine in rehearsal.machines() if machine["role"] == "manager")
    client = [sys.executable, "-m", "rehearsal.backburner.client", "127.0.0.1", "servers"]
    answer = json.loads(rehearsal.command(*client, on=manager["name"]))
    handles = {server["handle"] for server in answer}
    wanted = {notations(node["mac"])[0].upper() + "0000" for node in nodes}
    _expect(handles == wanted, f"the manager lists {sorted(handles)}, expected {sorted(wanted)}")
    return f"the manager lists {len(handles)} different servers, each by its own MAC"


def prove_order(rehearsal: Rehearsal) -> str:
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    least = float("inf")
    for node in nodes:
        folder = Path(node["c"]) / PROFILE
        written = (folder / "backburner.xml").stat().st_mtime
        log = (folder / "backburner.log").read_text(errors="replace")
        image_lines = _image_log(rehearsal)
        own = log[len(image_lines) :] if log.startswith(image_lines) else log
        starts = re.findall(r"^(\S+) INF .*[Ss]erver .*start", own, re.MULTILINE)
        _expect(bool(starts), f"{node['name']}: backburner.log tells of no start of the server")
        started = datetime.fromisoformat(starts[0]).timestamp()
        _expect(
            written <= started,
            f"{node['name']}: the server started {written - started:.3f} s before its file was right",
        )
        least = min(least, started - written)
    return (
        f"each server service started after its file was right (at least {least * 1000:.0f} ms later)"
        if nodes
        else "no nodes"
    )


def _image_log(rehearsal: Rehearsal) -> str:
    image_folder = max((rehearsal.folder / "images").iterdir(), key=lambda path: path.stat().st_mtime)
    log = image_folder / "c" / PROFILE / "backburner.log"
    return log.read_text(errors="replace") if log.exists() else ""


def prove_unchanged(again: Step) -> str:
    _expect(again.changed == 0, f"the second run changed something (see {again.log}): {again.recap}")
    _expect(not again.changes, f"the second run made mutating AWS calls: {again.changes}")
    return "a second farm-up.yml reports changed=0 on all hosts and makes no mutating AWS call"


def prove_nothing_left(rehearsal: Rehearsal) -> str:
    """Ask the region with the AWS CLI, as a user would, for everything that costs money."""
    alive = "Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down"
    found = {
        "instances": rehearsal.aws("ec2", "describe-instances", "--filters", alive)["Reservations"],
        "volumes": rehearsal.aws("ec2", "describe-volumes")["Volumes"],
        "network interfaces": rehearsal.aws("ec2", "describe-network-interfaces")["NetworkInterfaces"],
        "addresses": rehearsal.aws("ec2", "describe-addresses")["Addresses"],
        "launch templates": rehearsal.aws("ec2", "describe-launch-templates")["LaunchTemplates"],
    }
    images = rehearsal.aws("ec2", "describe-images", "--owners", "self")["Images"]
    of_images = {
        device["Ebs"]["SnapshotId"] for image in images for device in image["BlockDeviceMappings"] if "Ebs" in device
    }
    snapshots = rehearsal.aws("ec2", "describe-snapshots", "--owner-ids", "self")["Snapshots"]
    found["snapshots of no image"] = [item for item in snapshots if item["SnapshotId"] not in of_images]
    left = {kind: len(items) for kind, items in found.items() if items}
    _expect(not left, f"after farm-down.yml there is left: {json.dumps(left)}")
    return f"nothing left but {len(images)} image with {len(of_images)} snapshot"


# -------------------------------------------------------------------------------------------------------------- the run


def machine_rows(rehearsal: Rehearsal) -> list[dict[str, str]]:
    """One row for each running machine of the farm, with the seconds from its launch to its registration."""
    machines = sorted(rehearsal.machines(), key=lambda machine: str(machine["name"]))
    manager = next(machine for machine in machines if machine["role"] == "manager")
    times = registrations((Path(manager["c"]) / PROFILE / "backburner.log").read_text(errors="replace"))
    rows = []
    for machine in machines:
        registered = times.get(notations(machine["mac"])[0].upper() + "0000")
        rows.append(
            {
                "machine": machine["name"],
                "instance id": machine["instance_id"] or "-",
                "role": machine["role"],
                "type": machine["type"] or "-",
                "lifecycle": machine["lifecycle"] or "-",
                "address": machine["address"],
                "MAC": machine["mac"],
                "registered": "yes" if registered else "-",
                "seconds": f"{registered.timestamp() - machine['launch_time']:.1f}" if registered else "-",
            }
        )
    return rows


def prove(folder: Path, nodes: int, *, keep: bool, say: Callable[[str], None] = print) -> int:
    """Rehearse a farm of ``nodes`` render nodes in ``folder``; returns the exit code.

    :param keep: leave the rehearsal with the farm up, to look around in it.
    """
    started = time.monotonic()
    proof = Proof(nodes)
    here = ["--dir", str(folder)]
    up = subprocess.run([sys.executable, "-m", "rehearsal", "up", *here], check=False)
    if up.returncode:
        return up.returncode
    rehearsal = Rehearsal(folder, say)
    farm_nodes = ["-e", f"farm_nodes={nodes}"]
    try:
        say(f"Rehearsing a farm of {nodes} render nodes; nothing of it costs anything.")
        proof.steps.append(rehearsal.playbook("bake-ami.yml"))
        proof.steps.append(rehearsal.playbook("farm-up.yml", *farm_nodes))
        proof.checks += [
            prove_manager(rehearsal),
            prove_fleet(rehearsal, proof.steps[-1], nodes),
            prove_registered(rehearsal),
            prove_identity(rehearsal),
            prove_order(rehearsal),
        ]
        proof.machines = machine_rows(rehearsal)
        proof.steps.append(rehearsal.playbook("farm-up.yml", *farm_nodes, title="farm-up.yml again"))
        proof.checks.append(prove_unchanged(proof.steps[-1]))
        if not keep:
            proof.steps.append(rehearsal.playbook("farm-down.yml"))
            proof.checks.append(prove_nothing_left(rehearsal))
    except ProofError as error:
        for check in proof.checks:
            say(f"  ok    {check}")
        say(f"  FAIL  {error}")
        return 1
    finally:
        if not keep:
            subprocess.run([sys.executable, "-m", "rehearsal", "down", *here], check=False)
    say("")
    for check in proof.checks:
        say(f"  ok    {check}")
    say("")
    say(text_table(proof.machines))
    say("")
    say(text_table([_step_row(step) for step in proof.steps]))
    say("")
    say(f"{nodes} nodes in {time.monotonic() - started:.0f} s; peak memory {rehearsal.peak_kilobytes / 1024:.0f} MB.")
    if keep:
        say(f"The farm is up: python -m rehearsal status {' '.join(here)}; end it: python -m rehearsal down")
    else:
        say("Next: the same on AWS, see README.md (from rehearsal to a real account).")
    return 0


def _step_row(step: Step) -> dict[str, str]:
    return {
        "playbook": step.name,
        "seconds": f"{step.seconds:.0f}",
        "AWS calls": str(step.calls),
        "that change": str(len(step.changes)),
        "changed tasks": str(step.changed),
        "WinRM round trips": ", ".join(f"{name} {count}" for name, count in sorted(step.trips.items())) or "-",
    }
