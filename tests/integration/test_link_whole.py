"""A whole farm with a remote node, and both sides as the server: everybody reaches everybody, nothing leaks.

The tests build on each other and run in their order: a studio without a port forward is refused with the cause named,
then has the server in the cloud; then the forward comes and the studio serves; then the tunnel goes down.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal import proof, proof_link
from rehearsal.cli import place
from rehearsal.proof_link import CLOUD, LAN, Link, Point
from rehearsal.session import ProofError, Rehearsal, Step, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
ROOT = Path(__file__).resolve().parents[2]
WANTED = ("-e", "farm_nodes=2", "-e", "farm_remote_nodes=1")
CLOUD_SIDE = ("-e", "farm_vpn_server_side=cloud")
TRANSFER = 100_000_000
LOOP_COUNTER = """
table inet loops {
  counter came {
  }
  chain watch {
    type filter hook prerouting priority -400;
    iifname "eth0" ip daddr 192.168.1.20 icmp type echo-request counter name "came"
  }
}
"""
ALIVE = "Name=instance-state-name,Values=pending,running,stopping,stopped"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("whole") / "rehearsal"
    with rehearsing(folder, print) as made:
        made.playbook("bake-ami.yml")
        inject(made, "port-forward", "off")
        yield made


def inject(farm: Rehearsal, *words: str) -> None:
    command = [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *words]
    subprocess.run(command, check=True, timeout=60)


def named(farm: Rehearsal, role: str) -> str:
    return next(str(machine["name"]) for machine in farm.machines() if machine["role"] == role)


def instances(farm: Rehearsal, role: str) -> list[dict[str, object]]:
    filters = ("--filters", ALIVE, f"Name=tag:renderfarm:role,Values={role}")
    found = farm.aws("ec2", "describe-instances", *filters)["Reservations"]
    return [instance for reservation in found for instance in reservation["Instances"]]


def everything_works(farm: Rehearsal, up: Step) -> None:
    proof_link.prove_winrm_shut(farm)
    Link(farm).pc_knows_the_way(up.log.read_text())
    assert proof_link.prove_reach(farm).startswith("30 pairs")  # PC, workstation, manager, two nodes, remote node
    proof_link.prove_no_leaks(farm)


def transfers(farm: Rehearsal, one: str, other: str, address: str) -> list[dict[str, object]]:
    """What ``one`` sends to ``other`` and then receives from it, as it saw it. Both compare SHA-256."""
    command = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(farm.folder), "--on", other, "--"]
    listen = "from farmnode import transfer; transfer.listen(2, limit=120, opened=lambda port: print(port, flush=True))"
    client = f"""
import base64
import json
from farmnode import transfer
print(json.dumps([transfer.client({address!r}, transfer.PORT, direction, {TRANSFER}, patience=10).as_json()
                  for direction in ("send", "receive")]))
"""
    with subprocess.Popen([*command, sys.executable, "-c", listen], stdout=subprocess.PIPE, cwd=ROOT) as listener:
        assert listener.stdout is not None and listener.stdout.readline()
        answer = farm.command(sys.executable, "-c", client, on=one)
    results: list[dict[str, object]] = json.loads(answer)
    return results


def whole_transfers(farm: Rehearsal) -> None:
    """100 MB each way between the PC, which nobody installed anything on, and a node that has no WinRM."""
    for result in transfers(farm, named(farm, "render_node"), "pc", "192.168.1.20"):
        assert result["ok"] and result["bytes"] == TRANSFER, result


# --- a port that is not there


def test_linux_workstation_cannot_dial_and_nothing_is_created(farm: Rehearsal, tmp_path: Path) -> None:
    inventory = tmp_path / "linux.yml"
    inventory.write_text("all: {children: {workstation_linux: {hosts: {studio-workstation: }}}}\n")
    before = len(farm.calls())
    with pytest.raises(ProofError, match=r"studio-workstation is a workstation with\s+Linux"):
        farm.playbook(
            "farm-up.yml", "-i", "inventory", "-i", str(farm.folder / "inventory"), "-i", str(inventory), *CLOUD_SIDE
        )
    assert not [call for call in farm.calls()[before:] if call["mutating"]]


def test_missing_port_forward_ends_farm_up_with_cause_and_remedy(farm: Rehearsal) -> None:
    with pytest.raises(ProofError, match="failed checks") as caught:
        farm.playbook("farm-up.yml", *WANTED, "-e", "studio_link_limit=20")
    output = Path(re.findall(r"whole output: (\S+)\)", str(caught.value))[0]).read_text()
    wanted = "forward UDP port 1194 (external) to 192.168.1.10 port 1194 (internal)"
    assert wanted in output.partition("See whether the tunnel stands")[0]  # said before it was waited for
    assert "port forward missing" in output and "Configure Backburner Manager" not in output
    assert instances(farm, "render_node") == []  # nothing that has no use was bought


# --- the server in the cloud


def test_studio_without_a_port_forward_dials_the_cloud(farm: Rehearsal) -> None:
    up = farm.playbook("farm-up.yml", *WANTED, *CLOUD_SIDE)
    assert "port forward, needed" not in up.log.read_text()
    everything_works(farm, up)


def test_second_run_with_the_server_in_the_cloud_changes_nothing(farm: Rehearsal) -> None:
    proof.prove_unchanged(farm.playbook("farm-up.yml", *WANTED, *CLOUD_SIDE))


def test_100_mb_each_way_with_the_server_in_the_cloud(farm: Rehearsal) -> None:
    whole_transfers(farm)


# --- the server in the studio


def test_server_moves_to_the_studio(farm: Rehearsal) -> None:
    inject(farm, "port-forward", "on")
    everything_works(farm, farm.playbook("farm-up.yml", *WANTED))


def test_second_run_with_the_server_in_the_studio_changes_nothing(farm: Rehearsal) -> None:
    proof.prove_unchanged(farm.playbook("farm-up.yml", *WANTED))


def test_100_mb_each_way_with_the_server_in_the_studio(farm: Rehearsal) -> None:
    whole_transfers(farm)


# --- remote nodes


def test_remote_node_has_a_certificate_of_its_own_and_no_open_port(farm: Rehearsal) -> None:
    (node,) = instances(farm, "remote_node")
    vpcs = {instance["VpcId"] for instance in instances(farm, "manager")}
    assert node["VpcId"] not in vpcs
    machine = next(machine for machine in farm.machines() if machine["role"] == "remote_node")
    folder = Path(machine["c"]) / "Program Files/OpenVPN/config-auto"
    assert [path.name for path in folder.glob("*.ovpn")] == ["remote.ovpn"]
    certificate = (farm.folder / "controller/pki/remote-1.crt").read_text().strip()
    text = (folder / "remote.ovpn").read_text().replace("\r", "")
    assert certificate in text
    assert re.search(
        rf"^remote ec2-\S+\.amazonaws\.com 1195$.*^local {machine['address']}$", text, re.MULTILINE | re.DOTALL
    )
    listed = farm.aws("ec2", "describe-security-groups", "--filters", "Name=tag:renderfarm:role,Values=remote_node")
    assert [group["IpPermissions"] for group in listed["SecurityGroups"]] == [[]]
    data = farm.aws(
        "ec2", "describe-instance-attribute", "--instance-id", str(node["InstanceId"]), "--attribute", "userData"
    )
    assert "PRIVATE KEY" not in base64.b64decode(data["UserData"]["Value"]).decode()


def test_fewer_remote_nodes_are_only_announced(farm: Rehearsal) -> None:
    (before,) = instances(farm, "remote_node")
    step = farm.playbook("farm-up.yml", "-e", "farm_nodes=2", "-e", "farm_remote_nodes=0")
    assert re.search(rf"Too many: {before['InstanceId']}.*-e farm_remove=true", step.log.read_text())
    assert [node["InstanceId"] for node in instances(farm, "remote_node")] == [before["InstanceId"]]
    proof_link.prove_reach(farm)


# --- the tunnel goes down


def openvpn_of(farm: Rehearsal, machine: str) -> list[int]:
    """The processes of OpenVPN in a machine's network."""
    network = place(farm.state(), machine).stat()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            own = (entry / "ns/net").stat()
            here = (own.st_dev, own.st_ino) == (network.st_dev, network.st_ino)
            if here and (entry / "comm").read_text().strip() == "openvpn":
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def service_of_workstation(farm: Rehearsal, verb: str) -> None:
    ansible = str(Path(sys.executable).with_name("ansible"))
    farm.command(ansible, "workstation", "-m", "ansible.windows.win_command", "-a", f"sc.exe {verb} OpenVPNService")


def crossings(found: list[Point], seen: dict[str, dict[str, dict[str, object]]]) -> tuple[list[str], list[str]]:
    """Who reaches the other side, and who does not reach his own."""
    across, within = [], []
    for source in found:
        for target in found:
            if source == target:
                continue
            answer = seen[source.name][target.target]
            pair = f"{source.name} -> {target.name}: {answer}"
            if (source.segment == LAN) != (target.segment == LAN):
                across += [pair] if answer["ping"] or answer["tcp"] == "open" else []
            elif not (answer["ping"] and answer["tcp"] == "open"):
                within.append(pair)
    return across, within


def loops_of_one_packet(farm: Rehearsal) -> int:
    """How often one echo request of a node for the studio comes to the manager."""
    manager, rules = named(farm, "manager"), farm.folder / "loops.nft"
    rules.write_text(LOOP_COUNTER)
    farm.command("nft", "-f", str(rules), on=manager)
    try:
        with pytest.raises(ProofError):
            farm.command("ping", "-c", "1", "-W", "1", "192.168.1.20", on=named(farm, "render_node"))
        listed = json.loads(farm.command("nft", "-j", "list", "counter", "inet", "loops", "came", on=manager))
    finally:
        farm.command("nft", "delete", "table", "inet", "loops", on=manager)
    return next(int(entry["counter"]["packets"]) for entry in listed["nftables"] if "counter" in entry)


@pytest.mark.parametrize("dead", ["server", "both"])
def test_without_the_tunnel_nothing_leaks_or_loops_and_each_side_goes_on(farm: Rehearsal, dead: str) -> None:
    link = Link(farm)
    found = link.points()
    assert {point.segment for point in found} == {LAN, CLOUD, proof_link.REMOTE}
    before = link.leaks()
    service_of_workstation(farm, "stop")
    try:
        if dead == "both":  # Windows starts it again after ten seconds, in vain; routes of the tunnel are gone then
            (client,) = [pid for pid in openvpn_of(farm, named(farm, "manager")) if "studio.ovpn" in command_line(pid)]
            os.kill(client, signal.SIGKILL)
            time.sleep(0.5)
        assert loops_of_one_packet(farm) == 1
        across, within = crossings(found, link.seen(found, found))
        assert (across, within) == ([], [])
        assert link.leaks() == before == 0
    finally:
        service_of_workstation(farm, "start")
    tunnel_stands(farm)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def tunnel_stands(farm: Rehearsal) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            farm.command("ping", "-c", "1", "-W", "1", "10.0.0.10", on="pc")
            return
        except ProofError:
            assert time.monotonic() < end, "the tunnel did not come back"


# --- end


def test_confirmed_removal_takes_the_remote_node(farm: Rehearsal) -> None:
    farm.playbook("farm-up.yml", "-e", "farm_nodes=2", "-e", "farm_remote_nodes=0", "-e", "farm_remove=true")
    assert instances(farm, "remote_node") == []
    assert len(instances(farm, "render_node")) == 2


def test_farm_goes_down_and_leaves_nothing(farm: Rehearsal) -> None:
    farm.playbook("farm-up.yml", *WANTED)
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)
    proof_link.prove_no_leaks(farm)
