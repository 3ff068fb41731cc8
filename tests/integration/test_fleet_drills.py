"""What goes wrong with a fleet, each case against the simulated region, and what the AWS CLI sees afterwards.

The module runs as in a playbook, in a controller that can be killed. Each drill ends with the farm destroyed and a
report that nothing is left.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal.cloud import Cloud, CloudSettings

PROJECT = Path(__file__).resolve().parents[2]
PLAYBOOKS = Path(__file__).parent / "playbooks"
BIN = Path(sys.executable).parent
REGION = "eu-central-1"
TYPES = ("c7i.4xlarge", "c6i.4xlarge", "c5.4xlarge")
MINUTES = 420.0


class Controller:
    """Runs playbooks and the AWS CLI against the region."""

    def __init__(self, cloud: Cloud, endpoint: str, subnets: list[str]) -> None:
        self.cloud, self._subnets = cloud, subnets
        self._environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "NO_PROXY": "*",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def start(self, nodes: int, playbook: str = "fleet.yml", **variables: Any) -> subprocess.Popen[str]:
        extra = {"nodes": nodes, "subnets": self._subnets, **variables}
        return subprocess.Popen(
            ["ansible-playbook", "-i", "localhost,", str(PLAYBOOKS / playbook), "-e", json.dumps(extra)],
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def have(self, nodes: int, *, fails: bool = False, **variables: Any) -> str:
        """Wish for so many nodes; returns what the playbook printed."""
        return self.finish(self.start(nodes, **variables), fails=fails)

    def finish(self, process: subprocess.Popen[str], *, fails: bool = False) -> str:
        output, _ = process.communicate(timeout=MINUTES)
        assert (process.returncode != 0) is fails, output
        return output

    def killed_after(self, action: str, nodes: int, playbook: str = "fleet.yml") -> None:
        """Start it and kill all of it as soon as the region was asked for ``action``."""
        self.cloud.calls.clear()
        process = self.start(nodes, playbook)
        end = time.monotonic() + 60
        while action not in self.changes():
            assert process.poll() is None and time.monotonic() < end, f"{action} was never called"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)

    def changes(self) -> Counter[str]:
        return Counter(call.action for call in list(self.cloud.calls) if call.mutating)

    def aws(self, *arguments: str) -> Any:
        done = subprocess.run(
            ["aws", *arguments, "--output", "json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "{}")

    def nodes(self) -> list[dict[str, Any]]:
        """What the AWS CLI lists of machines that live."""
        states = "Name=instance-state-name,Values=pending,running"
        answer = self.aws("ec2", "describe-instances", "--filters", states)
        return [i for reservation in answer["Reservations"] for i in reservation["Instances"]]

    def destroyed(self) -> None:
        """Destroy the farm: the report and the AWS CLI agree that nothing is left."""
        output = self.finish(self.start(0, "fleet-destroy.yml"))
        assert "LEFT True Nothing is left in eu-central-1" in output, output
        assert self.nodes() == []
        for what, key in {"volumes": "Volumes", "addresses": "Addresses", "vpcs": "Vpcs"}.items():
            assert self.aws("ec2", f"describe-{what}")[key] == [], what
        assert self.aws("ec2", "describe-images", "--owners", "self")["Images"] == []
        assert self.aws("ec2", "describe-snapshots", "--owner-ids", "self")["Snapshots"] == []


@pytest.fixture
def controller() -> Iterator[Controller]:
    settings = CloudSettings(pending_seconds=2.0, stopping_seconds=2.0, image_seconds=0.0, images_complete_alone=True)
    cloud = Cloud(settings)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        cloud.serve(listener)
        try:
            endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
            farm = Controller(cloud, endpoint, [])
            farm._subnets += make_network(farm)
            yield farm
            cloud._faults.clear()
            cloud.set_capacity("*", "*", None)
            farm.destroyed()
        finally:
            cloud.stop()


def make_network(farm: Controller) -> list[str]:
    """A network over three zones, a key pair, and an image of the farm's own with its launch template."""
    import botocore.session

    tags = [{"Key": "renderfarm:farm", "Value": "studio"}]

    def tagged(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags}]

    client = botocore.session.Session().create_client(
        "ec2",
        region_name=REGION,
        endpoint_url=farm._environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="rehearsal",
        aws_secret_access_key="rehearsal",
    )
    vpc = client.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged("vpc"))["Vpc"]["VpcId"]
    subnets = [
        client.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{16 * n}.0/20", AvailabilityZone=f"{REGION}{zone}")
        for n, zone in enumerate("abc")
    ]
    ids = [subnet["Subnet"]["SubnetId"] for subnet in subnets]
    client.create_key_pair(KeyName="studio", KeyType="rsa", TagSpecifications=tagged("key-pair"))
    stock = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    builder = client.run_instances(ImageId=stock, InstanceType="m7i.xlarge", MinCount=1, MaxCount=1, SubnetId=ids[0])[
        "Instances"
    ][0]["InstanceId"]
    time.sleep(2.2)
    image = client.create_image(InstanceId=builder, Name="studio-1", TagSpecifications=tagged("image"))["ImageId"]
    client.terminate_instances(InstanceIds=[builder])
    client.create_launch_template(
        LaunchTemplateName="studio-render-node",
        LaunchTemplateData={"ImageId": image, "KeyName": "studio"},
        TagSpecifications=tagged("launch-template"),
    )
    time.sleep(2.5)
    farm.cloud.calls.clear()
    return ids


def after(seconds: float, do: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


def test_no_capacity_in_two_of_three_types(controller):
    for kind in TYPES[:2]:
        controller.cloud.set_capacity(kind, "*", 0)
    assert "HAVE 6" in controller.have(6, fallback=False)
    assert [node["InstanceType"] for node in controller.nodes()] == [TYPES[2]] * 6


def test_no_capacity_at_all(controller):
    controller.cloud.set_capacity("*", "*", 0)
    output = controller.have(4, fails=True)
    for words in ("InsufficientInstanceCapacity (spot", "InsufficientInstanceCapacity (on-demand", "4 of 4 missing"):
        assert words in output, output
    assert controller.nodes() == []


def test_no_spot_capacity_at_all(controller):
    for kind in TYPES:
        for zone in "abc":
            controller.cloud.set_capacity(kind, f"{REGION}{zone}", 0, "spot")
    output = controller.have(4, fallback=False, fails=True)
    assert "4 of 4 missing" in output and "InsufficientInstanceCapacity" in output and "Remedy" in output, output
    assert controller.nodes() == []
    controller.have(4, fallback=True)
    assert [node.get("InstanceLifecycle") for node in controller.nodes()] == [None] * 4


def test_capacity_that_comes_back_is_found_after_the_back_off_and_not_before(controller):
    controller.cloud.set_capacity("*", "*", 0)
    process = controller.start(3, fallback=False, patience=60, back_off=8)
    while not controller.changes()["CreateFleet"]:
        time.sleep(0.1)
    controller.cloud.set_capacity("*", "*", None)
    assert "HAVE 3" in controller.finish(process)
    asked = [call.time for call in controller.cloud.calls if call.action == "CreateFleet"]
    assert len(asked) == 2 and 8 <= asked[1] - asked[0] < 12


def test_a_thousand_nodes_within_the_documented_rates(controller):
    controller.cloud.limit(0.97)
    assert "HAVE 1000" in controller.have(1000)
    assert len(controller.nodes()) == 1000
    refused = [call for call in controller.cloud.calls if call.error == "RequestLimitExceeded"]
    up = controller.changes()["CreateFleet"]
    assert refused and up < 40, (len(refused), up)
    assert "HAVE 0" in controller.have(0)
    assert controller.nodes() == [] and controller.changes()["TerminateInstances"] < 40


@pytest.mark.parametrize("tries", [1, 3])
def test_the_answer_of_create_fleet_is_lost(controller, tries):
    """Once: botocore asks again with the same token. Three times: the task fails, and the next run asks again."""
    controller.cloud.lose_answers("CreateFleet", tries)
    controller.have(5, fails=tries == 3)
    controller.have(5)
    assert len(controller.nodes()) == 5
    assert len({node["ClientToken"] for node in controller.nodes()}) == 1


@pytest.mark.parametrize("seconds", [0.0, 6.0])
def test_the_controller_is_killed_while_it_launches(controller, seconds):
    """Also when EC2 lists the new machines one after the other."""
    controller.cloud.unknown_for(seconds)
    controller.killed_after("CreateFleet", 40)
    controller.have(40)
    assert len(controller.nodes()) == 40


def test_the_controller_is_killed_while_it_ends_nodes(controller):
    controller.have(6)
    controller.killed_after("TerminateInstances", 0)
    controller.have(0)
    assert controller.nodes() == []


def test_the_controller_is_killed_while_it_destroys(controller):
    controller.have(2)
    for action in ("TerminateInstances", "DeregisterImage", "DeleteSubnet"):
        controller.killed_after(action, 0, "fleet-destroy.yml")


def test_the_spot_price_is_above_the_maximum(controller):
    output = controller.have(2, price=0.0001, fallback=False, fails=True)
    assert "SpotMaxPriceTooLow" in output and "raise max_price" in output, output
    assert controller.nodes() == []
    controller.have(2, price=0.0001)
    assert [node.get("InstanceLifecycle") for node in controller.nodes()] == [None] * 2


def test_the_quota_is_too_small(controller):
    """What it leaves is launched and stays; on-demand has a quota of its own. Nobody waits for more."""
    controller.cloud.set_vcpu_quota("spot", 40)
    controller.cloud.set_vcpu_quota("on-demand", 16)
    output = controller.have(4, fallback=False, fails=True, patience=600)
    assert "MaxSpotInstanceCountExceeded" in output and "L-34B43A08" in output and "2 of 4 missing" in output, output
    assert [node.get("InstanceLifecycle") for node in controller.nodes()] == ["spot"] * 2
    output = controller.have(4, fails=True, patience=600)
    assert "VcpuLimitExceeded" in output and "L-1216C47A" in output and "1 of 4 missing" in output, output
    assert sorted(node.get("InstanceLifecycle", "-") for node in controller.nodes()) == ["-", "spot", "spot"]
    controller.cloud.set_vcpu_quota("spot", 1000)
    controller.have(4)
    assert len(controller.nodes()) == 4


def test_the_image_is_deleted_while_nodes_use_it(controller):
    controller.have(2)
    (image,) = controller.aws("ec2", "describe-images", "--owners", "self")["Images"]
    controller.aws("ec2", "deregister-image", "--image-id", image["ImageId"], "--delete-associated-snapshots")
    controller.have(2)
    output = controller.have(3, fails=True)
    assert "InvalidAMIID.Unavailable" in output and "run bake-ami.yml" in output, output
    assert len(controller.nodes()) == 2
    controller.have(1)
    assert len(controller.nodes()) == 1


def test_two_controllers_at_once(controller):
    first, second = controller.start(8), controller.start(8)
    assert "HAVE 8" in controller.finish(first) and "HAVE 8" in controller.finish(second)
    assert len(controller.nodes()) == 8


@pytest.mark.parametrize(("action", "before", "wish"), [("CreateFleet", 0, 2), ("TerminateInstances", 2, 0)])
def test_the_permission_is_missing(controller, action, before, wish):
    """It is named with where to find all of them; nothing is launched, and nothing is lost."""
    if before:
        controller.have(before)
    there = {node["InstanceId"] for node in controller.nodes()}
    controller.cloud.deny(action, True)
    output = " ".join(controller.have(wish, fails=True).split())
    assert "UnauthorizedOperation" in output and "allow the action" in output, output
    assert f"ec2:{action}" in output and "docs/iam-policy.json" in output, output
    assert {node["InstanceId"] for node in controller.nodes()} == there and len(there) == before
    controller.cloud.deny(action, False)
    controller.have(wish)
    assert len(controller.nodes()) == wish
