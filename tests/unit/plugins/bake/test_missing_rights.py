"""A right that is withdrawn while the builder runs: what is said, what is left, and that it goes once it is back.

The actions run as in a bake, against the simulated region, where the right is missing; there is no Windows in it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.renderfarm.cloud.plugins.action import bake_guard as guarding
from ansible_collections.renderfarm.cloud.plugins.action import ec2_fast_launch, ec2_image, ec2_image_keep
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import bake_guard, images
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.aws_action import Ec2Action
from botocore.config import Config
from botocore.session import Session

from rehearsal.cloud import Cloud, CloudSettings

TAGS = [{"Key": "renderfarm:farm", "Value": "studio"}, {"Key": "renderfarm:bake", "Value": "studio-1"}]
SESSION = Session()


class Account:
    """A region with one builder that runs, and the steps of a bake in it."""

    def __init__(self, cloud: Cloud, ec2: Any, state: Path, wait: Callable[[float], None]) -> None:
        self.cloud, self.ec2, self.state, self.wait = cloud, ec2, state, wait
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1a")
        self.stock = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        self.builder = ec2.run_instances(
            ImageId=self.stock,
            InstanceType="m7i.xlarge",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet["Subnet"]["SubnetId"],
            TagSpecifications=[{"ResourceType": "instance", "Tags": TAGS}],
        )["Instances"][0]["InstanceId"]

    def do(self, action: type[Ec2Action], **options: Any) -> tuple[dict[str, Any], str]:
        """Result and error of one task."""
        module = action.__new__(action)
        module.validate_argument_spec = lambda spec: (None, {"region": "eu-central-1", **options})
        module._task = type("Task", (), {"check_mode": False})
        try:
            return module.run(), ""
        except AnsibleActionFail as error:
            return {}, str(error)

    def make_image(self, name: str = "studio-1", minutes: float = 5, **options: Any) -> tuple[dict[str, Any], str]:
        tags = {tag["Key"]: tag["Value"] for tag in TAGS} | {"renderfarm:bake": name}
        task = {"instance_id": self.builder, "name": name, "description": "", "tags": tags, "minutes": minutes}
        return self.do(ec2_image.ActionModule, **{"manifest": None, **task, **options})

    def fast_launch(self, image_id: str) -> tuple[dict[str, Any], str]:
        task = {"image_id": image_id, "snapshots": 6, "launch_template": ""}
        return self.do(ec2_fast_launch.ActionModule, **task)

    def end(self, *, keep_builder: bool = False) -> tuple[dict[str, Any], str]:
        task = {"bake": "studio-1", "farm": "studio", "state": "ended", "state_dir": str(self.state)}
        return self.do(guarding.ActionModule, **task, keep_builder=keep_builder, hours=6)

    def keep(self, number: int) -> tuple[dict[str, Any], str]:
        return self.do(ec2_image_keep.ActionModule, farm="studio", keep=number)

    def left(self) -> set[str]:
        """What costs money beside whole images."""
        groups = self.ec2.describe_instances()["Reservations"]
        alive = {i["InstanceId"] for g in groups for i in g["Instances"] if i["State"]["Name"] in bake_guard.ALIVE}
        made = self.ec2.describe_images(Owners=["self"])["Images"]
        whole = {name for image in made if image["State"] == "available" for name in images.snapshot_ids(image)}
        snapshots = {each["SnapshotId"] for each in self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
        return alive | {image["ImageId"] for image in made if image["State"] != "available"} | (snapshots - whole)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    seconds = [1_795_000_000.0]

    def wait(time: float) -> None:
        seconds[0] += time

    cloud = Cloud(CloudSettings(clock=lambda: seconds[0], seed=7, images_complete_alone=True))
    for function in (images.stop, images.wait):
        monkeypatch.setitem(function.__kwdefaults__, "sleep", wait)
        if "clock" in function.__kwdefaults__:
            monkeypatch.setitem(function.__kwdefaults__, "clock", lambda: seconds[0])
    monkeypatch.setattr(images._disable_fast_launch, "__defaults__", (wait,))
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        cloud.serve(listening)
        ec2 = SESSION.create_client(
            "ec2",
            region_name="eu-central-1",
            endpoint_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
            config=Config(retries={"total_max_attempts": 1}),
        )
        monkeypatch.setattr(bake_guard, "make_client", lambda region: ec2)
        try:
            made = Account(cloud, ec2, tmp_path, wait)
            wait(5)
            yield made
        finally:
            cloud.stop()


def told(error: str, action: str) -> None:
    """The message names the right and what helps."""
    assert f"ec2:{action}" in error
    assert "Remedy: allow" in error
    assert "IAM" in error


def goes_when_it_is_allowed_again(account: Account, action: str) -> None:
    """As the guard does it, every two seconds, for an hour."""
    account.cloud.deny(action, False)
    bake_guard.clean(account.ec2, "studio-1", keep_builder=False)
    assert account.left() == set()


@pytest.mark.parametrize("action", ["StopInstances", "CreateImage"])
def test_image_that_may_not_be_made_leaves_nothing(account: Account, action: str) -> None:
    account.cloud.deny(action, True)
    _, error = account.make_image()
    told(error, action)
    assert account.end() == ({"changed": True, "ended": [f"builder {account.builder}"], "kept": []}, "")
    assert account.left() == set()


def test_image_is_made_although_its_snapshots_cannot_be_seen(account: Account) -> None:
    account.cloud.deny("DescribeSnapshots", True)
    made, error = account.make_image()
    assert (len(made["snapshots"]), error) == (1, "")
    _, error = account.end()
    told(error, "DescribeSnapshots")
    goes_when_it_is_allowed_again(account, "DescribeSnapshots")


def test_image_is_made_while_ec2_does_not_know_it_yet(account: Account) -> None:
    account.wait(120)  # the builder is an hour old
    account.cloud.unknown_for(120)
    made, error = account.make_image()
    assert (len(made["snapshots"]), error) == (1, "")


@pytest.mark.parametrize("action", ["EnableFastLaunch", "DescribeFastLaunchImages"])
def test_fast_launch_that_may_not_be_enabled_is_a_warning_and_can_be_tried_again(account: Account, action: str) -> None:
    image_id = account.make_image()[0]["image_id"]
    account.cloud.deny(action, True)
    result, error = account.fast_launch(image_id)
    assert (result["changed"], error) == (False, "")
    (warning,) = result["warnings"]
    assert f"The image {image_id} is good" in warning
    told(warning, action)
    account.cloud.deny(action, False)
    assert account.fast_launch(image_id) == ({"changed": True, "state": "enabled", "warnings": []}, "")
    assert account.fast_launch(image_id) == ({"changed": False, "state": "enabled"}, "")


def test_builder_that_may_be_kept_is_not_when_it_was_stopped_for_the_image(account: Account) -> None:
    assert account.end(keep_builder=True)[0]["kept"] == [account.builder]
    account.cloud.deny("CreateImage", True)
    account.make_image()
    assert account.end(keep_builder=True) == (
        {"changed": True, "ended": [f"builder {account.builder}"], "kept": []},
        "",
    )
    assert account.left() == set()


@pytest.mark.parametrize("action", ["DescribeInstances", "DescribeImages"])
def test_what_cannot_be_seen_is_not_called_gone(account: Account, action: str) -> None:
    """These reads are needed for the image and for the end: what the guard cannot see, it cannot end."""
    account.cloud.deny(action, True)
    _, error = account.make_image()
    told(error, action)
    _, error = account.end()
    told(error, action)
    assert "What the bake studio-1 made may still be there and cost" in error
    assert "Name=tag:renderfarm:bake,Values=studio-1" in error
    account.cloud.deny(action, False)
    assert (account.builder in account.left()) == (action == "DescribeInstances")  # the others do not hide the builder
    goes_when_it_is_allowed_again(account, action)


def test_builder_that_may_not_be_terminated_is_named(account: Account) -> None:
    account.cloud.deny("TerminateInstances", True)
    _, error = account.make_image(minutes=0)
    assert "is not available after 0 minutes" in error
    _, error = account.end()
    told(error, "TerminateInstances")
    assert f"terminate the builder {account.builder}" in error
    assert "ends itself 6 hours after its launch" in error
    assert account.left() == {account.builder}  # the half image went all the same
    goes_when_it_is_allowed_again(account, "TerminateInstances")


def test_half_image_that_may_not_be_deleted_is_named(account: Account) -> None:
    account.cloud.deny("DeregisterImage", True)
    account.make_image(minutes=0)
    half = account.ec2.describe_images(Owners=["self"])["Images"][0]
    _, error = account.end()
    told(error, "DeregisterImage")
    assert f"delete the unfinished image {half['ImageId']}" in error
    assert account.builder not in account.left()
    goes_when_it_is_allowed_again(account, "DeregisterImage")


def test_snapshot_of_a_half_image_that_may_not_be_deleted_is_named(account: Account) -> None:
    account.cloud.deny("DeleteSnapshot", True)
    account.make_image(minutes=0)
    (snapshot,) = (
        account.left() - {account.builder} - {account.ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]}
    )
    _, error = account.end()
    told(error, "DeleteSnapshot")
    assert f"delete the snapshot {snapshot}" in error
    assert account.left() == {snapshot}
    goes_when_it_is_allowed_again(account, "DeleteSnapshot")


@pytest.mark.parametrize(
    "action",
    ["DescribeImages", "DescribeInstances", "DescribeLaunchTemplateVersions", "DescribeFastLaunchImages",
     "DisableFastLaunch", "DeregisterImage"],
)  # fmt: skip
def test_old_image_that_may_not_be_removed_stays_whole(account: Account, action: str) -> None:
    old, _ = account.make_image("old")
    account.fast_launch(old["image_id"])
    account.make_image("new")
    account.cloud.deny(action, True)
    _, error = account.keep(1)
    told(error, action)
    account.cloud.deny(action, False)
    assert len(account.ec2.describe_images(Owners=["self"])["Images"]) == 2
    account.keep(1)
    account.end()
    assert len(account.ec2.describe_images(Owners=["self"])["Images"]) == 1
    assert account.left() == set()


def test_snapshot_of_an_old_image_that_may_not_be_deleted_is_named(account: Account) -> None:
    old, _ = account.make_image("old")
    account.make_image("new")
    account.end()
    account.cloud.deny("DeleteSnapshot", True)
    _, error = account.keep(1)
    told(error, "DeleteSnapshot")
    assert f"aws ec2 delete-snapshot --snapshot-id {old['snapshots'][0]}" in error
    assert account.left() == set(old["snapshots"])
