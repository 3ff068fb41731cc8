"""The link's check on a whole farm: everything passes, and each thing that is broken is named.

The tests build on each other and run in their order. What is broken is broken from outside (the AWS CLI, the machines'
own programs, the rehearsal's faults); what the check says is read from what it prints.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rehearsal.proof import ProofError, Rehearsal

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
CHECK = "playbooks/link-check.yml"
LAN = "192.168.1.0/24"
FAR = ("10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("link") / "rehearsal"
    here = ["--dir", str(folder)]
    subprocess.run([sys.executable, "-m", "rehearsal", "up", *here], check=True, timeout=60)
    try:
        made = Rehearsal(folder, print)
        made.playbook("bake-ami.yml")
        route_on_controller(made, "replace")
        made.playbook("farm-up.yml", "-e", "farm_nodes=2")
        yield made
    finally:
        subprocess.run([sys.executable, "-m", "rehearsal", "down", *here], check=True, timeout=60)


def route_on_controller(farm: Rehearsal, verb: str) -> None:
    for network in FAR:
        farm.command("ip", "route", verb, network, "via", "192.168.1.10")


def inject(farm: Rehearsal, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *words], check=True, timeout=60
    )


def on_workstation(farm: Rehearsal, *words: str) -> None:
    ansible = str(Path(sys.executable).with_name("ansible"))
    farm.command(ansible, "workstation", "-m", "ansible.windows.win_command", "-a", " ".join(words))


def ec2(farm: Rehearsal, *words: str) -> str:
    """What the AWS CLI prints."""
    return farm.command(str(Path(sys.executable).with_name("aws")), "ec2", *words, "--output", "json")


def interface(farm: Rehearsal) -> str:
    filters = "Name=tag:renderfarm:role,Values=manager"
    (found,) = json.loads(ec2(farm, "describe-network-interfaces", "--filters", filters))["NetworkInterfaces"]
    return str(found["NetworkInterfaceId"])


def route_table(farm: Rehearsal) -> str:
    filters = f"Name=route.destination-cidr-block,Values={LAN}"
    (found,) = json.loads(ec2(farm, "describe-route-tables", "--filters", filters))["RouteTables"]
    return str(found["RouteTableId"])


def failure(farm: Rehearsal) -> str:
    """The whole output of a check that must fail."""
    with pytest.raises(ProofError, match="failed checks") as caught:
        farm.playbook(CHECK, "-e", "link_check_megabytes=1")
    log = re.search(r"whole output: (\S+)\)", str(caught.value))
    assert log is not None
    return Path(log[1]).read_text()


def rows(output: str) -> list[tuple[str, str, str, str, str]]:
    """check, from, to, passed, detail of each row of the table."""
    line = re.compile(r"^ +(\S+(?: \S+)*?) {2,}(\S+(?: \S+)*?) {2,}(\S+) {2,}(yes|no) {2,}(.*)$", re.MULTILINE)
    return line.findall(output)


def causes(output: str) -> list[str]:
    """The rows below 'likeliest cause', the gravest first."""
    return [
        line.strip()
        for line in output.partition("likeliest cause")[2].partition("TASK [")[0].splitlines()[2:]
        if line.strip()
    ]


@contextmanager
def broken(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    finally:
        undo()


def tunnel_stands(farm: Rehearsal) -> None:
    """Wait until the tunnel carries packets again."""
    end = time.monotonic() + 60
    while True:
        try:
            farm.command("ping", "-c", "1", "-W", "1", "10.0.0.10", on="workstation")
            return
        except ProofError:
            assert time.monotonic() < end, "the tunnel did not come back"


def test_everything_passes(farm: Rehearsal) -> None:
    step = farm.playbook(CHECK, "-e", "link_check_megabytes=100")
    found = rows(step.log.read_text())
    assert [row for row in found if row[3] == "no"] == [] and step.changed == 0
    nodes = [machine["name"] for machine in farm.machines() if machine["role"] == "render_node"]
    askers, asked = (
        ["controller", "studio-workstation", "studio-manager"],
        ["controller", "studio-workstation", "studio-manager"],
    )
    pings = {row[1:3] for row in found if row[0] == "ping"}
    assert {(one, other) for one in askers for other in asked if one != other} <= pings
    assert len([row for row in found if row[0] == "ping"]) == 3 * (2 + len(nodes))
    assert all("1372 passes, 1472 is answered" in row[4] for row in found if row[0] == "path MTU")
    transfers = [row for row in found if row[0] == "transfer"]
    assert len(transfers) == 4 and all("100 MB in" in row[4] and "SHA-256 equal" in row[4] for row in transfers)
    for machine in farm.machines():
        if machine["role"] in ("manager", "workstation"):
            host = (farm.folder / "machines" / machine["name"] / "host.json").read_text()
            assert "renderfarm-link-check" not in host


def test_two_commands_on_each_machine(farm: Rehearsal) -> None:
    def count() -> dict[str, int]:
        return {machine["name"]: machine["winrm"]["commands"] for machine in farm.machines()}

    time.sleep(1.5)  # state.json follows
    before = count()
    farm.playbook(CHECK, "-e", "link_check_megabytes=1")
    time.sleep(1.5)
    after = count()
    assert {name: after[name] - before[name] for name in ("workstation", "studio-manager")} == {
        "workstation": 2,
        "studio-manager": 2,
    }


def test_node_reaches_the_studio(farm: Rehearsal) -> None:
    """The direction that the check cannot try, from the node's own network."""
    node = next(machine["name"] for machine in farm.machines() if machine["role"] == "render_node")
    for address in ("192.168.1.5", "192.168.1.10", "10.8.0.1"):
        farm.command("ping", "-c", "2", "-W", "2", address, on=node)
    farm.command(
        sys.executable, "-c", "import socket; socket.create_connection(('192.168.1.10', 445), timeout=5)", on=node
    )


def test_source_check_is_named(farm: Rehearsal) -> None:
    change = ("modify-network-interface-attribute", "--network-interface-id", interface(farm))
    ec2(farm, *change, "--source-dest-check")
    with broken(lambda: ec2(farm, *change, "--no-source-dest-check")):
        output = failure(farm)
    assert "source/destination check is on" in causes(output)[0] and "--no-source-dest-check" in causes(output)[0]
    assert ("ping", "studio-workstation", "studio-manager", "yes") in [row[:4] for row in rows(output)]


def test_missing_vpc_route_is_named(farm: Rehearsal) -> None:
    table, card = route_table(farm), interface(farm)
    place = ("--route-table-id", table, "--destination-cidr-block", LAN)
    ec2(farm, "delete-route", *place)
    with broken(lambda: ec2(farm, "create-route", *place, "--network-interface-id", card)):
        output = failure(farm)
    assert f"VPC route missing: {table} has no route to {LAN}" in causes(output)[0]


def test_stopped_service_is_named(farm: Rehearsal) -> None:
    on_workstation(farm, "sc.exe", "stop", "OpenVPNService")
    with broken(lambda: on_workstation(farm, "sc.exe", "start", "OpenVPNService")):
        output = failure(farm)
    tunnel_stands(farm)
    assert "the OpenVPN service of studio-workstation is stopped" in causes(output)[0]


def test_missing_port_forward_is_named_with_its_line(farm: Rehearsal) -> None:
    inject(farm, "port-forward", "off")
    with broken(lambda: inject(farm, "port-forward", "on")):
        output = failure(farm)
    tunnel_stands(farm)
    assert "port forward missing" in causes(output)[0]
    assert "forward UDP port 1194 (external) to 192.168.1.10 port 1194 (internal)" in output


def test_missing_route_in_the_studio_is_named_and_the_printed_lines_mend_it(farm: Rehearsal) -> None:
    route_on_controller(farm, "del")
    lines: list[str] = []
    with broken(lambda: [farm.command(*line.split()) for line in lines] or route_on_controller(farm, "replace")):
        output = failure(farm)
        lines = re.findall(r"ip route replace \S+ via \S+", output)
    assert any("route missing in the studio (controller and its router)" in cause for cause in causes(output))
    assert len(lines) == 3
    assert [row for row in rows(farm.playbook(CHECK).log.read_text()) if row[3] == "no"] == []
