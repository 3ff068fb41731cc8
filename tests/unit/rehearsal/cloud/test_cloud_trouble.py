"""Trouble on purpose: what the caller sees, and what took effect all the same."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, HTTPClientError
from simulated_ec2 import Aws, refused

from rehearsal.cloud.limits import Limits, request_rate
from rehearsal.interfaces import RehearsalError

NARROW = {"MaxResults": "1000"}


def test_an_answer_is_lost_after_the_action_happened(aws: Aws):
    aws.cloud.lose_answers("CreateVpc")
    with pytest.raises(HTTPClientError):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/24")
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 1
    assert next((call.action, call.status) for call in aws.cloud.calls) == ("CreateVpc", 0)
    aws.ec2.create_vpc(CidrBlock="10.1.0.0/24")


def test_permissions_are_denied_and_given_back(aws: Aws):
    aws.cloud.deny("DescribeVpcs", True)
    for _ in range(2):
        with refused("UnauthorizedOperation"):
            aws.ec2.describe_vpcs()
    with refused("UnauthorizedOperation"):
        aws.ec2.describe_vpcs(DryRun=True)
    aws.ec2.describe_subnets()
    aws.cloud.deny("DescribeVpcs", False)
    aws.ec2.describe_vpcs()
    aws.cloud.deny("GetParameter", True)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        aws.client("ssm").get_parameter(Name="/x")


def test_new_instances_become_known_one_after_the_other(aws: Aws):
    aws.cloud.unknown_for(10)
    ids = [item["InstanceId"] for item in aws.launch(count=40)]

    def listed() -> int:
        return sum(len(r["Instances"]) for r in aws.ec2.describe_instances()["Reservations"])

    assert listed() == 0
    with refused("InvalidInstanceID.NotFound"):
        aws.ec2.terminate_instances(InstanceIds=ids)
    aws.clock.forward(5)
    assert 0 < listed() < 40
    aws.clock.forward(5)
    assert listed() == 40
    aws.ec2.terminate_instances(InstanceIds=ids)


def test_new_image_and_its_snapshot_become_known_late(aws: Aws):
    source = aws.launch()[0]["InstanceId"]
    aws.running()
    aws.cloud.unknown_for(10)
    name = aws.ec2.create_image(InstanceId=source, Name="farm-1")["ImageId"]
    with refused("InvalidAMIID.NotFound"):
        aws.ec2.describe_images(ImageIds=[name])
    assert aws.ec2.describe_images(Owners=["self"])["Images"] == []
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    aws.clock.forward(10)
    [disk] = aws.ec2.describe_images(ImageIds=[name])["Images"][0]["BlockDeviceMappings"]
    aws.cloud.unknown_for(20)
    aws.clock.forward(-10)
    with refused("InvalidSnapshot.NotFound"):
        aws.ec2.describe_snapshots(SnapshotIds=[disk["Ebs"]["SnapshotId"]])


def test_capacity_of_all_types_and_zones(aws: Aws):
    aws.cloud.set_capacity("*", "*", 0)
    with refused("InsufficientInstanceCapacity"):
        aws.launch()
    aws.cloud.set_capacity("*", "eu-central-1a", None)
    aws.launch()
    with pytest.raises(RehearsalError, match="does not offer"):
        aws.cloud.set_capacity("z9.huge", "*", 0)


def test_requests_are_limited_by_buckets(aws: Aws):
    aws.cloud.limit(1.0)
    for _ in range(50):
        aws.ec2.describe_vpcs()
    with refused("RequestLimitExceeded"):
        aws.ec2.describe_vpcs()
    aws.clock.forward(0.2)
    aws.ec2.describe_vpcs()
    aws.cloud.limit(None)
    aws.ec2.describe_vpcs()


def test_instances_are_limited_by_their_own_bucket():
    now = [1000.0]
    limits = Limits(lambda: now[0])
    thousand = {"TargetCapacitySpecification.TotalTargetCapacity": "1000"}
    assert not limits.refuses("CreateFleet", thousand)
    limits.start(0.9)
    assert limits.refuses("CreateFleet", thousand)
    now[0] += 50
    assert not limits.refuses("CreateFleet", thousand)
    assert limits.refuses("RunInstances", {"MaxCount": "1"})
    now[0] += 0.5
    assert not limits.refuses("RunInstances", {"MaxCount": "1"})
    limits.start(0.9)
    ids = {f"InstanceId.{number}": "i-1" for number in range(901)}
    assert limits.refuses("TerminateInstances", ids)
    ids.popitem()
    assert not limits.refuses("TerminateInstances", ids)


@pytest.mark.parametrize(
    ("action", "form", "rate"),
    [
        ("DescribeInstances", {}, (50, 10)),
        ("DescribeInstances", NARROW, (100, 20)),
        ("DescribeInstances", {"Filter.1.Name": "x"}, (100, 20)),
        ("DescribeVolumes", {"VolumeId.1": "vol-1"}, (100, 20)),
        ("CreateFleet", {}, (50, 5)),
        ("RunInstances", {}, (5, 2)),
    ],
)
def test_buckets_of_requests(action, form, rate):
    assert request_rate(action, form) == rate
