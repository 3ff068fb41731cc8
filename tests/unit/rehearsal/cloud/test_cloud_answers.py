"""Filters, pages, tags, console, passwords, prices, and what is refused loudly."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from simulated_ec2 import START, Aws, refused

from rehearsal.cloud.filters import pattern
from rehearsal.cloud.prices import on_demand_price, spot_price
from rehearsal.interfaces import RehearsalError

# ---------------------------------------------------------------------------------------------------- DescribeInstances


def ids(aws: Aws, name: str, *values: str) -> set[str]:
    pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": name, "Values": list(values)}])
    return {item["InstanceId"] for page in pages for entry in page["Reservations"] for item in entry["Instances"]}


def test_pages_count_instances(aws: Aws) -> None:
    """MaxResults counts instances, not reservations; a reservation may be shown in parts."""
    subnet = aws.subnet()
    aws.launch(subnet, 7)
    aws.launch(subnet, 5)
    sizes, seen = [], set()
    for page in aws.ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}):
        found = [item["InstanceId"] for entry in page["Reservations"] for item in entry["Instances"]]
        sizes.append(len(found))
        seen |= set(found)
    assert (sizes, len(seen)) == ([5, 5, 2], 12)
    with refused("InvalidParameterCombination"):
        aws.ec2.describe_instances(InstanceIds=[next(iter(seen))], MaxResults=5)
    with refused("InvalidParameterValue"):
        aws.ec2.describe_instances(MaxResults=4)
    with refused("InvalidParameterValue"):
        aws.ec2.describe_instances(NextToken="bogus")


def test_filters_of_instances(aws: Aws) -> None:
    subnet = aws.subnet()
    spot = aws.launch(
        subnet,
        InstanceMarketOptions={"MarketType": "spot"},
        ClientToken="batch-1",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "render_node"}]}],
    )[0]
    aws.running()
    plain = aws.launch(subnet, PrivateIpAddress="10.0.0.10")[0]
    one, other = {spot["InstanceId"]}, {plain["InstanceId"]}
    nic = plain["NetworkInterfaces"][0]
    for name, value, expected in (
        ("instance-lifecycle", "spot", one),
        ("client-token", "batch-1", one),
        ("spot-instance-request-id", spot["SpotInstanceRequestId"], one),
        ("instance-state-name", "running", one),
        ("instance-state-code", "0", other),
        ("tag:role", "render_*", one),
        ("tag:role", "render_nod?", one),
        ("tag:role", "render", set()),
        ("tag-key", "role", one),
        ("platform", "windows", one | other),
        ("launch-time", "2026-*", one | other),
        ("private-ip-address", "10.0.0.10", other),
        ("network-interface.network-interface-id", nic["NetworkInterfaceId"], other),
        ("network-interface.mac-address", nic["MacAddress"], other),
        ("network-interface.addresses.private-ip-address", "10.0.0.10", other),
        ("subnet-id", subnet, one | other),
        ("instance-type", "c*", set()),
    ):
        assert ids(aws, name, value) == expected, name
    reservation = aws.ec2.describe_instances(InstanceIds=list(other))["Reservations"][0]["ReservationId"]
    assert ids(aws, "reservation-id", reservation) == other
    assert ids(aws, "instance-state-name", "pending", "running") == one | other


@pytest.mark.parametrize(
    ("call", "name", "code"),
    [
        ("describe_instances", "colour", "InvalidParameterValue"),
        ("describe_instances", "tenancy-of-a-kind", "InvalidParameterValue"),
        ("describe_instances", "affinity", "RehearsalNotImplemented"),
        ("describe_vpcs", "colour", "InvalidParameterValue"),
        ("describe_security_groups", "colour", "InvalidParameterValue"),
        ("describe_images", "product-code", "RehearsalNotImplemented"),
    ],
)
def test_unknown_filters(aws: Aws, call: str, name: str, code: str) -> None:
    """EC2 refuses what it does not know; what only the rehearsal does not know is said to be so."""
    aws.vpc()
    with refused(code):
        getattr(aws.ec2, call)(Filters=[{"Name": name, "Values": ["x"]}])


def test_wildcards_can_be_escaped() -> None:
    assert pattern(r"a\*b?").fullmatch("a*bc")
    assert not pattern(r"a\*b?").fullmatch("axbc")
    assert pattern("*").fullmatch("line\nbreak")
    assert not pattern("a.c").fullmatch("abc")


# ----------------------------------------------------------------------------------------------------------------- tags


def test_tags_of_anything(aws: Aws) -> None:
    vpc = aws.vpc()
    subnet = aws.subnet(vpc)
    name = aws.launch(subnet)[0]["InstanceId"]
    aws.ec2.create_tags(Resources=[vpc, name], Tags=[{"Key": "farm", "Value": "studio"}, {"Key": "x", "Value": "1"}])
    found = aws.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [name]}])["Tags"]
    assert {(tag["Key"], tag["ResourceType"]) for tag in found} == {("farm", "instance"), ("x", "instance")}
    assert aws.ec2.describe_vpcs(Filters=[{"Name": "tag:farm", "Values": ["studio"]}])["Vpcs"][0]["VpcId"] == vpc
    aws.ec2.delete_tags(Resources=[name], Tags=[{"Key": "x", "Value": "other"}])
    aws.ec2.delete_tags(Resources=[name], Tags=[{"Key": "farm"}])
    assert aws.instance(name)["Tags"] == [{"Key": "x", "Value": "1"}]
    assert aws.cloud.view().instances[0].tags == {"x": "1"}


def test_tags_that_are_refused(aws: Aws) -> None:
    """Reserved keys, more than fifty, and resources that do not exist."""
    vpc = aws.vpc()
    with refused("InvalidParameterValue"):
        aws.ec2.create_tags(Resources=[vpc], Tags=[{"Key": "aws:x", "Value": "1"}])
    with refused("TagLimitExceeded"):
        aws.ec2.create_tags(Resources=[vpc], Tags=[{"Key": str(number), "Value": ""} for number in range(51)])
    with refused("InvalidInstanceID.NotFound"):
        aws.ec2.create_tags(Resources=["i-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "b"}])
    with refused("InvalidID"):
        aws.ec2.create_tags(Resources=["vpc-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "b"}])


# ------------------------------------------------------------------------------------------------- console and password


def test_console_output_with_and_without_latest(aws: Aws) -> None:
    """Latest shows what is there; without it one sees what was there at the last change of state."""
    name = aws.launch()[0]["InstanceId"]
    assert "Output" not in aws.ec2.get_console_output(InstanceId=name, Latest=True)
    aws.clock.forward(2)
    aws.cloud.console_write(name, b"RENDERFARM-CERTIFICATE abc\r\n")
    answer = aws.ec2.get_console_output(InstanceId=name, Latest=True)
    assert answer["Output"] == "RENDERFARM-CERTIFICATE abc\r\n"
    assert answer["Timestamp"].timestamp() == START + 2
    assert "Output" not in aws.ec2.get_console_output(InstanceId=name)
    aws.ec2.stop_instances(InstanceIds=[name])
    assert aws.ec2.get_console_output(InstanceId=name)["Output"] == "RENDERFARM-CERTIFICATE abc\r\n"


def test_the_console_keeps_64_kib(aws: Aws) -> None:
    name = aws.launch()[0]["InstanceId"]
    aws.cloud.console_write(name, b"a" * 65536)
    aws.cloud.console_write(name, b"end")
    assert aws.cloud.console(name) == b"a" * 65533 + b"end"
    with pytest.raises(RehearsalError, match="i-0"):
        aws.cloud.console("i-0")


def test_the_password_is_for_the_owner_of_the_key(aws: Aws) -> None:
    """Empty until the guest publishes it; encrypted with the key pair, PKCS #1 v1.5."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    aws.ec2.import_key_pair(KeyName="studio", PublicKeyMaterial=public)
    name = aws.launch(KeyName="studio")[0]["InstanceId"]
    assert aws.ec2.get_password_data(InstanceId=name)["PasswordData"] == ""
    aws.ec2.delete_key_pair(KeyName="studio")
    aws.cloud.password_data(name, "S3cret!")
    data = base64.b64decode(aws.ec2.get_password_data(InstanceId=name)["PasswordData"])
    assert private.decrypt(data, padding.PKCS1v15()) == b"S3cret!"
    other = aws.launch(aws.subnet(aws.vpc("10.1.0.0/24"), "10.1.0.0/24"))[0]["InstanceId"]
    with pytest.raises(RehearsalError, match="without a key pair"):
        aws.cloud.password_data(other, "S3cret!")


# --------------------------------------------------------------------------------------------------------------- prices


def test_spot_prices_of_windows(aws: Aws) -> None:
    """Per type and zone, recent, above the licence and below on-demand."""
    answer = aws.ec2.describe_spot_price_history(
        InstanceTypes=["c7i.4xlarge"], ProductDescriptions=["Windows"], StartTime=START
    )["SpotPriceHistory"]
    assert {entry["AvailabilityZone"] for entry in answer} == {f"eu-central-1{zone}" for zone in "abc"}
    for entry in answer:
        assert 16 * 0.046 < float(entry["SpotPrice"]) < on_demand_price("c7i.4xlarge")
        assert 0 <= START - entry["Timestamp"].timestamp() < 6 * 3600
    week = aws.ec2.describe_spot_price_history(
        InstanceTypes=["c7i.4xlarge"],
        ProductDescriptions=["Windows"],
        AvailabilityZone="eu-central-1a",
        StartTime=START - 7 * 86400,
    )["SpotPriceHistory"]
    assert len(week) >= 28
    assert len({entry["SpotPrice"] for entry in week}) > 5
    assert spot_price("c7i.4xlarge", "eu-central-1a", START, "Linux/UNIX") < float(week[0]["SpotPrice"])


def test_types_and_where_they_are_offered(aws: Aws) -> None:
    types = aws.ec2.describe_instance_types(InstanceTypes=["c7i.4xlarge"])["InstanceTypes"]
    assert types[0]["VCpuInfo"]["DefaultVCpus"] == 16
    offers = aws.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["c7i.4xlarge"]}]
    )["InstanceTypeOfferings"]
    assert {offer["Location"] for offer in offers} == {f"eu-central-1{zone}" for zone in "abc"}


# -------------------------------------------------------------------------------------------------------- loud refusals


@pytest.mark.parametrize(
    ("service", "call", "params"),
    [
        ("ec2", "create_nat_gateway", {"SubnetId": "subnet-1"}),
        ("ec2", "request_spot_instances", {}),
        ("ec2", "create_snapshot", {"VolumeId": "vol-1"}),
        ("ec2", "create_vpc", {"AmazonProvidedIpv6CidrBlock": True}),
        ("ssm", "put_parameter", {"Name": "a", "Value": "b", "Type": "String"}),
        ("iam", "list_roles", {}),
        ("s3", "list_buckets", {}),
        ("autoscaling", "describe_auto_scaling_groups", {}),
    ],
)
def test_what_is_not_modelled_fails(aws: Aws, service: str, call: str, params: dict[str, Any]) -> None:
    """An error in the form of AWS, which names the action, and which botocore does not repeat."""
    with pytest.raises(ClientError) as error:
        getattr(aws.client(service), call)(**params)
    assert error.value.response["Error"]["Code"] == "RehearsalNotImplemented"
    assert "does not model" in error.value.response["Error"]["Message"]
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_other_regions_are_not_rehearsed(aws: Aws) -> None:
    with refused("RehearsalNotImplemented"):
        aws.client("ec2", "us-east-1").describe_instances()


def test_who_am_i(aws: Aws) -> None:
    assert aws.client("sts", "us-east-1").get_caller_identity()["Account"] == "123456789012"
    assert aws.client("iam").list_account_aliases()["AccountAliases"] == ["rehearsal"]


def test_a_dry_run_changes_nothing(aws: Aws) -> None:
    for call, params in (
        ("create_vpc", {"CidrBlock": "10.0.0.0/24"}),
        ("allocate_address", {}),
        ("create_launch_template", {"LaunchTemplateName": "abc", "LaunchTemplateData": {"KeyName": "k"}}),
    ):
        with pytest.raises(ClientError) as error:
            getattr(aws.ec2, call)(DryRun=True, **params)
        assert error.value.response["Error"]["Code"] == "DryRunOperation"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert not aws.cloud.view().vpcs
    assert not any(call.mutating for call in aws.cloud.calls)


# ----------------------------------------------------------------------------------------------------- calls and faults


def test_calls_are_recorded(aws: Aws, call_log: Path) -> None:
    """Service, action, region, agent, outcome; also as lines of JSON."""
    before = len(call_log.read_text().splitlines())
    aws.vpc()
    with refused("InvalidVpcID.NotFound"):
        aws.ec2.delete_vpc(VpcId="vpc-0")
    aws.client("ssm").get_parameters_by_path(Path="/")
    seen = [(call.service, call.action, call.mutating, call.status, call.error) for call in aws.cloud.calls]
    assert seen == [
        ("ec2", "CreateVpc", True, 200, None),
        ("ec2", "DeleteVpc", True, 400, "InvalidVpcID.NotFound"),
        ("ssm", "GetParametersByPath", False, 200, None),
    ]
    assert "Botocore" in aws.cloud.calls[0].agent
    lines = [json.loads(line) for line in call_log.read_text().splitlines()[before:]]
    assert [line["action"] for line in lines] == ["CreateVpc", "DeleteVpc", "GetParametersByPath"]
    assert lines[0]["region"] == "eu-central-1"
    assert lines[0]["time"] == START


def test_throttling_and_injected_errors(aws: Aws) -> None:
    """The next calls fail, later ones do not."""
    aws.cloud.throttle("DescribeInstances", 2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            aws.ec2.describe_instances()
        assert error.value.response["Error"]["Code"] == "RequestLimitExceeded"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    aws.ec2.describe_instances()
    aws.cloud.fail_next("*", "UnauthorizedOperation")
    with refused("UnauthorizedOperation"):
        aws.vpc()
    aws.vpc()
    assert [call.error for call in aws.cloud.calls][:2] == ["RequestLimitExceeded"] * 2


def test_an_api_that_is_down(aws: Aws) -> None:
    """The connection ends without an answer."""
    aws.cloud.api_down(True)
    with pytest.raises(HTTPClientError):
        aws.ec2.describe_vpcs()
    aws.cloud.api_down(False)
    assert aws.ec2.describe_vpcs()["Vpcs"] == []
    assert [(call.status, call.error) for call in aws.cloud.calls] == [(0, "ConnectionReset"), (200, None)]


def test_reset_forgets_everything(aws: Aws) -> None:
    aws.launch()
    aws.cloud.set_capacity("m7i.xlarge", "eu-central-1a", 0)
    aws.cloud.reset()
    assert aws.cloud.calls == []
    assert not aws.cloud.view().vpcs
    assert aws.launch()


def test_identifiers_have_the_form_of_aws(aws: Aws) -> None:
    instance = aws.launch()[0]
    assert re.fullmatch(r"i-[0-9a-f]{17}", instance["InstanceId"])
    assert re.fullmatch(r"0a(:[0-9a-f]{2}){5}", instance["NetworkInterfaces"][0]["MacAddress"])
    assert instance["PrivateDnsName"] == "ip-{}.eu-central-1.compute.internal".format(
        instance["PrivateIpAddress"].replace(".", "-")
    )


def test_a_thousand_instances_are_described_quickly(aws: Aws) -> None:
    """The view and one listing stay fast: tags are found by identifier."""
    vpc = aws.vpc("10.0.0.0/16")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "farm", "Value": "studio"}, {"Key": "n", "Value": "1"}]}]
    aws.launch(aws.subnet(vpc, "10.0.0.0/20"), 1000, TagSpecifications=tags)
    started = time.process_time()
    assert len(aws.cloud.view().instances) == 1000
    assert time.process_time() - started < 1
    started = time.process_time()
    assert len(ids(aws, "tag:farm", "studio")) == 1000
    assert time.process_time() - started < 10
