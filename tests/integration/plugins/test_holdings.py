"""What a farm holds, listed and deleted against the rehearsal's region."""

from __future__ import annotations

import re

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import holdings

from rehearsal.cloud import prices

FARM = {"Key": "renderfarm:farm", "Value": "studio"}


def tags(kind: str) -> list[dict]:
    return [{"ResourceType": kind, "Tags": [FARM]}]


@pytest.fixture
def clients(cloud, session):
    return lambda service: session(service)


@pytest.fixture
def farm(cloud, client) -> dict[str, str]:
    """One of everything, also some things that a killed run left without a tag."""
    vpc = client.create_vpc(CidrBlock="10.0.0.0/24", TagSpecifications=tags("vpc"))["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1a")["Subnet"]
    gateway = client.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    client.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = client.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    client.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
    client.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    group = client.create_security_group(GroupName="studio-node", Description="x", VpcId=vpc)["GroupId"]
    client.create_key_pair(KeyName="studio", KeyType="rsa", TagSpecifications=tags("key-pair"))
    interface = client.create_network_interface(SubnetId=subnet["SubnetId"], Groups=[group])["NetworkInterface"]
    address = client.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip"))["AllocationId"]
    client.associate_address(AllocationId=address, NetworkInterfaceId=interface["NetworkInterfaceId"])
    stock = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    client.create_launch_template(
        LaunchTemplateName="studio-render-node",
        LaunchTemplateData={"ImageId": stock},
        TagSpecifications=tags("launch-template"),
    )
    machine = client.run_instances(
        ImageId=stock,
        InstanceType="m7i.xlarge",
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface["NetworkInterfaceId"]}],
        TagSpecifications=tags("instance"),
    )["Instances"][0]["InstanceId"]
    client.describe_instances()
    image = client.create_image(InstanceId=machine, Name="studio-1", TagSpecifications=tags("image"))["ImageId"]
    client.describe_images(Owners=["self"])
    client.enable_fast_launch(ImageId=image)
    cloud.region.log_groups["/renderfarm/studio/nodes"] = 2**30
    return {"machine": machine, "image": image}


def kinds(found) -> dict[str, int]:
    counted: dict[str, int] = {}
    for thing in found:
        counted[thing.kind] = counted.get(thing.kind, 0) + 1
    return counted


def test_everything_is_found_and_goes(cloud, client, clients, farm):
    found, unreadable = holdings.survey(clients, "studio", "eu-central-1")
    assert unreadable == []
    assert kinds(found) == {
        "instance": 1,
        "Fast Launch": 1,
        "public address": 1,
        "network interface": 1,
        "volume": 1,
        "launch template": 1,
        "image": 1,
        "Fast Launch snapshot": 5,
        "snapshot": 1,
        "key pair": 1,
        "route table": 1,
        "subnet": 1,
        "security group": 1,
        "internet gateway": 1,
        "network": 1,
        "log group": 1,
    }
    machine = prices.on_demand_price("m7i.xlarge") * 730
    expected = machine + 30 * 0.08 + 6 * 30 * 0.05 + 0.005 * 730 + 0.03
    assert holdings.total(found) == pytest.approx(expected)
    assert holdings.verdict(found, unreadable, ["eu-central-1"]) == (
        f"Left in eu-central-1 and billed: 10 of 20 things ({expected:.2f} USD per month for 10)"
    )

    destroyer = holdings.Destroyer(clients, "studio", "eu-central-1", sleep=lambda seconds: None)
    assert len(destroyer.planned()) == len(found)
    gone = destroyer.run()
    assert gone[0].id == farm["machine"]
    found, unreadable = holdings.survey(clients, "studio", "eu-central-1")
    assert (found, unreadable) == ([], [])
    assert holdings.verdict(found, unreadable, ["eu-central-1"]) == "Nothing is left in eu-central-1"
    assert client.describe_vpcs()["Vpcs"] == []
    assert client.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert holdings.Destroyer(clients, "studio", "eu-central-1").run() == []


def test_what_runs_is_told_at_the_most_it_can_cost(cloud, client, clients, farm):
    stock = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    spot = client.run_instances(
        ImageId=stock,
        InstanceType="c7i.4xlarge",
        SubnetId=client.describe_subnets()["Subnets"][0]["SubnetId"],
        MinCount=1,
        MaxCount=1,
        InstanceMarketOptions={"MarketType": "spot"},
        TagSpecifications=tags("instance"),
    )["Instances"][0]["InstanceId"]

    def machines() -> dict[str, tuple[str, float | None]]:
        found, unreadable = holdings.survey(clients, "studio", "eu-central-1")
        assert unreadable == []
        return {thing.id: (thing.detail, thing.usd_per_month) for thing in found if thing.kind == "instance"}

    assert machines() == {
        farm["machine"]: ("m7i.xlarge, running", prices.on_demand_price("m7i.xlarge") * 730),
        spot: ("c7i.4xlarge, running, spot: at most", prices.on_demand_price("c7i.4xlarge") * 730),
    }
    cloud.deny("GetProducts", True)
    assert [price for _, price in machines().values()] == [None, None]
    found, _ = holdings.survey(clients, "studio", "eu-central-1")
    assert "2 running at a price that is not known" in holdings.verdict(found, [], ["eu-central-1"])


def test_snapshots_that_may_be_another_images_are_told_and_left(cloud, client, clients, farm):
    """Fast Launch does not say of which image they are: without them "nothing is left" would be a guess."""
    image = client.create_image(InstanceId=farm["machine"], Name="somebody-elses")["ImageId"]
    client.describe_images(Owners=["self"])
    client.enable_fast_launch(ImageId=image)
    kind = "Fast Launch snapshot of this farm or of another image"
    found, _ = holdings.survey(clients, "studio", "eu-central-1")
    assert kinds(found)[kind] == 10 and "Fast Launch snapshot" not in kinds(found)
    destroyer = holdings.Destroyer(clients, "studio", "eu-central-1", sleep=lambda seconds: None)
    assert not {thing.kind for thing in destroyer.planned()} & {kind}
    destroyer.run()
    found, unreadable = holdings.survey(clients, "studio", "eu-central-1")
    assert unreadable == [] and set(kinds(found)) == {kind}
    assert re.match(r"Nothing else is left .* 5 Fast Launch", holdings.verdict(found, unreadable, ["eu-central-1"]))


def test_installers_in_s3_are_listed_with_their_price_and_go(cloud, clients, tmp_path):
    s3 = clients("s3")
    for key in ("renderfarm/studio/a/max.msi", "renderfarm/studio2/a/max.msi", "renderfarm/other/b.msi", "own.msi"):
        s3.put_object(Bucket="shared", Key=key, Body=b"x" * 4_000_000)
    for farm in ("studio", "studio2"):
        s3.create_multipart_upload(Bucket="shared", Key=f"renderfarm/{farm}/c/vray.msi")
    assert holdings.survey(clients, "studio", "eu-central-1") == ([], [])
    found, unreadable = holdings.survey(clients, "studio", "eu-central-1", "shared")
    assert unreadable == []
    assert [(thing.kind, thing.id, thing.detail.partition(";")[0][:7]) for thing in found] == [
        ("installer in S3", "s3://shared/renderfarm/studio/a/max.msi", "0.00 GB"),
        ("unfinished upload to S3", "s3://shared/renderfarm/studio/c/vray.msi", "begun 2"),
    ]
    assert holdings.total(found) == pytest.approx(0.004 * 0.0245)
    assert holdings.verdict(found, [], ["eu-central-1"]).endswith(
        "billed: 2 of 2 things (0.00 USD per month for 1, 1 of unknown size)"
    )
    gone = holdings.Destroyer(clients, "studio", "eu-central-1", bucket="shared", sleep=lambda seconds: None).run()
    assert gone == found
    assert holdings.survey(clients, "studio", "eu-central-1", "shared") == ([], [])
    assert {key for _, key in cloud.region.objects} == {
        "renderfarm/studio2/a/max.msi",
        "renderfarm/other/b.msi",
        "own.msi",
    }
    assert [key for _, key, _ in cloud.region.uploads] == ["renderfarm/studio2/c/vray.msi"]


def test_bucket_that_may_not_be_listed_is_never_nothing(cloud, clients):
    cloud.deny("ListObjectsV2", True)
    _, unreadable = holdings.survey(clients, "studio", "eu-central-1", "shared")
    assert [entry.kind for entry in unreadable] == ["installer in S3"]


def test_another_farm_is_left_alone(cloud, client, clients, farm):
    found, _ = holdings.survey(clients, "stud*", "eu-central-1")
    assert set(kinds(found)) == {"Fast Launch snapshot of this farm or of another image"}
    cloud.calls.clear()
    assert holdings.Destroyer(clients, "other", "eu-central-1").run() == []
    assert [call.action for call in cloud.calls if call.mutating] == []


def test_a_farm_whose_name_begins_with_this_ones_keeps_its_log_groups(cloud, clients):
    cloud.region.log_groups.update({"/renderfarm/studio": 1, "/renderfarm/studio/nodes": 1, "/renderfarm/studio2": 1})
    gone = holdings.Destroyer(clients, "studio", "eu-central-1", sleep=lambda seconds: None).run()
    assert [thing.id for thing in gone] == ["/renderfarm/studio", "/renderfarm/studio/nodes"]
    assert list(cloud.region.log_groups) == ["/renderfarm/studio2"]


def test_a_kind_that_cannot_be_listed_is_never_nothing(cloud, clients):
    cloud.deny("DescribeVolumes", True)
    cloud.deny("DescribeLogGroups", True)
    found, unreadable = holdings.survey(clients, "studio", "eu-central-1")
    assert found == [] and [entry.kind for entry in unreadable] == ["volume", "log group"]
    assert "allow the action" in unreadable[0].reason
    text = holdings.verdict(found, unreadable, ["eu-central-1"])
    assert text.startswith("It is not known") and "volume (eu-central-1)" in text
    with pytest.raises(holdings.DestroyError, match="list each volume"):
        holdings.Destroyer(clients, "studio", "eu-central-1").run()


def test_destroying_goes_on_after_it_was_interrupted(cloud, clients, farm):
    cloud.fail_next("DeleteSubnet", "UnauthorizedOperation", 1)
    destroyer = holdings.Destroyer(clients, "studio", "eu-central-1", sleep=lambda seconds: None)
    with pytest.raises(holdings.DestroyError, match="delete the subnet"):
        destroyer.run()
    assert destroyer.deleted
    holdings.Destroyer(clients, "studio", "eu-central-1", sleep=lambda seconds: None).run()
    assert holdings.survey(clients, "studio", "eu-central-1") == ([], [])


def test_what_stays_used_is_told(cloud, clients, farm):
    now = [0.0]
    cloud.fail_next("DeleteVpc", "DependencyViolation", 1000)
    destroyer = holdings.Destroyer(
        clients, "studio", "eu-central-1", sleep=lambda seconds: now.__setitem__(0, now[0] + 60), clock=lambda: now[0]
    )
    with pytest.raises(holdings.DestroyError, match=r"still: network vpc-.*DependencyViolation.*run it again"):
        destroyer.run()
