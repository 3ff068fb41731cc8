"""RunInstances and launch templates."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from botocore.exceptions import ClientError
from simulated_ec2 import Aws, refused


def test_pending_becomes_running_after_a_while(aws: Aws) -> None:
    """An instance is pending before it runs."""
    instance = aws.launch()[0]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    assert aws.state(instance["InstanceId"]) == "pending"
    aws.clock.forward(1.1)
    assert aws.state(instance["InstanceId"]) == "running"


def test_template_fields_reach_the_instance(aws: Aws) -> None:
    """Market, metadata options, shutdown behaviour, monitoring and tags come from the template."""
    template = aws.template(
        InstanceMarketOptions={"MarketType": "spot"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        InstanceInitiatedShutdownBehavior="terminate",
        EbsOptimized=True,
        UserData=base64.b64encode(b"hello").decode(),
        TagSpecifications=[
            {"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]}
            for kind in ("instance", "volume", "network-interface", "spot-instances-request")
        ],
    )
    instance = aws.launch(LaunchTemplate={"LaunchTemplateId": template}, SubnetId=aws.subnet())[0]
    assert instance["InstanceLifecycle"] == "spot"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["MetadataOptions"]["InstanceMetadataTags"] == "enabled"
    assert instance["EbsOptimized"]
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags == {
        "kind": "instance",
        "aws:ec2launchtemplate:id": template,
        "aws:ec2launchtemplate:version": "1",
    }
    behavior = aws.ec2.describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert behavior["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    assert aws.volumes(instance["InstanceId"])[0]["Tags"] == [{"Key": "kind", "Value": "volume"}]
    interface = aws.ec2.describe_network_interfaces()["NetworkInterfaces"][0]
    assert interface["TagSet"] == [{"Key": "kind", "Value": "network-interface"}]
    request = aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]
    assert request["SpotInstanceRequestId"] == instance["SpotInstanceRequestId"]
    assert (request["State"], request["InstanceId"]) == ("active", instance["InstanceId"])
    assert request["Tags"] == [{"Key": "kind", "Value": "spot-instances-request"}]
    view = aws.cloud.view().instances[0]
    assert (view.user_data, view.lifecycle, view.metadata_token_required) == (b"hello", "spot", True)


def test_the_request_wins_over_the_template(aws: Aws) -> None:
    """A parameter of the request replaces the template's; tags are united, the request winning."""
    tags = [{"Key": "a", "Value": "template"}, {"Key": "b", "Value": "template"}]
    template = aws.template(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    instance = aws.launch(
        LaunchTemplate={"LaunchTemplateId": template},
        SubnetId=aws.subnet(),
        InstanceType="c7i.4xlarge",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "request"}]}],
    )[0]
    assert instance["InstanceType"] == "c7i.4xlarge"
    found = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert (found["a"], found["b"]) == ("request", "template")


def test_a_mapping_replaces_the_root_volume(aws: Aws) -> None:
    """One root volume, of the mapping's size, made from the image's snapshot; nothing remains after termination."""
    template = aws.template(
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 100, "VolumeType": "gp3"}}]
    )
    instance = aws.launch(LaunchTemplate={"LaunchTemplateId": template}, SubnetId=aws.subnet())[0]
    volume = aws.volumes(instance["InstanceId"])[0]
    assert (volume["Size"], volume["VolumeType"], volume["Iops"], volume["Throughput"]) == (100, "gp3", 3000, 125)
    image = aws.ec2.describe_images(Owners=["amazon"])["Images"][0]
    assert volume["SnapshotId"] == image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    aws.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    aws.running()
    assert aws.ec2.describe_volumes()["Volumes"] == []


def test_volumes_that_the_image_lacks_survive_by_default(aws: Aws) -> None:
    """DeleteOnTermination defaults to true for the root of the stock image and to false for further volumes."""
    instance = aws.launch(BlockDeviceMappings=[{"DeviceName": "xvdf", "Ebs": {"VolumeSize": 5}}])[0]
    assert len(aws.volumes(instance["InstanceId"])) == 2
    aws.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    aws.running()
    left = aws.ec2.describe_volumes()["Volumes"]
    assert [(volume["Size"], volume["State"]) for volume in left] == [(5, "available")]


def test_a_volume_smaller_than_its_snapshot_is_refused(aws: Aws) -> None:
    with refused("InvalidBlockDeviceMapping"):
        aws.launch(BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}])


def test_the_same_token_gives_the_same_instances(aws: Aws) -> None:
    """ClientToken: same parameters, same result; other parameters are refused."""
    subnet = aws.subnet()
    first = aws.launch(subnet, 2, ClientToken="batch-1")
    again = aws.launch(subnet, 2, ClientToken="batch-1")
    assert [item["InstanceId"] for item in first] == [item["InstanceId"] for item in again]
    assert len(aws.cloud.view().instances) == 2
    with refused("IdempotentParameterMismatch"):
        aws.launch(subnet, 3, ClientToken="batch-1")
    with refused("InvalidParameterValue"):
        aws.launch(subnet, 3, ClientToken="x" * 65)


def test_as_many_as_fit_between_min_and_max(aws: Aws) -> None:
    """MinCount to MaxCount: as many as there is capacity for, or none."""
    aws.cloud.set_capacity("m7i.xlarge", "eu-central-1a", 3)
    subnet = aws.subnet()
    assert len(aws.launch(subnet, 5, MinCount=1)) == 3
    with pytest.raises(ClientError) as error:
        aws.launch(subnet, 5, MinCount=1)
    assert error.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_capacity_comes_back_with_terminated_instances(aws: Aws) -> None:
    aws.cloud.set_capacity("m7i.xlarge", "eu-central-1a", 1)
    subnet = aws.subnet()
    first = aws.launch(subnet)[0]["InstanceId"]
    aws.ec2.terminate_instances(InstanceIds=[first])
    aws.running()
    assert aws.launch(subnet)


def test_spot_capacity_is_apart(aws: Aws) -> None:
    """A pool may be dry for spot and still have room for on-demand."""
    aws.cloud.set_capacity("m7i.xlarge", "eu-central-1a", 0, "spot")
    subnet = aws.subnet()
    with refused("InsufficientInstanceCapacity"):
        aws.launch(subnet, InstanceMarketOptions={"MarketType": "spot"})
    assert aws.launch(subnet)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "windows"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m99.large"}, "InvalidParameterValue"),
        ({"InstanceType": "c7g.xlarge"}, "InvalidParameterValue"),
        ({"KeyName": "absent"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"PrivateIpAddress": "10.9.9.9"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"Placement": {"AvailabilityZone": "eu-central-1b"}}, "InvalidParameterValue"),
        ({"CpuOptions": {"CoreCount": 1}}, "RehearsalNotImplemented"),
        (
            {"MetadataOptions": {"HttpTokens": "required"}, "IamInstanceProfile": {"Name": "x"}},
            "RehearsalNotImplemented",
        ),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a"}]}]}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:x"}]}]}, "InvalidParameterValue"),
    ],
    ids=str,
)
def test_what_ec2_refuses_leaves_nothing_behind(aws: Aws, params: dict[str, Any], code: str) -> None:
    """Unknown or impossible parameters are refused before anything is made."""
    subnet = aws.subnet()
    with refused(code):
        aws.launch(subnet, **params)
    assert not aws.cloud.view().instances
    assert not aws.ec2.describe_network_interfaces()["NetworkInterfaces"]


def test_a_launch_without_a_subnet_is_refused(aws: Aws) -> None:
    """There is no default VPC."""
    with refused("MissingInput"):
        aws.ec2.run_instances(ImageId=aws.image(), InstanceType="m7i.xlarge", MinCount=1, MaxCount=1)


def test_the_image_may_be_named_by_its_parameter(aws: Aws) -> None:
    """resolve:ssm: is resolved at launch."""
    name = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"
    subnet = aws.subnet()
    assert aws.launch(subnet, ImageId=f"resolve:ssm:{name}")[0]["ImageId"] == aws.image()
    with refused("InvalidParameterValue"):
        aws.launch(subnet, ImageId="resolve:ssm:/absent")


def test_windows_needs_an_rsa_key(aws: Aws) -> None:
    aws.ec2.create_key_pair(KeyName="ed", KeyType="ed25519")
    with refused("InvalidParameterCombination"):
        aws.launch(KeyName="ed")


def test_user_data_of_16_kib_is_accepted(aws: Aws) -> None:
    aws.launch(UserData="x" * 16384)
    assert len(aws.cloud.view().instances[0].user_data) == 16384


def test_interfaces_exclude_subnet_and_groups(aws: Aws) -> None:
    """Network interfaces and an instance-level subnet or group may not be specified together."""
    subnet = aws.subnet()
    for name, value in (("SubnetId", subnet), ("SecurityGroupIds", ["sg-1"])):
        with refused("InvalidParameterCombination"):
            aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet}], **{name: value})


def test_a_full_subnet_gives_no_instance(aws: Aws) -> None:
    """A /28 has 11 usable addresses: the first four and the last are reserved."""
    vpc = aws.vpc()
    subnet = aws.subnet(vpc, "10.0.0.0/28")
    made = aws.launch(subnet, 20, MinCount=1)
    assert sorted(int(item["PrivateIpAddress"].split(".")[3]) for item in made) == list(range(4, 15))
    with refused("InsufficientFreeAddressesInSubnet"):
        aws.launch(subnet)
    assert aws.ec2.describe_subnets()["Subnets"][0]["AvailableIpAddressCount"] == 0


# ----------------------------------------------------------------------------------------------------------- templates


def test_template_tags_stay_out_of_the_data(aws: Aws) -> None:
    """TagSpecifications of the call tag the template; they are no part of what it launches."""
    answer = aws.ec2.create_launch_template(
        LaunchTemplateName="farm",
        LaunchTemplateData={"InstanceType": "m7i.xlarge"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}],
    )["LaunchTemplate"]
    assert answer["Tags"] == [{"Key": "a", "Value": "b"}]
    version = aws.ec2.describe_launch_template_versions(LaunchTemplateName="farm")["LaunchTemplateVersions"][0]
    assert version["LaunchTemplateData"] == {"InstanceType": "m7i.xlarge"}


def test_a_version_made_from_a_source_merges(aws: Aws) -> None:
    """SourceVersion: the old fields remain unless given anew."""
    template = aws.template(KeyName="k")
    version = aws.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "c7i.4xlarge"}
    )["LaunchTemplateVersion"]
    assert (version["VersionNumber"], version["DefaultVersion"]) == (2, False)
    data = version["LaunchTemplateData"]
    assert (data["KeyName"], data["InstanceType"]) == ("k", "c7i.4xlarge")
    aws.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    shown = aws.ec2.describe_launch_templates()["LaunchTemplates"][0]
    assert (shown["DefaultVersionNumber"], shown["LatestVersionNumber"]) == (2, 2)
    deleted = aws.ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["1", "2", "7"])
    assert [item["VersionNumber"] for item in deleted["SuccessfullyDeletedLaunchTemplateVersions"]] == [1]
    assert len(deleted["UnsuccessfullyDeletedLaunchTemplateVersions"]) == 2


def test_templates_are_checked_when_they_are_made(aws: Aws) -> None:
    aws.template()
    for data, code in (
        ({}, "InvalidLaunchTemplateName.AlreadyExistsException"),
        ({"CreditSpecification": {"CpuCredits": "unlimited"}}, "RehearsalNotImplemented"),
        ({"UserData": base64.b64encode(b"x" * 16385).decode()}, "InvalidParameterValue"),
        ({"UserData": "not base64!"}, "InvalidUserData.Malformed"),
    ):
        name = "nodes" if not data else "other"
        with refused(code):
            aws.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data or {"KeyName": "k"})


def test_unknown_templates_and_versions(aws: Aws) -> None:
    template = aws.template()
    with refused("InvalidLaunchTemplateId.NotFound"):
        aws.ec2.describe_launch_templates(LaunchTemplateIds=["lt-0123456789abcdef0"])
    with refused("InvalidLaunchTemplateName.NotFoundException"):
        aws.ec2.describe_launch_templates(LaunchTemplateNames=["absent"])
    with refused("InvalidLaunchTemplateId.VersionNotFound"):
        aws.launch(LaunchTemplate={"LaunchTemplateId": template, "Version": "9"}, SubnetId=aws.subnet())
    aws.ec2.delete_launch_template(LaunchTemplateId=template)
    assert aws.ec2.describe_launch_templates()["LaunchTemplates"] == []
