"""What goes wrong while an image is baked, and what is left then: each case for real, asserted with the AWS CLI.

The tests build on each other and run in their order: refusals on an empty account first, then a bake that is killed,
one that fails and is continued, one that ends well, and what later bakes make of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal import proof
from rehearsal.session import ProofError, Rehearsal, Step, rehearsing
from tests import iam_policy

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]

# What a bake changes on an empty account, in the order of the calls, and what its pre-flight only tries.
CHANGES = (
    "CreateVpc", "ModifyVpcAttribute", "CreateSubnet", "CreateInternetGateway", "AttachInternetGateway",
    "CreateRouteTable", "CreateRoute", "AssociateRouteTable", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress",
    "ImportKeyPair", "RunInstances", "RevokeSecurityGroupIngress",
)  # fmt: skip
READS = (
    "DescribeInstances", "DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeVpcs", "DescribeSubnets",
    "DescribeSecurityGroups", "DescribeRouteTables", "DescribeInternetGateways", "DescribeKeyPairs", "DescribeImages",
    "DescribeTags", "DescribeVolumes", "DescribeSnapshots", "GetParameter", "DescribeVpcAttribute",
    "DescribeLaunchTemplates", "DescribeSpotPriceHistory", "DescribeInstanceStatus",
)  # fmt: skip
# These have the builder running already; and what is told when they are missing (amazon.aws names only the attempt).
LATE = {
    "DescribeInstanceAttribute": "Failed to describe instance attribute",
    "GetConsoleOutput": "GetConsoleOutput",
    "GetPasswordData": "GetPasswordData",
    "CreateImage": "CreateImage",
}
# These, too: tests/unit/plugins/bake/test_missing_rights.py.
IN_UNIT_TESTS = (
    "StopInstances", "TerminateInstances", "DeregisterImage", "DeleteSnapshot", "DescribeLaunchTemplateVersions",
    "DescribeFastLaunchImages", "DisableFastLaunch", "EnableFastLaunch",
)  # fmt: skip
# Without these a warning says that a price or a quota is not known: tests/unit/plugins/module_utils/test_preflight.py.
ONLY_PRICES = ("GetProducts", "GetServiceQuota")
ASKED: set[str] = set()
"""What the bakes of this file that ended well asked of AWS."""
BUCKET = "studio-installers"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("bake") / "rehearsal"
    with rehearsing(folder, print) as made:
        yield made


def bake(farm: Rehearsal, **variables: Any) -> Step:
    settings = json.dumps({f"ami_bake_{name}": value for name, value in variables.items()})
    step = farm.playbook("bake-ami.yml", "-e", settings)
    ASKED.update(call["action"] for call in farm.calls()[-step.calls :])
    return step


def inject(farm: Rehearsal, *fault: str) -> None:
    command = [sys.executable, "-m", "rehearsal", "inject", "--dir", str(farm.folder), *fault]
    subprocess.run(command, check=True, timeout=60)


@contextlib.contextmanager
def denied(farm: Rehearsal, action: str) -> Iterator[None]:
    inject(farm, "deny", action, "on")
    try:
        yield
    finally:
        inject(farm, "deny", action, "off")


def images(farm: Rehearsal) -> list[dict[str, Any]]:
    return sorted(
        farm.aws("ec2", "describe-images", "--owners", "self")["Images"], key=lambda image: str(image["CreationDate"])
    )


def left(farm: Rehearsal) -> dict[str, list[str]]:
    """What costs money beside images: builders, volumes, snapshots of no image."""
    alive = "Name=instance-state-name,Values=pending,running,stopping,stopped"
    groups = farm.aws("ec2", "describe-instances", "--filters", alive)["Reservations"]
    of_images = {disk["Ebs"]["SnapshotId"] for image in images(farm) for disk in image["BlockDeviceMappings"]}
    snapshots = farm.aws("ec2", "describe-snapshots", "--owner-ids", "self")["Snapshots"]
    found = {
        "instances": [instance["InstanceId"] for group in groups for instance in group["Instances"]],
        "volumes": [volume["VolumeId"] for volume in farm.aws("ec2", "describe-volumes")["Volumes"]],
        "snapshots": [one["SnapshotId"] for one in snapshots if one["SnapshotId"] not in of_images],
        "half images": [image["ImageId"] for image in images(farm) if image["State"] != "available"],
    }
    return {kind: names for kind, names in found.items() if names}


def said(step: Step) -> str:
    """The output on one line: Ansible wraps messages where it likes."""
    return " ".join(step.log.read_text().split())


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(1)
    return condition()


# ------------------------------------------------------------------------------------------------ refused before a cost


def refused(farm: Rehearsal, *arguments: str, match: str) -> None:
    """The playbook fails with all that ``match`` says, and nothing was changed."""
    before = len(farm.calls())
    with pytest.raises(ProofError, match=match):
        farm.playbook(*arguments)
    assert [call["action"] for call in farm.calls()[before:] if call["mutating"]] == []


def test_quota_that_is_too_small(farm: Rehearsal) -> None:
    inject(farm, "quota", "on-demand", "3")
    refused(farm, "bake-ami.yml", match=r"(?s)quota on-demand  4 vCPUs wished.*request-service-quota-increase")
    inject(farm, "quota", "on-demand", "19")
    inject(farm, "quota", "spot", "64")
    # 5 nodes of 16 vCPUs and the manager: 80 spot, 4 on-demand; what spot lacks (16) would be one too many on-demand
    refused(farm, "farm-up.yml", "-e", "farm_nodes=5", match=r"(?s)fatal +quota spot.*fatal +image")
    inject(farm, "quota", "on-demand", "20")
    text = farm.playbook("playbooks/farm-check.yml", "-e", "farm_nodes=5").log.read_text()
    assert re.search(r"warning +quota spot .*bought on-demand", text)
    for lifecycle in ("on-demand", "spot"):
        inject(farm, "quota", lifecycle, "100000")


def test_all_that_is_wrong_comes_at_once(farm: Rehearsal) -> None:
    wrong = {
        "farm_zones": ["eu-central-1a"],
        "farm_node_types": ["c7i.4xlarge", "c99.4xlarge"],
        "farm_manager_address": "10.0.0.2",
        "farm_license_nodes": 3,
        "farm_nodes": 5,
    }
    refused(
        farm, "farm-up.yml", "-e", json.dumps(wrong), match=r"(?s)farm_manager_address.*c99\.4xlarge.*image.*licences"
    )


@pytest.mark.parametrize("action", [*READS, *CHANGES])
def test_missing_right_is_told_and_leaves_nothing(farm: Rehearsal, action: str) -> None:
    """Rights that the pre-flight cannot try end the bake later, before the builder: the network costs nothing.

    amazon.aws's module for security groups does not pass on why EC2 refused a rule; the next pre-flight says it.
    """
    with denied(farm, action):
        with pytest.raises(ProofError) as error:
            bake(farm)
        if action not in str(error.value):
            with pytest.raises(ProofError, match=action):
                farm.playbook("playbooks/farm-check.yml")
    assert left(farm) == {}


@pytest.mark.parametrize("action", LATE)
def test_missing_right_with_a_builder_running_leaves_nothing(farm: Rehearsal, action: str) -> None:
    with denied(farm, action), pytest.raises(ProofError) as error:
        bake(farm, smoke=False)
    assert LATE[action] in " ".join(str(error.value).split())
    assert until(lambda: left(farm) == {}, 30), left(farm)


def test_right_to_terminate_that_is_withdrawn_is_told_and_the_builder_goes_when_it_is_back(farm: Rehearsal) -> None:
    """The bake fails by itself; the process that guards it goes on trying."""
    installers = installers_of(farm)
    installers["openvpn"]["sha256"] = "0" * 64
    process, log = start_bake(farm, {"farm_installers": installers})
    try:
        assert comes_to(process, log, "Download Python")
        with denied(farm, "TerminateInstances"):
            process.wait(timeout=300)
            (builder,) = left(farm)["instances"]
            told = " ".join(log.read_text().split())
            assert f"Could not terminate the builder {builder}" in told
            assert "ec2:TerminateInstances. Remedy: allow the action" in told
            report = left_over(farm)
            assert [each["id"] for each in report if each["kind"] == "instance"] == [builder]
    finally:
        process.kill()
    assert until(lambda: left(farm) == {} and bakers(farm) == [], 90), left(farm)
    assert "nothing is left" in "".join(path.read_text() for path in (farm.folder / "controller/bakes").glob("*.log"))


def left_over(farm: Rehearsal) -> list[dict[str, Any]]:
    """What the module ec2_leftovers reports."""
    arguments = ["localhost", "-m", "renderfarm.cloud.ec2_leftovers", "-a", "farm=studio region=eu-central-1"]
    answer = farm.command(str(Path(sys.executable).parent / "ansible"), *arguments)
    found: list[dict[str, Any]] = yaml.safe_load(answer.partition("=>")[2])["things"]
    return found


# -------------------------------------------------------------------------------------------------- from where it comes


def installers_of(farm: Rehearsal) -> dict[str, Any]:
    settings = yaml.safe_load((farm.folder / "inventory/group_vars/all/rehearsal.yml").read_text())
    installers: dict[str, Any] = settings["farm_installers"]
    return installers


def package(farm: Rehearsal, installer: dict[str, str]) -> Path:
    """The file behind an installer's URL."""
    return farm.folder / "downloads" / installer["url"].rpartition("/")[2]


def test_installer_in_s3_that_is_another_one_ends_the_bake(farm: Rehearsal) -> None:
    installers = installers_of(farm)
    other = farm.folder / "other.msi"
    other.write_bytes(package(farm, installers["openvpn"]).read_bytes() + b" ")
    farm.aws("s3api", "put-object", "--bucket", BUCKET, "--key", "other.msi", "--body", str(other))
    installers["openvpn"]["url"] = f"s3://{BUCKET}/other.msi"
    with pytest.raises(ProofError, match=r"(?s)No image was made.*Download Open.*[Cc]hecksum"):
        farm.playbook("bake-ami.yml", "-e", json.dumps({"farm_installers": installers}))
    assert left(farm) == {}


def test_installer_on_the_controller_that_is_another_one_is_found_before_a_cost(farm: Rehearsal) -> None:
    installers = installers_of(farm)
    installers["openvpn"] |= {"path": str(package(farm, installers["openvpn"])), "sha256": "0" * 64}
    settings = {"farm_installers": installers, "farm_installers_bucket": BUCKET}
    begun = len(farm.calls())
    with pytest.raises(ProofError, match=r"(?s)openvpn:.*has the SHA-256.*correct\s+farm_installers"):
        farm.playbook("bake-ami.yml", "-e", json.dumps(settings))
    assert "RunInstances" not in {call["action"] for call in farm.calls()[begun:] if call["status"] == 200}


# ------------------------------------------------------------------------------------------------- killed in the middle


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["Download Python", r"Make the image \S+"])
def test_killed_bake_leaves_nothing(farm: Rehearsal, sign: signal.Signals, moment: str) -> None:
    whole = [image["ImageId"] for image in images(farm)]
    process, log = start_bake(farm, {})
    try:
        assert comes_to(process, log, moment)
        time.sleep(1)
        for pid in bakers(farm):
            os.kill(pid, sign)
        process.wait(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    assert until(lambda: left(farm) == {} and bakers(farm) == [], 120), left(farm)
    assert set(whole) <= {image["ImageId"] for image in images(farm)}
    assert len(images(farm)) <= len(whole) + 1  # it may have become whole just then


def test_farmnode_that_does_not_boot_makes_no_image(farm: Rehearsal) -> None:
    """Each node of such an image would end itself."""
    before = images(farm)
    process, log = start_bake(farm, {"ami_bake_smoke": True})
    try:
        assert comes_to(process, log, "Download Backburner")
        running = [machine for machine in farm.machines() if machine["state"] == "running"]
        [builder] = [machine for machine in running if machine["role"] == "builder"]  # at once: the smoke test is near
        boot = Path(builder["c"]) / "RenderFarm/farmnode/boot.py"
        boot.write_text(boot.read_text("utf-8").replace("def _services(", "def _services_that_is_gone("), "utf-8")
        process.wait(timeout=600)
    finally:
        if process.poll() is None:
            process.kill()
    text = " ".join(log.read_text().split())
    assert process.returncode != 0 and "No image was made" in text
    assert "a node does not boot: unexpected" in text and "_services" in text
    assert images(farm) == before
    assert until(lambda: left(farm) == {} and bakers(farm) == [], 60), left(farm)


def comes_to(process: subprocess.Popen[bytes], log: Path, moment: str) -> bool:
    """Wait until the task begins; false when the bake ended before."""
    pattern = re.compile(rf"^TASK \[.*{moment}\]", re.MULTILINE)
    until(lambda: bool(pattern.search(log.read_text())) or process.poll() is not None, 600)
    return process.poll() is None


def start_bake(farm: Rehearsal, settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Path]:
    log = farm.folder / "logs" / "started.log"
    log.parent.mkdir(exist_ok=True)
    inside = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(farm.folder), "--"]
    playbook = [str(Path(sys.executable).parent / "ansible-playbook"), "bake-ami.yml"]
    given = ["-e", json.dumps({"ami_bake_smoke": False, "ami_bake_force": True, **settings})]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*inside, *playbook, *given], stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    return process, log


def bakers(farm: Rehearsal) -> list[int]:
    """The ansible-playbook processes that the records of bakes name."""
    return [json.loads(path.read_text())["pid"] for path in (farm.folder / "controller/bakes").glob("*.json")]


# --------------------------------------------------------------------------------------------------- failed, continued


def test_bake_that_fails_goes_on_with_the_same_builder(farm: Rehearsal) -> None:
    """And with the same installers from other places: of the controller's folder, and from S3."""
    installers = installers_of(farm)
    checksum = installers["openvpn"].pop("sha256")
    broken = {"farm_installers": installers | {"openvpn": installers["openvpn"] | {"sha256": "0" * 64}}}
    with pytest.raises(ProofError, match=r"USD per\s+hour"):
        farm.playbook("bake-ami.yml", "-e", json.dumps({**broken, "ami_bake_resume": True}))
    builder = left(farm)["instances"]
    assert len(builder) == 1
    renderer = package(farm, installers["renderers"][0])
    farm.aws("s3api", "put-object", "--bucket", BUCKET, "--key", "3dsMax.msi", "--body", str(renderer))
    installers["renderers"][0]["url"] = f"s3://{BUCKET}/3dsMax.msi"
    openvpn = {"path": str(package(farm, installers["openvpn"])), "sha256": checksum}
    settings = {"farm_installers": installers | {"openvpn": installers["openvpn"] | openvpn}}
    settings |= {"farm_installers_bucket": BUCKET, "ami_bake_resume": True, "ami_bake_force": True}
    step = farm.playbook("bake-ami.yml", "-e", json.dumps(settings))
    assert "s3:PutObject" in step.changes
    assert "GetObject" in {call["action"] for call in farm.calls()[-step.calls :]}
    assert f"Goes on with the builder {builder[0]}" in said(step)
    assert "ec2:RunInstances" not in step.changes
    assert images(farm)[-1]["SourceInstanceId"] == builder[0]
    assert left(farm) == {}


def test_builder_that_was_stopped_for_its_image_is_not_kept(farm: Rehearsal) -> None:
    """Neither is it said that it is: nothing would end it."""
    with denied(farm, "CreateImage"), pytest.raises(ProofError, match=r"(?s)ec2:CreateImage") as error:
        bake(farm, resume=True, force=True, smoke=False)
    assert "still runs and costs" not in " ".join(str(error.value).split())
    assert until(lambda: left(farm) == {}, 30), left(farm)


# --------------------------------------------------------------------------------------------------- again and again


def test_second_bake_reuses_what_is_unchanged(farm: Rehearsal) -> None:
    newest = images(farm)[-1]
    step = bake(farm)
    assert f"Nothing to bake: {newest['Name']} ({newest['ImageId']}) has the same contents" in said(step)
    assert "RunInstances" not in str(step.changes)
    assert images(farm)[-1] == newest
    assert bake(farm).changes == []


def test_image_says_what_is_in_it(farm: Rehearsal) -> None:
    newest = images(farm)[-1]
    tags = {tag["Key"]: tag["Value"] for tag in newest["Tags"]}
    manifest = json.loads((farm.folder / f"controller/images/{newest['ImageId']}.json").read_text())
    in_image = json.loads((farm.folder / f"images/{newest['ImageId']}/c/RenderFarm/manifest.json").read_text())
    assert manifest == {**in_image, "image": newest["ImageId"]}
    assert tags["renderfarm:contents"] == manifest["hash"]
    assert max(len(value) for value in tags.values()) <= 256
    assert [item["name"] for item in manifest["contents"]] == ["python", "backburner", "openvpn", "3ds Max 2026"]


def test_two_of_five_images_stay_with_their_snapshots(farm: Rehearsal) -> None:
    for number in range(5):
        bake(farm, force=True, base="last", keep=2, version=f"keep{number}", smoke=number == 0)
    assert [image["Name"] for image in images(farm)] == ["studio-keep3", "studio-keep4"]
    assert left(farm) == {}
    snapshots = farm.aws("ec2", "describe-snapshots", "--owner-ids", "self")["Snapshots"]
    assert len(snapshots) == 2


def test_image_in_use_stays(farm: Rehearsal) -> None:
    farm.playbook("farm-up.yml", "-e", "farm_nodes=1")
    farm.playbook("playbooks/farm-status.yml")
    used = images(farm)[-1]["ImageId"]
    step = bake(farm, force=True, base="last", keep=1, version="newer", smoke=False)
    assert "Too old, but in use" in said(step)
    assert used in {image["ImageId"] for image in images(farm)}
    farm.playbook("farm-down.yml")
    bake(farm, base="last", keep=1)
    assert [image["Name"] for image in images(farm)] == ["studio-newer"]
    proof.prove_nothing_left(farm, images=1)


def test_fast_launch_goes_with_its_image(farm: Rehearsal) -> None:
    fast = {"base": "last", "keep": 1, "smoke": False, "sysprep": True, "fast_launch": 6}
    with denied(farm, "EnableFastLaunch"):
        text = said(bake(farm, force=True, version="fast", **fast))
    assert "is good, but Fast Launch does not prepare its first boots" in text and "Image studio-fast" in text
    step = bake(farm, **fast)
    assert "Nothing to bake" in said(step) and step.changes == ["ec2:EnableFastLaunch"]
    host = json.loads((farm.folder / f"images/{images(farm)[-1]['ImageId']}/host.json").read_text())
    assert host["generalized"]
    assert len(farm.aws("ec2", "describe-fast-launch-images")["FastLaunchImages"]) == 1
    assert len(left(farm)["snapshots"]) == 6
    farm.playbook("farm-up.yml", "-e", "farm_nodes=1")
    proof.prove_registered(farm)
    names = {machine["computer_name"] for machine in farm.machines() if machine["role"] in ("manager", "render_node")}
    assert len(names) == 2
    assert host["computer_name"] not in names
    farm.playbook("farm-down.yml")
    bake(farm, force=True, base="last", keep=1, version="slow", smoke=False)
    assert farm.aws("ec2", "describe-fast-launch-images")["FastLaunchImages"] == []
    assert left(farm) == {}


def stored(farm: Rehearsal) -> set[str]:
    """The keys in the bucket for installers."""
    found = farm.aws("s3api", "list-objects-v2", "--bucket", BUCKET)
    return {entry["Key"] for entry in found.get("Contents", [])}


def test_destroyed_farm_leaves_nothing(farm: Rehearsal) -> None:
    """Neither in S3, where the installer of a file on the controller is; what others put there stays."""
    bucket = f"farm_installers_bucket={BUCKET}"
    before = stored(farm)
    assert any(key.startswith("renderfarm/studio/") for key in before) and "other.msi" in before
    farm.playbook("playbooks/farm-destroy.yml", "-e", "farm_destroy=studio", "-e", bucket)
    assert stored(farm) == {key for key in before if not key.startswith("renderfarm/")}
    assert (images(farm), left(farm), left_over(farm)) == ([], {}, [])


def test_policy_names_exactly_the_calls_that_were_made(farm: Rehearsal) -> None:
    """Bake, up, status, check, down and destroy have run by now. The tests themselves ask by the AWS CLI."""
    calls = [call for call in farm.calls() if not call["agent"].startswith("aws-cli")]
    assert iam_policy.problems(calls) == []
    recorded = json.loads((Path(__file__).parents[1] / "fixtures/calls.json").read_text())
    assert (iam_policy.called(calls) ^ set(recorded)) - set(iam_policy.RARE) == set(), "bring the record up to date"


def test_every_right_of_a_bake_was_missing_once() -> None:
    assert {"RunInstances", "CreateImage"} <= ASKED, "no bake of this file has ended well"
    assert ASKED - {*READS, *CHANGES, *LATE, *IN_UNIT_TESTS, *ONLY_PRICES} - {"GetCallerIdentity"} == set()
