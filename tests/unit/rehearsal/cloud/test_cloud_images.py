"""Images, snapshots and the stock image."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_ec2 import Aws, refused

from rehearsal.interfaces import RehearsalError

PARAMETER = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"


@pytest.fixture
def source(aws: Aws) -> str:
    """A running instance with two disks."""
    disks = [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 60}},
        {"DeviceName": "xvdf", "Ebs": {"VolumeSize": 5, "DeleteOnTermination": True}},
    ]
    name = aws.launch(BlockDeviceMappings=disks)[0]["InstanceId"]
    aws.running()
    return name


def image(aws: Aws, name: str) -> dict[str, Any]:
    return aws.ec2.describe_images(ImageIds=[name])["Images"][0]


def create(aws: Aws, source: str, name: str = "farm-1", **params: Any) -> str:
    return aws.ec2.create_image(InstanceId=source, Name=name, **params)["ImageId"]


def ready(aws: Aws, name: str) -> None:
    aws.cloud.image_ready(name)
    aws.running()


def test_the_stock_image_and_its_parameter(aws: Aws) -> None:
    """The SSM parameter names Amazon's Windows image, whose platform and root device are as on AWS."""
    ssm = aws.client("ssm")
    name = ssm.get_parameter(Name=PARAMETER)["Parameter"]["Value"]
    shown = aws.ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "platform", "Values": ["windows"]}])["Images"]
    assert [item["ImageId"] for item in shown] == [name]
    assert shown[0]["Name"] == "Windows_Server-2022-English-Full-Base-2026.10.14"
    assert (shown[0]["Platform"], shown[0]["RootDeviceName"], shown[0]["Public"]) == ("windows", "/dev/sda1", True)
    assert shown[0]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 30
    path = ssm.get_parameters_by_path(Path="/aws/service/ami-windows-latest")["Parameters"]
    assert [entry["Value"] for entry in path] == [name]
    both = ssm.get_parameters(Names=[PARAMETER, "/absent"])
    assert (len(both["Parameters"]), both["InvalidParameters"]) == (1, ["/absent"])
    assert aws.ec2.describe_images(Owners=["self"])["Images"] == []
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_an_image_is_pending_until_its_disk_was_copied(aws: Aws, source: str) -> None:
    """Time alone does not make it available; neither does the copy before the delay."""
    name = create(aws, source)
    aws.clock.forward(60)
    assert image(aws, name)["State"] == "pending"
    with refused("InvalidAMIID.Unavailable"):
        aws.launch(ImageId=name)
    assert {item["State"] for item in aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]} == {"pending"}
    aws.cloud.image_ready(name)
    assert image(aws, name)["State"] == "available"
    assert {item["State"] for item in aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]} == {"completed"}
    assert aws.launch(aws.subnet(aws.vpc("10.5.0.0/24"), "10.5.0.0/24"), ImageId=name)


def test_a_failed_copy(aws: Aws, source: str) -> None:
    name = create(aws, source)
    aws.cloud.image_ready(name, error="disk full")
    aws.running()
    shown = image(aws, name)
    assert (shown["State"], shown["StateReason"]["Message"]) == ("failed", "disk full")
    assert aws.cloud.view().images[-1].state == "failed"
    with pytest.raises(RehearsalError, match="ami-0"):
        aws.cloud.image_ready("ami-0")


def test_one_snapshot_per_disk_with_tags_and_mapping(aws: Aws, source: str) -> None:
    """Sizes, kinds and DeleteOnTermination of the volumes are copied; image and snapshots are tagged."""
    tags = [{"ResourceType": kind, "Tags": [{"Key": "farm", "Value": kind}]} for kind in ("image", "snapshot")]
    name = create(aws, source, TagSpecifications=tags, Description="for nodes")
    shown = image(aws, name)
    assert shown["Tags"] == [{"Key": "farm", "Value": "image"}]
    assert (shown["SourceInstanceId"], shown["Platform"], shown["Description"]) == (source, "windows", "for nodes")
    disks = {item["DeviceName"]: item["Ebs"] for item in shown["BlockDeviceMappings"]}
    assert {device: (ebs["VolumeSize"], ebs["DeleteOnTermination"]) for device, ebs in disks.items()} == {
        "/dev/sda1": (60, True),
        "xvdf": (5, True),
    }
    snapshots = aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert sorted(item["VolumeSize"] for item in snapshots) == [5, 60]
    assert all(item["Tags"] == [{"Key": "farm", "Value": "snapshot"}] for item in snapshots)
    assert {item["VolumeId"] for item in snapshots} == {item["VolumeId"] for item in aws.volumes(source)}
    ready(aws, name)
    launched = aws.launch(aws.subnet(aws.vpc("10.5.0.0/24"), "10.5.0.0/24"), ImageId=name)[0]
    assert sorted(item["Size"] for item in aws.volumes(launched["InstanceId"])) == [5, 60]
    assert aws.cloud.view().images[-1].source_instance_id == source


def test_names_are_unique_and_well_formed(aws: Aws, source: str) -> None:
    create(aws, source)
    with refused("InvalidAMIName.Duplicate"):
        create(aws, source)
    for name in ("farm#1", "färm"):
        with refused("InvalidAMIName.Malformed"):
            create(aws, source, name)


def test_imaging_reboots_unless_told_not_to(aws: Aws, source: str) -> None:
    """A running source is rebooted; NoReboot and a stopped source are left alone."""
    create(aws, source, "one", NoReboot=True)
    assert aws.cloud.view().instances[0].boots == 1
    create(aws, source, "two")
    assert aws.cloud.view().instances[0].boots == 2
    aws.ec2.stop_instances(InstanceIds=[source])
    aws.running()
    create(aws, source, "three")
    assert aws.cloud.view().instances[0].boots == 2
    aws.ec2.terminate_instances(InstanceIds=[source])
    with refused("IncorrectInstanceState"):
        create(aws, source, "four")


def test_a_snapshot_of_an_image_stays(aws: Aws, source: str) -> None:
    name = create(aws, source)
    snapshot = image(aws, name)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    with refused("InvalidSnapshot.InUse"):
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    answer = aws.ec2.deregister_image(ImageId=name)
    assert "DeleteSnapshotResults" not in answer
    aws.ec2.delete_snapshot(SnapshotId=snapshot)
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_deregistering_with_its_snapshots(aws: Aws, source: str) -> None:
    """DeleteAssociatedSnapshots deletes them and says so; the image is gone for launches."""
    name = create(aws, source)
    answer = aws.ec2.deregister_image(ImageId=name, DeleteAssociatedSnapshots=True)
    assert [entry["ReturnCode"] for entry in answer["DeleteSnapshotResults"]] == ["success", "success"]
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    with refused("InvalidAMIID.NotFound"):
        image(aws, name)
    with refused("InvalidAMIID.Unavailable"):
        aws.launch(ImageId=name)
    aws.cloud.image_ready(name)  # a copy that ends too late is no error
    with refused("AuthFailure"):
        aws.ec2.deregister_image(ImageId=aws.image())


def test_image_attributes(aws: Aws, source: str) -> None:
    name = create(aws, source)
    aws.ec2.modify_image_attribute(ImageId=name, Description={"Value": "new"})
    assert image(aws, name)["Description"] == "new"
    shown = aws.ec2.describe_image_attribute(ImageId=name, Attribute="launchPermission")
    assert shown["LaunchPermissions"] == []
    with refused("RehearsalNotImplemented"):
        aws.ec2.modify_image_attribute(ImageId=name, LaunchPermission={"Add": [{"Group": "all"}]})
