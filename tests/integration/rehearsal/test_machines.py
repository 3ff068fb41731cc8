"""Machines of a real rehearsal: booted, reached, broken, terminated. The tests build on each other in their order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rehearsal.conftest import REPOSITORY, World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]

BOOTSTRAP = (REPOSITORY / "roles/ec2_machine/files/bootstrap.ps1").read_text()
ASK_METADATA = """
import json, urllib.error, urllib.request
base = "http://169.254.169.254/latest/"
def ask(path, method="GET", **headers):
    request = urllib.request.Request(base + path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        return urllib.request.urlopen(request, timeout=3).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
token = ask("api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
paths = ["instance-id", "mac", "local-ipv4", "public-ipv4", "tags/instance/Name", "spot/instance-action"]
print(json.dumps({"without": ask("meta-data/mac"), **{path: ask("meta-data/" + path, X_aws_ec2_metadata_token=token) for path in paths}}))
"""  # noqa: E501


@pytest.fixture(scope="module")
def lab(world: World) -> dict[str, str]:
    made: dict[str, str] = world.lab("network")
    return made


@pytest.fixture(scope="module")
def manager(world: World, lab: dict[str, str]) -> dict[str, Any]:
    world.lab("launch", lab=lab, name="manager", user_data=f"<powershell>\n{BOOTSTRAP}</powershell>", spot=False)
    return world.running("manager")


@pytest.fixture(scope="module")
def node(world: World, lab: dict[str, str]) -> dict[str, Any]:
    world.lab("launch", lab=lab, name="node", user_data="", spot=True)
    return world.running("node")


def test_commands_run_on_the_controller(world: World) -> None:
    done = world.command("exec", "--", "sh", "-c", "ip -4 -o address show dev eth0; echo $AWS_ENDPOINT_URL; exit 7")
    assert done.returncode == 7
    assert "192.168.1.5/24" in done.stdout
    assert "http://198.18.0.10:4566" in done.stdout
    assert world.command("exec", "--", "no-such-program").returncode == 127


def test_signals_reach_a_command(world: World) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(world.folder), "--", "sh", "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "caught\n"
    assert process.returncode == 3


def test_a_second_up_is_refused(world: World) -> None:
    done = world.command("up")
    assert done.returncode == 1
    assert "up in" in done.stderr
    assert "already" in done.stderr


def test_downloads_and_inventory_are_there(world: World) -> None:
    settings = (world.folder / "inventory/group_vars/all/rehearsal.yml").read_text()
    assert "http://198.18.0.20/Backburner.msi" in settings
    script = "import urllib.request as r; print(len(r.urlopen('http://198.18.0.20/Backburner.msi', timeout=3).read()))"
    size = (world.folder / "downloads/Backburner.msi").stat().st_size
    assert world.must("exec", "--", sys.executable, "-c", script) == f"{size}\n"


def test_the_workstation_answers_with_the_pinned_certificate(world: World) -> None:
    script = (
        "import socket, ssl; c = ssl.create_default_context(cafile={!r}); "
        "s = socket.create_connection(('192.168.1.10', 5986), 3); "
        "print(c.wrap_socket(s, server_hostname='192.168.1.10').version())"
    )
    pin = world.folder / "controller/hosts/workstation/winrm.pem"
    assert world.must("exec", "--", sys.executable, "-c", script.format(str(pin))) == "TLSv1.3\n"


def test_a_machine_is_what_ec2_says(world: World, manager: dict[str, Any]) -> None:
    links = json.loads(world.inside(manager["namespace"], "ip", "-j", "address", "show", "dev", "eth0").stdout)
    assert links[0]["address"] == manager["mac"]
    assert links[0]["addr_info"][0]["local"] == manager["address"]
    assert links[0]["mtu"] == 9001


def test_metadata_is_served_with_a_token_only(world: World, manager: dict[str, Any]) -> None:
    answer = json.loads(world.inside(manager["namespace"], sys.executable, "-c", ASK_METADATA).stdout)
    assert answer == {
        "without": 401,
        "instance-id": manager["instance_id"],
        "mac": manager["mac"],
        "local-ipv4": manager["address"],
        "public-ipv4": manager["public_address"],
        "tags/instance/Name": "manager",
        "spot/instance-action": 404,
    }


def test_the_public_name_is_the_private_address_inside(world: World, manager: dict[str, Any]) -> None:
    name = f"ec2-{manager['public_address'].replace('.', '-')}.eu-central-1.compute.amazonaws.com"
    script = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    assert world.inside(manager["namespace"], sys.executable, "-c", script, name).stdout.strip() == manager["address"]


def test_a_security_group_blocks_until_it_permits(world: World, lab: dict[str, str], manager: dict[str, Any]) -> None:
    console = world.folder / "machines/manager/console.log"
    world.until(lambda: "RENDERFARM-CERTIFICATE" in console.read_text(), "the certificate on the console")
    assert world.connect("controller", manager["public_address"], 5986) == "TimeoutError"
    world.lab("permit", group=lab["group"], port=5986, cidr="198.18.1.2/32", source="")
    world.until(lambda: world.connect("controller", manager["public_address"], 5986) == "open", "port 5986 open")
    assert world.connect("controller", manager["public_address"], 5985) == "TimeoutError"


def test_a_rule_for_a_group_lets_its_members_in(
    world: World, lab: dict[str, str], manager: dict[str, Any], node: dict[str, Any]
) -> None:
    assert world.connect(manager["namespace"], node["address"], 5985) == "TimeoutError"
    world.lab("permit", group=lab["group"], port=5985, cidr="", source=lab["group"])
    world.until(lambda: world.connect(manager["namespace"], node["address"], 5985) == "open", "port 5985 open")


def test_status_shows_machines(world: World, node: dict[str, Any]) -> None:
    text = world.must("status")
    assert node["instance_id"] in text
    assert "packets with private addresses seen on the internet: 0" in text


def test_winrm_is_lost_and_comes_back(world: World, manager: dict[str, Any]) -> None:
    world.must("inject", "winrm-lost", "manager")
    assert world.connect("controller", manager["public_address"], 5986) == "TimeoutError"
    assert "winrm-lost" in world.must("status")
    world.must("inject", "repair", "manager")
    assert world.connect("controller", manager["public_address"], 5986) == "open"


def test_a_full_disk_is_full_only_inside_and_until_repaired(world: World, node: dict[str, Any]) -> None:
    drive = Path(f"/proc/{world.state()['daemon_pid']}/root") / Path(node["c"]).relative_to("/")
    world.must("inject", "disk-full", "node")
    with pytest.raises(OSError, match="No space left"):
        (drive / "new.bin").write_bytes(b"x" * 10_000)
    (drive / "new.bin").unlink()
    world.must("inject", "repair", "node")
    (Path(node["c"]) / "new.bin").write_bytes(b"x" * 10_000)
    assert (drive / "new.bin").stat().st_size == 10_000
    assert not (drive / "rehearsal-filler.bin").exists()


def test_the_api_can_be_away(world: World) -> None:
    world.must("inject", "api-down", "2")
    script = "import urllib.request as r; r.urlopen('http://198.18.0.10:4566/', timeout=1)"
    assert world.command("exec", "--", sys.executable, "-c", script).returncode == 1
    time.sleep(2)
    assert world.lab("vpcs")


def test_an_image_is_made_of_a_running_machine_and_booted(world: World, manager: dict[str, Any]) -> None:
    (Path(manager["c"]) / "marker.txt").write_text("mine")
    image = world.lab("image", instance=manager["instance_id"])
    world.until(lambda: world.lab("image_state", image=image) == "available", "the image")
    assert (world.folder / "images" / image / "c/marker.txt").read_text() == "mine"
    world.running("manager")


def test_an_unknown_fault_and_an_unknown_machine_are_refused(world: World) -> None:
    assert "spot-interrupt MACHINE SECONDS" in world.command("inject", "flood").stderr
    assert "machines: manager, node, workstation" in world.command("inject", "kill", "gone").stderr


def test_a_boot_can_fail(world: World, lab: dict[str, str]) -> None:
    world.must("inject", "boot-failure", "broken")
    world.lab("launch", lab=lab, name="broken", user_data="", spot=False)
    world.until(lambda: (world.machine("broken") or {}).get("state") == "failed", "the failure")
    assert "broken: boot failure (injected)" in world.must("status")


def test_power_can_be_cut(world: World, node: dict[str, Any], manager: dict[str, Any]) -> None:
    world.must("inject", "kill", "node")
    assert world.connect(manager["namespace"], node["address"], 5985) != "open"
    world.until(lambda: (world.machine("node") or {}).get("state") == "dead", "state dead")
    assert (world.machine("node") or {})["ec2_state"] == "running"


def test_a_spot_instance_is_taken_back(world: World, node: dict[str, Any]) -> None:
    assert "not a spot instance" in world.command("inject", "spot-interrupt", "manager", "1").stderr
    world.must("inject", "spot-interrupt", "node", "1")
    world.until(lambda: world.machine("node") is None, "the end of the node")


def test_termination_removes_the_machine_and_keeps_its_logs(world: World, manager: dict[str, Any]) -> None:
    namespace = Path(world.state()["controller_namespace_path"]).with_name(manager["namespace"])
    assert namespace.exists()
    world.lab("terminate", instance=manager["instance_id"])
    world.until(lambda: world.machine("manager") is None, "the end of the manager")
    assert not namespace.exists()
    assert not (world.folder / "machines/manager").exists()
    kept = world.folder / "machines/terminated" / f"manager-{manager['instance_id']}"
    assert "RENDERFARM-CERTIFICATE" in (kept / "console.log").read_text()
    assert (kept / "machine.log").exists()
