"""The link on a whole farm: its check names each thing that is broken, and its roles restart only what they must.

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehearsal.secrets_proof import prove_no_secrets
from rehearsal.session import ProofError, Rehearsal, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
CHECK = "playbooks/link-check.yml"
LAN = "192.168.1.0/24"
FAR = ("10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("link") / "rehearsal"
    with rehearsing(folder, print) as made:
        made.playbook("bake-ami.yml")
        route_on_controller(made, "replace")
        made.playbook("farm-up.yml", "-e", "farm_nodes=2", "-e", "farm_remote_nodes=1")
        yield made


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


def remote_node(farm: Rehearsal) -> str:
    (name,) = [machine["name"] for machine in farm.machines() if machine["role"] == "remote_node"]
    return str(name)


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
    askers = ["controller", "studio-workstation", "studio-manager", remote_node(farm)]
    pings = {row[1:3] for row in found if row[0] == "ping"}
    assert {(one, other) for one in askers for other in askers if one != other} <= pings
    assert len([row for row in found if row[0] == "ping"]) == len(askers) * (len(askers) - 1 + len(nodes))
    assert all("1372 passes, 1472 is answered" in row[4] for row in found if row[0] == "path MTU")
    transfers = [row for row in found if row[0] == "transfer"]
    assert len(transfers) == 6 and all("100 MB in" in row[4] and "SHA-256 equal" in row[4] for row in transfers)
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


# ---------------------------------------------------------------------- the status when those who are asked say nothing


def status(farm: Rehearsal) -> tuple[str, str]:
    """What farm-status.yml prints, and its line about the silent manager; the rest of it must be there as well."""
    log = farm.playbook("playbooks/farm-status.yml", "-e", r"farm_project_folder=C:\Projects").log.read_text()
    for machine in farm.machines():
        if machine["instance_id"]:
            backburner = "-" if machine["role"] == "manager" else "unknown"
            row = rf"{machine['instance_id']} .* running .* ready +\S+ \S+ +{backburner} "
            assert re.search(row, log), machine["name"]
    assert re.search(r"Machines: \d+\.\d\d USD so far", log) and "last words" in log
    text = re.sub(r"\s+", " ", log)
    line = re.search(r"msg: '(The manager does not answer: .*?)' TASK", text)
    assert line is not None
    return text, line[1]


def test_status_when_backburner_manager_is_stopped(farm: Rehearsal) -> None:
    def service(state: str) -> None:
        module = ["-m", "ansible.windows.win_service", "-a", f"name=BACKBURNER_MGR_200 state={state}"]
        farm.command(str(Path(sys.executable).with_name("ansible")), "manager", *module)

    service("stopped")
    with broken(lambda: service("started")):
        _, line = status(farm)
    assert "no list of servers from the manager at 127.0.0.1:3234" in line and "farm-up.yml starts it again" in line


def test_status_when_neither_manager_nor_workstation_can_be_reached(farm: Rehearsal) -> None:
    inject(farm, "winrm-lost", "workstation")
    inject(farm, "winrm-lost", "studio-manager")
    with broken(lambda: [inject(farm, "repair", name) for name in ("workstation", "studio-manager")]):
        text, line = status(farm)
    assert "Connection to 10.0.0.10 timed out" in line and "playbooks/link-check.yml" in line
    project = re.search(r"Project C:\\+Projects: the workstation does not say how its last copy went: .*?TASK", text)
    assert project is not None and "Connection to 192.168.1.10 timed out" in project[0]


def test_status_when_the_first_boot_of_the_manager_told_no_password(farm: Rehearsal) -> None:
    (manager,) = [machine for machine in farm.machines() if machine["role"] == "manager"]
    password = farm.folder / "controller/hosts" / manager["instance_id"] / "password"
    hidden = password.rename(password.with_name("hidden"))
    with broken(lambda: hidden.rename(password)):
        _, line = status(farm)
    assert "/password': File not found" in line.replace("''", "'")


# ------------------------------------------------------------------------------- what is restarted, and who is cut off

RENEW, REVOKE = "playbooks/vpn-renew.yml", "playbooks/vpn-revoke.yml"
SERVER = "tests/integration/playbooks/vpn_server.yml"
LOGS = Path("Program Files/OpenVPN/log")
STUDIO, GATEWAY = ("workstation", "studio"), ("studio-manager", "studio")
REMOTE_SERVER, REMOTE_NODE = ("studio-manager", "remote"), ("remote node", "remote")


@dataclass(frozen=True)
class Running:
    """An OpenVPN process, and how often its log says that a session began."""

    pid: int
    sessions: int


def drive(farm: Rehearsal, name: str) -> Path:
    name = remote_node(farm) if name == REMOTE_NODE[0] else name
    return next(Path(machine["c"]) for machine in farm.machines() if machine["name"] == name)


def log_of(farm: Rehearsal, end: tuple[str, str]) -> str:
    return (drive(farm, end[0]) / LOGS / f"{end[1]}.log").read_text(errors="replace")


def running(farm: Rehearsal) -> dict[tuple[str, str], Running]:
    """Each OpenVPN process of the farm: (machine, tunnel) -> process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = entry.read_bytes().decode().split("\0")
            log = next((Path(word) for word in words if word.endswith(".log")), None)
            if Path(words[0]).name == "openvpn" and log is not None and log.is_relative_to(farm.folder):
                machine = log.relative_to(farm.folder / "machines").parts[0]
                end = (REMOTE_NODE[0] if machine == remote_node(farm) else machine, log.stem)
                sessions = log.read_text(errors="replace").count("Peer Connection Initiated")
                found[end] = Running(int(entry.parent.name), sessions)
    assert sorted(found) == sorted([STUDIO, GATEWAY, REMOTE_SERVER, REMOTE_NODE])
    return found


def restarted(before: dict[tuple[str, str], Running], after: dict[tuple[str, str], Running]) -> set[tuple[str, str]]:
    return {end for end in before if before[end].pid != after[end].pid}


def test_second_run_of_the_roles_restarts_nothing_and_drops_no_session(farm: Rehearsal) -> None:
    before = running(farm)
    assert farm.playbook(RENEW).changed == 0
    assert running(farm) == before


def test_another_client_restarts_nothing(farm: Rehearsal) -> None:
    before = running(farm)
    clients = [
        {"name": "aws-gateway", "address": "10.8.0.2", "networks": ["10.0.0.0/24", "10.9.0.0/24"]},
        {"name": "another-gateway", "address": "10.8.0.3", "networks": []},
    ]
    assert farm.playbook(SERVER, "-e", json.dumps({"openvpn_server_clients": clients})).changed == 1
    assert running(farm) == before


def test_another_setting_restarts_the_process_that_has_it(farm: Rehearsal) -> None:
    """And the way back removes the other client."""
    before = running(farm)
    farm.playbook(SERVER, "-e", json.dumps({"openvpn_server_networks": [LAN, "192.168.77.0/24"]}))
    tunnel_stands(farm)
    after = running(farm)
    assert restarted(before, after) == {STUDIO}
    assert after[REMOTE_SERVER] == before[REMOTE_SERVER]
    farm.playbook(RENEW)
    tunnel_stands(farm)
    entries = drive(farm, "workstation") / "Program Files/OpenVPN/config-auto/ccd-studio"
    assert [path.name for path in entries.iterdir()] == ["aws-gateway"]


def test_new_certificates_reach_the_second_server_and_the_remote_node(farm: Rehearsal) -> None:
    before = running(farm)
    step = farm.playbook(RENEW, "-e", "vpn_renew_name=remote-1,aws-gateway-server", "-vvv", "--diff")
    # Windows' service runs all tunnels of a machine
    assert restarted(before, running(farm)) == {GATEWAY, REMOTE_SERVER, REMOTE_NODE}
    farm.command("ping", "-c", "1", "-W", "5", "10.9.0.2", on="studio-manager")
    for end, name in ((REMOTE_SERVER, "aws-gateway-server"), (REMOTE_NODE, "remote-1")):
        configuration = (drive(farm, end[0]) / f"Program Files/OpenVPN/config-auto/{end[1]}.ovpn").read_text()
        certificate = (farm.folder / f"controller/pki/{name}.crt").read_text()
        assert certificate.strip() in configuration.replace("\r\n", "\n")
    assert step.recap["studio-workstation"]["changed"] == 0


def test_no_secret_is_where_it_does_not_belong(farm: Rehearsal) -> None:
    print(prove_no_secrets(farm))


def test_revoked_remote_node_is_cut_off_by_the_manager_at_once(farm: Rehearsal) -> None:
    farm.playbook(REVOKE, "-e", "vpn_revoke_name=remote-1")
    end = time.monotonic() + 20
    while "certificate revoked: CN=remote-1" not in log_of(farm, REMOTE_SERVER) and time.monotonic() < end:
        time.sleep(0.2)
    assert "VERIFY ERROR: depth=0, error=certificate revoked: CN=remote-1" in log_of(farm, REMOTE_SERVER)
    with pytest.raises(ProofError):
        farm.command("ping", "-c", "1", "-W", "2", "10.9.0.2", on="studio-manager")
    tunnel_stands(farm)


def test_revoked_gateway_gets_another_certificate_over_the_internet(farm: Rehearsal) -> None:
    """Without its tunnel: the manager's WinRM is opened for the studio, and shut again. The remote node has none."""
    farm.playbook(REVOKE, "-e", "vpn_revoke_name=aws-gateway")
    with pytest.raises(ProofError):
        farm.command("ping", "-c", "1", "-W", "2", "10.0.0.10", on="workstation")
    with pytest.raises(ProofError, match=f"No tunnel leads to {remote_node(farm)}"):
        farm.playbook(RENEW, "-e", "vpn_renew_name=aws-gateway,remote-1")
    farm.command("ping", "-c", "1", "-W", "2", "10.0.0.10", on="workstation")
    manager = next(machine for machine in farm.machines() if machine["role"] == "manager")
    knock = "import socket, sys; socket.create_connection((sys.argv[1], 5986), timeout=3)"
    with pytest.raises(ProofError, match=r"TimeoutError|timed out"):
        farm.command(sys.executable, "-c", knock, str(manager["public_address"]))
