"""``python -m rehearsal prove``: rehearse a whole farm and check each promise against what is really there.

The product is run as a user runs it (``ansible-playbook bake-ami.yml`` and so on, inside the rehearsal). The checks
read the other side: the machines' own disks, the manager's text protocol, the region's record of calls, and the AWS
CLI. A check that does not hold ends the rehearsal with exit code 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rehearsal import boot_times
from rehearsal.proof_link import Link, prove_no_leaks, prove_reach, prove_winrm_shut
from rehearsal.session import ProofError, Rehearsal, Step, expect
from rehearsal.tables import text_table

PROFILE = Path("Windows/ServiceProfiles/LocalService/AppData/Local/backburner")
MANAGER = "10.0.0.10"  # farm_manager_address
FIRST_WAVE = 20  # farm_first_wave: of a larger launch so many nodes come first, and the others with a second call
# What every node sets by its name: Backburner's own ports, the mask of farm_cloud_network, and no search for a manager.
SAME_ON_ALL_NODES: Mapping[str, str] = {
    "ManagerName": MANAGER,
    "ManagerPort": "3234",
    "ServerPort": "3233",
    "NetworkMask": "255.255.255.0",
    "AutomaticSearch": "0",
}
OWN_ELEMENTS = frozenset({*SAME_ON_ALL_NODES, "ServerName"})


@dataclass
class Proof:
    """What a rehearsed farm showed."""

    nodes: int
    steps: list[Step] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)


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


def own_problems(data: bytes, name: str) -> list[str]:
    """What a node that others reach as ``name`` set to something else than it must."""
    found = own_values(data)
    wanted = {**SAME_ON_ALL_NODES, "ServerName": name}
    return [
        f"{element} is {found.get(element)!r}, expected {value!r}"
        for element, value in wanted.items()
        if found.get(element) != value
    ]


def registrations(log: str) -> dict[str, datetime]:
    """Handle of a server -> when the manager accepted it first, from the manager's backburner.log."""
    found: dict[str, datetime] = {}
    for line in log.splitlines():
        match = re.match(r"(\S+) INF .*Successful Registration.*\b([0-9A-F]{12}0000)\b", line)
        if match:
            found.setdefault(match[2], datetime.fromisoformat(match[1]))
    return found


# --------------------------------------------------------------------------------------------------------- the promises


def prove_fleet(rehearsal: Rehearsal, up: Step, nodes: int) -> str:
    launches = up.changes.count("ec2:CreateFleet")
    expected = (nodes > 0) + (nodes > FIRST_WAVE)
    expect(launches == expected, f"{nodes} nodes came from {launches} CreateFleet calls, expected {expected}")
    running = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    expect(len(running) == nodes, f"{len(running)} render nodes run, expected {nodes}")
    return f"{nodes} nodes from {launches} CreateFleet call{'s' if launches > 1 else ''}"


def prove_manager(rehearsal: Rehearsal) -> str:
    managers = [machine for machine in rehearsal.machines() if machine["role"] == "manager"]
    expect(len(managers) == 1, f"{len(managers)} managers run, expected one")
    expect(managers[0]["address"] == MANAGER, f"the manager is at {managers[0]['address']}, expected {MANAGER}")
    return f"the manager is at {MANAGER}"


def prove_identity(rehearsal: Rehearsal) -> str:
    builders = [machine for machine in rehearsal.seen.values() if machine["role"] == "builder"]
    expect(bool(builders), "no builder was seen while the image was baked")
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    image_folder = max((rehearsal.folder / "images").iterdir(), key=lambda path: path.stat().st_mtime)
    image = (image_folder / "c" / PROFILE / "backburner.xml").read_bytes()
    for node in nodes:
        data = (Path(node["c"]) / PROFILE / "backburner.xml").read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").lower()
        for builder in builders:
            # A node may have got the address that the builder had.
            for token in {*notations(builder["mac"]), builder["address"]} - {node["address"]}:
                expect(
                    not re.search(rf"(?<![0-9a-z.]){re.escape(token)}(?![0-9a-z]|\.[0-9])", text),
                    f"{node['name']}: backburner.xml still names the builder ({token})",
                )
        expect(notations(node["mac"])[0] in text.replace("-", "").replace(":", ""), f"{node['name']}: own MAC missing")
        name = "ip-" + node["address"].replace(".", "-")
        problems = own_problems(data, name)
        replaced: dict[str, str] = {}
        for builder in builders:
            replaced |= dict(zip(notations(builder["mac"]), notations(node["mac"]), strict=True))
            replaced |= {builder["computer_name"].lower(): name, builder["address"]: node["address"]}
        problems += identity_differences(image, data, replaced)
        expect(not problems, f"{node['name']}: {'; '.join(problems)}")
        expect(data[:3] == image[:3], f"{node['name']}: the encoding of backburner.xml changed")
        expect(data.count(b"\r\n") == image.count(b"\r\n"), f"{node['name']}: the line ends changed")
    return f"{len(nodes)} backburner.xml with own MAC, name and manager, all else as in the image"


def prove_registered(rehearsal: Rehearsal) -> str:
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    manager = next(machine for machine in rehearsal.machines() if machine["role"] == "manager")
    client = [sys.executable, "-m", "rehearsal.backburner.client", "127.0.0.1", "servers"]
    answer = json.loads(rehearsal.command(*client, on=manager["name"]))
    handles = {server["handle"] for server in answer}
    wanted = {notations(node["mac"])[0].upper() + "0000" for node in nodes}
    expect(handles == wanted, f"the manager lists {sorted(handles)}, expected {sorted(wanted)}")
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
        expect(bool(starts), f"{node['name']}: backburner.log tells of no start of the server")
        started = datetime.fromisoformat(starts[0]).timestamp()
        expect(
            written <= started,
            f"{node['name']}: the server started {written - started:.3f} s before its file was right",
        )
        least = min(least, started - written)
    return (
        f"each server service started after its file was right (at least {least * 1000:.0f} ms later)"
        if nodes
        else "no nodes"
    )


def prove_boot_times(rehearsal: Rehearsal) -> str:
    nodes = [machine for machine in rehearsal.machines() if machine["role"] == "render_node"]
    times = boot_times.boot_times(nodes)
    expect(len(times) == len(nodes), f"{len(times)} of {len(nodes)} nodes noted that they became ready")
    found = boot_times.line(times)
    expect(not times or boot_times.median(times) < boot_times.LIMIT, f"the nodes boot too slowly: {found}")
    return found


def _image_log(rehearsal: Rehearsal) -> str:
    image_folder = max((rehearsal.folder / "images").iterdir(), key=lambda path: path.stat().st_mtime)
    log = image_folder / "c" / PROFILE / "backburner.log"
    return log.read_text(errors="replace") if log.exists() else ""


def prove_unchanged(again: Step) -> str:
    expect(again.changed == 0, f"the second run changed something (see {again.log}): {again.recap}")
    expect(not again.changes, f"the second run made mutating AWS calls: {again.changes}")
    return "a second farm-up.yml reports changed=0 on all hosts and makes no mutating AWS call"


def prove_nothing_left(rehearsal: Rehearsal, *, images: int) -> str:
    """Ask the region with the AWS CLI, as a user would, for everything that costs money.

    :param images: as many stay, each with its snapshots: farm-down.yml keeps what was baked.
    """
    alive = "Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down"
    questions = {
        "instances": ("Reservations", "describe-instances", "--filters", alive),
        "volumes": ("Volumes", "describe-volumes"),
        "network interfaces": ("NetworkInterfaces", "describe-network-interfaces"),
        "addresses": ("Addresses", "describe-addresses"),
        "launch templates": ("LaunchTemplates", "describe-launch-templates"),
        "images": ("Images", "describe-images", "--owners", "self"),
        "snapshots": ("Snapshots", "describe-snapshots", "--owner-ids", "self"),
    }
    with ThreadPoolExecutor() as pool:  # each start of the CLI takes most of a second
        answers = pool.map(lambda question: rehearsal.aws("ec2", *question[1:])[question[0]], questions.values())
        found = dict(zip(questions, answers, strict=True))
    kept, snapshots = found.pop("images"), found.pop("snapshots")
    of_images = {
        device["Ebs"]["SnapshotId"] for image in kept for device in image["BlockDeviceMappings"] if "Ebs" in device
    }
    found["snapshots of no image"] = [item for item in snapshots if item["SnapshotId"] not in of_images]
    left = {kind: len(items) for kind, items in found.items() if items}
    expect(not left, f"after farm-down.yml there is left: {json.dumps(left)}")
    expect(len(kept) == images, f"after farm-down.yml there are {len(kept)} images, expected {images}")
    return f"nothing left but {images} image with {len(of_images)} snapshot"


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
            prove_boot_times(rehearsal),
        ]
        Link(rehearsal).pc_knows_the_way(proof.steps[-1].log.read_text(errors="replace"))
        with ThreadPoolExecutor() as pool:  # they wait for what must not answer
            proof.checks += pool.map(lambda prove: prove(rehearsal), (prove_winrm_shut, prove_reach))
        proof.machines = machine_rows(rehearsal)
        proof.steps.append(rehearsal.playbook("farm-up.yml", *farm_nodes, title="farm-up.yml again"))
        proof.checks.append(prove_unchanged(proof.steps[-1]))
        if not keep:
            proof.steps.append(rehearsal.playbook("farm-down.yml"))
            proof.checks.append(prove_nothing_left(rehearsal, images=1))
        proof.checks.append(prove_no_leaks(rehearsal))
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
