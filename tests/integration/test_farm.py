"""The whole product on the rehearsal, as a user runs it: bake, up, again, more, fewer, wrong input, down.

The tests of this file build on each other and run in their order; each asserts against the other side (disks, the
region's record of calls, the AWS CLI), not against what the product says of itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal import proof, proof_link, secrets_proof
from rehearsal.session import ProofError, Rehearsal, rehearsing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]
PLAYS = "tests/integration/playbooks/backburner_node.yml"
ALIVE = "Name=instance-state-name,Values=pending,running,stopping,stopped"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("farm") / "rehearsal"
    with rehearsing(folder, print) as made:
        yield made


def instances(farm: Rehearsal) -> list[dict[str, str]]:
    found = farm.aws("ec2", "describe-instances", "--filters", ALIVE)["Reservations"]
    return [instance for reservation in found for instance in reservation["Instances"]]


def nodes(farm: Rehearsal) -> set[str]:
    return {
        instance["InstanceId"]
        for instance in instances(farm)
        if {"Key": "renderfarm:role", "Value": "render_node"} in instance["Tags"]
    }


def inject(farm: Rehearsal, *fault: str) -> None:
    command = [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *fault]
    subprocess.run(command, check=True, timeout=30)


def backburner_xml(farm: Rehearsal, role: str) -> Path:
    machine = next(machine for machine in farm.machines() if machine["role"] == role)
    return Path(machine["c"]) / proof.PROFILE / "backburner.xml"


def test_wrong_settings_are_refused_before_anything_is_created(farm):
    before = len(farm.calls())
    with pytest.raises(ProofError, match=r"farm_cloud_network.*192\.168\.1\.0/24"):
        farm.playbook("bake-ami.yml", "-e", "farm_cloud_network=192.168.1.0/24")
    assert not [call for call in farm.calls()[before:] if call["mutating"]]


def test_farm_without_image_says_how_to_make_one(farm):
    with pytest.raises(ProofError, match=r"bake-ami\.yml"):
        farm.playbook("farm-up.yml")
    assert instances(farm) == []


def test_builder_is_terminated_when_a_step_fails_in_the_middle(farm):
    installers = json.loads(json.dumps(installers_of(farm)))
    installers["openvpn"]["sha256"] = "0" * 64
    override = farm.folder / "broken.json"
    override.write_text(json.dumps({"farm_installers": installers}))
    with pytest.raises(ProofError, match=r"(?s)No image was made.*[Cc]hecksum"):
        farm.playbook("bake-ami.yml", "-e", f"@{override}")
    builders = [machine for machine in farm.seen.values() if machine["role"] == "builder"]
    assert len(builders) == 1
    assert instances(farm) == []
    assert farm.aws("ec2", "describe-volumes")["Volumes"] == []
    assert farm.aws("ec2", "describe-images", "--owners", "self")["Images"] == []


def installers_of(farm: Rehearsal) -> dict[str, dict[str, str]]:
    import yaml

    return yaml.safe_load((farm.folder / "inventory/group_vars/all/rehearsal.yml").read_text())["farm_installers"]


def test_bake_trusts_exactly_the_certificate_of_the_console(farm):
    farm.seen.clear()
    step = farm.playbook("bake-ami.yml", "-v")
    builder = next(machine for machine in farm.seen.values() if machine["role"] == "builder")
    console = next((farm.folder / "machines").glob(f"**/{builder['name']}*/console.log")).read_text(errors="replace")
    printed = base64.b64decode(re.findall(r"RENDERFARM-CERTIFICATE (\S+)", console)[-1])
    assert f"fingerprint: {hashlib.sha256(printed).hexdigest()}" in step.log.read_text()
    assert len(farm.aws("ec2", "describe-images", "--owners", "self")["Images"]) == 1
    assert instances(farm) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("vault_workstation_password=wrong", r'does not let "\w+" in.*vault_workstation_password'),
        ("farm_workstation_address=192.168.1.99", r"farm_workstation_address.*192\.168\.1\.99"),
        ("vault_ca_passphrase=short", r"vault_ca_passphrase has 5 characters"),
    ],
)
def test_what_would_fail_later_is_refused_before_anything_costs(farm, setting, message):
    before = len(farm.calls())
    with pytest.raises(ProofError, match=f"(?s){message}"):
        farm.playbook("farm-up.yml", "-e", setting)
    assert not [call for call in farm.calls()[before:] if call["mutating"]]


def test_farm_comes_up(farm):
    step = farm.playbook("farm-up.yml", "-e", "farm_nodes=2", "-vvv", "--diff")  # all that a log could give away
    proof.prove_manager(farm)
    proof.prove_fleet(farm, step, 2)
    proof.prove_registered(farm)
    proof.prove_identity(farm)
    proof.prove_order(farm)
    proof_link.prove_winrm_shut(farm)
    proof_link.Link(farm).pc_knows_the_way(step.log.read_text(errors="replace"))
    proof_link.prove_reach(farm)
    secrets_proof.prove_no_secrets(farm)


def test_second_run_changes_nothing(farm):
    proof.prove_unchanged(farm.playbook("farm-up.yml", "-e", "farm_nodes=2"))


def test_fewer_nodes_are_only_announced(farm):
    before = nodes(farm)
    step = farm.playbook("farm-up.yml", "-e", "farm_nodes=1")
    assert "-e farm_remove=true" in step.log.read_text()
    assert step.changes == []
    assert nodes(farm) == before


def test_more_nodes_are_added_exactly(farm):
    before = nodes(farm)
    step = farm.playbook("farm-up.yml", "-e", "farm_nodes=3")
    proof.prove_fleet(farm, step, 3)
    proof.prove_registered(farm)
    assert before < nodes(farm)
    assert len(nodes(farm)) == 3


def test_confirmed_removal_takes_the_oldest(farm):
    launched = {machine["instance_id"]: machine["launch_time"] for machine in farm.machines()}
    before = nodes(farm)
    youngest = max(before, key=lambda instance: launched[instance])
    farm.playbook("farm-up.yml", "-e", "farm_nodes=1", "-e", "farm_remove=true")
    assert nodes(farm) == {youngest}


def test_module_shows_and_changes_nothing_in_check_mode(farm):
    xml = backburner_xml(farm, "manager")
    before = xml.read_bytes()
    step = farm.playbook(PLAYS, "--tags", "change", "--check", "--diff", "-e", "wanted_manager=10.0.0.99")
    output = step.log.read_text()
    assert step.changed == 1
    assert re.search(r"^\+.*<ManagerName>10\.0\.0\.99", output, re.MULTILINE)
    assert re.search(r"^\+.*192\.168\.77\.0", output, re.MULTILINE)
    assert xml.read_bytes() == before


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("wrong_option", r"Unsupported parameters.*nam"),
        ("ignored_option", r"win_file does not know the option 'recurs'"),
        ("unknown_module", r"no stand-in.*win_dns_client"),
        ("unknown_powershell", r"rehearsal"),
    ],
)
def test_wrong_playbook_never_passes(farm, tag, message):
    with pytest.raises(ProofError, match=rf"(?s){message}"):
        farm.playbook(PLAYS, "--tags", tag)


def test_wrong_authority_is_refused(farm):
    workstation = farm.folder / "controller/hosts/workstation/winrm.pem"
    farm.playbook(PLAYS, "--tags", "ping")
    with pytest.raises(ProofError, match="CERTIFICATE_VERIFY_FAILED"):
        farm.playbook(PLAYS, "--tags", "ping", "-e", f"ansible_winrm_ca_trust_path={workstation}")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("broken", r"backburner\.xml"),
        ("unknown_manager", r"no-such-manager"),
        ("read_only", r"read.?only"),
        ("full_disk", r"backburner\.xml.*(full|space)"),
    ],
)
def test_module_names_file_and_remedy_and_keeps_the_old_file(farm, fault, message):
    xml = backburner_xml(farm, "manager")
    before = xml.read_bytes()
    manager = "10.0.0.98"
    if fault == "broken":
        xml.write_bytes(before[: len(before) // 2])
    elif fault == "unknown_manager":
        manager = "no-such-manager"
    elif fault == "full_disk":
        inject(farm, "disk-full", "studio-manager")
    else:
        xml.chmod(0o444)
    broken = xml.read_bytes()
    try:
        try:
            with pytest.raises(ProofError, match=rf"(?si){message}"):
                farm.playbook(PLAYS, "--tags", "change", "-e", f"wanted_manager={manager}")
        finally:
            if fault == "full_disk":  # only then can the disk be read from outside again
                inject(farm, "repair", "studio-manager")
        assert xml.read_bytes() == broken
    finally:
        xml.chmod(0o644)
        xml.write_bytes(before)


def test_farm_goes_down_and_leaves_nothing(farm):
    farm.playbook("farm-down.yml")
    proof.prove_nothing_left(farm, images=1)
    proof_link.prove_no_leaks(farm)


def test_second_down_changes_nothing(farm):
    proof.prove_unchanged(farm.playbook("farm-down.yml"))
